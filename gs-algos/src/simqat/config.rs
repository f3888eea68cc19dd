//! Configuration of SimQAT. Strict: an unknown key, a value out of range or a selector that matches nothing
//! is an error that says what exists.

use crate::observers::ObserverKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What SimQAT is to do. Defaults are those of the reference (algorithms, section 3.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimQatConfig {
    /// The target, which decides placement, signs and what an operation takes in.
    pub target: String,
    /// Grids of activations.
    pub act: ActConfig,
    /// Grids of weights.
    pub weight: WeightConfig,
    /// How ranges of activations are observed in training; calibration has its own choice.
    pub observer: ObserverKind,
    /// Layers that stay in float: exact source names, globs, or `op:kind`.
    pub exclude: Vec<String>,
    /// Settings of single layers, by the same selectors. Where several fit, the longest selector wins.
    pub layers: BTreeMap<String, LayerConfig>,
}

/// Grids of activations. They have one scale per tensor on every target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActConfig {
    /// Width in bits, 2 to 8.
    pub bits: u8,
    /// Whether codes have a sign; by default what the target wants.
    pub signed: Option<bool>,
    /// Whether the zero point is fixed in the middle.
    pub symmetric: bool,
    /// Whether the lowest code is left out.
    pub narrow_range: bool,
}

impl Default for ActConfig {
    fn default() -> Self {
        Self { bits: 8, signed: None, symmetric: false, narrow_range: false }
    }
}

/// Grids of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightConfig {
    /// Width in bits, 2 to 8.
    pub bits: u8,
    /// Whether the zero point is fixed at 0.
    pub symmetric: bool,
    /// Whether the lowest code is left out.
    pub narrow_range: bool,
    /// One scale per output channel.
    pub per_channel: bool,
}

impl Default for WeightConfig {
    fn default() -> Self {
        Self { bits: 8, symmetric: true, narrow_range: true, per_channel: true }
    }
}

/// Settings of single layers; what is absent is as for the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerConfig {
    /// Width of the layer's output in bits.
    pub act_bits: Option<u8>,
    /// Width of the layer's weight in bits.
    pub weight_bits: Option<u8>,
    /// One scale per output channel of the layer's weight.
    pub weight_per_channel: Option<bool>,
}

impl Default for SimQatConfig {
    fn default() -> Self {
        Self {
            target: "ort-cpu".to_owned(),
            act: ActConfig::default(),
            weight: WeightConfig::default(),
            observer: ObserverKind::Ema { decay: 0.99 },
            exclude: Vec::new(),
            layers: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A width that no grid has.
    #[error("`{key}` = {bits}: a width must be 2 to 8 bits")]
    Bits {
        /// The key.
        key: String,
        /// Its value.
        bits: u8,
    },
    /// An asymmetric signed weight would need a zero point that no target has.
    #[error("`weight.symmetric` = false: target `{target}` runs weights with zero point 0 only")]
    AsymmetricWeight {
        /// The target.
        target: String,
    },
}

impl SimQatConfig {
    /// Checks ranges and combinations.
    ///
    /// # Errors
    /// The first thing that is wrong, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bits = |key: &str, bits: u8| match bits {
            2..=8 => Ok(()),
            _ => Err(ConfigError::Bits { key: key.to_owned(), bits }),
        };
        bits("act.bits", self.act.bits)?;
        bits("weight.bits", self.weight.bits)?;
        for (selector, layer) in &self.layers {
            for (key, value) in [("act_bits", layer.act_bits), ("weight_bits", layer.weight_bits)] {
                if let Some(value) = value {
                    bits(&format!("layers.{selector}.{key}"), value)?;
                }
            }
        }
        if !self.weight.symmetric {
            return Err(ConfigError::AsymmetricWeight { target: self.target.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let parse = |text: &str| toml::from_str::<SimQatConfig>(text);
        let error = parse("bitz = 4").unwrap_err().to_string();
        assert!(error.contains("bitz") && error.contains("exclude"), "{error}");
        let error = parse("observer = \"median\"").unwrap_err().to_string();
        assert!(error.contains("minmax"), "{error}");
        let config = SimQatConfig { act: ActConfig { bits: 9, ..Default::default() }, ..Default::default() };
        assert_eq!(config.check(), Err(ConfigError::Bits { key: "act.bits".into(), bits: 9 }));
        assert_eq!(SimQatConfig::default().check(), Ok(()));
    }
}
