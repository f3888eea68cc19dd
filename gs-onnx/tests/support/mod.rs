//! Small ONNX models, written down in code.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use gs_ir::{Module, Registry};
use gs_onnx::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto, attribute_type as at,
    data_type as dt,
};
use gs_onnx::{Error, ExportOptions, StoredOnly, decode_model, export, import};
use prost::Message;

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

pub fn node(op: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        input: strings(input),
        output: strings(output),
        ..Default::default()
    }
}

pub fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

pub fn named(name: &str, node: NodeProto) -> NodeProto {
    NodeProto { name: Some(name.to_owned()), ..node }
}

pub fn in_domain(domain: &str, node: NodeProto) -> NodeProto {
    NodeProto { domain: Some(domain.to_owned()), ..node }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind), ..Default::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, at::INT) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, at::INTS) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, at::FLOAT) }
}

pub fn tensor_attr(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(value)), ..attribute(name, at::TENSOR) }
}

pub fn graph_attr(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(value)), ..attribute(name, at::GRAPH) }
}

pub fn reference(name: &str, kind: i32, to: &str) -> AttributeProto {
    AttributeProto { ref_attr_name: Some(to.to_owned()), ..attribute(name, kind) }
}

pub fn f32s(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(dt::FLOAT),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn i64s(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(dt::INT64),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// A value of type f32; digits are numbers, words are symbols.
pub fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    typed(name, dt::FLOAT, dims)
}

pub fn typed(name: &str, elem: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = |d: &&str| Dimension {
        value: Some(match d.parse() {
            Ok(n) => DimensionValue::Value(n),
            Err(_) => DimensionValue::Param((*d).to_owned()),
        }),
        denotation: None,
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = TensorType { elem_type: Some(elem), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None }),
        ..Default::default()
    }
}

pub fn graph(nodes: Vec<NodeProto>, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> GraphProto {
    GraphProto { name: Some("g".to_owned()), node: nodes, input, output, ..Default::default() }
}

pub fn model(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
        graph: Some(graph),
        ..Default::default()
    }
}

pub fn read(model: &ModelProto) -> Result<Module, Error> {
    import(model, None, &Registry::builtin())
}

pub fn read_ok(model: &ModelProto) -> Module {
    let module = read(model).expect("import");
    if let Err(errors) = gs_ir::verify(&module) {
        let text: Vec<String> = errors.iter().map(|e| e.describe(&module)).collect();
        panic!("{}", text.join("\n"));
    }
    module
}

pub fn write_in(module: &Module, opset: Option<i64>) -> ModelProto {
    let mut out = Vec::new();
    let exported = export(module, &ExportOptions { opset, ..Default::default() }).expect("export");
    exported.write(&mut out, &mut StoredOnly).expect("write");
    decode_model(out.into()).expect("decode what was written")
}

/// Writes a module, and checks that reading and writing again changes nothing.
pub fn write(module: &Module) -> ModelProto {
    let once = write_in(module, None);
    let twice = write_in(&read_ok(&once), None);
    // By bytes, since NaN is not itself.
    assert!(
        once.encode_to_vec() == twice.encode_to_vec(),
        "the second round trip differs:\n{once:?}\n{twice:?}"
    );
    once
}

pub fn main_graph(model: &ModelProto) -> &GraphProto {
    model.graph.as_ref().expect("graph")
}

/// Operators of the main graph in order.
pub fn ops(model: &ModelProto) -> Vec<&str> {
    main_graph(model).node.iter().map(|n| n.op_type()).collect()
}

/// Names of the module's operations in order, those of regions included.
pub fn op_names(module: &Module) -> Vec<&str> {
    module.all_ops().into_iter().map(|op| module.op_name(op)).collect()
}

/// The ledger's entry of a source node that is gone, as its code.
pub fn gone<'m>(module: &'m Module, name: &str) -> Option<&'m str> {
    let sym = module.find_str(name)?;
    module.gone.get(&sym).map(|e| module.str(e.code))
}

/// Why a node was kept as it was.
pub fn kept<'m>(module: &'m Module, name: &str) -> Option<&'m str> {
    let sym = module.find_str(name)?;
    module.kept.get(&sym).and_then(|e| e.reason).map(|r| module.str(r))
}
