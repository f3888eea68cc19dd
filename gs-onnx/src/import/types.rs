//! Types of values: from ONNX's messages, and joined with what inference found.

use gs_ir::{Dim, ElemType, Module, SymbolId, TensorType, Type};

use crate::proto::{Dimension, DimensionValue, TensorShapeProto, TypeProto, TypeValue};

/// The type that a file states. What it leaves open is [`Type::Any`], unknown rank or a fresh symbol.
pub(super) fn import_type(module: &mut Module, proto: Option<&TypeProto>) -> Type {
    match proto.and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(t)) => {
            tensor(module, t.elem_type(), t.shape.as_ref()).map_or(Type::Any, Type::Tensor)
        }
        Some(TypeValue::SparseTensor(t)) => {
            tensor(module, t.elem_type(), t.shape.as_ref()).map_or(Type::Any, Type::Sparse)
        }
        Some(TypeValue::Sequence(s)) => Type::Sequence(Box::new(import_type(module, s.elem_type.as_deref()))),
        Some(TypeValue::Optional(o)) => Type::Optional(Box::new(import_type(module, o.elem_type.as_deref()))),
        Some(TypeValue::Map(m)) => {
            let value = import_type(module, m.value_type.as_deref());
            ElemType::from_onnx(m.key_type()).map_or(Type::Any, |key| Type::Map(key, Box::new(value)))
        }
        Some(TypeValue::Opaque(_)) | None => Type::Any,
    }
}

fn tensor(module: &mut Module, elem: i32, shape: Option<&TensorShapeProto>) -> Option<TensorType> {
    let elem = ElemType::from_onnx(elem)?;
    let shape = shape.map(|s| s.dim.iter().map(|d| dimension(module, d)).collect());
    Some(TensorType { elem, shape })
}

/// A dimension. `-1`, `?` and nothing at all are symbols that equal nothing else; a name is one symbol everywhere.
fn dimension(module: &mut Module, dim: &Dimension) -> Dim {
    match &dim.value {
        Some(DimensionValue::Value(n)) if *n >= 0 => Dim::Const(*n),
        Some(DimensionValue::Param(name)) if !matches!(name.as_str(), "" | "?" | "-1") => {
            Dim::symbol(module.symbol(name))
        }
        _ => Dim::symbol(module.fresh_symbol()),
    }
}

/// Joins what inference found with what the file states. The file only fills what inference had to leave open:
/// an unknown type or rank, or an extent that became a fresh symbol, one that no operand has.
pub(super) fn join(module: &Module, inferred: &Type, stated: &Type, operands: &[Type]) -> Type {
    match (inferred, stated) {
        (Type::Any, _) => stated.clone(),
        (Type::Tensor(i), Type::Tensor(s)) if i.elem == s.elem => Type::Tensor(TensorType {
            elem: i.elem,
            shape: match (&i.shape, &s.shape) {
                (None, stated) => stated.clone(),
                (Some(i), Some(s)) if i.len() == s.len() => {
                    let known = symbols_of(operands);
                    Some(i.iter().zip(s).map(|(i, s)| join_dim(module, i, s, &known)).collect())
                }
                (inferred, _) => inferred.clone(),
            },
        }),
        _ => inferred.clone(),
    }
}

fn join_dim(module: &Module, inferred: &Dim, stated: &Dim, known: &[SymbolId]) -> Dim {
    let is_fresh = inferred.as_symbol().is_some_and(|s| is_anonymous(module, s) && !known.contains(&s));
    let says_more = stated.as_symbol().is_none_or(|s| !is_anonymous(module, s));
    if is_fresh && says_more { stated.clone() } else { inferred.clone() }
}

pub(crate) fn is_anonymous(module: &Module, symbol: SymbolId) -> bool {
    module.symbol_info(symbol).name.is_none()
}

fn symbols_of(types: &[Type]) -> Vec<SymbolId> {
    let mut found = Vec::new();
    for dim in types.iter().filter_map(Type::dims).flatten() {
        dim.visit_symbols(&mut |s| found.push(s));
    }
    found
}
