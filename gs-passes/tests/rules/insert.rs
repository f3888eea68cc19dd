//! The insert driver.

use crate::support::{check, inserts, module, print};
use gs_ir::{Attr, Module, OpId, ValueId};
use gs_passes::rules::{GridClass, InsertReport, NoEnv, RuleEnv, RuleSet, Site, insert};
use gs_text::{Style, TextError};

const WEIGHTS: &str = r#"
insert weight_fake_quant
  match $root:((conv($x, $w, $b?) | gemm($x, $w, $b?)))
  at use $w
  where weight_only($w), selected($root)
  emit fake_quant($w, state "range" : f32[2, channels($w, axis)] per $w = nan)
    {bits = cfg($root, weight_bits), signed = true, symmetric = true, narrow = true, axis = channel_axis($root, $w)}
"#;

const ACTIVATIONS: &str = r#"
insert activation_fake_quant
  match $y
  at class $y
  where needs_grid($y)
  emit fake_quant($y, state "range" : f32[2] per class = nan) {bits = cfg($y, act_bits)}
"#;

const NET: &str = r#"gsir 1
param @conv1.weight : f32[4, 3, 3, 3] = splat(0.5)
param @conv2.weight : f32[4, 4, 3, 3] = splat(0.5)
graph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 4, 4, 4]) {
  %0 = conv(%x, @conv1.weight) : f32[N, 4, 6, 6] from "conv1"
  %1 = relu(%0) : f32[N, 4, 6, 6] from "relu1"
  %2 = conv(%1, @conv2.weight) : f32[N, 4, 4, 4] from "conv2"
  return %2
}
"#;

/// Every input and every result of `relu` and `add` needs a grid; results of `add` share one.
struct Env {
    bits: i64,
    skip: &'static str,
}

impl RuleEnv for Env {
    fn selected(&self, module: &Module, op: OpId) -> bool {
        module.label(op) != self.skip
    }

    fn needs_grid(&self, module: &Module, value: ValueId) -> bool {
        match module.producer(value) {
            Some(op) => module.is(op, "relu") || module.is(op, "add"),
            None => module.as_global(value).is_none(),
        }
    }

    fn class_of(&self, module: &Module, value: ValueId) -> Option<GridClass> {
        let adds = || -> Vec<ValueId> {
            let ops = module.all_ops();
            ops.into_iter().filter(|&op| module.is(op, "add")).map(|op| module.op(op).result()).collect()
        };
        match module.producer(value) {
            Some(op) if module.is(op, "add") => {
                Some(GridClass { id: u32::MAX, entries: adds().into(), name: "sums".to_owned() })
            }
            Some(op) => Some(GridClass {
                id: gs_ir::Handle::index(value) as u32,
                entries: [value].into(),
                name: module.label(op).to_owned(),
            }),
            None => {
                let name = module.str(module.value(value).name).to_owned();
                Some(GridClass { id: gs_ir::Handle::index(value) as u32, entries: [value].into(), name })
            }
        }
    }

    fn cfg(&self, _: &Module, _: Site, key: &str) -> Option<Attr> {
        match key {
            "weight_bits" => Some(Attr::Int(self.bits)),
            "act_bits" => Some(Attr::Int(8)),
            _ => None,
        }
    }
}

const ENV: Env = Env { bits: 8, skip: "" };

fn put(m: &mut Module, set: &RuleSet, env: &dyn RuleEnv) -> InsertReport {
    let report = insert(m, set, env).unwrap_or_else(|diagnostics| {
        panic!("{}", TextError { sources: set.sources.clone(), diagnostics }.render(Style::Plain))
    });
    check(m);
    report
}

fn refused(m: &mut Module, set: &RuleSet, env: &dyn RuleEnv) -> String {
    let before = print(m);
    let diagnostics = insert(m, set, env).expect_err("something is wrong");
    assert_eq!(print(m), before, "a refused insertion leaves the module as it was");
    TextError { sources: set.sources.clone(), diagnostics }.render(Style::Plain)
}

#[test]
fn weights_and_activations() {
    let mut m = module(NET);
    let report = put(&mut m, &inserts(&format!("{WEIGHTS}{ACTIVATIONS}")), &ENV);
    assert_eq!(report.placed.len(), 4);
    insta::assert_snapshot!(print(&m));
}

#[test]
fn a_second_time_changes_nothing() {
    let set = inserts(&format!("{WEIGHTS}{ACTIVATIONS}"));
    let mut m = module(NET);
    put(&mut m, &set, &ENV);
    let once = print(&m);
    let report = put(&mut m, &set, &ENV);
    assert_eq!(report.placed, []);
    let mut left: Vec<&str> = report.left_alone.iter().map(|(_, v)| v.as_str()).collect();
    left.sort_unstable();
    assert_eq!(left, ["conv1.weight", "conv2.weight", "relu1", "x"]);
    assert_eq!(print(&m), once);
}

#[test]
fn what_was_left_out_is_added_later() {
    let set = inserts(WEIGHTS);
    let mut m = module(NET);
    assert_eq!(put(&mut m, &set, &Env { skip: "conv1", ..ENV }).placed.len(), 1);
    let report = put(&mut m, &set, &ENV);
    assert_eq!(report.placed.len(), 1);
    assert_eq!(report.placed[0].value, "conv1.weight");
}

#[test]
fn other_parameters_are_an_error_unless_the_rule_replaces() {
    let mut m = module(NET);
    put(&mut m, &inserts(WEIGHTS), &ENV);
    insta::assert_snapshot!(refused(&mut m, &inserts(WEIGHTS), &Env { bits: 4, ..ENV }));
    let replacing = inserts(&WEIGHTS.replace("channel_axis($root, $w)}", "channel_axis($root, $w)} replace"));
    let report = put(&mut m, &replacing, &Env { bits: 4, ..ENV });
    assert_eq!((report.placed.len(), report.replaced), (2, 2));
    let text = print(&m);
    assert_eq!(text.matches("fake_quant(").count(), 2, "{text}");
    assert_eq!(text.matches("bits = 4").count(), 2, "{text}");
    assert_eq!(text.matches("state @").count(), 2, "{text}");
}

#[test]
fn a_shared_weight_is_quantised_once() {
    let mut m = module(
        r#"gsir 1
param @w : f32[4, 4, 1, 1] = splat(0.5)
graph @main(%x : f32[1, 4, 8, 8]) -> (%y : f32[1, 4, 8, 8]) {
  %0 = conv(%x, @w) : f32[1, 4, 8, 8] from "a"
  %1 = conv(%0, @w) : f32[1, 4, 8, 8] from "b"
  return %1
}
"#,
    );
    let report = put(&mut m, &inserts(WEIGHTS), &ENV);
    assert_eq!(report.placed.len(), 1);
    assert_eq!(report.placed[0].uses, 2);
    insta::assert_snapshot!(print(&m));
}

#[test]
fn rules_that_contradict_each_other_are_named() {
    let second = WEIGHTS.replace("weight_fake_quant", "other_fake_quant").replace("narrow = true, ", "");
    let set = inserts(&format!("{WEIGHTS}{second}"));
    insta::assert_snapshot!(refused(&mut module(NET), &set, &ENV));
}

#[test]
fn rules_that_agree_give_one_operation() {
    let second = WEIGHTS.replace("weight_fake_quant", "other_fake_quant");
    let mut m = module(NET);
    assert_eq!(put(&mut m, &inserts(&format!("{WEIGHTS}{second}")), &ENV).placed.len(), 2);
}

#[test]
fn entries_of_a_class_share_their_state_and_results_are_covered() {
    let mut m = module(
        r#"gsir 1
graph @main(%x : f32[4], %z : f32[4]) -> (%y : f32[4], %w : f32[4]) {
  %0 = add(%x, %z) : f32[4] from "add1"
  %1 = add(%0, %x) : f32[4] from "add2"
  return %1, %0
}
"#,
    );
    let report = put(&mut m, &inserts(ACTIVATIONS), &ENV);
    assert_eq!(report.placed.len(), 4);
    insta::assert_snapshot!(print(&m));
    let once = print(&m);
    assert_eq!(put(&mut m, &inserts(ACTIVATIONS), &ENV).placed, []);
    assert_eq!(print(&m), once);
}

#[test]
fn a_missing_parameter_is_an_error() {
    let set = inserts(&WEIGHTS.replace("weight_bits", "no_such_key"));
    insta::assert_snapshot!(refused(&mut module(NET), &set, &ENV));
}

#[test]
fn on_the_value_all_users_see_it() {
    let set = inserts(
        "insert mask_weight
           match conv($x, $w)
           at value $w
           where param($w)
           emit mul($w, const \"mask\" : f32[channels($w, 0), 1, 1, 1] per $w = 1.0)",
    );
    let mut m = module(NET);
    let report = put(&mut m, &set, &NoEnv);
    assert_eq!(report.placed.len(), 2);
    insta::assert_snapshot!(print(&m));
}

#[test]
fn operations_in_regions_get_their_own() {
    let mut m = module(
        r#"gsir 1
param @w : f32[4, 4, 1, 1] = splat(0.5)
graph @main(%c : bool[], %x : f32[1, 4, 8, 8]) -> (%y : f32[1, 4, 8, 8]) {
  %0 = if(%c) : f32[1, 4, 8, 8] from "if" region then_branch() -> (%a : f32[1, 4, 8, 8]) {
    %1 = conv(%x, @w) : f32[1, 4, 8, 8] from "a"
    return %1
  } region else_branch() -> (%b : f32[1, 4, 8, 8]) {
    %2 = conv(%x, @w) : f32[1, 4, 8, 8] from "b"
    return %2
  }
  return %0
}
"#,
    );
    let report = put(&mut m, &inserts(WEIGHTS), &ENV);
    // One in each branch, since neither sees the other; the state is one.
    assert_eq!(report.placed.len(), 2);
    assert_eq!(print(&m).matches("state @").count(), 1);
}
