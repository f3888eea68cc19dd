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
use gs_eval::{Evaluator, ExecError, Materializer, Plan, RunOutput, Tap, Tensor, TensorSpec};
use gs_ir::{GlobalId, GraphId, Module, SymbolId, ValueId};
pub use report::{PlanReport, Why};
use rustc_hash::{FxHashMap, FxHashSet};
use segment::Worker;
use std::sync::Mutex;

/// A graph made ready for batches of one size.
pub struct RuntimePlan<'a> {
    runtime: &'a Runtime,
    module: &'a Module,
    graph: GraphId,
    specs: Vec<TensorSpec>,
    taps: FxHashSet<ValueId>,
    batch: usize,
    symbols: FxHashMap<SymbolId, i64>,
    stages: Vec<Stage>,
    /// Constants that single operations read.
    constants: FxHashMap<ValueId, Tensor>,
    overrides: FxHashMap<GlobalId, Tensor>,
    workers: Vec<Mutex<Worker>>,
}

impl<'a> RuntimePlan<'a> {
    /// Plans a graph. Inputs were checked against their declared types.
    pub(crate) fn new(
        runtime: &'a Runtime,
        module: &'a Module,
        graph: GraphId,
        specs: &[TensorSpec],
        symbols: FxHashMap<SymbolId, i64>,
        taps: &[ValueId],
    ) -> Result<Self, ExecError> {
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
            constants: FxHashMap::default(),
            overrides: FxHashMap::default(),
            workers,
        };
        plan.make()?;
        Ok(plan)
    }

    fn make(&mut self) -> Result<(), ExecError> {
        let g = self.module.graph(self.graph);
        let wanted: FxHashSet<ValueId> =
            g.results().chain(g.updates().map(|u| u.1)).chain(self.taps.iter().copied()).collect();
        let mut planner = Planner {
            module: self.module,
            kernels: self.runtime.kernels(),
            batch: self.batch,
            symbols: self.symbols.clone(),
            wanted,
            overrides: self.overrides.clone(),
            materializer: Materializer::new(self.module),
            constants: FxHashMap::default(),
        };
        self.stages = planner.stages(self.graph)?;
        // Constants of kernels are packed by now; those that single operations and results read are kept.
        self.constants.clear();
        let mut read: Vec<ValueId> = g.results().chain(g.updates().map(|u| u.1)).collect();
        for stage in &self.stages {
            if let Stage::Single(op, _) = stage {
                read.extend(self.module.op(*op).present_operands());
            }
        }
        for v in read {
            if let Some(tensor) = planner.constant(v)? {
                self.constants.insert(v, tensor);
            }
        }
        Ok(())
    }

    /// What was made of the graph: which operations no kernel runs, and why.
    pub fn report(&self) -> PlanReport {
        let mut report = PlanReport::default();
        for stage in &self.stages {
            match stage {
                Stage::Segment(segment) => report.segments.push(segment.ops()),
                Stage::Single(op, why) => report.fallbacks.push((*op, why.clone())),
            }
        }
        report
    }

    /// How often each value is still to be read, results and taps included.
    fn readers(&self) -> FxHashMap<ValueId, usize> {
        let mut readers: FxHashMap<ValueId, usize> = FxHashMap::default();
        let g = self.module.graph(self.graph);
        for v in g.results().chain(g.updates().map(|u| u.1)) {
            *readers.entry(v).or_default() += 1;
        }
        for stage in &self.stages {
            match stage {
                Stage::Segment(s) => s.inputs.iter().for_each(|(v, _)| *readers.entry(*v).or_default() += 1),
                Stage::Single(op, _) => {
                    self.module.op(*op).present_operands().for_each(|v| *readers.entry(v).or_default() += 1);
                }
            }
        }
        readers
    }

    fn run_stages(
        &self,
        inputs: &[Tensor],
        tap: &mut Tap<'_>,
    ) -> Result<FxHashMap<ValueId, Tensor>, ExecError> {
        let mut readers = self.readers();
        let mut values: FxHashMap<ValueId, Tensor> = self.constants.clone();
        let mut symbols = self.symbols.clone();
        let params = self.module.graph(self.graph).params();
        for (&v, t) in params.iter().zip(inputs) {
            self.tell(v, t, tap);
            values.insert(v, t.clone());
        }
        for stage in &self.stages {
            let (made, read) = match stage {
                Stage::Segment(segment) => {
                    let read: Vec<ValueId> = segment.inputs.iter().map(|i| i.0).collect();
                    let tensors: Result<Vec<&Tensor>, ExecError> =
                        read.iter().map(|v| values.get(v).ok_or(ExecError::Undefined(*v))).collect();
                    let tensors = tensors?;
                    let run = || segment.run(self.runtime.kernels(), self.batch, &tensors, &self.workers);
                    let made = self
                        .runtime
                        .pool()
                        .install(run)
                        .map_err(|e: KernelError| ExecError::Backend(e.to_string()))?;
                    (segment.outputs.iter().map(|o| o.0).zip(made).collect::<Vec<_>>(), read)
                }
                Stage::Single(op, _) => {
                    let data = self.module.op(*op);
                    let operands: Result<Vec<Option<Tensor>>, ExecError> = data
                        .operands()
                        .map(|v| {
                            v.map(|v| values.get(&v).cloned().ok_or(ExecError::Undefined(v))).transpose()
                        })
                        .collect();
                    let made = Evaluator::new()
                        .eval_op(self.module, *op, &operands?, &|s| symbols.get(&s).copied())?;
                    (data.results().iter().copied().zip(made).collect(), data.present_operands().collect())
                }
            };
            for (v, t) in made {
                if v.is_none() {
                    continue;
                }
                bind(self.module, v, &t, &mut symbols);
                self.tell(v, &t, tap);
                values.insert(v, t);
            }
            for v in read {
                let left = readers.entry(v).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 && self.module.as_global(v).is_none() {
                    values.remove(&v);
                }
            }
        }
        Ok(values)
    }

    fn tell(&self, value: ValueId, tensor: &Tensor, tap: &mut Tap<'_>) {
        if self.taps.contains(&value) {
            tap(value, tensor.view());
        }
    }
}

/// Learns the values of symbols that stand alone in a computed value's type.
fn bind(module: &Module, value: ValueId, tensor: &Tensor, symbols: &mut FxHashMap<SymbolId, i64>) {
    let Some(dims) = module.type_of(value).dims() else { return };
    for (d, &n) in dims.iter().zip(tensor.dims()) {
        if let Some(s) = d.as_symbol() {
            symbols.entry(s).or_insert(n as i64);
        }
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
        let of = |v: ValueId| values.get(&v).cloned().ok_or(ExecError::Undefined(v));
        let results: Result<Vec<Tensor>, ExecError> = g.results().map(of).collect();
        let updates: Result<Vec<_>, ExecError> =
            g.updates().map(|(global, v)| Ok((global, of(v)?))).collect();
        Ok(RunOutput { results: results?, taps: Vec::new(), updates: updates? })
    }

    fn set_global(&mut self, global: GlobalId, contents: &Tensor) -> Result<(), ExecError> {
        self.overrides.insert(global, contents.clone());
        self.make()
    }
}
