//! The runtime as a whole, against the reference evaluator.

mod common;
mod folding;
mod globals;
mod moves;
mod plans;
mod regions;
mod trainer;
mod training;
