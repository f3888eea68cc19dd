//! What became of the parameters: every tensor that the input network stores, and what stands for it now.
//!
//! A tensor is followed through derived globals. What reads it in the input says what it is: a weight or bias that
//! is stored as integers was quantised; statistics of a batch normalisation, and whatever else is computed into
//! another tensor, were folded.

use super::Line;
use crate::quantisers::leaves;
use gs_ir::registry::QRole;
use gs_ir::{Attr, Global, GlobalId, Init, Module, OpId, Role, Sym, Use};
use rustc_hash::FxHashMap;
use serde::Serialize;

/// What became of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamFate {
    /// It is stored as integers.
    Quantised,
    /// It was computed into another one.
    Folded,
    /// It is stored as it was.
    Kept,
    /// Nothing reads it any more.
    Gone,
}

/// One parameter of the input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParamLine {
    /// Its name in the source.
    pub name: String,
    /// Its type.
    pub ty: String,
    /// Bytes of its elements.
    pub bytes: u64,
    /// What became of it.
    pub fate: ParamFate,
    /// Bits of a code, where it was quantised.
    pub bits: Option<u32>,
    /// Its extents now, where it is still a tensor of its own: they differ where channels were removed.
    pub stored: Option<Vec<i64>>,
    /// The operations that read it, or what it was folded into.
    pub into: Vec<String>,
    /// For people.
    pub reason: String,
}

/// The parameters of a network, and what is stored for them now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Params {
    /// One line per parameter of the input, in its order.
    pub lines: Vec<ParamLine>,
    /// Bytes of the parameters of the input.
    pub bytes: u64,
    /// Those of quantised parameters.
    pub quantised_bytes: u64,
    /// Bytes of all tensors of the result, scales and zero points too.
    pub stored_bytes: u64,
}

impl Params {
    /// Compares the parameters of a network with what was made of it; `ops` are the lines of its operations.
    pub(super) fn of(before: &Module, after: &Module, ops: &[Line]) -> Self {
        let stored = Stored::of(after);
        let reasons = ops.iter().map(|l| (l.name.as_str(), l.reason.as_str())).collect();
        let mut params = Params { stored_bytes: stored.bytes(after), ..Params::default() };
        for (_, global) in before.globals() {
            // What is derived is no tensor of the file, and a state is what instrumenting adds.
            if global.role == Role::State || matches!(global.init, Init::Derived(_)) {
                continue;
            }
            let line = line(before, global, after, &stored, &reasons);
            params.bytes += line.bytes;
            if line.fate == ParamFate::Quantised {
                params.quantised_bytes += line.bytes;
            }
            params.lines.push(line);
        }
        params
    }

    /// Number of lines with a fate.
    pub fn count(&self, fate: ParamFate) -> usize {
        self.lines.iter().filter(|l| l.fate == fate).count()
    }
}

/// The tensors that graphs of a module read, by the names of the stored ones from which each is computed.
struct Stored {
    read: Vec<GlobalId>,
    from: FxHashMap<Sym, Vec<GlobalId>>,
    /// Small constants by type and contents: equal ones were merged.
    constants: Vec<GlobalId>,
}

impl Stored {
    fn of(module: &Module) -> Self {
        let is_read = |g: &Global| !module.value(g.value).uses().is_empty();
        let read: Vec<GlobalId> = module.globals().filter(|(_, g)| is_read(g)).map(|(id, _)| id).collect();
        let mut from: FxHashMap<Sym, Vec<GlobalId>> = FxHashMap::default();
        for &id in &read {
            for leaf in leaves(module, id) {
                from.entry(module.global(leaf).name).or_default().push(id);
            }
        }
        let constant = |id: &GlobalId| module.global(*id).role == Role::Const;
        let constants = read.iter().copied().filter(constant).collect();
        Self { read, from, constants }
    }

    fn bytes(&self, module: &Module) -> u64 {
        self.read.iter().map(|&id| stored_bytes(module, id)).sum()
    }
}

/// Bytes of a tensor as it is stored: of numbers that are made from packed integers, of those.
fn stored_bytes(module: &Module, mut id: GlobalId) -> u64 {
    let mut least = bytes(module, module.global(id));
    while let Some(from) = made_from(module, id) {
        match (is_integer(module, id), is_integer(module, from)) {
            // Here integers were made from other numbers.
            (true, false) => break,
            (_, true) => least = least.min(bytes(module, module.global(from))),
            (false, false) => {}
        }
        id = from;
    }
    least
}

/// The tensor whose elements a derived one shows in another form: of a table, the places in it.
fn made_from(module: &Module, id: GlobalId) -> Option<GlobalId> {
    let Init::Derived(d) = &module.global(id).init else { return None };
    let place = usize::from(module.registry().decl(d.kind).name == "gather");
    d.operands.get(place).copied().flatten()
}

fn bytes(module: &Module, global: &Global) -> u64 {
    module.ty(global.ty).as_tensor().and_then(|t| t.bytes()).unwrap_or(0) as u64
}

fn line(
    before: &Module,
    global: &Global,
    after: &Module,
    stored: &Stored,
    reasons: &FxHashMap<&str, &str>,
) -> ParamLine {
    let name = before.str(global.name);
    let mut line = ParamLine {
        name: name.to_owned(),
        ty: type_words(before, global),
        bytes: bytes(before, global),
        fate: ParamFate::Gone,
        bits: None,
        stored: None,
        into: Vec::new(),
        reason: String::new(),
    };
    let found = after.find_str(name).and_then(|sym| stored.from.get(&sym));
    let Some(found) = found.filter(|f| !f.is_empty()) else {
        gone(&mut line, before, global, after, stored, reasons);
        return line;
    };
    let own: Vec<GlobalId> =
        found.iter().copied().filter(|&id| is_own(before, global, after.global(id), after)).collect();
    line.into = readers(after, if own.is_empty() { found } else { &own });
    let by = line.into.join("\", \"");
    let packed = |id| stored_bytes(after, id) < bytes(after, after.global(id));
    let float = own.iter().find(|&&id| !is_integer(after, id) && !packed(id));
    match (own.first(), float) {
        (None, _) => {
            line.fate = ParamFate::Folded;
            line.reason = format!("computed into the weights of \"{by}\"");
        }
        (Some(_), Some(&id)) => {
            line.fate = ParamFate::Kept;
            line.stored = dims(after, id);
            let op = readers(after, &[id]).into_iter().next().unwrap_or_default();
            let why = reasons.get(op.as_str()).copied().unwrap_or("it is read in float");
            line.reason = format!("\"{op}\" reads it in float: {why}");
        }
        (Some(&id), None) if after.str(after.global(id).name) == name => {
            line.fate = ParamFate::Kept;
            line.stored = dims(after, id);
            line.reason = "its elements were integers before".to_owned();
        }
        (Some(&id), None) => {
            line.fate = ParamFate::Quantised;
            line.stored = dims(after, id);
            line.bits = own.iter().filter_map(|&id| bits(after, id)).max();
            line.reason = format!("{} bits, read by \"{by}\"", line.bits.unwrap_or_default());
        }
    }
    line
}

fn type_words(module: &Module, global: &Global) -> String {
    let ty = module.ty(global.ty).as_tensor();
    let elem = ty.map_or("?", |t| t.elem.name());
    let dims = ty.and_then(|t| t.const_dims()).unwrap_or_default();
    format!("{elem}[{}]", dims.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
}

fn dims(module: &Module, id: GlobalId) -> Option<Vec<i64>> {
    module.ty(module.global(id).ty).as_tensor()?.const_dims()
}

fn is_integer(module: &Module, id: GlobalId) -> bool {
    module.ty(module.global(id).ty).elem().is_some_and(|e| e.is_int())
}

/// Whether what is stored now is this parameter rather than another into which it was computed: both have the same
/// rank, or as many elements, and the input reads it for what it is, not as a factor of something else.
fn is_own(before: &Module, global: &Global, now: &Global, after: &Module) -> bool {
    if !matches!(now.init, Init::Derived(_)) {
        return true;
    }
    let (was, is) = (before.ty(global.ty).as_tensor(), after.ty(now.ty).as_tensor());
    let (Some(was), Some(is)) = (was, is) else { return false };
    let alike = was.rank() == is.rank() || was.count() == is.count();
    alike && !before.value(global.value).uses().iter().any(|u| is_factor(before, *u))
}

fn is_factor(module: &Module, at: Use) -> bool {
    let Use::Operand(op, place) = at else { return false };
    let role = module.decl(op).operand(place as usize).map(|o| o.role);
    matches!(role, Some(QRole::Float | QRole::None))
}

/// Bits of a code: those in which it is stored, or fewer where codes are clipped.
fn bits(module: &Module, id: GlobalId) -> Option<u32> {
    let ty = module.ty(module.global(id).ty).as_tensor()?;
    let (packed, whole) = (stored_bytes(module, id), bytes(module, module.global(id)));
    if packed < whole {
        // The last byte may not be full.
        return Some(((packed * 8).checked_div(ty.count()? as u64)? as u32).clamp(1, ty.elem.bits()));
    }
    let stored = ty.elem.bits();
    let Init::Derived(d) = &module.global(id).init else { return Some(stored) };
    let bound = |name| match d.attrs.get(name) {
        Some(Attr::Float(f)) => Some(f64::from(f.0)),
        _ => None,
    };
    let clipped = module.registry().decl(d.kind).name == "clip";
    let (Some(low), Some(high), true) = (bound("min"), bound("max"), clipped) else { return Some(stored) };
    let codes = high - low + 1.0;
    Some(if codes >= 2.0 { (codes.log2().ceil() as u32).min(stored) } else { stored })
}

/// The operations that read these, by name, each once.
fn readers(module: &Module, globals: &[GlobalId]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for &id in globals {
        for op in module.user_ops(module.global(id).value) {
            let name = module.label(op);
            if !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Says why nothing reads a parameter any more.
fn gone(
    line: &mut ParamLine,
    before: &Module,
    global: &Global,
    after: &Module,
    stored: &Stored,
    reasons: &FxHashMap<&str, &str>,
) {
    let equal = |id: &&GlobalId| {
        let other = after.global(**id);
        other.init == global.init && after.ty(other.ty) == before.ty(global.ty)
    };
    let readers: Vec<OpId> = before.user_ops(global.value);
    if let Some(&other) = stored.constants.iter().find(equal) {
        line.fate = ParamFate::Folded;
        line.into = vec![after.str(after.global(other).name).to_owned()];
        line.reason = format!("equal to @{}, which stands for it", line.into.join(""));
    } else if let Some(&op) = readers.first() {
        let label = before.label(op);
        let why = reasons.get(label).copied().unwrap_or("nothing is known of it");
        line.reason = format!("\"{label}\", which read it, is not needed any more: {why}");
    } else {
        line.reason = "no operation read it".to_owned();
    }
}
