//! What names mean while a graph is read.

use gs_ir::{GraphId, Sym, Type, ValueId};
use rustc_hash::FxHashMap;

use crate::proto::OperatorSetIdProto;

/// Operator set versions by domain, `""` for `ai.onnx`.
#[derive(Debug, Default)]
pub(super) struct Opsets(Vec<(String, i64)>);

impl Opsets {
    pub(super) fn new(imports: &[OperatorSetIdProto]) -> Self {
        Self(imports.iter().map(|o| (domain(o.domain()).to_owned(), o.version())).collect())
    }

    /// The version of a domain. A domain of one's own that the file forgot to import is taken as version 1,
    /// as other readers do.
    pub(super) fn version(&self, domain: &str) -> Option<i64> {
        let stated = self.0.iter().find(|(d, _)| d == domain).map(|(_, v)| *v);
        stated.or_else(|| (!domain.is_empty()).then_some(1))
    }
}

/// A domain in its short form: `ai.onnx` is the empty one.
pub(crate) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The graph that is being read, with the names visible in it.
pub(super) struct Scope<'p> {
    pub(super) graph: GraphId,
    pub(super) opsets: &'p Opsets,
    /// In the body of a function: the call, whose name all its nodes carry.
    pub(super) call: Option<Sym>,
    /// In the body of a function: what names of values begin with.
    pub(super) prefix: String,
    /// Types that the file states.
    pub(super) stated: FxHashMap<String, Type>,
    /// Values by name; `None` is a formal input that the call leaves out.
    values: FxHashMap<String, Option<ValueId>>,
    parent: Option<&'p Scope<'p>>,
}

impl<'p> Scope<'p> {
    pub(super) fn root(graph: GraphId, opsets: &'p Opsets) -> Self {
        Self {
            graph,
            opsets,
            call: None,
            prefix: String::new(),
            stated: FxHashMap::default(),
            values: FxHashMap::default(),
            parent: None,
        }
    }

    /// The scope of a region: sees everything around it.
    pub(super) fn inner(&'p self, graph: GraphId) -> Self {
        let mut inner = Self::root(graph, self.opsets);
        inner.call = self.call;
        inner.prefix.clone_from(&self.prefix);
        inner.parent = Some(self);
        inner
    }

    /// The scope of a function's body: sees nothing around it, but its operations go where the call stands.
    pub(super) fn function(graph: GraphId, opsets: &'p Opsets, call: Sym, prefix: String) -> Self {
        let mut scope = Self::root(graph, opsets);
        scope.call = Some(call);
        scope.prefix = prefix;
        scope
    }

    /// Whether this is the graph that the file is about.
    pub(super) fn is_main(&self) -> bool {
        self.parent.is_none() && self.call.is_none()
    }

    pub(super) fn find(&self, name: &str) -> Option<Option<ValueId>> {
        self.values.get(name).copied().or_else(|| self.parent.and_then(|p| p.find(name)))
    }

    /// Binds a name; false where this graph had bound it already.
    #[must_use]
    pub(super) fn define(&mut self, name: &str, value: Option<ValueId>) -> bool {
        self.values.insert(name.to_owned(), value).is_none()
    }

    /// The type that the file states for a value of this graph.
    pub(super) fn stated(&self, name: &str) -> Option<&Type> {
        self.stated.get(name)
    }
}

/// One node with its names resolved.
pub(super) struct Call<'n> {
    pub(super) node: &'n crate::proto::NodeProto,
    pub(super) domain: &'n str,
    pub(super) operands: Vec<Option<ValueId>>,
    /// Name of the node in the ledger.
    pub(super) source: Sym,
}

/// An operand that became an attribute, or the contents of a global.
pub(super) struct MadeStatic {
    pub(super) value: ValueId,
    /// The source node that took it over.
    pub(super) into: Sym,
}
