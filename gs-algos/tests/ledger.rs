//! The ledger: what became of every operation and every parameter, and why.

use gs_algos::algorithm::Algorithm;
use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::deploy::to_integers;
use gs_algos::freeze::freeze;
use gs_algos::ledger::{Fate, Ledger, ParamFate, name_operations};
use gs_algos::simqat::{SimQat, SimQatConfig};
use gs_eval::random::unit;
use gs_eval::{Evaluator, InMemory, Tensor};
use gs_ir::{Module, Registry, infer_module, verify};
use gs_passes::manager::{Pass, PassContext};
use gs_passes::passes::{Canonicalize, FoldBn};
use gs_text::{SourceMap, Style};

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

/// The account of a network with an input `x` of `[4, 3, 8, 8]`, quantised with this configuration.
fn account(text: &str, config: SimQatConfig) -> Ledger {
    account_of(parsed(text), config)
}

fn account_of(before: Module, config: SimQatConfig) -> Ledger {
    let mut module = before.clone();
    let mut context = PassContext::default();
    for pass in [&Canonicalize as &dyn Pass, &FoldBn] {
        pass.run(&mut module, &mut context).unwrap_or_else(|e| panic!("{e}"));
    }
    SimQat { config }.apply(&mut module, &mut context).unwrap_or_else(|e| panic!("{e}"));
    let values: Vec<f32> = (0..4 * 3 * 8 * 8).map(|i| unit(7, i) as f32 * 2.0 - 1.0).collect();
    let x = Tensor::f32s([4, 3, 8, 8], values).expect("a tensor");
    let data = InMemory::new(vec![("x".to_owned(), x)]).expect("data");
    calibrate(&mut module, &Evaluator::new(), &data, &CalibrateOptions::default(), &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{e}"));
    freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    let ledger = Ledger::of(&before, &module);
    assert_eq!(ledger.count(Fate::Lost), 0, "{:?}", ledger.lines);
    ledger
}

/// Fate and reason of an operation.
fn op<'l>(ledger: &'l Ledger, name: &str) -> (Fate, &'l str, &'l str) {
    let line = ledger.lines.iter().find(|l| l.name == name).unwrap_or_else(|| panic!("no line for {name}"));
    (line.fate, &line.code, &line.reason)
}

#[test]
fn a_rewrite_that_did_not_apply_says_why() {
    let net = |axes: &str, dims: &str| {
        format!(
            "gsir 1\nparam @w : f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)\n\
             graph @main(%x : f32[4, 3, 8, 8]) -> (%y : f32[4, {dims}]) {{\n  \
             %0 = conv(%x, @w, _) : f32[4, 2, 8, 8] from \"conv\"\n  \
             %1 = reduce_mean(%0) {{axes = {axes}}} : f32[4, {dims}] from \"mean\"\n  return %1\n}}\n"
        )
    };
    let ledger = account(&net("[1]", "1, 8, 8"), SimQatConfig::default());
    let why = "reduce_mean has no integer form on ort-cpu; the rewrite to global_average_pool did not apply because \
               axes = [1]";
    assert_eq!(op(&ledger, "mean"), (Fate::Kept, "no-integer-form", why));
    let ledger = account(&net("[2, 3]", "2, 1, 1"), SimQatConfig::default());
    assert_eq!(op(&ledger, "mean").0, Fate::Integer, "{:?}", ledger.lines);
}

/// A batch normalisation that folds, one that does not, a layer that is left out, and constants of all kinds.
const NETWORK: &str = r#"gsir 1
param @w1 : f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)
param @b1 : f32[2] = dense(0.5, -0.5)
param @gamma : f32[2] = dense(1.0, 2.0)
param @beta : f32[2] = dense(0.0, 1.0)
const @mean : f32[2] = dense(0.5, 0.25)
const @var : f32[2] = dense(1.0, 4.0)
param @w2 : f32[2, 2, 3, 3] = uniform(seed 1, -1.0, 1.0)
param @late : f32[2] = dense(1.5, 0.5)
param @w3 : f32[2, 2, 1, 1] = dense(1.0, 0.5, 0.25, -1.0)
param @unread : f32[5] = splat(1.0)
param @dead : f32[2] = dense(1.0, 3.0)
graph @main(%x : f32[4, 3, 8, 8]) -> (%y : f32[4, 2, 6, 6], %z : f32[4, 2, 6, 6]) {
  %0 = conv(%x, @w1, @b1) : f32[4, 2, 8, 8] from "conv1"
  %1 = batch_norm(%0, @gamma, @beta, @mean, @var) : f32[4, 2, 8, 8] from "bn1"
  %2 = relu(%1) : f32[4, 2, 8, 8] from "relu1"
  %3 = conv(%2, @w2, _) : f32[4, 2, 6, 6] from "conv2"
  %4 = batch_norm(%3, @late, @beta, @mean, @var) : f32[4, 2, 6, 6] from "bn2"
  %5 = conv(%3, @w3, _) : f32[4, 2, 6, 6] from "conv3"
  %6 = mul(@dead, @dead) : f32[2] from "nothing"
  return %4, %5
}
"#;

#[test]
fn every_parameter_has_a_line() {
    let config = SimQatConfig { exclude: vec!["conv3".to_owned()], ..SimQatConfig::default() };
    let ledger = account(NETWORK, config);
    let (fate, code, why) = op(&ledger, "bn2");
    assert_eq!((fate, code), (Fate::Kept, "not-folded"));
    assert!(why.contains("conv2"), "{why}");
    let line = |name: &str| {
        let found = ledger.params.lines.iter().find(|l| l.name == name);
        let found = found.unwrap_or_else(|| panic!("no line for {name}"));
        (found.fate, found.bits, found.into.join(" "))
    };
    assert_eq!(line("w1"), (ParamFate::Quantised, Some(8), "conv1".to_owned()));
    assert_eq!(line("b1"), (ParamFate::Quantised, Some(32), "conv1".to_owned()));
    assert_eq!(line("gamma"), (ParamFate::Folded, None, "conv1".to_owned()));
    assert_eq!(line("w2"), (ParamFate::Quantised, Some(8), "conv2".to_owned()));
    // One that was folded and is read beside that as it was stays.
    assert_eq!(line("beta"), (ParamFate::Kept, None, "bn2".to_owned()));
    assert_eq!(line("late"), (ParamFate::Kept, None, "bn2".to_owned()));
    assert_eq!(line("w3"), (ParamFate::Kept, None, "conv3".to_owned()));
    assert_eq!(line("unread"), (ParamFate::Gone, None, String::new()));
    assert_eq!(line("dead"), (ParamFate::Gone, None, String::new()));
    let reason = |name: &str| {
        let found = ledger.params.lines.iter().find(|l| l.name == name);
        found.map(|l| l.reason.clone()).unwrap_or_default()
    };
    assert!(reason("w3").contains("excluded"), "{}", reason("w3"));
    assert!(reason("unread").contains("no operation"), "{}", reason("unread"));
    assert!(reason("dead").contains("\"nothing\", which read it, is not needed"), "{}", reason("dead"));
    let params = &ledger.params;
    assert_eq!(params.lines.len(), 11);
    assert_eq!(params.bytes, params.lines.iter().map(|l| l.bytes).sum::<u64>());
    assert_eq!(params.quantised_bytes, (6 + 2 + 36) * 4);
}

/// What is stored of a narrow weight is its number of bits, whatever the type that holds it.
#[test]
fn narrow_weights() {
    let mut config = SimQatConfig::default();
    config.weight.bits = 4;
    let text = "gsir 1\nparam @w : f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)\n\
                graph @main(%x : f32[4, 3, 8, 8]) -> (%y : f32[4, 2, 8, 8]) {\n  \
                %0 = conv(%x, @w, _) : f32[4, 2, 8, 8] from \"conv\"\n  return %0\n}\n";
    let ledger = account(text, config);
    assert_eq!(ledger.params.lines[0].bits, Some(4), "{:?}", ledger.params);
    assert_eq!(ledger.params.lines[0].stored, Some(vec![2, 3, 1, 1]));
}

/// Two convolutions of 4*2*8*8*3 and 4*2*8*8*2 multiply-adds, and a relu; with these source names.
fn named(first: &str, relu: &str, second: &str) -> Module {
    parsed(&format!(
        "gsir 1\nparam @w1 : f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)\n\
         param @w2 : f32[2, 2, 1, 1] = dense(0.5, -0.25, 1.0, 0.5)\n\
         graph @main(%x : f32[4, 3, 8, 8]) -> (%y : f32[4, 2, 8, 8]) {{\n  \
         %0 = conv(%x, @w1, _) : f32[4, 2, 8, 8] {first}\n  %mid = relu(%0) : f32[4, 2, 8, 8] {relu}\n  \
         %1 = conv(%mid, @w2, _) : f32[4, 2, 8, 8] {second}\n  return %1\n}}\n"
    ))
}

/// An operation is counted once, whether it stands for several source nodes, one, or none.
#[test]
fn multiply_adds_are_counted_once() {
    let (first, second) = (4 * 2 * 8 * 8 * 3, 4 * 2 * 8 * 8 * 2);
    for (names, lines) in [
        ([r#"from "c1", "bn1", "pad1""#, r#"from "r1""#, r#"from "c2", "bn2""#], 6),
        ([r#"from "c1""#, r#"from "r1""#, r#"from "c2""#], 3),
        ([r#"from "c1""#, "", r#"from "mid", "bn2""#], 4),
        (["", "", ""], 3),
    ] {
        let mut before = named(names[0], names[1], names[2]);
        name_operations(&mut before);
        assert_eq!(name_operations(&mut before), 0, "all have names now");
        let selector = before.label(before.all_ops()[2]).to_owned();
        for (exclude, integers) in [(vec![], first + second), (vec![selector], first)] {
            let config = SimQatConfig { exclude, ..SimQatConfig::default() };
            let ledger = account_of(before.clone(), config);
            assert_eq!((ledger.multiply_adds, ledger.integer_multiply_adds), (first + second, integers));
            assert_eq!(ledger.lines.iter().map(|l| l.multiply_adds).sum::<u64>(), first + second);
            assert_eq!(ledger.lines.len(), lines, "{:#?}", ledger.lines);
            assert_eq!(ledger.count(Fate::Kept), usize::from(integers == first), "{:#?}", ledger.lines);
        }
    }
}

/// Without a name nothing can be told, and that is what is said.
#[test]
fn an_operation_without_a_name_has_a_line() {
    let before = named("", r#"from "r1""#, r#"from "c2""#);
    let ledger = Ledger::of(&before, &before);
    assert_eq!(ledger.lines.len(), 3);
    let line = &ledger.lines[0];
    assert_eq!((line.fate, line.name.as_str(), line.multiply_adds), (Fate::Lost, "conv", 4 * 2 * 8 * 8 * 3));
    assert!(line.reason.contains("source name"), "{}", line.reason);
    assert_eq!(ledger.multiply_adds, 4 * 2 * 8 * 8 * 5);
}
