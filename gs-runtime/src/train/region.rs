//! Running a region: the batch is cut in fixed chunks, each chunk goes through all pieces, a few samples at a time so that
//! they stay in a core's cache. Chunks write parts of buffers and sums of their own.

use super::build::layout;
use super::piece::{Batch, BatchValue, Held, Part, Sample, SamplePiece, Sums};
use super::state::State;
use crate::kernels::{self as k, KernelError, Kernels, Moments, Scratch, Term};
use crate::plan::buffer::{Reads, Source, Target, Write};
use crate::plan::slot::Slot;
use rayon::prelude::*;
use smallvec::SmallVec;
use std::sync::Mutex;
use std::time::Instant;

/// Chunks of a batch. More than workers, so that they are shared out evenly; a fixed number, so that sums over chunks do not
/// depend on the number of workers.
pub(super) const CHUNKS: usize = 16;
/// Bytes that the samples which go through a region together should not exceed.
const GROUP_BYTES: usize = 256 << 10;

/// Where a piece finds a value.
#[derive(Clone, Copy)]
enum Place {
    /// In a buffer that the region writes: an index into [`Region::writes`].
    Own(usize),
    /// In another buffer.
    Other(usize),
}

/// Sample pieces ready to run.
pub(super) struct Region {
    pub(super) pieces: Vec<SamplePiece>,
    places: Vec<(SmallVec<[Place; 3]>, Option<usize>)>,
    /// Buffers and sums that are written.
    writes: Vec<usize>,
    parts: Vec<Part>,
    /// Samples that go through the pieces together.
    group: usize,
}

/// What is the same for all regions of a plan.
pub(super) struct Shared<'s> {
    pub(super) kernels: Kernels,
    pub(super) values: &'s [BatchValue],
    pub(super) sums: &'s [Sums],
    pub(super) batch: usize,
    pub(super) scratches: &'s [Mutex<Scratch>],
    pub(super) profile: Option<&'s super::profile::Clock>,
}

/// The part of some sums that belongs to a chunk.
enum Slice<'a> {
    Single(&'a mut [f32]),
    Double(&'a mut [f64]),
}

/// A chunk of samples, with its parts of what is written.
struct Job<'a> {
    first: usize,
    count: usize,
    buffers: Vec<&'a mut [f32]>,
    sums: Vec<Slice<'a>>,
}

/// Samples in a chunk.
pub(super) fn chunk_of(batch: usize) -> usize {
    batch.div_ceil(CHUNKS).max(1)
}

impl Region {
    /// `buffer_of`: the buffer of each value.
    pub(super) fn new(pieces: Vec<SamplePiece>, values: &[BatchValue], buffer_of: &[usize]) -> Self {
        let (mut writes, mut parts) = (Vec::new(), Vec::new());
        for piece in &pieces {
            if let Some(w) = piece.write.map(|w| buffer_of[w])
                && !writes.contains(&w)
            {
                writes.push(w);
            }
            parts.extend(piece.part);
        }
        let place = |v: &Batch| {
            let buffer = buffer_of[*v];
            writes.iter().position(|&w| w == buffer).map_or(Place::Other(buffer), Place::Own)
        };
        let places = pieces.iter().map(|p| {
            let write = p.write.and_then(|w| writes.iter().position(|&b| b == buffer_of[w]));
            (p.reads.iter().map(place).collect(), write)
        });
        let places = places.collect();
        let mut seen: Vec<Batch> =
            pieces.iter().flat_map(|p| p.reads.iter().copied().chain(p.write)).collect();
        seen.sort_unstable();
        seen.dedup();
        let bytes: usize = seen.iter().map(|&v| values[v].slot.len() * 4).sum();
        Self { pieces, places, writes, parts, group: (GROUP_BYTES / bytes.max(1)).max(1) }
    }

    /// Runs all chunks.
    ///
    /// # Errors
    /// A defect of the plan.
    pub(super) fn run(&self, shared: &Shared<'_>, state: &mut State) -> Result<(), KernelError> {
        let chunk = chunk_of(shared.batch);
        let count = shared.batch.div_ceil(chunk);
        let mut buffers: Vec<Vec<f32>> =
            self.writes.iter().map(|&b| std::mem::take(&mut state.buffers[b])).collect();
        let mut sums: Vec<Held> = Vec::new();
        let mut doubles: Vec<Vec<f64>> = Vec::new();
        let mut jobs: Vec<Job<'_>> = (0..count)
            .map(|j| Job {
                first: j * chunk,
                count: chunk.min(shared.batch - j * chunk),
                buffers: Vec::with_capacity(self.writes.len()),
                sums: Vec::with_capacity(self.parts.len()),
            })
            .collect();
        for &part in &self.parts {
            sums.push(Held::Floats(std::mem::take(&mut state.singles[part])));
            doubles.push(std::mem::take(&mut state.doubles[part]));
        }
        for buffer in &mut buffers {
            let each = (buffer.len() / shared.batch.max(1) * chunk).max(1);
            buffer.chunks_mut(each).zip(&mut jobs).for_each(|(b, job)| job.buffers.push(b));
        }
        for ((single, double), &part) in sums.iter_mut().zip(&mut doubles).zip(&self.parts) {
            let Sums { len, double: is_double } = shared.sums[part];
            if is_double {
                double.resize(len * count, 0.0);
                double
                    .chunks_mut(len.max(1))
                    .zip(&mut jobs)
                    .for_each(|(s, job)| job.sums.push(Slice::Double(s)));
            } else {
                let single = single.floats_mut()?;
                single.resize(len * count, 0.0);
                single
                    .chunks_mut(len.max(1))
                    .zip(&mut jobs)
                    .for_each(|(s, job)| job.sums.push(Slice::Single(s)));
            }
        }
        let fixed = &*state;
        let done = jobs.into_par_iter().try_for_each(|mut job| {
            let mine = rayon::current_thread_index().unwrap_or(0) % shared.scratches.len().max(1);
            let Some(scratch) = shared.scratches.get(mine) else { return Err(KernelError::TooLarge) };
            let mut scratch = scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.run_job(shared, fixed, &mut job, &mut scratch)
        });
        for (&b, buffer) in self.writes.iter().zip(buffers) {
            state.buffers[b] = buffer;
        }
        for ((&part, single), double) in self.parts.iter().zip(sums).zip(doubles) {
            if let Held::Floats(v) = single {
                state.singles[part] = v;
            }
            state.doubles[part] = double;
        }
        done
    }

    fn run_job(
        &self,
        shared: &Shared<'_>,
        state: &State,
        job: &mut Job<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        for sums in &mut job.sums {
            match sums {
                Slice::Single(s) => s.fill(0.0),
                Slice::Double(s) => s.fill(0.0),
            }
        }
        for at in (0..job.count).step_by(self.group) {
            let n = self.group.min(job.count - at);
            let mut sums = 0;
            for (piece, (reads, write)) in self.pieces.iter().zip(&self.places) {
                let begun = shared.profile.map(|_| Instant::now());
                let mut out = write.map(|w| (w, std::mem::take(&mut job.buffers[w])));
                let sums_of = if piece.part.is_some() { job.sums.get_mut(sums) } else { None };
                let done = {
                    let found = self.find(shared, state, &job.buffers, piece, reads, (job.first, at, n));
                    let range = piece.write.map(|w| samples(shared, w, at, n));
                    let y = match (&mut out, range) {
                        (Some((_, out)), Some(range)) => out.get_mut(range),
                        _ => Some(&mut [][..]),
                    };
                    let (reads, y) = found.zip(y).ok_or(KernelError::OutputType)?;
                    let call = Call { shared, state, piece, first: job.first + at, n, reads: &reads };
                    call.run(&mut Outs { y, sums: sums_of, scratch })
                };
                if let Some((w, out)) = out {
                    job.buffers[w] = out;
                }
                done?;
                sums += usize::from(piece.part.is_some());
                if let (Some(clock), Some(begun)) = (shared.profile, begun) {
                    clock.add(piece.op, sample_name(&piece.kernel), begun.elapsed());
                }
            }
        }
        Ok(())
    }

    /// The samples that a piece reads: `n` from `at` on in a chunk that begins with `first`.
    fn find<'f>(
        &self,
        shared: &Shared<'_>,
        state: &'f State,
        own: &'f [&mut [f32]],
        piece: &SamplePiece,
        places: &[Place],
        (first, at, n): (usize, usize, usize),
    ) -> Option<SmallVec<[&'f [f32]; 3]>> {
        let found = places.iter().zip(&piece.reads).enumerate().map(|(k, (&place, &v))| match place {
            // It lies where the result is written.
            _ if piece.in_place == Some(k) => Some(&[][..]),
            Place::Own(i) => own.get(i)?.get(samples(shared, v, at, n)),
            Place::Other(i) => state.buffers.get(i)?.get(samples(shared, v, first + at, n)),
        });
        found.collect()
    }
}

/// Where samples of a value lie in its buffer.
fn samples(shared: &Shared<'_>, value: Batch, from: usize, n: usize) -> std::ops::Range<usize> {
    let len = shared.values[value].slot.len();
    from * len..(from + n) * len
}

/// A name for reports.
fn sample_name(kernel: &Sample) -> &'static str {
    match kernel {
        Sample::Enter => "enter",
        Sample::Conv => "conv",
        Sample::InputGrad => "conv_input_grad",
        Sample::WeightGrad(_) | Sample::DepthwiseWeightGrad(_) => "conv_weight_grad",
        Sample::Unary(_) | Sample::Binary(_) => "element by element",
        Sample::SumPixels(_) => "sum of pixels",
        Sample::Moments => "batch_norm_train: moments",
        Sample::ChannelSums => "channel sums",
        Sample::Sum { .. } => "sum, scale, limit",
        Sample::ReluGrad => "relu_grad",
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
struct Call<'c> {
    shared: &'c Shared<'c>,
    state: &'c State,
    piece: &'c SamplePiece,
    /// The first sample, counted in the batch.
    first: usize,
    n: usize,
    reads: &'c [&'c [f32]],
}

/// What it writes.
struct Outs<'c, 'j> {
    y: &'c mut [f32],
    sums: Option<&'c mut Slice<'j>>,
    scratch: &'c mut Scratch,
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

    fn run(self, outs: &mut Outs<'_, '_>) -> Result<(), KernelError> {
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
            Sample::ReluGrad => {
                let (kernels, y) = (self.shared.kernels, self.read(self.reads.len() - 1)?);
                let both = self.reads.len() == 3;
                // Spare pixels are 0 in all of them, and stay so.
                match self.piece.in_place {
                    Some(k) => {
                        let more = if both { Some(self.read(1 - k.min(1))?) } else { None };
                        k::relu_grad_assign(kernels, more, y, outs.y)
                    }
                    None => {
                        let more = if both { Some(self.read(1)?) } else { None };
                        k::relu_grad(kernels, self.read(0)?, more, y, outs.y)
                    }
                }
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
            Sample::Sum { affine, clip } => {
                let mut homes = 0;
                let mut terms: SmallVec<[Term<'_>; 2]> = SmallVec::new();
                for (t, &affine) in affine.iter().enumerate() {
                    let both = if affine { Some(band(homes)?) } else { None };
                    homes += usize::from(affine);
                    terms.push(Term { x: of(t)?, affine: both.map(|b| b.split_at(b.len() / 2)) });
                }
                let a = *terms.first().ok_or(KernelError::OutputType)?;
                let y = &mut outs.y[at];
                k::sum_channels(kernels, &image, a, terms.get(1).copied(), *clip, y)
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
            Sample::Enter | Sample::Forward(_) | Sample::ReluGrad => Err(KernelError::OutputType),
        }
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
