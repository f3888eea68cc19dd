//! Float element-wise kernels. Slices of one length; a caller may pass any part of a tensor.

use super::conv_f32::Clip;
use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::map::{map, update, zip};
use super::shape::nonzero;
use super::simd::Simd;

/// NaN stays NaN.
#[inline(always)]
pub(super) fn clipped(v: f32, clip: Clip) -> f32 {
    let v = if clip.0 > v { clip.0 } else { v };
    if clip.1 < v { clip.1 } else { v }
}

/// `y = clip(a + b)`.
pub fn add(kernels: Kernels, a: &[f32], b: &[f32], clip: Clip, y: &mut [f32]) -> Result<(), KernelError> {
    zip(kernels, a, b, y, |a, b| clipped(a + b, clip))
}

/// `y = clip(a * b)`.
pub fn mul(kernels: Kernels, a: &[f32], b: &[f32], clip: Clip, y: &mut [f32]) -> Result<(), KernelError> {
    zip(kernels, a, b, y, |a, b| clipped(a * b, clip))
}

/// `y = clip(x)`: relu and relu6 as well.
pub fn clip(kernels: Kernels, x: &[f32], clip: Clip, y: &mut [f32]) -> Result<(), KernelError> {
    map(kernels, x, y, |x| clipped(x, clip))
}

/// `y = clip(y + x)` in place.
pub fn add_assign(kernels: Kernels, y: &mut [f32], x: &[f32], clip: Clip) -> Result<(), KernelError> {
    update(kernels, y, x, |y, x| clipped(y + x, clip))
}

/// `y = clip(y * x)` in place.
pub fn mul_assign(kernels: Kernels, y: &mut [f32], x: &[f32], clip: Clip) -> Result<(), KernelError> {
    update(kernels, y, x, |y, x| clipped(y * x, clip))
}

/// `y = clip(x * scale + shift)` with one scale and shift per channel, the last axis: a batch norm that could not be folded, or a
/// gate per channel.
pub fn affine_channels(
    kernels: Kernels,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    clip: Clip,
    y: &mut [f32],
) -> Result<(), KernelError> {
    nonzero("channels", scale.len())?;
    check_len("shift", scale.len(), shift.len())?;
    check_len("y", x.len(), y.len())?;
    check_len("x", x.len() / scale.len() * scale.len(), x.len())?;
    kernels.run(Affine { x, scale, shift, clip, y });
    Ok(())
}

struct Affine<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    clip: Clip,
    y: &'a mut [f32],
}

impl Job for Affine<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.scale.len();
        for (x, y) in self.x.chunks_exact(c).zip(self.y.chunks_exact_mut(c)) {
            for (((y, &x), &scale), &shift) in y.iter_mut().zip(x).zip(self.scale).zip(self.shift) {
                *y = clipped(x * scale + shift, self.clip);
            }
        }
    }
}
