//! Bodies of learned quantisers in ONNX's operators. Formulas are those of the reference evaluator: a step is one f32
//! division, codes are those of the frozen quantiser that they become.

use gs_ir::{Attr, AttrSet, CodeRange, ElemType, Literal, Type};

use super::ExportError;
use super::bodies::{Body, codes, finish, odd_codes, rank_for, round_trip};
use crate::proto::NodeProto;

/// The names of a quantiser's operands, as `round_trip` and its kin read and write them.
type Bodies = Result<Option<Vec<NodeProto>>, ExportError>;

fn axis(attrs: &AttrSet) -> Option<i64> {
    attrs.get("axis").map(|_| attrs.int("axis", 0))
}

/// The body of `lsq(x, step)`; `None` where the rank of `x` must be known and is not.
pub(super) fn lsq(attrs: &AttrSet, x: &Type) -> Bodies {
    let Some(rank) = rank_for(axis(attrs), x) else { return Ok(None) };
    let mut b = Body::new();
    let step = b.along("step", axis(attrs), rank)?;
    let zero = b.number(0.0)?;
    let codes = codes(attrs.int("bits", 4), attrs.bool("signed", true), false);
    round_trip(&mut b, x, &step, &zero, &codes)?;
    Ok(Some(b.nodes))
}

/// The body of `pact(x, alpha)`.
pub(super) fn pact(attrs: &AttrSet, x: &Type) -> Bodies {
    let signed = attrs.bool("signed", false);
    let codes = codes(attrs.int("bits", 4), signed, signed);
    let mut b = Body::new();
    let top = b.number(codes.high as f32)?;
    let step = b.op("Div", &["alpha", &top], &[])?;
    let zero = b.number(0.0)?;
    round_trip(&mut b, x, &step, &zero, &codes)?;
    Ok(Some(b.nodes))
}

/// The body of `dorefa(w, scale)`; `None` where the rank of `w` is not known, or it is not f32.
pub(super) fn dorefa(attrs: &AttrSet, w: &Type, opset: i64) -> Bodies {
    let Some(rank) = w.dims().map(<[gs_ir::Dim]>::len).filter(|_| w.elem() == Some(ElemType::F32)) else {
        return Ok(None);
    };
    let levels = odd_codes(attrs.int("bits", 4));
    let mut b = Body::new();
    let level = if levels.high == 1 {
        let zero = b.number(0.0)?;
        let negative = b.op("Less", &["w", &zero], &[])?;
        let (low, high) = (b.number(-1.0)?, b.number(1.0)?);
        b.op("Where", &[&negative, &low, &high], &[])?
    } else {
        squeezed(&mut b, axis(attrs), rank, &levels, opset)?
    };
    scaled(&mut b, &level, axis(attrs), rank, &levels)?;
    Ok(Some(b.nodes))
}

/// 2k - top, k = round(top * (tanh(w) / (2 max|tanh w|) + 1/2)), in f64 as the evaluator computes it.
fn squeezed(
    b: &mut Body,
    axis: Option<i64>,
    rank: usize,
    levels: &CodeRange,
    opset: i64,
) -> Result<String, ExportError> {
    let wide = b.cast("w", ElemType::F64)?;
    // Tanh has no f64 form in every runtime; this one is 1 - 2 / (exp(2 |w|) + 1) with the sign of w.
    let number = |b: &mut Body, v: f64| b.constant(Literal::new(ElemType::F64, [], v.to_le_bytes().to_vec()));
    let (one, two) = (number(b, 1.0)?, number(b, 2.0)?);
    let size = b.op("Abs", &[&wide], &[])?;
    let double = b.op("Mul", &[&size, &two], &[])?;
    let power = b.op("Exp", &[&double], &[])?;
    let above = b.op("Add", &[&power, &one], &[])?;
    let part = b.op("Div", &[&two, &above], &[])?;
    let size = b.op("Sub", &[&one, &part], &[])?;
    let sign = b.op("Sign", &[&wide], &[])?;
    let t = b.op("Mul", &[&size, &sign], &[])?;
    let at = axis.map(|a| if a < 0 { a + rank as i64 } else { a });
    let others: Vec<i64> = (0..rank as i64).filter(|i| Some(*i) != at).collect();
    let largest = if opset < 18 {
        b.op("ReduceMax", &[&size], &[("axes", Attr::ints(&others)), ("keepdims", Attr::Int(1))])?
    } else {
        let axes = b.constant(Literal::i64s([others.len() as i64], &others))?;
        b.op("ReduceMax", &[&size, &axes], &[("keepdims", Attr::Int(1))])?
    };
    let whole = b.op("Mul", &[&largest, &two], &[])?;
    let zero = number(b, 0.0)?;
    let some = b.op("Greater", &[&largest, &zero], &[])?;
    let whole = b.op("Where", &[&some, &whole, &one], &[])?;
    let share = b.op("Div", &[&t, &whole], &[])?;
    let half = number(b, 0.5)?;
    let share = b.op("Add", &[&share, &half], &[])?;
    let top = number(b, levels.high as f64)?;
    let k = b.op("Mul", &[&share, &top], &[])?;
    let k = b.op("Round", &[&k], &[])?;
    let double = b.op("Mul", &[&k, &two], &[])?;
    let level = b.op("Sub", &[&double, &top], &[])?;
    b.cast(&level, ElemType::F32)
}

/// The body of `slb(logits, scale)`; `None` where the rank of the logits is not known, or they are not f32.
pub(super) fn slb(attrs: &AttrSet, logits: &Type) -> Bodies {
    let rank = logits.dims().and_then(|d| d.len().checked_sub(1));
    let Some(rank) = rank.filter(|_| logits.elem() == Some(ElemType::F32)) else { return Ok(None) };
    let levels = odd_codes(attrs.int("bits", 2));
    let mut b = Body::new();
    let k = b.op("ArgMax", &["logits"], &[("axis", Attr::Int(-1)), ("keepdims", Attr::Int(0))])?;
    let k = b.cast(&k, ElemType::F32)?;
    let two = b.number(2.0)?;
    let double = b.op("Mul", &[&k, &two], &[])?;
    let top = b.number(levels.high as f32)?;
    let level = b.op("Sub", &[&double, &top], &[])?;
    scaled(&mut b, &level, axis(attrs), rank, &levels)?;
    Ok(Some(b.nodes))
}

/// `y`: levels times their step, scale over the highest level.
fn scaled(
    b: &mut Body,
    level: &str,
    axis: Option<i64>,
    rank: usize,
    levels: &CodeRange,
) -> Result<(), ExportError> {
    let top = b.number(levels.high as f32)?;
    let step = b.op("Div", &["scale", &top], &[])?;
    let step = b.along(&step, axis, rank)?;
    finish(b, level, &step, ElemType::F32)
}
