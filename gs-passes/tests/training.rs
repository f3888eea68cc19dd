//! Gradients against finite differences, and a network that learns, through the reference evaluator.

use gs_eval::{Evaluator, Executor, Precision, Tensor};
use gs_ir::{ElemType, GraphId, Module, Registry, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::passes::GRAD_RULES;
use gs_passes::training::train_graph;
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};
use std::collections::BTreeSet;

fn module(text: &str) -> Module {
    let module = parse_module(text, None, &Registry::builtin());
    module.unwrap_or_else(|d| {
        panic!("{}\n{text}", render_all(&d, &SourceMap::single("case", text), Style::Plain))
    })
}

fn run_pipeline(module: &mut Module, text: &str) -> Result<(), String> {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse(text).map_err(|e| format!("{e:?}"))?;
    manager
        .run(&pipeline, module, &mut PassContext::default(), &mut |_| {})
        .map(|_| ())
        .map_err(|e| e.to_string())
}

/// Numbers without pattern, the same each time, away from the kinks of what is tested.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as f64 / f64::from(1u32 << 31)) * 2.0 - 1.0
    }

    fn tensor(&mut self, dims: &[usize], positive: bool) -> Tensor {
        let n = dims.iter().product();
        let one = |v: f64| if positive { v.abs() + 0.3 } else { v + 0.05_f64.copysign(v) };
        let values: Vec<f64> = (0..n).map(|_| one(self.next())).collect();
        Tensor::from_f64s(ElemType::F64, dims, &values).unwrap()
    }
}

/// Operators with operands that are parameters `@a`, `@b`, `@c`; their result is weighted and summed.
/// Shapes of the parameters, the call, the shape of the result. A `+` before a shape: only positive numbers.
const CASES: &[(&[&str], &str, &str)] = &[
    (&["2,3,5,4", "4,3,3,2", "4"], "conv(@a, @b, @c) {pads = [1, 0, 1, 1], strides = [2, 1]}", "2,4,3,4"),
    (&["1,4,5,5", "6,2,3,3"], "conv(@a, @b) {group = 2, dilations = [2, 1]}", "1,6,1,3"),
    (&["1,3,6", "3,1,2"], "conv(@a, @b) {group = 3, auto_pad = \"SAME_UPPER\", strides = [2]}", "1,3,3"),
    (&["2,3", "3,4", "4"], "gemm(@a, @b, @c) {alpha = 0.5, beta = 2.0}", "2,4"),
    (&["2,3", "4,3", "2,1"], "gemm(@a, @b, @c) {trans_b = true}", "2,4"),
    (&["2,3,4", "4,2"], "matmul(@a, @b)", "2,3,2"),
    (&["3,1,2,4", "2,4,2"], "matmul(@a, @b)", "3,2,2,2"),
    (&["2,3,2,2", "3", "3", "3", "+3"], "batch_norm(@a, @b, @c, @d, @e)", "2,3,2,2"),
    (&["1,3", "3,1"], "add(@a, @b)", "3,3"),
    (&["2,3", "3"], "add(@a, @b)", "2,3"),
    (&["2,3", "2,1"], "sub(@a, @b)", "2,3"),
    (&["2,3", "1,3"], "mul(@a, @b)", "2,3"),
    (&["2,3", "+2,3"], "div(@a, @b)", "2,3"),
    (&["2,3", "2,1", "3"], "sum(@a, @b, @c)", "2,3"),
    (&["2,3"], "neg(@a)", "2,3"),
    (&["2,3"], "exp(@a)", "2,3"),
    (&["+2,3"], "log(@a)", "2,3"),
    (&["+2,3"], "sqrt(@a)", "2,3"),
    (&["+2,3"], "reciprocal(@a)", "2,3"),
    (&["2,3"], "abs(@a)", "2,3"),
    (&["2,3"], "sin(@a)", "2,3"),
    (&["2,3"], "cos(@a)", "2,3"),
    (&["2,3"], "erf(@a)", "2,3"),
    (&["2,3"], "relu(@a)", "2,3"),
    (&["2,3"], "leaky_relu(@a) {alpha = 0.25}", "2,3"),
    (&["2,3"], "clip(@a) {min = -0.5, max = 0.5}", "2,3"),
    (&["2,3"], "sigmoid(@a)", "2,3"),
    (&["2,3"], "tanh(@a)", "2,3"),
    (&["2,3"], "softplus(@a)", "2,3"),
    (&["2,3"], "hard_swish(@a)", "2,3"),
    (&["2,3,2"], "softmax(@a) {axis = 1}", "2,3,2"),
    (&["2,3"], "log_softmax(@a)", "2,3"),
    (&["1,2,5,4"], "max_pool(@a) {kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 0]}", "1,2,3,2"),
    (
        &["1,2,5,4"],
        "average_pool(@a) {kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]}",
        "1,2,3,4",
    ),
    (
        &["1,2,4"],
        "average_pool(@a) {kernel_shape = [3], pads = [1, 1], count_include_pad = true, strides = [2], ceil_mode = true}",
        "1,2,3",
    ),
    (&["2,3,2,2"], "global_average_pool(@a)", "2,3,1,1"),
    (&["2,3,4"], "reduce_mean(@a) {axes = [1], keepdims = false}", "2,4"),
    (&["2,3,4"], "reduce_mean(@a) {axes = [2, 0]}", "1,3,1"),
    (&["2,3,4"], "reduce_sum(@a) {axes = [-1, 0], keepdims = false}", "3"),
    (&["2,3"], "identity(@a)", "2,3"),
    (&["2,3"], "dropout(@a)", "2,3"),
    (&["2,3"], "reshape(@a) {shape = [3, 2]}", "3,2"),
    (&["2,3,2"], "flatten(@a)", "2,6"),
    (&["2,1,3"], "squeeze(@a) {axes = [1]}", "2,3"),
    (&["2,3"], "unsqueeze(@a) {axes = [1]}", "2,1,3"),
    (&["2,3,4"], "transpose(@a) {perm = [2, 0, 1]}", "4,2,3"),
    (&["2,3"], "transpose(@a)", "3,2"),
    (&["2,3"], "cast(@a) {to = f32}", "2,3"),
    (&["4,5"], "slice(@a) {starts = [3, 1], ends = [0, 5], steps = [-2, 3]}", "2,2"),
    (&["2,3"], "pad(@a) {pads = [1, 0, 0, 2], value = 0.5}", "3,5"),
];

/// Cases that need more than one operation or constants: whole bodies that compute `%l`.
const BODIES: &[(&[&str], &str)] = &[
    (&["3,4"], "  %l, %p = cross_entropy(@a, @labels) {label_smoothing = 0.1} : f32[], f32[3, 4]\n"),
    (
        &["2,3,2,2", "3", "3"],
        "  %y, %m, %v, %b, %i = batch_norm_train(@a, @b, @c, @mean, @mean) : f32[2, 3, 2, 2], f32[3], f32[3], f32[3], f32[3]\n  \
         %z = mul(%y, @weights) : f32[2, 3, 2, 2]\n  %l = reduce_sum(%z) {keepdims = false} : f32[]\n",
    ),
    (
        &["2,3,2,2", "3", "3"],
        "  %y, %m, %v, %b, %i = batch_norm_train(@a, @b, @c, @mean, @mean, @frozen) : f32[2, 3, 2, 2], f32[3], f32[3], f32[3], \
         f32[3]\n  %z = mul(%y, @weights) : f32[2, 3, 2, 2]\n  %l = reduce_sum(%z) {keepdims = false} : f32[]\n",
    ),
    (
        &["2,3", "2,3"],
        "  %y = where(@yes, @a, @b) : f32[2, 3]\n  %z = mul(%y, %y) : f32[2, 3]\n  %l = reduce_sum(%z) {keepdims = false} : f32[]\n",
    ),
    (
        &["2,3", "2,1"],
        "  %y = concat(@a, @b) {axis = -1} : f32[2, 4]\n  %z = mul(%y, %y) : f32[2, 4]\n  %l = reduce_sum(%z) {keepdims = false} : f32[]\n",
    ),
    // Levels under a softmax, times a scale: the one learned quantiser whose derivative is exact.
    (
        &["2,3,4", "+2"],
        "  %y = slb_train(@a, @b, @tau, @no) {axis = 0} : f32[2, 3]\n  %z = mul(%y, %y) : f32[2, 3]\n  %l = reduce_sum(%z) {keepdims = false} : f32[]\n",
    ),
    // A value that is read twice.
    (
        &["2,3"],
        "  %y = tanh(@a) : f32[2, 3]\n  %z = mul(%y, @a) : f32[2, 3]\n  %w = add(%z, %y) : f32[2, 3]\n  \
         %l = reduce_sum(%w) {keepdims = false} : f32[]\n",
    ),
];

fn dims(text: &str) -> Vec<usize> {
    text.trim_start_matches('+').split(',').map(|d| d.parse().unwrap()).collect()
}

fn ty(text: &str) -> String {
    format!("f32[{}]", text.trim_start_matches('+').replace(',', ", "))
}

fn text_of(params: &[&str], body: &str, weights: &str) -> String {
    let mut text = String::from("gsir 1\n");
    for (name, shape) in ["a", "b", "c", "d", "e"].iter().zip(params) {
        // Statistics of batch normalisation are no parameters.
        let role = if *name >= "d" { "const" } else { "param" };
        text += &format!("{role} @{name} : {} = splat(0.5)\n", ty(shape));
    }
    text += &format!("const @weights : {} = splat(1.0)\n", ty(weights));
    text += "const @labels : i64[3] = dense(1, 3, 0)\nconst @mean : f32[3] = splat(0.5)\n";
    text += "const @tau : f32[] = splat(2.0)\nconst @no : bool[] = splat(false)\n";
    text += "const @frozen : bool[] = dense(true)\n";
    text += "const @yes : bool[2, 3] = dense(true, false, true, false, false, true)\n";
    text + "graph @train() -> (%loss : f32[]) {\n" + body + "  return %l\n}\n"
}

/// The loss and the gradients with these contents of globals.
fn evaluate(module: &Module, graph: GraphId, contents: &[(gs_ir::GlobalId, Tensor)]) -> Vec<Tensor> {
    let evaluator = Evaluator::new().with_precision(Precision::F64);
    let mut plan = evaluator.prepare(module, graph, &[], &[]).unwrap();
    for (global, tensor) in contents {
        plan.set_global(*global, tensor).unwrap();
    }
    plan.run(&[], &mut |_, _| {}).unwrap().results
}

fn check_case(params: &[&str], text: &str, seed: u64) {
    let mut m = module(text);
    run_pipeline(&mut m, "grad").unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&m).unwrap();
    let graph = train_graph(&m).unwrap();
    let mut dice = Dice(seed);
    let mut contents = Vec::new();
    for (name, shape) in ["a", "b", "c", "d", "e"].iter().zip(params) {
        let global = m.global_named(name).unwrap();
        contents.push((global, dice.tensor(&dims(shape), shape.starts_with('+'))));
    }
    if let Some(weights) = m.global_named("weights") {
        let shape = m.ty(m.global(weights).ty).as_tensor().unwrap().const_dims().unwrap();
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        contents.push((weights, dice.tensor(&shape, false)));
    }
    let analytic = evaluate(&m, graph, &contents);
    let names: Vec<String> = m
        .graph(graph)
        .result_names()
        .map(|n| m.str(n).to_owned())
        .filter(|n| n.starts_with("grad."))
        .collect();
    assert_eq!(names.len(), params.len().min(3), "{text}");
    for (i, name) in names.iter().enumerate() {
        let global = m.global_named(&name[5..]).unwrap();
        let at = contents.iter().position(|(g, _)| *g == global).unwrap();
        let (values, shape) = (contents[at].1.to_f64s().unwrap(), contents[at].1.dims().to_vec());
        let gradient = analytic[1 + i].to_f64s().unwrap();
        assert_eq!(analytic[1 + i].dims(), shape, "{name} in\n{text}");
        for (k, g) in gradient.iter().enumerate() {
            let h = 1e-6;
            let mut loss = |step: f64| {
                let mut moved = values.clone();
                moved[k] += step;
                contents[at].1 = Tensor::from_f64s(ElemType::F64, shape.clone(), &moved).unwrap();
                evaluate(&m, graph, &contents)[0].to_f64s().unwrap()[0]
            };
            let numeric = (loss(h) - loss(-h)) / (2.0 * h);
            assert!(
                (g - numeric).abs() <= 1e-6 * (1.0 + numeric.abs()),
                "{name}[{k}]: {g} by the rule, {numeric} by differences\n{text}\n{}",
                print_to_string(&m, &PrintOptions::default())
            );
        }
        contents[at].1 = Tensor::from_f64s(ElemType::F64, shape, &values).unwrap();
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut covered = BTreeSet::new();
    for (i, (params, call, shape)) in CASES.iter().enumerate() {
        let ty = ty(shape);
        let body = format!(
            "  %y = {call} : {ty}\n  %z = mul(%y, @weights) : {ty}\n  %l = reduce_sum(%z) {{keepdims = false}} : f32[]\n"
        );
        check_case(params, &text_of(params, &body, shape), i as u64);
        covered.insert(call.split('(').next().unwrap().to_owned());
    }
    for (i, (params, body)) in BODIES.iter().enumerate() {
        let text = text_of(params, body, params[0]);
        check_case(params, &text, 1000 + i as u64);
        covered.extend(body.split(" = ").filter_map(|p| p.split('(').next()).map(str::to_owned));
    }
    let file = gs_text::gsr::parse_rules(GRAD_RULES).unwrap();
    let registry = Registry::builtin();
    // The derivative of what is straight through is no derivative of what it computes.
    let custom = |n: &str| {
        registry.kind(n).is_some_and(|k| registry.decl(k).traits.has(gs_ir::registry::Traits::CUSTOM_GRAD))
    };
    let names = file.items.iter().map(|i| i.name().text.as_str());
    let missing: Vec<&str> = names.filter(|n| !covered.contains(*n) && !custom(n)).collect();
    assert!(missing.is_empty(), "no case tests the gradient of {missing:?}");
}

#[test]
fn what_a_graph_stores_to_is_no_constant() {
    let mut m = module(
        "gsir 1\nparam @w : f32[2] = dense(1.0, 2.0)\nstate @s : f32[2] = splat(0.0)\n\
         graph @main(%x : f32[2]) -> (%y : f32[2]) {\n  %0 = neg(@w) : f32[2] from \"n\"\n  %1 = mul(%x, %0) : f32[2] from \"m\"\n  \
         return %1 updates { @w = %1 @s = %x }\n}\n",
    );
    run_pipeline(&mut m, "const-fold,cse,dce").unwrap();
    let text = print_to_string(&m, &PrintOptions::default());
    assert!(text.contains("neg(@w)") && text.contains("state @s"), "{text}");
}

/// The range -1..2.984375 in 8 bits is covered exactly, by steps of 1/64: the limits are included.
#[test]
fn gradients_go_straight_through_a_quantiser_within_its_range() {
    let text = "gsir 1\nparam @a : f32[6] = dense(-1.2, -1.0000001, -1.0, 0.0078431373, 2.984375, 2.9843752)\n\
         state @r : f32[2] = dense(-1.0, 2.984375)\nconst @g : f32[6] = dense(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)\n\
         graph @train() -> (%loss : f32[]) {\n  %y = fake_quant(@a, @r) : f32[6]\n  %z = mul(%y, @g) : f32[6]\n  \
         %l = reduce_sum(%z) {keepdims = false} : f32[]\n  return %l\n}\n";
    let mut m = module(text);
    run_pipeline(&mut m, "grad").unwrap();
    let graph = train_graph(&m).unwrap();
    let out = Evaluator::new().run(&m, graph, &[], &[]).unwrap().results;
    assert_eq!(out[1].to_f64s().unwrap(), [0.0, 0.0, 3.0, 4.0, 5.0, 0.0]);
}

#[test]
fn weights_with_a_norm_folded_in_are_trained() {
    let mut m = module(
        "gsir 1\ndims N >= 1\nparam @w : f32[4, 3, 1, 1] = normal(seed 1, 0.0, 0.5)\nparam @g : f32[4] = splat(1.5)\n\
         param @b : f32[4] = splat(0.25)\nconst @m : f32[4] = splat(0.125)\nconst @v : f32[4] = splat(2.0)\n\
         graph @main(%x : f32[N, 3, 2, 2]) -> (%y : f32[N, 4]) {\n  \
         %0 = conv(%x, @w) : f32[N, 4, 2, 2] from \"conv\"\n  \
         %1 = batch_norm(%0, @g, @b, @m, @v) : f32[N, 4, 2, 2] from \"bn\"\n  \
         %2 = reduce_mean(%1) {axes = [2, 3], keepdims = false} : f32[N, 4] from \"mean\"\n  return %2\n}\n",
    );
    run_pipeline(&mut m, "fold-bn,loss,grad,update{lr=0.1}").unwrap();
    let train = train_graph(&m).unwrap();
    let stored: Vec<&str> = m.graph(train).updates().map(|(g, _)| m.str(m.global(g).name)).collect();
    // The weight, the bias, a momentum for each, the step.
    assert_eq!(stored.len(), 5, "{stored:?}");
}

#[test]
fn dropping_the_training_graph_leaves_the_network_and_no_other_state() {
    let mut m = module(
        "gsir 1\ndims N >= 1\nparam @w : f32[4, 3, 1, 1] = normal(seed 1, 0.0, 0.5)\nparam @g : f32[4] = splat(1.5)\n\
         param @b : f32[4] = splat(0.25)\nconst @m : f32[4] = splat(0.125)\nconst @v : f32[4] = splat(2.0)\n\
         state @r : f32[2] = dense(-1.0, 3.0)\n\
         graph @main(%x : f32[N, 3, 2, 2]) -> (%y : f32[N, 4]) {\n  \
         %q = fake_quant(%x, @r) : f32[N, 3, 2, 2] from \"q\"\n  \
         %0 = conv(%q, @w) : f32[N, 4, 2, 2] from \"conv\"\n  \
         %1 = batch_norm(%0, @g, @b, @m, @v) : f32[N, 4, 2, 2] from \"bn\"\n  \
         %2 = reduce_mean(%1) {axes = [2, 3], keepdims = false} : f32[N, 4] from \"mean\"\n  return %2\n}\n",
    );
    let before = print_to_string(&m, &PrintOptions::default());
    run_pipeline(&mut m, "loss,grad,update{lr=0.1}").unwrap();
    assert_ne!(print_to_string(&m, &PrintOptions::default()), before);
    gs_passes::training::drop_training(&mut m);
    verify(&m).unwrap();
    assert_eq!(print_to_string(&m, &PrintOptions::default()), before);
}

#[test]
fn groups_are_changed_in_their_own_way_and_kept_within_bounds() {
    let text = "gsir 1\nparam @w : f32[2] = dense(1.0, 2.0)\nparam @v : f32[2] = dense(1.0, 2.0)\nparam @u : f32[2] = dense(1.0, 2.0)\n\
         graph @train() -> (%loss : f32[]) {\n  %a = add(@w, @v) : f32[2]\n  %b = add(%a, @u) : f32[2]\n  \
         %l = reduce_sum(%b) {keepdims = false} : f32[]\n  return %l\n}\n";
    let mut m = module(text);
    let error = run_pipeline(&mut m, "grad,update{groups=[{params=[\"scale*\"]}]}").unwrap_err();
    assert!(error.contains("`scale*`") && error.contains("@w"), "{error}");
    // What an algorithm names may be behind an output that the loss is not of.
    let mut m = module(text);
    run_pipeline(&mut m, "grad,update{groups=[{params=[\"scale*\", v], lr=0.5, optional=true}]}").unwrap();
    for beta in ["beta1", "beta2"] {
        let error =
            run_pipeline(&mut module(text), &format!("grad,update{{optimiser={{adamw={{{beta}=1}}}}}}"));
        let error = error.unwrap_err();
        assert!(error.contains(&format!("`{beta}` = 1 must be at least 0 and below 1")), "{error}");
    }
    let mut m = module(text);
    // The gradient of each element is 1.
    let groups = "[{params=[v], lr=0.5, min=0.75, max=1.25}, {params=[\"u\"], optimiser={adamw={}}, weight_decay=0.5}]";
    run_pipeline(&mut m, &format!("grad,update{{lr=0.25,groups={groups}}}")).unwrap();
    let graph = train_graph(&m).unwrap();
    let updates = Evaluator::new().run(&m, graph, &[], &[]).unwrap().updates;
    let stored = |name: &str| {
        let (_, t) = updates.iter().find(|(g, _)| m.str(m.global(*g).name) == name).unwrap();
        t.to_f64s().unwrap()
    };
    assert_eq!(stored("w"), [0.75, 1.75]);
    assert_eq!(stored("v"), [0.75, 1.25]);
    // The first step of Adam is the rate, in the direction of the gradient; decay takes rate * 0.5 of the parameter.
    for (x, old) in stored("u").into_iter().zip([1.0, 2.0]) {
        assert!((x - (old - 0.25 - 0.25 * 0.5 * old)).abs() < 1e-6, "{x}");
    }
}

/// A layer of three classes over `[N, 4]`, with what is at its end.
fn classifier(end: &str, result: &str, shape: &str) -> Module {
    module(&format!(
        "gsir 1\ndims N >= 1\nparam @w : f32[4, 3] = uniform(seed 1, -1.0, 1.0)\n\
         graph @main(%x : f32[N, 4]) -> (%y : {shape}) {{\n  \
         %0 = gemm(%x, @w) : f32[N, 3] from \"fc\"\n{end}  return {result}\n}}\n"
    ))
}

/// The loss and its gradients on some samples, the notes of the pass `loss`, the module.
fn trained_once(mut m: Module, pipeline: &str) -> (Vec<Vec<f64>>, Vec<String>, Module) {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse(pipeline).unwrap();
    let report = manager.run(&pipeline, &mut m, &mut PassContext::default(), &mut |_| {}).unwrap();
    let graph = train_graph(&m).unwrap();
    let x: Vec<f64> = (0..20).map(|i| f64::from(i * 7 % 11) * 0.5 - 2.0).collect();
    let inputs = [
        Tensor::from_f64s(ElemType::F32, [5, 4], &x).unwrap(),
        Tensor::from_ints(ElemType::I64, [5], &[0, 1, 2, 1, 0]).unwrap(),
    ];
    let results = Evaluator::new().run(&m, graph, &inputs, &[]).unwrap().results;
    let names: Vec<String> = m.graph(graph).result_names().map(|n| m.str(n).to_owned()).collect();
    let wanted = |name: &String| name == "loss" || name.starts_with("grad.");
    let numbers = names.iter().zip(&results).filter(|(n, _)| wanted(n)).map(|(_, t)| t.to_f64s().unwrap());
    (numbers.collect(), report.notes, m)
}

/// Ends of a network that are a softmax over its classes: its last lines, its result.
const SOFTMAX_ENDS: &[(&str, &str)] = &[
    ("  %1 = softmax(%0) : f32[N, 3]\n", "%1"),
    ("  %1 = softmax(%0) {axis = 1, legacy = true} : f32[N, 3]\n", "%1"),
    ("  %1 = log_softmax(%0) {axis = 1} : f32[N, 3]\n", "%1"),
    ("  %1 = softmax(%0) : f32[N, 3]\n  %2 = identity(%1) : f32[N, 3]\n", "%2"),
    (
        "  %1 = reshape(%0) {shape = [0, 3, 1, 1]} : f32[N, 3, 1, 1]\n  \
         %2 = softmax(%1) {axis = 1} : f32[N, 3, 1, 1]\n  %3 = flatten(%2) : f32[N, 3]\n",
        "%3",
    ),
    (
        "  %1 = unsqueeze(%0) {axes = [1]} : f32[N, 1, 3]\n  %2 = softmax(%1) : f32[N, 1, 3]\n  \
         %3 = squeeze(%2) {axes = [1]} : f32[N, 3]\n",
        "%3",
    ),
];

#[test]
fn cross_entropy_is_of_logits_where_a_network_ends_in_a_softmax() {
    let (plain, notes, _) = trained_once(classifier("", "%0", "f32[N, 3]"), "loss,grad");
    assert!(notes.is_empty(), "{notes:?}");
    for (end, result) in SOFTMAX_ENDS {
        let before = classifier(end, result, "f32[N, 3]");
        let (found, notes, mut m) = trained_once(before.clone(), "loss,grad");
        assert_eq!(found, plain, "{end}");
        assert!(notes.len() == 1 && notes[0].contains("softmax") && notes[0].contains("`y`"), "{notes:?}");
        // What is evaluated and deployed ends as it did.
        gs_passes::training::drop_training(&mut m);
        let text = |m: &Module| print_to_string(m, &PrintOptions::default());
        assert_eq!(text(&m), text(&before));
    }
}

/// Over other axes, or of another part of the network, a softmax is a layer like others.
#[test]
fn a_softmax_that_is_not_over_the_classes_is_no_end() {
    let over_samples = classifier("  %1 = softmax(%0) {axis = 0} : f32[N, 3]\n", "%1", "f32[N, 3]");
    let (_, notes, m) = trained_once(over_samples, "loss");
    assert!(notes.is_empty(), "{notes:?}");
    assert!(print_to_string(&m, &PrintOptions::default()).contains("cross_entropy(%1, %labels)"));
    let shifted = "  %1 = softmax(%0) : f32[N, 3]\n  %2 = add(%1, %1) : f32[N, 3]\n";
    let (_, notes, _) = trained_once(classifier(shifted, "%2", "f32[N, 3]"), "loss");
    assert!(notes.is_empty(), "{notes:?}");
    // Three samples' classes in a row.
    let mixed = module(
        "gsir 1\nparam @w : f32[6] = splat(1.0)\ngraph @main(%x : f32[6]) -> (%y : f32[2, 3]) {\n  \
         %0 = mul(%x, @w) : f32[6]\n  %1 = reshape(%0) {shape = [1, 6]} : f32[1, 6]\n  \
         %2 = softmax(%1) : f32[1, 6]\n  %3 = reshape(%2) {shape = [2, 3]} : f32[2, 3]\n  return %3\n}\n",
    );
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let mut m = mixed;
    let report =
        manager.run(&Pipeline::parse("loss").unwrap(), &mut m, &mut PassContext::default(), &mut |_| {});
    assert!(report.unwrap().notes.is_empty());
}

#[test]
fn a_loss_that_does_not_fit_names_the_output() {
    let end = "  %1 = unsqueeze(%0) {axes = [2]} : f32[N, 3, 1]\n";
    let error = run_pipeline(&mut classifier(end, "%1", "f32[N, 3, 1]"), "loss").unwrap_err();
    for word in ["[batch, classes]", "`y`", "f32[N, 3, 1]"] {
        assert!(error.contains(word), "{error}");
    }
    let end = "  %1 = reduce_sum(%0) {axes = [1]} : f32[N, 1]\n";
    let error = run_pipeline(&mut classifier(end, "%1", "f32[N, 1]"), "loss").unwrap_err();
    assert!(error.contains("`y` is one number for each sample"), "{error}");
}

#[test]
fn networks_with_nothing_to_train_are_told_apart() {
    let none = "gsir 1\nconst @c : f32[3] = splat(1.0)\ngraph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {\n  \
                %0 = mul(%x, @c) : f32[2, 3]\n  return %0\n}\n";
    let error = run_pipeline(&mut module(none), "loss,grad").unwrap_err();
    assert!(error.contains("no parameters to train"), "{error}");
    let apart = "gsir 1\nparam @w : f32[3] = splat(1.0)\n\
                 graph @main(%x : f32[2, 3]) -> (%y : f32[2, 3], %z : f32[2, 3]) {\n  \
                 %0 = neg(%x) : f32[2, 3]\n  %1 = mul(%x, @w) : f32[2, 3]\n  return %0, %1\n}\n";
    let error = run_pipeline(&mut module(apart), "loss,grad").unwrap_err();
    assert!(error.contains("depends on none of the 1 parameters (such as @w)"), "{error}");
}

#[test]
fn why_a_gradient_rule_does_not_apply_is_said_in_full() {
    let text = "gsir 1\nparam @w : f32[3] = splat(1.0)\ngraph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {\n  \
                %0 = mul(%x, @w) : f32[2, 3]\n  %1 = softmax(%0) {axis = 0, legacy = true} : f32[2, 3] from \"prob\"\n  \
                %2 = neg(%1) : f32[2, 3]\n  return %2\n}\n";
    let error = run_pipeline(&mut module(text), "loss,grad").unwrap_err();
    assert!(error.contains("`holds` holds, and must not (holds(attr($s, legacy)))"), "{error}");
}
