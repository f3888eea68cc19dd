//! Configuration of SimQAT. Strict: an unknown key, a value out of range or a selector that matches nothing
//! is an error that says what exists.

use crate::moment::Moment;
use crate::observe::Following;
use crate::observers::ObserverKind;
use gs_passes::target::{Granularity, Target};
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
    /// Width of the first and last layers, and of what they and additions read and write, 2 to 8; as the rest where
    /// absent.
    pub edge_bits: Option<u8>,
    /// How ranges of activations are observed in training; calibration has its own choice.
    #[serde(deserialize_with = "crate::observe::following")]
    pub observer: ObserverKind,
    /// Steps before which quantisers pass on what they are given; ranges follow what is seen all the same.
    pub quant_delay: u64,
    /// When batch normalisation begins to use its running statistics, which then stay as they are: a step, a part of the
    /// run, or `never`.
    pub freeze_bn: Moment,
    /// When ranges of activations stop following what is seen.
    pub freeze_ranges: Moment,
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
    /// Whether the zero point is fixed in the middle; by default only where the target wants it.
    pub symmetric: Option<bool>,
    /// Whether the lowest code is left out.
    pub narrow_range: bool,
}

impl Default for ActConfig {
    fn default() -> Self {
        Self { bits: 8, signed: None, symmetric: None, narrow_range: false }
    }
}

/// Grids of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightConfig {
    /// Width in bits, 2 to 8.
    pub bits: u8,
    /// Whether the zero point is fixed in the middle of the codes: at 0 where they are signed.
    pub symmetric: bool,
    /// Whether the lowest code is left out.
    pub narrow_range: bool,
    /// One scale per output channel; by default wherever the target has that.
    pub per_channel: Option<bool>,
}

impl Default for WeightConfig {
    fn default() -> Self {
        Self { bits: 8, symmetric: true, narrow_range: true, per_channel: None }
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
            edge_bits: None,
            observer: ObserverKind::Ema { decay: 0.99 },
            quant_delay: 0,
            freeze_bn: Moment::Part(0.7),
            freeze_ranges: Moment::Part(0.9),
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
    /// A number out of range.
    #[error("`{key}` = {value}: it must be {has}")]
    Number {
        /// The key.
        key: String,
        /// Its value.
        value: f32,
        /// What it must be.
        has: &'static str,
    },
    /// An observer that needs all samples at once.
    #[error("`observer` = {observer}: it does not follow training; `ema` and `minmax` do")]
    Observer {
        /// The observer.
        observer: ObserverKind,
    },
    /// A part of the run that is none.
    #[error("`{key}`: a step, a part of the run from 0 to 1, or never is expected")]
    Moment {
        /// The key.
        key: &'static str,
    },
    /// What the target does not run.
    #[error("`{key}` = {value}: target `{target}` {has}")]
    Contradiction {
        /// The key.
        key: String,
        /// Its value, given or by default.
        value: String,
        /// The target.
        target: String,
        /// What the target has instead.
        has: String,
    },
}

impl ConfigError {
    /// The same in the words of an algorithm that calls some keys otherwise.
    pub(crate) fn renamed(mut self, keys: &[(&str, &str)]) -> Self {
        let (Self::Bits { key, .. } | Self::Number { key, .. } | Self::Contradiction { key, .. }) = &mut self
        else {
            return self;
        };
        if let Some((_, name)) = keys.iter().find(|(common, _)| common == key) {
            *key = (*name).to_owned();
        }
        self
    }
}

/// What a configuration leaves to the target, settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whether codes of activations have a sign.
    pub act_signed: bool,
    /// Whether their zero point is fixed in the middle.
    pub act_symmetric: bool,
    /// Whether codes of weights have a sign.
    pub weight_signed: bool,
    /// Whether weights have one scale per output channel.
    pub weight_per_channel: bool,
}

/// Bits of weights of which the sum of two products with 8 bits fits into 16.
const PAIR_BITS: u8 = 7;

impl SimQatConfig {
    /// Checks ranges and combinations.
    ///
    /// # Errors
    /// The first thing that is wrong, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_from(2)
    }

    /// The same, where weights may have so few bits.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn check_from(&self, least_weight_bits: u8) -> Result<(), ConfigError> {
        let bits = |key: &str, bits: u8, least: u8| match bits {
            b if b >= least && b <= 8 => Ok(()),
            _ => Err(ConfigError::Bits { key: key.to_owned(), bits }),
        };
        bits("act.bits", self.act.bits, 2)?;
        bits("weight.bits", self.weight.bits, least_weight_bits)?;
        for (key, moment) in [("freeze_bn", self.freeze_bn), ("freeze_ranges", self.freeze_ranges)] {
            if !moment.is_valid() {
                return Err(ConfigError::Moment { key });
            }
        }
        if Following::of(self.observer).is_none() {
            return Err(ConfigError::Observer { observer: self.observer });
        }
        if let Some(edge) = self.edge_bits {
            bits("edge_bits", edge, 2)?;
        }
        for (selector, layer) in &self.layers {
            for (key, value, least) in
                [("act_bits", layer.act_bits, 2), ("weight_bits", layer.weight_bits, least_weight_bits)]
            {
                if let Some(value) = value {
                    bits(&format!("layers.{selector}.{key}"), value, least)?;
                }
            }
        }
        Ok(())
    }

    /// Settles what is left to the target.
    ///
    /// # Errors
    /// What contradicts the target, by its key.
    pub fn settle(&self, target: &Target) -> Result<Settled, ConfigError> {
        self.settle_for(target, false)
    }

    /// The same, where weights may lie on odd levels: codes then have one bit more than is said, but for the first and
    /// the last layers.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub(crate) fn settle_for(&self, target: &Target, odd_levels: bool) -> Result<Settled, ConfigError> {
        let contradiction = |key: &str, value: String, has: String| {
            Err(ConfigError::Contradiction { key: key.to_owned(), value, target: target.name.clone(), has })
        };
        let signed = |types: &[String]| types.first().is_some_and(|t| t.starts_with('i'));
        let has_sign = |types: &[String], sign: bool| types.iter().any(|t| t.starts_with('i') == sign);
        let (act, weight) = (&target.activation, &target.weight);
        let act_signed = self.act.signed.unwrap_or_else(|| signed(&act.types));
        if !has_sign(&act.types, act_signed) {
            let has = format!("has activations of {} only", act.types.join(", "));
            return contradiction("act.signed", act_signed.to_string(), has);
        }
        let act_symmetric = self.act.symmetric.unwrap_or(!act.zero_point.allows(act_signed, false));
        if !act.zero_point.allows(act_signed, act_symmetric) {
            let has = format!("runs activations with {}", act.zero_point.words());
            let wrong = if act_symmetric { ("act.signed", act_signed) } else { ("act.symmetric", false) };
            return contradiction(wrong.0, wrong.1.to_string(), has);
        }
        let weight_signed = signed(&weight.types);
        if !weight.zero_point.allows(weight_signed, self.weight.symmetric) {
            let has =
                format!("runs weights of {} with {}", weight.types.join(", "), weight.zero_point.words());
            return contradiction("weight.symmetric", self.weight.symmetric.to_string(), has);
        }
        let has = |g| weight.granularity.contains(&g);
        let runs = |per_channel| has(if per_channel { Granularity::Channel } else { Granularity::Tensor });
        let weight_per_channel = self.weight.per_channel.unwrap_or(has(Granularity::Channel));
        let layers = || self.layers.iter();
        let settings = layers().filter_map(|(selector, l)| {
            Some((format!("layers.{selector}.weight_per_channel"), l.weight_per_channel?))
        });
        for (key, per_channel) in settings.chain([("weight.per_channel".to_owned(), weight_per_channel)]) {
            if !runs(per_channel) {
                let only = if per_channel { "one scale per weight" } else { "one scale per output channel" };
                return contradiction(&key, per_channel.to_string(), format!("has {only} only"));
            }
        }
        let more = u8::from(odd_levels);
        let bits = layers().filter_map(|(selector, l)| {
            Some((format!("layers.{selector}.weight_bits"), l.weight_bits?, more))
        });
        let edge = self.edge_bits.map(|bits| ("edge_bits".to_owned(), bits, 0));
        for (key, bits, more) in bits.chain([("weight.bits".to_owned(), self.weight.bits, more)]).chain(edge)
        {
            if target.pair_saturation && bits + more > PAIR_BITS {
                let has = format!(
                    "adds pairs of products in 16 bits, which hold those of {} bits only",
                    PAIR_BITS - more
                );
                return contradiction(&key, bits.to_string(), has);
            }
        }
        Ok(Settled { act_signed, act_symmetric, weight_signed, weight_per_channel })
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
        for (text, moment) in [("3", Moment::Step(3)), ("0.5", Moment::Part(0.5))] {
            assert_eq!(parse(&format!("freeze_bn = {text}")).map(|c| c.freeze_bn), Ok(moment));
        }
        assert_eq!(parse("freeze_bn = 1.5").unwrap().check(), Err(ConfigError::Moment { key: "freeze_bn" }));
        assert_eq!(parse("freeze_bn = \"never\"").unwrap().check(), Ok(()));
        assert!(parse("freeze_bn = \"later\"").is_err());
        let said = parse("observer = \"mse\"").unwrap().check().unwrap_err().to_string();
        assert!(said.starts_with("`observer` = mse: it does not follow training"), "{said}");
        assert_eq!(parse("observer = \"minmax\"").unwrap().check(), Ok(()));
    }

    /// The target `ort-cpu` with some words replaced.
    fn target(replace: &[(&str, &str)]) -> Target {
        let mut text = include_str!("../../targets/ort-cpu.toml").to_owned();
        for (from, to) in replace {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        Target::parse(&text).unwrap()
    }

    #[test]
    fn what_is_not_given_follows_the_target() {
        let settled = |replace: &[(&str, &str)]| {
            let s = SimQatConfig::default().settle(&target(replace)).unwrap();
            (s.act_signed, s.act_symmetric, s.weight_signed, s.weight_per_channel)
        };
        assert_eq!(settled(&[]), (false, false, true, true));
        assert_eq!(settled(&[("\"any\"", "\"mid\"")]), (false, true, true, true));
        let signed = [("types = [\"u8\"]", "types = [\"i8\", \"u8\"]"), ("\"any\"", "\"zero\"")];
        assert_eq!(settled(&signed), (true, true, true, true));
        assert_eq!(settled(&[("\"tensor\", \"channel\"", "\"tensor\"")]), (false, false, true, false));
        let unsigned =
            [("types = [\"i8\"]", "types = [\"u8\"]"), ("zero_point = \"zero\"", "zero_point = \"mid\"")];
        assert_eq!(settled(&unsigned), (false, false, false, true));
    }

    #[test]
    fn what_contradicts_the_target_is_named() {
        for (options, replace, key) in [
            ("act = { signed = true }", &[][..], "act.signed"),
            ("act = { symmetric = false }", &[("\"any\"", "\"mid\"")], "act.symmetric"),
            ("act = { symmetric = true }", &[("\"any\"", "\"zero\"")], "act.signed"),
            ("weight = { symmetric = false }", &[], "weight.symmetric"),
            ("", &[("types = [\"i8\"]", "types = [\"u8\"]")], "weight.symmetric"),
            (
                "weight = { per_channel = true }",
                &[("\"tensor\", \"channel\"", "\"tensor\"")],
                "weight.per_channel",
            ),
            (
                "layers = { fc = { weight_per_channel = false } }",
                &[("\"tensor\", \"channel\"", "\"channel\"")],
                "layers.fc.weight_per_channel",
            ),
            ("", &[("pair_saturation = false", "pair_saturation = true")], "weight.bits"),
            (
                "weight = { bits = 7 }\nlayers = { fc = { weight_bits = 8 } }",
                &[("pair_saturation = false", "pair_saturation = true")],
                "layers.fc.weight_bits",
            ),
            (
                "weight = { bits = 4 }\nedge_bits = 8",
                &[("pair_saturation = false", "pair_saturation = true")],
                "edge_bits",
            ),
        ] {
            let config: SimQatConfig = toml::from_str(options).unwrap();
            let error = config.settle(&target(replace)).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&format!("`{key}`")) && said.contains("`ort-cpu`"), "{options}: {said}");
            assert!(matches!(error, ConfigError::Contradiction { .. }), "{error:?}");
        }
    }

    /// Odd numbers of 7 bits are codes of 8.
    #[test]
    fn odd_levels_have_wider_codes() {
        let target = target(&[("pair_saturation = false", "pair_saturation = true")]);
        let config: SimQatConfig = toml::from_str("weight = { bits = 7 }\nedge_bits = 7").unwrap();
        assert!(config.settle_for(&target, false).is_ok());
        let said = config.settle_for(&target, true).unwrap_err().to_string();
        assert!(said.contains("`weight.bits` = 7") && said.contains("6 bits only"), "{said}");
        let config: SimQatConfig = toml::from_str("weight = { bits = 6 }\nedge_bits = 7").unwrap();
        assert!(config.settle_for(&target, true).is_ok());
    }
}
