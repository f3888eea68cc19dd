//! Helpers of the whole-pipeline tests: where the data lies, networks and samples from it, running pipelines and
//! networks.
//!
//! Everything here panics with a plain message where something is wrong: it serves tests alone.
#![allow(clippy::print_stderr)]

pub mod data;
pub mod run;
