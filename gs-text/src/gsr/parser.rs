//! What all parts of the rule parser share: the cursor, a bound on nesting, names and variables.

use super::ast::Name;
use crate::cursor::Cursor;
use crate::diagnostics::Diagnostic;
use crate::lexer::{Lexer, TokenKind as K};
use crate::span::FileId;

/// Patterns and expressions nested deeper than this are refused; bounds the stack.
const MAX_DEPTH: usize = 64;

/// A parser of rule files.
pub(super) struct Parser<'s> {
    pub(super) c: Cursor<'s>,
    pub(super) source: &'s str,
    depth: usize,
}

impl<'s> Parser<'s> {
    pub(super) fn new(file: FileId, text: &'s str) -> Self {
        Self { c: Cursor::over(file, Lexer::new(text).with_docs()), source: text, depth: 0 }
    }

    /// Parses something that may contain itself.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == MAX_DEPTH {
            let message = format!("this is nested more than {MAX_DEPTH} deep");
            self.c.error(Diagnostic::error("GS0501", message).label(self.c.span(), ""));
            return None;
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// A word.
    pub(super) fn word(&mut self) -> Option<Name> {
        let token = self.c.expect(K::Ident)?;
        Some(Name { text: self.c.text_of(token).to_owned(), span: self.c.span_of(token) })
    }

    /// A string.
    pub(super) fn string(&mut self) -> Option<Name> {
        let token = self.c.expect(K::Str)?;
        let text = self.c.string_text(token)?.into_owned();
        Some(Name { text, span: self.c.span_of(token) })
    }

    /// A word, or any name in quotes.
    pub(super) fn name(&mut self) -> Option<Name> {
        if self.c.at(K::Str) { self.string() } else { self.word() }
    }

    /// `$name`.
    pub(super) fn var(&mut self) -> Option<Name> {
        let token = self.c.expect(K::Var)?;
        let text = self.c.sigil_name(token)?.into_owned();
        Some(Name { text, span: self.c.span_of(token) })
    }

    /// `@name` as part of a pattern: the name of an operation.
    pub(super) fn bind(&mut self) -> Option<Option<Name>> {
        if !self.c.at(K::Global) {
            return Some(None);
        }
        let token = self.c.bump();
        let text = self.c.sigil_name(token)?.into_owned();
        Some(Some(Name { text, span: self.c.span_of(token) }))
    }

    /// Items between brackets, separated by commas; a trailing comma is allowed.
    pub(super) fn list<T>(
        &mut self,
        open: K,
        close: K,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.c.expect(open)?;
        let mut out = Vec::new();
        while !self.c.at(close) {
            out.push(item(self)?);
            if !self.c.eat(K::Comma) {
                break;
            }
        }
        if !self.c.eat(close) {
            return self.c.expected(&format!("`,` or {}", close.describe()));
        }
        Some(out)
    }
}
