//! Running a module over a data source: batches in order, inputs by name, states carried from batch to batch.

use crate::data::{DataError, DataSource, Field};
use crate::exec::{ExecError, Executor, Plan, RunOutput, Tap, TensorSpec};
use crate::tensor::Tensor;
use gs_ir::{Dim, GlobalId, GraphId, Module, ValueId};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a run over a data source ended.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum StreamError {
    /// The source has no field of an input's name.
    #[error("the data have no field for input `{input}`; they have {}", .fields.join(", "))]
    Field {
        /// The input.
        input: String,
        /// What the source has.
        fields: Vec<String>,
    },
    /// The network asks for batches of a fixed size that does not divide the number of samples.
    #[error("the network takes batches of {batch}, and {samples} samples do not divide into them")]
    Tail {
        /// The fixed batch size.
        batch: usize,
        /// Samples to run.
        samples: usize,
    },
    /// Reading samples failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Running failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// What to run over a data source.
pub struct Stream<'a> {
    /// What runs it.
    pub executor: &'a dyn Executor,
    /// The module.
    pub module: &'a Module,
    /// Which of its graphs.
    pub graph: GraphId,
    /// Samples per batch, where the network does not fix that itself.
    pub batch: usize,
    /// Run no more samples than this.
    pub limit: Option<usize>,
    /// Values to watch.
    pub taps: &'a [ValueId],
}

/// What a finished run leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamEnd {
    /// Samples that were run.
    pub samples: usize,
    /// The last contents of each global that the graph updates.
    pub states: Vec<(GlobalId, Tensor)>,
    /// Time spent in the network; reading the samples does not count.
    pub time: Duration,
}

impl Stream<'_> {
    /// Runs batch after batch. `tap` sees each watched value, `each` the fields of a batch with its results; it may stop
    /// the run. Updates of one batch are what the next one reads.
    ///
    /// # Errors
    /// Where fields are missing, samples cannot be read, or a batch fails.
    pub fn run(
        &self,
        data: &dyn DataSource,
        tap: &mut Tap<'_>,
        each: &mut dyn FnMut(&[Field], &RunOutput) -> ControlFlow<()>,
    ) -> Result<StreamEnd, StreamError> {
        let total = self.limit.map_or(data.len(), |l| l.min(data.len()));
        let batch = self.batch_size(total)?;
        let mut end = StreamEnd::default();
        let mut prepared: Option<(Vec<TensorSpec>, Box<dyn Plan + '_>)> = None;
        for start in (0..total).step_by(batch) {
            let fields = data.batch(start..total.min(start + batch))?;
            let inputs = self.inputs(&fields)?;
            let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
            if prepared.as_ref().is_none_or(|(s, _)| *s != specs) {
                let mut plan = self.executor.prepare(self.module, self.graph, &specs, self.taps)?;
                plan.set_globals(&end.states)?;
                prepared = Some((specs, plan));
            }
            let Some((_, plan)) = prepared.as_mut() else { break };
            let began = Instant::now();
            let output = plan.run(&inputs, tap)?;
            end.time += began.elapsed();
            plan.set_globals(&output.updates)?;
            end.states = output.updates.clone();
            end.samples += total.min(start + batch) - start;
            if each(&fields, &output).is_break() {
                break;
            }
        }
        Ok(end)
    }

    /// The graph's inputs, picked by name.
    fn inputs(&self, fields: &[Field]) -> Result<Vec<Tensor>, StreamError> {
        let params = self.module.graph(self.graph).params();
        let pick = |&p: &ValueId| {
            let name = self.module.str(self.module.value(p).name);
            fields.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone()).ok_or_else(|| StreamError::Field {
                input: name.to_owned(),
                fields: fields.iter().map(|(n, _)| n.clone()).collect(),
            })
        };
        params.iter().map(pick).collect()
    }

    fn batch_size(&self, samples: usize) -> Result<usize, StreamError> {
        match fixed_batch(self.module, self.graph) {
            Some(batch) if samples.is_multiple_of(batch) => Ok(batch),
            Some(batch) => Err(StreamError::Tail { batch, samples }),
            None => Ok(self.batch.max(1)),
        }
    }
}

/// The only batch size that a graph takes, where its inputs say one.
pub fn fixed_batch(module: &Module, graph: GraphId) -> Option<usize> {
    let first = |p: &ValueId| module.type_of(*p).dims().and_then(|d| d.first()).and_then(Dim::as_const);
    let fixed = module.graph(graph).params().iter().find_map(first);
    fixed.and_then(|b| usize::try_from(b).ok()).filter(|&b| b > 0)
}
