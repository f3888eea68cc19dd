//! The command-line tool of Golden Stick: reading and writing files, data sets, and what is shown of a run.
//! The compiler itself is in the crates below; nothing here decides how a network is rewritten.
//!
//! This is the one crate that prints, through [`mod@say`], whose writing neither panics nor ends the work. Without the
//! feature `runtime` it has no training, and the reference evaluator runs networks.

pub mod algorithms;
pub mod cli;
pub mod convert;
pub mod data;
pub mod eval;
pub mod executor;
pub mod explain;
pub mod failure;
pub mod files;
pub mod groups;
pub mod lookup;
pub mod manual;
pub mod passes;
pub mod progress;
pub mod prune;
pub mod quantize;
pub mod report;
pub mod say;
pub mod source;
#[cfg(feature = "runtime")]
pub mod train;
pub mod weights;
pub mod words;
