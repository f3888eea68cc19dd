//! The layers that would run in integers: what each sums at most, whether a 32-bit accumulator holds that, and the
//! weight scales at which their biases fit beside it.

use super::grids::Quantised;
use super::{FreezeError, FreezeReport};
use crate::quant::{
    Bias, BiasChangeReason, ChannelLayout, ChannelParams, QuantError, QuantParams, accumulator_bound,
    fit_biases, reach,
};
use gs_eval::Materializer;
use gs_ir::registry::QRole;
use gs_ir::{GlobalId, Module, OpId, Rewriter, ValueId};
use gs_passes::grid::{ACCUMULATOR, channel_axis, weight_only};
use rustc_hash::FxHashMap;

/// An operand that lies on a grid.
pub(super) struct Side {
    place: usize,
    /// The quantiser that states the grid.
    pub(super) quantiser: Quantised,
    /// Whether the operand is what the quantiser returns, not moved from there.
    direct: bool,
}

/// A bias operand.
#[derive(Clone, Copy)]
pub(super) struct BiasOperand {
    pub(super) place: usize,
    pub(super) value: ValueId,
}

/// An operation that sums products of quantised data and a quantised weight.
pub(super) struct Layer {
    pub(super) op: OpId,
    pub(super) data: Side,
    pub(super) weight: Side,
    /// Its bias, if it has one that is to get a grid.
    pub(super) bias: Option<BiasOperand>,
}

/// A layer whose sums a 32-bit accumulator does not hold.
pub(super) struct TooWide<'l> {
    pub(super) layer: &'l Layer,
    /// What its sums can reach.
    pub(super) bound: u64,
}

/// The layers of a network, in graph order.
pub(super) fn layers(module: &Module, quantisers: &[Quantised]) -> Vec<Layer> {
    let by_result: FxHashMap<ValueId, &Quantised> =
        quantisers.iter().map(|q| (module.op(q.op).result(), q)).collect();
    let Some(main) = module.main() else { return Vec::new() };
    let layer = |op: OpId| {
        let decl = module.decl(op);
        let operand = |wanted: QRole| {
            let place = decl.operands.iter().position(|o| o.role == wanted)?;
            Some((place, module.op(op).operand(place)?))
        };
        let (d, data) = operand(QRole::Data)?;
        let (w, weight) = operand(QRole::Weight)?;
        let bias = operand(QRole::Bias).map(|(place, value)| BiasOperand { place, value });
        let side = |place, value| {
            let quantiser = grid_source(module, value, &by_result)?;
            let direct = module.op(quantiser.op).result() == value;
            Some(Side { place, quantiser: quantiser.clone(), direct })
        };
        let bias = bias.filter(|b| weight_only(module, b.value) && by_result.contains_key(&weight));
        Some(Layer { op, data: side(d, data)?, weight: side(w, weight)?, bias })
    };
    module.ops_nested(main).into_iter().filter_map(layer).collect()
}

/// The quantiser on whose grid a value lies: its own, or that of the value it was moved from.
fn grid_source<'q>(
    module: &Module,
    mut value: ValueId,
    by_result: &FxHashMap<ValueId, &'q Quantised>,
) -> Option<&'q Quantised> {
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

/// Number of products that one output of a layer sums, where it is known.
fn products(module: &Module, layer: &Layer) -> Option<usize> {
    let weight = module.op(layer.op).operand(layer.weight.place)?;
    let dims = module.type_of(weight).as_tensor()?.shape.as_ref()?;
    let extent = |i: usize| usize::try_from(dims.get(i)?.as_const()?).ok();
    if module.is(layer.op, "matmul") {
        // Axes before the last two are batches of matrices; a vector is all summed.
        return extent(dims.len().saturating_sub(2));
    }
    let channel = channel_axis(module, layer.op);
    (0..dims.len())
        .filter(|i| Some(*i) != channel)
        .try_fold(1usize, |n, i| Some(n.saturating_mul(extent(i)?)))
}

/// The sum of a bias and of products may need at most half of the accumulator each without a look at the weight.
const HALF: u64 = i32::MAX as u64 / 2;

/// Fits the weight scales of layers to their biases, and finds the layers that are too wide.
pub(super) struct Fitting<'m> {
    module: &'m Module,
    materializer: Materializer<'m>,
    /// The largest sum of the magnitudes of a channel's codes, by weight and by the axis of its channels.
    sums: FxHashMap<(ValueId, GlobalId, Option<usize>), u64>,
}

/// What a bias asks of the scales of its weight.
struct Need {
    label: String,
    values: Vec<f32>,
    input_scale: f32,
    acc_bound: u64,
}

impl Need {
    fn bias(&self) -> Bias<'_> {
        Bias { values: &self.values, input_scale: self.input_scale, acc_bound: self.acc_bound }
    }
}

impl<'m> Fitting<'m> {
    pub(super) fn new(module: &'m Module) -> Self {
        Self { module, materializer: Materializer::new(module), sums: FxHashMap::default() }
    }

    /// Raises weight scales where a bias would not fit: each once, for all layers that share the weight. Returns the
    /// layers that are too wide; their biases take no part.
    pub(super) fn fit<'l>(
        &mut self,
        layers: &'l [Layer],
        scales: &mut FxHashMap<GlobalId, ChannelParams>,
        report: &mut FreezeReport,
    ) -> Result<Vec<TooWide<'l>>, FreezeError> {
        let mut wide = Vec::new();
        // In the order of the layers.
        let mut order: Vec<GlobalId> = Vec::new();
        let mut needs: FxHashMap<GlobalId, Vec<Need>> = FxHashMap::default();
        for layer in layers {
            let [data, weight] = [&layer.data, &layer.weight].map(|s| &s.quantiser.params);
            let Some(&data) = data.params().first() else { continue };
            let Some(bound) = self.bound(layer, data, weight)? else { continue };
            let need = self.need(layer, data, bound)?;
            if is_too_wide(need.as_ref(), bound, weight)? {
                wide.push(TooWide { layer, bound });
                continue;
            }
            let scale = layer.weight.quantiser.scale;
            if let Some(need) = need {
                let of = needs.entry(scale).or_default();
                if of.is_empty() {
                    order.push(scale);
                }
                of.push(need);
            }
        }
        for scale in order {
            let (Some(needs), Some(weight)) = (needs.get(&scale), scales.get_mut(&scale)) else { continue };
            let labels: Vec<&str> = needs.iter().map(|n| n.label.as_str()).collect();
            let label = labels.join(", ");
            let biases: Vec<Bias<'_>> = needs.iter().map(Need::bias).collect();
            let fitted = fit_biases(&biases, weight)
                .map_err(|error| FreezeError::Quant { label: label.clone(), error })?;
            if !fitted.changed.is_empty() {
                report.raised.push((label, fitted.changed.len()));
            }
            *weight = fitted.weights;
        }
        Ok(wide)
    }

    /// What the bias of a layer asks, if it has one.
    fn need(
        &mut self,
        layer: &Layer,
        data: QuantParams,
        acc_bound: u64,
    ) -> Result<Option<Need>, FreezeError> {
        let Some(bias) = layer.bias.and_then(|b| self.module.as_global(b.value)) else { return Ok(None) };
        let values = self.materializer.tensor(bias)?.to_f64s().unwrap_or_default();
        let values = values.into_iter().map(|v| v as f32).collect();
        let label = self.module.label(layer.op).to_owned();
        Ok(Some(Need { label, values, input_scale: data.scale(), acc_bound }))
    }

    /// What the sums of products of a layer can reach, in steps; nothing where extents are not known. The weight is
    /// looked at only where it might matter.
    fn bound(
        &mut self,
        layer: &Layer,
        data: QuantParams,
        weight: &ChannelParams,
    ) -> Result<Option<u64>, FreezeError> {
        let Some(products) = products(self.module, layer) else { return Ok(None) };
        let worst = accumulator_bound(products, data, weight);
        if worst <= HALF || !(layer.weight.direct && layer.weight.quantiser.weight) {
            return Ok(Some(worst));
        }
        let sum = self.sum_of_codes(layer, weight)?;
        Ok(Some(sum.map_or(worst, |sum| sum.saturating_mul(reach(data)).min(worst))))
    }

    /// The largest sum of the magnitudes of the codes of one channel. Scales are only ever raised, which makes codes
    /// smaller.
    fn sum_of_codes(&mut self, layer: &Layer, weight: &ChannelParams) -> Result<Option<u64>, FreezeError> {
        let q = &layer.weight.quantiser;
        let axis = q.axis.or_else(|| channel_axis(self.module, layer.op));
        let key = (q.input, q.scale, axis);
        if let Some(&known) = self.sums.get(&key) {
            return Ok(Some(known));
        }
        let Some(global) = self.module.as_global(q.input) else { return Ok(None) };
        let tensor = self.materializer.tensor(global)?;
        let Some(values) = tensor.as_f32() else { return Ok(None) };
        let layout = match axis.map(|axis| ChannelLayout::new(tensor.dims(), axis)) {
            Some(Ok(layout)) => layout,
            _ => return Ok(None),
        };
        let params = weight.params();
        let sum = |c: usize| {
            let p = params.get(if params.len() == 1 { 0 } else { c })?;
            let codes = layout.runs(values, c).flatten();
            let steps =
                codes.map(|&v| (i64::from(p.quantize_one(v)) - i64::from(p.zero_point())).unsigned_abs());
            Some(steps.sum::<u64>())
        };
        let largest = (0..layout.channels()).filter_map(sum).max().unwrap_or(0);
        self.sums.insert(key, largest);
        Ok(Some(largest))
    }
}

/// Whether a 32-bit accumulator does not hold a layer's sums with its bias. Where more than half is left beside the
/// products, a bias that does not fit raises the scale of its weight instead.
fn is_too_wide(need: Option<&Need>, bound: u64, weight: &ChannelParams) -> Result<bool, FreezeError> {
    let Some(need) = need else { return Ok(bound > i32::MAX as u64) };
    match fit_biases(&[need.bias()], weight) {
        Ok(fitted) => {
            let raised = fitted.changed.iter().any(|c| c.reason == BiasChangeReason::Overflow);
            Ok(raised && bound > HALF)
        }
        Err(QuantError::AccumulatorOverflow { .. }) => Ok(true),
        Err(error) => Err(FreezeError::Quant { label: need.label.clone(), error }),
    }
}

/// Leaves layers in float: they read their operands as they were, and the ledger says why. Returns the quantisers
/// that nothing reads any more, which are erased.
pub(super) fn keep_in_float(module: &mut Module, wide: &[TooWide<'_>]) -> Vec<OpId> {
    let mut rewriter = Rewriter::new(module);
    let mut erased = Vec::new();
    for TooWide { layer, bound } in wide {
        let reason = format!("its sums of products can reach {bound}, too much for 32 bits and its bias");
        let entry = rewriter.entry(ACCUMULATOR, "freeze", None, Some(&reason));
        for name in rewriter.source_of(layer.op).to_vec() {
            rewriter.kept.insert(name, entry.clone());
        }
        for side in [&layer.data, &layer.weight].into_iter().filter(|s| s.direct) {
            let quantiser = side.quantiser.op;
            rewriter.set_operand(layer.op, side.place, Some(side.quantiser.input));
            if rewriter.value(rewriter.op(quantiser).result()).uses().is_empty() {
                rewriter.erase(quantiser);
                erased.push(quantiser);
            }
        }
    }
    erased
}
