//! Planned execution of one graph for one batch size.

mod buffer;
mod build;
mod fuse;
mod kernel;
mod layout;
mod moves;
mod plain;
mod recipe;
mod report;
mod segment;
mod slot;

use crate::Runtime;
use crate::kernels::KernelError;
use build::{Planner, Stage};
use gs_eval::{
    Bindings, ExecError, Materializer, OpPlan, Plan, Precision, RunOutput, Tap, Tensor, TensorSpec,
    bind_inputs,
};
use gs_ir::{GlobalId, GraphId, Module, ValueId};
pub use report::{PlanReport, Why};
use rustc_hash::{FxHashMap, FxHashSet};
use segment::{Segment, Worker};
use std::sync::Mutex;

/// A graph made ready for batches of one size.
pub struct RuntimePlan<'a> {
    runtime: &'a Runtime,
    module: &'a Module,
    graph: GraphId,
    specs: Vec<TensorSpec>,
    taps: FxHashSet<ValueId>,
    batch: usize,
    symbols: Bindings,
    stages: Vec<Stage<'a>>,
    /// How often each value is read by stages, as a result or as an update.
    readers: FxHashMap<ValueId, usize>,
    /// Globals that single operations read, or that are results, updates or watched.
    constants: FxHashMap<ValueId, Tensor>,
    overrides: FxHashMap<GlobalId, Tensor>,
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
        let symbols = bind_inputs(module, graph, specs, Precision::Native)?;
        // The first axis of the first input that has one counts the samples.
        let batch = specs.iter().find_map(|s| s.dims.first().copied()).unwrap_or(1);
        let workers = (0..runtime.threads()).map(|_| Mutex::new(Worker::default())).collect();
        let mut plan = Self {
            runtime,
            module,
            graph,
            specs: specs.to_vec(),
            taps: taps.iter().copied().collect(),
            batch,
            symbols,
            stages: Vec::new(),
            readers: FxHashMap::default(),
            constants: FxHashMap::default(),
            overrides: FxHashMap::default(),
            workers,
        };
        plan.make()?;
        Ok(plan)
    }

    fn make(&mut self) -> Result<(), ExecError> {
        let last: Vec<ValueId> = self.last().collect();
        let wanted = last.iter().copied().chain(self.taps.iter().copied()).collect();
        let mut planner = Planner {
            module: self.module,
            kernels: self.runtime.kernels(),
            reference: self.runtime.reference(),
            batch: self.batch,
            symbols: self.symbols.clone(),
            wanted,
            taps: &self.taps,
            overrides: self.overrides.clone(),
            materializer: Materializer::new(self.module),
            constants: FxHashMap::default(),
        };
        let stages = planner.stages(self.graph)?;
        let mut readers: FxHashMap<ValueId, usize> = FxHashMap::default();
        for v in stages.iter().flat_map(reads).chain(last) {
            *readers.entry(v).or_default() += 1;
        }
        // Constants of kernels are packed by now; those that single operations and results read are kept.
        let mut read: Vec<ValueId> = readers.keys().chain(&self.taps).copied().collect();
        read.sort_unstable();
        let mut constants = FxHashMap::default();
        for v in read {
            if let Some(tensor) = planner.constant(v)? {
                constants.insert(v, tensor);
            }
        }
        (self.stages, self.readers, self.constants) = (stages, readers, constants);
        Ok(())
    }

    /// The graph's results and updates.
    fn last(&self) -> impl Iterator<Item = ValueId> + use<'a> {
        let g = self.module.graph(self.graph);
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
        let mut symbols = self.symbols.clone();
        let mut watched: Vec<_> = self.constants.iter().filter(|(v, _)| self.taps.contains(v)).collect();
        watched.sort_unstable_by_key(|(v, _)| **v);
        for (&v, t) in watched {
            tap(v, t.view());
        }
        for (&v, t) in self.module.graph(self.graph).params().iter().zip(inputs) {
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
        let run = || segment.run(self.runtime.kernels(), self.batch, &tensors, &self.workers);
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
        let results = self.module.op(op.op()).results().iter().copied();
        Ok(results.zip(made).filter(|(v, _)| !v.is_none()).collect())
    }

    fn tell(&self, value: ValueId, tensor: &Tensor, tap: &mut Tap<'_>) {
        if self.taps.contains(&value) {
            tap(value, tensor.view());
        }
    }
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
        let params = self.module.graph(self.graph).params();
        if inputs.len() != params.len() {
            return Err(ExecError::InputCount { expected: params.len(), found: inputs.len() });
        }
        for ((spec, tensor), &p) in self.specs.iter().zip(inputs).zip(params) {
            let found = TensorSpec::of(tensor);
            if *spec != found {
                let name = self.module.str(self.module.value(p).name).to_owned();
                return Err(ExecError::Input { name, expected: spec.to_string(), found });
            }
        }
        let values = self.run_stages(inputs, tap)?;
        let g = self.module.graph(self.graph);
        let results = g.results().map(|v| values.get(v).cloned()).collect::<Result<_, _>>()?;
        let updates = g.updates().map(|(global, v)| Ok((global, values.get(v)?.clone())));
        let updates = updates.collect::<Result<_, ExecError>>()?;
        Ok(RunOutput { results, taps: Vec::new(), updates })
    }

    fn set_global(&mut self, global: GlobalId, contents: &Tensor) -> Result<(), ExecError> {
        self.overrides.insert(global, contents.clone());
        self.make()
    }
}
