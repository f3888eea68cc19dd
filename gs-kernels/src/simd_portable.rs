//! Vector operations on four-element arrays in plain Rust, which compilers turn into the baseline vector
//! instructions of the machine.

use super::simd::Simd;

/// The token of the portable set: always allowed.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 4;

/// Aligned so that it fits one vector register.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct F4([f32; LANES]);

/// As [`F4`], for integers.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct I4([i32; LANES]);

/// Adding this to a float below 2^22 rounds it to an integer, half to even, in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

impl Simd for Portable {
    const LANES: usize = LANES;
    const CODES_PER_WORD: usize = 2;
    const TILE1: usize = 4;
    const TILE2: usize = 4;
    type F = F4;
    type I = I4;

    #[inline(always)]
    fn f_splat(self, x: f32) -> F4 {
        F4([x; LANES])
    }

    #[inline(always)]
    unsafe fn f_load(self, p: *const f32) -> F4 {
        // SAFETY: the caller promises `LANES` floats at `p`.
        F4(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn f_store(self, p: *mut f32, v: F4) {
        // SAFETY: the caller promises room for `LANES` floats at `p`.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(v.0) }
    }

    #[inline(always)]
    fn f_add(self, a: F4, b: F4) -> F4 {
        F4(std::array::from_fn(|i| a.0[i] + b.0[i]))
    }

    #[inline(always)]
    fn f_mul(self, a: F4, b: F4) -> F4 {
        F4(std::array::from_fn(|i| a.0[i] * b.0[i]))
    }

    #[inline(always)]
    fn f_mul_add(self, a: F4, b: F4, c: F4) -> F4 {
        // `f32::mul_add` is a library call where the baseline has no such instruction.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            F4(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])))
        } else {
            F4(std::array::from_fn(|i| a.0[i] * b.0[i] + c.0[i]))
        }
    }

    #[inline(always)]
    fn f_max(self, a: F4, b: F4) -> F4 {
        F4(std::array::from_fn(|i| if a.0[i] > b.0[i] { a.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn f_min(self, a: F4, b: F4) -> F4 {
        F4(std::array::from_fn(|i| if a.0[i] < b.0[i] { a.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn f_round(self, v: F4) -> I4 {
        I4(std::array::from_fn(|i| (v.0[i] + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32))
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> I4 {
        I4([x; LANES])
    }

    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> I4 {
        // SAFETY: the caller promises `LANES` integers at `p`.
        I4(unsafe { p.cast::<[i32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn i_widen(self, p: *const u8) -> I4 {
        // SAFETY: the caller promises `LANES` bytes at `p`.
        I4(unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from))
    }

    #[inline(always)]
    unsafe fn i_store_bytes(self, p: *mut u8, v: I4) {
        // SAFETY: the caller promises room for `LANES` bytes at `p`.
        unsafe { p.cast::<[u8; LANES]>().write_unaligned(v.0.map(|x| x as u8)) }
    }

    #[inline(always)]
    fn i_add(self, a: I4, b: I4) -> I4 {
        I4(std::array::from_fn(|i| a.0[i].wrapping_add(b.0[i])))
    }

    #[inline(always)]
    fn i_to_f(self, a: I4) -> F4 {
        F4(a.0.map(|x| x as f32))
    }

    #[inline(always)]
    fn i_dot(self, acc: I4, x: I4, w: I4) -> I4 {
        I4(std::array::from_fn(|i| {
            let low = i32::from(x.0[i] as i16) * i32::from(w.0[i] as i16);
            let high = (x.0[i] >> 16) * (w.0[i] >> 16);
            acc.0[i].wrapping_add(low.wrapping_add(high))
        }))
    }

    #[inline(always)]
    fn i_mul_add(self, acc: I4, x: I4, w: I4) -> I4 {
        I4(std::array::from_fn(|i| acc.0[i].wrapping_add(x.0[i].wrapping_mul(w.0[i]))))
    }
}
