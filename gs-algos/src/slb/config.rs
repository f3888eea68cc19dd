//! Configuration of SLB. Strict, as that of SimQAT, whose placement it shares.

use crate::observers::ObserverKind;
use crate::simqat::{ActConfig, ConfigError, LayerConfig, SimQatConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the scale of a weight's levels is chosen at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleInit {
    /// Where the squared error of the weight is least.
    #[default]
    Mse,
    /// In proportion to the mean |w|, as would be best for normally distributed weights.
    Mean,
}

/// What logits do once weights are hard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardPhase {
    /// They learn on, as if weights were soft.
    #[default]
    Ste,
    /// They stay as they are; the rest of the network learns on.
    Frozen,
}

/// What SLB is to do (algorithms, section 7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlbConfig {
    /// The target, which decides placement.
    pub target: String,
    /// Width of weights in bits, 1 to 4; `weight_bits`, as other algorithms name it, means the same.
    #[serde(alias = "weight_bits")]
    pub bits: u8,
    /// Width of activations, 2 to 8; 32 leaves them, and the first and last layers, in float.
    pub act_bits: u8,
    /// Width of the first and last layers where activations are quantised, 2 to 8.
    pub edge_bits: u8,
    /// Levels of their own for each output channel of a weight, or one set per weight.
    pub per_channel: bool,
    /// How the scale of a weight's levels is chosen at first.
    pub init: ScaleInit,
    /// Whether the scale of a weight's levels is trained.
    pub train_scale: bool,
    /// The temperature at first.
    pub tau_start: f32,
    /// The temperature at last; from 100 on soft weights are nearly hard.
    pub tau_end: f32,
    /// The part of the run after which the temperature begins to rise.
    pub t_start: f32,
    /// The part of the run after which it has risen, and weights are hard.
    pub t_end: f32,
    /// What logits do then.
    pub hard_phase: HardPhase,
    /// The learning rate of logits, by AdamW.
    pub logit_lr: f32,
    /// The learning rate of scales; that of the network where absent.
    pub scale_lr: Option<f32>,
    /// How ranges of activations are observed in training.
    #[serde(deserialize_with = "crate::observe::following")]
    pub observer: ObserverKind,
    /// Layers that stay in float: exact source names, globs, or `op:kind`.
    pub exclude: Vec<String>,
    /// Settings of single layers, by the same selectors. Where several fit, the longest selector wins.
    pub layers: BTreeMap<String, LayerConfig>,
}

impl Default for SlbConfig {
    fn default() -> Self {
        let shared = SimQatConfig::default();
        Self {
            target: shared.target,
            bits: 2,
            act_bits: 32,
            edge_bits: 8,
            per_channel: true,
            init: ScaleInit::default(),
            train_scale: true,
            tau_start: 1.0,
            tau_end: 100.0,
            t_start: 0.2,
            t_end: 0.9,
            hard_phase: HardPhase::default(),
            logit_lr: 1e-2,
            scale_lr: None,
            observer: shared.observer,
            exclude: Vec::new(),
            layers: BTreeMap::new(),
        }
    }
}

/// More bits would need too many logits.
const MOST_BITS: u8 = 4;
/// The width that stands for float.
const FLOAT: u8 = 32;

impl SlbConfig {
    /// Whether activations are quantised.
    pub(super) fn quantises_activations(&self) -> bool {
        self.act_bits != FLOAT
    }

    /// The same in the words of placement.
    ///
    /// # Errors
    /// What is out of range, by its key.
    pub(super) fn placement(&self) -> Result<SimQatConfig, ConfigError> {
        let number = |key: &str, value: f32, fits: bool, has| match fits {
            true => Ok(()),
            false => Err(ConfigError::Number { key: key.to_owned(), value, has }),
        };
        let level = |key: &str, bits: u8| {
            number(
                key,
                f32::from(bits),
                (1..=MOST_BITS).contains(&bits),
                "1 to 4: each bit doubles the logits",
            )
        };
        level("bits", self.bits)?;
        for (selector, layer) in &self.layers {
            layer
                .weight_bits
                .map_or(Ok(()), |bits| level(&format!("layers.{selector}.weight_bits"), bits))?;
        }
        let act = (2..=8).contains(&self.act_bits) || !self.quantises_activations();
        number("act_bits", f32::from(self.act_bits), act, "2 to 8, or 32 for float")?;
        let edge = (2..=8).contains(&self.edge_bits);
        number("edge_bits", f32::from(self.edge_bits), edge, "2 to 8")?;
        let positive = |x: f32| x.is_finite() && x > 0.0;
        number("tau_start", self.tau_start, positive(self.tau_start), "above 0")?;
        number("tau_end", self.tau_end, positive(self.tau_end), "above 0")?;
        let part = |x: f32| (0.0..=1.0).contains(&x);
        number("t_start", self.t_start, part(self.t_start), "0 to 1")?;
        let after = part(self.t_end) && self.t_end > self.t_start;
        number("t_end", self.t_end, after, "above `t_start` and at most 1")?;
        number("logit_lr", self.logit_lr, self.logit_lr.is_finite() && self.logit_lr >= 0.0, "at least 0")?;
        if let Some(lr) = self.scale_lr {
            number("scale_lr", lr, lr.is_finite() && lr >= 0.0, "at least 0")?;
        }
        let mut config = SimQatConfig {
            target: self.target.clone(),
            edge_bits: self.quantises_activations().then_some(self.edge_bits),
            observer: self.observer,
            exclude: self.exclude.clone(),
            layers: self.layers.clone(),
            ..SimQatConfig::default()
        };
        config.weight.bits = self.bits;
        config.weight.per_channel = Some(self.per_channel);
        if self.quantises_activations() {
            config.act = ActConfig { bits: self.act_bits, ..ActConfig::default() };
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = toml::from_str::<SlbConfig>("tau = 4").unwrap_err().to_string();
        assert!(error.contains("tau") && error.contains("tau_end"), "{error}");
        let said =
            |text: &str| toml::from_str::<SlbConfig>(text).unwrap().placement().unwrap_err().to_string();
        for (text, words) in [
            ("bits = 5", "`bits` = 5"),
            ("act_bits = 16", "`act_bits` = 16"),
            ("tau_end = 0.0", "`tau_end` = 0"),
            ("t_end = 0.1", "`t_end` = 0.1: it must be above `t_start`"),
            ("logit_lr = -1.0", "`logit_lr` = -1"),
            ("layers = { fc = { weight_bits = 8 } }", "`layers.fc.weight_bits` = 8"),
        ] {
            assert!(said(text).contains(words), "{text}: {}", said(text));
        }
        assert!(SlbConfig { bits: 1, act_bits: 8, ..SlbConfig::default() }.placement().is_ok());
    }
}
