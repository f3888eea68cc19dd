//! Scores of atoms: the higher, the rather they stay. All weights that make the channel count, in whichever layer.

use super::config::{Criterion, PruneConfig};
use crate::groups::{Atom, Atoms, Branch, Group, Groups, Slot};
use gs_eval::random::unit;
use gs_eval::{Materializer, Tensor};
use gs_ir::{GlobalId, Module, OpId, Role, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use thiserror::Error;

/// Why there are no scores.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScoreError {
    /// A weight cannot be read.
    #[error("the weights of `{name}` cannot be read: {reason}")]
    Contents {
        /// The weight.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// No batch normalisation.
    #[error("criterion `bn`: no group has a batch normalisation (fold-bn ran before?); `l2` needs none")]
    NoNorms,
}

/// An axis of a weight on which atoms of a group stand, seen as rows: one for each element of the axis.
struct Rows {
    /// The elements of the axis, row by row.
    rows: Vec<Vec<f64>>,
    atoms: FxHashMap<Atom, Vec<usize>>,
}

/// What is known of the importance of channels.
pub(super) struct Scores {
    /// Scores of all atoms, per group in its order, as multiples of the mean of the group.
    pub(super) atoms: Vec<Vec<f64>>,
    /// The branches that go with a whole group, where they can.
    pub(super) branches: Vec<Option<BranchScore>>,
}

/// Branches that go when a whole group goes.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct BranchScore {
    pub(super) branches: Vec<Branch>,
    /// How much they add, as a multiple of the mean of all branches of the network.
    pub(super) strength: f64,
}

impl Scores {
    /// The other groups that go with the branches of this one.
    pub(super) fn same_branch(&self, group: usize) -> Vec<usize> {
        let sums = |i: usize| -> Option<Vec<OpId>> {
            Some(self.branches[i].as_ref()?.branches.iter().map(|b| b.sum).collect())
        };
        let own = sums(group);
        (0..self.branches.len()).filter(|&j| j != group && own.is_some() && sums(j) == own).collect()
    }
}

/// Scores of atoms, and of branches where these may go.
///
/// # Errors
/// Where weights cannot be read or the criterion finds nothing to judge by.
pub(super) fn scores(module: &Module, groups: &Groups, config: &PruneConfig) -> Result<Scores, ScoreError> {
    let criterion = config.criterion;
    let mut source = Weights::new(module, groups);
    let mut atoms = Vec::with_capacity(groups.groups.len());
    let mut branches = Vec::with_capacity(groups.groups.len());
    let mut judged = false;
    for group in &groups.groups {
        let scores = match criterion {
            Criterion::Random => group.atoms.iter().map(|a| unit(config.seed, a.number())).collect(),
            Criterion::Bn => source.norm_factors(group)?,
            _ => source.by_weights(group, criterion)?,
        };
        judged |= scores.iter().any(|s| *s > 0.0);
        atoms.push(match criterion {
            Criterion::Lamp => lamp(&scores),
            _ => over_mean(scores),
        });
        let found = if config.dead_branches { groups.branches(module, group) } else { None };
        branches.push(match found {
            Some(branches) => {
                let strength = branches.iter().map(|b| source.strength(b)).sum::<Result<f64, _>>()?;
                Some(BranchScore { branches, strength })
            }
            None => None,
        });
    }
    let mean = branches.iter().flatten().map(|b| b.strength).sum::<f64>()
        / branches.iter().flatten().count().max(1) as f64;
    if mean > 0.0 {
        branches.iter_mut().flatten().for_each(|b| b.strength /= mean);
    }
    match judged || criterion != Criterion::Bn {
        true => Ok(Scores { atoms, branches }),
        false => Err(ScoreError::NoNorms),
    }
}

fn over_mean(mut scores: Vec<f64>) -> Vec<f64> {
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    if mean > 0.0 {
        scores.iter_mut().for_each(|s| *s /= mean);
    } else {
        // Nothing to judge by: these go last and in order.
        scores.iter_mut().for_each(|s| *s = 1.0);
    }
    scores
}

/// Each squared norm as a part of those that are not smaller.
fn lamp(norms: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..norms.len()).collect();
    order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]).then(a.cmp(&b)));
    let (mut sum, mut scores) = (0.0, vec![0.0; norms.len()]);
    for i in order {
        let square = norms[i] * norms[i];
        sum += square;
        scores[i] = if sum > 0.0 { square / sum } else { 0.0 };
    }
    scores
}

/// Reads weights, each once for all axes of it.
struct Weights<'a> {
    module: &'a Module,
    groups: &'a Groups,
    materializer: Materializer<'a>,
    /// Axes of globals that read what others make.
    summed: FxHashSet<(Slot, usize)>,
    held: FxHashMap<GlobalId, (Vec<usize>, Vec<f64>)>,
}

impl<'a> Weights<'a> {
    fn new(module: &'a Module, groups: &'a Groups) -> Self {
        let summed =
            groups.weights.iter().filter_map(|w| source_axis(module, groups, w.op, w.operand, w.summed));
        Self {
            module,
            groups,
            materializer: Materializer::new(module),
            summed: summed.collect(),
            held: FxHashMap::default(),
        }
    }

    /// The norms of what makes the atoms of a group (for `group`: and of what reads them).
    fn by_weights(&mut self, group: &Group, criterion: Criterion) -> Result<Vec<f64>, ScoreError> {
        let mut sums: FxHashMap<Atom, f64> = group.atoms.iter().map(|&a| (a, 0.0)).collect();
        for rows in self.rows_of(group, criterion == Criterion::Group)? {
            let per_row: Vec<f64> = match criterion {
                Criterion::L1 => rows.rows.iter().map(|r| r.iter().map(|x| x.abs()).sum()).collect(),
                Criterion::Fpgm => distances(&rows.rows),
                _ => rows.rows.iter().map(|r| r.iter().map(|x| x * x).sum()).collect(),
            };
            for (atom, sum) in &mut sums {
                *sum += rows.atoms.get(atom).into_iter().flatten().map(|&i| per_row[i]).sum::<f64>();
            }
        }
        let squared = matches!(criterion, Criterion::L2 | Criterion::Group | Criterion::Lamp);
        Ok(group.atoms.iter().map(|a| if squared { sums[a].sqrt() } else { sums[a] }).collect())
    }

    /// How much a branch adds: the mean absolute factor of its last batch normalisation, which is the deviation of what
    /// it adds; without one the norm of the last weights, for each channel that they make.
    fn strength(&mut self, branch: &Branch) -> Result<f64, ScoreError> {
        let m = self.module;
        for &op in branch.chain.iter().rev() {
            let of = if m.is(op, "batch_norm") { "scale" } else { "w" };
            let Some(global) = m.operand_named(op, of).and_then(|v| m.as_global(v)) else { continue };
            let tensor = self.tensor(global)?;
            let Some(values) = tensor.to_f64s() else { continue };
            let channels = tensor.dims().first().copied().unwrap_or(1).max(1) as f64;
            return Ok(match of {
                "scale" => values.iter().map(|x| x.abs()).sum::<f64>() / channels,
                _ => (values.iter().map(|x| x * x).sum::<f64>() / channels).sqrt(),
            });
        }
        Ok(1.0)
    }

    fn tensor(&mut self, global: GlobalId) -> Result<Tensor, ScoreError> {
        self.materializer.tensor(global).map_err(|e| ScoreError::Contents {
            name: self.module.str(self.module.global(global).name).to_owned(),
            reason: e.to_string(),
        })
    }

    /// The mean absolute factor of the batch normalisations of each atom.
    fn norm_factors(&mut self, group: &Group) -> Result<Vec<f64>, ScoreError> {
        let mut sums: FxHashMap<Atom, f64> = group.atoms.iter().map(|&a| (a, 0.0)).collect();
        for member in &group.members {
            let is_factor = member.global.is_some()
                && self.module.user_ops(member.value).iter().any(|&op| {
                    self.module.is(op, "batch_norm")
                        && self.module.operand_named(op, "scale") == Some(member.value)
                });
            if !is_factor {
                continue;
            }
            let Some(rows) = self.rows(member.slot, member.value, member.axis)? else { continue };
            for (atom, sum) in &mut sums {
                let places = rows.atoms.get(atom).into_iter().flatten();
                *sum += places.map(|&i| rows.rows[i].iter().map(|x| x.abs()).sum::<f64>()).sum::<f64>();
            }
        }
        Ok(group.atoms.iter().map(|a| sums[a]).collect())
    }

    fn rows_of(&mut self, group: &Group, readers_too: bool) -> Result<Vec<Rows>, ScoreError> {
        let mut out = Vec::new();
        for member in &group.members {
            let Some(global) = member.global else { continue };
            let is_weight = self.module.global(global).role == Role::Param
                && self.module.ty(self.module.global(global).ty).dims().is_some_and(|d| d.len() >= 2);
            if is_weight
                && (readers_too || !self.summed.contains(&(member.slot, member.axis)))
                && let Some(rows) = self.rows(member.slot, member.value, member.axis)?
            {
                out.push(rows);
            }
        }
        Ok(out)
    }

    fn rows(&mut self, slot: Slot, value: ValueId, axis: usize) -> Result<Option<Rows>, ScoreError> {
        let Some(global) = self.module.as_global(value) else { return Ok(None) };
        if !self.held.contains_key(&global) {
            let tensor = self.tensor(global)?;
            let Some(values) = tensor.to_f64s() else { return Ok(None) };
            // One at a time: a network's weights need not all be in memory.
            self.held.clear();
            self.held.insert(global, (tensor.dims().to_vec(), values));
        }
        let (dims, values) = &self.held[&global];
        let Some(atoms) = self.groups.axes_of(slot).and_then(|a| self.groups.atoms_of(*a.get(axis)?)) else {
            return Ok(None);
        };
        let inner: usize = dims[axis + 1..].iter().product();
        let n = dims[axis];
        let mut rows = vec![Vec::with_capacity(values.len() / n.max(1)); n];
        for (i, &x) in values.iter().enumerate() {
            rows[i / inner % n].push(x);
        }
        Ok(Some(Rows { rows, atoms: positions(atoms) }))
    }
}

/// The sum of the distances of each row to all others.
fn distances(rows: &[Vec<f64>]) -> Vec<f64> {
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt();
    rows.iter().map(|a| rows.iter().map(|b| apart(a, b)).sum()).collect()
}

/// The global, and its axis, behind an axis of an operand: through transposes and what changes values one by one.
fn source_axis(
    module: &Module,
    groups: &Groups,
    op: OpId,
    operand: usize,
    axis: usize,
) -> Option<(Slot, usize)> {
    let (mut op, mut operand, mut axis) = (op, operand, axis);
    loop {
        let value = module.op(op).operand(operand)?;
        if module.as_global(value).is_some() {
            return Some((groups.operand(module, op, operand)?, axis));
        }
        let producer = module.producer(value)?;
        let rank = module.type_of(value).dims()?.len();
        if module.is(producer, "transpose") {
            axis = match module.attrs_of(producer).ints("perm") {
                Some(perm) => usize::try_from(*perm.get(axis)?).ok()?,
                None => rank - 1 - axis,
            };
        } else if module.type_of(module.op(producer).operand(0)?).dims()?.len() != rank {
            return None;
        }
        (op, operand) = (producer, 0);
    }
}

/// The positions of atoms on the elements of an axis.
fn positions(atoms: &[Atoms]) -> FxHashMap<Atom, Vec<usize>> {
    let mut map: FxHashMap<Atom, Vec<usize>> = FxHashMap::default();
    for (i, of) in atoms.iter().enumerate() {
        for &atom in of {
            map.entry(atom).or_default().push(i);
        }
    }
    map
}
