//! The passes of this crate, as pipelines name them.

use crate::algorithm::Algorithm;
use crate::calibrate::{CalibrateOptions, calibrate};
use crate::deploy::{DeployError, Form, Lowering};
use crate::distillation::{self, DistillationConfig};
use crate::freeze::freeze;
use crate::lsq::{self, Lsq, LsqConfig};
use crate::observe::observe;
use crate::observers::{ObserverKind, WeightRule};
use crate::pact::{self, Pact, PactConfig};
use crate::prune::{self, Prune, PruneConfig};
use crate::recalibrate::{RecalibrateOptions, recalibrate_bn};
use crate::simqat::{SimQat, SimQatConfig};
use crate::slb::{self, Slb, SlbConfig};
use crate::targets;
use gs_ir::{Module, Phase};
use gs_passes::manager::{
    Needs, Pass, PassContext, PassError, PassInfo, PassRegistry, PassReport, read_options,
};
use serde::Deserialize;

/// Adds the passes of this crate.
pub fn register(registry: &mut PassRegistry) {
    registry.register(&SIMQAT, |o| Ok(Box::new(SimQat { config: read_options::<SimQatConfig>(o)? })));
    registry.register(&lsq::INFO, |o| Ok(Box::new(Lsq { config: read_options::<LsqConfig>(o)? })));
    registry.register(&pact::INFO, |o| Ok(Box::new(Pact { config: read_options::<PactConfig>(o)? })));
    registry.register(&slb::INFO, |o| Ok(Box::new(Slb { config: read_options::<SlbConfig>(o)? })));
    registry.register(&prune::INFO, |o| Ok(Box::new(Prune { config: read_options::<PruneConfig>(o)? })));
    registry.register(&CALIBRATE, |o| Ok(Box::new(read_options::<Calibrate>(o)?)));
    registry.register(&RECALIBRATE, |o| Ok(Box::new(read_options::<Recalibrate>(o)?)));
    registry.register(&OBSERVE, |o| Ok(Box::new(read_options::<Observe>(o)?)));
    registry.register(&TEACHER, |o| Ok(Box::new(read_options::<Teacher>(o)?)));
    registry.register(&DISTILL, |o| Ok(Box::new(Distill { config: read_options(o)? })));
    registry.register(&FREEZE, |o| Ok(Box::new(read_options::<Freeze>(o)?)));
    registry.register(&DEPLOY, |o| Ok(Box::new(read_options::<Deploy>(o)?)));
    registry.register(&INTEGERS, |o| Ok(Box::new(read_options::<Integers>(o)?)));
    registry.register(&QDQ, |o| Ok(Box::new(read_options::<QdqForm>(o)?)));
}

static SIMQAT: PassInfo = PassInfo {
    name: "simqat",
    doc: "insert quantisers where a deployed tensor changes",
    options: &[
        ("target", "the target that decides placement (ort-cpu)"),
        (
            "act",
            "grids of activations: {bits=8, signed=, symmetric=, narrow_range=false}; what is absent follows the target",
        ),
        ("weight", "grids of weights: {bits=8, symmetric=true, narrow_range=true, per_channel=}"),
        (
            "edge_bits",
            "width of the first and last layers and of what they and additions read and write (as the rest)",
        ),
        ("observer", "how ranges are observed in training: ema or minmax (ema{decay=0.99})"),
        ("quant_delay", "steps of training before which quantisers pass on what they are given (0)"),
        ("freeze_bn", "when statistics of batch normalisation stay: a step, a part of the run, never (0.7)"),
        ("freeze_ranges", "when ranges of activations stay, alike (0.9)"),
        ("exclude", "layers that stay in float: names, globs, or op:KIND ([])"),
        (
            "layers",
            "settings of single layers: {SELECTOR={act_bits=, weight_bits=, weight_per_channel=}} ({})",
        ),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: Some(Phase::Instrumented),
};

impl Pass for SimQat {
    fn info(&self) -> &'static PassInfo {
        &SIMQAT
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.apply(module, context)
    }
}

static CALIBRATE: PassInfo = PassInfo {
    name: "calibrate",
    doc: "choose the ranges of quantisers from data",
    options: &[
        ("data", "name of the data source (calib)"),
        ("observer", "how ranges of activations are chosen: minmax, percentile, entropy, mse, std (mse)"),
        ("weights", "how ranges of weights are chosen: minmax, {mse={norm=2}} (minmax)"),
        ("batch", "samples per batch (32)"),
        ("limit", "use this many samples at most (all)"),
    ],
    accepts: &[Phase::Instrumented],
    produces: None,
};

/// The pass `calibrate`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Calibrate {
    data: String,
    observer: ObserverKind,
    weights: WeightRule,
    batch: usize,
    limit: Option<usize>,
}

impl Default for Calibrate {
    fn default() -> Self {
        let o = CalibrateOptions::default();
        Self {
            data: "calib".to_owned(),
            observer: o.observer,
            weights: o.weights,
            batch: o.batch,
            limit: o.limit,
        }
    }
}

impl Pass for Calibrate {
    fn info(&self) -> &'static PassInfo {
        &CALIBRATE
    }
    fn needs(&self) -> Needs {
        Needs { executor: true, data: vec![self.data.clone()] }
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let (Some(executor), Some(&data)) = (context.executor, context.data.get(&self.data)) else {
            return Err("an executor and the data source are needed".into());
        };
        let options = CalibrateOptions {
            observer: self.observer,
            weights: self.weights,
            batch: self.batch.max(1),
            limit: self.limit,
            ..CalibrateOptions::default()
        };
        let mut progress = |done, total| context.progress("calibrating", done, total);
        let done = calibrate(module, executor, data, &options, &mut progress)?;
        let mut report = PassReport::counting([
            ("samples", done.samples),
            ("ranges of activations", done.activations),
            ("ranges of weights", done.weights),
        ]);
        for (name, count) in done.not_finite {
            report.notes.push(format!("{name}: {count} values were not finite and were ignored"));
        }
        Ok(report)
    }
}

static RECALIBRATE: PassInfo = PassInfo {
    name: "recalibrate-bn",
    doc: "measure the running statistics of batch normalisation anew, with weights and quantisers as they are now",
    options: &[
        ("data", "name of the data source (calib)"),
        ("batches", "batches to run at most (50)"),
        ("batch", "samples per batch (64)"),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: None,
};

/// The pass `recalibrate-bn`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Recalibrate {
    data: String,
    batches: usize,
    batch: usize,
}

impl Default for Recalibrate {
    fn default() -> Self {
        let o = RecalibrateOptions::default();
        Self { data: "calib".to_owned(), batches: o.batches, batch: o.batch }
    }
}

impl Pass for Recalibrate {
    fn info(&self) -> &'static PassInfo {
        &RECALIBRATE
    }
    fn needs(&self) -> Needs {
        Needs { executor: true, data: vec![self.data.clone()] }
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let (Some(executor), Some(&data)) = (context.executor, context.data.get(&self.data)) else {
            return Err("an executor and the data source are needed".into());
        };
        let options = RecalibrateOptions { batches: self.batches, batch: self.batch };
        let mut progress = |done, total| context.progress("recalibrating", done, total);
        let done = recalibrate_bn(module, executor, data, &options, &mut progress)?;
        Ok(PassReport::counting([
            ("batch normalisations recalibrated", done.norms),
            ("samples", done.samples),
        ]))
    }
}

static OBSERVE: PassInfo = PassInfo {
    name: "observe",
    doc: "let the ranges of quantisers follow training: the graph @train stores them",
    options: &[("decay", "part of an activation's range that is kept at each step (0.99)")],
    accepts: &[Phase::Instrumented],
    produces: None,
};

/// The pass `observe`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Observe {
    decay: f32,
}

impl Default for Observe {
    fn default() -> Self {
        Self { decay: 0.99 }
    }
}

impl Pass for Observe {
    fn info(&self) -> &'static PassInfo {
        &OBSERVE
    }
    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        if !(0.0..1.0).contains(&self.decay) {
            return Err("`decay` must be at least 0 and below 1".into());
        }
        Ok(PassReport::counting([("ranges that follow training", observe(module, self.decay)?)]))
    }
}

static TEACHER: PassInfo = PassInfo {
    name: "teacher",
    doc: "keep the network as it is as the graph @teacher, over copies of its weights",
    options: &[],
    accepts: &[Phase::Float],
    produces: None,
};

/// The pass `teacher`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Teacher {}

impl Pass for Teacher {
    fn info(&self) -> &'static PassInfo {
        &TEACHER
    }
    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        Ok(PassReport::counting([("weights of the teacher", distillation::keep_teacher(module)?)]))
    }
}

static DISTILL: PassInfo = PassInfo {
    name: "distill",
    doc: "let the loss of @train follow the graph @teacher, which joins it",
    options: &[
        ("temperature", "what logits are divided by (4)"),
        ("weight", "the part of the loss that the teacher has, 0 to 1; the labels have the rest (0.9)"),
        ("output", "the output that is learned (the one that the loss is of, or the first)"),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: None,
};

/// The pass `distill`.
#[derive(Clone, Debug)]
struct Distill {
    config: DistillationConfig,
}

impl Pass for Distill {
    fn info(&self) -> &'static PassInfo {
        &DISTILL
    }
    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        distillation::learn_from_teacher(module, &self.config)?;
        Ok(PassReport::default())
    }
}

static FREEZE: PassInfo = PassInfo {
    name: "freeze",
    doc: "turn observed ranges into constant scales and zero points, and give biases their grid",
    options: &[],
    accepts: &[Phase::Instrumented],
    produces: Some(Phase::Frozen),
};

/// The pass `freeze`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Freeze {}

impl Pass for Freeze {
    fn info(&self) -> &'static PassInfo {
        &FREEZE
    }
    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let done = freeze(module)?;
        let mut report =
            PassReport::counting([("quantisers frozen", done.quantisers), ("biases quantised", done.biases)]);
        for (name, channels) in done.raised {
            report.notes.push(format!(
                "{name}: the weight scale of {channels} channels was raised so that their bias fits 32 bits"
            ));
        }
        for (name, bound) in done.too_wide {
            report.notes.push(format!(
                "{name} stays in float: its sums of products can reach {bound}, too much for 32 bits and its bias"
            ));
        }
        gs_passes::passes::remove_dead(module);
        Ok(report)
    }
}

static DEPLOY: PassInfo = PassInfo {
    name: "deploy",
    doc: "lower a frozen network to the integer operators of a target",
    options: &[
        ("target", "the target (what the module was instrumented for, else ort-cpu)"),
        ("format", "qdq: portable; qoperator: integer operators of ONNX Runtime (qdq)"),
    ],
    accepts: &[Phase::Frozen],
    produces: Some(Phase::Deployed),
};

/// The pass `deploy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Deploy {
    target: Option<String>,
    format: Form,
}

/// The lowering to the target asked for, else to the one that the module was made for, else to the default.
fn lowering_for(asked: Option<&str>, module: &Module) -> Result<Lowering, DeployError> {
    let made_for = module.meta.target.as_deref();
    if let (None, Some(name)) = (asked, made_for.filter(|own| !targets::names().any(|n| n == *own))) {
        return Err(DeployError::OwnTarget { name: name.to_owned() });
    }
    let default = SimQatConfig::default().target;
    Ok(Lowering::find(asked.or(made_for).unwrap_or(&default), module.registry())?)
}

impl Pass for Deploy {
    fn info(&self) -> &'static PassInfo {
        &DEPLOY
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        Ok(lowering_for(self.target.as_deref(), module)?.deploy(module, self.format, context)?)
    }
}

static INTEGERS: PassInfo = PassInfo {
    name: "integers",
    doc: "lower a frozen network to integer operators and leave it so (what `deploy` does before it chooses a form)",
    options: &[("target", "the target (what the module was instrumented for, else ort-cpu)")],
    accepts: &[Phase::Frozen, Phase::Deployed],
    produces: Some(Phase::Deployed),
};

/// The pass `integers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Integers {
    target: Option<String>,
}

impl Pass for Integers {
    fn info(&self) -> &'static PassInfo {
        &INTEGERS
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        Ok(lowering_for(self.target.as_deref(), module)?.to_integers(module, context)?)
    }
}

static QDQ: PassInfo = PassInfo {
    name: "qdq-form",
    doc: "write integer operators in the portable form",
    options: &[("target", "the target (what the module was deployed for, else ort-cpu)")],
    accepts: &[Phase::Frozen, Phase::Deployed],
    produces: None,
};

/// The pass `qdq-form`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct QdqForm {
    target: Option<String>,
}

impl Pass for QdqForm {
    fn info(&self) -> &'static PassInfo {
        &QDQ
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        Ok(lowering_for(self.target.as_deref(), module)?.to_qdq_form(module, context))
    }
}
