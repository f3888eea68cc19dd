//! Calibration: choosing the ranges of quantisers from data, and what learned ones begin with.
//!
//! The network runs in float, as if it had no quantisers, and each quantised value is watched by an observer.
//! Quantisers that share a range (one grid class) share an observer. Weights need no data.

use crate::learned::{
    LEAST_CLIP, LEAST_STEP, Magnitude, StepInit, highest, is_unset, set_values, weight_steps,
};
use crate::observers::{
    AnyObserver, Observer, ObserverError, ObserverKind, WeightRule, channel_ranges, value_range,
};
use crate::quant::{Grid, QuantError, Range};
use crate::quantisers::{FakeQuant, Parameter, leaves, quantisers};
use gs_eval::{ContentsError, DataError, DataSource, ExecError, Executor, Materializer, TensorSpec};
use gs_ir::{GlobalId, InferError, Init, Literal, Module, Rewriter, Role, Type, ValueId};
use gs_passes::grid::behind_quantisers;
use rustc_hash::FxHashMap;
use thiserror::Error;

/// What calibration is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrateOptions {
    /// How the ranges of activations are chosen.
    pub observer: ObserverKind,
    /// How the ranges of weights are chosen.
    pub weights: WeightRule,
    /// How learned steps are chosen at first.
    pub steps: StepInit,
    /// The part of values, in percent, that learned clips leave alone at first.
    pub clip: f64,
    /// Samples per batch.
    pub batch: usize,
    /// Use this many samples at most.
    pub limit: Option<usize>,
}

/// Least squared error is the default: of all observers it gave the best signal-to-noise ratio on training images
/// for each of the residual networks it was chosen on.
impl Default for CalibrateOptions {
    fn default() -> Self {
        Self {
            observer: ObserverKind::Mse { norm: 2.0 },
            weights: WeightRule::MinMax,
            steps: StepInit::default(),
            clip: 99.9,
            batch: 32,
            limit: None,
        }
    }
}

/// What calibration did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrateReport {
    /// Samples that were run.
    pub samples: usize,
    /// Ranges of activations that were set.
    pub activations: usize,
    /// Ranges of weights that were set.
    pub weights: usize,
    /// Values that were not finite, by what was watched.
    pub not_finite: Vec<(String, u64)>,
}

/// Why calibration failed.
#[derive(Debug, Error)]
pub enum CalibrateError {
    /// There is no quantiser.
    #[error("the module has no quantiser to calibrate; run `simqat` first")]
    NothingToDo,
    /// Not as many samples as one batch takes.
    #[error("calibration needs at least one batch of {batch} samples")]
    NoSamples {
        /// Samples of a batch.
        batch: usize,
    },
    /// A field that the network needs is not in the data.
    #[error("the data has no field for the input `{input}`; it has: {fields}")]
    MissingInput {
        /// The input.
        input: String,
        /// What there is.
        fields: String,
    },
    /// A range could not be chosen.
    #[error("{name}: {error}")]
    Range {
        /// What it is the range of, in words.
        name: String,
        /// Why.
        error: ObserverError,
    },
    /// A grid that cannot be.
    #[error(transparent)]
    Grid(#[from] QuantError),
    /// The network could not be run.
    #[error("running the network for calibration: {0}")]
    Exec(#[from] ExecError),
    /// A weight could not be read.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An operation that does not fit (a defect of this library).
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The user stopped it.
    #[error("stopped")]
    Cancelled,
}

/// Watches the values for one parameter.
struct Watch {
    range: GlobalId,
    /// What it watches, in words.
    what: String,
    parameter: Parameter,
    grid: Grid,
    observer: AnyObserver,
    /// For steps by the mean magnitude.
    magnitude: Magnitude,
}

impl Watch {
    fn new(module: &Module, q: &FakeQuant, options: &CalibrateOptions) -> Self {
        let observer = match q.parameter {
            Parameter::Step if options.steps == StepInit::Mse => ObserverKind::Mse { norm: 2.0 },
            Parameter::Step => ObserverKind::MinMax,
            Parameter::Clip => ObserverKind::Percentile { p: options.clip },
            Parameter::Range | Parameter::Level { .. } => options.observer,
        };
        Self {
            range: q.range,
            what: q.describe(module),
            parameter: q.parameter,
            grid: q.grid,
            observer: AnyObserver::new(observer),
            magnitude: Magnitude::default(),
        }
    }

    fn observe(&mut self, values: &[f32]) {
        self.observer.observe(values);
        if self.parameter == Parameter::Step {
            self.magnitude.observe(values);
        }
    }

    /// What the parameter is to be.
    fn chosen(&self, steps: StepInit) -> Result<Chosen, ObserverError> {
        let range = self.observer.range(self.grid)?;
        Ok(match self.parameter {
            Parameter::Range | Parameter::Level { .. } => Chosen::Range(range),
            Parameter::Clip => Chosen::Number(range.abs_max().max(LEAST_CLIP)),
            Parameter::Step => match self.magnitude.step(highest(self.grid)) {
                Some(step) if steps == StepInit::Lsq => Chosen::Number(step),
                _ => Chosen::Number(self.grid.params(range).scale().max(LEAST_STEP)),
            },
        })
    }
}

/// A parameter of an activation's quantiser.
enum Chosen {
    Range(Range),
    Number(f32),
}

/// Chooses the range of every quantiser and writes it to the state that holds it; learned parameters that have no value
/// yet get their first one.
///
/// `progress` is told how many of how many samples are done, and says whether to go on.
///
/// # Errors
/// See [`CalibrateError`]; the module is unchanged then.
pub fn calibrate(
    module: &mut Module,
    executor: &dyn Executor,
    data: &dyn DataSource,
    options: &CalibrateOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<CalibrateReport, CalibrateError> {
    let quantisers = quantisers(module)?;
    let observed = |q: &&FakeQuant| match q.parameter {
        Parameter::Range => module.global(q.range).role == Role::State,
        Parameter::Step | Parameter::Clip => is_unset(module, q.range),
        Parameter::Level { .. } => false,
    };
    if quantisers.iter().all(|q| q.parameter == Parameter::Range && !observed(&q)) {
        return Err(CalibrateError::NothingToDo);
    }
    let learned = |q: &&FakeQuant| q.parameter == Parameter::Step;
    let weights = quantisers.iter().filter(observed).filter(|q| q.weight);
    let steps = first_steps(module, weights.filter(learned), options.steps)?;
    let observed = |q: &&FakeQuant| observed(q) && !(q.weight && learned(q));
    let weights =
        weight_ranges(module, quantisers.iter().filter(observed).filter(|q| q.weight), options.weights)?;
    let (mut watches, fed) = watch(module, quantisers.iter().filter(observed).filter(|q| !q.weight), options);

    let mut report = CalibrateReport { weights: weights.len() + steps.len(), ..CalibrateReport::default() };
    if !watches.is_empty() {
        report.samples = run(module, executor, data, options, &mut watches, &fed, progress)?;
    }
    let (mut ranges, mut numbers) = (weights, steps);
    for w in &watches {
        let name = w.what.clone();
        let seen = w.observer.seen();
        if seen.nan + seen.infinite > 0 {
            report.not_finite.push((name.clone(), seen.nan + seen.infinite));
        }
        match w.chosen(options.steps).map_err(|error| CalibrateError::Range { name, error })? {
            Chosen::Range(range) => ranges.push((w.range, vec![range], None)),
            Chosen::Number(number) => numbers.push((w.range, vec![number])),
        }
    }
    report.activations = watches.len();
    let mut rewriter = Rewriter::new(module);
    for (global, ranges, channels) in ranges {
        set_range(&mut rewriter, global, &ranges, channels);
    }
    for (global, values) in numbers {
        set_values(&mut rewriter, global, &values);
    }
    Ok(report)
}

/// Gives the steps of weights that have none yet their first ones, which needs no data. How many.
///
/// # Errors
/// A weight that cannot be read or is not finite.
pub(crate) fn calibrate_weight_steps(module: &mut Module, init: StepInit) -> Result<usize, CalibrateError> {
    let quantisers = quantisers(module)?;
    let unset = |q: &&FakeQuant| q.weight && q.parameter == Parameter::Step && is_unset(module, q.range);
    let steps = first_steps(module, quantisers.iter().filter(unset), init)?;
    let mut rewriter = Rewriter::new(module);
    for (global, values) in &steps {
        set_values(&mut rewriter, *global, values);
    }
    Ok(steps.len())
}

/// The first steps of weights.
fn first_steps<'q>(
    module: &Module,
    quantisers: impl Iterator<Item = &'q FakeQuant>,
    init: StepInit,
) -> Result<Vec<(GlobalId, Vec<f32>)>, CalibrateError> {
    let mut materializer = Materializer::new(module);
    let mut steps = Vec::new();
    for q in quantisers {
        let (values, dims) = finite_weight(module, &mut materializer, q)?;
        let chosen = weight_steps(&values, &dims, q.axis, init, q.grid)
            .map_err(|error| CalibrateError::Range { name: q.describe(module), error })?;
        steps.push((q.range, chosen));
    }
    Ok(steps)
}

/// A weight and its extents; every element must be finite.
pub(crate) fn finite_weight(
    module: &Module,
    materializer: &mut Materializer<'_>,
    q: &FakeQuant,
) -> Result<(Vec<f32>, Vec<usize>), CalibrateError> {
    // Placement folds what is computed from weights, so a quantised weight is a global.
    let Some(weight) = module.as_global(q.input) else { return Ok((Vec::new(), Vec::new())) };
    let tensor = materializer.tensor(weight)?;
    let values: Vec<f32> = tensor.to_f64s().unwrap_or_default().into_iter().map(|v| v as f32).collect();
    let Some((index, &value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) else {
        return Ok((values, tensor.dims().to_vec()));
    };
    let mut name = q.describe(module);
    if let Some(source) = not_finite_source(module, materializer, weight)? {
        name.push_str(&format!(", computed from \"{source}\", which is not finite everywhere"));
    }
    let error = QuantError::NonFinite { what: "element", index, value }.into();
    Err(CalibrateError::Range { name, error })
}

/// Refuses a weight of this name that is not finite.
///
/// # Errors
/// Names the first element.
pub(crate) fn check_finite(name: &str, values: &[f32]) -> Result<(), CalibrateError> {
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((index, &value)) => Err(CalibrateError::Range {
            name: format!("weight \"{name}\""),
            error: QuantError::NonFinite { what: "element", index, value }.into(),
        }),
    }
}

/// The ranges of weights: per global its ranges, and the number of channels where they differ along an axis.
type Ranges = Vec<(GlobalId, Vec<Range>, Option<usize>)>;

fn weight_ranges<'q>(
    module: &Module,
    quantisers: impl Iterator<Item = &'q FakeQuant>,
    rule: WeightRule,
) -> Result<Ranges, CalibrateError> {
    let mut materializer = Materializer::new(module);
    let mut out: Ranges = Vec::new();
    for q in quantisers {
        if module.as_global(q.input).is_none() {
            continue;
        }
        let failed = |error: ObserverError| CalibrateError::Range { name: q.describe(module), error };
        let (values, dims) = finite_weight(module, &mut materializer, q)?;
        let (ranges, channels) = match q.axis {
            Some(axis) => {
                let ranges = channel_ranges(&values, &dims, axis, rule, q.grid).map_err(failed)?;
                let n = ranges.len();
                (ranges, Some(n))
            }
            None => (vec![value_range(&values, rule, q.grid)], None),
        };
        out.push((q.range, ranges, channels));
    }
    Ok(out)
}

/// The stored tensor from which a computed weight has its numbers that are not finite, if one holds such.
fn not_finite_source(
    module: &Module,
    materializer: &mut Materializer<'_>,
    weight: GlobalId,
) -> Result<Option<String>, ContentsError> {
    for leaf in leaves(module, weight) {
        let values = materializer.tensor(leaf)?.to_f64s().unwrap_or_default();
        if leaf != weight && values.iter().any(|v| !v.is_finite()) {
            return Ok(Some(module.str(module.global(leaf).name).to_owned()));
        }
    }
    Ok(None)
}

/// The places of the watches that a value feeds.
type Fed = FxHashMap<ValueId, Vec<usize>>;

/// One observer per range, and which of them a value feeds: several, where quantisers with ranges of their own read it.
fn watch<'q>(
    module: &Module,
    quantisers: impl Iterator<Item = &'q FakeQuant>,
    options: &CalibrateOptions,
) -> (Vec<Watch>, Fed) {
    let mut watches: Vec<Watch> = Vec::new();
    let mut by_range: FxHashMap<GlobalId, usize> = FxHashMap::default();
    let mut fed = Fed::default();
    for q in quantisers {
        let index = *by_range.entry(q.range).or_insert_with(|| {
            watches.push(Watch::new(module, q, options));
            watches.len() - 1
        });
        // The network runs without quantisers: what another one returns is what that one reads.
        let of_value = fed.entry(behind_quantisers(module, q.input)).or_default();
        if !of_value.contains(&index) {
            of_value.push(index);
        }
    }
    (watches, fed)
}

/// Shows values to the watches that they feed.
fn observe(watches: &mut [Watch], fed: Option<&Vec<usize>>, values: Option<&[f32]>) {
    let Some(values) = values else { return };
    for &index in fed.into_iter().flatten() {
        if let Some(watch) = watches.get_mut(index) {
            watch.observe(values);
        }
    }
}

/// Runs the data through the network as if it had no quantisers. Returns the number of samples.
fn run(
    module: &Module,
    executor: &dyn Executor,
    data: &dyn DataSource,
    options: &CalibrateOptions,
    watches: &mut [Watch],
    fed: &Fed,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<usize, CalibrateError> {
    let float = without_quantisers(module);
    let Some(main) = float.main() else { return Err(CalibrateError::NothingToDo) };
    let fixed = gs_eval::fixed_batch(&float, main);
    let batch = fixed.unwrap_or(options.batch).max(1);
    let mut total = options.limit.unwrap_or(usize::MAX).min(data.len());
    if let Some(batch) = fixed {
        // A rest that fills no batch cannot be run.
        total -= total % batch;
    }
    if total == 0 {
        return Err(CalibrateError::NoSamples { batch });
    }
    let params = float.graph(main).params().to_vec();
    let mut taps: Vec<ValueId> = fed.keys().copied().filter(|v| !params.contains(v)).collect();
    taps.sort();
    let mut plan = None;
    let mut done = 0;
    while done < total {
        let next = (done + batch).min(total);
        let fields = data.batch(done..next)?;
        let inputs = inputs_of(&float, &params, fields)?;
        for (v, tensor) in params.iter().zip(&inputs) {
            observe(watches, fed.get(v), tensor.as_f32());
        }
        let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
        if plan.as_ref().is_none_or(|(s, _)| *s != specs) {
            plan = Some((specs.clone(), executor.prepare(&float, main, &specs, &taps)?));
        }
        if let Some((_, plan)) = &mut plan {
            plan.run(&inputs, &mut |value, view| {
                observe(watches, fed.get(&value), view.as_f32());
            })?;
        }
        done = next;
        if !progress(done, total) {
            return Err(CalibrateError::Cancelled);
        }
    }
    Ok(done)
}

/// The network's inputs in order, picked from named fields; a single unnamed or differently named field serves a
/// network with one input.
pub fn inputs_of(
    module: &Module,
    params: &[ValueId],
    mut fields: Vec<gs_eval::Field>,
) -> Result<Vec<gs_eval::Tensor>, CalibrateError> {
    let mut inputs = Vec::with_capacity(params.len());
    for &p in params {
        let name = module.str(module.value(p).name);
        let at = fields
            .iter()
            .position(|(n, _)| n == name)
            .or((params.len() == 1 && !fields.is_empty()).then_some(0));
        let Some(at) = at else {
            let there: Vec<&str> = fields.iter().map(|(n, _)| n.as_str()).collect();
            return Err(CalibrateError::MissingInput { input: name.to_owned(), fields: there.join(", ") });
        };
        inputs.push(fields.swap_remove(at).1);
    }
    Ok(inputs)
}

/// The module with every quantiser bypassed. Handles stay those of the original; weights are shared.
fn without_quantisers(module: &Module) -> Module {
    let mut float = module.clone();
    let ops = float.all_ops();
    let mut rewriter = Rewriter::new(&mut float);
    for op in ops {
        // A weight that is chosen among levels has nothing behind its quantiser.
        if ["fake_quant", "lsq", "pact", "dorefa"].contains(&rewriter.op_name(op)) {
            let result = rewriter.op(op).result();
            if let Some(input) = rewriter.op(op).operand(0) {
                rewriter.replace_uses(result, input);
                rewriter.erase(op);
            }
        }
    }
    float
}

/// Writes ranges to the state that holds them.
pub(crate) fn set_range(
    rewriter: &mut Rewriter<'_>,
    global: GlobalId,
    ranges: &[Range],
    channels: Option<usize>,
) {
    let rows: Vec<f32> = ranges.iter().map(|r| r.min()).chain(ranges.iter().map(|r| r.max())).collect();
    let dims: Vec<i64> = match channels {
        Some(n) => vec![2, n as i64],
        None => vec![2],
    };
    let literal = Literal::f32s(dims.clone(), &rows);
    rewriter.set_global(global, Type::fixed(gs_ir::ElemType::F32, &dims), Init::Data(literal.data));
}
