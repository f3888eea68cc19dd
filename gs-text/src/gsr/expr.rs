//! Expressions (templates, attributes, arguments) and conditions.

use super::ast::{Call, Cond, CondKind, Expr, ExprKind, Name};
use super::parser::Parser;
use crate::cursor::parse_magnitude;
use crate::diagnostics::Diagnostic;
use crate::lexer::TokenKind as K;

/// What stands between the braces behind a call: operations to copy from, attributes that are given.
pub(super) type Settings = (Vec<Name>, Vec<(Name, Expr)>);

/// What can stand between the braces behind a call.
enum Setting {
    Copy(Name),
    Given(Name, Expr),
}

impl Parser<'_> {
    /// An expression.
    pub(super) fn expr(&mut self) -> Option<Expr> {
        self.nested(Self::expr_inner)
    }

    fn expr_inner(&mut self) -> Option<Expr> {
        let start = self.c.token();
        let kind = match self.c.kind() {
            K::Int | K::HexInt | K::Float | K::HexFloat | K::Minus => self.number()?,
            K::Str => ExprKind::Str(self.string()?.text),
            K::Var => {
                let name = self.var()?.text;
                if self.c.eat(K::Question) {
                    ExprKind::OptionalVar(name)
                } else if self.c.eat(K::Ellipsis) {
                    ExprKind::Rest(name)
                } else {
                    ExprKind::Var(name)
                }
            }
            K::LBracket => ExprKind::List(self.list(K::LBracket, K::RBracket, Self::expr)?),
            K::LParen => {
                let mut all = self.list(K::LParen, K::RParen, Self::expr)?;
                match (all.len(), all.pop()) {
                    (1, Some(only)) => return Some(only),
                    (_, Some(last)) => {
                        all.push(last);
                        ExprKind::Tuple(all)
                    }
                    _ => return self.c.expected("an expression"),
                }
            }
            K::Ident => self.word_expr()?,
            _ => return self.c.expected("an expression"),
        };
        Some(Expr { kind, span: self.c.span_from(start) })
    }

    fn word_expr(&mut self) -> Option<ExprKind> {
        let word = self.word()?;
        if self.c.at(K::LParen) {
            return Some(ExprKind::Call(self.call(word)?));
        }
        if word.text == "each" && self.c.at(K::Var) {
            return self.each();
        }
        Some(match word.text.as_str() {
            "none" => ExprKind::Absent,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "nan" => ExprKind::Float(f64::NAN),
            "inf" => ExprKind::Float(f64::INFINITY),
            _ => ExprKind::Word(word.text),
        })
    }

    /// A number; infinity and NaN have no sign but a minus makes the former negative.
    fn number(&mut self) -> Option<ExprKind> {
        let start = self.c.token();
        let negative = self.c.eat(K::Minus);
        let token = self.c.token();
        let text = self.c.text();
        let kind = match token.kind {
            K::Int | K::HexInt => parse_magnitude(text).and_then(|m| {
                let m = i128::from(m);
                i64::try_from(if negative { -m } else { m }).ok().map(ExprKind::Int)
            }),
            K::Float => text.parse::<f64>().ok().map(|f| ExprKind::Float(if negative { -f } else { f })),
            K::Ident if negative && text == "inf" => Some(ExprKind::Float(f64::NEG_INFINITY)),
            K::HexFloat => None,
            _ => return self.c.expected("a number"),
        };
        self.c.bump();
        if kind.is_none() {
            let span = self.c.span_from(start);
            self.c.error(Diagnostic::error("GS0002", "this number cannot be read here").label(span, ""));
        }
        kind
    }

    /// The rest of a call behind its name.
    pub(super) fn call(&mut self, name: Name) -> Option<Call> {
        let args = self.list(K::LParen, K::RParen, Self::expr)?;
        let (copy, attrs) = if self.c.at(K::LBrace) { self.settings()? } else { (Vec::new(), Vec::new()) };
        Some(Call { name, args, copy, attrs })
    }

    /// `{..$c, group = 1}`.
    pub(super) fn settings(&mut self) -> Option<Settings> {
        let all = self.list(K::LBrace, K::RBrace, |p| {
            if p.c.eat(K::DotDot) {
                return Some(Setting::Copy(p.var()?));
            }
            let name = p.name()?;
            p.c.expect(K::Equals)?;
            Some(Setting::Given(name, p.expr()?))
        })?;
        let (mut copy, mut given) = (Vec::new(), Vec::new());
        for setting in all {
            match setting {
                Setting::Copy(n) => copy.push(n),
                Setting::Given(n, e) => given.push((n, e)),
            }
        }
        Some((copy, given))
    }

    /// The rest of `each $q, $s: E` or `each $v in SOURCE: E`.
    fn each(&mut self) -> Option<ExprKind> {
        let mut names = vec![self.var()?];
        while self.c.eat(K::Comma) {
            names.push(self.var()?);
        }
        let source = if self.c.eat_word("in") { Some(Box::new(self.expr()?)) } else { None };
        self.c.expect(K::Colon)?;
        let mut body = vec![self.expr()?];
        while self.c.at(K::Comma) && self.c.peek().kind != K::RParen {
            self.c.bump();
            body.push(self.expr()?);
        }
        Some(ExprKind::Each { names, source, body })
    }

    /// `COND, COND, ...`.
    pub(super) fn conds(&mut self) -> Option<Vec<Cond>> {
        let mut all = vec![self.cond()?];
        while self.c.eat(K::Comma) {
            all.push(self.cond()?);
        }
        Some(all)
    }

    fn cond(&mut self) -> Option<Cond> {
        self.nested(|p| p.joined("or", CondKind::Or, |p| p.joined("and", CondKind::And, Self::unary_cond)))
    }

    /// Conditions joined by a word; one alone stays as it is.
    fn joined(
        &mut self,
        word: &str,
        make: fn(Vec<Cond>) -> CondKind,
        mut part: impl FnMut(&mut Self) -> Option<Cond>,
    ) -> Option<Cond> {
        let start = self.c.token();
        let first = part(self)?;
        if !self.c.at_word(word) {
            return Some(first);
        }
        let mut all = vec![first];
        while self.c.eat_word(word) {
            all.push(part(self)?);
        }
        Some(Cond { kind: make(all), span: self.c.span_from(start) })
    }

    fn unary_cond(&mut self) -> Option<Cond> {
        self.nested(|p| {
            let start = p.c.token();
            if p.c.eat_word("not") {
                let inner = p.unary_cond()?;
                return Some(Cond { kind: CondKind::Not(Box::new(inner)), span: p.c.span_from(start) });
            }
            if p.c.eat(K::LParen) {
                let inner = p.cond()?;
                p.c.expect(K::RParen)?;
                return Some(inner);
            }
            if !p.c.at(K::Ident) {
                return p.c.expected("a condition");
            }
            let name = p.word()?;
            if !p.c.at(K::LParen) {
                return p.c.expected("`(`");
            }
            let args = p.list(K::LParen, K::RParen, Self::expr)?;
            let call = Call { name, args, copy: Vec::new(), attrs: Vec::new() };
            Some(Cond { kind: CondKind::Call(call), span: p.c.span_from(start) })
        })
    }
}
