//! Operations that a declaration covers.

use gs_ir::registry::{
    Arity, AttrKind, Default as AttrDefault, MAX_OPSET, OnnxAttr, OnnxForm, OnnxInput, OperandDecl, Regions,
};
use gs_ir::{At, AttrSet, Dim, OpDecl, OpId, OpKind, Type, ValueId, check_attrs, infer, normal_attrs};

use super::Importer;
use super::attrs::{declared_value, default_value, has_value, kind_of};
use super::scope::{Call, MadeStatic, Scope};
use super::types::join;
use crate::error::Error;
use crate::proto::{AttributeProto, GraphProto, attribute_type as at};

/// Why a declaration does not cover a node.
pub(super) type Reason = String;

/// A node in the terms of a declaration.
pub(super) struct Translated<'n> {
    operands: Vec<Option<ValueId>>,
    attrs: AttrSet,
    regions: Vec<(&'static str, &'n GraphProto)>,
    made_static: Vec<ValueId>,
}

impl Importer<'_> {
    /// Reads a node as the first declaration that covers it, else as an opaque operation.
    pub(super) fn operation(&mut self, call: &Call<'_>, scope: &mut Scope<'_>) -> Result<(), Error> {
        let registry = self.rw.registry().clone();
        let mut reason = None;
        for kind in registry.for_onnx(call.domain, call.node.op_type()) {
            match self.declared(call, kind, scope)? {
                Ok(op) => return self.name_results(op, call, scope),
                Err(why) => reason = reason.or(Some(why)),
            }
        }
        self.opaque(call, scope, reason)
    }

    fn declared(
        &mut self,
        call: &Call<'_>,
        kind: OpKind,
        scope: &Scope<'_>,
    ) -> Result<Result<OpId, Reason>, Error> {
        let decl = *self.rw.registry().decl(kind);
        let translated = match self.translate(call, &decl, scope)? {
            Ok(t) => t,
            Err(why) => return Ok(Err(why)),
        };
        let results = self.results_of(call, &decl);
        if results > 0 && decl.result(results - 1).is_none() {
            return Ok(Err(format!("{results} results are asked for")));
        }
        let made = if translated.regions.is_empty() {
            let at = At::End(scope.graph);
            self.rw.create(kind, &translated.operands, translated.attrs, results, at).map_err(|e| e.0)
        } else {
            self.with_regions(call, kind, &translated, results, scope)?
        };
        if let Ok(op) = made {
            self.settle_target(op);
            let into = call.source;
            self.made_static
                .extend(translated.made_static.into_iter().map(|value| MadeStatic { value, into }));
        }
        Ok(made)
    }

    /// How many results a node needs: those behind the declared ones may be missing where nothing reads them.
    fn results_of(&self, call: &Call<'_>, decl: &OpDecl) -> usize {
        let is_needed = |(i, name): (usize, &String)| {
            !name.is_empty() && (decl.result(i).is_some() || self.read.contains(name.as_str()))
        };
        let last = call.node.output.iter().enumerate().rposition(is_needed);
        last.map_or(0, |last| last + 1)
    }

    /// Makes an operation whose result types follow from its regions.
    fn with_regions(
        &mut self,
        call: &Call<'_>,
        kind: OpKind,
        translated: &Translated<'_>,
        results: usize,
        scope: &Scope<'_>,
    ) -> Result<Result<OpId, Reason>, Error> {
        let decl = *self.rw.registry().decl(kind);
        let attrs = normal_attrs(&decl, translated.attrs.clone());
        if let Err(e) = check_attrs(&decl, &attrs) {
            return Ok(Err(e.0));
        }
        let types = vec![Type::Any; results];
        let op = self.rw.create_typed(kind, &translated.operands, attrs, &types, At::End(scope.graph));
        for (name, graph) in &translated.regions {
            self.region(op, call.node, name, graph, scope)?;
        }
        if let Ok(facts) = infer::infer_op(&self.rw, op) {
            for (value, fact) in self.rw.op(op).results().to_vec().into_iter().zip(facts) {
                let settled = self.rw.settle(fact.ty);
                self.rw.set_type(value, settled);
            }
        }
        Ok(Ok(op))
    }

    /// Names the results of an operation, and completes their types by what the file states.
    pub(super) fn name_results(
        &mut self,
        op: OpId,
        call: &Call<'_>,
        scope: &mut Scope<'_>,
    ) -> Result<(), Error> {
        self.rw.set_source(op, &[call.source]);
        let operands: Vec<Type> =
            call.operands.iter().flatten().map(|&v| self.rw.type_of(v).clone()).collect();
        for (i, value) in self.rw.op(op).results().to_vec().into_iter().enumerate() {
            let name = call.node.output.get(i).map_or("", String::as_str);
            if name.is_empty() {
                self.rw.omit_result(op, i);
                continue;
            }
            self.rw.set_name(value, &format!("{}{name}", scope.prefix));
            if let Some(stated) = scope.stated(name) {
                let joined = join(&self.rw, self.rw.type_of(value), stated, &operands);
                self.rw.set_type(value, joined);
            }
            self.define(call.node, name, Some(value), scope)?;
        }
        Ok(())
    }

    fn translate<'n>(
        &mut self,
        call: &Call<'n>,
        decl: &OpDecl,
        scope: &Scope<'_>,
    ) -> Result<Result<Translated<'n>, Reason>, Error> {
        let form = match form_in_force(call, decl, scope) {
            Ok(form) => form,
            Err(why) => return Ok(Err(why)),
        };
        let mut out = Translated {
            operands: vec![None; decl.operands.len()],
            attrs: AttrSet::new(),
            regions: Vec::new(),
            made_static: Vec::new(),
        };
        if let Err(why) = self.read_inputs(call, decl, form, &mut out) {
            return Ok(Err(why));
        }
        if let Err(why) = self.read_attrs(call, decl, form, &mut out)? {
            return Ok(Err(why));
        }
        let last = out.operands.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        out.operands.truncate(last);
        Ok(Ok(out))
    }

    fn read_attrs<'n>(
        &mut self,
        call: &Call<'n>,
        decl: &OpDecl,
        form: &OnnxForm,
        out: &mut Translated<'n>,
    ) -> Result<Result<(), Reason>, Error> {
        for a in call.node.attribute.iter().filter(|a| kind_of(a) != at::GRAPH) {
            let Some(entry) = form.attrs.iter().find(|e| onnx_name(e) == Some(a.name())) else {
                return Ok(Err(format!("attribute `{}` is not part of this version", a.name())));
            };
            if !self.read_attr(call, decl, entry, a, out)? {
                return Ok(Err(format!("attribute `{}` has a value that is not covered", a.name())));
            }
        }
        for entry in form.attrs {
            match *entry {
                OnnxAttr::Defaulting(_, ours, default) | OnnxAttr::Implied(ours, default) => {
                    if let (None, Some(value)) = (out.attrs.get(ours), default_value(default)) {
                        out.attrs.set(ours, value);
                    }
                }
                OnnxAttr::Demanded(name, _) if !call.node.attribute.iter().any(|a| a.name() == name) => {
                    return Ok(Err(format!("attribute `{name}` is absent, which is not covered")));
                }
                _ => {}
            }
        }
        Ok(read_regions(call, decl, out))
    }

    /// Reads one attribute as the form says; false where its value is not covered.
    fn read_attr(
        &mut self,
        call: &Call<'_>,
        decl: &OpDecl,
        entry: &OnnxAttr,
        a: &AttributeProto,
        out: &mut Translated<'_>,
    ) -> Result<bool, Error> {
        Ok(match *entry {
            OnnxAttr::Same(_, ours) | OnnxAttr::Defaulting(_, ours, _) => {
                let Some(kind) = decl.attr(ours).map(|d| d.kind) else { return Ok(false) };
                if kind == AttrKind::Elem && has_value(a, AttrDefault::Int(0)) {
                    return Ok(true); // "undefined" is absence
                }
                let value = declared_value(a, kind, self.files.as_deref_mut())?;
                value.map(|v| out.attrs.set(ours, v)).is_some()
            }
            OnnxAttr::Fixed(_, default) | OnnxAttr::Demanded(_, default) => has_value(a, default),
            OnnxAttr::SpatialOf(_, operand) => {
                let value = decl.operand_index(operand).and_then(|i| out.operands.get(i).copied().flatten());
                // Where nothing is known of the operand, the file must be believed.
                value.and_then(|v| spatial(self.rw.type_of(v))).is_none_or(|dims| dims == a.ints)
            }
            OnnxAttr::ResultCount(..) => usize::try_from(a.i()) == Ok(call.node.output.len()),
            OnnxAttr::Ignored(_) | OnnxAttr::Implied(..) => true,
        })
    }

    fn read_inputs(
        &mut self,
        call: &Call<'_>,
        decl: &OpDecl,
        form: &OnnxForm,
        out: &mut Translated<'_>,
    ) -> Result<(), Reason> {
        let mut given = call.operands.as_slice();
        for input in form.inputs {
            match *input {
                OnnxInput::Operand(name) => {
                    let Some((i, operand)) = operand_named(decl, name) else { continue };
                    if operand.arity == Arity::Variadic {
                        out.operands.truncate(i);
                        out.operands.extend_from_slice(given);
                        given = &[];
                        continue;
                    }
                    let value = given.first().copied().flatten();
                    if value.is_none() && operand.arity == Arity::One {
                        return Err(format!("operand `{name}` is missing"));
                    }
                    if let Some(place) = out.operands.get_mut(i) {
                        *place = value;
                    }
                }
                OnnxInput::Attr(name) | OnnxInput::ScalarAttr(name) => {
                    if let Some(value) = given.first().copied().flatten() {
                        self.read_static(decl, name, value, &mut out.attrs)?;
                        out.made_static.push(value);
                    }
                }
                OnnxInput::Hint(name) => {
                    if let Some(value) = given.first().copied().flatten() {
                        // What is computed says nothing that matters here.
                        let _ = self.read_static(decl, name, value, &mut out.attrs);
                        out.made_static.push(value);
                    }
                }
                OnnxInput::Fixed(default) => {
                    let value = given.first().copied().flatten();
                    if let Some(value) = value.filter(|&v| !self.is_constant(v, default)) {
                        let label = self.rw.str(self.rw.value(value).name);
                        return Err(format!("operand `{label}` has a value that is not covered"));
                    }
                    out.made_static.extend(value);
                }
                OnnxInput::Ignored => out.made_static.extend(given.first().copied().flatten()),
            }
            given = given.get(1..).unwrap_or_default();
        }
        match given.iter().flatten().count() {
            0 => Ok(()),
            n => Err(format!("{n} operands are not part of this version")),
        }
    }
}

fn form_in_force<'d>(call: &Call<'_>, decl: &OpDecl, scope: &Scope<'_>) -> Result<&'d OnnxForm, Reason> {
    let version =
        scope.opsets.version(call.domain).ok_or("the file does not say which operator set it uses")?;
    let checked = !call.domain.is_empty() || version <= MAX_OPSET;
    let form = decl.onnx.as_ref().and_then(|o| o.form(version)).filter(|_| checked);
    form.ok_or_else(|| format!("version {version} of the operator set is not covered"))
}

/// Finds the graphs of the declared regions, in their order.
fn read_regions<'n>(call: &Call<'n>, decl: &OpDecl, out: &mut Translated<'n>) -> Result<(), Reason> {
    let graphs: Vec<&'n AttributeProto> = call.node.attribute.iter().filter(|a| a.g.is_some()).collect();
    let Regions::Named(names) = decl.regions else {
        return if graphs.is_empty() { Ok(()) } else { Err("it carries a graph".to_owned()) };
    };
    for name in names {
        let found = graphs.iter().find(|a| a.name() == *name).and_then(|a| a.g.as_deref());
        out.regions.push((name, found.ok_or_else(|| format!("the graph `{name}` is missing"))?));
    }
    if graphs.len() == names.len() {
        Ok(())
    } else {
        Err("it carries a graph that is not declared".to_owned())
    }
}

fn operand_named(decl: &OpDecl, name: &str) -> Option<(usize, &'static OperandDecl)> {
    let i = decl.operand_index(name)?;
    Some((i, decl.operands.get(i)?))
}

/// The name that a form's attribute has in ONNX, where it stands there at all.
fn onnx_name(entry: &OnnxAttr) -> Option<&'static str> {
    match entry {
        OnnxAttr::Same(name, _)
        | OnnxAttr::Defaulting(name, ..)
        | OnnxAttr::Fixed(name, _)
        | OnnxAttr::Demanded(name, _)
        | OnnxAttr::SpatialOf(name, _)
        | OnnxAttr::ResultCount(name, _)
        | OnnxAttr::Ignored(name) => Some(name),
        OnnxAttr::Implied(..) => None,
    }
}

/// The extents of a weight after its first two, where they are numbers.
pub(crate) fn spatial(ty: &Type) -> Option<Vec<i64>> {
    ty.dims()?.get(2..)?.iter().map(Dim::as_const).collect()
}
