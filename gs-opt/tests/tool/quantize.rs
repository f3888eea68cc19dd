//! Quantising: coverage, operator sets, targets of one's own.

use crate::harness::{data, folder, gs_opt, network, put, refuses, succeeds};
use std::fs;
use std::path::Path;

#[test]
fn quantize_and_eval() {
    let (Some(model), Some(cifar10)) = (data("mlperf_tiny/resnet8_bn.onnx"), data("cifar10")) else { return };
    let folder = folder();
    let dir = folder.path();
    let model = model.to_str().expect("a path of text");
    let train = format!("cifar10:{}:train", cifar10.display());
    for threads in ["1", "2"] {
        let out = format!("{threads}.onnx");
        let args = [
            "quantize",
            model,
            "--data",
            &train,
            "--raw255",
            "--limit",
            "64",
            "--threads",
            threads,
            "-o",
            &out,
        ];
        let said =
            succeeds(dir, &[&args[..], &["--require-coverage", "1", "--report", "report.json"]].concat());
        assert!(said.contains("100.00 %") && !said.contains("kept:"), "{said}");
    }
    let file = |name: &str| fs::read(dir.join(name)).expect("a written file");
    assert!(file("1.onnx") == file("2.onnx"), "the result depends on the number of threads");
    assert!(file("1.onnx").len() * 3 < fs::metadata(model).expect("a file").len() as usize);
    let test = format!("cifar10:{}:test", cifar10.display());
    let args = ["--data", &test, "--raw255", "--limit", "200"];
    let score = |model: &str| {
        let said = succeeds(dir, &[&["eval", model][..], &args].concat());
        let percent = said.split_whitespace().nth(1).and_then(|w| w.parse::<f64>().ok());
        percent.unwrap_or_else(|| panic!("no accuracy in {said}"))
    };
    let (float, integer) = (score(model), score("1.onnx"));
    assert!(float > 80.0 && integer >= float - 3.0, "{float} {integer}");
    refuses(
        dir,
        &["quantize", "1.onnx", "--data", &train, "--raw255", "-o", "again.onnx"],
        &["1.onnx", "already"],
    );
}

/// The share of multiply-adds in integers counts each operation once, and does not need source names in a text.
#[test]
fn coverage_of_texts() {
    let folder = folder();
    let dir = folder.path();
    let args = ["quantize", "it.gsir", "--data", "npz:good.npz", "-o", "out.onnx", "--require-coverage", "1"];
    for names in ["", "from \"conv\"", "from \"conv\", \"bn\""] {
        put(dir, "it.gsir", network("0.5").replace("from \"conv\"", names));
        let said = succeeds(dir, &args);
        assert!(said.contains("100.00 %  (384 of 384)"), "{said}");
    }
}

/// A layer that is left out takes its activation with it, and nothing else.
#[test]
fn an_excluded_layer_leaves_its_neighbours_in_integers() {
    let folder = folder();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shapes/shapes.onnx");
    let args = ["quantize", model, "--data", "shapes:train:64", "--exclude", "conv2a", "-o", "out.onnx"];
    let said = succeeds(folder.path(), &args);
    assert!(said.contains("2 stay in float"), "{said}");
    assert!(said.contains("relu belongs to the layer \"conv2a\""), "{said}");
}

/// Weights of 4 bits take half the bytes of those of 8, and the file that holds them packed computes what was foretold.
#[test]
fn few_bits_make_a_small_file() {
    let folder = folder();
    let dir = folder.path();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shapes/shapes.onnx");
    let quantise = |name: &str, options: &[&str]| {
        let args = ["quantize", model, "--data", "shapes:train:64", "--require-coverage", "1", "-o", name];
        succeeds(dir, &[&args[..], options].concat());
        fs::metadata(dir.join(name)).expect("a written file").len()
    };
    let eight = quantise("w8.onnx", &[]);
    let four = quantise("w4.onnx", &["--weight-bits", "4", "--act-bits", "4", "--edge-bits", "8"]);
    let qoperator = quantise(
        "q4.onnx",
        &["--weight-bits", "4", "--act-bits", "4", "--edge-bits", "8", "--format", "qoperator"],
    );
    assert!(four * 10 < eight * 7 && qoperator < four, "{eight}, {four}, {qoperator} bytes");
    let outputs = |name: &str| {
        let out = format!("{name}.npz");
        let said = succeeds(dir, &["eval", name, "--data", "shapes:test:200", "--outputs", &out]);
        (said.lines().next().map(str::to_owned), fs::read(dir.join(out)).expect("outputs"))
    };
    assert!(outputs("w4.onnx") == outputs("q4.onnx"), "the forms differ");
    assert_eq!((opset(&dir.join("w8.onnx")), opset(&dir.join("w4.onnx"))), (21, 21));
    quantise("w2.onnx", &["--weight-bits", "2"]);
    assert_eq!(opset(&dir.join("w2.onnx")), 25);
    refuses(
        dir,
        &["quantize", model, "--data", "shapes:train:64", "--weight-bits", "9", "-o", "w9.onnx"],
        &["weight.bits", "9"],
    );
}

/// The version of `ai.onnx` that a file states.
fn opset(path: &Path) -> i64 {
    let bytes = fs::read(path).expect("a written file");
    let model = gs_onnx::decode_model(bytes.into()).expect("a model");
    model.opset_import.iter().find(|o| o.domain().is_empty()).map_or(0, |o| o.version())
}

/// Deployment brings a network to the operator set of its target; a round trip does not. What was kept as it was
/// stands in the way where its operator changed.
#[test]
fn deployment_takes_the_operator_set_of_the_target() {
    let folder = folder();
    let dir = folder.path();
    let network = |version: i64, last: &str| {
        format!(
            "gsir 1\nonnx {{ opset \"\" = {version} }}\nconst @s : f32[] = 0.5\nconst @z : u8[] = 3\n\
             graph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {{\n  \
             %0 = qdq(%x, @s, @z) : f32[2, 3] from \"first\"\n  \
             %y = \"ai.onnx::{last}\"(%0) : f32[2, 3] from \"last\"\n  return %y\n}}\n"
        )
    };
    let deploy = |name: &str, version: i64, last: &str| {
        put(dir, name, network(version, last));
        gs_opt(dir, &[name, "--pass=deploy", "-o", "out.onnx"])
    };
    // Softsign never changed, Hardmax means something else from 13 on.
    let ended = deploy("free.gsir", 12, "Softsign");
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(opset(&dir.join("out.onnx")), 21);
    let ended = deploy("blocked.gsir", 12, "Hardmax");
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    for word in ["note", "opset 12", "21", "`ort-cpu`", "'last'", "ai.onnx::Hardmax"] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    assert_eq!(opset(&dir.join("out.onnx")), 12);
    // Version 9 has no quantizers.
    put(dir, "old.gsir", network(9, "NoSuchOperator"));
    let words = ["'last'", "ai.onnx::NoSuchOperator", "opset 9", "help", "version_converter"];
    refuses(dir, &["old.gsir", "--pass=deploy", "-o", "old.onnx"], &words);
    // A network that is not deployed keeps its version.
    put(dir, "float.gsir", network(12, "Softsign").replace("qdq(%x, @s, @z)", "relu(%x)"));
    succeeds(dir, &["float.gsir", "-o", "float.onnx"]);
    assert_eq!(opset(&dir.join("float.onnx")), 12);
}

/// A target of one's own: its file names the rules beside it and the arithmetic.
#[test]
fn a_target_of_ones_own() {
    let folder = folder();
    let dir = folder.path();
    let shipped = |path: &str| {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../gs-algos")).join(path);
        fs::read_to_string(path).expect("a shipped file")
    };
    let mine = shipped("targets/ort-cpu.toml")
        .replace("name = \"ort-cpu\"", "name = \"mine\"")
        .replace("\"lower-ort-cpu\"", "\"mine.gsr\"")
        .replace("\"f32_multiply\"", "\"q31_shift\"");
    put(dir, "mine.toml", mine);
    let quantize =
        ["quantize", "net.gsir", "--data", "npz:good.npz", "--target", "mine.toml", "-o", "out.gsir"];
    refuses(dir, &quantize, &["mine.gsr"]);
    put(dir, "mine.gsr", shipped("src/deploy/lower-ort-cpu.gsr"));
    succeeds(dir, &[&quantize[..], &["--format", "qoperator"]].concat());
    let eval = |rest: &[&'static str]| [&["eval", "out.gsir", "--data", "npz:good.npz"], rest].concat();
    refuses(dir, &eval(&[]), &["`mine`", "not a shipped one", "--target mine.toml"]);
    refuses(dir, &eval(&["--target", "ort-cpu"]), &["`mine`", "`ort-cpu`"]);
    refuses(dir, &eval(&["--target", "mine.toml"]), &["--engine reference"]);
    succeeds(dir, &eval(&["--target", "mine.toml", "--engine", "reference"]));
    // The same by passes. A file between them names the target; `deploy` needs its file again, and says so.
    let pass = |file: &'static str, passes: &'static str, out: &'static str| {
        [file, "--pass", passes, "--data", "calib=npz:good.npz", "-o", out]
    };
    let freeze = "simqat{target=\"mine.toml\"},calibrate,freeze";
    succeeds(dir, &pass("net.gsir", freeze, "frozen.gsir"));
    refuses(dir, &pass("frozen.gsir", "deploy", "bad.onnx"), &["`mine`", "target=\"mine.toml\""]);
    refuses(dir, &pass("frozen.gsir", "deploy{target=ort-cpu}", "bad.onnx"), &["`mine`", "ort-cpu"]);
    succeeds(dir, &pass("frozen.gsir", "deploy{target=\"mine.toml\", format=qoperator}", "passes.gsir"));
    let file = |name: &str| fs::read_to_string(dir.join(name)).expect("a text");
    assert_eq!(file("passes.gsir").replace("passes.safetensors", "out.safetensors"), file("out.gsir"));
    refuses(
        dir,
        &pass("net.gsir", "simqat{target=\"mine.toml\", act={signed=true}}", "bad.gsir"),
        &["act.signed"],
    );
}
