//! The rule files of this crate: every one loads without a finding, every rule has an example that holds, quantisers
//! stand where they should in small networks, and lowering leaves no arithmetic in float.

use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::deploy::{Form, deploy, to_integers};
use gs_algos::freeze::freeze;
use gs_algos::rules::{SHIPPED, load};
use gs_algos::simqat::{SimQat, SimQatConfig};
use gs_eval::random::unit;
use gs_eval::{Evaluator, InMemory, Tensor};
use gs_ir::{Attr, ElemType, FloatBits, Module, OpId, Registry, ValueId, infer_module, verify};
use gs_passes::grid::{Grids, Part, channel_axis};
use gs_passes::manager::PassContext;
use gs_passes::rules::example::check_examples;
use gs_passes::rules::{GridClass, RuleEnv, Site};
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};

/// What SimQAT would answer about an example with its default configuration, worked out anew for each question.
struct Defaults;

impl Defaults {
    fn grids(module: &Module) -> Option<Grids> {
        let target = gs_algos::targets::find("ort-cpu").ok()?;
        Some(Grids::of(module, module.main()?, &target, &|_| true))
    }
}

impl RuleEnv for Defaults {
    fn selected(&self, module: &Module, op: OpId) -> bool {
        Self::grids(module).is_some_and(|g| matches!(g.part(op), Some(Part::Computes)))
    }

    fn needs_grid(&self, module: &Module, value: ValueId) -> bool {
        Self::grids(module).is_some_and(|g| g.needs_grid(value))
    }

    fn class_of(&self, module: &Module, value: ValueId) -> Option<GridClass> {
        let grids = Self::grids(module)?;
        let (id, class) = grids.class_of(value)?;
        let first = *class.entries.first()?;
        let name = module.producer(first).map_or(module.str(module.value(first).name), |op| module.label(op));
        Some(GridClass { id: id as u32, entries: class.entries.clone(), name: name.to_owned() })
    }

    fn cfg(&self, module: &Module, site: Site, key: &str) -> Option<Attr> {
        let config = SimQatConfig::default();
        let common = if key.starts_with("weight_") { config.weight } else { config.act };
        match (key.split_once('_')?.1, site) {
            ("bits", _) => Some(Attr::Int(i64::from(common.bits))),
            ("signed", _) => Some(Attr::Bool(key.starts_with("weight_"))),
            ("symmetric", _) => Some(Attr::Bool(common.symmetric)),
            ("narrow", _) => Some(Attr::Bool(common.narrow_range)),
            ("axis", Site::Op(op)) => Some(Attr::Int(channel_axis(module, op)? as i64)),
            ("axis", Site::Value(result)) => Some(Attr::Int(channel_axis(module, module.producer(result)?)? as i64)),
            ("grid", Site::Value(value)) => {
                let (scale, zero) = Self::grids(module)?.class_of(value)?.1.fixed?;
                Some(Attr::Floats([0, 255].map(|code| FloatBits((code - zero) as f32 * scale)).into()))
            }
            _ => None,
        }
    }
}

#[test]
fn every_rule_has_an_example_and_all_hold() {
    let registry = Registry::builtin();
    let mut report = String::new();
    for (name, text) in SHIPPED {
        let set = load(name, text).unwrap_or_else(|e| panic!("{e}"));
        for r in &set.rules {
            assert!(!r.doc.is_empty(), "{name}: {} does not say what it is for", r.name);
            assert!(r.examples.iter().any(|e| e.after.is_some()), "{name}: nothing shows {}", r.name);
        }
        for r in &set.inserts {
            assert!(r.examples.iter().any(|e| e.after.is_some()), "{name}: nothing shows {}", r.name);
        }
        let mut found = set.warnings.clone();
        found.extend(check_examples(&set, &registry, &Defaults));
        let sources = SourceMap::single(*name, *text);
        report.push_str(&gs_text::render_all(&found, &sources, Style::Plain));
    }
    assert!(report.is_empty(), "{report}");
}

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    let misfits = infer_module(&mut module);
    assert!(misfits.is_empty(), "{misfits:?}");
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

/// The network of this text after SimQAT with its default configuration, and how many quantisers were put on weights,
/// on activations, and with a fixed range.
fn instrumented(text: &str) -> (Module, [u64; 3]) {
    let mut module = parsed(text);
    let report = SimQat::default().apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    let count = |name: &str| report.counters.iter().find(|(n, _)| n == name).map_or(0, |(_, c)| *c);
    let counts = ["weight", "activation", "fixed"].map(|kind| count(&format!("{kind} quantisers inserted")));
    (module, counts)
}

/// The operations of the main graph, one per line, without types.
fn operations(module: &Module) -> String {
    let text = print_to_string(module, &PrintOptions::snapshot());
    let is_op = |l: &&str| l.starts_with("  %") || l.starts_with("  return");
    let short = |l: &str| l.trim().split(" : ").next().unwrap_or_default().to_owned();
    text.lines().filter(is_op).map(short).collect::<Vec<_>>().join("\n")
}

const LENET: &str = r#"gsir 1
dims N >= 1
param @w1 : f32[4, 1, 5, 5] = uniform(seed 1, -0.3, 0.3)
param @b1 : f32[4] = uniform(seed 2, -0.1, 0.1)
param @w2 : f32[6, 4, 5, 5] = uniform(seed 3, -0.2, 0.2)
param @b2 : f32[6] = uniform(seed 4, -0.1, 0.1)
param @w3 : f32[24, 96] = uniform(seed 5, -0.2, 0.2)
param @b3 : f32[24] = uniform(seed 6, -0.1, 0.1)
param @w4 : f32[16, 24] = uniform(seed 7, -0.3, 0.3)
param @b4 : f32[16] = uniform(seed 8, -0.1, 0.1)
param @w5 : f32[10, 16] = uniform(seed 9, -0.4, 0.4)
param @b5 : f32[10] = uniform(seed 10, -0.1, 0.1)
graph @main(%image : f32[N, 1, 28, 28]) -> (%scores : f32[N, 10]) {
  %0 = conv(%image, @w1, @b1) : f32[N, 4, 24, 24] from "conv1"
  %1 = relu(%0) : f32[N, 4, 24, 24] from "relu1"
  %2 = max_pool(%1) {kernel_shape = [2, 2], strides = [2, 2]} : f32[N, 4, 12, 12] from "pool1"
  %3 = conv(%2, @w2, @b2) : f32[N, 6, 8, 8] from "conv2"
  %4 = relu(%3) : f32[N, 6, 8, 8] from "relu2"
  %5 = max_pool(%4) {kernel_shape = [2, 2], strides = [2, 2]} : f32[N, 6, 4, 4] from "pool2"
  %6 = flatten(%5) : f32[N, 96] from "flatten"
  %7 = gemm(%6, @w3, @b3) {trans_b = true} : f32[N, 24] from "fc1"
  %8 = relu(%7) : f32[N, 24] from "relu3"
  %9 = gemm(%8, @w4, @b4) {trans_b = true} : f32[N, 16] from "fc2"
  %10 = relu(%9) : f32[N, 16] from "relu4"
  %11 = gemm(%10, @w5, @b5) {trans_b = true} : f32[N, 10] from "fc3"
  return %11
}
"#;

const RESIDUAL: &str = r#"gsir 1
param @w1 : f32[4, 4, 3, 3] = uniform(seed 1, -0.3, 0.3)
param @w2 : f32[4, 4, 3, 3] = uniform(seed 2, -0.3, 0.3)
graph @main(%x : f32[1, 4, 8, 8]) -> (%y : f32[1, 4, 1, 1]) {
  %0 = conv(%x, @w1) {pads = [1, 1, 1, 1]} : f32[1, 4, 8, 8] from "conv1"
  %1 = relu(%0) : f32[1, 4, 8, 8] from "relu1"
  %2 = conv(%1, @w2) {pads = [1, 1, 1, 1]} : f32[1, 4, 8, 8] from "conv2"
  %3 = add(%2, %x) : f32[1, 4, 8, 8] from "add"
  %4 = relu(%3) : f32[1, 4, 8, 8] from "relu2"
  %5 = global_average_pool(%4) : f32[1, 4, 1, 1] from "pool"
  return %5
}
"#;

const CONCAT: &str = r#"gsir 1
param @w1 : f32[2, 1, 1, 1] = uniform(seed 1, -0.9, 0.9)
param @w2 : f32[3, 1, 3, 3] = uniform(seed 2, -0.3, 0.3)
param @w3 : f32[2, 5, 1, 1] = uniform(seed 3, -0.5, 0.5)
graph @main(%x : f32[1, 1, 8, 8]) -> (%y : f32[1, 2, 8, 8]) {
  %0 = conv(%x, @w1) : f32[1, 2, 8, 8] from "narrow"
  %1 = conv(%x, @w2) {pads = [1, 1, 1, 1]} : f32[1, 3, 8, 8] from "wide"
  %2 = concat(%0, %1) {axis = 1} : f32[1, 5, 8, 8] from "join"
  %3 = conv(%2, @w3) : f32[1, 2, 8, 8] from "mix"
  return %3
}
"#;

const SHARED: &str = r#"gsir 1
param @w : f32[3, 3] = uniform(seed 1, -0.5, 0.5)
graph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {
  %0 = gemm(%x, @w) {trans_b = true} : f32[2, 3] from "first"
  %1 = relu(%0) : f32[2, 3] from "relu"
  %2 = gemm(%1, @w) {trans_b = true} : f32[2, 3] from "second"
  return %2
}
"#;

const SOFTMAX: &str = r#"gsir 1
param @w : f32[3, 3] = uniform(seed 1, -0.5, 0.5)
graph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {
  %0 = gemm(%x, @w) {trans_b = true} : f32[2, 3] from "fc"
  %1 = softmax(%0) : f32[2, 3] from "softmax"
  return %1
}
"#;

#[test]
fn lenet_gets_five_weight_and_six_activation_quantisers() {
    let (module, counts) = instrumented(LENET);
    println!("{}", operations(&module));
    assert_eq!(counts, [5, 6, 0]);
}
#[test]
fn r() {
    for t in [RESIDUAL, CONCAT, SHARED, SOFTMAX] {
    let (module, counts) = instrumented(t);
    println!("{:?}\n{}", counts, operations(&module));
    }
    panic!();
}
