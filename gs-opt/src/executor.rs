//! What runs networks for the tool.

use crate::cli::Engine;
use gs_eval::{Evaluator, Executor};
use gs_runtime::Runtime;

/// The executor asked for, with so many threads (all processors where none is given).
pub fn make(engine: Engine, threads: Option<usize>) -> Box<dyn Executor> {
    match engine {
        Engine::Fast => Box::new(Runtime::with_threads(threads)),
        Engine::Reference => Box::new(Evaluator::new()),
    }
}
