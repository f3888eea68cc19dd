//! Training end to end: a small network on drawn shapes.

use gs_eval::Tensor;
use gs_ir::{GlobalId, Module, Registry};
use gs_opt::cli::PreprocessArgs;
use gs_opt::source::Samples;
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_runtime::Runtime;
use gs_runtime::trainer::{Augment, Checkpoint, Engine, Next, TrainError, TrainOptions, Trainer};
use gs_tests::tool::{gs_opt, refuses, succeeds};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// A network of two convolutions for the pictures of `shapes`.
fn network() -> String {
    let mut text = String::from("gsir 1\ndims N >= 1\n");
    for (name, ty, init) in [
        ("param @w1", "f32[8, 3, 3, 3]", "normal(seed 1, 0.0, 0.3)"),
        ("param @g1", "f32[8]", "splat(1.0)"),
        ("param @b1", "f32[8]", "splat(0.0)"),
        ("const @m1", "f32[8]", "splat(0.0)"),
        ("const @v1", "f32[8]", "splat(1.0)"),
        ("param @w2", "f32[16, 8, 3, 3]", "normal(seed 2, 0.0, 0.17)"),
        ("param @c2", "f32[16]", "splat(0.0)"),
        ("param @w3", "f32[10, 256]", "normal(seed 3, 0.0, 0.06)"),
        ("param @c3", "f32[10]", "splat(0.0)"),
    ] {
        text += &format!("{name} : {ty} = {init}\n");
    }
    text + "graph @main(%x : f32[N, 3, 32, 32]) -> (%logits : f32[N, 10]) {
  %0 = conv(%x, @w1) {pads = [1, 1, 1, 1], strides = [2, 2]} : f32[N, 8, 16, 16] from \"conv1\"
  %1 = batch_norm(%0, @g1, @b1, @m1, @v1) : f32[N, 8, 16, 16] from \"bn1\"
  %2 = relu(%1) : f32[N, 8, 16, 16] from \"relu1\"
  %3 = conv(%2, @w2, @c2) {pads = [1, 1, 1, 1], strides = [2, 2]} : f32[N, 16, 8, 8] from \"conv2\"
  %4 = relu(%3) : f32[N, 16, 8, 8] from \"relu2\"
  %5 = max_pool(%4) {kernel_shape = [2, 2], strides = [2, 2]} : f32[N, 16, 4, 4] from \"pool\"
  %6 = flatten(%5) : f32[N, 256] from \"flat\"
  %7 = gemm(%6, @w3, @c3) {trans_b = true} : f32[N, 10] from \"fc\"
  return %7
}
"
}

/// The network with its graph of a training step.
fn trainable(lr: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(&network(), None, &Registry::builtin()).expect("a network");
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
    let options = TrainOptions { epochs, batch: 32, seed: 5, augment, engine: "test".to_owned() };
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
    let options = TrainOptions { epochs: 2, batch: 32, seed: 6, augment, engine: "test".to_owned() };
    let mut trainer = Trainer { engine: Engine::Runtime(&runtime), options, callbacks: Vec::new() };
    let refused = trainer
        .run(&mut module, &data, saved.as_ref(), &mut |_| Next::Go, &mut |_| Ok(()))
        .expect_err("a refusal");
    assert!(matches!(refused, TrainError::Checkpoint(_)), "{refused}");
    assert!(refused.to_string().contains("its seed is 5, here it is 6"), "{refused}");
}

fn tool(dir: &Path, more: &[&str]) -> Vec<String> {
    fs::write(dir.join("net.gsir"), network()).expect("a file");
    let batch = if more.contains(&"--batch") { &[][..] } else { &["--batch", "32"] };
    let args = ["train", "net.gsir", "--data", "shapes:train:96", "-o", "run"];
    args.iter().chain(batch).chain(more).map(|a| (*a).to_owned()).collect()
}

#[test]
fn the_tool_trains_converts_and_says_what_is_wrong() {
    let folder = tempdir().expect("a folder");
    let dir = folder.path();
    let fails = |more: &[&str], words: &[&str]| {
        let args = tool(dir, more);
        refuses(dir, &args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    fails(&["--batch", "100"], &["96 samples do not fill one batch of 100"]);
    fails(&["--resume"], &["no checkpoint"]);
    fails(&["--algorithm", "simcat"], &["no algorithm is named `simcat`", "simqat"]);
    let args = tool(dir, &["--lr", "1e30", "--epochs", "9"]);
    let astray = gs_opt(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(astray.status, Some(1));
    for word in ["the loss is", "first such number", "learning rate"] {
        assert!(astray.stderr.contains(word), "{}", astray.stderr);
    }
    let args = tool(dir, &["--val", "shapes:test:64"]);
    let said = succeeds(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("top-1 on 64 held-out samples"), "{}", said);
    fails(&[], &["holds a run already", "--resume"]);
    fails(&["--resume", "--seed", "7"], &["of another run", "seed"]);
    succeeds(dir, &["convert", "run", "-o", "net.onnx"]);
    succeeds(dir, &["eval", "net.onnx", "--data", "shapes:test:64"]);
    // With quantisers: every layer learns, and what is deployed runs in integers.
    let args = [
        "train",
        "net.gsir",
        "--data",
        "shapes:train:96",
        "--batch",
        "32",
        "--algorithm",
        "simqat",
        "-o",
        "q",
    ];
    succeeds(dir, &args);
    succeeds(dir, &["convert", "q", "-o", "q.onnx"]);
    succeeds(dir, &["eval", "q.onnx", "--data", "shapes:test:64"]);
    let text = succeeds(dir, &["q.onnx"]);
    for operator in ["quantize(", "dequantize(", "conv("] {
        assert!(text.contains(operator), "{text}");
    }
    let stored = fs::read_to_string(dir.join("q/trained.gsir")).expect("the trained network");
    let momenta = stored.lines().filter(|l| l.starts_with("state @") && l.contains(".momentum")).count();
    assert_eq!(momenta, 6, "two convolutions and a layer, a weight and a bias each:\n{stored}");
    fs::write(dir.join("run/checkpoint.safetensors"), b"\x09\0\0").expect("a file");
    fails(&["--resume"], &["no checkpoint, or not all of one"]);
}
