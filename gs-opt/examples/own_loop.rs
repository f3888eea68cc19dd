//! A training loop of one's own: it drives an algorithm's callbacks and runs the steps, with the parts that `gs-opt train`
//! is made of.
//!
//! `cargo run --release -p gs-opt --example own_loop` trains the network in `examples/shapes` with quantisers and prints
//! its accuracy in float, with quantisers, and in integers.

#![allow(clippy::print_stdout)]

use gs_algos::algorithm::{self, Algorithm, RunLength};
use gs_algos::callback::{Callback, CallbackResult, Globals, TrainState};
use gs_eval::{DataSource, Tensor, TensorSpec};
use gs_ir::{GlobalId, Init, Module, Rewriter};
use gs_opt::cli::PreprocessArgs;
use gs_opt::eval::{run_in_integers, score};
use gs_opt::progress::Progress;
use gs_opt::source::Samples;
use gs_passes::manager::{PassContext, PassManager, Pipeline};
use gs_passes::training::train_graph;
use gs_runtime::{Runtime, TrainPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SAMPLES: usize = 2048;
const BATCH: usize = 64;
const EPOCHS: usize = 2;

fn main() -> Result<()> {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shapes/shapes.onnx"));
    let mut module = gs_opt::files::read(file).map_err(said)?;
    let runtime = Runtime::new(None)?;
    let (train, test) = (open("train", SAMPLES, &module)?, open("test", 1000, &module)?);
    println!("float            {:.2} %", accuracy(&module, &runtime, &test)?);

    let info = algorithm::find("simqat").ok_or("no such algorithm")?;
    let options = Pipeline::parse("simqat{weight={bits=4}}")?.steps.remove(0).options;
    let simqat = (info.make)(&options)?;
    let length =
        RunLength { steps: (SAMPLES / BATCH * EPOCHS) as u64, steps_per_epoch: (SAMPLES / BATCH) as u64 };
    prepare(&mut module, simqat.as_ref(), length, &runtime, &train)?;
    println!("with quantisers  {:.2} %", accuracy(&module, &runtime, &test)?);

    let mut callbacks = simqat.callbacks();
    callbacks.push(Box::new(Loudest { every: 32 }));
    let contents = my_loop(&module, &runtime, &train, length, &mut callbacks)?;
    let mut rewriter = Rewriter::new(&mut module);
    for (id, tensor) in contents {
        let ty = rewriter.ty(rewriter.global(id).ty).clone();
        rewriter.set_global(id, ty, Init::Data(tensor.data()));
    }
    println!("trained          {:.2} %", accuracy(&module, &runtime, &test)?);
    simqat.convert(&mut module, &mut PassContext::default())?;
    run_in_integers(&mut module).map_err(said)?;
    println!("in integers      {:.2} %", accuracy(&module, &runtime, &test)?);
    Ok(())
}

/// Applies the algorithm and makes the graph of a training step.
fn prepare(
    module: &mut Module,
    algorithm: &dyn Algorithm,
    length: RunLength,
    runtime: &Runtime,
    samples: &Samples,
) -> Result<()> {
    let registry = gs_opt::passes::registry();
    let manager = PassManager { registry: &registry, verify_each: true };
    let mut context = PassContext {
        executor: Some(runtime),
        data: BTreeMap::from([("calib".to_owned(), samples as &dyn DataSource)]),
        ..PassContext::default()
    };
    let run = |pipeline: &str, module: &mut Module, context: &mut PassContext<'_>| -> Result<()> {
        manager.run(&Pipeline::parse(pipeline)?, module, context, &mut |_| {})?;
        Ok(())
    };
    run("canonicalize", module, &mut context)?;
    algorithm.apply(module, &mut context)?;
    run("calibrate{limit=256},loss", module, &mut context)?;
    algorithm.prepare_training(module, length)?;
    run("grad", module, &mut context)?;
    let groups = serde_json::to_value(algorithm.param_groups(module))?;
    let mut update =
        Pipeline::parse(&format!("update{{lr=0.002, schedule={{cosine={{}}}}, steps={}}}", length.steps))?;
    update.steps[0].options.insert("groups".to_owned(), groups);
    manager.run(&update, module, &mut context, &mut |_| {})?;
    Ok(())
}

/// The loop: which samples a step sees is its own business; here it is one after the other.
fn my_loop(
    module: &Module,
    runtime: &Runtime,
    samples: &Samples,
    length: RunLength,
    callbacks: &mut [Box<dyn Callback>],
) -> Result<Vec<(GlobalId, Tensor)>> {
    let train = train_graph(module).ok_or("no graph @train")?;
    let first = inputs(module, samples, 0)?;
    let specs: Vec<TensorSpec> = first.iter().map(TensorSpec::of).collect();
    let mut live = Live {
        plan: runtime.train_plan(module, train, &specs, &[])?,
        changed: module.graph(train).updates().map(|u| u.0).collect(),
    };
    let (mut metrics, mut loss, mut step) = (BTreeMap::new(), None, 0);
    let mut call = |moment: Moment, live: &mut Live<'_>, step: u64, loss: Option<f64>| -> Result<()> {
        for callback in callbacks.iter_mut() {
            moment(
                callback.as_mut(),
                &mut TrainState {
                    module,
                    globals: live,
                    epoch: (step / length.steps_per_epoch) as usize,
                    step,
                    steps_per_epoch: length.steps_per_epoch,
                    loss,
                    metrics: &mut metrics,
                },
            )?;
        }
        Ok(())
    };
    call(|c, s| c.train_begin(s), &mut live, step, loss)?;
    while step < length.steps {
        if step.is_multiple_of(length.steps_per_epoch) {
            call(|c, s| c.epoch_begin(s), &mut live, step, loss)?;
        }
        call(|c, s| c.step_begin(s), &mut live, step, loss)?;
        let at = (step % length.steps_per_epoch) as usize * BATCH;
        let results = live.plan.step(&inputs(module, samples, at)?)?.results;
        loss = results.first().and_then(Tensor::to_f64s).and_then(|v| v.first().copied());
        step += 1;
        call(|c, s| c.step_end(s), &mut live, step, loss)?;
        if step.is_multiple_of(length.steps_per_epoch) {
            call(|c, s| c.epoch_end(s), &mut live, step, loss)?;
        }
    }
    call(|c, s| c.train_end(s), &mut live, step, loss)?;
    live.changed().into_iter().map(|id| Ok((id, live.plan.global(id)?))).collect()
}

type Moment = fn(&mut dyn Callback, &mut TrainState<'_>) -> CallbackResult;

/// Parameters and states live in the plan.
struct Live<'m> {
    plan: TrainPlan<'m>,
    /// What steps store to, and what callbacks have set.
    changed: BTreeSet<GlobalId>,
}

impl Globals for Live<'_> {
    fn get(&self, global: GlobalId) -> Result<Tensor> {
        Ok(self.plan.global(global)?)
    }

    fn set(&mut self, global: GlobalId, contents: Tensor) -> Result<()> {
        self.plan.set_globals(&[(global, contents)])?;
        self.changed.insert(global);
        Ok(())
    }

    fn changed(&self) -> Vec<GlobalId> {
        self.changed.iter().copied().collect()
    }
}

/// A callback of one's own: says now and then which weight is the largest.
struct Loudest {
    every: u64,
}

impl Callback for Loudest {
    fn step_end(&mut self, state: &mut TrainState<'_>) -> CallbackResult {
        if !state.step.is_multiple_of(self.every) {
            return Ok(());
        }
        let mut loudest = (0.0, "");
        for (id, global) in state.module.globals().filter(|(_, g)| g.trainable) {
            let values = state.globals.get(id)?.to_f64s().unwrap_or_default();
            let most = values.into_iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            if most > loudest.0 {
                loudest = (most, state.module.str(global.name));
            }
        }
        let loss = state.loss.unwrap_or_default();
        println!(
            "step {:>3}  loss {loss:.4}  the largest weight is {:.3}, in @{}",
            state.step, loudest.0, loudest.1
        );
        Ok(())
    }
}

/// A batch from a place on: the inputs of `@train` by name.
fn inputs(module: &Module, samples: &Samples, at: usize) -> Result<Vec<Tensor>> {
    let train = train_graph(module).ok_or("no graph @train")?;
    let mut fields = samples.batch(at..at + BATCH)?;
    let labels = samples.labels().map_err(said)?.unwrap_or_default();
    let labels: Vec<i128> = labels.iter().skip(at).take(BATCH).map(|&l| i128::from(l)).collect();
    fields.push(("labels".to_owned(), Tensor::from_ints(gs_ir::ElemType::I64, [labels.len()], &labels)?));
    let named = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
    let params = module.graph(train).params().iter();
    let names = params.map(|&p| module.str(module.value(p).name));
    names.map(|name| named(name).ok_or_else(|| format!("no field {name}").into())).collect()
}

fn open(part: &str, count: usize, module: &Module) -> Result<Samples> {
    let preprocess = PreprocessArgs { mean: None, std: None, raw255: false };
    Samples::open(&format!("shapes:{part}:{count}"), None, &preprocess, module).map_err(said)
}

fn accuracy(module: &Module, runtime: &Runtime, samples: &Samples) -> Result<f64> {
    let score =
        score(module, runtime, samples, BATCH, &mut Progress::new(), &mut |_| Ok(())).map_err(said)?;
    Ok(100.0 * score.top1().unwrap_or_default())
}

fn said(failure: gs_opt::failure::Failure) -> Box<dyn Error + Send + Sync> {
    failure.to_string().into()
}
