//! What a node costs: whole numbers, from operator and types alone. The unit is a sixteenth of an integer
//! multiply-add; a byte that is moved costs one unit. Symbolic extents count as one, so a cost is that of one sample.

use crate::target::Target;
use gs_ir::registry::{OpDecl, Traits};
use gs_ir::{AttrSet, Dim, Fact, Type};

/// Units of an integer multiply-add.
const MULTIPLY_ADD: u64 = 16;
/// Units of an operation as such, so that fewer are better where nothing else differs.
const OPERATION: u64 = 16;
/// Units of an operation on constants: it is computed once, before the network runs.
const FOLDED: u64 = 1;

/// Relative costs of a target, as whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// Units of a float multiply-add or elementary operation; an integer one costs 16.
    pub float: u64,
    /// Units of a quantise-dequantise pair, per element; one of the two costs half.
    pub pair: u64,
}

impl Default for Costs {
    /// Floats cost twice what integers cost, a pair a tenth of a multiply-add.
    fn default() -> Self {
        Costs { float: 2 * MULTIPLY_ADD, pair: 2 }
    }
}

impl Costs {
    /// Those of a target, rounded to units and at least one.
    pub fn of(target: &Target) -> Self {
        let units = |x: f64| (x * MULTIPLY_ADD as f64).round().clamp(1.0, 1e6) as u64;
        Costs {
            float: units(target.cost.float_over_int),
            pair: units(target.cost.quantise_per_element).max(2),
        }
    }

    /// The cost of one operation. `foldable` says that it depends on constants only.
    pub fn operation(
        &self,
        decl: &OpDecl,
        attrs: &AttrSet,
        operands: &[Option<&Fact>],
        results: &[&Fact],
        foldable: bool,
    ) -> u64 {
        if foldable {
            return FOLDED;
        }
        let made: u64 = results.iter().map(|f| elements(&f.ty)).fold(0, u64::saturating_add);
        let work = if decl.traits.has(Traits::MOVES) {
            results.iter().map(|f| bytes(&f.ty)).fold(0, u64::saturating_add).saturating_mul(2)
        } else if matches!(decl.name, "quantize" | "dequantize") {
            made.saturating_mul(self.pair.div_ceil(2))
        } else if decl.traits.has(Traits::QUANTISER) {
            made.saturating_mul(self.pair)
        } else {
            let each = if self.is_float(decl, operands) { self.float } else { MULTIPLY_ADD };
            multiply_adds(decl, attrs, operands, made).max(made).saturating_mul(each)
        };
        work.saturating_add(OPERATION)
    }

    /// Whether an operation computes in floats: integer operators have float operands too, their scales.
    fn is_float(&self, decl: &OpDecl, operands: &[Option<&Fact>]) -> bool {
        let first = operands.first().copied().flatten();
        !decl.traits.has(Traits::INTEGER) && first.is_none_or(|f| f.ty.elem().is_none_or(|e| e.is_float()))
    }
}

/// Multiply-adds of an operation; zero for what multiplies nothing.
fn multiply_adds(decl: &OpDecl, attrs: &AttrSet, operands: &[Option<&Fact>], made: u64) -> u64 {
    let shape = |name: &str| {
        let at = decl.operand_index(name)?;
        operands.get(at).copied().flatten().map(|f| extents(&f.ty))
    };
    let product = |e: &[u64]| e.iter().fold(1, |n: u64, x| n.saturating_mul(*x));
    match decl.name {
        "conv" | "qconv" | "conv_integer" => {
            // Products that one output sums: everything of the weight but its output channels.
            let weight = shape("w").unwrap_or_default();
            made.saturating_mul(product(weight.get(1..).unwrap_or(&[])))
        }
        "conv_transpose" => {
            let (weight, input) = (shape("w").unwrap_or_default(), shape("x").unwrap_or_default());
            product(&input).saturating_mul(product(weight.get(1..).unwrap_or(&[])))
        }
        "gemm" | "qgemm" => {
            let a = shape("a").unwrap_or_default();
            let inner = if attrs.bool("trans_a", false) { a.first() } else { a.last() };
            made.saturating_mul(inner.copied().unwrap_or(1))
        }
        "matmul" | "qmatmul" | "matmul_integer" => {
            made.saturating_mul(shape("a").and_then(|a| a.last().copied()).unwrap_or(1))
        }
        _ => 0,
    }
}

fn extents(ty: &Type) -> Vec<u64> {
    let one = |d: &Dim| d.eval(&|_| Some(1)).and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
    ty.dims().map(|dims| dims.iter().map(one).collect()).unwrap_or_default()
}

fn elements(ty: &Type) -> u64 {
    extents(ty).iter().fold(1, |n, e| n.saturating_mul(*e))
}

fn bytes(ty: &Type) -> u64 {
    let bits = ty.elem().map_or(32, |e| u64::from(e.bits()));
    elements(ty).saturating_mul(bits).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gs_ir::{ElemType, Registry};

    fn cost(op: &str, operands: &[Type], result: Type) -> u64 {
        let registry = Registry::builtin();
        let decl = registry.decl(registry.kind(op).unwrap());
        let operands: Vec<Fact> = operands.iter().cloned().map(Fact::of).collect();
        let operands: Vec<Option<&Fact>> = operands.iter().map(Some).collect();
        Costs::default().operation(decl, &AttrSet::new(), &operands, &[&Fact::of(result)], false)
    }

    fn tensor(elem: ElemType, dims: &[i64]) -> Type {
        Type::fixed(elem, dims)
    }

    #[test]
    fn integers_cost_less_than_floats_and_bytes_count_for_moves() {
        let (f, q) = (|d: &[i64]| tensor(ElemType::F32, d), |d: &[i64]| tensor(ElemType::I8, d));
        assert_eq!(cost("transpose", &[f(&[8, 8])], f(&[8, 8])), 16 + 2 * 256);
        assert_eq!(cost("transpose", &[q(&[8, 8])], q(&[8, 8])), 16 + 2 * 64);
        assert_eq!(cost("matmul", &[f(&[4, 5]), f(&[5, 6])], f(&[4, 6])), 16 + 120 * 32);
        assert_eq!(
            cost("matmul_integer", &[q(&[4, 5]), q(&[5, 6])], tensor(ElemType::I32, &[4, 6])),
            16 + 120 * 16
        );
        assert_eq!(cost("relu", &[f(&[4, 6])], f(&[4, 6])), 16 + 24 * 32);
        assert_eq!(cost("relu", &[q(&[4, 6])], q(&[4, 6])), 16 + 24 * 16);
        assert_eq!(cost("dequantize", &[q(&[4, 6]), f(&[])], f(&[4, 6])), 16 + 24);
        assert_eq!(cost("quantize", &[f(&[4, 6]), f(&[])], q(&[4, 6])), 16 + 24);
        assert_eq!(cost("qdq", &[f(&[4, 6]), f(&[]), q(&[])], f(&[4, 6])), 16 + 2 * 24);
    }
}
