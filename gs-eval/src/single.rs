//! One operation alone, on operands at hand: for executors that compute most operations by themselves.

use crate::bind::Bindings;
use crate::evaluator::Evaluator;
use crate::exec::{ExecError, Tap};
use crate::ops::{Budget, OpCtx};
use crate::run::Run;
use crate::schedule::{Schedule, Step, home, reads};
use crate::tensor::Tensor;
use gs_ir::{GraphId, Module, OpId, SymbolId, Type, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// One operation made ready for evaluation, its regions too.
pub struct OpPlan<'a> {
    schedule: Schedule<'a>,
    step: Step,
    reads: Vec<ValueId>,
}

impl<'a> OpPlan<'a> {
    /// Prepares an operation. Of `taps` those in its regions are watched; its results are left to the caller.
    ///
    /// # Errors
    /// It, or an operation in its regions, has no evaluation; regions are nested too deeply.
    pub fn new(
        evaluator: &'a Evaluator,
        module: &'a Module,
        op: OpId,
        taps: &FxHashSet<ValueId>,
    ) -> Result<Self, ExecError> {
        let regions = !module.op(op).regions().is_empty();
        let taps = if regions { taps.clone() } else { FxHashSet::default() };
        let mut schedule = Schedule::new(evaluator, module, taps);
        let step = schedule.step(op, Vec::new(), 0)?;
        let mut outside = reads(module, op);
        if regions {
            let own = inner_graphs(module, op);
            outside.retain(|&v| home(module, v).is_some_and(|g| !own.contains(&g)));
            // Of globals, those that are read by what is evaluated.
            outside.extend(module.op(op).present_operands().chain(schedule.globals()));
        }
        outside.sort_unstable();
        outside.dedup();
        Ok(Self { schedule, step, reads: outside })
    }

    /// The operation.
    pub fn op(&self) -> OpId {
        self.step.op
    }

    /// What it and its regions read from outside, globals too; each once.
    pub fn reads(&self) -> &[ValueId] {
        &self.reads
    }

    /// Evaluates the operation on the values that `get` gives. Results are checked against their declared types;
    /// symbols that they determine are bound.
    ///
    /// # Errors
    /// A value that is not there, an operation that fails, or a result that is not what the module says.
    pub fn run(
        &self,
        get: &dyn Fn(ValueId) -> Option<Tensor>,
        symbols: &mut Bindings,
        tap: &mut Tap<'_>,
    ) -> Result<Vec<Tensor>, ExecError> {
        let mut values: FxHashMap<ValueId, Tensor> = FxHashMap::default();
        for &v in &self.reads {
            values.insert(v, get(v).ok_or(ExecError::Undefined(v))?);
        }
        let (elements, steps) = self.schedule.evaluator.limits();
        let budget = Budget { elements, steps: Cell::new(steps) };
        let bound = RefCell::new(std::mem::take(symbols));
        let mut run = Run {
            schedule: &self.schedule,
            globals: &BTreeMap::new(),
            values,
            symbols: &bound,
            budget: &budget,
            tap,
        };
        let results = run.step(&self.step);
        *symbols = bound.into_inner();
        results
    }
}

/// The regions of an operation, and those in them.
fn inner_graphs(module: &Module, op: OpId) -> FxHashSet<GraphId> {
    let mut graphs = FxHashSet::default();
    let mut pending = module.op(op).regions().to_vec();
    while let Some(graph) = pending.pop() {
        if graphs.insert(graph) {
            pending.extend(module.ops_in(graph).flat_map(|inner| module.op(inner).regions()));
        }
    }
    graphs
}

impl Evaluator {
    /// Evaluates an operation without regions. `symbols` gives the values of the dimensions that inputs determine.
    ///
    /// # Errors
    /// Where the operation has regions or no evaluation, or fails on these operands.
    pub fn eval_op(
        &self,
        module: &Module,
        op: OpId,
        operands: &[Option<Tensor>],
        symbols: &dyn Fn(SymbolId) -> Option<i64>,
    ) -> Result<Vec<Tensor>, ExecError> {
        let name = module.op_name(op);
        let label = || module.label(op).to_owned();
        let shown = || module.opaque_name(op).unwrap_or(name).to_owned();
        let function = self.function(name).filter(|_| module.op(op).regions().is_empty());
        let Some(function) = function else {
            return Err(ExecError::Unsupported { op: shown(), label: label() });
        };
        let results = module.op(op).results();
        let types: Vec<Type> =
            results.iter().map(|v| v.some().map_or(Type::Any, |v| module.type_of(v).clone())).collect();
        let (elements, steps) = self.limits();
        let mut no_region = |_: usize, _: Vec<Tensor>| Err(ExecError::Graph);
        let ctx = OpCtx {
            decl: module.decl(op),
            attrs: module.attrs_of(op),
            operands,
            result_count: results.len(),
            result_types: &types,
            precision: self.precision(),
            arithmetic: self.arithmetic(),
            budget: &Budget { elements, steps: Cell::new(steps) },
            symbols,
            regions: RefCell::new(&mut no_region),
        };
        function.call(&ctx).map_err(|error| ExecError::Op {
            op: shown(),
            label: label(),
            error: Box::new(error),
        })
    }
}
