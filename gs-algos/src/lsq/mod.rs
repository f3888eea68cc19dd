//! LSQ: the steps of grids are parameters that training finds (Esser et al., "Learned Step Size Quantization", ICLR
//! 2020). Weights and what inner layers read have learned steps; sums, the network's inputs and its outputs keep the
//! observed ranges of SimQAT. The graph changes are the rules in `rules.gsr`; here is what they ask.

mod config;

pub use config::LsqConfig;

use crate::algorithm::{Algorithm, RunLength, freeze_and_deploy};
use crate::calibrate::{CalibrateOptions, calibrate_weight_steps};
use crate::deploy::Form;
use crate::learned::{LEAST_STEP, calibrate_activations, follow_ranges, parameters_of};
use crate::placement::{PlacementError, Question, Request, can_be_negative, place};
use crate::simqat;
use crate::simqat::norms::positive_factors;
use gs_ir::{Attr, Module, Phase};
use gs_passes::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_passes::rules::Site;
use gs_passes::training::ParamGroup;

/// The rules that place quantisers with learned steps.
pub const RULES: &str = include_str!("rules.gsr");

/// The algorithm with its configuration.
#[derive(Clone, Debug, Default)]
pub struct Lsq {
    /// What to do.
    pub config: LsqConfig,
}

impl Algorithm for Lsq {
    fn name(&self) -> &'static str {
        "lsq"
    }

    /// Inserts quantisers with learned steps; those of weights get their first values, those of activations too where
    /// the context has an executor and the data source `calib` (else the pass `calibrate` gives them). Applying it
    /// twice equals once.
    ///
    /// # Errors
    /// A wrong configuration, by its key; a weight that is not finite.
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let config = self.config.placement().map_err(PlacementError::from)?;
        let request = Request {
            rules: &[("lsq", RULES), ("simqat", simqat::RULES)],
            least_weight_bits: 2,
            odd_levels: false,
            keys: &[
                ("weight.bits", "weight_bits"),
                ("act.bits", "act_bits"),
                ("weight.per_channel", "per_channel"),
            ],
            own: &|question| self.setting(question),
        };
        let mut done = place(module, context, &config, &request)?;
        calibrate_weight_steps(module, self.config.init)?;
        calibrate_activations(
            module,
            context,
            CalibrateOptions { steps: self.config.init, ..CalibrateOptions::default() },
        )?;
        let of_rule = |name: &str| done.placed.iter().filter(|p| p.rule == name).count();
        done.report.absorb(PassReport::counting([
            ("weights with a learned step", of_rule("weight_lsq")),
            ("activations with a learned step", of_rule("activation_lsq")),
            ("activations with an observed range", of_rule("activation_fake_quant")),
        ]));
        Ok(done.report)
    }

    fn prepare_training(&self, module: &mut Module, _: RunLength) -> Result<(), PassError> {
        follow_ranges(module, self.config.observer)
    }

    fn param_groups(&self, module: &Module) -> Vec<ParamGroup> {
        let steps = parameters_of(module, &["lsq"], |params| ParamGroup {
            params,
            lr: self.config.step_lr,
            weight_decay: Some(0.0),
            min: Some(LEAST_STEP),
            optional: true,
            ..ParamGroup::default()
        });
        steps.into_iter().chain(positive_factors(module)).collect()
    }

    fn convert(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        freeze_and_deploy(module, &self.config.target, Form::default())
    }
}

/// The algorithm as a pass.
pub(crate) static INFO: PassInfo = PassInfo {
    name: "lsq",
    doc: "insert quantisers whose steps are learned (Esser et al. 2020)",
    options: &[
        ("target", "the target that decides placement (ort-cpu)"),
        ("weight_bits", "width of weights (4)"),
        ("act_bits", "width of what inner layers read (4)"),
        ("edge_bits", "width of the first and last layers, of sums and outputs (8)"),
        ("per_channel", "one step per output channel of a weight (false)"),
        ("init", "first steps: mse (least error) or lsq (from mean magnitudes) (mse)"),
        ("grad_scale", "whether gradients of steps are scaled by 1 / sqrt(n * highest code) (true)"),
        ("step_lr", "learning rate of steps (that of the network)"),
        ("observer", "how the other ranges are observed in training: ema or minmax (ema{decay=0.99})"),
        ("exclude", "layers that stay in float: names, globs, or op:KIND ([])"),
        (
            "layers",
            "settings of single layers: {SELECTOR={act_bits=, weight_bits=, weight_per_channel=}} ({})",
        ),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: Some(Phase::Instrumented),
};

impl Pass for Lsq {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.apply(module, context)
    }
}

impl Lsq {
    fn setting(&self, q: &Question<'_>) -> Option<Attr> {
        match (q.key, q.site) {
            ("weight_learned", _) => Some(Attr::Bool(true)),
            ("act_learned", _) => (!q.edge).then_some(Attr::Bool(true)),
            ("act_negative", Site::Value(v)) => Some(Attr::Bool(can_be_negative(q.module, q.grids, v))),
            ("weight_grad_scale" | "act_grad_scale", _) => Some(Attr::Bool(self.config.grad_scale)),
            _ => None,
        }
    }
}
