//! Quantisers: to codes, from codes, and both at once as training and the frozen form have them.

use super::ctx::{OpCtx, OpError, codes_tensor};
use super::layout::{places, strides};
use crate::arith::{Codes, Rounding};
use crate::evaluator::Precision;
use crate::quant::{CodeKind, Grid, code_of};
use crate::tensor::{Storage, Tensor};
use gs_ir::ElemType;

pub(super) const TABLE: &[super::Row] = &[
    ("quantize", quantize),
    ("dequantize", dequantize),
    ("qdq", qdq),
    ("fake_quant", fake_quant),
    ("fake_quant_grad", fake_quant_grad),
    ("observe", observe),
];

/// Which scale each element uses: a number per element, into the scale's elements.
pub(super) struct Spread {
    /// One entry per element of the tensor.
    pub(super) index: Vec<usize>,
}

impl Spread {
    /// Scales as one for all, one per position on `axis`, or one per block of `block` along `axis`.
    pub(super) fn of(x: &[usize], scale: &[usize], axis: Option<i64>, block: usize) -> Result<Self, OpError> {
        let misfit = || OpError::Extents { what: "scale", left: scale.to_vec(), right: x.to_vec() };
        let n = crate::tensor::count(x).ok_or_else(misfit)?;
        if scale.iter().product::<usize>() == 1 && (block == 0 || scale.len() <= 1) {
            return Ok(Self { index: vec![0; n] });
        }
        let axis = super::ctx::normal_axis(axis.ok_or_else(misfit)?, x.len())?;
        if block > 0 {
            let blocks = x[axis].div_ceil(block);
            let fits = scale.len() == x.len()
                && (0..x.len()).all(|i| scale[i] == if i == axis { blocks } else { x[i] });
            if !fits {
                return Err(misfit());
            }
            let own = strides(scale);
            let inner: usize = x[axis + 1..].iter().product();
            let mut steps = own.clone();
            steps[axis] = 0;
            let index = places(x, &steps).into_iter().enumerate();
            return Ok(Self {
                index: index.map(|(i, base)| base + i / inner % x[axis] / block * own[axis]).collect(),
            });
        }
        if scale != [x[axis]] {
            return Err(misfit());
        }
        let mut steps = vec![0; x.len()];
        steps[axis] = 1;
        Ok(Self { index: places(x, &steps) })
    }

    /// The element of `v` for each element of the tensor.
    pub(super) fn pick<T: Copy>(&self, v: &[T]) -> impl Iterator<Item = T> {
        self.index.iter().filter_map(|&i| v.get(i).copied())
    }
}

/// Scales and zero points of an operation with operands (x, scale, zero_point?).
struct Params {
    spread: Spread,
    scales: Vec<f64>,
    zero_points: Vec<i64>,
    /// Element type of the scale: that of the real numbers.
    real: ElemType,
}

fn params(ctx: &OpCtx<'_>) -> Result<Params, OpError> {
    let (x, scale) = (ctx.operand(0)?, ctx.operand(1)?);
    let block = ctx.int_if("block").unwrap_or(0);
    let block = usize::try_from(block)
        .map_err(|_| OpError::Attr { name: "block", reason: "must not be negative" })?;
    let spread = Spread::of(x.dims(), scale.dims(), ctx.int_if("axis"), block)?;
    let scales = ctx.floats(1)?;
    let zero_points = match ctx.optional(2) {
        None => vec![0; scales.len()],
        Some(z) if z.len() == scales.len() && z.elem().is_int() => ctx.integers(2)?,
        // Zero points of float codes are zeros.
        Some(z) if z.len() == scales.len() => vec![0; scales.len()],
        Some(z) => {
            return Err(OpError::Extents {
                what: "zero point",
                left: z.dims().to_vec(),
                right: scale.dims().to_vec(),
            });
        }
    };
    Ok(Params { spread, scales, zero_points, real: scale.elem() })
}

/// Whether quotients are rounded to f32, as f32 arithmetic does.
pub(super) fn single(ctx: &OpCtx<'_>) -> bool {
    ctx.precision == Precision::Native
}

/// The range of codes of an integer type.
fn range(elem: ElemType) -> Result<(i64, i64), OpError> {
    elem.int_range().ok_or(OpError::Elem { operand: "zero_point", found: elem })
}

/// ONNX's QuantizeLinear: `saturate(round(x / scale) + zero_point)`, the quotient in the precision of the scale.
fn quantize(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let p = params(ctx)?;
    ctx.allot(x.dims())?;
    let to = ctx.optional(2).map(Tensor::elem).or_else(|| ctx.attrs.elem("to")).unwrap_or(ElemType::U8);
    let quotients: Vec<f64> =
        ctx.floats(0)?.iter().zip(p.spread.pick(&p.scales)).map(|(x, s)| x / s).collect();
    if to.is_float() {
        let saturate = ctx.int_if("saturate").unwrap_or(1) != 0;
        let codes = quotients.iter().map(|&q| crate::minifloat::round_to(to, q, saturate)).collect();
        return Ok(vec![Tensor::new(to, x.dims(), Storage::F32(codes))?]);
    }
    let (low, high) = range(to)?;
    let rounding = ctx.arithmetic.rounding;
    let narrow = (single(ctx) && p.real.is_float()).then_some(p.real);
    let codes: Vec<i64> = quotients
        .into_iter()
        .zip(p.spread.pick(&p.zero_points))
        .map(|(q, zero_point)| {
            let q = narrow.map_or(q, |e| round_real(e, q));
            Codes { low, high, zero_point }.shift_and_saturate(rounding.f64(q))
        })
        .collect();
    Ok(vec![codes_tensor(to, x.dims(), &codes)?])
}

/// A number rounded to a float type.
pub(super) fn round_real(elem: ElemType, x: f64) -> f64 {
    match elem {
        ElemType::F64 => x,
        ElemType::F32 => f64::from(x as f32),
        e => f64::from(crate::minifloat::round_to(e, x, false)),
    }
}

/// ONNX's DequantizeLinear: `(code - zero_point) * scale`, the difference rounded to the scale's type first.
fn dequantize(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let p = params(ctx)?;
    ctx.allot(x.dims())?;
    let codes = ctx.floats(0)?;
    let zipped = codes.iter().zip(p.spread.pick(&p.zero_points)).zip(p.spread.pick(&p.scales));
    let y: Vec<f64> = zipped.map(|((c, z), s)| round_real(p.real, c - z as f64) * s).collect();
    ctx.make(ctx.attrs.elem("to").map_or(p.real, |e| ctx.elem(e)), x.dims(), &y)
}

/// The frozen quantiser: to codes and back. Codes are those of the zero point's type, of `bits`, or `qmin` to `qmax`;
/// with `levels = odd` the odd numbers from `-(2^bits - 1)` to `2^bits - 1`, without zero.
fn qdq(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let p = params(ctx)?;
    ctx.allot(x.dims())?;
    let odd = ctx.word("levels") == Some("odd");
    let (low, high) = qdq_range(ctx, odd)?;
    let single = single(ctx);
    let zipped = ctx.floats(0)?.into_iter().zip(p.spread.pick(&p.scales)).zip(p.spread.pick(&p.zero_points));
    let y: Vec<f64> = zipped
        .map(|((x, s), zero_point)| {
            let codes = Codes { low, high, zero_point };
            let code = code_of(x, s, &codes, Rounding::HalfEven, single, odd);
            (code.saturating_sub(zero_point)) as f64 * s
        })
        .collect();
    ctx.make(x.elem(), x.dims(), &y)
}

fn qdq_range(ctx: &OpCtx<'_>, odd: bool) -> Result<(i64, i64), OpError> {
    let storage = ctx.operand(2)?.elem();
    let bits = match ctx.int_if("bits") {
        // All odd codes that the storage holds.
        None if odd => storage.bits().saturating_sub(1),
        None => storage.bits(),
        Some(b) => u32::try_from(b)
            .ok()
            .filter(|b| (1..=32).contains(b))
            .ok_or(OpError::Attr { name: "bits", reason: "must lie between 1 and 32" })?,
    };
    let (low, high) = if odd {
        let top = (1i64 << bits.min(32)) - 1;
        (-top, top)
    } else if storage.is_int() {
        CodeKind { bits, signed: storage.is_signed_int(), symmetric: false, narrow: false }.range()
    } else {
        range(storage)?
    };
    let (low, high) = (ctx.int_if("qmin").unwrap_or(low), ctx.int_if("qmax").unwrap_or(high));
    if low > high {
        return Err(OpError::Attr { name: "qmin", reason: "is above qmax" });
    }
    Ok((low, high))
}

/// The training quantiser: scale and zero point follow from the range, a row of minima and one of maxima.
fn fake_quant(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let (grids, spread) = grids_of_range(ctx, x, 1)?;
    let single = single(ctx);
    let zipped = ctx.floats(0)?.into_iter().zip(spread.pick(&grids));
    let y: Vec<f64> = zipped
        .map(|(x, g)| {
            let s = f64::from(g.scale);
            let code = code_of(x, s, &g.codes, Rounding::HalfEven, single, false);
            (code - g.codes.zero_point) as f64 * s
        })
        .collect();
    ctx.make(x.elem(), x.dims(), &y)
}

/// Its straight-through derivative.
fn fake_quant_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, x) = (ctx.operand(0)?, ctx.operand(1)?);
    if dy.dims() != x.dims() {
        let (left, right) = (dy.dims().to_vec(), x.dims().to_vec());
        return Err(OpError::Extents { what: "gradient and value", left, right });
    }
    let (grids, spread) = grids_of_range(ctx, x, 2)?;
    let pairs = ctx.floats(0)?.into_iter().zip(ctx.floats(1)?).zip(spread.pick(&grids));
    let dx: Vec<f64> = pairs
        .map(|((d, x), grid)| {
            let (low, high) = grid.nudged();
            if x >= f64::from(low) && x <= f64::from(high) { d } else { 0.0 }
        })
        .collect();
    ctx.make(dy.elem(), dy.dims(), &dx)
}

/// The grids that the range at a place spans for a tensor, and which of them each element uses.
fn grids_of_range(ctx: &OpCtx<'_>, x: &Tensor, place: usize) -> Result<(Vec<Grid>, Spread), OpError> {
    let range = ctx.operand(place)?;
    let bits = u32::try_from(ctx.int("bits")?).ok().filter(|b| (1..=32).contains(b));
    let bits = bits.ok_or(OpError::Attr { name: "bits", reason: "must lie between 1 and 32" })?;
    let kind = CodeKind {
        bits,
        signed: ctx.flag("signed"),
        symmetric: ctx.flag("symmetric"),
        narrow: ctx.flag("narrow"),
    };
    let bounds = ctx.floats(place)?;
    let (Some((2, rest)), half) = (range.dims().split_first().map(|(d, r)| (*d, r)), bounds.len() / 2) else {
        return Err(OpError::Extents { what: "range", left: range.dims().to_vec(), right: vec![2] });
    };
    let spread = Spread::of(x.dims(), rest, ctx.int_if("axis"), 0)?;
    ctx.allot(x.dims())?;
    let (minima, maxima) = bounds.split_at(half);
    let grids = minima.iter().zip(maxima).map(|(&m, &n)| Grid::cover(m as f32, n as f32, kind)).collect();
    Ok((grids, spread))
}

/// The range of a tensor, of the whole or along an axis, mixed with an earlier one.
fn observe(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (x, range) = (ctx.operand(0)?, ctx.operand(1)?);
    let (channels, plane, shape) = match ctx.int_if("axis") {
        None => (1, x.len().max(1), vec![2]),
        Some(axis) => {
            let axis = ctx.axis(axis, x.rank())?;
            let n = x.dims()[axis];
            (n, x.dims()[axis + 1..].iter().product::<usize>().max(1), vec![2, n])
        }
    };
    if range.dims() != shape {
        return Err(OpError::Extents { what: "range", left: range.dims().to_vec(), right: shape });
    }
    ctx.work(x.len() as u128)?;
    let (mut low, mut high) = (vec![f64::INFINITY; channels], vec![f64::NEG_INFINITY; channels]);
    for (i, v) in ctx.floats(0)?.into_iter().enumerate() {
        let c = i / plane % channels.max(1);
        (low[c], high[c]) = (low[c].min(v), high[c].max(v));
    }
    let decay = f64::from(ctx.float("decay")?);
    let seen = low.into_iter().chain(high);
    let new: Vec<f64> = ctx
        .floats(1)?
        .into_iter()
        .zip(seen)
        // Of nothing there is no range; the earlier one stays.
        .map(|(old, seen)| if seen.is_finite() { decay * old + (1.0 - decay) * seen } else { old })
        .collect();
    ctx.make(range.elem(), range.dims(), &new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_spread() {
        let of = |x: &[usize], s: &[usize], axis, block| Spread::of(x, s, axis, block).map(|s| s.index);
        assert_eq!(of(&[2, 2], &[], None, 0), Ok(vec![0; 4]));
        assert_eq!(of(&[2, 3], &[3], Some(-1), 0), Ok(vec![0, 1, 2, 0, 1, 2]));
        assert_eq!(of(&[2, 3], &[2], Some(0), 0), Ok(vec![0, 0, 0, 1, 1, 1]));
        assert_eq!(of(&[2, 3], &[2, 2], Some(1), 2), Ok(vec![0, 0, 1, 2, 2, 3]));
        assert_eq!(of(&[3, 2], &[2, 2], Some(0), 2), Ok(vec![0, 1, 0, 1, 2, 3]));
        assert!(of(&[2, 3], &[2], Some(1), 0).is_err());
        assert!(of(&[2, 3], &[3], None, 0).is_err());
        assert_eq!(of(&[2, 0], &[2, 0], Some(1), 4), Ok(vec![]));
    }
}
