//! Attributes: from ONNX's messages to the IR's values, freely (opaque operations) or as a declaration wants them.

use std::sync::Arc;

use gs_ir::registry::{AttrKind, Default as AttrDefault};
use gs_ir::{Attr, Dim, ElemType, FloatBits, Literal};
use prost::Message;

use super::tensors::literal;
use crate::error::Error;
use crate::external::ExternalFiles;
use crate::proto::{AttributeProto, attribute_type as at};

/// Tag of an attribute that is kept as the bytes of its message.
pub(crate) const RAW_TAG: &str = "onnx.AttributeProto";

/// Which value field of an attribute is meant. Files of the first IR version do not say it.
pub(super) fn kind_of(attr: &AttributeProto) -> i32 {
    if attr.r#type() != at::UNDEFINED {
        return attr.r#type();
    }
    let present = [
        (attr.f.is_some(), at::FLOAT),
        (attr.i.is_some(), at::INT),
        (attr.s.is_some(), at::STRING),
        (attr.t.is_some(), at::TENSOR),
        (attr.g.is_some(), at::GRAPH),
        (!attr.floats.is_empty(), at::FLOATS),
        (!attr.ints.is_empty(), at::INTS),
        (!attr.strings.is_empty(), at::STRINGS),
    ];
    present.iter().find(|(there, _)| *there).map_or(at::UNDEFINED, |(_, kind)| *kind)
}

/// The value of an attribute of an operation that nobody declared. What the IR has no value for is kept as bytes.
pub(super) fn free_value(attr: &AttributeProto, files: Option<&mut ExternalFiles>) -> Result<Attr, Error> {
    let raw = || Attr::Raw(Arc::from(RAW_TAG), attr.encode_to_vec().into());
    if attr.ref_attr_name.is_some() {
        return Ok(raw());
    }
    Ok(match kind_of(attr) {
        at::FLOAT => Attr::float(attr.f()),
        at::INT => Attr::Int(attr.i()),
        at::STRING => text_or_bytes(attr.s.clone().unwrap_or_default()),
        at::FLOATS => Attr::Floats(attr.floats.iter().map(|&f| FloatBits(f)).collect()),
        at::INTS => Attr::ints(&attr.ints),
        at::STRINGS => Attr::Strs(attr.strings.iter().cloned().collect()),
        at::TENSOR => match attr.t.as_deref() {
            Some(t) if ElemType::from_onnx(t.data_type()).is_some() => {
                Attr::Tensor(Arc::new(literal(t, files)?))
            }
            _ => raw(),
        },
        _ => raw(),
    })
}

fn text_or_bytes(bytes: bytes::Bytes) -> Attr {
    match std::str::from_utf8(&bytes) {
        Ok(text) => Attr::str(text),
        Err(_) => Attr::Bytes(bytes),
    }
}

/// The value of a declared attribute, or `None` where the file has another kind of value.
pub(super) fn declared_value(
    attr: &AttributeProto,
    kind: AttrKind,
    files: Option<&mut ExternalFiles>,
) -> Result<Option<Attr>, Error> {
    let found = kind_of(attr);
    Ok(match kind {
        AttrKind::Int => (found == at::INT).then(|| Attr::Int(attr.i())),
        AttrKind::Float => (found == at::FLOAT).then(|| Attr::float(attr.f())),
        AttrKind::Bool => (found == at::INT && matches!(attr.i(), 0 | 1)).then(|| Attr::Bool(attr.i() == 1)),
        AttrKind::Str => utf8(attr).map(Attr::str),
        AttrKind::Enum(words) => utf8(attr).filter(|w| words.contains(w)).map(Attr::str),
        AttrKind::Ints => (found == at::INTS).then(|| Attr::ints(&attr.ints)),
        AttrKind::Floats => {
            (found == at::FLOATS).then(|| Attr::Floats(attr.floats.iter().map(|&f| FloatBits(f)).collect()))
        }
        AttrKind::Strs => (found == at::STRINGS).then(|| Attr::Strs(attr.strings.iter().cloned().collect())),
        AttrKind::Elem => element(attr, found).map(Attr::Elem),
        AttrKind::Dims => (found == at::INTS).then(|| Attr::dims(attr.ints.iter().map(|&n| Dim::Const(n)))),
        AttrKind::Tensor => match attr.t.as_deref().filter(|_| found == at::TENSOR) {
            Some(t) => Some(Attr::Tensor(Arc::new(literal(t, files)?))),
            None => None,
        },
    })
}

fn utf8(attr: &AttributeProto) -> Option<&str> {
    (kind_of(attr) == at::STRING).then(|| std::str::from_utf8(attr.s.as_deref().unwrap_or_default()).ok())?
}

/// An element type: a number, or its name as the first versions of Cast had it.
fn element(attr: &AttributeProto, found: i32) -> Option<ElemType> {
    match found {
        at::INT => i32::try_from(attr.i()).ok().and_then(ElemType::from_onnx),
        at::STRING => match utf8(attr)? {
            "FLOAT" => Some(ElemType::F32),
            "DOUBLE" => Some(ElemType::F64),
            "FLOAT16" => Some(ElemType::F16),
            "INT8" => Some(ElemType::I8),
            "INT16" => Some(ElemType::I16),
            "INT32" => Some(ElemType::I32),
            "INT64" => Some(ElemType::I64),
            "UINT8" => Some(ElemType::U8),
            "UINT16" => Some(ElemType::U16),
            "UINT32" => Some(ElemType::U32),
            "UINT64" => Some(ElemType::U64),
            "BOOL" => Some(ElemType::Bool),
            _ => None,
        },
        _ => None,
    }
}

/// What an absent attribute means, as a value; `None` where its absence has a meaning of its own.
pub(crate) fn default_value(default: AttrDefault) -> Option<Attr> {
    match default {
        AttrDefault::Int(v) => Some(Attr::Int(v)),
        AttrDefault::Float(v) => Some(Attr::float(v)),
        AttrDefault::Bool(v) => Some(Attr::Bool(v)),
        AttrDefault::Word(w) => Some(Attr::str(w)),
        AttrDefault::Elem(e) => Some(Attr::Elem(e)),
        AttrDefault::Required | AttrDefault::Absent | AttrDefault::All(_) => None,
    }
}

/// Whether an attribute of the file has a value that a default stands for.
pub(super) fn has_value(attr: &AttributeProto, default: AttrDefault) -> bool {
    match default {
        AttrDefault::Int(v) => kind_of(attr) == at::INT && attr.i() == v,
        AttrDefault::Bool(v) => kind_of(attr) == at::INT && attr.i() == i64::from(v),
        AttrDefault::Float(v) => kind_of(attr) == at::FLOAT && attr.f().to_bits() == v.to_bits(),
        AttrDefault::Word(w) => utf8(attr) == Some(w),
        AttrDefault::All(v) => kind_of(attr) == at::INTS && attr.ints.iter().all(|&i| i == v),
        AttrDefault::Elem(e) => element(attr, kind_of(attr)) == Some(e),
        AttrDefault::Required | AttrDefault::Absent => false,
    }
}

/// A constant operand as the value of an attribute of this kind. An empty list says nothing, as if it were absent.
pub(super) fn value_of_constant(kind: AttrKind, constant: &Literal) -> Result<Option<Attr>, &'static str> {
    use super::tensors::{f32s, i64s};
    let ints = || i64s(constant).ok_or("a constant of whole numbers is needed");
    let floats = || f32s(constant).ok_or("a constant of numbers is needed");
    let one = "one element is needed";
    Ok(match kind {
        AttrKind::Ints => Some(ints()?).filter(|v| !v.is_empty()).map(|v| Attr::ints(&v)),
        AttrKind::Dims => Some(Attr::dims(ints()?.into_iter().map(Dim::Const))),
        AttrKind::Floats => Some(floats()?)
            .filter(|v| !v.is_empty())
            .map(|v| Attr::Floats(v.into_iter().map(FloatBits).collect())),
        AttrKind::Int => match ints()?.as_slice() {
            [v] => Some(Attr::Int(*v)),
            _ => return Err(one),
        },
        AttrKind::Bool => match ints()?.as_slice() {
            [v] => Some(Attr::Bool(*v != 0)),
            _ => return Err(one),
        },
        AttrKind::Float => match floats()?.as_slice() {
            [v] => Some(Attr::float(*v)),
            [] => None,
            _ => return Err(one),
        },
        AttrKind::Tensor => Some(Attr::Tensor(Arc::new(constant.clone()))),
        AttrKind::Str | AttrKind::Enum(_) | AttrKind::Strs | AttrKind::Elem => {
            return Err("no operand can hold this attribute");
        }
    })
}
