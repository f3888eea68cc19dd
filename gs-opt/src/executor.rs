//! What runs networks for the tool.

use crate::cli::Engine;
use crate::failure::{Failure, Outcome};
use gs_eval::{Evaluator, Executor};
use gs_runtime::Runtime;

/// The executor asked for, with so many threads (all processors where none is given).
///
/// # Errors
/// No threads, or none that the operating system starts.
pub fn make(engine: Engine, threads: Option<usize>) -> Outcome<Box<dyn Executor>> {
    if threads == Some(0) {
        return Err(Failure::usage("--threads 0: at least one thread is needed"));
    }
    Ok(match engine {
        Engine::Fast => Box::new(Runtime::new(threads)?),
        Engine::Reference => Box::new(Evaluator::new()),
    })
}
