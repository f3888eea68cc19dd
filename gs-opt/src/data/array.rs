//! Arrays as they leave this module: a name, an element type, a shape and little-endian bytes.

use std::fmt;

/// Element types that data sets may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl DType {
    /// All of them, with the code that numpy writes after the sign of the byte order, and the name shown.
    const TABLE: [(DType, &'static str, &'static str); 12] = [
        (DType::Bool, "b1", "bool"),
        (DType::U8, "u1", "u8"),
        (DType::I8, "i1", "i8"),
        (DType::U16, "u2", "u16"),
        (DType::I16, "i2", "i16"),
        (DType::U32, "u4", "u32"),
        (DType::I32, "i4", "i32"),
        (DType::U64, "u8", "u64"),
        (DType::I64, "i8", "i64"),
        (DType::F16, "f2", "f16"),
        (DType::F32, "f4", "f32"),
        (DType::F64, "f8", "f64"),
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::I16 | DType::F16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 => 8,
        }
    }

    /// The type for a numpy code without byte order, such as `f4`.
    pub fn from_numpy(code: &str) -> Option<DType> {
        DType::TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// numpy's code without byte order, such as `f4`.
    pub fn numpy(self) -> &'static str {
        self.row().map_or("", |row| row.1)
    }

    /// All types.
    pub fn all() -> impl Iterator<Item = DType> {
        DType::TABLE.iter().map(|row| row.0)
    }

    /// The names of all types, for errors.
    pub(super) fn names() -> Vec<&'static str> {
        DType::TABLE.iter().map(|row| row.2).collect()
    }

    fn row(self) -> Option<&'static (DType, &'static str, &'static str)> {
        DType::TABLE.iter().find(|row| row.0 == self)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().map_or("", |row| row.2))
    }
}

/// An array in row-major order, its elements little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// The model input it is meant for; `None` means the only input.
    pub name: Option<String>,
    /// Element type.
    pub dtype: DType,
    /// Lengths of the axes; the first counts the items.
    pub shape: Vec<usize>,
    /// The elements; the product of the shape times the element size.
    pub bytes: Vec<u8>,
}

impl NamedArray {
    /// An array of `f32`.
    pub fn from_f32(name: Option<&str>, shape: Vec<usize>, values: &[f32]) -> NamedArray {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        NamedArray { name: name.map(str::to_owned), dtype: DType::F32, shape, bytes }
    }

    /// An array of `i64`, such as labels.
    pub fn from_i64(name: Option<&str>, shape: Vec<usize>, values: &[i64]) -> NamedArray {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        NamedArray { name: name.map(str::to_owned), dtype: DType::I64, shape, bytes }
    }

    /// The elements, if they are `f32`.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let (words, _) = self.bytes.as_chunks::<4>();
        (self.dtype == DType::F32).then(|| words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }
}

/// What one array of a data set looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayInfo {
    /// The model input it is meant for; `None` means the only input.
    pub name: Option<String>,
    /// Element type of the batches, after preprocessing.
    pub dtype: DType,
    /// Shape of one item, without the batch axis.
    pub item_shape: Vec<usize>,
}

/// Bytes of an array, unless that number does not fit. Lengths of zero do not excuse the others: the product of
/// any of the axes fits too.
pub(super) fn byte_size(dtype: DType, shape: &[usize]) -> Option<usize> {
    let product =
        shape.iter().try_fold(dtype.size(), |product, &length| product.checked_mul(length.max(1)))?;
    let bytes = if shape.contains(&0) { 0 } else { product };
    isize::try_from(product).ok().map(|_| bytes)
}
