//! Arithmetic of several tensors, element by element after broadcasting.

use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{Fact, InferCtx};
use crate::registry::{
    AxisRule, Default, OnnxAttr, OnnxForm, OnnxInput, OpDecl, OperandDecl, QRole, ResultDecl, Traits, form,
    uncovered,
};
use crate::types::{Known, Shape};

const PURE: Traits = Traits::PURE.and(Traits::ELEMENTWISE);
const TWO: &[OperandDecl] = &[OperandDecl::one("a", QRole::Data), OperandDecl::one("b", QRole::Data)];
const OWN: &[ResultDecl] = &[ResultDecl::one("y", QRole::Own)];

/// Before 7 operands broadcast only on request; without it they have equal shapes.
const NO_BROADCAST: OnnxAttr = OnnxAttr::Fixed("broadcast", Default::Int(0));
/// Where `broadcast` begins; without meaning when it is not set.
const BROADCAST_AXIS: OnnxAttr = OnnxAttr::Ignored("axis");
const BINARY_1: &[OnnxForm] = &[
    form(1, AB, &[NO_BROADCAST, BROADCAST_AXIS, CONSUMED]),
    form(6, AB, &[NO_BROADCAST, BROADCAST_AXIS]),
    form(7, AB, &[]),
];
const POW_1: &[OnnxForm] = &[form(1, AB, &[NO_BROADCAST, BROADCAST_AXIS]), form(7, AB, &[])];
/// Before 8 the operands had equal shapes.
const VARIADIC_1: &[OnnxForm] = &[form(1, INPUTS, &[CONSUMED]), form(6, INPUTS, &[])];
const X_SLOPE: &[OnnxInput] = &[OnnxInput::Operand("x"), OnnxInput::Operand("slope")];

/// A function of two numbers, with its forms in ONNX.
const fn binary(
    name: &'static str,
    doc: &'static str,
    onnx_name: &'static str,
    forms: &'static [OnnxForm],
) -> OpDecl {
    OpDecl {
        name,
        doc,
        operands: TWO,
        results: OWN,
        infer: arithmetic,
        traits: PURE,
        onnx: onnx(onnx_name, forms),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    }
}

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl { traits: PURE.and(Traits::COMMUTATIVE), ..binary("add", "a + b.", "Add", BINARY_1) },
    binary("sub", "a - b.", "Sub", BINARY_1),
    OpDecl { traits: PURE.and(Traits::COMMUTATIVE), ..binary("mul", "a * b.", "Mul", BINARY_1) },
    binary("div", "a / b; of integers the quotient without its fraction.", "Div", BINARY_1),
    OpDecl {
        infer: pow,
        ..binary("pow", "`a` to the power `b`, with elements of the type of `a`.", "Pow", POW_1)
    },
    OpDecl {
        operands: &[OperandDecl::variadic("inputs", QRole::Same)],
        results: &[ResultDecl::one("y", QRole::Same)],
        infer: variadic,
        ..binary("max", "The greatest of the operands.", "Max", VARIADIC_1)
    },
    OpDecl {
        operands: &[OperandDecl::variadic("inputs", QRole::Same)],
        results: &[ResultDecl::one("y", QRole::Same)],
        infer: variadic,
        ..binary("min", "The least of the operands.", "Min", VARIADIC_1)
    },
    OpDecl {
        operands: &[OperandDecl::variadic("inputs", QRole::Data)],
        infer: float_variadic,
        ..binary("sum", "The sum of the operands.", "Sum", VARIADIC_1)
    },
    OpDecl {
        operands: &[OperandDecl::variadic("inputs", QRole::Data)],
        infer: float_variadic,
        ..binary("mean", "The mean of the operands.", "Mean", VARIADIC_1)
    },
    OpDecl {
        operands: &[OperandDecl::one("x", QRole::Data), OperandDecl::one("slope", QRole::Float).learned()],
        infer: prelu,
        ..binary(
            "prelu",
            "`x` where it is at least 0, `slope * x` below; `slope` broadcasts to `x`.",
            "PRelu",
            &[uncovered(1), form(7, X_SLOPE, &[])],
        )
    },
];

fn arithmetic(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "a", is_numeric, "numeric")?;
    let elem = common_elem(ctx, &["a", "b"])?;
    let shape = broadcast_named(dims(ctx, "a")?, "operand `a`", dims(ctx, "b")?, "operand `b`")?;
    let contents = match (fact(ctx, "a")?.and_then(known), fact(ctx, "b")?.and_then(known), elem) {
        (Some(a), Some(b), Some(elem)) => zip_known(&a, &b, |a, b| held(elem, of_dims(ctx.decl.name, a, b))),
        _ => None,
    };
    ctx.push_known(tensor_type(elem, shape), contents);
    Ok(())
}

/// Combines what is known of two operands, where one element or equal lengths meet.
pub(crate) fn zip_known(a: &Known, b: &Known, f: impl Fn(&Dim, &Dim) -> Dim) -> Option<Known> {
    let elems = match (&a.elems[..], &b.elems[..]) {
        ([x], y) => y.iter().map(|y| f(x, y)).collect(),
        (x, [y]) => x.iter().map(|x| f(x, y)).collect(),
        (x, y) if x.len() == y.len() => x.iter().zip(y).map(|(x, y)| f(x, y)).collect(),
        _ => return None,
    };
    Some(Known { elems, scalar: a.scalar && b.scalar })
}

/// The named operation on extents; unknown where the result cannot be said for every value of the symbols.
fn of_dims(op: &str, a: &Dim, b: &Dim) -> Dim {
    match op {
        "add" => a.add(b),
        "sub" => a.sub(b),
        "mul" => a.mul(b),
        "div" => match (a, b) {
            (Dim::Const(a), Dim::Const(b)) => a.checked_div(*b).map_or(Dim::Unknown, Dim::Const),
            // Division truncates; below zero that is not the floor.
            (a, Dim::Const(k)) if *k > 0 && least(a).is_some_and(|v| v >= 0) => a.floor_div(*k),
            (a, b) => a.div_exact(b).unwrap_or(Dim::Unknown),
        },
        _ => Dim::Unknown,
    }
}

fn pow(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, "a", is_numeric, "numeric")?;
    want_elem(ctx, "b", is_numeric, "numeric")?;
    let shape = broadcast_named(dims(ctx, "a")?, "operand `a`", dims(ctx, "b")?, "operand `b`")?;
    push(ctx, elem, shape);
    Ok(())
}

fn variadic(ctx: &mut InferCtx<'_>) -> Inferred {
    let facts: Vec<&Fact> = rest(ctx, 0).iter().flatten().collect();
    if facts.is_empty() {
        return fail("at least one operand is needed");
    }
    let mut elem: Option<ElemType> = None;
    let mut shape = Some(Shape::new());
    for (i, fact) in facts.iter().enumerate() {
        let t = as_tensor(fact, "inputs")?;
        match (t.map(|t| t.elem), elem) {
            (Some(e), _) if !is_numeric(e) => {
                return fail(format!("operand {i} must have numeric elements, it has {e}"));
            }
            (Some(e), Some(first)) if e != first => {
                return fail(format!("operand {i} has {e} elements, the ones before have {first}"));
            }
            (e, first) => elem = first.or(e),
        }
        shape = broadcast_named(
            shape.as_deref(),
            "the operands before, together",
            t.and_then(|t| t.dims()),
            &format!("operand {i}"),
        )?;
    }
    let contents = extremum(ctx, &facts);
    ctx.push_known(tensor_type(elem, shape), contents);
    Ok(())
}

/// What is known of the greatest or least of small integer tensors.
fn extremum(ctx: &InferCtx<'_>, facts: &[&Fact]) -> Option<Known> {
    let pick: fn(i64, i64) -> i64 = match ctx.decl.name {
        "max" => i64::max,
        "min" => i64::min,
        _ => return None,
    };
    let mut all = facts.iter().map(|f| known(f));
    let first = all.next()??;
    all.try_fold(first, |sofar, next| {
        zip_known(&sofar, &next?, |a, b| match (a, b) {
            (Dim::Const(a), Dim::Const(b)) => Dim::Const(pick(*a, *b)),
            (a, b) if a.same(b) => a.clone(),
            _ => Dim::Unknown,
        })
    })
}

fn float_variadic(ctx: &mut InferCtx<'_>) -> Inferred {
    for (i, fact) in rest(ctx, 0).iter().enumerate() {
        if let Some(e) = fact.as_ref().and_then(|f| f.ty.elem())
            && !e.is_float()
        {
            return fail(format!("operand {i} must have floating-point elements, it has {e}"));
        }
    }
    variadic(ctx)
}

fn prelu(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", is_numeric, "numeric")?;
    let elem = common_elem(ctx, &["x", "slope"])?;
    let x = dims(ctx, "x")?;
    if let (Some(x), Some(slope)) = (x, dims(ctx, "slope")?)
        && !fits_into(slope, x)
    {
        return fail(format!(
            "operand `slope` {} does not broadcast to `x` {}",
            show_shape(slope),
            show_shape(x)
        ));
    }
    push(ctx, elem, x.map(|d| shape_of(d.to_vec())));
    Ok(())
}
