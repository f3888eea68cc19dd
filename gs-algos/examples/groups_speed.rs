//! How long the analysis of coupled groups takes: of a network file, or of a decoder made here (32 layers of width 4096,
//! grouped-query attention, rotary embeddings, seeded weights). Prints the best of ten runs and the peak of memory.
//!
//! cargo run --release -p gs-algos --example groups_speed -- net.onnx
//! cargo run --release -p gs-algos --example groups_speed -- decoder 32 4096
#![allow(clippy::print_stdout)]

use gs_algos::groups::Groups;
use gs_ir::{Module, Registry, infer_module};
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, or: usize| args.get(i).map_or(Ok(or), |a| a.parse());
    let mut module = match args.first().map(String::as_str) {
        Some("decoder") => {
            let text = decoder(number(1, 32)?, number(2, 4096)?);
            gs_text::gsir::parse_module(&text, None, &Registry::builtin()).map_err(|d| format!("{d:?}"))?
        }
        Some(file) => gs_onnx::import_file(Path::new(file), &Registry::builtin())?,
        None => return Err("a file is expected, or: decoder LAYERS WIDTH".into()),
    };
    infer_module(&mut module);
    gs_passes::passes::fold_all_but_weights(&mut module);
    let before = peak_mib();
    report(&module, before)
}

fn report(module: &Module, before: Option<f64>) -> Result<(), Box<dyn std::error::Error>> {
    let mut best = f64::INFINITY;
    let mut found = (0, 0);
    for _ in 0..10 {
        let start = Instant::now();
        let groups = Groups::of(module)?;
        best = best.min(start.elapsed().as_secs_f64());
        found = (groups.groups.len(), groups.groups.iter().map(|g| g.atoms.len()).sum());
    }
    println!(
        "{} operations: {} groups, {} atoms in {:.2} ms",
        module.all_ops().len(),
        found.0,
        found.1,
        1e3 * best
    );
    if let (Some(before), Some(after)) = (before, peak_mib()) {
        println!("peak of memory: {after:.0} MiB, {before:.0} MiB of it before the analysis");
    }
    Ok(())
}

/// The most memory that this process had so far.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// The text of a decoder over 8 positions, with heads of 128 and four query heads for each key head.
fn decoder(layers: usize, width: usize) -> String {
    let (dim, inner) = (128, width * 11 / 4);
    let heads = width / dim;
    let (keys, queries) = ((heads / 4).max(1), heads);
    let repeat = queries / keys;
    let mut globals = format!(
        "gsir 1\nparam @embed : f32[1000, {width}] = normal(seed 1, 0.0, 0.02)\nconst @two : f32[] = 2.0\n\
         const @eps : f32[] = 0.00001\nconst @one : f32[] = 1.0\nconst @shape : i64[5] = dense(1, {keys}, {repeat}, 8, {dim})\n\
         param @head : f32[{width}, 1000] = normal(seed 2, 0.0, 0.02)\n"
    );
    let mut ops = String::new();
    let mut seed = 2;
    let mut weight = |name: &str, rows: usize, columns: usize| {
        seed += 1;
        let _ = writeln!(globals, "param @{name} : f32[{rows}, {columns}] = normal(seed {seed}, 0.0, 0.02)");
    };
    let mut vectors = String::new();
    let mut x = "%x0".to_owned();
    let hidden = format!("f32[1, 8, {width}]");
    let _ = writeln!(ops, "  %x0 = gather(@embed, %ids) : {hidden}");
    for l in 0..layers {
        for (name, rows, columns) in [
            ("q", width, queries * dim),
            ("k", width, keys * dim),
            ("v", width, keys * dim),
            ("o", queries * dim, width),
            ("gate", width, inner),
            ("up", width, inner),
            ("down", inner, width),
        ] {
            weight(&format!("l{l}.{name}"), rows, columns);
        }
        let _ = writeln!(
            vectors,
            "param @l{l}.n1 : f32[{width}] = splat(1.0)\nparam @l{l}.n2 : f32[{width}] = splat(1.0)"
        );
        let _ = writeln!(
            vectors,
            "const @l{l}.cos : f32[8, {dim}] = splat(1.0)\nconst @l{l}.sin : f32[8, {dim}] = splat(0.0)"
        );
        norm(&mut ops, &format!("%a{l}"), &x, &format!("@l{l}.n1"), width);
        for (n, h) in [("q", queries), ("k", keys), ("v", keys)] {
            let (flat, split, moved) =
                (h * dim, format!("f32[1, 8, {h}, {dim}]"), format!("f32[1, {h}, 8, {dim}]"));
            let _ = writeln!(ops, "  %{n}{l} = matmul(%a{l}, @l{l}.{n}) : f32[1, 8, {flat}]");
            let _ = writeln!(ops, "  %{n}r{l} = reshape(%{n}{l}) {{shape = [1, 8, {h}, {dim}]}} : {split}");
            let _ = writeln!(ops, "  %{n}h{l} = transpose(%{n}r{l}) {{perm = [0, 2, 1, 3]}} : {moved}");
            if n == "v" {
                continue;
            }
            let (half, part) = (dim / 2, format!("f32[1, {h}, 8, {}]", dim / 2));
            let _ = writeln!(ops, "  %{n}c{l} = mul(%{n}h{l}, @l{l}.cos) : {moved}");
            let _ = writeln!(
                ops,
                "  %{n}u{l} = slice(%{n}h{l}) {{axes = [3], ends = [{dim}], starts = [{half}]}} : {part}"
            );
            let _ = writeln!(ops, "  %{n}n{l} = neg(%{n}u{l}) : {part}");
            let _ = writeln!(
                ops,
                "  %{n}d{l} = slice(%{n}h{l}) {{axes = [3], ends = [{half}], starts = [0]}} : {part}"
            );
            let _ = writeln!(ops, "  %{n}t{l} = concat(%{n}n{l}, %{n}d{l}) {{axis = 3}} : {moved}");
            let _ = writeln!(ops, "  %{n}s{l} = mul(%{n}t{l}, @l{l}.sin) : {moved}");
            let _ = writeln!(ops, "  %{n}e{l} = add(%{n}c{l}, %{n}s{l}) : {moved}");
        }
        for (n, from) in [("k", "ke"), ("v", "vh")] {
            let wide = format!("f32[1, {queries}, 8, {dim}]");
            let _ = writeln!(
                ops,
                "  %{n}one{l} = unsqueeze(%{from}{l}) {{axes = [2]}} : f32[1, {keys}, 1, 8, {dim}]"
            );
            let _ = writeln!(
                ops,
                "  %{n}two{l} = expand(%{n}one{l}, @shape) : f32[1, {keys}, {repeat}, 8, {dim}]"
            );
            let _ = writeln!(
                ops,
                "  %{n}all{l} = reshape(%{n}two{l}) {{shape = [1, {queries}, 8, {dim}]}} : {wide}"
            );
        }
        let _ = writeln!(
            ops,
            "  %ktr{l} = transpose(%kall{l}) {{perm = [0, 1, 3, 2]}} : f32[1, {queries}, {dim}, 8]"
        );
        let _ = writeln!(ops, "  %p{l} = matmul(%qe{l}, %ktr{l}) : f32[1, {queries}, 8, 8]");
        let _ = writeln!(ops, "  %w{l} = softmax(%p{l}) : f32[1, {queries}, 8, 8]");
        let _ = writeln!(ops, "  %m{l} = matmul(%w{l}, %vall{l}) : f32[1, {queries}, 8, {dim}]");
        let _ = writeln!(
            ops,
            "  %mt{l} = transpose(%m{l}) {{perm = [0, 2, 1, 3]}} : f32[1, 8, {queries}, {dim}]"
        );
        let flat = queries * dim;
        let _ = writeln!(ops, "  %mf{l} = reshape(%mt{l}) {{shape = [1, 8, {flat}]}} : f32[1, 8, {flat}]");
        let _ = writeln!(ops, "  %o{l} = matmul(%mf{l}, @l{l}.o) : {hidden}");
        let _ = writeln!(ops, "  %y{l} = add({x}, %o{l}) : {hidden}");
        norm(&mut ops, &format!("%b{l}"), &format!("%y{l}"), &format!("@l{l}.n2"), width);
        let wide = format!("f32[1, 8, {inner}]");
        let _ = writeln!(ops, "  %g{l} = matmul(%b{l}, @l{l}.gate) : {wide}");
        let _ = writeln!(ops, "  %gs{l} = sigmoid(%g{l}) : {wide}");
        let _ = writeln!(ops, "  %ga{l} = mul(%g{l}, %gs{l}) : {wide}");
        let _ = writeln!(ops, "  %up{l} = matmul(%b{l}, @l{l}.up) : {wide}");
        let _ = writeln!(ops, "  %gu{l} = mul(%ga{l}, %up{l}) : {wide}");
        let _ = writeln!(ops, "  %dn{l} = matmul(%gu{l}, @l{l}.down) : {hidden}");
        let _ = writeln!(ops, "  %z{l} = add(%y{l}, %dn{l}) : {hidden}");
        x = format!("%z{l}");
    }
    format!(
        "{globals}{vectors}graph @main(%ids : i64[1, 8]) -> (%y : f32[1, 8, 1000]) {{\n{ops}  \
         %logits = matmul({x}, @head) : f32[1, 8, 1000]\n  return %logits\n}}\n"
    )
}

/// RMS normalisation in operations.
fn norm(ops: &mut String, y: &str, x: &str, scale: &str, width: usize) {
    let (wide, one) = (format!("f32[1, 8, {width}]"), "f32[1, 8, 1]");
    let _ = writeln!(ops, "  {y}p = pow({x}, @two) : {wide}");
    let _ = writeln!(ops, "  {y}m = reduce_mean({y}p) {{axes = [2]}} : {one}");
    let _ = writeln!(ops, "  {y}e = add({y}m, @eps) : {one}");
    let _ = writeln!(ops, "  {y}s = sqrt({y}e) : {one}");
    let _ = writeln!(ops, "  {y}d = div(@one, {y}s) : {one}");
    let _ = writeln!(ops, "  {y}x = mul({x}, {y}d) : {wide}");
    let _ = writeln!(ops, "  {y} = mul({scale}, {y}x) : {wide}");
}
