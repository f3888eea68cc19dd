//! Types of values: tensors with symbolic shapes, and ONNX's containers of them.

use crate::dim::Dim;
use crate::elem::ElemType;
use crate::entity::SymbolId;
use smallvec::SmallVec;

/// The extents of a tensor, outermost first.
pub type Shape = SmallVec<[Dim; 4]>;

/// The type of a tensor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TensorType {
    /// Type of the elements.
    pub elem: ElemType,
    /// The extents; `None` where even the rank is unknown.
    pub shape: Option<Shape>,
}

/// The type of a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Type {
    /// A tensor.
    Tensor(TensorType),
    /// A sequence of values of one type.
    Sequence(Box<Type>),
    /// A value that may be absent.
    Optional(Box<Type>),
    /// A map from a key type to a value type.
    Map(ElemType, Box<Type>),
    /// A sparse tensor.
    Sparse(TensorType),
    /// Nothing is known, as for the results of an operation that nobody declared.
    Any,
}

impl TensorType {
    /// A tensor of known shape.
    pub fn new(elem: ElemType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Self { elem, shape: Some(shape.into_iter().collect()) }
    }

    /// A tensor of which only the element type is known.
    pub fn unranked(elem: ElemType) -> Self {
        Self { elem, shape: None }
    }

    /// A tensor whose extents are all numbers.
    pub fn fixed(elem: ElemType, dims: &[i64]) -> Self {
        Self::new(elem, dims.iter().map(|&d| Dim::Const(d)))
    }

    /// The extents, where the rank is known.
    pub fn dims(&self) -> Option<&[Dim]> {
        self.shape.as_deref()
    }

    /// The rank, where it is known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(|s| s.len())
    }

    /// The extents as numbers, where all are.
    pub fn const_dims(&self) -> Option<Vec<i64>> {
        self.shape.as_ref()?.iter().map(Dim::as_const).collect()
    }

    /// Number of elements, where all extents are numbers and it fits.
    pub fn count(&self) -> Option<usize> {
        let dims = self.const_dims()?;
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
    }

    /// Bytes of the packed contents, where the shape is a number.
    pub fn bytes(&self) -> Option<usize> {
        self.elem.bytes_for(self.count()?)
    }
}

impl Type {
    /// A tensor of known shape.
    pub fn tensor(elem: ElemType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Type::Tensor(TensorType::new(elem, shape))
    }

    /// A tensor of which only the element type is known.
    pub fn unranked(elem: ElemType) -> Self {
        Type::Tensor(TensorType::unranked(elem))
    }

    /// A tensor whose extents are all numbers.
    pub fn fixed(elem: ElemType, dims: &[i64]) -> Self {
        Type::Tensor(TensorType::fixed(elem, dims))
    }

    /// The tensor type, where the value is a tensor.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The element type of a tensor.
    pub fn elem(&self) -> Option<ElemType> {
        self.as_tensor().map(|t| t.elem)
    }

    /// The extents of a tensor of known rank.
    pub fn dims(&self) -> Option<&[Dim]> {
        self.as_tensor().and_then(TensorType::dims)
    }
}

impl TensorType {
    /// The type as in text, for messages; `name` says what a symbol is called.
    pub fn words(&self, name: &dyn Fn(SymbolId) -> String) -> String {
        let elem = self.elem.name();
        match self.dims() {
            Some(dims) => {
                format!("{elem}[{}]", dims.iter().map(|d| d.words(name)).collect::<Vec<_>>().join(", "))
            }
            None => format!("{elem}[*]"),
        }
    }
}

impl Type {
    /// The type as in text, for messages; `name` says what a symbol is called.
    pub fn words(&self, name: &dyn Fn(SymbolId) -> String) -> String {
        let (mut ty, mut text, mut nesting) = (self, String::new(), 0);
        loop {
            let (opening, inner) = match ty {
                Type::Sequence(inner) => ("seq<".to_owned(), inner),
                Type::Optional(inner) => ("opt<".to_owned(), inner),
                Type::Map(key, inner) => (format!("map<{}, ", key.name()), inner),
                Type::Tensor(t) => break text += &t.words(name),
                Type::Sparse(t) => break text += &format!("sparse<{}>", t.words(name)),
                Type::Any => break text += "any",
            };
            text += &opening;
            nesting += 1;
            ty = inner;
        }
        text + &">".repeat(nesting)
    }
}

/// What is known of the elements of a small integer tensor of rank 0 or 1, as in a chain that computes
/// a shape. An element that is not known is [`Dim::Unknown`]. Recomputed by inference, never stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The elements, in order.
    pub elems: SmallVec<[Dim; 4]>,
    /// Whether the tensor has rank 0 (then there is one element).
    pub scalar: bool,
}

impl Known {
    /// More elements than this are not followed.
    pub const LIMIT: usize = 64;

    /// A vector of known elements.
    pub fn vector(elems: impl IntoIterator<Item = Dim>) -> Self {
        Self { elems: elems.into_iter().collect(), scalar: false }
    }

    /// A scalar.
    pub fn scalar(value: Dim) -> Self {
        Self { elems: [value].into_iter().collect(), scalar: true }
    }

    /// All elements as numbers.
    pub fn ints(&self) -> Option<Vec<i64>> {
        self.elems.iter().map(Dim::as_const).collect()
    }
}
