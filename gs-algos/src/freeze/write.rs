//! Writing a frozen network: quantisers with constant scales and zero points, and the grids of biases.

use super::grids::{Dead, Quantised};
use super::layers::{Layer, Side};
use super::{FreezeError, Frozen};
use crate::quant::{ChannelParams, Grid, QuantParams};
use crate::quantisers::{FakeQuant, Parameter};
use gs_eval::Materializer;
use gs_ir::{
    At, Attr, AttrSet, ElemType, Global, GlobalId, Init, Literal, Module, NewGlobal, Rewriter, Role, Type,
    Use, ValueId,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// How the globals that hold the parameters of quantisers end.
const PARAMETERS: &[&str] = &[".range", ".step", ".alpha", ".level_scale"];

/// The constants of one grid.
#[derive(Clone, Copy)]
struct Constants {
    scale: GlobalId,
    zero_point: GlobalId,
}

/// Writes every quantiser that is read in its frozen form. Says which channels are dead.
pub(super) fn quantisers(
    module: &mut Module,
    quantisers: &[FakeQuant],
    frozen: &FxHashMap<GlobalId, Frozen>,
) -> Result<Dead, FreezeError> {
    let mut rewriter = Rewriter::new(module);
    let mut constants: FxHashMap<GlobalId, Constants> = FxHashMap::default();
    let mut dead = Dead::default();
    for q in quantisers {
        let Some(f) = frozen.get(&q.range) else { continue };
        let c = *constants.entry(q.range).or_insert_with(|| add_constants(&mut rewriter, q.range, f, q.grid));
        dead.insert(c.scale, f.params.dead().to_vec());
        let mut attrs = AttrSet::new();
        if let Some(axis) = f.axis {
            attrs.set("axis", Attr::Int(axis as i64));
        }
        let mut input = q.input;
        if let Parameter::Level { bits } = q.parameter {
            attrs.set("levels", Attr::str("odd"));
            attrs.set("bits", Attr::Int(i64::from(bits)));
            input = weight_on_levels(&mut rewriter, q)?;
        } else {
            limit_codes(&mut attrs, q.grid);
        }
        let operands = [input, rewriter.global(c.scale).value, rewriter.global(c.zero_point).value];
        let new = rewriter.emit("qdq", &operands, attrs, At::Before(q.op))?;
        let old = rewriter.op(q.op).result();
        rewriter.replace_uses(old, new);
        rewriter.erase(q.op);
    }
    Ok(dead)
}

/// Stores the scales that were raised.
pub(super) fn raised(
    module: &mut Module,
    quantised: &[Quantised],
    scales: &FxHashMap<GlobalId, ChannelParams>,
) {
    let mut rewriter = Rewriter::new(module);
    let mut stored: FxHashMap<GlobalId, GlobalId> = FxHashMap::default();
    for q in quantised {
        let Some(params) = scales.get(&q.scale).filter(|p| p.scales() != q.params.scales()) else { continue };
        let global = *stored.entry(q.scale).or_insert_with(|| store_scales(&mut rewriter, q.scale, params));
        let value = rewriter.global(global).value;
        rewriter.set_operand(q.op, 1, Some(value));
    }
}

/// Scales in a global of their own, where others are computed from the one that was.
fn store_scales(rewriter: &mut Rewriter<'_>, id: GlobalId, params: &ChannelParams) -> GlobalId {
    let ty = rewriter.ty(rewriter.global(id).ty).clone();
    let dims = ty.as_tensor().and_then(|t| t.const_dims()).unwrap_or_default();
    let init = Init::Data(Literal::f32s(dims, &params.scales()).data);
    let is_operand = |g: &Global| match &g.init {
        Init::Derived(d) => d.operands.contains(&Some(id)),
        _ => false,
    };
    if rewriter.globals().any(|(_, g)| is_operand(g)) {
        let name = rewriter.str(rewriter.global(id).name).to_owned();
        return rewriter.add_global(NewGlobal { name: &name, role: Role::Const, trainable: false, ty, init });
    }
    rewriter.set_global(id, ty, init);
    id
}

/// Writes the grid of each layer's bias.
pub(super) fn biases(module: &mut Module, layers: &[&Layer]) -> Result<(), FreezeError> {
    let mut rewriter = Rewriter::new(module);
    for layer in layers {
        let Some(bias) = layer.bias else { continue };
        let scale =
            |side: &Side| rewriter.op(side.quantiser.op).operand(1).and_then(|v| rewriter.as_global(v));
        let (Some(data), Some(weight)) = (scale(&layer.data), scale(&layer.weight)) else { continue };
        let quantised = write_bias(&mut rewriter, layer, bias.value, data, weight)?;
        rewriter.set_operand(layer.op, bias.place, quantised);
    }
    Ok(())
}

/// The weight that a layer has at last, where it is chosen among levels: a constant of its own.
fn weight_on_levels(rewriter: &mut Rewriter<'_>, q: &FakeQuant) -> Result<ValueId, FreezeError> {
    let name = rewriter.str(rewriter.global(q.range).name).to_owned();
    let name = name.strip_suffix(".level_scale").unwrap_or(&name).to_owned();
    let (kind, attrs) = (rewriter.op(q.op).kind, rewriter.attrs_of(q.op).clone());
    let operands: Vec<Option<GlobalId>> =
        rewriter.op(q.op).operands().map(|v| v.and_then(|v| rewriter.as_global(v))).collect();
    let derived = rewriter.derive_global(&name, kind, attrs, &operands)?;
    let data = Materializer::new(rewriter).data(derived)?;
    let ty = rewriter.ty(rewriter.global(derived).ty).clone();
    // A weight that nothing else reads becomes what is on the levels, under its own name. Logits, many times the size
    // of the weight, are not carried along.
    let own = rewriter.as_global(q.input).filter(|&g| {
        let global = rewriter.global(g);
        global.ty == rewriter.global(derived).ty
            && rewriter.only_use(global.value) == Some(Use::Operand(q.op, 0))
    });
    if let Some(own) = own {
        rewriter.remove_global(derived);
        rewriter.set_global(own, ty, Init::Data(data));
        return Ok(rewriter.global(own).value);
    }
    rewriter.set_global(derived, ty, Init::Data(data));
    Ok(rewriter.global(derived).value)
}

/// States the codes that a grid uses where they are fewer than its storage type has.
fn limit_codes(attrs: &mut AttrSet, grid: Grid) {
    let storage = storage_type(grid);
    if let Some((low, high)) = storage.int_range() {
        if i64::from(grid.int.qmin()) != low {
            attrs.set("qmin", Attr::Int(i64::from(grid.int.qmin())));
        }
        if i64::from(grid.int.qmax()) != high {
            attrs.set("qmax", Attr::Int(i64::from(grid.int.qmax())));
        }
    }
}

/// The 8- or 16-bit type that stores the codes of a grid.
fn storage_type(grid: Grid) -> ElemType {
    let bits = if grid.int.bits() <= 8 { 8 } else { 16 };
    ElemType::int(bits, grid.int.signed()).unwrap_or(ElemType::I8)
}

fn add_constants(rewriter: &mut Rewriter<'_>, range: GlobalId, frozen: &Frozen, grid: Grid) -> Constants {
    let name = rewriter.str(rewriter.global(range).name).to_owned();
    let base = PARAMETERS.iter().find_map(|p| name.strip_suffix(p)).unwrap_or(&name).to_owned();
    let dims: Vec<i64> = frozen.axis.map(|_| frozen.params.len() as i64).into_iter().collect();
    let storage = storage_type(grid);
    let zero_points: Vec<u8> = frozen.params.params().iter().flat_map(|p| code_bytes(*p, storage)).collect();
    let mut add = |suffix: &str, literal: Literal| {
        let ty = Type::fixed(literal.elem, &literal.dims);
        let name = format!("{base}.{suffix}");
        rewriter.add_global(NewGlobal {
            name: &name,
            role: Role::Const,
            trainable: false,
            ty,
            init: Init::Data(literal.data),
        })
    };
    Constants {
        scale: add("scale", Literal::f32s(dims.clone(), &frozen.params.scales())),
        zero_point: add("zp", Literal::new(storage, dims, zero_points)),
    }
}

fn code_bytes(p: QuantParams, storage: ElemType) -> SmallVec<[u8; 2]> {
    let width = storage.bits() as usize / 8;
    p.zero_point().to_le_bytes()[..width].into()
}

/// Puts a 32-bit grid on a bias: scale of the data times scale of the weight, zero point 0.
fn write_bias(
    rewriter: &mut Rewriter<'_>,
    layer: &Layer,
    bias: ValueId,
    data: GlobalId,
    weight: GlobalId,
) -> Result<Option<ValueId>, FreezeError> {
    let Some(mul) = rewriter.registry().kind("mul") else { return Ok(Some(bias)) };
    let name = rewriter.str(rewriter.global(weight).name).to_owned();
    let base = name.rsplit_once(".scale").map_or(name.as_str(), |(base, _)| base);
    let scale = rewriter.derive_global(
        &format!("{base}.bias_scale"),
        mul,
        AttrSet::new(),
        &[Some(data), Some(weight)],
    )?;
    let dims =
        rewriter.ty(rewriter.global(scale).ty).as_tensor().and_then(|t| t.const_dims()).unwrap_or_default();
    let zero_point = rewriter.add_global(NewGlobal {
        name: &format!("{base}.bias_zp"),
        role: Role::Const,
        trainable: false,
        ty: Type::fixed(ElemType::I32, &dims),
        init: Init::Splat(SmallVec::from_slice(&0i32.to_le_bytes())),
    });
    let mut attrs = AttrSet::new();
    if !dims.is_empty() {
        attrs.set("axis", Attr::Int(0));
    }
    let operands = [bias, rewriter.global(scale).value, rewriter.global(zero_point).value];
    Ok(Some(rewriter.emit("qdq", &operands, attrs, At::Before(layer.op))?))
}
