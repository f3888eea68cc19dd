//! Mean and standard deviation from exact sums.
//!
//! Floating-point sums depend on the order of their terms, so shards merged in another order would differ
//! in the last bits. Here the mantissas (24-bit integers) are summed exactly, separately for each of the
//! 256 exponents: twice 4 KiB, and a state which is a function of the set of values.

use super::running::MinMax;
use super::scan::scan;
use super::{Histogram, Observer, ObserverError, Seen};
use crate::quant::{Grid, Range};
use serde::{Deserialize, Serialize};

const EXPONENTS: usize = 256;

/// Exact sums of values and squares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawMoments", into = "RawMoments")]
pub struct Moments {
    k: f64,
    extremes: MinMax,
    /// Sum of the mantissas and of their squares, by exponent.
    sums: Vec<(i128, u128)>,
}

/// Blocks between two foldings: 2^48 (a square) * 2^11 (a block) * 2^4 fits into 64 bits.
const BLOCKS: usize = 16;

/// Sums of a few blocks, in machine words.
struct Partial {
    blocks: usize,
    sums: [(i64, u64); EXPONENTS],
}

impl Partial {
    fn add(&mut self, block: &[f32]) {
        self.blocks += 1;
        for x in block {
            let bits = x.to_bits();
            let exponent = (bits >> 23) as usize % EXPONENTS;
            let mantissa = i64::from(bits & 0x7f_ffff) + (i64::from(exponent != 0) << 23);
            let (sum, squares) = &mut self.sums[exponent];
            *sum += if x.is_sign_negative() { -mantissa } else { mantissa };
            *squares += (mantissa * mantissa) as u64;
        }
    }

    fn fold(&mut self, sums: &mut [(i128, u128)]) {
        self.blocks = 0;
        for (total, part) in sums.iter_mut().zip(&mut self.sums) {
            total.0 = total.0.saturating_add(i128::from(part.0));
            total.1 = total.1.saturating_add(u128::from(part.1));
            *part = (0, 0);
        }
    }
}

impl Moments {
    /// An observer whose range is `mean - k * std` to `mean + k * std`; a `k` that is negative or not finite
    /// counts as 0.
    pub fn new(k: f64) -> Self {
        let k = if k.is_finite() { k.max(0.0) } else { 0.0 };
        Moments { k, extremes: MinMax::default(), sums: vec![(0, 0); EXPONENTS] }
    }

    /// Mean and (population) standard deviation. The relative error of the latter grows with
    /// `(mean / std)^2`, from 1e-16.
    pub fn mean_std(&self) -> Option<(f64, f64)> {
        let count = self.seen().finite;
        (count > 0).then(|| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for (exponent, &(s, q)) in self.sums.iter().enumerate() {
                let unit = f64::powi(2.0, exponent.max(1) as i32 - 150);
                sum += s as f64 * unit;
                squares += q as f64 * unit * unit;
            }
            let mean = sum / count as f64;
            (mean, (squares / count as f64 - mean * mean).max(0.0).sqrt())
        })
    }
}

/// `mean - k std .. mean + k std`, within the extreme values.
fn around(mean: f64, std: f64, k: f64, extent: Range) -> Range {
    let clip = |x: f64| x.clamp(f64::from(extent.min()), f64::from(extent.max())) as f32;
    Range::spanning(clip(mean - k * std), clip(mean + k * std))
}

/// The same from a histogram, with every bin's values taken as spread evenly.
pub(super) fn range_of_histogram(histogram: &Histogram, k: f64) -> Result<Range, ObserverError> {
    let extent = histogram.extent().ok_or(ObserverError::Empty(histogram.seen()))?;
    let count = histogram.seen().finite as f64;
    let mean = histogram.bins().map(|b| b.count as f64 * (b.low + b.high) / 2.0).sum::<f64>() / count;
    let spread = histogram.bins().map(|b| {
        let (low, high) = (b.low - mean, b.high - mean);
        b.count as f64 * (low * low + low * high + high * high) / 3.0
    });
    Ok(around(mean, (spread.sum::<f64>() / count).sqrt(), k, extent))
}

impl Observer for Moments {
    fn observe(&mut self, values: &[f32]) {
        self.extremes.observe(values);
        let mut partial = Partial { blocks: 0, sums: [(0, 0); EXPONENTS] };
        let sums = &mut self.sums;
        scan(values, |block, _| {
            partial.add(block);
            if partial.blocks == BLOCKS {
                partial.fold(sums);
            }
        });
        partial.fold(sums);
    }

    fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        self.extremes.merge(&other.extremes)?;
        for (a, b) in self.sums.iter_mut().zip(&other.sums) {
            *a = (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        }
        Ok(())
    }

    fn range(&self, grid: Grid) -> Result<Range, ObserverError> {
        let extent = self.extremes.range(grid)?;
        let (mean, std) = self.mean_std().ok_or(ObserverError::Empty(self.seen()))?;
        Ok(around(mean, std, self.k, extent))
    }

    fn seen(&self) -> Seen {
        self.extremes.seen()
    }
}

/// The stored form: only exponents that occur; sums as text, since many formats lack 128-bit numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMoments {
    k: f64,
    extremes: MinMax,
    sums: Vec<(u8, String, String)>,
}

impl From<Moments> for RawMoments {
    fn from(m: Moments) -> Self {
        let used = m.sums.iter().enumerate().filter(|(_, sums)| **sums != (0, 0));
        let sums = used.map(|(e, (s, q))| (e as u8, s.to_string(), q.to_string())).collect();
        RawMoments { k: m.k, extremes: m.extremes, sums }
    }
}

impl TryFrom<RawMoments> for Moments {
    type Error = std::num::ParseIntError;
    fn try_from(raw: RawMoments) -> Result<Self, Self::Error> {
        let mut moments = Moments { extremes: raw.extremes, ..Moments::new(raw.k) };
        for (exponent, sum, squares) in raw.sums {
            if let Some(slot) = moments.sums.get_mut(usize::from(exponent)) {
                *slot = (sum.parse()?, squares.parse()?);
            }
        }
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation() {
        let values: Vec<f32> =
            (0..100_000).map(|i| 3.0 + ((i * 7919) % 2001) as f32 / 100.0 - 10.0).collect();
        let mut m = Moments::new(1.0);
        values.chunks(777).for_each(|batch| m.observe(batch));
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let (found_mean, found_std) = m.mean_std().expect("observed");
        assert!((found_mean - mean).abs() < 1e-9 && (found_std - std).abs() < 1e-9);
        let r = m.range(Grid::U8).expect("observed");
        assert!((f64::from(r.max()) - (mean + std)).abs() < 1e-5);
        let mut h = Histogram::default();
        h.observe(&values);
        let estimate = range_of_histogram(&h, 1.0).expect("observed");
        assert!((estimate.max() - r.max()).abs() < 1e-2 && (estimate.min() - r.min()).abs() < 1e-2);
    }

    #[test]
    fn range_ends_at_the_data() {
        let mut m = Moments::new(6.0);
        m.observe(&[0.0, 0.0, 1.0, f32::NAN]);
        let r = m.range(Grid::U8).expect("observed");
        assert_eq!((r.min(), r.max()), (0.0, 1.0));
    }

    #[test]
    fn extreme_exponents() {
        let mut m = Moments::new(1.0);
        m.observe(&[f32::MAX, f32::MIN, 1e-45, -1e-45]);
        assert_eq!(m.mean_std().expect("observed").0, 0.0);
    }
}
