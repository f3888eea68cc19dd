//! Plans whose globals are set: the fast engine, the reference, and a plan made from a module that holds the new
//! contents give the same.

use crate::common::{distinct, module, runtime};
use gs_eval::{Evaluator, ExecError, Executor, Plan, RunOutput, Tensor, TensorSpec};
use gs_ir::{AttrSet, ElemType, GlobalId, Init, Module, Rewriter, Type};
use gs_runtime::Runtime;

/// Every kind of kernel that holds contents of globals, and everything else that reads them.
const TEXT: &str = "dims N >= 1
param @w : f32[2, 2, 3, 3] = uniform(seed 1, -0.5, 0.5)
param @wb : f32[2] = dense(0.5, -0.5)
param @dw : f32[2, 1, 3, 3] = uniform(seed 5, -0.5, 0.5)
param @gamma : f32[2] = dense(1.0, 2.0)
param @beta : f32[2] = dense(0.1, -0.1)
state @mean : f32[2] = dense(0.2, 0.3)
state @var : f32[2] = dense(1.5, 0.5)
param @m : f32[50, 4] = uniform(seed 2, -0.5, 0.5)
param @g : f32[4, 4] = uniform(seed 3, -0.5, 0.5)
param @gb : f32[4] = uniform(seed 4, -0.5, 0.5)
param @scale : f32[4] = dense(1, 2, 3, 4)
param @e : f32[4] = dense(1, 2, 3, 4)
const @qs : f32[] = 0.05
const @qz : i8[] = 3
const @ws : f32[2] = dense(0.02, 0.03)
const @wz : i8[2] = splat(0)
const @q : i8[2, 2, 3, 3] = splat(5)
graph @main(%x : f32[N, 2, 5, 5]) -> (%y : f32[*], %z : i8[*], %u : f32[*], %v : f32[*], %t : f32[*]) {
  %a = conv(%x, @w, @wb) {pads = [1, 1, 1, 1]}
  %b = relu(%a)
  %c = conv(%b, @dw) {pads = [1, 1, 1, 1], group = 2}
  %d = add(%c, %x)
  %f = clip(%d) {max = 3.0}
  %n = batch_norm(%f, @gamma, @beta, @mean, @var)
  %h = flatten(%n)
  %i = matmul(%h, @m)
  %j = gemm(%i, @g, @gb) {trans_b = true}
  %k = mul(%j, @scale)
  %l = relu(%k)
  %o = tanh(%l)
  %p = mul(%o, @e)
  %s = pow(%p, @e)
  %qx = quantize(%f, @qs, @qz)
  %qy = qconv(%qx, @qs, @qz, @q, @ws, @wz, @qs, @qz) {pads = [1, 1, 1, 1]}
  return %l, %qy, %s, @e, @gamma
}
";

fn specs(inputs: &[Tensor]) -> Vec<TensorSpec> {
    inputs.iter().map(TensorSpec::of).collect()
}

fn plan<'a>(executor: &'a dyn Executor, module: &'a Module, inputs: &[Tensor]) -> Box<dyn Plan + 'a> {
    executor.prepare(module, module.main().unwrap(), &specs(inputs), &[]).unwrap_or_else(|e| panic!("{e}"))
}

fn run(plan: &mut dyn Plan, inputs: &[Tensor]) -> RunOutput {
    plan.run(inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"))
}

fn named(module: &Module, name: &str) -> GlobalId {
    module.global_named(name).unwrap()
}

/// Other contents of a global, of its type.
fn other(module: &Module, name: &str) -> (GlobalId, Tensor) {
    let global = named(module, name);
    let ty = module.ty(module.global(global).ty).as_tensor().unwrap();
    let dims: Vec<usize> = ty.const_dims().unwrap().iter().map(|&d| d as usize).collect();
    let n: usize = dims.iter().product();
    let values: Vec<f64> = (0..n)
        .map(|i| match ty.elem {
            ElemType::I8 => (i % 17) as f64 - 6.0,
            _ => 0.04 + (i * 7 % 11) as f64 / 16.0,
        })
        .collect();
    (global, Tensor::from_f64s(ty.elem, dims, &values).unwrap())
}

/// The module with these contents in the place of its own.
fn with(text: &str, contents: &[(GlobalId, Tensor)]) -> Module {
    let mut module = module(text);
    for (g, t) in contents {
        let dims: Vec<i64> = t.dims().iter().map(|&d| d as i64).collect();
        Rewriter::new(&mut module).set_global(*g, Type::fixed(t.elem(), &dims), Init::Data(t.data()));
    }
    module
}

fn assert_close(a: &RunOutput, b: &RunOutput, what: &str) {
    for (a, b) in a.results.iter().zip(&b.results) {
        assert_eq!((a.elem(), a.dims()), (b.elem(), b.dims()));
        let step = if a.elem() == ElemType::I8 { 1.0 } else { 0.0 };
        for (x, y) in a.to_f64s().unwrap().iter().zip(b.to_f64s().unwrap()) {
            let same = x == &y || x.is_nan() && y.is_nan();
            assert!(same || (x - y).abs() <= step + 1e-4 * y.abs().max(1.0), "{what}: {x} {y}");
        }
    }
}

/// The globals, except for the zero point of weights, which kernels take only if it is zero.
fn names(module: &Module) -> Vec<String> {
    module.globals().map(|(_, g)| module.str(g.name).to_owned()).filter(|n| n != "wz").collect()
}

#[test]
fn one_by_one_and_all_at_once() {
    let module = module(TEXT);
    let x = [distinct(ElemType::F32, &[3, 2, 5, 5])];
    let names = names(&module);
    let all: Vec<_> = names.iter().map(|n| other(&module, n)).collect();
    let sets = all.iter().map(|one| vec![one.clone()]).chain([all.clone()]);
    for set in sets {
        let what = format!("{:?}", set.iter().map(|(g, _)| *g).collect::<Vec<_>>());
        let changed = with(TEXT, &set);
        for threads in [1, 3] {
            let runtime = runtime(threads);
            let mut set_plan = plan(&runtime, &module, &x);
            let before = run(set_plan.as_mut(), &x);
            set_plan.set_globals(&set).unwrap();
            let after = run(set_plan.as_mut(), &x);
            assert_ne!(before, after, "{what}: nothing changed");
            // Bit for bit what a plan made from the new contents gives.
            assert_eq!(after, run(plan(&runtime, &changed, &x).as_mut(), &x), "{what}");
        }
        let evaluator = Evaluator::new();
        let mut reference = plan(&evaluator, &module, &x);
        run(reference.as_mut(), &x);
        reference.set_globals(&set).unwrap();
        let expected = run(plan(&evaluator, &changed, &x).as_mut(), &x);
        assert_eq!(run(reference.as_mut(), &x), expected);
        assert_close(&run(plan(&runtime(2), &changed, &x).as_mut(), &x), &expected, &what);
    }
}

#[test]
fn setting_back_gives_the_first_results_again() {
    let module = module(TEXT);
    let x = [distinct(ElemType::F32, &[2, 2, 5, 5])];
    let runtime = runtime(2);
    let mut plan = plan(&runtime, &module, &x);
    let first = run(plan.as_mut(), &x);
    let mut contents = gs_eval::Materializer::new(&module);
    for name in names(&module) {
        let (global, tensor) = other(&module, &name);
        plan.set_global(global, &tensor).unwrap();
        run(plan.as_mut(), &x);
        plan.set_global(global, &contents.tensor(global).unwrap()).unwrap();
    }
    assert_eq!(run(plan.as_mut(), &x), first);
}

/// Weights that are derived, and derived from what is derived.
fn derived() -> Module {
    let mut module = module(
        "dims N >= 1
param @w : f32[4, 6] = uniform(seed 1, -0.5, 0.5)
param @s : f32[4] = dense(1, 2, 3, 4)
graph @main(%x : f32[N, 6]) -> (%y : f32[*], %z : f32[*]) {
  %a = relu(%x)
  %z = tanh(%a)
  return %a, %z
}
",
    );
    let main = module.main().unwrap();
    let (w, s) = (named(&module, "w"), named(&module, "s"));
    let mut rw = Rewriter::new(&mut module);
    let kind = |rw: &Rewriter<'_>, n: &str| rw.registry().kind(n).unwrap();
    let transpose = kind(&rw, "transpose");
    let wt = rw.derive_global("wt", transpose, AttrSet::new(), &[Some(w)]).unwrap();
    let mul = kind(&rw, "mul");
    let scaled = rw.derive_global("scaled", mul, AttrSet::new(), &[Some(wt), Some(s)]).unwrap();
    let neg = kind(&rw, "neg");
    let shift = rw.derive_global("shift", neg, AttrSet::new(), &[Some(s)]).unwrap();
    let (scaled, shift) = (rw.global(scaled).value, rw.global(shift).value);
    let x = rw.graph(main).params()[0];
    let at = gs_ir::At::End(main);
    let y = rw.emit("gemm", &[x, scaled, shift], AttrSet::new(), at).unwrap();
    rw.add_result(main, "g", y, None);
    let t = rw.emit("pow", &[y, shift], AttrSet::new(), at).unwrap();
    rw.add_result(main, "t", t, None);
    module
}

#[test]
fn what_is_derived_follows() {
    let module = derived();
    let x = [distinct(ElemType::F32, &[2, 6])];
    let (w, s) = (other(&module, "w"), other(&module, "s"));
    let runtime = runtime(2);
    let evaluator = Evaluator::new();
    let mut plans = [plan(&runtime, &module, &x), plan(&evaluator, &module, &x)];
    let before = plans.each_mut().map(|p| run(p.as_mut(), &x));
    for set in [vec![w.clone()], vec![s.clone()]] {
        let after = plans.each_mut().map(|p| {
            p.set_globals(&set).unwrap();
            run(p.as_mut(), &x)
        });
        assert_ne!(after[0].results[2], before[0].results[2]);
        assert_close(&after[0], &after[1], "derived");
    }
    // By hand: x * (w^T * s) - s.
    let (wv, sv, xv) = (w.1.to_f64s().unwrap(), s.1.to_f64s().unwrap(), x[0].to_f64s().unwrap());
    let y = run(plans[0].as_mut(), &x).results[2].to_f64s().unwrap();
    for (at, y) in y.iter().enumerate() {
        let (row, column) = (at / 4, at % 4);
        let sum: f64 = (0..6).map(|k| xv[row * 6 + k] * wv[column * 6 + k] * sv[column]).sum();
        assert!((sum - sv[column] - y).abs() < 1e-4, "{sum} {y}");
    }
    // A derived global that was set itself stands, whatever its sources become; its readers follow it.
    let shift = (named(&module, "shift"), Tensor::f32s([4], [5.0; 4]).unwrap());
    let first = other(&module, "s").1;
    for plan in &mut plans {
        plan.set_globals(std::slice::from_ref(&shift)).unwrap();
        let a = run(plan.as_mut(), &x);
        plan.set_globals(&[(s.0, first.clone()), w.clone()]).unwrap();
        assert_eq!(run(plan.as_mut(), &x), a);
    }
}

#[test]
fn contents_that_do_not_fit_change_nothing() {
    let module = module(TEXT);
    let x = [distinct(ElemType::F32, &[2, 2, 5, 5])];
    let runtime = runtime(1);
    let evaluator = Evaluator::new();
    for executor in [&runtime as &dyn Executor, &evaluator] {
        let mut plan = plan(executor, &module, &x);
        let before = run(plan.as_mut(), &x);
        let good = other(&module, "w");
        let wrong = [
            (named(&module, "m"), Tensor::f32s([4, 50], vec![0.0; 200]).unwrap()),
            (named(&module, "gb"), Tensor::i64s([4], [0; 4]).unwrap()),
        ];
        for wrong in wrong {
            let e = plan.set_globals(&[good.clone(), wrong]).unwrap_err();
            assert!(matches!(e, ExecError::Input { .. }), "{e}");
            assert_eq!(run(plan.as_mut(), &x), before);
        }
    }
}

/// Weights with a zero point have no kernel: the operation goes to the evaluator, and comes back.
#[test]
fn contents_that_no_kernel_takes_are_run_by_the_evaluator() {
    let module = module(TEXT);
    let x = [distinct(ElemType::F32, &[2, 2, 5, 5])];
    let runtime: Runtime = runtime(2);
    let main = module.main().unwrap();
    let mut plan = runtime.plan(&module, main, &specs(&x), &[]).unwrap();
    let (first, fallbacks) = (run(&mut plan, &x), plan.report().fallbacks.len());
    let wz = named(&module, "wz");
    plan.set_global(wz, &Tensor::from_ints(ElemType::I8, [2], &[1, 2]).unwrap()).unwrap();
    let other = run(&mut plan, &x);
    assert_eq!(plan.report().fallbacks.len(), fallbacks + 1);
    let evaluator = Evaluator::new();
    let mut reference = self::plan(&evaluator, &module, &x);
    reference.set_global(wz, &Tensor::from_ints(ElemType::I8, [2], &[1, 2]).unwrap()).unwrap();
    assert_close(&other, &run(reference.as_mut(), &x), "zero point");
    plan.set_global(wz, &Tensor::from_ints(ElemType::I8, [2], &[0, 0]).unwrap()).unwrap();
    assert_eq!(run(&mut plan, &x), first);
}

#[test]
fn what_cannot_be_derived_is_an_error_until_it_can() {
    let mut module = module(
        "dims N >= 1
param @w : f32[4, 6] = uniform(seed 1, -0.5, 0.5)
const @shape : i64[2] = dense(6, 4)
graph @main(%x : f32[N, 6]) -> () {
  return
}
",
    );
    let main = module.main().unwrap();
    let (w, shape) = (named(&module, "w"), named(&module, "shape"));
    let mut rw = Rewriter::new(&mut module);
    let kind = rw.registry().kind("reshape_to").unwrap();
    let turned = rw.derive_global("turned", kind, AttrSet::new(), &[Some(w), Some(shape)]).unwrap();
    let (turned, x) = (rw.global(turned).value, rw.graph(main).params()[0]);
    let y = rw.emit("matmul", &[x, turned], AttrSet::new(), gs_ir::At::End(main)).unwrap();
    rw.add_result(main, "y", y, None);
    let x = [distinct(ElemType::F32, &[2, 6])];
    let (runtime, evaluator) = (runtime(1), Evaluator::new());
    for executor in [&runtime as &dyn Executor, &evaluator] {
        let mut plan = plan(executor, &module, &x);
        let before = run(plan.as_mut(), &x);
        plan.set_global(shape, &Tensor::i64s([2], [5, 5]).unwrap()).unwrap();
        for _ in 0..2 {
            let e = plan.run(&x, &mut |_, _| {}).unwrap_err();
            assert!(matches!(e, ExecError::Contents(_)), "{e}");
        }
        plan.set_global(shape, &Tensor::i64s([2], [6, 4]).unwrap()).unwrap();
        assert_eq!(run(plan.as_mut(), &x), before);
    }
}
