//! Times printing and parsing on chains and other networks of conv, relu, add and mul.
//!
//! `cargo run --release -p gs-text --example text_bench [-- OPS [FILE]]`: without a file a chain of OPS operations
//! (100,000 by default) is built; with one, the file is read instead.

use gs_ir::Registry;
use gs_text::{PrintOptions, parse_module, print_to_string};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// A chain as the peers' generator makes it: blocks of conv, relu, add and mul with shared weights.
fn chain(ops: usize) -> String {
    const IMAGE: &str = "f32[1, 8, 14, 14]";
    let mut text = String::from("gsir 1\n");
    for i in 0..16 {
        let _ = write!(
            text,
            "param @w{i} : f32[8, 8, 3, 3] = uniform(seed {i}, -0.1, 0.1)\nparam @b{i} : f32[8] = splat(0.0)\n"
        );
    }
    for name in ["s", "t"] {
        let _ = writeln!(text, "const @{name} : f32[1, 8, 1, 1] = splat(0.5)");
    }
    let _ = writeln!(text, "graph @main(%x : {IMAGE}) -> (%y : {IMAGE}) {{");
    let mut last = "x".to_owned();
    for k in 0..ops {
        let i = k / 4 % 16;
        let _ = match k % 4 {
            0 => writeln!(text, "  %v{k} = conv(%{last}, @w{i}, @b{i}) {{pads = [1, 1, 1, 1]}} : {IMAGE}"),
            1 => writeln!(text, "  %v{k} = relu(%{last}) : {IMAGE}"),
            2 => writeln!(text, "  %v{k} = add(%{last}, @s) : {IMAGE}"),
            _ => writeln!(text, "  %v{k} = mul(%{last}, @t) : {IMAGE}"),
        };
        last = format!("v{k}");
    }
    let _ = writeln!(text, "  return %{last}\n}}");
    text
}

/// Time that this process spent on a processor, where the system tells it, else time on the wall: other work on the
/// machine should not count.
fn now(start: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let on_cpu = stat.as_deref().and_then(|s| s.split(' ').next()).and_then(|n| n.parse().ok());
    on_cpu.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// The mean time of several runs, and what the last one made. Everything is kept until the clock stops.
fn mean<T>(runs: u32, mut work: impl FnMut() -> T) -> (Duration, Option<T>) {
    let start = Instant::now();
    let before = now(start);
    let mut kept: Vec<T> = (0..runs).map(|_| work()).collect();
    let taken = now(start).saturating_sub(before);
    (taken / runs, kept.pop())
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let ops: usize = args.next().map_or(Ok(100_000), |n| n.parse())?;
    let text = match args.next() {
        Some(path) => std::fs::read_to_string(path)?,
        None => chain(ops),
    };
    let registry = Registry::builtin();
    // So many runs that the clock's grain of some milliseconds does not matter.
    let runs = (1_000_000 / ops.max(1)).clamp(3, 1000) as u32;
    let (parse, module) = mean(runs, || parse_module(&text, None, &registry));
    let module = match module {
        Some(Ok(module)) => module,
        Some(Err(d)) => {
            let sources = gs_text::SourceMap::single("bench", text);
            return Err(gs_text::render_all(&d, &sources, gs_text::Style::Plain).into());
        }
        None => return Ok(()),
    };
    let count = module.all_ops().len();
    let options = PrintOptions::default();
    let (print, printed) = mean(runs, || print_to_string(&module, &options));
    let bytes = printed.map_or(0, |p| p.len());
    let rate = |t: Duration| count as f64 / t.as_secs_f64() / 1e3;
    println!("{count} ops, {bytes} bytes ({:.0} per op)", bytes as f64 / count as f64);
    println!("parse {:8.2} ms  {:8.0} thousand ops/s", parse.as_secs_f64() * 1e3, rate(parse));
    println!("print {:8.2} ms  {:8.0} thousand ops/s", print.as_secs_f64() * 1e3, rate(print));
    Ok(())
}
