//! Operations that cut tensors and put them together.

use super::support::*;
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::infer::{Fact, InferCtx, InferError};
use crate::registry::{
    Arity, AttrDecl, AttrKind, AxisFunction, AxisRule, Default, OnnxAttr, OnnxInput, OpDecl, OperandDecl,
    QRole, ResultDecl, Traits, form, uncovered,
};
use crate::types::{Known, Shape, TensorType};

const MOVES: Traits = Traits::PURE.and(Traits::MOVES);
const DATA: &[OperandDecl] = &[OperandDecl::one("x", QRole::Same)];
const MOVED: &[ResultDecl] = &[ResultDecl::one("y", QRole::Same)];
const AXIS_0: AttrDecl = AttrDecl::new("axis", AttrKind::Int, Default::Int(0));
const ONNX_AXIS: OnnxAttr = OnnxAttr::Same("axis", "axis");

/// The operators of this family.
pub(crate) const OPS: &[OpDecl] = &[
    OpDecl {
        name: "concat",
        doc: "The operands one after the other along `axis`.",
        operands: &[OperandDecl::variadic("inputs", QRole::Same)],
        results: MOVED,
        attrs: &[AttrDecl::new("axis", AttrKind::Int, Default::Required)],
        infer: concat,
        traits: MOVES,
        onnx: onnx(
            "Concat",
            &[
                form(1, INPUTS, &[OnnxAttr::Defaulting("axis", "axis", Default::Int(1))]),
                form(4, INPUTS, &[ONNX_AXIS]),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Concat),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "split",
        doc: "Cuts `x` along `axis` into parts of the extents `split`; without it into as many equal parts as there \
              are results, the last of which may be smaller.",
        operands: DATA,
        results: &[ResultDecl { name: "outs", arity: Arity::Variadic, role: QRole::Same }],
        attrs: &[AXIS_0, AttrDecl::new("split", AttrKind::Ints, Default::Absent)],
        infer: split,
        traits: MOVES,
        onnx: onnx(
            "Split",
            &[
                uncovered(1),
                form(2, X, &[ONNX_AXIS, OnnxAttr::Same("split", "split")]),
                form(13, &[OnnxInput::Operand("x"), OnnxInput::Attr("split")], &[ONNX_AXIS]),
                form(
                    18,
                    &[OnnxInput::Operand("x"), OnnxInput::Attr("split")],
                    &[ONNX_AXIS, OnnxAttr::ResultCount("num_outputs", "split")],
                ),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Split),
        ..OpDecl::BASE
    },
    OpDecl {
        name: "slice",
        doc: "Along each of `axes` the elements from `starts` up to (not including) `ends` in steps of `steps`. \
              Negative positions count from the end, positions outside are moved to the border. Without `axes` the \
              first ones are meant.",
        operands: DATA,
        results: MOVED,
        attrs: &[
            AttrDecl::new("starts", AttrKind::Ints, Default::Required),
            AttrDecl::new("ends", AttrKind::Ints, Default::Required),
            AttrDecl::new("axes", AttrKind::Ints, Default::Absent),
            AttrDecl::new("steps", AttrKind::Ints, Default::All(1)),
        ],
        infer: slice,
        traits: MOVES,
        onnx: onnx(
            "Slice",
            &[
                form(
                    1,
                    X,
                    &[
                        OnnxAttr::Same("starts", "starts"),
                        OnnxAttr::Same("ends", "ends"),
                        OnnxAttr::Same("axes", "axes"),
                    ],
                ),
                form(
                    10,
                    &[
                        OnnxInput::Operand("x"),
                        OnnxInput::Attr("starts"),
                        OnnxInput::Attr("ends"),
                        OnnxInput::Attr("axes"),
                        OnnxInput::Attr("steps"),
                    ],
                    &[],
                ),
            ],
        ),
        axes: AxisRule::Function(AxisFunction::Slice),
        ..OpDecl::BASE
    },
];

// ---- concat and split ----

/// The tensor types of a variadic operand; `None` for those of which nothing is known.
fn variadic<'a>(ctx: &InferCtx<'a>) -> Result<Vec<Option<&'a TensorType>>, InferError> {
    let types: Vec<_> = rest(ctx, 0)
        .iter()
        .map(|f| match f {
            Some(f) => as_tensor(f, "inputs"),
            None => fail("an operand of `inputs` is missing"),
        })
        .collect::<Result<_, _>>()?;
    if types.is_empty() { fail("at least one operand is needed") } else { Ok(types) }
}

fn concat(ctx: &mut InferCtx<'_>) -> Inferred {
    let types = variadic(ctx)?;
    let elem = same_elem(&types)?;
    let shape = concat_shape(ctx, &types)?;
    let known = match elem {
        Some(e) if is_index(e) && shape.as_ref().is_some_and(|s| s.len() == 1) => concat_known(rest(ctx, 0)),
        _ => None,
    };
    ctx.push_known(tensor_type(elem, shape), known);
    Ok(())
}

/// The element type that all operands must share.
pub(crate) fn same_elem(types: &[Option<&TensorType>]) -> Result<Option<ElemType>, InferError> {
    let mut known = types.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?.elem)));
    let Some((first, elem)) = known.next() else { return Ok(None) };
    match known.find(|(_, e)| *e != elem) {
        Some((i, e)) => {
            fail(format!("operands {first} and {i} must have the same elements, they have {elem} and {e}"))
        }
        None => Ok(Some(elem)),
    }
}

/// The shape of a concatenation along the attribute `axis`.
pub(crate) fn concat_shape(
    ctx: &InferCtx<'_>,
    types: &[Option<&TensorType>],
) -> Result<Option<Shape>, InferError> {
    let mut shape: Option<(usize, Shape)> = None;
    let mut all_known = true;
    for (i, t) in types.iter().enumerate() {
        let Some(d) = t.and_then(TensorType::dims) else {
            all_known = false;
            continue;
        };
        let axis = ctx.axis(int(ctx, "axis")?, d.len())?;
        match &mut shape {
            None => shape = Some((i, shape_of(d.to_vec()))),
            Some((first, s)) if s.len() != d.len() => {
                return fail(format!(
                    "operands {first} {} and {i} {} must have the same rank",
                    show_shape(s),
                    show_shape(d)
                ));
            }
            Some((first, s)) => {
                for (k, (a, b)) in s.iter_mut().zip(d).enumerate() {
                    *a = if k == axis {
                        a.add(b)
                    } else {
                        agree(a, &format!("axis {k} of operand {first}"), b, &format!("that of operand {i}"))?
                    };
                }
            }
        }
    }
    let Some((_, mut shape)) = shape else { return Ok(None) };
    if !all_known {
        let axis = ctx.axis(int(ctx, "axis")?, shape.len())?;
        shape[axis] = Dim::Unknown;
    }
    Ok(Some(shape))
}

fn concat_known(operands: &[Option<Fact>]) -> Option<Known> {
    let mut elems = Vec::new();
    for fact in operands {
        elems.extend(known(fact.as_ref()?).filter(|k| !k.scalar)?.elems);
    }
    Some(Known::vector(elems))
}

fn split(ctx: &mut InferCtx<'_>) -> Inferred {
    let x = tensor(ctx, "x")?.cloned();
    let count = ctx.result_count;
    let sizes = ctx.attrs.ints("split");
    if let Some(sizes) = sizes {
        if sizes.len() != count {
            return fail(format!("attribute `split` has {} entries for {count} results", sizes.len()));
        }
        if let Some(n) = sizes.iter().find(|n| **n < 0) {
            return fail(format!("attribute `split` has an entry {n}"));
        }
    }
    if count == 0 {
        return fail("at least one result is needed");
    }
    let Some(TensorType { elem, shape: Some(shape) }) = x else {
        (0..count).for_each(|_| push(ctx, x.as_ref().map(|t| t.elem), None));
        return Ok(());
    };
    let axis = ctx.axis(int(ctx, "axis")?, shape.len())?;
    let parts: Vec<Dim> = match sizes {
        Some(sizes) => {
            let sum = sizes.iter().fold(Dim::Const(0), |s, &n| s.add(&n.into()));
            agree(&sum, "the sum of `split`", &shape[axis], &format!("axis {axis} of `x`"))?;
            sizes.iter().map(|&n| Dim::Const(n)).collect()
        }
        None => equal_parts(&shape[axis], count)?,
    };
    let contents = fact(ctx, "x")?.and_then(|f| f.known.clone()).map(|k| k.elems);
    let mut taken = 0;
    for part in parts {
        let known = match (&contents, &part) {
            (Some(elems), Dim::Const(n)) if shape.len() == 1 => {
                let end = usize::try_from(*n).map_or(usize::MAX, |n| n.saturating_add(taken));
                elems.get(taken..end).map(|e| Known::vector(e.to_vec()))
            }
            _ => None,
        };
        taken = part
            .as_const()
            .and_then(|n| usize::try_from(n).ok())
            .map_or(usize::MAX, |n| n.saturating_add(taken));
        let mut shape = shape.clone();
        shape[axis] = part;
        ctx.push_known(tensor_type(Some(elem), Some(shape)), known);
    }
    Ok(())
}

/// Equal parts, the last of which may be smaller.
fn equal_parts(extent: &Dim, count: usize) -> Result<Vec<Dim>, InferError> {
    let parts = count as i64;
    let Dim::Const(n) = extent else {
        let part = extent.div_exact(&parts.into()).unwrap_or(Dim::Unknown);
        return Ok(vec![part; count]);
    };
    let size = n.div_euclid(parts) + i64::from(n % parts != 0);
    let last = n.saturating_sub(size.saturating_mul(parts - 1));
    if last < 0 {
        return fail(format!("an extent of {n} cannot be cut into {parts} parts of {size}"));
    }
    let mut sizes = vec![Dim::Const(size); count];
    sizes[count - 1] = Dim::Const(last);
    Ok(sizes)
}

// ---- slice ----

/// One axis of a slice.
#[derive(Clone, Copy)]
struct Cut {
    start: i64,
    end: i64,
    step: i64,
}

/// Positions at and beyond this mean "the border": exporters write the largest i32 or i64.
const FAR: i64 = i32::MAX as i64;

impl Cut {
    /// First position and number of elements, for an axis of this many.
    fn range(self, extent: i64) -> (i64, i64) {
        let extent = extent.max(0);
        let from_front = |p: i64| if p < 0 { p.saturating_add(extent) } else { p };
        let (start, end) = (from_front(self.start), from_front(self.end));
        let (start, end, step) = if self.step > 0 {
            (start.clamp(0, extent), end.clamp(0, extent), self.step)
        } else {
            (start.clamp(-1, extent - 1), end.clamp(-1, extent - 1), self.step.saturating_neg())
        };
        let span = if self.step > 0 { end - start } else { start - end };
        (start, span.max(0).saturating_add(step - 1) / step)
    }

    /// Number of elements.
    fn count(self, extent: &Dim) -> Dim {
        match extent {
            Dim::Const(n) => Dim::Const(self.range(*n).1),
            _ => self.symbolic_count(extent).unwrap_or(Dim::Unknown),
        }
    }

    /// Number of elements along an axis whose extent is no number, where the order of the positions is sure.
    fn symbolic_count(self, extent: &Dim) -> Option<Dim> {
        let least = least(extent);
        // A position relative to the front; `before` is what lies in front of the first element in the direction of the step.
        let position = |p: i64, low: i64, high: Dim| -> Option<Dim> {
            match p {
                p if p >= FAR => Some(high),
                p if p <= -FAR => Some(Dim::Const(low)),
                p if p >= 0 => (least? > p || (low == 0 && least? == p)).then_some(Dim::Const(p)),
                p => (least?.checked_add(p)? >= 0).then(|| extent.add(&p.into())),
            }
        };
        let (low, high) = if self.step > 0 { (0, extent.clone()) } else { (-1, extent.sub(&1.into())) };
        let (start, end) = (position(self.start, low, high.clone()), position(self.end, low, high));
        // From the front the first position is the border however short the axis is.
        let start = if self.step > 0 && self.start == 0 { Some(Dim::Const(0)) } else { start };
        let span = if self.step > 0 { end?.sub(&start?) } else { start?.sub(&end?) };
        let size = self.step.checked_abs()?;
        match &span {
            Dim::Const(n) if *n <= 0 => Some(Dim::Const(0)),
            Dim::Const(_) | Dim::Expr(_) if self::least(&span)? >= 0 => {
                Some(span.add(&(size - 1).into()).floor_div(size))
            }
            _ => None,
        }
    }
}

fn slice(ctx: &mut InferCtx<'_>) -> Inferred {
    let (starts, ends) = (ints(ctx, "starts")?, ints(ctx, "ends")?);
    let count = starts.len();
    if ends.len() != count {
        return fail(format!("attribute `starts` has {count} entries and `ends` has {}", ends.len()));
    }
    let steps = list(ctx, "steps", count)?;
    if steps.contains(&0) {
        return fail("attribute `steps` has an entry 0");
    }
    let given: Vec<i64> = match ctx.attrs.ints("axes") {
        Some(v) if v.len() != count => {
            return fail(format!("attribute `starts` has {count} entries and `axes` has {}", v.len()));
        }
        Some(v) => v.to_vec(),
        None => (0..count as i64).collect(),
    };
    let elem = elem(ctx, "x")?;
    let Some(x) = dims(ctx, "x")? else {
        push(ctx, elem, None);
        return Ok(());
    };
    let sliced = axes(ctx, &given, x.len())?;
    let mut shape = shape_of(x.to_vec());
    let mut known = fact(ctx, "x")?.and_then(|f| f.known.clone());
    for (i, &axis) in sliced.iter().enumerate() {
        let cut = Cut { start: starts[i], end: ends[i], step: steps[i] };
        shape[axis] = cut.count(&shape[axis]);
        known = known.map(|k| pick(&k, cut));
    }
    ctx.push_known(tensor_type(elem, Some(shape)), known);
    Ok(())
}

/// The elements of a vector that a cut takes.
fn pick(known: &Known, cut: Cut) -> Known {
    let (start, count) = cut.range(known.elems.len() as i64);
    let at = |i: i64| usize::try_from(start + i * cut.step).ok().and_then(|p| known.elems.get(p)).cloned();
    Known::vector((0..count).map(|i| at(i).unwrap_or(Dim::Unknown)))
}
