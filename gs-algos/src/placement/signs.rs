//! Which tensors hold no negative number: a grid without a sign serves them twice as well.

use gs_ir::registry::QRole;
use gs_ir::{Module, OpId, ValueId};
use gs_passes::grid::Grids;

/// Chains of operations longer than this are not looked through.
const FAR: usize = 64;

/// Whether a tensor, and every other that shares its grid, can hold a negative number.
pub(crate) fn can_be_negative(module: &Module, grids: &Grids, value: ValueId) -> bool {
    let entries = grids.class_of(value).map_or(&[][..], |(_, class)| &class.entries[..]);
    // What lies inside a layer enters no grid.
    let entries = if entries.is_empty() { &[value][..] } else { entries };
    entries.iter().any(|&v| !never_negative(module, v, FAR))
}

fn never_negative(module: &Module, value: ValueId, far: usize) -> bool {
    let (Some(op), Some(far)) = (module.producer(value), far.checked_sub(1)) else { return false };
    let attrs = module.attrs_of(op);
    match module.op_name(op) {
        "relu" | "sigmoid" | "hard_sigmoid" | "softmax" | "exp" | "abs" | "softplus" => true,
        "clip" => attrs.float("min", f32::NEG_INFINITY) >= 0.0,
        "pad" if attrs.float("value", 0.0) < 0.0 => false,
        "fake_quant" | "lsq" | "pact" | "qdq" => first(module, op, far),
        // What selects, moves, averages or adds such numbers has no others.
        "average_pool" | "global_average_pool" | "reduce_mean" | "reduce_sum" => first(module, op, far),
        "add" | "mul" | "sum" | "max" => {
            module.op(op).present_operands().all(|v| never_negative(module, v, far))
        }
        _ => {
            let decl = module.decl(op);
            let moves = decl.results.first().is_some_and(|r| r.role == QRole::Same);
            let data = |i: usize| decl.operand(i).is_some_and(|o| o.role == QRole::Same);
            let mut operands = module.op(op).operands().enumerate().filter(|(i, _)| data(*i));
            moves && operands.all(|(_, v)| v.is_some_and(|v| never_negative(module, v, far)))
        }
    }
}

fn first(module: &Module, op: OpId, far: usize) -> bool {
    module.op(op).operand(0).is_some_and(|v| never_negative(module, v, far))
}
