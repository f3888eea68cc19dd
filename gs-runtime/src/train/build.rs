//! From the operations of a graph to pieces: which kernels run an operation, what is fused, and what is left to the
//! reference evaluator.

use super::piece::{
    Batch, BatchValue, Extents, GateKind, Gathered, Held, Home, Part, Product, Rounded, Sample, SamplePiece,
    Whole, WholePiece,
};
use super::quantise::{Grids, Kept, OpenGrad, Watch};
use super::schedule::{Schedule, StageDraft};
use crate::kernels::{
    Band, Binary, Clip, ConvF32, ConvHalos, ConvInputGrad, ConvShape, ConvWeightGrad, DepthwiseGrad, Halo,
    ImageLayout, Kernels, Moments, NO_CLIP, PoolShape, RELU, Unary,
};
use crate::plan::build::Planner;
use crate::plan::kernel::Kernel;
use crate::plan::plain::Plain;
use crate::plan::recipe::{Recipe, norm_factors, pads, pair, pair_or_one};
use crate::plan::slot::{Code, Layout, Slot};
use gs_eval::{ExecError, OpPlan};
use gs_ir::{AttrSet, ElemType, GlobalId, Module, OpId, Use, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

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

/// Makes the pieces of a graph.
pub(super) struct Builder<'b, 'm> {
    pub(super) planner: &'b mut Planner<'m>,
    pub(super) module: &'m Module,
    kernels: Kernels,
    /// Globals that the graph stores to.
    updated: FxHashSet<GlobalId>,
    /// Where each operation stands.
    pub(super) place: FxHashMap<OpId, usize>,
    pub(super) values: Vec<BatchValue>,
    pub(super) batch_of: FxHashMap<ValueId, Batch>,
    pub(super) homes: Vec<Held>,
    /// Of homes that are values.
    pub(super) extents: Vec<Option<Extents>>,
    pub(super) home_of: FxHashMap<ValueId, Home>,
    pub(super) globals: FxHashMap<GlobalId, Home>,
    /// Constants that kernels were made from.
    pub(super) baked: FxHashSet<GlobalId>,
    pub(super) sums: Vec<Gathered>,
    pub(super) schedule: Schedule<'m>,
    /// Operations that the reference evaluator runs.
    pub(super) fallbacks: Vec<OpId>,
    /// The halo of images of these extents.
    halos: FxHashMap<Vec<usize>, Halo>,
    pub(super) open: FxHashMap<ValueId, OpenSum>,
    /// Gradients that the relu before a quantiser will take.
    pub(super) open_grads: FxHashMap<ValueId, OpenGrad>,
    /// What was kept of values that were rounded as they were made.
    pub(super) kept: FxHashMap<ValueId, Kept>,
    /// The value whose range a value is that is not made yet.
    pub(super) watching: FxHashMap<ValueId, ValueId>,
    /// Who watches the range of a value that is there already, until it is rounded.
    pub(super) waiting: FxHashMap<ValueId, Watch>,
    /// The grids of ranges and parameters.
    pub(super) grids: Vec<(Home, Grids, Home)>,
    bands: FxHashMap<Home, Home>,
}

/// What a kernel for an operation was found to be.
pub(super) type Found = Option<()>;

impl<'b, 'm> Builder<'b, 'm> {
    pub(super) fn new(planner: &'b mut Planner<'m>, updated: FxHashSet<GlobalId>, ops: &[OpId]) -> Self {
        let (module, kernels) = (planner.module, planner.kernels);
        let mut builder = Self {
            planner,
            module,
            kernels,
            updated,
            place: ops.iter().enumerate().map(|(i, &op)| (op, i)).collect(),
            values: Vec::new(),
            batch_of: FxHashMap::default(),
            homes: Vec::new(),
            extents: Vec::new(),
            home_of: FxHashMap::default(),
            globals: FxHashMap::default(),
            baked: FxHashSet::default(),
            sums: Vec::new(),
            schedule: Schedule::default(),
            fallbacks: Vec::new(),
            halos: FxHashMap::default(),
            open: FxHashMap::default(),
            open_grads: FxHashMap::default(),
            kept: FxHashMap::default(),
            watching: FxHashMap::default(),
            waiting: FxHashMap::default(),
            grids: Vec::new(),
            bands: FxHashMap::default(),
        };
        ops.iter().for_each(|&op| {
            builder.want_halos(op);
        });
        builder
    }

    /// Images of equal extents get one layout, so that their buffers can be shared and element-wise passes need not look.
    fn want_halos(&mut self, op: OpId) -> Found {
        let (operand, shape, halo) = match self.module.op_name(op) {
            "conv" => {
                let shape =
                    self.conv_shape(op, self.operand(op, 0)?, self.operand(op, 1)?, self.result(op))?;
                (0, shape, halo_of(shape.pads))
            }
            "conv_weight_grad" => {
                let shape = self.weight_grad_shape(op)?;
                (1, shape, halo_of(shape.pads))
            }
            "conv_input_grad" => {
                let shape = self.input_grad_shape(op).filter(|s| !s.is_depthwise())?;
                (0, shape, ConvInputGrad::halo(&shape))
            }
            _ => return None,
        };
        let _ = shape;
        let dims = self.planner.slot(self.operand(op, operand)?)?.dims;
        let all = self.halos.entry(dims).or_default();
        *all = Halo {
            top: all.top.max(halo.top),
            left: all.left.max(halo.left),
            bottom: all.bottom.max(halo.bottom),
            right: all.right.max(halo.right),
        };
        Some(())
    }

    // ---- values ----

    pub(super) fn operand(&self, op: OpId, i: usize) -> Option<ValueId> {
        self.module.op(op).operand(i)
    }

    pub(super) fn result(&self, op: OpId) -> ValueId {
        self.module.op(op).result()
    }

    pub(super) fn attrs(&self, op: OpId) -> &'m AttrSet {
        self.module.attrs_of(op)
    }

    fn extents_of(&self, value: ValueId) -> Option<Extents> {
        let ty = self.module.type_of(value).as_tensor()?;
        let dims = ty.dims()?.iter().map(|d| {
            d.eval(&|s| self.planner.symbols.get(&s).copied()).and_then(|n| usize::try_from(n).ok())
        });
        Some(Extents { elem: ty.elem, dims: dims.collect::<Option<_>>()? })
    }

    pub(super) fn f32_dims(&self, value: ValueId) -> Option<Vec<usize>> {
        self.extents_of(value).filter(|e| e.elem == ElemType::F32).map(|e| e.dims)
    }

    /// How the samples of a value lie, if it can be a batch of floats.
    pub(super) fn slot(&self, value: ValueId) -> Option<Slot> {
        self.module.as_global(value).is_none().then_some(())?;
        let mut slot = self.planner.slot(value).filter(|s| s.code == Code::F32)?;
        if let Some(&halo) = self.halos.get(&slot.dims) {
            slot.widen(halo);
        }
        Some(slot)
    }

    pub(super) fn new_batch(&mut self, slot: Slot) -> Batch {
        self.values.push(BatchValue { slot });
        self.values.len() - 1
    }

    fn new_home(&mut self, held: Held, extents: Option<Extents>) -> Home {
        self.homes.push(held);
        self.extents.push(extents);
        self.homes.len() - 1
    }

    pub(super) fn floats_home(&mut self, len: usize) -> Home {
        self.new_home(Held::Floats(vec![0.0; len]), None)
    }

    pub(super) fn new_part(&mut self, gathered: Gathered) -> Part {
        self.sums.push(gathered);
        self.sums.len() - 1
    }

    /// A new batch value that is this value from now on.
    pub(super) fn make_batch(&mut self, value: ValueId) -> Option<Batch> {
        let slot = self.slot(value)?;
        let batch = self.new_batch(slot);
        self.batch_of.insert(value, batch);
        Some(batch)
    }

    /// The home of a float result that is no batch.
    pub(super) fn make_home(&mut self, value: ValueId) -> Option<Home> {
        let extents = self.extents_of(value)?;
        let home = self.new_home(Held::Floats(vec![0.0; extents.dims.iter().product()]), Some(extents));
        self.home_of.insert(value, home);
        Some(home)
    }

    /// A value as a batch: made by a sample kernel, or brought in from its home.
    pub(super) fn read_batch(&mut self, value: ValueId) -> Option<Batch> {
        self.settle(value);
        if let Some(&batch) = self.batch_of.get(&value) {
            return Some(batch);
        }
        let home = *self.home_of.get(&value)?;
        let batch = self.make_batch(value)?;
        self.sample(None, Sample::Enter, vec![], Some(batch), vec![home], None);
        Some(batch)
    }

    /// A value as it lies in files.
    ///
    /// # Errors
    /// Contents of a global that cannot be made; a value that nothing makes.
    pub(super) fn read_home(&mut self, value: ValueId) -> Result<Home, ExecError> {
        self.settle(value);
        if let Some(&home) = self.home_of.get(&value) {
            return Ok(home);
        }
        if let Some(global) = self.module.as_global(value) {
            let tensor = self.planner.materializer.tensor(global)?;
            let extents = Extents { elem: tensor.elem(), dims: tensor.dims().to_vec() };
            let held = match tensor.as_f32() {
                Some(v) if extents.elem == ElemType::F32 => Held::Floats(v.to_vec()),
                _ => Held::Tensor(tensor),
            };
            let home = self.new_home(held, Some(extents));
            self.home_of.insert(value, home);
            self.globals.insert(global, home);
            return Ok(home);
        }
        let batch = *self.batch_of.get(&value).ok_or(ExecError::Undefined(value))?;
        let home = self.make_home(value).ok_or(ExecError::Undefined(value))?;
        self.whole(None, Whole::Leave(batch), vec![], vec![home], None);
        Ok(home)
    }

    /// An input of the graph, which a run puts into its home.
    pub(super) fn input(&mut self, value: ValueId) -> Home {
        let extents = self.extents_of(value);
        let home = self.new_home(Held::Empty, extents);
        self.home_of.insert(value, home);
        home
    }

    pub(super) fn sample(
        &mut self,
        op: Option<OpId>,
        kernel: Sample,
        reads: Vec<Batch>,
        write: Option<Batch>,
        homes: Vec<Home>,
        part: Option<Part>,
    ) {
        self.schedule.sample(SamplePiece {
            op,
            kernel,
            reads,
            write,
            kept: None,
            homes,
            part,
            in_place: None,
        });
    }

    pub(super) fn whole(
        &mut self,
        op: Option<OpId>,
        kernel: Whole<'m>,
        reads: Vec<Home>,
        writes: Vec<Home>,
        part: Option<Part>,
    ) {
        self.schedule.whole(WholePiece { op, kernel, reads, writes, part });
    }

    // ---- sums ----

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

    fn close_sum(&mut self, value: ValueId, sum: OpenSum) -> Found {
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
    fn settle(&mut self, value: ValueId) {
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

    // ---- operations ----

    /// Adds an operation.
    ///
    /// # Errors
    /// Contents of a constant that cannot be made; no kernel and no evaluation.
    pub(super) fn add(&mut self, op: OpId) -> Result<(), ExecError> {
        if self.by_name(op)?.is_some() || self.forward(op)?.is_some() {
            return Ok(());
        }
        let plan = OpPlan::new(self.planner.reference, self.module, op, &self.planner.taps)?;
        let mut reads = Vec::with_capacity(plan.reads().len());
        for &v in plan.reads() {
            reads.push(self.read_home(v)?);
        }
        let mut writes = Vec::new();
        for &v in self.module.op(op).results() {
            let extents = if v.is_none() { None } else { self.extents_of(v) };
            let home = self.new_home(Held::Empty, extents);
            if !v.is_none() {
                self.home_of.insert(v, home);
            }
            writes.push(home);
        }
        self.fallbacks.push(op);
        self.whole(Some(op), Whole::Eval(Box::new(plan)), reads, writes, None);
        Ok(())
    }

    fn by_name(&mut self, op: OpId) -> Result<Found, ExecError> {
        match self.module.op_name(op) {
            "conv" => self.conv(op),
            "conv_input_grad" => self.conv_input_grad(op),
            "conv_weight_grad" => Ok(self.conv_weight_grad(op)),
            "batch_norm_train" => self.batch_norm_train(op),
            "batch_norm_grad" => self.batch_norm_grad(op),
            "add" => match self.add_op(op) {
                None => self.of_wholes(op, Binary::Add),
                found => Ok(found),
            },
            "relu" => Ok(self.relu(op)),
            "relu_grad" => Ok(self.relu_grad(op)),
            "fake_quant" | "lsq" | "pact" => self.quantiser(op),
            "fake_quant_grad" | "lsq_grad" | "pact_grad" => self.quantiser_grad(op),
            "observe" => self.observe(op),
            "dorefa" | "dorefa_grad" | "slb" | "slb_train" | "slb_grad" => self.weight_on_levels(op),
            "batch_norm" => self.batch_norm(op),
            "reduce_sum" => Ok(self.reduce_sum(op).or_else(|| self.sum_pixels(op))),
            "reduce_mean" => Ok(self.sum_pixels(op)),
            "sub" => Ok(self.binary(op, Binary::Sub)),
            "div" => Ok(self.binary(op, Binary::Div)),
            "clip" => match self.forward(op)? {
                None => self.clip_of_whole(op),
                found => Ok(found),
            },
            "where" => self.choose(op),
            "clip_grad" => {
                let attrs = self.attrs(op);
                let limits = (attrs.float("min", f32::NEG_INFINITY), attrs.float("max", f32::INFINITY));
                Ok(self.binary(op, Binary::Within(limits.0, limits.1)))
            }
            "unbroadcast" => Ok(self.unbroadcast(op)),
            "average_pool_grad" | "max_pool_grad" => Ok(self.pool_grad(op)),
            "broadcast" => Ok(self.spread(op)),
            "slice_grad" => Ok(self.slice_grad(op)),
            "gemm" | "matmul" => self.product(op),
            "transpose" => self.swap(op),
            "cross_entropy" | "cross_entropy_grad" => self.cross_entropy(op),
            "sgd" | "adamw" => self.optimise(op),
            name => Ok(Unary::named(name).and_then(|f| self.unary(op, f))),
        }
    }

    /// A kernel of inference, where all that is constant for it stays so.
    fn forward(&mut self, op: OpId) -> Result<Found, ExecError> {
        let data = self.module.op(op);
        let globals: Vec<GlobalId> =
            data.present_operands().filter_map(|v| self.module.as_global(v)).collect();
        if globals.iter().any(|g| self.updated.contains(g)) || data.results().len() != 1 {
            return Ok(None);
        }
        let Ok(draft) = self.planner.draft(op)? else { return Ok(None) };
        if !matches!(draft.recipe, Recipe::Pool { .. } | Recipe::Moves(_) | Recipe::Plain(_)) {
            return Ok(None);
        }
        let Some(result) = self.slot(draft.write) else { return Ok(None) };
        let slots: Option<Vec<Slot>> = draft.reads.iter().map(|&v| self.slot(v)).collect();
        let Some(slots) = slots else { return Ok(None) };
        let Ok(kernel) =
            Kernel::build(self.kernels, draft.recipe, &slots.iter().collect::<Vec<_>>(), &result)
        else {
            return Ok(None);
        };
        let reads: Option<Vec<Batch>> = draft.reads.iter().map(|&v| self.read_batch(v)).collect();
        let (Some(reads), Some(write)) = (reads, self.make_batch(draft.write)) else { return Ok(None) };
        self.baked.extend(globals);
        self.sample(Some(op), Sample::Forward(Box::new(kernel)), reads, Some(write), vec![], None);
        Ok(Some(()))
    }

    /// The shape of a convolution between an image value and another, two-dimensional.
    fn conv_shape(&self, op: OpId, x: ValueId, w: ValueId, y: ValueId) -> Option<ConvShape> {
        let weight = self.f32_dims(w)?;
        self.shape(op, &self.planner.slot(x)?.dims, &weight, &self.planner.slot(y)?.dims)
    }

    fn weight_grad_shape(&self, op: OpId) -> Option<ConvShape> {
        let (dy, x) = (self.operand(op, 0)?, self.operand(op, 1)?);
        let weight = self.f32_dims(self.result(op))?;
        self.shape(op, &self.planner.slot(x)?.dims, &weight, &self.planner.slot(dy)?.dims)
    }

    fn input_grad_shape(&self, op: OpId) -> Option<ConvShape> {
        self.conv_shape(op, self.result(op), self.operand(op, 1)?, self.operand(op, 0)?)
    }

    fn shape(&self, op: OpId, x: &[usize], weight: &[usize], y: &[usize]) -> Option<ConvShape> {
        let attrs = self.attrs(op);
        let &[c_in, h, w] = x else { return None };
        let &[c_out, per_group, kh, kw] = weight else { return None };
        let groups = usize::try_from(attrs.int("group", 1)).ok().filter(|&g| g > 0)?;
        let shape = ConvShape {
            h,
            w,
            c_in,
            c_out,
            kernel: [kh, kw],
            stride: pair_or_one(attrs, "strides")?,
            pads: pads(attrs)?,
            dilation: pair_or_one(attrs, "dilations")?,
            groups,
        };
        let sound = h > 0 && w > 0 && shape.stride.iter().chain(&shape.dilation).all(|&n| n > 0);
        let fits = sound
            && c_out % groups == 0
            && per_group.checked_mul(groups) == Some(c_in)
            && *y == [c_out, shape.out_h(), shape.out_w()];
        fits.then_some(shape)
    }

    fn conv(&mut self, op: OpId) -> Result<Found, ExecError> {
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

    fn conv_input_grad(&mut self, op: OpId) -> Result<Found, ExecError> {
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

    fn conv_weight_grad(&mut self, op: OpId) -> Found {
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
    fn channels(&self, value: ValueId) -> Option<(Slot, usize)> {
        let slot = self.slot(value)?;
        let layout = layout(&slot);
        (slot.dims.first() == Some(&layout.c)).then_some((slot, layout.c))
    }

    /// A batch normalisation whose numbers stay as they are: a scale and a shift for each channel.
    fn batch_norm(&mut self, op: OpId) -> Result<Found, ExecError> {
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

    fn batch_norm_train(&mut self, op: OpId) -> Result<Found, ExecError> {
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

    fn batch_norm_grad(&mut self, op: OpId) -> Result<Found, ExecError> {
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
    fn band(&mut self, home: Home, channels: usize) -> Home {
        if let Some(&band) = self.bands.get(&home) {
            return band;
        }
        let band = self.floats_home(Band::new(channels).len());
        self.whole(None, Whole::Band, vec![home], vec![band], None);
        self.bands.insert(home, band);
        band
    }

    /// Slots of the same extents.
    pub(super) fn same(&self, values: &[ValueId]) -> Option<Slot> {
        let mut slots = values.iter().map(|&v| self.slot(v));
        let first = slots.next()??;
        slots.all(|s| s.is_some_and(|s| s.dims == first.dims)).then_some(first)
    }

    fn add_op(&mut self, op: OpId) -> Found {
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

    /// Two values of the same extents that are no samples: gradients of a shared weight, terms of a loss.
    fn of_wholes(&mut self, op: OpId, function: Binary) -> Result<Found, ExecError> {
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
    fn clip_of_whole(&mut self, op: OpId) -> Result<Found, ExecError> {
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
    fn choose(&mut self, op: OpId) -> Result<Found, ExecError> {
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

    fn unary(&mut self, op: OpId, function: Unary) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        self.same(&[x, y])?;
        let reads = vec![self.read_batch(x)?];
        let write = self.make_batch(y)?;
        self.sample(Some(op), Sample::Unary(function), reads, Some(write), vec![], None);
        Some(())
    }

    fn binary(&mut self, op: OpId, function: Binary) -> Found {
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
    fn with_number(&mut self, op: OpId, function: Binary, a: ValueId, b: ValueId) -> Found {
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
    fn sum_pixels(&mut self, op: OpId) -> Found {
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

    fn relu(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        self.same(&[x, y])?;
        let terms = match self.open.remove(&x) {
            Some(sum) => sum.terms,
            None => vec![(self.read_batch(x)?, None)],
        };
        self.add_sum(y, OpenSum::new(op, terms, RELU))
    }

    fn relu_grad(&mut self, op: OpId) -> Found {
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

    /// Sums per channel of a value to another that has one element for each.
    fn channel_sums(&mut self, op: OpId, x: ValueId, y: ValueId) -> Found {
        let (_, c) = self.channels(x)?;
        let from = self.read_batch(x)?;
        let part = Some(self.new_part(Gathered::Double(c)));
        self.sample(Some(op), Sample::ChannelSums, vec![from], None, vec![], part);
        let home = self.make_home(y)?;
        self.whole(Some(op), Whole::Sums(1.0), vec![], vec![home], part);
        Some(())
    }

    fn reduce_sum(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        let rank = self.slot(x)?.dims.len() as i64 + 1;
        let mut axes = self.attrs(op).ints("axes")?.to_vec();
        axes.iter_mut().for_each(|a| *a += if *a < 0 { rank } else { 0 });
        axes.sort_unstable();
        axes.eq(&(0..rank).filter(|&a| a != 1).collect::<Vec<_>>()).then_some(())?;
        self.channel_sums(op, x, y)
    }

    fn unbroadcast(&mut self, op: OpId) -> Found {
        let (x, y) = (self.operand(op, 0)?, self.result(op));
        let (slot, c) = self.channels(x)?;
        let (rank, dims) = (slot.dims.len() + 1, self.f32_dims(y)?);
        // The channel axis counts from the right, as broadcasting does.
        let kept = |(i, &d): (usize, &usize)| d == if i + rank - dims.len() == 1 { c } else { 1 };
        (dims.len() <= rank && dims.iter().product::<usize>() == c && dims.iter().enumerate().all(kept))
            .then_some(())?;
        self.channel_sums(op, x, y)
    }

    fn pool_grad(&mut self, op: OpId) -> Found {
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
    fn spread(&mut self, op: OpId) -> Found {
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
    fn slice_grad(&mut self, op: OpId) -> Found {
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

    fn product(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(a), Some(b), y) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let dims = [a, b, y].map(|v| self.f32_dims(v));
        let [Some(da), Some(db), Some(dy)] = &dims else { return Ok(None) };
        let attrs = self.attrs(op);
        let (trans_a, trans_b) = (attrs.bool("trans_a", false), attrs.bool("trans_b", false));
        let (&[a0, a1], &[b0, b1]) = (da.as_slice(), db.as_slice()) else { return Ok(None) };
        let ((m, k), (k2, n)) =
            (if trans_a { (a1, a0) } else { (a0, a1) }, if trans_b { (b1, b0) } else { (b0, b1) });
        if k != k2 || *dy != [m, n] || m * n * k == 0 {
            return Ok(None);
        }
        let (alpha, beta) = (attrs.float("alpha", 1.0), attrs.float("beta", 1.0));
        let mut reads = vec![self.read_home(a)?, self.read_home(b)?];
        if let Some(c) = self.operand(op, 2) {
            let fits = self.f32_dims(c).is_some_and(|d| {
                let mut wide = vec![1; 2usize.saturating_sub(d.len())];
                wide.extend(&d);
                matches!(wide.as_slice(), &[r, c] if (r == 1 || r == m) && (c == 1 || c == n))
            });
            if !fits {
                return Ok(None);
            }
            reads.push(self.read_home(c)?);
        }
        let Some(home) = self.make_home(y) else { return Ok(None) };
        let kernel = Whole::Product(Product { m, k, n, trans_a, trans_b, alpha, beta });
        self.whole(Some(op), kernel, reads, vec![home], None);
        Ok(Some(()))
    }

    fn cross_entropy(&mut self, op: OpId) -> Result<Found, ExecError> {
        let backward = self.module.is(op, "cross_entropy_grad");
        let operands: Option<Vec<ValueId>> =
            (0..2 + usize::from(backward)).map(|i| self.operand(op, i)).collect();
        let Some(operands) = operands else { return Ok(None) };
        let (rows, labels) = (operands[usize::from(backward)], operands[1 + usize::from(backward)]);
        let Some(dims) = self.f32_dims(rows) else { return Ok(None) };
        let labels_fit =
            self.extents_of(labels).is_some_and(|e| e.elem == ElemType::I64 && e.dims == dims[..1]);
        let &[n, classes] = dims.as_slice() else { return Ok(None) };
        let results = self.module.op(op).results().to_vec();
        if !labels_fit || n * classes == 0 {
            return Ok(None);
        }
        let mut reads = Vec::new();
        for v in operands {
            reads.push(self.read_home(v)?);
        }
        let mut writes = Vec::new();
        for (i, &v) in results.iter().enumerate() {
            let len = if i + 1 == results.len() { n * classes } else { 1 };
            let home = if v.is_none() { Some(self.floats_home(len)) } else { self.make_home(v) };
            writes.push(home.ok_or(ExecError::Undefined(v))?);
        }
        let smoothing = f64::from(self.attrs(op).float("label_smoothing", 0.0));
        let kernel = if backward {
            Whole::CrossEntropyGrad { smoothing, classes }
        } else {
            Whole::CrossEntropy { smoothing, classes }
        };
        self.whole(Some(op), kernel, reads, writes, None);
        Ok(Some(()))
    }

    /// A transposed matrix that is no batch.
    fn swap(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), y) = (self.operand(op, 0), self.result(op)) else { return Ok(None) };
        let (Some(dims), Some(&from)) = (self.f32_dims(x), self.home_of.get(&x)) else { return Ok(None) };
        let &[rows, _] = dims.as_slice() else { return Ok(None) };
        if self.attrs(op).ints("perm") == Some(&[0, 1]) {
            self.home_of.insert(y, from);
            return Ok(Some(()));
        }
        let Some(home) = self.make_home(y) else { return Ok(None) };
        self.whole(Some(op), Whole::Swap { rows }, vec![from], vec![home], None);
        Ok(Some(()))
    }

    /// Whether a global may be overwritten by a result of this operation: it is stored there, and whatever else reads
    /// the old contents comes before.
    fn in_place(&self, op: OpId, operand: ValueId, result: ValueId) -> bool {
        let Some(global) = self.module.as_global(operand) else { return false };
        let stored = self.module.value(result).uses().iter().any(|u| match *u {
            Use::Update(graph, i) => {
                self.module.graph(graph).updates().nth(i as usize).is_some_and(|u| u.0 == global)
            }
            _ => false,
        });
        let here = self.place.get(&op);
        let done = self.module.value(operand).uses().iter().all(|u| match u {
            Use::Operand(user, _) => match self.place.get(user) {
                Some(place) => Some(place) <= here,
                // Another graph, or an operation that nothing wants; one in a region may come later.
                None => !self.is_inside(*user),
            },
            Use::Return(graph, _) => !self.is_here(*graph),
            Use::Update(graph, _) => !self.is_here(*graph),
        });
        stored && done && !self.planner.taps.contains(&operand)
    }

    fn is_here(&self, graph: gs_ir::GraphId) -> bool {
        self.place.keys().next().is_some_and(|&op| self.module.op(op).graph == graph)
    }

    fn is_inside(&self, op: OpId) -> bool {
        !self.module.entries().contains(&self.module.op(op).graph)
    }

    fn optimise(&mut self, op: OpId) -> Result<Found, ExecError> {
        let states = if self.module.is(op, "sgd") { 1 } else { 2 };
        let operands: Option<Vec<ValueId>> = (0..4 + 2 * (states - 1)).map(|i| self.operand(op, i)).collect();
        let Some(operands) = operands else { return Ok(None) };
        let (param, grad) = (operands[0], operands[1]);
        let results = self.module.op(op).results().to_vec();
        let mut old = vec![param];
        old.extend(&operands[2..2 + states]);
        let dims = self.f32_dims(param);
        if dims.is_none()
            || results.len() != old.len()
            || self.f32_dims(grad) != dims
            || old.iter().any(|&v| self.f32_dims(v) != dims)
            || self.f32_dims(operands[2 + states]).is_none()
        {
            return Ok(None);
        }
        let mut reads = vec![self.read_home(grad)?];
        for &v in &operands[2 + states..] {
            reads.push(self.read_home(v)?);
        }
        let in_place = old.iter().zip(&results).all(|(&o, &r)| !r.is_none() && self.in_place(op, o, r));
        let mut writes = Vec::new();
        for (&o, &r) in old.iter().zip(&results) {
            let from = self.read_home(o)?;
            if in_place {
                self.home_of.insert(r, from);
                writes.push(from);
            } else {
                reads.push(from);
                let home = if r.is_none() {
                    Some(self.floats_home(dims.iter().flatten().product()))
                } else {
                    self.make_home(r)
                };
                writes.push(home.ok_or(ExecError::Undefined(r))?);
            }
        }
        let attrs = self.attrs(op);
        let decay = attrs.float("weight_decay", 0.0);
        let kernel = if states == 1 {
            let momentum = attrs.float("momentum", 0.9);
            Whole::Sgd(crate::kernels::Sgd { momentum, decay, nesterov: attrs.bool("nesterov", false) })
        } else {
            let betas = (attrs.float("beta1", 0.9), attrs.float("beta2", 0.999));
            let epsilon = attrs.float("epsilon", 1e-8);
            Whole::AdamW(crate::kernels::AdamW { betas, epsilon, decay })
        };
        self.whole(Some(op), kernel, reads, writes, None);
        Ok(Some(()))
    }

    /// All stages.
    pub(super) fn finish(&mut self) -> Vec<StageDraft<'m>> {
        std::mem::take(&mut self.schedule).finish()
    }
}

fn halo_of(pads: [usize; 4]) -> Halo {
    Halo { top: pads[0], left: pads[1], bottom: pads[2], right: pads[3] }
}

fn halo(slot: &Slot) -> Halo {
    slot.image().map_or(Halo::NONE, |i| i.halo)
}

/// A sample as an image: rows are one pixel.
pub(super) fn layout(slot: &Slot) -> ImageLayout {
    match &slot.layout {
        Layout::Image(image) => *image,
        Layout::Rows => match slot.dims.as_slice() {
            &[c] => ImageLayout::dense(1, 1, c),
            _ => ImageLayout::dense(1, slot.count(), 1),
        },
    }
}
