//! Data sets as training sees them: any samples in any order, pictures changed.

use crate::data::Picture;
use crate::source::Samples;
use gs_eval::{DataError, Field, Tensor};
use gs_ir::ElemType;
use gs_runtime::trainer::{Fnv, Pick, TrainingData};

/// Samples that the fingerprint of a data set is of.
const FINGERPRINTED: usize = 64;

impl TrainingData for Samples {
    fn len(&self) -> usize {
        self.limit
    }

    fn gather(&self, picks: &[Pick]) -> Result<Vec<Field>, DataError> {
        let source = |e: crate::data::DataError| DataError::Source(e.to_string());
        let pictures: Vec<Picture> = picks
            .iter()
            .map(|p| Picture { index: p.index, down: p.down, right: p.right, mirror: p.mirror })
            .collect();
        let arrays = self.dataset.gather_moved(&pictures).map_err(source)?;
        let mut fields: Vec<Field> = arrays.into_iter().map(|a| self.field(a)).collect::<Result<_, _>>()?;
        if !self.dataset.has_labels() {
            return Ok(fields);
        }
        let labels: Vec<i128> = picks
            .iter()
            .map(|p| self.dataset.label(p.index).map(i128::from))
            .collect::<Result<_, _>>()
            .map_err(source)?;
        fields.push(("labels".to_owned(), Tensor::from_ints(ElemType::I64, [labels.len()], &labels)?));
        Ok(fields)
    }

    /// Of the number of samples, and of some here and there with their labels.
    fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.add(&self.limit.to_le_bytes());
        let step = self.limit.div_ceil(FINGERPRINTED).max(1);
        let seen: Vec<usize> = (0..self.limit).step_by(step).collect();
        if let Ok(arrays) = self.dataset.gather(&seen) {
            arrays.iter().for_each(|a| hash.add(&a.bytes));
        }
        seen.iter().filter_map(|&i| self.dataset.label(i).ok()).for_each(|l| hash.add(&l.to_le_bytes()));
        hash.value()
    }
}
