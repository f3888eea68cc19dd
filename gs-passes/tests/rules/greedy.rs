//! The greedy driver.

use crate::support::{check, module, print, rewrite, rules, run};
use gs_passes::rules::{GreedyOptions, Limit, NoEnv, explain, greedy};

const RELU_RELU: &str = "rule exact relu_relu relu(relu($x)) => relu($x)\n";

const CHAIN: &str = r#"gsir 1
graph @main(%x : f32[2]) -> (%y : f32[2]) {
  %0 = relu(%x) : f32[2] from "a"
  %1 = relu(%0) : f32[2] from "b"
  %2 = relu(%1) : f32[2] from "c"
  %3 = relu(%2) : f32[2] from "d"
  return %3
}
"#;

#[test]
fn source_names_go_to_what_stands_in_their_place() {
    insta::assert_snapshot!(rewrite(RELU_RELU, CHAIN));
}

#[test]
fn what_vanishes_is_noted_with_rule_and_word() {
    let items =
        "rule exact no_dropout dropout($x) => $x\nrule exact no_identity identity($x) => $x note \"folded\"";
    insta::assert_snapshot!(rewrite(
        items,
        r#"gsir 1
graph @main(%x : f32[2]) -> (%y : f32[2]) {
  %0 = identity(%x) : f32[2] from "i"
  %1 = dropout(%0) : f32[2] from "d"
  return %1
}
"#
    ));
}

#[test]
fn attributes_are_copied_and_bring_their_names_along() {
    let items = "rule real scale_into_conv
        mul(conv@c($x, $w), $s) => conv($x, mul($w, $s)) {..$c}
        where weight_only($w), weight_only($s), scalar($s), only_user($c)";
    insta::assert_snapshot!(rewrite(
        items,
        r#"gsir 1
param @w : f32[4, 3, 1, 1] = splat(0.5)
const @s : f32[] = 2.0
graph @main(%x : f32[1, 3, 8, 8]) -> (%y : f32[1, 4, 4, 4]) {
  %0 = conv(%x, @w) {strides = [2, 2]} : f32[1, 4, 4, 4] from "conv1"
  %1 = mul(@s, %0) : f32[1, 4, 4, 4] from "scale1"
  return %1
}
"#
    ));
}

#[test]
fn an_inner_result_that_is_read_elsewhere_stays() {
    let text = r#"gsir 1
graph @main(%x : f32[2]) -> (%y : f32[2], %z : f32[2]) {
  %0 = relu(%x) : f32[2] from "a"
  %1 = relu(%0) : f32[2] from "b"
  return %1, %0
}
"#;
    insta::assert_snapshot!(rewrite(RELU_RELU, text));
}

#[test]
fn choices_are_revisited_for_the_sake_of_conditions() {
    // Both operands of `add` may be `$w`, the inner one as well; only one choice of four satisfies the condition.
    let items = "rule real regroup
        add(add($x, $v), $w) => add($x, add($v, $w))
        where weight_only($v), weight_only($w), not weight_only($x)";
    let text = |inner: &str, outer: &str| {
        format!(
            "gsir 1
const @a : f32[2] = splat(1.0)
const @b : f32[2] = splat(2.0)
graph @main(%x : f32[2]) -> (%y : f32[2]) {{
  %0 = add({inner}) : f32[2]
  %1 = add({outer}) : f32[2]
  return %1
}}
"
        )
    };
    let set = rules(items);
    let mut results = Vec::new();
    for inner in ["%x, @a", "@a, %x"] {
        for outer in ["%0, @b", "@b, %0"] {
            let mut m = module(&text(inner, outer));
            assert_eq!(run(&mut m, &set).rewrites, 1, "{inner} {outer}");
            results.push(print(&m));
        }
    }
    results.dedup();
    assert_eq!(results.len(), 1, "{results:?}");
}

#[test]
fn alternatives_and_wrappers() {
    let items = "rule exact marked
        neg([relu | clip {min = 0.0}]?@a((exp($x) | log($x)))) => abs($x) where not bound($a) or trait($a, idempotent)";
    let text = |middle: &str| {
        format!(
            "gsir 1
graph @main(%x : f32[2]) -> (%y : f32[2]) {{
{middle}
  %9 = neg(%8) : f32[2]
  return %9
}}
"
        )
    };
    let cases = [
        ("  %8 = exp(%x) : f32[2]", 1),
        ("  %7 = log(%x) : f32[2]\n  %8 = relu(%7) : f32[2]", 1),
        ("  %7 = exp(%x) : f32[2]\n  %8 = clip(%7) {min = 0.0, max = 6.0} : f32[2]", 1),
        ("  %7 = exp(%x) : f32[2]\n  %8 = clip(%7) {min = 1.0} : f32[2]", 0),
        ("  %7 = sqrt(%x) : f32[2]\n  %8 = relu(%7) : f32[2]", 0),
        ("  %8 = tanh(%x) : f32[2]", 0),
    ];
    let set = rules(items);
    for (middle, expected) in cases {
        assert_eq!(run(&mut module(&text(middle)), &set).rewrites, expected, "{middle}");
    }
}

#[test]
fn repeated_variables_are_one_value_and_one_attribute() {
    let set = rules(
        "rule exact twice sub($x, $x) => mul($x, scalar(0.0))\nrule exact clip_again clip(clip@c($x) {max = $m}) {max = $m} => clip($x) {..$c}",
    );
    let text = |body: &str| {
        format!(
            "gsir 1\ngraph @main(%x : f32[2], %z : f32[2]) -> (%y : f32[2]) {{\n{body}\n  return %9\n}}\n"
        )
    };
    let fires = |body: &str| run(&mut module(&text(body)), &set).rewrites;
    assert_eq!(fires("  %9 = sub(%x, %x) : f32[2]"), 1);
    assert_eq!(fires("  %9 = sub(%x, %z) : f32[2]"), 0);
    assert_eq!(fires("  %8 = clip(%x) {max = 6.0} : f32[2]\n  %9 = clip(%8) {max = 6.0} : f32[2]"), 1);
    assert_eq!(fires("  %8 = clip(%x) {max = 6.0} : f32[2]\n  %9 = clip(%8) {max = 5.0} : f32[2]"), 0);
    assert_eq!(fires("  %8 = clip(%x) {max = 6.0} : f32[2]\n  %9 = clip(%8) : f32[2]"), 0);
}

#[test]
fn a_region_sees_values_from_outside_but_not_what_makes_them() {
    let text = r#"gsir 1
graph @main(%c : bool[], %x : f32[2]) -> (%y : f32[2]) {
  %0 = relu(%x) : f32[2] from "outer"
  %1 = if(%c) : f32[2] from "if" region then_branch() -> (%a : f32[2]) {
    %2 = relu(%0) : f32[2] from "inner"
    return %2
  } region else_branch() -> (%b : f32[2]) {
    %3 = relu(%x) : f32[2] from "e1"
    %4 = relu(%3) : f32[2] from "e2"
    return %4
  }
  return %1
}
"#;
    let mut m = module(text);
    assert_eq!(run(&mut m, &rules(RELU_RELU)).rewrites, 1);
    assert_eq!(m.all_ops().iter().filter(|&&op| m.is(op, "relu")).count(), 3);
}

#[test]
fn a_replacement_that_does_not_fit_changes_nothing() {
    // The template reads as another element type, as another shape, and fails in a function.
    for items in [
        "rule exact wrong exp($x) => cast($x) {to = f16, saturate = true}",
        "rule exact wrong exp($x) => unsqueeze($x) {axes = [0]}",
        "rule exact wrong exp($x) => reshape(add($x, scalar(1.0))) {shape = [3], allow_zero = false}",
        "rule exact wrong exp($x) => transpose(neg($x)) {perm = [permute_axis([0], 5)]}",
        "rule exact wrong $y:(exp($x)) => add($x, $y)",
    ] {
        let mut m = module(
            "gsir 1\ngraph @main(%x : f32[2]) -> (%y : f32[2]) {\n  %0 = exp(%x) : f32[2] from \"e\"\n  return %0\n}\n",
        );
        let before = print(&m);
        let stats = run(&mut m, &rules(items));
        assert_eq!((stats.rewrites, stats.refused.len()), (0, 1), "{items}");
        assert_eq!(stats.refused[0].op, "e");
        assert_eq!(print(&m), before, "{items}");
    }
}

#[test]
fn fuel_bounds_the_number_of_rewrites() {
    let set = rules(RELU_RELU);
    let mut lengths = Vec::new();
    for fuel in 0..=4 {
        let mut m = module(CHAIN);
        let options = GreedyOptions { max_rewrites: Some(fuel), ..GreedyOptions::default() };
        let stats = greedy(&mut m, &set, &options, &NoEnv);
        check(&m);
        assert_eq!(stats.rewrites, fuel.min(3));
        assert_eq!(stats.limit, (fuel < 3).then_some(Limit::Fuel(fuel)), "{fuel}");
        lengths.push(m.all_ops().len());
    }
    assert_eq!(lengths, [4, 3, 2, 1, 1]);
}

#[test]
fn the_order_of_visits_does_not_change_what_comes_out() {
    let set = rules(
        "rule exact relu_relu relu(relu($x)) => relu($x)
         rule exact neg_neg neg(neg($x)) => $x
         rule exact relu_clip clip@c(relu($x)) {min = 0.0} => clip($x) {..$c}",
    );
    let mut body = String::new();
    for i in 0..60 {
        let op = ["relu(%", "neg(%", "neg(%", "relu(%", "clip(%"][i * 7 % 5];
        let attrs = if op.starts_with("clip") { " {min = 0.0, max = 6.0}" } else { "" };
        body.push_str(&format!("  %{} = {op}{i}){attrs} : f32[2]\n", i + 1));
    }
    let text = format!("gsir 1\ngraph @main(%0 : f32[2]) -> (%y : f32[2]) {{\n{body}  return %60\n}}\n");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let mut m = module(&text);
        let options = GreedyOptions { shuffle: Some(seed), ..GreedyOptions::default() };
        let stats = greedy(&mut m, &set, &options, &NoEnv);
        assert_eq!(stats.limit, None);
        check(&m);
        seen.insert(print(&m));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[test]
fn rules_that_never_end_are_stopped() {
    let set = rules("rule exact grow relu($x) => relu(relu($x)) where elem($x, f32)");
    let mut m = module(CHAIN);
    let stats = run(&mut m, &set);
    assert!(matches!(stats.limit, Some(Limit::Rewrites(_))), "{:?}", stats.limit);
    let swap = rules("rule exact swap add($x, $y) => add($y, $x) where elem($x, f32)");
    let mut m = module(
        "gsir 1\ngraph @main(%x : f32[2], %z : f32[2]) -> (%y : f32[2]) {\n  %0 = add(%x, %z) : f32[2]\n  return %0\n}\n",
    );
    assert!(run(&mut m, &swap).limit.is_some());
}

#[test]
fn looser_rules_wait_for_leave() {
    let set = rules("rule real add_zero add($x, 0) => $x");
    let text = "gsir 1\nconst @c : f32[] = 0.0\ngraph @main(%x : f32[2]) -> (%y : f32[2]) {\n  %0 = add(%x, @c) : f32[2]\n  return %0\n}\n";
    let stats = greedy(&mut module(text), &set, &GreedyOptions::default(), &NoEnv);
    assert_eq!((stats.rewrites, stats.withheld), (0, vec!["add_zero".to_owned()]));
    assert_eq!(run(&mut module(text), &set).rewrites, 1);
}

#[test]
fn constants_are_shared() {
    let set = rules("rule exact halve neg($x) => mul($x, scalar(0.5, like($x)))");
    let mut m = module(
        "gsir 1\ngraph @main(%x : f32[2], %h : f64[2]) -> (%y : f32[2], %z : f32[2], %w : f64[2]) {\n  %0 = neg(%x) : f32[2]\n  %1 = neg(%0) : f32[2]\n  %2 = neg(%h) : f64[2]\n  return %0, %1, %2\n}\n",
    );
    assert_eq!(run(&mut m, &set).rewrites, 3);
    insta::assert_snapshot!(print(&m));
}

#[test]
fn remarks_say_what_did_not_hold() {
    let set = rules(
        "rule real fold
           batch_norm(conv@c($x, $w, $b?) {group = 1}, $s, $h, $m, $v) => conv($x, mul($w, $s), $b?) {..$c}
           where weight_only($w), weight_only($s), weight_only($h), weight_only($m), weight_only($v), only_user($c)",
    );
    let text = r#"gsir 1
param @w : f32[3, 3, 1, 1] = splat(0.5)
param @d : f32[3, 1, 1, 1] = splat(0.5)
param @s : f32[3] = splat(1.0)
graph @main(%x : f32[1, 3, 4, 4], %m : f32[3]) -> (%y : f32[1, 3, 4, 4], %z : f32[1, 3, 4, 4]) {
  %0 = batch_norm(%x, @s, @s, @s, @s) : f32[1, 3, 4, 4] from "on_input"
  %1 = relu(%0) : f32[1, 3, 4, 4] from "relu"
  %2 = batch_norm(%1, @s, @s, @s, @s) : f32[1, 3, 4, 4] from "behind_relu"
  %3 = conv(%2, @d) {group = 3} : f32[1, 3, 4, 4] from "depthwise"
  %4 = batch_norm(%3, @s, @s, @s, @s) : f32[1, 3, 4, 4] from "behind_depthwise"
  %5 = conv(%4, @w) : f32[1, 3, 4, 4] from "conv"
  %6 = batch_norm(%5, @s, @s, %m, @s) : f32[1, 3, 4, 4] from "statistics_from_outside"
  %7 = batch_norm(%5, @s, @s, @s, @s) : f32[1, 3, 4, 4] from "not_alone"
  return %6, %7
}
"#;
    let m = module(text);
    let remarks = explain(&m, &set, &NoEnv, &|_, _| true);
    let lines: Vec<String> =
        remarks.iter().map(|r| format!("{r} ({})", r.span.map_or("", |s| set.sources.slice(s)))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn names_of_the_interface_stay() {
    let mut m = module(
        "gsir 1\ngraph @main(%image : f32[2]) -> (%score : f32[2]) {\n  %hidden = identity(%image) : f32[2]\n  %out = relu(%hidden) : f32[2]\n  return %out\n}\n",
    );
    run(&mut m, &rules("rule exact no_identity identity($x) => $x\nrule exact other relu($x) => abs($x)"));
    insta::assert_snapshot!(print(&m));
}
