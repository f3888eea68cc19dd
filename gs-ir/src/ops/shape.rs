//! Operations that give the same elements another shape.

use super::support::*;
use crate::dim::Dim;
use crate::infer::{InferCtx, InferError, dims_attr};
use crate::registry::{
    AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl, QRole,
    ResultDecl, Traits, form,
};
use crate::types::{Known, Shape};

const MOVES: Traits = Traits::PURE.and(Traits::MOVES);
const DATA: &[OperandDecl] = &[OperandDecl::one("x", QRole::Same)];
const MOVED: &[ResultDecl] = &[ResultDecl::one("y", QRole::Same)];
const ALLOW_ZERO: AttrDecl = AttrDecl::new("allow_zero", AttrKind::Bool, Default::Bool(false));
const ONNX_ALLOW_ZERO: OnnxAttr = OnnxAttr::Same("allowzero", "allow_zero");
const X_AXES: &[OnnxInput] = &[OnnxInput::Operand("x"), OnnxInput::Attr("axes")];
const ONNX_AXES: &[OnnxAttr] = &[OnnxAttr::Same("axes", "axes")];

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "reshape",
        doc: "The elements in the same order with the extents `shape`. One of them may be -1 and is what remains; 0 \
              copies the extent at its place unless `allow_zero` is set.",
        operands: DATA,
        results: MOVED,
        attrs: &[AttrDecl::new("shape", AttrKind::Dims, Default::Required), ALLOW_ZERO],
        infer: reshape,
        traits: MOVES,
        onnx: onnx(
            "Reshape",
            &[
                form(1, X, &[OnnxAttr::Same("shape", "shape"), CONSUMED]),
                form(5, &[OnnxInput::Operand("x"), OnnxInput::Attr("shape")], &[]),
                form(14, &[OnnxInput::Operand("x"), OnnxInput::Attr("shape")], &[ONNX_ALLOW_ZERO]),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Reshape),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "reshape_to",
        doc: "As `reshape`, to extents that are computed: the elements of `shape`.",
        operands: &[OperandDecl::one("x", QRole::Same), OperandDecl::one("shape", QRole::None)],
        results: MOVED,
        attrs: &[ALLOW_ZERO],
        infer: reshape_to,
        traits: MOVES,
        onnx: onnx(
            "Reshape",
            &[
                form(5, &[OnnxInput::Operand("x"), OnnxInput::Operand("shape")], &[]),
                form(14, &[OnnxInput::Operand("x"), OnnxInput::Operand("shape")], &[ONNX_ALLOW_ZERO]),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Reshape),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "flatten",
        doc: "A matrix: the axes before `axis` become its rows, the others its columns.",
        operands: DATA,
        results: MOVED,
        attrs: &[AttrDecl::new("axis", AttrKind::Int, Default::Int(1))],
        infer: flatten,
        traits: MOVES,
        onnx: onnx("Flatten", &[form(1, X, &[OnnxAttr::Same("axis", "axis")])]),
        axes: AxisRule::Function(AxisFunction::Flatten),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "transpose",
        doc: "Axis i of the result is axis `perm[i]` of `x`; without `perm` the axes are reversed.",
        operands: DATA,
        results: MOVED,
        attrs: &[AttrDecl::new("perm", AttrKind::Ints, Default::Absent)],
        infer: transpose,
        traits: MOVES,
        onnx: onnx("Transpose", &[form(1, X, &[OnnxAttr::Same("perm", "perm")])]),
        axes: AxisRule::Function(AxisFunction::Transpose),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "squeeze",
        doc: "Drops `axes`, whose extent is 1; without `axes` all axes of extent 1.",
        operands: DATA,
        results: MOVED,
        attrs: &[AttrDecl::new("axes", AttrKind::Ints, Default::Absent)],
        infer: squeeze,
        traits: MOVES,
        onnx: onnx("Squeeze", &[form(1, X, ONNX_AXES), form(13, X_AXES, &[])]),
        axes: AxisRule::Function(AxisFunction::Squeeze),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "unsqueeze",
        doc: "Inserts axes of extent 1; `axes` counts in the result.",
        operands: DATA,
        results: MOVED,
        attrs: &[AttrDecl::new("axes", AttrKind::Ints, Default::Required)],
        infer: unsqueeze,
        traits: MOVES,
        onnx: onnx("Unsqueeze", &[form(1, X, ONNX_AXES), form(13, X_AXES, &[])]),
        axes: AxisRule::Function(AxisFunction::Unsqueeze),
        ..OpDecl::BASE
    },
];

/// Adds the result with a new shape; what is known of the contents goes along where the result is a vector or scalar.
fn push_reshaped(ctx: &mut InferCtx<'_>, shape: Option<Shape>) -> Inferred {
    let elem = elem(ctx, "x")?;
    let contents = fact(ctx, "x")?.and_then(|f| f.known.clone());
    let known = match (contents, shape.as_deref()) {
        (Some(k), Some([])) if k.elems.len() == 1 => Some(Known { scalar: true, ..k }),
        (Some(k), Some([_])) => Some(Known { scalar: false, ..k }),
        _ => None,
    };
    // A vector has as many elements as are known.
    let shape = match (&known, shape) {
        (Some(k), Some(s)) if s.len() == 1 => Some(shape_of([Dim::Const(k.elems.len() as i64)])),
        (_, s) => s,
    };
    ctx.push_known(tensor_type(elem, shape), known);
    Ok(())
}

fn reshape(ctx: &mut InferCtx<'_>) -> Inferred {
    let Some(target) = dims_attr(ctx.attrs.get("shape")) else {
        return fail("attribute `shape` is missing or no list of extents");
    };
    let shape = target_shape(dims(ctx, "x")?, &target, flag(ctx, "allow_zero"))?;
    push_reshaped(ctx, Some(shape))
}

fn reshape_to(ctx: &mut InferCtx<'_>) -> Inferred {
    want_elem(ctx, "shape", is_index, "i64")?;
    let target = match fact(ctx, "shape")? {
        Some(f) => known(f),
        None => None,
    };
    want_rank(ctx, "shape", 1)?;
    let shape = match target {
        Some(k) => Some(target_shape(dims(ctx, "x")?, &k.elems, flag(ctx, "allow_zero"))?),
        None => None,
    };
    push_reshaped(ctx, shape)
}

/// The extents that a target stands for. Elements of it that are not known may also be 0 or -1.
fn target_shape(x: Option<&[Dim]>, target: &[Dim], allow_zero: bool) -> Result<Shape, InferError> {
    let mut shape = Shape::new();
    let mut open = None;
    for (i, t) in target.iter().enumerate() {
        shape.push(match t {
            Dim::Const(-1) if open.is_some() => {
                return fail(format!("the target {} has more than one -1", show_shape(target)));
            }
            Dim::Const(-1) => {
                open = Some(i);
                Dim::Unknown
            }
            Dim::Const(n) if *n < 0 => {
                return fail(format!("the target {} has an extent {n}", show_shape(target)));
            }
            Dim::Const(0) if !allow_zero => match x {
                Some(x) => match x.get(i) {
                    Some(d) => d.clone(),
                    None => {
                        return fail(format!(
                            "the target {} copies axis {i} (0), but `x` has the shape {}",
                            show_shape(target),
                            show_shape(x)
                        ));
                    }
                },
                None => Dim::Unknown,
            },
            other => other.clone(),
        });
    }
    let Some(x) = x else { return Ok(shape) };
    let misfit = || {
        fail(format!("the elements of `x` {} do not fill the target {}", show_shape(x), show_shape(target)))
    };
    let (left, right) = without_common(x, &shape, open);
    match open {
        None if left.surely_differs(&right) => misfit(),
        None => Ok(shape),
        Some(at) => {
            let rest = match (&left, &right) {
                (Dim::Const(n), Dim::Const(k)) if *k < 1 || n % k != 0 => return misfit(),
                // What is left must be divisible, so that the floor is the quotient.
                (left, Dim::Const(k)) => left.floor_div(*k),
                (left, right) => left.div_exact(right).unwrap_or(Dim::Unknown),
            };
            if let Some(d) = shape.get_mut(at) {
                *d = rest;
            }
            Ok(shape)
        }
    }
}

/// The products of two shapes after equal extents were taken out of both, so that one of them may be unsayable; the
/// extent at `open` does not count.
fn without_common(x: &[Dim], shape: &[Dim], open: Option<usize>) -> (Dim, Dim) {
    let mut left: Vec<&Dim> = x.iter().collect();
    let mut right = Vec::new();
    for d in shape.iter().enumerate().filter(|(i, _)| Some(*i) != open).map(|(_, d)| d) {
        // Extents of 0 are kept: they say nothing of the others.
        match left.iter().position(|l| l.same(d) && **l != Dim::Const(0)) {
            Some(i) => {
                left.remove(i);
            }
            None => right.push(d),
        }
    }
    (product(left), product(right))
}

fn flatten(ctx: &mut InferCtx<'_>) -> Inferred {
    let shape = match dims(ctx, "x")? {
        None => shape_of([Dim::Unknown, Dim::Unknown]),
        Some(x) => {
            let axis = int(ctx, "axis")?;
            let rank = x.len() as i64;
            if !(-rank..=rank).contains(&axis) {
                return fail(format!("axis {axis} is outside `x`, whose shape is {}", show_shape(x)));
            }
            let (rows, columns) = x.split_at(if axis < 0 { axis + rank } else { axis } as usize);
            shape_of([product(rows), product(columns)])
        }
    };
    push_reshaped(ctx, Some(shape))
}

fn transpose(ctx: &mut InferCtx<'_>) -> Inferred {
    let x = dims(ctx, "x")?;
    let shape = match (x, ctx.attrs.ints("perm")) {
        (None, None) => None,
        (None, Some(perm)) => Some(shape_of(vec![Dim::Unknown; perm.len()])),
        (Some(x), None) => Some(x.iter().rev().cloned().collect()),
        (Some(x), Some(perm)) => {
            let mut order: Vec<i64> = perm.to_vec();
            order.sort_unstable();
            if order.iter().copied().ne(0..x.len() as i64) {
                return fail(format!(
                    "attribute `perm` {perm:?} is no permutation of the axes of `x` {}",
                    show_shape(x)
                ));
            }
            Some(perm.iter().filter_map(|&p| x.get(p as usize)).cloned().collect())
        }
    };
    push_reshaped(ctx, shape)
}

fn squeeze(ctx: &mut InferCtx<'_>) -> Inferred {
    let Some(x) = dims(ctx, "x")? else { return push_reshaped(ctx, None) };
    let dropped = match ctx.attrs.ints("axes") {
        Some(given) => axes(ctx, given, x.len())?,
        // An extent that is no number may turn out to be 1, so that the rank is not known.
        None if x.iter().any(|d| d.as_const().is_none()) => return push_reshaped(ctx, None),
        None => (0..x.len()).filter(|&i| x[i] == Dim::Const(1)).collect(),
    };
    if let Some((i, d)) =
        x.iter().enumerate().find(|(i, d)| dropped.contains(i) && d.surely_differs(&1.into()))
    {
        return fail(format!("axis {i} of `x` cannot be dropped: its extent is {}, not 1", show(d)));
    }
    let shape = x.iter().enumerate().filter(|(i, _)| !dropped.contains(i)).map(|(_, d)| d.clone()).collect();
    push_reshaped(ctx, Some(shape))
}

fn unsqueeze(ctx: &mut InferCtx<'_>) -> Inferred {
    let given = ints(ctx, "axes")?;
    let Some(x) = dims(ctx, "x")? else { return push_reshaped(ctx, None) };
    let rank = x.len() + given.len();
    let inserted = axes(ctx, given, rank)?;
    let mut old = x.iter().cloned();
    let shape = (0..rank)
        .map(|i| if inserted.contains(&i) { Dim::Const(1) } else { old.next().unwrap_or(Dim::Unknown) })
        .collect();
    push_reshaped(ctx, Some(shape))
}
