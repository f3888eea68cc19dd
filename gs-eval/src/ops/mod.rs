//! What each operator computes, one file per family. The declaration in the registry says what an operator is; here
//! a function is attached to its name.
//!
//! Float operators load numbers as f64, compute in f64 and round once, when the result is stored. For a single
//! addition, multiplication, division or square root that is IEEE f32 arithmetic; for sums it is closer to the real
//! result than any order of f32 additions. Sums run in the order of the formula (channels, then kernel positions,
//! outermost axis first). Integer operators compute exactly, or where stated step by step in f32 as the target does.

mod binary;
mod control;
mod conv;
mod ctx;
mod gather;
mod gradient;
mod layout;
mod learned;
mod matmul;
mod movement;
mod norm;
mod pool;
mod qlinear;
mod qpool;
mod quantise;
mod reduce;
mod training;
mod unary;
mod window;

pub(crate) use ctx::Budget;
pub use ctx::{OpCtx, OpError, RunRegion};

use crate::tensor::Tensor;

/// Computes the results of an operation, in order.
pub type EvalFn = fn(&OpCtx<'_>) -> Result<Vec<Tensor>, OpError>;

/// A row of a family's table.
type Row = (&'static str, EvalFn);

const FAMILIES: &[&[Row]] = &[
    unary::TABLE,
    binary::TABLE,
    conv::TABLE,
    matmul::TABLE,
    pool::TABLE,
    norm::TABLE,
    reduce::TABLE,
    layout::TABLE,
    movement::TABLE,
    gather::TABLE,
    quantise::TABLE,
    learned::TABLE,
    qlinear::TABLE,
    qpool::TABLE,
    control::TABLE,
    training::TABLE,
    gradient::TABLE,
];

/// The evaluation of the built-in operator of this name.
pub fn lookup(name: &str) -> Option<EvalFn> {
    FAMILIES.iter().flat_map(|f| f.iter()).find(|(n, _)| *n == name).map(|(_, f)| *f)
}

/// The names of all operators that have an evaluation, family by family.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|f| f.iter()).map(|(n, _)| *n)
}
