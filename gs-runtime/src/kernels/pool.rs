//! Pooling of one image, float and codes. Channels go in blocks of constant size, whose sums the compiler keeps in registers; the
//! window is cut to the image beforehand, so the inner loops have no edge cases.

use super::error::{KernelError, check_len};
use super::grid::{CodeType, Grid, OutGrid};
use super::isa::{Job, Kernels};
use super::quant::{round_code, round_shifted};
use super::shape::{Halo, ImageLayout, Window, check_window};
use super::simd::Simd;

/// Channels computed at a time, while there are so many.
const WIDE: usize = 64;
/// Then so many; the rest one by one.
const NARROW: usize = 16;

/// The size of the block of channels that starts at `channel`.
#[inline(always)]
fn block_at(channel: usize, channels: usize) -> usize {
    match channels - channel {
        left if left >= WIDE => WIDE,
        left if left >= NARROW => NARROW,
        _ => 1,
    }
}

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

    fn window(&self, axis: usize) -> Window {
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

    fn check(&self, x: usize, y: usize) -> Result<(), KernelError> {
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
    fn counted(&self, axis: usize, output: usize) -> usize {
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
        // A NaN stays: as the second operand it is what the comparison leaves, as the first it is kept.
        let larger = if acc > x { acc } else { x };
        if acc.is_nan() { acc } else { larger }
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
    fn run<S: Simd>(mut self, _: S) {
        let (shape, from, to) = (self.shape, self.shape.x, self.shape.y());
        let (rows, columns) = (shape.window(0), shape.window(1));
        let c = from.c;
        for oy in 0..to.h {
            let (taps_y, first_y) = rows.inside(oy);
            for ox in 0..to.w {
                let (taps_x, first_x) = columns.inside(ox);
                let at = Spot {
                    x: (from.halo.top + first_y) * from.row_len() + (from.halo.left + first_x) * c,
                    y: (to.halo.top + oy) * to.row_len() + (to.halo.left + ox) * c,
                    rows: taps_y.len(),
                    columns: taps_x.len(),
                    taps: self.divisor(oy, ox, taps_y.len() * taps_x.len()) as f32,
                };
                let mut channel = 0;
                while channel < c {
                    let block = block_at(channel, c);
                    match block {
                        WIDE => self.block::<WIDE>(&at, channel),
                        NARROW => self.block::<NARROW>(&at, channel),
                        _ => self.block::<1>(&at, channel),
                    }
                    channel += block;
                }
            }
        }
    }
}

/// The window of one output pixel.
struct Spot {
    /// Index of the first element inside the image.
    x: usize,
    /// Index of the output.
    y: usize,
    /// Rows of taps inside the image.
    rows: usize,
    /// Columns of taps inside the image.
    columns: usize,
    /// What an average divides by.
    taps: f32,
}

impl<R: Reduce> Pool<'_, R> {
    /// How many taps an average counts; `inside` of them lie in the image. An empty window averages to zero.
    #[inline(always)]
    fn divisor(&self, oy: usize, ox: usize, inside: usize) -> usize {
        if self.count_pads && R::COUNTS_BEYOND {
            self.shape.kernel[0] * self.shape.kernel[1]
        } else if self.count_pads {
            self.shape.counted(0, oy) * self.shape.counted(1, ox)
        } else {
            inside.max(1)
        }
    }

    /// N channels of one output pixel.
    #[inline(always)]
    fn block<const N: usize>(&mut self, at: &Spot, channel: usize) {
        let c = self.shape.x.c;
        let row = self.shape.dilation[0] * self.shape.x.row_len();
        let column = self.shape.dilation[1] * c;
        let mut acc = [self.reduce.start(); N];
        for ky in 0..at.rows {
            for kx in 0..at.columns {
                let x = at.x + ky * row + kx * column + channel;
                for (acc, &x) in acc.iter_mut().zip(&self.x[x..x + N]) {
                    *acc = self.reduce.step(*acc, x);
                }
            }
        }
        let y = &mut self.y[at.y + channel..at.y + channel + N];
        for (y, &acc) in y.iter_mut().zip(&acc) {
            *y = self.reduce.end(acc, at.taps);
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
        while channel < self.layout.c {
            let block = block_at(channel, self.layout.c);
            match block {
                WIDE => self.block::<WIDE>(channel),
                NARROW => self.block::<NARROW>(channel),
                _ => self.block::<1>(channel),
            }
            channel += block;
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
