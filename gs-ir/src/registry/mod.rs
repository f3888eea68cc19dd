//! The operator registry: a closed world of declarations that everything else reads. A user's own dialect is
//! registered beside the built-in operators, from outside our crates.

mod decl;

pub use decl::*;

use crate::entity::{Handle, OpKind};
use crate::ops::axis_rule::{self, Clause};
use rustc_hash::FxHashMap;
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// All operators that a module may use.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    decls: Vec<OpDecl>,
    axes: Vec<Vec<Clause<'static>>>,
    by_name: FxHashMap<&'static str, OpKind>,
    by_onnx: FxHashMap<&'static str, Vec<OpKind>>,
}

/// Why a declaration was not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RegisterError {
    /// The name is taken.
    #[error("an operator named `{0}` is registered already")]
    Duplicate(&'static str),
    /// The declaration contradicts itself.
    #[error("the declaration of `{name}` is wrong: {reason}")]
    Malformed {
        /// The operator.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Registry {
    /// The operators of this crate. Made once and shared.
    pub fn builtin() -> Arc<Registry> {
        static BUILTIN: OnceLock<Arc<Registry>> = OnceLock::new();
        BUILTIN
            .get_or_init(|| {
                let mut registry = Registry::default();
                for decl in crate::ops::all() {
                    // The test `builtin_is_well_formed` keeps this from being reached with an error.
                    let accepted = registry.register(*decl);
                    debug_assert!(accepted.is_ok(), "{accepted:?}");
                }
                Arc::new(registry)
            })
            .clone()
    }

    /// Adds an operator.
    pub fn register(&mut self, decl: OpDecl) -> Result<OpKind, RegisterError> {
        check(&decl)?;
        let axes = axis_rule::checked(&decl).map_err(|reason| RegisterError::Malformed {
            name: decl.name,
            reason: format!("axis rule: {reason}"),
        })?;
        let kind = OpKind::from_index(self.decls.len());
        if self.by_name.contains_key(decl.name) {
            return Err(RegisterError::Duplicate(decl.name));
        }
        self.by_name.insert(decl.name, kind);
        if let Some(onnx) = &decl.onnx {
            self.by_onnx.entry(onnx.name).or_default().push(kind);
        }
        self.decls.push(decl);
        self.axes.push(axes);
        Ok(kind)
    }

    /// The declaration behind a handle.
    pub fn decl(&self, kind: OpKind) -> &OpDecl {
        &self.decls[kind.index()]
    }

    /// The clauses of an operator whose axis rule is a list of them; see [`AxisRule`].
    pub fn axis_clauses(&self, kind: OpKind) -> &[Clause<'static>] {
        &self.axes[kind.index()]
    }

    /// The operator of this name.
    pub fn kind(&self, name: &str) -> Option<OpKind> {
        self.by_name.get(name).copied()
    }

    /// The operators that have a form of this ONNX type, in order of registration.
    pub fn for_onnx<'a>(&'a self, domain: &'a str, name: &str) -> impl Iterator<Item = OpKind> + 'a {
        let same_name = self.by_onnx.get(name).map_or(&[][..], Vec::as_slice);
        same_name.iter().copied().filter(move |&k| self.decl(k).onnx.is_some_and(|o| o.domain == domain))
    }

    /// All operators, in order of registration.
    pub fn iter(&self) -> impl Iterator<Item = (OpKind, &OpDecl)> {
        self.decls.iter().enumerate().map(|(i, d)| (OpKind::from_index(i), d))
    }

    /// Number of operators.
    pub fn len(&self) -> usize {
        self.decls.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.decls.is_empty()
    }
}

/// Checks a declaration against itself, so that readers need not.
fn check(decl: &OpDecl) -> Result<(), RegisterError> {
    let bad = |reason: String| Err(RegisterError::Malformed { name: decl.name, reason });
    let inner = decl.operands.len().saturating_sub(1);
    if decl.operands.iter().take(inner).any(|o| o.arity == Arity::Variadic) {
        return bad("only the last operand may be variadic".into());
    }
    if decl.results.iter().rev().skip(1).any(|r| r.arity == Arity::Variadic) {
        return bad("only the last result may be variadic".into());
    }
    let Some(onnx) = &decl.onnx else { return Ok(()) };
    if onnx.forms.windows(2).any(|w| w[0].since >= w[1].since) {
        return bad("ONNX forms are not in ascending order".into());
    }
    for form in onnx.forms {
        for input in form.inputs {
            let (known, name) = match *input {
                OnnxInput::Operand(n) => (decl.operand_index(n).is_some(), n),
                OnnxInput::Attr(n) | OnnxInput::ScalarAttr(n) | OnnxInput::Hint(n) => {
                    (decl.attr(n).is_some(), n)
                }
                OnnxInput::Fixed(_) | OnnxInput::Ignored => continue,
            };
            if !known {
                return bad(format!("ONNX form {} names `{name}`, which is not declared", form.since));
            }
        }
        for attr in form.attrs {
            let (known, ours) = match *attr {
                OnnxAttr::Same(_, n)
                | OnnxAttr::Defaulting(_, n, _)
                | OnnxAttr::Implied(n, _)
                | OnnxAttr::ResultCount(_, n) => (decl.attr(n).is_some(), n),
                OnnxAttr::SpatialOf(_, n) => (decl.operand_index(n).is_some(), n),
                OnnxAttr::Fixed(..) | OnnxAttr::Demanded(..) | OnnxAttr::Ignored(_) => continue,
            };
            if !known {
                return bad(format!("ONNX form {} names `{ours}`, which is not declared", form.since));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_is_well_formed() {
        let mut registry = Registry::default();
        for decl in crate::ops::all() {
            registry.register(*decl).unwrap();
        }
        assert_eq!(registry.len(), Registry::builtin().len());
    }

    #[test]
    fn a_user_dialect_stands_beside_the_builtin_one() {
        let mut registry = (*Registry::builtin()).clone();
        let decl = OpDecl { name: "my.swish", ..OpDecl::BASE };
        let kind = registry.register(decl).unwrap();
        assert_eq!(registry.kind("my.swish"), Some(kind));
        assert_eq!(registry.register(decl), Err(RegisterError::Duplicate("my.swish")));
    }
}
