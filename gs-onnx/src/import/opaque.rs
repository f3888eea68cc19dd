//! Operations that nobody declared, or not in this version or form: kept with everything they have.

use gs_ir::{At, Attr, AttrSet, OPAQUE_NAME, OpId, Type};

use super::Importer;
use super::attrs::{free_value, kind_of};
use super::graph::qualified;
use super::scope::{Call, Scope};
use crate::error::Error;
use crate::proto::{GraphProto, attribute_type as at};

/// Attribute of an opaque operation: for each of its regions the name of ONNX's attribute, with `[]` behind it where
/// that is a list of graphs.
pub(crate) const REGIONS: &str = "$regions";

/// Attribute of an opaque operation: which function of several with one name.
pub(crate) const OVERLOAD: &str = "$overload";

impl Importer<'_> {
    pub(super) fn opaque(
        &mut self,
        call: &Call<'_>,
        scope: &mut Scope<'_>,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let (attrs, graphs) = self.free_attrs(call)?;
        let types: Vec<Type> =
            call.node.output.iter().map(|o| scope.stated(o).cloned().unwrap_or(Type::Any)).collect();
        let op = self.rw.create_typed(self.opaque, &call.operands, attrs, &types, At::End(scope.graph));
        for graph in graphs {
            self.region(op, graph, scope)?;
        }
        let reason = reason.unwrap_or_else(|| "no such operator is declared".to_owned());
        let entry = self.rw.entry("opaque", "import", None, Some(&reason));
        self.rw.kept.insert(call.source, entry);
        self.name_results(op, call, scope)
    }

    fn free_attrs<'n>(&mut self, call: &Call<'n>) -> Result<(AttrSet, Vec<&'n GraphProto>), Error> {
        let (mut attrs, mut graphs, mut names) = (AttrSet::new(), Vec::new(), Vec::new());
        for a in &call.node.attribute {
            match kind_of(a) {
                at::GRAPH => {
                    graphs.extend(a.g.as_deref());
                    names.extend(a.g.iter().map(|_| bytes::Bytes::from(a.name().to_owned())));
                }
                at::GRAPHS => {
                    graphs.extend(&a.graphs);
                    names.extend(a.graphs.iter().map(|_| bytes::Bytes::from(format!("{}[]", a.name()))));
                }
                _ => attrs.set(a.name(), free_value(a, self.files.as_deref_mut())?),
            }
        }
        if !names.is_empty() {
            attrs.set(REGIONS, Attr::Strs(names.into()));
        }
        if !call.node.overload().is_empty() {
            attrs.set(OVERLOAD, Attr::str(call.node.overload()));
        }
        attrs.set(OPAQUE_NAME, Attr::str(&qualified(call.node)));
        Ok((attrs, graphs))
    }

    /// Reads a graph that a node carries as a region of its operation.
    pub(super) fn region(&mut self, op: OpId, graph: &GraphProto, scope: &Scope<'_>) -> Result<(), Error> {
        let id = self.rw.add_region(op, graph.name());
        self.whole_graph(graph, &mut scope.inner(id))
    }
}
