//! The variables of one rule.

use super::super::rule::{OpPat, Pat, Rest, RestResults, ResultPat, Slot, Var, VarKind};
use gs_text::Span;
use gs_text::gsr::ast::Name;
use std::collections::BTreeSet;

/// The variables of one rule, by number and by name.
#[derive(Default)]
pub(in super::super) struct Scope {
    pub(in super::super) vars: Vec<Var>,
    /// How often each is read, or bound again, after its first place.
    pub(in super::super) uses: Vec<usize>,
    /// Names that stand for the elements of a list while its body is compiled.
    elements: Vec<Slot>,
}

impl Scope {
    pub(in super::super) fn new() -> Self {
        Self::default()
    }

    /// The slot of a name, without counting a use.
    pub(in super::super) fn find(&self, name: &str) -> Option<Slot> {
        self.vars.iter().position(|v| v.name == name)
    }

    /// Binds a name, or uses it again where it is bound already. Fails where it stands for something else there.
    pub(in super::super) fn bind(&mut self, name: &Name, kind: VarKind) -> Result<Slot, (VarKind, Span)> {
        match self.find(&name.text) {
            Some(slot) => {
                let known = &self.vars[slot];
                if !same_sort(known.kind, kind) {
                    return Err((known.kind, known.span));
                }
                self.uses[slot] += 1;
                Ok(slot)
            }
            None => Ok(self.add(name, kind)),
        }
    }

    /// Adds a name that hides none.
    pub(in super::super) fn add(&mut self, name: &Name, kind: VarKind) -> Slot {
        self.vars.push(Var { name: name.text.clone(), kind, span: name.span });
        self.uses.push(0);
        self.vars.len() - 1
    }

    /// The slot of a name that is read.
    pub(in super::super) fn read(&mut self, name: &str) -> Option<Slot> {
        let slot = self.find(name)?;
        self.uses[slot] += 1;
        Some(slot)
    }

    /// What a slot stands for at this place.
    pub(in super::super) fn kind(&self, slot: Slot) -> VarKind {
        if self.elements.contains(&slot) { VarKind::Value(false) } else { self.vars[slot].kind }
    }

    /// Lets slots stand for list elements while `f` runs.
    pub(in super::super) fn with_elements<T>(&mut self, slots: &[Slot], f: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.elements.len();
        self.elements.extend_from_slice(slots);
        let out = f(self);
        self.elements.truncate(before);
        out
    }

    /// Finds out which variables every match binds, once the whole pattern is known.
    pub(in super::super) fn settle(&mut self, pattern: &Pat) {
        let mut always = BTreeSet::new();
        always_bound(pattern, &mut always);
        for (slot, var) in self.vars.iter_mut().enumerate() {
            let may_lack = !always.contains(&slot);
            match &mut var.kind {
                VarKind::Value(absent) | VarKind::Op(absent) => *absent = may_lack,
                VarKind::Values | VarKind::Attr(_) => {}
            }
        }
    }
}

/// Whether both are values, operations, lists or attributes.
fn same_sort(a: VarKind, b: VarKind) -> bool {
    match (a, b) {
        (VarKind::Attr(x), VarKind::Attr(y)) => x == y,
        _ => std::mem::discriminant(&a) == std::mem::discriminant(&b),
    }
}

/// What a variable stands for, in words.
pub(in super::super) fn describe(kind: VarKind) -> &'static str {
    match kind {
        VarKind::Value(_) => "a value",
        VarKind::Values => "a list of values",
        VarKind::Op(_) => "an operation",
        VarKind::Attr(_) => "an attribute",
    }
}

fn always_bound(pattern: &Pat, out: &mut BTreeSet<Slot>) {
    match pattern {
        Pat::Any | Pat::Absent | Pat::Number(_) | Pat::Optional(_) => {}
        Pat::Var(s) => {
            out.insert(*s);
        }
        Pat::Bound(s, inner) => {
            out.insert(*s);
            always_bound(inner, out);
        }
        Pat::Op(op) => op_bound(op, out),
        Pat::Alt(all) => {
            let sets = all.iter().map(|p| {
                let mut set = BTreeSet::new();
                always_bound(p, &mut set);
                set
            });
            let common = sets.reduce(|a, b| a.intersection(&b).copied().collect()).unwrap_or_default();
            out.extend(common);
        }
        Pat::Wrapped(w) => {
            if !w.optional {
                out.extend(w.bind);
            }
            always_bound(&w.inner, out);
        }
    }
}

fn op_bound(op: &OpPat, out: &mut BTreeSet<Slot>) {
    out.extend(op.bind);
    op.args.iter().for_each(|p| always_bound(p, out));
    match &op.rest {
        Some(Rest::Values(s)) => out.extend([*s]),
        // What all elements share is unbound where there is no element; then the rule does not fire.
        Some(Rest::Each(slots, inner)) => {
            out.extend(slots.iter().copied());
            always_bound(inner, out);
        }
        Some(Rest::Any) | None => {}
    }
    if let Some(results) = &op.results {
        for r in &results.named {
            if let ResultPat::Var(s) = r {
                out.insert(*s);
            }
        }
        if let RestResults::Values(s) = results.rest {
            out.insert(s);
        }
    }
}
