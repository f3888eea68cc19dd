//! Prints modules. One pass, in text order; types and attribute sets are rendered once and copied where they
//! return; nested regions are walked with an explicit stack.

use super::names::{Names, Written};
use super::options::PrintOptions;
use super::print_attr::push_attrs;
use super::print_type::SymbolNames;
use crate::element::push_uint;
use crate::quote::{push_name, push_quoted};
use gs_ir::{
    AttrsId, GraphId, Handle, LedgerEntry, Module, OpDecl, OpId, OpIter, OpKind, Sym, TypeId, ValueId,
};
use std::fmt;
use std::ops::Range;

/// Text is handed on in pieces of about this size.
const CHUNK: usize = 1 << 16;

/// Prints a module.
///
/// # Errors
/// Only those of `out`.
pub fn print_module(module: &Module, options: &PrintOptions, out: &mut dyn fmt::Write) -> fmt::Result {
    let mut printer = Printer::new(module, options, out);
    printer.header()?;
    printer.globals()?;
    for &graph in module.entries() {
        printer.entry(graph)?;
    }
    if options.provenance {
        printer.ledger("gone", module.gone.iter())?;
        printer.ledger("kept", module.kept.iter())?;
    }
    printer.flush()
}

pub(super) struct Printer<'m, 'o> {
    pub(super) m: &'m Module,
    pub(super) options: &'m PrintOptions,
    pub(super) buf: String,
    out: &'o mut dyn fmt::Write,
    pub(super) symbols: SymbolNames<'m>,
    names: Names<'m>,
    rendered: Rendered,
}

/// Types and attribute sets that were rendered before: where in `text` they stand.
#[derive(Default)]
struct Rendered {
    text: String,
    types: Vec<Range<u32>>,
    attrs: Vec<(OpKind, Range<u32>)>,
}

/// A place in the walk over nested graphs.
enum Frame<'m> {
    /// Within a graph, at a nesting depth, with the mark of its scope of names.
    Ops(OpIter<'m>, GraphId, usize, usize),
    /// Before region `.1` of an operation at a depth.
    Region(OpId, usize, usize),
}

impl<'m, 'o> Printer<'m, 'o> {
    fn new(m: &'m Module, options: &'m PrintOptions, out: &'o mut dyn fmt::Write) -> Self {
        let (symbols, names) = (SymbolNames::new(m), Names::new(m));
        Self {
            m,
            options,
            buf: String::with_capacity(CHUNK + CHUNK / 8),
            out,
            symbols,
            names,
            rendered: Rendered::default(),
        }
    }

    fn flush(&mut self) -> fmt::Result {
        self.out.write_str(&self.buf)?;
        self.buf.clear();
        Ok(())
    }

    #[inline]
    pub(super) fn maybe_flush(&mut self) -> fmt::Result {
        if self.buf.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn push(&mut self, text: &str) {
        self.buf.push_str(text);
    }

    // ---- header and ledger ----

    fn header(&mut self) -> fmt::Result {
        self.push("gsir 1\n");
        let meta = &self.m.meta;
        for (keyword, value) in [("target", &meta.target), ("algorithm", &meta.algorithm)] {
            if let Some(value) = value {
                self.push(keyword);
                self.push(" ");
                push_quoted(&mut self.buf, value);
                self.push("\n");
            }
        }
        for (key, value) in &meta.properties {
            self.push("property ");
            push_quoted(&mut self.buf, key);
            self.push(" = ");
            push_quoted(&mut self.buf, value);
            self.push("\n");
        }
        self.onnx();
        self.dims();
        self.maybe_flush()
    }

    fn onnx(&mut self) {
        let Some(onnx) = &self.m.meta.onnx else { return };
        self.push("onnx {\n");
        for (key, number) in [("ir_version", onnx.ir_version), ("model_version", onnx.model_version)] {
            if number != 0 {
                self.buf.push_str(&format!("  {key} = {number}\n"));
            }
        }
        for (domain, version) in &onnx.opsets {
            self.push("  opset ");
            push_quoted(&mut self.buf, domain);
            self.buf.push_str(&format!(" = {version}\n"));
        }
        let texts = [
            ("producer_name", &onnx.producer_name),
            ("producer_version", &onnx.producer_version),
            ("domain", &onnx.domain),
            ("doc", &onnx.doc),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                self.buf.push_str(&format!("  {key} = "));
                push_quoted(&mut self.buf, text);
                self.push("\n");
            }
        }
        self.push("}\n");
    }

    fn dims(&mut self) {
        for (id, symbol) in self.m.symbols() {
            let printed = symbol.name.is_some() || self.symbols.rank(id).is_some();
            let bounds = [(">=", symbol.min), ("<=", symbol.max)];
            let mut separator = "dims ";
            for (relation, bound) in bounds {
                let Some(bound) = bound.filter(|_| printed) else { continue };
                self.push(separator);
                self.symbols.push_symbol(&mut self.buf, id);
                self.buf.push_str(&format!(" {relation} {bound}"));
                separator = ", ";
            }
            if separator == ", " {
                self.push("\n");
            }
        }
    }

    fn ledger<'a>(
        &mut self,
        table: &str,
        entries: impl Iterator<Item = (&'a Sym, &'a LedgerEntry)>,
    ) -> fmt::Result {
        let m = self.m;
        let mut any = false;
        for (name, entry) in entries {
            if !any {
                self.buf.push_str(&format!("\n{table} {{\n"));
            }
            any = true;
            self.push("  ");
            push_quoted(&mut self.buf, m.str(*name));
            self.push(" = ");
            push_name(&mut self.buf, m.str(entry.code));
            self.push("(");
            push_quoted(&mut self.buf, m.str(entry.rule));
            for (keyword, sym) in [(", into ", entry.into), (", because ", entry.reason)] {
                if let Some(sym) = sym {
                    self.push(keyword);
                    push_quoted(&mut self.buf, m.str(sym));
                }
            }
            self.push(")\n");
            self.maybe_flush()?;
        }
        if any {
            self.push("}\n");
        }
        Ok(())
    }

    // ---- graphs ----

    fn entry(&mut self, graph: GraphId) -> fmt::Result {
        let m = self.m;
        self.names.start_graph();
        self.push("\ngraph @");
        push_name(&mut self.buf, m.str(m.graph(graph).name));
        let mark = self.open_graph(graph);
        let mut stack = vec![Frame::Ops(m.ops_in(graph), graph, 1, mark)];
        while let Some(frame) = stack.pop() {
            match frame {
                Frame::Ops(mut ops, graph, depth, mark) => match ops.next() {
                    Some(op) => {
                        stack.push(Frame::Ops(ops, graph, depth, mark));
                        self.op(op, depth);
                        if m.op(op).regions().is_empty() {
                            self.push("\n");
                        } else {
                            stack.push(Frame::Region(op, 0, depth));
                        }
                    }
                    None => {
                        self.close_graph(graph, depth, mark);
                        if stack.is_empty() {
                            self.push("\n");
                        }
                    }
                },
                Frame::Region(op, index, depth) => match m.op(op).regions().get(index) {
                    Some(&region) => {
                        self.push(" region ");
                        push_name(&mut self.buf, m.str(m.graph(region).name));
                        let mark = self.open_graph(region);
                        stack.push(Frame::Region(op, index + 1, depth));
                        stack.push(Frame::Ops(m.ops_in(region), region, depth + 1, mark));
                    }
                    None => self.push("\n"),
                },
            }
            self.maybe_flush()?;
        }
        Ok(())
    }

    /// The signature of a graph up to its `{`.
    fn open_graph(&mut self, graph: GraphId) -> usize {
        let g = self.m.graph(graph);
        let mark = self.names.open();
        let mut separator = "(";
        for &param in g.params() {
            self.push(separator);
            self.names.define(param);
            self.value(param);
            self.push(" : ");
            self.ty(self.m.value(param).ty);
            separator = ", ";
        }
        self.push(if separator == "(" { "() -> (" } else { ") -> (" });
        separator = "";
        for (name, ty) in g.result_names().zip(g.result_types()) {
            self.push(separator);
            let name = self.m.str(name);
            if !name.is_empty() {
                self.push("%");
                push_name(&mut self.buf, name);
                self.push(" : ");
            }
            self.ty(ty);
            separator = ", ";
        }
        self.push(") {\n");
        mark
    }

    fn close_graph(&mut self, graph: GraphId, depth: usize, mark: usize) {
        let g = self.m.graph(graph);
        self.indent(depth);
        self.push("return");
        let mut separator = " ";
        for value in g.results() {
            self.push(separator);
            self.value(value);
            separator = ", ";
        }
        if g.updates().len() > 0 {
            self.push(" updates {\n");
            for (global, value) in g.updates() {
                self.indent(depth + 1);
                self.push("@");
                push_name(&mut self.buf, self.m.str(self.m.global(global).name));
                self.push(" = ");
                self.value(value);
                self.push("\n");
            }
            self.indent(depth);
            self.push("}");
        }
        self.push("\n");
        self.indent(depth - 1);
        self.push("}");
        self.names.close(mark);
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.buf.push_str("  ");
        }
    }

    /// One operation, without its regions and the end of the line.
    fn op(&mut self, id: OpId, depth: usize) {
        let m = self.m;
        let op = m.op(id);
        let decl = m.decl(id);
        self.indent(depth);
        self.results(op.results());
        self.op_name(decl, m.opaque_name(id));
        self.push("(");
        for (i, operand) in op.operands().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            match operand {
                Some(v) => self.value(v),
                None => self.push("_"),
            }
        }
        self.push(")");
        self.attrs(op.kind, op.attrs);
        let mut separator = " : ";
        for &result in op.results() {
            self.push(separator);
            match result.some() {
                Some(v) => self.ty(m.value(v).ty),
                None => self.push("_"),
            }
            separator = ", ";
        }
        if self.options.provenance {
            let mut separator = " from ";
            for name in m.source(op.source) {
                self.push(separator);
                push_quoted(&mut self.buf, m.str(name));
                separator = ", ";
            }
        }
    }

    fn results(&mut self, results: &[ValueId]) {
        for (i, result) in results.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            match result.some() {
                Some(v) => {
                    self.names.define(v);
                    self.value(v);
                }
                None => self.push("_"),
            }
        }
        if !results.is_empty() {
            self.push(" = ");
        }
    }

    /// The name of an operator; in quotes the name that an opaque one has in its own world.
    pub(super) fn op_name(&mut self, decl: &OpDecl, opaque: Option<&str>) {
        match opaque.filter(|_| decl.name == "opaque") {
            Some(name) => push_quoted(&mut self.buf, name),
            None => self.push(decl.name),
        }
    }

    /// A value where it is used.
    fn value(&mut self, id: ValueId) {
        if let Some(global) = self.m.as_global(id) {
            self.push("@");
            push_name(&mut self.buf, self.m.str(self.m.global(global).name));
            return;
        }
        self.buf.push('%');
        match self.names.get(id) {
            Written::Number(n) => push_uint(&mut self.buf, u64::from(n)),
            Written::Name(name) => push_name(&mut self.buf, name),
            Written::Undefined => self.buf.push_str(&format!("undefined.{}", id.index())),
        }
    }

    pub(super) fn ty(&mut self, id: TypeId) {
        if self.rendered.types.len() <= id.index() {
            self.rendered.types.resize(id.index() + 1, 0..0);
        }
        let range = &mut self.rendered.types[id.index()];
        if range.start == range.end {
            let start = self.rendered.text.len() as u32;
            self.symbols.push_type(&mut self.rendered.text, self.m.ty(id));
            *range = start..self.rendered.text.len() as u32;
        }
        self.buf.push_str(&self.rendered.text[range.start as usize..range.end as usize]);
    }

    fn attrs(&mut self, kind: OpKind, id: AttrsId) {
        let set = self.m.attr_set(id);
        if set.is_empty() {
            return;
        }
        if self.rendered.attrs.len() <= id.index() {
            self.rendered.attrs.resize(id.index() + 1, (OpKind::NONE, 0..0));
        }
        // The text depends on what the operator declares; sets are rarely shared between operators.
        let (known, range) = &mut self.rendered.attrs[id.index()];
        if *known != kind {
            let decl = self.m.registry().decl(kind);
            let start = self.rendered.text.len();
            push_attrs(&mut self.rendered.text, &self.symbols, decl, set);
            if self.rendered.text.len() - start > MAX_KEPT {
                self.buf.push_str(&self.rendered.text[start..]);
                self.rendered.text.truncate(start);
                return;
            }
            *known = kind;
            *range = start as u32..self.rendered.text.len() as u32;
        }
        self.buf.push_str(&self.rendered.text[range.start as usize..range.end as usize]);
    }
}

/// Longer attribute sets than this hold tensors: they are rendered where they stand and not kept.
const MAX_KEPT: usize = 4096;
