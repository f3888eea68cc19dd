//! The evaluator's plan of a graph.

use crate::bind::bind_inputs;
use crate::evaluator::Evaluator;
use crate::exec::{ExecError, Plan, RunOutput, Tap, TensorSpec};
use crate::materialize::Materializer;
use crate::ops::Budget;
use crate::run::Run;
use crate::schedule::Schedule;
use crate::tensor::Tensor;
use gs_ir::{GlobalId, GraphId, Module, ValueId};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// A graph made ready for evaluation.
pub(crate) struct EvalPlan<'a> {
    schedule: Schedule<'a>,
    graph: GraphId,
    contents: Materializer<'a>,
    globals: BTreeMap<ValueId, Tensor>,
    /// Globals whose contents are others than those in `globals`.
    stale: BTreeSet<GlobalId>,
}

impl<'a> EvalPlan<'a> {
    pub(crate) fn new(
        evaluator: &'a Evaluator,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Self, ExecError> {
        bind_inputs(module, graph, inputs, evaluator.precision())?;
        let mut schedule = Schedule::new(evaluator, module, taps.iter().copied().collect());
        schedule.graph(graph, 0)?;
        let contents = Materializer::with_evaluator(module, evaluator);
        let stale = schedule.globals().into_iter().filter_map(|v| module.as_global(v)).collect();
        let mut plan = Self { schedule, graph, contents, globals: BTreeMap::new(), stale };
        plan.refresh()?;
        Ok(plan)
    }

    /// Reads the contents of globals that are others than when they were read last.
    fn refresh(&mut self) -> Result<(), ExecError> {
        let (module, precision) = (self.schedule.module, self.schedule.evaluator.precision());
        while let Some(&global) = self.stale.first() {
            let tensor = precision.adapt(&self.contents.tensor(global)?);
            self.globals.insert(module.global(global).value, tensor);
            self.stale.remove(&global);
        }
        self.contents.let_go_kept();
        Ok(())
    }
}

impl Plan for EvalPlan<'_> {
    fn run(&mut self, inputs: &[Tensor], tap: &mut Tap<'_>) -> Result<RunOutput, ExecError> {
        self.refresh()?;
        let Schedule { evaluator, module, .. } = self.schedule;
        let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
        let symbols = RefCell::new(bind_inputs(module, self.graph, &specs, evaluator.precision())?);
        let (elements, steps) = evaluator.limits();
        let budget = Budget { elements, steps: Cell::new(steps) };
        let mut run = Run {
            schedule: &self.schedule,
            globals: &self.globals,
            values: FxHashMap::default(),
            symbols: &symbols,
            budget: &budget,
            tap,
        };
        for (&v, t) in &self.globals {
            run.tell(v, t);
        }
        let sizes = inputs.iter().chain(self.globals.values()).map(|t| t.dims());
        if let Some(dims) = sizes.clone().find(|d| budget.check(d).is_err()) {
            return Err(ExecError::TooLarge(dims.to_vec()));
        }
        let inputs = inputs.iter().map(|t| evaluator.precision().adapt(t)).collect();
        let results = run.graph(self.graph, inputs)?;
        let updates = module.graph(self.graph).updates();
        let updates = updates.map(|(g, v)| Ok((g, run.get(v)?))).collect::<Result<_, ExecError>>()?;
        Ok(RunOutput { results, taps: Vec::new(), updates })
    }

    fn set_globals(&mut self, contents: &[(GlobalId, Tensor)]) -> Result<(), ExecError> {
        let module = self.schedule.module;
        let changed = self.contents.set(contents)?;
        let read = changed.into_iter().filter(|&g| self.globals.contains_key(&module.global(g).value));
        self.stale.extend(read);
        Ok(())
    }
}
