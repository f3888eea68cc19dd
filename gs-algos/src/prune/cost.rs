//! What a choice costs: multiply-adds, parameters and channels, followed atom by atom without rewriting anything.

use crate::groups::{Atom, Axis, Groups, Run, Slot};
use gs_ir::{GlobalId, Module, OpId, Role, ValueId};
use gs_passes::cost::{extents, multiply_adds, multiply_adds_of};
use rustc_hash::FxHashMap;

/// Sums over a network. Symbolic extents count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Multiply-adds for one sample.
    pub macs: u64,
    /// Elements of weights.
    pub params: u64,
    /// Atoms of all groups.
    pub channels: u64,
}

impl Sums {
    /// What a network costs. Its channels are not known of it alone.
    pub(super) fn of(module: &Module, channels: u64) -> Self {
        let ops = module.main().map(|graph| module.ops_in(graph)).into_iter().flatten();
        let macs = ops.fold(0u64, |n, op| n.saturating_add(multiply_adds(module, op)));
        let params = module.globals().filter(|(_, g)| g.role == Role::Param);
        Self { macs, params: params.map(|(_, g)| product(&extents(module, g.value))).sum(), channels }
    }
}

fn product(extents: &[u64]) -> u64 {
    extents.iter().fold(1, |n, &e| n.saturating_mul(e))
}

/// The multiply-adds of an operation if so many elements are left of axes (`None`: all).
pub(super) fn multiply_adds_left(
    module: &Module,
    groups: &Groups,
    left: &dyn Fn(Axis) -> Option<u64>,
    op: OpId,
) -> u64 {
    let cut = |slot: Option<Slot>, value: ValueId| {
        let axes = slot.and_then(|s| groups.axes_of(s)).unwrap_or(&[]);
        let mut extents = extents(module, value);
        extents.iter_mut().zip(axes).for_each(|(e, &axis)| *e = left(axis).unwrap_or(*e));
        extents
    };
    let operand = |place: usize| {
        module.op(op).operand(place).map(|v| cut(groups.operand(module, op, place), v)).unwrap_or_default()
    };
    match module.op(op).result().some() {
        Some(y) => multiply_adds_of(module, op, &operand, &cut(Some(groups.tensor(y)), y)),
        None => 0,
    }
}

/// How many elements of each axis are left, and what follows from it.
#[derive(Clone)]
pub(super) struct Costs<'a> {
    module: &'a Module,
    groups: &'a Groups,
    /// Elements left on each run.
    left: FxHashMap<Run, u64>,
    /// For each element of a run, of how many dropped atoms it was.
    gone: FxHashMap<Run, Vec<u16>>,
    /// The elements of an atom.
    places: FxHashMap<Atom, Vec<(Run, usize)>>,
    /// The multiply-adds of operations, and which of them a run matters to.
    macs: FxHashMap<OpId, u64>,
    ops_of: FxHashMap<Run, Vec<OpId>>,
    /// The elements of parameters, and which of them a run matters to.
    params: FxHashMap<GlobalId, u64>,
    globals_of: FxHashMap<Run, Vec<GlobalId>>,
    sums: Sums,
}

impl<'a> Costs<'a> {
    /// The costs of the whole network.
    pub(super) fn new(module: &'a Module, groups: &'a Groups) -> Self {
        let mut costs = Self {
            module,
            groups,
            left: FxHashMap::default(),
            gone: FxHashMap::default(),
            places: FxHashMap::default(),
            macs: FxHashMap::default(),
            ops_of: FxHashMap::default(),
            params: FxHashMap::default(),
            globals_of: FxHashMap::default(),
            sums: Sums::default(),
        };
        for (&run, atoms) in groups.written_out() {
            costs.left.insert(run, atoms.len() as u64);
            costs.gone.insert(run, vec![0; atoms.len()]);
            for (i, of) in atoms.iter().enumerate() {
                for &atom in of {
                    costs.places.entry(atom).or_default().push((run, i));
                }
            }
        }
        if let Some(graph) = module.main() {
            for op in module.ops_in(graph) {
                let macs = costs.macs_of(op);
                if macs == 0 {
                    continue;
                }
                costs.sums.macs = costs.sums.macs.saturating_add(macs);
                costs.macs.insert(op, macs);
                for run in costs.runs_of(op) {
                    costs.ops_of.entry(run).or_default().push(op);
                }
            }
        }
        for (id, global) in module.globals().filter(|(_, g)| g.role == Role::Param) {
            let params = costs.params_of(id);
            costs.sums.params = costs.sums.params.saturating_add(params);
            costs.params.insert(id, params);
            for run in runs(groups.axes_of(groups.tensor(global.value)).unwrap_or(&[])) {
                costs.globals_of.entry(run).or_default().push(id);
            }
        }
        costs.sums.channels = groups.groups.iter().map(|g| g.atoms.len() as u64).sum();
        costs
    }

    /// What is left.
    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    /// Drops atoms.
    pub(super) fn drop_atoms(&mut self, atoms: &[Atom]) {
        let (mut stale, mut smaller): (Vec<OpId>, Vec<GlobalId>) = (Vec::new(), Vec::new());
        for atom in atoms {
            for (run, i) in self.places.get(atom).into_iter().flatten() {
                let Some(times) = self.gone.get_mut(run).and_then(|g| g.get_mut(*i)) else { continue };
                *times += 1;
                if *times == 1 {
                    if let Some(left) = self.left.get_mut(run) {
                        *left -= 1;
                    }
                    stale.extend(self.ops_of.get(run).into_iter().flatten());
                    smaller.extend(self.globals_of.get(run).into_iter().flatten());
                }
            }
        }
        self.sums.channels -= atoms.len() as u64;
        stale.sort_unstable();
        stale.dedup();
        for op in stale {
            let macs = self.macs_of(op);
            let before = self.macs.insert(op, macs).unwrap_or(0);
            self.sums.macs = self.sums.macs - before + macs;
        }
        smaller.sort_unstable();
        smaller.dedup();
        for id in smaller {
            let params = self.params_of(id);
            let before = self.params.insert(id, params).unwrap_or(0);
            self.sums.params = self.sums.params - before + params;
        }
    }

    /// How many elements of an axis are left.
    fn left(&self, axis: Axis) -> Option<u64> {
        match axis {
            Axis::Run(run) => self.left.get(&run).copied(),
            Axis::Kept(_) => None,
        }
    }

    fn macs_of(&self, op: OpId) -> u64 {
        multiply_adds_left(self.module, self.groups, &|axis| self.left(axis), op)
    }

    fn params_of(&self, id: GlobalId) -> u64 {
        let value = self.module.global(id).value;
        let axes = self.groups.axes_of(self.groups.tensor(value)).unwrap_or(&[]);
        let mut extents = extents(self.module, value);
        extents.iter_mut().zip(axes).for_each(|(e, &axis)| *e = self.left(axis).unwrap_or(*e));
        product(&extents)
    }

    /// The runs on the operands and the result of an operation.
    fn runs_of(&self, op: OpId) -> Vec<Run> {
        let m = self.module;
        let operands = (0..m.op(op).operand_count()).filter_map(|i| self.groups.operand(m, op, i));
        let results = m.op(op).results().iter().map(|&v| self.groups.tensor(v));
        runs(operands.chain(results).filter_map(|s| self.groups.axes_of(s)).flatten())
    }
}

/// The runs among axes, each once.
fn runs<'a>(axes: impl IntoIterator<Item = &'a Axis>) -> Vec<Run> {
    let run = |a: &Axis| match a {
        Axis::Run(run) => Some(*run),
        Axis::Kept(_) => None,
    };
    let mut runs: Vec<Run> = axes.into_iter().filter_map(run).collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}
