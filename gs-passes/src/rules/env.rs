//! What a pass tells its rules: which layers a user selected, with what configuration, and which tensors share
//! a grid. Rules ask through conditions and functions; the engine itself knows none of it.

use gs_ir::{Attr, Module, OpId, ValueId};
use std::sync::Arc;

/// What a configuration is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A layer.
    Op(OpId),
    /// A tensor.
    Value(ValueId),
}

/// A set of tensors that must share one grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridClass {
    /// Its number; equal for all members.
    pub id: u32,
    /// The values on which quantisers stand: where data enter the class.
    pub entries: Arc<[ValueId]>,
    /// The name of the class: of what makes its first entry.
    pub name: String,
}

/// What a pass knows beyond the module. The analyses behind it are made before the rules run; values that did not
/// exist then are unknown to it.
pub trait RuleEnv {
    /// Whether the user's selectors take in an operation.
    fn selected(&self, module: &Module, op: OpId) -> bool {
        let _ = (module, op);
        true
    }

    /// Whether a value must be put on a grid.
    fn needs_grid(&self, module: &Module, value: ValueId) -> bool {
        let _ = (module, value);
        false
    }

    /// The grid class of a value; `None` where it is on no grid.
    fn class_of(&self, module: &Module, value: ValueId) -> Option<GridClass> {
        let _ = (module, value);
        None
    }

    /// The configuration of a layer or a tensor under a key.
    fn cfg(&self, module: &Module, site: Site, key: &str) -> Option<Attr> {
        let _ = (module, site, key);
        None
    }
}

/// Knows nothing: everything is selected, nothing is configured and no value is on a grid.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEnv;

impl RuleEnv for NoEnv {}
