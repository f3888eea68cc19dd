//! Coupled groups: which channels of a network go together. Pruning drops whole atoms of a group: an index on every axis
//! of every tensor, weight or not, that this index reaches.
//!
//! The formulation is one of labels: every element of every axis has a set of atoms and is kept as long as none of them
//! goes. Each operation states how its axes are tied by the axis rule of its declaration
//! ([`gs_ir::ops::axis_rule`]); one sweep turns that into unions. What is not understood is kept, with the reason. The
//! result does not depend on where one starts.

mod axes;
mod branch;
mod labels;
mod members;
mod report;
mod rules;
mod select;
mod solver;

pub use axes::{Axes, Axis, Run, Slot};
pub use branch::Branch;
pub(crate) use branch::bypass;
pub use labels::{Atom, Atoms, Label, Labels, Why};
pub use members::{Group, Groups, GroupsError, Member};
pub use report::KeptAxis;
pub use select::{SelectError, Selection};
pub use solver::{Count, Edge, LONGEST, Reason, WeightUse};
