//! Where the time of a step goes.

use gs_ir::OpId;
use rustc_hash::FxHashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Time spent for an operation, by what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// The operation; `None` for what the plan does by itself.
    pub op: Option<OpId>,
    /// What was done.
    pub what: &'static str,
    /// The time of all threads together.
    pub time: Duration,
}

/// Adds times up.
#[derive(Default)]
pub(super) struct Clock {
    spent: Mutex<FxHashMap<(Option<OpId>, &'static str), Duration>>,
}

impl Clock {
    pub(super) fn add(&self, op: Option<OpId>, what: &'static str, time: Duration) {
        let mut spent = self.spent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *spent.entry((op, what)).or_default() += time;
    }

    /// All times, in the order of operations.
    pub(super) fn read(&self) -> Vec<Spent> {
        let spent = self.spent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut all: Vec<Spent> = spent.iter().map(|(&(op, what), &time)| Spent { op, what, time }).collect();
        all.sort_unstable_by_key(|s| (s.op, s.what));
        all
    }
}
