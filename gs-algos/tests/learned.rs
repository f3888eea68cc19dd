//! Algorithms whose grids are learned: what they make of a small network, that nothing pretrained changes, and that what
//! is deployed computes what training saw.

use gs_algos::algorithm::{Algorithm, RunLength, find};
use gs_algos::deploy::to_integers;
use gs_algos::freeze::freeze;
use gs_eval::random::unit;
use gs_eval::{DataSource, Evaluator, Executor, InMemory, Materializer, Tensor, TensorSpec};
use gs_ir::{ElemType, GlobalId, Module, Phase, Registry, Rewriter, infer_module, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline, Step};
use gs_passes::training::train_graph;
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};
use serde_json::json;
use std::collections::BTreeMap;

/// A residual network in small: conv, relu, a branch that is added to what it came from, and a classifier.
const NETWORK: &str = r#"gsir 1
dims N >= 1
param @stem.weight : f32[4, 3, 3, 3] = uniform(seed 1, -0.4, 0.4)
param @stem.bias : f32[4] = uniform(seed 2, -0.1, 0.1)
param @a.weight : f32[4, 4, 3, 3] = uniform(seed 3, -0.3, 0.3)
param @a.gamma : f32[4] = uniform(seed 8, 0.5, 1.5)
param @a.beta : f32[4] = uniform(seed 9, -0.2, 0.2)
const @a.mean : f32[4] = uniform(seed 10, -0.1, 0.1)
const @a.var : f32[4] = uniform(seed 11, 0.2, 0.4)
param @b.weight : f32[4, 4, 3, 3] = uniform(seed 5, -0.3, 0.3)
param @b.gamma : f32[4] = uniform(seed 12, 0.5, 1.5)
param @b.beta : f32[4] = uniform(seed 13, -0.2, 0.2)
const @b.mean : f32[4] = uniform(seed 14, -0.1, 0.1)
const @b.var : f32[4] = uniform(seed 15, 0.2, 0.4)
param @fc.weight : f32[5, 4] = uniform(seed 6, -0.5, 0.5)
param @fc.bias : f32[5] = uniform(seed 7, -0.1, 0.1)
graph @main(%image : f32[N, 3, 8, 8]) -> (%scores : f32[N, 5]) {
  %0 = conv(%image, @stem.weight, @stem.bias) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "stem"
  %1 = relu(%0) : f32[N, 4, 8, 8] from "stem.relu"
  %2 = conv(%1, @a.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "a"
  %3 = batch_norm(%2, @a.gamma, @a.beta, @a.mean, @a.var) : f32[N, 4, 8, 8] from "a.bn"
  %4 = relu(%3) : f32[N, 4, 8, 8] from "a.relu"
  %5 = conv(%4, @b.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "b"
  %6 = batch_norm(%5, @b.gamma, @b.beta, @b.mean, @b.var) : f32[N, 4, 8, 8] from "b.bn"
  %7 = add(%6, %1) : f32[N, 4, 8, 8] from "sum"
  %8 = relu(%7) : f32[N, 4, 8, 8] from "sum.relu"
  %9 = global_average_pool(%8) : f32[N, 4, 1, 1] from "pool"
  %10 = flatten(%9) : f32[N, 4] from "flat"
  %11 = gemm(%10, @fc.weight, @fc.bias) {trans_b = true} : f32[N, 5] from "fc"
  return %11
}
"#;

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

fn images(count: usize, seed: u64) -> Tensor {
    let values: Vec<f32> = (0..count * 192).map(|i| unit(seed, i as u64) as f32 * 2.0 - 1.0).collect();
    Tensor::f32s([count, 3, 8, 8], values).unwrap()
}

/// The algorithm of a text like `lsq{weight_bits=4}`.
fn algorithm(text: &str) -> Box<dyn Algorithm> {
    let pipeline = Pipeline::parse(text).unwrap();
    let step = &pipeline.steps[0];
    (find(&step.name).unwrap().make)(&step.options).unwrap()
}

/// Applies an algorithm with 16 images to calibrate with.
fn apply(module: &mut Module, text: &str) {
    let data = InMemory::new(vec![("image".to_owned(), images(16, 7))]).unwrap();
    let evaluator = Evaluator::new();
    let mut context = PassContext {
        executor: Some(&evaluator),
        data: BTreeMap::from([("calib".to_owned(), &data as &dyn DataSource)]),
        ..PassContext::default()
    };
    algorithm(text).apply(module, &mut context).unwrap_or_else(|e| panic!("{text}: {e}"));
    verify(module).unwrap_or_else(|e| panic!("{e:?}"));
}

fn outputs(module: &Module) -> Vec<f64> {
    let out = Evaluator::new().run(module, module.main().unwrap(), &[images(8, 3)], &[]).unwrap();
    out.results[0].to_f64s().unwrap()
}

fn brief(module: &Module) -> String {
    print_to_string(module, &PrintOptions::snapshot())
}

/// The network before, after `apply`, and after `convert`.
fn story(text: &str) -> String {
    let mut module = parsed(NETWORK);
    let before = brief(&module);
    apply(&mut module, text);
    let applied = brief(&module);
    algorithm(text).convert(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    format!("before\n{before}\nafter {text}\n{applied}\nconverted\n{}", brief(&module))
}

/// The contents of the globals of a network, by name.
fn contents(module: &Module) -> BTreeMap<String, Tensor> {
    let mut reader = Materializer::new(module);
    let all: Vec<(GlobalId, String)> =
        module.globals().map(|(id, g)| (id, module.str(g.name).to_owned())).collect();
    all.into_iter().map(|(id, name)| (name, reader.tensor(id).unwrap())).collect()
}

/// Those that put something in their place.
const CHOOSING: &[&str] = &[
    "slb",
    "slb{bits=1, act_bits=8, per_channel=false, train_scale=false}",
    "slb{bits=4, hard_phase=frozen, layers={a={weight_bits=3}}}",
];

fn all() -> impl Iterator<Item = &'static str> {
    KEEPING.iter().chain(CHOOSING).copied()
}

/// Every algorithm that keeps the weights themselves, in several settings.
const KEEPING: &[&str] = &[
    "lsq",
    "lsq{weight_bits=2, act_bits=2, per_channel=true}",
    "lsq{weight_bits=8, act_bits=8, init=lsq}",
    "lsq{weight_bits=8, act_bits=8, observer=minmax}",
    "pact",
    "pact{weight_bits=1, act_bits=2, per_channel=false, train_scale=true}",
    "pact{weight_bits=7, act_bits=8, clip=100}",
    "lsq{weight_bits=3, act_bits=5, layers={fc={weight_bits=6}}}",
];

#[test]
fn lsq_in_three_texts() {
    insta::assert_snapshot!(story("lsq"));
}

#[test]
fn pact_in_three_texts() {
    insta::assert_snapshot!(story("pact"));
}

#[test]
fn slb_in_three_texts() {
    insta::assert_snapshot!(story("slb"));
}

#[test]
fn slb_with_activations_in_three_texts() {
    insta::assert_snapshot!(story("slb{bits=1, act_bits=8}"));
}

#[test]
fn pretrained_weights_stay_bit_for_bit() {
    let before = contents(&parsed(NETWORK));
    for text in KEEPING {
        let mut module = parsed(NETWORK);
        apply(&mut module, text);
        let after = contents(&module);
        for (name, tensor) in &before {
            assert!(after.get(name).is_some_and(|t| t.same_bits(tensor)), "{text}: {name}");
        }
    }
}

#[test]
fn every_parameter_has_a_value_after_apply() {
    for text in all() {
        let mut module = parsed(NETWORK);
        apply(&mut module, text);
        assert_eq!(Phase::of(&module), Phase::Instrumented, "{text}");
        for (name, tensor) in contents(&module) {
            assert!(tensor.to_f64s().unwrap().iter().all(|v| v.is_finite()), "{text}: {name}");
        }
    }
}

#[test]
fn applying_twice_is_applying_once() {
    for text in all() {
        let mut module = parsed(NETWORK);
        apply(&mut module, text);
        let once = brief(&module);
        let values = contents(&module);
        apply(&mut module, text);
        assert_eq!(brief(&module), once, "{text}");
        for (name, tensor) in contents(&module) {
            assert!(values.get(&name).is_some_and(|t| t.same_bits(&tensor)), "{text}: {name}");
        }
    }
}

/// The layers whose weights have a grid for each channel, by the operator that quantises them.
fn per_channel(module: &Module) -> BTreeMap<String, bool> {
    let quantises = |op: gs_ir::OpId| {
        let weight = module.op(op).operand(0).is_some_and(|v| module.as_global(v).is_some());
        weight && ["lsq", "dorefa", "slb", "fake_quant"].contains(&module.op_name(op))
    };
    let named = |op: gs_ir::OpId| {
        let reader = module.user_ops(module.op(op).result())[0];
        (module.label(reader).to_owned(), module.attrs_of(op).get("axis").is_some())
    };
    module.all_ops().into_iter().filter(|&op| quantises(op)).map(named).collect()
}

/// What is said of single layers, and of all, is so with odd levels too.
#[test]
fn layers_have_the_granularity_that_is_asked_for() {
    for name in ["lsq{per_channel=true", "pact{per_channel=true", "slb{act_bits=8"] {
        let mut module = parsed(NETWORK);
        apply(&mut module, &format!("{name}, layers={{a={{weight_per_channel=false}}}}}}"));
        let wanted = [("stem", true), ("a", false), ("b", true), ("fc", true)];
        let wanted = wanted.map(|(layer, each)| (layer.to_owned(), each));
        assert_eq!(per_channel(&module), BTreeMap::from(wanted), "{name}");
    }
    for name in ["lsq{per_channel=false}", "pact{per_channel=false}", "slb{act_bits=8, per_channel=false}"] {
        let mut module = parsed(NETWORK);
        apply(&mut module, name);
        assert!(per_channel(&module).values().all(|each| !each), "{name}");
    }
}

/// What a target does not have is refused before anything is placed, in the words of the algorithm.
#[test]
fn what_contradicts_the_target_is_said_in_the_words_of_the_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    let with = |from: &str, to: &str| {
        let path = folder.path().join("other.toml");
        let text = include_str!("../targets/ort-cpu.toml");
        assert!(text.contains(from));
        std::fs::write(&path, text.replace(from, to)).unwrap();
        path
    };
    let refused = |text: &str, path: &std::path::Path, words: &str| {
        let step = Pipeline::parse(text).unwrap().steps.remove(0);
        let mut options = step.options;
        options.insert("target".to_owned(), json!(path));
        let algorithm = (find(&step.name).unwrap().make)(&options).unwrap();
        let said = algorithm.apply(&mut parsed(NETWORK), &mut PassContext::default());
        let said = said.expect_err(text).to_string();
        assert!(said.contains(words), "{text}: {said}");
    };
    let tensors = with("\"tensor\", \"channel\"", "\"tensor\"");
    for text in ["pact", "slb", "lsq{per_channel=true}"] {
        refused(text, &tensors, "`per_channel` = true");
    }
    let pairs = with("pair_saturation = false", "pair_saturation = true");
    refused("pact", &pairs, "`edge_bits` = 8");
    refused("pact{weight_bits=7, edge_bits=7}", &pairs, "`weight_bits` = 7");
    refused("lsq{weight_bits=8, edge_bits=7}", &pairs, "`weight_bits` = 8");
}

/// Weights alone are quantised: what is deployed computes the same numbers.
#[test]
fn weights_on_levels_are_deployed_exactly() {
    for text in CHOOSING.iter().filter(|t| !t.contains("act_bits")) {
        let mut module = parsed(NETWORK);
        apply(&mut module, text);
        let seen = outputs(&module);
        let algorithm = algorithm(text);
        algorithm.convert(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
        // The factors of batch normalisation are part of the scales now; codes are as they were.
        for (a, b) in seen.iter().zip(outputs(&module)) {
            assert!((a - b).abs() < 1e-6, "{text}: {a} in training, {b} deployed");
        }
        // None of the logits is left.
        assert!(module.globals().all(|(_, g)| !module.str(g.name).contains("logits")), "{text}");
    }
}

fn run_pass(module: &mut Module, name: &str, options: serde_json::Value) {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let options = options.as_object().cloned().unwrap_or_default();
    let pipeline = Pipeline { steps: vec![Step { name: name.to_owned(), options, at: 0 }] };
    let manager = PassManager { registry: &registry, verify_each: true };
    manager
        .run(&pipeline, module, &mut PassContext::default(), &mut |_| {})
        .unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// A step of training, twenty times over eight images: the loss falls, and each kind of parameter has moved.
#[test]
fn networks_learn() {
    for text in all() {
        let mut module = parsed(NETWORK);
        apply(&mut module, text);
        let algorithm = algorithm(text);
        let length = RunLength { steps: 20, steps_per_epoch: 20 };
        run_pass(&mut module, "loss", json!({}));
        algorithm.prepare_training(&mut module, length).unwrap_or_else(|e| panic!("{text}: {e}"));
        run_pass(&mut module, "grad", json!({}));
        let groups = algorithm.param_groups(&module);
        run_pass(&mut module, "update", json!({ "lr": 0.05, "groups": groups }));
        let names: Vec<String> = groups.into_iter().flat_map(|g| g.params).collect();
        assert!(!names.is_empty(), "{text}");
        let labels = Tensor::i64s([8], (0..8).map(|i| i % 5).collect::<Vec<i64>>()).unwrap();
        let inputs = [images(8, 3), labels];
        let train = train_graph(&module).unwrap();
        let specs: Vec<_> = inputs.iter().map(TensorSpec::of).collect();
        let evaluator = Evaluator::new();
        let before = contents(&module);
        let mut now = before.clone();
        let mut losses = Vec::new();
        let mut plan = evaluator.prepare(&module, train, &specs, &[]).unwrap();
        for _ in 0..20 {
            let out = plan.run(&inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{text}: {e}"));
            losses.push(out.results[0].to_f64s().unwrap()[0]);
            for (global, value) in out.updates {
                plan.set_global(global, &value).unwrap();
                now.insert(module.str(module.global(global).name).to_owned(), value);
            }
        }
        assert!(losses[19] < losses[0] - 0.02, "{text}: {losses:?}");
        for name in names {
            assert!(!now[&name].same_bits(&before[&name]), "{text}: @{name} has not moved");
        }
    }
}

/// Steps of the grid of the network's output.
fn output_step(frozen: &Module) -> f64 {
    let main = frozen.main().unwrap();
    let result = frozen.graph(main).results().next().unwrap();
    let qdq = frozen.producer(result).filter(|&op| frozen.is(op, "qdq")).unwrap();
    let scale = frozen.as_global(frozen.op(qdq).operand(1).unwrap()).unwrap();
    Materializer::new(frozen).tensor(scale).unwrap().to_f64s().unwrap()[0]
}

/// A frozen network whose biases are not rounded.
fn with_exact_biases(frozen: &Module) -> Module {
    let mut module = frozen.clone();
    let mut rewriter = Rewriter::new(&mut module);
    for op in rewriter.all_ops() {
        let zero_point = rewriter.op(op).operand(2).map(|v| rewriter.type_of(v).elem());
        if rewriter.is(op, "qdq") && zero_point == Some(Some(ElemType::I32)) {
            let (old, bias) = (rewriter.op(op).result(), rewriter.op(op).operand(0).unwrap());
            rewriter.replace_uses(old, bias);
            rewriter.erase(op);
        }
    }
    module
}

fn within(a: &[f64], b: &[f64], most: f64, what: &str) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= most, "{what}: {a} and {b} are more than {most} apart");
    }
}

/// The frozen network computes what training saw, but for the rounding of biases: their grid is the product of the steps
/// of data and weight, which is coarse where both have few bits. Its integers compute what it computes.
#[test]
fn what_is_deployed_computes_what_training_saw() {
    for text in all().filter(|t| !t.starts_with("slb") || t.contains("act_bits")) {
        let mut module = parsed(NETWORK);
        apply(&mut module, text);
        let seen = outputs(&module);
        freeze(&mut module).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(Phase::of(&module), Phase::Frozen, "{text}");
        let step = output_step(&module) * 1.01;
        within(&seen, &outputs(&with_exact_biases(&module)), step, text);
        let frozen = outputs(&module);
        to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{text}: {e}"));
        let names: Vec<&str> = module.all_ops().iter().map(|op| module.op_name(*op)).collect();
        let float = ["conv", "gemm", "add", "lsq", "pact", "dorefa", "slb", "fake_quant", "qdq"];
        assert!(!names.iter().any(|n| float.contains(n)), "{text}: {names:?}");
        within(&frozen, &outputs(&module), step, text);
    }
}

/// Parts of networks between a first and a last layer: globals, and what becomes of `%h : f32[N, 4, 6, 6]`.
const PATTERNS: &[(&str, &str, &str)] = &[
    ("conv", CONV, "  %p = conv(%h, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"p\"\n"),
    ("conv + bias", CONV, "  %p = conv(%h, @w, @b) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"p\"\n"),
    (
        "conv + bias + bn",
        CONV,
        "  %c = conv(%h, @w, @b) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %p = batch_norm(%c, @gamma, @beta, @mean, @var) : f32[N, 4, 6, 6] from \"p\"\n",
    ),
    (
        "conv + bn + relu",
        CONV,
        "  %c = conv(%h, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %n = batch_norm(%c, @gamma, @beta, @mean, @var) : f32[N, 4, 6, 6] from \"n\"\n  \
         %p = relu(%n) : f32[N, 4, 6, 6] from \"p\"\n",
    ),
    (
        "depthwise + bn",
        "param @w : f32[4, 1, 3, 3] = uniform(seed 3, -0.6, 0.6)\n",
        "  %c = conv(%h, @w) {group = 4, pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %p = batch_norm(%c, @gamma, @beta, @mean, @var) : f32[N, 4, 6, 6] from \"p\"\n",
    ),
    (
        "linear",
        "param @w : f32[5, 144] = uniform(seed 3, -0.1, 0.1)\n",
        "  %f = flatten(%h) : f32[N, 144] from \"f\"\n  \
         %l = gemm(%f, @w) {trans_b = true} : f32[N, 5] from \"l\"\n  \
         %r = relu(%l) : f32[N, 5] from \"r\"\n  \
         %p = reshape(%r) {shape = [N, 5, 1, 1]} : f32[N, 5, 1, 1] from \"p\"\n",
    ),
    (
        "linear + bn",
        "param @w : f32[144, 4] = uniform(seed 3, -0.1, 0.1)\n",
        "  %f = flatten(%h) : f32[N, 144] from \"f\"\n  \
         %l = gemm(%f, @w, @b) : f32[N, 4] from \"l\"\n  \
         %r = batch_norm(%l, @gamma, @beta, @mean, @var) : f32[N, 4] from \"r\"\n  \
         %p = reshape(%r) {shape = [N, 4, 1, 1]} : f32[N, 4, 1, 1] from \"p\"\n",
    ),
    (
        "residual add",
        CONV,
        "  %c = conv(%h, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %s = add(%c, %h) : f32[N, 4, 6, 6] from \"s\"\n  %p = relu(%s) : f32[N, 4, 6, 6] from \"p\"\n",
    ),
    (
        "concat",
        CONV,
        "  %c = conv(%h, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %r = relu(%c) : f32[N, 4, 6, 6] from \"r\"\n  \
         %p = concat(%r, %h) {axis = 1} : f32[N, 8, 6, 6] from \"p\"\n",
    ),
    (
        "shared weight",
        CONV,
        "  %c = conv(%h, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %r = relu(%c) : f32[N, 4, 6, 6] from \"r\"\n  \
         %p = conv(%r, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"p\"\n",
    ),
    (
        "shared weight + bn",
        CONV,
        "  %c = conv(%h, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %n = batch_norm(%c, @b, @beta, @mean, @var) : f32[N, 4, 6, 6] from \"n\"\n  \
         %r = relu(%n) : f32[N, 4, 6, 6] from \"r\"\n  \
         %d = conv(%r, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"d\"\n  \
         %p = batch_norm(%d, @gamma, @beta, @mean, @var) : f32[N, 4, 6, 6] from \"p\"\n",
    ),
    (
        "negative values",
        CONV,
        "  %c = conv(%h, @w, @b) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"c\"\n  \
         %p = conv(%c, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"p\"\n",
    ),
];

const CONV: &str = "param @w : f32[4, 4, 3, 3] = uniform(seed 3, -0.3, 0.3)\n";

/// The pattern between a first and a last layer.
fn around(globals: &str, body: &str) -> Module {
    let channels = body.rsplit(" : f32[N, ").next().and_then(|t| t.split(',').next()).unwrap();
    let size = body.rsplit(" : f32[N, ").next().and_then(|t| t.split(", ").nth(1)).unwrap();
    parsed(&format!(
        "gsir 1\ndims N >= 1\nparam @first : f32[4, 3, 3, 3] = uniform(seed 1, -0.4, 0.4)\n{globals}\
         param @b : f32[4] = uniform(seed 2, -0.1, 0.1)\nparam @gamma : f32[4] = dense(0.7, -1.2, 1.5, 0.9)\n\
         param @beta : f32[4] = uniform(seed 9, -0.2, 0.2)\nconst @mean : f32[4] = uniform(seed 10, -0.1, 0.1)\n\
         const @var : f32[4] = uniform(seed 11, 0.2, 0.4)\n\
         param @last : f32[3, {channels}, 1, 1] = uniform(seed 12, -0.4, 0.4)\n\
         graph @main(%image : f32[N, 3, 8, 8]) -> (%y : f32[N, 3, {size}, {size}]) {{\n  \
         %0 = conv(%image, @first) : f32[N, 4, 6, 6] from \"first\"\n  %h = relu(%0) : f32[N, 4, 6, 6] from \"h\"\n\
         {body}  %1 = conv(%p, @last) : f32[N, 3, {size}, {size}] from \"last\"\n  return %1\n}}\n"
    ))
}

/// Each pattern under each algorithm: the frozen network computes what training saw, integers what is frozen.
#[test]
fn every_pattern_is_deployed_as_it_was_trained() {
    for (name, globals, body) in PATTERNS {
        for text in
            ["lsq", "lsq{per_channel=true}", "pact", "slb{bits=2, act_bits=8}", "slb{bits=1, act_bits=4}"]
        {
            let what = format!("{name}, {text}");
            let mut module = around(globals, body);
            let float = outputs(&module);
            apply(&mut module, text);
            let seen = outputs(&module);
            assert!(seen.iter().any(|v| *v != 0.0) && seen != float, "{what}");
            freeze(&mut module).unwrap_or_else(|e| panic!("{what}: {e}"));
            let step = output_step(&module) * 1.01;
            within(&seen, &outputs(&with_exact_biases(&module)), step, &what);
            let frozen = outputs(&module);
            to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{what}: {e}"));
            let left: Vec<&str> = module.all_ops().iter().map(|op| module.op_name(*op)).collect();
            assert!(
                !left.iter().any(|n| ["conv", "gemm", "batch_norm", "qdq"].contains(n)),
                "{what}: {left:?}"
            );
            within(&frozen, &outputs(&module), step, &what);
        }
    }
}

/// Weights that are tied and then trained apart are named.
#[test]
fn weights_that_come_apart_are_named() {
    let text = "gsir 1\nparam @w : f32[4, 4] = uniform(seed 1, -1.0, 1.0)\n\
                graph @main(%x : f32[8, 4]) -> (%y : f32[8, 4]) {\n  \
                %0 = gemm(%x, @w) : f32[8, 4] from \"in\"\n  \
                %t = transpose(@w) {perm = [1, 0]} : f32[4, 4]\n  \
                %1 = gemm(%0, %t) : f32[8, 4] from \"out\"\n  return %1\n}\n";
    let mut module = parsed(text);
    gs_passes::passes::fold_constants(&mut module);
    let mut context = PassContext::default();
    let loss = gs_passes::training::Loss::default();
    let report = gs_passes::manager::Pass::run(&loss, &mut module, &mut context).unwrap();
    assert!(report.notes.len() == 1 && report.notes[0].contains("computed from @w"), "{:?}", report.notes);
}
