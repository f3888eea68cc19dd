//! Gradients of pooling and of slices: where elements of a result came from.

use super::build::{Builder, Found};
use super::piece::Sample;
use crate::plan::recipe::{pads, pair, pair_or_one};
use gs_ir::OpId;
use gs_kernels::PoolShape;

impl Builder<'_, '_> {
    pub(super) fn pool_grad(&mut self, op: OpId) -> Found {
        let (dy, dx) = (self.operand(op, 0)?, self.result(op));
        let (from, to, attrs) = (self.slot(dy)?, self.slot(dx)?, self.attrs(op));
        let shape = PoolShape {
            x: *to.image()?,
            kernel: pair(attrs.ints("kernel_shape")?)?,
            stride: pair_or_one(attrs, "strides")?,
            pads: pads(attrs)?,
            dilation: pair_or_one(attrs, "dilations")?,
            ceil_mode: attrs.bool("ceil_mode", false),
            y_halo: from.image()?.halo,
        };
        let sound = shape.kernel.iter().chain(&shape.stride).chain(&shape.dilation).all(|&n| n > 0);
        (sound && shape.y() == *from.image()?).then_some(())?;
        let mut reads = vec![self.read_batch(dy)?];
        let kernel = if self.module.is(op, "max_pool_grad") {
            let x = self.operand(op, 1)?;
            self.same(&[x, dx])?;
            reads.push(self.read_batch(x)?);
            Sample::MaxPoolGrad(shape)
        } else {
            Sample::AveragePoolGrad { shape, count_pads: attrs.bool("count_include_pad", false) }
        };
        let write = self.make_batch(dx)?;
        self.sample(Some(op), kernel, reads, Some(write), vec![], None);
        Some(())
    }

    /// One number per channel to all pixels.
    pub(super) fn spread(&mut self, op: OpId) -> Found {
        let (dy, dx) = (self.operand(op, 0)?, self.result(op));
        let (from, to) = (self.slot(dy)?, self.slot(dx)?);
        let image = *to.image()?;
        let attrs = self.attrs(op);
        // Either the pixels' axes are there with extent 1, or they are inserted.
        let fits = match attrs.ints("axes") {
            None => from.dims == [image.c, 1, 1],
            Some(axes) => {
                let mut axes: Vec<i64> = axes.iter().map(|&a| if a < 0 { a + 4 } else { a }).collect();
                axes.sort_unstable();
                from.dims == [image.c] && axes == [2, 3]
            }
        };
        fits.then_some(())?;
        let factor = if attrs.bool("mean", false) { 1.0 / (image.h * image.w) as f32 } else { 1.0 };
        let from = self.read_batch(dy)?;
        let write = self.make_batch(dx)?;
        self.sample(Some(op), Sample::Spread(factor), vec![from], Some(write), vec![], None);
        Some(())
    }

    /// Where the elements of a slice's gradient go: the places that the slice reads.
    pub(super) fn slice_grad(&mut self, op: OpId) -> Found {
        let (dy, dx) = (self.operand(op, 0)?, self.result(op));
        let (from, to, attrs) = (self.slot(dy)?, self.slot(dx)?, self.attrs(op));
        let rank = to.dims.len() + 1;
        let (starts, ends) = (attrs.ints("starts")?, attrs.ints("ends")?);
        let axes: Vec<i64> =
            attrs.ints("axes").map_or_else(|| (0..starts.len() as i64).collect(), <[i64]>::to_vec);
        let mut picked: Vec<Vec<usize>> = to.dims.iter().map(|&d| (0..d).collect()).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
            let step = attrs.ints("steps").map_or(Some(1), |s| s.get(i).copied())?;
            let (&start, &end) = (starts.get(i)?, ends.get(i)?);
            let extent = if axis == 0 { self.planner.batch } else { *to.dims.get(axis - 1)? } as i64;
            let at = |v: i64| if v < 0 { v.saturating_add(extent) } else { v }.clamp(0, extent);
            (step > 0).then_some(())?;
            let places: Vec<usize> =
                (at(start)..at(end)).step_by(step as usize).map(|v| v as usize).collect();
            match axis.checked_sub(1) {
                // Samples must stay where they are.
                None => (places.len() == self.planner.batch).then_some(())?,
                Some(axis) => picked[axis] = places,
            }
        }
        (picked.iter().map(Vec::len).eq(from.dims.iter().copied())).then_some(())?;
        u32::try_from(to.len()).ok()?;
        let mut to_place = vec![u32::MAX; from.len()];
        for index in 0..from.count() {
            let (mut rest, mut place, mut stride) = (index, 0, 1);
            for (picked, &extent) in picked.iter().zip(&to.dims).rev() {
                place += picked[rest % picked.len()] * stride;
                rest /= picked.len();
                stride *= extent;
            }
            to_place[from.offset(index)] = to.offset(place) as u32;
        }
        let from = self.read_batch(dy)?;
        let write = self.make_batch(dx)?;
        self.sample(Some(op), Sample::Scatter(to_place), vec![from], Some(write), vec![], None);
        Some(())
    }
}
