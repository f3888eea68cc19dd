//! The range whose quantised histogram diverges least from the histogram itself.
//!
//! After Migacz, "8-bit Inference with TensorRT" (GTC 2017): `P` is the histogram clipped to a window, with
//! what lies outside added to the outermost bins; `Q` is the window without the outliers, merged into as
//! many equal runs as the grid has levels and spread again over the bins in use. The window with the least
//! Kullback-Leibler divergence of `Q` from `P` wins. Exact zeros take no part: they are always exact.

use super::{Histogram, ObserverError};
use crate::quant::{Grid, Range};

/// The range of least divergence for `grid`.
///
/// A symmetric grid is searched on absolute values; a free zero point on the side in use, or on both ends in
/// turn. With fewer bins in use than the grid has levels there is nothing to be gained and the extreme
/// values are returned, so always at 16 bits.
pub fn entropy_range(histogram: &Histogram, grid: Grid) -> Result<Range, ObserverError> {
    let extent = histogram.extent().ok_or(ObserverError::Empty(histogram.seen()))?;
    let width = f64::from(histogram.bin_width());
    let levels = 1usize << (grid.int.bits() - u8::from(grid.symmetric));
    let negative: Vec<u64> = histogram.negative().collect();
    let positive: Vec<u64> = histogram.positive().collect();
    // Distances from zero that the search chose, or none for an end that is not clipped.
    let (low, high) = if grid.symmetric {
        let clip = Profile::new(&fold(&negative, &positive), 0).best_upper(0, levels);
        (clip, clip)
    } else if negative.is_empty() {
        (None, Profile::new(&positive, 0).best_upper(0, levels))
    } else if positive.is_empty() {
        (Profile::new(&negative, 0).best_upper(0, levels), None)
    } else {
        two_sided(&negative, &positive, levels)
    };
    let end = |bins: Option<usize>| bins.map_or(f64::from(f32::MAX), |bins| bins as f64 * width) as f32;
    Ok(Range::spanning(-end(low), end(high)).clipped_to(extent))
}

/// Bins of absolute values.
fn fold(a: &[u64], b: &[u64]) -> Vec<u64> {
    let at = |bins: &[u64], k: usize| bins.get(k).copied().unwrap_or(0);
    (0..a.len().max(b.len())).map(|k| at(a, k).saturating_add(at(b, k))).collect()
}

/// Searches the upper and the lower end in turn, twice.
fn two_sided(negative: &[u64], positive: &[u64], levels: usize) -> (Option<usize>, Option<usize>) {
    let line: Vec<u64> = negative.iter().rev().chain(positive).copied().collect();
    let mirrored: Vec<u64> = line.iter().rev().copied().collect();
    let (upwards, downwards) = (Profile::new(&line, negative.len()), Profile::new(&mirrored, positive.len()));
    let (mut low, mut high) = (None, None);
    for _ in 0..2 {
        let left = negative.len() - low.unwrap_or(negative.len());
        high = upwards.best_upper_beyond(left, negative.len(), levels).map(|end| end - negative.len());
        let right = positive.len() - high.unwrap_or(positive.len());
        low = downwards.best_upper_beyond(right, positive.len(), levels).map(|end| end - positive.len());
    }
    (low, high)
}

/// A row of bins with the running sums which give the divergence of a window in time proportional to the
/// number of levels.
struct Profile {
    /// Number of the first bin above zero.
    zero: usize,
    bins: Vec<f64>,
    /// Sum of the bins before each bin, `[n + 1]`; likewise the others.
    count: Vec<f64>,
    used: Vec<f64>,
    /// Sum of `h ln h`.
    self_term: Vec<f64>,
}

/// Least gain for which more is clipped, if values are plenty.
const MIN_GAIN: f64 = 1e-6;
/// Density of `Q` where it has none but `P` has some.
const EPSILON: f64 = 1e-10;
/// Windows tried between all bins and half of them; every further halving is tried as finely.
const FINENESS: usize = 128;

fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

fn running_sum(terms: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut total = 0.0;
    let sums = terms.map(|term| {
        total += term;
        total
    });
    std::iter::once(0.0).chain(sums).collect()
}

impl Profile {
    fn new(bins: &[u64], zero: usize) -> Self {
        let bins: Vec<f64> = bins.iter().map(|&c| c as f64).collect();
        Profile {
            zero,
            count: running_sum(bins.iter().copied()),
            used: running_sum(bins.iter().map(|&h| f64::from(u8::from(h > 0.0)))),
            self_term: running_sum(bins.iter().map(|&h| x_ln_x(h))),
            bins,
        }
    }

    fn best_upper(&self, from: usize, levels: usize) -> Option<usize> {
        self.best_upper_beyond(from, 0, levels)
    }

    /// The best end, at least `least`, of a window that starts at `from`; none if it is the last bin.
    fn best_upper_beyond(&self, from: usize, least: usize, levels: usize) -> Option<usize> {
        let n = self.bins.len();
        let least = least.max(from + levels);
        let in_use = self.used.last().copied().unwrap_or(0.0);
        if in_use < levels as f64 || least >= n {
            return None;
        }
        // The divergence of two samples from one distribution is about this large, so that a smaller gain
        // says nothing. It keeps tensors with few values, such as logits, from being clipped by accident.
        let noise = 1 * in_use / (2.0 * self.count.last().copied().unwrap_or(1.0));
        let least_gain = noise.max(MIN_GAIN);
        let (mut best, mut divergence) = (n, self.divergence(from, n, levels));
        let mut end = n;
        while end > least {
            end = (end - ((end - from) / FINENESS).max(1)).max(least);
            let found = self.divergence(from, end, levels);
            if found < divergence - least_gain {
                (best, divergence) = (end, found);
            }
        }
        (best < n).then_some(best)
    }

    /// `KL(P || Q)` for the window `start..end` merged into `levels` runs; the window is at least as long.
    fn divergence(&self, start: usize, end: usize, levels: usize) -> f64 {
        let at = |sums: &[f64], i: usize| sums.get(i).copied().unwrap_or(0.0);
        let total = at(&self.count, self.bins.len());
        let (before, after) = (at(&self.count, start), total - at(&self.count, end));
        let inside = total - before - after;
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let (first, last) = (at(&self.bins, start), at(&self.bins, end - 1));
        let self_term = at(&self.self_term, end) - at(&self.self_term, start) - x_ln_x(first) - x_ln_x(last)
            + x_ln_x(first + before)
            + x_ln_x(last + after);
        let mut cross_term = 0.0;
        let mut left = start;
        // Bins that are rounded to the same code: between the midpoints of neighbouring codes, counted
        // from zero, which is always a code.
        let step = (end - start) as f64 / (levels - 1) as f64;
        let codes_below = ((self.zero - start) as f64 / step).round();
        for run in 1..=levels {
            let middle = self.zero as f64 + (run as f64 - 0.5 - codes_below) * step;
            let right = if run == levels { end } else { (middle.round() as usize).clamp(start + 1, end - 1) };
            let right = right.max(left);
            let kept = at(&self.count, right) - at(&self.count, left);
            let mut mass = kept;
            let mut used = at(&self.used, right) - at(&self.used, left);
            if run == 1 {
                mass += before;
                used += f64::from(u8::from(first == 0.0 && before > 0.0));
            }
            if right == end {
                mass += after;
                used += f64::from(u8::from(last == 0.0 && after > 0.0));
            }
            if mass > 0.0 {
                let density = if kept > 0.0 { kept / used } else { EPSILON * inside };
                cross_term += mass * density.ln();
            }
            left = right;
            if right == end {
                break;
            }
        }
        (self_term - cross_term) / total - (total / inside).ln()
    }
}
