//! Running whole pieces: those of a level at the same time, evaluations of the reference evaluator one by one.

use super::piece::{Extents, Held, Home, Product, Whole, WholePiece};
use super::region::{NO_RANGE, Shared};
use super::state::State;
use gs_eval::{Bindings, ExecError};
use gs_ir::ValueId;
use gs_kernels::{
    self as k, Band, FakeQuant, GridRow, KernelError, LinearF32, LinearShape, Moments, NO_CLIP, WeightOrder,
};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::time::Instant;

/// Rows of a matrix product that are computed together.
const ROWS: usize = 32;

/// What evaluations need besides.
pub(super) struct Around<'a> {
    pub(super) extents: &'a [Option<Extents>],
    pub(super) home_of: &'a FxHashMap<ValueId, Home>,
    pub(super) buffer_of: &'a [usize],
}

/// Runs the pieces of a level.
///
/// # Errors
/// An evaluation that fails, or a defect of the plan.
pub(super) fn run_level(
    level: &[WholePiece<'_>],
    shared: &Shared<'_>,
    around: &Around<'_>,
    state: &mut State,
    symbols: &mut Bindings,
) -> Result<(), ExecError> {
    let failed = |e: KernelError| ExecError::Backend(e.to_string());
    let mut outs: Vec<(&WholePiece<'_>, Vec<Held>, Vec<f32>)> = Vec::with_capacity(level.len());
    for piece in level.iter().filter(|p| !matches!(p.kernel, Whole::Eval(_))) {
        let writes = piece.writes.iter().map(|&h| std::mem::take(&mut state.homes[h])).collect();
        let sums = piece.part.map_or_else(Vec::new, |p| std::mem::take(&mut state.singles[p]));
        outs.push((piece, writes, sums));
    }
    let fixed = &*state;
    let done = outs.par_iter_mut().try_for_each(|(piece, outs, sums)| {
        let begun = Instant::now();
        let done = Call { shared, around, state: fixed, piece }.run(outs, sums);
        if let Some(clock) = shared.profile {
            clock.add(piece.op, whole_name(&piece.kernel), begun.elapsed());
        }
        done
    });
    for (piece, writes, sums) in outs {
        for (&home, held) in piece.writes.iter().zip(writes) {
            state.homes[home] = held;
        }
        if let Some(part) = piece.part {
            state.singles[part] = sums;
        }
    }
    done.map_err(failed)?;
    for piece in level {
        let Whole::Eval(op) = &piece.kernel else { continue };
        let begun = Instant::now();
        let get = |v: ValueId| {
            let home = *around.home_of.get(&v)?;
            let dims = around.extents[home].as_ref().map_or(&[][..], |e| &e.dims);
            state.homes[home].tensor(dims).ok()
        };
        let made = op.run(&get, symbols, &mut |_, _| {})?;
        for (&home, tensor) in piece.writes.iter().zip(made) {
            state.homes[home] = Held::Tensor(tensor);
        }
        if let Some(clock) = shared.profile {
            clock.add(piece.op, "evaluator", begun.elapsed());
        }
    }
    Ok(())
}

/// A name for reports.
fn whole_name(kernel: &Whole<'_>) -> &'static str {
    match kernel {
        Whole::Leave(_) => "leave",
        Whole::PackConv => "pack weights: conv",
        Whole::PackInputGrad => "pack weights: conv_input_grad",
        Whole::Band => "band",
        Whole::WeightGrad(_) | Whole::DepthwiseWeightGrad(_) => "conv_weight_grad: total",
        Whole::Moments { .. } => "batch_norm_train: total",
        Whole::NormGrad { .. } => "batch_norm_grad: total",
        Whole::Sums(_) => "channel sums: total",
        Whole::Ranges { .. } | Whole::Observe { .. } => "observe",
        Whole::Grids(_) | Whole::FakeQuant(_) => "fake_quant of weights",
        Whole::FakeQuantGrad(_) | Whole::LearnedGrad { .. } => "fake_quant_grad of weights",
        Whole::DoReFa { .. } | Whole::Slb { .. } => "weights on levels",
        Whole::DoReFaGrad { .. } | Whole::SlbGrad { .. } => "gradients of weights on levels",
        Whole::Binary(_) | Whole::Clip(_) | Whole::Choose => "element by element",
        Whole::Product(_) => "matrix product",
        Whole::Swap { .. } => "transpose",
        Whole::CrossEntropy { .. } => "cross_entropy",
        Whole::CrossEntropyGrad { .. } => "cross_entropy_grad",
        Whole::Sgd(_) | Whole::AdamW(_) => "optimiser",
        Whole::Eval(_) => "evaluator",
    }
}

pub(super) struct Call<'c, 'p> {
    pub(super) shared: &'c Shared<'c>,
    around: &'c Around<'c>,
    pub(super) state: &'c State,
    pub(super) piece: &'c WholePiece<'p>,
}

impl Call<'_, '_> {
    pub(super) fn read(&self, i: usize) -> Result<&[f32], KernelError> {
        let home = self.piece.reads.get(i).ok_or(KernelError::OutputType)?;
        self.state.homes[*home].floats()
    }

    pub(super) fn scalar(&self, i: usize) -> Result<f32, KernelError> {
        self.read(i)?.first().copied().ok_or(KernelError::OutputType)
    }

    fn labels(&self, i: usize) -> Result<&[i64], KernelError> {
        let home = self.piece.reads.get(i).ok_or(KernelError::OutputType)?;
        match &self.state.homes[*home] {
            Held::Tensor(t) => t.as_i64().ok_or(KernelError::OutputType),
            _ => Err(KernelError::OutputType),
        }
    }

    /// A truth value; false, where none is read.
    fn flag(&self, i: usize) -> Result<bool, KernelError> {
        let Some(&home) = self.piece.reads.get(i) else { return Ok(false) };
        match &self.state.homes[home] {
            Held::Tensor(t) => {
                let value = t.to_ints().and_then(|v| v.first().copied());
                value.map(|v| v != 0).ok_or(KernelError::OutputType)
            }
            _ => Err(KernelError::OutputType),
        }
    }

    fn doubles(&self) -> Result<&[f64], KernelError> {
        let part = self.piece.part.ok_or(KernelError::OutputType)?;
        Ok(&self.state.doubles[part])
    }

    fn run(&self, outs: &mut [Held], sums: &mut [f32]) -> Result<(), KernelError> {
        match &self.piece.kernel {
            Whole::Leave(value) => self.leave(*value, first(outs)?),
            Whole::PackConv => match outs.first_mut() {
                Some(Held::Conv(conv)) => {
                    let bias = if self.piece.reads.len() > 1 { Some(self.read(1)?) } else { None };
                    conv.set_weights(self.read(0)?, bias)
                }
                _ => Err(KernelError::OutputType),
            },
            Whole::PackInputGrad => match outs.first_mut() {
                Some(Held::InputGrad(plan)) => plan.set_weights(self.read(0)?),
                Some(Held::DepthwiseGrad(plan)) => plan.set_weights(self.read(0)?),
                _ => Err(KernelError::OutputType),
            },
            Whole::Band => {
                let values = self.read(0)?;
                Band::new(values.len()).fill(first(outs)?, |c| values[c]);
                Ok(())
            }
            Whole::WeightGrad(plan) => plan.finish(sums, first(outs)?),
            Whole::DepthwiseWeightGrad(plan) => plan.finish(sums, first(outs)?),
            Whole::Moments { epsilon, keep } => self.moments(*epsilon, *keep, outs),
            Whole::NormGrad { n } => self.norm_grad(*n, outs),
            Whole::Sums(factor) => {
                let out = first(outs)?;
                let total = total(self.doubles()?, out.len());
                out.iter_mut().zip(total).for_each(|(o, t)| *o = (t * factor) as f32);
                Ok(())
            }
            Whole::Ranges { decay } => {
                let mut seen = NO_RANGE;
                sums.as_chunks().0.iter().for_each(|&range| k::widen(&mut seen, range));
                mixed(self.read(0)?, *decay, &[seen], first(outs)?);
                Ok(())
            }
            Whole::Observe { decay, channels } => {
                let mut seen = vec![NO_RANGE; channels.count];
                if channels.plane == 1 {
                    for row in self.read(0)?.chunks_exact(channels.count) {
                        // Zeros have one sign, as in `range_of`.
                        seen.iter_mut().zip(row).for_each(|(seen, &x)| k::widen(seen, [x + 0.0; 2]));
                    }
                    mixed(self.read(1)?, *decay, &seen, first(outs)?);
                    return Ok(());
                }
                for (plane, c) in self.read(0)?.chunks_exact(channels.plane).zip((0..channels.count).cycle())
                {
                    k::widen(&mut seen[c], k::range_of(self.shared.kernels, plane));
                }
                mixed(self.read(1)?, *decay, &seen, first(outs)?);
                Ok(())
            }
            Whole::Grids(kind) => {
                let made = first(outs)?.as_chunks_mut().0.iter_mut();
                made.zip(kind.all(self.read(0)?)).for_each(|(row, grid)| *row = grid.to_floats());
                Ok(())
            }
            Whole::LearnedGrad { learned, channels, factor } => {
                let plane = channels.plane;
                let (dy, x) = (self.read(0)?.chunks_exact(plane), self.read(1)?.chunks_exact(plane));
                let grids = self.read(2)?.chunks_exact(FakeQuant::LEN).enumerate().cycle();
                let [dx, given] = outs else { return Err(KernelError::OutputType) };
                let mut sums = vec![0.0; channels.count];
                for (((dx, dy), x), (c, grid)) in
                    dx.floats_mut()?.chunks_exact_mut(plane).zip(dy).zip(x).zip(grids)
                {
                    let grid = FakeQuant::from_floats(grid).ok_or(KernelError::OutputType)?;
                    let how = (*learned, grid, false);
                    sums[c] += k::learned_grad(self.shared.kernels, how, Some(dy), None, x, dx)?;
                }
                fill(given, |c| (sums[c] * factor) as f32)
            }
            Whole::FakeQuant(channels) => {
                let (x, y) = (self.read(0)?, first(outs)?);
                if channels.are_close() {
                    let row = GridRow::new(self.read(1)?, channels.plane);
                    return k::fake_quant_rows(self.shared.kernels, &row, x, y);
                }
                let planes = x.chunks_exact(channels.plane).zip(y.chunks_exact_mut(channels.plane));
                let grids = self.read(1)?.chunks_exact(FakeQuant::LEN).cycle();
                for ((x, y), grid) in planes.zip(grids) {
                    let grid = FakeQuant::from_floats(grid).ok_or(KernelError::OutputType)?;
                    k::fake_quant(self.shared.kernels, grid, x, y)?;
                }
                Ok(())
            }
            Whole::FakeQuantGrad(channels) => {
                let plane = channels.plane;
                if channels.are_close() {
                    let row = GridRow::new(self.read(2)?, plane);
                    let (dy, x) = (self.read(0)?, self.read(1)?);
                    return k::fake_quant_grad_rows(self.shared.kernels, &row, dy, x, first(outs)?);
                }
                let (dy, x) = (self.read(0)?.chunks_exact(plane), self.read(1)?.chunks_exact(plane));
                let grids = self.read(2)?.chunks_exact(FakeQuant::LEN).cycle();
                for (((dx, dy), x), grid) in first(outs)?.chunks_exact_mut(plane).zip(dy).zip(x).zip(grids) {
                    let grid = FakeQuant::from_floats(grid).ok_or(KernelError::OutputType)?;
                    k::fake_quant_grad(self.shared.kernels, grid, dy, x, dx)?;
                }
                Ok(())
            }
            Whole::Binary(function) => {
                function.run(self.shared.kernels, self.read(0)?, self.read(1)?, first(outs)?)
            }
            Whole::DoReFa { top, channels } => self.dorefa(*top, *channels, first(outs)?),
            Whole::DoReFaGrad { top, channels } => self.dorefa_grad(*top, *channels, outs),
            Whole::Slb { levels, channels } => self.slb(*levels, *channels, first(outs)?),
            Whole::SlbGrad { levels, channels, frozen } => self.slb_grad(*levels, *channels, *frozen, outs),
            Whole::Clip(clip) => k::clip(self.shared.kernels, self.read(0)?, *clip, first(outs)?),
            Whole::Choose => {
                let home = self.piece.reads.first().ok_or(KernelError::OutputType)?;
                let chosen = self.read(if self.state.homes[*home].holds()? { 1 } else { 2 })?;
                first(outs)?.copy_from_slice(chosen);
                Ok(())
            }
            Whole::Product(product) => self.product(product, first(outs)?),
            Whole::Swap { rows } => {
                let (x, y) = (self.read(0)?, first(outs)?);
                let columns = x.len() / rows.max(&1);
                for (i, row) in x.chunks_exact(columns.max(1)).enumerate() {
                    row.iter().enumerate().for_each(|(j, &v)| y[j * rows + i] = v);
                }
                Ok(())
            }
            Whole::CrossEntropy { smoothing, classes } => {
                let [loss, log_prob] = outs else { return Err(KernelError::OutputType) };
                let (rows, labels) = (self.read(0)?.par_chunks_exact(*classes), self.labels(1)?);
                let made = log_prob.floats_mut()?.par_chunks_exact_mut(*classes);
                let losses: Vec<f64> = (rows.zip(made).zip(labels))
                    .map(|((row, made), &label)| k::cross_entropy_row(row, label, *smoothing, made))
                    .collect::<Result<_, _>>()?;
                let mean = losses.iter().sum::<f64>() / losses.len() as f64;
                fill(loss, |_| mean as f32)
            }
            Whole::CrossEntropyGrad { smoothing, classes } => {
                let (rows, labels) = (self.read(1)?.par_chunks_exact(*classes), self.labels(2)?);
                let factor = f64::from(self.scalar(0)?) / labels.len() as f64;
                let made = first(outs)?.par_chunks_exact_mut(*classes);
                (rows.zip(made).zip(labels)).try_for_each(|((row, made), &label)| {
                    k::cross_entropy_grad_row(row, label, *smoothing, factor, made)
                })
            }
            Whole::Sgd(options) => {
                self.bring(2, outs)?;
                let [w, m] = outs else { return Err(KernelError::OutputType) };
                let (grad, lr) = (self.read(0)?, self.scalar(1)?);
                k::sgd(self.shared.kernels, *options, lr, grad, w.floats_mut()?, m.floats_mut()?)
            }
            Whole::AdamW(options) => {
                self.bring(3, outs)?;
                let [w, m, v] = outs else { return Err(KernelError::OutputType) };
                let home = self.piece.reads.get(2).ok_or(KernelError::OutputType)?;
                let Held::Tensor(step) = &self.state.homes[*home] else {
                    return Err(KernelError::OutputType);
                };
                let step = step.to_ints().and_then(|v| v.first().copied()).ok_or(KernelError::OutputType)?;
                let at = (self.scalar(1)?, i64::try_from(step).unwrap_or(i64::MAX));
                let all = [w.floats_mut()?, m.floats_mut()?, v.floats_mut()?].map(Vec::as_mut_slice);
                k::adamw(self.shared.kernels, *options, at, self.read(0)?, all)
            }
            Whole::Eval(_) => Err(KernelError::OutputType),
        }
    }

    /// Copies the old states, which are read from operand `from` on, to where they are changed.
    fn bring(&self, from: usize, outs: &mut [Held]) -> Result<(), KernelError> {
        for (i, out) in outs.iter_mut().enumerate().take(self.piece.reads.len().saturating_sub(from)) {
            out.floats_mut()?.clone_from(&self.read(from + i)?.to_vec());
        }
        Ok(())
    }

    fn leave(&self, value: usize, out: &mut [f32]) -> Result<(), KernelError> {
        let slot = &self.shared.values[value].slot;
        let (count, len) = (slot.count().max(1), slot.len().max(1));
        let from = &self.state.buffers[self.around.buffer_of[value]];
        out.par_chunks_exact_mut(count).zip(from.par_chunks_exact(len)).try_for_each(|(to, from)| match slot
            .image()
        {
            Some(image) => k::to_channels_first(from, image, to),
            None => {
                to.copy_from_slice(from);
                Ok(())
            }
        })
    }

    fn moments(&self, epsilon: f64, keep: f64, outs: &mut [Held]) -> Result<(), KernelError> {
        let [scale, bias, old_mean, old_var] = [self.read(0)?, self.read(1)?, self.read(2)?, self.read(3)?];
        let c = scale.len();
        let mut all = vec![0.0; Moments::len_of(c)];
        let mut sum = Moments::of(&mut all).ok_or(KernelError::OutputType)?;
        for part in self.doubles()?.chunks_exact(Moments::len_of(c)) {
            let (mean, squares) = part[1..].split_at(c);
            sum.add(part[0], |i| mean[i], |i| squares[i]);
        }
        let n = *sum.count;
        let [new_mean, new_var, mean, inv_std, affine] = outs else { return Err(KernelError::OutputType) };
        let unbiased = if n > 1.0 { n / (n - 1.0) } else { 1.0 };
        let frozen = self.flag(4)?;
        let centre = |i: usize| if frozen { f64::from(old_mean[i]) } else { sum.mean[i] };
        let var = |i: usize| if frozen { f64::from(old_var[i]) } else { sum.squares[i] / n.max(1.0) };
        let deviation = |i: usize| 1.0 / (var(i) + epsilon).sqrt();
        let running = |old: f32, new: f64| {
            if frozen { old } else { (keep * f64::from(old) + (1.0 - keep) * new) as f32 }
        };
        fill(new_mean, |i| running(old_mean[i], sum.mean[i]))?;
        fill(new_var, |i| running(old_var[i], var(i) * unbiased))?;
        fill(mean, |i| centre(i) as f32)?;
        fill(inv_std, |i| deviation(i) as f32)?;
        let affine = affine.floats_mut()?;
        let half = affine.len() / 2;
        let (factors, shifts) = affine.split_at_mut(half);
        let band = Band::new(c);
        let factor = |i: usize| f64::from(scale[i]) * deviation(i);
        band.fill(factors, |i| factor(i) as f32);
        band.fill(shifts, |i| (f64::from(bias[i]) - centre(i) * factor(i)) as f32);
        Ok(())
    }

    fn norm_grad(&self, n: f64, outs: &mut [Held]) -> Result<(), KernelError> {
        let (scale, mean, inv_std) = (self.read(0)?, self.read(1)?, self.read(2)?);
        let c = scale.len();
        let sums = total(self.doubles()?, 2 * c);
        let (dbias, scaled) = sums.split_at(c);
        let [dscale, out_dbias, factors] = outs else { return Err(KernelError::OutputType) };
        let wide = |v: &[f32], i: usize| f64::from(v[i]);
        fill(dscale, |i| (scaled[i] * wide(inv_std, i)) as f32)?;
        fill(out_dbias, |i| dbias[i] as f32)?;
        // dx = s * r * (dy - dbias / n - (x - mean) * r * dscale / n), with scale s and 1 / deviation r.
        let factors = factors.floats_mut()?;
        let third = factors.len() / 3;
        let (a, rest) = factors.split_at_mut(third);
        let (b, constant) = rest.split_at_mut(third);
        let band = Band::new(c);
        let first = |i: usize| wide(scale, i) * wide(inv_std, i);
        // Statistics that are given owe nothing to the input: their sums count for nothing.
        let n = if self.flag(3)? { f64::INFINITY } else { n };
        let second = |i: usize| -first(i) * wide(inv_std, i).powi(2) * scaled[i] / n;
        band.fill(a, |i| first(i) as f32);
        band.fill(b, |i| second(i) as f32);
        band.fill(constant, |i| (-first(i) * dbias[i] / n - second(i) * wide(mean, i)) as f32);
        Ok(())
    }

    fn product(&self, p: &Product, y: &mut [f32]) -> Result<(), KernelError> {
        let order = if p.trans_b { WeightOrder::OutIn } else { WeightOrder::InOut };
        let shape = LinearShape { inputs: p.k, outputs: p.n, order };
        let linear = LinearF32::new(self.shared.kernels, shape, self.read(1)?, None, NO_CLIP)?;
        let a = self.read(0)?;
        let swapped: Vec<f32>;
        let a = if p.trans_a {
            swapped = (0..p.m).flat_map(|i| a.iter().skip(i).step_by(p.m).copied()).collect();
            &swapped
        } else {
            a
        };
        y.par_chunks_mut(ROWS * p.n)
            .zip(a.par_chunks(ROWS * p.k))
            .try_for_each(|(y, a)| linear.run(a, None, y))?;
        if p.alpha != 1.0 {
            y.iter_mut().for_each(|v| *v *= p.alpha);
        }
        if self.piece.reads.len() > 2 {
            let c = self.read(2)?;
            // One element for all, for each column, for each row, or one each; a column of `n` comes first.
            let (down, right) = match c.len() {
                1 => (0, 0),
                len if len == p.m * p.n => (p.n, 1),
                len if len == p.n && self.is_row(2) => (0, 1),
                _ => (1, 0),
            };
            for (i, row) in y.chunks_exact_mut(p.n).enumerate() {
                row.iter_mut().enumerate().for_each(|(j, v)| *v += p.beta * c[i * down + j * right]);
            }
        }
        Ok(())
    }

    /// Whether the last axis of an operand has all its elements.
    fn is_row(&self, i: usize) -> bool {
        let home = self.piece.reads.get(i).and_then(|&h| self.around.extents[h].as_ref());
        home.is_some_and(|e| e.dims.last().copied() == Some(e.dims.iter().product()))
    }
}

fn first(outs: &mut [Held]) -> Result<&mut Vec<f32>, KernelError> {
    outs.first_mut().ok_or(KernelError::OutputType)?.floats_mut()
}

fn fill(out: &mut Held, value: impl Fn(usize) -> f32) -> Result<(), KernelError> {
    out.floats_mut()?.iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
    Ok(())
}

/// Ranges (minima, then maxima) mixed with what was seen; where nothing was, the old ones.
fn mixed(old: &[f32], decay: f64, seen: &[[f32; 2]], new: &mut [f32]) {
    let seen = [0, 1].into_iter().flat_map(|side| seen.iter().map(move |s| s[side]));
    for ((new, &old), seen) in new.iter_mut().zip(old).zip(seen) {
        let mix = decay * f64::from(old) + (1.0 - decay) * f64::from(seen);
        *new = if seen.is_finite() { mix as f32 } else { old };
    }
}

/// The sum of partial sums of `len` elements each, in their order.
fn total(parts: &[f64], len: usize) -> Vec<f64> {
    let mut all = vec![0.0; len];
    for part in parts.chunks_exact(len.max(1)) {
        all.iter_mut().zip(part).for_each(|(a, p)| *a += p);
    }
    all
}
