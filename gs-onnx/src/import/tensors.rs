//! Stored tensors as contents of globals and as constant attributes.

use std::sync::Arc;

use gs_ir::{ElemType, Init, Literal, TensorData};

use crate::error::{Error, TensorProblem};
use crate::external::ExternalFiles;
use crate::payload::{Payload, payload};
use crate::proto::{SparseTensorProto, TensorProto};

/// A stored tensor with its type. Nothing is copied where the file has `raw_data`.
pub(super) fn literal(tensor: &TensorProto, files: Option<&mut ExternalFiles>) -> Result<Literal, Error> {
    let data = match payload(tensor, files)? {
        Payload::Packed(bytes) => TensorData::Bytes(bytes),
        Payload::Strings(strings) => TensorData::Strings(strings.into()),
    };
    Ok(Literal { elem: element_type(tensor)?, dims: tensor.dims.clone(), data })
}

fn element_type(tensor: &TensorProto) -> Result<ElemType, Error> {
    ElemType::from_onnx(tensor.data_type()).ok_or_else(|| Error::Tensor {
        tensor: tensor.name().to_owned(),
        problem: TensorProblem::ElementType(tensor.data_type()),
    })
}

/// The contents of a global.
pub(super) fn init(literal: Literal) -> Init {
    Init::Data(literal.data)
}

/// A sparse tensor written out densely: no operator that we know takes another form, and runtimes do the same.
pub(super) fn densify(
    sparse: &SparseTensorProto,
    mut files: Option<&mut ExternalFiles>,
) -> Result<(String, Literal), Error> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(Error::Tensor { tensor: String::new(), problem: TensorProblem::Sparse });
    };
    let name = values.name().to_owned();
    let fail = |problem| Error::Tensor { tensor: name.clone(), problem };
    let elem = element_type(values)?;
    let count = crate::payload::element_count(&sparse.dims).map_err(fail)?;
    let width = (elem.bits() / 8) as usize;
    let stored = literal(values, files.as_deref_mut())?;
    let places = literal(indices, files)?;
    let total = usize::try_from(count).ok().and_then(|n| n.checked_mul(width)).filter(|&n| n <= DENSE_LIMIT);
    let (Some(total), TensorData::Bytes(stored), true) = (total, &stored.data, width > 0) else {
        return Err(fail(TensorProblem::Sparse));
    };
    let mut dense = vec![0; total];
    for (value, place) in
        stored.chunks_exact(width).zip(linear(&places, &sparse.dims).ok_or(fail(TensorProblem::Sparse))?)
    {
        let start = place.checked_mul(width).ok_or(fail(TensorProblem::Sparse))?;
        dense.get_mut(start..start + width).ok_or(fail(TensorProblem::Sparse))?.copy_from_slice(value);
    }
    Ok((name.clone(), Literal::new(elem, sparse.dims.clone(), dense)))
}

/// A sparse tensor may claim any shape; larger ones than this are refused rather than allocated.
const DENSE_LIMIT: usize = 1 << 31;

/// Positions of a sparse tensor's values in the dense one, row-major.
fn linear(indices: &Literal, dims: &[i64]) -> Option<Vec<usize>> {
    let flat = i64s(indices)?;
    match indices.dims.as_slice() {
        [_] => flat.iter().map(|&i| usize::try_from(i).ok()).collect(),
        [_, rank] if *rank as usize == dims.len() && !dims.is_empty() => flat
            .chunks_exact(dims.len())
            .map(|place| {
                let step = |at: i64, (&i, &d): (&i64, &i64)| {
                    (0..d).contains(&i).then_some(())?;
                    at.checked_mul(d)?.checked_add(i)
                };
                usize::try_from(place.iter().zip(dims).try_fold(0, step)?).ok()
            })
            .collect(),
        _ => None,
    }
}

/// The elements of a constant of whole numbers.
pub(super) fn i64s(literal: &Literal) -> Option<Vec<i64>> {
    let bytes = literal.data.bytes()?;
    Some(match literal.elem {
        ElemType::I64 => chunks(bytes, i64::from_le_bytes),
        ElemType::I32 => chunks(bytes, |b| i32::from_le_bytes(b).into()),
        ElemType::I16 => chunks(bytes, |b| i16::from_le_bytes(b).into()),
        ElemType::I8 => chunks(bytes, |b| i8::from_le_bytes(b).into()),
        ElemType::U32 => chunks(bytes, |b| u32::from_le_bytes(b).into()),
        ElemType::U16 => chunks(bytes, |b| u16::from_le_bytes(b).into()),
        ElemType::U8 | ElemType::Bool => chunks(bytes, |b: [u8; 1]| b[0].into()),
        _ => return None,
    })
}

/// The elements of a constant of numbers, where each is exactly an f32.
pub(super) fn f32s(literal: &Literal) -> Option<Vec<f32>> {
    let bytes = literal.data.bytes()?;
    match literal.elem {
        ElemType::F32 => Some(chunks(bytes, f32::from_le_bytes)),
        ElemType::F16 => Some(chunks(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
        ElemType::Bf16 => Some(chunks(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
        ElemType::F64 => {
            let wide: Vec<f64> = chunks(bytes, f64::from_le_bytes);
            wide.into_iter()
                .map(|v| (f64::from(v as f32).to_bits() == v.to_bits()).then_some(v as f32))
                .collect()
        }
        e if e.is_int() => {
            i64s(literal)?.into_iter().map(|v| (v as f32 as i64 == v).then_some(v as f32)).collect()
        }
        _ => None,
    }
}

fn chunks<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|c| read(*c)).collect()
}

/// A vector constant.
pub(super) fn f32_literal(values: &[f32], scalar: bool) -> Literal {
    let dims = if scalar { vec![] } else { vec![values.len() as i64] };
    Literal::f32s(dims, values)
}

/// A vector constant.
pub(super) fn i64_literal(values: &[i64], scalar: bool) -> Literal {
    let dims = if scalar { vec![] } else { vec![values.len() as i64] };
    Literal::i64s(dims, values)
}

/// A constant of strings.
pub(super) fn string_literal(values: &[bytes::Bytes], scalar: bool) -> Literal {
    let dims = if scalar { vec![] } else { vec![values.len() as i64] };
    Literal { elem: ElemType::Str, dims, data: TensorData::Strings(Arc::from(values)) }
}
