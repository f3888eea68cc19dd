//! `gs-opt train` and `gs-opt convert`: training with an algorithm, and the network that is deployed.

use crate::cli::{ConvertArgs, Engine as EngineArg, OptimiserArg, ScheduleArg, TrainArgs};
use crate::eval::score;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::say;
use crate::source::Samples;
use crate::{executor, files, passes};
use gs_algos::algorithm::{self, Algorithm, RunLength};
use gs_eval::{DataSource, Evaluator, Executor};
use gs_ir::Module;
use gs_passes::manager::{PassContext, PassError, PassManager, Pipeline, Step};
use gs_passes::training::{ParamGroup, drop_training};
use gs_runtime::Runtime;
use gs_runtime::trainer::{
    Augment, Checkpoint, CheckpointError, Engine, Next, StepDone, TrainError, TrainOptions, Trainer,
};
use gs_text::output::atomic_write;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Checkpoints are at least so far apart, but for the last.
const BETWEEN_SAVES: Duration = Duration::from_secs(60);
const CHECKPOINT: &str = "checkpoint.safetensors";
const TRAINED: &str = "trained.gsir";
const LOG: &str = "log.jsonl";

/// Runs `train`.
///
/// # Errors
/// Whatever is wrong with the request, the network, the data or the training.
pub fn run(args: &TrainArgs) -> Outcome<()> {
    let mut module = files::read(&args.model)?;
    let samples = Samples::open(&args.data, args.limit, &args.preprocess, &module)?.for_training();
    let held_out = match &args.val {
        Some(spec) => Some(Samples::open(spec, None, &args.preprocess, &module)?),
        None => None,
    };
    let checkpoint = args.output.join(CHECKPOINT);
    let from = resumed(args, &checkpoint)?;
    let engine = TrainEngine::make(args.engine, args.threads)?;
    let executor = engine.executor();
    let mut progress = Progress::new();
    prepare(args, &mut module, &samples, executor, &mut progress)?;

    let options = TrainOptions {
        epochs: args.epochs,
        batch: args.batch,
        seed: args.seed,
        augment: Augment { crop: args.crop, flip: args.flip },
        engine: executor::name(args.engine).to_owned(),
    };
    let mut trainer = Trainer { engine: engine.engine(), options, callbacks: callbacks(args)? };
    let batches = samples.len().checked_div(args.batch).unwrap_or(0);
    if batches == 0 {
        let error = TrainError::TooFew { samples: samples.len(), batch: args.batch };
        return Err(Failure::new(error.to_string()));
    }
    fs::create_dir_all(&args.output)
        .map_err(|e| Failure::new(format!("{}: it cannot be made a folder: {e}", args.output.display())))?;
    let mut log = Log::open(&args.output.join(LOG), from.as_ref(), args.batch)?;
    let began = Instant::now();
    let mut saved = Instant::now();
    trainer.run(
        &mut module,
        &samples,
        from.as_ref(),
        &mut |done| {
            progress.tell("training", done.step as usize, done.steps as usize);
            log.step(done);
            let last = done.step == done.steps;
            if last || saved.elapsed() >= BETWEEN_SAVES {
                saved = Instant::now();
                return Next::Save;
            }
            Next::Go
        },
        &mut |c| save(c, &checkpoint),
    )?;
    progress.finish();
    log.finish()?;
    let trained = args.output.join(TRAINED);
    files::write(&module, &trained, false)?;
    say!("trained {} epochs in {:.1} s", args.epochs, began.elapsed().as_secs_f64());
    if let Some(held_out) = held_out {
        let result = score(&module, executor, &held_out, 64, &mut progress, &mut |_| Ok(()))?;
        progress.finish();
        if let Some(top1) = result.top1() {
            say!("top-1 on {} held-out samples: {:.2} %", held_out.len(), 100.0 * top1);
        }
    }
    say!(
        "wrote {}; gs-opt convert {} -o out.onnx makes the network to deploy",
        trained.display(),
        args.output.display()
    );
    Ok(())
}

/// The engine that was asked for.
enum TrainEngine {
    Fast(Runtime),
    Reference(Evaluator),
}

impl TrainEngine {
    fn make(engine: EngineArg, threads: Option<usize>) -> Outcome<Self> {
        if threads == Some(0) {
            return Err(Failure::usage("--threads 0: at least one thread is needed"));
        }
        Ok(match engine {
            EngineArg::Fast => Self::Fast(Runtime::new(threads)?),
            EngineArg::Reference => Self::Reference(Evaluator::new()),
        })
    }

    fn engine(&self) -> Engine<'_> {
        match self {
            Self::Fast(runtime) => Engine::Runtime(runtime),
            Self::Reference(evaluator) => Engine::Executor(evaluator),
        }
    }

    fn executor(&self) -> &dyn Executor {
        match self {
            Self::Fast(runtime) => runtime,
            Self::Reference(evaluator) => evaluator,
        }
    }
}

/// The checkpoint to go on from, if that was asked for; a folder with a run in it is not overwritten otherwise.
fn resumed(args: &TrainArgs, path: &Path) -> Outcome<Option<Checkpoint>> {
    match (args.resume, path.exists()) {
        (false, false) => Ok(None),
        (false, true) => Err(Failure::new(format!("{} holds a run already", args.output.display()))
            .help("--resume goes on with it; another folder begins a new one")),
        (true, false) => {
            Err(Failure::new(format!("{}: there is no checkpoint to go on from", path.display()))
                .help("leave --resume out to begin"))
        }
        (true, true) => {
            let bytes = fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            let read = Checkpoint::from_bytes(&bytes);
            Ok(Some(read.map_err(|e| Failure::new(format!("{}: {e}", path.display())))?))
        }
    }
}

fn save(checkpoint: &Checkpoint, path: &Path) -> Result<(), CheckpointError> {
    let bytes = checkpoint.to_bytes()?;
    atomic_write(path, |out: &mut dyn Write| -> Outcome<()> {
        out.write_all(&bytes).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
    })
    .map_err(|e| CheckpointError::Write(e.to_string()))
}

/// The algorithm that was asked for.
fn algorithm_of(text: &str) -> Outcome<Box<dyn Algorithm>> {
    let pipeline = Pipeline::parse(text)?;
    let [step] = &pipeline.steps[..] else {
        return Err(Failure::usage(format!("`{text}` is not one algorithm")).help("gs-opt algos lists them"));
    };
    let Some(info) = algorithm::find(&step.name) else {
        let names: Vec<&str> = algorithm::ALGORITHMS.iter().map(|a| a.name).collect();
        return Err(Failure::new(format!("no algorithm is named `{}`", step.name))
            .help(format!("there are: {}", names.join(", "))));
    };
    (info.make)(&step.options).map_err(|e| Failure::new(format!("options of `{}`: {e}", step.name)))
}

fn callbacks(args: &TrainArgs) -> Outcome<Vec<Box<dyn gs_algos::callback::Callback>>> {
    args.algorithm.as_deref().map_or(Ok(Vec::new()), |text| Ok(algorithm_of(text)?.callbacks()))
}

/// Brings the network into the form that is trained: the algorithm applied, the graph of a step made.
fn prepare(
    args: &TrainArgs,
    module: &mut Module,
    samples: &Samples,
    executor: &dyn Executor,
    progress: &mut Progress,
) -> Outcome<()> {
    let registry = passes::registry();
    let mut tell = |what: &str, done: usize, total: usize| {
        progress.tell(what, done, total);
        true
    };
    let few = samples.first(512);
    let mut context = PassContext {
        executor: Some(executor),
        data: BTreeMap::from([("calib".to_owned(), &few as &dyn DataSource)]),
        seed: args.seed,
        progress: Some(&mut tell),
        ..PassContext::default()
    };
    let manager = PassManager { registry: &registry, verify_each: true };
    let run = |pipeline: &Pipeline, module: &mut Module, context: &mut PassContext<'_>| {
        manager.run(pipeline, module, context, &mut |_| {}).map(|_| ())
    };
    let algorithm = args.algorithm.as_deref().map(|text| Ok::<_, Failure>((text, algorithm_of(text)?)));
    let algorithm = algorithm.transpose()?;
    let failed = |text: &str, e: PassError| Failure::new(format!("{text}: {e}"));
    if let Some((text, algorithm)) = &algorithm {
        run(&Pipeline::parse("canonicalize,fold-bn")?, module, &mut context)?;
        algorithm.apply(module, &mut context).map_err(|e| failed(text, e))?;
        module.meta.algorithm = Some((*text).to_owned());
        run(&Pipeline::parse("calibrate{data=calib}")?, module, &mut context)?;
    }
    let steps_per_epoch = samples.len().checked_div(args.batch).unwrap_or(0) as u64;
    let length = RunLength { steps: (steps_per_epoch * args.epochs as u64).max(1), steps_per_epoch };
    run(&one_pass("loss", json!({ "label_smoothing": args.label_smoothing })), module, &mut context)?;
    let mut groups = Vec::new();
    if let Some((text, algorithm)) = &algorithm {
        algorithm.prepare_training(module, length).map_err(|e| failed(text, e))?;
        groups = algorithm.param_groups(module);
    }
    run(&one_pass("grad", json!({})), module, &mut context)?;
    run(&one_pass("update", update_options(args, length, &groups)), module, &mut context)?;
    Ok(())
}

/// A pipeline of one pass.
fn one_pass(name: &str, options: Value) -> Pipeline {
    let options = if let Value::Object(o) = options { o } else { Map::new() };
    Pipeline { steps: vec![Step { name: name.to_owned(), options, at: 0 }] }
}

/// The options of the pass `update`.
fn update_options(args: &TrainArgs, length: RunLength, groups: &[ParamGroup]) -> Value {
    let optimiser = match args.optimiser {
        OptimiserArg::Sgd => json!({ "sgd": { "momentum": args.momentum } }),
        OptimiserArg::Adamw => json!({ "adamw": {} }),
    };
    let schedule = match args.schedule {
        ScheduleArg::Constant => json!("constant"),
        ScheduleArg::Cosine => json!({ "cosine": {} }),
        ScheduleArg::Linear => json!({ "linear": {} }),
    };
    json!({
        "optimiser": optimiser, "lr": args.lr, "schedule": schedule, "weight_decay": args.weight_decay,
        "steps": length.steps, "warmup": args.warmup, "groups": groups,
    })
}

/// One line of JSON for every hundred steps and the last: what the run went through.
struct Log {
    file: File,
    batch: usize,
    began: Instant,
    steps: u64,
    loss: f64,
    right: f64,
    failed: Option<std::io::Error>,
}

impl Log {
    fn open(path: &Path, from: Option<&Checkpoint>, batch: usize) -> Outcome<Self> {
        let file = match from {
            Some(_) => OpenOptions::new().append(true).create(true).open(path),
            None => File::create(path),
        };
        let file =
            file.map_err(|e| Failure::new(format!("{}: it cannot be written: {e}", path.display())))?;
        Ok(Self { file, batch, began: Instant::now(), steps: 0, loss: 0.0, right: 0.0, failed: None })
    }

    fn step(&mut self, done: &StepDone<'_>) {
        self.steps += 1;
        self.loss += done.loss;
        self.right += done.accuracy.unwrap_or(0.0);
        if self.steps < 100 && done.step < done.steps {
            return;
        }
        let n = self.steps as f64;
        let speed = n * self.batch as f64 / self.began.elapsed().as_secs_f64().max(1e-9);
        let mut line = json!({
            "step": done.step, "epoch": done.epoch, "loss": self.loss / n, "images_per_second": speed.round(),
        });
        if let (Some(fields), Some(_)) = (line.as_object_mut(), done.accuracy) {
            fields.insert("accuracy".to_owned(), json!(self.right / n));
        }
        if let Some(fields) = line.as_object_mut() {
            fields.extend(done.metrics.iter().map(|(k, v)| (k.clone(), json!(v))));
        }
        self.failed = self.failed.take().or_else(|| writeln!(self.file, "{line}").err());
        say!(
            "step {:>6}/{}  loss {:.4}  accuracy {:.2} %  {speed:.0} images/s",
            done.step,
            done.steps,
            self.loss / n,
            100.0 * self.right / n
        );
        (self.steps, self.loss, self.right, self.began) = (0, 0.0, 0.0, Instant::now());
    }

    fn finish(self) -> Outcome<()> {
        self.failed.map_or(Ok(()), |e| Err(Failure::new(format!("{LOG}: {e}"))))
    }
}

/// Runs `convert`.
///
/// # Errors
/// A folder without a trained network, or a network that cannot be converted.
pub fn convert(args: &ConvertArgs) -> Outcome<()> {
    files::check_output(&args.output)?;
    let path = if args.trained.is_dir() { args.trained.join(TRAINED) } else { args.trained.clone() };
    let mut module = files::read(&path)?;
    match module.meta.algorithm.clone() {
        Some(text) => {
            let algorithm = algorithm_of(&text)?;
            algorithm
                .convert(&mut module, &mut PassContext::default())
                .map_err(|e| Failure::new(format!("{text}: {e}")))?;
        }
        None => drop_training(&mut module),
    }
    files::write(&module, &args.output, false)?;
    say!("wrote {}", args.output.display());
    Ok(())
}
