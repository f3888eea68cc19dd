//! Calls of our own functions, read back as the operations that they were.

use gs_ir::{At, AttrSet, OpId};

use super::Importer;
use super::attrs::declared_value;
use super::op::Reason;
use super::scope::{Call, Scope};
use crate::error::Error;
use crate::own;

impl Importer<'_> {
    /// Reads a call of our own domain; false where it is none, or names no operation that is declared.
    pub(super) fn own_call(&mut self, call: &Call<'_>, scope: &mut Scope<'_>) -> Result<bool, Error> {
        if call.domain != own::DOMAIN {
            return Ok(false);
        }
        let Some(op) = own::operation(call.node.op_type()) else { return Ok(false) };
        let made = self.own_operation(call, op, scope)?;
        match made {
            Ok(op) => self.name_results(op, call, scope).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn own_operation(
        &mut self,
        call: &Call<'_>,
        op: &str,
        scope: &Scope<'_>,
    ) -> Result<Result<OpId, Reason>, Error> {
        let registry = self.rw.registry().clone();
        let Some(kind) = registry.kind(op) else { return Ok(Err("no such operator".to_owned())) };
        let decl = registry.decl(kind);
        let mut attrs = AttrSet::new();
        for a in &call.node.attribute {
            let declared = decl.attr(a.name()).map(|d| d.kind);
            let value = match declared {
                Some(kind) => declared_value(a, kind, self.files.as_deref_mut())?,
                None => None,
            };
            match value {
                Some(value) => attrs.set(a.name(), value),
                None => return Ok(Err(format!("attribute `{}` is not declared", a.name()))),
            }
        }
        let at = At::End(scope.graph);
        Ok(self.rw.create(kind, &call.operands, attrs, call.node.output.len(), at).map_err(|e| e.0))
    }
}
