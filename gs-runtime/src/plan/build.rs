//! Making a plan: which operations kernels run together, what is fused, where values lie, which buffers they share.

use super::kernel::{Kernel, wanted_halo};
use super::moves::{Batch, Trace};
use super::plain::Plain;
use super::recipe::{Recipe, Site, choose};
use super::segment::{Segment, Step};
use super::slot::{Code, Slot};
use crate::kernels::Kernels;
use gs_eval::{ExecError, Materializer, Tensor};
use gs_ir::registry::Traits;
use gs_ir::{ElemType, GlobalId, GraphId, Module, OpId, SymbolId, Use, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// What is run after what.
pub(crate) enum Stage {
    /// Operations that kernels run, sample by sample.
    Segment(Box<Segment>),
    /// One operation that the reference evaluator runs on the whole batch.
    Single(OpId),
}

/// Everything that a plan is made from.
pub(crate) struct Planner<'m> {
    pub(crate) module: &'m Module,
    pub(crate) kernels: Kernels,
    pub(crate) batch: usize,
    pub(crate) symbols: FxHashMap<SymbolId, i64>,
    /// Values that must be at hand at the end: results, updates, taps.
    pub(crate) wanted: FxHashSet<ValueId>,
    /// Contents that differ from the module's.
    pub(crate) overrides: FxHashMap<GlobalId, Tensor>,
    pub(crate) materializer: Materializer<'m>,
    /// Constants that were read, by value.
    pub(crate) constants: FxHashMap<ValueId, Tensor>,
}

/// Bytes that the buffers of one chunk should not exceed, so that they stay in a core's own cache.
const CHUNK_BYTES: usize = 384 << 10;
/// More samples at a time gain nothing.
const CHUNK_LIMIT: usize = 32;

/// An operation that a kernel will run, before buffers are laid out.
struct Draft {
    recipe: Recipe,
    reads: Vec<ValueId>,
    write: ValueId,
}

impl<'m> Planner<'m> {
    /// Plans the operations of a graph that wanted values need.
    ///
    /// # Errors
    /// Contents of a constant that cannot be made.
    pub(crate) fn stages(&mut self, graph: GraphId) -> Result<Vec<Stage>, ExecError> {
        let ops = self.needed(graph);
        // An operation that a kernel turns out not to run is left to the evaluator, and the plan is made anew.
        let mut refused: FxHashSet<OpId> = FxHashSet::default();
        loop {
            match self.try_stages(&ops, &refused)? {
                Ok(stages) => return Ok(stages),
                Err(op) => {
                    refused.insert(op);
                }
            }
        }
    }

    /// The operations that wanted values need, in order.
    fn needed(&self, graph: GraphId) -> Vec<OpId> {
        let mut live = self.wanted.clone();
        let all: Vec<OpId> = self.module.ops_in(graph).collect();
        let mut ops = Vec::new();
        for &op in all.iter().rev() {
            let data = self.module.op(op);
            if data.results().iter().any(|v| live.contains(v)) {
                live.extend(data.present_operands());
                ops.push(op);
            }
        }
        ops.reverse();
        ops
    }

    fn try_stages(
        &mut self,
        ops: &[OpId],
        refused: &FxHashSet<OpId>,
    ) -> Result<Result<Vec<Stage>, OpId>, ExecError> {
        let mut stages = Vec::new();
        let mut group: Vec<OpId> = Vec::new();
        for &op in ops {
            if !refused.contains(&op) && self.may_run(op) {
                group.push(op);
                continue;
            }
            if let Err(op) = self.close(&mut group, &mut stages)? {
                return Ok(Err(op));
            }
            stages.push(Stage::Single(op));
        }
        Ok(self.close(&mut group, &mut stages)?.map(|()| stages))
    }

    /// Makes a segment of the operations gathered so far. An error names an operation that no kernel runs.
    fn close(
        &mut self,
        group: &mut Vec<OpId>,
        stages: &mut Vec<Stage>,
    ) -> Result<Result<(), OpId>, ExecError> {
        if group.is_empty() {
            return Ok(Ok(()));
        }
        let ops = std::mem::take(group);
        match self.segment(&ops)? {
            Ok(segment) => {
                stages.push(Stage::Segment(Box::new(segment)));
                Ok(Ok(()))
            }
            Err(op) => Ok(Err(op)),
        }
    }

    /// A first look: one result per sample, of an element type that kernels know.
    fn may_run(&self, op: OpId) -> bool {
        let data = self.module.op(op);
        let [result] = data.results() else { return false };
        data.regions().is_empty()
            && self.slot(*result).is_some()
            && data.present_operands().any(|v| self.module.as_global(v).is_none())
            && data.present_operands().all(|v| self.module.as_global(v).is_some() || self.slot(v).is_some())
    }

    /// The slot of a value whose first axis counts the samples of the batch.
    fn slot(&self, value: ValueId) -> Option<Slot> {
        let ty = self.module.type_of(value).as_tensor()?;
        let code = match ty.elem {
            ElemType::F32 => Code::F32,
            ElemType::U8 => Code::U8,
            ElemType::I8 => Code::I8,
            _ => return None,
        };
        let dims: Option<Vec<usize>> = ty
            .dims()?
            .iter()
            .map(|d| d.eval(&|s| self.symbols.get(&s).copied()).and_then(|n| usize::try_from(n).ok()))
            .collect();
        let dims = dims?;
        let (&first, rest) = dims.split_first()?;
        let count = rest.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (first == self.batch && count > 0).then(|| Slot::new(code, rest.to_vec()))
    }

    /// The symbol that counts the samples, if the batch is one symbol.
    fn batch_symbol(&self, value: ValueId) -> Option<SymbolId> {
        self.module.type_of(value).dims()?.first()?.as_symbol()
    }

    fn constant(&mut self, value: ValueId) -> Result<Option<Tensor>, ExecError> {
        let Some(global) = self.module.as_global(value) else { return Ok(None) };
        if let Some(t) = self.overrides.get(&global) {
            return Ok(Some(t.clone()));
        }
        if let Some(t) = self.constants.get(&value) {
            return Ok(Some(t.clone()));
        }
        let tensor = self.materializer.tensor(global)?;
        self.constants.insert(value, tensor.clone());
        Ok(Some(tensor))
    }

    fn segment(&mut self, ops: &[OpId]) -> Result<Result<Segment, OpId>, ExecError> {
        let mut drafts: Vec<Draft> = Vec::new();
        for &op in ops {
            match self.draft(op)? {
                Some(draft) => drafts.push(draft),
                None => return Ok(Err(op)),
            }
        }
        let inside: FxHashSet<OpId> = ops.iter().copied().collect();
        self.fuse(&mut drafts, &inside);
        let Some(segment) = self.lay_out(drafts, &inside) else {
            // Which one it was is found by trying them alone.
            return Ok(Err(self.culprit(ops)?));
        };
        Ok(Ok(segment))
    }

    /// The first operation that makes no segment of its own; the last one if each does.
    fn culprit(&mut self, ops: &[OpId]) -> Result<OpId, ExecError> {
        for &op in ops {
            let draft = self.draft(op)?;
            let alone: FxHashSet<OpId> = std::iter::once(op).collect();
            if draft.is_none_or(|d| self.lay_out(vec![d], &alone).is_none()) {
                return Ok(op);
            }
        }
        Ok(ops[ops.len() - 1])
    }

    fn draft(&mut self, op: OpId) -> Result<Option<Draft>, ExecError> {
        let m = self.module;
        let operands: Vec<Option<ValueId>> = m.op(op).operands().collect();
        let mut constants = Vec::with_capacity(operands.len());
        for v in &operands {
            constants.push(match v {
                Some(v) => self.constant(*v)?,
                None => None,
            });
        }
        let owned: Vec<Option<Slot>> = operands
            .iter()
            .map(|v| v.filter(|&v| m.as_global(v).is_none()).and_then(|v| self.slot(v)))
            .collect();
        let slots: Vec<Option<&Slot>> = owned.iter().map(Option::as_ref).collect();
        let write = m.op(op).result();
        let Some(result) = self.slot(write) else { return Ok(None) };
        let reads: Vec<ValueId> =
            operands.iter().flatten().copied().filter(|&v| m.as_global(v).is_none()).collect();
        let site = Site { module: m, op, slots, constants, result: &result };
        let recipe = if m.decl(op).traits.has(Traits::MOVES) {
            let symbol = reads.first().and_then(|&v| self.batch_symbol(v));
            let batch = Batch { symbol, size: self.batch };
            Trace::follow(&site, &|s| self.symbols.get(&s).copied(), batch).map(Recipe::Moves)
        } else {
            choose(&site)
        };
        Ok(recipe.map(|recipe| Draft { recipe, reads, write }))
    }

    /// Takes activations into the operation before them, and an addition into the convolution before it.
    fn fuse(&self, drafts: &mut Vec<Draft>, inside: &FxHashSet<OpId>) {
        let mut at = 0;
        while at < drafts.len() {
            let clip = match &drafts[at].recipe {
                Recipe::Plain(Plain::Clip(clip)) => Some(*clip),
                _ => None,
            };
            let producer = |v: ValueId, upto: usize| drafts[..upto].iter().position(|d| d.write == v);
            if let Some(clip) = clip
                && let Some(before) = producer(drafts[at].reads[0], at)
                && self.only_read_here(drafts[at].reads[0], inside)
                && drafts[before].recipe.clip_mut().is_some()
            {
                let write = drafts[at].write;
                if let Some(limits) = drafts[before].recipe.clip_mut() {
                    *limits = both(*limits, clip);
                }
                drafts[before].write = write;
                drafts.remove(at);
                continue;
            }
            if matches!(drafts[at].recipe, Recipe::Plain(Plain::Add(_)))
                && self.fuse_residual(drafts, at, inside)
            {
                // One draft before this one went; the same place holds the next.
                continue;
            }
            at += 1;
        }
    }

    /// `add(conv(x), r)` becomes a convolution with a residual, at the place of the addition.
    fn fuse_residual(&self, drafts: &mut Vec<Draft>, at: usize, inside: &FxHashSet<OpId>) -> bool {
        let Recipe::Plain(Plain::Add(limits)) = drafts[at].recipe else { return false };
        let &[a, b] = drafts[at].reads.as_slice() else { return false };
        for (value, other) in [(b, a), (a, b)] {
            let plain =
                |r: &Recipe| matches!(r, Recipe::Conv { clip, .. } if *clip == crate::kernels::NO_CLIP);
            let found =
                drafts[..at].iter().position(|d| d.write == value && plain(&d.recipe) && d.reads.len() == 1);
            if value == other || !self.only_read_here(value, inside) {
                continue;
            }
            let Some(conv) = found else { continue };
            let mut draft = drafts.remove(conv);
            if let Some(clip) = draft.recipe.clip_mut() {
                *clip = limits;
            }
            draft.reads.push(other);
            draft.write = drafts[at - 1].write;
            drafts[at - 1] = draft;
            return true;
        }
        false
    }

    /// Whether a value has one reader, which is in the segment, and is not wanted outside.
    fn only_read_here(&self, value: ValueId, inside: &FxHashSet<OpId>) -> bool {
        let one = match self.module.only_use(value) {
            Some(Use::Operand(user, _)) => inside.contains(&user),
            _ => false,
        };
        one && !self.wanted.contains(&value)
    }

    /// Gives every value its layout and its buffer; `None` where a kernel refuses.
    fn lay_out(&self, drafts: Vec<Draft>, inside: &FxHashSet<OpId>) -> Option<Segment> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut index: FxHashMap<ValueId, usize> = FxHashMap::default();
        let mut inputs = Vec::new();
        for d in &drafts {
            for &v in &d.reads {
                if let std::collections::hash_map::Entry::Vacant(e) = index.entry(v) {
                    slots.push(self.slot(v)?);
                    inputs.push((v, *e.insert(slots.len() - 1)));
                }
            }
            slots.push(self.slot(d.write)?);
            index.insert(d.write, slots.len() - 1);
        }
        self.widen(&drafts, &index, &mut slots)?;
        let mut steps = Vec::new();
        for d in drafts {
            let reads: Vec<usize> = d.reads.iter().map(|v| index[v]).collect();
            let write = index[&d.write];
            let read_slots: Vec<&Slot> = reads.iter().map(|&r| &slots[r]).collect();
            let kernel = Kernel::build(self.kernels, d.recipe, &read_slots, &slots[write]).ok()?;
            steps.push(Step { kernel, reads, write });
        }
        let outputs: Vec<(ValueId, usize)> = steps
            .iter()
            .map(|s| s.write)
            .filter_map(|slot| index.iter().find(|(_, i)| **i == slot).map(|(v, _)| (*v, slot)))
            .filter(|&(v, _)| self.wanted.contains(&v) || self.read_outside(v, inside))
            .collect();
        let (buffer_of, buffers) = share_buffers(&slots, &steps, &inputs, &outputs);
        let bytes: usize = buffers.iter().map(|&(len, float)| if float { 4 * len } else { len }).sum();
        let chunk = (CHUNK_BYTES / bytes.max(1)).clamp(1, CHUNK_LIMIT);
        Some(Segment { inputs, outputs, slots, steps, buffer_of, buffers, chunk })
    }

    /// Asks for the spare pixels that convolutions read; `None` where two disagree on what they hold.
    fn widen(&self, drafts: &[Draft], index: &FxHashMap<ValueId, usize>, slots: &mut [Slot]) -> Option<()> {
        let mut padding: FxHashMap<usize, u8> = FxHashMap::default();
        for d in drafts {
            let Some((halo, byte)) = wanted_halo(&d.recipe) else { continue };
            let slot = index[&d.reads[0]];
            if *padding.entry(slot).or_insert(byte) != byte {
                return None;
            }
            slots[slot].widen(halo);
            slots[slot].padding = byte;
        }
        Some(())
    }

    fn read_outside(&self, value: ValueId, inside: &FxHashSet<OpId>) -> bool {
        self.module.value(value).uses().iter().any(|u| match u {
            Use::Operand(op, _) => !inside.contains(op),
            _ => true,
        })
    }
}

/// The limits of one clip behind another.
fn both(first: (f32, f32), then: (f32, f32)) -> (f32, f32) {
    let within = |v: f32| v.max(then.0).min(then.1);
    (within(first.0), within(first.1))
}

/// Lets values share buffers whose lives do not overlap. Returns the buffer of each slot, and length and kind of each.
fn share_buffers(
    slots: &[Slot],
    steps: &[Step],
    inputs: &[(ValueId, usize)],
    outputs: &[(ValueId, usize)],
) -> (Vec<usize>, Vec<(usize, bool)>) {
    // When a value is read last; outputs live to the end.
    let mut last = vec![0usize; slots.len()];
    for (i, step) in steps.iter().enumerate() {
        step.reads.iter().for_each(|&r| last[r] = i);
        last[step.write] = last[step.write].max(i);
    }
    outputs.iter().for_each(|&(_, s)| last[s] = usize::MAX);
    let mut buffers: Vec<(usize, bool)> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer_of = vec![0usize; slots.len()];
    let mut place = |slot: usize, free: &mut Vec<usize>| {
        let (len, float) = (slots[slot].len(), slots[slot].code == Code::F32);
        // The free buffer of the right kind that is closest in size.
        let fit = |b: &usize| buffers[*b].0.abs_diff(len);
        let best = free.iter().copied().filter(|&b| buffers[b].1 == float).min_by_key(fit);
        let buffer = match best {
            Some(b) => {
                free.retain(|&f| f != b);
                buffers[b].0 = buffers[b].0.max(len);
                b
            }
            None => {
                buffers.push((len, float));
                buffers.len() - 1
            }
        };
        buffer_of[slot] = buffer;
        buffer
    };
    let mut live: Vec<(usize, usize)> = Vec::new();
    for &(_, slot) in inputs {
        let buffer = place(slot, &mut free);
        live.push((slot, buffer));
    }
    for (i, step) in steps.iter().enumerate() {
        let buffer = place(step.write, &mut free);
        live.push((step.write, buffer));
        live.retain(|&(slot, buffer)| {
            let ends = last[slot] == i;
            if ends {
                free.push(buffer);
            }
            !ends
        });
    }
    (buffer_of, buffers)
}
