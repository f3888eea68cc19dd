//! Notes of what stays in float, and why. Where the target knows another way of writing an operation, and a rule that
//! writes it so did not apply, the note says what stood in its way.

use gs_ir::{LedgerEntry, Module, OpId, OpKind, Rewriter};
use gs_passes::grid::{Grids, NO_INTEGER_FORM, Part};
use gs_passes::passes::SHIPPED_RULES;
use gs_passes::rules::rule::{AttrPat, OpPat, Pat, Tmpl};
use gs_passes::rules::{NoEnv, Remark, Rule, RuleSet, attr_words, explain};
use gs_passes::target::Target;
use rustc_hash::{FxHashMap, FxHashSet};

/// Who decided, in the entries of this file.
const PLACEMENT: &str = "placement";

/// Notes for every operation that stays in float why.
pub(crate) fn note_kept(module: &mut Module, grids: &Grids, target: &Target) {
    let ops: Vec<OpId> = module.main().map(|g| module.ops_in(g).collect()).unwrap_or_default();
    let rewrites = rewrites(module, &ops, grids, target);
    let mut rewriter = Rewriter::new(module);
    for op in ops {
        let Some(Part::Float(reason)) = grids.part(op) else { continue };
        let text = match rewrites.get(&op) {
            Some(why) => format!("{}; {why}", reason.text),
            None => reason.text.clone(),
        };
        let names = rewriter.source_of(op).to_vec();
        let entry = rewriter.entry(reason.code, PLACEMENT, None, Some(&text));
        for name in names {
            // What another pass has said of it (that it could not be folded, or is not declared) says more.
            let by_other = |e: &LedgerEntry| rewriter.str(e.rule) != PLACEMENT;
            if !rewriter.kept.get(&name).is_some_and(by_other) {
                rewriter.kept.insert(name, entry.clone());
            }
        }
    }
}

/// For operations without an integer form that could be written as one with: why they were not.
fn rewrites(module: &Module, ops: &[OpId], grids: &Grids, target: &Target) -> FxHashMap<OpId, String> {
    let mut found = FxHashMap::default();
    let without = |op: &&OpId| matches!(grids.part(**op), Some(Part::Float(r)) if r.code == NO_INTEGER_FORM);
    let ops: FxHashSet<OpId> = ops
        .iter()
        .filter(without)
        .filter(|op| target.rewrite.contains_key(module.op_name(**op)))
        .copied()
        .collect();
    if ops.is_empty() {
        return found;
    }
    // A shipped rule file that does not load is found by its tests.
    let sets: Vec<RuleSet> = SHIPPED_RULES
        .iter()
        .filter_map(|(n, text)| crate::rules::load(n, text, module.registry()).ok())
        .collect();
    for set in &sets {
        let remarks = explain(module, set, &NoEnv, &|_, op| ops.contains(&op));
        for &op in &ops {
            let Some(wanted) = target.rewrite.get(module.op_name(op)) else { continue };
            let Some(kind) = module.registry().kind(wanted) else { continue };
            let rules: Vec<&Rule> = set
                .rules
                .iter()
                .filter(|r| writes(&r.template, kind) && root(r, module, op).is_some())
                .collect();
            if rules.is_empty() {
                continue;
            }
            let why = closest(&rules, &remarks, op).map_or_else(
                || format!("it was not rewritten to {wanted}; run `{}` first", set.name),
                |(rule, remark)| {
                    let because = because(rule, remark, module, op);
                    format!("the rewrite to {wanted} did not apply because {because}")
                },
            );
            found.insert(op, why);
        }
    }
    found
}

/// The rule that came closest, where none applies.
fn closest<'r>(rules: &[&'r Rule], remarks: &'r [Remark], op: OpId) -> Option<(&'r Rule, &'r Remark)> {
    let of = |rule: &&'r Rule| Some((*rule, remarks.iter().find(|r| r.op == op && r.rule == rule.name)?));
    let near: Option<Vec<_>> = rules.iter().map(of).collect();
    near?.into_iter().max_by_key(|(_, remark)| remark.progress)
}

/// What stood in the way: the attributes that the rule asks about, as they are, else the matcher's words.
fn because(rule: &Rule, remark: &Remark, module: &Module, op: OpId) -> String {
    let asked = root(rule, module, op).map(|p| p.attrs.as_slice()).unwrap_or_default();
    let attrs = module.attrs_of(op);
    let unfit = asked.iter().filter_map(|(decl, pattern)| {
        let value = attrs.get(decl.name);
        match pattern {
            AttrPat::Is(wanted) if wanted.as_ref() == value => None,
            _ => Some(format!("{} = {}", decl.name, value.map_or("absent".to_owned(), attr_words))),
        }
    });
    let unfit: Vec<String> = unfit.collect();
    if unfit.is_empty() { remark.reason.clone() } else { unfit.join(", ") }
}

/// The pattern of an operation at the root of a rule, where it is of the operation's kind.
fn root<'r>(rule: &'r Rule, module: &Module, op: OpId) -> Option<&'r OpPat> {
    fn of(pattern: &Pat, kind: OpKind) -> Option<&OpPat> {
        match pattern {
            Pat::Op(p) => (p.kind == kind).then_some(p),
            Pat::Bound(_, inner) => of(inner, kind),
            Pat::Alt(all) => all.iter().find_map(|p| of(p, kind)),
            _ => None,
        }
    }
    of(&rule.pattern, module.op(op).kind)
}

/// Whether a template holds an operation of this kind.
fn writes(template: &Tmpl, kind: OpKind) -> bool {
    match template {
        Tmpl::Op(op) => op.kind == kind || op.args.iter().any(|a| writes(a, kind)),
        Tmpl::Tuple(all) => all.iter().any(|t| writes(t, kind)),
        _ => false,
    }
}
