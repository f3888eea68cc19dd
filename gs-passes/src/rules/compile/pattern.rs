//! Patterns: operators, operand places and attributes are looked up in the registry.

use super::super::rule::{
    AttrPat, OpPat, Pat, Rest, RestResults, ResultPat, Results, Slot, VarKind, Wrapped,
};
use super::Compiler;
use super::scope::{Scope, describe};
use gs_ir::OpKind;
use gs_ir::registry::{Arity, AttrDecl, OpDecl, Traits};
use gs_text::cursor::closest;
use gs_text::gsr::ast::{
    AttrPattern, AttrPatternValue, Name, OpPattern, Pattern, PatternKind, ResultPattern,
};
use gs_text::{Diagnostic, Span};

impl Compiler<'_> {
    /// A pattern for one operand place or a root.
    pub(super) fn pattern(&mut self, scope: &mut Scope, p: &Pattern) -> Option<Pat> {
        Some(match &p.kind {
            PatternKind::Any => Pat::Any,
            PatternKind::Absent => Pat::Absent,
            PatternKind::Var(n) => Pat::Var(self.bind(scope, n, VarKind::Value(false))?),
            PatternKind::Optional(inner) => Pat::Optional(Box::new(self.pattern(scope, inner)?)),
            PatternKind::Number(n) => Pat::Number(*n),
            PatternKind::Op(op) => Pat::Op(Box::new(self.op_pattern(scope, op, p.span)?)),
            PatternKind::Bound(n, inner) => {
                let slot = self.bind(scope, n, VarKind::Value(false));
                let inner = self.pattern(scope, inner);
                Pat::Bound(slot?, Box::new(inner?))
            }
            PatternKind::Alt(all) => {
                let all: Vec<Option<Pat>> = all.iter().map(|p| self.pattern(scope, p)).collect();
                Pat::Alt(all.into_iter().collect::<Option<_>>()?)
            }
            PatternKind::Wrapped { ops, optional, bind, inner } => {
                Pat::Wrapped(Box::new(self.wrapped(scope, ops, *optional, bind.as_ref(), inner, p.span)?))
            }
            PatternKind::Rest(_) | PatternKind::Each(..) => {
                let d = Diagnostic::error("GS0607", "this stands for many operands, but one is meant here");
                self.error(d.label(p.span, "").help("it is the last operand of a variadic operator"));
                return None;
            }
        })
    }

    fn bind(&mut self, scope: &mut Scope, name: &Name, kind: VarKind) -> Option<Slot> {
        match scope.bind(name, kind) {
            Ok(slot) => Some(slot),
            Err((known, first)) => {
                let message = format!(
                    "`${}` stands for {} here, but for {} elsewhere",
                    name.text,
                    describe(kind),
                    describe(known)
                );
                self.error(
                    Diagnostic::error("GS0608", message)
                        .label(name.span, describe(kind))
                        .label(first, describe(known)),
                );
                None
            }
        }
    }

    /// The operator of a name.
    pub(super) fn operator(&mut self, name: &Name) -> Option<OpKind> {
        let found = self.registry.kind(&name.text);
        if found.is_none() {
            let d = Diagnostic::error("GS0609", format!("no operator is called `{}`", name.text))
                .label(name.span, "");
            let near = closest(&name.text, self.registry.iter().map(|(_, d)| d.name));
            self.error(match near {
                Some(n) => d.help(format!("there is `{n}`")),
                None => d.help("`gs-opt ops` lists the operators"),
            });
        }
        found
    }

    /// The attribute of a name.
    pub(super) fn attribute(&mut self, decl: &OpDecl, name: &Name) -> Option<&'static AttrDecl> {
        let found = decl.attr(&name.text);
        if found.is_none() {
            let message = format!("`{}` has no attribute `{}`", decl.name, name.text);
            let names: Vec<&str> = decl.attrs.iter().map(|a| a.name).collect();
            let help = match closest(&name.text, names.iter().copied()) {
                Some(n) => format!("there is `{n}`"),
                None if names.is_empty() => "it has no attributes".to_owned(),
                None => format!("it has {}", names.join(", ")),
            };
            self.error(Diagnostic::error("GS0610", message).label(name.span, "").help(help));
        }
        found
    }

    /// An operation with its operands, attributes and results.
    pub(super) fn op_pattern(&mut self, scope: &mut Scope, op: &OpPattern, span: Span) -> Option<OpPat> {
        let kind = self.operator(&op.op)?;
        let decl = *self.registry.decl(kind);
        let bind = match &op.bind {
            Some(n) => Some(self.bind(scope, n, VarKind::Op(false))?),
            None => None,
        };
        let (args, rest) = self.operands(scope, op, &decl)?;
        let attrs = self.attr_patterns(scope, &op.attrs, &decl);
        let results = match &op.results {
            Some(r) => Some(self.results(scope, r, &decl, span)?),
            None => None,
        };
        let commutative = decl.traits.has(Traits::COMMUTATIVE) && args.len() == 2;
        Some(OpPat { kind, bind, args, rest, attrs: attrs?, results, commutative, span })
    }

    fn operands(
        &mut self,
        scope: &mut Scope,
        op: &OpPattern,
        decl: &OpDecl,
    ) -> Option<(Vec<Pat>, Option<Rest>)> {
        let (mut args, mut rest) = (Vec::new(), None);
        let (mut good, mut open) = (true, false);
        for (i, p) in op.args.iter().enumerate() {
            let last = i + 1 == op.args.len();
            if matches!(p.kind, PatternKind::Rest(_) | PatternKind::Each(..)) && last {
                open = true;
                match self.rest(scope, p, decl, i) {
                    Some(r) => rest = Some(r),
                    None => good = false,
                }
                continue;
            }
            match self.pattern(scope, p) {
                Some(p) => args.push(p),
                None => good = false,
            }
        }
        good &= self.operand_count(decl, &args, open, op);
        good.then_some((args, rest))
    }

    fn operand_count(&mut self, decl: &OpDecl, args: &[Pat], open: bool, op: &OpPattern) -> bool {
        let required = decl.operands.iter().take_while(|o| o.arity == Arity::One).count();
        // Those that were not understood count too.
        let count = op.args.len();
        if count < required && !open || count > decl.operands.len() && decl.operand(count).is_none() {
            let message = format!("`{}` takes {}, here are {}", decl.name, operand_words(decl), count);
            self.error(Diagnostic::error("GS0611", message).label(op.op.span, ""));
            return false;
        }
        for (i, p) in args.iter().enumerate() {
            let o = decl.operand(i);
            if matches!(p, Pat::Absent) && o.is_some_and(|o| o.arity == Arity::One) {
                let name = o.map_or("?", |o| o.name);
                let message = format!("operand `{name}` of `{}` is never absent", decl.name);
                let span = op.args.get(i).map_or(op.op.span, |p| p.span);
                self.error(Diagnostic::error("GS0612", message).label(span, "this matches nothing"));
                return false;
            }
        }
        true
    }

    fn rest(&mut self, scope: &mut Scope, p: &Pattern, decl: &OpDecl, at: usize) -> Option<Rest> {
        if decl.operands.last().is_none_or(|o| o.arity != Arity::Variadic) || at + 1 < decl.operands.len() {
            let message = format!("`{}` has no variable number of operands here", decl.name);
            self.error(Diagnostic::error("GS0607", message).label(p.span, ""));
            return None;
        }
        match &p.kind {
            PatternKind::Rest(None) => Some(Rest::Any),
            PatternKind::Rest(Some(n)) => Some(Rest::Values(self.bind(scope, n, VarKind::Values)?)),
            PatternKind::Each(names, inner) => {
                let slots: Option<Vec<Slot>> =
                    names.iter().map(|n| self.bind(scope, n, VarKind::Values)).collect();
                let slots = slots?;
                // Within, the names stand for elements; `bind` sees values there.
                let kinds: Vec<VarKind> = slots.iter().map(|&s| scope.vars[s].kind).collect();
                let uses: Vec<usize> = slots.iter().map(|&s| scope.uses[s]).collect();
                slots.iter().for_each(|&s| scope.vars[s].kind = VarKind::Value(false));
                let inner = self.pattern(scope, inner);
                for (i, &s) in slots.iter().enumerate() {
                    if scope.uses[s] == uses[i] {
                        let message =
                            format!("`${}` does not stand in the pattern behind `each`", scope.vars[s].name);
                        self.error(Diagnostic::error("GS0613", message).label(p.span, ""));
                    }
                    scope.vars[s].kind = kinds[i];
                    scope.uses[s] = uses[i];
                }
                Some(Rest::Each(slots, inner?))
            }
            _ => None,
        }
    }

    fn attr_patterns(
        &mut self,
        scope: &mut Scope,
        attrs: &[AttrPattern],
        decl: &OpDecl,
    ) -> Option<Vec<(&'static AttrDecl, AttrPat)>> {
        let mut out: Vec<(&'static AttrDecl, AttrPat)> = Vec::new();
        let mut good = true;
        for a in attrs {
            let Some(attr) = self.attribute(decl, &a.name) else {
                good = false;
                continue;
            };
            let value = match &a.value {
                AttrPatternValue::Var(n) => self.bind(scope, n, VarKind::Attr(attr.kind)).map(AttrPat::Var),
                AttrPatternValue::Literal(e) => self.literal(attr, e).map(AttrPat::Is),
            };
            match value {
                Some(v) => out.push((attr, v)),
                None => good = false,
            }
        }
        good.then_some(out)
    }

    fn results(
        &mut self,
        scope: &mut Scope,
        results: &[ResultPattern],
        decl: &OpDecl,
        span: Span,
    ) -> Option<Results> {
        let mut named = Vec::new();
        let mut rest = RestResults::Unused;
        for (i, r) in results.iter().enumerate() {
            let last = i + 1 == results.len();
            match r {
                ResultPattern::Var(n) => {
                    named.push(ResultPat::Var(self.bind(scope, n, VarKind::Value(false))?))
                }
                ResultPattern::Any(_) => named.push(ResultPat::Any),
                ResultPattern::Unused(_) => named.push(ResultPat::Unused),
                ResultPattern::UnusedRest(_) if last => {}
                ResultPattern::Rest(n) if last => {
                    rest = RestResults::Values(self.bind(scope, n, VarKind::Values)?);
                }
                ResultPattern::UnusedRest(s) | ResultPattern::Rest(Name { span: s, .. }) => {
                    let d = Diagnostic::error("GS0607", "only the last one can stand for all that follow");
                    self.error(d.label(*s, ""));
                    return None;
                }
            }
        }
        if let Some(last) = named.len().checked_sub(1)
            && decl.result(last).is_none()
        {
            let message =
                format!("`{}` has {} results, here are {}", decl.name, decl.results.len(), named.len());
            self.error(Diagnostic::error("GS0611", message).label(span, ""));
            return None;
        }
        Some(Results { named, rest })
    }

    #[allow(clippy::too_many_arguments)] // the parts of one syntax node
    fn wrapped(
        &mut self,
        scope: &mut Scope,
        ops: &[(Name, Vec<AttrPattern>)],
        optional: bool,
        bind: Option<&Name>,
        inner: &Pattern,
        span: Span,
    ) -> Option<Wrapped> {
        let mut out = Vec::new();
        for (name, attrs) in ops {
            let Some(kind) = self.operator(name) else { continue };
            let decl = *self.registry.decl(kind);
            let required = decl.operands.iter().filter(|o| o.arity == Arity::One).count();
            if required != 1 || decl.operands.first().is_none_or(|o| o.arity != Arity::One) {
                let message = format!("`{}` is not unary", decl.name);
                self.error(
                    Diagnostic::error("GS0614", message)
                        .label(name.span, "an operation around one operand is meant"),
                );
                continue;
            }
            if let Some(attrs) = self.attr_patterns(scope, attrs, &decl) {
                out.push((kind, attrs));
            }
        }
        let bind = match bind {
            Some(n) => Some(self.bind(scope, n, VarKind::Op(false))?),
            None => None,
        };
        let inner = self.pattern(scope, inner)?;
        (out.len() == ops.len()).then_some(Wrapped { ops: out, optional, bind, inner, span })
    }
}

/// How many operands an operator takes, in words.
pub(super) fn operand_words(decl: &OpDecl) -> String {
    let required = decl.operands.iter().filter(|o| o.arity == Arity::One).count();
    let open = decl.operands.iter().any(|o| o.arity == Arity::Variadic);
    let all = decl.operands.len();
    let names: Vec<&str> = decl.operands.iter().map(|o| o.name).collect();
    let count = match (open, required == all) {
        (true, _) => format!("at least {required} operands"),
        (false, true) if all == 1 => "one operand".to_owned(),
        (false, true) => format!("{all} operands"),
        (false, false) => format!("{required} to {all} operands"),
    };
    if names.is_empty() { "no operands".to_owned() } else { format!("{count} ({})", names.join(", ")) }
}
