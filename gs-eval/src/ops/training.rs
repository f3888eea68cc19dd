//! Operators of training graphs: batch normalisation with the batch's statistics, losses, optimisers, schedules.

use super::ctx::{OpCtx, OpError};
use crate::tensor::Tensor;

pub(super) const TABLE: &[super::Row] = &[
    ("batch_norm_train", batch_norm_train),
    ("cross_entropy", cross_entropy),
    ("sgd", sgd),
    ("adamw", adamw),
    ("schedule", schedule),
];

fn batch_norm_train(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let channels = x.dims().get(1).copied().unwrap_or(1);
    let plane: usize = x.dims().iter().skip(2).product();
    let each = |i: usize| super::norm::per_channel(ctx, i, channels);
    let (scale, bias, old_mean, old_var) = (each(1)?, each(2)?, each(3)?, each(4)?);
    let (epsilon, keep) = (f64::from(ctx.float("epsilon")?), f64::from(ctx.float("momentum")?));
    ctx.allot(x.dims())?;
    let mut y = ctx.floats(0)?;
    let channel = |i: usize| i / plane.max(1) % channels.max(1);
    let n = y.len().checked_div(channels).unwrap_or(0) as f64;
    let (mut mean, mut var) = (vec![0.0; channels], vec![0.0; channels]);
    let frozen = flag(ctx, 5)?;
    if frozen {
        (mean, var) = (old_mean.clone(), old_var.clone());
    } else {
        y.iter().enumerate().for_each(|(i, v)| mean[channel(i)] += v / n);
        y.iter().enumerate().for_each(|(i, v)| var[channel(i)] += (v - mean[channel(i)]).powi(2) / n);
    }
    let inv_std: Vec<f64> = var.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
    y.iter_mut().enumerate().for_each(|(i, v)| {
        let c = channel(i);
        *v = (*v - mean[c]) * inv_std[c] * scale[c] + bias[c];
    });
    let running = |old: &[f64], new: &[f64], factor: f64| -> Vec<f64> {
        if frozen {
            return old.to_vec();
        }
        old.iter().zip(new).map(|(o, v)| keep * o + (1.0 - keep) * v * factor).collect()
    };
    // One element has no unbiased variance; its biased one, 0, stands for it.
    let unbiased = if n > 1.0 { n / (n - 1.0) } else { 1.0 };
    let of =
        |i: usize, v: &[f64]| Tensor::from_f64s(ctx.operand(i)?.elem(), [channels], v).map_err(OpError::from);
    Ok(vec![
        Tensor::from_f64s(x.elem(), x.dims(), &y)?,
        of(3, &running(&old_mean, &mean, 1.0))?,
        of(4, &running(&old_var, &var, unbiased))?,
        of(1, &mean)?,
        of(1, &inv_std)?,
    ])
}

/// The truth value that is an operand; false, where there is none.
///
/// # Errors
/// Where it is none, or several.
pub(super) fn flag(ctx: &OpCtx<'_>, index: usize) -> Result<bool, OpError> {
    match ctx.optional(index) {
        None => Ok(false),
        Some(t) => match t.to_ints().as_deref() {
            Some([v]) => Ok(*v != 0),
            _ => Err(ctx.wrong_elem(index)),
        },
    }
}

/// One class for each row of logits of these extents.
///
/// # Errors
/// Where there is not one for each row, or one is no class.
pub(super) fn labels(ctx: &OpCtx<'_>, index: usize, logits: &[usize]) -> Result<Vec<usize>, OpError> {
    let [rows, classes] = logits else {
        return Err(OpError::Rank { operand: "logits", found: logits.len(), expected: 2 });
    };
    let labels = ctx.integers(index)?;
    if labels.len() != *rows {
        return Err(OpError::Extents {
            what: "labels and rows",
            left: vec![labels.len()],
            right: vec![*rows],
        });
    }
    let class = |l: i64| usize::try_from(l).ok().filter(|l| l < classes);
    labels.into_iter().map(|l| class(l).ok_or(OpError::Index { index: l, extent: *classes })).collect()
}

/// The probability that a class should have, if it is the label and if it is not.
pub(super) fn target(ctx: &OpCtx<'_>, classes: usize) -> Result<impl Fn(bool) -> f64, OpError> {
    let smoothing = f64::from(ctx.float("label_smoothing")?);
    let everywhere = smoothing / classes.max(1) as f64;
    Ok(move |label| if label { 1.0 - smoothing + everywhere } else { everywhere })
}

fn cross_entropy(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let logits = ctx.operand(0)?;
    ctx.need_rank(0, 2)?;
    let classes = logits.dims().get(1).copied().unwrap_or(0);
    let labels = labels(ctx, 1, logits.dims())?;
    let target = target(ctx, classes)?;
    ctx.allot(logits.dims())?;
    let mut rows = ctx.floats(0)?;
    let mut loss = 0.0;
    for (row, label) in rows.chunks_exact_mut(classes.max(1)).zip(&labels) {
        super::norm::log_softmax_row(row);
        loss -= row.iter().enumerate().map(|(c, p)| target(c == *label) * p).sum::<f64>();
    }
    let loss = loss / labels.len() as f64;
    Ok(vec![
        Tensor::from_f64s(logits.elem(), [], &[loss])?,
        Tensor::from_f64s(logits.elem(), logits.dims(), &rows)?,
    ])
}

/// The operands as numbers, all of the extents of the first.
fn states<const N: usize>(ctx: &OpCtx<'_>) -> Result<[Vec<f64>; N], OpError> {
    let param = ctx.operand(0)?;
    let mut out = [const { Vec::new() }; N];
    for (i, values) in out.iter_mut().enumerate() {
        let state = ctx.operand(i)?;
        if state.dims() != param.dims() {
            let (left, right) = (param.dims().to_vec(), state.dims().to_vec());
            return Err(OpError::Extents { what: "parameter and state", left, right });
        }
        *values = ctx.floats(i)?;
    }
    ctx.allot(param.dims())?;
    Ok(out)
}

fn made<const N: usize>(ctx: &OpCtx<'_>, values: [Vec<f64>; N]) -> Result<Vec<Tensor>, OpError> {
    let param = ctx.operand(0)?;
    values.iter().map(|v| Ok(Tensor::from_f64s(param.elem(), param.dims(), v)?)).collect()
}

fn sgd(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let [mut w, g, mut m] = states(ctx)?;
    let lr = f64::from(ctx.scalar(3)?);
    let (momentum, decay) = (f64::from(ctx.float("momentum")?), f64::from(ctx.float("weight_decay")?));
    let nesterov = ctx.flag("nesterov");
    for ((w, g), m) in w.iter_mut().zip(g).zip(&mut m) {
        let g = g + decay * *w;
        *m = momentum * *m + g;
        *w -= lr * if nesterov { g + momentum * *m } else { *m };
    }
    made(ctx, [w, m])
}

fn adamw(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let [mut w, g, mut m, mut v] = states(ctx)?;
    let lr = f64::from(ctx.scalar(4)?);
    let step = *ctx.integers(5)?.first().ok_or(OpError::MissingOperand("step"))?;
    let of = |name| ctx.float(name).map(f64::from);
    let (b1, b2, epsilon, decay) = (of("beta1")?, of("beta2")?, of("epsilon")?, of("weight_decay")?);
    let t = step.saturating_add(1).clamp(1, i64::from(i32::MAX)) as i32;
    let (c1, c2) = (1.0 - b1.powi(t), 1.0 - b2.powi(t));
    for (((w, g), m), v) in w.iter_mut().zip(g).zip(&mut m).zip(&mut v) {
        *m = b1 * *m + (1.0 - b1) * g;
        *v = b2 * *v + (1.0 - b2) * g * g;
        *w -= lr * (*m / c1 / ((*v / c2).sqrt() + epsilon) + decay * *w);
    }
    made(ctx, [w, m, v])
}

fn schedule(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let step = *ctx.integers(0)?.first().ok_or(OpError::MissingOperand("step"))? as f64;
    let (base, end) = (f64::from(ctx.float("base")?), f64::from(ctx.float("end")?));
    let (steps, warmup) = (ctx.int("steps")? as f64, ctx.int("warmup")? as f64);
    // How far along the way from the end of the warm-up to the end it is.
    let way = ((step - warmup) / (steps - warmup).max(1.0)).clamp(0.0, 1.0);
    let rate = match ctx.word("kind").unwrap_or("constant") {
        _ if step < warmup => base * (step + 1.0) / warmup,
        "cosine" => end + (base - end) * (1.0 + (std::f64::consts::PI * way).cos()) / 2.0,
        "linear" => base + (end - base) * way,
        "geometric" => {
            let (from, until) = (f64::from(ctx.float("from")?), f64::from(ctx.float("until")?));
            let way = (step - from * steps) / ((until - from) * steps).max(1.0);
            base * (end / base).powf(way.clamp(0.0, 1.0))
        }
        "milestones" => {
            let passed = ctx.ints_if("milestones").unwrap_or(&[]).iter().filter(|m| **m as f64 <= step);
            base * f64::from(ctx.float("gamma")?).powi(passed.count() as i32)
        }
        _ => base,
    };
    ctx.make(gs_ir::ElemType::F32, [], &[rate])
}
