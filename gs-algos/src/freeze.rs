//! Freezing: every observed or learned grid becomes a constant scale and zero point (`qdq`), and every bias of an
//! operation that runs in integers gets its 32-bit grid, the product of the scales of data and weight.
//!
//! A bias that would not fit into 32 bits raises the scale of its channel's weight, so the guard runs before
//! any weight is quantised (algorithms, section 1.4). A layer so wide that its sums can leave the 32-bit accumulator
//! stays in float.
//!
//! Quantisers are frozen first; batch normalisation that was trained beside quantised weights becomes part of them next;
//! biases come last, when all scales are known.

mod grids;
mod layers;
mod norms;
mod write;

use crate::learned::is_unset;
use crate::quant::{ChannelParams, Grid, QuantError, Range};
use crate::quantisers::{FakeQuant, Parameter, quantisers};
use gs_eval::{ContentsError, Materializer};
use gs_ir::{GlobalId, InferError, Module};
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
    /// A batch normalisation reads what a layer with a quantised weight computes, and folding it would change codes.
    #[error(
        "\"{name}\" normalises the result of \"{layer}\", and cannot become part of its quantised weight: {why}; run \
         `fold-bn` before quantisers are placed (or exclude \"{layer}\")"
    )]
    BatchNorm {
        /// The batch normalisation.
        name: String,
        /// The layer.
        layer: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// The shipped rules do not load (a defect of this library).
    #[error("{0}")]
    Rules(String),
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

/// Scales and zero points of one range global.
struct Frozen {
    params: ChannelParams,
    axis: Option<usize>,
}

/// Freezes every quantiser of the network.
///
/// # Errors
/// See [`FreezeError`]; the module is unchanged then.
pub fn freeze(module: &mut Module) -> Result<FreezeReport, FreezeError> {
    let mut frozen = module.clone();
    let report = freeze_all(&mut frozen)?;
    *module = frozen;
    Ok(report)
}

fn freeze_all(module: &mut Module) -> Result<FreezeReport, FreezeError> {
    let quantisers =
        quantisers(module).map_err(|error| FreezeError::Quant { label: "a quantiser".to_owned(), error })?;
    let norms = norms::norms(module, &quantisers)?;
    let mut ranges = FxHashMap::default();
    for q in &quantisers {
        if let std::collections::hash_map::Entry::Vacant(slot) = ranges.entry(q.range) {
            slot.insert(Frozen { params: read_params(module, q)?, axis: q.axis });
        }
    }
    let dead = write::quantisers(module, &quantisers, &ranges)?;
    norms::fold(module, &norms)?;
    fit(module, &dead)
}

/// Gives biases their grids, and leaves layers in float that are too wide.
fn fit(module: &mut Module, dead: &grids::Dead) -> Result<FreezeReport, FreezeError> {
    let mut report = FreezeReport::default();
    let quantised = grids::quantised(module, dead)?;
    let mut scales: FxHashMap<GlobalId, ChannelParams> =
        quantised.iter().map(|q| (q.scale, q.params.clone())).collect();
    let found = layers::layers(module, &quantised);
    let wide = Fitting::new(module).fit(&found, &mut scales, &mut report)?;
    report.too_wide = wide.iter().map(|w| (module.label(w.layer.op).to_owned(), w.bound)).collect();
    let erased = keep_in_float(module, &wide);
    let left = |l: &&layers::Layer| !wide.iter().any(|w| w.layer.op == l.op);
    let kept: Vec<&layers::Layer> = found.iter().filter(left).collect();
    let quantised: Vec<_> = quantised.into_iter().filter(|q| !erased.contains(&q.op)).collect();
    report.quantisers = quantised.len();
    report.biases = kept.iter().filter(|l| l.bias.is_some()).count();
    write::raised(module, &quantised, &scales);
    write::biases(module, &kept)?;
    Ok(report)
}

/// Reads the grid that a quantiser has observed or learned.
fn read_params(module: &Module, q: &FakeQuant) -> Result<ChannelParams, FreezeError> {
    let name = || q.describe(module);
    let wrong = |what: String| FreezeError::BadRange { name: name(), what };
    if is_unset(module, q.range) {
        return Err(FreezeError::NotObserved(name()));
    }
    let tensor = Materializer::new(module).tensor(q.range)?;
    let values = tensor.as_f32().unwrap_or(&[]);
    if values.iter().any(|v| v.is_nan()) {
        return Err(wrong("it is not a number; training may have diverged".to_owned()));
    }
    if values.is_empty() {
        return Err(wrong("it has no element".to_owned()));
    }
    // As the operators compute their steps: one division in f32.
    let int = q.grid.int;
    let zero = if q.grid.symmetric { int.symmetric_zero_point() } else { 0 };
    let divisor = match q.parameter {
        Parameter::Range => return read_range(values, q.grid).map_err(wrong),
        Parameter::Step => 1.0,
        Parameter::Clip => (int.qmax() - zero) as f32,
        Parameter::Level { .. } => int.qmax() as f32,
    };
    let steps: Vec<f32> = values.iter().map(|v| v / divisor).collect();
    ChannelParams::from_parts(&steps, &vec![zero; steps.len()], int).map_err(|e| wrong(e.to_string()))
}

/// The grids that ranges span: minima, then maxima.
fn read_range(values: &[f32], grid: Grid) -> Result<ChannelParams, String> {
    if !values.len().is_multiple_of(2) {
        return Err("it must hold minima and maxima".to_owned());
    }
    let (low, high) = values.split_at(values.len() / 2);
    let ranges: Result<Vec<Range>, QuantError> =
        low.iter().zip(high).map(|(&l, &h)| Range::new(l, h)).collect();
    Ok(ChannelParams::from_ranges(&ranges.map_err(|e| e.to_string())?, grid))
}
