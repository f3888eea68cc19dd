//! Times a training step of an ONNX network: forward, backward and SGD in one plan, and says where the time goes.
//!
//! `cargo run --release -p gs-runtime --example train_step -- FILE [BATCH] [THREADS] [STEPS]`

#![allow(clippy::print_stdout)]

use gs_eval::{Tensor, TensorSpec};
use gs_ir::{Module, OpId, Registry, ValueId};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::training::train_graph;
use gs_runtime::kernels::{Kernels, measure_peak};
use gs_runtime::{Runtime, Spent};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let file = args.first().ok_or("which file?")?;
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse::<usize>());
    let (batch, threads, steps) = (number(1, 64)?, number(2, 2)?, number(3, 10)?.max(1));
    let mut module = gs_onnx::import_file(Path::new(file), &Registry::builtin())?;
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: false };
    let pipeline = Pipeline::parse("loss,grad,update{lr=0.01}").map_err(|e| format!("{e:?}"))?;
    manager.run(&pipeline, &mut module, &mut PassContext::default(), &mut |_| {})?;
    let graph = train_graph(&module).ok_or("no training graph")?;
    let image = module.graph(graph).params().first().ok_or("no input")?;
    let dims = module.type_of(*image).dims().ok_or("an input of unknown shape")?;
    let mut extents = vec![batch];
    for d in &dims[1..] {
        extents.push(usize::try_from(d.as_const().ok_or("an image of unknown size")?)?);
    }
    let n = extents.iter().product::<usize>();
    let pixels: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.5) - 1.0).collect();
    let labels: Vec<i64> = (0..batch).map(|i| (i * 7 % 10) as i64).collect();
    let inputs = [Tensor::f32s(extents, pixels)?, Tensor::i64s([batch], labels)?];
    let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();

    let runtime = Runtime::new(Some(threads))?;
    let mut plan = runtime.train_plan(&module, graph, &specs, &[])?;
    for &op in plan.fallbacks() {
        println!("evaluator: {} {}", module.op_name(op), module.label(op));
    }
    println!("buffers {:.1} MB", plan.buffer_bytes() as f64 / 1e6);
    plan.step(&inputs)?;
    let mut times = Vec::new();
    let used = cpu_seconds();
    for _ in 0..steps {
        let begun = Instant::now();
        let output = plan.step(&inputs)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        print!("loss {:.5}  ", output.results[0].to_f64s().map_or(f64::NAN, |v| v[0]));
    }
    let used = (cpu_seconds() - used) / steps as f64 * 1e3;
    times.sort_unstable_by(f64::total_cmp);
    println!("\nstep: median {:.1} ms, least {:.1} ms, processor {used:.1} ms", times[steps / 2], times[0]);

    // On a machine with other work the least of several times is what the kernel took.
    let mut least = plan.profile(&inputs)?.1;
    for _ in 1..steps {
        let again = plan.profile(&inputs)?.1;
        least.iter_mut().zip(&again).for_each(|(l, a)| l.time = l.time.min(a.time));
    }
    let peak = measure_peak(Kernels::detect()).float / 1e9;
    println!("peak of a thread {peak:.0} GFLOP/s");
    report(&module, &least, batch);
    println!("peak resident {:.0} MB", peak_megabytes());
    Ok(())
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
