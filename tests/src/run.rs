//! Running pipelines over modules, and modules over samples.

use gs_algos::calibrate::inputs_of;
use gs_algos::quantisers::fake_quants;
use gs_eval::{DataSource, Executor, Tensor};
use gs_ir::{Module, Role};
use gs_passes::manager::{PassContext, PassManager, PassReport, Pipeline};
use gs_runtime::Runtime;
use std::collections::BTreeMap;

/// What turns a float network into a frozen one, with the ranges of few samples.
pub const FREEZE: &str = "canonicalize,fold-bn,simqat,calibrate{data=calib, limit=32},freeze";

/// Runs a pipeline with the data source `calib`; the module is verified after each pass.
pub fn run_passes(pipeline: &str, module: &mut Module, calib: Option<&dyn DataSource>) -> PassReport {
    let pipeline = Pipeline::parse(pipeline).expect("a pipeline");
    let registry = gs_opt::passes::registry();
    let runtime = runtime(2);
    let mut context = PassContext {
        executor: Some(&runtime),
        data: calib.map(|d| ("calib".to_owned(), d)).into_iter().collect::<BTreeMap<_, _>>(),
        ..PassContext::default()
    };
    let manager = PassManager { registry: &registry, verify_each: true };
    manager.run(&pipeline, module, &mut context, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"))
}

/// The fast executor with so many threads.
pub fn runtime(threads: usize) -> Runtime {
    Runtime::new(Some(threads)).expect("threads")
}

/// The first samples of a source as the network's inputs.
pub fn inputs(module: &Module, source: &dyn DataSource, count: usize) -> Vec<Tensor> {
    let main = module.main().expect("a graph");
    let fields = source.batch(0..count).expect("samples");
    inputs_of(module, module.graph(main).params(), fields).expect("the inputs of the network")
}

/// The outputs of a network.
pub fn outputs(executor: &dyn Executor, module: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    let main = module.main().expect("a graph");
    executor.run(module, main, inputs, &[]).unwrap_or_else(|e| panic!("{e}")).results
}

/// The largest difference between outputs, and the largest magnitude of the second.
pub fn difference(a: &[Tensor], b: &[Tensor]) -> (f64, f64) {
    assert_eq!(a.len(), b.len(), "numbers of outputs");
    let (mut worst, mut largest) = (0f64, 0f64);
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.dims(), b.dims());
        let (a, b) = (a.to_f64s().expect("numbers"), b.to_f64s().expect("numbers"));
        for (x, y) in a.iter().zip(&b) {
            assert!(x.is_finite() && y.is_finite(), "{x} {y}");
            worst = worst.max((x - y).abs());
            largest = largest.max(y.abs());
        }
    }
    (worst, largest)
}

/// Whether outputs are the same, bit for bit.
pub fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_bits(b))
}

/// The simulated quantisers of a network: of weights, of activations with a range to observe, with a fixed range.
pub fn quantisers(module: &Module) -> (usize, usize, usize) {
    let all = fake_quants(module).expect("sound quantisers");
    let weights = all.iter().filter(|q| q.weight).count();
    let observed = |range| module.global(range).role == Role::State;
    let activations = all.iter().filter(|q| !q.weight && observed(q.range)).count();
    (weights, activations, all.len() - weights - activations)
}
