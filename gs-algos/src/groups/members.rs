//! From labels to groups: atoms that stand on the same axes of the same tensors are one group, and choices of each other.

use super::axes::{Axes, Axis, Run, Slot};
use super::labels::{Atom, Atoms, Why};
use super::solver::{Count, Edge, Reason, Solver, WeightUse};
use gs_ir::{Def, GlobalId, Handle, Module, OpId, Phase, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use thiserror::Error;

/// Why a module cannot be analysed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GroupsError {
    /// There is no graph.
    #[error("the module has no graph")]
    NoGraph,
    /// A deployed network.
    #[error("the network is deployed: its integers are not pruned; prune the network that it was made from")]
    Deployed,
    /// The network is being trained.
    #[error("the module has a training graph `{0}`: prune before `loss`, or convert first")]
    Training(String),
}

/// An axis of a tensor on which atoms of a group stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The tensor.
    pub slot: Slot,
    /// The value behind it.
    pub value: ValueId,
    /// The global that it reads, if it is one.
    pub global: Option<GlobalId>,
    /// Its axis.
    pub axis: usize,
    /// The labels of the axis.
    pub run: Run,
}

/// Atoms that are choices of each other.
#[derive(Clone, Debug)]
pub struct Group {
    /// The first operation that makes a tensor with it, as `conv1:out`; a number behind it where there are several.
    pub name: String,
    /// The atoms, in the order of the elements that they stand for.
    pub atoms: Vec<Atom>,
    /// The axes on which they stand.
    pub members: Vec<Member>,
    /// An operation that computes statistics over such an axis: dropping is then not the same as zeros.
    pub mixed_by: Option<OpId>,
}

/// The groups of a network, and all that is needed to drop some of their atoms.
pub struct Groups {
    axes: Axes,
    reasons: Vec<Reason>,
    /// The groups, in the order in which their first tensor is made. Those of one atom are left out: without it an axis
    /// would be empty.
    pub groups: Vec<Group>,
    /// Where axes are summed away.
    pub edges: Vec<Edge>,
    /// The second operands of products.
    pub weights: Vec<WeightUse>,
    /// Attributes that follow extents.
    pub counts: Vec<Count>,
    /// The tensors of operands that are one reading of a constant that has several.
    pub readings: FxHashMap<(OpId, usize), Slot>,
    by_run: FxHashMap<Run, Vec<Atoms>>,
    apart: FxHashSet<GlobalId>,
    /// Number of values that the module had.
    values: usize,
}

impl Groups {
    /// Analyses the network of a module.
    ///
    /// # Errors
    /// Where the module is no network that can be pruned.
    pub fn of(module: &Module) -> Result<Self, GroupsError> {
        let graph = module.main().ok_or(GroupsError::NoGraph)?;
        if Phase::of(module) == Phase::Deployed {
            return Err(GroupsError::Deployed);
        }
        if let Some(train) = module.entry("train") {
            return Err(GroupsError::Training(module.str(module.graph(train).name).to_owned()));
        }
        Ok(Self::from_solver(Solver::solve(module, graph)))
    }

    fn from_solver(solver: Solver<'_>) -> Self {
        let module = solver.module;
        let members = members(&solver);
        let mixed: Vec<(Run, OpId)> = solver
            .mixed
            .iter()
            .filter_map(|(axis, op)| match axis {
                Axis::Run(run) => Some((*run, *op)),
                Axis::Kept(_) => None,
            })
            .collect();
        let (edges, weights, counts) = (solver.edges.clone(), solver.weights.clone(), solver.counts.clone());
        let (mut axes, reasons, readings) = solver.into_parts();
        let by_run = written_out(&mut axes, &members, &counts, &mixed);
        let mut mixed_by: FxHashMap<Atom, OpId> = FxHashMap::default();
        let mut seen: FxHashSet<Run> = FxHashSet::default();
        for (run, op) in mixed.iter().filter(|(run, _)| seen.insert(*run)) {
            for &atom in by_run.get(run).into_iter().flatten().flatten() {
                mixed_by.entry(atom).or_insert(*op);
            }
        }
        let mut groups: Vec<Group> = atoms_by_place(&members, &by_run, axes.labels.len())
            .into_iter()
            .filter(|(atoms, _)| atoms.len() > 1)
            .map(|(atoms, members)| Group {
                name: String::new(),
                mixed_by: atoms.first().and_then(|a| mixed_by.get(a)).copied(),
                atoms,
                members,
            })
            .collect();
        name_groups(module, &mut groups);
        let reads = |(op, place): &(OpId, usize)| module.as_global(module.op(*op).operand(*place)?);
        let apart = readings.keys().filter_map(reads).collect();
        Self {
            axes,
            reasons,
            groups,
            edges,
            weights,
            counts,
            readings,
            by_run,
            apart,
            values: module.value_capacity(),
        }
    }

    /// The axes of a tensor; `None` where nothing is known of it.
    pub fn axes_of(&self, slot: Slot) -> Option<&[Axis]> {
        self.axes.of(slot)
    }

    /// The tensor that an operand place reads.
    pub fn operand(&self, module: &Module, op: OpId, place: usize) -> Option<Slot> {
        let value = module.op(op).operand(place)?;
        Some(self.readings.get(&(op, place)).copied().unwrap_or_else(|| self.tensor(value)))
    }

    /// The tensor of a value; one of which nothing is known where the value is younger than the analysis.
    pub fn tensor(&self, value: ValueId) -> Slot {
        super::solver::slot_of(if !value.is_none() && value.index() < self.values {
            value
        } else {
            ValueId::NONE
        })
    }

    /// The atoms of each element of an axis; none where all of it is kept.
    pub fn atoms_of(&self, axis: Axis) -> Option<&[Atoms]> {
        match axis {
            Axis::Run(run) => self.by_run.get(&run).map(Vec::as_slice),
            Axis::Kept(_) => None,
        }
    }

    /// The axes of all values of the module that have a rank.
    pub(super) fn value_axes(&self) -> impl Iterator<Item = (ValueId, &[Axis])> {
        self.axes
            .slots()
            .filter(|(s, _)| (s.0 as usize) < self.values)
            .map(|(s, a)| (ValueId::from_index(s.0 as usize), a))
    }

    /// The atoms of all runs that stand on an axis.
    pub(crate) fn written_out(&self) -> impl Iterator<Item = (&Run, &Vec<Atoms>)> {
        self.by_run.iter()
    }

    /// Whether a constant is a tensor of its own in each place where it is read.
    pub(super) fn is_read_apart(&self, global: GlobalId) -> bool {
        self.apart.contains(&global)
    }

    /// Why an axis is kept.
    pub fn reason(&self, why: Why) -> &Reason {
        &self.reasons[why.0 as usize]
    }

    /// Why a whole axis is kept as it is: of the first element that is, where all elements are.
    pub fn why_kept(&self, axis: Axis) -> Option<&Reason> {
        match axis {
            Axis::Kept(why) => Some(self.reason(why)),
            Axis::Run(run) => self.axes.kept_run(run).map(|w| self.reason(w)),
        }
    }
}

/// All axes that have labels, tensors in order of their handles.
fn members(solver: &Solver<'_>) -> Vec<Member> {
    let module = solver.module;
    let mut members = Vec::new();
    for (slot, axes) in solver.axes.slots() {
        let value = solver.value(slot);
        // A constant of several readings is its readings.
        let global = module.as_global(value);
        for (axis, carried) in axes.iter().enumerate() {
            if let Axis::Run(run) = *carried {
                members.push(Member { slot, value, global, axis, run });
            }
        }
    }
    members
}

/// The atoms of each element of all runs that are read.
fn written_out(
    axes: &mut Axes,
    members: &[Member],
    counts: &[Count],
    mixed: &[(Run, OpId)],
) -> FxHashMap<Run, Vec<Atoms>> {
    let mut by_run: FxHashMap<Run, Vec<Atoms>> = FxHashMap::default();
    let counted = counts.iter().filter_map(|c| match c.axis {
        Axis::Run(run) => Some(run),
        Axis::Kept(_) => None,
    });
    for run in members.iter().map(|m| m.run).chain(counted).chain(mixed.iter().map(|m| m.0)) {
        by_run.entry(run).or_insert_with(|| {
            let labels = axes.labels_of(run).to_vec();
            labels.into_iter().map(|l| axes.labels.atoms(l)).collect()
        });
    }
    by_run
}

/// Atoms with the members that they stand on: those with the same number of elements on the same axes are together.
/// Found by refining: all atoms are one part at first, and each run splits parts by how often their atoms stand on it.
fn atoms_by_place(
    members: &[Member],
    by_run: &FxHashMap<Run, Vec<Atoms>>,
    labels: usize,
) -> Vec<(Vec<Atom>, Vec<Member>)> {
    let mut on_run: FxHashMap<Run, Vec<usize>> = FxHashMap::default();
    for (i, member) in members.iter().enumerate() {
        on_run.entry(member.run).or_default().push(i);
    }
    let mut runs: Vec<Run> = on_run.keys().copied().collect();
    runs.sort_unstable();
    // Each part with the part that it was split from and the run that did it.
    let mut parts: Vec<(usize, Option<Run>)> = vec![(0, None)];
    let mut part_of = vec![0usize; labels];
    let mut times = vec![0u32; labels];
    let mut order: Vec<Atom> = Vec::new();
    for &run in &runs {
        let mut here: Vec<Atom> = Vec::new();
        for &atom in by_run[&run].iter().flatten() {
            let at = atom.0 as usize;
            if times[at] == 0 {
                here.push(atom);
                if part_of[at] == 0 {
                    order.push(atom);
                }
            }
            times[at] += 1;
        }
        let mut split: FxHashMap<(usize, u32), usize> = FxHashMap::default();
        for atom in here {
            let at = atom.0 as usize;
            part_of[at] = *split.entry((part_of[at], times[at])).or_insert_with(|| {
                parts.push((part_of[at], Some(run)));
                parts.len() - 1
            });
            times[at] = 0;
        }
    }
    let mut index: FxHashMap<usize, usize> = FxHashMap::default();
    let mut found: Vec<(Vec<Atom>, usize)> = Vec::new();
    for atom in order {
        let part = part_of[atom.0 as usize];
        let at = *index.entry(part).or_insert_with(|| {
            found.push((Vec::new(), part));
            found.len() - 1
        });
        found[at].0.push(atom);
    }
    let members_of = |mut part: usize| {
        let mut at: Vec<usize> = Vec::new();
        while let (from, Some(run)) = parts[part] {
            at.extend(&on_run[&run]);
            part = from;
        }
        at.sort_unstable();
        at.into_iter().map(|i| members[i]).collect()
    };
    found.into_iter().map(|(atoms, part)| (atoms, members_of(part))).collect()
}

/// Names groups by the first operation that makes a tensor with them, and orders them so.
fn name_groups(module: &Module, groups: &mut Vec<Group>) {
    let order: FxHashMap<OpId, usize> = match module.main() {
        Some(graph) => module.ops_in(graph).enumerate().map(|(i, op)| (op, i)).collect(),
        None => FxHashMap::default(),
    };
    let first = |group: &Group| {
        let made = group.members.iter().filter_map(|m| match module.value(m.value).def {
            Def::Result(op, _) => Some(op),
            _ => None,
        });
        made.min_by_key(|op| order.get(op).copied().unwrap_or(usize::MAX))
    };
    let place = |op: Option<OpId>| op.and_then(|op| order.get(&op).copied()).unwrap_or(usize::MAX);
    let mut keyed: Vec<(Option<OpId>, Group)> = groups.drain(..).map(|g| (first(&g), g)).collect();
    keyed.sort_by_key(|(op, g)| (place(*op), g.atoms.first().copied()));
    let mut used: FxHashMap<String, usize> = FxHashMap::default();
    let mut total: FxHashMap<String, usize> = FxHashMap::default();
    let base = |op: Option<OpId>, g: &Group| match op {
        Some(op) => format!("{}:out", module.label(op)),
        None => match g.members.first().and_then(|m| m.global) {
            Some(global) => module.str(module.global(global).name).to_owned(),
            None => "group".to_owned(),
        },
    };
    for (op, g) in &keyed {
        *total.entry(base(*op, g)).or_default() += 1;
    }
    for (op, mut group) in keyed {
        let name = base(op, &group);
        let n = used.entry(name.clone()).or_default();
        *n += 1;
        group.name = if total[&name] > 1 { format!("{name}.{n}") } else { name };
        groups.push(group);
    }
}
