//! Dropping and reordering atoms of real networks: what is computed is what the masked network, or the network itself,
//! computes.

mod common;

use common::{difference, inputs, onnx, outputs};
use gs_algos::groups::{Atom, Groups};
use gs_ir::{Module, verify};
use gs_passes::passes::fold_all_but_weights;
use rustc_hash::{FxHashMap, FxHashSet};

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

#[test]
fn reordering_the_atoms_of_every_group_changes_nothing() {
    for file in NETWORKS {
        let Some((module, groups)) = network(file) else { return };
        let mut to: FxHashMap<Atom, Atom> = FxHashMap::default();
        for group in &groups.groups {
            let shifted = group.atoms.iter().cycle().skip(1);
            to.extend(group.atoms.iter().copied().zip(shifted.copied()));
        }
        let mut reordered = module.clone();
        groups.select(&mut reordered, &groups.reordering(&to)).unwrap_or_else(|e| panic!("{file}: {e}"));
        sound(file, &reordered);
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
        for seed in 0..2 {
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
