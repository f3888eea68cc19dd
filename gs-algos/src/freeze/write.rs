//! Writing a frozen network: quantisers with constant scales and zero points, and the grids of biases.

use super::layers::Layer;
use super::{FreezeError, Frozen};
use crate::quant::{Grid, QuantParams};
use crate::quantisers::FakeQuant;
use gs_ir::{
    At, Attr, AttrSet, ElemType, GlobalId, Init, Literal, Module, NewGlobal, Rewriter, Role, Type, ValueId,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// The constants of one grid.
#[derive(Clone, Copy)]
struct Constants {
    scale: GlobalId,
    zero_point: GlobalId,
}

/// Writes every quantiser that is read in its frozen form, and the grid of each layer's bias.
pub(super) fn write(
    module: &mut Module,
    quantisers: &[FakeQuant],
    layers: &[&Layer],
    frozen: &FxHashMap<GlobalId, Frozen>,
) -> Result<(), FreezeError> {
    let mut rewriter = Rewriter::new(module);
    let mut constants: FxHashMap<GlobalId, Constants> = FxHashMap::default();
    for q in quantisers {
        let Some(f) = frozen.get(&q.range) else { continue };
        let c = *constants.entry(q.range).or_insert_with(|| add_constants(&mut rewriter, q.range, f, q.grid));
        let mut attrs = AttrSet::new();
        if let Some(axis) = f.axis {
            attrs.set("axis", Attr::Int(axis as i64));
        }
        limit_codes(&mut attrs, q.grid);
        let operands = [q.input, rewriter.global(c.scale).value, rewriter.global(c.zero_point).value];
        let new = rewriter.emit("qdq", &operands, attrs, At::Before(q.op))?;
        let old = rewriter.op(q.op).result();
        rewriter.replace_uses(old, new);
        rewriter.erase(q.op);
    }
    for layer in layers {
        let [data, weight] = [&layer.data, &layer.weight].map(|side| constants.get(&side.quantiser.range));
        let (Some(&data), Some(&weight), Some(bias)) = (data, weight, layer.bias) else { continue };
        let quantised = write_bias(&mut rewriter, layer, bias.value, data, weight)?;
        rewriter.set_operand(layer.op, bias.place, quantised);
    }
    Ok(())
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
    let base = name.strip_suffix(".range").unwrap_or(&name).to_owned();
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
    data: Constants,
    weight: Constants,
) -> Result<Option<ValueId>, FreezeError> {
    let Some(mul) = rewriter.registry().kind("mul") else { return Ok(Some(bias)) };
    let name = rewriter.str(rewriter.global(weight.scale).name).to_owned();
    let base = name.strip_suffix(".scale").unwrap_or(&name);
    let scale = rewriter.derive_global(
        &format!("{base}.bias_scale"),
        mul,
        AttrSet::new(),
        &[Some(data.scale), Some(weight.scale)],
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
