//! The other direction of a `<=>` rule: both sides change places, so each must be readable as the other's kind.

use super::Compiler;
use gs_text::gsr::ast::{
    AttrPattern, AttrPatternValue, Call, Expr, ExprKind, Name, OpPattern, Pattern, PatternKind, Rule,
};
use gs_text::{Diagnostic, Span};

impl Compiler<'_> {
    /// The rule with its sides exchanged.
    pub(super) fn reverse(&mut self, rule: &Rule) -> Option<Rule> {
        let sides = as_pattern(&rule.template).and_then(|p| Ok((p, as_template(&rule.pattern)?)));
        let problem = match sides {
            Ok(_) if !rule.lets.is_empty() => rule.span,
            Ok((pattern, template)) => {
                return Some(Rule { pattern, template, both_ways: false, ..rule.clone() });
            }
            Err(span) => span,
        };
        let message = "both sides of `<=>` are patterns over the same variables";
        let d = Diagnostic::error("GS0633", message).label(problem, "this has a meaning on one side only");
        self.error(d.help("write two rules with `=>`"));
        None
    }
}

fn name(text: &str, span: Span) -> Name {
    Name { text: text.to_owned(), span }
}

/// A template as a pattern; the place of what cannot be one otherwise.
fn as_pattern(e: &Expr) -> Result<Pattern, Span> {
    let kind = match &e.kind {
        ExprKind::Absent => PatternKind::Absent,
        ExprKind::Var(v) => PatternKind::Var(name(v, e.span)),
        ExprKind::OptionalVar(v) => {
            let inner = Pattern { kind: PatternKind::Var(name(v, e.span)), span: e.span };
            PatternKind::Optional(Box::new(inner))
        }
        ExprKind::Rest(v) => PatternKind::Rest(Some(name(v, e.span))),
        ExprKind::Each { names, source: None, body } => match &body[..] {
            [one] => PatternKind::Each(names.clone(), Box::new(as_pattern(one)?)),
            _ => return Err(e.span),
        },
        ExprKind::Call(call) if call.copy.is_empty() => {
            let args = call.args.iter().map(as_pattern).collect::<Result<_, _>>()?;
            let attrs = call.attrs.iter().map(|(n, e)| as_attr_pattern(n, e)).collect::<Result<_, _>>()?;
            PatternKind::Op(OpPattern { op: call.name.clone(), bind: None, args, attrs, results: None })
        }
        _ => return Err(e.span),
    };
    Ok(Pattern { kind, span: e.span })
}

fn as_attr_pattern(n: &Name, e: &Expr) -> Result<AttrPattern, Span> {
    let value = match &e.kind {
        ExprKind::Var(v) => AttrPatternValue::Var(name(v, e.span)),
        ExprKind::Call(_) | ExprKind::Rest(_) | ExprKind::OptionalVar(_) => return Err(e.span),
        _ => AttrPatternValue::Literal(e.clone()),
    };
    Ok(AttrPattern { name: n.clone(), value })
}

/// A pattern as a template; the place of what cannot be one otherwise.
fn as_template(p: &Pattern) -> Result<Expr, Span> {
    let kind = match &p.kind {
        PatternKind::Absent => ExprKind::Absent,
        PatternKind::Var(n) => ExprKind::Var(n.text.clone()),
        PatternKind::Optional(inner) => match &inner.kind {
            PatternKind::Var(n) => ExprKind::OptionalVar(n.text.clone()),
            _ => return Err(p.span),
        },
        PatternKind::Rest(Some(n)) => ExprKind::Rest(n.text.clone()),
        PatternKind::Each(names, inner) => {
            ExprKind::Each { names: names.clone(), source: None, body: vec![as_template(inner)?] }
        }
        PatternKind::Op(op) if op.bind.is_none() && op.results.is_none() => {
            let args = op.args.iter().map(as_template).collect::<Result<_, _>>()?;
            let attr = |a: &AttrPattern| match &a.value {
                AttrPatternValue::Var(n) => {
                    (a.name.clone(), Expr { kind: ExprKind::Var(n.text.clone()), span: n.span })
                }
                AttrPatternValue::Literal(e) => (a.name.clone(), e.clone()),
            };
            let attrs = op.attrs.iter().map(attr).collect();
            ExprKind::Call(Call { name: op.op.clone(), args, copy: Vec::new(), attrs })
        }
        _ => return Err(p.span),
    };
    Ok(Expr { kind, span: p.span })
}
