//! PACT: activations are clipped where training finds it best (Choi et al., "PACT: Parameterized Clipping Activation for
//! Quantized Neural Networks", 2018), with the weights of DoReFa: squeezed by tanh onto odd levels (Zhou et al.,
//! "DoReFa-Net", 2016). The scale of the levels is that of the pretrained weight, which is so kept. The graph changes are
//! the rules in `rules.gsr`; here is what they ask.

mod config;

pub use config::PactConfig;

use crate::algorithm::{Algorithm, RunLength, freeze_and_deploy};
use crate::calibrate::CalibrateOptions;
use crate::deploy::Form;
use crate::learned::{
    LEAST_CLIP, LEAST_STEP, calibrate_activations, follow_ranges, magnitudes, parameters_of, set_scales,
};
use crate::placement::{PlacementError, Question, Request, can_be_negative, place};
use crate::simqat;
use crate::simqat::norms::positive_factors;
use gs_ir::{Attr, Module, Phase};
use gs_passes::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_passes::rules::Site;
use gs_passes::training::ParamGroup;

/// The rules that place learned clips and squeezed weights.
pub const RULES: &str = include_str!("rules.gsr");

/// The algorithm with its configuration.
#[derive(Clone, Debug, Default)]
pub struct Pact {
    /// What to do.
    pub config: PactConfig,
}

impl Algorithm for Pact {
    fn name(&self) -> &'static str {
        "pact"
    }

    /// Puts inner weights on levels with the scale of the pretrained weight, and learned clips on what inner layers
    /// read; these get their first values where the context has an executor and the data source `calib` (else the
    /// pass `calibrate` gives them). Applying it twice equals once.
    ///
    /// # Errors
    /// A wrong configuration, by its key; a weight that cannot be read.
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let config = self.config.placement().map_err(PlacementError::from)?;
        let request = Request {
            rules: &[("pact", RULES), ("simqat", simqat::RULES)],
            least_weight_bits: 1,
            odd_levels: true,
            keys: &[
                ("weight.bits", "weight_bits"),
                ("act.bits", "act_bits"),
                ("weight.per_channel", "per_channel"),
            ],
            own: &|question| self.setting(question),
        };
        let mut done = place(module, context, &config, &request)?;
        set_scales(module, "dorefa", self.config.train_scale, first_scales)?;
        calibrate_activations(
            module,
            context,
            CalibrateOptions { clip: self.config.clip, ..CalibrateOptions::default() },
        )?;
        let of_rule = |name: &str| done.placed.iter().filter(|p| p.rule == name).count();
        done.report.absorb(PassReport::counting([
            ("weights on odd levels", of_rule("weight_dorefa")),
            ("other weight quantisers", of_rule("weight_fake_quant")),
            ("activations with a learned clip", of_rule("activation_pact")),
            ("activations with an observed range", of_rule("activation_fake_quant")),
        ]));
        Ok(done.report)
    }

    fn prepare_training(&self, module: &mut Module, _: RunLength) -> Result<(), PassError> {
        follow_ranges(module, self.config.observer)
    }

    fn param_groups(&self, module: &Module) -> Vec<ParamGroup> {
        let clips = parameters_of(module, &["pact"], |params| ParamGroup {
            params,
            lr: self.config.clip_lr,
            weight_decay: Some(2.0 * self.config.clip_decay),
            min: Some(LEAST_CLIP),
            optional: true,
            ..ParamGroup::default()
        });
        let scales = parameters_of(module, &["dorefa"], |params| ParamGroup {
            params,
            weight_decay: Some(0.0),
            min: Some(LEAST_STEP),
            optional: true,
            ..ParamGroup::default()
        });
        clips.into_iter().chain(scales).chain(positive_factors(module)).collect()
    }

    fn convert(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        freeze_and_deploy(module, &self.config.target, Form::default())
    }
}

/// The algorithm as a pass.
pub(crate) static INFO: PassInfo = PassInfo {
    name: "pact",
    doc: "clip activations where training finds it best (Choi et al. 2018), put weights on odd levels (Zhou et al. 2016)",
    options: &[
        ("target", "the target that decides placement (ort-cpu)"),
        ("weight_bits", "width of weights, 1 to 7 (4)"),
        ("act_bits", "width of what inner layers read (4)"),
        ("edge_bits", "width of the first and last layers, of sums and outputs (8)"),
        ("per_channel", "levels of their own for each output channel (true)"),
        ("train_scale", "whether the scale of levels is trained (false)"),
        ("clip", "percent of the values that a clip leaves alone at first (99.9)"),
        ("clip_decay", "factor of alpha^2 in the loss (0.0002)"),
        ("clip_lr", "learning rate of clips (that of the network)"),
        ("grad_scale", "whether gradients of clips are scaled by 1 / sqrt(n * highest code) (true)"),
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

impl Pass for Pact {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }
    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.apply(module, context)
    }
}

impl Pact {
    fn setting(&self, q: &Question<'_>) -> Option<Attr> {
        match (q.key, q.site) {
            ("weight_learned" | "act_learned", _) => (!q.edge).then_some(Attr::Bool(true)),
            ("act_negative", Site::Value(v)) => Some(Attr::Bool(can_be_negative(q.module, q.grids, v))),
            ("act_grad_scale", _) => Some(Attr::Bool(self.config.grad_scale)),
            _ => None,
        }
    }
}

/// The scales with which levels stand for a pretrained weight: the largest |tanh w|; with one bit the mean |w|.
fn first_scales(
    values: &[f32],
    dims: &[usize],
    axis: Option<usize>,
    bits: u8,
) -> Result<Vec<f32>, PassError> {
    let squeezed: Vec<f32> = values.iter().map(|v| if bits == 1 { *v } else { v.tanh() }).collect();
    let scale = |m: &crate::learned::Magnitude| {
        let wanted = if bits == 1 { m.mean().map(|m| m as f32) } else { Some(m.largest()) };
        wanted.unwrap_or(0.0).max(LEAST_STEP)
    };
    Ok(magnitudes(&squeezed, dims, axis)?.iter().map(scale).collect())
}
