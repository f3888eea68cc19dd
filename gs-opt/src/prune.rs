//! `gs-opt prune`: channels that matter least disappear.

use crate::cli::{Engine, PreprocessArgs, RunningArgs};
use crate::data::FORMS;
use crate::failure::{Failure, Outcome};
use crate::passes::registry;
use crate::progress::Progress;
use crate::report::write_json;
use crate::say::Words;
use crate::source::Samples;
use crate::{executor, files};
use clap::Args;
use gs_algos::prune::{PruneConfig, PruneReport, Sums, prune};
use gs_eval::DataSource;
use gs_ir::Module;
use gs_passes::manager::{PassContext, PassManager, Pipeline, read_options};
use gs_text::output;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Pruning.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// The network (.onnx or .gsir).
    pub model: PathBuf,
    /// How channels are ranked: l1, l2, group, bn, fpgm, lamp, random.
    #[arg(long, default_value = "l2")]
    pub criterion: String,
    /// Among what they compete: global or local.
    #[arg(long, default_value = "global")]
    pub scope: String,
    /// The part of the multiply-adds that stays, like 0.5.
    #[arg(long, value_name = "F")]
    pub keep_macs: Option<f64>,
    /// The part of the parameters that stays.
    #[arg(long, value_name = "F")]
    pub keep_params: Option<f64>,
    /// The part of the channels that stays.
    #[arg(long, value_name = "F")]
    pub keep_channels: Option<f64>,
    /// Counts of channels are multiples of this, or what they were (what runs fast on the target).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub round_to: Option<u64>,
    /// The least part of a group of channels that stays.
    #[arg(long, value_name = "F", default_value_t = 0.1)]
    pub min_keep: f64,
    /// Let residual branches go whole where they matter least.
    #[arg(long)]
    pub dead_branches: bool,
    /// Layers whose channels all stay: exact source names, globs, or op:KIND. May be given several times.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// The part of the channels of single layers that stays. May be given several times.
    #[arg(long = "layer", value_name = "GLOB=F")]
    pub layers: Vec<String>,
    /// The target whose fast counts of channels are taken.
    #[arg(long, default_value = "ort-cpu")]
    pub target: String,
    /// Seed of the criterion random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Measure the statistics of batch normalisation anew on these samples; labels are not needed.
    #[arg(long, value_name = "SPEC", help = format!("Measure the statistics of batch normalisation anew on these samples: {}", FORMS.join(", ")))]
    pub data: Option<String>,
    /// Use this many samples at most.
    #[arg(long, value_name = "N", requires = "data")]
    pub limit: Option<usize>,
    /// How data is brought into the form of the network's input.
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// How networks are run.
    #[command(flatten)]
    pub running: RunningArgs,
    /// Write the table of layers here, as JSON; - is standard output.
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Where to write: by suffix .onnx or .gsir; - is GSIR text on standard output.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the request, the network or the data; nothing is written then.
pub fn run(args: &PruneArgs) -> Outcome<()> {
    files::check_output(&args.output)?;
    if let Some(report) = args.report.as_deref().filter(|r| !files::Kind::is_stream(r)) {
        output::check(report)?;
    }
    let config = config(args)?;
    let mut module = files::read_to_run(&args.model)?;
    let samples = match &args.data {
        Some(spec) => Some(Samples::open(spec, args.limit, &args.preprocess, &module)?),
        None => None,
    };
    let report = prune(&mut module, &config)?;
    if let Some(samples) = &samples {
        recalibrate(args, &mut module, samples)?;
    }
    let stream = |path: &PathBuf| files::Kind::is_stream(path);
    let words = if stream(&args.output) || args.report.as_ref().is_some_and(stream) {
        Words::Err
    } else {
        Words::Out
    };
    print(&report, words);
    if let Some(path) = &args.report {
        write_json(path, &as_json(&report))?;
    }
    files::write(&module, &args.output, false)?;
    words.line(format_args!("wrote {}", args.output.display()));
    Ok(())
}

fn config(args: &PruneArgs) -> Outcome<PruneConfig> {
    let mut layers = Map::new();
    for text in &args.layers {
        let (name, part) =
            text.rsplit_once('=').and_then(|(n, p)| Some((n, p.parse::<f64>().ok()?))).ok_or_else(|| {
                Failure::usage(format!(
                    "--layer {text}: a layer and the part that stays are expected, like conv1=0.5"
                ))
            })?;
        layers.insert(name.to_owned(), json!(part));
    }
    let options = json!({
        "criterion": args.criterion,
        "scope": args.scope,
        "keep_macs": args.keep_macs,
        "keep_params": args.keep_params,
        "keep_channels": args.keep_channels,
        "round_to": args.round_to,
        "min_keep": args.min_keep,
        "dead_branches": args.dead_branches,
        "exclude": args.exclude,
        "layers": layers,
        "target": args.target,
        "seed": args.seed,
    });
    let Value::Object(options) = options else { return Ok(PruneConfig::default()) };
    read_options(&options).map_err(Failure::usage)
}

fn recalibrate(args: &PruneArgs, module: &mut Module, samples: &Samples) -> Outcome<()> {
    let executor = executor::make(Engine::best(), args.running)?;
    let mut progress = Progress::new();
    let mut tell = |what: &str, done: usize, total: usize| {
        progress.tell(what, done, total);
        true
    };
    let mut context = PassContext {
        executor: Some(executor.as_ref()),
        data: BTreeMap::from([("calib".to_owned(), samples as &dyn DataSource)]),
        progress: Some(&mut tell),
        ..PassContext::default()
    };
    let registry = registry();
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse("recalibrate-bn{data=calib}")?;
    manager.run(&pipeline, module, &mut context, &mut |_| {})?;
    progress.finish();
    Ok(())
}

fn print(report: &PruneReport, words: Words) {
    let arrow = |(a, b): (u64, u64)| if a == b { format!("{a}") } else { format!("{a} -> {b}") };
    words.line(format_args!("{:<32} {:>14} {:>14} {:>26}", "layer", "reads", "makes", "multiply-adds"));
    for layer in &report.layers {
        let (reads, makes, macs) = (arrow(layer.reads), arrow(layer.makes), arrow(layer.macs));
        let kept = layer.kept.as_ref().map_or(String::new(), |k| format!("  {k}"));
        words.line(format_args!("{:<32} {reads:>14} {makes:>14} {macs:>26}{kept}", layer.name));
    }
    let line = |what: &str, get: fn(&Sums) -> u64| {
        let (before, after, least) = (get(&report.before), get(&report.after), get(&report.least));
        let part = |n: u64| 100.0 * n as f64 / before.max(1) as f64;
        words.line(format_args!(
            "{what}: {before} -> {after} ({:.1} %; at the least {:.1} %)",
            part(after),
            part(least)
        ));
    };
    line("multiply-adds", |s| s.macs);
    line("parameters", |s| s.params);
    line("channels", |s| s.channels);
}

fn as_json(report: &PruneReport) -> Value {
    let sums = |s: &Sums| json!({ "macs": s.macs, "params": s.params, "channels": s.channels });
    json!({
        "layers": report.layers,
        "before": sums(&report.before),
        "after": sums(&report.after),
        "least": sums(&report.least),
        "round_to": report.round_to,
    })
}
