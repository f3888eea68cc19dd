//! Broadcasting, and the operators that rename or reorder axes.

use super::ctx::{OpCtx, OpError};
use crate::tensor::{Tensor, count};
use gs_ir::ElemType;

pub(super) const TABLE: &[super::Row] = &[
    ("reshape", reshape),
    ("reshape_to", reshape_to),
    ("flatten", flatten),
    ("transpose", transpose),
    ("squeeze", squeeze),
    ("unsqueeze", unsqueeze),
    ("identity", first),
    ("dropout", first),
    ("expand", expand),
    ("shape", shape),
    ("size", size),
];

/// The extents to which both broadcast, by NumPy's rules.
pub(super) fn broadcast_dims(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(OpError::Extents { what: "broadcast", left: a.to_vec(), right: b.to_vec() }),
        })
        .collect()
}

/// Distance in memory of neighbours along each axis.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(dims[i]);
    }
    strides
}

/// For every position of `dims`, row-major, the sum of its coordinates times `strides`.
pub(super) fn places(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut out = Vec::with_capacity(count(dims).unwrap_or(0));
    if count(dims) == Some(0) {
        return out;
    }
    out.push(0usize);
    // Axis by axis from the outermost: each place so far becomes a run along the next axis.
    for (&d, &s) in dims.iter().zip(strides) {
        if d == 1 {
            continue;
        }
        out =
            out.iter().flat_map(|&base| (0..d).map(move |i| base.wrapping_add(i.wrapping_mul(s)))).collect();
    }
    out
}

/// The place in a tensor of extents `from` of every position of the extents `to` that it broadcasts to.
pub(super) fn broadcast_places(from: &[usize], to: &[usize]) -> Vec<usize> {
    let own = strides(from);
    let offset = to.len() - from.len().min(to.len());
    let steps: Vec<usize> = (0..to.len())
        .map(|i| match i.checked_sub(offset) {
            Some(j) if from[j] != 1 => own[j],
            _ => 0,
        })
        .collect();
    places(to, &steps)
}

/// Elements broadcast to larger extents.
pub(super) fn broadcast_to<T: Copy>(v: &[T], from: &[usize], to: &[usize]) -> Vec<T> {
    if from == to {
        return v.to_vec();
    }
    if let [x] = v {
        return vec![*x; count(to).unwrap_or(0)];
    }
    broadcast_places(from, to).into_iter().filter_map(|i| v.get(i).copied()).collect()
}

fn first(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![ctx.operand(0)?.clone()])
}

fn reshape(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let target = ctx.dims_if("shape")?.ok_or_else(|| OpError::MissingAttr("shape".into()))?;
    resolve(ctx, &target)
}

fn reshape_to(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    resolve(ctx, &ctx.integers(1)?)
}

/// Reshapes to extents in which 0 copies (unless `allow_zero`) and -1 takes what is left.
fn resolve(ctx: &OpCtx<'_>, target: &[i64]) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let bad = |reason| OpError::Attr { name: "shape", reason };
    let mut dims = Vec::with_capacity(target.len());
    let mut open = None;
    for (i, &d) in target.iter().enumerate() {
        dims.push(match d {
            0 if !ctx.flag("allow_zero") => {
                *x.dims().get(i).ok_or(bad("copies an axis that is not there"))?
            }
            -1 if open.replace(i).is_some() => return Err(bad("has -1 twice")),
            -1 => 1,
            d => usize::try_from(d).map_err(|_| bad("has a negative extent"))?,
        });
    }
    if let Some(i) = open {
        let rest = count(&dims).filter(|&r| r > 0 && x.len() % r == 0);
        dims[i] = x.len() / rest.ok_or(bad("does not divide the number of elements"))?;
    }
    Ok(vec![x.reshaped(dims)?])
}

fn flatten(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let axis = ctx.int("axis")?;
    // The axis may also stand behind the last one.
    let at = if axis == x.rank() as i64 { x.rank() } else { ctx.axis(axis, x.rank())? };
    let (outer, inner) = x.dims().split_at(at);
    let product = |d: &[usize]| count(d).ok_or_else(|| OpError::TooLarge(d.to_vec()));
    Ok(vec![x.reshaped([product(outer)?, product(inner)?])?])
}

fn transpose(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let perm = match ctx.ints_if("perm") {
        None => (0..x.rank()).rev().collect(),
        Some(p) => permutation(p, x.rank())?,
    };
    let own = strides(x.dims());
    let dims: Vec<usize> = perm.iter().map(|&p| x.dims()[p]).collect();
    let steps: Vec<usize> = perm.iter().map(|&p| own[p]).collect();
    ctx.allot(&dims)?;
    let order = places(&dims, &steps);
    ctx.picked(x, dims, &order)
}

fn permutation(perm: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let bad = OpError::Attr { name: "perm", reason: "is no permutation of the axes" };
    let mut seen = vec![false; rank];
    if perm.len() != rank {
        return Err(bad);
    }
    for &p in perm {
        match usize::try_from(p).ok().and_then(|p| seen.get_mut(p)) {
            Some(s) if !*s => *s = true,
            _ => return Err(bad),
        }
    }
    Ok(perm.iter().map(|&p| p as usize).collect())
}

fn squeeze(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let drop: Vec<usize> = match ctx.ints_if("axes") {
        None => (0..x.rank()).filter(|&i| x.dims()[i] == 1).collect(),
        Some(axes) => axes.iter().map(|&a| ctx.axis(a, x.rank())).collect::<Result<_, _>>()?,
    };
    if let Some(&i) = drop.iter().find(|&&i| x.dims()[i] != 1) {
        return Err(OpError::Extents { what: "squeezed axis", left: vec![x.dims()[i]], right: vec![1] });
    }
    let dims: Vec<usize> = (0..x.rank()).filter(|i| !drop.contains(i)).map(|i| x.dims()[i]).collect();
    Ok(vec![x.reshaped(dims)?])
}

fn unsqueeze(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let axes = ctx.ints_if("axes").ok_or_else(|| OpError::MissingAttr("axes".into()))?;
    let rank = x.rank() + axes.len();
    let new: Vec<usize> = axes.iter().map(|&a| ctx.axis(a, rank)).collect::<Result<_, _>>()?;
    if (1..new.len()).any(|i| new[..i].contains(&new[i])) {
        return Err(OpError::Attr { name: "axes", reason: "name an axis twice" });
    }
    let mut old = x.dims().iter();
    let dims: Vec<usize> =
        (0..rank).map(|i| if new.contains(&i) { 1 } else { old.next().copied().unwrap_or(1) }).collect();
    Ok(vec![x.reshaped(dims)?])
}

fn expand(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let target = crate::packed::extents(&ctx.integers(1)?)?;
    let dims = broadcast_dims(x.dims(), &target)?;
    ctx.allot(&dims)?;
    let order = broadcast_places(x.dims(), &dims);
    ctx.picked(x, dims, &order)
}

fn shape(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let rank = x.rank() as i64;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let (start, end) = (clamp(ctx.int_if("start").unwrap_or(0)), clamp(ctx.int_if("end").unwrap_or(rank)));
    let dims: Vec<i64> =
        x.dims().get(start..end.max(start)).unwrap_or(&[]).iter().map(|&d| d as i64).collect();
    Ok(vec![Tensor::i64s([dims.len()], dims)?])
}

fn size(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![Tensor::from_ints(ElemType::I64, [], &[ctx.operand(0)?.len() as i128])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast_dims(&[3, 1], &[2, 1, 4]).unwrap(), [2, 3, 4]);
        assert_eq!(broadcast_dims(&[0, 1], &[1, 5]).unwrap(), [0, 5]);
        assert!(broadcast_dims(&[2], &[3]).is_err());
        assert_eq!(broadcast_to(&[1, 2], &[2, 1], &[2, 2, 3]), [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]);
        assert_eq!(broadcast_to(&[7], &[], &[2, 2]), [7; 4]);
        assert!(broadcast_to::<i32>(&[], &[0], &[3, 0]).is_empty());
    }

    #[test]
    fn places_walk_row_major() {
        assert_eq!(places(&[2, 3], &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(places(&[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(places(&[], &[]), [0]);
        assert!(places(&[2, 0], &[0, 1]).is_empty());
    }
}
