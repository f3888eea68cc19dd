//! `saturate`: the e-graph driver over the rule files that both drivers may run.

use super::{SHIPPED_RULES, remove_dead};
use crate::egraph::{EgraphOptions, StopReason, saturate};
use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use crate::rules::{NoEnv, RuleFunctions, RuleSet};
use gs_ir::{Module, Phase};
use gs_text::gsr::{Driver, parse_rules};
use gs_text::{SourceMap, Style, render_all};

/// The pass `saturate`.
pub struct Saturate;

impl Pass for Saturate {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "saturate",
            doc: "find the cheapest equal graph that the layout and quantise-dequantise rules lead to",
            options: &[],
            accepts: &Phase::ALL,
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let files: Vec<(&str, &str)> =
            SHIPPED_RULES.iter().copied().filter(|(_, text)| runs_in_both(text)).collect();
        let rules = RuleSet::parse_all("saturate", &files, module.registry(), &RuleFunctions::builtin())
            .map_err(|d| render_all(&d, &sources(&files), Style::Plain))?;
        let stats = saturate(module, &rules, &EgraphOptions::default(), &NoEnv).map_err(|e| e.to_string())?;
        let mut report =
            PassReport::counting([("operations made", stats.made), ("operations removed", stats.removed)]);
        if stats.stop != StopReason::Saturated {
            report.notes.push(format!("stopped before everything was explored: {:?}", stats.stop));
        }
        remove_dead(module);
        Ok(report)
    }
}

/// Whether both drivers may run a file of rules. One that cannot be read is kept: its errors are told then.
fn runs_in_both(text: &str) -> bool {
    parse_rules(text).map_or(true, |file| file.header.is_some_and(|h| h.driver == Driver::Both))
}

fn sources(files: &[(&str, &str)]) -> SourceMap {
    let mut map = SourceMap::new();
    for (name, text) in files {
        map.add(*name, *text);
    }
    map
}
