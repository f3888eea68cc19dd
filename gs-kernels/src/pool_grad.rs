//! Derivatives of pooling by its input, for one image.

use super::error::{KernelError, check_len};
use super::pool::PoolShape;
use super::shape::ImageLayout;

/// The derivative of an average: each element of `dy` is shared by the taps of its window that lie inside the image.
/// `dx` has the layout of the pool's input.
///
/// # Errors
/// Lengths that do not fit the shape.
pub fn average_pool_grad(
    shape: &PoolShape,
    count_pads: bool,
    dy: &[f32],
    dx: &mut [f32],
) -> Result<(), KernelError> {
    shape.check(dx.len(), dy.len())?;
    clear(&shape.x, dx);
    each_window(shape, |out, places| {
        let inside = places.rows.len() * places.columns.len();
        let taps = if count_pads { places.counted } else { inside.max(1) };
        let share = 1.0 / taps as f32;
        let from = &dy[out..out + shape.x.c];
        for at in places.starts(shape) {
            for (d, &g) in dx[at..at + shape.x.c].iter_mut().zip(from) {
                *d += g * share;
            }
        }
    });
    Ok(())
}

/// The derivative of a maximum: each element of `dy` goes to the first greatest element under its window; NaN counts as
/// the greatest. `x` and `dx` have the layout of the pool's input.
///
/// # Errors
/// Lengths that do not fit the shape.
pub fn max_pool_grad(shape: &PoolShape, dy: &[f32], x: &[f32], dx: &mut [f32]) -> Result<(), KernelError> {
    shape.check(dx.len(), dy.len())?;
    check_len("x", dx.len(), x.len())?;
    clear(&shape.x, dx);
    let c = shape.x.c;
    let (mut best, mut place) = (vec![0.0f32; c], vec![usize::MAX; c]);
    each_window(shape, |out, places| {
        place.fill(usize::MAX);
        for at in places.starts(shape) {
            for (i, (best, place)) in best.iter_mut().zip(&mut place).enumerate() {
                let v = x[at + i];
                if *place == usize::MAX || v > *best || (v.is_nan() && !best.is_nan()) {
                    (*best, *place) = (v, at + i);
                }
            }
        }
        for (&place, &g) in place.iter().zip(&dy[out..out + c]) {
            if let Some(d) = dx.get_mut(place) {
                *d += g;
            }
        }
    });
    Ok(())
}

/// Every pixel of an image gets `dy`, one number per channel, times `factor`: the derivative of a sum or a mean over the
/// pixels.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn spread_channels(
    layout: &ImageLayout,
    dy: &[f32],
    factor: f32,
    dx: &mut [f32],
) -> Result<(), KernelError> {
    layout.check()?;
    check_len("dx", layout.len(), dx.len())?;
    check_len("dy", layout.c, dy.len())?;
    for row in 0..layout.h {
        let start = (layout.halo.top + row) * layout.row_len() + layout.halo.left * layout.c;
        for pixel in dx[start..start + layout.w * layout.c].chunks_exact_mut(layout.c.max(1)) {
            pixel.iter_mut().zip(dy).for_each(|(x, &d)| *x = d * factor);
        }
    }
    Ok(())
}

/// The taps of one window that lie inside the image.
struct Places {
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    /// First row and column, in the image.
    first: (usize, usize),
    /// Taps that an average with padding counts.
    counted: usize,
}

impl Places {
    /// Where the pixels begin, row by row.
    fn starts(&self, shape: &PoolShape) -> impl Iterator<Item = usize> {
        let (l, dilation, first) = (shape.x, shape.dilation, self.first);
        let columns = self.columns.len();
        (0..self.rows.len()).flat_map(move |ky| {
            let y = l.halo.top + first.0 + ky * dilation[0];
            (0..columns).map(move |kx| {
                let x = l.halo.left + first.1 + kx * dilation[1];
                y * l.row_len() + x * l.c
            })
        })
    }
}

/// Calls `f` with the first element of each output pixel and its window.
fn each_window(shape: &PoolShape, mut f: impl FnMut(usize, &Places)) {
    let (to, rows, columns) = (shape.y(), shape.window(0), shape.window(1));
    for oy in 0..to.h {
        let (ky, first_row) = rows.inside(oy);
        for ox in 0..to.w {
            let (kx, first_column) = columns.inside(ox);
            let out = (to.halo.top + oy) * to.row_len() + (to.halo.left + ox) * to.c;
            let counted = shape.counted(0, oy) * shape.counted(1, ox);
            f(out, &Places { rows: ky.clone(), columns: kx, first: (first_row, first_column), counted });
        }
    }
}

fn clear(layout: &ImageLayout, image: &mut [f32]) {
    for row in 0..layout.h {
        let start = (layout.halo.top + row) * layout.row_len() + layout.halo.left * layout.c;
        image[start..start + layout.w * layout.c].fill(0.0);
    }
}
