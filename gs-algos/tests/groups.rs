//! Coupled groups of the reference networks, element by element.

mod common;

use common::onnx;
use gs_algos::groups::Groups;
use gs_ir::{Init, Module};
use gs_passes::passes::fold_all_but_weights;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// An element of a tensor: its name, an axis, a place on it.
type Element = (String, usize, usize);

/// Groups as sets of atoms, an atom as the elements of initialisers that go with it.
type AtomSets = BTreeSet<BTreeSet<Vec<Element>>>;

fn of_file(text: &Value) -> AtomSets {
    let number = |v: &Value| v.as_u64().unwrap() as usize;
    let mut groups = AtomSets::new();
    for group in text["groups"].as_array().unwrap() {
        let mut atoms: BTreeMap<usize, Vec<Element>> = BTreeMap::new();
        for member in group["members"].as_array().unwrap() {
            let tensor = member["tensor"].as_str().unwrap();
            for segment in member["segments"].as_array().unwrap() {
                let [start, length, atom, step] = [0, 1, 2, 3].map(|i| number(&segment[i]));
                for i in 0..length {
                    let element = (tensor.to_owned(), number(&member["axis"]), start + i);
                    atoms.entry(atom + i * step).or_default().push(element);
                }
            }
        }
        groups.insert(atoms.into_values().map(sorted).collect());
    }
    groups
}

fn sorted(mut elements: Vec<Element>) -> Vec<Element> {
    elements.sort();
    elements.dedup();
    elements
}

fn of_module(module: &Module, groups: &Groups) -> AtomSets {
    let mut sets = AtomSets::new();
    for group in &groups.groups {
        let mut atoms: BTreeMap<_, Vec<Element>> = group.atoms.iter().map(|&a| (a, Vec::new())).collect();
        for member in &group.members {
            let Some(global) = member.global else { continue };
            let global = module.global(global);
            assert!(!matches!(global.init, Init::Derived(_)), "{}", module.str(global.name));
            let axis = groups.axes_of(member.slot).unwrap()[member.axis];
            for (i, of) in groups.atoms_of(axis).unwrap().iter().enumerate() {
                for atom in of {
                    if let Some(list) = atoms.get_mut(atom) {
                        list.push((module.str(global.name).to_owned(), member.axis, i));
                    }
                }
            }
        }
        let atoms: BTreeSet<Vec<Element>> = atoms.into_values().map(sorted).collect();
        // Channels that no initialiser has: the reference lists have initialisers only.
        if atoms.iter().any(|a| !a.is_empty()) {
            sets.insert(atoms);
        }
    }
    sets
}

fn check(name: &str, expected: (usize, usize)) {
    let Some(mut module) = onnx(&format!("prune_groups/{name}.onnx")) else { return };
    fold_all_but_weights(&mut module);
    let text = common::text(&format!("prune_groups/{name}.atoms.json")).unwrap();
    let truth = of_file(&serde_json::from_str(&text).unwrap());
    let groups = Groups::of(&module).unwrap();
    let ours = of_module(&module, &groups);
    let brief = |s: &BTreeSet<Vec<Element>>| {
        let tensors: BTreeSet<(&str, usize)> = s.iter().flatten().map(|e| (e.0.as_str(), e.1)).collect();
        format!("{} atoms on {tensors:?}", s.len())
    };
    let kept: Vec<String> = groups
        .kept_axes(&module)
        .iter()
        .map(|k| format!("{}.{} {}", module.str(module.global(k.global).name), k.axis, k.why))
        .collect();
    let missing: Vec<String> = truth.difference(&ours).map(brief).collect();
    let more: Vec<String> = ours.difference(&truth).map(brief).collect();
    // The reference has one table of cosines for all blocks, which ties them; ours is one of its own where it is read.
    let joined: AtomSets = truth
        .difference(&ours)
        .map(|whole| {
            let parts: Vec<_> = ours.difference(&truth).filter(|part| part.len() == whole.len()).collect();
            let join = |atom: &Vec<Element>| {
                let of = parts.iter().filter_map(|p| p.iter().find(|a| a.iter().any(|e| atom.contains(e))));
                sorted(of.flatten().cloned().collect())
            };
            whole.iter().map(join).collect()
        })
        .collect();
    let explained = joined.iter().eq(truth.difference(&ours));
    assert!(explained, "missing: {missing:#?}\nmore: {more:#?}\nkept: {kept:#?}");
    assert_eq!((ours.len(), truth.len()), expected);
}

#[test]
fn resnet18() {
    check("resnet18", (12, 12));
}

#[test]
fn resnet50() {
    check("resnet50", (37, 37));
}

#[test]
fn mobilenetv2() {
    check("mobilenetv2", (25, 25));
}

#[test]
fn densenet121() {
    check("densenet121", (120, 120));
}

#[test]
fn vit_tiny() {
    check("vit_tiny", (19, 19));
}

#[test]
fn llama_block() {
    check("llama_block", (11, 10));
}

/// A file of a few bytes may name axes longer than any memory: these are kept, with the reason.
#[test]
fn axes_that_cannot_be_followed_are_kept() {
    let text = "gsir 1
param @w : f32[3, 1099511627776] = splat(0.5)
graph @main(%x : f32[2, 3]) -> (%y : f32[2, 1099511627776]) {
  %h = matmul(%x, @w) : f32[2, 1099511627776] from \"wide\"
  %y = relu(%h) : f32[2, 1099511627776] from \"relu\"
  return %y
}
";
    let module = gs_text::gsir::parse_module(text, None, &gs_ir::Registry::builtin())
        .unwrap_or_else(|_| panic!("sound text"));
    let groups = Groups::of(&module).unwrap();
    assert!(groups.groups.is_empty());
    let why: Vec<String> = groups.kept_axes(&module).into_iter().map(|k| k.why).collect();
    assert!(why.iter().any(|w| w.contains("longer than")), "{why:?}");
}
