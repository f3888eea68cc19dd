//! Networks and samples from the folder of test data beside the workspace.

use gs_eval::{InMemory, Tensor, random};
use gs_ir::{Module, Registry};
use gs_opt::cli::PreprocessArgs;
use gs_opt::source::Samples;
use std::path::{Path, PathBuf};

/// A file or folder of the test data; nothing, with a word about it, where there is none.
pub fn data(path: &str) -> Option<PathBuf> {
    let found = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: there is no {}", found.display());
    None
}

/// The ONNX files of a folder of the test data, in order.
pub fn networks(folder: &str) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(data(folder)?).expect("a folder that can be read");
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.expect("an entry of the folder").path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    found.sort();
    Some(found)
}

/// A network as the tool reads it.
pub fn read(path: &Path) -> Module {
    gs_opt::files::read(path).unwrap_or_else(|e| panic!("{e}"))
}

/// An ONNX model in memory as the tool would read it.
pub fn read_bytes(bytes: Vec<u8>) -> Module {
    let model = gs_onnx::decode_model(bytes.into()).expect("a model");
    let mut module = gs_onnx::import(&model, None, &Registry::builtin()).expect("an importable model");
    gs_ir::infer_module(&mut module);
    gs_ir::verify(&module).expect("a sound module");
    module
}

/// A module as ONNX bytes, derived weights computed.
pub fn onnx_bytes(module: &Module) -> Vec<u8> {
    let mut materializer = gs_eval::Materializer::new(module);
    let mut contents = |global| materializer.data(global).map_err(std::io::Error::other);
    let mut out = Vec::new();
    gs_onnx::export_to(&mut out, module, &gs_onnx::ExportOptions::default(), &mut contents)
        .unwrap_or_else(|e| panic!("{e}"));
    out
}

/// CIFAR-10 images in the form of a network's input.
pub fn cifar10(split: &str, raw255: bool, module: &Module) -> Option<Samples> {
    let spec = format!("cifar10:{}:{split}", data("cifar10")?.display());
    let preprocess = PreprocessArgs { mean: None, std: None, raw255 };
    Some(Samples::open(&spec, None, &preprocess, module).unwrap_or_else(|e| panic!("{e}")))
}

/// Uniform numbers in [0, 1) that are the same in every run.
pub fn noise(input: &str, dims: &[usize], seed: u64) -> InMemory {
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count as u64).map(|i| random::unit(seed, i) as f32).collect();
    let tensor = Tensor::f32s(dims, values).expect("as many values as the extents say");
    InMemory::new(vec![(input.to_owned(), tensor)]).expect("one field")
}
