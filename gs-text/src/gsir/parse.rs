//! The parser of modules: the state that its parts share, and the order of the parts of a text.

use super::memory::Memory;
use super::parse_global::PendingGlobals;
use super::parse_type::Symbols;
use super::scope::Scope;
use super::weights::WeightFiles;
use crate::cursor::Cursor;
use crate::diagnostics::Diagnostic;
use crate::lexer::TokenKind as K;
use crate::span::{FileId, Span};
use gs_ir::{Fact, Handle, Known, Module, OpId, Registry, Rewriter, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::path::Path;
use std::sync::Arc;

/// A module with the places where its operations stand.
#[derive(Clone)]
pub struct Parsed {
    /// The module.
    pub module: Module,
    op_spans: Vec<Span>,
}

impl Parsed {
    /// Where an operation stands in the text (its line up to its source names; regions not included).
    pub fn op_span(&self, op: OpId) -> Option<Span> {
        self.op_spans.get(op.index()).copied()
    }
}

/// Parses a module. Spans speak of [`FileId`] 0. `base_dir` is where the files lie that the text refers to.
///
/// # Errors
/// Everything that is wrong with the text, in order of place; the parser goes on after an error.
pub fn parse_module(
    src: &str,
    base_dir: Option<&Path>,
    registry: &Arc<Registry>,
) -> Result<Module, Vec<Diagnostic>> {
    parse(src, FileId(0), base_dir, registry).map(|p| p.module)
}

/// As [`parse_module`], for a text of a source map, and with the places of the operations.
///
/// # Errors
/// As [`parse_module`].
pub fn parse(
    src: &str,
    file: FileId,
    base_dir: Option<&Path>,
    registry: &Arc<Registry>,
) -> Result<Parsed, Vec<Diagnostic>> {
    let mut cursor = Cursor::new(file, src);
    let mut module = Module::with_registry(registry.clone());
    let mut parser = Parser::new(&mut cursor, &mut module, registry, base_dir);
    if parser.version(true) {
        parser.items(K::Eof);
    }
    let op_spans = parser.op_spans;
    if cursor.has_errors() { Err(cursor.into_diagnostics()) } else { Ok(Parsed { module, op_spans }) }
}

/// Parses a module that stands within another text, up to the `}` that ends it, which is left. The line `gsir 1` may be
/// missing. `None` where it had errors; they are with the cursor.
pub fn parse_fragment(c: &mut Cursor<'_>, registry: &Arc<Registry>) -> Option<Parsed> {
    let before = c.diagnostics().len();
    let mut module = Module::with_registry(registry.clone());
    let mut parser = Parser::new(c, &mut module, registry, None);
    parser.version(false);
    parser.items(K::RBrace);
    let op_spans = parser.op_spans;
    let ok = !c.diagnostics()[before..].iter().any(Diagnostic::is_error);
    ok.then_some(Parsed { module, op_spans })
}

/// The words that begin the parts of a module.
const PARTS: &[&str] = &[
    "graph",
    "param",
    "state",
    "const",
    "input",
    "dims",
    "target",
    "algorithm",
    "property",
    "onnx",
    "gone",
    "kept",
];

/// What the parts of the parser share.
pub(super) struct Parser<'c, 's, 'm, 'p> {
    pub(super) c: &'c mut Cursor<'s>,
    pub(super) rw: Rewriter<'m>,
    /// That of the module, borrowed from elsewhere so that declarations stay in reach while the module changes.
    pub(super) registry: &'p Registry,
    pub(super) symbols: Symbols,
    pub(super) scope: Scope,
    pub(super) files: WeightFiles<'p>,
    pub(super) pending: PendingGlobals,
    pub(super) graph_names: FxHashSet<String>,
    pub(super) op_spans: Vec<Span>,
    /// What is known of the contents of small integer values.
    pub(super) known: FxHashMap<ValueId, Known>,
    pub(super) memory: Memory<'s>,
    /// Kept between operations, so that each need not allocate.
    pub(super) facts: Vec<Option<Fact>>,
}

impl<'c, 's, 'm, 'p> Parser<'c, 's, 'm, 'p> {
    fn new(
        c: &'c mut Cursor<'s>,
        module: &'m mut Module,
        registry: &'p Registry,
        base_dir: Option<&'p Path>,
    ) -> Self {
        Self {
            c,
            rw: Rewriter::new(module),
            registry,
            symbols: Symbols::default(),
            scope: Scope::default(),
            files: WeightFiles::new(base_dir),
            pending: PendingGlobals::default(),
            graph_names: FxHashSet::default(),
            op_spans: Vec::new(),
            known: FxHashMap::default(),
            memory: Memory::default(),
            facts: Vec::new(),
        }
    }

    /// The line `gsir 1`. False where it is missing and what follows is no module either.
    fn version(&mut self, required: bool) -> bool {
        if !self.c.at_word("gsir") {
            if required {
                let d = Diagnostic::error("GS0102", "this is no module: a module begins with `gsir 1`");
                let span = self.c.span();
                self.c.error(d.label(span, "expected `gsir 1`"));
            }
            return !required || PARTS.contains(&self.c.text());
        }
        let start = self.c.bump();
        let number = self.c.token();
        let version = self.c.int();
        if version.is_some_and(|v| v != 1) {
            let text = self.c.text_of(number);
            let d = Diagnostic::error("GS0103", format!("version {text} of the text form is not known"));
            let span = self.c.span_from(start);
            self.c.error(d.label(span, "").note("this program knows version 1"));
        }
        true
    }

    /// All parts of a module up to a token of the kind that ends them.
    fn items(&mut self, end: K) {
        while !self.c.at(end) && !self.c.at(K::Eof) {
            let mark = self.c.mark();
            if self.item().is_none() {
                self.c.skip_statement(&mark);
                // A `}` that closes nothing would be met again.
                if self.c.at(K::RBrace) && end != K::RBrace {
                    self.c.bump();
                }
            }
        }
        self.finish_globals();
    }

    fn item(&mut self) -> Option<()> {
        let word = if self.c.at(K::Ident) { self.c.text() } else { "" };
        match word {
            "target" | "algorithm" | "property" => self.meta_fact(word),
            "onnx" => self.onnx(),
            "dims" => self.dims(),
            "param" | "state" | "const" | "input" => self.global(),
            "graph" => {
                self.finish_globals();
                self.entry()
            }
            "gone" | "kept" => self.ledger(word),
            _ => self.c.expected_here(&format!("a part of a module ({})", PARTS.join(", "))),
        }
    }
}
