//! Parses graphs: signature, body, `return`. Regions are graphs too.

use super::parse::Parser;
use super::scope::Key;
use super::type_text;
use crate::cursor::{closest, parse_magnitude};
use crate::diagnostics::Diagnostic;
use crate::lexer::{Token, TokenKind as K};
use crate::span::Span;
use gs_ir::verify::contradicts;
use gs_ir::{GlobalId, GraphId, Type, ValueId};
use rustc_hash::FxHashSet;
use std::borrow::Cow;

/// Regions nested deeper than this are refused: they bound the stack.
const MAX_REGIONS: usize = 64;

/// A result in the signature of a graph.
pub(super) struct Declared<'s> {
    name: Cow<'s, str>,
    ty: Type,
    span: Span,
}

impl<'s> Parser<'_, 's, '_, '_> {
    /// `graph @name(params) -> (results) { ... }`.
    pub(super) fn entry(&mut self) -> Option<()> {
        self.c.bump();
        let token = self.c.expect(K::Global)?;
        let name = self.c.sigil_name(token)?;
        if !self.graph_names.insert(name.to_string()) {
            let d = Diagnostic::error("GS0201", format!("the graph `@{name}` is defined twice"));
            self.c.error(d.label(self.c.span_of(token), ""));
        }
        let graph = self.rw.add_graph(&name);
        let done = self.graph(graph, 0);
        self.rw.take_events();
        done
    }

    /// A graph from its parameters to its `}`.
    pub(super) fn graph(&mut self, graph: GraphId, depth: usize) -> Option<()> {
        if depth > MAX_REGIONS {
            let d =
                Diagnostic::error("GS0113", format!("regions are nested deeper than {MAX_REGIONS} levels"));
            let span = self.c.span();
            self.c.error(d.label(span, ""));
            return None;
        }
        let mark = self.scope.open();
        let done = self.graph_inside(graph, depth);
        self.scope.close(mark);
        done
    }

    fn graph_inside(&mut self, graph: GraphId, depth: usize) -> Option<()> {
        let declared = self.signature(graph)?;
        self.c.expect(K::LBrace)?;
        loop {
            match self.c.kind() {
                K::RBrace | K::Eof => {
                    let d = Diagnostic::error("GS0107", "a graph ends with `return`");
                    let span = self.c.span();
                    self.c.error(d.label(span, "expected `return`"));
                    self.c.eat(K::RBrace);
                    return Some(());
                }
                K::Ident if self.c.at_word("return") => break,
                _ => {
                    let mark = self.c.mark();
                    if self.operation(graph, depth).is_none() {
                        self.c.skip_statement(&mark);
                        // A word at the start of a line begins the next part of the text, unless it is an operation's.
                        if self.c.token().first_on_line && self.at_next_part() {
                            return Some(());
                        }
                    }
                }
            }
        }
        let mark = self.c.mark();
        if self.returns(graph, declared).is_none() {
            self.c.skip_statement(&mark);
        }
        if self.c.eat(K::RBrace) {
            return Some(());
        }
        let _: Option<()> = self.c.expected_here("`}` behind `return`");
        while !matches!(self.c.kind(), K::RBrace | K::Eof) && !self.at_next_part() {
            let mark = self.c.mark();
            self.c.skip_statement(&mark);
        }
        self.c.eat(K::RBrace);
        Some(())
    }

    fn at_next_part(&self) -> bool {
        self.c.token().first_on_line && matches!(self.c.text(), "graph" | "gone" | "kept")
    }

    /// Parameters, which are made, and results, which are returned.
    fn signature(&mut self, graph: GraphId) -> Option<Vec<Declared<'s>>> {
        self.c.expect(K::LParen)?;
        while !self.c.at(K::RParen) {
            let token = self.c.expect(K::Value)?;
            self.c.expect(K::Colon)?;
            let ty = self.ty()?;
            let value = self.rw.add_param(graph, "", ty);
            self.define(value, token);
            if !self.c.eat(K::Comma) {
                break;
            }
        }
        self.c.expect(K::RParen)?;
        self.c.expect(K::Arrow)?;
        self.c.expect(K::LParen)?;
        let mut declared: Vec<Declared<'s>> = Vec::new();
        let mut names: FxHashSet<Cow<'s, str>> = FxHashSet::default();
        while !self.c.at(K::RParen) {
            let result = self.declared()?;
            if !result.name.is_empty() && !names.insert(result.name.clone()) {
                let d =
                    Diagnostic::error("GS0201", format!("the result `%{}` is declared twice", result.name));
                self.c.error(d.label(result.span, ""));
            }
            declared.push(result);
            if !self.c.eat(K::Comma) {
                break;
            }
        }
        self.c.expect(K::RParen)?;
        Some(declared)
    }

    fn declared(&mut self) -> Option<Declared<'s>> {
        let start = self.c.token();
        let mut name = Cow::Borrowed("");
        if self.c.at(K::Value) {
            self.c.bump();
            name = self.c.sigil_name(start)?;
            self.c.expect(K::Colon)?;
        }
        let ty = self.ty()?;
        Some(Declared { name, ty, span: self.c.span_from(start) })
    }

    /// `return %a, %b updates { @g = %v ... }`.
    fn returns(&mut self, graph: GraphId, declared: Vec<Declared<'s>>) -> Option<()> {
        let start = self.c.bump();
        let mut values: Vec<(Option<ValueId>, Span)> = Vec::new();
        // A name before `=` begins an operation that stands where none can.
        while matches!(self.c.kind(), K::Value | K::Global) && self.c.peek().kind != K::Equals {
            let span = self.c.span();
            values.push((self.operand()?, span));
            if !self.c.eat(K::Comma) {
                break;
            }
        }
        if values.len() != declared.len() {
            let results = if declared.len() == 1 { "result is" } else { "results are" };
            let message = format!("{} {results} declared, {} returned", declared.len(), values.len());
            let mut d = Diagnostic::error("GS0206", message).label(self.c.span_from(start), "");
            if let (Some(first), Some(last)) = (declared.first(), declared.last()) {
                d = d.label(first.span.to(last.span), "declared here");
            }
            self.c.error(d);
        }
        for ((value, span), result) in values.into_iter().zip(declared) {
            let Some(value) = value else { continue };
            self.check_returned(value, span, &result);
            self.rw.add_result(graph, &result.name, value, Some(result.ty));
        }
        let span = self.c.span();
        if self.c.eat_word("updates") {
            let is_region = !self.rw.graph(graph).parent.is_none();
            if is_region {
                let d = Diagnostic::error("GS0212", "a region does not store to globals").label(span, "");
                let help = "return the value, and store it where the entry graph returns";
                self.c.error(d.help(help));
            }
            self.updates(graph, !is_region)?;
        }
        Some(())
    }

    fn check_returned(&mut self, value: ValueId, span: Span, result: &Declared<'_>) {
        let ty = self.rw.type_of(value);
        if !contradicts(&result.ty, ty) {
            return;
        }
        let (stated, is) = (type_text(&self.rw, &result.ty), type_text(&self.rw, ty));
        let d =
            Diagnostic::error("GS0211", format!("a result is declared as {stated}, but {is} is returned"));
        self.c.error(d.label(span, format!("this is {is}")).label(result.span, "declared here"));
    }

    /// What is wrong in it is said even where nothing may be stored.
    fn updates(&mut self, graph: GraphId, store: bool) -> Option<()> {
        self.c.expect(K::LBrace)?;
        let mut seen: FxHashSet<GlobalId> = FxHashSet::default();
        while !self.c.at(K::RBrace) {
            let token = self.c.expect(K::Global)?;
            let span = self.c.span_of(token);
            let name = self.c.sigil_name(token)?;
            let global = self.global_named(&name, span);
            self.c.expect(K::Equals)?;
            let value = self.operand()?;
            if let (Some(global), Some(value)) = (global, value) {
                if !seen.insert(global) {
                    let d =
                        Diagnostic::error("GS0201", format!("`@{name}` is updated twice")).label(span, "");
                    self.c.error(d);
                } else if store {
                    self.rw.set_update(graph, global, value);
                }
            }
            self.c.eat(K::Comma);
        }
        self.c.bump();
        Some(())
    }

    // ---- names of values ----

    /// The number of a `%` token, or else the name it stands for.
    fn key(&mut self, token: Token) -> Option<(Option<Key>, Cow<'s, str>)> {
        let text = self.c.text_of(token);
        if !text.as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
            return Some((None, self.c.sigil_name(token)?));
        }
        match text.get(1..).and_then(parse_magnitude).and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Some((Some(Key::Number(n)), Cow::Borrowed(""))),
            None => {
                let d = Diagnostic::error("GS0002", "this number is too large for a value");
                self.c.error(d.label(self.c.span_of(token), ""));
                None
            }
        }
    }

    /// Names a value that was just made, by the token that stands for it.
    pub(super) fn define(&mut self, value: ValueId, token: Token) {
        let Some((key, name)) = self.key(token) else { return };
        let span = self.c.span_of(token);
        let key = match key {
            Some(key) => key,
            None => {
                self.rw.set_name(value, &name);
                let sym = self.rw.value(value).name;
                Key::Name(if sym.is_none() { self.rw.intern(&name) } else { sym })
            }
        };
        if let Err(earlier) = self.scope.define(key, value, span) {
            let message = format!("the value `{}` is defined twice", self.c.text_of(token));
            let d = Diagnostic::error("GS0201", message).label(span, "").label(earlier, "first here");
            self.c.error(d);
        }
    }

    /// A value or global where it is used. `Some(None)` where it was reported that there is none.
    #[inline]
    pub(super) fn operand(&mut self) -> Option<Option<ValueId>> {
        let token = self.c.bump();
        if token.kind == K::Global {
            let name = self.c.sigil_name(token)?;
            if let Some(global) = self.rw.global_named(&name) {
                return Some(Some(self.rw.global(global).value));
            }
            self.unknown_global(&name, self.c.span_of(token));
            return Some(None);
        }
        if token.kind != K::Value {
            let d = Diagnostic::error("GS0101", "expected a value (`%name`) or a global (`@name`)");
            self.c.error(d.label(self.c.span_of(token), ""));
            return None;
        }
        let (key, name) = self.key(token)?;
        let key = key.or_else(|| self.rw.find_str(&name).map(Key::Name));
        let found = key.and_then(|k| self.scope.get(k));
        if found.is_none() {
            self.unknown_value(&name, token);
        }
        Some(found)
    }

    #[cold]
    fn unknown_value(&mut self, name: &str, token: Token) {
        let message = format!("there is no value `{}` here", self.c.text_of(token));
        let d = Diagnostic::error("GS0203", message).label(self.c.span_of(token), "");
        let d = match closest(name, self.scope.words(&self.rw)).filter(|_| !name.is_empty()) {
            Some(near) => d.help(format!("did you mean `%{near}`?")),
            None => d.note("a value is defined above its uses; values within a region end with it"),
        };
        self.c.error(d);
    }
}
