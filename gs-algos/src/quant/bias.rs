//! The 32-bit bias of an integer operator, and the guard which keeps it from overflowing.
//!
//! A bias is stored at the scale `input_scale * weight_scale[c]` with zero point 0. Channels with tiny
//! weights and a large bias (common once a BatchNorm is folded in) do not fit: their weight scale must be
//! raised *before* the weights are quantised. That costs nothing that matters, since weights so small have
//! next to no effect beside such a bias. A weight may serve several layers, each with a bias and a data scale of
//! its own: all of them have to be known before a scale is chosen.

use super::{ChannelParams, QuantError, QuantParams};
use serde::{Deserialize, Serialize};

/// Why the weight scale of a channel was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BiasChangeReason {
    /// The bias would not have fitted into 32 bits: the scale was raised.
    Overflow,
    /// The channel has no weights, so that any scale will do: one was chosen at which the bias is precise.
    Dead,
}

/// A weight scale that was changed for the sake of a bias.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiasChange {
    /// Channel whose weight scale was changed (0 where one scale serves all channels).
    pub channel: usize,
    /// Scale before.
    pub from: f32,
    /// Scale after.
    pub to: f32,
    /// Why.
    pub reason: BiasChangeReason,
}

/// A bias, and the layer that it stands in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bias<'v> {
    /// Its values, `[channels]`.
    pub values: &'v [f32],
    /// The scale of the layer's data.
    pub input_scale: f32,
    /// Upper bound of the layer's sums of products, in steps; see [`accumulator_bound`].
    pub acc_bound: u64,
}

/// Weight parameters at which biases fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The parameters to quantise the weights with.
    pub weights: ChannelParams,
    /// The channels whose scale differs from the one given.
    pub changed: Vec<BiasChange>,
}

/// Codes that a dead channel's bias is given: all of a float's precision, and exact in a float multiplier.
const DEAD_CODES: f64 = (1u32 << 24) as f64;
/// Least scale for a dead channel, so that products of scales stay normal numbers.
const DEAD_MIN_SCALE: f64 = 1.0 / (1u64 << 40) as f64;

/// Largest distance of a code from the zero point, in steps.
pub(crate) fn reach(p: QuantParams) -> u64 {
    let (low, high) = p.step_bounds();
    low.abs().max(high.abs()) as u64
}

/// Upper bound of `|sum of (qx - zx)(qw - zw)|` over `k` products, whatever the codes are.
pub fn accumulator_bound(k: usize, input: QuantParams, weights: &ChannelParams) -> u64 {
    let weight = weights.params().iter().map(|&p| reach(p)).max().unwrap_or(0);
    (k as u64).saturating_mul(reach(input)).saturating_mul(weight)
}

impl Bias<'_> {
    /// Codes that are left for the bias beside the sum of products.
    fn room(&self) -> Result<f64, QuantError> {
        let room = (i32::MAX as u64).checked_sub(self.acc_bound).filter(|&room| room > 0);
        room.map(|r| r as f64).ok_or(QuantError::AccumulatorOverflow { bound: self.acc_bound })
    }

    /// Checks lengths and values against the parameters of the weight.
    ///
    /// # Errors
    /// Those of [`fit_biases`], but for scales that no float holds.
    pub fn check(&self, weights: &ChannelParams) -> Result<(), QuantError> {
        if weights.len() != 1 && weights.len() != self.values.len() {
            let (expected, found) = (weights.len(), self.values.len());
            return Err(QuantError::Length { what: "bias", expected, found });
        }
        if !(self.input_scale.is_finite() && self.input_scale > 0.0) {
            return Err(QuantError::BadScale { scale: self.input_scale });
        }
        if let Some((index, &value)) = self.values.iter().enumerate().find(|(_, b)| !b.is_finite()) {
            return Err(QuantError::NonFinite { what: "bias", index, value });
        }
        self.room().map(|_| ())
    }

    /// The largest magnitude that the scale of a channel (or the one scale) serves, in units of the input's scale.
    fn largest(&self, channel: usize, shared: bool) -> f64 {
        let values = if shared { self.values } else { self.values.get(channel..=channel).unwrap_or(&[]) };
        let largest = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        f64::from(largest) / f64::from(self.input_scale)
    }

    /// The codes at these parameters of the weight: scale `input_scale * weights.scale[c]`, zero point 0.
    pub fn codes(&self, weights: &ChannelParams) -> Vec<i32> {
        let params = weights.params();
        let scale = |c: usize| params.get(if params.len() == 1 { 0 } else { c }).map_or(1.0, |p| p.scale());
        let code = |(c, &b): (usize, &f32)| {
            let step = f64::from(self.input_scale) * f64::from(scale(c));
            (f64::from(b) / step).round_ties_even() as i32
        };
        self.values.iter().enumerate().map(code).collect()
    }
}

/// Chooses the scales of a weight so that the bias of every layer that reads it fits into 32 bits beside that layer's
/// sum of products: a scale is raised where `|b / (sx sw)|` would exceed `2^31 - 1 - acc_bound` in one of them.
///
/// `weights` holds one parameter per channel, or a single one that serves all.
///
/// # Errors
/// Lengths that disagree, a bias or scale that is not finite, an accumulator that can overflow without any
/// bias, and a bias so large that no finite scale can hold it.
pub fn fit_biases(biases: &[Bias<'_>], weights: &ChannelParams) -> Result<Fitted, QuantError> {
    for bias in biases {
        bias.check(weights)?;
    }
    let shared = weights.len() == 1;
    let mut out = Fitted { weights: weights.clone(), changed: vec![] };
    for (channel, (&p, &dead)) in weights.params().iter().zip(weights.dead()).enumerate() {
        let mut needs = Vec::with_capacity(biases.len());
        for bias in biases {
            needs.push((bias.largest(channel, shared), bias.room()?));
        }
        if let Some((scale, reason)) = better_scale(&needs, p.scale(), dead) {
            out.weights.set_scale(channel, scale)?;
            out.changed.push(BiasChange { channel, from: p.scale(), to: scale, reason });
        }
    }
    Ok(out)
}

/// The weight scale to use instead of `scale`, if another is better for biases of these magnitudes, in units of their
/// layer's data scale, each with the codes that there are for it.
fn better_scale(needs: &[(f64, f64)], scale: f32, dead: bool) -> Option<(f32, BiasChangeReason)> {
    let needs = || needs.iter().filter(|(bias, _)| *bias > 0.0);
    let least = needs().map(|(bias, room)| bias / room).fold(0.0, f64::max);
    if dead {
        // As precise as the smallest bias asks for, as far as the largest one leaves it.
        let wanted = needs().map(|(bias, _)| bias / DEAD_CODES).fold(f64::INFINITY, f64::min);
        let chosen = wanted.max(least).max(DEAD_MIN_SCALE);
        return needs().next().map(|_| (round_up(chosen), BiasChangeReason::Dead));
    }
    (f64::from(scale) < least).then(|| (round_up(least), BiasChangeReason::Overflow))
}

/// The least float that is not below `x`.
fn round_up(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}
