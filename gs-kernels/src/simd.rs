//! The vector operations that the register-tiled kernels need, as a trait with one implementation per instruction set.
//!
//! A value of an implementing type is a token: it exists only where the instructions may run, so the operations that
//! touch no memory are safe. Every method must be `#[inline(always)]` (see [`super::isa::Job`]).
//!
//! Integer products work on *words* of 32 bits: either four unsigned 8-bit activations against four signed 8-bit
//! weights, or two 16-bit pairs. [`Simd::CODES_PER_WORD`] says which; packing and padding follow it. Both forms add
//! into wrapping 32-bit sums without a saturating step, so all sets give the same bits.

/// Vector operations of one instruction set.
pub(super) trait Simd: Copy {
    /// Lanes of 32 bits.
    const LANES: usize;
    /// Quantised codes in a 32-bit word of an integer product: 4 (one byte each) or 2 (two bytes each).
    const CODES_PER_WORD: usize;
    /// Pixels of a register tile that is one vector of output channels wide (a power of two).
    const TILE1: usize;
    /// Pixels of a register tile that is two vectors wide (a power of two).
    const TILE2: usize;

    /// `LANES` floats.
    type F: Copy;
    /// `LANES` 32-bit integers.
    type I: Copy;

    fn f_splat(self, x: f32) -> Self::F;
    /// # Safety
    /// `p` is valid for reading `LANES` floats; no alignment is needed.
    unsafe fn f_load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is valid for writing `LANES` floats; no alignment is needed.
    unsafe fn f_store(self, p: *mut f32, v: Self::F);
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F;
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`; rounded once where the processor can.
    fn f_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: gives `b` if either is NaN.
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: gives `b` if either is NaN.
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, half to even; |v| must be below 2^22.
    fn f_round(self, v: Self::F) -> Self::I;

    fn i_splat(self, x: i32) -> Self::I;
    /// # Safety
    /// `p` is valid for reading `LANES` integers; no alignment is needed.
    unsafe fn i_load(self, p: *const i32) -> Self::I;
    /// `LANES` bytes, each widened without sign.
    /// # Safety
    /// `p` is valid for reading `LANES` bytes.
    unsafe fn i_widen(self, p: *const u8) -> Self::I;
    /// Stores the low byte of each lane.
    /// # Safety
    /// `p` is valid for writing `LANES` bytes.
    unsafe fn i_store_bytes(self, p: *mut u8, v: Self::I);
    fn i_add(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each lane rounded to the nearest float, half to even.
    fn i_to_f(self, a: Self::I) -> Self::F;
    /// `acc` plus, per lane, the sum of the products of the codes in the words `x` and `w`.
    fn i_dot(self, acc: Self::I, x: Self::I, w: Self::I) -> Self::I;
    /// `acc + x * w` where both factors fit in 16 bits signed and `x` is not negative.
    fn i_mul_add(self, acc: Self::I, x: Self::I, w: Self::I) -> Self::I;
}
