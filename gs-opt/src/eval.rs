//! `gs-opt eval`: runs a network over a data set.

use crate::cli::EvalArgs;
use crate::data::NpzWriter;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::say;
use crate::source::{Samples, array_of};
use crate::{executor, files};
use gs_eval::{DataSource, Executor, Stream, Tensor};
use gs_ir::{Module, Phase};
use std::ops::ControlFlow;
use std::time::Duration;

/// The target of networks that name none.
const DEFAULT_TARGET: &str = "ort-cpu";

/// What a run over a data set gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Samples that were run.
    pub samples: usize,
    /// Those whose largest output is at their label, where there are labels.
    pub right: Option<usize>,
    /// Time spent in the network.
    pub time: Duration,
}

impl Score {
    /// Share of samples that are right.
    pub fn top1(&self) -> Option<f64> {
        self.right.map(|r| r as f64 / self.samples.max(1) as f64)
    }

    /// Samples per second.
    pub fn rate(&self) -> f64 {
        self.samples as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the request, the network or the data.
pub fn run(args: &EvalArgs) -> Outcome<()> {
    if args.batch == 0 {
        return Err(Failure::usage("--batch 0: a batch has at least one sample"));
    }
    if let Some(outputs) = &args.outputs {
        files::check_file("--outputs", outputs)?;
    }
    let mut module = files::read_to_run(&args.model)?;
    let target = target(args, &module)?;
    lower(&mut module, &target)?;
    let samples = Samples::open(&args.data, args.limit, &args.preprocess, &module)?;
    let executor = executor::for_module(args.engine, args.running, &module, &target)?;
    let names = output_names(&module);
    let mut writer = args.outputs.as_deref().map(NpzWriter::new);
    let mut progress = Progress::new();
    let score = score(&module, executor.as_ref(), &samples, args.batch, &mut progress, &mut |results| {
        let Some(writer) = &mut writer else { return Ok(()) };
        for (name, tensor) in names.iter().zip(results) {
            writer.append(&array_of(name, tensor)?)?;
        }
        Ok(())
    })?;
    if let Some(writer) = writer {
        writer.finish()?;
    }
    progress.finish();
    print(args, &score);
    Ok(())
}

/// A frozen network (as read from a quantised file) is run in integers: it is lowered first.
///
/// # Errors
/// Where it cannot be lowered.
pub fn run_in_integers(module: &mut Module) -> Outcome<()> {
    let target = module.meta.target.clone().unwrap_or_else(|| DEFAULT_TARGET.to_owned());
    lower(module, &target)
}

fn lower(module: &mut Module, target: &str) -> Outcome<()> {
    match Phase::of(module) {
        Phase::Frozen => drop(gs_algos::deploy::to_integers(module, target)?),
        // A file may hold weights packed, behind nodes that unpack them: once, not at every run.
        Phase::Deployed | Phase::Float => drop(gs_passes::passes::fold_constants(module)),
        Phase::Instrumented => {}
    }
    Ok(())
}

/// The target asked for, which must be the one that the module was made for.
fn target(args: &EvalArgs, module: &Module) -> Outcome<String> {
    let made_for = module.meta.target.as_deref();
    let Some(asked) = &args.target else {
        let integers = matches!(Phase::of(module), Phase::Frozen | Phase::Deployed);
        let own = |name: &&str| integers && !gs_algos::targets::names().any(|n| n == *name);
        return match made_for.filter(own) {
            Some(own) => Err(Failure::new(format!(
                "the network was made for target `{own}`, which is not a shipped one"
            ))
            .help(format!("give its file: --target {own}.toml"))),
            None => Ok(made_for.unwrap_or(DEFAULT_TARGET).to_owned()),
        };
    };
    let name = gs_algos::targets::find(asked)?.name;
    match made_for.filter(|m| *m != name) {
        Some(made_for) => {
            Err(Failure::new(format!("the network was made for target `{made_for}`, not `{name}`")))
        }
        None => Ok(asked.clone()),
    }
}

/// The names of a network's outputs.
pub fn output_names(module: &Module) -> Vec<String> {
    let Some(main) = module.main() else { return Vec::new() };
    module.graph(main).result_names().map(|n| module.str(n).to_owned()).collect()
}

/// Runs a network over samples in batches, hands the outputs of each on, and counts what is right.
///
/// # Errors
/// Where the data does not fit the network, or it cannot be run.
pub fn score(
    module: &Module,
    executor: &dyn Executor,
    samples: &Samples,
    batch: usize,
    progress: &mut Progress,
    take: &mut dyn FnMut(&[Tensor]) -> Outcome<()>,
) -> Outcome<Score> {
    let Some(graph) = module.main() else { return Err(Failure::new("the network holds no graph")) };
    let labels = samples.labels()?;
    let total = samples.len();
    let mut score = Score { right: labels.as_ref().map(|_| 0), ..Score::default() };
    let mut failed = None;
    let stream = Stream { executor, module, graph, batch, limit: None, taps: &[] };
    let end = stream.run(samples, &mut |_, _| {}, &mut |fields, output| {
        let rows = fields.first().and_then(|(_, t)| t.dims().first()).copied().unwrap_or(1);
        let range = score.samples..score.samples + rows;
        if let (Some(right), Some(labels)) = (&mut score.right, &labels) {
            *right += count_right(output.results.first(), labels.get(range.clone()).unwrap_or(&[]));
        }
        score.samples = range.end;
        progress.tell("running", score.samples, total);
        match take(&output.results) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    score.time = end.time;
    failed.map_or(Ok(score), Err)
}

/// How many rows have their (first) largest element at the label.
fn count_right(scores: Option<&Tensor>, labels: &[i64]) -> usize {
    let Some(values) = scores.and_then(Tensor::to_f64s) else { return 0 };
    let width = values.len() / labels.len().max(1);
    if width == 0 {
        return 0;
    }
    let argmax = |row: &[f64]| {
        let mut best = 0;
        for (i, v) in row.iter().enumerate() {
            if *v > row[best] {
                best = i;
            }
        }
        best as i64
    };
    values.chunks_exact(width).zip(labels).filter(|(row, label)| argmax(row) == **label).count()
}

fn print(args: &EvalArgs, score: &Score) {
    if args.json {
        let object = serde_json::json!({
            "top1": score.top1(),
            "n": score.samples,
            "images_per_s": score.rate(),
            "seconds": score.time.as_secs_f64(),
        });
        say!("{object}");
        return;
    }
    match (score.right, score.top1()) {
        (Some(right), Some(top1)) => say!("top-1 {:.2} %  ({right} of {})", 100.0 * top1, score.samples),
        _ => say!("{} samples, without labels", score.samples),
    }
    say!("{:.0} images/s  ({:.2} s)", score.rate(), score.time.as_secs_f64());
}
