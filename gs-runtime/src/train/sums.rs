//! Sums that stay open: what scales, adds, limits and rounds joins into one pass, and so do the gradients through it.

use super::build::{Builder, Found};
use super::piece::{Batch, GateKind, Home, Rounded, Sample, SamplePiece};
use super::quantise::Watch;
use crate::plan::slot::Slot;
use gs_ir::{OpId, Use, ValueId};
use gs_kernels::{Clip, NO_CLIP, RELU};

/// A sum that may still take further terms: batch values, each with the home of its scale and shift.
pub(super) struct OpenSum {
    pub(super) op: OpId,
    pub(super) terms: Vec<(Batch, Option<Home>)>,
    pub(super) clip: Clip,
    /// Who watches its range.
    pub(super) watch: Vec<Watch>,
}

impl OpenSum {
    pub(super) fn new(op: OpId, terms: Vec<(Batch, Option<Home>)>, clip: Clip) -> Self {
        Self { op, terms, clip, watch: Vec::new() }
    }
}

impl Builder<'_, '_> {
    /// Whether one operation of this name reads a value, and nothing else does.
    pub(super) fn read_by(&self, value: ValueId, names: &[&str]) -> bool {
        match self.module.only_use(value) {
            Some(Use::Operand(user, _)) => {
                names.contains(&self.module.op_name(user)) && !self.planner.wanted.contains(&value)
            }
            _ => false,
        }
    }

    /// A sum: kept open where an operation that may join it is its only reader.
    pub(super) fn add_sum(&mut self, value: ValueId, sum: OpenSum) -> Found {
        let joins: &[&str] = match (sum.clip == NO_CLIP, sum.terms.as_slice()) {
            (true, [_]) => &["add", "relu"],
            (true, [(_, None), (_, None)]) => {
                &["relu", "relu_grad", "fake_quant_grad", "lsq_grad", "pact_grad"]
            }
            (true, _) => &["relu"],
            (false, _) => &[],
        };
        if self.read_by(value, joins) || self.is_rounded_next(value) {
            self.open.insert(value, sum);
            return Some(());
        }
        self.close_sum(value, sum)
    }

    pub(super) fn close_sum(&mut self, value: ValueId, sum: OpenSum) -> Found {
        let write = self.make_batch(value)?;
        self.push_sum(&sum, None, write, None);
        self.watch_all(&sum.watch, value)
    }

    /// The piece of a sum. Several that watch its range look at it afterwards, one at once.
    pub(super) fn push_sum(
        &mut self,
        sum: &OpenSum,
        rounded: Option<(Rounded, Home)>,
        write: Batch,
        kept: Option<Batch>,
    ) {
        let affine = sum.terms.iter().map(|t| t.1.is_some()).collect();
        let homes = sum.terms.iter().filter_map(|t| t.1).chain(rounded.map(|r| r.1)).collect();
        let reads = sum.terms.iter().map(|t| t.0).collect();
        let part = match (rounded, sum.watch.first()) {
            (Some(_), Some(watch)) => Some(watch.part),
            _ => None,
        };
        let kernel = Sample::Sum { affine, clip: sum.clip, rounded: rounded.map(|r| r.0) };
        let (op, write) = (Some(sum.op), Some(write));
        self.schedule.sample(SamplePiece { op, kernel, reads, write, kept, homes, part, in_place: None });
    }

    /// A value that is an open sum is needed as it is.
    pub(super) fn settle(&mut self, value: ValueId) {
        if let Some(&seen) = self.watching.get(&value) {
            self.settle(seen);
        }
        // The gradient of a learned parameter comes with the gradient that goes on.
        let with =
            self.open_grads.iter().find(|(_, grad)| grad.parameter() == Some(value)).map(|(&dx, _)| dx);
        if let Some((dx, grad)) = with.and_then(|dx| Some((dx, self.open_grads.remove(&dx)?))) {
            let _ = self.close_grad(grad.op(), dx, grad);
        }
        if let Some(sum) = self.open.remove(&value) {
            // Values of open sums have slots: that was looked up when they were opened.
            let _ = self.close_sum(value, sum);
        } else if let Some(watch) = self.waiting.remove(&value) {
            let _ = self.watch_all(&[watch], value);
        }
    }

    /// Slots of the same extents.
    pub(super) fn same(&self, values: &[ValueId]) -> Option<Slot> {
        let mut slots = values.iter().map(|&v| self.slot(v));
        let first = slots.next()??;
        slots.all(|s| s.is_some_and(|s| s.dims == first.dims)).then_some(first)
    }

    pub(super) fn add_op(&mut self, op: OpId) -> Found {
        let (a, b, y) = (self.operand(op, 0)?, self.operand(op, 1)?, self.result(op));
        self.same(&[a, b, y])?;
        let mut terms = Vec::with_capacity(2);
        for v in [a, b] {
            let single = self.open.get(&v).is_some_and(|s| s.terms.len() == 1);
            match self.open.remove(&v) {
                Some(sum) if single => terms.extend(sum.terms),
                Some(sum) => {
                    self.close_sum(v, sum)?;
                    terms.push((self.read_batch(v)?, None));
                }
                None => terms.push((self.read_batch(v)?, None)),
            }
        }
        self.add_sum(y, OpenSum::new(op, terms, NO_CLIP))
    }

    pub(super) fn relu(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        self.same(&[x, y])?;
        let terms = match self.open.remove(&x) {
            Some(sum) => sum.terms,
            None => vec![(self.read_batch(x)?, None)],
        };
        self.add_sum(y, OpenSum::new(op, terms, RELU))
    }

    pub(super) fn relu_grad(&mut self, op: OpId) -> Found {
        let (dy, y, dx) = (self.operand(op, 0)?, self.operand(op, 1)?, self.result(op));
        self.same(&[dy, y, dx])?;
        if let Some(grad) = self.open_grads.remove(&dy) {
            return self.close_grad(op, dx, grad.through_relu());
        }
        let mut reads = self.gradients(dy)?;
        reads.push(self.read_batch(y)?);
        let write = self.make_batch(dx)?;
        self.sample(Some(op), Sample::Gated(GateKind::Relu), reads, Some(write), vec![], None);
        Some(())
    }

    /// A gradient, or the two whose sum it is where nothing else wants the sum.
    pub(super) fn gradients(&mut self, dy: ValueId) -> Option<Vec<Batch>> {
        let plain =
            |s: &OpenSum| s.clip == NO_CLIP && s.terms.len() == 2 && s.terms.iter().all(|t| t.1.is_none());
        match self.open.remove(&dy) {
            Some(sum) if plain(&sum) && sum.watch.is_empty() => Some(sum.terms.iter().map(|t| t.0).collect()),
            Some(sum) => {
                self.close_sum(dy, sum)?;
                Some(vec![self.read_batch(dy)?])
            }
            None => Some(vec![self.read_batch(dy)?]),
        }
    }
}
