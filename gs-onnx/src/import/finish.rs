//! What can only be decided when the whole network is read: which globals are learned, and which computations of
//! shapes are no longer needed because their result became an attribute.

use gs_ir::registry::Traits;
use gs_ir::{GlobalId, Init, OpId, Role, Sym, ValueId, is_learned};
use rustc_hash::FxHashSet;

use super::Importer;

impl Importer<'_> {
    pub(super) fn finish(&mut self) {
        self.drop_unneeded();
        self.account_for_calls();
        self.assign_roles();
    }

    /// Removes what fed only operands that became attributes.
    fn drop_unneeded(&mut self) {
        let mut pending: Vec<(ValueId, Sym)> =
            std::mem::take(&mut self.made_static).into_iter().map(|s| (s.value, s.into)).collect();
        let bases = self.bases();
        pending.reverse(); // first in the file is looked at first, so the ledger is in its order
        while let Some((value, into)) = pending.pop() {
            if !self.rw.value(value).uses().is_empty() {
                continue;
            }
            if let Some(global) = self.rw.as_global(value) {
                if !bases.contains(&global) && self.rw.global(global).role != Role::Input {
                    self.rw.remove_global(global);
                }
            } else if let Some(op) = self.rw.producer(value).filter(|&op| self.is_unused(op)) {
                let operands: Vec<ValueId> = self.rw.op(op).present_operands().collect();
                self.retire(op, into);
                pending.extend(operands.into_iter().rev().map(|v| (v, into)));
            }
        }
    }

    /// Globals that the contents of others are derived from.
    fn bases(&self) -> FxHashSet<GlobalId> {
        let derived = self.rw.globals().filter_map(|(_, g)| match &g.init {
            Init::Derived(d) => Some(&d.operands),
            _ => None,
        });
        derived.flatten().flatten().copied().collect()
    }

    /// A call of a function that expands to no operation at all is gone, too.
    fn account_for_calls(&mut self) {
        let entry = self.rw.entry("static", "import", None, None);
        for call in std::mem::take(&mut self.calls) {
            if !self.rw.gone.contains_key(&call) {
                self.rw.note_gone(&[call], &entry);
            }
        }
    }

    fn is_unused(&self, op: OpId) -> bool {
        let unused = |v: &ValueId| v.is_none() || self.rw.value(*v).uses().is_empty();
        self.rw.decl(op).traits.has(Traits::PURE) && self.rw.op(op).results().iter().all(unused)
    }

    /// Erases an operation and notes which node took over what it computed.
    fn retire(&mut self, op: OpId, into: Sym) {
        let entry = self.rw.entry("static", "import", Some(into), None);
        self.rw.retire(op, None, entry);
    }

    /// A float global is a parameter when an operand that is learned reads it, directly or moved about.
    fn assign_roles(&mut self) {
        let ids: Vec<GlobalId> = self.rw.globals().map(|(id, _)| id).collect();
        for id in ids {
            let global = self.rw.global(id);
            let is_float = self.rw.ty(global.ty).elem().is_some_and(|e| e.is_float());
            if is_float && global.role == Role::Const && is_learned(&self.rw, global.value) {
                self.rw.set_role(id, Role::Param, true);
            }
        }
    }
}
