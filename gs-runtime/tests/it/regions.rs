//! Operations with regions, and results that are not what the module says, in both engines.

use crate::common::{assert_same, distinct, module, run, runtime};
use gs_eval::{Evaluator, ExecError, Executor, Tensor, TensorSpec};
use gs_ir::{ElemType, Type, ValueId};
use gs_runtime::Why;

/// A condition that picks between two regions, which read values and globals from outside, and a loop.
const TEXT: &str = "dims N >= 1
const @two : f32[] = 2.0
const @limit : i64[] = 3
const @go : bool[] = true
const @b : f32[4] = dense(1, 2, 3, 4)
graph @main(%x : f32[N, 4], %p : bool[]) -> (%y : f32[N, 4], %z : f32[*]) {
  %a = add(%x, %x)
  %i = if(%p) : f32[N, 4] region then_branch() -> (%u : f32[N, 4]) {
    %t = relu(%a)
    %u = add(%t, @b)
    return %u
  } region else_branch() -> (%v : f32[N, 4]) {
    %v = mul(%x, @two)
    return %v
  }
  %r = relu(%i)
  %l, %h = loop(@limit, @go, %r) : f32[N, 4], f32[?0, N, 4] region body(%k : i64[], %again : bool[], %carried : f32[N, 4])
    -> (bool[], f32[N, 4], f32[N, 4]) {
    %next = add(%carried, %x)
    return %again, %next, %carried
  }
  %s = relu(%l)
  return %s, %h
}
";

#[test]
fn only_the_operation_with_regions_is_left_to_the_evaluator() {
    let module = module(TEXT);
    let x = distinct(ElemType::F32, &[3, 4]);
    let inputs = |p| [x.clone(), Tensor::from_ints(ElemType::Bool, [], &[p]).unwrap()];
    let specs: Vec<TensorSpec> = inputs(0).iter().map(TensorSpec::of).collect();
    let runtime = runtime(1);
    let report = runtime.plan(&module, module.main().unwrap(), &specs, &[]).unwrap().report();
    let names: Vec<_> = report.fallbacks.iter().map(|(op, why)| (module.op_name(*op), why)).collect();
    assert_eq!(names, [("if", &Why::Regions), ("loop", &Why::Regions)]);
    assert_eq!(report.segments.len(), 3);
    for p in [0, 1] {
        assert_same(TEXT, &inputs(p));
    }
}

#[test]
fn values_in_regions_and_globals_are_watched() {
    let module = module(TEXT);
    let main = module.main().unwrap();
    let of = |name: &str, n: usize| -> ValueId {
        let ops = module.ops_nested(main);
        module.op(ops.into_iter().filter(|&o| module.is(o, name)).nth(n).unwrap()).result()
    };
    let b = module.global(module.global_named("b").unwrap()).value;
    let taps = [of("add", 1), of("add", 0), b, of("if", 0), of("add", 2)];
    let inputs = [distinct(ElemType::F32, &[3, 4]), Tensor::from_ints(ElemType::Bool, [], &[1]).unwrap()];
    let fast = runtime(2).run(&module, main, &inputs, &taps).unwrap();
    let reference = Evaluator::new().run(&module, main, &inputs, &taps).unwrap();
    assert_eq!(fast.taps.len(), 5);
    assert_eq!(fast, reference);
}

/// The extents that `expand` makes are data: they may contradict the declared type.
#[test]
fn a_computed_extent_that_contradicts_a_symbol_is_an_error() {
    let text = "dims N >= 1
param @c : f32[1, 4] = splat(-2.0)
graph @main(%x : f32[N, 4], %n : i64[2]) -> (%y : f32[N, 4]) {
  %0 = expand(@c, %n) : f32[N, 4]
  %1 = relu(%0) : f32[N, 4]
  return %1
}
";
    let mut module = module(text);
    let op = module.ops_in(module.main().unwrap()).next().unwrap();
    let (value, declared) =
        (module.op(op).result(), module.type_of(module.graph(module.main().unwrap()).params()[0]));
    let declared = declared.clone();
    gs_ir::Rewriter::new(&mut module).set_type(value, declared);
    let x = distinct(ElemType::F32, &[2, 4]);
    for n in [1, 3] {
        let inputs = [x.clone(), Tensor::i64s([2], [n, 4]).unwrap()];
        let fast = run(&runtime(2), &module, &inputs).unwrap_err();
        assert!(matches!(fast, ExecError::Symbol { first: 2, second, .. } if second == n), "{fast}");
        assert_eq!(fast, run(&Evaluator::new(), &module, &inputs).unwrap_err());
    }
    let inputs = [x, Tensor::i64s([2], [2, 4]).unwrap()];
    let fast = run(&runtime(2), &module, &inputs).unwrap();
    assert_eq!(fast, run(&Evaluator::new(), &module, &inputs).unwrap());
}

#[test]
fn declared_types_that_are_wrong_are_errors() {
    let text = "dims N >= 1
graph @main(%x : f32[N, 4]) -> (%y : f32[N, 4]) {
  %0 = relu(%x)
  return %0
}
";
    let mut module = module(text);
    let op = module.ops_in(module.main().unwrap()).next().unwrap();
    let value = module.op(op).result();
    for wrong in [
        Type::fixed(ElemType::F32, &[2, 5]),
        Type::fixed(ElemType::I8, &[2, 4]),
        Type::fixed(ElemType::F32, &[3, 4]),
    ] {
        gs_ir::Rewriter::new(&mut module).set_type(value, wrong);
        let inputs = [distinct(ElemType::F32, &[2, 4])];
        let fast = run(&runtime(1), &module, &inputs).unwrap_err();
        assert!(matches!(fast, ExecError::Result { .. }), "{fast}");
        assert_eq!(fast, run(&Evaluator::new(), &module, &inputs).unwrap_err());
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let module = module(TEXT);
    let x = distinct(ElemType::F32, &[3, 5]);
    let p = Tensor::from_ints(ElemType::Bool, [], &[1]).unwrap();
    for inputs in [vec![x.clone(), p], vec![x]] {
        let fast = run(&runtime(1), &module, &inputs).unwrap_err();
        assert_eq!(fast, run(&Evaluator::new(), &module, &inputs).unwrap_err());
    }
}
