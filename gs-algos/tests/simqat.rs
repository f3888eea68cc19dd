//! SimQAT from a float network to integers: the network before, with quantisers, its step of training, and deployed, as
//! text; and what happens at the moments that a configuration names.

use gs_algos::algorithm::{Algorithm, RunLength};
use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::freeze::freeze;
use gs_algos::recalibrate::{RecalibrateOptions, RecalibrateReport, recalibrate_bn};
use gs_algos::simqat::{SimQat, SimQatConfig};
use gs_eval::random::unit;
use gs_eval::{Evaluator, Executor, InMemory, Materializer, Tensor, TensorSpec};
use gs_ir::{Init, Module, Registry, Rewriter, infer_module, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline, Step};
use gs_passes::training::{drop_training, train_graph};
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};

const NETWORK: &str = "gsir 1
dims N >= 1
param @stem.weight : f32[4, 3, 3, 3] = uniform(seed 1, -0.5, 0.5)
param @stem.gamma : f32[4] = dense(1.5, -0.75, 0.3, 2.0)
param @stem.beta : f32[4] = dense(0.5, 0.25, -0.5, 0.1)
const @stem.mean : f32[4] = dense(0.1, -0.2, 0.3, 0.4)
const @stem.var : f32[4] = dense(1.0, 0.5, 0.03, 2.0)
param @block.weight : f32[4, 4, 3, 3] = uniform(seed 2, -0.5, 0.5)
param @block.gamma : f32[4] = dense(0.5, 0.75, 0.3, 1.0)
param @block.beta : f32[4] = splat(0.0)
const @block.mean : f32[4] = splat(0.0)
const @block.var : f32[4] = splat(1.0)
param @fc.weight : f32[3, 4] = uniform(seed 3, -0.5, 0.5)
param @fc.bias : f32[3] = splat(0.0)
graph @main(%x : f32[N, 3, 6, 6]) -> (%logits : f32[N, 3]) {
  %stem = conv(%x, @stem.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"stem\"
  %stem_bn = batch_norm(%stem, @stem.gamma, @stem.beta, @stem.mean, @stem.var) : f32[N, 4, 6, 6] from \"stem_bn\"
  %stem_relu = relu(%stem_bn) : f32[N, 4, 6, 6] from \"stem_relu\"
  %block = conv(%stem_relu, @block.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 6, 6] from \"block\"
  %block_bn = batch_norm(%block, @block.gamma, @block.beta, @block.mean, @block.var) : f32[N, 4, 6, 6] from \"block_bn\"
  %sum = add(%block_bn, %stem_relu) : f32[N, 4, 6, 6] from \"sum\"
  %sum_relu = relu(%sum) : f32[N, 4, 6, 6] from \"sum_relu\"
  %pool = global_average_pool(%sum_relu) : f32[N, 4, 1, 1] from \"pool\"
  %flat = flatten(%pool) : f32[N, 4] from \"flat\"
  %logits = gemm(%flat, @fc.weight, @fc.bias) {trans_b = true} : f32[N, 3] from \"fc\"
  return %logits
}
";

fn network() -> Module {
    let mut module = gs_text::gsir::parse_module(NETWORK, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", NETWORK), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    module
}

fn images(n: usize) -> Tensor {
    let values: Vec<f32> = (0..n * 108).map(|i| unit(7, i as u64) as f32 * 2.0 - 1.0).collect();
    Tensor::f32s([n, 3, 6, 6], values).expect("images")
}

fn algorithm(options: &str) -> SimQat {
    let config: SimQatConfig = toml::from_str(options).unwrap_or_else(|e| panic!("{e}"));
    config.check().unwrap_or_else(|e| panic!("{e}"));
    SimQat { config }
}

fn applied(algorithm: &SimQat) -> Module {
    let mut module = network();
    algorithm.apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    let data = InMemory::new(vec![("x".to_owned(), images(8))]).expect("data");
    calibrate(&mut module, &Evaluator::new(), &data, &CalibrateOptions::default(), &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{e}"));
    module
}

fn pass(module: &mut Module, name: &str, options: serde_json::Value) {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let options = options.as_object().cloned().unwrap_or_default();
    let pipeline = Pipeline { steps: vec![Step { name: name.to_owned(), options, at: 0 }] };
    manager
        .run(&pipeline, module, &mut PassContext::default(), &mut |_| {})
        .unwrap_or_else(|e| panic!("{e}"));
}

fn with_step(algorithm: &SimQat, steps: u64) -> Module {
    let mut module = applied(algorithm);
    pass(&mut module, "loss", serde_json::json!({}));
    algorithm
        .prepare_training(&mut module, RunLength { steps, steps_per_epoch: steps })
        .unwrap_or_else(|e| panic!("{e}"));
    let groups = algorithm.param_groups(&module);
    pass(&mut module, "grad", serde_json::json!({}));
    pass(&mut module, "update", serde_json::json!({ "lr": 0.05, "steps": steps, "groups": groups }));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

fn text(module: &Module) -> String {
    print_to_string(module, &PrintOptions::snapshot())
}

#[test]
fn the_network_before_with_quantisers_in_training_and_deployed() {
    let algorithm = algorithm("quant_delay = 2");
    insta::assert_snapshot!("float", text(&network()));
    let mut module = applied(&algorithm);
    insta::assert_snapshot!("applied", text(&module));
    let mut again = module.clone();
    algorithm.apply(&mut again, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(text(&again), text(&module), "applying twice equals once");
    insta::assert_snapshot!("training", text(&with_step(&algorithm, 10)));
    let mut frozen = module.clone();
    freeze(&mut frozen).unwrap_or_else(|e| panic!("{e}"));
    verify(&frozen).unwrap_or_else(|e| panic!("{e:?}"));
    insta::assert_snapshot!("frozen", text(&frozen));
    algorithm.convert(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    insta::assert_snapshot!("deployed", text(&module));
}

/// Runs steps of training; after each the contents of some globals.
fn train(module: &mut Module, steps: usize, watched: &[&str]) -> Vec<Vec<Vec<f64>>> {
    let train = train_graph(module).expect("@train");
    let labels = Tensor::i64s([8], (0..8).map(|i| i % 3).collect::<Vec<i64>>()).expect("labels");
    let inputs = [images(8), labels];
    let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
    let mut seen = Vec::new();
    for _ in 0..steps {
        let output = {
            let evaluator = Evaluator::new();
            let mut plan = evaluator.prepare(module, train, &specs, &[]).unwrap_or_else(|e| panic!("{e}"));
            plan.run(&inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"))
        };
        let mut rewriter = Rewriter::new(module);
        for (global, tensor) in output.updates {
            let ty = rewriter.ty(rewriter.global(global).ty).clone();
            rewriter.set_global(global, ty, Init::Data(tensor.data()));
        }
        let mut materializer = Materializer::new(module);
        let mut contents = |name: &&str| {
            let global = module.global_named(name).unwrap_or_else(|| panic!("no @{name}"));
            materializer.tensor(global).expect("contents").to_f64s().expect("numbers")
        };
        seen.push(watched.iter().map(&mut contents).collect());
    }
    seen
}

fn results(module: &Module) -> Tensor {
    let main = module.main().expect("a graph");
    let run = Evaluator::new().run(module, main, &[images(8)], &[]);
    run.unwrap_or_else(|e| panic!("{e}")).results[0].clone()
}

#[test]
fn statistics_and_ranges_stop_following_at_their_moments() {
    let algorithm = algorithm("freeze_bn = 3\nfreeze_ranges = 0.5");
    let mut module = with_step(&algorithm, 10);
    let watched = ["stem.mean", "block.var", "stem_relu.range", "stem.weight.range", "stem.weight"];
    let seen = train(&mut module, 7, &watched);
    let changes = |what: usize| -> Vec<bool> { seen.windows(2).map(|w| w[0][what] != w[1][what]).collect() };
    // The steps 0, 1 and 2 change statistics; between the contents after step 0 and those after step 6 are six changes.
    assert_eq!(changes(0), [true, true, false, false, false, false]);
    assert_eq!(changes(1), [true, true, false, false, false, false]);
    assert_eq!(changes(2), [true, true, true, true, false, false]);
    // A weight and the range that it is seen with go on.
    assert!(changes(3).iter().all(|c| *c));
    assert!(changes(4).iter().all(|c| *c));
}

/// Before the delay is over a step is that of the float network, but ranges follow what is seen.
#[test]
fn quantisers_begin_late() {
    let at_once = algorithm("weight = { bits = 2 }");
    let late = algorithm("weight = { bits = 2 }\nquant_delay = 2");
    let mut float = network();
    // Factors are made positive; the float network that is compared has them so too.
    let applied = applied(&at_once);
    for name in ["stem.weight", "stem.gamma", "stem.mean"] {
        let (from, to) =
            (applied.global_named(name).expect("a global"), float.global_named(name).expect("a global"));
        let tensor = Materializer::new(&applied).tensor(from).expect("contents");
        let mut rewriter = Rewriter::new(&mut float);
        let ty = rewriter.ty(rewriter.global(to).ty).clone();
        rewriter.set_global(to, ty, Init::Data(tensor.data()));
    }
    pass(&mut float, "loss", serde_json::json!({}));
    pass(&mut float, "grad", serde_json::json!({}));
    pass(&mut float, "update", serde_json::json!({ "lr": 0.05, "steps": 10 }));
    let watched = ["stem.weight", "fc.weight"];
    let plain = train(&mut float, 4, &watched);
    let delayed = train(&mut with_step(&late, 10), 4, &watched);
    let quantised = train(&mut with_step(&at_once, 10), 4, &watched);
    assert_eq!(plain[..2], delayed[..2]);
    assert_ne!(plain[2], delayed[2]);
    assert_ne!(plain[0], quantised[0]);
    let ranges = train(&mut with_step(&late, 10), 2, &["stem_relu.range"]);
    assert_ne!(ranges[0], ranges[1]);
}

/// Statistics measured anew are those of the values that are normalised, with quantised weights, whatever they were.
#[test]
fn recalibration_measures_what_is_normalised() {
    let mut module = applied(&algorithm("weight = { bits = 2 }"));
    let data = InMemory::new(vec![("x".to_owned(), images(20))]).expect("data");
    let options = RecalibrateOptions { batches: 50, batch: 8 };
    let report = recalibrate_bn(&mut module, &Evaluator::new(), &data, &options, &mut |_, _| true);
    assert_eq!(report.expect("a run"), RecalibrateReport { norms: 2, samples: 16 });
    let main = module.main().expect("a graph");
    let stem = module.ops_in(main).find(|&op| module.is(op, "conv")).expect("a layer");
    let tap = [module.op(stem).result()];
    let mut means = [[0.0; 4]; 2];
    let mut vars = [[0.0; 4]; 2];
    for (batch, (means, vars)) in means.iter_mut().zip(&mut vars).enumerate() {
        let rows: Vec<f32> =
            images(20).as_f32().expect("f32")[batch * 8 * 108..(batch + 1) * 8 * 108].to_vec();
        let x = Tensor::f32s([8, 3, 6, 6], rows).expect("images");
        let run = Evaluator::new().run(&module, main, &[x], &tap).unwrap_or_else(|e| panic!("{e}"));
        let values = run.taps[0].to_f64s().expect("numbers");
        for (c, (mean, var)) in means.iter_mut().zip(vars.iter_mut()).enumerate() {
            let of_c: Vec<f64> = values.chunks(36).skip(c).step_by(4).flatten().copied().collect();
            let n = of_c.len() as f64;
            *mean = of_c.iter().sum::<f64>() / n;
            *var = of_c.iter().map(|v| (v - *mean).powi(2)).sum::<f64>() / (n - 1.0);
        }
    }
    let close = |name: &str, of: &[[f64; 4]; 2]| {
        let global = module.global_named(name).expect("a global");
        let found = Materializer::new(&module).tensor(global).expect("contents").to_f64s().expect("numbers");
        for (c, found) in found.iter().enumerate() {
            let wanted = (of[0][c] + of[1][c]) / 2.0;
            assert!((found - wanted).abs() < 1e-5, "@{name}[{c}]: {found} for {wanted}");
        }
    };
    close("stem.mean", &means);
    close("stem.var", &vars);
    let few = InMemory::new(vec![("x".to_owned(), images(3))]).expect("data");
    let error = recalibrate_bn(&mut module, &Evaluator::new(), &few, &options, &mut |_, _| true);
    assert!(error.expect_err("three samples are no batch").to_string().contains("8 samples"));
}

/// A factor that a step would make negative is kept above zero, so that it can be folded into a scale.
#[test]
fn factors_stay_positive_and_what_was_trained_is_what_is_deployed() {
    let algorithm = algorithm("weight = { bits = 4, narrow_range = false }");
    let mut module = with_step(&algorithm, 20);
    let gamma = module.global_named("block.gamma").expect("factors");
    let mut rewriter = Rewriter::new(&mut module);
    let ty = rewriter.ty(rewriter.global(gamma).ty).clone();
    let small = Tensor::f32s([4], vec![1e-5, 0.75, 1e-5, 1.0]).expect("factors");
    rewriter.set_global(gamma, ty, Init::Data(small.data()));
    let seen = train(&mut module, 20, &["block.gamma", "stem.gamma"]);
    let least = 2f64.powi(-20);
    assert!(seen.iter().flatten().flatten().all(|f| *f >= least), "{seen:?}");
    assert!(
        seen.iter().flatten().flatten().any(|f| *f == least),
        "no factor came so low: the test shows nothing"
    );
    drop_training(&mut module);
    let trained = results(&module);
    algorithm.convert(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    let deployed = results(&module);
    let (a, b) = (trained.to_f64s().expect("numbers"), deployed.to_f64s().expect("numbers"));
    let largest = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 0.02 * largest, "{a} became {b}");
    }
}

/// Ranges of the least and the greatest that was seen never shrink; those of a moving mean do.
#[test]
fn ranges_hold_all_that_was_seen() {
    let width = |r: &Vec<f64>| (r[0], r[1]);
    let of = |observer: &str| {
        let algorithm = algorithm(&format!("observer = \"{observer}\""));
        let mut module = with_step(&algorithm, 10);
        let range = module.global_named("stem_relu.range").expect("a range");
        let ty = module.ty(module.global(range).ty).clone();
        let data = Tensor::f32s([2], vec![-9.0, 0.001]).expect("a range").data();
        gs_ir::Rewriter::new(&mut module).set_global(range, ty, gs_ir::Init::Data(data));
        let train = gs_passes::training::train_graph(&module).expect("@train");
        let x = Tensor::f32s([8, 3, 6, 6], images(20).as_f32().expect("f32")[..8 * 108].to_vec())
            .expect("images");
        let labels = Tensor::i64s([8], vec![0; 8]).expect("labels");
        let out = Evaluator::new().run(&module, train, &[x, labels], &[]).unwrap_or_else(|e| panic!("{e}"));
        let new = out.updates.iter().find(|u| u.0 == range).expect("it follows");
        width(&new.1.to_f64s().expect("numbers"))
    };
    let (low, high) = of("minmax");
    assert!(low == -9.0 && high > 0.1, "{low} {high}");
    let (low, high) = of("ema{decay=0.5}");
    assert!(low > -5.0 && high > 0.01, "{low} {high}");
}

/// Training that would end before quantisers begin is refused.
#[test]
fn a_delay_as_long_as_the_run_is_refused() {
    let algorithm = algorithm("quant_delay = 10");
    with_step(&algorithm, 11);
    let mut module = applied(&algorithm);
    pass(&mut module, "loss", serde_json::json!({}));
    let length = RunLength { steps: 10, steps_per_epoch: 10 };
    let said = algorithm.prepare_training(&mut module, length).expect_err("no step quantises").to_string();
    assert!(said.contains("`quant_delay` = 10") && said.contains("10 steps"), "{said}");
}
