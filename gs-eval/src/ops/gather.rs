//! Operators that select by computed indices, convert types, or make tensors from a few numbers.

use super::ctx::{OpCtx, OpError};
use super::layout::{places, strides};
use crate::tensor::{Storage, Tensor};
use gs_ir::ElemType;

pub(super) const TABLE: &[super::Row] = &[
    ("gather", gather),
    ("gather_elements", gather_elements),
    ("constant_of_shape", constant_of_shape),
    ("constant", constant),
    ("range", range),
    ("cast", cast),
];

/// An index that may count from the end.
fn place(index: i64, extent: usize) -> Result<usize, OpError> {
    let n = i64::try_from(extent).unwrap_or(i64::MAX);
    let at = if index < 0 { index.saturating_add(n) } else { index };
    usize::try_from(at).ok().filter(|&i| i < extent).ok_or(OpError::Index { index, extent })
}

fn gather(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (data, indices) = (ctx.operand(0)?, ctx.operand(1)?);
    let axis = ctx.axis(ctx.int("axis")?, data.rank())?;
    let (outer, rest) = data.dims().split_at(axis);
    let (extent, inner) = rest.split_first().ok_or(OpError::Axis { axis: 0, rank: 0 })?;
    let dims: Vec<usize> = [outer, indices.dims(), inner].concat();
    ctx.allot(&dims)?;
    let picks: Vec<usize> =
        ctx.integers(1)?.into_iter().map(|i| place(i, *extent)).collect::<Result<_, _>>()?;
    let (outer, inner): (usize, usize) = (outer.iter().product(), inner.iter().product());
    let order: Vec<usize> = (0..outer)
        .flat_map(|o| picks.iter().map(move |p| (o * extent + p) * inner))
        .flat_map(|start| start..start + inner)
        .collect();
    ctx.picked(data, dims, &order)
}

fn gather_elements(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let (data, indices) = (ctx.operand(0)?, ctx.operand(1)?);
    let axis = ctx.axis(ctx.int("axis")?, data.rank())?;
    let fits = indices.rank() == data.rank()
        && (0..data.rank()).all(|i| i == axis || indices.dims()[i] <= data.dims()[i]);
    if !fits {
        return Err(OpError::Extents {
            what: "indices",
            left: indices.dims().to_vec(),
            right: data.dims().to_vec(),
        });
    }
    ctx.allot(indices.dims())?;
    let own = strides(data.dims());
    let mut steps = own.clone();
    steps[axis] = 0;
    let bases = places(indices.dims(), &steps);
    let order = bases.into_iter().zip(ctx.integers(1)?);
    let order = order.map(|(base, i)| Ok(base + place(i, data.dims()[axis])? * own[axis]));
    let order: Vec<usize> = order.collect::<Result<_, OpError>>()?;
    ctx.picked(data, indices.dims().to_vec(), &order)
}

fn constant_of_shape(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let dims = crate::packed::extents(&ctx.integers(0)?)?;
    let n = ctx.allot(&dims)?;
    let value = match ctx.tensor_if("value")? {
        Some(v) if v.len() == 1 => v,
        Some(v) => return Err(OpError::Extents { what: "value", left: v.dims().to_vec(), right: vec![1] }),
        None => ctx.precision.adapt(&Tensor::scalar(0.0)),
    };
    Ok(vec![Tensor::new(value.elem(), dims, value.storage().repeat(n)?)?])
}

fn constant(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![ctx.tensor_if("value")?.ok_or_else(|| OpError::MissingAttr("value".into()))?])
}

fn range(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let elem = ctx.operand(0)?.elem();
    let one = |i: usize| match ctx.floats(i)?.as_slice() {
        [x] => Ok(*x),
        _ => Err(OpError::Extents { what: "range", left: ctx.operand(i)?.dims().to_vec(), right: vec![1] }),
    };
    let (start, limit, delta) = (one(0)?, one(1)?, one(2)?);
    let count = ((limit - start) / delta).ceil();
    if count.is_nan() || delta == 0.0 {
        return Err(OpError::Other("the range has no step".into()));
    }
    let n = ctx.allot(&[if count > 0.0 { count as usize } else { 0 }])?;
    if elem.is_int() {
        let (start, delta) = (ctx.integers(0)?, ctx.integers(2)?);
        let (start, delta) = (start.first().copied().unwrap_or(0), delta.first().copied().unwrap_or(1));
        let values: Vec<i128> = (0..n as i128).map(|i| i128::from(start) + i * i128::from(delta)).collect();
        return Ok(vec![Tensor::from_ints(elem, [n], &values)?]);
    }
    let values: Vec<f64> = (0..n).map(|i| start + i as f64 * delta).collect();
    ctx.make(elem, [n], &values)
}

/// Floats to integers truncate; then types of 32 bits and more saturate, and narrower ones wrap, as casts through a
/// register do. Integers to integers wrap; to f8 and f4 as `saturate` says.
fn cast(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let x = ctx.operand(0)?;
    let to = ctx.attrs.elem("to").ok_or_else(|| OpError::MissingAttr("to".into()))?;
    let to = ctx.elem(to);
    ctx.allot(x.dims())?;
    let saturate = ctx.int_if("saturate").unwrap_or(1) != 0;
    Ok(vec![convert(x, to, saturate).ok_or_else(|| ctx.wrong_elem(0))??])
}

/// A tensor in another element type; `None` where there is no such conversion.
fn convert(x: &Tensor, to: ElemType, saturate: bool) -> Option<Result<Tensor, OpError>> {
    if x.elem() == to {
        return Some(Ok(x.clone()));
    }
    if to == ElemType::Str || x.elem() == ElemType::Str {
        return convert_text(x, to);
    }
    if let Some(ints) = x.to_ints() {
        return Some(Tensor::from_ints(to, x.dims(), &ints).map_err(OpError::from));
    }
    let floats = x.to_f64s()?;
    if to.is_int() && to.bits() < 32 {
        let ints: Vec<i128> = floats.iter().map(|&v| i128::from(v as i64)).collect();
        return Some(Tensor::from_ints(to, x.dims(), &ints).map_err(OpError::from));
    }
    // The formats without infinity and the other 8-bit ones saturate on request; f16 and bf16 never do.
    if to.is_float() && to.bits() <= 8 {
        let values = floats.iter().map(|&v| crate::minifloat::round_to(to, v, saturate)).collect();
        return Some(Tensor::new(to, x.dims(), Storage::F32(values)).map_err(OpError::from));
    }
    Some(Tensor::from_f64s(to, x.dims(), &floats).map_err(OpError::from))
}

/// To and from strings, as Rust reads and prints numbers.
fn convert_text(x: &Tensor, to: ElemType) -> Option<Result<Tensor, OpError>> {
    if let Storage::Str(texts) = x.storage() {
        let numbers: Option<Vec<f64>> = texts
            .iter()
            .map(|t| std::str::from_utf8(t).ok().and_then(|t| t.trim().parse::<f64>().ok()))
            .collect();
        return numbers.map(|n| Tensor::from_f64s(to, x.dims(), &n).map_err(OpError::from));
    }
    let texts: Vec<bytes::Bytes> = match (x.storage(), x.to_ints()) {
        (Storage::F32(v), _) => v.iter().map(|v| v.to_string().into()).collect(),
        (Storage::F64(v), _) => v.iter().map(|v| v.to_string().into()).collect(),
        (_, Some(v)) => v.iter().map(|v| v.to_string().into()).collect(),
        _ => return None,
    };
    Some(Tensor::new(ElemType::Str, x.dims(), Storage::Str(texts)).map_err(OpError::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_the_end() {
        assert_eq!(place(-1, 3), Ok(2));
        assert_eq!(place(i64::MIN, 3), Err(OpError::Index { index: i64::MIN, extent: 3 }));
        assert!(place(3, 3).is_err() && place(0, 0).is_err());
    }

    #[test]
    fn conversions() {
        let x = Tensor::f32s([3], [1.9, -1.9, 1e9]).unwrap();
        let y = convert(&x, ElemType::I8, true).unwrap().unwrap();
        assert_eq!(y.storage(), &Storage::I8(vec![1, -1, 0])); // 10^9 is 0x3b9aca00
        let y = convert(&x, ElemType::I32, true).unwrap().unwrap();
        assert_eq!(y.storage(), &Storage::I32(vec![1, -1, 1_000_000_000]));
        let y = convert(&Tensor::scalar(1e30), ElemType::I32, true).unwrap().unwrap();
        assert_eq!(y.storage(), &Storage::I32(vec![i32::MAX]));
        let y = convert(&x, ElemType::F8E4M3Fn, true).unwrap().unwrap();
        assert_eq!(y.as_f32(), Some(&[1.875, -1.875, 448.0][..]));
        let text = convert(&x, ElemType::Str, true).unwrap().unwrap();
        assert_eq!(convert(&text, ElemType::F32, true).unwrap().unwrap(), x);
        let wide = Tensor::i64s([1], [257]).unwrap();
        assert_eq!(convert(&wide, ElemType::U8, true).unwrap().unwrap().storage(), &Storage::U8(vec![1]));
    }
}
