//! Integer convolution of one image: codes times signed 8-bit weights, summed exactly in 32 bits, to codes or floats.

use std::ops::Range;

use super::conv::{ConvHalos, Geometry, Taps};
use super::depthwise::{DepthwisePlan, depthwise};
use super::error::KernelError;
use super::finish::{CodeFinish, DequantFinish};
use super::grid::{Grid, QOutput};
use super::isa::{Job, Kernels};
use super::memory::Scratch;
use super::requant::{QWeights, pack_word};
use super::shape::ConvShape;
use super::simd::Simd;
use super::tile::{Area, CodeMac, Finish, TilePlan, tiles};

/// An integer convolution, planned. The sum is `acc = sum((x - z_x) * w) + bias`, wrapping at 32 bits; [`QOutput`] says what becomes
/// of it. Padding has the value `z_x`. The same bits on every instruction set and however the work is split.
#[derive(Clone, Debug)]
pub struct ConvQ {
    kernels: Kernels,
    geometry: Geometry,
    inner: Inner,
    x: Grid,
    out: QOutput,
    offset: Vec<i32>,
    scale: Vec<f32>,
}

#[derive(Clone, Debug)]
enum Inner {
    /// Four codes to a word, one byte each.
    Bytes(TilePlan),
    /// Two codes to a word: the input is copied to 16 bits first.
    Pairs(TilePlan),
    Depthwise(DepthwisePlan),
}

impl ConvQ {
    /// Plans `shape` for buffers with `halos` (a residual is not supported) and packs `weights` `[c_out, c_in / groups, kh, kw]`.
    /// The halo of the input must hold the zero point of `x` as far as the padding reaches.
    pub fn new(
        kernels: Kernels,
        shape: &ConvShape,
        halos: &ConvHalos,
        x: Grid,
        weights: QWeights<'_>,
        out: QOutput,
    ) -> Result<ConvQ, KernelError> {
        shape.check()?;
        x.check()?;
        out.check()?;
        weights.check(shape.c_out, shape.weight_len())?;
        if halos.residual.is_some() {
            return Err(KernelError::Residual);
        }
        let (lanes, per_word) = (kernels.lanes(), kernels.codes_per_word());
        let taps = Taps::new(shape);
        let is_depthwise = shape.is_depthwise();
        // Whole vectors or words are read, so partial last ones need room behind the image.
        let (step, unit) = if is_depthwise { (shape.c_in, lanes) } else { (taps.run_len, per_word) };
        let overreads = !step.is_multiple_of(unit);
        let widens = !is_depthwise && per_word == 2;
        let geometry = Geometry::new(shape, halos, overreads || widens || x.code.flip() != 0)?;
        let channel_len = shape.weight_len() / shape.c_out;
        let offset = |c: usize| {
            weights.offset(&x, c, weights.codes[c * channel_len..(c + 1) * channel_len].iter().copied())
        };
        let scale = |c: usize| weights.multiplier(&x, &out, c);
        let (inner, offset, scale) = if is_depthwise {
            let mut plan = geometry.depthwise_plan(lanes, 1)?;
            plan.pack(|channel, tap| i32::from(weights.codes[channel * channel_len + tap]) as u32);
            let (offset, scale) = (plan.params(offset), plan.params(scale));
            (Inner::Depthwise(plan), offset, scale)
        } else {
            let mut plan = geometry.tile_plan(lanes, 4 / per_word)?;
            plan.pack(|channel, run, index| {
                pack_word(per_word, |i| {
                    taps.weight(channel, run, index * per_word + i).map_or(0, |at| weights.codes[at])
                })
            });
            let (offset, scale) = (plan.params(offset), plan.params(scale));
            (if per_word == 4 { Inner::Bytes(plan) } else { Inner::Pairs(plan) }, offset, scale)
        };
        Ok(ConvQ { kernels, geometry, inner, x, out, offset, scale })
    }

    /// The shape it was planned for.
    pub fn shape(&self) -> &ConvShape {
        &self.geometry.shape
    }

    /// Computes one image to codes. Slices are whole buffers, halo counted.
    pub fn run(&self, x: &[u8], y: &mut [u8], scratch: &mut Scratch) -> Result<(), KernelError> {
        self.run_rows(0..self.geometry.y.h, x, self.geometry.inner_rows(y)?, scratch)
    }

    /// Computes one image to floats.
    pub fn run_f32(&self, x: &[u8], y: &mut [f32], scratch: &mut Scratch) -> Result<(), KernelError> {
        self.run_rows_f32(0..self.geometry.y.h, x, self.geometry.inner_rows(y)?, scratch)
    }

    /// Computes the output rows `rows` of one image to codes. `x` is a whole buffer; `y` is the part of the output buffer that
    /// holds those rows, whole buffer rows from halo to halo.
    pub fn run_rows(
        &self,
        rows: Range<usize>,
        x: &[u8],
        y: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let QOutput::Codes(out) = &self.out else { return Err(KernelError::OutputType) };
        self.geometry.check(&rows, x.len(), None, y.len())?;
        let finish = CodeFinish {
            y: y[self.geometry.y_start()..].as_mut_ptr(),
            offset: &self.offset,
            scale: &self.scale,
            zero_point: out.grid.zero_point,
            clamp: out.centred_limits(),
        };
        self.compute(rows, x, finish, scratch)
    }

    /// As [`ConvQ::run_rows`], to floats.
    pub fn run_rows_f32(
        &self,
        rows: Range<usize>,
        x: &[u8],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        if self.out != QOutput::Float {
            return Err(KernelError::OutputType);
        }
        self.geometry.check(&rows, x.len(), None, y.len())?;
        let y = y[self.geometry.y_start()..].as_mut_ptr();
        let finish = DequantFinish { y, offset: &self.offset, scale: &self.scale };
        self.compute(rows, x, finish, scratch)
    }

    /// Brings the input into the form the kernel reads and runs it. Lengths have been checked.
    fn compute<E: CodeStore>(
        &self,
        rows: Range<usize>,
        x: &[u8],
        finish: E,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let source = &self.geometry.source;
        let element = if matches!(self.inner, Inner::Pairs(_)) { 2 } else { 1 };
        let area = self.geometry.area(rows.len(), element);
        let read = match &self.inner {
            Inner::Bytes(plan) | Inner::Pairs(plan) => plan.read_len(&area),
            Inner::Depthwise(plan) => plan.read_len(&area),
        };
        let flip = self.x.code.flip();
        let zero = self.x.zero_byte() ^ flip;
        let copy_len = source.copy_len(rows.len());
        if element == 2 {
            let copy = scratch.get::<i16>(copy_len.max(read.div_ceil(2)));
            source.copy(x, &rows, copy, i16::from(zero), |v| i16::from(v ^ flip));
            self.launch(area, copy.as_ptr().cast(), finish);
        } else if source.copies {
            let copy = scratch.get::<u8>(copy_len.max(read));
            source.copy(x, &rows, copy, zero, |v| v ^ flip);
            self.launch(area, copy.as_ptr(), finish);
        } else {
            let input = x.get(source.start(rows.start)..).unwrap_or(&[]);
            if input.len() < read {
                return Err(KernelError::Length { what: "x", want: read, got: input.len() });
            }
            self.launch(area, input.as_ptr(), finish);
        }
        Ok(())
    }

    /// `x` must be valid for reading what the plan reads of `area`: `compute` has seen to it.
    fn launch<E: CodeStore>(&self, area: Area, x: *const u8, finish: E) {
        self.kernels.run(ConvJob { conv: self, area, x, finish });
    }
}

/// A finish for integer sums on every instruction set.
pub(super) trait CodeStore {
    fn as_finish<S: Simd>(&self) -> &impl Finish<CodeMac<S>>;
}

impl CodeStore for CodeFinish<'_> {
    #[inline(always)]
    fn as_finish<S: Simd>(&self) -> &impl Finish<CodeMac<S>> {
        self
    }
}

impl CodeStore for DequantFinish<'_> {
    #[inline(always)]
    fn as_finish<S: Simd>(&self) -> &impl Finish<CodeMac<S>> {
        self
    }
}

struct ConvJob<'a, E> {
    conv: &'a ConvQ,
    area: Area,
    x: *const u8,
    finish: E,
}

impl<E: CodeStore> Job for ConvJob<'_, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let finish = self.finish.as_finish::<S>();
        // SAFETY: `compute` made `x` cover what is read of `area`; output lengths were checked against the layout that `area`
        // was made from; plan and parameters were made for the same instruction set.
        unsafe {
            match &self.conv.inner {
                Inner::Bytes(plan) | Inner::Pairs(plan) => {
                    tiles(CodeMac(s), plan, &self.area, self.x, finish)
                }
                Inner::Depthwise(plan) => depthwise(CodeMac(s), plan, &self.area, self.x, finish),
            }
        }
    }
}
