//! The evaluator's plan: the operations that matter, in order, and when each value is let go.

use crate::bind::{Bindings, Misfit, bind};
use crate::evaluator::{Evaluator, Function};
use crate::exec::{ExecError, Plan, RunOutput, Tap, TensorSpec, describe};
use crate::materialize::Materializer;
use crate::ops::{Budget, OpCtx, OpError};
use crate::tensor::Tensor;
use gs_ir::{Def, GlobalId, GraphId, Module, OpId, Type, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Deeper nests of regions are refused: they would take the program's stack.
const MAX_DEPTH: usize = 64;

/// An operation to be evaluated.
struct Step {
    op: OpId,
    function: Function,
    /// Values that nothing reads afterwards.
    drops: Vec<ValueId>,
}

/// A graph made ready for evaluation.
pub(crate) struct EvalPlan<'a> {
    evaluator: &'a Evaluator,
    module: &'a Module,
    graph: GraphId,
    inputs: Vec<TensorSpec>,
    taps: FxHashSet<ValueId>,
    steps: FxHashMap<GraphId, Vec<Step>>,
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
        if !module.graph(graph).live {
            return Err(ExecError::Graph);
        }
        let mut plan = Self {
            evaluator,
            module,
            graph,
            inputs: inputs.to_vec(),
            taps: taps.iter().copied().collect(),
            steps: FxHashMap::default(),
            globals: BTreeMap::new(),
        };
        plan.bind_inputs()?;
        plan.schedule(graph, 0)?;
        plan.load_globals()?;
        Ok(plan)
    }

    /// Checks the inputs against the graph's parameters and gives the values of symbols.
    fn bind_inputs(&self) -> Result<Bindings, ExecError> {
        let params = self.module.graph(self.graph).params();
        if params.len() != self.inputs.len() {
            return Err(ExecError::InputCount { expected: params.len(), found: self.inputs.len() });
        }
        let mut bindings = Bindings::default();
        // Twice: an expression may stand before the symbol that it needs.
        for _ in 0..2 {
            for (i, (&param, found)) in params.iter().zip(&self.inputs).enumerate() {
                let declared = self.module.type_of(param);
                let fits = bind(&mut bindings, declared, found, self.evaluator.precision());
                fits.map_err(|m| self.input_error(param, i, declared, found, m))?;
            }
        }
        Ok(bindings)
    }

    fn input_error(
        &self,
        param: ValueId,
        index: usize,
        declared: &Type,
        found: &TensorSpec,
        m: Misfit,
    ) -> ExecError {
        let name = match self.module.str(self.module.value(param).name) {
            "" => index.to_string(),
            name => name.to_owned(),
        };
        match m {
            Misfit::Type => {
                ExecError::Input { name, expected: describe(self.module, declared), found: found.clone() }
            }
            Misfit::Symbol(s, first, second) => {
                let symbol = self.module.symbol_info(s).name.map_or("?", |n| self.module.str(n)).to_owned();
                ExecError::Symbol { symbol, first, second, value: name }
            }
        }
    }

    /// Lists the operations of a graph that results, updates or taps need, and where values are read last.
    fn schedule(&mut self, graph: GraphId, depth: usize) -> Result<(), ExecError> {
        if depth > MAX_DEPTH {
            return Err(ExecError::Depth(MAX_DEPTH));
        }
        let module = self.module;
        let g = module.graph(graph);
        let mut live: FxHashSet<ValueId> = g.results().chain(g.updates().map(|(_, v)| v)).collect();
        let ops: Vec<OpId> = module.ops_in(graph).collect();
        let mut steps = Vec::new();
        for &op in ops.iter().rev() {
            let results = module.op(op).results().iter().filter_map(|v| v.some());
            let uses = self.uses(op);
            if !results.clone().any(|v| live.contains(&v)) && !self.holds_tap(op) {
                continue;
            }
            let mut drops: Vec<ValueId> = results.filter(|v| !live.contains(v)).collect();
            for v in uses {
                if live.insert(v) && self.defined_in(v, graph) {
                    drops.push(v);
                }
            }
            for &region in module.op(op).regions() {
                self.schedule(region, depth + 1)?;
            }
            steps.push(Step { op, function: self.function(op)?, drops });
        }
        steps.reverse();
        self.steps.insert(graph, steps);
        Ok(())
    }

    fn function(&self, op: OpId) -> Result<Function, ExecError> {
        let name = self.module.op_name(op);
        self.evaluator.function(name).ok_or_else(|| ExecError::Unsupported {
            op: self.module.opaque_name(op).unwrap_or(name).to_owned(),
            label: self.module.label(op).to_owned(),
        })
    }

    /// What an operation reads: its operands, and what its regions read.
    fn uses(&self, op: OpId) -> Vec<ValueId> {
        let mut uses: Vec<ValueId> = self.module.op(op).present_operands().collect();
        for &region in self.module.op(op).regions() {
            let mut pending = vec![region];
            while let Some(graph) = pending.pop() {
                uses.extend(self.module.graph(graph).results());
                for inner in self.module.ops_in(graph) {
                    uses.extend(self.module.op(inner).present_operands());
                    pending.extend(self.module.op(inner).regions());
                }
            }
        }
        uses
    }

    /// Whether an operation, or one in its regions, makes a tapped value.
    fn holds_tap(&self, op: OpId) -> bool {
        if self.taps.is_empty() {
            return false;
        }
        let mut pending = vec![op];
        while let Some(op) = pending.pop() {
            if self.module.op(op).results().iter().any(|v| self.taps.contains(v)) {
                return true;
            }
            for &region in self.module.op(op).regions() {
                if self.module.graph(region).params().iter().any(|v| self.taps.contains(v)) {
                    return true;
                }
                pending.extend(self.module.ops_in(region));
            }
        }
        false
    }

    fn defined_in(&self, value: ValueId, graph: GraphId) -> bool {
        match self.module.value(value).def {
            Def::Result(op, _) => self.module.op(op).graph == graph,
            Def::Param(g, _) => g == graph,
            Def::Global(_) | Def::Erased => false,
        }
    }

    fn load_globals(&mut self) -> Result<(), ExecError> {
        let module = self.module;
        let mut values: Vec<ValueId> = self.taps.iter().copied().collect();
        for (&graph, steps) in &self.steps {
            let g = module.graph(graph);
            values.extend(g.results().chain(g.updates().map(|(_, v)| v)));
            values.extend(steps.iter().flat_map(|s| module.op(s.op).present_operands()));
        }
        // Sorted, so that the first error does not depend on hash order.
        values.sort();
        values.dedup();
        let mut contents = Materializer::with_evaluator(module, self.evaluator);
        for value in values {
            if let Some(global) = module.as_global(value) {
                let tensor = self.evaluator.precision().adapt(&contents.tensor(global)?);
                self.globals.insert(value, tensor);
            }
        }
        Ok(())
    }
}

impl Plan for EvalPlan<'_> {
    fn run(&mut self, inputs: &[Tensor], tap: &mut Tap<'_>) -> Result<RunOutput, ExecError> {
        let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
        if specs != self.inputs {
            self.inputs = specs;
        }
        let symbols = RefCell::new(self.bind_inputs()?);
        let (elements, steps) = self.evaluator.limits();
        let budget = Budget { elements, steps: Cell::new(steps) };
        let mut run =
            Run { plan: self, values: FxHashMap::default(), symbols: &symbols, budget: &budget, tap };
        for (&v, t) in &self.globals {
            run.tell(v, t);
        }
        let sizes = inputs.iter().chain(self.globals.values()).map(|t| t.dims());
        if let Some(dims) = sizes.clone().find(|d| budget.check(d).is_err()) {
            return Err(ExecError::TooLarge(dims.to_vec()));
        }
        let inputs = inputs.iter().map(|t| self.evaluator.precision().adapt(t)).collect();
        let results = run.graph(self.graph, inputs)?;
        let updates = self.module.graph(self.graph).updates();
        let updates = updates.map(|(g, v)| Ok((g, run.get(v)?))).collect::<Result<_, ExecError>>()?;
        Ok(RunOutput { results, taps: Vec::new(), updates })
    }

    fn set_global(&mut self, global: GlobalId, contents: &Tensor) -> Result<(), ExecError> {
        let value = self.module.global(global).value;
        let precision = self.evaluator.precision();
        let Some(now) = self.globals.get_mut(&value) else { return Ok(()) };
        let contents = precision.adapt(contents);
        if contents.elem() != now.elem() || contents.dims() != now.dims() {
            let name = self.module.str(self.module.global(global).name).to_owned();
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

/// One run of a plan.
struct Run<'p> {
    plan: &'p EvalPlan<'p>,
    values: FxHashMap<ValueId, Tensor>,
    symbols: &'p RefCell<Bindings>,
    budget: &'p Budget,
    tap: &'p mut Tap<'p>,
}

impl Run<'_> {
    fn tell(&mut self, value: ValueId, tensor: &Tensor) {
        if self.plan.taps.contains(&value) {
            (self.tap)(value, tensor.view());
        }
    }

    fn get(&self, value: ValueId) -> Result<Tensor, ExecError> {
        let found = self.plan.globals.get(&value).or_else(|| self.values.get(&value));
        found.cloned().ok_or(ExecError::Undefined(value))
    }

    fn graph(&mut self, graph: GraphId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, ExecError> {
        let plan = self.plan;
        for (&param, input) in plan.module.graph(graph).params().iter().zip(inputs) {
            self.tell(param, &input);
            self.values.insert(param, input);
        }
        for step in plan.steps.get(&graph).map_or(&[][..], Vec::as_slice) {
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

    fn step(&mut self, step: &Step) -> Result<Vec<Tensor>, ExecError> {
        let module = self.plan.module;
        let op = module.op(step.op);
        let operands =
            op.operands().map(|v| v.map(|v| self.get(v)).transpose()).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Type> =
            op.results().iter().map(|v| v.some().map_or(Type::Any, |v| module.type_of(v).clone())).collect();
        let symbols = self.symbols;
        let (budget, evaluator) = (self.budget, self.plan.evaluator);
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
        let module = self.plan.module;
        ExecError::Op {
            op: module.op_name(op).to_owned(),
            label: module.label(op).to_owned(),
            error: Box::new(error),
        }
    }

    /// Checks what was computed against what the module states, and binds symbols that first appear here.
    fn check(&self, op: OpId, types: &[Type], results: &[Tensor]) -> Result<(), ExecError> {
        let module = self.plan.module;
        if results.len() < types.len() {
            let missing = module.decl(op).result(results.len()).map_or("outputs", |r| r.name);
            return Err(self.op_error(op, OpError::MissingOperand(missing)));
        }
        for (index, (ty, result)) in types.iter().zip(results).enumerate() {
            self.budget.check(result.dims()).map_err(|e| self.op_error(op, e))?;
            let found = TensorSpec::of(result);
            let fits = bind(&mut self.symbols.borrow_mut(), ty, &found, self.plan.evaluator.precision());
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
