//! How the e-graph driver scales with the depth of a network: a chain of residual blocks whose transposes cancel only
//! after equalities were walked both ways, and a chain of quantised blocks.
//!
//! `cargo run --release -p gs-passes --example egraph_scale`

#![allow(clippy::print_stdout)]

use gs_ir::{Module, Registry};
use gs_passes::egraph::{EgraphOptions, EgraphStats, saturate};
use gs_passes::rules::{GreedyOptions, NoEnv, RuleFunctions, RuleSet, greedy};
use std::fmt::Write;
use std::time::Instant;

const LAYOUT: &str = "gsr 1
ruleset \"layout\" { driver = egraph }
rule exact swap relu(transpose($x) {perm = $p}) <=> transpose(relu($x)) {perm = $p}
rule exact join transpose(transpose($x) {perm = $p}) {perm = $q} => transpose($x) {perm = compose($p, $q)}
rule exact nothing transpose($x) {perm = $p} => $x where is_identity($p)
";

/// Five operations a block, with a skip connection.
fn transposed(blocks: usize) -> String {
    let mut text = String::from(
        "gsir 1\nconst @k : f32[4] = splat(0.5)\ngraph @main(%x : f32[1, 2, 3, 4]) -> (%y : f32[1, 2, 3, 4]) {\n",
    );
    let mut value = "%x".to_owned();
    for i in 0..blocks {
        let _ = write!(
            text,
            "  %t{i} = transpose({value}) {{perm = [0, 3, 1, 2]}} : f32[1, 4, 2, 3]\n  %r{i} = relu(%t{i}) : \
             f32[1, 4, 2, 3]\n  %u{i} = transpose(%r{i}) {{perm = [0, 2, 3, 1]}} : f32[1, 2, 3, 4]\n  %m{i} = \
             mul(%u{i}, @k) : f32[1, 2, 3, 4]\n  %a{i} = add(%m{i}, {value}) : f32[1, 2, 3, 4]\n"
        );
        value = format!("%a{i}");
    }
    let _ = write!(text, "  return {value}\n}}\n");
    text
}

/// Ten operations a block: convolution, relu, pooling by one and a skip connection, between quantisers.
fn quantised(blocks: usize) -> String {
    let mut text = String::from(
        "gsir 1\nparam @w : f32[4, 4, 1, 1] = splat(0.25)\nconst @s : f32[] = 0.0625\nconst @z : u8[] = 0\ngraph \
         @main(%x : f32[1, 4, 8, 8]) -> (%y : f32[1, 4, 8, 8]) {\n",
    );
    let mut value = "%x".to_owned();
    let ty = "f32[1, 4, 8, 8]";
    for i in 0..blocks {
        let lines = [
            format!("%a{i} = quantize({value}, @s, @z) : u8[1, 4, 8, 8]"),
            format!("%b{i} = dequantize(%a{i}, @s, @z) : {ty}"),
            format!("%c{i} = relu(%b{i}) : {ty}"),
            format!("%d{i} = max_pool(%c{i}) {{kernel_shape = [1, 1]}} : {ty}"),
            format!("%e{i} = quantize(%d{i}, @s, @z) : u8[1, 4, 8, 8]"),
            format!("%f{i} = dequantize(%e{i}, @s, @z) : {ty}"),
            format!("%g{i} = conv(%f{i}, @w) : {ty}"),
            format!("%h{i} = quantize(%g{i}, @s, @z) : u8[1, 4, 8, 8]"),
            format!("%i{i} = dequantize(%h{i}, @s, @z) : {ty}"),
            format!("%j{i} = add(%i{i}, %b{i}) : {ty}"),
        ];
        lines.iter().for_each(|l| text.push_str(&format!("  {l}\n")));
        value = format!("%j{i}");
    }
    let _ = write!(text, "  return {value}\n}}\n");
    text
}

fn parsed(text: &str) -> Module {
    gs_text::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| panic!("{d:?}"))
}

fn rules(name: &str, text: &str) -> RuleSet {
    RuleSet::parse(name, text, &Registry::builtin(), &RuleFunctions::builtin())
        .unwrap_or_else(|d| panic!("{d:?}"))
}

/// What the greedy driver gets to by those of the rules that it may run.
fn greedy_cost(module: &Module, set: &RuleSet) -> u64 {
    let mut m = module.clone();
    greedy(&mut m, set, &GreedyOptions::default(), &NoEnv);
    let none = RuleSet::default();
    saturate(&mut m, &none, &EgraphOptions::default(), &NoEnv).map_or(0, |s| s.cost_before)
}

fn measure(name: &str, make: &dyn Fn(usize) -> String, set: &RuleSet, sizes: &[usize]) {
    for &size in sizes {
        let module = parsed(&make(size));
        let ops = module.all_ops().len();
        let mut best = f64::INFINITY;
        let mut stats = EgraphStats::default();
        for _ in 0..3 {
            let mut m = module.clone();
            let start = Instant::now();
            stats =
                saturate(&mut m, set, &EgraphOptions::default(), &NoEnv).unwrap_or_else(|e| panic!("{e}"));
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{name:10} {ops:6} ops: {:7.1} ms, {:7} nodes, {:6} classes, {:3} iterations, {:8} matches, {}, cost {} -> {} \
             (greedily {})",
            best * 1e3,
            stats.nodes,
            stats.classes,
            stats.iterations,
            stats.matches,
            stats.stop,
            stats.cost_before,
            stats.cost_after,
            greedy_cost(&module, set)
        );
    }
}

fn main() {
    measure("transposed", &transposed, &rules("layout", LAYOUT), &[40, 400, 4000]);
    let qdq = include_str!("../rules/qdq.gsr");
    measure("quantised", &quantised, &rules("qdq", qdq), &[20, 200, 2000]);
}
