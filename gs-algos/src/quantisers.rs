//! Reading the quantisers of a module: shared by calibration, freezing and deployment.

use crate::quant::{Grid, IntRange, QuantError};
use gs_ir::{AttrSet, GlobalId, Init, Module, OpId, ValueId};
use gs_passes::grid::weight_only;
use rustc_hash::FxHashSet;

/// What the parameter of a quantiser says of its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The range that the grid spans: `f32[2]`, or `f32[2, C]` with minima in the first row (`fake_quant`).
    Range,
    /// The step (`lsq`).
    Step,
    /// The largest value (`pact`).
    Clip,
    /// The highest of the odd levels, which have so many bits (`dorefa`, `slb`).
    Level {
        /// Width of the numbers of levels.
        bits: u8,
    },
}

/// A quantiser of the training form, read.
#[derive(Clone, Debug)]
pub struct FakeQuant {
    /// The operation.
    pub op: OpId,
    /// What it quantises; of a choice among levels the logits.
    pub input: ValueId,
    /// The global that holds its parameter.
    pub range: GlobalId,
    /// What that says.
    pub parameter: Parameter,
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
            let name = match (module.as_global(self.input), module.producer(self.input)) {
                (Some(global), _) => source_name(module, global),
                // Made in the graph: by its own name, else by that of what makes it.
                (None, Some(op)) if module.value(self.input).name.is_none() => module.label(op),
                (None, _) => module.str(module.value(self.input).name),
            };
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
    let int = IntRange::new(width(attrs, 8)?, attrs.bool("signed", false), attrs.bool("narrow", false))?;
    Ok(Grid { int, symmetric: attrs.bool("symmetric", false) })
}

fn width(attrs: &AttrSet, default: i64) -> Result<u8, QuantError> {
    u8::try_from(attrs.int("bits", default)).map_err(|_| QuantError::Bits { bits: u8::MAX })
}

/// The grid on which a learned quantiser computes, as targets store it: weights around zero; activations without a
/// sign, with zero in the middle where they have both signs.
fn learned_grid(name: &str, attrs: &AttrSet, weight: bool) -> Result<Option<(Parameter, Grid)>, QuantError> {
    let grid = |bits, signed: bool, narrow| {
        let int = IntRange::new(bits, signed && weight, narrow && signed)?;
        Ok::<_, QuantError>(Grid { int, symmetric: signed })
    };
    Ok(Some(match name {
        "lsq" => (Parameter::Step, grid(width(attrs, 4)?, attrs.bool("signed", true), false)?),
        "pact" => (Parameter::Clip, grid(width(attrs, 4)?, attrs.bool("signed", false), true)?),
        // Odd numbers of b bits are whole numbers of b + 1.
        "dorefa" | "slb" => {
            let bits = width(attrs, if name == "slb" { 2 } else { 4 })?;
            let int = IntRange::new(bits.saturating_add(1), true, true)?;
            (Parameter::Level { bits }, Grid { int, symmetric: true })
        }
        _ => return Ok(None),
    }))
}

/// The axis along which the grids of a quantiser differ, if they do. One from behind (-1: the last) counts from the rank
/// of its result.
pub(crate) fn axis_of(module: &Module, op: OpId) -> Option<usize> {
    let axis = module.decl(op).int(module.attrs_of(op), "axis")?;
    let rank = module.type_of(module.op(op).results().first()?.some()?).dims()?.len();
    usize::try_from(if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis }).ok()
}

/// All quantisers of the training form that the network has, in graph order. One whose parameter is computed in the
/// graph is left out.
///
/// # Errors
/// Attributes that describe no grid.
pub fn quantisers(module: &Module) -> Result<Vec<FakeQuant>, QuantError> {
    let Some(main) = module.main() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for op in module.ops_nested(main) {
        let (name, data, attrs) = (module.op_name(op), module.op(op), module.attrs_of(op));
        let (Some(input), Some(range)) = (data.operand(0), data.operand(1)) else { continue };
        let Some(range) = module.as_global(range) else { continue };
        let weight = weight_only(module, input);
        let (parameter, grid) = match name {
            "fake_quant" => (Parameter::Range, grid_of(attrs)?),
            _ => match learned_grid(name, attrs, weight)? {
                Some(found) => found,
                None => continue,
            },
        };
        let axis = axis_of(module, op);
        found.push(FakeQuant { op, input, range, parameter, grid, axis, weight });
    }
    Ok(found)
}

/// Those of them that have a range: `fake_quant` operations.
///
/// # Errors
/// As [`quantisers`].
pub fn fake_quants(module: &Module) -> Result<Vec<FakeQuant>, QuantError> {
    let all = quantisers(module)?;
    Ok(all.into_iter().filter(|q| q.parameter == Parameter::Range).collect())
}
