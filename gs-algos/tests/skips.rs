//! Residual sums that are read on two grids: by a layer with few bits, by the next sum with eight.

use gs_algos::algorithm::{Algorithm, find};
use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::deploy::{to_integers, to_qdq_form};
use gs_algos::freeze::freeze;
use gs_eval::random::unit;
use gs_eval::{DataSource, Evaluator, Executor, InMemory, Tensor};
use gs_ir::{Module, OpId, Registry, infer_module, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::training::train_graph;
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};
use std::collections::BTreeMap;

/// Two residual blocks between a first and a last layer.
const NETWORK: &str = r#"gsir 1
dims N >= 1
param @stem.weight : f32[4, 3, 3, 3] = uniform(seed 1, -0.4, 0.4)
param @a.weight : f32[4, 4, 3, 3] = uniform(seed 3, -0.3, 0.3)
param @b.weight : f32[4, 4, 3, 3] = uniform(seed 5, -0.3, 0.3)
param @c.weight : f32[4, 4, 3, 3] = uniform(seed 8, -0.3, 0.3)
param @fc.weight : f32[5, 4] = uniform(seed 6, -0.5, 0.5)
graph @main(%image : f32[N, 3, 8, 8]) -> (%scores : f32[N, 5]) {
  %0 = conv(%image, @stem.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "stem"
  %1 = relu(%0) : f32[N, 4, 8, 8] from "stem.relu"
  %2 = conv(%1, @a.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "a"
  %3 = add(%2, %1) : f32[N, 4, 8, 8] from "first"
  %4 = relu(%3) : f32[N, 4, 8, 8] from "first.relu"
  %5 = conv(%4, @b.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "b"
  %6 = relu(%5) : f32[N, 4, 8, 8] from "b.relu"
  %7 = conv(%6, @c.weight) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "c"
  %8 = add(%7, %4) : f32[N, 4, 8, 8] from "second"
  %9 = relu(%8) : f32[N, 4, 8, 8] from "second.relu"
  %10 = global_average_pool(%9) : f32[N, 4, 1, 1] from "pool"
  %11 = flatten(%10) : f32[N, 4] from "flat"
  %12 = gemm(%11, @fc.weight) {trans_b = true} : f32[N, 5] from "fc"
  return %12
}
"#;

fn parsed() -> Module {
    let mut module = gs_text::gsir::parse_module(NETWORK, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", NETWORK), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

fn images(count: usize, seed: u64) -> Tensor {
    let values: Vec<f32> = (0..count * 192).map(|i| unit(seed, i as u64) as f32 * 2.0 - 1.0).collect();
    Tensor::f32s([count, 3, 8, 8], values).unwrap()
}

fn algorithm(text: &str) -> Box<dyn Algorithm> {
    let pipeline = Pipeline::parse(text).unwrap();
    let step = &pipeline.steps[0];
    (find(&step.name).unwrap().make)(&step.options).unwrap()
}

/// The network after an algorithm, with ranges and steps from 16 images.
fn applied(text: &str) -> Module {
    let mut module = parsed();
    let data = InMemory::new(vec![("image".to_owned(), images(16, 7))]).unwrap();
    let evaluator = Evaluator::new();
    let mut context = PassContext {
        executor: Some(&evaluator),
        data: BTreeMap::from([("calib".to_owned(), &data as &dyn DataSource)]),
        ..PassContext::default()
    };
    algorithm(text).apply(&mut module, &mut context).unwrap_or_else(|e| panic!("{text}: {e}"));
    calibrate(&mut module, &evaluator, &data, &CalibrateOptions::default(), &mut |_, _| true).unwrap();
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

fn outputs(module: &Module) -> Vec<f64> {
    let out = Evaluator::new().run(module, module.main().unwrap(), &[images(8, 3)], &[]).unwrap();
    out.results[0].to_f64s().unwrap()
}

fn named(module: &Module, name: &str) -> Vec<OpId> {
    module.all_ops().into_iter().filter(|&op| module.is(op, name)).collect()
}

/// The bits of what quantises operand `place` of an operation, behind what only moves.
fn bits_read(module: &Module, op: OpId, place: usize) -> i64 {
    let mut at = module.op(op).operand(place).and_then(|v| module.producer(v)).unwrap();
    while matches!(module.op_name(at), "flatten") {
        at = module.op(at).operand(0).and_then(|v| module.producer(v)).unwrap();
    }
    assert!(["fake_quant", "lsq", "pact"].contains(&module.op_name(at)), "{}", module.op_name(at));
    module.decl(at).int(module.attrs_of(at), "bits").unwrap()
}

const ALGORITHMS: [&str; 3] =
    ["simqat{weight={bits=4}, act={bits=4}, edge_bits=8}", "lsq{weight_bits=4, act_bits=4}", "pact{}"];

#[test]
fn layers_read_few_bits_and_sums_eight() {
    for text in ALGORITHMS {
        let module = applied(text);
        let [first, again, second] = named(&module, "add")[..] else { panic!("{text}: not three sums") };
        let operands = |op: OpId| module.op(op).operands().collect::<Vec<_>>();
        assert_eq!(operands(first), operands(again), "{text}");
        for (sum, place) in [(first, 0), (first, 1), (second, 0), (second, 1)] {
            assert_eq!(bits_read(&module, sum, place), 8, "{text}: {}", module.label(sum));
        }
        // What the first layer writes has eight bits, who ever reads it.
        let read: Vec<(String, i64)> = (named(&module, "conv").into_iter())
            .map(|op| (module.label(op).to_owned(), bits_read(&module, op, 0)))
            .collect();
        let of = |name: &str| read.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(["stem", "a", "b", "c"].map(of), [8, 8, 4, 4], "{text}");
        assert_eq!(bits_read(&module, named(&module, "gemm")[0], 0), 8, "{text}");
    }
}

#[test]
fn one_width_needs_one_sum() {
    let whole = ["simqat{}", "simqat{act={bits=4}}", "lsq{weight_bits=4, act_bits=8}"];
    for text in whole {
        assert_eq!(named(&applied(text), "add").len(), 2, "{text}");
    }
}

#[test]
fn twice_is_once() {
    for text in ALGORITHMS {
        let mut module = applied(text);
        let once = print_to_string(&module, &PrintOptions::default());
        algorithm(text).apply(&mut module, &mut PassContext::default()).unwrap();
        assert_eq!(once, print_to_string(&module, &PrintOptions::default()), "{text}");
    }
}

/// A step need not add twice: its quantisers read one sum.
#[test]
fn a_training_step_adds_once() {
    for text in ALGORITHMS {
        let mut module = applied(text);
        let mut registry = PassRegistry::default();
        gs_passes::passes::register(&mut registry);
        let manager = PassManager { registry: &registry, verify_each: true };
        let mut context = PassContext::default();
        let pipeline = Pipeline::parse("loss").unwrap();
        manager.run(&pipeline, &mut module, &mut context, &mut |_| {}).unwrap_or_else(|e| panic!("{e:?}"));
        let train = train_graph(&module).unwrap();
        let sums: Vec<OpId> = module.ops_in(train).filter(|&op| module.is(op, "add")).collect();
        assert_eq!(sums.len(), 2, "{text}");
        let relu = module.user_ops(module.op(sums[0]).result());
        let readers = module.user_ops(module.op(relu[0]).result());
        assert_eq!((relu.len(), readers.len()), (1, 2), "{text}");
        assert_eq!(module.ops_in(module.main().unwrap()).filter(|&op| module.is(op, "add")).count(), 3);
    }
}

#[test]
fn each_sum_is_one_integer_addition_in_both_forms() {
    for text in ALGORITHMS {
        let mut module = applied(text);
        let seen = outputs(&module);
        freeze(&mut module).unwrap();
        to_integers(&mut module, "ort-cpu").unwrap();
        verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
        let counts = ["qadd", "add", "qconv", "conv", "qgemm"].map(|name| named(&module, name).len());
        assert_eq!(counts, [3, 0, 4, 0, 1], "{text}");
        let deployed = outputs(&module);
        let spread = seen.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let far = seen.iter().zip(&deployed).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(far < 0.05 * spread, "{text}: {far} of {spread}");
        // Each addition keeps its own quantize: what merges them again would leave both in float.
        to_qdq_form(&mut module, "ort-cpu").unwrap();
        let sums = named(&module, "add");
        assert_eq!(sums.len(), 3, "{text}");
        for sum in sums {
            let readers = module.user_ops(module.op(sum).result());
            assert!(readers.len() == 1 && module.is(readers[0], "quantize"), "{text}");
        }
    }
}
