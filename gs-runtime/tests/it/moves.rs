//! Every operator that moves data, in the fast engine and the reference: the same bits.

use crate::common::{assert_same, distinct};
use gs_eval::Tensor;
use gs_ir::registry::Traits;
use gs_ir::{ElemType, Registry};
use std::collections::BTreeSet;

/// Uses of operators: `%x` is `T[N, 3, 4, 5]`, `%r` is `T[N, 6]`, `%f` is `T[3, 6]`; `@c` is `T[1, 6]`, `@d` is
/// `T[3, 6]`; `%n` is `i64[2]` with the elements N and 6.
const USES: &[&str] = &[
    "reshape(%x) {shape = [-1, 5, 12]}",
    "reshape(%x) {shape = [0, 4, 15]}",
    "reshape(%x) {shape = [N, 60]}",
    "reshape(%f) {shape = [3, 2, 3]}",
    "reshape(%f) {shape = [2, 9]}",
    "reshape_to(%r, %n)",
    "flatten(%x)",
    "flatten(%x) {axis = 3}",
    "transpose(%x) {perm = [0, 3, 1, 2]}",
    "transpose(%x) {perm = [1, 0, 2, 3]}",
    "squeeze(%u) {axes = [2]}",
    "unsqueeze(%x) {axes = [1]}",
    "unsqueeze(%r) {axes = [2, 3]}",
    "concat(%x, %x) {axis = 1}",
    "concat(%r, %r, %r) {axis = 1}",
    "concat(%f, @d) {axis = 1}",
    "concat(@d, %f) {axis = 1}",
    "concat(@d, %f) {axis = 0}",
    "concat(%x, %x) {axis = 0}",
    "slice(%x) {starts = [1, 0], ends = [3, 100], axes = [1, 3], steps = [1, 2]}",
    "slice(%x) {starts = [-1], ends = [-100], axes = [2], steps = [-1]}",
    "slice(%r) {starts = [0], ends = [1]}",
    "pad(%x) {pads = [0, 0, 1, 1, 0, 0, 1, 2], value = FILL}",
    "pad(%r) {pads = [0, 1, 0, 2], value = FILL}",
    "pad(%r) {pads = [0, -1, 0, 2], value = FILL}",
    "pad(%r) {pads = [1, 1, 0, 0], value = FILL}",
    "pad(%x) {pads = [0, 0, 2, 2, 0, 0, 1, 1], mode = \"reflect\"}",
    "pad(%x) {pads = [0, 0, 2, 0, 0, 0, 1, 1], mode = \"edge\"}",
    "pad(%x) {pads = [0, 0, 0, 2, 0, 0, 1, 1], mode = \"wrap\"}",
    "gather(%x, @i) {axis = 2}",
    "gather(%r, @i) {axis = 1}",
    "gather(%r, @j) {axis = 1}",
    "gather(@d, @i) {axis = 0}",
    "gather_elements(%f, @e) {axis = 1}",
    "tile(%r) {repeats = [1, 2]}",
    "tile(%x) {repeats = [1, 2, 1, 3]}",
    "tile(%r) {repeats = [2, 1]}",
    "expand(%r, %n)",
    "expand(@c, %n)",
    "identity(%x)",
    "dropout(%r)",
];

/// Uses with more than one result.
const SPLITS: &[(&str, usize)] =
    &[("split(%r) {axis = 1, split = [2, 4]}", 2), ("split(%x) {axis = 3}", 2), ("split(%x) {axis = 1}", 3)];

/// What is padded with: whole and broken numbers, ones that are no number of the type, ones that look like a counter.
const FILLS: &[&str] =
    &["0.0", "0.5", "-0.0", "-2.0", "-inf", "inf", "nan", "-3e38", "1.0995116e12", "1e-40", "300.0"];

fn text(elem: &str, body: &str, results: usize) -> String {
    let names: Vec<String> = (0..results).map(|i| format!("%y{i}")).collect();
    let outs: Vec<String> = names.iter().map(|n| format!("{n} : {elem}[*]")).collect();
    format!(
        "dims N >= 1
param @c : {elem}[1, 6] = dense(1, 2, 3, 4, 5, 6)
param @d : {elem}[3, 6] = dense(11, 12, 13, 14, 15, 16, 21, 22, 23, 24, 25, 26, 31, 32, 33, 34, 35, 36)
const @i : i64[3] = dense(2, -1, 0)
const @j : i64[] = 4
const @e : i64[3, 2] = dense(0, 5, 1, 4, 2, 3)
graph @main(%x : {elem}[N, 3, 4, 5], %r : {elem}[N, 6], %u : {elem}[N, 4, 1, 5], %f : {elem}[3, 6], %n : i64[2])
  -> ({}) {{
  {} = {body}
  return {}
}}
",
        outs.join(", "),
        names.join(", "),
        names.join(", "),
    )
}

fn inputs(elem: ElemType, n: usize) -> Vec<Tensor> {
    let dims: [&[usize]; 4] = [&[n, 3, 4, 5], &[n, 6], &[n, 4, 1, 5], &[3, 6]];
    let mut inputs: Vec<Tensor> = dims.iter().map(|d| distinct(elem, d)).collect();
    inputs.push(Tensor::i64s([2], [n as i64, 6]).expect("extents"));
    inputs
}

#[test]
fn every_operator_that_moves_data_moves_the_same() {
    for (elem, name) in [(ElemType::F32, "f32"), (ElemType::U8, "u8"), (ElemType::I8, "i8")] {
        let number = |t: String| if elem == ElemType::F32 { t } else { t.replace(".0", "") };
        for n in [1, 2, 3] {
            for body in USES.iter().filter(|b| !b.contains("FILL")) {
                assert_same(&number(text(name, body, 1)), &inputs(elem, n));
            }
            for &(body, results) in SPLITS {
                assert_same(&number(text(name, body, results)), &inputs(elem, n));
            }
        }
        for body in USES.iter().filter(|b| b.contains("FILL")) {
            for fill in FILLS {
                assert_same(&text(name, &body.replace("FILL", fill), 1), &inputs(elem, 2));
            }
        }
    }
}

#[test]
fn no_operator_that_moves_data_is_left_out() {
    let used: BTreeSet<&str> = USES
        .iter()
        .copied()
        .chain(SPLITS.iter().map(|s| s.0))
        .filter_map(|u| u.split_once('(').map(|(name, _)| name))
        .collect();
    let registry = Registry::builtin();
    let missing: Vec<&str> = registry
        .iter()
        .filter(|(_, d)| d.traits.has(Traits::MOVES))
        .map(|(_, d)| d.name)
        .filter(|n| !used.contains(n))
        .collect();
    assert_eq!(missing, [""; 0]);
}
