//! What the axes of tensors carry: for each element of an axis a label, or nothing that can be removed. Axes that are
//! tied element by element share one run of labels, so that a network of equal widths needs few of them.

use super::labels::{Label, Labels, Why};
use smallvec::SmallVec;

/// A run of labels, one for each element of an axis.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run(pub(crate) u32);

/// What an axis carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Axis {
    /// All of it is kept.
    Kept(Why),
    /// A label for each element.
    Run(Run),
}

/// A tensor, as the analysis sees it: a value of the module, or one reading of a constant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub(crate) u32);

/// Labels, runs of them, and the axes of all tensors.
#[derive(Default)]
pub struct Axes {
    /// All labels.
    pub labels: Labels,
    runs: Vec<Vec<Label>>,
    slots: Vec<Option<SmallVec<[Axis; 4]>>>,
}

impl Axes {
    /// Room for so many tensors, of which nothing is known yet.
    pub fn with_slots(count: usize) -> Self {
        Self { slots: vec![None; count], ..Self::default() }
    }

    /// One more tensor.
    pub fn add_slot(&mut self) -> Slot {
        self.slots.push(None);
        Slot(self.slots.len() as u32 - 1)
    }

    /// All tensors of which the axes are known, with these.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &[Axis])> {
        self.slots.iter().enumerate().filter_map(|(i, a)| Some((Slot(i as u32), a.as_deref()?)))
    }

    /// The axes of a tensor; `None` where its rank is unknown.
    pub fn of(&self, slot: Slot) -> Option<&[Axis]> {
        self.slots.get(slot.0 as usize)?.as_deref()
    }

    /// States the axes of a tensor.
    pub fn set(&mut self, slot: Slot, axes: impl IntoIterator<Item = Axis>) {
        // A result that is omitted has no place.
        if let Some(place) = self.slots.get_mut(slot.0 as usize) {
            *place = Some(axes.into_iter().collect());
        }
    }

    /// A run of these labels; an axis that is kept where all of them are.
    pub fn run(&mut self, labels: Vec<Label>) -> Axis {
        let mut why = None;
        for &label in &labels {
            match self.labels.why(label) {
                Some(w) => why = why.or(Some(w)),
                None => {
                    self.runs.push(labels);
                    return Axis::Run(Run(self.runs.len() as u32 - 1));
                }
            }
        }
        Axis::Kept(why.unwrap_or(Why::SETS))
    }

    /// A run of new atoms.
    pub fn fresh(&mut self, extent: usize) -> Axis {
        let labels = (0..extent).map(|_| self.labels.atom()).collect();
        self.run(labels)
    }

    /// The labels of a run.
    pub fn labels_of(&self, run: Run) -> &[Label] {
        &self.runs[run.0 as usize]
    }

    /// Why all of a run is kept, if it is.
    pub fn kept_run(&self, run: Run) -> Option<Why> {
        let mut whys = self.labels_of(run).iter().map(|&l| self.labels.why(l));
        let first = whys.next().flatten()?;
        whys.all(|w| w.is_some()).then_some(first)
    }

    /// The labels of an axis of so many elements, written out.
    pub fn written_out(&mut self, axis: Axis, extent: usize) -> Vec<Label> {
        match axis {
            Axis::Run(run) => self.runs[run.0 as usize].clone(),
            Axis::Kept(why) => {
                let kept = self.labels.kept(why);
                vec![kept; extent]
            }
        }
    }

    /// Keeps all of an axis.
    pub fn keep(&mut self, axis: Axis, why: Why) {
        if let Axis::Run(run) = axis {
            for i in 0..self.runs[run.0 as usize].len() {
                let label = self.runs[run.0 as usize][i];
                self.labels.keep(label, why);
            }
        }
    }

    /// Ties two axes element by element. Axes of different lengths cannot be: both are kept, for `why`.
    pub fn tie(&mut self, a: Axis, b: Axis, why: Why) {
        match (a, b) {
            (Axis::Kept(why), other) | (other, Axis::Kept(why)) => self.keep(other, why),
            (Axis::Run(a), Axis::Run(b)) if a == b => {}
            (Axis::Run(x), Axis::Run(y)) => {
                if self.labels_of(x).len() != self.labels_of(y).len() {
                    self.keep(a, why);
                    self.keep(b, why);
                    return;
                }
                for i in 0..self.labels_of(x).len() {
                    let (p, q) = (self.labels_of(x)[i], self.labels_of(y)[i]);
                    self.labels.tie(p, q);
                }
            }
        }
    }

    /// Two axes become one, row-major: an element goes with its element of either.
    pub fn merge(&mut self, outer: Axis, inner: Axis, (m, n): (usize, usize)) -> Axis {
        match (m, n) {
            (1, _) => return inner,
            (_, 1) => return outer,
            _ if matches!((outer, inner), (Axis::Kept(_), Axis::Kept(_))) => return outer,
            _ => {}
        }
        let (outer, inner) = (self.written_out(outer, m), self.written_out(inner, n));
        let mut labels = Vec::with_capacity(m * n);
        for &a in &outer {
            for &b in &inner {
                labels.push(self.labels.set(&[a, b]));
            }
        }
        self.run(labels)
    }

    /// An axis becomes two of `m` and `n` elements. Where it was made of two such axes, these are they; where blocks or
    /// places within blocks are of one label, they carry it; else its elements go with new atoms of either axis.
    pub fn split(&mut self, axis: Axis, (m, n): (usize, usize), one: Why) -> (Axis, Axis) {
        match (m, n, axis) {
            (_, _, Axis::Kept(_)) => return (axis, axis),
            (1, _, _) => return (Axis::Kept(one), axis),
            (_, 1, _) => return (axis, Axis::Kept(one)),
            _ => {}
        }
        let labels = self.written_out(axis, m * n);
        let atoms: Vec<_> = labels.iter().map(|&l| self.labels.atoms(l)).collect();
        let blocks_agree = |within: &dyn Fn(usize, usize) -> usize| {
            (0..m).all(|a| (0..n).all(|b| atoms[within(a, b)] == atoms[a * n + b]))
        };
        if blocks_agree(&|a, _| a * n) {
            let outer = labels.iter().copied().step_by(n).collect();
            return (self.run(outer), Axis::Kept(one));
        }
        if blocks_agree(&|_, b| b) {
            let inner = labels[..n].to_vec();
            return (Axis::Kept(one), self.run(inner));
        }
        // What a block has in common is its outer label, what a place has in common is its inner one.
        let common = |places: &mut dyn Iterator<Item = usize>| {
            let mut common: Option<SmallVec<_>> = None;
            for i in places {
                match &mut common {
                    None => common = Some(atoms[i].clone()),
                    Some(c) => c.retain(|x| atoms[i].contains(x)),
                }
            }
            common.unwrap_or_default()
        };
        let outer: Vec<_> = (0..m).map(|a| common(&mut (a * n..(a + 1) * n))).collect();
        let inner: Vec<_> = (0..n).map(|b| common(&mut (b..m * n).step_by(n))).collect();
        let is_product = (0..m * n).all(|i| {
            let (a, b) = (&outer[i / n], &inner[i % n]);
            atoms[i].iter().all(|x| a.contains(x) || b.contains(x))
        });
        if is_product {
            let kept = self.labels.kept(one);
            let mut label = |of: &SmallVec<[super::Atom; 2]>| {
                let parts: Vec<Label> = of.iter().map(|&a| self.labels.of_atom(a)).collect();
                if parts.is_empty() { kept } else { self.labels.set(&parts) }
            };
            let (outer, inner) =
                (outer.iter().map(&mut label).collect(), inner.iter().map(&mut label).collect());
            return (self.run(outer), self.run(inner));
        }
        let (outer, inner) = (self.fresh(m), self.fresh(n));
        let both = self.merge(outer, inner, (m, n));
        self.tie(axis, both, one);
        (outer, inner)
    }
}
