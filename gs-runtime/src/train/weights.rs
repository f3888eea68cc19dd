//! Weights on learned levels: which kernels run them, and running them. They are the plan's largest whole pieces, so each is
//! cut in fixed parts that run at the same time.

use super::build::{Builder, Found};
use super::piece::{Channels, Held, Whole};
use super::wave::Call;
use gs_eval::ExecError;
use gs_ir::{OpId, ValueId};
use gs_kernels::{self as k, Choice, KernelError, Squeezed};
use rayon::prelude::*;

/// Weights with one scale that are computed together.
const PART: usize = 4096;

impl Builder<'_, '_> {
    /// A weight on levels (`slb` from logits, `dorefa` from weights), or its gradient.
    pub(super) fn weight_on_levels(&mut self, op: OpId) -> Result<Found, ExecError> {
        let name = self.module.op_name(op);
        let (grad, logits) = (name.ends_with("_grad"), name.starts_with("slb"));
        let operands: Vec<ValueId> = self.module.op(op).present_operands().collect();
        let results = self.module.op(op).results().to_vec();
        let at = usize::from(grad);
        let (Some(&from), Some(&scale)) = (operands.get(at), operands.get(at + 1)) else { return Ok(None) };
        let bits = u32::try_from(self.attrs(op).int("bits", if logits { 2 } else { 4 })).ok();
        let Some(bits) = bits.filter(|b| (1..=if logits { 4 } else { 8 }).contains(b)) else {
            return Ok(None);
        };
        // The value that has the extents of weights.
        let weights = match (grad, logits) {
            (true, _) => operands[0],
            (false, true) => results[0],
            (false, false) => from,
        };
        let Some(channels) = self.laid_over(op, weights, scale, None) else { return Ok(None) };
        let levels = 1usize << bits;
        let top = (1u32 << bits) - 1;
        let frozen = self.attrs(op).str("hard_phase") == Some("frozen");
        let kernel = match (logits, grad) {
            (false, false) => Whole::DoReFa { top, channels },
            (false, true) => Whole::DoReFaGrad { top, channels },
            (true, false) => Whole::Slb { levels, channels },
            (true, true) => Whole::SlbGrad { levels, channels, frozen },
        };
        let mut reads = Vec::with_capacity(operands.len());
        for v in operands {
            reads.push(self.read_home(v)?);
        }
        let mut writes = Vec::new();
        for (i, v) in results.into_iter().enumerate() {
            let len = match i {
                0 if v.is_none() => self.f32_dims(from).map_or(0, |d| d.iter().product()),
                _ => channels.count,
            };
            let home = if v.is_none() { Some(self.floats_home(len)) } else { self.make_home(v) };
            writes.push(home.ok_or(ExecError::Undefined(v))?);
        }
        self.whole(Some(op), kernel, reads, writes, None);
        Ok(Some(()))
    }
}

/// Elements of a part: those of a channel that lie in a row, or fewer where all have one scale.
fn part(channels: Channels) -> usize {
    if channels.count == 1 { PART.min(channels.plane) } else { channels.plane }
}

/// How many parts a thread takes at once, so that parts of few elements (channels on the last axis) are no tasks of their own.
fn together(part: usize) -> usize {
    (PART / part.max(1)).max(1)
}

impl Call<'_, '_> {
    pub(super) fn dorefa(&self, top: u32, channels: Channels, y: &mut [f32]) -> Result<(), KernelError> {
        let (w, scales) = (self.read(0)?, self.read(1)?);
        let (t, greatest) = self.squeezed(w, channels)?;
        let n = part(channels);
        let all = y.par_chunks_mut(n).zip(w.par_chunks(n)).zip(t.par_chunks(n)).enumerate();
        all.with_min_len(together(n)).try_for_each(|(i, ((y, w), t))| {
            let c = i % channels.count;
            let s = Squeezed { top, greatest: greatest[c], scale: scales[c] };
            k::dorefa(self.shared.kernels, s, w, t, y)
        })
    }

    pub(super) fn dorefa_grad(
        &self,
        top: u32,
        channels: Channels,
        outs: &mut [Held],
    ) -> Result<(), KernelError> {
        let (dy, w, scales) = (self.read(0)?, self.read(1)?, self.read(2)?);
        let [dw, given] = outs else { return Err(KernelError::OutputType) };
        let (t, greatest) = self.squeezed(w, channels)?;
        let n = part(channels);
        let all = dw.floats_mut()?.par_chunks_mut(n).zip(dy.par_chunks(n));
        let sums: Vec<f64> = all
            .zip(w.par_chunks(n).zip(t.par_chunks(n)))
            .enumerate()
            .with_min_len(together(n))
            .map(|(i, ((dw, dy), (w, t)))| {
                let c = i % channels.count;
                let s = Squeezed { top, greatest: greatest[c], scale: scales[c] };
                k::dorefa_grad(self.shared.kernels, s, dy, w, t, dw)
            })
            .collect::<Result<_, _>>()?;
        give(&sums, channels, given)
    }

    /// The hyperbolic tangents of weights, and the greatest of each channel.
    fn squeezed(&self, w: &[f32], channels: Channels) -> Result<(Vec<f64>, Vec<f64>), KernelError> {
        let mut t = vec![0.0; w.len()];
        let n = part(channels);
        let each: Vec<f64> = (t.par_chunks_mut(n).zip(w.par_chunks(n)))
            .with_min_len(together(n))
            .map(|(t, w)| k::squeeze(self.shared.kernels, w, t))
            .collect::<Result<_, _>>()?;
        let mut greatest = vec![0.0; channels.count];
        for (i, &v) in each.iter().enumerate() {
            let all: &mut f64 = &mut greatest[i % channels.count];
            *all = if v > *all { v } else { *all };
        }
        Ok((t, greatest))
    }

    /// How channel `c` is chosen; `at` is the place of the scales.
    fn choice(&self, levels: usize, at: usize, c: usize) -> Result<Choice, KernelError> {
        let scale = *self.read(at)?.get(c).ok_or(KernelError::OutputType)?;
        let (tau, hard) = match self.piece.reads.get(at + 2) {
            Some(&home) => (self.scalar(at + 1)?, self.state.homes[home].holds()?),
            None => (1.0, true),
        };
        Ok(Choice { levels, scale, tau, hard })
    }

    pub(super) fn slb(&self, levels: usize, channels: Channels, w: &mut [f32]) -> Result<(), KernelError> {
        let n = part(channels);
        let all = w.par_chunks_mut(n).zip(self.read(0)?.par_chunks(n * levels)).enumerate();
        all.with_min_len(together(n)).try_for_each(|(i, (w, logits))| {
            k::slb(self.shared.kernels, self.choice(levels, 1, i % channels.count)?, logits, w)
        })
    }

    pub(super) fn slb_grad(
        &self,
        levels: usize,
        channels: Channels,
        frozen: bool,
        outs: &mut [Held],
    ) -> Result<(), KernelError> {
        let [dlogits, given] = outs else { return Err(KernelError::OutputType) };
        let n = part(channels);
        let (dy, logits) = (self.read(0)?.par_chunks(n), self.read(1)?.par_chunks(n * levels));
        let all = dlogits.floats_mut()?.par_chunks_mut(n * levels).zip(dy).zip(logits).enumerate();
        let sums: Vec<f64> = all
            .with_min_len(together(n))
            .map(|(i, ((dlogits, dy), logits))| {
                let choice = self.choice(levels, 2, i % channels.count)?;
                k::slb_grad(self.shared.kernels, (choice, frozen && choice.hard), dy, logits, dlogits)
            })
            .collect::<Result<_, _>>()?;
        give(&sums, channels, given)
    }
}

/// The sums of parts to those of channels, in their order.
fn give(sums: &[f64], channels: Channels, given: &mut Held) -> Result<(), KernelError> {
    let mut all = vec![0.0; channels.count];
    sums.iter().enumerate().for_each(|(i, s)| all[i % channels.count] += s);
    given.floats_mut()?.iter_mut().zip(all).for_each(|(g, s)| *g = s as f32);
    Ok(())
}
