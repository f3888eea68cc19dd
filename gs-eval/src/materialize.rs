//! The contents of globals: read, filled, drawn, or derived from others by ordinary operations.

use crate::arith::Arithmetic;
use crate::evaluator::{Evaluator, Precision};
use crate::exec::{ContentsError, ExecError, TensorSpec};
use crate::ops::{Budget, OpCtx, OpError};
use crate::random::sample;
use crate::tensor::{Tensor, TensorError};
use gs_ir::{Derived, GlobalId, Init, Module, TensorData, Type};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// Makes contents of globals one at a time, in any order. What several globals are derived from is computed once and
/// kept (up to a limit); everything else is let go as soon as it was used, so that writing a network out takes the
/// memory of its largest weights, not of all.
pub struct Materializer<'m> {
    module: &'m Module,
    evaluator: Option<&'m Evaluator>,
    /// The derived globals that read each global, once for each operand.
    readers: FxHashMap<GlobalId, Vec<GlobalId>>,
    /// Contents that were set in the place of the module's.
    set: FxHashMap<GlobalId, Tensor>,
    kept: FxHashMap<GlobalId, Tensor>,
    kept_elements: usize,
}

/// Shared intermediate contents are kept up to this many elements in all.
const KEEP_ELEMENTS: usize = 1 << 28;

impl<'m> Materializer<'m> {
    /// For the globals of a module, with the built-in operators.
    pub fn new(module: &'m Module) -> Self {
        Self::make(module, None)
    }

    /// For the globals of a module, with the operators and the limits of an evaluator (its precision does not matter:
    /// contents are of their declared types).
    pub fn with_evaluator(module: &'m Module, evaluator: &'m Evaluator) -> Self {
        Self::make(module, Some(evaluator))
    }

    fn make(module: &'m Module, evaluator: Option<&'m Evaluator>) -> Self {
        let mut readers: FxHashMap<GlobalId, Vec<GlobalId>> = FxHashMap::default();
        for (id, global) in module.globals() {
            if let Init::Derived(d) = &global.init {
                for g in d.operands.iter().flatten() {
                    readers.entry(*g).or_default().push(id);
                }
            }
        }
        let (set, kept) = (FxHashMap::default(), FxHashMap::default());
        Self { module, evaluator, readers, set, kept, kept_elements: 0 }
    }

    /// Puts contents in the place of the module's. What is derived from them follows, except where it was set itself.
    /// A global without fixed extents is passed over: it has no contents. Returns the globals whose contents are others
    /// now, in order.
    ///
    /// # Errors
    /// Contents that are not of the global's type; then nothing is set.
    pub fn set(&mut self, contents: &[(GlobalId, Tensor)]) -> Result<Vec<GlobalId>, ExecError> {
        let mut fitting = Vec::with_capacity(contents.len());
        for (global, tensor) in contents {
            let Ok((elem, dims)) = self.declared(*global) else { continue };
            let precision = self.evaluator.map_or(Precision::Native, Evaluator::precision);
            let same = tensor.elem() == elem || tensor.elem() == precision.elem(elem);
            if !same || tensor.dims() != dims {
                let expected = TensorSpec { elem, dims }.to_string();
                let found = TensorSpec::of(tensor);
                return Err(ExecError::Input { name: self.name(*global), expected, found });
            }
            fitting.push((*global, tensor));
        }
        let mut changed: BTreeSet<GlobalId> = BTreeSet::new();
        for (global, tensor) in fitting {
            self.set.insert(global, tensor.clone());
            changed.insert(global);
        }
        let mut pending: Vec<GlobalId> = changed.iter().copied().collect();
        while let Some(global) = pending.pop() {
            for &reader in self.readers.get(&global).map_or(&[][..], Vec::as_slice) {
                if !self.set.contains_key(&reader) && changed.insert(reader) {
                    pending.push(reader);
                }
            }
        }
        for global in &changed {
            if let Some(old) = self.kept.remove(global) {
                self.kept_elements = self.kept_elements.saturating_sub(old.len());
            }
        }
        Ok(changed.into_iter().collect())
    }

    /// Lets go of what is kept for further globals. It is computed again where it is needed.
    pub fn let_go_kept(&mut self) {
        self.kept.clear();
        self.kept_elements = 0;
    }

    /// The packed contents of a global. Those that are bytes already are shared, not copied.
    ///
    /// # Errors
    /// Where they were not loaded, do not fit the global's type, or an operation that derives them fails.
    pub fn data(&mut self, global: GlobalId) -> Result<TensorData, ContentsError> {
        if let Init::Data(data) = &self.module.global(global).init
            && !self.set.contains_key(&global)
        {
            self.check_length(global, data)?;
            return Ok(data.clone());
        }
        Ok(self.tensor(global)?.data())
    }

    /// The contents of a global as a tensor.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn tensor(&mut self, global: GlobalId) -> Result<Tensor, ContentsError> {
        let mut done: FxHashMap<GlobalId, Tensor> = FxHashMap::default();
        let mut open: FxHashSet<GlobalId> = FxHashSet::default();
        // An explicit stack: a file can derive more deeply than the program's stack allows.
        let mut stack = vec![global];
        while let Some(&top) = stack.last() {
            if done.contains_key(&top) {
                stack.pop();
                continue;
            }
            if let Some(kept) = self.set.get(&top).or_else(|| self.kept.get(&top)) {
                done.insert(top, kept.clone());
                continue;
            }
            let Init::Derived(derived) = &self.module.global(top).init else {
                done.insert(top, self.plain(top)?);
                continue;
            };
            let missing: Vec<GlobalId> =
                derived.operands.iter().flatten().filter(|g| !done.contains_key(g)).copied().collect();
            if missing.is_empty() {
                let tensor = self.derive(top, derived, &done)?;
                self.let_go(derived, &mut done);
                self.keep(top, &tensor);
                open.remove(&top);
                done.insert(top, tensor);
                continue;
            }
            if !open.insert(top) {
                return Err(ContentsError::Cycle(self.name(top)));
            }
            for g in missing {
                if !self.module.global(g).live {
                    return Err(ContentsError::Dangling(self.name(top)));
                }
                if open.contains(&g) {
                    return Err(ContentsError::Cycle(self.name(g)));
                }
                stack.push(g);
            }
        }
        done.remove(&global).ok_or_else(|| ContentsError::Absent(self.name(global)))
    }

    fn name(&self, global: GlobalId) -> String {
        self.module.str(self.module.global(global).name).to_owned()
    }

    fn wrap(&self, global: GlobalId, error: TensorError) -> ContentsError {
        ContentsError::Tensor { global: self.name(global), error }
    }

    /// Element type and extents that a global is declared with.
    fn declared(&self, global: GlobalId) -> Result<(gs_ir::ElemType, Vec<usize>), ContentsError> {
        let ty = self.module.ty(self.module.global(global).ty).as_tensor();
        let fixed = ty.and_then(|t| Some((t.elem, t.const_dims()?)));
        let (elem, dims) = fixed.ok_or_else(|| ContentsError::Type(self.name(global)))?;
        Ok((elem, crate::packed::extents(&dims).map_err(|e| self.wrap(global, e))?))
    }

    fn check_length(&self, global: GlobalId, data: &TensorData) -> Result<(), ContentsError> {
        let (elem, dims) = self.declared(global)?;
        let count = crate::tensor::count(&dims);
        let expected = match data {
            TensorData::Strings(_) => count,
            TensorData::Bytes(_) => count.and_then(|n| elem.bytes_for(n)),
        };
        let found = match data {
            TensorData::Strings(s) => s.len(),
            TensorData::Bytes(b) => b.len(),
        };
        match expected {
            Some(expected) if expected == found => Ok(()),
            Some(expected) => Err(self.wrap(global, TensorError::Bytes { expected, found })),
            None => Err(self.wrap(global, TensorError::Elem(elem))),
        }
    }

    /// Contents that are not derived.
    fn plain(&self, global: GlobalId) -> Result<Tensor, ContentsError> {
        let (elem, dims) = self.declared(global)?;
        let made = match &self.module.global(global).init {
            Init::Absent | Init::Derived(_) => return Err(ContentsError::Absent(self.name(global))),
            Init::Data(data) => self.count(&dims).and_then(|_| Tensor::from_data(elem, dims, data)),
            Init::Splat(bytes) => self.count(&dims).and_then(|n| {
                let one = Tensor::from_bytes(elem, [], bytes)?;
                Tensor::new(elem, dims, one.storage().repeat(n))
            }),
            Init::Seeded { seed, dist } => self.count(&dims).and_then(|n| {
                let values: Vec<f64> = (0..n as u64).map(|i| sample(*seed, *dist, i)).collect();
                Tensor::from_f64s(elem, dims, &values)
            }),
        };
        made.map_err(|e| self.wrap(global, e))
    }

    /// Number of elements within the limit, for contents that take no bytes in the file.
    fn count(&self, dims: &[usize]) -> Result<usize, TensorError> {
        let limit = self.evaluator.map_or(1 << 32, |e| e.limits().0);
        let n = crate::tensor::volume(dims).filter(|&n| n <= limit).and_then(|_| crate::tensor::count(dims));
        n.ok_or_else(|| TensorError::Count { dims: dims.to_vec(), found: 0 })
    }

    fn derive(
        &self,
        global: GlobalId,
        derived: &Derived,
        done: &FxHashMap<GlobalId, Tensor>,
    ) -> Result<Tensor, ContentsError> {
        let decl = self.module.registry().decl(derived.kind);
        let failed = |error: Option<OpError>| ContentsError::Derived {
            global: self.name(global),
            op: decl.name.to_owned(),
            error: error.map(Box::new),
        };
        let builtin = || crate::ops::lookup(decl.name).map(crate::evaluator::Function::Builtin);
        let function =
            self.evaluator.map_or_else(builtin, |e| e.function(decl.name)).ok_or_else(|| failed(None))?;
        let operands: Vec<Option<Tensor>> =
            derived.operands.iter().map(|g| (*g).and_then(|g| self.narrow(g, done.get(&g)?))).collect();
        let (elements, steps) = self.evaluator.map_or((1 << 32, u64::MAX), Evaluator::limits);
        let budget = Budget { elements, steps: Cell::new(steps) };
        let ty = self.module.ty(self.module.global(global).ty);
        let place = derived.result as usize;
        let mut types = vec![Type::Any; place];
        types.push(ty.clone());
        let mut no_region = |_: usize, _: Vec<Tensor>| Err(crate::exec::ExecError::Graph);
        let ctx = OpCtx {
            decl,
            attrs: &derived.attrs,
            operands: &operands,
            result_count: place + 1,
            result_types: &types,
            precision: Precision::Native,
            arithmetic: &Arithmetic::ONNX_RUNTIME_CPU,
            budget: &budget,
            symbols: &|_| None,
            regions: RefCell::new(&mut no_region),
        };
        let results = function.call(&ctx).map_err(|e| failed(Some(e)))?;
        let tensor = results.into_iter().nth(place).ok_or_else(|| failed(None))?;
        let (elem, dims) = self.declared(global)?;
        if tensor.elem() != elem || tensor.dims() != dims {
            return Err(self.wrap(global, TensorError::Count { dims, found: tensor.len() }));
        }
        Ok(tensor)
    }

    /// Contents as an operand. What was set in a wider type is brought to the declared one.
    fn narrow(&self, global: GlobalId, tensor: &Tensor) -> Option<Tensor> {
        match self.declared(global) {
            Ok((elem, dims)) if elem != tensor.elem() => {
                Tensor::from_f64s(elem, dims, &tensor.to_f64s()?).ok()
            }
            _ => Some(tensor.clone()),
        }
    }

    /// Drops operands that nothing else reads.
    fn let_go(&self, derived: &Derived, done: &mut FxHashMap<GlobalId, Tensor>) {
        for g in derived.operands.iter().flatten() {
            if self.readers.get(g).is_none_or(|r| r.len() <= 1) {
                done.remove(g);
            }
        }
    }

    /// Keeps what several globals are derived from.
    fn keep(&mut self, global: GlobalId, tensor: &Tensor) {
        let shared = self.readers.get(&global).is_some_and(|r| r.len() > 1);
        let total = self.kept_elements.saturating_add(tensor.len());
        if shared && total <= KEEP_ELEMENTS {
            self.kept_elements = total;
            self.kept.insert(global, tensor.clone());
        }
    }
}

/// The packed contents of one global. For several, a [`Materializer`] computes what they share once.
///
/// # Errors
/// As [`Materializer::data`].
pub fn materialize(module: &Module, global: GlobalId) -> Result<TensorData, ContentsError> {
    Materializer::new(module).data(global)
}
