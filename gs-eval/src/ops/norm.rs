//! Normalisations and softmax.

use super::ctx::{OpCtx, OpError};
use crate::tensor::{Tensor, count};

pub(super) const TABLE: &[super::Row] = &[
    ("batch_norm", batch_norm),
    ("layer_norm", layer_norm),
    ("softmax", |c| soft(c, softmax_row)),
    ("log_softmax", |c| soft(c, log_softmax_row)),
];

/// `(x - mean) / sqrt(var + epsilon) * scale + bias` for each channel (axis 1).
fn batch_norm(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let channels = x.dims().get(1).copied().unwrap_or(1);
    let plane: usize = x.dims().iter().skip(2).product();
    let each = |i: usize| per_channel(ctx, i, channels);
    let (scale, bias, mean, var) = (each(1)?, each(2)?, each(3)?, each(4)?);
    let epsilon = f64::from(ctx.float("epsilon")?);
    ctx.allot(x.dims())?;
    let mut y = ctx.floats(0)?;
    if plane > 0 {
        for (i, row) in y.chunks_exact_mut(plane).enumerate() {
            let c = i % channels.max(1);
            let deviation = (var[c] + epsilon).sqrt();
            row.iter_mut().for_each(|v| *v = (*v - mean[c]) / deviation * scale[c] + bias[c]);
        }
    }
    ctx.make(x.elem(), x.dims(), &y)
}

/// An operand with one number for each channel.
pub(super) fn per_channel(ctx: &OpCtx<'_>, index: usize, channels: usize) -> Result<Vec<f64>, OpError> {
    let v = ctx.floats(index)?;
    if v.len() == channels {
        return Ok(v);
    }
    Err(OpError::Extents { what: "one element per channel", left: vec![v.len()], right: vec![channels] })
}

/// To mean 0 and variance 1 over the axes from `axis` on, then scaled and shifted.
fn layer_norm(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let axis = ctx.axis(ctx.int("axis")?, x.rank())?;
    let inner = &x.dims()[axis..];
    let n = count(inner).ok_or_else(|| OpError::TooLarge(inner.to_vec()))?;
    let epsilon = f64::from(ctx.float("epsilon")?);
    let broadcast =
        |i: usize| super::matmul::broadcast_checked(&ctx.floats(i)?, ctx.operand(i)?.dims(), inner);
    let scale = broadcast(1)?;
    let bias = if ctx.optional(2).is_some() { broadcast(2)? } else { vec![0.0; n] };
    ctx.allot(x.dims())?;
    let mut y = ctx.floats(0)?;
    if n > 0 {
        for row in y.chunks_exact_mut(n) {
            standardise(row, epsilon);
            row.iter_mut().zip(scale.iter().zip(&bias)).for_each(|(v, (s, b))| *v = *v * s + b);
        }
    }
    ctx.make(x.elem(), x.dims(), &y)
}

/// In place, to mean 0 and variance 1.
fn standardise(row: &mut [f64], epsilon: f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let inverse = 1.0 / (var + epsilon).sqrt();
    row.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
}

/// In place: `exp(x - max) / sum`.
pub(super) fn softmax_row(row: &mut [f64]) {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - top).exp();
        sum += *v;
    }
    row.iter_mut().for_each(|v| *v /= sum);
}

pub(super) fn log_softmax_row(row: &mut [f64]) {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
    row.iter_mut().for_each(|v| *v = *v - top - sum.ln());
}

/// Rows along one axis; with `legacy` a row is everything from the axis on (opset versions before 13).
pub(super) fn each_row(v: &mut [f64], dims: &[usize], axis: usize, legacy: bool, f: impl Fn(&mut [f64])) {
    let behind = |from: usize| dims.iter().skip(from).product::<usize>();
    let (length, step) =
        if legacy { (behind(axis), 1) } else { (dims.get(axis).copied().unwrap_or(1), behind(axis + 1)) };
    if v.is_empty() || length == 0 {
        return;
    }
    let mut row = vec![0.0; length];
    for block in v.chunks_exact_mut(length * step) {
        for lane in 0..step {
            row.iter_mut().zip(block.iter().skip(lane).step_by(step)).for_each(|(r, b)| *r = *b);
            f(&mut row);
            block.iter_mut().skip(lane).step_by(step).zip(&row).for_each(|(b, r)| *b = *r);
        }
    }
}

fn soft(ctx: &OpCtx<'_>, f: fn(&mut [f64])) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    ctx.allot(x.dims())?;
    let legacy = ctx.flag("legacy");
    let axis = ctx.int("axis")?;
    let axis = match x.rank() {
        0 => 0,
        // Flattening may also happen behind the last axis.
        rank if legacy && axis == rank as i64 => rank,
        rank => ctx.axis(axis, rank)?,
    };
    let mut y = ctx.floats(0)?;
    each_row(&mut y, x.dims(), axis, legacy, f);
    ctx.make(x.elem(), x.dims(), &y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_along_any_axis() {
        let reverse = |row: &mut [f64]| row.reverse();
        let mut v: Vec<f64> = (0..12).map(f64::from).collect();
        each_row(&mut v, &[2, 3, 2], 1, false, reverse);
        assert_eq!(v, [4.0, 5.0, 2.0, 3.0, 0.0, 1.0, 10.0, 11.0, 8.0, 9.0, 6.0, 7.0]);
        let mut v: Vec<f64> = (0..6).map(f64::from).collect();
        each_row(&mut v, &[1, 3, 2], 1, true, reverse);
        assert_eq!(v, [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn softmax_of_large_numbers() {
        let mut row = [1000.0, 1000.0];
        softmax_row(&mut row);
        assert_eq!(row, [0.5, 0.5]);
        let mut row = [0.0, f64::NEG_INFINITY];
        log_softmax_row(&mut row);
        assert_eq!(row, [0.0, f64::NEG_INFINITY]);
    }
}
