//! The phase of a module: computed from the operations that are present, never stored.

use crate::global::Role;
use crate::module::Module;
use crate::registry::Traits;
use std::fmt;

/// How far a network is on its way from float to integers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// No quantiser and no integer operator.
    Float,
    /// Some quantiser still has a range that is observed or learned.
    Instrumented,
    /// Every quantiser has constant parameters.
    Frozen,
    /// Integer operators compute.
    Deployed,
}

impl Phase {
    /// All phases, in order of progress.
    pub const ALL: [Phase; 4] = [Phase::Float, Phase::Instrumented, Phase::Frozen, Phase::Deployed];

    /// The word used in text and messages.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Float => "float",
            Phase::Instrumented => "instrumented",
            Phase::Frozen => "frozen",
            Phase::Deployed => "deployed",
        }
    }

    /// The phase of a module, over all its entry points.
    ///
    /// A module that mixes observed quantisers with others is instrumented; one that has an integer operator
    /// beside frozen quantisers is deployed (what stayed in float between quantisers is the ledger's business).
    pub fn of(module: &Module) -> Phase {
        let mut phase = Phase::Float;
        for op in module.all_ops() {
            let traits = module.decl(op).traits;
            let here = if traits.has(Traits::INTEGER) {
                Phase::Deployed
            } else if !traits.has(Traits::QUANTISER) {
                continue;
            } else if is_observed(module, op) {
                return Phase::Instrumented;
            } else {
                Phase::Frozen
            };
            phase = phase.max(here);
        }
        phase
    }
}

/// Whether a quantiser has a parameter that is not a constant: observed, learned or computed in the graph.
fn is_observed(module: &Module, op: crate::OpId) -> bool {
    module.op(op).operands().skip(1).flatten().any(|v| match module.as_global(v) {
        Some(g) => module.global(g).role != Role::Const || module.is_written(g),
        None => true,
    })
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
