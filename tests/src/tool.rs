//! The tool as a user starts it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The built tool. It is another package's, so cargo does not build it for these tests by itself.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/TEST
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test.ancestors().nth(2).expect("the folder of the profile");
        let target = profile.parent().expect("the target folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "gs-opt", "--bin", "gs-opt", "--target-dir"]).arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo");
        assert!(built.success(), "gs-opt could not be built");
        profile.join(format!("gs-opt{}", std::env::consts::EXE_SUFFIX))
    })
}

/// How the tool ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; none where a signal ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text on standard output"),
            stderr: String::from_utf8(output.stderr).expect("text on standard error"),
        }
    }
}

/// Runs the tool in a folder.
pub fn gs_opt(folder: &Path, args: &[impl AsRef<OsStr>]) -> Ended {
    Ended::of(Command::new(binary()).args(args).current_dir(folder).output().expect("gs-opt starts"))
}

/// Runs the tool in a folder with something on its standard input.
pub fn gs_opt_with_input(folder: &Path, args: &[&str], input: &str) -> Ended {
    let mut command = Command::new(binary());
    command
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("gs-opt starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // Beside the reading: neither end may wait for the other. A tool that reads nothing closes the pipe.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let ended = Ended::of(child.wait_with_output().expect("gs-opt ends"));
    writer.join().expect("a writer");
    ended
}

/// Runs the tool for a reader that goes away before the tool has written anything.
pub fn gs_opt_without_reader(folder: &Path, args: &[&str]) -> Ended {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdout(writer).stderr(Stdio::piped());
    Ended::of(command.spawn().and_then(|c| c.wait_with_output()).expect("gs-opt runs"))
}

/// Runs the tool where it must succeed; gives what it printed.
pub fn succeeds(folder: &Path, args: &[&str]) -> String {
    let ended = gs_opt(folder, args);
    assert_eq!(ended.status, Some(0), "gs-opt {}:\n{}", args.join(" "), ended.stderr);
    ended.stdout
}

/// Runs the tool where it must refuse: exit status 1 or 2, a message that holds all of `words`, no panic, and the
/// folder holds what it held before.
pub fn refuses(folder: &Path, args: &[&str], words: &[&str]) {
    let before = listing(folder);
    let ended = gs_opt(folder, args);
    let what = format!("gs-opt {}\nstatus {:?}\n{}", args.join(" "), ended.status, ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{what}");
    assert!(matches!(ended.status, Some(1 | 2)), "{what}");
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is not in the message\n{what}");
    }
    assert_eq!(before, listing(folder), "files appeared or went\n{what}");
}

/// The names of what lies in a folder, in order.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder that can be read");
    let mut names: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    names.sort();
    names
}
