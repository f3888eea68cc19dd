//! What is deployed of a trained network, and of weights that were trained elsewhere.

use crate::harness::{put, refuses, succeeds};
use gs_eval::Materializer;
use gs_ir::{ElemType, Module, Role};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

const NETWORK: &str = include_str!("../../../tests/networks/small.gsir");

/// A folder with the network and a run of few steps of it, with quantisers.
fn trained() -> TempDir {
    let folder = tempdir().expect("a folder");
    put(folder.path(), "net.gsir", NETWORK);
    let args = [
        "train",
        "net.gsir",
        "--data",
        "shapes:train:64",
        "--batch",
        "32",
        "--algorithm",
        "simqat",
        "-o",
        "run",
    ];
    succeeds(folder.path(), &args);
    folder
}

#[test]
fn the_report_accounts_for_the_network_before() {
    let folder = trained();
    let dir = folder.path();
    let said = succeeds(dir, &["convert", "run", "-o", "q.onnx", "--report", "r.json"]);
    assert!(said.contains("multiply-adds in integers: 100.00 %"), "{said}");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("r.json")).expect("a report")).expect("JSON");
    assert_eq!(report["coverage"], 1.0);
    let lines = report["ledger"]["lines"].as_array().expect("lines");
    let fate = |name: &str| lines.iter().find(|l| l["name"] == name).map(|l| l["fate"].clone());
    for (name, wanted) in [("conv1", "integer"), ("conv2", "integer"), ("fc", "integer")] {
        assert_eq!(fate(name), Some(wanted.into()), "{name}\n{report}");
    }
    assert!(fate("bn1").is_some_and(|f| f != "lost" && f != "kept"), "{report}");
    let alone = ["convert", "run/trained.gsir", "-o", "b.onnx", "--report", "b.json"];
    refuses(dir, &alone, &["--report compares", "--float NET"]);
    succeeds(dir, &[&alone[..], &["--float", "net.gsir"]].concat());
    refuses(dir, &["convert", "run", "-o", "c.onnx", "--report", "c.onnx"], &["the same file"]);
    refuses(dir, &["convert", "run", "-o", "c.onnx", "--float", "net.gsir"], &["--report"]);
}

#[test]
fn both_forms_compute_the_same() {
    let folder = trained();
    let dir = folder.path();
    for (form, out) in [("qdq", "a"), ("qoperator", "b")] {
        let file = format!("{out}.onnx");
        succeeds(dir, &["convert", "run", "--format", form, "-o", &file]);
        let outputs = format!("{out}.npz");
        succeeds(dir, &["eval", &file, "--data", "shapes:test:64", "--outputs", &outputs]);
    }
    let text = succeeds(dir, &["b.onnx"]);
    assert!(text.contains("qconv(") && !text.contains(" conv("), "{text}");
    let bytes = |name: &str| fs::read(dir.join(name)).expect("outputs");
    assert!(bytes("a.npz") == bytes("b.npz"));
}

/// A tensor of a file of weights.
type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

/// What a network learns and observes, with its constants, as another tool would hand it over.
fn weights(module: &Module) -> Vec<Entry> {
    let mut materializer = Materializer::new(module);
    let learned = module.globals().filter(|(_, g)| matches!(g.role, Role::Param | Role::State));
    let entry = |(id, g): (gs_ir::GlobalId, &gs_ir::Global)| {
        let tensor = materializer.tensor(id).expect("contents");
        let dtype = if tensor.elem() == ElemType::F32 { Dtype::F32 } else { Dtype::I64 };
        let bytes = tensor.literal().data.bytes().expect("numbers").to_vec();
        (module.str(g.name).to_owned(), dtype, tensor.dims().to_vec(), bytes)
    };
    learned.map(entry).collect()
}

fn write(dir: &Path, name: &str, entries: &[Entry]) {
    let views = entries.iter().map(|(name, dtype, dims, bytes)| {
        (name.clone(), TensorView::new(*dtype, dims.clone(), bytes).expect("a tensor"))
    });
    let bytes = safetensors::serialize(views, None).expect("a file");
    fs::write(dir.join(name), bytes).expect("a file");
}

#[test]
fn weights_trained_elsewhere() {
    let folder = trained();
    let dir = folder.path();
    succeeds(dir, &["convert", "run", "-o", "here.gsir"]);
    let pipeline = "canonicalize,simqat,calibrate";
    let args = ["net.gsir", "--pass", pipeline, "--data", "calib=shapes:train:32", "-o", "changed.gsir"];
    succeeds(dir, &args);
    let mut module = gs_opt::files::read(&dir.join("run/trained.gsir")).expect("the trained network");
    gs_passes::training::drop_training(&mut module);
    let mut entries = weights(&module);
    // Statistics are constants of a network that is not trained.
    for name in ["m1", "v1"] {
        let id = module.global_named(name).expect("a statistic");
        let tensor = Materializer::new(&module).tensor(id).expect("contents");
        let bytes = tensor.literal().data.bytes().expect("numbers").to_vec();
        entries.push((name.to_owned(), Dtype::F32, tensor.dims().to_vec(), bytes));
    }
    write(dir, "good.safetensors", &entries);
    let convert = |weights: &'static str, out: &'static str| {
        ["convert", "changed.gsir", "--weights", weights, "-o", out]
    };
    succeeds(dir, &convert("good.safetensors", "there.gsir"));
    let text = |name: &str| fs::read_to_string(dir.join(name)).expect("text");
    let without = |name: &str| {
        let text = text(name).replace("\"there.gsir.", "\"here.gsir.");
        text.lines().filter(|l| !l.starts_with("algorithm")).map(|l| format!("{l}\n")).collect::<String>()
    };
    assert!(without("there.gsir") == without("here.gsir"));
    let of = |name: &str| fs::read(dir.join(name)).expect("weights");
    assert!(of("there.gsir.safetensors") == of("here.gsir.safetensors"));

    let place = entries.iter().position(|e| e.0 == "w2").expect("a weight");
    let taken = entries.remove(place);
    write(dir, "less.safetensors", &entries);
    refuses(dir, &convert("less.safetensors", "out.gsir"), &["less.safetensors", "it lacks `w2`"]);
    entries.push((taken.0.clone(), taken.1, vec![16 * 8, 9], taken.3.clone()));
    write(dir, "shape.safetensors", &entries);
    let words = ["`w2` is F32[128, 9]", "f32[16, 8, 3, 3]"];
    refuses(dir, &convert("shape.safetensors", "out.gsir"), &words);
    entries.pop();
    entries.push(taken.clone());
    entries.push(("w2.momentum".to_owned(), taken.1, taken.2, taken.3));
    write(dir, "more.safetensors", &entries);
    refuses(dir, &convert("more.safetensors", "out.gsir"), &["does not read `w2.momentum`"]);
    put(dir, "none.safetensors", b"\x09\0\0");
    refuses(dir, &convert("none.safetensors", "out.gsir"), &["none.safetensors", "no safetensors file"]);
    refuses(dir, &convert("absent.safetensors", "out.gsir"), &["absent.safetensors"]);
}
