//! Rules that are lists of clauses; see [`gs_ir::ops::axis_rule`] for what they mean.

use super::*;
use crate::groups::solver::{Count, Edge, WeightUse};
use gs_ir::ops::axis_rule::{Axes, AxisRef, Clause};

/// An axis of an operand or a result of an operation.
#[derive(Clone, Copy)]
struct Place {
    slot: Slot,
    /// Place of the operand; `None` for a result.
    operand: Option<usize>,
    axis: usize,
}

impl<'m> Solver<'m> {
    pub(super) fn clauses(&mut self, site: &Site<'m>, clauses: &[Clause<'_>]) {
        // A result starts with axes that are nothing yet; what no clause mentions stays as it is.
        let mut made: Vec<Vec<Option<Axis>>> =
            site.results.iter().map(|&s| vec![None; self.dims(s).map_or(0, <[_]>::len)]).collect();
        let mut mentioned: Vec<Vec<bool>> =
            site.operands.iter().map(|s| vec![false; s.map_or(0, |s| self.axes_of(s).len())]).collect();
        let group = self.group_of(site, clauses);
        let weight = clauses.iter().find_map(|c| match c {
            Clause::Sum(refs) => refs.get(1).map(|r| r.name),
            _ => None,
        });
        let mut outer = Vec::new();
        for clause in clauses {
            let (refs, is_sum) = match clause {
                Clause::Tie { refs, .. } => (refs, false),
                Clause::Sum(refs) => (refs, true),
                Clause::Fixed(_) | Clause::Set(_) => continue,
            };
            let is_grouped = group > 1 && (is_sum || refs.iter().any(|r| Some(r.name) == weight));
            for places in self.places(site, refs) {
                for p in &places {
                    if let Some(o) = p.operand {
                        mentioned[o][p.axis] = true;
                    }
                }
                if is_sum && let Some(Place { operand: Some(operand), axis, .. }) = places.first().copied() {
                    self.edges.push(Edge { op: site.op, operand, axis });
                    if let Some(Place { operand: Some(operand), axis, .. }) = places.get(1).copied() {
                        let made = self.made_of(site, clauses, operand);
                        self.weights.push(WeightUse { op: site.op, operand, summed: axis, made });
                    }
                }
                let blocks = if is_grouped { group } else { 1 };
                outer.extend(self.join(site, &places, &mut made, blocks));
            }
        }
        for (operand, axes) in mentioned.iter().enumerate() {
            let Some(slot) = site.operands[operand] else { continue };
            for (i, _) in axes.iter().enumerate().filter(|(_, m)| !**m) {
                let axis = self.axes_of(slot)[i];
                self.fix(site, axis, site.decl.operand(operand).map_or("", |o| o.name));
            }
        }
        for (i, axes) in made.into_iter().enumerate() {
            let name = site.decl.result(i).map_or("", |r| r.name);
            let why = self.why(Reason::Fixed { op: site.op, name });
            self.axes.set(site.results[i], axes.into_iter().map(|a| a.unwrap_or(Axis::Kept(why))));
        }
        // Blocks of the data and of the result go together.
        for pair in outer.windows(2) {
            self.tie(site, pair[0], pair[1]);
        }
        if let Some(&axis) = outer.first() {
            self.counts.push(Count { op: site.op, attr: "group", axis });
        }
    }

    /// The axis of a result that a clause ties to a weight: its channels.
    fn made_of(&self, site: &Site<'m>, clauses: &[Clause<'_>], weight: usize) -> Option<usize> {
        let tied = clauses.iter().filter_map(|c| match c {
            Clause::Tie { refs, .. } => Some(self.places(site, refs)),
            _ => None,
        });
        tied.flatten().find_map(|places| {
            let has_weight = places.iter().any(|p| p.operand == Some(weight));
            places.iter().find(|p| has_weight && p.operand.is_none()).map(|p| p.axis)
        })
    }

    /// The number of groups, where a clause says that it follows extents.
    fn group_of(&self, site: &Site<'m>, clauses: &[Clause<'_>]) -> usize {
        let attr = clauses.iter().find_map(|c| match c {
            Clause::Set(a) => Some(*a),
            _ => None,
        });
        attr.and_then(|a| site.decl.int(site.attrs, a)).and_then(|g| usize::try_from(g).ok()).unwrap_or(1)
    }

    /// The axes that a clause ties, for each axis of a range a list of its own.
    fn places(&self, site: &Site<'m>, refs: &[AxisRef<'_>]) -> Vec<Vec<Place>> {
        let mut lists: Vec<Vec<Place>> = Vec::new();
        for r in refs {
            let operand = site.decl.operand_index(r.name);
            let slot = match operand {
                Some(o) => site.operands.get(o).copied().flatten(),
                None => {
                    let index = site.decl.results.iter().position(|d| d.name == r.name);
                    index.and_then(|i| site.results.get(i).copied())
                }
            };
            let Some(slot) = slot.filter(|&s| self.dims(s).is_some()) else { continue };
            let rank = self.dims(slot).map_or(0, <[_]>::len);
            let (first, last) = match r.axes {
                Axes::One(i) => (i, (i + 1).min(rank)),
                Axes::From(i) => (i, rank),
                Axes::Attr(a) => match site.decl.int(site.attrs, a) {
                    Some(i) => {
                        let i = if i < 0 { i + rank as i64 } else { i } as usize;
                        (i, i.saturating_add(1).min(rank))
                    }
                    None => continue,
                },
            };
            for (n, axis) in (first..last).enumerate() {
                if lists.len() <= n {
                    lists.push(Vec::new());
                }
                lists[n].push(Place { slot, operand, axis });
            }
        }
        lists
    }

    /// Ties axes. Those of one element are broadcast and take no part. With blocks, axes may hold the elements of one
    /// block only. Gives the axis of blocks.
    fn join(
        &mut self,
        site: &Site<'m>,
        places: &[Place],
        made: &mut [Vec<Option<Axis>>],
        blocks: usize,
    ) -> Option<Axis> {
        let extent = |s: &Self, p: &Place| s.extent(p.slot, p.axis);
        let longest = places.iter().filter_map(|p| extent(self, p)).max();
        let whole: Vec<Place> = places.iter().copied().filter(|p| extent(self, p) == longest).collect();
        let result =
            |p: &Place| site.results.iter().position(|s| *s == p.slot).filter(|_| p.operand.is_none());
        let mut one: Option<Axis> = None;
        for p in &whole {
            // A result may have its axis from an earlier clause.
            let axis = result(p).map_or_else(|| self.given(p), |i| made[i][p.axis]);
            let Some(axis) = axis else { continue };
            match one {
                None => one = Some(axis),
                Some(first) => self.tie(site, first, axis),
            }
        }
        for p in &whole {
            if let (Some(i), Some(axis)) = (result(p), one) {
                made[i][p.axis] = Some(axis);
            }
        }
        let (axis, n) = (one?, longest?);
        if blocks <= 1 || n % blocks != 0 {
            return None;
        }
        let why = self.why(Reason::Single);
        let (outer, inner) = self.axes.split(axis, (blocks, n / blocks), why);
        let parts: Vec<Axis> = places
            .iter()
            .filter(|p| extent(self, p) == Some(n / blocks))
            .filter_map(|p| self.given(p))
            .collect();
        for part in parts {
            self.tie(site, inner, part);
        }
        Some(outer)
    }

    /// The axis of an operand.
    fn given(&self, place: &Place) -> Option<Axis> {
        place.operand?;
        self.axes_of(place.slot).get(place.axis).copied()
    }
}
