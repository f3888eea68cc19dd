//! What can go wrong in training.

use super::checkpoint::CheckpointError;
use gs_eval::{DataError, ExecError};
use thiserror::Error;

/// Why training could not begin or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There is nothing to train.
    #[error("the module has no graph @train; run the passes `loss`, `grad` and `update` first")]
    NoGraph,
    /// Fewer samples than a batch has.
    #[error("{samples} samples do not fill one batch of {batch}")]
    TooFew {
        /// Samples given.
        samples: usize,
        /// Samples of a batch.
        batch: usize,
    },
    /// An input of the graph that the data have no field for.
    #[error("@train has the input `{input}`, the data have: {}", .fields.join(", "))]
    Field {
        /// The input.
        input: String,
        /// The fields.
        fields: Vec<String>,
    },
    /// The graph returns no loss.
    #[error("@train returns no number as its first result")]
    NoLoss,
    /// The loss is no number any more.
    #[error("step {step}: the loss is {loss}{}; a smaller learning rate may help", .place.as_ref().map_or(String::new(), |p| format!(", and the first such number comes from {p}")))]
    Astray {
        /// Steps done before.
        step: u64,
        /// The loss.
        loss: f64,
        /// The operation whose result is the first that is not finite.
        place: Option<String>,
    },
    /// The loss is no number since the data hold some that are not finite.
    #[error(
        "step {step}: the loss is {loss}, since the data hold a number that is not finite: in `{input}` of sample {sample}"
    )]
    DataAstray {
        /// Steps done before.
        step: u64,
        /// The loss.
        loss: f64,
        /// The input.
        input: String,
        /// The number of the sample.
        sample: usize,
    },
    /// Samples could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A step could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A checkpoint could not be used or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A callback failed.
    #[error("a callback: {0}")]
    Callback(Box<dyn std::error::Error + Send + Sync>),
}
