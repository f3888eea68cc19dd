//! Attributes and small constants as ONNX's messages.

use bytes::Bytes;
use gs_ir::{Attr, ElemType, Literal, TensorData};
use half::{bf16, f16};
use prost::Message;

use super::ExportError;
use super::types::element;
use crate::import::RAW_TAG;
use crate::proto::{AttributeProto, TensorProto, attribute_type as at};

/// An attribute under its ONNX name; `None` where the value has no such form.
pub(super) fn attribute(name: &str, value: &Attr) -> Result<Option<AttributeProto>, ExportError> {
    let mut a = AttributeProto { name: Some(name.to_owned()), ..Default::default() };
    a.r#type = Some(match value {
        Attr::Int(v) => {
            a.i = Some(*v);
            at::INT
        }
        Attr::Bool(v) => {
            a.i = Some((*v).into());
            at::INT
        }
        Attr::Elem(e) => {
            a.i = Some(element(name, *e)?.into());
            at::INT
        }
        Attr::Float(v) => {
            a.f = Some(v.0);
            at::FLOAT
        }
        Attr::Str(s) => {
            a.s = Some(Bytes::copy_from_slice(s.as_bytes()));
            at::STRING
        }
        Attr::Bytes(b) => {
            a.s = Some(b.clone());
            at::STRING
        }
        Attr::Ints(v) => {
            a.ints = v.to_vec();
            at::INTS
        }
        Attr::Dims(v) => {
            let Some(ints) = v.iter().map(gs_ir::Dim::as_const).collect() else { return Ok(None) };
            a.ints = ints;
            at::INTS
        }
        Attr::Floats(v) => {
            a.floats = v.iter().map(|f| f.0).collect();
            at::FLOATS
        }
        Attr::Strs(v) => {
            a.strings = v.to_vec();
            at::STRINGS
        }
        Attr::Tensor(literal) => {
            a.t = Some(Box::new(tensor(None, literal)?));
            at::TENSOR
        }
        Attr::Raw(tag, bytes) => {
            let kept = (&**tag == RAW_TAG).then(|| AttributeProto::decode(bytes.clone()).ok()).flatten();
            return Ok(kept);
        }
    });
    Ok(Some(a))
}

/// A stored tensor that holds its own elements.
pub(super) fn tensor(name: Option<&str>, literal: &Literal) -> Result<TensorProto, ExportError> {
    let mut t = TensorProto {
        name: name.map(str::to_owned),
        dims: literal.dims.clone(),
        data_type: Some(element(name.unwrap_or("constant"), literal.elem)?),
        ..Default::default()
    };
    match &literal.data {
        TensorData::Bytes(bytes) => t.raw_data = Some(bytes.clone()),
        TensorData::Strings(strings) => t.string_data = strings.to_vec(),
    }
    Ok(t)
}

/// An attribute of numbers as a constant operand: a vector, or a scalar. A number takes the element type `elem`; beyond
/// the least or greatest integer of that it is that one.
pub(super) fn constant(value: &Attr, scalar: bool, elem: ElemType) -> Option<Literal> {
    let ints = |values: &[i64]| Literal::i64s(extent(values.len(), scalar), values);
    Some(match value {
        Attr::Int(v) => ints(&[*v]),
        Attr::Ints(v) => ints(v),
        Attr::Dims(v) => ints(&v.iter().map(gs_ir::Dim::as_const).collect::<Option<Vec<i64>>>()?),
        Attr::Bool(v) => Literal::new(ElemType::Bool, extent(1, scalar), vec![u8::from(*v)]),
        Attr::Float(v) => Literal::new(elem, extent(1, scalar), number_bytes(v.0, elem)?),
        Attr::Floats(v) => {
            Literal::f32s(extent(v.len(), scalar), &v.iter().map(|f| f.0).collect::<Vec<f32>>())
        }
        Attr::Tensor(literal) => (**literal).clone(),
        _ => return None,
    })
}

fn extent(len: usize, scalar: bool) -> Vec<i64> {
    if scalar { Vec::new() } else { vec![len as i64] }
}

/// A number as an element of this type; `None` where that has no such number.
fn number_bytes(value: f32, elem: ElemType) -> Option<Vec<u8>> {
    if let Some((low, high)) = elem.int_range() {
        let whole = (value.fract() == 0.0).then_some(value as i64)?.clamp(low, high);
        return Some(whole.to_le_bytes()[..elem.bits() as usize / 8].to_vec());
    }
    Some(match elem {
        ElemType::F32 => value.to_le_bytes().to_vec(),
        ElemType::F64 => f64::from(value).to_le_bytes().to_vec(),
        ElemType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        ElemType::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => return None,
    })
}
