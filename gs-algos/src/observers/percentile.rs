//! A range that leaves out a given share of the values at either end.

use super::histogram::Bin;
use super::{Histogram, ObserverError};
use crate::quant::Range;

/// The quantiles at `100 - p` and `p` percent of all finite values, zeros included, interpolated linearly
/// within a bin. `p = 100` gives the extreme values exactly. Mirrored data give the mirrored range.
pub fn percentile_range(histogram: &Histogram, p: f64) -> Result<Range, ObserverError> {
    let extent = histogram.extent().ok_or(ObserverError::Empty(histogram.seen()))?;
    let tail = (1.0 - p.clamp(50.0, 100.0) / 100.0) * histogram.seen().finite as f64;
    let high = walk(histogram.bins().rev(), tail, |bin, t| bin.high + t * (bin.low - bin.high));
    let low = walk(histogram.bins(), tail, |bin, t| bin.low + t * (bin.high - bin.low));
    let (low, high) = (low.unwrap_or(extent.min()), high.unwrap_or(extent.max()));
    Ok(Range::spanning(low, high).clipped_to(extent))
}

/// Walks inwards over the bins until `tail` values are passed; `place` says where a share of a bin ends.
fn walk(bins: impl Iterator<Item = Bin>, tail: f64, place: impl Fn(Bin, f64) -> f64) -> Option<f32> {
    let mut passed = 0.0;
    for bin in bins.filter(|bin| bin.count > 0) {
        let count = bin.count as f64;
        if passed + count >= tail {
            return Some(place(bin, (tail - passed) / count) as f32);
        }
        passed += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = f32>) -> Histogram {
        let mut h = Histogram::default();
        h.observe(&values.into_iter().collect::<Vec<_>>());
        h
    }

    #[test]
    fn quantiles_of_a_uniform_ramp() {
        let h = histogram((-10_000..=30_000).map(|i| i as f32 * 1e-3));
        for p in [90.0, 99.0, 99.9, 99.99] {
            let r = percentile_range(&h, p).expect("observed");
            let cut = (1.0 - p / 100.0) * 40.0;
            let width = f64::from(h.bin_width());
            assert!((f64::from(r.max()) - (30.0 - cut)).abs() < width, "{p}: {r:?}");
            assert!((f64::from(r.min()) - (-10.0 + cut)).abs() < width, "{p}: {r:?}");
        }
        assert_eq!(percentile_range(&h, 100.0).ok(), h.extent());
    }

    #[test]
    fn zeros_count_and_stay_exact() {
        let h = histogram((0..1000).map(|i| if i < 990 { 0.0 } else { 5.0 }));
        let r = percentile_range(&h, 95.0).expect("observed");
        assert_eq!((r.min(), r.max()), (0.0, 0.0));
        assert_eq!(percentile_range(&h, 100.0).expect("observed").max(), 5.0);
    }

    #[test]
    fn mirrored_data_mirror_the_range() {
        let values: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5003) as f32 * 0.37 - 300.0).collect();
        let a = percentile_range(&histogram(values.clone()), 99.0).expect("observed");
        let b = percentile_range(&histogram(values.iter().map(|x| -x)), 99.0).expect("observed");
        assert_eq!((a.min(), a.max()), (-b.max(), -b.min()));
    }

    #[test]
    fn a_constant_and_nothing() {
        let r = percentile_range(&histogram([2.5; 100]), 99.99).expect("observed");
        assert_eq!(r.max(), 2.5);
        assert!(matches!(percentile_range(&Histogram::default(), 99.0), Err(ObserverError::Empty(_))));
    }
}
