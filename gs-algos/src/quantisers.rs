//! Reading the quantisers of a module: shared by calibration, freezing and deployment.

use crate::quant::{Grid, IntRange, QuantError};
use gs_ir::{AttrSet, GlobalId, Module, OpId, ValueId};
use gs_passes::grid::weight_only;

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
