//! Nodes that only bring a weight: `Constant`, `Identity`, widening `Cast`, `ConstantOfShape`. They become globals,
//! or another name of one.

use gs_ir::{AttrSet, ElemType, GlobalId, Init, Literal, OpKind, Role, Type, ValueId};

use super::Importer;
use super::attrs::kind_of;
use super::graph::node_error;
use super::scope::{Call, MadeStatic, Scope};
use super::tensors::{densify, f32_literal, f32s, i64_literal, i64s, literal, string_literal};
use crate::error::{Error, NodeProblem};
use crate::proto::{AttributeProto, attribute_type as at};

impl Importer<'_> {
    /// A `Constant` node becomes a global.
    pub(super) fn constant_node(&mut self, call: &Call<'_>, scope: &mut Scope<'_>) -> Result<bool, Error> {
        if !call.domain.is_empty() || call.node.op_type() != "Constant" {
            return Ok(false);
        }
        let [attr] = call.node.attribute.as_slice() else {
            return Err(node_error(call.node, NodeProblem::NoConstant));
        };
        let contents =
            self.constant_value(attr)?.ok_or_else(|| node_error(call.node, NodeProblem::NoConstant))?;
        let name = result_name(call, scope);
        let value = self.add_constant(&name, contents);
        self.becomes(call, value, "constant", scope)?;
        Ok(true)
    }

    fn constant_value(&mut self, attr: &AttributeProto) -> Result<Option<Literal>, Error> {
        let files = self.files.as_deref_mut();
        Ok(match (attr.name(), kind_of(attr)) {
            ("value", at::TENSOR) => attr.t.as_deref().map(|t| literal(t, files)).transpose()?,
            ("sparse_value", at::SPARSE_TENSOR) => {
                attr.sparse_tensor.as_deref().map(|s| densify(s, files)).transpose()?.map(|(_, l)| l)
            }
            ("value_float", at::FLOAT) => Some(f32_literal(&[attr.f()], true)),
            ("value_floats", at::FLOATS) => Some(f32_literal(&attr.floats, false)),
            ("value_int", at::INT) => Some(i64_literal(&[attr.i()], true)),
            ("value_ints", at::INTS) => Some(i64_literal(&attr.ints, false)),
            ("value_string", at::STRING) => Some(string_literal(&[attr.s.clone().unwrap_or_default()], true)),
            ("value_strings", at::STRINGS) => Some(string_literal(&attr.strings, false)),
            _ => None,
        })
    }

    /// A node that renames, widens or repeats a weight.
    pub(super) fn weight_node(&mut self, call: &Call<'_>, scope: &mut Scope<'_>) -> Result<bool, Error> {
        if !call.domain.is_empty() {
            return Ok(false);
        }
        let weight = match call.operands.as_slice() {
            [Some(v)] => *v,
            _ => return Ok(false),
        };
        let (value, code) = match (call.node.op_type(), self.rw.as_global(weight)) {
            ("Identity", Some(_)) => (Some(weight), "alias"),
            ("Cast", Some(global)) => match self.converted(call, weight, scope) {
                Some(value) => (Some(value), "constant"),
                None => (self.widened(call, global, scope), "derived"),
            },
            ("ConstantOfShape", _) => (self.splat(call, weight, scope)?, "constant"),
            _ => (None, ""),
        };
        match value {
            Some(value) => self.becomes(call, value, code, scope).map(|()| true),
            None => Ok(false),
        }
    }

    /// A scalar constant as f32: cheaper than what it is made of, and readable where a constant must be known.
    fn converted(&mut self, call: &Call<'_>, scalar: ValueId, scope: &Scope<'_>) -> Option<ValueId> {
        let literal = self.constant(scalar).filter(|l| l.count() == Some(1))?;
        if cast_target(call) != Some(ElemType::F32) {
            return None;
        }
        let value = match literal.elem {
            ElemType::F64 => f64::from_le_bytes(literal.data.bytes()?.as_ref().try_into().ok()?) as f32,
            e if e.is_float() => *f32s(&literal)?.first()?,
            _ => *i64s(&literal)?.first()? as f32,
        };
        let name = result_name(call, scope);
        self.made_static.push(MadeStatic { value: scalar, into: call.source });
        Some(self.add_constant(&name, Literal::f32s(literal.dims, &[value])))
    }

    /// A float weight stored in another float type: derived from what is stored.
    fn widened(&mut self, call: &Call<'_>, global: GlobalId, scope: &Scope<'_>) -> Option<ValueId> {
        let is_float = |e: ElemType| e.is_float();
        if self.rw.global(global).role == Role::Input {
            return None;
        }
        let from = self.rw.ty(self.rw.global(global).ty).elem().filter(|&e| is_float(e))?;
        // A narrowing cast would have to be computed when the network is written again.
        let to = cast_target(call).filter(|&e| is_float(e) && e.bits() > from.bits())?;
        let kind = self.declared_kind("Cast")?;
        let attrs = AttrSet::new().with("to", gs_ir::Attr::Elem(to));
        let name = result_name(call, scope);
        let derived = self.rw.derive_global(&name, kind, attrs, &[Some(global)]).ok()?;
        Some(self.rw.global(derived).value)
    }

    fn declared_kind(&self, onnx: &str) -> Option<OpKind> {
        self.rw.registry().for_onnx("", onnx).next()
    }

    /// A tensor of one repeated value, of constant shape.
    fn splat(
        &mut self,
        call: &Call<'_>,
        shape: ValueId,
        scope: &Scope<'_>,
    ) -> Result<Option<ValueId>, Error> {
        let dims = self.constant(shape).and_then(|l| i64s(&l));
        let Some(dims) = dims.filter(|d| d.iter().all(|&n| n >= 0)) else { return Ok(None) };
        let value = match call.node.attribute.as_slice() {
            [] => f32_literal(&[0.0], false),
            [a] if a.name() == "value" => match a.t.as_deref() {
                Some(t) => literal(t, self.files.as_deref_mut())?,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let Some(one) = value.data.bytes().filter(|_| value.count() == Some(1)) else { return Ok(None) };
        self.made_static.push(MadeStatic { value: shape, into: call.source });
        let init = Init::Splat(one.as_ref().into());
        let name = result_name(call, scope);
        Ok(Some(self.add_global(&name, Type::fixed(value.elem, &dims), init)))
    }

    /// Notes that a node is now a global.
    fn becomes(
        &mut self,
        call: &Call<'_>,
        value: ValueId,
        code: &str,
        scope: &mut Scope<'_>,
    ) -> Result<(), Error> {
        if scope.call.is_none() {
            let entry = self.rw.entry(code, "import", None, None);
            self.rw.gone.insert(call.source, entry);
        }
        let name = call.node.output.first().map_or("", String::as_str);
        self.define(call.node, name, Some(value), scope)
    }
}

/// The element type of a cast that has no other attribute.
fn cast_target(call: &Call<'_>) -> Option<ElemType> {
    match call.node.attribute.as_slice() {
        [a] if a.name() == "to" => i32::try_from(a.i()).ok().and_then(ElemType::from_onnx),
        _ => None,
    }
}

fn result_name(call: &Call<'_>, scope: &Scope<'_>) -> String {
    format!("{}{}", scope.prefix, call.node.output.first().map_or("constant", String::as_str))
}
