//! Kernels on plain slices: what runs a network once it is planned. Modules, graphs and tensors are not known here.
//!
//! Images are `[h, w, c]`, channels innermost ("channels last"); a batch is a loop of the caller, who also decides on threads:
//! every kernel works on one image, some of its rows, or a range of elements, and gives the same bits however the work is split.
//! A kernel that needs weights is a *plan*: made once from a shape, weights packed, then run any number of times.
//!
//! - [`Isa`]: which instruction set; [`Kernels`] is the choice.
//! - [`ConvShape`], [`Halo`], [`ImageLayout`]: shapes, halos, layouts.
//! - [`ConvF32`], [`ConvQ`], [`LinearF32`], [`LinearQ`]: convolutions and matrix products, float and integer.
//! - [`ConvInputGrad`], [`ConvWeightGrad`], [`Moments`], [`sum_channels`]: what training steps need besides.

mod channels;
mod conv;
mod conv_f32;
mod conv_input_grad;
mod conv_q;
mod conv_weight_grad;
mod depthwise;
mod depthwise_grad;
mod elementwise;
mod error;
mod fake_quant;
mod finish;
mod gate;
mod grid;
mod isa;
mod layout;
mod learned;
mod levels;
mod linear;
mod loss;
mod map;
mod memory;
mod optimiser;
mod peak;
mod pointwise;
mod pool;
mod pool_grad;
mod quant;
mod requant;
mod shape;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_avx2;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
mod simd_portable;
mod softmax;
mod source;
mod sum;
mod tile;

#[cfg(test)]
mod tests;

pub use channels::{
    Band, Moments, channel_sums, moments, norm_grad_apply, norm_grad_apply_assign, norm_grad_sums,
};
pub use conv::ConvHalos;
pub use conv_f32::{Clip, ConvF32, NO_CLIP, RELU};
pub use conv_input_grad::ConvInputGrad;
pub use conv_q::ConvQ;
pub use conv_weight_grad::ConvWeightGrad;
pub use depthwise_grad::DepthwiseGrad;
pub use elementwise::{add, add_assign, affine_channels, clip, mul, mul_assign};
pub use error::KernelError;
pub use fake_quant::{
    FakeQuant, GridRow, fake_quant, fake_quant_grad, fake_quant_grad_rows, fake_quant_rows, range_of, widen,
};
pub use gate::{Gate, gated};
pub use grid::{CodeType, Grid, OutGrid, QOutput};
pub use isa::{Isa, Kernels};
pub use layout::{Element, to_channels_first, to_channels_last};
pub use learned::{Learned, learned_grad};
pub use levels::{Choice, Squeezed, dorefa, dorefa_grad, slb, slb_grad, squeeze};
pub use linear::{LinearF32, LinearQ, LinearShape, WeightOrder};
pub use loss::{cross_entropy_grad_row, cross_entropy_row};
pub use memory::{Scratch, bytes_in, bytes_in_mut, bytes_of, bytes_of_mut};
pub use optimiser::{AdamW, Sgd, adamw, sgd};
pub use peak::{Peak, measure_peak};
pub use pointwise::{Binary, Unary};
pub use pool::{
    PoolShape, average_pool, global_average_pool, max_pool, max_pool_codes, qlinear_average_pool,
    qlinear_global_average_pool,
};
pub use pool_grad::{average_pool_grad, max_pool_grad, spread_channels};
pub use quant::{code_table, dequantize, lookup, qlinear_add, qlinear_mul, quantize};
pub use requant::QWeights;
pub use shape::{ConvShape, Halo, ImageLayout};
pub use softmax::{qlinear_softmax, softmax};
pub use sum::{ChannelSum, Keep, Quantised, Term, sum_channels, sum_quantised};
