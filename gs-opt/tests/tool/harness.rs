//! The tool as a user starts it, and small things to give to it.

use gs_opt::data::{DType, NamedArray, NpzWriter};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::{TempDir, tempdir};

/// The built tool.
fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gs-opt"))
}

/// A file or folder of the test data beside the workspace; nothing, with a word about it, where there is none.
pub fn data(path: &str) -> Option<PathBuf> {
    let found = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: there is no {}", found.display());
    None
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
    /// Of a process that ended.
    pub fn of(output: Output) -> Self {
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

/// Starts the tool in a folder; nobody listens to what it says.
pub fn start(folder: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("gs-opt starts")
}

/// Starts the tool in a folder; what it says is kept.
pub fn start_heard(folder: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("gs-opt starts")
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
    gs_opt_with(folder, args, |command| {
        command.stdout(writer);
    })
}

/// Runs the tool with other streams than pipes, which `set` chooses.
pub fn gs_opt_with(folder: &Path, args: &[&str], set: impl FnOnce(&mut Command)) -> Ended {
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    set(&mut command);
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
    let entries = fs::read_dir(folder).expect("a folder that can be read");
    let mut names: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    names.sort();
    names
}

/// A folder with a small network `net.gsir` and samples `good.npz` for it.
pub fn folder() -> TempDir {
    let folder = tempdir().expect("a temporary folder");
    put(folder.path(), "net.gsir", network("0.5"));
    samples(folder.path(), "good.npz", &[4, 3, 8, 8], 0.25);
    folder
}

/// Writes a file.
pub fn put(folder: &Path, name: &str, contents: impl AsRef<[u8]>) {
    fs::write(folder.join(name), contents).expect("a file can be written");
}

/// A convolution of three channels to two; `weight` is its first weight.
pub fn network(weight: &str) -> String {
    let rest = ", -0.25, 1.0, 0.5, 0.125, -1.0";
    format!(
        "gsir 1\ndims N >= 1\nparam @w : f32[2, 3, 1, 1] = dense({weight}{rest})\n\
         graph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 2, 8, 8]) {{\n  \
         %0 = conv(%x, @w, _) : f32[N, 2, 8, 8] from \"conv\"\n  return %0\n}}\n"
    )
}

/// An archive of one array `x` of this shape; its first number is `value`.
pub fn samples(folder: &Path, name: &str, shape: &[usize], value: f32) {
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|i| (value + i as f32 * 0.001).to_le_bytes()).collect();
    let array = NamedArray { name: Some("x".to_owned()), dtype: DType::F32, shape: shape.to_vec(), bytes };
    let mut writer = NpzWriter::new(&folder.join(name));
    writer.add(&array).expect("an array");
    writer.finish().expect("an archive");
}
