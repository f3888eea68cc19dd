//! Pruning by criteria and budgets on real networks.

mod common;

use common::{difference, inputs, onnx, outputs};
use gs_algos::prune::{ChooseError, Criterion, PruneConfig, PruneError, Scope, prune};
use gs_ir::{Module, verify};
use gs_passes::cost::multiply_adds;
use std::collections::BTreeMap;

fn config(keep_macs: f64) -> PruneConfig {
    PruneConfig { keep_macs: Some(keep_macs), round_to: Some(1), ..PruneConfig::default() }
}

fn macs(module: &Module) -> u64 {
    module.all_ops().into_iter().map(|op| multiply_adds(module, op)).sum()
}

fn params(module: &Module) -> u64 {
    let extents = |g: &gs_ir::Global| module.ty(g.ty).as_tensor().and_then(|t| t.count()).unwrap() as u64;
    module.globals().filter(|(_, g)| g.role == gs_ir::Role::Param).map(|(_, g)| extents(g)).sum()
}

#[test]
fn half_of_the_multiply_adds_go() {
    for file in [
        "resnet_cifar10/resnet20_bn.onnx",
        "mlperf_tiny/vww_mobilenetv1_bn.onnx",
        "mlperf_tiny/ad_autoencoder_bn.onnx",
        "prune_groups/densenet121.onnx",
        "prune_groups/vit_tiny.onnx",
    ] {
        let Some(mut module) = onnx(file) else { return };
        let whole = macs(&module);
        let report = prune(&mut module, &config(0.5)).unwrap_or_else(|e| panic!("{file}: {e}"));
        verify(&module).unwrap_or_else(|e| panic!("{file}: {}", e[0].describe(&module)));
        // The figures are those of the rewritten network, and the budget is met closely.
        assert_eq!((report.before.macs, report.after.macs), (whole, macs(&module)), "{file}");
        assert_eq!(report.after.params, params(&module), "{file}");
        let part = macs(&module) as f64 / whole as f64;
        assert!(part <= 0.5 && part > 0.4, "{file}: {part}");
        let sum: (u64, u64) = report.layers.iter().fold((0, 0), |s, l| (s.0 + l.macs.0, s.1 + l.macs.1));
        assert_eq!(sum, (whole, macs(&module)), "{file}");
        let y = outputs(&module, &inputs(&module, 1));
        assert!(y.iter().flatten().all(|v| v.is_finite()), "{file}");
        // What is left over is left out.
        assert_eq!(gs_passes::passes::remove_dead(&mut module), (0, 0), "{file}");
    }
}

#[test]
fn every_criterion_and_scope_meets_the_budget_in_its_own_way() {
    let mut seen = Vec::new();
    for criterion in [
        Criterion::L1,
        Criterion::L2,
        Criterion::Group,
        Criterion::Bn,
        Criterion::Fpgm,
        Criterion::Lamp,
        Criterion::Random,
    ] {
        for scope in [Scope::Global, Scope::Local] {
            let Some(mut module) = onnx("resnet_cifar10/resnet20_bn.onnx") else { return };
            let whole = macs(&module);
            prune(&mut module, &PruneConfig { criterion, scope, ..config(0.6) }).unwrap();
            let part = macs(&module) as f64 / whole as f64;
            assert!(part <= 0.6 && part > 0.5, "{criterion:?} {scope:?}: {part}");
            let y = outputs(&module, &inputs(&module, 1));
            seen.push((criterion, scope, y));
        }
    }
    for (i, a) in seen.iter().enumerate() {
        for b in &seen[i + 1..] {
            // Within a group LAMP orders by the norm, as L2 does; it differs in what it says of groups.
            let alike = (a.0, a.1, b.0, b.1) == (Criterion::L2, Scope::Local, Criterion::Lamp, Scope::Local);
            let apart = difference(&a.2, &b.2);
            assert_eq!(apart <= 1e-6, alike, "{:?} {:?} and {:?} {:?}: {apart}", a.0, a.1, b.0, b.1);
        }
    }
}

#[test]
fn counts_are_multiples_of_what_is_asked_or_as_they_were() {
    let Some(mut module) = onnx("resnet_cifar10/resnet20_bn.onnx") else { return };
    let report = prune(&mut module, &PruneConfig { round_to: Some(8), ..config(0.5) }).unwrap();
    for layer in &report.layers {
        let (before, after) = layer.makes;
        assert!(after == before || after % 8 == 0, "{layer:?}");
    }
    assert!(report.layers.iter().any(|l| l.makes.1 < l.makes.0));
}

#[test]
fn layers_have_their_own_part_or_stay() {
    let Some(mut module) = onnx("resnet_cifar10/resnet20_bn.onnx") else { return };
    let names: Vec<String> = module
        .all_ops()
        .into_iter()
        .filter(|&op| module.is(op, "conv"))
        .map(|op| module.label(op).to_owned())
        .collect();
    let (stays, quarter) = (names[1].clone(), names[3].clone());
    let config = PruneConfig {
        exclude: vec![stays.clone()],
        layers: BTreeMap::from([(quarter.clone(), 0.25)]),
        ..config(0.7)
    };
    let report = prune(&mut module, &config).unwrap();
    let makes = |name: &str| report.layers.iter().find(|l| l.name == name).unwrap().makes;
    assert_eq!(makes(&stays).0, makes(&stays).1);
    assert_eq!(makes(&quarter).1 * 4, makes(&quarter).0);
}

/// Without a branch a network computes what it does when the branch adds nothing.
#[test]
fn a_branch_that_goes_added_nothing_any_more() {
    let Some(module) = onnx("resnet_cifar10/resnet20_bn.onnx") else { return };
    let config = PruneConfig { round_to: Some(4096), dead_branches: true, ..config(0.7) };
    let mut pruned = module.clone();
    prune(&mut pruned, &config).unwrap();
    let left: Vec<String> = pruned.globals().map(|(_, g)| pruned.str(g.name).to_owned()).collect();
    let mut silent = module.clone();
    let mut silenced = 0;
    for (id, global) in module.globals() {
        let name = module.str(global.name);
        let is_last = name.ends_with(".bn2.weight") || name.ends_with(".bn2.bias");
        if is_last && !left.iter().any(|l| l == name) {
            let zeros = gs_ir::Init::Splat([0; 4].into_iter().collect());
            gs_ir::Rewriter::new(&mut silent).set_global(id, module.ty(global.ty).clone(), zeros);
            silenced += 1;
        }
    }
    assert!(silenced >= 2 && silenced % 2 == 0, "{silenced}");
    let x = inputs(&module, 1);
    let (ours, theirs) = (outputs(&pruned, &x), outputs(&silent, &x));
    assert!(difference(&ours, &theirs) <= 1e-12);
    assert!(difference(&ours, &outputs(&module, &x)) > 1e-3);
}

#[test]
fn bad_requests_say_what_is_possible() {
    let Some(module) = onnx("resnet_cifar10/resnet20_bn.onnx") else { return };
    let refused = |config: PruneConfig| {
        let mut copy = module.clone();
        prune(&mut copy, &config).err().unwrap_or_else(|| panic!("{config:?} is accepted")).to_string()
    };
    let nothing = refused(PruneConfig::default());
    assert!(nothing.contains("keep_macs"), "{nothing}");
    assert!(refused(config(1.5)).contains("above 0 and up to 1"));
    let little = refused(config(0.001));
    assert!(little.contains("cannot be reached") && little.contains("min_keep"), "{little}");
    let unknown = refused(PruneConfig { exclude: vec!["layer9".into()], ..config(0.5) });
    assert!(unknown.contains("`layer9` matches no layer"), "{unknown}");
    let conv = module.all_ops().into_iter().filter(|&op| module.is(op, "conv")).nth(1).unwrap();
    let name = module.label(conv).to_owned();
    let both =
        PruneConfig { exclude: vec![name.clone()], layers: BTreeMap::from([(name, 0.5)]), ..config(0.5) };
    assert!(refused(both).contains("at once"));
    let coarse = PruneConfig {
        layers: BTreeMap::from([(module.label(conv).to_owned(), 0.5)]),
        round_to: Some(16),
        ..config(0.9)
    };
    let text = refused(coarse);
    assert!(text.contains("no multiple of 16 below its 16 channels"), "{text}");
    let last = module.all_ops().into_iter().rfind(|&op| module.is(op, "gemm")).unwrap();
    let pinned =
        PruneConfig { layers: BTreeMap::from([(module.label(last).to_owned(), 0.5)]), ..config(0.5) };
    let text = refused(pinned);
    assert!(text.contains("output of the network"), "{text}");
    assert!(matches!(
        prune(&mut module.clone(), &PruneConfig::default()),
        Err(PruneError::Choose(ChooseError::NoBudget))
    ));
}

#[test]
fn whole_branches_go_and_their_sums_with_them() {
    let count = |m: &Module, name: &str| m.all_ops().into_iter().filter(|&op| m.is(op, name)).count();
    for file in
        ["resnet_cifar10/resnet20_bn.onnx", "prune_groups/resnet50.onnx", "prune_groups/mobilenetv2.onnx"]
    {
        let Some(mut module) = onnx(file) else { return };
        let (whole, sums, layers) = (macs(&module), count(&module, "add"), count(&module, "conv"));
        // With counts as large as layers are, nothing but whole branches can go.
        let config = PruneConfig { round_to: Some(4096), dead_branches: true, ..config(0.8) };
        let report = prune(&mut module, &config).unwrap_or_else(|e| panic!("{file}: {e}"));
        verify(&module).unwrap_or_else(|e| panic!("{file}: {}", e[0].describe(&module)));
        assert_eq!((report.before.macs, report.after.macs), (whole, macs(&module)), "{file}");
        assert_eq!(report.after.params, params(&module), "{file}");
        let gone = sums - count(&module, "add");
        let of_each = layers - count(&module, "conv");
        assert!(gone >= 1 && of_each >= 2 * gone, "{file}: {gone} sums, {of_each} layers");
        let y = outputs(&module, &inputs(&module, 1));
        assert!(y.iter().flatten().all(|v| v.is_finite()), "{file}");
    }
}
