//! Reductions along axes.

use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxForm, OnnxInput, OpDecl, OperandDecl,
    QRole, ResultDecl, form,
};
use crate::types::{Known, Shape};

const DATA: &[OperandDecl] = &[OperandDecl::one("x", QRole::Data)];
const OWN: &[ResultDecl] = &[ResultDecl::one("y", QRole::Own)];
const ATTRS: &[AttrDecl] = &[
    AttrDecl::new("axes", AttrKind::Ints, Default::Absent),
    AttrDecl::new("keepdims", AttrKind::Bool, Default::Bool(true)),
    AttrDecl::new("noop_with_empty_axes", AttrKind::Bool, Default::Bool(false)),
];
const X_AXES: &[OnnxInput] = &[OnnxInput::Operand("x"), OnnxInput::Attr("axes")];
const KEEPDIMS: OnnxAttr = OnnxAttr::Same("keepdims", "keepdims");
const AXES: OnnxAttr = OnnxAttr::Same("axes", "axes");
const NOOP: OnnxAttr = OnnxAttr::Same("noop_with_empty_axes", "noop_with_empty_axes");

/// The axes became an input in 18, those of the sum in 13.
const FORMS_18: &[OnnxForm] = &[form(1, X, &[AXES, KEEPDIMS]), form(18, X_AXES, &[KEEPDIMS, NOOP])];
const FORMS_13: &[OnnxForm] = &[form(1, X, &[AXES, KEEPDIMS]), form(13, X_AXES, &[KEEPDIMS, NOOP])];

/// A reduction that makes new values.
const fn reduction(
    name: &'static str,
    doc: &'static str,
    onnx_name: &'static str,
    forms: &'static [OnnxForm],
) -> OpDecl {
    OpDecl {
        name,
        doc,
        operands: DATA,
        results: OWN,
        attrs: ATTRS,
        infer: reduce,
        onnx: onnx(onnx_name, forms),
        axes: AxisRule::Function(AxisFunction::Reduce),
        ..OpDecl::BASE
    }
}

/// The operators of this family. Without `axes` all axes are meant, or none if `noop_with_empty_axes` is set.
pub(crate) const OPS: &[OpDecl] = &[
    reduction("reduce_mean", "The mean along `axes` (all if absent).", "ReduceMean", FORMS_18),
    reduction("reduce_sum", "The sum along `axes` (all if absent).", "ReduceSum", FORMS_13),
    OpDecl {
        operands: &[OperandDecl::one("x", QRole::Same)],
        results: &[ResultDecl::one("y", QRole::Same)],
        ..reduction("reduce_max", "The greatest element along `axes` (all if absent).", "ReduceMax", FORMS_18)
    },
    OpDecl {
        operands: &[OperandDecl::one("x", QRole::Same)],
        results: &[ResultDecl::one("y", QRole::Same)],
        ..reduction("reduce_min", "The least element along `axes` (all if absent).", "ReduceMin", FORMS_18)
    },
    reduction("reduce_prod", "The product along `axes` (all if absent).", "ReduceProd", FORMS_18),
];

fn reduce(ctx: &mut InferCtx<'_>) -> Inferred {
    // The extremes of truth values are "any" and "all".
    let elem = match ctx.decl.name {
        "reduce_max" | "reduce_min" => want_elem(ctx, "x", |e| e != ElemType::Str, "numeric or bool")?,
        _ => want_elem(ctx, "x", is_numeric, "numeric")?,
    };
    let shape = reduced_shape(ctx)?;
    let contents = match elem {
        Some(e) if is_index(e) => reduced_known(ctx, e, shape.as_deref())?,
        _ => None,
    };
    ctx.push_known(tensor_type(elem, shape), contents);
    Ok(())
}

fn reduced_shape(ctx: &InferCtx<'_>) -> Result<Option<Shape>, InferError> {
    let keep = flag(ctx, "keepdims");
    let given = ctx.attrs.ints("axes").unwrap_or(&[]);
    if given.is_empty() && flag(ctx, "noop_with_empty_axes") {
        return Ok(dims(ctx, "x")?.map(|d| shape_of(d.to_vec())));
    }
    let Some(x) = dims(ctx, "x")? else {
        return Ok(if given.is_empty() && !keep { Some(Shape::new()) } else { None });
    };
    let reduced = if given.is_empty() { (0..x.len()).collect() } else { axes(ctx, given, x.len())? };
    let kept = x.iter().enumerate().filter_map(|(i, d)| match (reduced.contains(&i), keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::Const(1)),
        (true, false) => None,
    });
    Ok(Some(kept.collect()))
}

/// What is known of the reduction of a vector to one element, as in the count of a shape's elements.
fn reduced_known(
    ctx: &InferCtx<'_>,
    elem: ElemType,
    shape: Option<&[Dim]>,
) -> Result<Option<Known>, InferError> {
    let Some(k) = fact(ctx, "x")?.and_then(|f| f.known.clone()) else { return Ok(None) };
    let scalar = match shape {
        Some([]) => true,
        Some([Dim::Const(1)]) => false,
        _ => return Ok(None),
    };
    let value = match (ctx.decl.name, k.ints()) {
        ("reduce_prod", _) => product(&k.elems),
        ("reduce_sum", _) => k.elems.iter().fold(Dim::Const(0), |s, d| s.add(d)),
        ("reduce_max", Some(v)) => v.into_iter().max().map_or(Dim::Unknown, Dim::Const),
        ("reduce_min", Some(v)) => v.into_iter().min().map_or(Dim::Unknown, Dim::Const),
        _ => return Ok(None),
    };
    Ok(Some(Known { elems: [held(elem, value)].into_iter().collect(), scalar }))
}
