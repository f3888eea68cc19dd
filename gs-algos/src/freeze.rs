//! Freezing: every observed range becomes a constant scale and zero point (`qdq`), and every bias of an
//! operation that runs in integers gets its 32-bit grid, the product of the scales of data and weight.
//!
//! A bias that would not fit into 32 bits raises the scale of its channel's weight, so the guard runs before
//! any weight is quantised (algorithms, section 1.4).

use crate::quant::{
    self, ChannelParams, Grid, QuantError, QuantParams, Range, accumulator_bound, fit_biases,
};
use crate::quantisers::{FakeQuant, fake_quants};
use gs_eval::{ContentsError, Materializer};
use gs_ir::registry::QRole;
use gs_ir::{
    At, Attr, AttrSet, ElemType, GlobalId, InferError, Init, Literal, Module, NewGlobal, OpId, Rewriter,
    Role, Type, Use, ValueId,
};
use gs_passes::grid::{channel_axis, weight_only};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use thiserror::Error;

/// What freezing did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FreezeReport {
    /// Quantisers that were frozen.
    pub quantisers: usize,
    /// Biases that got a grid.
    pub biases: usize,
    /// Channels whose weight scale was raised so that their bias fits, by the names of the layers that read it.
    pub raised: Vec<(String, usize)>,
}

/// Why freezing failed.
#[derive(Debug, Error)]
pub enum FreezeError {
    /// A range was never observed.
    #[error("the range of the {0} was never observed; run `calibrate` (or train) first")]
    NotObserved(String),
    /// A range that cannot be one.
    #[error("the range of the {name} is wrong: {what}")]
    BadRange {
        /// What it is the range of, in words.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A batch normalisation reads what a layer with a quantised weight computes.
    #[error(
        "\"{name}\" normalises the result of \"{layer}\", whose weight was quantised as it is, not as it will be when both \
         are one; run `fold-bn` before `simqat` (or exclude \"{layer}\")"
    )]
    BatchNorm {
        /// The batch normalisation.
        name: String,
        /// The layer.
        layer: String,
    },
    /// A grid that cannot be, or a bias that cannot be quantised.
    #[error("{label}: {error}")]
    Quant {
        /// The operation or range.
        label: String,
        /// Why.
        error: QuantError,
    },
    /// Contents that cannot be read.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// An operation that does not fit (a defect of this pass).
    #[error("{0}")]
    Infer(#[from] InferError),
}

/// Scale and zero point of one range global, and later the constants that hold them.
struct Frozen {
    params: ChannelParams,
    axis: Option<usize>,
}

/// Freezes every quantiser of the network.
///
/// # Errors
/// See [`FreezeError`]; the module is unchanged then, unless a defect is reported.
pub fn freeze(module: &mut Module) -> Result<FreezeReport, FreezeError> {
    let quantisers =
        fake_quants(module).map_err(|error| FreezeError::Quant { label: "a quantiser".to_owned(), error })?;
    refuse_batch_norm(module, &quantisers)?;
    let mut report = FreezeReport { quantisers: quantisers.len(), ..FreezeReport::default() };
    let mut frozen = FxHashMap::default();
    for q in &quantisers {
        if let std::collections::hash_map::Entry::Vacant(slot) = frozen.entry(q.range) {
            slot.insert(Frozen { params: read_params(module, q)?, axis: q.axis });
        }
    }
    let biases = biases(module, &quantisers);
    guard_biases(module, &biases, &mut frozen, &mut report)?;
    write(module, &quantisers, &biases, &frozen)?;
    report.biases = biases.len();
    Ok(report)
}

/// Refuses a network in which a batch normalisation alone reads the result of a layer with a quantised weight: that
/// layer would have no grid for its result and run in float. One whose result has a grid of its own is sound.
fn refuse_batch_norm(module: &Module, quantisers: &[FakeQuant]) -> Result<(), FreezeError> {
    let layers = quantisers.iter().filter(|q| q.weight);
    for layer in layers.flat_map(|q| module.user_ops(module.op(q.op).result())) {
        let Some(Use::Operand(reader, 0)) = module.only_use(module.op(layer).result()) else { continue };
        if module.is(reader, "batch_norm") {
            let (name, layer) = (module.label(reader).to_owned(), module.label(layer).to_owned());
            return Err(FreezeError::BatchNorm { name, layer });
        }
    }
    Ok(())
}

/// Reads the range that a quantiser has observed.
fn read_params(module: &Module, q: &FakeQuant) -> Result<ChannelParams, FreezeError> {
    let name = || q.describe(module);
    let tensor = Materializer::new(module).tensor(q.range)?;
    let values = tensor.as_f32().unwrap_or(&[]);
    if values.iter().any(|v| v.is_nan()) {
        return Err(FreezeError::NotObserved(name()));
    }
    if values.is_empty() || values.len() % 2 != 0 {
        return Err(FreezeError::BadRange {
            name: name(),
            what: "it must hold minima and maxima".to_owned(),
        });
    }
    let (low, high) = values.split_at(values.len() / 2);
    let ranges: Result<Vec<Range>, QuantError> =
        low.iter().zip(high).map(|(&l, &h)| Range::new(l, h)).collect();
    let ranges = ranges.map_err(|e| FreezeError::BadRange { name: name(), what: e.to_string() })?;
    Ok(ChannelParams::from_ranges(&ranges, q.grid))
}

/// A bias that is to be quantised.
struct Bias {
    op: OpId,
    /// Operand place of the bias.
    place: usize,
    value: ValueId,
    /// The ranges of data and weight.
    data: GlobalId,
    weight: GlobalId,
    /// Products that one output sums.
    products: usize,
}

/// The biases of operations whose data and weight are quantised.
fn biases(module: &Module, quantisers: &[FakeQuant]) -> Vec<Bias> {
    let by_result: FxHashMap<ValueId, &FakeQuant> =
        quantisers.iter().map(|q| (module.op(q.op).result(), q)).collect();
    let Some(main) = module.main() else { return Vec::new() };
    let mut out = Vec::new();
    for op in module.ops_nested(main) {
        let decl = module.decl(op);
        let place_of = |wanted: QRole| decl.operands.iter().position(|o| o.role == wanted);
        let (Some(d), Some(w), Some(b)) =
            (place_of(QRole::Data), place_of(QRole::Weight), place_of(QRole::Bias))
        else {
            continue;
        };
        let operands = module.op(op);
        let (Some(data), Some(weight), Some(bias)) =
            (operands.operand(d), operands.operand(w), operands.operand(b))
        else {
            continue;
        };
        let (Some(dq), Some(wq)) = (grid_source(module, data, &by_result), by_result.get(&weight)) else {
            continue;
        };
        if !weight_only(module, bias) {
            continue;
        }
        out.push(Bias {
            op,
            place: b,
            value: bias,
            data: dq.range,
            weight: wq.range,
            products: products(module, op, wq.input),
        });
    }
    out
}

/// The quantiser on whose grid a value lies: its own, or that of the value it was moved from.
fn grid_source<'q>(
    module: &Module,
    mut value: ValueId,
    by_result: &FxHashMap<ValueId, &'q FakeQuant>,
) -> Option<&'q FakeQuant> {
    loop {
        if let Some(q) = by_result.get(&value) {
            return Some(q);
        }
        let op = module.producer(value)?;
        let moves =
            module.decl(op).results.first().is_some_and(|r| r.role == QRole::Same) || module.is(op, "relu");
        if !moves {
            return None;
        }
        value = module.op(op).operand(0)?;
    }
}

/// Number of products that one output of a weighted operation sums.
fn products(module: &Module, op: OpId, weight: ValueId) -> usize {
    let Some(dims) = module.type_of(weight).as_tensor().and_then(|t| t.const_dims()) else {
        return usize::MAX;
    };
    let channel = channel_axis(module, op);
    dims.iter()
        .enumerate()
        .filter(|(i, _)| Some(*i) != channel)
        .fold(1usize, |n, (_, &d)| n.saturating_mul(d.max(0) as usize))
}

/// What a bias asks of the scales of its weight.
struct Need {
    label: String,
    values: Vec<f32>,
    input_scale: f32,
    acc_bound: u64,
}

impl Need {
    fn bias(&self) -> quant::Bias<'_> {
        quant::Bias { values: &self.values, input_scale: self.input_scale, acc_bound: self.acc_bound }
    }
}

/// Raises weight scales where a bias would not fit. A scale is chosen once, for all layers that share the weight.
fn guard_biases(
    module: &Module,
    biases: &[Bias],
    frozen: &mut FxHashMap<GlobalId, Frozen>,
    report: &mut FreezeReport,
) -> Result<(), FreezeError> {
    let mut materializer = Materializer::new(module);
    let mut ranges: Vec<GlobalId> = Vec::new();
    let mut needs: FxHashMap<GlobalId, Vec<Need>> = FxHashMap::default();
    for b in biases {
        let (Some(data), Some(weight)) = (frozen.get(&b.data), frozen.get(&b.weight)) else { continue };
        let Some(&data) = data.params.params().first() else { continue };
        let Some(bias) = module.as_global(b.value) else { continue };
        let values = materializer.tensor(bias)?.to_f64s().unwrap_or_default();
        let need = Need {
            label: module.label(b.op).to_owned(),
            values: values.into_iter().map(|v| v as f32).collect(),
            input_scale: data.scale(),
            acc_bound: accumulator_bound(b.products, data, &weight.params),
        };
        let failed = |error| FreezeError::Quant { label: need.label.clone(), error };
        need.bias().check(&weight.params).map_err(failed)?;
        needs.entry(b.weight).or_insert_with(|| {
            ranges.push(b.weight);
            Vec::new()
        });
        needs.entry(b.weight).or_default().push(need);
    }
    for range in ranges {
        let (Some(needs), Some(weight)) = (needs.get(&range), frozen.get_mut(&range)) else { continue };
        let labels: Vec<&str> = needs.iter().map(|n| n.label.as_str()).collect();
        let label = labels.join(", ");
        let biases: Vec<quant::Bias<'_>> = needs.iter().map(Need::bias).collect();
        let fitted = fit_biases(&biases, &weight.params)
            .map_err(|error| FreezeError::Quant { label: label.clone(), error })?;
        if !fitted.changed.is_empty() {
            report.raised.push((label, fitted.changed.len()));
        }
        weight.params = fitted.weights;
    }
    Ok(())
}

/// The constants of one grid.
#[derive(Clone, Copy)]
struct Constants {
    scale: GlobalId,
    zero_point: GlobalId,
}

fn write(
    module: &mut Module,
    quantisers: &[FakeQuant],
    biases: &[Bias],
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
    for b in biases {
        let (Some(data), Some(weight)) = (constants.get(&b.data), constants.get(&b.weight)) else { continue };
        write_bias(&mut rewriter, b, *data, *weight)?;
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
    b: &Bias,
    data: Constants,
    weight: Constants,
) -> Result<(), FreezeError> {
    let Some(mul) = rewriter.registry().kind("mul") else { return Ok(()) };
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
    let operands = [b.value, rewriter.global(scale).value, rewriter.global(zero_point).value];
    let quantised = rewriter.emit("qdq", &operands, attrs, At::Before(b.op))?;
    rewriter.set_operand(b.op, b.place, Some(quantised));
    Ok(())
}
