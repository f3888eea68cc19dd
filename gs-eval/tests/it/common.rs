//! Runs one operation: a graph of its own, whose inputs are the operands.

#![allow(missing_docs, unreachable_pub)]

use gs_eval::{Evaluator, ExecError, Executor, Tensor};
use gs_ir::{Attr, AttrSet, Module, Rewriter, Type};

pub fn attrs(list: &[(&str, Attr)]) -> AttrSet {
    list.iter().map(|(n, a)| (*n, a.clone())).collect()
}

pub fn ints(v: &[i64]) -> Attr {
    Attr::ints(v)
}

/// A module whose `main` applies one operation to its inputs.
pub fn module_of(op: &str, operands: &[Option<&Tensor>], attrs: AttrSet, results: usize) -> Module {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let values: Vec<_> = operands
        .iter()
        .enumerate()
        .map(|(i, t)| {
            t.map(|t| {
                let dims: Vec<i64> = t.dims().iter().map(|&d| d as i64).collect();
                rw.add_param(graph, &format!("x{i}"), Type::fixed(t.elem(), &dims))
            })
        })
        .collect();
    let kind = rw.registry().kind(op).unwrap_or_else(|| panic!("no operator {op}"));
    let op = rw.create(kind, &values, attrs, results, gs_ir::At::End(graph)).unwrap();
    for (i, &r) in rw.op(op).results().to_vec().iter().enumerate() {
        rw.add_result(graph, &format!("y{i}"), r, None);
    }
    module
}

pub fn try_with(
    evaluator: &Evaluator,
    op: &str,
    operands: &[Option<&Tensor>],
    list: &[(&str, Attr)],
    results: usize,
) -> Result<Vec<Tensor>, ExecError> {
    let module = module_of(op, operands, attrs(list), results);
    let inputs: Vec<Tensor> = operands.iter().flatten().map(|t| (*t).clone()).collect();
    Ok(evaluator.run(&module, module.main().unwrap(), &inputs, &[])?.results)
}

pub fn try_run(op: &str, operands: &[&Tensor], list: &[(&str, Attr)]) -> Result<Tensor, ExecError> {
    let operands: Vec<Option<&Tensor>> = operands.iter().map(|t| Some(*t)).collect();
    Ok(try_with(&Evaluator::new(), op, &operands, list, 1)?.remove(0))
}

pub fn run(op: &str, operands: &[&Tensor], list: &[(&str, Attr)]) -> Tensor {
    try_run(op, operands, list).unwrap()
}

pub fn f32s(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::f32s(dims, values).unwrap()
}

pub fn ramp(dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    Tensor::f32s(dims, (0..n).map(|i| i as f32).collect::<Vec<_>>()).unwrap()
}

pub fn codes(elem: gs_ir::ElemType, dims: &[usize], values: &[i128]) -> Tensor {
    Tensor::from_ints(elem, dims, values).unwrap()
}

pub fn i64s(values: &[i64]) -> Tensor {
    Tensor::i64s([values.len()], values).unwrap()
}

#[track_caller]
pub fn close(found: &Tensor, dims: &[usize], expected: &[f32]) {
    assert_eq!(found.dims(), dims);
    let found = found.as_f32().expect("f32 elements");
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let same = f == e || (f.is_nan() && e.is_nan());
        assert!(same || (f - e).abs() <= 1e-6 * e.abs().max(1.0), "element {i}: {f} instead of {e}");
    }
}
