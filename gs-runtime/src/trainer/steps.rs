//! What runs the steps: a plan that keeps what it stores, whichever engine made it.

use crate::{Runtime, TrainPlan};
use gs_eval::{ExecError, Executor, Materializer, Plan, Tensor, TensorSpec};
use gs_ir::{GlobalId, GraphId, Module};
use std::collections::BTreeMap;

/// What runs the steps.
#[derive(Clone, Copy)]
pub enum Engine<'e> {
    /// Training plans of the runtime: what is stored stays in them.
    Runtime(&'e Runtime),
    /// Any executor, such as the reference evaluator.
    Executor(&'e dyn Executor),
}

impl<'e> Engine<'e> {
    /// The engine as one that runs graphs.
    pub(super) fn executor(self) -> &'e dyn Executor {
        match self {
            Engine::Runtime(runtime) => runtime,
            Engine::Executor(executor) => executor,
        }
    }

    /// Plans the steps of a graph.
    pub(super) fn prepare<'m>(
        self,
        module: &'m Module,
        graph: GraphId,
        inputs: &[TensorSpec],
    ) -> Result<Box<dyn Steps + 'm>, ExecError>
    where
        'e: 'm,
    {
        Ok(match self {
            Engine::Runtime(runtime) => Box::new(runtime.train_plan(module, graph, inputs, &[])?),
            Engine::Executor(executor) => Box::new(Kept {
                plan: executor.prepare(module, graph, inputs, &[])?,
                module,
                contents: BTreeMap::new(),
            }),
        })
    }
}

/// A graph whose steps are run one after the other.
pub(super) trait Steps {
    /// Runs a step and keeps what the graph stores; the graph's results.
    fn step(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ExecError>;

    /// What a global holds now.
    fn get(&self, global: GlobalId) -> Result<Tensor, ExecError>;

    /// Gives globals other contents.
    fn set(&mut self, contents: Vec<(GlobalId, Tensor)>) -> Result<(), ExecError>;
}

impl Steps for TrainPlan<'_> {
    fn step(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ExecError> {
        Ok(TrainPlan::step(self, inputs)?.results)
    }

    fn get(&self, global: GlobalId) -> Result<Tensor, ExecError> {
        self.global(global)
    }

    fn set(&mut self, contents: Vec<(GlobalId, Tensor)>) -> Result<(), ExecError> {
        self.set_globals(&contents)
    }
}

/// A plan that keeps nothing, with what it stored beside it.
struct Kept<'m> {
    plan: Box<dyn Plan + 'm>,
    module: &'m Module,
    contents: BTreeMap<GlobalId, Tensor>,
}

impl Steps for Kept<'_> {
    fn step(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ExecError> {
        let output = self.plan.run(inputs, &mut |_, _| {})?;
        self.set(output.updates)?;
        Ok(output.results)
    }

    fn get(&self, global: GlobalId) -> Result<Tensor, ExecError> {
        match self.contents.get(&global) {
            Some(tensor) => Ok(tensor.clone()),
            None => Ok(Materializer::new(self.module).tensor(global)?),
        }
    }

    fn set(&mut self, contents: Vec<(GlobalId, Tensor)>) -> Result<(), ExecError> {
        self.plan.set_globals(&contents)?;
        self.contents.extend(contents);
        Ok(())
    }
}
