//! Interning: equal items share one handle, so that they are stored once and compare as integers.

use crate::entity::{Arena, Handle};
use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::sync::Arc;

/// An arena in which equal items share a handle.
pub struct Interner<H, T: ?Sized> {
    items: Arena<H, Arc<T>>,
    index: FxHashMap<Arc<T>, H>,
}

// By hand, since a derive would ask for `T: Clone`; only the shared pointers are cloned.
impl<H: Clone, T: ?Sized> Clone for Interner<H, T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), index: self.index.clone() }
    }
}

impl<H: Handle, T: ?Sized + Eq + Hash> Interner<H, T> {
    /// An empty interner.
    pub fn new() -> Self {
        Self { items: Arena::new(), index: FxHashMap::default() }
    }

    /// The handle of `item`, adding it when it is new.
    pub fn intern(&mut self, item: &T) -> H
    where
        Arc<T>: for<'a> From<&'a T>,
    {
        match self.index.get(item) {
            Some(&handle) => handle,
            None => self.add(Arc::from(item)),
        }
    }

    /// Like [`Self::intern`] for an item that is already owned.
    pub fn intern_owned(&mut self, item: T) -> H
    where
        T: Sized,
    {
        match self.index.get(&item) {
            Some(&handle) => handle,
            None => self.add(Arc::new(item)),
        }
    }

    fn add(&mut self, item: Arc<T>) -> H {
        let handle = self.items.push(item.clone());
        self.index.insert(item, handle);
        handle
    }

    /// The handle of an item that was interned before.
    pub fn find(&self, item: &T) -> Option<H> {
        self.index.get(item).copied()
    }

    /// The item behind a handle.
    pub fn get(&self, handle: H) -> &T {
        &self.items[handle]
    }

    /// Number of distinct items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was interned yet.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether this interner gave out `handle`.
    pub fn contains(&self, handle: H) -> bool {
        self.items.get(handle).is_some()
    }
}

impl<H: Handle, T: ?Sized + Eq + Hash> Default for Interner<H, T> {
    fn default() -> Self {
        Self::new()
    }
}
