//! Type inference: what an operator's declaration sees of its operands, and the pass over a module.

use crate::attr::{Attr, AttrSet, TensorData};
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::entity::{GraphId, OpId, ValueId};
use crate::global::{Derived, Init, Role};
use crate::graph::Def;
use crate::module::Module;
use crate::registry::OpDecl;
use crate::types::{Known, Shape, TensorType, Type};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use thiserror::Error;

/// Why operands, attributes and an operator do not fit together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InferError(pub String);

impl InferError {
    /// An error with this text, which names operand and axis in the words of the declaration.
    pub fn new(text: impl Into<String>) -> Self {
        InferError(text.into())
    }
}

/// What is known of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Its type; extents may be [`Dim::Unknown`] when it is fresh from an inference function.
    pub ty: Type,
    /// Its elements, when it is a small integer tensor of which some are known.
    pub known: Option<Known>,
}

impl Fact {
    /// A fact that says no more than the type.
    pub fn of(ty: Type) -> Self {
        Fact { ty, known: None }
    }
}

/// What an inference function reads and writes.
pub struct InferCtx<'a> {
    /// The operator.
    pub decl: &'a OpDecl,
    /// One entry per operand place; `None` where it is absent.
    pub operands: &'a [Option<Fact>],
    /// The attributes, in normal form.
    pub attrs: &'a AttrSet,
    /// The types that each region returns.
    pub regions: &'a [Vec<Type>],
    /// How many results the operation has (for variadic ones).
    pub result_count: usize,
    /// What the function found: one entry per result.
    pub results: SmallVec<[Fact; 2]>,
}

impl InferCtx<'_> {
    /// The fact of an operand that must be there.
    pub fn operand(&self, index: usize) -> Result<&Fact, InferError> {
        self.operands.get(index).and_then(Option::as_ref).ok_or_else(|| {
            let name = self.decl.operand(index).map_or("?", |o| o.name);
            InferError(format!("operand `{name}` is missing"))
        })
    }

    /// The fact of an operand that may be absent.
    pub fn optional(&self, index: usize) -> Option<&Fact> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// The tensor type of an operand; `None` when nothing is known of it.
    pub fn tensor(&self, index: usize) -> Result<Option<&TensorType>, InferError> {
        match &self.operand(index)?.ty {
            Type::Tensor(t) => Ok(Some(t)),
            Type::Any => Ok(None),
            _ => {
                let name = self.decl.operand(index).map_or("?", |o| o.name);
                Err(InferError(format!("operand `{name}` must be a tensor")))
            }
        }
    }

    /// Normalises an axis that may count from the end.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, InferError> {
        let r = rank as i64;
        if (-r..r).contains(&axis) {
            Ok(if axis < 0 { axis + r } else { axis } as usize)
        } else {
            Err(InferError(format!("axis {axis} is outside a tensor of rank {rank}")))
        }
    }

    /// Adds a result.
    pub fn push(&mut self, ty: Type) {
        self.results.push(Fact::of(ty));
    }

    /// Adds a tensor result.
    pub fn push_tensor(&mut self, elem: ElemType, shape: Option<Shape>) {
        self.push(Type::Tensor(TensorType { elem, shape }));
    }

    /// Adds a result whose elements are (partly) known.
    pub fn push_known(&mut self, ty: Type, known: Option<Known>) {
        self.results.push(Fact { ty, known: known.filter(|k| k.elems.len() <= Known::LIMIT) });
    }
}

/// The inference function of operators of which nothing is known.
pub fn unknown(ctx: &mut InferCtx<'_>) -> Result<(), InferError> {
    for _ in 0..ctx.result_count {
        ctx.push(Type::Any);
    }
    Ok(())
}

/// Runs the inference function of an operator over given facts. The result has one entry per result.
pub fn infer_facts(
    decl: &OpDecl,
    operands: &[Option<Fact>],
    attrs: &AttrSet,
    regions: &[Vec<Type>],
    result_count: usize,
) -> Result<SmallVec<[Fact; 2]>, InferError> {
    let mut ctx = InferCtx { decl, operands, attrs, regions, result_count, results: SmallVec::new() };
    (decl.infer)(&mut ctx)?;
    let mut results = ctx.results;
    if results.len() < result_count && decl.result(results.len()).is_none() {
        return Err(InferError(format!("{} has {} results, not {result_count}", decl.name, results.len())));
    }
    while results.len() < result_count {
        results.push(Fact::of(Type::Any));
    }
    results.truncate(result_count);
    Ok(results)
}

/// Follows the known contents of values, with memory, over a module that does not change meanwhile.
pub struct Knowledge<'m> {
    module: &'m Module,
    memo: FxHashMap<ValueId, Option<Known>>,
}

impl<'m> Knowledge<'m> {
    /// An analysis over this module.
    pub fn new(module: &'m Module) -> Self {
        Self { module, memo: FxHashMap::default() }
    }

    /// What is known of the elements of a value.
    pub fn of(&mut self, value: ValueId) -> Option<Known> {
        self.at_depth(value, 0)
    }

    /// Type and known contents of a value.
    pub fn fact(&mut self, value: ValueId) -> Fact {
        Fact { ty: self.module.type_of(value).clone(), known: self.of(value) }
    }

    fn at_depth(&mut self, value: ValueId, depth: usize) -> Option<Known> {
        // Longer shape computations than this are not followed; bounds the stack.
        const DEPTH: usize = 64;
        if depth > DEPTH || !may_be_shape(self.module.type_of(value)) {
            return None;
        }
        if let Some(known) = self.memo.get(&value) {
            return known.clone();
        }
        let known = match self.module.value(value).def {
            Def::Global(g) => {
                let global = self.module.global(g);
                if global.role != Role::Const || self.module.is_written(g) {
                    None
                } else {
                    known_of_init(self.module.ty(global.ty), &global.init)
                }
            }
            Def::Result(op, index) => self.known_result(op, index, depth),
            Def::Param(..) | Def::Erased => None,
        };
        self.memo.insert(value, known.clone());
        known
    }

    fn known_result(&mut self, op: OpId, index: u32, depth: usize) -> Option<Known> {
        let m = self.module;
        if !m.op(op).regions().is_empty() {
            return None;
        }
        let operands: Vec<Option<Fact>> = m
            .op(op)
            .operands()
            .map(|v| v.map(|v| Fact { ty: m.type_of(v).clone(), known: self.at_depth(v, depth + 1) }))
            .collect();
        let results =
            infer_facts(m.decl(op), &operands, m.attrs_of(op), &[], m.op(op).results().len()).ok()?;
        results.into_iter().nth(index as usize)?.known
    }
}

/// Whether a type can be that of a followed shape: an integer tensor of rank 0 or 1, not too long. Truth values
/// are followed too (as 0 and 1): exporters choose between extents by comparing them.
pub(crate) fn may_be_shape(ty: &Type) -> bool {
    let Some(t) = ty.as_tensor() else { return false };
    matches!(t.elem, ElemType::I64 | ElemType::I32 | ElemType::Bool)
        && match t.dims() {
            Some([]) => true,
            Some([Dim::Const(n)]) => *n <= Known::LIMIT as i64,
            Some([_]) => true,
            _ => false,
        }
}

/// The elements of a small constant integer tensor.
fn known_of_init(ty: &Type, init: &Init) -> Option<Known> {
    let t = ty.as_tensor()?;
    let count = t.count()?;
    let bytes = match init {
        Init::Data(TensorData::Bytes(b)) => b.to_vec(),
        Init::Splat(one) => one.repeat(count.min(Known::LIMIT)),
        _ => return None,
    };
    let elems: SmallVec<[Dim; 4]> = match t.elem {
        ElemType::I64 => bytes
            .chunks_exact(8)
            .map(|c| Dim::Const(i64::from_le_bytes(c.try_into().unwrap_or([0; 8]))))
            .collect(),
        ElemType::I32 => bytes
            .chunks_exact(4)
            .map(|c| Dim::Const(i64::from(i32::from_le_bytes(c.try_into().unwrap_or([0; 4])))))
            .collect(),
        _ => return None,
    };
    (elems.len() == count).then_some(Known { elems, scalar: t.rank() == Some(0) })
}

/// An operation whose operands and attributes do not fit, found by [`infer_module`].
#[derive(Clone, Debug)]
pub struct Misfit {
    /// The operation.
    pub op: OpId,
    /// What is wrong.
    pub error: InferError,
}

/// Infers the result types of every operation, in order, and stores them. Where a function cannot say an
/// extent, the stored one stays if it has the same rank, else a fresh symbol stands there. Running it twice
/// changes nothing more. Operations that do not fit keep their types and are returned.
pub fn infer_module(module: &mut Module) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    for graph in module.entries().to_vec() {
        infer_graph(module, graph, &mut misfits);
    }
    misfits
}

fn infer_graph(module: &mut Module, graph: GraphId, misfits: &mut Vec<Misfit>) {
    for op in module.ops_nested_inner_first(graph) {
        match infer_op(module, op) {
            Ok(facts) => {
                for (i, fact) in facts.into_iter().enumerate() {
                    let Some(result) = module.op(op).results().get(i).copied().and_then(ValueId::some) else {
                        continue;
                    };
                    module.refine_type(result, fact.ty);
                }
            }
            Err(error) => misfits.push(Misfit { op, error }),
        }
    }
}

/// Infers one operation from the stored types of its operands and what is known of their contents.
pub fn infer_op(module: &Module, op: OpId) -> Result<SmallVec<[Fact; 2]>, InferError> {
    let mut knowledge = Knowledge::new(module);
    let operands: Vec<Option<Fact>> =
        module.op(op).operands().map(|v| v.map(|v| knowledge.fact(v))).collect();
    let regions = region_types(module, op);
    infer_facts(module.decl(op), &operands, module.attrs_of(op), &regions, module.op(op).results().len())
}

/// Infers the contents of a derived global from its operands.
///
/// # Errors
/// As [`infer_facts`], and where the operation has no such result.
pub fn infer_derived(module: &Module, derived: &Derived) -> Result<Option<Fact>, InferError> {
    let decl = module.registry().decl(derived.kind);
    let (place, count) = (derived.result as usize, derived.results as usize);
    if place >= count || decl.result(count - 1).is_none() {
        return Err(InferError(format!("`{}` has no result {place} of {count}", decl.name)));
    }
    let mut knowledge = Knowledge::new(module);
    let values = derived.operands.iter().map(|g| g.map(|g| module.global(g).value));
    let facts: Vec<Option<Fact>> = values.map(|v| v.map(|v| knowledge.fact(v))).collect();
    Ok(infer_facts(decl, &facts, &derived.attrs, &[], count)?.into_iter().nth(place))
}

/// The types that each region of an operation returns.
pub(crate) fn region_types(module: &Module, op: OpId) -> Vec<Vec<Type>> {
    let types = |g: GraphId| module.graph(g).results().map(|v| module.type_of(v).clone()).collect();
    module.op(op).regions().iter().map(|&g| types(g)).collect()
}

impl Module {
    /// Operations in an order in which regions come before the operation that carries them and operands before users.
    fn ops_nested_inner_first(&self, graph: GraphId) -> Vec<OpId> {
        let mut out = Vec::new();
        let mut stack = vec![(self.graphs[graph].first, false)];
        while let Some((op, regions_done)) = stack.pop() {
            let Some(op) = op.some() else { continue };
            if regions_done || self.ops[op].regions().is_empty() {
                out.push(op);
                stack.push((self.ops[op].next, false));
            } else {
                stack.push((op, true));
                stack.extend(self.ops[op].regions().iter().rev().map(|&r| (self.graphs[r].first, false)));
            }
        }
        out
    }

    /// Stores an inferred type, keeping what the stored one knows better.
    pub(crate) fn refine_type(&mut self, value: ValueId, inferred: Type) {
        let refined = self.refine(self.type_of(value).clone(), inferred);
        self.values[value].ty = self.intern_type(refined);
    }

    /// Stores what was inferred for a result of `op` after something that it depends on changed. What the source stated
    /// may not hold any more; only where nothing can be inferred the stored type stays, and an extent that is a symbol
    /// of this value alone.
    pub(crate) fn retype(&mut self, value: ValueId, inferred: Type, op: OpId) {
        if inferred == Type::Any || inferred == *self.type_of(value) {
            return;
        }
        let mut kept = Vec::new();
        if let (Type::Tensor(TensorType { shape: Some(new), .. }), Some(old)) =
            (&inferred, self.type_of(value).dims())
            && new.len() == old.len()
            && new.iter().any(Dim::is_unknown)
        {
            let old = old.to_vec();
            let mut taken = Vec::new();
            for v in self.ops[op].present_operands() {
                let dims = self.type_of(v).dims().unwrap_or_default();
                dims.iter().for_each(|d| d.visit_symbols(&mut |s| taken.push(s)));
            }
            let is_own = |d: &Dim| {
                d.as_symbol().is_some_and(|s| self.symbols[s].name.is_none() && !taken.contains(&s))
            };
            kept = old.into_iter().map(|d| if is_own(&d) { d } else { Dim::Unknown }).collect();
        }
        let mut new = inferred;
        if let Type::Tensor(TensorType { shape: Some(shape), .. }) = &mut new {
            for (d, old) in shape.iter_mut().zip(kept).filter(|(d, _)| d.is_unknown()) {
                *d = old;
            }
        }
        let new = self.settle(new);
        self.values[value].ty = self.intern_type(new);
    }

    fn refine(&mut self, stored: Type, inferred: Type) -> Type {
        match (stored, inferred) {
            (stored, Type::Any) => stored,
            (stored, Type::Tensor(new)) => {
                let old = match stored {
                    Type::Tensor(t) if t.elem == new.elem => t.shape,
                    _ => None,
                };
                Type::Tensor(TensorType { elem: new.elem, shape: self.refine_shape(old, new.shape) })
            }
            (_, new) => self.settle(new),
        }
    }

    fn refine_shape(&mut self, old: Option<Shape>, new: Option<Shape>) -> Option<Shape> {
        let Some(mut new) = new else { return old };
        let old = old.filter(|o| o.len() == new.len());
        for (i, d) in new.iter_mut().enumerate() {
            let before = old.as_ref().map(|o| &o[i]);
            // A number that the source states beats a symbol that we can only name.
            match (before, &*d) {
                (Some(b), Dim::Unknown) => *d = b.clone(),
                (Some(b @ Dim::Const(_)), Dim::Expr(_)) => *d = b.clone(),
                (None, Dim::Unknown) => *d = Dim::symbol(self.fresh_symbol()),
                _ => {}
            }
        }
        Some(new)
    }

    /// Replaces unsayable extents by fresh symbols.
    pub fn settle(&mut self, mut ty: Type) -> Type {
        let mut inner = &mut ty;
        let shape = loop {
            match inner {
                Type::Tensor(t) | Type::Sparse(t) => break t.shape.as_mut(),
                Type::Sequence(item) | Type::Optional(item) | Type::Map(_, item) => inner = item,
                Type::Any => break None,
            }
        };
        for dim in shape.into_iter().flatten().filter(|d| d.is_unknown()) {
            *dim = Dim::symbol(self.fresh_symbol());
        }
        ty
    }
}

/// Broadcasts two shapes as NumPy does; the error names the extents that do not fit.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Shape, InferError> {
    let rank = a.len().max(b.len());
    let at =
        |s: &[Dim], i: usize| if i + s.len() < rank { Dim::Const(1) } else { s[i + s.len() - rank].clone() };
    (0..rank)
        .map(|i| {
            let (x, y) = (at(a, i), at(b, i));
            match (&x, &y) {
                (Dim::Const(1), _) => Ok(y),
                (_, Dim::Const(1)) => Ok(x),
                _ if x == y => Ok(x),
                (Dim::Const(_), Dim::Const(_)) => {
                    Err(InferError(format!("extents {x:?} and {y:?} do not broadcast")))
                }
                // One is a number other than 1: the symbol must be it, or 1.
                (Dim::Const(_), _) => Ok(x),
                (_, Dim::Const(_)) => Ok(y),
                _ => Ok(Dim::Unknown),
            }
        })
        .collect()
}

/// Reads a known contents list given by an attribute of either kind.
pub fn dims_attr(attr: Option<&Attr>) -> Option<SmallVec<[Dim; 4]>> {
    match attr? {
        Attr::Dims(d) => Some(d.iter().cloned().collect()),
        Attr::Ints(v) => Some(v.iter().map(|&n| Dim::Const(n)).collect()),
        _ => None,
    }
}
