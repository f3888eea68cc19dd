//! Batch normalisation of quantised layers. It stays beside the quantised weight while that is trained, and becomes part
//! of it when the network is frozen: scales take its factors. That is exact where weights have no zero point and the
//! target has a scale for each channel; otherwise it is folded before quantisers are placed, and the folded weight is
//! trained.

use crate::quant::ChannelLayout;
use gs_eval::{ContentsError, Materializer, Tensor};
use gs_ir::registry::{QRole, Traits};
use gs_ir::{GlobalId, GraphId, Init, Module, OpId, Rewriter, ValueId};
use gs_passes::grid::{Grids, Part, behind_quantisers, channel_axis, weight_only};
use gs_passes::training::ParamGroup;
use rustc_hash::FxHashSet;

/// The batch normalisations that are to be folded before quantisers are placed: all, where they may not be `kept`; else
/// those that are not part of a layer as they stand.
pub(crate) fn to_fold(module: &Module, graph: GraphId, grids: &Grids, kept: bool) -> FxHashSet<OpId> {
    let stays = |op: OpId| match grids.part(op) {
        Some(Part::Absorbed { .. }) => kept,
        // Where the layer stays in float its normalisation may be trained with it.
        Some(Part::Float(reason)) => kept && reason.code == "float-layer",
        _ => false,
    };
    module.ops_in(graph).filter(|&op| module.is(op, "batch_norm") && !stays(op)).collect()
}

/// Makes the factors of batch normalisations positive that belong to layers: where one is negative, the weights of its
/// channel, their bias, the mean and the factor are negated, which changes no result. So scales stay positive when the
/// factors are folded into them, and no code needs a negative that it has not. Returns how many channels.
///
/// # Errors
/// Contents that cannot be made.
pub(crate) fn make_positive(
    module: &mut Module,
    graph: GraphId,
    grids: &Grids,
) -> Result<usize, ContentsError> {
    let mut changed = Vec::new();
    let mut channels = 0;
    {
        let module = &*module;
        let mut materializer = Materializer::new(module);
        for op in module.ops_in(graph) {
            let Some(&Part::Absorbed { into }) = grids.part(op) else { continue };
            if !module.is(op, "batch_norm") {
                continue;
            }
            if let Some(mut negated) = negate(module, &mut materializer, op, into)? {
                channels += negated.channels;
                changed.append(&mut negated.contents);
            }
        }
    }
    let mut rewriter = Rewriter::new(module);
    for (global, tensor) in changed {
        let ty = rewriter.ty(rewriter.global(global).ty).clone();
        rewriter.set_global(global, ty, Init::Data(tensor.data()));
    }
    Ok(channels)
}

/// The batch normalisations of layers that have a negative factor which cannot be made positive: what would have to be
/// negated is read elsewhere too, or computed.
///
/// # Errors
/// Contents that cannot be made.
pub(crate) fn stay_negative(
    module: &Module,
    graph: GraphId,
    grids: &Grids,
) -> Result<Vec<OpId>, ContentsError> {
    let mut materializer = Materializer::new(module);
    let mut found = Vec::new();
    for op in module.ops_in(graph).filter(|&op| module.is(op, "batch_norm")) {
        let Some(&Part::Absorbed { into }) = grids.part(op) else { continue };
        let factors = module.op(op).operand(1).and_then(|v| module.as_global(v));
        let Some(factors) = factors else { continue };
        let negative = materializer.tensor(factors)?.as_f32().is_some_and(|f| f.iter().any(|f| *f < 0.0));
        if negative && negate(module, &mut materializer, op, into)?.is_none() {
            found.push(op);
        }
    }
    Ok(found)
}

/// What globals hold once channels are negated.
struct Negated {
    channels: usize,
    contents: Vec<(GlobalId, Tensor)>,
}

/// Negates the channels of a layer whose factors are negative; nothing, where there are none or where something else
/// reads its weights too.
fn negate(
    module: &Module,
    materializer: &mut Materializer<'_>,
    norm: OpId,
    layer: OpId,
) -> Result<Option<Negated>, ContentsError> {
    let own = |v: Option<ValueId>| own_global(module, v);
    let (factors, mean) = (own(module.op(norm).operand(1)), own(module.op(norm).operand(3)));
    let operand = |wanted: QRole| {
        let place = module.decl(layer).operands.iter().position(|o| o.role == wanted)?;
        module.op(layer).operand(place)
    };
    let (weight, bias) = (own(operand(QRole::Weight)), operand(QRole::Bias));
    let (Some(factors), Some(mean), Some(weight), Some(axis)) =
        (factors, mean, weight, channel_axis(module, layer))
    else {
        return Ok(None);
    };
    let tensor = materializer.tensor(factors)?;
    let Some(negative) = tensor.as_f32().map(|f| f.iter().map(|f| *f < 0.0).collect::<Vec<bool>>()) else {
        return Ok(None);
    };
    let channels = negative.iter().filter(|n| **n).count();
    if channels == 0 {
        return Ok(None);
    }
    let mut contents = Vec::new();
    let vectors = match (bias, own(bias)) {
        (Some(_), None) => return Ok(None),
        (_, bias) => [Some(factors), Some(mean), bias],
    };
    for global in vectors.into_iter().flatten() {
        let Some(negated) = negated(&materializer.tensor(global)?, None, &negative) else { return Ok(None) };
        contents.push((global, negated));
    }
    let Some(negated) = negated(&materializer.tensor(weight)?, Some(axis), &negative) else {
        return Ok(None);
    };
    contents.push((weight, negated));
    Ok(Some(Negated { channels, contents }))
}

/// A tensor with some channels negated, which lie along an axis (of a vector: its only one).
fn negated(tensor: &Tensor, axis: Option<usize>, negative: &[bool]) -> Option<Tensor> {
    let mut values = tensor.as_f32()?.to_vec();
    let layout = match axis {
        Some(axis) => ChannelLayout::new(tensor.dims(), axis).ok()?,
        None => ChannelLayout::new(&[values.len()], 0).ok()?,
    };
    if layout.channels() != negative.len() {
        return None;
    }
    layout.runs_mut(&mut values).filter(|(c, _)| negative[*c]).for_each(|(_, run)| {
        run.iter_mut().for_each(|v| *v = -*v);
    });
    Tensor::f32s(tensor.dims(), values).ok()
}

/// The global that a value is, if nothing else reads it.
fn own_global(module: &Module, value: Option<ValueId>) -> Option<GlobalId> {
    let id = module.as_global(value?)?;
    let is_operand = |init: &Init| match init {
        Init::Derived(d) => d.operands.contains(&Some(id)),
        _ => false,
    };
    let alone = module.only_use(module.global(id).value).is_some() && !module.is_written(id);
    (alone && !module.globals().any(|(_, g)| is_operand(&g.init))).then_some(id)
}

/// The least factor of a batch normalisation that is to be folded into scales.
const LEAST_FACTOR: f32 = 1.0 / (1 << 20) as f32;

/// The factors of batch normalisations behind quantised weights: after each step of training they are positive, if they
/// are before.
pub(crate) fn positive_factors(module: &Module) -> Option<ParamGroup> {
    let quantised = |layer: OpId| {
        let mut reads = module.op(layer).operands().flatten();
        reads.any(|v| {
            let quantises =
                module.producer(v).is_some_and(|op| module.decl(op).traits.has(Traits::QUANTISER));
            quantises && weight_only(module, behind_quantisers(module, v))
        })
    };
    let positive = |id: GlobalId| {
        let tensor = Materializer::new(module).tensor(id).ok();
        tensor.is_some_and(|t| t.as_f32().is_some_and(|f| f.iter().all(|f| *f >= 0.0)))
    };
    let factors = module.ops_in(module.main()?).filter_map(|op| {
        let norm = module.op(op);
        let layer = module.producer(norm.operand(0)?)?;
        let id = module.as_global(norm.operand(1)?)?;
        let factors = module.global(id);
        let meant = module.is(op, "batch_norm") && factors.trainable && quantised(layer) && positive(id);
        meant.then(|| module.str(factors.name).to_owned())
    });
    let params: Vec<String> = factors.collect();
    let group = ParamGroup { params, min: Some(LEAST_FACTOR), optional: true, ..ParamGroup::default() };
    (!group.params.is_empty()).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gs_eval::random::unit;
    use gs_eval::{Evaluator, Executor};
    use gs_ir::Registry;

    /// Factors become positive without a bit of the results changing.
    #[test]
    fn negating_channels_changes_no_result() {
        for (weight, layer, x, y, axis) in [
            ("4, 3, 3, 3", "conv(%x, @w, @b)", "2, 3, 5, 5", "2, 4, 3, 3", 0),
            ("4, 1, 3, 3", "conv(%x, @w) {group = 4}", "2, 4, 5, 5", "2, 4, 3, 3", 0),
            ("3, 4, 2, 2", "conv_transpose(%x, @w, @b)", "2, 3, 3, 3", "2, 4, 4, 4", 1),
            ("4, 6", "gemm(%x, @w, @b) {alpha = 0.5, beta = 2.0, trans_b = true}", "2, 6", "2, 4", 0),
            ("6, 4", "gemm(%x, @w, @b)", "2, 6", "2, 4", 1),
        ] {
            let text = format!(
                "gsir 1\nparam @w : f32[{weight}] = uniform(seed 1, -0.5, 0.5)\n\
                 param @b : f32[4] = dense(0.3, -0.2, 0.1, 0.7)\nparam @gamma : f32[4] = dense(1.5, -0.75, 0.0, -2.0)\n\
                 param @beta : f32[4] = dense(0.5, 0.25, -0.5, 0.1)\nconst @mean : f32[4] = dense(0.1, -0.2, 0.3, 0.4)\n\
                 const @var : f32[4] = dense(1.0, 0.5, 0.03, 2.0)\n\
                 graph @main(%x : f32[{x}]) -> (%y : f32[{y}]) {{\n  %0 = {layer} : f32[{y}]\n  \
                 %1 = batch_norm(%0, @gamma, @beta, @mean, @var) : f32[{y}]\n  return %1\n}}\n"
            );
            let before = gs_text::gsir::parse_module(&text, None, &Registry::builtin()).expect("a module");
            let mut module = before.clone();
            let graph = module.main().expect("a graph");
            // conv_transpose and factors in gemm have no integer form; what is tested here does not depend on that.
            let (norm, layer) = {
                let ops: Vec<OpId> = module.ops_in(graph).collect();
                (ops[1], ops[0])
            };
            assert_eq!(channel_axis(&module, layer), Some(axis));
            let negated = negate(&module, &mut Materializer::new(&module), norm, layer);
            let negated = negated.expect("contents").expect("two channels");
            assert_eq!(negated.channels, 2, "{text}");
            let mut rewriter = Rewriter::new(&mut module);
            for (global, tensor) in negated.contents {
                let ty = rewriter.ty(rewriter.global(global).ty).clone();
                rewriter.set_global(global, ty, Init::Data(tensor.data()));
            }
            let dims: Vec<usize> = x.split(", ").map(|d| d.parse().expect("an extent")).collect();
            let values: Vec<f32> =
                (0..dims.iter().product::<usize>()).map(|i| unit(5, i as u64) as f32 - 0.5).collect();
            let x = Tensor::f32s(dims, values).expect("a tensor");
            let run =
                |m: &Module| Evaluator::new().run(m, graph, std::slice::from_ref(&x), &[]).expect("a run");
            assert!(run(&before).results[0].same_bits(&run(&module).results[0]), "{text}");
            let factors = module.global_named("gamma").expect("factors");
            let factors = Materializer::new(&module).tensor(factors).expect("factors");
            assert_eq!(factors.as_f32(), Some(&[1.5, 0.75, 0.0, 2.0][..]));
        }
    }
}
