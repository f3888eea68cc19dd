//! From a network to its training graph: the algorithm applied, the graph of a step made.

use super::request;
use crate::algorithms::{self, Named, one_pass};
use crate::cli::{OptimiserArg, ScheduleArg, TrainArgs};
use crate::failure::{Failure, Outcome};
use crate::passes;
use crate::progress::Progress;
use crate::source::Samples;
use crate::warn;
use gs_algos::algorithm::RunLength;
use gs_algos::quantisers::fake_quants;
use gs_eval::{DataSource, Executor};
use gs_ir::Module;
use gs_passes::manager::{PassContext, PassError, PassManager, Pipeline};
use gs_passes::training::ParamGroup;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Samples that ranges are chosen from.
const CALIBRATION: usize = 512;

/// Brings the network into the form that is trained. `labels`: whether the loss is of labels at all.
///
/// # Errors
/// What the algorithm or a pass refuses.
pub(super) fn prepare(
    args: &TrainArgs,
    algorithm: Option<&Named>,
    labels: bool,
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
    let few = samples.first(calibrated(module, samples));
    let mut context = PassContext {
        executor: Some(executor),
        data: BTreeMap::from([("calib".to_owned(), &few as &dyn DataSource)]),
        seed: args.seed,
        progress: Some(&mut tell),
        ..PassContext::default()
    };
    let manager = PassManager { registry: &registry, verify_each: true };
    let run = |pipeline: &Pipeline, module: &mut Module, context: &mut PassContext<'_>| {
        manager.run(pipeline, module, context, &mut |_| {})
    };
    let failed = |text: &str, e: PassError| Failure::new(format!("{text}: {e}"));
    if let Some(Named { text, algorithm }) = algorithm {
        run(&Pipeline::parse("canonicalize")?, module, &mut context)?;
        algorithm.apply(module, &mut context).map_err(|e| failed(text, e))?;
        module.meta.algorithm = Some(text.clone());
        // Ranges; what an algorithm learns in their place it has chosen itself.
        if fake_quants(module).is_ok_and(|all| !all.is_empty()) {
            run(&Pipeline::parse("calibrate{data=calib}")?, module, &mut context)?;
        }
    }
    let length = length(args, samples);
    let kind = if labels { "cross_entropy" } else { "none" };
    let loss = json!({ "kind": kind, "label_smoothing": args.label_smoothing });
    let report = run(&one_pass("loss", loss), module, &mut context)?;
    report.notes.iter().for_each(|note| warn!("note: {note}"));
    let mut groups = Vec::new();
    if let Some(Named { text, algorithm }) = algorithm {
        algorithm.prepare_training(module, length).map_err(|e| failed(text, e))?;
        groups = algorithm.param_groups(module);
    }
    run(&one_pass("grad", json!({})), module, &mut context)?;
    run(&one_pass("update", update_options(args, length, &groups)?), module, &mut context)?;
    Ok(())
}

/// How many samples ranges are chosen from: whole batches, where the network takes only those.
fn calibrated(module: &Module, samples: &Samples) -> usize {
    let batch = request::fixed_batch(module).unwrap_or(1);
    let most = CALIBRATION.max(batch).min(samples.len());
    most - most % batch
}

/// What was asked for that decides what is learned, by option; the trainer knows the rest itself.
pub(super) fn settings(args: &TrainArgs) -> Vec<(String, String)> {
    let algorithm = args.algorithm.as_deref().map(|text| {
        let named = algorithms::named(text, args.target.as_deref());
        named.map_or_else(|_| text.to_owned(), |n| n.text)
    });
    let milestones: Vec<String> = args.milestones.iter().map(f64::to_string).collect();
    let said = |text: Option<String>| text.unwrap_or_else(|| "not given".to_owned());
    let distill = args.distill.as_ref().map(|text| format!("\"{text}\""));
    let all = [
        ("--algorithm", said(algorithm)),
        ("--distill", said(distill)),
        ("--lr", args.lr.to_string()),
        ("--schedule", format!("{:?}", args.schedule).to_lowercase()),
        ("--warmup", args.warmup.to_string()),
        ("--milestones", said(Some(milestones.join(",")).filter(|m| !m.is_empty()))),
        ("--gamma", args.gamma.to_string()),
        ("--optimiser", format!("{:?}", args.optimiser).to_lowercase()),
        ("--momentum", args.momentum.to_string()),
        ("--weight-decay", args.weight_decay.to_string()),
        ("--label-smoothing", args.label_smoothing.to_string()),
    ];
    all.map(|(option, value)| (option.to_owned(), value)).into()
}

/// How long the run is.
pub(super) fn length(args: &TrainArgs, samples: &Samples) -> RunLength {
    let steps_per_epoch = samples.len().checked_div(args.batch).unwrap_or(0) as u64;
    RunLength { steps: (steps_per_epoch * args.epochs as u64).max(1), steps_per_epoch }
}

/// The options of the pass `update`.
fn update_options(args: &TrainArgs, length: RunLength, groups: &[ParamGroup]) -> Outcome<Value> {
    let optimiser = match args.optimiser {
        OptimiserArg::Sgd => json!({ "sgd": { "momentum": args.momentum } }),
        OptimiserArg::Adamw => json!({ "adamw": {} }),
    };
    Ok(json!({
        "optimiser": optimiser, "lr": args.lr, "schedule": schedule(args, length)?,
        "weight_decay": args.weight_decay, "steps": length.steps, "warmup": args.warmup, "groups": groups,
    }))
}

/// The schedule in steps; people count in epochs.
fn schedule(args: &TrainArgs, length: RunLength) -> Outcome<Value> {
    let used = matches!(args.schedule, ScheduleArg::Step | ScheduleArg::Milestones);
    if !args.milestones.is_empty() && !used {
        return Err(Failure::usage("--milestones goes with --schedule step or milestones"));
    }
    let at = |epochs: f64| (epochs * length.steps_per_epoch as f64).round() as i64;
    let ends: Vec<f64> = match (args.schedule, &args.milestones[..]) {
        (ScheduleArg::Constant, _) => return Ok(json!("constant")),
        (ScheduleArg::Cosine, _) => return Ok(json!({ "cosine": {} })),
        (ScheduleArg::Linear, _) => return Ok(json!({ "linear": {} })),
        (ScheduleArg::Step, &[every]) if every > 0.0 => {
            let times = (args.epochs as f64 / every).floor().min(1e6) as usize;
            (1..=times).map(|i| i as f64 * every).collect()
        }
        (ScheduleArg::Step, _) => {
            return Err(Failure::usage("--schedule step needs --milestones N: every so many epochs"));
        }
        (ScheduleArg::Milestones, []) => {
            return Err(Failure::usage(
                "--schedule milestones needs --milestones A,B,...: after these epochs",
            ));
        }
        (ScheduleArg::Milestones, epochs) => epochs.to_vec(),
    };
    if let Some(wrong) = ends.iter().find(|e| !(e.is_finite() && **e >= 0.0)) {
        return Err(Failure::usage(format!("--milestones {wrong}: a number of epochs is expected")));
    }
    let at: Vec<i64> = ends.into_iter().map(at).collect();
    Ok(json!({ "milestones": { "at": at, "gamma": args.gamma } }))
}
