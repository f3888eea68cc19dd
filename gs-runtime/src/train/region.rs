//! Running a region: the batch is cut in fixed chunks, each chunk goes through all pieces, a few samples at a time so that
//! they stay in a core's cache. Chunks write parts of buffers and sums of their own.

use super::piece::{Batch, BatchValue, Gathered, Part, SamplePiece};
use super::sample::{Call, Outs, sample_name};
use super::state::State;
use gs_kernels::{KernelError, Kernels, Scratch};
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

/// Where a piece finds what it reads, and the buffers of what it writes and keeps.
type Places = (SmallVec<[Place; 3]>, [Option<usize>; 2]);

/// Sample pieces ready to run.
pub(super) struct Region {
    pub(super) pieces: Vec<SamplePiece>,
    places: Vec<Places>,
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
    pub(super) sums: &'s [Gathered],
    pub(super) batch: usize,
    pub(super) scratches: &'s [Mutex<Scratch>],
    pub(super) profile: Option<&'s super::profile::Clock>,
}

/// The part of some sums that belongs to a chunk.
pub(super) enum Slice<'a> {
    Single(&'a mut [f32]),
    Double(&'a mut [f64]),
    Range(&'a mut [f32; 2]),
}

/// Nothing seen yet.
pub(super) const NO_RANGE: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

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
            for w in [piece.write, piece.kept].into_iter().flatten().map(|v| buffer_of[v]) {
                if !writes.contains(&w) {
                    writes.push(w);
                }
            }
            parts.extend(piece.part);
        }
        let place = |v: &Batch| {
            let buffer = buffer_of[*v];
            writes.iter().position(|&w| w == buffer).map_or(Place::Other(buffer), Place::Own)
        };
        let places = pieces.iter().map(|p| {
            let outs =
                [p.write, p.kept].map(|v| writes.iter().position(|&b| Some(b) == v.map(|v| buffer_of[v])));
            (p.reads.iter().map(place).collect(), outs)
        });
        let places = places.collect();
        let mut seen: Vec<Batch> =
            pieces.iter().flat_map(|p| p.reads.iter().copied().chain(p.write).chain(p.kept)).collect();
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
        let mut singles: Vec<Vec<f32>> = Vec::new();
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
            singles.push(std::mem::take(&mut state.singles[part]));
            doubles.push(std::mem::take(&mut state.doubles[part]));
        }
        for buffer in &mut buffers {
            let each = (buffer.len() / shared.batch.max(1) * chunk).max(1);
            buffer.chunks_mut(each).zip(&mut jobs).for_each(|(b, job)| job.buffers.push(b));
        }
        for ((single, double), &part) in singles.iter_mut().zip(&mut doubles).zip(&self.parts) {
            match shared.sums[part] {
                Gathered::Double(len) => {
                    double.resize(len * count, 0.0);
                    let each = double.chunks_mut(len.max(1)).zip(&mut jobs);
                    each.for_each(|(s, job)| job.sums.push(Slice::Double(s)));
                }
                Gathered::Single(len) => {
                    single.resize(len * count, 0.0);
                    let each = single.chunks_mut(len.max(1)).zip(&mut jobs);
                    each.for_each(|(s, job)| job.sums.push(Slice::Single(s)));
                }
                Gathered::Range => {
                    single.resize(2 * count, 0.0);
                    let each = single.as_chunks_mut().0.iter_mut().zip(&mut jobs);
                    each.for_each(|(s, job)| job.sums.push(Slice::Range(s)));
                }
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
        for ((&part, single), double) in self.parts.iter().zip(singles).zip(doubles) {
            (state.singles[part], state.doubles[part]) = (single, double);
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
                Slice::Range(s) => **s = NO_RANGE,
            }
        }
        for at in (0..job.count).step_by(self.group) {
            let n = self.group.min(job.count - at);
            let mut sums = 0;
            for (piece, (reads, writes)) in self.pieces.iter().zip(&self.places) {
                let begun = shared.profile.map(|_| Instant::now());
                let mut outs = writes.map(|w| w.map(|w| std::mem::take(&mut job.buffers[w])));
                let sums_of = if piece.part.is_some() { job.sums.get_mut(sums) } else { None };
                let done = {
                    let found = self.find(shared, state, &job.buffers, piece, reads, (job.first, at, n));
                    let [y, kept] = &mut outs;
                    let y = part(y, piece.write.map(|v| samples(shared, v, at, n)));
                    let kept = part(kept, piece.kept.map(|v| samples(shared, v, at, n)));
                    let (Some(reads), Some(y), Some(kept)) = (found, y, kept) else {
                        return Err(KernelError::OutputType);
                    };
                    let call = Call { shared, state, piece, first: job.first + at, n, reads: &reads };
                    call.run(&mut Outs { y, kept, sums: sums_of, scratch })
                };
                for (w, out) in writes.iter().zip(outs) {
                    if let (Some(w), Some(out)) = (*w, out) {
                        job.buffers[w] = out;
                    }
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

/// The samples in a buffer that is written; nothing of none.
fn part<'b>(
    buffer: &'b mut Option<&mut [f32]>,
    range: Option<std::ops::Range<usize>>,
) -> Option<&'b mut [f32]> {
    match (buffer, range) {
        (Some(buffer), Some(range)) => buffer.get_mut(range),
        _ => Some(&mut []),
    }
}

/// Where samples of a value lie in its buffer.
fn samples(shared: &Shared<'_>, value: Batch, from: usize, n: usize) -> std::ops::Range<usize> {
    let len = shared.values[value].slot.len();
    from * len..(from + n) * len
}
