//! Parsing and printing grow with the text and no faster.

use gs_ir::Registry;
use gs_text::{PrintOptions, parse_module, print_to_string};
use std::fmt::Write;
use std::time::{Duration, Instant};

fn chain(ops: usize, name: impl Fn(usize) -> String) -> String {
    let mut text = String::from(
        "gsir 1\nconst @s : f32[2] = splat(0.5)\ngraph @main(%x : f32[N, 2]) -> () {\n  %0 = relu(%x)\n",
    );
    for k in 1..ops {
        let _ = writeln!(text, "  %{} = add(%{}, @s) : f32[N, 2] from \"n{k}\"", name(k), name(k - 1));
    }
    text.push_str("  return\n}\n");
    text
}

/// The least of three times: other work on the machine only adds.
fn least(mut work: impl FnMut()) -> Duration {
    let one = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..3).map(|_| one(&mut work)).min().unwrap_or_default()
}

#[test]
fn ten_times_the_operations_take_about_ten_times_as_long() {
    let times = |ops: usize| {
        let text = chain(ops, |k| k.to_string());
        let parse = || parse_module(&text, None, &Registry::builtin()).unwrap();
        let module = parse();
        (least(|| drop(parse())), least(|| drop(print_to_string(&module, &PrintOptions::default()))))
    };
    let (small, large) = (times(5_000), times(50_000));
    // Far above ten, for noise; far below the hundred of quadratic growth.
    assert!(large.0 < small.0 * 40, "parsing: {small:?} {large:?}");
    assert!(large.1 < small.1 * 40, "printing: {small:?} {large:?}");
}

#[test]
fn many_equal_names_cost_no_more_than_different_ones() {
    let print = |ops: usize| {
        let mut module = parse_module(&chain(ops, |k| k.to_string()), None, &Registry::builtin()).unwrap();
        let values: Vec<_> = module.all_ops().iter().map(|&op| module.op(op).result()).collect();
        let mut rewriter = gs_ir::Rewriter::new(&mut module);
        values.iter().for_each(|&v| rewriter.set_name(v, "same"));
        least(|| drop(print_to_string(&module, &PrintOptions::default())))
    };
    let (small, large) = (print(5_000), print(50_000));
    assert!(large < small * 40, "{small:?} {large:?}");
}
