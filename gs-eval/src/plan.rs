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
use std::collections::BTreeMap;

/// A graph made ready for evaluation.
pub(crate) struct EvalPlan<'a> {
    schedule: Schedule<'a>,
    graph: GraphId,
    globals: BTreeMap<ValueId, Tensor>,
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
        let mut plan = Self { schedule, graph, globals: BTreeMap::new() };
        plan.load_globals()?;
        Ok(plan)
    }

    fn load_globals(&mut self) -> Result<(), ExecError> {
        let (module, evaluator) = (self.schedule.module, self.schedule.evaluator);
        let mut contents = Materializer::with_evaluator(module, evaluator);
        for value in self.schedule.globals() {
            if let Some(global) = module.as_global(value) {
                let tensor = evaluator.precision().adapt(&contents.tensor(global)?);
                self.globals.insert(value, tensor);
            }
        }
        Ok(())
    }
}

impl Plan for EvalPlan<'_> {
    fn run(&mut self, inputs: &[Tensor], tap: &mut Tap<'_>) -> Result<RunOutput, ExecError> {
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

    fn set_global(&mut self, global: GlobalId, contents: &Tensor) -> Result<(), ExecError> {
        let value = self.schedule.module.global(global).value;
        let precision = self.schedule.evaluator.precision();
        let Some(now) = self.globals.get_mut(&value) else { return Ok(()) };
        let contents = precision.adapt(contents);
        if contents.elem() != now.elem() || contents.dims() != now.dims() {
            let name = self.schedule.module.str(self.schedule.module.global(global).name).to_owned();
            return Err(ExecError::Input {
                name,
                expected: TensorSpec::of(now).to_string(),
                found: TensorSpec::of(&contents),
            });
        }
        *now = contents;
        Ok(())
    }
}
