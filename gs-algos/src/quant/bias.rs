//! The 32-bit bias of an integer operator, and the guard which keeps it from overflowing.
//!
//! A bias is stored at the scale `input_scale * weight_scale[c]` with zero point 0. Channels with tiny
//! weights and a large bias (common once a BatchNorm is folded in) do not fit: their weight scale must be
//! raised *before* the weights are quantised. That costs nothing that matters, since weights so small have
//! next to no effect beside such a bias.

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

/// A weight scale that was changed for the sake of the bias.
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

/// A quantised bias together with the weight parameters it is valid for.
#[derive(Clone, Debug, PartialEq)]
pub struct BiasQuant {
    /// Codes at scale `input_scale * weights.scale[c]`, zero point 0.
    pub codes: Vec<i32>,
    /// The parameters to quantise the weights with.
    pub weights: ChannelParams,
    /// The channels whose scale differs from the one given.
    pub changed: Vec<BiasChange>,
}

/// Codes that a dead channel's bias is given: all of a float's precision, and exact in a float multiplier.
const DEAD_CODES: f64 = (1u32 << 24) as f64;
/// Least scale for a dead channel, so that products of scales stay normal numbers.
const DEAD_MIN_SCALE: f64 = 1.0 / (1u64 << 40) as f64;

/// Upper bound of `|sum of (qx - zx)(qw - zw)|` over `k` products.
pub fn accumulator_bound(k: usize, input: QuantParams, weights: &ChannelParams) -> u64 {
    let reach = |p: QuantParams| {
        let (low, high) = p.step_bounds();
        low.abs().max(high.abs()) as u64
    };
    let weight = weights.params().iter().map(|&p| reach(p)).max().unwrap_or(0);
    (k as u64).saturating_mul(reach(input)).saturating_mul(weight)
}

/// Quantises a bias to 32 bits, raising weight scales where `|b / (sx sw)|` would exceed
/// `2^31 - 1 - acc_bound`.
///
/// `bias` is `[channels]`; `weights` holds as many parameters, or a single one that serves all.
/// `acc_bound` comes from [`accumulator_bound`].
///
/// # Errors
/// Lengths that disagree, a bias or scale that is not finite, an accumulator that can overflow without any
/// bias, and a bias so large that no finite scale can hold it.
pub fn quantize_bias(
    bias: &[f32],
    input_scale: f32,
    weights: &ChannelParams,
    acc_bound: u64,
) -> Result<BiasQuant, QuantError> {
    let shared = weights.len() == 1;
    if !shared && weights.len() != bias.len() {
        return Err(QuantError::Length { what: "bias", expected: weights.len(), found: bias.len() });
    }
    if !(input_scale.is_finite() && input_scale > 0.0) {
        return Err(QuantError::BadScale { scale: input_scale });
    }
    if let Some((index, &value)) = bias.iter().enumerate().find(|(_, b)| !b.is_finite()) {
        return Err(QuantError::NonFinite { what: "bias", index, value });
    }
    let room = (i32::MAX as u64).checked_sub(acc_bound).filter(|&room| room > 0);
    let room = room.ok_or(QuantError::AccumulatorOverflow { bound: acc_bound })?;

    let input_scale = f64::from(input_scale);
    let mut out =
        BiasQuant { codes: Vec::with_capacity(bias.len()), weights: weights.clone(), changed: vec![] };
    for (channel, (&p, &dead)) in weights.params().iter().zip(weights.dead()).enumerate() {
        let values = if shared { bias } else { bias.get(channel..=channel).unwrap_or(&[]) };
        let largest = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        if let Some((scale, reason)) = better_scale(largest, input_scale, p.scale(), dead, room) {
            out.weights.set_scale(channel, scale)?;
            out.changed.push(BiasChange { channel, from: p.scale(), to: scale, reason });
        }
        let scale = out.weights.params().get(channel).map_or(1.0, |p| f64::from(p.scale()));
        let step = input_scale * scale;
        out.codes.extend(values.iter().map(|&b| (f64::from(b) / step).round_ties_even() as i32));
    }
    Ok(out)
}

/// The weight scale to use instead of `scale` for a bias of magnitude `bias`, if another is better.
fn better_scale(
    bias: f32,
    input_scale: f64,
    scale: f32,
    dead: bool,
    room: u64,
) -> Option<(f32, BiasChangeReason)> {
    let bias = f64::from(bias);
    if dead {
        let wanted = bias / (input_scale * DEAD_CODES.min(room as f64));
        return (bias > 0.0).then(|| (round_up(wanted.max(DEAD_MIN_SCALE)), BiasChangeReason::Dead));
    }
    let least = bias / (input_scale * room as f64);
    (f64::from(scale) < least).then(|| (round_up(least), BiasChangeReason::Overflow))
}

/// The least float that is not below `x`.
fn round_up(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}
