//! Observers: what is remembered of a tensor's values so that a quantisation range can be chosen later.
//!
//! An observer is streaming and of constant size (below 16 KiB per tensor), and its state is plain data that
//! can be serialised. Those meant for calibration can be merged, and their state is a function of the *set*
//! of values seen: neither the order, nor how the data was cut into batches, nor how many threads or
//! machines looked at it can change a single bit. That is why they hold integer counts and exact sums.
//!
//! | kind | remembers | range |
//! |---|---|---|
//! | `minmax` | the extreme values | those |
//! | `percentile` | a histogram | quantiles at both ends |
//! | `entropy` | a histogram | least Kullback-Leibler divergence |
//! | `mse` | a histogram | least quantisation error |
//! | `std` | exact sums | mean plus and minus k standard deviations |
//! | `ema` | smoothed extremes | those; depends on the order of batches, so for training only |
//!
//! Values that are not finite are counted and otherwise ignored; an observer that saw no finite value has
//! no range, which is an error and never a default.

mod entropy;
mod histogram;
mod kind;
mod moments;
mod mse;
mod percentile;
mod running;
mod scan;
mod weights;

pub use entropy::entropy_range;
pub use histogram::{Histogram, HistogramError, MAX_BINS};
pub use kind::{KindError, ObserverKind};
pub use moments::Moments;
pub use mse::{mse_range, mse_range_of_values};
pub use percentile::percentile_range;
pub use running::{Ema, MinMax, ema_step};
pub use scan::Seen;
pub use weights::{WeightRule, channel_ranges, value_range};

use crate::quant::{Grid, QuantError, Range};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why an observer has no range, or could not be merged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ObserverError {
    /// Nothing finite was observed.
    #[error("nothing to choose a range from: no finite value was observed ({} not finite)", .0.nan + .0.infinite)]
    Empty(Seen),
    /// Observers of two kinds were to be merged.
    #[error("an observer `{left}` cannot be merged with `{right}`")]
    KindMismatch {
        /// Kind of the observer merged into.
        left: ObserverKind,
        /// Kind of the other.
        right: ObserverKind,
    },
    /// The result would depend on the order.
    #[error("an observer `{0}` depends on the order of batches and cannot be merged")]
    NotMergeable(ObserverKind),
    /// A weight that is not finite, or a shape that does not fit.
    #[error(transparent)]
    Quant(#[from] QuantError),
}

/// Watches a tensor's values and proposes a range for them.
pub trait Observer: Clone + Send + Sync + Serialize + DeserializeOwned {
    /// Takes in a batch of values.
    fn observe(&mut self, values: &[f32]);

    /// Takes in what another observer has seen, as if it had been seen here.
    fn merge(&mut self, other: &Self) -> Result<(), ObserverError>;

    /// The range to quantise to on `grid`. It need not include zero; [`Grid::params`] sees to that.
    fn range(&self, grid: Grid) -> Result<Range, ObserverError>;

    /// How many values were seen, and of what sort.
    fn seen(&self) -> Seen;
}

/// An observer of any kind, as configured by an [`ObserverKind`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnyObserver {
    kind: ObserverKind,
    state: State,
}

/// What is stored; several kinds share the histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    MinMax(MinMax),
    Histogram(Histogram),
    Moments(Moments),
    Ema(Ema),
}

impl AnyObserver {
    /// An observer that has seen nothing.
    pub fn new(kind: ObserverKind) -> Self {
        let state = match kind {
            ObserverKind::MinMax => State::MinMax(MinMax::default()),
            ObserverKind::Percentile { .. } | ObserverKind::Entropy | ObserverKind::Mse { .. } => {
                State::Histogram(Histogram::default())
            }
            ObserverKind::Std { k } => State::Moments(Moments::new(k)),
            ObserverKind::Ema { decay } => State::Ema(Ema::new(decay)),
        };
        AnyObserver { kind, state }
    }

    /// Its kind.
    pub fn kind(&self) -> ObserverKind {
        self.kind
    }

    /// The histogram, for kinds that have one. One calibration run can so be asked for the ranges of
    /// several kinds, by [`ObserverKind::range_of`].
    pub fn histogram(&self) -> Option<&Histogram> {
        match &self.state {
            State::Histogram(histogram) => Some(histogram),
            _ => None,
        }
    }
}

impl Observer for AnyObserver {
    fn observe(&mut self, values: &[f32]) {
        match &mut self.state {
            State::MinMax(o) => o.observe(values),
            State::Histogram(o) => o.observe(values),
            State::Moments(o) => o.observe(values),
            State::Ema(o) => o.observe(values),
        }
    }

    fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        if self.kind != other.kind {
            return Err(ObserverError::KindMismatch { left: self.kind, right: other.kind });
        }
        match (&mut self.state, &other.state) {
            (State::MinMax(a), State::MinMax(b)) => a.merge(b),
            (State::Histogram(a), State::Histogram(b)) => {
                a.merge(b);
                Ok(())
            }
            (State::Moments(a), State::Moments(b)) => a.merge(b),
            (State::Ema(a), State::Ema(b)) => a.merge(b),
            // Only a forged file can pair a kind with another kind's state.
            _ => Err(ObserverError::KindMismatch { left: self.kind, right: other.kind }),
        }
    }

    fn range(&self, grid: Grid) -> Result<Range, ObserverError> {
        match &self.state {
            State::MinMax(o) => o.range(grid),
            State::Histogram(o) => self.kind.range_of(o, grid),
            State::Moments(o) => o.range(grid),
            State::Ema(o) => o.range(grid),
        }
    }

    fn seen(&self) -> Seen {
        match &self.state {
            State::MinMax(o) => o.seen(),
            State::Histogram(o) => o.seen(),
            State::Moments(o) => o.seen(),
            State::Ema(o) => o.seen(),
        }
    }
}
