//! Running modules: inputs and symbols, taps, updates, regions, errors.

use crate::common::{attrs, close, f32s, ints, ramp};
use gs_eval::{Evaluator, ExecError, Executor, OpError, Precision, Storage, Tensor, TensorSpec};
use gs_ir::{At, GraphId, OPAQUE_NAME, ValueId};
use gs_ir::{
    Attr, AttrSet, Dim, ElemType, Init, Literal, Module, NewGlobal, OpDecl, Registry, Rewriter, Role, Type,
};
use std::sync::Arc;

fn global(rw: &mut Rewriter<'_>, name: &str, role: Role, literal: Literal) -> ValueId {
    let ty = Type::fixed(literal.elem, &literal.dims);
    let id = rw.add_global(NewGlobal { name, role, trainable: false, ty, init: Init::Data(literal.data) });
    rw.global(id).value
}

/// `y = relu(x * 2); state = state + mean(y)` over `x : f32[N, 2]`.
fn small() -> (Module, GraphId, ValueId) {
    let mut module = Module::new();
    let n = Dim::symbol(module.symbol("N"));
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let x = rw.add_param(graph, "x", Type::tensor(ElemType::F32, [n, 2.into()]));
    let two = global(&mut rw, "two", Role::Const, Literal::f32(2.0));
    let state = global(&mut rw, "state", Role::State, Literal::f32s([1, 1], &[10.0]));
    let at = At::End(graph);
    let y = rw.emit("mul", &[x, two], AttrSet::new(), at).unwrap();
    let z = rw.emit("relu", &[y], AttrSet::new(), at).unwrap();
    let m = rw.emit("reduce_mean", &[z], AttrSet::new(), at).unwrap();
    let s = rw.emit("add", &[state, m], AttrSet::new(), at).unwrap();
    rw.add_result(graph, "z", z, None);
    let id = rw.as_global(state).unwrap();
    rw.set_update(graph, id, s);
    (module, graph, y)
}

#[test]
fn results_taps_and_updates() {
    let (module, graph, y) = small();
    let evaluator = Evaluator::new();
    let x = f32s(&[1, 2], &[-1.0, 3.0]);
    let out = evaluator.run(&module, graph, std::slice::from_ref(&x), &[y]).unwrap();
    close(&out.results[0], &[1, 2], &[0.0, 6.0]);
    close(&out.taps[0], &[1, 2], &[-2.0, 6.0]);
    assert_eq!(out.updates[0].0, module.global_named("state").unwrap());
    close(&out.updates[0].1, &[1, 1], &[13.0]);
}

#[test]
fn a_plan_runs_many_batches_and_takes_new_globals() {
    let (module, graph, _) = small();
    let evaluator = Evaluator::new();
    let spec = TensorSpec { elem: ElemType::F32, dims: vec![1, 2] };
    let state = module.global_named("state").unwrap();
    let mut plan = evaluator.prepare(&module, graph, &[spec], &[]).unwrap();
    let x = f32s(&[1, 2], &[1.0, 1.0]);
    for expected in [12.0, 14.0] {
        let out = plan.run(std::slice::from_ref(&x), &mut |_, _| {}).unwrap();
        close(&out.updates[0].1, &[1, 1], &[expected]);
        plan.set_global(state, &out.updates[0].1).unwrap();
    }
    assert!(matches!(plan.set_global(state, &Tensor::scalar(0.0)), Err(ExecError::Input { .. })));
}

#[test]
fn only_what_is_needed_is_kept_and_computed() {
    let (module, graph, y) = small();
    let evaluator = Evaluator::new();
    let spec = TensorSpec { elem: ElemType::F32, dims: vec![2, 2] };
    let mut plan = evaluator.prepare(&module, graph, &[spec], &[y]).unwrap();
    let mut seen = Vec::new();
    plan.run(&[ramp(&[2, 2])], &mut |v, view| {
        seen.push((v, view.dims.to_vec(), view.as_f32().map(<[f32]>::to_vec)))
    })
    .unwrap();
    assert_eq!(seen, [(y, vec![2, 2], Some(vec![0.0, 2.0, 4.0, 6.0]))]);
}

#[test]
fn inputs_must_fit_the_declared_types() {
    let (module, graph, _) = small();
    let evaluator = Evaluator::new();
    let run = |inputs: &[Tensor]| evaluator.run(&module, graph, inputs, &[]).unwrap_err();
    assert_eq!(run(&[]), ExecError::InputCount { expected: 1, found: 0 });
    let e = run(&[f32s(&[1, 3], &[0.0; 3])]);
    assert_eq!(e.to_string(), "input `x` must be f32[N, 2], found f32[1, 3]");
    let e = run(&[Tensor::i64s([1, 2], [0, 0]).unwrap()]);
    assert_eq!(e.to_string(), "input `x` must be f32[N, 2], found i64[1, 2]");
}

#[test]
fn symbols_are_bound_consistently() {
    let mut module = Module::new();
    let n = Dim::symbol(module.symbol("N"));
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let a = rw.add_param(graph, "a", Type::tensor(ElemType::F32, [n.mul(&2.into())]));
    let b = rw.add_param(graph, "b", Type::tensor(ElemType::F32, [n.clone()]));
    let c = rw.add_param(graph, "c", Type::tensor(ElemType::F32, [n.clone()]));
    let shape = attrs(&[("shape", Attr::dims([n, 2.into()]))]);
    let y = rw.emit("reshape", &[a], shape, At::End(graph)).unwrap();
    let s = rw.emit("add", &[b, c], AttrSet::new(), At::End(graph)).unwrap();
    rw.add_result(graph, "y", y, None);
    rw.add_result(graph, "s", s, None);
    let evaluator = Evaluator::new();
    let run = |a: usize, b: usize, c: usize| {
        evaluator.run(&module, graph, &[ramp(&[a]), ramp(&[b]), ramp(&[c])], &[])
    };
    assert_eq!(run(6, 3, 3).unwrap().results[0].dims(), [3, 2]);
    let e = run(6, 3, 4).unwrap_err();
    assert_eq!(e.to_string(), "`c` makes dimension `N` 4, elsewhere it is 3");
    assert!(matches!(run(7, 3, 3), Err(ExecError::Input { name, .. }) if name == "a"));
}

#[test]
fn opaque_operations_are_named_unless_nothing_needs_them() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let x = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[1]));
    let kind = rw.registry().kind("opaque").unwrap();
    let list = attrs(&[(OPAQUE_NAME, Attr::str("com.example::Frobnicate"))]);
    let op = rw.create(kind, &[Some(x)], list, 1, At::End(graph)).unwrap();
    let name = rw.intern("node_7");
    rw.set_source(op, &[name]);
    let y = rw.emit("relu", &[x], AttrSet::new(), At::End(graph)).unwrap();
    rw.add_result(graph, "y", y, None);
    let evaluator = Evaluator::new();
    let inputs = [f32s(&[1], &[1.0])];
    assert!(evaluator.run(&module, graph, &inputs, &[]).is_ok());
    let unused = module.op(op).result();
    Rewriter::new(&mut module).add_result(graph, "z", unused, None);
    let e = evaluator.run(&module, graph, &inputs, &[]).unwrap_err();
    assert_eq!(e.to_string(), "there is no evaluation for the operation `com.example::Frobnicate` (node_7)");
}

#[test]
fn a_user_dialect_is_evaluated_by_its_own_function() {
    let mut registry = (*Registry::builtin()).clone();
    let decl = OpDecl { name: "my.twice", ..OpDecl::BASE };
    registry.register(decl).unwrap();
    let mut module = Module::with_registry(Arc::new(registry));
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let x = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[2]));
    let y = rw.emit("my.twice", &[x], AttrSet::new(), At::End(graph)).unwrap();
    rw.add_result(graph, "y", y, None);
    let mut evaluator = Evaluator::new();
    let inputs = [f32s(&[2], &[1.0, 2.0])];
    assert!(matches!(evaluator.run(&module, graph, &inputs, &[]), Err(ExecError::Unsupported { .. })));
    evaluator.register("my.twice", |ctx| {
        let doubled: Vec<f64> = ctx.floats(0)?.iter().map(|x| 2.0 * x).collect();
        ctx.make(ctx.operand(0)?.elem(), ctx.operand(0)?.dims(), &doubled)
    });
    close(&evaluator.run(&module, graph, &inputs, &[]).unwrap().results[0], &[2], &[2.0, 4.0]);
}

#[test]
fn a_result_that_contradicts_its_type_is_an_error() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let x = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[2]));
    let y = rw.emit("relu", &[x], AttrSet::new(), At::End(graph)).unwrap();
    rw.set_type(y, Type::fixed(ElemType::F32, &[3]));
    rw.add_result(graph, "y", y, None);
    let e = Evaluator::new().run(&module, graph, &[f32s(&[2], &[1.0, 2.0])], &[]).unwrap_err();
    assert_eq!(e.to_string(), "relu (relu): result 0 is declared f32[3], computed was f32[2]");
}

#[test]
fn double_precision_keeps_what_native_rounds() {
    let (module, graph, _) = small();
    let x = Tensor::from_f64s(ElemType::F64, [1, 2], &[0.1, 1.0 + 1e-12]).unwrap();
    let wide = Evaluator::new().with_precision(Precision::F64);
    let out = wide.run(&module, graph, &[x], &[]).unwrap();
    assert_eq!(out.results[0].storage(), &Storage::F64(vec![0.2, 2.0 + 2e-12]));
    let narrow = wide.run(&module, graph, &[f32s(&[1, 2], &[0.5, 1.0])], &[]).unwrap();
    assert_eq!(narrow.results[0].elem(), ElemType::F64);
}

fn scalar_type(elem: ElemType) -> Type {
    Type::fixed(elem, &[])
}

/// An operation with regions, whose results are returned.
fn with_regions(
    rw: &mut Rewriter<'_>,
    graph: GraphId,
    op: &str,
    operands: &[Option<ValueId>],
    list: AttrSet,
    types: &[Type],
) -> gs_ir::OpId {
    let kind = rw.registry().kind(op).unwrap();
    let op = rw.create_typed(kind, operands, list, types, At::End(graph));
    for (i, &r) in rw.op(op).results().to_vec().iter().enumerate() {
        rw.add_result(graph, &format!("y{i}"), r, None);
    }
    op
}

#[test]
fn branches_see_outer_values() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let c = rw.add_param(graph, "c", scalar_type(ElemType::Bool));
    let x = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[2]));
    let y = rw.emit("neg", &[x], AttrSet::new(), At::End(graph)).unwrap();
    let op =
        with_regions(&mut rw, graph, "if", &[Some(c)], AttrSet::new(), &[Type::fixed(ElemType::F32, &[2])]);
    for (name, f) in [("then_branch", "relu"), ("else_branch", "abs")] {
        let region = rw.add_region(op, name);
        let z = rw.emit(f, &[y], AttrSet::new(), At::End(region)).unwrap();
        rw.add_result(region, "z", z, None);
    }
    let evaluator = Evaluator::new();
    let x = f32s(&[2], &[1.0, -2.0]);
    for (c, expected) in [(true, [0.0, 2.0]), (false, [1.0, 2.0])] {
        let c = Tensor::new(ElemType::Bool, [], Storage::Bool(vec![c])).unwrap();
        close(&evaluator.run(&module, graph, &[c, x.clone()], &[]).unwrap().results[0], &[2], &expected);
    }
}

/// `loop` that adds the turn's number to a carried sum and collects the sums, until the sum exceeds 3.
fn counting() -> (Module, GraphId, ValueId) {
    let mut module = Module::new();
    let n = Dim::symbol(module.symbol("turns"));
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let m = rw.add_param(graph, "m", scalar_type(ElemType::I64));
    let v = rw.add_param(graph, "v", scalar_type(ElemType::I64));
    let three = global(&mut rw, "three", Role::Const, Literal::i64s([], &[3]));
    let types = [scalar_type(ElemType::I64), Type::tensor(ElemType::I64, [n])];
    let op = with_regions(&mut rw, graph, "loop", &[Some(m), None, Some(v)], AttrSet::new(), &types);
    let body = rw.add_region(op, "body");
    let i = rw.add_param(body, "i", scalar_type(ElemType::I64));
    rw.add_param(body, "go", scalar_type(ElemType::Bool));
    let sum = rw.add_param(body, "sum", scalar_type(ElemType::I64));
    let next = rw.emit("add", &[sum, i], AttrSet::new(), At::End(body)).unwrap();
    let more = rw.emit("less", &[next, three], AttrSet::new(), At::End(body)).unwrap();
    rw.add_result(body, "more", more, None);
    rw.add_result(body, "next", next, None);
    rw.add_result(body, "each", next, None);
    (module, graph, next)
}

#[test]
fn loops_carry_collect_and_stop() {
    let (module, graph, next) = counting();
    let evaluator = Evaluator::new();
    let run = |m: i64, v: i64| {
        let inputs = [Tensor::i64s([], [m]).unwrap(), Tensor::i64s([], [v]).unwrap()];
        evaluator.run(&module, graph, &inputs, &[]).unwrap().results
    };
    let y = run(100, 0);
    assert_eq!((y[0].as_i64(), y[1].as_i64()), (Some(&[3][..]), Some(&[0, 1, 3][..])));
    let y = run(2, 0);
    assert_eq!((y[0].as_i64(), y[1].as_i64()), (Some(&[1][..]), Some(&[0, 1][..])));
    let y = run(0, 7);
    assert_eq!((y[0].as_i64(), y[1].dims(), y[1].elem()), (Some(&[7][..]), &[0][..], ElemType::I64));
    // A tap in the body is called once per turn.
    let inputs = [Tensor::i64s([], [5]).unwrap(), Tensor::i64s([], [0]).unwrap()];
    let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
    let mut calls = 0;
    evaluator.prepare(&module, graph, &specs, &[next]).unwrap().run(&inputs, &mut |_, _| calls += 1).unwrap();
    assert_eq!(calls, 3);
}

#[test]
fn endless_loops_end_with_the_steps() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let v = rw.add_param(graph, "v", scalar_type(ElemType::I64));
    let op = with_regions(
        &mut rw,
        graph,
        "loop",
        &[None, None, Some(v)],
        AttrSet::new(),
        &[scalar_type(ElemType::I64)],
    );
    let body = rw.add_region(op, "body");
    rw.add_param(body, "i", scalar_type(ElemType::I64));
    let go = rw.add_param(body, "go", scalar_type(ElemType::Bool));
    let sum = rw.add_param(body, "sum", scalar_type(ElemType::I64));
    rw.add_result(body, "go", go, None);
    rw.add_result(body, "sum", sum, None);
    let evaluator = Evaluator::new().with_limits(1000, 10_000);
    let e = evaluator.run(&module, graph, &[Tensor::i64s([], [0]).unwrap()], &[]).unwrap_err();
    assert!(matches!(e, ExecError::Op { error, .. } if *error == OpError::TooMuchWork));
}

#[test]
fn scans_walk_an_axis() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let s = rw.add_param(graph, "s", Type::fixed(ElemType::F32, &[2]));
    let x = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[2, 3]));
    let list = attrs(&[
        ("num_scan_inputs", Attr::Int(1)),
        ("scan_input_axes", ints(&[1])),
        ("scan_output_axes", ints(&[1])),
        ("scan_output_directions", ints(&[1])),
    ]);
    let types = [Type::fixed(ElemType::F32, &[2]), Type::fixed(ElemType::F32, &[2, 3])];
    let op = with_regions(&mut rw, graph, "scan", &[Some(s), Some(x)], list, &types);
    let body = rw.add_region(op, "body");
    let sum = rw.add_param(body, "sum", Type::fixed(ElemType::F32, &[2]));
    let row = rw.add_param(body, "row", Type::fixed(ElemType::F32, &[2]));
    let next = rw.emit("add", &[sum, row], AttrSet::new(), At::End(body)).unwrap();
    rw.add_result(body, "next", next, None);
    rw.add_result(body, "each", next, None);
    let out = Evaluator::new().run(&module, graph, &[f32s(&[2], &[0.0, 100.0]), ramp(&[2, 3])], &[]).unwrap();
    close(&out.results[0], &[2], &[3.0, 112.0]);
    close(&out.results[1], &[2, 3], &[3.0, 1.0, 0.0, 112.0, 107.0, 103.0]);
}

#[test]
fn deep_nests_are_refused() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let c = rw.add_param(graph, "c", scalar_type(ElemType::Bool));
    let kind = rw.registry().kind("if").unwrap();
    let mut place = graph;
    for _ in 0..5000 {
        let op =
            rw.create_typed(kind, &[Some(c)], AttrSet::new(), &[scalar_type(ElemType::Bool)], At::End(place));
        let result = rw.op(op).result();
        rw.add_result(place, "y", result, None);
        let other = rw.add_region(op, "else_branch");
        rw.add_result(other, "y", c, None);
        place = rw.add_region(op, "then_branch");
    }
    rw.add_result(place, "y", c, None);
    let truth = Tensor::new(ElemType::Bool, [], Storage::Bool(vec![true])).unwrap();
    assert!(matches!(Evaluator::new().run(&module, graph, &[truth], &[]), Err(ExecError::Depth(_))));
}
