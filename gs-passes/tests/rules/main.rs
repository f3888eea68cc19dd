//! The rule engine from outside: rules as text, modules as text, and what comes out as text.

mod checks;
mod greedy;
mod insert;
mod scaling;
mod support;
