//! Branches that can go whole: a residual block of which every inner channel is dropped adds nothing any more, so that
//! its sum is the other operand.

use super::labels::Atom;
use super::members::{Group, Groups};
use gs_ir::{Module, OpId, Rewriter, Use};
use rustc_hash::FxHashSet;

/// A sum that becomes its other operand when a branch goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// The sum.
    pub sum: OpId,
    /// Place of the operand that it becomes.
    pub other: usize,
    /// What leads from the channels to the sum.
    pub chain: Vec<OpId>,
}

impl Groups {
    /// The sums that every reader of a group ends in, where these are all that depends on it: then the whole group can
    /// go. None where some reader leads elsewhere.
    pub fn branches(&self, module: &Module, group: &Group) -> Option<Vec<Branch>> {
        let inner: FxHashSet<Atom> = group.atoms.iter().copied().collect();
        let mut branches: Vec<Branch> = Vec::new();
        for edge in &self.edges {
            let axis = self
                .operand(module, edge.op, edge.operand)
                .and_then(|s| self.axes_of(s)?.get(edge.axis).copied());
            let Some(atoms) = axis.and_then(|a| self.atoms_of(a)) else { continue };
            if !atoms.iter().flatten().any(|a| inner.contains(a)) {
                continue;
            }
            // Channels of others that are read together with these would be read in vain.
            if !atoms.iter().all(|of| of.iter().any(|a| inner.contains(a))) {
                return None;
            }
            let branch = self.end_of(module, edge.op)?;
            if !branches.contains(&branch) {
                branches.push(branch);
            }
        }
        // A channel that is summed away nowhere leaves in another way.
        (!branches.is_empty()).then_some(branches)
    }

    /// Follows a chain of single uses to the sum that it ends in.
    fn end_of(&self, module: &Module, from: OpId) -> Option<Branch> {
        let mut op = from;
        let mut chain = Vec::new();
        loop {
            chain.push(op);
            let value = module.op(op).result();
            if module.op(op).results().len() != 1 || !module.op(op).regions().is_empty() {
                return None;
            }
            let Use::Operand(next, place) = module.only_use(value)? else { return None };
            if module.is(next, "add") {
                let at = 1 - place as usize;
                let other = module.op(next).operand(at)?;
                // What is broadcast by the branch would shrink without it; a constant is no way past it.
                let fits = module.type_of(other) == module.type_of(module.op(next).result());
                return (fits && module.as_global(other).is_none()).then_some(Branch {
                    sum: next,
                    other: at,
                    chain,
                });
            }
            // All else that it reads is a weight: nothing but this chain depends on it.
            let alone =
                module.op(next).present_operands().all(|v| v == value || module.as_global(v).is_some());
            if !alone {
                return None;
            }
            op = next;
        }
    }
}

/// Lets a sum be its other operand; what made the branch is dead then.
pub(crate) fn bypass(rewriter: &mut Rewriter<'_>, branch: &Branch) {
    let other = rewriter.op(branch.sum).operand(branch.other).filter(|_| rewriter.op(branch.sum).is_live());
    if let Some(other) = other {
        let reason = Some("all channels of the branch that it adds were dropped");
        let entry = rewriter.entry("removed", "prune", None, reason);
        rewriter.replace(branch.sum, &[other], None, entry);
    }
}
