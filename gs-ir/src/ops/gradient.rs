//! What gradients are made of: the derivatives of operators that are no composition of other operators. They appear in
//! training graphs only and have no ONNX form. An extent that the forward operand had and the gradient must get back is
//! the attribute `shape`, so that the operand itself need not be kept until then.

use super::convolution::CONV_ATTRS;
use super::pooling::KERNEL_SHAPE;
use super::support::*;
use super::window;
use crate::elem::ElemType;
use crate::infer::{InferCtx, broadcast, dims_attr};
use crate::registry::{AttrDecl, AttrKind, Default, OpDecl, OperandDecl, QRole, ResultDecl, Traits};
use crate::types::Shape;

const SHAPE: AttrDecl = AttrDecl::new("shape", AttrKind::Dims, Default::Required);
const DX: &[ResultDecl] = &[ResultDecl::one("dx", QRole::None)];
const DY: OperandDecl = OperandDecl::one("dy", QRole::None);
const X: OperandDecl = OperandDecl::one("x", QRole::None);

/// The attributes of a convolution and the extents of what the gradient is for.
const CONV_GRAD_ATTRS: &[AttrDecl] =
    &[SHAPE, CONV_ATTRS[0], CONV_ATTRS[1], CONV_ATTRS[2], CONV_ATTRS[3], CONV_ATTRS[4]];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "broadcast",
        doc: "`x` with axes of extent 1 inserted at `axes`, broadcast to `shape`; with `mean` divided by the number of \
              copies that is made of each element.",
        operands: &[X],
        results: &[ResultDecl::one("y", QRole::None)],
        attrs: &[
            SHAPE,
            AttrDecl::new("axes", AttrKind::Ints, Default::Absent),
            AttrDecl::new("mean", AttrKind::Bool, Default::Bool(false)),
        ],
        infer: broadcast_shape,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "unbroadcast",
        doc: "The sum of `x` over the copies that broadcasting from `shape` would make.",
        operands: &[X],
        results: &[ResultDecl::one("y", QRole::None)],
        attrs: &[SHAPE],
        infer: unbroadcast,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "relu_grad",
        doc: "`dy` where the result `y` of relu is above 0, else 0.",
        operands: &[DY, OperandDecl::one("y", QRole::None)],
        results: DX,
        traits: ELEMENTWISE,
        infer: like_dy,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "clip_grad",
        doc: "`dy` where `x` lies within `min`..`max`, the limits included, else 0.",
        operands: &[DY, X],
        results: DX,
        attrs: &[
            AttrDecl::new("min", AttrKind::Float, Default::Absent),
            AttrDecl::new("max", AttrKind::Float, Default::Absent),
        ],
        traits: ELEMENTWISE,
        infer: like_dy,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "conv_input_grad",
        doc: "The derivative of `conv` by its input, whose extents are `shape`, times `dy`.",
        operands: &[DY, OperandDecl::one("w", QRole::None)],
        results: DX,
        attrs: CONV_GRAD_ATTRS,
        infer: stated_shape,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "conv_weight_grad",
        doc: "The derivative of `conv` by its weight, whose extents are `shape`, times `dy`.",
        operands: &[DY, X],
        results: &[ResultDecl::one("dw", QRole::None)],
        attrs: CONV_GRAD_ATTRS,
        infer: stated_shape,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "max_pool_grad",
        doc: "The derivative of `max_pool` by its input `x`, times `dy`: each element of `dy` goes to the first greatest \
              element under its window.",
        operands: &[DY, X],
        results: DX,
        attrs: &[
            KERNEL_SHAPE,
            window::STRIDES,
            window::PADS,
            window::DILATIONS,
            window::CEIL_MODE,
            window::AUTO_PAD,
        ],
        infer: like_x,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "average_pool_grad",
        doc: "The derivative of `average_pool` by its input, whose extents are `shape`, times `dy`.",
        operands: &[DY],
        results: DX,
        attrs: &[
            SHAPE,
            KERNEL_SHAPE,
            window::STRIDES,
            window::PADS,
            window::DILATIONS,
            window::CEIL_MODE,
            window::AUTO_PAD,
            AttrDecl::new("count_include_pad", AttrKind::Bool, Default::Bool(false)),
        ],
        infer: stated_shape,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "slice_grad",
        doc: "The derivative of `slice` by its input, whose extents are `shape`, times `dy`: `dy` at the places that were \
              read, 0 elsewhere.",
        operands: &[DY],
        results: DX,
        attrs: &[
            SHAPE,
            AttrDecl::new("starts", AttrKind::Ints, Default::Required),
            AttrDecl::new("ends", AttrKind::Ints, Default::Required),
            AttrDecl::new("axes", AttrKind::Ints, Default::Absent),
            AttrDecl::new("steps", AttrKind::Ints, Default::All(1)),
        ],
        infer: stated_shape,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "batch_norm_grad",
        doc: "The derivatives of `batch_norm_train` by its input, scale and bias, times `dy`; `mean` and `inv_std` are \
              its results. Where `frozen` holds, the statistics do not depend on the input.",
        operands: &[
            DY,
            X,
            OperandDecl::one("scale", QRole::None),
            OperandDecl::one("mean", QRole::None),
            OperandDecl::one("inv_std", QRole::None),
            super::training::FROZEN,
        ],
        results: &[
            ResultDecl::one("dx", QRole::None),
            ResultDecl::one("dscale", QRole::None),
            ResultDecl::one("dbias", QRole::None),
        ],
        infer: batch_norm_grad,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "fake_quant_grad",
        doc: "The straight-through derivative of `fake_quant` by `x`, times `dy`: `dy` where `x` lies within what its \
              codes cover, the limits included, else 0 (Jacob et al. 2018).",
        operands: &[DY, X, OperandDecl::one("range", QRole::None)],
        results: DX,
        attrs: super::quantization::FAKE_QUANT_ATTRS,
        infer: |ctx| {
            super::quantization::fake_quant(ctx)?;
            ctx.results.clear();
            like_dy(ctx)
        },
        ..OpDecl::BASE
    },
    OpDecl {
        name: "cross_entropy_grad",
        doc: "The derivative of `cross_entropy` by its logits, times `dy`; `log_prob` is its result.",
        operands: &[DY, OperandDecl::one("log_prob", QRole::None), OperandDecl::one("labels", QRole::None)],
        results: &[ResultDecl::one("dlogits", QRole::None)],
        attrs: &[super::training::SMOOTHING],
        infer: |ctx| like(ctx, "log_prob"),
        ..OpDecl::BASE
    },
];

const ELEMENTWISE: Traits = Traits::PURE.and(Traits::ELEMENTWISE);

fn stated(ctx: &InferCtx<'_>) -> Option<Shape> {
    dims_attr(ctx.attrs.get("shape"))
}

/// The result has the element type of the first operand and the extents `shape`.
fn stated_shape(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, ctx.decl.operands[0].name, ElemType::is_float, "floating-point")?;
    let shape = stated(ctx);
    push(ctx, elem, shape);
    Ok(())
}

fn broadcast_shape(ctx: &mut InferCtx<'_>) -> Inferred {
    if let (Some(x), Some(to)) = (dims(ctx, "x")?, stated(ctx)) {
        let mut x = x.to_vec();
        if ctx.attrs.get("axes").is_some() {
            let mut at = axes(ctx, ints(ctx, "axes")?, to.len())?;
            at.sort_unstable();
            for axis in at.into_iter().filter(|&a| a <= to.len()) {
                x.insert(axis.min(x.len()), 1.into());
            }
        }
        if !fits_into(&x, &to) {
            return fail(format!("operand `x` {} does not broadcast to {}", show_shape(&x), show_shape(&to)));
        }
    }
    stated_shape(ctx)
}

fn unbroadcast(ctx: &mut InferCtx<'_>) -> Inferred {
    if let (Some(x), Some(to)) = (dims(ctx, "x")?, stated(ctx))
        && (to.len() > x.len() || broadcast(&to, x).is_err())
    {
        return fail(format!("{} does not broadcast to operand `x` {}", show_shape(&to), show_shape(x)));
    }
    stated_shape(ctx)
}

/// The result has the type of this operand.
fn like(ctx: &mut InferCtx<'_>, name: &str) -> Inferred {
    let elem = want_elem(ctx, name, ElemType::is_float, "floating-point")?;
    let shape = tensor(ctx, name)?.and_then(|t| t.shape.clone());
    push(ctx, elem, shape);
    Ok(())
}

fn like_dy(ctx: &mut InferCtx<'_>) -> Inferred {
    like(ctx, "dy")
}

fn like_x(ctx: &mut InferCtx<'_>) -> Inferred {
    like(ctx, "x")
}

fn batch_norm_grad(ctx: &mut InferCtx<'_>) -> Inferred {
    super::training::want_flag(ctx, "frozen")?;
    like(ctx, "x")?;
    like(ctx, "scale")?;
    like(ctx, "scale")
}
