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

/// What training left is no number: that is not deployed, whether it comes from elsewhere or from here.
#[test]
fn weights_that_are_no_numbers() {
    let folder = trained();
    let dir = folder.path();
    let mut module = gs_opt::files::read(&dir.join("run/trained.gsir")).expect("the trained network");
    gs_passes::training::drop_training(&mut module);
    let entries = weights(&module);
    for (value, said) in [(f32::NAN, "number 3 is NaN"), (f32::INFINITY, "number 3 is inf")] {
        let mut astray = entries.clone();
        let w2 = astray.iter_mut().find(|e| e.0 == "w2").expect("a weight");
        w2.3[12..16].copy_from_slice(&value.to_le_bytes());
        write(dir, "astray.safetensors", &astray);
        let args = ["convert", "run", "--weights", "astray.safetensors", "-o", "out.onnx"];
        refuses(dir, &args, &["astray.safetensors", "`w2` holds 1 of 1152 numbers", said, "diverged"]);
    }
    let astray = "param @c3 : f32[10] = dense(0.0, nan, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)";
    put(dir, "float.gsir", NETWORK.replace("param @c3 : f32[10] = splat(0.0)", astray));
    let words = ["float.gsir", "`c3` holds 1 of 10 numbers", "number 1 is NaN"];
    refuses(dir, &["convert", "float.gsir", "-o", "out.onnx"], &words);
    // A constant may hold infinities by nature.
    let mask =
        "const @mask : f32[10] = dense(0.0, -inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)\ngraph @main";
    let masked = NETWORK.replace("graph @main", mask);
    let masked =
        masked.replace("  return %7", "  %8 = add(%7, @mask) : f32[N, 10] from \"mask\"\n  return %8");
    put(dir, "mask.gsir", masked);
    succeeds(dir, &["convert", "mask.gsir", "-o", "out.onnx"]);
    succeeds(dir, &["convert", "mask.gsir", "--weights", "mask.gsir", "-o", "out.onnx"]);
}

/// What a network was made of, and whether its training is over, is said where it matters.
#[test]
fn runs_that_cannot_be_converted() {
    let folder = trained();
    let dir = folder.path();
    fs::create_dir(dir.join("empty")).expect("a folder");
    refuses(dir, &["convert", "absent", "-o", "a.onnx"], &["absent: there is no such run"]);
    refuses(
        dir,
        &["convert", "absent", "-o", "a.onnx", "--report", "r.json"],
        &["absent: there is no such run"],
    );
    refuses(dir, &["convert", "absent.gsir", "-o", "a.onnx"], &["absent.gsir: there is no such run"]);
    refuses(dir, &["convert", "empty", "-o", "a.onnx"], &["empty: there is no training run in it"]);
    let renamed = ["conv1", "bn1", "relu1", "conv2", "relu2", "pool", "flat", "fc"]
        .iter()
        .fold(NETWORK.to_owned(), |text, name| {
            text.replace(&format!("from \"{name}\""), &format!("from \"my_{name}\""))
        });
    put(dir, "other.gsir", renamed);
    let other = ["convert", "run", "-o", "a.onnx", "--report", "r.json", "--float", "other.gsir"];
    refuses(dir, &other, &["--float other.gsir", "another one", "8 of 8 operations", "my_conv1"]);
}

/// How much runs in integers is said with a report and without, and why where nothing does.
#[test]
fn coverage_is_said() {
    let folder = trained();
    let dir = folder.path();
    let line =
        |said: &str| said.lines().find(|l| l.starts_with("multiply-adds in integers: ")).map(str::to_owned);
    let with = succeeds(dir, &["convert", "run", "-o", "a.onnx", "--report", "a.json"]);
    let without = succeeds(dir, &["convert", "run", "-o", "b.onnx"]);
    assert_eq!(without.lines().count(), 2, "{without}");
    assert!(line(&with).is_some() && line(&with) == line(&without), "{with}\n{without}");
    let args = [
        "train",
        "net.gsir",
        "--data",
        "shapes:train:64",
        "--batch",
        "32",
        "-o",
        "slb",
        "--algorithm",
        "slb{act_bits=32}",
    ];
    succeeds(dir, &args);
    let with = succeeds(dir, &["convert", "slb", "-o", "c.onnx", "--report", "c.json"]);
    let without = succeeds(dir, &["convert", "slb", "-o", "d.onnx"]);
    assert!(with.contains("kept: conv \"conv2\": what it reads is in float"), "{with}");
    assert!(
        line(&with).is_some_and(|l| l.contains(" 0.00 %")) && line(&with) == line(&without),
        "{with}\n{without}"
    );
    succeeds(dir, &["explain", "float-input"]);
    // Text may leave the names of operations out.
    let bare: String =
        NETWORK.lines().map(|l| format!("{}\n", l.split(" from ").next().unwrap_or(l))).collect();
    put(dir, "bare.gsir", bare);
    let args =
        ["train", "bare.gsir", "--data", "shapes:train:64", "--batch", "32", "-o", "bare", "--algorithm"];
    succeeds(dir, &[&args[..], &["simqat"]].concat());
    let with = succeeds(dir, &["convert", "bare", "-o", "e.onnx", "--report", "e.json"]);
    let without = succeeds(dir, &["convert", "bare", "-o", "f.onnx"]);
    let alone = succeeds(dir, &["convert", "bare/trained.gsir", "-o", "g.onnx"]);
    assert!(line(&with).is_some_and(|l| l.contains(" 100.00 %")) && line(&with) == line(&without), "{with}");
    assert!(line(&alone).is_some_and(|l| l.contains(" 100.00 %")), "{alone}");
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
    // Our own trained network is a source of weights too.
    succeeds(dir, &convert("run/trained.gsir", "there.gsir"));
    assert!(without("there.gsir") == without("here.gsir"));
    assert!(of("there.gsir.safetensors") == of("here.gsir.safetensors"));
    put(dir, "other.gsir", NETWORK.replace("@w2", "@other"));
    refuses(dir, &convert("other.gsir", "out.gsir"), &["other.gsir", "it lacks", "`w2`"]);
}
