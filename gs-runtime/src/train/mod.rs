//! Training steps: a graph with `updates`, planned for one batch size and run on whole batches, with what it stores kept
//! in the plan.
//!
//! Where inference takes a few samples through all operations, a training step has to stop for what all samples give
//! together: the statistics of a batch, the gradients of weights. So values of a batch lie in buffers of the whole batch
//! (channels last, planned once, shared where lives do not overlap), and the plan is a row of regions, in which chunks of
//! samples run by themselves, with waves of small work between them. Chunks are fixed and partial sums are added in their
//! order: any number of threads gives the same bits.

mod buffers;
mod build;
mod layers;
mod piece;
mod pointwise;
mod pooling;
mod profile;
mod quantise;
mod region;
mod sample;
mod schedule;
mod state;
mod sums;
mod wave;
mod weights;
mod wholes;

use crate::Runtime;
use crate::plan::build::Planner;
use crate::plan::check_inputs;
use build::Builder;
use gs_eval::{Bindings, ExecError, Tensor, TensorSpec};
use gs_ir::{GlobalId, GraphId, Module, OpId, ValueId};
use gs_kernels::{KernelError, Scratch};
use piece::{BatchValue, Extents, Gathered, Held, Home, WholePiece};
use profile::Clock;
pub use profile::Spent;
use quantise::ranges_last;
use region::{Region, Shared};
use rustc_hash::{FxHashMap, FxHashSet};
use state::State;
use std::collections::BTreeMap;
use std::sync::Mutex;
use wave::Around;

/// A graph that stores to globals, made ready for steps with batches of one size. What it stores stays in the plan:
/// [`Self::step`] gives the results, [`Self::global`] what was stored.
pub struct TrainPlan<'a> {
    runtime: &'a Runtime,
    graph: GraphId,
    specs: Vec<TensorSpec>,
    planner: Planner<'a>,
    parts: Parts<'a>,
    state: State,
    /// What was set of globals that have no buffer of their own.
    beside: BTreeMap<GlobalId, Tensor>,
    scratches: Vec<Mutex<Scratch>>,
    clock: Option<Clock>,
}

/// What was planned.
#[derive(Default)]
struct Parts<'a> {
    stages: Vec<Stage<'a>>,
    values: Vec<BatchValue>,
    buffer_of: Vec<usize>,
    sums: Vec<Gathered>,
    extents: Vec<Option<Extents>>,
    home_of: FxHashMap<ValueId, Home>,
    globals: FxHashMap<GlobalId, Home>,
    baked: FxHashSet<GlobalId>,
    inputs: Vec<Home>,
    results: Vec<Home>,
    updates: Vec<(GlobalId, Home)>,
    taps: Vec<(ValueId, Home)>,
    /// Globals that are read and derived from some that are stored to.
    derived: Vec<GlobalId>,
    fallbacks: Vec<OpId>,
}

enum Stage<'a> {
    Region(Region),
    Wave(Vec<Vec<WholePiece<'a>>>),
}

/// What a step gives: results, and the values that were asked for when the plan was made, in that order.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// The graph's results.
    pub results: Vec<Tensor>,
    /// The tapped values.
    pub taps: Vec<Tensor>,
}

impl<'a> TrainPlan<'a> {
    /// Plans a graph.
    ///
    /// # Errors
    /// Where inputs do not fit the graph, an operation cannot be run, or contents of a global cannot be made.
    pub(crate) fn new(
        runtime: &'a Runtime,
        module: &'a Module,
        graph: GraphId,
        specs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Self, ExecError> {
        let mut plan = Self {
            runtime,
            graph,
            specs: specs.to_vec(),
            planner: Planner::new(runtime, module, graph, specs, taps)?,
            parts: Parts::default(),
            state: State::default(),
            beside: BTreeMap::new(),
            scratches: (0..runtime.threads()).map(|_| Mutex::new(Scratch::new())).collect(),
            clock: None,
        };
        plan.make(taps)?;
        Ok(plan)
    }

    fn make(&mut self, taps: &[ValueId]) -> Result<(), ExecError> {
        let module = self.planner.module;
        let g = module.graph(self.graph);
        let ops = ranges_last(module, &self.planner.needed(self.graph));
        let updated = g.updates().map(|u| u.0).collect();
        let mut builder = Builder::new(&mut self.planner, updated, &ops);
        let inputs = g.params().iter().map(|&v| builder.input(v)).collect();
        for &op in &ops {
            builder.add(op)?;
        }
        let results = g.results().map(|v| builder.read_home(v)).collect::<Result<_, _>>()?;
        let mut updates = Vec::new();
        for (global, v) in g.updates() {
            builder.read_home(module.global(global).value)?;
            updates.push((global, builder.read_home(v)?));
        }
        let taps = taps.iter().map(|&v| Ok((v, builder.read_home(v)?))).collect::<Result<_, ExecError>>()?;
        let mut drafts = builder.finish();
        let Builder { values, homes, extents, home_of, globals, baked, sums, fallbacks, .. } = builder;
        let (buffer_of, lengths) = buffers::share(&mut drafts, &values);
        let stages = drafts.into_iter().map(|draft| match draft {
            schedule::StageDraft::Region(pieces) => Stage::Region(Region::new(pieces, &values, &buffer_of)),
            schedule::StageDraft::Wave(levels) => Stage::Wave(levels),
        });
        let batch = self.planner.batch;
        self.state = State {
            buffers: lengths.into_iter().map(|len| vec![0.0; len * batch]).collect(),
            homes,
            singles: vec![Vec::new(); sums.len()],
            doubles: vec![Vec::new(); sums.len()],
        };
        let derived = Vec::new();
        self.parts = Parts {
            stages: stages.collect(),
            values,
            buffer_of,
            sums,
            extents,
            home_of,
            globals,
            baked,
            inputs,
            results,
            updates,
            taps,
            derived,
            fallbacks,
        };
        self.find_derived()?;
        self.planner.let_go();
        Ok(())
    }

    /// Finds the globals that must follow what is stored.
    fn find_derived(&mut self) -> Result<(), ExecError> {
        let stored = self.stored()?;
        let changed = self.planner.materializer.set(&stored)?;
        let is_stored = |g: &GlobalId| self.parts.updates.iter().any(|u| u.0 == *g);
        self.parts.derived =
            changed.into_iter().filter(|g| self.parts.globals.contains_key(g) && !is_stored(g)).collect();
        Ok(())
    }

    /// Runs one step and stores what the graph stores.
    ///
    /// # Errors
    /// Where the inputs are not those that the plan was made for, or an operation fails on these values; what is stored
    /// may be incomplete then.
    pub fn step(&mut self, inputs: &[Tensor]) -> Result<StepOutput, ExecError> {
        check_inputs(self.planner.module, self.graph, &self.specs, inputs)?;
        for (&home, tensor) in self.parts.inputs.iter().zip(inputs) {
            self.state.homes[home] = Held::Tensor(tensor.clone());
        }
        let mut symbols = self.planner.symbols.clone();
        self.run_stages(&mut symbols)?;
        let results = self.parts.results.iter().map(|&h| self.held(h)).collect::<Result<_, _>>()?;
        let taps = self.parts.taps.iter().map(|&(_, h)| self.held(h)).collect::<Result<_, _>>()?;
        self.store()?;
        Ok(StepOutput { results, taps })
    }

    /// As [`Self::step`], and says where the time went.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn profile(&mut self, inputs: &[Tensor]) -> Result<(StepOutput, Vec<Spent>), ExecError> {
        self.clock = Some(Clock::default());
        let done = self.step(inputs);
        let spent = self.clock.take().map_or_else(Vec::new, |c| c.read());
        Ok((done?, spent))
    }

    fn run_stages(&mut self, symbols: &mut Bindings) -> Result<(), ExecError> {
        let Self { runtime, planner, parts, state, scratches, clock, .. } = self;
        let shared = Shared {
            kernels: planner.kernels,
            values: &parts.values,
            sums: &parts.sums,
            batch: planner.batch,
            scratches,
            profile: clock.as_ref(),
        };
        let around = Around { extents: &parts.extents, home_of: &parts.home_of, buffer_of: &parts.buffer_of };
        runtime.pool().install(|| {
            for stage in &parts.stages {
                match stage {
                    Stage::Region(region) => {
                        region
                            .run(&shared, state)
                            .map_err(|e: KernelError| ExecError::Backend(e.to_string()))?;
                    }
                    Stage::Wave(levels) => {
                        for level in levels {
                            wave::run_level(level, &shared, &around, state, symbols)?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    fn held(&self, home: Home) -> Result<Tensor, ExecError> {
        let dims = self.parts.extents[home].as_ref().map_or(&[][..], |e| &e.dims);
        self.state.homes[home].tensor(dims).map_err(|e| ExecError::Backend(e.to_string()))
    }

    /// Stores what was not computed in place.
    fn store(&mut self) -> Result<(), ExecError> {
        let mut moved = Vec::new();
        for &(global, from) in &self.parts.updates {
            let to = self.parts.globals.get(&global).copied();
            if let Some(to) = to.filter(|&to| to != from) {
                moved.push((to, self.held(from)?));
            }
        }
        for (home, tensor) in moved {
            put(&mut self.state.homes[home], &tensor);
        }
        if !self.parts.derived.is_empty() {
            let stored = self.stored()?;
            self.planner.materializer.set(&stored)?;
            self.planner.let_go();
            self.read_derived()?;
        }
        Ok(())
    }

    fn read_derived(&mut self) -> Result<(), ExecError> {
        for &global in &self.parts.derived {
            let tensor = self.planner.materializer.tensor(global)?;
            if let Some(&home) = self.parts.globals.get(&global) {
                put(&mut self.state.homes[home], &tensor);
            }
        }
        Ok(())
    }

    /// What a global holds now. Of a global that the graph neither reads nor stores to, what was set last, else what it
    /// held at first.
    ///
    /// # Errors
    /// Contents that cannot be made.
    pub fn global(&self, global: GlobalId) -> Result<Tensor, ExecError> {
        match self.parts.globals.get(&global) {
            Some(&home) => self.held(home),
            None => {
                let (module, reference) = (self.planner.module, self.planner.reference);
                let mut materializer = gs_eval::Materializer::with_evaluator(module, reference);
                let set: Vec<(GlobalId, Tensor)> = self.beside.iter().map(|(g, t)| (*g, t.clone())).collect();
                materializer.set(&set)?;
                Ok(materializer.tensor(global)?)
            }
        }
    }

    /// Lets the following steps begin with other contents of globals, for example those of a checkpoint. What is derived
    /// from them follows.
    ///
    /// # Errors
    /// Contents that are not of their global's element type and extents; then none of them is set.
    pub fn set_globals(&mut self, contents: &[(GlobalId, Tensor)]) -> Result<(), ExecError> {
        let mut changed = self.planner.materializer.set(contents)?;
        for (global, tensor) in contents {
            if !self.parts.globals.contains_key(global) {
                self.beside.insert(*global, tensor.clone());
            }
        }
        changed.retain(|g| self.parts.globals.contains_key(g) || self.parts.baked.contains(g));
        self.planner.let_go();
        if changed.iter().any(|g| self.parts.baked.contains(g)) {
            // Kernels were made from it: all is planned anew, from what globals hold now.
            let mut stored = self.stored()?;
            stored.retain(|(g, _)| !changed.contains(g));
            self.planner.materializer.set(&stored)?;
            let taps: Vec<ValueId> = self.parts.taps.iter().map(|t| t.0).collect();
            return self.make(&taps);
        }
        for global in changed {
            let tensor = self.planner.materializer.tensor(global)?;
            if let Some(&home) = self.parts.globals.get(&global) {
                put(&mut self.state.homes[home], &tensor);
            }
        }
        Ok(())
    }

    /// What the graph stored last, in its order: what a checkpoint keeps.
    ///
    /// # Errors
    /// A defect of the plan.
    pub fn stored(&self) -> Result<Vec<(GlobalId, Tensor)>, ExecError> {
        self.parts.updates.iter().map(|&(g, _)| Ok((g, self.global(g)?))).collect()
    }

    /// All globals that the graph stores to, in the order in which it does.
    pub fn updated(&self) -> impl Iterator<Item = GlobalId> + '_ {
        self.parts.updates.iter().map(|u| u.0)
    }

    /// Operations that the reference evaluator runs, in order.
    pub fn fallbacks(&self) -> &[OpId] {
        &self.parts.fallbacks
    }

    /// Bytes of the buffers of batch values.
    pub fn buffer_bytes(&self) -> usize {
        self.state.buffers.iter().map(|b| b.len() * 4).sum()
    }
}

/// Other contents of the same extents.
fn put(held: &mut Held, tensor: &Tensor) {
    match (&mut *held, tensor.as_f32()) {
        (Held::Floats(v), Some(new)) if v.len() == new.len() => v.copy_from_slice(new),
        _ => *held = Held::Tensor(tensor.clone()),
    }
}
