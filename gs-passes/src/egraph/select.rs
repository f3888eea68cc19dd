//! A choice of one node for each class that is needed. Shared nodes count once, and all roots are looked at together.
//! It starts at the network as it is; [`super::improve`] makes it cheaper.

use super::cost::Costs;
use super::facts::{Net, attrs_of, is_absent};
use super::history::canonical;
use super::language::{Head, Node};
use super::load::Loaded;
use super::view::{kind_of, operands_of};
use egg::Id;
use gs_ir::{Fact, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// A way to make a class.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The node, with the names that classes have at the end.
    pub(super) node: Node,
    /// The classes it needs, each once, by number.
    pub(super) needs: Vec<u32>,
    pub(super) cost: u64,
}

/// The classes of a finished e-graph with their choices.
pub(super) struct Selection {
    /// By number of the class: its ways.
    pub(super) choices: Vec<Vec<Choice>>,
    /// The number of each class.
    numbers: FxHashMap<Id, u32>,
    pub(super) chosen: Vec<Option<u32>>,
    /// How many chosen, needed nodes (and roots) need a class.
    pub(super) refs: Vec<u32>,
    /// No class stands before what it needs.
    pub(super) order: Vec<u64>,
    roots: Vec<u32>,
    pub(super) total: u64,
}

/// What an attempt changed, for going back.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) refs: Vec<(u32, u32)>,
    pub(super) chosen: Vec<(u32, Option<u32>)>,
}

impl Selection {
    /// The choice that the network itself is: of each class the first operation of it.
    pub(super) fn new(loaded: &Loaded<'_>, costs: &Costs) -> Self {
        let net = &loaded.net;
        let mut ids: Vec<Id> = net.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let numbers: FxHashMap<Id, u32> = ids.iter().enumerate().map(|(i, id)| (*id, i as u32)).collect();
        let choices: Vec<Vec<Choice>> = ids.iter().map(|id| choices(net, *id, &numbers, costs)).collect();
        let n = ids.len();
        let mut roots: Vec<u32> =
            loaded.roots.iter().filter_map(|r| numbers.get(&net.find(*r)).copied()).collect();
        roots.sort_unstable();
        roots.dedup();
        let (chosen, refs, order) = (vec![None; n], vec![0; n], vec![0; n]);
        let mut selection = Selection { choices, numbers, chosen, refs, order, roots, total: 0 };
        selection.begin(loaded);
        selection
    }

    fn begin(&mut self, loaded: &Loaded<'_>) {
        for class in 0..self.choices.len() {
            // A leaf is there anyway, whatever else makes the class.
            let leaf = self.choices[class].iter().position(|c| matches!(c.node.head, Head::Leaf(_)));
            self.chosen[class] = leaf.map(|i| i as u32);
        }
        for (at, op) in loaded.ops.iter().enumerate() {
            let at = 2 * at as u64 + 1;
            self.take(&loaded.net, op.class, &op.node, at);
            for (_, part, number) in &op.results {
                if let Some(i) = number {
                    self.take(&loaded.net, *part, &Node::proj(*i, op.class), at + 1);
                }
            }
        }
        let mut journal = Journal::default();
        for root in self.roots.clone() {
            self.total = self.total.saturating_add(self.acquire(root, &mut journal));
        }
    }

    fn take(&mut self, net: &Net<'_>, id: Id, node: &Node, at: u64) {
        let Some(class) = self.number(net, id) else { return };
        let class = class as usize;
        if self.chosen[class].is_none() {
            let node = canonical(net, node);
            self.chosen[class] = self.choices[class].iter().position(|c| c.node == node).map(|i| i as u32);
            self.order[class] = at;
        }
    }

    /// The number of a class.
    pub(super) fn number(&self, net: &Net<'_>, id: Id) -> Option<u32> {
        self.numbers.get(&net.find(id)).copied()
    }

    /// The choice of a class that is needed.
    pub(super) fn chosen(&self, class: u32) -> Option<&Choice> {
        if self.refs[class as usize] == 0 {
            return None;
        }
        self.choice(class)
    }

    /// The classes that must be computed.
    pub(super) fn roots(&self) -> &[u32] {
        &self.roots
    }

    /// The cost of what is needed.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn choice(&self, class: u32) -> Option<&Choice> {
        let i = self.chosen[class as usize]?;
        self.choices[class as usize].get(i as usize)
    }

    pub(super) fn is_leaf(&self, class: u32) -> bool {
        self.choice(class).is_some_and(|c| matches!(c.node.head, Head::Leaf(_)))
    }

    pub(super) fn needs(&self, class: u32) -> Vec<u32> {
        self.choice(class).map(|c| c.needs.clone()).unwrap_or_default()
    }

    /// Needs a class once more; gives what that adds to the cost.
    pub(super) fn acquire(&mut self, class: u32, journal: &mut Journal) -> u64 {
        let mut added = 0u64;
        let mut pending = vec![class];
        while let Some(c) = pending.pop() {
            let refs = &mut self.refs[c as usize];
            journal.refs.push((c, *refs));
            *refs += 1;
            if *refs == 1
                && let Some(choice) = self.choice(c)
            {
                added = added.saturating_add(choice.cost);
                pending.extend_from_slice(&choice.needs);
            }
        }
        added
    }

    /// Needs a class once less; gives what that takes from the cost.
    pub(super) fn release(&mut self, class: u32, journal: &mut Journal) -> u64 {
        let mut freed = 0u64;
        let mut pending = vec![class];
        while let Some(c) = pending.pop() {
            let refs = &mut self.refs[c as usize];
            journal.refs.push((c, *refs));
            *refs = refs.saturating_sub(1);
            if *refs == 0
                && let Some(choice) = self.choice(c)
            {
                freed = freed.saturating_add(choice.cost);
                pending.extend_from_slice(&choice.needs);
            }
        }
        freed
    }

    pub(super) fn roll_back(&mut self, journal: Journal) {
        for (class, refs) in journal.refs.into_iter().rev() {
            self.refs[class as usize] = refs;
        }
        for (class, chosen) in journal.chosen.into_iter().rev() {
            self.chosen[class as usize] = chosen;
        }
    }
}

/// The cost of the network as it is: of the operations that its results need, copies counted each.
pub(super) fn original_cost(loaded: &Loaded<'_>, costs: &Costs) -> u64 {
    let mut needed: FxHashSet<ValueId> = loaded.root_values.iter().copied().collect();
    let mut total = 0u64;
    for op in loaded.ops.iter().rev() {
        if op.results.iter().any(|(v, ..)| needed.contains(v)) {
            needed.extend(op.reads.iter().copied());
            total = total.saturating_add(cost_of(&loaded.net, op.class, &op.node, costs));
        }
    }
    total
}

/// The ways to make a class.
fn choices(net: &Net<'_>, id: Id, numbers: &FxHashMap<Id, u32>, costs: &Costs) -> Vec<Choice> {
    let mut out = Vec::new();
    for node in &net[id].nodes {
        let children: &[Id] = match node.head {
            Head::Absent | Head::Attrs(_) => continue,
            Head::Leaf(_) => &[],
            Head::Proj(_) => &node.children,
            Head::Op(..) | Head::Pinned(_) => node.children.get(1..).unwrap_or(&[]),
        };
        let mut needs: Vec<u32> = Vec::with_capacity(children.len());
        for child in children.iter().filter(|c| !is_absent(net, **c)) {
            let Some(&n) = numbers.get(&net.find(*child)) else { continue };
            if !needs.contains(&n) {
                needs.push(n);
            }
        }
        // What needs itself is no way to make it.
        if numbers.get(&id).is_some_and(|n| needs.contains(n)) {
            continue;
        }
        out.push(Choice { node: canonical(net, node), needs, cost: cost_of(net, id, node, costs) });
    }
    out
}

fn cost_of(net: &Net<'_>, id: Id, node: &Node, costs: &Costs) -> u64 {
    let Some(kind) = kind_of(net, node) else { return 0 };
    let module = &*net.analysis.module;
    let data = &net[id].data;
    let results: Vec<&Fact> = data.tuple.as_ref().map_or_else(|| vec![&data.fact], |t| t.iter().collect());
    let operands: Vec<Option<&Fact>> =
        operands_of(net, node).into_iter().map(|o| o.map(|c| &net[c].data.fact)).collect();
    let attrs = node.attrs().and_then(|a| attrs_of(net, a));
    let empty = gs_ir::AttrSet::new();
    let attrs = attrs.map_or(&empty, |a| module.attr_set(a));
    costs.operation(module.registry().decl(kind), attrs, &operands, &results, data.foldable)
}
