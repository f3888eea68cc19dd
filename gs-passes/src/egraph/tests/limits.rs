//! Limits are counts; a run that hits one still gives an equal network, and says so.

use super::*;
use crate::egraph::StopReason;

const GROWS: &str = "
rule exact commute add($x, $y) => add($y, $x)
rule exact associate add(add($x, $y), $z) => add($x, add($y, $z))
rule exact nothing add($x, 0.0) => $x
";

fn sum() -> String {
    let mut text = String::from("gsir 1\nconst @zero : f32[] = 0.0\ngraph @main(");
    let inputs: Vec<String> = (0..8).map(|i| format!("%x{i} : f32[2]")).collect();
    text.push_str(&inputs.join(", "));
    text.push_str(") -> (%y : f32[2]) {\n  %a0 = add(%x0, @zero) : f32[2]\n");
    for i in 1..8 {
        text.push_str(&format!("  %a{i} = add(%a{}, %x{i}) : f32[2]\n", i - 1));
    }
    text.push_str("  return %a7\n}\n");
    text
}

fn limited(options: EgraphOptions) -> EgraphStats {
    let mut m = module(&sum());
    let stats = saturate(&mut m, &rules(GROWS), &options, &NoEnv).unwrap();
    check(&m);
    assert_eq!(operators(&m).len(), 7, "{stats:?}");
    stats
}

#[test]
fn each_limit_is_reported() {
    let stats = limited(EgraphOptions { iterations: 2, ..EgraphOptions::default() });
    assert_eq!((stats.stop, stats.iterations), (StopReason::Iterations(2), 2));
    let stats = limited(EgraphOptions { nodes: 200, ..EgraphOptions::default() });
    assert_eq!(stats.stop, StopReason::Nodes(200));
    assert!(stats.nodes < 210, "{stats:?}");
    let stats = limited(EgraphOptions { matches: 50, ..EgraphOptions::default() });
    assert_eq!((stats.stop, stats.matches), (StopReason::Matches(50), 50));
    let stats = limited(EgraphOptions::default());
    assert_eq!(stats.stop, StopReason::Saturated);
    assert!(stats.by_rule.iter().any(|(rule, n)| rule == "associate" && *n > 10), "{stats:?}");
}
