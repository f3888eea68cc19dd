//! The tool with wrong input: it says what and where, writes nothing, and never panics. And what must succeed.

use gs_opt::data::{DType, NamedArray, NpzWriter};
use gs_tests::data::data;
use gs_tests::tool::{gs_opt, gs_opt_with_input, gs_opt_without_reader, refuses, succeeds};
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// A folder with a small network `net.gsir` and samples `good.npz` for it.
fn folder() -> TempDir {
    let folder = tempdir().expect("a temporary folder");
    put(folder.path(), "net.gsir", network("0.5"));
    samples(folder.path(), "good.npz", &[4, 3, 8, 8], 0.25);
    folder
}

fn put(folder: &Path, name: &str, contents: impl AsRef<[u8]>) {
    fs::write(folder.join(name), contents).expect("a file can be written");
}

/// A convolution of three channels to two; `weight` is its first weight.
fn network(weight: &str) -> String {
    let rest = ", -0.25, 1.0, 0.5, 0.125, -1.0";
    format!(
        "gsir 1\ndims N >= 1\nparam @w : f32[2, 3, 1, 1] = dense({weight}{rest})\n\
         graph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 2, 8, 8]) {{\n  \
         %0 = conv(%x, @w, _) : f32[N, 2, 8, 8] from \"conv\"\n  return %0\n}}\n"
    )
}

fn samples(folder: &Path, name: &str, shape: &[usize], value: f32) {
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|i| (value + i as f32 * 0.001).to_le_bytes()).collect();
    let array = NamedArray { name: Some("x".to_owned()), dtype: DType::F32, shape: shape.to_vec(), bytes };
    let mut writer = NpzWriter::new(&folder.join(name));
    writer.add(&array).expect("an array");
    writer.finish().expect("an archive");
}

#[test]
fn damaged_network_files() {
    let folder = folder();
    let dir = folder.path();
    for (name, bytes) in [
        ("png.onnx", &b"\x89PNG\r\n\x1a\n0000"[..]),
        ("zip.onnx", b"PK\x03\x04\0\0\0\0"),
        ("empty.onnx", b""),
    ] {
        put(dir, name, bytes);
        refuses(dir, &[name, "-o", "out.onnx"], &["error"]);
    }
    put(dir, "wrong.gsir", "module @main {\n}\n");
    refuses(dir, &["wrong.gsir", "-o", "out.onnx"], &["error", "wrong.gsir:1"]);
    put(dir, "binary.gsir", b"gsir 1\n\xff\xfe");
    refuses(dir, &["binary.gsir", "-o", "out.onnx"], &["binary.gsir", "UTF-8"]);
    refuses(dir, &["absent.onnx", "-o", "out.onnx"], &["absent.onnx"]);
    refuses(dir, &["absent.gsir", "-o", "out.onnx"], &["absent.gsir"]);
    refuses(dir, &["net.tflite", "-o", "out.onnx"], &["net.tflite", ".gsir"]);
    let Some(whole) = data("resnet_cifar10/resnet20_bn.onnx") else { return };
    let whole = fs::read(whole).expect("a network");
    for keep in [40, whole.len() / 2, whole.len() - 1] {
        put(dir, "cut.onnx", &whole[..keep]);
        refuses(dir, &["cut.onnx", "-o", "out.onnx"], &["error", "cut off"]);
    }
}

/// A script that runs the tool on many files must see which one is damaged.
#[test]
fn messages_name_the_damaged_file() {
    let folder = folder();
    for (name, bytes) in
        [("png.onnx", &b"\x89PNG\r\n\x1a\n0000"[..]), ("empty.onnx", b""), ("cut.onnx", b"\x3a\x64\x0a")]
    {
        put(folder.path(), name, bytes);
        refuses(folder.path(), &[name, "-o", "out.onnx"], &["error", name]);
        refuses(folder.path(), &["eval", name, "--data", "npz:good.npz"], &["error", name]);
    }
}

#[test]
fn missing_external_data() {
    let Some(model) = data("onnx/resnet8_external.onnx") else { return };
    let folder = folder();
    fs::copy(model, folder.path().join("apart.onnx")).expect("a copy");
    for out in ["out.onnx", "out.gsir"] {
        refuses(folder.path(), &["apart.onnx", "-o", out], &["error", "resnet8_external.bin"]);
    }
    let without = network("0.5")
        .replace("dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)", "file(\"gone.safetensors\", \"w\")");
    put(folder.path(), "apart.gsir", without);
    refuses(folder.path(), &["apart.gsir", "-o", "out.onnx"], &["apart.gsir:3", "gone.safetensors"]);
}

#[test]
fn text_that_is_no_network() {
    let folder = folder();
    let graph =
        |body: &str| format!("gsir 1\ngraph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {{\n{body}\n}}\n");
    let cases = [
        ("cyclic.gsir", graph("  %a = relu(%b)\n  %b = relu(%a)\n  return %b"), "cyclic.gsir:3"),
        ("itself.gsir", graph("  %a = add(%a, %x)\n  return %a"), "itself.gsir:3"),
        ("clash.gsir", graph("  %a = flatten(%x) : f32[7, 1]\n  return %x"), "clash.gsir:3"),
        ("result.gsir", graph("  %a = transpose(%x) {perm = [1, 0]}\n  return %a"), "result.gsir"),
        ("noop.gsir", graph("  %a = relux(%x)\n  return %a"), "noop.gsir:3"),
        ("nograph.gsir", "gsir 1\n".to_owned(), "nograph.gsir"),
    ];
    for (name, text, place) in cases {
        put(folder.path(), name, text);
        refuses(folder.path(), &[name, "-o", "out.onnx"], &["error", place]);
        refuses(folder.path(), &["eval", name, "--data", "npz:good.npz"], &["error", place]);
    }
    let elements = "gsir 1\ngraph @main(%x : f32[2, 3], %i : i64[2, 3]) -> (%y : f32[2, 3]) {\n  %a = add(%x, %i)\n  return %a\n}\n";
    put(folder.path(), "elements.gsir", elements);
    refuses(folder.path(), &["elements.gsir", "-o", "out.onnx"], &["elements.gsir:3"]);
}

#[test]
fn names_that_do_not_exist() {
    let folder = folder();
    let pass = |pipeline: &str, words: &[&str]| {
        refuses(folder.path(), &["net.gsir", "--pass", pipeline, "-o", "out.onnx"], words);
    };
    pass("simqatt", &["simqatt", "simqat"]);
    pass("simqat{actt={bits=8}}", &["simqat", "actt", "act"]);
    pass("simqat{act={bits=", &["error"]);
    pass("simqat{target=nowhere}", &["nowhere", "ort-cpu"]);
    pass("simqat{exclude=[\"absent_layer\"]}", &["exclude", "absent_layer"]);
    pass("simqat,calibrate{data=calib}", &["calibrate", "calib"]);
    pass("calibrate{observer=guess}", &["calibrate", "guess"]);
    pass("freeze", &["freeze", "simqat"]);
    let quantize = |more: &[&str], words: &[&str]| {
        let mut args = vec!["quantize", "net.gsir", "-o", "out.onnx"];
        if !more.contains(&"--data") {
            args.extend(["--data", "npz:good.npz"]);
        }
        args.extend(more);
        refuses(folder.path(), &args, words);
    };
    quantize(&["--target", "nowhere"], &["nowhere", "ort-cpu"]);
    quantize(&["--observer", "guess"], &["guess", "percentile"]);
    quantize(&["--exclude", "absent_layer"], &["absent_layer"]);
    quantize(&["--format", "tflite"], &["tflite", "qdq"]);
    quantize(&["--limit", "0"], &["--limit 0"]);
    quantize(&["--limit", "-3"], &["-3"]);
    quantize(&["--threads", "0"], &["--threads 0"]);
    quantize(&["--data", "photos:here"], &["photos", "cifar10:DIR"]);
    quantize(&["--require-coverage", "7"], &["--require-coverage 7"]);
    for word in ["ops", "passes", "rules", "targets", "explain"] {
        refuses(folder.path(), &[word, "nonsense"], &["nonsense"]);
    }
}

/// What is not given of a group of options keeps its default, as the help shows it.
#[test]
fn part_of_a_group_of_options() {
    let folder = folder();
    let wide = "simqat{act={bits=77}}";
    refuses(folder.path(), &["net.gsir", "--pass", wide, "-o", "out.onnx"], &["act.bits", "77"]);
    for (given, same) in [
        ("simqat{act={bits=8}}", "simqat"),
        ("simqat{weight={bits=8}}", "simqat"),
        ("simqat{weight={narrow_range=true}}", "simqat"),
    ] {
        let printed = |pass: &str| succeeds(folder.path(), &["net.gsir", "--pass", pass]);
        assert_eq!(printed(given), printed(same), "{given}");
    }
    let narrow = succeeds(folder.path(), &["net.gsir", "--pass", "simqat{weight={bits=4}}"]);
    assert!(narrow.contains("bits = 4") && narrow.contains("symmetric = true"), "{narrow}");
}

/// Every code that a ledger shows can be looked up.
#[test]
fn codes_of_the_ledger_are_explained() {
    let folder = folder();
    for code in
        ["not-lowered", "not-folded", "opaque", "static", "folded", "merged", "absorbed", "removed", "float"]
    {
        succeeds(folder.path(), &["explain", code]);
    }
}

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

/// A node that no declared operator covers is kept, and that is said, with the reason.
#[test]
fn nodes_that_stay_as_they_are() {
    let Some(model) = data("onnx/eltwise_chanlast_custom.onnx") else { return };
    let folder = folder();
    let model = model.to_str().expect("a path of text");
    let ended = gs_opt(folder.path(), &[model, "-o", "out.gsir"]);
    assert!(ended.status == Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("stays as it is: no such operator is declared"), "{}", ended.stderr);
}

#[test]
fn weights_that_are_no_numbers() {
    let folder = folder();
    for bad in ["nan", "inf"] {
        put(folder.path(), "bad.gsir", network(bad));
        refuses(
            folder.path(),
            &["quantize", "bad.gsir", "--data", "npz:good.npz", "-o", "out.onnx"],
            &["error", "weight \"w\" of \"conv\""],
        );
    }
}

#[test]
fn places_that_cannot_be_written() {
    let folder = folder();
    let dir = folder.path();
    fs::create_dir(dir.join("taken.onnx")).expect("a folder");
    fs::create_dir(dir.join("taken.gsir")).expect("a folder");
    // The path that was given, not that of a temporary file, and what to do.
    for args in [
        &["net.gsir", "-o", "absent/out.onnx"][..],
        &["net.gsir", "-o", "absent/out.gsir"],
        &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "absent/out.onnx"],
        &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "out.onnx", "--report", "absent/r.json"],
        &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "absent/out.npz"],
    ] {
        let ended = gs_opt(dir, args);
        let says = |text: &str| ended.stderr.contains(text);
        assert!(says("absent/") && says("no folder absent") && says("mkdir -p absent"), "{}", ended.stderr);
        assert!(!says(".tmp"), "{}", ended.stderr);
    }
    if Path::new("/dev/full").exists() {
        for args in [
            &["net.gsir", "-o", "/dev/full"][..],
            &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "/dev/full"],
        ] {
            refuses(dir, args, &["/dev/full", "No space left", "make room"]);
        }
    }
    for out in ["absent/out.onnx", "absent/out.gsir", "taken.onnx", "out.pb", "taken.gsir"] {
        let stem = out.trim_end_matches(".gsir");
        refuses(dir, &["net.gsir", "-o", out], &[stem]);
        refuses(dir, &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", out], &[stem]);
    }
    refuses(
        dir,
        &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "absent/out.npz"],
        &["absent/out.npz"],
    );
}

#[test]
fn looking_things_up() {
    let folder = folder();
    let find = |args: &[&str], words: &[&str]| {
        let text = succeeds(folder.path(), args);
        words.iter().for_each(|w| assert!(text.contains(w), "{w} is not in\n{text}"));
    };
    find(&["ops"], &["conv", "qconv", "fake_quant"]);
    find(&["passes"], &["simqat", "calibrate", "fold-bn"]);
    find(&["rules"], &["weight_fake_quant"]);
    find(&["rules", "weight_fake_quant"], &["insertion", "at use $w", "example"]);
    find(&["rules", "--functions"], &["only_user", "weight_only", "compose", "filled", "absorbed"]);
    find(
        &["rules", "--functions", "only_user"],
        &["only_user(an operation or a value)", "not in equality sets"],
    );
    find(&["rules", "--functions", "--json"], &["\"takes\"", "\"graph_only\""]);
    refuses(folder.path(), &["rules", "--functions", "weight_onyl"], &["weight_onyl", "weight_only"]);
    find(&["targets"], &["ort-cpu"]);
    find(&["explain"], &["no-integer-form", "excluded"]);
    find(&["explain", "excluded"], &["excluded", "what to do"]);
    find(&["ops", "conv"], &["ONNX"]);
    for word in ["ops", "passes", "rules", "targets"] {
        let json = succeeds(folder.path(), &[word, "--json"]);
        assert!(json.starts_with('[') && json.trim_end().ends_with(']'), "{json}");
    }
}

/// `-` is GSIR text on standard input and output; what is said to people goes elsewhere then.
#[test]
fn standard_streams() {
    let folder = folder();
    let dir = folder.path();
    let printed = succeeds(dir, &["net.gsir"]);
    let piped = |args: &[&str], input: &str| {
        let ended = gs_opt_with_input(dir, args, input);
        assert_eq!(ended.status, Some(0), "{args:?}: {}", ended.stderr);
        // Progress is for terminals.
        assert!(!ended.stderr.contains(['\r', '\x1b']), "{args:?}: {}", ended.stderr);
        ended
    };
    for args in [&["-"][..], &["-", "-o", "-"], &["net.gsir", "-o", "-"], &["-", "--pass=dce"]] {
        assert_eq!(piped(args, &printed).stdout, printed, "{args:?}");
    }
    let said = piped(&["eval", "-", "--data", "npz:good.npz"], &printed).stdout;
    assert!(said.contains("4 samples"), "{said}");
    let quantised = piped(&["quantize", "-", "--data", "npz:good.npz", "-o", "-"], &printed);
    assert!(quantised.stderr.contains("compute in integers"), "{}", quantised.stderr);
    assert_eq!(piped(&["-"], &quantised.stdout).stdout, quantised.stdout);
    let report = ["quantize", "-", "--data", "npz:good.npz", "-o", "out.onnx", "--report", "-"];
    let json = piped(&report, &printed).stdout;
    assert!(json.starts_with('{') && json.trim_end().ends_with('}'), "{json}");
    fs::remove_file(dir.join("out.onnx")).expect("an output");
    refuses(
        dir,
        &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "-", "--report", "-"],
        &["standard output"],
    );
    for (input, words) in [("", "<stdin>:1"), ("gsir 1\ngraph @main(", "<stdin>:2")] {
        let ended = gs_opt_with_input(dir, &["-", "-o", "out.onnx"], input);
        assert!(ended.status == Some(1) && ended.stderr.contains(words), "{}", ended.stderr);
    }
}

/// `gs-opt ops | head` is no error.
#[test]
fn a_reader_that_goes_away() {
    let folder = folder();
    for args in [&["ops"][..], &["net.gsir"], &["rules", "--json"], &["man"], &["completions", "bash"]] {
        let ended = gs_opt_without_reader(folder.path(), args);
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn completions_and_man_pages() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeds(folder.path(), &["completions", shell]);
        for word in ["quantize", "require-coverage", "outputs"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    refuses(folder.path(), &["completions", "csh"], &["csh", "bash"]);
    let page = succeeds(folder.path(), &["man"]);
    assert!(page.contains(".TH gs-opt 1") && page.contains("quantize") && page.contains("print"), "{page}");
    let page = succeeds(folder.path(), &["man", "quantize"]);
    assert!(page.contains(".TH gs-opt-quantize 1") && page.contains("observer"), "{page}");
    refuses(folder.path(), &["man", "quantise"], &["quantise", "quantize"]);
}

#[test]
fn file_to_text_to_text_is_byte_identical() {
    let Some(model) = data("mlperf_tiny/resnet8_bn.onnx") else { return };
    let folder = folder();
    let dir = folder.path();
    for name in ["a", "b"] {
        fs::create_dir(dir.join(name)).expect("a folder");
    }
    succeeds(dir, &[model.to_str().expect("a path of text"), "-o", "a/net.gsir"]);
    succeeds(dir, &["a/net.gsir", "-o", "b/net.gsir"]);
    for file in ["net.gsir", "net.gsir.safetensors"] {
        let bytes = |name: &str| fs::read(dir.join(name).join(file)).expect("a written file");
        assert!(!bytes("a").is_empty() && bytes("a") == bytes("b"), "{file}");
    }
    let printed = succeeds(dir, &["a/net.gsir"]);
    put(dir, "printed.gsir", &printed);
    assert!(succeeds(dir, &["printed.gsir"]) == printed);
}

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

#[test]
fn a_file_of_ones_own_beside_the_text_stays() {
    let folder = folder();
    let dir = folder.path();
    let weights = vec!["0.5"; 48].join(", ");
    let large = network("0.5")
        .replace(
            "f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)",
            &format!("f32[16, 3, 1, 1] = dense({weights})"),
        )
        .replace("[N, 2, 8, 8]", "[N, 16, 8, 8]");
    put(dir, "in.gsir", large);
    put(dir, "out.safetensors", "own");
    succeeds(dir, &["in.gsir", "-o", "out.gsir"]);
    assert_eq!(fs::read(dir.join("out.safetensors")).expect("the file is there"), b"own");
    assert_eq!(succeeds(dir, &["in.gsir"]), succeeds(dir, &["out.gsir"]));
}

#[test]
fn what_is_no_text_does_not_go_to_standard_output() {
    let folder = folder();
    let dir = folder.path();
    refuses(
        dir,
        &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "-"],
        &["--outputs -", "standard output"],
    );
    refuses(dir, &["net.gsir", "--pass=deploy", "--reproducer", "-"], &["--reproducer -", "standard output"]);
    assert!(!dir.join("-").exists());
}

/// A reproducer is a whole file or none, and replaces an older one in one step.
#[cfg(unix)]
#[test]
fn a_reproducer_replaces_an_old_one_as_a_whole() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder();
    let dir = folder.path();
    put(dir, "fails.gsir", "old");
    let inode = fs::metadata(dir.join("fails.gsir")).expect("a file").ino();
    refuses(
        dir,
        &["net.gsir", "--pass=simqat{exclude=[nothing]}", "--reproducer", "fails.gsir"],
        &["fails.gsir holds the module"],
    );
    assert_ne!(fs::metadata(dir.join("fails.gsir")).expect("a file").ino(), inode);
    assert!(fs::read_to_string(dir.join("fails.gsir")).expect("text").contains("--pass='simqat{"));
}

/// ONNX has one graph, which writes nothing: what is lost is said, in one line, and what only that used is not written.
#[test]
fn what_onnx_cannot_hold_is_named() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\n\
        param @w : f32[2] = dense(1.0, 2.0)\n\
        state @mean : f32[2] = dense(0.0, 0.0)\n\
        state @momentum : f32[2] = dense(7.0, 7.0)\n\
        const @idle : f32[2] = dense(3.0, 4.0)\n\
        graph @main(%c : bool[], %x : f32[2]) -> (%y : f32[2]) {\n\
          %0 = if(%c) : f32[2] region then_branch() -> (f32[2]) {\n    return @w\n  }\n\
          region else_branch() -> (f32[2]) {\n    return %x\n  }\n\
          return %0 updates { @mean = %0 }\n\
        }\n\
        graph @train(%x : f32[2]) -> (%y : f32[2]) {\n\
          %0 = mul(%x, @w) : f32[2]\n  %1 = add(%0, @momentum) : f32[2]\n\
          return %1 updates { @momentum = %1, @w = %0 }\n\
        }\n";
    put(dir, "trained.gsir", text);
    let ended = gs_opt(dir, &["trained.gsir", "-o", "trained.onnx"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let said = "warning: trained.onnx: ONNX has no place for the graph @train; the update of @mean; \
        the globals @mean, @momentum\n";
    assert_eq!(ended.stderr, said);
    let back = succeeds(dir, &["trained.onnx"]);
    assert!(back.contains("@w") && back.contains("@idle") && !back.contains("momentum"), "{back}");
    assert!(!back.contains("@mean"), "{back}");
    // A network that it holds whole is written without a word.
    assert_eq!(gs_opt(dir, &["net.gsir", "-o", "net.onnx"]).stderr, "");
}

/// What a run may override is no constant to any pass, and stays an input of the file although nothing reads it.
#[test]
fn overridable_weights_are_no_constants() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\n\
        onnx {\n  ir_version = 8\n  opset \"\" = 13\n}\n\
        input @w : f32[2] = dense(1.0, 1.0)\n\
        input @zero : f32[2] = dense(0.0, 0.0)\n\
        input @idle : f32[2] = dense(1.0, 1.0)\n\
        input @shape : i64[1] = dense(2)\n\
        const @two : f32[2] = dense(2.0, 2.0)\n\
        graph @main(%x : f32[2]) -> (%y : f32[K]) {\n\
          %0 = mul(%x, @w) : f32[2]\n\
          %1 = add(%0, @zero) : f32[2]\n\
          %2 = mul(@w, @two) : f32[2]\n\
          %3 = add(%1, %2) : f32[2]\n\
          %4 = reshape_to(%3, @shape) : f32[K]\n\
          return %4\n\
        }\n";
    put(dir, "in.gsir", text);
    succeeds(dir, &["in.gsir", "--pass=canonicalize,const-fold,cse,saturate,dce", "-o", "out.gsir"]);
    let out = fs::read_to_string(dir.join("out.gsir")).expect("text");
    let count = |what: &str| out.matches(what).count();
    assert_eq!((count("input @"), count("const @")), (4, 1), "{out}");
    assert_eq!((count(" mul("), count(" add("), count(" reshape_to(")), (2, 2, 1), "{out}");
    succeeds(dir, &["out.gsir", "-o", "out.onnx"]);
    let ended = gs_opt(dir, &["out.onnx"]);
    assert!(ended.stderr.contains("4 weights are inputs too (w, zero, idle, ...)"), "{}", ended.stderr);
    assert_eq!(ended.stdout.matches("input @").count(), 4, "{}", ended.stdout);
}

/// The weights of queries, keys and values come in one tensor: its parts are constants like others.
#[test]
fn parts_of_a_weight_are_folded() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\n\
        param @qkv : f32[3] = dense(2.0, 4.0, 8.0)\n\
        param @unread : f32[4] = dense(1.0, 2.0, 3.0, 4.0)\n\
        graph @main(%x : f32[1]) -> (%y : f32[1], %z : f32[2]) {\n\
          %q, %k, %v = split(%x0) : f32[1], f32[1], f32[1]\n\
          %0 = mul(%x, %q) : f32[1]\n\
          %1 = mul(%0, %k) : f32[1]\n\
          %2 = add(%1, %v) : f32[1]\n\
          %s, %t = split(@unread) : f32[2], f32[2]\n\
          return %2, %t\n\
        }\n"
    .replace("%x0", "@qkv");
    put(dir, "in.gsir", text);
    succeeds(dir, &["in.gsir", "--pass=const-fold", "-o", "out.gsir"]);
    let out = fs::read_to_string(dir.join("out.gsir")).expect("text");
    for part in ["split(@qkv) #0/3", "split(@qkv) #1/3", "split(@qkv) #2/3", "split(@unread) #1/2"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert!(!out.contains("#0/2") && !out.contains("  %q"), "{out}");
    assert_eq!(succeeds(dir, &["out.gsir"]).trim(), out.trim());
    succeeds(dir, &["out.gsir", "-o", "out.onnx"]);
    let back = succeeds(dir, &["out.onnx"]);
    for value in ["dense(2.0)", "dense(4.0)", "dense(8.0)", "dense(3.0, 4.0)"] {
        assert!(back.contains(value), "{value}\n{back}");
    }
    // A part that is not there.
    put(dir, "wrong.gsir", out.replace("#2/3", "#3/3"));
    refuses(dir, &["wrong.gsir"], &["GS0202", "no result 3 of 3"]);
}

/// A standard operator that contradicts itself is kept when a file is converted; who wants to run it is told once.
#[test]
fn a_node_that_cannot_be_run_is_named_once() {
    let folder = folder();
    let dir = folder.path();
    let text = network("0.5").replace("conv(%x, @w, _)", "\"ai.onnx::Conv\"(%x, @w)").replace(
        "f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)",
        "f32[2, 2, 1, 1] = dense(0.5, -0.25, 1.0, 0.5)",
    );
    put(
        dir,
        "wrong.gsir",
        text.replace("gsir 1\n", "gsir 1\nonnx {\n  ir_version = 8\n  opset \"\" = 13\n}\n"),
    );
    succeeds(dir, &["wrong.gsir", "-o", "wrong.onnx"]);
    let converted = gs_opt(dir, &["wrong.onnx", "-o", "again.gsir"]);
    assert_eq!(converted.status, Some(0), "{}", converted.stderr);
    assert!(converted.stderr.contains("node \"conv\" stays as it is"), "{}", converted.stderr);
    for file in ["wrong.onnx", "again.gsir"] {
        for args in [
            &["eval", file, "--data", "npz:good.npz"][..],
            &["quantize", file, "--data", "npz:good.npz", "-o", "out.onnx"],
        ] {
            refuses(dir, args, &["cannot be run: node \"conv\" (ai.onnx::Conv): operand `x` has 3 channels"]);
            let said = gs_opt(dir, args).stderr;
            assert_eq!(said.matches("channels").count(), 1, "{said}");
        }
    }
}

/// A loop that never ends is refused at a limit, which can be set.
#[test]
fn endless_loops_end_with_an_error() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\ndims N >= 1\nconst @go : bool[] = true\n\
        graph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 3, 8, 8]) {\n  \
        %0 = loop(_, @go, %x) : f32[N, 3, 8, 8] region body(%i : i64[], %c : bool[], %v : f32[N, 3, 8, 8]) -> \
        (bool[], f32[N, 3, 8, 8]) {\n    %1 = neg(%v) : f32[N, 3, 8, 8]\n    return %c, %1\n  }\n  return %0\n}\n";
    put(dir, "endless.gsir", text);
    for engine in ["fast", "reference"] {
        let args =
            ["eval", "endless.gsir", "--data", "npz:good.npz", "--engine", engine, "--max-steps", "100000"];
        refuses(dir, &args, &["more steps than the limit", "--max-steps N"]);
    }
}

#[test]
fn requests_that_would_lose_a_file_or_mean_nothing() {
    let folder = folder();
    let dir = folder.path();
    let quantize = |more: &[&str], words: &[&str]| {
        let args: Vec<&str> =
            ["quantize", "net.gsir", "--data", "npz:good.npz"].iter().chain(more).copied().collect();
        refuses(dir, &args, words);
    };
    quantize(&["-o", "net.gsir"], &["is the network itself", "another file"]);
    quantize(&["-o", "out.onnx", "--report", "out.onnx"], &["name the same file"]);
    let nowhere = ["net.gsir", "--pass=dce", "--print-ir-after", "nope"];
    refuses(dir, &nowhere, &["`nope` is not in the pipeline", "dce"]);
    put(
        dir,
        "exp.gsir",
        "gsir 1\ndims N >= 1\ngraph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 3, 8, 8]) {\n  \
         %0 = exp(%x) : f32[N, 3, 8, 8] from \"exp\"\n  return %0\n}\n",
    );
    let nothing = ["quantize", "exp.gsir", "--data", "npz:good.npz", "-o", "out.onnx"];
    refuses(dir, &nothing, &["no operation of it can run in integers", "exp has no integer form on ort-cpu"]);
    put(dir, "large.gsir", network("1e38"));
    let infinite = ["quantize", "large.gsir", "--data", "npz:good.npz", "-o", "out.onnx"];
    let ended = gs_opt(dir, &infinite);
    assert_ne!(ended.status, Some(101), "{}", ended.stderr);
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

/// Extents that were known of an operation must not get lost when it is folded.
#[test]
fn a_folded_network_can_be_written() {
    let folder = folder();
    let Some(model) = data("prune_groups/vit_tiny.onnx") else { return };
    let model = model.to_string_lossy().into_owned();
    succeeds(folder.path(), &[&model, "--pass=canonicalize,const-fold", "-o", "out.onnx"]);
}
