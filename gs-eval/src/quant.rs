//! Uniform quantisation: from a range to scale and zero point, and from a number to its code and back.

use crate::arith::{Codes, Rounding};
use gs_ir::CodeRange;

/// What the codes of a quantiser may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeKind {
    /// Width in bits, 1 to 32.
    pub bits: u32,
    /// Codes around zero rather than from zero on.
    pub signed: bool,
    /// The code of zero stands in the middle.
    pub symmetric: bool,
    /// The smallest code is not used.
    pub narrow: bool,
}

impl CodeKind {
    /// Smallest and largest code.
    pub fn range(&self) -> (i64, i64) {
        let codes = self.codes();
        (codes.low, codes.high)
    }

    fn codes(&self) -> CodeRange {
        CodeRange::of(self.bits.min(32), self.signed, self.narrow)
    }
}

/// A grid: `real = scale * (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Distance of neighbouring codes.
    pub scale: f32,
    /// Range of codes, and the code of zero.
    pub codes: Codes,
}

impl Grid {
    /// The grid that covers a range. Zero always lies on it; an empty range gives scale 1.
    ///
    /// The scale is computed in f64 and rounded once to f32; the zero point is then computed from that f32 scale, in
    /// f32 (Jacob et al. 2018, section 3, with the range extended to zero).
    pub fn cover(min: f32, max: f32, kind: CodeKind) -> Self {
        let CodeRange { low, high, middle } = kind.codes();
        let (min, max) = (min.min(0.0), max.max(0.0)); // NaN counts as zero
        let wide = match kind.symmetric {
            true => 2.0 * f64::from(max.max(-min)),
            false => f64::from(max) - f64::from(min),
        };
        let zero_point = |z: i64| z.clamp(low, high);
        if wide == 0.0 || !wide.is_finite() || high == low {
            let z = if kind.symmetric { middle } else { 0 };
            return Self { scale: 1.0, codes: Codes { low, high, zero_point: zero_point(z) } };
        }
        let scale = ((wide / (high - low) as f64) as f32).max(f32::MIN_POSITIVE);
        let z = if kind.symmetric { middle } else { (low as f32 - min / scale).round_ties_even() as i64 };
        Self { scale, codes: Codes { low, high, zero_point: zero_point(z) } }
    }

    /// The code of a number: divided by the scale in f32, rounded half to even, saturated. NaN has the code of zero.
    pub fn code(&self, x: f32) -> i64 {
        self.codes.shift_and_saturate(f64::from((x / self.scale).round_ties_even()))
    }

    /// The number of a code.
    pub fn real(&self, code: i64) -> f32 {
        (code - self.codes.zero_point) as f32 * self.scale
    }

    /// The range of numbers that the codes cover exactly.
    pub fn nudged(&self) -> (f32, f32) {
        (self.real(self.codes.low), self.real(self.codes.high))
    }
}

/// The code of a number given in f64, when the quotient is to be rounded to f32 first (`single`) or not.
/// With `odd`, codes are the odd numbers only (codebooks without zero), ties as for `(x / scale - 1) / 2`.
pub(crate) fn code_of(x: f64, scale: f64, codes: &Codes, rounding: Rounding, single: bool, odd: bool) -> i64 {
    // f64 division then rounding to f32 is f32 division: 53 bits are more than twice 24 and 2.
    let quotient = if single { f64::from((x / scale) as f32) } else { x / scale };
    if odd {
        let k = rounding.f64((quotient - 1.0) / 2.0);
        return codes.saturate(2.0 * k + 1.0);
    }
    codes.shift_and_saturate(rounding.f64(quotient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bits: u32, signed: bool) -> CodeKind {
        CodeKind { bits, signed, symmetric: false, narrow: false }
    }

    #[test]
    fn golden_ranges() {
        let g = Grid::cover(-1.0, 3.0, kind(8, false));
        assert_eq!((g.scale, g.codes.zero_point), (0.015_686_275, 64));
        let (lo, hi) = g.nudged();
        assert!((lo + 1.003_922).abs() < 1e-6 && (hi - 2.996_078).abs() < 1e-6);
        assert_eq!(Grid::cover(-1.0, 3.0, kind(8, true)).codes.zero_point, -64);
        let g = Grid::cover(0.5, 3.0, kind(8, false));
        assert_eq!((g.scale, g.codes.zero_point), (0.011_764_706, 0));
        let g = Grid::cover(-6.0, 6.0, kind(8, false));
        assert_eq!((g.scale, g.codes.zero_point), (0.047_058_824, 128));
        let (lo, hi) = g.nudged();
        assert!((lo + 6.023_53).abs() < 1e-6 && (hi - 5.976_47).abs() < 1e-6);
        let g = Grid::cover(-0.1, 0.3, kind(4, false));
        assert_eq!((g.scale, g.codes.zero_point), (0.026_666_667, 4));
    }

    #[test]
    fn golden_codes() {
        let g = Grid::cover(-1.0, 3.0, kind(8, false));
        let s = g.scale;
        assert_eq!([0.5 * s, 1.5 * s, -1.2, 3.2, 2.0].map(|x| g.code(x)), [64, 66, 0, 255, 191]);
        assert!((g.real(191) - 1.992_157).abs() < 1e-6);
        assert_eq!(g.code(f32::NAN), 64);
        assert_eq!((g.code(f32::INFINITY), g.code(f32::NEG_INFINITY)), (255, 0));
    }

    #[test]
    fn symmetric_conventions() {
        let narrow = CodeKind { bits: 8, signed: true, symmetric: true, narrow: true };
        let g = Grid::cover(-1.0, 0.5, narrow);
        assert_eq!((g.scale, g.codes), (1.0 / 127.0, Codes { low: -127, high: 127, zero_point: 0 }));
        let full = CodeKind { narrow: false, ..narrow };
        assert_eq!(Grid::cover(-1.0, 0.5, full).scale, (1.0f64 / 127.5) as f32);
        let unsigned = CodeKind { signed: false, ..full };
        assert_eq!(Grid::cover(-1.0, 0.5, unsigned).codes.zero_point, 128);
    }

    #[test]
    fn degenerate_ranges() {
        for k in [kind(8, false), kind(8, true), CodeKind { narrow: true, ..kind(8, false) }] {
            for (lo, hi) in [(0.0, 0.0), (f32::NAN, f32::NAN), (0.0, f32::INFINITY), (0.0, f32::MIN_POSITIVE)]
            {
                let g = Grid::cover(lo, hi, k);
                assert!(g.scale > 0.0 && g.scale.is_finite());
                assert_eq!(g.real(g.code(0.0)), 0.0);
            }
        }
    }

    #[test]
    fn odd_codes_have_no_zero() {
        let codes = Codes { low: -15, high: 15, zero_point: 0 };
        let of = |x| code_of(x, 1.0, &codes, Rounding::HalfEven, true, true);
        assert_eq!([-20.0, -1.2, -0.1, 0.1, 2.9, 3.1, 99.0].map(of), [-15, -1, -1, 1, 3, 3, 15]);
        let bits1 = Codes { low: -1, high: 1, zero_point: 0 };
        assert_eq!([-0.5, 0.5].map(|x| code_of(x, 0.3, &bits1, Rounding::HalfEven, true, true)), [-1, 1]);
    }
}
