//! Observers that keep nothing but a range: the extremes, and the extremes smoothed over batches.

use super::scan::scan;
use super::{Observer, ObserverError, ObserverKind, Seen};
use crate::quant::{Grid, Range};
use serde::{Deserialize, Serialize};

/// Smallest and largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinMax {
    range: Option<Range>,
    seen: Seen,
}

fn union(a: Option<Range>, b: Option<Range>) -> Option<Range> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.union(b)),
        (one, other) => one.or(other),
    }
}

impl Observer for MinMax {
    fn observe(&mut self, values: &[f32]) {
        let range = &mut self.range;
        let seen = scan(values, |_, block| *range = union(*range, Some(block)));
        self.seen.add(seen);
    }

    fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        self.range = union(self.range, other.range);
        self.seen.add(other.seen);
        Ok(())
    }

    fn range(&self, _: Grid) -> Result<Range, ObserverError> {
        self.range.ok_or(ObserverError::Empty(self.seen))
    }

    fn seen(&self) -> Seen {
        self.seen
    }
}

/// Exponential moving average of each batch's extremes.
///
/// The first batch is copied; then `new = decay * old + (1 - decay) * batch`, so that a decay near one
/// remembers long. The result depends on the order of batches by its nature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    decay: f64,
    range: Option<Range>,
    seen: Seen,
}

/// A decay within 0 to 1; not a number is no memory.
fn usable(decay: f64) -> f64 {
    if decay.is_nan() { 0.0 } else { decay.clamp(0.0, 1.0) }
}

/// One step of the moving average, in `f64` and rounded once.
pub fn ema_step(old: Range, batch: Range, decay: f64) -> Range {
    let decay = usable(decay);
    let mix = |old: f32, new: f32| (decay * f64::from(old) + (1.0 - decay) * f64::from(new)) as f32;
    Range::spanning(mix(old.min(), batch.min()), mix(old.max(), batch.max()))
}

impl Ema {
    /// A moving average that keeps `decay` of its past at each batch; values outside of 0 to 1 are clamped.
    pub fn new(decay: f64) -> Self {
        Ema { decay: usable(decay), range: None, seen: Seen::default() }
    }
}

impl Observer for Ema {
    /// Call it once per batch. A batch without any finite value changes nothing.
    fn observe(&mut self, values: &[f32]) {
        let mut batch = None;
        let seen = scan(values, |_, block| batch = union(batch, Some(block)));
        self.seen.add(seen);
        self.range = match (self.range, batch) {
            (Some(old), Some(batch)) => Some(ema_step(old, batch, self.decay)),
            (old, batch) => batch.or(old),
        };
    }

    fn merge(&mut self, _: &Self) -> Result<(), ObserverError> {
        Err(ObserverError::NotMergeable(ObserverKind::Ema { decay: self.decay }))
    }

    fn range(&self, _: Grid) -> Result<Range, ObserverError> {
        self.range.ok_or(ObserverError::Empty(self.seen))
    }

    fn seen(&self) -> Seen {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_average_keeps_the_past() {
        let mut ema = Ema::new(0.99);
        ema.observe(&[-1.0, 2.0]);
        assert_eq!(ema.range(Grid::U8), Ok(Range::new(-1.0, 2.0).expect("valid")));
        ema.observe(&[-3.0, 4.0, f32::NAN]);
        let r = ema.range(Grid::U8).expect("observed");
        assert_eq!((r.min(), r.max()), (-1.02, 2.02));
        ema.observe(&[f32::INFINITY]);
        assert_eq!(ema.range(Grid::U8), Ok(r));
        assert_eq!(ema.seen(), Seen { finite: 4, nan: 1, infinite: 1 });
        assert!(matches!(ema.clone().merge(&ema), Err(ObserverError::NotMergeable(_))));
    }

    #[test]
    fn nothing_observed_is_an_error() {
        let mut o = MinMax::default();
        assert_eq!(o.range(Grid::U8), Err(ObserverError::Empty(Seen::default())));
        o.observe(&[f32::NAN, f32::INFINITY]);
        let Err(error) = o.range(Grid::U8) else { panic!("a range out of nothing") };
        assert!(error.to_string().contains("2 not finite"), "{error}");
    }

    #[test]
    fn minmax_keeps_the_sign_of_the_data() {
        let mut o = MinMax::default();
        o.observe(&[0.5, 3.0]);
        assert_eq!(o.range(Grid::U8), Ok(Range::new(0.5, 3.0).expect("valid")));
    }
}
