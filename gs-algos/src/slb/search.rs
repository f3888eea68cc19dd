//! The two ends of the search: logits that stand for a pretrained weight, and the soft weights of training.

use super::config::{HardPhase, ScaleInit, SlbConfig};
use crate::algorithm::RunLength;
use crate::calibrate::check_finite;
use crate::learned::{LEAST_STEP, Magnitude, set_values};
use crate::quant::ChannelLayout;
use crate::quantisers::axis_of;
use gs_eval::Materializer;
use gs_ir::{At, Attr, AttrSet, Literal, Module, OpId, Rewriter, Role, ValueId};
use gs_passes::manager::PassError;
use gs_passes::rules::Placed;
use gs_passes::rules::build::constant;
use gs_passes::training::{step_counter, train_graph};

/// The scale over the mean |w| at which levels have the least squared error for normally distributed weights, by bits.
const SCALES: [f64; 5] = [1.0, 1.0, 1.87, 2.57, 3.15];

/// Gives a choice that was placed its first logits and scale: the nearest level has the greatest logit, and the soft
/// weight at temperature 1 is close to the weight.
///
/// # Errors
/// A weight that cannot be read or is not finite.
pub(super) fn begin(module: &mut Module, placed: &Placed, config: &SlbConfig) -> Result<(), PassError> {
    let op = placed.op;
    let global = |place: usize| module.op(op).operand(place).and_then(|v| module.as_global(v));
    let (Some(logits), Some(scale)) = (global(0), global(1)) else { return Ok(()) };
    let weight = module.global_named(&placed.value).ok_or_else(|| format!("no weight @{}", placed.value))?;
    let attrs = module.attrs_of(op);
    let bits = attrs.int("bits", 2).clamp(1, 4) as usize;
    let axis = axis_of(module, op);
    let tensor = Materializer::new(module).tensor(weight)?;
    let values: Vec<f32> = tensor.to_f64s().unwrap_or_default().into_iter().map(|v| v as f32).collect();
    check_finite(&placed.value, &values)?;
    let scales = first_scales(&values, tensor.dims(), axis, bits, config.init)?;
    let inner: usize = axis.map_or(1, |a| tensor.dims().iter().skip(a + 1).product());
    let channel = |i: usize| i / inner.max(1) % scales.len().max(1);
    let first = first_logits(&values, |i| scales.get(channel(i)).copied().unwrap_or(1.0), bits);
    let mut rewriter = Rewriter::new(module);
    set_values(&mut rewriter, logits, &first);
    set_values(&mut rewriter, scale, &scales);
    if !config.train_scale {
        rewriter.set_role(scale, Role::State, false);
    }
    Ok(())
}

/// The scales of the levels, one or one for each element of `axis`.
///
/// # Errors
/// A bad axis.
fn first_scales(
    values: &[f32],
    dims: &[usize],
    axis: Option<usize>,
    bits: usize,
    init: ScaleInit,
) -> Result<Vec<f32>, PassError> {
    let layout = match axis {
        Some(axis) => ChannelLayout::new(dims, axis)?,
        None => ChannelLayout::new(&[1, values.len()], 0)?,
    };
    layout.check(values.len())?;
    let scale = |c: usize| {
        let mut m = Magnitude::default();
        layout.runs(values, c).for_each(|run| m.observe(run));
        let mean = (SCALES[bits] * m.mean().unwrap_or(0.0)) as f32;
        // Of two levels the mean is the best there is.
        let scale = match init {
            ScaleInit::Mse if bits > 1 => best_scale(&|| layout.runs(values, c).flatten(), m.largest(), bits),
            _ => mean,
        };
        scale.max(LEAST_STEP)
    };
    Ok((0..layout.channels()).map(scale).collect())
}

/// Scales that are tried: so many parts of the largest |w|.
const PARTS: u32 = 80;

/// The scale at which the levels nearest to the weights have the least squared error.
fn best_scale<'v, I: Iterator<Item = &'v f32>>(weights: &dyn Fn() -> I, largest: f32, bits: usize) -> f32 {
    let top = f64::from((1u32 << bits) - 1);
    let error = |scale: f64| -> f64 {
        let step = 2.0 * scale / top;
        let distance = |w: f64| {
            let k = ((w + scale) / step).round().clamp(0.0, top);
            (w - (k * step - scale)).powi(2)
        };
        weights().map(|w| distance(f64::from(*w))).sum()
    };
    let tried = (PARTS / 5..=PARTS).map(|i| f64::from(largest) * f64::from(i) / f64::from(PARTS));
    let best = tried.map(|s| (error(s), s)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(largest, |(_, s)| s as f32)
}

/// -kappa (w / scale - v)^2 for each weight and level v, kappa = 2 / distance^2: the softmax at temperature 1 then has
/// about the weight as its mean.
fn first_logits(values: &[f32], scale: impl Fn(usize) -> f32, bits: usize) -> Vec<f32> {
    let top = f64::from((1u32 << bits) - 1);
    let kappa = top * top / 2.0;
    let mut logits = Vec::with_capacity(values.len() << bits);
    for (i, v) in values.iter().enumerate() {
        let w = f64::from(*v) / f64::from(scale(i));
        logits.extend((0..1u32 << bits).map(|k| {
            let level = (2.0 * f64::from(k) - top) / top;
            (-kappa * (w - level).powi(2)) as f32
        }));
    }
    logits
}

/// Lets the weights of `@train` be soft until the search is over: their temperature rises by the same factor at each
/// step between `t_start` and `t_end`, then they are hard. Both follow from the step counter alone, so that a run that
/// goes on has them right.
///
/// # Errors
/// Where there is no graph `@train`.
pub(super) fn soften(module: &mut Module, config: &SlbConfig, length: RunLength) -> Result<(), PassError> {
    let train = train_graph(module).ok_or("there is no graph @train; run `loss` first")?;
    let mut rewriter = Rewriter::new(module);
    let ops: Vec<OpId> = rewriter.ops_in(train).filter(|&op| rewriter.is(op, "slb")).collect();
    let Some(&first) = ops.first() else { return Ok(()) };
    let step = step_counter(&mut rewriter, train)?;
    let at = At::Before(first);
    let steps = i64::try_from(length.steps).unwrap_or(i64::MAX);
    let mut attrs = AttrSet::new();
    attrs.set("kind", Attr::str("geometric"));
    attrs.set("steps", Attr::Int(steps));
    for (name, value) in [
        ("base", config.tau_start),
        ("end", config.tau_end),
        ("from", config.t_start),
        ("until", config.t_end),
    ] {
        attrs.set(name, Attr::float(value));
    }
    let tau = rewriter.emit("schedule", &[step], attrs, at)?;
    let over = (f64::from(config.t_end) * length.steps as f64).ceil() as i64;
    let over = constant(&mut rewriter, &Literal::new(gs_ir::ElemType::I64, [], over.to_le_bytes().to_vec()));
    let over = rewriter.global(over).value;
    let hard = rewriter.emit("greater_or_equal", &[step, over], AttrSet::new(), at)?;
    for op in ops {
        soft(&mut rewriter, op, [tau, hard], config.hard_phase)?;
    }
    Ok(())
}

/// Replaces a choice by its form in training.
fn soft(
    rewriter: &mut Rewriter<'_>,
    op: OpId,
    [tau, hard]: [ValueId; 2],
    phase: HardPhase,
) -> Result<(), PassError> {
    let (Some(logits), Some(scale)) = (rewriter.op(op).operand(0), rewriter.op(op).operand(1)) else {
        return Ok(());
    };
    let mut attrs = rewriter.attrs_of(op).clone();
    if phase == HardPhase::Frozen {
        attrs.set("hard_phase", Attr::str("frozen"));
    }
    let new = rewriter.emit("slb_train", &[logits, scale, tau, hard], attrs, At::Before(op))?;
    let old = rewriter.op(op).result();
    rewriter.replace_uses(old, new);
    rewriter.erase(op);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_the_least_error() {
        // Weights that are levels, some of them beyond the outermost.
        let values: Vec<f32> = (0..64).map(|i| [-0.3, -0.1, 0.1, 0.3][i % 4]).collect();
        let found = first_scales(&values, &[4, 16], Some(0), 2, ScaleInit::Mse).unwrap();
        assert!(found.iter().all(|s| (s - 0.3).abs() < 0.005), "{found:?}");
        let mean = first_scales(&values, &[4, 16], None, 2, ScaleInit::Mean).unwrap();
        assert!(mean.len() == 1 && (mean[0] - 1.87 * 0.2).abs() < 1e-6, "{mean:?}");
        let one = first_scales(&values, &[4, 16], None, 1, ScaleInit::Mse).unwrap();
        assert!((one[0] - 0.2).abs() < 1e-6, "{one:?}");
        assert_eq!(first_scales(&[0.0; 8], &[8], None, 4, ScaleInit::Mse).unwrap(), [LEAST_STEP]);
    }

    #[test]
    fn the_nearest_level_has_the_greatest_logit_and_the_mean_is_the_weight() {
        for bits in [1usize, 2, 4] {
            let top = f64::from((1u32 << bits) - 1);
            let values: Vec<f32> = (0..41).map(|i| i as f32 * 0.05 - 1.0).collect();
            let logits = first_logits(&values, |_| 0.5, bits);
            for (v, l) in values.iter().zip(logits.chunks_exact(1 << bits)) {
                let w = f64::from(*v) / 0.5;
                let level = |k: usize| (2.0 * k as f64 - top) / top;
                let best = (0..l.len()).max_by(|&a, &b| l[a].total_cmp(&l[b])).unwrap();
                let nearest = (0..l.len()).map(|k| (w - level(k)).abs()).fold(f64::INFINITY, f64::min);
                assert!((w - level(best)).abs() <= nearest + 1e-6, "{bits} bits, {w}");
                let p: Vec<f64> = l.iter().map(|a| f64::from(*a).exp()).collect();
                let mean = (0..l.len()).map(|k| p[k] * level(k)).sum::<f64>() / p.iter().sum::<f64>();
                if bits > 1 && w.abs() < 0.9 {
                    assert!((mean - w).abs() < 0.05, "{bits} bits: {mean} for {w}");
                }
            }
        }
    }
}
