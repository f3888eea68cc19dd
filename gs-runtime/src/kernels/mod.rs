//! Kernels on plain slices: what runs a network once it is planned.
//!
//! Images are `[h, w, c]`, channels innermost ("channels last"); a batch is a loop of the caller, who also decides on threads:
//! every kernel works on one image, some of its rows, or a range of elements, and gives the same bits however the work is split.
//! A kernel that needs weights is a *plan*: made once from a shape, weights packed, then run any number of times.
//!
//! - [`isa`]: which instruction set; [`Kernels`] is the choice.
//! - [`shape`], [`conv`]: shapes, halos, layouts.
//! - [`ConvF32`], [`ConvCodes`], [`LinearF32`], [`LinearCodes`]: convolutions and matrix products, float and integer.

mod conv;
mod conv_f32;
mod depthwise;
mod error;
mod finish;
mod isa;
mod memory;
mod peak;
mod shape;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_avx2;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
mod simd_portable;
mod source;
mod tile;

pub use conv::ConvHalos;
pub use conv_f32::{Clip, ConvF32, NO_CLIP, RELU};
pub use error::KernelError;
pub use isa::{Isa, Kernels};
pub use memory::{Scratch, bytes_of, bytes_of_mut};
pub use peak::{Peak, measure_peak};
pub use shape::{ConvShape, Halo, ImageLayout};
