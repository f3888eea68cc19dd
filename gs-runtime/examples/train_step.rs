//! Times a training step of an ONNX network: forward, backward and SGD in one plan, and says where the time goes.
//!
//! `cargo run --release -p gs-runtime --example train_step -- FILE [ALGORITHM...] [--batch N] [--threads N] [--rounds N]`
//!
//! An algorithm is `float`, or what `gs-opt train --algorithm` takes, with `distilled:` before it if a teacher is to run
//! along; several are timed in turns, in one process, so that the
//! ratio of their times to the first one's does not depend on what else the machine does. With one, the peak of the memory
//! is that of its training.

#![allow(clippy::print_stdout)]

use gs_algos::algorithm::{self, RunLength};
use gs_algos::distillation::{DistillationConfig, Distilled};
use gs_eval::{InMemory, Tensor, TensorSpec};
use gs_ir::{Module, OpId, Registry, ValueId};
use gs_kernels::{Kernels, measure_peak};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::training::train_graph;
use gs_runtime::{Runtime, Spent, TrainPlan};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

/// Steps that a round times one after the other; the least of them counts.
const STEPS: usize = 5;

struct Args {
    file: String,
    algorithms: Vec<String>,
    batch: usize,
    threads: usize,
    rounds: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = arguments()?;
    let runtime = Runtime::new(Some(args.threads))?;
    let inputs = inputs(&args)?;
    let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
    let mut modules = Vec::new();
    for algorithm in &args.algorithms {
        modules.push(training(&args.file, algorithm, &runtime, &inputs[0])?);
    }
    let mut plans = Vec::new();
    for (module, algorithm) in modules.iter().zip(&args.algorithms) {
        let graph = train_graph(module).ok_or("no training graph")?;
        let mut plan = runtime.train_plan(module, graph, &specs, &[])?;
        let slow: Vec<String> = plan.fallbacks().iter().map(|&op| module.op_name(op).to_owned()).collect();
        println!("{algorithm}: buffers {:.1} MB; evaluator: {slow:?}", plan.buffer_bytes() as f64 / 1e6);
        plan.step(&inputs)?;
        plans.push(plan);
    }
    let mut times = vec![Vec::new(); plans.len()];
    for _ in 0..args.rounds {
        for (plan, times) in plans.iter_mut().zip(&mut times) {
            times.push(round(plan, &inputs)?);
        }
    }
    for (algorithm, own) in args.algorithms.iter().zip(&times) {
        let ratio = median(own.iter().zip(&times[0]).map(|(a, b)| a.0 / b.0).collect());
        let of_processor = median(own.iter().zip(&times[0]).map(|(a, b)| a.1 / b.1).collect());
        let (wall, processor) =
            (median(own.iter().map(|t| t.0).collect()), median(own.iter().map(|t| t.1).collect()));
        println!(
            "{algorithm}: step {wall:.1} ms, {ratio:.3} of {}; processor {processor:.1} ms, {of_processor:.3}",
            args.algorithms[0]
        );
    }
    println!("peak of a thread {:.0} GFLOP/s", measure_peak(Kernels::detect()).float / 1e9);
    for ((plan, module), algorithm) in plans.iter_mut().zip(&modules).zip(&args.algorithms) {
        // On a machine with other work the least of several times is what the kernel took.
        let mut least = plan.profile(&inputs)?.1;
        for _ in 1..args.rounds {
            let again = plan.profile(&inputs)?.1;
            least.iter_mut().zip(&again).for_each(|(l, a)| l.time = l.time.min(a.time));
        }
        println!("\n{algorithm}");
        report(module, &least, args.batch);
    }
    println!("peak resident {:.0} MB", peak_megabytes());
    Ok(())
}

fn arguments() -> Result<Args, Box<dyn Error>> {
    let mut found = Args { file: String::new(), algorithms: Vec::new(), batch: 64, threads: 2, rounds: 10 };
    let mut all = std::env::args().skip(1);
    found.file = all.next().ok_or("which file?")?;
    while let Some(arg) = all.next() {
        let number = match arg.as_str() {
            "--batch" => &mut found.batch,
            "--threads" => &mut found.threads,
            "--rounds" => &mut found.rounds,
            _ => {
                found.algorithms.push(arg);
                continue;
            }
        };
        *number = all.next().ok_or("a number is missing")?.parse::<usize>()?.max(1);
    }
    if found.algorithms.is_empty() {
        found.algorithms.push("float".to_owned());
    }
    Ok(found)
}

/// Images of the size that the network wants, and labels.
fn inputs(args: &Args) -> Result<[Tensor; 2], Box<dyn Error>> {
    let module = gs_onnx::import_file(Path::new(&args.file), &Registry::builtin())?;
    let graph = module.main().ok_or("no graph")?;
    let image = module.graph(graph).params().first().ok_or("no input")?;
    let dims = module.type_of(*image).dims().ok_or("an input of unknown shape")?;
    let mut extents = vec![args.batch];
    for d in &dims[1..] {
        extents.push(usize::try_from(d.as_const().ok_or("an image of unknown size")?)?);
    }
    let n = extents.iter().product::<usize>();
    let pixels: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.5) - 1.0).collect();
    let labels: Vec<i64> = (0..args.batch).map(|i| (i * 7 % 10) as i64).collect();
    Ok([Tensor::f32s(extents, pixels)?, Tensor::i64s([args.batch], labels)?])
}

/// The network with the graph of a step, as `gs-opt train` makes it.
fn training(file: &str, text: &str, runtime: &Runtime, images: &Tensor) -> Result<Module, Box<dyn Error>> {
    let mut module = gs_onnx::import_file(Path::new(file), &Registry::builtin())?;
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    gs_algos::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: false };
    let input = module.main().and_then(|g| module.graph(g).params().first()).ok_or("no input")?;
    let name = module.str(module.value(*input).name).to_owned();
    let few = InMemory::new(vec![(name, images.clone())])?;
    let mut context = PassContext {
        executor: Some(runtime),
        data: BTreeMap::from([("calib".to_owned(), &few as &dyn gs_eval::DataSource)]),
        ..PassContext::default()
    };
    let run = |text: &str,
               groups: Option<serde_json::Value>,
               module: &mut Module,
               context: &mut PassContext<'_>| {
        let mut pipeline = Pipeline::parse(text).map_err(|e| format!("{e:?}"))?;
        if let (Some(groups), Some(step)) = (groups, pipeline.steps.last_mut()) {
            step.options.insert("groups".to_owned(), groups);
        }
        manager.run(&pipeline, module, context, &mut |_| {}).map(|_| ()).map_err(|e| format!("{e:?}"))
    };
    let mut groups = Vec::new();
    if text == "float" {
        run("loss", None, &mut module, &mut context)?;
    } else {
        let (distilled, text) = text.strip_prefix("distilled:").map_or((false, text), |text| (true, text));
        let pipeline = Pipeline::parse(text).map_err(|e| format!("{e:?}"))?;
        let step = pipeline.steps.first().ok_or("no algorithm")?;
        let info = algorithm::find(&step.name).ok_or("no algorithm of this name")?;
        let mut algorithm = (info.make)(&step.options)?;
        if distilled {
            algorithm = Box::new(Distilled { inner: algorithm, config: DistillationConfig::default() });
        }
        run("canonicalize", None, &mut module, &mut context)?;
        algorithm.apply(&mut module, &mut context).map_err(|e| e.to_string())?;
        run("calibrate{data=calib}", None, &mut module, &mut context)?;
        run("loss", None, &mut module, &mut context)?;
        let length = RunLength { steps: 1000, steps_per_epoch: 100 };
        algorithm.prepare_training(&mut module, length).map_err(|e| e.to_string())?;
        groups = algorithm.param_groups(&module);
    }
    run("grad", None, &mut module, &mut context)?;
    run("update{lr=0.01}", Some(serde_json::to_value(groups)?), &mut module, &mut context)?;
    Ok(module)
}

/// Milliseconds of a step, and of the processor in all threads.
fn round(plan: &mut TrainPlan<'_>, inputs: &[Tensor]) -> Result<(f64, f64), Box<dyn Error>> {
    let mut least = f64::INFINITY;
    let used = cpu_seconds();
    for _ in 0..STEPS {
        let begun = Instant::now();
        plan.step(inputs)?;
        least = least.min(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok((least, (cpu_seconds() - used) / STEPS as f64 * 1e3))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Time and rate by what was done, and of each convolution.
fn report(module: &Module, spent: &[Spent], batch: usize) {
    let mut kinds: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for s in spent {
        let (ms, work) = (s.time.as_secs_f64() * 1e3, work(module, s, batch));
        let kind = kinds.entry(s.what).or_default();
        *kind = (kind.0 + ms, kind.1 + work);
        if work > 0.0 {
            let shape = s.op.map_or_else(String::new, |op| shape(module, op, batch));
            println!("  {:18} {ms:7.3} ms {:6.1} GFLOP/s per thread  {shape}", s.what, work / ms / 1e6);
        }
    }
    let total: f64 = kinds.values().map(|k| k.0).sum();
    for (what, (ms, work)) in kinds {
        let rate =
            if work > 0.0 { format!("{:6.1} GFLOP/s per thread", work / ms / 1e6) } else { String::new() };
        println!("{what:32} {ms:8.2} ms {:5.1} % {rate}", ms / total * 100.0);
    }
    println!("all threads {total:.1} ms");
}

/// Extents of a value; those that are not fixed are the batch.
fn extents(module: &Module, value: ValueId, batch: usize) -> Vec<f64> {
    let dims = module.type_of(value).dims().unwrap_or(&[]);
    dims.iter().map(|d| d.as_const().map_or(batch as f64, |n| n as f64)).collect()
}

/// Extents of the operands and the result.
fn shape(module: &Module, op: OpId, batch: usize) -> String {
    let data = module.op(op);
    let values = data.present_operands().chain([data.result()]);
    values.map(|v| format!("{:?}", extents(module, v, batch))).collect::<Vec<_>>().join(" ")
}

/// Floating-point operations of a convolution or one of its gradients.
fn work(module: &Module, spent: &Spent, batch: usize) -> f64 {
    let Some(op) = spent.op.filter(|_| spent.what.starts_with("conv") && !spent.what.contains(':')) else {
        return 0.0;
    };
    let extents = |v| extents(module, v, batch);
    let data = module.op(op);
    let (Some(first), Some(second)) = (data.operand(0), data.operand(1)) else { return 0.0 };
    // Output pixels times weights.
    let (y, w) = match spent.what {
        "conv" => (extents(data.result()), extents(second)),
        "conv_input_grad" => (extents(first), extents(second)),
        _ => (extents(first), extents(data.result())),
    };
    2.0 * y.first().unwrap_or(&0.0) * y.iter().skip(2).product::<f64>() * w.iter().product::<f64>()
}

/// Processor time of this process, where the system says it.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_megabytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}
