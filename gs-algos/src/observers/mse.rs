//! The range with the least quantisation error.
//!
//! Clipping loses the outliers and gains a finer step for everything else; this module tries clip points and
//! measures. The error of a histogram's bin is integrated in closed form with the bin's values taken as
//! spread evenly: taking the centre instead would let the bins beat against the quantisation grid, as there
//! are only a few of them to a step.

use super::{Histogram, ObserverError};
use crate::quant::{Grid, QuantParams, Range};

/// The range for which the mean of `|x - fake_quant(x)|^norm` over the histogram is least. On a symmetric
/// grid one clip level is searched, else both ends in turn.
pub fn mse_range(histogram: &Histogram, grid: Grid, norm: f64) -> Result<Range, ObserverError> {
    let extent = histogram.extent().ok_or(ObserverError::Empty(histogram.seen()))?;
    let bins: Vec<Mass> =
        histogram.bins().filter(|b| b.count > 0).map(|b| Mass::new(b.low, b.high, b.count)).collect();
    Ok(search(extent, grid, |params| {
        let power = Power::new(norm);
        let step = Steps::new(params);
        let sum: f64 = bins.iter().map(|bin| bin.error(step, power)).sum();
        sum * f64::from(params.scale()).powf(norm)
    }))
}

/// The same, measured on the values themselves. They must be finite; see [`super::channel_ranges`].
pub fn mse_range_of_values(values: &[f32], grid: Grid, norm: f64) -> Range {
    let extent = values
        .iter()
        .fold(Range::ZERO, |a, &x| if x.is_finite() { a.union(Range::spanning(x, x)) } else { a });
    search(extent, grid, |params| error_of_values(values, params, norm))
}

/// Sum of `|x - fake_quant(x)|^norm`. The order of summation is fixed.
///
/// Multiplies by the reciprocal of the scale where quantisation divides: that can only move a value that
/// lies between two codes from the one to the other, which are equally far.
fn error_of_values(values: &[f32], params: QuantParams, norm: f64) -> f64 {
    const LANES: usize = 16;
    const BLOCK: usize = 64 * LANES;
    let (low, high) = params.step_bounds();
    let per_unit = 1.0 / params.scale();
    let distance = |x: f32| {
        let u = x * per_unit;
        u - ((u.clamp(low, high) + ROUND_F32) - ROUND_F32)
    };
    let squares = |block: &[f32]| {
        // 64 terms to a lane, so that the sum in single precision is good to 1e-5.
        let (chunks, rest) = block.as_chunks::<LANES>();
        let mut sums = [0.0f32; LANES];
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                let d = distance(x);
                *sum += d * d;
            }
        }
        let tail = rest.iter().map(|&x| f64::from(distance(x)).powi(2)).sum::<f64>();
        sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() + tail
    };
    let steps: f64 = if norm == 2.0 {
        values.chunks(BLOCK).map(squares).sum()
    } else {
        values.iter().map(|&x| f64::from(distance(x).abs()).powf(norm)).sum()
    };
    steps * f64::from(params.scale()).powf(norm)
}

/// The exponent of the error, and what its integral over one step is.
#[derive(Clone, Copy)]
struct Power {
    norm: f64,
    /// Integral of `|d|^norm` over a whole step, `d` from -1/2 to 1/2.
    whole: f64,
}

impl Power {
    fn new(norm: f64) -> Self {
        Power { norm, whole: 2.0 * 0.5f64.powf(norm + 1.0) / (norm + 1.0) }
    }

    fn of(self, distance: f64) -> f64 {
        if self.norm == 2.0 { distance * distance } else { distance.abs().powf(self.norm) }
    }

    /// Integral of `|d|^norm` from 0 to `distance`.
    fn integral(self, distance: f64) -> f64 {
        distance * self.of(distance) / (self.norm + 1.0)
    }
}

/// A grid in units of its step, counted from zero.
#[derive(Clone, Copy)]
struct Steps {
    per_unit: f64,
    low: f64,
    high: f64,
}

/// 1.5 * 2^23, the same for a float.
const ROUND_F32: f32 = 12_582_912.0;
/// 1.5 * 2^52: adding and subtracting it rounds a small double half to even, and vectorises.
const ROUND: f64 = 6_755_399_441_055_744.0;

impl Steps {
    fn new(params: QuantParams) -> Self {
        let (low, high) = params.step_bounds();
        Steps { per_unit: 1.0 / f64::from(params.scale()), low: f64::from(low), high: f64::from(high) }
    }

    #[inline(always)]
    fn nearest(self, u: f64) -> f64 {
        (u.clamp(self.low, self.high) + ROUND) - ROUND
    }

    /// An antiderivative of the error at `u` steps. Beyond the ends the nearest code stays the outermost,
    /// so that one formula serves rounding and clipping alike.
    #[inline(always)]
    fn antiderivative(self, u: f64, power: Power) -> f64 {
        let code = self.nearest(u);
        code * power.whole + power.integral(u - code)
    }
}

/// The values of a bin.
struct Mass {
    low: f64,
    high: f64,
    count: f64,
}

impl Mass {
    fn new(low: f64, high: f64, count: u64) -> Self {
        Mass { low, high, count: count as f64 }
    }

    /// Sum of `|error|^norm` in steps.
    #[inline(always)]
    fn error(&self, steps: Steps, power: Power) -> f64 {
        let (low, high) = (self.low * steps.per_unit, self.high * steps.per_unit);
        let width = high - low;
        // Narrower bins would lose the difference of antiderivatives in rounding.
        if width < 1e-6 {
            return self.count * power.of(high - steps.nearest(high));
        }
        let area = steps.antiderivative(high, power) - steps.antiderivative(low, power);
        self.count * area / width
    }
}

/// Clip points tried between an end and 0.3 of it.
const POINTS: u32 = 70;
const FINENESS: f32 = 100.0;
/// Each further round starts where the last one ended, if it ended at its lowest clip point.
const ROUNDS: u32 = 16;

/// Minimises `error` over clip levels; a smaller range must be strictly better to be taken.
fn search(extent: Range, grid: Grid, mut error: impl FnMut(QuantParams) -> f64) -> Range {
    let whole = extent.union(Range::ZERO);
    if grid.is_dead(whole) {
        return extent;
    }
    let range = if grid.symmetric {
        let clip = best_end(whole.abs_max(), |a| error(grid.params(Range::spanning(-a, a))));
        Range::spanning(-clip, clip)
    } else {
        let (mut low, mut high) = (whole.min(), whole.max());
        for _ in 0..2 {
            high = best_end(whole.max(), |end| error(grid.params(Range::spanning(low, end))));
            low = best_end(whole.min(), |end| error(grid.params(Range::spanning(end, high))));
            if low == whole.min() {
                break; // the upper end was found for just this lower end
            }
        }
        Range::spanning(low, high)
    };
    // An unclipped end is reported as it was observed.
    let range = range.clipped_to(whole);
    if range == whole { extent } else { range }
}

/// The best clip point for an end at `full`.
fn best_end(full: f32, mut error: impl FnMut(f32) -> f64) -> f32 {
    if full == 0.0 {
        return full;
    }
    let (mut best, mut least) = (full, error(full));
    let mut start = full;
    for _ in 0..ROUNDS {
        let mut end = start;
        for i in 1..=POINTS {
            end = start * ((FINENESS - i as f32) / FINENESS);
            let found = error(end);
            if found < least {
                (best, least) = (end, found);
            }
        }
        if best != end {
            break;
        }
        start = end;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::IntRange;

    fn sample(n: u32) -> Vec<f32> {
        // A bell curve by summing uniform values, with some far outliers.
        let mut state = 7u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let mut bell = move || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        (0..n).map(|i| if i % 5000 == 4999 { 30.0 } else { bell() }).collect()
    }

    fn grid(bits: u8, signed: bool, symmetric: bool) -> Grid {
        Grid { int: IntRange::new(bits, signed, false).expect("valid"), symmetric }
    }

    /// The closed form agrees with brute force over many points of a bin.
    #[test]
    fn integrated_error_is_the_mean_error() {
        let params = grid(4, false, false).params(Range::spanning(-1.0, 3.0));
        let steps = Steps::new(params);
        for norm in [1.0, 2.0, 2.4] {
            let power = Power::new(norm);
            for (low, high) in
                [(-5.0, -2.0), (-0.3, -0.29), (-0.01, 0.6), (0.0, 0.13), (2.9, 3.2), (-4.0, 9.0)]
            {
                let n = 200_000;
                let brute = (0..n).map(|i| low + (f64::from(i) + 0.5) / f64::from(n) * (high - low));
                let scale = f64::from(params.scale());
                let brute = brute.map(|x| {
                    let code = (x / scale).clamp(steps.low, steps.high).round_ties_even();
                    (x / scale - code).abs().powf(norm)
                });
                let expected = brute.sum::<f64>() / f64::from(n);
                let found = Mass::new(low, high, 1).error(steps, power);
                assert!(
                    (found - expected).abs() < 1e-4 * expected.max(1e-3),
                    "{norm} {low} {high}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn histogram_and_values_agree() {
        let values = sample(50_000);
        let mut h = Histogram::default();
        h.observe(&values);
        for grid in [grid(4, true, true), grid(8, true, true), grid(4, false, false), grid(8, false, false)] {
            let a = mse_range(&h, grid, 2.0).expect("observed");
            let b = mse_range_of_values(&values, grid, 2.0);
            let (ea, eb) = (
                error_of_values(&values, grid.params(a), 2.0),
                error_of_values(&values, grid.params(b), 2.0),
            );
            assert!(ea <= 1.02 * eb, "{grid:?}: {a:?} costs {ea}, {b:?} costs {eb}");
            let whole = error_of_values(&values, grid.params(h.extent().expect("observed")), 2.0);
            assert!(eb < whole, "{grid:?}: clipping outliers must help");
        }
    }

    #[test]
    fn few_bits_clip_far_and_a_high_norm_less() {
        let values = sample(50_000);
        let g = grid(4, true, true);
        let clip = |norm| mse_range_of_values(&values, g, norm).abs_max();
        assert!(clip(2.0) < 0.3 * 30.0, "beyond the first round: {}", clip(2.0));
        assert!(clip(6.0) > clip(2.0));
    }

    #[test]
    fn nothing_to_clip() {
        // A few evenly used values: any clipping costs more than it gains.
        let values: Vec<f32> = (0..=255).map(|i| i as f32).collect();
        let r = mse_range_of_values(&values, Grid::U8, 2.0);
        assert_eq!((r.min(), r.max()), (0.0, 255.0));
        assert_eq!(mse_range_of_values(&[0.0; 9], Grid::U8, 2.0), Range::ZERO);
        assert_eq!(mse_range_of_values(&[], Grid::U8, 2.0), Range::ZERO);
        assert!(matches!(mse_range(&Histogram::default(), Grid::U8, 2.0), Err(ObserverError::Empty(_))));
    }
}
