//! Pruning: what is written is smaller and runs, what cannot be had is refused with what can.

use crate::harness::{data, folder, network, put, refuses, succeeds};
use std::fs;

#[test]
fn prune_then_quantise() {
    let (Some(model), Some(cifar10)) = (data("resnet_cifar10/resnet20_bn.onnx"), data("cifar10")) else {
        return;
    };
    let folder = folder();
    let dir = folder.path();
    let model = model.to_str().expect("a path of text");
    let train = format!("cifar10:{}:train", cifar10.display());
    let normalised = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"];
    let said = succeeds(dir, &["groups", model]);
    assert!(
        said.contains("12 groups, 400 atoms") && said.contains("it is an output of the network"),
        "{said}"
    );
    let said = succeeds(dir, &["groups", model, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["groups"].as_array().map(Vec::len), Some(12));

    let args =
        ["prune", model, "--keep-macs", "0.8", "--round-to", "8", "-o", "small.onnx", "--report", "r.json"];
    let data = ["--data", train.as_str(), "--limit", "256"];
    let said = succeeds(dir, &[&args[..], &data, &normalised].concat());
    assert!(said.contains("layer1.0.conv1") && said.contains("multiply-adds: 40551040 ->"), "{said}");
    let size = |path: &str| fs::metadata(dir.join(path)).expect("a file").len();
    assert!(size("small.onnx") * 10 < fs::metadata(model).expect("a file").len() * 9);
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("r.json")).expect("a report")).expect("JSON");
    let macs = |when: &str| report[when]["macs"].as_f64().expect("a number");
    assert!(macs("after") <= 0.8 * macs("before") && macs("least") < macs("after"), "{report}");

    // Pruned again, and quantised: both take what was written.
    succeeds(dir, &["prune", "small.onnx", "--keep-params", "0.9", "--round-to", "1", "-o", "smaller.onnx"]);
    assert!(size("smaller.onnx") < size("small.onnx"));
    let quantise = ["quantize", "smaller.onnx", "-o", "integers.onnx", "--require-coverage", "1"];
    succeeds(dir, &[&quantise[..], &data, &normalised].concat());
    let run = ["eval", "integers.onnx"];
    succeeds(dir, &[&run[..], &data, &normalised].concat());
    // What has its grids can be pruned too; what has nothing but integers left cannot.
    succeeds(dir, &["prune", "integers.onnx", "--keep-macs", "0.9", "--round-to", "1", "-o", "less.onnx"]);
    succeeds(dir, &[&["eval", "less.onnx"][..], &data, &normalised].concat());
    let quantise = ["quantize", "small.onnx", "-o", "operators.onnx", "--format", "qoperator"];
    succeeds(dir, &[&quantise[..], &data, &normalised].concat());
    refuses(
        dir,
        &["prune", "operators.onnx", "--keep-macs", "0.5", "-o", "no.onnx"],
        &["deployed", "made from"],
    );

    // Whole blocks go where they may.
    let blocks =
        ["prune", model, "--keep-macs", "0.7", "--round-to", "64", "--dead-branches", "-o", "short.onnx"];
    succeeds(dir, &blocks);
    succeeds(dir, &[&["eval", "short.onnx"][..], &data, &normalised].concat());
}

#[test]
fn requests_that_cannot_be_met() {
    let Some(model) = data("resnet_cifar10/resnet20_bn.onnx") else { return };
    let folder = folder();
    let dir = folder.path();
    let model = model.to_str().expect("a path of text");
    let prune = |more: &[&'static str], words: &[&str]| {
        refuses(dir, &[&["prune", model, "-o", "no.onnx"][..], more].concat(), words);
        assert!(!dir.join("no.onnx").exists(), "{more:?} leaves a file");
    };
    prune(&[], &["keep_macs"]);
    prune(&["--keep-macs", "0.001"], &["cannot be reached", "round_to", "min_keep"]);
    prune(&["--keep-macs", "0"], &["above 0 and up to 1"]);
    prune(&["--keep-macs", "0.5", "--exclude", "layer9.*"], &["`layer9.*` matches no layer"]);
    prune(&["--layer", "linear=0.5"], &["linear", "output of the network"]);
    prune(&["--keep-macs", "0.5", "--criterion", "magic"], &["magic", "fpgm"]);
    prune(&["--keep-macs", "0.5", "--layer", "conv1"], &["conv1=0.5"]);
    put(dir, "it.gsir", network("0.5"));
    refuses(
        dir,
        &["prune", "it.gsir", "--keep-macs", "0.5", "-o", "no.onnx"],
        &["no channel of the network can go"],
    );
}
