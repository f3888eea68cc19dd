//! The first look at a block of values: extremes, and whether all of it is finite.

use crate::quant::Range;
use serde::{Deserialize, Serialize};

/// How many values an observer has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Finite values; only these count for a range.
    pub finite: u64,
    /// NaNs.
    pub nan: u64,
    /// Infinities of either sign.
    pub infinite: u64,
}

impl Seen {
    /// Adds the counts of another observer.
    pub(super) fn add(&mut self, other: Seen) {
        self.finite = self.finite.saturating_add(other.finite);
        self.nan = self.nan.saturating_add(other.nan);
        self.infinite = self.infinite.saturating_add(other.infinite);
    }

    /// Values that were ignored. Worth a remark if there are any.
    pub fn ignored(self) -> u64 {
        self.nan.saturating_add(self.infinite)
    }
}

/// Values per block: small enough to stay in the first-level cache between two passes.
pub(super) const BLOCK: usize = 2048;

const LANES: usize = 32;

/// Extremes of a block (`inf`, `-inf` if it is empty) and how many of its values are not finite. If there
/// are any, the extremes are meaningless.
fn extremes(block: &[f32]) -> (f32, f32, u32) {
    let mut min = [f32::INFINITY; LANES];
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut bad = [0u32; LANES];
    let (runs, rest) = block.as_chunks::<LANES>();
    for run in runs {
        for lane in 0..LANES {
            let x = run[lane];
            // Written out, since `f32::min` treats NaN in a way that costs two more instructions.
            min[lane] = if x < min[lane] { x } else { min[lane] };
            max[lane] = if x > max[lane] { x } else { max[lane] };
            bad[lane] += u32::from(!is_finite(x));
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        min[lane] = if x < min[lane] { x } else { min[lane] };
        max[lane] = if x > max[lane] { x } else { max[lane] };
        bad[lane] += u32::from(!is_finite(x));
    }
    let low = min.iter().fold(f32::INFINITY, |a, &b| a.min(b));
    let high = max.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    (low, high, bad.iter().sum())
}

#[inline(always)]
fn is_finite(x: f32) -> bool {
    x.abs() <= f32::MAX
}

/// Goes through `values` in blocks, drops what is not finite, and calls `each` with every block that has
/// values left and with its range. Returns the counts.
pub(super) fn scan(values: &[f32], mut each: impl FnMut(&[f32], Range)) -> Seen {
    let mut seen = Seen::default();
    for block in values.chunks(BLOCK) {
        let (min, max, bad) = extremes(block);
        if bad == 0 {
            seen.finite += block.len() as u64;
            each(block, Range::spanning(min, max));
            continue;
        }
        let finite: Vec<f32> = block.iter().copied().filter(|x| x.is_finite()).collect();
        seen.finite += finite.len() as u64;
        let nan = block.iter().filter(|x| x.is_nan()).count();
        seen.nan += nan as u64;
        seen.infinite += (block.len() - finite.len() - nan) as u64;
        if !finite.is_empty() {
            let (min, max, _) = extremes(&finite);
            each(&finite, Range::spanning(min, max));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_position_is_looked_at() {
        for len in [1, 2, 31, 32, 33, 100, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            for at in [0, len / 2, len - 1] {
                let mut values = vec![0.5f32; len];
                values[at] = -7.0;
                values[len - 1 - at] += 9.0;
                let mut range: Option<Range> = None;
                let seen = scan(&values, |_, r| range = Some(range.map_or(r, |a| a.union(r))));
                let (min, max) = values.iter().fold((9f32, -9f32), |(a, b), &x| (a.min(x), b.max(x)));
                assert_eq!(range, Range::new(min, max).ok(), "length {len}, position {at}");
                assert_eq!(seen, Seen { finite: len as u64, nan: 0, infinite: 0 });
                values[at] = if at % 2 == 0 { f32::NAN } else { f32::NEG_INFINITY };
                let seen =
                    scan(&values, |block, r| assert!(block.iter().all(|&x| x >= r.min() && x <= r.max())));
                assert_eq!((seen.finite, seen.ignored()), (len as u64 - 1, 1));
            }
        }
        assert_eq!(scan(&[], |_, _| unreachable!("nothing to see")), Seen::default());
    }
}
