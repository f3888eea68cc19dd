//! What attributes must be before an operation may carry them.

use crate::attr::{Attr, AttrSet};
use crate::dim::Dim;
use crate::infer::InferError;
use crate::registry::{AttrKind, Default, OpDecl};

/// Attributes in normal form: defaults absent, lists of numbers as extents where the declaration says extents.
pub fn normal_attrs(decl: &OpDecl, attrs: AttrSet) -> AttrSet {
    let normal = |name: &str, value: &Attr| -> Option<Attr> {
        let Some(a) = decl.attr(name) else { return Some(value.clone()) };
        if a.is_default(value) {
            return None;
        }
        match (a.kind, value) {
            (AttrKind::Dims, Attr::Ints(v)) => Some(Attr::dims(v.iter().map(|&n| Dim::Const(n)))),
            _ => Some(value.clone()),
        }
    };
    attrs.iter().filter_map(|(n, v)| Some((n, normal(n, v)?))).collect()
}

/// Checks attributes against the declaration: known names, right kinds, required ones there.
pub fn check_attrs(decl: &OpDecl, attrs: &AttrSet) -> Result<(), InferError> {
    if decl.name == "opaque" {
        return Ok(());
    }
    for (name, value) in attrs.iter() {
        let Some(a) = decl.attr(name) else {
            return Err(InferError(format!("`{}` has no attribute `{name}`", decl.name)));
        };
        if !a.kind.accepts(value) {
            return Err(InferError(format!(
                "attribute `{name}` of `{}` cannot be {}",
                decl.name,
                value.kind_name()
            )));
        }
    }
    match decl.attrs.iter().find(|a| a.default == Default::Required && attrs.get(a.name).is_none()) {
        Some(a) => Err(InferError(format!("`{}` needs the attribute `{}`", decl.name, a.name))),
        None => Ok(()),
    }
}
