//! Attributes: what an operation knows statically. Sets are interned, sorted by name, in normal form
//! (an attribute at its default is absent), and compare floats by bits.

use crate::dim::Dim;
use crate::elem::ElemType;
use bytes::Bytes;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A float that compares and hashes by its bits, so that NaN equals itself and -0.0 differs from 0.0.
#[derive(Clone, Copy, Debug)]
pub struct FloatBits(pub f32);

impl PartialEq for FloatBits {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for FloatBits {}
impl Hash for FloatBits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The contents of a tensor: elements packed little-endian and row-major (below 8 bits: low bits first,
/// as in ONNX), or strings.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TensorData {
    /// Packed elements; shared, possibly a slice of a mapped file.
    Bytes(Bytes),
    /// Strings, one per element.
    Strings(Arc<[Bytes]>),
}

impl TensorData {
    /// The packed elements, where these are not strings.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            TensorData::Bytes(b) => Some(b),
            TensorData::Strings(_) => None,
        }
    }
}

/// A constant tensor with its type.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Literal {
    /// Type of the elements.
    pub elem: ElemType,
    /// The extents.
    pub dims: Vec<i64>,
    /// The contents; [`Literal::check`] says whether they fit.
    pub data: TensorData,
}

impl Literal {
    /// A tensor of the given packed contents.
    pub fn new(elem: ElemType, dims: impl Into<Vec<i64>>, bytes: impl Into<Bytes>) -> Self {
        Self { elem, dims: dims.into(), data: TensorData::Bytes(bytes.into()) }
    }

    /// A tensor of f32 values.
    pub fn f32s(dims: impl Into<Vec<i64>>, values: &[f32]) -> Self {
        Self::new(ElemType::F32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// A tensor of i64 values.
    pub fn i64s(dims: impl Into<Vec<i64>>, values: &[i64]) -> Self {
        Self::new(ElemType::I64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// A scalar f32.
    pub fn f32(value: f32) -> Self {
        Self::f32s([], &[value])
    }

    /// Number of elements, where it fits.
    pub fn count(&self) -> Option<usize> {
        self.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
    }

    /// Whether extents and contents fit each other.
    pub fn check(&self) -> bool {
        match (&self.data, self.count()) {
            (_, None) => false,
            (TensorData::Bytes(b), Some(n)) => self.elem.bytes_for(n) == Some(b.len()),
            (TensorData::Strings(s), Some(n)) => self.elem == ElemType::Str && s.len() == n,
        }
    }
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Attr {
    /// A whole number.
    Int(i64),
    /// A float, compared by bits.
    Float(FloatBits),
    /// A truth value.
    Bool(bool),
    /// Text; names of enumerated choices too.
    Str(Arc<str>),
    /// Raw bytes, as ONNX allows in its string attributes.
    Bytes(Bytes),
    /// Whole numbers.
    Ints(Arc<[i64]>),
    /// Floats.
    Floats(Arc<[FloatBits]>),
    /// Texts (raw bytes where they are no UTF-8).
    Strs(Arc<[Bytes]>),
    /// An element type.
    Elem(ElemType),
    /// Extents, with symbols.
    Dims(Arc<[Dim]>),
    /// A small constant tensor.
    Tensor(Arc<Literal>),
    /// A construct of another format kept as it was: its tag there and its bytes.
    Raw(Arc<str>, Bytes),
}

impl Attr {
    /// A text attribute.
    pub fn str(s: &str) -> Self {
        Attr::Str(Arc::from(s))
    }
    /// A list of whole numbers.
    pub fn ints(v: &[i64]) -> Self {
        Attr::Ints(Arc::from(v))
    }
    /// A float.
    pub fn float(v: f32) -> Self {
        Attr::Float(FloatBits(v))
    }
    /// A list of extents.
    pub fn dims(v: impl IntoIterator<Item = Dim>) -> Self {
        Attr::Dims(v.into_iter().collect())
    }
    /// What kind of value this is, in words for diagnostics.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Attr::Int(_) => "an integer",
            Attr::Float(_) => "a float",
            Attr::Bool(_) => "a bool",
            Attr::Str(_) => "a string",
            Attr::Bytes(_) => "bytes",
            Attr::Ints(_) => "a list of integers",
            Attr::Floats(_) => "a list of floats",
            Attr::Strs(_) => "a list of strings",
            Attr::Elem(_) => "an element type",
            Attr::Dims(_) => "a list of dimensions",
            Attr::Tensor(_) => "a tensor",
            Attr::Raw(..) => "a raw construct",
        }
    }
}

/// A set of attributes, sorted by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct AttrSet {
    items: Vec<(Arc<str>, Attr)>,
}

impl AttrSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The attribute of this name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.find(name).ok().map(|i| &self.items[i].1)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.items.binary_search_by(|(n, _)| (**n).cmp(name))
    }

    /// Sets an attribute, replacing one of the same name.
    pub fn set(&mut self, name: &str, value: Attr) {
        match self.find(name) {
            Ok(i) => self.items[i].1 = value,
            Err(i) => self.items.insert(i, (Arc::from(name), value)),
        }
    }

    /// The set with an attribute added.
    pub fn with(mut self, name: &str, value: Attr) -> Self {
        self.set(name, value);
        self
    }

    /// Removes an attribute and gives its value.
    pub fn remove(&mut self, name: &str) -> Option<Attr> {
        self.find(name).ok().map(|i| self.items.remove(i).1)
    }

    /// All attributes, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.items.iter().map(|(n, a)| (&**n, a))
    }

    /// Number of attributes.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A whole number, or `default` where it is absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => default,
        }
    }

    /// A float, or `default` where it is absent.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.get(name) {
            Some(Attr::Float(v)) => v.0,
            _ => default,
        }
    }

    /// A truth value, or `default` where it is absent.
    pub fn bool(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            Some(Attr::Bool(v)) => *v,
            _ => default,
        }
    }

    /// A text, where it is present.
    pub fn str(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Attr::Str(v)) => Some(v),
            _ => None,
        }
    }

    /// A list of whole numbers, where it is present.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.get(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A list of extents, where it is present.
    pub fn dims(&self, name: &str) -> Option<&[Dim]> {
        match self.get(name) {
            Some(Attr::Dims(v)) => Some(v),
            _ => None,
        }
    }

    /// An element type, where it is present.
    pub fn elem(&self, name: &str) -> Option<ElemType> {
        match self.get(name) {
            Some(Attr::Elem(v)) => Some(*v),
            _ => None,
        }
    }
}

impl<'a> FromIterator<(&'a str, Attr)> for AttrSet {
    fn from_iter<I: IntoIterator<Item = (&'a str, Attr)>>(iter: I) -> Self {
        let mut set = AttrSet::new();
        for (n, a) in iter {
            set.set(n, a);
        }
        set
    }
}
