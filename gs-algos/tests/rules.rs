//! The rule files of this crate: every one loads without a finding, every rule has an example that holds, quantisers
//! stand where they should in small networks, and lowering leaves no arithmetic in float.

use gs_algos::algorithm::Algorithm;
use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::deploy::{Form, LOWER_ORT_CPU, deploy, to_integers};
use gs_algos::freeze::freeze;
use gs_algos::rules::{SHIPPED, load};
use gs_algos::simqat::{SimQat, SimQatConfig};
use gs_eval::random::unit;
use gs_eval::{Evaluator, Executor, InMemory, Materializer, Tensor};
use gs_ir::{Attr, ElemType, FloatBits, Module, OpId, Registry, Rewriter, ValueId, infer_module, verify};
use gs_passes::grid::{Grids, Part, channel_axis};
use gs_passes::manager::PassContext;
use gs_passes::rules::example::check_examples;
use gs_passes::rules::{GridClass, RuleEnv, Site};
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};

/// What SimQAT would answer about an example with its default configuration, worked out anew for each question.
struct Defaults {
    /// Whether the rules are those of an algorithm with learned grids, which has those of inner activations.
    learned: bool,
}

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
        let weight = key.starts_with("weight_");
        let (w, a) = (config.weight, config.act);
        let (bits, symmetric, narrow) = if weight {
            (w.bits, w.symmetric, w.narrow_range)
        } else {
            (a.bits, a.symmetric.unwrap_or(false), a.narrow_range)
        };
        match (key.split_once('_')?.1, site) {
            // Inner layers alone read what an activation makes.
            ("learned", Site::Value(v)) if !weight => {
                let relu = module.producer(v).is_some_and(|op| module.is(op, "relu"));
                (self.learned && relu).then_some(Attr::Bool(true))
            }
            ("negative", _) => Some(Attr::Bool(false)),
            ("learned", _) if self.learned => Some(Attr::Bool(true)),
            ("level_axis", _) => Some(Attr::Int(0)),
            ("level_bits", _) => Some(Attr::Int(2)),
            ("level_count", _) => Some(Attr::Int(4)),
            ("bits", _) => Some(Attr::Int(i64::from(bits))),
            ("signed", _) => Some(Attr::Bool(weight)),
            ("symmetric", _) => Some(Attr::Bool(symmetric)),
            ("narrow", _) => Some(Attr::Bool(narrow)),
            ("axis", Site::Op(op)) => Some(Attr::Int(channel_axis(module, op)? as i64)),
            ("axis", Site::Value(result)) => {
                Some(Attr::Int(channel_axis(module, module.producer(result)?)? as i64))
            }
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
        let set = load(name, text, &Registry::builtin()).unwrap_or_else(|e| panic!("{e}"));
        for r in &set.rules {
            assert!(!r.doc.is_empty(), "{name}: {} does not say what it is for", r.name);
            assert!(r.examples.iter().any(|e| e.after.is_some()), "{name}: nothing shows {}", r.name);
        }
        for r in &set.inserts {
            assert!(r.examples.iter().any(|e| e.after.is_some()), "{name}: nothing shows {}", r.name);
        }
        let mut found = set.warnings.clone();
        found.extend(check_examples(&set, &registry, &Defaults { learned: *name != "simqat" }));
        if !found.is_empty() {
            report.push_str(&gs_text::render_all(&found, &SourceMap::single(*name, *text), Style::Plain));
        }
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
    let report =
        SimQat::default().apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
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
    assert_eq!(counts, [5, 6, 0]);
    insta::assert_snapshot!(operations(&module), @r"
    %0 = fake_quant(%image, @image.range)
    %1 = fake_quant(@w1, @w1.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %2 = conv(%0, %1, @b1)
    %3 = relu(%2)
    %4 = fake_quant(%3, @relu1.range)
    %5 = max_pool(%4) {kernel_shape = [2, 2], strides = [2, 2]}
    %6 = fake_quant(@w2, @w2.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %7 = conv(%5, %6, @b2)
    %8 = relu(%7)
    %9 = fake_quant(%8, @relu2.range)
    %10 = max_pool(%9) {kernel_shape = [2, 2], strides = [2, 2]}
    %11 = flatten(%10)
    %12 = fake_quant(@w3, @w3.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %13 = gemm(%11, %12, @b3) {trans_b = true}
    %14 = relu(%13)
    %15 = fake_quant(%14, @relu3.range)
    %16 = fake_quant(@w4, @w4.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %17 = gemm(%15, %16, @b4) {trans_b = true}
    %18 = relu(%17)
    %19 = fake_quant(%18, @relu4.range)
    %20 = fake_quant(@w5, @w5.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %21 = gemm(%19, %20, @b5) {trans_b = true}
    %22 = fake_quant(%21, @fc3.range)
    return %22
    ");
}

#[test]
fn a_residual_block_puts_its_sum_on_a_grid_behind_the_activation() {
    let (module, counts) = instrumented(RESIDUAL);
    assert_eq!(counts, [2, 5, 0]);
    insta::assert_snapshot!(operations(&module), @r"
    %0 = fake_quant(%x, @x.range)
    %1 = fake_quant(@w1, @w1.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %2 = conv(%0, %1) {pads = [1, 1, 1, 1]}
    %3 = relu(%2)
    %4 = fake_quant(%3, @relu1.range)
    %5 = fake_quant(@w2, @w2.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %6 = conv(%4, %5) {pads = [1, 1, 1, 1]}
    %7 = fake_quant(%6, @conv2.range)
    %8 = add(%7, %0)
    %9 = relu(%8)
    %10 = fake_quant(%9, @relu2.range)
    %11 = global_average_pool(%10)
    %12 = fake_quant(%11, @pool.range)
    return %12
    ");
}

#[test]
fn what_is_concatenated_shares_one_range() {
    let (module, counts) = instrumented(CONCAT);
    assert_eq!(counts, [3, 4, 0]);
    insta::assert_snapshot!(operations(&module), @r"
    %0 = fake_quant(%x, @x.range)
    %1 = fake_quant(@w1, @w1.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %2 = conv(%0, %1)
    %3 = fake_quant(%2, @narrow.range)
    %4 = fake_quant(@w2, @w2.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %5 = conv(%0, %4) {pads = [1, 1, 1, 1]}
    %6 = fake_quant(%5, @narrow.range)
    %7 = concat(%3, %6) {axis = 1}
    %8 = fake_quant(@w3, @w3.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %9 = conv(%7, %8)
    %10 = fake_quant(%9, @mix.range)
    return %10
    ");
}

#[test]
fn a_shared_weight_gets_one_quantiser() {
    let (module, counts) = instrumented(SHARED);
    assert_eq!(counts, [1, 3, 0]);
    insta::assert_snapshot!(operations(&module), @r"
    %0 = fake_quant(%x, @x.range)
    %1 = fake_quant(@w, @w.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %2 = gemm(%0, %1) {trans_b = true}
    %3 = relu(%2)
    %4 = fake_quant(%3, @relu.range)
    %5 = gemm(%4, %1) {trans_b = true}
    %6 = fake_quant(%5, @second.range)
    return %6
    ");
}

/// The contents of a global, as numbers.
fn floats(module: &Module, name: &str) -> Vec<f64> {
    let (id, _) =
        module.globals().find(|(_, g)| module.str(g.name) == name).unwrap_or_else(|| panic!("no @{name}"));
    Materializer::new(module).tensor(id).unwrap_or_else(|e| panic!("{e}")).to_f64s().unwrap_or_default()
}

#[test]
fn softmax_gets_a_fixed_range() {
    let (module, counts) = instrumented(SOFTMAX);
    assert_eq!(counts, [1, 2, 1]);
    insta::assert_snapshot!(operations(&module), @r"
    %0 = fake_quant(%x, @x.range)
    %1 = fake_quant(@w, @w.range) {axis = 0, narrow = true, signed = true, symmetric = true}
    %2 = gemm(%0, %1) {trans_b = true}
    %3 = fake_quant(%2, @fc.range)
    %4 = softmax(%3)
    %5 = fake_quant(%4, @softmax.range)
    return %5
    ");
    assert_eq!(floats(&module, "softmax.range"), [0.0, 255.0 / 256.0]);
    assert!(floats(&module, "fc.range").iter().all(|v| v.is_nan()), "not observed yet");
}

#[test]
fn instrumenting_twice_is_instrumenting_once() {
    for text in [LENET, RESIDUAL, CONCAT, SHARED, SOFTMAX] {
        let (mut module, _) = instrumented(text);
        let once = print_to_string(&module, &PrintOptions::default());
        SimQat::default().apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(once, print_to_string(&module, &PrintOptions::default()));
    }
}

/// A network in which every lowering rule has something to do that is for operations SimQAT quantises.
const EVERYTHING: &str = r#"gsir 1
dims N >= 1
param @w1 : f32[4, 1, 3, 3] = uniform(seed 1, -0.5, 0.5)
param @b1 : f32[4] = uniform(seed 2, -0.1, 0.1)
param @w2 : f32[4, 4, 1, 1] = uniform(seed 3, -0.5, 0.5)
param @w3 : f32[6, 16] = uniform(seed 4, -0.5, 0.5)
param @b3 : f32[6] = uniform(seed 5, -0.1, 0.1)
param @w4 : f32[6, 4] = uniform(seed 6, -0.5, 0.5)
graph @main(%x : f32[N, 1, 4, 4]) -> (%p : f32[N, 4], %q : f32[N, 4], %r : f32[N, 4, 1, 1], %s : f32[N, 4, 4, 4]) {
  %0 = conv(%x, @w1, @b1) {pads = [1, 1, 1, 1]} : f32[N, 4, 4, 4] from "conv1"
  %1 = relu(%0) : f32[N, 4, 4, 4] from "relu1"
  %2 = conv(%1, @w2) : f32[N, 4, 4, 4] from "conv2"
  %3 = sigmoid(%2) : f32[N, 4, 4, 4] from "gate"
  %4 = mul(%1, %3) : f32[N, 4, 4, 4] from "gated"
  %5 = leaky_relu(%4) {alpha = 0.2} : f32[N, 4, 4, 4] from "leaky"
  %6 = add(%5, %2) : f32[N, 4, 4, 4] from "sum"
  %7 = average_pool(%6) {kernel_shape = [2, 2], strides = [2, 2]} : f32[N, 4, 2, 2] from "pool"
  %8 = global_average_pool(%6) : f32[N, 4, 1, 1] from "global"
  %9 = matmul(%6, %2) : f32[N, 4, 4, 4] from "product"
  %10 = flatten(%7) : f32[N, 16] from "flatten"
  %11 = gemm(%10, @w3, @b3) {trans_b = true} : f32[N, 6] from "fc1"
  %12 = matmul(%11, @w4) : f32[N, 4] from "fc2"
  %13 = softmax(%12) {axis = 1} : f32[N, 4] from "softmax"
  %14 = softmax(%12) {axis = 1, legacy = true} : f32[N, 4] from "old"
  return %13, %14, %8, %9
}
"#;

const SAMPLES: usize = 16;

/// Random images for the network above or LeNet.
fn images(module: &Module) -> Tensor {
    let main = module.main().unwrap_or_else(|| panic!("no graph"));
    let input = module.graph(main).params()[0];
    let dims =
        module.type_of(input).as_tensor().and_then(|t| t.dims().map(<[_]>::to_vec)).unwrap_or_default();
    let each = |d: &gs_ir::Dim| usize::try_from(d.eval(&|_| Some(SAMPLES as i64)).unwrap_or(0)).unwrap_or(0);
    let dims: Vec<usize> = dims.iter().map(each).collect();
    let values: Vec<f64> =
        (0..dims.iter().product::<usize>()).map(|i| unit(7, i as u64) * 4.0 - 2.0).collect();
    Tensor::from_f64s(ElemType::F32, dims, &values).unwrap_or_else(|e| panic!("{e}"))
}

/// The network, calibrated on random images and frozen, and the images.
fn frozen(text: &str) -> (Module, Tensor) {
    let (mut module, _) = instrumented(text);
    let images = images(&module);
    let data = InMemory::new(vec![("x".to_owned(), images.clone())]).unwrap_or_else(|e| panic!("{e}"));
    let options = CalibrateOptions::default();
    calibrate(&mut module, &Evaluator::new(), &data, &options, &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{e}"));
    freeze(&mut module).unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    (module, images)
}

fn run(module: &Module, images: &Tensor) -> Vec<Vec<f64>> {
    let main = module.main().unwrap_or_else(|| panic!("no graph"));
    let out = Evaluator::new()
        .run(module, main, std::slice::from_ref(images), &[])
        .unwrap_or_else(|e| panic!("{e}"));
    out.results.iter().map(|t| t.to_f64s().unwrap_or_default()).collect()
}

/// The names of operations of the main graph that compute in float.
fn computes_in_float(module: &Module) -> Vec<String> {
    let main = module.main().unwrap_or_else(|| panic!("no graph"));
    let in_float = |&op: &OpId| {
        let reads_float =
            module.op(op).operand(0).and_then(|v| module.type_of(v).elem()).is_some_and(ElemType::is_float);
        let rim = ["quantize", "dequantize"].contains(&module.op_name(op));
        reads_float && !rim
    };
    module.ops_in(main).filter(in_float).map(|op| module.op_name(op).to_owned()).collect()
}

/// Mean absolute difference of two results relative to the larger spread of the first.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let spread = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (x - y).abs()).sum();
    sum / a.len().max(1) as f64 / spread.max(f64::MIN_POSITIVE)
}

#[test]
fn every_lowering_rule_fires_and_leaves_no_arithmetic_in_float() {
    let (module, images) = frozen(EVERYTHING);
    let before = run(&module, &images);
    let mut lowered = module.clone();
    let report = to_integers(&mut lowered, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    verify(&lowered).unwrap_or_else(|e| panic!("{e:?}"));
    let fired = |rule: &str| report.counters.iter().any(|(name, n)| name == rule && *n > 0);
    for rule in
        &load("lower-ort-cpu", LOWER_ORT_CPU, &Registry::builtin()).unwrap_or_else(|e| panic!("{e}")).rules
    {
        // The target takes no softmax over several axes at once, so only networks quantised elsewhere hold one.
        let expected = rule.name != "legacy_softmax_to_integer";
        assert_eq!(fired(&rule.name), expected, "{}: {report:?}", rule.name);
    }
    assert_eq!(computes_in_float(&lowered), Vec::<String>::new(), "{}", operations(&lowered));
    for (a, b) in before.iter().zip(run(&lowered, &images)) {
        assert!(difference(a, &b) < 0.01, "{}", difference(a, &b));
    }
}

#[test]
fn a_frozen_lenet_is_all_integers() {
    let (mut module, images) = frozen(LENET);
    let before = run(&module, &images);
    to_integers(&mut module, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    let main = module.main().unwrap_or_else(|| panic!("no graph"));
    let names: Vec<&str> = module.ops_in(main).map(|op| module.op_name(op)).collect();
    let layers = ["qconv", "max_pool", "qconv", "max_pool", "flatten", "qgemm", "qgemm", "qgemm"];
    assert_eq!(names, [&["quantize"], &layers[..], &["dequantize"]].concat());
    assert_eq!(computes_in_float(&module), Vec::<String>::new());
    assert!(difference(&before[0], &run(&module, &images)[0]) < 0.01);
}

#[test]
fn the_portable_form_has_no_operator_of_one_runtime_and_computes_the_same() {
    let (module, images) = frozen(EVERYTHING);
    let before = run(&module, &images);
    let mut portable = module.clone();
    deploy(&mut portable, "ort-cpu", Form::Qdq).unwrap_or_else(|e| panic!("{e}"));
    verify(&portable).unwrap_or_else(|e| panic!("{e:?}"));
    for op in portable.all_ops() {
        assert!(
            !portable.op_name(op).starts_with('q') || portable.is(op, "quantize"),
            "{}",
            portable.op_name(op)
        );
    }
    for (a, b) in before.iter().zip(run(&portable, &images)) {
        assert!(difference(a, &b) < 0.01, "{}", difference(a, &b));
    }
}

/// Files often leave out a zero point of 0.
#[test]
fn omitted_zero_points_deploy() {
    let (module, images) = frozen(EVERYTHING);
    let mut portable = module.clone();
    deploy(&mut portable, "ort-cpu", Form::Qdq).unwrap_or_else(|e| panic!("{e}"));
    let mut whole = portable.clone();
    let mut omitted = 0;
    let mut rewriter = Rewriter::new(&mut portable);
    for op in rewriter.all_ops() {
        let rim = ["quantize", "dequantize"].contains(&rewriter.op_name(op));
        let Some(zero) = rewriter.op(op).operand(2).filter(|_| rim).and_then(|v| rewriter.as_global(v))
        else {
            continue;
        };
        let zeros = Materializer::new(&rewriter).tensor(zero).ok().and_then(|t| t.to_f64s());
        if zeros.is_some_and(|z| z.iter().all(|z| *z == 0.0)) {
            rewriter.set_operand(op, 2, None);
            omitted += 1;
        }
    }
    assert!(omitted > 10, "{omitted}");
    verify(&portable).unwrap_or_else(|e| panic!("{e:?}"));
    for m in [&mut whole, &mut portable] {
        to_integers(m, "ort-cpu").unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(computes_in_float(&portable), Vec::<String>::new(), "{}", operations(&portable));
    assert_eq!(run(&portable, &images), run(&whole, &images));
}
