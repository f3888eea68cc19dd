//! Every declared operator can be evaluated, and nothing is evaluated that is not declared.

use gs_eval::{Evaluator, ops};
use gs_ir::Registry;

#[test]
fn every_declared_operator_has_an_evaluation() {
    let evaluator = Evaluator::new();
    // `opaque` stands for what nobody declared; that it has no evaluation is what it means.
    let missing: Vec<&str> = Registry::builtin()
        .iter()
        .map(|(_, d)| d.name)
        .filter(|&n| n != "opaque" && !evaluator.knows(n))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn evaluated_names_are_unique_and_declared() {
    let registry = Registry::builtin();
    let mut names: Vec<&str> = ops::names().collect();
    let undeclared: Vec<&str> = names.iter().copied().filter(|n| registry.kind(n).is_none()).collect();
    assert_eq!(undeclared, [""; 0]);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
