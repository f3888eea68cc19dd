//! `gs-opt convert`: the network that is deployed of one that was trained, here or elsewhere.

use crate::algorithms;
use crate::cli::{ConvertArgs, FormArg};
use crate::failure::{Failure, Outcome};
use crate::report::{print_coverage, print_ledger, write_report};
use crate::say::Words;
use crate::{files, warn, weights};
use gs_algos::algorithm::freeze_and_deploy;
use gs_algos::deploy::{Form, to_integers};
use gs_algos::ledger::{Fate, Ledger, name_operations};
use gs_ir::{Module, Phase};
use gs_passes::manager::{PassContext, PassReport};
use gs_passes::training::drop_training;
use gs_text::output;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The trained network in the folder of a run.
pub const TRAINED: &str = "trained.gsir";
/// The network that a run began with, without its weights.
pub const BEGAN_WITH: &str = "network.gsir";

/// The checkpoint of a run.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

/// The target of networks that name none.
const DEFAULT_TARGET: &str = "ort-cpu";

/// Runs `convert`.
///
/// # Errors
/// A folder without a trained network, weights that do not fit, or a network that cannot be converted.
pub fn run(args: &ConvertArgs) -> Outcome<()> {
    check(args)?;
    let path = trained(args)?;
    let before = match (&args.report, before(args)) {
        (Some(_), path) => Some(files::read(&path?)?),
        // Without a report a share is said, for which the converted network will do too.
        (None, path) => path.ok().and_then(|p| files::read(&p).ok()),
    };
    let mut module = files::read(&path)?;
    if let Some(path) = &args.weights {
        drop_training(&mut module);
        weights::load(&mut module, path)?;
    }
    weights::check_finite(&module, &path)?;
    let compressed = module.meta.algorithm.is_some() || Phase::of(&module) != Phase::Float;
    let mut report = converted(&mut module)?;
    let target = module.meta.target.clone().unwrap_or_else(|| DEFAULT_TARGET.to_owned());
    let words = if files::Kind::is_stream(&args.output) || streams(args.report.as_deref()) {
        Words::Err
    } else {
        Words::Out
    };
    if args.report.is_some() || compressed {
        let mut after = module.clone();
        name_operations(&mut after);
        let mut before = before.unwrap_or_else(|| after.clone());
        name_operations(&mut before);
        let ledger = Ledger::of(&before, &in_integers(&after, &target)?);
        match &args.report {
            None => print_coverage(&ledger, words),
            Some(path) => {
                check_origin(args, &ledger)?;
                print_ledger(&ledger, words);
                write_report(path, &ledger, &report, json!({}))?;
            }
        }
    }
    if args.format == FormArg::Qoperator {
        module = in_integers(&module, &target)?;
    }
    report.notes.drain(..).for_each(|note| warn!("note: {note}"));
    files::write(&module, &args.output, false)?;
    words.line(format_args!("wrote {}", args.output.display()));
    Ok(())
}

fn streams(path: Option<&Path>) -> bool {
    path.is_some_and(files::Kind::is_stream)
}

/// Whether what is asked for can be written.
fn check(args: &ConvertArgs) -> Outcome<()> {
    files::check_output(&args.output)?;
    if files::Kind::is_stream(&args.output) && streams(args.report.as_deref()) {
        return Err(Failure::usage("-o - and --report - both write to standard output")
            .help("give one of them a file"));
    }
    if let Some(report) = args.report.as_deref().filter(|r| !files::Kind::is_stream(r)) {
        if report == args.output {
            return Err(
                Failure::usage("-o and --report name the same file").help("give one of them another name")
            );
        }
        output::check(report)?;
    }
    Ok(())
}

/// The file of the trained network.
fn trained(args: &ConvertArgs) -> Outcome<PathBuf> {
    let given = &args.trained;
    if files::Kind::is_stream(given) || given.is_file() {
        return Ok(given.clone());
    }
    let (folder, path) = (given.display(), given.join(TRAINED));
    if !given.exists() {
        return Err(Failure::new(format!("{folder}: there is no such run, and no such file"))
            .help("name the folder of a training run (`train ... -o DIR`), or the trained network"));
    }
    if given.is_dir() && !path.exists() {
        let failure = if given.join(CHECKPOINT).exists() {
            Failure::new(format!("{folder}: the run in it is not finished: there is no {TRAINED} yet"))
                .help("the command that began it goes on with --resume")
        } else {
            Failure::new(format!("{folder}: there is no training run in it: no {TRAINED}"))
                .help("name the folder that `train` was given with -o")
        };
        return Err(failure);
    }
    Ok(if given.is_dir() { path } else { given.clone() })
}

/// Whether the network that the report is to compare with is the one that the trained one was made of.
fn check_origin(args: &ConvertArgs, ledger: &Ledger) -> Outcome<()> {
    let Some(path) = &args.float else { return Ok(()) };
    let (lost, all) = (ledger.count(Fate::Lost), ledger.lines.len());
    if lost * 2 <= all {
        return Ok(());
    }
    let first = ledger.lines.iter().find(|l| l.fate == Fate::Lost).map_or("", |l| l.name.as_str());
    Err(Failure::new(format!(
        "--float {}: the trained network was made of another one: it knows nothing of {lost} of {all} operations, \
         such as \"{first}\"",
        path.display()
    ))
    .help("name the network that `train` was given; a run keeps it, without weights, so that --float is not needed"))
}

/// The network that the report compares with.
fn before(args: &ConvertArgs) -> Outcome<PathBuf> {
    let of_run = args.trained.join(BEGAN_WITH);
    match &args.float {
        Some(path) => Ok(path.clone()),
        None if of_run.exists() => Ok(of_run),
        None => {
            Err(Failure::new("--report compares with the network before it was changed, which is not there")
                .help("--float NET names it"))
        }
    }
}

/// The algorithm of the module's header converts it; without one, what its operators need is done.
fn converted(module: &mut Module) -> Outcome<PassReport> {
    if let Some(text) = module.meta.algorithm.clone() {
        let named = algorithms::named(&text, None)?;
        let done = named.algorithm.convert(module, &mut PassContext::default());
        return done.map_err(|e| Failure::new(format!("{text}: {e}")));
    }
    if Phase::of(module) == Phase::Instrumented {
        return freeze_and_deploy(module, DEFAULT_TARGET, Form::default())
            .map_err(|e| Failure::new(e.to_string()));
    }
    drop_training(module);
    Ok(PassReport::default())
}

/// The network with integer operators, as far as it has any.
fn in_integers(module: &Module, target: &str) -> Outcome<Module> {
    let mut integers = module.clone();
    if Phase::of(&integers) == Phase::Frozen {
        to_integers(&mut integers, target)?;
    }
    Ok(integers)
}
