//! Pass manager, rule engine and general passes.
//!
//! This crate knows no algorithm and no file format but the text of rules; it runs no network by itself.

pub mod cost;
pub mod egraph;
pub mod glob;
pub mod grid;
pub mod manager;
pub mod passes;
pub mod rules;
pub mod target;
pub mod training;
