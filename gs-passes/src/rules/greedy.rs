//! The greedy driver: a worklist over operations, bigger patterns first, until nothing matches any more.
//!
//! After a rewrite the operations around it are looked at again. What lies further off than that is found by another
//! sweep, which is made as long as one changed something; so the driver ends at a fixed point, after work in
//! proportion to the size of the module and the number of rewrites.

use super::build::{Builder, Built, take_back};
use super::env::RuleEnv;
use super::functions::Refusal;
use super::matcher::{Match, Matcher};
use super::rule::{Rule, RuleSet};
use gs_ir::{Dim, Event, Handle, Module, OpId, Rewriter, Shape, TakenSource, TensorType, Type, Use, ValueId};
use gs_text::gsr::{Driver, Strictness};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;

/// How to run.
#[derive(Clone, Debug)]
pub struct GreedyOptions {
    /// The loosest rules that may run. Only a user can give leave for more than `exact`.
    pub leave: Strictness,
    /// Fuel: stop after so many rewrites.
    pub max_rewrites: Option<u64>,
    /// Stop after so many sweeps over the module.
    pub max_sweeps: usize,
    /// Look at operations in an order shuffled by this seed (for tests).
    pub shuffle: Option<u64>,
    /// Rewrite these operations only.
    pub roots: Option<FxHashSet<OpId>>,
}

impl Default for GreedyOptions {
    fn default() -> Self {
        Self { leave: Strictness::Exact, max_rewrites: None, max_sweeps: 64, shuffle: None, roots: None }
    }
}

/// Why the driver stopped before nothing was left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// The given fuel was used up.
    Fuel(u64),
    /// So many sweeps were made and the last one still changed something.
    Sweeps(usize),
    /// More rewrites than any set of rules that ends needs for a module of this size.
    Rewrites(u64),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Fuel(n) => write!(f, "the fuel of {n} rewrites is used up"),
            Limit::Sweeps(n) => write!(f, "{n} sweeps did not reach an end"),
            Limit::Rewrites(n) => {
                write!(f, "{n} rewrites did not reach an end: rules undo each other or grow")
            }
        }
    }
}

/// A match whose replacement did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The rule.
    pub rule: String,
    /// The operation at the root, as people know it.
    pub op: String,
    /// Why.
    pub reason: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rewrites by rule, in file order; rules that did nothing are left out.
    pub by_rule: Vec<(String, u64)>,
    /// Number of rewrites.
    pub rewrites: u64,
    /// Number of operations that were looked at.
    pub visits: u64,
    /// Number of sweeps.
    pub sweeps: usize,
    /// Why it stopped early, if it did.
    pub limit: Option<Limit>,
    /// Rules that did not run because they are looser than the user allowed, or not for this driver.
    pub withheld: Vec<String>,
    /// Matches whose replacement did not fit, each once and at most 1000.
    pub refused: Vec<Refused>,
}

impl Stats {
    /// Whether the module is another one now.
    pub fn changed(&self) -> bool {
        self.rewrites > 0
    }

    /// Adds what another run did.
    pub fn add(&mut self, other: Stats) {
        for (rule, n) in other.by_rule {
            match self.by_rule.iter_mut().find(|(r, _)| *r == rule) {
                Some((_, count)) => *count += n,
                None => self.by_rule.push((rule, n)),
            }
        }
        self.rewrites += other.rewrites;
        self.visits += other.visits;
        self.sweeps += other.sweeps;
        self.limit = self.limit.or(other.limit);
        let new: Vec<String> = other.withheld.into_iter().filter(|w| !self.withheld.contains(w)).collect();
        self.withheld.extend(new);
        self.refused.extend(other.refused);
    }
}

/// Applies rules until none fires any more.
pub fn greedy(module: &mut Module, set: &RuleSet, options: &GreedyOptions, env: &dyn RuleEnv) -> Stats {
    let (buckets, withheld) = Buckets::of(module, set, options.leave);
    let mut driver = Run {
        rewriter: Rewriter::new(module),
        env,
        buckets,
        options,
        counts: vec![0; set.rules.len()],
        stats: Stats { withheld, ..Stats::default() },
        queue: VecDeque::new(),
        queued: Vec::new(),
        budget: 0,
        refused: FxHashSet::default(),
    };
    driver.sweeps();
    let mut stats = driver.stats;
    let counts = driver.counts;
    stats.by_rule =
        set.rules.iter().zip(counts).filter(|(_, n)| *n > 0).map(|(r, n)| (r.name.clone(), n)).collect();
    stats
}

/// Rules by the operator at their root, in the order in which they are tried.
pub(super) struct Buckets<'s> {
    by_kind: Vec<Vec<(usize, &'s Rule)>>,
    /// Longest chain of operations that a pattern looks at.
    depth: usize,
}

impl<'s> Buckets<'s> {
    pub(super) fn of(module: &Module, set: &'s RuleSet, leave: Strictness) -> (Self, Vec<String>) {
        let mut buckets = Buckets { by_kind: vec![Vec::new(); module.registry().len()], depth: 0 };
        let mut withheld = Vec::new();
        let mut order: Vec<(usize, &Rule)> = set.rules.iter().enumerate().collect();
        order.sort_by_key(|(_, r)| std::cmp::Reverse(r.size));
        for (i, rule) in order {
            // Equalities that go both ways never end here.
            if rule.strictness > leave || matches!(set.driver, Driver::Egraph | Driver::Insert | Driver::Grad)
            {
                withheld.push(rule.name.clone());
                continue;
            }
            buckets.depth = buckets.depth.max(rule.pattern.depth());
            let mut roots = rule.pattern.roots();
            roots.sort_unstable();
            roots.dedup();
            for kind in roots {
                if let Some(bucket) = buckets.by_kind.get_mut(kind.index()) {
                    bucket.push((i, rule));
                }
            }
        }
        (buckets, withheld)
    }

    /// The rules that may fire at an operation.
    pub(super) fn at(&self, module: &Module, op: OpId) -> &[(usize, &'s Rule)] {
        self.by_kind.get(module.op(op).kind.index()).map_or(&[], Vec::as_slice)
    }
}

struct Run<'a, 'm, 's> {
    rewriter: Rewriter<'m>,
    env: &'a dyn RuleEnv,
    buckets: Buckets<'s>,
    options: &'a GreedyOptions,
    counts: Vec<u64>,
    stats: Stats,
    queue: VecDeque<OpId>,
    queued: Vec<bool>,
    budget: u64,
    /// Rules and operations whose refusal is noted.
    refused: FxHashSet<(usize, OpId)>,
}

/// After one rewrite at most so many operations around it are looked at again at once; a sweep finds the others.
const NEIGHBOURS: usize = 64;
/// More refusals than this are not noted.
const MAX_REFUSED: usize = 1000;

impl Run<'_, '_, '_> {
    fn sweeps(&mut self) {
        self.rewriter.take_events();
        let size = self.rewriter.all_ops().len() as u64;
        // Each rule may fire many times at one place, but not without end.
        self.budget = 1000 + 100 * size;
        loop {
            let before = self.stats.rewrites;
            self.stats.sweeps += 1;
            self.fill();
            while let Some(op) = self.queue.pop_front() {
                self.queued[op.index()] = false;
                self.visit(op);
                if self.out_of_budget() {
                    return;
                }
            }
            if self.stats.rewrites == before {
                return;
            }
            if self.stats.sweeps >= self.options.max_sweeps {
                self.stats.limit = Some(Limit::Sweeps(self.stats.sweeps));
                return;
            }
        }
    }

    fn out_of_budget(&mut self) -> bool {
        if self.stats.limit.is_none() && self.stats.rewrites > self.budget {
            self.stats.limit = Some(Limit::Rewrites(self.stats.rewrites));
        }
        self.stats.limit.is_some()
    }

    fn fill(&mut self) {
        let mut ops = self.rewriter.all_ops();
        if let Some(seed) = self.options.shuffle {
            shuffle(&mut ops, seed.wrapping_add(self.stats.sweeps as u64));
        }
        self.queued.resize(self.rewriter.op_capacity(), false);
        for op in ops {
            if !self.buckets.at(&self.rewriter, op).is_empty() {
                self.queued[op.index()] = true;
                self.queue.push_back(op);
            }
        }
    }

    /// Puts an operation first in the queue.
    fn enqueue(&mut self, op: OpId) {
        if self.queued.len() <= op.index() {
            self.queued.resize(self.rewriter.op_capacity(), false);
        }
        if !self.queued[op.index()] && !self.buckets.at(&self.rewriter, op).is_empty() {
            self.queued[op.index()] = true;
            self.queue.push_front(op);
        }
    }

    fn visit(&mut self, op: OpId) {
        let wanted = self.options.roots.as_ref().is_none_or(|roots| roots.contains(&op));
        if !wanted || !self.rewriter.op(op).is_live() {
            return;
        }
        self.stats.visits += 1;
        for i in 0..self.buckets.at(&self.rewriter, op).len() {
            let (index, rule) = self.buckets.at(&self.rewriter, op)[i];
            let found = {
                let mut matcher = Matcher::new(&self.rewriter, self.env, rule.vars.len(), &rule.conditions);
                matcher.at_op(&rule.pattern, op)
            };
            let Some(found) = found else { continue };
            if let Some(fuel) = self.options.max_rewrites
                && self.stats.rewrites >= fuel
            {
                self.stats.limit = Some(Limit::Fuel(fuel));
                return;
            }
            match apply(&mut self.rewriter, self.env, rule, op, &found) {
                Ok(()) => {
                    self.counts[index] += 1;
                    self.stats.rewrites += 1;
                    self.after_rewrite();
                    return;
                }
                Err(reason) => {
                    self.rewriter.take_events();
                    self.refuse(index, rule, op, reason);
                }
            }
        }
    }

    fn refuse(&mut self, index: usize, rule: &Rule, op: OpId, reason: Refusal) {
        if self.stats.refused.len() < MAX_REFUSED && self.refused.insert((index, op)) {
            let op = self.rewriter.label(op).to_owned();
            self.stats.refused.push(Refused { rule: rule.name.clone(), op, reason });
        }
    }

    /// Looks again at what changed, at what reads it (as far as patterns look), and at what lost a use.
    fn after_rewrite(&mut self) {
        let mut near: Vec<OpId> = Vec::new();
        let mut first = Vec::new();
        for event in self.rewriter.take_events() {
            match event {
                Event::Created(op) | Event::Changed(op) => first.push(op),
                // A value that is left with one user may now satisfy `only_user`.
                Event::LostUse(v) => first.extend(self.only_user(v)),
                Event::Erased(_) => {}
            }
        }
        first.truncate(NEIGHBOURS);
        let mut ring = first;
        for _ in 0..self.buckets.depth.max(1) {
            let mut next = Vec::new();
            for op in ring {
                if near.len() >= NEIGHBOURS || !self.rewriter.op(op).is_live() || near.contains(&op) {
                    continue;
                }
                near.push(op);
                for &v in self.rewriter.op(op).results() {
                    let uses = v.some().map_or(&[][..], |v| self.rewriter.value(v).uses());
                    let users = uses.iter().take(NEIGHBOURS).filter_map(|u| match u {
                        Use::Operand(op, _) => Some(*op),
                        _ => None,
                    });
                    next.extend(users);
                }
            }
            ring = next;
        }
        // The queue is taken from the front: the one nearest to the change comes out first.
        for op in near.into_iter().rev() {
            self.enqueue(op);
        }
    }

    fn only_user(&self, value: ValueId) -> Option<OpId> {
        if matches!(self.rewriter.value(value).def, gs_ir::Def::Erased) {
            return None;
        }
        match self.rewriter.only_use(value) {
            Some(Use::Operand(op, _)) => Some(op),
            _ => None,
        }
    }
}

/// Replaces one match. Nothing is changed where it does not fit.
///
/// # Errors
/// Where the template does not fit at this place.
pub(super) fn apply(
    rewriter: &mut Rewriter<'_>,
    env: &dyn RuleEnv,
    rule: &Rule,
    root: OpId,
    found: &Match,
) -> Result<(), Refusal> {
    let built = Builder::new(rewriter, env, root, found).build(&rule.lets, &rule.template)?;
    let types = match check(rewriter, root, &built) {
        Ok(types) => types,
        Err(reason) => {
            take_back(rewriter, &built);
            return Err(reason);
        }
    };
    for (&new, ty) in built.values.iter().zip(types) {
        // The interface (parameters, globals) keeps the types that it states.
        if *rewriter.type_of(new) != ty && rewriter.producer(new).is_some() {
            rewriter.set_type(new, ty);
        }
    }
    retire_all(rewriter, rule, root, found, &built);
    Ok(())
}

/// Replaces the root and removes what of the match is dead then. Source names go to the operation that took the
/// attributes over, else to the one that stands in the root's place; where none does, they are noted as gone.
fn retire_all(rewriter: &mut Rewriter<'_>, rule: &Rule, root: OpId, found: &Match, built: &Built) {
    let stand_in = built.values.first().and_then(|v| rewriter.producer(*v)).filter(|op| built.made(*op));
    let heirs: FxHashMap<OpId, OpId> = built.heirs.iter().copied().collect();
    let old: Vec<ValueId> = rewriter.op(root).results().to_vec();
    for (&old, &new) in old.iter().zip(&built.values) {
        if !old.is_none() {
            rewriter.replace_uses(old, new);
        }
    }
    for &(from, to) in &built.heirs {
        let source = rewriter.op(from).source;
        rewriter.join_source(to, source);
    }
    let sources = erase_dead(rewriter, root, found);
    let entry = rewriter.entry(rule.note.as_deref().unwrap_or("removed"), &rule.name, None, None);
    // What came first in the network is named first.
    for (op, source) in sources.into_iter().rev() {
        rewriter.give_source(source, heirs.get(&op).copied().or(stand_in), &entry);
    }
}

/// Erases the root of a match and what else of it nothing reads any more; gives the source nodes that each stood for.
fn erase_dead(rewriter: &mut Rewriter<'_>, root: OpId, found: &Match) -> Vec<(OpId, TakenSource)> {
    let mut sources = vec![(root, rewriter.take_source(root))];
    rewriter.erase(root);
    // An operation comes before its operands, so that mostly one round finds everything that is dead.
    let mut left: Vec<OpId> = found.ops.iter().copied().filter(|op| *op != root).collect();
    loop {
        let before = left.len();
        left.retain(|&op| {
            let results = rewriter.op(op).results();
            let dead = results.iter().all(|v| v.some().is_none_or(|v| rewriter.value(v).uses().is_empty()));
            if dead && rewriter.op(op).is_live() {
                sources.push((op, rewriter.take_source(op)));
                rewriter.erase(op);
            }
            !dead
        });
        if left.is_empty() || left.len() == before {
            return sources;
        }
    }
}

/// Whether what was built can stand in the root's place, and the types of the new values.
fn check(rewriter: &Rewriter<'_>, root: OpId, built: &Built) -> Result<Vec<Type>, Refusal> {
    let results = rewriter.op(root).results();
    if built.values.len() > results.len() {
        return Err(format!("{} values stand for {} results", built.values.len(), results.len()));
    }
    let mut types = Vec::new();
    for (i, &old) in results.iter().enumerate() {
        let Some(old) = old.some() else { continue };
        let uses = rewriter.value(old).uses();
        if uses.iter().any(|u| matches!(u, Use::Operand(op, _) if built.made(*op))) {
            return Err("what it makes reads what it replaces".into());
        }
        match built.values.get(i) {
            Some(&new) => types.push(merged(rewriter.type_of(old), rewriter.type_of(new))?),
            None if uses.is_empty() => {}
            None => return Err(format!("nothing stands for result {i}, which is used")),
        }
    }
    Ok(types)
}

/// What is known of a value that is described by both types.
fn merged(old: &Type, new: &Type) -> Result<Type, Refusal> {
    match (old, new) {
        (Type::Any, t) | (t, Type::Any) => Ok(t.clone()),
        (Type::Tensor(a), Type::Tensor(b)) => {
            if a.elem != b.elem {
                return Err(format!("its elements are {}, those of what it replaces {}", b.elem, a.elem));
            }
            let shape = match (&a.shape, &b.shape) {
                (Some(x), Some(y)) => Some(merged_shape(x, y)?),
                (x, y) => x.clone().or_else(|| y.clone()),
            };
            Ok(Type::Tensor(TensorType { elem: a.elem, shape }))
        }
        (a, b) if a == b => Ok(a.clone()),
        _ => Err("its type is another than that of what it replaces".into()),
    }
}

fn merged_shape(old: &Shape, new: &Shape) -> Result<Shape, Refusal> {
    if old.len() != new.len() {
        return Err(format!("its rank is {}, that of what it replaces {}", new.len(), old.len()));
    }
    let dim = |(a, b): (&Dim, &Dim)| match (a, b) {
        _ if a.surely_differs(b) => Err("its shape is another than that of what it replaces".to_owned()),
        (Dim::Const(_), _) => Ok(a.clone()),
        (_, Dim::Const(_)) => Ok(b.clone()),
        _ => Ok(a.clone()),
    };
    old.iter().zip(new).map(dim).collect()
}

/// Shuffles by a seed (SplitMix64, Fisher-Yates): the same on every machine.
fn shuffle(ops: &mut [OpId], seed: u64) {
    let mut state = seed;
    for i in (1..ops.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ops.swap(i, (z % (i as u64 + 1)) as usize);
    }
}
