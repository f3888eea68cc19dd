//! Structured pruning: channels that matter least disappear, through every coupling ([`crate::groups`]). The network is
//! smaller afterwards, without masks; what it computes is what it would with these channels multiplied by zero where
//! they are read.
//!
//! Sources: the criteria name theirs ([`Criterion`]). Which portion goes next is decided by one ranking over portions that
//! leave fast counts of channels, so that a budget is met without rounding at the end.

mod choose;
mod config;
mod cost;
mod report;
mod score;

pub use choose::{Choice, ChooseError};
pub use config::{Criterion, PruneConfig, Scope};
pub use cost::Sums;
pub use report::{LayerLine, PruneReport};
pub use score::ScoreError;

use crate::groups::{Groups, GroupsError, SelectError, bypass};
use crate::targets;
use gs_ir::{Module, Phase, Rewriter};
use gs_passes::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use thiserror::Error;

/// Why a network was not pruned.
#[derive(Debug, Error)]
pub enum PruneError {
    /// It cannot be analysed.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// No scores.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The request.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// The rewrite.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// No such target.
    #[error("{0}")]
    Target(String),
}

/// Prunes a network.
///
/// # Errors
/// Where it cannot be analysed, or the request cannot be met: then it is as it was.
pub fn prune(module: &mut Module, config: &PruneConfig) -> Result<PruneReport, PruneError> {
    gs_passes::passes::fold_all_but_weights(module);
    let groups = Groups::of(module)?;
    let round_to = match config.round_to {
        Some(n) => n.max(1),
        None => {
            let target = targets::find(&config.target).map_err(|e| PruneError::Target(e.to_string()))?;
            usize::try_from(target.channel_multiple.best).unwrap_or(1).max(1)
        }
    };
    let scores = score::scores(module, &groups, config)?;
    let choice = choose::choose(module, &groups, &scores, config, round_to)?;
    let selection = groups.dropping(&choice.dropped);
    let mut report = PruneReport::new(module, &groups, &selection, &choice, round_to);
    let mut rewriter = Rewriter::new(module);
    choice.branches.iter().for_each(|branch| bypass(&mut rewriter, branch));
    if !choice.branches.is_empty() {
        gs_passes::passes::remove_dead(module);
    }
    groups.select(module, &selection)?;
    // Constants that held old shapes.
    gs_passes::passes::remove_dead(module);
    // What was rewritten is what counts: with a branch more goes than its channels.
    report.after = Sums::of(module, choice.after.channels);
    Ok(report)
}

/// The pass `prune`.
pub struct Prune {
    /// What it is told.
    pub config: PruneConfig,
}

/// The pass as lists know it.
pub static INFO: PassInfo = PassInfo {
    name: "prune",
    doc: "drop the channels that matter least, through every coupling",
    options: &[
        ("criterion", "how channels are ranked: l1, l2, group, bn, fpgm, lamp, random (l2)"),
        ("scope", "among what they compete: global or local (global)"),
        ("keep_macs", "the part of the multiply-adds that stays"),
        ("keep_params", "the part of the parameters that stays"),
        ("keep_channels", "the part of the channels that stays"),
        ("round_to", "channels left are multiples of this, or as many as there were (the target's best)"),
        ("min_keep", "the least part of a group that stays (0.1)"),
        ("dead_branches", "whether residual branches may go whole (false)"),
        ("exclude", "layers whose channels all stay: names, globs, or op:KIND ([])"),
        ("layers", "parts of single layers that stay: {SELECTOR=0.5} ({})"),
        ("target", "the target whose best multiple is taken (ort-cpu)"),
        ("seed", "seed of the criterion random (0)"),
    ],
    accepts: &[Phase::Float, Phase::Instrumented, Phase::Frozen],
    produces: None,
};

impl Pass for Prune {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let report = prune(module, &self.config).map_err(Box::new)?;
        let mut out = PassReport::counting([("channels dropped", report.dropped)]);
        out.notes.push(report.summary());
        Ok(out)
    }
}
