//! The model around the graph: versions, producer, metadata, and what the IR has no word for.

use std::collections::BTreeMap;

use gs_ir::{Module, OnnxMeta, Role};
use rustc_hash::FxHashSet;

use super::opset::ir_version;
use super::{ExportError, Exporter};
use crate::extras;
use crate::import::{IR_WITH_OVERRIDABLE_WEIGHTS, domain};
use crate::proto::{
    Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorAnnotation, TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};

/// The first version of the file format that has model-local functions.
const IR_WITH_FUNCTIONS: i64 = 8;

/// Puts the model together.
pub(super) fn model(
    module: &Module,
    exporter: &Exporter<'_>,
    mut graph: GraphProto,
) -> Result<ModelProto, ExportError> {
    let meta = module.meta.onnx.clone().unwrap_or_else(|| OnnxMeta {
        producer_name: "golden-stick".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..OnnxMeta::default()
    });
    let is_raised = match exporter.opset.source {
        Some(source) => source != exporter.opset.main,
        None => meta.opsets.is_empty() || exporter.domains.contains(""),
    };
    let by_opset = if is_raised { ir_version(exporter.opset.main) } else { 0 };
    let by_functions = if exporter.functions.is_empty() { 0 } else { IR_WITH_FUNCTIONS };
    let first = by_opset.max(by_functions);
    let ir = meta.ir_version.max(first);
    let overridable = overridable(module, exporter);
    let is_listed = |t: &&TensorProto| ir < IR_WITH_OVERRIDABLE_WEIGHTS || overridable.contains(t.name());
    let listed: Vec<ValueInfoProto> = graph.initializer.iter().filter(is_listed).map(listed).collect();
    graph.input.extend(listed);
    let kept = kept(module)?;
    graph.name = Some("main".to_owned());
    let mut model = ModelProto {
        ir_version: Some(ir),
        producer_name: text(&meta.producer_name),
        producer_version: text(&meta.producer_version),
        domain: text(&meta.domain),
        model_version: (meta.model_version != 0).then_some(meta.model_version),
        doc_string: text(&meta.doc),
        opset_import: opsets(&meta, exporter),
        metadata_props: properties(module),
        functions: exporter.functions.clone(),
        ..Default::default()
    };
    if let Some(kept) = kept {
        add_kept(&mut graph, kept.graph.unwrap_or_default());
        model.training_info = kept.training_info;
        model.configuration = kept.configuration;
    }
    if let Some((_, name)) = module.meta.properties.iter().find(|(k, _)| k == extras::GRAPH_NAME) {
        graph.name = Some(name.clone());
    }
    model.graph = Some(graph);
    Ok(model)
}

fn text(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

/// The imports of the source in their order, then those of what was added.
fn opsets(meta: &OnnxMeta, exporter: &Exporter<'_>) -> Vec<OperatorSetIdProto> {
    let entry =
        |of: &str, version| OperatorSetIdProto { domain: Some(of.to_owned()), version: Some(version) };
    let version = |of: &str, stated| if domain(of).is_empty() { exporter.opset.main } else { stated };
    let mut list: Vec<OperatorSetIdProto> =
        meta.opsets.iter().map(|(of, stated)| entry(of, version(of, *stated))).collect();
    for of in &exporter.domains {
        if !list.iter().any(|o| domain(o.domain()) == *of) {
            list.push(entry(of, exporter.opset.version(of)));
        }
    }
    list
}

fn properties(module: &Module) -> Vec<StringStringEntryProto> {
    let ours = [extras::KEY, extras::GRAPH_NAME];
    let theirs = module.meta.properties.iter().filter(|(k, _)| !ours.contains(&k.as_str()));
    theirs.map(|(k, v)| StringStringEntryProto { key: Some(k.clone()), value: Some(v.clone()) }).collect()
}

fn kept(module: &Module) -> Result<Option<ModelProto>, ExportError> {
    let text = module.meta.properties.iter().find(|(k, _)| k == extras::KEY);
    text.map(|(_, v)| extras::decode(v).ok_or(ExportError::Extras)).transpose()
}

/// Puts comments back on what is still there.
fn add_kept(graph: &mut GraphProto, kept: GraphProto) {
    graph.doc_string = kept.doc_string;
    graph.metadata_props = kept.metadata_props;
    add_node_notes(&mut graph.node, kept.node);
    for (list, notes) in [(&mut graph.input, kept.input), (&mut graph.output, kept.output)] {
        for note in notes {
            if let Some(v) = list.iter_mut().find(|v| v.name() == note.name()) {
                v.doc_string = note.doc_string;
                v.metadata_props = note.metadata_props;
            }
        }
    }
    let present = tensor_names(graph);
    let is_there = |a: &TensorAnnotation| {
        let named = a.quant_parameter_tensor_names.iter().map(|p| p.value());
        std::iter::once(a.tensor_name()).chain(named).all(|n| present.contains(n))
    };
    graph.quantization_annotation = kept.quantization_annotation.into_iter().filter(is_there).collect();
}

fn add_node_notes(nodes: &mut [NodeProto], notes: Vec<NodeProto>) {
    let mut notes: BTreeMap<String, NodeProto> =
        notes.into_iter().map(|n| (n.name().to_owned(), n)).collect();
    let mut pending: Vec<&mut NodeProto> = nodes.iter_mut().collect();
    while let Some(node) = pending.pop() {
        if let Some(note) = notes.remove(node.name()) {
            node.doc_string = note.doc_string;
            node.metadata_props = note.metadata_props;
            node.device_configurations = note.device_configurations;
            node.attribute.iter_mut().for_each(|a| extras::add_graph_notes(a, &note.attribute));
        }
        for a in &mut node.attribute {
            let graphs = a.g.as_deref_mut().into_iter().chain(&mut a.graphs);
            pending.extend(graphs.flat_map(|g| &mut g.node));
        }
    }
}

fn tensor_names(graph: &GraphProto) -> FxHashSet<String> {
    let results = graph.node.iter().flat_map(|n| &n.output).cloned();
    let inputs = graph.input.iter().map(|i| i.name().to_owned());
    let stored = graph.initializer.iter().map(|t| t.name().to_owned());
    results.chain(inputs).chain(stored).collect()
}

/// The names of initializers that a run may override.
fn overridable<'e>(module: &Module, exporter: &'e Exporter<'_>) -> FxHashSet<&'e str> {
    let inputs = module.globals().filter(|(_, g)| g.role == Role::Input);
    inputs.filter_map(|(_, g)| exporter.names.of(g.value)).collect()
}

fn listed(tensor: &TensorProto) -> ValueInfoProto {
    let dimension = |&n: &i64| Dimension { value: Some(DimensionValue::Value(n)), denotation: None };
    let shape = TensorShapeProto { dim: tensor.dims.iter().map(dimension).collect() };
    let ty = TensorType { elem_type: tensor.data_type, shape: Some(shape) };
    ValueInfoProto {
        name: tensor.name.clone(),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(ty)), denotation: None }),
        ..Default::default()
    }
}
