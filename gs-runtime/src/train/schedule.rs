//! The order of a step: *regions*, which chunks of samples run through by themselves, and *waves* of whole pieces between
//! them, in levels that may run at the same time. A piece joins the region that is open where nothing that it reads is
//! still to come; so a normalisation, the convolution behind it and that one's statistics make one region.

use super::piece::{Batch, Home, Part, SamplePiece, Whole, WholePiece};
use rustc_hash::{FxHashMap, FxHashSet};

/// Sample pieces that are run chunk by chunk.
pub(super) type RegionDraft = Vec<SamplePiece>;

/// What is run after what.
pub(super) enum StageDraft<'m> {
    Region(RegionDraft),
    /// Levels, one after the other.
    Wave(Vec<Vec<WholePiece<'m>>>),
}

/// Takes pieces in program order.
#[derive(Default)]
pub(super) struct Schedule<'m> {
    stages: Vec<StageDraft<'m>>,
    /// What comes before the open region, what is in it, what comes after.
    before: Vec<WholePiece<'m>>,
    region: RegionDraft,
    after: Vec<WholePiece<'m>>,
    /// Of the open region: batch values and sums that it writes, homes that it reads.
    made: FxHashSet<Batch>,
    summed: FxHashSet<Part>,
    read: FxHashSet<Home>,
    /// Homes that `after` reads and writes.
    after_reads: FxHashSet<Home>,
    after_writes: FxHashSet<Home>,
}

impl<'m> Schedule<'m> {
    /// Adds a sample piece.
    pub(super) fn sample(&mut self, piece: SamplePiece) {
        if piece.homes.iter().any(|h| self.after_writes.contains(h)) {
            self.close();
        }
        self.made.extend(piece.write);
        self.made.extend(piece.kept);
        self.summed.extend(piece.part);
        self.read.extend(&piece.homes);
        self.region.push(piece);
    }

    /// Adds a whole piece.
    pub(super) fn whole(&mut self, piece: WholePiece<'m>) {
        let waits = piece.reads.iter().any(|h| self.after_writes.contains(h))
            || piece.part.is_some_and(|p| self.summed.contains(&p))
            || matches!(piece.kernel, Whole::Leave(v) if self.made.contains(&v))
            || piece.writes.iter().any(|h| {
                self.read.contains(h) || self.after_reads.contains(h) || self.after_writes.contains(h)
            });
        if waits {
            self.after_reads.extend(&piece.reads);
            self.after_writes.extend(&piece.writes);
            self.after.push(piece);
        } else {
            self.before.push(piece);
        }
    }

    fn close(&mut self) {
        let before = std::mem::take(&mut self.before);
        if !before.is_empty() {
            self.stages.push(StageDraft::Wave(levels(before)));
        }
        let region = std::mem::take(&mut self.region);
        if !region.is_empty() {
            self.stages.push(StageDraft::Region(region));
        }
        self.before = std::mem::take(&mut self.after);
        self.made.clear();
        self.summed.clear();
        self.read.clear();
        self.after_reads.clear();
        self.after_writes.clear();
    }

    /// All stages.
    pub(super) fn finish(mut self) -> Vec<StageDraft<'m>> {
        self.close();
        self.close();
        self.stages
    }
}

/// Sorts pieces into levels: each behind what it reads or overwrites.
fn levels(pieces: Vec<WholePiece<'_>>) -> Vec<Vec<WholePiece<'_>>> {
    let mut levels: Vec<Vec<WholePiece<'_>>> = Vec::new();
    // The first level at which a home may be read, and may be written.
    let mut readable: FxHashMap<Home, usize> = FxHashMap::default();
    let mut writable: FxHashMap<Home, usize> = FxHashMap::default();
    for piece in pieces {
        let after = |of: &FxHashMap<Home, usize>, h: &Home| of.get(h).copied().unwrap_or(0);
        let reads = piece.reads.iter().map(|h| after(&readable, h));
        let writes = piece.writes.iter().map(|h| after(&writable, h).max(after(&readable, h)));
        let level = reads.chain(writes).max().unwrap_or(0);
        for &h in &piece.reads {
            let at = writable.entry(h).or_default();
            *at = (*at).max(level + 1);
        }
        for &h in &piece.writes {
            readable.insert(h, level + 1);
            writable.insert(h, level + 1);
        }
        if levels.len() <= level {
            levels.resize_with(level + 1, Vec::new);
        }
        levels[level].push(piece);
    }
    levels
}
