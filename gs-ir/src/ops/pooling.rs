//! Pools: windows without weights.

use super::support::*;
use super::window::{self, Window};
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisRule, Default, OnnxAttr, OpDecl, OperandDecl, QRole, ResultDecl, form,
};
use crate::types::Shape;

/// Extents of the window.
pub(crate) const KERNEL_SHAPE: AttrDecl = AttrDecl::new("kernel_shape", AttrKind::Ints, Default::Required);
/// Whether padding counts in the divisor of an average.
pub(crate) const COUNT_INCLUDE_PAD: AttrDecl =
    AttrDecl::new("count_include_pad", AttrKind::Bool, Default::Bool(false));
/// `kernel_shape` under ONNX's name.
pub(crate) const ONNX_KERNEL_SHAPE: OnnxAttr = OnnxAttr::Same("kernel_shape", "kernel_shape");
/// `count_include_pad` under ONNX's name.
pub(crate) const ONNX_COUNT_INCLUDE_PAD: OnnxAttr = OnnxAttr::Same("count_include_pad", "count_include_pad");

const STORAGE_ORDER: OnnxAttr = OnnxAttr::Fixed("storage_order", Default::Int(0));

/// Samples and channels pass, places do not.
const POOL_AXES: AxisRule = AxisRule::Clauses("x.0 = y.0 parallel; x.1 = y.1; x.2.. fixed; y.2.. fixed");

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "max_pool",
        doc: "The greatest element under each place of a window over the spatial axes.",
        operands: &[OperandDecl::one("x", QRole::Same)],
        results: &[ResultDecl::one("y", QRole::Same)],
        attrs: &[
            KERNEL_SHAPE,
            window::STRIDES,
            window::PADS,
            window::DILATIONS,
            window::CEIL_MODE,
            window::AUTO_PAD,
        ],
        infer: pool,
        onnx: onnx(
            "MaxPool",
            &[
                form(
                    1,
                    X,
                    &[ONNX_KERNEL_SHAPE, window::ONNX_STRIDES, window::ONNX_PADS, window::ONNX_AUTO_PAD],
                ),
                form(
                    8,
                    X,
                    &[
                        ONNX_KERNEL_SHAPE,
                        window::ONNX_STRIDES,
                        window::ONNX_PADS,
                        window::ONNX_AUTO_PAD,
                        STORAGE_ORDER,
                    ],
                ),
                form(
                    10,
                    X,
                    &[
                        ONNX_KERNEL_SHAPE,
                        window::ONNX_STRIDES,
                        window::ONNX_PADS,
                        window::ONNX_DILATIONS,
                        window::ONNX_CEIL_MODE,
                        window::ONNX_AUTO_PAD,
                        STORAGE_ORDER,
                    ],
                ),
            ],
        ),
        axes: POOL_AXES,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "average_pool",
        doc: "The mean of the elements under each place of a window over the spatial axes.",
        operands: &[OperandDecl::one("x", QRole::Data)],
        results: &[ResultDecl::one("y", QRole::Own)],
        attrs: &[
            KERNEL_SHAPE,
            window::STRIDES,
            window::PADS,
            window::DILATIONS,
            window::CEIL_MODE,
            COUNT_INCLUDE_PAD,
            window::AUTO_PAD,
        ],
        infer: float_pool,
        onnx: onnx(
            "AveragePool",
            &[
                form(
                    1,
                    X,
                    &[ONNX_KERNEL_SHAPE, window::ONNX_STRIDES, window::ONNX_PADS, window::ONNX_AUTO_PAD],
                ),
                form(
                    7,
                    X,
                    &[
                        ONNX_KERNEL_SHAPE,
                        window::ONNX_STRIDES,
                        window::ONNX_PADS,
                        window::ONNX_AUTO_PAD,
                        ONNX_COUNT_INCLUDE_PAD,
                    ],
                ),
                form(
                    10,
                    X,
                    &[
                        ONNX_KERNEL_SHAPE,
                        window::ONNX_STRIDES,
                        window::ONNX_PADS,
                        window::ONNX_CEIL_MODE,
                        window::ONNX_AUTO_PAD,
                        ONNX_COUNT_INCLUDE_PAD,
                    ],
                ),
                form(
                    19,
                    X,
                    &[
                        ONNX_KERNEL_SHAPE,
                        window::ONNX_STRIDES,
                        window::ONNX_PADS,
                        window::ONNX_DILATIONS,
                        window::ONNX_CEIL_MODE,
                        window::ONNX_AUTO_PAD,
                        ONNX_COUNT_INCLUDE_PAD,
                    ],
                ),
            ],
        ),
        axes: POOL_AXES,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "global_average_pool",
        doc: "The mean over all spatial axes, which become extents of 1.",
        operands: &[OperandDecl::one("x", QRole::Data)],
        results: &[ResultDecl::one("y", QRole::Own)],
        infer: global_pool,
        onnx: onnx("GlobalAveragePool", &[form(1, X, &[])]),
        axes: POOL_AXES,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "global_max_pool",
        doc: "The greatest element over all spatial axes, which become extents of 1.",
        operands: &[OperandDecl::one("x", QRole::Same)],
        results: &[ResultDecl::one("y", QRole::Same)],
        infer: global_pool,
        onnx: onnx("GlobalMaxPool", &[form(1, X, &[])]),
        axes: POOL_AXES,
        ..OpDecl::BASE
    },
];

fn pool(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, "x", is_numeric, "numeric")?;
    let shape = pool_shape(ctx, false)?;
    push(ctx, elem, shape);
    Ok(())
}

fn float_pool(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    pool(ctx)
}

fn global_pool(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, "x", is_numeric, "numeric")?;
    let shape = global_pool_shape(ctx, false)?;
    push(ctx, elem, shape);
    Ok(())
}

/// Cuts a shape into batch, channels and spatial extents.
fn image(x: &[Dim], channels_last: bool) -> Result<(Dim, Dim, &[Dim]), InferError> {
    match x {
        [n, c, spatial @ ..] if !channels_last && !spatial.is_empty() => Ok((n.clone(), c.clone(), spatial)),
        [n, spatial @ .., c] if channels_last && !spatial.is_empty() => Ok((n.clone(), c.clone(), spatial)),
        _ => fail(format!(
            "operand `x` {} needs a batch axis, a channel axis and at least one spatial axis",
            show_shape(x)
        )),
    }
}

/// Puts batch, channels and spatial extents together again.
fn shape(batch: Dim, channels: Dim, spatial: Vec<Dim>, channels_last: bool) -> Shape {
    let mut shape = shape_of([batch]);
    if !channels_last {
        shape.push(channels.clone());
    }
    shape.extend(spatial);
    if channels_last {
        shape.push(channels);
    }
    shape
}

/// The shape of a pool's result, from the operand `x`.
pub(crate) fn pool_shape(ctx: &InferCtx<'_>, channels_last: bool) -> Result<Option<Shape>, InferError> {
    let kernel = ints(ctx, "kernel_shape")?;
    if let Some(k) = kernel.iter().find(|k| **k < 1) {
        return fail(format!("attribute `kernel_shape` has an entry {k}; the least is 1"));
    }
    let window = Window::read(ctx, kernel.len())?;
    let Some(x) = dims(ctx, "x")? else { return Ok(None) };
    let (batch, channels, input) = image(x, channels_last)?;
    if kernel.len() != input.len() {
        return fail(format!(
            "attribute `kernel_shape` has {} entries, but `x` {} has {} spatial axes",
            kernel.len(),
            show_shape(x),
            input.len()
        ));
    }
    let kernel: Vec<Dim> = kernel.iter().map(|&k| Dim::Const(k)).collect();
    Ok(Some(shape(batch, channels, window.places(input, &kernel)?, channels_last)))
}

/// The shape of a global pool's result, from the operand `x`.
pub(crate) fn global_pool_shape(
    ctx: &InferCtx<'_>,
    channels_last: bool,
) -> Result<Option<Shape>, InferError> {
    let Some(x) = dims(ctx, "x")? else { return Ok(None) };
    let (batch, channels, input) = image(x, channels_last)?;
    Ok(Some(shape(batch, channels, vec![Dim::Const(1); input.len()], channels_last)))
}
