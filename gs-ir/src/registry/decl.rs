//! The declaration of an operator: the single place that knows its operands, attributes, types, traits,
//! ONNX forms, axis rule and quantisation roles. Parser, printer, verifier, importer, quantiser placement,
//! pruning, test generators and the generated reference all read it.

use crate::attr::{Attr, AttrSet};
use crate::elem::ElemType;
use crate::infer::{InferCtx, InferError};
pub use crate::ops::axis_rule::AxisFunction;

/// One operator.
#[derive(Clone, Copy, Debug)]
pub struct OpDecl {
    /// Name in text, like `conv`.
    pub name: &'static str,
    /// One line for the reference: what it computes.
    pub doc: &'static str,
    /// Operands in order; only the last may be variadic.
    pub operands: &'static [OperandDecl],
    /// Results in order; only the last may be variadic.
    pub results: &'static [ResultDecl],
    /// Attributes, in any order.
    pub attrs: &'static [AttrDecl],
    /// Number of regions (graphs) that it carries.
    pub regions: Regions,
    /// Computes the types (and what is known of the contents) of the results.
    pub infer: fn(&mut InferCtx<'_>) -> Result<(), InferError>,
    /// What passes may assume.
    pub traits: Traits,
    /// Its forms in ONNX, if it has any.
    pub onnx: Option<OnnxDecl>,
    /// How its axes are tied, for pruning and batching. See [`AxisRule`].
    pub axes: AxisRule,
}

impl OpDecl {
    /// A declaration to be completed with `..OpDecl::BASE`.
    pub const BASE: OpDecl = OpDecl {
        name: "",
        doc: "",
        operands: &[],
        results: &[],
        attrs: &[],
        regions: Regions::None,
        infer: crate::infer::unknown,
        traits: Traits::PURE,
        onnx: None,
        axes: AxisRule::Opaque,
    };

    /// Whether an operation may have so many results: none that must be there is missing, none is one too many.
    pub fn may_have_results(&self, count: usize) -> bool {
        let least = self.results.iter().filter(|r| r.arity == Arity::One).count();
        count >= least && count.checked_sub(1).is_none_or(|last| self.result(last).is_some())
    }

    /// The position of an operand by name.
    pub fn operand_index(&self, name: &str) -> Option<usize> {
        self.operands.iter().position(|o| o.name == name)
    }

    /// A whole number among `attrs`, or its declared default.
    pub fn int(&self, attrs: &AttrSet, name: &str) -> Option<i64> {
        match (attrs.get(name), self.attr(name)?.default) {
            (Some(Attr::Int(v)), _) => Some(*v),
            (None, Default::Int(v)) => Some(v),
            _ => None,
        }
    }

    /// A float among `attrs`, or its declared default.
    pub fn float(&self, attrs: &AttrSet, name: &str) -> Option<f32> {
        match (attrs.get(name), self.attr(name)?.default) {
            (Some(Attr::Float(v)), _) => Some(v.0),
            (None, Default::Float(v)) => Some(v),
            _ => None,
        }
    }

    /// A truth value among `attrs`, or its declared default; false where neither is one.
    pub fn flag(&self, attrs: &AttrSet, name: &str) -> bool {
        match (attrs.get(name), self.attr(name).map(|a| a.default)) {
            (Some(Attr::Bool(v)), _) => *v,
            (None, Some(Default::Bool(v))) => v,
            _ => false,
        }
    }

    /// A text or word among `attrs`, or its declared default.
    pub fn word<'a>(&self, attrs: &'a AttrSet, name: &str) -> Option<&'a str> {
        match (attrs.get(name), self.attr(name)?.default) {
            (Some(Attr::Str(v)), _) => Some(v),
            (None, Default::Word(v)) => Some(v),
            _ => None,
        }
    }

    /// An element type among `attrs`, or its declared default.
    pub fn elem(&self, attrs: &AttrSet, name: &str) -> Option<ElemType> {
        match (attrs.get(name), self.attr(name)?.default) {
            (Some(Attr::Elem(v)), _) => Some(*v),
            (None, Default::Elem(v)) => Some(v),
            _ => None,
        }
    }

    /// A list of `count` whole numbers among `attrs`, or its declared default repeated. `None` where the list is
    /// absent without a default, or has another length.
    pub fn list(&self, attrs: &AttrSet, name: &str, count: usize) -> Option<Vec<i64>> {
        match (attrs.get(name), self.attr(name)?.default) {
            (Some(Attr::Ints(v)), _) => (v.len() == count).then(|| v.to_vec()),
            (None, Default::All(d)) => Some(vec![d; count]),
            _ => None,
        }
    }

    /// The declaration of an attribute.
    pub fn attr(&self, name: &str) -> Option<&'static AttrDecl> {
        self.attrs.iter().find(|a| a.name == name)
    }

    /// The declaration that governs operand `index` (the last one also governs all that follow it when it is variadic).
    pub fn operand(&self, index: usize) -> Option<&'static OperandDecl> {
        match self.operands.get(index) {
            Some(o) => Some(o),
            None => self.operands.last().filter(|o| o.arity == Arity::Variadic),
        }
    }

    /// The declaration that governs result `index`.
    pub fn result(&self, index: usize) -> Option<&'static ResultDecl> {
        match self.results.get(index) {
            Some(r) => Some(r),
            None => self.results.last().filter(|r| r.arity == Arity::Variadic),
        }
    }
}

/// How often an operand or result occurs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arity {
    /// Always there.
    One,
    /// May be absent.
    Optional,
    /// Any number, including none.
    Variadic,
}

/// What an operand or result means to quantisation. Placement and grid classes are computed from this alone.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum QRole {
    /// Not a quantisable tensor: indices, masks, shapes, scales.
    None,
    /// As an operand: data that the operation reads on the grid of its producer. It wants a quantiser.
    Data,
    /// As an operand: a weight, quantised on its own grid where it is constant; data where it is not.
    Weight,
    /// As an operand: a bias, quantised to the product of the grids of data and weight.
    Bias,
    /// Shares one grid with every other operand and result marked `Same` of this operation: the operation moves
    /// or selects values and makes no new ones.
    Same,
    /// As a result: a new grid of its own.
    Own,
    /// As a result: a grid that the operation dictates (scale, zero point), as softmax's 1/256.
    Fixed(f32, i64),
    /// Read in float on every target: no grid (statistics, normalisation parameters).
    Float,
}

/// An operand.
#[derive(Clone, Copy, Debug)]
pub struct OperandDecl {
    /// Its name in the reference and in axis rules.
    pub name: &'static str,
    /// How often it occurs.
    pub arity: Arity,
    /// What it means to quantisation.
    pub role: QRole,
    /// Whether a constant here is learned by training (decides `param` or `const` at import).
    pub learned: bool,
}

impl OperandDecl {
    /// An operand that is always there.
    pub const fn one(name: &'static str, role: QRole) -> Self {
        Self { name, arity: Arity::One, role, learned: false }
    }
    /// An operand that may be absent.
    pub const fn optional(name: &'static str, role: QRole) -> Self {
        Self { name, arity: Arity::Optional, role, learned: false }
    }
    /// An operand that occurs any number of times.
    pub const fn variadic(name: &'static str, role: QRole) -> Self {
        Self { name, arity: Arity::Variadic, role, learned: false }
    }
    /// The same operand, learned.
    pub const fn learned(mut self) -> Self {
        self.learned = true;
        self
    }
}

/// A result.
#[derive(Clone, Copy, Debug)]
pub struct ResultDecl {
    /// Its name in the reference and in axis rules.
    pub name: &'static str,
    /// How often it occurs.
    pub arity: Arity,
    /// What it means to quantisation.
    pub role: QRole,
}

impl ResultDecl {
    /// A result that is always there.
    pub const fn one(name: &'static str, role: QRole) -> Self {
        Self { name, arity: Arity::One, role }
    }
    /// A result that may be unused and then absent.
    pub const fn optional(name: &'static str, role: QRole) -> Self {
        Self { name, arity: Arity::Optional, role }
    }
    /// Any number of results.
    pub const fn variadic(name: &'static str, role: QRole) -> Self {
        Self { name, arity: Arity::Variadic, role }
    }
}

/// The type of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum AttrKind {
    Int,
    Float,
    Bool,
    Str,
    /// One of the listed words.
    Enum(&'static [&'static str]),
    Ints,
    Floats,
    Strs,
    Elem,
    /// A list of extents; `Ints` values are accepted and stored as extents.
    Dims,
    Tensor,
}

impl AttrKind {
    /// Whether a value is of this kind.
    pub fn accepts(self, value: &Attr) -> bool {
        match (self, value) {
            (AttrKind::Int, Attr::Int(_))
            | (AttrKind::Float, Attr::Float(_))
            | (AttrKind::Bool, Attr::Bool(_))
            | (AttrKind::Str, Attr::Str(_))
            | (AttrKind::Ints, Attr::Ints(_))
            | (AttrKind::Floats, Attr::Floats(_))
            | (AttrKind::Strs, Attr::Strs(_))
            | (AttrKind::Elem, Attr::Elem(_))
            | (AttrKind::Dims, Attr::Dims(_))
            | (AttrKind::Tensor, Attr::Tensor(_)) => true,
            (AttrKind::Enum(words), Attr::Str(s)) => words.contains(&&**s),
            _ => false,
        }
    }
}

/// The value that an absent attribute stands for.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Default {
    /// Must be given.
    Required,
    /// Absent has a meaning of its own.
    Absent,
    Int(i64),
    Float(f32),
    Bool(bool),
    /// Text or an enumerated word.
    Word(&'static str),
    /// A list of whatever length whose elements all are this number (`strides`, `pads`).
    All(i64),
    Elem(ElemType),
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub struct AttrDecl {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: AttrKind,
    /// What its absence means.
    pub default: Default,
}

impl AttrDecl {
    /// An attribute with a default.
    pub const fn new(name: &'static str, kind: AttrKind, default: Default) -> Self {
        Self { name, kind, default }
    }

    /// Whether `value` says no more than its absence would.
    pub fn is_default(&self, value: &Attr) -> bool {
        match (self.default, value) {
            (Default::Int(d), Attr::Int(v)) => d == *v,
            (Default::Float(d), Attr::Float(v)) => d.to_bits() == v.0.to_bits(),
            (Default::Bool(d), Attr::Bool(v)) => d == *v,
            (Default::Word(d), Attr::Str(v)) => d == &**v,
            (Default::All(d), Attr::Ints(v)) => v.iter().all(|x| *x == d),
            (Default::Elem(d), Attr::Elem(v)) => d == *v,
            _ => false,
        }
    }
}

/// How many regions an operation carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regions {
    /// None.
    None,
    /// Exactly these, named as ONNX names the attributes.
    Named(&'static [&'static str]),
    /// Whatever the source had (opaque operations).
    Any,
}

/// What passes may assume of an operation: a set of flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traits(u32);

impl Traits {
    /// Equal operands and attributes give equal results; may be merged, moved and removed.
    pub const PURE: Traits = Traits(1);
    /// The first two operands may be swapped.
    pub const COMMUTATIVE: Traits = Traits(1 << 1);
    /// Each element of the result depends only on the elements at its place (after broadcasting).
    pub const ELEMENTWISE: Traits = Traits(1 << 2);
    /// Its derivative is not that of what it computes (straight-through estimators).
    pub const CUSTOM_GRAD: Traits = Traits(1 << 3);
    /// A fake-quantiser, its frozen form, or the step to integers: fills the quantiser slot of its operand.
    pub const QUANTISER: Traits = Traits(1 << 4);
    /// A mask: fills the mask slot of its operand.
    pub const MASK: Traits = Traits(1 << 5);
    /// Computes on integers with scales: the deployed form.
    pub const INTEGER: Traits = Traits(1 << 6);
    /// Draws random numbers, or must not be merged for another reason: not pure.
    pub const RANDOM: Traits = Traits(1 << 7);
    /// Applying it twice equals applying it once.
    pub const IDEMPOTENT: Traits = Traits(1 << 8);
    /// Moves or renames data and computes nothing; padding with a constant counts.
    pub const MOVES: Traits = Traits(1 << 9);
    /// Monotone non-decreasing in each element: commutes with max pooling and sorting.
    pub const MONOTONE: Traits = Traits(1 << 10);
    /// Nothing may be assumed.
    pub const NONE: Traits = Traits(0);

    /// Every flag with its name, for the reference and for rule conditions.
    pub const NAMES: &[(&str, Traits)] = &[
        ("pure", Traits::PURE),
        ("commutative", Traits::COMMUTATIVE),
        ("elementwise", Traits::ELEMENTWISE),
        ("custom_grad", Traits::CUSTOM_GRAD),
        ("quantiser", Traits::QUANTISER),
        ("mask", Traits::MASK),
        ("integer", Traits::INTEGER),
        ("random", Traits::RANDOM),
        ("idempotent", Traits::IDEMPOTENT),
        ("moves", Traits::MOVES),
        ("monotone", Traits::MONOTONE),
    ];

    /// Both sets together.
    pub const fn and(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    /// Whether all flags of `other` are set.
    pub const fn has(self, other: Traits) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How the axes of an operation's tensors are tied (reference: pruning-groups 1, 2 and 10).
#[derive(Clone, Copy, Debug)]
pub enum AxisRule {
    /// Nothing is understood: every axis is pinned.
    Opaque,
    /// A list of clauses in the axis language: `x.1 ~ w.1 sum; w.0 = b.0 = y.1; x.0 = y.0 parallel; x.2.. fixed`.
    /// Grammar and meaning: [`crate::ops::axis_rule`].
    Clauses(&'static str),
    /// All axes of all operands and results are tied after broadcasting.
    Elementwise,
    /// The coupling depends on shapes or attributes.
    Function(AxisFunction),
}

/// How an operator appears in ONNX.
#[derive(Clone, Copy, Debug)]
pub struct OnnxDecl {
    /// Domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// Operator type.
    pub name: &'static str,
    /// Its forms by opset version, ascending. Each is valid until the next one's `since`.
    pub forms: &'static [OnnxForm],
}

impl OnnxDecl {
    /// The form in force at an opset version, unless that version is not covered.
    pub fn form(&self, version: i64) -> Option<&'static OnnxForm> {
        self.forms.iter().rev().find(|f| f.since <= version).filter(|f| f.covered)
    }
}

/// The form of an operator from one opset version on. An attribute of ours that the form does not mention can
/// only be written at its default; otherwise the operation does not exist in this opset version.
#[derive(Clone, Copy, Debug)]
pub struct OnnxForm {
    /// First opset version.
    pub since: i64,
    /// Whether we read and write this version; if not it is opaque.
    pub covered: bool,
    /// ONNX's inputs in order.
    pub inputs: &'static [OnnxInput],
    /// ONNX's attributes.
    pub attrs: &'static [OnnxAttr],
}

/// An input of the ONNX form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OnnxInput {
    /// Our operand of this name (variadic when declared so).
    Operand(&'static str),
    /// Our attribute of this name: a constant at import (else the operation is opaque), a constant again at export.
    Attr(&'static str),
    /// As `Attr`, a scalar rather than a vector. A float attribute is written with the element type of the first operand.
    ScalarAttr(&'static str),
    /// As `ScalarAttr`, but it matters to training alone: where it is no constant it is dropped.
    Hint(&'static str),
    /// Must be absent, or a constant of this value, or the operation is opaque; never written.
    /// [`Default::Absent`] allows absence only.
    Fixed(Default),
    /// Has no meaning for inference; dropped, never written.
    Ignored,
}

/// An attribute of the ONNX form. The kind of our attribute says how ONNX's value is read: a bool is ONNX's
/// integer 0 or 1, an element type is the number of ONNX's `DataType` (0, "undefined", is absence), a word is a string.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OnnxAttr {
    /// Same meaning, and absence means the same: (ONNX's name, ours).
    Same(&'static str, &'static str),
    /// As `Same`, but ONNX's default differs from ours: an absent attribute means this.
    Defaulting(&'static str, &'static str, Default),
    /// Must have this value or be absent, or the operation is opaque; not written. [`Default::Absent`] allows absence only.
    Fixed(&'static str, Default),
    /// Must be there with this value, or the operation is opaque; always written (ONNX's default is another one).
    Demanded(&'static str, Default),
    /// ONNX's form has no such attribute and always behaves as if ours had this value: (ours, value). Set when read;
    /// an operation whose attribute has another value cannot be written in this form.
    Implied(&'static str, Default),
    /// The extents of our operand after its first two, as `kernel_shape` repeats those of the weight: (ONNX's name,
    /// our operand). Must agree with them when read; written from them.
    SpatialOf(&'static str, &'static str),
    /// The number of results: (ONNX's name, ours). Written only where our attribute of that name is absent.
    ResultCount(&'static str, &'static str),
    /// Has no meaning for inference; dropped.
    Ignored(&'static str),
}

/// The highest opset version whose forms were checked.
pub const MAX_OPSET: i64 = 27;

/// A form that takes our operands and attributes under their own names.
pub const fn form(since: i64, inputs: &'static [OnnxInput], attrs: &'static [OnnxAttr]) -> OnnxForm {
    OnnxForm { since, covered: true, inputs, attrs }
}

/// From this version on the operator is not covered.
pub const fn uncovered(since: i64) -> OnnxForm {
    OnnxForm { since, covered: false, inputs: &[], attrs: &[] }
}
