//! Comparisons, logic and choice.

use super::arithmetic::zip_known;
use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{Fact, InferCtx};
use crate::registry::{
    AxisRule, Default, OnnxAttr, OnnxForm, OnnxInput, OpDecl, OperandDecl, QRole, ResultDecl, Traits, form,
};
use crate::types::Known;

const PURE: Traits = Traits::PURE.and(Traits::ELEMENTWISE);
const SWAPS: Traits = PURE.and(Traits::COMMUTATIVE);
const TWO: &[OperandDecl] = &[OperandDecl::one("a", QRole::None), OperandDecl::one("b", QRole::None)];
const TRUTH: &[ResultDecl] = &[ResultDecl::one("y", QRole::None)];

/// Before 7 operands broadcast only on request.
const BINARY_1: &[OnnxForm] = &[
    form(1, AB, &[OnnxAttr::Fixed("broadcast", Default::Int(0)), OnnxAttr::Ignored("axis")]),
    form(7, AB, &[]),
];
const WHERE_9: &[OnnxInput] = &[OnnxInput::Operand("cond"), OnnxInput::Operand("a"), OnnxInput::Operand("b")];

/// A function of two tensors that gives truth values, with its forms in ONNX.
const fn relation(
    name: &'static str,
    doc: &'static str,
    onnx_name: &'static str,
    forms: &'static [OnnxForm],
) -> OpDecl {
    OpDecl {
        name,
        doc,
        operands: TWO,
        results: TRUTH,
        infer: compare,
        traits: PURE,
        onnx: onnx(onnx_name, forms),
        axes: AxisRule::Elementwise,
        ..OpDecl::BASE
    }
}

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl { infer: equal, traits: SWAPS, ..relation("equal", "Whether a = b.", "Equal", BINARY_1) },
    relation("less", "Whether a < b.", "Less", BINARY_1),
    relation("less_or_equal", "Whether a <= b.", "LessOrEqual", &[form(12, AB, &[])]),
    relation("greater", "Whether a > b.", "Greater", BINARY_1),
    relation("greater_or_equal", "Whether a >= b.", "GreaterOrEqual", &[form(12, AB, &[])]),
    OpDecl { infer: logic, traits: SWAPS, ..relation("and", "Whether both hold.", "And", BINARY_1) },
    OpDecl {
        infer: logic,
        traits: SWAPS,
        ..relation("or", "Whether one of both or both hold.", "Or", BINARY_1)
    },
    OpDecl {
        infer: logic,
        traits: SWAPS,
        ..relation("xor", "Whether just one of both holds.", "Xor", BINARY_1)
    },
    OpDecl {
        operands: &[OperandDecl::one("x", QRole::None)],
        infer: not,
        ..relation("not", "Whether `x` does not hold.", "Not", &[form(1, X, &[])])
    },
    OpDecl {
        operands: &[
            OperandDecl::one("cond", QRole::None),
            OperandDecl::one("a", QRole::Same),
            OperandDecl::one("b", QRole::Same),
        ],
        results: &[ResultDecl::one("y", QRole::Same)],
        infer: choose,
        ..relation("where", "`a` where `cond` holds, `b` elsewhere.", "Where", &[form(9, WHERE_9, &[])])
    },
];

/// Checks the operands and adds a result of truth values.
fn push_truth(ctx: &mut InferCtx<'_>, contents: Option<Known>) -> Inferred {
    common_elem(ctx, &["a", "b"])?;
    let shape = broadcast_named(dims(ctx, "a")?, "operand `a`", dims(ctx, "b")?, "operand `b`")?;
    ctx.push_known(tensor_type(Some(ElemType::Bool), shape), contents);
    Ok(())
}

fn compare(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "a", is_numeric, "numeric")?;
    push_truth(ctx, None)
}

/// Truth values of small integer tensors are followed as 0 and 1, for the choices that exporters write around `expand`.
fn equal(ctx: &mut InferCtx<'_>) -> Inferred {
    let contents = match (fact(ctx, "a")?.and_then(known), fact(ctx, "b")?.and_then(known)) {
        (Some(a), Some(b)) => zip_known(&a, &b, |a, b| match (a, b) {
            (a, b) if a.same(b) => Dim::Const(1),
            (a, b) if a.surely_differs(b) => Dim::Const(0),
            // No extent is negative, so that a symbol never equals the -1 that asks for it.
            (Dim::Const(n), d) | (d, Dim::Const(n)) if *n < 0 && least(d).is_some_and(|v| v >= 0) => {
                Dim::Const(0)
            }
            _ => Dim::Unknown,
        }),
        _ => None,
    };
    push_truth(ctx, contents)
}

fn logic(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "a", is_bool, "bool")?;
    push_truth(ctx, None)
}

fn not(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", is_bool, "bool")?;
    let shape = tensor(ctx, "x")?.and_then(|t| t.shape.clone());
    ctx.push_tensor(ElemType::Bool, shape);
    Ok(())
}

fn choose(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "cond", is_bool, "bool")?;
    let elem = common_elem(ctx, &["a", "b"])?;
    let both = broadcast_named(dims(ctx, "a")?, "operand `a`", dims(ctx, "b")?, "operand `b`")?;
    let shape = broadcast_named(
        dims(ctx, "cond")?,
        "operand `cond`",
        both.as_deref(),
        "operands `a` and `b`, together,",
    )?;
    let contents = chosen(fact(ctx, "cond")?, fact(ctx, "a")?, fact(ctx, "b")?);
    ctx.push_known(tensor_type(elem, shape), contents);
    Ok(())
}

fn chosen(cond: Option<&Fact>, a: Option<&Fact>, b: Option<&Fact>) -> Option<Known> {
    let (cond, a, b) = (cond?.known.clone()?, known(a?)?, known(b?)?);
    let length = cond.elems.len().max(a.elems.len()).max(b.elems.len());
    let at = |k: &Known, i: usize| match &k.elems[..] {
        [one] => Some(one.clone()),
        many if many.len() == length => many.get(i).cloned(),
        _ => None,
    };
    let elems = (0..length).map(|i| {
        let (a, b) = (at(&a, i)?, at(&b, i)?);
        Some(match at(&cond, i)? {
            Dim::Const(0) => b,
            Dim::Const(_) => a,
            _ if a.same(&b) => a,
            _ => Dim::Unknown,
        })
    });
    Some(Known { elems: elems.collect::<Option<_>>()?, scalar: cond.scalar && a.scalar && b.scalar })
}
