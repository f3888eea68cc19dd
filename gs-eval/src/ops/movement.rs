//! Operators that cut, join, pad and repeat tensors without computing anything.

use super::ctx::{OpCtx, OpError};
use super::layout::{places, strides};
use crate::tensor::{HOLE, Storage, Tensor, count};

pub(super) const TABLE: &[super::Row] =
    &[("slice", slice), ("pad", pad), ("concat", concat), ("split", split), ("tile", tile)];

/// What is taken of one axis: the first position, the step, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    start: usize,
    step: i64,
    count: usize,
}

/// Bounds as ONNX and NumPy read them: negative ones count from the end, what lies outside is moved inside.
fn cut(extent: usize, start: i64, end: i64, step: i64) -> Result<Cut, OpError> {
    let n = i64::try_from(extent).map_err(|_| OpError::TooLarge(vec![extent]))?;
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    if step == 0 {
        return Err(OpError::Attr { name: "steps", reason: "must not be zero" });
    }
    let (start, end) = match step > 0 {
        true => (from_end(start).clamp(0, n), from_end(end).clamp(0, n)),
        false => (from_end(start).clamp(-1, n - 1), from_end(end).clamp(-1, n - 1)),
    };
    let way = if step > 0 { end - start } else { start - end };
    let size = step.unsigned_abs();
    let count = if way <= 0 { 0 } else { (way as u64).div_ceil(size) as usize };
    Ok(Cut { start: usize::try_from(start).unwrap_or(0), step, count })
}

fn slice(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let (dims, order) = sliced(ctx, x.dims())?;
    ctx.picked(x, dims, &order)
}

/// The extents of a slice of a tensor of these extents, and the place of each of its elements.
pub(super) fn sliced(ctx: &OpCtx<'_>, x: &[usize]) -> Result<(Vec<usize>, Vec<usize>), OpError> {
    let list = |name: &'static str| ctx.ints_if(name).ok_or_else(|| OpError::MissingAttr(name.into()));
    let (starts, ends) = (list("starts")?, list("ends")?);
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = ctx.ints_if("axes").unwrap_or(&all);
    let steps = ctx.ints("steps", starts.len())?;
    if ends.len() != starts.len() || axes.len() != starts.len() {
        return Err(OpError::Extents {
            what: "starts and ends",
            left: vec![starts.len()],
            right: vec![ends.len(), axes.len()],
        });
    }
    let mut cuts: Vec<Cut> = x.iter().map(|&d| Cut { start: 0, step: 1, count: d }).collect();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = ctx.axis(axis, x.len())?;
        cuts[axis] = cut(x[axis], starts[i], ends[i], steps[i])?;
    }
    let own = strides(x);
    let dims: Vec<usize> = cuts.iter().map(|c| c.count).collect();
    ctx.allot(&dims)?;
    let base: usize =
        if count(&dims) == Some(0) { 0 } else { cuts.iter().zip(&own).map(|(c, s)| c.start * s).sum() };
    // A backward step is a stride that wraps around; sums of places wrap back.
    let steps: Vec<usize> = cuts.iter().zip(&own).map(|(c, s)| (c.step as usize).wrapping_mul(*s)).collect();
    let order = places(&dims, &steps).into_iter().map(|p| p.wrapping_add(base)).collect();
    Ok((dims, order))
}

/// Where position `at` of a padded axis comes from; negative pads cut.
fn padded_source(mode: &str, extent: i64, at: i64) -> Option<usize> {
    let inside = (0..extent).contains(&at);
    let source = match mode {
        _ if inside => at,
        "edge" if extent > 0 => at.clamp(0, extent - 1),
        "reflect" if extent > 0 => mirror(at, extent),
        "wrap" if extent > 0 => at.rem_euclid(extent),
        _ => return None,
    };
    usize::try_from(source).ok()
}

/// Reflects at the first and last element, which are not repeated.
fn mirror(at: i64, extent: i64) -> i64 {
    if extent == 1 {
        return 0;
    }
    let period = 2 * (extent - 1);
    let within = at.rem_euclid(period);
    if within < extent { within } else { period - within }
}

fn pad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let rank = x.rank();
    let pads = ctx.ints("pads", rank * 2)?;
    let mode = ctx.word("mode").unwrap_or("constant");
    if !matches!(mode, "constant" | "edge" | "reflect" | "wrap") {
        return Err(OpError::Attr { name: "mode", reason: "is not known" });
    }
    if pads.iter().any(|p| p.unsigned_abs() >= super::window::FAR) {
        return Err(OpError::Attr { name: "pads", reason: "are too large" });
    }
    let mut dims = Vec::with_capacity(rank);
    for i in 0..rank {
        let extent = usize::try_from(x.dims()[i] as i64 + pads[i] + pads[i + rank]);
        dims.push(extent.map_err(|_| OpError::Attr { name: "pads", reason: "leave no extent" })?);
    }
    let n = ctx.allot(&dims)?;
    // Per axis, the offset in the input of each coordinate of the result.
    let own = strides(x.dims());
    let mut order = vec![0usize; n.min(1)];
    for i in 0..rank {
        let source = |o: usize| {
            padded_source(mode, x.dims()[i] as i64, o as i64 - pads[i]).map_or(HOLE, |s| s * own[i])
        };
        let table: Vec<usize> = (0..dims[i]).map(source).collect();
        let join = |a: usize, b: usize| if a == HOLE || b == HOLE { HOLE } else { a + b };
        order = order.iter().flat_map(|&a| table.iter().map(move |&b| join(a, b))).collect();
    }
    if mode != "constant" && order.contains(&HOLE) {
        return Err(OpError::Extents {
            what: "padding of an empty axis",
            left: x.dims().to_vec(),
            right: dims,
        });
    }
    let fill = ctx.float_if("value").map_or(0.0, f64::from);
    let fill = match Storage::empty(x.elem()) {
        Storage::Str(_) => Storage::Str(vec![bytes::Bytes::new()]),
        Storage::C64(_) => Storage::C64(vec![[fill as f32, 0.0]]),
        Storage::C128(_) => Storage::C128(vec![[fill, 0.0]]),
        _ => Tensor::from_f64s(x.elem(), [], &[fill])?.storage().clone(),
    };
    Ok(vec![Tensor::new(x.elem(), dims, x.storage().pick_or(&order, &fill))?])
}

fn concat(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let inputs: Vec<&Tensor> = (0..ctx.operands.len()).map(|i| ctx.operand(i)).collect::<Result<_, _>>()?;
    let first = ctx.operand(0)?;
    let axis = ctx.axis(ctx.int("axis")?, first.rank())?;
    Ok(vec![join(ctx, &inputs, axis)?])
}

/// Tensors one behind the other along an axis.
pub(super) fn join(ctx: &OpCtx<'_>, inputs: &[&Tensor], axis: usize) -> Result<Tensor, OpError> {
    let Some(first) = inputs.first() else { return Err(OpError::MissingOperand("inputs")) };
    let mut dims = first.dims().to_vec();
    let mut extent = 0usize;
    for t in inputs {
        let fits = t.rank() == dims.len() && (0..dims.len()).all(|i| i == axis || t.dims()[i] == dims[i]);
        if !fits {
            return Err(OpError::Extents { what: "concatenation", left: dims, right: t.dims().to_vec() });
        }
        if t.elem() != first.elem() {
            return Err(OpError::Mixed(first.elem(), t.elem()));
        }
        extent = extent.checked_add(t.dims()[axis]).ok_or_else(|| OpError::TooLarge(t.dims().to_vec()))?;
    }
    dims[axis] = extent;
    ctx.allot(&dims)?;
    let outer: usize = dims[..axis].iter().product();
    let mut storage = Storage::empty(first.elem());
    for o in 0..outer {
        for t in inputs {
            let run: usize = t.dims()[axis..].iter().product();
            storage.append(&t.storage().section(o * run, run));
        }
    }
    Ok(Tensor::new(first.elem(), dims, storage)?)
}

fn split(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let axis = ctx.axis(ctx.int("axis")?, x.rank())?;
    let extent = x.dims()[axis];
    let parts: Vec<usize> = match ctx.ints_if("split") {
        Some(s) => crate::packed::extents(s)?,
        // Equal parts, the last one smaller where they do not fit.
        None => {
            let each = extent.div_ceil(ctx.result_count.max(1));
            (0..ctx.result_count).map(|i| each.min(extent.saturating_sub(i * each))).collect()
        }
    };
    if parts.len() != ctx.result_count
        || parts.iter().try_fold(0usize, |a, &p| a.checked_add(p)) != Some(extent)
    {
        return Err(OpError::Extents { what: "parts", left: parts, right: vec![extent] });
    }
    let own = strides(x.dims());
    let mut start = 0;
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        let mut dims = x.dims().to_vec();
        dims[axis] = part;
        ctx.allot(&dims)?;
        let base = start * own[axis];
        let order: Vec<usize> = places(&dims, &own).into_iter().map(|p| p + base).collect();
        out.extend(ctx.picked(x, dims, &order)?);
        start += part;
    }
    Ok(out)
}

fn tile(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let repeats = match ctx.ints_if("repeats") {
        Some(r) => crate::packed::extents(r)?,
        None => crate::packed::extents(&ctx.integers(1)?)?,
    };
    if repeats.len() != x.rank() {
        return Err(OpError::Extents { what: "repeats", left: repeats, right: x.dims().to_vec() });
    }
    let too_large = || OpError::TooLarge(repeats.clone());
    let dims = x.dims().iter().zip(&repeats).map(|(d, r)| d.checked_mul(*r).ok_or_else(too_large));
    let dims: Vec<usize> = dims.collect::<Result<_, _>>()?;
    ctx.allot(&dims)?;
    // Each axis as two: the repeat (which does not move in the input) and the position.
    let own = strides(x.dims());
    let split: Vec<usize> = repeats.iter().zip(x.dims()).flat_map(|(&r, &d)| [r, d]).collect();
    let steps: Vec<usize> = own.iter().flat_map(|&s| [0, s]).collect();
    ctx.picked(x, dims, &places(&split, &steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_numpy_does() {
        let of = |start, end, step| {
            let c = cut(5, start, end, step).unwrap();
            (0..c.count as i64).map(|i| c.start as i64 + i * c.step).collect::<Vec<_>>()
        };
        assert_eq!(of(1, 4, 1), [1, 2, 3]);
        assert_eq!(of(-2, i64::MAX, 1), [3, 4]);
        assert_eq!(of(i64::MIN, 100, 2), [0, 2, 4]);
        assert_eq!(of(-1, i64::MIN, -2), [4, 2, 0]);
        assert_eq!(of(10, 1, -1), [4, 3, 2]);
        assert_eq!(of(3, 3, 1), [0i64; 0]);
        assert_eq!(of(0, 5, i64::MAX), [0]);
        assert_eq!(of(4, i64::MIN, i64::MIN), [4]);
        assert!(cut(5, 0, 1, 0).is_err());
        assert_eq!(cut(0, -1, i64::MIN, -1).unwrap().count, 0);
    }

    #[test]
    fn padding_modes() {
        let of = |mode: &str| (-3..6).map(|i| padded_source(mode, 3, i)).collect::<Vec<_>>();
        let some = |v: [usize; 9]| v.map(Some).to_vec();
        assert_eq!(of("edge"), some([0, 0, 0, 0, 1, 2, 2, 2, 2]));
        assert_eq!(of("reflect"), some([1, 2, 1, 0, 1, 2, 1, 0, 1]));
        assert_eq!(of("wrap"), some([0, 1, 2, 0, 1, 2, 0, 1, 2]));
        assert_eq!(padded_source("constant", 3, -1), None);
    }
}
