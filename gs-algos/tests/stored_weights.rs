//! Networks whose weights are stored as integers, with a `dequantize` behind each: every algorithm makes of them what it
//! makes of the same network with floats, and refuses those whose activations are quantised too.

use gs_algos::algorithm::{Algorithm, find};
use gs_eval::random::unit;
use gs_eval::{DataSource, Evaluator, Executor, InMemory, Tensor};
use gs_ir::{Module, Phase, Registry, Role, infer_module, verify};
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_text::{PrintOptions, SourceMap, Style, print_to_string};
use std::collections::BTreeMap;

const ALGORITHMS: [&str; 6] =
    ["simqat", "simqat{weight={bits=4, per_channel=false}}", "lsq", "pact", "slb{bits=2}", "slb{bits=1}"];

fn codes(count: usize) -> Vec<i8> {
    (0..count).map(|i| (i * 37 % 255) as i8).collect()
}

fn dense<T: std::fmt::Debug>(values: &[T]) -> String {
    let words: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("dense({})", words.join(", "))
}

/// Three layers: weights with a scale for each channel, one scale and a zero point, and floats.
fn network(stored: bool) -> Module {
    let (a, b, scales, scale, zero) =
        (codes(108), codes(144), [0.002f32, 0.004, 0.001, 0.003], 0.003f32, 5i8);
    let floats = |codes: &[i8], of: &dyn Fn(usize) -> (f32, i8)| {
        let values = codes.iter().enumerate().map(|(i, &c)| {
            let (scale, zero) = of(i);
            (i32::from(c) - i32::from(zero)) as f32 * scale
        });
        dense(&values.collect::<Vec<f32>>())
    };
    let (weights, first, wa, wb) = if stored {
        let weights = format!(
            "const @a.q : i8[4, 3, 3, 3] = {}\nconst @a.s : f32[4] = {}\nconst @b.q : i8[4, 4, 3, 3] = {}\n\
             const @b.s : f32[] = {scale:?}\nconst @b.z : i8[] = {zero}\n",
            dense(&a),
            dense(&scales),
            dense(&b)
        );
        let first = "  %wa = dequantize(@a.q, @a.s) {axis = 0} : f32[4, 3, 3, 3] from \"a.dq\"\n  \
                     %wb = dequantize(@b.q, @b.s, @b.z) : f32[4, 4, 3, 3] from \"b.dq\"\n";
        (weights, first, "%wa", "%wb")
    } else {
        let weights = format!(
            "param @wa : f32[4, 3, 3, 3] = {}\nparam @wb : f32[4, 4, 3, 3] = {}\n",
            floats(&a, &|i| (scales[i / 27], 0)),
            floats(&b, &|_| (scale, zero))
        );
        (weights, "", "@wa", "@wb")
    };
    parsed(&format!(
        "gsir 1\ndims N >= 1\n{weights}param @fc : f32[5, 4] = uniform(seed 6, -0.5, 0.5)\n\
         graph @main(%image : f32[N, 3, 8, 8]) -> (%scores : f32[N, 5]) {{\n{first}  \
         %0 = conv(%image, {wa}) {{pads = [1, 1, 1, 1]}} : f32[N, 4, 8, 8] from \"a\"\n  \
         %1 = relu(%0) : f32[N, 4, 8, 8] from \"a.relu\"\n  \
         %2 = conv(%1, {wb}) {{pads = [1, 1, 1, 1]}} : f32[N, 4, 8, 8] from \"b\"\n  \
         %3 = relu(%2) : f32[N, 4, 8, 8] from \"b.relu\"\n  \
         %4 = global_average_pool(%3) : f32[N, 4, 1, 1] from \"pool\"\n  \
         %5 = flatten(%4) : f32[N, 4] from \"flat\"\n  \
         %6 = gemm(%5, @fc) {{trans_b = true}} : f32[N, 5] from \"fc\"\n  return %6\n}}\n"
    ))
}

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

fn images() -> Tensor {
    let values: Vec<f32> = (0..8 * 192).map(|i| unit(7, i) as f32 * 2.0 - 1.0).collect();
    Tensor::f32s([8, 3, 8, 8], values).unwrap()
}

fn algorithm(text: &str) -> Box<dyn Algorithm> {
    let step = &Pipeline::parse(text).unwrap().steps[0];
    (find(&step.name).unwrap().make)(&step.options).unwrap()
}

/// Runs with images to calibrate with.
fn with_images<T>(work: impl FnOnce(&mut PassContext<'_>) -> T) -> T {
    let data = InMemory::new(vec![("image".to_owned(), images())]).unwrap();
    let evaluator = Evaluator::new();
    let data = BTreeMap::from([("calib".to_owned(), &data as &dyn DataSource)]);
    work(&mut PassContext { executor: Some(&evaluator), data, ..PassContext::default() })
}

fn run(module: &mut Module, pipeline: &str) -> Result<Vec<String>, String> {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    gs_algos::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse(pipeline).unwrap();
    let done = with_images(|context| manager.run(&pipeline, module, context, &mut |_| {}));
    done.map(|report| report.notes).map_err(|e| e.to_string())
}

fn scores(module: &Module) -> Vec<f64> {
    let run = Evaluator::new().run(module, module.main().unwrap(), &[images()], &[]).unwrap();
    run.results[0].to_f64s().unwrap()
}

#[test]
fn algorithms_make_the_same_of_them_as_of_floats() {
    assert_eq!(scores(&network(true)), scores(&network(false)));
    for text in ALGORITHMS {
        let of = |stored: bool| {
            let mut module = network(stored);
            with_images(|c| algorithm(text).apply(&mut module, c)).unwrap_or_else(|e| panic!("{text}: {e}"));
            run(&mut module, "calibrate{data=calib}").unwrap_or_else(|e| panic!("{text}: {e}"));
            module
        };
        let (mut stored, mut floats) = (of(true), of(false));
        assert_eq!(scores(&stored), scores(&floats), "{text}");
        for name in ["a.dq", "b.dq"] {
            let entry = stored.gone.iter().find(|(n, _)| stored.str(**n) == name);
            assert!(entry.is_some(), "{text}: nothing says what became of {name}");
        }
        for module in [&mut stored, &mut floats] {
            algorithm(text)
                .convert(module, &mut PassContext::default())
                .unwrap_or_else(|e| panic!("{text}: {e}"));
            verify(module).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        }
        assert_eq!(scores(&stored), scores(&floats), "{text}");
    }
}

#[test]
fn they_are_trained_as_floats() {
    let mut module = network(true);
    let notes = run(&mut module, "loss,grad").unwrap();
    assert!(notes.iter().any(|n| n.contains("2 weights stored as integers")), "{notes:?}");
    let text = print_to_string(&module, &PrintOptions::snapshot());
    assert_eq!(text.matches("grad.").count(), 3, "{text}");
    let trained = |m: &Module| m.globals().filter(|(_, g)| g.role == Role::Param && g.trainable).count();
    assert_eq!(trained(&module), 3);
    // Numbers that no layer learns stay constants.
    let mut module = parsed(
        "gsir 1\nconst @q : i8[] = 3\nconst @s : f32[] = 0.5\nparam @w : f32[3] = splat(1.0)\n\
         graph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {\n  %0 = dequantize(@q, @s) : f32[]\n  \
         %1 = mul(%x, %0) : f32[2, 3]\n  %2 = add(%1, @w) : f32[2, 3]\n  return %2\n}\n",
    );
    assert!(run(&mut module, "loss,grad").unwrap().is_empty());
}

#[test]
fn what_is_quantised_already_is_refused_in_one_sentence() {
    let mut module = network(false);
    with_images(|c| algorithm("simqat").apply(&mut module, c)).unwrap();
    run(&mut module, "calibrate{data=calib}").unwrap();
    let instrumented = module.clone();
    algorithm("simqat").convert(&mut module, &mut PassContext::default()).unwrap();
    assert!(Phase::of(&module) > Phase::Instrumented);
    for text in ALGORITHMS {
        let refused = |module: &Module| {
            let done = with_images(|c| algorithm(text).apply(&mut module.clone(), c));
            done.map(|_| ()).unwrap_err().to_string()
        };
        let error = refused(&module);
        assert!(error.starts_with("the network is quantised already"), "{text}: {error}");
        if text != "simqat" {
            let error = refused(&instrumented);
            assert!(error.starts_with("the network carries quantisers already"), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
