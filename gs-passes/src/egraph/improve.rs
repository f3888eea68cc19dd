//! Makes a choice of nodes cheaper, class by class, so it never ends above where it began.
//!
//! At a class, what only this class needs (its exclusive cone, up to a bound) is thought away, the cheapest way to make
//! the class from the rest is found ([`super::region`]), and the exact difference in cost is taken by counting
//! references: what is newly needed minus what is needed no more. It stays only where it is cheaper. This is how logic
//! synthesis improves covers (exact area with reference counting); it takes work in proportion to what differs,
//! however deep the network is. Two kinds of groups are made anew together: all that need one class, since it may be
//! worth giving up only if all do, and a class with those that would have to turn around for it.

use super::region::Region;
use super::select::{Journal, Selection};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;

/// Classes of an exclusive cone that are looked at together at most, beside two for each head.
const CONE: usize = 24;
/// Sweeps over all classes at most.
const SWEEPS: usize = 32;

impl Selection {
    /// Improves the choice until no class, and no group of classes that share one, can be made cheaper. Gives the
    /// number of improvements.
    pub(super) fn improve(&mut self) -> usize {
        let mut improvements = 0;
        for _ in 0..SWEEPS {
            self.renumber();
            let before = improvements;
            for class in self.reached() {
                if self.refs[class as usize] > 0 && self.has_ways(class) && self.improve_class(class) {
                    improvements += 1;
                }
            }
            // What several need is worth giving up only if all of them do.
            for users in self.groups() {
                if users.iter().all(|c| self.refs[*c as usize] > 0) && self.improve_at(&users) {
                    improvements += 1;
                }
            }
            if improvements == before {
                break;
            }
        }
        improvements
    }

    /// Makes one class cheaper; where another way leads through something that needs the class, together with that.
    fn improve_class(&mut self, class: u32) -> bool {
        const TOGETHER: usize = 8;
        let cone = self.cone(&[class]);
        let region = Region::explore(self, &[class], &cone);
        if self.improve_in(&[class], &cone, &region) {
            return true;
        }
        let mut others: Vec<u32> = region.barred.into_iter().filter(|c| self.has_ways(*c)).collect();
        others.sort_by_key(|c| (self.order[*c as usize], *c));
        others.truncate(TOGETHER);
        let pairs = others.len() > 1;
        let all: Vec<u32> = std::iter::once(class).chain(others.iter().copied()).collect();
        all.len() > 1 && self.improve_at(&all)
            || pairs && others.iter().any(|c| self.improve_at(&[class, *c]))
    }

    fn has_ways(&self, class: u32) -> bool {
        self.choices[class as usize].len() > 1 && !self.is_leaf(class)
    }

    /// The classes that are needed, what they need first.
    fn reached(&self) -> Vec<u32> {
        let mut all: Vec<u32> = (0..self.refs.len() as u32).filter(|c| self.refs[*c as usize] > 0).collect();
        all.sort_by_key(|c| (self.order[*c as usize], *c));
        all
    }

    /// For each class that a few others need: those of them that have other ways, if there are several.
    fn groups(&self) -> Vec<Vec<u32>> {
        const USERS: usize = 32;
        let mut users: Vec<Vec<u32>> = vec![Vec::new(); self.refs.len()];
        let reached = self.reached();
        for &class in &reached {
            for need in self.needs(class) {
                users[need as usize].push(class);
            }
        }
        let mut groups: Vec<Vec<u32>> = reached
            .into_iter()
            .filter(|c| !self.is_leaf(*c))
            .map(|c| std::mem::take(&mut users[c as usize]))
            .map(|all| all.into_iter().filter(|u| self.has_ways(*u)).collect::<Vec<_>>())
            .filter(|all| (2..=USERS).contains(&all.len()))
            .collect();
        groups.sort();
        groups.dedup();
        groups
    }

    /// Numbers the needed classes so that none stands before what it needs.
    fn renumber(&mut self) {
        // Places between are left for what is chosen later.
        const STEP: u64 = 1 << 16;
        let mut next = STEP;
        let mut state = vec![0u8; self.refs.len()];
        let mut stack: Vec<(u32, bool)> = self.roots().iter().rev().map(|r| (*r, false)).collect();
        while let Some((class, done)) = stack.pop() {
            if done {
                self.order[class as usize] = next;
                next += STEP;
            } else if state[class as usize] == 0 {
                state[class as usize] = 1;
                stack.push((class, true));
                let needs = self.choice(class).map_or(&[][..], |c| &c.needs);
                stack.extend(needs.iter().rev().map(|n| (*n, false)));
            }
        }
    }

    /// What nothing but the heads needs, through each other; bounded.
    fn cone(&self, heads: &[u32]) -> FxHashSet<u32> {
        let limit = CONE + 2 * heads.len();
        let mut cone: FxHashSet<u32> = heads.iter().copied().collect();
        let mut seen: FxHashMap<u32, u32> = FxHashMap::default();
        let mut queue: VecDeque<u32> = heads.iter().copied().collect();
        while let Some(class) = queue.pop_front() {
            for need in self.choice(class).map_or(&[][..], |c| &c.needs) {
                let count = seen.entry(*need).or_insert(0);
                *count += 1;
                // A root has one reference more than it has users.
                if *count == self.refs[*need as usize]
                    && !self.is_leaf(*need)
                    && cone.len() < limit
                    && cone.insert(*need)
                {
                    queue.push_back(*need);
                }
            }
        }
        cone
    }

    /// Looks for a cheaper way to make all heads, and takes it.
    fn improve_at(&mut self, heads: &[u32]) -> bool {
        let cone = self.cone(heads);
        let region = Region::explore(self, heads, &cone);
        self.improve_in(heads, &cone, &region)
    }

    fn improve_in(&mut self, heads: &[u32], cone: &FxHashSet<u32>, region: &Region) -> bool {
        let Some(picks) = region.picks(self, heads) else { return false };
        let mut journal = Journal::default();
        let (mut added, mut freed) = (0u64, 0u64);
        // What the cone stands on is held, so that nothing but the cone is given up and taken back; the heads are
        // held too, since one may need another.
        let held: Vec<u32> = cone.iter().flat_map(|c| self.needs(*c)).filter(|c| !cone.contains(c)).collect();
        let held: Vec<u32> = held.into_iter().chain(heads.iter().copied()).collect();
        for &class in &held {
            added = added.saturating_add(self.acquire(class, &mut journal));
        }
        for &head in heads {
            freed = freed.saturating_add(self.choice(head).map_or(0, |c| c.cost));
            for need in self.needs(head) {
                freed = freed.saturating_add(self.release(need, &mut journal));
            }
        }
        for &(class, pick) in &picks {
            journal.chosen.push((class, self.chosen[class as usize]));
            self.chosen[class as usize] = Some(pick);
        }
        for &head in heads {
            added = added.saturating_add(self.choice(head).map_or(0, |c| c.cost));
            for need in self.needs(head) {
                added = added.saturating_add(self.acquire(need, &mut journal));
            }
        }
        for &class in &held {
            freed = freed.saturating_add(self.release(class, &mut journal));
        }
        if added >= freed || !self.settle_order(heads, &picks) {
            self.roll_back(journal);
            return false;
        }
        self.total = self.total.saturating_add(added).saturating_sub(freed);
        true
    }

    /// Gives the new choices their places in the order. False where they need themselves.
    fn settle_order(&mut self, heads: &[u32], picks: &[(u32, u32)]) -> bool {
        let new: FxHashSet<u32> = picks.iter().map(|(c, _)| *c).collect();
        // What stands before all heads needs none of them.
        let least = heads.iter().map(|h| self.order[*h as usize]).min().unwrap_or(0);
        // 1: being looked at, 2: done.
        let mut state: FxHashMap<u32, u8> = FxHashMap::default();
        let mut places: FxHashMap<u32, u64> = FxHashMap::default();
        let mut stack: Vec<(u32, bool)> = heads.iter().map(|h| (*h, false)).collect();
        while let Some((class, done)) = stack.pop() {
            let needs = self.choice(class).map_or(&[][..], |c| &c.needs);
            if done {
                state.insert(class, 2);
                if new.contains(&class) {
                    let place = |n: &u32| places.get(n).copied().unwrap_or(self.order[*n as usize]);
                    let place = needs.iter().map(place).max().unwrap_or(0) + 1;
                    places.insert(class, place);
                }
                continue;
            }
            if !new.contains(&class) && self.order[class as usize] < least || state.contains_key(&class) {
                continue;
            }
            state.insert(class, 1);
            stack.push((class, true));
            for need in needs {
                match state.get(need) {
                    Some(1) => return false,
                    Some(_) => {}
                    None => stack.push((*need, false)),
                }
            }
        }
        let late = heads.iter().any(|h| places.get(h).is_some_and(|p| *p > self.order[*h as usize]));
        for (class, place) in places {
            self.order[class as usize] = place;
        }
        if late {
            self.renumber();
        }
        true
    }

    /// Whether a class needs the head, as chosen.
    pub(super) fn reaches(&self, class: u32, head: u32) -> bool {
        let place = self.order[head as usize];
        let mut seen: FxHashSet<u32> = FxHashSet::default();
        let mut pending = vec![class];
        while let Some(c) = pending.pop() {
            if c == head {
                return true;
            }
            // What stands before the head does not need it.
            if self.order[c as usize] >= place && seen.insert(c) {
                pending.extend(self.choice(c).map_or(&[][..], |c| &c.needs));
            }
        }
        false
    }
}
