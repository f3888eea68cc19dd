//! Convolutions of any rank, grouped, dilated, transposed, on floats and on integers: one loop for all of them.
//!
//! Windows are laid out as rows (one per channel and kernel position) over a stretch of output positions; each output
//! channel then sums weight times row. The innermost loop is contiguous, and each output is summed in the order of
//! channels, then kernel positions.

use super::ctx::{OpCtx, OpError};
use super::window::Window;
use crate::tensor::{HOLE, Tensor};

pub(super) const TABLE: &[super::Row] =
    &[("conv", conv), ("conv_transpose", conv_transpose), ("conv_integer", conv_integer)];

/// A number type with its accumulator.
pub(super) trait Mac: Copy + Default {
    /// What products are summed in.
    type Acc: Copy + Default;
    /// `acc += a * b`.
    fn mac(acc: &mut Self::Acc, a: Self, b: Self);
}

impl Mac for f64 {
    type Acc = f64;
    fn mac(acc: &mut f64, a: f64, b: f64) {
        *acc += a * b;
    }
}

/// Codes less their zero point, of types up to 8 bits; the sum is the exact one modulo 2^32, as on every processor.
impl Mac for i16 {
    type Acc = i32;
    fn mac(acc: &mut i32, a: i16, b: i16) {
        *acc = acc.wrapping_add(i32::from(a) * i32::from(b));
    }
}

/// Wider codes.
impl Mac for i64 {
    type Acc = i64;
    fn mac(acc: &mut i64, a: i64, b: i64) {
        *acc = acc.wrapping_add(a.wrapping_mul(b));
    }
}

/// Extents of a convolution.
pub(super) struct Geometry {
    pub(super) window: Window,
    pub(super) batch: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) groups: usize,
    pub(super) dims: Vec<usize>,
}

fn channels(t: &Tensor) -> (usize, usize, &[usize]) {
    match t.dims() {
        [n, c, rest @ ..] => (*n, *c, rest),
        _ => (0, 0, &[]),
    }
}

impl Geometry {
    /// From the operands `x` and `w` at these places and the attributes. `w` is `[M, C / group, k...]`, or for a
    /// transposed convolution `[C, M / group, k...]`.
    pub(super) fn of(ctx: &OpCtx<'_>, x: usize, w: usize, transposed: bool) -> Result<Self, OpError> {
        ctx.need_rank(x, 2)?;
        ctx.need_rank(w, 2)?;
        let (x, w) = (ctx.operand(x)?, ctx.operand(w)?);
        let (batch, in_channels, spatial) = channels(x);
        let (first, second, kernel) = channels(w);
        let groups = usize::try_from(ctx.int("group")?).ok().filter(|&g| g > 0);
        let groups = groups.ok_or(OpError::Attr { name: "group", reason: "must be positive" })?;
        let (weight_in, out_channels) = match transposed {
            false => (second.checked_mul(groups), Some(first)),
            true => (Some(first), second.checked_mul(groups)),
        };
        let out_channels = out_channels
            .filter(|m| weight_in == Some(in_channels) && m % groups == 0 && in_channels % groups == 0);
        let Some(out_channels) = out_channels else {
            return Err(OpError::Extents {
                what: "input and weight",
                left: x.dims().to_vec(),
                right: w.dims().to_vec(),
            });
        };
        if let Some(stated) = ctx.ints_if("kernel_shape")
            && !stated.iter().map(|&k| usize::try_from(k).ok()).eq(kernel.iter().map(|&k| Some(k)))
        {
            return Err(OpError::Attr { name: "kernel_shape", reason: "differs from the weight" });
        }
        let window = match transposed {
            false => Window::forward(ctx, spatial, kernel, false)?,
            true => Window::backward(ctx, spatial, kernel)?,
        };
        let mut dims = vec![batch, out_channels];
        dims.extend(window.output());
        let outputs = ctx.allot(&dims)?;
        let (_, taps, _) = window.counts()?;
        ctx.work(outputs as u128 * taps as u128 * (in_channels / groups) as u128)?;
        Ok(Self { window, batch, in_channels, out_channels, groups, dims })
    }

    /// The sums, row-major as [`Self::dims`]. `w` is `[M, C / group, k...]`; padding counts as the default of the type.
    pub(super) fn sums<T: Mac>(&self, x: &[T], w: &[T]) -> Result<Vec<T::Acc>, OpError> {
        let (plane, taps, out_plane) = self.window.counts()?;
        let (cg, mg) = (self.in_channels / self.groups, self.out_channels / self.groups);
        let rows = cg * taps;
        let positions = self.batch * out_plane;
        let mut y = vec![T::Acc::default(); positions * self.out_channels];
        // About a quarter of a megabyte of rows at a time, so that they stay in the cache.
        let stretch = (131_072 / rows.max(1)).clamp(64, 4096);
        for start in (0..positions).step_by(stretch) {
            let stretch = start..positions.min(start + stretch);
            let image = self.in_channels * plane;
            let sources: Vec<_> = (0..taps).map(|k| self.window.sources(k, stretch.clone(), image)).collect();
            for g in 0..self.groups {
                let laid = lay_rows(x, &sources, g * cg..(g + 1) * cg, plane);
                for m in g * mg..(g + 1) * mg {
                    let weights = w.get(m * rows..(m + 1) * rows).unwrap_or(&[]);
                    let sums = weighted_sum(weights, &laid, stretch.len());
                    for (p, sum) in stretch.clone().zip(sums) {
                        let (n, at) = (p / out_plane, p % out_plane);
                        y[(n * self.out_channels + m) * out_plane + at] = sum;
                    }
                }
            }
        }
        Ok(y)
    }

    /// Number of outputs of one channel of one image.
    pub(super) fn out_plane(&self) -> usize {
        self.dims.iter().skip(2).product()
    }
}

fn lay_rows<T: Mac>(
    x: &[T],
    sources: &[Vec<usize>],
    channels: std::ops::Range<usize>,
    plane: usize,
) -> Vec<T> {
    let mut rows = Vec::with_capacity(channels.len() * sources.iter().map(Vec::len).sum::<usize>());
    for c in channels {
        let x = x.get(c * plane..).unwrap_or(&[]);
        for places in sources {
            rows.extend(
                places
                    .iter()
                    .map(|&s| if s == HOLE { T::default() } else { x.get(s).copied().unwrap_or_default() }),
            );
        }
    }
    rows
}

/// The sum over rows of weight times row; each row has `width` elements.
pub(super) fn weighted_sum<T: Mac>(weights: &[T], rows: &[T], width: usize) -> Vec<T::Acc> {
    let mut acc = vec![T::Acc::default(); width];
    if width > 0 {
        for (&w, row) in weights.iter().zip(rows.chunks_exact(width)) {
            for (a, &x) in acc.iter_mut().zip(row) {
                T::mac(a, w, x);
            }
        }
    }
    acc
}

fn conv(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let g = Geometry::of(ctx, 0, 1, false)?;
    let sums = g.sums(&ctx.floats(0)?, &ctx.floats(1)?)?;
    finish_float(ctx, &g, sums)
}

fn conv_transpose(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let g = Geometry::of(ctx, 0, 1, true)?;
    let (_, taps, _) = g.window.counts()?;
    let w = swap_channels(&ctx.floats(1)?, g.in_channels, g.out_channels / g.groups, g.groups, taps);
    let sums = g.sums(&ctx.floats(0)?, &w)?;
    finish_float(ctx, &g, sums)
}

/// `[C, M / group, k]` as `[M, C / group, k]`.
fn swap_channels(w: &[f64], channels: usize, mg: usize, groups: usize, taps: usize) -> Vec<f64> {
    let cg = channels / groups.max(1);
    let mut out = Vec::with_capacity(w.len());
    for g in 0..groups {
        for m in 0..mg {
            for c in g * cg..(g + 1) * cg {
                let at = (c * mg + m) * taps;
                out.extend_from_slice(w.get(at..at + taps).unwrap_or(&[]));
            }
        }
    }
    out
}

fn finish_float(ctx: &OpCtx<'_>, g: &Geometry, mut sums: Vec<f64>) -> Result<Vec<Tensor>, OpError> {
    if ctx.optional(2).is_some() {
        let bias = ctx.floats(2)?;
        check_per_channel(ctx, 2, g)?;
        add_bias(&mut sums, &bias, g.out_plane());
    }
    let x = ctx.operand(0)?.elem();
    if !x.is_float() {
        return Err(ctx.wrong_elem(0));
    }
    ctx.make(x, g.dims.clone(), &sums)
}

/// Checks that an operand is a vector with one element per output channel.
pub(super) fn check_per_channel(ctx: &OpCtx<'_>, index: usize, g: &Geometry) -> Result<(), OpError> {
    let found = ctx.operand(index)?.dims();
    if found == [g.out_channels] {
        return Ok(());
    }
    Err(OpError::Extents {
        what: "one element per channel",
        left: found.to_vec(),
        right: vec![g.out_channels],
    })
}

/// Adds to each channel of `[N, M, plane]` its bias.
fn add_bias(sums: &mut [f64], bias: &[f64], plane: usize) {
    if plane > 0 {
        for (row, b) in sums.chunks_exact_mut(plane).zip(bias.iter().cycle()) {
            row.iter_mut().for_each(|s| *s += b);
        }
    }
}

/// The integer sums of a convolution of `x - zp_x` with `w - zp_w` (zero points per tensor, or for `w` per channel).
pub(super) fn integer_sums(
    ctx: &OpCtx<'_>,
    g: &Geometry,
    x: (usize, i64),
    w: usize,
    w_zp: &[i64],
) -> Result<Vec<i64>, OpError> {
    let per_channel = ctx.operand(w)?.len().checked_div(g.out_channels).unwrap_or(0).max(1);
    let x = Codes::less(ctx, x.0, &[x.1], usize::MAX)?;
    let w = Codes::less(ctx, w, w_zp, per_channel)?;
    Ok(match (x, w) {
        (Codes::Narrow(x), Codes::Narrow(w)) => g.sums(&x, &w)?.into_iter().map(i64::from).collect(),
        (x, w) => g.sums(&x.wide(), &w.wide())?,
    })
}

/// Integer codes less their zero point.
pub(super) enum Codes {
    /// Of types up to 8 bits.
    Narrow(Vec<i16>),
    /// Of wider types.
    Wide(Vec<i64>),
}

impl Codes {
    /// The elements of an operand less their zero points; there is one zero point, or one for each `run` elements in turn.
    pub(super) fn less(
        ctx: &OpCtx<'_>,
        index: usize,
        zero_points: &[i64],
        run: usize,
    ) -> Result<Self, OpError> {
        let t = ctx.operand(index)?;
        let zp = |i: usize| match zero_points {
            [] => 0,
            [z] => *z,
            many => many[i / run.max(1) % many.len()],
        };
        let small = zero_points.iter().all(|z| (-128..=255).contains(z));
        if t.elem().is_int() && t.elem().bits() <= 8 && small {
            let narrow = t.to_i32s().ok_or_else(|| ctx.wrong_elem(index))?;
            return Ok(Codes::Narrow(
                narrow.iter().enumerate().map(|(i, &c)| (c - zp(i) as i32) as i16).collect(),
            ));
        }
        let wide = ctx.integers(index)?;
        Ok(Codes::Wide(wide.iter().enumerate().map(|(i, &c)| c.wrapping_sub(zp(i))).collect()))
    }

    pub(super) fn wide(self) -> Vec<i64> {
        match self {
            Codes::Narrow(v) => v.into_iter().map(i64::from).collect(),
            Codes::Wide(v) => v,
        }
    }
}

/// `ConvInteger`: int32 sums of codes less their zero points.
fn conv_integer(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let g = Geometry::of(ctx, 0, 1, false)?;
    let zp = ctx.int_scalar_or_zero(2)?;
    let w_zp = if ctx.optional(3).is_some() { ctx.integers(3)? } else { Vec::new() };
    if w_zp.len() > 1 {
        check_per_channel(ctx, 3, &g)?;
    }
    let sums = integer_sums(ctx, &g, (0, zp), 1, &w_zp)?;
    Ok(vec![super::ctx::codes_tensor(gs_ir::ElemType::I32, g.dims, &sums)?])
}
