//! Replays the corpus of the fuzz targets, and damaged copies of it, on the stable toolchain.
//!
//! The bodies and the changes are those of `fuzz/`, compiled into this test. A test says which input it died of in
//! the form that repeats it: the file and the number of the change.

#[path = "../../fuzz/src/bodies.rs"]
#[allow(unreachable_pub)]
mod bodies;
#[path = "../../fuzz/src/mutate.rs"]
#[allow(unreachable_pub)]
mod mutate;

use gs_ir::Registry;
use mutate::{Rng, changed, flipped, truncated};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Damaged copies of each file.
const CHANGES: u64 = 300;

/// The files of a corpus by name, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .expect("the corpus is part of the repository")
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a readable file"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

/// Gives each file and its damaged copies to a target.
fn replay(target: &str, body: fn(&[u8])) {
    let files = corpus(target);
    let contents: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut died = Vec::new();
    for (name, bytes) in &files {
        let mut survive = |change: &str, input: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
                died.push(format!("{name}, {change}: \"{}\"", input.escape_ascii()));
            }
        };
        survive("as it is", bytes);
        for change in 0..CHANGES {
            let mut rng = Rng::new(change);
            let input = match change % 3 {
                0 => truncated(&mut rng, bytes),
                1 => flipped(&mut rng, bytes),
                _ => changed(&mut rng, bytes, &contents),
            };
            survive(&format!("change {change}"), &input);
        }
    }
    assert!(died.is_empty(), "{} inputs made {target} panic:\n{}", died.len(), died.join("\n"));
}

#[test]
fn text_survives() {
    replay("text", bodies::text);
}

#[test]
fn onnx_survives() {
    replay("onnx", bodies::onnx);
}

/// Inputs of mended findings that are no valid text: refused, with an error that can be shown.
#[test]
fn refused_texts_survive() {
    for (name, bytes) in corpus("refused") {
        let text = String::from_utf8(bytes.clone()).expect("a refused text is UTF-8");
        assert!(gs_text::parse_module(&text, None, &Registry::builtin()).is_err(), "{name} is accepted");
        bodies::text(&bytes);
    }
}

/// A seed that is refused at its first line would exercise nothing.
#[test]
fn seeds_are_accepted() {
    let registry = Registry::builtin();
    for (name, bytes) in corpus("text") {
        let text = String::from_utf8(bytes).expect("a text seed is UTF-8");
        let parsed = gs_text::parse_module(&text, None, &registry);
        assert!(parsed.is_ok(), "{name}: {:?}", parsed.err());
    }
    for (name, bytes) in corpus("onnx") {
        let model = gs_onnx::decode_model(bytes.into()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let module = gs_onnx::import(&model, None, &registry).unwrap_or_else(|e| panic!("{name}: {e}"));
        let exported = gs_onnx::export(&module, &gs_onnx::ExportOptions::default());
        assert!(exported.is_ok(), "{name}: {:?}", exported.err());
    }
}
