//! A target together with the rules that lower a network to it. Which rule files those are the target's file says;
//! their texts are shipped ones, files beside the target's, or an embedder's own.

use crate::rules::{self, BadRules, SHIPPED};
use crate::targets::{self, TargetLookupError};
use gs_ir::Registry;
use gs_passes::passes::SHIPPED_RULES;
use gs_passes::rules::{RuleFunctions, RuleSet};
use gs_passes::target::Target;
use gs_text::gsr::Driver;
use std::path::Path;
use thiserror::Error;

/// A target and its rules, read and checked.
#[derive(Clone, Debug)]
pub struct Lowering {
    /// The target.
    pub target: Target,
    /// To integer operators, in the order in which they run.
    pub(super) integers: Vec<RuleSet>,
    /// From there to the portable form.
    pub(super) portable: Vec<RuleSet>,
}

/// Why there is no lowering to a target.
#[derive(Debug, Error)]
pub enum LoweringError {
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetLookupError),
    /// No rule file has this name.
    #[error("target `{target}` names the rule file `{name}`, which there is not; there are: {known}")]
    Unknown {
        /// The target.
        target: String,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// A rule file that cannot be read.
    #[error("target `{target}` names the rule file {path}: {error}")]
    Unreadable {
        /// The target.
        target: String,
        /// Where it should be.
        path: String,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// A rule file that does not load.
    #[error(transparent)]
    Rules(#[from] BadRules),
    /// A rule file that is not for rewriting, but for insertion or equality.
    #[error(
        "target `{target}` names the rule file `{name}`, which the driver `{driver}` runs; lowering needs one for: greedy, both, lower"
    )]
    Driver {
        /// The target.
        target: String,
        /// The rule file.
        name: String,
        /// Who runs it.
        driver: &'static str,
    },
}

impl Lowering {
    /// The lowering to a target by name, or by the path of its `.toml` file. Rule files that end in `.gsr` lie beside
    /// that file, the others are shipped. Rules may name the operators of `registry`: that of the modules to lower.
    ///
    /// # Errors
    /// See [`LoweringError`].
    pub fn find(target: &str, registry: &Registry) -> Result<Self, LoweringError> {
        let folder = Path::new(target).parent().unwrap_or(Path::new(""));
        let target = targets::find(target)?;
        let mut own = Vec::new();
        for name in target.rules.integers.iter().chain(&target.rules.portable) {
            if Path::new(name).extension().is_some_and(|e| e == "gsr") {
                let path = folder.join(name);
                let text = std::fs::read_to_string(&path).map_err(|error| LoweringError::Unreadable {
                    target: target.name.clone(),
                    path: path.display().to_string(),
                    error,
                })?;
                own.push((name.clone(), text));
            }
        }
        let own: Vec<(&str, &str)> = own.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        Self::new(target, &own, registry, &rules::functions())
    }

    /// The lowering to a target of one's own: with rule files (name and text) that come before the shipped ones, own
    /// operators, and own functions for rules (see [`rules::functions`]).
    ///
    /// # Errors
    /// See [`LoweringError`].
    pub fn new(
        target: Target,
        own: &[(&str, &str)],
        registry: &Registry,
        functions: &RuleFunctions,
    ) -> Result<Self, LoweringError> {
        let all = || own.iter().chain(SHIPPED).chain(SHIPPED_RULES);
        let load = |name: &String| {
            let Some((_, text)) = all().find(|(n, _)| n == name) else {
                let known = all().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
                let (target, name) = (target.name.clone(), name.clone());
                return Err(LoweringError::Unknown { target, name, known });
            };
            let set = rules::load_with(name, text, registry, functions)?;
            if matches!(set.driver, Driver::Insert | Driver::Egraph) {
                let driver = Driver::ALL.iter().find(|(d, _)| *d == set.driver).map_or("", |(_, n)| n);
                return Err(LoweringError::Driver {
                    target: target.name.clone(),
                    name: name.clone(),
                    driver,
                });
            }
            Ok(set)
        };
        let integers = target.rules.integers.iter().map(load).collect::<Result<_, _>>()?;
        let portable = target.rules.portable.iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { target, integers, portable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target `ort-cpu` with other rule files.
    fn target(rules: &[&str]) -> Target {
        let mut target = targets::find("ort-cpu").unwrap();
        target.rules.integers = rules.iter().map(|r| (*r).to_owned()).collect();
        target
    }

    fn lowering(rules: &[&str], own: &[(&str, &str)]) -> Result<Lowering, LoweringError> {
        Lowering::new(target(rules), own, &Registry::builtin(), &rules::functions())
    }

    #[test]
    fn shipped_targets_have_their_rules() {
        for name in targets::names() {
            let found = Lowering::find(name, &Registry::builtin()).unwrap();
            assert!(found.integers.iter().any(|r| r.driver == Driver::Lower), "{name}");
        }
    }

    #[test]
    fn own_rules_come_before_shipped_ones() {
        let text = "gsr 1\nruleset \"mine\" { driver = lower, target = \"ort-cpu\" }\n\n/// Twice.\nrule exact once\n  \
                    relu(relu($x)) => relu($x)\n";
        let found = lowering(&["qdq", "lower-ort-cpu"], &[("qdq", text)]).unwrap();
        let rules: Vec<usize> = found.integers.iter().map(|r| r.rules.len()).collect();
        assert_eq!(rules[0], 1);
        assert!(rules[1] > 1);
    }

    #[test]
    fn rule_files_that_do_not_fit() {
        let said = |rules: &[&str], own: &[(&str, &str)]| lowering(rules, own).unwrap_err().to_string();
        let unknown = said(&["lower-tpu"], &[]);
        assert!(unknown.contains("lower-tpu") && unknown.contains("lower-ort-cpu"), "{unknown}");
        let insert = said(&["simqat"], &[]);
        assert!(insert.contains("insert"), "{insert}");
        let wrong = said(&["mine"], &[("mine", "gsr 1\nrule exact r\n  relo($x) => $x\n")]);
        assert!(wrong.contains("relo") && wrong.contains("mine"), "{wrong}");
    }
}
