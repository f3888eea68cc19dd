//! Matrix products: `matmul` with NumPy's rules for batches and vectors, `gemm`, and the integer product.

use super::conv::{Codes, Mac, weighted_sum};
use super::ctx::{OpCtx, OpError, codes_tensor};
use super::layout::{broadcast_dims, broadcast_to};
use crate::tensor::{Tensor, count};
use gs_ir::ElemType;

pub(super) const TABLE: &[super::Row] =
    &[("matmul", matmul), ("gemm", gemm), ("matmul_integer", matmul_integer)];

/// `[m, k] x [k, n]`: each row of the result is the sum of the rows of `b`, weighted by a row of `a`, in order.
pub(super) fn product<T: Mac>(a: &[T], b: &[T], m: usize, k: usize, n: usize) -> Vec<T::Acc> {
    if k == 0 {
        return vec![T::Acc::default(); m * n];
    }
    a.chunks_exact(k).take(m).flat_map(|row| weighted_sum(row, b, n)).collect()
}

/// How two operands of a product meet.
pub(super) struct Pairing {
    /// Rows, inner extent, columns.
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// For each product of the batch the number of the matrix of `a` and of `b`.
    pub(super) pairs: Vec<(usize, usize)>,
    /// Extents of the result.
    pub(super) dims: Vec<usize>,
}

impl Pairing {
    /// By NumPy's rules: leading axes broadcast, a vector counts as a row on the left and as a column on the right.
    pub(super) fn of(ctx: &OpCtx<'_>, a: usize, b: usize) -> Result<Self, OpError> {
        let (a, b) = (ctx.operand(a)?, ctx.operand(b)?);
        let misfit =
            || OpError::Extents { what: "matrix product", left: a.dims().to_vec(), right: b.dims().to_vec() };
        let (batch_a, m, k) = match a.dims() {
            [] => return Err(misfit()),
            [k] => (&[][..], None, *k),
            [batch @ .., m, k] => (batch, Some(*m), *k),
        };
        let (batch_b, kb, n) = match b.dims() {
            [] => return Err(misfit()),
            [k] => (&[][..], *k, None),
            [batch @ .., k, n] => (batch, *k, Some(*n)),
        };
        if k != kb {
            return Err(misfit());
        }
        let batch = broadcast_dims(batch_a, batch_b)?;
        let mut dims = batch.clone();
        dims.extend(m.iter().chain(&n));
        let outputs = ctx.allot(&dims)?;
        ctx.work(outputs as u128 * k as u128)?;
        let products = ctx.allot(&batch)?;
        let number = |own: &[usize]| {
            let all: Vec<usize> = (0..count(own).unwrap_or(0)).collect();
            broadcast_to(&all, own, &batch)
        };
        let pairs: Vec<_> = number(batch_a).into_iter().zip(number(batch_b)).collect();
        debug_assert_eq!(pairs.len(), products);
        Ok(Self { m: m.unwrap_or(1), k, n: n.unwrap_or(1), pairs, dims })
    }

    /// The products of all pairs, one behind the other.
    pub(super) fn products<T: Mac>(&self, a: &[T], b: &[T]) -> Vec<T::Acc> {
        let (size_a, size_b) = (self.m * self.k, self.k * self.n);
        let mut out = Vec::with_capacity(self.pairs.len() * self.m * self.n);
        for &(i, j) in &self.pairs {
            let a = a.get(i * size_a..(i + 1) * size_a).unwrap_or(&[]);
            let b = b.get(j * size_b..(j + 1) * size_b).unwrap_or(&[]);
            out.extend(product(a, b, self.m, self.k, self.n));
        }
        out
    }

    /// The exact sums of codes less their zero points.
    pub(super) fn integer_products(&self, a: Codes, b: Codes) -> Vec<i64> {
        match (a, b) {
            (Codes::Narrow(a), Codes::Narrow(b)) => {
                self.products(&a, &b).into_iter().map(i64::from).collect()
            }
            (a, b) => self.products(&a.wide(), &b.wide()),
        }
    }
}

fn matmul(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let pairing = Pairing::of(ctx, 0, 1)?;
    let elem = ctx.operand(0)?.elem();
    if elem != ctx.operand(1)?.elem() {
        return Err(OpError::Mixed(elem, ctx.operand(1)?.elem()));
    }
    if elem.is_int() {
        let sums =
            pairing.products(&Codes::less(ctx, 0, &[], 1)?.wide(), &Codes::less(ctx, 1, &[], 1)?.wide());
        return Ok(vec![codes_tensor(elem, pairing.dims, &sums)?]);
    }
    let sums = pairing.products(&ctx.floats(0)?, &ctx.floats(1)?);
    ctx.make(elem, pairing.dims, &sums)
}

/// Extents of `a` and `b` of a general product after transposition: rows, inner, columns.
pub(super) fn gemm_extents(ctx: &OpCtx<'_>, a: usize, b: usize) -> Result<(usize, usize, usize), OpError> {
    let (a, b) = (ctx.operand(a)?, ctx.operand(b)?);
    let misfit =
        || OpError::Extents { what: "matrix product", left: a.dims().to_vec(), right: b.dims().to_vec() };
    let (&[a0, a1], &[b0, b1]) = (a.dims(), b.dims()) else { return Err(misfit()) };
    let (m, k) = if ctx.flag("trans_a") { (a1, a0) } else { (a0, a1) };
    let (kb, n) = if ctx.flag("trans_b") { (b1, b0) } else { (b0, b1) };
    if k != kb {
        return Err(misfit());
    }
    let outputs = ctx.allot(&[m, n])?;
    ctx.work(outputs as u128 * k as u128)?;
    Ok((m, k, n))
}

/// A matrix of `rows` by `columns`, transposed.
pub(super) fn transposed<T: Copy>(v: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| (0..rows).filter_map(move |r| v.get(r * columns + c).copied())).collect()
}

/// The operands of a general product, brought to `[m, k]` and `[k, n]`.
pub(super) fn gemm_operands<T: Copy>(
    ctx: &OpCtx<'_>,
    a: Vec<T>,
    b: Vec<T>,
    m: usize,
    k: usize,
    n: usize,
) -> (Vec<T>, Vec<T>) {
    let a = if ctx.flag("trans_a") { transposed(&a, k, m) } else { a };
    let b = if ctx.flag("trans_b") { transposed(&b, n, k) } else { b };
    (a, b)
}

fn gemm(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (m, k, n) = gemm_extents(ctx, 0, 1)?;
    let (a, b) = gemm_operands(ctx, ctx.floats(0)?, ctx.floats(1)?, m, k, n);
    let (alpha, beta) = (f64::from(ctx.float("alpha")?), f64::from(ctx.float("beta")?));
    let mut sums = product(&a, &b, m, k, n);
    sums.iter_mut().for_each(|s| *s *= alpha);
    if let Some(c) = ctx.optional(2) {
        let c = broadcast_checked(&ctx.floats(2)?, c.dims(), &[m, n])?;
        sums.iter_mut().zip(c).for_each(|(s, c)| *s += beta * c);
    }
    ctx.make(ctx.operand(0)?.elem(), [m, n], &sums)
}

/// Broadcasts to extents that must not grow.
pub(super) fn broadcast_checked<T: Copy>(v: &[T], from: &[usize], to: &[usize]) -> Result<Vec<T>, OpError> {
    if broadcast_dims(from, to)? != to {
        return Err(OpError::Extents { what: "broadcast", left: from.to_vec(), right: to.to_vec() });
    }
    Ok(broadcast_to(v, from, to))
}

/// `MatMulInteger`: int32 sums of codes less their zero points. A zero point of `a` may be per row, of `b` per column.
fn matmul_integer(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let pairing = Pairing::of(ctx, 0, 1)?;
    let a = less_zero_points(ctx, 0, 2, true)?;
    let b = less_zero_points(ctx, 1, 3, false)?;
    Ok(vec![codes_tensor(ElemType::I32, pairing.dims.clone(), &pairing.integer_products(a, b))?])
}

/// Codes of an operand less their zero points: one, or a vector over the rows (else columns) of each matrix, or one
/// that broadcasts.
pub(super) fn less_zero_points(
    ctx: &OpCtx<'_>,
    index: usize,
    zero_point: usize,
    rows: bool,
) -> Result<Codes, OpError> {
    let t = ctx.operand(index)?;
    let Some(z) = ctx.optional(zero_point) else { return Codes::less(ctx, index, &[], 1) };
    let values = ctx.integers(zero_point)?;
    if values.len() <= 1 {
        return Codes::less(ctx, index, &values, 1);
    }
    // A vector on the left counts rows: it stands as a column.
    let mut dims = z.dims().to_vec();
    if rows && dims.len() == 1 && t.rank() > 1 {
        dims.push(1);
    }
    Codes::less(ctx, index, &broadcast_checked(&values, &dims, t.dims())?, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_each_kind() {
        let a = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(product(&a, &[5.0, 6.0, 7.0, 8.0], 2, 2, 2), [19.0, 22.0, 43.0, 50.0]);
        assert_eq!(product::<i16>(&[255, -255], &[127, 127], 1, 2, 1), [0]);
        assert_eq!(product::<f64>(&[], &[], 2, 0, 2), [0.0; 4]);
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
    }
}
