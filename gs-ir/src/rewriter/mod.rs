//! The only way to change a graph. It keeps use lists, names and provenance, infers the types of what it
//! makes, retypes users where a type changes, and notes what happened for drivers.

mod attrs;
mod globals;
mod links;
mod ops;
#[cfg(test)]
mod tests;

pub use attrs::{check_attrs, normal_attrs};
pub use ops::TakenSource;

use crate::entity::{GlobalId, GraphId, OpId, ValueId};
use crate::global::{Init, Role};
use crate::graph::{Def, Graph, GraphResult, GraphUpdate, Slot, Use};
use crate::module::Module;
use crate::types::Type;
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
        let before = old.value.some().map(|v| self.module.values[v].ty);
        self.drop_use(old);
        let used = Use::Return(graph, index as u32);
        let at = self.add_use(value, used);
        self.module.graphs[graph].results[index].slot = Slot { value, at };
        if before != Some(self.module.values[value].ty) {
            let reader = self.tell_reader(used);
            self.retype(reader.into_iter().collect());
        }
    }

    /// Lets a graph return its first `count` results only.
    pub fn truncate_results(&mut self, graph: GraphId, count: usize) {
        while self.module.graphs[graph].results.len() > count {
            if let Some(result) = self.module.graphs[graph].results.pop() {
                self.drop_use(result.slot);
            }
        }
    }

    /// Lets a graph store a value to a global at its end, replacing an earlier update of that global.
    pub fn set_update(&mut self, graph: GraphId, global: GlobalId, value: ValueId) {
        let updates = &self.module.graphs[graph].updates;
        let index = updates.iter().position(|u| u.global == global).unwrap_or(updates.len());
        match updates.get(index) {
            Some(update) => self.drop_use(update.slot),
            None => self.module.globals[global].writers += 1,
        }
        let at = self.add_use(value, Use::Update(graph, index as u32));
        let update = GraphUpdate { global, slot: Slot { value, at } };
        let updates = &mut self.module.graphs[graph].updates;
        if index < updates.len() { updates[index] = update } else { updates.push(update) }
    }
}
