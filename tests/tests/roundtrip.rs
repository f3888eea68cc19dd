//! Every real network through the IR, through text, and back to ONNX.

use gs_ir::Registry;
use gs_tests::data::{networks, onnx_bytes};
use gs_text::{PrintOptions, SourceMap, Style};
use std::path::{Path, PathBuf};

/// Runs a check on every file, on two threads.
fn each(folders: &[&str], check: fn(&Path)) {
    let files: Vec<PathBuf> = folders.iter().filter_map(|f| networks(f)).flatten().collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    check(file);
                }
            });
        }
    });
}

fn import(path: &Path) -> gs_ir::Module {
    gs_onnx::import_file(path, &Registry::builtin()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn twice_through_onnx(path: &Path) {
    let once = onnx_bytes(&import(path));
    let model = gs_onnx::decode_model(once.clone().into()).expect("what was written can be read");
    let again = gs_onnx::import(&model, None, &Registry::builtin()).expect("what was written is a model");
    assert!(once == onnx_bytes(&again), "{}: the second export differs", path.display());
}

fn through_text(path: &Path) {
    let module = import(path);
    let text = gs_text::print_to_string(&module, &PrintOptions::default());
    let parsed = gs_text::parse_module(&text, None, &Registry::builtin()).unwrap_or_else(|d| {
        let sources = SourceMap::single("printed", text.clone());
        panic!("{}: {}", path.display(), gs_text::render_all(&d, &sources, Style::Plain))
    });
    assert!(
        text == gs_text::print_to_string(&parsed, &PrintOptions::default()),
        "{}: the second print differs",
        path.display()
    );
    assert!(onnx_bytes(&module) == onnx_bytes(&parsed), "{}: text lost something", path.display());
}

#[test]
fn the_second_onnx_round_trip_is_byte_identical() {
    each(&["onnx", "resnet_cifar10", "mlperf_tiny"], twice_through_onnx);
}

#[test]
fn text_loses_nothing_of_what_onnx_says() {
    each(&["onnx", "resnet_cifar10", "mlperf_tiny"], through_text);
}
