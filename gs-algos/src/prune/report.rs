//! What pruning did: a line for each layer, and the sums.

use super::choose::Choice;
use super::cost::{Sums, multiply_adds_left};
use crate::groups::{Axis, Groups, Selection, Slot, WeightUse};
use gs_ir::{Module, ValueId};
use gs_passes::cost::{extents, multiply_adds};
use serde::Serialize;

/// A layer with weights, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerLine {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: &'static str,
    /// Channels that it reads, before and after.
    pub reads: (u64, u64),
    /// Channels that it makes, before and after.
    pub makes: (u64, u64),
    /// Multiply-adds for one sample, before and after.
    pub macs: (u64, u64),
    /// Why all its channels stay, where they have to.
    pub kept: Option<String>,
}

/// What pruning did.
#[derive(Clone, Debug)]
pub struct PruneReport {
    /// The layers.
    pub layers: Vec<LayerLine>,
    /// The network before.
    pub before: Sums,
    /// What is left.
    pub after: Sums,
    /// What is left when as much goes as can.
    pub least: Sums,
    /// Channels are multiples of this, or what they were.
    pub round_to: usize,
    /// Atoms that went.
    pub dropped: usize,
}

impl PruneReport {
    pub(super) fn new(
        module: &Module,
        groups: &Groups,
        selection: &Selection,
        choice: &Choice,
        round_to: usize,
    ) -> Self {
        let layers = groups.weights.iter().map(|weight| layer(module, groups, selection, weight)).collect();
        Self {
            layers,
            before: choice.before,
            after: choice.after,
            least: choice.least,
            round_to,
            dropped: choice.dropped.len(),
        }
    }

    /// The sums in a sentence.
    pub fn summary(&self) -> String {
        let part = |a: u64, b: u64| 100.0 * a as f64 / b.max(1) as f64;
        format!(
            "{:.1} % of the multiply-adds, {:.1} % of the parameters and {:.1} % of the channels stay ({:.1} % of the \
             multiply-adds with the least of every group)",
            part(self.after.macs, self.before.macs),
            part(self.after.params, self.before.params),
            part(self.after.channels, self.before.channels),
            part(self.least.macs, self.before.macs),
        )
    }
}

/// The line of a layer.
fn layer(module: &Module, groups: &Groups, selection: &Selection, weight: &WeightUse) -> LayerLine {
    let op = weight.op;
    let y = module.op(op).result();
    let edge = groups.edges.iter().find(|e| e.op == op);
    let read = edge.and_then(|e| {
        Some((module.op(op).operand(e.operand)?, groups.operand(module, op, e.operand)?, e.axis))
    });
    let made = weight.made.map(|axis| (y, groups.tensor(y), axis));
    let carried = |of: Option<(ValueId, Slot, usize)>| {
        let (_, slot, axis) = of?;
        groups.axes_of(slot)?.get(axis).copied()
    };
    let left = |axis: Axis| selection.of(axis).map(|kept| kept.len() as u64);
    let extent = |of: Option<(ValueId, Slot, usize)>| {
        let whole = of.and_then(|(value, _, axis)| extents(module, value).get(axis).copied()).unwrap_or(0);
        (whole, carried(of).and_then(left).unwrap_or(whole))
    };
    LayerLine {
        name: module.label(op).to_owned(),
        op: module.op_name(op),
        reads: extent(read),
        makes: extent(made),
        macs: (multiply_adds(module, op), multiply_adds_left(module, groups, &left, op)),
        kept: carried(made).and_then(|a| groups.why_kept(a)).map(|r| r.words(module)),
    }
}
