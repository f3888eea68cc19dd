//! Where a convolution reads its input: in place, if the halo of the buffer holds the padding, or from a padded copy.
//! Either way the kernel that follows has no edge cases.

use std::ops::Range;

use super::error::KernelError;
use super::shape::{ConvShape, ImageLayout, Window, bounded};

/// The padded input as the kernel sees it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The caller's buffer.
    pub(super) layout: ImageLayout,
    rows: Window,
    columns: Window,
    /// Whether the input is copied first.
    pub(super) copies: bool,
    /// Elements from row to row of what the kernel reads.
    pub(super) row: usize,
    /// Elements before the padded image, when read in place.
    base: usize,
    /// Columns of the padded copy.
    copy_columns: usize,
}

impl Source {
    /// `must_copy`: the kernel needs another element type or readable elements past the end.
    pub(super) fn new(
        shape: &ConvShape,
        layout: ImageLayout,
        must_copy: bool,
    ) -> Result<Source, KernelError> {
        layout.check()?;
        let (rows, columns) = (shape.window(0), shape.window(1));
        let halo = layout.halo;
        let in_place = !must_copy
            && halo.top >= rows.pad
            && halo.left >= columns.pad
            && rows.touched(rows.outputs) <= rows.pad + shape.h + halo.bottom
            && columns.touched(columns.outputs) <= columns.pad + shape.w + halo.right;
        let copy_columns = columns.touched(columns.outputs);
        bounded(&[rows.touched(rows.outputs), copy_columns, shape.c_in])?;
        let (row, base) = if in_place {
            (
                layout.row_len(),
                (halo.top - rows.pad) * layout.row_len() + (halo.left - columns.pad) * layout.c,
            )
        } else {
            (copy_columns * layout.c, 0)
        };
        Ok(Source { layout, rows, columns, copies: !in_place, row, base, copy_columns })
    }

    /// Index of the first element that the window of output row `row`, column 0 reads, in the caller's buffer
    /// (in place) or in a copy made for rows that start with this one.
    pub(super) fn start(&self, row: usize) -> usize {
        if self.copies { 0 } else { self.base + row * self.rows.stride * self.row }
    }

    /// Elements of a copy for `rows` output rows.
    pub(super) fn copy_len(&self, rows: usize) -> usize {
        self.rows.touched(rows) * self.row
    }

    /// Writes the padded input of the output rows `rows` to `copy`.
    pub(super) fn copy<T: Copy, U: Copy>(
        &self,
        x: &[T],
        rows: &Range<usize>,
        copy: &mut [U],
        fill: U,
        convert: impl Fn(T) -> U + Copy,
    ) {
        let c = self.layout.c;
        let first = rows.start * self.rows.stride;
        let left = (self.columns.pad * c).min(self.row);
        let width = (self.columns.image.min(self.copy_columns.saturating_sub(self.columns.pad))) * c;
        for (i, out) in copy.chunks_exact_mut(self.row).take(self.rows.touched(rows.len())).enumerate() {
            let padded_row = first + i;
            if padded_row < self.rows.pad || padded_row >= self.rows.pad + self.rows.image {
                out.fill(fill);
                continue;
            }
            let y = padded_row - self.rows.pad + self.layout.halo.top;
            let from = y * self.layout.row_len() + self.layout.halo.left * c;
            out[..left].fill(fill);
            for (o, &v) in out[left..left + width].iter_mut().zip(&x[from..from + width]) {
                *o = convert(v);
            }
            out[left + width..].fill(fill);
        }
    }
}
