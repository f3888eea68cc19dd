//! The folder of a training run: what is written there and when, and runs that end before their time.

use crate::harness::{Ended, put, refuses, start, start_heard, succeeds};
use crate::train::{NETWORK, args, fails, folder, trains};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The rows of a run's log.
pub fn rows(dir: &Path, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir.join(run).join("log.jsonl")).expect("a log");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// What a run leaves, but for its log.
fn left(dir: &Path, run: &str) -> Vec<(String, Vec<u8>)> {
    files(dir, run).into_iter().filter(|(name, _)| name != "log.jsonl").collect()
}

/// The files of a run.
pub fn files(dir: &Path, run: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir.join(run)).expect("a folder");
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|e| e.expect("an entry"))
        .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("a file")))
        .collect();
    files.sort();
    files
}

/// Nothing of somebody else's is replaced, and of a run that comes to nothing no file is left.
#[test]
fn folders_that_are_not_a_runs_own() {
    let folder = folder();
    let dir = folder.path();
    for name in ["trained.gsir", "network.gsir", "log.jsonl", "trained.gsir.safetensors"] {
        let own = dir.join("own");
        fs::create_dir(&own).expect("a folder");
        fs::write(own.join(name), "mine").expect("a file");
        fails(
            dir,
            &["-o", "own"],
            &[&format!("own holds {name}, which a run would replace"), "another folder"],
        );
        assert_eq!(files(dir, "own"), [(name.to_owned(), b"mine".to_vec())]);
        fs::remove_dir_all(&own).expect("it can be removed");
    }
    // What has nothing to do with runs may lie there.
    fs::create_dir(dir.join("run")).expect("a folder");
    fs::write(dir.join("run/notes.txt"), "mine").expect("a file");
    fails(dir, &["--lr", "1e30", "--epochs", "9"], &["the loss is"]);
    assert_eq!(files(dir, "run"), [("notes.txt".to_owned(), b"mine".to_vec())]);
    fails(dir, &["--lr", "1e30", "--epochs", "9", "-o", "deep/er/run"], &["the loss is"]);
    trains(dir, &[]);
    assert!(!dir.join("run/run.lock").exists());
    fails(dir, &["-o", "net.gsir"], &["net.gsir: it cannot be made a folder"]);
}

/// Two runs into one folder: the second is refused while the first goes on, even where that has written nothing yet.
#[test]
fn one_run_at_a_time() {
    let folder = folder();
    let dir = folder.path();
    let long = args(&["--epochs", "1000", "-o", "one", "--save-every", "3600"]);
    let mut child = start(dir, &long);
    let began = Instant::now();
    while !dir.join("one/log.jsonl").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    let process = format!("another run (process {}) writes to this folder", child.id());
    fails(dir, &["-o", "one"], &["one: ", &process]);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    // What a killed run has left without a checkpoint is nobody's.
    assert!(dir.join("one/run.lock").exists() && dir.join("one/network.gsir").exists());
    fails(dir, &["-o", "one", "--resume"], &["no checkpoint", "leave --resume out"]);
    trains(dir, &["-o", "one"]);
    let names: Vec<String> = files(dir, "one").into_iter().map(|f| f.0).collect();
    assert!(
        names.contains(&"trained.gsir".to_owned()) && !names.contains(&"run.lock".to_owned()),
        "{names:?}"
    );
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
    for at in [60, whole.len() / 2, whole.len() - 1] {
        let mut other = whole.clone();
        other[at] ^= 4;
        fs::write(&path, &other).expect("a file");
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

/// Runs the tool where no file can grow beyond some kilobytes.
fn full_disk(dir: &Path, args: &[&str]) -> Ended {
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_gs-opt")]).args(args).current_dir(dir);
    Ended::of(command.output().expect("a shell"))
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
        .filter(|r| r["event"] == "epoch")
        .filter_map(|r| r["step"].as_u64())
        .collect();
    assert!(steps.windows(2).all(|w| w[0] < w[1]) && steps.last() == Some(&45), "{steps:?}");
}

/// Ctrl-C stops after a step, and the run that goes on ends as one that was not stopped, with the same rows.
#[cfg(unix)]
#[test]
fn a_stopped_run_is_saved() {
    let folder = folder();
    let dir = folder.path();
    let more = ["--epochs", "130", "--algorithm", "simqat", "--save-every", "3600"];
    trains(dir, &[&more[..], &["-o", "whole"]].concat());
    let stopped = [&more[..], &["-o", "killed"]].concat();
    let child = start_heard(dir, &args(&stopped));
    let began = Instant::now();
    while !fs::read_to_string(dir.join("killed/log.jsonl")).is_ok_and(|log| log.contains("\"step\":100")) {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let ended = Ended::of(child.wait_with_output().expect("it ends"));
    assert_eq!(ended.status, Some(130), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("stopped; saved to step ") && ended.stderr.contains("--resume"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
    assert!(!dir.join("killed/trained.gsir").exists());
    refuses(dir, &["convert", "killed", "-o", "k.onnx"], &["killed", "not finished", "--resume"]);
    let said = trains(dir, &[&stopped[..], &["--resume"]].concat());
    assert!(said.contains("trained steps ") && said.contains(" to 390 of 130 epochs"), "{said}");
    assert!(left(dir, "whole") == left(dir, "killed"));
    let timeless = |run: &str| -> Vec<Value> {
        let mut rows = rows(dir, run);
        rows.retain(|r| r["event"] != "saved");
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            row.retain(|key, _| !key.contains("second"));
        }
        rows
    };
    assert_eq!(timeless("whole"), timeless("killed"));
    let again = trains(dir, &[&stopped[..], &["--resume"]].concat());
    assert!(again.contains("the run was over already, after 130 epochs"), "{again}");
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
