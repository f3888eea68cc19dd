//! Calls of our own functions, and the functions themselves.

use gs_ir::{AttrSet, Module, OpDecl, Type, ValueId};

use super::op::Written;
use super::{ExportError, Exporter, bodies, learned};
use crate::own;
use crate::proto::{FunctionProto, NodeProto, OperatorSetIdProto};

/// The body of an operation that ONNX does not have, if there is one in this version of the operator set.
fn body(
    module: &Module,
    decl: &OpDecl,
    attrs: &AttrSet,
    operands: &[Option<ValueId>],
    opset: i64,
) -> Result<Option<Vec<NodeProto>>, ExportError> {
    if opset < bodies::FIRST_OPSET {
        return Ok(None);
    }
    let ty = |i: usize| operands.get(i).copied().flatten().map_or(&Type::Any, |v| module.type_of(v));
    match decl.name {
        "fake_quant" => bodies::fake_quant(attrs, ty(0)),
        "qdq" => bodies::qdq(attrs, ty(0), ty(2), opset),
        "lsq" => learned::lsq(attrs, ty(0)),
        "pact" => learned::pact(attrs, ty(0)),
        "dorefa" => learned::dorefa(attrs, ty(0), opset),
        "slb" => learned::slb(attrs, ty(0)),
        _ => Ok(None),
    }
}

/// Whether an operation without an ONNX form can be written as a call of our own.
pub(super) fn can_call(
    module: &Module,
    decl: &OpDecl,
    attrs: &AttrSet,
    operands: &[Option<ValueId>],
    opset: i64,
) -> Result<(), String> {
    match body(module, decl, attrs, operands, opset) {
        Ok(Some(_)) => Ok(()),
        _ if opset < bodies::FIRST_OPSET => Err("its function needs a later version".to_owned()),
        _ => Err("there is no function for these attributes and types".to_owned()),
    }
}

/// Whether operations of this name have functions at all.
pub(super) fn has_function(decl: &OpDecl) -> bool {
    matches!(decl.name, "fake_quant" | "qdq" | "lsq" | "pact" | "dorefa" | "slb")
}

impl Exporter<'_> {
    /// Writes a call, and the function unless an equal one is there.
    pub(super) fn own_node(&mut self, op: &Written<'_>, decl: &OpDecl) -> Result<NodeProto, ExportError> {
        let opset = self.opset.main;
        let nodes = body(self.module, decl, op.attrs, op.operands, opset)?
            .ok_or_else(|| ExportError::NoForm { node: op.node.clone(), op: decl.name.to_owned() })?;
        let mut attribute = Vec::new();
        for (name, value) in op.attrs.iter() {
            attribute.extend(super::attrs::attribute(name, value)?);
        }
        let function = FunctionProto {
            domain: Some(own::DOMAIN.to_owned()),
            input: decl.operands.iter().map(|o| o.name.to_owned()).collect(),
            output: vec!["y".to_owned()],
            attribute: op.attrs.iter().map(|(n, _)| n.to_owned()).collect(),
            node: nodes,
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
            ..Default::default()
        };
        self.domains.insert(own::DOMAIN);
        self.domains.insert("");
        Ok(NodeProto {
            input: op.operands.iter().map(|o| self.operand_name(*o)).collect(),
            output: op.results.clone(),
            name: Some(op.node.clone()),
            op_type: Some(self.function(decl.name, function)),
            domain: Some(own::DOMAIN.to_owned()),
            attribute,
            ..Default::default()
        })
    }

    /// The name of a function, which is added unless an equal one is there.
    fn function(&mut self, op: &str, mut function: FunctionProto) -> String {
        let of_op = |f: &&FunctionProto| own::operation(f.name()) == Some(op);
        for known in self.functions.iter().filter(of_op) {
            function.name.clone_from(&known.name);
            if *known == function {
                return known.name().to_owned();
            }
        }
        let name = own::function_name(op, self.functions.iter().filter(of_op).count());
        self.functions.push(FunctionProto { name: Some(name.clone()), ..function });
        name
    }
}
