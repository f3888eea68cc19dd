//! One operation alone, on operands at hand: for executors that compute most operations by themselves.

use crate::evaluator::Evaluator;
use crate::exec::ExecError;
use crate::ops::{Budget, OpCtx};
use crate::tensor::Tensor;
use gs_ir::{Module, OpId, SymbolId, Type};
use std::cell::{Cell, RefCell};

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
