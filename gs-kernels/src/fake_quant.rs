//! Rounding to a grid and back, as quantisers in training do it, and the derivative that goes straight through (Jacob et
//! al. 2018). The results are those of the reference evaluator, bit for bit: quotients are divided, not multiplied by 1 / scale.

use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::map::{map, zip};
use super::shape::nonzero;
use super::simd::Simd;

/// 1.5 * 2^23: what is below 2^22 loses its fraction, half to even, when this is added and taken off again.
pub(super) const ROUND: f32 = 12_582_912.0;

/// A grid as kernels use it: codes less the zero point, as floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FakeQuant {
    /// Size of a step; positive and finite.
    pub scale: f32,
    /// The smallest code less the zero point.
    pub low: f32,
    /// The largest.
    pub high: f32,
    /// The number of the smallest code: below it no gradient passes.
    pub min: f32,
    /// The number of the largest.
    pub max: f32,
}

impl FakeQuant {
    /// Floats of [`Self::to_floats`].
    pub const LEN: usize = 5;
    /// The most bits for which floats do what the evaluator's integers do.
    pub const MAX_BITS: u32 = 21;

    /// The grid of a step, of the smallest and the largest code, of at most [`Self::MAX_BITS`] bits, and of the code of zero.
    pub fn new(scale: f32, codes: (i64, i64), zero_point: i64) -> Self {
        let [low, high] = [codes.0, codes.1].map(|code| (code - zero_point) as f32);
        Self { scale, low, high, min: low * scale, max: high * scale }
    }

    /// As a row of numbers.
    pub fn to_floats(self) -> [f32; Self::LEN] {
        [self.scale, self.low, self.high, self.min, self.max]
    }

    /// From a row of numbers, if there are enough.
    pub fn from_floats(v: &[f32]) -> Option<Self> {
        match v {
            &[scale, low, high, min, max] => Some(Self { scale, low, high, min, max }),
            _ => None,
        }
    }

    /// The nearest number of the grid; NaN gives 0.
    #[inline(always)]
    pub(super) fn round(self, x: f32) -> f32 {
        let q = x / self.scale;
        let q = if q.is_nan() { 0.0 } else { q };
        let q = if q > self.low { q } else { self.low };
        let q = if q < self.high { q } else { self.high };
        // Never -0, as the evaluator's codes are integers.
        ((q + ROUND) - ROUND) * self.scale
    }

    /// Whether a gradient passes at `x`.
    #[inline(always)]
    pub(super) fn passes(self, x: f32) -> bool {
        (x >= self.min) & (x <= self.max)
    }
}

/// `y = round(x)` on the grid.
///
/// # Errors
/// Lengths that differ.
pub fn fake_quant(kernels: Kernels, grid: FakeQuant, x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    map(kernels, x, y, |x| grid.round(x))
}

/// `dx = dy` where the grid covers `x`, else 0.
///
/// # Errors
/// Lengths that differ.
pub fn fake_quant_grad(
    kernels: Kernels,
    grid: FakeQuant,
    dy: &[f32],
    x: &[f32],
    dx: &mut [f32],
) -> Result<(), KernelError> {
    zip(kernels, dy, x, dx, |dy, x| if grid.passes(x) { dy } else { 0.0 })
}

/// Grids of channels that lie close together, each repeated for its `plane` elements: one row of a tensor.
pub struct GridRow {
    grids: Vec<FakeQuant>,
}

impl GridRow {
    /// Planes from which on each is better rounded by itself.
    pub const PLANE: usize = 64;

    /// Of the grids of channels, as rows of numbers.
    pub fn new(grids: &[f32], plane: usize) -> Self {
        let each = grids.chunks_exact(FakeQuant::LEN).filter_map(FakeQuant::from_floats);
        Self { grids: each.flat_map(|grid| std::iter::repeat_n(grid, plane)).collect() }
    }

    fn check(&self, x: &[f32]) -> Result<usize, KernelError> {
        let n = nonzero("grids", self.grids.len()).map(|()| self.grids.len())?;
        check_len("x", x.len() / n * n, x.len()).map(|()| n)
    }
}

/// [`fake_quant`] of a tensor, row by row.
///
/// # Errors
/// Lengths that differ, or rows that are not whole.
pub fn fake_quant_rows(kernels: Kernels, row: &GridRow, x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    check_len("y", x.len(), y.len())?;
    row.check(x)?;
    kernels.run(Rows { grids: &row.grids, a: x, b: x, y, f: |grid: FakeQuant, x, _| grid.round(x) });
    Ok(())
}

/// [`fake_quant_grad`] of a tensor, row by row.
///
/// # Errors
/// Lengths that differ, or rows that are not whole.
pub fn fake_quant_grad_rows(
    kernels: Kernels,
    row: &GridRow,
    dy: &[f32],
    x: &[f32],
    dx: &mut [f32],
) -> Result<(), KernelError> {
    check_len("dy", x.len(), dy.len())?;
    check_len("dx", x.len(), dx.len())?;
    row.check(x)?;
    let f = |grid: FakeQuant, dy: f32, x: f32| if grid.passes(x) { dy } else { 0.0 };
    kernels.run(Rows { grids: &row.grids, a: dy, b: x, y: dx, f });
    Ok(())
}

struct Rows<'a, F> {
    grids: &'a [FakeQuant],
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
    f: F,
}

impl<F: Fn(FakeQuant, f32, f32) -> f32> Job for Rows<'_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let n = self.grids.len();
        let operands = self.a.chunks_exact(n).zip(self.b.chunks_exact(n));
        for (y, (a, b)) in self.y.chunks_exact_mut(n).zip(operands) {
            for (((y, &a), &b), &grid) in y.iter_mut().zip(a).zip(b).zip(self.grids) {
                *y = (self.f)(grid, a, b);
            }
        }
    }
}

/// The lowest and the highest element; of nothing, the infinities. NaN is passed over.
pub fn range_of(kernels: Kernels, x: &[f32]) -> [f32; 2] {
    kernels.run(RangeOf { x })
}

/// Takes another range into `range`.
pub fn widen(range: &mut [f32; 2], [low, high]: [f32; 2]) {
    range[0] = if low < range[0] { low } else { range[0] };
    range[1] = if high > range[1] { high } else { range[1] };
}

/// The least and the greatest elements so far, in lanes.
#[derive(Clone, Copy)]
pub(super) struct Extremes {
    low: [f32; LANES],
    high: [f32; LANES],
}

const LANES: usize = 32;

impl Extremes {
    pub(super) const NONE: Extremes =
        Extremes { low: [f32::INFINITY; LANES], high: [f32::NEG_INFINITY; LANES] };

    #[inline(always)]
    pub(super) fn take(&mut self, x: &[f32]) {
        let (mut low, mut high) = (self.low, self.high);
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for i in 0..LANES {
                low[i] = if x[i] < low[i] { x[i] } else { low[i] };
                high[i] = if x[i] > high[i] { x[i] } else { high[i] };
            }
        }
        for (i, &x) in rest.iter().enumerate() {
            low[i] = if x < low[i] { x } else { low[i] };
            high[i] = if x > high[i] { x } else { high[i] };
        }
        (self.low, self.high) = (low, high);
    }

    /// The lowest and the highest; zeros have one sign, whatever their order was.
    pub(super) fn range(&self) -> [f32; 2] {
        let mut range = [f32::INFINITY, f32::NEG_INFINITY];
        self.low.iter().zip(&self.high).for_each(|(&low, &high)| widen(&mut range, [low, high]));
        range.map(|v| v + 0.0)
    }
}

struct RangeOf<'a> {
    x: &'a [f32],
}

impl Job for RangeOf<'_> {
    type Out = [f32; 2];

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> [f32; 2] {
        let mut seen = Extremes::NONE;
        seen.take(self.x);
        seen.range()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gs_eval::quant::{CodeKind, Grid};

    fn kernel_grid(grid: &Grid) -> FakeQuant {
        FakeQuant::new(grid.scale, (grid.codes.low, grid.codes.high), grid.codes.zero_point)
    }

    /// All kinds of ranges and grids, numbers on, between and beyond the steps, and what is no number.
    #[test]
    fn rounding_is_that_of_the_evaluator() {
        let ranges = [
            (-1.0, 3.0),
            (0.0, 6.0),
            (-0.1, 0.3),
            (0.0, 0.0),
            (f32::NAN, 1.0),
            (-5e-39, 1e-38),
            (-1e30, 2e37),
        ];
        let mut seen = 0;
        for (min, max) in ranges {
            for bits in [1, 2, 4, 8, 16, 21] {
                for flags in 0..8 {
                    let [signed, symmetric, narrow] = [flags & 1, flags & 2, flags & 4].map(|f| f != 0);
                    let grid = Grid::cover(min, max, CodeKind { bits, signed, symmetric, narrow });
                    let fast = kernel_grid(&grid);
                    let mut x: Vec<f32> = (-700..700).map(|i| i as f32 * 0.37 * grid.scale).collect();
                    x.extend((-40..40).map(|i| i as f32 * 0.5 * grid.scale));
                    x.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, f32::MIN, 1e-42]);
                    let want: Vec<u32> = x.iter().map(|&x| grid.real(grid.code(x)).to_bits()).collect();
                    let (low, high) = grid.nudged();
                    for kernels in Kernels::all() {
                        let mut y = vec![0.0; x.len()];
                        fake_quant(kernels, fast, &x, &mut y).unwrap();
                        for ((x, y), want) in x.iter().zip(&y).zip(&want) {
                            assert_eq!(y.to_bits(), *want, "{x:e} on {grid:?}, {}", kernels.isa().name());
                        }
                        fake_quant_grad(kernels, fast, &vec![7.0; x.len()], &x, &mut y).unwrap();
                        for (&x, &y) in x.iter().zip(&y) {
                            assert_eq!(y == 7.0, x >= low && x <= high);
                            seen += usize::from(y == 7.0);
                        }
                    }
                }
            }
        }
        assert!(seen > 10_000);
    }

    /// Channels on the last axis and planes of a few elements, against each plane by itself.
    #[test]
    fn rows_are_rounded_as_planes_are() {
        let kind = CodeKind { bits: 4, signed: true, symmetric: true, narrow: false };
        for (count, plane, rows) in [(1, 1, 5), (7, 1, 9), (33, 1, 3), (5, 3, 4)] {
            let all: Vec<f32> = (0..count)
                .flat_map(|c| kernel_grid(&Grid::cover(-1.0 - c as f32, 0.5, kind)).to_floats())
                .collect();
            let n = count * plane * rows;
            let x: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 * 0.5 - 25.0).collect();
            let dy: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
            let row = GridRow::new(&all, plane);
            for kernels in Kernels::all() {
                let (mut y, mut dx, mut want) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                let mut want_dx = vec![0.0; n];
                fake_quant_rows(kernels, &row, &x, &mut y).unwrap();
                fake_quant_grad_rows(kernels, &row, &dy, &x, &mut dx).unwrap();
                for i in 0..n / plane {
                    let c = i % count;
                    let grid = FakeQuant::from_floats(&all[c * FakeQuant::LEN..][..FakeQuant::LEN]).unwrap();
                    let at = i * plane..(i + 1) * plane;
                    fake_quant(kernels, grid, &x[at.clone()], &mut want[at.clone()]).unwrap();
                    fake_quant_grad(kernels, grid, &dy[at.clone()], &x[at.clone()], &mut want_dx[at])
                        .unwrap();
                }
                assert_eq!((y, dx), (want, want_dx));
                assert!(
                    fake_quant_rows(kernels, &row, &x[1..], &mut vec![0.0; n - 1]).is_err()
                        || count * plane == 1
                );
            }
        }
    }

    #[test]
    fn ranges_pass_over_what_is_no_number() {
        for kernels in Kernels::all() {
            assert_eq!(range_of(kernels, &[]), [f32::INFINITY, f32::NEG_INFINITY]);
            for n in [1, 31, 32, 33, 100] {
                let mut x: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
                let least = x.iter().copied().fold(f32::INFINITY, f32::min);
                let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                x.insert(n / 2, f32::NAN);
                assert_eq!(range_of(kernels, &x), [least, most]);
            }
        }
    }
}
