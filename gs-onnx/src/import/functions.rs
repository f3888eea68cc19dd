//! Calls of model-local functions are replaced by their bodies, so that every pass sees through them.
//!
//! All operations of a body carry the name of the call in the ledger; names of inner values begin with it.

use gs_ir::Def;
use rustc_hash::FxHashMap;

use super::graph::node_error;
use super::scope::{Call, Opsets, Scope, domain};
use super::{EXPANSION_LIMIT, Importer};
use crate::error::{Error, NodeProblem};
use crate::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};

/// Domain, name and overload of a function.
pub(super) type Key<'a> = (&'a str, &'a str, &'a str);

/// Functions that call each other deeper than this are taken to be endless.
const DEPTH_LIMIT: usize = 64;

/// A function, and how many nodes a call of it expands to.
#[derive(Clone, Copy)]
pub(super) struct Function<'a> {
    proto: &'a FunctionProto,
    size: usize,
}

pub(super) fn index(functions: &[FunctionProto]) -> FxHashMap<Key<'_>, Function<'_>> {
    let protos = functions.iter().map(|f| ((domain(f.domain()), f.name(), f.overload()), f)).collect();
    let mut sizes = FxHashMap::default();
    let mut with_size = |key, proto| Function { proto, size: expanded_size(key, &protos, &mut sizes, 0) };
    protos.iter().map(|(&key, &proto)| (key, with_size(key, proto))).collect()
}

/// Nodes of a function with those of the functions that it calls; `usize::MAX` where that has no end.
fn expanded_size<'a>(
    key: Key<'a>,
    functions: &FxHashMap<Key<'a>, &'a FunctionProto>,
    sizes: &mut FxHashMap<Key<'a>, usize>,
    depth: usize,
) -> usize {
    let Some(function) = functions.get(&key) else { return 1 };
    if let Some(&size) = sizes.get(&key) {
        return size;
    }
    if depth > DEPTH_LIMIT {
        return usize::MAX;
    }
    sizes.insert(key, usize::MAX); // what a call of itself meets
    let mut size = 0usize;
    let mut nodes: Vec<&NodeProto> = function.node.iter().collect();
    while let Some(node) = nodes.pop() {
        let called = (domain(node.domain()), node.op_type(), node.overload());
        size = size.saturating_add(expanded_size(called, functions, sizes, depth + 1));
        let graphs = node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        nodes.extend(graphs.flat_map(|g| &g.node));
    }
    sizes.insert(key, size);
    size
}

impl Importer<'_> {
    /// Expands a call, unless its operator is declared: then the function is only how another reader runs it.
    pub(super) fn function_call(&mut self, call: &Call<'_>, scope: &mut Scope<'_>) -> Result<bool, Error> {
        let key = (call.domain, call.node.op_type(), call.node.overload());
        let Some(&Function { proto: function, size }) = self.functions.get(&key) else { return Ok(false) };
        if self.rw.registry().for_onnx(call.domain, call.node.op_type()).next().is_some() {
            return Ok(false);
        }
        if call.operands.len() > function.input.len() || call.node.output.len() > function.output.len() {
            return Err(node_error(call.node, NodeProblem::Call));
        }
        if scope.call.is_none() {
            self.calls.push(call.source);
            if size > self.expansion_left {
                return Err(node_error(call.node, NodeProblem::Recursion(EXPANSION_LIMIT)));
            }
            self.expansion_left -= size;
        }
        self.enter(call.node)?;
        self.expand(call, function, scope)?;
        self.depth -= 1;
        Ok(true)
    }

    fn expand(
        &mut self,
        call: &Call<'_>,
        function: &FunctionProto,
        scope: &mut Scope<'_>,
    ) -> Result<(), Error> {
        let opsets = Opsets::new(&function.opset_import);
        let own = call.node.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
        let prefix = format!("{}{own}/", scope.prefix);
        let mut inner = Scope::function(scope.graph, &opsets, call.source, prefix);
        for (i, formal) in function.input.iter().enumerate() {
            let actual = call.operands.get(i).copied().flatten();
            self.define(call.node, formal, actual, &mut inner)?;
        }
        for node in &function.node {
            self.node(&bind_attributes(node, call.node, function), &mut inner)?;
        }
        for (formal, actual) in function.output.iter().zip(&call.node.output) {
            let value = inner
                .find(formal)
                .ok_or_else(|| node_error(call.node, NodeProblem::UnknownValue(formal.clone())))?;
            if actual.is_empty() {
                continue;
            }
            if let Some(v) = value.filter(|&v| matches!(self.rw.value(v).def, Def::Result(..)))
                && !call.operands.contains(&value)
            {
                self.rw.set_name(v, &format!("{}{actual}", scope.prefix));
            }
            self.define(call.node, actual, value, scope)?;
        }
        Ok(())
    }
}

/// A node of a body with its references to attributes of the call replaced by their values. A reference to an
/// attribute that has neither value nor default is an absent attribute.
fn bind_attributes(node: &NodeProto, call: &NodeProto, function: &FunctionProto) -> NodeProto {
    let bind = |a: &AttributeProto| -> Option<AttributeProto> {
        let mut bound = match a.ref_attr_name.as_deref().filter(|r| !r.is_empty()) {
            None => a.clone(),
            Some(wanted) => {
                let given =
                    call.attribute.iter().chain(&function.attribute_proto).find(|g| g.name() == wanted)?;
                AttributeProto { name: a.name.clone(), ..given.clone() }
            }
        };
        if let Some(g) = &mut bound.g {
            bind_graph(g, call, function);
        }
        bound.graphs.iter_mut().for_each(|g| bind_graph(g, call, function));
        Some(bound)
    };
    NodeProto { attribute: node.attribute.iter().filter_map(bind).collect(), ..node.clone() }
}

fn bind_graph(graph: &mut GraphProto, call: &NodeProto, function: &FunctionProto) {
    for node in &mut graph.node {
        *node = bind_attributes(node, call, function);
    }
}
