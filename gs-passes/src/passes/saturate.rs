//! `saturate`: the e-graph driver over the rule files that both drivers may run.

use super::{SHIPPED_RULES, remove_dead};
use crate::egraph::{EgraphOptions, StopReason, saturate};
use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use crate::rules::{NoEnv, RuleFunctions, RuleSet};
use gs_ir::{Module, Phase};
use gs_text::gsr::Driver;
use gs_text::{SourceMap, Style};

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
        let mut report = PassReport::default();
        for (name, text) in SHIPPED_RULES {
            let rules = RuleSet::parse(name, text, module.registry(), &RuleFunctions::builtin())
                .map_err(|d| gs_text::render_all(&d, &SourceMap::single(*name, *text), Style::Plain))?;
            if rules.driver != Driver::Both {
                continue;
            }
            let stats = saturate(module, &rules, &EgraphOptions::default(), &NoEnv)
                .map_err(|e| format!("{name}: {e}"))?;
            report.absorb(PassReport::counting([
                ("operations made", stats.made),
                ("operations removed", stats.removed),
            ]));
            if stats.stop != StopReason::Saturated {
                report
                    .notes
                    .push(format!("{name}: stopped before everything was explored: {:?}", stats.stop));
            }
        }
        remove_dead(module);
        Ok(report)
    }
}
