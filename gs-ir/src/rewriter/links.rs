//! Use lists, the order of operations, and types that follow from a change: what every change has in common.

use super::{At, Event, Rewriter};
use crate::entity::{GraphId, OpId, Sym, TypeId, ValueId};
use crate::graph::{Def, Slot, Use, Value};
use crate::infer;
use crate::module::Module;
use crate::types::Type;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

impl Rewriter<'_> {
    pub(super) fn new_value(&mut self, ty: Type, def: Def, name: &str) -> ValueId {
        let ty = self.module.intern_type(ty);
        let name = if name.is_empty() { Sym::NONE } else { self.module.intern(name) };
        self.module.values.push(Value { ty, def, name, uses: SmallVec::new() })
    }

    pub(super) fn add_use(&mut self, value: ValueId, u: Use) -> u32 {
        let uses = &mut self.module.values[value].uses;
        uses.push(u);
        (uses.len() - 1) as u32
    }

    /// Removes a use in constant time: the last one takes its place and its slot is told.
    pub(super) fn drop_use(&mut self, slot: Slot) {
        let Some(value) = slot.value.some() else { return };
        let uses = &mut self.module.values[value].uses;
        uses.swap_remove(slot.at as usize);
        if let Some(&moved) = uses.get(slot.at as usize) {
            self.slot_mut(moved).at = slot.at;
        }
        self.events.push(Event::LostUse(value));
    }

    pub(super) fn slot_mut(&mut self, u: Use) -> &mut Slot {
        match u {
            Use::Operand(op, i) => &mut self.module.ops[op].operands[i as usize],
            Use::Return(g, i) => &mut self.module.graphs[g].results[i as usize].slot,
            Use::Update(g, i) => &mut self.module.graphs[g].updates[i as usize].slot,
        }
    }

    pub(super) fn link(&mut self, op: OpId, at: At) {
        let m = &mut *self.module;
        let (graph, prev, next) = match at {
            At::End(g) => (g, m.graphs[g].last, OpId::NONE),
            At::Before(o) => (m.ops[o].graph, m.ops[o].prev, o),
            At::After(o) => (m.ops[o].graph, o, m.ops[o].next),
        };
        m.ops[op].graph = graph;
        m.ops[op].prev = prev;
        m.ops[op].next = next;
        match prev.some() {
            Some(p) => m.ops[p].next = op,
            None => m.graphs[graph].first = op,
        }
        match next.some() {
            Some(n) => m.ops[n].prev = op,
            None => m.graphs[graph].last = op,
        }
    }

    pub(super) fn unlink(&mut self, op: OpId) {
        let m = &mut *self.module;
        let (graph, prev, next) = (m.ops[op].graph, m.ops[op].prev, m.ops[op].next);
        match prev.some() {
            Some(p) => m.ops[p].next = next,
            None => m.graphs[graph].first = next,
        }
        match next.some() {
            Some(n) => m.ops[n].prev = prev,
            None => m.graphs[graph].last = prev,
        }
        m.ops[op].graph = GraphId::NONE;
    }

    /// Infers an operation again, of which an operand or an attribute changed, and hands changed types on.
    pub(super) fn reinfer(&mut self, op: OpId) {
        let changed = self.retype_results(op);
        self.retype(changed);
    }

    /// Infers operations again that read a value of another type now, and hands changed types on to their users and to
    /// the operations around the regions that return them. In graph order, so that each is inferred once.
    pub(super) fn retype(&mut self, readers: Vec<OpId>) {
        if readers.is_empty() {
            return;
        }
        let order = self.downstream(&readers);
        let mut dirty: FxHashSet<OpId> = readers.into_iter().collect();
        for op in order {
            if dirty.contains(&op) {
                self.events.push(Event::Changed(op));
                dirty.extend(self.retype_results(op));
            }
        }
    }

    /// Stores the inferred types of an operation's results; gives the readers of those that changed.
    fn retype_results(&mut self, op: OpId) -> Vec<OpId> {
        let mut readers = Vec::new();
        // What does not fit keeps its types; the verifier reports it.
        let Ok(facts) = infer::infer_op(self.module, op) else { return readers };
        for (i, fact) in facts.into_iter().enumerate() {
            let Some(v) = self.module.ops[op].results.get(i).copied().and_then(ValueId::some) else {
                continue;
            };
            let before: TypeId = self.module.values[v].ty;
            self.module.retype(v, fact.ty, op);
            if self.module.values[v].ty != before {
                readers.extend(self.tell_readers(v));
            }
        }
        readers
    }

    /// The operations whose inference reads the type of a value. A region states the type of what it returns: that
    /// follows the value, since it is no interface.
    pub(super) fn tell_readers(&mut self, value: ValueId) -> Vec<OpId> {
        let uses = self.module.values[value].uses.clone();
        uses.into_iter().filter_map(|u| self.tell_reader(u)).collect()
    }

    pub(super) fn tell_reader(&mut self, u: Use) -> Option<OpId> {
        let reader = self.module.reader(u)?;
        if let Use::Return(graph, i) = u {
            let Module { graphs, values, .. } = &mut *self.module;
            let result = &mut graphs[graph].results[i as usize];
            result.ty = values[result.slot.value].ty;
        }
        Some(reader)
    }

    /// These operations and everything that can depend on their types, an operation before its readers.
    fn downstream(&self, from: &[OpId]) -> Vec<OpId> {
        let m = &*self.module;
        let mut seen = FxHashSet::default();
        let mut order = Vec::new();
        let mut stack: Vec<(OpId, bool)> = from.iter().map(|&op| (op, false)).collect();
        while let Some((op, done)) = stack.pop() {
            if done {
                order.push(op);
            } else if seen.insert(op) {
                stack.push((op, true));
                let results = m.ops[op].results.iter().filter_map(|v| v.some());
                let uses = results.flat_map(|v| &m.values[v].uses);
                stack.extend(uses.filter_map(|u| Some((m.reader(*u)?, false))));
            }
        }
        order.reverse();
        order
    }
}

impl Module {
    /// The operation whose inference reads the type of a value through this use: its user, or the one around the region
    /// that returns it.
    pub(super) fn reader(&self, u: Use) -> Option<OpId> {
        match u {
            Use::Operand(op, _) => Some(op),
            Use::Return(graph, _) => self.graphs[graph].parent.some(),
            Use::Update(..) => None,
        }
    }
}
