//! Training end to end: a small network on drawn shapes.

use gs_eval::Tensor;
use gs_ir::{GlobalId, Module, Registry};
use gs_opt::cli::PreprocessArgs;
use gs_opt::source::Samples;
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_runtime::Runtime;
use gs_runtime::trainer::{Augment, Checkpoint, Engine, Next, TrainError, TrainOptions, Trainer};

/// A network of two convolutions for the pictures of `shapes`.
const NETWORK: &str = include_str!("../networks/small.gsir");

/// The network with its graph of a training step.
fn trainable(lr: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(NETWORK, None, &Registry::builtin()).expect("a network");
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let pipeline = Pipeline::parse(&format!("loss,grad,update{{lr={lr}}}")).expect("a pipeline");
    PassManager { registry: &registry, verify_each: true }
        .run(&pipeline, &mut module, &mut PassContext::default(), &mut |_| {})
        .expect("a training graph");
    module
}

fn shapes(module: &Module, count: usize) -> Samples {
    let spec = format!("shapes:train:{count}");
    let preprocess = PreprocessArgs { mean: None, std: None, raw255: false };
    Samples::open(&spec, None, &preprocess, module).expect("shapes").for_training()
}

struct Run {
    losses: Vec<f64>,
    weights: Vec<Vec<f64>>,
    saved: Option<Checkpoint>,
}

/// Trains on 330 changed pictures for some epochs; stops after `stop` steps, where given, with a checkpoint.
fn train(threads: usize, epochs: usize, stop: Option<u64>, from: Option<&Checkpoint>) -> Run {
    train_on(330, Augment { crop: 2, flip: true }, threads, epochs, stop, from)
}

fn train_on(
    samples: usize,
    augment: Augment,
    threads: usize,
    epochs: usize,
    stop: Option<u64>,
    from: Option<&Checkpoint>,
) -> Run {
    let mut module = trainable("0.05");
    let data = shapes(&module, samples);
    let runtime = Runtime::new(Some(threads)).expect("threads");
    let options =
        TrainOptions { epochs, batch: 32, seed: 5, augment, engine: "test".to_owned(), settings: Vec::new() };
    let mut trainer = Trainer { engine: Engine::Runtime(&runtime), options, callbacks: Vec::new() };
    let (mut losses, mut saved) = (Vec::new(), None);
    trainer
        .run(
            &mut module,
            &data,
            from,
            &mut |done| {
                losses.push(done.loss);
                if Some(done.step) == stop { Next::Stop } else { Next::Go }
            },
            &mut |checkpoint| {
                // Through the bytes of a file, as a host would.
                let bytes = checkpoint.to_bytes()?;
                saved = Some(Checkpoint::from_bytes(&bytes)?);
                assert!(Checkpoint::from_bytes(&bytes[..bytes.len() - 5]).is_err());
                Ok(())
            },
        )
        .unwrap_or_else(|e| panic!("{e}"));
    let mut materializer = gs_eval::Materializer::new(&module);
    let mut weight = |id: GlobalId| -> Vec<f64> {
        let tensor: Tensor = materializer.tensor(id).expect("contents");
        tensor.to_f64s().expect("numbers")
    };
    let ids: Vec<GlobalId> = module.globals().map(|(id, _)| id).collect();
    Run { losses, weights: ids.into_iter().map(&mut weight).collect(), saved }
}

fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len() as f64
}

#[test]
fn a_network_learns() {
    // Few pictures, often: it can learn them by heart.
    let run = train_on(64, Augment::default(), 2, 50, None, None);
    assert_eq!(run.losses.len(), 100);
    let (first, last) = (mean(&run.losses[..10]), mean(&run.losses[90..]));
    assert!(last < 0.3 * first, "the loss went from {first} to {last}");
}

#[test]
fn a_run_taken_up_ends_as_one_that_was_not_interrupted() {
    let whole = train(2, 2, None, None);
    let half = train(2, 2, Some(13), None);
    let rest = train(2, 2, None, half.saved.as_ref());
    assert_eq!(half.losses, whole.losses[..13]);
    assert_eq!(rest.losses, whole.losses[13..]);
    assert_eq!(rest.weights, whole.weights);
    assert_ne!(half.weights, whole.weights);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (one, three) = (train(1, 1, None, None), train(3, 1, None, None));
    assert_eq!(one.losses, three.losses);
    assert_eq!(one.weights, three.weights);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let saved = train(1, 2, Some(1), None).saved;
    let mut module = trainable("0.05");
    let data = shapes(&module, 330);
    let runtime = Runtime::new(Some(1)).expect("threads");
    let augment = Augment { crop: 2, flip: true };
    let options = TrainOptions {
        epochs: 2,
        batch: 32,
        seed: 6,
        augment,
        engine: "test".to_owned(),
        settings: Vec::new(),
    };
    let mut trainer = Trainer { engine: Engine::Runtime(&runtime), options, callbacks: Vec::new() };
    let refused = trainer
        .run(&mut module, &data, saved.as_ref(), &mut |_| Next::Go, &mut |_| Ok(()))
        .expect_err("a refusal");
    assert!(matches!(refused, TrainError::Checkpoint(_)), "{refused}");
    assert!(refused.to_string().contains("its seed is 5, here it is 6"), "{refused}");
}
