//! An e-graph as conditions and functions of rules see it: a "value" is a class, an "operation" is a node.

use super::facts::{Data, Net, attrs_of, is_absent, operand_places};
use super::language::{Head, Node, Place};
use crate::rules::contents;
use crate::rules::functions::View;
use gs_ir::{AttrSet, Global, Handle, OpId, OpKind, Registry, TensorData, Type, ValueId};
use rustc_hash::FxHashMap;

/// The nodes that rules speak of as operations, while the e-graph does not change its names.
#[derive(Default)]
pub(super) struct OpTable {
    nodes: Vec<Node>,
    index: FxHashMap<Node, u32>,
}

impl OpTable {
    /// The handle of a node.
    pub(super) fn handle(&mut self, node: &Node) -> OpId {
        if let Some(&i) = self.index.get(node) {
            return OpId::from_index(i as usize);
        }
        let i = self.nodes.len();
        self.nodes.push(node.clone());
        self.index.insert(node.clone(), i as u32);
        OpId::from_index(i)
    }

    /// The node behind a handle.
    pub(super) fn node(&self, op: OpId) -> Option<&Node> {
        self.nodes.get(op.index())
    }
}

/// The e-graph, with nodes that are only planned.
pub(super) struct NetView<'a, 'm> {
    pub(super) net: &'a Net<'m>,
    pub(super) ops: &'a OpTable,
    pub(super) planned: &'a [Data],
    /// What is answered about handles that stand for nothing.
    pub(super) nothing: &'a Nothing,
}

/// What is known of what is not there.
pub(super) struct Nothing {
    data: Data,
    attrs: AttrSet,
}

impl Default for Nothing {
    fn default() -> Self {
        Nothing { data: Data::nothing(), attrs: AttrSet::new() }
    }
}

impl<'a> NetView<'a, '_> {
    /// What is known of a value.
    pub(super) fn data(&self, value: ValueId) -> &'a Data {
        match Place::of(value) {
            Place::Class(id) => &self.net[id].data,
            Place::Planned(i) => self.planned.get(i).unwrap_or(&self.nothing.data),
        }
    }
}

/// The operator of an operation's node.
pub(super) fn kind_of(net: &Net<'_>, node: &Node) -> Option<OpKind> {
    match node.head {
        Head::Op(kind, _) => Some(kind),
        Head::Pinned(op) => Some(net.analysis.module.op(op).kind),
        _ => None,
    }
}

/// The operands of an operation's node, absent ones as `None`.
pub(super) fn operands_of(net: &Net<'_>, node: &Node) -> Vec<Option<egg::Id>> {
    operand_places(net, node).map(|id| net.find(id)).map(|id| (!is_absent(net, id)).then_some(id)).collect()
}

impl View for NetView<'_, '_> {
    fn registry(&self) -> &Registry {
        self.net.analysis.module.registry()
    }

    fn type_of(&self, value: ValueId) -> &Type {
        &self.data(value).fact.ty
    }

    fn global(&self, value: ValueId) -> Option<&Global> {
        self.data(value).global.map(|g| self.net.analysis.module.global(g))
    }

    fn weight_only(&self, value: ValueId) -> bool {
        self.data(value).weight_only
    }

    fn kind(&self, op: OpId) -> OpKind {
        let kind = self.ops.node(op).and_then(|n| kind_of(self.net, n));
        kind.unwrap_or(OpKind::from_index(0))
    }

    fn attrs(&self, op: OpId) -> &AttrSet {
        let id = self.ops.node(op).and_then(Node::attrs).and_then(|a| attrs_of(self.net, a));
        id.map_or(&self.nothing.attrs, |id| self.net.analysis.module.attr_set(id))
    }

    fn operands(&self, op: OpId) -> Vec<Option<ValueId>> {
        let Some(node) = self.ops.node(op) else { return Vec::new() };
        operands_of(self.net, node).into_iter().map(|o| o.map(|id| Place::Class(id).handle())).collect()
    }

    fn evaluated(&self, value: ValueId) -> Option<TensorData> {
        contents::evaluate(self.net.analysis.module, self.data(value).global?)
    }

    fn same(&self, a: ValueId, b: ValueId) -> bool {
        match (Place::of(a), Place::of(b)) {
            (Place::Class(x), Place::Class(y)) => self.net.find(x) == self.net.find(y),
            (x, y) => x == y,
        }
    }
}
