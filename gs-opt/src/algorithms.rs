//! Algorithms as people name them: `lsq{weight_bits=4}`.

use crate::failure::{Failure, Outcome};
use crate::passes::registry;
use gs_algos::algorithm::{self, Algorithm};
use gs_algos::distillation::DistillationConfig;
use gs_passes::manager::{Pipeline, Step, read_options};
use serde_json::{Map, Value, json};

/// An algorithm with the text that names it.
pub struct Named {
    /// As pipelines write it, with all options that were given.
    pub text: String,
    /// The algorithm.
    pub algorithm: Box<dyn Algorithm>,
}

/// The algorithm that a text names, for a target where one is given.
///
/// # Errors
/// No such algorithm, or options that it has not.
pub fn named(text: &str, target: Option<&str>) -> Outcome<Named> {
    let mut pipeline = Pipeline::parse(text)?;
    let [step] = &mut pipeline.steps[..] else {
        return Err(Failure::new(format!("`{text}` is not one algorithm")).help("`gs-opt algos` lists them"));
    };
    let Some(info) = algorithm::find(&step.name) else {
        let names: Vec<&str> = algorithm::ALGORITHMS.iter().map(|a| a.name).collect();
        return Err(Failure::new(format!("no algorithm is named `{}`", step.name))
            .help(format!("there are: {}", names.join(", "))));
    };
    if let Some(target) = target {
        let before = step.options.insert("target".to_owned(), json!(target));
        if let Some(before) = before.filter(|b| b.as_str() != Some(target)) {
            return Err(Failure::usage(format!("--target {target}, but `{text}` says target={before}")));
        }
    }
    let algorithm = (info.make)(&step.options).map_err(|e| {
        // The names of widths are those that are looked for in vain.
        let widths = if e.contains("unknown field") { widths(info.name) } else { String::new() };
        let help = format!("`gs-opt algos {}` lists them with what they take{widths}", step.name);
        Failure::new(format!("options of `{}`: {e}", step.name)).help(help)
    })?;
    Ok(Named { text: pipeline.to_string(), algorithm })
}

/// What sets widths in an algorithm, which each names after what it has widths of.
fn widths(algorithm: &str) -> String {
    let registry = registry();
    let options = registry.iter().find(|i| i.name == algorithm).map_or(&[][..], |i| i.options);
    let of_widths = options.iter().filter(|(_, doc)| doc.contains("bits") || doc.starts_with("width"));
    let lines: Vec<String> = of_widths
        .filter(|(name, _)| *name != "layers")
        .map(|(name, doc)| format!("\n    {name}: {doc}"))
        .collect();
    if lines.is_empty() { String::new() } else { format!("; those of widths are{}", lines.concat()) }
}

/// How a network learns from what it was, of a text like `temperature=4,weight=0.9`.
///
/// # Errors
/// Options that there are not, or values out of their range.
pub fn distillation(text: &str) -> Outcome<DistillationConfig> {
    let failed = |e: String| Failure::new(format!("--distill: {e}")).help("like temperature=4,weight=0.9");
    let pipeline = Pipeline::parse(&format!("distill{{{text}}}")).map_err(|e| failed(e.to_string()))?;
    let options = pipeline.steps.into_iter().next().map(|s| s.options).unwrap_or_default();
    let config: DistillationConfig = read_options(&options).map_err(failed)?;
    config.check().map_err(|e| failed(e.to_string()))?;
    Ok(config)
}

/// A pipeline of one pass.
pub fn one_pass(name: &str, options: Value) -> Pipeline {
    let options = if let Value::Object(o) = options { o } else { Map::new() };
    Pipeline { steps: vec![Step { name: name.to_owned(), options, at: 0 }] }
}
