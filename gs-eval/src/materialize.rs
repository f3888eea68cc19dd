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
use std::collections::{BTreeSet, VecDeque};

/// Makes contents of globals one at a time, in any order. What is read more than once, by globals that are derived
/// from it or by a graph, is computed once and kept for a while; everything else is let go as soon as it was used, so
/// that writing a network out takes the memory of its largest weights, not of all.
///
/// A short text can describe contents of any size, so the memory is limited: see [`Self::with_byte_limit`].
pub struct Materializer<'m> {
    module: &'m Module,
    evaluator: Option<&'m Evaluator>,
    /// The derived globals that read each global, once for each operand.
    readers: FxHashMap<GlobalId, Vec<GlobalId>>,
    /// Contents that were set in the place of the module's.
    set: FxHashMap<GlobalId, Tensor>,
    kept: Kept,
    byte_limit: usize,
}

/// Bytes that making one global may take, unless the caller says otherwise.
const BYTE_LIMIT: usize = 4 << 30;

/// Which share of the limit is for contents that are kept.
const KEPT_SHARE: usize = 4;

/// Contents that will be read again, the oldest let go first.
#[derive(Default)]
struct Kept {
    tensors: FxHashMap<GlobalId, Tensor>,
    order: VecDeque<GlobalId>,
    bytes: usize,
}

impl Kept {
    fn put(&mut self, global: GlobalId, tensor: &Tensor, limit: usize) {
        if bytes(tensor) > limit || self.tensors.contains_key(&global) {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes(tensor));
        while self.bytes > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
        self.tensors.insert(global, tensor.clone());
        self.order.push_back(global);
    }

    /// Its place in the order stays: whoever comes upon it finds nothing to remove, or a younger one.
    fn remove(&mut self, global: GlobalId) {
        if let Some(old) = self.tensors.remove(&global) {
            self.bytes = self.bytes.saturating_sub(bytes(&old));
        }
    }
}

/// Contents that are needed for the one that is being made.
#[derive(Default)]
struct Held {
    tensors: FxHashMap<GlobalId, Tensor>,
    bytes: usize,
}

impl Held {
    fn put(&mut self, global: GlobalId, tensor: Tensor) {
        self.bytes = self.bytes.saturating_add(bytes(&tensor));
        self.tensors.insert(global, tensor);
    }

    fn remove(&mut self, global: GlobalId) {
        if let Some(old) = self.tensors.remove(&global) {
            self.bytes = self.bytes.saturating_sub(bytes(&old));
        }
    }
}

/// Bytes of a tensor's elements as they lie in memory.
fn bytes(tensor: &Tensor) -> usize {
    tensor.len().saturating_mul(crate::tensor::width(tensor.elem()))
}

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
        let (set, kept) = (FxHashMap::default(), Kept::default());
        Self { module, evaluator, readers, set, kept, byte_limit: BYTE_LIMIT }
    }

    /// The same with another limit of the bytes that making one global may take (4 GiB otherwise): its contents as
    /// they lie in memory, and at the same time those of what it is made from. Contents that are kept for later take a
    /// quarter of that besides; stored contents that are only handed on take nothing.
    pub fn with_byte_limit(mut self, bytes: usize) -> Self {
        self.byte_limit = bytes;
        self
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
        changed.iter().for_each(|&global| self.kept.remove(global));
        Ok(changed.into_iter().collect())
    }

    /// Lets go of what is kept for further globals. It is computed again where it is needed.
    pub fn let_go_kept(&mut self) {
        self.kept = Kept::default();
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
        let mut done = Held::default();
        let mut open: FxHashSet<GlobalId> = FxHashSet::default();
        // An explicit stack: a file can derive more deeply than the program's stack allows.
        let mut stack = vec![global];
        while let Some(&top) = stack.last() {
            if done.tensors.contains_key(&top) {
                stack.pop();
                continue;
            }
            if let Some(kept) = self.set.get(&top).or_else(|| self.kept.tensors.get(&top)) {
                done.put(top, kept.clone());
                continue;
            }
            self.check_memory(top, done.bytes)?;
            let Init::Derived(derived) = &self.module.global(top).init else {
                done.put(top, self.plain(top)?);
                continue;
            };
            let missing: Vec<GlobalId> = derived
                .operands
                .iter()
                .flatten()
                .filter(|g| !done.tensors.contains_key(g))
                .copied()
                .collect();
            if missing.is_empty() {
                let tensor = self.derive(top, derived, &done.tensors)?;
                self.let_go(derived, &mut done);
                self.keep(top, &tensor);
                open.remove(&top);
                done.put(top, tensor);
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
        done.tensors.remove(&global).ok_or_else(|| ContentsError::Absent(self.name(global)))
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

    /// Whether a global may be made while so many bytes are held.
    fn check_memory(&self, global: GlobalId, held: usize) -> Result<(), ContentsError> {
        let (elem, dims) = self.declared(global)?;
        let count = crate::tensor::count(&dims).unwrap_or(usize::MAX);
        let bytes = count.saturating_mul(crate::tensor::width(elem)).saturating_add(held);
        let limit = self.byte_limit;
        if bytes > limit {
            return Err(ContentsError::Memory { global: self.name(global), bytes, limit });
        }
        Ok(())
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
                Tensor::new(elem, dims, one.storage().repeat(n)?)
            }),
            Init::Seeded { seed, dist } => self.count(&dims).and_then(|n| {
                let mut values: Vec<f64> = crate::tensor::room(n)?;
                values.extend((0..n as u64).map(|i| sample(*seed, *dist, i)));
                Tensor::from_f64s(elem, dims, &values)
            }),
        };
        made.map_err(|e| self.wrap(global, e))
    }

    /// Number of elements within the limit, for contents that take no bytes in the file.
    fn count(&self, dims: &[usize]) -> Result<usize, TensorError> {
        let limit = self.limits().0;
        let n = crate::tensor::volume(dims).filter(|&n| n <= limit).and_then(|_| crate::tensor::count(dims));
        n.ok_or_else(|| TensorError::Count { dims: dims.to_vec(), found: 0 })
    }

    /// Most elements of one tensor, also of what an operation needs within itself, and steps of work.
    fn limits(&self) -> (usize, u64) {
        self.evaluator.map_or((self.byte_limit, u64::MAX), Evaluator::limits)
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
        let (elements, steps) = self.limits();
        let budget = Budget { elements, steps: Cell::new(steps) };
        let ty = self.module.ty(self.module.global(global).ty);
        let place = derived.result as usize;
        let count = (derived.results as usize).max(place + 1);
        let mut types = vec![Type::Any; count];
        types[place] = ty.clone();
        let mut no_region = |_: usize, _: Vec<Tensor>| Err(crate::exec::ExecError::Graph);
        let ctx = OpCtx {
            decl,
            attrs: &derived.attrs,
            operands: &operands,
            result_count: count,
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
    fn let_go(&self, derived: &Derived, done: &mut Held) {
        for &g in derived.operands.iter().flatten() {
            if self.readers.get(&g).is_none_or(|r| r.len() <= 1) {
                done.remove(g);
            }
        }
    }

    /// Keeps what is read more than once. A graph counts as one reader: the global is asked for by itself then, and
    /// without keeping it a chain of such globals would be computed from its beginning for each of its links.
    fn keep(&mut self, global: GlobalId, tensor: &Tensor) {
        let by_graph = !self.module.value(self.module.global(global).value).uses().is_empty();
        let readers = self.readers.get(&global).map_or(0, Vec::len) + usize::from(by_graph);
        if readers > 1 {
            self.kept.put(global, tensor, self.byte_limit / KEPT_SHARE);
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
