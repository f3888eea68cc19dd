//! Ranges of weights, chosen on the data itself and one per channel.

use super::{ObserverError, mse_range_of_values};
use crate::quant::{ChannelLayout, Grid, QuantError, Range};
use serde::{Deserialize, Serialize};

/// How the range of a channel is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightRule {
    /// The extreme values: right for 8 bits.
    MinMax,
    /// Least quantisation error: right for 4 bits and less.
    Mse {
        /// Exponent of the error, usually 2.
        norm: f64,
    },
}

/// The range of finite values; [`Range::ZERO`] of none.
pub fn value_range(values: &[f32], rule: WeightRule, grid: Grid) -> Range {
    match rule {
        WeightRule::MinMax => {
            let extent = values.iter().fold(None, |extent: Option<Range>, &x| {
                let point = Range::spanning(x, x);
                Some(extent.map_or(point, |e| e.union(point)))
            });
            extent.unwrap_or(Range::ZERO)
        }
        WeightRule::Mse { norm } => mse_range_of_values(values, grid, norm),
    }
}

/// One range per channel along `axis` of a row-major tensor of `shape`.
///
/// # Errors
/// A bad axis or length, and a weight that is not finite: unlike an activation it cannot be left out.
pub fn channel_ranges(
    values: &[f32],
    shape: &[usize],
    axis: usize,
    rule: WeightRule,
    grid: Grid,
) -> Result<Vec<Range>, ObserverError> {
    let layout = ChannelLayout::new(shape, axis)?;
    layout.check(values.len())?;
    if let Some((index, &value)) = values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        return Err(QuantError::NonFinite { what: "weight", index, value }.into());
    }
    let mut channel: Vec<f32> = Vec::new();
    let ranges = (0..layout.channels()).map(|c| {
        channel.clear();
        layout.runs(values, c).for_each(|run| channel.extend_from_slice(run));
        value_range(&channel, rule, grid)
    });
    Ok(ranges.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{ChannelParams, IntRange};

    #[test]
    fn channels_of_either_axis() {
        let values = [1.0, -2.0, 3.0, -4.0, 5.0, -6.0];
        let ends = |axis| -> Vec<(f32, f32)> {
            let r = channel_ranges(&values, &[2, 3], axis, WeightRule::MinMax, Grid::S8_WEIGHT);
            r.expect("valid").iter().map(|r| (r.min(), r.max())).collect()
        };
        assert_eq!(ends(0), [(-2.0, 3.0), (-6.0, 5.0)]);
        assert_eq!(ends(1), [(-4.0, 1.0), (-2.0, 5.0), (-6.0, 3.0)]);
    }

    #[test]
    fn bad_weights_are_errors() {
        let at = |values: &[f32], axis| channel_ranges(values, &[1, 2], axis, WeightRule::MinMax, Grid::S8);
        let found = at(&[0.0, f32::INFINITY], 0);
        assert!(matches!(found, Err(ObserverError::Quant(QuantError::NonFinite { index: 1, .. }))));
        assert!(matches!(at(&[0.0], 0), Err(ObserverError::Quant(QuantError::Length { .. }))));
        assert!(matches!(at(&[0.0, 1.0], 2), Err(ObserverError::Quant(QuantError::BadAxis { .. }))));
    }

    #[test]
    fn least_error_beats_the_extremes_at_few_bits() {
        // Bell-shaped rows: 3 bits need clipping.
        let values: Vec<f32> = (0..4 * 500)
            .map(|i| {
                let u = ((i * 7919 % 500) as f32 + 0.5) / 500.0;
                (u / (1.0 - u)).ln() * (1 + i / 500) as f32
            })
            .collect();
        let grid = Grid { int: IntRange::new(3, true, true).expect("valid"), symmetric: true };
        let error = |rule| {
            let ranges = channel_ranges(&values, &[4, 500], 0, rule, grid).expect("valid");
            let fake =
                ChannelParams::from_ranges(&ranges, grid).fake_quant(&values, &[4, 500], 0).expect("valid");
            values.iter().zip(fake).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        assert!(error(WeightRule::Mse { norm: 2.0 }) < 0.7 * error(WeightRule::MinMax));
    }
}
