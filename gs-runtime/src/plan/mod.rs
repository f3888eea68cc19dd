//! Planned execution of one graph for one batch size.

pub(crate) mod buffer;
pub(crate) mod build;
mod fold;
mod fuse;
pub(crate) mod grids;
pub(crate) mod kernel;
mod layout;
pub(crate) mod moves;
pub(crate) mod plain;
pub(crate) mod recipe;
mod renew;
mod report;
mod segment;
pub(crate) mod slot;

use crate::Runtime;
use build::{Planner, Stage};
use gs_eval::{Bindings, ExecError, OpPlan, Plan, RunOutput, Tap, Tensor, TensorSpec};
use gs_ir::{GlobalId, GraphId, Module, ValueId};
use gs_kernels::KernelError;
use renew::{Place, packers};
pub use report::{PlanReport, Why};
use rustc_hash::FxHashMap;
use segment::{Segment, Worker};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// A graph made ready for batches of one size.
pub struct RuntimePlan<'a> {
    runtime: &'a Runtime,
    graph: GraphId,
    specs: Vec<TensorSpec>,
    planner: Planner<'a>,
    stages: Vec<Stage<'a>>,
    /// How often each value is read by stages, as a result or as an update.
    readers: FxHashMap<ValueId, usize>,
    /// Globals, and what is computed from them alone, that single operations read, or that are results, updates or watched.
    constants: FxHashMap<ValueId, Tensor>,
    /// The `constants` that each global is read for: itself, and what is computed from it.
    kept_of: FxHashMap<GlobalId, Vec<ValueId>>,
    /// The kernels that hold contents of globals.
    packers: FxHashMap<GlobalId, Vec<Place>>,
    /// Globals whose contents are others than those that kernels and `constants` hold.
    stale: BTreeSet<GlobalId>,
    workers: Vec<Mutex<Worker>>,
}

impl<'a> RuntimePlan<'a> {
    /// Plans a graph.
    ///
    /// # Errors
    /// Where inputs do not fit the graph, an operation cannot be run, or contents of a global cannot be made.
    pub(crate) fn new(
        runtime: &'a Runtime,
        module: &'a Module,
        graph: GraphId,
        specs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Self, ExecError> {
        let mut plan = Self {
            runtime,
            graph,
            specs: specs.to_vec(),
            planner: Planner::new(runtime, module, graph, specs, taps)?,
            stages: Vec::new(),
            readers: FxHashMap::default(),
            constants: FxHashMap::default(),
            kept_of: FxHashMap::default(),
            packers: FxHashMap::default(),
            stale: BTreeSet::new(),
            workers: (0..runtime.threads()).map(|_| Mutex::new(Worker::default())).collect(),
        };
        plan.planner.fold(graph);
        plan.make()?;
        Ok(plan)
    }

    /// Makes the plan from the contents that globals have now. Where that fails, it stays as it was.
    fn make(&mut self) -> Result<(), ExecError> {
        let stages = self.planner.stages(self.graph)?;
        let mut readers: FxHashMap<ValueId, usize> = FxHashMap::default();
        for v in stages.iter().flat_map(reads).chain(self.last()) {
            *readers.entry(v).or_default() += 1;
        }
        // Constants of kernels are packed by now; those that single operations and results read are kept.
        let mut read: Vec<ValueId> = readers.keys().chain(&self.planner.taps).copied().collect();
        read.sort_unstable();
        let mut constants = FxHashMap::default();
        let mut kept_of: FxHashMap<GlobalId, Vec<ValueId>> = FxHashMap::default();
        for v in read {
            if let Some(tensor) = self.planner.constant(v)? {
                self.planner.sources(v).into_iter().for_each(|g| kept_of.entry(g).or_default().push(v));
                constants.insert(v, tensor);
            }
        }
        self.planner.let_go();
        self.packers = packers(&self.planner, &stages);
        (self.stages, self.readers) = (stages, readers);
        (self.constants, self.kept_of) = (constants, kept_of);
        self.stale.clear();
        Ok(())
    }

    /// The graph's results and updates.
    fn last(&self) -> impl Iterator<Item = ValueId> + use<'a> {
        let g = self.planner.module.graph(self.graph);
        g.results().chain(g.updates().map(|u| u.1))
    }

    /// What was made of the graph: which operations no kernel runs, and why.
    pub fn report(&self) -> PlanReport {
        let mut report = PlanReport::default();
        for stage in &self.stages {
            match stage {
                Stage::Segment(segment) => report.segments.push(segment.ops()),
                Stage::Single(op, why) => report.fallbacks.push((op.op(), why.clone())),
            }
        }
        report
    }

    fn run_stages(&self, inputs: &[Tensor], tap: &mut Tap<'_>) -> Result<Values<'_>, ExecError> {
        let mut values = Values { constants: &self.constants, computed: FxHashMap::default() };
        let mut readers = self.readers.clone();
        let mut symbols = self.planner.symbols.clone();
        let mut watched: Vec<_> =
            self.constants.iter().filter(|(v, _)| self.planner.taps.contains(v)).collect();
        watched.sort_unstable_by_key(|(v, _)| **v);
        for (&v, t) in watched {
            tap(v, t.view());
        }
        for (&v, t) in self.planner.module.graph(self.graph).params().iter().zip(inputs) {
            self.tell(v, t, tap);
            values.computed.insert(v, t.clone());
        }
        for stage in &self.stages {
            let made = match stage {
                Stage::Segment(segment) => self.run_segment(segment, &values)?,
                Stage::Single(op, _) => self.run_single(op, &values, &mut symbols, tap)?,
            };
            for (v, t) in made {
                self.tell(v, &t, tap);
                if readers.contains_key(&v) {
                    values.computed.insert(v, t);
                }
            }
            for v in reads(stage) {
                let left = readers.entry(v).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    values.computed.remove(&v);
                }
            }
        }
        Ok(values)
    }

    fn run_segment(
        &self,
        segment: &Segment,
        values: &Values<'_>,
    ) -> Result<Vec<(ValueId, Tensor)>, ExecError> {
        let read = segment.inputs.iter().map(|&(v, _)| values.get(v));
        let tensors: Vec<&Tensor> = read.collect::<Result<_, _>>()?;
        let run = || segment.run(self.runtime.kernels(), self.planner.batch, &tensors, &self.workers);
        let made = self.runtime.pool().install(run);
        let made = made.map_err(|e: KernelError| ExecError::Backend(e.to_string()))?;
        Ok(segment.outputs.iter().map(|o| o.0).zip(made).collect())
    }

    fn run_single(
        &self,
        op: &OpPlan<'_>,
        values: &Values<'_>,
        symbols: &mut Bindings,
        tap: &mut Tap<'_>,
    ) -> Result<Vec<(ValueId, Tensor)>, ExecError> {
        let made = op.run(&|v| values.get(v).ok().cloned(), symbols, tap)?;
        let results = self.planner.module.op(op.op()).results().iter().copied();
        Ok(results.zip(made).filter(|(v, _)| !v.is_none()).collect())
    }

    fn tell(&self, value: ValueId, tensor: &Tensor, tap: &mut Tap<'_>) {
        if self.planner.taps.contains(&value) {
            tap(value, tensor.view());
        }
    }
}

/// Refuses inputs that are not those that a plan was made for.
///
/// # Errors
/// Their number, or what is wrong with the first that does not fit.
pub(crate) fn check_inputs(
    module: &Module,
    graph: GraphId,
    specs: &[TensorSpec],
    inputs: &[Tensor],
) -> Result<(), ExecError> {
    let params = module.graph(graph).params();
    if inputs.len() != params.len() {
        return Err(ExecError::InputCount { expected: params.len(), found: inputs.len() });
    }
    for ((spec, tensor), &p) in specs.iter().zip(inputs).zip(params) {
        let found = TensorSpec::of(tensor);
        if *spec != found {
            let name = module.str(module.value(p).name).to_owned();
            return Err(ExecError::Input { name, expected: spec.to_string(), found });
        }
    }
    Ok(())
}

/// The values of a run that are at hand.
struct Values<'p> {
    constants: &'p FxHashMap<ValueId, Tensor>,
    computed: FxHashMap<ValueId, Tensor>,
}

impl Values<'_> {
    fn get(&self, value: ValueId) -> Result<&Tensor, ExecError> {
        let found = self.computed.get(&value).or_else(|| self.constants.get(&value));
        found.ok_or(ExecError::Undefined(value))
    }
}

/// What a stage reads.
fn reads<'s>(stage: &'s Stage<'_>) -> Box<dyn Iterator<Item = ValueId> + 's> {
    match stage {
        Stage::Segment(segment) => Box::new(segment.inputs.iter().map(|i| i.0)),
        Stage::Single(op, _) => Box::new(op.reads().iter().copied()),
    }
}

impl Plan for RuntimePlan<'_> {
    fn run(&mut self, inputs: &[Tensor], tap: &mut Tap<'_>) -> Result<RunOutput, ExecError> {
        check_inputs(self.planner.module, self.graph, &self.specs, inputs)?;
        self.refresh()?;
        let values = self.run_stages(inputs, tap)?;
        let g = self.planner.module.graph(self.graph);
        let results = g.results().map(|v| values.get(v).cloned()).collect::<Result<_, _>>()?;
        let updates = g.updates().map(|(global, v)| Ok((global, values.get(v)?.clone())));
        let updates = updates.collect::<Result<_, ExecError>>()?;
        Ok(RunOutput { results, taps: Vec::new(), updates })
    }

    fn set_globals(&mut self, contents: &[(GlobalId, Tensor)]) -> Result<(), ExecError> {
        let changed = self.planner.materializer.set(contents)?;
        let held = |g: &GlobalId| self.packers.contains_key(g) || self.kept_of.contains_key(g);
        self.stale.extend(changed.into_iter().filter(held));
        Ok(())
    }
}
