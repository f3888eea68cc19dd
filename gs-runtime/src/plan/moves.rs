//! Data movement as lists of runs. Which element goes where is found by letting the reference evaluator move
//! numbered elements, so every operation that moves data is understood without code of its own. What the operation
//! puts there itself (padding, a constant operand) is never read off the numbers: it is what does not change with
//! them, and its value comes from an evaluation in the real element type.

use super::recipe::Site;
use super::slot::{Code, Slot};
use gs_eval::{Elements, Evaluator, Storage, Tensor};
use gs_ir::registry::QRole;
use gs_ir::{ElemType, SymbolId};

/// A contiguous piece of a result, in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: Origin,
    len: usize,
}

/// Where the elements of a piece come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// From one of the values read, beginning at this element.
    Read(usize, usize),
    /// From the operation itself: the bits of an `f32`, or a byte.
    Fill(u32),
}

/// What an operation does with the elements of one sample, before buffers are laid out.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pieces: Vec<Piece>,
}

/// The samples of a batch, for operations that are followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    /// The symbol that counts them, if the batch is one symbol.
    pub(crate) symbol: Option<SymbolId>,
    /// How many there are.
    pub(crate) size: usize,
}

/// Movements of more elements are not followed.
const LIMIT: usize = 1 << 24;
/// By how much numbers are shifted to see which ones are the operation's own.
const SHIFT: i64 = 1 << 40;

impl Trace {
    /// Follows an operation that moves the elements of each sample by itself; `None` where it does not, or where
    /// it is too large.
    pub(crate) fn follow(
        site: &Site<'_>,
        symbols: &dyn Fn(SymbolId) -> Option<i64>,
        batch: Batch,
    ) -> Option<Self> {
        // Two samples show whether samples are kept apart; a batch of fixed size cannot be made smaller.
        let samples = if batch.symbol.is_some() { 2 } else { batch.size };
        let symbols = |s: SymbolId| if Some(s) == batch.symbol { Some(2) } else { symbols(s) };
        let count = site.result.count();
        let reads: Vec<&Slot> = site.slots.iter().copied().flatten().collect();
        let total = reads.iter().try_fold(count, |n, s| n.checked_add(s.count()))?.checked_mul(samples)?;
        if total > LIMIT || reads.iter().any(|s| s.code != site.result.code) {
            return None;
        }
        let ids = Self::moved(site, samples, &symbols, &numbered(site, samples, 0)?)?;
        let shifted = Self::moved(site, samples, &symbols, &numbered(site, samples, SHIFT)?)?;
        let (ids, shifted) = (ids.as_i64()?, shifted.as_i64()?);
        let mut fills: Option<Tensor> = None;
        let mut pieces = Vec::new();
        for i in 0..count {
            let own = ids[i] == shifted[i];
            let from = if own {
                if fills.is_none() {
                    fills = Some(Self::moved(site, samples, &symbols, &zeros(site, samples)?)?);
                }
                let fills = fills.as_ref()?;
                let fill = bits(fills, i)?;
                let same = |s: usize| {
                    ids[s * count + i] == shifted[s * count + i] && bits(fills, s * count + i) == Some(fill)
                };
                (1..samples).all(same).then_some(Origin::Fill(fill))?
            } else {
                let (read, at) = source(&reads, samples, ids[i])?;
                // Every sample must be moved as the first.
                let step = reads[read].count();
                let kept = |s: usize| {
                    let (a, b) = (ids[s * count + i], shifted[s * count + i]);
                    b.checked_sub(a) == Some(SHIFT) && a == ids[i] + (s * step) as i64
                };
                ((0..samples).all(kept) && at < step).then_some(Origin::Read(read, at))?
            };
            append(&mut pieces, from);
        }
        Some(Trace { pieces })
    }

    /// The result of the operation on these operands, if it is as large as it should be.
    fn moved(
        site: &Site<'_>,
        samples: usize,
        symbols: &dyn Fn(SymbolId) -> Option<i64>,
        operands: &[Option<Tensor>],
    ) -> Option<Tensor> {
        let results = Evaluator::new().eval_op(site.module, site.op, operands, symbols).ok()?;
        let moved = results.into_iter().next()?;
        let fits = moved.dims().split_first() == Some((&samples, site.result.dims.as_slice()));
        fits.then_some(moved)
    }

    /// The runs between buffers of these layouts.
    pub(crate) fn lay_out(&self, reads: &[&Slot], result: &Slot) -> Moves {
        let mut places: Vec<Place> = Vec::with_capacity(result.count());
        for piece in &self.pieces {
            for i in 0..piece.len {
                let from = match piece.from {
                    Origin::Fill(bits) => Origin::Fill(bits),
                    Origin::Read(read, start) => {
                        Origin::Read(read, reads.get(read).map_or(0, |s| s.offset(start + i)))
                    }
                };
                places.push((result.offset(places.len()), from));
            }
        }
        places.sort_unstable_by_key(|p| p.0);
        Moves::merge(&places)
    }
}

/// Adds an element to the last piece, or begins another.
fn append(pieces: &mut Vec<Piece>, from: Origin) {
    if let Some(last) = pieces.last_mut() {
        let follows = match (last.from, from) {
            (Origin::Fill(a), Origin::Fill(b)) => a == b,
            (Origin::Read(a, start), Origin::Read(b, at)) => a == b && start + last.len == at,
            _ => false,
        };
        if follows {
            last.len += 1;
            return;
        }
    }
    pieces.push(Piece { from, len: 1 });
}

/// Operands whose elements are numbered, from `base` on: value after value, each sample after sample. Constants among
/// the data are zeros, so that they do not change with the numbers.
fn numbered(site: &Site<'_>, samples: usize, base: i64) -> Option<Vec<Option<Tensor>>> {
    let mut next = base;
    operands(site, |slot, constant| match (slot, constant) {
        (Some(slot), _) => {
            let n = (samples * slot.count()) as i64;
            let ids = (next..next + n).collect();
            next += n;
            Tensor::new(ElemType::I64, batch_dims(slot, samples), Storage::I64(ids)).ok()
        }
        (None, c) => Tensor::from_ints(ElemType::I64, c?.dims(), &vec![0; c?.len()]).ok(),
    })
}

/// Operands of the real element type, zero where they are not constants.
fn zeros(site: &Site<'_>, samples: usize) -> Option<Vec<Option<Tensor>>> {
    operands(site, |slot, constant| match slot {
        Some(slot) => {
            let n = samples * slot.count();
            let (elem, storage) = match slot.code {
                Code::F32 => (ElemType::F32, Storage::F32(vec![0.0; n])),
                Code::U8 => (ElemType::U8, Storage::U8(vec![0; n])),
                Code::I8 => (ElemType::I8, Storage::I8(vec![0; n])),
            };
            Tensor::new(elem, batch_dims(slot, samples), storage).ok()
        }
        None => constant.cloned(),
    })
}

/// One tensor per operand place; what is no data (indices, extents) is given as it is.
fn operands(
    site: &Site<'_>,
    mut data: impl FnMut(Option<&Slot>, Option<&Tensor>) -> Option<Tensor>,
) -> Option<Vec<Option<Tensor>>> {
    let decl = site.module.decl(site.op);
    let mut operands = Vec::with_capacity(site.slots.len());
    for (i, (slot, constant)) in site.slots.iter().zip(&site.constants).enumerate() {
        let moved = decl.operand(i).is_some_and(|o| o.role == QRole::Same);
        operands.push(match (slot, constant) {
            (None, None) => None,
            (None, Some(c)) if !moved => Some(c.clone()),
            (slot, constant) => Some(data(*slot, constant.as_ref())?),
        });
    }
    Some(operands)
}

fn batch_dims(slot: &Slot, samples: usize) -> Vec<usize> {
    std::iter::once(samples).chain(slot.dims.iter().copied()).collect()
}

/// Which of the values read an element of the first sample has its number from, and which element it is.
fn source(reads: &[&Slot], samples: usize, id: i64) -> Option<(usize, usize)> {
    let mut left = usize::try_from(id).ok()?;
    for (k, slot) in reads.iter().enumerate() {
        let n = samples * slot.count();
        if left < n {
            return Some((k, left));
        }
        left -= n;
    }
    None
}

/// An element as it is stored.
fn bits(tensor: &Tensor, i: usize) -> Option<u32> {
    match tensor.view().elements {
        Elements::F32(v) => v.get(i).map(|x| x.to_bits()),
        Elements::U8(v) => v.get(i).map(|&x| u32::from(x)),
        Elements::I8(v) => v.get(i).map(|&x| u32::from(x as u8)),
        _ => None,
    }
}

/// A contiguous piece that is copied.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Which of the values read it comes from.
    from: usize,
    /// Where it begins there, and in the result.
    src: usize,
    dst: usize,
    len: usize,
}

/// Where an element of the result lies, and where it comes from.
type Place = (usize, Origin);

/// What one sample's movement does, between buffers.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    runs: Vec<Run>,
    /// Elements that are set: where, how many, to what bits.
    fills: Vec<(usize, usize, u32)>,
}

impl Moves {
    /// Joins neighbouring elements to runs.
    fn merge(places: &[Place]) -> Self {
        let mut moves = Moves { runs: Vec::new(), fills: Vec::new() };
        for &(dst, from) in places {
            match from {
                Origin::Read(k, src) => match moves.runs.last_mut() {
                    Some(r) if r.from == k && r.src + r.len == src && r.dst + r.len == dst => r.len += 1,
                    _ => moves.runs.push(Run { from: k, src, dst, len: 1 }),
                },
                Origin::Fill(bits) => match moves.fills.last_mut() {
                    Some((at, len, v)) if *at + *len == dst && *v == bits => *len += 1,
                    _ => moves.fills.push((dst, 1, bits)),
                },
            }
        }
        moves
    }

    /// Moves one sample. `value` makes an element of its bits.
    pub(crate) fn run<T: Copy>(&self, operands: &[&[T]], result: &mut [T], value: impl Fn(u32) -> T) {
        for &(at, len, bits) in &self.fills {
            result[at..at + len].fill(value(bits));
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
