//! Between the layout of files (`[c, h, w]`, channels outermost) and that of the kernels (`[h, w, c]`, channels innermost).

use super::error::{KernelError, check_len};
use super::shape::ImageLayout;

/// Pixels moved at a time, so that both sides stay in the first-level cache.
const BLOCK: usize = 32;

/// One image from `[c, h, w]` to the inside of a buffer of layout `to`.
pub fn to_channels_last<T: Copy>(x: &[T], to: &ImageLayout, y: &mut [T]) -> Result<(), KernelError> {
    check(to, x.len(), "x", y.len(), "y")?;
    each_block(to, |planar, pixels, channel, at| {
        for (i, &v) in x[planar..planar + pixels].iter().enumerate() {
            y[at + i * to.c + channel] = v;
        }
    });
    Ok(())
}

/// One image from the inside of a buffer of layout `from` to `[c, h, w]`.
pub fn to_channels_first<T: Copy>(x: &[T], from: &ImageLayout, y: &mut [T]) -> Result<(), KernelError> {
    check(from, y.len(), "y", x.len(), "x")?;
    each_block(from, |planar, pixels, channel, at| {
        for (i, v) in y[planar..planar + pixels].iter_mut().enumerate() {
            *v = x[at + i * from.c + channel];
        }
    });
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
