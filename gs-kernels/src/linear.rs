//! Matrix products with weights known beforehand: `y[m, n] = sum_k x[m, k] * w[k, n]`, float and integer. The same tiled kernel as
//! for convolutions: a row of `x` is a pixel.

use super::conv_f32::Clip;
use super::conv_q::CodeStore;
use super::error::{KernelError, check_len};
use super::finish::{CodeFinish, DequantFinish, FloatFinish};
use super::grid::{Grid, QOutput};
use super::isa::{Job, Kernels};
use super::memory::Scratch;
use super::requant::{QWeights, pack_word};
use super::shape::{bounded, nonzero};
use super::simd::Simd;
use super::tile::{Area, CodeMac, FloatMac, TilePlan, TileSpec, tiles};

/// Bytes of input brought into kernel form at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// How the weight matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightOrder {
    /// `[in, out]`: MatMul, Gemm with `transB = 0`.
    InOut,
    /// `[out, in]`: Gemm with `transB = 1`.
    OutIn,
}

/// Sizes of a weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearShape {
    /// Columns of the input, the summed axis.
    pub inputs: usize,
    /// Columns of the output.
    pub outputs: usize,
    /// Order of the weights.
    pub order: WeightOrder,
}

impl LinearShape {
    fn check(&self) -> Result<(), KernelError> {
        nonzero("inputs", self.inputs)?;
        nonzero("outputs", self.outputs)?;
        bounded(&[self.inputs, self.outputs]).map(|_| ())
    }

    fn index(&self, output: usize, input: usize) -> usize {
        match self.order {
            WeightOrder::InOut => input * self.outputs + output,
            WeightOrder::OutIn => output * self.inputs + input,
        }
    }

    /// Rows of an input of `x` elements, if output and input agree on them.
    fn rows(&self, x: usize, y: usize) -> Result<usize, KernelError> {
        let rows = x / self.inputs;
        check_len("x", rows * self.inputs, x)?;
        check_len("y", rows * self.outputs, y)?;
        Ok(rows)
    }

    fn plan(&self, lanes: usize, element: usize) -> Result<TilePlan, KernelError> {
        TilePlan::new(TileSpec {
            groups: 1,
            group_channels: self.outputs,
            lanes,
            runs: vec![0],
            run_words: (self.inputs * element).div_ceil(4),
            group_bytes: 0,
            pixel_bytes: self.inputs * element,
        })
    }
}

/// A float matrix product, planned: `y = clip(x * w + bias + residual)`.
///
/// Any number of rows in a call; for a given instruction set a row's result does not depend on the others.
#[derive(Clone, Debug)]
pub struct LinearF32 {
    kernels: Kernels,
    shape: LinearShape,
    plan: TilePlan,
    bias: Vec<f32>,
    clip: Clip,
}

impl LinearF32 {
    /// Packs `weights`; `bias` `[outputs]`.
    pub fn new(
        kernels: Kernels,
        shape: LinearShape,
        weights: &[f32],
        bias: Option<&[f32]>,
        clip: Clip,
    ) -> Result<LinearF32, KernelError> {
        shape.check()?;
        let plan = shape.plan(kernels.lanes(), 4)?;
        let mut linear = LinearF32 { kernels, shape, plan, bias: Vec::new(), clip };
        linear.set_weights(weights, bias)?;
        Ok(linear)
    }

    /// Packs other weights and bias of the same shape, without allocating the packed form again.
    pub fn set_weights(&mut self, weights: &[f32], bias: Option<&[f32]>) -> Result<(), KernelError> {
        check_len("weights", self.shape.inputs * self.shape.outputs, weights.len())?;
        if let Some(bias) = bias {
            check_len("bias", self.shape.outputs, bias.len())?;
        }
        let shape = self.shape;
        self.plan.pack(|output, _, input| weights[shape.index(output, input)].to_bits());
        self.bias = self.plan.params(|output| bias.map_or(0.0, |b| b[output]));
        Ok(())
    }

    /// Computes rows `x` `[m, inputs]` to `y` `[m, outputs]`, adding `residual` `[m, outputs]`.
    pub fn run(&self, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) -> Result<(), KernelError> {
        let rows = self.shape.rows(x.len(), y.len())?;
        if let Some(residual) = residual {
            check_len("residual", y.len(), residual.len())?;
        }
        if rows == 0 {
            return Ok(());
        }
        let area = Area::flat(rows, self.shape.inputs * 4, self.shape.outputs);
        let (bias, clip, y) = (&self.bias[..], self.clip, y.as_mut_ptr());
        match residual {
            Some(residual) => {
                let finish = FloatFinish::<true> { y, residual: residual.as_ptr(), bias, clip };
                self.kernels.run(FloatJob { plan: &self.plan, area, x, finish });
            }
            None => {
                let finish = FloatFinish::<false> { y, residual: std::ptr::null(), bias, clip };
                self.kernels.run(FloatJob { plan: &self.plan, area, x, finish });
            }
        }
        Ok(())
    }
}

struct FloatJob<'a, const RESIDUAL: bool> {
    plan: &'a TilePlan,
    area: Area,
    x: &'a [f32],
    finish: FloatFinish<'a, RESIDUAL>,
}

impl<const RESIDUAL: bool> Job for FloatJob<'_, RESIDUAL> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `x` has `area`'s pixels times `inputs` floats, which is all that is read; output and residual were checked to have
        // as many rows.
        unsafe { tiles(FloatMac(s), self.plan, &self.area, self.x.as_ptr().cast(), &self.finish) }
    }
}

/// An integer matrix product, planned. Sums and outputs as in [`super::ConvQ`].
#[derive(Clone, Debug)]
pub struct LinearQ {
    kernels: Kernels,
    shape: LinearShape,
    plan: TilePlan,
    codes_per_word: usize,
    x: Grid,
    out: QOutput,
    offset: Vec<i32>,
    scale: Vec<f32>,
}

impl LinearQ {
    /// Packs `weights`, whose scales and bias are per output.
    pub fn new(
        kernels: Kernels,
        shape: LinearShape,
        x: Grid,
        weights: QWeights<'_>,
        out: QOutput,
    ) -> Result<LinearQ, KernelError> {
        shape.check()?;
        x.check()?;
        out.check()?;
        weights.check(shape.outputs, shape.inputs * shape.outputs)?;
        let codes_per_word = kernels.codes_per_word();
        let mut plan = shape.plan(kernels.lanes(), 4 / codes_per_word)?;
        plan.pack(|output, _, word| {
            pack_word(codes_per_word, |i| {
                let input = word * codes_per_word + i;
                if input < shape.inputs { weights.codes[shape.index(output, input)] } else { 0 }
            })
        });
        let offset = plan.params(|output| {
            weights.offset(
                &x,
                output,
                (0..shape.inputs).map(|input| weights.codes[shape.index(output, input)]),
            )
        });
        let scale = plan.params(|output| weights.multiplier(&x, &out, output));
        Ok(LinearQ { kernels, shape, plan, codes_per_word, x, out, offset, scale })
    }

    /// Computes rows `x` `[m, inputs]` to codes `y` `[m, outputs]`.
    pub fn run(&self, x: &[u8], y: &mut [u8], scratch: &mut Scratch) -> Result<(), KernelError> {
        let QOutput::Codes(out) = &self.out else { return Err(KernelError::OutputType) };
        self.shape.rows(x.len(), y.len())?;
        let rows = self.rows_per_chunk();
        for (x, y) in x.chunks(rows * self.shape.inputs).zip(y.chunks_mut(rows * self.shape.outputs)) {
            let finish = CodeFinish {
                y: y.as_mut_ptr(),
                offset: &self.offset,
                scale: &self.scale,
                zero_point: out.grid.zero_point,
                clamp: out.centred_limits(),
            };
            self.compute(x, finish, scratch);
        }
        Ok(())
    }

    /// Computes rows to floats.
    pub fn run_f32(&self, x: &[u8], y: &mut [f32], scratch: &mut Scratch) -> Result<(), KernelError> {
        if self.out != QOutput::Float {
            return Err(KernelError::OutputType);
        }
        self.shape.rows(x.len(), y.len())?;
        let rows = self.rows_per_chunk();
        for (x, y) in x.chunks(rows * self.shape.inputs).zip(y.chunks_mut(rows * self.shape.outputs)) {
            let finish = DequantFinish { y: y.as_mut_ptr(), offset: &self.offset, scale: &self.scale };
            self.compute(x, finish, scratch);
        }
        Ok(())
    }

    fn rows_per_chunk(&self) -> usize {
        (CHUNK_BYTES / self.shape.inputs).max(16)
    }

    /// Whole rows of `x`, for which `finish` has room.
    fn compute<E: CodeStore>(&self, x: &[u8], finish: E, scratch: &mut Scratch) {
        let rows = x.len() / self.shape.inputs;
        let element = 4 / self.codes_per_word;
        let area = Area::flat(rows, self.shape.inputs * element, self.shape.outputs);
        let read = self.plan.read_len(&area);
        let flip = self.x.code.flip();
        let input = if element == 2 {
            let copy = scratch.get::<i16>(read.div_ceil(2));
            for (o, &v) in copy.iter_mut().zip(x) {
                *o = i16::from(v ^ flip);
            }
            copy.as_ptr().cast()
        } else if flip != 0 || read > x.len() {
            let copy = scratch.get::<u8>(read);
            for (o, &v) in copy.iter_mut().zip(x) {
                *o = v ^ flip;
            }
            copy.as_ptr()
        } else {
            x.as_ptr()
        };
        self.kernels.run(CodeJob { plan: &self.plan, area, x: input, finish });
    }
}

struct CodeJob<'a, E> {
    plan: &'a TilePlan,
    area: Area,
    x: *const u8,
    finish: E,
}

impl<E: CodeStore> Job for CodeJob<'_, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let finish = self.finish.as_finish::<S>();
        // SAFETY: `compute` made `x` cover what is read; the output was checked to have as many rows.
        unsafe { tiles(CodeMac(s), self.plan, &self.area, self.x, finish) }
    }
}
