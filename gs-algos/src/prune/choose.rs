//! Which atoms go: the lowest scores, in portions that leave counts of channels that run fast, until the budget is met.

use super::config::{PruneConfig, Scope};
use super::cost::{Costs, Sums};
use super::score::Scores;
use crate::groups::{Atom, Branch, Groups};
use crate::selector;
use gs_ir::{Def, Module};
use rustc_hash::FxHashSet;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use thiserror::Error;

/// Why a request cannot be met.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ChooseError {
    /// None of the `keep` options, or several.
    #[error("say how much is to stay by one of keep_macs, keep_params, keep_channels (or by `layers`)")]
    NoBudget,
    /// A number outside of what it can be.
    #[error("`{name}` is {value}: it is a part of the whole, above 0 and up to 1")]
    OutOfRange {
        /// The option.
        name: String,
        /// What was given.
        value: f64,
    },
    /// A selector that fits nothing.
    #[error("{0}")]
    Selector(#[from] selector::SelectorError),
    /// A layer that is excluded and has a part to keep.
    #[error("`{layer}` is excluded and has a part to keep in `layers` at once: one of them is meant")]
    Both {
        /// The layer.
        layer: String,
    },
    /// A layer whose channels cannot go.
    #[error("`{layer}` makes no channels that can go: {why}")]
    Pinned {
        /// The layer.
        layer: String,
        /// Why.
        why: String,
    },
    /// A part of a layer that is less than the rounding.
    #[error(
        "`{layer}`: no multiple of {round_to} below its {channels} channels leaves {part} of them; lower round_to, or          leave the layer out of `layers`"
    )]
    Rounded {
        /// The group of channels.
        layer: String,
        /// The part that was to stay.
        part: f64,
        /// How many channels there are.
        channels: usize,
        /// The rounding in force.
        round_to: usize,
    },
    /// Nothing in the network can be pruned.
    #[error("no channel of the network can go: {why}")]
    NoGroups {
        /// What is in the way.
        why: String,
    },
    /// Less than what can be reached.
    #[error(
        "{name} = {wanted} cannot be reached: with the least of every group {least:.3} stays (channels in multiples of \
         {round_to}, min_keep {min_keep}); ask for more, or lower round_to or min_keep"
    )]
    Unreachable {
        /// The option.
        name: &'static str,
        /// What was asked for.
        wanted: f64,
        /// What can be had.
        least: f64,
        /// The rounding in force.
        round_to: usize,
        /// The least part of a group.
        min_keep: f64,
    },
}

/// A choice of atoms.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The branches that go whole.
    pub branches: Vec<Branch>,
    /// The atoms that go.
    pub dropped: FxHashSet<Atom>,
    /// What the whole network costs.
    pub before: Sums,
    /// What is left.
    pub after: Sums,
    /// What is left when as much goes as can.
    pub least: Sums,
}

/// What may go of a group.
struct Candidate {
    /// Its atoms, lowest score first, with scores.
    order: Vec<(f64, Atom)>,
    /// Atoms that stay at least.
    least: usize,
    /// Atoms that are gone.
    gone: usize,
    /// Whether the rest may go at once, and how much the branch matters: 1 is the mean of all branches.
    branch: Option<f64>,
}

impl Candidate {
    /// How many atoms go next: down to the next multiple. None where nothing more may go.
    fn portion(&self, round_to: usize) -> Option<usize> {
        let left = self.order.len() - self.gone;
        let next = left.checked_sub(1)? / round_to * round_to;
        match (next >= self.least.max(1), self.branch) {
            (true, _) => Some(left - next),
            (false, Some(_)) => Some(left),
            (false, None) => None,
        }
    }

    fn take(&mut self, count: usize) -> Vec<Atom> {
        let atoms = self.order[self.gone..self.gone + count].iter().map(|(_, a)| *a).collect();
        self.gone += count;
        atoms
    }

    /// The mean score of the next portion; what takes a branch with it matters as much as the branch.
    fn score(&self, count: usize) -> f64 {
        let mean =
            self.order[self.gone..self.gone + count].iter().map(|(s, _)| s).sum::<f64>() / count as f64;
        let is_rest = self.gone + count == self.order.len();
        mean * self.branch.filter(|_| is_rest).unwrap_or(1.0)
    }

    fn is_gone(&self) -> bool {
        self.gone == self.order.len()
    }
}

/// Chooses.
///
/// # Errors
/// Where the request contradicts itself or the network.
pub(super) fn choose(
    module: &Module,
    groups: &Groups,
    scores: &Scores,
    config: &PruneConfig,
    round_to: usize,
) -> Result<Choice, ChooseError> {
    let (name, wanted) = budget(config)?;
    let parts = parts(module, groups, config)?;
    let candidate = |i: usize| {
        let mut order: Vec<(f64, Atom)> =
            scores.atoms[i].iter().copied().zip(groups.groups[i].atoms.iter().copied()).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let n = order.len();
        let part = match parts[i] {
            Part::Free => config.min_keep,
            Part::Excluded => 1.0,
            Part::Given(part) => part,
        };
        let least = ((part * n as f64).ceil() as usize).clamp(1, n);
        let branch =
            (parts[i] == Part::Free).then(|| scores.branches[i].as_ref().map(|b| b.strength)).flatten();
        Candidate { order, least, gone: 0, branch }
    };
    let fresh = || (0..groups.groups.len()).map(candidate).collect::<Vec<_>>();

    let whole = Costs::new(module, groups);
    let before = whole.sums();
    let least = {
        let (mut costs, mut all) = (whole.clone(), fresh());
        for candidate in &mut all {
            while let Some(count) = candidate.portion(round_to) {
                costs.drop_atoms(&candidate.take(count));
            }
        }
        costs.sums()
    };
    let part_of = |sums: Sums| match name {
        "keep_params" => sums.params as f64 / before.params.max(1) as f64,
        "keep_channels" => sums.channels as f64 / before.channels.max(1) as f64,
        _ => sums.macs as f64 / before.macs.max(1) as f64,
    };
    let wanted_or_all = wanted.unwrap_or(1.0);
    if part_of(least) > wanted_or_all && wanted.is_some() {
        let min_keep = config.min_keep;
        return Err(ChooseError::Unreachable {
            name,
            wanted: wanted_or_all,
            least: part_of(least),
            round_to,
            min_keep,
        });
    }
    let (mut costs, mut all) = (whole, fresh());
    let mut dropped = FxHashSet::default();
    // Layers with a part of their own first: what is left of the budget is for the others.
    for (i, candidate) in all.iter_mut().enumerate() {
        let Part::Given(part) = parts[i] else { continue };
        while let Some(count) = candidate.portion(round_to) {
            let atoms = candidate.take(count);
            costs.drop_atoms(&atoms);
            dropped.extend(atoms);
        }
        if candidate.gone == 0 && candidate.least < candidate.order.len() {
            let (layer, channels) = (groups.groups[i].name.clone(), candidate.order.len());
            return Err(ChooseError::Rounded { layer, part, channels, round_to });
        }
    }
    let mut queue: BinaryHeap<Reverse<(Key, usize)>> = BinaryHeap::new();
    let key = |c: &Candidate, count: usize| match config.scope {
        Scope::Global => Key(c.score(count)),
        // What is furthest above its part goes first.
        Scope::Local => Key((c.gone + count) as f64 / c.order.len() as f64),
    };
    for (i, c) in all.iter().enumerate() {
        if let (Part::Free, Some(count)) = (parts[i], c.portion(round_to)) {
            queue.push(Reverse((key(c, count), i)));
        }
    }
    while wanted.is_some() && part_of(costs.sums()) > wanted_or_all {
        let Some(Reverse((_, i))) = queue.pop() else { break };
        let Some(count) = all[i].portion(round_to) else { continue };
        let atoms = all[i].take(count);
        costs.drop_atoms(&atoms);
        dropped.extend(atoms);
        if all[i].is_gone() {
            // The branch goes, and with it all other channels of it.
            for j in scores.same_branch(i) {
                let rest = all[j].order.len() - all[j].gone;
                let atoms = all[j].take(rest);
                costs.drop_atoms(&atoms);
                dropped.extend(atoms);
            }
        }
        if let Some(count) = all[i].portion(round_to) {
            queue.push(Reverse((key(&all[i], count), i)));
        }
    }
    let gone =
        all.iter().enumerate().filter(|(_, c)| c.is_gone()).filter_map(|(i, _)| scores.branches[i].as_ref());
    let branches = gone.flat_map(|b| b.branches.iter().cloned()).collect();
    Ok(Choice { branches, dropped, before, after: costs.sums(), least })
}

/// A float that is compared as a number.
#[derive(PartialEq, Clone, Copy)]
struct Key(f64);

impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The budget by its name; none where only single layers have one.
fn budget(config: &PruneConfig) -> Result<(&'static str, Option<f64>), ChooseError> {
    let given: Vec<(&'static str, f64)> = [
        ("keep_macs", config.keep_macs),
        ("keep_params", config.keep_params),
        ("keep_channels", config.keep_channels),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let in_range = |name: &str, value: f64| match value > 0.0 && value <= 1.0 {
        true => Ok(()),
        false => Err(ChooseError::OutOfRange { name: name.to_owned(), value }),
    };
    in_range("min_keep", config.min_keep)?;
    for (layer, part) in &config.layers {
        in_range(layer, *part)?;
    }
    match given.as_slice() {
        [(name, value)] => in_range(name, *value).map(|()| (*name, Some(*value))),
        [] if !config.layers.is_empty() => Ok(("keep_macs", None)),
        _ => Err(ChooseError::NoBudget),
    }
}

/// What the configuration says of a group.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Free,
    Excluded,
    Given(f64),
}

fn parts(module: &Module, groups: &Groups, config: &PruneConfig) -> Result<Vec<Part>, ChooseError> {
    if groups.groups.is_empty() {
        let why = groups.kept_axes(module).first().map(|k| {
            format!("axis {} of `{}`, for one: {}", k.axis, module.str(module.global(k.global).name), k.why)
        });
        return Err(ChooseError::NoGroups { why: why.unwrap_or_else(|| "it has no weights".to_owned()) });
    }
    let mut parts = vec![Part::Free; groups.groups.len()];
    let selected = |name: &str| -> Result<Vec<usize>, ChooseError> {
        let ops = selector::select(module, name)?;
        let of = |g: &crate::groups::Group| {
            g.members
                .iter()
                .any(|m| matches!(module.value(m.value).def, Def::Result(op, _) if ops.contains(&op)))
        };
        Ok(groups.groups.iter().enumerate().filter(|(_, g)| of(g)).map(|(i, _)| i).collect())
    };
    for name in &config.exclude {
        for i in selected(name)? {
            parts[i] = Part::Excluded;
        }
    }
    for (name, &part) in &config.layers {
        let found = selected(name)?;
        if found.is_empty() {
            let op = selector::select(module, name)?.first().copied();
            let axis =
                op.and_then(|op| groups.axes_of(groups.tensor(module.op(op).result()))?.get(1).copied());
            let why = axis.and_then(|a| groups.why_kept(a)).map(|r| r.words(module));
            let why = why.unwrap_or_else(|| "it has no axis of channels".to_owned());
            return Err(ChooseError::Pinned { layer: name.clone(), why });
        }
        for i in found {
            if parts[i] == Part::Excluded {
                return Err(ChooseError::Both { layer: name.clone() });
            }
            parts[i] = Part::Given(part);
        }
    }
    Ok(parts)
}
