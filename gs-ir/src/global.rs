//! Globals: the weights and other tensors that outlive a run.

use crate::attr::{AttrSet, FloatBits, TensorData};
use crate::entity::{GlobalId, OpKind, Sym, TypeId, ValueId};
use smallvec::SmallVec;

/// What a global is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Learned; an optimiser may change it.
    Param,
    /// Written by `updates`: observed ranges, running statistics, step counters.
    State,
    /// Never changes.
    Const,
    /// Given by whoever runs the network, its contents being what it is otherwise: an ONNX initializer that is listed
    /// as an input too, from version 4 of that format on. It is interface, and no constant.
    Input,
}

impl Role {
    /// The keyword in text.
    pub fn name(self) -> &'static str {
        match self {
            Role::Param => "param",
            Role::State => "state",
            Role::Const => "const",
            Role::Input => "input",
        }
    }
}

/// Where the contents of a global come from. A copy of an `Init` never copies the contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Init {
    /// Bytes in memory or in a mapped file.
    Data(TensorData),
    /// One value everywhere; its little-endian bytes (below 8 bits: in the low bits of one byte).
    Splat(SmallVec<[u8; 16]>),
    /// Seeded random values.
    Seeded {
        /// Seed of the generator.
        seed: u64,
        /// How the values are distributed.
        dist: Distribution,
    },
    /// An operation applied to other globals, evaluated when the contents are needed.
    Derived(Derived),
    /// Contents that were deliberately not loaded (the text form without weights).
    Absent,
}

/// Distributions of seeded contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Distribution {
    /// Uniform in `[low, high)`.
    Uniform(FloatBits, FloatBits),
    /// Normal with mean and standard deviation.
    Normal(FloatBits, FloatBits),
}

/// An operation over globals that makes the contents of a global.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Derived {
    /// The operation; it has no regions.
    pub kind: OpKind,
    /// Its attributes, in normal form.
    pub attrs: AttrSet,
    /// Its operands; `None` where an optional one is absent.
    pub operands: SmallVec<[Option<GlobalId>; 4]>,
    /// Which of the operation's results this is.
    pub result: u32,
    /// How many results the operation has: what a result is may depend on it (`split`).
    pub results: u32,
}

/// A tensor that outlives a run.
#[derive(Clone, Debug)]
pub struct Global {
    /// Its name, unique among the module's globals.
    pub name: Sym,
    /// What it is for.
    pub role: Role,
    /// Whether an optimiser may change it (only a `param` can be).
    pub trainable: bool,
    /// Its type, a tensor of constant shape unless an ONNX file said less.
    pub ty: TypeId,
    /// Its contents.
    pub init: Init,
    /// The value by which graphs read it.
    pub value: ValueId,
    /// False once it was removed.
    pub live: bool,
    /// How many live graphs store to it.
    pub(crate) writers: u32,
}
