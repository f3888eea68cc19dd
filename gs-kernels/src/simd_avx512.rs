//! Vector operations of AVX-512: sixteen lanes. With VNNI, integer products take four 8-bit codes per lane
//! (`vpdpbusd`, whose sum does not saturate); without it, pairs of 16 bits.

use std::arch::x86_64::*;

use super::simd::Simd;

/// Exists only where AVX-512 F, BW, DQ, VL (and VNNI if `VNNI`) may be executed.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const VNNI: bool>(());

impl<const VNNI: bool> Avx512<VNNI> {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, and VNNI if `VNNI` is set.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Avx512(())
    }
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const LANES: usize = 16;
    const CODES_PER_WORD: usize = if VNNI { 4 } else { 2 };
    const TILE1: usize = 16;
    const TILE2: usize = 8;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    fn f_splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn f_load(self, p: *const f32) -> __m512 {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn f_store(self, p: *mut f32, v: __m512) {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn f_add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn f_mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn f_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn f_max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn f_min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn f_round(self, v: __m512) -> __m512i {
        // Rust keeps the rounding mode at half to even.
        // SAFETY: `self` proves the features.
        unsafe { _mm512_cvtps_epi32(v) }
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> __m512i {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn i_widen(self, p: *const u8) -> __m512i {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn i_store_bytes(self, p: *mut u8, v: __m512i) {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(v)) }
    }

    #[inline(always)]
    fn i_add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn i_to_f(self, a: __m512i) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn i_dot(self, acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
        if VNNI {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_dpbusd_epi32(acc, x, w) }
        } else {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(x, w)) }
        }
    }

    #[inline(always)]
    fn i_mul_add(self, acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // The high halves of `x` are zero, so the pair sum is the one product.
        if VNNI {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_dpwssd_epi32(acc, x, w) }
        } else {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(x, w)) }
        }
    }
}
