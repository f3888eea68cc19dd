//! Printing and parsing are inverse to each other.

use gs_ir::{Module, Registry};
use gs_text::{Diagnostic, PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all, same};

fn parse(text: &str) -> Module {
    let fail = |d: Vec<Diagnostic>| -> Module {
        panic!("{}", render_all(&d, &SourceMap::single("test.gsir", text), Style::Plain));
    };
    parse_module(text, None, &Registry::builtin()).unwrap_or_else(fail)
}

/// Parses a text that is in printed form and demands that it prints to itself.
fn check(text: &str) {
    let module = parse(text);
    let printed = print_to_string(&module, &PrintOptions::default());
    assert_eq!(printed, text);
    same(&module, &parse(&printed)).unwrap();
}

#[test]
fn everything_of_a_module() {
    check(include_str!("modules/conv_net.gsir"));
}
