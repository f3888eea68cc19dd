//! Patterns.

use super::ast::{AttrPattern, AttrPatternValue, Name, OpPattern, Pattern, PatternKind, ResultPattern};
use super::ast::{Expr, ExprKind};
use super::parser::Parser;
use crate::lexer::TokenKind as K;

impl Parser<'_> {
    /// A pattern for one operand, or for all that follow.
    pub(super) fn pattern(&mut self) -> Option<Pattern> {
        self.nested(|p| {
            let start = p.c.token();
            let base = p.base_pattern()?;
            if !p.c.eat(K::Question) {
                return Some(base);
            }
            Some(Pattern { kind: PatternKind::Optional(Box::new(base)), span: p.c.span_from(start) })
        })
    }

    fn base_pattern(&mut self) -> Option<Pattern> {
        let start = self.c.token();
        let kind = match self.c.kind() {
            K::Underscore => {
                self.c.bump();
                if self.c.eat(K::Ellipsis) { PatternKind::Rest(None) } else { PatternKind::Any }
            }
            K::Var => {
                let name = self.var()?;
                if self.c.eat(K::Ellipsis) {
                    PatternKind::Rest(Some(name))
                } else if self.c.eat(K::Colon) {
                    PatternKind::Bound(name, Box::new(self.nested(Self::base_pattern)?))
                } else {
                    PatternKind::Var(name)
                }
            }
            K::Int | K::HexInt | K::Float | K::Minus => self.number_pattern()?,
            K::LParen => self.alternatives()?,
            K::LBracket => self.wrapped()?,
            K::Ident => return self.word_pattern(),
            _ => return self.c.expected("a pattern"),
        };
        Some(Pattern { kind, span: self.c.span_from(start) })
    }

    fn number_pattern(&mut self) -> Option<PatternKind> {
        match self.expr()?.kind {
            ExprKind::Int(n) => Some(PatternKind::Number(n as f64)),
            ExprKind::Float(f) => Some(PatternKind::Number(f)),
            _ => self.c.expected("a number"),
        }
    }

    /// `(P | Q)`; parentheses around one pattern mean that pattern.
    fn alternatives(&mut self) -> Option<PatternKind> {
        self.c.expect(K::LParen)?;
        let first = self.pattern()?;
        let mut all = vec![first];
        while self.c.eat(K::Pipe) {
            all.push(self.pattern()?);
        }
        if !self.c.eat(K::RParen) {
            return self.c.expected("`|` or `)`");
        }
        match (all.len(), all.pop()) {
            (1, Some(only)) => Some(only.kind),
            (_, Some(last)) => {
                all.push(last);
                Some(PatternKind::Alt(all))
            }
            _ => None,
        }
    }

    /// `[relu | clip {min = 0.0}]?@a(P)`.
    fn wrapped(&mut self) -> Option<PatternKind> {
        self.c.expect(K::LBracket)?;
        let mut ops = Vec::new();
        loop {
            let op = self.name()?;
            let attrs = if self.c.at(K::LBrace) { self.attr_patterns()? } else { Vec::new() };
            ops.push((op, attrs));
            if !self.c.eat(K::Pipe) {
                break;
            }
        }
        if !self.c.eat(K::RBracket) {
            return self.c.expected("`|` or `]`");
        }
        let optional = self.c.eat(K::Question);
        let bind = self.bind()?;
        self.c.expect(K::LParen)?;
        let inner = Box::new(self.pattern()?);
        self.c.expect(K::RParen)?;
        Some(PatternKind::Wrapped { ops, optional, bind, inner })
    }

    fn word_pattern(&mut self) -> Option<Pattern> {
        let start = self.c.token();
        let word = self.word()?;
        let kind = match word.text.as_str() {
            "none" if !self.c.at(K::LParen) => PatternKind::Absent,
            "each" if self.c.at(K::Var) => {
                let mut names = vec![self.var()?];
                while self.c.eat(K::Comma) {
                    names.push(self.var()?);
                }
                self.c.expect(K::Colon)?;
                PatternKind::Each(names, Box::new(self.pattern()?))
            }
            _ => PatternKind::Op(self.op_pattern(word)?),
        };
        Some(Pattern { kind, span: self.c.span_from(start) })
    }

    /// The rest of a pattern for an operation behind its operator.
    pub(super) fn op_pattern(&mut self, op: Name) -> Option<OpPattern> {
        let bind = self.bind()?;
        let args = self.list(K::LParen, K::RParen, Self::pattern)?;
        let attrs = if self.c.at(K::LBrace) { self.attr_patterns()? } else { Vec::new() };
        let results = if self.c.eat(K::Arrow) { Some(self.results()?) } else { None };
        Some(OpPattern { op, bind, args, attrs, results })
    }

    fn attr_patterns(&mut self) -> Option<Vec<AttrPattern>> {
        self.list(K::LBrace, K::RBrace, |p| {
            let name = p.name()?;
            p.c.expect(K::Equals)?;
            let value = match p.expr()? {
                Expr { kind: ExprKind::Var(text), span } => AttrPatternValue::Var(Name { text, span }),
                literal => AttrPatternValue::Literal(literal),
            };
            Some(AttrPattern { name, value })
        })
    }

    fn results(&mut self) -> Option<Vec<ResultPattern>> {
        self.list(K::LParen, K::RParen, |p| {
            let span = p.c.span();
            if p.c.eat(K::Underscore) {
                return Some(ResultPattern::Any(span));
            }
            if p.c.eat_word("unused") {
                let rest = p.c.eat(K::Ellipsis);
                return Some(if rest {
                    ResultPattern::UnusedRest(span)
                } else {
                    ResultPattern::Unused(span)
                });
            }
            if !p.c.at(K::Var) {
                return p.c.expected("a variable, `_` or `unused`");
            }
            let name = p.var()?;
            Some(if p.c.eat(K::Ellipsis) { ResultPattern::Rest(name) } else { ResultPattern::Var(name) })
        })
    }
}
