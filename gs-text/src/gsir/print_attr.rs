//! Attributes and the contents of tensors as text. A kind that cannot be told from the declaration of the operator
//! or from the look of the value is written in front of it (`ints[]`, `dims[2]`, `float(0x7fc00001)`).

use super::print_type::SymbolNames;
use crate::element::{padding_is_zero, push_element, push_f32, push_int, push_string};
use crate::quote::{push_name, push_quoted, push_quoted_bytes};
use gs_ir::registry::AttrKind;
use gs_ir::{Attr, AttrSet, ElemType, FloatBits, Literal, OPAQUE_NAME, OpDecl, TensorData};

/// Appends ` {name = value, ...}`, or nothing where there is nothing to say.
pub(crate) fn push_attrs(out: &mut String, symbols: &SymbolNames<'_>, decl: &OpDecl, attrs: &AttrSet) {
    let mut separator = " {";
    for (name, value) in attrs.iter() {
        if is_opaque_name(decl, name, value) {
            continue;
        }
        out.push_str(separator);
        push_name(out, name);
        out.push_str(" = ");
        push_attr(out, symbols, decl.attr(name).map(|a| a.kind), value);
        separator = ", ";
    }
    if separator == ", " {
        out.push('}');
    }
}

/// Whether an attribute is the name that an opaque operation is printed under.
fn is_opaque_name(decl: &OpDecl, name: &str, value: &Attr) -> bool {
    name == OPAQUE_NAME && matches!(value, Attr::Str(_)) && decl.name == "opaque"
}

fn push_attr(out: &mut String, symbols: &SymbolNames<'_>, kind: Option<AttrKind>, value: &Attr) {
    match value {
        Attr::Int(v) => push_int(out, *v),
        Attr::Float(v) => push_float(out, *v),
        Attr::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
        Attr::Str(v) => push_quoted(out, v),
        Attr::Bytes(v) => {
            out.push('b');
            push_quoted_bytes(out, v);
        }
        Attr::Ints(v) => {
            let plain = kind == Some(AttrKind::Ints) || kind.is_none() && !v.is_empty();
            push_list(out, if plain { "" } else { "ints" }, v, |out, v| push_int(out, *v));
        }
        Attr::Floats(v) => {
            let telling = !v.is_empty() && v.iter().all(|v| v.0.is_finite());
            let plain = kind == Some(AttrKind::Floats) || kind.is_none() && telling;
            push_list(out, if plain { "" } else { "floats" }, v, |out, v| push_f32(out, v.0));
        }
        Attr::Strs(v) => {
            let plain = kind == Some(AttrKind::Strs) || kind.is_none() && !v.is_empty();
            push_list(out, if plain { "" } else { "strs" }, v, |out, v| push_quoted_bytes(out, v));
        }
        Attr::Elem(v) => out.push_str(v.name()),
        Attr::Dims(v) => {
            out.push_str(if kind == Some(AttrKind::Dims) { "" } else { "dims" });
            symbols.push_dims(out, v);
        }
        Attr::Tensor(v) => push_literal(out, v),
        Attr::Raw(tag, bytes) => {
            out.push_str("raw(");
            push_quoted(out, tag);
            out.push_str(", b");
            push_quoted_bytes(out, bytes);
            out.push(')');
        }
    }
}

/// Appends a float; a NaN with a payload is marked, as its bits look like a whole number.
fn push_float(out: &mut String, value: FloatBits) {
    let start = out.len();
    push_f32(out, value.0);
    if out[start..].starts_with("0x") {
        out.insert_str(start, "float(");
        out.push(')');
    }
}

fn push_list<T>(out: &mut String, prefix: &str, items: &[T], push: impl Fn(&mut String, &T)) {
    out.push_str(prefix);
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        push(out, item);
    }
    out.push(']');
}

fn push_literal(out: &mut String, literal: &Literal) {
    out.push_str(literal.elem.name());
    push_list(out, "", &literal.dims, |out, d| push_int(out, *d));
    out.push(' ');
    push_contents(out, literal.elem, &literal.dims, &literal.data);
}

/// Appends the contents of a tensor: an element where it has rank 0, `dense(...)`, or `hex("...")` for packed bytes
/// that are no plain list of elements.
pub(crate) fn push_contents(out: &mut String, elem: ElemType, dims: &[i64], data: &TensorData) {
    let scalar = dims.is_empty();
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    out.push_str(if scalar { "" } else { "dense(" });
    match (data, count) {
        (TensorData::Strings(items), _) if !scalar || items.len() == 1 => {
            push_items(out, items.len(), |out, i| {
                push_string(out, items.get(i).map_or(&[], |b| b));
            })
        }
        (TensorData::Bytes(bytes), Some(count))
            if elem.bytes_for(count) == Some(bytes.len()) && padding_is_zero(elem, count, bytes) =>
        {
            push_items(out, count, |out, i| push_element(out, elem, bytes, i));
        }
        (TensorData::Strings(_), _) => out.push_str("dense()"), // contradicts itself; the parser will say so
        (TensorData::Bytes(bytes), _) => {
            if !scalar {
                out.truncate(out.len() - "dense(".len());
            }
            push_hex_bytes(out, bytes);
            return;
        }
    }
    out.push_str(if scalar { "" } else { ")" });
}

fn push_items(out: &mut String, count: usize, mut push: impl FnMut(&mut String, usize)) {
    for i in 0..count {
        if i > 0 {
            out.push_str(", ");
        }
        push(out, i);
    }
}

fn push_hex_bytes(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push_str("hex(\"");
    for b in bytes {
        out.push(HEX[usize::from(b >> 4)] as char);
        out.push(HEX[usize::from(b & 15)] as char);
    }
    out.push_str("\")");
}
