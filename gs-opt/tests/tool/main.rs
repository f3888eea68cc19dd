//! The tool as a user starts it. With wrong input it says what and where, writes nothing, and never panics; and what
//! must succeed.
#![allow(clippy::print_stderr, unreachable_pub)]

mod convert;
mod harness;
mod networks;
mod outputs;
mod passes;
mod prune;
mod quantize;
mod requests;
mod runs;
mod samples;
mod train;
mod train_networks;
