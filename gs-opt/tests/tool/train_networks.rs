//! Networks that are given to `train`: of a run, with quantisers, with integers, with a softmax at their end.

use crate::harness::{data, gs_opt, put, refuses, succeeds};
use crate::train::labelled;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// A network of two convolutions for the pictures of `shapes`.
const NETWORK: &str = include_str!("../../../tests/networks/small.gsir");

fn folder() -> TempDir {
    let folder = tempdir().expect("a folder");
    put(folder.path(), "net.gsir", NETWORK);
    folder
}

/// The arguments of a run of this network into this folder.
fn args<'a>(network: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["train", network, "--data", "shapes:train:96", "--batch", "32", "-o", output];
    [&usual[..], more].concat()
}

/// What a run says on standard error; it must succeed.
fn trains(dir: &Path, network: &str, output: &str, more: &[&str]) -> String {
    let ended = gs_opt(dir, &args(network, output, more));
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    ended.stderr
}

fn stored(dir: &Path, run: &str) -> String {
    fs::read_to_string(dir.join(run).join("trained.gsir")).expect("the trained network")
}

#[test]
fn what_is_instrumented_is_trained_by_its_algorithm() {
    let folder = folder();
    let dir = folder.path();
    succeeds(dir, &["net.gsir", "--pass=simqat", "-o", "bare.gsir"]);
    let bare = fs::read_to_string(dir.join("bare.gsir")).expect("a network");
    if !bare.contains("\nalgorithm ") {
        refuses(
            dir,
            &args("bare.gsir", "run", &[]),
            &["bare.gsir", "carries quantisers", "--algorithm simqat"],
        );
    }
    trains(dir, "bare.gsir", "named", &["--algorithm", "simqat"]);
    // What a run leaves says itself what it is of, and a new run begins with it.
    trains(dir, "net.gsir", "first", &["--algorithm", "lsq{weight_bits=3}"]);
    let said = trains(dir, "first/trained.gsir", "second", &[]);
    for word in ["comes from a run", "--resume", "quantisers of lsq{weight_bits=3}"] {
        assert!(said.contains(word), "{word}\n{said}");
    }
    assert!(stored(dir, "second").contains("algorithm \"lsq{weight_bits=3}\""));
    succeeds(dir, &["convert", "second", "-o", "q.onnx"]);
    refuses(
        dir,
        &args("first/trained.gsir", "other", &["--algorithm", "simqat"]),
        &["carries quantisers already, of another algorithm or other settings"],
    );
    refuses(
        dir,
        &args("first/trained.gsir", "other", &["--distill"]),
        &["--distill", "would be the teacher", "float network"],
    );
    // A run in float too.
    trains(dir, "net.gsir", "float", &[]);
    let said = trains(dir, "float/trained.gsir", "again", &["--algorithm", "simqat"]);
    assert!(said.contains("comes from a run"), "{said}");
}

#[test]
fn what_is_quantised_is_refused() {
    let folder = folder();
    let dir = folder.path();
    trains(dir, "net.gsir", "run", &["--algorithm", "simqat"]);
    succeeds(dir, &["convert", "run", "-o", "q.onnx"]);
    for more in [&[][..], &["--algorithm", "lsq"]] {
        refuses(
            dir,
            &args("q.onnx", "other", more),
            &["q.onnx: the network is quantised already", "float network"],
        );
    }
}

/// Weights behind a `dequantize`, in every algorithm, from the file to the deployed network.
#[test]
fn weights_stored_as_integers_are_trained() {
    let folder = folder();
    let dir = folder.path();
    let codes: Vec<String> = (0..1152).map(|i| (i * 37 % 255 - 127).to_string()).collect();
    let weight =
        format!("const @w2.q : i8[16, 8, 3, 3] = dense({})\nconst @w2.s : f32[] = 0.002", codes.join(", "));
    let network =
        NETWORK.replace("param @w2 : f32[16, 8, 3, 3] = normal(seed 2, 0.0, 0.17)", &weight).replace(
            "  %3 = conv(%2, @w2,",
            "  %9 = dequantize(@w2.q, @w2.s) : f32[16, 8, 3, 3] from \"dq\"\n  %3 = conv(%2, %9,",
        );
    assert!(network.contains("conv(%2, %9"));
    put(dir, "stored.gsir", network);
    for algorithm in ["simqat", "lsq", "pact", "slb"] {
        trains(dir, "stored.gsir", algorithm, &["--algorithm", algorithm]);
        succeeds(dir, &["convert", algorithm, "-o", "q.onnx", "--report", "report.json"]);
    }
    let said = trains(dir, "stored.gsir", "float", &[]);
    assert!(said.contains("1 weight stored as integers is trained as floats"), "{said}");
    assert!(stored(dir, "float").contains("@w2.q.1.momentum"), "{}", stored(dir, "float"));
    let quantize = ["quantize", "stored.gsir", "--data", "shapes:train:64", "-o", "q.onnx"];
    succeeds(dir, &quantize);
}

/// The same loss as of the network without the softmax, to the last digit.
#[test]
fn a_softmax_at_the_end_does_not_count_twice() {
    let folder = folder();
    let dir = folder.path();
    let network =
        NETWORK.replace("  return %7", "  %8 = softmax(%7) : f32[N, 10] from \"prob\"\n  return %8");
    put(dir, "prob.gsir", network);
    for (run, more) in [("plain", &[][..]), ("taught", &["--algorithm", "simqat", "--distill"])] {
        let loss = |network: &str, output: &str| {
            let said = trains(dir, network, output, more);
            let log = fs::read_to_string(dir.join(output).join("log.jsonl")).expect("a log");
            let row: serde_json::Value =
                serde_json::from_str(log.lines().next().unwrap_or_default()).expect("a row");
            (row["loss"].as_f64().expect("a loss"), said)
        };
        let (logits, said) = loss("net.gsir", run);
        assert!(!said.contains("softmax"), "{said}");
        let output = format!("{run}-prob");
        let (probabilities, said) = loss("prob.gsir", &output);
        assert!(said.contains("`logits` is a softmax"), "{said}");
        if run == "plain" {
            assert_eq!(logits, probabilities);
        }
        // A grid for the probabilities is all that may differ.
        assert!((logits - probabilities).abs() < 0.05 * logits, "{run}: {logits} {probabilities}");
    }
}

/// A published network with integers and a softmax at its end.
#[test]
fn keyword_spotting_with_stored_weights() {
    let Some(network) = data("mlperf_tiny/kws_dscnn_w8.onnx") else { return };
    let folder = tempdir().expect("a folder");
    let dir = folder.path();
    let network = network.to_str().expect("a path");
    labelled(dir, "sounds.npz", &(0..32).map(|i| i % 12).collect::<Vec<i64>>(), &[1, 49, 10]);
    for algorithm in ["simqat", "slb"] {
        let args = [
            "train",
            network,
            "--data",
            "npz:sounds.npz:x:y",
            "--batch",
            "16",
            "--algorithm",
            algorithm,
            "-o",
            algorithm,
        ];
        succeeds(dir, &args);
        succeeds(dir, &["convert", algorithm, "-o", "q.onnx"]);
    }
}
