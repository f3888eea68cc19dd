//! SLB: weights of few bits are searched for among their levels (Yang et al., "Searching for Low-Bit Weights in
//! Quantized Neural Networks", NeurIPS 2020). Each weight has a logit for each level. In training it is the mean of the
//! levels under a softmax whose temperature rises, at last the level of the greatest logit: what is evaluated and
//! deployed. Logits begin so that the choice is the level nearest to the pretrained weight. The graph changes are the
//! rules in `rules.gsr`; here is what they ask, the first logits, and the form of training.

mod config;
mod search;

pub use config::{HardPhase, ScaleInit, SlbConfig};

use crate::algorithm::{Algorithm, RunLength, freeze_and_deploy};
use crate::calibrate::CalibrateOptions;
use crate::deploy::Form;
use crate::learned::{LEAST_STEP, calibrate_activations, follow_ranges, operands_of};
use crate::placement::{PlacementError, Question, Request, place};
use crate::simqat;
use crate::simqat::norms::positive_factors;
use gs_ir::{Attr, Module, Phase};
use gs_passes::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_passes::training::{Optimiser, ParamGroup};

/// The rules that put choices in the place of weights.
pub const RULES: &str = include_str!("rules.gsr");

/// The algorithm with its configuration.
#[derive(Clone, Debug, Default)]
pub struct Slb {
    /// What to do.
    pub config: SlbConfig,
}

impl Algorithm for Slb {
    fn name(&self) -> &'static str {
        "slb"
    }

    /// Puts a choice among levels in the place of each inner weight, beginning with the levels nearest to it; with
    /// `act_bits`, quantises activations and the other weights as SimQAT does. Applying it twice equals once.
    ///
    /// # Errors
    /// A wrong configuration, by its key; a weight that cannot be read or is not finite.
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let config = self.config.placement().map_err(PlacementError::from)?;
        let (own, shared) = (("slb", RULES), ("simqat", simqat::RULES));
        let all = [own, shared];
        let request = Request {
            rules: if self.config.quantises_activations() { &all } else { &all[..1] },
            least_weight_bits: 1,
            odd_levels: true,
            keys: &[("weight.bits", "bits"), ("act.bits", "act_bits"), ("weight.per_channel", "per_channel")],
            own: &|question| self.setting(question),
        };
        let mut done = place(module, context, &config, &request)?;
        let chosen = done.placed.iter().filter(|p| p.rule == "weight_levels");
        for placed in chosen.clone() {
            search::begin(module, placed, &self.config)?;
        }
        let chosen = chosen.count();
        gs_passes::passes::remove_dead(module);
        if self.config.quantises_activations() {
            calibrate_activations(module, context, CalibrateOptions::default())?;
        }
        let of_rule = |name: &str| done.placed.iter().filter(|p| p.rule == name).count();
        done.report.absorb(PassReport::counting([
            ("weights chosen among levels", chosen),
            ("other weight quantisers", of_rule("weight_fake_quant")),
            ("activations with an observed range", of_rule("activation_fake_quant")),
        ]));
        Ok(done.report)
    }

    fn prepare_training(&self, module: &mut Module, length: RunLength) -> Result<(), PassError> {
        search::soften(module, &self.config, length)?;
        if self.config.quantises_activations() {
            follow_ranges(module, self.config.observer)?;
        }
        Ok(())
    }

    fn param_groups(&self, module: &Module) -> Vec<ParamGroup> {
        let logits = operands_of(module, &["slb"], 0).map(|params| ParamGroup {
            params,
            optimiser: Some(Optimiser::Adamw { beta1: 0.9, beta2: 0.999 }),
            lr: Some(self.config.logit_lr),
            weight_decay: Some(0.0),
            optional: true,
            ..ParamGroup::default()
        });
        let scales = operands_of(module, &["slb"], 1).map(|params| ParamGroup {
            params,
            lr: self.config.scale_lr,
            weight_decay: Some(0.0),
            min: Some(LEAST_STEP),
            optional: true,
            ..ParamGroup::default()
        });
        logits.into_iter().chain(scales).chain(positive_factors(module)).collect()
    }

    fn convert(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        freeze_and_deploy(module, &self.config.target, Form::default())
    }
}

/// The algorithm as a pass.
pub(crate) static INFO: PassInfo = PassInfo {
    name: "slb",
    doc: "search weights of few bits among their levels (Yang et al. 2020)",
    options: &[
        ("target", "the target that decides placement (ort-cpu)"),
        ("bits", "width of weights, 1 to 4; weight_bits means the same (2)"),
        (
            "act_bits",
            "width of activations, 2 to 8; 32: they and the first and last layers stay in float (32)",
        ),
        ("edge_bits", "width of the first and last layers where activations are quantised (8)"),
        ("per_channel", "levels of their own for each output channel (true)"),
        ("init", "first scales: mse (least error) or mean (from the mean magnitude) (mse)"),
        ("train_scale", "whether the scale of levels is trained (true)"),
        ("tau_start", "temperature at first (1)"),
        ("tau_end", "temperature at last (100)"),
        ("t_start", "part of the run after which the temperature begins to rise (0.2)"),
        ("t_end", "part of the run after which weights are hard (0.9)"),
        ("hard_phase", "what logits do then: ste or frozen (ste)"),
        ("logit_lr", "learning rate of logits, by AdamW (0.01)"),
        ("scale_lr", "learning rate of scales (that of the network)"),
        ("observer", "how ranges are observed in training: ema or minmax (ema{decay=0.99})"),
        ("exclude", "layers that stay in float: names, globs, or op:KIND ([])"),
        (
            "layers",
            "settings of single layers: {SELECTOR={act_bits=, weight_bits=, weight_per_channel=}} ({})",
        ),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: Some(Phase::Instrumented),
};

impl Pass for Slb {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.apply(module, context)
    }
}

impl Slb {
    fn setting(&self, q: &Question<'_>) -> Option<Attr> {
        (q.key == "weight_learned" && !q.edge).then_some(Attr::Bool(true))
    }
}
