//! Rule files as text: what is accepted, how it prints, and what is said of mistakes.

use gs_text::gsr::ast::{CondKind, ExprKind, Item, PatternKind, Per, ResultPattern};
use gs_text::gsr::{Driver, InsertSite, Strictness, parse_rules, print_rules};
use gs_text::{SourceMap, Style, render_all};

const EVERYTHING: &str = r#"gsr 1
// a comment { with a brace
ruleset "all of it" { driver = lower, target = "ort-cpu" }

/// Two swaps are none.
///
/// A second paragraph.
rule exact swaps
  transpose(transpose($x) {perm = $p}) {perm = $p}
  => $x
  where is_identity($p), not same($x, $x) or (rank($x, 2) and elem($x, f32))
  note "folded"
  example "a } in a string" {
    graph @main(%"}" : f32[2]) -> (%y : f32[2]) {
      // } in a comment
      return %"}"
    }
  } => same

rule codes(2) lists
  concat@c(_, none, 0, -1.5, $a?, each $q, $s: dequantize($q, $s, _)) {axis = -1} -> ($y, _, unused, unused...)
  let $k = scalar(attr($c, axis), like($q))
  => (concat(each $q, $s: $q, $s) {..$c, axis = [1, $k, nan]}, each $v in split($a): neg($v), $a?, none, $q...)

rule real choice
  $y:(neg([relu | clip {max = 6.0}]?@a(($x | exp($x)))) | max(_...))
  <=> $x

insert ranges
  match $root:(conv($x, $w, $b?))
  at use $w
  where selected($root)
  emit fake_quant($w, state "range" : f32[2, channels($w, axis)] per $w = nan, none, param p : f32[] per class = 1.0, const q : i8[] per rule = filled([1], 0))
    {bits = cfg($root, bits), signed = true}
  replace

grad relu($x) -> ($y) given ($dy)
  let $m = cast(greater($x, scalar(0.0))) {to = like($x)}
  => ($x: mul($dy, $m))
  where elem($x, float)

grad batch_norm_train($x, $s, $b, _, _) -> ($y, _, _, $m, $i) given ($dy, _, _, _, _)
  => ($x, $s, $b: batch_norm_grad($dy, $x, $s, $m, $i))
"#;

#[test]
fn everything_is_read_as_written() {
    let file = parse_rules(EVERYTHING).unwrap();
    let header = file.header.as_ref().unwrap();
    assert_eq!(
        (header.driver, header.target.as_ref().map(|t| t.text.as_str())),
        (Driver::Lower, Some("ort-cpu"))
    );
    let [
        Item::Rule(swaps),
        Item::Rule(lists),
        Item::Rule(choice),
        Item::Insert(ranges),
        Item::Grad(grad),
        Item::Grad(several),
    ] = &file.items[..]
    else {
        panic!("{:?}", file.items)
    };
    assert_eq!(several.gradients[0].0.iter().map(|n| n.text.as_str()).collect::<Vec<_>>(), ["x", "s", "b"]);
    assert_eq!(swaps.doc, "Two swaps are none.\n\nA second paragraph.");
    assert_eq!(
        (swaps.strictness, lists.strictness, choice.strictness),
        (Strictness::Exact, Strictness::Codes(2), Strictness::Real)
    );
    assert!(matches!(swaps.conditions[1].kind, CondKind::Or(_)));
    assert!(swaps.examples[0].before.text.contains("// } in a comment") && swaps.examples[0].after.is_none());
    let PatternKind::Op(concat) = &lists.pattern.kind else { panic!() };
    assert!(matches!(concat.args[3].kind, PatternKind::Number(n) if n == -1.5));
    assert!(matches!(&concat.args[5].kind, PatternKind::Each(names, _) if names.len() == 2));
    assert!(matches!(
        concat.results.as_deref(),
        Some([
            ResultPattern::Var(_),
            ResultPattern::Any(_),
            ResultPattern::Unused(_),
            ResultPattern::UnusedRest(_)
        ])
    ));
    assert!(matches!(&lists.template.kind, ExprKind::Tuple(all) if all.len() == 2));
    assert!(choice.both_ways && !lists.both_ways);
    assert_eq!((ranges.site, ranges.replace), (InsertSite::Use, true));
    let pers: Vec<bool> = ranges
        .emit
        .args
        .iter()
        .filter_map(|a| match a {
            gs_text::gsr::ast::EmitArg::Global(g) => Some(matches!(g.per, Per::Value(_))),
            _ => None,
        })
        .collect();
    assert_eq!(pers, [true, false, false]);
    assert_eq!((grad.op.text.as_str(), grad.given.len(), grad.lets.len()), ("relu", 1, 1));
}

#[test]
fn printing_is_a_fixed_point() {
    let printed = print_rules(&parse_rules(EVERYTHING).unwrap());
    insta::assert_snapshot!(printed);
    assert_eq!(print_rules(&parse_rules(&printed).unwrap()), printed);
}

/// The rendered findings of a text.
fn found(text: &str) -> String {
    let diagnostics = parse_rules(text).expect_err(text);
    render_all(&diagnostics, &SourceMap::single("test.gsr", text), Style::Plain)
}

#[test]
fn several_mistakes_are_found_in_one_run() {
    insta::assert_snapshot!(found(
        "gsr 1
ruleset \"x\" { driver = eager }
rule exact a relu($x) = $x
rule exactly b relu($x) => $x
rule codes(0) c relu($x) => $x
rule exact d relu($x)
insert e match $x at node $x emit relu($x)
grad relu($x) -> ($y) => ($x: $y)
rule exact f relu($x) => neg($x) => neg($x)
rule exact fine relu($x) => $x
rule exact g relu($x) => $x example \"open\" { graph {
"
    ));
}

#[test]
fn the_version_and_the_header_have_their_place() {
    insta::assert_snapshot!(
        [
            found("rule exact a relu($x) => $x"),
            found("gsr 7"),
            found("gsr 1\nruleset \"a\" { }\nruleset \"b\" { }"),
            found("gsr 1\nrule exact a relu($x) => $x\nruleset \"b\" { }"),
        ]
        .join("\n")
    );
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("neg(", ")"), ("(", ")"), ("$x:(", ")"), ("[relu](", ")")] {
        let pattern = format!("{}$x{}", open.repeat(5000), close.repeat(5000));
        assert!(found(&format!("gsr 1\nrule exact a {pattern} => $x")).contains("nested"));
    }
    for (open, close) in [("neg(", ")"), ("[", "]")] {
        let template = format!("{}$x{}", open.repeat(5000), close.repeat(5000));
        assert!(found(&format!("gsr 1\nrule exact a relu($x) => {template}")).contains("nested"));
    }
    let cond = format!("{}a(){}", "not ".repeat(5000), "");
    assert!(found(&format!("gsr 1\nrule exact a relu($x) => $x where {cond}")).contains("nested"));
}

#[test]
fn no_prefix_makes_the_parser_panic() {
    for end in (0..EVERYTHING.len()).filter(|&i| EVERYTHING.is_char_boundary(i)) {
        let _ = parse_rules(&EVERYTHING[..end]);
        let mut damaged = EVERYTHING.to_owned();
        damaged.remove(end);
        let _ = parse_rules(&damaged);
    }
}
