//! What must not go through.

use super::*;
use crate::egraph::StopReason;

const NET: &str = "gsir 1\ngraph @main(%x : f32[2, 3]) -> (%y : f32[3, 2]) {\n  %0 = exp(%x) : f32[2, 3] from \"e\"\n\
                   \x20 %1 = transpose(%0) {perm = [1, 0]} : f32[3, 2] from \"t\"\n  return %1\n}\n";

#[test]
fn a_wrong_rule_is_named_and_changes_nothing() {
    for (items, names) in [
        ("rule exact loses_axes transpose($x) => $x", &["loses_axes"][..]),
        ("rule exact other_elements exp($x) => cast($x) {to = i32, saturate = true}", &["other_elements"]),
        (
            "rule exact fine exp($x) => exp($x)\nrule exact other_rank exp($x) => unsqueeze($x) {axes = [0]}",
            &["other_rank"],
        ),
    ] {
        let mut m = module(NET);
        let before = print(&m);
        let error = saturate(&mut m, &rules(items), &options(), &NoEnv).unwrap_err();
        let text: Vec<&str> = error.diagnostics().iter().map(|d| d.message.as_str()).collect();
        assert_eq!(text.len(), names.len(), "{text:?}");
        for name in names {
            assert!(text.iter().any(|t| t.contains(&format!("`{name}`"))), "{text:?}");
        }
        assert!(error.diagnostics().iter().all(|d| !d.labels.is_empty() && !d.notes.is_empty()));
        assert_eq!(print(&m), before);
    }
}

#[test]
fn a_contradiction_by_way_of_a_third_value_is_found() {
    // Each equality alone fits the types that are known; together they say that [2] is [3].
    let text = "gsir 1\ngraph @main(%a : f32[A]) -> (%y : f32[2], %z : f32[3]) {\n  %0 = exp(%a) : f32[A]\n\
                \x20 %1 = reshape(%0) {shape = [2]} : f32[2]\n  %2 = reshape(%0) {shape = [3]} : f32[3]\n\
                \x20 return %1, %2\n}\n";
    let set = rules(
        "rule exact first reshape($x) {shape = [2]} => $x\nrule exact second reshape($x) {shape = [3]} => $x\n",
    );
    let mut m = module(text);
    let before = print(&m);
    let error = saturate(&mut m, &set, &options(), &NoEnv).unwrap_err();
    let message = &error.diagnostics()[0].message;
    assert!(message.contains("`first`") || message.contains("`second`"), "{message}");
    assert_eq!(print(&m), before);
}

#[test]
fn a_replacement_that_does_not_fit_is_refused() {
    let mut m = module(NET);
    let set = rules("rule exact misfit exp($x) => transpose(neg($x)) {perm = [permute_axis([0], 5)]}");
    let stats = run(&mut m, &set);
    assert_eq!(stats.refused.len(), 1);
    assert_eq!((stats.refused[0].rule.as_str(), stats.refused[0].op.as_str()), ("misfit", "exp"));
    assert!(!stats.changed());
}

#[test]
fn what_has_no_meaning_in_an_e_graph_is_withheld_with_the_reason() {
    let set = RuleSet::parse(
        "test.gsr",
        "gsr 1\nruleset \"test\" { driver = greedy }\nrule exact twice exp(exp($x)) => exp($x) where only_user($x)\n",
        &Registry::builtin(),
        &RuleFunctions::builtin(),
    )
    .unwrap();
    let stats = run(&mut module(NET), &set);
    assert!(stats.withheld[0].reason.contains("driver `greedy`"), "{:?}", stats.withheld);
    let set = RuleSet { driver: Driver::Both, ..set };
    let stats = run(&mut module(NET), &set);
    assert!(stats.withheld[0].reason.contains("`only_user`"), "{:?}", stats.withheld);
    let real = rules("rule real off exp($x) => neg($x)");
    let strict = EgraphOptions::default();
    let mut m = module(NET);
    let stats = saturate(&mut m, &real, &strict, &NoEnv).unwrap();
    assert!(stats.withheld[0].reason.contains("`real`"), "{:?}", stats.withheld);
    assert_eq!(print(&m), print(&module(NET)));
    assert_eq!(stats.stop, StopReason::Saturated);
}

#[test]
fn what_is_equal_to_itself_only_is_never_merged() {
    let text = r#"gsir 1
graph @main(%c : bool[], %x : f32[2]) -> (%y : f32[2], %z : f32[2]) {
  %0 = "test::Noise"(%x) : f32[2] from "n0"
  %1 = "test::Noise"(%x) : f32[2] from "n1"
  %2 = relu(%0) : f32[2] from "r0"
  %3 = relu(%0) : f32[2] from "r1"
  %4 = add(%2, %3) : f32[2] from "a"
  return %4, %1
}
"#;
    let mut m = module(text);
    run(&mut m, &rules("rule exact id relu(relu($x)) => relu($x)"));
    assert_eq!(operators(&m), ["opaque", "opaque", "relu", "add"]);
}
