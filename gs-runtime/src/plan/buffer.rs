//! What a kernel reads and writes: the buffers of values, each holding the samples of a chunk one behind the other.

use super::slot::Slot;
use gs_kernels::KernelError;
use std::ops::Range;

/// A value's buffer for a chunk.
#[derive(Clone, Copy)]
pub(crate) enum Source<'b> {
    Floats(&'b [f32]),
    Bytes(&'b [u8]),
}

/// The buffer that a kernel writes.
pub(crate) enum Target<'b> {
    Floats(&'b mut [f32]),
    Bytes(&'b mut [u8]),
}

impl<'b> Source<'b> {
    /// # Errors
    /// It holds bytes.
    pub(crate) fn floats(self) -> Result<&'b [f32], KernelError> {
        match self {
            Source::Floats(f) => Ok(f),
            Source::Bytes(_) => Err(KernelError::OutputType),
        }
    }

    /// # Errors
    /// It holds floats.
    pub(crate) fn bytes(self) -> Result<&'b [u8], KernelError> {
        match self {
            Source::Bytes(b) => Ok(b),
            Source::Floats(_) => Err(KernelError::OutputType),
        }
    }

    fn len(self) -> usize {
        match self {
            Source::Floats(f) => f.len(),
            Source::Bytes(b) => b.len(),
        }
    }
}

impl Target<'_> {
    /// # Errors
    /// It holds bytes.
    pub(crate) fn floats(&mut self) -> Result<&mut [f32], KernelError> {
        match self {
            Target::Floats(f) => Ok(f),
            Target::Bytes(_) => Err(KernelError::OutputType),
        }
    }

    /// # Errors
    /// It holds floats.
    pub(crate) fn bytes(&mut self) -> Result<&mut [u8], KernelError> {
        match self {
            Target::Bytes(b) => Ok(b),
            Target::Floats(_) => Err(KernelError::OutputType),
        }
    }

    fn len(&self) -> usize {
        match self {
            Target::Floats(f) => f.len(),
            Target::Bytes(b) => b.len(),
        }
    }
}

/// The values that a kernel reads, and how they lie.
#[derive(Clone, Copy)]
pub(crate) struct Reads<'r> {
    sources: &'r [Source<'r>],
    slots: &'r [&'r Slot],
}

impl<'r> Reads<'r> {
    /// `n` samples of each value.
    ///
    /// # Errors
    /// No value at all, or a buffer that is too short: a defect of the plan.
    pub(crate) fn new(
        sources: &'r [Source<'r>],
        slots: &'r [&'r Slot],
        n: usize,
    ) -> Result<Self, KernelError> {
        if sources.is_empty() || sources.len() != slots.len() {
            return Err(KernelError::OutputType);
        }
        for (source, slot) in sources.iter().zip(slots) {
            holds("buffer", source.len(), n * slot.len())?;
        }
        Ok(Self { sources, slots })
    }

    /// A value and how it lies.
    ///
    /// # Errors
    /// There are not so many.
    pub(crate) fn get(self, i: usize) -> Result<(Source<'r>, &'r Slot), KernelError> {
        let found = self.sources.get(i).copied().zip(self.slots.get(i).copied());
        found.ok_or(KernelError::OutputType)
    }

    /// All of them.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Source<'r>, &'r Slot)> {
        self.sources.iter().copied().zip(self.slots.iter().copied())
    }
}

/// The value that a kernel writes, and how it lies.
pub(crate) struct Write<'w> {
    pub(crate) target: Target<'w>,
    pub(crate) slot: &'w Slot,
}

impl<'w> Write<'w> {
    /// `n` samples of the value.
    ///
    /// # Errors
    /// A buffer that is too short: a defect of the plan.
    pub(crate) fn new(target: Target<'w>, slot: &'w Slot, n: usize) -> Result<Self, KernelError> {
        holds("result", target.len(), n * slot.len())?;
        Ok(Self { target, slot })
    }
}

fn holds(what: &'static str, got: usize, want: usize) -> Result<(), KernelError> {
    if got < want { Err(KernelError::Length { what, want, got }) } else { Ok(()) }
}

/// Where sample `i` of a value lies.
pub(crate) fn sample(slot: &Slot, i: usize) -> Range<usize> {
    i * slot.len()..(i + 1) * slot.len()
}
