//! What the tests share.

use gs_ir::{Module, Registry, verify};
use gs_passes::rules::{GreedyOptions, NoEnv, RuleFunctions, RuleSet, Stats};
use gs_text::gsr::Strictness;
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};

/// A valid module from text.
pub(crate) fn module(text: &str) -> Module {
    let module = parse_module(text, None, &Registry::builtin())
        .unwrap_or_else(|d| panic!("{}", render_all(&d, &SourceMap::single("module", text), Style::Plain)));
    check(&module);
    module
}

/// The verifier finds nothing.
pub(crate) fn check(module: &Module) {
    if let Err(errors) = verify(module) {
        let all: Vec<String> = errors.iter().map(|e| e.describe(module)).collect();
        panic!("{}\n{}", all.join("\n"), print(module));
    }
}

/// A module as text, with everything.
pub(crate) fn print(module: &Module) -> String {
    print_to_string(module, &PrintOptions::default())
}

/// Rules from the text of their items.
pub(crate) fn rules(items: &str) -> RuleSet {
    load("gsr 1\nruleset \"test\" { driver = greedy }\n", items)
}

/// Insertions from the text of their items.
pub(crate) fn inserts(items: &str) -> RuleSet {
    load("gsr 1\nruleset \"test\" { driver = insert }\n", items)
}

fn load(head: &str, items: &str) -> RuleSet {
    let text = format!("{head}{items}");
    RuleSet::parse("test.gsr", &text, &Registry::builtin(), &RuleFunctions::builtin())
        .unwrap_or_else(|d| panic!("{}", render_all(&d, &SourceMap::single("test.gsr", &text), Style::Plain)))
}

/// Runs rules of every strictness and checks what comes out.
pub(crate) fn run(module: &mut Module, set: &RuleSet) -> Stats {
    let options = GreedyOptions { leave: Strictness::Real, ..GreedyOptions::default() };
    let stats = gs_passes::rules::greedy(module, set, &options, &NoEnv);
    check(module);
    stats
}

/// Before and after, for a snapshot.
pub(crate) fn rewrite(items: &str, text: &str) -> String {
    let mut m = module(text);
    let before = print(&m);
    let stats = run(&mut m, &rules(items));
    let fired: Vec<String> = stats.by_rule.iter().map(|(r, n)| format!("{r} {n}")).collect();
    format!("{before}=> {}\n{}", fired.join(", "), print(&m))
}
