//! Uniform quantisation arithmetic on plain `f32` slices: integer ranges, grids, scale and zero point,
//! codes and fake quantisation.
//!
//! Everything that turns a float range into integers goes through this module, so that training,
//! freezing and deployment agree bit for bit. Three conventions matter and are easy to get wrong:
//!
//! * the scale is computed in `f64` and rounded once to `f32`; the zero point is then computed from that
//!   `f32` scale, because it is the one which is stored and deployed;
//! * codes come from a *division* by the scale (not a product with its reciprocal) and rounding is half to
//!   even, as in the ONNX operator `QuantizeLinear`;
//! * a range always includes zero, so that padding and ReLU stay exact.

mod bias;
mod channels;
#[cfg(test)]
mod tests;

pub(crate) use bias::reach;
pub use bias::{Bias, BiasChange, BiasChangeReason, Fitted, accumulator_bound, fit_biases};
pub use channels::{ChannelLayout, ChannelParams};

use serde::{Deserialize, Serialize};

/// What is wrong with a quantisation request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    /// The bit width is outside `2..=16`.
    #[error("{bits} bits are not supported by a uniform grid, which has 2 to 16")]
    Bits {
        /// The width asked for.
        bits: u8,
    },
    /// A range with NaN, infinity, or its ends swapped.
    #[error("[{min}, {max}] is not a finite range")]
    BadRange {
        /// Lower end as given.
        min: f32,
        /// Upper end as given.
        max: f32,
    },
    /// A scale that is not positive and finite.
    #[error("{scale} is not a usable scale: it has to be positive and finite")]
    BadScale {
        /// The scale as given.
        scale: f32,
    },
    /// A zero point which is no code of its integer range.
    #[error("zero point {zero_point} is outside of the codes {qmin}..={qmax}")]
    BadZeroPoint {
        /// The zero point as given.
        zero_point: i32,
        /// Lowest code.
        qmin: i32,
        /// Highest code.
        qmax: i32,
    },
    /// The axis does not exist in the shape.
    #[error("axis {axis} does not exist in a tensor of rank {rank}")]
    BadAxis {
        /// Axis as given.
        axis: usize,
        /// Number of dimensions.
        rank: usize,
    },
    /// Two lengths that should agree do not.
    #[error("{what}: expected {expected} elements, found {found}")]
    Length {
        /// What was counted.
        what: &'static str,
        /// The length that the other arguments imply.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// A value that has to be finite is not.
    #[error("{what} {index} is {value}")]
    NonFinite {
        /// What the value is.
        what: &'static str,
        /// Its index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The sum of products alone can leave the 32-bit accumulator.
    #[error("an accumulator can reach {bound}, which leaves no room for a bias in 32 bits")]
    AccumulatorOverflow {
        /// Largest absolute value of the sum of products.
        bound: u64,
    },
}

/// A set of integer codes: `qmin..=qmax`.
///
/// | | `qmin` | `qmax` |
/// |---|---|---|
/// | signed | `-2^(b-1)` | `2^(b-1) - 1` |
/// | signed, narrow | `-2^(b-1) + 1` | `2^(b-1) - 1` |
/// | unsigned | `0` | `2^b - 1` |
/// | unsigned, narrow | `1` | `2^b - 1` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawIntRange", into = "RawIntRange")]
pub struct IntRange {
    bits: u8,
    signed: bool,
    narrow: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIntRange {
    bits: u8,
    signed: bool,
    #[serde(default)]
    narrow: bool,
}

impl TryFrom<RawIntRange> for IntRange {
    type Error = QuantError;
    fn try_from(raw: RawIntRange) -> Result<Self, QuantError> {
        IntRange::new(raw.bits, raw.signed, raw.narrow)
    }
}

impl From<IntRange> for RawIntRange {
    fn from(int: IntRange) -> Self {
        RawIntRange { bits: int.bits, signed: int.signed, narrow: int.narrow }
    }
}

impl IntRange {
    /// Unsigned 8 bit, `0..=255`.
    pub const U8: IntRange = IntRange { bits: 8, signed: false, narrow: false };
    /// Signed 8 bit, `-128..=127`.
    pub const S8: IntRange = IntRange { bits: 8, signed: true, narrow: false };
    /// Signed 8 bit without -128, the default for weights.
    pub const S8_NARROW: IntRange = IntRange { bits: 8, signed: true, narrow: true };

    /// The codes of `bits` bits, 2 to 16. (One-bit codebooks have no zero and are no uniform grid.)
    pub fn new(bits: u8, signed: bool, narrow: bool) -> Result<Self, QuantError> {
        if (2..=16).contains(&bits) {
            Ok(IntRange { bits, signed, narrow })
        } else {
            Err(QuantError::Bits { bits })
        }
    }

    /// The codes from `low` to `high`, if they are those of some width.
    pub fn of_codes(low: i64, high: i64) -> Option<Self> {
        let all = (2..=16).flat_map(|bits| [(bits, false), (bits, true)]);
        let mut all =
            all.flat_map(|(bits, signed)| [false, true].map(|narrow| Self { bits, signed, narrow }));
        all.find(|c| (i64::from(c.qmin()), i64::from(c.qmax())) == (low, high))
    }

    /// Width in bits.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether codes are two's complement.
    pub const fn signed(self) -> bool {
        self.signed
    }

    /// Whether the lowest code is left out.
    pub const fn narrow(self) -> bool {
        self.narrow
    }

    /// Lowest code.
    pub const fn qmin(self) -> i32 {
        let lowest = if self.signed { -(1 << (self.bits - 1)) } else { 0 };
        lowest + self.narrow as i32
    }

    /// Highest code.
    pub const fn qmax(self) -> i32 {
        (1 << (self.bits - self.signed as u8)) - 1
    }

    /// The zero point of a symmetric grid: 0 for signed codes, `2^(b-1)` for unsigned storage.
    pub const fn symmetric_zero_point(self) -> i32 {
        if self.signed { 0 } else { 1 << (self.bits - 1) }
    }
}

/// An integer range together with the rule for the zero point: what a tensor is to be quantised to,
/// before its range is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The codes.
    pub int: IntRange,
    /// Whether the zero point is fixed at [`IntRange::symmetric_zero_point`].
    pub symmetric: bool,
}

impl Grid {
    /// Unsigned 8 bit with a free zero point, the usual choice for activations.
    pub const U8: Grid = Grid { int: IntRange::U8, symmetric: false };
    /// Signed 8 bit with a free zero point.
    pub const S8: Grid = Grid { int: IntRange::S8, symmetric: false };
    /// Signed 8 bit, symmetric, without -128: the usual choice for weights.
    pub const S8_WEIGHT: Grid = Grid { int: IntRange::S8_NARROW, symmetric: true };

    /// Smallest scale that is kept: a tensor that needs a finer one counts as dead (all zero).
    const DEAD_BELOW: f32 = f32::from_bits((127 - 100) << 23);

    /// The scale for `range`, or nothing if the tensor is dead.
    fn live_scale(self, range: Range) -> Option<f32> {
        let steps = f64::from(self.int.qmax() - self.int.qmin());
        let extent = if self.symmetric {
            2.0 * f64::from(range.abs_max())
        } else {
            f64::from(range.max.max(0.0)) - f64::from(range.min.min(0.0))
        };
        let scale = (extent / steps) as f32;
        (scale >= Self::DEAD_BELOW).then_some(scale)
    }

    /// Whether `range` is zero, or so small that its scale is below 2^-100. Such a tensor or channel gets
    /// scale 1.
    pub fn is_dead(self, range: Range) -> bool {
        self.live_scale(range).is_none()
    }

    /// Scale and zero point for a range, which is first widened to include zero.
    ///
    /// The symmetric scale is `2a / (qmax - qmin)`: `a / 127.5` on the full 8-bit range, where `+a` is
    /// clipped by half a step, and `a / 127` on the narrow one.
    pub fn params(self, range: Range) -> QuantParams {
        let int = self.int;
        let live = self.live_scale(range);
        let scale = live.unwrap_or(1.0);
        let zero_point = if self.symmetric {
            int.symmetric_zero_point()
        } else if live.is_none() {
            0.clamp(int.qmin(), int.qmax())
        } else {
            // In f32, like the codes: the low end then falls on a code exactly as `quantize` will place it.
            let zero = (int.qmin() as f32 - range.min.min(0.0) / scale).round_ties_even();
            (zero as i32).clamp(int.qmin(), int.qmax())
        };
        QuantParams { scale, zero_point, int }
    }
}

/// A finite closed interval of float values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRange", into = "RawRange")]
pub struct Range {
    min: f32,
    max: f32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    min: f32,
    max: f32,
}

impl TryFrom<RawRange> for Range {
    type Error = QuantError;
    fn try_from(raw: RawRange) -> Result<Self, QuantError> {
        Range::new(raw.min, raw.max)
    }
}

impl From<Range> for RawRange {
    fn from(range: Range) -> Self {
        RawRange { min: range.min, max: range.max }
    }
}

impl Range {
    /// The range that holds only zero.
    pub const ZERO: Range = Range { min: 0.0, max: 0.0 };

    /// `[min, max]`; both must be finite and in order. Negative zero becomes zero, so that equal ranges
    /// have equal bits.
    pub fn new(min: f32, max: f32) -> Result<Self, QuantError> {
        if min.is_finite() && max.is_finite() && min <= max {
            Ok(Range { min: min + 0.0, max: max + 0.0 })
        } else {
            Err(QuantError::BadRange { min, max })
        }
    }

    /// The range spanned by two finite values in either order.
    pub(crate) fn spanning(a: f32, b: f32) -> Self {
        Range { min: a.min(b) + 0.0, max: a.max(b) + 0.0 }
    }

    /// Lower end.
    pub const fn min(self) -> f32 {
        self.min
    }

    /// Upper end.
    pub const fn max(self) -> f32 {
        self.max
    }

    /// Largest absolute value.
    pub fn abs_max(self) -> f32 {
        self.min.abs().max(self.max.abs())
    }

    /// The smallest range that contains both.
    pub fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// This range with both ends moved into `outer`.
    pub(crate) fn clipped_to(self, outer: Range) -> Range {
        Range { min: self.min.clamp(outer.min, outer.max), max: self.max.clamp(outer.min, outer.max) }
    }
}

/// A grid with its scale and zero point: `x ~ (q - zero_point) * scale` for codes `q` of `int`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawParams", into = "RawParams")]
pub struct QuantParams {
    scale: f32,
    zero_point: i32,
    int: IntRange,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParams {
    scale: f32,
    zero_point: i32,
    int: IntRange,
}

impl TryFrom<RawParams> for QuantParams {
    type Error = QuantError;
    fn try_from(raw: RawParams) -> Result<Self, QuantError> {
        QuantParams::new(raw.scale, raw.zero_point, raw.int)
    }
}

impl From<QuantParams> for RawParams {
    fn from(params: QuantParams) -> Self {
        RawParams { scale: params.scale, zero_point: params.zero_point, int: params.int }
    }
}

/// 1.5 * 2^23: adding and subtracting it rounds a float of magnitude below 2^22 half to even. Unlike the
/// library call this is vectorised on every processor.
const ROUND: f32 = 12_582_912.0;

impl QuantParams {
    /// Parameters from outside. The scale must be positive and finite, the zero point a code.
    pub fn new(scale: f32, zero_point: i32, int: IntRange) -> Result<Self, QuantError> {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(QuantError::BadScale { scale });
        }
        if zero_point < int.qmin() || zero_point > int.qmax() {
            return Err(QuantError::BadZeroPoint { zero_point, qmin: int.qmin(), qmax: int.qmax() });
        }
        Ok(QuantParams { scale, zero_point, int })
    }

    /// Size of a step.
    pub const fn scale(self) -> f32 {
        self.scale
    }

    /// The code of zero.
    pub const fn zero_point(self) -> i32 {
        self.zero_point
    }

    /// The codes.
    pub const fn int(self) -> IntRange {
        self.int
    }

    /// Lowest and highest code counted from the zero point.
    pub(crate) fn step_bounds(self) -> (f32, f32) {
        ((self.int.qmin() - self.zero_point) as f32, (self.int.qmax() - self.zero_point) as f32)
    }

    /// Code minus zero point, as a whole float and never -0. Clamping before rounding gives the same as
    /// after, since the bounds are whole, and keeps the value small enough for [`ROUND`].
    #[inline(always)]
    fn steps(self, x: f32, (low, high): (f32, f32)) -> f32 {
        let v = (x / self.scale).clamp(low, high);
        let rounded = (v + ROUND) - ROUND;
        if rounded.is_nan() { 0.0 } else { rounded }
    }

    /// The code of one value: divide, round half to even, add the zero point, clamp. NaN gives the zero
    /// point, infinities the outermost codes.
    pub fn quantize_one(self, x: f32) -> i32 {
        self.steps(x, self.step_bounds()) as i32 + self.zero_point
    }

    /// The value of a code.
    pub fn dequantize_one(self, code: i32) -> f32 {
        (i64::from(code) - i64::from(self.zero_point)) as f32 * self.scale
    }

    /// The nearest value of the grid.
    pub fn fake_quant_one(self, x: f32) -> f32 {
        self.steps(x, self.step_bounds()) * self.scale
    }

    /// The codes of `values`.
    pub fn quantize(self, values: &[f32]) -> Vec<i32> {
        let bounds = self.step_bounds();
        values.iter().map(|&x| self.steps(x, bounds) as i32 + self.zero_point).collect()
    }

    /// The values of `codes`.
    pub fn dequantize(self, codes: &[i32]) -> Vec<f32> {
        codes.iter().map(|&q| self.dequantize_one(q)).collect()
    }

    /// Replaces every value by the nearest one of the grid.
    pub fn fake_quant_in_place(self, values: &mut [f32]) {
        let bounds = self.step_bounds();
        for x in values {
            *x = self.steps(*x, bounds) * self.scale;
        }
    }

    /// Every value replaced by the nearest one of the grid.
    pub fn fake_quant(self, values: &[f32]) -> Vec<f32> {
        let mut out = values.to_vec();
        self.fake_quant_in_place(&mut out);
        out
    }

    /// The range that the grid really covers, `[(qmin - z) s, (qmax - z) s]`: fake quantisation clips to
    /// this and not to the range that was asked for. Saturates at the largest float.
    pub fn nudged(self) -> Range {
        let (low, high) = self.step_bounds();
        Range { min: (low * self.scale).max(f32::MIN) + 0.0, max: (high * self.scale).min(f32::MAX) + 0.0 }
    }
}

/// How many values are NaN. Quantisation turns them into the zero point; a caller that quantises data
/// which no observer has seen should report them.
pub fn count_nan(values: &[f32]) -> usize {
    values.iter().filter(|x| x.is_nan()).count()
}
