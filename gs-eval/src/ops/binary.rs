//! Operators on the elements of several tensors at the same place, after broadcasting.

use super::ctx::{OpCtx, OpError};
use super::layout::{broadcast_dims, broadcast_places, broadcast_to};
use crate::tensor::{Storage, Tensor};
use gs_ir::ElemType;
use std::cmp::Ordering;

pub(super) const TABLE: &[super::Row] = &[
    ("add", |c| arithmetic(c, |a, b| a + b, |a, b| Some(a.wrapping_add(b)))),
    ("sub", |c| arithmetic(c, |a, b| a - b, |a, b| Some(a.wrapping_sub(b)))),
    ("mul", |c| arithmetic(c, |a, b| a * b, |a, b| Some(a.wrapping_mul(b)))),
    ("div", |c| arithmetic(c, |a, b| a / b, |a, b| a.checked_div(b))),
    ("pow", pow),
    ("max", |c| fold(c, max, |a, b| a.max(b))),
    ("min", |c| fold(c, min, |a, b| a.min(b))),
    ("sum", |c| fold(c, |a, b| a + b, |a, b| a.wrapping_add(b))),
    ("mean", mean),
    ("equal", equal),
    ("less", |c| compare(c, |o| o == Some(Ordering::Less))),
    ("less_or_equal", |c| compare(c, |o| matches!(o, Some(Ordering::Less | Ordering::Equal)))),
    ("greater", |c| compare(c, |o| o == Some(Ordering::Greater))),
    ("greater_or_equal", |c| compare(c, |o| matches!(o, Some(Ordering::Greater | Ordering::Equal)))),
    ("and", |c| logic(c, |a, b| a & b)),
    ("or", |c| logic(c, |a, b| a | b)),
    ("xor", |c| logic(c, |a, b| a ^ b)),
    ("where", select),
];

/// The larger number; NaN if either is.
fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller number; NaN if either is.
fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// The common extents of two operands, checked against the limits.
fn common(ctx: &OpCtx<'_>, a: &Tensor, b: &Tensor) -> Result<Vec<usize>, OpError> {
    let dims = broadcast_dims(a.dims(), b.dims())?;
    ctx.allot(&dims)?;
    Ok(dims)
}

fn same_elem(a: &Tensor, b: &Tensor) -> Result<ElemType, OpError> {
    if a.elem() == b.elem() { Ok(a.elem()) } else { Err(OpError::Mixed(a.elem(), b.elem())) }
}

/// Combines two tensors of one type, on floats or exactly on integers (which wrap). An integer function gives `None`
/// for a division by zero.
fn combine(
    ctx: &OpCtx<'_>,
    a: &Tensor,
    b: &Tensor,
    f: &dyn Fn(f64, f64) -> f64,
    g: &dyn Fn(i128, i128) -> Option<i128>,
) -> Result<Tensor, OpError> {
    let (elem, dims) = (same_elem(a, b)?, common(ctx, a, b)?);
    if elem.is_float() {
        let (Some(x), Some(y)) = (a.to_f64s(), b.to_f64s()) else { return Err(ctx.wrong_elem(0)) };
        let (x, y) = (broadcast_to(&x, a.dims(), &dims), broadcast_to(&y, b.dims(), &dims));
        let z: Vec<f64> = x.into_iter().zip(y).map(|(x, y)| f(x, y)).collect();
        return Ok(Tensor::from_f64s(elem, dims, &z)?);
    }
    let (Some(x), Some(y), true) = (a.to_ints(), b.to_ints(), elem.is_int()) else {
        return Err(ctx.wrong_elem(0));
    };
    let (x, y) = (broadcast_to(&x, a.dims(), &dims), broadcast_to(&y, b.dims(), &dims));
    let z: Option<Vec<i128>> = x.into_iter().zip(y).map(|(x, y)| g(x, y)).collect();
    let z = z.ok_or_else(|| OpError::Other("integer division by zero".into()))?;
    Ok(Tensor::from_ints(elem, dims, &z)?)
}

fn arithmetic(
    ctx: &OpCtx<'_>,
    f: impl Fn(f64, f64) -> f64,
    g: impl Fn(i128, i128) -> Option<i128>,
) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![combine(ctx, ctx.operand(0)?, ctx.operand(1)?, &f, &g)?])
}

/// Folds any number of operands from the left. Sums of floats are kept in f64 until the end.
fn fold(
    ctx: &OpCtx<'_>,
    f: impl Fn(f64, f64) -> f64,
    g: impl Fn(i128, i128) -> i128,
) -> Result<Vec<Tensor>, OpError> {
    let first = ctx.operand(0)?;
    let elem = first.elem();
    let wide = |t: &Tensor| match elem.is_float() {
        // f64 between the steps, so that the result is rounded once.
        true => t.to_f64s().and_then(|v| Tensor::from_f64s(ElemType::F64, t.dims(), &v).ok()),
        false => Some(t.clone()),
    };
    let mut all = wide(first).ok_or_else(|| ctx.wrong_elem(0))?;
    for i in 1..ctx.operands.len() {
        let next = ctx.operand(i)?;
        same_elem(first, next)?;
        let next = wide(next).ok_or_else(|| ctx.wrong_elem(i))?;
        all = combine(ctx, &all, &next, &f, &|a, b| Some(g(a, b)))?;
    }
    if elem.is_float() {
        let values = all.to_f64s().ok_or_else(|| ctx.wrong_elem(0))?;
        return ctx.make(elem, all.dims(), &values);
    }
    Ok(vec![all])
}

fn mean(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let first = ctx.operand(0)?;
    let elem = first.elem();
    let (mut dims, mut sums) = (first.dims().to_vec(), ctx.floats(0)?);
    for i in 1..ctx.operands.len() {
        let t = ctx.operand(i)?;
        same_elem(first, t)?;
        let all = broadcast_dims(&dims, t.dims())?;
        ctx.allot(&all)?;
        let (a, b) = (broadcast_to(&sums, &dims, &all), broadcast_to(&ctx.floats(i)?, t.dims(), &all));
        sums = a.into_iter().zip(b).map(|(a, b)| a + b).collect();
        dims = all;
    }
    let n = ctx.operands.len() as f64;
    sums.iter_mut().for_each(|s| *s /= n);
    ctx.make(elem, dims, &sums)
}

/// The base's type is the result's; the exponent may be of another one.
fn pow(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (ctx.operand(0)?, ctx.operand(1)?);
    let dims = common(ctx, a, b)?;
    if let (true, Some(x), Some(y)) = (a.elem().is_int(), a.to_ints(), b.to_ints()) {
        let (x, y) = (broadcast_to(&x, a.dims(), &dims), broadcast_to(&y, b.dims(), &dims));
        let z: Vec<i128> = x.into_iter().zip(y).map(|(x, y)| int_pow(x, y)).collect();
        return Ok(vec![Tensor::from_ints(a.elem(), dims, &z)?]);
    }
    let (x, y) =
        (broadcast_to(&ctx.floats(0)?, a.dims(), &dims), broadcast_to(&ctx.floats(1)?, b.dims(), &dims));
    let z: Vec<f64> = x.into_iter().zip(y).map(|(x, y)| x.powf(y)).collect();
    ctx.make(a.elem(), dims, &z)
}

/// Wraps; a negative exponent truncates the fraction (division by zero gives 0).
fn int_pow(x: i128, y: i128) -> i128 {
    match (x, u64::try_from(y)) {
        (1, _) => 1,
        (-1, _) => {
            if y % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, Err(_)) => 0,
        (mut base, Ok(mut e)) => {
            let mut z = 1i128;
            while e > 0 {
                if e & 1 == 1 {
                    z = z.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                e >>= 1;
            }
            z
        }
    }
}

fn compare(ctx: &OpCtx<'_>, holds: impl Fn(Option<Ordering>) -> bool) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (ctx.operand(0)?, ctx.operand(1)?);
    let (elem, dims) = (same_elem(a, b)?, common(ctx, a, b)?);
    let z: Vec<bool> = match (a.to_ints(), b.to_ints()) {
        (Some(x), Some(y)) => {
            let (x, y) = (broadcast_to(&x, a.dims(), &dims), broadcast_to(&y, b.dims(), &dims));
            x.iter().zip(&y).map(|(x, y)| holds(x.partial_cmp(y))).collect()
        }
        _ if elem.is_float() => {
            let (x, y) = (ctx.floats(0)?, ctx.floats(1)?);
            let (x, y) = (broadcast_to(&x, a.dims(), &dims), broadcast_to(&y, b.dims(), &dims));
            x.iter().zip(&y).map(|(x, y)| holds(x.partial_cmp(y))).collect()
        }
        _ => return Err(ctx.wrong_elem(0)),
    };
    Ok(vec![Tensor::new(ElemType::Bool, dims, Storage::Bool(z))?])
}

fn equal(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (ctx.operand(0)?, ctx.operand(1)?);
    let (Storage::Str(x), Storage::Str(y)) = (a.storage(), b.storage()) else {
        return compare(ctx, |o| o == Some(Ordering::Equal));
    };
    let dims = common(ctx, a, b)?;
    let places = broadcast_places(a.dims(), &dims).into_iter().zip(broadcast_places(b.dims(), &dims));
    let z = places.map(|(i, j)| x.get(i) == y.get(j)).collect();
    Ok(vec![Tensor::new(ElemType::Bool, dims, Storage::Bool(z))?])
}

fn bools<'c>(ctx: &'c OpCtx<'_>, index: usize) -> Result<&'c [bool], OpError> {
    match ctx.operand(index)?.storage() {
        Storage::Bool(v) => Ok(v),
        _ => Err(ctx.wrong_elem(index)),
    }
}

fn logic(ctx: &OpCtx<'_>, f: impl Fn(bool, bool) -> bool) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (ctx.operand(0)?, ctx.operand(1)?);
    let dims = common(ctx, a, b)?;
    let (x, y) =
        (broadcast_to(bools(ctx, 0)?, a.dims(), &dims), broadcast_to(bools(ctx, 1)?, b.dims(), &dims));
    let z = x.into_iter().zip(y).map(|(x, y)| f(x, y)).collect();
    Ok(vec![Tensor::new(ElemType::Bool, dims, Storage::Bool(z))?])
}

fn select(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (cond, a, b) = (ctx.operand(0)?, ctx.operand(1)?, ctx.operand(2)?);
    let elem = same_elem(a, b)?;
    let dims = broadcast_dims(&broadcast_dims(cond.dims(), a.dims())?, b.dims())?;
    ctx.allot(&dims)?;
    let cond = broadcast_to(bools(ctx, 0)?, cond.dims(), &dims);
    // Both candidates behind one another, so that one list of places picks from either.
    let mut both = a.storage().clone();
    both.append(b.storage());
    let places =
        broadcast_places(a.dims(), &dims).into_iter().zip(broadcast_places(b.dims(), &dims)).zip(cond);
    let places: Vec<usize> = places.map(|((i, j), c)| if c { i } else { a.len() + j }).collect();
    Ok(vec![Tensor::new(elem, dims, both.pick(&places))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_never_dropped() {
        for f in [max, min] {
            assert!(f(f64::NAN, 1.0).is_nan() && f(1.0, f64::NAN).is_nan());
        }
        assert_eq!((max(1.0, 2.0), min(1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn integer_powers() {
        assert_eq!(
            [(2, 10), (-3, 3), (2, -1), (-1, -3), (0, 0)].map(|(x, y)| int_pow(x, y)),
            [1024, -27, 0, -1, 1]
        );
    }
}
