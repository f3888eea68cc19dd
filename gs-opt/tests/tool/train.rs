//! Training with the tool, and what is deployed of it.

use crate::harness::{Ended, gs_opt, put, refuses, samples, start, succeeds};
use gs_opt::data::{DType, NamedArray, NpzWriter};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// A network of two convolutions for the pictures of `shapes`.
const NETWORK: &str = include_str!("../../../tests/networks/small.gsir");

/// A folder with the network `net.gsir`.
fn folder() -> TempDir {
    let folder = tempdir().expect("a folder");
    put(folder.path(), "net.gsir", NETWORK);
    folder
}

/// The arguments of a run on few pictures into the folder `run`; what is in `more` counts instead.
fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["--data", "shapes:train:96", "--batch", "32", "-o", "run"];
    let mut args = vec!["train", "net.gsir"];
    for pair in usual.chunks(2).filter(|p| !more.contains(&p[0])) {
        args.extend(pair);
    }
    args.extend(more);
    args
}

fn trains(dir: &Path, more: &[&str]) -> String {
    succeeds(dir, &args(more))
}

fn fails(dir: &Path, more: &[&str], words: &[&str]) {
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
    fails(dir, &["--resume", "--epochs", "2", "--seed", "7"], &["of another run", "seed"]);
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
fn labelled(folder: &Path, name: &str, labels: &[i64], dims: &[usize]) {
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
    let other = ["-o", "other", "--data"];
    let with = |spec: &'static str| [&other[..], &[spec]].concat();
    fails(dir, &with("npz:wrong.npz:x:y"), &["label of sample 37", "npz:wrong.npz", "is 10", "0 to 9"]);
    fails(dir, &with("npz:small.npz:x:y"), &["f32[40, 3, 16, 16]", "f32[N, 3, 32, 32]"]);
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

#[test]
fn checkpoints_that_are_of_no_use() {
    let folder = folder();
    let dir = folder.path();
    trains(dir, &[]);
    let path = dir.join("run/checkpoint.safetensors");
    let whole = fs::read(&path).expect("a checkpoint");
    for keep in [0, 3, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).expect("a file");
        fails(dir, &["--resume"], &["checkpoint.safetensors", "no checkpoint, or not all of one"]);
    }
    fs::write(&path, &whole).expect("a file");
    // Another network of the same form: a layer more, or other contents of what is not trained.
    put(dir, "net.gsir", NETWORK.replace("relu(%3)", "sigmoid(%3)"));
    let before = files(dir, "run");
    fails(dir, &["--resume"], &["of another run: its network is"]);
    assert!(before == files(dir, "run"), "a run that was refused changed the folder");
    put(dir, "net.gsir", NETWORK);
    trains(dir, &["--resume"]);
}

/// The rows of a run's log.
fn rows(dir: &Path, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir.join(run).join("log.jsonl")).expect("a log");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// What a run leaves, but for its log.
fn left(dir: &Path, run: &str) -> Vec<(String, Vec<u8>)> {
    files(dir, run).into_iter().filter(|(name, _)| name != "log.jsonl").collect()
}

/// The files of a run.
fn files(dir: &Path, run: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir.join(run)).expect("a folder");
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|e| e.expect("an entry"))
        .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("a file")))
        .collect();
    files.sort();
    files
}

/// Begins a run that writes a checkpoint at each step, and kills it after the first ones.
fn killed(dir: &Path, args: &[&str]) {
    let mut child = start(dir, args);
    let checkpoint = dir.join("killed/checkpoint.safetensors");
    let began = Instant::now();
    while !checkpoint.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("it can be killed");
    let ended = child.wait().expect("it ends");
    assert!(!ended.success(), "it was over before it was killed");
}

#[test]
fn a_killed_run_ends_as_one_that_was_not() {
    let folder = folder();
    let dir = folder.path();
    let more =
        ["--epochs", "15", "--crop", "2", "--flip", "--algorithm", "simqat", "--val", "shapes:test:32"];
    trains(dir, &[&more[..], &["-o", "whole"]].concat());
    let rest = [&more[..], &["-o", "killed", "--save-every", "0"]].concat();
    killed(dir, &args(&rest));
    // Twice, once in the middle.
    fs::copy(dir.join("killed/checkpoint.safetensors"), dir.join("first")).expect("a copy");
    let full = full_disk(dir, &args(&[&rest[..], &["--resume"]].concat()));
    assert_eq!(full.status, Some(1), "{}", full.stderr);
    for word in ["killed/checkpoint.safetensors: it cannot be written", "--resume"] {
        assert!(full.stderr.contains(word), "{word}\n{}", full.stderr);
    }
    let same =
        |a: &str, b: &str| fs::read(dir.join(a)).expect("a file") == fs::read(dir.join(b)).expect("a file");
    assert!(same("first", "killed/checkpoint.safetensors"), "the checkpoint was lost");
    trains(dir, &[&rest[..], &["--resume"]].concat());
    let (whole, killed) = (left(dir, "whole"), left(dir, "killed"));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&whole), names(&killed));
    for (a, b) in whole.iter().zip(&killed) {
        assert!(a.1 == b.1, "{} differs", a.0);
    }
    let steps: Vec<u64> = rows(dir, "killed")
        .iter()
        .filter(|r| r.get("event").is_some())
        .filter_map(|r| r["step"].as_u64())
        .collect();
    assert!(steps.windows(2).all(|w| w[0] < w[1]) && steps.last() == Some(&45), "{steps:?}");
}

/// The trained network is worth more than a row of the log.
#[test]
fn a_log_that_cannot_be_written_costs_no_result() {
    let folder = folder();
    let dir = folder.path();
    fs::create_dir(dir.join("run")).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", dir.join("run/log.jsonl")).expect("a link");
    fails(dir, &[], &["log.jsonl: it cannot be written"]);
    succeeds(dir, &["convert", "run", "-o", "net.onnx"]);
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

/// Runs the tool where no file can grow beyond some kilobytes.
fn full_disk(dir: &Path, args: &[&str]) -> Ended {
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_gs-opt")]).args(args).current_dir(dir);
    Ended::of(command.output().expect("a shell"))
}
