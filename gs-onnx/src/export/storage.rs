//! Which globals are written, and which of them as nodes over others.
//!
//! What is derived is written as a node where that takes fewer bytes than its elements would: a weight that is stored
//! narrow stays so, with the nodes that widen it. Chains of them are weighed as a whole, so that one of whose steps
//! each the result is larger than what it starts from (packed codes, their numbers, what a table says of them) counts by
//! what is stored in the end.

use gs_ir::{Derived, Global, GlobalId, GraphId, Init, Module, Role, TensorType};
use rustc_hash::{FxHashMap, FxHashSet};

use super::left_out::{is_used, read_within};
use super::op::can_write_kind;
use super::opset::{Choice, first_opset};

/// How the globals of a module are written.
pub(super) struct Storage {
    nodes: FxHashSet<GlobalId>,
    needed: FxHashSet<GlobalId>,
}

impl Storage {
    /// Plans for a version. `narrow`: element types that a later version brought count as if they were there.
    pub(super) fn plan(module: &Module, main: GraphId, choice: &Choice, narrow: bool) -> Self {
        let mut sizes = Sizes { module, choice, narrow, bytes: FxHashMap::default() };
        let mut nodes = FxHashSet::default();
        for (id, _) in module.globals() {
            sizes.weigh(id, &mut nodes);
        }
        let needed = needed(module, main, &nodes);
        Self { nodes, needed }
    }

    /// Whether the file holds a global.
    pub(super) fn writes(&self, id: GlobalId) -> bool {
        self.needed.contains(&id)
    }

    /// Whether it is written as a node over the globals that it is derived from.
    pub(super) fn is_node(&self, id: GlobalId) -> bool {
        self.nodes.contains(&id)
    }

    /// What the file holds.
    pub(super) fn written(&self) -> impl Iterator<Item = GlobalId> + '_ {
        self.needed.iter().copied()
    }
}

/// Which globals are written: those that the graph reads, those that a run may override, what their nodes read, and those
/// of which nothing makes use at all (an initializer of the source may be one).
fn needed(module: &Module, main: GraphId, nodes: &FxHashSet<GlobalId>) -> FxHashSet<GlobalId> {
    let read = read_within(module, main);
    let bases: FxHashSet<GlobalId> = module.globals().flat_map(|(_, g)| derived_operands(g)).collect();
    let is_idle = |id: GlobalId, g: &Global| !bases.contains(&id) && !is_used(module, id, g);
    let is_root = |id, g: &Global| read.contains(&g.value) || g.role == Role::Input || is_idle(id, g);
    let roots = module.globals().filter(|&(id, g)| is_root(id, g));
    let mut pending: Vec<GlobalId> = roots.map(|(id, _)| id).collect();
    let mut needed = FxHashSet::default();
    while let Some(id) = pending.pop() {
        if needed.insert(id) && nodes.contains(&id) {
            pending.extend(derived_operands(module.global(id)));
        }
    }
    needed
}

/// The bytes that globals take in the file.
struct Sizes<'m> {
    module: &'m Module,
    choice: &'m Choice,
    narrow: bool,
    bytes: FxHashMap<GlobalId, Option<usize>>,
}

impl Sizes<'_> {
    /// Weighs a global, behind those that it is derived from. An explicit stack: derivations are as long as a file likes.
    fn weigh(&mut self, id: GlobalId, nodes: &mut FxHashSet<GlobalId>) {
        let module = self.module;
        let mut pending = vec![(id, false)];
        while let Some((id, operands_done)) = pending.pop() {
            if self.bytes.contains_key(&id) {
                continue;
            }
            let global = module.global(id);
            let ty = module.ty(global.ty).as_tensor();
            let own = ty.and_then(TensorType::bytes);
            let Some(derived) = self.writable(global) else {
                self.bytes.insert(id, own);
                continue;
            };
            if !operands_done {
                pending.push((id, true));
                pending.extend(derived_operands(global).map(|o| (o, false)));
                continue;
            }
            let parts = derived.operands.iter().flatten();
            let of = |o: &GlobalId| self.bytes.get(o).copied().flatten();
            let stored = parts.map(of).try_fold(0usize, |n, s| n.checked_add(s?));
            let smaller = matches!((stored, own), (Some(stored), Some(own)) if stored < own);
            if smaller {
                nodes.insert(id);
            }
            self.bytes.insert(id, if smaller { stored } else { own });
        }
    }

    /// The derivation of a global, if it can be written as a node.
    fn writable<'g>(&self, global: &'g Global) -> Option<&'g Derived> {
        let module = self.module;
        let Init::Derived(derived) = &global.init else { return None };
        if global.role == Role::Input {
            return None; // a run can override an initializer only
        }
        let known = |id: GlobalId| {
            let elem = module.ty(module.global(id).ty).elem();
            self.narrow || elem.is_some_and(|e| first_opset(e) <= self.choice.main)
        };
        let possible = derived.results == 1
            && derived_operands(global).all(known)
            && can_write_kind(module, derived.kind, &derived.attrs, self.choice);
        possible.then_some(derived)
    }
}

/// The globals that a global is derived from.
pub(super) fn derived_operands(global: &Global) -> impl Iterator<Item = GlobalId> {
    let operands = match &global.init {
        Init::Derived(d) => d.operands.as_slice(),
        _ => &[],
    };
    operands.iter().flatten().copied()
}
