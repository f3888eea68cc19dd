//! Where the values of a segment lie: one buffer per value, holding so many samples one behind the other.

use gs_kernels::{Halo, ImageLayout};

/// How the elements of a value are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    /// `f32`.
    F32,
    /// Unsigned bytes.
    U8,
    /// Signed bytes.
    I8,
}

/// The order of a sample's elements in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Row-major, as in files.
    Rows,
    /// Channels innermost, maybe with spare pixels around.
    Image(ImageLayout),
}

/// A value of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// How elements are stored.
    pub(crate) code: Code,
    /// Extents of one sample, as the module has them (channels first).
    pub(crate) dims: Vec<usize>,
    /// The order in the buffer.
    pub(crate) layout: Layout,
    /// What the spare pixels hold: the byte of zero, or 0.0.
    pub(crate) padding: u8,
}

impl Slot {
    /// A value whose sample has these extents. Three extents are an image.
    pub(crate) fn new(code: Code, dims: Vec<usize>) -> Self {
        let layout = match dims.as_slice() {
            &[c, h, w] => Layout::Image(ImageLayout::dense(h, w, c)),
            _ => Layout::Rows,
        };
        Self { code, dims, layout, padding: 0 }
    }

    /// Elements of one sample.
    pub(crate) fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Elements of one sample's buffer, spare pixels counted.
    pub(crate) fn len(&self) -> usize {
        match &self.layout {
            Layout::Rows => self.count(),
            Layout::Image(image) => image.len(),
        }
    }

    /// The image layout, if it is one.
    pub(crate) fn image(&self) -> Option<&ImageLayout> {
        match &self.layout {
            Layout::Image(image) => Some(image),
            Layout::Rows => None,
        }
    }

    /// Asks for at least these spare pixels.
    pub(crate) fn widen(&mut self, halo: Halo) {
        if let Layout::Image(image) = &mut self.layout {
            let h = &mut image.halo;
            h.top = h.top.max(halo.top);
            h.left = h.left.max(halo.left);
            h.bottom = h.bottom.max(halo.bottom);
            h.right = h.right.max(halo.right);
        }
    }

    /// Whether a sample is one piece without spare pixels.
    pub(crate) fn is_dense(&self) -> bool {
        self.image().is_none_or(|i| i.halo == Halo::NONE)
    }

    /// Number of contiguous pieces of a sample when it is taken row by row.
    pub(crate) fn rows(&self) -> usize {
        self.image().map_or(1, |i| i.h)
    }

    /// Where a row of a sample begins in its buffer.
    pub(crate) fn row_start(&self, row: usize) -> usize {
        self.image().map_or(0, |i| (i.halo.top + row) * i.row_len() + i.halo.left * i.c)
    }

    /// Elements of a row.
    pub(crate) fn row_len(&self) -> usize {
        self.image().map_or(self.count(), |i| i.w * i.c)
    }

    /// Calls `f` with the place of each contiguous piece of a sample in its buffer, as long as it succeeds.
    pub(crate) fn each_row<E>(
        &self,
        mut f: impl FnMut(std::ops::Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        (0..self.rows()).try_for_each(|row| f(self.row_start(row)..self.row_start(row) + self.row_len()))
    }

    /// Where an element lies in the buffer, by its row-major index in the sample.
    pub(crate) fn offset(&self, index: usize) -> usize {
        match &self.layout {
            Layout::Rows => index,
            Layout::Image(i) => {
                let (channel, pixel) = (index / (i.h * i.w).max(1), index % (i.h * i.w).max(1));
                let (y, x) = (pixel / i.w.max(1), pixel % i.w.max(1));
                (i.halo.top + y) * i.row_len() + (i.halo.left + x) * i.c + channel
            }
        }
    }
}
