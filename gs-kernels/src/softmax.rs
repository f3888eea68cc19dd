//! Softmax over the last axis, float and on codes.

use super::error::{KernelError, check_len};
use super::grid::{Grid, OutGrid};
use super::isa::{Job, Kernels};
use super::quant::round_code;
use super::shape::nonzero;
use super::simd::Simd;

/// Partial sums of a row: fixed, so that every instruction set adds in the same order.
const PARTS: usize = 16;

/// Softmax of each row of `n` elements: `exp(x - max) / sum`. The same bits on every instruction set. Each exponential is
/// within one part in a million.
pub fn softmax(kernels: Kernels, x: &[f32], n: usize, y: &mut [f32]) -> Result<(), KernelError> {
    nonzero("row", n)?;
    check_len("x", x.len() / n * n, x.len())?;
    check_len("y", x.len(), y.len())?;
    kernels.run(Softmax { x, n, y });
    Ok(())
}

struct Softmax<'a> {
    x: &'a [f32],
    n: usize,
    y: &'a mut [f32],
}

impl Job for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, y) in self.x.chunks_exact(self.n).zip(self.y.chunks_exact_mut(self.n)) {
            let max = x.iter().fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max });
            for (y, &x) in y.iter_mut().zip(x) {
                *y = exp(x - max);
            }
            let sum = sum(y);
            for y in y.iter_mut() {
                *y /= sum;
            }
        }
    }
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut parts = [0f32; PARTS];
    let mut chunks = x.chunks_exact(PARTS);
    for chunk in &mut chunks {
        for (part, &v) in parts.iter_mut().zip(chunk) {
            *part += v;
        }
    }
    for (part, &v) in parts.iter_mut().zip(chunks.remainder()) {
        *part += v;
    }
    parts.iter().sum()
}

/// The exponential of a number that is not positive (or NaN): `2^k` times a polynomial in the rest, |rest| <= ln(2) / 2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) as a sum of two floats, the first with few digits, so that k times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN2_HIGH - k * LN2_LOW;
    // The Taylor series of e^r up to r^7; the next term is below 1e-8 of the sum.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127);
    p * f32::from_bits((exponent as u32) << 23)
}

/// Softmax of each row of `n` codes: the real softmax in 64-bit floats, then rounded to the output grid.
pub fn qlinear_softmax(
    x: &[u8],
    x_grid: &Grid,
    n: usize,
    y: &mut [u8],
    out: &OutGrid,
) -> Result<(), KernelError> {
    nonzero("row", n)?;
    x_grid.check()?;
    out.check()?;
    check_len("x", x.len() / n * n, x.len())?;
    check_len("y", x.len(), y.len())?;
    let scale = f64::from(x_grid.scale);
    // exp(scale * -d) for every distance d of two codes.
    let table: [f64; 256] = std::array::from_fn(|d| (-scale * d as f64).exp());
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let max = x.iter().map(|&v| x_grid.code.code(v)).max().unwrap_or(0);
        let term = |v: u8| table[(max - x_grid.code.code(v)) as usize & 255];
        let sum: f64 = x.iter().map(|&v| term(v)).sum();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = round_code((term(x) / sum / f64::from(out.grid.scale)) as f32, out);
        }
    }
    Ok(())
}
