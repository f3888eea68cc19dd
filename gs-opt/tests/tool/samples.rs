//! Data that does not fit, and batches of one size.

use crate::harness::{folder, network, put, refuses, samples, succeeds};
use gs_opt::data::{DType, NamedArray, NpzWriter};
use std::fs;

#[test]
fn data_that_does_not_fit() {
    let folder = folder();
    let dir = folder.path();
    samples(dir, "none.npz", &[0, 3, 8, 8], 0.0);
    samples(dir, "large.npz", &[4, 3, 9, 9], 0.0);
    samples(dir, "flat.npz", &[4], 0.0);
    samples(dir, "nan.npz", &[4, 3, 8, 8], f32::NAN);
    put(dir, "bytes.npz", b"not an archive");
    put(dir, "zero.npz", b"");
    put(dir, "folder.npz", b"PK\x05\x06");
    for name in ["none", "large", "flat", "nan", "bytes", "zero", "folder", "absent"] {
        let spec = format!("npz:{name}.npz");
        // What does not fit is told by the file where the file is at fault, else by the network's input or layer.
        let word = if matches!(name, "none" | "large" | "flat" | "nan") {
            "error"
        } else {
            spec.trim_start_matches("npz:")
        };
        refuses(dir, &["quantize", "net.gsir", "--data", &spec, "-o", "out.onnx"], &[word]);
    }
    for name in ["large", "flat", "bytes", "zero"] {
        let spec = format!("npz:{name}.npz");
        refuses(dir, &["eval", "net.gsir", "--data", &spec, "--outputs", "out.npz"], &["error"]);
    }
}

/// What does not fit is told with the data's name and both shapes, before anything runs.
#[test]
fn shapes_of_data_are_told_beside_those_of_the_network() {
    let folder = folder();
    let dir = folder.path();
    samples(dir, "large.npz", &[4, 3, 9, 9], 0.0);
    let doubles = NamedArray {
        name: Some("x".to_owned()),
        dtype: DType::F64,
        shape: vec![1, 3, 8, 8],
        bytes: vec![0; 1536],
    };
    let mut writer = NpzWriter::new(&dir.join("doubles.npz"));
    writer.add(&doubles).expect("an array");
    writer.finish().expect("an archive");
    for (name, shape) in [("large", "f32[4, 3, 9, 9]"), ("doubles", "f64[1, 3, 8, 8]")] {
        let spec = format!("npz:{name}.npz");
        for args in [&["quantize", "-o", "out.onnx"][..], &["eval", "--outputs", "out.npz"]] {
            let args = [args, &["net.gsir", "--data", &spec]].concat();
            refuses(dir, &args, &[&spec, shape, "f32[N, 3, 8, 8]", "help:"]);
        }
    }
}

/// A network that takes batches of one size is run in such batches.
#[test]
fn a_fixed_batch() {
    let folder = folder();
    let dir = folder.path();
    put(dir, "two.gsir", network("0.5").replace("[N,", "[2,").replace("dims N >= 1\n", ""));
    succeeds(dir, &["eval", "two.gsir", "--data", "npz:good.npz", "--outputs", "two.npz"]);
    succeeds(dir, &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "all.npz"]);
    let bytes = |name: &str| fs::read(dir.join(name)).expect("outputs");
    assert!(bytes("two.npz") == bytes("all.npz"));
    let args = ["eval", "two.gsir", "--data", "npz:good.npz", "--limit", "3"];
    refuses(dir, &args, &["batches of 2", "3 samples"]);
    // Calibration leaves out what fills no batch.
    for (limit, out) in [("3", "a.onnx"), ("2", "b.onnx")] {
        succeeds(dir, &["quantize", "two.gsir", "--data", "npz:good.npz", "--limit", limit, "-o", out]);
    }
    assert!(bytes("a.onnx") == bytes("b.onnx"));
    let args = ["quantize", "two.gsir", "--data", "npz:good.npz", "--limit", "1", "-o", "out.onnx"];
    refuses(dir, &args, &["one batch of 2 samples"]);
}
