//! A segment: operations that kernels run, each sample by itself. A worker takes a few samples through all of
//! them while they are in its cache; how samples are spread over workers changes no result.

use super::buffer::{Reads, Source, Target, Write};
use super::kernel::Kernel;
use super::slot::{Code, Layout, Slot};
use gs_eval::{Elements, Storage, Tensor};
use gs_ir::{OpId, ValueId};
use gs_kernels::{Element, KernelError, Kernels, Scratch, to_channels_first, to_channels_last};
use rayon::prelude::*;
use std::sync::Mutex;

/// One kernel with the values it reads and the one it writes.
pub(crate) struct Step {
    /// The operation that the kernel was chosen for; others may have gone into it.
    pub(crate) op: OpId,
    pub(crate) kernel: Kernel,
    pub(crate) reads: Vec<usize>,
    pub(crate) write: usize,
}

/// Operations that are run together.
pub(crate) struct Segment {
    /// Values that come from outside, and their slots.
    pub(crate) inputs: Vec<(ValueId, usize)>,
    /// Values that are wanted outside, and their slots.
    pub(crate) outputs: Vec<(ValueId, usize)>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) steps: Vec<Step>,
    /// The buffer of each slot; buffers are used again once a value was read for the last time.
    pub(crate) buffer_of: Vec<usize>,
    /// Elements of each buffer for one sample, and whether they are floats.
    pub(crate) buffers: Vec<(usize, bool)>,
    /// Samples that a worker takes at a time.
    pub(crate) chunk: usize,
}

/// The memory of one worker.
#[derive(Default)]
pub(crate) struct Worker {
    floats: Vec<Vec<f32>>,
    bytes: Vec<Vec<u8>>,
    scratch: Scratch,
}

/// A part of a result that one chunk writes.
enum Part<'o> {
    F32(&'o mut [f32]),
    U8(&'o mut [u8]),
    I8(&'o mut [i8]),
}

impl Segment {
    /// The operations whose kernels are run, in order.
    pub(crate) fn ops(&self) -> Vec<OpId> {
        self.steps.iter().map(|s| s.op).collect()
    }

    /// Runs `batch` samples. `inputs` are whole batches in the order of [`Segment::inputs`].
    ///
    /// # Errors
    /// A defect of the plan.
    pub(crate) fn run(
        &self,
        kernels: Kernels,
        batch: usize,
        inputs: &[&Tensor],
        workers: &[Mutex<Worker>],
    ) -> Result<Vec<Tensor>, KernelError> {
        let mut outputs: Vec<Storage> =
            self.outputs.iter().map(|&(_, s)| self.empty_output(s, batch)).collect();
        let chunk = self.chunk.min(batch.div_ceil(workers.len().max(1))).max(1);
        let jobs = self.jobs(&mut outputs, batch, chunk);
        jobs.into_par_iter().try_for_each(|(first, n, mut parts)| {
            // A worker's memory belongs to a thread while it runs a chunk; outside the pool there is one thread.
            let mine = rayon::current_thread_index().unwrap_or(0) % workers.len().max(1);
            let Some(worker) = workers.get(mine) else { return Err(KernelError::TooLarge) };
            let mut worker = worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.run_chunk(kernels, first, n, inputs, &mut parts, &mut worker)
        })?;
        let tensors = self.outputs.iter().zip(outputs).map(|(&(_, s), storage)| {
            let slot = &self.slots[s];
            let dims: Vec<usize> = std::iter::once(batch).chain(slot.dims.iter().copied()).collect();
            Tensor::new(elem(slot.code), dims, storage).map_err(|_| KernelError::TooLarge)
        });
        tensors.collect()
    }

    fn empty_output(&self, slot: usize, batch: usize) -> Storage {
        let slot = &self.slots[slot];
        let n = slot.count() * batch;
        match slot.code {
            Code::F32 => Storage::F32(vec![0.0; n]),
            Code::U8 => Storage::U8(vec![0; n]),
            Code::I8 => Storage::I8(vec![0; n]),
        }
    }

    /// Cuts the batch in chunks: first sample, number, and the parts of the results that belong to them.
    fn jobs<'o>(
        &self,
        outputs: &'o mut [Storage],
        batch: usize,
        chunk: usize,
    ) -> Vec<(usize, usize, Vec<Part<'o>>)> {
        let count = batch.div_ceil(chunk);
        let mut jobs: Vec<(usize, usize, Vec<Part<'o>>)> =
            (0..count).map(|j| (j * chunk, chunk.min(batch - j * chunk), Vec::new())).collect();
        for (storage, &(_, slot)) in outputs.iter_mut().zip(&self.outputs) {
            let each = (self.slots[slot].count() * chunk).max(1);
            match storage {
                Storage::F32(v) => {
                    v.chunks_mut(each).zip(&mut jobs).for_each(|(c, j)| j.2.push(Part::F32(c)))
                }
                Storage::U8(v) => v.chunks_mut(each).zip(&mut jobs).for_each(|(c, j)| j.2.push(Part::U8(c))),
                Storage::I8(v) => v.chunks_mut(each).zip(&mut jobs).for_each(|(c, j)| j.2.push(Part::I8(c))),
                _ => {}
            }
        }
        jobs
    }

    fn run_chunk(
        &self,
        kernels: Kernels,
        first: usize,
        n: usize,
        inputs: &[&Tensor],
        parts: &mut [Part<'_>],
        worker: &mut Worker,
    ) -> Result<(), KernelError> {
        self.make_room(worker);
        for (&(_, slot), tensor) in self.inputs.iter().zip(inputs) {
            self.enter(slot, tensor, first, n, worker)?;
        }
        for step in &self.steps {
            self.run_step(kernels, step, n, worker)?;
        }
        for (&(_, slot), part) in self.outputs.iter().zip(parts) {
            self.leave(slot, n, part, worker)?;
        }
        Ok(())
    }

    fn make_room(&self, worker: &mut Worker) {
        let (floats, bytes) = (&mut worker.floats, &mut worker.bytes);
        floats.resize_with(floats.len().max(self.buffers.len()), Vec::new);
        bytes.resize_with(bytes.len().max(self.buffers.len()), Vec::new);
        for (i, &(len, float)) in self.buffers.iter().enumerate() {
            let want = len * self.chunk;
            if float && floats[i].len() < want {
                floats[i].resize(want, 0.0);
            } else if !float && bytes[i].len() < want {
                bytes[i].resize(want, 0);
            }
        }
    }

    /// Brings samples from a whole batch into their buffer.
    fn enter(
        &self,
        slot: usize,
        tensor: &Tensor,
        first: usize,
        n: usize,
        w: &mut Worker,
    ) -> Result<(), KernelError> {
        let s = &self.slots[slot];
        let (buffer, count) = (self.buffer_of[slot], s.count());
        let range = first * count..(first + n) * count;
        match tensor.view().elements {
            Elements::F32(v) => enter_samples(s, n, &v[range], &mut w.floats[buffer]),
            Elements::U8(v) => enter_samples(s, n, &v[range], &mut w.bytes[buffer]),
            Elements::I8(v) => enter_samples(s, n, gs_kernels::bytes_of(&v[range]), &mut w.bytes[buffer]),
            _ => return Err(KernelError::OutputType),
        }?;
        self.fill_halo(slot, n, w)
    }

    /// Brings samples from their buffer into a whole batch.
    fn leave(&self, slot: usize, n: usize, part: &mut Part<'_>, w: &Worker) -> Result<(), KernelError> {
        let s = &self.slots[slot];
        let buffer = self.buffer_of[slot];
        match part {
            Part::F32(out) => leave_samples(s, n, &w.floats[buffer], out),
            Part::U8(out) => leave_samples(s, n, &w.bytes[buffer], out),
            Part::I8(out) => leave_samples(s, n, &w.bytes[buffer], gs_kernels::bytes_of_mut(out)),
        }
    }

    fn run_step(&self, kernels: Kernels, step: &Step, n: usize, w: &mut Worker) -> Result<(), KernelError> {
        let result = &self.slots[step.write];
        let target = self.buffer_of[step.write];
        // The result's buffer leaves the worker while the others are read.
        let mut floats = std::mem::take(&mut w.floats[target]);
        let mut bytes = std::mem::take(&mut w.bytes[target]);
        let slots: Vec<&Slot> = step.reads.iter().map(|&r| &self.slots[r]).collect();
        let reads: Vec<Source<'_>> = step
            .reads
            .iter()
            .map(|&r| match self.slots[r].code {
                Code::F32 => Source::Floats(&w.floats[self.buffer_of[r]]),
                _ => Source::Bytes(&w.bytes[self.buffer_of[r]]),
            })
            .collect();
        let y = match result.code {
            Code::F32 => Target::Floats(&mut floats),
            _ => Target::Bytes(&mut bytes),
        };
        let scratch = &mut w.scratch;
        let done = Reads::new(&reads, &slots, n)
            .and_then(|reads| step.kernel.run(kernels, n, reads, Write::new(y, result, n)?, scratch));
        w.floats[target] = floats;
        w.bytes[target] = bytes;
        done?;
        self.fill_halo(step.write, n, w)
    }

    /// Buffers are shared, so spare pixels are set whenever a value was written.
    fn fill_halo(&self, slot: usize, n: usize, w: &mut Worker) -> Result<(), KernelError> {
        let s = &self.slots[slot];
        let Layout::Image(image) = &s.layout else { return Ok(()) };
        if s.is_dense() {
            return Ok(());
        }
        let (buffer, len) = (self.buffer_of[slot], s.len());
        for i in 0..n {
            let at = i * len..(i + 1) * len;
            match s.code {
                Code::F32 => image.fill_halo(&mut w.floats[buffer][at], 0.0)?,
                _ => image.fill_halo(&mut w.bytes[buffer][at], s.padding)?,
            }
        }
        Ok(())
    }
}

fn enter_samples<T: Element>(slot: &Slot, n: usize, from: &[T], to: &mut [T]) -> Result<(), KernelError> {
    let (count, len) = (slot.count(), slot.len());
    for i in 0..n {
        let (from, to) = (&from[i * count..(i + 1) * count], &mut to[i * len..(i + 1) * len]);
        match slot.image() {
            Some(image) => to_channels_last(from, image, to)?,
            None => to.copy_from_slice(from),
        }
    }
    Ok(())
}

fn leave_samples<T: Element>(slot: &Slot, n: usize, from: &[T], to: &mut [T]) -> Result<(), KernelError> {
    let (count, len) = (slot.count(), slot.len());
    for i in 0..n {
        let (from, to) = (&from[i * len..(i + 1) * len], &mut to[i * count..(i + 1) * count]);
        match slot.image() {
            Some(image) => to_channels_first(from, image, to)?,
            None => to.copy_from_slice(from),
        }
    }
    Ok(())
}

fn elem(code: Code) -> gs_ir::ElemType {
    match code {
        Code::F32 => gs_ir::ElemType::F32,
        Code::U8 => gs_ir::ElemType::U8,
        Code::I8 => gs_ir::ElemType::I8,
    }
}
