//! Runs the examples that rules carry: each must do what it says, with its rule alone, and before and after must
//! compute the same as closely as the rule claims.

use super::env::RuleEnv;
use super::greedy::{GreedyOptions, greedy};
use super::insert::insert;
use super::meaning::same_results;
use super::rule::{InsertRule, Rule, RuleSet};
pub use super::same::same_network;
use gs_ir::{GlobalId, Module, Registry, Rewriter, infer_module, verify};
use gs_text::gsir::parse_fragment;
use gs_text::gsr::Driver;
use gs_text::gsr::Strictness;
use gs_text::gsr::ast::{Example, Snippet};
use gs_text::{Cursor, Diagnostic, FileId, PrintOptions, print_to_string};
use std::sync::Arc;

/// Runs all examples of a rule set. What is wrong comes with places in the rule set's own text.
pub fn check_examples(set: &RuleSet, registry: &Arc<Registry>, env: &dyn RuleEnv) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for rule in &set.rules {
        for e in &rule.examples {
            out.extend(check_rule(rule, e, registry, env).err().into_iter().flatten());
        }
    }
    for rule in &set.inserts {
        for e in &rule.examples {
            out.extend(check_insert(rule, e, registry, env).err().into_iter().flatten());
        }
    }
    out
}

fn check_rule(
    rule: &Rule,
    e: &Example,
    registry: &Arc<Registry>,
    env: &dyn RuleEnv,
) -> Result<(), Vec<Diagnostic>> {
    let mut module = module_of(&e.before, registry)?;
    let alone = RuleSet { rules: vec![rule.clone()], driver: Driver::Greedy, ..RuleSet::default() };
    let options = GreedyOptions { leave: Strictness::Real, ..GreedyOptions::default() };
    let stats = greedy(&mut module, &alone, &options, env);
    if e.after.is_some() && stats.rewrites == 0 {
        let mut d = Diagnostic::error(
            "GS0650",
            format!("the example of `{}` does not show it: it does not fire", rule.name),
        );
        d = d.label(e.before.span, "here");
        let best = super::explain(&module, &alone, env, &|_, _| true).into_iter().max_by_key(|r| r.progress);
        d = best.into_iter().fold(d, |d, r| d.note(r.to_string()));
        let refused = stats.refused.iter().map(|r| format!("at {}: {}", r.op, r.reason));
        return Err(vec![refused.fold(d, Diagnostic::note)]);
    }
    let before = module_of(&e.before, registry)?;
    same_results(&before, &module, rule.strictness).map_err(|difference| {
        let message =
            format!("`{}` claims to be {}, but in its example {difference}", rule.name, rule.strictness);
        vec![
            Diagnostic::error("GS0653", message)
                .label(e.before.span, "this does not compute the same afterwards"),
        ]
    })?;
    finish(&rule.name, e, module, registry)
}

fn check_insert(
    rule: &InsertRule,
    e: &Example,
    registry: &Arc<Registry>,
    env: &dyn RuleEnv,
) -> Result<(), Vec<Diagnostic>> {
    let mut module = module_of(&e.before, registry)?;
    let alone = RuleSet { inserts: vec![rule.clone()], driver: Driver::Insert, ..RuleSet::default() };
    insert(&mut module, &alone, env)?;
    finish(&rule.name, e, module, registry)
}

/// Compares what came out with what the example says.
fn finish(
    rule: &str,
    e: &Example,
    mut module: Module,
    registry: &Arc<Registry>,
) -> Result<(), Vec<Diagnostic>> {
    let wanted = module_of(e.after.as_ref().unwrap_or(&e.before), registry)?;
    remove_unused_globals(&mut module);
    let place = e.after.as_ref().unwrap_or(&e.before).span;
    if let Err(errors) = verify(&module) {
        let d = Diagnostic::error("GS0651", format!("`{rule}` makes a broken module of its example"))
            .label(place, "");
        return Err(vec![errors.iter().fold(d, |d, e| d.note(e.describe(&module)))]);
    }
    same_network(&module, &wanted).map_err(|difference| {
        let message = format!("the example of `{rule}` is wrong: {difference}");
        let found = print_to_string(&module, &PrintOptions { provenance: false, ..PrintOptions::default() });
        vec![
            Diagnostic::error("GS0650", message)
                .label(place, "this was expected")
                .note(format!("this came out:\n{found}")),
        ]
    })
}

/// The module of an example, its types inferred.
fn module_of(snippet: &Snippet, registry: &Arc<Registry>) -> Result<Module, Vec<Diagnostic>> {
    // Blanks in front give its places those that they have in the rule file.
    let blank = " ".repeat(snippet.span.start as usize + 1);
    let text = format!("{blank}{}}}", snippet.text);
    let mut cursor = Cursor::new(FileId(0), &text);
    let parsed = parse_fragment(&mut cursor, registry);
    let Some(parsed) = parsed.filter(|_| !cursor.has_errors()) else { return Err(cursor.into_diagnostics()) };
    let mut module = parsed.module;
    let broken = |d: Diagnostic| Err(vec![d.label(snippet.span, "")]);
    let misfits = infer_module(&mut module);
    if let Some(m) = misfits.first() {
        return broken(Diagnostic::error(
            "GS0652",
            format!("the example does not fit: {}: {}", module.label(m.op), m.error),
        ));
    }
    match verify(&module) {
        Ok(()) => Ok(module),
        Err(errors) => {
            let d = Diagnostic::error("GS0652", "the example is no valid module");
            broken(errors.iter().fold(d, |d, e| d.note(e.describe(&module))))
        }
    }
}

fn remove_unused_globals(module: &mut Module) {
    loop {
        let derived_from: Vec<GlobalId> = module
            .globals()
            .filter_map(|(_, g)| match &g.init {
                gs_ir::Init::Derived(d) => Some(d.operands.iter().flatten().copied().collect::<Vec<_>>()),
                _ => None,
            })
            .flatten()
            .collect();
        let stored: Vec<GlobalId> = module
            .entries()
            .iter()
            .flat_map(|&g| module.graph(g).updates().map(|(g, _)| g).collect::<Vec<_>>())
            .collect();
        let unused = |(id, g): &(GlobalId, &gs_ir::Global)| {
            module.value(g.value).uses().is_empty() && !derived_from.contains(id) && !stored.contains(id)
        };
        let Some(id) = module.globals().find(unused).map(|(id, _)| id) else { return };
        Rewriter::new(module).remove_global(id);
    }
}
