//! Operators on each element by itself.

use super::ctx::{OpCtx, OpError};
use crate::tensor::Tensor;

pub(super) const TABLE: &[super::Row] = &[
    ("relu", |c| signed(c, |x| if x < 0.0 { 0.0 } else { x }, |x| x.max(0))),
    ("leaky_relu", leaky_relu),
    ("prelu", prelu),
    ("sigmoid", |c| float(c, sigmoid)),
    ("tanh", |c| float(c, f64::tanh)),
    ("hard_sigmoid", hard_sigmoid),
    ("hard_swish", |c| float(c, |x| x * clamp01(x / 6.0 + 0.5))),
    ("elu", elu),
    ("gelu", gelu),
    ("softplus", |c| float(c, softplus)),
    ("exp", |c| float(c, f64::exp)),
    ("log", |c| float(c, f64::ln)),
    ("sqrt", |c| float(c, f64::sqrt)),
    ("reciprocal", |c| float(c, |x| 1.0 / x)),
    ("floor", |c| float(c, f64::floor)),
    ("ceil", |c| float(c, f64::ceil)),
    ("round", |c| float(c, f64::round_ties_even)),
    ("erf", |c| number(c, erf)),
    ("sin", |c| float(c, f64::sin)),
    ("cos", |c| float(c, f64::cos)),
    ("abs", |c| signed(c, f64::abs, |x| x.wrapping_abs())),
    ("neg", |c| signed(c, |x| -x, |x| x.wrapping_neg())),
    ("sign", |c| signed(c, sign, |x| x.signum())),
    ("clip", clip),
    ("not", not),
];

/// Applies a function to every element of a float tensor.
fn float(ctx: &OpCtx<'_>, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    if !x.elem().is_float() {
        return Err(ctx.wrong_elem(0));
    }
    ctx.allot(x.dims())?;
    let y: Vec<f64> = ctx.floats(0)?.into_iter().map(f).collect();
    ctx.make(x.elem(), x.dims(), &y)
}

/// As [`float`], where integers are converted there and (truncated) back.
fn number(ctx: &OpCtx<'_>, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    ctx.allot(x.dims())?;
    let y: Vec<f64> = ctx.floats(0)?.into_iter().map(f).collect();
    ctx.make(x.elem(), x.dims(), &y)
}

/// Applies one of two functions to every element of a float or integer tensor.
fn signed(ctx: &OpCtx<'_>, f: impl Fn(f64) -> f64, g: impl Fn(i128) -> i128) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    if !x.elem().is_int() {
        return float(ctx, f);
    }
    ctx.allot(x.dims())?;
    let y: Vec<i128> = x.to_ints().ok_or_else(|| ctx.wrong_elem(0))?.into_iter().map(g).collect();
    Ok(vec![Tensor::from_ints(x.elem(), x.dims(), &y)?])
}

pub(super) fn sigmoid(x: f64) -> f64 {
    // Both forms avoid an exponential that overflows.
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// To `[0, 1]`; NaN stays.
fn clamp01(x: f64) -> f64 {
    x.clamp(0.0, 1.0)
}

fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { x.signum() }
}

fn leaky_relu(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let alpha = f64::from(ctx.float("alpha")?);
    float(ctx, |x| if x < 0.0 { alpha * x } else { x })
}

fn hard_sigmoid(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (alpha, beta) = (f64::from(ctx.float("alpha")?), f64::from(ctx.float("beta")?));
    float(ctx, |x| clamp01(alpha * x + beta))
}

fn elu(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let alpha = f64::from(ctx.float("alpha")?);
    float(ctx, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
}

fn gelu(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    if ctx.word("approximate") == Some("tanh") {
        const FACTOR: f64 = 0.797_884_560_802_865_4; // sqrt(2 / pi)
        return float(ctx, |x| 0.5 * x * (1.0 + (FACTOR * (x + 0.044715 * x * x * x)).tanh()));
    }
    float(ctx, |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)))
}

fn prelu(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (x, slope) = (ctx.operand(0)?, ctx.operand(1)?);
    ctx.allot(x.dims())?;
    let slope = super::matmul::broadcast_checked(&ctx.floats(1)?, slope.dims(), x.dims())?;
    let y: Vec<f64> =
        ctx.floats(0)?.iter().zip(slope).map(|(&x, s)| if x < 0.0 { s * x } else { x }).collect();
    ctx.make(x.elem(), x.dims(), &y)
}

/// Bounds are attributes; one that is absent does not bound. On integers a bound is rounded towards the inside.
fn clip(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (min, max) = (ctx.float_if("min"), ctx.float_if("max"));
    let low = min.map_or(f64::NEG_INFINITY, f64::from);
    let high = max.map_or(f64::INFINITY, f64::from);
    // As two steps, so that contradicting bounds give the upper one, and NaN stays NaN.
    let bound = |x: f64| {
        let x = if x < low { low } else { x };
        if x > high { high } else { x }
    };
    let (low_int, high_int) = (low.ceil() as i128, high.floor() as i128);
    signed(ctx, bound, |x| x.max(low_int).min(high_int))
}

fn not(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let crate::tensor::Storage::Bool(v) = x.storage() else { return Err(ctx.wrong_elem(0)) };
    let y = v.iter().map(|b| !b).collect();
    Ok(vec![Tensor::new(x.elem(), x.dims(), crate::tensor::Storage::Bool(y))?])
}

/// The error function to about 1e-16: its series near zero, the continued fraction of its complement far out.
pub(super) fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    let value = if a < 2.5 { erf_series(a) } else { 1.0 - erfc_fraction(a) };
    value.copysign(x)
}

/// `2/sqrt(pi) * exp(-x^2) * sum 2^n x^(2n+1) / (2n+1)!!`: all terms positive, so nothing cancels.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term > sum * 1e-17 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// `exp(-x^2) / sqrt(pi) * 1/(x + (1/2)/(x + (2/2)/(x + ...)))`.
fn erfc_fraction(x: f64) -> f64 {
    if x > 27.0 {
        return 0.0;
    }
    let tail = (1..=60).rev().fold(x, |t, k| x + f64::from(k) / 2.0 / t);
    (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI / 2.0 / tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_function() {
        // Values of DLMF 7.2 to 16 digits.
        let known = [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
            (6.0, 1.0),
        ];
        for (x, y) in known {
            assert!((erf(x) - y).abs() < 3e-16, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erf_series(2.5) - (1.0 - erfc_fraction(2.5))).abs() < 1e-15);
        assert!(erf(f64::NAN).is_nan());
        assert_eq!(erf(f64::INFINITY), 1.0);
    }

    #[test]
    fn stable_forms() {
        assert_eq!(sigmoid(-1000.0), 0.0);
        assert_eq!(sigmoid(1000.0), 1.0);
        assert_eq!(softplus(1000.0), 1000.0);
        assert!((softplus(0.0) - std::f64::consts::LN_2).abs() < 1e-16);
        assert!(sign(f64::NAN).is_nan());
    }
}
