//! Brings one graph of a module into an e-graph.

use super::facts::{Facts, Net};
use super::language::{Head, Node};
use egg::Id;
use gs_ir::registry::Traits;
use gs_ir::{Def, Fact, GraphId, Module, OpId, ValueId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// An operation as it was loaded.
pub(super) struct LoadedOp {
    /// The operation.
    pub(super) op: OpId,
    /// Its node.
    pub(super) node: Node,
    /// The values that it and its regions read.
    pub(super) reads: Vec<ValueId>,
    /// The class of that node.
    pub(super) class: Id,
    /// The results that are there, each with its class and, where the operation is a tuple, its number.
    pub(super) results: Vec<(ValueId, Id, Option<usize>)>,
}

/// A graph in an e-graph.
pub(super) struct Loaded<'m> {
    /// The e-graph.
    pub(super) net: Net<'m>,
    /// The operations in order.
    pub(super) ops: Vec<LoadedOp>,
    /// The class of each value of the graph, and of each value from outside that it reads.
    classes: FxHashMap<ValueId, Id>,
    /// The values that must stay computed: what the graph returns and stores.
    pub(super) root_values: Vec<ValueId>,
    /// Their classes.
    pub(super) roots: Vec<Id>,
    /// The absent operand.
    absent: Id,
}

impl<'m> Loaded<'m> {
    pub(super) fn new(module: &'m mut Module, graph: GraphId) -> Self {
        let order: Vec<OpId> = module.ops_in(graph).collect();
        let mut net = Net::new(Facts::new(module));
        let absent = net.add(Node::leaf(Head::Absent));
        let (ops, root_values, roots) = (Vec::new(), Vec::new(), Vec::new());
        let mut loaded = Loaded { net, ops, classes: FxHashMap::default(), root_values, roots, absent };
        for op in order {
            loaded.operation(op);
        }
        let module = &*loaded.net.analysis.module;
        let data = module.graph(graph);
        let roots: Vec<ValueId> = data.results().chain(data.updates().map(|(_, v)| v)).collect();
        loaded.roots = roots.iter().map(|v| loaded.class(*v)).collect();
        loaded.root_values = roots;
        loaded.net.rebuild();
        loaded
    }

    /// The class of a value; what no operation of this graph makes is a leaf.
    fn class(&mut self, value: ValueId) -> Id {
        if let Some(&id) = self.classes.get(&value) {
            return id;
        }
        let id = self.net.add(Node::leaf(Head::Leaf(value)));
        self.classes.insert(value, id);
        id
    }

    fn operation(&mut self, op: OpId) {
        let module = &*self.net.analysis.module;
        let (kind, attrs) = (module.op(op).kind, module.op(op).attrs);
        let operands: Vec<Option<ValueId>> = module.op(op).operands().collect();
        let results: Vec<ValueId> = module.op(op).results().to_vec();
        let head =
            if is_pinned(module, op) { Head::Pinned(op) } else { Head::Op(kind, results.len() as u32) };
        let captured = captured(module, op);
        let reads: Vec<ValueId> = operands.iter().flatten().chain(&captured).copied().collect();
        let stored: Vec<Fact> = results
            .iter()
            .map(|v| Fact::of(v.some().map_or(gs_ir::Type::Any, |v| module.type_of(v).clone())))
            .collect();
        let mut children: SmallVec<[Id; 5]> = SmallVec::new();
        children.push(self.net.add(Node::leaf(Head::Attrs(attrs))));
        for operand in operands {
            let id = operand.map_or(self.absent, |v| self.class(v));
            children.push(id);
        }
        for value in captured {
            let id = self.class(value);
            children.push(id);
        }
        let node = Node { head, children };
        self.net.analysis.stored = Some(stored);
        let id = self.net.add(node.clone());
        self.net.analysis.stored = None;
        let mut parts = Vec::with_capacity(results.len());
        if let [one] = results[..] {
            parts.extend(one.some().map(|v| (v, id, None)));
        } else {
            for (i, v) in results.into_iter().enumerate().filter(|(_, v)| !v.is_none()) {
                let part = self.net.add(Node::proj(i, id));
                parts.push((v, part, Some(i)));
            }
        }
        self.classes.extend(parts.iter().map(|(v, part, _)| (*v, *part)));
        self.ops.push(LoadedOp { op, node, reads, class: id, results: parts });
    }
}

/// Whether an operation is equal to itself only.
fn is_pinned(module: &Module, op: OpId) -> bool {
    let traits = module.decl(op).traits;
    // One of which some results were left out is no copy of one that has them all.
    let partial = module.op(op).results().iter().any(|v| v.is_none());
    !traits.has(Traits::PURE) || traits.has(Traits::RANDOM) || !module.op(op).regions().is_empty() || partial
}

/// What the regions of an operation read of the graph that it stands in, in order, each once.
fn captured(module: &Module, op: OpId) -> Vec<ValueId> {
    let graph = module.op(op).graph;
    let mut out = Vec::new();
    let mut add = |v: ValueId| {
        let here = match module.value(v).def {
            Def::Result(maker, _) => module.op(maker).graph == graph,
            Def::Param(g, _) => g == graph,
            Def::Global(_) | Def::Erased => false,
        };
        if here && !out.contains(&v) {
            out.push(v);
        }
    };
    let mut pending = module.op(op).regions().to_vec();
    while let Some(region) = pending.pop() {
        for inner in module.ops_in(region) {
            module.op(inner).present_operands().for_each(&mut add);
            pending.extend_from_slice(module.op(inner).regions());
        }
        let data = module.graph(region);
        data.results().chain(data.updates().map(|(_, v)| v)).for_each(&mut add);
    }
    out
}
