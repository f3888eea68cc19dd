//! Rule files (`.gsr`): the syntax tree ([`ast`]), the parser and the printer. What names mean is not known here:
//! rules are checked against an operator registry where they are run.
//!
//! ```text
//! file      := "gsr" INT header? item*
//! header    := "ruleset" STRING "{" setting ("," setting)* "}"          setting := driver = WORD | target = STRING
//! item      := rule | insert | grad                                     each may have `///` lines before it
//! rule      := "rule" strictness NAME pattern clause*
//! strictness:= "exact" | "codes" "(" INT ")" | "real"
//! clause    := ("=>" | "<=>") expr | "let" $v "=" expr | "where" conds | "note" STRING | example
//! insert    := "insert" NAME "match" pattern "at" ("use" | "value" | "class") $v
//!              ("where" conds)? "emit" NAME "(" emit-arg,* ")" attrs? "replace"? example*
//! emit-arg  := $v | "none" | ("state" | "param" | "const") (NAME | STRING) ":" ELEM "[" expr,* "]" "per" ($v | "class" | "rule") "=" expr
//! grad      := "grad" NAME "(" pattern,* ")" ("->" results)? "given" "(" ($v | "_"),* ")" let* "=>" "(" gradient,* ")" ("where" conds)?
//! gradient  := $v ("," $v)* ":" expr                        several: the results of one operation, in order
//! example   := "example" STRING "{" gsir "}" "=>" ("{" gsir "}" | "same")
//! pattern   := base "?"?
//! base      := "_" | "none" | NUMBER | $v | $v "..." | "_" "..." | $v ":" base | "(" pattern ("|" pattern)* ")"
//!            | "each" $v ("," $v)* ":" pattern
//!            | "[" NAME attr-pats? ("|" NAME attr-pats?)* "]" "?"? ("@" NAME)? "(" pattern ")"
//!            | NAME ("@" NAME)? "(" pattern,* ")" attr-pats? ("->" "(" result,* ")")?
//! attr-pats := "{" (NAME "=" ($v | literal)),* "}"
//! result    := $v | "_" | "unused" | "unused" "..." | $v "..."
//! expr      := literal | WORD | $v | $v "?" | $v "..." | "[" expr,* "]" | "(" expr "," expr,* ")" | "(" expr ")"
//!            | NAME "(" expr,* ")" ("{" (".." $v | NAME "=" expr),* "}")?
//!            | "each" $v ("," $v)* ("in" expr)? ":" expr ("," expr)*
//! literal   := "none" | "true" | "false" | "nan" | "inf" | "-"? NUMBER | STRING
//! conds     := cond ("," cond)*        cond := and ("or" and)*       and := unary ("and" unary)*
//! unary     := "not" unary | "(" cond ")" | NAME "(" expr,* ")"
//! ```

pub mod ast;
mod expr;
mod item;
mod parser;
mod pattern;
mod print;

pub use ast::{Driver, Example, Insert, InsertSite, Item, Rule, RuleFile, Strictness};
pub use print::{print_rules, rule_text};

use crate::diagnostics::Diagnostic;
use crate::span::FileId;

/// Parses a rule file. Spans point into file 0 of a source map.
///
/// # Errors
/// Everything that was found wrong.
pub fn parse_rules(text: &str) -> Result<RuleFile, Vec<Diagnostic>> {
    parse_rules_of(FileId(0), text)
}

/// As [`parse_rules`], for a text among others: spans point into `file`.
///
/// # Errors
/// Everything that was found wrong.
pub fn parse_rules_of(file: FileId, text: &str) -> Result<RuleFile, Vec<Diagnostic>> {
    parser::Parser::new(file, text).file()
}
