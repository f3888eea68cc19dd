//! A tensor in memory: element type, extents and typed, unpacked elements.
//!
//! Elements are shared until they are written, so that moving a tensor about copies nothing. Types that the
//! processor does not have are kept in a wider one: floats below 32 bits as f32 on their grid, integers below
//! 8 bits as one byte each. See [`crate::packed`] for the dense bytes of files.

use crate::minifloat::round_to;
use bytes::Bytes;
use gs_ir::ElemType;
use std::sync::Arc;
use thiserror::Error;

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// `f64`.
    F64(Vec<f64>),
    /// `f32`, and every narrower float, rounded to its format.
    F32(Vec<f32>),
    /// `i64`.
    I64(Vec<i64>),
    /// `i32`.
    I32(Vec<i32>),
    /// `i16`.
    I16(Vec<i16>),
    /// `i8`, `i4`, `i2`.
    I8(Vec<i8>),
    /// `u64`.
    U64(Vec<u64>),
    /// `u32`.
    U32(Vec<u32>),
    /// `u16`.
    U16(Vec<u16>),
    /// `u8`, `u4`, `u2`, `u1`.
    U8(Vec<u8>),
    /// `bool`.
    Bool(Vec<bool>),
    /// Strings, as bytes.
    Str(Vec<Bytes>),
    /// `c64`: real and imaginary part.
    C64(Vec<[f32; 2]>),
    /// `c128`.
    C128(Vec<[f64; 2]>),
}

/// Runs one expression on the vector of whichever variant it is. A macro because the variants differ in type.
macro_rules! each {
    ($storage:expr, $v:ident => $body:expr) => {
        match $storage {
            Storage::F64($v) => $body,
            Storage::F32($v) => $body,
            Storage::I64($v) => $body,
            Storage::I32($v) => $body,
            Storage::I16($v) => $body,
            Storage::I8($v) => $body,
            Storage::U64($v) => $body,
            Storage::U32($v) => $body,
            Storage::U16($v) => $body,
            Storage::U8($v) => $body,
            Storage::Bool($v) => $body,
            Storage::Str($v) => $body,
            Storage::C64($v) => $body,
            Storage::C128($v) => $body,
        }
    };
}

/// As [`each!`], where the expression gives a vector of the same type, put back in the same variant.
macro_rules! each_same {
    ($storage:expr, $v:ident => $body:expr) => {
        match $storage {
            Storage::F64($v) => Storage::F64($body),
            Storage::F32($v) => Storage::F32($body),
            Storage::I64($v) => Storage::I64($body),
            Storage::I32($v) => Storage::I32($body),
            Storage::I16($v) => Storage::I16($body),
            Storage::I8($v) => Storage::I8($body),
            Storage::U64($v) => Storage::U64($body),
            Storage::U32($v) => Storage::U32($body),
            Storage::U16($v) => Storage::U16($body),
            Storage::U8($v) => Storage::U8($body),
            Storage::Bool($v) => Storage::Bool($body),
            Storage::Str($v) => Storage::Str($body),
            Storage::C64($v) => Storage::C64($body),
            Storage::C128($v) => Storage::C128($body),
        }
    };
}

/// Stands for "no element" in [`Storage::pick_or`].
pub(crate) const HOLE: usize = usize::MAX;

impl Storage {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether elements of this type are kept in this variant.
    pub fn fits(&self, elem: ElemType) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(&Storage::empty(elem))
    }

    /// No elements of a type.
    pub fn empty(elem: ElemType) -> Self {
        use ElemType::*;
        match elem {
            F64 => Storage::F64(Vec::new()),
            F32 | F16 | Bf16 | F8E4M3Fn | F8E4M3Fnuz | F8E5M2 | F8E5M2Fnuz | F8E8M0 | F4E2M1 => {
                Storage::F32(Vec::new())
            }
            I64 => Storage::I64(Vec::new()),
            I32 => Storage::I32(Vec::new()),
            I16 => Storage::I16(Vec::new()),
            I8 | I4 | I2 => Storage::I8(Vec::new()),
            U64 => Storage::U64(Vec::new()),
            U32 => Storage::U32(Vec::new()),
            U16 => Storage::U16(Vec::new()),
            U8 | U4 | U2 | U1 => Storage::U8(Vec::new()),
            Bool => Storage::Bool(Vec::new()),
            Str => Storage::Str(Vec::new()),
            C64 => Storage::C64(Vec::new()),
            C128 => Storage::C128(Vec::new()),
        }
    }

    /// The elements at these places. A place outside the tensor is skipped; callers pass places that they computed
    /// from its extents.
    pub fn pick(&self, places: &[usize]) -> Storage {
        each_same!(self, v => places.iter().filter_map(|&i| v.get(i).cloned()).collect())
    }

    /// As [`Self::pick`], with the first element of `fill` (same variant) where the place is [`HOLE`].
    pub(crate) fn pick_or(&self, places: &[usize], fill: &Storage) -> Storage {
        fn pick<T: Clone>(v: &[T], places: &[usize], fill: Option<&T>) -> Vec<T> {
            places.iter().filter_map(|&i| if i == HOLE { fill.cloned() } else { v.get(i).cloned() }).collect()
        }
        match (self, fill) {
            (Storage::F64(v), Storage::F64(f)) => Storage::F64(pick(v, places, f.first())),
            (Storage::F32(v), Storage::F32(f)) => Storage::F32(pick(v, places, f.first())),
            (Storage::I64(v), Storage::I64(f)) => Storage::I64(pick(v, places, f.first())),
            (Storage::I32(v), Storage::I32(f)) => Storage::I32(pick(v, places, f.first())),
            (Storage::I16(v), Storage::I16(f)) => Storage::I16(pick(v, places, f.first())),
            (Storage::I8(v), Storage::I8(f)) => Storage::I8(pick(v, places, f.first())),
            (Storage::U64(v), Storage::U64(f)) => Storage::U64(pick(v, places, f.first())),
            (Storage::U32(v), Storage::U32(f)) => Storage::U32(pick(v, places, f.first())),
            (Storage::U16(v), Storage::U16(f)) => Storage::U16(pick(v, places, f.first())),
            (Storage::U8(v), Storage::U8(f)) => Storage::U8(pick(v, places, f.first())),
            (Storage::Bool(v), Storage::Bool(f)) => Storage::Bool(pick(v, places, f.first())),
            (Storage::Str(v), Storage::Str(f)) => Storage::Str(pick(v, places, f.first())),
            (Storage::C64(v), Storage::C64(f)) => Storage::C64(pick(v, places, f.first())),
            (Storage::C128(v), Storage::C128(f)) => Storage::C128(pick(v, places, f.first())),
            _ => self.pick(places),
        }
    }

    /// Appends elements of the same variant; false where the variants differ.
    pub(crate) fn append(&mut self, other: &Storage) -> bool {
        match (self, other) {
            (Storage::F64(a), Storage::F64(b)) => a.extend_from_slice(b),
            (Storage::F32(a), Storage::F32(b)) => a.extend_from_slice(b),
            (Storage::I64(a), Storage::I64(b)) => a.extend_from_slice(b),
            (Storage::I32(a), Storage::I32(b)) => a.extend_from_slice(b),
            (Storage::I16(a), Storage::I16(b)) => a.extend_from_slice(b),
            (Storage::I8(a), Storage::I8(b)) => a.extend_from_slice(b),
            (Storage::U64(a), Storage::U64(b)) => a.extend_from_slice(b),
            (Storage::U32(a), Storage::U32(b)) => a.extend_from_slice(b),
            (Storage::U16(a), Storage::U16(b)) => a.extend_from_slice(b),
            (Storage::U8(a), Storage::U8(b)) => a.extend_from_slice(b),
            (Storage::Bool(a), Storage::Bool(b)) => a.extend_from_slice(b),
            (Storage::Str(a), Storage::Str(b)) => a.extend_from_slice(b),
            (Storage::C64(a), Storage::C64(b)) => a.extend_from_slice(b),
            (Storage::C128(a), Storage::C128(b)) => a.extend_from_slice(b),
            _ => return false,
        }
        true
    }

    /// The elements from `start` on, `count` of them (fewer at the end).
    pub(crate) fn section(&self, start: usize, count: usize) -> Storage {
        let end = start.saturating_add(count);
        each_same!(self, v => v.get(start.min(v.len())..end.min(v.len())).unwrap_or(&[]).to_vec())
    }

    /// The same storage with every element repeated `count` times in a row, for a splat of one.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(crate) fn repeat(&self, count: usize) -> Result<Storage, TensorError> {
        fn repeat<T: Clone>(v: &[T], count: usize) -> Result<Vec<T>, TensorError> {
            let mut out = room(v.len().saturating_mul(count))?;
            v.iter().for_each(|x| out.extend(std::iter::repeat_n(x.clone(), count)));
            Ok(out)
        }
        Ok(each_same!(self, v => repeat(v, count)?))
    }
}

/// Why something is no tensor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TensorError {
    /// Extents and contents do not fit each other.
    #[error("a tensor of extents {dims:?} does not have {found} elements")]
    Count {
        /// The extents.
        dims: Vec<usize>,
        /// Number of elements given.
        found: usize,
    },
    /// The elements are of another type than stated.
    #[error("elements of type {0} are not stored like this")]
    Elem(ElemType),
    /// An extent is negative, or the number of elements does not fit.
    #[error("extents {0:?} are no extents of a tensor")]
    Extents(Vec<i64>),
    /// The packed contents have the wrong length.
    #[error("{expected} bytes are needed, {found} are there")]
    Bytes {
        /// Bytes that type and extents ask for.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The system has no memory for so many elements.
    #[error("there is no memory for {0} elements")]
    Memory(usize),
}

/// An empty list with room for so many elements.
///
/// # Errors
/// Where there is no memory for them.
pub(crate) fn room<T>(count: usize) -> Result<Vec<T>, TensorError> {
    let mut out = Vec::new();
    out.try_reserve_exact(count).map_err(|_| TensorError::Memory(count))?;
    Ok(out)
}

/// Bytes that one element takes while it is computed with.
pub(crate) fn width(elem: ElemType) -> usize {
    fn of<T>(_: &[T]) -> usize {
        size_of::<T>()
    }
    each!(&Storage::empty(elem), v => of(v))
}

/// A tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    elem: ElemType,
    dims: Vec<usize>,
    storage: Arc<Storage>,
}

/// Number of elements of extents, where it fits.
pub fn count(dims: &[usize]) -> Option<usize> {
    // An empty axis makes the tensor empty, however large the others are.
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Number of elements if every empty axis had one, where it fits: what bounds the products of some of the extents.
pub(crate) fn volume(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))
}

impl Tensor {
    /// A tensor of these elements.
    ///
    /// # Errors
    /// Where type, extents and elements do not fit each other.
    pub fn new(elem: ElemType, dims: impl Into<Vec<usize>>, storage: Storage) -> Result<Self, TensorError> {
        let dims = dims.into();
        if !storage.fits(elem) {
            return Err(TensorError::Elem(elem));
        }
        if count(&dims) != Some(storage.len()) {
            return Err(TensorError::Count { dims, found: storage.len() });
        }
        Ok(Self { elem, dims, storage: Arc::new(storage) })
    }

    /// An f32 tensor.
    ///
    /// # Errors
    /// Where extents and elements do not fit each other.
    pub fn f32s(dims: impl Into<Vec<usize>>, values: impl Into<Vec<f32>>) -> Result<Self, TensorError> {
        Self::new(ElemType::F32, dims, Storage::F32(values.into()))
    }

    /// An i64 tensor.
    ///
    /// # Errors
    /// Where extents and elements do not fit each other.
    pub fn i64s(dims: impl Into<Vec<usize>>, values: impl Into<Vec<i64>>) -> Result<Self, TensorError> {
        Self::new(ElemType::I64, dims, Storage::I64(values.into()))
    }

    /// A scalar f32.
    pub fn scalar(value: f32) -> Self {
        Self { elem: ElemType::F32, dims: Vec::new(), storage: Arc::new(Storage::F32(vec![value])) }
    }

    /// An empty tensor of one axis.
    pub fn empty(elem: ElemType) -> Self {
        Self { elem, dims: vec![0], storage: Arc::new(Storage::empty(elem)) }
    }

    /// A tensor of numbers, each converted to the element type: floats rounded (see [`round_to`]), integers
    /// truncated towards zero and saturated, `bool` true where not zero. Strings and complex types are refused.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_f64s(
        elem: ElemType,
        dims: impl Into<Vec<usize>>,
        values: &[f64],
    ) -> Result<Self, TensorError> {
        let storage = match Storage::empty(elem) {
            Storage::F64(_) => Storage::F64(values.to_vec()),
            Storage::F32(_) if elem == ElemType::F32 => {
                Storage::F32(values.iter().map(|&x| x as f32).collect())
            }
            Storage::F32(_) => Storage::F32(values.iter().map(|&x| round_to(elem, x, false)).collect()),
            Storage::Bool(_) => Storage::Bool(values.iter().map(|&x| x != 0.0).collect()),
            Storage::U64(_) => Storage::U64(values.iter().map(|&x| x as u64).collect()),
            _ => {
                let (low, high) = elem.int_range().ok_or(TensorError::Elem(elem))?;
                let ints: Vec<i128> =
                    values.iter().map(|&x| i128::from((x as i64).clamp(low, high))).collect();
                return Self::from_ints(elem, dims, &ints);
            }
        };
        Self::new(elem, dims, storage)
    }

    /// A tensor of whole numbers, each wrapped to an integer element type (`bool`: not zero; floats: rounded).
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_ints(
        elem: ElemType,
        dims: impl Into<Vec<usize>>,
        values: &[i128],
    ) -> Result<Self, TensorError> {
        fn all<T>(values: &[i128], f: impl Fn(i128) -> T) -> Vec<T> {
            values.iter().map(|&x| f(x)).collect()
        }
        let bits = elem.bits();
        let storage = match Storage::empty(elem) {
            Storage::I64(_) => Storage::I64(all(values, |x| x as i64)),
            Storage::I32(_) => Storage::I32(all(values, |x| x as i32)),
            Storage::I16(_) => Storage::I16(all(values, |x| x as i16)),
            Storage::I8(_) => Storage::I8(all(values, |x| wrap_signed(x, bits))),
            Storage::U64(_) => Storage::U64(all(values, |x| x as u64)),
            Storage::U32(_) => Storage::U32(all(values, |x| x as u32)),
            Storage::U16(_) => Storage::U16(all(values, |x| x as u16)),
            Storage::U8(_) => Storage::U8(all(values, |x| (x as u8) & (u8::MAX >> (8 - bits.clamp(1, 8))))),
            Storage::Bool(_) => Storage::Bool(all(values, |x| x != 0)),
            Storage::F64(_) | Storage::F32(_) => {
                let floats: Vec<f64> = all(values, |x| x as f64);
                return Self::from_f64s(elem, dims, &floats);
            }
            _ => return Err(TensorError::Elem(elem)),
        };
        Self::new(elem, dims, storage)
    }

    /// Type of the elements.
    pub fn elem(&self) -> ElemType {
        self.elem
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.storage.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.storage.is_empty()
    }

    /// The elements.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The elements for writing; copied first where they are shared.
    pub fn storage_mut(&mut self) -> &mut Storage {
        Arc::make_mut(&mut self.storage)
    }

    /// The elements as f32, where they are kept so.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &*self.storage {
            Storage::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The elements as i64, where they are kept so.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &*self.storage {
            Storage::I64(v) => Some(v),
            _ => None,
        }
    }

    /// The same elements under other extents of the same count.
    ///
    /// # Errors
    /// Where the counts differ.
    pub fn reshaped(&self, dims: impl Into<Vec<usize>>) -> Result<Self, TensorError> {
        let dims = dims.into();
        if count(&dims) != Some(self.len()) {
            return Err(TensorError::Count { dims, found: self.len() });
        }
        Ok(Self { elem: self.elem, dims, storage: self.storage.clone() })
    }

    /// Every number as f64 (64-bit integers may round); `None` for strings and complex numbers.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        Some(match &*self.storage {
            Storage::F64(v) => v.clone(),
            Storage::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Storage::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::I16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Storage::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::U16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Storage::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
            Storage::Str(_) | Storage::C64(_) | Storage::C128(_) => return None,
        })
    }

    /// Every whole number; `None` for floats, strings and complex numbers. Booleans are 0 and 1.
    pub fn to_ints(&self) -> Option<Vec<i128>> {
        Some(match &*self.storage {
            Storage::I64(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::I32(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::I16(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::I8(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::U64(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::U32(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::U16(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::U8(v) => v.iter().map(|&x| i128::from(x)).collect(),
            Storage::Bool(v) => v.iter().map(|&x| i128::from(x)).collect(),
            _ => return None,
        })
    }

    /// Every whole number of at most 32 bits, as i32 (`u32` is refused, as everything wider).
    pub fn to_i32s(&self) -> Option<Vec<i32>> {
        Some(match &*self.storage {
            Storage::I32(v) => v.clone(),
            Storage::I16(v) => v.iter().map(|&x| i32::from(x)).collect(),
            Storage::I8(v) => v.iter().map(|&x| i32::from(x)).collect(),
            Storage::U16(v) => v.iter().map(|&x| i32::from(x)).collect(),
            Storage::U8(v) => v.iter().map(|&x| i32::from(x)).collect(),
            _ => return None,
        })
    }

    /// Whether both hold the same bits: unlike `==`, NaN equals itself and the zeros differ.
    pub fn same_bits(&self, other: &Tensor) -> bool {
        self.elem == other.elem && self.dims == other.dims && self.data() == other.data()
    }
}

/// Sign-extends the low `bits` bits (at most 8).
fn wrap_signed(x: i128, bits: u32) -> i8 {
    let shift = 8 - bits.clamp(1, 8);
    ((x as i8) << shift) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_pieces_are_refused() {
        assert!(Tensor::f32s([2, 2], [1.0, 2.0, 3.0]).is_err());
        assert_eq!(
            Tensor::new(ElemType::I8, [1], Storage::U8(vec![1])),
            Err(TensorError::Elem(ElemType::I8))
        );
        assert!(Tensor::f32s([usize::MAX, 2], []).is_err());
        assert!(Tensor::f32s([usize::MAX, usize::MAX, 0], []).is_ok());
    }

    #[test]
    fn numbers_are_converted() {
        let t = Tensor::from_ints(ElemType::I4, [3], &[7, 8, -9]).unwrap();
        assert_eq!(t.storage(), &Storage::I8(vec![7, -8, 7]));
        let t = Tensor::from_f64s(ElemType::U8, [4], &[-1.0, 2.9, 300.0, f64::NAN]).unwrap();
        assert_eq!(t.storage(), &Storage::U8(vec![0, 2, 255, 0]));
        let t = Tensor::from_f64s(ElemType::F16, [1], &[1.0 + 1.0 / 4096.0]).unwrap();
        assert_eq!(t.as_f32(), Some(&[1.0][..]));
    }

    #[test]
    fn holes_are_filled() {
        let s = Storage::I32(vec![1, 2, 3]);
        assert_eq!(s.pick_or(&[2, HOLE, 0], &Storage::I32(vec![9])), Storage::I32(vec![3, 9, 1]));
    }
}
