//! Between typed elements and the dense bytes of files: little-endian, row-major, below 8 bits low bits first.

use crate::minifloat::{from_bits, to_bits};
use crate::tensor::{Storage, Tensor, TensorError, count};
use bytes::Bytes;
use gs_ir::{ElemType, Literal, TensorData};
use std::sync::Arc;

impl Tensor {
    /// A tensor from packed contents.
    ///
    /// # Errors
    /// Where extents and contents do not fit each other.
    pub fn from_data(
        elem: ElemType,
        dims: impl Into<Vec<usize>>,
        data: &TensorData,
    ) -> Result<Self, TensorError> {
        let dims = dims.into();
        match data {
            TensorData::Strings(s) => Self::new(elem, dims, Storage::Str(s.to_vec())),
            TensorData::Bytes(b) => Self::from_bytes(elem, dims, b),
        }
    }

    /// A tensor from packed bytes.
    ///
    /// # Errors
    /// Where extents and contents do not fit each other; strings are not packed.
    pub fn from_bytes(
        elem: ElemType,
        dims: impl Into<Vec<usize>>,
        bytes: &[u8],
    ) -> Result<Self, TensorError> {
        let dims = dims.into();
        let n = count(&dims).ok_or_else(|| TensorError::Count { dims: dims.clone(), found: 0 })?;
        let expected = elem.bytes_for(n).ok_or(TensorError::Elem(elem))?;
        if bytes.len() != expected {
            return Err(TensorError::Bytes { expected, found: bytes.len() });
        }
        Self::new(elem, dims, unpack(elem, n, bytes))
    }

    /// The packed contents.
    pub fn data(&self) -> TensorData {
        match self.storage() {
            Storage::Str(s) => TensorData::Strings(Arc::from(s.as_slice())),
            other => TensorData::Bytes(Bytes::from(pack(self.elem(), other))),
        }
    }

    /// A tensor from a constant of the IR.
    ///
    /// # Errors
    /// Where the constant's extents and contents do not fit each other.
    pub fn from_literal(literal: &Literal) -> Result<Self, TensorError> {
        Self::from_data(literal.elem, extents(&literal.dims)?, &literal.data)
    }

    /// The tensor as a constant of the IR.
    pub fn literal(&self) -> Literal {
        let dims = self.dims().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        Literal { elem: self.elem(), dims, data: self.data() }
    }
}

/// Extents of the IR as sizes.
///
/// # Errors
/// Where one is negative.
pub fn extents(dims: &[i64]) -> Result<Vec<usize>, TensorError> {
    let sizes = dims.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>();
    sizes.map_err(|_| TensorError::Extents(dims.to_vec()))
}

fn words<const N: usize, T>(bytes: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
}

fn unpack(elem: ElemType, n: usize, bytes: &[u8]) -> Storage {
    use ElemType::*;
    match elem {
        F64 => Storage::F64(words(bytes, f64::from_le_bytes)),
        F32 => Storage::F32(words(bytes, f32::from_le_bytes)),
        F16 | Bf16 => Storage::F32(words(bytes, |b| from_bits(elem, u16::from_le_bytes(b)))),
        F8E4M3Fn | F8E4M3Fnuz | F8E5M2 | F8E5M2Fnuz | F8E8M0 => {
            Storage::F32(bytes.iter().map(|&b| from_bits(elem, u16::from(b))).collect())
        }
        F4E2M1 => Storage::F32(fields(bytes, n, 4).map(|b| from_bits(elem, u16::from(b))).collect()),
        I64 => Storage::I64(words(bytes, i64::from_le_bytes)),
        I32 => Storage::I32(words(bytes, i32::from_le_bytes)),
        I16 => Storage::I16(words(bytes, i16::from_le_bytes)),
        I8 => Storage::I8(bytes.iter().map(|&b| b as i8).collect()),
        I4 | I2 => {
            let shift = 8 - elem.bits();
            Storage::I8(fields(bytes, n, elem.bits()).map(|b| ((b << shift) as i8) >> shift).collect())
        }
        U64 => Storage::U64(words(bytes, u64::from_le_bytes)),
        U32 => Storage::U32(words(bytes, u32::from_le_bytes)),
        U16 => Storage::U16(words(bytes, u16::from_le_bytes)),
        U8 => Storage::U8(bytes.to_vec()),
        U4 | U2 | U1 => Storage::U8(fields(bytes, n, elem.bits()).collect()),
        Bool => Storage::Bool(bytes.iter().map(|&b| b != 0).collect()),
        Str => Storage::Str(Vec::new()),
        C64 => Storage::C64(words(bytes, |b: [u8; 8]| {
            let v = words(&b, f32::from_le_bytes);
            [v.first().copied().unwrap_or(0.0), v.get(1).copied().unwrap_or(0.0)]
        })),
        C128 => Storage::C128(words(bytes, |b: [u8; 16]| {
            let v = words(&b, f64::from_le_bytes);
            [v.first().copied().unwrap_or(0.0), v.get(1).copied().unwrap_or(0.0)]
        })),
    }
}

/// The first `n` fields of `bits` bits (1, 2 or 4), low bits first.
fn fields(bytes: &[u8], n: usize, bits: u32) -> impl Iterator<Item = u8> + '_ {
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    bytes.iter().flat_map(move |&b| (0..per_byte).map(move |i| (b >> (i * bits)) & mask)).take(n)
}

fn pack(elem: ElemType, storage: &Storage) -> Vec<u8> {
    fn all<T: Copy, const N: usize>(v: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        v.iter().flat_map(|&x| f(x)).collect()
    }
    let bits = elem.bits();
    match storage {
        Storage::F64(v) => all(v, f64::to_le_bytes),
        Storage::F32(v) if elem == ElemType::F32 => all(v, f32::to_le_bytes),
        Storage::F32(v) if bits == 16 => all(v, |x| to_bits(elem, x).to_le_bytes()),
        Storage::F32(v) => join(v.iter().map(|&x| to_bits(elem, x) as u8), bits),
        Storage::I64(v) => all(v, i64::to_le_bytes),
        Storage::I32(v) => all(v, i32::to_le_bytes),
        Storage::I16(v) => all(v, i16::to_le_bytes),
        Storage::I8(v) => join(v.iter().map(|&x| x as u8), bits),
        Storage::U64(v) => all(v, u64::to_le_bytes),
        Storage::U32(v) => all(v, u32::to_le_bytes),
        Storage::U16(v) => all(v, u16::to_le_bytes),
        Storage::U8(v) => join(v.iter().copied(), bits),
        Storage::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        Storage::Str(_) => Vec::new(),
        Storage::C64(v) => v.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(),
        Storage::C128(v) => v.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// Packs fields of `bits` bits, low bits first; the last byte is filled with zeros.
fn join(values: impl ExactSizeIterator<Item = u8>, bits: u32) -> Vec<u8> {
    if bits == 8 {
        return values.collect();
    }
    let per_byte = (8 / bits.max(1)) as usize;
    let mask = (1u8 << bits) - 1;
    let mut out = vec![0u8; values.len().div_ceil(per_byte)];
    for (i, v) in values.enumerate() {
        if let Some(byte) = out.get_mut(i / per_byte) {
            *byte |= (v & mask) << (bits as usize * (i % per_byte));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_a_round_trip() {
        for elem in ElemType::all().filter(|&e| e != ElemType::Str) {
            let n = 5;
            let len = elem.bytes_for(n).unwrap();
            let mut bytes: Vec<u8> =
                (0..len).map(|i| (i as u8).wrapping_mul(37).wrapping_add(1) & 0x3f).collect();
            let tail = (n * elem.bits() as usize) % 8;
            if tail != 0 {
                *bytes.last_mut().unwrap() &= (1 << tail) - 1;
            }
            if elem == ElemType::Bool {
                bytes.iter_mut().for_each(|b| *b &= 1);
            }
            let t = Tensor::from_bytes(elem, [5], &bytes).unwrap();
            assert_eq!(t.data().bytes().unwrap(), &bytes, "{elem}");
            assert_eq!(Tensor::from_literal(&t.literal()).unwrap().data(), t.data());
        }
    }

    #[test]
    fn low_bits_come_first() {
        let t = Tensor::from_bytes(ElemType::I4, [3], &[0x8f, 0x07]).unwrap();
        assert_eq!(t.storage(), &Storage::I8(vec![-1, -8, 7]));
        let t = Tensor::from_bytes(ElemType::U1, [9], &[0b0000_0101, 1]).unwrap();
        assert_eq!(t.storage(), &Storage::U8(vec![1, 0, 1, 0, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn strings_and_wrong_lengths() {
        let words = TensorData::Strings(Arc::from([Bytes::from_static(b"a"), Bytes::from_static(b"")]));
        let t = Tensor::from_data(ElemType::Str, [2], &words).unwrap();
        assert_eq!(t.data(), words);
        let short = Tensor::from_bytes(ElemType::F32, [2], &[0; 7]);
        assert_eq!(short, Err(TensorError::Bytes { expected: 8, found: 7 }));
        assert!(extents(&[2, -1]).is_err());
    }
}
