//! The values that a place in a text can name. Regions see what is around them; their own names end with them.

use crate::span::Span;
use gs_ir::{Handle, Module, Sym, ValueId};
use rustc_hash::FxHashMap;

/// How a value is named in the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// `%name`
    Name(Sym),
    /// `%12`
    Number(u32),
}

#[derive(Clone, Copy)]
struct Entry {
    value: ValueId,
    span: Span,
}

/// Names that are visible at the place where the parser is.
#[derive(Default)]
pub(super) struct Scope {
    /// By handle of the string; `None` where it names nothing here.
    named: Vec<Option<Entry>>,
    numbered: FxHashMap<u32, Entry>,
    log: Vec<Key>,
}

impl Scope {
    /// Opens a scope and gives the mark by which it is closed.
    pub(super) fn open(&self) -> usize {
        self.log.len()
    }

    /// Closes the scope.
    pub(super) fn close(&mut self, mark: usize) {
        for key in self.log.drain(mark.min(self.log.len())..) {
            match key {
                Key::Name(sym) => self.named[sym.index()] = None,
                Key::Number(n) => {
                    self.numbered.remove(&n);
                }
            }
        }
    }

    fn entry(&self, key: Key) -> Option<Entry> {
        match key {
            Key::Name(sym) => self.named.get(sym.index()).copied().flatten(),
            Key::Number(n) => self.numbered.get(&n).copied(),
        }
    }

    /// The value of a name.
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<ValueId> {
        self.entry(key).map(|e| e.value)
    }

    /// Names a value.
    ///
    /// # Errors
    /// Where the name is visible already: the place where it was given.
    pub(super) fn define(&mut self, key: Key, value: ValueId, span: Span) -> Result<(), Span> {
        if let Some(earlier) = self.entry(key) {
            return Err(earlier.span);
        }
        let entry = Entry { value, span };
        match key {
            Key::Name(sym) => {
                if self.named.len() <= sym.index() {
                    self.named.resize(sym.index() + 1, None);
                }
                self.named[sym.index()] = Some(entry);
            }
            Key::Number(n) => {
                self.numbered.insert(n, entry);
            }
        }
        self.log.push(key);
        Ok(())
    }

    /// The words that name something here, for suggestions.
    pub(super) fn words<'m>(&self, module: &'m Module) -> Vec<&'m str> {
        let syms = self.log.iter().filter_map(|k| match k {
            Key::Name(sym) => Some(module.str(*sym)),
            Key::Number(_) => None,
        });
        syms.collect()
    }
}
