//! `gs-opt quantize`: the whole way from a trained network to a deployed one.

use crate::cli::{Engine, FormArg, QuantizeArgs};
use crate::eval::{run_in_integers, score};
use crate::failure::{Failure, Outcome};
use crate::passes::registry;
use crate::progress::Progress;
use crate::report::{print_ledger, write_report};
use crate::say::Words;
use crate::source::Samples;
use crate::{executor, files, warn};
use gs_algos::deploy::Lowering;
use gs_algos::ledger::{Ledger, name_operations};
use gs_eval::{DataSource, Executor, Tensor};
use gs_ir::{Module, Phase};
use gs_passes::manager::{PassContext, PassManager, PassReport, Pipeline, Remark, Step};
use gs_text::output;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Samples on which the outputs before and after are compared.
const COMPARED: usize = 256;

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the request, the network or the data; nothing is written then.
pub fn run(args: &QuantizeArgs) -> Outcome<()> {
    if let Some(f) = args.require_coverage.filter(|f| !(0.0..=1.0).contains(f)) {
        return Err(Failure::usage(format!("--require-coverage {f}: a share from 0 to 1 is expected")));
    }
    files::check_output(&args.output)?;
    let to_stdout = |path: &Path| files::Kind::is_stream(path);
    if to_stdout(&args.output) && args.report.as_deref().is_some_and(to_stdout) {
        return Err(Failure::usage("-o - and --report - both write to standard output")
            .help("give one of them a file"));
    }
    if let Some(report) = args.report.as_deref().filter(|r| !files::Kind::is_stream(r)) {
        output::check(report)?;
    }
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if same(&args.model, &args.output) {
        return Err(Failure::usage(format!("{} is the network itself", args.output.display()))
            .help("name another file: the float network is lost otherwise"));
    }
    if args.report.as_deref().is_some_and(|r| r == args.output) {
        return Err(
            Failure::usage("-o and --report name the same file").help("give one of them another name")
        );
    }
    let mut float = files::read_to_run(&args.model)?;
    let phase = Phase::of(&float);
    if phase != Phase::Float {
        return Err(Failure::new(format!("{}: the network is {phase} already", args.model.display()))
            .help("quantising twice loses accuracy; start from the float network, or deploy this one with --pass=deploy"));
    }
    // Text may leave source names out; without them the ledger could not say what became of an operation.
    name_operations(&mut float);
    let samples = Samples::open(&args.data, args.limit, &args.preprocess, &float)?;
    let executor = executor::make(Engine::best(), args.running)?;
    let mut progress = Progress::new();

    let mut module = float.clone();
    let mut report = instrument(args, &mut module, &samples, executor.as_ref(), &mut progress)?;
    let mut integers = module.clone();
    let lowering = Lowering::find(&args.target, float.registry())?;
    let mut remarks = Vec::new();
    let mut sink = |r: Remark| remarks.push(r);
    let mut context = PassContext { remarks: args.remarks.then_some(&mut sink), ..PassContext::default() };
    report.absorb(lowering.to_integers(&mut integers, &mut context)?);
    print_remarks(&remarks);
    let ledger = Ledger::of(&float, &integers);
    let runs = [executor, executor::fastest(args.running, lowering.target.arithmetic())?];
    let ratio = signal_to_noise(&float, &integers, &runs, &samples, &mut progress)?;
    if let Some((name, _)) = ratio.iter().find(|(_, db)| db.is_nan()) {
        return Err(Failure::new(format!("output `{name}` is not finite on these samples"))
            .help("look for infinite or very large weights, and for samples that are not finite"));
    }
    progress.finish();
    if args.format == FormArg::Qdq {
        lowering.to_qdq_form(&mut integers, &mut PassContext::default());
    }
    let target = Some(&lowering.target);
    report.notes.extend(files::opset_note(&integers, &args.output, target)?);

    for note in &report.notes {
        warn!("note: {note}");
    }
    let documents = to_stdout(&args.output) || args.report.as_deref().is_some_and(to_stdout);
    let words = if documents { Words::Err } else { Words::Out };
    print_ledger(&ledger, words);
    if let Some(path) = &args.report {
        let ratio: Map<String, Value> = ratio.iter().map(|(n, r)| (n.clone(), json!(r))).collect();
        write_report(path, &ledger, &report, json!({ "signal_to_noise_db": ratio }))?;
    }
    if let Some(wanted) = args.require_coverage.filter(|w| ledger.coverage() < *w) {
        return Err(Failure::new(format!(
            "{:.2} % of the multiply-adds run in integers, {:.2} % are required",
            100.0 * ledger.coverage(),
            100.0 * wanted
        ))
        .help("the lines `kept` above say what stayed in float and why"));
    }
    files::write_for(&integers, &args.output, false, target)?;
    print_result(args, &ratio, words);
    Ok(())
}

/// Places quantisers, chooses their ranges and freezes them.
fn instrument(
    args: &QuantizeArgs,
    module: &mut Module,
    samples: &Samples,
    executor: &dyn Executor,
    progress: &mut Progress,
) -> Outcome<PassReport> {
    let registry = registry();
    let mut remarks = Vec::new();
    let mut sink = |r: Remark| remarks.push(r);
    let mut tell = |what: &str, done: usize, total: usize| {
        progress.tell(what, done, total);
        true
    };
    let mut context = PassContext {
        executor: Some(executor),
        data: BTreeMap::from([("calib".to_owned(), samples as &dyn DataSource)]),
        remarks: args.remarks.then_some(&mut sink),
        progress: Some(&mut tell),
        ..PassContext::default()
    };
    let manager = PassManager { registry: &registry, verify_each: true };
    let [place, choose] = pipelines(args);
    let mut report = manager.run(&place, module, &mut context, &mut |_| {})?;
    if Phase::of(module) == Phase::Float {
        let reasons: BTreeSet<&str> =
            module.kept.values().filter_map(|k| k.reason).map(|r| module.str(r)).take(5).collect();
        let failure = Failure::new(format!(
            "{}: no operation of it can run in integers on {}",
            args.model.display(),
            args.target
        ));
        let list: Vec<&str> = reasons.into_iter().collect();
        return Err(failure.help(match list.is_empty() {
            true => "`gs-opt targets` shows what the target computes in integers".to_owned(),
            false => list.join("; "),
        }));
    }
    report.absorb(manager.run(&choose, module, &mut context, &mut |_| {})?);
    print_remarks(&remarks);
    Ok(report)
}

fn print_remarks(remarks: &[Remark]) {
    for r in remarks {
        warn!("remark: {} \"{}\": {}", r.by, r.place, r.text);
    }
}

/// The passes that the options stand for.
///
/// The first places quantisers, the second chooses their ranges and freezes them.
fn pipelines(args: &QuantizeArgs) -> [Pipeline; 2] {
    let step = |name: &str, options: Value| {
        let options = if let Value::Object(o) = options { o } else { Map::new() };
        Step { name: name.to_owned(), options, at: 0 }
    };
    let calibrate = match &args.observer {
        Some(kind) => json!({ "data": "calib", "observer": kind }),
        None => json!({ "data": "calib" }),
    };
    let simqat = json!({
        "target": args.target, "exclude": args.exclude, "edge_bits": args.edge_bits,
        "weight": { "bits": args.weight_bits }, "act": { "bits": args.act_bits },
    });
    let place = vec![step("canonicalize", json!({})), step("fold-bn", json!({})), step("simqat", simqat)];
    let choose = vec![step("calibrate", calibrate), step("freeze", json!({}))];
    [Pipeline { steps: place }, Pipeline { steps: choose }]
}

/// Signal-to-noise of each output in decibels, on samples of the calibration data: needs no labels. The executors
/// run the float network and the integers.
fn signal_to_noise(
    float: &Module,
    integers: &Module,
    [in_float, in_integers]: &[Box<dyn Executor>; 2],
    samples: &Samples,
    progress: &mut Progress,
) -> Outcome<Vec<(String, f64)>> {
    let few = samples.first(compared(float, samples.len()));
    let mut before: Vec<Vec<Tensor>> = Vec::new();
    score(float, in_float.as_ref(), &few, 64, progress, &mut |r| {
        before.push(r.to_vec());
        Ok(())
    })?;
    let mut integers = integers.clone();
    run_in_integers(&mut integers)?;
    let names = crate::eval::output_names(float);
    let mut sums = vec![(0.0f64, 0.0f64); names.len()];
    let mut batches = before.iter();
    score(&integers, in_integers.as_ref(), &few, 64, progress, &mut |after| {
        for (sum, (a, b)) in sums.iter_mut().zip(batches.next().into_iter().flatten().zip(after)) {
            let (Some(a), Some(b)) = (a.to_f64s(), b.to_f64s()) else { continue };
            for (x, y) in a.iter().zip(&b) {
                sum.0 += x * x;
                sum.1 += (x - y) * (x - y);
            }
        }
        Ok(())
    })?;
    Ok(names
        .into_iter()
        .zip(sums)
        .map(|(n, (signal, noise))| (n, 10.0 * (signal / noise.max(1e-300)).log10()))
        .collect())
}

/// How many samples are compared: whole batches, where the network takes only those.
fn compared(module: &Module, samples: usize) -> usize {
    let batch = module.main().and_then(|main| gs_eval::fixed_batch(module, main)).unwrap_or(1);
    let most = COMPARED.max(batch).min(samples);
    most - most % batch
}

fn print_result(args: &QuantizeArgs, ratio: &[(String, f64)], words: Words) {
    for (name, db) in ratio {
        words.line(format_args!("output \"{name}\": {db:.1} dB signal to noise against the float network"));
    }
    if files::Kind::is_stream(&args.output) {
        return;
    }
    let size = |path: &Path| std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
    let (before, after) = (size(&args.model), size(&args.output));
    words.line(format_args!(
        "{}: {after} bytes, {:.3} of {} ({before} bytes)",
        args.output.display(),
        after as f64 / before.max(1) as f64,
        args.model.display()
    ));
    if args.output.extension().is_some_and(|e| e == "onnx") {
        words.line(format_args!(
            "\nto run it (checked with onnxruntime 1.32; the default optimisation level fuses it into integer operators):"
        ));
        words.line(format_args!("  import onnxruntime"));
        words.line(format_args!(
            "  session = onnxruntime.InferenceSession({:?})",
            args.output.display().to_string()
        ));
        words.line(format_args!("  outputs = session.run(None, {{session.get_inputs()[0].name: batch}})"));
    }
}
