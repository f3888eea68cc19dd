//! What the inference functions share: reading operands and attributes by name, checks, extents in words.
//! An operand of which nothing is known is let through everywhere; what is known must fit.

use crate::dim::{Dim, Expr, Factor};
use crate::elem::ElemType;
use crate::entity::Handle;
use crate::infer::{Fact, InferCtx, InferError, broadcast};
use crate::registry::{Arity, OnnxAttr, OnnxDecl, OnnxForm, OnnxInput, form};
use crate::types::{Known, Shape, TensorType, Type};

/// What inference functions return.
pub(crate) type Inferred = Result<(), InferError>;

/// An error with this text.
pub(crate) fn fail<T>(text: impl Into<String>) -> Result<T, InferError> {
    Err(InferError::new(text))
}

// ---- operands ----

/// The fact of an operand; `None` where an optional one is absent.
pub(crate) fn fact<'a>(ctx: &InferCtx<'a>, name: &str) -> Result<Option<&'a Fact>, InferError> {
    let index = ctx.decl.operand_index(name).unwrap_or(usize::MAX);
    let found = ctx.operands.get(index).and_then(Option::as_ref);
    match ctx.decl.operands.get(index) {
        Some(o) if o.arity == Arity::One && found.is_none() => fail(format!("operand `{name}` is missing")),
        _ => Ok(found),
    }
}

/// The tensor type of an operand; `None` where it is absent or nothing is known of it.
pub(crate) fn tensor<'a>(ctx: &InferCtx<'a>, name: &str) -> Result<Option<&'a TensorType>, InferError> {
    match fact(ctx, name)? {
        Some(f) => as_tensor(f, name),
        None => Ok(None),
    }
}

/// The tensor type of a fact, with the name of its operand for the error.
pub(crate) fn as_tensor<'a>(fact: &'a Fact, name: &str) -> Result<Option<&'a TensorType>, InferError> {
    match &fact.ty {
        Type::Tensor(t) => Ok(Some(t)),
        Type::Any => Ok(None),
        Type::Sequence(_) => fail(format!("operand `{name}` must be a tensor, it is a sequence")),
        Type::Optional(_) => fail(format!("operand `{name}` must be a tensor, it is an optional value")),
        Type::Map(..) => fail(format!("operand `{name}` must be a tensor, it is a map")),
        Type::Sparse(_) => fail(format!("operand `{name}` must be a dense tensor, it is a sparse one")),
    }
}

/// The extents of an operand; `None` where it is absent or its rank is unknown.
pub(crate) fn dims<'a>(ctx: &InferCtx<'a>, name: &str) -> Result<Option<&'a [Dim]>, InferError> {
    Ok(tensor(ctx, name)?.and_then(TensorType::dims))
}

/// The element type of an operand, where it is known.
pub(crate) fn elem(ctx: &InferCtx<'_>, name: &str) -> Result<Option<ElemType>, InferError> {
    Ok(tensor(ctx, name)?.map(|t| t.elem))
}

/// The element type that all these operands must share.
pub(crate) fn common_elem(ctx: &InferCtx<'_>, names: &[&str]) -> Result<Option<ElemType>, InferError> {
    let mut found: Option<(ElemType, &str)> = None;
    for &name in names {
        match (elem(ctx, name)?, found) {
            (Some(e), Some((first, of))) if e != first => {
                return fail(format!(
                    "operands `{of}` and `{name}` must have the same elements, they have {first} and {e}"
                ));
            }
            (Some(e), None) => found = Some((e, name)),
            _ => {}
        }
    }
    Ok(found.map(|f| f.0))
}

/// Checks the element type of an operand; `wanted` says in words which ones are accepted.
pub(crate) fn want_elem(
    ctx: &InferCtx<'_>,
    name: &str,
    accepts: fn(ElemType) -> bool,
    wanted: &str,
) -> Result<Option<ElemType>, InferError> {
    match elem(ctx, name)? {
        Some(e) if !accepts(e) => fail(format!("operand `{name}` must have {wanted} elements, it has {e}")),
        e => Ok(e),
    }
}

/// A type with which arithmetic is done: not a string, not a truth value.
pub(crate) fn is_numeric(elem: ElemType) -> bool {
    !matches!(elem, ElemType::Str | ElemType::Bool)
}

/// A type of indices, shapes and counts.
pub(crate) fn is_index(elem: ElemType) -> bool {
    matches!(elem, ElemType::I32 | ElemType::I64)
}

/// The truth values.
pub(crate) fn is_bool(elem: ElemType) -> bool {
    elem == ElemType::Bool
}

/// Checks that an operand has this rank, where its rank is known.
pub(crate) fn want_rank<'a>(
    ctx: &InferCtx<'a>,
    name: &str,
    rank: usize,
) -> Result<Option<&'a [Dim]>, InferError> {
    match dims(ctx, name)? {
        Some(d) if d.len() != rank => {
            fail(format!("operand `{name}` must have rank {rank}, its shape is {}", show_shape(d)))
        }
        d => Ok(d),
    }
}

/// All places of a variadic operand, the first of which is at `from`.
pub(crate) fn rest<'a>(ctx: &InferCtx<'a>, from: usize) -> &'a [Option<Fact>] {
    ctx.operands.get(from..).unwrap_or(&[])
}

/// What is known of the elements of an operand. A short integer vector of which nothing is known counts as a list
/// of unknown elements, so that its neighbours in a concatenation stay known.
pub(crate) fn known(fact: &Fact) -> Option<Known> {
    if let Some(k) = &fact.known {
        return Some(k.clone());
    }
    match fact.ty.as_tensor().filter(|t| is_index(t.elem))?.dims()? {
        [] => Some(Known::scalar(Dim::Unknown)),
        [Dim::Const(n)] if (0..=Known::LIMIT as i64).contains(n) => {
            Some(Known::vector(std::iter::repeat_n(Dim::Unknown, *n as usize)))
        }
        _ => None,
    }
}

/// An element as a tensor of this type can hold it; unknown where it would wrap around.
pub(crate) fn held(elem: ElemType, value: Dim) -> Dim {
    match (&value, elem.int_range()) {
        (Dim::Const(n), Some((low, high))) if *n < low || *n > high => Dim::Unknown,
        _ => value,
    }
}

// ---- attributes ----

/// A whole-number attribute that has a default or must be there.
pub(crate) fn int(ctx: &InferCtx<'_>, name: &str) -> Result<i64, InferError> {
    match ctx.decl.int(ctx.attrs, name) {
        Some(v) => Ok(v),
        None => fail(format!("attribute `{name}` is missing or no integer")),
    }
}

/// A whole-number attribute that may be absent.
pub(crate) fn optional_int(ctx: &InferCtx<'_>, name: &str) -> Option<i64> {
    ctx.decl.int(ctx.attrs, name)
}

/// A whole-number attribute of at least 1.
pub(crate) fn positive(ctx: &InferCtx<'_>, name: &str) -> Result<i64, InferError> {
    match int(ctx, name)? {
        v if v >= 1 => Ok(v),
        v => fail(format!("attribute `{name}` must be at least 1, it is {v}")),
    }
}

/// A list attribute that must be there.
pub(crate) fn ints<'a>(ctx: &InferCtx<'a>, name: &str) -> Result<&'a [i64], InferError> {
    match ctx.attrs.ints(name) {
        Some(v) => Ok(v),
        None => fail(format!("attribute `{name}` is missing or no list of integers")),
    }
}

/// A list attribute with one entry for each of `count` axes, its default where it is absent.
pub(crate) fn list(ctx: &InferCtx<'_>, name: &str, count: usize) -> Result<Vec<i64>, InferError> {
    match (ctx.decl.list(ctx.attrs, name, count), ctx.attrs.ints(name)) {
        (Some(v), _) => Ok(v),
        (None, Some(v)) => fail(format!("attribute `{name}` has {} entries, {count} are needed", v.len())),
        (None, None) => fail(format!("attribute `{name}` is missing or no list of integers")),
    }
}

/// A truth-value attribute.
pub(crate) fn flag(ctx: &InferCtx<'_>, name: &str) -> bool {
    ctx.decl.flag(ctx.attrs, name)
}

/// A list of axes, each made to count from the front; no axis may occur twice.
pub(crate) fn axes(ctx: &InferCtx<'_>, given: &[i64], rank: usize) -> Result<Vec<usize>, InferError> {
    let mut out = Vec::with_capacity(given.len());
    for &a in given {
        let axis = ctx.axis(a, rank)?;
        if out.contains(&axis) {
            return fail(format!("axis {a} is listed twice"));
        }
        out.push(axis);
    }
    Ok(out)
}

// ---- extents ----

/// Two extents that must be equal: the one that says more, or an error that tells where both come from.
pub(crate) fn agree(a: &Dim, of_a: &str, b: &Dim, of_b: &str) -> Result<Dim, InferError> {
    if a.surely_differs(b) {
        return fail(format!("{of_a} is {} but {of_b} is {}", show(a), show(b)));
    }
    Ok(meet(a, b))
}

/// Of two names for one extent, the one that says more.
pub(crate) fn meet(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Const(_), _) | (Dim::Expr(_), Dim::Expr(_) | Dim::Unknown) => a.clone(),
        _ => b.clone(),
    }
}

/// Broadcasts two shapes of known or unknown rank; the names are for the error.
pub(crate) fn broadcast_named(
    a: Option<&[Dim]>,
    of_a: &str,
    b: Option<&[Dim]>,
    of_b: &str,
) -> Result<Option<Shape>, InferError> {
    let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
    match broadcast(a, b) {
        Ok(shape) => Ok(Some(shape)),
        Err(_) => fail(format!("{of_a} {} and {of_b} {} do not broadcast", show_shape(a), show_shape(b))),
    }
}

/// Whether a shape may broadcast to another without widening it.
pub(crate) fn fits_into(small: &[Dim], whole: &[Dim]) -> bool {
    small.len() <= whole.len()
        && small
            .iter()
            .rev()
            .zip(whole.iter().rev())
            .all(|(s, w)| *s == Dim::Const(1) || !s.surely_differs(w))
}

/// The product of extents.
pub(crate) fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::Const(1), |p, d| p.mul(d))
}

/// The least value that an extent can have when every symbol is at least 1 (an axis without elements is never
/// written as a symbol); `None` where that cannot be said.
pub(crate) fn least(dim: &Dim) -> Option<i64> {
    fn factor(f: &Factor) -> Option<i64> {
        match f {
            Factor::Symbol(_) => Some(1),
            Factor::FloorDiv(e, k) => expr(e).map(|v| v.div_euclid(*k)),
        }
        .filter(|v| *v >= 0)
    }
    fn expr(e: &Expr) -> Option<i64> {
        e.terms.iter().try_fold(e.constant, |sum, t| {
            let product = t.factors.iter().try_fold(t.coeff, |p, f| p.checked_mul(factor(f)?))?;
            sum.checked_add(product).filter(|_| t.coeff > 0)
        })
    }
    match dim {
        Dim::Const(n) => Some(*n),
        Dim::Expr(e) => expr(e),
        Dim::Unknown => None,
    }
}

/// An extent in words. Symbols have no names here: `s3` is the fourth symbol of the module.
pub(crate) fn show(dim: &Dim) -> String {
    dim.words(&|s| format!("s{}", s.index()))
}

/// A shape in words.
pub(crate) fn show_shape(dims: &[Dim]) -> String {
    format!("[{}]", dims.iter().map(show).collect::<Vec<_>>().join(", "))
}

// ---- results ----

/// The type of a tensor of which the element type, the shape or both may be unknown.
pub(crate) fn tensor_type(elem: Option<ElemType>, shape: Option<Shape>) -> Type {
    match elem {
        Some(elem) => Type::Tensor(TensorType { elem, shape }),
        None => Type::Any,
    }
}

/// Adds a result of which the element type, the shape or both may be unknown.
pub(crate) fn push(ctx: &mut InferCtx<'_>, elem: Option<ElemType>, shape: Option<Shape>) {
    ctx.push(tensor_type(elem, shape));
}

/// The result has the type of the first operand.
pub(crate) fn same(ctx: &mut InferCtx<'_>) -> Inferred {
    ctx.tensor(0)?;
    let ty = ctx.operand(0)?.ty.clone();
    ctx.push(ty);
    Ok(())
}

/// The result is the first operand, whatever it is, its contents too.
pub(crate) fn same_contents(ctx: &mut InferCtx<'_>) -> Inferred {
    let first = ctx.operand(0)?.clone();
    ctx.push_known(first.ty, first.known);
    Ok(())
}

/// A shape made of extents.
pub(crate) fn shape_of(dims: impl IntoIterator<Item = Dim>) -> Shape {
    dims.into_iter().collect()
}

// ---- ONNX forms ----

/// An operator of `ai.onnx`.
pub(crate) const fn onnx(name: &'static str, forms: &'static [OnnxForm]) -> Option<OnnxDecl> {
    Some(OnnxDecl { domain: "", name, forms })
}

/// An operator of `com.microsoft`.
pub(crate) const fn contrib(name: &'static str, forms: &'static [OnnxForm]) -> Option<OnnxDecl> {
    Some(OnnxDecl { domain: "com.microsoft", name, forms })
}

/// The one input `x`.
pub(crate) const X: &[OnnxInput] = &[OnnxInput::Operand("x")];
/// The two inputs `a` and `b`.
pub(crate) const AB: &[OnnxInput] = &[OnnxInput::Operand("a"), OnnxInput::Operand("b")];
/// The variadic input `inputs`.
pub(crate) const INPUTS: &[OnnxInput] = &[OnnxInput::Operand("inputs")];
/// The attribute of opset 1 that said which buffers may be overwritten.
pub(crate) const CONSUMED: OnnxAttr = OnnxAttr::Ignored("consumed_inputs");
/// Forms of a unary operator that exists since opset 1 and has no attributes.
pub(crate) const UNARY_1: &[OnnxForm] = &[form(1, X, &[CONSUMED]), form(6, X, &[])];
