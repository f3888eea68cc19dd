//! What the pass `prune` is told.

use serde::Deserialize;
use std::collections::BTreeMap;

/// By what channels are ranked. A channel is an atom of a group: all that goes with it counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The sum of absolute weights that make the channel (Li et al., ICLR 2017).
    L1,
    /// The norm of the weights that make the channel (Li et al., ICLR 2017).
    #[default]
    L2,
    /// The norm of all weights of the channel, those that read it too (Fang et al., CVPR 2023, equation 7, without
    /// sparse training).
    Group,
    /// The absolute factor of batch normalisation (Liu et al., ICCV 2017).
    Bn,
    /// The distance of a filter to all others of its layer: what lies in their midst can be replaced (He et al., CVPR
    /// 2019).
    Fpgm,
    /// The squared norm as a part of those of the channels that are not smaller (after Lee et al., ICLR 2021).
    Lamp,
    /// A seeded random number: what a criterion must beat.
    Random,
}

/// Among what channels compete.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All channels of the network, their scores as multiples of the mean of their group.
    #[default]
    Global,
    /// Those of their group: every group keeps the same part.
    Local,
}

/// Configuration of the pass `prune`. What is named `keep` is the part that stays, above 0 and up to 1.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PruneConfig {
    /// By what channels are ranked.
    pub criterion: Criterion,
    /// Among what they compete.
    pub scope: Scope,
    /// The part of the channels that stays.
    pub keep_channels: Option<f64>,
    /// The part of the multiply-adds that stays.
    pub keep_macs: Option<f64>,
    /// The part of the parameters that stays.
    pub keep_params: Option<f64>,
    /// Counts of channels are multiples of this, or what they were; the best multiple of the target if absent.
    pub round_to: Option<usize>,
    /// The least part of a group that stays.
    pub min_keep: f64,
    /// Whether residual branches may go whole: the sum that they end in becomes its other operand.
    pub dead_branches: bool,
    /// Layers whose channels all stay: names, globs, or `op:KIND`.
    pub exclude: Vec<String>,
    /// For single layers, the part of their channels that stays.
    pub layers: BTreeMap<String, f64>,
    /// The target whose best multiple is taken.
    pub target: String,
    /// Seed of the criterion `random`.
    pub seed: u64,
}

impl Default for PruneConfig {
    fn default() -> Self {
        Self {
            criterion: Criterion::default(),
            scope: Scope::default(),
            keep_channels: None,
            keep_macs: None,
            keep_params: None,
            round_to: None,
            min_keep: 0.1,
            dead_branches: false,
            exclude: Vec::new(),
            layers: BTreeMap::new(),
            target: "ort-cpu".to_owned(),
            seed: 0,
        }
    }
}
