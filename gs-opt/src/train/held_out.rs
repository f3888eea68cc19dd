//! The accuracy on held-out samples while training goes on. Nothing is chosen by it.

use super::engine::TrainEngine;
use crate::eval::score;
use crate::failure::Outcome;
use crate::progress::Progress;
use crate::source::Samples;
use gs_algos::callback::{Callback, CallbackResult, TrainState};
use gs_ir::Module;
use std::sync::Arc;
use std::time::Instant;

/// The metric that the accuracy is left in.
pub(super) const TOP1: &str = "held_out_accuracy";
/// The metric that tells how long it took.
pub(super) const SECONDS: &str = "held_out_seconds";

/// Samples of a batch that is scored.
const BATCH: usize = 64;

/// Scores `@main` on held-out samples at the end of each epoch.
pub(super) struct HeldOut {
    pub(super) engine: Arc<TrainEngine>,
    pub(super) samples: Arc<Samples>,
}

impl Callback for HeldOut {
    fn epoch_end(&mut self, state: &mut TrainState<'_>) -> CallbackResult {
        let began = Instant::now();
        let now = state.snapshot()?;
        if let Some(top1) = top1(&now, &self.engine, &self.samples).map_err(|f| f.message)? {
            state.metrics.insert(TOP1.to_owned(), top1);
        }
        state.metrics.insert(SECONDS.to_owned(), began.elapsed().as_secs_f64());
        Ok(())
    }
}

/// The accuracy of a network on samples, where they have labels.
///
/// # Errors
/// Where it cannot be run.
pub(super) fn top1(module: &Module, engine: &TrainEngine, samples: &Samples) -> Outcome<Option<f64>> {
    let mut progress = Progress::new();
    Ok(score(module, engine.executor(), samples, BATCH, &mut progress, &mut |_| Ok(()))?.top1())
}
