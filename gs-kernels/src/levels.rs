//! Weights on learned levels: squeezed by tanh and rounded (DoReFa, Zhou et al. 2016), or chosen among levels by logits (SLB,
//! Yang et al. 2020), and the derivatives. Levels are the odd numbers from -top to top, times a step.

use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::simd::Simd;
use super::softmax::exp;

/// 1.5 * 2^52: rounds to an integer when it is added and taken off again.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// Partial sums of a pass: fixed, so that every instruction set adds in the same order.
const LANES: usize = 16;

/// The hyperbolic tangent, within some units in the last place of 1.
#[inline(always)]
fn tanh(x: f32) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let x = 2.0 * f64::from(x);
    let x = if x > 40.0 { 40.0 } else { x };
    let x = if x < -40.0 { -40.0 } else { x };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    // The Taylor series of e^r up to r^13, |r| <= ln(2) / 2.
    let mut p = 1.0 / 6_227_020_800.0;
    let terms =
        [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0];
    for n in terms {
        p = p * r + 1.0 / n;
    }
    p = (p * r + 1.0) * r + 1.0;
    let exponent = (shifted.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64).wrapping_add(1023);
    let e = p * f64::from_bits((exponent as u64) << 52);
    1.0 - 2.0 / (e + 1.0)
}

/// The hyperbolic tangents of weights, and the greatest of their sizes.
///
/// # Errors
/// Lengths that differ.
pub fn squeeze(kernels: Kernels, w: &[f32], t: &mut [f64]) -> Result<f64, KernelError> {
    check_len("t", w.len(), t.len())?;
    Ok(kernels.run(Squeeze { w, t }))
}

struct Squeeze<'a> {
    w: &'a [f32],
    t: &'a mut [f64],
}

impl Job for Squeeze<'_> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut greatest = [0f64; LANES];
        for (w, t) in self.w.chunks(LANES).zip(self.t.chunks_mut(LANES)) {
            for i in 0..w.len() {
                t[i] = tanh(w[i]);
                greatest[i] = if t[i].abs() > greatest[i] { t[i].abs() } else { greatest[i] };
            }
        }
        greatest.iter().fold(0.0, |m, &v| if v > m { v } else { m })
    }
}

/// Weights that share a scale: how they are squeezed.
#[derive(Clone, Copy, Debug)]
pub struct Squeezed {
    /// The highest level: one less than there are.
    pub top: u32,
    /// The greatest |tanh|.
    pub greatest: f64,
    /// What the highest level stands for.
    pub scale: f32,
}

impl Squeezed {
    /// The level of a weight and its hyperbolic tangent.
    #[inline(always)]
    fn level(self, w: f32, t: f64) -> f64 {
        let top = f64::from(self.top);
        if self.top == 1 {
            return if w < 0.0 { -1.0 } else { 1.0 };
        }
        let part = if self.greatest > 0.0 { t / (2.0 * self.greatest) } else { 0.0 };
        let k = (top * (part + 0.5) + ROUND) - ROUND;
        let k = if k > 0.0 { k } else { 0.0 };
        2.0 * (if k < top { k } else { top }) - top
    }
}

/// `y`: the level of each weight times its step; `t` is from [`squeeze`].
///
/// # Errors
/// Lengths that differ.
pub fn dorefa(kernels: Kernels, s: Squeezed, w: &[f32], t: &[f64], y: &mut [f32]) -> Result<(), KernelError> {
    check_len("t", w.len(), t.len())?;
    check_len("y", w.len(), y.len())?;
    kernels.run(DoReFa { s, w, t, y });
    Ok(())
}

struct DoReFa<'a> {
    s: Squeezed,
    w: &'a [f32],
    t: &'a [f64],
    y: &'a mut [f32],
}

impl Job for DoReFa<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let step = self.s.scale / self.s.top as f32;
        for ((y, &w), &t) in self.y.iter_mut().zip(self.w).zip(self.t) {
            *y = self.s.level(w, t) as f32 * step;
        }
    }
}

/// `dw` from `dy`, and what the scale is given.
///
/// # Errors
/// Lengths that differ.
pub fn dorefa_grad(
    kernels: Kernels,
    s: Squeezed,
    dy: &[f32],
    w: &[f32],
    t: &[f64],
    dw: &mut [f32],
) -> Result<f64, KernelError> {
    check_len("dy", w.len(), dy.len())?;
    check_len("t", w.len(), t.len())?;
    check_len("dw", w.len(), dw.len())?;
    Ok(kernels.run(DoReFaGrad { s, dy, w, t, dw }))
}

struct DoReFaGrad<'a> {
    s: Squeezed,
    dy: &'a [f32],
    w: &'a [f32],
    t: &'a [f64],
    dw: &'a mut [f32],
}

impl Job for DoReFaGrad<'_> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (s, scale, top) = (self.s, f64::from(self.s.scale), f64::from(self.s.top));
        let mut sums = [0f64; LANES];
        let blocks = self.dw.chunks_mut(LANES).zip(self.dy.chunks(LANES));
        for ((dw, dy), (w, t)) in blocks.zip(self.w.chunks(LANES).zip(self.t.chunks(LANES))) {
            for i in 0..dw.len() {
                let d = f64::from(dy[i]);
                sums[i] += d * s.level(w[i], t[i]) / top;
                let slope = match s.top {
                    1 => f64::from(u8::from(w[i].abs() <= 1.0)),
                    _ if s.greatest > 0.0 => (1.0 - t[i] * t[i]) / s.greatest,
                    _ => 0.0,
                };
                dw[i] = (d * scale * slope) as f32;
            }
        }
        sums.iter().sum()
    }
}

/// How weights are chosen among levels.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// 2, 4, 8 or 16.
    pub levels: usize,
    /// What the highest level stands for.
    pub scale: f32,
    /// The logits' factor before the softmax.
    pub tau: f32,
    /// The level of the greatest logit, not their mean.
    pub hard: bool,
}

/// Weights from logits, `levels` for each.
///
/// # Errors
/// Lengths that do not fit, or another number of levels.
pub fn slb(kernels: Kernels, choice: Choice, logits: &[f32], w: &mut [f32]) -> Result<(), KernelError> {
    check_len("logits", w.len() * choice.levels, logits.len())?;
    match choice.levels {
        2 => kernels.run(Chosen::<2> { choice, logits, w }),
        4 => kernels.run(Chosen::<4> { choice, logits, w }),
        8 => kernels.run(Chosen::<8> { choice, logits, w }),
        16 => kernels.run(Chosen::<16> { choice, logits, w }),
        _ => return Err(KernelError::TooLarge),
    }
    Ok(())
}

/// Gradients of logits from those of weights, and what the scale is given; with `fixed` logits have none.
///
/// # Errors
/// Lengths that do not fit, or another number of levels.
pub fn slb_grad(
    kernels: Kernels,
    (choice, fixed): (Choice, bool),
    dy: &[f32],
    logits: &[f32],
    dlogits: &mut [f32],
) -> Result<f64, KernelError> {
    check_len("logits", dy.len() * choice.levels, logits.len())?;
    check_len("logits", logits.len(), dlogits.len())?;
    Ok(match choice.levels {
        2 => kernels.run(ChosenGrad::<2> { choice, fixed, dy, logits, dlogits }),
        4 => kernels.run(ChosenGrad::<4> { choice, fixed, dy, logits, dlogits }),
        8 => kernels.run(ChosenGrad::<8> { choice, fixed, dy, logits, dlogits }),
        16 => kernels.run(ChosenGrad::<16> { choice, fixed, dy, logits, dlogits }),
        _ => return Err(KernelError::TooLarge),
    })
}

/// The logits of some weights: those of one level side by side.
type Block<const L: usize> = [[f32; LANES]; L];

/// Up to [`LANES`] weights' logits.
#[inline(always)]
fn gather<const L: usize>(logits: &[f32]) -> Block<L> {
    let mut block = [[0.0; LANES]; L];
    for (i, l) in logits.as_chunks::<L>().0.iter().take(LANES).enumerate() {
        for k in 0..L {
            block[k][i] = l[k];
        }
    }
    block
}

#[inline(always)]
fn level<const L: usize>(k: usize) -> f32 {
    2.0 * k as f32 - (L - 1) as f32
}

/// The level of the greatest logit, the first of equal ones.
#[inline(always)]
fn greatest<const L: usize>(block: &Block<L>) -> [f32; LANES] {
    let (mut best, mut found) = (block[0], [level::<L>(0); LANES]);
    for (k, row) in block.iter().enumerate().skip(1) {
        for i in 0..LANES {
            let more = row[i] > best[i];
            best[i] = if more { row[i] } else { best[i] };
            found[i] = if more { level::<L>(k) } else { found[i] };
        }
    }
    found
}

/// Makes logits their softmax; the mean of the levels under it.
#[inline(always)]
fn soften<const L: usize>(block: &mut Block<L>, tau: f32) -> [f32; LANES] {
    let mut most = [f32::NEG_INFINITY; LANES];
    for row in block.iter_mut() {
        for i in 0..LANES {
            row[i] *= tau;
            most[i] = if row[i] > most[i] { row[i] } else { most[i] };
        }
    }
    let (mut sum, mut mean) = ([0f32; LANES], [0f32; LANES]);
    for (k, row) in block.iter_mut().enumerate() {
        for i in 0..LANES {
            row[i] = exp(row[i] - most[i]);
            sum[i] += row[i];
            mean[i] += row[i] * level::<L>(k);
        }
    }
    for row in block.iter_mut() {
        for i in 0..LANES {
            row[i] /= sum[i];
        }
    }
    for i in 0..LANES {
        mean[i] /= sum[i];
    }
    mean
}

struct Chosen<'a, const L: usize> {
    choice: Choice,
    logits: &'a [f32],
    w: &'a mut [f32],
}

impl<const L: usize> Job for Chosen<'_, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let top = (L - 1) as f32;
        let step = self.choice.scale / top;
        for (w, logits) in self.w.chunks_mut(LANES).zip(self.logits.chunks(LANES * L)) {
            let mut block = gather::<L>(logits);
            if self.choice.hard {
                let found = greatest(&block);
                w.iter_mut().zip(found).for_each(|(w, u)| *w = u * step);
            } else {
                let mean = soften(&mut block, self.choice.tau);
                w.iter_mut().zip(mean).for_each(|(w, m)| *w = m / top * self.choice.scale);
            }
        }
    }
}

struct ChosenGrad<'a, const L: usize> {
    choice: Choice,
    fixed: bool,
    dy: &'a [f32],
    logits: &'a [f32],
    dlogits: &'a mut [f32],
}

impl<const L: usize> Job for ChosenGrad<'_, L> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (top, choice) = ((L - 1) as f32, self.choice);
        let through = if self.fixed { 0.0 } else { choice.scale * choice.tau / top };
        let mut sums = [0f64; LANES];
        let blocks = self.logits.chunks(LANES * L).zip(self.dlogits.chunks_mut(LANES * L));
        for (dy, (logits, dlogits)) in self.dy.chunks(LANES).zip(blocks) {
            let mut d = [0f32; LANES];
            d[..dy.len()].copy_from_slice(dy);
            let mut p = gather::<L>(logits);
            let hard = greatest(&p);
            let mean = soften(&mut p, choice.tau);
            let unit = if choice.hard { hard } else { mean };
            for i in 0..LANES {
                sums[i] += f64::from(d[i]) * f64::from(unit[i]) / f64::from(top);
            }
            for (k, row) in p.iter_mut().enumerate() {
                for i in 0..LANES {
                    row[i] = d[i] * through * row[i] * (level::<L>(k) - mean[i]);
                }
            }
            for (i, l) in dlogits.as_chunks_mut::<L>().0.iter_mut().enumerate() {
                for k in 0..L {
                    l[k] = p[k][i];
                }
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperbolic_tangents_are_near_those_of_the_library() {
        let w: Vec<f32> =
            (-4000..4000).map(|i| i as f32 * 0.01).chain([1e-30, -1e30, f32::INFINITY]).collect();
        for kernels in Kernels::all() {
            let mut t = vec![0.0; w.len()];
            assert!((squeeze(kernels, &w, &mut t).unwrap() - 1.0).abs() < 1e-15);
            for (&w, &t) in w.iter().zip(&t) {
                assert!((f64::from(w).tanh() - t).abs() < 4e-16, "{t} for tanh {w}");
            }
            squeeze(kernels, &[f32::NAN; 3], &mut t[..3]).unwrap();
            assert!(t[0].is_nan());
        }
    }
}
