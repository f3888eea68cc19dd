//! Functions of one tensor, element by element: activations, roundings, casts and what only hands its operand on.

use super::support::*;
use crate::elem::ElemType;
use crate::infer::InferCtx;
use crate::registry::{
    AttrDecl, AttrKind, AxisRule, Default, OnnxAttr, OnnxForm, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, Traits, form, uncovered,
};
use crate::types::Known;

const DATA: &[OperandDecl] = &[OperandDecl::one("x", QRole::Data)];
const OWN: &[ResultDecl] = &[ResultDecl::one("y", QRole::Own)];
const PURE: Traits = Traits::PURE.and(Traits::ELEMENTWISE);

/// A function of floats, with its forms in ONNX. Further fields are given with `..unary(...)`.
const fn unary(
    name: &'static str,
    doc: &'static str,
    onnx_name: &'static str,
    forms: &'static [OnnxForm],
) -> OpDecl {
    OpDecl {
        name,
        doc,
        operands: DATA,
        results: OWN,
        infer: float_to_float,
        traits: PURE,
        onnx: onnx(onnx_name, forms),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    }
}

const fn float(name: &'static str, default: f32) -> AttrDecl {
    AttrDecl::new(name, AttrKind::Float, Default::Float(default))
}

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        infer: number_to_number,
        traits: PURE.and(Traits::MONOTONE).and(Traits::IDEMPOTENT),
        ..unary("relu", "The larger of `x` and 0.", "Relu", UNARY_1)
    },
    OpDecl {
        attrs: &[float("alpha", 0.01)],
        ..unary(
            "leaky_relu",
            "`x` where it is at least 0, `alpha * x` below.",
            "LeakyRelu",
            &[form(1, X, &[OnnxAttr::Same("alpha", "alpha"), CONSUMED]), form(6, X, ALPHA)],
        )
    },
    OpDecl {
        results: &[ResultDecl::one("y", QRole::Fixed(1.0 / 256.0, 0))],
        traits: PURE.and(Traits::MONOTONE),
        ..unary("sigmoid", "1 / (1 + exp(-x)).", "Sigmoid", UNARY_1)
    },
    OpDecl {
        results: &[ResultDecl::one("y", QRole::Fixed(1.0 / 128.0, 128))],
        traits: PURE.and(Traits::MONOTONE),
        ..unary("tanh", "Hyperbolic tangent.", "Tanh", UNARY_1)
    },
    OpDecl {
        attrs: &[float("alpha", 0.2), float("beta", 0.5)],
        ..unary(
            "hard_sigmoid",
            "`alpha * x + beta`, clipped to 0..1.",
            "HardSigmoid",
            &[
                form(1, X, &[OnnxAttr::Same("alpha", "alpha"), OnnxAttr::Same("beta", "beta"), CONSUMED]),
                form(6, X, &[OnnxAttr::Same("alpha", "alpha"), OnnxAttr::Same("beta", "beta")]),
            ],
        )
    },
    unary(
        "hard_swish",
        "`x` times its hard sigmoid with alpha = 1/6 and beta = 1/2.",
        "HardSwish",
        &[form(14, X, &[])],
    ),
    OpDecl {
        attrs: &[float("alpha", 1.0)],
        ..unary(
            "elu",
            "`x` where it is at least 0, `alpha * (exp(x) - 1)` below.",
            "Elu",
            &[form(1, X, &[OnnxAttr::Same("alpha", "alpha"), CONSUMED]), form(6, X, ALPHA)],
        )
    },
    OpDecl {
        attrs: &[AttrDecl::new("approximate", AttrKind::Enum(&["none", "tanh"]), Default::Word("none"))],
        ..unary(
            "gelu",
            "`x` times the normal distribution function of `x`, exactly or by its tanh approximation.",
            "Gelu",
            &[form(20, X, &[OnnxAttr::Same("approximate", "approximate")])],
        )
    },
    OpDecl {
        traits: PURE.and(Traits::MONOTONE),
        ..unary("softplus", "log(1 + exp(x)).", "Softplus", &[form(1, X, &[])])
    },
    OpDecl { traits: PURE.and(Traits::MONOTONE), ..unary("exp", "Exponential.", "Exp", UNARY_1) },
    OpDecl { traits: PURE.and(Traits::MONOTONE), ..unary("log", "Natural logarithm.", "Log", UNARY_1) },
    OpDecl { traits: PURE.and(Traits::MONOTONE), ..unary("sqrt", "Square root.", "Sqrt", UNARY_1) },
    OpDecl {
        infer: number_to_number,
        traits: PURE.and(Traits::IDEMPOTENT),
        ..unary("abs", "Absolute value.", "Abs", UNARY_1)
    },
    OpDecl { infer: number_to_number, ..unary("neg", "Negative.", "Neg", UNARY_1) },
    unary("reciprocal", "1 / x.", "Reciprocal", UNARY_1),
    OpDecl { traits: ROUNDING, ..unary("floor", "The next whole number below.", "Floor", UNARY_1) },
    OpDecl { traits: ROUNDING, ..unary("ceil", "The next whole number above.", "Ceil", UNARY_1) },
    OpDecl {
        traits: ROUNDING,
        ..unary("round", "The next whole number, halves to the even one.", "Round", &[form(11, X, &[])])
    },
    OpDecl {
        infer: number_to_number,
        traits: PURE.and(Traits::MONOTONE),
        ..unary("erf", "Error function.", "Erf", &[form(9, X, &[])])
    },
    OpDecl {
        infer: number_to_number,
        traits: PURE.and(Traits::MONOTONE).and(Traits::IDEMPOTENT),
        ..unary("sign", "-1, 0 or 1 by the sign of `x`.", "Sign", &[form(9, X, &[])])
    },
    unary("sin", "Sine.", "Sin", &[form(7, X, &[])]),
    unary("cos", "Cosine.", "Cos", &[form(7, X, &[])]),
    OpDecl {
        attrs: &[
            AttrDecl::new("min", AttrKind::Float, Default::Absent),
            AttrDecl::new("max", AttrKind::Float, Default::Absent),
        ],
        infer: number_to_number,
        traits: PURE.and(Traits::MONOTONE).and(Traits::IDEMPOTENT),
        ..unary(
            "clip",
            "`x` limited to `min`..`max`; an absent limit is the least or greatest number of the element type. Where \
             `min` is above `max`, the result is `max`.",
            "Clip",
            &[
                form(1, X, &[OnnxAttr::Same("min", "min"), OnnxAttr::Same("max", "max"), CONSUMED]),
                form(6, X, &[OnnxAttr::Same("min", "min"), OnnxAttr::Same("max", "max")]),
                form(
                    11,
                    &[OnnxInput::Operand("x"), OnnxInput::ScalarAttr("min"), OnnxInput::ScalarAttr("max")],
                    &[],
                ),
            ],
        )
    },
    OpDecl {
        operands: &[OperandDecl::one("x", QRole::None)],
        results: &[ResultDecl::one("y", QRole::None)],
        attrs: &[
            AttrDecl::new("to", AttrKind::Elem, Default::Required),
            AttrDecl::new("saturate", AttrKind::Bool, Default::Bool(true)),
        ],
        infer: cast,
        ..unary(
            "cast",
            "`x` with elements of type `to`; `saturate` says what becomes of values beyond an 8-bit float's range.",
            "Cast",
            &[
                uncovered(1),
                form(6, X, &[OnnxAttr::Same("to", "to")]),
                form(19, X, &[ONNX_TO, ONNX_SATURATE]),
                form(24, X, &[ONNX_TO, ONNX_SATURATE, OnnxAttr::Fixed("round_mode", Default::Word("up"))]),
                uncovered(28),
            ],
        )
    },
    OpDecl { infer: same_contents, ..handed_on("identity", "`x` itself.", "Identity", &[form(1, X, &[])]) },
    OpDecl {
        attrs: &[AttrDecl::new("ratio", AttrKind::Float, Default::Float(0.5))],
        ..handed_on(
            "dropout",
            "`x` itself: dropout as it acts outside training; `ratio` is what training drops.",
            "Dropout",
            &[
                form(
                    1,
                    X,
                    &[
                        OnnxAttr::Demanded("is_test", Default::Int(1)),
                        OnnxAttr::Same("ratio", "ratio"),
                        CONSUMED,
                    ],
                ),
                form(
                    6,
                    X,
                    &[OnnxAttr::Demanded("is_test", Default::Int(1)), OnnxAttr::Same("ratio", "ratio")],
                ),
                form(7, X, &[OnnxAttr::Same("ratio", "ratio")]),
                form(
                    12,
                    &[
                        OnnxInput::Operand("x"),
                        OnnxInput::Hint("ratio"),
                        OnnxInput::Fixed(Default::Bool(false)),
                    ],
                    &[OnnxAttr::Ignored("seed")],
                ),
            ],
        )
    },
];

const ALPHA: &[OnnxAttr] = &[OnnxAttr::Same("alpha", "alpha")];
const ONNX_TO: OnnxAttr = OnnxAttr::Same("to", "to");
const ONNX_SATURATE: OnnxAttr = OnnxAttr::Same("saturate", "saturate");
const PASSED: &[OperandDecl] = &[OperandDecl::one("x", QRole::Same)];
const PASSED_ON: &[ResultDecl] = &[ResultDecl::one("y", QRole::Same)];
const ROUNDING: Traits = PURE.and(Traits::MONOTONE).and(Traits::IDEMPOTENT);

/// An operation whose result is its operand.
const fn handed_on(
    name: &'static str,
    doc: &'static str,
    onnx_name: &'static str,
    forms: &'static [OnnxForm],
) -> OpDecl {
    OpDecl {
        operands: PASSED,
        results: PASSED_ON,
        infer: same,
        traits: PURE.and(Traits::MONOTONE).and(Traits::IDEMPOTENT).and(Traits::MOVES),
        ..unary(name, doc, onnx_name, forms)
    }
}

fn float_to_float(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    same(ctx)
}

fn number_to_number(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", is_numeric, "numeric")?;
    same(ctx)
}

fn cast(ctx: &mut InferCtx<'_>) -> Inferred {
    let Some(to) = ctx.decl.elem(ctx.attrs, "to") else {
        return fail("attribute `to` is missing or no element type");
    };
    let x = tensor(ctx, "x")?;
    let shape = x.and_then(|t| t.shape.clone());
    let from_index = x.is_some_and(|t| is_index(t.elem));
    let contents =
        if from_index && is_index(to) { fact(ctx, "x")?.and_then(|f| f.known.clone()) } else { None };
    // Narrowing keeps only what surely fits.
    let kept = contents.map(|k| Known { elems: k.elems.into_iter().map(|d| held(to, d)).collect(), ..k });
    ctx.push_known(tensor_type(Some(to), shape), kept);
    Ok(())
}
