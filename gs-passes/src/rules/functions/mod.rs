//! Conditions and functions that rules may call: one table of declarations. Each says what it takes, what it
//! gives and what it is for; the checker, the drivers and the printed list all read it. An embedder adds own ones
//! with [`RuleFunctions::register`].
//!
//! Functions see values through a [`View`], so that one and the same function serves the drivers that rewrite a
//! module and the one that works on an e-graph (where a "value" is a class of equal values).

mod attrs;
mod conditions;
mod grids;
mod tensors;

use super::env::{RuleEnv, Site};
pub(crate) use attrs::default_attr;
use gs_ir::registry::AttrKind;
use gs_ir::{Attr, AttrSet, Global, Literal, Module, OpId, OpKind, Registry, TensorData, Type, ValueId};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Why a function gave no answer: the rule does not fire, and remarks show the reason.
pub type Refusal = String;

/// What a function may ask of values and operations.
pub trait View {
    /// The operators.
    fn registry(&self) -> &Registry;
    /// The type of a value.
    fn type_of(&self, value: ValueId) -> &Type;
    /// The global that a value reads.
    fn global(&self, value: ValueId) -> Option<&Global>;
    /// Whether a value depends on parameters and constants only, not on inputs or state.
    fn weight_only(&self, value: ValueId) -> bool;
    /// The operator of an operation.
    fn kind(&self, op: OpId) -> OpKind;
    /// The attributes of an operation.
    fn attrs(&self, op: OpId) -> &AttrSet;
    /// The operands of an operation.
    fn operands(&self, op: OpId) -> Vec<Option<ValueId>>;
    /// The contents of a small constant that is made from other constants by operations, computed.
    fn evaluated(&self, value: ValueId) -> Option<TensorData> {
        let _ = value;
        None
    }
    /// Whether both stand for the same tensor.
    fn same(&self, a: ValueId, b: ValueId) -> bool {
        a == b
    }
    /// The module and the match, where a module is rewritten; `None` in an e-graph.
    fn graph(&self) -> Option<GraphView<'_>> {
        None
    }
}

/// What only a driver that rewrites a module can tell.
#[derive(Clone, Copy)]
pub struct GraphView<'a> {
    /// The module.
    pub module: &'a Module,
    /// The operations of the match.
    pub matched: &'a [OpId],
}

/// What a function is called with.
pub struct Ctx<'a> {
    /// Values and operations.
    pub view: &'a dyn View,
    /// What the pass knows.
    pub env: &'a dyn RuleEnv,
}

impl<'a> Ctx<'a> {
    /// Module and match, for functions that are declared graph-only.
    pub fn graph(&self) -> Result<GraphView<'a>, Refusal> {
        self.view.graph().ok_or_else(|| "it needs a graph, and there is none here".to_owned())
    }

    /// The elements of a constant as numbers, at most `limit` of them.
    pub fn constant(&self, value: ValueId, limit: usize) -> Result<Vec<f64>, Refusal> {
        super::contents::of_value(self.view, value, limit)
    }
}

/// An argument.
#[derive(Clone, Debug)]
pub enum Arg<'a> {
    /// A value, or an absent operand.
    Value(Option<ValueId>),
    /// A list of values.
    Values(&'a [Option<ValueId>]),
    /// An operation, or the one of an optional wrapper that was not there.
    Op(Option<OpId>),
    /// An attribute; `None`: absent.
    Attr(Option<Attr>),
    /// A word.
    Word(&'a str),
}

impl<'a> Arg<'a> {
    /// The value.
    pub fn value(&self) -> Result<ValueId, Refusal> {
        match self {
            Arg::Value(Some(v)) => Ok(*v),
            _ => Err("the operand is absent".to_owned()),
        }
    }

    /// The values: of a list, or the one.
    pub fn values(&self) -> Result<Vec<Option<ValueId>>, Refusal> {
        match self {
            Arg::Values(all) => Ok(all.to_vec()),
            Arg::Value(one) => Ok(vec![*one]),
            _ => Err("values are needed".to_owned()),
        }
    }

    /// The value, if it is there.
    pub fn optional_value(&self) -> Option<ValueId> {
        match self {
            Arg::Value(v) => *v,
            _ => None,
        }
    }

    /// The operation.
    pub fn op(&self) -> Result<OpId, Refusal> {
        match self {
            Arg::Op(Some(op)) => Ok(*op),
            _ => Err("the operation is absent".to_owned()),
        }
    }

    /// The operation, if it is there.
    pub fn optional_op(&self) -> Option<OpId> {
        match self {
            Arg::Op(op) => *op,
            _ => None,
        }
    }

    /// The layer or the tensor that a configuration is asked about.
    pub fn site(&self) -> Result<Site, Refusal> {
        match self {
            Arg::Op(Some(op)) => Ok(Site::Op(*op)),
            Arg::Value(Some(v)) => Ok(Site::Value(*v)),
            _ => Err("it is absent".to_owned()),
        }
    }

    /// The attribute.
    pub fn attr(&self) -> Result<&Attr, Refusal> {
        self.optional_attr().ok_or_else(|| "the attribute is absent".to_owned())
    }

    /// The attribute, if it is there.
    pub fn optional_attr(&self) -> Option<&Attr> {
        match self {
            Arg::Attr(a) => a.as_ref(),
            _ => None,
        }
    }

    /// A whole number.
    pub fn int(&self) -> Result<i64, Refusal> {
        match self.attr()? {
            Attr::Int(n) => Ok(*n),
            Attr::Bool(b) => Ok(i64::from(*b)),
            other => Err(format!("an integer is needed, not {}", other.kind_name())),
        }
    }

    /// A list of whole numbers. Extents count where all are numbers.
    pub fn ints(&self) -> Result<Vec<i64>, Refusal> {
        match self.attr()? {
            Attr::Ints(v) => Ok(v.to_vec()),
            Attr::Int(n) => Ok(vec![*n]),
            Attr::Dims(d) => {
                d.iter().map(|d| d.as_const().ok_or("an extent is not a number".to_owned())).collect()
            }
            other => Err(format!("a list of integers is needed, not {}", other.kind_name())),
        }
    }

    /// A number.
    pub fn float(&self) -> Result<f64, Refusal> {
        match self.attr()? {
            Attr::Float(f) => Ok(f64::from(f.0)),
            Attr::Int(n) => Ok(*n as f64),
            other => Err(format!("a number is needed, not {}", other.kind_name())),
        }
    }

    /// The word.
    pub fn word(&self) -> Result<&'a str, Refusal> {
        match self {
            Arg::Word(w) => Ok(w),
            _ => Err("a word is needed".to_owned()),
        }
    }
}

/// What a function takes at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Param {
    /// A value that is there.
    Value,
    /// A value that may be absent.
    OptValue,
    /// One or several values: a variable of either kind.
    Values,
    /// An operation. A value stands for what makes it.
    Op,
    /// An operation that may be absent.
    OptOp,
    /// An operation or a value.
    Site,
    /// An attribute of any kind, present or not.
    Attr,
    /// A whole number.
    Int,
    /// Whole numbers.
    Ints,
    /// A number.
    Number,
    /// A word that the function reads itself.
    Word,
    /// An element type.
    Elem,
    /// Any number of further attributes; last place only.
    AttrRest,
}

impl Param {
    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Param::Value => "a value",
            Param::OptValue => "a value or an optional one",
            Param::Values => "a value or a list of values",
            Param::Op => "an operation",
            Param::OptOp => "an operation or an optional one",
            Param::Site => "an operation or a value",
            Param::Attr => "an attribute",
            Param::Int => "an integer",
            Param::Ints => "a list of integers",
            Param::Number => "a number",
            Param::Word => "a word",
            Param::Elem => "an element type",
            Param::AttrRest => "attributes",
        }
    }
}

/// What an attribute function gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gives {
    /// An attribute of this kind.
    Kind(AttrKind),
    /// An attribute whose kind only the use can tell (`attr($c, epsilon)`, `cfg(...)`).
    Anything,
}

/// A condition's code.
pub type ConditionFn = fn(&Ctx<'_>, &[Arg<'_>]) -> Result<bool, Refusal>;
/// An attribute function's code; `None` is an absent attribute.
pub type AttrFn = fn(&Ctx<'_>, &[Arg<'_>]) -> Result<Option<Attr>, Refusal>;
/// A tensor function's code.
pub type TensorFn = fn(&Ctx<'_>, &[Arg<'_>]) -> Result<Literal, Refusal>;

/// What a function does.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Says yes or no.
    Condition(ConditionFn),
    /// Gives an attribute.
    Attr(Gives, AttrFn),
    /// Gives a constant tensor.
    Tensor(TensorFn),
}

/// A declared function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name in rules.
    pub name: &'static str,
    /// What it takes.
    pub params: &'static [Param],
    /// One line for the reference.
    pub doc: &'static str,
    /// Whether its answer depends on who uses a value or on a place in a graph, so that it has no meaning in an
    /// e-graph.
    pub graph_only: bool,
    /// What it does.
    pub body: Body,
}

impl Function {
    /// A condition.
    pub const fn condition(
        name: &'static str,
        params: &'static [Param],
        doc: &'static str,
        body: ConditionFn,
    ) -> Self {
        Self { name, params, doc, graph_only: false, body: Body::Condition(body) }
    }

    /// A function that gives an attribute.
    pub const fn attr(
        name: &'static str,
        params: &'static [Param],
        gives: Gives,
        doc: &'static str,
        body: AttrFn,
    ) -> Self {
        Self { name, params, doc, graph_only: false, body: Body::Attr(gives, body) }
    }

    /// A function that gives a constant tensor.
    pub const fn tensor(
        name: &'static str,
        params: &'static [Param],
        doc: &'static str,
        body: TensorFn,
    ) -> Self {
        Self { name, params, doc, graph_only: false, body: Body::Tensor(body) }
    }

    /// The same function, without meaning in an e-graph.
    pub const fn on_graphs_only(mut self) -> Self {
        self.graph_only = true;
        self
    }

    /// `name(a value, an integer)`: how it is called.
    pub fn signature(&self) -> String {
        let params: Vec<&str> = self.params.iter().map(|p| p.describe()).collect();
        format!("{}({})", self.name, params.join(", "))
    }
}

/// The functions that rules may call. Conditions, attribute functions and tensor functions have a name space each:
/// where a call stands says which is meant.
#[derive(Clone, Debug)]
pub struct RuleFunctions {
    all: Vec<Arc<Function>>,
    conditions: FxHashMap<&'static str, usize>,
    attrs: FxHashMap<&'static str, usize>,
    tensors: FxHashMap<&'static str, usize>,
}

impl Default for RuleFunctions {
    fn default() -> Self {
        Self::builtin()
    }
}

impl RuleFunctions {
    /// The built-in functions.
    pub fn builtin() -> Self {
        let mut functions = Self {
            all: Vec::new(),
            conditions: FxHashMap::default(),
            attrs: FxHashMap::default(),
            tensors: FxHashMap::default(),
        };
        for table in [conditions::TABLE, grids::TABLE, attrs::TABLE, tensors::TABLE] {
            for f in table {
                functions.register(*f);
            }
        }
        functions
    }

    /// Adds a function, replacing one of the same name and purpose. Gives whether there was one.
    pub fn register(&mut self, function: Function) -> bool {
        let index = self.all.len();
        let space = match function.body {
            Body::Condition(_) => &mut self.conditions,
            Body::Attr(..) => &mut self.attrs,
            Body::Tensor(_) => &mut self.tensors,
        };
        let function_entry = Arc::new(function);
        match space.get(function.name) {
            Some(&old) => {
                self.all[old] = function_entry;
                true
            }
            None => {
                space.insert(function.name, index);
                self.all.push(function_entry);
                false
            }
        }
    }

    /// All functions, in order of registration.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        self.all.iter().map(|f| &**f)
    }

    /// The condition of this name.
    pub fn condition(&self, name: &str) -> Option<&Arc<Function>> {
        self.conditions.get(name).and_then(|&i| self.all.get(i))
    }

    /// The attribute function of this name.
    pub fn attr(&self, name: &str) -> Option<&Arc<Function>> {
        self.attrs.get(name).and_then(|&i| self.all.get(i))
    }

    /// The tensor function of this name.
    pub fn tensor(&self, name: &str) -> Option<&Arc<Function>> {
        self.tensors.get(name).and_then(|&i| self.all.get(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_is_documented_and_registered_once() {
        let mut functions = RuleFunctions::builtin();
        let all: Vec<Function> = functions.iter().copied().collect();
        let declared = [conditions::TABLE, grids::TABLE, attrs::TABLE, tensors::TABLE];
        assert_eq!(all.len(), declared.iter().map(|t| t.len()).sum::<usize>(), "two share a name");
        for f in all {
            assert!(!f.doc.is_empty(), "{}", f.name);
            let open = f.params.iter().rev().skip(1).any(|p| *p == Param::AttrRest);
            assert!(!open, "{}: only the last parameter repeats", f.name);
            assert!(functions.register(f), "{} replaces itself", f.name);
        }
    }
}
