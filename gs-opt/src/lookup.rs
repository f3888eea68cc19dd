//! `gs-opt passes`, `ops`, `rules`, `targets`, `explain`: looking things up. Everything shown is read from the
//! declarations that the compiler itself reads.

use crate::cli::{LookupArgs, RulesArgs};
use crate::failure::{Failure, Outcome};
use crate::passes::registry;
use crate::{say, say_part};
use gs_algos::selector::closest;
use gs_ir::Registry;
use gs_ir::registry::{Arity, AttrDecl, Default as AttrDefault, OpDecl, Traits};
use gs_passes::rules::functions::{Body, Function};
use gs_text::gsr::{self, RuleFile, Strictness};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names that are listed where none is close to the one asked for.
const FEW: usize = 12;

/// One thing that can be looked up: its name, one line about it, and everything about it.
struct Item {
    name: String,
    line: String,
    full: String,
    json: Value,
}

/// Lists passes.
///
/// # Errors
/// A name that is not there.
pub fn passes(args: &LookupArgs) -> Outcome<()> {
    let registry = registry();
    let item = |i: &gs_passes::manager::PassInfo| {
        let phases: Vec<&str> = i.accepts.iter().map(|p| p.name()).collect();
        let mut full = format!("{}: {}\n  accepts a module that is {}\n", i.name, i.doc, phases.join(" or "));
        if let Some(p) = i.produces {
            full += &format!("  makes it {p}\n");
        }
        for (name, doc) in i.options {
            full += &format!("  {name}: {doc}\n");
        }
        let options: Vec<Value> = i.options.iter().map(|(n, d)| json!({"name": n, "doc": d})).collect();
        let json = json!({"name": i.name, "doc": i.doc, "accepts": phases, "options": options});
        Item { name: i.name.to_owned(), line: i.doc.to_owned(), full, json }
    };
    show("pass", args, registry.iter().map(item).collect())
}

/// Lists operators.
///
/// # Errors
/// A name that is not there.
pub fn ops(args: &LookupArgs) -> Outcome<()> {
    show("operator", args, Registry::builtin().iter().map(|(_, d)| op_item(d)).collect())
}

fn op_item(d: &OpDecl) -> Item {
    let mark = |name: &str, arity: Arity| match arity {
        Arity::One => name.to_owned(),
        Arity::Optional => format!("{name}?"),
        Arity::Variadic => format!("{name}..."),
    };
    let operands: Vec<String> = d.operands.iter().map(|o| mark(o.name, o.arity)).collect();
    let results: Vec<String> = d.results.iter().map(|r| mark(r.name, r.arity)).collect();
    let signature = format!("{}({}) -> {}", d.name, operands.join(", "), results.join(", "));
    let traits: Vec<&str> = Traits::NAMES.iter().filter(|(_, t)| d.traits.has(*t)).map(|(n, _)| *n).collect();
    let mut full = format!("{signature}\n  {}\n", d.doc);
    for a in d.attrs {
        full += &format!("  {}: {}\n", a.name, attr_words(a));
    }
    if !traits.is_empty() {
        full += &format!("  traits: {}\n", traits.join(", "));
    }
    if let Some(o) = &d.onnx {
        let domain = if o.domain.is_empty() { "ai.onnx" } else { o.domain };
        let versions: Vec<String> =
            o.forms.iter().filter(|f| f.covered).map(|f| f.since.to_string()).collect();
        full += &format!("  ONNX: {domain}::{}, versions {}\n", o.name, versions.join(", "));
    }
    let json = json!({
        "name": d.name, "doc": d.doc, "operands": operands, "results": results, "traits": traits,
        "attributes": d.attrs.iter().map(|a| json!({"name": a.name, "kind": format!("{:?}", a.kind)})).collect::<Vec<_>>(),
        "onnx": d.onnx.as_ref().map(|o| o.name),
    });
    Item { name: d.name.to_owned(), line: d.doc.to_owned(), full, json }
}

fn attr_words(a: &AttrDecl) -> String {
    let kind = format!("{:?}", a.kind).to_lowercase();
    match a.default {
        AttrDefault::Required => format!("{kind}, required"),
        AttrDefault::Absent => format!("{kind}, may be absent"),
        AttrDefault::Int(v) => format!("{kind}, by default {v}"),
        AttrDefault::Float(v) => format!("{kind}, by default {v}"),
        AttrDefault::Bool(v) => format!("{kind}, by default {v}"),
        AttrDefault::Word(v) => format!("{kind}, by default \"{v}\""),
        AttrDefault::All(v) => format!("{kind}, by default all {v}"),
        AttrDefault::Elem(v) => format!("{kind}, by default {v}"),
    }
}

/// Lists shipped rules, or the functions that rules may call.
///
/// # Errors
/// A name that is not there, or a rule file that does not load (a defect).
pub fn rules(args: &RulesArgs) -> Outcome<()> {
    if args.functions {
        return show("function of rules", &args.lookup, functions());
    }
    let mut items = Vec::new();
    let files = gs_passes::passes::SHIPPED_RULES.iter().chain(gs_algos::rules::SHIPPED);
    for (file, text) in files {
        let set = gs_algos::rules::load(file, text, &Registry::builtin())
            .map_err(|e| Failure::new(e.to_string()))?;
        let written = as_written(text);
        let strict = |s: &Strictness| match s {
            Strictness::Exact => "exact".to_owned(),
            Strictness::Codes(n) => format!("within {n} codes"),
            Strictness::Real => "equal over the reals".to_owned(),
        };
        let rules = set
            .rules
            .iter()
            .filter(|r| !r.reversed)
            .map(|r| (r.name.clone(), r.doc.clone(), strict(&r.strictness)));
        let inserts = set.inserts.iter().map(|r| (r.name.clone(), r.doc.clone(), "insertion".to_owned()));
        for (name, doc, kind) in rules.chain(inserts) {
            let line = doc.lines().next().unwrap_or_default().trim().to_owned();
            let written = written.get(&name).map_or("", String::as_str);
            let full =
                format!("{name} ({file}, {kind})\n  {}\n\n{written}\n", doc.trim().replace('\n', "\n  "));
            let json = json!({"name": name, "file": file, "kind": kind, "doc": doc.trim()});
            items.push(Item { name, line: format!("[{file}] {line}"), full, json });
        }
    }
    show("rule", &args.lookup, items)
}

/// The rules of a file as text, by name, without their doc lines.
fn as_written(text: &str) -> BTreeMap<String, String> {
    let Ok(file) = gsr::parse_rules(text) else { return BTreeMap::new() };
    let alone = |item: gsr::Item| {
        let name = item.name().text.clone();
        let printed = gsr::print_rules(&RuleFile { header: None, items: vec![item] });
        let lines: Vec<&str> = printed.lines().skip_while(|l| !is_start(l)).collect();
        (name, lines.join("\n").trim_end().to_owned())
    };
    file.items.into_iter().map(alone).collect()
}

/// Whether a line of a printed rule file is the first of a rule.
fn is_start(line: &str) -> bool {
    ["rule ", "insert ", "grad "].iter().any(|word| line.starts_with(word))
}

/// The conditions and functions that rules may call.
fn functions() -> Vec<Item> {
    let item = |f: &Function| {
        let kind = match f.body {
            Body::Condition(_) => "condition",
            Body::Attr(..) => "attribute",
            Body::Tensor(_) => "tensor",
        };
        let place = if f.graph_only { ", not in equality sets" } else { "" };
        let full = format!("{} ({kind}{place})\n  {}\n", f.signature(), f.doc);
        let takes: Vec<&str> = f.params.iter().map(|p| p.describe()).collect();
        let json =
            json!({"name": f.name, "kind": kind, "takes": takes, "graph_only": f.graph_only, "doc": f.doc});
        let line = format!("[{kind}{place}] ({}): {}", takes.join(", "), f.doc);
        Item { name: f.name.to_owned(), line, full, json }
    };
    gs_algos::rules::functions().iter().map(item).collect()
}

/// Lists algorithms. Each is a pass too, which has its options.
///
/// # Errors
/// A name that is not there.
pub fn algos(args: &LookupArgs) -> Outcome<()> {
    let registry = registry();
    let item = |a: &gs_algos::algorithm::AlgorithmInfo| {
        let options = registry.iter().find(|i| i.name == a.name).map_or(&[][..], |i| i.options);
        let lines: Vec<String> = options.iter().map(|(n, d)| format!("  {n}: {d}\n")).collect();
        let full = format!("{}: {}\n{}", a.name, a.doc, lines.concat());
        let options: Vec<Value> = options.iter().map(|(n, d)| json!({"name": n, "doc": d})).collect();
        let json = json!({"name": a.name, "doc": a.doc, "options": options});
        Item { name: a.name.to_owned(), line: a.doc.to_owned(), full, json }
    };
    show("algorithm", args, gs_algos::algorithm::ALGORITHMS.iter().map(item).collect())
}

/// Lists targets.
///
/// # Errors
/// A name that is not there.
pub fn targets(args: &LookupArgs) -> Outcome<()> {
    let mut items = Vec::new();
    for name in gs_algos::targets::names() {
        let t = gs_algos::targets::find(name)?;
        let mut full = format!("{name}: {}\n  opset {} (up to {})\n", t.doc, t.opset.default, t.opset.max);
        for (op, s) in &t.op {
            let how = s.native.clone().unwrap_or_else(|| "on the integer tensor".to_owned());
            let takes = if s.absorbs.is_empty() {
                String::new()
            } else {
                format!(", takes in {}", s.absorbs.join(", "))
            };
            full += &format!("  {op}: {how}{takes}\n");
        }
        let json = json!({"name": name, "doc": t.doc, "operators": t.op.keys().collect::<Vec<_>>()});
        items.push(Item { name: name.to_owned(), line: t.doc.clone(), full, json });
    }
    show("target", args, items)
}

fn show(what: &str, args: &LookupArgs, items: Vec<Item>) -> Outcome<()> {
    for name in &args.names {
        if !items.iter().any(|i| i.name == *name) {
            let all: Vec<&str> = items.iter().map(|i| i.name.as_str()).collect();
            let close = closest(name, all.iter().copied());
            let failure = Failure::new(format!("no {what} is named `{name}`"));
            return Err(if !close.is_empty() {
                failure.help(format!("close are: {}", close.join(", ")))
            } else if all.len() <= FEW {
                failure.help(format!("there are: {}", all.join(", ")))
            } else {
                failure
            });
        }
    }
    let chosen: Vec<&Item> =
        items.iter().filter(|i| args.names.is_empty() || args.names.contains(&i.name)).collect();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&chosen.iter().map(|i| &i.json).collect::<Vec<_>>())?);
    } else if args.names.is_empty() {
        let width = chosen.iter().map(|i| i.name.chars().count()).max().unwrap_or(0);
        chosen.iter().for_each(|i| say!("{:width$}  {}", i.name, i.line));
    } else {
        chosen.iter().for_each(|i| say_part!("{}", i.full));
    }
    Ok(())
}
