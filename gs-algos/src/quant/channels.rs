//! Per-channel quantisation: one scale and zero point per index of one axis.

use super::{Grid, IntRange, QuantError, QuantParams, Range};

/// Where the channels of a row-major tensor lie: `outer` blocks of `channels` runs of `inner` values.
///
/// The axis of a convolution's weight `[O, I/groups, kh, kw]` is 0, of a transposed one `[I, O/g, kh, kw]`
/// it is 1, and of the constant right operand `[K, N]` of a matrix product it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelLayout {
    outer: usize,
    channels: usize,
    inner: usize,
}

impl ChannelLayout {
    /// The layout of `shape` for channels along `axis`.
    pub fn new(shape: &[usize], axis: usize) -> Result<Self, QuantError> {
        match (shape.get(..axis), shape.get(axis..)) {
            (Some(before), Some([channels, after @ ..])) => Ok(ChannelLayout {
                outer: before.iter().product(),
                channels: *channels,
                inner: after.iter().product(),
            }),
            _ => Err(QuantError::BadAxis { axis, rank: shape.len() }),
        }
    }

    /// Number of channels.
    pub fn channels(self) -> usize {
        self.channels
    }

    /// Checks that `len` elements fill the layout.
    pub fn check(self, len: usize) -> Result<(), QuantError> {
        let expected = self.outer.saturating_mul(self.channels).saturating_mul(self.inner);
        if len == expected {
            Ok(())
        } else {
            Err(QuantError::Length { what: "tensor", expected, found: len })
        }
    }

    /// The runs of one channel, in memory order.
    pub fn runs<T>(self, values: &[T], channel: usize) -> impl Iterator<Item = &[T]> {
        let inner = self.inner.max(1);
        values.chunks_exact(inner).skip(channel).step_by(self.channels.max(1))
    }

    /// All runs with their channel, in memory order.
    pub(crate) fn runs_mut<T>(self, values: &mut [T]) -> impl Iterator<Item = (usize, &mut [T])> {
        let channels = self.channels.max(1);
        values.chunks_exact_mut(self.inner.max(1)).enumerate().map(move |(i, run)| (i % channels, run))
    }
}

/// Scales and zero points along an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelParams {
    int: IntRange,
    params: Vec<QuantParams>,
    dead: Vec<bool>,
}

impl ChannelParams {
    /// One set of parameters per range. Dead channels (see [`Grid::is_dead`]) are decided one by one.
    pub fn from_ranges(ranges: &[Range], grid: Grid) -> Self {
        ChannelParams {
            int: grid.int,
            params: ranges.iter().map(|&range| grid.params(range)).collect(),
            dead: ranges.iter().map(|&range| grid.is_dead(range)).collect(),
        }
    }

    /// Parameters from outside; no channel counts as dead.
    pub fn from_parts(scales: &[f32], zero_points: &[i32], int: IntRange) -> Result<Self, QuantError> {
        if scales.len() != zero_points.len() {
            let (expected, found) = (scales.len(), zero_points.len());
            return Err(QuantError::Length { what: "zero points", expected, found });
        }
        let params = scales.iter().zip(zero_points).map(|(&s, &z)| QuantParams::new(s, z, int));
        let params = params.collect::<Result<Vec<_>, _>>()?;
        Ok(ChannelParams { int, dead: vec![false; params.len()], params })
    }

    /// The same parameters with these channels dead: one flag for each, or one for all.
    pub(crate) fn with_dead(mut self, dead: Vec<bool>) -> Self {
        match dead.as_slice() {
            [one] => self.dead = vec![*one; self.params.len()],
            all if all.len() == self.params.len() => self.dead = dead,
            _ => {}
        }
        self
    }

    /// The same parameters for a whole tensor.
    pub fn per_tensor(range: Range, grid: Grid) -> Self {
        Self::from_ranges(&[range], grid)
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// The codes, the same for all channels.
    pub fn int(&self) -> IntRange {
        self.int
    }

    /// The parameters, one per channel.
    pub fn params(&self) -> &[QuantParams] {
        &self.params
    }

    /// One flag per channel: it holds nothing but zeros (or values too small to scale).
    pub fn dead(&self) -> &[bool] {
        &self.dead
    }

    /// The scales, `[channels]`.
    pub fn scales(&self) -> Vec<f32> {
        self.params.iter().map(|p| p.scale()).collect()
    }

    /// The zero points, `[channels]`.
    pub fn zero_points(&self) -> Vec<i32> {
        self.params.iter().map(|p| p.zero_point()).collect()
    }

    /// Gives a channel another (positive, finite) scale.
    pub(super) fn set_scale(&mut self, channel: usize, scale: f32) -> Result<(), QuantError> {
        if let Some(p) = self.params.get_mut(channel) {
            *p = QuantParams::new(scale, p.zero_point(), p.int())?;
        }
        Ok(())
    }

    fn check(&self, layout: ChannelLayout, len: usize) -> Result<(), QuantError> {
        layout.check(len)?;
        if self.len() == layout.channels {
            Ok(())
        } else {
            Err(QuantError::Length { what: "scales", expected: layout.channels, found: self.len() })
        }
    }

    /// Codes of a row-major tensor of `shape` with channels along `axis`.
    pub fn quantize(&self, values: &[f32], shape: &[usize], axis: usize) -> Result<Vec<i32>, QuantError> {
        let layout = ChannelLayout::new(shape, axis)?;
        self.check(layout, values.len())?;
        let mut codes = vec![0; values.len()];
        for ((channel, out), run) in layout.runs_mut(&mut codes).zip(values.chunks_exact(layout.inner.max(1)))
        {
            if let Some(p) = self.params.get(channel) {
                let bounds = p.step_bounds();
                for (q, &x) in out.iter_mut().zip(run) {
                    *q = p.steps(x, bounds) as i32 + p.zero_point();
                }
            }
        }
        Ok(codes)
    }

    /// Values of the codes of a row-major tensor.
    pub fn dequantize(&self, codes: &[i32], shape: &[usize], axis: usize) -> Result<Vec<f32>, QuantError> {
        let layout = ChannelLayout::new(shape, axis)?;
        self.check(layout, codes.len())?;
        let mut values = vec![0.0; codes.len()];
        for ((channel, out), run) in layout.runs_mut(&mut values).zip(codes.chunks_exact(layout.inner.max(1)))
        {
            if let Some(p) = self.params.get(channel) {
                out.iter_mut().zip(run).for_each(|(x, &q)| *x = p.dequantize_one(q));
            }
        }
        Ok(values)
    }

    /// Replaces every value of a row-major tensor by the nearest one of its channel's grid.
    pub fn fake_quant_in_place(
        &self,
        values: &mut [f32],
        shape: &[usize],
        axis: usize,
    ) -> Result<(), QuantError> {
        let layout = ChannelLayout::new(shape, axis)?;
        self.check(layout, values.len())?;
        for (channel, run) in layout.runs_mut(values) {
            if let Some(p) = self.params.get(channel) {
                p.fake_quant_in_place(run);
            }
        }
        Ok(())
    }

    /// The nearest values of the channels' grids.
    pub fn fake_quant(&self, values: &[f32], shape: &[usize], axis: usize) -> Result<Vec<f32>, QuantError> {
        let mut out = values.to_vec();
        self.fake_quant_in_place(&mut out, shape, axis)?;
        Ok(out)
    }
}
