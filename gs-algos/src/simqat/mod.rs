//! SimQAT: quantisation simulated in float, so that training or calibration sees what the integers will be
//! (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference", CVPR 2018). The graph changes are the rules in `rules.gsr`; here is what they ask.

mod config;
pub(crate) mod norms;
mod training;

pub use config::{ActConfig, ConfigError, LayerConfig, Settled, SimQatConfig, WeightConfig};

use crate::algorithm::{Algorithm, RunLength, freeze_and_deploy};
use crate::deploy::Form;
use crate::placement::{Request, place};
use gs_ir::Module;
use gs_passes::manager::{PassContext, PassError, PassReport};
use gs_passes::training::ParamGroup;

/// The rules that place quantisers.
pub const RULES: &str = include_str!("rules.gsr");

/// The algorithm with its configuration.
#[derive(Clone, Debug, Default)]
pub struct SimQat {
    /// What to do.
    pub config: SimQatConfig,
}

impl Algorithm for SimQat {
    fn name(&self) -> &'static str {
        "simqat"
    }

    /// Instruments a network: inserts quantisers whose ranges are not observed yet, states the target in the
    /// module's header, and notes for every layer that stays in float why. Applying it twice equals once.
    ///
    /// # Errors
    /// A wrong configuration, by its key; see [`crate::placement::PlacementError`].
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let request = Request {
            rules: &[("simqat", RULES)],
            least_weight_bits: 2,
            odd_levels: false,
            keys: &[],
            own: &|_| None,
        };
        let mut done = place(module, context, &self.config, &request)?;
        let of_rule = |name: &str| done.placed.iter().filter(|p| p.rule == name).count();
        done.report.absorb(PassReport::counting([
            ("weight quantisers inserted", of_rule("weight_fake_quant")),
            ("activation quantisers inserted", of_rule("activation_fake_quant")),
            ("fixed quantisers inserted", of_rule("fixed_fake_quant")),
        ]));
        Ok(done.report)
    }

    fn prepare_training(&self, module: &mut Module, length: RunLength) -> Result<(), PassError> {
        training::prepare(&self.config, module, length)
    }

    fn param_groups(&self, module: &Module) -> Vec<ParamGroup> {
        norms::positive_factors(module).into_iter().collect()
    }

    fn convert(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        freeze_and_deploy(module, &self.config.target, Form::default())
    }
}
