//! Data movement as lists of runs. Which element goes where is found by letting the reference evaluator move
//! numbered elements, so every operation that moves data is understood without code of its own.

use super::slot::Slot;
use gs_eval::{Evaluator, Storage, Tensor};
use gs_ir::{ElemType, Module, OpId, SymbolId};

/// A contiguous piece that is copied.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Which of the operands it comes from.
    from: usize,
    /// Where it begins there, and in the result.
    src: usize,
    dst: usize,
    len: usize,
}

/// Where an element of the result lies, which element of which operand it is (none: a constant), and its number.
type Place = (usize, Option<(usize, usize)>, i64);

/// What one sample's movement does.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    runs: Vec<Run>,
    /// Elements that are set: where, how many, to what.
    fills: Vec<(usize, usize, f64)>,
}

/// Numbers above this name elements; what is below is a constant that the operation put there.
const FIRST: i64 = 1 << 40;
/// Samples larger than this are not followed element by element.
const LIMIT: usize = 1 << 24;

impl Moves {
    /// Follows an operation that moves the elements of each sample by itself; `None` where it does not, or where
    /// it is too large. `operands` has `None` for a constant operand, given in `constants`.
    pub(crate) fn follow(
        module: &Module,
        op: OpId,
        operands: &[Option<&Slot>],
        constants: &[Option<Tensor>],
        result: &Slot,
        symbols: &dyn Fn(SymbolId) -> Option<i64>,
        batch: Option<SymbolId>,
    ) -> Option<Self> {
        if result.count() > LIMIT || operands.iter().flatten().any(|s| s.count() > LIMIT) {
            return None;
        }
        // Two samples show whether samples are kept apart.
        let two = |s: SymbolId| if Some(s) == batch { Some(2) } else { symbols(s) };
        let mut next = FIRST;
        let mut starts = Vec::new();
        let mut tensors = Vec::new();
        for (slot, constant) in operands.iter().zip(constants) {
            let Some(slot) = slot else {
                starts.push(None);
                tensors.push(constant.clone());
                continue;
            };
            let count = slot.count();
            let ids: Vec<i64> = (0..2 * count as i64).map(|i| next + i).collect();
            starts.push(Some(next));
            next += 2 * count as i64;
            let dims: Vec<usize> = std::iter::once(2).chain(slot.dims.iter().copied()).collect();
            tensors.push(Some(Tensor::new(ElemType::I64, dims, Storage::I64(ids)).ok()?));
        }
        let moved = Evaluator::new().eval_op(module, op, &tensors, &two).ok()?;
        let moved = moved.first()?;
        let ids = moved.as_i64()?;
        if moved.dims().first() != Some(&2) || moved.dims().get(1..) != Some(result.dims.as_slice()) {
            return None;
        }
        let (first, second) = ids.split_at(result.count());
        let source = |id: i64| -> Option<(usize, usize)> {
            (0..starts.len()).rev().find_map(|k| {
                let start = starts[k].filter(|&s| id >= s)?;
                Some((k, (id - start) as usize))
            })
        };
        let mut places: Vec<Place> = Vec::with_capacity(first.len());
        for (i, (&a, &b)) in first.iter().zip(second).enumerate() {
            let from = if a < FIRST {
                (a == b).then_some(None)?
            } else {
                let (k, index) = source(a)?;
                let slot = operands[k]?;
                // The second sample must be moved as the first.
                if source(b)? != (k, index + slot.count()) || index >= slot.count() {
                    return None;
                }
                Some((k, slot.offset(index)))
            };
            places.push((result.offset(i), from, a));
        }
        places.sort_unstable_by_key(|p| p.0);
        Some(Self::merge(&places))
    }

    /// Joins neighbouring elements to runs.
    fn merge(places: &[Place]) -> Self {
        let mut moves = Moves { runs: Vec::new(), fills: Vec::new() };
        for &(dst, from, value) in places {
            match from {
                Some((k, src)) => match moves.runs.last_mut() {
                    Some(r) if r.from == k && r.src + r.len == src && r.dst + r.len == dst => r.len += 1,
                    _ => moves.runs.push(Run { from: k, src, dst, len: 1 }),
                },
                None => match moves.fills.last_mut() {
                    Some((at, len, v)) if *at + *len == dst && *v == value as f64 => *len += 1,
                    _ => moves.fills.push((dst, 1, value as f64)),
                },
            }
        }
        moves
    }

    /// Moves one sample.
    pub(crate) fn run<T: Copy>(&self, operands: &[&[T]], result: &mut [T], value: impl Fn(f64) -> T) {
        for &(at, len, v) in &self.fills {
            result[at..at + len].fill(value(v));
        }
        for r in &self.runs {
            let source = operands[r.from];
            if r.len == 1 {
                result[r.dst] = source[r.src];
            } else {
                result[r.dst..r.dst + r.len].copy_from_slice(&source[r.src..r.src + r.len]);
            }
        }
    }
}
