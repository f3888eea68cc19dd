//! Seeded contents: a counter-based generator, so that element `i` depends on the seed and `i` alone and any part
//! of a tensor can be made by itself, on any machine alike.
//!
//! The bits of counter `i` are `mix(seed + (i + 1) * 0x9e3779b97f4a7c15)` with the finaliser of SplitMix64 (Steele,
//! Lea, Flood, OOPSLA 2014). A uniform number uses the upper 53 bits of counter `i`; a normal one the counters `2i`
//! and `2i + 1` by the transform of Box and Muller (1958). Logarithm and cosine are our own series of IEEE additions
//! and multiplications, since those of the system's library differ between systems in the last bit.

use gs_ir::Distribution;

/// 64 random bits.
pub fn bits(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `[0, 1)`, a multiple of 2^-53.
pub fn unit(seed: u64, counter: u64) -> f64 {
    (bits(seed, counter) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// A number of mean 0 and variance 1.
pub fn normal(seed: u64, index: u64) -> f64 {
    let first = index.wrapping_mul(2);
    let (u, v) = (unit(seed, first), unit(seed, first.wrapping_add(1)));
    (-2.0 * ln(1.0 - u)).sqrt() * cos_turns(v)
}

/// Element `index` of a tensor that is filled by this distribution. A uniform one never reaches its upper end, unless
/// rounding to f32 takes it there.
pub fn sample(seed: u64, dist: Distribution, index: u64) -> f64 {
    match dist {
        Distribution::Uniform(low, high) => {
            let (low, high) = (f64::from(low.0), f64::from(high.0));
            low + (high - low) * unit(seed, index)
        }
        Distribution::Normal(mean, deviation) => {
            f64::from(mean.0) + f64::from(deviation.0) * normal(seed, index)
        }
    }
}

/// Natural logarithm of a number in `(0, 1]`, by the series of the inverse hyperbolic tangent.
fn ln(x: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let mut m = f64::from_bits((x.to_bits() & ((1 << 52) - 1)) | (1023 << 52));
    let mut e = f64::from(exponent);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1.0;
    }
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    // |t| < 0.172: the 13th term is below 2^-60 of the first.
    let sum = (0..13).rev().fold(0.0, |s, k| s * square + 1.0 / f64::from(2 * k + 1));
    2.0 * t * sum + e * LN_2
}

/// `cos(2 pi x)` for `x` in `[0, 1)`, by Taylor's series on an eighth of a turn.
fn cos_turns(x: f64) -> f64 {
    let x = if x > 0.5 { 1.0 - x } else { x };
    let (x, sign) = if x > 0.25 { (0.5 - x, -1.0) } else { (x, 1.0) };
    let series = |x: f64, first: u32| {
        let angle = x * std::f64::consts::TAU;
        let square = angle * angle;
        // sum of (-1)^k angle^(2k) / (2k + first)!, from the smallest term on
        let sum = (0..10u32)
            .rev()
            .fold(1.0, |s, k| 1.0 - s * square / f64::from((2 * k + first + 1) * (2 * k + first + 2)));
        if first == 1 { angle * sum } else { sum }
    };
    sign * if x > 0.125 { series(0.25 - x, 1) } else { series(x, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gs_ir::FloatBits;

    #[test]
    fn series_agree_with_the_library() {
        for i in 0..1000 {
            let u = unit(5, i);
            assert!(
                (ln(1.0 - u) - (1.0 - u).ln()).abs() <= 4e-16 * (1.0 - u).ln().abs().max(1e-300) + 1e-18,
                "{u}"
            );
            assert!((cos_turns(u) - (u * std::f64::consts::TAU).cos()).abs() < 1e-15, "{u}");
        }
    }

    #[test]
    fn known_bits_and_moments() {
        // SplitMix64 seeded with 0 starts with this number.
        assert_eq!(bits(0, 0), 0xe220_a839_7b1d_cdaf);
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|i| normal(3, i)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let var = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.03, "{mean} {var}");
        let dist = Distribution::Uniform(FloatBits(-1.0), FloatBits(3.0));
        let uniform: Vec<f64> = (0..n).map(|i| sample(3, dist, i)).collect();
        assert!(uniform.iter().all(|x| (-1.0..3.0).contains(x)));
        assert!((uniform.iter().sum::<f64>() / n as f64 - 1.0).abs() < 0.03);
    }
}
