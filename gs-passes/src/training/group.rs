//! Parameter groups: parameters that an optimiser changes in another way than the rest.

use super::Optimiser;
use crate::glob::glob_matches;
use crate::manager::PassError;
use gs_ir::{At, Attr, AttrSet, GlobalId, GraphId, Module, Rewriter, ValueId};
use serde::{Deserialize, Serialize};

/// Parameters and how they are changed; what is absent is as for the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParamGroup {
    /// Names of parameters, or globs.
    pub params: Vec<String>,
    /// How they are changed.
    pub optimiser: Option<Optimiser>,
    /// Their learning rate, which follows the schedule of the rest.
    pub lr: Option<f32>,
    /// Their decay, whatever they are.
    pub weight_decay: Option<f32>,
    /// What they are raised to after each step where they are below it.
    pub min: Option<f32>,
    /// What they are lowered to after each step where they are above it.
    pub max: Option<f32>,
    /// Whether names that no gradient belongs to are passed over. Algorithms name what they made, and the loss may not
    /// depend on all of it (a second head); of names that people write, one that is not there is a mistake.
    pub optional: bool,
}

impl ParamGroup {
    /// A new parameter within the bounds.
    pub(super) fn clamp(
        &self,
        rewriter: &mut Rewriter<'_>,
        graph: GraphId,
        value: ValueId,
    ) -> Result<ValueId, PassError> {
        let mut limits = AttrSet::new();
        for (name, limit) in [("min", self.min), ("max", self.max)] {
            limit.into_iter().for_each(|l| limits.set(name, Attr::float(l)));
        }
        if limits == AttrSet::new() {
            return Ok(value);
        }
        Ok(rewriter.emit("clip", &[value], limits, At::End(graph))?)
    }
}

/// The group of each parameter, by number.
///
/// # Errors
/// A name that is none of theirs, unless the group is optional.
pub(super) fn assign(
    module: &Module,
    groups: &[ParamGroup],
    params: impl Iterator<Item = GlobalId>,
) -> Result<Vec<Option<usize>>, PassError> {
    let names: Vec<&str> = params.map(|g| module.str(module.global(g).name)).collect();
    for wanted in groups.iter().filter(|g| !g.optional).flat_map(|g| &g.params) {
        if !names.iter().any(|n| glob_matches(wanted, n)) {
            let there = names.join(", @");
            return Err(format!("no trained parameter is named `{wanted}`; there are @{there}").into());
        }
    }
    let of = |name: &&str| groups.iter().position(|g| g.params.iter().any(|p| glob_matches(p, name)));
    Ok(names.iter().map(of).collect())
}
