//! A small residual network, and quantisers that move in it.

use super::*;

/// Two convolutions around a skip connection, with quantisers as a converter writes them: data movement between them
/// in float.
const QUANTISED: &str = r#"gsir 1
dims N >= 1
param @w1 : f32[4, 3, 3, 3] = normal(seed 7, 0.0, 0.3)
param @w2 : f32[4, 4, 1, 1] = normal(seed 8, 0.0, 0.3)
const @s0 : f32[] = 0.015625
const @z0 : u8[] = 128
const @s1 : f32[] = 0.0625
const @z1 : u8[] = 0
const @s2 : f32[] = 0.125
const @z2 : u8[] = 100
graph @main(%x : f32[N, 8, 8, 3]) -> (%y : f32[N, 4, 4, 4], %z : f32[N, 64]) {
  %q0 = quantize(%x, @s0, @z0) : u8[N, 8, 8, 3] from "q0"
  %d0 = dequantize(%q0, @s0, @z0) : f32[N, 8, 8, 3] from "d0"
  %t0 = transpose(%d0) {perm = [0, 3, 1, 2]} : f32[N, 3, 8, 8] from "t0"
  %r0 = quantize(%t0, @s0, @z0) : u8[N, 3, 8, 8] from "r0"
  %e0 = dequantize(%r0, @s0, @z0) : f32[N, 3, 8, 8] from "e0"
  %c1 = conv(%e0, @w1) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from "c1"
  %a1 = relu(%c1) : f32[N, 4, 8, 8] from "a1"
  %q1 = quantize(%a1, @s1, @z1) : u8[N, 4, 8, 8] from "q1"
  %d1 = dequantize(%q1, @s1, @z1) : f32[N, 4, 8, 8] from "d1"
  %b1 = relu(%d1) : f32[N, 4, 8, 8] from "b1"
  %p1 = max_pool(%b1) {kernel_shape = [2, 2], strides = [2, 2]} : f32[N, 4, 4, 4] from "p1"
  %q2 = quantize(%p1, @s1, @z1) : u8[N, 4, 4, 4] from "q2"
  %d2 = dequantize(%q2, @s1, @z1) : f32[N, 4, 4, 4] from "d2"
  %c2 = conv(%d2, @w2) : f32[N, 4, 4, 4] from "c2"
  %s2 = add(%c2, %d2) : f32[N, 4, 4, 4] from "add"
  %q3 = quantize(%s2, @s2, @z2) : u8[N, 4, 4, 4] from "q3"
  %d3 = dequantize(%q3, @s2, @z2) : f32[N, 4, 4, 4] from "d3"
  %f3 = flatten(%d3) : f32[N, 64] from "f3"
  %q4 = quantize(%f3, @s2, @z2) : u8[N, 64] from "q4"
  %d4 = dequantize(%q4, @s2, @z2) : f32[N, 64] from "d4"
  return %d3, %d4
}
"#;

#[test]
fn quantisers_move_and_cancel_in_a_residual_network() {
    let set = shipped("qdq.gsr");
    let (after, stats) = saturated(QUANTISED, &set);
    let greedy = greedily(&module(QUANTISED), &set);
    same_results(&module(QUANTISED), &greedy);
    assert!(stats.cost_after <= cost(&greedy), "{} > {}\n{}", stats.cost_after, cost(&greedy), print(&after));
    assert!(stats.cost_after < stats.cost_before);
    assert!(stats.refused.is_empty(), "{:?}", stats.refused);
    insta::assert_snapshot!(print(&after));
}

#[test]
fn both_rule_files_together() {
    let set = together(&[&shipped_text("qdq.gsr"), &shipped_text("layout.gsr")]);
    let (_, stats) = saturated(QUANTISED, &set);
    assert!(stats.cost_after <= cost(&greedily(&module(QUANTISED), &set)));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let set = shipped("qdq.gsr");
    let texts: Vec<String> = (0..3).map(|_| print(&saturated(QUANTISED, &set).0)).collect();
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[1], texts[2]);
}

/// Blocks of a network in one layout, each wrapped in transposes from and to another, with skip connections.
fn blocks(n: usize) -> String {
    let mut text = String::from(
        "gsir 1\nconst @k : f32[4] = splat(0.5)\ngraph @main(%x : f32[1, 2, 3, 4]) -> (%y : f32[1, 2, 3, 4]) {\n",
    );
    let mut value = "%x".to_owned();
    for i in 0..n {
        let lines = [
            format!("%t{i} = transpose({value}) {{perm = [0, 3, 1, 2]}} : f32[1, 4, 2, 3]"),
            format!("%r{i} = relu(%t{i}) : f32[1, 4, 2, 3]"),
            format!("%u{i} = transpose(%r{i}) {{perm = [0, 2, 3, 1]}} : f32[1, 2, 3, 4]"),
            format!("%m{i} = mul(%u{i}, @k) : f32[1, 2, 3, 4]"),
            format!("%a{i} = add(%m{i}, {value}) : f32[1, 2, 3, 4]"),
        ];
        lines.iter().for_each(|l| text.push_str(&format!("  {l}\n")));
        value = format!("%a{i}");
    }
    text.push_str(&format!("  return {value}\n}}\n"));
    text
}

const LAYOUT_BOTH_WAYS: &str = "
rule exact relu_swap relu(transpose($x) {perm = $p}) <=> transpose(relu($x)) {perm = $p}
rule exact join transpose(transpose($x) {perm = $p}) {perm = $q} => transpose($x) {perm = compose($p, $q)}
rule exact nothing transpose($x) {perm = $p} => $x where is_identity($p)
";

#[test]
fn a_chain_of_blocks_loses_all_its_transposes() {
    let set = rules(LAYOUT_BOTH_WAYS);
    for n in [1, 7, 70] {
        let (after, stats) = saturated(&blocks(n), &set);
        assert!(!operators(&after).contains(&"transpose"), "{n}: {stats:?}");
        assert_eq!(operators(&after).len(), 3 * n);
    }
}
