//! The verifier: reports every error it finds in one run, each with its place. Handles are checked first, so
//! that the later checks can read freely; a module with a dangling handle is reported and not read further.

#[cfg(test)]
mod tests;

use crate::attr::TensorData;
use crate::dim::Dim;
use crate::entity::{GlobalId, GraphId, Handle, OpId, Sym, TypeId, ValueId};
use crate::global::{Derived, Init, Role};
use crate::graph::{Def, Use};
use crate::infer;
use crate::module::Module;
use crate::registry::{Arity, Regions};
use crate::rewriter::{check_attrs, normal_attrs};
use crate::types::{TensorType, Type};
use rustc_hash::FxHashSet;

/// Where an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The module as a whole.
    Module,
    /// A global.
    Global(GlobalId),
    /// A graph's signature, results or updates.
    Graph(GraphId),
    /// An operation.
    Op(OpId),
}

/// Something wrong with a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// Where.
    pub place: Place,
    /// What was found and what was expected.
    pub what: String,
}

impl VerifyError {
    /// The error as one line, its place named as in text.
    pub fn describe(&self, module: &Module) -> String {
        let place = match self.place {
            Place::Module => "module".to_owned(),
            Place::Global(g) => format!("@{}", module.str(module.global(g).name)),
            Place::Graph(g) => format!("graph @{}", module.str(module.graph(g).name)),
            Place::Op(op) => {
                let label = module.label(op);
                let name = module.opaque_name(op).unwrap_or(module.op_name(op));
                if label == name { name.to_owned() } else { format!("{name} \"{label}\"") }
            }
        };
        format!("{place}: {}", self.what)
    }
}

/// Checks everything that must hold of a module.
///
/// # Errors
/// All errors found, in the order of the module's text.
pub fn verify(module: &Module) -> Result<(), Vec<VerifyError>> {
    let mut v = Verifier { module, errors: Vec::new() };
    v.handles();
    if v.errors.is_empty() {
        v.globals();
        v.graphs();
    }
    if v.errors.is_empty() { Ok(()) } else { Err(v.errors) }
}

struct Verifier<'m> {
    module: &'m Module,
    errors: Vec<VerifyError>,
}

impl Verifier<'_> {
    fn error(&mut self, place: Place, what: impl Into<String>) {
        self.errors.push(VerifyError { place, what: what.into() });
    }

    fn show(&self, ty: &Type) -> String {
        self.module.type_words(ty)
    }

    // ---- handles ----

    /// Every handle that is read later exists, and use lists and operand places agree.
    fn handles(&mut self) {
        let m = self.module;
        for (op, data) in m.ops.iter().filter(|(_, o)| o.is_live()) {
            if data.kind.index() >= m.registry.len()
                || !m.attrs.contains(data.attrs)
                || !m.types_known(data.results())
            {
                self.error(Place::Op(op), "it holds a dangling handle");
                continue;
            }
            for (i, slot) in data.operands.iter().enumerate() {
                self.slot(Place::Op(op), slot.value, slot.at, Use::Operand(op, i as u32), true);
            }
            for (i, &r) in data.results.iter().enumerate() {
                if !r.is_none() && m.value(r).def != Def::Result(op, i as u32) {
                    self.error(Place::Op(op), format!("its result {i} says that it is defined elsewhere"));
                }
            }
        }
        for (g, data) in m.graphs.iter().filter(|(_, g)| g.live) {
            for (i, r) in data.results.iter().enumerate() {
                self.slot(Place::Graph(g), r.slot.value, r.slot.at, Use::Return(g, i as u32), false);
            }
            for (i, u) in data.updates.iter().enumerate() {
                self.slot(Place::Graph(g), u.slot.value, u.slot.at, Use::Update(g, i as u32), false);
            }
        }
    }

    fn slot(&mut self, place: Place, value: ValueId, at: u32, used: Use, optional: bool) {
        if value.is_none() {
            if !optional {
                self.error(place, "a value that it returns or stores is missing");
            }
        } else if !self.module.value_exists(value) {
            self.error(place, format!("it uses {value:?}, which does not exist"));
        } else if self.module.value(value).def == Def::Erased {
            self.error(place, format!("it uses {value:?}, whose definition was removed"));
        } else if self.module.value(value).uses.get(at as usize) != Some(&used) {
            self.error(place, format!("the use list of {value:?} does not know of this use"));
        }
    }

    // ---- globals ----

    fn globals(&mut self) {
        let m = self.module;
        for (id, g) in m.globals() {
            let place = Place::Global(id);
            if g.trainable && g.role != Role::Param {
                self.error(place, format!("a {} cannot be trainable", g.role.name()));
            }
            let Type::Tensor(ty) = m.ty(g.ty) else {
                self.error(place, "a global must be a tensor");
                continue;
            };
            match &g.init {
                Init::Data(TensorData::Bytes(b)) => match ty.bytes() {
                    Some(n) if n == b.len() => {}
                    Some(n) => {
                        self.error(place, format!("its type needs {n} bytes, its contents have {}", b.len()))
                    }
                    None => self.error(place, "its contents are stored, so its shape must be numbers"),
                },
                Init::Data(TensorData::Strings(s)) if ty.count() != Some(s.len()) => {
                    self.error(place, format!("it has {} strings, its type says otherwise", s.len()));
                }
                Init::Derived(d) => {
                    if let Some(missing) =
                        d.operands.iter().flatten().find(|o| !m.globals.get(**o).is_some_and(|g| g.live))
                    {
                        self.error(place, format!("it is derived from {missing:?}, which is gone"));
                    } else {
                        self.derived(place, d, g.ty);
                    }
                }
                Init::Splat(one) => match ty.elem.bits().div_ceil(8) as usize {
                    0 => self.error(place, "strings cannot be a splat"),
                    n if n == one.len() => {}
                    n => {
                        let what = format!("an element has {n} bytes, the splat has {}", one.len());
                        self.error(place, what);
                    }
                },
                _ => {}
            }
        }
        self.derivation_cycles();
    }

    /// The stated type of a derived global does not contradict the inferred one.
    fn derived(&mut self, place: Place, derived: &Derived, stated: TypeId) {
        let m = self.module;
        if derived.kind.index() >= m.registry.len() {
            return self.error(place, "it holds a dangling handle");
        }
        match infer::infer_derived(m, derived) {
            Err(e) => self.error(place, e.0),
            Ok(Some(fact)) if contradicts(m.ty(stated), &fact.ty) => {
                let (stated, is) = (self.show(m.ty(stated)), self.show(&fact.ty));
                self.error(place, format!("it is stated as {stated}, but is {is}"));
            }
            Ok(_) => {}
        }
    }

    /// A derived global may not depend on itself.
    fn derivation_cycles(&mut self) {
        let m = self.module;
        // 0: not seen, 1: on the path, 2: done.
        let mut state = vec![0u8; m.globals.len()];
        for root in m.globals.handles() {
            let mut stack = vec![(root, false)];
            while let Some((g, done)) = stack.pop() {
                if done {
                    state[g.index()] = 2;
                    continue;
                }
                if state[g.index()] != 0 {
                    continue;
                }
                state[g.index()] = 1;
                stack.push((g, true));
                if let Init::Derived(d) = &m.global(g).init {
                    for &o in d.operands.iter().flatten() {
                        match state.get(o.index()) {
                            Some(1) => self.error(Place::Global(g), "its derivation depends on itself"),
                            Some(0) => stack.push((o, false)),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    // ---- graphs ----

    fn graphs(&mut self) {
        let m = self.module;
        let mut names = FxHashSet::default();
        for &g in m.entries() {
            if !names.insert(m.graph(g).name) {
                self.error(Place::Graph(g), "another graph has the same name");
            }
            self.graph(g);
        }
    }

    /// Checks a graph and its regions in order. An explicit stack: regions nest as deep as a file likes.
    fn graph(&mut self, root: GraphId) {
        enum Task {
            Enter(GraphId),
            Check(OpId),
            Define(OpId),
            Leave(GraphId),
        }
        let m = self.module;
        let mut visible = FxHashSet::default();
        let mut scopes: Vec<Vec<ValueId>> = Vec::new();
        let mut tasks = vec![Task::Enter(root)];
        while let Some(task) = tasks.pop() {
            match task {
                Task::Enter(g) => {
                    scopes.push(m.graph(g).params().to_vec());
                    visible.extend(m.graph(g).params());
                    tasks.extend([Task::Leave(g), Task::Check(m.graphs[g].first)]);
                }
                Task::Check(op) if op.is_none() => {}
                Task::Check(op) => {
                    self.operation(op, &visible);
                    tasks.push(Task::Define(op));
                    tasks.extend(m.op(op).regions().iter().rev().map(|&r| Task::Enter(r)));
                }
                Task::Define(op) => {
                    let results = m.op(op).results().iter().filter_map(|v| v.some());
                    if let Some(scope) = scopes.last_mut() {
                        scope.extend(results.clone());
                    }
                    visible.extend(results);
                    tasks.push(Task::Check(m.ops[op].next));
                }
                Task::Leave(g) => {
                    self.graph_end(g, &visible);
                    for v in scopes.pop().unwrap_or_default() {
                        visible.remove(&v);
                    }
                }
            }
        }
    }

    fn graph_end(&mut self, g: GraphId, visible: &FxHashSet<ValueId>) {
        let m = self.module;
        let graph = m.graph(g);
        for v in graph.results().chain(graph.updates().map(|u| u.1)) {
            self.visible(Place::Graph(g), v, visible);
        }
        let params: Vec<_> = graph.params().iter().map(|&p| m.value(p).name).collect();
        self.unique_names(g, "parameters", params);
        self.unique_names(g, "results", graph.result_names().collect());
        for (i, (value, declared)) in graph.results().zip(graph.result_types()).enumerate() {
            let (declared, is) = (m.ty(declared), m.type_of(value));
            if contradicts(declared, is) {
                self.error(
                    Place::Graph(g),
                    format!("result {i} is declared as {}, but is {}", self.show(declared), self.show(is)),
                );
            }
        }
        if !graph.parent.is_none() && graph.updates().len() > 0 {
            self.error(Place::Graph(g), "only an entry graph stores to globals, a region does not");
        }
        let mut seen = FxHashSet::default();
        for (global, value) in graph.updates() {
            let data = m.global(global);
            let name = m.str(data.name);
            if !seen.insert(global) {
                self.error(Place::Graph(g), format!("@{name} is stored twice"));
            }
            if data.role == Role::Const {
                self.error(Place::Graph(g), format!("@{name} is a const and cannot be stored"));
            }
            if m.value(value).ty != data.ty {
                self.error(Place::Graph(g), format!("@{name} is stored with a value of another type"));
            }
        }
    }

    /// Names of the interface are unique, where there are any.
    fn unique_names(&mut self, g: GraphId, what: &str, mut names: Vec<Sym>) {
        let empty = self.module.find_str("");
        names.retain(|n| !n.is_none() && Some(*n) != empty);
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|w| w[0] == w[1]) {
            let name = self.module.str(pair[0]).to_owned();
            self.error(Place::Graph(g), format!("two of its {what} are named `{name}`"));
        }
    }

    fn visible(&mut self, place: Place, v: ValueId, visible: &FxHashSet<ValueId>) {
        let ok = match self.module.value(v).def {
            Def::Global(g) => self.module.global(g).live,
            _ => visible.contains(&v),
        };
        if !ok {
            let name = self.module.value(v).name.some().map(|name| self.module.str(name).to_owned());
            let value = name.map_or_else(|| "a value without a name".into(), |name| format!("%{name}"));
            self.error(place, format!("it uses {value} before or outside its definition"));
        }
    }

    fn operation(&mut self, op: OpId, visible: &FxHashSet<ValueId>) {
        let m = self.module;
        let data = m.op(op);
        let decl = m.decl(op);
        for v in data.present_operands() {
            self.visible(Place::Op(op), v, visible);
        }
        let before = self.errors.len();
        for i in 0..data.operand_count().max(decl.operands.len()) {
            match (decl.operand(i), data.operand(i)) {
                (None, Some(_)) => self.error(Place::Op(op), format!("operand {i} is one too many")),
                (Some(d), None) if d.arity == Arity::One => {
                    self.error(Place::Op(op), format!("operand `{}` is missing", d.name));
                }
                _ => {}
            }
        }
        if !decl.may_have_results(data.results().len()) {
            self.error(
                Place::Op(op),
                format!("it has {} results, {} are declared", data.results().len(), decl.results.len()),
            );
        }
        let regions = match decl.regions {
            Regions::None => data.regions().is_empty(),
            Regions::Named(names) => data.regions().len() == names.len(),
            Regions::Any => true,
        };
        if !regions {
            self.error(
                Place::Op(op),
                format!("it has {} regions, which its operator does not declare", data.regions().len()),
            );
        }
        let attrs = m.attrs_of(op);
        if let Err(e) = check_attrs(decl, attrs) {
            self.error(Place::Op(op), e.0);
        } else if normal_attrs(decl, attrs.clone()) != *attrs {
            self.error(
                Place::Op(op),
                "an attribute is written at its default or in another form than the normal one",
            );
        }
        if self.errors.len() == before {
            self.types(op);
        }
    }

    /// Stored result types do not contradict inferred ones.
    fn types(&mut self, op: OpId) {
        let m = self.module;
        match infer::infer_op(m, op) {
            Err(e) => self.error(Place::Op(op), e.0),
            Ok(facts) => {
                for (i, fact) in facts.iter().enumerate() {
                    let Some(r) = m.op(op).results().get(i).copied().and_then(ValueId::some) else {
                        continue;
                    };
                    if contradicts(m.type_of(r), &fact.ty) {
                        let (stated, is) = (self.show(m.type_of(r)), self.show(&fact.ty));
                        self.error(Place::Op(op), format!("result {i} is stated as {stated}, but is {is}"));
                    }
                }
            }
        }
    }
}

/// Whether no value can be of both types. A loop, because sequences nest as deep as a file likes.
pub fn contradicts(a: &Type, b: &Type) -> bool {
    let (mut a, mut b) = (a, b);
    loop {
        match (a, b) {
            (Type::Any, _) | (_, Type::Any) => return false,
            (Type::Tensor(x), Type::Tensor(y)) | (Type::Sparse(x), Type::Sparse(y)) => {
                return tensors_contradict(x, y);
            }
            (Type::Sequence(x), Type::Sequence(y)) | (Type::Optional(x), Type::Optional(y)) => {
                (a, b) = (x, y);
            }
            (Type::Map(k, x), Type::Map(l, y)) if k == l => (a, b) = (x, y),
            _ => return true,
        }
    }
}

fn tensors_contradict(a: &TensorType, b: &TensorType) -> bool {
    let dims_contradict = |x: &[Dim], y: &[Dim]| {
        x.len() != y.len() || x.iter().zip(y).any(|(p, q)| p != q && p.surely_differs(q))
    };
    a.elem != b.elem || matches!((a.dims(), b.dims()), (Some(x), Some(y)) if dims_contradict(x, y))
}

impl Module {
    fn types_known(&self, values: &[ValueId]) -> bool {
        values
            .iter()
            .filter_map(|v| v.some())
            .all(|v| self.value_exists(v) && self.types.contains(self.values[v].ty))
    }
}
