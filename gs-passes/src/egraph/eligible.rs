//! Which rules may run in an e-graph, and why others may not.

use super::Withheld;
use crate::rules::RuleSet;
use crate::rules::functions::Function;
use crate::rules::rule::{CExpr, EachSource, OpTmpl, Rule, Tmpl};
use gs_text::Span;
use gs_text::gsr::Strictness;

/// The rules that may run, by number, and the others with the reason.
pub(super) fn eligible(set: &RuleSet, leave: Strictness) -> (Vec<usize>, Vec<Withheld>) {
    let mut taken = Vec::new();
    let mut withheld = Vec::new();
    for (i, rule) in set.rules.iter().enumerate() {
        match obstacle(set, rule, leave) {
            None => taken.push(i),
            Some(reason) => withheld.push(Withheld { rule: rule.name.clone(), reason }),
        }
    }
    for rule in &set.inserts {
        let reason =
            "an insertion is no equality: the e-graph would find the value without it equal and cheaper";
        withheld.push(Withheld { rule: rule.name.clone(), reason: reason.to_owned() });
    }
    (taken, withheld)
}

fn obstacle(set: &RuleSet, rule: &Rule, leave: Strictness) -> Option<String> {
    if !set.driver.is_equality() {
        return Some(format!("its rule set is for the driver `{}`", set.driver.name()));
    }
    if rule.strictness > leave {
        return Some(format!("it is `{}`, and leave was given for `{leave}` only", rule.strictness));
    }
    let mut found: Option<&'static str> = None;
    let mut look = |f: &Function, _: Span| {
        if f.graph_only && found.is_none() {
            found = Some(f.name);
        }
    };
    rule.conditions.iter().for_each(|c| c.visit_calls(&mut look));
    rule.lets.iter().for_each(|(_, t)| template(t, &mut look));
    template(&rule.template, &mut look);
    found.map(|name| {
        format!("`{name}` asks for a place in a graph, which a class of equal values does not have")
    })
}

/// Calls `f` for every function that a template calls.
fn template(t: &Tmpl, f: &mut dyn FnMut(&Function, Span)) {
    match t {
        Tmpl::Absent | Tmpl::Var(..) | Tmpl::Rest(_) => {}
        Tmpl::Op(op) => operation(op, f),
        Tmpl::Const(e) => e.visit_calls(f),
        Tmpl::Each(each) => {
            if let EachSource::Results(op) = &each.source {
                operation(op, f);
            }
            each.body.iter().for_each(|t| template(t, f));
        }
        Tmpl::Tuple(all) => all.iter().for_each(|t| template(t, f)),
    }
}

fn operation(op: &OpTmpl, f: &mut dyn FnMut(&Function, Span)) {
    op.args.iter().for_each(|t| template(t, f));
    op.attrs.iter().for_each(|(_, e): &(_, CExpr)| e.visit_calls(f));
}
