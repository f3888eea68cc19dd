//! The command line: what can be asked, in clap's terms.

use crate::data::FORMS;
use clap::{
    Arg, Args, Command as ClapCommand, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};
use std::path::PathBuf;

/// Makes neural networks smaller and faster: a compiler of rewrite passes over ONNX and GSIR files.
#[derive(Debug, Parser)]
#[command(
    name = "gs-opt",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "Files are ONNX (.onnx) or GSIR text (.gsir), by suffix; `-` is GSIR text on standard input or output.\n\
        Exit status: 0 fine, 1 the input or the request was wrong, 2 wrong usage, 130 stopped with Ctrl-C."
)]
pub struct Cli {
    /// What to do; without a word, run passes over a file.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Running passes over a file.
    #[command(flatten)]
    pub passes: PassArgs,
}

/// The command line as it is parsed.
pub fn command() -> ClapCommand {
    taking_negative(Cli::command())
}

/// Reads the command line of the process; clap itself answers wrong usage, with status 2.
pub fn parse() -> Cli {
    let mut command = command();
    let matches = command.clone().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.format(&mut command).exit())
}

/// A negative number after an option is its value, about which there is more to say than that it is no option.
fn taking_negative(command: ClapCommand) -> ClapCommand {
    let option = |arg: &Arg| arg.get_long().is_some() && arg.get_action().takes_values();
    let one = |arg: Arg| if option(&arg) { arg.allow_negative_numbers(true) } else { arg };
    command.mut_args(one).mut_subcommands(taking_negative)
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Quantise a trained network after training, and deploy it.
    Quantize(QuantizeArgs),
    /// Drop the channels that matter least, through every coupling.
    Prune(crate::prune::PruneArgs),
    /// Show which channels go together, and which cannot go.
    Groups(crate::groups::GroupsArgs),
    /// Run a network over a data set: accuracy, speed, outputs.
    Eval(EvalArgs),
    /// Train a network, with a compression algorithm or without.
    #[cfg(feature = "runtime")]
    Train(TrainArgs),
    /// (This program was built without training.)
    #[cfg(not(feature = "runtime"))]
    Train {
        /// What it would be asked.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Make the network to deploy of one that was trained.
    Convert(ConvertArgs),
    /// List the passes that pipelines may name.
    Passes(LookupArgs),
    /// List the operators of the IR.
    Ops(LookupArgs),
    /// List the shipped rewrite rules, or what rules may call.
    Rules(RulesArgs),
    /// List the algorithms, or the options of some.
    Algos(LookupArgs),
    /// List the targets.
    Targets(LookupArgs),
    /// Explain a reason code of the ledger.
    Explain {
        /// The code, like no-integer-form; without one, all are listed.
        code: Option<String>,
    },
    /// Print a completion script for a shell.
    #[command(
        after_help = "For bash: gs-opt completions bash > ~/.local/share/bash-completion/completions/gs-opt"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a man page.
    #[command(after_help = "To read it: gs-opt man | man -l -")]
    Man {
        /// The command that it is about; without one, the tool.
        command: Option<String>,
    },
}

/// Running passes over a file.
#[derive(Debug, Args)]
pub struct PassArgs {
    /// The network: .onnx, .gsir, or - for GSIR text on standard input.
    pub file: Option<PathBuf>,
    /// The passes, like `fold-bn,simqat{act={bits=8}},calibrate{data=calib}` (`gs-opt passes` lists them).
    #[arg(long = "pass", value_name = "PIPELINE", default_value = "", hide_default_value = true)]
    pub pipeline: String,
    /// Where to write: by suffix .onnx or .gsir; - or nothing: GSIR text on standard output.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// A data source for passes, by name.
    #[arg(long = "data", value_name = "NAME=SPEC")]
    pub data: Vec<String>,
    /// How data is brought into the form of the network's input.
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// What to show on the way.
    #[command(flatten)]
    pub show: ShowArgs,
    /// How networks are run.
    #[command(flatten)]
    pub running: RunningArgs,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// At most N rewrites (to bisect a bad one).
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,
    /// Leave weights and provenance out of GSIR text.
    #[arg(long)]
    pub brief: bool,
}

/// What to show of a run of passes.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Verify the module after each pass.
    #[arg(long)]
    pub verify_each: bool,
    /// Print how long each pass took.
    #[arg(long)]
    pub timing: bool,
    /// Print the counters of each pass.
    #[arg(long)]
    pub statistics: bool,
    /// Print the module before these passes (names, or all).
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pub print_ir_before: Vec<String>,
    /// Print the module after these passes (names, or all).
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pub print_ir_after: Vec<String>,
    /// Print the module after each pass that changed it.
    #[arg(long)]
    pub print_ir_changed: bool,
    /// Write the module after each pass into this folder.
    #[arg(long, value_name = "DIR")]
    pub dump_dir: Option<PathBuf>,
    /// Say why things were or were not done, place by place.
    #[arg(long)]
    pub remarks: bool,
    /// If a pass fails, write the module before it and the remaining pipeline here.
    #[arg(long, value_name = "FILE")]
    pub reproducer: Option<PathBuf>,
}

/// How networks are run.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunningArgs {
    /// Threads (all processors).
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Steps of a batch in the reference evaluator, which also runs the loops of the fast engine: a step is about one
    /// number computed. A network that takes more is refused, since a loop may be endless.
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000_000)]
    pub max_steps: u64,
}

/// Bringing data into the form of the network's input.
#[derive(Debug, Args)]
pub struct PreprocessArgs {
    /// Means of the channels: (pixel/255 - mean) / std. Taken from the model's metadata where it says so.
    #[arg(long, value_name = "A,B,C", requires = "std", allow_hyphen_values = true)]
    pub mean: Option<String>,
    /// Standard deviations of the channels.
    #[arg(long, value_name = "A,B,C", requires = "mean")]
    pub std: Option<String>,
    /// Pixels as they are, 0 to 255.
    #[arg(long, conflicts_with_all = ["mean", "std"])]
    pub raw255: bool,
}

/// Quantising after training.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// The trained network (.onnx or .gsir).
    pub model: PathBuf,
    /// Data to choose ranges from.
    #[arg(long, value_name = "SPEC", help = format!("Data to choose ranges from: {}", FORMS.join(", ")))]
    pub data: String,
    /// Use this many samples at most.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How data is brought into the form of the network's input.
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// How ranges are chosen: minmax, percentile, entropy, mse; with a parameter as in `percentile{p=99.9}`.
    #[arg(long, value_name = "KIND")]
    pub observer: Option<String>,
    /// The target, or the path of a target file.
    #[arg(long, default_value = "ort-cpu")]
    pub target: String,
    /// How integers are written.
    #[arg(long, value_enum, default_value_t = FormArg::Qdq)]
    pub format: FormArg,
    /// Width of weights in bits, 2 to 8; those of at most 4 are stored packed.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub weight_bits: u8,
    /// Width of activations in bits, 2 to 8.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub act_bits: u8,
    /// Width of the first and last layers, and of what they and additions read and write; else as the rest.
    #[arg(long, value_name = "N")]
    pub edge_bits: Option<u8>,
    /// Keep layers in float: exact source names, globs, or op:KIND. May be given several times.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Write the whole ledger here, as JSON; - is standard output.
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Fail if less than this share of the multiply-adds runs in integers (0 to 1).
    #[arg(long, value_name = "F")]
    pub require_coverage: Option<f64>,
    /// How networks are run.
    #[command(flatten)]
    pub running: RunningArgs,
    /// Say why each quantiser is there.
    #[arg(long)]
    pub remarks: bool,
    /// Where to write: by suffix .onnx or .gsir; - is GSIR text on standard output.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// How integers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormArg {
    /// Portable: float operators between quantize and dequantize, which runtimes fuse.
    Qdq,
    /// Integer operators; ONNX Runtime only.
    Qoperator,
}

/// Running a network over a data set.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The network (.onnx or .gsir).
    pub model: PathBuf,
    /// The data.
    #[arg(long, value_name = "SPEC", help = format!("The data: {}", FORMS.join(", ")))]
    pub data: String,
    /// Use this many samples at most.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How data is brought into the form of the network's input.
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// What runs the network.
    #[arg(long, value_enum, default_value_t = Engine::best())]
    pub engine: Engine,
    /// The target in whose arithmetic integers are computed: a name or a .toml file (what the network was made for).
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Write each output of the network, by name, to this .npz file.
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: Option<PathBuf>,
    /// Samples per batch.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch: usize,
    /// Print one JSON object instead of words.
    #[arg(long)]
    pub json: bool,
    /// How networks are run.
    #[command(flatten)]
    pub running: RunningArgs,
}

/// Training.
#[cfg(feature = "runtime")]
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The network (.onnx or .gsir).
    pub model: PathBuf,
    /// The algorithm with its options, like `simqat{weight={bits=4}}` (`gs-opt algos` lists them); none: float.
    #[arg(long, value_name = "ALGORITHM")]
    pub algorithm: Option<String>,
    /// Let it learn from what it was before the algorithm changed it, not from labels alone; temperature and the part of
    /// the loss that is not of labels may follow.
    #[arg(long, value_name = "temperature=4,weight=0.9", num_args = 0..=1, default_missing_value = "")]
    pub distill: Option<String>,
    /// What it is changed for: a target by name, or the path of a target file (what the algorithm says).
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// The samples to train on.
    #[arg(long, value_name = "SPEC", help = format!("The samples to train on: {}", FORMS.join(", ")))]
    pub data: String,
    /// Samples to measure the accuracy on after each epoch and at the end. Nothing is chosen by it.
    #[arg(long, value_name = "SPEC")]
    pub val: Option<String>,
    /// Train on this many samples at most.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How data is brought into the form of the network's input.
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// Rounds over the samples.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub epochs: usize,
    /// Samples of a step; 1 where the network takes one at a time (`--batch 1`).
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub batch: usize,
    /// Learning rate.
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = not_negative)]
    pub lr: f32,
    /// How the learning rate changes over the run.
    #[arg(long, value_enum, default_value_t = ScheduleArg::Cosine)]
    pub schedule: ScheduleArg,
    /// Steps over which the learning rate rises at first.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub warmup: i64,
    /// Epochs after which the learning rate changes, for --schedule step and milestones.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub milestones: Vec<f64>,
    /// What it is multiplied by then.
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = above_zero)]
    pub gamma: f32,
    /// How parameters are changed.
    #[arg(long, value_enum, default_value_t = OptimiserArg::Sgd)]
    pub optimiser: OptimiserArg,
    /// Momentum of SGD.
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = below_one)]
    pub momentum: f32,
    /// Decay of the weights of layers.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = not_negative)]
    pub weight_decay: f32,
    /// Part of the target that is spread over all classes.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = below_one)]
    pub label_smoothing: f32,
    /// Move pictures by up to N pixels either way.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub crop: usize,
    /// Mirror half of the pictures.
    #[arg(long)]
    pub flip: bool,
    /// Measure the statistics of batch normalisation anew at the end, on so many batches of the samples.
    #[arg(long, value_name = "BATCHES", value_parser = clap::value_parser!(u32).range(1..))]
    pub recalibrate: Option<u32>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What runs the steps.
    #[arg(long, value_enum, default_value_t = Engine::best())]
    pub engine: Engine,
    /// Threads (all processors). Their number does not change the result.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The folder for checkpoint, log and trained network: a new one, or one without such files.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Go on with the run in the folder.
    #[arg(long)]
    pub resume: bool,
    /// Seconds between checkpoints (60).
    #[arg(long, value_name = "S")]
    pub save_every: Option<u64>,
}

/// How parameters are changed.
#[cfg(feature = "runtime")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OptimiserArg {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with decoupled decay.
    Adamw,
}

/// How the learning rate changes over a run.
#[cfg(feature = "runtime")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScheduleArg {
    /// Not at all.
    Constant,
    /// Along half a cosine to 0.
    Cosine,
    /// Along a line to 0.
    Linear,
    /// Times --gamma every --milestones N epochs.
    Step,
    /// Times --gamma after each of --milestones A,B,... epochs.
    Milestones,
}

/// Making the network to deploy.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The folder of a training run, or the trained network.
    pub trained: PathBuf,
    /// Take the weights from here: they were trained elsewhere, under the names of the network's globals. Needed is each
    /// that is param or state and that the graph reads, ranges too. Of a .gsir what is needed is taken.
    #[arg(long, value_name = "X.safetensors")]
    pub weights: Option<PathBuf>,
    /// How integers are written.
    #[arg(long, value_enum, default_value_t = FormArg::Qdq)]
    pub format: FormArg,
    /// Write what became of each operation and parameter here, as JSON; - is standard output.
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// The network before it was changed, which the report compares with (that of the run).
    #[arg(long, value_name = "NET", requires = "report")]
    pub float: Option<PathBuf>,
    /// Where to write: .onnx or .gsir.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// What runs a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The planned executor with kernels for this processor.
    #[cfg(feature = "runtime")]
    Fast,
    /// The reference evaluator: clear loops.
    Reference,
}

impl Engine {
    /// The fastest that was built in.
    pub fn best() -> Self {
        #[cfg(feature = "runtime")]
        return Engine::Fast;
        #[cfg(not(feature = "runtime"))]
        Engine::Reference
    }
}

/// Looking things up.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// Show these only, in full.
    pub names: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Looking rules up.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// Which, and how they are shown.
    #[command(flatten)]
    pub lookup: LookupArgs,
    /// The conditions and functions that rules may call, instead of rules.
    #[arg(long)]
    pub functions: bool,
}

/// A number that is not 0.
#[cfg(feature = "runtime")]
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        other => other.map_err(|e: std::num::ParseIntError| e.to_string()),
    }
}

/// A finite number of which something holds.
#[cfg(feature = "runtime")]
fn number(text: &str, holds: fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|x: &f32| x.is_finite() && holds(*x))
        .ok_or_else(|| format!("{expected} is expected"))
}

#[cfg(feature = "runtime")]
fn not_negative(text: &str) -> Result<f32, String> {
    number(text, |x| x >= 0.0, "a number of 0 or more")
}

#[cfg(feature = "runtime")]
fn above_zero(text: &str) -> Result<f32, String> {
    number(text, |x| x > 0.0, "a number above 0")
}

#[cfg(feature = "runtime")]
fn below_one(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..1.0).contains(&x), "a number of 0 or more and below 1")
}
