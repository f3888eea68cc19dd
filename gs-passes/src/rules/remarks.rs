//! Why a rule did not fire: for every operation that its root could be, the best partial match.

use super::env::RuleEnv;
use super::greedy::Buckets;
use super::matcher::Matcher;
use super::rule::RuleSet;
use gs_ir::{Attr, Module, OpId};
use gs_text::Span;
use gs_text::gsr::Strictness;

/// Why one rule did not fire at one operation.
#[derive(Clone, Debug)]
pub struct Remark {
    /// The rule.
    pub rule: String,
    /// The operation.
    pub op: OpId,
    /// The operation as people know it.
    pub label: String,
    /// What did not hold, in words.
    pub reason: String,
    /// How much of the rule held: the larger, the closer it was.
    pub progress: usize,
    /// The piece of the rule that did not hold, in the rule set's own text.
    pub span: Option<Span>,
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` did not fire at {}: {}", self.rule, self.label, self.reason)
    }
}

/// Why rules do not fire in a module as it stands: for every operation (that `select` takes in) and every rule whose
/// root it could be. Rules that do fire there are left out.
pub fn explain(
    module: &Module,
    set: &RuleSet,
    env: &dyn RuleEnv,
    select: &dyn Fn(&Module, OpId) -> bool,
) -> Vec<Remark> {
    let (buckets, _) = Buckets::of(module, set, Strictness::Real);
    let mut out = Vec::new();
    for op in module.all_ops() {
        if !select(module, op) {
            continue;
        }
        for (_, rule) in buckets.at(module, op) {
            let mut matcher = Matcher::new(module, env, rule.vars.len(), &rule.conditions).explaining();
            if matcher.at_op(&rule.pattern, op).is_some() {
                continue;
            }
            let Some(failure) = matcher.failure() else { continue };
            out.push(Remark {
                rule: rule.name.clone(),
                op,
                label: module.label(op).to_owned(),
                reason: failure.reason.clone(),
                progress: failure.progress,
                span: failure.span,
            });
        }
    }
    out
}

/// An attribute as a person writes it.
pub fn attr_words(attr: &Attr) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    match attr {
        Attr::Int(n) => n.to_string(),
        Attr::Float(f) => format!("{:?}", f.0),
        Attr::Bool(b) => b.to_string(),
        Attr::Str(s) => format!("\"{s}\""),
        Attr::Elem(e) => e.to_string(),
        Attr::Ints(v) => list(v.iter().map(i64::to_string).collect()),
        Attr::Floats(v) => list(v.iter().map(|f| format!("{:?}", f.0)).collect()),
        other => other.kind_name().to_owned(),
    }
}
