//! Where the values of a segment lie: the spare pixels around images, and which values share a buffer.

use super::build::Draft;
use super::kernel::{Kernel, wanted_halo};
use super::report::Why;
use super::segment::{Segment, Step};
use super::slot::{Code, Slot};
use gs_ir::{OpId, ValueId};
use gs_kernels::Kernels;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

/// Bytes that the buffers of one chunk should not exceed, so that they stay in a core's own cache.
const CHUNK_BYTES: usize = 384 << 10;
/// More samples at a time gain nothing.
const CHUNK_LIMIT: usize = 32;

/// Operations of a segment that no kernel runs after all.
pub(crate) type Refused = FxHashMap<OpId, Why>;

/// The slots of a segment's values.
#[derive(Default)]
struct Values {
    slots: Vec<Slot>,
    /// The value of each slot, and back.
    values: Vec<ValueId>,
    index: FxHashMap<ValueId, usize>,
    /// Values that come from outside.
    inputs: Vec<(ValueId, usize)>,
}

/// Gives every value its layout and its buffer, and makes the kernels. `slot` is the slot of a value by itself,
/// `wanted` says whether a value is read outside.
///
/// # Errors
/// Every operation whose kernel refuses.
pub(crate) fn lay_out(
    kernels: Kernels,
    drafts: Vec<Draft>,
    slot: &dyn Fn(ValueId) -> Option<Slot>,
    wanted: &dyn Fn(ValueId) -> bool,
) -> Result<Segment, Refused> {
    let mut values = Values::gather(&drafts, slot)?;
    values.widen(&drafts)?;
    let Values { slots, values, index, inputs } = values;
    let mut refused = Refused::default();
    let mut steps = Vec::with_capacity(drafts.len());
    for d in drafts {
        let reads: Vec<usize> = d.reads.iter().map(|v| index[v]).collect();
        let write = index[&d.write];
        let read_slots: Vec<&Slot> = reads.iter().map(|&r| &slots[r]).collect();
        match Kernel::build(kernels, d.recipe, &read_slots, &slots[write]) {
            Ok(kernel) => steps.push(Step { op: d.op, kernel, reads, write }),
            Err(e) => {
                refused.insert(d.op, e.into());
            }
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let outputs: Vec<(ValueId, usize)> =
        steps.iter().map(|s| (values[s.write], s.write)).filter(|&(v, _)| wanted(v)).collect();
    let (buffer_of, buffers) = share_buffers(&slots, &steps, &inputs, &outputs);
    let bytes: usize = buffers.iter().map(|&(len, float)| if float { 4 * len } else { len }).sum();
    let chunk = (CHUNK_BYTES / bytes.max(1)).clamp(1, CHUNK_LIMIT);
    Ok(Segment { inputs, outputs, slots, steps, buffer_of, buffers, chunk })
}

impl Values {
    fn gather(drafts: &[Draft], slot: &dyn Fn(ValueId) -> Option<Slot>) -> Result<Self, Refused> {
        let mut all = Values::default();
        for d in drafts {
            for (v, input) in d.reads.iter().map(|&v| (v, true)).chain([(d.write, false)]) {
                let Entry::Vacant(entry) = all.index.entry(v) else { continue };
                let Some(slot) = slot(v) else { return Err([(d.op, Why::Values)].into_iter().collect()) };
                entry.insert(all.slots.len());
                if input {
                    all.inputs.push((v, all.slots.len()));
                }
                all.slots.push(slot);
                all.values.push(v);
            }
        }
        Ok(all)
    }

    /// Asks for the spare pixels that convolutions read. The first one says what they hold.
    fn widen(&mut self, drafts: &[Draft]) -> Result<(), Refused> {
        let mut padding: FxHashMap<usize, u8> = FxHashMap::default();
        let mut refused = Refused::default();
        for d in drafts {
            let Some((halo, byte)) = wanted_halo(&d.recipe) else { continue };
            let Some(&slot) = d.reads.first().and_then(|v| self.index.get(v)) else { continue };
            if *padding.entry(slot).or_insert(byte) != byte {
                refused.insert(d.op, Why::Padding);
                continue;
            }
            self.slots[slot].widen(halo);
            self.slots[slot].padding = byte;
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }
}

/// Buffers, and which of them hold nothing that is still read.
#[derive(Default)]
struct Buffers {
    /// Length, and whether it holds floats.
    all: Vec<(usize, bool)>,
    /// Free ones by kind, ordered by length.
    free: [BTreeSet<(usize, usize)>; 2],
}

impl Buffers {
    /// The free buffer of the right kind that is closest in size, made larger where it is too small, or a new one.
    fn take(&mut self, slot: &Slot) -> usize {
        let (len, float) = (slot.len(), slot.code == Code::F32);
        let free = &mut self.free[usize::from(float)];
        let below = free.range(..(len, 0)).next_back().copied();
        let above = free.range((len, 0)..).next().copied();
        let best = [above, below].into_iter().flatten().min_by_key(|&(l, _)| l.abs_diff(len));
        match best {
            Some(found) => {
                free.remove(&found);
                let (_, buffer) = found;
                self.all[buffer].0 = self.all[buffer].0.max(len);
                buffer
            }
            None => {
                self.all.push((len, float));
                self.all.len() - 1
            }
        }
    }

    fn give_back(&mut self, buffer: usize) {
        let (len, float) = self.all[buffer];
        self.free[usize::from(float)].insert((len, buffer));
    }
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
    let mut ending: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (slot, &i) in last.iter().enumerate() {
        if let Some(ending) = ending.get_mut(i) {
            ending.push(slot);
        }
    }
    let mut buffers = Buffers::default();
    let mut buffer_of = vec![0usize; slots.len()];
    for &(_, slot) in inputs {
        buffer_of[slot] = buffers.take(&slots[slot]);
    }
    for (step, ending) in steps.iter().zip(&ending) {
        buffer_of[step.write] = buffers.take(&slots[step.write]);
        ending.iter().for_each(|&slot| buffers.give_back(buffer_of[slot]));
    }
    (buffer_of, buffers.all)
}
