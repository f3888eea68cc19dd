//! What the parser remembers because networks repeat themselves: the same types and attributes are written over and
//! over, and the same operator meets the same types. Remembered is only what was read or checked without an error,
//! so that nothing depends on whether it was.

use super::parse::Parser;
use super::parse_attr::parse_attrs;
use super::parse_type::parse_type;
use crate::lexer::TokenKind as K;
use gs_ir::{AttrSet, Handle, OpDecl, OpId, OpKind, Type};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// Longer texts than this are not looked up.
const MAX_TEXT: usize = 256;

/// The memory of one run.
#[derive(Default)]
pub(super) struct Memory<'s> {
    types: FxHashMap<&'s str, Type>,
    attrs: FxHashMap<(OpKind, &'s str), AttrSet>,
    /// Handles of operator, attributes, and types of operands and results that were found to fit.
    fitting: FxHashSet<SmallVec<[u32; 12]>>,
    key: SmallVec<[u32; 12]>,
}

impl<'s> Parser<'_, 's, '_, '_> {
    /// The text from here up to a byte that may end what stands here.
    fn text_up_to(&self, end: u8) -> Option<&'s str> {
        let rest = self.c.rest();
        let at = rest.as_bytes().iter().take(MAX_TEXT).position(|&b| b == end)?;
        rest.get(..=at)
    }

    /// A type.
    pub(super) fn ty(&mut self) -> Option<Type> {
        let text = if self.c.at(K::Ident) { self.text_up_to(b']') } else { None };
        if let Some(ty) = text.and_then(|t| self.memory.types.get(t)) {
            let ty = ty.clone();
            self.c.jump(text.map_or(0, str::len));
            return Some(ty);
        }
        let start = self.c.token();
        let ty = parse_type(self.c, &mut self.symbols, &mut self.rw)?;
        if let Some(text) = text.filter(|t| t.len() == self.c.span_from(start).len()) {
            self.memory.types.insert(text, ty.clone());
        }
        Some(ty)
    }

    /// Attributes in braces.
    pub(super) fn attrs(&mut self, kind: OpKind, decl: &OpDecl) -> Option<AttrSet> {
        let text = self.text_up_to(b'}');
        if let Some(attrs) = text.and_then(|t| self.memory.attrs.get(&(kind, t))) {
            let attrs = attrs.clone();
            self.c.jump(text.map_or(0, str::len));
            return Some(attrs);
        }
        let start = self.c.token();
        let attrs = parse_attrs(self.c, &mut self.symbols, &mut self.rw, decl)?;
        if let Some(text) = text.filter(|t| t.len() == self.c.span_from(start).len()) {
            self.memory.attrs.insert((kind, text), attrs.clone());
        }
        Some(attrs)
    }

    /// Whether the same operator with the same attributes and types was found to fit before.
    pub(super) fn fitted_before(&mut self, id: OpId) -> bool {
        let module = &*self.rw;
        let op = module.op(id);
        let key = &mut self.memory.key;
        key.clear();
        key.extend([op.kind.index() as u32, op.attrs.index() as u32, op.operand_count() as u32]);
        key.extend(op.operands().map(|v| v.map_or(u32::MAX, |v| module.value(v).ty.index() as u32)));
        key.extend(
            op.results().iter().map(|v| v.some().map_or(u32::MAX, |v| module.value(v).ty.index() as u32)),
        );
        self.memory.fitting.contains(key.as_slice())
    }

    /// Notes that the operation of the last [`Self::fitted_before`] fits, by its types alone.
    pub(super) fn note_fitting(&mut self) {
        self.memory.fitting.insert(self.memory.key.clone());
    }
}
