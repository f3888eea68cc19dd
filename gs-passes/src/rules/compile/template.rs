//! Templates: what is built. Every attribute of an operation is given, copied, or meant to be at its default.

use super::super::functions::Body;
use super::super::rule::{CExpr, EachSource, EachTmpl, OpTmpl, Slot, Tmpl, VarKind};
use super::Compiler;
use super::pattern::operand_words;
use super::scope::{Scope, describe};
use gs_ir::registry::{Arity, AttrDecl, Default, OpDecl};
use gs_text::cursor::closest;
use gs_text::gsr::ast::{self, AttrPattern, Call, Expr, ExprKind, Name, Pattern, PatternKind};
use gs_text::{Diagnostic, Span};

impl Compiler<'_> {
    /// The values that are named between pattern and template.
    pub(super) fn lets(
        &mut self,
        scope: &mut Scope,
        lets: &[(Name, Expr)],
        pattern: &Pattern,
    ) -> Vec<(Slot, Tmpl)> {
        let mut out = Vec::new();
        for (name, e) in lets {
            if let Some(old) = scope.find(&name.text) {
                let d = Diagnostic::error("GS0608", format!("`${}` is bound already", name.text));
                self.error(
                    d.label(name.span, "the second time").label(scope.vars[old].span, "the first time"),
                );
                continue;
            }
            let value = self.template(scope, e, pattern);
            let slot = scope.add(name, VarKind::Value(false));
            out.extend(value.map(|v| (slot, v)));
        }
        out
    }

    /// The whole right side.
    pub(super) fn root_template(&mut self, scope: &mut Scope, e: &Expr, pattern: &Pattern) -> Option<Tmpl> {
        match &e.kind {
            ExprKind::Tuple(all) => {
                let all: Vec<Option<Tmpl>> = all.iter().map(|e| self.template(scope, e, pattern)).collect();
                Some(Tmpl::Tuple(all.into_iter().collect::<Option<_>>()?))
            }
            ExprKind::Each { .. } => self.operand(scope, e, pattern),
            _ => self.template(scope, e, pattern),
        }
    }

    /// One value.
    pub(super) fn template(&mut self, scope: &mut Scope, e: &Expr, pattern: &Pattern) -> Option<Tmpl> {
        let many = matches!(e.kind, ExprKind::Rest(_) | ExprKind::Each { .. } | ExprKind::Tuple(_));
        if many || matches!(e.kind, ExprKind::Absent | ExprKind::OptionalVar(_)) {
            let d = Diagnostic::error("GS0607", "one value is meant here").label(e.span, "");
            self.error(d.help(
                "lists stand for operands of variadic operators, `none` and `$x?` for optional operands",
            ));
            return None;
        }
        self.operand(scope, e, pattern)
    }

    /// What can stand at an operand place.
    pub(super) fn operand(&mut self, scope: &mut Scope, e: &Expr, pattern: &Pattern) -> Option<Tmpl> {
        match &e.kind {
            ExprKind::Absent => Some(Tmpl::Absent),
            ExprKind::Var(name) => {
                let slot = self.read(scope, name, e.span)?;
                match scope.kind(slot) {
                    VarKind::Value(false) => Some(Tmpl::Var(slot, false)),
                    VarKind::Value(true) => {
                        let d =
                            Diagnostic::error("GS0624", format!("`${name}` may be absent")).label(e.span, "");
                        self.error(d.help(format!("write `${name}?` to pass its absence on")));
                        None
                    }
                    VarKind::Values => {
                        self.not_a_value(name, "a list of values", e.span, &format!("write `${name}...`"))
                    }
                    kind => self.not_a_value(name, describe(kind), e.span, "a value is meant here"),
                }
            }
            ExprKind::OptionalVar(name) => {
                let slot = self.read(scope, name, e.span)?;
                match scope.kind(slot) {
                    VarKind::Value(_) => Some(Tmpl::Var(slot, true)),
                    kind => self.not_a_value(name, describe(kind), e.span, "a value is meant here"),
                }
            }
            ExprKind::Rest(name) => {
                let slot = self.read(scope, name, e.span)?;
                match scope.kind(slot) {
                    VarKind::Values => Some(Tmpl::Rest(slot)),
                    kind => self.not_a_value(name, describe(kind), e.span, "a list is meant here"),
                }
            }
            ExprKind::Call(call) => self.call(scope, call, e.span, pattern),
            ExprKind::Each { names, source, body } => {
                self.each(scope, names, source.as_deref(), body, pattern, e.span)
            }
            ExprKind::Tuple(_) => {
                let d = Diagnostic::error("GS0607", "several values stand only as the whole right side");
                self.error(d.label(e.span, ""));
                None
            }
            ExprKind::Int(_) | ExprKind::Float(_) => {
                let d = Diagnostic::error("GS0625", "a number is no value here").label(e.span, "");
                self.error(d.help("`scalar(1.0)` makes a constant of it"));
                None
            }
            _ => {
                self.error(Diagnostic::error("GS0625", "this is no value").label(e.span, ""));
                None
            }
        }
    }

    fn not_a_value(&mut self, name: &str, what: &str, span: Span, help: &str) -> Option<Tmpl> {
        let d = Diagnostic::error("GS0617", format!("`${name}` is {what}")).label(span, "");
        self.error(d.help(help));
        None
    }

    fn call(&mut self, scope: &mut Scope, call: &Call, span: Span, pattern: &Pattern) -> Option<Tmpl> {
        let name = &call.name.text;
        if self.registry.kind(name).is_some() {
            return Some(Tmpl::Op(Box::new(self.op_template(scope, call, span, pattern)?)));
        }
        if let Some(function) = self.functions.tensor(name).cloned() {
            let args = self.arguments(scope, &function, call, None)?;
            return Some(Tmpl::Const(CExpr::Call(function, args, span)));
        }
        let operators = self.registry.iter().map(|(_, d)| d.name);
        let functions = self.functions.iter().filter(|f| matches!(f.body, Body::Tensor(_))).map(|f| f.name);
        let near = closest(name, operators.chain(functions));
        self.unknown_function("operator or tensor function", call, near);
        None
    }

    fn op_template(
        &mut self,
        scope: &mut Scope,
        call: &Call,
        span: Span,
        pattern: &Pattern,
    ) -> Option<OpTmpl> {
        let kind = self.operator(&call.name)?;
        let decl = *self.registry.decl(kind);
        let args: Vec<Option<Tmpl>> = call.args.iter().map(|a| self.operand(scope, a, pattern)).collect();
        let copy: Vec<Option<Slot>> = call.copy.iter().map(|n| self.copied(scope, n)).collect();
        let attrs: Vec<_> = call.attrs.iter().map(|(n, e)| self.given_attr(scope, &decl, n, e)).collect();
        let args: Vec<Tmpl> = args.into_iter().collect::<Option<_>>()?;
        let copy: Vec<Slot> = copy.into_iter().collect::<Option<_>>()?;
        let attrs: Vec<_> = attrs.into_iter().collect::<Option<_>>()?;
        let counted = self.template_operands(&decl, &args, call);
        let complete = self.complete(&decl, call, &copy, &attrs, pattern);
        (counted && complete).then_some(OpTmpl { kind, args, copy, attrs, span })
    }

    fn copied(&mut self, scope: &mut Scope, name: &Name) -> Option<Slot> {
        let slot = self.read(scope, &name.text, name.span)?;
        match scope.kind(slot) {
            VarKind::Op(false) => Some(slot),
            VarKind::Op(true) => {
                let message = format!("the operation `${}` may be absent", name.text);
                let d = Diagnostic::error("GS0624", message).label(name.span, "");
                self.error(d.help("copy from an operation that every match has"));
                None
            }
            kind => {
                let message = format!("`${}` is {}, not an operation", name.text, describe(kind));
                let d = Diagnostic::error("GS0617", message).label(name.span, "");
                self.error(d.help(format!("`conv@{}(...)` names an operation", name.text)));
                None
            }
        }
    }

    /// An attribute that is given by name.
    pub(super) fn given_attr(
        &mut self,
        scope: &mut Scope,
        decl: &OpDecl,
        name: &Name,
        e: &Expr,
    ) -> Option<(&'static AttrDecl, CExpr)> {
        let attr = self.attribute(decl, name);
        let attr = attr?;
        Some((attr, self.given(scope, attr, e)?))
    }

    fn template_operands(&mut self, decl: &OpDecl, args: &[Tmpl], call: &Call) -> bool {
        let required = decl.operands.iter().take_while(|o| o.arity == Arity::One).count();
        let is_list = |t: &Tmpl| matches!(t, Tmpl::Rest(_) | Tmpl::Each(_));
        let open = args.iter().any(is_list);
        let too_many = args.len() > decl.operands.len() && decl.operand(args.len()).is_none();
        if args.len() < required && !open || too_many {
            let message = format!("`{}` takes {}, here are {}", decl.name, operand_words(decl), args.len());
            self.error(Diagnostic::error("GS0611", message).label(call.name.span, ""));
            return false;
        }
        let mut good = true;
        for (i, arg) in args.iter().enumerate() {
            let span = call.args.get(i).map_or(call.name.span, |a| a.span);
            let Some(o) = decl.operand(i) else { continue };
            let problem = match arg {
                Tmpl::Absent | Tmpl::Var(_, true) if o.arity != Arity::Optional => "is never absent",
                t if is_list(t) && o.arity != Arity::Variadic => "is one value, not a list",
                _ => continue,
            };
            let message = format!("operand `{}` of `{}` {problem}", o.name, decl.name);
            self.error(Diagnostic::error("GS0612", message).label(span, ""));
            good = false;
        }
        good
    }

    /// Every required attribute is there, and none that the match had is dropped in silence.
    fn complete(
        &mut self,
        decl: &OpDecl,
        call: &Call,
        copy: &[Slot],
        attrs: &[(&'static AttrDecl, CExpr)],
        pattern: &Pattern,
    ) -> bool {
        let mut good = true;
        let copies = !copy.is_empty();
        for a in decl.attrs {
            if copies || attrs.iter().any(|(g, _)| g.name == a.name) {
                continue;
            }
            if a.default == Default::Required {
                let message = format!("`{}` needs the attribute `{}`", decl.name, a.name);
                let d = Diagnostic::error("GS0626", message).label(call.name.span, "");
                self.error(d.help(format!("give it, `{{{} = ...}}`, or copy it, `{{..$op}}`", a.name)));
                good = false;
            } else if let Some(span) = leaves_open(pattern, decl.name, a.name) {
                let message = format!("the attribute `{}` of `{}` would be lost", a.name, decl.name);
                let d =
                    Diagnostic::error("GS0627", message).label(call.name.span, "here it is at its default");
                let d = d.label(span, "here it may be anything");
                self.error(d.help("bind it in the pattern and give it, or copy all with `{..$op}`"));
                good = false;
            }
        }
        good
    }

    fn each(
        &mut self,
        scope: &mut Scope,
        names: &[Name],
        source: Option<&Expr>,
        body: &[Expr],
        pattern: &Pattern,
        span: Span,
    ) -> Option<Tmpl> {
        let (slots, source) = match source {
            None => {
                let slots: Option<Vec<Slot>> =
                    names.iter().map(|n| self.list_var(scope, &n.text, n.span)).collect();
                (slots?, EachSource::Own)
            }
            Some(source) => {
                let [name] = names else {
                    let d = Diagnostic::error("GS0628", "one name goes through one list").label(span, "");
                    self.error(d.help(
                        "lists that the pattern's `each` bound are gone through under their own names",
                    ));
                    return None;
                };
                let source = self.each_source(scope, source, pattern)?;
                if let Some(old) = scope.find(&name.text) {
                    let d = Diagnostic::error("GS0608", format!("`${}` is bound already", name.text));
                    self.error(d.label(name.span, "").label(scope.vars[old].span, "here"));
                    return None;
                }
                let slot = scope.add(name, VarKind::Value(false));
                (vec![slot], source)
            }
        };
        let body: Vec<Option<Tmpl>> = scope
            .with_elements(&slots, |scope| body.iter().map(|e| self.template(scope, e, pattern)).collect());
        let body = body.into_iter().collect::<Option<_>>()?;
        Some(Tmpl::Each(Box::new(EachTmpl { slots, source, body })))
    }

    fn each_source(&mut self, scope: &mut Scope, e: &Expr, pattern: &Pattern) -> Option<EachSource> {
        match &e.kind {
            ExprKind::Var(name) | ExprKind::Rest(name) => {
                Some(EachSource::List(self.list_var(scope, name, e.span)?))
            }
            ExprKind::Call(call) => {
                Some(EachSource::Results(self.op_template(scope, call, e.span, pattern)?))
            }
            _ => {
                let d = Diagnostic::error("GS0628", "a list or an operation is meant here").label(e.span, "");
                self.error(d);
                None
            }
        }
    }

    fn list_var(&mut self, scope: &mut Scope, name: &str, span: Span) -> Option<Slot> {
        let slot = self.read(scope, name, span)?;
        match scope.kind(slot) {
            VarKind::Values => Some(slot),
            kind => {
                let message = format!("`${name}` is {}, not a list", describe(kind));
                self.error(Diagnostic::error("GS0617", message).label(span, ""));
                None
            }
        }
    }
}

/// Where a pattern has such an operation and says nothing of the attribute, and no name to copy it from is the point.
fn leaves_open(pattern: &Pattern, op: &str, attr: &str) -> Option<Span> {
    let open = |name: &Name, attrs: &[AttrPattern]| {
        (name.text == op && !attrs.iter().any(|a| a.name.text == attr)).then_some(name.span)
    };
    match &pattern.kind {
        PatternKind::Optional(p) | PatternKind::Bound(_, p) | PatternKind::Each(_, p) => {
            leaves_open(p, op, attr)
        }
        PatternKind::Alt(all) => all.iter().find_map(|p| leaves_open(p, op, attr)),
        PatternKind::Wrapped { ops, inner, .. } => {
            ops.iter().find_map(|(n, attrs)| open(n, attrs)).or_else(|| leaves_open(inner, op, attr))
        }
        PatternKind::Op(ast::OpPattern { op: name, attrs, args, .. }) => {
            open(name, attrs).or_else(|| args.iter().find_map(|p| leaves_open(p, op, attr)))
        }
        _ => None,
    }
}
