//! The file, its header, and its items.

use super::ast::{
    Cond, Driver, Emit, EmitArg, Example, Expr, Grad, Header, Insert, InsertSite, Item, Name, NewGlobal,
    Pattern, Per, Rule, RuleFile, Snippet, Strictness,
};
use super::parser::Parser;
use crate::diagnostics::Diagnostic;
use crate::lexer::{Token, TokenKind as K};
use crate::span::Span;

/// The version of the language that is read.
const VERSION: i64 = 1;

/// What a rule is made of besides name and pattern, in any order.
#[derive(Default)]
struct Clauses {
    template: Option<(Expr, bool)>,
    lets: Vec<(Name, Expr)>,
    conditions: Vec<Cond>,
    note: Option<Name>,
    examples: Vec<Example>,
}

impl Parser<'_> {
    /// A whole file. An item with an error is skipped; the next one is looked at.
    pub(super) fn file(mut self) -> Result<RuleFile, Vec<Diagnostic>> {
        let mut file = RuleFile { header: None, items: Vec::new() };
        if self.version().is_some() {
            self.items(&mut file);
        }
        if self.c.has_errors() { Err(self.c.into_diagnostics()) } else { Ok(file) }
    }

    fn version(&mut self) -> Option<()> {
        while self.c.at(K::Doc) {
            self.c.bump();
        }
        self.c.expect_word("gsr")?;
        let span = self.c.span();
        let version = self.c.int()?;
        if version != VERSION {
            let message = format!("version {version} of the rule language is not known");
            let help = format!("this program reads version {VERSION}");
            self.c.error(Diagnostic::error("GS0502", message).label(span, "").help(help));
            return None;
        }
        Some(())
    }

    fn items(&mut self, file: &mut RuleFile) {
        while !self.c.at(K::Eof) {
            let doc = self.doc();
            let done = match (self.c.kind(), self.c.text()) {
                (K::Eof, _) => return,
                (K::Ident, "ruleset") => self.header().map(|h| self.set_header(file, h)),
                (K::Ident, "rule") => self.rule(doc).map(|r| file.items.push(Item::Rule(r))),
                (K::Ident, "insert") => self.insert(doc).map(|i| file.items.push(Item::Insert(i))),
                (K::Ident, "grad") => self.grad(doc).map(|g| file.items.push(Item::Grad(g))),
                _ => self.c.expected("`rule`, `insert` or `grad`"),
            };
            if done.is_none() {
                self.skip_item();
            }
        }
    }

    fn set_header(&mut self, file: &mut RuleFile, header: Header) {
        if let Some(first) = &file.header {
            let d = Diagnostic::error("GS0503", "a file has one header").label(header.span, "a second one");
            self.c.error(d.label(first.span, "the first one"));
        } else if let Some(item) = file.items.first() {
            let d = Diagnostic::error("GS0503", "the header stands before all rules").label(header.span, "");
            self.c.error(d.label(item.name().span, "the first rule"));
        } else {
            file.header = Some(header);
        }
    }

    /// Skips to what looks like the next item.
    fn skip_item(&mut self) {
        loop {
            let token = self.c.token();
            let starts = token.first_on_line && matches!(self.c.text(), "rule" | "insert" | "grad");
            if token.kind == K::Eof || starts && token.kind == K::Ident || token.kind == K::Doc {
                return;
            }
            self.c.bump();
        }
    }

    fn doc(&mut self) -> String {
        let mut lines = Vec::new();
        while self.c.at(K::Doc) {
            let token = self.c.bump();
            lines.push(self.c.text_of(token).trim_start_matches('/').trim().to_owned());
        }
        lines.join("\n").trim().to_owned()
    }

    fn header(&mut self) -> Option<Header> {
        let start = self.c.bump();
        let name = self.string()?;
        let (mut driver, mut target) = (Driver::default(), None);
        self.list(K::LBrace, K::RBrace, |p| {
            if p.c.eat_word("driver") {
                p.c.expect(K::Equals)?;
                driver = p.driver()?;
            } else if p.c.eat_word("target") {
                p.c.expect(K::Equals)?;
                target = Some(p.string()?);
            } else {
                return p.c.expected("`driver` or `target`");
            }
            Some(())
        })?;
        Some(Header { name, driver, target, span: self.c.span_from(start) })
    }

    fn driver(&mut self) -> Option<Driver> {
        let word = self.c.text();
        match Driver::ALL.iter().find(|(_, n)| *n == word && self.c.at(K::Ident)) {
            Some((driver, _)) => {
                self.c.bump();
                Some(*driver)
            }
            None => {
                let names: Vec<String> = Driver::ALL.iter().map(|(_, n)| format!("`{n}`")).collect();
                self.c.expected(&format!("one of {}", names.join(", ")))
            }
        }
    }

    // ---- rules ----

    fn rule(&mut self, doc: String) -> Option<Rule> {
        let start = self.c.bump();
        let strictness = self.strictness()?;
        let name = self.word()?;
        let pattern = self.pattern()?;
        let mut clauses = Clauses::default();
        while self.clause(&mut clauses)? {}
        let Some((template, both_ways)) = clauses.template else {
            return self.c.expected("`=>` and what stands there instead");
        };
        let span = Span { end: name.span.end, ..self.c.span_of(start) };
        let Clauses { lets, conditions, note, examples, .. } = clauses;
        Some(Rule {
            doc,
            strictness,
            name,
            pattern,
            lets,
            template,
            both_ways,
            conditions,
            note,
            examples,
            span,
        })
    }

    fn strictness(&mut self) -> Option<Strictness> {
        if self.c.eat_word("exact") {
            return Some(Strictness::Exact);
        }
        if self.c.eat_word("real") {
            return Some(Strictness::Real);
        }
        if !self.c.eat_word("codes") {
            return self.c.expected("how closely both sides agree (`exact`, `codes(n)` or `real`)");
        }
        self.c.expect(K::LParen)?;
        let span = self.c.span();
        let steps = self.c.int()?;
        self.c.expect(K::RParen)?;
        match u32::try_from(steps) {
            Ok(n) if n > 0 => Some(Strictness::Codes(n)),
            _ => {
                let d = Diagnostic::error("GS0504", "a number of grid steps is at least 1").label(span, "");
                self.c.error(d.help("a rule that changes no code is `exact`"));
                None
            }
        }
    }

    /// One clause of a rule; `false` where none begins here.
    fn clause(&mut self, out: &mut Clauses) -> Option<bool> {
        let here = self.c.span();
        if self.c.at(K::FatArrow) || self.c.at(K::BothArrow) {
            let both = self.c.bump().kind == K::BothArrow;
            let template = self.expr()?;
            if out.template.is_some() {
                self.c.error(
                    Diagnostic::error("GS0505", "a rule has one right side").label(here, "a second one"),
                );
                return None;
            }
            out.template = Some((template, both));
        } else if self.c.eat_word("let") {
            let binding = self.let_binding()?;
            out.lets.push(binding);
        } else if self.c.eat_word("where") {
            let conds = self.conds()?;
            out.conditions.extend(conds);
        } else if self.c.eat_word("note") {
            out.note = Some(self.string()?);
        } else if self.c.at_word("example") {
            let example = self.example()?;
            out.examples.push(example);
        } else {
            return Some(false);
        }
        Some(true)
    }

    fn let_binding(&mut self) -> Option<(Name, Expr)> {
        let name = self.var()?;
        self.c.expect(K::Equals)?;
        Some((name, self.expr()?))
    }

    fn example(&mut self) -> Option<Example> {
        self.c.bump();
        let title = self.string()?;
        let before = self.snippet()?;
        self.c.expect(K::FatArrow)?;
        let after = if self.c.eat_word("same") { None } else { Some(self.snippet()?) };
        Some(Example { title, before, after })
    }

    /// `{ ... }` with balanced braces, as text. The tokens of `.gsir` are ours, so that strings and comments that
    /// hold braces are seen for what they are.
    fn snippet(&mut self) -> Option<Snippet> {
        let open: Token = self.c.expect(K::LBrace)?;
        let mut depth = 1usize;
        loop {
            match self.c.kind() {
                K::LBrace => depth += 1,
                K::RBrace => depth -= 1,
                K::Eof => {
                    let d = Diagnostic::error("GS0506", "this brace is not closed")
                        .label(self.c.span_of(open), "");
                    self.c.error(d);
                    return None;
                }
                _ => {}
            }
            let token = self.c.bump();
            if depth == 0 {
                let text = self.source.get(open.end as usize..token.start as usize).unwrap_or("");
                return Some(Snippet { text: text.to_owned(), span: self.c.span_from(open) });
            }
        }
    }

    // ---- insertions ----

    fn insert(&mut self, doc: String) -> Option<Insert> {
        let start = self.c.bump();
        let name = self.word()?;
        self.c.expect_word("match")?;
        let pattern: Pattern = self.pattern()?;
        self.c.expect_word("at")?;
        let site = if self.c.eat_word("use") {
            InsertSite::Use
        } else if self.c.eat_word("value") {
            InsertSite::Value
        } else if self.c.eat_word("class") {
            InsertSite::Class
        } else {
            return self.c.expected("`use`, `value` or `class`");
        };
        let var = self.var()?;
        let conditions = if self.c.eat_word("where") { self.conds()? } else { Vec::new() };
        self.c.expect_word("emit")?;
        let emit = self.emit()?;
        let replace = self.c.eat_word("replace");
        let mut examples = Vec::new();
        while self.c.at_word("example") {
            examples.push(self.example()?);
        }
        let span = Span { end: name.span.end, ..self.c.span_of(start) };
        Some(Insert { doc, name, pattern, site, var, conditions, emit, replace, examples, span })
    }

    fn emit(&mut self) -> Option<Emit> {
        let start = self.c.token();
        let op = self.name()?;
        let args = self.list(K::LParen, K::RParen, Self::emit_arg)?;
        let attrs = if self.c.at(K::LBrace) {
            self.list(K::LBrace, K::RBrace, |p| {
                let name = p.name()?;
                p.c.expect(K::Equals)?;
                Some((name, p.expr()?))
            })?
        } else {
            Vec::new()
        };
        Some(Emit { op, args, attrs, span: self.c.span_from(start) })
    }

    fn emit_arg(&mut self) -> Option<EmitArg> {
        let start = self.c.token();
        if self.c.at(K::Var) {
            return Some(EmitArg::Site(self.var()?));
        }
        if self.c.eat_word("none") {
            return Some(EmitArg::Absent(self.c.span_from(start)));
        }
        if !matches!(self.c.text(), "state" | "param" | "const") {
            return self.c.expected("a variable, `none`, or a new `state`, `param` or `const`");
        }
        let role = self.word()?;
        let name = self.name()?;
        self.c.expect(K::Colon)?;
        let elem = self.word()?;
        let dims = self.list(K::LBracket, K::RBracket, Self::expr)?;
        self.c.expect_word("per")?;
        let here = self.c.span();
        let per = if self.c.eat_word("class") {
            Per::Class(here)
        } else if self.c.eat_word("rule") {
            Per::Rule(here)
        } else {
            Per::Value(self.var()?)
        };
        self.c.expect(K::Equals)?;
        let init = self.expr()?;
        let span = self.c.span_from(start);
        Some(EmitArg::Global(Box::new(NewGlobal { role, name, elem, dims, per, init, span })))
    }

    // ---- gradients ----

    fn grad(&mut self, doc: String) -> Option<Grad> {
        let start = self.c.bump();
        let op = self.name()?;
        let pattern = self.op_pattern(op.clone())?;
        self.c.expect_word("given")?;
        let given = self.list(K::LParen, K::RParen, |p| {
            if p.c.eat(K::Underscore) { Some(None) } else { p.var().map(Some) }
        })?;
        let mut lets = Vec::new();
        while self.c.eat_word("let") {
            lets.push(self.let_binding()?);
        }
        self.c.expect(K::FatArrow)?;
        let gradients = self.list(K::LParen, K::RParen, |p| {
            let mut names = vec![p.var()?];
            while p.c.eat(K::Comma) {
                names.push(p.var()?);
            }
            p.c.expect(K::Colon)?;
            Some((names, p.expr()?))
        })?;
        let conditions = if self.c.eat_word("where") { self.conds()? } else { Vec::new() };
        let span = Span { end: op.span.end, ..self.c.span_of(start) };
        Some(Grad { doc, op, pattern, given, lets, gradients, conditions, span })
    }
}
