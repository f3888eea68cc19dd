//! Quantisers: in training (`fake_quant`), frozen (`qdq`), and the two steps of which a frozen one consists.

use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, Traits, form, uncovered,
};

const OWN: &[ResultDecl] = &[ResultDecl::one("y", QRole::Own)];
const AXIS_1: AttrDecl = AttrDecl::new("axis", AttrKind::Int, Default::Int(1));
const NO_AXIS: AttrDecl = AttrDecl::new("axis", AttrKind::Int, Default::Absent);
const TO: AttrDecl = AttrDecl::new("to", AttrKind::Elem, Default::Absent);
const BLOCK_0: AttrDecl = AttrDecl::new("block", AttrKind::Int, Default::Int(0));
const ONNX_AXIS: OnnxAttr = OnnxAttr::Same("axis", "axis");
const ONNX_SATURATE: OnnxAttr = OnnxAttr::Same("saturate", "saturate");
const ONNX_BLOCK: OnnxAttr = OnnxAttr::Same("block_size", "block");
const ONNX_TO: OnnxAttr = OnnxAttr::Same("output_dtype", "to");
const INPUTS_3: &[OnnxInput] =
    &[OnnxInput::Operand("x"), OnnxInput::Operand("scale"), OnnxInput::Operand("zero_point")];

/// What codes a fake-quantiser has, and along which axis its ranges lie.
pub(super) const FAKE_QUANT_ATTRS: &[AttrDecl] = &[
    AttrDecl::new("bits", AttrKind::Int, Default::Int(8)),
    AttrDecl::new("signed", AttrKind::Bool, Default::Bool(false)),
    AttrDecl::new("symmetric", AttrKind::Bool, Default::Bool(false)),
    AttrDecl::new("narrow", AttrKind::Bool, Default::Bool(false)),
    NO_AXIS,
];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "fake_quant",
        doc: "`x` rounded to the grid of `bits` bits that spans `range` (a row of minima and a row of maxima; of one \
              element each, or one for each element of `axis`). `signed` and `narrow` (without the least code) say \
              which codes there are, `symmetric` that the zero point is 0.",
        operands: &[OperandDecl::one("x", QRole::Data), OperandDecl::one("range", QRole::None)],
        results: OWN,
        attrs: FAKE_QUANT_ATTRS,
        infer: fake_quant,
        traits: Traits::PURE.and(Traits::QUANTISER).and(Traits::CUSTOM_GRAD).and(Traits::IDEMPOTENT),
        axes: AxisRule::Clauses("x.0.. = y.0..; x.axis = range.1"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qdq",
        doc: "dequantize(quantize(x)): `x` rounded to the grid of `scale` and `zero_point`, whose element type is \
              that of the codes. `bits`, `qmin` and `qmax` narrow the codes; `levels = \"odd\"` is the grid without \
              zero: `scale * (2k - (2^bits - 1))` for k from 0 to 2^bits - 1, k = round((x / scale - 1) / 2) + \
              2^(bits - 1), halves to the even number before the sum; its zero point is 0.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            OperandDecl::one("scale", QRole::None),
            OperandDecl::one("zero_point", QRole::None),
        ],
        results: OWN,
        attrs: &[
            AttrDecl::new("bits", AttrKind::Int, Default::Absent),
            NO_AXIS,
            AttrDecl::new("block", AttrKind::Int, Default::Absent),
            AttrDecl::new("levels", AttrKind::Enum(&["odd"]), Default::Absent),
            AttrDecl::new("qmin", AttrKind::Int, Default::Absent),
            AttrDecl::new("qmax", AttrKind::Int, Default::Absent),
        ],
        infer: qdq,
        traits: Traits::PURE.and(Traits::QUANTISER).and(Traits::IDEMPOTENT).and(Traits::MONOTONE),
        axes: AxisRule::Function(AxisFunction::Quantize),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "quantize",
        doc: "saturate(round(x / scale) + zero_point), halves to the even code. The codes have the element type of \
              `zero_point`, else `to`, else u8. `scale` is a scalar, a vector along `axis`, or has one element for \
              each `block` elements of `axis`.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            OperandDecl::one("scale", QRole::None),
            OperandDecl::optional("zero_point", QRole::None),
        ],
        results: OWN,
        attrs: &[AXIS_1, BLOCK_0, AttrDecl::new("saturate", AttrKind::Bool, Default::Bool(true)), TO],
        infer: quantize,
        traits: Traits::PURE.and(Traits::MONOTONE).and(Traits::QUANTISER),
        onnx: onnx(
            "QuantizeLinear",
            &[
                form(10, INPUTS_3, &[]),
                form(13, INPUTS_3, &[ONNX_AXIS]),
                form(19, INPUTS_3, &[ONNX_AXIS, ONNX_SATURATE]),
                form(21, INPUTS_3, &[ONNX_AXIS, ONNX_SATURATE, ONNX_BLOCK, ONNX_TO]),
                form(
                    23,
                    INPUTS_3,
                    &[
                        ONNX_AXIS,
                        ONNX_SATURATE,
                        ONNX_BLOCK,
                        ONNX_TO,
                        OnnxAttr::Fixed("precision", Default::Int(0)),
                    ],
                ),
                uncovered(28),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Quantize),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "dequantize",
        doc: "(x - zero_point) * scale, with elements of type `to`, else those of `scale`. `scale` as in `quantize`.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            OperandDecl::one("scale", QRole::None),
            OperandDecl::optional("zero_point", QRole::None),
        ],
        results: OWN,
        attrs: &[AXIS_1, BLOCK_0, TO],
        infer: dequantize,
        traits: Traits::PURE.and(Traits::MONOTONE),
        onnx: onnx(
            "DequantizeLinear",
            &[
                form(10, INPUTS_3, &[]),
                form(13, INPUTS_3, &[ONNX_AXIS]),
                form(21, INPUTS_3, &[ONNX_AXIS, ONNX_BLOCK]),
                form(23, INPUTS_3, &[ONNX_AXIS, ONNX_BLOCK, ONNX_TO]),
                uncovered(28),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Quantize),
        ..OpDecl::BASE
    },
];

pub(super) fn fake_quant(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    want_elem(ctx, "range", ElemType::is_float, "floating-point")?;
    code_bits(int(ctx, "bits")?)?;
    let axis = match (optional_int(ctx, "axis"), dims(ctx, "x")?) {
        (Some(axis), Some(x)) => {
            Some((axis, x.get(ctx.axis(axis, x.len())?).cloned().unwrap_or(Dim::Unknown)))
        }
        (Some(axis), None) => Some((axis, Dim::Unknown)),
        (None, _) => None,
    };
    match (dims(ctx, "range")?, axis) {
        (None, _) => {}
        (Some([two]), None) if !two.surely_differs(&2.into()) => {}
        (Some([two, channels]), Some((axis, extent))) if !two.surely_differs(&2.into()) => {
            agree(channels, "axis 1 of `range`", &extent, &format!("axis {axis} of `x`"))?;
        }
        (Some(r), None) => {
            return fail(format!(
                "operand `range` must be a minimum and a maximum, [2], it is {}",
                show_shape(r)
            ));
        }
        (Some(r), Some((axis, extent))) => {
            return fail(format!(
                "operand `range` must be a minimum and a maximum for each element of axis {axis}, [2, {}], it is {}",
                show(&extent),
                show_shape(r)
            ));
        }
    }
    same(ctx)
}

/// Checks a number of bits.
fn code_bits(bits: i64) -> Inferred {
    match bits {
        1..=32 => Ok(()),
        _ => fail(format!("attribute `bits` must be from 1 to 32, it is {bits}")),
    }
}

fn qdq(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    let codes = want_elem(ctx, "zero_point", is_code, "integer")?;
    if let Some(bits) = optional_int(ctx, "bits") {
        code_bits(bits)?;
        if let Some(e) = codes
            && bits > i64::from(e.bits())
        {
            return fail(format!("attribute `bits` is {bits}, but codes of type {e} have only {}", e.bits()));
        }
    }
    let range = codes.and_then(ElemType::int_range);
    let low = limit(ctx, "qmin", range)?;
    let high = limit(ctx, "qmax", range)?;
    if let (Some(low), Some(high)) = (low, high)
        && low >= high
    {
        return fail(format!(
            "attribute `qmin` is {low} and `qmax` is {high}; there is no step between them"
        ));
    }
    let block = optional_int(ctx, "block").unwrap_or(0);
    grid(ctx, optional_int(ctx, "axis"), block)?;
    same(ctx)
}

/// A limit of the codes, which must be one of the element type's.
fn limit(ctx: &InferCtx<'_>, name: &str, range: Option<(i64, i64)>) -> Result<Option<i64>, InferError> {
    match (optional_int(ctx, name), range) {
        (Some(v), Some((low, high))) if v < low || v > high => fail(format!(
            "attribute `{name}` is {v}, but the codes of `zero_point`'s type go from {low} to {high}"
        )),
        (v, _) => Ok(v),
    }
}

/// A type that codes can have: an integer, or one of the small floats.
fn is_code(elem: ElemType) -> bool {
    elem.is_int() || (elem.is_float() && elem.bits() <= 8)
}

fn quantize(ctx: &mut InferCtx<'_>) -> Inferred {
    // ONNX quantises accumulators of 32 bits too.
    want_elem(ctx, "x", |e| e.is_float() || e == ElemType::I32, "floating-point or i32")?;
    let codes = want_elem(ctx, "zero_point", is_code, "integer or 8-bit float")?;
    let to = ctx.decl.elem(ctx.attrs, "to");
    if let (Some(codes), Some(to)) = (codes, to)
        && codes != to
    {
        return fail(format!("operand `zero_point` has {codes} elements, but attribute `to` says {to}"));
    }
    let axis = int(ctx, "axis")?;
    grid(ctx, Some(axis), int(ctx, "block")?)?;
    let shape = tensor(ctx, "x")?.and_then(|t| t.shape.clone());
    let unknown_zero_point = fact(ctx, "zero_point")?.is_some() && codes.is_none();
    let elem = codes.or(to).or(if unknown_zero_point { None } else { Some(ElemType::U8) });
    push(ctx, elem, shape);
    Ok(())
}

fn dequantize(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", is_code, "integer or 8-bit float")?;
    common_elem(ctx, &["x", "zero_point"])?;
    let scale = want_elem(ctx, "scale", ElemType::is_float, "floating-point")?;
    let axis = int(ctx, "axis")?;
    grid(ctx, Some(axis), int(ctx, "block")?)?;
    let shape = tensor(ctx, "x")?.and_then(|t| t.shape.clone());
    push(ctx, ctx.decl.elem(ctx.attrs, "to").or(scale), shape);
    Ok(())
}

/// Checks `scale` and `zero_point` against `x`: a scalar (or a vector of one), a vector along `axis`, or one element
/// for each `block` elements of `axis`.
fn grid(ctx: &InferCtx<'_>, axis: Option<i64>, block: i64) -> Inferred {
    want_elem(ctx, "scale", ElemType::is_float, "floating-point")?;
    if block < 0 {
        return fail(format!("attribute `block` must be at least 0, it is {block}"));
    }
    let (scale, zero_point) = (dims(ctx, "scale")?, dims(ctx, "zero_point")?);
    let single = |d: &[Dim]| matches!(d, [] | [Dim::Const(1)]);
    if let (Some(s), Some(z)) = (scale, zero_point)
        && !(single(s) && single(z))
        && (s.len() != z.len() || s.iter().zip(z).any(|(a, b)| a.surely_differs(b)))
    {
        return fail(format!(
            "operands `scale` {} and `zero_point` {} must have the same shape",
            show_shape(s),
            show_shape(z)
        ));
    }
    let (Some(scale), Some(x)) = (scale.or(zero_point), dims(ctx, "x")?) else { return Ok(()) };
    match (scale, axis) {
        ([] | [Dim::Const(1)], _) => Ok(()),
        (s, None) => {
            fail(format!("operand `scale` must be a scalar without `axis`, its shape is {}", show_shape(s)))
        }
        (s, Some(axis)) => {
            let at = ctx.axis(axis, x.len())?;
            if block == 0 { along_axis(s, x, at) } else { in_blocks(s, x, at, block) }
        }
    }
}

fn along_axis(scale: &[Dim], x: &[Dim], axis: usize) -> Inferred {
    match (scale, x.get(axis)) {
        ([length], Some(extent)) => {
            agree(length, "the length of `scale`", extent, &format!("axis {axis} of `x`")).map(|_| ())
        }
        (s, _) => fail(format!(
            "operand `scale` must be a scalar or a vector along axis {axis}, its shape is {} (attribute `block` is not set)",
            show_shape(s)
        )),
    }
}

fn in_blocks(scale: &[Dim], x: &[Dim], axis: usize, block: i64) -> Inferred {
    if scale.len() != x.len() {
        return fail(format!(
            "with `block`, operand `scale` {} must have the rank of `x` {}",
            show_shape(scale),
            show_shape(x)
        ));
    }
    for (i, (s, d)) in scale.iter().zip(x).enumerate() {
        let (wanted, what) = if i == axis {
            (
                d.add(&(block - 1).into()).floor_div(block),
                format!("the number of blocks of {block} along axis {i} of `x`"),
            )
        } else {
            (d.clone(), "that of `x`".into())
        };
        agree(s, &format!("axis {i} of `scale`"), &wanted, &what)?;
    }
    Ok(())
}
