//! Fast execution of modules on the processor.
//!
//! [`Runtime`] is an [`Executor`]: it plans a graph for one batch size (which operations kernels run together, what
//! is fused, where values lie) and runs it with kernels chosen for the processor. What no kernel runs is left to
//! the reference evaluator, operation by operation. The number of threads never changes a result.
//!
//! [`Runtime::train_plan`] plans a graph that stores to globals (a training step) for whole batches; see [`TrainPlan`].

mod plan;
mod train;
pub mod trainer;

pub use gs_kernels::{Isa, KernelError, Kernels};
pub use plan::{PlanReport, RuntimePlan, Why};
pub use train::{Spent, StepOutput, TrainPlan};

use gs_eval::{Evaluator, ExecError, Executor, Plan, TensorSpec};
use gs_ir::{GraphId, Module, ValueId};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Runs modules with the processor's kernels.
pub struct Runtime {
    kernels: Kernels,
    pool: ThreadPool,
    reference: Evaluator,
}

/// Why a runtime could not be made.
#[derive(Debug, thiserror::Error)]
#[error("threads could not be started: {0}")]
pub struct RuntimeError(#[from] rayon::ThreadPoolBuildError);

impl Runtime {
    /// With so many threads (all processors where none is given) and the best kernels of this processor.
    ///
    /// # Errors
    /// The operating system starts no threads.
    pub fn new(threads: Option<usize>) -> Result<Self, RuntimeError> {
        Self::with_kernels(threads, Kernels::detect())
    }

    /// As [`Self::new`], with kernels of a given instruction set.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_kernels(threads: Option<usize>, kernels: Kernels) -> Result<Self, RuntimeError> {
        let pool = ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build()?;
        Ok(Self { kernels, pool, reference: Evaluator::new() })
    }

    /// The same with other limits for what the reference evaluator runs, loops among it: see
    /// [`Evaluator::with_limits`].
    pub fn with_limits(mut self, max_elements: usize, max_steps: u64) -> Self {
        self.reference = self.reference.with_limits(max_elements, max_steps);
        self
    }

    /// As [`Executor::prepare`], giving a plan that can be looked at.
    ///
    /// # Errors
    /// As [`Executor::prepare`].
    pub fn plan<'a>(
        &'a self,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<RuntimePlan<'a>, ExecError> {
        RuntimePlan::new(self, module, graph, inputs, taps)
    }

    /// Plans a graph for training steps: what it stores stays in the plan. See [`TrainPlan`].
    ///
    /// # Errors
    /// As [`Executor::prepare`].
    pub fn train_plan<'a>(
        &'a self,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<TrainPlan<'a>, ExecError> {
        TrainPlan::new(self, module, graph, inputs, taps)
    }

    pub(crate) fn kernels(&self) -> Kernels {
        self.kernels
    }

    pub(crate) fn reference(&self) -> &Evaluator {
        &self.reference
    }

    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Executor for Runtime {
    fn prepare<'a>(
        &'a self,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Box<dyn Plan + 'a>, ExecError> {
        Ok(Box::new(self.plan(module, graph, inputs, taps)?))
    }
}
