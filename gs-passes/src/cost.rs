//! What operations cost: multiply-adds, from types alone.

use gs_ir::{Dim, Module, OpId, ValueId};

/// Multiply-adds of an operation for one sample: every symbolic extent counts as one. Zero for what multiplies
/// nothing; unknown extents count as one too.
pub fn multiply_adds(module: &Module, op: OpId) -> u64 {
    let operand = |place: usize| module.op(op).operand(place).map(|v| extents(module, v)).unwrap_or_default();
    multiply_adds_of(module, op, &operand, &extents(module, module.op(op).result()))
}

/// As [`multiply_adds`], if the operands (by place) and the result had these extents.
pub fn multiply_adds_of(
    module: &Module,
    op: OpId,
    operand: &dyn Fn(usize) -> Vec<u64>,
    result: &[u64],
) -> u64 {
    let operand = |name: &str| module.decl(op).operand_index(name).map(operand).unwrap_or_default();
    match module.op_name(op) {
        "conv" | "qconv" | "conv_integer" => {
            // Products that one output sums: everything of the weight but its output channels.
            product(result).saturating_mul(product(operand("w").get(1..).unwrap_or(&[])))
        }
        "conv_transpose" => {
            product(&operand("x")).saturating_mul(product(operand("w").get(1..).unwrap_or(&[])))
        }
        "gemm" | "qgemm" => {
            let a = operand("a");
            let inner = if module.attrs_of(op).bool("trans_a", false) { a.first() } else { a.last() };
            product(result).saturating_mul(inner.copied().unwrap_or(1))
        }
        "matmul" | "qmatmul" | "matmul_integer" => {
            product(result).saturating_mul(operand("a").last().copied().unwrap_or(1))
        }
        _ => 0,
    }
}

/// The extents of a value for one sample.
pub fn extents(m: &Module, value: ValueId) -> Vec<u64> {
    let one = |d: &Dim| d.eval(&|_| Some(1)).and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
    m.type_of(value).dims().map(|dims| dims.iter().map(one).collect()).unwrap_or_default()
}

fn product(extents: &[u64]) -> u64 {
    extents.iter().fold(1u64, |n, &e| n.saturating_mul(e))
}
