//! Rules after checking: names are resolved against the operator registry, variables are numbered, attribute
//! values are in normal form. Every driver reads this form; the e-graph driver reads the same trees.

use super::functions::Function;
use gs_ir::registry::AttrDecl;
use gs_ir::{Attr, ElemType, OpKind};
use gs_text::gsr::ast::{self, Driver, InsertSite, Strictness};
use gs_text::{Diagnostic, SourceMap, Span};
use std::sync::Arc;

/// Number of a variable of a rule.
pub type Slot = usize;

/// A file of rules, checked and ready to run.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// The name in its header, else the one it was loaded under.
    pub name: String,
    /// Who may run it.
    pub driver: Driver,
    /// The target whose lowering it is.
    pub target: Option<String>,
    /// The rules, in file order. A `<=>` rule is two here, the second with [`Rule::reversed`].
    pub rules: Vec<Rule>,
    /// The insertions, in file order.
    pub inserts: Vec<InsertRule>,
    /// The gradients, in file order.
    pub grads: Vec<GradRule>,
    /// What was found but does not forbid running.
    pub warnings: Vec<Diagnostic>,
    /// The text that spans point into.
    pub sources: SourceMap,
}

/// A variable of a rule.
#[derive(Clone, Debug)]
pub struct Var {
    /// Its name, without `$`.
    pub name: String,
    /// What it stands for.
    pub kind: VarKind,
    /// Where it is bound first.
    pub span: Span,
}

/// What a variable stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VarKind {
    /// A value. With `true`, it may be absent in a match.
    Value(bool),
    /// A list of values.
    Values,
    /// An operation. With `true`, it may be absent in a match.
    Op(bool),
    /// An attribute of this kind; it may be absent where absence has a meaning of its own.
    Attr(gs_ir::registry::AttrKind),
}

/// What may be replaced by what.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name; of the second direction of a `<=>` rule, with `.reversed`.
    pub name: String,
    /// What its doc lines say.
    pub doc: String,
    /// How closely both sides agree.
    pub strictness: Strictness,
    /// Whether this is the right-to-left direction of a `<=>` rule.
    pub reversed: bool,
    /// The variables; slots index here.
    pub vars: Vec<Var>,
    /// What it looks for. The root is an operation, a wrapper that is not optional, a name around either, or
    /// alternatives of those.
    pub pattern: Pat,
    /// Values made before the template, in order.
    pub lets: Vec<(Slot, Tmpl)>,
    /// What stands there instead, one for each result of the root (one alone: for the first).
    pub template: Tmpl,
    /// What must hold besides.
    pub conditions: Vec<Cond>,
    /// The ledger's word for source nodes that vanish.
    pub note: Option<String>,
    /// Modules before and after.
    pub examples: Vec<ast::Example>,
    /// Number of operations in the pattern: bigger ones go first.
    pub size: usize,
    /// Where it stands.
    pub span: Span,
}

/// What is put on an edge.
#[derive(Clone, Debug)]
pub struct InsertRule {
    /// Its name.
    pub name: String,
    /// What its doc lines say.
    pub doc: String,
    /// The variables; slots index here.
    pub vars: Vec<Var>,
    /// What it looks for; a bare variable matches every value.
    pub pattern: Pat,
    /// Where the operation goes.
    pub site: InsertSite,
    /// The variable of that place.
    pub var: Slot,
    /// What must hold besides.
    pub conditions: Vec<Cond>,
    /// The operator that is put there.
    pub kind: OpKind,
    /// Its operands.
    pub args: Vec<EmitArg>,
    /// Its attributes.
    pub attrs: Vec<(&'static AttrDecl, CExpr)>,
    /// Whether it replaces what fills its slot already.
    pub replace: bool,
    /// Modules before and after.
    pub examples: Vec<ast::Example>,
    /// Where it stands.
    pub span: Span,
}

/// An operand of an inserted operation.
#[derive(Clone, Debug)]
pub enum EmitArg {
    /// The value that it is put on.
    Site,
    /// An absent operand.
    Absent,
    /// A global that is made for it.
    Global(EmitGlobal),
}

/// A global that an insertion makes.
#[derive(Clone, Debug)]
pub struct EmitGlobal {
    /// What it is for.
    pub role: gs_ir::Role,
    /// Last part of its name.
    pub name: String,
    /// Type of its elements.
    pub elem: ElemType,
    /// Its extents: each an integer, or a list of integers that stand in line.
    pub dims: Vec<CExpr>,
    /// Who shares it.
    pub per: Per,
    /// Its contents.
    pub init: EmitInit,
}

/// Who shares a new global.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Per {
    /// Everything that is put on the value of this variable.
    Value(Slot),
    /// All entries of one grid class.
    Class,
    /// Everything that the rule puts in.
    Rule,
}

/// Contents of a new global.
#[derive(Clone, Debug)]
pub enum EmitInit {
    /// A number for every element.
    Splat(f64),
    /// The tensor that a function gives.
    Function(CExpr),
}

/// The derivative of an operator.
#[derive(Clone, Debug)]
pub struct GradRule {
    /// The operator.
    pub kind: OpKind,
    /// What its doc lines say.
    pub doc: String,
    /// The variables; slots index here.
    pub vars: Vec<Var>,
    /// Names of operands and results.
    pub pattern: Pat,
    /// Slots of the gradients of the results, in order; `None` where one is not read.
    pub given: Vec<Option<Slot>>,
    /// Values made first, in order.
    pub lets: Vec<(Slot, Tmpl)>,
    /// Gradients of operands: their slots and what they are. Several slots stand for the results of one operation;
    /// the slot of a list for one gradient of each of its values.
    pub gradients: Vec<(Vec<Slot>, Tmpl)>,
    /// What must hold besides.
    pub conditions: Vec<Cond>,
    /// Where it stands.
    pub span: Span,
}

/// A pattern for one value (or operand place).
#[derive(Clone, Debug)]
pub enum Pat {
    /// Anything, absent too.
    Any,
    /// An operand that is not there.
    Absent,
    /// A value, the same wherever the slot stands.
    Var(Slot),
    /// An operand that is not there, or one that matches.
    Optional(Box<Pat>),
    /// A constant all of whose elements equal the number.
    Number(f64),
    /// The first result of such an operation.
    Op(Box<OpPat>),
    /// What matches gets a name.
    Bound(Slot, Box<Pat>),
    /// One of these, the first that fits.
    Alt(Vec<Pat>),
    /// One of these unary operations around `inner`, or `inner` itself.
    Wrapped(Box<Wrapped>),
}

/// A pattern for an operation.
#[derive(Clone, Debug)]
pub struct OpPat {
    /// Its operator.
    pub kind: OpKind,
    /// Name of the operation.
    pub bind: Option<Slot>,
    /// Operand places in order; places behind the last one must be absent.
    pub args: Vec<Pat>,
    /// What all operands behind `args` are, of a variadic operator.
    pub rest: Option<Rest>,
    /// What some attributes must be.
    pub attrs: Vec<(&'static AttrDecl, AttrPat)>,
    /// What is asked of the results; `None`: the first is meant, and no other is used.
    pub results: Option<Results>,
    /// Whether the first two operands are tried in both orders.
    pub commutative: bool,
    /// Where it stands.
    pub span: Span,
}

/// Operands behind the named ones.
#[derive(Clone, Debug)]
pub enum Rest {
    /// Whatever they are.
    Any,
    /// Whatever they are; they become a list.
    Values(Slot),
    /// Each matches; within, these slots stand for the element and become lists.
    Each(Vec<Slot>, Pat),
}

/// What is asked of the results of an operation.
#[derive(Clone, Debug)]
pub struct Results {
    /// The results that are named, in order.
    pub named: Vec<ResultPat>,
    /// All that follow.
    pub rest: RestResults,
}

/// What is asked of one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultPat {
    /// Nothing.
    Any,
    /// It gets a name.
    Var(Slot),
    /// Nothing uses it.
    Unused,
}

/// What is asked of the results behind the named ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestResults {
    /// Nothing uses them.
    Unused,
    /// They become a list.
    Values(Slot),
}

/// An optional unary operation.
#[derive(Clone, Debug)]
pub struct Wrapped {
    /// The operations, with what is asked of their attributes.
    pub ops: Vec<(OpKind, Vec<(&'static AttrDecl, AttrPat)>)>,
    /// Whether none of them may stand there.
    pub optional: bool,
    /// Name of the operation.
    pub bind: Option<Slot>,
    /// What it is applied to.
    pub inner: Pat,
    /// Where it stands.
    pub span: Span,
}

/// What an attribute must be.
#[derive(Clone, Debug)]
pub enum AttrPat {
    /// Anything, the same wherever the slot stands.
    Var(Slot),
    /// This value in normal form (`None`: absent, that is, the default).
    Is(Option<Attr>),
}

/// What is built.
#[derive(Clone, Debug)]
pub enum Tmpl {
    /// An absent operand.
    Absent,
    /// A value. With `true`, absent where the variable is.
    Var(Slot, bool),
    /// A list of values.
    Rest(Slot),
    /// An operation; its first result, where one value is wanted.
    Op(Box<OpTmpl>),
    /// A constant that a function gives.
    Const(CExpr),
    /// The body once for each element.
    Each(Box<EachTmpl>),
    /// One for each result of the root.
    Tuple(Vec<Tmpl>),
}

/// An operation to be built.
#[derive(Clone, Debug)]
pub struct OpTmpl {
    /// Its operator.
    pub kind: OpKind,
    /// Its operands.
    pub args: Vec<Tmpl>,
    /// Operations whose attributes are copied (those that the operator knows).
    pub copy: Vec<Slot>,
    /// Attributes that are given.
    pub attrs: Vec<(&'static AttrDecl, CExpr)>,
    /// Where it stands.
    pub span: Span,
}

/// A template over lists.
#[derive(Clone, Debug)]
pub struct EachTmpl {
    /// The slots that stand for the elements.
    pub slots: Vec<Slot>,
    /// What they go through.
    pub source: EachSource,
    /// What is made for each, in turn.
    pub body: Vec<Tmpl>,
}

/// What `each` goes through.
#[derive(Clone, Debug)]
pub enum EachSource {
    /// The lists that the same slots stand for outside.
    Own,
    /// A list.
    List(Slot),
    /// The results of an operation with as many results as the root.
    Results(OpTmpl),
}

/// An expression for an attribute or an argument.
#[derive(Clone, Debug)]
pub enum CExpr {
    /// A given attribute; `None`: absent.
    Attr(Option<Attr>),
    /// A word that the function reads itself.
    Word(String),
    /// A variable.
    Var(Slot, Span),
    /// An attribute of the operation that is put in (insertions only).
    Own(&'static AttrDecl, Span),
    /// A list of whole numbers, from integers and lists of integers.
    List(Vec<CExpr>, Span),
    /// A function.
    Call(Arc<Function>, Vec<CExpr>, Span),
}

/// A condition.
#[derive(Clone, Debug)]
pub enum Cond {
    /// A function that says yes or no.
    Call(Arc<Function>, Vec<CExpr>, Span),
    /// The opposite.
    Not(Box<Cond>),
    /// At least one.
    Or(Vec<Cond>),
    /// All.
    And(Vec<Cond>),
}

impl RuleSet {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.inserts.is_empty() && self.grads.is_empty()
    }

    /// The rule of this name.
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|r| r.name == name)
    }
}

impl Pat {
    /// The operators that the root of this pattern may be; empty where it may be any value.
    pub fn roots(&self) -> Vec<OpKind> {
        match self {
            Pat::Op(op) => vec![op.kind],
            Pat::Bound(_, inner) => inner.roots(),
            Pat::Alt(all) => all.iter().flat_map(Pat::roots).collect(),
            Pat::Wrapped(w) => {
                let mut kinds: Vec<OpKind> = w.ops.iter().map(|(k, _)| *k).collect();
                if w.optional {
                    kinds.extend(w.inner.roots());
                }
                kinds
            }
            _ => Vec::new(),
        }
    }

    /// Number of operations that it spans at most.
    pub fn size(&self) -> usize {
        match self {
            Pat::Any | Pat::Absent | Pat::Var(_) | Pat::Number(_) => 0,
            Pat::Optional(p) | Pat::Bound(_, p) => p.size(),
            Pat::Op(op) => {
                let rest = match &op.rest {
                    Some(Rest::Each(_, p)) => p.size(),
                    _ => 0,
                };
                1 + op.args.iter().map(Pat::size).sum::<usize>() + rest
            }
            Pat::Alt(all) => all.iter().map(Pat::size).max().unwrap_or(0),
            Pat::Wrapped(w) => 1 + w.inner.size(),
        }
    }

    /// Length of its longest chain of operations.
    pub fn depth(&self) -> usize {
        match self {
            Pat::Any | Pat::Absent | Pat::Var(_) | Pat::Number(_) => 0,
            Pat::Optional(p) | Pat::Bound(_, p) => p.depth(),
            Pat::Op(op) => {
                let rest = match &op.rest {
                    Some(Rest::Each(_, p)) => p.depth(),
                    _ => 0,
                };
                1 + op.args.iter().map(Pat::depth).max().unwrap_or(0).max(rest)
            }
            Pat::Alt(all) => all.iter().map(Pat::depth).max().unwrap_or(0),
            Pat::Wrapped(w) => 1 + w.inner.depth(),
        }
    }
}

impl Cond {
    /// Calls `f` for every function in it.
    pub fn visit_calls(&self, f: &mut dyn FnMut(&Function, Span)) {
        match self {
            Cond::Call(function, args, span) => {
                f(function, *span);
                args.iter().for_each(|a| a.visit_calls(f));
            }
            Cond::Not(c) => c.visit_calls(f),
            Cond::Or(all) | Cond::And(all) => all.iter().for_each(|c| c.visit_calls(f)),
        }
    }
}

impl CExpr {
    /// Calls `f` for every function in it.
    pub fn visit_calls(&self, f: &mut dyn FnMut(&Function, Span)) {
        match self {
            CExpr::Call(function, args, span) => {
                f(function, *span);
                args.iter().for_each(|a| a.visit_calls(f));
            }
            CExpr::List(all, _) => all.iter().for_each(|a| a.visit_calls(f)),
            _ => {}
        }
    }
}
