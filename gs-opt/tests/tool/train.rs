//! Training with the tool, and what is deployed of it.

use crate::harness::{gs_opt, put, refuses, samples, succeeds};
use crate::runs::{files, rows};
use gs_opt::data::{DType, NamedArray, NpzWriter};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// A network of two convolutions for the pictures of `shapes`.
pub const NETWORK: &str = include_str!("../../../tests/networks/small.gsir");

/// A folder with the network `net.gsir`.
pub fn folder() -> TempDir {
    let folder = tempdir().expect("a folder");
    put(folder.path(), "net.gsir", NETWORK);
    folder
}

/// The arguments of a run on few pictures into the folder `run`; what is in `more` counts instead.
pub fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["--data", "shapes:train:96", "--batch", "32", "-o", "run"];
    let mut args = vec!["train", "net.gsir"];
    for pair in usual.chunks(2).filter(|p| !more.contains(&p[0])) {
        args.extend(pair);
    }
    args.extend(more);
    args
}

pub fn trains(dir: &Path, more: &[&str]) -> String {
    succeeds(dir, &args(more))
}

pub fn fails(dir: &Path, more: &[&str], words: &[&str]) {
    refuses(dir, &args(more), words);
}

#[test]
fn a_network_is_trained_and_deployed() {
    let folder = folder();
    let dir = folder.path();
    let ended = gs_opt(dir, &args(&["--val", "shapes:test:64", "--epochs", "2"]));
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    // Two sets of pictures, one word about how they are read.
    assert_eq!(ended.stderr.matches("pixels are normalised").count(), 1, "{}", ended.stderr);
    let said = ended.stdout;
    for word in ["epoch 1: top-1 on held-out samples", "epoch 2: top-1", "top-1 on 64 held-out samples"] {
        assert!(said.contains(word), "{word}\n{said}");
    }
    let rows = rows(dir, "run");
    let of = |row: &Value, key: &str| row.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let epochs: Vec<&Value> = rows.iter().filter(|r| r.get("event").is_some()).collect();
    assert_eq!(epochs.iter().map(|r| of(r, "epoch")).collect::<Vec<_>>(), [1.0, 2.0]);
    for row in &epochs {
        assert!((0.0..=1.0).contains(&of(row, "held_out_accuracy")), "{row}");
        assert!(of(row, "loss") > 0.0 && of(row, "seconds") >= 0.0, "{row}");
    }
    // What is said at the end is the accuracy after the last epoch: no other weights are chosen.
    let last = format!("{:.2} %", 100.0 * of(epochs[1], "held_out_accuracy"));
    assert!(said.contains(&format!("held-out samples: {last}")), "{last}\n{said}");
    fails(dir, &[], &["holds a run already", "--resume"]);
    let before = files(dir, "run");
    fails(
        dir,
        &["--resume", "--epochs", "2", "--seed", "7", "--lr", "0.5", "--algorithm", "lsq"],
        &[
            "of another run",
            "its seed is 0, here it is 7",
            "its --lr is 0.01, here it is 0.5",
            "its --algorithm is not given, here it is lsq",
        ],
    );
    assert!(before == files(dir, "run"), "a run that was refused changed the folder");
    succeeds(dir, &["convert", "run", "-o", "net.onnx"]);
    succeeds(dir, &["eval", "net.onnx", "--data", "shapes:test:64"]);
}

/// Statistics of batch normalisation measured anew: they are others, parameters are the same, and again so.
#[test]
fn statistics_are_measured_anew_at_the_end() {
    let folder = folder();
    let dir = folder.path();
    let statistics = |run: &str| {
        let module = gs_opt::files::read(&dir.join(run).join("trained.gsir")).expect("a trained network");
        let mut materializer = gs_eval::Materializer::new(&module);
        let mut of = |op: gs_ir::OpId, i: usize| {
            let global = module.op(op).operand(i).and_then(|v| module.as_global(v)).expect("a global");
            materializer.tensor(global).expect("contents").to_f64s().expect("numbers")
        };
        let main = module.main().expect("a graph");
        let norm = module.ops_in(main).find(|&op| module.is(op, "batch_norm")).expect("a normalisation");
        [of(norm, 1), of(norm, 3), of(norm, 4)]
    };
    trains(dir, &["-o", "plain"]);
    trains(dir, &["-o", "anew", "--recalibrate", "2"]);
    trains(dir, &["-o", "again", "--recalibrate", "2"]);
    let (plain, anew) = (statistics("plain"), statistics("anew"));
    assert_eq!(plain[0], anew[0]);
    assert_ne!(plain[1], anew[1]);
    assert_ne!(plain[2], anew[2]);
    assert_eq!(anew, statistics("again"));
    fails(dir, &["-o", "none", "--recalibrate", "0"], &["--recalibrate"]);
}

/// With quantisers: every layer learns, and what is deployed runs in integers.
#[test]
fn a_network_with_quantisers_is_trained_and_deployed() {
    let folder = folder();
    let dir = folder.path();
    trains(dir, &["--algorithm", "simqat", "--target", "ort-cpu"]);
    succeeds(dir, &["convert", "run", "-o", "q.onnx"]);
    succeeds(dir, &["eval", "q.onnx", "--data", "shapes:test:64"]);
    let text = succeeds(dir, &["q.onnx"]);
    for operator in ["quantize(", "dequantize(", "conv("] {
        assert!(text.contains(operator), "{text}");
    }
    let stored = fs::read_to_string(dir.join("run/trained.gsir")).expect("the trained network");
    for weight in ["w1", "w2", "w3"] {
        assert!(
            stored.lines().any(|l| l.starts_with("state @") && l.contains(weight) && l.contains(".momentum")),
            "{weight}\n{stored}"
        );
    }
}

#[test]
fn it_learns_from_what_it_was() {
    let folder = folder();
    let dir = folder.path();
    fails(dir, &["--distill"], &["learn from itself", "--algorithm"]);
    let distil = |options: &'static str| ["--algorithm", "simqat", "--distill", options];
    fails(dir, &distil("temperature=0"), &["--distill", "`temperature` = 0 must be above 0"]);
    fails(dir, &distil("weight=2"), &["--distill", "`weight` = 2 must be 0 to 1"]);
    fails(dir, &distil("heat=2"), &["--distill", "heat", "temperature"]);
    trains(dir, &distil("temperature=2,weight=0.5"));
    let stored = fs::read_to_string(dir.join("run/trained.gsir")).expect("the trained network");
    assert!(stored.contains("const @teacher.w1") && stored.contains("conv(%x, @teacher.w1"), "{stored}");
    assert!(stored.contains("splat(0.5)") && stored.contains("splat(4.0)"), "{stored}");
    succeeds(dir, &["convert", "run", "-o", "q.gsir"]);
    let deployed = fs::read_to_string(dir.join("q.gsir")).expect("the deployed network");
    assert!(!deployed.contains("teacher") && deployed.contains("quantize("), "{deployed}");
    // Pictures that nobody has named will do where the teacher has the whole loss.
    samples(dir, "bare.npz", &[64, 3, 32, 32], -0.5);
    let bare = ["--data", "npz:bare.npz", "-o", "bare", "--algorithm", "simqat", "--distill"];
    fails(dir, &bare, &["bare.npz", "labels"]);
    trains(dir, &[&bare[..], &["weight=1"]].concat());
    // Accuracy is not measured without labels, nor on such as are no classes.
    let val =
        ["--data", "npz:bare.npz", "-o", "other", "--algorithm", "simqat", "--distill", "weight=1", "--val"];
    fails(
        dir,
        &[&val[..], &["npz:bare.npz"]].concat(),
        &["--val", "bare.npz", "no labels", "leave --val out"],
    );
    labelled(dir, "wrong.npz", &[0, 9, 10], &[3, 32, 32]);
    let words = ["label of sample 2", "is 10", "0 to 9"];
    fails(dir, &[&val[..], &["npz:wrong.npz"]].concat(), &words);
    fails(dir, &["--val", "npz:wrong.npz", "-o", "other"], &words);
    let data = ["--data", "npz:wrong.npz", "--batch", "2", "-o", "other", "--algorithm", "simqat"];
    fails(dir, &[&data[..], &["--distill", "weight=1"]].concat(), &words);
}

#[test]
fn requests_that_mean_nothing() {
    let folder = folder();
    let dir = folder.path();
    fails(dir, &["--batch", "100"], &["96 samples do not fill one batch of 100"]);
    for option in ["--batch", "--epochs"] {
        fails(dir, &[option, "0"], &[option, "at least 1"]);
    }
    fails(dir, &["--resume"], &["no checkpoint"]);
    fails(dir, &["--algorithm", "simcat"], &["no algorithm is named `simcat`", "simqat"]);
    fails(dir, &["--algorithm", "simqat", "--target", "nowhere"], &["nowhere", "ort-cpu"]);
    fails(dir, &["--algorithm", "simqat{target=other}", "--target", "ort-cpu"], &["ort-cpu", "other"]);
    fails(dir, &["--target", "ort-cpu"], &["--target goes with --algorithm"]);
    fails(dir, &["--schedule", "milestones"], &["--milestones A,B"]);
    fails(dir, &["--milestones", "3"], &["--schedule step or milestones"]);
    fails(dir, &["--schedule", "step", "--milestones", "1,2"], &["--milestones N"]);
    fails(dir, &["--schedule", "milestones", "--milestones=-1"], &["-1", "epochs"]);
    fails(
        dir,
        &["--schedule", "milestones", "--milestones", "3,2"],
        &["--milestones 3,2", "one after the other"],
    );
    // A negative number is a value that is wrong, no option that is not known.
    for (option, value) in [
        ("--lr", "-1"),
        ("--lr", "nan"),
        ("--lr", "inf"),
        ("--momentum", "nan"),
        ("--momentum", "1"),
        ("--weight-decay", "-0.1"),
        ("--label-smoothing", "1"),
        ("--gamma", "0"),
        ("--warmup", "-3"),
        ("--batch", "-3"),
        ("--limit", "-3"),
        ("--seed", "-3"),
        ("--threads", "-3"),
    ] {
        fails(dir, &[option, value], &[&format!("invalid value '{value}' for '{option} <")]);
    }
    fails(dir, &["--threads", "100000"], &["--threads 100000", "at most", "at once"]);
    fails(dir, &["--crop", "32"], &["--crop 32", "32 pixels", "at most 31"]);
    // The option is named, whatever is wrong with its value.
    for (options, words) in [
        ("lsq{weight_bits=abc}", ["`lsq`", "`weight_bits`"]),
        ("simqat{weight={bits=abc}}", ["`simqat`", "`weight.bits`"]),
        (
            "simqat{freeze_ranges=abc}",
            ["`freeze_ranges`", "a step (300), a part of the run (0.7) or `never`"],
        ),
        ("simqat{weight_bits=4}", ["unknown field `weight_bits`", "weight: grids of weights: {bits=8"]),
        (
            "simqat{observer=foo}",
            ["`observer`: unknown observer `foo`, expected `ema` or `minmax`,", "algos simqat"],
        ),
        ("lsq{observer=ema{decay=2}}", ["`observer`", "decay"]),
        ("lsq,pact", ["`lsq,pact` is not one algorithm", "gs-opt algos"]),
    ] {
        fails(dir, &["--algorithm", options], &words);
        assert_eq!(gs_opt(dir, &args(&["--algorithm", options])).status, Some(1), "{options}");
    }
    let same = |options: &'static str, out: &'static str| {
        trains(dir, &["--algorithm", options, "-o", out]);
        let text = fs::read_to_string(dir.join(out).join("trained.gsir")).expect("the trained network");
        text.replace(options, "").replace(&format!("\"{out}."), "")
    };
    assert!(same("slb{bits=3}", "a") == same("slb{weight_bits=3}", "b"));
}

/// What is likely not meant is said, once, and done.
#[test]
fn requests_that_are_likely_not_meant() {
    let folder = folder();
    let dir = folder.path();
    put(dir, "plain.gsir", NETWORK.replace("batch_norm(%0, @g1, @b1, @m1, @v1)", "relu(%0)"));
    let notes = |out: &str, net: &str, more: &[&str]| {
        let mut args = args(&[&["-o", out], more].concat());
        args[1] = net;
        let ended = gs_opt(dir, &args);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        ended.stderr.lines().filter(|l| l.starts_with("note: --")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(notes("a", "net.gsir", &["--recalibrate", "1", "--warmup", "3"]), [""; 0]);
    let more = ["--limit", "70", "--warmup", "9", "--schedule", "milestones", "--milestones", "0.5,4"];
    let said = notes("b", "net.gsir", &more);
    for (line, words) in said.iter().zip([
        "6 of 70 samples",
        "the run has 2 steps",
        "--milestones 4: the run ends after 1 epoch,",
    ]) {
        assert!(line.contains(words), "{words}\n{line}");
    }
    assert_eq!(said.len(), 3, "{said:?}");
    let said = notes("c", "plain.gsir", &["--recalibrate", "1"]);
    assert!(said.len() == 1 && said[0].contains("no batch normalisation"), "{said:?}");
}

/// The network as it takes one picture at a time.
fn of_one_picture() -> String {
    NETWORK.replace("dims N >= 1\n", "").replace("[N, ", "[1, ")
}

#[test]
fn a_network_with_a_batch_of_its_own() {
    let folder = folder();
    let dir = folder.path();
    put(dir, "net.gsir", of_one_picture());
    fails(dir, &[], &["net.gsir", "batches of 1 alone, not of 32", "--batch 1"]);
    let few = ["--data", "shapes:train:8", "--val", "shapes:test:5", "--batch", "1"];
    trains(dir, &few);
    trains(dir, &[&few[..], &["--algorithm", "simqat", "-o", "q"]].concat());
    put(dir, "net.gsir", NETWORK.replace("dims N >= 1\n", "").replace("[N, ", "[4, "));
    let four = ["--data", "shapes:train:9", "--batch", "4", "-o", "four"];
    fails(
        dir,
        &[&four[..], &["--val", "shapes:test:5"]].concat(),
        &["--val: 5 samples are no whole batches of 4"],
    );
    trains(dir, &[&four[..], &["--val", "shapes:test:8", "--algorithm", "simqat"]].concat());
}

/// People count schedules in epochs, the graph in steps.
#[test]
fn schedules_in_epochs() {
    let folder = folder();
    let dir = folder.path();
    let schedule = |name: &str, more: &[&str], words: &str| {
        trains(dir, &[&["-o", name, "--epochs", "3"], more].concat());
        let stored = fs::read_to_string(dir.join(name).join("trained.gsir")).expect("the trained network");
        assert!(stored.contains(words), "{words}\n{stored}");
    };
    schedule("a", &["--schedule", "step", "--milestones", "1"], "milestones = [3, 6, 9]");
    schedule(
        "b",
        &["--schedule", "milestones", "--milestones", "0.5,2", "--gamma", "0.5"],
        "gamma = 0.5, kind = \"milestones\", milestones = [2, 6]",
    );
}

/// An archive of pictures with labels.
pub(crate) fn labelled(folder: &Path, name: &str, labels: &[i64], dims: &[usize]) {
    let shape: Vec<usize> = std::iter::once(labels.len()).chain(dims.iter().copied()).collect();
    let count: usize = shape.iter().product();
    let array = |name: &str, dtype, shape: &[usize], bytes: Vec<u8>| NamedArray {
        name: Some(name.to_owned()),
        dtype,
        shape: shape.to_vec(),
        bytes,
    };
    let pixels = (0..count).flat_map(|i| ((i % 17) as f32 * 0.05).to_le_bytes()).collect();
    let classes = labels.iter().flat_map(|l| l.to_le_bytes()).collect();
    let mut writer = NpzWriter::new(&folder.join(name));
    writer.add(&array("x", DType::F32, &shape, pixels)).expect("an array");
    writer.add(&array("y", DType::I64, &[labels.len()], classes)).expect("an array");
    writer.finish().expect("an archive");
}

#[test]
fn data_that_cannot_be_trained_on() {
    let folder = folder();
    let dir = folder.path();
    let mut labels: Vec<i64> = (0..40).map(|i| i % 10).collect();
    labelled(dir, "good.npz", &labels, &[3, 32, 32]);
    labelled(dir, "small.npz", &labels, &[3, 16, 16]);
    labels[37] = 10;
    labelled(dir, "wrong.npz", &labels, &[3, 32, 32]);
    trains(dir, &["--data", "npz:good.npz:x:y"]);
    fails(
        dir,
        &["--data", "npz:good.npz", "--flip", "-o", "other"],
        &["--flip", "npz:good.npz", "no", "pictures"],
    );
    let other = ["-o", "other", "--data"];
    let with = |spec: &'static str| [&other[..], &[spec]].concat();
    fails(dir, &with("npz:wrong.npz:x:y"), &["label of sample 37", "npz:wrong.npz", "is 10", "0 to 9"]);
    fails(dir, &with("npz:small.npz:x:y"), &["f32[40, 3, 16, 16]", "f32[N, 3, 32, 32]"]);
    // Of another element type, under other names: said as it is.
    let arrays = |file: &str, dtype: DType, names: &[&str]| {
        let (shape, bytes) = (vec![8, 3, 32, 32], vec![0; 8 * 3 * 32 * 32 * dtype.size()]);
        let mut writer = NpzWriter::new(&dir.join(file));
        for name in names {
            let array = NamedArray {
                name: Some((*name).to_owned()),
                dtype,
                shape: shape.clone(),
                bytes: bytes.clone(),
            };
            writer.add(&array).expect("an array");
        }
        writer.finish().expect("an archive");
    };
    arrays("double.npz", DType::F64, &["x"]);
    fails(dir, &with("npz:double.npz"), &["f64[8, 3, 32, 32]", "as f32 (x.astype(\"f4\"))"]);
    arrays("bytes.npz", DType::U8, &["x"]);
    fails(dir, &with("npz:bytes.npz"), &["u8[8, 3, 32, 32]", "astype(\"f4\")), or for pictures --mean"]);
    arrays("named.npz", DType::F32, &["a", "b"]);
    fails(dir, &with("npz:named.npz"), &["has no array 'x'; it holds a, b"]);
    // A run is not taken up on other data.
    labels[37] = 9;
    labelled(dir, "good.npz", &labels, &[3, 32, 32]);
    fails(dir, &["--data", "npz:good.npz:x:y", "--resume"], &["of another run: its data is"]);
}

#[test]
fn numbers_that_go_astray() {
    let folder = folder();
    let ended = gs_opt(folder.path(), &args(&["--lr", "1e30", "--epochs", "9"]));
    assert_eq!(ended.status, Some(1));
    for word in ["the loss is", "first such number", "learning rate"] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
}

/// The network with a second convolution that no loss depends on.
fn two_heads() -> String {
    NETWORK
        .replace("const @m1", "param @w4 : f32[4, 8, 3, 3] = normal(seed 4, 0.0, 0.17)\nconst @m1")
        .replace("(%logits : f32[N, 10])", "(%logits : f32[N, 10], %other : f32[N, 4, 14, 14])")
        .replace("  return %7", "  %8 = conv(%2, @w4) : f32[N, 4, 14, 14] from \"head2\"\n  return %7, %8")
}

/// The loss is of the first output: what only another one reads is not trained.
#[test]
fn a_second_head_stays_as_it_is() {
    let folder = folder();
    let dir = folder.path();
    put(dir, "net.gsir", two_heads());
    for algorithm in ["lsq", "pact", "slb", "simqat"] {
        trains(dir, &["-o", algorithm, "--algorithm", algorithm]);
    }
}
