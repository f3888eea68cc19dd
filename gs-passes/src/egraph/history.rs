//! What happened, for provenance: which rule, at which operations, made which nodes. Names of classes change while
//! the e-graph grows, so the log is read at the end, when they no longer do.

use super::facts::Net;
use super::language::Node;
use egg::Language;
use gs_ir::OpId;
use rustc_hash::{FxHashMap, FxHashSet};

/// One application of a rule that changed something.
#[derive(Debug)]
pub(super) struct Step {
    /// The rule, by number in its set.
    pub(super) rule: usize,
    /// The operations of the match, the root first.
    pub(super) matched: Vec<Node>,
    /// The operations that the template made, in order.
    pub(super) made: Vec<Made>,
}

/// An operation that a template made.
#[derive(Debug)]
pub(super) struct Made {
    /// It.
    pub(super) node: Node,
    /// Whether it stands in the place of the root.
    pub(super) is_root: bool,
    /// Operations whose attributes it took over.
    pub(super) copied: Vec<Node>,
}

/// Where a node comes from, once the e-graph is finished.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Operations of the network whose attributes it took over, directly or through nodes between.
    pub(super) copied: Vec<OpId>,
    /// All operations of the network that it was made from.
    pub(super) from: Vec<OpId>,
    /// Whether it stood in the place of what was matched.
    pub(super) is_root: bool,
}

/// The log, readable by node.
pub(super) struct History<'a> {
    steps: &'a [Step],
    /// The operations of the network that a node was when it was loaded.
    loaded: FxHashMap<Node, Vec<OpId>>,
    /// The first step that made a node, and its place there.
    made: FxHashMap<Node, (usize, usize)>,
    /// The first step that matched an operation of the network, by rule.
    matched: FxHashMap<OpId, usize>,
}

impl<'a> History<'a> {
    /// Reads the log of a finished e-graph.
    pub(super) fn new<'n>(
        net: &Net<'_>,
        steps: &'a [Step],
        loaded: impl Iterator<Item = (OpId, &'n Node)>,
    ) -> Self {
        let mut by_node: FxHashMap<Node, Vec<OpId>> = FxHashMap::default();
        for (op, node) in loaded {
            by_node.entry(canonical(net, node)).or_default().push(op);
        }
        let mut made = FxHashMap::default();
        let mut matched = FxHashMap::default();
        for (i, step) in steps.iter().enumerate() {
            for (j, m) in step.made.iter().enumerate() {
                made.entry(canonical(net, &m.node)).or_insert((i, j));
            }
            for op in step.matched.iter().flat_map(|n| by_node.get(&canonical(net, n))).flatten() {
                matched.entry(*op).or_insert(step.rule);
            }
        }
        History { steps, loaded: by_node, made, matched }
    }

    /// The operations of the network that a canonical node is.
    pub(super) fn operations(&self, node: &Node) -> &[OpId] {
        self.loaded.get(node).map_or(&[], Vec::as_slice)
    }

    /// The rule that first matched an operation of the network.
    pub(super) fn rule_at(&self, op: OpId) -> Option<usize> {
        self.matched.get(&op).copied()
    }

    /// The rule that made a canonical node.
    pub(super) fn rule_of(&self, node: &Node) -> Option<usize> {
        self.made.get(node).and_then(|&(i, _)| self.steps.get(i)).map(|s| s.rule)
    }

    /// Where a canonical node that a rule made comes from.
    pub(super) fn origin(&self, net: &Net<'_>, node: &Node) -> Origin {
        let is_root = self.step(node).is_some_and(|(_, made)| made.is_root);
        let mut origin = Origin { is_root, ..Origin::default() };
        origin.copied = self.closure(net, node, |_, made| &made.copied);
        origin.from = self.closure(net, node, |step, _| &step.matched);
        origin
    }

    fn step(&self, node: &Node) -> Option<(&'a Step, &'a Made)> {
        let &(i, j) = self.made.get(node)?;
        let step = self.steps.get(i)?;
        Some((step, step.made.get(j)?))
    }

    /// The operations of the network that are reached from a node by going back through steps.
    fn closure(
        &self,
        net: &Net<'_>,
        node: &Node,
        back: fn(&'a Step, &'a Made) -> &'a Vec<Node>,
    ) -> Vec<OpId> {
        let mut found: Vec<OpId> = Vec::new();
        let mut seen: FxHashSet<Node> = FxHashSet::default();
        let mut pending = vec![node.clone()];
        while let Some(node) = pending.pop() {
            if !seen.insert(node.clone()) {
                continue;
            }
            match (self.loaded.get(&node), self.step(&node)) {
                (Some(ops), _) => found.extend(ops),
                (None, Some((step, made))) => {
                    pending.extend(back(step, made).iter().rev().map(|n| canonical(net, n)))
                }
                (None, None) => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A node with the names that its children have now.
pub(super) fn canonical(net: &Net<'_>, node: &Node) -> Node {
    node.clone().map_children(|c| net.find(c))
}
