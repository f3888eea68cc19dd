//! Tests of the declarations. Types are written as in the text form without blanks; what is known of the contents
//! follows in braces: `i64[2]{N,64}`. `any` is a value of which nothing is known, `-` an absent operand. A capital
//! letter is a symbol.

mod chains;
mod declarations;
mod hostile;
mod inference;
mod onnx_forms;
mod refusals;

use crate::attr::{Attr, AttrSet, Literal};
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::entity::{Handle, SymbolId};
use crate::infer::{Fact, InferError, infer_facts};
use crate::registry::{AttrKind, OpDecl};
use crate::types::{Known, TensorType, Type};

/// The declaration of this name.
fn op(name: &str) -> &'static OpDecl {
    super::all().find(|d| d.name == name).unwrap_or_else(|| panic!("no operator `{name}`"))
}

/// Reads an extent: a sum of products of numbers and letters.
fn dim(text: &str) -> Dim {
    let factor = |f: &str| match f.parse::<i64>() {
        Ok(n) => Dim::Const(n),
        Err(_) if f == "?" => Dim::Unknown,
        Err(_) => Dim::symbol(SymbolId::from_index(usize::from(f.as_bytes()[0] - b'A'))),
    };
    let product = |t: &str| t.split('*').map(factor).fold(Dim::Const(1), |p, f| p.mul(&f));
    text.split('+').map(product).fold(Dim::Const(0), |s, t| s.add(&t))
}

fn list(text: &str) -> Vec<Dim> {
    text.split(',').filter(|t| !t.is_empty()).map(dim).collect()
}

/// Reads the fact of an operand.
fn fact(text: &str) -> Option<Fact> {
    if text == "-" {
        return None;
    }
    if text == "any" {
        return Some(Fact::of(Type::Any));
    }
    let (ty, known) = match text.split_once('{') {
        Some((ty, k)) => (ty, Some(list(k.trim_end_matches('}')))),
        None => (text, None),
    };
    let (elem, shape) = match ty.split_once('[') {
        Some((e, s)) => (e, Some(list(s.trim_end_matches(']')))),
        None => (ty, None),
    };
    let elem = ElemType::from_name(elem).unwrap_or_else(|| panic!("element type `{elem}`"));
    let scalar = shape.as_ref().is_some_and(Vec::is_empty);
    let known = known.map(|k| Known { elems: k.into_iter().collect(), scalar });
    let ty = Type::Tensor(TensorType { elem, shape: shape.map(|s| s.into_iter().collect()) });
    Some(Fact { ty, known })
}

/// Writes a fact as [`fact`] reads it.
fn show(fact: &Fact) -> String {
    let show_dim = |d: &Dim| {
        let mut text = super::support::show(d).replace(' ', "");
        for i in (0..26u8).rev() {
            text = text.replace(&format!("s{i}"), &char::from(b'A' + i).to_string());
        }
        text
    };
    let join = |d: &[Dim]| d.iter().map(show_dim).collect::<Vec<_>>().join(",");
    let known = fact.known.as_ref().map_or(String::new(), |k| format!("{{{}}}", join(&k.elems)));
    match &fact.ty {
        Type::Tensor(t) => {
            format!("{}{}{known}", t.elem, t.dims().map_or(String::new(), |d| format!("[{}]", join(d))))
        }
        Type::Any => "any".into(),
        other => format!("{other:?}"),
    }
}

/// Reads attributes, `name=value` separated by blanks; the declaration says of which kind each is.
fn attrs(decl: &OpDecl, text: &str) -> AttrSet {
    let ints =
        |v: &str| v.split(',').filter(|t| !t.is_empty()).map(|t| t.parse().unwrap()).collect::<Vec<i64>>();
    let mut set = AttrSet::new();
    for item in text.split_whitespace() {
        let (name, value) = item.split_once('=').unwrap();
        let kind = decl.attr(name).unwrap_or_else(|| panic!("{} has no attribute `{name}`", decl.name)).kind;
        let attr = match kind {
            AttrKind::Int => Attr::Int(value.parse().unwrap()),
            AttrKind::Float => Attr::float(value.parse().unwrap()),
            AttrKind::Bool => Attr::Bool(value.parse().unwrap()),
            AttrKind::Str | AttrKind::Enum(_) => Attr::str(value),
            AttrKind::Ints => Attr::ints(&ints(value)),
            AttrKind::Dims => Attr::dims(list(value)),
            AttrKind::Elem => Attr::Elem(ElemType::from_name(value).unwrap()),
            // `1,2` is a vector of i64, `7i` a scalar one, `0.5f` a scalar f32.
            AttrKind::Tensor => Attr::Tensor(std::sync::Arc::new(match value.strip_suffix('i') {
                Some(one) => Literal::i64s([], &ints(one)),
                None if value.ends_with('f') => Literal::f32(value.trim_end_matches('f').parse().unwrap()),
                None => Literal::i64s([ints(value).len() as i64], &ints(value)),
            })),
            other => panic!("{other:?}"),
        };
        set.set(name, attr);
    }
    crate::normal_attrs(decl, set)
}

/// Infers `count` results.
fn infer(
    name: &str,
    operands: &str,
    text: &str,
    regions: &[Vec<Type>],
    count: usize,
) -> Result<String, InferError> {
    let decl = op(name);
    let operands: Vec<Option<Fact>> = operands.split_whitespace().map(fact).collect();
    let facts = infer_facts(decl, &operands, &attrs(decl, text), regions, count)?;
    Ok(facts.iter().map(show).collect::<Vec<_>>().join(" "))
}

/// Checks that an operation is given these result types.
fn gives(name: &str, operands: &str, attrs: &str, results: &str) {
    let count = results.split_whitespace().count();
    match infer(name, operands, attrs, &[], count) {
        Ok(found) => assert_eq!(found, results, "{name}({operands}) {{{attrs}}}"),
        Err(e) => panic!("{name}({operands}) {{{attrs}}}: {e}"),
    }
}

/// Checks that an operation is refused with words that contain these.
fn refused(name: &str, operands: &str, attrs: &str, words: &str) {
    refused_for(name, operands, attrs, 1, words);
}

fn refused_for(name: &str, operands: &str, attrs: &str, count: usize, words: &str) {
    match infer(name, operands, attrs, &[], count) {
        Ok(found) => panic!("{name}({operands}) {{{attrs}}} gave {found}"),
        Err(e) => assert!(e.0.contains(words), "{name}({operands}) {{{attrs}}} said: {e}"),
    }
}
