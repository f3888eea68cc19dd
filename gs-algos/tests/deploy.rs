//! Deployment as a pass: fuel, remarks.

use gs_algos::deploy::Lowering;
use gs_algos::{rules, targets};
use gs_eval::{Evaluator, Executor, Materializer, Rounding, Tensor};
use gs_ir::registry::OpDecl;
use gs_ir::{Module, Registry, infer_module, verify};
use gs_passes::manager::{PassContext, PassRegistry, Pipeline, Remark};
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};
use std::sync::Arc;

/// Two frozen layers.
const FROZEN: &str = r#"gsir 1
target "ort-cpu"
param @w : f32[3, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0, 0.25, 0.75, -0.5)
const @s : f32[] = 0.05
const @z : u8[] = 3
const @z0 : u8[] = 0
const @ws : f32[] = 0.01
const @wz : i8[] = 0
graph @main(%x : f32[2, 3, 4, 4]) -> (%y : f32[2, 3, 2, 2]) {
  %0 = qdq(%x, @s, @z) : f32[2, 3, 4, 4]
  %1 = qdq(@w, @ws, @wz) : f32[3, 3, 1, 1]
  %2 = conv(%0, %1, _) : f32[2, 3, 4, 4] from "conv1"
  %3 = relu(%2) : f32[2, 3, 4, 4] from "relu"
  %4 = qdq(%3, @s, @z0) : f32[2, 3, 4, 4]
  %5 = max_pool(%4) {kernel_shape = [2, 2], strides = [2, 2]} : f32[2, 3, 2, 2] from "pool"
  %6 = conv(%5, %1, _) : f32[2, 3, 2, 2] from "conv2"
  %7 = qdq(%6, @s, @z) : f32[2, 3, 2, 2]
  return %7
}
"#;

fn parsed(text: &str, registry: &Arc<Registry>) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, registry).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

fn results(module: &Module) -> Vec<f64> {
    let values: Vec<f32> = (0..2 * 3 * 4 * 4).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = Tensor::f32s([2, 3, 4, 4], values).unwrap_or_else(|e| panic!("{e}"));
    let main = module.main().expect("a graph");
    let run = Evaluator::new().run(module, main, &[x], &[]).unwrap_or_else(|e| panic!("{e}"));
    run.results[0].to_f64s().expect("numbers")
}

/// Runs passes of this crate on [`FROZEN`] with so much fuel; gives the module and what is left of the fuel.
fn passes(pipeline: &str, fuel: u64) -> (Module, u64) {
    passes_over(parsed(FROZEN, &Registry::builtin()), pipeline, fuel)
}

fn passes_over(mut module: Module, pipeline: &str, fuel: u64) -> (Module, u64) {
    let mut registry = PassRegistry::default();
    gs_algos::passes::register(&mut registry);
    let mut context = PassContext { fuel: Some(fuel), ..PassContext::default() };
    let pipeline = Pipeline::parse(pipeline).expect("a pipeline");
    for (_, pass) in registry.make(&pipeline).unwrap_or_else(|e| panic!("{e}")) {
        pass.run(&mut module, &mut context).unwrap_or_else(|e| panic!("{e}"));
        verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    }
    (module, context.fuel.expect("fuel"))
}

/// A rewrite more is another network, which computes the same: so a wrong rewrite can be found by halving.
#[test]
fn fuel_bisects() {
    let frozen = results(&parsed(FROZEN, &Registry::builtin()));
    for pipeline in ["integers", "deploy"] {
        let plenty = 1000;
        let (whole, left) = passes(pipeline, plenty);
        let needed = plenty - left;
        assert!(needed > 5, "{pipeline}: {needed} rewrites");
        let text = |m: &Module| print_to_string(m, &PrintOptions::default());
        let mut before = String::new();
        for fuel in 0..=needed {
            let (module, left) = passes(pipeline, fuel);
            assert_eq!(left, 0, "{pipeline} with fuel {fuel}");
            let after = text(&module);
            assert!(after != before, "{pipeline}: rewrite {fuel} changes nothing");
            before = after;
            for (a, b) in frozen.iter().zip(results(&module)) {
                assert!((a - b).abs() < 0.051, "{pipeline} with fuel {fuel}: {b} stands for {a}");
            }
        }
        assert_eq!(before, text(&whole));
    }
}

/// A match whose replacement does not fit is told where remarks are wanted.
#[test]
fn refused_matches_are_remarks() {
    let mut target = targets::find("ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    target.rules.integers = vec!["mine".to_owned()];
    let text = "gsr 1\nruleset \"mine\" { driver = lower, target = \"ort-cpu\" }\n\n/// Wrong.\nrule exact wrong\n  \
                relu($x) => unsqueeze($x) {axes = [0]}\n";
    let registry = Registry::builtin();
    let lowering = Lowering::new(target, &[("mine", text)], &registry, &rules::functions());
    let lowering = lowering.unwrap_or_else(|e| panic!("{e}"));
    let mut module = parsed(FROZEN, &registry);
    let mut told: Vec<(String, String)> = Vec::new();
    let mut sink = |r: Remark| told.push((r.by, r.place));
    let mut context = PassContext { remarks: Some(&mut sink), ..PassContext::default() };
    let report = lowering.to_integers(&mut module, &mut context).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(told, [("wrong".to_owned(), "relu".to_owned())]);
}

/// The rules of a target may name operators of the registry that the module was made with.
#[test]
fn rules_know_the_operators_of_an_embedder() {
    let mut registry = (*Registry::builtin()).clone();
    let relu = *registry.decl(registry.kind("relu").expect("declared"));
    registry.register(OpDecl { name: "my.rectify", onnx: None, ..relu }).expect("a new operator");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let shipped = include_str!("../targets/ort-cpu.toml");
    put("mine.toml", &shipped.replace("integers = [", "integers = [\"mine.gsr\", "));
    put(
        "mine.gsr",
        "gsr 1\nruleset \"mine\" { driver = lower, target = \"ort-cpu\" }\n\n/// One of many names.\n\
         rule exact rectify\n  my.rectify($x) => relu($x)\n",
    );
    let text = FROZEN.replace("relu(%2)", "my.rectify(%2)");
    assert!(text != FROZEN);
    let module = parsed(&text, &Arc::new(registry));
    let path = folder.path().join("mine.toml");
    let pipeline = format!("integers{{target={:?}}}", path.display().to_string());
    let (own, _) = passes_over(module, &pipeline, 1000);
    let (shipped, _) = passes("integers", 1000);
    let names =
        |m: &Module| -> Vec<String> { m.all_ops().iter().map(|op| m.op_name(*op).to_owned()).collect() };
    assert_eq!(names(&own), names(&shipped));
    assert_eq!(names(&own), ["quantize", "qconv", "max_pool", "qconv", "dequantize"]);
}

/// Weights halfway between two codes go where the target's rounding takes them, with one scale and with one per channel.
#[test]
fn weights_are_rounded_as_the_target_rounds() {
    // In units of the scale; the last is the float just below a half.
    let below = 0.5f32.next_down();
    for (scale, zero, attrs, scales) in [
        ("f32[] = 0.5", "i8[] = 0", "", [0.5f32, 0.5]),
        ("f32[2] = dense(0.5, 0.25)", "i8[2] = splat(0)", " {axis = 0}", [0.5, 0.25]),
    ] {
        let halves = [0.5f32, 1.5, -0.5, -1.5, 2.5, -2.5, 0.75, below];
        let rows = scales.map(|s| halves.map(|h| h * s));
        let weights: Vec<String> = rows.iter().flatten().map(|w| format!("{w:?}")).collect();
        let text = format!(
            "gsir 1\nparam @w : f32[2, 8, 1, 1] = dense({})\nconst @s : f32[] = 0.05\nconst @z : u8[] = 3\n\
             const @ws : {scale}\nconst @wz : {zero}\n\
             graph @main(%x : f32[2, 8, 4, 4]) -> (%y : f32[2, 2, 4, 4]) {{\n  \
             %0 = qdq(%x, @s, @z) : f32[2, 8, 4, 4]\n  %1 = qdq(@w, @ws, @wz){attrs} : f32[2, 8, 1, 1]\n  \
             %2 = conv(%0, %1, _) : f32[2, 2, 4, 4] from \"conv\"\n  \
             %3 = qdq(%2, @s, @z) : f32[2, 2, 4, 4]\n  return %3\n}}\n",
            weights.join(", ")
        );
        for (rounding, codes) in [
            (Rounding::HalfEven, [0, 2, 0, -2, 2, -2, 1, 0]),
            (Rounding::HalfUp, [1, 2, 0, -1, 3, -2, 1, 0]),
            (Rounding::HalfAway, [1, 2, -1, -2, 3, -3, 1, 0]),
        ] {
            let registry = Registry::builtin();
            let mut target = targets::find("ort-cpu").unwrap_or_else(|e| panic!("{e}"));
            target.rounding = rounding;
            let lowering = Lowering::new(target, &[], &registry, &rules::functions());
            let lowering = lowering.unwrap_or_else(|e| panic!("{e}"));
            let mut module = parsed(&text, &registry);
            lowering.to_integers(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
            verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
            let conv = module.all_ops().into_iter().find(|op| module.is(*op, "qconv")).expect("integers");
            let weight = module.operand_named(conv, "w").and_then(|w| module.as_global(w)).expect("a weight");
            let tensor = Materializer::new(&module).tensor(weight).unwrap_or_else(|e| panic!("{e}"));
            let found: Vec<i64> = tensor.to_f64s().expect("numbers").into_iter().map(|c| c as i64).collect();
            assert_eq!(found, [codes, codes].concat(), "{rounding:?} {scale}");
        }
    }
}
