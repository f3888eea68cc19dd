//! The e-graph driver: equality saturation over the same rule text that the greedy driver runs.
//!
//! Where the greedy driver replaces, this one adds: every rule that matches states an equality, until nothing new is
//! found or a limit is hit. Then the cheapest network among all equal ones is chosen. So the order of rules does not
//! matter, and a step that costs may be taken for the sake of one that pays later. The network as it was is always
//! among the candidates; it stays unless something is cheaper.
//!
//! `egg` keeps the classes; nothing of it is seen from outside. [`language`] says what a node is, [`facts`] what is
//! known of a class, [`load`] brings a graph in, [`search`] finds matches, [`plan`] builds and checks templates,
//! [`run`] saturates, [`select`] and [`improve`] choose, [`rebuild`] makes the graph again. Who made what is in [`history`].

mod cost;
mod eligible;
mod facts;
mod history;
mod improve;
mod language;
mod load;
mod plan;
mod rebuild;
mod region;
mod run;
mod search;
mod select;
mod view;

#[cfg(test)]
mod tests;

pub use cost::Costs;

use crate::rules::{RuleEnv, RuleSet};
use gs_ir::{GlobalId, GraphId, Module, Rewriter};
use gs_text::Diagnostic;
use gs_text::gsr::Strictness;
use history::History;
use load::Loaded;
use rebuild::Recipe;
use run::Run;
use select::{Selection, original_cost};
use thiserror::Error;

/// How to run. Limits are counts, so that a run is the same on every machine.
#[derive(Clone, Debug)]
pub struct EgraphOptions {
    /// The loosest rules that may run. Only a user can give leave for more than `exact`.
    pub leave: Strictness,
    /// Iterations at most, for each graph.
    pub iterations: usize,
    /// Nodes at most, for each graph: growing stops there.
    pub nodes: usize,
    /// Matches looked at at most, for each graph.
    pub matches: u64,
    /// What operations cost.
    pub costs: Costs,
}

impl Default for EgraphOptions {
    fn default() -> Self {
        EgraphOptions {
            leave: Strictness::Exact,
            iterations: 64,
            nodes: 500_000,
            matches: 5_000_000,
            costs: Costs::default(),
        }
    }
}

/// Why growing stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// No rule says anything new.
    #[default]
    Saturated,
    /// So many iterations were made and the last one still changed something.
    Iterations(usize),
    /// So many matches were looked at.
    Matches(u64),
    /// So many nodes were there.
    Nodes(usize),
    /// Two equal values cannot be equal.
    Contradiction,
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StopReason::Saturated => f.write_str("nothing new was found"),
            StopReason::Iterations(n) => write!(f, "{n} iterations did not reach an end"),
            StopReason::Matches(n) => write!(f, "the limit of {n} matches was hit"),
            StopReason::Nodes(n) => write!(f, "the limit of {n} nodes was hit"),
            StopReason::Contradiction => f.write_str("two equal values have types that exclude each other"),
        }
    }
}

/// A rule that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// The rule.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// A match whose replacement did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// The operator at its root.
    pub op: String,
    /// Why.
    pub reason: String,
}

/// What was done, over all graphs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgraphStats {
    /// Iterations, of the graph that took most.
    pub iterations: usize,
    /// Nodes in the end.
    pub nodes: usize,
    /// Classes of equal values in the end.
    pub classes: usize,
    /// Matches that were looked at.
    pub matches: u64,
    /// By rule: matches that said something new, in file order; rules that said nothing are left out.
    pub by_rule: Vec<(String, u64)>,
    /// Rules that made operations of the new network, in file order.
    pub used: Vec<String>,
    /// The worst reason for which growing stopped.
    pub stop: StopReason,
    /// Cost before.
    pub cost_before: u64,
    /// Cost after.
    pub cost_after: u64,
    /// Operations that were made.
    pub made: usize,
    /// Operations that were removed.
    pub removed: usize,
    /// Rules that did not run.
    pub withheld: Vec<Withheld>,
    /// Matches whose replacement did not fit, each once.
    pub refused: Vec<Refusal>,
}

impl EgraphStats {
    /// Whether the module is another one now.
    pub fn changed(&self) -> bool {
        self.made + self.removed > 0
    }
}

/// Why saturation was given up. The graph that it was found in, and those after it, were not changed.
#[derive(Clone, Debug, Error)]
pub enum EgraphError {
    /// A rule equates values that cannot be equal.
    #[error("{}", .0.first().map_or("a rule is wrong", |d| &d.message))]
    Contradiction(Vec<Diagnostic>),
}

impl EgraphError {
    /// What was found, with places in the rule set's text.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            EgraphError::Contradiction(all) => all,
        }
    }
}

/// Replaces each graph of a module, those in regions too, by the cheapest equal one that the rules show.
///
/// # Errors
/// Where a rule equates values whose types exclude each other.
pub fn saturate(
    module: &mut Module,
    set: &RuleSet,
    options: &EgraphOptions,
    env: &dyn RuleEnv,
) -> Result<EgraphStats, EgraphError> {
    let (taken, withheld) = eligible::eligible(set, options.leave);
    let mut stats = EgraphStats { withheld, ..EgraphStats::default() };
    let mut applied = vec![0u64; set.rules.len()];
    let mut used = vec![false; set.rules.len()];
    let mut pending: Vec<GraphId> = module.entries().iter().rev().copied().collect();
    while let Some(graph) = pending.pop() {
        let done = saturate_graph(module, graph, set, &taken, options, env, &mut stats)?;
        applied.iter_mut().zip(done.applied).for_each(|(sum, n)| *sum += n);
        used.iter_mut().enumerate().for_each(|(i, u)| *u |= done.used.contains(&i));
        // What carries graphs may have gone.
        let inner: Vec<GraphId> =
            module.ops_in(graph).flat_map(|op| module.op(op).regions().to_vec()).collect();
        pending.extend(inner.into_iter().rev());
    }
    let names = |keep: &dyn Fn(usize) -> bool| -> Vec<(usize, String)> {
        set.rules.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(i, r)| (i, r.name.clone())).collect()
    };
    stats.by_rule = names(&|i| applied[i] > 0).into_iter().map(|(i, name)| (name, applied[i])).collect();
    stats.used = names(&|i| used[i]).into_iter().map(|(_, name)| name).collect();
    Ok(stats)
}

/// What rules did in one graph, by number.
struct Done {
    applied: Vec<u64>,
    used: Vec<usize>,
}

fn saturate_graph(
    module: &mut Module,
    graph: GraphId,
    set: &RuleSet,
    taken: &[usize],
    options: &EgraphOptions,
    env: &dyn RuleEnv,
    stats: &mut EgraphStats,
) -> Result<Done, EgraphError> {
    let mut run = Run::new(module.registry().len(), set, taken, options, env);
    let mut loaded = Loaded::new(module, graph);
    let before = original_cost(&loaded, &options.costs);
    let stop = run.saturate(&mut loaded.net);
    if !run.contradictions.is_empty() {
        drop(loaded);
        remove_unused(module, &run.constants);
        return Err(EgraphError::Contradiction(report(set, &run)));
    }
    stats.nodes += loaded.net.total_size();
    stats.classes += loaded.net.number_of_classes();
    let mut selection = Selection::new(&loaded, &options.costs);
    selection.improve();
    let after = selection.total().min(before);
    let mut used = Vec::new();
    if after < before {
        let history = History::new(&loaded.net, &run.steps, loaded.ops.iter().map(|o| (o.op, &o.node)));
        let recipe = Recipe::new(&loaded, &selection, &history);
        drop(loaded);
        used.clone_from(&recipe.rules);
        let (made, removed) = recipe.apply(module, set);
        stats.made += made;
        stats.removed += removed;
    } else {
        drop(loaded);
    }
    remove_unused(module, &run.constants);
    stats.iterations = stats.iterations.max(run.iterations);
    stats.matches += run.matches;
    stats.stop = stats.stop.max(stop);
    stats.cost_before = stats.cost_before.saturating_add(before);
    stats.cost_after = stats.cost_after.saturating_add(after);
    for refusal in run.refused {
        if !stats.refused.contains(&refusal) {
            stats.refused.push(refusal);
        }
    }
    Ok(Done { applied: run.applied, used })
}

/// Removes constants that were made for replacements that were not chosen.
fn remove_unused(module: &mut Module, constants: &[GlobalId]) {
    let mut rewriter = Rewriter::new(module);
    for &g in constants.iter().rev() {
        if rewriter.global(g).live && rewriter.value(rewriter.global(g).value).uses().is_empty() {
            rewriter.remove_global(g);
        }
    }
}

/// Contradictions as diagnostics that name the rules.
fn report(set: &RuleSet, run: &Run<'_>) -> Vec<Diagnostic> {
    let mut out: Vec<Diagnostic> = Vec::new();
    for (rules, reason) in &run.contradictions {
        let rules: Vec<_> = rules.iter().filter_map(|r| set.rules.get(*r)).collect();
        let names: Vec<String> = rules.iter().map(|r| format!("`{}`", r.name)).collect();
        let message = match &names[..] {
            [one] => format!("the rule {one} equates values that cannot be equal"),
            _ => format!("one of the rules {} equates values that cannot be equal", names.join(", ")),
        };
        let mut d = Diagnostic::error("GS0670", message).note(reason.clone());
        for rule in rules {
            d = d.label(rule.span, "");
        }
        if !out.contains(&d) {
            out.push(d);
        }
    }
    out
}
