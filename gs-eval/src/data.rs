//! Samples for calibration, evaluation and training: a trait, and a source that holds them in memory.

use crate::tensor::{Storage, Tensor, TensorError};
use gs_ir::ElemType;
use std::ops::Range;
use thiserror::Error;

/// A named tensor of a batch; the first axis counts the samples.
pub type Field = (String, Tensor);

/// Why samples cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataError {
    /// A sample beyond the end was asked for.
    #[error("sample {index} was asked for, there are {len}")]
    Range {
        /// The sample.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// Fields have different numbers of samples, or no axis that counts them.
    #[error("field `{field}` has {found} samples, others have {expected}")]
    Samples {
        /// The field.
        field: String,
        /// Samples of the first field.
        expected: usize,
        /// Samples of this one.
        found: usize,
    },
    /// Samples of one field differ in type or extents.
    #[error("samples of field `{0}` differ in type or extents")]
    Mixed(String),
    /// Pieces do not make a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Reading failed.
    #[error("{0}")]
    Source(String),
}

/// A finite list of samples. Each has the same named fields: the network's inputs by name, and whatever else a
/// user needs (`labels`).
pub trait DataSource: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Consecutive samples as one batch, fields in a fixed order.
    ///
    /// # Errors
    /// Where the range leaves the source, or reading fails.
    fn batch(&self, range: Range<usize>) -> Result<Vec<Field>, DataError>;

    /// Any samples as one batch, in the order given (for shuffled training).
    ///
    /// # Errors
    /// As [`Self::batch`].
    fn gather(&self, indices: &[usize]) -> Result<Vec<Field>, DataError> {
        let samples = indices.iter().map(|&i| self.batch(i..i.saturating_add(1)));
        stack(samples.collect::<Result<_, _>>()?)
    }
}

/// Puts batches of the same fields one behind the other.
///
/// # Errors
/// Where fields differ in name, type or the extents behind the first axis.
pub fn stack(batches: Vec<Vec<Field>>) -> Result<Vec<Field>, DataError> {
    let mut batches = batches.into_iter();
    let Some(mut all) = batches.next() else { return Ok(Vec::new()) };
    for batch in batches {
        for (i, (name, tensor)) in all.iter_mut().enumerate() {
            let other = batch.get(i).filter(|(n, _)| n == name).map(|(_, t)| t);
            *tensor = other.and_then(|o| join(tensor, o)).ok_or_else(|| DataError::Mixed(name.clone()))?;
        }
    }
    Ok(all)
}

fn join(a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let (first, rest) = a.dims().split_first()?;
    let (more, rest_of_b) = b.dims().split_first()?;
    if a.elem() != b.elem() || rest != rest_of_b {
        return None;
    }
    let mut storage = a.storage().clone();
    storage.append(b.storage());
    let mut dims = vec![first.checked_add(*more)?];
    dims.extend_from_slice(rest);
    Tensor::new(a.elem(), dims, storage).ok()
}

/// Samples held in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    fields: Vec<Field>,
    len: usize,
}

impl InMemory {
    /// A source of these fields; the first axis of each counts the samples.
    ///
    /// # Errors
    /// Where the fields have different numbers of samples.
    pub fn new(fields: Vec<Field>) -> Result<Self, DataError> {
        let samples = |t: &Tensor| t.dims().first().copied().unwrap_or(0);
        let len = fields.first().map_or(0, |(_, t)| samples(t));
        match fields.iter().find(|(_, t)| samples(t) != len || t.rank() == 0) {
            Some((name, t)) => {
                Err(DataError::Samples { field: name.clone(), expected: len, found: samples(t) })
            }
            None => Ok(Self { fields, len }),
        }
    }
}

impl DataSource for InMemory {
    fn len(&self) -> usize {
        self.len
    }

    fn batch(&self, range: Range<usize>) -> Result<Vec<Field>, DataError> {
        if range.end > self.len || range.start > range.end {
            return Err(DataError::Range { index: range.end.max(range.start), len: self.len });
        }
        let cut = |t: &Tensor| -> Result<Tensor, TensorError> {
            let rest = t.dims().get(1..).unwrap_or(&[]);
            let each = crate::tensor::count(rest).unwrap_or(0);
            let mut dims = vec![range.len()];
            dims.extend_from_slice(rest);
            Tensor::new(t.elem(), dims, t.storage().section(range.start * each, range.len() * each))
        };
        self.fields.iter().map(|(n, t)| Ok((n.clone(), cut(t)?))).collect()
    }

    fn gather(&self, indices: &[usize]) -> Result<Vec<Field>, DataError> {
        if let Some(&index) = indices.iter().find(|&&i| i >= self.len) {
            return Err(DataError::Range { index, len: self.len });
        }
        let pick = |t: &Tensor| -> Result<Tensor, TensorError> {
            let rest = t.dims().get(1..).unwrap_or(&[]);
            let each = crate::tensor::count(rest).unwrap_or(0);
            let places: Vec<usize> = indices.iter().flat_map(|&i| i * each..(i + 1) * each).collect();
            let mut dims = vec![indices.len()];
            dims.extend_from_slice(rest);
            Tensor::new(t.elem(), dims, t.storage().pick(&places))
        };
        self.fields.iter().map(|(n, t)| Ok((n.clone(), pick(t)?))).collect()
    }
}

/// Labels as a field of class numbers.
///
/// # Errors
/// Never for a list that fits in memory.
pub fn labels(classes: &[i64]) -> Result<Field, DataError> {
    Ok(("labels".into(), Tensor::new(ElemType::I64, [classes.len()], Storage::I64(classes.to_vec()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> InMemory {
        let x = Tensor::f32s([3, 2], [0.0, 1.0, 10.0, 11.0, 20.0, 21.0]).unwrap();
        InMemory::new(vec![("x".into(), x), labels(&[7, 8, 9]).unwrap()]).unwrap()
    }

    #[test]
    fn batches_and_shuffled_batches() {
        let s = source();
        let b = s.batch(1..3).unwrap();
        assert_eq!(b[0].1, Tensor::f32s([2, 2], [10.0, 11.0, 20.0, 21.0]).unwrap());
        assert_eq!(b[1].1.as_i64(), Some(&[8, 9][..]));
        let g = s.gather(&[2, 0]).unwrap();
        assert_eq!(g[0].1.as_f32(), Some(&[20.0, 21.0, 0.0, 1.0][..]));
        assert!(matches!(s.batch(2..4), Err(DataError::Range { .. })));
        assert!(matches!(s.gather(&[3]), Err(DataError::Range { index: 3, len: 3 })));
    }

    #[test]
    fn stacking_single_samples_equals_gathering() {
        let s = source();
        let singles = [2usize, 1].iter().map(|&i| s.batch(i..i + 1).unwrap()).collect();
        assert_eq!(stack(singles).unwrap(), s.gather(&[2, 1]).unwrap());
    }

    #[test]
    fn unequal_fields_are_refused() {
        let x = Tensor::f32s([2], [0.0, 1.0]).unwrap();
        let e = InMemory::new(vec![("x".into(), x), labels(&[1]).unwrap()]);
        assert!(matches!(e, Err(DataError::Samples { expected: 2, found: 1, .. })));
    }
}
