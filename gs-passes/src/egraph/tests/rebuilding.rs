//! What the new graph looks like.

use super::*;

#[test]
fn names_sources_and_the_ledger_follow() {
    let set = rules(
        "rule exact once relu(relu($x)) => relu($x) note \"merged\"\n\
         rule exact out transpose(transpose($x) {perm = $p}) {perm = $q} => $x where is_identity(compose($p, $q))\n\
         rule exact copy add(conv@c($x, $w, none), $b) => conv($x, $w, reshape($b) {shape = [2], allow_zero = false}) {..$c}\n",
    );
    let text = r#"gsir 1
param @w : f32[2, 2, 1, 1] = splat(0.5)
param @b : f32[1, 2, 1, 1] = splat(0.25)
graph @main(%x : f32[1, 2, 3, 3]) -> (%y : f32[1, 2, 3, 3]) {
  %0 = transpose(%x) {perm = [0, 1, 3, 2]} : f32[1, 2, 3, 3] from "t0"
  %1 = transpose(%0) {perm = [0, 1, 3, 2]} : f32[1, 2, 3, 3] from "t1"
  %conv_out = conv(%1, @w) : f32[1, 2, 3, 3] from "conv"
  %sum_out = add(%conv_out, @b) : f32[1, 2, 3, 3] from "bias"
  %2 = relu(%sum_out) : f32[1, 2, 3, 3] from "r0"
  %3 = relu(%2) : f32[1, 2, 3, 3] from "r1"
  return %3
}
"#;
    let before = module(text);
    let mut after = before.clone();
    let stats = run(&mut after, &set);
    for seed in 0..3 {
        let inputs = inputs(&before, seed);
        let (x, y) = (evaluate(&before, &inputs), evaluate(&after, &inputs));
        let (x, y) = (x.results[0].to_f64s().unwrap(), y.results[0].to_f64s().unwrap());
        assert!(x.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert_eq!(stats.used, ["copy"]);
    insta::assert_snapshot!(print(&after));
}

#[test]
fn copies_are_merged_and_keep_their_sources() {
    let text = "gsir 1\ngraph @main(%x : f32[4]) -> (%y : f32[4], %z : f32[4]) {\n  %0 = exp(%x) : f32[4] from \"a\"\n\
                \x20 %1 = exp(%x) : f32[4] from \"b\"\n  %2 = neg(%0) : f32[4] from \"c\"\n\
                \x20 %3 = neg(%1) : f32[4] from \"d\"\n  return %2, %3\n}\n";
    let (after, _) = saturated(text, &rules("rule exact id relu(relu($x)) => relu($x)"));
    insta::assert_snapshot!(print(&after));
}

#[test]
fn several_results_and_constants_of_templates() {
    let set = rules(
        "rule exact whole split($x) -> ($p, $q, unused...) => ($p, $q) where rank($x, 9)\n\
         rule exact first split@s($x) {axis = 1} -> ($p, $q) => (slice($x) {starts = [0], ends = [3], axes = [1]}, $q)\n\
         rule exact twice add($x, $x) => mul($x, scalar(2.0))\n\
         rule exact once mul($x, 1.0) => $x\n",
    );
    let text = "gsir 1\nconst @one : f32[] = 1.0\ngraph @main(%x : f32[4, 6]) -> (%y : f32[4, 3]) {\n\
                \x20 %0, %1 = split(%x) {axis = 1} : f32[4, 3], f32[4, 3] from \"s0\"\n\
                \x20 %2, %3 = split(%x) {axis = 1} : f32[4, 3], f32[4, 3] from \"s1\"\n\
                \x20 %4 = mul(%3, @one) : f32[4, 3] from \"m\"\n  %5 = add(%0, %4) : f32[4, 3] from \"a\"\n\
                \x20 %6 = add(%5, %5) : f32[4, 3] from \"b\"\n  return %6\n}\n";
    let before = module(text);
    let (after, stats) = saturated(text, &set);
    assert!(stats.changed());
    assert_eq!(operators(&after), ["split", "add", "add"]);
    // A constant of a template that was not chosen is not left behind.
    assert_eq!(after.globals().count(), before.globals().count());
}

#[test]
fn regions_are_rewritten_on_their_own() {
    let text = r#"gsir 1
graph @main(%c : bool[], %x : f32[2]) -> (%y : f32[2]) {
  %0 = relu(%x) : f32[2] from "outer0"
  %1 = relu(%0) : f32[2] from "outer1"
  %2 = if(%c) : f32[2] from "if" region then_branch() -> (%a : f32[2]) {
    %3 = relu(%1) : f32[2] from "inner"
    return %3
  } region else_branch() -> (%b : f32[2]) {
    %4 = relu(%x) : f32[2] from "e1"
    %5 = relu(%4) : f32[2] from "e2"
    return %5
  }
  return %2
}
"#;
    let (after, _) = saturated(text, &rules("rule exact id relu(relu($x)) => relu($x)"));
    insta::assert_snapshot!(print(&after));
}

#[test]
fn updates_and_dead_code() {
    let text = r#"gsir 1
state @s : f32[2] = splat(0.0)
graph @main(%x : f32[2]) -> (%y : f32[2]) {
  %0 = relu(%x) : f32[2] from "r0"
  %1 = relu(%0) : f32[2] from "r1"
  %2 = add(%1, @s) : f32[2] from "sum"
  %3 = exp(%x) : f32[2] from "dead"
  return %0 updates { @s = %2 }
}
"#;
    let (after, _) = saturated(text, &rules("rule exact id relu(relu($x)) => relu($x)"));
    insta::assert_snapshot!(print(&after));
}
