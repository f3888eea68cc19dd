//! The syntax tree of a rule file, as written: names are not resolved and nothing is typed. Every node knows
//! the piece of text that it came from, so that later checks can point at it.

use crate::span::Span;

/// A name or a variable (without its `$`) with its place.
#[derive(Clone, Debug)]
pub struct Name {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A file.
#[derive(Clone, Debug)]
pub struct RuleFile {
    /// What `ruleset` says, if it stands there.
    pub header: Option<Header>,
    /// Rules, insertions and gradients, in order.
    pub items: Vec<Item>,
}

/// `ruleset "name" { driver = greedy }`.
#[derive(Clone, Debug)]
pub struct Header {
    /// The name people see.
    pub name: Name,
    /// Who may run the rules.
    pub driver: Driver,
    /// The target whose lowering this is.
    pub target: Option<Name>,
    /// Where it stands.
    pub span: Span,
}

/// Who may run a rule file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Driver {
    /// The worklist driver.
    #[default]
    Greedy,
    /// Equality saturation.
    Egraph,
    /// Either of them.
    Both,
    /// The worklist driver, as the lowering for a target.
    Lower,
    /// The insertion sweep.
    Insert,
    /// None of them: its rules say what gradients are.
    Grad,
}

impl Driver {
    /// Every driver with its keyword.
    pub const ALL: [(Driver, &'static str); 6] = [
        (Driver::Greedy, "greedy"),
        (Driver::Egraph, "egraph"),
        (Driver::Both, "both"),
        (Driver::Lower, "lower"),
        (Driver::Insert, "insert"),
        (Driver::Grad, "grad"),
    ];

    /// The keyword in text.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(d, _)| *d == self).map_or("greedy", |(_, n)| n)
    }

    /// Whether the rules are used as equalities.
    pub fn is_equality(self) -> bool {
        matches!(self, Driver::Egraph | Driver::Both)
    }
}

/// One thing that a file defines.
#[derive(Clone, Debug)]
pub enum Item {
    /// What may be replaced by what.
    Rule(Rule),
    /// What is put on which edge.
    Insert(Insert),
    /// The derivative of an operator.
    Grad(Grad),
}

impl Item {
    /// Its name (of a gradient: the operator).
    pub fn name(&self) -> &Name {
        match self {
            Item::Rule(r) => &r.name,
            Item::Insert(i) => &i.name,
            Item::Grad(g) => &g.op,
        }
    }
}

/// How closely both sides of a rule agree. Ordered: what comes later allows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strictness {
    /// Bit for bit.
    Exact,
    /// Within this many steps of the output's grid.
    Codes(u32),
    /// Equal over the real numbers; floating-point rounding may differ.
    Real,
}

impl std::fmt::Display for Strictness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Strictness::Exact => f.write_str("exact"),
            Strictness::Codes(n) => write!(f, "codes({n})"),
            Strictness::Real => f.write_str("real"),
        }
    }
}

/// `rule exact name PATTERN => TEMPLATE where ...`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The `///` lines.
    pub doc: String,
    /// How closely both sides agree.
    pub strictness: Strictness,
    /// Its name.
    pub name: Name,
    /// What it looks for.
    pub pattern: Pattern,
    /// Values named between pattern and template, in order.
    pub lets: Vec<(Name, Expr)>,
    /// What stands there instead.
    pub template: Expr,
    /// Whether it was written with `<=>`: the other direction is a rule too.
    pub both_ways: bool,
    /// What must hold besides.
    pub conditions: Vec<Cond>,
    /// The ledger's word for source nodes that vanish (`note "folded"`).
    pub note: Option<Name>,
    /// Modules before and after.
    pub examples: Vec<Example>,
    /// Where it stands.
    pub span: Span,
}

/// `insert name match PATTERN at use $w where ... emit ...`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The `///` lines.
    pub doc: String,
    /// Its name.
    pub name: Name,
    /// What it looks for.
    pub pattern: Pattern,
    /// Where the operation goes.
    pub site: InsertSite,
    /// The variable of that place.
    pub var: Name,
    /// What must hold besides.
    pub conditions: Vec<Cond>,
    /// The operation.
    pub emit: Emit,
    /// Whether an operation that already fills the slot is replaced.
    pub replace: bool,
    /// Modules before and after.
    pub examples: Vec<Example>,
    /// Where it stands.
    pub span: Span,
}

/// Where an insertion goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertSite {
    /// On the matched operand only.
    Use,
    /// On the value: every user sees it.
    Value,
    /// Once for each entry of the value's grid class.
    Class,
}

impl InsertSite {
    /// The keyword in text.
    pub fn name(self) -> &'static str {
        match self {
            InsertSite::Use => "use",
            InsertSite::Value => "value",
            InsertSite::Class => "class",
        }
    }
}

/// The operation that an insertion puts on an edge.
#[derive(Clone, Debug)]
pub struct Emit {
    /// The operator.
    pub op: Name,
    /// Its operands.
    pub args: Vec<EmitArg>,
    /// Its attributes.
    pub attrs: Vec<(Name, Expr)>,
    /// Where it stands.
    pub span: Span,
}

/// An operand of an inserted operation.
#[derive(Clone, Debug)]
pub enum EmitArg {
    /// The value that it is put on.
    Site(Name),
    /// An absent operand.
    Absent(Span),
    /// A global that is made for it.
    Global(Box<NewGlobal>),
}

/// `state "range" : f32[2, channels($w, axis)] per $w = nan`.
#[derive(Clone, Debug)]
pub struct NewGlobal {
    /// `state`, `param` or `const`.
    pub role: Name,
    /// Last part of its name.
    pub name: Name,
    /// Type of its elements.
    pub elem: Name,
    /// Its extents.
    pub dims: Vec<Expr>,
    /// Who shares it.
    pub per: Per,
    /// Its contents: a number for every element, or a function that gives a tensor.
    pub init: Expr,
    /// Where it stands.
    pub span: Span,
}

/// Who shares a new global.
#[derive(Clone, Debug)]
pub enum Per {
    /// Everything that is put on this value.
    Value(Name),
    /// All entries of one grid class.
    Class(Span),
    /// Everything that this rule puts in.
    Rule(Span),
}

/// `grad relu($x) -> ($y) given ($dy) => ($x: ...)`.
#[derive(Clone, Debug)]
pub struct Grad {
    /// The `///` lines.
    pub doc: String,
    /// The operator.
    pub op: Name,
    /// Names of the operation itself, its operands and results.
    pub pattern: OpPattern,
    /// Names of the gradients of its results; `None` where one is not read.
    pub given: Vec<Option<Name>>,
    /// Values named on the way.
    pub lets: Vec<(Name, Expr)>,
    /// Operands and their gradient; several names stand for the results of one operation, in order.
    pub gradients: Vec<(Vec<Name>, Expr)>,
    /// What must hold besides.
    pub conditions: Vec<Cond>,
    /// Where it stands.
    pub span: Span,
}

/// `example "text" { module } => { module }`.
#[derive(Clone, Debug)]
pub struct Example {
    /// What it shows.
    pub title: Name,
    /// The text between the first braces, a `.gsir` module without its first line.
    pub before: Snippet,
    /// What becomes of it; `None` for `=> same`: the rule must leave it alone.
    pub after: Option<Snippet>,
}

/// A piece of another language, kept as text.
#[derive(Clone, Debug)]
pub struct Snippet {
    /// The text without its braces.
    pub text: String,
    /// Where it stands, braces included.
    pub span: Span,
}

/// A pattern for one value.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// What it is.
    pub kind: PatternKind,
    /// Where it stands.
    pub span: Span,
}

/// What a pattern can be.
#[derive(Clone, Debug)]
pub enum PatternKind {
    /// `_`: anything.
    Any,
    /// `none`: an operand that is not there.
    Absent,
    /// `$x`: any value, the same wherever the name stands.
    Var(Name),
    /// `P?`: an operand that is not there, or one that matches.
    Optional(Box<Pattern>),
    /// `$x...` or `_...`: all operands that follow.
    Rest(Option<Name>),
    /// `each $q, $s: P`: all operands that follow match, and the names become lists.
    Each(Vec<Name>, Box<Pattern>),
    /// `0`: a constant all of whose elements equal this number.
    Number(f64),
    /// `conv@c($x, $w) {group = 1}`.
    Op(OpPattern),
    /// `$y:(P)`: what `P` matches gets a name.
    Bound(Name, Box<Pattern>),
    /// `(P | Q)`.
    Alt(Vec<Pattern>),
    /// `[relu | clip]?@a(P)`: one of these unary operations around `P`, or (with `?`) `P` itself.
    Wrapped {
        /// The operations, each with its attribute patterns.
        ops: Vec<(Name, Vec<AttrPattern>)>,
        /// Whether none of them may stand there.
        optional: bool,
        /// Name of the operation.
        bind: Option<Name>,
        /// What it is applied to.
        inner: Box<Pattern>,
    },
}

/// A pattern for an operation.
#[derive(Clone, Debug)]
pub struct OpPattern {
    /// The operator.
    pub op: Name,
    /// Name of the operation.
    pub bind: Option<Name>,
    /// Patterns of its operands, in order.
    pub args: Vec<Pattern>,
    /// Patterns of some of its attributes.
    pub attrs: Vec<AttrPattern>,
    /// `-> ($y, unused)`: its results. Without it, the first result is meant and others must not be used.
    pub results: Option<Vec<ResultPattern>>,
}

/// A pattern for a result.
#[derive(Clone, Debug)]
pub enum ResultPattern {
    /// `$y`: gets a name.
    Var(Name),
    /// `_`: whatever.
    Any(Span),
    /// `unused`: nothing may use it.
    Unused(Span),
    /// `unused...`: nothing may use those that follow.
    UnusedRest(Span),
    /// `$y...`: all that follow, as a list.
    Rest(Name),
}

/// `perm = $p` or `axis = 1`.
#[derive(Clone, Debug)]
pub struct AttrPattern {
    /// The attribute.
    pub name: Name,
    /// What it must be.
    pub value: AttrPatternValue,
}

/// What an attribute must be.
#[derive(Clone, Debug)]
pub enum AttrPatternValue {
    /// `$p`: anything, the same wherever the name stands; an absent attribute gives its default.
    Var(Name),
    /// This value.
    Literal(Expr),
}

/// What is built instead of a match, an attribute, or an argument of a function: one grammar for all of them.
/// Which of these an expression is follows from where it stands.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// What an expression can be.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// A whole number.
    Int(i64),
    /// A number with a point or an exponent, `nan`, `inf`.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Text in quotes.
    Str(String),
    /// `none`: an operand or an attribute that is not there.
    Absent,
    /// A word: an element type, a trait, the name of an attribute.
    Word(String),
    /// `$x`: a value, an operation or an attribute.
    Var(String),
    /// `$x?`: absent where `$x` is.
    OptionalVar(String),
    /// `$x...`: all of a list.
    Rest(String),
    /// `[1, $n]`.
    List(Vec<Expr>),
    /// `conv($x, mul($w, $k)) {..$c, group = 1}`: an operation or a function.
    Call(Call),
    /// `each $q, $s: E` (over the lists of these names) or `each $v in SOURCE: E` (over a list or the results of
    /// an operation): the body once for each element.
    Each {
        /// The names that stand for the elements.
        names: Vec<Name>,
        /// What they go through; `None`: the lists of the same names.
        source: Option<Box<Expr>>,
        /// What is made for each, in turn.
        body: Vec<Expr>,
    },
    /// `(E, F)`: one for each result of the matched operation.
    Tuple(Vec<Expr>),
}

/// An operation to be made, or a function to be called.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operator or function.
    pub name: Name,
    /// Operands or arguments.
    pub args: Vec<Expr>,
    /// Operations whose attributes are copied.
    pub copy: Vec<Name>,
    /// Attributes that are given.
    pub attrs: Vec<(Name, Expr)>,
}

/// A condition.
#[derive(Clone, Debug)]
pub struct Cond {
    /// What it is.
    pub kind: CondKind,
    /// Where it stands.
    pub span: Span,
}

/// What a condition can be.
#[derive(Clone, Debug)]
pub enum CondKind {
    /// `weight_only($w)`.
    Call(Call),
    /// `not C`.
    Not(Box<Cond>),
    /// `C or D`.
    Or(Vec<Cond>),
    /// `C and D` (also `,` in a `where` list).
    And(Vec<Cond>),
}
