//! The ledger: what became of every operation and parameter of the input network, and how much of its arithmetic runs
//! in integers. Nothing is skipped in silence: an operation that no entry explains is reported as lost.
//!
//! What links an operation to what was made of it are source names. Text may leave them out: [`name_operations`] gives
//! every operation one, before anything is made of the network.

mod names;
mod params;

pub use names::name_operations;
pub use params::{ParamFate, ParamLine, Params};

use gs_ir::registry::Traits;
use gs_ir::{LedgerEntry, Module, OpId, Sym};
use gs_passes::cost::multiply_adds;
use gs_passes::grid::FLOAT_INPUT;
use rustc_hash::FxHashMap;
use serde::Serialize;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It computes in integers.
    Integer,
    /// It moves integers and computes nothing.
    Moved,
    /// It became part of another operation.
    Absorbed,
    /// It was computed beforehand, or folded into weights.
    Folded,
    /// It is not needed any more.
    Removed,
    /// It stays in float.
    Kept,
    /// No entry explains it: a defect.
    Lost,
}

/// One operation of the input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Its name in the source.
    pub name: String,
    /// Its operator, as the source calls it.
    pub op: String,
    /// What became of it.
    pub fate: Fate,
    /// A stable code, where there is one.
    pub code: String,
    /// For people.
    pub reason: String,
    /// The rule or pass that decided.
    pub rule: String,
    /// The operation that took it over.
    pub into: Option<String>,
    /// Multiply-adds for one sample. Where an operation stands for several source names, they are those of the first.
    pub multiply_adds: u64,
}

/// The account of a whole network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// The target.
    pub target: Option<String>,
    /// The operations of the input in its order: a line per source name, one where there is none.
    pub lines: Vec<Line>,
    /// Multiply-adds of the input for one sample.
    pub multiply_adds: u64,
    /// Those that run in integers.
    pub integer_multiply_adds: u64,
    /// Remaining conversions between float and integers.
    pub conversions: usize,
    /// The parameters.
    pub params: Params,
}

impl Ledger {
    /// Compares a network with what was made of it. `after` holds integer operators: it is taken before the
    /// portable form is written.
    pub fn of(before: &Module, after: &Module) -> Self {
        let holders = holders(after);
        let mut ledger = Ledger { target: after.meta.target.clone(), ..Ledger::default() };
        for op in before.all_ops() {
            let lines = lines(before, op, after, &holders);
            // An operation is counted once, for whatever number of source names it stands.
            let macs: u64 = lines.iter().map(|l| l.multiply_adds).sum();
            ledger.multiply_adds = ledger.multiply_adds.saturating_add(macs);
            if lines.first().is_some_and(|l| l.fate == Fate::Integer) {
                ledger.integer_multiply_adds = ledger.integer_multiply_adds.saturating_add(macs);
            }
            ledger.lines.extend(lines);
        }
        let converts = |op: &&OpId| matches!(after.op_name(**op), "quantize" | "dequantize");
        ledger.conversions = after.all_ops().iter().filter(converts).count();
        ledger.params = Params::of(before, after, &ledger.lines);
        ledger
    }

    /// The share of multiply-adds that run in integers, 0 to 1; 1 where there are none.
    pub fn coverage(&self) -> f64 {
        if self.multiply_adds == 0 {
            1.0
        } else {
            self.integer_multiply_adds as f64 / self.multiply_adds as f64
        }
    }

    /// Number of lines with a fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.lines.iter().filter(|l| l.fate == fate).count()
    }
}

/// For each source name, the live operations that stand for it.
type Holders = FxHashMap<Sym, Vec<OpId>>;

fn holders(module: &Module) -> Holders {
    let mut out = Holders::default();
    for op in module.all_ops() {
        for name in module.source_of(op) {
            out.entry(name).or_default().push(op);
        }
    }
    out
}

/// The lines of an operation: what became of it, and that its other source names are part of it.
fn lines(before: &Module, op: OpId, after: &Module, holders: &Holders) -> Vec<Line> {
    let macs = multiply_adds(before, op);
    let names = before.source_of(op);
    let mut names = names.iter().map(|name| before.str(*name));
    let Some(first) = names.next() else {
        let mut line = lost(before, op, before.label(op), macs);
        line.reason = "it has no source name, by which what became of it could be told".to_owned();
        return vec![line];
    };
    let mut out = vec![line(before, op, first, after, holders, macs)];
    for name in names {
        let mut other = line(before, op, name, after, holders, 0);
        if other.fate != Fate::Lost {
            other.fate = Fate::Absorbed;
            other.code = "absorbed".to_owned();
            other.rule = String::new();
            other.reason = format!("part of {} \"{first}\"", other.op);
            other.into = Some(first.to_owned());
        }
        out.push(other);
    }
    out
}

/// A line for an operation of which nothing is known.
fn lost(before: &Module, op: OpId, name: &str, macs: u64) -> Line {
    Line {
        name: name.to_owned(),
        op: before.opaque_name(op).unwrap_or(before.op_name(op)).to_owned(),
        fate: Fate::Lost,
        code: "lost".to_owned(),
        reason: "no entry explains what became of it; please report this".to_owned(),
        rule: String::new(),
        into: None,
        multiply_adds: macs,
    }
}

fn line(before: &Module, op: OpId, name: &str, after: &Module, holders: &Holders, macs: u64) -> Line {
    let mut line = lost(before, op, name, macs);
    let Some(sym) = after.find_str(name) else { return line };
    // Of several operations that stand for it, the one that does what it did.
    let holding = holders.get(&sym).map(Vec::as_slice).unwrap_or_default();
    let own = holding.iter().find(|h| is_own(before, op, after, **h));
    if let Some(&holder) = own.or(holding.first()) {
        held(&mut line, before, op, after, holder, after.kept.get(&sym));
    } else if let Some(entry) = after.gone.get(&sym) {
        line.fate = match after.str(entry.code) {
            "folded" => Fate::Folded,
            "absorbed" | "merged" => Fate::Absorbed,
            _ => Fate::Removed,
        };
        explain(&mut line, after, entry);
    }
    line
}

/// Whether an operation computes what another one did: its operator is the same, or the integer form of it.
fn is_own(before: &Module, op: OpId, after: &Module, holder: OpId) -> bool {
    let name = after.op_name(holder);
    name == before.op_name(op) || name.strip_prefix('q') == Some(before.op_name(op))
}

fn explain(line: &mut Line, after: &Module, entry: &LedgerEntry) {
    line.code = after.str(entry.code).to_owned();
    line.rule = after.str(entry.rule).to_owned();
    line.into = entry.into.map(|s| after.str(s).to_owned());
    line.reason = entry.reason.map_or_else(|| line.code.clone(), |r| after.str(r).to_owned());
}

/// Whether the first value that an operation reads was computed, and not in integers.
fn reads_float(after: &Module, op: OpId) -> bool {
    let data = after.op(op).operand(0).filter(|&v| after.as_global(v).is_none());
    data.is_some_and(|v| after.producer(v).is_none_or(|p| after.op_name(p) != "dequantize"))
}

/// Fills in a line for an operation that a live one stands for.
fn held(
    line: &mut Line,
    before: &Module,
    op: OpId,
    after: &Module,
    holder: OpId,
    kept: Option<&LedgerEntry>,
) {
    let traits = after.decl(holder).traits;
    let name = after.op_name(holder);
    let own = is_own(before, op, after, holder);
    let integer_type = after.type_of(after.op(holder).result()).elem().is_some_and(|e| e.is_int());
    let label = after.label(holder).to_owned();
    if label != line.name && !own {
        line.fate = Fate::Absorbed;
        line.code = "absorbed".to_owned();
        line.reason = format!("part of {name} \"{label}\"");
        line.into = Some(label);
    } else if traits.has(Traits::INTEGER) {
        line.fate = Fate::Integer;
        line.code = "integer".to_owned();
        line.reason = format!("runs as {name}");
    } else if integer_type {
        line.fate = Fate::Moved;
        line.code = "moved".to_owned();
        line.reason = "moves integers".to_owned();
    } else {
        line.fate = Fate::Kept;
        line.code = "float".to_owned();
        line.reason = format!("{name} was not lowered to integers");
        if let Some(entry) = kept {
            explain(line, after, entry);
        } else if reads_float(after, holder) {
            line.code = FLOAT_INPUT.to_owned();
            line.reason = "what it reads is in float".to_owned();
        }
    }
}
