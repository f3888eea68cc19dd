//! Applies `grad` rules: from the gradients of an operation's results to those of its operands.

use super::build::Builder;
use super::env::NoEnv;
use super::functions::Refusal;
use super::matcher::{Binding, Matcher};
use super::rule::{GradRule, RuleSet, Tmpl};
use gs_ir::{At, OpId, OpKind, Rewriter, ValueId};
use gs_text::SourceMap;
use rustc_hash::FxHashMap;

/// The gradient rules by operator.
pub struct Gradients<'s> {
    by_kind: FxHashMap<OpKind, (&'s GradRule, &'s SourceMap)>,
}

impl<'s> Gradients<'s> {
    /// The rules of some sets; a later one of an operator replaces an earlier one.
    pub fn of(sets: impl IntoIterator<Item = &'s RuleSet>) -> Self {
        let of = |s: &'s RuleSet| s.grads.iter().map(move |g| (g.kind, (g, &s.sources)));
        Self { by_kind: sets.into_iter().flat_map(of).collect() }
    }

    /// Whether there is a rule for an operator.
    pub fn covers(&self, kind: OpKind) -> bool {
        self.by_kind.contains_key(&kind)
    }

    /// Builds the gradients of those operands of an operation that `wanted` names, at `at`, from the gradients of its
    /// results (`None` where nothing depends on one): pairs of an operand and its gradient, in order.
    ///
    /// # Errors
    /// Where there is no rule, it does not hold here, or what it says does not fit.
    pub fn derive(
        &self,
        rewriter: &mut Rewriter<'_>,
        op: OpId,
        given: &[Option<ValueId>],
        wanted: &dyn Fn(ValueId) -> bool,
        at: At,
    ) -> Result<Vec<(ValueId, ValueId)>, Refusal> {
        let found = self.by_kind.get(&rewriter.op(op).kind).ok_or("there is no gradient rule for it")?;
        let (rule, sources) = *found;
        let mut matcher = Matcher::new(rewriter, &NoEnv, rule.vars.len(), &rule.conditions).explaining();
        let Some(mut found) = matcher.at_op(&rule.pattern, op) else {
            let reason = matcher.failure().map_or("it has another form".to_owned(), |f| match f.span {
                Some(span) => format!("{} ({})", f.reason, sources.slice(span)),
                None => f.reason.clone(),
            });
            return Err(format!("its gradient rule does not apply: {reason}"));
        };
        for (slot, gradient) in rule.given.iter().zip(given) {
            if let Some(slot) = slot {
                found.bindings[*slot] = Binding::Value(*gradient);
            }
        }
        let mut pairs = Vec::new();
        let mut builder = Builder::at(rewriter, &NoEnv, &found, at);
        builder.bind(&rule.lets)?;
        for (slots, template) in &rule.gradients {
            let operands: Vec<Vec<Option<ValueId>>> =
                slots.iter().map(|s| operands_of(&found.bindings[*s])).collect();
            if !operands.iter().flatten().flatten().any(|v| wanted(*v)) {
                continue;
            }
            let gradients = match (template, &operands[..]) {
                (Tmpl::Op(op), [_, _, ..]) => builder.results(op, operands.len())?,
                (Tmpl::Op(op), [list]) if list.len() > 1 => builder.results(op, list.len())?,
                (one, _) => builder.values(one)?,
            };
            let flat: Vec<Option<ValueId>> = operands.into_iter().flatten().collect();
            if flat.len() != gradients.len() {
                return Err(format!(
                    "its rule gives {} gradients for {} operands",
                    gradients.len(),
                    flat.len()
                ));
            }
            let both = flat.into_iter().zip(gradients);
            pairs.extend(both.filter_map(|(o, g)| o.filter(|o| wanted(*o)).map(|o| (o, g))));
        }
        Ok(pairs)
    }
}

/// The values that a variable is bound to.
fn operands_of(binding: &Binding) -> Vec<Option<ValueId>> {
    match binding {
        Binding::Value(v) => vec![*v],
        Binding::Values(all) => all.clone(),
        _ => Vec::new(),
    }
}
