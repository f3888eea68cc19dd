//! The only way to change a graph. It keeps use lists, names and provenance, infers the types of what it
//! makes, retypes users where a type changes, and notes what happened for drivers.

use crate::attr::{Attr, AttrSet};
use crate::dim::Dim;
use crate::entity::{GlobalId, GraphId, Handle, OpId, OpKind, SourceId, Sym, TypeId, ValueId};
use crate::global::{Global, Init, Role};
use crate::graph::{Def, Graph, GraphResult, GraphUpdate, LedgerEntry, Op, Slot, Use, Value};
use crate::infer::{self, InferError};
use crate::module::Module;
use crate::registry::{AttrKind, OpDecl};
use crate::types::Type;
use smallvec::SmallVec;
use std::ops::{Deref, DerefMut};

/// Where a new operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Behind the last operation of a graph.
    End(GraphId),
    /// Just before an operation.
    Before(OpId),
    /// Just behind an operation.
    After(OpId),
}

/// A global to be made.
#[derive(Clone, Debug)]
pub struct NewGlobal<'a> {
    /// The wanted name; a suffix is added when it is taken.
    pub name: &'a str,
    /// What it is for.
    pub role: Role,
    /// Whether an optimiser may change it.
    pub trainable: bool,
    /// Its type.
    pub ty: Type,
    /// Its contents.
    pub init: Init,
}

/// What changed, in order, for drivers that keep worklists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation was made.
    Created(OpId),
    /// An operation was erased.
    Erased(OpId),
    /// An operand, an attribute or the type of an operand of this operation changed.
    Changed(OpId),
    /// A value lost a use: its producer may be dead now.
    LostUse(ValueId),
}

/// Access to a module for changing it.
pub struct Rewriter<'m> {
    module: &'m mut Module,
    events: Vec<Event>,
}

impl Deref for Rewriter<'_> {
    type Target = Module;
    fn deref(&self) -> &Module {
        self.module
    }
}

impl DerefMut for Rewriter<'_> {
    fn deref_mut(&mut self) -> &mut Module {
        self.module
    }
}

impl<'m> Rewriter<'m> {
    /// Starts changing a module.
    pub fn new(module: &'m mut Module) -> Self {
        Self { module, events: Vec::new() }
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    // ---- graphs ----

    /// Adds an entry point.
    pub fn add_graph(&mut self, name: &str) -> GraphId {
        let graph = self.new_graph(name, OpId::NONE);
        self.module.entries.push(graph);
        graph
    }

    /// Adds a region to an operation.
    pub fn add_region(&mut self, op: OpId, name: &str) -> GraphId {
        let graph = self.new_graph(name, op);
        self.module.ops[op].regions.get_or_insert_default().push(graph);
        graph
    }

    fn new_graph(&mut self, name: &str, parent: OpId) -> GraphId {
        let name = self.module.intern(name);
        self.module.graphs.push(Graph {
            name,
            parent,
            params: Vec::new(),
            first: OpId::NONE,
            last: OpId::NONE,
            results: Vec::new(),
            updates: Vec::new(),
            live: true,
        })
    }

    /// Adds a parameter to a graph. The name is interface; an empty one means none.
    pub fn add_param(&mut self, graph: GraphId, name: &str, ty: Type) -> ValueId {
        let index = self.module.graphs[graph].params.len() as u32;
        let value = self.new_value(ty, Def::Param(graph, index), name);
        self.module.graphs[graph].params.push(value);
        value
    }

    /// Adds a result to a graph. The name is interface; the declared type is the value's unless given.
    pub fn add_result(&mut self, graph: GraphId, name: &str, value: ValueId, ty: Option<Type>) {
        let name = self.module.intern(name);
        let ty = match ty {
            Some(t) => self.module.intern_type(t),
            None => self.module.values[value].ty,
        };
        let index = self.module.graphs[graph].results.len() as u32;
        let at = self.add_use(value, Use::Return(graph, index));
        self.module.graphs[graph].results.push(GraphResult { name, slot: Slot { value, at }, ty });
    }

    /// Lets a graph return another value as result number `index`, under the same name.
    pub fn set_result(&mut self, graph: GraphId, index: usize, value: ValueId) {
        let old = self.module.graphs[graph].results[index].slot;
        self.drop_use(old);
        let at = self.add_use(value, Use::Return(graph, index as u32));
        self.module.graphs[graph].results[index].slot = Slot { value, at };
    }

    /// Lets a graph store a value to a global at its end, replacing an earlier update of that global.
    pub fn set_update(&mut self, graph: GraphId, global: GlobalId, value: ValueId) {
        let updates = &self.module.graphs[graph].updates;
        let index = updates.iter().position(|u| u.global == global).unwrap_or(updates.len());
        if let Some(update) = updates.get(index) {
            let old = update.slot;
            self.drop_use(old);
        }
        let at = self.add_use(value, Use::Update(graph, index as u32));
        let update = GraphUpdate { global, slot: Slot { value, at } };
        let updates = &mut self.module.graphs[graph].updates;
        if index < updates.len() { updates[index] = update } else { updates.push(update) }
    }

    // ---- globals ----

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
            self.retype_users(value);
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
        let mut name = self.module.intern(wanted);
        let mut n = 1;
        while self.module.global_names.contains_key(&name) {
            name = self.module.intern(&format!("{wanted}.{n}"));
            n += 1;
        }
        name
    }

    // ---- operations ----

    /// Makes an operation, infers the types of its results and brings its attributes into normal form.
    ///
    /// # Errors
    /// Where operands and attributes do not fit the operator; nothing is changed then.
    pub fn create(
        &mut self,
        kind: OpKind,
        operands: &[Option<ValueId>],
        attrs: AttrSet,
        result_count: usize,
        at: At,
    ) -> Result<OpId, InferError> {
        let decl = *self.module.registry.decl(kind);
        let attrs = normal_attrs(&decl, attrs);
        check_attrs(&decl, &attrs)?;
        let mut knowledge = infer::Knowledge::new(self.module);
        let facts: Vec<_> = operands.iter().map(|v| v.map(|v| knowledge.fact(v))).collect();
        let results = infer::infer_facts(&decl, &facts, &attrs, &[], result_count)?;
        let types = results.into_iter().map(|f| self.module.settle(f.ty)).collect::<Vec<_>>();
        Ok(self.create_typed(kind, operands, attrs, &types, at))
    }

    /// [`Self::create`] by operator name with one result, which is returned.
    pub fn emit(
        &mut self,
        name: &str,
        operands: &[ValueId],
        attrs: AttrSet,
        at: At,
    ) -> Result<ValueId, InferError> {
        let kind = self
            .module
            .registry
            .kind(name)
            .ok_or_else(|| InferError(format!("no operator is named `{name}`")))?;
        let operands: SmallVec<[Option<ValueId>; 4]> = operands.iter().map(|&v| v.some()).collect();
        let op = self.create(kind, &operands, attrs, 1, at)?;
        Ok(self.module.ops[op].result())
    }

    /// Makes an operation whose result types are given (parsers and importers), with attributes in normal form.
    pub fn create_typed(
        &mut self,
        kind: OpKind,
        operands: &[Option<ValueId>],
        attrs: AttrSet,
        types: &[Type],
        at: At,
    ) -> OpId {
        let attrs = self.module.intern_attrs(attrs);
        let op = self.module.ops.push(Op {
            kind,
            attrs,
            graph: GraphId::NONE,
            source: SourceId::from_index(0),
            prev: OpId::NONE,
            next: OpId::NONE,
            operands: SmallVec::new(),
            results: SmallVec::new(),
            regions: None,
        });
        for (i, operand) in operands.iter().enumerate() {
            let slot = match operand {
                Some(value) => Slot { value: *value, at: self.add_use(*value, Use::Operand(op, i as u32)) },
                None => Slot::EMPTY,
            };
            self.module.ops[op].operands.push(slot);
        }
        for (i, ty) in types.iter().enumerate() {
            let value = self.new_value(ty.clone(), Def::Result(op, i as u32), "");
            self.module.ops[op].results.push(value);
        }
        self.link(op, at);
        self.events.push(Event::Created(op));
        op
    }

    /// Drops a result that nothing uses: the place stays, the value is gone (ONNX's omitted outputs).
    pub fn omit_result(&mut self, op: OpId, index: usize) {
        let value = self.module.ops[op].results[index];
        debug_assert!(self.module.values[value].uses.is_empty());
        self.module.values[value].def = Def::Erased;
        self.module.ops[op].results[index] = ValueId::NONE;
    }

    /// Replaces an operand.
    pub fn set_operand(&mut self, op: OpId, index: usize, value: Option<ValueId>) {
        let old = self.module.ops[op].operands[index];
        if old.value.some() == value {
            return;
        }
        self.drop_use(old);
        let slot = match value {
            Some(value) => Slot { value, at: self.add_use(value, Use::Operand(op, index as u32)) },
            None => Slot::EMPTY,
        };
        self.module.ops[op].operands[index] = slot;
        self.events.push(Event::Changed(op));
        self.reinfer(op);
    }

    /// Replaces the attributes, brought into normal form.
    pub fn set_attrs(&mut self, op: OpId, attrs: AttrSet) {
        let decl = *self.module.decl(op);
        let attrs = self.module.intern_attrs(normal_attrs(&decl, attrs));
        if self.module.ops[op].attrs != attrs {
            self.module.ops[op].attrs = attrs;
            self.events.push(Event::Changed(op));
            self.reinfer(op);
        }
    }

    /// States the source nodes that an operation stands for.
    pub fn set_source(&mut self, op: OpId, names: &[Sym]) {
        self.module.ops[op].source = self.module.intern_source(names);
    }

    /// Adds source nodes to those that an operation stands for.
    pub fn add_source(&mut self, op: OpId, names: &[Sym]) {
        let mut all = self.module.source_of(op).to_vec();
        all.extend_from_slice(names);
        self.set_source(op, &all);
    }

    /// Names a value as the source network does.
    pub fn set_name(&mut self, value: ValueId, name: &str) {
        self.module.values[value].name = if name.is_empty() { Sym::NONE } else { self.module.intern(name) };
    }

    /// States the type of a value (importers: what the file declares).
    pub fn set_type(&mut self, value: ValueId, ty: Type) {
        self.module.values[value].ty = self.module.intern_type(ty);
    }

    /// Lets every user of `old` use `new` instead. The name goes along where `new` has none.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        let uses = std::mem::take(&mut self.module.values[old].uses);
        let retype = self.module.values[old].ty != self.module.values[new].ty;
        for u in &uses {
            let at = self.add_use(new, *u);
            *self.slot_mut(*u) = Slot { value: new, at };
            if let Use::Operand(op, _) = u {
                self.events.push(Event::Changed(*op));
            }
        }
        if self.module.values[new].name.is_none() && !matches!(self.module.values[new].def, Def::Global(_)) {
            self.module.values[new].name = self.module.values[old].name;
        }
        self.events.push(Event::LostUse(old));
        if retype {
            self.retype_users(new);
        }
    }

    /// As [`Self::replace_uses`], for the uses that `select` names only.
    pub fn replace_uses_where(&mut self, old: ValueId, new: ValueId, select: impl Fn(&Module, Use) -> bool) {
        let uses: Vec<Use> =
            self.module.values[old].uses.iter().copied().filter(|&u| select(self.module, u)).collect();
        for u in uses {
            match u {
                Use::Operand(op, i) => self.set_operand(op, i as usize, Some(new)),
                Use::Return(g, i) => self.set_result(g, i as usize, new),
                Use::Update(g, i) => {
                    let global = self.module.graphs[g].updates[i as usize].global;
                    self.set_update(g, global, new);
                }
            }
        }
    }

    /// Removes an operation whose results are not used, with everything in its regions.
    pub fn erase(&mut self, op: OpId) {
        let mut pending = vec![op];
        while let Some(op) = pending.pop() {
            for g in self.module.ops[op].regions().to_vec() {
                pending.extend(self.module.ops_in(g));
                self.clear_graph(g);
            }
            // One at a time: dropping a use can move another use of the same operation.
            for i in 0..self.module.ops[op].operands.len() {
                let slot = std::mem::replace(&mut self.module.ops[op].operands[i], Slot::EMPTY);
                self.drop_use(slot);
            }
            self.module.ops[op].operands.clear();
            for v in std::mem::take(&mut self.module.ops[op].results) {
                if let Some(v) = v.some() {
                    self.module.values[v].def = Def::Erased;
                }
            }
            self.unlink(op);
            self.events.push(Event::Erased(op));
        }
    }

    /// Removes an entry graph with all it holds.
    pub fn erase_graph(&mut self, graph: GraphId) {
        let ops: Vec<OpId> = self.module.ops_in(graph).collect();
        self.clear_graph(graph);
        for &op in ops.iter().rev() {
            self.erase(op);
        }
        self.module.entries.retain(|&g| g != graph);
    }

    fn clear_graph(&mut self, graph: GraphId) {
        self.module.graphs[graph].live = false;
        for i in 0..self.module.graphs[graph].results.len() {
            let slot = std::mem::replace(&mut self.module.graphs[graph].results[i].slot, Slot::EMPTY);
            self.drop_use(slot);
        }
        for i in 0..self.module.graphs[graph].updates.len() {
            let slot = std::mem::replace(&mut self.module.graphs[graph].updates[i].slot, Slot::EMPTY);
            self.drop_use(slot);
        }
        self.module.graphs[graph].results.clear();
        self.module.graphs[graph].updates.clear();
    }

    /// Replaces the results of an operation by other values and erases it. The source nodes it stood for are
    /// taken over by `into` where that is given, else they are noted as gone.
    pub fn replace(&mut self, op: OpId, values: &[ValueId], into: Option<OpId>, entry: LedgerEntry) {
        let results: SmallVec<[ValueId; 2]> = self.module.ops[op].results.clone();
        for (old, new) in results.iter().zip(values) {
            if let (Some(old), Some(new)) = (old.some(), new.some()) {
                self.replace_uses(old, new);
            }
        }
        self.retire(op, into, entry);
    }

    /// Erases an operation and accounts for the source nodes it stood for.
    pub fn retire(&mut self, op: OpId, into: Option<OpId>, entry: LedgerEntry) {
        let names = self.module.source_of(op).to_vec();
        match into.filter(|&o| o != op) {
            Some(heir) => self.add_source(heir, &names),
            None => {
                for n in names {
                    self.module.gone.insert(n, entry.clone());
                }
            }
        }
        self.erase(op);
    }

    /// A ledger entry with interned words.
    pub fn entry(&mut self, code: &str, rule: &str, into: Option<Sym>, reason: Option<&str>) -> LedgerEntry {
        let reason = reason.map(|r| self.module.intern(r));
        LedgerEntry { code: self.module.intern(code), rule: self.module.intern(rule), into, reason }
    }

    /// Moves an operation just before another one of the same graph.
    pub fn move_before(&mut self, op: OpId, other: OpId) {
        if op != other {
            self.unlink(op);
            self.link(op, At::Before(other));
        }
    }

    // ---- bookkeeping ----

    fn new_value(&mut self, ty: Type, def: Def, name: &str) -> ValueId {
        let ty = self.module.intern_type(ty);
        let name = if name.is_empty() { Sym::NONE } else { self.module.intern(name) };
        self.module.values.push(Value { ty, def, name, uses: SmallVec::new() })
    }

    fn add_use(&mut self, value: ValueId, u: Use) -> u32 {
        let uses = &mut self.module.values[value].uses;
        uses.push(u);
        (uses.len() - 1) as u32
    }

    /// Removes a use in constant time: the last one takes its place and its slot is told.
    fn drop_use(&mut self, slot: Slot) {
        let Some(value) = slot.value.some() else { return };
        let uses = &mut self.module.values[value].uses;
        uses.swap_remove(slot.at as usize);
        if let Some(&moved) = uses.get(slot.at as usize) {
            self.slot_mut(moved).at = slot.at;
        }
        self.events.push(Event::LostUse(value));
    }

    fn slot_mut(&mut self, u: Use) -> &mut Slot {
        match u {
            Use::Operand(op, i) => &mut self.module.ops[op].operands[i as usize],
            Use::Return(g, i) => &mut self.module.graphs[g].results[i as usize].slot,
            Use::Update(g, i) => &mut self.module.graphs[g].updates[i as usize].slot,
        }
    }

    fn link(&mut self, op: OpId, at: At) {
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

    fn unlink(&mut self, op: OpId) {
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
    fn reinfer(&mut self, op: OpId) {
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

    fn retype_users(&mut self, value: ValueId) {
        for op in self.module.user_ops(value) {
            self.reinfer(op);
        }
    }
}

/// Attributes in normal form: defaults absent, lists of numbers as extents where the declaration says extents.
pub fn normal_attrs(decl: &OpDecl, attrs: AttrSet) -> AttrSet {
    let normal = |name: &str, value: &Attr| -> Option<Attr> {
        let Some(a) = decl.attr(name) else { return Some(value.clone()) };
        if a.is_default(value) {
            return None;
        }
        match (a.kind, value) {
            (AttrKind::Dims, Attr::Ints(v)) => Some(Attr::dims(v.iter().map(|&n| Dim::Const(n)))),
            _ => Some(value.clone()),
        }
    };
    attrs.iter().filter_map(|(n, v)| Some((n, normal(n, v)?))).collect()
}

/// Checks attributes against the declaration: known names, right kinds, required ones there.
pub fn check_attrs(decl: &OpDecl, attrs: &AttrSet) -> Result<(), InferError> {
    if decl.name == "opaque" {
        return Ok(());
    }
    for (name, value) in attrs.iter() {
        let Some(a) = decl.attr(name) else {
            return Err(InferError(format!("`{}` has no attribute `{name}`", decl.name)));
        };
        if !a.kind.accepts(value) {
            return Err(InferError(format!(
                "attribute `{name}` of `{}` cannot be {}",
                decl.name,
                value.kind_name()
            )));
        }
    }
    match decl
        .attrs
        .iter()
        .find(|a| a.default == crate::registry::Default::Required && attrs.get(a.name).is_none())
    {
        Some(a) => Err(InferError(format!("`{}` needs the attribute `{}`", decl.name, a.name))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elem::ElemType;

    fn f32s() -> Type {
        Type::fixed(ElemType::F32, &[4])
    }

    #[test]
    fn an_operation_that_uses_a_value_twice_can_be_erased() {
        let mut module = Module::new();
        let mut r = Rewriter::new(&mut module);
        let g = r.add_graph("main");
        let x = r.add_param(g, "x", f32s());
        let y = r.emit("add", &[x, x], AttrSet::new(), At::End(g)).unwrap();
        let z = r.emit("add", &[x, x], AttrSet::new(), At::End(g)).unwrap();
        r.add_result(g, "a", x, None);
        r.add_result(g, "b", x, None);
        r.add_result(g, "c", z, None);
        let op = r.producer(y).unwrap();
        r.erase(op);
        crate::verify(&module).unwrap();
        assert_eq!(module.value(x).uses().len(), 4);
        Rewriter::new(&mut module).erase_graph(g);
        assert!(module.value(x).uses().is_empty());
    }

    #[test]
    fn replacing_uses_keeps_interface_names_and_use_lists() {
        let mut module = Module::new();
        let mut r = Rewriter::new(&mut module);
        let g = r.add_graph("main");
        let x = r.add_param(g, "x", f32s());
        let y = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
        let z = r.emit("add", &[y, y], AttrSet::new(), At::End(g)).unwrap();
        r.add_result(g, "out", y, None);
        r.add_result(g, "sum", z, None);
        let op = r.producer(y).unwrap();
        let entry = r.entry("removed", "test", None, None);
        r.replace(op, &[x], None, entry);
        crate::verify(&module).unwrap();
        assert_eq!(module.value(x).uses().len(), 3);
        let names: Vec<&str> = module.graph(g).result_names().map(|n| module.str(n)).collect();
        assert_eq!(names, ["out", "sum"]);
    }

    #[test]
    fn a_changed_type_reaches_the_users() {
        let mut module = Module::new();
        let mut r = Rewriter::new(&mut module);
        let g = r.add_graph("main");
        let x = r.add_param(g, "x", f32s());
        let wide = r.add_param(g, "wide", Type::fixed(ElemType::F32, &[8]));
        let y = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
        let z = r.emit("relu", &[y], AttrSet::new(), At::End(g)).unwrap();
        let op = r.producer(y).unwrap();
        r.set_operand(op, 0, Some(wide));
        assert_eq!(module.type_of(z), &Type::fixed(ElemType::F32, &[8]));
    }
}
