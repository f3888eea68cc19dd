//! A network that learns from what it was: the loss and its derivative, what is copied, and that nothing stays of it.

use gs_algos::algorithm::{Algorithm, RunLength};
use gs_algos::distillation::{
    DistillationConfig, Distilled, keep_teacher, learn_from_teacher, teacher_graph,
};
use gs_algos::simqat::{SimQat, SimQatConfig};
use gs_eval::{Evaluator, Executor, Tensor};
use gs_ir::{ElemType, Init, Literal, Module, Registry, Rewriter, Role, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::training::train_graph;
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};

fn parsed(text: &str) -> Module {
    parse_module(text, None, &Registry::builtin())
        .unwrap_or_else(|d| panic!("{}", render_all(&d, &SourceMap::single("network", text), Style::Plain)))
}

fn run(module: &mut Module, pipeline: &str) -> Result<(), String> {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    gs_algos::passes::register(&mut registry);
    let pipeline = Pipeline::parse(pipeline).expect("a pipeline");
    let manager = PassManager { registry: &registry, verify_each: true };
    let done = manager.run(&pipeline, module, &mut PassContext::default(), &mut |_| {});
    done.map(|_| ()).map_err(|e| e.to_string())
}

fn set(module: &mut Module, name: &str, values: &[f64]) {
    let global = module.global_named(name).expect("a global");
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let literal = Literal::new(ElemType::F64, [values.len() as i64], bytes);
    let ty = module.ty(module.global(global).ty).clone();
    Rewriter::new(module).set_global(global, ty, Init::Data(literal.data));
}

fn doubles(dims: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64s(ElemType::F64, dims, values).expect("a tensor")
}

/// Logits are inputs plus `@w`, which begins as zeros: the teacher's logits are the inputs.
fn shifted(rows: usize) -> Module {
    let mut module = parsed(&format!(
        "gsir 1\nparam @w : f64[3] = splat(0.0)\n\
         graph @main(%x : f64[{rows}, 3]) -> (%logits : f64[{rows}, 3]) {{\n  \
         %0 = add(%x, @w) : f64[{rows}, 3] from \"shift\"\n  return %0\n}}\n"
    ));
    keep_teacher(&mut module).expect("a teacher");
    module
}

/// The loss, and its derivative by `@w`.
fn loss(module: &Module, inputs: &[Tensor]) -> (f64, Vec<f64>) {
    let train = train_graph(module).expect("@train");
    let results = Evaluator::new().run(module, train, inputs, &[]).expect("a step").results;
    let numbers = |t: &Tensor| t.to_f64s().expect("numbers");
    (numbers(&results[0])[0], results.last().map(numbers).expect("a gradient"))
}

/// The case of the published form: z = [1, 2, 0.5], teacher [2, 1, 0], T = 4, no labels.
#[test]
fn the_derivative_is_that_of_the_published_form() {
    let mut module = shifted(1);
    run(&mut module, "loss{kind=none},distill{temperature=4, weight=1},grad").expect("a training graph");
    set(&mut module, "w", &[-1.0, 1.0, 0.5]);
    let (loss, gradient) = loss(&module, &[doubles(&[1, 3], &[2.0, 1.0, 0.0])]);
    for (found, wanted) in gradient.iter().zip([-0.413_700, 0.316_018, 0.097_683]) {
        assert!((found - wanted).abs() < 1e-6, "{gradient:?}");
    }
    // 16 times the divergence of the softmaxes of a quarter of the logits.
    let softmax = |z: [f64; 3]| {
        let e = z.map(|v| (v / 4.0).exp());
        e.map(|v| v / e.iter().sum::<f64>())
    };
    let (teacher, student) = (softmax([2.0, 1.0, 0.0]), softmax([1.0, 2.0, 0.5]));
    let wanted: f64 = teacher.iter().zip(student).map(|(t, s)| 16.0 * t * (t / s).ln()).sum();
    assert!((loss - wanted).abs() < 1e-6, "{loss} {wanted}");
}

#[test]
fn the_mixed_loss_agrees_with_finite_differences() {
    let mut module = shifted(2);
    run(&mut module, "loss,distill{temperature=2.5, weight=0.6},grad").expect("a training graph");
    let inputs = [
        doubles(&[2, 3], &[2.0, 1.0, 0.0, -0.5, 0.75, 0.25]),
        Tensor::from_ints(ElemType::I64, [2], &[2, 1]).expect("labels"),
    ];
    let at = [-0.7, 0.4, 0.2];
    set(&mut module, "w", &at);
    let gradient = loss(&module, &inputs).1;
    for i in 0..3 {
        let mut ends = [0.0; 2];
        for (end, step) in ends.iter_mut().zip([1e-3, -1e-3]) {
            let mut moved = at;
            moved[i] += step;
            set(&mut module, "w", &moved);
            *end = loss(&module, &inputs).0;
        }
        let difference = (ends[0] - ends[1]) / 2e-3;
        assert!((difference - gradient[i]).abs() < 1e-4, "{i}: {difference} {gradient:?}");
    }
    // A student that is its teacher learns from labels alone.
    set(&mut module, "w", &[0.0; 3]);
    let mut plain = shifted(2);
    run(&mut plain, "loss,grad").expect("a training graph");
    let (mixed, plain) = (loss(&module, &inputs), loss(&plain, &inputs));
    assert!((mixed.0 - 0.4 * plain.0).abs() < 1e-6, "{mixed:?} {plain:?}");
    assert!(mixed.1.iter().zip(&plain.1).all(|(a, b)| (a - 0.4 * b).abs() < 1e-6), "{mixed:?} {plain:?}");
}

const NETWORK: &str = "gsir 1
dims N >= 1
param @w : f32[4, 3, 3, 3] = uniform(seed 1, -1.0, 1.0)
param @g : f32[4] = splat(1.5)
param @b : f32[4] = splat(0.25)
const @m : f32[4] = splat(0.0)
const @v : f32[4] = splat(2.0)
param @f : f32[4, 3] = uniform(seed 2, -1.0, 1.0)
graph @main(%x : f32[N, 3, 8, 8]) -> (%logits : f32[N, 3]) {
  %0 = conv(%x, @w) {pads = [1, 1, 1, 1]} : f32[N, 4, 8, 8] from \"conv\"
  %1 = batch_norm(%0, @g, @b, @m, @v) : f32[N, 4, 8, 8] from \"bn\"
  %2 = relu(%1) : f32[N, 4, 8, 8] from \"relu\"
  %3 = global_average_pool(%2) : f32[N, 4, 1, 1] from \"pool\"
  %4 = flatten(%3) : f32[N, 4] from \"flat\"
  %5 = gemm(%4, @f) : f32[N, 3] from \"fc\"
  return %5
}
";

fn brief(module: &Module) -> String {
    print_to_string(module, &PrintOptions::snapshot())
}

#[test]
fn the_teacher_joins_the_step_and_is_gone_when_converted() {
    let mut module = parsed(NETWORK);
    let distilled = Distilled { inner: Box::new(SimQat::default()), config: DistillationConfig::default() };
    let mut context = PassContext::default();
    distilled.apply(&mut module, &mut context).expect("applied");
    verify(&module).expect("a sound module");
    insta::assert_snapshot!("applied", brief(&module));
    run(&mut module, "loss").expect("a training graph");
    distilled.prepare_training(&mut module, RunLength { steps: 10, steps_per_epoch: 10 }).expect("prepared");
    verify(&module).expect("a sound module");
    assert!(teacher_graph(&module).is_none());
    insta::assert_snapshot!("prepared", brief(&module));
    run(&mut module, "grad,update").expect("a whole step");
    let train = train_graph(&module).expect("@train");
    // Nothing of the teacher is trained or stored, and its batch normalisation keeps its statistics.
    assert!(
        module.graph(train).updates().all(|u| !module.str(module.global(u.0).name).starts_with("teacher."))
    );
    let mut teachers = module.globals().filter(|(_, g)| module.str(g.name).starts_with("teacher."));
    assert!(teachers.all(|(_, g)| g.role == Role::Const && !g.trainable));
    drop(teachers);
    gs_passes::training::drop_training(&mut module);
    assert!(!brief(&module).contains("teacher"), "{}", brief(&module));
}

#[test]
fn copies_share_their_bytes_and_follow_no_training() {
    let mut module = parsed(NETWORK);
    set_f32(&mut module, "w", 108);
    // The scale as an operation on a weight that is trained.
    run(&mut module, "fold-bn").expect("folded");
    keep_teacher(&mut module).expect("a teacher");
    let bytes = |name: &str| match &module.global(module.global_named(name).expect(name)).init {
        Init::Data(data) => data.bytes().map(|b| b.as_ptr()),
        other => panic!("{name}: {other:?}"),
    };
    assert!(bytes("w").is_some() && bytes("w") == bytes("teacher.w"));
    let text = brief(&module);
    let derived = text.lines().filter(|l| l.starts_with("const @teacher.") && l.contains("(@"));
    for line in derived {
        let reads = line.split('(').nth(1).unwrap_or_default();
        assert!(reads.contains("@teacher.") && !reads.contains("(@w"), "{line}");
    }
}

fn set_f32(module: &mut Module, name: &str, count: usize) {
    let global = module.global_named(name).expect("a global");
    let ty = module.ty(module.global(global).ty).clone();
    let bytes: Vec<u8> = (0..count).flat_map(|i| (i as f32 * 0.01).to_le_bytes()).collect();
    let literal = Literal::new(ElemType::F32, [4, 3, 3, 3], bytes);
    Rewriter::new(module).set_global(global, ty, Init::Data(literal.data));
}

/// A network with two outputs that differ in what is trained: which of them is learned shows in what is trained.
#[test]
fn the_output_that_the_loss_is_of_is_learned() {
    let network = || {
        let mut module = parsed(
            "gsir 1\nparam @v : f64[3] = splat(0.5)\nparam @w : f64[3] = splat(0.5)\n\
             graph @main(%x : f64[2, 3]) -> (%a : f64[2, 3], %b : f64[2, 3]) {\n  \
             %0 = add(%x, @v) : f64[2, 3]\n  %1 = mul(%x, @w) : f64[2, 3]\n  return %0, %1\n}\n",
        );
        keep_teacher(&mut module).expect("a teacher");
        module
    };
    for (pipeline, learned) in [
        ("loss{output=b},distill", "w"),
        ("loss,distill", "v"),
        ("loss{kind=none},distill{weight=1}", "v"),
        ("loss{kind=none},distill{weight=1, output=b}", "w"),
    ] {
        let mut module = network();
        run(&mut module, pipeline).unwrap_or_else(|e| panic!("{pipeline}: {e}"));
        let train = train_graph(&module).expect("@train");
        let read: Vec<&str> = module
            .ops_in(train)
            .filter(|&op| {
                module.user_ops(module.op(op).result()).iter().any(|&o| leads_to_divergence(&module, o))
            })
            .flat_map(|op| module.op(op).present_operands())
            .filter_map(|v| module.as_global(v))
            .map(|g| module.str(module.global(g).name))
            .filter(|n| ["v", "w", "teacher.v", "teacher.w"].contains(n))
            .collect();
        let teacher = format!("teacher.{learned}");
        assert_eq!(read.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{pipeline}: {read:?}");
        assert!(read.contains(&learned) && read.contains(&teacher.as_str()), "{pipeline}: {read:?}");
    }
    let said = run(&mut network(), "loss,distill{output=c}").expect_err("no such output");
    assert!(said.contains("`c`; there are: a, b"), "{said}");
}

/// Whether an operation divides logits by the temperature: a product that a `log_softmax` reads.
fn leads_to_divergence(module: &Module, op: gs_ir::OpId) -> bool {
    let read = module.user_ops(module.op(op).result());
    read.iter().any(|&o| module.is(o, "log_softmax"))
}

/// A second time, the teacher is that of the first; where the algorithm fails, there is none yet.
#[test]
fn applying_twice_is_applying_once_and_a_failure_changes_nothing() {
    let with =
        |config| Distilled { inner: Box::new(SimQat { config }), config: DistillationConfig::default() };
    let mut module = parsed(NETWORK);
    let before = brief(&module);
    let wrong = SimQatConfig { exclude: vec!["nothing".to_owned()], ..SimQatConfig::default() };
    with(wrong).apply(&mut module, &mut PassContext::default()).expect_err("no layer has this name");
    assert_eq!(brief(&module), before);
    for _ in 0..2 {
        let config = SimQatConfig::default();
        with(config).apply(&mut module, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
        verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    }
    let mut once = parsed(NETWORK);
    let config = SimQatConfig::default();
    with(config).apply(&mut once, &mut PassContext::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(brief(&module), brief(&once));
    assert!(teacher_graph(&module).is_some());
}

#[test]
fn what_cannot_be_is_refused() {
    let mut module = shifted(1);
    let twice = keep_teacher(&mut module).expect_err("a second teacher").to_string();
    assert!(twice.contains("@teacher already"), "{twice}");
    let config = DistillationConfig { temperature: 0.0, weight: 0.5, output: None };
    let cold = learn_from_teacher(&mut module, &config).expect_err("no temperature").to_string();
    assert!(cold.contains("`temperature` = 0"), "{cold}");
    let refused = |pipeline: &str, words: &str| {
        let said = run(&mut shifted(1), pipeline).expect_err(pipeline);
        assert!(said.contains(words), "{pipeline}: {said}");
    };
    refused("distill", "no graph @train");
    refused("loss{kind=none},distill", "no loss of labels");
    refused("loss,distill{weight=1.5}", "`weight` = 1.5 must be 0 to 1");
    let mut without = parsed(NETWORK);
    let said = run(&mut without, "loss,distill").expect_err("no teacher");
    assert!(said.contains("no graph @teacher"), "{said}");
}

/// The student's loss and gradients in a step that learns from its teacher.
fn distilled(end: &str, result: &str) -> Vec<Vec<f64>> {
    let mut module = parsed(&format!(
        "gsir 1\nparam @w : f64[3] = splat(0.0)\ngraph @main(%x : f64[2, 3]) -> (%y : f64[2, 3]) {{\n  \
         %0 = add(%x, @w) : f64[2, 3] from \"shift\"\n{end}  return {result}\n}}\n"
    ));
    keep_teacher(&mut module).expect("a teacher");
    run(&mut module, "loss,distill{temperature=2.5, weight=0.6},grad").expect("a training graph");
    set(&mut module, "w", &[-0.7, 0.4, 0.2]);
    let inputs = [
        doubles(&[2, 3], &[2.0, 1.0, 0.0, -0.5, 0.75, 0.25]),
        Tensor::from_ints(ElemType::I64, [2], &[2, 1]).expect("labels"),
    ];
    let (loss, gradient) = loss(&module, &inputs);
    vec![vec![loss], gradient]
}

/// Teacher and student are compared by their logits, whether a network gives these or their probabilities.
#[test]
fn networks_that_end_in_a_softmax_are_distilled_as_those_that_do_not() {
    let plain = distilled("", "%0");
    let softmax = "  %1 = softmax(%0) : f64[2, 3] from \"prob\"\n";
    assert_eq!(distilled(softmax, "%1"), plain);
    let moved = "  %1 = unsqueeze(%0) {axes = [2]} : f64[2, 3, 1]\n  %2 = log_softmax(%1) {axis = 1} : f64[2, 3, 1]\n  \
                 %3 = squeeze(%2) {axes = [2]} : f64[2, 3]\n";
    assert_eq!(distilled(moved, "%3"), plain);
}
