//! Graphs: inputs, stored weights, nodes in order, outputs.

use gs_ir::{NewGlobal, Role, Sym, Type, ValueId};
use rustc_hash::FxHashSet;

use super::scope::{Call, Scope, domain};
use super::types::{import_type, join};
use super::{Importer, tensors};
use crate::error::{Error, GraphProblem, NodeProblem};
use crate::extras;
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

/// All names of nodes in a graph and the graphs nested in it.
pub(super) fn node_names(graph: &GraphProto) -> FxHashSet<&str> {
    let mut names = FxHashSet::default();
    let mut graphs = vec![graph];
    while let Some(g) = graphs.pop() {
        for node in &g.node {
            names.insert(node.name());
            for a in &node.attribute {
                graphs.extend(a.g.as_deref());
                graphs.extend(&a.graphs);
            }
        }
    }
    names.remove("");
    names
}

/// All names that a node or a graph's output reads, anywhere in the file.
pub(super) fn read_names(model: &ModelProto) -> FxHashSet<&str> {
    let mut names = FxHashSet::default();
    let mut nodes: Vec<&NodeProto> = Vec::new();
    let mut graphs: Vec<&GraphProto> = model.graph.iter().collect();
    for f in &model.functions {
        nodes.extend(&f.node);
        names.extend(f.output.iter().map(String::as_str));
    }
    loop {
        while let Some(node) = nodes.pop() {
            names.extend(node.input.iter().map(String::as_str));
            for a in &node.attribute {
                graphs.extend(a.g.as_deref());
                graphs.extend(&a.graphs);
            }
        }
        let Some(g) = graphs.pop() else { return names };
        names.extend(g.output.iter().map(|o| o.name()));
        nodes.extend(&g.node);
    }
}

impl Importer<'_> {
    /// Reads a graph into `scope.graph`, its parameters and results included.
    pub(super) fn whole_graph(&mut self, graph: &GraphProto, scope: &mut Scope<'_>) -> Result<(), Error> {
        let fail = |problem| Error::Graph { graph: graph.name().to_owned(), problem };
        for v in graph.value_info.iter().chain(&graph.output) {
            let ty = import_type(&mut self.rw, v.r#type.as_ref());
            if ty != Type::Any {
                scope.stated.insert(v.name().to_owned(), ty);
            }
        }
        self.inputs(graph, scope).map_err(fail)?;
        self.weights(graph, scope)?;
        for node in &graph.node {
            self.node(node, scope)?;
        }
        for output in &graph.output {
            self.output(output, scope).map_err(fail)?;
        }
        Ok(())
    }

    fn inputs(&mut self, graph: &GraphProto, scope: &mut Scope<'_>) -> Result<(), GraphProblem> {
        let stored: FxHashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
        for (i, input) in graph.input.iter().enumerate() {
            if stored.contains(input.name()) {
                continue; // a weight that is listed as an input too: see `weight`
            }
            if input.name().is_empty() {
                return Err(GraphProblem::UnnamedInput(i));
            }
            let ty = import_type(&mut self.rw, input.r#type.as_ref());
            let value = self.rw.add_param(scope.graph, input.name(), ty);
            if !scope.define(input.name(), Some(value)) {
                return Err(GraphProblem::Redefined(input.name().to_owned()));
            }
        }
        Ok(())
    }

    fn weights(&mut self, graph: &GraphProto, scope: &mut Scope<'_>) -> Result<(), Error> {
        for tensor in &graph.initializer {
            let contents = tensors::literal(tensor, self.files.as_deref_mut())?;
            self.weight(graph, tensor.name(), contents, scope)?;
        }
        for sparse in &graph.sparse_initializer {
            let (name, contents) = tensors::densify(sparse, self.files.as_deref_mut())?;
            self.weight(graph, &name, contents, scope)?;
        }
        Ok(())
    }

    fn weight(
        &mut self,
        graph: &GraphProto,
        name: &str,
        contents: gs_ir::Literal,
        scope: &mut Scope<'_>,
    ) -> Result<(), Error> {
        let value = self.add_constant(name, contents);
        if scope.is_main()
            && self.overridable.contains(name)
            && let Some(global) = self.rw.as_global(value)
        {
            self.rw.set_role(global, Role::Input, false);
        }
        if scope.define(name, Some(value)) {
            return Ok(());
        }
        let problem = GraphProblem::Redefined(name.to_owned());
        Err(Error::Graph { graph: graph.name().to_owned(), problem })
    }

    /// Adds a global; whether it is learned is decided when all its users are known.
    pub(super) fn add_constant(&mut self, name: &str, contents: gs_ir::Literal) -> ValueId {
        let ty = Type::fixed(contents.elem, &contents.dims);
        self.add_global(name, ty, tensors::init(contents))
    }

    pub(super) fn add_global(&mut self, name: &str, ty: Type, init: gs_ir::Init) -> ValueId {
        let id = self.rw.add_global(NewGlobal { name, role: Role::Const, trainable: false, ty, init });
        self.rw.global(id).value
    }

    fn output(&mut self, output: &ValueInfoProto, scope: &Scope<'_>) -> Result<(), GraphProblem> {
        let found = scope.find(output.name()).flatten();
        let value = found.ok_or_else(|| GraphProblem::UndefinedOutput(output.name().to_owned()))?;
        // The file's word is interface; what it leaves open we may know better.
        let known = self.rw.type_of(value).clone();
        let ty = scope.stated(output.name()).map(|stated| join(&self.rw, stated, &known, &[]));
        self.rw.add_result(scope.graph, output.name(), value, ty);
        Ok(())
    }

    /// Reads one node.
    pub(super) fn node(&mut self, node: &NodeProto, scope: &mut Scope<'_>) -> Result<(), Error> {
        if node.op_type().is_empty() {
            return Err(node_error(node, NodeProblem::NoOperator));
        }
        let operands = resolve(node, scope)?;
        let source = self.source_name(node, scope);
        let call = Call { node, domain: domain(node.domain()), operands, source };
        if self.constant_node(&call, scope)?
            || self.weight_node(&call, scope)?
            || self.own_call(&call, scope)?
            || self.function_call(&call, scope)?
        {
            return Ok(());
        }
        self.operation(&call, scope)
    }

    /// The name of a node in the ledger: its own, else that of its first result; a second node of one name gets
    /// another. In a function's body it is the name of the call.
    fn source_name(&mut self, node: &NodeProto, scope: &Scope<'_>) -> Sym {
        if let Some(call) = scope.call {
            return call;
        }
        let sym = self.free_name(node);
        self.taken.insert(sym);
        if let Some(notes) = extras::node_notes(node, self.rw.str(sym)) {
            self.notes.push(notes);
        }
        sym
    }

    fn free_name(&mut self, node: &NodeProto) -> Sym {
        if !node.name().is_empty() {
            let own = self.rw.intern(node.name());
            if !self.taken.contains(&own) {
                return own;
            }
        }
        let result = node.output.iter().find(|o| !o.is_empty()).map_or(node.op_type(), String::as_str);
        let mut name = self.rw.intern(result);
        let mut n = 1;
        while self.taken.contains(&name) || self.names.contains(self.rw.str(name)) {
            name = self.rw.intern(&format!("{result}.{n}"));
            n += 1;
        }
        name
    }

    /// Binds the name of a result.
    pub(super) fn define(
        &mut self,
        node: &NodeProto,
        name: &str,
        value: Option<ValueId>,
        scope: &mut Scope<'_>,
    ) -> Result<(), Error> {
        if scope.define(name, value) {
            return Ok(());
        }
        Err(node_error(node, NodeProblem::Redefined(name.to_owned())))
    }
}

fn resolve(node: &NodeProto, scope: &Scope<'_>) -> Result<Vec<Option<ValueId>>, Error> {
    let find = |name: &String| match name.as_str() {
        "" => Ok(None),
        name => scope.find(name).ok_or_else(|| node_error(node, NodeProblem::UnknownValue(name.to_owned()))),
    };
    node.input.iter().map(find).collect()
}

pub(super) fn node_error(node: &NodeProto, problem: NodeProblem) -> Error {
    let first = || node.output.first().cloned().unwrap_or_default();
    let name = if node.name().is_empty() { first() } else { node.name().to_owned() };
    Error::Node { node: name, op: qualified(node), problem }
}

/// Operator with its domain, as `com.microsoft::QGemm`.
pub(super) fn qualified(node: &NodeProto) -> String {
    let domain = if node.domain().is_empty() { "ai.onnx" } else { node.domain() };
    format!("{domain}::{}", node.op_type())
}
