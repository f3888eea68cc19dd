//! Convolutions and batch normalisations, forward and backward.

use super::build::{Builder, Found, halo, layout};
use super::piece::{Gathered, Held, Home, Sample, Whole};
use super::sums::OpenSum;
use crate::plan::recipe::{norm_factors, shape_of_conv};
use crate::plan::slot::Slot;
use gs_eval::ExecError;
use gs_ir::{GlobalId, OpId, ValueId};
use gs_kernels::{
    Band, ConvF32, ConvHalos, ConvInputGrad, ConvShape, ConvWeightGrad, DepthwiseGrad, Moments, NO_CLIP,
};
use std::sync::Arc;

impl Builder<'_, '_> {
    /// The shape of a convolution between an image value and another, two-dimensional.
    pub(super) fn conv_shape(&self, op: OpId, x: ValueId, w: ValueId, y: ValueId) -> Option<ConvShape> {
        let weight = self.f32_dims(w)?;
        self.shape(op, &self.planner.slot(x)?.dims, &weight, &self.planner.slot(y)?.dims)
    }

    pub(super) fn weight_grad_shape(&self, op: OpId) -> Option<ConvShape> {
        let (dy, x) = (self.operand(op, 0)?, self.operand(op, 1)?);
        let weight = self.f32_dims(self.result(op))?;
        self.shape(op, &self.planner.slot(x)?.dims, &weight, &self.planner.slot(dy)?.dims)
    }

    pub(super) fn input_grad_shape(&self, op: OpId) -> Option<ConvShape> {
        self.conv_shape(op, self.result(op), self.operand(op, 1)?, self.operand(op, 0)?)
    }

    fn shape(&self, op: OpId, x: &[usize], weight: &[usize], y: &[usize]) -> Option<ConvShape> {
        shape_of_conv(self.attrs(op), x, weight, y)
    }

    pub(super) fn conv(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), Some(w), y) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let Some(shape) = self.conv_shape(op, x, w, y) else { return Ok(None) };
        let (Some(xs), Some(ys)) = (self.slot(x), self.slot(y)) else { return Ok(None) };
        let halos = ConvHalos { x: halo(&xs), y: halo(&ys), residual: None };
        let Ok(conv) = ConvF32::changing(self.kernels, &shape, &halos, NO_CLIP) else { return Ok(None) };
        let Some(from) = self.read_batch(x) else { return Ok(None) };
        let mut reads = vec![self.read_home(w)?];
        if let Some(bias) = self.operand(op, 2) {
            reads.push(self.read_home(bias)?);
        }
        let packed = self.new_home(Held::Conv(Box::new(conv)), None);
        self.whole(Some(op), Whole::PackConv, reads, vec![packed], None);
        let write = self.make_batch(y);
        self.sample(Some(op), Sample::Conv, vec![from], write, vec![packed], None);
        Ok(Some(()))
    }

    pub(super) fn conv_input_grad(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(dy), Some(w), dx) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let Some(shape) = self.input_grad_shape(op) else { return Ok(None) };
        let (Some(from), Some(to)) = (self.slot(dy), self.slot(dx)) else { return Ok(None) };
        let held = if shape.is_depthwise() {
            DepthwiseGrad::new(self.kernels, &shape, halo(&to), halo(&from))
                .map(|p| Held::DepthwiseGrad(Box::new(p)))
        } else {
            ConvInputGrad::new(self.kernels, &shape, halo(&from), halo(&to))
                .map(|p| Held::InputGrad(Box::new(p)))
        };
        let Ok(held) = held else { return Ok(None) };
        let Some(from) = self.read_batch(dy) else { return Ok(None) };
        let weights = self.read_home(w)?;
        let packed = self.new_home(held, None);
        self.whole(Some(op), Whole::PackInputGrad, vec![weights], vec![packed], None);
        let write = self.make_batch(dx);
        self.sample(Some(op), Sample::InputGrad, vec![from], write, vec![packed], None);
        Ok(Some(()))
    }

    pub(super) fn conv_weight_grad(&mut self, op: OpId) -> Found {
        let (dy, x, dw) = (self.operand(op, 0)?, self.operand(op, 1)?, self.result(op));
        let shape = self.weight_grad_shape(op)?;
        let halos = ConvHalos { x: halo(&self.slot(x)?), y: halo(&self.slot(dy)?), residual: None };
        if shape.is_depthwise() {
            let plan = Arc::new(DepthwiseGrad::new(self.kernels, &shape, halos.x, halos.y).ok()?);
            let reads = vec![self.read_batch(dy)?, self.read_batch(x)?];
            let part = Some(self.new_part(Gathered::Single(plan.sums_len())));
            self.sample(Some(op), Sample::DepthwiseWeightGrad(plan.clone()), reads, None, vec![], part);
            let home = self.make_home(dw)?;
            self.whole(Some(op), Whole::DepthwiseWeightGrad(plan), vec![], vec![home], part);
            return Some(());
        }
        let plan = Arc::new(ConvWeightGrad::new(self.kernels, &shape, &halos).ok()?);
        let reads = vec![self.read_batch(dy)?, self.read_batch(x)?];
        let part = Some(self.new_part(Gathered::Single(plan.sums_len())));
        self.sample(Some(op), Sample::WeightGrad(plan.clone()), reads, None, vec![], part);
        let home = self.make_home(dw)?;
        self.whole(Some(op), Whole::WeightGrad(plan), vec![], vec![home], part);
        Some(())
    }

    /// The slot of a value with channels that per-channel passes can see, and their number.
    pub(super) fn channels(&self, value: ValueId) -> Option<(Slot, usize)> {
        let slot = self.slot(value)?;
        let layout = layout(&slot);
        (slot.dims.first() == Some(&layout.c)).then_some((slot, layout.c))
    }

    /// A batch normalisation whose numbers stay as they are: a scale and a shift for each channel.
    pub(super) fn batch_norm(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), y) = (self.operand(op, 0), self.result(op)) else { return Ok(None) };
        let Some((slot, c)) = self.channels(x) else { return Ok(None) };
        let vectors: Option<Vec<ValueId>> = (1..5).map(|i| self.operand(op, i)).collect();
        let globals: Option<Vec<GlobalId>> =
            vectors.into_iter().flatten().map(|v| self.module.as_global(v)).collect();
        let Some(globals) = globals.filter(|g| g.len() == 4 && g.iter().all(|g| !self.updated.contains(g)))
        else {
            return Ok(None);
        };
        let mut numbers = Vec::with_capacity(4);
        for &g in &globals {
            let tensor = self.planner.materializer.tensor(g)?;
            let Some(v) = tensor.as_f32().filter(|v| v.len() == c) else { return Ok(None) };
            numbers.push(v.to_vec());
        }
        if self.slot(y).is_none_or(|s| s.dims != slot.dims) {
            return Ok(None);
        }
        let epsilon = f64::from(self.attrs(op).float("epsilon", 1e-5));
        let [gamma, beta, mean, var] = [0, 1, 2, 3].map(|i| numbers[i].as_slice());
        let (scale, shift) = norm_factors([gamma, beta, mean, var], epsilon);
        let band = Band::new(c);
        let mut bands = vec![0.0; 2 * band.len()];
        let (first, second) = bands.split_at_mut(band.len());
        band.fill(first, |c| scale[c]);
        band.fill(second, |c| shift[c]);
        let Some(from) = self.read_batch(x) else { return Ok(None) };
        let home = self.new_home(Held::Floats(bands), None);
        self.baked.extend(globals);
        Ok(self.add_sum(y, OpenSum::new(op, vec![(from, Some(home))], NO_CLIP)))
    }

    pub(super) fn batch_norm_train(&mut self, op: OpId) -> Result<Found, ExecError> {
        let Some(x) = self.operand(op, 0) else { return Ok(None) };
        let Some((slot, c)) = self.channels(x) else { return Ok(None) };
        let results = self.module.op(op).results().to_vec();
        let vectors: Option<Vec<ValueId>> = (1..5).map(|i| self.operand(op, i)).collect();
        let Some(vectors) = vectors.filter(|v| v.iter().all(|&v| self.f32_dims(v) == Some(vec![c]))) else {
            return Ok(None);
        };
        let &[y, ref statistics @ ..] = results.as_slice() else { return Ok(None) };
        if y.is_none() || self.slot(y).is_none_or(|s| s.dims != slot.dims) || statistics.len() != 4 {
            return Ok(None);
        }
        let Some(from) = self.read_batch(x) else { return Ok(None) };
        let mut reads = Vec::new();
        for v in vectors.into_iter().chain(self.operand(op, 5)) {
            reads.push(self.read_home(v)?);
        }
        let part = Some(self.new_part(Gathered::Double(Moments::len_of(c))));
        self.sample(Some(op), Sample::Moments, vec![from], None, vec![], part);
        let mut writes = Vec::new();
        for &v in statistics {
            let home = if v.is_none() { Some(self.floats_home(c)) } else { self.make_home(v) };
            writes.push(home.ok_or(ExecError::Undefined(v))?);
        }
        let affine = self.floats_home(2 * Band::new(c).len());
        writes.push(affine);
        let attrs = self.attrs(op);
        let (epsilon, keep) = (attrs.float("epsilon", 1e-5), attrs.float("momentum", 0.9));
        let kernel = Whole::Moments { epsilon: f64::from(epsilon), keep: f64::from(keep) };
        self.whole(Some(op), kernel, reads, writes, part);
        self.add_sum(y, OpenSum::new(op, vec![(from, Some(affine))], NO_CLIP));
        Ok(Some(()))
    }

    pub(super) fn batch_norm_grad(&mut self, op: OpId) -> Result<Found, ExecError> {
        let operands: Option<Vec<ValueId>> = (0..5).map(|i| self.operand(op, i)).collect();
        let Some(&[dy, x, scale, mean, inv_std]) = operands.as_deref() else { return Ok(None) };
        let Some((slot, c)) = self.channels(x) else { return Ok(None) };
        let vectors = [scale, mean, inv_std];
        let fits = vectors.iter().all(|&v| self.f32_dims(v) == Some(vec![c]))
            && self.slot(dy).is_some_and(|s| s.dims == slot.dims);
        let &[dx, dscale, dbias] = self.module.op(op).results() else { return Ok(None) };
        if !fits {
            return Ok(None);
        }
        let (Some(from), Some(at)) = (self.read_batch(dy), self.read_batch(x)) else { return Ok(None) };
        let mut reads = Vec::new();
        for v in vectors.into_iter().chain(self.operand(op, 5)) {
            reads.push(self.read_home(v)?);
        }
        let mean_band = self.band(reads[1], c);
        let part = Some(self.new_part(Gathered::Double(2 * c)));
        self.sample(Some(op), Sample::NormGradSums, vec![from, at], None, vec![mean_band], part);
        let mut writes = Vec::new();
        for v in [dscale, dbias] {
            let home = if v.is_none() { Some(self.floats_home(c)) } else { self.make_home(v) };
            writes.push(home.ok_or(ExecError::Undefined(v))?);
        }
        let factors = self.floats_home(3 * Band::new(c).len());
        writes.push(factors);
        let n = (self.planner.batch * slot.count() / c.max(1)) as f64;
        self.whole(Some(op), Whole::NormGrad { n }, reads, writes, part);
        if !dx.is_none() {
            let write = self.make_batch(dx);
            self.sample(Some(op), Sample::NormGradApply, vec![from, at], write, vec![factors], None);
        }
        Ok(Some(()))
    }

    /// Numbers per channel as a band.
    pub(super) fn band(&mut self, home: Home, channels: usize) -> Home {
        if let Some(&band) = self.bands.get(&home) {
            return band;
        }
        let band = self.floats_home(Band::new(channels).len());
        self.whole(None, Whole::Band, vec![home], vec![band], None);
        self.bands.insert(home, band);
        band
    }
}
