//! The intermediate representation of Golden Stick.
//!
//! A [`Module`] holds pure [`Graph`]s of operations over SSA values, and globals (weights). Everything is a
//! `u32` handle into an arena. Operators are declared once, in [`ops`], and everything else reads those
//! declarations through the [`registry`]. Graphs are changed only through the [`Rewriter`].
//!
//! This crate knows nothing of text, files, evaluation or algorithms.

pub mod attr;
pub mod dim;
pub mod elem;
pub mod entity;
pub mod global;
pub mod graph;
pub mod infer;
pub mod intern;
mod learned;
mod module;
pub mod ops;
mod phase;
pub mod registry;
mod rewriter;
mod source;
pub mod types;
pub mod unique;
pub mod verify;

pub use attr::{Attr, AttrSet, FloatBits, Literal, TensorData};
pub use dim::Dim;
pub use elem::{CodeRange, ElemType};
pub use entity::{
    AttrsId, GlobalId, GraphId, Handle, OpId, OpKind, SourceId, Sym, SymbolId, TypeId, ValueId,
};
pub use global::{Derived, Distribution, Global, Init, Role};
pub use graph::{Def, Graph, LedgerEntry, Op, Symbol, Use, Value};
pub use infer::{Fact, InferError, Knowledge, infer_module};
pub use learned::is_learned;
pub use module::{Meta, Module, OPAQUE_NAME, OnnxMeta, OpIter};
pub use phase::Phase;
pub use registry::{OpDecl, Registry};
pub use rewriter::{At, Event, NewGlobal, Rewriter, TakenSource, check_attrs, normal_attrs};
pub use source::SourceNames;
pub use types::{Known, Shape, TensorType, Type};
pub use verify::{VerifyError, verify};
