//! What is asked of a run, beside the network and the data: what cannot be is refused before anything runs, what is
//! likely not meant is told.

use super::prepare;
use crate::cli::{ScheduleArg, TrainArgs};
use crate::failure::{Failure, Outcome};
use crate::source::Samples;
use crate::words::counted;
use gs_eval::DataSource;
use gs_ir::Module;
use gs_runtime::trainer::TrainError;

/// Samples in a hundred that fill no batch from which on that is told: of a large set some are left always.
const LEFT: usize = 5;

/// Whether a network and samples go with what is asked. `labels`: whether the loss is of labels.
///
/// # Errors
/// A batch that the network does not take or that the samples do not fill, labels that are no classes, pictures that
/// cannot be changed as asked, epochs out of order.
pub(super) fn check(args: &TrainArgs, module: &Module, samples: &Samples, labels: bool) -> Outcome<()> {
    if let Some(fixed) = fixed_batch(module).filter(|&n| n != args.batch) {
        let what = format!("the network takes batches of {fixed} alone, not of {}", args.batch);
        return Err(Failure::new(format!("{}: {what}", args.model.display()))
            .help(format!("--batch {fixed} trains it so")));
    }
    if samples.len() < args.batch {
        let error = TrainError::TooFew { samples: samples.len(), batch: args.batch };
        return Err(Failure::new(error.to_string()).help(format!("--batch {} is one batch", samples.len())));
    }
    if labels || samples.dataset.has_labels() {
        samples.check_classes(module)?;
    }
    check_pictures(args, samples)?;
    if let Some(pair) = args.milestones.windows(2).find(|w| matches!(w, [a, b] if a >= b)) {
        let [a, b] = [pair.first(), pair.get(1)].map(|e| e.copied().unwrap_or_default());
        return Err(Failure::usage(format!("--milestones {a},{b}: epochs are expected one after the other")));
    }
    Ok(())
}

/// The only batch that a network takes, where it says one.
pub(super) fn fixed_batch(module: &Module) -> Option<usize> {
    gs_eval::fixed_batch(module, module.main()?)
}

/// Whether accuracy can be measured on held-out samples.
///
/// # Errors
/// Samples without labels or with such as are no classes, or that fill no whole batches where others are not taken.
pub(super) fn check_held_out(module: &Module, samples: &Samples) -> Outcome<()> {
    if let Some(fixed) = fixed_batch(module).filter(|&n| !samples.len().is_multiple_of(n)) {
        let len = samples.len();
        return Err(Failure::new(format!("--val: {len} samples are no whole batches of {fixed}"))
            .help("the network takes no other batches; leave --val out, or give as many as fill them"));
    }
    samples.check_classes(module).map_err(|failure| {
        let message = format!("--val: {}", failure.message);
        let help = failure.help.unwrap_or_else(|| {
            "accuracy is measured against labels; leave --val out to measure nothing".to_owned()
        });
        Failure::new(message).help(help)
    })
}

fn check_pictures(args: &TrainArgs, samples: &Samples) -> Outcome<()> {
    if args.crop == 0 && !args.flip {
        return Ok(());
    }
    if !samples.dataset.has_pictures() {
        let option = if args.flip { "--flip" } else { "--crop" };
        let spec = samples.dataset.spec();
        return Err(Failure::new(format!(
            "{option}: '{spec}' holds arrays, not pictures, which alone are changed"
        ))
        .help("leave --crop and --flip out"));
    }
    let side = samples.dataset.inputs().first().and_then(|i| i.item_shape.last().copied()).unwrap_or(0);
    if args.crop >= side {
        return Err(Failure::usage(format!(
            "--crop {}: pictures of {side} pixels would be moved out of sight",
            args.crop
        ))
        .help(format!("at most {}; 4 is usual for 32 pixels", side.saturating_sub(1))));
    }
    Ok(())
}

/// What is likely not meant. `module` is the network as it is trained.
pub(super) fn notes(args: &TrainArgs, module: &Module, samples: &Samples) -> Vec<String> {
    let mut notes = Vec::new();
    let left = samples.len().checked_rem(args.batch).unwrap_or(0);
    if left * 100 >= samples.len() * LEFT {
        notes.push(format!(
            "--batch {}: {left} of {} samples fill no batch and are left out of an epoch, others each time",
            args.batch,
            samples.len()
        ));
    }
    let steps = prepare::length(args, samples).steps;
    if u64::try_from(args.warmup).is_ok_and(|w| w > steps) {
        notes.push(format!(
            "--warmup {}: the run has {}, so that the learning rate does not reach --lr",
            args.warmup,
            counted(steps, "step")
        ));
    }
    let used = matches!(args.schedule, ScheduleArg::Step | ScheduleArg::Milestones);
    if let Some(late) = args.milestones.iter().find(|m| used && **m >= args.epochs as f64) {
        notes.push(format!(
            "--milestones {late}: the run ends after {}, so that the learning rate does not change then",
            counted(args.epochs as u64, "epoch")
        ));
    }
    let norms = module.main().is_some_and(|m| module.ops_in(m).any(|op| module.is(op, "batch_norm")));
    if args.recalibrate.is_some() && !norms {
        notes.push(
            "--recalibrate: the network has no batch normalisation as it is trained; nothing is measured anew"
                .to_owned(),
        );
    }
    notes
}
