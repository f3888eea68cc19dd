//! Quantisers of training: rounding joins the sum that makes a value, and so does watching its range; the gradient through it
//! joins that of the relu before, and what a learned step or clip is given is summed on the way. Weights are rounded by
//! themselves, between the regions.

use super::build::{Builder, Found};
use super::piece::{Batch, Channels, GateKind, Gathered, Home, Part, Rounded, Sample, Whole};
use super::sums::OpenSum;
use crate::plan::grids::Grids;
use crate::plan::slot::{Code, Slot};
use gs_eval::ExecError;
use gs_ir::{Module, OpId, Use, ValueId};
use gs_kernels::{FakeQuant, Learned, NO_CLIP, RELU};

/// Operations that round, and the gradients through them.
const QUANTISERS: [&str; 3] = ["fake_quant", "lsq", "pact"];
const GRADIENTS: [&str; 3] = ["fake_quant_grad", "lsq_grad", "pact_grad"];

/// An operation that watches the range of a sum.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    op: OpId,
    pub(super) part: Part,
}

/// A gradient on its way through a quantiser, which waits for the relu before that.
pub(super) struct OpenGrad {
    op: OpId,
    reads: Vec<Batch>,
    gate: GateKind,
    seen: Batch,
    grid: Option<Home>,
    /// What a learned parameter is given: the value, and the factor of the sum.
    given: Option<(ValueId, f64)>,
}

impl OpenGrad {
    /// The relu before the quantiser as well.
    pub(super) fn through_relu(mut self) -> Self {
        self.gate = match self.gate {
            GateKind::Within => GateKind::ReluWithin,
            GateKind::Learned { learned, .. } => GateKind::Learned { learned, relu: true },
            other => other,
        };
        self
    }

    pub(super) fn op(&self) -> OpId {
        self.op
    }

    /// The gradient of the parameter.
    pub(super) fn parameter(&self) -> Option<ValueId> {
        self.given.map(|g| g.0)
    }
}

/// What the way back needs of a value that was rounded as it was made.
pub(super) enum Kept {
    /// Where gradients pass.
    Gates(Batch),
    /// The sum that the value was: it is made once more. What it is made of is there anyway, for the gradients of weights and
    /// of normalisations, and a buffer for the whole way would cost more than the pass.
    Sum(OpenSum),
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

/// Operations in an order in which what depends on a watched range (a choice between it and the earlier one) comes only when
/// it is read, or last: a range is there when the value is, and that may not be until it is rounded.
pub(super) fn ranges_last(module: &Module, ops: &[OpId]) -> Vec<OpId> {
    let of_range = |op: OpId| {
        module.is(op, "where")
            && module
                .op(op)
                .present_operands()
                .any(|v| module.producer(v).is_some_and(|p| module.is(p, "observe")))
    };
    let (mut ordered, mut held): (Vec<OpId>, Vec<OpId>) = (Vec::with_capacity(ops.len()), Vec::new());
    for &op in ops {
        let wanted = gs_eval::reads(module, op);
        let now = held.extract_if(.., |&mut h| module.op(h).results().iter().any(|v| wanted.contains(v)));
        ordered.extend(now);
        if of_range(op) { held.push(op) } else { ordered.push(op) }
    }
    ordered.extend(held);
    ordered
}

impl Builder<'_, '_> {
    /// How ranges (`rows` of them) or parameters lie over a tensor. An `axis` says so, if there is more than one.
    pub(super) fn laid_over(
        &self,
        op: OpId,
        x: ValueId,
        parameter: ValueId,
        rows: Option<usize>,
    ) -> Option<Channels> {
        let (dims, found) = (self.f32_dims(x)?, self.f32_dims(parameter)?);
        let all = dims.iter().product::<usize>();
        (all > 0).then_some(())?;
        let found = match rows {
            Some(rows) => found.strip_prefix(&[rows])?,
            None => &found,
        };
        match (found, self.attrs(op).get("axis")) {
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

    /// How the grids of a quantiser lie over what it rounds.
    fn grid_channels(&self, op: OpId, x: ValueId, parameter: ValueId) -> Option<(Grids, Channels)> {
        let grids = Grids::of(self.module, op)?;
        let rows = matches!(grids, Grids::OfRange(_)).then_some(2);
        Some((grids, self.laid_over(op, x, parameter, rows)?))
    }

    /// Whether a value is one of the region's, or will be: images are, rows that come from elsewhere are not.
    fn is_of_samples(&self, value: ValueId) -> bool {
        self.batch_of.contains_key(&value)
            || self.open.contains_key(&value)
            || (self.home_of.contains_key(&value) && self.slot(value).is_some_and(|s| s.image().is_some()))
    }

    /// The home of the grids of ranges or parameters.
    fn grids(&mut self, parameter: ValueId, count: usize, grids: Grids) -> Result<Home, ExecError> {
        let from = self.read_home(parameter)?;
        if let Some(made) = self.grids.iter().find(|g| (g.0, g.1) == (from, grids)) {
            return Ok(made.2);
        }
        let home = self.floats_home(count * FakeQuant::LEN);
        self.whole(None, Whole::Grids(grids), vec![from], vec![home], None);
        self.grids.push((from, grids, home));
        Ok(home)
    }

    /// Whether a value is about to be rounded, and is read by nothing but that, what watches its range, and their
    /// gradients: then rounding may join what makes it.
    pub(super) fn is_rounded_next(&self, value: ValueId) -> bool {
        let mut quantisers = 0;
        let fits = self.module.value(value).uses().iter().all(|u| match u {
            Use::Operand(user, place) => {
                let name = self.module.op_name(*user);
                quantisers += usize::from(QUANTISERS.contains(&name));
                match name {
                    "observe" => *place == 0,
                    // As what a gate looks at.
                    "relu_grad" => *place == 1,
                    name if GRADIENTS.contains(&name) => *place == 1,
                    _ => *place == 0 && self.is_plain_quantiser(*user),
                }
            }
            _ => false,
        });
        fits && quantisers == 1 && !self.planner.wanted.contains(&value) && self.slot(value).is_some()
    }

    /// One grid for the whole tensor, in few enough bits.
    fn is_plain_quantiser(&self, op: OpId) -> bool {
        let operands = self.operand(op, 0).zip(self.operand(op, 1));
        QUANTISERS.contains(&self.module.op_name(op))
            && operands.and_then(|(x, p)| self.grid_channels(op, x, p)).is_some_and(|(_, c)| c.count == 1)
    }

    /// Who reads a value but a quantiser of it.
    fn readers(&self, quantiser: OpId, x: ValueId, relu: bool) -> Readers {
        let mut found = Readers::Nobody;
        let of = |op: OpId| (self.operand(op, 1), Grids::of(self.module, op));
        for u in self.module.value(x).uses() {
            let &Use::Operand(user, _) = u else { return Readers::Others };
            if user == quantiser || self.module.is(user, "observe") {
                continue;
            }
            match (self.module.op_name(user), &found) {
                (name, Readers::Nobody) if GRADIENTS.contains(&name) => {
                    let own = (self.operand(user, 2), Grids::of(self.module, user)) == of(quantiser);
                    let goes_on = relu
                        && self
                            .module
                            .op(user)
                            .results()
                            .first()
                            .is_some_and(|&dx| self.goes_through_relu(dx, x));
                    if !own {
                        return Readers::Others;
                    }
                    found = Readers::Gradient { relu: goes_on };
                }
                // The gradient of a relu looks at the same value.
                ("relu_grad", _) if relu => {
                    let dy = self.operand(user, 0);
                    let from = dy.and_then(|dy| self.module.producer(dy));
                    let through = from.is_some_and(|f| {
                        GRADIENTS.contains(&self.module.op_name(f)) && self.operand(f, 1) == Some(x)
                    });
                    if !through || !dy.is_some_and(|dy| self.goes_through_relu(dy, x)) {
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

    pub(super) fn quantiser(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), Some(parameter), y) = (self.operand(op, 0), self.operand(op, 1), self.result(op))
        else {
            return Ok(None);
        };
        let Some((grids, channels)) = self.grid_channels(op, x, parameter) else { return Ok(None) };
        if !self.is_of_samples(x) {
            let reads = vec![self.read_home(x)?, self.grids(parameter, channels.count, grids)?];
            let Some(home) = self.make_home(y) else { return Ok(None) };
            self.whole(Some(op), Whole::FakeQuant(channels), reads, vec![home], None);
            return Ok(Some(()));
        }
        if channels.count != 1 || self.same(&[x, y]).is_none() {
            return Ok(None);
        }
        let grid = self.grids(parameter, 1, grids)?;
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
            Readers::Gradient { relu } if self.module.is(op, "fake_quant") => {
                let bytes = self.slot(x)?.len();
                let gates = self.new_batch(Slot::new(Code::F32, vec![bytes.div_ceil(4)]));
                self.kept.insert(x, Kept::Gates(gates));
                (Rounded::AndGate { positive: relu }, Some(gates))
            }
            // Where a parameter learns, how far off the value is must be known as well.
            Readers::Gradient { .. } => {
                let again = OpenSum::new(sum.op, sum.terms.clone(), sum.clip);
                self.kept.insert(x, Kept::Sum(again));
                (Rounded::Only, None)
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
        let Some(channels) = self.laid_over(op, x, range, Some(2)) else { return Ok(None) };
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
        self.module
            .user_ops(x)
            .into_iter()
            .any(|user| self.is_plain_quantiser(user) && self.place.get(&user) > self.place.get(&op))
    }

    pub(super) fn quantiser_grad(&mut self, op: OpId) -> Result<Found, ExecError> {
        let operands: Option<Vec<ValueId>> = (0..3).map(|i| self.operand(op, i)).collect();
        let (Some(&[dy, x, parameter]), Some(&dx)) =
            (operands.as_deref(), self.module.op(op).results().first())
        else {
            return Ok(None);
        };
        let Some((grids, channels)) = self.grid_channels(op, x, parameter) else { return Ok(None) };
        if dx.is_none() {
            return Ok(None);
        }
        let given = self.module.op(op).results().get(1).copied();
        let factor = self.gradient_factor(op, x, channels, grids);
        if !self.is_of_samples(x) && !self.kept.contains_key(&x) {
            let reads =
                vec![self.read_home(dy)?, self.read_home(x)?, self.grids(parameter, channels.count, grids)?];
            let Some(home) = self.make_home(dx) else { return Ok(None) };
            let kernel = match (grids, given) {
                (Grids::Learned { learned, .. }, Some(_)) => Whole::LearnedGrad { learned, channels, factor },
                _ => Whole::FakeQuantGrad(channels),
            };
            let mut writes = vec![home];
            if let Some(given) = given {
                let home = if given.is_none() {
                    Some(self.floats_home(channels.count))
                } else {
                    self.make_home(given)
                };
                writes.push(home.ok_or(ExecError::Undefined(given))?);
            }
            self.whole(Some(op), kernel, reads, writes, None);
            return Ok(Some(()));
        }
        if channels.count != 1 || self.same(&[dy, x, dx]).is_none() {
            return Ok(None);
        }
        let Some(reads) = self.gradients(dy) else { return Ok(None) };
        let seen = match self.kept.get(&x) {
            Some(&Kept::Gates(gates)) => {
                let gate = GateKind::Bytes;
                return Ok(self.pass_on(
                    dx,
                    x,
                    OpenGrad { op, reads, gate, seen: gates, grid: None, given: None },
                ));
            }
            Some(Kept::Sum(sum)) => {
                let sum = OpenSum::new(sum.op, sum.terms.clone(), sum.clip);
                let Some(slot) = self.slot(x) else { return Ok(None) };
                let again = self.new_batch(slot);
                self.push_sum(&sum, None, again, None);
                Some(again)
            }
            None => self.read_batch(x),
        };
        let Some(seen) = seen else { return Ok(None) };
        let gate = match grids {
            Grids::OfRange(_) => GateKind::Within,
            Grids::Learned { learned, .. } => GateKind::Learned { learned, relu: false },
        };
        let grid = Some(self.grids(parameter, 1, grids)?);
        let given = given.filter(|g| !g.is_none()).map(|g| (g, factor));
        Ok(self.pass_on(dx, x, OpenGrad { op, reads, gate, seen, grid, given }))
    }

    /// Lets the relu before a quantiser take its gradient, or makes it.
    fn pass_on(&mut self, dx: ValueId, x: ValueId, grad: OpenGrad) -> Found {
        if self.goes_through_relu(dx, x) {
            self.open_grads.insert(dx, grad);
            return Some(());
        }
        self.close_grad(grad.op, dx, grad)
    }

    /// What the sum of a learned parameter's gradient is multiplied by: 1 / sqrt(n * high), or nothing.
    fn gradient_factor(&self, op: OpId, x: ValueId, channels: Channels, grids: Grids) -> f64 {
        let (Grids::Learned { learned, high, .. }, Some(dims)) = (grids, self.f32_dims(x)) else {
            return 1.0;
        };
        let attrs = self.attrs(op);
        let by_sample = attrs.bool("samples", learned != Learned::Lsq);
        let all: usize = dims.iter().product();
        let n = if by_sample { dims.iter().skip(1).product() } else { all / channels.count.max(1) };
        if attrs.bool("grad_scale", true) { 1.0 / (n.max(1) as f64 * f64::from(high)).sqrt() } else { 1.0 }
    }

    /// The piece of a gradient through gates.
    pub(super) fn close_grad(&mut self, op: OpId, dx: ValueId, grad: OpenGrad) -> Found {
        let mut reads = grad.reads;
        reads.push(grad.seen);
        let write = self.make_batch(dx)?;
        let homes = grad.grid.into_iter().collect();
        let part = match grad.gate {
            GateKind::Learned { .. } => Some(self.new_part(Gathered::Double(1))),
            _ => None,
        };
        self.sample(Some(op), Sample::Gated(grad.gate), reads, Some(write), homes, part);
        if let Some((given, factor)) = grad.given {
            let home = self.make_home(given)?;
            self.whole(Some(grad.op), Whole::Sums(factor), vec![], vec![home], part);
        }
        Some(())
    }
}
