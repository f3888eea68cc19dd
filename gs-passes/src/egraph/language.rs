//! A network as e-nodes. The attribute set is one leaf child, so that two operations that differ in an attribute are
//! two nodes, and nothing ever merges attribute sets. Operations with several results are tuples, of which
//! projections take one result each. What must not be merged carries its own name.

use egg::Id;
use gs_ir::{AttrsId, Handle, OpId, OpKind, ValueId};
use smallvec::SmallVec;

/// What a node is, apart from its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Head {
    /// An operand that is not there.
    Absent,
    /// An attribute set.
    Attrs(AttrsId),
    /// A value from outside: a parameter of the graph, a global, a value of an outer graph.
    Leaf(ValueId),
    /// An operation with so many results. Children: attributes, then the operand places.
    Op(OpKind, u32),
    /// An operation that is equal to itself only: random, undeclared, or with regions. Children: attributes, the
    /// operand places, then what its regions read from here.
    Pinned(OpId),
    /// One result of an operation with another number of results than one. Child: the operation.
    Proj(u32),
}

/// An e-node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    /// What it is.
    pub(super) head: Head,
    /// Its children, as [`Head`] says.
    pub(super) children: SmallVec<[Id; 5]>,
}

impl Node {
    /// A node without children.
    pub(super) fn leaf(head: Head) -> Self {
        Node { head, children: SmallVec::new() }
    }

    /// A result of an operation.
    pub(super) fn proj(index: usize, op: Id) -> Self {
        Node { head: Head::Proj(index as u32), children: [op].into_iter().collect() }
    }

    /// The operation's attributes.
    pub(super) fn attrs(&self) -> Option<Id> {
        matches!(self.head, Head::Op(..) | Head::Pinned(_)).then(|| self.children.first().copied()).flatten()
    }
}

impl egg::Language for Node {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

/// Values from here on are planned nodes that are not in the e-graph yet.
const PLANNED: usize = 1 << 31;

/// How conditions and functions of rules, which speak of values, call a class or a planned node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A class of the e-graph.
    Class(Id),
    /// A planned node.
    Planned(usize),
}

impl Place {
    /// The handle that stands for it.
    pub(super) fn handle(self) -> ValueId {
        match self {
            Place::Class(id) => ValueId::from_index(usize::from(id)),
            Place::Planned(i) => ValueId::from_index(PLANNED + i),
        }
    }

    /// What a handle stands for.
    pub(super) fn of(handle: ValueId) -> Self {
        match handle.index() {
            i if i >= PLANNED => Place::Planned(i - PLANNED),
            i => Place::Class(Id::from(i)),
        }
    }
}
