//! Vector operations of AVX2 with FMA: eight lanes, integer products as pairs of 16 bits (`vpmaddwd`, which is exact,
//! unlike `vpmaddubsw`, which saturates).

use std::arch::x86_64::*;

use super::simd::Simd;

/// Exists only where AVX2 and FMA may be executed.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[inline(always)]
    pub(super) unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const CODES_PER_WORD: usize = 2;
    const TILE1: usize = 8;
    const TILE2: usize = 4;
    type F = __m256;
    type I = __m256i;

    #[inline(always)]
    fn f_splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn f_load(self, p: *const f32) -> __m256 {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn f_store(self, p: *mut f32, v: __m256) {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn f_add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn f_mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn f_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn f_max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn f_min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn f_round(self, v: __m256) -> __m256i {
        // Rust keeps the rounding mode at half to even.
        // SAFETY: `self` proves the features.
        unsafe { _mm256_cvtps_epi32(v) }
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> __m256i {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn i_widen(self, p: *const u8) -> __m256i {
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn i_store_bytes(self, p: *mut u8, v: __m256i) {
        // Gathers the low byte of each lane into the low four bytes of each half, then joins the halves.
        // SAFETY: `self` proves the features; the caller vouches for `p`.
        unsafe {
            let pick = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
            let low = _mm_shuffle_epi8(_mm256_castsi256_si128(v), pick);
            let high = _mm_shuffle_epi8(_mm256_extracti128_si256(v, 1), pick);
            _mm_storel_epi64(p.cast(), _mm_unpacklo_epi32(low, high));
        }
    }

    #[inline(always)]
    fn i_add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn i_to_f(self, a: __m256i) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn i_dot(self, acc: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(x, w)) }
    }

    #[inline(always)]
    fn i_mul_add(self, acc: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // The high halves of `x` are zero, so the pair sum is the one product.
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(x, w)) }
    }
}
