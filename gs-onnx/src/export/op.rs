//! Declared operations as nodes, by the form in force.

use gs_ir::registry::{AttrDecl, Default as AttrDefault, OnnxAttr, OnnxForm, OnnxInput, Regions};
use gs_ir::{Attr, AttrSet, Dim, Fact, Module, OpDecl, OpId, OpKind, Type, ValueId, infer};

use super::attrs::{attribute, constant};
use super::graph::Body;
use super::opset::{Choice, number_of};
use super::spelling::spelled;
use super::{ExportError, Exporter, own};
use crate::import::{default_value, spatial};
use crate::proto::{AttributeProto, NodeProto, attribute_type as at};

/// An operation to be written.
pub(super) struct Written<'a> {
    pub(super) kind: OpKind,
    pub(super) attrs: &'a AttrSet,
    pub(super) operands: &'a [Option<ValueId>],
    pub(super) results: Vec<String>,
    pub(super) node: String,
}

/// Whether an operation has a form in the chosen versions that can say all of it.
pub(super) fn can_write(module: &Module, op: OpId, choice: &Choice) -> Result<(), ExportError> {
    let decl = module.decl(op);
    let (node, name) = (module.label(op), decl.name);
    let fail = |version, reason| ExportError::Version {
        node: node.to_owned(),
        op: name.to_owned(),
        version,
        reason,
    };
    let Some(onnx) = &decl.onnx else {
        if !own::has_function(decl) {
            return Err(ExportError::NoForm { node: node.to_owned(), op: name.to_owned() });
        }
        let operands: Vec<Option<ValueId>> = module.op(op).operands().collect();
        let found = own::can_call(module, decl, module.attrs_of(op), &operands, choice.main);
        return found.map_err(|reason| fail(choice.main, reason));
    };
    let version = choice.version(onnx.domain);
    let present: Vec<bool> = module.op(op).operands().map(|o| o.is_some()).collect();
    let fits = fit(decl, &spelled(module, op, choice), &present, version);
    fits.map(|_| ()).map_err(|reason| fail(version, reason))
}

/// The form in force, if it can say these attributes and operands; else what it cannot say.
fn fit(decl: &OpDecl, attrs: &AttrSet, present: &[bool], version: i64) -> Result<&'static OnnxForm, String> {
    let form = decl.onnx.and_then(|o| o.form(version)).ok_or("this version is not covered")?;
    for (name, value) in attrs.iter() {
        if !says_attr(decl, form, name, value) {
            return Err(format!("it has no attribute `{name}` of this value"));
        }
    }
    for entry in form.attrs {
        match *entry {
            OnnxAttr::Implied(ours, default) if effective(decl, attrs, ours) != default_value(default) => {
                return Err(format!("it has no attribute `{ours}` of this value"));
            }
            OnnxAttr::Defaulting(_, ours, default)
                if attrs.get(ours).is_none() && decl.attr(ours).is_some_and(|d| !can_spell(d, default)) =>
            {
                return Err(format!("it cannot say that `{ours}` is absent"));
            }
            _ => {}
        }
    }
    let operands = present.iter().enumerate().filter(|(_, p)| **p);
    for name in operands.filter_map(|(i, _)| decl.operand(i)).map(|o| o.name) {
        if !form.inputs.contains(&OnnxInput::Operand(name)) {
            return Err(format!("it has no operand `{name}`"));
        }
    }
    Ok(form)
}

/// Whether a form can say that one of our attributes has this value.
fn says_attr(decl: &OpDecl, form: &OnnxForm, name: &str, value: &Attr) -> bool {
    let as_input = form.inputs.iter().any(|i| match *i {
        OnnxInput::Attr(n) | OnnxInput::ScalarAttr(n) | OnnxInput::Hint(n) => n == name,
        _ => false,
    });
    let has_symbols = matches!(value, Attr::Dims(d) if d.iter().any(|d| d.as_const().is_none()));
    let as_attr = form.attrs.iter().any(|a| match *a {
        OnnxAttr::Same(_, ours) | OnnxAttr::Defaulting(_, ours, _) => ours == name && !has_symbols,
        OnnxAttr::Implied(ours, default) => ours == name && default_value(default).as_ref() == Some(value),
        _ => false,
    });
    as_input || as_attr || decl.attr(name).is_none()
}

/// Whether an attribute that we leave out can be written where ONNX's default is another one: its value has one
/// spelling, or is the same default.
fn can_spell(ours: &AttrDecl, theirs: AttrDefault) -> bool {
    ours.default == theirs || default_value(ours.default).is_some()
}

/// The value that an attribute has, also where it is left out.
fn effective(decl: &OpDecl, attrs: &AttrSet, name: &str) -> Option<Attr> {
    attrs.get(name).cloned().or_else(|| decl.attr(name).and_then(|d| default_value(d.default)))
}

/// Whether an operation of this kind, with all its operands, can be written.
pub(super) fn can_write_kind(module: &Module, kind: OpKind, attrs: &AttrSet, choice: &Choice) -> bool {
    let decl = module.registry().decl(kind);
    let Some(onnx) = &decl.onnx else { return false };
    decl.regions == Regions::None && fit(decl, attrs, &[], choice.version(onnx.domain)).is_ok()
}

impl Exporter<'_> {
    /// Writes a declared operation; what computes its shapes goes to `body` before it.
    pub(super) fn declared_node(
        &mut self,
        op: &Written<'_>,
        body: &mut Body,
    ) -> Result<NodeProto, ExportError> {
        let decl = *self.module.registry().decl(op.kind);
        let no_form = || ExportError::NoForm { node: op.node.clone(), op: decl.name.to_owned() };
        let Some(onnx) = decl.onnx else { return self.own_node(op, &decl) };
        let form = onnx.form(self.opset.version(onnx.domain)).ok_or_else(no_form)?;
        self.domains.insert(onnx.domain);
        Ok(NodeProto {
            input: self.inputs(op, &decl, form, body)?,
            attribute: self.attributes(op, &decl, form)?,
            output: op.results.clone(),
            name: Some(op.node.clone()),
            op_type: Some(onnx.name.to_owned()),
            domain: (!onnx.domain.is_empty()).then(|| onnx.domain.to_owned()),
            ..Default::default()
        })
    }

    fn inputs(
        &mut self,
        op: &Written<'_>,
        decl: &OpDecl,
        form: &OnnxForm,
        body: &mut Body,
    ) -> Result<Vec<String>, ExportError> {
        let mut inputs = Vec::new();
        for input in form.inputs {
            match *input {
                OnnxInput::Operand(name) => {
                    let first = decl.operand_index(name).unwrap_or(usize::MAX);
                    let variadic =
                        first.saturating_add(1) == decl.operands.len() && decl.operand(first + 1).is_some();
                    let count = if variadic { op.operands.len().saturating_sub(first) } else { 1 };
                    for i in first..first.saturating_add(count) {
                        inputs.push(self.operand_name(op.operands.get(i).copied().flatten()));
                    }
                }
                OnnxInput::Attr(name) => inputs.push(self.static_input(op, name, false, body)?),
                OnnxInput::ScalarAttr(name) | OnnxInput::Hint(name) => {
                    inputs.push(self.static_input(op, name, true, body)?);
                }
                OnnxInput::Fixed(_) | OnnxInput::Ignored => inputs.push(String::new()),
            }
        }
        let last = inputs.iter().rposition(|i| !i.is_empty()).map_or(0, |i| i + 1);
        inputs.truncate(last);
        Ok(inputs)
    }

    pub(super) fn operand_name(&mut self, operand: Option<ValueId>) -> String {
        // Everything that an operation reads was written before it, so it has its name.
        operand.map_or_else(String::new, |v| self.names.of(v).unwrap_or_default().to_owned())
    }

    /// An attribute of ours that is an operand in ONNX.
    fn static_input(
        &mut self,
        op: &Written<'_>,
        name: &str,
        scalar: bool,
        body: &mut Body,
    ) -> Result<String, ExportError> {
        let Some(value) = op.attrs.get(name) else { return Ok(String::new()) };
        let first = op.operands.first().copied().flatten().map(|v| self.module.type_of(v));
        let mut value = value.clone();
        if let Attr::Dims(dims) = &value
            && dims.iter().any(|d| d.as_const().is_none())
        {
            let short = match (self.module.registry().decl(op.kind), first) {
                (decl, Some(x)) if decl.name == "reshape" => short_target(decl, dims, x, op.attrs),
                _ => dims.to_vec(),
            };
            if short.iter().any(|d| d.as_const().is_none()) {
                return self.extents(&op.node, name, &short, body);
            }
            value = Attr::dims(short);
        }
        let literal = constant(&value, scalar, number_of(first))
            .ok_or_else(|| ExportError::Attribute { node: op.node.clone(), attr: name.to_owned() })?;
        self.constant_operand(&format!("{}.{name}", op.node), &literal)
    }

    fn attributes(
        &self,
        op: &Written<'_>,
        decl: &OpDecl,
        form: &OnnxForm,
    ) -> Result<Vec<AttributeProto>, ExportError> {
        let mut list = Vec::new();
        for entry in form.attrs {
            let written = match *entry {
                OnnxAttr::Same(name, ours) => op.attrs.get(ours).cloned().map(|v| (name, v)),
                OnnxAttr::Defaulting(name, ours, default) => {
                    let value = effective(decl, op.attrs, ours);
                    value.filter(|v| default_value(default).as_ref() != Some(v)).map(|v| (name, v))
                }
                OnnxAttr::Demanded(name, default) => default_value(default).map(|v| (name, v)),
                OnnxAttr::SpatialOf(name, operand) => self.spatial_of(op, decl, operand).map(|v| (name, v)),
                OnnxAttr::ResultCount(name, ours) => {
                    let count = Attr::Int(op.results.len() as i64);
                    op.attrs.get(ours).is_none().then_some((name, count))
                }
                OnnxAttr::Fixed(..) | OnnxAttr::Implied(..) | OnnxAttr::Ignored(_) => None,
            };
            let Some((name, value)) = written else { continue };
            let proto = attribute(name, &value)?;
            list.push(
                proto
                    .ok_or_else(|| ExportError::Attribute { node: op.node.clone(), attr: name.to_owned() })?,
            );
        }
        Ok(list)
    }

    fn spatial_of(&self, op: &Written<'_>, decl: &OpDecl, operand: &str) -> Option<Attr> {
        let value = op.operands.get(decl.operand_index(operand)?).copied().flatten()?;
        spatial(self.module.type_of(value)).map(|dims| Attr::ints(&dims))
    }
}

/// The target of a reshape with as few symbols as can be: 0 where an extent stays at its place, -1 for one that
/// remains, if a reader finds the same extent there.
fn short_target(decl: &OpDecl, target: &[Dim], x: &Type, attrs: &AttrSet) -> Vec<Dim> {
    let allow_zero = attrs.bool("allow_zero", false);
    let stays = |(i, d): (usize, &Dim)| {
        let same = x.dims().and_then(|x| x.get(i)).is_some_and(|x| x.same(d));
        if d.as_const().is_none() && same && !allow_zero { Dim::Const(0) } else { d.clone() }
    };
    let mut short: Vec<Dim> = target.iter().enumerate().map(stays).collect();
    let is_open = |d: &Dim| d.as_const().is_none_or(|n| n < 0);
    if short.iter().filter(|d| is_open(d)).count() != 1 {
        return short;
    }
    let open: Vec<Dim> = short.iter().map(|d| if is_open(d) { Dim::Const(-1) } else { d.clone() }).collect();
    let shorter = attrs.clone().with("shape", Attr::dims(open.iter().cloned()));
    let found = infer::infer_facts(decl, &[Some(Fact::of(x.clone()))], &shorter, &[], 1);
    if found.is_ok_and(|f| f.first().and_then(|f| f.ty.dims()) == Some(target)) {
        short = open;
    }
    short
}

/// A graph as an attribute.
pub(super) fn graph_attribute(name: &str, graph: crate::proto::GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(at::GRAPH),
        g: Some(Box::new(graph)),
        ..Default::default()
    }
}
