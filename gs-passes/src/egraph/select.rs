//! Chooses one node for each class that is needed, so that the whole costs as little as can be found. Shared nodes
//! count once, and all roots are looked at together.
//!
//! The choice starts at the network as it is and is improved class by class, so it never ends above it. At a class,
//! what only this class needs (its exclusive cone, up to a bound) is thought away, the cheapest way to make the class
//! from the rest is found, and the exact difference in cost is taken by counting references: what is newly needed
//! minus what is needed no more. It stays only where it is cheaper. This is how logic synthesis improves covers
//! (exact area with reference counting); it takes work in proportion to what differs, however deep the network is.

use super::cost::Costs;
use super::facts::{Net, attrs_of, is_absent};
use super::history::canonical;
use super::language::{Head, Node};
use super::load::Loaded;
use super::view::{kind_of, operands_of};
use egg::Id;
use gs_ir::{Fact, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;

/// Classes of an exclusive cone that are looked at together at most.
const CONE: usize = 96;
/// Classes that are looked at for one class at most.
const REGION: usize = 384;
/// Sweeps over all classes at most.
const SWEEPS: usize = 32;

/// A way to make a class.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The node, with the names that classes have at the end.
    pub(super) node: Node,
    /// The classes it needs, each once, by number.
    needs: Vec<u32>,
    cost: u64,
}

/// The classes of a finished e-graph with their choices.
pub(super) struct Selection {
    /// By number of the class: its ways.
    choices: Vec<Vec<Choice>>,
    /// The number of each class.
    numbers: FxHashMap<Id, u32>,
    chosen: Vec<Option<u32>>,
    /// How many chosen, needed nodes (and roots) need a class.
    refs: Vec<u32>,
    /// No class stands before what it needs.
    order: Vec<u32>,
    roots: Vec<u32>,
    total: u64,
}

/// What an attempt changed, for going back.
#[derive(Default)]
struct Journal {
    refs: Vec<(u32, u32)>,
    chosen: Vec<(u32, Option<u32>)>,
}

impl Selection {
    /// The choice that the network itself is: of each class the first operation of it.
    pub(super) fn new(loaded: &Loaded<'_>, costs: &Costs) -> Self {
        let net = &loaded.net;
        let mut ids: Vec<Id> = net.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let numbers: FxHashMap<Id, u32> = ids.iter().enumerate().map(|(i, id)| (*id, i as u32)).collect();
        let choices: Vec<Vec<Choice>> = ids.iter().map(|id| choices(net, *id, &numbers, costs)).collect();
        let n = ids.len();
        let mut roots: Vec<u32> =
            loaded.roots.iter().filter_map(|r| numbers.get(&net.find(*r)).copied()).collect();
        roots.sort_unstable();
        roots.dedup();
        let (chosen, refs, order) = (vec![None; n], vec![0; n], vec![0; n]);
        let mut selection = Selection { choices, numbers, chosen, refs, order, roots, total: 0 };
        selection.begin(loaded);
        selection
    }

    fn begin(&mut self, loaded: &Loaded<'_>) {
        for class in 0..self.choices.len() {
            // A leaf is there anyway, whatever else makes the class.
            let leaf = self.choices[class].iter().position(|c| matches!(c.node.head, Head::Leaf(_)));
            self.chosen[class] = leaf.map(|i| i as u32);
        }
        for (at, op) in loaded.ops.iter().enumerate() {
            let at = 2 * at as u32 + 1;
            self.take(&loaded.net, op.class, &op.node, at);
            for (_, part, number) in &op.results {
                if let Some(i) = number {
                    self.take(&loaded.net, *part, &Node::proj(*i, op.class), at + 1);
                }
            }
        }
        let mut journal = Journal::default();
        for root in self.roots.clone() {
            self.total = self.total.saturating_add(self.acquire(root, &mut journal));
        }
    }

    fn take(&mut self, net: &Net<'_>, id: Id, node: &Node, at: u32) {
        let Some(class) = self.number(net, id) else { return };
        let class = class as usize;
        if self.chosen[class].is_none() {
            let node = canonical(net, node);
            self.chosen[class] = self.choices[class].iter().position(|c| c.node == node).map(|i| i as u32);
            self.order[class] = at;
        }
    }

    /// The number of a class.
    pub(super) fn number(&self, net: &Net<'_>, id: Id) -> Option<u32> {
        self.numbers.get(&net.find(id)).copied()
    }

    /// The choice of a class that is needed.
    pub(super) fn chosen(&self, class: u32) -> Option<&Choice> {
        if self.refs[class as usize] == 0 {
            return None;
        }
        self.choice(class)
    }

    /// The classes that must be computed.
    pub(super) fn roots(&self) -> &[u32] {
        &self.roots
    }

    /// The cost of what is needed.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn choice(&self, class: u32) -> Option<&Choice> {
        let i = self.chosen[class as usize]?;
        self.choices[class as usize].get(i as usize)
    }

    fn is_leaf(&self, class: u32) -> bool {
        self.choice(class).is_some_and(|c| matches!(c.node.head, Head::Leaf(_)))
    }

    fn needs(&self, class: u32) -> Vec<u32> {
        self.choice(class).map(|c| c.needs.clone()).unwrap_or_default()
    }

    /// Needs a class once more; gives what that adds to the cost.
    fn acquire(&mut self, class: u32, journal: &mut Journal) -> u64 {
        let mut added = 0u64;
        let mut pending = vec![class];
        while let Some(c) = pending.pop() {
            let refs = &mut self.refs[c as usize];
            journal.refs.push((c, *refs));
            *refs += 1;
            if *refs == 1
                && let Some(choice) = self.choice(c)
            {
                added = added.saturating_add(choice.cost);
                pending.extend_from_slice(&choice.needs);
            }
        }
        added
    }

    /// Needs a class once less; gives what that takes from the cost.
    fn release(&mut self, class: u32, journal: &mut Journal) -> u64 {
        let mut freed = 0u64;
        let mut pending = vec![class];
        while let Some(c) = pending.pop() {
            let refs = &mut self.refs[c as usize];
            journal.refs.push((c, *refs));
            *refs = refs.saturating_sub(1);
            if *refs == 0
                && let Some(choice) = self.choice(c)
            {
                freed = freed.saturating_add(choice.cost);
                pending.extend_from_slice(&choice.needs);
            }
        }
        freed
    }

    fn roll_back(&mut self, journal: Journal) {
        for (class, refs) in journal.refs.into_iter().rev() {
            self.refs[class as usize] = refs;
        }
        for (class, chosen) in journal.chosen.into_iter().rev() {
            self.chosen[class as usize] = chosen;
        }
    }

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
        let mut next = 1;
        let mut state = vec![0u8; self.refs.len()];
        let mut stack: Vec<(u32, bool)> = self.roots.iter().rev().map(|r| (*r, false)).collect();
        while let Some((class, done)) = stack.pop() {
            if done {
                self.order[class as usize] = next;
                next += 1;
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
                    && cone.len() < CONE
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
        if let [head] = *heads {
            let place = self.order[head as usize];
            let later = |s: &Self, c: u32| s.needs(c).into_iter().any(|n| s.order[n as usize] > place);
            picks.iter().for_each(|(c, _)| self.order[*c as usize] = place);
            if picks.iter().any(|(c, _)| later(self, *c)) {
                self.renumber();
            }
            return true;
        }
        if !self.is_acyclic(heads) {
            return false;
        }
        self.renumber();
        true
    }

    /// Whether nothing below the heads needs itself.
    fn is_acyclic(&self, heads: &[u32]) -> bool {
        // 1: being looked at, 2: done.
        let mut state: FxHashMap<u32, u8> = FxHashMap::default();
        let mut stack: Vec<(u32, bool)> = heads.iter().map(|h| (*h, false)).collect();
        while let Some((class, done)) = stack.pop() {
            if done {
                state.insert(class, 2);
                continue;
            }
            match state.get(&class) {
                Some(2) => continue,
                Some(_) => return false,
                None => {}
            }
            state.insert(class, 1);
            stack.push((class, true));
            for need in self.choice(class).map_or(&[][..], |c| &c.needs) {
                match state.get(need) {
                    Some(1) => return false,
                    Some(_) => {}
                    None => stack.push((*need, false)),
                }
            }
        }
        true
    }

    /// Whether a class needs the head, as chosen.
    fn reaches(&self, class: u32, head: u32) -> bool {
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

/// The classes around some heads whose making is free to choose: their cone, and what nothing needs so far.
struct Region {
    classes: Vec<u32>,
    places: FxHashMap<u32, usize>,
    /// The cheapest way from what is needed anyway, each shared class counted at every use.
    costs: Vec<u64>,
    /// Classes outside of the region that cannot be used: they need the head themselves.
    barred: FxHashSet<u32>,
    /// What only the heads need.
    cone: FxHashSet<u32>,
}

/// The cost of what cannot be made.
const NEVER: u64 = u64::MAX;

impl Region {
    fn explore(s: &Selection, heads: &[u32], cone: &FxHashSet<u32>) -> Self {
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
    fn picks(&self, s: &Selection, heads: &[u32]) -> Option<Vec<(u32, u32)>> {
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

/// The cost of the network as it is: of the operations that its results need, copies counted each.
pub(super) fn original_cost(loaded: &Loaded<'_>, costs: &Costs) -> u64 {
    let mut needed: FxHashSet<ValueId> = loaded.root_values.iter().copied().collect();
    let mut total = 0u64;
    for op in loaded.ops.iter().rev() {
        if op.results.iter().any(|(v, ..)| needed.contains(v)) {
            needed.extend(op.reads.iter().copied());
            total = total.saturating_add(cost_of(&loaded.net, op.class, &op.node, costs));
        }
    }
    total
}

/// The ways to make a class.
fn choices(net: &Net<'_>, id: Id, numbers: &FxHashMap<Id, u32>, costs: &Costs) -> Vec<Choice> {
    let mut out = Vec::new();
    for node in &net[id].nodes {
        let children: &[Id] = match node.head {
            Head::Absent | Head::Attrs(_) => continue,
            Head::Leaf(_) => &[],
            Head::Proj(_) => &node.children,
            Head::Op(..) | Head::Pinned(_) => node.children.get(1..).unwrap_or(&[]),
        };
        let mut needs: Vec<u32> = Vec::with_capacity(children.len());
        for child in children.iter().filter(|c| !is_absent(net, **c)) {
            let Some(&n) = numbers.get(&net.find(*child)) else { continue };
            if !needs.contains(&n) {
                needs.push(n);
            }
        }
        // What needs itself is no way to make it.
        if numbers.get(&id).is_some_and(|n| needs.contains(n)) {
            continue;
        }
        out.push(Choice { node: canonical(net, node), needs, cost: cost_of(net, id, node, costs) });
    }
    out
}

fn cost_of(net: &Net<'_>, id: Id, node: &Node, costs: &Costs) -> u64 {
    let Some(kind) = kind_of(net, node) else { return 0 };
    let module = &*net.analysis.module;
    let data = &net[id].data;
    let results: Vec<&Fact> = data.tuple.as_ref().map_or_else(|| vec![&data.fact], |t| t.iter().collect());
    let operands: Vec<Option<&Fact>> =
        operands_of(net, node).into_iter().map(|o| o.map(|c| &net[c].data.fact)).collect();
    let attrs = node.attrs().and_then(|a| attrs_of(net, a));
    let empty = gs_ir::AttrSet::new();
    let attrs = attrs.map_or(&empty, |a| module.attr_set(a));
    costs.operation(module.registry().decl(kind), attrs, &operands, &results, data.foldable)
}
