//! Recalibration of batch normalisation: its running statistics measured anew, with the weights and quantisers as they
//! will be deployed (algorithms, section 7.2).
//!
//! What training leaves are averages over steps at which weights were other ones: softer (SLB), dearer (pruning), or in
//! other places. So the network runs over some batches, each layer normalised by the statistics of the batch, and the
//! means of these over all batches become the running ones.

use crate::calibrate::{CalibrateError, inputs_of};
use crate::callback::{Callback, CallbackResult, TrainState};
use gs_eval::{DataSource, Executor, Materializer, Tensor, TensorSpec};
use gs_ir::{At, Attr, GlobalId, Init, Module, OpId, Rewriter, ValueId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What recalibration is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecalibrateOptions {
    /// Batches to run at most.
    pub batches: usize,
    /// Samples of a batch.
    pub batch: usize,
}

impl Default for RecalibrateOptions {
    fn default() -> Self {
        Self { batches: 50, batch: 64 }
    }
}

/// What recalibration did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecalibrateReport {
    /// Batch normalisations whose statistics were measured.
    pub norms: usize,
    /// Samples that were run.
    pub samples: usize,
}

/// The mean over batches of the mean or the variance of each channel.
struct Average {
    batches: f64,
    values: Vec<f64>,
}

impl Average {
    fn add(&mut self, batch: &[f64]) {
        self.batches += 1.0;
        self.values.resize(batch.len(), 0.0);
        let n = self.batches;
        self.values.iter_mut().zip(batch).for_each(|(mean, v)| *mean += (v - *mean) / n);
    }
}

/// Measures the statistics of every batch normalisation of the network whose statistics are stored, and stores them.
/// A rest of the data that fills no batch is left out.
///
/// `progress` is told how many of how many batches are done, and says whether to go on.
///
/// # Errors
/// See [`CalibrateError`]; the module is unchanged then.
pub fn recalibrate_bn(
    module: &mut Module,
    executor: &dyn Executor,
    data: &dyn DataSource,
    options: &RecalibrateOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<RecalibrateReport, CalibrateError> {
    let (measured, taps) = with_batch_statistics(module)?;
    if taps.is_empty() {
        return Ok(RecalibrateReport::default());
    }
    let Some(main) = measured.main() else { return Ok(RecalibrateReport::default()) };
    let batch = gs_eval::fixed_batch(&measured, main).unwrap_or(options.batch).max(1);
    let batches = options.batches.min(data.len() / batch);
    if batches == 0 {
        return Err(CalibrateError::NoSamples { batch });
    }
    let params = measured.graph(main).params().to_vec();
    let watched: Vec<ValueId> = taps.keys().copied().collect();
    let mut averages: BTreeMap<GlobalId, Average> = BTreeMap::new();
    let mut plan = None;
    for i in 0..batches {
        let inputs = inputs_of(&measured, &params, data.batch(i * batch..(i + 1) * batch)?)?;
        if plan.is_none() {
            let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
            plan = Some(executor.prepare(&measured, main, &specs, &watched)?);
        }
        if let Some(plan) = &mut plan {
            plan.run(&inputs, &mut |value, view| {
                let values = view.to_tensor().ok().and_then(|t| t.to_f64s());
                if let (Some(&global), Some(values)) = (taps.get(&value), values) {
                    let fresh = || Average { batches: 0.0, values: Vec::new() };
                    averages.entry(global).or_insert_with(fresh).add(&values);
                }
            })?;
        }
        if !progress(i + 1, batches) {
            return Err(CalibrateError::Cancelled);
        }
    }
    let mut rewriter = Rewriter::new(module);
    for (global, average) in &averages {
        let ty = rewriter.ty(rewriter.global(*global).ty).clone();
        let Some((elem, dims)) = ty.as_tensor().and_then(|t| Some((t.elem, t.const_dims()?))) else {
            continue;
        };
        let dims: Vec<usize> = dims.into_iter().filter_map(|d| usize::try_from(d).ok()).collect();
        if let Ok(tensor) = Tensor::from_f64s(elem, dims, &average.values) {
            rewriter.set_global(*global, ty, Init::Data(tensor.data()));
        }
    }
    Ok(RecalibrateReport { norms: taps.len() / 2, samples: batches * batch })
}

/// Measures statistics anew after the last step of training: before a network is converted.
pub struct Recalibration {
    /// Runs the network.
    pub executor: Arc<dyn Executor>,
    /// Samples as training sees them. A network that was trained on changed pictures has their statistics.
    pub data: Arc<dyn DataSource>,
    /// How many of them.
    pub options: RecalibrateOptions,
}

impl Callback for Recalibration {
    fn train_end(&mut self, state: &mut TrainState<'_>) -> CallbackResult {
        let mut now = state.snapshot()?;
        let (executor, data) = (self.executor.as_ref(), self.data.as_ref());
        let written: Vec<GlobalId> = with_batch_statistics(&now)?.1.into_values().collect();
        recalibrate_bn(&mut now, executor, data, &self.options, &mut |_, _| true)?;
        let mut materializer = Materializer::new(&now);
        for global in written {
            state.globals.set(global, materializer.tensor(global)?)?;
        }
        Ok(())
    }
}

/// The statistics of batches, by the value that holds them: which global they are for.
type Taps = BTreeMap<ValueId, GlobalId>;

/// The network with every batch normalisation in the form that uses and tells the statistics of the batch.
fn with_batch_statistics(module: &Module) -> Result<(Module, Taps), CalibrateError> {
    let mut measured = module.clone();
    let mut taps = Taps::new();
    let (Some(main), Some(kind)) = (measured.main(), measured.registry().kind("batch_norm_train")) else {
        return Ok((measured, taps));
    };
    let mut rewriter = Rewriter::new(&mut measured);
    let norms: Vec<OpId> = rewriter.ops_in(main).filter(|&op| rewriter.is(op, "batch_norm")).collect();
    for op in norms {
        let operands: Vec<Option<ValueId>> = rewriter.op(op).operands().collect();
        let global = |i: usize| operands.get(i).copied().flatten().and_then(|v| rewriter.as_global(v));
        let (Some(mean), Some(var)) = (global(3), global(4)) else { continue };
        let mut attrs = rewriter.attrs_of(op).clone();
        // Nothing is kept of what was: the new ones are those of the batch, the variance without bias.
        attrs.set("momentum", Attr::float(0.0));
        let new = rewriter.create(kind, &operands, attrs, 5, At::Before(op))?;
        let results = rewriter.op(new).results().to_vec();
        let old = rewriter.op(op).result();
        rewriter.replace_uses(old, results[0]);
        rewriter.erase(op);
        taps.insert(results[1], mean);
        taps.insert(results[2], var);
    }
    Ok((measured, taps))
}
