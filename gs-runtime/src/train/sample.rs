//! Running one sample piece on a few samples.

use super::build::layout;
use super::piece::{GateKind, Held, Rounded, Sample, SamplePiece};
use super::region::{NO_RANGE, Shared, Slice};
use super::state::State;
use crate::plan::buffer::{Reads, Source, Target, Write};
use crate::plan::slot::Slot;
use gs_kernels::{
    self as k, ChannelSum, FakeQuant, Gate, Keep, KernelError, Moments, Quantised, Scratch, Term,
};
use smallvec::SmallVec;

/// A name for reports.
pub(super) fn sample_name(kernel: &Sample) -> &'static str {
    match kernel {
        Sample::Enter => "enter",
        Sample::Conv => "conv",
        Sample::InputGrad => "conv_input_grad",
        Sample::WeightGrad(_) | Sample::DepthwiseWeightGrad(_) => "conv_weight_grad",
        Sample::Unary(_) | Sample::Binary(_) => "element by element",
        Sample::SumPixels(_) => "sum of pixels",
        Sample::Moments => "batch_norm_train: moments",
        Sample::ChannelSums => "channel sums",
        Sample::Sum { rounded: None, .. } => "sum, scale, limit",
        Sample::Sum { rounded: Some(_), .. } => "sum, scale, limit, round, range",
        Sample::Choose => "where",
        Sample::Range => "range",
        Sample::Gated(GateKind::Relu) => "relu_grad",
        Sample::Gated(_) => "gradient of a quantiser",
        Sample::NormGradSums => "batch_norm_grad: sums",
        Sample::NormGradApply => "batch_norm_grad: apply",
        Sample::AveragePoolGrad { .. } => "average_pool_grad",
        Sample::MaxPoolGrad(_) => "max_pool_grad",
        Sample::Spread(_) => "broadcast",
        Sample::Scatter(_) => "slice_grad",
        Sample::Forward(_) => "inference kernel",
    }
}

/// One piece on `n` samples: what it reads.
#[derive(Clone, Copy)]
pub(super) struct Call<'c> {
    pub(super) shared: &'c Shared<'c>,
    pub(super) state: &'c State,
    pub(super) piece: &'c SamplePiece,
    /// The first sample, counted in the batch.
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) reads: &'c [&'c [f32]],
}

/// What it writes.
pub(super) struct Outs<'c, 'j> {
    pub(super) y: &'c mut [f32],
    pub(super) kept: &'c mut [f32],
    pub(super) sums: Option<&'c mut Slice<'j>>,
    pub(super) scratch: &'c mut Scratch,
}

impl Outs<'_, '_> {
    fn doubles(&mut self) -> Result<(&mut [f64], &mut Scratch), KernelError> {
        match &mut self.sums {
            Some(Slice::Double(sums)) => Ok((sums, self.scratch)),
            _ => Err(KernelError::OutputType),
        }
    }
}

impl<'c> Call<'c> {
    fn slot(self, i: usize) -> Result<&'c Slot, KernelError> {
        let value = self.piece.reads.get(i).ok_or(KernelError::OutputType)?;
        Ok(&self.shared.values[*value].slot)
    }

    fn result(self) -> Result<&'c Slot, KernelError> {
        let value = self.piece.write.ok_or(KernelError::OutputType)?;
        Ok(&self.shared.values[value].slot)
    }

    fn home(self, i: usize) -> Result<&'c Held, KernelError> {
        let home = self.piece.homes.get(i).ok_or(KernelError::OutputType)?;
        Ok(&self.state.homes[*home])
    }

    fn read(self, i: usize) -> Result<&'c [f32], KernelError> {
        self.reads.get(i).copied().ok_or(KernelError::OutputType)
    }

    /// Sample `i` of what is read as operand `k`.
    fn sample(self, k: usize, i: usize) -> Result<&'c [f32], KernelError> {
        let len = self.slot(k)?.len();
        self.read(k)?.get(i * len..(i + 1) * len).ok_or(KernelError::OutputType)
    }

    pub(super) fn run(self, outs: &mut Outs<'_, '_>) -> Result<(), KernelError> {
        match &self.piece.kernel {
            Sample::Enter => self.enter(outs.y),
            Sample::Forward(kernel) => {
                let slots: SmallVec<[&Slot; 3]> =
                    self.piece.reads.iter().map(|&v| &self.shared.values[v].slot).collect();
                let sources: SmallVec<[Source<'_>; 3]> =
                    self.reads.iter().map(|r| Source::Floats(r)).collect();
                let value = self.piece.write.ok_or(KernelError::OutputType)?;
                let slot = &self.shared.values[value].slot;
                let reads = Reads::new(&sources, &slots, self.n)?;
                let write = Write::new(Target::Floats(outs.y), slot, self.n)?;
                kernel.run(self.shared.kernels, self.n, reads, write, outs.scratch)
            }
            Sample::Gated(kind) => self.gated(*kind, outs),
            Sample::Choose => {
                let chosen = self.read(usize::from(!self.home(0)?.holds()?))?;
                if outs.y.len() != chosen.len() {
                    return Err(KernelError::OutputType);
                }
                outs.y.copy_from_slice(chosen);
                Ok(())
            }
            _ => (0..self.n).try_for_each(|i| self.run_sample(i, outs)),
        }
    }

    fn run_sample(self, i: usize, outs: &mut Outs<'_, '_>) -> Result<(), KernelError> {
        let kernels = self.shared.kernels;
        let of = |k: usize| self.sample(k, i);
        let band = |k: usize| self.home(k)?.floats();
        let len = self.piece.write.map_or(0, |w| self.shared.values[w].slot.len());
        let at = i * len..(i + 1) * len;
        let image = layout(self.slot(0)?);
        match &self.piece.kernel {
            Sample::Conv => {
                let Held::Conv(conv) = self.home(0)? else { return Err(KernelError::OutputType) };
                let x = of(0)?;
                conv.run(x, None, &mut outs.y[at], outs.scratch)
            }
            Sample::InputGrad => {
                let dy = of(0)?;
                match self.home(0)? {
                    Held::InputGrad(plan) => plan.run(dy, &mut outs.y[at]),
                    Held::DepthwiseGrad(plan) => plan.input(dy, &mut outs.y[at]),
                    _ => Err(KernelError::OutputType),
                }
            }
            Sample::DepthwiseWeightGrad(plan) => {
                let (dy, x) = (of(0)?, of(1)?);
                match &mut outs.sums {
                    Some(Slice::Single(sums)) => plan.weight(dy, x, sums),
                    _ => Err(KernelError::OutputType),
                }
            }
            Sample::Unary(function) => {
                let x = of(0)?;
                let y = &mut outs.y[at];
                self.slot(0)?.each_row(|row| function.run(kernels, &x[row.clone()], &mut y[row]))
            }
            Sample::Binary(function) => {
                let (a, b) = (of(0)?, of(1)?);
                let y = &mut outs.y[at];
                self.slot(0)?
                    .each_row(|row| function.run(kernels, &a[row.clone()], &b[row.clone()], &mut y[row]))
            }
            Sample::SumPixels(factor) => {
                let mut sums = vec![0.0; image.c];
                k::channel_sums(kernels, &image, of(0)?, outs.scratch, &mut sums)?;
                // One pixel, or a row.
                let to = self.result()?;
                let y = outs.y[at].get_mut(to.row_start(0)..to.row_start(0) + to.count());
                let y = y.ok_or(KernelError::OutputType)?;
                y.iter_mut().zip(&sums).for_each(|(y, s)| *y = *s as f32 * factor);
                Ok(())
            }
            Sample::WeightGrad(plan) => {
                let (dy, x) = (of(0)?, of(1)?);
                match &mut outs.sums {
                    Some(Slice::Single(sums)) => plan.run(dy, x, sums, outs.scratch),
                    _ => Err(KernelError::OutputType),
                }
            }
            Sample::Moments => {
                let x = of(0)?;
                let (sums, scratch) = outs.doubles()?;
                let mut into = Moments::of(sums).ok_or(KernelError::OutputType)?;
                k::moments(kernels, &image, x, scratch, &mut into)
            }
            Sample::ChannelSums => {
                let x = of(0)?;
                let (sums, scratch) = outs.doubles()?;
                k::channel_sums(kernels, &image, x, scratch, sums)
            }
            Sample::Range => {
                let Some(Slice::Range(range)) = &mut outs.sums else { return Err(KernelError::OutputType) };
                let x = of(0)?;
                self.slot(0)?.each_row(|row| {
                    k::widen(range, k::range_of(kernels, &x[row]));
                    Ok(())
                })
            }
            Sample::Sum { affine, clip, rounded } => {
                let mut homes = 0;
                let mut terms: SmallVec<[Term<'_>; 2]> = SmallVec::new();
                for (t, &affine) in affine.iter().enumerate() {
                    let both = if affine { Some(band(homes)?) } else { None };
                    homes += usize::from(affine);
                    terms.push(Term { x: of(t)?, affine: both.map(|b| b.split_at(b.len() / 2)) });
                }
                let a = *terms.first().ok_or(KernelError::OutputType)?;
                let sum = ChannelSum { a, b: terms.get(1).copied(), clip: *clip };
                match rounded {
                    None => k::sum_channels(kernels, &image, &sum, &mut outs.y[at]),
                    Some(rounded) => self.sum_rounded(i, &sum, *rounded, self.grid(homes)?, outs),
                }
            }
            Sample::NormGradSums => {
                let (dy, x, mean) = (of(0)?, of(1)?, band(0)?);
                let (sums, scratch) = outs.doubles()?;
                k::norm_grad_sums(kernels, &image, dy, x, mean, scratch, sums)
            }
            Sample::NormGradApply => {
                let (x, all) = (of(1)?, band(0)?);
                let (a, rest) = all.split_at(all.len() / 3);
                let (b, c) = rest.split_at(rest.len() / 2);
                if self.piece.in_place.is_some() {
                    return k::norm_grad_apply_assign(kernels, &image, x, [a, b, c], &mut outs.y[at]);
                }
                let dy = of(0)?;
                k::norm_grad_apply(kernels, &image, dy, x, [a, b, c], &mut outs.y[at])
            }
            Sample::AveragePoolGrad { shape, count_pads } => {
                let dy = of(0)?;
                k::average_pool_grad(shape, *count_pads, dy, &mut outs.y[at])
            }
            Sample::MaxPoolGrad(shape) => {
                let (dy, x) = (of(0)?, of(1)?);
                k::max_pool_grad(shape, dy, x, &mut outs.y[at])
            }
            Sample::Spread(factor) => {
                // One pixel: its inside is dense whatever surrounds it.
                let from = self.slot(0)?;
                let start = from.row_start(0);
                let dy = of(0)?.get(start..start + from.count()).ok_or(KernelError::OutputType)?;
                let image = layout(self.result()?);
                k::spread_channels(&image, dy, *factor, &mut outs.y[at])
            }
            Sample::Scatter(places) => {
                let dy = of(0)?;
                let dx = &mut outs.y[at];
                dx.fill(0.0);
                for (&d, &place) in dy.iter().zip(places) {
                    if let Some(x) = dx.get_mut(place as usize) {
                        *x = d;
                    }
                }
                Ok(())
            }
            Sample::Enter | Sample::Forward(_) | Sample::Gated(_) | Sample::Choose => {
                Err(KernelError::OutputType)
            }
        }
    }

    /// The grid that a home holds.
    fn grid(self, i: usize) -> Result<FakeQuant, KernelError> {
        FakeQuant::from_floats(self.home(i)?.floats()?).ok_or(KernelError::OutputType)
    }

    /// Spare pixels of gradients are 0, and stay so wherever the gate is open.
    fn gated(self, kind: GateKind, outs: &mut Outs<'_, '_>) -> Result<(), KernelError> {
        let gradients = self.reads.len().checked_sub(1).ok_or(KernelError::OutputType)?;
        let seen = self.read(gradients)?;
        let (dy, more) = match (self.piece.in_place, gradients) {
            (None, 1) => (Some(self.read(0)?), None),
            (None, _) => (Some(self.read(0)?), Some(self.read(1)?)),
            (Some(_), 1) => (None, None),
            (Some(k), _) => (None, Some(self.read(1 - k.min(1))?)),
        };
        let kernels = self.shared.kernels;
        let gate = match kind {
            GateKind::Relu => Gate::Relu(seen),
            GateKind::Within => Gate::Within(seen, self.grid(0)?),
            GateKind::ReluWithin => Gate::ReluWithin(seen, self.grid(0)?),
            GateKind::Bytes => return self.gated_by_bytes(dy, more, seen, outs.y),
            GateKind::Learned { learned, relu } => {
                let how = (learned, self.grid(0)?, relu);
                let given = k::learned_grad(kernels, how, dy, more, seen, outs.y)?;
                let (sums, _) = outs.doubles()?;
                sums.iter_mut().for_each(|s| *s += given);
                return Ok(());
            }
        };
        k::gated(kernels, dy, more, gate, outs.y)
    }

    /// Sample by sample, as each begins with a whole float.
    fn gated_by_bytes(
        self,
        dy: Option<&'c [f32]>,
        more: Option<&'c [f32]>,
        gates: &'c [f32],
        dx: &mut [f32],
    ) -> Result<(), KernelError> {
        let len = self.result()?.len();
        let each = self.slot(self.reads.len() - 1)?.len();
        for (i, dx) in dx.chunks_exact_mut(len.max(1)).enumerate() {
            let of = |v: Option<&'c [f32]>| v.and_then(|v| v.get(i * len..(i + 1) * len));
            let gate = gates.get(i * each..(i + 1) * each).map(k::bytes_in).and_then(|g| g.get(..len));
            let gate = gate.ok_or(KernelError::OutputType)?;
            k::gated(self.shared.kernels, of(dy), of(more), Gate::Bytes(gate), dx)?;
        }
        Ok(())
    }

    fn sum_rounded(
        self,
        i: usize,
        sum: &ChannelSum<'_>,
        rounded: Rounded,
        grid: FakeQuant,
        outs: &mut Outs<'_, '_>,
    ) -> Result<(), KernelError> {
        let slot = self.result()?;
        let image = layout(slot);
        let at = |len: usize| i * len..(i + 1) * len;
        let kept = match self.piece.kept {
            Some(v) => {
                outs.kept.get_mut(at(self.shared.values[v].slot.len())).ok_or(KernelError::OutputType)?
            }
            None => &mut [],
        };
        let keep = match rounded {
            Rounded::Only => Keep::Nothing,
            Rounded::AndValue => Keep::Value(kept),
            Rounded::AndGate { positive } => {
                let gate = k::bytes_in_mut(kept).get_mut(..slot.len()).ok_or(KernelError::OutputType)?;
                Keep::Gate { gate, positive }
            }
        };
        let mut unseen = NO_RANGE;
        let range = match &mut outs.sums {
            Some(Slice::Range(range)) => &mut **range,
            _ => &mut unseen,
        };
        let y = outs.y.get_mut(at(slot.len())).ok_or(KernelError::OutputType)?;
        let out = Quantised { y, keep, range };
        k::sum_quantised(self.shared.kernels, &image, sum, grid, outs.scratch, out)
    }

    fn enter(self, y: &mut [f32]) -> Result<(), KernelError> {
        let slot = self.result()?;
        let (count, len) = (slot.count(), slot.len());
        let from = self.home(0)?.floats()?;
        let from =
            from.get(self.first * count..(self.first + self.n) * count).ok_or(KernelError::TooLarge)?;
        for (from, to) in from.chunks_exact(count.max(1)).zip(y.chunks_exact_mut(len.max(1))) {
            match slot.image() {
                Some(image) => k::to_channels_last(from, image, to)?,
                None => to.copy_from_slice(from),
            }
        }
        Ok(())
    }
}
