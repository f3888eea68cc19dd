//! Derivatives that are no composition of other operators.

use super::ctx::{OpCtx, OpError};
use super::pool::Pool;
use super::window::Window;
use crate::packed::extents;
use crate::tensor::{HOLE, Tensor, count};

pub(super) const TABLE: &[super::Row] = &[
    ("broadcast", broadcast),
    ("unbroadcast", unbroadcast),
    ("relu_grad", |c| masked(c, |y| y > 0.0)),
    ("clip_grad", clip_grad),
    ("conv_input_grad", conv_input_grad),
    ("conv_weight_grad", conv_weight_grad),
    ("max_pool_grad", max_pool_grad),
    ("average_pool_grad", average_pool_grad),
    ("slice_grad", slice_grad),
    ("batch_norm_grad", batch_norm_grad),
    ("cross_entropy_grad", cross_entropy_grad),
];

/// The attribute `shape` in numbers.
fn shape(ctx: &OpCtx<'_>) -> Result<Vec<usize>, OpError> {
    let dims = ctx.dims_if("shape")?.ok_or_else(|| OpError::MissingAttr("shape".into()))?;
    Ok(extents(&dims)?)
}

/// For each element of a tensor of extents `to`, row-major, the place of the element of a tensor of extents `from`
/// (of the same rank, 1 where it is repeated) that lies under it.
fn places(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    let mut stride = count(from).unwrap_or(0);
    for (&f, &t) in from.iter().zip(to) {
        stride = stride.checked_div(f).unwrap_or(0);
        let step = if f == 1 { 0 } else { stride };
        places = places.iter().flat_map(|p| (0..t).map(move |i| p + i * step)).collect();
    }
    places
}

/// Extents with leading 1s up to this rank.
fn padded(dims: &[usize], rank: usize) -> Vec<usize> {
    let mut out = vec![1; rank.saturating_sub(dims.len())];
    out.extend(dims);
    out
}

fn check_broadcast(from: &[usize], to: &[usize]) -> Result<(), OpError> {
    let fits = from.len() == to.len() && from.iter().zip(to).all(|(f, t)| f == t || *f == 1);
    let error = || OpError::Extents { what: "broadcast", left: from.to_vec(), right: to.to_vec() };
    fits.then_some(()).ok_or_else(error)
}

fn broadcast(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let to = shape(ctx)?;
    let mut from = x.dims().to_vec();
    if let Some(axes) = ctx.ints_if("axes") {
        let axes: Result<Vec<usize>, OpError> = axes.iter().map(|&a| ctx.axis(a, to.len())).collect();
        let mut axes = axes?;
        axes.sort_unstable();
        axes.into_iter().for_each(|a| from.insert(a.min(from.len()), 1));
    }
    let from = padded(&from, to.len());
    check_broadcast(&from, &to)?;
    let n = ctx.allot(&to)?;
    let values = ctx.floats(0)?;
    let copies = n.checked_div(values.len()).unwrap_or(1) as f64;
    let divisor = if ctx.flag("mean") { copies } else { 1.0 };
    let y: Vec<f64> =
        places(&from, &to).into_iter().map(|p| values.get(p).copied().unwrap_or(0.0) / divisor).collect();
    ctx.make(x.elem(), to, &y)
}

fn unbroadcast(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let to = shape(ctx)?;
    let small = padded(&to, x.rank());
    check_broadcast(&small, x.dims())?;
    let mut sums = vec![0.0; ctx.allot(&to)?];
    for (p, v) in places(&small, x.dims()).into_iter().zip(ctx.floats(0)?) {
        if let Some(s) = sums.get_mut(p) {
            *s += v;
        }
    }
    ctx.make(x.elem(), to, &sums)
}

/// `dy` where the second operand is as asked, else 0.
fn masked(ctx: &OpCtx<'_>, keep: impl Fn(f64) -> bool) -> Result<Vec<Tensor>, OpError> {
    let dy = ctx.operand(0)?;
    same_extents(dy, ctx.operand(1)?)?;
    ctx.allot(dy.dims())?;
    let pairs = ctx.floats(0)?.into_iter().zip(ctx.floats(1)?);
    let dx: Vec<f64> = pairs.map(|(d, y)| if keep(y) { d } else { 0.0 }).collect();
    ctx.make(dy.elem(), dy.dims(), &dx)
}

fn same_extents(a: &Tensor, b: &Tensor) -> Result<(), OpError> {
    let error =
        || OpError::Extents { what: "gradient and value", left: a.dims().to_vec(), right: b.dims().to_vec() };
    (a.dims() == b.dims()).then_some(()).ok_or_else(error)
}

fn clip_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let low = ctx.float_if("min").map_or(f64::NEG_INFINITY, f64::from);
    let high = ctx.float_if("max").map_or(f64::INFINITY, f64::from);
    masked(ctx, |x| x >= low && x <= high)
}

/// A convolution seen from its result: what lies under each window.
struct Windows {
    sources: Vec<Vec<usize>>,
    batch: usize,
    groups: usize,
    /// Input channels and output channels of a group.
    cg: usize,
    mg: usize,
    /// Spatial positions of the input and of the result.
    plane: usize,
    out_plane: usize,
}

impl Windows {
    fn of(ctx: &OpCtx<'_>, x: &[usize], w: &[usize], dy: &[usize]) -> Result<Self, OpError> {
        let extents = |left: &[usize], right: &[usize]| OpError::Extents {
            what: "gradient of a convolution",
            left: left.to_vec(),
            right: right.to_vec(),
        };
        let ([batch, channels, spatial @ ..], [made, cg, kernel @ ..]) = (x, w) else {
            return Err(extents(x, w));
        };
        let groups = usize::try_from(ctx.int("group")?).ok().filter(|&g| g > 0);
        let groups = groups.ok_or(OpError::Attr { name: "group", reason: "must be positive" })?;
        if cg.checked_mul(groups) != Some(*channels) || made % groups != 0 {
            return Err(extents(x, w));
        }
        let window = Window::forward(ctx, spatial, kernel, false)?;
        let mut result = vec![*batch, *made];
        result.extend(window.output());
        if result != dy {
            return Err(extents(&result, dy));
        }
        let (plane, taps, out_plane) = window.counts()?;
        let outputs = ctx.allot(dy)?;
        ctx.work(outputs as u128 * taps as u128 * *cg as u128)?;
        ctx.allot(&[taps, out_plane])?;
        let sources = (0..taps).map(|k| window.sources(k, 0..out_plane, 0)).collect();
        Ok(Self { sources, batch: *batch, groups, cg: *cg, mg: made / groups, plane, out_plane })
    }

    /// Calls `f` with the place in `x`, in `w` and in `dy` for every product that the convolution sums.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        let taps = self.sources.len();
        for n in 0..self.batch {
            for g in 0..self.groups {
                for m in g * self.mg..(g + 1) * self.mg {
                    let dy = (n * self.groups * self.mg + m) * self.out_plane;
                    for c in 0..self.cg {
                        let x = (n * self.groups * self.cg + g * self.cg + c) * self.plane;
                        for (k, sources) in self.sources.iter().enumerate() {
                            let w = (m * self.cg + c) * taps + k;
                            for (o, &s) in sources.iter().enumerate().filter(|(_, s)| **s != HOLE) {
                                f(x + s, w, dy + o);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn conv_input_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, w, to) = (ctx.operand(0)?, ctx.operand(1)?, shape(ctx)?);
    let windows = Windows::of(ctx, &to, w.dims(), dy.dims())?;
    let mut dx = vec![0.0; ctx.allot(&to)?];
    let (dys, ws) = (ctx.floats(0)?, ctx.floats(1)?);
    windows.each(|x, w, y| dx[x] += ws[w] * dys[y]);
    ctx.make(dy.elem(), to, &dx)
}

fn conv_weight_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, x, to) = (ctx.operand(0)?, ctx.operand(1)?, shape(ctx)?);
    let windows = Windows::of(ctx, x.dims(), &to, dy.dims())?;
    let mut dw = vec![0.0; ctx.allot(&to)?];
    let (dys, xs) = (ctx.floats(0)?, ctx.floats(1)?);
    windows.each(|x, w, y| dw[w] += xs[x] * dys[y]);
    ctx.make(dy.elem(), to, &dw)
}

fn max_pool_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, x) = (ctx.operand(0)?, ctx.operand(1)?);
    let pool = Pool::of(ctx, x)?;
    let mut dx = vec![0.0; ctx.allot(x.dims())?];
    let (dys, xs) = (pool_gradient(ctx, dy, &pool)?, ctx.floats(1)?);
    let width = pool.out_plane();
    for (i, d) in dys.into_iter().enumerate() {
        let (plane, o) = (i / width.max(1) * pool.plane, i % width.max(1));
        let under = pool.sources.iter().filter_map(|places| places.get(o)).filter(|s| **s != HOLE);
        let mut best: Option<usize> = None;
        for at in under.map(|s| plane + s) {
            // NaN counts as the greatest, as in the forward direction.
            if best.is_none_or(|b| xs[at] > xs[b] || (xs[at].is_nan() && !xs[b].is_nan())) {
                best = Some(at);
            }
        }
        if let Some(best) = best {
            dx[best] += d;
        }
    }
    ctx.make(x.elem(), x.dims(), &dx)
}

fn average_pool_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, to) = (ctx.operand(0)?, shape(ctx)?);
    ctx.allot(&to)?;
    let pool = Pool::of_extents(ctx, &to)?;
    let dys = pool_gradient(ctx, dy, &pool)?;
    let mut dx = vec![0.0; ctx.allot(&to)?];
    let (width, divisors) = (pool.out_plane(), pool.divisors(ctx.flag("count_include_pad")));
    for (i, d) in dys.into_iter().enumerate() {
        let (plane, o) = (i / width.max(1) * pool.plane, i % width.max(1));
        for s in pool.sources.iter().filter_map(|places| places.get(o)).filter(|s| **s != HOLE) {
            dx[plane + s] += d / divisors[o] as f64;
        }
    }
    ctx.make(dy.elem(), to, &dx)
}

/// The gradient of a pool's result, of the right extents.
fn pool_gradient(ctx: &OpCtx<'_>, dy: &Tensor, pool: &Pool) -> Result<Vec<f64>, OpError> {
    if dy.dims() != pool.dims {
        let (left, right) = (dy.dims().to_vec(), pool.dims.clone());
        return Err(OpError::Extents { what: "gradient and result of a pool", left, right });
    }
    ctx.floats(0)
}

fn slice_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, to) = (ctx.operand(0)?, shape(ctx)?);
    let mut dx = vec![0.0; ctx.allot(&to)?];
    let (dims, order) = super::movement::sliced(ctx, &to)?;
    if dy.dims() != dims {
        let left = dy.dims().to_vec();
        return Err(OpError::Extents { what: "gradient and slice", left, right: dims });
    }
    for (d, at) in ctx.floats(0)?.into_iter().zip(order) {
        if let Some(x) = dx.get_mut(at) {
            *x += d;
        }
    }
    ctx.make(dy.elem(), to, &dx)
}

/// dx = scale * inv_std * (dy - mean(dy) - x_hat * mean(dy * x_hat)) with x_hat = (x - mean) * inv_std, dscale =
/// sum(dy * x_hat), dbias = sum(dy); means and sums over all but the channel axis (Ioffe and Szegedy 2015, section 3).
fn batch_norm_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, x) = (ctx.operand(0)?, ctx.operand(1)?);
    same_extents(dy, x)?;
    let channels = x.dims().get(1).copied().unwrap_or(1);
    let plane: usize = x.dims().iter().skip(2).product();
    let [scale, mean, inv_std] = [2, 3, 4].map(|i| super::norm::per_channel(ctx, i, channels));
    let (scale, mean, inv_std) = (scale?, mean?, inv_std?);
    ctx.allot(x.dims())?;
    let (dys, xs) = (ctx.floats(0)?, ctx.floats(1)?);
    let channel = |i: usize| i / plane.max(1) % channels.max(1);
    let normal = |i: usize| (xs[i] - mean[channel(i)]) * inv_std[channel(i)];
    let (mut dscale, mut dbias) = (vec![0.0; channels], vec![0.0; channels]);
    for (i, d) in dys.iter().enumerate() {
        dscale[channel(i)] += d * normal(i);
        dbias[channel(i)] += d;
    }
    let n = xs.len().checked_div(channels).unwrap_or(1) as f64;
    // Statistics that are given do not depend on the input.
    let frozen = super::training::flag(ctx, 5)?;
    let owed = |i: usize, c: usize| if frozen { 0.0 } else { dbias[c] / n + normal(i) * dscale[c] / n };
    let dx: Vec<f64> = dys
        .iter()
        .enumerate()
        .map(|(i, d)| {
            let c = channel(i);
            scale[c] * inv_std[c] * (d - owed(i, c))
        })
        .collect();
    let of_scale =
        |v: &[f64]| Tensor::from_f64s(ctx.operand(2)?.elem(), [channels], v).map_err(OpError::from);
    Ok(vec![Tensor::from_f64s(x.elem(), x.dims(), &dx)?, of_scale(&dscale)?, of_scale(&dbias)?])
}

fn cross_entropy_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let log_prob = ctx.operand(1)?;
    ctx.need_rank(1, 2)?;
    let d = f64::from(ctx.scalar(0)?);
    let classes = log_prob.dims().get(1).copied().unwrap_or(0);
    let labels = super::training::labels(ctx, 2, log_prob.dims())?;
    let target = super::training::target(ctx, classes)?;
    ctx.allot(log_prob.dims())?;
    let mut out = ctx.floats(1)?;
    let n = labels.len() as f64;
    for (row, label) in out.chunks_exact_mut(classes.max(1)).zip(labels) {
        for (class, p) in row.iter_mut().enumerate() {
            *p = (p.exp() - target(class == label)) * d / n;
        }
    }
    ctx.make(log_prob.elem(), log_prob.dims(), &out)
}
