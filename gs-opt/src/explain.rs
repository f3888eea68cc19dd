//! `gs-opt explain CODE`: what a reason code of the ledger means and what can be done.

use crate::failure::{Failure, Outcome};
use crate::say;
use gs_algos::selector::closest;
use gs_passes::grid::REASONS;

/// Explains a code, or lists all.
///
/// # Errors
/// A code that does not exist.
pub fn run(code: Option<&str>) -> Outcome<()> {
    let Some(code) = code else {
        let width = REASONS.iter().map(|r| r.code.len()).max().unwrap_or(0);
        REASONS.iter().for_each(|r| say!("{:width$}  {}", r.code, r.doc));
        return Ok(());
    };
    match REASONS.iter().find(|r| r.code == code) {
        Some(r) => {
            say!("{}: {}\n  what to do: {}", r.code, r.doc, r.advice);
            Ok(())
        }
        None => {
            let close = closest(code, REASONS.iter().map(|r| r.code));
            let failure = Failure::new(format!("no code is named `{code}`"));
            Err(failure.help(if close.is_empty() {
                "`gs-opt explain` lists all".to_owned()
            } else {
                format!("close are: {}", close.join(", "))
            }))
        }
    }
}
