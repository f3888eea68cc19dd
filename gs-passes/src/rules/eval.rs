//! Evaluates conditions and expressions of a match. The e-graph driver uses it with a [`View`] of its own.

use super::env::RuleEnv;
use super::functions::{Arg, Body, Ctx, Function, Refusal, View};
use super::matcher::Binding;
use super::rule::{CExpr, Cond, Slot};
use gs_ir::{Attr, AttrSet, Literal, ValueId};

/// What variables stand for.
#[derive(Clone, Copy)]
pub enum Bindings<'a> {
    /// What a match bound.
    Matched(&'a [Binding]),
    /// The same, with the attributes of an operation that is put in.
    Emitting(&'a [Binding], &'a AttrSet),
}

/// Evaluates expressions of one match.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    /// Values and operations.
    pub view: &'a dyn View,
    /// What the pass knows.
    pub env: &'a dyn RuleEnv,
    /// Variables.
    pub bindings: Bindings<'a>,
}

impl<'a> Evaluator<'a> {
    fn binding(&self, slot: Slot) -> &'a Binding {
        let (Bindings::Matched(all) | Bindings::Emitting(all, _)) = self.bindings;
        all.get(slot).unwrap_or(&Binding::Unset)
    }

    /// Whether a condition holds; an error says what it could not tell.
    ///
    /// # Errors
    /// Where a function has no answer, which counts as "no".
    pub fn cond(&self, c: &'a Cond) -> Result<bool, Refusal> {
        match c {
            Cond::Call(function, args, _) => match function.body {
                Body::Condition(f) => self.call(function, args, f),
                _ => Err(format!("`{}` is no condition", function.name)),
            },
            // What cannot be told is neither so nor not so.
            Cond::Not(inner) => Ok(!self.cond(inner)?),
            Cond::And(all) => {
                for c in all {
                    if !self.cond(c)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Cond::Or(all) => {
                let mut problem = None;
                for c in all {
                    match self.cond(c) {
                        Ok(true) => return Ok(true),
                        Ok(false) => {}
                        Err(e) => problem = Some(e),
                    }
                }
                problem.map_or(Ok(false), Err)
            }
        }
    }

    /// An attribute; `None` is an absent one.
    ///
    /// # Errors
    /// Where a function has no answer.
    pub fn attr(&self, e: &'a CExpr) -> Result<Option<Attr>, Refusal> {
        match e {
            CExpr::Attr(a) => Ok(a.clone()),
            CExpr::Word(w) => Ok(Some(Attr::str(w))),
            CExpr::Var(slot, _) => match self.binding(*slot) {
                Binding::Attr(a) => Ok(a.clone()),
                _ => Err("a variable is not bound".into()),
            },
            CExpr::Own(decl, _) => {
                let Bindings::Emitting(_, own) = self.bindings else {
                    return Err("no operation is put in here".into());
                };
                Ok(own.get(decl.name).cloned().or_else(|| super::functions::default_attr(decl.default)))
            }
            CExpr::List(items, _) => self.ints(items).map(|v| Some(Attr::ints(&v))),
            CExpr::Call(function, args, _) => match function.body {
                Body::Attr(_, f) => self.call(function, args, f),
                _ => Err(format!("`{}` gives no attribute", function.name)),
            },
        }
    }

    /// Integers and lists of integers, in line.
    ///
    /// # Errors
    /// Where one is something else.
    pub fn ints(&self, items: &'a [CExpr]) -> Result<Vec<i64>, Refusal> {
        let mut out = Vec::new();
        for item in items {
            out.extend(Arg::Attr(self.attr(item)?).ints()?);
        }
        Ok(out)
    }

    /// The constant that a tensor function gives.
    ///
    /// # Errors
    /// Where it has no answer.
    pub fn tensor(&self, e: &'a CExpr) -> Result<Literal, Refusal> {
        match e {
            CExpr::Call(function, args, _) => match function.body {
                Body::Tensor(f) => self.call(function, args, f),
                _ => Err(format!("`{}` gives no tensor", function.name)),
            },
            _ => Err("this is no tensor".into()),
        }
    }

    fn call<T>(
        &self,
        function: &Function,
        args: &'a [CExpr],
        f: fn(&Ctx<'_>, &[Arg<'_>]) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut values = Vec::with_capacity(args.len());
        for (i, arg) in args.iter().enumerate() {
            let param = function.params.get(i).or(function.params.last());
            values.push(self.arg(arg, param.copied())?);
        }
        f(&Ctx { view: self.view, env: self.env }, &values)
    }

    fn arg(&self, e: &'a CExpr, param: Option<super::functions::Param>) -> Result<Arg<'a>, Refusal> {
        use super::functions::Param;
        match e {
            CExpr::Word(w) => Ok(Arg::Word(w)),
            CExpr::Var(slot, _) => match (self.binding(*slot), param) {
                // An operation is meant: the one that makes the value.
                (Binding::Value(Some(v)), Some(Param::Op)) => Ok(Arg::Op(self.producer(*v)?)),
                (Binding::Value(v), _) => Ok(Arg::Value(*v)),
                (Binding::Values(all), _) => Ok(Arg::Values(all)),
                (Binding::Op(op), _) => Ok(Arg::Op(Some(*op))),
                (Binding::Attr(a), _) => Ok(Arg::Attr(a.clone())),
                // Bound in another alternative, or an optional operation that is not there.
                (Binding::Unset, Some(Param::OptOp)) => Ok(Arg::Op(None)),
                (Binding::Unset, Some(Param::OptValue)) => Ok(Arg::Value(None)),
                (Binding::Unset, _) => Err("a variable is not bound".into()),
            },
            _ => Ok(Arg::Attr(self.attr(e)?)),
        }
    }

    fn producer(&self, value: ValueId) -> Result<Option<gs_ir::OpId>, Refusal> {
        let graph = self.view.graph().ok_or("what makes a value is not known in an e-graph")?;
        graph.module.producer(value).map(Some).ok_or_else(|| "no operation makes the value".to_owned())
    }
}
