//! Operations that nobody declared, or not in this version or form: kept with everything they have.

use gs_ir::{At, Attr, AttrSet, OPAQUE_NAME, OpId, Type};

use super::attrs::{free_value, kind_of};
use super::graph::{node_error, qualified};
use super::scope::{Call, Scope};
use super::{Importer, NESTING_LIMIT};
use crate::error::{Error, NodeProblem};
use crate::proto::{GraphProto, NodeProto, attribute_type as at};

/// A graph with the name of its region: that of ONNX's attribute, with [`LIST`] behind it where that is a list.
pub(super) type NamedGraph<'n> = (String, &'n GraphProto);

/// What the name of a region ends with that is one of a list of graphs.
pub(crate) const LIST: &str = "[]";

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
        for (name, graph) in graphs {
            self.region(op, call.node, &name, graph, scope)?;
        }
        let reason = reason.unwrap_or_else(|| "no such operator is declared".to_owned());
        let entry = self.rw.entry("opaque", "import", None, Some(&reason));
        self.rw.kept.insert(call.source, entry);
        self.name_results(op, call, scope)
    }

    fn free_attrs<'n>(&mut self, call: &Call<'n>) -> Result<(AttrSet, Vec<NamedGraph<'n>>), Error> {
        let (mut attrs, mut graphs) = (AttrSet::new(), Vec::new());
        for a in &call.node.attribute {
            match kind_of(a) {
                at::GRAPH => graphs.extend(a.g.as_deref().map(|g| (a.name().to_owned(), g))),
                at::GRAPHS => graphs.extend(a.graphs.iter().map(|g| (format!("{}{LIST}", a.name()), g))),
                _ => attrs.set(a.name(), free_value(a, self.files.as_deref_mut())?),
            }
        }
        if !call.node.overload().is_empty() {
            attrs.set(OVERLOAD, Attr::str(call.node.overload()));
        }
        attrs.set(OPAQUE_NAME, Attr::str(&qualified(call.node)));
        Ok((attrs, graphs))
    }

    /// Reads a graph that a node carries as a region of its operation.
    pub(super) fn region(
        &mut self,
        op: OpId,
        node: &NodeProto,
        name: &str,
        graph: &GraphProto,
        scope: &Scope<'_>,
    ) -> Result<(), Error> {
        let id = self.rw.add_region(op, name);
        self.enter(node)?;
        self.whole_graph(graph, &mut scope.inner(id))?;
        self.depth -= 1;
        Ok(())
    }

    /// Counts a graph or call within another.
    pub(super) fn enter(&mut self, node: &NodeProto) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > NESTING_LIMIT {
            return Err(node_error(node, NodeProblem::Nesting(NESTING_LIMIT)));
        }
        Ok(())
    }
}
