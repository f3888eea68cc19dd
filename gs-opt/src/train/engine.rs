//! What runs the steps.

use crate::cli::Engine as EngineArg;
use crate::executor::check_threads;
use crate::failure::Outcome;
use gs_eval::{Evaluator, ExecError, Executor, Plan, TensorSpec};
use gs_ir::{GraphId, Module, ValueId};
use gs_runtime::Runtime;
use gs_runtime::trainer::Engine;

/// The engine that was asked for.
pub(super) enum TrainEngine {
    Fast(Runtime),
    Reference(Evaluator),
}

impl TrainEngine {
    pub(super) fn make(engine: EngineArg, threads: Option<usize>) -> Outcome<Self> {
        check_threads(threads)?;
        Ok(match engine {
            EngineArg::Fast => Self::Fast(Runtime::new(threads)?),
            EngineArg::Reference => Self::Reference(Evaluator::new()),
        })
    }

    pub(super) fn engine(&self) -> Engine<'_> {
        match self {
            Self::Fast(runtime) => Engine::Runtime(runtime),
            Self::Reference(evaluator) => Engine::Executor(evaluator),
        }
    }

    pub(super) fn executor(&self) -> &dyn Executor {
        match self {
            Self::Fast(runtime) => runtime,
            Self::Reference(evaluator) => evaluator,
        }
    }
}

impl Executor for TrainEngine {
    fn prepare<'a>(
        &'a self,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Box<dyn Plan + 'a>, ExecError> {
        self.executor().prepare(module, graph, inputs, taps)
    }
}
