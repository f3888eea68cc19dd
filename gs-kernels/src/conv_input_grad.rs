//! The derivative of a convolution by its input, for one image.
//!
//! An input pixel at `stride * j + r` is read by those taps of the window whose distance from it is a multiple of the
//! stride. So each remainder `r` (a *phase*) is a convolution of `dy` with stride 1 and its own taps, written to every
//! `stride`-th pixel, and nothing is multiplied by zero. The forward tiles run it, with the weights transposed.

use super::error::{KernelError, check_len};
use super::finish::FloatFinish;
use super::isa::{Job, Kernels};
use super::shape::{ConvShape, Halo, ImageLayout};
use super::simd::Simd;
use super::tile::{Area, FloatMac, TilePlan, TileSpec, tiles};

/// The gradient of a convolution's input, planned.
#[derive(Clone, Debug)]
pub struct ConvInputGrad {
    kernels: Kernels,
    shape: ConvShape,
    dy: ImageLayout,
    dx: ImageLayout,
    phases: Vec<Phase>,
    zeros: Vec<f32>,
}

/// The input pixels with one remainder by the stride.
#[derive(Clone, Debug)]
struct Phase {
    /// `None` where no tap reaches them.
    plan: Option<Packed>,
    area: Area,
    /// First element that is read and written.
    dy: usize,
    dx: usize,
}

#[derive(Clone, Debug)]
struct Packed {
    tiles: TilePlan,
    /// The weight (counted from 1) of each packed word, 0 where there is none.
    order: Vec<u32>,
}

/// One tap of a phase along one axis: the position in the window, and the distance from `j` to the pixel of `dy`.
type Tap = (usize, isize);

/// The taps of phase `r` along an axis, nearest pixel first.
fn taps(shape: &ConvShape, axis: usize, r: usize) -> Vec<Tap> {
    let (stride, dilation) = (shape.stride[axis] as isize, shape.dilation[axis] as isize);
    let at = |k: usize| (r + shape.pads[axis]) as isize - k as isize * dilation;
    let all = (0..shape.kernel[axis]).rev();
    all.filter(|&k| at(k) % stride == 0).map(|k| (k, at(k) / stride)).collect()
}

/// Pixels of phase `r` along an axis.
fn pixels(shape: &ConvShape, axis: usize, r: usize) -> usize {
    let image = if axis == 0 { shape.h } else { shape.w };
    (image.saturating_sub(r)).div_ceil(shape.stride[axis])
}

impl ConvInputGrad {
    /// The halo that the buffer of `dy` must have, filled with zeros.
    pub fn halo(shape: &ConvShape) -> Halo {
        let reach = |axis: usize| {
            let outputs = if axis == 0 { shape.out_h() } else { shape.out_w() } as isize;
            let (mut before, mut after) = (0, 0);
            for r in 0..shape.stride[axis] {
                let count = pixels(shape, axis, r) as isize;
                for (_, distance) in taps(shape, axis, r) {
                    if count > 0 {
                        before = before.max(-distance);
                        after = after.max(count + distance - outputs);
                    }
                }
            }
            (before as usize, after as usize)
        };
        let ((top, bottom), (left, right)) = (reach(0), reach(1));
        Halo { top, left, bottom, right }
    }

    /// Plans the gradient of a convolution of `shape` between buffers with these halos. The weights are zero at first.
    ///
    /// # Errors
    /// A shape without meaning or too large, or a halo of `dy` below [`Self::halo`].
    pub fn new(kernels: Kernels, shape: &ConvShape, dy: Halo, dx: Halo) -> Result<Self, KernelError> {
        shape.check()?;
        let want = Self::halo(shape);
        if dy.top < want.top || dy.left < want.left || dy.bottom < want.bottom || dy.right < want.right {
            return Err(KernelError::Length { what: "halo", want: want.top, got: dy.top });
        }
        let dy = ImageLayout { h: shape.out_h(), w: shape.out_w(), c: shape.c_out, halo: dy };
        let dx = ImageLayout { h: shape.h, w: shape.w, c: shape.c_in, halo: dx };
        dy.check()?;
        dx.check()?;
        if shape.weight_len() >= u32::MAX as usize {
            return Err(KernelError::TooLarge);
        }
        let mut plan = Self { kernels, shape: *shape, dy, dx, phases: Vec::new(), zeros: Vec::new() };
        for ry in 0..shape.stride[0] {
            for rx in 0..shape.stride[1] {
                if pixels(shape, 0, ry) > 0 && pixels(shape, 1, rx) > 0 {
                    let phase = plan.phase(ry, rx)?;
                    plan.phases.push(phase);
                }
            }
        }
        let params = plan.phases.iter().filter_map(|p| p.plan.as_ref()).map(|p| p.tiles.param_len());
        plan.zeros = vec![0.0; params.max().unwrap_or(0)];
        Ok(plan)
    }

    fn phase(&self, ry: usize, rx: usize) -> Result<Phase, KernelError> {
        let (s, dy, dx) = (&self.shape, &self.dy, &self.dx);
        let (rows, columns) = (taps(s, 0, ry), taps(s, 1, rx));
        let (h, w) = (pixels(s, 0, ry), pixels(s, 1, rx));
        let area = Area {
            rows: h,
            width: w,
            last_width: w,
            x_row: dy.row_len() * 4,
            y_row: s.stride[0] * dx.row_len(),
            residual_row: 0,
            y_pixel: s.stride[1] * s.c_in,
        };
        let dx_start = (dx.halo.top + ry) * dx.row_len() + (dx.halo.left + rx) * dx.c;
        let (Some(&(_, first_row)), Some(&(_, first_column))) = (rows.first(), columns.first()) else {
            return Ok(Phase { plan: None, area, dy: 0, dx: dx_start });
        };
        // Neighbouring taps lie in a row where groups do not part the channels.
        let adjacent = columns.windows(2).all(|t| t[1].1 == t[0].1 + 1);
        let merged = s.groups == 1 && adjacent;
        let per_run = if merged { columns.len() } else { 1 };
        let made = s.c_out / s.groups;
        let runs: Vec<(usize, usize)> =
            (0..rows.len()).flat_map(|y| (0..columns.len()).step_by(per_run).map(move |x| (y, x))).collect();
        let offset = |&(y, x): &(usize, usize)| {
            let (down, right) = ((rows[y].1 - first_row) as usize, (columns[x].1 - first_column) as usize);
            (down * dy.row_len() + right * dy.c) * 4
        };
        let mut tiles = TilePlan::new(TileSpec {
            groups: s.groups,
            group_channels: s.c_in / s.groups,
            lanes: self.kernels.lanes(),
            runs: runs.iter().map(offset).collect(),
            run_words: per_run * made,
            group_bytes: made * 4,
            pixel_bytes: s.c_out * 4,
        })?;
        let per_group = s.c_in / s.groups;
        let order = tiles.order(|channel, run, index| {
            let (y, x) = runs[run];
            let (ky, kx) = (rows[y].0, columns[x + index / made].0);
            let out = channel / per_group * made + index % made;
            Some(((out * per_group + channel % per_group) * s.kernel[0] + ky) * s.kernel[1] + kx)
        });
        let top = (dy.halo.top as isize + first_row) as usize;
        let left = (dy.halo.left as isize + first_column) as usize;
        let start = top * dy.row_len() + left * dy.c;
        Ok(Phase { plan: Some(Packed { tiles, order }), area, dy: start, dx: dx_start })
    }

    /// The shape of the convolution.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Packs the weights `[c_out, c_in / groups, kh, kw]` of the convolution.
    ///
    /// # Errors
    /// Another number of weights.
    pub fn set_weights(&mut self, weights: &[f32]) -> Result<(), KernelError> {
        check_len("weights", self.shape.weight_len(), weights.len())?;
        for packed in self.phases.iter_mut().filter_map(|p| p.plan.as_mut()) {
            packed.tiles.pack_order(&packed.order, weights);
        }
        Ok(())
    }

    /// Computes one image. Slices are whole buffers, halo counted; the halo of `dy` holds zeros.
    ///
    /// # Errors
    /// Lengths that do not fit the shape.
    pub fn run(&self, dy: &[f32], dx: &mut [f32]) -> Result<(), KernelError> {
        check_len("dy", self.dy.len(), dy.len())?;
        check_len("dx", self.dx.len(), dx.len())?;
        for phase in &self.phases {
            let to = &mut dx[phase.dx..];
            let Some(packed) = &phase.plan else {
                zero(&phase.area, self.shape.c_in, to);
                continue;
            };
            let from = dy.get(phase.dy..).unwrap_or(&[]);
            let read = packed.tiles.read_len(&phase.area).div_ceil(4);
            if from.len() < read {
                return Err(KernelError::Length { what: "dy", want: read, got: from.len() });
            }
            let finish = FloatFinish::<false> {
                y: to.as_mut_ptr(),
                residual: std::ptr::null(),
                bias: &self.zeros,
                clip: super::NO_CLIP,
            };
            self.kernels.run(InputJob { tiles: &packed.tiles, area: phase.area, dy: from, finish });
        }
        Ok(())
    }
}

fn zero(area: &Area, channels: usize, to: &mut [f32]) {
    for row in 0..area.rows {
        for column in 0..area.width {
            let at = row * area.y_row + column * area.y_pixel;
            to[at..at + channels].fill(0.0);
        }
    }
}

struct InputJob<'a> {
    tiles: &'a TilePlan,
    area: Area,
    dy: &'a [f32],
    finish: FloatFinish<'a, false>,
}

impl Job for InputJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `run` checked that `dy` covers `read_len`; the pixels of the phase lie inside `dx`, whose length was
        // checked; the parameters are as many zeros as the widest phase has.
        unsafe { tiles(FloatMac(s), self.tiles, &self.area, self.dy.as_ptr().cast(), &self.finish) }
    }
}
