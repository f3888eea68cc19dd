//! What pruning did: a line for each layer, and the sums.

use super::choose::Choice;
use super::cost::Sums;
use crate::groups::{Axis, Groups, Selection};
use gs_ir::{Module, OpId};
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
        let mut layers: Vec<LayerLine> = Vec::new();
        for (edge, weight) in groups.edges.iter().filter_map(|e| {
            let weight = groups.weights.iter().find(|w| w.op == e.op)?;
            Some((e, weight))
        }) {
            let op = edge.op;
            let reads = groups
                .operand(module, op, edge.operand)
                .and_then(|s| groups.axes_of(s)?.get(edge.axis).copied());
            let y = module.op(op).result();
            let made = groups.axes_of(groups.tensor(y)).unwrap_or(&[]);
            let is_product =
                module.decl(op).operand_index("b") == Some(weight.operand) && !module.is(op, "conv");
            let makes = if is_product { made.last() } else { made.get(1) }.copied();
            let extent = |axis: Option<Axis>, whole: Option<i64>| {
                let whole = axis
                    .and_then(|a| groups.atoms_of(a))
                    .map_or(whole.unwrap_or(0) as u64, |a| a.len() as u64);
                let left = axis.and_then(|a| selection.of(a)).map_or(whole, |k| k.len() as u64);
                (whole, left)
            };
            let dim = |value, at: usize| module.type_of(value).dims()?.get(at)?.as_const();
            let x = module.op(op).operand(edge.operand);
            let at = if is_product { made.len().saturating_sub(1) } else { 1 };
            layers.push(LayerLine {
                name: module.label(op).to_owned(),
                op: module.op_name(op),
                reads: extent(reads, x.and_then(|x| dim(x, edge.axis))),
                makes: extent(makes, dim(y, at)),
                macs: (macs(module, groups, None, op), macs(module, groups, Some(selection), op)),
                kept: makes.and_then(|a| groups.why_kept(a)).map(|r| r.words(module)),
            });
        }
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

fn macs(module: &Module, groups: &Groups, selection: Option<&Selection>, op: OpId) -> u64 {
    let cut = |axes: Option<&[Axis]>, mut whole: Vec<u64>| {
        for (extent, &axis) in whole.iter_mut().zip(axes.unwrap_or(&[])) {
            if let Some(kept) = selection.and_then(|s| s.of(axis)) {
                *extent = kept.len() as u64;
            }
        }
        whole
    };
    let operand = |place: usize| match module.op(op).operand(place) {
        Some(v) => cut(
            groups.operand(module, op, place).and_then(|s| groups.axes_of(s)),
            gs_passes::cost::extents(module, v),
        ),
        None => Vec::new(),
    };
    let y = module.op(op).result();
    let result = cut(groups.axes_of(groups.tensor(y)), gs_passes::cost::extents(module, y));
    gs_passes::cost::multiply_adds_of(module, op, &operand, &result)
}
