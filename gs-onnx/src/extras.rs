//! What an ONNX file says that the IR has no word for: names and comments of graphs, comments on nodes, training
//! graphs, device configurations, quantisation annotations.
//!
//! It travels as one property of the module, under [`KEY`]: a model message with everything removed that the IR holds
//! itself, in base64. So it survives the text form, and a module without such things carries nothing.

use prost::Message;

use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

/// The property's key. No ONNX tool writes a key like it.
pub(crate) const KEY: &str = "$onnx";

/// The key of the main graph's name, which nearly every file has and people want to read.
pub(crate) const GRAPH_NAME: &str = "$onnx.graph";

/// The part of a model that the IR does not hold. `notes` are its nodes, reduced by [`node_notes`].
pub(crate) fn reduce(model: &ModelProto, notes: Vec<NodeProto>) -> ModelProto {
    let graph = model.graph.as_ref().map(|g| GraphProto {
        node: notes,
        doc_string: g.doc_string.clone(),
        input: g.input.iter().filter_map(value_notes).collect(),
        output: g.output.iter().filter_map(value_notes).collect(),
        quantization_annotation: g.quantization_annotation.clone(),
        metadata_props: g.metadata_props.clone(),
        ..Default::default()
    });
    ModelProto {
        graph,
        training_info: model.training_info.clone(),
        configuration: model.configuration.clone(),
        ..Default::default()
    }
}

/// What a node carries beside its operation, if it carries anything.
pub(crate) fn node_notes(node: &NodeProto, name: &str) -> Option<NodeProto> {
    let notes = NodeProto {
        doc_string: node.doc_string.clone().filter(|d| !d.is_empty()),
        metadata_props: node.metadata_props.clone(),
        device_configurations: node.device_configurations.clone(),
        attribute: node.attribute.iter().filter_map(graph_notes).collect(),
        ..Default::default()
    };
    (notes != NodeProto::default()).then(|| NodeProto { name: Some(name.to_owned()), ..notes })
}

/// Name and comments of a graph that a node carries; the name of its attribute says nothing more.
fn graph_notes(attr: &AttributeProto) -> Option<AttributeProto> {
    let g = attr.g.as_deref()?;
    let notes = GraphProto {
        name: g.name.clone().filter(|n| n != attr.name()),
        doc_string: g.doc_string.clone().filter(|d| !d.is_empty()),
        metadata_props: g.metadata_props.clone(),
        ..Default::default()
    };
    let some = notes != GraphProto::default();
    some.then(|| AttributeProto { name: attr.name.clone(), g: Some(Box::new(notes)), ..Default::default() })
}

/// Gives a graph its name and comments back.
pub(crate) fn add_graph_notes(attr: &mut AttributeProto, notes: &[AttributeProto]) {
    let found = notes.iter().find(|n| n.name() == attr.name()).and_then(|n| n.g.as_deref());
    let (Some(graph), Some(notes)) = (&mut attr.g, found) else { return };
    graph.name = notes.name.clone().or(graph.name.take());
    graph.doc_string.clone_from(&notes.doc_string);
    graph.metadata_props.clone_from(&notes.metadata_props);
}

fn value_notes(value: &ValueInfoProto) -> Option<ValueInfoProto> {
    let bare = value.doc_string().is_empty() && value.metadata_props.is_empty();
    (!bare).then(|| ValueInfoProto { r#type: None, ..value.clone() })
}

/// The value of the property; `None` where there is nothing to keep.
pub(crate) fn encode(extras: &ModelProto) -> Option<String> {
    let bytes = extras.encode_to_vec();
    let empty = ModelProto { graph: Some(GraphProto::default()), ..Default::default() }.encode_to_vec();
    (!bytes.is_empty() && bytes != empty).then(|| to_base64(&bytes))
}

/// Reads the property back; `None` where it was damaged.
pub(crate) fn decode(text: &str) -> Option<ModelProto> {
    ModelProto::decode(from_base64(text)?.as_slice()).ok()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |w, (i, &b)| w | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            let six = (word >> (18 - 6 * i)) as usize & 63;
            text.push(if i <= chunk.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for (i, digit) in chunk.iter().enumerate() {
            let six = ALPHABET.iter().position(|a| a == digit)?;
            word |= (six as u32) << (18 - 6 * i);
        }
        let whole = word.to_be_bytes();
        bytes.extend_from_slice(whole.get(1..chunk.len())?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_common_one_and_goes_back() {
        assert_eq!(to_base64(b"light work."), "bGlnaHQgd29yay4=");
        for n in 0..10u8 {
            let bytes: Vec<u8> = (0..n).map(|b| b.wrapping_mul(77)).collect();
            assert_eq!(from_base64(&to_base64(&bytes)), Some(bytes));
        }
        assert_eq!(from_base64("a?"), None);
    }

    #[test]
    fn nothing_to_keep_is_nothing_kept() {
        let plain =
            ModelProto { graph: Some(GraphProto::default()), ir_version: Some(8), ..Default::default() };
        assert_eq!(encode(&reduce(&plain, Vec::new())), None);
        let named = GraphProto { doc_string: Some("g".into()), ..Default::default() };
        let kept = reduce(&ModelProto { graph: Some(named), ..Default::default() }, Vec::new());
        assert_eq!(encode(&kept).and_then(|t| decode(&t)), Some(kept));
    }
}
