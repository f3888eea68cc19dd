//! Networks from the shared test data, and what they compute.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use gs_eval::{Evaluator, Executor, Precision, Tensor};
use gs_ir::{Module, Registry, ValueId};
use std::path::PathBuf;

/// A file of the test data; `None`, with a word about it, where there is none.
pub(crate) fn path(file: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(file);
    if !path.exists() {
        eprintln!("skipped: there is no ../shared/data/{file}");
        return None;
    }
    Some(path)
}

/// The text of a file.
pub(crate) fn text(file: &str) -> Option<String> {
    Some(std::fs::read_to_string(path(file)?).unwrap())
}

/// A network.
pub(crate) fn onnx(file: &str) -> Option<Module> {
    let mut module = gs_onnx::import_file(&path(file)?, &Registry::builtin()).unwrap();
    gs_ir::infer_module(&mut module);
    Some(module)
}

/// Random inputs of a network; a symbolic extent is 2.
pub(crate) fn inputs(module: &Module, seed: u64) -> Vec<Tensor> {
    let main = module.main().unwrap();
    let tensor = |(n, &param): (usize, &ValueId)| {
        let ty = module.type_of(param).as_tensor().unwrap();
        let dims: Vec<usize> =
            ty.dims().unwrap().iter().map(|d| d.as_const().unwrap_or(2) as usize).collect();
        let count: usize = dims.iter().product();
        let at = |i: usize| gs_eval::random::unit(seed + 1000 * n as u64, i as u64);
        let values: Vec<f64> = match ty.elem.is_float() {
            true => (0..count).map(|i| 2.0 * at(i) - 1.0).collect(),
            false => (0..count).map(|i| (16.0 * at(i)).floor()).collect(),
        };
        Tensor::from_f64s(ty.elem, dims, &values).unwrap()
    };
    module.graph(main).params().iter().enumerate().map(tensor).collect()
}

/// What a network computes in f64.
pub(crate) fn outputs(module: &Module, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let evaluator = Evaluator::new().with_precision(Precision::F64);
    let run = evaluator.run(module, module.main().unwrap(), inputs, &[]).unwrap_or_else(|e| panic!("{e}"));
    run.results.iter().map(|t| t.to_f64s().unwrap()).collect()
}

/// The largest difference of outputs, relative to the largest output.
pub(crate) fn difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.iter().map(Vec::len).collect::<Vec<_>>(), b.iter().map(Vec::len).collect::<Vec<_>>());
    let pairs = || a.iter().flatten().zip(b.iter().flatten());
    let largest = pairs().map(|(x, y)| x.abs().max(y.abs())).fold(0.0, f64::max);
    let apart = pairs().map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
    assert!(largest.is_finite() && largest > 0.0, "outputs say nothing: {largest}");
    apart / largest
}
