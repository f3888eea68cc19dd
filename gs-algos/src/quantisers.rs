//! Reading the quantisers of a module: shared by calibration, freezing and deployment.

use crate::quant::{Grid, IntRange, QuantError};
use gs_ir::{AttrSet, GlobalId, Init, Module, OpId, ValueId};
use gs_passes::grid::weight_only;
use rustc_hash::FxHashSet;

/// A `fake_quant` operation, read.
#[derive(Clone, Debug)]
pub struct FakeQuant {
    /// The operation.
    pub op: OpId,
    /// What it quantises.
    pub input: ValueId,
    /// The global that holds its range: `f32[2]`, or `f32[2, C]` with minima in the first row.
    pub range: GlobalId,
    /// The codes and the rule for the zero point.
    pub grid: Grid,
    /// The axis along which ranges differ.
    pub axis: Option<usize>,
    /// Whether it quantises weights.
    pub weight: bool,
}

impl FakeQuant {
    /// What it quantises, as a person knows it: `weight "conv1.weight" of "conv1"`, `result of "relu"`, `input "x"`.
    pub fn describe(&self, module: &Module) -> String {
        if self.weight {
            let name = module.as_global(self.input).map_or("", |g| source_name(module, g));
            let reader = module.user_ops(module.op(self.op).result()).first().copied();
            return match reader {
                Some(op) => format!("weight \"{name}\" of \"{}\"", module.label(op)),
                None => format!("weight \"{name}\""),
            };
        }
        match module.producer(self.input) {
            Some(op) => format!("result of \"{}\"", module.label(op)),
            None => format!("input \"{}\"", module.str(module.value(self.input).name)),
        }
    }
}

/// The name of a global, or of the stored one that it was computed from: what stands first in each computation.
fn source_name(module: &Module, mut id: GlobalId) -> &str {
    loop {
        let global = module.global(id);
        match &global.init {
            Init::Derived(d) if d.operands.iter().any(Option::is_some) => {
                id = d.operands.iter().flatten().copied().next().unwrap_or(id);
            }
            _ => return module.str(global.name),
        }
    }
}

/// The stored tensors from which a global is computed; itself, where it is stored.
pub(crate) fn leaves(module: &Module, id: GlobalId) -> Vec<GlobalId> {
    let (mut pending, mut seen, mut found) = (vec![id], FxHashSet::default(), Vec::new());
    while let Some(id) = pending.pop() {
        if !seen.insert(id) {
            continue;
        }
        match &module.global(id).init {
            Init::Derived(d) => pending.extend(d.operands.iter().flatten()),
            _ => found.push(id),
        }
    }
    found
}

/// The grid that the attributes of a `fake_quant` describe.
///
/// # Errors
/// A width that no grid has.
pub fn grid_of(attrs: &AttrSet) -> Result<Grid, QuantError> {
    let bits = u8::try_from(attrs.int("bits", 8)).map_err(|_| QuantError::Bits { bits: u8::MAX })?;
    let int = IntRange::new(bits, attrs.bool("signed", false), attrs.bool("narrow", false))?;
    Ok(Grid { int, symmetric: attrs.bool("symmetric", false) })
}

/// All `fake_quant` operations of the network, in graph order. One whose range is computed in the graph is left out.
///
/// # Errors
/// Attributes that describe no grid.
pub fn fake_quants(module: &Module) -> Result<Vec<FakeQuant>, QuantError> {
    let Some(main) = module.main() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for op in module.ops_nested(main) {
        if !module.is(op, "fake_quant") {
            continue;
        }
        let data = module.op(op);
        let (Some(input), Some(range)) = (data.operand(0), data.operand(1)) else { continue };
        let Some(range) = module.as_global(range) else { continue };
        let attrs = module.attrs_of(op);
        let axis = attrs.get("axis").map(|_| attrs.int("axis", 0)).and_then(|a| usize::try_from(a).ok());
        found.push(FakeQuant {
            op,
            input,
            range,
            grid: grid_of(attrs)?,
            axis,
            weight: weight_only(module, input),
        });
    }
    Ok(found)
}
