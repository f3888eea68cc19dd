//! Quantisers whose parameters are trained, and their derivatives. Codes are found as `qdq` finds them, so that a
//! learned grid and the frozen one give the same numbers.

use super::ctx::{OpCtx, OpError};
use super::quantise::{Spread, round_real, single};
use crate::arith::{Codes, Rounding};
use crate::quant::{CodeKind, code_of};
use crate::tensor::Tensor;

pub(super) const TABLE: &[super::Row] = &[
    ("lsq", lsq),
    ("lsq_grad", lsq_grad),
    ("pact", pact),
    ("pact_grad", pact_grad),
    ("dorefa", dorefa),
    ("dorefa_grad", dorefa_grad),
    ("slb", slb),
    ("slb_train", slb_train),
    ("slb_grad", slb_grad),
];

/// A width that must lie within 1 and `most`.
fn bits(ctx: &OpCtx<'_>, most: u32) -> Result<u32, OpError> {
    let bits = u32::try_from(ctx.int("bits")?).ok().filter(|b| (1..=most).contains(b));
    bits.ok_or(OpError::Attr { name: "bits", reason: "is a width that the operator does not have" })
}

/// The codes of a quantiser with zero point 0.
fn codes(ctx: &OpCtx<'_>, narrow: bool) -> Result<Codes, OpError> {
    let (low, high) =
        CodeKind { bits: bits(ctx, 16)?, signed: ctx.flag("signed"), symmetric: true, narrow }.range();
    if high < 1 {
        return Err(OpError::Attr { name: "bits", reason: "leaves no code above 0" });
    }
    Ok(Codes { low, high, zero_point: 0 })
}

/// Checks that a gradient and what it is for have the same extents.
fn same_extents(ctx: &OpCtx<'_>, dy: &Tensor, dims: &[usize]) -> Result<(), OpError> {
    ctx.allot(dims)?;
    let error =
        || OpError::Extents { what: "gradient and value", left: dy.dims().to_vec(), right: dims.to_vec() };
    (dy.dims() == dims).then_some(()).ok_or_else(error)
}

/// A number as the real numbers of this run are rounded: a step that is computed from a parameter.
fn rounded(ctx: &OpCtx<'_>, operand: &Tensor, x: f64) -> f64 {
    if single(ctx) { round_real(operand.elem(), x) } else { x }
}

// ---- LSQ ----

fn lsq(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (x, step) = (ctx.operand(0)?, ctx.operand(1)?);
    let (codes, single) = (codes(ctx, false)?, single(ctx));
    let spread = Spread::of(x.dims(), step.dims(), ctx.int_if("axis"), 0)?;
    ctx.allot(x.dims())?;
    let steps = ctx.floats(1)?;
    let pairs = ctx.floats(0)?.into_iter().zip(spread.pick(&steps));
    let y: Vec<f64> =
        pairs.map(|(x, s)| code_of(x, s, &codes, Rounding::HalfEven, single, false) as f64 * s).collect();
    ctx.make(x.elem(), x.dims(), &y)
}

/// What the sum of a parameter's gradient is multiplied by: 1 / sqrt(n * high).
fn grad_scale(ctx: &OpCtx<'_>, n: usize, high: i64) -> f64 {
    if ctx.flag("grad_scale") { 1.0 / (n.max(1) as f64 * high as f64).sqrt() } else { 1.0 }
}

/// Elements of one sample: of one element of axis 0.
fn features(x: &Tensor) -> usize {
    x.dims().iter().skip(1).product()
}

fn lsq_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, x, step) = (ctx.operand(0)?, ctx.operand(1)?, ctx.operand(2)?);
    same_extents(ctx, dy, x.dims())?;
    let (codes, single) = (codes(ctx, false)?, single(ctx));
    let spread = Spread::of(x.dims(), step.dims(), ctx.int_if("axis"), 0)?;
    let steps = ctx.floats(2)?;
    let (low, high) = (codes.low as f64, codes.high as f64);
    let mut dx = ctx.floats(0)?;
    let mut dstep = vec![0.0; steps.len()];
    let n = if ctx.flag("samples") { features(x) } else { x.len() / steps.len().max(1) };
    for ((d, x), &i) in dx.iter_mut().zip(ctx.floats(1)?).zip(&spread.index) {
        let q = x / steps[i];
        let q = if single { f64::from(q as f32) } else { q };
        let r = if q <= low {
            low
        } else if q >= high {
            high
        } else {
            Rounding::HalfEven.f64(q) - q
        };
        dstep[i] += *d * r;
        if !(q >= low && q <= high) {
            *d = 0.0;
        }
    }
    let scale = grad_scale(ctx, n, codes.high);
    dstep.iter_mut().for_each(|d| *d *= scale);
    Ok(vec![
        Tensor::from_f64s(x.elem(), x.dims(), &dx)?,
        Tensor::from_f64s(step.elem(), step.dims(), &dstep)?,
    ])
}

// ---- PACT ----

/// The codes and the step of a clip: alpha over the largest code, rounded to alpha's type.
fn pact_grid(ctx: &OpCtx<'_>, place: usize) -> Result<(Codes, f64), OpError> {
    let codes = codes(ctx, ctx.flag("signed"))?;
    let alpha = ctx.operand(place)?;
    let value = f64::from(ctx.scalar(place)?);
    Ok((codes, rounded(ctx, alpha, value / codes.high as f64)))
}

fn pact(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let (codes, step) = pact_grid(ctx, 1)?;
    ctx.allot(x.dims())?;
    let code = |x: f64| code_of(x, step, &codes, Rounding::HalfEven, single(ctx), false);
    let y: Vec<f64> = ctx.floats(0)?.into_iter().map(|x| code(x) as f64 * step).collect();
    ctx.make(x.elem(), x.dims(), &y)
}

fn pact_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, x, alpha) = (ctx.operand(0)?, ctx.operand(1)?, ctx.operand(2)?);
    same_extents(ctx, dy, x.dims())?;
    let (codes, signed) = (codes(ctx, false)?, ctx.flag("signed"));
    let clip = f64::from(ctx.scalar(2)?);
    let mut dx = ctx.floats(0)?;
    let mut dalpha = 0.0;
    for (d, x) in dx.iter_mut().zip(ctx.floats(1)?) {
        let below = if signed { x <= -clip } else { x < 0.0 };
        let above = x >= clip;
        if above {
            dalpha += *d;
        } else if below && signed {
            dalpha -= *d;
        }
        if above || below || x.is_nan() {
            *d = 0.0;
        }
    }
    let dalpha = dalpha * grad_scale(ctx, features(x), codes.high);
    Ok(vec![
        Tensor::from_f64s(x.elem(), x.dims(), &dx)?,
        Tensor::from_f64s(alpha.elem(), alpha.dims(), &[dalpha])?,
    ])
}

// ---- DoReFa ----

/// A weight with the scale that each element uses, and the largest |tanh| of the elements that share one.
struct Squeezed {
    weights: Vec<f64>,
    scales: Vec<f64>,
    spread: Spread,
    largest: Vec<f64>,
}

fn squeezed(ctx: &OpCtx<'_>, weight: usize) -> Result<Squeezed, OpError> {
    let (w, scale) = (ctx.operand(weight)?, ctx.operand(weight + 1)?);
    let spread = Spread::of(w.dims(), scale.dims(), ctx.int_if("axis"), 0)?;
    ctx.allot(w.dims())?;
    let (weights, scales) = (ctx.floats(weight)?, ctx.floats(weight + 1)?);
    let mut largest = vec![0.0f64; scales.len()];
    for (w, &i) in weights.iter().zip(&spread.index) {
        largest[i] = largest[i].max(w.tanh().abs());
    }
    Ok(Squeezed { weights, scales, spread, largest })
}

fn dorefa(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let w = ctx.operand(0)?;
    let top = (1u32 << bits(ctx, 8)?) - 1;
    let s = squeezed(ctx, 0)?;
    let odd = s.weights.iter().zip(&s.spread.index).map(|(w, &i)| odd_code(*w, s.largest[i], top));
    let y = on_odd_grid(ctx, ctx.operand(1)?, &s.scales, &s.spread, top, odd);
    ctx.make(w.elem(), w.dims(), &y)
}

/// The level of a weight, -top to top in steps of 2; `largest` is the largest |tanh| there is.
fn odd_code(w: f64, largest: f64, top: u32) -> f64 {
    let top = f64::from(top);
    if top == 1.0 {
        return if w < 0.0 { -1.0 } else { 1.0 };
    }
    let part = if largest > 0.0 { w.tanh() / (2.0 * largest) } else { 0.0 };
    let k = Rounding::HalfEven.f64(top * (part + 0.5));
    // NaN has the lowest level.
    2.0 * k.max(0.0).min(top) - top
}

/// Levels times their steps: scale over the highest level, rounded to the scale's type.
fn on_odd_grid(
    ctx: &OpCtx<'_>,
    scale: &Tensor,
    scales: &[f64],
    spread: &Spread,
    top: u32,
    levels: impl Iterator<Item = f64>,
) -> Vec<f64> {
    let steps: Vec<f64> = scales.iter().map(|s| rounded(ctx, scale, s / f64::from(top))).collect();
    levels.zip(spread.pick(&steps)).map(|(u, s)| u * s).collect()
}

fn dorefa_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, w, scale) = (ctx.operand(0)?, ctx.operand(1)?, ctx.operand(2)?);
    same_extents(ctx, dy, w.dims())?;
    let top = (1u32 << bits(ctx, 8)?) - 1;
    let s = squeezed(ctx, 1)?;
    let mut dw = ctx.floats(0)?;
    let mut dscale = vec![0.0; s.scales.len()];
    for ((d, &w), &i) in dw.iter_mut().zip(&s.weights).zip(&s.spread.index) {
        dscale[i] += *d * odd_code(w, s.largest[i], top) / f64::from(top);
        let t = w.tanh();
        *d *= s.scales[i]
            * match top {
                1 => f64::from(w.abs() <= 1.0),
                _ if s.largest[i] > 0.0 => (1.0 - t * t) / s.largest[i],
                _ => 0.0,
            };
    }
    Ok(vec![
        Tensor::from_f64s(w.elem(), w.dims(), &dw)?,
        Tensor::from_f64s(scale.elem(), scale.dims(), &dscale)?,
    ])
}

// ---- SLB ----

/// Logits, their scales, and what a weight has of them.
struct Choices {
    logits: Vec<f64>,
    levels: usize,
    dims: Vec<usize>,
    scales: Vec<f64>,
    spread: Spread,
}

fn choices(ctx: &OpCtx<'_>, place: usize) -> Result<Choices, OpError> {
    let (logits, scale) = (ctx.operand(place)?, ctx.operand(place + 1)?);
    let levels = 1usize << bits(ctx, 4)?;
    let dims = match logits.dims().split_last() {
        Some((&last, dims)) if last == levels => dims.to_vec(),
        _ => {
            let left = logits.dims().to_vec();
            return Err(OpError::Extents { what: "logits and levels", left, right: vec![levels] });
        }
    };
    ctx.allot(logits.dims())?;
    let spread = Spread::of(&dims, scale.dims(), ctx.int_if("axis"), 0)?;
    Ok(Choices { logits: ctx.floats(place)?, levels, dims, scales: ctx.floats(place + 1)?, spread })
}

impl Choices {
    fn top(&self) -> f64 {
        (self.levels - 1) as f64
    }

    /// The level with number `k`, -top to top.
    fn level(&self, k: usize) -> f64 {
        2.0 * k as f64 - self.top()
    }

    /// The level of the greatest logit, the first of equal ones.
    fn chosen(&self, logits: &[f64]) -> f64 {
        let mut best = 0;
        for (k, a) in logits.iter().enumerate() {
            if *a > logits[best] {
                best = k;
            }
        }
        self.level(best)
    }

    /// The softmax of the logits times tau, and the mean of the levels under it.
    fn softened(&self, logits: &[f64], tau: f64, p: &mut Vec<f64>) -> f64 {
        let greatest = logits.iter().fold(f64::NEG_INFINITY, |m, a| m.max(tau * a));
        p.clear();
        p.extend(logits.iter().map(|a| (tau * a - greatest).exp()));
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        p.iter().enumerate().map(|(k, p)| p * self.level(k)).sum()
    }
}

fn hard_weights(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (logits, scale) = (ctx.operand(0)?, ctx.operand(1)?);
    let c = choices(ctx, 0)?;
    let levels = c.logits.chunks_exact(c.levels).map(|l| c.chosen(l));
    let top = c.levels as u32 - 1;
    let y = on_odd_grid(ctx, scale, &c.scales, &c.spread, top, levels);
    ctx.make(logits.elem(), c.dims.clone(), &y)
}

fn slb(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    hard_weights(ctx)
}

/// An operand of one truth value.
fn truth(ctx: &OpCtx<'_>, place: usize) -> Result<bool, OpError> {
    match ctx.integers(place)?.as_slice() {
        [x] => Ok(*x != 0),
        _ => Err(OpError::Attr { name: "hard", reason: "must be one truth value" }),
    }
}

fn slb_train(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let tau = f64::from(ctx.scalar(2)?);
    if truth(ctx, 3)? {
        return hard_weights(ctx);
    }
    let logits = ctx.operand(0)?;
    let c = choices(ctx, 0)?;
    let mut p = Vec::with_capacity(c.levels);
    let means: Vec<f64> =
        c.logits.chunks_exact(c.levels).map(|l| c.softened(l, tau, &mut p) / c.top()).collect();
    let y: Vec<f64> = means.into_iter().zip(c.spread.pick(&c.scales)).map(|(m, s)| m * s).collect();
    ctx.make(logits.elem(), c.dims.clone(), &y)
}

fn slb_grad(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (dy, logits, scale) = (ctx.operand(0)?, ctx.operand(1)?, ctx.operand(2)?);
    let (tau, hard) = (f64::from(ctx.scalar(3)?), truth(ctx, 4)?);
    let c = choices(ctx, 1)?;
    same_extents(ctx, dy, &c.dims)?;
    let frozen = hard && ctx.word("hard_phase") == Some("frozen");
    let mut dlogits = Vec::with_capacity(c.logits.len());
    let mut dscale = vec![0.0; c.scales.len()];
    let mut p = Vec::with_capacity(c.levels);
    let weights = ctx.floats(0)?.into_iter().zip(&c.spread.index).zip(c.logits.chunks_exact(c.levels));
    for ((d, &i), l) in weights {
        let mean = c.softened(l, tau, &mut p);
        dscale[i] += d * if hard { c.chosen(l) } else { mean } / c.top();
        let factor = if frozen { 0.0 } else { d * c.scales[i] * tau / c.top() };
        dlogits.extend(p.iter().enumerate().map(|(k, p)| factor * p * (c.level(k) - mean)));
    }
    Ok(vec![
        Tensor::from_f64s(logits.elem(), logits.dims(), &dlogits)?,
        Tensor::from_f64s(scale.elem(), scale.dims(), &dscale)?,
    ])
}
