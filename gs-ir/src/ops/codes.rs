//! Inference of the integer operators: codes with their scales and zero points.

use super::convolution::conv_shape;
use super::matmul::{gemm_shape, matmul_shape};
use super::pooling::{global_pool_shape, pool_shape};
use super::slicing::{concat_shape, same_elem};
use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{Fact, InferCtx, InferError};
use crate::types::{Shape, TensorType};

/// Codes of 8 bits, or 16, or fewer.
fn is_code(elem: ElemType) -> bool {
    elem.is_int() && elem.bits() <= 16
}

/// Checks codes and their grid: `zero_point` has the type of the codes, `scale` is a float.
/// Both are scalars, or vectors along `channels`.
fn codes(ctx: &InferCtx<'_>, name: &str, channels: Option<&Dim>) -> Result<Option<ElemType>, InferError> {
    let elem = want_elem(ctx, name, is_code, "integer")?;
    common_elem(ctx, &[name, &format!("{name}_zp")])?;
    check_grid(ctx, name, channels)?;
    Ok(elem)
}

/// Checks scale and zero point of an operand or result.
fn check_grid(ctx: &InferCtx<'_>, of: &str, channels: Option<&Dim>) -> Inferred {
    let (scale, zp) = (format!("{of}_scale"), format!("{of}_zp"));
    if ctx.decl.operand_index(&scale).is_some() {
        want_elem(ctx, &scale, ElemType::is_float, "floating-point")?;
    }
    for name in [&scale, &zp] {
        match (dims(ctx, name)?, channels) {
            (None | Some([] | [Dim::Const(1)]), _) => {}
            (Some([length]), Some(extent)) => {
                agree(length, &format!("the length of `{name}`"), extent, "the number of output channels")?;
            }
            (Some(d), Some(_)) => {
                return fail(format!(
                    "operand `{name}` must be a scalar or have one element per output channel, its shape is {}",
                    show_shape(d)
                ));
            }
            (Some(d), None) => {
                return fail(format!("operand `{name}` must be a scalar, its shape is {}", show_shape(d)));
            }
        }
    }
    Ok(())
}

/// The element type of the result: that of `y_zp`. Where it is absent, that of the codes that came in.
fn result_elem(ctx: &InferCtx<'_>, incoming: Option<ElemType>) -> Result<Option<ElemType>, InferError> {
    check_grid(ctx, "y", None)?;
    match fact(ctx, "y_zp")? {
        Some(_) => want_elem(ctx, "y_zp", is_code, "integer"),
        None => Ok(incoming),
    }
}

/// The bias of an integer sum.
fn want_bias(ctx: &InferCtx<'_>, name: &str) -> Inferred {
    want_elem(ctx, name, |e| e == ElemType::I32, "i32").map(|_| ())
}

/// Inference of `qconv`.
pub(crate) fn qconv(ctx: &mut InferCtx<'_>) -> Inferred {
    let x = codes(ctx, "x", None)?;
    let shape = conv_shape(ctx)?;
    codes(ctx, "w", Some(shape.as_ref().and_then(|s| s.get(1)).unwrap_or(&Dim::Unknown)))?;
    want_bias(ctx, "b")?;
    let elem = result_elem(ctx, x)?;
    push(ctx, elem, shape);
    Ok(())
}

/// Inference of `conv_integer`.
pub(crate) fn conv_integer(ctx: &mut InferCtx<'_>) -> Inferred {
    codes(ctx, "x", None)?;
    let shape = conv_shape(ctx)?;
    codes(ctx, "w", Some(shape.as_ref().and_then(|s| s.get(1)).unwrap_or(&Dim::Unknown)))?;
    ctx.push_tensor(ElemType::I32, shape);
    Ok(())
}

/// Checks the grid of a matrix operand. One grid for each row of `a` or column of `b` is allowed; with batch axes it
/// may have more axes, which are not followed.
fn matrix_codes(ctx: &InferCtx<'_>, name: &str, lines: Option<&Dim>) -> Result<Option<ElemType>, InferError> {
    match dims(ctx, &format!("{name}_zp"))? {
        Some([_, _, ..]) => {
            let elem = want_elem(ctx, name, is_code, "integer")?;
            common_elem(ctx, &[name, &format!("{name}_zp")])?;
            Ok(elem)
        }
        _ => codes(ctx, name, lines),
    }
}

/// The extents that a vector of grids of `a` and of `b` may have: rows and columns of the product.
fn lines(ctx: &InferCtx<'_>) -> Result<(Dim, Dim), InferError> {
    let rows = match dims(ctx, "a")? {
        Some([.., m, _]) => m.clone(),
        _ => Dim::Unknown,
    };
    let columns = match dims(ctx, "b")? {
        Some([.., _, n]) => n.clone(),
        _ => Dim::Unknown,
    };
    Ok((rows, columns))
}

/// Inference of `qmatmul`.
pub(crate) fn qmatmul(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = matmul_shape(ctx)?;
    let (rows, columns) = lines(ctx)?;
    let a = matrix_codes(ctx, "a", Some(&rows))?;
    matrix_codes(ctx, "b", Some(&columns))?;
    let elem = match dims(ctx, "y_zp")? {
        Some([_, ..]) => want_elem(ctx, "y_zp", is_code, "integer")?,
        _ => result_elem(ctx, a)?,
    };
    push(ctx, elem, shape);
    Ok(())
}

/// Inference of `matmul_integer`.
pub(crate) fn matmul_integer(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = matmul_shape(ctx)?;
    let (rows, columns) = lines(ctx)?;
    matrix_codes(ctx, "a", Some(&rows))?;
    matrix_codes(ctx, "b", Some(&columns))?;
    ctx.push_tensor(ElemType::I32, shape);
    Ok(())
}

/// Inference of `qgemm`.
pub(crate) fn qgemm(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = gemm_shape(ctx)?;
    let a = codes(ctx, "a", None)?;
    codes(ctx, "b", Some(shape.get(1).unwrap_or(&Dim::Unknown)))?;
    want_bias(ctx, "c")?;
    if let Some(c) = dims(ctx, "c")? {
        broadcast_named(Some(&shape), "the product", Some(c), "operand `c`")?;
    }
    let elem = match (fact(ctx, "y_scale")?, fact(ctx, "y_zp")?) {
        (None, None) => Some(elem(ctx, "a_scale")?.unwrap_or(ElemType::F32)),
        (None, Some(_)) => return fail("operand `y_zp` is given without `y_scale`"),
        _ => result_elem(ctx, a)?,
    };
    push(ctx, elem, Some(shape));
    Ok(())
}

/// Inference of a function of two tensors of codes.
pub(crate) fn qbinary(ctx: &mut InferCtx<'_>) -> Inferred {
    let a = codes(ctx, "a", None)?;
    let b = codes(ctx, "b", None)?;
    let elem = result_elem(ctx, a.or(b))?;
    let shape = broadcast_named(dims(ctx, "a")?, "operand `a`", dims(ctx, "b")?, "operand `b`")?;
    push(ctx, elem, shape);
    Ok(())
}

/// Inference of a function of one tensor of codes.
pub(crate) fn qunary(ctx: &mut InferCtx<'_>) -> Inferred {
    let x = codes(ctx, "x", None)?;
    let elem = result_elem(ctx, x)?;
    let shape = tensor(ctx, "x")?.and_then(|t| t.shape.clone());
    push(ctx, elem, shape);
    Ok(())
}

/// Inference of `qsoftmax`.
pub(crate) fn qsoftmax(ctx: &mut InferCtx<'_>) -> Inferred {
    if let Some(x) = dims(ctx, "x")? {
        ctx.axis(int(ctx, "axis")?, x.len())?;
    }
    qunary(ctx)
}

/// Inference of `qaverage_pool`.
pub(crate) fn qaverage_pool(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = pool_shape(ctx, flag(ctx, "channels_last"))?;
    pooled(ctx, shape)
}

/// Inference of `qglobal_average_pool`.
pub(crate) fn qglobal_average_pool(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = global_pool_shape(ctx, flag(ctx, "channels_last"))?;
    pooled(ctx, shape)
}

fn pooled(ctx: &mut InferCtx<'_>, shape: Option<Shape>) -> Inferred {
    let x = codes(ctx, "x", None)?;
    let elem = result_elem(ctx, x)?;
    push(ctx, elem, shape);
    Ok(())
}

/// Inference of `qconcat`.
pub(crate) fn qconcat(ctx: &mut InferCtx<'_>) -> Inferred {
    let triples = rest(ctx, 2);
    if triples.is_empty() || !triples.len().is_multiple_of(3) {
        return fail(format!(
            "operand `inputs` has {} places; triples of codes, scale and zero point are needed",
            triples.len()
        ));
    }
    let types: Vec<Option<&TensorType>> = triples.chunks(3).map(triple).collect::<Result<_, _>>()?;
    let incoming = same_elem(&types)?;
    let shape = concat_shape(ctx, &types)?;
    let elem = result_elem(ctx, incoming)?;
    push(ctx, elem, shape);
    Ok(())
}

/// The type of the codes of one triple, after its grid was checked.
fn triple(triple: &[Option<Fact>]) -> Result<Option<&TensorType>, InferError> {
    let [Some(codes), Some(scale), zero_point] = triple else {
        return fail("an operand of `inputs` is missing");
    };
    let codes = as_tensor(codes, "inputs")?;
    if let Some(s) = as_tensor(scale, "inputs")?
        && !s.elem.is_float()
    {
        return fail(format!("a scale of `inputs` must have floating-point elements, it has {}", s.elem));
    }
    if let (Some(z), Some(c)) = (zero_point, codes)
        && let Some(z) = as_tensor(z, "inputs")?
        && z.elem != c.elem
    {
        return fail(format!(
            "a zero point of `inputs` has {} elements, but its codes have {}",
            z.elem, c.elem
        ));
    }
    Ok(codes)
}
