//! Tests of the evaluator through its public interface, in one binary.

mod common;
mod float_ops;
mod globals;
mod hostile;
mod learned_ops;
mod movement_ops;
mod qlinear;
mod quant_ops;
mod registry;
mod run;
mod stream;
mod windows;
