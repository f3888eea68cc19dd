//! What plans are made of graphs.

use crate::common::{assert_same, distinct, module, run, runtime};
use gs_eval::{Evaluator, Tensor, TensorSpec};
use gs_ir::{ElemType, Module};
use gs_runtime::{PlanReport, Why};

fn report(module: &Module, inputs: &[Tensor]) -> PlanReport {
    let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
    let runtime = runtime(1);
    let plan = runtime.plan(module, module.main().expect("a graph"), &specs, &[]);
    plan.unwrap_or_else(|e| panic!("{e}")).report()
}

/// The operations of each segment, and those that no kernel runs, by name.
fn names(module: &Module, report: &PlanReport) -> (Vec<Vec<String>>, Vec<(String, Why)>) {
    let name = |op: &gs_ir::OpId| module.op_name(*op).to_owned();
    let segments = report.segments.iter().map(|s| s.iter().map(name).collect()).collect();
    (segments, report.fallbacks.iter().map(|(op, why)| (name(op), why.clone())).collect())
}

#[test]
fn activations_and_additions_go_into_the_operation_before_them() {
    let text = "dims N >= 1
param @w : f32[2, 2, 3, 3] = uniform(seed 1, -0.5, 0.5)
param @v : f32[2, 2, 3, 3] = uniform(seed 2, -0.5, 0.5)
graph @main(%x : f32[N, 2, 5, 5]) -> (%y : f32[N, 2, 5, 5]) {
  %a = conv(%x, @w) {pads = [1, 1, 1, 1]}
  %b = relu(%a)
  %c = clip(%b) {max = 6.0}
  %d = conv(%c, @v) {pads = [1, 1, 1, 1]}
  %e = add(%x, %d)
  %f = relu(%e)
  %g = relu(%f)
  %h = add(%g, %g)
  return %h
}
";
    let module = module(text);
    let x = [distinct(ElemType::F32, &[3, 2, 5, 5])];
    let (segments, fallbacks) = names(&module, &report(&module, &x));
    assert_eq!(segments, [["conv", "conv", "add"]]);
    assert_eq!(fallbacks, []);
    let (fast, reference) = (run(&runtime(2), &module, &x), run(&Evaluator::new(), &module, &x));
    let (fast, reference) = (fast.unwrap().results.remove(0), reference.unwrap().results.remove(0));
    for (a, b) in fast.as_f32().unwrap().iter().zip(reference.as_f32().unwrap()) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn what_no_kernel_runs_is_named_and_splits_the_graph() {
    let text = "dims N >= 1
graph @main(%x : f32[N, 4], %i : i64[N, 4]) -> (%y : f32[N, 4], %z : i64[N, 4]) {
  %a = relu(%x)
  %b = tanh(%a)
  %c = add(%b, %b)
  %d, %e = split(%c) {axis = 1}
  %f = concat(%e, %d) {axis = 1}
  %g = add(%i, %i)
  return %f, %g
}
";
    let module = module(text);
    let ids = Tensor::i64s([2, 4], (0..8).collect::<Vec<_>>()).unwrap();
    let inputs = [distinct(ElemType::F32, &[2, 4]), ids];
    let (segments, fallbacks) = names(&module, &report(&module, &inputs));
    assert_eq!(segments, [["relu"], ["add"], ["concat"]]);
    let expected = [("tanh", Why::NoKernel), ("split", Why::Results(2)), ("add", Why::Values)];
    assert_eq!(fallbacks, expected.map(|(n, w)| (n.to_owned(), w)));
    assert_same(text, &inputs);
}

/// Two convolutions read the same codes on different grids: the numbers around the image can be those of one only.
#[test]
fn a_refused_operation_splits_its_segment() {
    let text = "dims N >= 1
const @s : f32[] = 0.05
const @z : i8[] = 3
const @y : i8[] = -7
const @ws : f32[2] = dense(0.02, 0.03)
const @wz : i8[2] = splat(0)
const @w : i8[2, 2, 3, 3] = dense(1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, -4, -5, -6, -7, -8, -9,
  9, 8, 7, 6, 5, 4, 3, 2, 1, -9, -8, -7, -6, -5, -4, -3, -2, -1)
graph @main(%x : i8[N, 2, 5, 5]) -> (%y : i8[N, 2, 5, 5]) {
  %p = transpose(%x) {perm = [0, 1, 3, 2]}
  %a = qconv(%p, @s, @z, @w, @ws, @wz, @s, @z) {pads = [1, 1, 1, 1]}
  %b = qconv(%p, @s, @y, @w, @ws, @wz, @s, @y) {pads = [1, 1, 1, 1]}
  %c = qconv(%p, @s, @z, @w, @ws, @wz, @s, @y) {pads = [1, 1, 1, 1]}
  %d = qadd(%a, @s, @z, %b, @s, @y, @s, @z)
  %e = qadd(%d, @s, @z, %c, @s, @y, @s, @z)
  return %e
}
";
    let module = module(text);
    let x = [distinct(ElemType::I8, &[3, 2, 5, 5])];
    let (segments, fallbacks) = names(&module, &report(&module, &x));
    assert_eq!(segments, [vec!["transpose", "qconv"], vec!["qconv", "qadd", "qadd"]]);
    assert_eq!(fallbacks, [("qconv".to_owned(), Why::Padding)]);
    assert_same(text, &x);
}

/// Activations of few bits are cut on their codes, in bytes like all others.
#[test]
fn codes_are_clipped_by_a_kernel() {
    let text = "dims N >= 1
graph @main(%x : u8[N, 256], %t : i8[N, 256]) -> (%y : u8[*], %z : i8[*], %u : u8[*], %v : i8[*]) {
  %a = clip(%x) {min = 0.0, max = 15.0}
  %b = clip(%t) {min = -7.0, max = 7.5}
  %c = clip(%x) {min = 20.5}
  %d = relu(%t)
  return %a, %b, %c, %d
}
";
    let module = module(text);
    let inputs = [distinct(ElemType::U8, &[2, 256]), distinct(ElemType::I8, &[2, 256])];
    let (segments, fallbacks) = names(&module, &report(&module, &inputs));
    assert_eq!(segments.concat(), ["clip", "clip", "clip", "relu"]);
    assert_eq!(fallbacks, []);
    assert_same(text, &inputs);
}

#[test]
fn movement_is_run_by_a_kernel() {
    let text = "dims N >= 1
const @c : f32[2, 1] = splat(0.5)
graph @main(%x : f32[N, 2, 3], %y : f32[2, 3]) -> (%z : f32[*], %u : f32[*]) {
  %a = pad(%x) {pads = [0, 0, 1, 0, 0, 1], value = 0.5}
  %b = reshape(%a) {shape = [N, 10]}
  %c = slice(%b) {starts = [1], ends = [5], axes = [1]}
  %d = reshape(%y) {shape = [2, 1, 3]}
  %e = flatten(%d)
  %f = concat(@c, %e) {axis = 1}
  return %c, %f
}
";
    let module = module(text);
    let inputs = [distinct(ElemType::F32, &[2, 2, 3]), distinct(ElemType::F32, &[2, 3])];
    let (segments, fallbacks) = names(&module, &report(&module, &inputs));
    assert_eq!(segments, [["pad", "reshape", "slice", "reshape", "flatten", "concat"]]);
    assert_eq!(fallbacks, []);
}

#[test]
fn a_long_network_is_cut_where_no_kernel_runs() {
    let (layers, width) = (40, 16);
    let mut text = String::from("dims N >= 1\n");
    let mut body = String::new();
    for i in 0..layers {
        text += &format!("param @w{i} : f32[{width}, {width}] = uniform(seed {i}, -0.3, 0.3)\n");
        let x = if i == 0 { "%x".to_owned() } else { format!("%b{}", i - 1) };
        body += &format!("  %a{i} = matmul({x}, @w{i})\n  %b{i} = tanh(%a{i})\n");
    }
    text += &format!(
        "graph @main(%x : f32[N, {width}]) -> (%y : f32[N, {width}]) {{\n{body}  return %b{}\n}}\n",
        layers - 1
    );
    let module = module(&text);
    let x = [distinct(ElemType::F32, &[2, width])];
    let (segments, fallbacks) = names(&module, &report(&module, &x));
    assert_eq!(segments, vec![["matmul"]; layers]);
    assert_eq!(fallbacks, vec![("tanh".to_owned(), Why::NoKernel); layers]);
    let (fast, reference) = (run(&runtime(2), &module, &x), run(&Evaluator::new(), &module, &x));
    let (fast, reference) = (fast.unwrap().results.remove(0), reference.unwrap().results.remove(0));
    for (a, b) in fast.as_f32().unwrap().iter().zip(reference.as_f32().unwrap()) {
        assert!((a - b).abs() <= 1e-4, "{a} {b}");
    }
}
