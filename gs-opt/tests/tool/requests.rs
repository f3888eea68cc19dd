//! Requests that name what is not there or would lose a file, and what is looked up.

use crate::harness::{folder, gs_opt, network, put, refuses, succeeds};

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
    find(&["algos"], &["simqat", "slb"]);
    find(&["algos", "lsq"], &["lsq: ", "weight_bits: width of weights", "act_bits"]);
    refuses(folder.path(), &["algos", "lqs"], &["no algorithm is named `lqs`", "lsq"]);
    find(&["targets"], &["ort-cpu"]);
    find(&["explain"], &["no-integer-form", "excluded"]);
    find(&["explain", "excluded"], &["excluded", "what to do"]);
    find(&["ops", "conv"], &["ONNX"]);
    for word in ["ops", "passes", "rules", "algos", "targets"] {
        let json = succeeds(folder.path(), &[word, "--json"]);
        assert!(json.starts_with('[') && json.trim_end().ends_with(']'), "{json}");
    }
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
