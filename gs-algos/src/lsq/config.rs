//! Configuration of LSQ. Strict, as that of SimQAT, whose placement it shares.

use crate::learned::StepInit;
use crate::observers::ObserverKind;
use crate::simqat::{ActConfig, ConfigError, LayerConfig, SimQatConfig, WeightConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What LSQ is to do (algorithms, section 4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LsqConfig {
    /// The target, which decides placement.
    pub target: String,
    /// Width of weights in bits, 2 to 8.
    pub weight_bits: u8,
    /// Width of what layers read, 2 to 8.
    pub act_bits: u8,
    /// Width of the first and last layers, and of what they and additions read and write, 2 to 8.
    pub edge_bits: u8,
    /// One step per output channel of a weight, or one per weight.
    pub per_channel: bool,
    /// How steps are chosen at first.
    pub init: StepInit,
    /// Whether the gradient of a step is scaled by 1 / sqrt(n * highest code).
    pub grad_scale: bool,
    /// The learning rate of steps; that of the network where absent.
    pub step_lr: Option<f32>,
    /// How ranges that are not learned (of inputs, sums and outputs) are observed in training.
    #[serde(deserialize_with = "crate::observe::following")]
    pub observer: ObserverKind,
    /// Layers that stay in float: exact source names, globs, or `op:kind`.
    pub exclude: Vec<String>,
    /// Settings of single layers, by the same selectors. Where several fit, the longest selector wins.
    pub layers: BTreeMap<String, LayerConfig>,
}

impl Default for LsqConfig {
    fn default() -> Self {
        let shared = SimQatConfig::default();
        Self {
            target: shared.target,
            weight_bits: 4,
            act_bits: 4,
            edge_bits: 8,
            per_channel: false,
            init: StepInit::default(),
            grad_scale: true,
            step_lr: None,
            observer: shared.observer,
            exclude: Vec::new(),
            layers: BTreeMap::new(),
        }
    }
}

impl LsqConfig {
    /// The same in the words of placement.
    ///
    /// # Errors
    /// A width that no grid has, by its key.
    pub(super) fn placement(&self) -> Result<SimQatConfig, ConfigError> {
        for (key, bits) in
            [("weight_bits", self.weight_bits), ("act_bits", self.act_bits), ("edge_bits", self.edge_bits)]
        {
            if !(2..=8).contains(&bits) {
                return Err(ConfigError::Bits { key: key.to_owned(), bits });
            }
        }
        if let Some(lr) = self.step_lr
            && !(lr.is_finite() && lr >= 0.0)
        {
            return Err(ConfigError::Number { key: "step_lr".to_owned(), value: lr, has: "at least 0" });
        }
        let weight = WeightConfig {
            bits: self.weight_bits,
            per_channel: Some(self.per_channel),
            narrow_range: false,
            ..WeightConfig::default()
        };
        Ok(SimQatConfig {
            target: self.target.clone(),
            act: ActConfig { bits: self.act_bits, ..ActConfig::default() },
            weight,
            edge_bits: Some(self.edge_bits),
            observer: self.observer,
            exclude: self.exclude.clone(),
            layers: self.layers.clone(),
            ..SimQatConfig::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = toml::from_str::<LsqConfig>("bits = 4").unwrap_err().to_string();
        assert!(error.contains("bits") && error.contains("weight_bits"), "{error}");
        let config = LsqConfig { act_bits: 1, ..LsqConfig::default() };
        let error = config.placement().unwrap_err().to_string();
        assert!(error.contains("`act_bits` = 1"), "{error}");
        let config = LsqConfig { step_lr: Some(f32::NAN), ..LsqConfig::default() };
        assert!(config.placement().unwrap_err().to_string().contains("`step_lr`"));
        assert!(LsqConfig::default().placement().is_ok());
    }
}
