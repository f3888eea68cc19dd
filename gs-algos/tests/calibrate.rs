//! Calibration feeds every range from the values that its quantisers read.

use gs_algos::calibrate::{CalibrateOptions, calibrate};
use gs_algos::observers::ObserverKind;
use gs_eval::{Evaluator, InMemory, Materializer, Tensor};
use gs_ir::{Module, Registry, Role, infer_module, verify};
use gs_text::{SourceMap, Style};

/// Calibrates a network with the input `x` of `[N, 2]`, and gives the ranges by name.
fn ranges(text: &str) -> Vec<(String, Vec<f64>)> {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    assert!(infer_module(&mut module).is_empty());
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    let x = Tensor::f32s([3, 2], vec![-1.0, 2.0, 0.5, 3.0, -4.0, 1.0]).expect("a tensor");
    let data = InMemory::new(vec![("x".to_owned(), x)]).expect("data");
    let options = CalibrateOptions { observer: ObserverKind::MinMax, ..CalibrateOptions::default() };
    calibrate(&mut module, &Evaluator::new(), &data, &options, &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{e}"));
    states(&module)
}

fn states(module: &Module) -> Vec<(String, Vec<f64>)> {
    let states = module.globals().filter(|(_, g)| g.role == Role::State);
    let range = |id| Materializer::new(module).tensor(id).ok().and_then(|t| t.to_f64s()).expect("a range");
    states.map(|(id, g)| (module.str(g.name).to_owned(), range(id))).collect()
}

fn all(names: &[&str], range: [f64; 2]) -> Vec<(String, Vec<f64>)> {
    names.iter().map(|n| ((*n).to_owned(), range.to_vec())).collect()
}

/// On an input, on a computed value, and one behind the other: each range is fed.
#[test]
fn quantisers_with_ranges_of_their_own_on_one_value() {
    let on = |first: &str, a: &str, b: &str| {
        ranges(&format!(
            "gsir 1\ndims N >= 1\nstate @r1 : f32[2] = splat(nan)\nstate @r2 : f32[2] = splat(nan)\n\
             graph @main(%x : f32[N, 2]) -> (%y : f32[N, 2], %z : f32[N, 2]) {{\n  {first}\
             %1 = fake_quant({a}, @r1) {{bits = 8}} : f32[N, 2]\n  \
             %2 = fake_quant({b}, @r2) {{bits = 4}} : f32[N, 2]\n  return %1, %2\n}}\n"
        ))
    };
    assert_eq!(on("", "%x", "%x"), all(&["r1", "r2"], [-4.0, 3.0]));
    let neg = "%0 = neg(%x) : f32[N, 2]\n  ";
    assert_eq!(on(neg, "%0", "%0"), all(&["r1", "r2"], [-3.0, 4.0]));
    assert_eq!(on(neg, "%0", "%1"), all(&["r1", "r2"], [-3.0, 4.0]));
    assert_eq!(on("", "%x", "%1"), all(&["r1", "r2"], [-4.0, 3.0]));
}

/// One range on two values spans both.
#[test]
fn a_range_that_quantisers_share() {
    let found = ranges(
        "gsir 1\ndims N >= 1\nstate @r : f32[2] = splat(nan)\n\
         graph @main(%x : f32[N, 2]) -> (%y : f32[N, 2], %z : f32[N, 2]) {\n  %0 = neg(%x) : f32[N, 2]\n  \
         %1 = fake_quant(%x, @r) : f32[N, 2]\n  %2 = fake_quant(%0, @r) : f32[N, 2]\n  return %1, %2\n}\n",
    );
    assert_eq!(found, all(&["r"], [-4.0, 4.0]));
}
