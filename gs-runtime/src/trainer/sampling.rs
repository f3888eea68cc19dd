//! Which samples a step sees, and how pictures are changed.

use gs_eval::random::bits;
use gs_eval::{DataError, DataSource, Field};
use std::ops::Range;
use std::sync::Arc;

/// How pictures are changed in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Pictures are moved by up to so many pixels either way; what comes in is 0.
    pub crop: usize,
    /// Half of the pictures are mirrored.
    pub flip: bool,
}

/// A sample, and how its picture is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Its number.
    pub index: usize,
    /// Pixels that the picture is moved down by.
    pub down: isize,
    /// Pixels that it is moved right by.
    pub right: isize,
    /// Whether it is mirrored left to right, before it is moved.
    pub mirror: bool,
}

impl Pick {
    /// A sample as it is.
    pub fn plain(index: usize) -> Self {
        Self { index, down: 0, right: 0, mirror: false }
    }
}

/// Samples to train on.
pub trait TrainingData: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These samples as one batch: the inputs of `@train` by name, `labels` or `target` among them.
    ///
    /// # Errors
    /// Where samples cannot be read, or pictures are to be changed and there are none.
    fn gather(&self, picks: &[Pick]) -> Result<Vec<Field>, DataError>;

    /// A number that tells these samples from others, for checkpoints: a run is not taken up on other data.
    fn fingerprint(&self) -> u64 {
        0
    }
}

/// Samples in an order and a form in which training sees them: for what measures a network as it is trained.
pub struct Changed {
    data: Arc<dyn TrainingData>,
    order: Order,
    augment: Augment,
}

impl Changed {
    /// The samples of the epoch of this number.
    pub fn new(data: Arc<dyn TrainingData>, seed: u64, epoch: usize, augment: Augment) -> Self {
        let order = Order::of(seed, epoch, data.len());
        Self { data, order, augment }
    }
}

impl DataSource for Changed {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn batch(&self, range: Range<usize>) -> Result<Vec<Field>, DataError> {
        self.data.gather(&self.order.picks(range, &self.augment))
    }
}

/// The samples of an epoch in their order.
pub(super) struct Order {
    seed: u64,
    epoch: usize,
    indices: Vec<usize>,
}

/// What a random number is for: streams do not meet.
const SHUFFLE: u64 = 1;
const PICTURE: u64 = 2;

impl Order {
    /// Shuffled by seed and epoch (Fisher and Yates).
    pub(super) fn of(seed: u64, epoch: usize, len: usize) -> Self {
        let mut indices: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            let draw = draw(seed, SHUFFLE, epoch, i);
            indices.swap(i, (draw % (i as u64 + 1)) as usize);
        }
        Self { seed, epoch, indices }
    }

    /// The samples at these places, with what is done to their pictures.
    pub(super) fn picks(&self, places: Range<usize>, augment: &Augment) -> Vec<Pick> {
        let spread = 2 * augment.crop as u64 + 1;
        self.indices
            .get(places)
            .unwrap_or_default()
            .iter()
            .map(|&index| {
                let draw = draw(self.seed, PICTURE, self.epoch, index);
                let shift = |d: u64| (d % spread) as isize - augment.crop as isize;
                Pick {
                    index,
                    down: shift(draw & 0xffff_ffff),
                    right: shift(draw >> 33),
                    mirror: augment.flip && draw >> 32 & 1 == 1,
                }
            })
            .collect()
    }
}

/// 64 random bits that depend on these numbers only.
fn draw(seed: u64, stream: u64, epoch: usize, index: usize) -> u64 {
    bits(bits(bits(seed, stream), epoch as u64), index as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_sample_once_and_another_order_each_time() {
        let (a, b) = (Order::of(7, 0, 100), Order::of(7, 1, 100));
        let mut sorted = a.indices.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(a.indices, b.indices);
        assert_ne!(a.indices, sorted);
        assert_eq!(a.indices, Order::of(7, 0, 100).indices);
    }

    #[test]
    fn pictures_move_both_ways_and_half_of_them_are_mirrored() {
        let order = Order::of(1, 3, 4000);
        let picks = order.picks(0..4000, &Augment { crop: 4, flip: true });
        for wanted in -4..=4 {
            assert!(picks.iter().any(|p| p.down == wanted) && picks.iter().any(|p| p.right == wanted));
        }
        assert!(picks.iter().all(|p| p.down.abs() <= 4 && p.right.abs() <= 4));
        let mirrored = picks.iter().filter(|p| p.mirror).count();
        assert!((1800..2200).contains(&mirrored), "{mirrored}");
        assert!(order.picks(0..9, &Augment::default()).iter().all(|p| *p == Pick::plain(p.index)));
    }
}
