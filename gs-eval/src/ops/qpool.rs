//! Integer pools. Global average pooling is an exact integer sum; average pooling sums dequantised f32 numbers in the
//! order of the window, as ONNX Runtime does.

use super::ctx::{OpCtx, OpError, codes_tensor};
use super::layout::{places, strides};
use super::pool::Pool;
use super::qlinear::GridOf;
use crate::arith::Requantizer;
use crate::tensor::Tensor;

pub(super) const TABLE: &[super::Row] =
    &[("qaverage_pool", qaverage_pool), ("qglobal_average_pool", qglobal_average_pool)];

/// A tensor with its last axis moved to place 1, or back.
fn move_channels(x: &Tensor, to_front: bool) -> Result<Tensor, OpError> {
    let rank = x.rank();
    if rank < 3 {
        return Ok(x.clone());
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    if to_front {
        perm[1..].rotate_right(1)
    } else {
        perm[1..].rotate_left(1)
    }
    let own = strides(x.dims());
    let dims: Vec<usize> = perm.iter().map(|&p| x.dims()[p]).collect();
    let steps: Vec<usize> = perm.iter().map(|&p| own[p]).collect();
    Ok(Tensor::new(x.elem(), dims.clone(), x.storage().pick(&places(&dims, &steps)))?)
}

/// The operand with channels at axis 1.
fn input(ctx: &OpCtx<'_>) -> Result<Tensor, OpError> {
    let x = ctx.operand(0)?;
    if ctx.flag("channels_last") { move_channels(x, true) } else { Ok(x.clone()) }
}

fn output(ctx: &OpCtx<'_>, y: Tensor) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![if ctx.flag("channels_last") { move_channels(&y, false)? } else { y }])
}

fn codes_of(ctx: &OpCtx<'_>, x: &Tensor) -> Result<Vec<i64>, OpError> {
    let codes = x.to_i32s().ok_or_else(|| ctx.wrong_elem(0))?;
    Ok(codes.into_iter().map(i64::from).collect())
}

/// `round(sum(x - z_x) * (s_x / (s_y * count))) + z_y`
fn qglobal_average_pool(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = input(ctx)?;
    let pool = Pool::global(ctx, &x)?;
    let (from, to) = (GridOf::read(ctx, 1, 2, x.elem())?, GridOf::read(ctx, 3, 4, x.elem())?);
    let zero_point = from.codes.zero_point;
    let sums = pool.fold(&codes_of(ctx, &x)?, 0i64, |a, q| a + (q - zero_point));
    let count = pool.plane as f32;
    let exact = f64::from(from.scale) / (f64::from(to.scale) * pool.plane as f64);
    let q = Requantizer::new(ctx.arithmetic, from.scale / (to.scale * count), exact, to.codes)?;
    let codes: Vec<i64> = sums.into_iter().map(|s| q.apply(s)).collect();
    output(ctx, codes_tensor(to.elem, pool.dims, &codes)?)
}

/// `round(sum(s_x * (x - z_x)) / count / s_y + z_y)`, every step in f32.
fn qaverage_pool(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = input(ctx)?;
    let pool = Pool::of(ctx, &x)?;
    let (from, to) = (GridOf::read(ctx, 1, 2, x.elem())?, GridOf::read(ctx, 3, 4, x.elem())?);
    let sums = pool.fold(&codes_of(ctx, &x)?, 0f32, |a, q| a + from.real(q));
    let divisors = pool.divisors(ctx.flag("count_include_pad"));
    let (rounding, before) = (ctx.arithmetic.rounding, ctx.arithmetic.average_pool_zero_point_before_round);
    let code = |(sum, &count): (f32, &usize)| {
        let v = sum / count as f32 / to.scale;
        match before {
            true => to.codes.saturate(f64::from(rounding.f32(v + to.codes.zero_point as f32))),
            false => to.codes.shift_and_saturate(f64::from(rounding.f32(v))),
        }
    };
    let codes: Vec<i64> = sums.into_iter().zip(divisors.iter().cycle()).map(code).collect();
    output(ctx, codes_tensor(to.elem, pool.dims, &codes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_there_and_back() {
        let x = Tensor::i64s([1, 2, 2, 3], (0..12).collect::<Vec<i64>>()).unwrap();
        let front = move_channels(&x, true).unwrap();
        assert_eq!(front.dims(), [1, 3, 2, 2]);
        assert_eq!(front.as_i64().unwrap()[..4], [0, 3, 6, 9]);
        assert_eq!(move_channels(&front, false).unwrap(), x);
    }
}
