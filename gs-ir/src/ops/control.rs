//! Operations that carry graphs. What is known of their results is what all ways through them have in common.

use super::support::*;
use crate::dim::Dim;
use crate::infer::{Fact, InferCtx, InferError};
use crate::registry::{
    AttrDecl, AttrKind, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole, Regions,
    ResultDecl, form, uncovered,
};
use crate::types::{Shape, TensorType, Type};

const OUTPUTS: &[ResultDecl] = &[ResultDecl::variadic("outputs", QRole::None)];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "if",
        doc: "The results of `then_branch` if `cond` holds, else those of `else_branch`.",
        operands: &[OperandDecl::one("cond", QRole::None)],
        results: OUTPUTS,
        regions: Regions::Named(&["then_branch", "else_branch"]),
        infer: branch,
        onnx: onnx("If", &[form(1, &[OnnxInput::Operand("cond")], &[])]),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "loop",
        doc: "Repeats `body`, at most `trip_count` times and as long as `cond` holds. The body takes the number of \
              the round, the condition and the carried values; it returns the next condition, the next carried \
              values, and values that are stacked over the rounds.",
        operands: &[
            OperandDecl::optional("trip_count", QRole::None),
            OperandDecl::optional("cond", QRole::None),
            OperandDecl::variadic("v_initial", QRole::None),
        ],
        results: OUTPUTS,
        regions: Regions::Named(&["body"]),
        infer: repeat,
        onnx: onnx(
            "Loop",
            &[form(
                1,
                &[
                    OnnxInput::Operand("trip_count"),
                    OnnxInput::Operand("cond"),
                    OnnxInput::Operand("v_initial"),
                ],
                &[],
            )],
        ),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
    OpDecl {
        name: "scan",
        doc: "Runs `body` over slices of the last `num_scan_inputs` operands; the operands before them are its first \
              states. It returns the next states, and values that are stacked.",
        operands: &[OperandDecl::variadic("inputs", QRole::None)],
        results: OUTPUTS,
        attrs: &[
            AttrDecl::new("num_scan_inputs", AttrKind::Int, Default::Required),
            AttrDecl::new("scan_input_axes", AttrKind::Ints, Default::All(0)),
            AttrDecl::new("scan_output_axes", AttrKind::Ints, Default::All(0)),
            AttrDecl::new("scan_input_directions", AttrKind::Ints, Default::All(0)),
            AttrDecl::new("scan_output_directions", AttrKind::Ints, Default::All(0)),
        ],
        regions: Regions::Named(&["body"]),
        infer: scan,
        onnx: onnx(
            "Scan",
            &[
                // Until 9 it had a batch axis of its own.
                uncovered(8),
                form(
                    9,
                    INPUTS,
                    &[
                        OnnxAttr::Same("num_scan_inputs", "num_scan_inputs"),
                        OnnxAttr::Same("scan_input_axes", "scan_input_axes"),
                        OnnxAttr::Same("scan_output_axes", "scan_output_axes"),
                        OnnxAttr::Same("scan_input_directions", "scan_input_directions"),
                        OnnxAttr::Same("scan_output_directions", "scan_output_directions"),
                    ],
                ),
            ],
        ),
        axes: AxisRule::Opaque,
        ..OpDecl::BASE
    },
];

/// What two types have in common: extents on which they agree are kept, others are unknown.
fn common(a: &Type, b: &Type, what: &str) -> Result<Type, InferError> {
    match (a, b) {
        (Type::Any, _) | (_, Type::Any) => Ok(Type::Any),
        (Type::Tensor(a), Type::Tensor(b)) if a.elem == b.elem => {
            let shape = match (a.dims(), b.dims()) {
                (Some(a), Some(b)) if a.len() == b.len() => Some(common_dims(a, b)),
                _ => None,
            };
            Ok(Type::Tensor(TensorType { elem: a.elem, shape }))
        }
        (Type::Tensor(a), Type::Tensor(b)) => {
            fail(format!("{what}: elements {} on one side, {} on the other", a.elem, b.elem))
        }
        (a, b) if a == b => Ok(a.clone()),
        (Type::Tensor(_), _) | (_, Type::Tensor(_)) => {
            fail(format!("{what}: a tensor on one side, none on the other"))
        }
        _ => Ok(Type::Any),
    }
}

fn common_dims(a: &[Dim], b: &[Dim]) -> Shape {
    a.iter().zip(b).map(|(a, b)| if a.same(b) { a.clone() } else { Dim::Unknown }).collect()
}

/// The types that a region returns, where they are known.
fn region<'a>(ctx: &InferCtx<'a>, index: usize) -> Option<&'a [Type]> {
    ctx.regions.get(index).map(Vec::as_slice)
}

fn push_unknown(ctx: &mut InferCtx<'_>) -> Inferred {
    (0..ctx.result_count).for_each(|_| ctx.push(Type::Any));
    Ok(())
}

/// Checks that an operand is one truth value.
fn want_truth(ctx: &InferCtx<'_>, name: &str) -> Inferred {
    want_elem(ctx, name, is_bool, "bool")?;
    match dims(ctx, name)? {
        Some([]) | Some([_]) | None => Ok(()),
        Some(d) => fail(format!("operand `{name}` must be one truth value, its shape is {}", show_shape(d))),
    }
}

fn branch(ctx: &mut InferCtx<'_>) -> Inferred {
    want_truth(ctx, "cond")?;
    let (Some(then), Some(other)) = (region(ctx, 0), region(ctx, 1)) else { return push_unknown(ctx) };
    for (name, types) in [("then_branch", then), ("else_branch", other)] {
        if types.len() != ctx.result_count {
            return fail(format!("`{name}` returns {} values for {} results", types.len(), ctx.result_count));
        }
    }
    for (i, (a, b)) in then.iter().zip(other).enumerate() {
        let ty = common(a, b, &format!("result {i} of the two branches"))?;
        ctx.push(ty);
    }
    Ok(())
}

fn repeat(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "trip_count", is_index, "i64")?;
    want_truth(ctx, "cond")?;
    let initial = rest(ctx, 2);
    let Some(returned) = region(ctx, 0) else { return push_unknown(ctx) };
    if returned.len() != ctx.result_count + 1 || ctx.result_count < initial.len() {
        return fail(format!(
            "`body` returns {} values; a condition, {} carried values and {} stacked ones are needed",
            returned.len(),
            initial.len(),
            ctx.result_count.saturating_sub(initial.len())
        ));
    }
    let (carried, stacked) = returned[1..].split_at(initial.len());
    for (i, (first, next)) in initial.iter().zip(carried).enumerate() {
        let first = first.as_ref().map_or(&Type::Any, |f| &f.ty);
        let ty = common(first, next, &format!("carried value {i} before and after a round"))?;
        ctx.push(ty);
    }
    for ty in stacked {
        let ty = stack(ty, Dim::Unknown, 0);
        ctx.push(ty);
    }
    Ok(())
}

/// The type of values stacked along a new axis.
fn stack(ty: &Type, count: Dim, axis: i64) -> Type {
    let Type::Tensor(t) = ty else { return Type::Any };
    let shape = t.dims().and_then(|d| {
        let rank = d.len() as i64 + 1;
        let at = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
        let mut shape = shape_of(d.to_vec());
        (at <= shape.len()).then(|| shape.insert(at, count))?;
        Some(shape)
    });
    Type::Tensor(TensorType { elem: t.elem, shape })
}

fn scan(ctx: &mut InferCtx<'_>) -> Inferred {
    let operands = rest(ctx, 0);
    let scanned = positive(ctx, "num_scan_inputs")? as usize;
    let Some(states) = operands.len().checked_sub(scanned) else {
        return fail(format!(
            "attribute `num_scan_inputs` is {scanned}, but there are {} operands",
            operands.len()
        ));
    };
    let Some(returned) = region(ctx, 0) else { return push_unknown(ctx) };
    if returned.len() != ctx.result_count || returned.len() < states {
        return fail(format!(
            "`body` returns {} values for {} results, of which {states} are states",
            returned.len(),
            ctx.result_count
        ));
    }
    let (states, inputs) = operands.split_at(states);
    let count = rounds(ctx, inputs)?;
    let output_axes = list(ctx, "scan_output_axes", returned.len() - states.len())?;
    let (next, stacked) = returned.split_at(states.len());
    for (i, (first, next)) in states.iter().zip(next).enumerate() {
        let first = first.as_ref().map_or(&Type::Any, |f| &f.ty);
        let ty = common(first, next, &format!("state {i} before and after a round"))?;
        ctx.push(ty);
    }
    for (ty, axis) in stacked.iter().zip(output_axes) {
        let ty = stack(ty, count.clone(), axis);
        ctx.push(ty);
    }
    Ok(())
}

/// The extent that all scanned operands share along their scanned axes.
fn rounds(ctx: &InferCtx<'_>, inputs: &[Option<Fact>]) -> Result<Dim, InferError> {
    let mut count = Dim::Unknown;
    for (i, (input, axis)) in inputs.iter().zip(list(ctx, "scan_input_axes", inputs.len())?).enumerate() {
        let Some(d) = input.as_ref().and_then(|f| f.ty.dims()) else { continue };
        let at = ctx.axis(axis, d.len())?;
        count = agree(
            &count,
            "the extent of the scanned operands before",
            &d[at],
            &format!("that of scanned operand {i}"),
        )?;
    }
    Ok(count)
}
