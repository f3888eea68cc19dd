//! Operators that cut axes, join them, or add and drop axes of one element.

use super::*;
use gs_ir::{Dim, Role};

impl<'m> Solver<'m> {
    /// The same elements in other extents: axes pass, merge or are split, row-major.
    pub(super) fn reshape(&mut self, site: &Site<'m>, x: Slot) {
        if !self.has_constant_shape(site) {
            return self.opaque(site);
        }
        let Some(&y) = site.results.first() else { return };
        let (old, new) = (self.dims(x).unwrap_or(&[]), self.dims(y).unwrap_or(&[]));
        let mut axes: Vec<Option<Axis>> = vec![None; new.len()];
        let mut rest: Vec<usize> = Vec::new();
        for run in matching_runs(old, new) {
            match run {
                Matching::Same(i, j) => axes[j] = Some(self.axes_of(x)[i]),
                Matching::Numbers(from, to) => {
                    let made = self.recut(site, x, &from, y, &to);
                    for (j, axis) in to.iter().zip(made) {
                        axes[*j] = Some(axis);
                    }
                }
                Matching::Unknown(from) => rest.extend(from),
            }
        }
        let why = Reason::Shape { op: site.op };
        for i in rest {
            let axis = self.axes_of(x)[i];
            self.keep(axis, why.clone());
        }
        let axes = new
            .iter()
            .zip(axes)
            .map(|(d, a)| match a {
                Some(a) => a,
                None if d.as_const() == Some(1) => self.single(),
                None => Axis::Kept(self.why(why.clone())),
            })
            .collect();
        self.result(site, axes, 1);
    }

    /// Axes `from` of `x` cut anew into the axes `to` of `y`, both of the same number of elements. The places where both
    /// are cut must divide one another; else nothing may be dropped.
    fn recut(&mut self, site: &Site<'m>, x: Slot, from: &[usize], y: Slot, to: &[usize]) -> Vec<Axis> {
        let extents = |s: &Self, slot, at: &[usize]| -> Vec<usize> {
            at.iter().map(|&i| s.extent(slot, i).unwrap_or(0)).collect()
        };
        let (old, new) = (extents(self, x, from), extents(self, y, to));
        let mut cuts: Vec<usize> = [&old, &new]
            .into_iter()
            .flat_map(|e| {
                e.iter().scan(1usize, |n, &d| {
                    *n = n.saturating_mul(d);
                    Some(*n)
                })
            })
            .collect();
        cuts.push(1);
        cuts.sort_unstable();
        cuts.dedup();
        if cuts.windows(2).any(|w| w[0] == 0 || w[1] % w[0] != 0) {
            let why = Reason::Shape { op: site.op };
            for &i in from {
                let axis = self.axes_of(x)[i];
                self.keep(axis, why.clone());
            }
            return to.iter().map(|_| Axis::Kept(self.why(why.clone()))).collect();
        }
        let factors: Vec<usize> = cuts.windows(2).map(|w| w[1] / w[0]).collect();
        let mut parts: Vec<(Axis, usize)> = Vec::new();
        for (&i, &extent) in from.iter().zip(&old) {
            let (mut axis, mut left) = (self.axes_of(x)[i], extent);
            while left > 1 {
                let outer = factors[parts.len()];
                if outer == left {
                    parts.push((axis, outer));
                    break;
                }
                left /= outer;
                let why = self.why(Reason::Single);
                let (first, others) = self.axes.split(axis, (outer, left), why);
                parts.push((first, outer));
                axis = others;
            }
        }
        let mut parts = parts.into_iter();
        let mut made = Vec::with_capacity(to.len());
        for &extent in &new {
            let (mut axis, mut done) = (None, 1);
            while done < extent {
                let Some((part, n)) = parts.next() else { break };
                axis = Some(match axis {
                    None => part,
                    Some(before) => self.axes.merge(before, part, (done, n)),
                });
                done *= n;
            }
            made.push(axis.unwrap_or_else(|| self.single()));
        }
        made
    }

    /// Axes of one element are dropped.
    pub(super) fn squeeze(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let dropped: Vec<usize> = match site.attrs.ints("axes") {
            Some(list) => list.iter().map(|&a| from_front(a, axes.len())).collect(),
            None => (0..axes.len()).filter(|&i| self.extent(x, i) == Some(1)).collect(),
        };
        let kept = (0..axes.len()).filter(|i| !dropped.contains(i)).map(|i| axes[i]).collect();
        self.result(site, kept, 1);
    }

    /// Axes of one element are inserted.
    pub(super) fn unsqueeze(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let list = site.attrs.ints("axes").unwrap_or(&[]);
        let rank = axes.len() + list.len();
        let new: Vec<usize> = list.iter().map(|&a| from_front(a, rank)).collect();
        let mut old = axes.into_iter();
        let single = self.single();
        let made = (0..rank).map(|i| if new.contains(&i) { single } else { old.next().unwrap_or(single) });
        let made = made.collect();
        self.result(site, made, 1);
    }

    /// Whether the shape that an operation is given is an attribute or a constant: extents that are computed may hold
    /// numbers of channels that nobody sees.
    fn has_constant_shape(&self, site: &Site<'m>) -> bool {
        match site.decl.operand_index("shape").and_then(|i| site.operands.get(i).copied().flatten()) {
            None => true,
            Some(slot) => self
                .module
                .as_global(self.value(slot))
                .is_some_and(|g| self.module.global(g).role == Role::Const && !self.module.is_written(g)),
        }
    }

    /// Axes that are widened from one element are new, the others pass.
    pub(super) fn expand(&mut self, site: &Site<'m>, x: Slot) {
        if !self.has_constant_shape(site) {
            return self.opaque(site);
        }
        let Some(&y) = site.results.first() else { return };
        let (old, new) = (self.dims(x).unwrap_or(&[]), self.dims(y).unwrap_or(&[]));
        let made = (0..new.len())
            .map(|j| match (j + old.len()).checked_sub(new.len()) {
                Some(i) if old[i].same(&new[j]) => self.axes_of(x)[i],
                Some(i) if old[i].as_const() != Some(1) => {
                    let axis = self.axes_of(x)[i];
                    self.fix(site, axis, "x")
                }
                _ => self.new_axis(&new[j]),
            })
            .collect();
        self.result(site, made, 1);
    }

    /// Extents that are read as numbers stay as they are.
    pub(super) fn shape(&mut self, site: &Site<'m>, x: Slot) {
        let axes = self.axes_of(x).to_vec();
        let rank = axes.len();
        let start = from_front(site.decl.int(site.attrs, "start").unwrap_or(0), rank).min(rank);
        let end = site.decl.int(site.attrs, "end").map_or(rank, |e| from_front(e, rank).min(rank));
        for &axis in axes.get(start..end).unwrap_or(&[]) {
            self.fix(site, axis, "x");
        }
        let Some(&y) = site.results.first() else { return };
        self.keep_result(y, Reason::Fixed { op: site.op, name: "y" });
    }
}

/// An axis counted from the front.
pub(in crate::groups) fn from_front(axis: i64, rank: usize) -> usize {
    (if axis < 0 { axis + rank as i64 } else { axis }).max(0) as usize
}

enum Matching {
    /// These two axes are one.
    Same(usize, usize),
    /// These axes have as many elements as those, and all extents are numbers.
    Numbers(Vec<usize>, Vec<usize>),
    /// Nobody knows what becomes of these.
    Unknown(Vec<usize>),
}

/// Cuts two shapes of the same number of elements into least runs that correspond. Axes of one element take no part.
fn matching_runs(old: &[Dim], new: &[Dim]) -> Vec<Matching> {
    let number = |d: &Dim| d.as_const().and_then(|n| usize::try_from(n).ok());
    let long =
        |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|&i| number(&dims[i]) != Some(1)).collect() };
    let (mut from, mut to) = (long(old), long(new));
    let mut runs = Vec::new();
    // Equal extents in front that are no numbers.
    let mut front = 0;
    while let (Some(&i), Some(&j)) = (from.get(front), to.get(front))
        && number(&old[i]).is_none()
        && old[i].same(&new[j])
    {
        runs.push(Matching::Same(i, j));
        front += 1;
    }
    from.drain(..front);
    to.drain(..front);
    // From the end as long as there are numbers.
    while let (Some(&i), Some(&j)) = (from.last(), to.last()) {
        let (Some(mut p), Some(mut q)) = (number(&old[i]), number(&new[j])) else { break };
        let (mut m, mut n) = (1, 1);
        while p != q {
            let next = if p < q {
                m += 1;
                from.len()
                    .checked_sub(m)
                    .and_then(|at| number(&old[from[at]]))
                    .map(|d| p = p.saturating_mul(d))
            } else {
                n += 1;
                to.len().checked_sub(n).and_then(|at| number(&new[to[at]])).map(|d| q = q.saturating_mul(d))
            };
            if next.is_none() {
                runs.push(Matching::Unknown(from));
                return runs;
            }
        }
        let (from_run, to_run) = (from.split_off(from.len() - m), to.split_off(to.len() - n));
        runs.push(match (from_run.as_slice(), to_run.as_slice()) {
            ([i], [j]) => Matching::Same(*i, *j),
            _ => Matching::Numbers(from_run, to_run),
        });
    }
    runs.push(Matching::Unknown(from));
    runs
}
