//! Cache-line aligned memory: packed weights and the scratch space of a worker.

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; 16]);

const LINE_BYTES: usize = 64;

/// Aligned 32-bit words, all zero at first.
#[derive(Clone, Debug)]
pub(super) struct Words {
    lines: Vec<Line>,
    len: usize,
}

impl Words {
    pub(super) fn zeroed(len: usize) -> Words {
        Words { lines: vec![Line([0; 16]); len.div_ceil(16)], len }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        // SAFETY: the lines hold at least `len` initialised words in a row, and a word may lie at any line's start.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u32] {
        // SAFETY: as in `as_slice`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// An element type of which every bit pattern is a value and which has no padding.
///
/// # Safety
/// Implemented only for such types, of alignment up to a cache line.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: a plain number.
unsafe impl Plain for f32 {}
// SAFETY: a plain number.
unsafe impl Plain for u8 {}
// SAFETY: a plain number.
unsafe impl Plain for i16 {}

/// Memory that a worker lends to kernels for padded copies of its image. It grows to the largest need and stays.
/// One per thread; contents carry nothing from one call to the next.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Empty; the first use allocates.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// `len` elements with unspecified contents.
    pub(super) fn get<T: Plain>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(LINE_BYTES);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 16]));
        }
        // SAFETY: the lines cover `len` elements, are initialised, aligned for every `Plain` type, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

/// Signed codes seen as bytes.
pub fn bytes_of(codes: &[i8]) -> &[u8] {
    // SAFETY: same size, alignment and lifetime; every byte is a valid `u8`.
    unsafe { std::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) }
}

/// Signed codes seen as bytes, to be written.
pub fn bytes_of_mut(codes: &mut [i8]) -> &mut [u8] {
    // SAFETY: same size, alignment and lifetime; every byte is a valid `i8` as well.
    unsafe { std::slice::from_raw_parts_mut(codes.as_mut_ptr().cast(), codes.len()) }
}

/// Floats seen as the bytes that lie in them: a buffer of floats may hold bytes instead.
pub fn bytes_in(floats: &[f32]) -> &[u8] {
    // SAFETY: four bytes to a float, of weaker alignment; every byte is a valid `u8`.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

/// As [`bytes_in`], to be written.
pub fn bytes_in_mut(floats: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above; any four bytes are a valid `f32` as well.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), size_of_val(floats)) }
}
