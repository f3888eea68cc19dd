//! From the operations of a graph to pieces: which kernels run an operation, what is fused, and what is left to the
//! reference evaluator.

use super::piece::{
    Batch, BatchValue, Extents, Gathered, Held, Home, Part, Sample, SamplePiece, Whole, WholePiece,
};
use super::quantise::{Kept, OpenGrad, Watch};
use super::schedule::{Schedule, StageDraft};
use super::sums::OpenSum;
use crate::plan::build::Planner;
use crate::plan::grids::Grids;
use crate::plan::kernel::Kernel;
use crate::plan::recipe::Recipe;
use crate::plan::slot::{Code, Layout, Slot};
use gs_eval::{ExecError, OpPlan};
use gs_ir::{AttrSet, ElemType, GlobalId, Module, OpId, ValueId};
use gs_kernels::{Binary, ConvInputGrad, Halo, ImageLayout, Kernels, Unary};
use rustc_hash::{FxHashMap, FxHashSet};

/// Makes the pieces of a graph.
pub(super) struct Builder<'b, 'm> {
    pub(super) planner: &'b mut Planner<'m>,
    pub(super) module: &'m Module,
    pub(super) kernels: Kernels,
    /// Globals that the graph stores to.
    pub(super) updated: FxHashSet<GlobalId>,
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
    pub(super) halos: FxHashMap<Vec<usize>, Halo>,
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
    pub(super) bands: FxHashMap<Home, Home>,
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
    pub(super) fn want_halos(&mut self, op: OpId) -> Found {
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

    pub(super) fn operand(&self, op: OpId, i: usize) -> Option<ValueId> {
        self.module.op(op).operand(i)
    }

    pub(super) fn result(&self, op: OpId) -> ValueId {
        self.module.op(op).result()
    }

    pub(super) fn attrs(&self, op: OpId) -> &'m AttrSet {
        self.module.attrs_of(op)
    }

    pub(super) fn extents_of(&self, value: ValueId) -> Option<Extents> {
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

    pub(super) fn new_home(&mut self, held: Held, extents: Option<Extents>) -> Home {
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

    pub(super) fn by_name(&mut self, op: OpId) -> Result<Found, ExecError> {
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
    pub(super) fn forward(&mut self, op: OpId) -> Result<Found, ExecError> {
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

    /// All stages.
    pub(super) fn finish(&mut self) -> Vec<StageDraft<'m>> {
        std::mem::take(&mut self.schedule).finish()
    }
}

fn halo_of(pads: [usize; 4]) -> Halo {
    Halo { top: pads[0], left: pads[1], bottom: pads[2], right: pads[3] }
}

pub(super) fn halo(slot: &Slot) -> Halo {
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
