//! Bodies of our own functions in ONNX's operators.
//!
//! Formulas are those of the reference evaluator: a quotient in f32, halves to the even code, saturation; scale and
//! zero point of `fake_quant` by Jacob et al. 2018, section 3, with the range extended to zero.

use gs_ir::{Attr, AttrSet, CodeRange, ElemType, Literal, Type};

use super::ExportError;
use super::attrs::attribute;
use crate::proto::NodeProto;

/// First version of `ai.onnx` with every operator that the bodies use (Round, Where, IsNaN, Clip on integers).
pub(super) const FIRST_OPSET: i64 = 13;

/// Nodes of a body so far.
pub(super) struct Body {
    pub(super) nodes: Vec<NodeProto>,
    names: usize,
}

/// The name of a value in a body.
type Name = String;

impl Body {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), names: 0 }
    }

    pub(super) fn op(
        &mut self,
        op: &str,
        inputs: &[&str],
        attrs: &[(&str, Attr)],
    ) -> Result<Name, ExportError> {
        self.names += 1;
        let name = format!("t{}", self.names);
        self.op_as(&name, op, inputs, attrs)?;
        Ok(name)
    }

    fn op_as(
        &mut self,
        out: &str,
        op: &str,
        inputs: &[&str],
        attrs: &[(&str, Attr)],
    ) -> Result<(), ExportError> {
        let mut list = Vec::new();
        for (name, value) in attrs {
            list.extend(attribute(name, value)?);
        }
        self.nodes.push(NodeProto {
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![out.to_owned()],
            attribute: list,
            ..Default::default()
        });
        Ok(())
    }

    pub(super) fn constant(&mut self, literal: Literal) -> Result<Name, ExportError> {
        self.op("Constant", &[], &[("value", Attr::Tensor(literal.into()))])
    }

    pub(super) fn number(&mut self, value: f32) -> Result<Name, ExportError> {
        self.constant(Literal::f32(value))
    }

    pub(super) fn cast(&mut self, value: &str, to: ElemType) -> Result<Name, ExportError> {
        self.op("Cast", &[value], &[("to", Attr::Elem(to))])
    }

    /// A value per element of `axis`, with the extents that broadcast it over a tensor of this rank.
    pub(super) fn along(&mut self, value: &str, axis: Option<i64>, rank: usize) -> Result<Name, ExportError> {
        let Some(axis) = axis else { return Ok(value.to_owned()) };
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        let shape: Vec<i64> = (0..rank as i64).map(|i| if i == at { -1 } else { 1 }).collect();
        let shape = self.constant(Literal::i64s([rank as i64], &shape))?;
        self.op("Reshape", &[value, &shape], &[])
    }

    /// Limits a tensor of floats.
    fn limit(&mut self, value: &str, low: f32, high: f32) -> Result<Name, ExportError> {
        let (low, high) = (self.number(low)?, self.number(high)?);
        self.op("Clip", &[value, &low, &high], &[])
    }
}

/// The codes that a quantiser may use.
pub(super) fn codes(bits: i64, signed: bool, narrow: bool) -> CodeRange {
    CodeRange::of(bits.clamp(1, 32) as u32, signed, narrow)
}

/// The body of `fake_quant(x, range)`; `None` where the rank of `x` must be known and is not.
pub(super) fn fake_quant(attrs: &AttrSet, x: &Type) -> Result<Option<Vec<NodeProto>>, ExportError> {
    let axis = attrs.get("axis").map(|_| attrs.int("axis", 0));
    let Some(rank) = rank_for(axis, x) else { return Ok(None) };
    let bits = attrs.int("bits", 8);
    let (signed, symmetric) = (attrs.bool("signed", false), attrs.bool("symmetric", false));
    let codes = codes(bits, signed, attrs.bool("narrow", false));
    let mut b = Body::new();
    let (low, high) = range_with_zero(&mut b)?;
    let wide = width(&mut b, &low, &high, symmetric)?;
    let is_grid = is_positive_and_finite(&mut b, &wide)?;
    let scale = scale_of(&mut b, &wide, &is_grid, &codes)?;
    let zero_point = if symmetric {
        b.number(codes.middle.clamp(codes.low, codes.high) as f32)?
    } else {
        zero_point_of(&mut b, &low, &scale, &is_grid, &codes)?
    };
    let scale = b.along(&scale, axis, rank)?;
    let zero_point = if symmetric { zero_point } else { b.along(&zero_point, axis, rank)? };
    round_trip(&mut b, x, &scale, &zero_point, &codes)?;
    Ok(Some(b.nodes))
}

/// Lower and upper end of the range, with zero in it; what is not a number counts as zero.
fn range_with_zero(b: &mut Body) -> Result<(Name, Name), ExportError> {
    let mut ends = Vec::new();
    for (row, op) in [(0, "Min"), (1, "Max")] {
        let row = b.constant(Literal::i64s([], &[row]))?;
        let end = b.op("Gather", &["range", &row], &[("axis", Attr::Int(0))])?;
        let (is_nan, zero) = (b.op("IsNaN", &[&end], &[])?, b.number(0.0)?);
        let end = b.op("Where", &[&is_nan, &zero, &end], &[])?;
        ends.push(b.op(op, &[&end, &zero], &[])?);
    }
    let high = ends.pop().unwrap_or_default();
    Ok((ends.pop().unwrap_or_default(), high))
}

/// The width of the range, in f64.
fn width(b: &mut Body, low: &str, high: &str, symmetric: bool) -> Result<Name, ExportError> {
    let (low, high) = (b.cast(low, ElemType::F64)?, b.cast(high, ElemType::F64)?);
    if !symmetric {
        return b.op("Sub", &[&high, &low], &[]);
    }
    let mirrored = b.op("Neg", &[&low], &[])?;
    let most = b.op("Max", &[&high, &mirrored], &[])?;
    b.op("Add", &[&most, &most], &[])
}

fn is_positive_and_finite(b: &mut Body, wide: &str) -> Result<Name, ExportError> {
    let mut bound = |v: f64| b.constant(Literal::new(ElemType::F64, [], v.to_le_bytes().to_vec()));
    let (zero, infinity) = (bound(0.0)?, bound(f64::INFINITY)?);
    let above = b.op("Greater", &[wide, &zero], &[])?;
    let below = b.op("Less", &[wide, &infinity], &[])?;
    b.op("And", &[&above, &below], &[])
}

fn scale_of(b: &mut Body, wide: &str, is_grid: &str, codes: &CodeRange) -> Result<Name, ExportError> {
    let one = b.number(1.0)?;
    let steps = codes.high - codes.low;
    if steps == 0 {
        return Ok(one);
    }
    let steps = b.constant(Literal::new(ElemType::F64, [], (steps as f64).to_le_bytes().to_vec()))?;
    let scale = b.op("Div", &[wide, &steps], &[])?;
    let scale = b.cast(&scale, ElemType::F32)?;
    let least = b.number(f32::MIN_POSITIVE)?;
    let scale = b.op("Max", &[&scale, &least], &[])?;
    b.op("Where", &[is_grid, &scale, &one], &[])
}

fn zero_point_of(
    b: &mut Body,
    low: &str,
    scale: &str,
    is_grid: &str,
    codes: &CodeRange,
) -> Result<Name, ExportError> {
    let least = b.number(codes.low as f32)?;
    let offset = b.op("Div", &[low, scale], &[])?;
    let offset = b.op("Sub", &[&least, &offset], &[])?;
    let rounded = b.op("Round", &[&offset], &[])?;
    let limited = b.limit(&rounded, codes.low as f32, codes.high as f32)?;
    let of_nothing = b.number(0i64.clamp(codes.low, codes.high) as f32)?;
    b.op("Where", &[is_grid, &limited, &of_nothing], &[])
}

/// `y`: `x` to its code and back, in f32 whatever type `x` has.
pub(super) fn round_trip(
    b: &mut Body,
    x: &Type,
    scale: &str,
    zero_point: &str,
    codes: &CodeRange,
) -> Result<(), ExportError> {
    let elem = x.elem().unwrap_or(ElemType::F32);
    let wide = if elem == ElemType::F32 { "x".to_owned() } else { b.cast("x", ElemType::F32)? };
    let (is_nan, zero) = (b.op("IsNaN", &[&wide], &[])?, b.number(0.0)?);
    let wide = b.op("Where", &[&is_nan, &zero, &wide], &[])?;
    let quotient = b.op("Div", &[&wide, scale], &[])?;
    let rounded = b.op("Round", &[&quotient], &[])?;
    let code = b.op("Add", &[&rounded, zero_point], &[])?;
    let code = b.limit(&code, codes.low as f32, codes.high as f32)?;
    let distance = b.op("Sub", &[&code, zero_point], &[])?;
    finish(b, &distance, scale, elem)
}

pub(super) fn finish(b: &mut Body, distance: &str, scale: &str, elem: ElemType) -> Result<(), ExportError> {
    if elem == ElemType::F32 {
        return b.op_as("y", "Mul", &[distance, scale], &[]);
    }
    let y = b.op("Mul", &[distance, scale], &[])?;
    b.op_as("y", "Cast", &[&y], &[("to", Attr::Elem(elem))])
}

/// The body of `qdq(x, scale, zero_point)`; `None` where the rank of `x` must be known and is not, or the version
/// of the operator set has no blocks.
pub(super) fn qdq(
    attrs: &AttrSet,
    x: &Type,
    zero_point: &Type,
    opset: i64,
) -> Result<Option<Vec<NodeProto>>, ExportError> {
    let axis = attrs.get("axis").map(|_| attrs.int("axis", 0));
    let Some(elem) = zero_point.elem() else { return Ok(None) };
    let bits = attrs.int("bits", elem.bits().into());
    let is_plain =
        bits == i64::from(elem.bits()) && ["levels", "qmin", "qmax"].iter().all(|a| attrs.get(a).is_none());
    if is_plain && quantizes(elem, opset) {
        return linear_pair(attrs, axis, x).map(Some);
    }
    if attrs.int("block", 0) != 0 || !elem.is_int() {
        return Ok(None);
    }
    let Some(rank) = rank_for(axis, x) else { return Ok(None) };
    let odd = attrs.str("levels") == Some("odd");
    let mut codes = match odd {
        true => odd_codes(if attrs.get("bits").is_some() { bits } else { bits - 1 }),
        false => codes(bits, elem.is_signed_int(), false),
    };
    codes.low = attrs.int("qmin", codes.low);
    codes.high = attrs.int("qmax", codes.high);
    let mut b = Body::new();
    let scale = b.along("scale", axis, rank)?;
    let zero_point = b.cast("zero_point", ElemType::F32)?;
    let zero_point = b.along(&zero_point, axis, rank)?;
    if odd {
        odd_round_trip(&mut b, x, &scale, &zero_point, &codes)?;
    } else {
        round_trip(&mut b, x, &scale, &zero_point, &codes)?;
    }
    Ok(Some(b.nodes))
}

/// Whether QuantizeLinear makes codes of this type.
fn quantizes(elem: ElemType, opset: i64) -> bool {
    let since = match elem {
        ElemType::I8 | ElemType::U8 => 13,
        ElemType::F8E4M3Fn | ElemType::F8E4M3Fnuz | ElemType::F8E5M2 | ElemType::F8E5M2Fnuz => 19,
        ElemType::I16 | ElemType::U16 | ElemType::I4 | ElemType::U4 => 21,
        ElemType::F4E2M1 => 23,
        ElemType::I2 | ElemType::U2 => 25,
        _ => return false,
    };
    opset >= since
}

/// The pair that runtimes fuse.
fn linear_pair(attrs: &AttrSet, axis: Option<i64>, x: &Type) -> Result<Vec<NodeProto>, ExportError> {
    let mut given: Vec<(&str, Attr)> = axis.map(|a| ("axis", Attr::Int(a))).into_iter().collect();
    if attrs.int("block", 0) != 0 {
        given.push(("block_size", Attr::Int(attrs.int("block", 0))));
    }
    let mut b = Body::new();
    let elem = x.elem().unwrap_or(ElemType::F32);
    let codes = b.op("QuantizeLinear", &["x", "scale", "zero_point"], &given)?;
    if elem == ElemType::F32 {
        b.op_as("y", "DequantizeLinear", &[&codes, "scale", "zero_point"], &given)?;
    } else {
        let y = b.op("DequantizeLinear", &[&codes, "scale", "zero_point"], &given)?;
        b.op_as("y", "Cast", &[&y], &[("to", Attr::Elem(elem))])?;
    }
    Ok(b.nodes)
}

/// All odd numbers of so many bits.
pub(super) fn odd_codes(bits: i64) -> CodeRange {
    let top = (1i64 << bits.clamp(0, 32)) - 1;
    CodeRange { low: -top, high: top, middle: 0 }
}

/// As [`round_trip`], to odd codes: `2 * round((x / scale - 1) / 2) + 1`.
fn odd_round_trip(
    b: &mut Body,
    x: &Type,
    scale: &str,
    zero_point: &str,
    codes: &CodeRange,
) -> Result<(), ExportError> {
    let elem = x.elem().unwrap_or(ElemType::F32);
    let wide = if elem == ElemType::F32 { "x".to_owned() } else { b.cast("x", ElemType::F32)? };
    let (one, two) = (b.number(1.0)?, b.number(2.0)?);
    let quotient = b.op("Div", &[&wide, scale], &[])?;
    let shifted = b.op("Sub", &[&quotient, &one], &[])?;
    let half = b.op("Div", &[&shifted, &two], &[])?;
    let rounded = b.op("Round", &[&half], &[])?;
    let double = b.op("Mul", &[&rounded, &two], &[])?;
    let code = b.op("Add", &[&double, &one], &[])?;
    let code = b.limit(&code, codes.low as f32, codes.high as f32)?;
    let distance = b.op("Sub", &[&code, zero_point], &[])?;
    finish(b, &distance, scale, elem)
}

/// The rank of `x`, which only matters where there is an axis.
pub(super) fn rank_for(axis: Option<i64>, x: &Type) -> Option<usize> {
    match axis {
        None => Some(0),
        Some(_) => x.dims().map(<[gs_ir::Dim]>::len),
    }
}
