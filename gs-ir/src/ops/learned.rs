//! Quantisers whose parameters are trained: steps (LSQ), clips (PACT), weights squeezed by tanh (DoReFa), and weights
//! chosen among levels (SLB), each with its derivative. What they compute lies on the grid of a `qdq`, bit for bit: a
//! network is frozen by stating the grid that it has learned.

use super::axis_rule::{Axes, AxisRef, Clause};
use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::InferCtx;
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OpDecl, OperandDecl, QRole, ResultDecl, Traits,
};

const OWN: &[ResultDecl] = &[ResultDecl::one("y", QRole::Own)];
const AXIS: AttrDecl = AttrDecl::new("axis", AttrKind::Int, Default::Absent);
const GRAD_SCALE: AttrDecl = AttrDecl::new("grad_scale", AttrKind::Bool, Default::Bool(true));
const QUANTISER: Traits = Traits::PURE.and(Traits::QUANTISER).and(Traits::CUSTOM_GRAD);

const fn bits(default: i64) -> AttrDecl {
    AttrDecl::new("bits", AttrKind::Int, Default::Int(default))
}

const fn signed(default: bool) -> AttrDecl {
    AttrDecl::new("signed", AttrKind::Bool, Default::Bool(default))
}

const fn data(name: &'static str) -> OperandDecl {
    OperandDecl::one(name, QRole::Data)
}

const fn operand(name: &'static str) -> OperandDecl {
    OperandDecl::one(name, QRole::None)
}

const fn result(name: &'static str) -> ResultDecl {
    ResultDecl::one(name, QRole::None)
}

/// Codes, along which axis steps lie, and how the gradient of a step is scaled.
const LSQ_ATTRS: &[AttrDecl] = &[
    bits(4),
    signed(true),
    AXIS,
    AttrDecl::new("samples", AttrKind::Bool, Default::Bool(false)),
    GRAD_SCALE,
];
const PACT_ATTRS: &[AttrDecl] = &[bits(4), signed(false), GRAD_SCALE];
const DOREFA_ATTRS: &[AttrDecl] = &[bits(4), AXIS];
const SLB_ATTRS: &[AttrDecl] =
    &[bits(2), AXIS, AttrDecl::new("hard_phase", AttrKind::Enum(&["ste", "frozen"]), Default::Word("ste"))];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "lsq",
        doc: "step * clamp(round(x / step), low, high), halves to the even code: `x` on the grid of a learned `step`, \
              which is one number or one for each element of `axis` (Esser et al. 2020, equations 1 and 2). Codes are \
              all of `bits` bits, with a sign or not.",
        operands: &[data("x"), operand("step")],
        results: OWN,
        attrs: LSQ_ATTRS,
        infer: lsq,
        traits: QUANTISER.and(Traits::IDEMPOTENT),
        axes: AxisRule::Clauses("x.0.. = y.0..; x.axis = step.0"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "lsq_grad",
        doc: "The derivatives of `lsq`, times `dy`. `dx` is `dy` where x / step lies within the codes, the limits \
              included, else 0. `dstep` is the sum of dy * r, r being the limit reached, else round(x / step) - x / step; \
              with `grad_scale` divided by sqrt(n * high), n being the elements of `x` under one step, with `samples` \
              those of one element of axis 0 (Esser et al. 2020, equation 3 and section 2.2).",
        operands: &[operand("dy"), operand("x"), operand("step")],
        results: &[result("dx"), result("dstep")],
        attrs: LSQ_ATTRS,
        infer: |ctx| {
            lsq(ctx)?;
            gradients(ctx, "x", "step")
        },
        ..OpDecl::BASE
    },
    OpDecl {
        name: "pact",
        doc: "`x` clipped to 0..`alpha`, rounded to the grid of the step alpha / high, high being the largest of the codes \
              of `bits` bits; `signed`: clipped to -alpha..alpha, with as many codes below 0 as above (Choi et al. 2018, \
              equations 1 and 2).",
        operands: &[data("x"), operand("alpha")],
        results: OWN,
        attrs: PACT_ATTRS,
        infer: pact,
        traits: QUANTISER.and(Traits::IDEMPOTENT),
        axes: AxisRule::Clauses("x.0.. = y.0.."),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "pact_grad",
        doc: "The derivatives of `pact`, times `dy`. `dx` is `dy` where 0 <= x < alpha (`signed`: -alpha < x < alpha), \
              else 0. `dalpha` is the sum of dy where x >= alpha (less that where x <= -alpha); with `grad_scale` divided \
              by sqrt(n * high), n being the elements of one element of axis 0, as LSQ scales its steps.",
        operands: &[operand("dy"), operand("x"), operand("alpha")],
        results: &[result("dx"), result("dalpha")],
        attrs: PACT_ATTRS,
        infer: |ctx| {
            pact(ctx)?;
            gradients(ctx, "x", "alpha")
        },
        ..OpDecl::BASE
    },
    OpDecl {
        name: "dorefa",
        doc: "`w` on the levels step * (2k - (L - 1)), k from 0 to L - 1, L = 2^`bits`, step = scale / (L - 1): k = round((L \
              - 1) * (t / (2 max|t|) + 1/2)), t = tanh(w), the maximum over all, or along `axis` for each of its elements. \
              With one bit scale where w >= 0, else -scale (Zhou et al. 2016, equations 7 to 9, times a scale).",
        operands: &[data("w"), operand("scale")],
        results: OWN,
        attrs: DOREFA_ATTRS,
        infer: dorefa,
        traits: QUANTISER,
        axes: AxisRule::Clauses("w.0.. = y.0..; w.axis = scale.0"),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "dorefa_grad",
        doc: "The derivatives of `dorefa`, straight through the rounding, times `dy`; the maximum counts as a constant. \
              `dw` is dy * scale * (1 - tanh(w)^2) / max|tanh(w)|, with one bit dy * scale where |w| <= 1; `dscale` is the \
              sum of dy * y / scale.",
        operands: &[operand("dy"), operand("w"), operand("scale")],
        results: &[result("dw"), result("dscale")],
        attrs: DOREFA_ATTRS,
        infer: |ctx| {
            dorefa(ctx)?;
            gradients(ctx, "w", "scale")
        },
        ..OpDecl::BASE
    },
    OpDecl {
        name: "slb",
        doc: "Weights on the levels step * (2k - (L - 1)), L = 2^`bits`, step = scale / (L - 1): k is the place of the \
              greatest of the L `logits` of the weight along the last axis, the first of equal ones. `scale` is one \
              number or one for each element of `axis` (Yang et al. 2020, equations 5 and 6, times a scale).",
        operands: &[data("logits"), operand("scale")],
        results: OWN,
        attrs: &[SLB_ATTRS[0], SLB_ATTRS[1]],
        infer: slb,
        traits: QUANTISER,
        axes: AxisRule::Function(AxisFunction::Own(slb_axes)),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "slb_train",
        doc: "As `slb` where `hard` holds; else the mean of the levels under softmax(tau * logits). `hard_phase` says how \
              logits learn then: as if the mean had been taken (ste), or not at all (frozen).",
        operands: &[data("logits"), operand("scale"), operand("tau"), operand("hard")],
        results: OWN,
        attrs: SLB_ATTRS,
        infer: slb_train,
        traits: QUANTISER,
        axes: AxisRule::Function(AxisFunction::Own(slb_axes)),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "slb_grad",
        doc: "The derivatives of `slb_train`, times `dy`: `dlogits` is dy * scale * tau * p * (v - m), p being the softmax, v \
              the level of each logit and m their mean, both without scale; `dscale` is the sum of dy times what the \
              weight is without scale.",
        operands: &[operand("dy"), operand("logits"), operand("scale"), operand("tau"), operand("hard")],
        results: &[result("dlogits"), result("dscale")],
        attrs: SLB_ATTRS,
        infer: |ctx| {
            slb_train(ctx)?;
            gradients(ctx, "logits", "scale")
        },
        ..OpDecl::BASE
    },
];

/// The number of bits, which must lie within these.
fn width(ctx: &InferCtx<'_>, least: i64, most: i64) -> Inferred {
    match int(ctx, "bits")? {
        b if (least..=most).contains(&b) => Ok(()),
        b => fail(format!("attribute `bits` must be from {least} to {most}, it is {b}")),
    }
}

/// Checks a parameter of a quantiser: one number, or with `axis` one for each element of that axis of `x`.
fn parameter(ctx: &InferCtx<'_>, name: &str, x: Option<&[Dim]>, axis: Option<i64>) -> Inferred {
    want_elem(ctx, name, ElemType::is_float, "floating-point")?;
    let Some(found) = dims(ctx, name)? else { return Ok(()) };
    match (found, axis) {
        ([] | [Dim::Const(1)], None) => Ok(()),
        (found, None) => fail(format!(
            "operand `{name}` must be one number without `axis`, its shape is {}",
            show_shape(found)
        )),
        ([length], Some(axis)) => {
            let Some(x) = x else { return Ok(()) };
            let at = ctx.axis(axis, x.len())?;
            let extent = x.get(at).cloned().unwrap_or(Dim::Unknown);
            agree(
                length,
                &format!("the length of `{name}`"),
                &extent,
                &format!("axis {at} of what is quantised"),
            )
            .map(|_| ())
        }
        (found, Some(axis)) => fail(format!(
            "operand `{name}` must be a vector along axis {axis}, its shape is {}",
            show_shape(found)
        )),
    }
}

/// Replaces the results by the gradients of two operands, of their types.
fn gradients(ctx: &mut InferCtx<'_>, x: &str, parameter: &str) -> Inferred {
    want_elem(ctx, "dy", ElemType::is_float, "floating-point")?;
    ctx.results.clear();
    for name in [x, parameter] {
        let (elem, shape) = (elem(ctx, name)?, tensor(ctx, name)?.and_then(|t| t.shape.clone()));
        push(ctx, elem, shape);
    }
    Ok(())
}

/// The type of an operand, which is that of the result.
fn quantised(ctx: &mut InferCtx<'_>, name: &str) -> Inferred {
    let elem = want_elem(ctx, name, ElemType::is_float, "floating-point")?;
    let shape = tensor(ctx, name)?.and_then(|t| t.shape.clone());
    push(ctx, elem, shape);
    Ok(())
}

fn lsq(ctx: &mut InferCtx<'_>) -> Inferred {
    // With a sign, one bit leaves no code above 0.
    width(ctx, if flag(ctx, "signed") { 2 } else { 1 }, 16)?;
    parameter(ctx, "step", dims(ctx, "x")?, optional_int(ctx, "axis"))?;
    quantised(ctx, "x")
}

fn pact(ctx: &mut InferCtx<'_>) -> Inferred {
    width(ctx, if flag(ctx, "signed") { 2 } else { 1 }, 16)?;
    parameter(ctx, "alpha", None, None)?;
    quantised(ctx, "x")
}

fn dorefa(ctx: &mut InferCtx<'_>) -> Inferred {
    width(ctx, 1, 8)?;
    parameter(ctx, "scale", dims(ctx, "w")?, optional_int(ctx, "axis"))?;
    quantised(ctx, "w")
}

fn slb(ctx: &mut InferCtx<'_>) -> Inferred {
    width(ctx, 1, 4)?;
    let elem = want_elem(ctx, "logits", ElemType::is_float, "floating-point")?;
    let weight = match dims(ctx, "logits")? {
        None => None,
        Some([]) => return fail("operand `logits` must have an axis of levels"),
        Some([weight @ .., levels]) => {
            let wanted = 1i64 << int(ctx, "bits")?;
            agree(levels, "the last axis of `logits`", &wanted.into(), "the number of levels")?;
            Some(weight)
        }
    };
    parameter(ctx, "scale", weight, optional_int(ctx, "axis"))?;
    push(ctx, elem, weight.map(|d| shape_of(d.to_vec())));
    Ok(())
}

fn slb_train(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "tau", ElemType::is_float, "floating-point")?;
    want_elem(ctx, "hard", is_bool, "bool")?;
    for name in ["tau", "hard"] {
        if let Some(d) = dims(ctx, name)?
            && d.iter().any(|d| d.surely_differs(&Dim::Const(1)))
        {
            return fail(format!("operand `{name}` must have one element"));
        }
    }
    slb(ctx)
}

/// The axes of the weight are tied to those of the logits; nothing may be dropped of the levels.
fn slb_axes(ctx: &InferCtx<'_>) -> Vec<Clause<'static>> {
    let of = |name, axes| AxisRef { name, axes };
    let rank = dims(ctx, "logits").ok().flatten().map_or(0, |d| d.len().saturating_sub(1));
    let tie =
        |i| Clause::Tie { refs: vec![of("logits", Axes::One(i)), of("y", Axes::One(i))], parallel: false };
    let mut clauses: Vec<Clause<'static>> = (0..rank).map(tie).collect();
    clauses.push(Clause::Tie {
        refs: vec![of("y", Axes::Attr("axis")), of("scale", Axes::One(0))],
        parallel: false,
    });
    clauses.push(Clause::Fixed(of("logits", Axes::One(rank))));
    clauses
}
