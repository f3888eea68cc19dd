//! `gs-opt train`: a network is trained, with an algorithm or in float.

mod data;
mod engine;
mod folder;
mod held_out;
mod interrupt;
mod log;
mod network;
mod prepare;
mod request;
mod saved;

use crate::cli::TrainArgs;
use crate::convert::{BEGAN_WITH, TRAINED};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::source::Samples;
use crate::words::counted;
use crate::{executor, files, say, warn};
use engine::TrainEngine;
use folder::RunFolder;
use gs_algos::callback::Callback;
use gs_algos::ledger::name_operations;
use gs_algos::recalibrate::{RecalibrateOptions, Recalibration};
use gs_eval::DataSource;
use gs_runtime::trainer::{
    Augment, Changed, Checkpoint, CheckpointError, Next, TrainError, TrainOptions, Trainer,
};
use held_out::HeldOut;
use interrupt::Interrupt;
use log::Log;
use network::Asked;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Checkpoints are at least so far apart, but for the last.
const BETWEEN_SAVES: Duration = Duration::from_secs(60);

/// Runs `train`.
///
/// # Errors
/// Whatever is wrong with the request, the network, the data or the training.
pub fn run(args: &TrainArgs) -> Outcome<()> {
    let Asked { mut module, algorithm, labels } = network::asked(args)?;
    // Text may leave source names out; without them nothing could say later what became of an operation.
    name_operations(&mut module);
    let samples = Samples::open(&args.data, args.limit, &args.preprocess, &module)?.for_training();
    let samples = Arc::new(samples);
    let held_out = match &args.val {
        Some(spec) => Some(Arc::new(Samples::open_beside(spec, &args.preprocess, &module)?)),
        None => None,
    };
    request::check(args, &module, &samples, labels)?;
    if let Some(held_out) = &held_out {
        request::check_held_out(&module, held_out)?;
    }
    let resumed = match args.resume {
        true => Some(RunFolder::resume(&args.output)?),
        false => RunFolder::check_new(&args.output).map(|()| None)?,
    };
    let engine = Arc::new(TrainEngine::make(args.engine, args.threads)?);
    let began_with = module.clone();
    let mut progress = Progress::new();
    prepare::prepare(
        args,
        algorithm.as_ref(),
        labels,
        &mut module,
        &samples,
        engine.executor(),
        &mut progress,
    )?;
    progress.finish();
    request::notes(args, &module, &samples).iter().for_each(|note| warn!("note: {note}"));

    let mut callbacks = algorithm.as_ref().map_or(Vec::new(), |a| a.algorithm.callbacks());
    if let Some(samples) = &held_out {
        // Last: what it sees is what the algorithm leaves.
        callbacks.push(Box::new(HeldOut { engine: engine.clone(), samples: samples.clone() }));
    }
    callbacks.extend(recalibration(args, &engine, &samples));
    let (folder, from) = match resumed {
        Some((folder, checkpoint)) => {
            // Before anything of the folder changes.
            checkpoint.check(&module, &options(args), samples.as_ref()).map_err(TrainError::from)?;
            (folder, Some(checkpoint))
        }
        None => {
            let folder = RunFolder::begin(&args.output)?;
            files::write_form(&began_with, &args.output.join(BEGAN_WITH))?;
            (folder, None)
        }
    };
    drop(began_with);
    let began_at = from.as_ref().map(|c| c.step);
    let mut log = Log::open(&args.output, began_at, args.batch)?;
    let began = Instant::now();
    train(args, &engine, callbacks, &mut module, &samples, from.as_ref(), &folder, &mut log)?;
    let trained = args.output.join(TRAINED);
    files::write(&module, &trained, false)?;
    // After the network: a row that could not be written is not worth the result.
    log.finish()?;
    say!("{}", in_words(args, &samples, began_at, began.elapsed()));
    if let Some(held_out) = held_out
        && let Some(top1) = held_out::top1(&module, &engine, &held_out)?
    {
        say!("top-1 on {} held-out samples: {:.2} %", held_out.len(), 100.0 * top1);
    }
    say!(
        "wrote {}; gs-opt convert {} -o out.onnx makes the network to deploy",
        trained.display(),
        args.output.display()
    );
    Ok(())
}

/// What measures the statistics of batch normalisation anew, on pictures that are changed as those of the next epoch
/// would be.
fn recalibration(
    args: &TrainArgs,
    engine: &Arc<TrainEngine>,
    samples: &Arc<Samples>,
) -> Option<Box<dyn Callback>> {
    let options = RecalibrateOptions { batches: args.recalibrate? as usize, batch: args.batch };
    let augment = Augment { crop: args.crop, flip: args.flip };
    let data = Arc::new(Changed::new(samples.clone(), args.seed, args.epochs, augment));
    Some(Box::new(Recalibration { executor: engine.clone(), data, options }))
}

fn options(args: &TrainArgs) -> TrainOptions {
    TrainOptions {
        epochs: args.epochs,
        batch: args.batch,
        seed: args.seed,
        augment: Augment { crop: args.crop, flip: args.flip },
        engine: executor::name(args.engine).to_owned(),
        settings: prepare::settings(args),
    }
}

/// What was done, at the end.
fn in_words(args: &TrainArgs, samples: &Samples, began_at: Option<u64>, took: Duration) -> String {
    let epochs = counted(args.epochs as u64, "epoch");
    let (steps, seconds) = (prepare::length(args, samples).steps, took.as_secs_f64());
    match began_at {
        None => format!("trained {epochs} in {seconds:.1} s"),
        Some(step) if step >= steps => {
            format!("the run was over already, after {epochs}; nothing was left to do")
        }
        Some(step) => format!("trained steps {} to {steps} of {epochs} in {seconds:.1} s", step + 1),
    }
}

#[allow(clippy::too_many_arguments)] // All of a run, each used once.
fn train(
    args: &TrainArgs,
    engine: &TrainEngine,
    callbacks: Vec<Box<dyn Callback>>,
    module: &mut gs_ir::Module,
    samples: &Samples,
    from: Option<&Checkpoint>,
    folder: &RunFolder,
    log: &mut Log,
) -> Outcome<()> {
    let between = args.save_every.map_or(BETWEEN_SAVES, Duration::from_secs);
    let per_epoch = prepare::length(args, samples).steps_per_epoch;
    let mut progress = Progress::new();
    let mut saved = Instant::now();
    let interrupt = Interrupt::watch();
    let mut stopped = None;
    let mut trainer = Trainer { engine: engine.engine(), options: options(args), callbacks };
    let done = trainer.run(
        module,
        samples,
        from,
        &mut |done| {
            progress.tell("training", done.step as usize, done.steps as usize);
            log.step(done, per_epoch);
            if done.step == done.steps {
                return Next::Save;
            }
            let next = match interrupt.asked() {
                true => Next::Stop,
                false if saved.elapsed() >= between => Next::Save,
                false => return Next::Go,
            };
            stopped = (next == Next::Stop).then_some((done.step, done.steps));
            saved = Instant::now();
            log.saving(done);
            next
        },
        &mut |checkpoint| {
            saved::save(checkpoint, &args.output)?;
            folder.keep();
            Ok(())
        },
    );
    progress.finish();
    done.map_err(|error| failed(error, folder))?;
    match stopped {
        None => Ok(()),
        Some((step, steps)) => Err(Failure::stopped(format!(
            "stopped; saved to step {step} of {steps}; the same command with --resume goes on"
        ))),
    }
}

/// An error of training, with what becomes of the run.
fn failed(error: TrainError, folder: &RunFolder) -> Failure {
    let written = matches!(error, TrainError::Checkpoint(CheckpointError::Write(_)));
    let failure = Failure::from(error);
    if !written {
        return failure;
    }
    let mut help = failure.help.clone().unwrap_or_else(|| "choose another place".to_owned());
    if folder.is_kept() {
        help += "; --resume then goes on from the last checkpoint that was written";
    }
    failure.help(help)
}
