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
    let mut corpus = vec![include_str!("modules/conv_net.gsir").to_owned(), include_str!("modules/regions.gsir").to_owned()];
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
        let words = ["gsir 1\n", "graph @a", "(", ")", " -> ", "{", "}", "%x", " : ", "f32[", "]", "=", "return", "\"a\"", ",", "region "];
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
