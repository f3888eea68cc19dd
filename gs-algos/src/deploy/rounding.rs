//! Weights are quantised beforehand, by `quantize` among the constants, which rounds halves to the even code wherever
//! it is computed. For a target that rounds them otherwise its rounding is written out before that: what
//! the file holds is then what its target would have computed, and every program reads the same numbers from it.

use gs_eval::Rounding;
use gs_ir::{Attr, AttrSet, ElemType, GlobalId, InferError, Init, Literal, Module, NewGlobal, OpId};
use gs_ir::{Rewriter, Role, Type};

/// Codes of more bits are finer than the numbers that are rounded to them.
const MAX_BITS: u32 = 16;

/// A weight and how it is quantised.
struct Weight {
    op: OpId,
    value: GlobalId,
    scale: GlobalId,
    /// The extents to which the scale is brought, so that it lies along the channels.
    scale_dims: Vec<i64>,
}

/// Brings weights that are yet to be quantised to the codes that this rounding gives. Nothing is done where it is that of
/// `quantize`. Returns how many weights there were.
///
/// # Errors
/// Where an operation does not fit (a defect).
pub(super) fn round_weights(module: &mut Module, rounding: Rounding) -> Result<usize, InferError> {
    if rounding == Rounding::HalfEven {
        return Ok(0);
    }
    let weights: Vec<Weight> =
        module.all_ops().into_iter().filter_map(|op| quantised_weight(module, op)).collect();
    if weights.is_empty() {
        return Ok(0);
    }
    let mut rewriter = Rewriter::new(module);
    let half = rewriter.add_global(NewGlobal {
        name: "half",
        role: Role::Const,
        trainable: false,
        ty: Type::fixed(ElemType::F32, &[]),
        init: Init::Data(Literal::f32s([], &[0.5]).data),
    });
    for w in &weights {
        let rounded = rounded(&mut rewriter, w, half, rounding)?;
        let value = rewriter.global(rounded).value;
        rewriter.set_operand(w.op, 0, Some(value));
    }
    Ok(weights.len())
}

/// The weight that an operation quantises to narrow codes, if it does that.
fn quantised_weight(module: &Module, op: OpId) -> Option<Weight> {
    let attrs = module.attrs_of(op);
    let plain = attrs.get("levels").is_none() && ["block", "block_size"].iter().all(|a| attrs.int(a, 0) == 0);
    if !(module.is(op, "qdq") || module.is(op, "quantize")) || !plain {
        return None;
    }
    let operand = |i| module.as_global(module.op(op).operand(i)?);
    let (value, scale) = (operand(0)?, operand(1)?);
    let codes = match module.op(op).operand(2) {
        Some(zero_point) => module.type_of(zero_point).elem()?,
        None => module.type_of(module.op(op).result()).elem()?,
    };
    let ty = |g: GlobalId| module.ty(module.global(g).ty).as_tensor();
    let (weight_ty, scale_ty) = (ty(value)?, ty(scale)?);
    let floats = weight_ty.elem == ElemType::F32 && scale_ty.elem == ElemType::F32;
    if !floats || !codes.is_int() || codes.bits() > MAX_BITS || module.global(value).role == Role::State {
        return None;
    }
    let rank = weight_ty.rank()?;
    let dims = scale_ty.const_dims()?;
    let scale_dims = match dims.as_slice() {
        [] | [1] => vec![],
        [n] => {
            let axis = module.decl(op).int(attrs, "axis")?;
            let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
            (0..rank).map(|i| if i == axis { *n } else { 1 }).collect()
        }
        _ => return None,
    };
    Some(Weight { op, value, scale, scale_dims })
}

/// The weight as the multiple of the scale that the rounding gives. The quotient is taken apart into a whole number and
/// a rest, both exact: `floor(x + 0.5)` would lift what is just below a half.
fn rounded(
    rewriter: &mut Rewriter<'_>,
    w: &Weight,
    half: GlobalId,
    rounding: Rounding,
) -> Result<GlobalId, InferError> {
    let name = rewriter.str(rewriter.global(w.value).name).to_owned();
    let mut chain = Chain { rewriter, name: format!("{name}.rounded"), half };
    let scale = chain.reshape(w.scale, &w.scale_dims)?;
    let quotient = chain.make("div", &[w.value, scale])?;
    let whole = match rounding {
        Rounding::HalfAway => {
            let magnitude = chain.make("abs", &[quotient])?;
            let up = chain.half_up(magnitude)?;
            let sign = chain.make("sign", &[quotient])?;
            chain.make("mul", &[up, sign])?
        }
        Rounding::HalfUp | Rounding::HalfEven => chain.half_up(quotient)?,
    };
    chain.make("mul", &[whole, scale])
}

/// Makes constants from constants.
struct Chain<'r, 'm> {
    rewriter: &'r mut Rewriter<'m>,
    name: String,
    half: GlobalId,
}

impl Chain<'_, '_> {
    fn with(&mut self, op: &str, attrs: AttrSet, operands: &[GlobalId]) -> Result<GlobalId, InferError> {
        let kind = self.rewriter.registry().kind(op);
        let kind = kind.ok_or_else(|| InferError::new(format!("the operator `{op}` is not declared")))?;
        let operands: Vec<Option<GlobalId>> = operands.iter().map(|&g| Some(g)).collect();
        self.rewriter.derive_global(&self.name, kind, attrs, &operands)
    }

    fn make(&mut self, op: &str, operands: &[GlobalId]) -> Result<GlobalId, InferError> {
        self.with(op, AttrSet::new(), operands)
    }

    fn reshape(&mut self, global: GlobalId, dims: &[i64]) -> Result<GlobalId, InferError> {
        let mut attrs = AttrSet::new();
        attrs.set("shape", Attr::dims(dims.iter().map(|&d| d.into())));
        self.with("reshape", attrs, &[global])
    }

    /// The nearest whole number, of two the larger.
    fn half_up(&mut self, x: GlobalId) -> Result<GlobalId, InferError> {
        let floor = self.make("floor", &[x])?;
        let rest = self.make("sub", &[x, floor])?;
        let over = self.make("greater_or_equal", &[rest, self.half])?;
        let mut attrs = AttrSet::new();
        attrs.set("to", Attr::Elem(ElemType::F32));
        let over = self.with("cast", attrs, &[over])?;
        self.make("add", &[floor, over])
    }
}
