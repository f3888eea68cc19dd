//! Shapes of images and convolutions, and what follows from them: output size, padded size, lengths of buffers.
//!
//! An image is `[h, w, c]`, channels innermost. In its buffer it may be surrounded by a *halo* of spare pixels, so that
//! a convolution can read its padding in place; the owner of the buffer fills the halo once with the padding value and
//! kernels write only the inside.

use super::error::KernelError;
use super::layout::Element;

/// Spare pixels around an image in its buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Halo {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Halo {
    /// No spare pixels: a dense image.
    pub const NONE: Halo = Halo { top: 0, left: 0, bottom: 0, right: 0 };

    /// The same number on every side.
    pub fn uniform(n: usize) -> Halo {
        Halo { top: n, left: n, bottom: n, right: n }
    }
}

/// Where the elements of one image lie in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageLayout {
    /// Rows of the image, halo not counted.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Spare pixels around it.
    pub halo: Halo,
}

impl ImageLayout {
    /// An image without a halo.
    pub fn dense(h: usize, w: usize, c: usize) -> ImageLayout {
        ImageLayout { h, w, c, halo: Halo::NONE }
    }

    /// Elements from one row of the buffer to the next.
    pub fn row_len(&self) -> usize {
        (self.halo.left + self.w + self.halo.right) * self.c
    }

    /// Elements of the buffer, halo counted.
    pub fn len(&self) -> usize {
        (self.halo.top + self.h + self.halo.bottom) * self.row_len()
    }

    /// Whether the buffer has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are no spare pixels between two rows.
    pub(super) fn rows_touch(&self) -> bool {
        self.halo.left == 0 && self.halo.right == 0
    }

    /// Whether all sizes can be addressed.
    pub(super) fn check(&self) -> Result<(), KernelError> {
        let rows = sum(&[self.halo.top, self.h, self.halo.bottom])?;
        let columns = sum(&[self.halo.left, self.w, self.halo.right])?;
        bounded(&[rows, columns, self.c]).map(|_| ())
    }

    /// Sets the halo of `image` to `value`, leaving the inside alone.
    ///
    /// # Errors
    /// A length that does not fit the layout.
    pub fn fill_halo<T: Element>(&self, image: &mut [T], value: T) -> Result<(), KernelError> {
        T::fill_halo(self, image, value)
    }
}

/// A two-dimensional convolution over one image. Operands as in ONNX: weights `[c_out, c_in / groups, kh, kw]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Rows of the input.
    pub h: usize,
    /// Columns of the input.
    pub w: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// Channels of the output.
    pub c_out: usize,
    /// Window, rows and columns.
    pub kernel: [usize; 2],
    /// Step of the window, rows and columns.
    pub stride: [usize; 2],
    /// Padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Distance between the taps of the window, rows and columns.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl ConvShape {
    /// A square window with stride 1, no padding, one group.
    pub fn new(h: usize, w: usize, c_in: usize, c_out: usize, kernel: usize) -> ConvShape {
        ConvShape {
            h,
            w,
            c_in,
            c_out,
            kernel: [kernel; 2],
            stride: [1; 2],
            pads: [0; 4],
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// The same convolution with another stride.
    pub fn strided(self, stride: usize) -> ConvShape {
        ConvShape { stride: [stride; 2], ..self }
    }

    /// The same convolution with the same padding on every side.
    pub fn padded(self, pad: usize) -> ConvShape {
        ConvShape { pads: [pad; 4], ..self }
    }

    /// The same convolution in groups.
    pub fn grouped(self, groups: usize) -> ConvShape {
        ConvShape { groups, ..self }
    }

    /// Rows of the output.
    pub fn out_h(&self) -> usize {
        self.window(0).outputs
    }

    /// Columns of the output.
    pub fn out_w(&self) -> usize {
        self.window(1).outputs
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups.max(1)) * self.kernel[0] * self.kernel[1]
    }

    /// Multiplications of one image.
    pub fn macs(&self) -> usize {
        self.out_h() * self.out_w() * self.weight_len()
    }

    /// Whether every channel is a group of its own with one output.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.groups == self.c_out
    }

    /// The window along the rows (0) or columns (1).
    pub(super) fn window(&self, axis: usize) -> Window {
        let image = if axis == 0 { self.h } else { self.w };
        Window::new(
            image,
            self.kernel[axis],
            self.stride[axis],
            self.dilation[axis],
            self.pads[axis],
            self.pads[axis + 2],
        )
    }

    /// Refuses what has no meaning or does not fit the address space.
    pub(super) fn check(&self) -> Result<(), KernelError> {
        for (what, n) in [
            ("h", self.h),
            ("w", self.w),
            ("c_in", self.c_in),
            ("c_out", self.c_out),
            ("groups", self.groups),
        ] {
            nonzero(what, n)?;
        }
        for channels in [self.c_in, self.c_out] {
            if channels % self.groups != 0 {
                return Err(KernelError::Groups { channels, groups: self.groups });
            }
        }
        let padded = |axis: usize| {
            let image = if axis == 0 { self.h } else { self.w };
            let (k, s, d) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
            check_window(image, k, s, d, self.pads[axis], self.pads[axis + 2])
        };
        let padded = [padded(0)?, padded(1)?];
        bounded(&[padded[0], padded[1], self.c_in])?;
        bounded(&[padded[0], padded[1], self.c_out])?;
        bounded(&[self.c_in / self.groups, self.kernel[0], self.kernel[1], self.c_out])?;
        Ok(())
    }
}

/// A sliding window along one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Image before padding.
    pub(super) image: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the image.
    pub(super) pad: usize,
    /// Positions of the window.
    pub(super) outputs: usize,
}

impl Window {
    /// The window; `check_window` has accepted the same numbers, or the outputs are 0.
    pub(super) fn new(
        image: usize,
        kernel: usize,
        stride: usize,
        dilation: usize,
        pad: usize,
        pad_end: usize,
    ) -> Window {
        let extent = kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        let padded = image.saturating_add(pad).saturating_add(pad_end);
        let outputs = if padded < extent || stride == 0 { 0 } else { (padded - extent) / stride + 1 };
        Window { image, kernel, stride, dilation, pad, outputs }
    }

    /// Positions of the padded axis from the first to the last that `outputs` windows touch.
    pub(super) fn touched(&self, outputs: usize) -> usize {
        (outputs.max(1) - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
    }

    /// The taps of the window at `output` that lie inside the image, and the image position of the first of them.
    pub(super) fn inside(&self, output: usize) -> (std::ops::Range<usize>, usize) {
        let start = output * self.stride;
        let first = self.pad.saturating_sub(start).div_ceil(self.dilation).min(self.kernel);
        let end = (self.image + self.pad).saturating_sub(start).div_ceil(self.dilation).min(self.kernel);
        let taps = first..end.max(first);
        (taps, (start + first * self.dilation).saturating_sub(self.pad))
    }
}

/// Refuses a window without meaning; gives the padded size of the axis.
pub(super) fn check_window(
    image: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    pad_end: usize,
) -> Result<usize, KernelError> {
    nonzero("kernel", kernel)?;
    nonzero("stride", stride)?;
    nonzero("dilation", dilation)?;
    let padded = sum(&[image, pad, pad_end])?;
    let window = sum(&[bounded(&[kernel - 1, dilation])?, 1])?;
    if padded < window {
        return Err(KernelError::WindowTooLarge { window, image: padded });
    }
    Ok(padded)
}

/// `Ok` if `n` is not zero.
pub(super) fn nonzero(what: &'static str, n: usize) -> Result<(), KernelError> {
    if n == 0 { Err(KernelError::Zero(what)) } else { Ok(()) }
}

/// The product, if a buffer of so many 64-byte lines can be addressed: room for every padding and packing done here.
pub(super) fn bounded(factors: &[usize]) -> Result<usize, KernelError> {
    let limit = isize::MAX as usize / 64;
    factors
        .iter()
        .try_fold(1usize, |product, &f| product.checked_mul(f))
        .filter(|&product| product <= limit)
        .ok_or(KernelError::TooLarge)
}

fn sum(terms: &[usize]) -> Result<usize, KernelError> {
    terms.iter().try_fold(0usize, |total, &t| total.checked_add(t)).ok_or(KernelError::TooLarge)
}
