//! Trained networks through the whole quantisation: placement, calibration, freezing, integers, the portable form.

use gs_algos::deploy::{to_integers, to_qdq_form};
use gs_algos::ledger::{Fate, Ledger};
use gs_eval::{DataSource, Evaluator};
use gs_ir::{Module, Phase};
use gs_passes::manager::PassReport;
use gs_tests::data::{cifar10, data, noise, onnx_bytes, read, read_bytes};
use gs_tests::run::{FREEZE, difference, inputs, outputs, quantisers, run_passes, runtime, same};
use gs_text::{PrintOptions, print_to_string};

/// Samples on which executors are compared.
const COMPARED: usize = 8;

/// A network on its way.
struct Stages {
    float: Module,
    frozen: Module,
    integers: Module,
    report: PassReport,
}

fn quantise(float: Module, calib: &dyn DataSource) -> Stages {
    let mut frozen = float.clone();
    let report = run_passes(FREEZE, &mut frozen, Some(calib));
    assert_eq!(Phase::of(&frozen), Phase::Frozen);
    let mut integers = frozen.clone();
    to_integers(&mut integers, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    gs_ir::verify(&integers).expect("a sound module");
    assert_eq!(Phase::of(&integers), Phase::Deployed);
    Stages { float, frozen, integers, report }
}

/// Every operation is accounted for, and all multiply-adds run in integers.
fn everything_is_integer(stages: &Stages) {
    let ledger = Ledger::of(&stages.float, &stages.integers);
    let left: Vec<_> = ledger.lines.iter().filter(|l| matches!(l.fate, Fate::Kept | Fate::Lost)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert!(ledger.multiply_adds > 0);
    assert_eq!(ledger.coverage(), 1.0);
}

/// The fast executor computes what the reference does: integers exactly, floats nearly, on any number of threads.
fn executors_agree(stages: &Stages, source: &dyn DataSource) {
    let reference = Evaluator::new();
    let x = inputs(&stages.float, source, COMPARED);
    let exact = outputs(&reference, &stages.integers, &x);
    let float = outputs(&reference, &stages.float, &x);
    for threads in [1, 2] {
        let fast = runtime(threads);
        assert!(same(&outputs(&fast, &stages.integers, &x), &exact), "{threads} threads: integers differ");
        let (worst, largest) = difference(&outputs(&fast, &stages.float, &x), &float);
        assert!(worst <= 1e-4 * largest, "{threads} threads: {worst} of {largest}");
    }
}

/// The portable form, written, read and lowered again, is the same network.
fn portable_form_is_the_same_network(stages: &Stages, source: &dyn DataSource) {
    let mut portable = stages.integers.clone();
    to_qdq_form(&mut portable, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let mut again = read_bytes(onnx_bytes(&portable));
    to_integers(&mut again, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let x = inputs(&stages.float, source, COMPARED);
    let fast = runtime(2);
    let (a, b) = (outputs(&fast, &stages.integers, &x), outputs(&fast, &again, &x));
    assert!(same(&a, &b), "largest difference {:?}", difference(&a, &b));
}

fn placed(float: &Module) -> (usize, usize, usize) {
    let mut once = float.clone();
    run_passes("canonicalize,fold-bn,simqat", &mut once, None);
    let mut twice = once.clone();
    run_passes("simqat", &mut twice, None);
    let text = |m: &Module| print_to_string(m, &PrintOptions::default());
    assert!(text(&once) == text(&twice), "simqat twice is not simqat once");
    quantisers(&once)
}

#[test]
fn resnet20() {
    let Some(path) = data("resnet_cifar10/resnet20_bn.onnx") else { return };
    let float = read(&path);
    assert_eq!(placed(&float), (20, 31, 0));
    let Some(samples) = cifar10("train", false, &float) else { return };
    let stages = quantise(float, &samples);
    everything_is_integer(&stages);
    executors_agree(&stages, &samples);
    portable_form_is_the_same_network(&stages, &samples);
}

#[test]
fn resnet56_placement() {
    let Some(path) = data("resnet_cifar10/resnet56_bn.onnx") else { return };
    assert_eq!(placed(&read(&path)), (56, 85, 0));
}

#[test]
fn resnet8() {
    let Some(path) = data("mlperf_tiny/resnet8_bn.onnx") else { return };
    let float = read(&path);
    assert_eq!(placed(&float), (10, 15, 1), "the softmax has a fixed range");
    let Some(samples) = cifar10("train", true, &float) else { return };
    let stages = quantise(float, &samples);
    everything_is_integer(&stages);
    executors_agree(&stages, &samples);
    portable_form_is_the_same_network(&stages, &samples);
    // A quarter of it are the codes of the weights; the rest is what describes them.
    let mut portable = stages.integers.clone();
    to_qdq_form(&mut portable, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let (before, after) =
        (std::fs::metadata(&path).expect("a file").len(), onnx_bytes(&portable).len() as u64);
    assert!(after * 1000 <= before * 279, "{after} of {before} bytes");
}

#[test]
fn visual_wake_words() {
    let Some(path) = data("mlperf_tiny/vww_mobilenetv1_bn.onnx") else { return };
    let samples = noise("input", &[32, 3, 96, 96], 7);
    let stages = quantise(read(&path), &samples);
    let ledger = Ledger::of(&stages.float, &stages.integers);
    assert_eq!((ledger.coverage(), ledger.count(Fate::Lost)), (1.0, 0));
    executors_agree(&stages, &samples);
    portable_form_is_the_same_network(&stages, &samples);
    // Some channels have weights so small beside their bias that it does not fit 32 bits on their own grid.
    let raised = stages.report.notes.iter().filter(|n| n.contains("was raised")).count();
    assert!(raised > 0, "{:?}", stages.report.notes);
    let x = inputs(&stages.float, &samples, COMPARED);
    let fast = runtime(2);
    let integers = outputs(&fast, &stages.integers, &x);
    // Probabilities on a grid of 256.
    for (name, other) in [("frozen", &stages.frozen), ("float", &stages.float)] {
        let (worst, _) = difference(&integers, &outputs(&fast, other, &x));
        assert!(worst <= 3.0 / 256.0, "{name}: {worst}");
    }
}

#[test]
fn the_result_does_not_depend_on_threads_or_runs() {
    let Some(path) = data("mlperf_tiny/resnet8_bn.onnx") else { return };
    let float = read(&path);
    let Some(samples) = cifar10("train", true, &float) else { return };
    let (a, b) = (quantise(float.clone(), &samples), quantise(float, &samples));
    assert!(onnx_bytes(&a.integers) == onnx_bytes(&b.integers));
}
