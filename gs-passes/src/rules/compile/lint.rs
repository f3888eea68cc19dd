//! Findings about rules that are each right but not together, or that may not end.

use super::super::rule::{
    AttrPat, CExpr, Cond, EachSource, OpPat, OpTmpl, Pat, Rest, Rule, RuleSet, Slot, Tmpl,
};
use super::Compiler;
use gs_text::Diagnostic;
use std::collections::BTreeMap;

impl Compiler<'_> {
    /// Looks at a whole file.
    pub(super) fn lint(&mut self, set: &RuleSet) {
        let mut order: Vec<&Rule> = set.rules.iter().collect();
        // As drivers try them: bigger patterns first, ties in file order.
        order.sort_by_key(|r| std::cmp::Reverse(r.size));
        for (i, later) in order.iter().enumerate() {
            self.covered(&order[..i], later);
            if set.driver != gs_text::gsr::Driver::Egraph {
                self.grows(later);
            }
            if set.driver.is_equality() {
                self.graph_only(later);
            }
        }
    }

    /// A rule that an earlier one makes pointless.
    fn covered(&mut self, earlier: &[&Rule], rule: &Rule) {
        // Rules of one name are reported for that already.
        let before = |r: &&&Rule| {
            r.reversed == rule.reversed && r.strictness <= rule.strictness && r.name != rule.name
        };
        for first in earlier.iter().filter(before) {
            let mut renaming = Renaming::default();
            if !renaming.pattern(&first.pattern, &rule.pattern) {
                continue;
            }
            let text = |r: &Rule, name: &dyn Fn(Slot) -> Slot| fingerprint(r, name);
            let renamed = text(first, &|s| renaming.map.get(&s).copied().unwrap_or(s));
            if renaming.is_exact && renamed == text(rule, &|s| s) {
                let message = format!("`{}` and `{}` are the same rule", first.name, rule.name);
                let d = Diagnostic::error("GS0640", message);
                self.error(d.label(rule.span, "the second").label(first.span, "the first"));
            } else if first.conditions.is_empty() && !may_refuse(first) {
                let message = format!(
                    "`{}` never fires: `{}` is tried before it and matches whatever it does",
                    rule.name, first.name
                );
                let d = Diagnostic::warning("GS0641", message);
                self.error(d.label(rule.span, "this one is shadowed").label(first.span, "by this one"));
            }
        }
    }

    /// A rule that matches what it makes.
    fn grows(&mut self, rule: &Rule) {
        if !rule.conditions.is_empty() || rule.reversed {
            return;
        }
        let mut templates: Vec<&Tmpl> = vec![&rule.template];
        templates.extend(rule.lets.iter().map(|(_, t)| t));
        while let Some(t) = templates.pop() {
            let Tmpl::Op(op) = t else { continue };
            if may_match(&rule.pattern, t) {
                let message = format!("`{}` matches what it makes, so it never ends", rule.name);
                let d = Diagnostic::warning("GS0642", message).label(rule.span, "");
                self.error(
                    d.label(op.span, "this fits the pattern again").help("a condition can make it end"),
                );
                return;
            }
            templates.extend(&op.args);
        }
    }

    /// Conditions on uses have no meaning in an e-graph.
    fn graph_only(&mut self, rule: &Rule) {
        let mut found = Vec::new();
        let mut visit = |f: &super::super::functions::Function, span| {
            if f.graph_only {
                found.push((f.name, span));
            }
        };
        rule.conditions.iter().for_each(|c| c.visit_calls(&mut visit));
        rule.template.visit_exprs(&mut |e| e.visit_calls(&mut visit));
        rule.lets.iter().for_each(|(_, t)| t.visit_exprs(&mut |e| e.visit_calls(&mut visit)));
        for (name, span) in found {
            let message = format!("`{name}` asks who uses a value, which has no meaning in an e-graph");
            let d = Diagnostic::error("GS0643", message).label(span, "").label(rule.span, "in this rule");
            self.error(d.help("put the rule in a set with `driver = greedy`"));
        }
    }
}

impl Tmpl {
    /// Calls `f` for every expression in it.
    pub fn visit_exprs(&self, f: &mut dyn FnMut(&CExpr)) {
        match self {
            Tmpl::Absent | Tmpl::Var(..) | Tmpl::Rest(_) => {}
            Tmpl::Const(e) => f(e),
            Tmpl::Op(op) => op.visit_exprs(f),
            Tmpl::Tuple(all) => all.iter().for_each(|t| t.visit_exprs(f)),
            Tmpl::Each(each) => {
                if let EachSource::Results(op) = &each.source {
                    op.visit_exprs(f);
                }
                each.body.iter().for_each(|t| t.visit_exprs(f));
            }
        }
    }
}

impl OpTmpl {
    fn visit_exprs(&self, f: &mut dyn FnMut(&CExpr)) {
        self.args.iter().for_each(|t| t.visit_exprs(f));
        self.attrs.iter().for_each(|(_, e)| f(e));
    }
}

/// Whether a rule's template may turn out not to fit, because a function has no answer.
fn may_refuse(rule: &Rule) -> bool {
    let mut calls = false;
    let mut visit = |e: &CExpr| e.visit_calls(&mut |_, _| calls = true);
    rule.template.visit_exprs(&mut visit);
    rule.lets.iter().for_each(|(_, t)| t.visit_exprs(&mut visit));
    calls
}

/// Finds variables of a more general pattern in a more special one.
struct Renaming {
    map: BTreeMap<Slot, Slot>,
    /// Whether both are equal up to names.
    is_exact: bool,
}

impl Default for Renaming {
    fn default() -> Self {
        Self { map: BTreeMap::new(), is_exact: true }
    }
}

impl Renaming {
    fn slot(&mut self, a: Slot, b: Slot) -> bool {
        *self.map.entry(a).or_insert(b) == b
    }

    /// Whether whatever `b` matches, `a` matches too.
    fn pattern(&mut self, a: &Pat, b: &Pat) -> bool {
        match (a, b) {
            (Pat::Any, Pat::Any) | (Pat::Absent, Pat::Absent) => true,
            (Pat::Any, _) => {
                self.is_exact = false;
                true
            }
            (Pat::Var(x), Pat::Var(y)) => self.slot(*x, *y),
            (Pat::Var(x), Pat::Bound(y, _)) => {
                self.is_exact = false;
                self.slot(*x, *y)
            }
            // A variable that stands once takes any value; one that repeats might not, so it is left alone.
            (Pat::Var(x), Pat::Op(_) | Pat::Number(_)) if !self.map.contains_key(x) => {
                self.is_exact = false;
                self.map.insert(*x, usize::MAX - self.map.len());
                true
            }
            (Pat::Number(x), Pat::Number(y)) => x.to_bits() == y.to_bits(),
            (Pat::Optional(x), Pat::Optional(y)) => self.pattern(x, y),
            (Pat::Optional(x), _) => {
                self.is_exact = false;
                matches!(b, Pat::Absent) || self.pattern(x, b)
            }
            (Pat::Bound(x, p), Pat::Bound(y, q)) => self.slot(*x, *y) && self.pattern(p, q),
            (Pat::Bound(_, p), _) => {
                self.is_exact = false;
                self.pattern(p, b)
            }
            (_, Pat::Bound(_, q)) => {
                self.is_exact = false;
                self.pattern(a, q)
            }
            (Pat::Op(x), Pat::Op(y)) => self.op(x, y),
            (Pat::Alt(xs), Pat::Alt(ys)) => {
                xs.len() == ys.len() && xs.iter().zip(ys).all(|(x, y)| self.pattern(x, y))
            }
            (Pat::Wrapped(x), Pat::Wrapped(y)) => {
                let same_ops = x.ops.len() == y.ops.len()
                    && x.ops.iter().zip(&y.ops).all(|((k, a), (l, b))| k == l && self.attrs(a, b));
                let binds = match (x.bind, y.bind) {
                    (Some(a), Some(b)) => self.slot(a, b),
                    _ => true,
                };
                same_ops && binds && x.optional == y.optional && self.pattern(&x.inner, &y.inner)
            }
            _ => false,
        }
    }

    fn op(&mut self, a: &OpPat, b: &OpPat) -> bool {
        let binds = match (a.bind, b.bind) {
            (Some(x), Some(y)) => self.slot(x, y),
            (None, None) => true,
            _ => {
                self.is_exact = false;
                true
            }
        };
        // What is asked of several results is compared only where nothing is.
        let plain = a.results.is_none() && b.results.is_none();
        let rest = match (&a.rest, &b.rest) {
            (None, None) => true,
            (Some(Rest::Any), Some(Rest::Any)) => true,
            (Some(Rest::Values(x)), Some(Rest::Values(y))) => self.slot(*x, *y),
            (Some(Rest::Each(xs, p)), Some(Rest::Each(ys, q))) => {
                xs.len() == ys.len()
                    && xs.iter().zip(ys).all(|(x, y)| self.slot(*x, *y))
                    && self.pattern(p, q)
            }
            _ => false,
        };
        binds
            && plain
            && rest
            && a.kind == b.kind
            && a.args.len() == b.args.len()
            && self.attrs(&a.attrs, &b.attrs)
            && a.args.iter().zip(&b.args).all(|(p, q)| self.pattern(p, q))
    }

    fn attrs(
        &mut self,
        a: &[(&'static gs_ir::registry::AttrDecl, AttrPat)],
        b: &[(&'static gs_ir::registry::AttrDecl, AttrPat)],
    ) -> bool {
        self.is_exact &= a.len() == b.len();
        a.iter().all(|(attr, x)| {
            let other = b.iter().find(|(o, _)| o.name == attr.name).map(|(_, p)| p);
            match (x, other) {
                (AttrPat::Is(x), Some(AttrPat::Is(y))) => x == y,
                (AttrPat::Var(x), Some(AttrPat::Var(y))) => self.slot(*x, *y),
                // It takes whatever stands there, as long as it stands in one place.
                (AttrPat::Var(x), _) if !self.map.contains_key(x) => {
                    self.is_exact = false;
                    self.map.insert(*x, usize::MAX - self.map.len());
                    true
                }
                _ => false,
            }
        })
    }
}

/// Template, lets and conditions of a rule as text, with its variables renamed.
fn fingerprint(rule: &Rule, name: &dyn Fn(Slot) -> Slot) -> String {
    let mut out = String::new();
    for (_, t) in &rule.lets {
        print_tmpl(&mut out, t, name);
        out.push(';');
    }
    print_tmpl(&mut out, &rule.template, name);
    for c in &rule.conditions {
        out.push(',');
        print_cond(&mut out, c, name);
    }
    out
}

fn print_tmpl(out: &mut String, t: &Tmpl, name: &dyn Fn(Slot) -> Slot) {
    match t {
        Tmpl::Absent => out.push_str("none"),
        Tmpl::Var(s, opt) => out.push_str(&format!("${}{}", name(*s), if *opt { "?" } else { "" })),
        Tmpl::Rest(s) => out.push_str(&format!("${}...", name(*s))),
        Tmpl::Const(e) => print_expr(out, e, name),
        Tmpl::Op(op) => print_op(out, op, name),
        Tmpl::Tuple(all) => all.iter().for_each(|t| {
            print_tmpl(out, t, name);
            out.push('|');
        }),
        Tmpl::Each(e) => {
            out.push_str("each ");
            e.slots.iter().for_each(|s| out.push_str(&format!("${} ", name(*s))));
            match &e.source {
                EachSource::Own => {}
                EachSource::List(s) => out.push_str(&format!("in ${}", name(*s))),
                EachSource::Results(op) => print_op(out, op, name),
            }
            e.body.iter().for_each(|t| print_tmpl(out, t, name));
        }
    }
}

fn print_op(out: &mut String, op: &OpTmpl, name: &dyn Fn(Slot) -> Slot) {
    out.push_str(&format!("{:?}(", op.kind));
    for t in &op.args {
        print_tmpl(out, t, name);
        out.push(',');
    }
    out.push_str("){");
    op.copy.iter().for_each(|s| out.push_str(&format!("..${},", name(*s))));
    for (a, e) in &op.attrs {
        out.push_str(a.name);
        out.push('=');
        print_expr(out, e, name);
    }
    out.push('}');
}

fn print_expr(out: &mut String, e: &CExpr, name: &dyn Fn(Slot) -> Slot) {
    match e {
        CExpr::Attr(a) => out.push_str(&format!("{a:?}")),
        CExpr::Word(w) => out.push_str(w),
        CExpr::Var(s, _) => out.push_str(&format!("${}", name(*s))),
        CExpr::Own(a, _) => out.push_str(a.name),
        CExpr::List(all, _) => all.iter().for_each(|e| {
            print_expr(out, e, name);
            out.push(',');
        }),
        CExpr::Call(f, args, _) => {
            out.push_str(f.name);
            out.push('(');
            args.iter().for_each(|e| {
                print_expr(out, e, name);
                out.push(',');
            });
            out.push(')');
        }
    }
}

fn print_cond(out: &mut String, c: &Cond, name: &dyn Fn(Slot) -> Slot) {
    match c {
        Cond::Call(f, args, _) => {
            out.push_str(f.name);
            out.push('(');
            args.iter().for_each(|e| {
                print_expr(out, e, name);
                out.push(',');
            });
            out.push(')');
        }
        Cond::Not(inner) => {
            out.push('!');
            print_cond(out, inner, name);
        }
        Cond::Or(all) | Cond::And(all) => {
            out.push(if matches!(c, Cond::Or(_)) { '|' } else { '&' });
            all.iter().for_each(|c| print_cond(out, c, name));
            out.push('.');
        }
    }
}

/// Whether a pattern surely matches what a template makes, whatever its variables are.
fn may_match(pattern: &Pat, template: &Tmpl) -> bool {
    match (pattern, template) {
        (Pat::Any | Pat::Var(_), _) => !matches!(template, Tmpl::Absent),
        (Pat::Absent, Tmpl::Absent) => true,
        (Pat::Optional(p), t) => matches!(t, Tmpl::Absent) || may_match(p, t),
        (Pat::Bound(_, p), t) => may_match(p, t),
        (Pat::Alt(all), t) => all.iter().any(|p| may_match(p, t)),
        (Pat::Wrapped(w), t) => {
            let around = match t {
                Tmpl::Op(op) => {
                    w.ops.iter().any(|(k, attrs)| *k == op.kind && attrs_may_match(attrs, op))
                        && op.args.first().is_some_and(|a| may_match(&w.inner, a))
                }
                _ => false,
            };
            around || w.optional && may_match(&w.inner, t)
        }
        (Pat::Op(p), Tmpl::Op(t)) => {
            let swap: &[bool] = if p.commutative { &[false, true] } else { &[false] };
            let fits = |swapped: bool| {
                p.args.iter().enumerate().all(|(i, p)| {
                    let place = if swapped && i < 2 { 1 - i } else { i };
                    match t.args.get(place) {
                        Some(t) => may_match(p, t),
                        None => matches!(p, Pat::Optional(_) | Pat::Absent | Pat::Any),
                    }
                })
            };
            p.kind == t.kind
                && p.rest.is_none()
                && t.args.len() <= p.args.len()
                && attrs_may_match(&p.attrs, t)
                && repeats_hold(p, t)
                && swap.iter().any(|s| fits(*s))
        }
        _ => false,
    }
}

fn attrs_may_match(attrs: &[(&'static gs_ir::registry::AttrDecl, AttrPat)], t: &OpTmpl) -> bool {
    attrs.iter().all(|(a, p)| match p {
        AttrPat::Var(_) => true,
        AttrPat::Is(wanted) => match t.attrs.iter().find(|(g, _)| g.name == a.name) {
            Some((_, CExpr::Attr(given))) => given == wanted,
            Some(_) => false,
            None => t.copy.is_empty() && wanted.is_none(),
        },
    })
}

/// A variable that stands at two operands of one pattern needs the same value at both in the template.
fn repeats_hold(p: &OpPat, t: &OpTmpl) -> bool {
    let mut seen: BTreeMap<Slot, Option<Slot>> = BTreeMap::new();
    p.args.iter().enumerate().all(|(i, arg)| {
        let Pat::Var(slot) = arg else { return true };
        let value = match t.args.get(i) {
            Some(Tmpl::Var(v, _)) => Some(*v),
            _ => None,
        };
        match seen.insert(*slot, value) {
            None => true,
            Some(before) => before.is_some() && before == value,
        }
    })
}
