//! Pooling over spatial axes of `[N, C, ...]`.

use super::ctx::{OpCtx, OpError};
use super::window::Window;
use crate::tensor::{HOLE, Storage, Tensor};

pub(super) const TABLE: &[super::Row] = &[
    ("max_pool", max_pool),
    ("average_pool", average_pool),
    ("global_average_pool", global_average_pool),
    ("global_max_pool", global_max_pool),
];

/// A pool over one tensor.
pub(super) struct Pool {
    pub(super) window: Window,
    /// Number of images times channels.
    pub(super) planes: usize,
    /// Spatial positions of the input.
    pub(super) plane: usize,
    /// For each window position, the place in an input plane of each output position.
    pub(super) sources: Vec<Vec<usize>>,
    pub(super) dims: Vec<usize>,
}

impl Pool {
    pub(super) fn of(ctx: &OpCtx<'_>, x: &Tensor) -> Result<Self, OpError> {
        Self::of_extents(ctx, x.dims())
    }

    /// The pool over a tensor of these extents.
    pub(super) fn of_extents(ctx: &OpCtx<'_>, x: &[usize]) -> Result<Self, OpError> {
        let kernel =
            ctx.ints_if("kernel_shape").ok_or_else(|| OpError::MissingAttr("kernel_shape".into()))?;
        let kernel = crate::packed::extents(kernel)?;
        let spatial = x.get(2..).ok_or(OpError::Rank { operand: "x", found: x.len(), expected: 2 })?;
        let window = Window::forward(ctx, spatial, &kernel, ctx.flag("ceil_mode"))?;
        Self::over(ctx, x, window)
    }

    pub(super) fn global(ctx: &OpCtx<'_>, x: &Tensor) -> Result<Self, OpError> {
        let spatial =
            x.dims().get(2..).ok_or(OpError::Rank { operand: "x", found: x.rank(), expected: 2 })?;
        Self::over(ctx, x.dims(), Window::whole(spatial))
    }

    fn over(ctx: &OpCtx<'_>, x: &[usize], window: Window) -> Result<Self, OpError> {
        let mut dims: Vec<usize> = x.iter().take(2).copied().collect();
        let planes: usize = dims.iter().product();
        dims.extend(window.output());
        let n = ctx.allot(&dims)?;
        let kernel: Vec<usize> = window.axes.iter().map(|a| a.kernel).collect();
        ctx.allot(&kernel)?;
        let (plane, taps, out_plane) = window.counts()?;
        ctx.work(n as u128 * taps as u128)?;
        ctx.allot(&[taps, out_plane])?;
        let sources = (0..taps).map(|k| window.sources(k, 0..out_plane, 0)).collect();
        Ok(Self { window, planes, plane, sources, dims })
    }

    pub(super) fn out_plane(&self) -> usize {
        self.dims.iter().skip(2).product()
    }

    /// Folds the elements under each window, row-major within it, padding left out.
    pub(super) fn fold<T: Copy, A: Copy>(&self, x: &[T], start: A, step: impl Fn(A, T) -> A) -> Vec<A> {
        let width = self.out_plane();
        let mut y = Vec::with_capacity(self.planes * width);
        for p in 0..self.planes {
            let x = x.get(p * self.plane..(p + 1) * self.plane).unwrap_or(&[]);
            let mut acc = vec![start; width];
            for places in &self.sources {
                for (a, &s) in acc.iter_mut().zip(places) {
                    if let Some(&v) = x.get(s) {
                        *a = step(*a, v);
                    }
                }
            }
            y.extend(acc);
        }
        y
    }

    /// How many elements each output position of a plane averages over. With `include_pad` stated padding counts,
    /// but not what `ceil_mode` lets a window reach beyond it.
    pub(super) fn divisors(&self, include_pad: bool) -> Vec<usize> {
        let width = self.out_plane();
        if !include_pad {
            let mut counts = vec![0usize; width];
            for places in &self.sources {
                counts.iter_mut().zip(places).for_each(|(c, &s)| *c += usize::from(s != HOLE));
            }
            return counts;
        }
        // Per axis, the window positions inside the padded input; their product per output.
        let mut counts = vec![1usize];
        for a in &self.window.axes {
            let inside = |o: usize| {
                let first = (o * a.stride) as i64 - a.pad;
                let end = a.input as i64 + a.pad_end;
                (0..a.kernel).filter(|k| first + ((k * a.dilation) as i64) < end).count()
            };
            let table: Vec<usize> = (0..a.output).map(inside).collect();
            counts = counts.iter().flat_map(|c| table.iter().map(move |t| c * t)).collect();
        }
        counts
    }
}

/// Keeps the element type; NaN wins, as it does in ONNX's reference.
fn max_pool(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    largest(ctx, x, Pool::of(ctx, x)?)
}

fn global_max_pool(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    largest(ctx, x, Pool::global(ctx, x)?)
}

fn largest(ctx: &OpCtx<'_>, x: &Tensor, pool: Pool) -> Result<Vec<Tensor>, OpError> {
    let storage = match x.storage() {
        Storage::F32(v) => {
            Storage::F32(pool.fold(v, f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a }))
        }
        Storage::F64(v) => {
            Storage::F64(pool.fold(v, f64::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a }))
        }
        Storage::I8(v) => Storage::I8(pool.fold(v, lowest(x) as i8, Ord::max)),
        Storage::U8(v) => Storage::U8(pool.fold(v, 0, Ord::max)),
        Storage::I16(v) => Storage::I16(pool.fold(v, i16::MIN, Ord::max)),
        Storage::U16(v) => Storage::U16(pool.fold(v, 0, Ord::max)),
        Storage::I32(v) => Storage::I32(pool.fold(v, i32::MIN, Ord::max)),
        Storage::I64(v) => Storage::I64(pool.fold(v, i64::MIN, Ord::max)),
        _ => return Err(ctx.wrong_elem(0)),
    };
    Ok(vec![Tensor::new(x.elem(), pool.dims, storage)?])
}

fn lowest(x: &Tensor) -> i64 {
    x.elem().int_range().map_or(0, |r| r.0)
}

fn average_pool(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let pool = Pool::of(ctx, x)?;
    let divisors = pool.divisors(ctx.flag("count_include_pad"));
    average(ctx, x, &pool, &divisors)
}

fn global_average_pool(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let pool = Pool::global(ctx, x)?;
    let divisors = vec![pool.plane; pool.out_plane()];
    average(ctx, x, &pool, &divisors)
}

fn average(ctx: &OpCtx<'_>, x: &Tensor, pool: &Pool, divisors: &[usize]) -> Result<Vec<Tensor>, OpError> {
    if !x.elem().is_float() {
        return Err(ctx.wrong_elem(0));
    }
    let mut sums = pool.fold(&ctx.floats(0)?, 0.0, |a, b| a + b);
    sums.iter_mut().zip(divisors.iter().cycle()).for_each(|(s, &d)| *s /= d as f64);
    ctx.make(x.elem(), pool.dims.clone(), &sums)
}
