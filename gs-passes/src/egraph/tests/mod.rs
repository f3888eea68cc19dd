//! Tests of the e-graph driver, on modules and rules as text.

mod chains;
mod limits;
mod networks;
mod random;
mod rebuilding;
mod soundness;

use super::{EgraphOptions, EgraphStats, saturate};
use crate::rules::{GreedyOptions, NoEnv, RuleFunctions, RuleSet, greedy};
use gs_eval::{Evaluator, Executor, RunOutput, Tensor};
use gs_ir::{ElemType, Module, Registry, Type, verify};
use gs_text::gsr::{Driver, Strictness};
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};

/// A valid module from text.
fn module(text: &str) -> Module {
    let module = parse_module(text, None, &Registry::builtin())
        .unwrap_or_else(|d| panic!("{}", render_all(&d, &SourceMap::single("module", text), Style::Plain)));
    check(&module);
    module
}

/// The verifier finds nothing.
fn check(module: &Module) {
    if let Err(errors) = verify(module) {
        let all: Vec<String> = errors.iter().map(|e| e.describe(module)).collect();
        panic!("{}\n{}", all.join("\n"), print(module));
    }
}

fn print(module: &Module) -> String {
    print_to_string(module, &PrintOptions::default())
}

/// Rules for either driver, from the text of their items.
fn rules(items: &str) -> RuleSet {
    load(&format!("gsr 1\nruleset \"test\" {{ driver = both }}\n{items}"))
}

fn load(text: &str) -> RuleSet {
    RuleSet::parse("test.gsr", text, &Registry::builtin(), &RuleFunctions::builtin())
        .unwrap_or_else(|d| panic!("{}", render_all(&d, &SourceMap::single("test.gsr", text), Style::Plain)))
}

/// A shipped rule file.
fn shipped(name: &str) -> RuleSet {
    load(&shipped_text(name))
}

fn shipped_text(name: &str) -> String {
    let path = format!("{}/rules/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// Several texts as one set.
fn together(texts: &[&str]) -> RuleSet {
    let files: Vec<(&str, &str)> = texts.iter().map(|&text| ("test", text)).collect();
    RuleSet::parse_all("test", &files, &gs_ir::Registry::builtin(), &RuleFunctions::builtin()).unwrap()
}

fn options() -> EgraphOptions {
    EgraphOptions { leave: Strictness::Real, ..EgraphOptions::default() }
}

/// Runs and checks what comes out: valid, interface as before, the same again when run again.
fn run(module: &mut Module, set: &RuleSet) -> EgraphStats {
    let before = interface(module);
    let stats = saturate(module, set, &options(), &NoEnv).unwrap_or_else(|e| panic!("{:?}", e.diagnostics()));
    check(module);
    assert_eq!(interface(module), before);
    assert!(stats.cost_after <= stats.cost_before);
    assert_eq!(cost(module), stats.cost_after, "{}", print(module));
    let text = print(module);
    let again = saturate(module, set, &options(), &NoEnv).unwrap_or_else(|e| panic!("{:?}", e.diagnostics()));
    assert!(!again.changed(), "{text}\n=>\n{}", print(module));
    assert_eq!(print(module), text);
    stats
}

/// Names and types of what entry graphs take and return.
fn interface(module: &Module) -> Vec<String> {
    let mut out = Vec::new();
    for &g in module.entries() {
        let graph = module.graph(g);
        out.extend(
            graph
                .params()
                .iter()
                .map(|v| format!("{} {:?}", module.str(module.value(*v).name), module.type_of(*v))),
        );
        out.extend(
            graph
                .result_names()
                .zip(graph.result_types())
                .map(|(n, t)| format!("{} {:?}", module.str(n), module.ty(t))),
        );
    }
    out
}

/// What a module costs as it stands.
fn cost(module: &Module) -> u64 {
    let none = RuleSet { driver: Driver::Egraph, ..RuleSet::default() };
    saturate(&mut module.clone(), &none, &options(), &NoEnv).unwrap().cost_before
}

/// What the greedy driver makes of a module, by the same rules until nothing changes.
fn greedily(module: &Module, set: &RuleSet) -> Module {
    let mut m = module.clone();
    let options = GreedyOptions { leave: Strictness::Real, ..GreedyOptions::default() };
    let stats = greedy(&mut m, set, &options, &NoEnv);
    assert_eq!(stats.limit, None);
    check(&m);
    m
}

/// Inputs for a graph, from a seed; symbols are 2.
fn inputs(module: &Module, seed: u64) -> Vec<Tensor> {
    let graph = module.graph(module.main().unwrap());
    let one = |(i, v): (usize, &gs_ir::ValueId)| {
        let Type::Tensor(t) = module.type_of(*v) else { panic!("not a tensor") };
        let dims: Vec<usize> =
            t.dims().unwrap().iter().map(|d| d.eval(&|_| Some(2)).unwrap() as usize).collect();
        let n: usize = dims.iter().product();
        let draw = |k: usize| gs_eval::random::unit(seed.wrapping_add(i as u64), k as u64);
        let values: Vec<f64> = match t.elem {
            ElemType::Bool => (0..n).map(|k| f64::from(u8::from(draw(k) < 0.5))).collect(),
            e if e.is_float() => (0..n).map(|k| 4.0 * draw(k) - 2.0).collect(),
            e => {
                let (low, high) = e.int_range().unwrap();
                (0..n).map(|k| (low as f64 + draw(k) * (high - low) as f64).floor()).collect()
            }
        };
        Tensor::from_f64s(t.elem, dims, &values).unwrap()
    };
    graph.params().iter().enumerate().map(one).collect()
}

fn evaluate(module: &Module, inputs: &[Tensor]) -> RunOutput {
    Evaluator::new().run(module, module.main().unwrap(), inputs, &[]).unwrap()
}

/// Both compute the same, bit for bit, on seeded inputs.
fn same_results(a: &Module, b: &Module) {
    for seed in [1, 2, 3] {
        let inputs = inputs(a, 1000 * seed);
        let (x, y) = (evaluate(a, &inputs), evaluate(b, &inputs));
        assert_eq!(x.results.len(), y.results.len());
        for (x, y) in x.results.iter().zip(&y.results) {
            assert!(x.same_bits(y), "{}\n=>\n{}", print(a), print(b));
        }
    }
}

/// Runs rules on a text: the new module and what was done. Results are checked against the evaluator.
fn saturated(text: &str, set: &RuleSet) -> (Module, EgraphStats) {
    let before = module(text);
    let mut after = before.clone();
    let stats = run(&mut after, set);
    same_results(&before, &after);
    (after, stats)
}

/// Names of the operators of a module, in order.
fn operators(module: &Module) -> Vec<&'static str> {
    module.all_ops().into_iter().map(|op| module.op_name(op)).collect()
}
