//! Floats narrower than 32 bits: rounding a value to the nearest one of the format, and its bit pattern.
//!
//! A tensor of such a type keeps its elements as f32 that lie on the format's grid, so that every operator
//! computes on plain numbers and only storing rounds.

use gs_ir::ElemType;

/// What a binary float format can represent.
#[derive(Clone, Copy, Debug)]
struct Format {
    /// Stored mantissa bits.
    mantissa: u32,
    /// Stored exponent bits.
    exponent: u32,
    bias: i32,
    /// Largest finite value.
    max: f64,
    /// What stands above the largest value, and for NaN.
    special: Special,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    /// Infinities and NaN, as IEEE 754 has them.
    Ieee,
    /// No infinity; all ones is NaN (`fn`).
    NanOnly,
    /// No infinity and no negative zero; the pattern of the latter is NaN (`fnuz`).
    NanAtNegativeZero,
    /// Neither: out of range saturates.
    None,
}

fn format(elem: ElemType) -> Option<Format> {
    let of = |exponent, mantissa, bias, max, special| Some(Format { mantissa, exponent, bias, max, special });
    match elem {
        ElemType::F16 => of(5, 10, 15, 65504.0, Special::Ieee),
        ElemType::Bf16 => of(8, 7, 127, f64::from(f32::from_bits(0x7f7f_0000)), Special::Ieee),
        ElemType::F8E4M3Fn => of(4, 3, 7, 448.0, Special::NanOnly),
        ElemType::F8E4M3Fnuz => of(4, 3, 8, 240.0, Special::NanAtNegativeZero),
        ElemType::F8E5M2 => of(5, 2, 15, 57344.0, Special::Ieee),
        ElemType::F8E5M2Fnuz => of(5, 2, 16, 57344.0, Special::NanAtNegativeZero),
        ElemType::F4E2M1 => of(2, 1, 1, 6.0, Special::None),
        _ => None,
    }
}

/// Rounds to the nearest value of a float type, ties to even. What is too large becomes the largest finite value
/// if `saturate`, else infinity, or NaN in formats without infinity. Types of 32 bits and more, and those that
/// are no floats, are handled as f32.
pub fn round_to(elem: ElemType, x: f64, saturate: bool) -> f32 {
    if elem == ElemType::F8E8M0 {
        return round_to_power(x);
    }
    let Some(f) = format(elem) else { return x as f32 };
    if x.is_nan() {
        return if f.special == Special::None { 0.0 } else { f32::NAN };
    }
    let rounded = if x.is_infinite() { x } else { nearest(&f, x) };
    let value = if rounded.abs() <= f.max {
        rounded
    } else {
        match f.special {
            _ if saturate => f.max.copysign(x),
            Special::None => f.max.copysign(x),
            Special::Ieee => f64::INFINITY.copysign(x),
            Special::NanOnly | Special::NanAtNegativeZero => f64::NAN,
        }
    };
    let value = if f.special == Special::NanAtNegativeZero && value == 0.0 { 0.0 } else { value };
    value as f32
}

/// The multiple of the format's unit at `x` that is nearest, ties to even, whatever its size.
fn nearest(f: &Format, x: f64) -> f64 {
    if x == 0.0 {
        return x;
    }
    // Every value that matters is a normal f64; smaller ones share the lowest exponent anyway.
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let unit = power_of_two(exponent.max(1 - f.bias) - f.mantissa as i32);
    (x / unit).round_ties_even() * unit
}

fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e + 1023).clamp(1, 2046) as u64) << 52)
}

/// The smallest power of two that is not below a positive value, within the range of f8e8m0.
fn round_to_power(x: f64) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    let (low, high) = (power_of_two(-127), power_of_two(127));
    let x = x.clamp(low, high);
    let below = power_of_two(((x.to_bits() >> 52) & 0x7ff) as i32 - 1023);
    (if below < x { (below * 2.0).min(high) } else { below }) as f32
}

/// The bit pattern of a value that lies on the format's grid (see [`round_to`]). Only for types below 32 bits.
pub fn to_bits(elem: ElemType, x: f32) -> u16 {
    if elem == ElemType::F8E8M0 {
        // The exponent field of an f32 is this format; 2^-127 is subnormal there and has field 0.
        return if x.is_nan() { 0xff } else { ((x.to_bits() >> 23) & 0xff) as u16 };
    }
    let Some(f) = format(elem) else { return 0 };
    let width = f.exponent + f.mantissa;
    let ones = (1u32 << f.exponent) - 1;
    if x.is_nan() {
        return match f.special {
            Special::Ieee => ((ones << f.mantissa) | (1 << (f.mantissa - 1))) as u16,
            Special::NanOnly => ((1u32 << width) - 1) as u16,
            Special::NanAtNegativeZero => (1u32 << width) as u16,
            Special::None => 0,
        };
    }
    let sign = u32::from(x.is_sign_negative()) << width;
    if x.is_infinite() {
        return (sign | (ones << f.mantissa)) as u16;
    }
    let a = f64::from(x.abs());
    if a == 0.0 {
        return if f.special == Special::NanAtNegativeZero { 0 } else { sign as u16 };
    }
    let exponent = (((a.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(1 - f.bias);
    let units = (a / power_of_two(exponent - f.mantissa as i32)) as u32;
    // A subnormal has fewer units than the implicit leading bit, and the field 0 of its exponent follows.
    let implicit = 1u32 << f.mantissa;
    let field = if units < implicit { 0 } else { (exponent + f.bias) as u32 };
    (sign | (field << f.mantissa) | (units & (implicit - 1))) as u16
}

/// The value of a bit pattern. Only for types below 32 bits.
pub fn from_bits(elem: ElemType, bits: u16) -> f32 {
    if elem == ElemType::F8E8M0 {
        return if bits == 0xff { f32::NAN } else { power_of_two(i32::from(bits) - 127) as f32 };
    }
    let Some(f) = format(elem) else { return 0.0 };
    let bits = u32::from(bits);
    let width = f.exponent + f.mantissa;
    let ones = (1u32 << f.exponent) - 1;
    let (field, fraction) = ((bits >> f.mantissa) & ones, bits & ((1 << f.mantissa) - 1));
    let negative = (bits >> width) & 1 == 1;
    match f.special {
        Special::Ieee if field == ones && fraction != 0 => return f32::NAN,
        Special::Ieee if field == ones => return if negative { f32::NEG_INFINITY } else { f32::INFINITY },
        Special::NanOnly if bits & ((1 << width) - 1) == (1 << width) - 1 => return f32::NAN,
        Special::NanAtNegativeZero if bits == 1 << width => return f32::NAN,
        _ => {}
    }
    let units = if field == 0 { fraction } else { fraction | (1 << f.mantissa) };
    let exponent = (field.max(1) as i32) - f.bias - f.mantissa as i32;
    let a = f64::from(units) * power_of_two(exponent);
    (if negative { -a } else { a }) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: [(ElemType, u32); 8] = [
        (ElemType::F16, 16),
        (ElemType::Bf16, 16),
        (ElemType::F8E4M3Fn, 8),
        (ElemType::F8E4M3Fnuz, 8),
        (ElemType::F8E5M2, 8),
        (ElemType::F8E5M2Fnuz, 8),
        (ElemType::F8E8M0, 8),
        (ElemType::F4E2M1, 4),
    ];

    #[test]
    fn every_pattern_survives_a_round_trip() {
        for (elem, width) in SMALL {
            for bits in 0..=((1u32 << width) - 1) as u16 {
                let x = from_bits(elem, bits);
                if x.is_nan() {
                    assert!(from_bits(elem, to_bits(elem, x)).is_nan(), "{elem} {bits:#x}");
                } else {
                    assert_eq!(to_bits(elem, x), bits, "{elem} {bits:#x} = {x}");
                    assert_eq!(
                        round_to(elem, f64::from(x), false).to_bits(),
                        x.to_bits(),
                        "{elem} {bits:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_half_crate() {
        let mut state = 1u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(state);
            if x.is_nan() {
                continue;
            }
            let (a, b) = (half::f16::from_f32(x), half::bf16::from_f32(x));
            assert_eq!(round_to(ElemType::F16, f64::from(x), false).to_bits(), a.to_f32().to_bits());
            assert_eq!(round_to(ElemType::Bf16, f64::from(x), false).to_bits(), b.to_f32().to_bits());
            assert_eq!(from_bits(ElemType::F16, a.to_bits()).to_bits(), a.to_f32().to_bits());
        }
    }

    #[test]
    fn out_of_range() {
        assert_eq!(round_to(ElemType::F8E4M3Fn, 1e6, true), 448.0);
        assert!(round_to(ElemType::F8E4M3Fn, 1e6, false).is_nan());
        assert_eq!(round_to(ElemType::F8E5M2, -1e6, false), f32::NEG_INFINITY);
        assert_eq!(round_to(ElemType::F4E2M1, -9.0, false), -6.0);
        assert_eq!(round_to(ElemType::F8E8M0, 3.0, false), 4.0);
        assert_eq!(round_to(ElemType::F4E2M1, 2.5, false), 2.0); // tie to the even mantissa
    }
}
