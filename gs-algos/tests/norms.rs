//! Batch normalisation that stays beside quantised weights: the codes that training saw are those that are deployed, and
//! the deployed layer gives what the trained one gave, to a step of the output.

use gs_algos::algorithm::Algorithm;
use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::deploy::to_integers;
use gs_algos::freeze::freeze;
use gs_algos::quant::{ChannelParams, Range};
use gs_algos::quantisers::fake_quants;
use gs_algos::simqat::{SimQat, SimQatConfig};
use gs_eval::random::unit;
use gs_eval::{Arithmetic, Evaluator, Executor, InMemory, Materializer, Tensor};
use gs_ir::{Init, Module, Registry, Rewriter, infer_module, verify};
use gs_passes::manager::PassContext;
use gs_text::{SourceMap, Style};

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

/// A layer of six channels, a batch normalisation with two negative factors and a dead channel, an activation.
fn network(weight: &str, layer: &str, input: &str, output: &str, after: &str) -> Module {
    parsed(&format!(
        "gsir 1\nparam @w : f32[{weight}] = uniform(seed 1, -0.5, 0.5)\n\
         param @b : f32[6] = dense(0.3, -0.2, 0.1, 0.7, -1.5, 0.0)\n\
         param @gamma : f32[6] = dense(1.5, -0.75, 0.3, -2.0, 0.9, 0.0)\n\
         param @beta : f32[6] = dense(0.5, 0.25, -0.5, 0.1, 0.2, 0.3)\n\
         const @mean : f32[6] = dense(0.1, -0.2, 0.3, 0.4, -0.5, 0.1)\n\
         const @var : f32[6] = dense(1.0, 0.5, 0.03, 2.0, 1.3, 0.7)\n\
         graph @main(%x : f32[{input}]) -> (%y : f32[{output}]) {{\n  \
         %0 = {layer} : f32[{output}] from \"layer\"\n  \
         %1 = batch_norm(%0, @gamma, @beta, @mean, @var) : f32[{output}] from \"bn\"\n  \
         %2 = {after} : f32[{output}] from \"after\"\n  return %2\n}}\n"
    ))
}

const LAYERS: &[(&str, &str, &str, &str, &str)] = &[
    ("6, 3, 3, 3", "conv(%x, @w)", "4, 3, 8, 8", "4, 6, 6, 6", "relu(%1)"),
    ("6, 3, 3, 3", "conv(%x, @w, @b) {pads = [1, 1, 1, 1]}", "4, 3, 8, 8", "4, 6, 8, 8", "relu(%1)"),
    ("6, 1, 3, 3", "conv(%x, @w) {group = 6}", "4, 6, 8, 8", "4, 6, 6, 6", "clip(%1) {max = 6.0, min = 0.0}"),
    ("6, 2, 1, 1", "conv(%x, @w, @b) {group = 3}", "4, 6, 5, 5", "4, 6, 5, 5", "add(%1, %x)"),
    ("6, 10", "gemm(%x, @w, @b) {trans_b = true}", "8, 10", "8, 6", "relu(%1)"),
    ("10, 6", "gemm(%x, @w, @b)", "8, 10", "8, 6", "relu(%1)"),
    ("10, 6", "gemm(%x, @w)", "8, 10", "8, 6", "relu(%1)"),
];

fn config(options: &str) -> SimQatConfig {
    toml::from_str(options).unwrap_or_else(|e| panic!("{e}"))
}

fn input(module: &Module) -> Tensor {
    let main = module.main().expect("a graph");
    let ty = module.type_of(module.graph(main).params()[0]).as_tensor().expect("a tensor");
    let dims: Vec<usize> = ty.const_dims().expect("extents").into_iter().map(|d| d as usize).collect();
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count).map(|i| unit(7, i as u64) as f32 * 2.0 - 1.0).collect();
    Tensor::f32s(dims, values).expect("a tensor")
}

fn instrumented(float: &Module, options: &str) -> Module {
    let mut module = float.clone();
    let algorithm = SimQat { config: config(options) };
    algorithm.apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    let data = InMemory::new(vec![("x".to_owned(), input(&module))]).expect("data");
    calibrate(&mut module, &Evaluator::new(), &data, &CalibrateOptions::default(), &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

/// The codes that a quantiser of weights gives, as training sees them.
fn codes_in_training(module: &Module) -> Vec<i64> {
    let mut materializer = Materializer::new(module);
    let quantisers = fake_quants(module).expect("quantisers");
    let q = quantisers.iter().find(|q| q.weight).expect("a quantised weight");
    let weight = materializer.tensor(module.as_global(q.input).expect("a global")).expect("a weight");
    let range = materializer.tensor(q.range).expect("a range");
    let (low, high) = range.as_f32().expect("f32").split_at(range.as_f32().expect("f32").len() / 2);
    let ranges: Vec<Range> =
        low.iter().zip(high).map(|(&l, &h)| Range::new(l, h).expect("a range")).collect();
    let params = ChannelParams::from_ranges(&ranges, q.grid);
    let values = weight.as_f32().expect("f32");
    let codes = match q.axis {
        Some(axis) => params.quantize(values, weight.dims(), axis).expect("codes"),
        None => params.params()[0].quantize(values),
    };
    codes.into_iter().map(i64::from).collect()
}

/// The weight of the integer operator.
fn codes_deployed(module: &Module) -> Vec<i64> {
    let op =
        module.all_ops().into_iter().find(|&op| ["qconv", "qgemm", "qmatmul"].contains(&module.op_name(op)));
    let op = op.unwrap_or_else(|| {
        let names: Vec<&str> = module.all_ops().iter().map(|&op| module.op_name(op)).collect();
        panic!("no integer operator: {names:?}")
    });
    let place = module.decl(op).operands.iter().position(|o| o.role == gs_ir::registry::QRole::Weight);
    let place = place.unwrap_or_else(|| panic!("{} has no weight", module.op_name(op)));
    let weight = module.as_global(module.op(op).operand(place).expect("a weight")).expect("a global");
    let weight = Materializer::new(module).tensor(weight).expect("codes");
    weight.to_ints().expect("integers").into_iter().map(|c| c as i64).collect()
}

fn results(module: &Module, x: &Tensor, evaluator: &Evaluator) -> Vec<f64> {
    let main = module.main().expect("a graph");
    let run = evaluator.run(module, main, std::slice::from_ref(x), &[]);
    run.unwrap_or_else(|e| panic!("{e}")).results[0].to_f64s().expect("numbers")
}

/// The largest scale of what is dequantised: the step of the output.
fn step(module: &Module) -> f64 {
    let main = module.main().expect("a graph");
    let y = module.graph(main).results().next().expect("a result");
    let op = module.producer(y).expect("an operation");
    assert_eq!(module.op_name(op), "dequantize");
    let scale = module.as_global(module.op(op).operand(1).expect("a scale")).expect("a global");
    Materializer::new(module).tensor(scale).expect("a scale").to_f64s().expect("numbers")[0]
}

#[test]
fn what_was_trained_is_what_is_deployed() {
    for options in [
        "",
        "weight = { per_channel = false }",
        "weight = { narrow_range = false }",
        "weight = { bits = 4 }",
        "weight = { bits = 4, narrow_range = false }",
        "weight = { bits = 2, per_channel = false }",
    ] {
        for &(weight, layer, input_dims, output, after) in LAYERS {
            let what = format!("{layer} with `{options}`");
            let float = network(weight, layer, input_dims, output, after);
            let trained = instrumented(&float, options);
            assert!(trained.all_ops().iter().any(|&op| trained.is(op, "batch_norm")), "{what}");
            let mut wanted = codes_in_training(&trained);
            // The last channel has the factor 0: nothing is left of it.
            let count = wanted.len();
            let last = |i: usize| if weight.ends_with(", 6") { i % 6 == 5 } else { i >= count * 5 / 6 };
            wanted.iter_mut().enumerate().filter(|(i, _)| last(*i)).for_each(|(_, c)| *c = 0);
            let mut deployed = trained.clone();
            freeze(&mut deployed).unwrap_or_else(|e| panic!("{what}: {e}"));
            verify(&deployed).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            to_integers(&mut deployed, "ort-cpu").unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(!deployed.all_ops().iter().any(|&op| deployed.is(op, "batch_norm")), "{what}");
            let mut found = codes_deployed(&deployed);
            assert_eq!(found.len(), wanted.len(), "{what}");
            // The integer operator of a layer may have its weight the other way round.
            if found != wanted && weight == "6, 10" {
                found = (0..60).map(|i| found[i % 10 * 6 + i / 10]).collect();
            }
            assert_eq!(found, wanted, "{what}");
            let x = input(&trained);
            let before = results(&trained, &x, &Evaluator::new());
            let evaluator = Evaluator::new().with_arithmetic(Arithmetic::ONNX_RUNTIME_CPU);
            let after = results(&deployed, &x, &evaluator);
            let step = step(&deployed);
            let apart = before.iter().zip(&after).filter(|(a, b)| (*a - *b).abs() > 1e-3 * step).count();
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() <= 1.001 * step, "{what}: {a} became {b}, a step is {step}");
            }
            assert!(apart * 4 <= before.len(), "{what}: {apart} of {} differ", before.len());
        }
    }
}

/// Two layers share a weight, so that no row of it can be negated for one of them.
const SHARED: &str = "gsir 1\nparam @w : f32[2, 3, 1, 1] = uniform(seed 1, -0.5, 0.5)\n\
     param @gamma : f32[2] = dense(1.5, -0.75)\nparam @beta : f32[2] = dense(0.5, 0.25)\n\
     const @mean : f32[2] = dense(0.1, -0.2)\nconst @var : f32[2] = dense(1.0, 0.5)\n\
     graph @main(%x : f32[1, 3, 4, 4]) -> (%y : f32[1, 2, 4, 4], %z : f32[1, 2, 4, 4]) {\n  \
     %0 = conv(%x, @w) : f32[1, 2, 4, 4] from \"conv\"\n  \
     %1 = batch_norm(%0, @gamma, @beta, @mean, @var) : f32[1, 2, 4, 4] from \"bn\"\n  \
     %2 = conv(%x, @w) : f32[1, 2, 4, 4] from \"other\"\n  return %1, %2\n}\n";

#[test]
fn a_shared_weight_has_a_grid_for_each_of_its_layers() {
    let mut module = instrumented(&parsed(SHARED), "");
    let wanted = codes_in_training(&module);
    freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let ops = module.all_ops();
    assert_eq!(ops.iter().filter(|&&op| module.is(op, "qconv")).count(), 2);
    // The first layer is the one with a negative factor: its codes are negated.
    let negated: Vec<i64> = wanted.iter().enumerate().map(|(i, &c)| if i < 3 { c } else { -c }).collect();
    assert_eq!(codes_deployed(&module), negated);
}

/// Where the least code has no negative, no factor may be negative: what cannot be negated is folded first.
#[test]
fn a_code_without_a_negative_is_not_lost() {
    let options = "weight = { narrow_range = false }";
    let mut module = instrumented(&parsed(SHARED), options);
    assert!(!module.all_ops().iter().any(|&op| module.is(op, "batch_norm")));
    freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(module.all_ops().iter().filter(|&&op| module.is(op, "qconv")).count(), 2);
    // A factor that became negative in training, where nobody kept it from that.
    let mut module = instrumented(&parsed(&SHARED.replace("-0.75", "0.75")), options);
    let factors = module.global_named("gamma").expect("factors");
    let ty = module.ty(module.global(factors).ty).clone();
    let data = Tensor::f32s([2], vec![1.5, -0.75]).expect("a tensor").data();
    Rewriter::new(&mut module).set_global(factors, ty, Init::Data(data));
    let error = freeze(&mut module).expect_err("a factor is negative").to_string();
    for words in ["\"bn\"", "\"conv\"", "factors is negative", "`fold-bn`"] {
        assert!(error.contains(words), "{error}");
    }
}

/// What several operations read is not folded into: the batch normalisation runs in float, and the ledger says why.
#[test]
fn behind_a_layer_that_is_read_elsewhere_it_stays_in_float() {
    let float = parsed(
        &SHARED
            .replace("return %1, %2", "return %1, %0")
            .replace("  %2 = conv(%x, @w) : f32[1, 2, 4, 4] from \"other\"\n", ""),
    );
    let mut module = instrumented(&float, "");
    freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = module.all_ops().iter().map(|&op| module.op_name(op)).collect();
    assert!(names.contains(&"qconv") && names.contains(&"batch_norm"), "{names:?}");
    let ledger = gs_algos::ledger::Ledger::of(&float, &module);
    let line = ledger.lines.iter().find(|l| l.name == "bn").expect("a line");
    assert_eq!(line.code, "not-folded");
    assert!(line.reason.contains("read elsewhere"), "{}", line.reason);
}

/// A target without a scale for each channel: batch normalisation is folded before quantisers are placed, and the report
/// says so.
#[test]
fn it_is_folded_first_where_its_factors_have_no_place() {
    let text = include_str!("../targets/ort-cpu.toml").replace("\"tensor\", \"channel\"", "\"tensor\"");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plain.toml");
    std::fs::write(&path, text).expect("a target");
    let (weight, layer, x, y, after) = LAYERS[1];
    let mut module = network(weight, layer, x, y, after);
    let algorithm = SimQat { config: SimQatConfig { target: path.display().to_string(), ..config("") } };
    let report = algorithm.apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.notes.iter().any(|n| n.starts_with("1 batch normalisation")), "{:?}", report.notes);
    let names: Vec<&str> = module.all_ops().iter().map(|&op| module.op_name(op)).collect();
    assert_eq!(names, ["fake_quant", "fake_quant", "conv", "relu", "fake_quant"]);
}
