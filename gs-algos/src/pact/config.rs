//! Configuration of PACT. Strict, as that of SimQAT, whose placement it shares.

use crate::observers::ObserverKind;
use crate::simqat::{ActConfig, ConfigError, LayerConfig, SimQatConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What PACT with weights by DoReFa is to do (algorithms, sections 5 and 6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PactConfig {
    /// The target, which decides placement.
    pub target: String,
    /// Width of weights in bits, 1 to 7: their levels are odd, and eight bits of those need nine.
    pub weight_bits: u8,
    /// Width of what layers read, 2 to 8.
    pub act_bits: u8,
    /// Width of the first and last layers, whose grids are those of SimQAT, and of what they and additions read and
    /// write, 2 to 8.
    pub edge_bits: u8,
    /// Levels of their own for each output channel of a weight, or one set per weight.
    pub per_channel: bool,
    /// Whether the scale of a weight's levels is trained; else it stays that of the pretrained weight.
    pub train_scale: bool,
    /// Clips begin where so many percent of the values are left alone.
    pub clip: f64,
    /// The factor of alpha^2 in the loss; the gradient of alpha has twice that times alpha.
    pub clip_decay: f32,
    /// The learning rate of clips; that of the network where absent.
    pub clip_lr: Option<f32>,
    /// Whether the gradient of a clip is scaled by 1 / sqrt(n * highest code), as LSQ scales that of its steps.
    pub grad_scale: bool,
    /// How ranges that are not learned (of inputs, sums and outputs) are observed in training.
    #[serde(deserialize_with = "crate::observe::following")]
    pub observer: ObserverKind,
    /// Layers that stay in float: exact source names, globs, or `op:kind`.
    pub exclude: Vec<String>,
    /// Settings of single layers, by the same selectors. Where several fit, the longest selector wins.
    pub layers: BTreeMap<String, LayerConfig>,
}

impl Default for PactConfig {
    fn default() -> Self {
        let shared = SimQatConfig::default();
        Self {
            target: shared.target,
            weight_bits: 4,
            act_bits: 4,
            edge_bits: 8,
            per_channel: true,
            train_scale: false,
            clip: 99.9,
            clip_decay: 2e-4,
            clip_lr: None,
            grad_scale: true,
            observer: shared.observer,
            exclude: Vec::new(),
            layers: BTreeMap::new(),
        }
    }
}

/// Odd levels of more bits do not fit into eight.
const MOST_LEVEL_BITS: u8 = 7;

impl PactConfig {
    /// The same in the words of placement.
    ///
    /// # Errors
    /// What is out of range, by its key.
    pub(super) fn placement(&self) -> Result<SimQatConfig, ConfigError> {
        for (key, bits) in [("act_bits", self.act_bits), ("edge_bits", self.edge_bits)] {
            if !(2..=8).contains(&bits) {
                return Err(ConfigError::Bits { key: key.to_owned(), bits });
            }
        }
        let number = |key: &str, value: f32, fits: bool, has| match fits {
            true => Ok(()),
            false => Err(ConfigError::Number { key: key.to_owned(), value, has }),
        };
        let level = |key: &str, bits: u8| {
            number(key, f32::from(bits), (1..=MOST_LEVEL_BITS).contains(&bits), "1 to 7 (levels are odd)")
        };
        level("weight_bits", self.weight_bits)?;
        for (selector, layer) in &self.layers {
            layer
                .weight_bits
                .map_or(Ok(()), |bits| level(&format!("layers.{selector}.weight_bits"), bits))?;
        }
        let positive = |x: f32| x.is_finite() && x >= 0.0;
        number("clip_decay", self.clip_decay, positive(self.clip_decay), "at least 0")?;
        if let Some(lr) = self.clip_lr {
            number("clip_lr", lr, positive(lr), "at least 0")?;
        }
        let clip = self.clip > 50.0 && self.clip <= 100.0;
        number("clip", self.clip as f32, clip, "above 50 and at most 100")?;
        let mut config = SimQatConfig {
            target: self.target.clone(),
            act: ActConfig { bits: self.act_bits, ..ActConfig::default() },
            edge_bits: Some(self.edge_bits),
            observer: self.observer,
            exclude: self.exclude.clone(),
            layers: self.layers.clone(),
            ..SimQatConfig::default()
        };
        config.weight.bits = self.weight_bits;
        config.weight.per_channel = Some(self.per_channel);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = toml::from_str::<PactConfig>("alpha = 4").unwrap_err().to_string();
        assert!(error.contains("alpha") && error.contains("clip_decay"), "{error}");
        let said =
            |text: &str| toml::from_str::<PactConfig>(text).unwrap().placement().unwrap_err().to_string();
        for (text, words) in [
            ("weight_bits = 8", "`weight_bits` = 8"),
            ("act_bits = 1", "`act_bits` = 1"),
            ("clip = 12.0", "`clip` = 12"),
            ("clip_decay = -1.0", "`clip_decay` = -1"),
            ("layers = { fc = { weight_bits = 8 } }", "`layers.fc.weight_bits` = 8"),
        ] {
            assert!(said(text).contains(words), "{text}: {}", said(text));
        }
        assert!(PactConfig { weight_bits: 1, ..PactConfig::default() }.placement().is_ok());
    }
}
