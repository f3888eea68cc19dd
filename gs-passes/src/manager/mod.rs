//! The pass manager: what a pass is, which ones exist, and running a pipeline of them. Nothing here prints;
//! whoever runs a pipeline is told of every step and does as it likes.

mod pipeline;

pub use pipeline::{Pipeline, PipelineError, Step};

use gs_eval::{DataSource, Executor};
use gs_ir::{Module, Phase, VerifyError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use thiserror::Error;

/// What is known of a pass before it is made.
#[derive(Debug)]
pub struct PassInfo {
    /// Its name in pipelines.
    pub name: &'static str,
    /// One line for lists.
    pub doc: &'static str,
    /// Its options: name, and what it does with its default.
    pub options: &'static [(&'static str, &'static str)],
    /// Phases of a module that it accepts.
    pub accepts: &'static [Phase],
    /// The phase that it brings a module to, if it changes it.
    pub produces: Option<Phase>,
}

/// What a pass must be handed, besides the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Something that can run networks.
    pub executor: bool,
    /// Data sources, by name.
    pub data: Vec<String>,
}

/// An error of a pass; its text is for people.
pub type PassError = Box<dyn std::error::Error + Send + Sync>;

/// A transformation or analysis of a module.
pub trait Pass: Send + Sync {
    /// What it is.
    fn info(&self) -> &'static PassInfo;

    /// What it must be handed.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Runs it. On an error the module may be half changed and is not used any more.
    ///
    /// # Errors
    /// Whatever the pass says.
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError>;
}

/// What a pass did, for people and scripts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassReport {
    /// Counters by name, in a fixed order.
    pub counters: Vec<(String, u64)>,
    /// What a user should know.
    pub notes: Vec<String>,
}

impl PassReport {
    /// A report of counters.
    pub fn counting<'n>(counters: impl IntoIterator<Item = (&'n str, usize)>) -> Self {
        let counters = counters.into_iter().map(|(n, c)| (n.to_owned(), c as u64)).collect();
        Self { counters, notes: Vec::new() }
    }

    /// Adds another report's counters and notes.
    pub fn absorb(&mut self, other: PassReport) {
        for (name, count) in other.counters {
            match self.counters.iter_mut().find(|(n, _)| *n == name) {
                Some((_, c)) => *c += count,
                None => self.counters.push((name, count)),
            }
        }
        self.notes.extend(other.notes);
    }
}

/// A line about why something was or was not done at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The pass or rule.
    pub by: String,
    /// The place, by source name.
    pub place: String,
    /// What.
    pub text: String,
}

/// Takes progress (what, done, total) and says whether to go on.
pub type ProgressSink<'a> = dyn FnMut(&str, usize, usize) -> bool + 'a;

/// A step of a pipeline with the pass made for it.
pub type MadeStep = (Step, Box<dyn Pass>);

/// What passes are run with.
#[derive(Default)]
pub struct PassContext<'a> {
    /// Runs networks.
    pub executor: Option<&'a dyn Executor>,
    /// Data sources, by name.
    pub data: BTreeMap<String, &'a dyn DataSource>,
    /// Seed of everything random.
    pub seed: u64,
    /// At most this many rewrites, over all passes that rewrite (to bisect a bad one).
    pub fuel: Option<u64>,
    /// Takes remarks; nobody wants them where it is absent.
    pub remarks: Option<&'a mut (dyn FnMut(Remark) + 'a)>,
    /// Told of progress (what, done, total); says whether to go on.
    pub progress: Option<&'a mut ProgressSink<'a>>,
}

impl PassContext<'_> {
    /// Hands on a remark.
    pub fn remark(&mut self, by: &str, place: &str, text: impl Into<String>) {
        if let Some(sink) = &mut self.remarks {
            sink(Remark { by: by.to_owned(), place: place.to_owned(), text: text.into() });
        }
    }

    /// Tells of progress; whether to go on.
    pub fn progress(&mut self, what: &str, done: usize, total: usize) -> bool {
        self.progress.as_mut().is_none_or(|p| p(what, done, total))
    }
}

/// Makes a pass from its options.
pub type MakePass = fn(&Map<String, Value>) -> Result<Box<dyn Pass>, String>;

/// The passes that pipelines may name. Crates above add their own.
#[derive(Default)]
pub struct PassRegistry {
    passes: BTreeMap<&'static str, (&'static PassInfo, MakePass)>,
}

impl PassRegistry {
    /// Adds a pass; a later one of the same name replaces an earlier one.
    pub fn register(&mut self, info: &'static PassInfo, make: MakePass) {
        self.passes.insert(info.name, (info, make));
    }

    /// All passes, by name.
    pub fn iter(&self) -> impl Iterator<Item = &'static PassInfo> {
        self.passes.values().map(|p| p.0)
    }

    /// Makes the passes of a pipeline.
    ///
    /// # Errors
    /// An unknown pass (with those that are close) or a wrong option.
    pub fn make(&self, pipeline: &Pipeline) -> Result<Vec<MadeStep>, RunError> {
        pipeline.steps.iter().map(|step| Ok((step.clone(), self.make_step(step)?))).collect()
    }

    fn make_step(&self, step: &Step) -> Result<Box<dyn Pass>, RunError> {
        let Some((info, make)) = self.passes.get(step.name.as_str()) else {
            let mut close: Vec<&str> = self.passes.keys().copied().collect();
            close.sort_by(|a, b| {
                strsim::jaro_winkler(&step.name, b).total_cmp(&strsim::jaro_winkler(&step.name, a))
            });
            close.truncate(3);
            return Err(RunError::UnknownPass { name: step.name.clone(), close: close.join("`, `") });
        };
        make(&step.options).map_err(|what| RunError::Options { pass: info.name, what })
    }
}

/// Reads a pass's options into its configuration, which refuses unknown keys.
///
/// # Errors
/// With the key and what was expected.
pub fn read_options<T: DeserializeOwned>(options: &Map<String, Value>) -> Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(options.clone())).map_err(|e| {
        let path = e.path().to_string();
        let what = e.into_inner().to_string();
        // The text names an unknown key itself; nothing else of it says which option is wrong.
        let named = matches!(path.as_str(), "." | "?") || what.contains(&format!("`{path}`"));
        if named { what } else { format!("`{path}`: {what}") }
    })
}

/// Why a pipeline was refused or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// No pass has this name.
    #[error("no pass is named `{name}`; close are `{close}` (`gs-opt passes` lists all)")]
    UnknownPass {
        /// The name.
        name: String,
        /// Names that are close.
        close: String,
    },
    /// Options that the pass does not take.
    #[error("options of `{pass}`: {what}")]
    Options {
        /// The pass.
        pass: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Something that a pass needs is not there.
    #[error("`{pass}` needs {what}")]
    Missing {
        /// The pass.
        pass: &'static str,
        /// What it needs and how to give it.
        what: String,
    },
    /// The module is in the wrong phase.
    #[error("`{pass}` accepts a module that is {accepts}; this one is {found}{hint}")]
    Phase {
        /// The pass.
        pass: &'static str,
        /// What it accepts.
        accepts: String,
        /// What the module is.
        found: Phase,
        /// The passes to run first.
        hint: String,
    },
    /// A pass failed.
    #[error("`{pass}`: {error}")]
    Pass {
        /// The pass.
        pass: &'static str,
        /// What it says.
        #[source]
        error: PassError,
    },
    /// The module was broken by a pass.
    #[error("`{pass}` left a broken module (a defect of the pass):\n{}", .errors.join("\n"))]
    Broken {
        /// The pass.
        pass: &'static str,
        /// The verifier's errors.
        errors: Vec<String>,
    },
}

/// What happens while a pipeline runs.
pub enum Event<'e> {
    /// A pass is about to run.
    Before {
        /// Its step in the pipeline.
        step: &'e Step,
        /// The steps from this one on, as a pipeline: what reproduces a crash.
        rest: Pipeline,
        /// The module.
        module: &'e Module,
    },
    /// A pass has run.
    After {
        /// Its step in the pipeline.
        step: &'e Step,
        /// The module.
        module: &'e Module,
        /// What it did.
        report: &'e PassReport,
        /// How long it took, verification not included.
        time: Duration,
    },
}

/// Runs pipelines.
pub struct PassManager<'r> {
    /// The passes that pipelines may name.
    pub registry: &'r PassRegistry,
    /// Whether the module is verified after each pass.
    pub verify_each: bool,
}

impl PassManager<'_> {
    /// Runs a pipeline. Everything that can be checked before the first pass is.
    ///
    /// # Errors
    /// See [`RunError`]. The module is not used any more then.
    pub fn run(
        &self,
        pipeline: &Pipeline,
        module: &mut Module,
        context: &mut PassContext<'_>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<PassReport, RunError> {
        let passes = self.registry.make(pipeline)?;
        for (_, pass) in &passes {
            check_needs(pass.as_ref(), context)?;
        }
        let mut total = PassReport::default();
        for (i, (step, pass)) in passes.iter().enumerate() {
            let info = pass.info();
            self.check_phase(info, Phase::of(module))?;
            watch(Event::Before { step, rest: Pipeline { steps: pipeline.steps[i..].to_vec() }, module });
            let start = Instant::now();
            let report =
                pass.run(module, context).map_err(|error| RunError::Pass { pass: info.name, error })?;
            let time = start.elapsed();
            if self.verify_each {
                gs_ir::verify(module).map_err(|errors| broken(info.name, module, &errors))?;
            }
            watch(Event::After { step, module, report: &report, time });
            total.absorb(report);
        }
        Ok(total)
    }

    fn check_phase(&self, info: &'static PassInfo, found: Phase) -> Result<(), RunError> {
        if info.accepts.contains(&found) {
            return Ok(());
        }
        let accepts: Vec<&str> = info.accepts.iter().map(|p| p.name()).collect();
        // The passes that bring a module to an accepted phase, if it has not passed them already.
        let wanted = info.accepts.iter().filter(|p| **p > found);
        let makers: Vec<&str> = wanted
            .flat_map(|p| self.registry.iter().filter(move |i| i.produces == Some(*p)).map(|i| i.name))
            .collect();
        let hint = if makers.is_empty() {
            String::new()
        } else {
            format!("; run `{}` first", makers.join("` or `"))
        };
        Err(RunError::Phase { pass: info.name, accepts: accepts.join(" or "), found, hint })
    }
}

fn check_needs(pass: &dyn Pass, context: &PassContext<'_>) -> Result<(), RunError> {
    let name = pass.info().name;
    let needs = pass.needs();
    if needs.executor && context.executor.is_none() {
        return Err(RunError::Missing { pass: name, what: "an executor to run the network with".to_owned() });
    }
    for data in needs.data {
        if !context.data.contains_key(&data) {
            let known: Vec<&str> = context.data.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none is given".to_owned()
            } else {
                format!("given: {}", known.join(", "))
            };
            return Err(RunError::Missing {
                pass: name,
                what: format!("the data source `{data}` ({known}; `--data {data}=SPEC`)"),
            });
        }
    }
    Ok(())
}

fn broken(pass: &'static str, module: &Module, errors: &[VerifyError]) -> RunError {
    RunError::Broken { pass, errors: errors.iter().map(|e| e.describe(module)).collect() }
}
