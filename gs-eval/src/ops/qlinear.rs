//! Integer operators with scales: the deployed form. Sums are exact; what brings them to the output grid is the
//! arithmetic that the target names ([`crate::arith`]). Formulas and their order of f32 steps are those of ONNX
//! Runtime's QLinear operators unless the arithmetic says otherwise.

use super::conv::{Codes as Less, Geometry, check_per_channel, integer_sums};
use super::ctx::{OpCtx, OpError, codes_tensor};
use super::layout::{broadcast_dims, broadcast_to};
use super::matmul::{Pairing, broadcast_checked, gemm_extents, gemm_operands, less_zero_points, product};
use super::norm::{each_row, softmax_row};
use super::unary::sigmoid;
use crate::arith::{Arithmetic, Codes, Fixed, Requant, Requantizer, Rounding};
use crate::tensor::Tensor;
use gs_ir::ElemType;

pub(super) const TABLE: &[super::Row] = &[
    ("qconv", qconv),
    ("qmatmul", qmatmul),
    ("qgemm", qgemm),
    ("qadd", qadd),
    ("qmul", qmul),
    ("qconcat", qconcat),
    ("qsigmoid", |c| table(c, |x| sigmoid(f64::from(x)) as f32)),
    ("qleaky_relu", qleaky_relu),
    ("qsoftmax", qsoftmax),
];

/// A grid given by a scale and an optional zero point among the operands.
pub(super) struct GridOf {
    pub(super) scale: f32,
    pub(super) codes: Codes,
    pub(super) elem: ElemType,
}

impl GridOf {
    /// The grid whose codes are of the zero point's type, or of `elem` where that is absent.
    pub(super) fn read(
        ctx: &OpCtx<'_>,
        scale: usize,
        zero_point: usize,
        elem: ElemType,
    ) -> Result<Self, OpError> {
        let elem = ctx.optional(zero_point).map_or(elem, Tensor::elem);
        // Codes are narrow, so that no sum or product of a few of them overflows.
        let (low, high) =
            elem.int_range().filter(|_| elem.bits() <= 32).ok_or_else(|| ctx.wrong_elem(zero_point))?;
        let codes = Codes { low, high, zero_point: ctx.int_scalar_or_zero(zero_point)? };
        Ok(Self { scale: ctx.scalar(scale)?, codes, elem })
    }

    /// The number of a code: f32 product of scale and difference.
    pub(super) fn real(&self, code: i64) -> f32 {
        self.scale * (code.wrapping_sub(self.codes.zero_point)) as f32
    }

    /// The code of a number, by f32 division.
    pub(super) fn code(&self, x: f32, rounding: Rounding) -> i64 {
        self.codes.shift_and_saturate(f64::from(rounding.f32(x / self.scale)))
    }
}

/// The requantisers of a product, one per output channel or one for all.
fn requantizers(ctx: &OpCtx<'_>, x: f32, weights: &[f64], y: &GridOf) -> Result<Vec<Requantizer>, OpError> {
    weights
        .iter()
        .map(|&w| Ok(Requantizer::product(ctx.arithmetic, x, w as f32, y.scale, y.codes)?))
        .collect()
}

fn qconv(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let g = Geometry::of(ctx, 0, 3, false)?;
    let x_zp = ctx.int_scalar_or_zero(2)?;
    let w_zp = if ctx.optional(5).is_some() { ctx.integers(5)? } else { Vec::new() };
    for i in [4, 5] {
        if ctx.optional(i).is_some_and(|t| t.len() != 1) {
            check_per_channel(ctx, i, &g)?;
        }
    }
    let mut sums = integer_sums(ctx, &g, (0, x_zp), 3, &w_zp)?;
    if ctx.optional(8).is_some() {
        check_per_channel(ctx, 8, &g)?;
        add_per_channel(&mut sums, &ctx.integers(8)?, g.out_plane());
    }
    let y = GridOf::read(ctx, 6, 7, ctx.operand(0)?.elem())?;
    let scales = requantizers(ctx, ctx.scalar(1)?, &ctx.floats(4)?, &y)?;
    let plane = g.out_plane();
    if plane > 0 {
        for (row, q) in sums.chunks_exact_mut(plane).zip(scales.iter().cycle()) {
            row.iter_mut().for_each(|s| *s = q.apply(*s));
        }
    }
    Ok(vec![codes_tensor(y.elem, g.dims, &sums)?])
}

/// Adds a bias to each channel, in the 32 bits of the accumulator.
fn add_per_channel(sums: &mut [i64], bias: &[i64], plane: usize) {
    if plane > 0 {
        for (row, b) in sums.chunks_exact_mut(plane).zip(bias.iter().cycle()) {
            row.iter_mut().for_each(|s| *s = add32(*s, *b));
        }
    }
}

/// A sum as an int32 accumulator keeps it.
fn add32(a: i64, b: i64) -> i64 {
    i64::from((a as i32).wrapping_add(b as i32))
}

fn qmatmul(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let pairing = Pairing::of(ctx, 0, 3)?;
    let a = less_zero_points(ctx, 0, 2, true)?;
    let b = less_zero_points(ctx, 3, 5, false)?;
    let sums = pairing.integer_products(a, b);
    let y = GridOf::read(ctx, 6, 7, ctx.operand(0)?.elem())?;
    // A vector of scales on the left counts rows, on the right columns.
    let mut rows_of = ctx.operand(1)?.dims().to_vec();
    if rows_of.len() == 1 && rows_of != [1] {
        rows_of.push(1);
    }
    let (s_a, s_b) = (ctx.floats(1)?, ctx.floats(4)?);
    if let ([s_a], [_]) = (s_a.as_slice(), s_b.as_slice()) {
        let q = requantizers(ctx, *s_a as f32, &s_b, &y)?;
        let codes: Vec<i64> = sums.iter().flat_map(|&s| q.first().map(|q| q.apply(s))).collect();
        return Ok(vec![codes_tensor(y.elem, pairing.dims, &codes)?]);
    }
    let s_a = broadcast_checked(&s_a, &rows_of, &pairing.dims)?;
    let s_b = broadcast_checked(&s_b, ctx.operand(4)?.dims(), &pairing.dims)?;
    let scaled = sums.iter().zip(s_a.iter().zip(&s_b));
    let codes = scaled.map(|(&s, (&a, &b))| {
        Ok(Requantizer::product(ctx.arithmetic, a as f32, b as f32, y.scale, y.codes)?.apply(s))
    });
    let codes: Vec<i64> = codes.collect::<Result<_, OpError>>()?;
    Ok(vec![codes_tensor(y.elem, pairing.dims, &codes)?])
}

/// `alpha * a * b + c` with an int32 `c` on the grid of the product; without an output scale the result is f32.
fn qgemm(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (m, k, n) = gemm_extents(ctx, 0, 3)?;
    let a_zp = ctx.int_scalar_or_zero(2)?;
    let b_zp = if ctx.optional(5).is_some() { ctx.integers(5)? } else { Vec::new() };
    // Zero points per column: those of the stored matrix run along its last axis, or along rows where transposed.
    let run = if ctx.flag("trans_b") { k } else { 1 };
    if b_zp.len() > 1 && b_zp.len() != n {
        return Err(OpError::Extents {
            what: "zero point per column",
            left: vec![b_zp.len()],
            right: vec![n],
        });
    }
    let mut sums: Vec<i64> = match (Less::less(ctx, 0, &[a_zp], 1)?, Less::less(ctx, 3, &b_zp, run)?) {
        (Less::Narrow(a), Less::Narrow(b)) => {
            let (a, b) = gemm_operands(ctx, a, b, m, k, n);
            product(&a, &b, m, k, n).into_iter().map(i64::from).collect()
        }
        (a, b) => {
            let (a, b) = gemm_operands(ctx, a.wide(), b.wide(), m, k, n);
            product(&a, &b, m, k, n)
        }
    };
    if let Some(c) = ctx.optional(6) {
        let c = broadcast_checked(&ctx.integers(6)?, c.dims(), &[m, n])?;
        sums.iter_mut().zip(c).for_each(|(s, c)| *s = add32(*s, c));
    }
    let s_a = ctx.float("alpha")? * ctx.scalar(1)?;
    let s_b = ctx.floats(4)?;
    if s_b.len() != 1 && s_b.len() != n {
        return Err(OpError::Extents { what: "scale per column", left: vec![s_b.len()], right: vec![n] });
    }
    let column = |i: usize| if s_b.len() == 1 { 0 } else { i % n };
    if ctx.optional(7).is_none() {
        let scales: Vec<f32> = s_b.iter().map(|&b| s_a * b as f32).collect();
        let y: Vec<f64> =
            sums.iter().enumerate().map(|(i, &s)| f64::from(s as f32 * scales[column(i)])).collect();
        return ctx.make(ctx.elem(ElemType::F32), [m, n], &y);
    }
    let y = GridOf::read(ctx, 7, 8, ctx.operand(0)?.elem())?;
    let scales = requantizers(ctx, s_a, &s_b, &y)?;
    let codes: Vec<i64> = sums.iter().enumerate().map(|(i, &s)| scales[column(i)].apply(s)).collect();
    Ok(vec![codes_tensor(y.elem, [m, n], &codes)?])
}

/// The two operands of an elementwise operator, broadcast, with their grids and that of the result.
struct Two {
    dims: Vec<usize>,
    pairs: Vec<(i64, i64)>,
    a: GridOf,
    b: GridOf,
    y: GridOf,
}

fn two(ctx: &OpCtx<'_>) -> Result<Two, OpError> {
    let (a, b) = (ctx.operand(0)?, ctx.operand(3)?);
    if a.elem() != b.elem() {
        return Err(OpError::Mixed(a.elem(), b.elem()));
    }
    let dims = broadcast_dims(a.dims(), b.dims())?;
    ctx.allot(&dims)?;
    let left = broadcast_to(&ctx.integers(0)?, a.dims(), &dims);
    let right = broadcast_to(&ctx.integers(3)?, b.dims(), &dims);
    Ok(Two {
        dims,
        pairs: left.into_iter().zip(right).collect(),
        a: GridOf::read(ctx, 1, 2, a.elem())?,
        b: GridOf::read(ctx, 4, 5, b.elem())?,
        y: GridOf::read(ctx, 6, 7, a.elem())?,
    })
}

fn qadd(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let t = two(ctx)?;
    let codes: Vec<i64> = match ctx.arithmetic.requant {
        Requant::Q31Shift => {
            let add = FixedAdd::new(&t, ctx.arithmetic.rounding);
            t.pairs.iter().map(|&(a, b)| add.apply(a, b)).collect()
        }
        Requant::F32Multiply | Requant::Pow2Shift => {
            let add = FloatAdd::new(&t, ctx.arithmetic);
            t.pairs.iter().map(|&(a, b)| add.apply(a, b)).collect()
        }
    };
    Ok(vec![codes_tensor(t.y.elem, t.dims, &codes)?])
}

/// Addition on raw codes with everything constant gathered in one term, by fused multiply-adds in f32:
/// `round(fma(a, s_a/s_y, fma(b, s_b/s_y, c)))`.
struct FloatAdd {
    ratio_a: f32,
    ratio_b: f32,
    constant: f32,
    codes: Codes,
    arithmetic: Arithmetic,
}

impl FloatAdd {
    fn new(t: &Two, arithmetic: &Arithmetic) -> Self {
        let (ratio_a, ratio_b) = (t.a.scale / t.y.scale, t.b.scale / t.y.scale);
        let (z_a, z_b) = (t.a.codes.zero_point as f32, t.b.codes.zero_point as f32);
        let z_y = if arithmetic.add_zero_point_before_round { t.y.codes.zero_point as f32 } else { 0.0 };
        let constant = z_y - ratio_a.mul_add(z_a, ratio_b * z_b);
        Self { ratio_a, ratio_b, constant, codes: t.y.codes, arithmetic: *arithmetic }
    }

    fn apply(&self, a: i64, b: i64) -> i64 {
        let sum = (a as f32).mul_add(self.ratio_a, (b as f32).mul_add(self.ratio_b, self.constant));
        let rounded = f64::from(self.arithmetic.rounding.f32(sum));
        match self.arithmetic.add_zero_point_before_round {
            true => self.codes.saturate(rounded),
            false => self.codes.shift_and_saturate(rounded),
        }
    }
}

/// Addition in fixed point, as TFLite does it: both operands are raised by 20 bits and brought to twice the larger
/// scale, added, and brought to the output's scale.
struct FixedAdd {
    a: (Fixed, i64),
    b: (Fixed, i64),
    y: (Fixed, Codes),
    rounding: Rounding,
}

impl FixedAdd {
    const RAISE: u32 = 20;

    fn new(t: &Two, rounding: Rounding) -> Self {
        let (s_a, s_b, s_y) = (f64::from(t.a.scale), f64::from(t.b.scale), f64::from(t.y.scale));
        let twice = 2.0 * s_a.max(s_b);
        let out = Fixed::new(twice / (f64::from(1u32 << Self::RAISE) * s_y));
        Self {
            a: (Fixed::new(s_a / twice), t.a.codes.zero_point),
            b: (Fixed::new(s_b / twice), t.b.codes.zero_point),
            y: (out, t.y.codes),
            rounding,
        }
    }

    fn apply(&self, a: i64, b: i64) -> i64 {
        let raised = |(f, z): (Fixed, i64), q: i64| f.apply((q - z) << Self::RAISE, self.rounding);
        let sum = raised(self.a, a) + raised(self.b, b);
        let (out, codes) = self.y;
        out.apply(sum, self.rounding).saturating_add(codes.zero_point).clamp(codes.low, codes.high)
    }
}

fn qmul(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let t = two(ctx)?;
    let (z_a, z_b) = (t.a.codes.zero_point, t.b.codes.zero_point);
    let arith = ctx.arithmetic;
    let products = t.pairs.iter().map(|&(a, b)| a.wrapping_sub(z_a).wrapping_mul(b.wrapping_sub(z_b)));
    let codes: Vec<i64> = if arith.requant == Requant::F32Multiply && arith.mul_zero_point_before_round {
        let ratio = t.a.scale * t.b.scale / t.y.scale;
        let z_y = t.y.codes.zero_point as f32;
        products
            .map(|p| t.y.codes.saturate(f64::from(arith.rounding.f32((p as f32).mul_add(ratio, z_y)))))
            .collect()
    } else {
        let q = Requantizer::product(arith, t.a.scale, t.b.scale, t.y.scale, t.y.codes)?;
        products.map(|p| q.apply(p)).collect()
    };
    Ok(vec![codes_tensor(t.y.elem, t.dims, &codes)?])
}

/// Each input is brought to the output grid by itself, through f32.
fn qconcat(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let first = ctx.operand(2)?;
    let y = GridOf::read(ctx, 0, 1, first.elem())?;
    let axis = ctx.axis(ctx.int("axis")?, first.rank())?;
    let mut parts = Vec::new();
    for i in (2..ctx.operands.len()).step_by(3) {
        let x = ctx.operand(i)?;
        let grid = GridOf::read(ctx, i + 1, i + 2, x.elem())?;
        let codes: Vec<i64> =
            ctx.integers(i)?.into_iter().map(|q| y.code(grid.real(q), ctx.arithmetic.rounding)).collect();
        parts.push(codes_tensor(y.elem, x.dims(), &codes)?);
    }
    Ok(vec![super::movement::join(ctx, &parts.iter().collect::<Vec<_>>(), axis)?])
}

/// A function on each code by way of its real number: operands (x, x_scale, x_zp?, y_scale, y_zp?).
fn table(ctx: &OpCtx<'_>, f: impl Fn(f32) -> f32) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let (from, to) = (GridOf::read(ctx, 1, 2, x.elem())?, GridOf::read(ctx, 3, 4, x.elem())?);
    ctx.allot(x.dims())?;
    let codes: Vec<i64> =
        ctx.integers(0)?.into_iter().map(|q| to.code(f(from.real(q)), ctx.arithmetic.rounding)).collect();
    Ok(vec![codes_tensor(to.elem, x.dims(), &codes)?])
}

fn qleaky_relu(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let alpha = ctx.float("alpha")?;
    table(ctx, |x| if x < 0.0 { alpha * x } else { x })
}

/// Softmax of the dequantised numbers in f64; before opset 13 over everything from the axis on.
fn qsoftmax(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let (from, to) = (GridOf::read(ctx, 1, 2, x.elem())?, GridOf::read(ctx, 3, 4, x.elem())?);
    ctx.allot(x.dims())?;
    let legacy = ctx.int_if("opset").is_some_and(|v| v < 13);
    let axis = ctx.axis(ctx.int("axis")?, x.rank().max(1))?;
    let mut reals: Vec<f64> = ctx.integers(0)?.into_iter().map(|q| f64::from(from.real(q))).collect();
    each_row(&mut reals, x.dims(), axis, legacy, softmax_row);
    let scale = f64::from(to.scale);
    let code = |p: f64| to.codes.shift_and_saturate(ctx.arithmetic.rounding.f64(p / scale));
    let codes: Vec<i64> = reals.into_iter().map(code).collect();
    Ok(vec![codes_tensor(to.elem, x.dims(), &codes)?])
}
