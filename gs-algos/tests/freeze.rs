//! What freezing and calibration refuse, in words that name the layer and what to do.

use gs_algos::algorithm::Algorithm;
use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::deploy::to_integers;
use gs_algos::freeze::freeze;
use gs_algos::ledger::{Fate, Ledger};
use gs_algos::simqat::SimQat;
use gs_eval::random::unit;
use gs_eval::{Evaluator, Executor, InMemory, Tensor};
use gs_ir::{Module, Registry, infer_module, verify};
use gs_passes::manager::{Pass, PassContext};
use gs_passes::passes::FoldBn;
use gs_text::{SourceMap, Style};

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

/// A layer and a batch normalisation; `var` is a variance.
fn network(layer: &str, channels: usize, var: &str) -> Module {
    let each = |n: &str| format!("f32[{channels}] = dense({n}{})", format!(", {n}").repeat(channels - 1));
    let rest = format!("{var}{}", ", 2.0".repeat(channels - 1));
    let text = format!(
        "gsir 1\nparam @w : f32[3, 3, 1, 1] = uniform(seed 1, -1.0, 1.0)\n\
         param @m : f32[8, 8] = uniform(seed 2, -1.0, 1.0)\nparam @gamma : {}\nparam @beta : {}\nconst @mean : {}\n\
         const @var : f32[{channels}] = dense({rest})\n\
         graph @main(%x : f32[4, 3, 8, 8]) -> (%y : f32[4, 3, 8, 8]) {{\n  \
         %0 = {layer} : f32[4, 3, 8, 8] from \"layer\"\n  \
         %1 = batch_norm(%0, @gamma, @beta, @mean, @var) : f32[4, 3, 8, 8] from \"bn\"\n  return %1\n}}\n",
        each("1.5"),
        each("0.5"),
        each("0.25")
    );
    parsed(&text)
}

fn instrument(module: &mut Module, fold: bool) {
    let mut context = PassContext::default();
    if fold {
        FoldBn.run(module, &mut context).unwrap_or_else(|e| panic!("{e}"));
    }
    SimQat::default().apply(module, &mut context).unwrap_or_else(|e| panic!("{e}"));
}

fn observe(module: &mut Module) -> Result<(), String> {
    let values: Vec<f32> = (0..4 * 3 * 8 * 8).map(|i| unit(7, i) as f32 * 2.0 - 1.0).collect();
    let x = Tensor::f32s([4, 3, 8, 8], values).expect("a tensor");
    let data = InMemory::new(vec![("x".to_owned(), x)]).expect("data");
    let options = CalibrateOptions::default();
    calibrate(module, &Evaluator::new(), &data, &options, &mut |_, _| true)
        .map(|_| ())
        .map_err(|e| e.to_string())
}

fn said(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn a_batch_normalisation_behind_a_layer_becomes_part_of_it_early_or_late() {
    for early in [false, true] {
        let mut module = network("conv(%x, @w, _)", 3, "1.0");
        instrument(&mut module, early);
        observe(&mut module).unwrap_or_else(|e| panic!("{e}"));
        freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
        to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
        let integers = |op: &gs_ir::OpId| ["quantize", "qconv", "dequantize"].contains(&module.op_name(*op));
        assert!(module.all_ops().iter().all(integers), "{early}");
    }
}

/// The channels of a product lie along its last axis; this one normalises the axis before.
#[test]
fn one_that_cannot_be_folded_leaves_the_layer_its_grid() {
    let mut module = network("matmul(%x, @m)", 3, "1.0");
    instrument(&mut module, true);
    observe(&mut module).unwrap_or_else(|e| panic!("{e}"));
    freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = module.all_ops().iter().map(|op| module.op_name(*op)).collect();
    assert_eq!(names, ["quantize", "qmatmul", "dequantize", "batch_norm"]);
}

#[test]
fn what_is_not_finite_is_named_by_its_layer_and_source() {
    let mut module = network("conv(%x, @w, _)", 3, "nan");
    instrument(&mut module, true);
    let error = observe(&mut module).expect_err("a weight is no number");
    said(&error, &["weight \"w\" of \"layer\"", "\"var\"", "element 0 is NaN"]);
}

#[test]
fn ranges_that_were_not_observed_are_named_by_what_they_are_of() {
    let mut module = network("conv(%x, @w, _)", 3, "1.0");
    instrument(&mut module, true);
    let error = freeze(&mut module).expect_err("nothing was observed").to_string();
    said(&error, &["range of the input \"x\"", "`calibrate`"]);
}

/// Inputs of the networks below: 8 samples of so many values from -1 to 1.
fn samples(width: usize) -> Tensor {
    let values: Vec<f32> = (0..8 * width).map(|i| unit(7, i as u64) as f32 * 2.0 - 1.0).collect();
    Tensor::f32s([8, width], values).unwrap_or_else(|e| panic!("{e}"))
}

/// The results of a network for these inputs.
fn results(module: &Module, x: &Tensor) -> Vec<Tensor> {
    let main = module.main().expect("a graph");
    let run = Evaluator::new().run(module, main, std::slice::from_ref(x), &[]);
    run.unwrap_or_else(|e| panic!("{e}")).results
}

/// Two layers share a weight with a row of zeros: the scale of that row serves both biases.
#[test]
fn the_biases_of_a_shared_weight_all_fit() {
    let float = parsed(
        "gsir 1\ndims N >= 1\nparam @w : f32[2, 4] = dense(0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4)\n\
         param @b1 : f32[2] = dense(1000000.0, 0.2)\nparam @b2 : f32[2] = dense(0.001, 0.2)\n\
         graph @main(%x : f32[N, 4]) -> (%y : f32[N, 2], %z : f32[N, 2]) {\n  \
         %0 = gemm(%x, @w, @b1) {trans_b = true} : f32[N, 2] from \"fc1\"\n  \
         %1 = gemm(%x, @w, @b2) {trans_b = true} : f32[N, 2] from \"fc2\"\n  return %0, %1\n}\n",
    );
    let x = samples(4);
    let mut module = float.clone();
    instrument(&mut module, false);
    let data = InMemory::new(vec![("x".to_owned(), x.clone())]).expect("data");
    calibrate(&mut module, &Evaluator::new(), &data, &CalibrateOptions::default(), &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{e}"));
    let report = freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(report.raised, [("fc1, fc2".to_owned(), 1)]);
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let (before, after) = (results(&float, &x), results(&module, &x));
    let first = |results: &[Tensor]| results[0].to_f64s().expect("numbers")[0];
    let (wanted, found) = (first(&before), first(&after));
    assert!((wanted - found).abs() < 0.01 * wanted, "{found} stands for {wanted}");
}

/// Layers that each sum 70000 products: `one` of data from 0 to 1 and a weight, `other` of data from -1 to 1.
fn wide(weight: &str, bias: &str) -> Module {
    parsed(&format!(
        "gsir 1\ndims N >= 1\nparam @w : f32[2, 70000] = {weight}\nparam @b : f32[2] = dense(0.1, 0.2)\n\
         graph @main(%x : f32[N, 4]) -> (%y : f32[N, 2], %z : f32[N, 2]) {{\n  \
         %0 = tile(%x) {{repeats = [1, 17500]}} : f32[N, 70000] from \"tile\"\n  \
         %1 = abs(%0) : f32[N, 70000] from \"abs\"\n  \
         %2 = gemm(%1, @w, {bias}) {{trans_b = true}} : f32[N, 2] from \"one\"\n  \
         %3 = gemm(%0, @w, {bias}) {{trans_b = true}} : f32[N, 2] from \"other\"\n  return %2, %3\n}}\n"
    ))
}

/// What sums so much that 32 bits do not hold it stays in float, with or without a bias, and nothing else does. What
/// counts are the codes that are there, not those that could be.
#[test]
fn layers_too_wide_for_the_accumulator_stay_in_float() {
    for (weight, bias, integers) in [
        ("uniform(seed 1, -0.01, 0.01)", "_", &["one", "other"][..]),
        ("uniform(seed 1, -0.01, 0.01)", "@b", &["one", "other"]),
        ("splat(0.01)", "_", &["other"]),
        ("splat(0.01)", "@b", &["other"]),
    ] {
        let float = wide(weight, bias);
        let mut module = float.clone();
        let x = samples(4);
        instrument(&mut module, false);
        let data = InMemory::new(vec![("x".to_owned(), x.clone())]).expect("data");
        calibrate(&mut module, &Evaluator::new(), &data, &CalibrateOptions::default(), &mut |_, _| true)
            .unwrap_or_else(|e| panic!("{e}"));
        let report = freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
        to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
        verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
        let ledger = Ledger::of(&float, &module);
        let gemms: Vec<_> = ledger.lines.iter().filter(|l| l.op == "gemm").collect();
        let found: Vec<&str> =
            gemms.iter().filter(|l| l.fate == Fate::Integer).map(|l| l.name.as_str()).collect();
        assert_eq!(found, integers, "{weight} {bias}");
        let left: Vec<&str> = report.too_wide.iter().map(|(name, _)| name.as_str()).collect();
        for line in gemms.iter().filter(|l| l.fate != Fate::Integer) {
            assert_eq!((line.fate, line.code.as_str()), (Fate::Kept, "accumulator"), "{line:?}");
            assert!(left.contains(&line.name.as_str()) && line.reason.contains("32 bits"), "{line:?}");
        }
        for (before, after) in results(&float, &x).iter().zip(&results(&module, &x)) {
            let (before, after) = (before.to_f64s().expect("numbers"), after.to_f64s().expect("numbers"));
            let largest = before.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() <= 0.02 * largest, "{weight} {bias}: {b} stands for {a}");
            }
        }
    }
}

/// An axis counted from behind is the axis that it is.
#[test]
fn an_axis_from_behind_has_its_scales() {
    let text = |axis: &str| {
        format!(
            "gsir 1\nparam @w : f32[4, 2] = uniform(seed 1, -1.0, 1.0)\n\
             state @r : f32[2, 2] = dense(-1.0, -0.5, 1.0, 0.5)\n\
             graph @main(%x : f32[8, 4]) -> (%y : f32[8, 2]) {{\n  \
             %0 = fake_quant(@w, @r) {{axis = {axis}, narrow = true, signed = true, symmetric = true}} : f32[4, 2]\n  \
             %1 = gemm(%x, %0) : f32[8, 2] from \"fc\"\n  return %1\n}}\n"
        )
    };
    let frozen = |axis: &str| {
        let mut module = parsed(&text(axis));
        freeze(&mut module).unwrap_or_else(|e| panic!("{axis}: {e}"));
        verify(&module).unwrap_or_else(|e| panic!("{axis}: {e:?}"));
        results(&module, &samples(4))
    };
    assert!(frozen("-1")[0].same_bits(&frozen("1")[0]));
}

/// A range that training has spoilt is not one that was never observed.
#[test]
fn ranges_that_are_no_numbers_are_told_from_ranges_without_a_value() {
    let text = "gsir 1\nparam @w : f32[4, 2] = uniform(seed 1, -1.0, 1.0)\n\
                state @r : f32[2] = dense(nan, nan)\n\
                graph @main(%x : f32[8, 4]) -> (%y : f32[8, 2]) {\n  \
                %0 = fake_quant(@w, @r) {signed = true, symmetric = true} : f32[4, 2]\n  \
                %1 = gemm(%x, %0) : f32[8, 2] from \"fc\"\n  return %1\n}\n";
    let error = freeze(&mut parsed(text)).expect_err("no numbers").to_string();
    said(&error, &["weight \"w\" of \"fc\"", "not a number", "diverged"]);
    let unset = text.replace("dense(nan, nan)", "splat(nan)");
    let error = freeze(&mut parsed(&unset)).expect_err("nothing was observed").to_string();
    said(&error, &["never observed"]);
}
