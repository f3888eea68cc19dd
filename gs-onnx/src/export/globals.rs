//! Globals as initializers, or as nodes where that is smaller: a weight stored narrow stays stored narrow with the
//! node that widens it, a large tensor of one value is a `ConstantOfShape`.

use std::io::{self, Write};

use gs_ir::{Attr, Derived, ElemType, GlobalId, Init, Literal, Role, TensorType};

use super::attrs::tensor;
use super::graph::Body;
use super::storage::derived_operands;
use super::types::element;
use super::{ExportError, Exporter};
use crate::proto::{NodeProto, TensorProto};

/// Where the elements of an initializer come from when the file is written.
pub(super) enum Contents {
    /// They are in the message.
    InMessage,
    /// One value, repeated.
    Repeated { one: Vec<u8>, count: usize },
    /// Somebody computes them.
    Made { global: GlobalId, bytes: usize },
}

/// Repeated values of more bytes than this become a node.
const SPLAT_LIMIT: usize = 1024;

pub(super) fn write_repeated(one: &[u8], count: usize, out: &mut dyn Write) -> io::Result<()> {
    let per_block = (4096 / one.len().max(1)).max(1);
    let block = one.repeat(per_block.min(count));
    for _ in 0..count / per_block {
        out.write_all(&block)?;
    }
    out.write_all(&one.repeat(count % per_block))
}

impl<'m> Exporter<'m> {
    /// Writes all globals that the graph or another written global needs, in order of creation: first the stored
    /// ones, then those that are nodes. A reader meets them in the same order, so that writing again changes nothing.
    pub(super) fn globals(&mut self, body: &mut Body) -> Result<(), ExportError> {
        let module = self.module;
        for as_nodes in [false, true] {
            for (id, _) in module.globals() {
                if self.storage.writes(id) && self.is_node(id) == as_nodes {
                    self.global_with_operands(id, body)?;
                }
            }
        }
        Ok(())
    }

    fn is_node(&self, id: GlobalId) -> bool {
        let global = self.module.global(id);
        let is_large = || self.module.ty(global.ty).as_tensor().is_some_and(|ty| self.prefers_node(ty));
        let is_splat = matches!(global.init, Init::Splat(_)) && global.role != Role::Input;
        self.node_of(id).is_some() || (is_splat && is_large())
    }

    /// Writes a global behind the globals that its node reads. An explicit stack: derivations are as long as a file likes.
    fn global_with_operands(&mut self, id: GlobalId, body: &mut Body) -> Result<(), ExportError> {
        let module = self.module;
        let mut pending = vec![(id, false)];
        while let Some((id, operands_done)) = pending.pop() {
            let value = module.global(id).value;
            if self.names.is_written(value) {
                continue;
            }
            let operands: Vec<GlobalId> = if self.node_of(id).is_some() {
                derived_operands(module.global(id)).collect()
            } else {
                Vec::new()
            };
            if operands_done || operands.is_empty() {
                self.names.set_written(value);
                self.global(id, body)?;
            } else {
                pending.push((id, true));
                pending.extend(operands.into_iter().rev().map(|o| (o, false)));
            }
        }
        Ok(())
    }

    fn global(&mut self, id: GlobalId, body: &mut Body) -> Result<(), ExportError> {
        let module = self.module;
        let global = module.global(id);
        let name = self.names.value(global.value, module.str(global.name));
        if let Some(derived) = self.node_of(id) {
            return self.derived_node(&name, derived, body);
        }
        let no_contents = || ExportError::NoContents(module.str(global.name).to_owned());
        let ty = module.ty(global.ty).as_tensor().ok_or_else(no_contents)?;
        let dims = ty.const_dims().ok_or_else(no_contents)?;
        let bytes = || ty.bytes().ok_or_else(no_contents);
        let bare = TensorProto {
            name: Some(name.clone()),
            dims: dims.clone(),
            data_type: Some(element(&name, ty.elem)?),
            ..Default::default()
        };
        let (message, contents) = match &global.init {
            Init::Data(data) => {
                let literal = Literal { elem: ty.elem, dims, data: data.clone() };
                (tensor(Some(&name), &literal)?, Contents::InMessage)
            }
            Init::Splat(one) if self.is_node(id) => return self.splat_node(&name, ty, one, body),
            Init::Splat(one) if ty.elem.bits() >= 8 => {
                let count = ty.count().ok_or_else(no_contents)?;
                (bare, Contents::Repeated { one: one.to_vec(), count })
            }
            Init::Splat(_) | Init::Seeded { .. } | Init::Derived(_) => {
                (bare, Contents::Made { global: id, bytes: bytes()? })
            }
            Init::Absent => return Err(no_contents()),
        };
        self.initializers.push(message);
        self.contents.push(contents);
        Ok(())
    }

    /// The derivation of a global that is written as a node.
    fn node_of(&self, id: GlobalId) -> Option<&'m Derived> {
        match &self.module.global(id).init {
            Init::Derived(derived) if self.storage.is_node(id) => Some(derived),
            _ => None,
        }
    }

    fn derived_node(&mut self, name: &str, derived: &Derived, body: &mut Body) -> Result<(), ExportError> {
        let module = self.module;
        let operands: Vec<Option<gs_ir::ValueId>> =
            derived.operands.iter().map(|o| o.map(|o| module.global(o).value)).collect();
        let node_name = self.names.node(name);
        let call = super::op::Written {
            kind: derived.kind,
            attrs: &derived.attrs,
            operands: &operands,
            results: vec![name.to_owned()],
            node: node_name,
        };
        let node = self.declared_node(&call, body)?;
        body.nodes.push(node);
        Ok(())
    }

    fn prefers_node(&self, ty: &TensorType) -> bool {
        // Types that the operator has had since its first version.
        let supported =
            (ty.elem.is_float() || ty.elem.is_int()) && ty.elem.bits() >= 16 && ty.elem != ElemType::Bf16;
        supported && self.opset.main >= 9 && ty.bytes().is_some_and(|n| n > SPLAT_LIMIT)
    }

    fn splat_node(
        &mut self,
        name: &str,
        ty: &TensorType,
        one: &[u8],
        body: &mut Body,
    ) -> Result<(), ExportError> {
        let dims = ty.const_dims().unwrap_or_default();
        let shape =
            self.constant_operand(&format!("{name}.shape"), &Literal::i64s([dims.len() as i64], &dims))?;
        let value = Attr::Tensor(Literal::new(ty.elem, [1], one.to_vec()).into());
        body.nodes.push(NodeProto {
            name: Some(self.names.node(name)),
            op_type: Some("ConstantOfShape".to_owned()),
            input: vec![shape],
            output: vec![name.to_owned()],
            attribute: super::attrs::attribute("value", &value)?.into_iter().collect(),
            ..Default::default()
        });
        Ok(())
    }

    /// Adds a constant that no global stands for and gives its name.
    pub(super) fn constant_operand(
        &mut self,
        wanted: &str,
        literal: &Literal,
    ) -> Result<String, ExportError> {
        let name = self.names.extra(wanted);
        self.initializers.push(tensor(Some(&name), literal)?);
        self.contents.push(Contents::InMessage);
        Ok(name)
    }
}
