//! Operators on integer codes with their scales and zero points: the deployed form.
//!
//! `x_scale` and `x_zp` are the grid of `x`, and so on. The grid of the result (`y_scale`, `y_zp`) is given too. Unless
//! said otherwise, the result is `quantize` of what the float operator gives for the dequantised operands.

use super::convolution::{CONV_ATTRS, CONV_ONNX_ATTRS, conv_shape};
use super::matmul::{gemm_shape, matmul_shape};
use super::pooling::{
    COUNT_INCLUDE_PAD, KERNEL_SHAPE, ONNX_COUNT_INCLUDE_PAD, ONNX_KERNEL_SHAPE, global_pool_shape, pool_shape,
};
use super::slicing::{concat_shape, same_elem};
use super::support::*;
use super::window;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{Fact, InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole, ResultDecl,
    Traits, form,
};
use crate::types::{Shape, TensorType};

const INTEGER: Traits = Traits::PURE.and(Traits::INTEGER);
const OWN: &[ResultDecl] = &[ResultDecl::one("y", QRole::Own)];
const SUM: &[ResultDecl] = &[ResultDecl::one("y", QRole::None)];
const CHANNELS_LAST: AttrDecl = AttrDecl::new("channels_last", AttrKind::Bool, Default::Bool(false));
const ONNX_CHANNELS_LAST: OnnxAttr = OnnxAttr::Same("channels_last", "channels_last");
const AXIS: AttrDecl = AttrDecl::new("axis", AttrKind::Int, Default::Int(-1));

/// Scale or zero point.
const fn grid(name: &'static str) -> OperandDecl {
    OperandDecl::one(name, QRole::None)
}

/// A zero point that is 0 where it is absent.
const fn zero(name: &'static str) -> OperandDecl {
    OperandDecl::optional(name, QRole::None)
}

/// Operands of a binary operator on codes.
const BINARY: &[OperandDecl] = &[
    OperandDecl::one("a", QRole::Data),
    grid("a_scale"),
    zero("a_zp"),
    OperandDecl::one("b", QRole::Data),
    grid("b_scale"),
    zero("b_zp"),
    grid("y_scale"),
    zero("y_zp"),
];
const BINARY_INPUTS: &[OnnxInput] = &[
    OnnxInput::Operand("a"),
    OnnxInput::Operand("a_scale"),
    OnnxInput::Operand("a_zp"),
    OnnxInput::Operand("b"),
    OnnxInput::Operand("b_scale"),
    OnnxInput::Operand("b_zp"),
    OnnxInput::Operand("y_scale"),
    OnnxInput::Operand("y_zp"),
];

/// Operands of a unary operator on codes.
const UNARY: &[OperandDecl] =
    &[OperandDecl::one("x", QRole::Data), grid("x_scale"), zero("x_zp"), grid("y_scale"), zero("y_zp")];
const UNARY_INPUTS: &[OnnxInput] = &[
    OnnxInput::Operand("x"),
    OnnxInput::Operand("x_scale"),
    OnnxInput::Operand("x_zp"),
    OnnxInput::Operand("y_scale"),
    OnnxInput::Operand("y_zp"),
];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "qconv",
        doc: "`conv` on codes. `w_scale` and `w_zp` are scalars or have one element for each output channel; the \
              bias is i32 at the scale x_scale * w_scale.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            grid("x_scale"),
            grid("x_zp"),
            OperandDecl::one("w", QRole::Weight),
            grid("w_scale"),
            grid("w_zp"),
            grid("y_scale"),
            grid("y_zp"),
            OperandDecl::optional("b", QRole::Bias),
        ],
        results: OWN,
        attrs: CONV_ATTRS,
        infer: qconv,
        traits: INTEGER,
        onnx: onnx(
            "QLinearConv",
            &[form(
                10,
                &[
                    OnnxInput::Operand("x"),
                    OnnxInput::Operand("x_scale"),
                    OnnxInput::Operand("x_zp"),
                    OnnxInput::Operand("w"),
                    OnnxInput::Operand("w_scale"),
                    OnnxInput::Operand("w_zp"),
                    OnnxInput::Operand("y_scale"),
                    OnnxInput::Operand("y_zp"),
                    OnnxInput::Operand("b"),
                ],
                CONV_ONNX_ATTRS,
            )],
        ),
        axes: AxisRule::Clauses(
            "x.0 = y.0 parallel; x.1 ~ w.1 sum; w.0 = w_scale.0 = w_zp.0 = b.0 = y.1; \
             x.2.. fixed; w.2.. fixed; y.2.. fixed; set group",
        ),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qmatmul",
        doc: "`matmul` on codes.",
        operands: &[
            OperandDecl::one("a", QRole::Data),
            grid("a_scale"),
            grid("a_zp"),
            OperandDecl::one("b", QRole::Weight),
            grid("b_scale"),
            grid("b_zp"),
            grid("y_scale"),
            grid("y_zp"),
        ],
        results: OWN,
        infer: qmatmul,
        traits: INTEGER,
        onnx: onnx("QLinearMatMul", &[form(10, BINARY_INPUTS, &[])]),
        axes: AxisRule::Function("matmul"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "matmul_integer",
        doc: "`matmul` of (a - a_zp) and (b - b_zp), exactly, in i32.",
        operands: &[
            OperandDecl::one("a", QRole::Data),
            OperandDecl::one("b", QRole::Weight),
            zero("a_zp"),
            zero("b_zp"),
        ],
        results: SUM,
        infer: matmul_integer,
        traits: INTEGER,
        onnx: onnx(
            "MatMulInteger",
            &[form(
                10,
                &[
                    OnnxInput::Operand("a"),
                    OnnxInput::Operand("b"),
                    OnnxInput::Operand("a_zp"),
                    OnnxInput::Operand("b_zp"),
                ],
                &[],
            )],
        ),
        axes: AxisRule::Function("matmul"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "conv_integer",
        doc: "`conv` of (x - x_zp) and (w - w_zp), exactly, in i32. Padding is x_zp.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            OperandDecl::one("w", QRole::Weight),
            zero("x_zp"),
            zero("w_zp"),
        ],
        results: SUM,
        attrs: CONV_ATTRS,
        infer: conv_integer,
        traits: INTEGER,
        onnx: onnx(
            "ConvInteger",
            &[form(
                10,
                &[
                    OnnxInput::Operand("x"),
                    OnnxInput::Operand("w"),
                    OnnxInput::Operand("x_zp"),
                    OnnxInput::Operand("w_zp"),
                ],
                CONV_ONNX_ATTRS,
            )],
        ),
        axes: AxisRule::Clauses(
            "x.0 = y.0 parallel; x.1 ~ w.1 sum; w.0 = w_zp.0 = y.1; x.2.. fixed; w.2.. fixed; y.2.. fixed; set group",
        ),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qgemm",
        doc: "`gemm` on codes; `c` is i32 at the scale alpha * a_scale * b_scale. Without `y_scale` the result is float.",
        operands: &[
            OperandDecl::one("a", QRole::Data),
            grid("a_scale"),
            grid("a_zp"),
            OperandDecl::one("b", QRole::Weight),
            grid("b_scale"),
            grid("b_zp"),
            OperandDecl::optional("c", QRole::Bias),
            zero("y_scale"),
            zero("y_zp"),
        ],
        results: OWN,
        attrs: &[
            AttrDecl::new("alpha", AttrKind::Float, Default::Float(1.0)),
            AttrDecl::new("trans_a", AttrKind::Bool, Default::Bool(false)),
            AttrDecl::new("trans_b", AttrKind::Bool, Default::Bool(false)),
        ],
        infer: qgemm,
        traits: INTEGER,
        onnx: contrib(
            "QGemm",
            &[form(
                1,
                &[
                    OnnxInput::Operand("a"),
                    OnnxInput::Operand("a_scale"),
                    OnnxInput::Operand("a_zp"),
                    OnnxInput::Operand("b"),
                    OnnxInput::Operand("b_scale"),
                    OnnxInput::Operand("b_zp"),
                    OnnxInput::Operand("c"),
                    OnnxInput::Operand("y_scale"),
                    OnnxInput::Operand("y_zp"),
                ],
                &[
                    OnnxAttr::Same("alpha", "alpha"),
                    OnnxAttr::Same("transA", "trans_a"),
                    OnnxAttr::Same("transB", "trans_b"),
                ],
            )],
        ),
        axes: AxisRule::Function("gemm"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qadd",
        doc: "`add` on codes.",
        operands: BINARY,
        results: OWN,
        infer: qbinary,
        traits: INTEGER,
        onnx: contrib("QLinearAdd", &[form(1, BINARY_INPUTS, &[])]),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qmul",
        doc: "`mul` on codes.",
        operands: BINARY,
        results: OWN,
        infer: qbinary,
        traits: INTEGER,
        onnx: contrib("QLinearMul", &[form(1, BINARY_INPUTS, &[])]),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qconcat",
        doc: "`concat` on codes; `inputs` are triples of codes, scale and zero point.",
        operands: &[grid("y_scale"), grid("y_zp"), OperandDecl::variadic("inputs", QRole::Data)],
        results: OWN,
        attrs: &[AttrDecl::new("axis", AttrKind::Int, Default::Required)],
        infer: qconcat,
        traits: INTEGER,
        onnx: contrib(
            "QLinearConcat",
            &[form(
                1,
                &[OnnxInput::Operand("y_scale"), OnnxInput::Operand("y_zp"), OnnxInput::Operand("inputs")],
                &[OnnxAttr::Same("axis", "axis")],
            )],
        ),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qaverage_pool",
        doc: "`average_pool` on codes.",
        operands: UNARY,
        results: OWN,
        attrs: &[
            KERNEL_SHAPE,
            window::STRIDES,
            window::PADS,
            window::CEIL_MODE,
            COUNT_INCLUDE_PAD,
            window::AUTO_PAD,
            CHANNELS_LAST,
        ],
        infer: qaverage_pool,
        traits: INTEGER,
        onnx: contrib(
            "QLinearAveragePool",
            &[form(
                1,
                UNARY_INPUTS,
                &[
                    ONNX_KERNEL_SHAPE,
                    window::ONNX_STRIDES,
                    window::ONNX_PADS,
                    window::ONNX_CEIL_MODE,
                    ONNX_COUNT_INCLUDE_PAD,
                    window::ONNX_AUTO_PAD,
                    ONNX_CHANNELS_LAST,
                ],
            )],
        ),
        axes: AxisRule::Function("qpool"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qglobal_average_pool",
        doc: "`global_average_pool` on codes.",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            grid("x_scale"),
            grid("x_zp"),
            grid("y_scale"),
            grid("y_zp"),
        ],
        results: OWN,
        attrs: &[CHANNELS_LAST],
        infer: qglobal_average_pool,
        traits: INTEGER,
        onnx: contrib("QLinearGlobalAveragePool", &[form(1, UNARY_INPUTS, &[ONNX_CHANNELS_LAST])]),
        axes: AxisRule::Function("qpool"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qsigmoid",
        doc: "`sigmoid` on codes.",
        operands: UNARY,
        results: OWN,
        infer: qunary,
        traits: INTEGER,
        onnx: contrib("QLinearSigmoid", &[form(1, UNARY_INPUTS, &[])]),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qleaky_relu",
        doc: "`leaky_relu` on codes.",
        operands: UNARY,
        results: OWN,
        attrs: &[AttrDecl::new("alpha", AttrKind::Float, Default::Float(0.01))],
        infer: qunary,
        traits: INTEGER,
        onnx: contrib("QLinearLeakyRelu", &[form(1, UNARY_INPUTS, &[OnnxAttr::Same("alpha", "alpha")])]),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "qsoftmax",
        doc: "`softmax` on codes; `opset` says which meaning of `axis` (before 13: all axes from it on).",
        operands: &[
            OperandDecl::one("x", QRole::Data),
            grid("x_scale"),
            zero("x_zp"),
            grid("y_scale"),
            grid("y_zp"),
        ],
        results: OWN,
        attrs: &[AXIS, AttrDecl::new("opset", AttrKind::Int, Default::Required)],
        infer: qsoftmax,
        traits: INTEGER,
        onnx: contrib(
            "QLinearSoftmax",
            &[form(1, UNARY_INPUTS, &[OnnxAttr::Same("axis", "axis"), OnnxAttr::Same("opset", "opset")])],
        ),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
];

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

fn qconv(ctx: &mut InferCtx<'_>) -> Inferred {
    let x = codes(ctx, "x", None)?;
    let shape = conv_shape(ctx)?;
    codes(ctx, "w", Some(shape.as_ref().and_then(|s| s.get(1)).unwrap_or(&Dim::Unknown)))?;
    want_bias(ctx, "b")?;
    let elem = result_elem(ctx, x)?;
    push(ctx, elem, shape);
    Ok(())
}

fn conv_integer(ctx: &mut InferCtx<'_>) -> Inferred {
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

fn qmatmul(ctx: &mut InferCtx<'_>) -> Inferred {
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

fn matmul_integer(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = matmul_shape(ctx)?;
    let (rows, columns) = lines(ctx)?;
    matrix_codes(ctx, "a", Some(&rows))?;
    matrix_codes(ctx, "b", Some(&columns))?;
    ctx.push_tensor(ElemType::I32, shape);
    Ok(())
}

fn qgemm(ctx: &mut InferCtx<'_>) -> Inferred {
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

fn qbinary(ctx: &mut InferCtx<'_>) -> Inferred {
    let a = codes(ctx, "a", None)?;
    let b = codes(ctx, "b", None)?;
    let elem = result_elem(ctx, a.or(b))?;
    let shape = broadcast_named(dims(ctx, "a")?, "operand `a`", dims(ctx, "b")?, "operand `b`")?;
    push(ctx, elem, shape);
    Ok(())
}

fn qunary(ctx: &mut InferCtx<'_>) -> Inferred {
    let x = codes(ctx, "x", None)?;
    let elem = result_elem(ctx, x)?;
    let shape = tensor(ctx, "x")?.and_then(|t| t.shape.clone());
    push(ctx, elem, shape);
    Ok(())
}

fn qsoftmax(ctx: &mut InferCtx<'_>) -> Inferred {
    if let Some(x) = dims(ctx, "x")? {
        ctx.axis(int(ctx, "axis")?, x.len())?;
    }
    qunary(ctx)
}

fn qaverage_pool(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = pool_shape(ctx, flag(ctx, "channels_last"))?;
    pooled(ctx, shape)
}

fn qglobal_average_pool(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = global_pool_shape(ctx, flag(ctx, "channels_last"))?;
    pooled(ctx, shape)
}

fn pooled(ctx: &mut InferCtx<'_>, shape: Option<Shape>) -> Inferred {
    let x = codes(ctx, "x", None)?;
    let elem = result_elem(ctx, x)?;
    push(ctx, elem, shape);
    Ok(())
}

fn qconcat(ctx: &mut InferCtx<'_>) -> Inferred {
    let triples = rest(ctx, 2);
    if triples.is_empty() || triples.len() % 3 != 0 {
        return fail(format!(
            "operand `inputs` has {} places; triples of codes, scale and zero point are needed",
            triples.len()
        ));
    }
    let types: Vec<Option<&TensorType>> = triples.chunks(3).map(|t| triple(t)).collect::<Result<_, _>>()?;
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
