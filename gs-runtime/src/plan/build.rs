//! Making a plan: which operations kernels run together, and which are left to the reference evaluator.

use super::fuse::fuse;
use super::layout::{Refused, lay_out};
use super::moves::{Batch, Trace};
use super::recipe::{Recipe, Site, choose};
use super::report::Why;
use super::segment::Segment;
use super::slot::{Code, Slot};
use crate::Runtime;
use gs_eval::{
    Bindings, Evaluator, ExecError, Materializer, OpPlan, Tensor, TensorSpec, bind_inputs, makes_any, reads,
};
use gs_ir::registry::Traits;
use gs_ir::{ElemType, GraphId, Module, OpId, SymbolId, Use, ValueId};
use gs_kernels::Kernels;
use rustc_hash::{FxHashMap, FxHashSet};

/// What is run after what.
pub(crate) enum Stage<'m> {
    /// Operations that kernels run, sample by sample.
    Segment(Box<Segment>),
    /// One operation, with its regions, that the reference evaluator runs on the whole batch, and why.
    Single(Box<OpPlan<'m>>, Why),
}

/// Everything that a plan is made from.
pub(crate) struct Planner<'m> {
    pub(crate) module: &'m Module,
    pub(crate) kernels: Kernels,
    pub(crate) reference: &'m Evaluator,
    pub(crate) batch: usize,
    pub(crate) symbols: Bindings,
    /// Values that must be at hand at the end: results, updates, taps.
    pub(crate) wanted: FxHashSet<ValueId>,
    /// Values that are watched.
    pub(crate) taps: FxHashSet<ValueId>,
    /// The contents of globals.
    pub(crate) materializer: Materializer<'m>,
    /// Constants that were read and may be read again soon.
    pub(super) constants: FxHashMap<ValueId, Tensor>,
    /// Values that are computed from globals alone, if they count as constants.
    pub(super) folded: FxHashSet<ValueId>,
}

/// An operation that a kernel will run, before buffers are laid out.
pub(crate) struct Draft {
    pub(crate) op: OpId,
    pub(crate) recipe: Recipe,
    pub(crate) reads: Vec<ValueId>,
    pub(crate) write: ValueId,
}

impl<'m> Planner<'m> {
    /// A planner of a graph for inputs of these extents.
    ///
    /// # Errors
    /// Inputs that do not fit the graph.
    pub(crate) fn new(
        runtime: &'m Runtime,
        module: &'m Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Self, ExecError> {
        let reference = runtime.reference();
        let symbols = bind_inputs(module, graph, inputs, reference.precision())?;
        let g = module.graph(graph);
        let last = g.results().chain(g.updates().map(|u| u.1));
        Ok(Self {
            module,
            kernels: runtime.kernels(),
            reference,
            // The first axis of the first input that has one counts the samples.
            batch: inputs.iter().find_map(|s| s.dims.first().copied()).unwrap_or(1),
            symbols,
            wanted: last.chain(taps.iter().copied()).collect(),
            taps: taps.iter().copied().collect(),
            materializer: Materializer::with_evaluator(module, reference),
            constants: FxHashMap::default(),
            folded: FxHashSet::default(),
        })
    }

    /// Lets go of constants that were read.
    pub(crate) fn let_go(&mut self) {
        self.constants.clear();
        self.materializer.let_go_kept();
    }

    /// Plans the operations of a graph that wanted values need. Those that kernels run one after the other make a
    /// segment.
    ///
    /// # Errors
    /// Contents of a constant that cannot be made.
    pub(crate) fn stages(&mut self, graph: GraphId) -> Result<Vec<Stage<'m>>, ExecError> {
        let mut stages = Vec::new();
        let made = |op: &OpId| {
            let results = self.module.op(*op).results();
            results.iter().any(|v| !v.is_none())
                && results.iter().all(|v| v.is_none() || self.folded.contains(v))
        };
        let ops = self.needed(graph).into_iter().filter(|op| !made(op)).map(|op| (op, None)).collect();
        self.gather(ops, &mut stages)?;
        Ok(stages)
    }

    /// The operations that wanted values need, in order.
    pub(crate) fn needed(&self, graph: GraphId) -> Vec<OpId> {
        let mut live = self.wanted.clone();
        let all: Vec<OpId> = self.module.ops_in(graph).collect();
        let mut ops = Vec::new();
        for &op in all.iter().rev() {
            let results = self.module.op(op).results();
            if results.iter().any(|v| live.contains(v)) || makes_any(self.module, op, &self.taps) {
                live.extend(reads(self.module, op));
                ops.push(op);
            }
        }
        ops.reverse();
        ops
    }

    /// Makes segments of operations. Those that were refused before come with the reason.
    fn gather(
        &mut self,
        ops: Vec<(OpId, Option<Why>)>,
        stages: &mut Vec<Stage<'m>>,
    ) -> Result<(), ExecError> {
        let mut group = Vec::new();
        for (op, refused) in ops {
            let draft = match refused {
                Some(why) => Err(why),
                None => self.draft(op)?,
            };
            match draft {
                Ok(draft) => group.push(draft),
                Err(why) => {
                    self.close(std::mem::take(&mut group), stages)?;
                    let single = OpPlan::new(self.reference, self.module, op, &self.taps)?;
                    stages.push(Stage::Single(Box::new(single), why));
                }
            }
        }
        self.close(group, stages)
    }

    /// Makes a segment of the operations gathered so far. It alone is split, at all operations at once that turn out
    /// to be refused, so that no weights are packed more often than that.
    fn close(&mut self, group: Vec<Draft>, stages: &mut Vec<Stage<'m>>) -> Result<(), ExecError> {
        if group.is_empty() {
            return Ok(());
        }
        let ops: Vec<OpId> = group.iter().map(|d| d.op).collect();
        match self.segment(group) {
            Ok(segment) => {
                stages.push(Stage::Segment(Box::new(segment)));
                Ok(())
            }
            Err(mut refused) => {
                self.gather(ops.into_iter().map(|op| (op, refused.remove(&op))).collect(), stages)
            }
        }
    }

    fn segment(&self, drafts: Vec<Draft>) -> Result<Segment, Refused> {
        let inside: FxHashSet<OpId> = drafts.iter().map(|d| d.op).collect();
        let drafts = fuse(drafts, &|v| self.only_read_here(v, &inside));
        let wanted = |v| self.wanted.contains(&v) || self.read_outside(v, &inside);
        lay_out(self.kernels, drafts, &|v| self.slot(v), &wanted)
    }

    /// The kernel for an operation, or why there is none.
    ///
    /// # Errors
    /// Contents of a constant that cannot be made.
    pub(crate) fn draft(&mut self, op: OpId) -> Result<Result<Draft, Why>, ExecError> {
        let m = self.module;
        let data = m.op(op);
        if !data.regions().is_empty() {
            return Ok(Err(Why::Regions));
        }
        let &[write] = data.results() else { return Ok(Err(Why::Results(data.results().len()))) };
        let operands: Vec<Option<ValueId>> = data.operands().collect();
        let reads: Vec<ValueId> =
            operands.iter().flatten().copied().filter(|&v| !self.is_constant(v)).collect();
        if reads.is_empty() {
            return Ok(Err(Why::Constant));
        }
        let owned: Option<Vec<Slot>> = reads.iter().map(|&v| self.slot(v)).collect();
        let (Some(owned), Some(result)) = (owned, self.slot(write)) else { return Ok(Err(Why::Values)) };
        let mut constants = Vec::with_capacity(operands.len());
        for v in &operands {
            constants.push(v.map(|v| self.constant(v)).transpose()?.flatten());
        }
        let mut owned = owned.iter();
        let slots: Vec<Option<&Slot>> =
            operands.iter().map(|v| v.filter(|&v| !self.is_constant(v)).and_then(|_| owned.next())).collect();
        let site = Site { module: m, op, slots, constants, result: &result };
        let recipe = if m.decl(op).traits.has(Traits::MOVES) {
            let symbol = reads.first().and_then(|&v| self.batch_symbol(v));
            let batch = Batch { symbol, size: self.batch };
            Trace::follow(&site, &|s| self.symbols.get(&s).copied(), batch).map(Recipe::Moves)
        } else {
            choose(&site)
        };
        Ok(recipe.map(|recipe| Draft { op, recipe, reads, write }).ok_or(Why::NoKernel))
    }

    /// The slot of a value whose first axis counts the samples of the batch.
    pub(crate) fn slot(&self, value: ValueId) -> Option<Slot> {
        let ty = self.module.type_of(value).as_tensor()?;
        let code = match ty.elem {
            ElemType::F32 => Code::F32,
            ElemType::U8 => Code::U8,
            ElemType::I8 => Code::I8,
            _ => return None,
        };
        let dims: Option<Vec<usize>> = ty
            .dims()?
            .iter()
            .map(|d| d.eval(&|s| self.symbols.get(&s).copied()).and_then(|n| usize::try_from(n).ok()))
            .collect();
        let dims = dims?;
        let (&first, rest) = dims.split_first()?;
        let count = rest.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        // Larger ones are left to the evaluator, which says so.
        let small = count.checked_mul(first).is_some_and(|n| n <= self.reference.max_elements());
        (first == self.batch && count > 0 && small).then(|| Slot::new(code, rest.to_vec()))
    }

    /// The symbol that counts the samples, if the batch is one symbol.
    fn batch_symbol(&self, value: ValueId) -> Option<SymbolId> {
        self.module.type_of(value).dims()?.first()?.as_symbol()
    }

    /// The contents of a value that is a global, or is computed from globals alone where such values are folded.
    ///
    /// # Errors
    /// They cannot be made.
    pub(crate) fn constant(&mut self, value: ValueId) -> Result<Option<Tensor>, ExecError> {
        let Some(global) = self.module.as_global(value) else { return self.folded(value) };
        if let Some(t) = self.constants.get(&value) {
            return Ok(Some(t.clone()));
        }
        let tensor = self.materializer.tensor(global)?;
        self.constants.insert(value, tensor.clone());
        Ok(Some(tensor))
    }

    /// Whether a value has one reader, which is in the segment, and is not wanted outside.
    fn only_read_here(&self, value: ValueId, inside: &FxHashSet<OpId>) -> bool {
        let one = match self.module.only_use(value) {
            Some(Use::Operand(user, _)) => inside.contains(&user),
            _ => false,
        };
        one && !self.wanted.contains(&value)
    }

    fn read_outside(&self, value: ValueId, inside: &FxHashSet<OpId>) -> bool {
        self.module.value(value).uses().iter().any(|u| match u {
            Use::Operand(op, _) => !inside.contains(op),
            _ => true,
        })
    }
}
