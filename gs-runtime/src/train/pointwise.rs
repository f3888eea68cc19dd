//! Functions of one or two values, element by element, and sums over pixels or channels.

use super::build::{Builder, Found};
use super::piece::{Gathered, Sample, Whole};
use crate::plan::kernel::Kernel;
use crate::plan::plain::Plain;
use gs_eval::ExecError;
use gs_ir::{ElemType, OpId, ValueId};
use gs_kernels::{Binary, NO_CLIP, Unary};

impl Builder<'_, '_> {
    /// Two values of the same extents that are no samples: gradients of a shared weight, terms of a loss.
    pub(super) fn of_wholes(&mut self, op: OpId, function: Binary) -> Result<Found, ExecError> {
        let (Some(a), Some(b), y) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let dims = self.f32_dims(y);
        if dims.is_none() || [a, b].iter().any(|&v| self.f32_dims(v) != dims) {
            return Ok(None);
        }
        let reads = vec![self.read_home(a)?, self.read_home(b)?];
        let Some(home) = self.make_home(y) else { return Ok(None) };
        self.whole(Some(op), Whole::Binary(function), reads, vec![home], None);
        Ok(Some(()))
    }

    /// The limits of a parameter that was changed.
    pub(super) fn clip_of_whole(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), y) = (self.operand(op, 0), self.result(op)) else { return Ok(None) };
        let attrs = self.attrs(op);
        let limits = (attrs.float("min", f32::NEG_INFINITY), attrs.float("max", f32::INFINITY));
        let dims = self.f32_dims(y);
        if dims.is_none() || self.f32_dims(x) != dims || self.batch_of.contains_key(&x) {
            return Ok(None);
        }
        let reads = vec![self.read_home(x)?];
        let Some(home) = self.make_home(y) else { return Ok(None) };
        self.whole(Some(op), Whole::Clip(limits), reads, vec![home], None);
        Ok(Some(()))
    }

    /// One of two values of the same extents, as one truth value says.
    pub(super) fn choose(&mut self, op: OpId) -> Result<Found, ExecError> {
        let operands: Option<Vec<ValueId>> = (0..3).map(|i| self.operand(op, i)).collect();
        let (Some(&[which, a, b]), y) = (operands.as_deref(), self.result(op)) else { return Ok(None) };
        let one = self
            .extents_of(which)
            .is_some_and(|e| e.elem == ElemType::Bool && e.dims.iter().product::<usize>() == 1);
        let dims = self.f32_dims(y);
        if !one || dims.is_none() || [a, b].iter().any(|&v| self.f32_dims(v) != dims) {
            return Ok(None);
        }
        let of_samples = |v: &ValueId| self.batch_of.contains_key(v) || self.open.contains_key(v);
        let by_samples = [a, b].iter().any(of_samples);
        let which = self.read_home(which)?;
        if by_samples {
            if self.same(&[a, b, y]).is_none() {
                return Ok(None);
            }
            let (Some(first), Some(second)) = (self.read_batch(a), self.read_batch(b)) else {
                return Ok(None);
            };
            let write = self.make_batch(y);
            self.sample(Some(op), Sample::Choose, vec![first, second], write, vec![which], None);
            return Ok(Some(()));
        }
        let reads = vec![which, self.read_home(a)?, self.read_home(b)?];
        let Some(home) = self.make_home(y) else { return Ok(None) };
        self.whole(Some(op), Whole::Choose, reads, vec![home], None);
        Ok(Some(()))
    }

    pub(super) fn unary(&mut self, op: OpId, function: Unary) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        self.same(&[x, y])?;
        let reads = vec![self.read_batch(x)?];
        let write = self.make_batch(y)?;
        self.sample(Some(op), Sample::Unary(function), reads, Some(write), vec![], None);
        Some(())
    }

    pub(super) fn binary(&mut self, op: OpId, function: Binary) -> Found {
        let (a, b, y) = (self.operand(op, 0)?, self.operand(op, 1)?, self.result(op));
        if let Some(found) = self.with_number(op, function, a, b) {
            return Some(found);
        }
        self.same(&[a, b, y])?;
        let reads = vec![self.read_batch(a)?, self.read_batch(b)?];
        let write = self.make_batch(y)?;
        self.sample(Some(op), Sample::Binary(function), reads, Some(write), vec![], None);
        Some(())
    }

    /// A difference or a quotient with a number that stays as it is: a scale and a shift.
    pub(super) fn with_number(&mut self, op: OpId, function: Binary, a: ValueId, b: ValueId) -> Found {
        let (x, constant) = if self.module.as_global(a).is_some() { (b, a) } else { (a, b) };
        let global = self.module.as_global(constant).filter(|g| !self.updated.contains(g))?;
        let slot = self.same(&[x, self.result(op)])?;
        let dims = self.f32_dims(constant)?;
        (dims.iter().product::<usize>() == 1 && dims.len() <= slot.dims.len() + 1).then_some(())?;
        let number = *self.planner.materializer.tensor(global).ok()?.as_f32()?.first()?;
        let (scale, shift) = match function {
            Binary::Sub if x == a => (1.0, -number),
            Binary::Sub => (-1.0, number),
            Binary::Div if x == a => (1.0 / number, 0.0),
            _ => return None,
        };
        let channels = slot.image().map_or(slot.dims.last().copied().unwrap_or(1), |i| i.c);
        let plain =
            Plain::Affine { scale: vec![scale; channels], shift: vec![shift; channels], clip: NO_CLIP };
        let kernel = Box::new(Kernel::Plain(plain));
        let reads = vec![self.read_batch(x)?];
        let write = self.make_batch(self.result(op))?;
        self.baked.insert(global);
        self.sample(Some(op), Sample::Forward(kernel), reads, Some(write), vec![], None);
        Some(())
    }

    /// A sum or a mean over the pixels of an image.
    pub(super) fn sum_pixels(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        let (from, to) = (self.slot(x)?, self.slot(y)?);
        let image = *from.image()?;
        let mut axes: Vec<i64> =
            self.attrs(op).ints("axes")?.iter().map(|&a| if a < 0 { a + 4 } else { a }).collect();
        axes.sort_unstable();
        (axes == [2, 3] && to.count() == image.c).then_some(())?;
        let mean = self.module.is(op, "reduce_mean");
        let factor = if mean { 1.0 / (image.h * image.w) as f32 } else { 1.0 };
        let reads = vec![self.read_batch(x)?];
        let write = self.make_batch(y)?;
        self.sample(Some(op), Sample::SumPixels(factor), reads, Some(write), vec![], None);
        Some(())
    }

    /// Sums per channel of a value to another that has one element for each.
    pub(super) fn channel_sums(&mut self, op: OpId, x: ValueId, y: ValueId) -> Found {
        let (_, c) = self.channels(x)?;
        let from = self.read_batch(x)?;
        let part = Some(self.new_part(Gathered::Double(c)));
        self.sample(Some(op), Sample::ChannelSums, vec![from], None, vec![], part);
        let home = self.make_home(y)?;
        self.whole(Some(op), Whole::Sums(1.0), vec![], vec![home], part);
        Some(())
    }

    pub(super) fn reduce_sum(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        let rank = self.slot(x)?.dims.len() as i64 + 1;
        let mut axes = self.attrs(op).ints("axes")?.to_vec();
        axes.iter_mut().for_each(|a| *a += if *a < 0 { rank } else { 0 });
        axes.sort_unstable();
        axes.eq(&(0..rank).filter(|&a| a != 1).collect::<Vec<_>>()).then_some(())?;
        self.channel_sums(op, x, y)
    }

    pub(super) fn unbroadcast(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        let (slot, c) = self.channels(x)?;
        let (rank, dims) = (slot.dims.len() + 1, self.f32_dims(y)?);
        // The channel axis counts from the right, as broadcasting does.
        let kept = |(i, &d): (usize, &usize)| d == if i + rank - dims.len() == 1 { c } else { 1 };
        (dims.len() <= rank && dims.iter().product::<usize>() == c && dims.iter().enumerate().all(kept))
            .then_some(())?;
        self.channel_sums(op, x, y)
    }
}
