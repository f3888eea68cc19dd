//! The insert driver: puts operations on edges. One sweep collects all sites of all rules and merges those that meet
//! ([`sites`]), another places them ([`place`]). Running it again changes nothing: what fills a place already is
//! left alone where its parameters are the same, and is an error where they are others (unless the rule says
//! `replace`).

mod place;
mod sites;

pub use place::FILLED;

use super::env::RuleEnv;
use super::rule::{InsertRule, RuleSet};
use gs_ir::{Module, OpId};
use gs_text::Diagnostic;

/// What was put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsertReport {
    /// The new operations, in order.
    pub placed: Vec<Placed>,
    /// Places that were filled already, with the same parameters: rule and value.
    pub left_alone: Vec<(String, String)>,
    /// Number of operations that were replaced.
    pub replaced: usize,
}

/// An operation that was put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The rule.
    pub rule: String,
    /// The operation.
    pub op: OpId,
    /// The value on which it was put.
    pub value: String,
    /// Number of places that read its result now.
    pub uses: usize,
}

/// Puts in what the rules say.
///
/// # Errors
/// Where rules contradict each other at one place, a place is filled by something else already, or an operation does
/// not fit; the module is as it was then. Places are those of [`RuleSet::sources`].
pub fn insert(
    module: &mut Module,
    set: &RuleSet,
    env: &dyn RuleEnv,
) -> Result<InsertReport, Vec<Diagnostic>> {
    let sites = sites::collect(module, &set.inserts, env)?;
    let before = module.clone();
    place::place(module, &set.inserts, sites).inspect_err(|_| *module = before)
}

/// An error about one place, pointing at the rule.
fn problem(rule: &InsertRule, code: &'static str, message: String) -> Diagnostic {
    Diagnostic::error(code, message).label(rule.span, "")
}

/// The name of a value for globals that belong to it and for messages: of the global, of the source node that makes
/// it, or its own.
fn value_name(module: &Module, value: gs_ir::ValueId) -> String {
    if let Some(g) = module.as_global(value) {
        return module.str(module.global(g).name).to_owned();
    }
    let own = module.str(module.value(value).name);
    match module.producer(value) {
        Some(op) => match module.source_of(op).last() {
            Some(&s) => module.str(s).to_owned(),
            None if !own.is_empty() => own.to_owned(),
            None => module.op_name(op).to_owned(),
        },
        None if !own.is_empty() => own.to_owned(),
        None => "input".to_owned(),
    }
}
