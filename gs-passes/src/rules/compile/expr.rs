//! Attributes, arguments of functions, and conditions.

use super::super::functions::{Body, Function, Gives, Param};
use super::super::rule::{CExpr, Cond, VarKind};
use super::Compiler;
use super::scope::{Scope, describe};
use gs_ir::registry::{AttrDecl, AttrKind, Default, OpDecl};
use gs_ir::{Attr, Dim, ElemType, FloatBits};
use gs_text::cursor::closest;
use gs_text::gsr::ast::{self, Call, CondKind, Expr, ExprKind};
use gs_text::{Diagnostic, Span};
use std::sync::Arc;

impl Compiler<'_> {
    // ---- literals ----

    /// A literal as an attribute in normal form: `None` is absent, that is, the default.
    pub(super) fn literal(&mut self, attr: &'static AttrDecl, e: &Expr) -> Option<Option<Attr>> {
        if matches!(e.kind, ExprKind::Absent) {
            if attr.default == Default::Required {
                let d = Diagnostic::error("GS0615", format!("the attribute `{}` is never absent", attr.name));
                self.error(d.label(e.span, ""));
                return None;
            }
            return Some(None);
        }
        match literal(attr.kind, e) {
            Some(v) => Some((!attr.is_default(&v)).then_some(v)),
            None => {
                let message =
                    format!("the attribute `{}` is {}, which this is not", attr.name, kind_words(attr.kind));
                self.error(Diagnostic::error("GS0616", message).label(e.span, ""));
                None
            }
        }
    }

    // ---- attributes of templates ----

    /// An attribute that is given in a template. `own` is the operation that is put in, whose attributes may be
    /// named (insertions).
    pub(super) fn given(&mut self, scope: &mut Scope, attr: &'static AttrDecl, e: &Expr) -> Option<CExpr> {
        match &e.kind {
            ExprKind::Var(_) | ExprKind::Call(_) => {
                let value = self.computed(scope, e, None)?;
                self.fits(scope, attr, &value, e.span).then_some(value)
            }
            ExprKind::List(items) if attr_is_list(attr.kind) && items.iter().any(is_computed) => {
                self.computed(scope, e, None)
            }
            _ => self.literal(attr, e).map(CExpr::Attr),
        }
    }

    /// Whether a computed value can be this attribute, as far as its kind is known.
    fn fits(&mut self, scope: &Scope, attr: &AttrDecl, value: &CExpr, span: Span) -> bool {
        let kind = match value {
            CExpr::Var(slot, _) => match scope.kind(*slot) {
                VarKind::Attr(k) => k,
                other => {
                    let message =
                        format!("`${}` is {}, not an attribute", scope.vars[*slot].name, describe(other));
                    self.error(Diagnostic::error("GS0617", message).label(span, ""));
                    return false;
                }
            },
            CExpr::Call(f, ..) => match f.body {
                Body::Attr(Gives::Kind(k), _) => k,
                _ => return true,
            },
            _ => return true,
        };
        if convertible(kind, attr.kind) {
            return true;
        }
        let message = format!(
            "the attribute `{}` is {}, this is {}",
            attr.name,
            kind_words(attr.kind),
            kind_words(kind)
        );
        self.error(Diagnostic::error("GS0616", message).label(span, ""));
        false
    }

    /// An expression whose value is computed when the rule runs.
    pub(super) fn computed(&mut self, scope: &mut Scope, e: &Expr, own: Option<&OpDecl>) -> Option<CExpr> {
        Some(match &e.kind {
            ExprKind::Int(n) => CExpr::Attr(Some(Attr::Int(*n))),
            ExprKind::Float(f) => CExpr::Attr(Some(Attr::float(*f as f32))),
            ExprKind::Bool(b) => CExpr::Attr(Some(Attr::Bool(*b))),
            ExprKind::Str(s) => CExpr::Attr(Some(Attr::str(s))),
            ExprKind::Absent => CExpr::Attr(None),
            ExprKind::Word(w) => match own.and_then(|d| d.attr(w)) {
                Some(attr) => CExpr::Own(attr, e.span),
                None => CExpr::Attr(Some(ElemType::from_name(w).map_or_else(|| Attr::str(w), Attr::Elem))),
            },
            ExprKind::Var(name) => CExpr::Var(self.read(scope, name, e.span)?, e.span),
            ExprKind::List(items) => {
                let items: Vec<Option<CExpr>> = items.iter().map(|i| self.computed(scope, i, own)).collect();
                CExpr::List(items.into_iter().collect::<Option<_>>()?, e.span)
            }
            ExprKind::Call(call) => {
                let function = self.attr_function(call)?;
                let args = self.arguments(scope, &function, call, own)?;
                CExpr::Call(function, args, e.span)
            }
            ExprKind::OptionalVar(_) | ExprKind::Rest(_) | ExprKind::Each { .. } | ExprKind::Tuple(_) => {
                self.error(Diagnostic::error("GS0618", "this is no attribute").label(e.span, ""));
                return None;
            }
        })
    }

    /// A variable that must be bound.
    pub(super) fn read(&mut self, scope: &mut Scope, name: &str, span: Span) -> Option<usize> {
        let found = scope.read(name);
        if found.is_none() {
            let d = Diagnostic::error("GS0619", format!("`${name}` is not bound")).label(span, "");
            self.error(match closest(name, scope.vars.iter().map(|v| v.name.as_str())) {
                Some(n) => d.help(format!("there is `${n}`")),
                None => d.help("a variable is bound by the pattern or by an earlier `let`"),
            });
        }
        found
    }

    // ---- functions ----

    fn attr_function(&mut self, call: &Call) -> Option<Arc<Function>> {
        let found = self.functions.attr(&call.name.text).cloned();
        if found.is_none() {
            let names = self.functions.iter().filter(|f| matches!(f.body, Body::Attr(..))).map(|f| f.name);
            self.unknown_function("attribute function", call, closest(&call.name.text, names));
        }
        found
    }

    pub(super) fn unknown_function(&mut self, what: &str, call: &Call, near: Option<&str>) {
        let d = Diagnostic::error("GS0620", format!("no {what} is called `{}`", call.name.text));
        let d = d.label(call.name.span, "");
        self.error(match near {
            Some(n) => d.help(format!("there is `{n}`")),
            None => d.help("`gs-opt rules --functions` lists them"),
        });
    }

    /// The arguments of a call, checked against what the function takes.
    pub(super) fn arguments(
        &mut self,
        scope: &mut Scope,
        function: &Function,
        call: &Call,
        own: Option<&OpDecl>,
    ) -> Option<Vec<CExpr>> {
        if !call.copy.is_empty() || !call.attrs.is_empty() {
            let message = format!("`{}` is a function and has no attributes", function.name);
            self.error(Diagnostic::error("GS0621", message).label(call.name.span, ""));
            return None;
        }
        let open = function.params.last() == Some(&Param::AttrRest);
        let fixed = function.params.len() - usize::from(open);
        if call.args.len() < fixed || call.args.len() > fixed && !open {
            let message =
                format!("`{}` takes {} arguments, here are {}", function.name, fixed, call.args.len());
            let d = Diagnostic::error("GS0622", message).label(call.name.span, "");
            self.error(d.help(format!("it is called as `{}`", function.signature())));
            return None;
        }
        let param = |i: usize| function.params.get(i).copied().unwrap_or(Param::AttrRest);
        let args: Vec<Option<CExpr>> = call
            .args
            .iter()
            .enumerate()
            .map(|(i, e)| self.argument(scope, function, param(i), e, own))
            .collect();
        args.into_iter().collect()
    }

    fn argument(
        &mut self,
        scope: &mut Scope,
        function: &Function,
        param: Param,
        e: &Expr,
        own: Option<&OpDecl>,
    ) -> Option<CExpr> {
        if matches!(param, Param::Word | Param::Elem) {
            return match &e.kind {
                ExprKind::Word(w) | ExprKind::Str(w) => Some(CExpr::Word(w.clone())),
                _ => self.wrong_argument(function, param, e.span),
            };
        }
        let value = match &e.kind {
            ExprKind::OptionalVar(name) => CExpr::Var(self.read(scope, name, e.span)?, e.span),
            _ => self.computed(scope, e, own)?,
        };
        let good = match &value {
            CExpr::Var(slot, _) => takes_var(param, scope.kind(*slot)),
            CExpr::Own(attr, _) => takes_attr(param, attr.kind),
            CExpr::Attr(None) => matches!(param, Param::Attr | Param::AttrRest),
            CExpr::Attr(Some(a)) => takes_literal(param, a),
            CExpr::List(..) => takes_attr(param, AttrKind::Ints),
            CExpr::Call(f, ..) => match f.body {
                Body::Attr(Gives::Kind(k), _) => takes_attr(param, k),
                _ => is_attr(param),
            },
            CExpr::Word(_) => false,
        };
        if good { Some(value) } else { self.wrong_argument(function, param, e.span) }
    }

    fn wrong_argument<T>(&mut self, function: &Function, param: Param, span: Span) -> Option<T> {
        let message = format!("`{}` takes {} here", function.name, param.describe());
        let d = Diagnostic::error("GS0623", message).label(span, "");
        self.error(d.help(format!("it is called as `{}`", function.signature())));
        None
    }

    // ---- conditions ----

    /// A condition.
    pub(super) fn cond(&mut self, scope: &mut Scope, c: &ast::Cond) -> Option<Cond> {
        Some(match &c.kind {
            CondKind::Not(inner) => Cond::Not(Box::new(self.cond(scope, inner)?)),
            CondKind::Or(all) => Cond::Or(self.conds(scope, all)?),
            CondKind::And(all) => Cond::And(self.conds(scope, all)?),
            CondKind::Call(call) => {
                let Some(function) = self.functions.condition(&call.name.text).cloned() else {
                    let names = self
                        .functions
                        .iter()
                        .filter(|f| matches!(f.body, Body::Condition(_)))
                        .map(|f| f.name);
                    self.unknown_function("condition", call, closest(&call.name.text, names));
                    return None;
                };
                let args = self.arguments(scope, &function, call, None)?;
                Cond::Call(function, args, c.span)
            }
        })
    }

    fn conds(&mut self, scope: &mut Scope, all: &[ast::Cond]) -> Option<Vec<Cond>> {
        let all: Vec<Option<Cond>> = all.iter().map(|c| self.cond(scope, c)).collect();
        all.into_iter().collect()
    }
}

fn is_computed(e: &Expr) -> bool {
    matches!(e.kind, ExprKind::Var(_) | ExprKind::Call(_))
}

fn attr_is_list(kind: AttrKind) -> bool {
    matches!(kind, AttrKind::Ints | AttrKind::Dims)
}

/// A literal as an attribute of a kind.
fn literal(kind: AttrKind, e: &Expr) -> Option<Attr> {
    Some(match (kind, &e.kind) {
        (AttrKind::Int, ExprKind::Int(n)) => Attr::Int(*n),
        (AttrKind::Float, ExprKind::Float(f)) => Attr::float(*f as f32),
        (AttrKind::Float, ExprKind::Int(n)) => Attr::float(*n as f32),
        (AttrKind::Bool, ExprKind::Bool(b)) => Attr::Bool(*b),
        (AttrKind::Str, ExprKind::Str(s) | ExprKind::Word(s)) => Attr::str(s),
        (AttrKind::Enum(words), ExprKind::Str(s) | ExprKind::Word(s)) if words.contains(&s.as_str()) => {
            Attr::str(s)
        }
        (AttrKind::Elem, ExprKind::Word(w)) => Attr::Elem(ElemType::from_name(w)?),
        (AttrKind::Ints, ExprKind::List(items)) => Attr::ints(&ints(items)?),
        (AttrKind::Dims, ExprKind::List(items)) => Attr::dims(ints(items)?.into_iter().map(Dim::Const)),
        (AttrKind::Floats, ExprKind::List(items)) => {
            let floats: Option<Vec<FloatBits>> = items.iter().map(float).collect();
            Attr::Floats(floats?.into())
        }
        _ => return None,
    })
}

fn ints(items: &[Expr]) -> Option<Vec<i64>> {
    let int = |e: &Expr| match e.kind {
        ExprKind::Int(n) => Some(n),
        _ => None,
    };
    items.iter().map(int).collect()
}

fn float(e: &Expr) -> Option<FloatBits> {
    match e.kind {
        ExprKind::Int(n) => Some(FloatBits(n as f32)),
        ExprKind::Float(f) => Some(FloatBits(f as f32)),
        _ => None,
    }
}

fn takes_var(param: Param, kind: VarKind) -> bool {
    match (param, kind) {
        // What may be absent is refused when it is, so that `absent($b) or weight_only($b)` can be said.
        (Param::Value | Param::OptValue | Param::Values, VarKind::Value(_)) => true,
        (Param::Values, VarKind::Values) => true,
        (Param::Op | Param::Site, VarKind::Op(_) | VarKind::Value(_)) => true,
        (Param::OptOp, VarKind::Op(_)) => true,
        (_, VarKind::Attr(k)) => takes_attr(param, k),
        _ => false,
    }
}

fn is_attr(param: Param) -> bool {
    matches!(param, Param::Attr | Param::AttrRest | Param::Int | Param::Ints | Param::Number)
}

fn takes_attr(param: Param, kind: AttrKind) -> bool {
    match param {
        Param::Attr | Param::AttrRest => true,
        Param::Int => matches!(kind, AttrKind::Int | AttrKind::Bool),
        Param::Ints => matches!(kind, AttrKind::Ints | AttrKind::Dims | AttrKind::Int),
        Param::Number => matches!(kind, AttrKind::Float | AttrKind::Int),
        _ => false,
    }
}

fn takes_literal(param: Param, a: &Attr) -> bool {
    match param {
        Param::Attr | Param::AttrRest => true,
        Param::Int => matches!(a, Attr::Int(_)),
        Param::Ints => matches!(a, Attr::Int(_) | Attr::Ints(_)),
        Param::Number => matches!(a, Attr::Int(_) | Attr::Float(_)),
        _ => false,
    }
}

/// Whether a value of one kind can stand for another: what the rewriter brings into normal form.
fn convertible(from: AttrKind, to: AttrKind) -> bool {
    match (from, to) {
        (AttrKind::Ints, AttrKind::Dims) => true,
        (AttrKind::Str, AttrKind::Enum(_)) | (AttrKind::Enum(_), AttrKind::Str | AttrKind::Enum(_)) => true,
        _ => from == to,
    }
}

/// An attribute kind, in words.
fn kind_words(kind: AttrKind) -> String {
    match kind {
        AttrKind::Int => "an integer".into(),
        AttrKind::Float => "a number".into(),
        AttrKind::Bool => "`true` or `false`".into(),
        AttrKind::Str => "a string".into(),
        AttrKind::Enum(words) => format!("one of {}", words.join(", ")),
        AttrKind::Ints => "a list of integers".into(),
        AttrKind::Floats => "a list of numbers".into(),
        AttrKind::Strs => "a list of strings".into(),
        AttrKind::Elem => "an element type".into(),
        AttrKind::Dims => "a list of extents".into(),
        AttrKind::Tensor => "a tensor".into(),
    }
}
