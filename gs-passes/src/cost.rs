//! What operations cost: multiply-adds, from types alone.

use gs_ir::{Dim, Module, OpId, ValueId};

/// Multiply-adds of an operation for one sample: every symbolic extent counts as one. Zero for what multiplies
/// nothing; unknown extents count as one too.
pub fn multiply_adds(module: &Module, op: OpId) -> u64 {
    let m = module;
    let operand = |name: &str| m.operand_named(op, name);
    let result = m.op(op).result();
    match m.op_name(op) {
        "conv" | "qconv" | "conv_integer" => {
            let weight = operand("w").map(|w| extents(m, w)).unwrap_or_default();
            // Products that one output sums: everything of the weight but its output channels.
            product(&extents(m, result)).saturating_mul(product(weight.get(1..).unwrap_or(&[])))
        }
        "conv_transpose" => {
            let weight = operand("w").map(|w| extents(m, w)).unwrap_or_default();
            let input = operand("x").map(|x| extents(m, x)).unwrap_or_default();
            product(&input).saturating_mul(product(weight.get(1..).unwrap_or(&[])))
        }
        "gemm" | "qgemm" => {
            let a = operand("a").map(|a| extents(m, a)).unwrap_or_default();
            let inner = if m.attrs_of(op).bool("trans_a", false) { a.first() } else { a.last() };
            product(&extents(m, result)).saturating_mul(inner.copied().unwrap_or(1))
        }
        "matmul" | "qmatmul" | "matmul_integer" => {
            let inner = operand("a").and_then(|a| extents(m, a).last().copied()).unwrap_or(1);
            product(&extents(m, result)).saturating_mul(inner)
        }
        _ => 0,
    }
}

fn extents(m: &Module, value: ValueId) -> Vec<u64> {
    let one = |d: &Dim| d.eval(&|_| Some(1)).and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
    m.type_of(value).dims().map(|dims| dims.iter().map(one).collect()).unwrap_or_default()
}

fn product(extents: &[u64]) -> u64 {
    extents.iter().fold(1u64, |n, &e| n.saturating_mul(e))
}
