//! Operations that pick elements of tensors, repeat them, and put others around them.

use super::support::*;
use crate::dim::Dim;
use crate::infer::InferCtx;
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, Traits, form, uncovered,
};
use crate::types::{Known, Shape};

const MOVES: Traits = Traits::PURE.and(Traits::MOVES);
const DATA: &[OperandDecl] = &[OperandDecl::one("x", QRole::Same)];
const MOVED: &[ResultDecl] = &[ResultDecl::one("y", QRole::Same)];
const AXIS_0: AttrDecl = AttrDecl::new("axis", AttrKind::Int, Default::Int(0));
const ONNX_AXIS: OnnxAttr = OnnxAttr::Same("axis", "axis");
const ONNX_MODE: OnnxAttr = OnnxAttr::Same("mode", "mode");
const PAD_11: &[OnnxInput] =
    &[OnnxInput::Operand("x"), OnnxInput::Attr("pads"), OnnxInput::ScalarAttr("value")];
const DATA_INDICES: &[OnnxInput] = &[OnnxInput::Operand("data"), OnnxInput::Operand("indices")];
const PAD_18: &[OnnxInput] = &[
    OnnxInput::Operand("x"),
    OnnxInput::Attr("pads"),
    OnnxInput::ScalarAttr("value"),
    OnnxInput::Fixed(Default::Absent),
];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "pad",
        doc: "Adds elements around `x`: `pads` lists how many before each axis, then how many after each; negative \
              ones cut off. They are `value`, or copies from the border (`edge`), mirrored without it (`reflect`) or \
              from the other side (`wrap`).",
        operands: DATA,
        results: MOVED,
        attrs: &[
            AttrDecl::new("pads", AttrKind::Ints, Default::Required),
            AttrDecl::new(
                "mode",
                AttrKind::Enum(&["constant", "edge", "reflect", "wrap"]),
                Default::Word("constant"),
            ),
            AttrDecl::new("value", AttrKind::Float, Default::Float(0.0)),
        ],
        infer: pad,
        traits: MOVES,
        onnx: onnx(
            "Pad",
            &[
                uncovered(1),
                form(2, X, &[OnnxAttr::Same("pads", "pads"), ONNX_MODE, OnnxAttr::Same("value", "value")]),
                form(11, PAD_11, &[ONNX_MODE]),
                form(18, PAD_18, &[ONNX_MODE]),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Pad),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "gather",
        doc: "The slices of `data` along `axis` that `indices` names; its axes stand where `axis` was. Negative \
              indices count from the end.",
        operands: &[
            OperandDecl::one("data", QRole::Same).learned(),
            OperandDecl::one("indices", QRole::None),
        ],
        results: MOVED,
        attrs: &[AXIS_0],
        infer: gather,
        traits: MOVES,
        onnx: onnx("Gather", &[form(1, DATA_INDICES, &[ONNX_AXIS])]),
        axes: AxisRule::Function(AxisFunction::Gather),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "gather_elements",
        doc: "For each element of `indices` the element of `data` at its place, with the position along `axis` \
              replaced by the index.",
        operands: &[OperandDecl::one("data", QRole::Same), OperandDecl::one("indices", QRole::None)],
        results: MOVED,
        attrs: &[AXIS_0],
        infer: gather_elements,
        traits: MOVES,
        onnx: onnx("GatherElements", &[form(11, DATA_INDICES, &[ONNX_AXIS])]),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "tile",
        doc: "`x` repeated `repeats[i]` times along axis i.",
        operands: DATA,
        results: MOVED,
        attrs: &[AttrDecl::new("repeats", AttrKind::Ints, Default::Required)],
        infer: tile,
        traits: MOVES,
        onnx: onnx(
            "Tile",
            &[uncovered(1), form(6, &[OnnxInput::Operand("x"), OnnxInput::Attr("repeats")], &[])],
        ),
        axes: AxisRule::Function(AxisFunction::Tile),
        ..OpDecl::BASE
    },
];

fn pad(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = elem(ctx, "x")?;
    let pads = ints(ctx, "pads")?;
    if pads.len() % 2 != 0 {
        return fail(format!("attribute `pads` has {} entries, an even number is needed", pads.len()));
    }
    let (before, after) = pads.split_at(pads.len() / 2);
    let mirrored = ctx.decl.word(ctx.attrs, "mode") == Some("reflect");
    let shape = match dims(ctx, "x")? {
        None => shape_of(vec![Dim::Unknown; before.len()]),
        Some(x) if x.len() != before.len() => {
            return fail(format!(
                "attribute `pads` has {} entries, but `x` {} needs {}: one before and one after each axis",
                pads.len(),
                show_shape(x),
                2 * x.len()
            ));
        }
        Some(x) => {
            let mut shape = Shape::new();
            for (i, (d, (&b, &a))) in x.iter().zip(before.iter().zip(after)).enumerate() {
                if let Dim::Const(n) = d
                    && mirrored
                    && b.max(a) > n.saturating_sub(1).max(0)
                {
                    return fail(format!(
                        "axis {i} of `x` has {n} elements, which cannot be mirrored into a padding of {}",
                        b.max(a)
                    ));
                }
                match d.add(&b.into()).add(&a.into()) {
                    Dim::Const(n) if n < 0 => {
                        return fail(format!(
                            "axis {i} of `x` has {} elements, from which {b} and {a} are cut",
                            show(d)
                        ));
                    }
                    padded => shape.push(padded),
                }
            }
            shape
        }
    };
    push(ctx, elem, Some(shape));
    Ok(())
}

fn tile(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = elem(ctx, "x")?;
    let repeats = ints(ctx, "repeats")?;
    if let Some(r) = repeats.iter().find(|r| **r < 0) {
        return fail(format!("attribute `repeats` has an entry {r}"));
    }
    let shape = match dims(ctx, "x")? {
        None => shape_of(vec![Dim::Unknown; repeats.len()]),
        Some(x) if x.len() != repeats.len() => {
            return fail(format!(
                "attribute `repeats` has {} entries, but `x` has the shape {}",
                repeats.len(),
                show_shape(x)
            ));
        }
        Some(x) => x.iter().zip(repeats).map(|(d, &r)| d.mul(&r.into())).collect(),
    };
    push(ctx, elem, Some(shape));
    Ok(())
}

fn gather(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = elem(ctx, "data")?;
    want_elem(ctx, "indices", is_index, "i32 or i64")?;
    let (Some(data), Some(indices)) = (dims(ctx, "data")?, dims(ctx, "indices")?) else {
        push(ctx, elem, None);
        return Ok(());
    };
    if data.is_empty() {
        return fail("operand `data` is a scalar, it has no axis to gather from");
    }
    let axis = ctx.axis(int(ctx, "axis")?, data.len())?;
    let picked = fact(ctx, "indices")?.and_then(|f| f.known.clone());
    if let (Dim::Const(n), Some(k)) = (&data[axis], &picked)
        && let Some(i) =
            k.elems.iter().filter_map(Dim::as_const).find(|i| !(n.saturating_neg()..*n).contains(i))
    {
        return fail(format!("index {i} is outside axis {axis} of `data`, whose extent is {n}"));
    }
    let shape = data[..axis].iter().chain(indices).chain(&data[axis + 1..]).cloned().collect();
    let known = match (fact(ctx, "data")?.and_then(known), &picked) {
        (Some(data), Some(picked)) => Some(gather_known(&data, picked)),
        _ => None,
    };
    ctx.push_known(tensor_type(elem, Some(shape)), known);
    Ok(())
}

fn gather_known(data: &Known, picked: &Known) -> Known {
    let count = data.elems.len() as i64;
    let at = |i: &Dim| {
        let i = i.as_const()?;
        data.elems.get(usize::try_from(if i < 0 { i + count } else { i }).ok()?).cloned()
    };
    Known {
        elems: picked.elems.iter().map(|i| at(i).unwrap_or(Dim::Unknown)).collect(),
        scalar: picked.scalar,
    }
}

fn gather_elements(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = elem(ctx, "data")?;
    want_elem(ctx, "indices", is_index, "i32 or i64")?;
    let (data, indices) = (dims(ctx, "data")?, dims(ctx, "indices")?);
    if let (Some(data), Some(indices)) = (data, indices) {
        if data.len() != indices.len() {
            return fail(format!(
                "operands `data` {} and `indices` {} must have the same rank",
                show_shape(data),
                show_shape(indices)
            ));
        }
        ctx.axis(int(ctx, "axis")?, data.len())?;
    }
    push(ctx, elem, indices.map(|d| shape_of(d.to_vec())));
    Ok(())
}
