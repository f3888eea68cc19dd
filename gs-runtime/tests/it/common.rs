//! Modules from text, inputs, and the two engines side by side.

#![allow(missing_docs, unreachable_pub)]

use gs_eval::{Evaluator, ExecError, Executor, RunOutput, Tensor};
use gs_ir::{ElemType, Module, Registry, infer_module};
use gs_runtime::Runtime;

/// A module from text; result types that are not written are inferred.
pub fn module(text: &str) -> Module {
    let parsed = gs_text::parse_module(&format!("gsir 1\n{text}"), None, &Registry::builtin());
    let mut module = parsed.unwrap_or_else(|e| panic!("{text}\n{e:?}"));
    let misfits = infer_module(&mut module);
    assert!(misfits.is_empty(), "{text}\n{misfits:?}");
    module
}

pub fn runtime(threads: usize) -> Runtime {
    Runtime::new(Some(threads)).expect("threads")
}

pub fn run(executor: &dyn Executor, module: &Module, inputs: &[Tensor]) -> Result<RunOutput, ExecError> {
    executor.run(module, module.main().expect("a graph"), inputs, &[])
}

/// Elements that differ from each other as far as the type allows.
pub fn distinct(elem: ElemType, dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    let values: Vec<f64> = (0..n)
        .map(|i| match elem {
            ElemType::U8 => (i * 7 % 256) as f64,
            ElemType::I8 => (i * 7 % 256) as f64 - 128.0,
            _ => i as f64 * 0.25 - 3.0,
        })
        .collect();
    Tensor::from_f64s(elem, dims, &values).expect("a tensor")
}

/// Asserts that both engines give the same bits, whatever the number of threads.
pub fn assert_same(text: &str, inputs: &[Tensor]) {
    let module = module(text);
    let reference = run(&Evaluator::new(), &module, inputs).unwrap_or_else(|e| panic!("{text}\n{e}"));
    for threads in [1, 3] {
        let fast = run(&runtime(threads), &module, inputs).unwrap_or_else(|e| panic!("{text}\n{e}"));
        assert_eq!(fast.results.len(), reference.results.len());
        for (a, b) in fast.results.iter().zip(&reference.results) {
            assert!(a.same_bits(b), "{text}\n{threads} threads: {a:?}\nreference: {b:?}");
        }
    }
}
