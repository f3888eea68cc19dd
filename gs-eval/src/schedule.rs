//! Which operations of a graph matter, in order, and when each value is let go.

use crate::evaluator::{Evaluator, Function};
use crate::exec::ExecError;
use gs_ir::{Def, GraphId, Module, OpId, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Deeper nests of regions are refused: they would take the program's stack.
const MAX_DEPTH: usize = 64;

/// An operation to be evaluated.
pub(crate) struct Step {
    pub(crate) op: OpId,
    pub(crate) function: Function,
    /// Values that nothing reads afterwards.
    pub(crate) drops: Vec<ValueId>,
}

/// The steps of graphs: of one graph or one operation, and of the regions in it.
pub(crate) struct Schedule<'a> {
    pub(crate) evaluator: &'a Evaluator,
    pub(crate) module: &'a Module,
    /// Values to be watched.
    pub(crate) taps: FxHashSet<ValueId>,
    steps: FxHashMap<GraphId, Vec<Step>>,
}

impl<'a> Schedule<'a> {
    /// Nothing yet.
    pub(crate) fn new(evaluator: &'a Evaluator, module: &'a Module, taps: FxHashSet<ValueId>) -> Self {
        Self { evaluator, module, taps, steps: FxHashMap::default() }
    }

    /// The steps of a graph.
    pub(crate) fn of(&self, graph: GraphId) -> &[Step] {
        self.steps.get(&graph).map_or(&[], Vec::as_slice)
    }

    /// The step of an operation, after those of its regions.
    ///
    /// # Errors
    /// An operation that has no evaluation; regions that are nested too deeply.
    pub(crate) fn step(&mut self, op: OpId, drops: Vec<ValueId>, depth: usize) -> Result<Step, ExecError> {
        let module = self.module;
        for &region in module.op(op).regions() {
            self.graph(region, depth + 1)?;
        }
        let name = module.op_name(op);
        let function = self.evaluator.function(name).ok_or_else(|| ExecError::Unsupported {
            op: module.opaque_name(op).unwrap_or(name).to_owned(),
            label: module.label(op).to_owned(),
        })?;
        Ok(Step { op, function, drops })
    }

    /// Lists the operations of a graph that results, updates or taps need, and where values are read last.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) fn graph(&mut self, graph: GraphId, depth: usize) -> Result<(), ExecError> {
        if depth > MAX_DEPTH {
            return Err(ExecError::Depth(MAX_DEPTH));
        }
        let module = self.module;
        let g = module.graph(graph);
        let mut live: FxHashSet<ValueId> = g.results().chain(g.updates().map(|(_, v)| v)).collect();
        let ops: Vec<OpId> = module.ops_in(graph).collect();
        let mut steps = Vec::new();
        for &op in ops.iter().rev() {
            let results = module.op(op).results().iter().filter_map(|v| v.some());
            if !results.clone().any(|v| live.contains(&v)) && !makes_any(module, op, &self.taps) {
                continue;
            }
            let mut drops: Vec<ValueId> = results.filter(|v| !live.contains(v)).collect();
            for v in reads(module, op) {
                if live.insert(v) && home(module, v) == Some(graph) {
                    drops.push(v);
                }
            }
            steps.push(self.step(op, drops, depth)?);
        }
        steps.reverse();
        self.steps.insert(graph, steps);
        Ok(())
    }

    /// The globals that the steps read, that are results or updates, or that are watched; in order.
    pub(crate) fn globals(&self) -> Vec<ValueId> {
        let module = self.module;
        let mut values: Vec<ValueId> = self.taps.iter().copied().collect();
        for (&graph, steps) in &self.steps {
            let g = module.graph(graph);
            values.extend(g.results().chain(g.updates().map(|(_, v)| v)));
            values.extend(steps.iter().flat_map(|s| module.op(s.op).present_operands()));
        }
        values.retain(|&v| module.as_global(v).is_some());
        // Sorted, so that the first error does not depend on hash order.
        values.sort_unstable();
        values.dedup();
        values
    }
}

/// The graph in which a value is defined; `None` for a global.
pub(crate) fn home(module: &Module, value: ValueId) -> Option<GraphId> {
    match module.value(value).def {
        Def::Result(op, _) => Some(module.op(op).graph),
        Def::Param(graph, _) => Some(graph),
        Def::Global(_) | Def::Erased => None,
    }
}

/// What an operation reads: its operands, and what its regions read, values of their own among them.
pub fn reads(module: &Module, op: OpId) -> Vec<ValueId> {
    let mut reads: Vec<ValueId> = module.op(op).present_operands().collect();
    let mut pending = module.op(op).regions().to_vec();
    while let Some(graph) = pending.pop() {
        reads.extend(module.graph(graph).results());
        for inner in module.ops_in(graph) {
            reads.extend(module.op(inner).present_operands());
            pending.extend(module.op(inner).regions());
        }
    }
    reads
}

/// Whether an operation, or one in its regions, makes one of these values.
pub fn makes_any(module: &Module, op: OpId, values: &FxHashSet<ValueId>) -> bool {
    if values.is_empty() {
        return false;
    }
    let mut pending = vec![op];
    while let Some(op) = pending.pop() {
        if module.op(op).results().iter().any(|v| values.contains(v)) {
            return true;
        }
        for &region in module.op(op).regions() {
            if module.graph(region).params().iter().any(|v| values.contains(v)) {
                return true;
            }
            pending.extend(module.ops_in(region));
        }
    }
    false
}
