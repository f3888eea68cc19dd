//! Float convolution of one image, with bias, residual and clip in the same pass.

use std::ops::Range;

use super::conv::{ConvHalos, Geometry, Taps};
use super::depthwise::{DepthwisePlan, depthwise};
use super::error::{KernelError, check_len};
use super::finish::FloatFinish;
use super::isa::{Job, Kernels};
use super::memory::Scratch;
use super::shape::ConvShape;
use super::simd::Simd;
use super::tile::{Area, FloatMac, TilePlan, tiles};

/// Lower and upper limit of a fused activation: `(0, inf)` is relu.
pub type Clip = (f32, f32);

/// Limits that change nothing.
pub const NO_CLIP: Clip = (f32::NEG_INFINITY, f32::INFINITY);

/// The clip of a relu.
pub const RELU: Clip = (0.0, f32::INFINITY);

/// A float convolution, planned: shape, layouts, packed weights. `y = clip(conv(x, w) + bias + residual)`.
///
/// One call computes one image or some rows of one; calls on different images or rows may run at the same time. For a given
/// instruction set the result does not depend on how the work is split.
#[derive(Clone, Debug)]
pub struct ConvF32 {
    kernels: Kernels,
    geometry: Geometry,
    inner: Inner,
    bias: Vec<f32>,
    clip: Clip,
    /// The weight of each packed word, where weights change often.
    order: Option<Vec<u32>>,
}

#[derive(Clone, Debug)]
enum Inner {
    Tiles(TilePlan),
    Depthwise(DepthwisePlan),
}

impl ConvF32 {
    /// Plans `shape` for buffers with `halos` and packs `weights` `[c_out, c_in / groups, kh, kw]`; `bias` `[c_out]`.
    pub fn new(
        kernels: Kernels,
        shape: &ConvShape,
        halos: &ConvHalos,
        weights: &[f32],
        bias: Option<&[f32]>,
        clip: Clip,
    ) -> Result<ConvF32, KernelError> {
        shape.check()?;
        let lanes = kernels.lanes();
        let is_depthwise = shape.is_depthwise();
        // A depthwise kernel reads whole vectors, so a last partial one needs room behind the image.
        let geometry = Geometry::new(shape, halos, is_depthwise && !shape.c_in.is_multiple_of(lanes))?;
        let inner = if is_depthwise {
            Inner::Depthwise(geometry.depthwise_plan(lanes, 4)?)
        } else {
            Inner::Tiles(geometry.tile_plan(lanes, 4)?)
        };
        let mut conv = ConvF32 { kernels, geometry, inner, bias: Vec::new(), clip, order: None };
        conv.set_weights(weights, bias)?;
        Ok(conv)
    }

    /// The shape it was planned for.
    pub fn shape(&self) -> &ConvShape {
        &self.geometry.shape
    }

    /// As [`Self::new`] for weights that change often: it keeps the order of packing, as much memory as the weights take.
    /// Weights and bias are zero at first.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn changing(
        kernels: Kernels,
        shape: &ConvShape,
        halos: &ConvHalos,
        clip: Clip,
    ) -> Result<ConvF32, KernelError> {
        shape.check()?;
        let mut conv = Self::new(kernels, shape, halos, &vec![0.0; shape.weight_len()], None, clip)?;
        if let Inner::Tiles(plan) = &mut conv.inner
            && shape.weight_len() < u32::MAX as usize
        {
            let taps = Taps::new(shape);
            conv.order = Some(plan.order(|channel, run, index| taps.weight(channel, run, index)));
        }
        Ok(conv)
    }

    /// Packs other weights and bias of the same shape, without allocating the packed form again.
    pub fn set_weights(&mut self, weights: &[f32], bias: Option<&[f32]>) -> Result<(), KernelError> {
        let shape = &self.geometry.shape;
        check_len("weights", shape.weight_len(), weights.len())?;
        if let Some(bias) = bias {
            check_len("bias", shape.c_out, bias.len())?;
        }
        let bias = |channel: usize| bias.map_or(0.0, |b| b[channel]);
        match &mut self.inner {
            Inner::Tiles(plan) => {
                if let Some(order) = &self.order {
                    plan.pack_order(order, weights);
                } else {
                    let taps = Taps::new(shape);
                    plan.pack(|channel, run, index| {
                        taps.weight(channel, run, index).map_or(0, |i| weights[i].to_bits())
                    });
                }
                self.bias = plan.params(bias);
            }
            Inner::Depthwise(plan) => {
                let taps = shape.kernel[0] * shape.kernel[1];
                plan.pack(|channel, tap| weights[channel * taps + tap].to_bits());
                self.bias = plan.params(bias);
            }
        }
        Ok(())
    }

    /// Computes one image. All slices are whole buffers, halo counted.
    pub fn run(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let rows = 0..self.geometry.y.h;
        self.run_rows(rows, x, residual, self.geometry.inner_rows(y)?, scratch)
    }

    /// Computes the output rows `rows` of one image. `x` and `residual` are whole buffers; `y` is the part of the output
    /// buffer that holds those rows, whole buffer rows from halo to halo.
    pub fn run_rows(
        &self,
        rows: Range<usize>,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let g = &self.geometry;
        g.check(&rows, x.len(), residual.map(<[f32]>::len), y.len())?;
        let area = g.area(rows.len(), 4);
        let read = self.read_len(&area).div_ceil(4);
        let input = if g.source.copies {
            let copy = scratch.get::<f32>(g.source.copy_len(rows.len()).max(read));
            g.source.copy(x, &rows, copy, 0.0, |v| v);
            &*copy
        } else {
            x.get(g.source.start(rows.start)..).unwrap_or(&[])
        };
        if input.len() < read {
            return Err(KernelError::Length { what: "x", want: read, got: input.len() });
        }
        let y = y[g.y_start()..].as_mut_ptr();
        let bias = &self.bias[..];
        match residual {
            Some(r) => {
                let residual = r[g.residual_start(rows.start)..].as_ptr();
                let finish = FloatFinish::<true> { y, residual, bias, clip: self.clip };
                self.kernels.run(ConvJob { conv: self, area, input, finish });
            }
            None => {
                let finish = FloatFinish::<false> { y, residual: std::ptr::null(), bias, clip: self.clip };
                self.kernels.run(ConvJob { conv: self, area, input, finish });
            }
        }
        Ok(())
    }

    fn read_len(&self, area: &Area) -> usize {
        match &self.inner {
            Inner::Tiles(plan) => plan.read_len(area),
            Inner::Depthwise(plan) => plan.read_len(area),
        }
    }
}

struct ConvJob<'a, const RESIDUAL: bool> {
    conv: &'a ConvF32,
    area: Area,
    input: &'a [f32],
    finish: FloatFinish<'a, RESIDUAL>,
}

impl<const RESIDUAL: bool> Job for ConvJob<'_, RESIDUAL> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let x = self.input.as_ptr().cast();
        // SAFETY: `run_rows` checked that the input covers `read_len`, that output and residual have the lengths of their
        // layouts, from which `area` was made; plan and parameters were made for the same instruction set.
        unsafe {
            match &self.conv.inner {
                Inner::Tiles(plan) => tiles(FloatMac(s), plan, &self.area, x, &self.finish),
                Inner::Depthwise(plan) => depthwise(FloatMac(s), plan, &self.area, x, &self.finish),
            }
        }
    }
}
