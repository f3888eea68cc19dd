//! The arithmetic of deployed integers, as data that a target names: how an int32 sum is brought to the output's
//! grid, how it is rounded, and where the zero point is added. The default is what ONNX Runtime computes on a CPU.

/// How a number between two codes is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, a tie to the even one.
    #[default]
    HalfEven,
    /// To the nearest, a tie towards positive infinity.
    HalfUp,
    /// To the nearest, a tie away from zero.
    HalfAway,
}

impl Rounding {
    /// All of them.
    pub const ALL: [Rounding; 3] = [Rounding::HalfEven, Rounding::HalfUp, Rounding::HalfAway];

    /// The name in target files.
    pub fn name(self) -> &'static str {
        match self {
            Rounding::HalfEven => "half_even",
            Rounding::HalfUp => "half_up",
            Rounding::HalfAway => "half_away",
        }
    }

    /// The rounding of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }

    /// Rounds an f32.
    pub fn f32(self, x: f32) -> f32 {
        match self {
            Rounding::HalfEven => x.round_ties_even(),
            Rounding::HalfUp => half_up(f64::from(x)) as f32,
            Rounding::HalfAway => x.round(),
        }
    }

    /// Rounds an f64.
    pub fn f64(self, x: f64) -> f64 {
        match self {
            Rounding::HalfEven => x.round_ties_even(),
            Rounding::HalfUp => half_up(x),
            Rounding::HalfAway => x.round(),
        }
    }

    /// `x / 2^n`, rounded.
    pub fn shift(self, x: i64, n: u32) -> i64 {
        if n == 0 {
            return x;
        }
        if n > 62 {
            return 0;
        }
        let (floor, rest, half) = (x >> n, x & ((1 << n) - 1), 1i64 << (n - 1));
        let up = match self {
            Rounding::HalfEven => rest > half || (rest == half && floor & 1 == 1),
            Rounding::HalfUp => rest >= half,
            Rounding::HalfAway => rest > half || (rest == half && x >= 0),
        };
        floor + i64::from(up)
    }
}

/// `floor(x + 1/2)` without the error of the sum.
fn half_up(x: f64) -> f64 {
    let floor = x.floor();
    if x - floor >= 0.5 { floor + 1.0 } else { floor }
}

/// How an integer sum is scaled to the output's grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requant {
    /// Times an f32 ratio of scales, then rounded (ONNX Runtime).
    #[default]
    F32Multiply,
    /// Times a 31-bit fixed-point multiplier and a power of two, in integers, rounded once (Jacob et al. 2018, section
    /// 2.2; TFLite's single-rounding form).
    Q31Shift,
    /// A shift: the ratio of scales must be a power of two.
    Pow2Shift,
}

impl Requant {
    /// All of them.
    pub const ALL: [Requant; 3] = [Requant::F32Multiply, Requant::Q31Shift, Requant::Pow2Shift];

    /// The name in target files.
    pub fn name(self) -> &'static str {
        match self {
            Requant::F32Multiply => "f32_multiply",
            Requant::Q31Shift => "q31_shift",
            Requant::Pow2Shift => "pow2_shift",
        }
    }

    /// The form of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// The arithmetic of integer operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// How an integer sum is scaled.
    pub requant: Requant,
    /// How results are rounded, also those of `quantize`.
    pub rounding: Rounding,
    /// Whether addition adds the output's zero point before it rounds (then ties depend on its parity).
    pub add_zero_point_before_round: bool,
    /// The same of multiplication.
    pub mul_zero_point_before_round: bool,
    /// The same of average pooling (not of global average pooling, which is an integer sum).
    pub average_pool_zero_point_before_round: bool,
}

impl Default for Arithmetic {
    fn default() -> Self {
        Self::ONNX_RUNTIME_CPU
    }
}

impl Arithmetic {
    /// What ONNX Runtime's CPU provider computes.
    pub const ONNX_RUNTIME_CPU: Arithmetic = Arithmetic {
        requant: Requant::F32Multiply,
        rounding: Rounding::HalfEven,
        add_zero_point_before_round: true,
        mul_zero_point_before_round: true,
        average_pool_zero_point_before_round: true,
    };

    /// Fixed-point multipliers and shifts, ties away from zero, zero points added last.
    pub const Q31: Arithmetic = Arithmetic {
        requant: Requant::Q31Shift,
        rounding: Rounding::HalfAway,
        add_zero_point_before_round: false,
        mul_zero_point_before_round: false,
        average_pool_zero_point_before_round: false,
    };
}

/// A range of codes with the code of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// Smallest code.
    pub low: i64,
    /// Largest code.
    pub high: i64,
    /// The code that stands for zero.
    pub zero_point: i64,
}

impl Codes {
    /// A rounded float, saturated to the range; NaN becomes the smallest code that is not below zero.
    pub fn saturate(&self, x: f64) -> i64 {
        (x as i64).clamp(self.low, self.high)
    }

    /// A rounded float plus the zero point, saturated.
    pub fn shift_and_saturate(&self, x: f64) -> i64 {
        (x as i64).saturating_add(self.zero_point).clamp(self.low, self.high)
    }
}

/// The ratio of scales is no power of two, as the target's arithmetic asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotAPowerOfTwo(pub f64);

/// Brings integer sums to an output grid.
#[derive(Clone, Copy, Debug)]
pub struct Requantizer {
    form: Form,
    rounding: Rounding,
    codes: Codes,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    F32(f32),
    Q31(Fixed),
    /// Right shift (left, where negative).
    Shift(i32),
}

impl Requantizer {
    /// For sums in units of `s_x * s_w`, to codes in units of `s_y`. As f32 the ratio is `f32(f32(s_x * s_w) / s_y)`.
    ///
    /// # Errors
    /// Where the arithmetic asks for a power of two and the ratio is none.
    pub fn product(
        arith: &Arithmetic,
        s_x: f32,
        s_w: f32,
        s_y: f32,
        codes: Codes,
    ) -> Result<Self, NotAPowerOfTwo> {
        let exact = f64::from(s_x) * f64::from(s_w) / f64::from(s_y);
        Self::new(arith, (s_x * s_w) / s_y, exact, codes)
    }

    /// For a ratio given in both precisions.
    ///
    /// # Errors
    /// As [`Self::product`].
    pub fn new(arith: &Arithmetic, ratio: f32, exact: f64, codes: Codes) -> Result<Self, NotAPowerOfTwo> {
        let form = match arith.requant {
            Requant::F32Multiply => Form::F32(ratio),
            Requant::Q31Shift => Form::Q31(Fixed::new(exact)),
            Requant::Pow2Shift => Form::Shift(exponent(f64::from(ratio))?.checked_neg().unwrap_or(0)),
        };
        Ok(Self { form, rounding: arith.rounding, codes })
    }

    /// The code of a sum.
    pub fn apply(&self, acc: i64) -> i64 {
        match self.form {
            Form::F32(ratio) => {
                self.codes.shift_and_saturate(f64::from(self.rounding.f32(acc as f32 * ratio)))
            }
            Form::Q31(fixed) => self.codes.clamp_sum(fixed.apply(acc, self.rounding)),
            Form::Shift(n) if n >= 0 => self.codes.clamp_sum(self.rounding.shift(acc, n.unsigned_abs())),
            Form::Shift(n) => {
                let wide = i128::from(acc) << n.unsigned_abs().min(60);
                self.codes.clamp_sum(wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
            }
        }
    }
}

impl Codes {
    fn clamp_sum(&self, x: i64) -> i64 {
        x.saturating_add(self.zero_point).clamp(self.low, self.high)
    }
}

/// The exponent of a power of two.
fn exponent(x: f64) -> Result<i32, NotAPowerOfTwo> {
    let bits = x.to_bits();
    let normal = x > 0.0 && x.is_finite() && bits & ((1 << 52) - 1) == 0 && bits >> 52 != 0;
    if normal { Ok(((bits >> 52) & 0x7ff) as i32 - 1023) } else { Err(NotAPowerOfTwo(x)) }
}

/// A real multiplier as `mantissa * 2^(shift - 31)` with a mantissa in `[2^30, 2^31)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The mantissa.
    pub mantissa: i32,
    /// The exponent, counted so that a multiplier in `[1/2, 1)` has 0.
    pub shift: i32,
}

impl Fixed {
    /// The fixed-point form nearest to a multiplier; zero for what is not positive and finite.
    pub fn new(multiplier: f64) -> Self {
        if !(multiplier.is_finite() && multiplier > 0.0) {
            return Self { mantissa: 0, shift: 0 };
        }
        let mut shift = ((multiplier.to_bits() >> 52) & 0x7ff) as i32 - 1022;
        let mut mantissa = (multiplier * 2f64.powi(31 - shift)).round() as i64;
        if mantissa == 1 << 31 {
            mantissa >>= 1;
            shift += 1;
        }
        // Below this everything rounds to zero.
        if shift < -31 {
            return Self { mantissa: 0, shift: 0 };
        }
        Self { mantissa: mantissa as i32, shift: shift.min(30) }
    }

    /// The rounded product with a 32-bit sum (wider ones saturate).
    pub fn apply(&self, acc: i64, rounding: Rounding) -> i64 {
        let acc = acc.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let right = (31 - self.shift).clamp(0, 62).unsigned_abs();
        rounding.shift(acc * i64::from(self.mantissa), right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U8: Codes = Codes { low: 0, high: 255, zero_point: 3 };

    #[test]
    fn roundings() {
        let cases =
            [(2.5, 2.0, 3.0, 3.0), (-2.5, -2.0, -2.0, -3.0), (3.5, 4.0, 4.0, 4.0), (-0.4, 0.0, 0.0, 0.0)];
        for (x, even, up, away) in cases {
            assert_eq!(Rounding::HalfEven.f64(x), even);
            assert_eq!(Rounding::HalfUp.f64(x), up);
            assert_eq!(Rounding::HalfAway.f64(x), away);
        }
        for r in [Rounding::HalfEven, Rounding::HalfUp, Rounding::HalfAway] {
            assert_eq!(Rounding::from_name(r.name()), Some(r));
            for x in -40..40 {
                assert_eq!(r.shift(x, 3), r.f64(x as f64 / 8.0) as i64, "{r:?} {x}");
            }
        }
    }

    #[test]
    fn f32_multiply_rounds_the_sum_first() {
        let q = Requantizer::product(&Arithmetic::default(), 1.0, 1.0, 2.0, U8).unwrap();
        assert_eq!([1, 3, 5, -1, -9, 1000].map(|a| q.apply(a)), [3, 5, 5, 3, 0, 255]);
        // 2^24 + 1 is no f32: the sum is rounded to 2^24 before the product.
        let q = Requantizer::new(&Arithmetic::default(), 1.0 / 65536.0, 0.0, U8).unwrap();
        assert_eq!(q.apply((1 << 24) + 1), 255);
        assert_eq!(q.apply((1 << 23) + 1), 131);
    }

    #[test]
    fn fixed_point_is_within_one_code_of_float() {
        let float = Requantizer::product(&Arithmetic::default(), 0.0123, 0.0047, 0.021, U8).unwrap();
        let fixed = Requantizer::product(&Arithmetic::Q31, 0.0123, 0.0047, 0.021, U8).unwrap();
        let mut equal = 0;
        for acc in -2000..100_000 {
            let (a, b) = (float.apply(acc), fixed.apply(acc));
            assert!((a - b).abs() <= 1);
            equal += i64::from(a == b);
        }
        assert!(equal > 101_990, "{equal}");
    }

    #[test]
    fn fixed_point_forms() {
        assert_eq!(Fixed::new(0.5), Fixed { mantissa: 1 << 30, shift: 0 });
        assert_eq!(Fixed::new(1.0), Fixed { mantissa: 1 << 30, shift: 1 });
        let away = Rounding::HalfAway;
        assert_eq!(Fixed::new(0.25).apply(6, away), 2); // 1.5
        assert_eq!(Fixed::new(0.25).apply(-6, away), -2);
        assert_eq!(Fixed::new(0.25).apply(-6, Rounding::HalfUp), -1);
        assert_eq!(Fixed::new(3.0).apply(7, away), 21);
        assert_eq!(Fixed::new(1e-30).apply(i64::from(i32::MAX), away), 0);
        assert!(Fixed::new(1e30).apply(i64::MAX, away) > 1 << 40);
    }

    #[test]
    fn shifts_need_powers_of_two() {
        let pow2 = Arithmetic { requant: Requant::Pow2Shift, ..Arithmetic::default() };
        let q = Requantizer::product(&pow2, 0.5, 0.25, 1.0, U8).unwrap();
        assert_eq!([4, 12, 8, -4].map(|a| q.apply(a)), [3, 5, 4, 3]);
        let q = Requantizer::product(&pow2, 4.0, 1.0, 1.0, U8).unwrap();
        assert_eq!(q.apply(2), 11);
        assert_eq!(Requantizer::product(&pow2, 3.0, 1.0, 1.0, U8).unwrap_err(), NotAPowerOfTwo(3.0));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for arith in [Arithmetic::default(), Arithmetic::Q31] {
            for ratio in [0.0f32, f32::MAX, f32::INFINITY, f32::NAN, 1e-40] {
                let q = Requantizer::new(&arith, ratio, f64::from(ratio), U8).unwrap();
                for acc in [i64::MIN, -1, 0, 1, i64::MAX] {
                    assert!((0..=255).contains(&q.apply(acc)));
                }
            }
        }
    }
}
