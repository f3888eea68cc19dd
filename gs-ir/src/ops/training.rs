//! Operators of training graphs: forward forms that differ from evaluation, losses, optimisers, schedules. What an
//! operator would store is a result; the graph's `updates` store it. None has an ONNX form.

use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::InferCtx;
use crate::registry::{AttrDecl, AttrKind, Default, OpDecl, OperandDecl, QRole, ResultDecl};

/// How much of the target is spread over all classes.
pub(super) const SMOOTHING: AttrDecl = AttrDecl::new("label_smoothing", AttrKind::Float, Default::Float(0.0));
const DECAY: AttrDecl = AttrDecl::new("weight_decay", AttrKind::Float, Default::Float(0.0));

const fn float(name: &'static str) -> OperandDecl {
    OperandDecl::one(name, QRole::None)
}

const fn result(name: &'static str) -> ResultDecl {
    ResultDecl::one(name, QRole::None)
}

/// Whether batch normalisation uses its running statistics and leaves them alone.
pub(super) const FROZEN: OperandDecl = OperandDecl::optional("frozen", QRole::None);

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "batch_norm_train",
        doc: "Batch normalisation with the statistics of the batch. `new_mean` and `new_var` are the running ones, of \
              which `momentum` is kept (their variance is the unbiased one); `batch_mean` and `inv_std` = 1 / sqrt(var + \
              epsilon) are those that were used. Where `frozen` holds, the running statistics are used and stay as \
              they are.",
        operands: &[float("x"), float("scale"), float("bias"), float("mean"), float("var"), FROZEN],
        results: &[
            result("y"),
            result("new_mean"),
            result("new_var"),
            result("batch_mean"),
            result("inv_std"),
        ],
        attrs: &[
            AttrDecl::new("epsilon", AttrKind::Float, Default::Float(1e-5)),
            AttrDecl::new("momentum", AttrKind::Float, Default::Float(0.9)),
        ],
        infer: batch_norm_train,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "cross_entropy",
        doc: "The mean over the batch of the negative logarithm of the softmax of `logits` [N, classes] at `labels` [N]; \
              with label smoothing s the target is (1 - s) at the label plus s / classes everywhere. `log_prob` is the \
              logarithm of the softmax.",
        operands: &[float("logits"), float("labels")],
        results: &[result("loss"), result("log_prob")],
        attrs: &[SMOOTHING],
        infer: cross_entropy,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "observe",
        doc: "The range of `x` (a row of minima and a row of maxima; along `axis`, if that is given) mixed with an earlier \
              one: decay * range + (1 - decay) * that of x.",
        operands: &[float("x"), float("range")],
        results: &[result("new_range")],
        attrs: &[
            AttrDecl::new("axis", AttrKind::Int, Default::Absent),
            AttrDecl::new("decay", AttrKind::Float, Default::Float(0.0)),
        ],
        infer: observe,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "sgd",
        doc: "A step of stochastic gradient descent with momentum: g = grad + weight_decay * param, m' = momentum * m + g, \
              param' = param - lr * m' (with `nesterov`: lr * (g + momentum * m')).",
        operands: &[float("param"), float("grad"), float("momentum"), float("lr")],
        results: &[result("new_param"), result("new_momentum")],
        attrs: &[
            AttrDecl::new("momentum", AttrKind::Float, Default::Float(0.9)),
            DECAY,
            AttrDecl::new("nesterov", AttrKind::Bool, Default::Bool(false)),
        ],
        infer: |ctx| states(ctx, 2),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "adamw",
        doc: "A step of Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2); `step` counts from 0.",
        operands: &[float("param"), float("grad"), float("m"), float("v"), float("lr"), float("step")],
        results: &[result("new_param"), result("new_m"), result("new_v")],
        attrs: &[
            AttrDecl::new("beta1", AttrKind::Float, Default::Float(0.9)),
            AttrDecl::new("beta2", AttrKind::Float, Default::Float(0.999)),
            AttrDecl::new("epsilon", AttrKind::Float, Default::Float(1e-8)),
            DECAY,
        ],
        infer: |ctx| states(ctx, 3),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "schedule",
        doc: "A learning rate at `step`, counted from 0: it rises to `base` over `warmup` steps, then goes to `end` at \
              `steps` along half a cosine or a line, or stays (`constant`), or is multiplied by `gamma` at each of \
              `milestones`. `geometric`: a temperature, multiplied by the same number at each step between the parts \
              `from` and `until` of `steps`.",
        operands: &[float("step")],
        results: &[result("lr")],
        attrs: &[
            AttrDecl::new(
                "kind",
                AttrKind::Enum(&["constant", "cosine", "linear", "milestones", "geometric"]),
                Default::Word("constant"),
            ),
            AttrDecl::new("base", AttrKind::Float, Default::Required),
            AttrDecl::new("end", AttrKind::Float, Default::Float(0.0)),
            AttrDecl::new("steps", AttrKind::Int, Default::Int(1)),
            AttrDecl::new("warmup", AttrKind::Int, Default::Int(0)),
            AttrDecl::new("milestones", AttrKind::Ints, Default::Absent),
            AttrDecl::new("gamma", AttrKind::Float, Default::Float(0.1)),
            AttrDecl::new("from", AttrKind::Float, Default::Float(0.0)),
            AttrDecl::new("until", AttrKind::Float, Default::Float(1.0)),
        ],
        infer: schedule,
        ..OpDecl::BASE
    },
];

fn batch_norm_train(ctx: &mut InferCtx<'_>) -> Inferred {
    super::normalization::batch_norm(ctx)?;
    want_flag(ctx, "frozen")?;
    let elem = elem(ctx, "scale")?;
    let channels = dims(ctx, "scale")?.map(|d| shape_of(d.to_vec()));
    for _ in 0..4 {
        push(ctx, elem, channels.clone());
    }
    Ok(())
}

/// An operand that, where it is there, is one truth value.
pub(super) fn want_flag(ctx: &InferCtx<'_>, name: &'static str) -> Inferred {
    want_elem(ctx, name, |e| e == ElemType::Bool, "truth values as")?;
    match dims(ctx, name)? {
        Some(d) if d.iter().any(|d| d.surely_differs(&Dim::Const(1))) => {
            fail(format!("operand `{name}` must have one element"))
        }
        _ => Ok(()),
    }
}

fn cross_entropy(ctx: &mut InferCtx<'_>) -> Inferred {
    let elem = want_elem(ctx, "logits", ElemType::is_float, "floating-point")?;
    want_elem(ctx, "labels", is_index, "i32 or i64")?;
    let logits = want_rank(ctx, "logits", 2)?;
    if let (Some([batch, _]), Some([count])) = (logits, want_rank(ctx, "labels", 1)?) {
        agree(batch, "the number of rows of `logits`", count, "the number of `labels`")?;
    }
    push(ctx, elem, Some(shape_of([])));
    push(ctx, elem, logits.map(|d| shape_of(d.to_vec())));
    Ok(())
}

fn observe(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "x", ElemType::is_float, "floating-point")?;
    let elem = want_elem(ctx, "range", ElemType::is_float, "floating-point")?;
    let mut shape = vec![Dim::Const(2)];
    if let Some(axis) = optional_int(ctx, "axis") {
        let extent = match dims(ctx, "x")? {
            Some(x) => x.get(ctx.axis(axis, x.len())?).cloned().unwrap_or(Dim::Unknown),
            None => Dim::Unknown,
        };
        shape.push(extent);
    }
    if let Some(range) = dims(ctx, "range")?
        && (range.len() != shape.len() || range.iter().zip(&shape).any(|(a, b)| a.surely_differs(b)))
    {
        return fail(format!("operand `range` must be {}, it is {}", show_shape(&shape), show_shape(range)));
    }
    push(ctx, elem, Some(shape_of(shape)));
    Ok(())
}

/// Results of the type of the first operand, which the first `count` state operands share with the gradient.
fn states(ctx: &mut InferCtx<'_>, count: usize) -> Inferred {
    let elem = want_elem(ctx, "param", ElemType::is_float, "floating-point")?;
    let of_param = dims(ctx, "param")?;
    for operand in ctx.decl.operands.iter().skip(1).take(count) {
        if let (Some(a), Some(b)) = (of_param, dims(ctx, operand.name)?)
            && (a.len() != b.len() || a.iter().zip(b).any(|(a, b)| a.surely_differs(b)))
        {
            return fail(format!(
                "operand `{}` {} must have the shape of `param` {}",
                operand.name,
                show_shape(b),
                show_shape(a)
            ));
        }
    }
    for _ in 0..count {
        push(ctx, elem, of_param.map(|d| shape_of(d.to_vec())));
    }
    Ok(())
}

fn schedule(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "step", is_index, "i32 or i64")?;
    if let Some(d) = dims(ctx, "step")?
        && d.iter().any(|d| d.surely_differs(&Dim::Const(1)))
    {
        return fail("operand `step` must have one element");
    }
    if ctx.attrs.str("kind") == Some("geometric") {
        let of = |name, default| f64::from(ctx.attrs.float(name, default));
        let positive = of("base", 0.0) > 0.0 && of("end", 0.0) > 0.0;
        if !positive {
            return fail("a geometric schedule needs `base` and `end` above 0");
        }
        let rises = of("from", 0.0) < of("until", 1.0);
        if !rises {
            return fail("attribute `from` must be below `until`");
        }
    }
    push(ctx, Some(ElemType::F32), Some(shape_of([])));
    Ok(())
}
