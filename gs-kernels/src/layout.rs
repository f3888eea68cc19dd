//! Between the layout of files (`[c, h, w]`, channels outermost) and that of the kernels (`[h, w, c]`, channels innermost), and the
//! halo that surrounds the latter.

use super::error::{KernelError, check_len};
use super::shape::ImageLayout;

/// Pixels moved at a time, so that both sides stay in the first-level cache.
const BLOCK: usize = 32;

/// What images are made of: floats, and bytes for codes of either sign. A trait, and not any type that can be copied, so that the
/// loops are compiled in this crate, as fast as its kernels, and not in the crates that call them.
pub trait Element: Copy {
    /// See [`to_channels_last`].
    ///
    /// # Errors
    /// Lengths that do not fit the layout.
    fn to_channels_last(x: &[Self], to: &ImageLayout, y: &mut [Self]) -> Result<(), KernelError>;

    /// See [`to_channels_first`].
    ///
    /// # Errors
    /// Lengths that do not fit the layout.
    fn to_channels_first(x: &[Self], from: &ImageLayout, y: &mut [Self]) -> Result<(), KernelError>;

    /// See [`ImageLayout::fill_halo`].
    ///
    /// # Errors
    /// A length that does not fit the layout.
    fn fill_halo(layout: &ImageLayout, image: &mut [Self], value: Self) -> Result<(), KernelError>;
}

impl Element for f32 {
    fn to_channels_last(x: &[f32], to: &ImageLayout, y: &mut [f32]) -> Result<(), KernelError> {
        last(x, to, y)
    }

    fn to_channels_first(x: &[f32], from: &ImageLayout, y: &mut [f32]) -> Result<(), KernelError> {
        first(x, from, y)
    }

    fn fill_halo(layout: &ImageLayout, image: &mut [f32], value: f32) -> Result<(), KernelError> {
        halo(layout, image, value)
    }
}

impl Element for u8 {
    fn to_channels_last(x: &[u8], to: &ImageLayout, y: &mut [u8]) -> Result<(), KernelError> {
        last(x, to, y)
    }

    fn to_channels_first(x: &[u8], from: &ImageLayout, y: &mut [u8]) -> Result<(), KernelError> {
        first(x, from, y)
    }

    fn fill_halo(layout: &ImageLayout, image: &mut [u8], value: u8) -> Result<(), KernelError> {
        halo(layout, image, value)
    }
}

/// One image from `[c, h, w]` to the inside of a buffer of layout `to`.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn to_channels_last<T: Element>(x: &[T], to: &ImageLayout, y: &mut [T]) -> Result<(), KernelError> {
    T::to_channels_last(x, to, y)
}

/// One image from the inside of a buffer of layout `from` to `[c, h, w]`.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn to_channels_first<T: Element>(x: &[T], from: &ImageLayout, y: &mut [T]) -> Result<(), KernelError> {
    T::to_channels_first(x, from, y)
}

fn last<T: Copy>(x: &[T], to: &ImageLayout, y: &mut [T]) -> Result<(), KernelError> {
    check(to, x.len(), "x", y.len(), "y")?;
    each_block(to, |planar, pixels, channel, at| {
        for (i, &v) in x[planar..planar + pixels].iter().enumerate() {
            y[at + i * to.c + channel] = v;
        }
    });
    Ok(())
}

fn first<T: Copy>(x: &[T], from: &ImageLayout, y: &mut [T]) -> Result<(), KernelError> {
    check(from, y.len(), "y", x.len(), "x")?;
    each_block(from, |planar, pixels, channel, at| {
        for (i, v) in y[planar..planar + pixels].iter_mut().enumerate() {
            *v = x[at + i * from.c + channel];
        }
    });
    Ok(())
}

fn halo<T: Copy>(layout: &ImageLayout, image: &mut [T], value: T) -> Result<(), KernelError> {
    layout.check()?;
    check_len("image", layout.len(), image.len())?;
    if layout.is_empty() {
        return Ok(());
    }
    for (y, row) in image.chunks_exact_mut(layout.row_len()).enumerate() {
        if y < layout.halo.top || y >= layout.halo.top + layout.h {
            row.fill(value);
        } else {
            let inside = layout.halo.left * layout.c;
            row[..inside].fill(value);
            row[inside + layout.w * layout.c..].fill(value);
        }
    }
    Ok(())
}

fn check(
    layout: &ImageLayout,
    planar: usize,
    planar_name: &'static str,
    buffer: usize,
    buffer_name: &'static str,
) -> Result<(), KernelError> {
    layout.check()?;
    check_len(planar_name, layout.h * layout.w * layout.c, planar)?;
    check_len(buffer_name, layout.len(), buffer)
}

/// Calls `move_pixels(planar index, pixels, channel, buffer index)` for each block of a row and each channel.
#[inline(always)]
fn each_block(layout: &ImageLayout, mut move_pixels: impl FnMut(usize, usize, usize, usize)) {
    for row in 0..layout.h {
        let start = (layout.halo.top + row) * layout.row_len() + layout.halo.left * layout.c;
        for column in (0..layout.w).step_by(BLOCK) {
            let pixels = BLOCK.min(layout.w - column);
            for channel in 0..layout.c {
                let planar = (channel * layout.h + row) * layout.w + column;
                move_pixels(planar, pixels, channel, start + column * layout.c);
            }
        }
    }
}
