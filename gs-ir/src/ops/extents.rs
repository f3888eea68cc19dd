//! Computing with shapes: reading them, and tensors made from them.

use super::support::*;
use crate::attr::{Attr, Literal};
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{Fact, InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, Traits, form,
};
use crate::types::{Known, Shape};

const NUMBERS: &[ResultDecl] = &[ResultDecl::one("y", QRole::None)];
const READ: &[OperandDecl] = &[OperandDecl::one("x", QRole::None)];
const ONNX_VALUE: OnnxAttr = OnnxAttr::Same("value", "value");
const RANGE_11: &[OnnxInput] =
    &[OnnxInput::Operand("start"), OnnxInput::Operand("limit"), OnnxInput::Operand("delta")];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "shape",
        doc: "The extents of `x` from axis `start` up to (not including) axis `end`, as i64.",
        operands: READ,
        results: NUMBERS,
        attrs: &[
            AttrDecl::new("start", AttrKind::Int, Default::Int(0)),
            AttrDecl::new("end", AttrKind::Int, Default::Absent),
        ],
        infer: shape,
        onnx: onnx(
            "Shape",
            &[
                form(1, X, &[]),
                form(15, X, &[OnnxAttr::Same("start", "start"), OnnxAttr::Same("end", "end")]),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Shape),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "size",
        doc: "The number of elements of `x`, as i64.",
        operands: READ,
        results: NUMBERS,
        infer: size,
        onnx: onnx("Size", &[form(1, X, &[])]),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "expand",
        doc: "`x` broadcast with a tensor of the extents `shape`.",
        operands: &[OperandDecl::one("x", QRole::Same), OperandDecl::one("shape", QRole::None)],
        results: &[ResultDecl::one("y", QRole::Same)],
        infer: expand,
        traits: Traits::PURE.and(Traits::MOVES),
        onnx: onnx("Expand", &[form(8, &[OnnxInput::Operand("x"), OnnxInput::Operand("shape")], &[])]),
        axes: AxisRule::Function(AxisFunction::Expand),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "constant_of_shape",
        doc: "A tensor of the extents `shape`, all of whose elements are the one of `value` (f32 0 if absent).",
        operands: &[OperandDecl::one("shape", QRole::None)],
        results: NUMBERS,
        attrs: &[AttrDecl::new("value", AttrKind::Tensor, Default::Absent)],
        infer: constant_of_shape,
        onnx: onnx("ConstantOfShape", &[form(9, &[OnnxInput::Operand("shape")], &[ONNX_VALUE])]),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "range",
        doc: "The numbers from `start` up to (not including) `limit` in steps of `delta`.",
        operands: &[
            OperandDecl::one("start", QRole::None),
            OperandDecl::one("limit", QRole::None),
            OperandDecl::one("delta", QRole::None),
        ],
        results: NUMBERS,
        infer: range,
        onnx: onnx(
            "Range",
            &[form(11, RANGE_11, &[]), form(27, RANGE_11, &[OnnxAttr::Fixed("stash_type", Default::Int(1))])],
        ),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "constant",
        doc: "The tensor `value`, where a constant must stand in the graph and not among the globals.",
        results: NUMBERS,
        attrs: &[AttrDecl::new("value", AttrKind::Tensor, Default::Required)],
        infer: constant,
        onnx: onnx(
            "Constant",
            &[
                form(1, &[], &[ONNX_VALUE]),
                form(11, &[], &[ONNX_VALUE, OnnxAttr::Fixed("sparse_value", Default::Absent)]),
                form(
                    12,
                    &[],
                    &[
                        ONNX_VALUE,
                        OnnxAttr::Fixed("sparse_value", Default::Absent),
                        OnnxAttr::Fixed("value_float", Default::Absent),
                        OnnxAttr::Fixed("value_floats", Default::Absent),
                        OnnxAttr::Fixed("value_int", Default::Absent),
                        OnnxAttr::Fixed("value_ints", Default::Absent),
                        OnnxAttr::Fixed("value_string", Default::Absent),
                        OnnxAttr::Fixed("value_strings", Default::Absent),
                    ],
                ),
            ],
        ),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
];

fn shape(ctx: &mut InferCtx<'_>) -> Inferred {
    let Some(x) = dims(ctx, "x")? else {
        push(ctx, Some(ElemType::I64), Some(shape_of([Dim::Unknown])));
        return Ok(());
    };
    let rank = x.len() as i64;
    let place = |p: i64| if p < 0 { p.saturating_add(rank) } else { p }.clamp(0, rank) as usize;
    let (start, end) = (place(int(ctx, "start")?), optional_int(ctx, "end").map_or(x.len(), place));
    let taken = x.get(start..end).unwrap_or(&[]);
    let ty = tensor_type(Some(ElemType::I64), Some(shape_of([Dim::Const(taken.len() as i64)])));
    ctx.push_known(ty, Some(Known::vector(taken.iter().cloned())));
    Ok(())
}

fn size(ctx: &mut InferCtx<'_>) -> Inferred {
    let count = dims(ctx, "x")?.map_or(Dim::Unknown, product);
    ctx.push_known(tensor_type(Some(ElemType::I64), Some(Shape::new())), Some(Known::scalar(count)));
    Ok(())
}

/// The extents that an operand of a shape holds: its elements, or as many unknown ones as it is long.
fn extents(ctx: &InferCtx<'_>) -> Result<Option<Shape>, InferError> {
    want_elem(ctx, "shape", is_index, "i64")?;
    want_rank(ctx, "shape", 1)?;
    let Some(k) = fact(ctx, "shape")?.and_then(known) else { return Ok(None) };
    match k.elems.iter().find(|d| matches!(d, Dim::Const(n) if *n < 0)) {
        Some(d) => fail(format!("operand `shape` {} has an extent {}", show_shape(&k.elems), show(d))),
        None => Ok(Some(shape_of(k.elems))),
    }
}

fn expand(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = elem(ctx, "x")?;
    let target = extents(ctx)?;
    let x = dims(ctx, "x")?;
    let shape = broadcast_named(x, "operand `x`", target.as_deref(), "the shape")?;
    let contents = match (fact(ctx, "x")?.and_then(|f| f.known.clone()), shape.as_deref()) {
        (Some(k), Some([Dim::Const(n)])) if (0..=Known::LIMIT as i64).contains(n) => {
            repeated(&k, *n as usize)
        }
        (Some(k), Some([])) => Some(k),
        _ => None,
    };
    ctx.push_known(tensor_type(elem, shape), contents);
    Ok(())
}

/// One element repeated, or all of them where there are as many.
fn repeated(known: &Known, count: usize) -> Option<Known> {
    match &known.elems[..] {
        [one] => Some(Known::vector(std::iter::repeat_n(one.clone(), count))),
        all if all.len() == count => Some(Known::vector(all.iter().cloned())),
        _ => None,
    }
}

fn constant_of_shape(ctx: &mut InferCtx<'_>) -> Inferred {
    let value = match ctx.attrs.get("value") {
        Some(Attr::Tensor(t)) if t.count() != Some(1) => {
            return fail(format!("attribute `value` must have one element, its shape is {:?}", t.dims));
        }
        Some(Attr::Tensor(t)) => Some(t.clone()),
        _ => None,
    };
    let elem = value.as_ref().map_or(ElemType::F32, |t| t.elem);
    let shape = extents(ctx)?;
    let one = value.and_then(|t| followed(&t)).filter(|k| k.elems.len() == 1);
    let contents = match (one, shape.as_deref()) {
        (Some(k), Some([])) => Some(Known { scalar: true, ..k }),
        (Some(k), Some([Dim::Const(n)])) if (0..=Known::LIMIT as i64).contains(n) => {
            repeated(&k, *n as usize)
        }
        _ => None,
    };
    ctx.push_known(tensor_type(Some(elem), shape), contents);
    Ok(())
}

/// The elements of a small constant of an index type.
fn followed(t: &Literal) -> Option<Known> {
    if !t.check() || t.dims.len() > 1 {
        return None;
    }
    let bytes = t.data.bytes()?;
    let elems = match t.elem {
        ElemType::I64 => {
            bytes.as_chunks::<8>().0.iter().map(|c| Dim::Const(i64::from_le_bytes(*c))).collect()
        }
        ElemType::I32 => {
            bytes.as_chunks::<4>().0.iter().map(|c| Dim::Const(i32::from_le_bytes(*c).into())).collect()
        }
        _ => return None,
    };
    Some(Known { elems, scalar: t.dims.is_empty() })
}

fn range(ctx: &mut InferCtx<'_>) -> Inferred {
    let names = ["start", "limit", "delta"];
    let elem = common_elem(ctx, &names)?;
    for name in names {
        want_elem(ctx, name, is_numeric, "numeric")?;
        want_rank(ctx, name, 0)?;
    }
    let at =
        |f: Option<&Fact>| f.and_then(|f| f.known.as_ref()?.elems.first().cloned()).unwrap_or(Dim::Unknown);
    let [start, limit, delta] = [at(fact(ctx, "start")?), at(fact(ctx, "limit")?), at(fact(ctx, "delta")?)];
    let count = match (&limit.sub(&start), &delta) {
        (_, Dim::Const(0)) => return fail("operand `delta` is 0, the range has no end"),
        (Dim::Const(span), Dim::Const(step)) => Dim::Const(steps(*span, *step)),
        // A range that counts up to an extent has as many elements as the span.
        (span, Dim::Const(step)) if *step > 0 && least(span).is_some_and(|v| v >= 0) => {
            span.add(&(step - 1).into()).floor_div(*step)
        }
        _ => Dim::Unknown,
    };
    let contents = match (&start, &count, &delta) {
        (start, Dim::Const(n), Dim::Const(step))
            if *n <= Known::LIMIT as i64 && elem.is_some_and(is_index) =>
        {
            Some(Known::vector((0..*n).map(|i| start.add(&Dim::Const(i).mul(&(*step).into())))))
        }
        _ => None,
    };
    ctx.push_known(tensor_type(elem, Some(shape_of([count]))), contents);
    Ok(())
}

/// How many steps lie in a span; none if they go away from its end.
fn steps(span: i64, step: i64) -> i64 {
    let (span, step) = (i128::from(span), i128::from(step));
    let count = if (span > 0) == (step > 0) { (span.abs() + step.abs() - 1) / step.abs() } else { 0 };
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn constant(ctx: &mut InferCtx<'_>) -> Inferred {
    let Some(Attr::Tensor(t)) = ctx.attrs.get("value") else {
        return fail("attribute `value` is missing or no tensor");
    };
    if !t.check() {
        return fail(format!("the contents of attribute `value` do not fill {} {:?}", t.elem, t.dims));
    }
    let t = t.clone();
    let shape = t.dims.iter().map(|&d| Dim::Const(d)).collect();
    ctx.push_known(tensor_type(Some(t.elem), Some(shape)), followed(&t));
    Ok(())
}
