//! What was found, in words: for tables, the ledger and messages.

use super::axes::Axis;
use super::members::Groups;
use super::solver::{LONGEST, Reason};
use gs_ir::{GlobalId, Module};

/// An axis of a weight of which nothing may be dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptAxis {
    /// The weight.
    pub global: GlobalId,
    /// The axis.
    pub axis: usize,
    /// Its extent.
    pub extent: i64,
    /// Why, as a sentence.
    pub why: String,
}

impl Reason {
    /// The reason in words.
    pub fn words(&self, module: &Module) -> String {
        match self {
            Reason::Cuts => "it is cut in two ways that do not fit each other".to_owned(),
            Reason::Single => "it has one element".to_owned(),
            Reason::Long => format!("it is longer than {LONGEST}"),
            Reason::Dynamic => "its extent is no number".to_owned(),
            Reason::Input => "it is an input of the network".to_owned(),
            Reason::Output => "it is an output of the network".to_owned(),
            Reason::Fixed { op, name } => {
                format!("{} `{}` keeps its `{name}` as it is", module.op_name(*op), module.label(*op))
            }
            Reason::Opaque { op } => {
                let name = module.opaque_name(*op).unwrap_or(module.op_name(*op));
                format!("nothing is known of how {name} `{}` couples its axes", module.label(*op))
            }
            Reason::Shape { op } => {
                let name = module.op_name(*op);
                format!("the axes of {name} `{}` do not meet one to one", module.label(*op))
            }
            Reason::Captured { op } => {
                format!("the body of {} `{}` reads it", module.op_name(*op), module.label(*op))
            }
        }
    }
}

impl Groups {
    /// The axes of weights of which nothing may be dropped, but for those of one element. Spatial extents of kernels are
    /// left out: nobody would drop these.
    pub fn kept_axes(&self, module: &Module) -> Vec<KeptAxis> {
        let mut kept = Vec::new();
        for (id, global) in module.globals() {
            let Some(axes) = self.axes_of(self.tensor(global.value)) else { continue };
            let dims = module.ty(global.ty).dims().unwrap_or(&[]);
            for (axis, (&carried, dim)) in axes.iter().zip(dims).enumerate() {
                let extent = dim.as_const().unwrap_or(0);
                let Some(reason) = self.why_kept(carried) else { continue };
                let is_kernel = matches!(reason, Reason::Fixed { name: "w", .. }) && axis > 1;
                if extent > 1 && !is_kernel && !matches!(carried, Axis::Run(_) if self.is_in_group(carried)) {
                    kept.push(KeptAxis { global: id, axis, extent, why: reason.words(module) });
                }
            }
        }
        kept
    }

    fn is_in_group(&self, axis: Axis) -> bool {
        self.atoms_of(axis).is_some_and(|atoms| atoms.iter().any(|a| !a.is_empty()))
    }
}
