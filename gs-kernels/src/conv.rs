//! What float and integer convolutions share: where input, output and residual lie, and which of the two inner kernels
//! (tiled, depthwise) a shape takes.

use std::ops::Range;

use super::depthwise::{DepthwisePlan, DepthwiseSpec};
use super::error::{KernelError, check_len};
use super::shape::{ConvShape, Halo, ImageLayout};
use super::source::Source;
use super::tile::{Area, TilePlan, TileSpec};

/// Halos of the buffers that a convolution works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConvHalos {
    /// Of the input. It must hold the padding value as far as the padding reaches; where it covers all padding that the window
    /// touches, the input is read in place.
    pub x: Halo,
    /// Of the output; never written.
    pub y: Halo,
    /// Of the residual operand, if there is one.
    pub residual: Option<Halo>,
}

/// Where the operands of a convolution lie.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) shape: ConvShape,
    pub(super) source: Source,
    pub(super) y: ImageLayout,
    pub(super) residual: Option<ImageLayout>,
}

impl Geometry {
    pub(super) fn new(
        shape: &ConvShape,
        halos: &ConvHalos,
        must_copy: bool,
    ) -> Result<Geometry, KernelError> {
        shape.check()?;
        let image = ImageLayout { h: shape.h, w: shape.w, c: shape.c_in, halo: halos.x };
        let out = ImageLayout::dense(shape.out_h(), shape.out_w(), shape.c_out);
        let y = ImageLayout { halo: halos.y, ..out };
        let residual = halos.residual.map(|halo| ImageLayout { halo, ..out });
        y.check()?;
        if let Some(residual) = &residual {
            residual.check()?;
        }
        Ok(Geometry { shape: *shape, source: Source::new(shape, image, must_copy)?, y, residual })
    }

    /// Refuses lengths that do not fit the layouts. `y` holds the buffer rows of `rows` only.
    pub(super) fn check(
        &self,
        rows: &Range<usize>,
        x: usize,
        residual: Option<usize>,
        y: usize,
    ) -> Result<(), KernelError> {
        let all = self.y.h;
        if rows.start >= rows.end || rows.end > all {
            return Err(KernelError::Rows { start: rows.start, end: rows.end, rows: all });
        }
        check_len("x", self.source.layout.len(), x)?;
        check_len("y", rows.len() * self.y.row_len(), y)?;
        match (&self.residual, residual) {
            (None, None) => Ok(()),
            (Some(layout), Some(len)) => check_len("residual", layout.len(), len),
            _ => Err(KernelError::Residual),
        }
    }

    /// The part of a whole output buffer that `run_rows` takes for all rows.
    pub(super) fn inner_rows<'y, T>(&self, y: &'y mut [T]) -> Result<&'y mut [T], KernelError> {
        check_len("y", self.y.len(), y.len())?;
        let row = self.y.row_len();
        Ok(&mut y[self.y.halo.top * row..(self.y.halo.top + self.y.h) * row])
    }

    /// Index of the first output element in a slice that starts with an output row.
    pub(super) fn y_start(&self) -> usize {
        self.y.halo.left * self.y.c
    }

    /// Index of the first residual element of output row `row`.
    pub(super) fn residual_start(&self, row: usize) -> usize {
        self.residual.map_or(0, |l| (l.halo.top + row) * l.row_len() + l.halo.left * l.c)
    }

    /// The output pixels of `rows` rows, for input elements of `element` bytes.
    pub(super) fn area(&self, rows: usize, element: usize) -> Area {
        let s = &self.shape;
        let dense_x = self.source.row == s.w * s.c_in;
        let dense_y = self.y.rows_touch() && self.residual.is_none_or(|l| l.rows_touch());
        if s.kernel == [1, 1]
            && s.stride == [1, 1]
            && s.pads == [0; 4]
            && !s.is_depthwise()
            && dense_x
            && dense_y
        {
            return Area::flat(rows * self.y.w, s.c_in * element, s.c_out);
        }
        Area {
            rows,
            width: self.y.w,
            last_width: self.y.w,
            x_row: s.stride[0] * self.source.row * element,
            y_row: self.y.row_len(),
            residual_row: self.residual.map_or(0, |l| l.row_len()),
            y_pixel: s.c_out,
        }
    }

    /// The offset of each run of the window from the pixel's first element.
    pub(super) fn run_offsets(&self, taps: &Taps) -> Vec<usize> {
        let s = &self.shape;
        let mut runs = Vec::new();
        for ky in 0..s.kernel[0] {
            for kx in 0..taps.runs_per_row {
                runs.push(ky * s.dilation[0] * self.source.row + kx * s.dilation[1] * s.c_in);
            }
        }
        runs
    }

    /// The tiled kernel for this shape, without weights. Input elements have `element` bytes, 4 / `element` to a word.
    pub(super) fn tile_plan(&self, lanes: usize, element: usize) -> Result<TilePlan, KernelError> {
        let s = &self.shape;
        let taps = Taps::new(s);
        let runs = self.run_offsets(&taps).into_iter().map(|o| o * element).collect();
        TilePlan::new(TileSpec {
            groups: s.groups,
            group_channels: s.c_out / s.groups,
            lanes,
            runs,
            run_words: (taps.run_len * element).div_ceil(4),
            group_bytes: s.c_in / s.groups * element,
            pixel_bytes: s.stride[1] * s.c_in * element,
        })
    }

    /// The depthwise kernel for this shape, without weights.
    pub(super) fn depthwise_plan(&self, lanes: usize, element: usize) -> Result<DepthwisePlan, KernelError> {
        let s = &self.shape;
        DepthwisePlan::new(DepthwiseSpec {
            channels: s.c_in,
            lanes,
            kernel: s.kernel,
            tap_row: s.dilation[0] * self.source.row * element,
            tap_column: s.dilation[1] * s.c_in * element,
            pixel_bytes: s.stride[1] * s.c_in * element,
            element,
        })
    }
}

/// How a window divides into runs of adjacent elements, and which weight belongs to which element.
pub(super) struct Taps {
    shape: ConvShape,
    runs_per_row: usize,
    /// Elements of a run.
    pub(super) run_len: usize,
}

impl Taps {
    pub(super) fn new(shape: &ConvShape) -> Taps {
        let channels = shape.c_in / shape.groups;
        let merged = shape.groups == 1 && shape.dilation[1] == 1;
        let (runs_per_row, run_len) =
            if merged { (1, shape.kernel[1] * channels) } else { (shape.kernel[1], channels) };
        Taps { shape: *shape, runs_per_row, run_len }
    }

    /// Index in weights `[c_out, c_in / groups, kh, kw]` of element `index` of run `run`, or `None` past the run's end.
    pub(super) fn weight(&self, channel: usize, run: usize, index: usize) -> Option<usize> {
        if index >= self.run_len {
            return None;
        }
        let channels = self.shape.c_in / self.shape.groups;
        let [kh, kw] = self.shape.kernel;
        let ky = run / self.runs_per_row;
        let kx = run % self.runs_per_row + index / channels;
        Some(((channel * channels + index % channels) * kh + ky) * kw + kx)
    }
}
