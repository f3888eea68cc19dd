//! Training steps against the reference evaluator: loss, results and everything that is stored.

use super::common::{module, runtime};
use gs_eval::{Evaluator, Executor, Plan, RunOutput, Tensor, TensorSpec};
use gs_ir::{GlobalId, GraphId, Module};
use gs_kernels::Kernels;
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_passes::training::train_graph;
use gs_runtime::Runtime;

/// Numbers without pattern, the same each time, from -1 to 1.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as f64 / f64::from(1u32 << 31)) * 2.0 - 1.0
    }

    fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| self.next() as f32).collect();
        Tensor::f32s(dims, values).expect("a tensor")
    }
}

/// A network with its training graph.
fn trained(text: &str, pipeline: &str) -> (Module, GraphId) {
    let mut module = module(text);
    train(&mut module, pipeline);
    let graph = train_graph(&module).expect("@train");
    (module, graph)
}

fn train(module: &mut Module, pipeline: &str) {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    gs_algos::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse(pipeline).expect("a pipeline");
    manager.run(&pipeline, module, &mut PassContext::default(), &mut |_| {}).expect("a training graph");
}

/// Extents of a parameter list such as `2,3,4`.
fn dims(text: &str) -> Vec<usize> {
    text.split(',').filter(|d| !d.is_empty()).map(|d| d.parse().expect("a number")).collect()
}

/// `param` lines; a `+` before the extents asks for positive numbers, which the contents of [`contents`] obey; ranges are such.
fn params(list: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, extents) in list {
        let role = match name {
            n if n.starts_with("stat") => "const",
            n if n.starts_with("range") => "state",
            _ => "param",
        };
        let all = extents.trim_start_matches('+').replace(',', ", ");
        out.push_str(&format!("{role} @{name} : f32[{all}] = splat(0.0)\n"));
    }
    out
}

fn contents(module: &Module, list: &[(&str, &str)]) -> Vec<(GlobalId, Tensor)> {
    let dice = &mut Dice(7);
    let one = |&(name, extents): &(&str, &str)| {
        let global = module.global_named(name).expect("a parameter");
        let mut tensor = dice.tensor(&dims(extents.trim_start_matches('+')));
        if extents.starts_with('+') {
            let v: Vec<f32> = tensor.as_f32().unwrap().iter().map(|v| v.abs() + 0.3).collect();
            tensor = Tensor::f32s(tensor.dims().to_vec(), v).unwrap();
        }
        if name.starts_with("range") {
            let half = tensor.len() / 2;
            let bound = |(i, v): (usize, &f32)| if i < half { -v.abs() } else { 2.0 * v.abs() + 0.2 };
            let v: Vec<f32> = tensor.as_f32().unwrap().iter().enumerate().map(bound).collect();
            tensor = Tensor::f32s(tensor.dims().to_vec(), v).unwrap();
        }
        (global, tensor)
    };
    list.iter().map(one).collect()
}

fn close(got: &Tensor, want: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    assert_eq!(got.elem(), want.elem(), "{what}");
    let (got, want) = (got.to_f64s().unwrap(), want.to_f64s().unwrap());
    let size = want.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= tolerance * size, "{what}[{i}]: {g} for {w} (largest {size})");
    }
}

fn same(got: &RunOutput, want: &RunOutput, module: &Module, tolerance: f64, what: &str) {
    assert_eq!(got.results.len(), want.results.len());
    for (i, (a, b)) in got.results.iter().zip(&want.results).enumerate() {
        close(a, b, tolerance, &format!("{what}: result {i}"));
    }
    assert_eq!(got.updates.len(), want.updates.len());
    for ((g, a), (h, b)) in got.updates.iter().zip(&want.updates) {
        assert_eq!(g, h);
        close(a, b, tolerance, &format!("{what}: @{}", module.str(module.global(*g).name)));
    }
}

fn inputs(x: &[usize], classes: usize, seed: u64) -> Vec<Tensor> {
    let dice = &mut Dice(seed);
    let image = dice.tensor(x);
    let labels: Vec<i64> = (0..x[0]).map(|_| ((dice.next() + 1.0) * 0.5 * classes as f64) as i64).collect();
    vec![image, Tensor::i64s([x[0]], labels.iter().map(|l| l % classes as i64).collect::<Vec<_>>()).unwrap()]
}

/// Three steps of a network, in the runtime's planned executor and step by step in the reference. Where a value lies between two
/// codes of a quantiser, or at a relu's zero, the order of a sum decides; these inputs have no such value.
fn check(text: &str, list: &[(&str, &str)], pipeline: &str, x: &[usize], classes: usize) {
    let (module, graph) = trained(&format!("dims N >= 1\n{}{text}", params(list)), pipeline);
    let start = contents(&module, list);
    let evaluator = Evaluator::new();
    let batches: Vec<Vec<Tensor>> = (0..3).map(|i| inputs(x, classes, 100 + i)).collect();
    let specs: Vec<TensorSpec> = batches[0].iter().map(TensorSpec::of).collect();
    let mut reference = evaluator.prepare(&module, graph, &specs, &[]).unwrap();
    reference.set_globals(&start).unwrap();
    let mut wanted = Vec::new();
    for batch in &batches {
        let output = reference.run(batch, &mut |_, _| {}).unwrap();
        reference.set_globals(&output.updates).unwrap();
        wanted.push(output);
    }
    // As a plan for inference runs it.
    let fast = runtime(2);
    let mut plan = fast.plan(&module, graph, &specs, &[]).unwrap();
    plan.set_globals(&start).unwrap();
    for (batch, want) in batches.iter().zip(&wanted) {
        let output = plan.run(batch, &mut |_, _| {}).unwrap();
        plan.set_globals(&output.updates).unwrap();
        same(&output, want, &module, 2e-4, "inference plan");
    }
    // As a training plan runs it, with every instruction set and several numbers of threads.
    for kernels in Kernels::all() {
        let mut first: Option<RunOutput> = None;
        for threads in [1, 2, 3] {
            let fast = Runtime::with_kernels(Some(threads), kernels).unwrap();
            let mut plan = fast.train_plan(&module, graph, &specs, &[]).unwrap();
            let slow: Vec<&str> = plan.fallbacks().iter().map(|&op| module.op_name(op)).collect();
            // The step counter, the rate.
            assert_eq!(slow, ["add", "schedule"], "left to the evaluator");
            plan.set_globals(&start).unwrap();
            let mut last = None;
            for (batch, want) in batches.iter().zip(&wanted) {
                let results = plan.step(batch).unwrap().results;
                let output = RunOutput { results, taps: Vec::new(), updates: plan.stored().unwrap() };
                same(&output, want, &module, 2e-4, kernels.isa().name());
                last = Some(output);
            }
            let last = last.unwrap();
            let global = plan.updated().next().unwrap();
            assert!(plan.global(global).unwrap().same_bits(&last.updates[0].1));
            match &first {
                None => first = Some(last),
                Some(first) => {
                    let bits = |a: &RunOutput, b: &RunOutput| {
                        a.updates.iter().zip(&b.updates).all(|(a, b)| a.1.same_bits(&b.1))
                            && a.results.iter().zip(&b.results).all(|(a, b)| a.same_bits(b))
                    };
                    assert!(bits(first, &last), "{} threads give other bits", threads);
                }
            }
        }
    }
}

const SGD: &str = "loss{label_smoothing=0.1},grad,update{lr=0.05, weight_decay=0.01}";

#[test]
fn a_step_of_a_small_network_is_that_of_the_reference() {
    let list = [
        ("w1", "5,3,3,3"),
        ("g1", "+5"),
        ("b1", "5"),
        ("stat_m1", "5"),
        ("stat_v1", "+5"),
        ("w2", "18,5,3,3"),
        ("c2", "18"),
        ("g2", "+18"),
        ("b2", "18"),
        ("stat_m2", "18"),
        ("stat_v2", "+18"),
        ("w3", "7,18"),
        ("c3", "7"),
    ];
    let text = "graph @main(%x : f32[N, 3, 9, 7]) -> (%logits : f32[N, 7]) {\n\
        %1 = conv(%x, @w1) {pads = [1, 1, 1, 1]}\n\
        %2 = batch_norm(%1, @g1, @b1, @stat_m1, @stat_v1)\n\
        %3 = relu(%2)\n\
        %4 = conv(%3, @w2, @c2) {pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %5 = batch_norm(%4, @g2, @b2, @stat_m2, @stat_v2)\n\
        %6 = relu(%5)\n\
        %7 = global_average_pool(%6)\n\
        %8 = flatten(%7)\n\
        %logits = gemm(%8, @w3, @c3) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, SGD, &[5, 3, 9, 7], 7);
    check(text, &list, SGD, &[18, 3, 9, 7], 7);
}

/// A flag says whether the running statistics are used, in the forward and in the backward pass.
#[test]
fn frozen_batch_normalisation_uses_what_it_has() {
    let list = [
        ("w1", "20,3,3,3"),
        ("g1", "20"),
        ("b1", "20"),
        ("stat_m1", "20"),
        ("stat_v1", "+20"),
        ("w3", "7,20"),
        ("c3", "7"),
    ];
    for flag in ["true", "false"] {
        let text = format!(
            "const @frozen : bool[] = dense({flag})\n\
             graph @main(%x : f32[N, 3, 9, 7]) -> (%logits : f32[N, 7]) {{\n\
             %1 = conv(%x, @w1) {{pads = [1, 1, 1, 1]}}\n\
             %2, %m, %v, %b, %i = batch_norm_train(%1, @g1, @b1, @stat_m1, @stat_v1, @frozen)\n\
             %3 = relu(%2)\n\
             %7 = global_average_pool(%3)\n\
             %8 = flatten(%7)\n\
             %logits = gemm(%8, @w3, @c3) {{trans_b = true}}\n\
             return %logits\n}}\n"
        );
        check(&text, &list, SGD, &[5, 3, 9, 7], 7);
    }
}

#[test]
fn residual_networks_train_with_both_kinds_of_shortcuts() {
    let list = [
        ("w1", "16,3,3,3"),
        ("g1", "+16"),
        ("b1", "16"),
        ("stat_m1", "16"),
        ("stat_v1", "+16"),
        ("w2", "16,16,3,3"),
        ("g2", "+16"),
        ("b2", "16"),
        ("stat_m2", "16"),
        ("stat_v2", "+16"),
        ("w3", "32,16,3,3"),
        ("g3", "+32"),
        ("b3", "32"),
        ("stat_m3", "32"),
        ("stat_v3", "+32"),
        ("w4", "32,32,1,1"),
        ("g4", "+32"),
        ("b4", "32"),
        ("stat_m4", "32"),
        ("stat_v4", "+32"),
        ("w5", "6,32"),
        ("c5", "6"),
    ];
    let text = "graph @main(%x : f32[N, 3, 8, 8]) -> (%logits : f32[N, 6]) {\n\
        %1 = conv(%x, @w1) {pads = [1, 1, 1, 1]}\n\
        %2 = batch_norm(%1, @g1, @b1, @stat_m1, @stat_v1)\n\
        %3 = relu(%2)\n\
        %4 = conv(%3, @w2) {pads = [1, 1, 1, 1]}\n\
        %5 = batch_norm(%4, @g2, @b2, @stat_m2, @stat_v2)\n\
        %6 = add(%5, %3)\n\
        %7 = relu(%6)\n\
        %8 = conv(%7, @w3) {pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %9 = batch_norm(%8, @g3, @b3, @stat_m3, @stat_v3)\n\
        %s = slice(%7) {axes = [2, 3], ends = [2147483647, 2147483647], starts = [0, 0], steps = [2, 2]}\n\
        %p = pad(%s) {pads = [0, 8, 0, 0, 0, 8, 0, 0]}\n\
        %10 = add(%9, %p)\n\
        %11 = relu(%10)\n\
        %12 = conv(%11, @w4) {strides = [2, 2]}\n\
        %13 = batch_norm(%12, @g4, @b4, @stat_m4, @stat_v4)\n\
        %q = max_pool(%11) {kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %14 = add(%q, %13)\n\
        %15 = relu(%14)\n\
        %16 = average_pool(%15) {kernel_shape = [2, 2]}\n\
        %17 = flatten(%16)\n\
        %logits = gemm(%17, @w5, @c5) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, SGD, &[17, 3, 8, 8], 6);
}

#[test]
fn groups_dilations_and_what_has_no_kernel_train_too() {
    let list = [("w1", "6,2,3,3"), ("c1", "6"), ("w2", "6,1,3,2"), ("w3", "5,6,2,2"), ("w4", "4,45")];
    let text = "graph @main(%x : f32[N, 4, 9, 8]) -> (%logits : f32[N, 4]) {\n\
        %1 = conv(%x, @w1, @c1) {group = 2, pads = [1, 1, 1, 1]}\n\
        %2 = sigmoid(%1)\n\
        %3 = conv(%2, @w2) {group = 6, pads = [0, 1, 2, 0], strides = [2, 1]}\n\
        %4 = clip(%3) {min = -0.4, max = 0.9}\n\
        %5 = conv(%4, @w3) {dilations = [2, 3], strides = [1, 2], pads = [1, 1, 1, 3]}\n\
        %6 = average_pool(%5) {kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], count_include_pad = true}\n\
        %t = tanh(%6)\n\
        %7 = flatten(%t)\n\
        %logits = gemm(%7, @w4) {trans_b = true, alpha = 0.5}\n\
        return %logits\n}\n";
    check(text, &list, SGD, &[3, 4, 9, 8], 4);
    check(text, &list, "loss,grad,update{lr=0.01, optimiser={adamw={}}}", &[3, 4, 9, 8], 4);
}

#[test]
fn mobile_networks_train() {
    let list = [
        ("w1", "20,3,3,3"),
        ("w2", "20,1,3,3"),
        ("g2", "+20"),
        ("b2", "20"),
        ("stat_m2", "20"),
        ("stat_v2", "+20"),
        ("w3", "33,20,1,1"),
        ("w4", "33,1,5,3"),
        ("w5", "3,33"),
    ];
    let text = "graph @main(%x : f32[N, 3, 9, 11]) -> (%logits : f32[N, 3]) {\n\
        %1 = conv(%x, @w1) {pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %2 = clip(%1) {min = 0.0, max = 1.5}\n\
        %3 = conv(%2, @w2) {group = 20, pads = [1, 1, 1, 1]}\n\
        %4 = batch_norm(%3, @g2, @b2, @stat_m2, @stat_v2)\n\
        %5 = clip(%4) {min = 0.0, max = 6.0}\n\
        %6 = conv(%5, @w3)\n\
        %7 = conv(%6, @w4) {group = 33, pads = [2, 1, 2, 1], strides = [2, 2]}\n\
        %8 = tanh(%7)\n\
        %9 = sub(%8, %7)\n\
        %10 = reduce_mean(%9) {axes = [2, 3], keepdims = false}\n\
        %logits = gemm(%10, @w5) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, SGD, &[6, 3, 9, 11], 3);
}

const QAT: &str = "loss,observe{decay=0.75},grad,update{lr=0.05, weight_decay=0.01}";

/// A network with quantisers: on the image, behind relu, behind a normalisation before an addition, behind the addition with
/// and without relu, behind a pooling and on logits; on weights per channel and per tensor.
#[test]
fn networks_with_quantisers_train() {
    let list = [
        ("w1", "7,3,3,3"),
        ("g1", "+7"),
        ("b1", "7"),
        ("stat_m1", "7"),
        ("stat_v1", "+7"),
        ("w2", "7,7,3,3"),
        ("g2", "+7"),
        ("b2", "7"),
        ("stat_m2", "7"),
        ("stat_v2", "+7"),
        ("w3", "16,7,3,3"),
        ("c3", "16"),
        ("w4", "5,16"),
        ("range_x", "2"),
        ("range_w1", "2,7"),
        ("range_1", "2"),
        ("range_w2", "2,3"),
        ("range_2", "2"),
        ("range_3", "2"),
        ("range_w3", "2,7"),
        ("range_4", "2"),
        ("range_5", "2"),
        ("range_w4", "2"),
        ("range_6", "2"),
    ];
    let text = "graph @main(%x : f32[N, 3, 8, 8]) -> (%logits : f32[N, 5]) {\n\
        %0 = fake_quant(%x, @range_x)\n\
        %u1 = fake_quant(@w1, @range_w1) {axis = 0, narrow = true, signed = true, symmetric = true}\n\
        %1 = conv(%0, %u1) {pads = [1, 1, 1, 1]}\n\
        %2 = batch_norm(%1, @g1, @b1, @stat_m1, @stat_v1)\n\
        %3 = relu(%2)\n\
        %4 = fake_quant(%3, @range_1) {bits = 4}\n\
        %u2 = fake_quant(@w2, @range_w2) {axis = 3, bits = 5, signed = true}\n\
        %5 = conv(%4, %u2) {pads = [1, 1, 1, 1]}\n\
        %6 = batch_norm(%5, @g2, @b2, @stat_m2, @stat_v2)\n\
        %7 = fake_quant(%6, @range_2) {symmetric = true, signed = true}\n\
        %8 = add(%7, %4)\n\
        %9 = relu(%8)\n\
        %10 = fake_quant(%9, @range_3) {bits = 3}\n\
        %u3 = fake_quant(@w3, @range_w3) {axis = 1, signed = true}\n\
        %11 = conv(%10, %u3, @c3) {pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %12 = clip(%11) {min = 0.0, max = 6.0}\n\
        %13 = fake_quant(%12, @range_4)\n\
        %14 = global_average_pool(%13)\n\
        %15 = fake_quant(%14, @range_5)\n\
        %16 = flatten(%15)\n\
        %u4 = fake_quant(@w4, @range_w4) {symmetric = true, signed = true}\n\
        %17 = gemm(%16, %u4) {trans_b = true}\n\
        %logits = fake_quant(%17, @range_6)\n\
        return %logits\n}\n";
    check(text, &list, QAT, &[5, 3, 8, 8], 5);
    check(text, &list, QAT, &[34, 3, 8, 8], 5);
}

/// The choice whether a range still follows stands between watching it and rounding: neither costs a pass of its own.
#[test]
fn watching_and_rounding_join_what_makes_a_value() {
    let mut module = module(
        "dims N >= 1\nparam @w1 : f32[8, 3, 3, 3] = uniform(seed 1, -0.5, 0.5)\nparam @w2 : f32[8, 8, 3, 3] = uniform(seed 2, -0.5, 0.5)\n\
         param @g : f32[8] = splat(1.0)\nparam @b : f32[8] = splat(0.0)\nconst @m : f32[8] = splat(0.0)\nconst @v : f32[8] = splat(1.0)\n\
         graph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 8]) {\n\
         %1 = conv(%x, @w1) {pads = [1, 1, 1, 1]}\n\
         %2 = batch_norm(%1, @g, @b, @m, @v)\n\
         %3 = relu(%2)\n\
         %4 = conv(%3, @w2) {pads = [1, 1, 1, 1]}\n\
         %5 = add(%4, %3)\n\
         %6 = relu(%5)\n\
         %7 = global_average_pool(%6)\n\
         %8 = flatten(%7)\n\
         return %8\n}\n",
    );
    let algorithm = (gs_algos::algorithm::find("simqat").unwrap().make)(&serde_json::Map::new()).unwrap();
    algorithm.apply(&mut module, &mut PassContext::default()).unwrap();
    train(&mut module, "loss");
    let length = gs_algos::algorithm::RunLength { steps: 100, steps_per_epoch: 10 };
    algorithm.prepare_training(&mut module, length).unwrap();
    train(&mut module, "grad,update");
    let graph = train_graph(&module).unwrap();
    assert!(module.ops_in(graph).any(|op| module.is(op, "where")), "no range stops to follow");
    let batch = inputs(&[3, 3, 8, 8], 8, 1);
    let specs: Vec<TensorSpec> = batch.iter().map(TensorSpec::of).collect();
    let fast = runtime(1);
    let mut plan = fast.train_plan(&module, graph, &specs, &[]).unwrap();
    let spent = plan.profile(&batch).unwrap().1;
    let times = |what: &str| spent.iter().filter(|s| s.what == what).count();
    assert_eq!(times("range"), 0);
    assert_eq!(times("sum, scale, limit"), 0);
    assert!(times("sum, scale, limit, round, range") >= 4, "{spent:?}");
}

/// What a learned step needs on the way back is made once more, where it was no value of its own.
#[test]
fn values_before_learned_quantisers_are_made_once_more() {
    let list = [
        ("w1", "4,3,3,3"),
        ("g1", "+4"),
        ("b1", "4"),
        ("stat_m1", "4"),
        ("stat_v1", "+4"),
        ("w2", "5,4,1,1"),
        ("step_1", "+"),
    ];
    let text = "graph @main(%x : f32[N, 3, 6, 6]) -> (%logits : f32[N, 5]) {\n\
        %1 = conv(%x, @w1) {pads = [1, 1, 1, 1]}\n\
        %2 = batch_norm(%1, @g1, @b1, @stat_m1, @stat_v1)\n\
        %3 = relu(%2)\n\
        %4 = lsq(%3, @step_1) {signed = false, samples = true}\n\
        %5 = conv(%4, @w2)\n\
        %6 = global_average_pool(%5)\n\
        %logits = flatten(%6)\n\
        return %logits\n}\n";
    check(text, &list, "loss,grad,update{lr=0.01}", &[5, 3, 6, 6], 5);
    let (module, graph) =
        trained(&format!("dims N >= 1\n{}{text}", params(&list)), "loss,grad,update{lr=0.01}");
    let batch = inputs(&[5, 3, 6, 6], 5, 1);
    let specs: Vec<TensorSpec> = batch.iter().map(TensorSpec::of).collect();
    let fast = runtime(1);
    let mut plan = fast.train_plan(&module, graph, &specs, &[]).unwrap();
    let spent = plan.profile(&batch).unwrap().1;
    let times = |what: &str| spent.iter().filter(|s| s.what == what).count();
    assert_eq!((times("sum, scale, limit, round, range"), times("sum, scale, limit")), (1, 1), "{spent:?}");
}

/// Learned steps and clips, on activations and on weights; one step is of a value without relu, one has two gradients.
#[test]
fn networks_with_learned_quantisers_train() {
    let list = [
        ("w1", "7,3,3,3"),
        ("g1", "+7"),
        ("b1", "7"),
        ("stat_m1", "7"),
        ("stat_v1", "+7"),
        ("w2", "7,7,3,3"),
        ("w3", "16,7,3,3"),
        ("w4", "5,16"),
        ("step_x", "+"),
        ("step_w1", "+7"),
        ("step_1", "+"),
        ("step_w2", "+"),
        ("step_2", "+"),
        ("clip_3", "+"),
        ("clip_4", "+"),
        ("step_w4", "+"),
    ];
    let text = "graph @main(%x : f32[N, 3, 8, 8]) -> (%logits : f32[N, 5]) {\n\
        %0 = lsq(%x, @step_x) {bits = 8}\n\
        %u1 = lsq(@w1, @step_w1) {axis = 0, bits = 3}\n\
        %1 = conv(%0, %u1) {pads = [1, 1, 1, 1]}\n\
        %2 = batch_norm(%1, @g1, @b1, @stat_m1, @stat_v1)\n\
        %3 = relu(%2)\n\
        %4 = lsq(%3, @step_1) {bits = 3, samples = true, signed = false}\n\
        %u2 = lsq(@w2, @step_w2) {bits = 2}\n\
        %5 = conv(%4, %u2) {pads = [1, 1, 1, 1]}\n\
        %6 = lsq(%5, @step_2) {samples = true}\n\
        %7 = add(%6, %4)\n\
        %8 = relu(%7)\n\
        %9 = pact(%8, @clip_3)\n\
        %10 = conv(%9, @w3) {pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %11 = pact(%10, @clip_4) {bits = 3, signed = true}\n\
        %12 = global_average_pool(%11)\n\
        %13 = flatten(%12)\n\
        %u4 = lsq(@w4, @step_w4) {grad_scale = false}\n\
        %logits = gemm(%13, %u4) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, "loss,grad,update{lr=0.01}", &[5, 3, 8, 8], 5);
    check(text, &list, "loss,grad,update{lr=0.01}", &[34, 3, 8, 8], 5);
}

/// Weights that are squeezed, or chosen among levels softly or for good; a value that is rounded or not as a truth value says.
#[test]
fn networks_with_weights_on_levels_train() {
    let list = [
        ("w1", "7,3,3,3"),
        ("scale_1", "+7"),
        ("l2", "9,7,3,3,4"),
        ("scale_2", "+9"),
        ("l3", "16,9,1,1,16"),
        ("scale_3", "+"),
        ("w4", "5,16"),
        ("scale_4", "+"),
        ("l5", "5,5,2"),
        ("scale_5", "+"),
        ("step_3", "+"),
    ];
    let text = "const @tau : f32[] = splat(3.0)\nconst @no : bool[] = splat(false)\nconst @yes : bool[] = splat(true)\n\
        graph @main(%x : f32[N, 3, 8, 8]) -> (%logits : f32[N, 5]) {\n\
        %u1 = dorefa(@w1, @scale_1) {axis = 0, bits = 3}\n\
        %1 = conv(%x, %u1) {pads = [1, 1, 1, 1]}\n\
        %2 = relu(%1)\n\
        %3 = lsq(%2, @step_3) {signed = false}\n\
        %4 = where(@no, %2, %3)\n\
        %u2 = slb_train(@l2, @scale_2, @tau, @no) {axis = 0}\n\
        %5 = conv(%4, %u2) {pads = [1, 1, 1, 1], strides = [2, 2]}\n\
        %u3 = slb_train(@l3, @scale_3, @tau, @yes) {bits = 4}\n\
        %6 = conv(%5, %u3)\n\
        %7 = relu(%6)\n\
        %8 = global_average_pool(%7)\n\
        %9 = flatten(%8)\n\
        %u4 = dorefa(@w4, @scale_4) {bits = 1}\n\
        %10 = gemm(%9, %u4) {trans_b = true}\n\
        %u5 = slb_train(@l5, @scale_5, @tau, @yes) {bits = 1, hard_phase = \"frozen\"}\n\
        %logits = gemm(%10, %u5) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, "loss,grad,canonicalize,update{lr=0.01}", &[5, 3, 8, 8], 5);
}

/// Quantisers that cannot join what makes their operand: others read it too, or several quantisers share it.
#[test]
fn values_that_are_read_unrounded_too_train() {
    let list = [
        ("w1", "4,2,3,3"),
        ("g1", "+4"),
        ("b1", "4"),
        ("stat_m1", "4"),
        ("stat_v1", "+4"),
        ("w2", "4,4,1,1"),
        ("w3", "3,4"),
        ("range_1", "2"),
        ("range_2", "2"),
        ("range_w", "2"),
    ];
    let text = "graph @main(%x : f32[N, 2, 6, 5]) -> (%logits : f32[N, 3]) {\n\
        %1 = conv(%x, @w1) {pads = [1, 1, 1, 1]}\n\
        %2 = batch_norm(%1, @g1, @b1, @stat_m1, @stat_v1)\n\
        %3 = relu(%2)\n\
        %4 = fake_quant(%3, @range_1) {bits = 4}\n\
        %5 = fake_quant(%3, @range_2) {bits = 2, signed = true, symmetric = true}\n\
        %u = fake_quant(@w2, @range_w) {bits = 4, signed = true}\n\
        %6 = conv(%4, %u)\n\
        %7 = conv(%5, %u)\n\
        %8 = add(%6, %7)\n\
        %9 = fake_quant(%8, @range_2) {bits = 2, signed = true, symmetric = true}\n\
        %10 = add(%9, %3)\n\
        %11 = relu(%10)\n\
        %12 = global_average_pool(%11)\n\
        %13 = flatten(%12)\n\
        %14 = gemm(%13, @w3) {trans_b = true}\n\
        %logits = tanh(%14)\n\
        return %logits\n}\n";
    check(text, &list, QAT, &[5, 2, 6, 5], 3);
    check(text, &list, "loss,grad,update{lr=0.05}", &[5, 2, 6, 5], 3);
}

#[test]
fn a_label_that_is_no_class_is_an_error_and_the_plan_goes_on() {
    let list = [("w", "4,6")];
    let text = "graph @main(%x : f32[N, 6]) -> (%logits : f32[N, 4]) {\n\
        %logits = gemm(%x, @w) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, SGD, &[3, 6], 4);
    let (module, graph) = trained(&format!("dims N >= 1\n{}{text}", params(&list)), SGD);
    let mut batch = inputs(&[3, 6], 4, 1);
    let specs: Vec<TensorSpec> = batch.iter().map(TensorSpec::of).collect();
    let fast = runtime(2);
    let mut plan = fast.train_plan(&module, graph, &specs, &[]).unwrap();
    batch[1] = Tensor::i64s([3], [0, 4, 1]).unwrap();
    let error = plan.step(&batch).unwrap_err().to_string();
    assert!(error.contains("label 4 is no class"), "{error}");
    batch[1] = Tensor::i64s([3], [0, 3, 1]).unwrap();
    plan.step(&batch).unwrap();
    assert!(plan.step(&batch[..1]).is_err());
}

#[test]
fn constants_that_kernels_were_made_from_can_be_changed_and_values_be_watched() {
    let list = [("w", "6,3,3,3"), ("v", "4,6"), ("stat_gain", "6,1,1")];
    let text = "graph @main(%x : f32[N, 3, 5, 5]) -> (%logits : f32[N, 4]) {\n\
        %1 = conv(%x, @w)\n\
        %2 = mul(%1, @stat_gain)\n\
        %3 = relu(%2)\n\
        %4 = global_average_pool(%3)\n\
        %5 = flatten(%4)\n\
        %logits = gemm(%5, @v) {trans_b = true}\n\
        return %logits\n}\n";
    check(text, &list, SGD, &[5, 3, 5, 5], 4);
    let (module, graph) = trained(&format!("dims N >= 1\n{}{text}", params(&list)), SGD);
    let start = contents(&module, &list);
    let batch = inputs(&[5, 3, 5, 5], 4, 9);
    let specs: Vec<TensorSpec> = batch.iter().map(TensorSpec::of).collect();
    let watched: Vec<gs_ir::ValueId> =
        module.ops_in(graph).filter(|&op| module.is(op, "relu")).map(|op| module.op(op).result()).collect();
    let mut reference = Evaluator::new().run(&module, graph, &batch, &watched).unwrap();
    let fast = runtime(2);
    let mut plan = fast.train_plan(&module, graph, &specs, &watched).unwrap();
    let initial = plan.stored().unwrap();
    let before = plan.step(&batch).unwrap();
    close(&before.taps[0], &reference.taps[0], 1e-5, "watched");
    // Back to the beginning, as from a checkpoint.
    plan.set_globals(&initial).unwrap();
    plan.set_globals(&start).unwrap();
    let evaluator = Evaluator::new();
    let mut slow = evaluator.prepare(&module, graph, &specs, &watched).unwrap();
    slow.set_globals(&start).unwrap();
    let mut seen = None;
    reference = slow.run(&batch, &mut |_, view| seen = view.to_tensor().ok()).unwrap();
    let after = plan.step(&batch).unwrap();
    close(&after.taps[0], &seen.unwrap(), 1e-5, "watched");
    let output = RunOutput { results: after.results, taps: Vec::new(), updates: plan.stored().unwrap() };
    same(&output, &reference, &module, 2e-4, "other constants");
}

#[test]
fn a_step_of_resnet20_is_that_of_the_reference() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/resnet_cifar10/resnet20_bn.onnx");
    let mut module = gs_onnx::import_file(std::path::Path::new(file), &gs_ir::Registry::builtin()).unwrap();
    train(&mut module, "loss,grad,update{lr=0.01, weight_decay=0.0001}");
    let graph = train_graph(&module).unwrap();
    let batch = inputs(&[3, 3, 32, 32], 10, 5);
    let specs: Vec<TensorSpec> = batch.iter().map(TensorSpec::of).collect();
    let want = Evaluator::new().run(&module, graph, &batch, &[]).unwrap();
    let fast = runtime(2);
    let mut plan = fast.train_plan(&module, graph, &specs, &[]).unwrap();
    let convolutions = plan.fallbacks().iter().filter(|&&op| module.op_name(op).starts_with("conv")).count();
    assert_eq!(convolutions, 0);
    let results = plan.step(&batch).unwrap().results;
    let got = RunOutput { results, taps: Vec::new(), updates: plan.stored().unwrap() };
    same(&got, &want, &module, 1e-4, "resnet20");
}
