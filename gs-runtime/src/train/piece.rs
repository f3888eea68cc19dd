//! What a training step is made of. A *sample piece* computes each sample by itself; between two of them nothing needs to
//! wait. A *whole piece* needs what all samples together gave: statistics, gradients of weights, steps of the optimiser.

use crate::plan::grids::Grids;
use crate::plan::kernel::Kernel;
use crate::plan::slot::Slot;
use gs_eval::{OpPlan, Tensor};
use gs_ir::{ElemType, OpId};
use gs_kernels::{
    AdamW, Binary, Clip, ConvF32, ConvInputGrad, ConvWeightGrad, DepthwiseGrad, GridRow, KernelError,
    Learned, PoolShape, Sgd, Unary,
};
use std::sync::Arc;

/// A value whose first axis counts samples: an index into the plan's batch values.
pub(super) type Batch = usize;
/// A value that is no batch: an index into the plan's homes.
pub(super) type Home = usize;
/// Sums that each chunk of samples makes for itself: an index into the plan's partial sums.
pub(super) type Part = usize;

/// What a home holds.
#[derive(Default)]
pub(super) enum Held {
    #[default]
    Empty,
    Floats(Vec<f32>),
    Tensor(Tensor),
    Conv(Box<ConvF32>),
    InputGrad(Box<ConvInputGrad>),
    DepthwiseGrad(Box<DepthwiseGrad>),
}

impl Held {
    /// # Errors
    /// It holds no floats: a defect of the plan.
    pub(super) fn floats(&self) -> Result<&[f32], KernelError> {
        match self {
            Held::Floats(v) => Ok(v),
            Held::Tensor(t) => t.as_f32().ok_or(KernelError::OutputType),
            _ => Err(KernelError::OutputType),
        }
    }

    /// # Errors
    /// It holds no floats that can be written: a defect of the plan.
    pub(super) fn floats_mut(&mut self) -> Result<&mut Vec<f32>, KernelError> {
        match self {
            Held::Floats(v) => Ok(v),
            _ => Err(KernelError::OutputType),
        }
    }

    /// The truth value that it holds.
    ///
    /// # Errors
    /// It holds none: a defect of the plan.
    pub(super) fn holds(&self) -> Result<bool, KernelError> {
        let Held::Tensor(t) = self else { return Err(KernelError::OutputType) };
        t.to_ints().and_then(|v| v.first().map(|&v| v != 0)).ok_or(KernelError::OutputType)
    }

    /// # Errors
    /// It holds packed weights: a defect of the plan.
    pub(super) fn tensor(&self, dims: &[usize]) -> Result<Tensor, KernelError> {
        match self {
            Held::Tensor(t) => Ok(t.clone()),
            Held::Floats(v) => Tensor::f32s(dims, v.clone()).map_err(|_| KernelError::TooLarge),
            _ => Err(KernelError::OutputType),
        }
    }
}

/// Type and extents of what a home holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Extents {
    pub(super) elem: ElemType,
    pub(super) dims: Vec<usize>,
}

/// What a chunk of samples gathers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Gathered {
    /// So many sums in `f32`.
    Single(usize),
    /// So many sums in `f64`.
    Double(usize),
    /// A lowest and a highest element.
    Range,
}

/// A kernel that computes samples by themselves. What it reads is in the order of its operands.
pub(super) enum Sample {
    /// From a home.
    Enter,
    /// A convolution with the weights of home 0.
    Conv,
    /// `dy` to `dx` with the weights of home 0.
    InputGrad,
    /// `dy`, `x` to sums.
    WeightGrad(Arc<ConvWeightGrad>),
    /// `dy`, `x` to sums, of a depthwise convolution.
    DepthwiseWeightGrad(Arc<DepthwiseGrad>),
    /// Element by element.
    Unary(Unary),
    /// Element by element.
    Binary(Binary),
    /// The sum over the pixels of each channel, times a factor.
    SumPixels(f32),
    /// `x` to moments.
    Moments,
    /// `x` to sums per channel.
    ChannelSums,
    /// The sum of what is read, each scaled and shifted by the next home if it is said so, limited; then rounded to the grid
    /// of the last home if that is asked for.
    Sum { affine: Vec<bool>, clip: Clip, rounded: Option<Rounded> },
    /// The first value or the second, as the truth value in home 0 says.
    Choose,
    /// `x` to its range.
    Range,
    /// `dy`, maybe another one that is added, and what the gate looks at; the grid of a quantiser is home 0.
    Gated(GateKind),
    /// `dy`, `x` to sums; the means are home 0.
    NormGradSums,
    /// `dy`, `x` to `dx`; the factors are home 0.
    NormGradApply,
    /// `dy` to `dx`.
    AveragePoolGrad { shape: PoolShape, count_pads: bool },
    /// `dy`, `x` to `dx`.
    MaxPoolGrad(PoolShape),
    /// One number per channel to all pixels, times a factor.
    Spread(f32),
    /// To where each element goes; 0 elsewhere.
    Scatter(Vec<u32>),
    /// A kernel of inference.
    Forward(Box<Kernel>),
}

/// What is kept of a sum that is rounded to a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rounded {
    /// Nothing.
    Only,
    /// The sum before it is rounded.
    AndValue,
    /// Where gradients pass, a byte for each element; a relu stands before if `positive`.
    AndGate { positive: bool },
}

/// Where gradients pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GateKind {
    /// Where `y` is above 0.
    Relu,
    /// Where the grid covers `x`.
    Within,
    /// Both.
    ReluWithin,
    /// Where [`Rounded::AndGate`] left a byte that is not 0.
    Bytes,
    /// Through a quantiser of `x` whose parameter is trained, and through a relu before it; what the parameter is given
    /// is summed.
    Learned { learned: Learned, relu: bool },
}

/// A sample kernel and its operands.
pub(super) struct SamplePiece {
    pub(super) op: Option<OpId>,
    pub(super) kernel: Sample,
    pub(super) reads: Vec<Batch>,
    pub(super) write: Option<Batch>,
    /// What is kept besides the result.
    pub(super) kept: Option<Batch>,
    pub(super) homes: Vec<Home>,
    pub(super) part: Option<Part>,
    /// The operand whose buffer the result takes over; what is written is computed from what lies there.
    pub(super) in_place: Option<usize>,
}

impl SamplePiece {
    /// How many of the first operands may be overwritten element by element.
    pub(super) fn overwritable(&self) -> usize {
        match self.kernel {
            // All but what the gate looks at.
            Sample::Gated(_) => self.reads.len() - 1,
            Sample::NormGradApply => 1,
            _ => 0,
        }
    }
}

/// What is done between samples.
pub(super) enum Whole<'m> {
    /// A batch value to its home, in the order of files.
    Leave(Batch),
    /// Weights (and bias) packed for convolutions.
    PackConv,
    /// Weights packed for the gradient of convolutions' inputs.
    PackInputGrad,
    /// Numbers per channel repeated to a band.
    Band,
    /// Partial sums to the gradient of weights.
    WeightGrad(Arc<ConvWeightGrad>),
    /// The same for depthwise convolutions.
    DepthwiseWeightGrad(Arc<DepthwiseGrad>),
    /// Moments, scale, bias, old mean and variance to: new mean and variance, the batch's mean and 1 / deviation, scale
    /// and shift as bands.
    Moments { epsilon: f64, keep: f64 },
    /// Sums, scale, mean, 1 / deviation to: gradients of scale and bias, factors as bands. `n` elements of a channel.
    NormGrad { n: f64 },
    /// Partial sums to sums, times a factor.
    Sums(f64),
    /// The range of a batch, and an earlier range, to a new one.
    Ranges { decay: f64 },
    /// A value and an earlier range to a new one, or one for each channel.
    Observe { decay: f64, channels: Channels },
    /// Ranges, learned steps or clips, one or one for each channel, to grids.
    Grids(Grids),
    /// `dy`, `x` and grids to `dx` and the gradients of the grids' parameters, these times a factor.
    LearnedGrad { learned: Learned, channels: Channels, factor: f64 },
    /// A value and grids to the rounded value.
    FakeQuant(Channels),
    /// `dy`, `x` and grids to `dx`.
    FakeQuantGrad(Channels),
    /// Weights and scales to weights on levels: squeezed.
    DoReFa { top: u32, channels: Channels },
    /// `dy`, weights and scales to gradients of both.
    DoReFaGrad { top: u32, channels: Channels },
    /// Logits, scales and maybe a temperature and whether it is hard, to weights.
    Slb { levels: usize, channels: Channels },
    /// `dy`, logits, scales, temperature and whether it is hard to gradients of logits and scales; in the hard phase those of
    /// logits may be nothing.
    SlbGrad { levels: usize, channels: Channels, frozen: bool },
    /// Two values of the same extents, element by element.
    Binary(Binary),
    /// Element by element, limited.
    Clip(Clip),
    /// The second or the third value, as the truth value in the first says.
    Choose,
    /// A matrix product.
    Product(Product),
    /// A matrix with its axes swapped.
    Swap { rows: usize },
    /// Logits and labels to the loss and the logarithms of probabilities.
    CrossEntropy { smoothing: f64, classes: usize },
    /// `dy`, logarithms of probabilities, labels to the gradient of logits.
    CrossEntropyGrad { smoothing: f64, classes: usize },
    /// Gradient and rate to parameter and momentum; both are read first where they have other homes (reads 2, 3).
    Sgd(Sgd),
    /// Gradient, rate and step to parameter and moments; read first where they have other homes (reads 3 to 5).
    AdamW(AdamW),
    /// The reference evaluator.
    Eval(Box<OpPlan<'m>>),
}

/// How the channels of a tensor lie: so many, of `plane` elements in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Channels {
    pub(super) count: usize,
    pub(super) plane: usize,
}

impl Channels {
    /// Whether the elements of a channel that lie in a row are too few to be computed by themselves.
    pub(super) fn are_close(self) -> bool {
        self.count > 1 && self.plane < GridRow::PLANE
    }
}

/// `alpha * a * b + beta * c`, either factor perhaps transposed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) trans_a: bool,
    pub(super) trans_b: bool,
    pub(super) alpha: f32,
    pub(super) beta: f32,
}

/// A whole kernel and its operands.
pub(super) struct WholePiece<'m> {
    pub(super) op: Option<OpId>,
    pub(super) kernel: Whole<'m>,
    pub(super) reads: Vec<Home>,
    pub(super) writes: Vec<Home>,
    pub(super) part: Option<Part>,
}

/// A batch value: how a sample lies.
pub(super) struct BatchValue {
    pub(super) slot: Slot,
}
