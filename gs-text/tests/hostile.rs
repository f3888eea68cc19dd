//! No text makes the parser panic, hang or take memory out of proportion.

#[allow(dead_code)]
mod support;

use gs_ir::Registry;
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};

/// Parses and, where that succeeds, prints and parses again; renders what was wrong.
fn survive(text: &str) {
    match parse_module(text, None, &Registry::builtin()) {
        Ok(module) => {
            let printed = print_to_string(&module, &PrintOptions::default());
            let again = parse_module(&printed, None, &Registry::builtin());
            let again = again.unwrap_or_else(|d| {
                let shown = render_all(&d, &SourceMap::single("again", &*printed), Style::Plain);
                panic!("accepted text prints as text that is refused:\n{shown}")
            });
            assert_eq!(print_to_string(&again, &PrintOptions::default()), printed);
        }
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(|d| d.is_error()));
            render_all(&diagnostics, &SourceMap::single("t", text), Style::Coloured);
        }
    }
}

fn corpus() -> Vec<String> {
    let mut corpus = vec![
        include_str!("modules/conv_net.gsir").to_owned(),
        include_str!("modules/regions.gsir").to_owned(),
    ];
    corpus.extend((0..4).map(|seed| print_to_string(&support::module(seed, 12), &PrintOptions::default())));
    corpus
}

#[test]
fn truncated() {
    for text in corpus() {
        for end in (0..text.len()).filter(|&i| text.is_char_boundary(i)) {
            survive(&text[..end]);
        }
    }
}

#[test]
fn with_changed_bytes() {
    let mut rng = support::Rng::new(7);
    for text in corpus() {
        for _ in 0..600 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(bytes.len());
                match rng.below(4) {
                    0 => bytes[at] = rng.next() as u8,
                    1 => bytes[at] = b"(){}[]<>,:=%@\"\\?*-0a\n"[rng.below(21)],
                    2 => drop(bytes.remove(at)),
                    _ => {
                        let from = rng.below(bytes.len());
                        let to = (from + rng.below(40)).min(bytes.len());
                        let piece = bytes[from..to].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            survive(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn of_any_bytes() {
    let mut rng = support::Rng::new(11);
    for _ in 0..2000 {
        let words = [
            "gsir 1\n", "graph @a", "(", ")", " -> ", "{", "}", "%x", " : ", "f32[", "]", "=", "return",
            "\"a\"", ",", "region ",
        ];
        let count = rng.below(60);
        let text: String = (0..count).map(|_| words[rng.below(words.len())]).collect();
        survive(&text);
        survive(&format!("gsir 1\n{text}"));
    }
}

/// Numbers in a text may not ask for memory without bound.
#[test]
fn large_numbers() {
    for line in [
        "param @a : f32[4294967296, 4294967296, 4294967296] = dense(1)",
        "param @a : f32[9223372036854775807] = splat(1)",
        "param @a : f32[9223372036854775807] = hex(\"00\")",
        "param @a : f32[?4294967295]",
        "param @a : f32[?99999999999999999999]",
        "param @a : f32[2] = \"x::y\"() #4294967295",
        "param @a : f32[N*N*N*N*N*N*N*N*N*N*N*N]",
        "param @a : f32[9223372036854775807*N + N]",
        "graph @a() -> () { %4294967295 = \"x::y\"() return }",
        "graph @a() -> () { %x = \"x::y\"() {t = f32[9223372036854775807] dense(1.0)} return }",
        "graph @a() -> () { %x = \"x::y\"() {t = f32[-1] dense()} return }",
    ] {
        survive(&format!("gsir 1\n{line}\n"));
    }
}

/// What costs as much as there is of it, each time, is bounded: these texts take no longer than others of their size.
#[test]
fn texts_that_ask_for_much_work() {
    let many = |n: usize, piece: &dyn Fn(usize) -> String| (0..n).map(piece).collect::<Vec<_>>();
    let graph = |body: &str| format!("gsir 1\ngraph @a(%x : f32[2]) -> () {{\n{body}\nreturn }}");
    for text in [
        format!("gsir 1\nparam @a : f32[{}]", many(20_000, &|i| format!("N{i}")).join(" + ")),
        format!("gsir 1\nparam @a : f32[{}]", many(50_000, &|i| format!("N{i}")).join(", ")),
        graph(&format!("\"x::y\"() {{{}}}", many(20_000, &|i| format!("a{} = 1", 99_999 - i)).join(", "))),
        many(5_000, &|i| format!("graph @g{i}() -> () {{ return }}\n")).concat(),
        graph(&many(3_000, &|i| format!("%a{i} = relu(%b{i})\n")).concat()),
        graph(&many(20_000, &|i| format!("%a{i} = \"x::y\"(%x)\n")).concat()),
        format!(
            "gsir 1\n{}",
            many(10_000, &|i| format!("const @g{i} : f32[2] = relu(@g{})\n", i + 1)).concat()
        ),
        graph(&format!("{} = \"x::y\"()", many(20_000, &|i| format!("%r{i}")).join(", "))),
        graph(&format!("\"x::y\"({})", many(20_000, &|_| "%x".to_owned()).join(", "))),
    ] {
        survive(&text);
    }
}

/// Dimensions that inference wraps again and again stay small.
#[test]
fn dimensions_do_not_grow_without_bound() {
    let graph = |body: &str| format!("gsir 1\ngraph @a(%x0 : f32[1, 1, H, 8]) -> () {{\n{body}\nreturn }}");
    let pool =
        |i: usize| format!("%x{} = max_pool(%x{i}) {{kernel_shape = [2, 1], strides = [3, 1]}}\n", i + 1);
    survive(&graph(&(0..20_000).map(pool).collect::<String>()));
    let twice = |i: usize| {
        format!(
            "%p{i} = max_pool(%x{i}) {{kernel_shape = [2, 1], strides = [3, 1]}}\n\
             %q{i} = max_pool(%x{i}) {{kernel_shape = [3, 1], strides = [5, 1]}}\n\
             %x{} = concat(%p{i}, %q{i}) {{axis = 2}}\n",
            i + 1
        )
    };
    survive(&graph(&(0..200).map(twice).collect::<String>()));
}
