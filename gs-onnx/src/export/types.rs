//! Types as ONNX's messages.

use gs_ir::{Dim, ElemType, Module, TensorType, Type};

use super::ExportError;
use crate::import::is_anonymous;
use crate::proto::{
    Dimension, DimensionValue, MapType, OptionalType, SequenceType, SparseTensorType, TensorShapeProto,
    TypeProto, TypeValue, ValueInfoProto,
};

/// Name and type of a value.
pub(super) fn value_info(module: &Module, name: &str, ty: &Type) -> Result<ValueInfoProto, ExportError> {
    let r#type = type_proto(module, name, ty)?;
    Ok(ValueInfoProto { name: Some(name.to_owned()), r#type, ..Default::default() })
}

fn type_proto(module: &Module, name: &str, ty: &Type) -> Result<Option<TypeProto>, ExportError> {
    let boxed = |inner: &Type| Ok(type_proto(module, name, inner)?.map(Box::new));
    let value = match ty {
        Type::Any => return Ok(None),
        Type::Tensor(t) => TypeValue::Tensor(crate::proto::TensorType {
            elem_type: Some(element(name, t.elem)?),
            shape: shape(module, t),
        }),
        Type::Sparse(t) => TypeValue::SparseTensor(SparseTensorType {
            elem_type: Some(element(name, t.elem)?),
            shape: shape(module, t),
        }),
        Type::Sequence(inner) => TypeValue::Sequence(SequenceType { elem_type: boxed(inner)? }),
        Type::Optional(inner) => TypeValue::Optional(OptionalType { elem_type: boxed(inner)? }),
        Type::Map(key, value) => {
            TypeValue::Map(MapType { key_type: Some(element(name, *key)?), value_type: boxed(value)? })
        }
    };
    Ok(Some(TypeProto { value: Some(value), denotation: None }))
}

/// The number of an element type.
pub(super) fn element(name: &str, elem: ElemType) -> Result<i32, ExportError> {
    elem.onnx().ok_or_else(|| ExportError::Element { name: name.to_owned(), elem: elem.to_string() })
}

fn shape(module: &Module, ty: &TensorType) -> Option<TensorShapeProto> {
    ty.dims().map(|dims| TensorShapeProto { dim: dims.iter().map(|d| dimension(module, d)).collect() })
}

/// A dimension: a number, a name of the source, or nothing where only an expression says it.
fn dimension(module: &Module, dim: &Dim) -> Dimension {
    let named = |s| module.symbol_info(s).name.map(|n| DimensionValue::Param(module.str(n).to_owned()));
    let value = match dim {
        Dim::Const(n) => Some(DimensionValue::Value(*n)),
        other => other.as_symbol().and_then(named),
    };
    Dimension { value, denotation: None }
}

/// Whether a reader that infers types needs to be told this one.
pub(super) fn says_more(module: &Module, stored: &Type, inferred: Option<&Type>) -> bool {
    let Some(inferred) = inferred else { return *stored != Type::Any };
    match (stored, inferred) {
        (Type::Any, _) => false,
        (Type::Tensor(s), Type::Tensor(i)) => match (s.dims(), i.dims()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(s), Some(i)) => s.iter().zip(i).any(|(s, i)| i.is_unknown() && sayable(module, s)),
        },
        (stored, inferred) => *inferred == Type::Any && *stored != Type::Any,
    }
}

fn sayable(module: &Module, dim: &Dim) -> bool {
    dim.as_const().is_some() || dim.as_symbol().is_some_and(|s| !is_anonymous(module, s))
}
