//! What became of a network, in words and as JSON.

use crate::failure::Outcome;
use crate::files;
use crate::say::{self, Words};
use gs_algos::ledger::{Fate, Ledger, ParamFate, Params};
use gs_passes::manager::PassReport;
use gs_text::output;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// Says what became of a network's operations and parameters.
pub fn print_ledger(ledger: &Ledger, words: Words) {
    let counted = [
        (Fate::Integer, "compute in integers"),
        (Fate::Moved, "move integers"),
        (Fate::Absorbed, "became part of another"),
        (Fate::Folded, "were folded into weights"),
        (Fate::Removed, "were removed"),
        (Fate::Kept, "stay in float"),
        (Fate::Lost, "are not accounted for"),
    ];
    words.line(format_args!("{} operations:", ledger.lines.len()));
    for (fate, what) in counted {
        let n = ledger.count(fate);
        if n > 0 {
            words.line(format_args!("  {n:>5} {what}"));
        }
    }
    for line in ledger.lines.iter().filter(|l| matches!(l.fate, Fate::Kept | Fate::Lost)) {
        words.line(format_args!("  kept: {} \"{}\": {}", line.op, line.name, line.reason));
    }
    print_coverage(ledger, words);
    print_parameters(&ledger.params, words);
}

/// Says how much of a network runs in integers.
pub fn print_coverage(ledger: &Ledger, words: Words) {
    words.line(format_args!(
        "multiply-adds in integers: {:.2} %  ({} of {})",
        100.0 * ledger.coverage(),
        ledger.integer_multiply_adds,
        ledger.multiply_adds
    ));
}

fn print_parameters(params: &Params, out: Words) {
    let counted = [
        (ParamFate::Quantised, "quantised"),
        (ParamFate::Folded, "folded into others"),
        (ParamFate::Kept, "as they were"),
        (ParamFate::Gone, "not needed any more"),
    ];
    let counted = counted.map(|(fate, words)| (params.count(fate), words));
    let words: Vec<String> =
        counted.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
    out.line(format_args!(
        "parameters: {}; {:.2} % of their bytes are quantised",
        words.join(", "),
        100.0 * params.quantised_bytes as f64 / params.bytes.max(1) as f64
    ));
}

/// Writes the whole account as JSON, with what else there is to say of a run.
///
/// # Errors
/// A place that cannot be written.
pub fn write_report(path: &Path, ledger: &Ledger, report: &PassReport, more: Value) -> Outcome<()> {
    let counters: Map<String, Value> = report.counters.iter().map(|(n, c)| (n.clone(), json!(c))).collect();
    let mut object = json!({
        "coverage": ledger.coverage(),
        "ledger": ledger,
        "counters": counters,
        "notes": report.notes,
    });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    write_json(path, &object)
}

/// Writes JSON to a file, or to standard output.
///
/// # Errors
/// Where it cannot be written; then nothing is there.
pub fn write_json(path: &Path, value: &Value) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value)?;
    if files::Kind::is_stream(path) {
        return say::stream(|out| writeln!(out, "{text}"));
    }
    output::atomic_write(path, |out: &mut dyn Write| {
        writeln!(out, "{text}").map_err(|source| output::OutputError { path: path.to_owned(), source })
    })?;
    Ok(())
}
