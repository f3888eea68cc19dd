//! What people see when a text is wrong: the rendered messages, as snapshots. Each case holds several mistakes, all of
//! which must be reported in one run.

use gs_ir::Registry;
use gs_text::{SourceMap, Style, parse_module, render_all};

/// The messages for a text that must be refused.
fn errors(text: &str) -> String {
    let diagnostics = parse_module(text, None, &Registry::builtin()).map(drop).unwrap_err();
    render_all(&diagnostics, &SourceMap::single("net.gsir", text), Style::Plain)
}

/// The messages for lines within a graph over `%x : f32[N, 4]` and some globals.
fn errors_in_graph(lines: &str) -> String {
    errors(&format!(
        "gsir 1\nparam @w : f32[8, 4, 3, 3]\nparam @bias : f32[8]\n\
         graph @main(%x : f32[N, 4], %image : f32[N, 4, 9, 9]) -> (%y : f32[N, 4]) {{\n{lines}\n  return %x\n}}\n"
    ))
}

#[test]
fn names() {
    insta::assert_snapshot!(errors_in_graph(
        "  %a = relu(%imagee)
  %b = rel(%x)
  %c = conv(%image, @v)
  %d = relu(%a)
  %d = relu(%x)
  %12 = \"x::Foo\"(%11)"
    ));
}

#[test]
fn attributes() {
    insta::assert_snapshot!(errors_in_graph(
        "  %a = conv(%image, @w) {pad = [1, 1, 1, 1]}
  %b = conv(%image, @w) {pads = 1.5, group = [1]}
  %c = relu(%x) {alpha = 1}
  %d = leaky_relu(%x) {alpha = 1, alpha = 2}
  %e = transpose(%x) {perm = [1, 0}
  %f = concat(%x, %x)
  %g = conv(%image, @w) {auto_pad = \"SAME\"}"
    ));
}

#[test]
fn operands_and_results() {
    insta::assert_snapshot!(errors_in_graph(
        "  %a = conv(%image)
  %b = conv(%image, _, @bias)
  %c = relu(%x, %x)
  %d, %e = relu(%x)
  relu(%x)
  %f = relu(%x) : f32[N, 4], f32[N, 4]
  %g, _ = \"x::Foo\"(%x) : f32[N], f32[N]"
    ));
}

#[test]
fn types() {
    insta::assert_snapshot!(errors_in_graph(
        "  %a = relu(%x) : f32[N, 5]
  %b = relu(%x) : f16[N, 4]
  %c = conv(%image, @w) {pads = [1, 1, 1, 1]} : f32[N, 8, 7, 7]
  %d = conv(%x, @w)
  %e = relu(%x) : float[N, 4]
  %f = relu(%x) : f32[N, -1]
  %g = \"x::Foo\"(%x) : f32[floordiv(N, 0)]
  %h = \"x::Foo\"(%x) : seq<f32[N]"
    ));
}

#[test]
fn a_graph_that_returns_the_wrong_things() {
    insta::assert_snapshot!(errors(
        "gsir 1
state @r : f32[2]
graph @a(%x : f32[2]) -> (%y : f32[2], %z : f32[2]) {
  return %x
}
graph @b(%x : f32[2]) -> (%y : f32[3], %y : f32[2]) {
  return %x, %x updates { @r = %x @r = %x @s = %x }
}
graph @a(%x : f32[2]) -> () {
  %y = relu(%x)
}
graph @c(%x : f32[2]) -> () {
  return
  %y = relu(%x)
}
"
    ));
}

#[test]
fn globals() {
    insta::assert_snapshot!(errors(
        "gsir 1
param @a : f32[2, 2] = dense(1.0, 2.0, 3.0)
const @b : u4[2] = dense(1, 16)
const @c : f32[N] = splat(1.0)
const @d : i8[2] = hex(\"0011zz\")
const @e : i8[2] = hex(\"001122\")
const @a : f32[] = 0.5
const @f : f32[2] = mul(@f, @a)
const @g : f32[3] = mul(@a, @d)
const @h : f32[2] = mul(@nobody, @a)
const @i : f32[] = file(\"w.safetensors\", \"x\")
const @j : f32[2] = uniform(0.0, 1.0)
graph @main() -> () {
  return
}
param @late : f32[]
"
    ));
}

#[test]
fn the_header() {
    insta::assert_snapshot!(errors(
        "gsir 2
target \"a\"
target \"b\"
dims N >= 3, N <= 2
dims M > 1
property \"x\"
onnx { version = 3 }
modul @main
gone {
  \"a\" = folded(\"r\")
  \"a\" = folded(\"r\")
  b = folded(\"r\")
  \"c\" = folded(\"r\", onto \"d\")
}
"
    ));
}

#[test]
fn no_module_at_all() {
    insta::assert_snapshot!(errors("\u{0}\u{7f}ELF"));
    assert!(errors("").contains("GS0102"));
}

#[test]
fn tokens() {
    insta::assert_snapshot!(errors_in_graph(
        "  %a = relu(%x) § {}
  %b = relu(%\"x)
  %c = leaky_relu(%x) {alpha = 1e}
  %d = \"x::\\q\"(%x)
  %99999999999 = relu(%x)
  %e = \"x::Foo\"(%x) {big = 9223372036854775808}"
    ));
}

#[test]
fn regions() {
    insta::assert_snapshot!(errors_in_graph(
        "  %a = \"x::If\"(%x) : f32[N, 4] region then() -> (f32[N, 4]) {
    %inner = rel(%x) : f32[N, 4]
    return %inner
  } region else() -> (f32[N, 4]) {
    %b = relu(%inner)
    return %b
  }
  %c = relu(%inner)
  %d = relu(%x) region body() -> () {
    return
  }"
    ));
}

/// What an operation with regions makes depends on what they return.
#[test]
fn types_through_regions() {
    let branch = |name: &str, returns: &str, ty: &str| {
        format!("region {name}() -> ({ty}) {{\n return {returns}\n}}\n")
    };
    let graph = |ty: &str, first: String, second: String| {
        errors(&format!(
            "gsir 1\ngraph @main(%c : bool[], %x : f32[4], %y : f32[2, 2]) -> () {{\n  %r = if(%c){ty} {first} {second}\n  return\n}}\n"
        ))
    };
    let then = || branch("then_branch", "%x", "f32[4]");
    let cases = [
        graph(" : f32[5]", then(), branch("else_branch", "%x", "f32[4]")),
        graph(" : f32[4]", then(), branch("otherwise", "%x", "f32[4]")),
        graph("", then(), branch("else_branch", "%x, %y", "f32[4], f32[2, 2]")),
    ];
    insta::assert_snapshot!(cases.join("\n"));
}

#[test]
fn deep_nesting_is_refused() {
    let deep = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(10_000), close.repeat(10_000))
    };
    for lines in [
        format!("%a = \"x::Foo\"(%x) : f32[{}]", deep("(", "N", ")")),
        format!("%a = \"x::Foo\"(%x) : f32[{}]", deep("floordiv(", "N", ", 3)")),
        format!("%a = \"x::Foo\"(%x) : {}", deep("seq<", "any", ">")),
        deep("\"x::Foo\"() region a() -> () {\n", "", "return }"),
    ] {
        assert!(errors_in_graph(&lines).contains("error[GS0113]"));
    }
}

#[test]
fn errors_far_apart_and_in_long_lines_render() {
    let filler = "// nothing\n".repeat(5000);
    let text = format!("gsir 1\nparam @a : f32[]\n{filler}param @a : f32[] // {}\n", "x".repeat(100_000));
    let rendered = errors(&text);
    assert!(rendered.contains("net.gsir:2:7") && rendered.contains("net.gsir:5003:7"), "{rendered}");
    assert!(rendered.len() < 8192);
}

#[test]
fn a_region_stores_nothing() {
    let text = "gsir 1\nstate @s : f32[]\ngraph @main(%c : bool[], %x : f32[]) -> (%y : f32[]) {\n  \
         %0 = if(%c) : f32[] region then_branch() -> (f32[]) {\n    return %x updates { @s = %x }\n  } \
         region else_branch() -> (f32[]) {\n    return %x\n  }\n  return %0 updates { @s = %0 }\n}\n";
    insta::assert_snapshot!(errors(text));
}
