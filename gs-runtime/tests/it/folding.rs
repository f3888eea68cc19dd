//! Plans of instrumented modules: what is computed from globals alone is made once and again when they change, and quantisers
//! are run by kernels.

use crate::common::{distinct, module, run, runtime};
use gs_eval::{Evaluator, Executor, Plan, Tensor, TensorSpec};
use gs_ir::{ElemType, Module};
use gs_runtime::Runtime;

/// Quantisers of values and of weights, weights on levels, and a chain of operations on globals that a single operation
/// and a result read.
const TEXT: &str = "dims N >= 1
param @w : f32[2, 2, 3, 3] = uniform(seed 1, -0.5, 0.5)
state @wr : f32[2, 2] = dense(-0.4, -0.3, 0.45, 0.2)
param @dw : f32[2, 1, 3, 3] = uniform(seed 5, -0.5, 0.5)
param @ds : f32[] = 0.07
param @lw : f32[2, 2, 1, 1, 4] = uniform(seed 9, -1.0, 1.0)
param @ls : f32[2] = dense(0.3, 0.4)
state @xr : f32[2] = dense(-2.0, 7.0)
param @step : f32[] = 0.11
param @alpha : f32[] = 1.5
param @e : f32[2, 1, 1] = dense(1.5, 2.0)
graph @main(%x : f32[N, 2, 5, 5]) -> (%y : f32[*], %z : f32[*], %q : f32[*], %v : f32[*]) {
  %q = fake_quant(%x, @xr) {bits = 4}
  %wq = fake_quant(@w, @wr) {bits = 4, signed = true, symmetric = true, axis = 0}
  %a = conv(%q, %wq) {pads = [1, 1, 1, 1]}
  %b = relu(%a)
  %c = pact(%b, @alpha) {bits = 3}
  %dq = lsq(@dw, @ds) {bits = 3}
  %d = conv(%c, %dq) {pads = [1, 1, 1, 1], group = 2}
  %s = lsq(%d, @step) {bits = 3}
  %lq = slb(@lw, @ls) {axis = 0}
  %y = conv(%s, %lq)
  %u = mul(@e, @e)
  %v = sqrt(%u)
  %z = pow(%b, %v)
  return %y, %z, %q, %v
}
";

/// The operations that the reference evaluator runs.
fn fallbacks(runtime: &Runtime, module: &Module, x: &Tensor) -> Vec<String> {
    let plan = runtime.plan(module, module.main().unwrap(), &[TensorSpec::of(x)], &[]).unwrap();
    plan.report().fallbacks.iter().map(|(op, _)| module.op_name(*op).to_owned()).collect()
}

#[test]
fn only_what_reads_inputs_and_has_no_kernel_is_left() {
    let module = module(TEXT);
    assert_eq!(fallbacks(&runtime(1), &module, &distinct(ElemType::F32, &[3, 2, 5, 5])), ["pow"]);
}

#[test]
fn results_are_those_of_the_evaluator() {
    let module = module(TEXT);
    let x = [distinct(ElemType::F32, &[3, 2, 5, 5])];
    let reference = run(&Evaluator::new(), &module, &x).unwrap();
    for threads in [1, 3] {
        let fast = run(&runtime(threads), &module, &x).unwrap();
        for (a, b) in fast.results.iter().zip(&reference.results) {
            assert_eq!(a.dims(), b.dims());
            let pairs = a.to_f64s().unwrap().into_iter().zip(b.to_f64s().unwrap());
            pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}"));
        }
        // No sum stands before these.
        assert!(fast.results[2].same_bits(&reference.results[2]));
        assert!(fast.results[3].same_bits(&reference.results[3]));
    }
}

/// Each global, also those behind constants that kernels packed and that single operations read.
#[test]
fn globals_that_are_set_are_followed() {
    let module = module(TEXT);
    let x = [distinct(ElemType::F32, &[3, 2, 5, 5])];
    let (runtime, evaluator, main) = (runtime(2), Evaluator::new(), module.main().unwrap());
    let specs = [TensorSpec::of(&x[0])];
    let mut contents = gs_eval::Materializer::new(&module);
    for (global, data) in module.globals() {
        let name = module.str(data.name);
        let old = contents.tensor(global).unwrap();
        let new: Vec<f64> = old.to_f64s().unwrap().iter().rev().map(|v| v * 0.7).collect();
        let mut new = Tensor::from_f64s(ElemType::F32, old.dims().to_vec(), &new).unwrap();
        if name.ends_with('r') {
            let wider: Vec<f64> = old.to_f64s().unwrap().iter().map(|v| v * 1.3).collect();
            new = Tensor::from_f64s(ElemType::F32, old.dims().to_vec(), &wider).unwrap();
        }
        let mut fast = runtime.prepare(&module, main, &specs, &[]).unwrap();
        let mut slow = evaluator.prepare(&module, main, &specs, &[]).unwrap();
        let results = |plan: &mut dyn Plan| plan.run(&x, &mut |_, _| {}).unwrap().results;
        let before = results(fast.as_mut());
        fast.set_global(global, &new).unwrap();
        slow.set_global(global, &new).unwrap();
        let (after, want) = (results(fast.as_mut()), results(slow.as_mut()));
        assert_ne!(before, after, "{name}");
        for (a, b) in after.iter().zip(&want) {
            let pairs = a.to_f64s().unwrap().into_iter().zip(b.to_f64s().unwrap());
            pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{name}: {a} {b}"));
        }
        fast.set_global(global, &old).unwrap();
        assert_eq!(results(fast.as_mut()), before, "{name}");
    }
}

/// Parameters that make odd grids, and what is no number.
#[test]
fn quantisers_give_the_bits_of_the_evaluator() {
    let mut x = distinct(ElemType::F32, &[2, 40]).to_f64s().unwrap();
    x.splice(0..7, [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e30, -1e-42, 0.05]);
    let x = [Tensor::from_f64s(ElemType::F32, vec![2, 40], &x).unwrap()];
    for (op, ty, parameters) in [
        (
            "fake_quant",
            "f32[2]",
            ["dense(-1.0, 3.0)", "dense(0.0, 0.0)", "dense(0.5, 6.0)", "dense(-3e30, 1.0)"],
        ),
        ("lsq", "f32[]", ["0.1", "0.0", "-0.3", "1e-38"]),
        ("pact", "f32[]", ["2.0", "0.0", "-1.0", "1e-37"]),
    ] {
        for parameter in parameters {
            for attrs in ["bits = 2", "bits = 4, signed = true", "bits = 8, signed = false", "bits = 16"] {
                let text = format!(
                    "dims N >= 1\nparam @p : {ty} = {parameter}\ngraph @main(%x : f32[N, 40]) -> (%y : f32[*]) {{\n  \
                     %y = {op}(%x, @p) {{{attrs}}}\n  return %y\n}}\n"
                );
                let module = module(&text);
                assert!(fallbacks(&runtime(1), &module, &x[0]).is_empty(), "{text}");
                crate::common::assert_same(&text, &x);
            }
        }
    }
}
