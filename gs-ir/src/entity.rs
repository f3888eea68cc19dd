//! Handles and arenas. Every entity of the IR is a `u32` handle into a dense arena owned by the
//! module: cheap to copy, stable while the graph changes, and printed in a deterministic order.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// A typed handle into an [`Arena`].
pub trait Handle: Copy + Eq + Ord + fmt::Debug {
    /// Makes a handle from a dense index.
    fn from_index(index: usize) -> Self;
    /// The dense index of this handle.
    fn index(self) -> usize;
}

/// Declares handle types. A macro because a trait cannot give a type its derives and inherent methods.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// "No such entity": the packed form of an absent handle.
            pub const NONE: Self = Self(u32::MAX);

            /// Whether this is [`Self::NONE`].
            pub fn is_none(self) -> bool {
                self.0 == u32::MAX
            }

            /// The handle, or `None` where it is [`Self::NONE`].
            pub fn some(self) -> Option<Self> {
                (!self.is_none()).then_some(self)
            }
        }

        impl Handle for $name {
            fn from_index(index: usize) -> Self {
                debug_assert!(index < u32::MAX as usize);
                Self(index as u32)
            }
            fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.is_none() { write!(f, concat!($prefix, "-")) } else { write!(f, concat!($prefix, "{}"), self.0) }
            }
        }
    )*};
}

handles! {
    /// An operation.
    OpId "op";
    /// An SSA value: a graph parameter, an operation's result, or a global read at entry.
    ValueId "v";
    /// A graph: an entry point of the module or a region of an operation.
    GraphId "graph";
    /// A global: a parameter, a state or a constant.
    GlobalId "global";
    /// An interned type.
    TypeId "type";
    /// An interned attribute set.
    AttrsId "attrs";
    /// An interned string.
    Sym "sym";
    /// A symbolic dimension.
    SymbolId "dim";
    /// An interned list of source names (provenance).
    SourceId "source";
    /// An operator declaration in a registry.
    OpKind "kind";
}

/// A dense arena indexed by its handle type. Entities are never moved; what is erased stays as a hole
/// that its owner marks dead.
#[derive(Clone)]
pub struct Arena<H, T> {
    items: Vec<T>,
    handle: PhantomData<H>,
}

impl<H: Handle, T> Arena<H, T> {
    /// An empty arena.
    pub fn new() -> Self {
        Self { items: Vec::new(), handle: PhantomData }
    }

    /// Adds an item and gives its handle.
    pub fn push(&mut self, item: T) -> H {
        let handle = H::from_index(self.items.len());
        self.items.push(item);
        handle
    }

    /// The handle that the next [`Self::push`] will give.
    pub fn next_handle(&self) -> H {
        H::from_index(self.items.len())
    }

    /// The item, or `None` for a handle that this arena never gave out.
    pub fn get(&self, handle: H) -> Option<&T> {
        self.items.get(handle.index())
    }

    /// Number of items ever added.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All handles with their items, in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = (H, &T)> {
        self.items.iter().enumerate().map(|(i, t)| (H::from_index(i), t))
    }

    /// All handles, in order of creation.
    pub fn handles(&self) -> impl Iterator<Item = H> + use<H, T> {
        (0..self.items.len()).map(H::from_index)
    }
}

impl<H: Handle, T> Default for Arena<H, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Handle, T> Index<H> for Arena<H, T> {
    type Output = T;
    fn index(&self, handle: H) -> &T {
        &self.items[handle.index()]
    }
}

impl<H: Handle, T> IndexMut<H> for Arena<H, T> {
    fn index_mut(&mut self, handle: H) -> &mut T {
        &mut self.items[handle.index()]
    }
}
