//! The first and the last layers of a network. They see pixels and make decisions, and keep more bits than the rest.

use gs_ir::registry::QRole;
use gs_ir::{GraphId, Module, OpId, Use, ValueId};
use gs_passes::grid::{Grids, Part};
use rustc_hash::FxHashSet;

/// The layers before which there is no other, and those behind which there is none.
pub(super) struct Edges(FxHashSet<OpId>);

impl Edges {
    /// The edges of a graph.
    pub(super) fn of(module: &Module, graph: GraphId) -> Self {
        let ops: Vec<OpId> = module.ops_in(graph).collect();
        let mut edges = FxHashSet::default();
        // Values that a layer has part in, and values in which a layer behind them has part.
        let (mut behind, mut before) = (FxHashSet::<ValueId>::default(), FxHashSet::<ValueId>::default());
        for &op in &ops {
            let layer = is_layer(module, op);
            let follows = module.op(op).present_operands().any(|v| behind.contains(&v));
            if layer && !follows {
                edges.insert(op);
            }
            if layer || follows {
                behind.extend(module.op(op).results().iter().filter_map(|v| v.some()));
            }
        }
        for &op in ops.iter().rev() {
            let layer = is_layer(module, op);
            let feeds = module.op(op).results().iter().filter_map(|v| v.some()).any(|v| before.contains(&v));
            if layer && !feeds {
                edges.insert(op);
            }
            if layer || feeds {
                before.extend(module.op(op).present_operands());
            }
        }
        Self(edges)
    }

    /// Whether an operation is one of them.
    pub(super) fn contains(&self, op: OpId) -> bool {
        self.0.contains(&op)
    }

    /// Whether a tensor is read by layers that are no edges and by nothing else: not by additions, not as an output.
    pub(super) fn feeds_inner_layers_only(&self, module: &Module, grids: &Grids, value: ValueId) -> bool {
        let Some((_, class)) = grids.class_of(value) else { return false };
        let mut read = false;
        for u in class.members.iter().flat_map(|&v| module.value(v).uses()) {
            match *u {
                Use::Operand(op, _) if grids.part(op) == Some(&Part::Computes) => {
                    if !is_layer(module, op) || self.contains(op) {
                        return false;
                    }
                    read = true;
                }
                Use::Operand(..) => {}
                Use::Return(..) | Use::Update(..) => return false,
            }
        }
        read
    }
}

/// Whether an operation reads a weight.
pub(super) fn is_layer(module: &Module, op: OpId) -> bool {
    module.decl(op).operands.iter().any(|o| o.role == QRole::Weight)
}
