//! The module: owner of every arena. Reading happens here; changing happens through [`crate::Rewriter`].

use crate::attr::AttrSet;
use crate::entity::{Arena, AttrsId, GlobalId, GraphId, OpId, SourceId, Sym, SymbolId, TypeId, ValueId};
use crate::global::{Derived, Global};
use crate::graph::{Def, Graph, LedgerEntry, Op, Symbol, Use, Value};
use crate::intern::Interner;
use crate::registry::{OpDecl, Registry};
use crate::source::{SourceNames, Sources};
use crate::types::Type;
use crate::unique::Suffixes;
use indexmap::IndexMap;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The attribute under which an opaque operation keeps the name it has in its own world, as `domain::Type`.
/// No ONNX attribute can have this name.
pub const OPAQUE_NAME: &str = "$op";

/// A network: entry graphs, globals and the ledger. What is printed of it is all there is.
///
/// Cloning copies the graph but never the contents of weights.
#[derive(Clone)]
pub struct Module {
    pub(crate) registry: Arc<Registry>,
    pub(crate) strings: Interner<Sym, str>,
    pub(crate) types: Interner<TypeId, Type>,
    pub(crate) attrs: Interner<AttrsId, AttrSet>,
    pub(crate) sources: Sources,
    pub(crate) symbols: Arena<SymbolId, Symbol>,
    pub(crate) symbol_names: FxHashMap<Sym, SymbolId>,
    pub(crate) ops: Arena<OpId, Op>,
    pub(crate) values: Arena<ValueId, Value>,
    pub(crate) graphs: Arena<GraphId, Graph>,
    pub(crate) globals: Arena<GlobalId, Global>,
    pub(crate) global_names: FxHashMap<Sym, GlobalId>,
    pub(crate) global_suffixes: Suffixes,
    pub(crate) derived: FxHashMap<Derived, GlobalId>,
    pub(crate) entries: Vec<GraphId>,
    /// Facts about the whole file.
    pub meta: Meta,
    /// Source nodes that vanished, by name, with the rule and the reason.
    pub gone: IndexMap<Sym, LedgerEntry>,
    /// Source nodes that a pass looked at and left as they were, with the reason.
    pub kept: IndexMap<Sym, LedgerEntry>,
}

/// Facts about the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The target that the module was instrumented or deployed for.
    pub target: Option<String>,
    /// The algorithm that instrumented it, with its configuration, as its pipeline text.
    pub algorithm: Option<String>,
    /// Key and value pairs that the source carried.
    pub properties: Vec<(String, String)>,
    /// What an ONNX source said of itself; a round trip writes it back.
    pub onnx: Option<OnnxMeta>,
}

/// The header of an ONNX file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxMeta {
    /// IR version.
    pub ir_version: i64,
    /// Version of each imported operator set, by domain (empty for `ai.onnx`), in order.
    pub opsets: Vec<(String, i64)>,
    /// Producer's name.
    pub producer_name: String,
    /// Producer's version.
    pub producer_version: String,
    /// Model domain.
    pub domain: String,
    /// Model version.
    pub model_version: i64,
    /// Documentation of the model.
    pub doc: String,
}

impl Module {
    /// An empty module over the built-in operators.
    pub fn new() -> Self {
        Self::with_registry(Registry::builtin())
    }

    /// An empty module over a registry of one's own.
    pub fn with_registry(registry: Arc<Registry>) -> Self {
        let mut module = Self {
            registry,
            strings: Interner::new(),
            types: Interner::new(),
            attrs: Interner::new(),
            sources: Sources::new(),
            symbols: Arena::new(),
            symbol_names: FxHashMap::default(),
            ops: Arena::new(),
            values: Arena::new(),
            graphs: Arena::new(),
            globals: Arena::new(),
            global_names: FxHashMap::default(),
            global_suffixes: Suffixes::default(),
            derived: FxHashMap::default(),
            entries: Vec::new(),
            meta: Meta::default(),
            gone: IndexMap::new(),
            kept: IndexMap::new(),
        };
        module.attrs.intern_owned(AttrSet::new());
        module
    }

    /// The operators that this module may use.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    // ---- strings, types, attribute sets, sources ----

    /// The handle of a string.
    pub fn intern(&mut self, text: &str) -> Sym {
        self.strings.intern(text)
    }

    /// The handle of a string that the module knows already.
    pub fn find_str(&self, text: &str) -> Option<Sym> {
        self.strings.find(text)
    }

    /// The string behind a handle; empty for [`Sym::NONE`].
    pub fn str(&self, sym: Sym) -> &str {
        if sym.is_none() { "" } else { self.strings.get(sym) }
    }

    /// The handle of a type.
    pub fn intern_type(&mut self, ty: Type) -> TypeId {
        self.types.intern_owned(ty)
    }

    /// The type behind a handle.
    pub fn ty(&self, id: TypeId) -> &Type {
        self.types.get(id)
    }

    /// The handle of an attribute set. It is expected in normal form; see [`crate::Rewriter::create`].
    pub fn intern_attrs(&mut self, attrs: AttrSet) -> AttrsId {
        self.attrs.intern_owned(attrs)
    }

    /// The attribute set behind a handle.
    pub fn attr_set(&self, id: AttrsId) -> &AttrSet {
        self.attrs.get(id)
    }

    /// The handle of a list of source names; without duplicates, order kept.
    pub fn intern_source(&mut self, names: &[Sym]) -> SourceId {
        self.sources.list(names)
    }

    /// The handle of two lists of source names one after the other, in constant time.
    pub fn join_sources(&mut self, first: SourceId, then: SourceId) -> SourceId {
        self.sources.join(first, then)
    }

    /// The source names behind a handle, written out.
    pub fn source(&self, id: SourceId) -> SourceNames {
        self.sources.names(id)
    }

    /// Whether some live operation stands for this source name.
    pub fn is_live_source(&self, name: Sym) -> bool {
        self.sources.is_held(name)
    }

    // ---- symbols ----

    /// The symbol of this name, made when it is new.
    pub fn symbol(&mut self, name: &str) -> SymbolId {
        let sym = self.intern(name);
        if let Some(&id) = self.symbol_names.get(&sym) {
            return id;
        }
        let id = self.symbols.push(Symbol { name: Some(sym), ..Symbol::default() });
        self.symbol_names.insert(sym, id);
        id
    }

    /// A symbol that equals nothing but itself.
    pub fn fresh_symbol(&mut self) -> SymbolId {
        self.symbols.push(Symbol::default())
    }

    /// What is known of a symbol.
    pub fn symbol_info(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id]
    }

    /// States the range of a symbol.
    pub fn set_symbol_range(&mut self, id: SymbolId, min: Option<i64>, max: Option<i64>) {
        self.symbols[id].min = min;
        self.symbols[id].max = max;
    }

    /// All symbols, in order of creation.
    pub fn symbols(&self) -> impl Iterator<Item = (SymbolId, &Symbol)> {
        self.symbols.iter()
    }

    // ---- operations ----

    /// An operation.
    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[id]
    }

    /// Number of operation handles ever given out (erased ones included): the size of a dense map over operations.
    pub fn op_capacity(&self) -> usize {
        self.ops.len()
    }

    /// The declaration of an operation's operator.
    pub fn decl(&self, id: OpId) -> &OpDecl {
        self.registry.decl(self.ops[id].kind)
    }

    /// The name of an operation's operator, like `conv`; `opaque` for what nobody declared.
    pub fn op_name(&self, id: OpId) -> &'static str {
        self.decl(id).name
    }

    /// The name that an opaque operation has in its own world, as `domain::Type`.
    pub fn opaque_name(&self, id: OpId) -> Option<&str> {
        self.attrs_of(id).str(OPAQUE_NAME)
    }

    /// Whether an operation is of the named operator.
    pub fn is(&self, id: OpId, name: &str) -> bool {
        self.op_name(id) == name
    }

    /// The attributes of an operation.
    pub fn attrs_of(&self, id: OpId) -> &AttrSet {
        self.attrs.get(self.ops[id].attrs)
    }

    /// The operand of this declared name; `None` where it is absent. For a variadic operand, its first.
    pub fn operand_named(&self, id: OpId, name: &str) -> Option<ValueId> {
        self.op(id).operand(self.decl(id).operand_index(name)?)
    }

    /// The source names that an operation stands for, written out.
    pub fn source_of(&self, id: OpId) -> SourceNames {
        self.source(self.ops[id].source)
    }

    /// The first of the source names that an operation stands for.
    pub fn first_source(&self, id: OpId) -> Option<Sym> {
        self.sources.first(self.ops[id].source).some()
    }

    /// The source names that an operation and everything in its regions stand for, in order.
    pub(crate) fn nested_source(&mut self, id: OpId) -> SourceId {
        let mut list = self.ops[id].source;
        for region in self.ops[id].regions().to_vec() {
            for op in self.ops_nested(region) {
                list = self.sources.join(list, self.ops[op].source);
            }
        }
        list
    }

    /// A name for an operation in messages: its first source name, else the name of its operator.
    pub fn label(&self, id: OpId) -> &str {
        match self.first_source(id) {
            Some(s) => self.str(s),
            None => self.op_name(id),
        }
    }

    // ---- values ----

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id]
    }

    /// Number of value handles ever given out: the size of a dense map over values.
    pub fn value_capacity(&self) -> usize {
        self.values.len()
    }

    /// The type of a value.
    pub fn type_of(&self, id: ValueId) -> &Type {
        self.types.get(self.values[id].ty)
    }

    /// A type in words, for messages.
    pub fn type_words(&self, ty: &Type) -> String {
        ty.words(&|s| self.symbol_info(s).name.map_or_else(|| "?".into(), |name| self.str(name).to_owned()))
    }

    /// The operation that makes a value, unless it is a parameter or a global.
    pub fn producer(&self, id: ValueId) -> Option<OpId> {
        match self.values[id].def {
            Def::Result(op, _) => Some(op),
            _ => None,
        }
    }

    /// The global that a value reads, if it reads one.
    pub fn as_global(&self, id: ValueId) -> Option<GlobalId> {
        match self.values[id].def {
            Def::Global(g) => Some(g),
            _ => None,
        }
    }

    /// The only user of a value, when there is exactly one: graph results, captured uses in regions and updates count.
    pub fn only_use(&self, id: ValueId) -> Option<Use> {
        match self.values[id].uses() {
            [u] => Some(*u),
            _ => None,
        }
    }

    /// The operations that use a value, each once, in order of their creation.
    pub fn user_ops(&self, id: ValueId) -> Vec<OpId> {
        let mut users: Vec<OpId> = self.values[id]
            .uses()
            .iter()
            .filter_map(|u| match u {
                Use::Operand(op, _) => Some(*op),
                _ => None,
            })
            .collect();
        users.sort();
        users.dedup();
        users
    }

    // ---- graphs ----

    /// A graph.
    pub fn graph(&self, id: GraphId) -> &Graph {
        &self.graphs[id]
    }

    /// The entry points, in order. `main` is the network.
    pub fn entries(&self) -> &[GraphId] {
        &self.entries
    }

    /// The entry point of this name.
    pub fn entry(&self, name: &str) -> Option<GraphId> {
        self.entries.iter().copied().find(|&g| self.str(self.graphs[g].name) == name)
    }

    /// The network itself: the entry point `main`, else the first one.
    pub fn main(&self) -> Option<GraphId> {
        self.entry("main").or_else(|| self.entries.first().copied())
    }

    /// The operations of a graph in order, those of regions not included.
    pub fn ops_in(&self, graph: GraphId) -> OpIter<'_> {
        OpIter { module: self, next: self.graphs[graph].first }
    }

    /// All live operations: each entry graph's in order, an operation before those in its regions.
    pub fn all_ops(&self) -> Vec<OpId> {
        let mut out = Vec::new();
        for &g in &self.entries {
            self.collect_ops(g, &mut out);
        }
        out
    }

    /// The operations of a graph and of all graphs nested in it, an operation before those in its regions.
    pub fn ops_nested(&self, graph: GraphId) -> Vec<OpId> {
        let mut out = Vec::new();
        self.collect_ops(graph, &mut out);
        out
    }

    fn collect_ops(&self, graph: GraphId, out: &mut Vec<OpId>) {
        // An explicit stack: a file can nest regions deeper than the program's stack allows.
        let mut stack = vec![self.graphs[graph].first];
        while let Some(op) = stack.pop() {
            let Some(op) = op.some() else { continue };
            out.push(op);
            stack.push(self.ops[op].next);
            for &r in self.ops[op].regions().iter().rev() {
                stack.push(self.graphs[r].first);
            }
        }
    }

    // ---- globals ----

    /// A global.
    pub fn global(&self, id: GlobalId) -> &Global {
        &self.globals[id]
    }

    /// The live global of this name.
    pub fn global_named(&self, name: &str) -> Option<GlobalId> {
        self.global_names.get(&self.strings.find(name)?).copied()
    }

    /// All live globals, in order of creation.
    pub fn globals(&self) -> impl Iterator<Item = (GlobalId, &Global)> {
        self.globals.iter().filter(|(_, g)| g.live)
    }

    /// Whether a live graph stores to a global: then its contents are no constant, whatever its role.
    pub fn is_written(&self, id: GlobalId) -> bool {
        self.globals[id].writers > 0
    }

    /// Number of global handles ever given out.
    pub fn global_capacity(&self) -> usize {
        self.globals.len()
    }

    /// Whether a handle was given out by this module, for checks of a module that may be broken.
    pub(crate) fn value_exists(&self, id: ValueId) -> bool {
        self.values.get(id).is_some()
    }
}

impl Default for Module {
    fn default() -> Self {
        Self::new()
    }
}

/// Iterates over a graph's operations in order.
pub struct OpIter<'m> {
    module: &'m Module,
    next: OpId,
}

impl Iterator for OpIter<'_> {
    type Item = OpId;
    fn next(&mut self) -> Option<OpId> {
        let op = self.next.some()?;
        self.next = self.module.ops[op].next;
        Some(op)
    }
}
