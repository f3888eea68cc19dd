//! Passes that are rule files: `canonicalize` and `fold-bn`.

use super::{fold_constants, remove_dead};
use crate::grid::NOT_FOLDED;
use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use crate::rules::{GreedyOptions, NoEnv, RuleFunctions, RuleSet, greedy};
use gs_ir::{Module, OpId, Phase, Rewriter};
use gs_text::gsr::Strictness;
use gs_text::{SourceMap, Style};
use rustc_hash::FxHashSet;

/// Cancelling of transposes, reshapes and the like.
const LAYOUT_RULES: &str = include_str!("../../rules/layout.gsr");
/// Simpler forms of the same computation.
const CANONICALIZE_RULES: &str = include_str!("../../rules/canonicalize.gsr");
/// Batch normalisation into the layer before it.
const FOLD_BN_RULES: &str = include_str!("../../rules/fold-bn.gsr");
/// Motion and cancelling of quantize and dequantize.
pub const QDQ_RULES: &str = include_str!("../../rules/qdq.gsr");

/// The derivatives of operators.
pub const GRAD_RULES: &str = include_str!("../../rules/grad.gsr");

/// The shipped rule files of this crate: name and text.
pub const SHIPPED_RULES: &[(&str, &str)] = &[
    ("layout", LAYOUT_RULES),
    ("canonicalize", CANONICALIZE_RULES),
    ("fold-bn", FOLD_BN_RULES),
    ("qdq", QDQ_RULES),
    ("grad", GRAD_RULES),
];

/// Runs a shipped rule file with the greedy driver.
fn run(
    name: &str,
    text: &str,
    module: &mut Module,
    context: &mut PassContext<'_>,
) -> Result<PassReport, PassError> {
    let rules = shipped(name, text, module)?;
    Ok(apply_rules(&rules, Strictness::Real, module, context))
}

/// Folds batch normalisations into the layers before them: these, or all. What could not be folded is noted.
///
/// # Errors
/// A shipped rule file that does not load.
pub fn fold_batch_norms(
    module: &mut Module,
    these: Option<FxHashSet<OpId>>,
    context: &mut PassContext<'_>,
) -> Result<PassReport, PassError> {
    let rules = shipped("fold-bn", FOLD_BN_RULES, module)?;
    let among = these.clone();
    let mut report = apply_within(&rules, Strictness::Real, these, module, context);
    report.absorb(PassReport::counting([("operations folded", fold_constants(module))]));
    note_left(module, among.as_ref());
    let (ops, globals) = remove_dead(module);
    report.absorb(PassReport::counting([("operations removed", ops), ("globals removed", globals)]));
    Ok(report)
}

fn shipped(name: &str, text: &str, module: &Module) -> Result<RuleSet, PassError> {
    let rules = RuleSet::parse(name, text, module.registry(), &RuleFunctions::builtin());
    Ok(rules.map_err(|d| gs_text::render_all(&d, &SourceMap::single(name, text), Style::Plain))?)
}

/// Runs rules up to a strictness with the greedy driver, on the context's fuel. Matches whose replacement did not fit
/// become remarks.
pub fn apply_rules(
    rules: &RuleSet,
    leave: Strictness,
    module: &mut Module,
    context: &mut PassContext<'_>,
) -> PassReport {
    apply_within(rules, leave, None, module, context)
}

/// As [`apply_rules`], at these operations only.
fn apply_within(
    rules: &RuleSet,
    leave: Strictness,
    roots: Option<FxHashSet<OpId>>,
    module: &mut Module,
    context: &mut PassContext<'_>,
) -> PassReport {
    let options = GreedyOptions { max_rewrites: context.fuel, leave, roots, ..GreedyOptions::default() };
    let stats = greedy(module, rules, &options, &NoEnv);
    if let Some(fuel) = &mut context.fuel {
        *fuel = fuel.saturating_sub(stats.rewrites);
    }
    for refused in &stats.refused {
        context.remark(&refused.rule, &refused.op, refused.reason.clone());
    }
    let mut report = PassReport::counting(stats.by_rule.iter().map(|(n, c)| (n.as_str(), *c as usize)));
    report.notes.extend(stats.limit.map(|limit| format!("{}: {limit}", rules.name)));
    report
}

/// The pass `canonicalize`.
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "canonicalize",
            doc: "bring operations into their simplest form and remove what does nothing",
            options: &[],
            accepts: &Phase::ALL,
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let mut report = PassReport::counting([("operations folded", fold_constants(module))]);
        report.absorb(run("canonicalize", CANONICALIZE_RULES, module, context)?);
        report.absorb(run("layout", LAYOUT_RULES, module, context)?);
        let (ops, globals) = remove_dead(module);
        report.absorb(PassReport::counting([("operations removed", ops), ("globals removed", globals)]));
        Ok(report)
    }
}

/// The pass `fold-bn`.
pub struct FoldBn;

impl Pass for FoldBn {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "fold-bn",
            doc: "fold batch normalisation into the layer before it",
            options: &[],
            accepts: &[Phase::Float],
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        fold_batch_norms(module, None, context)
    }
}

/// Notes every batch normalisation (of these) that could not be folded, with the reason.
fn note_left(module: &mut Module, these: Option<&FxHashSet<OpId>>) {
    let meant = |op: &OpId| module.is(*op, "batch_norm") && these.is_none_or(|t| t.contains(op));
    let left: Vec<OpId> = module.all_ops().into_iter().filter(meant).collect();
    let mut rewriter = Rewriter::new(module);
    for op in left {
        let reason = format!("it was not folded: {}", why_not_folded(&rewriter, op));
        let entry = rewriter.entry(NOT_FOLDED, "fold-bn", None, Some(&reason));
        for name in rewriter.source_of(op).to_vec() {
            // What was said before, when the layer before it had not been quantised, says more.
            let said = rewriter.kept.get(&name).is_some_and(|e| rewriter.str(e.code) == NOT_FOLDED);
            if !said {
                rewriter.kept.insert(name, entry.clone());
            }
        }
    }
}

/// Why a batch normalisation is not part of the layer before it.
pub(crate) fn why_not_folded(m: &Module, op: OpId) -> String {
    let Some(input) = m.op(op).operand(0) else { return "it has no input".to_owned() };
    match m.producer(input) {
        None => "it reads an input of the network, not the result of a layer with weights".to_owned(),
        Some(p) if m.value(input).uses().len() > 1 => {
            format!("the result of {} \"{}\" before it is read elsewhere too", m.op_name(p), m.label(p))
        }
        Some(p) => {
            format!("{} \"{}\" before it has no constant weight to fold into", m.op_name(p), m.label(p))
        }
    }
}
