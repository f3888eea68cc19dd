//! What an evaluation function sees: operands, attributes with their declared defaults, and the settings of the run.

use crate::arith::{Arithmetic, NotAPowerOfTwo};
use crate::evaluator::Precision;
use crate::exec::ExecError;
use crate::tensor::{Storage, Tensor, TensorError};
use gs_ir::registry::Default as AttrDefault;
use gs_ir::{Attr, AttrSet, Dim, ElemType, OpDecl, SymbolId, Type};
use std::cell::{Cell, RefCell};
use thiserror::Error;

/// Why an operation could not be evaluated.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum OpError {
    /// An operand that must be there is not.
    #[error("operand `{0}` is missing")]
    MissingOperand(&'static str),
    /// An attribute that must be there is not, or is of the wrong kind.
    #[error("attribute `{0}` is missing")]
    MissingAttr(String),
    /// The value of an attribute makes no sense.
    #[error("attribute `{name}`: {reason}")]
    Attr {
        /// The attribute.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operator is not defined for this element type.
    #[error("operand `{operand}` cannot be {found}")]
    Elem {
        /// The operand.
        operand: &'static str,
        /// Its element type.
        found: ElemType,
    },
    /// Two operands must be of one element type.
    #[error("operands are {0} and {1}, they must be of one type")]
    Mixed(ElemType, ElemType),
    /// An operand has the wrong number of axes.
    #[error("operand `{operand}` has {found} axes, {expected} are needed")]
    Rank {
        /// The operand.
        operand: &'static str,
        /// Its axes.
        found: usize,
        /// Axes needed (at least).
        expected: usize,
    },
    /// Extents of two tensors (or of a tensor and what is asked of it) do not fit.
    #[error("{what}: {left:?} and {right:?} do not fit")]
    Extents {
        /// What was to fit.
        what: &'static str,
        /// One side.
        left: Vec<usize>,
        /// The other side.
        right: Vec<usize>,
    },
    /// An axis outside the tensor.
    #[error("axis {axis} is outside a tensor of rank {rank}")]
    Axis {
        /// The axis.
        axis: i64,
        /// Axes of the tensor.
        rank: usize,
    },
    /// An index outside the axis.
    #[error("index {index} is outside an axis of extent {extent}")]
    Index {
        /// The index.
        index: i64,
        /// Extent of the axis.
        extent: usize,
    },
    /// A result would be larger than the evaluator's limit.
    #[error("a tensor of extents {0:?} is larger than the limit")]
    TooLarge(Vec<usize>),
    /// The run would take more steps than the evaluator's limit.
    #[error("the run takes more steps than the limit")]
    TooMuchWork,
    /// A dimension in an attribute has no value in this run.
    #[error("attribute `{0}` has a dimension that no input determines")]
    Unbound(&'static str),
    /// The target's arithmetic asks for scales whose ratio is a power of two.
    #[error("the ratio of scales {0} is no power of two")]
    Ratio(f64),
    /// A result cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Something in a region failed.
    #[error("in a region: {0}")]
    Region(Box<ExecError>),
    /// What only the function of this operator knows.
    #[error("{0}")]
    Other(String),
}

impl From<NotAPowerOfTwo> for OpError {
    fn from(e: NotAPowerOfTwo) -> Self {
        OpError::Ratio(e.0)
    }
}

/// Runs region number `n` on these inputs.
pub type RunRegion<'a> = dyn FnMut(usize, Vec<Tensor>) -> Result<Vec<Tensor>, ExecError> + 'a;

/// Limits of a run, counted down.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Most elements that a tensor may have.
    pub(crate) elements: usize,
    /// Steps left.
    pub(crate) steps: Cell<u64>,
}

impl Budget {
    /// Checks the extents of a tensor against the limit.
    pub(crate) fn check(&self, dims: &[usize]) -> Result<(), OpError> {
        match crate::tensor::volume(dims) {
            Some(n) if n <= self.elements => Ok(()),
            _ => Err(OpError::TooLarge(dims.to_vec())),
        }
    }
}

/// One operation with its operands, about to be evaluated.
pub struct OpCtx<'a> {
    /// The operator.
    pub decl: &'a OpDecl,
    /// The attributes, in normal form.
    pub attrs: &'a AttrSet,
    /// One entry per operand place; `None` where it is absent.
    pub operands: &'a [Option<Tensor>],
    /// How many results the operation has.
    pub result_count: usize,
    /// The declared type of each result; [`Type::Any`] where nothing is known.
    pub result_types: &'a [Type],
    /// In which precision floats are computed.
    pub precision: Precision,
    /// The arithmetic of integer operators.
    pub arithmetic: &'a Arithmetic,
    pub(crate) budget: &'a Budget,
    pub(crate) symbols: &'a dyn Fn(SymbolId) -> Option<i64>,
    pub(crate) regions: RefCell<&'a mut RunRegion<'a>>,
}

impl OpCtx<'_> {
    fn name_of(&self, index: usize) -> &'static str {
        self.decl.operand(index).map_or("?", |o| o.name)
    }

    /// An operand that must be there.
    ///
    /// # Errors
    /// Where it is absent.
    pub fn operand(&self, index: usize) -> Result<&Tensor, OpError> {
        self.optional(index).ok_or_else(|| OpError::MissingOperand(self.name_of(index)))
    }

    /// An operand that may be absent.
    pub fn optional(&self, index: usize) -> Option<&Tensor> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// The complaint that an operand has an element type for which the operator is not defined.
    pub fn wrong_elem(&self, index: usize) -> OpError {
        let found = self.optional(index).map_or(ElemType::F32, Tensor::elem);
        OpError::Elem { operand: self.name_of(index), found }
    }

    /// An operand as f64 numbers.
    ///
    /// # Errors
    /// Where it is absent or holds no numbers.
    pub fn floats(&self, index: usize) -> Result<Vec<f64>, OpError> {
        self.operand(index)?.to_f64s().ok_or_else(|| self.wrong_elem(index))
    }

    /// An operand as whole numbers.
    ///
    /// # Errors
    /// Where it is absent or holds no integers.
    pub fn integers(&self, index: usize) -> Result<Vec<i64>, OpError> {
        let wide = self.operand(index)?.to_ints().ok_or_else(|| self.wrong_elem(index))?;
        wide.into_iter().map(|x| i64::try_from(x).map_err(|_| self.wrong_elem(index))).collect()
    }

    /// An operand of one element as f32 (scales).
    ///
    /// # Errors
    /// Where it is absent, no number, or has not one element.
    pub fn scalar(&self, index: usize) -> Result<f32, OpError> {
        match self.floats(index)?.as_slice() {
            [x] => Ok(*x as f32),
            _ => Err(self.not_one(index)),
        }
    }

    /// An operand of one element as a whole number (zero points); 0 where it is absent.
    ///
    /// # Errors
    /// Where it is no integer, or has not one element.
    pub fn int_scalar_or_zero(&self, index: usize) -> Result<i64, OpError> {
        if self.optional(index).is_none() {
            return Ok(0);
        }
        match self.integers(index)?.as_slice() {
            [x] => Ok(*x),
            _ => Err(self.not_one(index)),
        }
    }

    fn not_one(&self, index: usize) -> OpError {
        let left = self.optional(index).map_or_else(Vec::new, |t| t.dims().to_vec());
        OpError::Extents { what: "one element is needed", left, right: vec![1] }
    }

    /// The complaint that an operand has too few axes.
    ///
    /// # Errors
    /// Where it has.
    pub fn need_rank(&self, index: usize, expected: usize) -> Result<(), OpError> {
        let found = self.operand(index)?.rank();
        let operand = self.name_of(index);
        if found < expected { Err(OpError::Rank { operand, found, expected }) } else { Ok(()) }
    }

    // ---- attributes: the value given, else the declared default ----

    fn default(&self, name: &str) -> Option<AttrDefault> {
        self.decl.attr(name).map(|a| a.default)
    }

    /// A whole number.
    ///
    /// # Errors
    /// Where it is absent and has no default.
    pub fn int(&self, name: &str) -> Result<i64, OpError> {
        self.int_if(name).ok_or_else(|| OpError::MissingAttr(name.to_owned()))
    }

    /// A whole number (a truth value counts), if given or with a default.
    pub fn int_if(&self, name: &str) -> Option<i64> {
        match (self.attrs.get(name), self.default(name)) {
            (Some(Attr::Int(v)), _) => Some(*v),
            (Some(Attr::Bool(v)), _) => Some(i64::from(*v)),
            (None, Some(AttrDefault::Int(v))) => Some(v),
            (None, Some(AttrDefault::Bool(v))) => Some(i64::from(v)),
            _ => None,
        }
    }

    /// A truth value (a whole number counts); false where it is absent without a default.
    pub fn flag(&self, name: &str) -> bool {
        self.int_if(name).is_some_and(|v| v != 0)
    }

    /// A float, if given or with a default.
    pub fn float_if(&self, name: &str) -> Option<f32> {
        match (self.attrs.get(name), self.default(name)) {
            (Some(Attr::Float(v)), _) => Some(v.0),
            (None, Some(AttrDefault::Float(v))) => Some(v),
            _ => None,
        }
    }

    /// A float.
    ///
    /// # Errors
    /// Where it is absent and has no default.
    pub fn float(&self, name: &str) -> Result<f32, OpError> {
        self.float_if(name).ok_or_else(|| OpError::MissingAttr(name.to_owned()))
    }

    /// A word, if given or with a default.
    pub fn word(&self, name: &str) -> Option<&str> {
        match (self.attrs.get(name), self.default(name)) {
            (Some(Attr::Str(v)), _) => Some(v),
            (None, Some(AttrDefault::Word(v))) => Some(v),
            _ => None,
        }
    }

    /// A list of whole numbers, if given.
    pub fn ints_if(&self, name: &str) -> Option<&[i64]> {
        self.attrs.ints(name)
    }

    /// A list of `count` whole numbers: as given, else the default everywhere.
    ///
    /// # Errors
    /// Where it has another length, or is absent without a default.
    pub fn ints(&self, name: &'static str, count: usize) -> Result<Vec<i64>, OpError> {
        match (self.attrs.ints(name), self.default(name)) {
            (Some(v), _) if v.len() == count => Ok(v.to_vec()),
            (Some(v), _) => Err(OpError::Extents {
                what: "length of an attribute",
                left: vec![v.len()],
                right: vec![count],
            }),
            (None, Some(AttrDefault::All(d))) => Ok(vec![d; count]),
            _ => Err(OpError::MissingAttr(name.to_owned())),
        }
    }

    /// A list of extents with the values that its symbols have in this run, if given.
    ///
    /// # Errors
    /// Where a symbol has no value.
    pub fn dims_if(&self, name: &'static str) -> Result<Option<Vec<i64>>, OpError> {
        let value = |d: &Dim| d.eval(self.symbols).ok_or(OpError::Unbound(name));
        match self.attrs.get(name) {
            Some(Attr::Dims(d)) => Ok(Some(d.iter().map(value).collect::<Result<_, _>>()?)),
            Some(Attr::Ints(v)) => Ok(Some(v.to_vec())),
            _ => Ok(None),
        }
    }

    /// A constant tensor, if given.
    ///
    /// # Errors
    /// Where its extents and contents do not fit each other.
    pub fn tensor_if(&self, name: &str) -> Result<Option<Tensor>, OpError> {
        match self.attrs.get(name) {
            Some(Attr::Tensor(t)) => Ok(Some(self.precision.adapt(&Tensor::from_literal(t)?))),
            _ => Ok(None),
        }
    }

    /// An axis that may count from the end, as a position.
    ///
    /// # Errors
    /// Where it is outside a tensor of this rank.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, OpError> {
        normal_axis(axis, rank)
    }

    // ---- results ----

    /// The element type in which values of a declared type are computed in this run.
    pub fn elem(&self, declared: ElemType) -> ElemType {
        self.precision.elem(declared)
    }

    /// Checks extents of a result against the limits and gives the number of elements. An empty tensor counts as if its
    /// empty axes had one element, so that the product of any of the extents stays within the limit.
    ///
    /// # Errors
    /// Where the result is too large.
    pub fn allot(&self, dims: &[usize]) -> Result<usize, OpError> {
        self.budget.check(dims)?;
        let n = crate::tensor::count(dims).unwrap_or(0);
        self.work(n as u128)?;
        Ok(n)
    }

    /// Accounts for steps of work before they are done.
    ///
    /// # Errors
    /// Where the run has none left.
    pub fn work(&self, steps: u128) -> Result<(), OpError> {
        let left = u64::try_from(steps).ok().and_then(|s| self.budget.steps.get().checked_sub(s));
        self.budget.steps.set(left.ok_or(OpError::TooMuchWork)?);
        Ok(())
    }

    /// A result of numbers, rounded to the element type.
    ///
    /// # Errors
    /// Where extents and numbers do not fit.
    pub fn make(
        &self,
        elem: ElemType,
        dims: impl Into<Vec<usize>>,
        values: &[f64],
    ) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::from_f64s(elem, dims, values)?])
    }

    /// A result picked element by element from an operand.
    ///
    /// # Errors
    /// Where extents and places do not fit.
    pub fn picked(&self, from: &Tensor, dims: Vec<usize>, places: &[usize]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::new(from.elem(), dims, from.storage().pick(places))?])
    }

    /// An empty tensor of the declared type of a result: the first axis has no extent, nor has any that is not known.
    pub fn declared_empty(&self, index: usize) -> Tensor {
        let declared = self.result_types.get(index).and_then(Type::as_tensor);
        let elem = self.elem(declared.map_or(ElemType::F32, |t| t.elem));
        let rest = declared.and_then(|t| t.dims()).and_then(|d| d.get(1..)).unwrap_or(&[]);
        let extent = |d: &Dim| d.eval(self.symbols).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let dims: Vec<usize> = std::iter::once(0).chain(rest.iter().map(extent)).collect();
        Tensor::new(elem, dims, Storage::empty(elem)).unwrap_or_else(|_| Tensor::empty(elem))
    }

    /// Runs one of the operation's regions.
    ///
    /// # Errors
    /// Where something in it fails.
    pub fn run_region(&self, index: usize, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        self.work(1)?;
        let run = &mut *self.regions.borrow_mut();
        run(index, inputs).map_err(|e| OpError::Region(Box::new(e)))
    }
}

/// An axis that may count from the end, as a position.
pub(crate) fn normal_axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let r = i64::try_from(rank).unwrap_or(i64::MAX);
    match axis {
        a if (0..r).contains(&a) => Ok(a as usize),
        a if (-r..0).contains(&a) => Ok((a + r) as usize),
        _ => Err(OpError::Axis { axis, rank }),
    }
}

/// Integer codes as elements of a quantised type.
pub(crate) fn codes_tensor(
    elem: ElemType,
    dims: impl Into<Vec<usize>>,
    codes: &[i64],
) -> Result<Tensor, OpError> {
    let storage = match Storage::empty(elem) {
        Storage::U8(_) => Storage::U8(codes.iter().map(|&c| c as u8).collect()),
        Storage::I8(_) => Storage::I8(codes.iter().map(|&c| c as i8).collect()),
        Storage::I32(_) => Storage::I32(codes.iter().map(|&c| c as i32).collect()),
        _ => {
            let wide: Vec<i128> = codes.iter().map(|&c| i128::from(c)).collect();
            return Ok(Tensor::from_ints(elem, dims, &wide)?);
        }
    };
    Ok(Tensor::new(elem, dims, storage)?)
}
