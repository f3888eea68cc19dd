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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::can_be_negative;
    use gs_ir::Registry;

    /// Two layers read the image, one lies between, one makes the scores, whose softmax is returned.
    const NETWORK: &str = r#"gsir 1
dims N >= 1
param @w : f32[3, 3, 1, 1] = uniform(seed 1, -0.5, 0.5)
param @f : f32[2, 3] = uniform(seed 2, -0.5, 0.5)
graph @main(%x : f32[N, 3, 4, 4]) -> (%y : f32[N, 2]) {
  %0 = conv(%x, @w) : f32[N, 3, 4, 4] from "left"
  %1 = max_pool(%x) {kernel_shape = [1, 1]} : f32[N, 3, 4, 4] from "moved"
  %2 = conv(%1, @w) : f32[N, 3, 4, 4] from "right"
  %3 = relu(%0) : f32[N, 3, 4, 4] from "relu"
  %4 = add(%3, %2) : f32[N, 3, 4, 4] from "sum"
  %5 = conv(%4, @w) : f32[N, 3, 4, 4] from "inner"
  %6 = clip(%5) {min = 0.0, max = 6.0} : f32[N, 3, 4, 4] from "clip"
  %7 = global_average_pool(%6) : f32[N, 3, 1, 1] from "pool"
  %8 = flatten(%7) : f32[N, 3] from "flat"
  %9 = gemm(%8, @f) {trans_b = true} : f32[N, 2] from "scores"
  %10 = softmax(%9) : f32[N, 2] from "softmax"
  return %10
}
"#;

    #[test]
    fn layers_that_no_other_stands_before_or_behind_are_edges() {
        let module = gs_text::gsir::parse_module(NETWORK, None, &Registry::builtin()).expect("a module");
        let main = module.main().expect("a graph");
        let target = crate::targets::find("ort-cpu").expect("a target");
        let grids = Grids::of(&module, main, &target, &|_| true);
        let edges = Edges::of(&module, main);
        let named = |holds: &dyn Fn(OpId) -> bool| -> Vec<&str> {
            module.ops_in(main).filter(|&op| holds(op)).map(|op| module.label(op)).collect()
        };
        assert_eq!(named(&|op| edges.contains(op)), ["left", "right", "scores"]);
        let result = |op: OpId| module.op(op).result();
        let inner = named(&|op| edges.feeds_inner_layers_only(&module, &grids, result(op)));
        assert_eq!(inner, ["sum"]);
        let positive = named(&|op| !can_be_negative(&module, &grids, result(op)));
        assert_eq!(positive, ["relu", "clip", "pool", "flat", "softmax"]);
    }
}
