//! Convolutions.

use super::support::*;
use super::window::{self, Window};
use crate::dim::Dim;
use crate::infer::{InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole, ResultDecl, form,
};
use crate::types::Shape;

/// Number of channel groups that do not see each other.
const GROUP: AttrDecl = AttrDecl::new("group", AttrKind::Int, Default::Int(1));

/// The attributes that every convolution has. Extents of the kernel are those of the weight.
pub(crate) const CONV_ATTRS: &[AttrDecl] =
    &[window::STRIDES, window::PADS, window::DILATIONS, GROUP, window::AUTO_PAD];

/// ONNX's attributes of a convolution.
pub(crate) const CONV_ONNX_ATTRS: &[OnnxAttr] = &[
    OnnxAttr::SpatialOf("kernel_shape", "w"),
    window::ONNX_STRIDES,
    window::ONNX_PADS,
    window::ONNX_DILATIONS,
    OnnxAttr::Same("group", "group"),
    window::ONNX_AUTO_PAD,
];

const XWB: &[OnnxInput] = &[OnnxInput::Operand("x"), OnnxInput::Operand("w"), OnnxInput::Operand("b")];

const OPERANDS: &[OperandDecl] = &[
    OperandDecl::one("x", QRole::Data),
    OperandDecl::one("w", QRole::Weight).learned(),
    OperandDecl::optional("b", QRole::Bias).learned(),
];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "conv",
        doc: "Convolution of `x` [N, C, spatial...] with `w` [M, C/group, kernel...], plus the bias `b` [M].",
        operands: OPERANDS,
        results: &[ResultDecl::one("y", QRole::Own)],
        attrs: CONV_ATTRS,
        infer: conv,
        onnx: onnx("Conv", &[form(1, XWB, CONV_ONNX_ATTRS)]),
        axes: AxisRule::Clauses(
            "x.0 = y.0 parallel; x.1 ~ w.1 sum; w.0 = b.0 = y.1; x.2.. fixed; w.2.. fixed; y.2.. fixed; set group",
        ),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "conv_transpose",
        doc: "Transposed convolution of `x` [N, C, spatial...] with `w` [C, M/group, kernel...], plus the bias `b` [M].",
        operands: OPERANDS,
        results: &[ResultDecl::one("y", QRole::Own)],
        attrs: &[
            window::STRIDES,
            window::PADS,
            window::DILATIONS,
            GROUP,
            window::AUTO_PAD,
            AttrDecl::new("output_padding", AttrKind::Ints, Default::All(0)),
        ],
        infer: conv_transpose,
        onnx: onnx(
            "ConvTranspose",
            &[form(
                1,
                XWB,
                &[
                    OnnxAttr::SpatialOf("kernel_shape", "w"),
                    window::ONNX_STRIDES,
                    window::ONNX_PADS,
                    window::ONNX_DILATIONS,
                    OnnxAttr::Same("group", "group"),
                    window::ONNX_AUTO_PAD,
                    OnnxAttr::Same("output_padding", "output_padding"),
                    OnnxAttr::Fixed("output_shape", Default::Absent),
                ],
            )],
        ),
        axes: AxisRule::Clauses(
            "x.0 = y.0 parallel; x.1 ~ w.0 sum; w.1 = b.0 = y.1; x.2.. fixed; w.2.. fixed; y.2.. fixed; set group",
        ),
        ..OpDecl::BASE
    },
];

fn conv(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = common_elem(ctx, &["x", "w", "b"])?;
    let shape = conv_shape(ctx)?;
    push(ctx, elem, shape);
    Ok(())
}

fn conv_transpose(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = common_elem(ctx, &["x", "w", "b"])?;
    let shape = conv_transpose_shape(ctx)?;
    push(ctx, elem, shape);
    Ok(())
}

/// Extents of `x` and `w`: the first two by name, the spatial ones as a list.
struct Sides {
    x: [Dim; 2],
    w: [Dim; 2],
    input: Vec<Dim>,
    kernel: Vec<Dim>,
}

/// The extents of `x` and `w`, whose rank must be the same; those of which nothing is known are unknown.
fn sides(ctx: &InferCtx<'_>) -> Result<Option<Sides>, InferError> {
    let (x, w) = (dims(ctx, "x")?, dims(ctx, "w")?);
    if let (Some(x), Some(w)) = (x, w)
        && x.len() != w.len()
    {
        return fail(format!(
            "operands `x` {} and `w` {} must have the same rank",
            show_shape(x),
            show_shape(w)
        ));
    }
    let Some(rank) = x.or(w).map(<[Dim]>::len) else { return Ok(None) };
    let split = |name: &str, d: Option<&[Dim]>| match d {
        None => Ok(([Dim::Unknown, Dim::Unknown], vec![Dim::Unknown; rank.saturating_sub(2)])),
        Some([a, b, spatial @ ..]) if !spatial.is_empty() => Ok(([a.clone(), b.clone()], spatial.to_vec())),
        Some(d) => fail(format!(
            "operand `{name}` {} needs two axes and at least one spatial axis after them",
            show_shape(d)
        )),
    };
    let ((x, input), (w, kernel)) = (split("x", x)?, split("w", w)?);
    Ok(Some(Sides { x, w, input, kernel }))
}

/// The extent of the bias, where it is there and known.
fn bias_extent(ctx: &InferCtx<'_>) -> Result<Dim, InferError> {
    if ctx.decl.operand_index("b").is_none() {
        return Ok(Dim::Unknown);
    }
    Ok(want_rank(ctx, "b", 1)?.and_then(<[Dim]>::first).cloned().unwrap_or(Dim::Unknown))
}

/// An extent that `group` must divide.
fn divided(extent: &Dim, group: i64, what: &str) -> Inferred {
    match extent {
        Dim::Const(n) if n % group != 0 => {
            fail(format!("{what} is {n}, which group = {group} does not divide"))
        }
        _ => Ok(()),
    }
}

/// The shape of a convolution's result, from operands named `x`, `w` and (where declared) `b`.
pub(crate) fn conv_shape(ctx: &InferCtx<'_>) -> Result<Option<Shape>, InferError> {
    let group = positive(ctx, "group")?;
    let Some(s) = sides(ctx)? else { return Ok(None) };
    let read = s.w[1].mul(&group.into());
    if s.x[1].surely_differs(&read) {
        return fail(format!(
            "operand `x` has {} channels (axis 1), but `w` reads {} ({} in axis 1, times group = {group})",
            show(&s.x[1]),
            show(&read),
            show(&s.w[1])
        ));
    }
    divided(&s.w[0], group, "the number of output channels (axis 0 of `w`)")?;
    let bias = bias_extent(ctx)?;
    let channels =
        agree(&bias, "the length of `b`", &s.w[0], "the number of output channels (axis 0 of `w`)")?;
    let [batch, _] = s.x;
    let places = Window::read(ctx, s.input.len())?.places(&s.input, &s.kernel)?;
    Ok(Some(shape_of([batch, channels].into_iter().chain(places))))
}

fn conv_transpose_shape(ctx: &InferCtx<'_>) -> Result<Option<Shape>, InferError> {
    let group = positive(ctx, "group")?;
    let Some(s) = sides(ctx)? else { return Ok(None) };
    let inputs = agree(&s.x[1], "the number of channels (axis 1 of `x`)", &s.w[0], "axis 0 of `w`")?;
    divided(&inputs, group, "the number of channels (axis 1 of `x`)")?;
    let made = s.w[1].mul(&group.into());
    let bias = bias_extent(ctx)?;
    let channels = agree(
        &bias,
        "the length of `b`",
        &made,
        "the number of output channels (axis 1 of `w` times group)",
    )?;
    let window = Window::read(ctx, s.input.len())?;
    let extra = list(ctx, "output_padding", s.input.len())?;
    for (&extra, step) in extra.iter().zip(window.steps()) {
        // More than that would be rows that no element of the input reaches.
        let most = step.stride.max(step.dilation);
        if !(0..most).contains(&extra) {
            return fail(format!(
                "attribute `output_padding` has an entry {extra}; it must be less than the stride or the dilation, here {most}"
            ));
        }
    }
    let [batch, _] = s.x;
    let spread = window.spread(&s.input, &s.kernel, &extra)?;
    Ok(Some(shape_of([batch, channels].into_iter().chain(spread))))
}
