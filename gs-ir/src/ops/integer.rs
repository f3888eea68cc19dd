//! Operators on integer codes with their scales and zero points: the deployed form.
//!
//! `x_scale` and `x_zp` are the grid of `x`, and so on. The grid of the result (`y_scale`, `y_zp`) is given too. Unless
//! said otherwise, the result is `quantize` of what the float operator gives for the dequantised operands.

use super::codes::{
    conv_integer, matmul_integer, qaverage_pool, qbinary, qconcat, qconv, qgemm, qglobal_average_pool,
    qmatmul, qsoftmax, qunary,
};
use super::convolution::{CONV_ATTRS, CONV_ONNX_ATTRS};
use super::pooling::{COUNT_INCLUDE_PAD, KERNEL_SHAPE, ONNX_COUNT_INCLUDE_PAD, ONNX_KERNEL_SHAPE};
use super::support::*;
use super::window;
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, Traits, form,
};

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
        axes: AxisRule::Function(AxisFunction::Matmul),
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
        axes: AxisRule::Function(AxisFunction::Matmul),
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
        axes: AxisRule::Function(AxisFunction::Gemm),
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
        axes: AxisRule::Function(AxisFunction::Qpool),
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
        axes: AxisRule::Function(AxisFunction::Qpool),
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
