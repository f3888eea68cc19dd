//! Graphs: the main one and the regions of operations.

use gs_ir::{Def, GraphId, OPAQUE_NAME, OpId, Type, Use, ValueId, infer};

use super::attrs::attribute;
use super::names::wanted_node;
use super::op::{Written, graph_attribute};
use super::spelling::spelled;
use super::types::{says_more, value_info};
use super::{ExportError, Exporter};
use crate::import::{LIST, OVERLOAD, domain};
use crate::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, attribute_type as at};

/// Readers of protobuf stop at a hundred messages within one another; a region takes three.
const DEPTH_LIMIT: usize = 30;

/// The nodes of a graph so far, and the types that a reader could not infer.
#[derive(Default)]
pub(super) struct Body {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) value_info: Vec<ValueInfoProto>,
}

impl Exporter<'_> {
    /// Writes the main graph; initializers are added when the whole model is put together.
    pub(super) fn main(&mut self, main: GraphId) -> Result<GraphProto, ExportError> {
        let module = self.module;
        let mut body = Body::default();
        self.names.reserve_interface(module, main);
        for &p in module.graph(main).params() {
            self.symbols.learn(module, p);
        }
        self.globals(&mut body)?;
        let mut graph = self.contents_of(main, body, 0, true)?;
        graph.initializer = std::mem::take(&mut self.initializers);
        Ok(graph)
    }

    /// Writes the parameters, operations and results of a graph behind what `body` has already.
    fn contents_of(
        &mut self,
        graph: GraphId,
        mut body: Body,
        depth: usize,
        is_main: bool,
    ) -> Result<GraphProto, ExportError> {
        if depth > DEPTH_LIMIT {
            return Err(ExportError::TooDeep(DEPTH_LIMIT));
        }
        let module = self.module;
        let mut input = Vec::new();
        for &p in module.graph(graph).params() {
            let wanted = module.str(module.value(p).name);
            let name = self.names.value(p, if wanted.is_empty() { "input" } else { wanted });
            self.symbols.learn(module, p);
            input.push(value_info(module, &name, module.type_of(p))?);
        }
        for op in module.ops_in(graph) {
            self.operation(op, graph, &mut body, depth)?;
        }
        let output = self.outputs(graph, &mut body, is_main)?;
        Ok(GraphProto { node: body.nodes, input, output, value_info: body.value_info, ..Default::default() })
    }

    fn operation(
        &mut self,
        op: OpId,
        graph: GraphId,
        body: &mut Body,
        depth: usize,
    ) -> Result<(), ExportError> {
        let module = self.module;
        let data = module.op(op);
        let mut results: Vec<String> = data.results().iter().map(|&r| self.result_name(op, r)).collect();
        let first = results.iter().find(|r| !r.is_empty()).cloned().unwrap_or_default();
        // In a network made for a target, what a pass made needs no name; files stay smaller without one.
        let is_ours = module.meta.target.is_some()
            && module.source_of(op).is_empty()
            && data.result().some().is_none_or(|r| module.value(r).name.is_none());
        let node = if is_ours { String::new() } else { self.names.node(&wanted_node(module, op, &first)) };
        let is_opaque = module.opaque_name(op).is_some();
        if !is_opaque {
            results.truncate(results.iter().rposition(|r| !r.is_empty()).map_or(0, |i| i + 1));
        }
        let operands: Vec<Option<ValueId>> = data.operands().collect();
        let attrs = spelled(module, op, &self.opset);
        let written = Written { kind: data.kind, attrs: &attrs, operands: &operands, results, node };
        let mut proto =
            if is_opaque { self.opaque_node(&written)? } else { self.declared_node(&written, body)? };
        proto.attribute.extend(self.region_attributes(op, depth)?);
        body.nodes.push(proto);
        self.stated_types(op, graph, body)?;
        for r in data.results().iter().filter_map(|r| r.some()) {
            self.symbols.learn(module, r);
        }
        Ok(())
    }

    fn result_name(&mut self, op: OpId, result: ValueId) -> String {
        let module = self.module;
        let Some(result) = result.some() else { return String::new() };
        let named = module.str(module.value(result).name);
        // Unnamed results are called by the first letter of their operator: a name is written with every use.
        let letter = module.op_name(op).get(..1).unwrap_or("v");
        self.names.value(result, if named.is_empty() { letter } else { named })
    }

    /// Types of results that inference alone would not find again.
    fn stated_types(&mut self, op: OpId, graph: GraphId, body: &mut Body) -> Result<(), ExportError> {
        let module = self.module;
        let inferred = infer::infer_op(module, op).unwrap_or_default();
        for (i, &r) in module.op(op).results().iter().enumerate() {
            let Some(value) = r.some() else { continue };
            let is_output =
                module.value(value).uses().iter().any(|u| matches!(u, Use::Return(g, _) if *g == graph));
            let stored = module.type_of(value);
            if !is_output && says_more(module, stored, inferred.get(i).map(|f| &f.ty)) {
                let name = self.operand_name(Some(value));
                body.value_info.push(value_info(module, &name, stored)?);
            }
        }
        Ok(())
    }

    fn opaque_node(&mut self, op: &Written<'_>) -> Result<NodeProto, ExportError> {
        let name = op.attrs.str(OPAQUE_NAME).unwrap_or_default();
        let (of, op_type) = name.split_once("::").unwrap_or(("", name));
        let mut attributes = Vec::new();
        for (name, value) in op.attrs.iter().filter(|(n, _)| ![OPAQUE_NAME, OVERLOAD].contains(n)) {
            let damaged = || ExportError::Attribute { node: op.node.clone(), attr: name.to_owned() };
            attributes.push(attribute(name, value)?.ok_or_else(damaged)?);
        }
        // A source that did not import its operators' set goes back as it was.
        if domain(of).is_empty() && self.module.meta.onnx.is_none() {
            self.domains.insert("");
        }
        Ok(NodeProto {
            input: op.operands.iter().map(|o| self.operand_name(*o)).collect(),
            output: op.results.clone(),
            name: Some(op.node.clone()).filter(|n| !n.is_empty()),
            op_type: Some(op_type.to_owned()),
            domain: (!domain(of).is_empty()).then(|| of.to_owned()),
            overload: op.attrs.str(OVERLOAD).map(str::to_owned),
            attribute: attributes,
            ..Default::default()
        })
    }

    /// Regions under the names that they have: those of ONNX's attributes.
    fn region_attributes(&mut self, op: OpId, depth: usize) -> Result<Vec<AttributeProto>, ExportError> {
        let module = self.module;
        let mut attributes: Vec<AttributeProto> = Vec::new();
        for &graph in module.op(op).regions() {
            let name = module.str(module.graph(graph).name);
            let proto = self.region(graph, name, depth + 1)?;
            let Some(list) = name.strip_suffix(LIST) else {
                attributes.push(graph_attribute(name, proto));
                continue;
            };
            match attributes.last_mut().filter(|a| a.name() == list) {
                Some(a) => a.graphs.push(proto),
                None => attributes.push(AttributeProto {
                    name: Some(list.to_owned()),
                    r#type: Some(at::GRAPHS),
                    graphs: vec![proto],
                    ..Default::default()
                }),
            }
        }
        Ok(attributes)
    }

    fn region(&mut self, graph: GraphId, name: &str, depth: usize) -> Result<GraphProto, ExportError> {
        let mark = self.symbols.enter();
        let proto = self.contents_of(graph, Body::default(), depth, false)?;
        self.symbols.leave(mark);
        Ok(GraphProto { name: Some(name.trim_end_matches(LIST).to_owned()), ..proto })
    }

    /// Outputs by name. A value that has another name, or stands elsewhere, passes through an `Identity`.
    fn outputs(
        &mut self,
        graph: GraphId,
        body: &mut Body,
        is_main: bool,
    ) -> Result<Vec<ValueInfoProto>, ExportError> {
        let module = self.module;
        let g = module.graph(graph);
        let mut outputs: Vec<ValueInfoProto> = Vec::new();
        for ((value, name), ty) in g.results().zip(g.result_names()).zip(g.result_types()) {
            let wanted = module.str(name);
            let has = self.operand_name(Some(value));
            let is_own =
                matches!(module.value(value).def, Def::Result(op, _) if module.op(op).graph == graph);
            let as_it_is =
                if is_main { has == wanted } else { is_own && !outputs.iter().any(|o| o.name() == has) };
            let is_input = |name: &str| g.params().iter().any(|p| self.names.of(*p) == Some(name));
            if is_main && !as_it_is && is_input(wanted) {
                return Err(ExportError::OutputIsInput(wanted.to_owned()));
            }
            let name = if as_it_is { has } else { self.pass_through(has, wanted, is_main, body) };
            let ty = module.ty(ty);
            outputs.push(value_info(
                module,
                &name,
                if *ty == Type::Any { module.type_of(value) } else { ty },
            )?);
        }
        Ok(outputs)
    }

    fn pass_through(&mut self, value: String, wanted: &str, is_main: bool, body: &mut Body) -> String {
        if !is_main {
            let wanted = if wanted.is_empty() { "output" } else { wanted };
            return self.compute(wanted, "Identity", vec![value], Vec::new(), body);
        }
        // The name was reserved for this.
        self.domains.insert("");
        body.nodes.push(NodeProto {
            name: Some(self.names.node(wanted)),
            op_type: Some("Identity".to_owned()),
            input: vec![value],
            output: vec![wanted.to_owned()],
            ..Default::default()
        });
        wanted.to_owned()
    }
}
