//! Pooling of one image, float and codes. A row of outputs is built tap by tap: for one tap, the outputs whose tap lies inside the image
//! are a range, and with stride 1 their inputs are one contiguous stretch. So the inner loops have no edge cases and are long.
//! The terms of an average are still added in row order.

use super::error::{KernelError, check_len};
use super::grid::{CodeType, Grid, OutGrid};
use super::isa::{Job, Kernels};
use super::quant::{round_code, round_shifted};
use super::shape::{Halo, ImageLayout, Window, check_window};
use super::simd::Simd;

/// A pooling window over one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// The input buffer.
    pub x: ImageLayout,
    /// Window, rows and columns.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Padding: top, left, bottom, right. Never read: a maximum ignores it, an average may count it.
    pub pads: [usize; 4],
    /// Distance between the taps of the window.
    pub dilation: [usize; 2],
    /// Whether a window that does not fit at the end counts, if it starts inside the image or the padding before it.
    pub ceil_mode: bool,
    /// Halo of the output buffer.
    pub y_halo: Halo,
}

impl PoolShape {
    /// A square window without padding that moves by `stride`.
    pub fn new(x: ImageLayout, kernel: usize, stride: usize) -> PoolShape {
        PoolShape {
            x,
            kernel: [kernel; 2],
            stride: [stride; 2],
            pads: [0; 4],
            dilation: [1; 2],
            ceil_mode: false,
            y_halo: Halo::NONE,
        }
    }

    /// The output buffer.
    pub fn y(&self) -> ImageLayout {
        let (h, w) = (self.window(0).outputs, self.window(1).outputs);
        ImageLayout { h, w, c: self.x.c, halo: self.y_halo }
    }

    pub(super) fn window(&self, axis: usize) -> Window {
        let image = if axis == 0 { self.x.h } else { self.x.w };
        let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
        let (pad, end) = (self.pads[axis], self.pads[axis + 2]);
        let mut window = Window::new(image, kernel, stride, dilation, pad, end);
        if self.ceil_mode && window.outputs > 0 {
            let rest = (image + pad + end) - window.touched(window.outputs);
            if rest > 0 && window.outputs * stride < image + pad {
                window.outputs += 1;
            }
        }
        window
    }

    pub(super) fn check(&self, x: usize, y: usize) -> Result<(), KernelError> {
        self.x.check()?;
        for axis in 0..2 {
            let image = if axis == 0 { self.x.h } else { self.x.w };
            check_window(
                image,
                self.kernel[axis],
                self.stride[axis],
                self.dilation[axis],
                self.pads[axis],
                self.pads[axis + 2],
            )?;
        }
        let out = self.y();
        out.check()?;
        check_len("x", self.x.len(), x)?;
        check_len("y", out.len(), y)
    }

    /// Taps of the window at `output` along `axis` that lie inside the image or its padding.
    pub(super) fn counted(&self, axis: usize, output: usize) -> usize {
        let window = self.window(axis);
        let padded = window.image + window.pad + self.pads[axis + 2];
        padded.saturating_sub(output * window.stride).div_ceil(window.dilation).min(window.kernel)
    }
}

/// What a pooling does to one block of channels.
trait Reduce: Copy {
    type X: Copy;
    type Y: Copy;
    type Acc: Copy;
    /// Whether an average that counts padding also counts taps beyond it.
    const COUNTS_BEYOND: bool = false;
    fn start(self) -> Self::Acc;
    fn step(self, acc: Self::Acc, x: Self::X) -> Self::Acc;
    /// `taps`: how many elements an average divides by.
    fn end(self, acc: Self::Acc, taps: f32) -> Self::Y;
}

/// Maximum of floats; of nothing, negative infinity.
pub fn max_pool(kernels: Kernels, shape: &PoolShape, x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    run(kernels, shape, false, MaxFloat, x, y)
}

/// Maximum of codes; input and output have the same grid. Of nothing, the smallest code.
pub fn max_pool_codes(
    kernels: Kernels,
    shape: &PoolShape,
    code: CodeType,
    x: &[u8],
    y: &mut [u8],
) -> Result<(), KernelError> {
    run(kernels, shape, false, MaxCode { flip: code.flip() }, x, y)
}

/// Average of floats, summed in row order. `count_pads` counts the padding as zeros.
pub fn average_pool(
    kernels: Kernels,
    shape: &PoolShape,
    count_pads: bool,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    run(kernels, shape, count_pads, AverageFloat, x, y)
}

/// Average of codes: the float sum of `s_x * (x - z_x)` in row order, divided by the count, then
/// `saturate(round(v / s_y + z_y))`. With `count_pads` the count is that of the window even where, in ceil mode, it reaches beyond the
/// padding: there ONNX Runtime's integer operator differs from its float one.
pub fn qlinear_average_pool(
    kernels: Kernels,
    shape: &PoolShape,
    count_pads: bool,
    (x, x_grid): (&[u8], &Grid),
    y: &mut [u8],
    out: &OutGrid,
) -> Result<(), KernelError> {
    x_grid.check()?;
    out.check()?;
    run(kernels, shape, count_pads, AverageCode { x: *x_grid, out: *out }, x, y)
}

#[derive(Clone, Copy)]
struct MaxFloat;

impl Reduce for MaxFloat {
    type X = f32;
    type Y = f32;
    type Acc = f32;

    #[inline(always)]
    fn start(self) -> f32 {
        f32::NEG_INFINITY
    }

    #[inline(always)]
    fn step(self, acc: f32, x: f32) -> f32 {
        // `max` alone would drop a NaN. Written without a branch around the store, which would keep it from being vectorised.
        if acc.is_nan() | x.is_nan() { f32::NAN } else { acc.max(x) }
    }

    #[inline(always)]
    fn end(self, acc: f32, _: f32) -> f32 {
        acc
    }
}

#[derive(Clone, Copy)]
struct MaxCode {
    flip: u8,
}

impl Reduce for MaxCode {
    type X = u8;
    type Y = u8;
    type Acc = u8;

    #[inline(always)]
    fn start(self) -> u8 {
        0
    }

    #[inline(always)]
    fn step(self, acc: u8, x: u8) -> u8 {
        acc.max(x ^ self.flip)
    }

    #[inline(always)]
    fn end(self, acc: u8, _: f32) -> u8 {
        acc ^ self.flip
    }
}

#[derive(Clone, Copy)]
struct AverageFloat;

impl Reduce for AverageFloat {
    type X = f32;
    type Y = f32;
    type Acc = f32;

    #[inline(always)]
    fn start(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn step(self, acc: f32, x: f32) -> f32 {
        acc + x
    }

    #[inline(always)]
    fn end(self, acc: f32, taps: f32) -> f32 {
        acc / taps
    }
}

#[derive(Clone, Copy)]
struct AverageCode {
    x: Grid,
    out: OutGrid,
}

impl Reduce for AverageCode {
    type X = u8;
    type Y = u8;
    type Acc = f32;
    const COUNTS_BEYOND: bool = true;

    #[inline(always)]
    fn start(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn step(self, acc: f32, x: u8) -> f32 {
        acc + self.x.scale * (self.x.code.code(x) - self.x.zero_point) as f32
    }

    #[inline(always)]
    fn end(self, acc: f32, taps: f32) -> u8 {
        round_shifted(acc / taps / self.out.grid.scale + self.out.grid.zero_point as f32, &self.out)
    }
}

fn run<R: Reduce>(
    kernels: Kernels,
    shape: &PoolShape,
    count_pads: bool,
    reduce: R,
    x: &[R::X],
    y: &mut [R::Y],
) -> Result<(), KernelError> {
    shape.check(x.len(), y.len())?;
    kernels.run(Pool { shape, count_pads, reduce, x, y });
    Ok(())
}

struct Pool<'a, R: Reduce> {
    shape: &'a PoolShape,
    count_pads: bool,
    reduce: R,
    x: &'a [R::X],
    y: &'a mut [R::Y],
}

impl<R: Reduce> Job for Pool<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (shape, from, to) = (self.shape, self.shape.x, self.shape.y());
        let (rows, columns) = (shape.window(0), shape.window(1));
        let c = from.c;
        if c == 0 || to.w == 0 {
            return;
        }
        let mut acc = vec![self.reduce.start(); to.w * c];
        for oy in 0..to.h {
            let (taps_y, first_y) = rows.inside(oy);
            acc.fill(self.reduce.start());
            for ky in 0..taps_y.len() {
                let y = from.halo.top + first_y + ky * rows.dilation;
                let start = y * from.row_len() + from.halo.left * c;
                let row = &self.x[start..start + from.w * c];
                for kx in 0..columns.kernel {
                    add_tap(self.reduce, &columns, kx, row, c, &mut acc);
                }
            }
            let start = (to.halo.top + oy) * to.row_len() + to.halo.left * c;
            let y = &mut self.y[start..start + to.w * c];
            for (ox, (y, acc)) in y.chunks_exact_mut(c).zip(acc.chunks_exact(c)).enumerate() {
                let taps =
                    divisor::<R>(shape, self.count_pads, (oy, ox), taps_y.len() * columns.inside(ox).0.len())
                        as f32;
                for (y, &acc) in y.iter_mut().zip(acc) {
                    *y = self.reduce.end(acc, taps);
                }
            }
        }
    }
}

/// How many taps an average over the window of output `(oy, ox)` counts; `inside` of them lie in the image. An empty window averages
/// to zero.
#[inline(always)]
fn divisor<R: Reduce>(shape: &PoolShape, count_pads: bool, (oy, ox): (usize, usize), inside: usize) -> usize {
    if count_pads && R::COUNTS_BEYOND {
        shape.kernel[0] * shape.kernel[1]
    } else if count_pads {
        shape.counted(0, oy) * shape.counted(1, ox)
    } else {
        inside.max(1)
    }
}

/// Adds column `kx` of the window, of one image row, to the outputs of a row for which it lies inside the image.
#[inline(always)]
fn add_tap<R: Reduce>(reduce: R, columns: &Window, kx: usize, row: &[R::X], c: usize, acc: &mut [R::Acc]) {
    // Output `o` reads image column `o * stride + offset - pad`.
    let offset = kx * columns.dilation;
    let first = columns.pad.saturating_sub(offset).div_ceil(columns.stride);
    let end =
        (columns.image + columns.pad).saturating_sub(offset).div_ceil(columns.stride).min(columns.outputs);
    if first >= end {
        return;
    }
    let x = (first * columns.stride + offset - columns.pad) * c;
    let acc = &mut acc[first * c..end * c];
    if columns.stride == 1 {
        for (acc, &x) in acc.iter_mut().zip(&row[x..x + (end - first) * c]) {
            *acc = reduce.step(*acc, x);
        }
    } else {
        for (acc, x) in acc.chunks_exact_mut(c).zip(row[x..].chunks(columns.stride * c)) {
            for (acc, &x) in acc.iter_mut().zip(x) {
                *acc = reduce.step(*acc, x);
            }
        }
    }
}

/// Mean of every channel over the image, `[c]`, summed in row order.
pub fn global_average_pool(
    kernels: Kernels,
    x: &[f32],
    layout: &ImageLayout,
    y: &mut [f32],
) -> Result<(), KernelError> {
    check_global(layout, x.len(), y.len())?;
    let taps = (layout.h * layout.w) as f32;
    kernels.run(Global { x, layout: *layout, y, start: 0f32, step: |acc, x| acc + x, end: |acc| acc / taps });
    Ok(())
}

/// Mean of every channel of codes over the image, from the exact integer sum:
/// `saturate(round(f32(sum(x - z_x)) * (s_x / (s_y * pixels))) + z_y)`.
pub fn qlinear_global_average_pool(
    kernels: Kernels,
    (x, x_grid): (&[u8], &Grid),
    layout: &ImageLayout,
    y: &mut [u8],
    out: &OutGrid,
) -> Result<(), KernelError> {
    check_global(layout, x.len(), y.len())?;
    x_grid.check()?;
    out.check()?;
    let (grid, out) = (*x_grid, *out);
    let ratio = grid.scale / (out.grid.scale * (layout.h * layout.w) as f32);
    let (flip, zero) = (grid.code.flip(), grid.zero_point + grid.code.bias());
    let offset = ((layout.h * layout.w) as i32).wrapping_mul(zero);
    kernels.run(Global {
        x,
        layout: *layout,
        y,
        start: 0i32,
        step: |acc: i32, x: u8| acc.wrapping_add(i32::from(x ^ flip)),
        end: |acc: i32| round_code(acc.wrapping_sub(offset) as f32 * ratio, &out),
    });
    Ok(())
}

fn check_global(layout: &ImageLayout, x: usize, y: usize) -> Result<(), KernelError> {
    layout.check()?;
    super::shape::nonzero("h", layout.h)?;
    super::shape::nonzero("w", layout.w)?;
    check_len("x", layout.len(), x)?;
    check_len("y", layout.c, y)
}

/// Channels whose sums are kept in registers: a constant, while there are so many; the rest one by one.
const BLOCK: usize = 32;

struct Global<'a, X, Y, A, F, G> {
    x: &'a [X],
    layout: ImageLayout,
    y: &'a mut [Y],
    start: A,
    step: F,
    end: G,
}

impl<X: Copy, Y, A: Copy, F: Fn(A, X) -> A, G: Fn(A) -> Y> Job for Global<'_, X, Y, A, F, G> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let mut channel = 0;
        while channel + BLOCK <= self.layout.c {
            self.block::<BLOCK>(channel);
            channel += BLOCK;
        }
        while channel < self.layout.c {
            self.block::<1>(channel);
            channel += 1;
        }
    }
}

impl<X: Copy, Y, A: Copy, F: Fn(A, X) -> A, G: Fn(A) -> Y> Global<'_, X, Y, A, F, G> {
    /// N channels.
    #[inline(always)]
    fn block<const N: usize>(&mut self, channel: usize) {
        let l = self.layout;
        let mut acc = [self.start; N];
        for row in 0..l.h {
            let start = (l.halo.top + row) * l.row_len() + l.halo.left * l.c;
            for pixel in self.x[start..start + l.w * l.c].chunks_exact(l.c) {
                for (acc, &x) in acc.iter_mut().zip(&pixel[channel..channel + N]) {
                    *acc = (self.step)(*acc, x);
                }
            }
        }
        for (y, &acc) in self.y[channel..channel + N].iter_mut().zip(&acc) {
            *y = (self.end)(acc);
        }
    }
}
