//! Parses the facts about the whole module and the tables of the ledger.

use super::parse::Parser;
use super::parse_type::parse_symbol;
use crate::diagnostics::Diagnostic;
use crate::lexer::{Token, TokenKind as K};
use gs_ir::{LedgerEntry, OnnxMeta};

/// What `onnx { ... }` may state.
const ONNX_KEYS: &[&str] =
    &["ir_version", "model_version", "opset", "producer_name", "producer_version", "domain", "doc"];

impl Parser<'_, '_, '_, '_> {
    /// `target "..."`, `algorithm "..."`, `property "key" = "value"`.
    pub(super) fn meta_fact(&mut self, word: &str) -> Option<()> {
        let start = self.c.bump();
        let text = self.c.string()?.into_owned();
        if word == "property" {
            self.c.expect(K::Equals)?;
            let value = self.c.string()?.into_owned();
            self.rw.meta.properties.push((text, value));
            return Some(());
        }
        let place = if word == "target" { &mut self.rw.meta.target } else { &mut self.rw.meta.algorithm };
        if place.replace(text).is_some() {
            self.twice(word, start);
        }
        Some(())
    }

    fn twice(&mut self, what: &str, start: Token) {
        let span = self.c.span_from(start);
        self.c.error(Diagnostic::error("GS0104", format!("`{what}` is given twice")).label(span, ""));
    }

    /// `onnx { key = value ... }`.
    pub(super) fn onnx(&mut self) -> Option<()> {
        let start = self.c.bump();
        self.c.expect(K::LBrace)?;
        let mut onnx = OnnxMeta::default();
        while !self.c.eat(K::RBrace) {
            self.onnx_fact(&mut onnx)?;
        }
        if self.rw.meta.onnx.replace(onnx).is_some() {
            self.twice("onnx", start);
        }
        Some(())
    }

    fn onnx_fact(&mut self, onnx: &mut OnnxMeta) -> Option<()> {
        let key = if self.c.at(K::Ident) { self.c.text() } else { "" };
        if !ONNX_KEYS.contains(&key) {
            return self.c.expected_here(&format!("`}}` or one of {}", ONNX_KEYS.join(", ")));
        }
        self.c.bump();
        let domain = if key == "opset" { Some(self.c.string()?.into_owned()) } else { None };
        self.c.expect(K::Equals)?;
        match key {
            "ir_version" => onnx.ir_version = self.c.int()?,
            "model_version" => onnx.model_version = self.c.int()?,
            "opset" => onnx.opsets.push((domain?, self.c.int()?)),
            "producer_name" => onnx.producer_name = self.c.string()?.into_owned(),
            "producer_version" => onnx.producer_version = self.c.string()?.into_owned(),
            "domain" => onnx.domain = self.c.string()?.into_owned(),
            _ => onnx.doc = self.c.string()?.into_owned(),
        }
        Some(())
    }

    /// `dims N >= 1, N <= 64`.
    pub(super) fn dims(&mut self) -> Option<()> {
        self.c.bump();
        loop {
            let start = self.c.token();
            let symbol = parse_symbol(self.c, &mut self.symbols, &mut self.rw)?;
            let least = match self.c.kind() {
                K::GreaterEquals => true,
                K::LessEquals => false,
                _ => return self.c.expected("`>=` or `<=`"),
            };
            self.c.bump();
            let bound = self.c.int()?;
            let info = self.rw.symbol_info(symbol);
            let (min, max) = if least { (Some(bound), info.max) } else { (info.min, Some(bound)) };
            if min.zip(max).is_some_and(|(low, high)| low > high) {
                let span = self.c.span_from(start);
                self.c.error(Diagnostic::error("GS0116", "no number lies in this range").label(span, ""));
            }
            self.rw.set_symbol_range(symbol, min, max);
            if !self.c.eat(K::Comma) {
                return Some(());
            }
        }
    }

    /// `gone { "name" = code("rule", into "name", because "reason") ... }`, and `kept` alike.
    pub(super) fn ledger(&mut self, table: &str) -> Option<()> {
        self.c.bump();
        self.c.expect(K::LBrace)?;
        while !self.c.eat(K::RBrace) {
            let mark = self.c.mark();
            if self.ledger_entry(table).is_none() {
                self.c.skip_statement(&mark);
                if self.c.at(K::Eof) {
                    return Some(());
                }
            }
        }
        Some(())
    }

    fn ledger_entry(&mut self, table: &str) -> Option<()> {
        let start = self.c.token();
        if !self.c.at(K::Str) {
            return self.c.expected_here("the name of a source node in quotes, or `}`");
        }
        let name = self.c.string()?;
        let name = self.rw.intern(&name);
        self.c.expect(K::Equals)?;
        let code = self.c.name()?;
        let code = self.rw.intern(&code);
        self.c.expect(K::LParen)?;
        let rule = self.c.string()?;
        let mut entry = LedgerEntry { code, rule: self.rw.intern(&rule), into: None, reason: None };
        while self.c.eat(K::Comma) {
            let into = self.c.eat_word("into");
            if !into {
                self.c.expect_word("because")?;
            }
            let text = self.c.string()?;
            let text = Some(self.rw.intern(&text));
            if into { entry.into = text } else { entry.reason = text }
        }
        self.c.expect(K::RParen)?;
        let entries = if table == "gone" { &mut self.rw.gone } else { &mut self.rw.kept };
        if entries.insert(name, entry).is_some() {
            let span = self.c.span_from(start);
            let d = Diagnostic::error("GS0105", format!("`{table}` speaks of this source node twice"));
            self.c.error(d.label(span, ""));
        }
        Some(())
    }
}
