//! Dropping and reordering atoms of real networks: what is computed is what the masked network, or the network itself,
//! computes.

mod common;

use common::{difference, inputs, onnx, outputs};
use gs_algos::algorithm::find;
use gs_algos::freeze::freeze;
use gs_algos::groups::{Atom, Groups};
use gs_eval::{DataSource, Evaluator, InMemory, Tensor};
use gs_ir::{Module, Phase, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::passes::fold_all_but_weights;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

const NETWORKS: &[&str] = &[
    "prune_groups/resnet18.onnx",
    "prune_groups/resnet50.onnx",
    "prune_groups/mobilenetv2.onnx",
    "prune_groups/densenet121.onnx",
    "prune_groups/vit_tiny.onnx",
    "prune_groups/llama_block.onnx",
    "resnet_cifar10/resnet20_bn.onnx",
    "mlperf_tiny/resnet8_bn.onnx",
    "mlperf_tiny/ad_autoencoder_bn.onnx",
    "mlperf_tiny/vww_mobilenetv1_bn.onnx",
];

fn network(file: &str) -> Option<(Module, Groups)> {
    let mut module = onnx(file)?;
    fold_all_but_weights(&mut module);
    let groups = Groups::of(&module).unwrap();
    assert!(!groups.groups.is_empty(), "{file} has no groups");
    Some((module, groups))
}

fn sound(file: &str, module: &Module) {
    verify(module).unwrap_or_else(|e| panic!("{file}: {} errors, first: {}", e.len(), e[0].describe(module)));
}

/// Each atom of each group goes where the next one was.
fn reordered(file: &str, module: &Module, groups: &Groups) -> Module {
    let mut to: FxHashMap<Atom, Atom> = FxHashMap::default();
    for group in &groups.groups {
        let shifted = group.atoms.iter().cycle().skip(1);
        to.extend(group.atoms.iter().copied().zip(shifted.copied()));
    }
    let mut reordered = module.clone();
    groups.select(&mut reordered, &groups.reordering(&to)).unwrap_or_else(|e| panic!("{file}: {e}"));
    sound(file, &reordered);
    reordered
}

#[test]
fn reordering_the_atoms_of_every_group_changes_nothing() {
    for file in NETWORKS {
        let Some((module, groups)) = network(file) else { return };
        let reordered = reordered(file, &module, &groups);
        let x = inputs(&module, 1);
        let apart = difference(&outputs(&module, &x), &outputs(&reordered, &x));
        assert!(apart <= 1e-9, "{file}: {apart}");
    }
}

/// A third of the atoms of each group (at least one stays), of those that satisfy a condition.
fn a_third(groups: &Groups, condition: impl Fn(&gs_algos::groups::Group) -> bool) -> FxHashSet<Atom> {
    let chosen = groups.groups.iter().filter(|g| condition(g));
    chosen.flat_map(|g| g.atoms.iter().skip(1).step_by(3).copied()).collect()
}

#[test]
fn what_is_pruned_equals_what_is_masked() {
    for file in NETWORKS {
        let Some((module, groups)) = network(file) else { return };
        let dropped = a_third(&groups, |g| g.mixed_by.is_none());
        let (mut pruned, mut masked) = (module.clone(), module.clone());
        groups.select(&mut pruned, &groups.dropping(&dropped)).unwrap_or_else(|e| panic!("{file}: {e}"));
        groups.mask(&mut masked, &dropped).unwrap_or_else(|e| panic!("{file}: {e}"));
        sound(file, &pruned);
        sound(file, &masked);
        for seed in 0..8 {
            let x = inputs(&module, seed);
            let (whole, ours, theirs) = (outputs(&module, &x), outputs(&pruned, &x), outputs(&masked, &x));
            let apart = difference(&ours, &theirs);
            assert!(apart <= 1e-9, "{file}: {apart}");
            assert!(difference(&whole, &theirs) > 1e-6, "{file}: the masks do nothing");
        }
    }
}

#[test]
fn nothing_dropped_is_nothing_changed() {
    let Some((module, groups)) = network(NETWORKS[0]) else { return };
    let text = |m: &Module| gs_text::print_to_string(m, &Default::default());
    let mut same = module.clone();
    groups.select(&mut same, &groups.dropping(&FxHashSet::default())).unwrap();
    assert_eq!(text(&module), text(&same));
}

fn run_passes(pipeline: &str, module: &mut Module, context: &mut PassContext<'_>) {
    let mut registry = PassRegistry::default();
    gs_algos::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse(pipeline).unwrap();
    manager.run(&pipeline, module, context, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
}

/// ResNet-20 as an algorithm brings it into the form that is trained, with ranges from random samples.
fn instrumented(algorithm: &str) -> Option<Module> {
    let mut module = onnx("resnet_cifar10/resnet20_bn.onnx")?;
    let samples: Vec<f32> = (0..8 * 3072).map(|i| 4.0 * gs_eval::random::unit(7, i) as f32 - 2.0).collect();
    let name = module.str(module.value(module.graph(module.main()?).params()[0]).name).to_owned();
    let data = InMemory::new(vec![(name, Tensor::f32s([8, 3, 32, 32], samples).unwrap())]).unwrap();
    let evaluator = Evaluator::new();
    let mut context = PassContext {
        executor: Some(&evaluator),
        data: BTreeMap::from([("calib".to_owned(), &data as &dyn DataSource)]),
        ..PassContext::default()
    };
    let made = (find(algorithm).unwrap().make)(&serde_json::Map::new()).unwrap();
    made.apply(&mut module, &mut context).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
    if algorithm == "simqat" {
        run_passes("calibrate{data=calib, observer=minmax}", &mut module, &mut context);
    }
    assert_eq!(Phase::of(&module), Phase::Instrumented);
    Some(module)
}

#[test]
fn networks_with_quantisers_are_pruned_with_their_steps_ranges_and_logits() {
    let mut cases = Vec::new();
    for algorithm in ["simqat", "lsq", "slb"] {
        let Some(module) = instrumented(algorithm) else { return };
        cases.push((algorithm, module));
    }
    let mut frozen = cases[0].1.clone();
    freeze(&mut frozen).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(Phase::of(&frozen), Phase::Frozen);
    cases.push(("frozen", frozen));
    for (name, module) in &cases {
        let groups = Groups::of(module).unwrap();
        assert_eq!(groups.groups.len(), 12, "{name}");
        let x = inputs(module, 3);
        let whole = outputs(module, &x);
        let reordered = reordered(name, module, &groups);
        // A frozen network has sums half way between two codes: in another order of summation they round to the other.
        let tolerance = if *name == "frozen" { 0.05 } else { 1e-9 };
        let apart = difference(&whole, &outputs(&reordered, &x));
        assert!(apart <= tolerance, "{name}: {apart}");
        if *name == "frozen" {
            // In integers there is no such order.
            let integers = |m: &Module| {
                let mut m = m.clone();
                run_passes("integers", &mut m, &mut PassContext::default());
                let is_float = |&op: &gs_ir::OpId| matches!(m.op_name(op), "conv" | "relu" | "add");
                assert!(!m.all_ops().iter().any(is_float), "layers stay in float");
                outputs(&m, &x)
            };
            assert_eq!(integers(module), integers(&reordered));
        }
        let dropped = a_third(&groups, |_| true);
        let (mut pruned, mut masked) = (module.clone(), module.clone());
        groups.select(&mut pruned, &groups.dropping(&dropped)).unwrap_or_else(|e| panic!("{name}: {e}"));
        groups.mask(&mut masked, &dropped).unwrap_or_else(|e| panic!("{name}: {e}"));
        sound(name, &pruned);
        assert_eq!(Phase::of(&pruned), Phase::of(module));
        let theirs = outputs(&masked, &x);
        let apart = difference(&outputs(&pruned, &x), &theirs);
        assert!(apart <= tolerance, "{name}: {apart}");
        assert!(difference(&whole, &theirs) > 2.0 * tolerance, "{name}: the masks do nothing");
    }
}

/// A weight and its transpose, folded into a constant of its own, are both cut, and each from the whole.
#[test]
fn what_is_derived_from_a_weight_is_cut_once() {
    let text = "gsir 1
dims N >= 1
param @w : f32[6, 5] = uniform(seed 1, -0.5, 0.5)
param @b : f32[5] = uniform(seed 2, -0.5, 0.5)
graph @main(%x : f32[N, 6]) -> (%y : f32[N, 6]) {
  %w_t = transpose(@w) : f32[5, 6] from \"tie\"
  %h = matmul(%x, @w) : f32[N, 5] from \"encode\"
  %s = add(%h, @b) : f32[N, 5] from \"shift\"
  %r = relu(%s) : f32[N, 5] from \"relu\"
  %y = matmul(%r, %w_t) : f32[N, 6] from \"decode\"
  return %y
}
";
    let mut module = gs_text::gsir::parse_module(text, None, &gs_ir::Registry::builtin())
        .unwrap_or_else(|_| panic!("sound text"));
    gs_passes::passes::fold_constants(&mut module);
    let groups = Groups::of(&module).unwrap();
    assert_eq!(groups.groups.len(), 1);
    let x = inputs(&module, 5);
    let apart = difference(&outputs(&module, &x), &outputs(&reordered("tied", &module, &groups), &x));
    assert!(apart <= 1e-12, "{apart}");
    let dropped = FxHashSet::from_iter(groups.groups[0].atoms[1..3].iter().copied());
    let (mut pruned, mut masked) = (module.clone(), module.clone());
    groups.select(&mut pruned, &groups.dropping(&dropped)).unwrap();
    groups.mask(&mut masked, &dropped).unwrap();
    let apart = difference(&outputs(&pruned, &x), &outputs(&masked, &x));
    assert!(apart <= 1e-12, "{apart}");
}
