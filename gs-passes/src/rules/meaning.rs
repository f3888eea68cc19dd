//! Whether a rewritten module computes the same, by running both on the same random inputs.

use gs_eval::random::{bits, unit};
use gs_eval::{Evaluator, Executor, Tensor};
use gs_ir::{Def, Dim, ElemType, Module, Type, ValueId};
use gs_text::gsr::Strictness;

/// Every symbol of a shape stands for this extent while running.
const SYMBOL: i64 = 2;
/// Number of random inputs that are tried.
const RUNS: u64 = 16;
/// By how much floats of a `real` rule may differ, relative to the largest one.
const ROUNDING: f64 = 1e-4;

/// Runs the main graphs of two modules with the same parameters and compares what they give, as closely as a
/// strictness asks for.
///
/// # Errors
/// The first difference, in words, or why a module could not be run.
pub(super) fn same_results(before: &Module, after: &Module, strictness: Strictness) -> Result<(), String> {
    let (Some(a), Some(b)) = (before.main(), after.main()) else { return Ok(()) };
    let evaluator = Evaluator::new();
    for run in 0..RUNS {
        let params = before.graph(a).params();
        let inputs: Result<Vec<Tensor>, String> =
            params.iter().enumerate().map(|(i, &p)| input(before, p, run * 1000 + i as u64)).collect();
        let inputs = inputs?;
        let left =
            evaluator.run(before, a, &inputs, &[]).map_err(|e| format!("the first cannot be run: {e}"))?;
        let right =
            evaluator.run(after, b, &inputs, &[]).map_err(|e| format!("the second cannot be run: {e}"))?;
        let results = after.graph(b).results();
        for ((x, y), value) in left.results.iter().zip(&right.results).zip(results) {
            compare(x, y, strictness, step(after, value))?;
        }
    }
    Ok(())
}

/// A random tensor of a parameter's type. Floats are small numbers of both signs with some zeros, integers of 8 bits
/// and less take all their values, larger ones (indices) are 0 or 1.
fn input(module: &Module, param: ValueId, seed: u64) -> Result<Tensor, String> {
    let ty = module.type_of(param);
    let (elem, dims) = match ty {
        Type::Tensor(t) => (t.elem, t.dims().map_or_else(|| vec![2, 3], |d| d.iter().map(extent).collect())),
        _ => return Err("a parameter is no tensor".into()),
    };
    let count: usize = dims.iter().product();
    let number = |i: usize| -> f64 {
        let draw = unit(seed, i as u64);
        match elem.int_range() {
            Some((low, high)) if elem.bits() <= 8 => (low as f64 + draw * (high - low + 1) as f64).floor(),
            Some(_) => (draw * 2.0).floor(),
            None if elem == ElemType::Bool => (draw * 2.0).floor(),
            None if bits(seed, !(i as u64)).is_multiple_of(8) => 0.0,
            None => draw * 8.0 - 4.0,
        }
    };
    let values: Vec<f64> = (0..count).map(number).collect();
    let made = if elem.is_int() {
        Tensor::from_ints(elem, dims, &values.iter().map(|v| *v as i128).collect::<Vec<_>>())
    } else {
        Tensor::from_f64s(elem, dims, &values)
    };
    made.map_err(|e| e.to_string())
}

fn extent(d: &Dim) -> usize {
    let n = d.eval(&|_| Some(SYMBOL)).unwrap_or(SYMBOL);
    usize::try_from(n).unwrap_or(0)
}

/// The width of a step of the grid on which a float result lies: what makes it from codes says it.
fn step(module: &Module, value: ValueId) -> Option<f64> {
    let mut value = value;
    // Through what only moves codes that were made numbers of.
    for _ in 0..8 {
        let Def::Result(op, _) = module.value(value).def else { return None };
        if module.is(op, "dequantize") || module.is(op, "qdq") {
            let scale = module.as_global(module.operand_named(op, "scale")?)?;
            let numbers = super::contents::numbers(
                module.global(scale),
                module.type_of(module.global(scale).value),
                1 << 16,
            );
            return numbers.ok()?.into_iter().reduce(f64::max);
        }
        value = module.op(op).operand(0)?;
    }
    None
}

fn compare(x: &Tensor, y: &Tensor, strictness: Strictness, step: Option<f64>) -> Result<(), String> {
    if x.dims() != y.dims() || x.elem() != y.elem() {
        return Err(format!("{:?} of {} becomes {:?} of {}", x.dims(), x.elem(), y.dims(), y.elem()));
    }
    if x.same_bits(y) {
        return Ok(());
    }
    let (Some(a), Some(b)) = (x.to_f64s(), y.to_f64s()) else { return Err("the results differ".into()) };
    let largest = a.iter().copied().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let allowed = match strictness {
        Strictness::Exact => return first(&a, &b, |x, y| x.to_bits() == y.to_bits()),
        Strictness::Real => ROUNDING * (1.0 + largest),
        Strictness::Codes(n) if x.elem().is_int() => f64::from(n),
        Strictness::Codes(n) => f64::from(n) * step.unwrap_or(0.0) + ROUNDING * (1.0 + largest),
    };
    first(&a, &b, |x, y| x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= allowed)
}

fn first(a: &[f64], b: &[f64], same: impl Fn(f64, f64) -> bool) -> Result<(), String> {
    match a.iter().zip(b).position(|(x, y)| !same(*x, *y)) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} is {} before and {} after", a[i], b[i])),
    }
}
