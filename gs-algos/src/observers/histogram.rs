//! A histogram that grows with its data and never depends on the order in which the data came.
//!
//! Bins are `(k w, (k+1) w]` on the positive side, mirrored on the negative one, and a bin of no width for
//! exact zeros, which after a ReLU are most of the values and would drown everything else. The width `w` is
//! always a power of two, so that a value's bin can be computed exactly, and so that two bins of width `w`
//! are exactly one of width `2w`: coarsening is renumbering `k -> k / 2`. Open at the inner end, a bin holds
//! its outer edge, and data whose largest value is a power of two (sigmoid, images in 0..1) fits exactly.
//!
//! The width is the smallest for which the bins between the extreme values number at most [`MAX_BINS`], on
//! both sides together. This is a function of the extremes alone, so the whole state is a function of the
//! set of values: shards may be merged in any order and grouping, with the same result to the last bit.
//! (A histogram which doubles a first guess would depend on that guess.)

use super::scan::{BLOCK, Seen, scan};
use crate::quant::Range;
use serde::{Deserialize, Serialize};

/// Most bins beside the one for zero; at least half as many are in use unless values are denormal. Chosen so
/// that the state stays below 16 KiB.
pub const MAX_BINS: usize = 2032;

/// Exponent of the smallest bin width. Its reciprocal must be a float, too.
const MIN_EXP: i32 = -120;

/// Counts of values in bins of equal, power-of-two width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawHistogram", into = "RawHistogram")]
pub struct Histogram {
    /// Extreme values, if any finite value was seen.
    extent: Option<Range>,
    seen: Seen,
    /// The bins' width is 2^exp.
    exp: i32,
    /// Number of negative bins, which is also the place of the zero bin.
    negative: usize,
    /// Negative bins from the outermost, zeros, positive bins.
    counts: Vec<u64>,
}

/// A bin with its edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bin {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) count: u64,
}

/// How extreme values are divided into bins.
#[derive(Clone, Copy, PartialEq)]
struct Bins {
    exp: i32,
    negative: usize,
    positive: usize,
}

fn power_of_two(exp: i32) -> f32 {
    f32::from_bits(((127 + exp.clamp(-126, 127)) as u32) << 23)
}

/// `ceil(|x| / w)`, the number of the bin that `x` lies in, counted from 1; 0 for zero. Exact: the floor of
/// the next smaller float is taken, and neither step rounds in a way that matters.
#[inline(always)]
fn bin_number(x: f32, reciprocal: f32) -> i32 {
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let nonzero = u32::from(magnitude != 0);
    (f32::from_bits(magnitude - nonzero) * reciprocal) as i32 + nonzero as i32
}

/// The bin number with the sign of `x`.
#[inline(always)]
fn signed_bin_number(x: f32, reciprocal: f32) -> i32 {
    let sign = (x.to_bits() as i32) >> 31;
    (bin_number(x, reciprocal) ^ sign) - sign
}

impl Bins {
    fn of(extent: Range) -> Bins {
        let (low, high) = (extent.min().min(0.0), extent.max().max(0.0));
        // Below this exponent one side alone would have more than 2^11 bins.
        let magnitude = (extent.abs_max().to_bits() >> 23) as i32 - 127;
        let mut exp = (magnitude - 11).max(MIN_EXP);
        loop {
            let reciprocal = power_of_two(-exp);
            let negative = bin_number(low, reciprocal) as usize;
            let positive = bin_number(high, reciprocal) as usize;
            if negative + positive <= MAX_BINS {
                return Bins { exp, negative, positive };
            }
            exp += 1;
        }
    }
}

/// Counters of one call, in several copies so that equal neighbours do not wait for each other.
const COPIES: usize = 4;
const SLOTS: usize = 2048;
const _: () = assert!(MAX_BINS < SLOTS);
type Scratch = [[u32; SLOTS]; COPIES];

/// Calls with fewer values count directly: clearing and adding up the copies would cost more.
const SCRATCH_FROM: usize = 4 * SLOTS;
/// More values than this between two clearings could overflow a counter.
const SCRATCH_UP_TO: usize = 1 << 31;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { extent: None, seen: Seen::default(), exp: MIN_EXP, negative: 0, counts: vec![] }
    }
}

impl Histogram {
    /// Counts `values`; those that are not finite only in [`Histogram::seen`].
    pub fn observe(&mut self, values: &[f32]) {
        if values.len() < SCRATCH_FROM {
            let seen = scan(values, |block, range| {
                self.widen(range);
                let (offset, reciprocal) = (self.negative as i32, power_of_two(-self.exp));
                for &x in block {
                    let slot = offset + signed_bin_number(x, reciprocal);
                    if let Some(count) = self.counts.get_mut(slot as usize) {
                        *count = count.saturating_add(1);
                    }
                }
            });
            self.seen.add(seen);
            return;
        }
        for values in values.chunks(SCRATCH_UP_TO) {
            let mut scratch: Scratch = [[0; SLOTS]; COPIES];
            let seen = scan(values, |block, range| {
                if !self.covers(range) {
                    self.collect(&mut scratch);
                    self.widen(range);
                }
                count_block(block, self.negative as i32, power_of_two(-self.exp), &mut scratch);
            });
            self.collect(&mut scratch);
            self.seen.add(seen);
        }
    }

    /// Adds what another histogram has counted. Order and grouping of merges do not matter.
    pub fn merge(&mut self, other: &Histogram) {
        if let Some(extent) = other.extent {
            self.widen(extent);
            let shift = (self.exp - other.exp).max(0) as u32;
            for (number, count) in other.numbered() {
                self.add(coarsen(number, shift), count);
            }
        }
        self.seen.add(other.seen);
    }

    /// How many values were seen.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Smallest and largest value, if there is any finite one.
    pub fn extent(&self) -> Option<Range> {
        self.extent
    }

    /// How many values are exactly zero.
    pub fn zeros(&self) -> u64 {
        self.counts.get(self.negative).copied().unwrap_or(0)
    }

    /// Width of a bin.
    pub fn bin_width(&self) -> f32 {
        power_of_two(self.exp)
    }

    /// Counts on the negative side, from zero outwards: bin `k` is `[-(k+1) w, -k w)`.
    pub fn negative(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.counts.get(..self.negative).unwrap_or(&[]).iter().rev().copied()
    }

    /// Counts on the positive side, from zero outwards: bin `k` is `(k w, (k+1) w]`.
    pub fn positive(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.counts.get(self.negative + 1..).unwrap_or(&[]).iter().copied()
    }

    /// All bins from the lowest up, with their edges, which never lie beyond the extreme values. Zeros have
    /// a bin of their own without width.
    pub(super) fn bins(&self) -> impl DoubleEndedIterator<Item = Bin> + '_ {
        let (width, zero) = (f64::from(self.bin_width()), self.negative);
        let extent = self.extent.unwrap_or(Range::ZERO);
        let edge = move |k: f64| (k * width).clamp(f64::from(extent.min()), f64::from(extent.max()));
        self.counts.iter().enumerate().map(move |(i, &count)| {
            let number = i as f64 - zero as f64;
            let (inner, outer) = (number - number.signum() * f64::from(u8::from(i != zero)), number);
            Bin { low: edge(inner.min(outer)), high: edge(inner.max(outer)), count }
        })
    }

    /// All bins with their signed number (0 for zeros).
    fn numbered(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        let first = -(self.negative as i64);
        self.counts.iter().enumerate().map(move |(i, &count)| (first + i as i64, count))
    }

    fn add(&mut self, number: i64, count: u64) {
        let slot = usize::try_from(self.negative as i64 + number).ok();
        if let Some(c) = slot.and_then(|slot| self.counts.get_mut(slot)) {
            *c = c.saturating_add(count);
        }
    }

    fn covers(&self, range: Range) -> bool {
        self.extent.is_some_and(|e| e.min() <= range.min() && e.max() >= range.max())
    }

    /// Makes room for values in `range`.
    fn widen(&mut self, range: Range) {
        if self.covers(range) {
            return;
        }
        let extent = self.extent.map_or(range, |e| e.union(range));
        let bins = Bins::of(extent);
        let (len, shift) = (bins.negative + 1 + bins.positive, (bins.exp - self.exp).max(0) as u32);
        let same = shift == 0 && bins.negative == self.negative && len == self.counts.len();
        let old = Histogram { extent: Some(extent), seen: self.seen, ..std::mem::take(self) };
        *self = if same {
            Histogram { extent: Some(extent), ..old }
        } else {
            let mut wide = Histogram {
                extent: Some(extent),
                seen: old.seen,
                exp: bins.exp,
                negative: bins.negative,
                counts: vec![0; len],
            };
            for (number, count) in old.numbered() {
                wide.add(coarsen(number, shift), count);
            }
            wide
        };
    }

    /// Moves the counts of a call into the histogram.
    fn collect(&mut self, scratch: &mut Scratch) {
        for copy in scratch {
            for (count, new) in self.counts.iter_mut().zip(copy) {
                *count = count.saturating_add(u64::from(std::mem::take(new)));
            }
        }
    }
}

/// The number of a bin after its width was doubled `shift` times: `k / 2^shift`, away from zero.
fn coarsen(number: i64, shift: u32) -> i64 {
    let magnitude = number.unsigned_abs();
    let wide = 1u64.checked_shl(shift).map_or(u64::from(magnitude > 0), |n| magnitude.div_ceil(n)) as i64;
    if number < 0 { -wide } else { wide }
}

/// Counts a block of at most [`BLOCK`] values. Slots are computed first, as vectors, and counted then.
fn count_block(block: &[f32], offset: i32, reciprocal: f32, scratch: &mut Scratch) {
    let mut slots = [0u32; BLOCK];
    for (slot, &x) in slots.iter_mut().zip(block) {
        *slot = (offset + signed_bin_number(x, reciprocal)) as u32;
    }
    let slots = slots.get(..block.len()).unwrap_or(&[]);
    let (groups, rest) = slots.as_chunks::<COPIES>();
    for group in groups {
        for (copy, &slot) in scratch.iter_mut().zip(group) {
            copy[slot as usize % SLOTS] += 1;
        }
    }
    for &slot in rest {
        scratch[0][slot as usize % SLOTS] += 1;
    }
}

/// A stored histogram that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// Width and number of bins do not follow from the extreme values.
    #[error("the bins of this histogram do not follow from its extreme values")]
    Bins,
    /// The bins do not add up to the number of finite values.
    #[error("the counts of this histogram add up to {found} and not to {expected}")]
    Counts {
        /// Finite values, according to the state.
        expected: u64,
        /// Sum of the bins.
        found: u128,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHistogram {
    extent: Option<Range>,
    seen: Seen,
    bin_width_log2: i32,
    negative_bins: usize,
    counts: Vec<u64>,
}

impl From<Histogram> for RawHistogram {
    fn from(h: Histogram) -> Self {
        RawHistogram {
            extent: h.extent,
            seen: h.seen,
            bin_width_log2: h.exp,
            negative_bins: h.negative,
            counts: h.counts,
        }
    }
}

impl TryFrom<RawHistogram> for Histogram {
    type Error = HistogramError;

    /// Everything that other functions rely on is checked here, as the file may come from anywhere.
    fn try_from(raw: RawHistogram) -> Result<Self, HistogramError> {
        let (exp, negative, len) = match raw.extent {
            None => (MIN_EXP, 0, 0),
            Some(extent) => {
                let bins = Bins::of(extent);
                (bins.exp, bins.negative, bins.negative + 1 + bins.positive)
            }
        };
        if (raw.bin_width_log2, raw.negative_bins, raw.counts.len()) != (exp, negative, len) {
            return Err(HistogramError::Bins);
        }
        let found: u128 = raw.counts.iter().map(|&c| u128::from(c)).sum();
        if found != u128::from(raw.seen.finite) {
            return Err(HistogramError::Counts { expected: raw.seen.finite, found });
        }
        Ok(Histogram { extent: raw.extent, seen: raw.seen, exp, negative, counts: raw.counts })
    }
}
