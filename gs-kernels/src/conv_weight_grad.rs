//! The derivative of a convolution by its weights, summed over the pixels of one image after the other.
//!
//! A tile is R neighbouring elements of a *run* of the window (channels last: the horizontal taps times the channels lie in
//! a row) by V vectors of output channels, held in registers over all pixels of an image: per pixel V vectors of `dy` are
//! loaded and R elements of `x` broadcast. Sums are kept in the order of the tiles; [`ConvWeightGrad::finish`] adds the
//! partial sums of chunks in a fixed order and writes the order of the weights.

use super::conv::{ConvHalos, Geometry, Taps};
use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::memory::Scratch;
use super::shape::{ConvShape, ImageLayout, bounded};
use super::simd::Simd;

/// Stands for a lane without a weight.
const NONE: u32 = u32::MAX;

/// The gradient of a convolution's weights, planned.
#[derive(Clone, Debug)]
pub struct ConvWeightGrad {
    kernels: Kernels,
    geometry: Geometry,
    /// Offset of each run from a pixel's first element.
    runs: Vec<usize>,
    run_len: usize,
    lanes: usize,
    /// Vectors of output channels of a group.
    vectors: usize,
    /// Whether `dy` is read from a copy whose channels are padded to whole vectors.
    pads_dy: bool,
    /// The weight that each sum belongs to.
    order: Vec<u32>,
}

impl ConvWeightGrad {
    /// Plans the gradient of a convolution of `shape`; `x` and `y` are the halos of its input's and its result's buffers.
    ///
    /// # Errors
    /// A shape without meaning, or too large.
    pub fn new(kernels: Kernels, shape: &ConvShape, halos: &ConvHalos) -> Result<Self, KernelError> {
        shape.check()?;
        let lanes = kernels.lanes();
        let geometry = Geometry::new(shape, &ConvHalos { residual: None, ..*halos }, false)?;
        let taps = Taps::new(shape);
        let runs = geometry.run_offsets(&taps);
        let (run_len, made) = (taps.run_len, shape.c_out / shape.groups);
        let vectors = made.div_ceil(lanes);
        let len = bounded(&[shape.groups, vectors, lanes, runs.len(), run_len])?;
        if shape.weight_len() >= NONE as usize {
            return Err(KernelError::TooLarge);
        }
        let mut order = vec![NONE; len];
        for (at, o) in order.iter_mut().enumerate() {
            let (lane, rest) = (at % lanes, at / lanes);
            let (row, vector) = (rest % (runs.len() * run_len), rest / (runs.len() * run_len));
            let inside = vector % vectors * lanes + lane;
            if inside < made {
                let weight = taps.weight(vector / vectors * made + inside, row / run_len, row % run_len);
                *o = weight.map_or(NONE, |w| w as u32);
            }
        }
        let pads_dy = !made.is_multiple_of(lanes);
        Ok(Self { kernels, geometry, runs, run_len, lanes, vectors, pads_dy, order })
    }

    /// The shape of the convolution.
    pub fn shape(&self) -> &ConvShape {
        &self.geometry.shape
    }

    /// Elements of a buffer of partial sums.
    pub fn sums_len(&self) -> usize {
        self.order.len()
    }

    /// Adds what one image contributes to `sums`. `dy` and `x` are whole buffers, halo counted.
    ///
    /// # Errors
    /// Lengths that do not fit the shape.
    pub fn run(
        &self,
        dy: &[f32],
        x: &[f32],
        sums: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let g = &self.geometry;
        check_len("x", g.source.layout.len(), x.len())?;
        check_len("dy", g.y.len(), dy.len())?;
        check_len("sums", self.sums_len(), sums.len())?;
        let rows = 0..g.y.h;
        let copied = if g.source.copies { g.source.copy_len(rows.len()) } else { 0 };
        let padded = self.shape().groups * self.vectors * self.lanes;
        let padded_len = if self.pads_dy { g.y.h * g.y.w * padded } else { 0 };
        let (x_copy, dy_copy) = scratch.get::<f32>(copied + padded_len).split_at_mut(copied);
        let x = if g.source.copies {
            g.source.copy(x, &rows, x_copy, 0.0, |v| v);
            &*x_copy
        } else {
            x.get(g.source.start(0)..).unwrap_or(&[])
        };
        let (dy, dy_pixel, dy_row) = if self.pads_dy {
            self.pad_dy(dy, dy_copy, padded);
            (&*dy_copy, padded, g.y.w * padded)
        } else {
            let start = g.y.halo.top * g.y.row_len() + g.y.halo.left * g.y.c;
            (dy.get(start..).unwrap_or(&[]), g.y.c, g.y.row_len())
        };
        let x_row = g.shape.stride[0] * g.source.row;
        let x_pixel = g.shape.stride[1] * g.shape.c_in;
        let per_group = g.shape.c_in / g.shape.groups;
        let last_run = self.runs.iter().copied().max().unwrap_or(0) + self.run_len;
        let x_read =
            (g.y.h - 1) * x_row + (g.y.w - 1) * x_pixel + (g.shape.groups - 1) * per_group + last_run;
        let dy_read = (g.y.h - 1) * dy_row + g.y.w * dy_pixel;
        if x.len() < x_read || dy.len() < dy_read {
            return Err(KernelError::Length { what: "x", want: x_read, got: x.len() });
        }
        self.kernels.run(WeightJob { plan: self, dy, x, sums, dy_pixel, dy_row, x_pixel, x_row });
        Ok(())
    }

    /// Spreads the channels of each group of `dy` to whole vectors.
    fn pad_dy(&self, dy: &[f32], copy: &mut [f32], padded: usize) {
        let y: &ImageLayout = &self.geometry.y;
        let groups = self.geometry.shape.groups;
        let (made, wide) = (y.c / groups, padded / groups);
        for (pixel, to) in copy.chunks_exact_mut(padded).enumerate() {
            let (row, column) = (pixel / y.w, pixel % y.w);
            let from = (y.halo.top + row) * y.row_len() + (y.halo.left + column) * y.c;
            for (to, from) in to.chunks_exact_mut(wide).zip(dy[from..from + y.c].chunks_exact(made)) {
                to[..made].copy_from_slice(from);
                to[made..].fill(0.0);
            }
        }
    }

    /// Adds the partial sums that stand one behind the other in `partial`, in their order, and writes the gradient in the
    /// order of the weights. The first of them is overwritten.
    ///
    /// # Errors
    /// Lengths that do not fit the shape.
    pub fn finish(&self, partial: &mut [f32], dw: &mut [f32]) -> Result<(), KernelError> {
        let len = self.sums_len();
        check_len("partial", partial.len() / len.max(1) * len, partial.len())?;
        check_len("dw", self.geometry.shape.weight_len(), dw.len())?;
        let (total, rest) = partial.split_at_mut(len.min(partial.len()));
        check_len("partial", len, total.len())?;
        for part in rest.chunks_exact(len) {
            super::elementwise::add_assign(self.kernels, total, part, super::NO_CLIP)?;
        }
        for (&at, &v) in self.order.iter().zip(total.iter()) {
            if let Some(w) = dw.get_mut(at as usize) {
                *w = v;
            }
        }
        Ok(())
    }
}

struct WeightJob<'a> {
    plan: &'a ConvWeightGrad,
    dy: &'a [f32],
    x: &'a [f32],
    sums: &'a mut [f32],
    dy_pixel: usize,
    dy_row: usize,
    x_pixel: usize,
    x_row: usize,
}

impl Job for WeightJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plan = self.plan;
        let rows = plan.runs.len() * plan.run_len;
        let per_group = plan.geometry.shape.c_in / plan.geometry.shape.groups;
        for group in 0..plan.geometry.shape.groups {
            let mut vector = 0;
            while vector < plan.vectors {
                let wide = if vector + 1 < plan.vectors { 2 } else { 1 };
                // Channels are padded to whole vectors or divide into them.
                let channel = (group * plan.vectors + vector) * plan.lanes;
                for (i, &run) in plan.runs.iter().enumerate() {
                    let mut at = 0;
                    while at < plan.run_len {
                        let spot = Spot {
                            x: group * per_group + run + at,
                            dy: channel,
                            sums: channel * rows + (i * plan.run_len + at) * plan.lanes,
                            vector: rows * plan.lanes,
                        };
                        let left = plan.run_len - at;
                        // SAFETY: `run` checked the lengths: all pixels of runs and of channels padded to whole vectors
                        // lie inside `x` and `dy`; sums are as many as vectors times rows.
                        at += unsafe {
                            if wide == 2 { self.wide(s, &spot, left) } else { self.narrow(s, &spot, left) }
                        };
                    }
                }
                vector += wide;
            }
        }
    }
}

/// Where a tile begins.
struct Spot {
    x: usize,
    dy: usize,
    sums: usize,
    /// Sums from one vector of channels to the next.
    vector: usize,
}

impl WeightJob<'_> {
    /// The largest tile of two vectors that fits `left` elements; returns its elements.
    ///
    /// # Safety
    /// `left` elements of the run and two vectors of channels from `spot` on are there.
    #[inline(always)]
    unsafe fn wide<S: Simd>(&self, s: S, spot: &Spot, left: usize) -> usize {
        // SAFETY: the caller's promise; each tile takes at most `left` elements.
        unsafe {
            match left {
                12.. if S::TILE1 >= 16 => self.tile::<S, 12, 2>(s, spot),
                8.. if S::TILE1 >= 16 => self.tile::<S, 8, 2>(s, spot),
                4.. => self.tile::<S, 4, 2>(s, spot),
                2.. => self.tile::<S, 2, 2>(s, spot),
                _ => self.tile::<S, 1, 2>(s, spot),
            }
        }
    }

    /// As [`Self::wide`], for one vector.
    ///
    /// # Safety
    /// As [`Self::wide`].
    #[inline(always)]
    unsafe fn narrow<S: Simd>(&self, s: S, spot: &Spot, left: usize) -> usize {
        // SAFETY: the caller's promise; each tile takes at most `left` elements.
        unsafe {
            match left {
                24.. if S::TILE1 >= 16 => self.tile::<S, 24, 1>(s, spot),
                16.. if S::TILE1 >= 16 => self.tile::<S, 16, 1>(s, spot),
                8.. => self.tile::<S, 8, 1>(s, spot),
                4.. => self.tile::<S, 4, 1>(s, spot),
                2.. => self.tile::<S, 2, 1>(s, spot),
                _ => self.tile::<S, 1, 1>(s, spot),
            }
        }
    }

    /// # Safety
    /// R elements of the run and V vectors of channels from `spot` on are there.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, s: S, spot: &Spot) -> usize {
        let y = &self.plan.geometry.y;
        let mut acc = [[s.f_splat(0.0); V]; R];
        // SAFETY: the caller's promise, for every pixel of the image.
        unsafe {
            let (x, dy) = (self.x.as_ptr().add(spot.x), self.dy.as_ptr().add(spot.dy));
            for row in 0..y.h {
                let (mut x, mut dy) = (x.add(row * self.x_row), dy.add(row * self.dy_row));
                for _ in 0..y.w {
                    let mut d = [s.f_splat(0.0); V];
                    for (v, d) in d.iter_mut().enumerate() {
                        *d = s.f_load(dy.add(v * S::LANES));
                    }
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let e = s.f_splat(*x.add(r));
                        for v in 0..V {
                            acc[v] = s.f_mul_add(e, d[v], acc[v]);
                        }
                    }
                    // The last steps leave the image by less than an allocation's end plus one element; they are not read.
                    x = x.wrapping_add(self.x_pixel);
                    dy = dy.wrapping_add(self.dy_pixel);
                }
            }
            let sums = self.sums.as_ptr().cast_mut().add(spot.sums);
            for (r, acc) in acc.iter().enumerate() {
                for (v, &acc) in acc.iter().enumerate() {
                    let to = sums.add(v * spot.vector + r * S::LANES);
                    s.f_store(to, s.f_add(s.f_load(to), acc));
                }
            }
        }
        R
    }
}
