//! Operators that move elements along an axis, or pick some of them.

use super::*;

impl<'m> Solver<'m> {
    /// Axis i of the result is axis `perm[i]` of `x`.
    pub(super) fn transpose(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let made = match site.attrs.ints("perm") {
            Some(perm) => perm.iter().filter_map(|&p| axes.get(p as usize).copied()).collect(),
            None => axes.into_iter().rev().collect(),
        };
        self.result(site, made, 1);
    }

    /// Along `axis` the operands one after the other; other axes are tied.
    pub(super) fn concat(&mut self, site: &Site<'m>) {
        let parts: Vec<Slot> = site.operands.iter().flatten().copied().collect();
        let Some(&first) = parts.first() else { return self.opaque(site) };
        let mut axes = self.axes_of(first).to_vec();
        let along = self.axis_attr(site, "axis", axes.len());
        for (i, made) in axes.iter_mut().enumerate() {
            if i == along {
                continue;
            }
            for &part in &parts[1..] {
                let Some(&other) = self.axes_of(part).get(i) else { return self.opaque(site) };
                self.tie(site, *made, other);
                if matches!(other, Axis::Kept(_)) {
                    *made = other;
                }
            }
        }
        let mut labels = Vec::new();
        for &part in &parts {
            let (Some(&axis), Some(extent)) = (self.axes_of(part).get(along), self.extent(part, along))
            else {
                return self.without_axis(site, &parts, along, axes);
            };
            labels.extend(self.axes.written_out(axis, extent));
        }
        if along < axes.len() {
            axes[along] = self.axes.run(labels);
        }
        self.result(site, axes, site.operands.len());
    }

    /// Along an axis of unknown extent all parts are kept.
    fn without_axis(&mut self, site: &Site<'m>, parts: &[Slot], along: usize, mut axes: Vec<Axis>) {
        for &part in parts {
            if let Some(&axis) = self.axes_of(part).get(along) {
                self.keep(axis, Reason::Dynamic);
            }
        }
        if along < axes.len() {
            axes[along] = Axis::Kept(self.why(Reason::Dynamic));
        }
        self.result(site, axes, site.operands.len());
    }

    /// The results one after the other are `axis` of `x`; other axes pass.
    pub(super) fn split(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let along = self.axis_attr(site, "axis", axes.len());
        let Some(&whole) = axes.get(along) else { return self.opaque(site) };
        let mut start = 0;
        for &y in &site.results {
            let mut made = axes.clone();
            made[along] = match (whole, self.extent(y, along)) {
                (Axis::Run(run), Some(n)) if start + n <= self.axes.labels_of(run).len() => {
                    let labels = self.axes.labels_of(run)[start..start + n].to_vec();
                    start += n;
                    self.axes.run(labels)
                }
                (Axis::Kept(_), _) => whole,
                _ => self.fix(site, whole, "x"),
            };
            self.axes.set(y, made);
        }
        self.result_rest(site, 1);
    }

    fn result_rest(&mut self, site: &Site<'m>, from: usize) {
        for slot in site.operands.iter().skip(from).flatten() {
            self.keep_all(*slot, Reason::Fixed { op: site.op, name: "" });
        }
    }

    /// Along `axes` a part; other axes pass.
    pub(super) fn slice(&mut self, site: &Site<'m>, x: Slot) {
        let mut axes = self.axes_of(x).to_vec();
        let (Some(starts), Some(ends)) = (site.attrs.ints("starts"), site.attrs.ints("ends")) else {
            return self.opaque(site);
        };
        let steps =
            site.decl.list(site.attrs, "steps", starts.len()).unwrap_or_else(|| vec![1; starts.len()]);
        for (i, (&start, &end)) in starts.iter().zip(ends).enumerate() {
            let at =
                site.attrs.ints("axes").map_or(i, |a| from_front(a.get(i).copied().unwrap_or(0), axes.len()));
            let (Some(&axis), Some(&step)) = (axes.get(at), steps.get(i)) else { return self.opaque(site) };
            let Axis::Run(run) = axis else { continue };
            if step != 1 {
                // Of every other element, some may go: the rest is no such row.
                axes[at] = self.fix(site, axis, "x");
                continue;
            }
            let labels = self.axes.labels_of(run).to_vec();
            let picked = picked(labels.len() as i64, start, end, step);
            axes[at] = self.axes.run(picked.into_iter().map(|p| labels[p]).collect());
        }
        self.result(site, axes, 1);
    }

    /// New elements around the old ones, each of its own; a border that mirrors what is there keeps it.
    pub(super) fn pad(&mut self, site: &Site<'m>, x: Slot) {
        let mut axes = self.axes_of(x).to_vec();
        let Some(pads) = site.attrs.ints("pads").filter(|p| p.len() == 2 * axes.len()) else {
            return self.opaque(site);
        };
        let is_constant = site.decl.word(site.attrs, "mode") == Some("constant");
        let rank = axes.len();
        for (i, axis) in axes.iter_mut().enumerate() {
            let (before, after) = (pads[i], pads[rank + i]);
            let Axis::Run(run) = *axis else { continue };
            if (before, after) == (0, 0) {
                continue;
            }
            if !is_constant {
                *axis = self.fix(site, *axis, "x");
                continue;
            }
            let old = self.axes.labels_of(run).to_vec();
            let cut = |n: i64| usize::try_from(-n).unwrap_or(0).min(old.len());
            let (from, to) = (cut(before), old.len() - cut(after));
            let mut labels: Vec<_> = (0..before).map(|_| self.axes.labels.atom()).collect();
            labels.extend_from_slice(old.get(from..to).unwrap_or(&[]));
            labels.extend((0..after).map(|_| self.axes.labels.atom()));
            *axis = self.axes.run(labels);
        }
        self.result(site, axes, 1);
    }

    /// An axis that is repeated has each label as many times.
    pub(super) fn tile(&mut self, site: &Site<'m>, x: Slot) {
        let Some(&y) = site.results.first() else { return };
        let mut axes = self.axes_of(x).to_vec();
        for (i, axis) in axes.iter_mut().enumerate() {
            let Axis::Run(run) = *axis else { continue };
            let labels = self.axes.labels_of(run).to_vec();
            let times = self.extent(y, i).map_or(0, |n| n / labels.len().max(1));
            if times != 1 {
                *axis = self.axes.run(labels.iter().copied().cycle().take(labels.len() * times).collect());
            }
        }
        self.result(site, axes, 1);
    }

    /// What is picked from stays as it is; the other axes of `data` pass, around those of `indices`.
    pub(super) fn gather(&mut self, site: &Site<'m>, data: Slot) {
        let mut axes = self.axes_of(data).to_vec();
        let at = self.axis_attr(site, "axis", axes.len());
        let Some(&picked) = axes.get(at) else { return self.opaque(site) };
        self.fix(site, picked, "data");
        let indices = site.operands.get(1).copied().flatten();
        let of = indices.map_or(Vec::new(), |s| self.axes_of(s).to_vec());
        axes.splice(at..=at, of);
        self.result(site, axes, site.operands.len());
    }
}

/// The places that a slice takes of `n`, as ONNX reads `start` and `end`.
fn picked(n: i64, start: i64, end: i64, step: i64) -> Vec<usize> {
    let from_front = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = (from_front(start), from_front(end));
    if step > 0 {
        (start.clamp(0, n)..end.clamp(0, n)).step_by(step as usize).map(|i| i as usize).collect()
    } else if step < 0 {
        let (first, last) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
        let back = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
        (last + 1..=first).rev().step_by(back).map(|i| i as usize).collect()
    } else {
        Vec::new()
    }
}
