//! Provenance: the source names that an operation stands for. A list of names is a name, or two lists one after the
//! other, shared: to merge two operations costs the same however many names they stand for. Lists are written out
//! only where they are read.
//!
//! Each list knows how many live operations and lists in use hold it. So it is known at once whether a name
//! still stands for something, and which names vanish with an operation.

use crate::entity::{Arena, Handle, SourceId, Sym};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};

/// Source names in order, each once.
pub type SourceNames = SmallVec<[Sym; 4]>;

/// The lists of a module, equal ones shared.
#[derive(Clone)]
pub(crate) struct Sources {
    lists: Arena<SourceId, List>,
    names: FxHashMap<Sym, SourceId>,
    pairs: FxHashMap<(SourceId, SourceId), SourceId>,
}

#[derive(Clone)]
struct List {
    parts: Parts,
    first: Sym,
    /// Live operations with this list, and lists with holders that it is a part of.
    holders: u32,
}

#[derive(Clone, Copy)]
enum Parts {
    Nothing,
    Name(Sym),
    Pair(SourceId, SourceId),
}

impl Sources {
    pub(crate) fn new() -> Self {
        let mut lists = Arena::new();
        lists.push(List { parts: Parts::Nothing, first: Sym::NONE, holders: 0 });
        Self { lists, names: FxHashMap::default(), pairs: FxHashMap::default() }
    }

    /// The list without names.
    pub(crate) fn empty() -> SourceId {
        SourceId::from_index(0)
    }

    /// Number of lists.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lists.len()
    }

    fn name(&mut self, name: Sym) -> SourceId {
        let lists = &mut self.lists;
        let list = List { parts: Parts::Name(name), first: name, holders: 0 };
        *self.names.entry(name).or_insert_with(|| lists.push(list))
    }

    /// The names of `a`, then those of `b` that are not among them.
    pub(crate) fn join(&mut self, a: SourceId, b: SourceId) -> SourceId {
        if b == Self::empty() || a == b {
            return a;
        }
        if a == Self::empty() {
            return b;
        }
        if matches!(self.lists[a].parts, Parts::Pair(_, last) if last == b) {
            return a;
        }
        let lists = &mut self.lists;
        let list = List { parts: Parts::Pair(a, b), first: lists[a].first, holders: 0 };
        *self.pairs.entry((a, b)).or_insert_with(|| lists.push(list))
    }

    /// The list of these names.
    pub(crate) fn list(&mut self, names: &[Sym]) -> SourceId {
        let mut seen = FxHashSet::default();
        let mut list = Self::empty();
        for &n in names {
            if names.len() == 1 || seen.insert(n) {
                let name = self.name(n);
                list = self.join(list, name);
            }
        }
        list
    }

    /// The first name; [`Sym::NONE`] where there is none.
    pub(crate) fn first(&self, list: SourceId) -> Sym {
        self.lists[list].first
    }

    /// The names in order, each once.
    pub(crate) fn names(&self, list: SourceId) -> SourceNames {
        match self.lists[list].parts {
            Parts::Nothing => SourceNames::new(),
            Parts::Name(name) => smallvec![name],
            Parts::Pair(..) => {
                let mut names = SourceNames::new();
                let mut seen = FxHashSet::default();
                let mut stack = vec![list];
                while let Some(list) = stack.pop() {
                    // A list that was read before has nothing new.
                    if !seen.insert(list) {
                        continue;
                    }
                    match self.lists[list].parts {
                        Parts::Nothing => {}
                        Parts::Name(name) => names.push(name),
                        Parts::Pair(a, b) => stack.extend([b, a]),
                    }
                }
                names
            }
        }
    }

    /// Whether somebody holds a list with this name.
    pub(crate) fn is_held(&self, name: Sym) -> bool {
        self.names.get(&name).is_some_and(|&list| self.lists[list].holders > 0)
    }

    /// One more operation has this list. The empty list is not counted.
    pub(crate) fn hold(&mut self, list: SourceId) {
        let mut stack = if list == Self::empty() { vec![] } else { vec![list] };
        while let Some(list) = stack.pop() {
            let data = &mut self.lists[list];
            data.holders += 1;
            if let (1, Parts::Pair(a, b)) = (data.holders, data.parts) {
                stack.extend([b, a]);
            }
        }
    }

    /// One operation less has this list: adds to `vanished` the names that nobody holds any more.
    pub(crate) fn release(&mut self, list: SourceId, vanished: &mut Vec<Sym>) {
        let mut stack = if list == Self::empty() { vec![] } else { vec![list] };
        while let Some(list) = stack.pop() {
            let data = &mut self.lists[list];
            debug_assert!(data.holders > 0, "{list:?} is released more often than it is held");
            data.holders = data.holders.saturating_sub(1);
            match data.parts {
                _ if data.holders > 0 => {}
                Parts::Nothing => {}
                Parts::Name(name) => vanished.push(name),
                Parts::Pair(a, b) => stack.extend([b, a]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syms(n: usize) -> Vec<Sym> {
        (0..n).map(Sym::from_index).collect()
    }

    #[test]
    fn a_list_holds_each_name_once_in_order() {
        let (mut sources, s) = (Sources::new(), syms(3));
        let ab = sources.list(&[s[0], s[1], s[0]]);
        let cb = sources.list(&[s[2], s[1]]);
        let all = sources.join(ab, cb);
        assert_eq!(sources.names(all).as_slice(), &s[..]);
        assert_eq!(sources.first(all), s[0]);
        assert_eq!(sources.join(ab, cb), all);
        assert_eq!(sources.join(Sources::empty(), ab), ab);
        assert_eq!(sources.list(&[]), Sources::empty());
    }

    #[test]
    fn a_name_vanishes_with_its_last_holder() {
        let (mut sources, s) = (Sources::new(), syms(3));
        let ab = sources.list(&[s[0], s[1]]);
        let bc = sources.list(&[s[1], s[2]]);
        let all = sources.join(ab, bc);
        sources.hold(ab);
        sources.hold(all);
        let mut vanished = Vec::new();
        sources.release(all, &mut vanished);
        assert_eq!(vanished, [s[2]]);
        assert!(sources.is_held(s[1]) && !sources.is_held(s[2]));
        vanished.clear();
        sources.release(ab, &mut vanished);
        assert_eq!(vanished, [s[0], s[1]]);
        sources.hold(all);
        assert!(s.iter().all(|&n| sources.is_held(n)));
    }

    #[test]
    fn lists_that_contain_one_another_often_are_read_once() {
        let (mut sources, s) = (Sources::new(), syms(2));
        let (mut a, mut b) = (sources.list(&s[..1]), sources.list(&s[1..]));
        for _ in 0..200 {
            (a, b) = (sources.join(a, b), sources.join(b, a));
        }
        let mut vanished = Vec::new();
        sources.hold(a);
        sources.release(a, &mut vanished);
        assert_eq!(vanished.len(), 2);
        assert_eq!(sources.names(a).len(), 2);
    }
}
