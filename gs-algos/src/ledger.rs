//! The ledger: what became of every operation and parameter of the input network, and how much of its arithmetic runs
//! in integers. Nothing is skipped in silence: an operation that no entry explains is reported as lost.

mod params;

pub use params::{ParamFate, ParamLine, Params};

use gs_ir::registry::Traits;
use gs_ir::{LedgerEntry, Module, OpId, Sym};
use gs_passes::cost::multiply_adds;
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
    /// Multiply-adds for one sample.
    pub multiply_adds: u64,
}

/// The account of a whole network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// The target.
    pub target: Option<String>,
    /// One line per operation of the input, in its order.
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
            let macs = multiply_adds(before, op);
            ledger.multiply_adds += macs;
            for name in before.source_of(op) {
                let name = before.str(name);
                let line = line(before, op, name, after, &holders, macs);
                if line.fate == Fate::Integer {
                    ledger.integer_multiply_adds += macs;
                }
                ledger.lines.push(line);
            }
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

/// For each source name, the live operation that stands for it.
fn holders(module: &Module) -> FxHashMap<Sym, OpId> {
    let mut out = FxHashMap::default();
    for op in module.all_ops() {
        for name in module.source_of(op) {
            out.entry(name).or_insert(op);
        }
    }
    out
}

fn line(
    before: &Module,
    op: OpId,
    name: &str,
    after: &Module,
    holders: &FxHashMap<Sym, OpId>,
    macs: u64,
) -> Line {
    let opname = before.opaque_name(op).unwrap_or(before.op_name(op));
    let mut line = Line {
        name: name.to_owned(),
        op: opname.to_owned(),
        fate: Fate::Lost,
        code: "lost".to_owned(),
        reason: "no entry explains what became of it; please report this".to_owned(),
        rule: String::new(),
        into: None,
        multiply_adds: macs,
    };
    let Some(sym) = after.find_str(name) else { return line };
    if let Some(&holder) = holders.get(&sym) {
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

fn explain(line: &mut Line, after: &Module, entry: &LedgerEntry) {
    line.code = after.str(entry.code).to_owned();
    line.rule = after.str(entry.rule).to_owned();
    line.into = entry.into.map(|s| after.str(s).to_owned());
    line.reason = entry.reason.map_or_else(|| line.code.clone(), |r| after.str(r).to_owned());
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
    let own = name == before.op_name(op) || name.strip_prefix('q') == Some(before.op_name(op));
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
        }
    }
}
