//! Insertions and gradients.

use super::super::rule::{
    CExpr, Cond, EmitArg, EmitGlobal, EmitInit, GradRule, InsertRule, Pat, Per, Slot, Tmpl, VarKind,
};
use super::Compiler;
use super::scope::Scope;
use gs_ir::registry::{Arity, Default, OpDecl};
use gs_ir::{ElemType, Role};
use gs_text::Diagnostic;
use gs_text::cursor::closest;
use gs_text::gsr::ast::{self, ExprKind, InsertSite, Pattern, PatternKind};

impl Compiler<'_> {
    pub(super) fn insert(&mut self, i: &ast::Insert) -> Option<InsertRule> {
        let errors = self.diagnostics.len();
        let mut scope = Scope::new();
        let pattern = self.pattern(&mut scope, &i.pattern)?;
        scope.settle(&pattern);
        let conditions: Vec<Cond> = i.conditions.iter().filter_map(|c| self.cond(&mut scope, c)).collect();
        let var = self.site_var(&mut scope, i, &pattern)?;
        let kind = self.operator(&i.emit.op)?;
        let decl = *self.registry.decl(kind);
        let args = self.emit_args(&mut scope, i, &decl, var)?;
        let mut attrs = Vec::new();
        for (name, e) in &i.emit.attrs {
            attrs.extend(self.given_attr(&mut scope, &decl, name, e));
        }
        for a in decl.attrs.iter().filter(|a| a.default == Default::Required) {
            if !i.emit.attrs.iter().any(|(n, _)| n.text == a.name) {
                let message = format!("`{}` needs the attribute `{}`", decl.name, a.name);
                self.error(Diagnostic::error("GS0626", message).label(i.emit.op.span, ""));
            }
        }
        if self.diagnostics[errors..].iter().any(Diagnostic::is_error) {
            return None;
        }
        let (name, doc) = (i.name.text.clone(), i.doc.clone());
        let (site, replace, examples, span) = (i.site, i.replace, i.examples.clone(), i.span);
        Some(InsertRule {
            name,
            doc,
            vars: scope.vars,
            pattern,
            site,
            var,
            conditions,
            kind,
            args,
            attrs,
            replace,
            examples,
            span,
        })
    }

    fn site_var(&mut self, scope: &mut Scope, i: &ast::Insert, pattern: &Pat) -> Option<Slot> {
        let slot = self.read(scope, &i.var.text, i.var.span)?;
        if !matches!(scope.kind(slot), VarKind::Value(_)) {
            let d =
                Diagnostic::error("GS0617", format!("`${}` is no value", i.var.text)).label(i.var.span, "");
            self.error(d);
            return None;
        }
        if i.site == InsertSite::Use && !is_operand(pattern, slot) {
            let message = format!("`${}` stands at no operand place of the pattern", i.var.text);
            let d = Diagnostic::error("GS0629", message).label(i.var.span, "");
            self.error(
                d.help("`at use` puts an operation on the operand of an operation that the pattern names"),
            );
            return None;
        }
        Some(slot)
    }

    fn emit_args(
        &mut self,
        scope: &mut Scope,
        i: &ast::Insert,
        decl: &OpDecl,
        var: Slot,
    ) -> Option<Vec<EmitArg>> {
        let mut out = Vec::new();
        let mut sites = 0;
        for arg in &i.emit.args {
            out.push(match arg {
                ast::EmitArg::Site(n) => {
                    if self.read(scope, &n.text, n.span)? != var {
                        let message = format!(
                            "only `${}`, on which it is put, and new globals can be operands",
                            i.var.text
                        );
                        self.error(Diagnostic::error("GS0630", message).label(n.span, ""));
                        return None;
                    }
                    sites += 1;
                    EmitArg::Site
                }
                ast::EmitArg::Absent(_) => EmitArg::Absent,
                ast::EmitArg::Global(g) => EmitArg::Global(self.emit_global(scope, g, decl)?),
            });
        }
        let required = decl.operands.iter().filter(|o| o.arity == Arity::One).count();
        // What does not read the operand at whose use it is put stands in its place.
        let replaces = sites == 0 && i.site == InsertSite::Use;
        if sites != 1 && !replaces {
            let message = format!("`${}` must be one operand of what is put on it", i.var.text);
            self.error(Diagnostic::error("GS0630", message).label(i.emit.span, ""));
            return None;
        }
        if out.len() < required || out.len() > decl.operands.len() && decl.operand(out.len()).is_none() {
            let message = format!(
                "`{}` takes {}, here are {}",
                decl.name,
                super::pattern::operand_words(decl),
                out.len()
            );
            self.error(Diagnostic::error("GS0611", message).label(i.emit.op.span, ""));
            return None;
        }
        Some(out)
    }

    fn emit_global(&mut self, scope: &mut Scope, g: &ast::NewGlobal, decl: &OpDecl) -> Option<EmitGlobal> {
        let role = match g.role.text.as_str() {
            "param" => Role::Param,
            "const" => Role::Const,
            _ => Role::State,
        };
        let Some(elem) = ElemType::from_name(&g.elem.text) else {
            let d = Diagnostic::error("GS0631", format!("no element type is called `{}`", g.elem.text));
            let d = d.label(g.elem.span, "");
            self.error(match closest(&g.elem.text, ElemType::all().map(ElemType::name)) {
                Some(n) => d.help(format!("there is `{n}`")),
                None => d,
            });
            return None;
        };
        let dims: Vec<Option<CExpr>> = g.dims.iter().map(|e| self.computed(scope, e, Some(decl))).collect();
        let per = match &g.per {
            ast::Per::Class(_) => Per::Class,
            ast::Per::Rule(_) => Per::Rule,
            ast::Per::Value(n) => Per::Value(self.read(scope, &n.text, n.span)?),
        };
        let init = match &g.init.kind {
            ExprKind::Int(n) => EmitInit::Splat(*n as f64),
            ExprKind::Float(f) => EmitInit::Splat(*f),
            ExprKind::Call(call) => {
                let Some(function) = self.functions.tensor(&call.name.text).cloned() else {
                    self.unknown_function("tensor function", call, None);
                    return None;
                };
                let args = self.arguments(scope, &function, call, Some(decl))?;
                EmitInit::Function(CExpr::Call(function, args, g.init.span))
            }
            _ => {
                let d = Diagnostic::error("GS0625", "a number or a tensor function is meant here");
                self.error(d.label(g.init.span, ""));
                return None;
            }
        };
        let dims = dims.into_iter().collect::<Option<_>>()?;
        Some(EmitGlobal { role, name: g.name.text.clone(), elem, dims, per, init })
    }

    pub(super) fn grad(&mut self, g: &ast::Grad) -> Option<GradRule> {
        let errors = self.diagnostics.len();
        let mut scope = Scope::new();
        let op = self.op_pattern(&mut scope, &g.pattern, g.span)?;
        let kind = op.kind;
        let results = op.results.as_ref().map_or(1, |r| r.named.len());
        let pattern = Pat::Op(Box::new(op));
        scope.settle(&pattern);
        if g.given.len() != results {
            let message = format!("{results} results have a gradient each, here are {}", g.given.len());
            self.error(Diagnostic::error("GS0632", message).label(g.span, ""));
        }
        let mut slot = |name: &ast::Name| scope.add(name, VarKind::Value(false));
        let given: Vec<Option<Slot>> = g.given.iter().map(|name| name.as_ref().map(&mut slot)).collect();
        // A gradient does not stand for the operation, so no attribute of it can be lost.
        let source = Pattern { kind: PatternKind::Any, span: g.span };
        let conditions: Vec<Cond> = g.conditions.iter().filter_map(|c| self.cond(&mut scope, c)).collect();
        let lets = self.lets(&mut scope, &g.lets, &source);
        let gradients = self.gradients(&mut scope, g, &source);
        if self.diagnostics[errors..].iter().any(Diagnostic::is_error) {
            return None;
        }
        let (doc, span) = (g.doc.clone(), g.span);
        Some(GradRule { kind, doc, vars: scope.vars, pattern, given, lets, gradients, conditions, span })
    }

    fn gradients(&mut self, scope: &mut Scope, g: &ast::Grad, source: &Pattern) -> Vec<(Vec<Slot>, Tmpl)> {
        let mut gradients: Vec<(Vec<Slot>, Tmpl)> = Vec::new();
        for (names, e) in &g.gradients {
            let slots: Option<Vec<Slot>> = names.iter().map(|n| self.read(scope, &n.text, n.span)).collect();
            let value = match &e.kind {
                ExprKind::Each { .. } => self.operand(scope, e, source),
                _ => self.template(scope, e, source),
            };
            let (Some(slots), Some(value)) = (slots, value) else { continue };
            for (slot, name) in slots.iter().zip(names) {
                if gradients.iter().any(|(earlier, _)| earlier.contains(slot)) {
                    let message = format!("`${}` has two gradients here", name.text);
                    self.error(Diagnostic::error("GS0632", message).label(name.span, ""));
                }
            }
            if slots.len() > 1 && !matches!(value, Tmpl::Op(_)) {
                let message = "several gradients are the results of one operation";
                self.error(Diagnostic::error("GS0632", message).label(e.span, "this is none"));
            }
            gradients.push((slots, value));
        }
        gradients
    }
}

/// Whether a slot stands at an operand place of an operation of the pattern.
fn is_operand(pattern: &Pat, slot: Slot) -> bool {
    let here = |p: &Pat| match p {
        Pat::Var(s) | Pat::Bound(s, _) => *s == slot,
        Pat::Optional(inner) => matches!(&**inner, Pat::Var(s) if *s == slot),
        _ => false,
    };
    match pattern {
        Pat::Op(op) => op.args.iter().any(|p| here(p) || is_operand(p, slot)),
        Pat::Bound(_, p) | Pat::Optional(p) => is_operand(p, slot),
        Pat::Alt(all) => all.iter().any(|p| is_operand(p, slot)),
        Pat::Wrapped(w) => here(&w.inner) || is_operand(&w.inner, slot),
        _ => false,
    }
}
