//! One operation, two spellings: attributes that mean the same for the operands at hand, so that an operation read
//! from one version of the operator set can be written in another.

use std::borrow::Cow;

use gs_ir::registry::{Default as AttrDefault, OnnxAttr, OnnxForm};
use gs_ir::{Attr, AttrSet, Dim, Module, OpDecl, OpId};

use super::opset::Choice;

/// The attributes of an operation as the form in force can say them, where there is such a spelling.
pub(super) fn spelled<'m>(module: &'m Module, op: OpId, choice: &Choice) -> Cow<'m, AttrSet> {
    let (decl, attrs) = (module.decl(op), module.attrs_of(op));
    let form = decl.onnx.and_then(|o| o.form(choice.version(o.domain)));
    let respelled = form.and_then(|form| softmax(module, op, decl, attrs, form));
    respelled.map_or(Cow::Borrowed(attrs), Cow::Owned)
}

/// Softmax before version 13 sums over all axes from `axis` on, later over that axis alone. That is the same where
/// all axes behind it have extent 1.
fn softmax(module: &Module, op: OpId, decl: &OpDecl, attrs: &AttrSet, form: &OnnxForm) -> Option<AttrSet> {
    decl.attr("legacy")?;
    let legacy = attrs.bool("legacy", false);
    let wanted = form.attrs.contains(&OnnxAttr::Implied("legacy", AttrDefault::Bool(true)));
    if legacy == wanted {
        return None;
    }
    let dims = module.op(op).operand(0).and_then(|x| module.type_of(x).dims())?;
    let axis = attrs.int("axis", -1);
    let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
    let behind = dims.get(usize::try_from(axis).ok()?.checked_add(1)?..)?;
    if !behind.iter().all(|d| *d == Dim::Const(1)) {
        return None;
    }
    let mut respelled = attrs.clone();
    respelled.remove("legacy");
    Some(if wanted { respelled.with("legacy", Attr::Bool(true)) } else { respelled })
}
