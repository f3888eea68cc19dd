//! What the fuzz targets do ([`bodies`]), and random changes of inputs for where libFuzzer is not at hand ([`mutate`]).
//!
//! Both files are also compiled into the replay test of the workspace (`tests/tests/corpus.rs`), so they use nothing
//! but the crates under test and `std`.

pub mod bodies;
pub mod mutate;
