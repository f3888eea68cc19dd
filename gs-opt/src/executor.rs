//! What runs networks for the tool.

use crate::cli::{Engine, RunningArgs};
use crate::failure::{Failure, Outcome};
use crate::words::counted;
use gs_eval::{Arithmetic, Evaluator, Executor};
use gs_ir::{Module, Phase};
#[cfg(feature = "runtime")]
use gs_runtime::Runtime;

/// Most elements of a tensor in the reference evaluator.
const MAX_ELEMENTS: usize = 1 << 30;

fn evaluator(running: RunningArgs) -> Evaluator {
    Evaluator::new().with_limits(MAX_ELEMENTS, running.max_steps)
}

/// What runs networks, as far as it decides their last bits.
pub fn name(engine: Engine) -> &'static str {
    match engine {
        #[cfg(feature = "runtime")]
        Engine::Fast => gs_runtime::Kernels::detect().isa().name(),
        Engine::Reference => "reference",
    }
}

/// Threads for each processor that are started at most: more of them only wait for each other.
const THREADS_EACH: usize = 4;

/// Threads that are started anywhere, so that what is found with many can be looked at on a small machine.
const THREADS_ANYWHERE: usize = 64;

/// Whether so many threads make sense.
///
/// # Errors
/// None, or far more than there are processors.
pub fn check_threads(threads: Option<usize>) -> Outcome<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        return Err(Failure::usage("--threads 0: at least one thread is needed"));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let most = processors.saturating_mul(THREADS_EACH).max(THREADS_ANYWHERE);
    if threads > most {
        return Err(Failure::usage(format!(
            "--threads {threads}: at most {most} are started here, where {} can run at once",
            counted(processors as u64, "thread")
        ))
        .help("leave the option out to use all processors"));
    }
    Ok(())
}

/// The executor asked for, with so many threads (all processors where none is given).
///
/// # Errors
/// No threads, or none that the operating system starts.
pub fn make(engine: Engine, running: RunningArgs) -> Outcome<Box<dyn Executor>> {
    check_threads(running.threads)?;
    Ok(match engine {
        #[cfg(feature = "runtime")]
        Engine::Fast => Box::new(Runtime::new(running.threads)?.with_limits(MAX_ELEMENTS, running.max_steps)),
        Engine::Reference => Box::new(evaluator(running)),
    })
}

/// The executor asked for, that computes the integers of a module as its target does.
///
/// # Errors
/// As [`make`]; a target that is not known, or whose arithmetic this engine does not have.
pub fn for_module(
    engine: Engine,
    running: RunningArgs,
    module: &Module,
    target: &str,
) -> Outcome<Box<dyn Executor>> {
    if Phase::of(module) != Phase::Deployed {
        return make(engine, running);
    }
    let arithmetic = gs_algos::targets::find(target)?.arithmetic();
    match engine {
        Engine::Reference => Ok(Box::new(evaluator(running).with_arithmetic(arithmetic))),
        #[cfg(feature = "runtime")]
        Engine::Fast if arithmetic == Arithmetic::ONNX_RUNTIME_CPU => make(engine, running),
        #[cfg(feature = "runtime")]
        Engine::Fast => {
            Err(Failure::new(format!(
                "the fast engine computes integers as ONNX Runtime does; target `{target}` computes them otherwise"
            ))
            .help("run it with --engine reference"))
        }
    }
}

/// The fastest executor that computes integers in this arithmetic.
///
/// # Errors
/// As [`make`].
pub fn fastest(running: RunningArgs, arithmetic: Arithmetic) -> Outcome<Box<dyn Executor>> {
    if arithmetic == Arithmetic::ONNX_RUNTIME_CPU {
        return make(Engine::best(), running);
    }
    Ok(Box::new(evaluator(running).with_arithmetic(arithmetic)))
}
