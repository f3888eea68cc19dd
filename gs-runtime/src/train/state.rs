//! What a plan holds from step to step.

use super::piece::Held;

/// Buffers of batch values, homes of all others, partial sums.
#[derive(Default)]
pub(super) struct State {
    pub(super) buffers: Vec<Vec<f32>>,
    pub(super) homes: Vec<Held>,
    /// Partial sums by number; each is in one of the two.
    pub(super) singles: Vec<Vec<f32>>,
    pub(super) doubles: Vec<Vec<f64>>,
}
