//! The evaluator: settings, and the table of functions that a user may extend.

use crate::arith::Arithmetic;
use crate::exec::{ExecError, Executor, Plan, TensorSpec};
use crate::ops::{OpCtx, OpError, lookup};
use crate::plan::EvalPlan;
use crate::tensor::Tensor;
use gs_ir::{ElemType, GraphId, Module, ValueId};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// In which precision floats are computed and kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// In f64 within an operation, rounded to the declared type between operations.
    #[default]
    Native,
    /// Every float is f64 throughout, whatever its declared type: for telling rounding from real differences, as in
    /// proofs that a pruned network computes the same. Integer operators are the same in both.
    F64,
}

impl Precision {
    /// The element type in which values of a declared type are kept.
    pub fn elem(self, declared: ElemType) -> ElemType {
        match self {
            Precision::F64 if declared.is_float() => ElemType::F64,
            _ => declared,
        }
    }

    /// A tensor as it is kept.
    pub fn adapt(self, tensor: &Tensor) -> Tensor {
        if self.elem(tensor.elem()) == tensor.elem() {
            return tensor.clone();
        }
        let wide = tensor.to_f64s().and_then(|v| Tensor::from_f64s(ElemType::F64, tensor.dims(), &v).ok());
        wide.unwrap_or_else(|| tensor.clone())
    }
}

/// Computes the results of an operation of a user's own dialect.
pub type CustomFn = dyn Fn(&OpCtx<'_>) -> Result<Vec<Tensor>, OpError> + Send + Sync;

/// The reference evaluator. Slow and clear; what it computes is what everything else is checked against.
#[derive(Clone)]
pub struct Evaluator {
    precision: Precision,
    arithmetic: Arithmetic,
    custom: FxHashMap<String, Arc<CustomFn>>,
    max_elements: usize,
    max_steps: u64,
}

impl Default for Evaluator {
    fn default() -> Self {
        Self::new()
    }
}

/// A function to evaluate an operation with.
#[derive(Clone)]
pub(crate) enum Function {
    Builtin(crate::ops::EvalFn),
    Custom(Arc<CustomFn>),
}

impl Function {
    pub(crate) fn call(&self, ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
        match self {
            Function::Builtin(f) => f(ctx),
            Function::Custom(f) => f(ctx),
        }
    }
}

impl Evaluator {
    /// Native precision, the arithmetic of ONNX Runtime, tensors of up to 2^30 elements. Steps are not limited: a loop
    /// that never ends runs forever. For networks of unknown origin set [`Self::with_limits`].
    pub fn new() -> Self {
        Self {
            precision: Precision::Native,
            arithmetic: Arithmetic::default(),
            custom: FxHashMap::default(),
            max_elements: 1 << 30,
            max_steps: u64::MAX,
        }
    }

    /// The same with another precision.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same with the integer arithmetic of another target.
    pub fn with_arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.arithmetic = arithmetic;
        self
    }

    /// The same with other limits: elements of a tensor, and steps of a run. A step is about one element made or one
    /// multiplication done; hostile files and endless loops end with an error.
    pub fn with_limits(mut self, max_elements: usize, max_steps: u64) -> Self {
        self.max_elements = max_elements;
        self.max_steps = max_steps;
        self
    }

    /// Attaches a function to the operator of this name. It takes the place of a built-in one.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        f: impl Fn(&OpCtx<'_>) -> Result<Vec<Tensor>, OpError> + Send + Sync + 'static,
    ) {
        self.custom.insert(name.into(), Arc::new(f));
    }

    /// In which precision it computes.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Which integer arithmetic it computes with.
    pub fn arithmetic(&self) -> &Arithmetic {
        &self.arithmetic
    }

    /// Whether it can evaluate operators of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    pub(crate) fn function(&self, name: &str) -> Option<Function> {
        match self.custom.get(name) {
            Some(f) => Some(Function::Custom(f.clone())),
            None => lookup(name).map(Function::Builtin),
        }
    }

    /// The most elements that a tensor may have.
    pub fn max_elements(&self) -> usize {
        self.max_elements
    }

    pub(crate) fn limits(&self) -> (usize, u64) {
        (self.max_elements, self.max_steps)
    }
}

impl Executor for Evaluator {
    fn prepare<'a>(
        &'a self,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Box<dyn Plan + 'a>, ExecError> {
        Ok(Box::new(EvalPlan::new(self, module, graph, inputs, taps)?))
    }
}
