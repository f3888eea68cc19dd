//! Element-wise operators, products of matrices, normalisation and reductions.

use super::*;
use crate::groups::solver::{Edge, WeightUse};
use gs_ir::Dim;

impl<'m> Solver<'m> {
    /// All axes are tied after broadcasting: an axis of one element takes no part where others have more.
    pub(super) fn elementwise(&mut self, site: &Site<'m>) {
        for &y in &site.results {
            let rank = self.dims(y).map_or(0, <[Dim]>::len);
            let axes = (0..rank).map(|i| self.aligned(site, y, rank - 1 - i)).collect::<Vec<_>>();
            self.axes.set(y, axes);
        }
    }

    /// The axis of a result that is `from_end` axes from the end, all operands' tied to it.
    fn aligned(&mut self, site: &Site<'m>, y: Slot, from_end: usize) -> Axis {
        let dims = self.dims(y).unwrap_or(&[]);
        let extent = &dims[dims.len() - 1 - from_end];
        let mut one = None;
        for slot in site.operands.iter().flatten().copied() {
            let of = self.dims(slot).unwrap_or(&[]);
            let Some(at) = of.len().checked_sub(1 + from_end) else { continue };
            if !of[at].same(extent) {
                continue;
            }
            let axis = self.axes_of(slot)[at];
            match one {
                None => one = Some(axis),
                Some(first) => {
                    self.tie(site, first, axis);
                    // A kept axis stands for what is tied to it.
                    if matches!(axis, Axis::Kept(_)) {
                        one = Some(axis);
                    }
                }
            }
        }
        one.unwrap_or_else(|| Axis::Kept(self.why(Reason::Dynamic)))
    }

    /// Last axis of `a` and last but one of `b` are summed away; rows, columns and batch axes pass.
    pub(super) fn matmul(&mut self, site: &Site<'m>) {
        let ((Some(a), a_at), (Some(b), b_at)) = (operand(site, "a", 0), operand(site, "b", 1)) else {
            return self.opaque(site);
        };
        let (ra, rb) = (self.axes_of(a).len(), self.axes_of(b).len());
        if ra == 0 || rb == 0 {
            return self.opaque(site);
        }
        let (row, sum_b) = (ra >= 2, rb.saturating_sub(2));
        let (ka, kb) = (self.axes_of(a)[ra - 1], self.axes_of(b)[sum_b]);
        self.tie(site, ka, kb);
        self.edges.push(Edge { op: site.op, operand: a_at, axis: ra - 1 });
        self.weights.push(WeightUse { op: site.op, operand: b_at, summed: sum_b, made: None });
        let batch = ra.max(rb).saturating_sub(2);
        let mut axes = Vec::with_capacity(batch + 2);
        for i in 0..batch {
            let at = |rank: usize| (i + rank).checked_sub(batch + 2).filter(|_| rank >= 2);
            axes.push(match (at(ra), at(rb)) {
                (Some(p), Some(q)) => self.broadcast(site, (a, p), (b, q)),
                (Some(p), None) => self.axes_of(a)[p],
                (None, Some(q)) => self.axes_of(b)[q],
                (None, None) => self.single(),
            });
        }
        if row {
            axes.push(self.axes_of(a)[ra - 2]);
        }
        if rb >= 2 {
            axes.push(self.axes_of(b)[rb - 1]);
        }
        let others: Vec<Slot> = site
            .operands
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != a_at && *i != b_at)
            .filter_map(|(_, s)| *s)
            .collect();
        for slot in others {
            self.keep_all(slot, Reason::Fixed { op: site.op, name: "" });
        }
        if let (true, Some(weight)) = (rb >= 2, self.weights.last_mut()) {
            weight.made = Some(axes.len() - 1);
        }
        self.result(site, axes, site.operands.len());
    }

    /// The axis that two axes broadcast to.
    fn broadcast(&mut self, site: &Site<'m>, (a, p): (Slot, usize), (b, q): (Slot, usize)) -> Axis {
        let (x, y) = (self.axes_of(a)[p], self.axes_of(b)[q]);
        match (self.extent(a, p), self.extent(b, q)) {
            (Some(1), _) => y,
            (_, Some(1)) => x,
            _ => {
                self.tie(site, x, y);
                x
            }
        }
    }

    /// As `matmul` of matrices that may be transposed; `c` is tied to the result where it is not broadcast.
    pub(super) fn gemm(&mut self, site: &Site<'m>) {
        let ((Some(a), a_at), (Some(b), b_at)) = (operand(site, "a", 0), operand(site, "b", 1)) else {
            return self.opaque(site);
        };
        if self.axes_of(a).len() != 2 || self.axes_of(b).len() != 2 {
            return self.opaque(site);
        }
        let flag = |name| usize::from(site.decl.flag(site.attrs, name));
        let (ta, tb) = (flag("trans_a"), flag("trans_b"));
        let (ka, kb) = (self.axes_of(a)[1 - ta], self.axes_of(b)[tb]);
        self.tie(site, ka, kb);
        self.edges.push(Edge { op: site.op, operand: a_at, axis: 1 - ta });
        self.weights.push(WeightUse { op: site.op, operand: b_at, summed: tb, made: Some(1) });
        let axes = [self.axes_of(a)[ta], self.axes_of(b)[1 - tb]];
        let c = operand(site, "c", 2).0;
        if let (Some(c), Some(&y)) = (c, site.results.first()) {
            let rank = self.axes_of(c).len();
            for (i, axis) in axes.iter().enumerate() {
                let Some(at) = (rank + i).checked_sub(2) else { continue };
                if self.extent(c, at) == self.extent(y, i) && self.extent(c, at).is_some() {
                    let other = self.axes_of(c)[at];
                    self.tie(site, *axis, other);
                }
            }
        }
        self.result(site, axes.into(), 3);
    }

    /// All axes pass; over those from `axis` on, statistics are computed.
    pub(super) fn layer_norm(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let first = self.axis_attr(site, "axis", axes.len());
        for &axis in &axes[first.min(axes.len())..] {
            self.mixed.push((axis, site.op));
        }
        for slot in site.operands.iter().skip(1).flatten().copied() {
            let rank = self.axes_of(slot).len();
            for at in 0..rank {
                let Some(i) = (at + axes.len()).checked_sub(rank) else { continue };
                if self.extent(slot, at) == self.extent(x, i) {
                    let other = self.axes_of(slot)[at];
                    self.tie(site, axes[i], other);
                }
            }
        }
        self.result(site, axes, site.operands.len());
    }

    /// Reduced axes go; the others pass.
    pub(super) fn reduce(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let listed: Option<Vec<usize>> = site
            .attrs
            .ints("axes")
            .map(|l| l.iter().map(|&a| if a < 0 { a + axes.len() as i64 } else { a } as usize).collect());
        let all =
            listed.as_ref().is_none_or(Vec::is_empty) && !site.decl.flag(site.attrs, "noop_with_empty_axes");
        let keepdims = site.decl.flag(site.attrs, "keepdims");
        let mut kept = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            if !all && !listed.as_ref().is_some_and(|l| l.contains(&i)) {
                kept.push(axis);
                continue;
            }
            // A sum is the same with zeros; a mean has another divisor, an extreme may be the zero.
            match site.decl.name {
                "reduce_sum" => self.edges.push(Edge { op: site.op, operand: 0, axis: i }),
                _ => self.mixed.push((axis, site.op)),
            }
            if keepdims {
                kept.push(self.single());
            }
        }
        self.result(site, kept, 1);
    }

    /// All axes pass but those that are normalised over.
    pub(super) fn softmax(&mut self, site: &Site<'m>, x: Slot) {
        let mut axes = self.axes_of(x).to_vec();
        let axis = self.axis_attr(site, "axis", axes.len());
        let last = if site.decl.flag(site.attrs, "legacy") { axes.len() } else { axis + 1 };
        for a in axes.iter_mut().take(last).skip(axis) {
            *a = self.fix(site, *a, "x");
        }
        self.result(site, axes, 1);
    }

    /// Batch and channels pass; spatial axes stay as they are.
    pub(super) fn pool(&mut self, site: &Site<'m>, x: Slot) {
        let mut axes = self.axes_of(x).to_vec();
        let rank = axes.len();
        let channel = if site.decl.flag(site.attrs, "channels_last") { rank.saturating_sub(1) } else { 1 };
        for (i, axis) in axes.iter_mut().enumerate() {
            if i != 0 && i != channel {
                *axis = self.fix(site, *axis, "x");
            }
        }
        self.result(site, axes, 1);
    }

    /// All axes pass; a scale for each element of an axis goes along, blocks of elements stay whole.
    pub(super) fn quantize(&mut self, site: &Site<'m>, x: Slot) {
        let mut axes = self.axes_of(x).to_vec();
        let axis = self.axis_attr(site, "axis", axes.len());
        let block = site.decl.int(site.attrs, "block").and_then(|b| usize::try_from(b).ok()).unwrap_or(0);
        for slot in site.operands.iter().skip(1).flatten().copied() {
            let of = self.axes_of(slot).to_vec();
            for (at, &scale) in of.iter().enumerate() {
                let i = if of.len() == 1 { axis } else { at };
                let (Some(n), Some(m)) = (axes.get(i).and(self.extent(x, i)), self.extent(slot, at)) else {
                    continue;
                };
                match m {
                    1 => {}
                    _ if m == n => self.tie(site, axes[i], scale),
                    _ if block > 0 && m * block == n => {
                        let why = self.why(Reason::Fixed { op: site.op, name: "x" });
                        let (blocks, within) = self.axes.split(axes[i], (m, block), why);
                        self.axes.keep(within, why);
                        self.tie(site, blocks, scale);
                    }
                    _ => {
                        axes[i] = self.fix(site, axes[i], "x");
                        self.fix(site, scale, "scale");
                    }
                }
            }
        }
        self.result(site, axes, site.operands.len());
    }

    /// An axis that an attribute names, counted from the front.
    pub(super) fn axis_attr(&self, site: &Site<'m>, name: &str, rank: usize) -> usize {
        let axis = site.decl.int(site.attrs, name).unwrap_or(0);
        (if axis < 0 { axis + rank as i64 } else { axis }).max(0) as usize
    }
}

/// The operand of this name, with its place.
fn operand(site: &Site<'_>, name: &str, or: usize) -> (Option<Slot>, usize) {
    let at = site.decl.operand_index(name).unwrap_or(or);
    (site.operands.get(at).copied().flatten(), at)
}
