//! A borrowed look at a tensor's elements: what a tap is handed, so that watching a value copies nothing.

use crate::tensor::{Storage, Tensor, TensorError};
use bytes::Bytes;
use gs_ir::ElemType;

/// Borrowed elements; the variants are those of [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // as in `Storage`
pub enum Elements<'a> {
    F64(&'a [f64]),
    F32(&'a [f32]),
    I64(&'a [i64]),
    I32(&'a [i32]),
    I16(&'a [i16]),
    I8(&'a [i8]),
    U64(&'a [u64]),
    U32(&'a [u32]),
    U16(&'a [u16]),
    U8(&'a [u8]),
    Bool(&'a [bool]),
    Str(&'a [Bytes]),
    C64(&'a [[f32; 2]]),
    C128(&'a [[f64; 2]]),
}

/// A borrowed tensor: row-major elements and their extents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// Type of the elements.
    pub elem: ElemType,
    /// The extents.
    pub dims: &'a [usize],
    /// The elements.
    pub elements: Elements<'a>,
}

impl<'a> TensorView<'a> {
    /// A view of f32 elements.
    pub fn f32s(dims: &'a [usize], values: &'a [f32]) -> Self {
        Self { elem: ElemType::F32, dims, elements: Elements::F32(values) }
    }

    /// The elements as f32, where they are kept so.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        match self.elements {
            Elements::F32(v) => Some(v),
            _ => None,
        }
    }

    /// A copy that owns its elements.
    ///
    /// # Errors
    /// Where extents and elements do not fit each other.
    pub fn to_tensor(&self) -> Result<Tensor, TensorError> {
        let storage = match self.elements {
            Elements::F64(v) => Storage::F64(v.to_vec()),
            Elements::F32(v) => Storage::F32(v.to_vec()),
            Elements::I64(v) => Storage::I64(v.to_vec()),
            Elements::I32(v) => Storage::I32(v.to_vec()),
            Elements::I16(v) => Storage::I16(v.to_vec()),
            Elements::I8(v) => Storage::I8(v.to_vec()),
            Elements::U64(v) => Storage::U64(v.to_vec()),
            Elements::U32(v) => Storage::U32(v.to_vec()),
            Elements::U16(v) => Storage::U16(v.to_vec()),
            Elements::U8(v) => Storage::U8(v.to_vec()),
            Elements::Bool(v) => Storage::Bool(v.to_vec()),
            Elements::Str(v) => Storage::Str(v.to_vec()),
            Elements::C64(v) => Storage::C64(v.to_vec()),
            Elements::C128(v) => Storage::C128(v.to_vec()),
        };
        Tensor::new(self.elem, self.dims, storage)
    }
}

impl Tensor {
    /// A borrowed look at this tensor.
    pub fn view(&self) -> TensorView<'_> {
        let elements = match self.storage() {
            Storage::F64(v) => Elements::F64(v),
            Storage::F32(v) => Elements::F32(v),
            Storage::I64(v) => Elements::I64(v),
            Storage::I32(v) => Elements::I32(v),
            Storage::I16(v) => Elements::I16(v),
            Storage::I8(v) => Elements::I8(v),
            Storage::U64(v) => Elements::U64(v),
            Storage::U32(v) => Elements::U32(v),
            Storage::U16(v) => Elements::U16(v),
            Storage::U8(v) => Elements::U8(v),
            Storage::Bool(v) => Elements::Bool(v),
            Storage::Str(v) => Elements::Str(v),
            Storage::C64(v) => Elements::C64(v),
            Storage::C128(v) => Elements::C128(v),
        };
        TensorView { elem: self.elem(), dims: self.dims(), elements }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_and_copy() {
        let t = Tensor::f32s([2], [1.0, 2.0]).unwrap();
        assert_eq!(t.view().as_f32(), t.as_f32());
        assert_eq!(t.view().to_tensor(), Ok(t));
        assert!(TensorView::f32s(&[3], &[1.0]).to_tensor().is_err());
    }
}
