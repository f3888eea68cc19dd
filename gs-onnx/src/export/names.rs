//! Names of values and nodes: those of the source where they are free, else with a number behind them.
//! What is interface is reserved first.

use gs_ir::unique::Suffixes;
use gs_ir::{Def, GraphId, Handle, Module, OpId, Role, ValueId};
use rustc_hash::FxHashSet;

/// Names given out. Values and nodes have name spaces of their own.
pub(super) struct Names {
    values: Vec<Option<String>>,
    written: Vec<bool>,
    used: Unique,
    used_nodes: Unique,
}

#[derive(Default)]
struct Unique {
    used: FxHashSet<String>,
    suffixes: Suffixes,
}

impl Unique {
    fn take(&mut self, wanted: &str) -> String {
        if self.used.insert(wanted.to_owned()) {
            return wanted.to_owned();
        }
        self.suffixes.make(wanted, |name| self.used.insert(name.to_owned()))
    }
}

impl Names {
    pub(super) fn new(module: &Module) -> Self {
        let values = vec![None; module.value_capacity()];
        let written = vec![false; module.value_capacity()];
        Self { values, written, used: Unique::default(), used_nodes: Unique::default() }
    }

    /// Gives inputs and outputs of the main graph their names, which nothing else may have.
    pub(super) fn reserve_interface(&mut self, module: &Module, main: GraphId) {
        let graph = module.graph(main);
        for &p in graph.params() {
            let name = module.str(module.value(p).name);
            let name = self.used.take(if name.is_empty() { "input" } else { name });
            self.set(p, name);
        }
        for (_, global) in module.globals().filter(|(_, g)| g.role == Role::Input) {
            let name = self.used.take(module.str(global.name));
            self.set(global.value, name);
        }
        for (value, name) in graph.results().zip(graph.result_names()) {
            let name = module.str(name);
            let is_new = self.used.used.insert(name.to_owned());
            let named_by_it = match module.value(value).def {
                Def::Result(op, _) => module.op(op).graph == main,
                Def::Global(g) => module.str(module.global(g).name) == name,
                Def::Param(..) | Def::Erased => false,
            };
            if is_new && named_by_it && self.of(value).is_none() {
                self.set(value, name.to_owned());
            }
        }
    }

    fn set(&mut self, value: ValueId, name: String) {
        if let Some(place) = self.values.get_mut(value.index()) {
            *place = Some(name);
        }
    }

    /// Whether a global was written already.
    pub(super) fn is_written(&self, value: ValueId) -> bool {
        self.written.get(value.index()).copied().unwrap_or(false)
    }

    pub(super) fn set_written(&mut self, value: ValueId) {
        if let Some(place) = self.written.get_mut(value.index()) {
            *place = true;
        }
    }

    /// The name of a value that has one already.
    pub(super) fn of(&self, value: ValueId) -> Option<&str> {
        self.values.get(value.index())?.as_deref()
    }

    /// The name of a value, made of `wanted` where it has none yet.
    pub(super) fn value(&mut self, value: ValueId, wanted: &str) -> String {
        if let Some(name) = self.of(value) {
            return name.to_owned();
        }
        let name = self.used.take(wanted);
        self.set(value, name.clone());
        name
    }

    /// A name for a tensor that no value of the module stands for.
    pub(super) fn extra(&mut self, wanted: &str) -> String {
        self.used.take(wanted)
    }

    /// A name for a node.
    pub(super) fn node(&mut self, wanted: &str) -> String {
        self.used_nodes.take(wanted)
    }
}

/// What an operation would like its node to be called.
pub(super) fn wanted_node(module: &Module, op: OpId, first_result: &str) -> String {
    let named = module.first_source(op).map(|s| module.str(s)).filter(|s| !s.is_empty());
    let result = (!first_result.is_empty()).then_some(first_result);
    named.or(result).unwrap_or(module.op_name(op)).to_owned()
}
