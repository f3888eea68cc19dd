//! What is computed from globals alone, like a weight on its grid: made when a plan is made, and again when a global changes,
//! not in each run. To kernels it is a constant.

use super::build::Planner;
use gs_eval::{ExecError, OpPlan, Tensor};
use gs_ir::registry::Traits;
use gs_ir::{GlobalId, GraphId, OpId, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

impl Planner<'_> {
    /// From now on, what operations of a graph compute from globals alone counts as constant.
    pub(crate) fn fold(&mut self, graph: GraphId) {
        for op in self.needed(graph) {
            if self.is_foldable(op) {
                let results = self.module.op(op).results().iter().copied();
                self.folded.extend(results.filter(|v| !v.is_none()));
            }
        }
    }

    /// Whether an operation gives the same whenever it is run, as long as no global changes. Extents must be known, since a
    /// symbol may get its number from the operation.
    fn is_foldable(&self, op: OpId) -> bool {
        let (m, data) = (self.module, self.module.op(op));
        let fixed =
            |v: ValueId| v.is_none() || m.type_of(v).as_tensor().is_some_and(|t| t.const_dims().is_some());
        m.decl(op).traits.has(Traits::PURE)
            && data.regions().is_empty()
            && data.present_operands().next().is_some()
            && data.present_operands().all(|v| self.is_constant(v))
            && data.results().iter().all(|&v| fixed(v))
    }

    /// Whether a value is a global or is computed from globals alone.
    pub(crate) fn is_constant(&self, value: ValueId) -> bool {
        self.module.as_global(value).is_some() || self.folded.contains(&value)
    }

    /// The globals that a constant is computed from, in order.
    pub(crate) fn sources(&self, value: ValueId) -> Vec<GlobalId> {
        let (mut pending, mut seen, mut found) = (vec![value], FxHashSet::default(), Vec::new());
        while let Some(v) = pending.pop() {
            if let Some(global) = self.module.as_global(v) {
                found.push(global);
            } else if self.folded.contains(&v)
                && let Some(op) = self.module.producer(v)
                && seen.insert(op)
            {
                pending.extend(self.module.op(op).present_operands());
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The contents of a value that is computed from globals alone.
    ///
    /// # Errors
    /// They cannot be made.
    pub(super) fn folded(&mut self, value: ValueId) -> Result<Option<Tensor>, ExecError> {
        if !self.folded.contains(&value) {
            return Ok(None);
        }
        // No recursion: a chain of operations may be long.
        let mut pending = vec![value];
        while let Some(&v) = pending.last() {
            let op = self.module.producer(v).filter(|_| !self.constants.contains_key(&v));
            let Some(op) = op else {
                pending.pop();
                continue;
            };
            let before = pending.len();
            let missing = |v: &ValueId| self.folded.contains(v) && !self.constants.contains_key(v);
            pending.extend(self.module.op(op).present_operands().filter(missing));
            if pending.len() == before {
                self.evaluate(op)?;
            }
        }
        Ok(self.constants.get(&value).cloned())
    }

    /// Evaluates an operation whose operands are at hand or are globals.
    fn evaluate(&mut self, op: OpId) -> Result<(), ExecError> {
        let plan = OpPlan::new(self.reference, self.module, op, &self.taps)?;
        let mut operands: FxHashMap<ValueId, Tensor> = FxHashMap::default();
        for &v in plan.reads() {
            operands.insert(v, self.constant(v)?.ok_or(ExecError::Undefined(v))?);
        }
        let get = |v| operands.get(&v).cloned();
        let made = plan.run(&get, &mut self.symbols.clone(), &mut |_, _| {})?;
        let results = self.module.op(op).results().iter().copied();
        self.constants.extend(results.zip(made).filter(|(v, _)| !v.is_none()));
        Ok(())
    }
}
