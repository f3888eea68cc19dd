//! Derivatives of depthwise convolutions, for one image. Taps and channels are loops over rows of pixels, vectorised over
//! the channels by the compiler.

use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::shape::{ConvShape, Halo, ImageLayout};
use super::simd::Simd;

/// The gradients of a depthwise convolution, planned.
#[derive(Clone, Debug)]
pub struct DepthwiseGrad {
    kernels: Kernels,
    shape: ConvShape,
    x: ImageLayout,
    y: ImageLayout,
    /// Weights by tap, channels innermost.
    weights: Vec<f32>,
}

/// A tap at a row of outputs: where the pixels of input and output begin, and how many there are.
#[derive(Clone, Copy)]
struct Stretch {
    tap: usize,
    x: usize,
    y: usize,
    pixels: usize,
}

impl DepthwiseGrad {
    /// Plans the gradients of a convolution between buffers with these halos. The weights are zero at first.
    ///
    /// # Errors
    /// A shape without meaning, too large, or not depthwise.
    pub fn new(kernels: Kernels, shape: &ConvShape, x: Halo, y: Halo) -> Result<Self, KernelError> {
        shape.check()?;
        if !shape.is_depthwise() {
            return Err(KernelError::Groups { channels: shape.c_in, groups: shape.groups });
        }
        let x = ImageLayout { h: shape.h, w: shape.w, c: shape.c_in, halo: x };
        let y = ImageLayout { h: shape.out_h(), w: shape.out_w(), c: shape.c_out, halo: y };
        x.check()?;
        y.check()?;
        Ok(Self { kernels, shape: *shape, x, y, weights: vec![0.0; shape.weight_len()] })
    }

    /// Elements of a buffer of sums for the gradient of the weights.
    pub fn sums_len(&self) -> usize {
        self.shape.weight_len()
    }

    /// Takes the weights `[channels, 1, kh, kw]`.
    ///
    /// # Errors
    /// Another number of weights.
    pub fn set_weights(&mut self, weights: &[f32]) -> Result<(), KernelError> {
        check_len("weights", self.shape.weight_len(), weights.len())?;
        let (c, taps) = (self.shape.c_in, self.shape.kernel[0] * self.shape.kernel[1]);
        for (i, w) in self.weights.iter_mut().enumerate() {
            *w = weights[i % c * taps + i / c];
        }
        Ok(())
    }

    /// The gradient of the input.
    ///
    /// # Errors
    /// Lengths that do not fit the shape.
    pub fn input(&self, dy: &[f32], dx: &mut [f32]) -> Result<(), KernelError> {
        check_len("dy", self.y.len(), dy.len())?;
        check_len("dx", self.x.len(), dx.len())?;
        for row in 0..self.x.h {
            let start = (self.x.halo.top + row) * self.x.row_len() + self.x.halo.left * self.x.c;
            dx[start..start + self.x.w * self.x.c].fill(0.0);
        }
        self.kernels.run(InputJob { plan: self, dy, dx });
        Ok(())
    }

    /// Adds what an image contributes to the gradient of the weights to `sums`.
    ///
    /// # Errors
    /// Lengths that do not fit the shape.
    pub fn weight(&self, dy: &[f32], x: &[f32], sums: &mut [f32]) -> Result<(), KernelError> {
        check_len("dy", self.y.len(), dy.len())?;
        check_len("x", self.x.len(), x.len())?;
        check_len("sums", self.sums_len(), sums.len())?;
        self.kernels.run(WeightJob { plan: self, dy, x, sums });
        Ok(())
    }

    /// Adds partial sums in their order and writes the order of the weights. The first of them is overwritten.
    ///
    /// # Errors
    /// Lengths that do not fit the shape.
    pub fn finish(&self, partial: &mut [f32], dw: &mut [f32]) -> Result<(), KernelError> {
        let len = self.sums_len();
        check_len("dw", len, dw.len())?;
        check_len("partial", (partial.len() / len).max(1) * len, partial.len())?;
        let (total, rest) = partial.split_at_mut(len);
        for part in rest.chunks_exact(len) {
            super::elementwise::add_assign(self.kernels, total, part, super::NO_CLIP)?;
        }
        let (c, taps) = (self.shape.c_in, self.shape.kernel[0] * self.shape.kernel[1]);
        for (i, &v) in total.iter().enumerate() {
            dw[i % c * taps + i / c] = v;
        }
        Ok(())
    }

    /// Calls `f` for every tap that lies inside the image at some outputs of a row.
    #[inline(always)]
    fn each(&self, mut f: impl FnMut(Stretch)) {
        let s = &self.shape;
        let (rows, columns) = (s.window(0), s.window(1));
        for oy in 0..self.y.h {
            let (taps, first) = rows.inside(oy);
            for (i, ky) in taps.enumerate() {
                let x_row = (self.x.halo.top + first + i * s.dilation[0]) * self.x.row_len();
                let y_row = (self.y.halo.top + oy) * self.y.row_len();
                for kx in 0..s.kernel[1] {
                    // Output `o` reads column `o * stride + offset - pad`.
                    let offset = kx * s.dilation[1];
                    let begin = columns.pad.saturating_sub(offset).div_ceil(columns.stride);
                    let end = (columns.image + columns.pad).saturating_sub(offset).div_ceil(columns.stride);
                    let end = end.min(columns.outputs);
                    if begin >= end {
                        continue;
                    }
                    let column = self.x.halo.left + begin * columns.stride + offset - columns.pad;
                    f(Stretch {
                        tap: ky * s.kernel[1] + kx,
                        x: x_row + column * self.x.c,
                        y: y_row + (self.y.halo.left + begin) * self.y.c,
                        pixels: end - begin,
                    });
                }
            }
        }
    }
}

struct InputJob<'a> {
    plan: &'a DepthwiseGrad,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Job for InputJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (c, step) = (self.plan.shape.c_in, self.plan.shape.stride[1] * self.plan.shape.c_in);
        self.plan.each(|at| {
            let weights = &self.plan.weights[at.tap * c..(at.tap + 1) * c];
            for p in 0..at.pixels {
                let dy = &self.dy[at.y + p * c..at.y + (p + 1) * c];
                let dx = &mut self.dx[at.x + p * step..at.x + p * step + c];
                for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(weights) {
                    *dx += dy * w;
                }
            }
        });
    }
}

struct WeightJob<'a> {
    plan: &'a DepthwiseGrad,
    dy: &'a [f32],
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Job for WeightJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (c, step) = (self.plan.shape.c_in, self.plan.shape.stride[1] * self.plan.shape.c_in);
        self.plan.each(|at| {
            let sums = &mut self.sums[at.tap * c..(at.tap + 1) * c];
            for p in 0..at.pixels {
                let dy = &self.dy[at.y + p * c..at.y + (p + 1) * c];
                let x = &self.x[at.x + p * step..at.x + p * step + c];
                for ((sum, &dy), &x) in sums.iter_mut().zip(dy).zip(x) {
                    *sum += dy * x;
                }
            }
        });
    }
}
