//! The pages in `docs/` say what the parsers accept: their examples are read and run, their grammars are the ones that
//! the parsers carry, and the keys of target files are those that the schema has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gs_ir::Registry;
use gs_passes::rules::example::check_examples;
use gs_passes::rules::{NoEnv, RuleSet};
use gs_passes::target::Target;
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The code blocks of a page that carry this word.
fn blocks(page: &str, word: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    // The block that is open: whether it is one of those wanted, and its text.
    let mut open: Option<(bool, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(w), None) => open = Some((w == word, String::new())),
            (Some(_), Some((wanted, text))) => {
                blocks.extend(wanted.then(|| std::mem::take(text)));
                open = None;
            }
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// The grammar in the `//!` lines of a source file.
fn grammar(source: &str) -> String {
    let source = read(source);
    let doc = source.lines().filter_map(|l| l.strip_prefix("//!"));
    let text: String = doc.map(|l| format!("{}\n", l.strip_prefix(' ').unwrap_or(l))).collect();
    blocks(&text, "text").pop().expect("a grammar")
}

#[test]
fn grammars_are_those_of_the_parsers() {
    for (page, source) in
        [("docs/gsir.md", "gs-text/src/gsir/mod.rs"), ("docs/rules.md", "gs-text/src/gsr/mod.rs")]
    {
        let shown = blocks(&read(page), "text");
        assert_eq!(shown, [grammar(source)], "{page} shows another grammar than {source}");
    }
}

#[test]
fn modules_print_as_they_are_shown() {
    let shown = blocks(&read("docs/gsir.md"), "gsir");
    assert!(!shown.is_empty());
    for text in shown {
        let module = parse_module(&text, None, &Registry::builtin()).unwrap_or_else(|d| {
            panic!("{}", render_all(&d, &SourceMap::single("docs/gsir.md", &text), Style::Plain))
        });
        gs_ir::verify(&module).expect("a sound module");
        assert_eq!(print_to_string(&module, &PrintOptions::default()), text);
    }
}

#[test]
fn rules_do_what_their_examples_show() {
    let shown = blocks(&read("docs/rules.md"), "gsr");
    assert!(shown.len() > 1);
    let registry = Registry::builtin();
    for text in shown {
        let fail = |d: &[gs_text::Diagnostic]| -> RuleSet {
            panic!("{}", render_all(d, &SourceMap::single("docs/rules.md", &text), Style::Plain))
        };
        let set = RuleSet::parse("docs/rules.md", &text, &registry, &gs_algos::rules::functions())
            .unwrap_or_else(|d| fail(&d));
        assert!(set.rules.iter().all(|r| !r.examples.is_empty()) && set.rules.len() + set.inserts.len() == 1);
        let wrong = check_examples(&set, &registry, &NoEnv);
        if !wrong.is_empty() {
            fail(&wrong);
        }
    }
}

/// A row of the table of keys.
struct Key {
    needed: bool,
    values: BTreeSet<String>,
}

fn words(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The table of docs/targets.md: key, with `OP` where an operator stands, and its row.
fn keys() -> BTreeMap<String, Key> {
    let page = read("docs/targets.md");
    let table = page.lines().skip_while(|l| !l.starts_with("| key |")).take_while(|l| l.starts_with('|'));
    let rows = table.filter(|l| l.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let key = cells[1].trim_matches('`').to_owned();
        (key, Key { needed: cells[2] == "yes", values: words(cells[3]) })
    })
    .collect()
}

/// The keys of one table of the file, from the parser's answer to one that it does not know.
fn known_keys(table: &str, text: &str) -> BTreeSet<String> {
    let unknown = "no_such_key = 1\n";
    let text = match table {
        "" => format!("{unknown}{text}"),
        _ if text.contains(&format!("\n[{table}]\n")) => {
            text.replace(&format!("\n[{table}]\n"), &format!("\n[{table}]\n{unknown}"))
        }
        _ => text.replace(&format!("\n{table} = {{"), &format!("\n{table} = {{ no_such_key = 1,")),
    };
    let error = Target::parse(&text).expect_err("an unknown key").to_string();
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{table}: {error}"));
    words(expected)
}

#[test]
fn keys_of_target_files_are_those_of_the_schema() {
    let text = read("gs-algos/targets/ort-cpu.toml");
    let documented = keys();
    // Every key by the table that it stands in; tables themselves are keys of the file.
    let mut tables: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for key in documented.keys() {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        tables.entry(table).or_default().insert(name.to_owned());
        if let Some(top) = table.split('.').next().filter(|t| !t.is_empty()) {
            tables.entry("").or_default().insert(top.to_owned());
        }
    }
    for (table, names) in &tables {
        if *table == "rewrite" {
            continue; // any operator is a key there
        }
        let real = known_keys(&table.replace("OP", "conv"), &text);
        assert_eq!(*names, real, "docs/targets.md, table `{table}`");
    }
}

/// The file without a key, or with another value for it; keys stand on lines of their own or in `{ a = 1, b = 2 }`.
fn with_value(text: &str, key: &str, value: Option<&str>) -> String {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut current = "";
    let mut out = String::new();
    for line in text.lines() {
        if let Some(t) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            current = t;
        }
        let inline = current.is_empty() && !table.is_empty() && line.starts_with(&format!("{table} = {{"));
        if inline {
            let (before, inside) = line.split_once('{').expect("a table");
            let mut entries: Vec<String> =
                inside.trim_end().trim_end_matches('}').split(',').map(|e| e.trim().to_owned()).collect();
            entries.retain(|e| !e.starts_with(&format!("{name} = ")));
            entries.extend(value.map(|v| format!("{name} = {v}")));
            out += &format!("{before}{{ {} }}\n", entries.join(", "));
        } else if current == table && line.starts_with(&format!("{name} = ")) {
            out += &value.map(|v| format!("{name} = {v}\n")).unwrap_or_default();
        } else {
            out += &format!("{line}\n");
        }
    }
    out
}

#[test]
fn keys_of_target_files_are_needed_and_have_values_as_said() {
    let text = read("gs-algos/targets/ort-cpu.toml");
    for (key, row) in keys() {
        let real = key.replace("OP", "conv");
        let without = Target::parse(&with_value(&text, &real, None));
        assert_eq!(without.is_err(), row.needed, "{key}");
        if row.values.is_empty() {
            continue;
        }
        let list = ["granularity", "types"].iter().any(|name| key.ends_with(name));
        let wrong = if list { "[\"no_such_word\"]" } else { "\"no_such_word\"" };
        let error =
            Target::parse(&with_value(&text, &real, Some(wrong))).expect_err("a wrong word").to_string();
        let listed = error.rsplit_once("expected").or_else(|| error.rsplit_once("there are:"));
        let (_, expected) = listed.unwrap_or_else(|| panic!("{key}: {error}"));
        assert_eq!(words(expected), row.values, "{key}");
    }
}
