//! The sweep over a network: each operation gives its results their axes and ties those of its operands, as its
//! declaration says. Ties are unions and sets are bound globally, so that one sweep is all there is to it, wherever
//! one would start.

use super::axes::{Axes, Axis, Slot};
use super::labels::Why;
use gs_ir::{AttrSet, Def, Dim, GlobalId, GraphId, Handle, Module, OpDecl, OpId, OpKind, Role, ValueId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Why something is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// An axis is cut in two ways that do not fit each other.
    Cuts,
    /// The axis has one element.
    Single,
    /// The extent is no number.
    Dynamic,
    /// The axis is longer than [`LONGEST`].
    Long,
    /// The network is given it.
    Input,
    /// The network returns it.
    Output,
    /// The declaration of the operator keeps this operand or result as it is.
    Fixed {
        /// The operation.
        op: OpId,
        /// Name of the operand or result.
        name: &'static str,
    },
    /// Nothing is known of how the operator couples its axes.
    Opaque {
        /// The operation.
        op: OpId,
    },
    /// The shape of the operation says that its parts do not meet one to one.
    Shape {
        /// The operation.
        op: OpId,
    },
    /// The body of this operation reads it.
    Captured {
        /// The operation.
        op: OpId,
    },
}

/// Axes of more elements are kept: to follow each would take more memory than there is, and no layer has as many channels.
pub const LONGEST: usize = 1 << 24;

/// Where a tensor is read and its axis is summed away: what is dropped of it is as if it were zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    /// The operation.
    pub op: OpId,
    /// Place of the operand that holds data.
    pub operand: usize,
    /// Its axis.
    pub axis: usize,
}

/// The weight of a product: its axis that is summed away reads what others make, its other axis makes channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WeightUse {
    /// The operation.
    pub op: OpId,
    /// Place of the operand that holds the weight.
    pub operand: usize,
    /// The axis that is summed away.
    pub summed: usize,
    /// The axis of the result on which its channels stand, where the rule of the operator ties one to the weight.
    pub made: Option<usize>,
}

/// An integer attribute that is the number of elements kept of an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// The operation.
    pub op: OpId,
    /// The attribute.
    pub attr: &'static str,
    /// The axis.
    pub axis: Axis,
}

/// An operation, with the tensors that it reads and makes.
#[derive(Clone)]
pub(super) struct Site<'m> {
    /// The operation.
    pub op: OpId,
    /// Its operator.
    pub kind: OpKind,
    /// Its declaration.
    pub decl: &'m OpDecl,
    /// Its attributes.
    pub attrs: &'m AttrSet,
    /// What it reads, by place.
    pub operands: SmallVec<[Option<Slot>; 4]>,
    /// What it makes.
    pub results: SmallVec<[Slot; 2]>,
}

/// What the sweep knows and finds.
pub(super) struct Solver<'m> {
    pub(super) module: &'m Module,
    pub(super) axes: Axes,
    /// The value behind each tensor.
    values: Vec<ValueId>,
    reasons: Vec<Reason>,
    /// Where axes are summed away.
    pub(super) edges: Vec<Edge>,
    /// The second operands of products.
    pub(super) weights: Vec<WeightUse>,
    /// Attributes that follow extents.
    pub(super) counts: Vec<Count>,
    /// Axes over which an operation computes statistics: dropping there is not the same as zeros.
    pub(super) mixed: Vec<(Axis, OpId)>,
    /// The tensors of operands that are one reading of a constant that has several.
    pub(super) readings: FxHashMap<(OpId, usize), Slot>,
}

impl<'m> Solver<'m> {
    /// Sweeps over a graph of a module.
    pub(super) fn solve(module: &'m Module, graph: GraphId) -> Self {
        let values: Vec<ValueId> = (0..module.value_capacity()).map(ValueId::from_index).collect();
        let mut solver = Self {
            module,
            axes: Axes::with_slots(values.len()),
            values,
            reasons: vec![Reason::Cuts],
            edges: Vec::new(),
            weights: Vec::new(),
            counts: Vec::new(),
            mixed: Vec::new(),
            readings: FxHashMap::default(),
        };
        for &param in module.graph(graph).params() {
            let why = solver.why(Reason::Input);
            let rank = module.type_of(param).dims().map(<[Dim]>::len);
            if let Some(rank) = rank {
                solver.axes.set(slot_of(param), vec![Axis::Kept(why); rank]);
            }
        }
        for op in module.ops_in(graph) {
            let site = solver.site(op);
            solver.rule(&site);
            solver.check_results(&site);
            if !module.op(op).regions().is_empty() {
                solver.captures(op);
            }
        }
        solver.ends(graph);
        solver
    }

    /// What the graph returns is kept; what it stores has the axes of the global that it is stored to.
    fn ends(&mut self, graph: GraphId) {
        let module = self.module;
        for result in module.graph(graph).results() {
            let slot = self.leaf(result);
            self.keep_all(slot, Reason::Output);
        }
        for (global, value) in module.graph(graph).updates() {
            let (a, b) = (self.leaf(module.global(global).value), self.leaf(value));
            let (Some(a), Some(b)) = (self.axes.of(a), self.axes.of(b)) else { continue };
            let pairs: Vec<(Axis, Axis)> = a.iter().copied().zip(b.iter().copied()).collect();
            for (a, b) in pairs {
                self.axes.tie(a, b, Why::SETS);
            }
        }
    }

    /// What a body reads from outside is kept.
    fn captures(&mut self, op: OpId) {
        let module = self.module;
        for &region in module.op(op).regions() {
            for inner in module.ops_nested(region) {
                for value in module.op(inner).present_operands() {
                    let slot = self.leaf(value);
                    self.keep_all(slot, Reason::Captured { op });
                }
            }
            for value in module.graph(region).results() {
                let slot = self.leaf(value);
                self.keep_all(slot, Reason::Captured { op });
            }
        }
    }

    fn site(&mut self, op: OpId) -> Site<'m> {
        let module = self.module;
        let data = module.op(op);
        let operands = data.operands().enumerate().map(|(i, v)| v.map(|v| self.reading(op, i, v))).collect();
        let results = data.results().iter().map(|&v| slot_of(v)).collect();
        let (kind, decl, attrs) = (data.kind, module.decl(op), module.attrs_of(op));
        Site { op, kind, decl, attrs, operands, results }
    }

    /// The tensor that an operand place reads. A constant that is read in several places is a tensor of its own in each:
    /// pruning may drop different parts of it.
    fn reading(&mut self, op: OpId, place: usize, value: ValueId) -> Slot {
        let own = self.module.as_global(value).is_some_and(|g| self.is_shared_constant(g));
        if !own {
            return self.leaf(value);
        }
        let slot = self.axes.add_slot();
        self.values.push(value);
        self.readings.insert((op, place), slot);
        self.begin(slot);
        slot
    }

    fn is_shared_constant(&self, global: GlobalId) -> bool {
        let data = self.module.global(global);
        data.role == Role::Const
            && !self.module.is_written(global)
            && self.module.value(data.value).uses().len() > 1
    }

    /// The tensor of a value. A global that is met for the first time gets atoms for its elements.
    fn leaf(&mut self, value: ValueId) -> Slot {
        let slot = slot_of(value);
        if self.axes.of(slot).is_none() && matches!(self.module.value(value).def, Def::Global(_)) {
            self.begin(slot);
        }
        slot
    }

    fn begin(&mut self, slot: Slot) {
        let Some(dims) = self.dims(slot) else { return };
        let axes: Vec<Axis> = dims.iter().map(|d| self.new_axis(d)).collect();
        self.axes.set(slot, axes);
    }

    /// An axis of which every element may go, unless it has one only or nobody knows how many.
    pub(super) fn new_axis(&mut self, extent: &Dim) -> Axis {
        match extent.as_const().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n > LONGEST => Axis::Kept(self.why(Reason::Long)),
            Some(n) if n > 1 => self.axes.fresh(n),
            Some(_) => Axis::Kept(self.why(Reason::Single)),
            None => Axis::Kept(self.why(Reason::Dynamic)),
        }
    }

    /// What a rule gave a result must be as long as its axes are, or pruning would cut wrongly. A result that the rule
    /// says nothing of is kept.
    fn check_results(&mut self, site: &Site<'m>) {
        let fits = |s: &Self, slot: Slot| match (s.axes.of(slot), s.dims(slot)) {
            (Some(axes), Some(dims)) => {
                let long = |a: &Axis, d: &Dim| match a {
                    Axis::Run(r) => d.as_const() == Some(s.axes.labels_of(*r).len() as i64),
                    Axis::Kept(_) => true,
                };
                axes.len() == dims.len() && axes.iter().zip(dims).all(|(a, d)| long(a, d))
            }
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if !site.results.iter().all(|&slot| fits(self, slot)) {
            self.opaque(site);
        }
    }

    /// Nothing may be dropped of anything that the operation touches.
    pub(super) fn opaque(&mut self, site: &Site<'m>) {
        for slot in site.operands.iter().flatten() {
            self.keep_all(*slot, Reason::Opaque { op: site.op });
        }
        for &slot in &site.results {
            self.keep_all(slot, Reason::Opaque { op: site.op });
            self.keep_result(slot, Reason::Opaque { op: site.op });
        }
    }

    /// Makes all axes of a result kept ones.
    pub(super) fn keep_result(&mut self, slot: Slot, reason: Reason) {
        if slot == slot_of(ValueId::NONE) {
            return;
        }
        if let Some(rank) = self.dims(slot).map(<[Dim]>::len) {
            let why = self.why(reason);
            self.axes.set(slot, vec![Axis::Kept(why); rank]);
        }
    }

    /// Keeps all axes of a tensor.
    pub(super) fn keep_all(&mut self, slot: Slot, reason: Reason) {
        let axes: SmallVec<[Axis; 4]> = self.axes_of(slot).into();
        for axis in axes {
            self.keep(axis, reason.clone());
        }
    }

    /// Keeps an axis.
    pub(super) fn keep(&mut self, axis: Axis, reason: Reason) {
        if matches!(axis, Axis::Run(_)) {
            let why = self.why(reason);
            self.axes.keep(axis, why);
        }
    }

    /// The axes of a tensor; none where its rank is unknown.
    pub(super) fn axes_of(&self, slot: Slot) -> &[Axis] {
        if slot == slot_of(ValueId::NONE) {
            return &[];
        }
        self.axes.of(slot).unwrap_or(&[])
    }

    /// The extents of a tensor, where its rank is known.
    pub(super) fn dims(&self, slot: Slot) -> Option<&'m [Dim]> {
        self.module.type_of(*self.values.get(slot.0 as usize)?).dims()
    }

    /// The extent of an axis as a number.
    pub(super) fn extent(&self, slot: Slot, axis: usize) -> Option<usize> {
        self.dims(slot)?.get(axis)?.as_const()?.try_into().ok()
    }

    /// The value behind a tensor.
    pub(super) fn value(&self, slot: Slot) -> ValueId {
        self.values[slot.0 as usize]
    }

    /// A number for a reason; the same for equal ones that follow each other.
    pub(super) fn why(&mut self, reason: Reason) -> Why {
        if self.reasons.last() != Some(&reason) {
            self.reasons.push(reason);
        }
        Why(self.reasons.len() as u32 - 1)
    }

    /// What outlives the sweep: axes, reasons, readings.
    pub(super) fn into_parts(self) -> (Axes, Vec<Reason>, FxHashMap<(OpId, usize), Slot>) {
        (self.axes, self.reasons, self.readings)
    }
}

/// The tensor of a value.
pub(super) fn slot_of(value: ValueId) -> Slot {
    Slot(if value.is_none() { u32::MAX } else { value.index() as u32 })
}
