//! Chains of data movement.

use super::*;

/// A chain of operations on one value, as text; the last is returned.
fn chain(input: &str, steps: &[(&str, &str)]) -> String {
    let mut text = format!("gsir 1\ngraph @main(%x : {input}) -> (%y : {}) {{\n", steps.last().unwrap().1);
    let mut value = "%x".to_owned();
    for (i, (step, ty)) in steps.iter().enumerate() {
        let (op, attrs) = step.split_once(' ').unwrap_or((step, ""));
        text.push_str(&format!("  %{i} = {op}({value}) {attrs} : {ty} from \"n{i}\"\n"));
        value = format!("%{i}");
    }
    text.push_str(&format!("  return {value}\n}}\n"));
    text
}

#[test]
fn transposes_join_and_vanish() {
    let text = chain(
        "f32[2, 3, 5]",
        &[
            ("transpose {perm = [1, 0, 2]}", "f32[3, 2, 5]"),
            ("transpose {perm = [2, 0, 1]}", "f32[5, 3, 2]"),
            ("relu", "f32[5, 3, 2]"),
            ("transpose {perm = [1, 0, 2]}", "f32[3, 5, 2]"),
            ("transpose {perm = [1, 0, 2]}", "f32[5, 3, 2]"),
            ("exp", "f32[5, 3, 2]"),
        ],
    );
    let set = shipped("layout.gsr");
    let (after, stats) = saturated(&text, &set);
    assert_eq!(operators(&after), ["transpose", "relu", "exp"]);
    assert!(stats.cost_after <= cost(&greedily(&module(&text), &set)));
    insta::assert_snapshot!(print(&after));
}

#[test]
fn reshapes_join_and_vanish() {
    let text = chain(
        "f32[2, 3, 4]",
        &[
            ("reshape {shape = [6, 4]}", "f32[6, 4]"),
            ("unsqueeze {axes = [1]}", "f32[6, 1, 4]"),
            ("squeeze {axes = [1]}", "f32[6, 4]"),
            ("flatten", "f32[6, 4]"),
            ("reshape {shape = [2, 12]}", "f32[2, 12]"),
            ("reshape {shape = [2, 3, 4]}", "f32[2, 3, 4]"),
            ("relu", "f32[2, 3, 4]"),
        ],
    );
    let set = shipped("layout.gsr");
    let (after, stats) = saturated(&text, &set);
    assert_eq!(operators(&after), ["relu"]);
    assert!(stats.cost_after <= cost(&greedily(&module(&text), &set)));
    insta::assert_snapshot!(print(&after));
}

#[test]
fn a_long_chain_becomes_one_operation() {
    let perms = ["[1, 2, 0]", "[0, 2, 1]", "[2, 1, 0]"];
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut dims = [2, 3, 5];
    for i in 0..24 {
        let perm = perms[i % 3];
        let order: Vec<usize> = perm.chars().filter_map(|c| c.to_digit(10)).map(|d| d as usize).collect();
        dims = [dims[order[0]], dims[order[1]], dims[order[2]]];
        steps.push((
            format!("transpose {{perm = {perm}}}"),
            format!("f32[{}, {}, {}]", dims[0], dims[1], dims[2]),
        ));
    }
    steps.push(("exp".into(), steps.last().unwrap().1.clone()));
    let steps: Vec<(&str, &str)> = steps.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let text = chain("f32[2, 3, 5]", &steps);
    let set = shipped("layout.gsr");
    let (after, stats) = saturated(&text, &set);
    assert!(operators(&after).len() <= 2, "{}", print(&after));
    assert!(stats.cost_after <= cost(&greedily(&module(&text), &set)));
}

#[test]
fn greedy_gets_stuck_where_equalities_do_not() {
    // Visited first, the product becomes a sum, and then nothing divides it any more.
    let set = rules(
        "rule exact twice mul($x, 2.0) => add($x, $x)\n\
         rule exact undone div(mul($x, $c), $c) => $x where all_equal($c, 2.0)\n",
    );
    let text = "gsir 1\nconst @two : f32[] = 2.0\ngraph @main(%x : f32[4]) -> (%y : f32[4]) {\n\
                \x20 %0 = mul(%x, @two) : f32[4] from \"mul\"\n  %1 = div(%0, @two) : f32[4] from \"div\"\n\
                \x20 %2 = exp(%1) : f32[4] from \"exp\"\n  return %2\n}\n";
    let stuck = greedily(&module(text), &set);
    assert_eq!(operators(&stuck), ["add", "div", "exp"]);
    let (after, stats) = saturated(text, &set);
    assert_eq!(operators(&after), ["exp"]);
    assert!(stats.cost_after < cost(&stuck));
}

#[test]
fn both_directions_of_an_equality_are_walked() {
    // A step that costs nothing yet, made at every operation between two transposes, lets them cancel.
    let set = rules(
        "rule exact swap relu(transpose($x) {perm = $p}) <=> transpose(relu($x)) {perm = $p}\n\
         rule exact swap_add add(transpose@t($x) {perm = $p}, transpose($y) {perm = $p}) => transpose(add($x, $y)) {..$t}\n\
         rule exact join transpose(transpose($x) {perm = $p}) {perm = $q} => transpose($x) {perm = compose($p, $q)}\n\
         rule exact nothing transpose($x) {perm = $p} => $x where is_identity($p)\n",
    );
    let text = chain(
        "f32[2, 3, 5]",
        &[
            ("transpose {perm = [1, 2, 0]}", "f32[3, 5, 2]"),
            ("relu", "f32[3, 5, 2]"),
            ("transpose {perm = [2, 0, 1]}", "f32[2, 3, 5]"),
            ("transpose {perm = [2, 1, 0]}", "f32[5, 3, 2]"),
            ("relu", "f32[5, 3, 2]"),
            ("transpose {perm = [2, 1, 0]}", "f32[2, 3, 5]"),
        ],
    );
    let (after, _) = saturated(&text, &set);
    assert_eq!(operators(&after), ["relu", "relu"]);
}

#[test]
fn what_several_need_goes_when_all_of_them_can_do_without() {
    // Each second transposition alone costs the same from %x; only all together save the first.
    let set = shipped("layout.gsr");
    for users in [2, 3, 20] {
        let mut text = String::from("gsir 1\ngraph @main(%x : f32[2, 3, 5]) -> (");
        let results: Vec<String> = (0..users).map(|i| format!("%y{i} : f32[3, 5, 2]")).collect();
        text.push_str(&format!("{}) {{\n", results.join(", ")));
        text.push_str("  %s = transpose(%x) {perm = [2, 0, 1]} : f32[5, 2, 3]\n");
        for i in 0..users {
            text.push_str(&format!("  %t{i} = transpose(%s) {{perm = [2, 0, 1]}} : f32[3, 5, 2]\n"));
            let op = if i % 2 == 0 { "relu" } else { "neg" };
            text.push_str(&format!("  %u{i} = {op}(%t{i}) : f32[3, 5, 2]\n"));
        }
        let returned: Vec<String> = (0..users).map(|i| format!("%u{i}")).collect();
        text.push_str(&format!("  return {}\n}}\n", returned.join(", ")));
        let (after, stats) = saturated(&text, &set);
        assert_eq!(operators(&after), ["transpose", "relu", "neg"]);
        assert!(stats.cost_after <= cost(&greedily(&module(&text), &set)));
    }
    let text = "gsir 1\ngraph @main(%x : f32[2, 3, 5]) -> (%a : f32[3, 5, 2], %b : f32[2, 5, 3], %c : f32[3, 2, 5]) {\n\
                \x20 %s = transpose(%x) {perm = [2, 0, 1]} : f32[5, 2, 3]\n\
                \x20 %0 = transpose(%s) {perm = [2, 0, 1]} : f32[3, 5, 2]\n\
                \x20 %1 = transpose(%s) {perm = [1, 0, 2]} : f32[2, 5, 3]\n\
                \x20 %2 = transpose(%s) {perm = [2, 1, 0]} : f32[3, 2, 5]\n  return %0, %1, %2\n}\n";
    let (after, stats) = saturated(text, &set);
    assert_eq!(operators(&after), ["transpose"; 3]);
    assert!(stats.cost_after < stats.cost_before);
}
