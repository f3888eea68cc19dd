//! Matrix products.

use super::support::*;
use crate::dim::Dim;
use crate::infer::{InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, form, uncovered,
};
use crate::types::Shape;

/// The attributes of a general matrix product.
const GEMM_ONNX_ATTRS: &[OnnxAttr] = &[
    OnnxAttr::Same("alpha", "alpha"),
    OnnxAttr::Same("beta", "beta"),
    OnnxAttr::Same("transA", "trans_a"),
    OnnxAttr::Same("transB", "trans_b"),
];
const GEMM_INPUTS: &[OnnxInput] =
    &[OnnxInput::Operand("a"), OnnxInput::Operand("b"), OnnxInput::Operand("c")];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "gemm",
        doc: "alpha * A * B + beta * C of matrices, where A and B are `a` and `b`, transposed if asked.",
        operands: &[
            OperandDecl::one("a", QRole::Data),
            OperandDecl::one("b", QRole::Weight).learned(),
            OperandDecl::optional("c", QRole::Bias).learned(),
        ],
        results: &[ResultDecl::one("y", QRole::Own)],
        attrs: &[
            AttrDecl::new("alpha", AttrKind::Float, Default::Float(1.0)),
            AttrDecl::new("beta", AttrKind::Float, Default::Float(1.0)),
            AttrDecl::new("trans_a", AttrKind::Bool, Default::Bool(false)),
            AttrDecl::new("trans_b", AttrKind::Bool, Default::Bool(false)),
        ],
        infer: gemm,
        // Before 7 the third input broadcasts only on request.
        onnx: onnx("Gemm", &[uncovered(1), form(7, GEMM_INPUTS, GEMM_ONNX_ATTRS)]),
        axes: AxisRule::Function(AxisFunction::Gemm),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "matmul",
        doc: "Product of the matrices in the last two axes, batched over the others as NumPy does.",
        operands: &[OperandDecl::one("a", QRole::Data), OperandDecl::one("b", QRole::Weight).learned()],
        results: &[ResultDecl::one("y", QRole::Own)],
        infer: matmul,
        onnx: onnx("MatMul", &[form(1, AB, &[])]),
        axes: AxisRule::Function(AxisFunction::Matmul),
        ..OpDecl::BASE
    },
];

fn gemm(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = common_elem(ctx, &["a", "b", "c"])?;
    let mut shape = gemm_shape(ctx)?;
    if let Some(c) = dims(ctx, "c")? {
        let widened =
            broadcast_named(Some(&shape), "the product", Some(c), "operand `c`")?.unwrap_or_default();
        if widened.len() != 2 || widened.iter().zip(&shape).any(|(w, s)| w.surely_differs(s)) {
            return fail(format!(
                "operand `c` {} does not broadcast to the product {}",
                show_shape(c),
                show_shape(&shape)
            ));
        }
        shape = shape.iter().zip(&widened).map(|(s, w)| meet(s, w)).collect();
    }
    push(ctx, elem, Some(shape));
    Ok(())
}

/// The extents of a matrix operand after transposition.
fn matrix(ctx: &InferCtx<'_>, name: &str, trans: &str) -> Result<(Dim, Dim), InferError> {
    match want_rank(ctx, name, 2)? {
        Some([rows, columns]) if flag(ctx, trans) => Ok((columns.clone(), rows.clone())),
        Some([rows, columns]) => Ok((rows.clone(), columns.clone())),
        _ => Ok((Dim::Unknown, Dim::Unknown)),
    }
}

/// The shape of the product of `a` and `b` with `trans_a` and `trans_b`.
pub(crate) fn gemm_shape(ctx: &InferCtx<'_>) -> Result<Shape, InferError> {
    let (rows, inner_a) = matrix(ctx, "a", "trans_a")?;
    let (inner_b, columns) = matrix(ctx, "b", "trans_b")?;
    let side = |trans: &str, plain: usize| if flag(ctx, trans) { 1 - plain } else { plain };
    let of_a = format!("axis {} of `a`", side("trans_a", 1));
    let of_b = format!("axis {} of `b`", side("trans_b", 0));
    agree(&inner_a, &of_a, &inner_b, &of_b)?;
    Ok(shape_of([rows, columns]))
}

fn matmul(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = common_elem(ctx, &["a", "b"])?;
    let shape = matmul_shape(ctx)?;
    push(ctx, elem, shape);
    Ok(())
}

/// The shape of the batched product of `a` and `b`.
pub(crate) fn matmul_shape(ctx: &InferCtx<'_>) -> Result<Option<Shape>, InferError> {
    let (Some(a), Some(b)) = (dims(ctx, "a")?, dims(ctx, "b")?) else { return Ok(None) };
    // A vector is a row on the left and a column on the right; its other axis does not appear in the result.
    let (rows, inner_a, batch_a) = match a {
        [] => return fail("operand `a` is a scalar, a matrix product needs at least one axis"),
        [k] => (None, k, &[][..]),
        [batch @ .., m, k] => (Some(m.clone()), k, batch),
    };
    let (inner_b, columns, batch_b) = match b {
        [] => return fail("operand `b` is a scalar, a matrix product needs at least one axis"),
        [k] => (k, None, &[][..]),
        [batch @ .., k, n] => (k, Some(n.clone()), batch),
    };
    agree(
        inner_a,
        "the last axis of `a`",
        inner_b,
        if b.len() == 1 { "the only axis of `b`" } else { "the last but one axis of `b`" },
    )?;
    let batch = broadcast_named(Some(batch_a), "the leading axes of `a`", Some(batch_b), "those of `b`")?;
    Ok(batch.map(|batch| batch.into_iter().chain(rows).chain(columns).collect()))
}
