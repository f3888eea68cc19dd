//! Every shipped rule file loads without a finding, and every example in it does what it says.

use gs_ir::Registry;
use gs_passes::rules::{NoEnv, RuleFunctions, RuleSet, example::check_examples};
use gs_text::{Style, TextError};

#[test]
fn shipped_rules_load_and_their_examples_hold() {
    let registry = Registry::builtin();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "gsr"));
    files.sort();
    assert!(!files.is_empty());
    let mut report = String::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let sources = gs_text::SourceMap::single(&name, &text);
        let diagnostics = match RuleSet::parse(&name, &text, &registry, &RuleFunctions::builtin()) {
            Err(errors) => errors,
            Ok(set) => {
                let mut found = set.warnings.clone();
                found.extend(check_examples(&set, &registry, &NoEnv));
                found
            }
        };
        if !diagnostics.is_empty() {
            report.push_str(&TextError { sources, diagnostics }.render(Style::Plain));
        }
    }
    assert!(report.is_empty(), "{report}");
}
