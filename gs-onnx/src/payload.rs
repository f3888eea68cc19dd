//! The elements of a stored tensor, whatever field they were written in, as packed little-endian bytes.
//!
//! `raw_data` and external files are passed on as slices of the map. The typed lists (`float_data`, ...) are
//! what older writers used; they are packed here.

use bytes::Bytes;

use crate::error::{Error, TensorProblem};
use crate::external::ExternalFiles;
use crate::proto::{TensorProto, data_location, data_type as dt};

/// Elements of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Row-major, little-endian; elements below 8 bits are packed from the low bits.
    Packed(Bytes),
    /// Elements of a string tensor.
    Strings(Vec<Bytes>),
}

/// Reads the elements of a stored tensor. `files` finds external data; without it external data is an error.
///
/// # Errors
/// The element type is unknown, the shape impossible, or the data does not fit the shape.
pub fn payload(tensor: &TensorProto, files: Option<&mut ExternalFiles>) -> Result<Payload, Error> {
    let fail = |problem| Error::Tensor { tensor: tensor.name().to_owned(), problem };
    if tensor.segment.is_some() {
        return Err(fail(TensorProblem::Segment));
    }
    let count = element_count(&tensor.dims).map_err(fail)?;
    if tensor.data_type() == dt::STRING {
        check_length(tensor, "string_data", "values", tensor.string_data.len() as u64, count)
            .map_err(fail)?;
        return Ok(Payload::Strings(tensor.string_data.clone()));
    }
    let bytes = packed_len(tensor.data_type(), count)
        .map_err(fail)?
        .ok_or_else(|| fail(TensorProblem::Shape(tensor.dims.clone())))?;
    if tensor.data_location() == data_location::EXTERNAL {
        let files = files.ok_or_else(|| fail(TensorProblem::NoFolder))?;
        return files.slice(tensor, bytes).map(Payload::Packed);
    }
    if let Some(raw) = &tensor.raw_data {
        check_length(tensor, "raw_data", "bytes", raw.len() as u64, bytes).map_err(fail)?;
        return Ok(Payload::Packed(raw.clone()));
    }
    pack_lists(tensor, count, bytes).map(|v| Payload::Packed(v.into())).map_err(fail)
}

/// Number of elements of a shape.
pub(crate) fn element_count(dims: &[i64]) -> Result<u64, TensorProblem> {
    let product = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?));
    product.ok_or_else(|| TensorProblem::Shape(dims.to_vec()))
}

/// Bits of one element; `None` for strings and unknown codes.
pub fn element_bits(code: i32) -> Option<u64> {
    Some(match code {
        dt::UINT2 | dt::INT2 => 2,
        dt::UINT4 | dt::INT4 | dt::FLOAT4E2M1 => 4,
        dt::FLOAT6E2M3 | dt::FLOAT6E3M2 => 6,
        dt::UINT8 | dt::INT8 | dt::BOOL => 8,
        dt::FLOAT8E4M3FN | dt::FLOAT8E4M3FNUZ | dt::FLOAT8E5M2 | dt::FLOAT8E5M2FNUZ | dt::FLOAT8E8M0 => 8,
        dt::UINT16 | dt::INT16 | dt::FLOAT16 | dt::BFLOAT16 => 16,
        dt::FLOAT | dt::INT32 | dt::UINT32 => 32,
        dt::INT64 | dt::UINT64 | dt::DOUBLE | dt::COMPLEX64 => 64,
        dt::COMPLEX128 => 128,
        _ => return None,
    })
}

/// Bytes of `count` packed elements; `None` where that cannot be addressed.
fn packed_len(code: i32, count: u64) -> Result<Option<u64>, TensorProblem> {
    let bits = element_bits(code).ok_or(TensorProblem::ElementType(code))?;
    Ok(count.checked_mul(bits).map(|bits| bits.div_ceil(8)).filter(|&n| usize::try_from(n).is_ok()))
}

fn check_length(
    tensor: &TensorProto,
    field: &'static str,
    unit: &'static str,
    found: u64,
    needed: u64,
) -> Result<(), TensorProblem> {
    if found == needed {
        return Ok(());
    }
    Err(TensorProblem::Length { field, unit, found, needed, dims: tensor.dims.clone() })
}

/// Packs the typed list that belongs to the element type.
fn pack_lists(tensor: &TensorProto, count: u64, bytes: u64) -> Result<Vec<u8>, TensorProblem> {
    let values = |field, found: usize, needed| check_length(tensor, field, "values", found as u64, needed);
    let (floats, ints) = (&tensor.float_data, &tensor.int32_data);
    match tensor.data_type() {
        dt::FLOAT => {
            values("float_data", floats.len(), count)?;
            Ok(floats.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        dt::COMPLEX64 => {
            values("float_data", floats.len(), count.saturating_mul(2))?;
            Ok(floats.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        dt::DOUBLE | dt::COMPLEX128 => {
            let per = if tensor.data_type() == dt::DOUBLE { 1 } else { 2 };
            values("double_data", tensor.double_data.len(), count.saturating_mul(per))?;
            Ok(tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        dt::INT64 => {
            values("int64_data", tensor.int64_data.len(), count)?;
            Ok(tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        dt::UINT64 => {
            values("uint64_data", tensor.uint64_data.len(), count)?;
            Ok(tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        dt::UINT32 => {
            values("uint64_data", tensor.uint64_data.len(), count)?;
            pack(&tensor.uint64_data, |&v| u32::try_from(v).ok().map(u32::to_le_bytes), |&v| v as i64)
        }
        dt::INT32 => {
            values("int32_data", ints.len(), count)?;
            Ok(ints.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        dt::INT16 => {
            values("int32_data", ints.len(), count)?;
            pack(ints, |&v| i16::try_from(v).ok().map(i16::to_le_bytes), |&v| v.into())
        }
        dt::UINT16 | dt::FLOAT16 | dt::BFLOAT16 => {
            values("int32_data", ints.len(), count)?;
            pack(ints, |&v| u16::try_from(v).ok().map(u16::to_le_bytes), |&v| v.into())
        }
        dt::INT8 => {
            values("int32_data", ints.len(), count)?;
            pack(ints, |&v| i8::try_from(v).ok().map(i8::to_le_bytes), |&v| v.into())
        }
        dt::BOOL => {
            values("int32_data", ints.len(), count)?;
            Ok(ints.iter().map(|&v| u8::from(v != 0)).collect())
        }
        dt::FLOAT6E2M3 | dt::FLOAT6E3M2 => {
            values("int32_data", ints.len(), count)?;
            pack_six_bits(ints)
        }
        // Bytes, 8-bit floats, and two or four narrow elements to an entry.
        _ => {
            values("int32_data", ints.len(), bytes)?;
            pack(ints, |&v| packed_byte(tensor.data_type(), v).map(|b| [b]), |&v| v.into())
        }
    }
}

/// One entry of `int32_data` as a byte. Some writers sign-extend a pair of int4, so both readings of a byte count.
fn packed_byte(code: i32, value: i32) -> Option<u8> {
    let narrow = matches!(code, dt::INT4 | dt::INT2);
    u8::try_from(value).ok().or_else(|| i8::try_from(value).ok().filter(|_| narrow).map(|v| v as u8))
}

fn pack<T, const N: usize>(
    list: &[T],
    bytes_of: impl Fn(&T) -> Option<[u8; N]>,
    shown: impl Fn(&T) -> i64,
) -> Result<Vec<u8>, TensorProblem> {
    let mut out = Vec::with_capacity(list.len().saturating_mul(N));
    for (index, v) in list.iter().enumerate() {
        out.extend(bytes_of(v).ok_or_else(|| TensorProblem::Range { index, value: shown(v) })?);
    }
    Ok(out)
}

/// Packs one 6-bit pattern per entry into a bit stream, low bits first.
fn pack_six_bits(list: &[i32]) -> Result<Vec<u8>, TensorProblem> {
    let mut out = Vec::with_capacity((list.len().saturating_mul(6)).div_ceil(8));
    let (mut pending, mut bits) = (0u32, 0);
    for (index, &v) in list.iter().enumerate() {
        let six = u32::try_from(v).ok().filter(|&v| v < 64);
        pending |= six.ok_or(TensorProblem::Range { index, value: v.into() })? << bits;
        bits += 6;
        while bits >= 8 {
            out.push((pending & 0xff) as u8);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(pending as u8);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(code: i32, dims: &[i64]) -> TensorProto {
        TensorProto {
            data_type: Some(code),
            dims: dims.to_vec(),
            name: Some("t".into()),
            ..Default::default()
        }
    }

    fn bytes(t: &TensorProto) -> Vec<u8> {
        match payload(t, None) {
            Ok(Payload::Packed(b)) => b.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn typed_lists_become_the_bytes_of_raw_data() {
        let f = TensorProto { float_data: vec![1.0, -0.0], ..tensor(dt::FLOAT, &[2]) };
        assert_eq!(bytes(&f), [0, 0, 128, 63, 0, 0, 0, 128]);
        let i8s = TensorProto { int32_data: vec![-1, 127], ..tensor(dt::INT8, &[2, 1]) };
        assert_eq!(bytes(&i8s), [255, 127]);
        let half = TensorProto { int32_data: vec![0x3c00], ..tensor(dt::FLOAT16, &[]) };
        assert_eq!(bytes(&half), [0, 0x3c]);
        let int4 = TensorProto { int32_data: vec![0xf1, -1], ..tensor(dt::INT4, &[3]) };
        assert_eq!(bytes(&int4), [0xf1, 0xff]);
        let u32s = TensorProto { uint64_data: vec![u32::MAX.into()], ..tensor(dt::UINT32, &[1]) };
        assert_eq!(bytes(&u32s), [255; 4]);
        let six = TensorProto {
            int32_data: vec![0b10_0001, 0b11_1111, 0, 0b10_0000, 1],
            ..tensor(dt::FLOAT6E2M3, &[5])
        };
        assert_eq!(bytes(&six), [0b1110_0001, 0b0000_1111, 0b1000_0000, 1]);
        assert_eq!(bytes(&tensor(dt::FLOAT, &[0, 3])), []);
    }

    #[test]
    fn contradictions_are_errors() {
        let bad = [
            tensor(dt::FLOAT, &[2]),
            tensor(dt::FLOAT, &[-1]),
            tensor(99, &[1]),
            tensor(dt::FLOAT, &[i64::MAX, i64::MAX]),
            TensorProto { raw_data: Some(Bytes::from_static(&[0; 7])), ..tensor(dt::FLOAT, &[2]) },
            TensorProto { int32_data: vec![300], ..tensor(dt::INT8, &[1]) },
            TensorProto { int32_data: vec![64], ..tensor(dt::FLOAT6E2M3, &[1]) },
            TensorProto { data_location: Some(1), ..tensor(dt::FLOAT, &[1]) },
            TensorProto { segment: Some(Default::default()), ..tensor(dt::FLOAT, &[0]) },
        ];
        for t in bad {
            assert!(matches!(payload(&t, None), Err(Error::Tensor { .. })), "{t:?}");
        }
    }
}
