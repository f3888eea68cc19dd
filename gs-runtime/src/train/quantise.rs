//! Quantisers of training: rounding joins the sum that makes a value, and so does watching its range; the gradient that goes
//! straight through joins that of the relu before. Weights are rounded by themselves, between the regions.

use super::build::{Builder, Found, OpenSum};
use super::piece::{Batch, Channels, GateKind, Gathered, Home, Part, Rounded, Sample, Whole};
use crate::kernels::{FakeQuant, NO_CLIP, RELU};
use crate::plan::slot::{Code, Slot};
use gs_eval::ExecError;
use gs_eval::quant::CodeKind;
use gs_ir::{OpId, Use, ValueId};

/// An operation that watches the range of a sum.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    op: OpId,
    pub(super) part: Part,
}

/// A gradient on its way through a quantiser, which waits for the relu before that.
pub(super) struct OpenGrad {
    reads: Vec<Batch>,
    gate: GateKind,
    seen: Batch,
    grid: Option<Home>,
}

impl OpenGrad {
    /// The relu before the quantiser as well.
    pub(super) fn through_relu(mut self) -> Self {
        if self.gate == GateKind::Within {
            self.gate = GateKind::ReluWithin;
        }
        self
    }
}

/// Where gradients of a value pass that was rounded as it was made.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    gates: Batch,
}

/// What reads a value, the quantiser that is looked at and those that watch its range left out.
enum Readers {
    /// None.
    Nobody,
    /// Only its own gradient; `relu` if that goes on through the relu that makes the value.
    Gradient { relu: bool },
    /// Others.
    Others,
}

impl Builder<'_, '_> {
    /// The codes of a quantiser, if floats hold them.
    fn code_kind(&self, op: OpId) -> Option<CodeKind> {
        let attrs = self.attrs(op);
        let flag = |name| attrs.bool(name, false);
        let bits = u32::try_from(attrs.int("bits", 8)).ok()?;
        let [signed, symmetric, narrow] = ["signed", "symmetric", "narrow"].map(flag);
        (1..=FakeQuant::MAX_BITS).contains(&bits).then_some(CodeKind { bits, signed, symmetric, narrow })
    }

    /// How a range or the ranges of an operation lie over a tensor. An `axis` says so, if there is more than one.
    fn range_channels(&self, op: OpId, x: ValueId, range: ValueId) -> Option<Channels> {
        let (dims, ranges) = (self.f32_dims(x)?, self.f32_dims(range)?);
        let all = dims.iter().product::<usize>();
        (all > 0 && ranges.first() == Some(&2)).then_some(())?;
        match (&ranges[1..], self.attrs(op).get("axis")) {
            ([], _) | ([1], None) => Some(Channels { count: 1, plane: all }),
            (&[n], Some(_)) => {
                let axis = self.attrs(op).int("axis", 0);
                let axis = usize::try_from(if axis < 0 { axis + dims.len() as i64 } else { axis }).ok()?;
                let plane = dims.get(axis + 1..)?.iter().product();
                (dims[axis] == n).then_some(Channels { count: n, plane })
            }
            _ => None,
        }
    }

    /// Whether a value is one of the region's, or will be: images are, rows that come from elsewhere are not.
    fn is_of_samples(&self, value: ValueId) -> bool {
        self.batch_of.contains_key(&value)
            || self.open.contains_key(&value)
            || (self.home_of.contains_key(&value) && self.slot(value).is_some_and(|s| s.image().is_some()))
    }

    /// The home of the grids of ranges.
    fn grids(&mut self, range: ValueId, count: usize, kind: CodeKind) -> Result<Home, ExecError> {
        let home = self.read_home(range)?;
        let key = (home, kind.bits, [kind.signed, kind.symmetric, kind.narrow]);
        if let Some(&grids) = self.grids.get(&key) {
            return Ok(grids);
        }
        let grids = self.floats_home(count * FakeQuant::LEN);
        self.whole(None, Whole::Grids(kind), vec![home], vec![grids], None);
        self.grids.insert(key, grids);
        Ok(grids)
    }

    /// Whether a value is about to be rounded, and is read by nothing but that, what watches its range, and their
    /// gradients: then rounding may join what makes it.
    pub(super) fn is_rounded_next(&self, value: ValueId) -> bool {
        let names = ["fake_quant", "observe", "fake_quant_grad", "relu_grad"];
        let mut quantisers = 0;
        let fits = self.module.value(value).uses().iter().all(|u| match u {
            Use::Operand(user, place) => {
                let name = self.module.op_name(*user);
                quantisers += usize::from(name == "fake_quant");
                // As what is rounded or watched, or as what a gate looks at.
                let place_fits = *place == u32::from(name.ends_with("_grad"));
                names.contains(&name)
                    && place_fits
                    && (name != "fake_quant" || self.is_plain_quantiser(*user))
            }
            _ => false,
        });
        fits && quantisers == 1 && !self.planner.wanted.contains(&value) && self.slot(value).is_some()
    }

    /// One grid for the whole tensor, in few enough bits.
    fn is_plain_quantiser(&self, op: OpId) -> bool {
        let channels =
            self.operand(op, 0).zip(self.operand(op, 1)).and_then(|(x, r)| self.range_channels(op, x, r));
        channels.is_some_and(|c| c.count == 1) && self.code_kind(op).is_some()
    }

    /// Who reads a value but a quantiser of it.
    fn readers(&self, quantiser: OpId, x: ValueId, relu: bool) -> Readers {
        let mut found = Readers::Nobody;
        let of = |op: OpId| (self.operand(op, 1), self.code_kind(op));
        for u in self.module.value(x).uses() {
            let &Use::Operand(user, _) = u else { return Readers::Others };
            if user == quantiser || self.module.is(user, "observe") {
                continue;
            }
            match (self.module.op_name(user), &found) {
                ("fake_quant_grad", Readers::Nobody) => {
                    let own = (self.operand(user, 2), self.code_kind(user)) == of(quantiser);
                    let goes_on = relu && self.goes_through_relu(self.result(user), x);
                    if !own {
                        return Readers::Others;
                    }
                    found = Readers::Gradient { relu: goes_on };
                }
                // The gradient of a relu looks at the same value.
                ("relu_grad", _) if relu => {
                    let dy = self.operand(user, 0);
                    let from = dy
                        .and_then(|dy| self.module.producer(dy))
                        .filter(|&f| self.module.is(f, "fake_quant_grad") && self.operand(f, 1) == Some(x));
                    if from.is_none_or(|f| !self.goes_through_relu(self.result(f), x)) {
                        return Readers::Others;
                    }
                }
                _ => return Readers::Others,
            }
        }
        found
    }

    /// Whether a gradient goes on through the relu that makes `x`, and nowhere else.
    fn goes_through_relu(&self, gradient: ValueId, x: ValueId) -> bool {
        match self.module.only_use(gradient) {
            Some(Use::Operand(user, 0)) => {
                self.read_by(gradient, &["relu_grad"]) && self.operand(user, 1) == Some(x)
            }
            _ => false,
        }
    }

    pub(super) fn fake_quant(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), Some(range), y) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let Some((kind, channels)) = self.code_kind(op).zip(self.range_channels(op, x, range)) else {
            return Ok(None);
        };
        if !self.is_of_samples(x) {
            let reads = vec![self.read_home(x)?, self.grids(range, channels.count, kind)?];
            let Some(home) = self.make_home(y) else { return Ok(None) };
            self.whole(Some(op), Whole::FakeQuant(channels), reads, vec![home], None);
            return Ok(Some(()));
        }
        if channels.count != 1 || self.same(&[x, y]).is_none() {
            return Ok(None);
        }
        let grid = self.grids(range, 1, kind)?;
        Ok(self.round(op, x, y, grid))
    }

    fn round(&mut self, op: OpId, x: ValueId, y: ValueId, grid: Home) -> Found {
        let Some(sum) = self.open.remove(&x) else {
            let watch = self.waiting.remove(&x).into_iter().collect();
            let sum = OpenSum { watch, ..OpenSum::new(op, vec![(self.read_batch(x)?, None)], NO_CLIP) };
            let write = self.make_batch(y)?;
            self.push_sum(&sum, Some((Rounded::Only, grid)), write, None);
            return sum.watch.iter().try_for_each(|watch| self.push_ranges(*watch));
        };
        let (rounded, kept) = match self.readers(op, x, sum.clip == RELU) {
            Readers::Nobody => (Rounded::Only, None),
            Readers::Gradient { relu } => {
                let bytes = self.slot(x)?.len();
                let gates = self.new_batch(Slot::new(Code::F32, vec![bytes.div_ceil(4)]));
                self.kept.insert(x, Kept { gates });
                (Rounded::AndGate { positive: relu }, Some(gates))
            }
            Readers::Others => (Rounded::AndValue, Some(self.make_batch(x)?)),
        };
        let write = self.make_batch(y)?;
        self.push_sum(&sum, Some((rounded, grid)), write, kept);
        sum.watch.iter().try_for_each(|watch| self.push_ranges(*watch))
    }

    /// The new range of what watched a sum while it was made.
    fn push_ranges(&mut self, watch: Watch) -> Found {
        let (earlier, new) = (self.operand(watch.op, 1)?, self.result(watch.op));
        self.watching.remove(&new);
        let from = self.read_home(earlier).ok()?;
        let home = self.make_home(new)?;
        let decay = f64::from(self.attrs(watch.op).float("decay", 0.0));
        self.whole(Some(watch.op), Whole::Ranges { decay }, vec![from], vec![home], Some(watch.part));
        Some(())
    }

    /// What watched a sum that was made without being rounded looks at it now.
    pub(super) fn watch_all(&mut self, all: &[Watch], x: ValueId) -> Found {
        for &watch in all {
            let reads = vec![self.read_batch(x)?];
            self.sample(Some(watch.op), Sample::Range, reads, None, vec![], Some(watch.part));
            self.push_ranges(watch)?;
        }
        Some(())
    }

    pub(super) fn observe(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), Some(range), new) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let Some(channels) = self.range_channels(op, x, range) else { return Ok(None) };
        if !self.is_of_samples(x) {
            let reads = vec![self.read_home(x)?, self.read_home(range)?];
            let Some(home) = self.make_home(new) else { return Ok(None) };
            let decay = f64::from(self.attrs(op).float("decay", 0.0));
            self.whole(Some(op), Whole::Observe { decay, channels }, reads, vec![home], None);
            return Ok(Some(()));
        }
        if channels.count != 1 {
            return Ok(None);
        }
        self.read_home(range)?;
        let watch = Watch { op, part: self.new_part(Gathered::Range) };
        let later = !self.waiting.contains_key(&x) && self.will_be_rounded(op, x);
        let first = match self.open.get_mut(&x) {
            Some(sum) if sum.watch.is_empty() => {
                sum.watch.push(watch);
                true
            }
            // What is there already is looked at when it is rounded.
            None if later => {
                self.waiting.insert(x, watch);
                true
            }
            _ => false,
        };
        if first {
            self.watching.insert(new, x);
            return Ok(Some(()));
        }
        let found = self.read_batch(x).and_then(|_| self.watch_all(&[watch], x));
        Ok(found)
    }

    /// Whether a quantiser with one grid comes behind an operation.
    fn will_be_rounded(&self, op: OpId, x: ValueId) -> bool {
        self.module.user_ops(x).into_iter().any(|user| {
            self.module.is(user, "fake_quant")
                && self.is_plain_quantiser(user)
                && self.place.get(&user) > self.place.get(&op)
        })
    }

    pub(super) fn fake_quant_grad(&mut self, op: OpId) -> Result<Found, ExecError> {
        let operands: Option<Vec<ValueId>> = (0..3).map(|i| self.operand(op, i)).collect();
        let (Some(&[dy, x, range]), dx) = (operands.as_deref(), self.result(op)) else { return Ok(None) };
        let Some((kind, channels)) = self.code_kind(op).zip(self.range_channels(op, x, range)) else {
            return Ok(None);
        };
        if !self.is_of_samples(x) && !self.kept.contains_key(&x) {
            let reads =
                vec![self.read_home(dy)?, self.read_home(x)?, self.grids(range, channels.count, kind)?];
            let Some(home) = self.make_home(dx) else { return Ok(None) };
            self.whole(Some(op), Whole::FakeQuantGrad(channels), reads, vec![home], None);
            return Ok(Some(()));
        }
        if channels.count != 1 || self.same(&[dy, x, dx]).is_none() {
            return Ok(None);
        }
        let Some(reads) = self.gradients(dy) else { return Ok(None) };
        let grad = match self.kept.get(&x) {
            Some(kept) => OpenGrad { reads, gate: GateKind::Bytes, seen: kept.gates, grid: None },
            None => {
                let Some(seen) = self.read_batch(x) else { return Ok(None) };
                let grid = Some(self.grids(range, 1, kind)?);
                OpenGrad { reads, gate: GateKind::Within, seen, grid }
            }
        };
        if self.goes_through_relu(dx, x) {
            self.open_grads.insert(dx, grad);
            return Ok(Some(()));
        }
        Ok(self.close_grad(op, dx, grad))
    }

    /// The piece of a gradient through gates.
    pub(super) fn close_grad(&mut self, op: OpId, dx: ValueId, grad: OpenGrad) -> Found {
        let mut reads = grad.reads;
        reads.push(grad.seen);
        let write = self.make_batch(dx)?;
        let homes = grad.grid.into_iter().collect();
        self.sample(Some(op), Sample::Gated(grad.gate), reads, Some(write), homes, None);
        Some(())
    }
}
