//! Derivatives of quantisers whose step or clip is trained (LSQ, Esser et al. 2020; PACT, Choi et al. 2018): the gradient goes
//! through as it does through a gate, and what it leaves for the parameter is summed in the same pass.

use super::error::{KernelError, check_len};
use super::fake_quant::{FakeQuant, ROUND};
use super::isa::{Job, Kernels};
use super::simd::Simd;

/// Partial sums of a pass: fixed, so that every instruction set adds in the same order.
const LANES: usize = 32;

/// A quantiser with a trained parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// A step.
    Lsq,
    /// A clip, in the grid's `min` and `max`; `signed` where it clips below 0 as well.
    Pact {
        /// Whether the clip holds on both sides.
        signed: bool,
    },
}

impl Learned {
    /// The part of `dy` that goes on at `x`, and what the parameter is given.
    #[inline(always)]
    fn at(self, grid: FakeQuant, dy: f32, x: f32) -> (f32, f32) {
        match self {
            Learned::Lsq => {
                let q = x / grid.scale;
                let r = if q >= grid.high { grid.high } else { (q + ROUND) - ROUND - q };
                let r = if q <= grid.low { grid.low } else { r };
                (if (q >= grid.low) & (q <= grid.high) { dy } else { 0.0 }, dy * r)
            }
            Learned::Pact { signed } => {
                let above = if x >= grid.max { dy } else { 0.0 };
                let below = if signed & (x <= grid.min) { dy } else { 0.0 };
                let inside = (x < grid.max) & if signed { x > grid.min } else { x >= 0.0 };
                (if inside { dy } else { 0.0 }, above - below)
            }
        }
    }
}

/// `dx` from `dy` (and `more`, if given, added) through a quantiser, and through a relu before it if `relu`; without `dy` it lies
/// in `dx`. Returns what the quantiser's parameter is given.
///
/// # Errors
/// Lengths that do not fit each other.
pub fn learned_grad(
    kernels: Kernels,
    (learned, grid, relu): (Learned, FakeQuant, bool),
    dy: Option<&[f32]>,
    more: Option<&[f32]>,
    x: &[f32],
    dx: &mut [f32],
) -> Result<f64, KernelError> {
    for v in [dy, more, Some(x)].into_iter().flatten() {
        check_len("dy", dx.len(), v.len())?;
    }
    Ok(match learned {
        Learned::Lsq => {
            kernels.run(Through { f: |dy, x| Learned::Lsq.at(grid, dy, x), relu, dy, more, x, dx })
        }
        Learned::Pact { signed: true } => {
            let f = |dy, x| Learned::Pact { signed: true }.at(grid, dy, x);
            kernels.run(Through { f, relu, dy, more, x, dx })
        }
        Learned::Pact { signed: false } => {
            let f = |dy, x| Learned::Pact { signed: false }.at(grid, dy, x);
            kernels.run(Through { f, relu, dy, more, x, dx })
        }
    })
}

struct Through<'a, F> {
    f: F,
    relu: bool,
    dy: Option<&'a [f32]>,
    more: Option<&'a [f32]>,
    x: &'a [f32],
    dx: &'a mut [f32],
}

impl<F: Fn(f32, f32) -> (f32, f32) + Copy> Job for Through<'_, F> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let above = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let mut sums = [0f32; LANES];
        let mut total = 0.0;
        // Sums of some thousands of elements are short enough for f32.
        for (block, x) in self.x.chunks(LANES * 128).enumerate() {
            let (start, n) = (block * LANES * 128, x.len());
            let dx = &mut self.dx[start..start + n];
            if let Some(dy) = self.dy {
                dx.copy_from_slice(&dy[start..start + n]);
            }
            if let Some(more) = self.more {
                let more = &more[start..start + n];
                for i in 0..n {
                    dx[i] += more[i];
                }
            }
            let (whole, rest) = dx.as_chunks_mut::<LANES>();
            let (whole_x, rest_x) = x.as_chunks::<LANES>();
            for (dx, x) in whole.iter_mut().zip(whole_x) {
                for i in 0..LANES {
                    let (through, given) = (self.f)(dx[i], x[i]);
                    sums[i] += given;
                    dx[i] = if x[i] > above { through } else { 0.0 };
                }
            }
            for (i, (dx, &x)) in rest.iter_mut().zip(rest_x).enumerate() {
                let (through, given) = (self.f)(*dx, x);
                sums[i] += given;
                *dx = if x > above { through } else { 0.0 };
            }
            total += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
            sums = [0.0; LANES];
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definitions, in f64, at numbers on, between and beyond the codes.
    #[test]
    fn parameters_are_given_what_the_definitions_say() {
        let x: Vec<f32> = (-450..500).map(|i| i as f32 * 0.0125).collect();
        let dy: Vec<f32> = (0..x.len()).map(|i| ((i * 37 % 23) as f32 - 11.0) * 0.125).collect();
        let more: Vec<f32> = (0..x.len()).map(|i| ((i * 5 % 7) as f32 - 3.0) * 0.25).collect();
        let step = 0.25f32;
        for (learned, low, high) in [
            (Learned::Lsq, -8.0, 7.0),
            (Learned::Lsq, 0.0, 15.0),
            (Learned::Pact { signed: false }, 0.0, 15.0),
            (Learned::Pact { signed: true }, -7.0, 7.0),
        ] {
            let grid = FakeQuant { scale: step, low, high, min: low * step, max: high * step };
            for (kernels, relu, both) in Kernels::all()
                .into_iter()
                .flat_map(|k| [(k, false, false), (k, true, false), (k, true, true)])
            {
                let mut dx = vec![0.0; x.len()];
                let more = both.then_some(&more[..]);
                let sum = learned_grad(kernels, (learned, grid, relu), Some(&dy), more, &x, &mut dx).unwrap();
                let mut own = dy.clone();
                let again = learned_grad(kernels, (learned, grid, relu), None, more, &x, &mut own).unwrap();
                assert_eq!((sum, &dx), (again, &own));
                let mut want = 0.0;
                for (i, &got) in dx.iter().enumerate() {
                    let d = f64::from(dy[i]) + more.map_or(0.0, |m| f64::from(m[i]));
                    let (q, x) = (f64::from(x[i] / step), f64::from(x[i]));
                    let (low, high) = (f64::from(low), f64::from(high));
                    let (given, inside) = match learned {
                        Learned::Lsq if q <= low => (low, q == low),
                        Learned::Lsq if q >= high => (high, q == high),
                        Learned::Lsq => (q.round_ties_even() - q, true),
                        Learned::Pact { .. } if q >= high => (1.0, false),
                        Learned::Pact { signed: true } if q <= low => (-1.0, false),
                        Learned::Pact { .. } => (0.0, q >= low),
                    };
                    want += d * given;
                    let open = inside && (!relu || x > 0.0);
                    assert_eq!(f64::from(got), if open { d } else { 0.0 }, "{learned:?} at {x}");
                }
                assert!((sum - want).abs() < 1e-3, "{learned:?}: {sum} for {want}");
            }
        }
    }
}
