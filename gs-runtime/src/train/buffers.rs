//! Which batch values share a buffer. Only values of one layout do, so that spare pixels stay 0 once they are, and so that
//! a chunk's part of a buffer is the same whichever value lies there.

use super::piece::{BatchValue, SamplePiece, Whole};
use super::schedule::StageDraft;
use crate::plan::slot::{Layout, Slot};

/// The buffer of each value, and the elements that each buffer has for one sample. Pieces are told which operand's buffer
/// their result takes over.
pub(super) fn share(stages: &mut [StageDraft<'_>], values: &[BatchValue]) -> (Vec<usize>, Vec<usize>) {
    let mut last = vec![(0, 0); values.len()];
    each(stages, |at, reads, piece| {
        let (write, kept) = piece.map_or((None, None), |p| (p.write, p.kept));
        reads.iter().copied().chain(write).chain(kept).for_each(|v| last[v] = last[v].max(at));
    });
    let mut buffers: Vec<Slot> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer_of = vec![usize::MAX; values.len()];
    each(stages, |at, reads, piece| {
        let mut ending: Vec<usize> = reads.iter().copied().filter(|&v| last[v] == at).collect();
        ending.sort_unstable();
        ending.dedup();
        if let Some(piece) = piece
            && let Some(w) = piece.write
        {
            let slot = &values[w].slot;
            let once = |v: usize| reads.iter().filter(|&&r| r == v).count() == 1;
            let mut could = (0..piece.overwritable()).filter(|&k| {
                reads.get(k).is_some_and(|&v| ending.contains(&v) && once(v) && same(&values[v].slot, slot))
            });
            piece.in_place = could.next();
            if let Some(k) = piece.in_place {
                buffer_of[w] = buffer_of[reads[k]];
                ending.retain(|&v| v != reads[k]);
            } else {
                buffer_of[w] = take(slot, &mut free, &mut buffers);
            }
            if let Some(kept) = piece.kept {
                buffer_of[kept] = take(&values[kept].slot, &mut free, &mut buffers);
            }
            // What nothing reads.
            ending.extend([Some(w), piece.kept].into_iter().flatten().filter(|&v| last[v] == at));
        }
        free.extend(ending.into_iter().map(|v| buffer_of[v]).filter(|&b| b != usize::MAX));
    });
    (buffer_of, buffers.iter().map(Slot::len).collect())
}

/// A free buffer for a value, or a new one.
fn take(slot: &Slot, free: &mut Vec<usize>, buffers: &mut Vec<Slot>) -> usize {
    match free.iter().position(|&b| same(&buffers[b], slot)) {
        Some(i) => free.remove(i),
        None => {
            buffers.push(slot.clone());
            buffers.len() - 1
        }
    }
}

fn same(a: &Slot, b: &Slot) -> bool {
    match (&a.layout, &b.layout) {
        (Layout::Image(a), Layout::Image(b)) => a == b,
        (Layout::Rows, Layout::Rows) => a.count() == b.count(),
        _ => false,
    }
}

/// Calls `f` with the place and the values read of each piece in order, and with the piece if it is one of samples.
fn each(
    stages: &mut [StageDraft<'_>],
    mut f: impl FnMut((usize, usize), &[usize], Option<&mut SamplePiece>),
) {
    for (i, stage) in stages.iter_mut().enumerate() {
        match stage {
            StageDraft::Region(pieces) => {
                for (j, piece) in pieces.iter_mut().enumerate() {
                    let reads = piece.reads.clone();
                    f((i, j), &reads, Some(piece));
                }
            }
            StageDraft::Wave(levels) => {
                for (j, piece) in levels.iter().flatten().enumerate() {
                    if let Whole::Leave(value) = piece.kernel {
                        f((i, j), &[value], None);
                    }
                }
            }
        }
    }
}
