//! Quantisers that use fewer codes than their type has: what clips them must not keep a layer from the integers.

use gs_algos::deploy::{to_integers, to_qdq_form};
use gs_algos::ledger::{Fate, Ledger};
use gs_eval::Evaluator;
use gs_ir::{Phase, verify};
use gs_opt::cli::PreprocessArgs;
use gs_opt::source::Samples;
use gs_tests::data::{onnx_bytes, read, read_bytes};
use gs_tests::run::{difference, inputs, outputs, run_passes, runtime, same};
use std::path::Path;

/// The small network that ships with the examples, with these grids of activations.
fn deploys(act: &str) {
    let float = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shapes/shapes.onnx")));
    let preprocess = PreprocessArgs { mean: None, std: None, raw255: false };
    let samples =
        Samples::open("shapes:train:32", None, &preprocess, &float).unwrap_or_else(|e| panic!("{e}"));
    let mut frozen = float.clone();
    let passes = format!("canonicalize,fold-bn,simqat{{act={act}}},calibrate{{data=calib}},freeze");
    run_passes(&passes, &mut frozen, Some(&samples));
    let mut integers = frozen.clone();
    to_integers(&mut integers, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    verify(&integers).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(Phase::of(&integers), Phase::Deployed);
    let ledger = Ledger::of(&float, &integers);
    let left: Vec<_> = ledger.lines.iter().filter(|l| matches!(l.fate, Fate::Kept | Fate::Lost)).collect();
    assert!(left.is_empty(), "{act}: {left:#?}");
    assert_eq!(ledger.coverage(), 1.0, "{act}");

    let x = inputs(&float, &samples, 8);
    let exact = outputs(&Evaluator::new(), &integers, &x);
    for threads in [1, 2] {
        assert!(same(&outputs(&runtime(threads), &integers, &x), &exact), "{act}: {threads} threads differ");
    }
    // A code off here and there on the way, among few codes.
    let simulated = outputs(&Evaluator::new(), &frozen, &x);
    let (worst, largest) = difference(&exact, &simulated);
    assert!(worst <= 0.1 * largest, "{act}: {worst} of {largest}");

    // The portable form, written and read, is the same network.
    let mut portable = integers.clone();
    to_qdq_form(&mut portable, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let mut again = read_bytes(onnx_bytes(&portable));
    to_integers(&mut again, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let again = outputs(&runtime(2), &again, &x);
    assert!(same(&again, &exact), "{act}: {:?} apart when read again", difference(&again, &exact));
}

#[test]
fn without_the_lowest_code() {
    deploys("{narrow_range=true}");
}

#[test]
fn of_four_bits() {
    deploys("{bits=4}");
}
