//! Changes of globals.

use super::{NewGlobal, Rewriter, normal_attrs};
use crate::attr::AttrSet;
use crate::entity::{GlobalId, OpId, OpKind, Sym, TypeId};
use crate::global::{Global, Init, Role};
use crate::graph::{Def, Value};
use crate::infer::{self, InferError};
use crate::module::Module;
use crate::types::Type;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

impl Rewriter<'_> {
    /// Adds a global under the wanted name, made unique by a suffix where it is taken.
    pub fn add_global(&mut self, new: NewGlobal<'_>) -> GlobalId {
        let name = self.unique_global_name(new.name);
        let ty = self.module.intern_type(new.ty);
        let id = self.module.globals.next_handle();
        let value = self.module.values.push(Value {
            ty,
            def: Def::Global(id),
            name: Sym::NONE,
            uses: SmallVec::new(),
        });
        self.module.global_names.insert(name, id);
        let (role, trainable, init) = (new.role, new.trainable, new.init);
        self.module.globals.push(Global { name, role, trainable, ty, init, value, live: true, writers: 0 });
        self.note_derived(id);
        id
    }

    /// A constant made from others by an operation, or an existing constant that is made in the same way.
    /// Its type is inferred; it fails where the operation does not fit.
    pub fn derive_global(
        &mut self,
        name: &str,
        kind: OpKind,
        attrs: AttrSet,
        operands: &[Option<GlobalId>],
    ) -> Result<GlobalId, InferError> {
        self.derive_result(name, kind, attrs, operands, 0, 1)
    }

    /// As [`Self::derive_global`], for the result at place `result` of an operation with so many results.
    pub fn derive_result(
        &mut self,
        name: &str,
        kind: OpKind,
        attrs: AttrSet,
        operands: &[Option<GlobalId>],
        result: u32,
        results: u32,
    ) -> Result<GlobalId, InferError> {
        let decl = *self.module.registry.decl(kind);
        let attrs = normal_attrs(&decl, attrs);
        let derived = crate::global::Derived { kind, attrs, operands: operands.into(), result, results };
        if let Some(&id) = self.module.derived.get(&derived)
            && !self.module.is_written(id)
        {
            return Ok(id);
        }
        let ty = infer::infer_derived(self.module, &derived)?.map_or(Type::Any, |f| f.ty);
        let ty = self.module.settle(ty);
        Ok(self.add_global(NewGlobal {
            name,
            role: Role::Const,
            trainable: false,
            ty,
            init: Init::Derived(derived),
        }))
    }

    /// Replaces the contents (and the type) of a global. What is derived from it, and what reads these, is retyped.
    pub fn set_global(&mut self, id: GlobalId, ty: Type, init: Init) {
        let ty = self.module.intern_type(ty);
        self.forget_derived(id);
        self.module.globals[id].init = init;
        self.note_derived(id);
        let matters = self.module.globals[id].ty != ty || infer::may_be_shape(self.module.ty(ty));
        let mut readers = self.retype_global(id, ty);
        if matters {
            for dependent in self.dependents(id) {
                let Init::Derived(d) = &self.module.globals[dependent].init else { continue };
                // What does not fit keeps its type; the verifier reports it.
                let Ok(Some(fact)) = infer::infer_derived(self.module, d) else { continue };
                if fact.ty != *self.module.ty(self.module.globals[dependent].ty) && fact.ty != Type::Any {
                    let ty = self.module.settle(fact.ty);
                    let ty = self.module.intern_type(ty);
                    readers.extend(self.retype_global(dependent, ty));
                }
            }
        }
        self.retype(readers);
    }

    /// Stores the type of a global; gives the operations that read it where it changed.
    fn retype_global(&mut self, id: GlobalId, ty: TypeId) -> Vec<OpId> {
        let value = self.module.globals[id].value;
        self.module.globals[id].ty = ty;
        if std::mem::replace(&mut self.module.values[value].ty, ty) == ty {
            return Vec::new();
        }
        self.tell_readers(value)
    }

    /// The globals that are derived from this one, directly or not, each after what it is derived from.
    fn dependents(&self, id: GlobalId) -> Vec<GlobalId> {
        let mut direct: FxHashMap<GlobalId, Vec<GlobalId>> = FxHashMap::default();
        for (reader, g) in self.module.globals() {
            if let Init::Derived(d) = &g.init {
                d.operands.iter().flatten().for_each(|o| direct.entry(*o).or_default().push(reader));
            }
        }
        let (mut seen, mut order, mut stack) = (FxHashSet::default(), Vec::new(), vec![(id, false)]);
        while let Some((g, done)) = stack.pop() {
            if done {
                order.push(g);
            } else if seen.insert(g) {
                stack.push((g, true));
                stack.extend(direct.get(&g).into_iter().flatten().map(|&reader| (reader, false)));
            }
        }
        order.pop(); // the global itself
        order.reverse();
        order
    }

    /// Changes what a global is for.
    pub fn set_role(&mut self, id: GlobalId, role: Role, trainable: bool) {
        self.forget_derived(id);
        self.module.globals[id].role = role;
        self.module.globals[id].trainable = trainable;
        self.note_derived(id);
    }

    /// Removes a global that nothing reads and nothing is derived from.
    pub fn remove_global(&mut self, id: GlobalId) {
        let (name, value) = (self.module.globals[id].name, self.module.globals[id].value);
        debug_assert!(self.module.values[value].uses.is_empty());
        self.forget_derived(id);
        self.module.globals[id].live = false;
        self.module.globals[id].init = Init::Absent;
        self.module.values[value].def = Def::Erased;
        self.module.global_names.remove(&name);
        let Module { strings, global_suffixes, .. } = &mut *self.module;
        global_suffixes.give_back(strings.get(name));
    }

    /// Enters a derived constant in the index by which equal ones are shared. What is learned is shared with nobody.
    fn note_derived(&mut self, id: GlobalId) {
        let global = &self.module.globals[id];
        if let (Init::Derived(d), Role::Const, false) = (&global.init, global.role, global.trainable) {
            self.module.derived.entry(d.clone()).or_insert(id);
        }
    }

    /// Takes a global out of the index of derived ones, before its contents change.
    fn forget_derived(&mut self, id: GlobalId) {
        if let Init::Derived(d) = &self.module.globals[id].init
            && self.module.derived.get(d) == Some(&id)
        {
            let d = d.clone();
            self.module.derived.remove(&d);
        }
    }

    fn unique_global_name(&mut self, wanted: &str) -> Sym {
        let name = self.module.intern(wanted);
        let Module { strings, global_names, global_suffixes, .. } = &mut *self.module;
        if !global_names.contains_key(&name) {
            return name;
        }
        let is_free = |name: &str| strings.find(name).is_none_or(|s| !global_names.contains_key(&s));
        let made = global_suffixes.make(wanted, is_free);
        self.module.intern(&made)
    }
}
