//! Use lists, the order of operations, and types that follow from a change: what every change has in common.

use super::{At, Event, Rewriter};
use crate::entity::{GraphId, OpId, Sym, TypeId, ValueId};
use crate::graph::{Def, Slot, Use, Value};
use crate::infer;
use crate::types::Type;
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

    /// Infers an operation again and hands changed types on to its users.
    pub(super) fn reinfer(&mut self, op: OpId) {
        let mut pending = vec![op];
        while let Some(op) = pending.pop() {
            // What does not fit keeps its types; the verifier reports it.
            let Ok(facts) = infer::infer_op(self.module, op) else { continue };
            for (i, fact) in facts.into_iter().enumerate() {
                let Some(v) = self.module.ops[op].results.get(i).copied().and_then(ValueId::some) else {
                    continue;
                };
                let before: TypeId = self.module.values[v].ty;
                self.module.refine_type(v, fact.ty);
                if self.module.values[v].ty != before {
                    pending.extend(self.module.user_ops(v));
                }
            }
        }
    }

    pub(super) fn retype_users(&mut self, value: ValueId) {
        for op in self.module.user_ops(value) {
            self.reinfer(op);
        }
    }
}
