//! The grids of a network whose quantisers are frozen: what its `qdq` operations say, read back.

use super::FreezeError;
use crate::quant::{ChannelParams, IntRange};
use crate::quantisers::axis_of;
use gs_eval::Materializer;
use gs_ir::{ElemType, GlobalId, Init, Module, OpId, ValueId};
use gs_passes::grid::weight_only;
use rustc_hash::FxHashMap;

/// A `qdq` operation, read.
#[derive(Clone)]
pub(super) struct Quantised {
    /// The operation.
    pub(super) op: OpId,
    /// What it quantises.
    pub(super) input: ValueId,
    /// The global that holds its scales.
    pub(super) scale: GlobalId,
    /// Scales and zero points.
    pub(super) params: ChannelParams,
    /// The axis along which they differ.
    pub(super) axis: Option<usize>,
    /// Whether it quantises weights.
    pub(super) weight: bool,
}

/// The channels that hold nothing but zeros, by the global of their scales.
pub(super) type Dead = FxHashMap<GlobalId, Vec<bool>>;

/// All `qdq` operations of the network, in graph order.
///
/// # Errors
/// Scales or zero points that cannot be.
pub(super) fn quantised(module: &Module, dead: &Dead) -> Result<Vec<Quantised>, FreezeError> {
    let Some(main) = module.main() else { return Ok(Vec::new()) };
    let mut materializer = Materializer::new(module);
    let mut known: FxHashMap<(GlobalId, GlobalId), ChannelParams> = FxHashMap::default();
    let mut found = Vec::new();
    for op in module.ops_nested(main) {
        if !module.is(op, "qdq") {
            continue;
        }
        let operand = |i: usize| module.op(op).operand(i);
        let global = |i: usize| operand(i).and_then(|v| module.as_global(v));
        let (Some(input), Some(scale), Some(zero_point)) = (operand(0), global(1), global(2)) else {
            continue;
        };
        let params = match known.get(&(scale, zero_point)) {
            Some(params) => params.clone(),
            None => {
                let read = read(module, &mut materializer, op, [scale, zero_point])?;
                let read = read.with_dead(dead_channels(module, scale, dead));
                known.insert((scale, zero_point), read.clone());
                read
            }
        };
        let axis = axis_of(module, op);
        found.push(Quantised { op, input, scale, params, axis, weight: weight_only(module, input) });
    }
    Ok(found)
}

fn read(
    module: &Module,
    materializer: &mut Materializer<'_>,
    op: OpId,
    [scale, zero_point]: [GlobalId; 2],
) -> Result<ChannelParams, FreezeError> {
    let scales = materializer.tensor(scale)?.to_f64s().unwrap_or_default();
    let scales: Vec<f32> = scales.into_iter().map(|s| s as f32).collect();
    let zero_points = materializer.tensor(zero_point)?.to_ints().unwrap_or_default();
    let zero_points: Vec<i32> = zero_points.into_iter().map(|z| i32::try_from(z).unwrap_or(0)).collect();
    let codes = codes(module, op).unwrap_or(IntRange::S8);
    ChannelParams::from_parts(&scales, &zero_points, codes).map_err(|error| {
        let label = module.str(module.global(scale).name).to_owned();
        FreezeError::Quant { label, error }
    })
}

/// The codes that a `qdq` uses.
fn codes(module: &Module, op: OpId) -> Option<IntRange> {
    let elem: ElemType = module.type_of(module.op(op).operand(2)?).elem()?;
    let (low, high) = elem.int_range()?;
    if module.attrs_of(op).str("levels") == Some("odd") {
        // Odd numbers of b bits are whole numbers of b + 1.
        let bits = module.attrs_of(op).int("bits", 7);
        return u8::try_from(bits + 1).ok().and_then(|b| IntRange::new(b, true, true).ok());
    }
    let limit = |name, default| module.decl(op).int(module.attrs_of(op), name).unwrap_or(default);
    IntRange::of_codes(limit("qmin", low), limit("qmax", high)).or_else(|| IntRange::of_codes(low, high))
}

/// The channels that were dead when their scales, or those that these are computed from, were chosen.
fn dead_channels(module: &Module, scale: GlobalId, dead: &Dead) -> Vec<bool> {
    let mut pending = vec![scale];
    while let Some(id) = pending.pop() {
        if let Some(found) = dead.get(&id) {
            return found.clone();
        }
        if let Init::Derived(d) = &module.global(id).init {
            pending.extend(d.operands.iter().flatten());
        }
    }
    Vec::new()
}
