//! Normalisations and softmax.

use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::InferCtx;
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxForm, OnnxInput, OpDecl, OperandDecl,
    QRole, ResultDecl, form, uncovered,
};

const EPSILON: AttrDecl = AttrDecl::new("epsilon", AttrKind::Float, Default::Float(1e-5));
const ONNX_EPSILON: OnnxAttr = OnnxAttr::Same("epsilon", "epsilon");
const MOMENTUM: OnnxAttr = OnnxAttr::Same("momentum", "momentum");

const BATCH_NORM_INPUTS: &[OnnxInput] = &[
    OnnxInput::Operand("x"),
    OnnxInput::Operand("scale"),
    OnnxInput::Operand("bias"),
    OnnxInput::Operand("mean"),
    OnnxInput::Operand("var"),
];

/// ONNX before 13: the default axis is 1 and the operand is treated as a matrix.
const LEGACY_SOFTMAX: &[OnnxAttr] = &[
    OnnxAttr::Defaulting("axis", "axis", Default::Int(1)),
    OnnxAttr::Implied("legacy", Default::Bool(true)),
];
const SOFTMAX_FORMS: &[OnnxForm] =
    &[form(1, X, LEGACY_SOFTMAX), form(13, X, &[OnnxAttr::Same("axis", "axis")])];
const SOFTMAX_ATTRS: &[AttrDecl] = &[
    AttrDecl::new("axis", AttrKind::Int, Default::Int(-1)),
    AttrDecl::new("legacy", AttrKind::Bool, Default::Bool(false)),
];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "batch_norm",
        doc: "Batch normalisation with given statistics, per channel (axis 1): \
              scale * (x - mean) / sqrt(var + epsilon) + bias.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            OperandDecl::one("scale", QRole::Float).learned(),
            OperandDecl::one("bias", QRole::Float).learned(),
            OperandDecl::one("mean", QRole::Float),
            OperandDecl::one("var", QRole::Float),
        ],
        results: &[ResultDecl::one("y", QRole::Own)],
        // The momentum matters to training alone.
        attrs: &[EPSILON, AttrDecl::new("momentum", AttrKind::Float, Default::Float(0.9))],
        infer: batch_norm,
        onnx: onnx(
            "BatchNormalization",
            &[
                uncovered(1),
                form(
                    6,
                    BATCH_NORM_INPUTS,
                    &[
                        ONNX_EPSILON,
                        MOMENTUM,
                        OnnxAttr::Demanded("is_test", Default::Int(1)),
                        OnnxAttr::Fixed("spatial", Default::Int(1)),
                    ],
                ),
                form(
                    7,
                    BATCH_NORM_INPUTS,
                    &[ONNX_EPSILON, MOMENTUM, OnnxAttr::Fixed("spatial", Default::Int(1))],
                ),
                form(9, BATCH_NORM_INPUTS, &[ONNX_EPSILON, MOMENTUM]),
                form(
                    14,
                    BATCH_NORM_INPUTS,
                    &[ONNX_EPSILON, MOMENTUM, OnnxAttr::Fixed("training_mode", Default::Int(0))],
                ),
            ],
        ),
        axes: AxisRule::Clauses(
            "x.0 = y.0 parallel; x.1 = scale.0 = bias.0 = mean.0 = var.0 = y.1; x.2.. = y.2..",
        ),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "layer_norm",
        doc: "Normalises over the axes from `axis` on to mean 0 and variance 1, then scales and shifts.",
        operands: &[
            OperandDecl::one("x", QRole::Float),
            OperandDecl::one("scale", QRole::Float).learned(),
            OperandDecl::optional("bias", QRole::Float).learned(),
        ],
        results: &[ResultDecl::one("y", QRole::Own)],
        attrs: &[AttrDecl::new("axis", AttrKind::Int, Default::Int(-1)), EPSILON],
        infer: layer_norm,
        onnx: onnx(
            "LayerNormalization",
            &[form(
                17,
                &[OnnxInput::Operand("x"), OnnxInput::Operand("scale"), OnnxInput::Operand("bias")],
                &[
                    OnnxAttr::Same("axis", "axis"),
                    ONNX_EPSILON,
                    OnnxAttr::Fixed("stash_type", Default::Int(1)),
                ],
            )],
        ),
        axes: AxisRule::Function(AxisFunction::LayerNorm),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "softmax",
        doc: "exp(x) divided by its sum along `axis`. With `legacy` (ONNX before 13) the sum goes over all axes from \
              `axis` on.",
        operands: &[OperandDecl::one("x", QRole::Data)],
        results: &[ResultDecl::one("y", QRole::Fixed(1.0 / 256.0, 0))],
        attrs: SOFTMAX_ATTRS,
        infer: softmax,
        onnx: onnx("Softmax", SOFTMAX_FORMS),
        axes: AxisRule::Function(AxisFunction::Softmax),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "log_softmax",
        doc: "The logarithm of `softmax`.",
        operands: &[OperandDecl::one("x", QRole::Data)],
        results: &[ResultDecl::one("y", QRole::Own)],
        attrs: SOFTMAX_ATTRS,
        infer: softmax,
        onnx: onnx("LogSoftmax", SOFTMAX_FORMS),
        axes: AxisRule::Function(AxisFunction::Softmax),
        ..OpDecl::BASE
    },
];

pub(super) fn batch_norm(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    let mut shape = tensor(ctx, "x")?.and_then(|t| t.shape.clone());
    let mut channels = match shape.as_deref() {
        Some([_, c, ..]) => c.clone(),
        Some(d) => return fail(format!("operand `x` {} has no channel axis (axis 1)", show_shape(d))),
        None => Dim::Unknown,
    };
    for name in ["scale", "bias", "mean", "var"] {
        want_elem(ctx, name, ElemType::is_float, "floating-point")?;
        if let Some([length]) = want_rank(ctx, name, 1)? {
            let of = format!("the length of `{name}`");
            channels = agree(&channels, "the number of channels (axis 1 of `x`)", length, &of)?;
        }
    }
    if let Some(c) = shape.as_deref_mut().and_then(|s| s.get_mut(1)) {
        *c = channels;
    }
    push(ctx, elem, shape);
    Ok(())
}

fn layer_norm(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    let x = dims(ctx, "x")?;
    if let Some(x) = x {
        let axis = ctx.axis(int(ctx, "axis")?, x.len())?;
        for name in ["scale", "bias"] {
            want_elem(ctx, name, ElemType::is_float, "floating-point")?;
            let normalised = x.get(axis..).unwrap_or(&[]);
            if let Some(d) = dims(ctx, name)?
                && !fits_into(d, normalised)
            {
                return fail(format!(
                    "operand `{name}` {} does not broadcast to the normalised axes {} of `x`",
                    show_shape(d),
                    show_shape(normalised)
                ));
            }
        }
    }
    push(ctx, elem, x.map(|d| shape_of(d.to_vec())));
    Ok(())
}

fn softmax(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    if let Some(x) = dims(ctx, "x")? {
        let axis = int(ctx, "axis")?;
        // The older meaning cuts before an axis, so that the place after the last one is a cut too.
        if !(flag(ctx, "legacy") && axis == x.len() as i64) {
            ctx.axis(axis, x.len())?;
        }
    }
    same(ctx)
}
