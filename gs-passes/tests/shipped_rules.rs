//! Every shipped rule file loads without a finding, every example in it does what it says, and both sides compute the
//! same as closely as the rule claims.

use gs_ir::Registry;
use gs_passes::rules::{NoEnv, RuleFunctions, RuleSet, example::check_examples};
use gs_text::gsr::{parse_rules, print_rules};
use gs_text::{SourceMap, Style, TextError};

fn files() -> Vec<(String, String)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "gsr"));
    files.sort();
    assert!(!files.is_empty());
    let read = |f: std::path::PathBuf| {
        (f.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&f).unwrap())
    };
    files.into_iter().map(read).collect()
}

#[test]
fn shipped_rules_load_and_their_examples_hold() {
    let registry = Registry::builtin();
    let mut report = String::new();
    for (name, text) in files() {
        let diagnostics = match RuleSet::parse(&name, &text, &registry, &RuleFunctions::builtin()) {
            Err(errors) => errors,
            Ok(set) => {
                assert!(
                    set.rules.iter().all(|r| !r.doc.is_empty()),
                    "{name}: every rule says what it is for"
                );
                let mut found = set.warnings.clone();
                found.extend(check_examples(&set, &registry, &NoEnv));
                found
            }
        };
        if !diagnostics.is_empty() {
            let sources = SourceMap::single(&name, &text);
            report.push_str(&TextError { sources, diagnostics }.render(Style::Plain));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn printed_rules_parse_to_themselves() {
    for (name, text) in files() {
        let printed = print_rules(&parse_rules(&text).unwrap());
        let again =
            print_rules(&parse_rules(&printed).unwrap_or_else(|d| panic!("{name}: {d:?}\n{printed}")));
        assert_eq!(printed, again, "{name}");
        let load = |text: &str| {
            RuleSet::parse(&name, text, &Registry::builtin(), &RuleFunctions::builtin()).unwrap()
        };
        let (a, b) = (load(&text), load(&printed));
        assert_eq!(a.rules.len(), b.rules.len());
        assert!(b.warnings.is_empty(), "{name}: {:?}", b.warnings);
    }
}

#[test]
fn no_damage_to_a_file_makes_the_parser_panic() {
    let (registry, functions) = (Registry::builtin(), RuleFunctions::builtin());
    for (name, text) in files() {
        let mut errors = 0;
        for cut in (0..text.len()).step_by(211).filter(|&i| text.is_char_boundary(i)) {
            errors += usize::from(RuleSet::parse(&name, &text[..cut], &registry, &functions).is_err());
            // The same with the character there left out.
            let mut damaged = text.clone();
            damaged.remove(cut);
            let _ = RuleSet::parse(&name, &damaged, &registry, &functions);
        }
        assert!(errors > 0, "{name}");
    }
}
