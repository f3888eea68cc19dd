//! Reductions over axes.

use super::ctx::{OpCtx, OpError};
use super::layout::{places, strides};
use crate::tensor::Tensor;

pub(super) const TABLE: &[super::Row] = &[
    ("reduce_mean", |c| float(c, |v| v.iter().sum::<f64>() / v.len() as f64)),
    ("reduce_sum", |c| either(c, |v| v.iter().sum(), |v| v.iter().fold(0, |a: i128, &b| a.wrapping_add(b)))),
    ("reduce_prod", |c| {
        either(c, |v| v.iter().product(), |v| v.iter().fold(1, |a: i128, &b| a.wrapping_mul(b)))
    }),
    ("reduce_max", |c| {
        either(
            c,
            |v| extreme(v, f64::NEG_INFINITY, |a, b| a > b),
            |v| v.iter().copied().max().unwrap_or(i128::MIN),
        )
    }),
    ("reduce_min", |c| {
        either(
            c,
            |v| extreme(v, f64::INFINITY, |a, b| a < b),
            |v| v.iter().copied().min().unwrap_or(i128::MAX),
        )
    }),
];

/// The element that beats all others, NaN if there is one.
fn extreme(v: &[f64], start: f64, better: impl Fn(f64, f64) -> bool) -> f64 {
    v.iter().fold(start, |a, &b| if b.is_nan() || better(b, a) { b } else { a })
}

/// The axes that are reduced, as positions; `None` where the operation leaves its operand alone.
fn axes(ctx: &OpCtx<'_>) -> Result<Option<Vec<usize>>, OpError> {
    let rank = ctx.operand(0)?.rank();
    let given = match ctx.ints_if("axes") {
        Some(a) => a.to_vec(),
        None if ctx.optional(1).is_some() => ctx.integers(1)?,
        None => Vec::new(),
    };
    if given.is_empty() {
        return Ok((!ctx.flag("noop_with_empty_axes")).then(|| (0..rank).collect()));
    }
    Ok(Some(given.iter().map(|&a| ctx.axis(a, rank)).collect::<Result<_, _>>()?))
}

/// Where the pieces of a reduction stand: the place of each result, and of each element relative to it.
struct Plan {
    dims: Vec<usize>,
    starts: Vec<usize>,
    offsets: Vec<usize>,
}

fn plan(ctx: &OpCtx<'_>, axes: &[usize], keep: bool) -> Result<Plan, OpError> {
    let x = ctx.operand(0)?;
    ctx.work(x.len() as u128)?;
    let own = strides(x.dims());
    let side = |inside: bool| -> (Vec<usize>, Vec<usize>) {
        (0..x.rank()).filter(|i| axes.contains(i) == inside).map(|i| (x.dims()[i], own[i])).unzip()
    };
    let ((kept, kept_steps), (gone, gone_steps)) = (side(false), side(true));
    let dims = match keep {
        true => (0..x.rank()).map(|i| if axes.contains(&i) { 1 } else { x.dims()[i] }).collect(),
        false => kept.clone(),
    };
    ctx.allot(&dims)?;
    Ok(Plan { dims, starts: places(&kept, &kept_steps), offsets: places(&gone, &gone_steps) })
}

impl Plan {
    /// The elements of each result in turn, row-major.
    fn each<T: Copy, R>(&self, v: &[T], f: impl Fn(&[T]) -> R) -> Vec<R> {
        let mut piece = Vec::with_capacity(self.offsets.len());
        self.starts
            .iter()
            .map(|&s| {
                piece.clear();
                piece.extend(self.offsets.iter().filter_map(|&o| v.get(s + o).copied()));
                f(&piece)
            })
            .collect()
    }
}

fn float(ctx: &OpCtx<'_>, f: impl Fn(&[f64]) -> f64) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let Some(axes) = axes(ctx)? else { return Ok(vec![x.clone()]) };
    let plan = plan(ctx, &axes, ctx.flag("keepdims"))?;
    let y = plan.each(&ctx.floats(0)?, f);
    ctx.make(x.elem(), plan.dims, &y)
}

fn either(
    ctx: &OpCtx<'_>,
    f: impl Fn(&[f64]) -> f64,
    g: impl Fn(&[i128]) -> i128,
) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let Some(ints) = x.to_ints() else { return float(ctx, f) };
    let Some(axes) = axes(ctx)? else { return Ok(vec![x.clone()]) };
    let plan = plan(ctx, &axes, ctx.flag("keepdims"))?;
    let (low, high) = match x.elem() {
        gs_ir::ElemType::Bool => (0, 1),
        gs_ir::ElemType::U64 => (0, i128::from(u64::MAX)),
        e => e.int_range().map_or((0, 0), |(l, h)| (i128::from(l), i128::from(h))),
    };
    // Only the extremes of an empty set lie outside; sums wrap like the type.
    let y = plan.each(&ints, |v| if v.is_empty() { g(v).clamp(low, high) } else { g(v) });
    Ok(vec![Tensor::from_ints(x.elem(), plan.dims, &y)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_and_sums() {
        let max = |v: &[f64]| extreme(v, f64::NEG_INFINITY, |a, b| a > b);
        assert_eq!(max(&[1.0, 3.0, 2.0]), 3.0);
        assert!(max(&[1.0, f64::NAN, 2.0]).is_nan());
        assert_eq!(max(&[]), f64::NEG_INFINITY);
    }
}
