//! Loading the rule files that ship with this crate.

use gs_ir::Registry;
use gs_passes::manager::PassError;
use gs_passes::rules::{RuleFunctions, RuleSet};
use gs_text::{Diagnostic, Style};
use std::fmt;

/// The shipped rule files of this crate: name and text. Tests check each, and run every example in it.
pub const SHIPPED: &[(&str, &str)] = &[
    ("simqat", crate::simqat::RULES),
    ("lower-ort-cpu", crate::deploy::LOWER_ORT_CPU),
    ("qdq-form", crate::deploy::QDQ_FORM),
];

/// Diagnostics of a rule file that does not load.
#[derive(Debug)]
struct BadRules(String);

impl fmt::Display for BadRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRules {}

/// Reads and checks a rule file against the built-in operators.
///
/// # Errors
/// Rendered diagnostics.
pub fn load(name: &str, text: &str) -> Result<RuleSet, PassError> {
    RuleSet::parse(name, text, &Registry::builtin(), &RuleFunctions::standard()).map_err(|diagnostics| {
        let mut sources = gs_text::SourceMap::default();
        sources.add(name, text);
        let render = |d: &Diagnostic| gs_text::render(d, &sources, Style::Plain);
        let text: Vec<String> = diagnostics.iter().map(render).collect();
        Box::new(BadRules(text.join("\n"))) as PassError
    })
}
