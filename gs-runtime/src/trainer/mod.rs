//! Training: runs the graph `@train` of a module (passes `loss`, `grad` and `update` of gs-passes) over shuffled
//! samples. The graph says all that is computed in a step; what is here decides which samples a step sees, keeps what
//! the graph stores, calls callbacks, and notices when numbers go astray.
//!
//! Everything random is a function of the seed, the epoch and the number of a sample, so that a run can be repeated and
//! resumed; what a step computes does not depend on the number of threads.

mod astray;
mod checkpoint;
mod error;
mod place;
mod sampling;
mod steps;

pub use checkpoint::{Checkpoint, CheckpointError, Difference, Fnv, Manifest};
pub use error::TrainError;
pub use sampling::{Augment, Changed, Pick, TrainingData};
pub use steps::Engine;

use gs_algos::callback::{Callback, Globals, TrainState};
use gs_eval::{ExecError, Field, Tensor, TensorSpec};
use gs_ir::{GlobalId, Init, Module, Rewriter};
use gs_passes::training::train_graph;
use sampling::Order;
use std::collections::BTreeMap;
use std::error::Error;
use steps::Steps;

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Rounds over all samples.
    pub epochs: usize,
    /// Samples of a step. What is left at the end of an epoch and fills no batch is left out.
    pub batch: usize,
    /// Of everything random.
    pub seed: u64,
    /// How pictures are changed.
    pub augment: Augment,
    /// What runs the steps, as far as it decides their last bits: the instruction set.
    pub engine: String,
    /// What else was asked for that decides what is learned, by name: a run is taken up only with the same. Where it is
    /// not, these names say what is other; the graph of a step would not.
    pub settings: Vec<(String, String)>,
}

/// A step that was done.
#[derive(Clone, Debug)]
pub struct StepDone<'a> {
    /// Steps done since the beginning, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Epochs done.
    pub epoch: usize,
    /// Its loss.
    pub loss: f64,
    /// Part of its samples whose largest output is at the label, where there are labels.
    pub accuracy: Option<f64>,
    /// What callbacks tell.
    pub metrics: &'a BTreeMap<String, f64>,
}

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Go,
    /// Write a checkpoint and go on.
    Save,
    /// Write a checkpoint and stop.
    Stop,
}

/// Trains modules.
pub struct Trainer<'e> {
    /// Runs the steps.
    pub engine: Engine<'e>,
    /// What is asked for.
    pub options: TrainOptions,
    /// Called at the moments of training, in order.
    pub callbacks: Vec<Box<dyn Callback>>,
}

impl Trainer<'_> {
    /// Trains a module that has a graph `@train`; its parameters and states have the last contents at the end. `from`
    /// is where an earlier run was left. `told` hears of each step; `save` is given a checkpoint where it asks for one.
    ///
    /// # Errors
    /// See [`TrainError`]; the module is as it was then.
    pub fn run(
        &mut self,
        module: &mut Module,
        data: &dyn TrainingData,
        from: Option<&Checkpoint>,
        told: &mut dyn FnMut(&StepDone<'_>) -> Next,
        save: &mut dyn FnMut(&Checkpoint) -> Result<(), CheckpointError>,
    ) -> Result<(), TrainError> {
        let contents = self.train(module, data, from, told, save)?;
        let mut rewriter = Rewriter::new(module);
        for (id, tensor) in contents {
            let ty = rewriter.ty(rewriter.global(id).ty).clone();
            rewriter.set_global(id, ty, Init::Data(tensor.data()));
        }
        Ok(())
    }

    fn train(
        &mut self,
        module: &Module,
        data: &dyn TrainingData,
        from: Option<&Checkpoint>,
        told: &mut dyn FnMut(&StepDone<'_>) -> Next,
        save: &mut dyn FnMut(&Checkpoint) -> Result<(), CheckpointError>,
    ) -> Result<BTreeMap<GlobalId, Tensor>, TrainError> {
        let train = train_graph(module).ok_or(TrainError::NoGraph)?;
        let o = self.options.clone();
        let per_epoch = data.len().checked_div(o.batch).unwrap_or(0) as u64;
        if per_epoch == 0 {
            return Err(TrainError::TooFew { samples: data.len(), batch: o.batch });
        }
        let names: Vec<String> = module
            .graph(train)
            .params()
            .iter()
            .map(|&p| module.str(module.value(p).name).to_owned())
            .collect();
        let manifest = Manifest::of(module, &o, data);
        let mut step = 0;
        let first = data.gather(&[Pick::plain(0)].repeat(o.batch))?;
        let inputs = inputs_of(&names, &first)?;
        let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
        let mut live = Live {
            steps: self.engine.prepare(module, train, &specs)?,
            module,
            stored: module.graph(train).updates().map(|u| u.0).collect(),
            remembered: None,
        };
        if let Some(checkpoint) = from {
            checkpoint.fits(&manifest)?;
            for (global, contents) in checkpoint.contents(module)? {
                live.put(global, contents)?;
            }
            step = checkpoint.step;
        }
        let mut metrics = BTreeMap::new();
        let mut last = None;
        let steps = per_epoch * o.epochs as u64;
        self.call(|c, s| c.train_begin(s), &mut live, (step, per_epoch, last), &mut metrics)?;
        while step < steps {
            let epoch = (step / per_epoch) as usize;
            let order = Order::of(o.seed, epoch, data.len());
            self.call(|c, s| c.epoch_begin(s), &mut live, (step, per_epoch, last), &mut metrics)?;
            while (step / per_epoch) as usize == epoch {
                self.call(|c, s| c.step_begin(s), &mut live, (step, per_epoch, last), &mut metrics)?;
                let at = (step % per_epoch) as usize * o.batch;
                let fields = data.gather(&order.picks(at..at + o.batch, &o.augment))?;
                let inputs = inputs_of(&names, &fields)?;
                live.remember(step)?;
                let results = live.steps.step(&inputs)?;
                let loss = results.first().and_then(Tensor::to_f64s).and_then(|v| v.first().copied());
                let loss = loss.ok_or(TrainError::NoLoss)?;
                if !loss.is_finite() {
                    let picks = |step: u64| {
                        let order = Order::of(o.seed, (step / per_epoch) as usize, data.len());
                        let at = (step % per_epoch) as usize * o.batch;
                        order.picks(at..at + o.batch, &o.augment)
                    };
                    let again = |step: u64| inputs_of(&names, &data.gather(&picks(step))?);
                    // What the step before read may have spoilt what it stored.
                    for step in [step.saturating_sub(1), step] {
                        let found = astray::in_data(&names, &again(step)?, &picks(step));
                        if let Some((input, sample)) = found {
                            return Err(TrainError::DataAstray { step, loss, input, sample });
                        }
                    }
                    let before = live.before(step, &again)?;
                    let place = astray::first(self.engine.executor(), module, before, train, &inputs);
                    return Err(TrainError::Astray { step, loss, place });
                }
                let accuracy = accuracy(results.get(1), &fields);
                step += 1;
                last = Some(loss);
                self.call(|c, s| c.step_end(s), &mut live, (step, per_epoch, last), &mut metrics)?;
                // Before a checkpoint can be written: what is taken up again does not end the epoch once more.
                if step.is_multiple_of(per_epoch) {
                    self.call(|c, s| c.epoch_end(s), &mut live, (step, per_epoch, last), &mut metrics)?;
                }
                let done = StepDone {
                    step,
                    steps,
                    epoch: (step / per_epoch) as usize,
                    loss,
                    accuracy,
                    metrics: &metrics,
                };
                let next = told(&done);
                if next != Next::Go {
                    save(&Checkpoint::of(&manifest, step, &live.contents()?, module))?;
                }
                if next == Next::Stop {
                    return Ok(live.contents()?);
                }
            }
        }
        self.call(|c, s| c.train_end(s), &mut live, (step, per_epoch, last), &mut metrics)?;
        Ok(live.contents()?)
    }

    fn call(
        &mut self,
        moment: fn(&mut dyn Callback, &mut TrainState<'_>) -> gs_algos::callback::CallbackResult,
        live: &mut Live<'_>,
        (step, per_epoch, loss): (u64, u64, Option<f64>),
        metrics: &mut BTreeMap<String, f64>,
    ) -> Result<(), TrainError> {
        for callback in &mut self.callbacks {
            let module = live.module;
            let mut state = TrainState {
                module,
                globals: live,
                epoch: (step / per_epoch) as usize,
                step,
                steps_per_epoch: per_epoch,
                loss,
                metrics,
            };
            moment(callback.as_mut(), &mut state).map_err(TrainError::Callback)?;
        }
        Ok(())
    }
}

/// The steps with what they have stored.
struct Live<'m> {
    steps: Box<dyn Steps + 'm>,
    module: &'m Module,
    /// The globals that the graph stores to, and those that callbacks have set.
    stored: Vec<GlobalId>,
    /// What they held before a step not long ago: from there the steps can be run again, as nothing else was set since.
    remembered: Option<(u64, BTreeMap<GlobalId, Tensor>)>,
}

/// Steps after which what globals hold is copied again.
const BETWEEN_COPIES: u64 = 100;

impl Live<'_> {
    /// What the globals hold that have changed.
    fn contents(&self) -> Result<BTreeMap<GlobalId, Tensor>, ExecError> {
        self.stored.iter().map(|&g| Ok((g, self.steps.get(g)?))).collect()
    }

    /// Copies what the globals hold before a step, if the last copy is old. A copy before each step would cost more than
    /// running some steps again in the one case in which numbers went astray.
    fn remember(&mut self, step: u64) -> Result<(), ExecError> {
        let recent = self.remembered.as_ref().is_some_and(|(at, _)| step < at + BETWEEN_COPIES);
        if !recent {
            // The old one first, so that there are never two.
            self.remembered = None;
            self.remembered = Some((step, self.contents()?));
        }
        Ok(())
    }

    /// What the globals held before this step, which has run: the steps since the copy are run again.
    fn before(
        &mut self,
        step: u64,
        inputs: &dyn Fn(u64) -> Result<Vec<Tensor>, TrainError>,
    ) -> Result<BTreeMap<GlobalId, Tensor>, TrainError> {
        let Some((from, contents)) = self.remembered.take() else { return Ok(self.contents()?) };
        self.steps.set(contents.into_iter().collect())?;
        for step in from..step {
            self.steps.step(&inputs(step)?)?;
        }
        Ok(self.contents()?)
    }

    /// Gives a global other contents.
    fn put(&mut self, global: GlobalId, contents: Tensor) -> Result<(), ExecError> {
        self.remembered = None;
        self.steps.set(vec![(global, contents)])?;
        if !self.stored.contains(&global) {
            self.stored.push(global);
        }
        Ok(())
    }
}

impl Globals for Live<'_> {
    fn get(&self, global: GlobalId) -> Result<Tensor, Box<dyn Error + Send + Sync>> {
        Ok(self.steps.get(global)?)
    }

    fn set(&mut self, global: GlobalId, contents: Tensor) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.put(global, contents)?)
    }

    fn changed(&self) -> Vec<GlobalId> {
        self.stored.clone()
    }
}

/// The inputs of the graph, picked by name.
fn inputs_of(names: &[String], fields: &[Field]) -> Result<Vec<Tensor>, TrainError> {
    let pick = |name: &String| {
        fields.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone()).ok_or_else(|| TrainError::Field {
            input: name.clone(),
            fields: fields.iter().map(|(n, _)| n.clone()).collect(),
        })
    };
    names.iter().map(pick).collect()
}

/// The part of the rows of `[N, classes]` whose largest element is at the label.
fn accuracy(logits: Option<&Tensor>, fields: &[Field]) -> Option<f64> {
    let (logits, labels) = (logits?, &fields.iter().find(|(n, _)| n == "labels")?.1);
    let &[rows, classes] = logits.dims() else { return None };
    let (values, labels) = (logits.to_f64s()?, labels.to_ints()?);
    let hit = |(row, &label): (&[f64], &i128)| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        best.is_some_and(|(i, _)| i as i128 == label)
    };
    let hits = values.chunks(classes.max(1)).zip(&labels).filter(|pair| hit(*pair)).count();
    Some(hits as f64 / rows.max(1) as f64)
}
