//! What a choice costs: multiply-adds, parameters and channels, followed atom by atom without rewriting anything.

use crate::groups::{Atom, Atoms, Axis, Groups, Run};
use gs_ir::{Dim, Module, OpId, Role};
use gs_passes::cost::{extents, multiply_adds_of};
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

/// How many elements of each axis are left, and what follows from it.
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
        costs.sums.params = costs.params();
        costs.sums.channels = groups.groups.iter().map(|g| g.atoms.len() as u64).sum();
        costs
    }

    /// What is left.
    pub(super) fn sums(&self) -> Sums {
        Sums { params: self.params(), ..self.sums }
    }

    /// Drops atoms.
    pub(super) fn drop_atoms(&mut self, atoms: &[Atom]) {
        let mut stale: Vec<OpId> = Vec::new();
        for atom in atoms {
            for (run, i) in self.places.get(atom).into_iter().flatten() {
                let Some(times) = self.gone.get_mut(run).and_then(|g| g.get_mut(*i)) else { continue };
                *times += 1;
                if *times == 1 {
                    if let Some(left) = self.left.get_mut(run) {
                        *left -= 1;
                    }
                    stale.extend(self.ops_of.get(run).into_iter().flatten());
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
    }

    /// How many elements of an axis are left.
    pub(super) fn left(&self, axis: Axis) -> Option<u64> {
        match axis {
            Axis::Run(run) => self.left.get(&run).copied(),
            Axis::Kept(_) => None,
        }
    }

    fn macs_of(&self, op: OpId) -> u64 {
        let m = self.module;
        let operand = |place: usize| match m.op(op).operand(place) {
            Some(v) => self.extents(
                self.groups.operand(m, op, place).and_then(|s| self.groups.axes_of(s)),
                extents(m, v),
            ),
            None => Vec::new(),
        };
        let y = m.op(op).result();
        if y.is_none() {
            return 0;
        }
        multiply_adds_of(
            m,
            op,
            &operand,
            &self.extents(self.groups.axes_of(self.groups.tensor(y)), extents(m, y)),
        )
    }

    fn extents(&self, axes: Option<&[Axis]>, mut whole: Vec<u64>) -> Vec<u64> {
        for (extent, axis) in whole.iter_mut().zip(axes.unwrap_or(&[])) {
            *extent = self.left(*axis).unwrap_or(*extent);
        }
        whole
    }

    /// The runs on the operands and the result of an operation.
    fn runs_of(&self, op: OpId) -> Vec<Run> {
        let m = self.module;
        let operands = (0..m.op(op).operand_count()).filter_map(|i| self.groups.operand(m, op, i));
        let results = m.op(op).results().iter().map(|&v| self.groups.tensor(v));
        let mut runs: Vec<Run> = operands
            .chain(results)
            .filter_map(|s| self.groups.axes_of(s))
            .flatten()
            .filter_map(|a| match a {
                Axis::Run(run) => Some(*run),
                Axis::Kept(_) => None,
            })
            .collect();
        runs.sort_unstable();
        runs.dedup();
        runs
    }

    fn params(&self) -> u64 {
        let m = self.module;
        let params = m.globals().filter(|(_, g)| g.role == Role::Param);
        params
            .map(|(_, g)| {
                let whole =
                    m.ty(g.ty).dims().unwrap_or(&[]).iter().map(|d| Dim::as_const(d).unwrap_or(1) as u64);
                self.extents(self.groups.axes_of(self.groups.tensor(g.value)), whole.collect())
                    .iter()
                    .product::<u64>()
            })
            .sum()
    }
}

/// The positions of atoms on the elements of an axis.
pub(super) fn positions(atoms: &[Atoms]) -> FxHashMap<Atom, Vec<usize>> {
    let mut map: FxHashMap<Atom, Vec<usize>> = FxHashMap::default();
    for (i, of) in atoms.iter().enumerate() {
        for &atom in of {
            map.entry(atom).or_default().push(i);
        }
    }
    map
}
