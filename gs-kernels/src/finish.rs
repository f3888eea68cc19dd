//! The ends of the tiled kernels: from sums in registers to stored outputs.

use super::simd::Simd;
use super::tile::{CodeMac, Finish, FloatMac};

/// The largest `LANES` of all sets.
const MAX_LANES: usize = 16;

/// Float output: `clip(bias + sum + residual)`.
pub(super) struct FloatFinish<'a, const RESIDUAL: bool> {
    pub(super) y: *mut f32,
    /// Read only if `RESIDUAL`.
    pub(super) residual: *const f32,
    pub(super) bias: &'a [f32],
    /// Limits, infinite where there are none. NaN passes through.
    pub(super) clip: (f32, f32),
}

impl<const RESIDUAL: bool> FloatFinish<'_, RESIDUAL> {
    #[inline(always)]
    fn clipped<S: Simd>(&self, s: S, v: S::F) -> S::F {
        s.f_min(s.f_splat(self.clip.1), s.f_max(s.f_splat(self.clip.0), v))
    }
}

impl<S: Simd, const RESIDUAL: bool> Finish<FloatMac<S>> for FloatFinish<'_, RESIDUAL> {
    #[inline(always)]
    unsafe fn start(&self, m: FloatMac<S>, param: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { m.0.f_load(self.bias.as_ptr().add(param)) }
    }

    #[inline(always)]
    unsafe fn store(&self, m: FloatMac<S>, sum: S::F, _: usize, y: usize, residual: usize) {
        let (s, mut v) = (m.0, sum);
        // SAFETY: the caller's promise about offsets.
        unsafe {
            if RESIDUAL {
                v = s.f_add(v, s.f_load(self.residual.add(residual)));
            }
            s.f_store(self.y.add(y), self.clipped(s, v));
        }
    }

    #[inline(always)]
    unsafe fn store_part(
        &self,
        m: FloatMac<S>,
        sum: S::F,
        _: usize,
        channels: usize,
        y: usize,
        residual: usize,
    ) {
        let (s, mut v) = (m.0, sum);
        // SAFETY: the caller's promise about offsets; whole vectors are loaded and stored only on the stack.
        unsafe {
            let mut buffer = [0f32; MAX_LANES];
            if RESIDUAL {
                std::ptr::copy_nonoverlapping(self.residual.add(residual), buffer.as_mut_ptr(), channels);
                v = s.f_add(v, s.f_load(buffer.as_ptr()));
            }
            s.f_store(buffer.as_mut_ptr(), self.clipped(s, v));
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), self.y.add(y), channels);
        }
    }
}

/// Integer sums to codes: `saturate(round(float(offset + sum) * scale) + zero_point)`, clamped.
pub(super) struct CodeFinish<'a> {
    pub(super) y: *mut u8,
    /// Bias less zero point times sum of weights, per channel.
    pub(super) offset: &'a [i32],
    /// Input times weight over output scale, per channel.
    pub(super) scale: &'a [f32],
    pub(super) zero_point: i32,
    /// Clamp limits less the zero point.
    pub(super) clamp: (f32, f32),
}

impl CodeFinish<'_> {
    /// # Safety
    /// `param + LANES` is inside the parameters.
    #[inline(always)]
    unsafe fn code<S: Simd>(&self, s: S, sum: S::I, param: usize) -> S::I {
        // SAFETY: the caller's promise.
        let v = unsafe { scaled(s, sum, self.scale, param) };
        // Clamping first gives the same codes, since the limits are whole numbers, and keeps the conversion in range.
        // NaN (a scale overflowed) becomes the lower limit on every instruction set.
        let v = s.f_min(s.f_max(v, s.f_splat(self.clamp.0)), s.f_splat(self.clamp.1));
        s.i_add(s.f_round(v), s.i_splat(self.zero_point))
    }
}

impl<S: Simd> Finish<CodeMac<S>> for CodeFinish<'_> {
    #[inline(always)]
    unsafe fn start(&self, m: CodeMac<S>, param: usize) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { m.0.i_load(self.offset.as_ptr().add(param)) }
    }

    #[inline(always)]
    unsafe fn store(&self, m: CodeMac<S>, sum: S::I, param: usize, y: usize, _: usize) {
        // SAFETY: the caller's promise about offsets.
        unsafe { m.0.i_store_bytes(self.y.add(y), self.code(m.0, sum, param)) }
    }

    #[inline(always)]
    unsafe fn store_part(&self, m: CodeMac<S>, sum: S::I, param: usize, channels: usize, y: usize, _: usize) {
        let mut buffer = [0u8; MAX_LANES];
        // SAFETY: the caller's promise about offsets; the whole vector is stored only on the stack.
        unsafe {
            m.0.i_store_bytes(buffer.as_mut_ptr(), self.code(m.0, sum, param));
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), self.y.add(y), channels);
        }
    }
}

/// Integer sums to floats: `float(offset + sum) * scale`.
pub(super) struct DequantFinish<'a> {
    pub(super) y: *mut f32,
    /// Bias less zero point times sum of weights, per channel.
    pub(super) offset: &'a [i32],
    /// Input times weight scale, per channel.
    pub(super) scale: &'a [f32],
}

impl<S: Simd> Finish<CodeMac<S>> for DequantFinish<'_> {
    #[inline(always)]
    unsafe fn start(&self, m: CodeMac<S>, param: usize) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { m.0.i_load(self.offset.as_ptr().add(param)) }
    }

    #[inline(always)]
    unsafe fn store(&self, m: CodeMac<S>, sum: S::I, param: usize, y: usize, _: usize) {
        // SAFETY: the caller's promise about offsets.
        unsafe { m.0.f_store(self.y.add(y), scaled(m.0, sum, self.scale, param)) }
    }

    #[inline(always)]
    unsafe fn store_part(&self, m: CodeMac<S>, sum: S::I, param: usize, channels: usize, y: usize, _: usize) {
        let mut buffer = [0f32; MAX_LANES];
        // SAFETY: the caller's promise about offsets; the whole vector is stored only on the stack.
        unsafe {
            m.0.f_store(buffer.as_mut_ptr(), scaled(m.0, sum, self.scale, param));
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), self.y.add(y), channels);
        }
    }
}

/// `float(sum) * scale` of one vector of channels.
///
/// # Safety
/// `param + LANES` is inside `scale`.
#[inline(always)]
unsafe fn scaled<S: Simd>(s: S, sum: S::I, scale: &[f32], param: usize) -> S::F {
    // SAFETY: the caller's promise.
    s.f_mul(s.i_to_f(sum), unsafe { s.f_load(scale.as_ptr().add(param)) })
}
