//! Moments of a training run that configurations name: a step, or a part of the run.

use crate::algorithm::RunLength;
use gs_ir::{At, AttrSet, GraphId, OpId, Rewriter, ValueId};
use gs_passes::manager::PassError;
use gs_passes::training::{number, step_counter};
use serde::{Deserialize, Serialize};

/// When something begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a step (300), a part of the run (0.7) or `never` is expected")]
pub enum Moment {
    /// After so many steps.
    Step(u64),
    /// After this part of all steps, 0 to 1.
    Part(f64),
    /// A word.
    Word(Never),
}

/// The word for what does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Never {
    /// Not in this run.
    Never,
}

impl Moment {
    /// Whether it can be.
    pub fn is_valid(self) -> bool {
        !matches!(self, Moment::Part(part) if !(0.0..=1.0).contains(&part))
    }

    /// The first step after it, if it lies within a run.
    pub fn step(self, length: RunLength) -> Option<u64> {
        let step = match self {
            Moment::Step(step) => step,
            Moment::Part(part) => (part * length.steps as f64).ceil() as u64,
            Moment::Word(Never::Never) => return None,
        };
        (step < length.steps).then_some(step)
    }
}

/// Whether a step is before this one, as a truth value that `@train` computes from the counter of steps.
///
/// # Errors
/// As [`step_counter`].
pub(crate) fn is_before(
    rewriter: &mut Rewriter<'_>,
    train: GraphId,
    step: u64,
) -> Result<ValueId, PassError> {
    compare(rewriter, train, "less", step)
}

/// Whether a step is this one or later.
///
/// # Errors
/// As [`step_counter`].
pub(crate) fn is_past(rewriter: &mut Rewriter<'_>, train: GraphId, step: u64) -> Result<ValueId, PassError> {
    compare(rewriter, train, "greater_or_equal", step)
}

fn compare(
    rewriter: &mut Rewriter<'_>,
    train: GraphId,
    relation: &str,
    step: u64,
) -> Result<ValueId, PassError> {
    let first: Option<OpId> = rewriter.ops_in(train).next();
    let counter = step_counter(rewriter, train)?;
    let limit = number(rewriter, gs_ir::ElemType::I64, step as f64)?;
    let at = first.map_or(At::End(train), At::Before);
    Ok(rewriter.emit(relation, &[counter, limit], AttrSet::new(), at)?)
}
