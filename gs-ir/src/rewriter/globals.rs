//! Changes of globals.

use super::{NewGlobal, Rewriter, normal_attrs};
use crate::attr::AttrSet;
use crate::entity::{GlobalId, OpKind, Sym};
use crate::global::{Global, Init, Role};
use crate::graph::{Def, Value};
use crate::infer::{self, InferError};
use crate::module::Module;
use crate::types::Type;
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
        if let Init::Derived(d) = &init {
            self.module.derived.entry(d.clone()).or_insert(id);
        }
        self.module.globals.push(Global { name, role, trainable, ty, init, value, live: true })
    }

    /// A constant made from others by an operation, or an existing one that is made in the same way.
    /// Its type is inferred; it fails where the operation does not fit.
    pub fn derive_global(
        &mut self,
        name: &str,
        kind: OpKind,
        attrs: AttrSet,
        operands: &[Option<GlobalId>],
    ) -> Result<GlobalId, InferError> {
        let decl = *self.module.registry.decl(kind);
        let attrs = normal_attrs(&decl, attrs);
        let derived = crate::global::Derived { kind, attrs, operands: operands.into(), result: 0 };
        if let Some(&id) = self.module.derived.get(&derived) {
            return Ok(id);
        }
        let mut knowledge = infer::Knowledge::new(self.module);
        let facts: Vec<_> =
            operands.iter().map(|g| g.map(|g| knowledge.fact(self.module.globals[g].value))).collect();
        let facts = infer::infer_facts(&decl, &facts, &derived.attrs, &[], 1)?;
        let ty = facts.into_iter().next().map_or(Type::Any, |f| f.ty);
        Ok(self.add_global(NewGlobal {
            name,
            role: Role::Const,
            trainable: false,
            ty,
            init: Init::Derived(derived),
        }))
    }

    /// Replaces the contents (and the type) of a global.
    pub fn set_global(&mut self, id: GlobalId, ty: Type, init: Init) {
        let ty = self.module.intern_type(ty);
        let value = self.module.globals[id].value;
        self.forget_derived(id);
        self.module.globals[id].init = init;
        self.module.globals[id].ty = ty;
        if self.module.values[value].ty != ty {
            self.module.values[value].ty = ty;
            let readers = self.tell_readers(value);
            self.retype(readers);
        }
    }

    /// Changes what a global is for.
    pub fn set_role(&mut self, id: GlobalId, role: Role, trainable: bool) {
        self.module.globals[id].role = role;
        self.module.globals[id].trainable = trainable;
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
