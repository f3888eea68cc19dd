//! Per-channel numbers of an integer product, computed when it is planned: the offset that stands for zero point and bias, and
//! the factor to the output.

use super::error::{KernelError, check_len};
use super::grid::{Grid, QOutput, check_scale};

/// Weights of an integer product as they come: codes, one scale or one per output channel, bias on the grid `s_x * s_w`.
#[derive(Clone, Copy, Debug)]
pub struct QWeights<'a> {
    /// Codes with zero point 0; the output channel is the first axis of a convolution.
    pub codes: &'a [i8],
    /// One scale, or one per output channel.
    pub scales: &'a [f32],
    /// One bias per output channel.
    pub bias: Option<&'a [i32]>,
}

impl QWeights<'_> {
    /// Refuses lengths and scales that do not fit `channels` output channels and `len` codes.
    pub(super) fn check(&self, channels: usize, len: usize) -> Result<(), KernelError> {
        check_len("weights", len, self.codes.len())?;
        if self.scales.len() != 1 {
            check_len("weight scales", channels, self.scales.len())?;
        }
        self.scales.iter().try_for_each(|&s| check_scale(s))?;
        if let Some(bias) = self.bias {
            check_len("bias", channels, bias.len())?;
        }
        Ok(())
    }

    fn scale(&self, channel: usize) -> f32 {
        if self.scales.len() == 1 { self.scales[0] } else { self.scales[channel] }
    }

    /// Bias less the input's zero point (as an unsigned code) times the sum of the channel's weights. Wraps, as sums do.
    pub(super) fn offset(&self, x: &Grid, channel: usize, codes: impl Iterator<Item = i8>) -> i32 {
        let sum = codes.fold(0i32, |sum, w| sum.wrapping_add(i32::from(w)));
        let zero = x.zero_point + x.code.bias();
        self.bias.map_or(0, |b| b[channel]).wrapping_sub(zero.wrapping_mul(sum))
    }

    /// The factor from the channel's integer sum to the output.
    pub(super) fn multiplier(&self, x: &Grid, out: &QOutput, channel: usize) -> f32 {
        out.multiplier(x.scale, self.scale(channel))
    }
}

/// The weight codes of one word: two as 16 bits, or four as 8 bits, first in the low bits.
pub(super) fn pack_word(codes_per_word: usize, code: impl Fn(usize) -> i8) -> u32 {
    if codes_per_word == 4 {
        u32::from_le_bytes(std::array::from_fn(|i| code(i) as u8))
    } else {
        let half = |i| u32::from(i16::from(code(i)) as u16);
        half(0) | half(1) << 16
    }
}
