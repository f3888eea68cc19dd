//! The neighbourhood in which a class may be made anew, and the cheapest way to make it there.

use super::select::{Choice, Selection};
use rustc_hash::{FxHashMap, FxHashSet};

/// Classes that are looked at for one class at most.
const REGION: usize = 256;

/// The classes around some heads whose making is free to choose: their cone, and what nothing needs so far.
pub(super) struct Region {
    classes: Vec<u32>,
    places: FxHashMap<u32, usize>,
    /// The cheapest way from what is needed anyway, each shared class counted at every use.
    costs: Vec<u64>,
    /// Classes outside of the region that cannot be used: they need the head themselves.
    pub(super) barred: FxHashSet<u32>,
    /// What only the heads need.
    cone: FxHashSet<u32>,
}

/// The cost of what cannot be made.
const NEVER: u64 = u64::MAX;

impl Region {
    pub(super) fn explore(s: &Selection, heads: &[u32], cone: &FxHashSet<u32>) -> Self {
        let mut region = Region {
            classes: Vec::new(),
            places: FxHashMap::default(),
            costs: Vec::new(),
            barred: FxHashSet::default(),
            cone: cone.clone(),
        };
        let Some(&top) = heads.iter().max_by_key(|h| s.order[**h as usize]) else { return region };
        heads.iter().for_each(|h| region.add(*h));
        let mut closed: FxHashSet<u32> = FxHashSet::default();
        let mut at = 0;
        while let Some(&class) = region.classes.get(at) {
            at += 1;
            for need in s.choices[class as usize].iter().flat_map(|c| &c.needs) {
                if region.places.contains_key(need) || s.is_leaf(*need) {
                    continue;
                }
                if cone.contains(need) || s.refs[*need as usize] == 0 {
                    if region.classes.len() < REGION {
                        region.add(*need);
                    }
                } else if closed.insert(*need)
                    && s.order[*need as usize] >= s.order[top as usize]
                    && s.reaches(*need, top)
                {
                    region.barred.insert(*need);
                }
            }
        }
        region.find_costs(s);
        region
    }

    fn add(&mut self, class: u32) {
        self.places.insert(class, self.classes.len());
        self.classes.push(class);
    }

    /// What it costs to have a class, given what is needed anyway.
    fn cost(&self, s: &Selection, class: u32) -> u64 {
        match self.places.get(&class) {
            Some(&i) => self.costs.get(i).copied().unwrap_or(NEVER),
            None if s.is_leaf(class) => 0,
            // Free to choose, but too far off.
            None if self.cone.contains(&class) || s.refs[class as usize] == 0 => NEVER,
            None if self.barred.contains(&class) => NEVER,
            None => 0,
        }
    }

    fn find_costs(&mut self, s: &Selection) {
        self.costs = vec![NEVER; self.classes.len()];
        loop {
            let mut changed = false;
            // What was found later tends to lie deeper.
            for i in (0..self.classes.len()).rev() {
                let ways = s.choices[self.classes[i] as usize].iter();
                let best = ways.map(|c| self.way(s, c)).min().unwrap_or(NEVER);
                if best < self.costs[i] {
                    self.costs[i] = best;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn way(&self, s: &Selection, choice: &Choice) -> u64 {
        choice.needs.iter().fold(choice.cost, |sum, n| sum.saturating_add(self.cost(s, *n)))
    }

    /// The cheapest choices for the heads and all that they need in the region; `None` where they are those that
    /// stand already, or where there are none.
    pub(super) fn picks(&self, s: &Selection, heads: &[u32]) -> Option<Vec<(u32, u32)>> {
        let mut picks = Vec::new();
        let mut changed = false;
        let mut seen: FxHashSet<u32> = FxHashSet::default();
        let mut pending = heads.to_vec();
        while let Some(class) = pending.pop() {
            let Some(&i) = self.places.get(&class) else { continue };
            if !seen.insert(class) {
                continue;
            }
            let cost = *self.costs.get(i)?;
            if cost == NEVER {
                return None;
            }
            let ways = &s.choices[class as usize];
            let is_best = |k: &usize| ways.get(*k).is_some_and(|c| self.way(s, c) == cost);
            let stands = s.chosen[class as usize].map(|k| k as usize);
            let pick = stands.filter(is_best).or_else(|| (0..ways.len()).find(is_best))?;
            changed |= stands != Some(pick) || s.refs[class as usize] == 0;
            picks.push((class, pick as u32));
            pending.extend(ways.get(pick)?.needs.iter().copied());
        }
        changed.then_some(picks)
    }
}
