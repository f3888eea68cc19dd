//! Labels: what must be kept for an element of an axis to be kept. A label is a set of *atoms*, the units that pruning
//! removes; an element goes when one of the atoms of its label goes. The empty set is kept always.
//!
//! Labels live in one union-find. A root is an atom, or kept for a reason, or stands for a set of other labels: that
//! happens where an axis is split (`c = (head h, dim d)`: the channel goes with its head or with its dim).

use smallvec::{SmallVec, smallvec};

/// A label, valid for the [`Labels`] that gave it out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label(u32);

/// An atom: the root of a label that stands for itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Atom(pub(crate) u32);

impl Atom {
    /// A number of its own.
    pub fn number(self) -> u64 {
        u64::from(self.0)
    }
}

/// Why something is kept: an index into the reasons that the solver has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Why(pub(crate) u32);

/// The atoms of a label, ascending.
pub type Atoms = SmallVec<[Atom; 2]>;

#[derive(Clone, Copy)]
enum Node {
    /// Stands for itself.
    Atom,
    /// The same as another.
    Same(u32),
    /// Kept always.
    Kept(Why),
    /// The union of the labels of a set, by its place among the sets.
    Set(u32),
}

/// All labels of a network.
#[derive(Default)]
pub struct Labels {
    nodes: Vec<Node>,
    sets: Vec<SmallVec<[Label; 2]>>,
}

impl Labels {
    /// A new atom.
    pub fn atom(&mut self) -> Label {
        self.push(Node::Atom)
    }

    /// A label of what is always kept.
    pub fn kept(&mut self, why: Why) -> Label {
        self.push(Node::Kept(why))
    }

    /// What goes if one of these goes.
    pub fn set(&mut self, of: &[Label]) -> Label {
        let mut parts: SmallVec<[Label; 2]> = SmallVec::new();
        let mut kept = None;
        for &label in of {
            let root = self.root(label);
            match self.nodes[root.0 as usize] {
                Node::Kept(_) => kept = kept.or(Some(root)),
                _ if parts.contains(&root) => {}
                _ => parts.push(root),
            }
        }
        match (parts.as_slice(), kept) {
            ([one], _) => *one,
            ([], Some(kept)) => kept,
            ([], None) => self.kept(Why(0)),
            _ => {
                self.sets.push(parts);
                self.push(Node::Set(self.sets.len() as u32 - 1))
            }
        }
    }

    fn push(&mut self, node: Node) -> Label {
        self.nodes.push(node);
        Label(self.nodes.len() as u32 - 1)
    }

    /// The representative of all labels that are the same, with its path halved.
    pub fn root(&mut self, label: Label) -> Label {
        let mut at = label.0;
        while let Node::Same(next) = self.nodes[at as usize] {
            if let Node::Same(after) = self.nodes[next as usize] {
                self.nodes[at as usize] = Node::Same(after);
            }
            at = next;
        }
        Label(at)
    }

    /// Why this label is kept always, if it is.
    pub fn why(&self, label: Label) -> Option<Why> {
        let mut at = label.0;
        loop {
            match self.nodes[at as usize] {
                Node::Same(next) => at = next,
                Node::Kept(why) => return Some(why),
                Node::Atom => return None,
                Node::Set(set) => {
                    let mut whys = self.sets[set as usize].iter().map(|&p| self.why(p));
                    let first = whys.next().flatten()?;
                    return whys.all(|w| w.is_some()).then_some(first);
                }
            }
        }
    }

    /// The atoms of a label; none where it is always kept.
    pub fn atoms(&mut self, label: Label) -> Atoms {
        let root = self.root(label);
        match self.nodes[root.0 as usize] {
            Node::Kept(_) | Node::Same(_) => Atoms::new(),
            Node::Atom => smallvec![Atom(root.0)],
            Node::Set(set) => {
                let mut atoms = Atoms::new();
                for part in self.sets[set as usize].clone() {
                    atoms.extend(self.atoms(part));
                }
                atoms.sort_unstable();
                atoms.dedup();
                atoms
            }
        }
    }

    /// The label of an atom.
    pub fn of_atom(&self, atom: Atom) -> Label {
        Label(atom.0)
    }

    /// Keeps everything in this label.
    pub fn keep(&mut self, label: Label, why: Why) {
        for atom in self.atoms(label) {
            self.nodes[atom.0 as usize] = Node::Kept(why);
        }
    }

    /// Two elements are kept or go together. Where that is no union of atoms (`{a}` and `{a, b}`), what one has alone is
    /// kept: less is pruned than could be, and nothing wrongly.
    pub fn tie(&mut self, a: Label, b: Label) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        match (self.nodes[a.0 as usize], self.nodes[b.0 as usize]) {
            (Node::Kept(why), _) => self.keep(b, why),
            (_, Node::Kept(why)) => self.keep(a, why),
            (Node::Atom, Node::Atom) => {
                // The older one represents both, so that names do not depend on the order of unions.
                let (old, new) = (a.min(b), a.max(b));
                self.nodes[new.0 as usize] = Node::Same(old.0);
            }
            _ => self.tie_sets(a, b),
        }
    }

    fn tie_sets(&mut self, a: Label, b: Label) {
        let (in_a, in_b) = (self.atoms(a), self.atoms(b));
        let only_a: Atoms = in_a.iter().copied().filter(|x| !in_b.contains(x)).collect();
        let only_b: Atoms = in_b.iter().copied().filter(|x| !in_a.contains(x)).collect();
        let is_common = only_a.len() < in_a.len();
        match (only_a.as_slice(), only_b.as_slice()) {
            ([], []) => {}
            ([x], others) if !is_common && others.len() > 1 => self.nodes[x.0 as usize] = Node::Same(b.0),
            (others, [y]) if !is_common && others.len() > 1 => self.nodes[y.0 as usize] = Node::Same(a.0),
            (xs, ys) if xs.len() == ys.len() => {
                for (x, y) in xs.iter().zip(ys) {
                    self.tie(Label(x.0), Label(y.0));
                }
            }
            (xs, ys) => {
                for &x in xs.iter().chain(ys) {
                    self.keep(Label(x.0), Why::SETS);
                }
            }
        }
    }

    /// Number of labels ever made.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Why {
    /// The reason that stands first in every list of reasons: two ways to split an axis do not fit each other.
    pub(crate) const SETS: Why = Why(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh<const N: usize>(labels: &mut Labels) -> [Label; N] {
        std::array::from_fn(|_| labels.atom())
    }

    #[test]
    fn ties_are_symmetric_and_transitive() {
        let mut l = Labels::default();
        let [a, b, c, d] = fresh(&mut l);
        l.tie(d, c);
        l.tie(b, a);
        l.tie(c, b);
        let all: Vec<Atoms> = [a, b, c, d].map(|x| l.atoms(x)).into();
        assert!(all.iter().all(|x| *x == all[0] && x.len() == 1));
    }

    #[test]
    fn what_is_tied_to_something_kept_is_kept() {
        let mut l = Labels::default();
        let [a, b, c] = fresh(&mut l);
        let both = l.set(&[a, b]);
        let kept = l.kept(Why(3));
        l.tie(both, kept);
        assert_eq!(
            (l.why(a), l.why(b), l.why(both), l.why(c)),
            (Some(Why(3)), Some(Why(3)), Some(Why(3)), None)
        );
        assert!(l.atoms(both).is_empty());
    }

    #[test]
    fn an_atom_becomes_the_set_that_it_is_tied_to() {
        let mut l = Labels::default();
        let [c, head, dim] = fresh(&mut l);
        let both = l.set(&[head, dim]);
        l.tie(c, both);
        assert_eq!(l.atoms(c), l.atoms(both));
        assert_eq!(l.atoms(c).len(), 2);
    }

    #[test]
    fn sets_are_tied_by_what_they_have_not_in_common() {
        let mut l = Labels::default();
        let [a, b, c, d] = fresh(&mut l);
        let (ab, ca) = (l.set(&[a, b]), l.set(&[c, a]));
        l.tie(ab, ca);
        assert_eq!(l.atoms(b), l.atoms(c));
        // {a} and {a, d}: whether d is there must not matter.
        let ad = l.set(&[a, d]);
        l.tie(a, ad);
        assert_eq!((l.why(d), l.why(a)), (Some(Why::SETS), None));
    }

    #[test]
    fn sets_of_kept_and_free_labels_are_the_free_ones() {
        let mut l = Labels::default();
        let [a] = fresh(&mut l);
        let kept = l.kept(Why(1));
        let both = l.set(&[kept, a]);
        assert_eq!(l.root(both), l.root(a));
        let none = l.set(&[kept, kept]);
        assert_eq!(l.why(none), Some(Why(1)));
    }
}
