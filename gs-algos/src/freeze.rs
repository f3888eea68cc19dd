//! Freezing: every observed range becomes a constant scale and zero point (`qdq`), and every bias of an
//! operation that runs in integers gets its 32-bit grid, the product of the scales of data and weight.
//!
//! A bias that would not fit into 32 bits raises the scale of its channel's weight, so the guard runs before
//! any weight is quantised (algorithms, section 1.4). A layer so wide that its sums can leave the 32-bit accumulator
//! stays in float.

mod layers;
mod write;

use crate::quant::{ChannelParams, QuantError, Range};
use crate::quantisers::{FakeQuant, fake_quants};
use gs_eval::{ContentsError, Materializer};
use gs_ir::{InferError, Module, Use};
use layers::{Fitting, keep_in_float};
use rustc_hash::FxHashMap;
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
    /// Layers that stay in float, by name, with what their sums of products can reach.
    pub too_wide: Vec<(String, u64)>,
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
    let mut quantisers =
        fake_quants(module).map_err(|error| FreezeError::Quant { label: "a quantiser".to_owned(), error })?;
    refuse_batch_norm(module, &quantisers)?;
    let mut report = FreezeReport::default();
    let mut frozen = FxHashMap::default();
    for q in &quantisers {
        if let std::collections::hash_map::Entry::Vacant(slot) = frozen.entry(q.range) {
            slot.insert(Frozen { params: read_params(module, q)?, axis: q.axis });
        }
    }
    let found = layers::layers(module, &quantisers);
    let wide = Fitting::new(module).fit(&found, &mut frozen, &mut report)?;
    report.too_wide = wide.iter().map(|w| (module.label(w.layer.op).to_owned(), w.bound)).collect();
    let erased = keep_in_float(module, &wide);
    quantisers.retain(|q| !erased.contains(&q.op));
    let left = |l: &&layers::Layer| !wide.iter().any(|w| w.layer.op == l.op);
    let kept: Vec<&layers::Layer> = found.iter().filter(left).collect();
    report.quantisers = quantisers.len();
    report.biases = kept.iter().filter(|l| l.bias.is_some()).count();
    write::write(module, &quantisers, &kept, &frozen)?;
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
