//! The rule engine: rules are text, read and checked at run time ([`RuleSet::parse`]) against the operator registry
//! and a table of conditions and functions ([`RuleFunctions`]), then run by a driver: [`greedy`] replaces matches
//! until none is left, [`insert`] puts operations on edges. The e-graph driver reads the same checked rules.
//!
//! [`rule`] is the checked form. [`compile`] makes it, [`matcher`] finds matches, [`build`] builds replacements,
//! [`explain`] says why a rule did not fire, [`example`] runs the examples that rules carry.

pub mod build;
mod compile;
pub(crate) mod contents;
mod derive;
mod env;
mod eval;
pub mod example;
pub mod functions;
mod greedy;
mod insert;
pub mod matcher;
mod meaning;
mod remarks;
pub mod rule;
mod same;
mod view;

pub use derive::Gradients;
pub use env::{GridClass, NoEnv, RuleEnv, Site};
pub use eval::{Bindings, Evaluator};
pub use functions::RuleFunctions;
pub use greedy::{GreedyOptions, Limit, Refused, Stats, greedy};
pub use insert::{FILLED, InsertReport, Placed, insert};
pub use remarks::{Remark, attr_words, explain};
pub use rule::{Rule, RuleSet};
pub use view::ModuleView;
