//! What a plan made of a graph, for those who want to know why a network is slow.

use gs_ir::OpId;
use gs_kernels::KernelError;
use thiserror::Error;

/// Why no kernel runs an operation.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// It has regions.
    #[error("it has regions")]
    Regions,
    /// It has not one result.
    #[error("it has {0} results")]
    Results(usize),
    /// An operand or the result is not `f32`, `u8` or `i8` with one sample after the other.
    #[error("an operand or the result is not f32, u8 or i8 with one sample after the other")]
    Values,
    /// It reads constants only.
    #[error("it reads constants only")]
    Constant,
    /// There is no kernel for the operator, or none for these attributes, constants and extents.
    #[error("there is no kernel for it")]
    NoKernel,
    /// It wants other numbers around an image than an operation before it.
    #[error("its padding holds other numbers than that of another reader of the same value")]
    Padding,
    /// Its kernel refused the extents or the constants.
    #[error("its kernel refused: {0}")]
    Refused(#[from] KernelError),
}

/// What a plan made of a graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanReport {
    /// Stages that kernels run, sample by sample: the operations that each kernel was chosen for. What was fused into
    /// one of them is not named.
    pub segments: Vec<Vec<OpId>>,
    /// Operations that the reference evaluator runs, in order, and why.
    pub fallbacks: Vec<(OpId, Why)>,
}
