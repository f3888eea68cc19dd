//! One run: steps in order, values until they are let go, results checked against their declared types.

use crate::bind::{Bindings, Misfit, bind};
use crate::exec::{ExecError, Tap, TensorSpec, describe};
use crate::ops::{Budget, OpCtx, OpError};
use crate::schedule::{Schedule, Step};
use crate::tensor::Tensor;
use gs_ir::{GraphId, OpId, Type, ValueId};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// One run of a plan.
pub(crate) struct Run<'p> {
    pub(crate) schedule: &'p Schedule<'p>,
    pub(crate) globals: &'p BTreeMap<ValueId, Tensor>,
    pub(crate) values: FxHashMap<ValueId, Tensor>,
    pub(crate) symbols: &'p RefCell<Bindings>,
    pub(crate) budget: &'p Budget,
    pub(crate) tap: &'p mut Tap<'p>,
}

impl Run<'_> {
    pub(crate) fn tell(&mut self, value: ValueId, tensor: &Tensor) {
        if self.schedule.taps.contains(&value) {
            (self.tap)(value, tensor.view());
        }
    }

    pub(crate) fn get(&self, value: ValueId) -> Result<Tensor, ExecError> {
        let found = self.globals.get(&value).or_else(|| self.values.get(&value));
        found.cloned().ok_or(ExecError::Undefined(value))
    }

    pub(crate) fn graph(&mut self, graph: GraphId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, ExecError> {
        let plan = self.schedule;
        for (&param, input) in plan.module.graph(graph).params().iter().zip(inputs) {
            self.tell(param, &input);
            self.values.insert(param, input);
        }
        for step in plan.of(graph) {
            let results = self.step(step)?;
            for (&value, result) in plan.module.op(step.op).results().iter().zip(results) {
                if !value.is_none() {
                    self.tell(value, &result);
                    self.values.insert(value, result);
                }
            }
            for v in &step.drops {
                self.values.remove(v);
            }
        }
        plan.module.graph(graph).results().map(|v| self.get(v)).collect()
    }

    /// A region is a scope of symbols: each turn of a loop may have other extents.
    fn region(&mut self, graph: GraphId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, ExecError> {
        let outside = self.symbols.borrow().clone();
        let results = self.graph(graph, inputs);
        *self.symbols.borrow_mut() = outside;
        results
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<Vec<Tensor>, ExecError> {
        let module = self.schedule.module;
        let op = module.op(step.op);
        let operands =
            op.operands().map(|v| v.map(|v| self.get(v)).transpose()).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Type> =
            op.results().iter().map(|v| v.some().map_or(Type::Any, |v| module.type_of(v).clone())).collect();
        let symbols = self.symbols;
        let (budget, evaluator) = (self.budget, self.schedule.evaluator);
        let mut region = |i: usize, inputs: Vec<Tensor>| match op.regions().get(i) {
            Some(&graph) => self.region(graph, inputs),
            None => Err(ExecError::Graph),
        };
        let ctx = OpCtx {
            decl: module.decl(step.op),
            attrs: module.attrs_of(step.op),
            operands: &operands,
            result_count: op.results().len(),
            result_types: &types,
            precision: evaluator.precision(),
            arithmetic: evaluator.arithmetic(),
            budget,
            symbols: &|s| symbols.borrow().get(&s).copied(),
            regions: RefCell::new(&mut region),
        };
        let results = step.function.call(&ctx).map_err(|e| self.op_error(step.op, e))?;
        self.check(step.op, &types, &results)?;
        Ok(results)
    }

    fn op_error(&self, op: OpId, error: OpError) -> ExecError {
        let module = self.schedule.module;
        ExecError::Op {
            op: module.op_name(op).to_owned(),
            label: module.label(op).to_owned(),
            error: Box::new(error),
        }
    }

    /// Checks what was computed against what the module states, and binds symbols that first appear here.
    fn check(&self, op: OpId, types: &[Type], results: &[Tensor]) -> Result<(), ExecError> {
        let module = self.schedule.module;
        if results.len() < types.len() {
            let missing = module.decl(op).result(results.len()).map_or("outputs", |r| r.name);
            return Err(self.op_error(op, OpError::MissingOperand(missing)));
        }
        for (index, (ty, result)) in types.iter().zip(results).enumerate() {
            self.budget.check(result.dims()).map_err(|e| self.op_error(op, e))?;
            let found = TensorSpec::of(result);
            let fits = bind(&mut self.symbols.borrow_mut(), ty, &found, self.schedule.evaluator.precision());
            fits.map_err(|m| match m {
                Misfit::Type => ExecError::Result {
                    op: module.op_name(op).to_owned(),
                    label: module.label(op).to_owned(),
                    index,
                    expected: describe(module, ty),
                    found: found.clone(),
                },
                Misfit::Symbol(s, first, second) => ExecError::Symbol {
                    symbol: module.symbol_info(s).name.map_or("?", |n| module.str(n)).to_owned(),
                    first,
                    second,
                    value: module.label(op).to_owned(),
                },
            })?;
        }
        Ok(())
    }
}
