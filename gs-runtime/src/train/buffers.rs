//! Which batch values share a buffer. Only values of one layout do, so that spare pixels stay 0 once they are, and so that
//! a chunk's part of a buffer is the same whichever value lies there.

use super::piece::{BatchValue, Whole};
use super::schedule::StageDraft;
use crate::plan::slot::{Layout, Slot};

/// The buffer of each value, and the elements that each buffer has for one sample.
pub(super) fn share(stages: &[StageDraft<'_>], values: &[BatchValue]) -> (Vec<usize>, Vec<usize>) {
    let mut last = vec![(0, 0); values.len()];
    each(stages, |at, reads, write| {
        reads.iter().for_each(|&r| last[r] = last[r].max(at));
        if let Some(w) = write {
            last[w] = last[w].max(at);
        }
    });
    let mut buffers: Vec<Slot> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer_of = vec![usize::MAX; values.len()];
    each(stages, |at, reads, write| {
        if let Some(w) = write {
            let slot = &values[w].slot;
            let found = free.iter().position(|&b| same(&buffers[b], slot));
            buffer_of[w] = match found {
                Some(i) => free.remove(i),
                None => {
                    buffers.push(slot.clone());
                    buffers.len() - 1
                }
            };
        }
        let mut ending: Vec<usize> = reads.iter().copied().chain(write).filter(|&v| last[v] == at).collect();
        ending.sort_unstable();
        ending.dedup();
        free.extend(ending.into_iter().map(|v| buffer_of[v]).filter(|&b| b != usize::MAX));
    });
    (buffer_of, buffers.iter().map(Slot::len).collect())
}

fn same(a: &Slot, b: &Slot) -> bool {
    match (&a.layout, &b.layout) {
        (Layout::Image(a), Layout::Image(b)) => a == b,
        (Layout::Rows, Layout::Rows) => a.count() == b.count(),
        _ => false,
    }
}

/// Calls `f` with the place, the values read and the value written of each piece in order.
fn each(stages: &[StageDraft<'_>], mut f: impl FnMut((usize, usize), &[usize], Option<usize>)) {
    for (i, stage) in stages.iter().enumerate() {
        match stage {
            StageDraft::Region(pieces) => {
                pieces.iter().enumerate().for_each(|(j, p)| f((i, j), &p.reads, p.write));
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
