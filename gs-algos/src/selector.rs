//! Choosing parts of a network by name: exact source names, globs (`layer1.*`), or operator kinds (`op:conv`).
//! A selector that matches nothing is an error that names what is close.

use gs_ir::{Module, OpId};
use gs_passes::glob::glob_matches;
use std::collections::BTreeSet;
use thiserror::Error;

/// A selector that matches nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectorError {
    /// No source name or operator fits.
    #[error("`{selector}` matches no layer{}", hint(.suggestions))]
    NoMatch {
        /// The selector.
        selector: String,
        /// Names that are close to it.
        suggestions: Vec<String>,
    },
}

fn hint(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        s => {
            format!("; did you mean {}?", s.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or "))
        }
    }
}

/// Whether a selector names an operation.
pub fn selects(module: &Module, selector: &str, op: OpId) -> bool {
    if let Some(kind) = selector.strip_prefix("op:") {
        return glob_matches(kind, module.opaque_name(op).unwrap_or(module.op_name(op)));
    }
    module.source_of(op).iter().any(|&s| glob_matches(selector, module.str(s)))
}

/// The operations that a selector names, in graph order.
///
/// # Errors
/// Where it names none.
pub fn select(module: &Module, selector: &str) -> Result<Vec<OpId>, SelectorError> {
    let ops: Vec<OpId> = module.all_ops().into_iter().filter(|&op| selects(module, selector, op)).collect();
    if !ops.is_empty() {
        return Ok(ops);
    }
    Err(SelectorError::NoMatch { selector: selector.to_owned(), suggestions: suggest(module, selector) })
}

/// Names in the module that are close to `wanted`, closest first.
fn suggest(module: &Module, wanted: &str) -> Vec<String> {
    let names: BTreeSet<String> = module
        .all_ops()
        .into_iter()
        .flat_map(|op| {
            let kind = std::iter::once(format!("op:{}", module.op_name(op)));
            let sources: Vec<String> =
                module.source_of(op).iter().map(|&s| module.str(s).to_owned()).collect();
            kind.chain(sources)
        })
        .collect();
    closest(wanted, names.iter().map(String::as_str))
}

/// The up to three candidates closest to `wanted`, closest first; none where nothing is close.
pub fn closest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = candidates.map(|c| (strsim::jaro_winkler(wanted, c), c)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).filter(|(s, _)| *s > 0.8).map(|(_, c)| c.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_suggested() {
        assert_eq!(closest("layer1.0.conv3", ["layer1.0.conv1", "fc", "bn"].into_iter()), ["layer1.0.conv1"]);
        assert!(closest("zzz", ["layer1", "fc"].into_iter()).is_empty());
    }
}
