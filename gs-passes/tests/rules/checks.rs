//! What is found when rules are loaded.

use gs_ir::Registry;
use gs_passes::rules::{NoEnv, RuleFunctions, RuleSet, example::check_examples};
use gs_text::{Diagnostic, SourceMap, Style, render_all};

const GREEDY: &str = "gsr 1\nruleset \"test\" { driver = greedy }\n";

fn found(text: &str) -> Vec<Diagnostic> {
    match RuleSet::parse("test.gsr", text, &Registry::builtin(), &RuleFunctions::builtin()) {
        Err(errors) => errors,
        Ok(set) => set.warnings,
    }
}

fn rendered(text: &str) -> String {
    render_all(&found(text), &SourceMap::single("test.gsr", text), Style::Plain)
}

fn codes(items: &str) -> Vec<&'static str> {
    let all = found(&format!("{GREEDY}{items}"));
    all.iter().map(|d| d.code).filter(|c| *c != "GS0604").collect()
}

/// Each rule is refused or warned of for the reason that its code says, and for no other.
#[test]
fn every_finding_has_its_case() {
    let cases: &[(&str, &[&str])] = &[
        ("rule exact a relu($x) => neg($x)\nrule exact a exp($x) => neg($x)", &["GS0601"]),
        ("insert a match $x at value $x emit relu($x)", &["GS0602"]),
        // At a use, what reads nothing of the operand replaces it; elsewhere there is nothing to replace.
        (
            "insert a match relu($x) at value $x emit neg(state \"s\" : f32[shape($x)] per $x = 0)",
            &["GS0602", "GS0630"],
        ),
        ("insert a match relu($x) at use $x emit neg(state \"s\" : f32[shape($x)] per $x = 0)", &["GS0602"]),
        ("rule exact a add($x, $y) <=> add($y, $x)", &["GS0603", "GS0642"]),
        ("rule exact a $x => neg($x)", &["GS0605"]),
        ("rule exact a ($x | relu($x)) => neg($x)", &["GS0605"]),
        ("rule exact a add($x, $y) => neg($x)", &["GS0606"]),
        ("rule exact a relu($x...) => neg($x...)", &["GS0607"]),
        ("rule exact a concat($x...) => max($x)", &["GS0617"]),
        ("rule exact a clip($p) {min = $p} => neg($p)", &["GS0608"]),
        ("rule exact a rleu($x) => neg($x)", &["GS0609"]),
        ("rule exact a relu($x) => convv($x)", &["GS0620"]),
        ("rule exact a clip($x) {mim = 1.0} => neg($x)", &["GS0610"]),
        ("rule exact a relu($x, $y) => neg($x)", &["GS0611"]),
        ("rule exact a relu($x) => add($x)", &["GS0611"]),
        ("rule exact a relu(none) => neg(none)", &["GS0612", "GS0612"]),
        ("rule exact a conv($x, $w, $b?) => add($x, $b?)", &["GS0612"]),
        ("rule exact a concat(each $q: relu($x)) => neg($x)", &["GS0613"]),
        ("rule exact a neg([add]?($x)) => neg($x)", &["GS0614"]),
        ("rule exact a cast($x) {to = none} => neg($x)", &["GS0615"]),
        ("rule exact a clip($x) {min = [1]} => neg($x)", &["GS0616"]),
        ("rule exact a clip($x) {min = $m} => softmax($x) {axis = $m, legacy = false}", &["GS0616"]),
        ("rule exact a relu($x) => clip($x) {min = rank($x)}", &["GS0616"]),
        ("rule exact a relu@r($x) => neg($r)", &["GS0617"]),
        ("rule exact a relu($x) => neg($y)", &["GS0619"]),
        ("rule exact a relu($x) => neg($x) where is_prime($x)", &["GS0620"]),
        ("rule exact a relu($x) => reshape($x) {shape = shap($x), allow_zero = false}", &["GS0620"]),
        ("rule exact a relu($x) => neg($x) where rank($x)", &["GS0622"]),
        ("rule exact a relu($x) => neg($x) where rank($x, 1.5)", &["GS0623"]),
        ("rule exact a conv($x, $w, $b?) => conv($x, $w, $b) {strides = [1]}", &["GS0624"]),
        ("rule exact a neg([relu]?@r($x)) => softmax($x) {..$r}", &["GS0624"]),
        ("rule exact a relu($x) => add($x, 1.0)", &["GS0625"]),
        ("rule exact a relu($x) => unsqueeze($x)", &["GS0626"]),
        ("rule exact a neg(softmax($x)) => softmax($x)", &["GS0627", "GS0627"]),
        ("rule exact a concat($x...) => max(each $u, $v in $x: neg($u))", &["GS0628"]),
        ("rule exact a relu(neg($x)) => abs($x)\nrule exact b relu(neg($y)) => abs($y)", &["GS0640"]),
        ("rule exact a relu($x) => abs($x)\nrule exact b relu($x) => neg($x) where rank($x, 2)", &["GS0641"]),
        (
            "rule exact a add($x, relu($y)) => abs(add($x, $y))\nrule exact b add(neg($x), relu($y)) => abs($x)",
            &["GS0606"],
        ),
        ("rule exact a add($x, $y) => add($y, $x)", &["GS0642"]),
        ("rule exact a relu($x) => relu(relu($x))", &["GS0642"]),
        ("rule exact a neg(neg($x)) => neg($x)", &[]),
        ("rule exact a clip($x) {min = 0.0} => clip($x) {min = 1.0, max = none}", &[]),
        ("rule exact a sub($x, $x) => sub($x, scalar(1.0))", &[]),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(items, expected)| codes(items) != *expected)
        .map(|(items, expected)| {
            format!(
                "{expected:?} expected, found {:?}:\n{}",
                codes(items),
                rendered(&format!("{GREEDY}{items}"))
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_rule_is_not_shadowed_by_one_that_may_not_fit_or_needs_leave() {
    let refusing = "rule exact a transpose(transpose($x) {perm = $p}) {perm = $q} => transpose($x) {perm = compose($p, $q)}
        rule exact b transpose(transpose($x) {perm = none}) {perm = none} => $x";
    assert_eq!(codes(refusing), [""; 0]);
    let looser = "rule real a relu($x) => abs($x)\nrule exact b relu($x) => neg($x)";
    assert_eq!(codes(looser), [""; 0]);
}

#[test]
fn conditions_on_uses_are_no_equalities() {
    let text = "gsr 1\nruleset \"e\" { driver = egraph }\nrule exact a relu@r(relu($x)) => relu($x) where only_user($r)\n";
    insta::assert_snapshot!(rendered(text));
}

#[test]
fn both_directions_are_rules_and_must_be_patterns() {
    let head = "gsr 1\nruleset \"e\" { driver = egraph }\n";
    let text = format!("{head}rule real a mul($x, add($y, $z)) <=> add(mul($x, $y), mul($x, $z))");
    let set = RuleSet::parse("t", &text, &Registry::builtin(), &RuleFunctions::builtin()).unwrap();
    let names: Vec<(&str, usize, bool)> =
        set.rules.iter().map(|r| (r.name.as_str(), r.size, r.reversed)).collect();
    assert_eq!(names, [("a", 2, false), ("a.reversed", 3, true)]);
    let bad = format!("{head}rule real a relu($x) <=> reshape($x) {{shape = shape($x), allow_zero = false}}");
    assert!(found(&bad).iter().any(|d| d.code == "GS0633"));
    let unequal = format!("{head}rule real a add($x, $y) <=> neg($x)");
    assert!(found(&unequal).iter().any(|d| d.code == "GS0619" && d.is_error()));
}

#[test]
fn findings_show_the_place() {
    let text = format!(
        "{GREEDY}
/// A rule with many things wrong.
rule exact many
  conv@c($x, $w) {{group = $g, stride = [1]}}
  => gemm($x, $v) {{..$c, alpha = $g}}
  where weight_onl($w), rank($x, f32)

rule real twice relu($x) => abs($x)
rule real twice relu($y) => abs($y)
"
    );
    insta::assert_snapshot!(rendered(&text));
}

#[test]
fn false_examples_are_found() {
    let set = |example: &str| {
        let text = format!("{GREEDY}rule exact relu_relu relu(relu($x)) => relu($x)\n{example}");
        let registry = Registry::builtin();
        let set =
            RuleSet::parse("test.gsr", &text, &registry, &RuleFunctions::builtin()).unwrap_or_else(|d| {
                panic!("{}", render_all(&d, &SourceMap::single("test.gsr", &text), Style::Plain))
            });
        render_all(&check_examples(&set, &registry, &NoEnv), &set.sources, Style::Plain)
    };
    let graph = |body: &str, last: &str| {
        format!("{{ graph @main(%x : f32[2]) -> (%y : f32[2]) {{\n{body}\n return {last} }} }}")
    };
    let one = graph("%0 = relu(%x) : f32[2]", "%0");
    let two = graph("%0 = relu(%x) : f32[2]\n%1 = relu(%0) : f32[2]", "%1");
    let other = graph("%0 = neg(%x) : f32[2]", "%0");
    assert_eq!(set(&format!("example \"right\" {two} => {one}")).trim(), "");
    assert_eq!(set(&format!("example \"right\" {one} => same")).trim(), "");
    insta::assert_snapshot!(
        [
            set(&format!("example \"wrong result\" {two} => {other}")),
            set(&format!("example \"does not fire\" {one} => {one}")),
            set(&format!("example \"does fire\" {two} => same")),
            set(&format!("example \"no module\" {{ graph @main(%x : f32[2]) -> (%y : f32[2]) {{ return %z }} }} => {one}")),
        ]
        .join("\n")
    );
}

/// Wrong rules whose examples agree with them: running both sides finds them.
#[test]
fn planted_wrong_rules_are_caught() {
    let constants = "const @s : f32[] = 0.5
      const @t : f32[] = 0.25
      const @n : f32[] = -0.5
      const @a : f32[] = 0.1
      const @b : f32[] = 0.3
      const @z : u8[] = 3";
    // Rule, what it claims, type of the input, what it finds, and what it makes.
    let planted = [
        (
            "relu(neg($x)) => abs($x)",
            "real",
            "f32",
            "%0 = neg(%x) : f32[2, 3]\n%1 = relu(%0) : f32[2, 3]",
            "%1 = abs(%x) : f32[2, 3]",
        ),
        (
            "add(add($x, $a), $b) => add($x, add($a, $b)) where constant($a), constant($b)",
            "exact",
            "f32",
            "%0 = add(%x, @a) : f32[2, 3]\n%1 = add(%0, @b) : f32[2, 3]",
            "%0 = add(@a, @b) : f32[]\n%1 = add(%x, %0) : f32[2, 3]",
        ),
        (
            "dequantize(quantize(dequantize@d($q, $s, $z), _, $z), _, $z) => dequantize($q, $s, $z) {..$d}",
            "codes(1)",
            "u8",
            "%0 = dequantize(%x, @s, @z) : f32[2, 3]\n%2 = quantize(%0, @t, @z) : u8[2, 3]\n%1 = dequantize(%2, @t, @z) : f32[2, 3]",
            "%1 = dequantize(%x, @s, @z) : f32[2, 3]",
        ),
        (
            "reduce_max@m(dequantize@d($q, $s, $z)) => dequantize(reduce_max($q) {..$m}, $s, $z) {..$d}",
            "exact",
            "u8",
            "%0 = dequantize(%x, @n, @z) : f32[2, 3]\n%1 = reduce_max(%0) {axes = [1]} : f32[2, 1]",
            "%0 = reduce_max(%x) {axes = [1]} : u8[2, 1]\n%1 = dequantize(%0, @n, @z) : f32[2, 1]",
        ),
        (
            "mul($x, $c) => $x where constant($c)",
            "real",
            "f32",
            "%0 = mul(%x, @a) : f32[2, 3]\n%1 = exp(%0) : f32[2, 3]",
            "%1 = exp(%x) : f32[2, 3]",
        ),
    ];
    let registry = Registry::builtin();
    for (rule, claim, elem, before, after) in planted {
        let result = if after.contains("[2, 1]") { "f32[2, 1]" } else { "f32[2, 3]" };
        let graph = |body: &str| {
            format!(
                "{{ {constants}\ngraph @main(%x : {elem}[2, 3]) -> (%y : {result}) {{\n{body}\nreturn %1 }} }}"
            )
        };
        let text = format!(
            "{GREEDY}rule {claim} planted {rule}\nexample \"it agrees\" {} => {}",
            graph(before),
            graph(after)
        );
        let set =
            RuleSet::parse("test.gsr", &text, &registry, &RuleFunctions::builtin()).unwrap_or_else(|d| {
                panic!("{}", render_all(&d, &SourceMap::single("test.gsr", &text), Style::Plain))
            });
        let codes: Vec<&str> = check_examples(&set, &registry, &NoEnv).iter().map(|d| d.code).collect();
        assert_eq!(codes, ["GS0653"], "{rule}");
    }
}

#[test]
fn an_embedder_adds_functions() {
    use gs_passes::rules::functions::{Function, Param};
    let mut functions = RuleFunctions::builtin();
    let text = format!("{GREEDY}rule exact a relu($x) => abs($x) where even_rank($x)");
    assert!(RuleSet::parse("t", &text, &Registry::builtin(), &functions).is_err());
    functions.register(Function::condition("even_rank", &[Param::Value], "the rank is even", |ctx, args| {
        let dims = ctx.view.type_of(args[0].value()?).dims().ok_or("the rank is unknown")?;
        Ok(dims.len() % 2 == 0)
    }));
    let set = RuleSet::parse("t", &text, &Registry::builtin(), &functions).unwrap();
    let module = |ty: &str| {
        crate::support::module(&format!(
            "gsir 1\ngraph @main(%x : {ty}) -> (%y : {ty}) {{\n  %0 = relu(%x) : {ty}\n  return %0\n}}\n"
        ))
    };
    assert_eq!(crate::support::run(&mut module("f32[2, 2]"), &set).rewrites, 1);
    assert_eq!(crate::support::run(&mut module("f32[2]"), &set).rewrites, 0);
}
