//! Operands that must be static become attributes: from constants, and extents also from what is known of a
//! computed shape.

use gs_ir::registry::{AttrKind, Default as AttrDefault};
use gs_ir::{Attr, AttrSet, Dim, ElemType, Init, Knowledge, Literal, OpDecl, OpId, Role, ValueId};

use super::Importer;
use super::attrs::value_of_constant;
use super::op::Reason;
use super::tensors::{f32s, i64_literal, i64s};

impl Importer<'_> {
    /// Sets the attribute `name` from an operand.
    pub(super) fn read_static(
        &self,
        decl: &OpDecl,
        name: &str,
        value: ValueId,
        attrs: &mut AttrSet,
    ) -> Result<(), Reason> {
        let Some(declared) = decl.attr(name) else { return Ok(()) };
        let found = match self.constant(value) {
            Some(constant) => {
                value_of_constant(declared.kind, &constant).map_err(|e| format!("`{name}`: {e}"))?
            }
            None => {
                Some(self.known_dims(declared.kind, value).ok_or_else(|| format!("`{name}` is computed"))?)
            }
        };
        if let Some(found) = found {
            attrs.set(name, found);
        }
        Ok(())
    }

    fn known_dims(&self, kind: AttrKind, value: ValueId) -> Option<Attr> {
        if kind != AttrKind::Dims {
            return None;
        }
        let known = Knowledge::new(&self.rw).of(value)?;
        let sayable = known.elems.iter().all(|d| !d.is_unknown());
        sayable.then(|| Attr::dims(known.elems))
    }

    /// Brings the target of a reshape into its normal form: the extents themselves where the operand's can say them,
    /// not 0 ("as it was") and -1 ("what remains").
    pub(super) fn settle_target(&mut self, op: OpId) {
        if self.rw.op_name(op) != "reshape" {
            return;
        }
        let attrs = self.rw.attrs_of(op);
        let Some(target) = attrs.dims("shape").filter(|t| t.iter().any(|d| matches!(d, Dim::Const(..1))))
        else {
            return;
        };
        let dims_of = |v: Option<ValueId>| v.and_then(|v| self.rw.type_of(v).dims());
        let (Some(x), Some(y)) =
            (dims_of(self.rw.op(op).operand(0)), dims_of(self.rw.op(op).result().some()))
        else {
            return;
        };
        let mut known = Vec::new();
        x.iter().chain(target).for_each(|d| d.visit_symbols(&mut |s| known.push(s)));
        let can_say = |d: &Dim| {
            let mut all = *d != Dim::Const(0);
            d.visit_symbols(&mut |s| all &= known.contains(&s));
            all
        };
        if y.iter().all(can_say) {
            let mut attrs = attrs.clone().with("shape", Attr::dims(y.iter().cloned()));
            attrs.remove("allow_zero");
            self.rw.set_attrs(op, attrs);
        }
    }

    /// The contents of a value that is the same in every run.
    pub(super) fn constant(&self, value: ValueId) -> Option<Literal> {
        let stored = self.rw.as_global(value).and_then(|id| {
            let global = self.rw.global(id);
            let ty = self.rw.ty(global.ty).as_tensor()?;
            match &global.init {
                _ if matches!(global.role, Role::State | Role::Input) => None,
                Init::Data(data) => {
                    Some(Literal { elem: ty.elem, dims: ty.const_dims()?, data: data.clone() })
                }
                Init::Splat(one) => {
                    let count = ty.count().filter(|&n| n <= SPLAT_LIMIT)?;
                    (ty.elem.bits() >= 8).then(|| {
                        Literal::new(ty.elem, ty.const_dims()?.as_slice(), one.repeat(count)).into()
                    })?
                }
                _ => None,
            }
        });
        stored.or_else(|| self.known_constant(value))
    }

    /// Whether a value is a constant all of whose elements are this default.
    pub(super) fn is_constant(&self, value: ValueId, default: AttrDefault) -> bool {
        let Some(constant) = self.constant(value) else { return false };
        let ints = |wanted: i64| i64s(&constant).is_some_and(|v| v.iter().all(|&i| i == wanted));
        match default {
            AttrDefault::Int(v) | AttrDefault::All(v) => ints(v),
            AttrDefault::Bool(v) => ints(v.into()),
            AttrDefault::Float(v) => {
                f32s(&constant).is_some_and(|f| f.iter().all(|f| f.to_bits() == v.to_bits()))
            }
            AttrDefault::Required | AttrDefault::Absent | AttrDefault::Word(_) | AttrDefault::Elem(_) => {
                false
            }
        }
    }

    /// A small integer tensor all of whose elements are known, however it is computed.
    fn known_constant(&self, value: ValueId) -> Option<Literal> {
        let known = Knowledge::new(&self.rw).of(value)?;
        let elements: Option<Vec<i64>> = known.elems.iter().map(Dim::as_const).collect();
        let wide = self.rw.type_of(value).elem() == Some(ElemType::I64);
        elements.filter(|_| wide || known.elems.len() <= SPLAT_LIMIT).map(|e| i64_literal(&e, known.scalar))
    }
}

/// A static operand has one entry per axis at most; longer ones are data.
const SPLAT_LIMIT: usize = 64;
