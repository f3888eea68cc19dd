//! A module as conditions and functions see it.

use super::contents;
use super::functions::{GraphView, View};
use gs_ir::{AttrSet, Global, Module, OpId, OpKind, Registry, TensorData, Type, ValueId};

/// A module with the operations of a match.
pub struct ModuleView<'a> {
    /// The module.
    pub module: &'a Module,
    /// The operations of the match.
    pub matched: &'a [OpId],
}

impl View for ModuleView<'_> {
    fn registry(&self) -> &Registry {
        self.module.registry()
    }

    fn type_of(&self, value: ValueId) -> &Type {
        self.module.type_of(value)
    }

    fn global(&self, value: ValueId) -> Option<&Global> {
        self.module.as_global(value).map(|g| self.module.global(g))
    }

    fn weight_only(&self, value: ValueId) -> bool {
        crate::grid::weight_only(self.module, value)
    }

    fn kind(&self, op: OpId) -> OpKind {
        self.module.op(op).kind
    }

    fn attrs(&self, op: OpId) -> &AttrSet {
        self.module.attrs_of(op)
    }

    fn operands(&self, op: OpId) -> Vec<Option<ValueId>> {
        self.module.op(op).operands().collect()
    }

    fn evaluated(&self, value: ValueId) -> Option<TensorData> {
        contents::evaluate(self.module, self.module.as_global(value)?)
    }

    fn graph(&self) -> Option<GraphView<'_>> {
        Some(GraphView { module: self.module, matched: self.matched })
    }
}
