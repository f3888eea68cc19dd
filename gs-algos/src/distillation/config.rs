//! What can be said of distillation.

use serde::Deserialize;
use thiserror::Error;

/// How the network learns from its teacher.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillationConfig {
    /// What logits are divided by before they become probabilities: above 1, small ones count too.
    pub temperature: f32,
    /// The part of the loss that the teacher has, the labels having the rest: 0 to 1.
    pub weight: f32,
    /// The output that is learned; the one that the loss is of (without a loss: the first) where absent.
    pub output: Option<String>,
}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self { temperature: 4.0, weight: 0.9, output: None }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// The temperature.
    #[error("`temperature` = {0} must be above 0")]
    Temperature(f32),
    /// The weight.
    #[error("`weight` = {0} must be 0 to 1")]
    Weight(f32),
}

impl DistillationConfig {
    /// Whether the loss has a part for labels.
    pub fn needs_labels(&self) -> bool {
        self.weight < 1.0
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// What is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(ConfigError::Temperature(self.temperature));
        }
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(ConfigError::Weight(self.weight));
        }
        Ok(())
    }
}
