//! Saturation: matches are searched where something changed, then all are applied, then the e-graph is put in
//! order; until nothing changes or a limit is hit.

use super::facts::{Net, compatible};
use super::history::{Made, Step};
use super::language::{Head, Node, Place};
use super::plan::{Plan, Planned, Planner};
use super::search::{Found, search};
use super::view::{Nothing, OpTable, kind_of};
use super::{EgraphOptions, Refusal, StopReason};
use crate::rules::matcher::Binding;
use crate::rules::{RuleEnv, RuleSet};
use egg::Id;
use gs_ir::{GlobalId, Handle, OpKind};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

/// A run over one e-graph.
pub(super) struct Run<'a> {
    set: &'a RuleSet,
    options: &'a EgraphOptions,
    env: &'a dyn RuleEnv,
    /// Rules by the operator at their root.
    by_kind: Vec<Vec<usize>>,
    /// Longest chain of operations that a pattern looks at.
    depth: usize,
    /// The nodes that rules speak of; a node keeps its handle as long as its operands keep their classes.
    ops: OpTable,
    /// Matches that were applied already: they say nothing new.
    known: FxHashSet<Key>,
    nothing: Nothing,
    absent: Id,
    /// What happened.
    pub(super) steps: Vec<Step>,
    /// Constants that rules made.
    pub(super) constants: Vec<GlobalId>,
    /// Iterations made.
    pub(super) iterations: usize,
    /// Matches looked at.
    pub(super) matches: u64,
    /// By rule: applications that changed something.
    pub(super) applied: Vec<u64>,
    /// Matches whose template did not fit.
    pub(super) refused: Vec<Refusal>,
    /// Equalities that contradict themselves: the rule, where, and why.
    pub(super) contradictions: Vec<(Vec<usize>, String)>,
}

/// What tells matches apart: the rule, the place, and what is bound there.
type Key = SmallVec<[u32; 12]>;

/// More refusals than this are not noted.
const MAX_REFUSED: usize = 1000;

impl<'a> Run<'a> {
    pub(super) fn new(
        registry_len: usize,
        set: &'a RuleSet,
        taken: &[usize],
        options: &'a EgraphOptions,
        env: &'a dyn RuleEnv,
    ) -> Self {
        let mut by_kind = vec![Vec::new(); registry_len];
        let mut depth = 0;
        for &i in taken {
            let Some(rule) = set.rules.get(i) else { continue };
            depth = depth.max(rule.pattern.depth());
            let mut roots = rule.pattern.roots();
            roots.sort_unstable();
            roots.dedup();
            for kind in roots {
                if let Some(bucket) = by_kind.get_mut(kind.index()) {
                    bucket.push(i);
                }
            }
        }
        Run {
            set,
            options,
            env,
            by_kind,
            depth,
            ops: OpTable::default(),
            known: FxHashSet::default(),
            nothing: Nothing::default(),
            absent: Id::from(0),
            steps: Vec::new(),
            constants: Vec::new(),
            iterations: 0,
            matches: 0,
            applied: vec![0; set.rules.len()],
            refused: Vec::new(),
            contradictions: Vec::new(),
        }
    }

    /// Grows the e-graph until nothing is left to do or a limit is hit.
    pub(super) fn saturate(&mut self, net: &mut Net<'_>) -> StopReason {
        while self.iterations < self.options.iterations {
            let places = self.places(net);
            let mut ops = std::mem::take(&mut self.ops);
            let (matches, cut) = self.search_all(net, &places, &mut ops);
            if matches.is_empty() {
                return StopReason::Saturated;
            }
            self.iterations += 1;
            let first_step = self.steps.len();
            let full = self.apply_all(net, &matches, &ops);
            self.ops = ops;
            net.rebuild();
            self.collect_contradictions(net, first_step);
            if !self.contradictions.is_empty() {
                return StopReason::Contradiction;
            }
            if full {
                return StopReason::Nodes(self.options.nodes);
            }
            if cut {
                return StopReason::Matches(self.options.matches);
            }
            if self.steps.len() == first_step {
                return StopReason::Saturated;
            }
        }
        // Had the last iteration changed nothing, the loop would have ended before.
        StopReason::Iterations(self.options.iterations)
    }

    /// The classes at which a match may be new: those that changed, and those above, as far as patterns look.
    fn places(&self, net: &mut Net<'_>) -> Vec<Id> {
        let touched = std::mem::take(&mut net.analysis.touched);
        let mut seen: FxHashSet<Id> = FxHashSet::default();
        let mut ring: Vec<Id> = Vec::new();
        for id in touched.into_iter().map(|id| net.find(id)) {
            if seen.insert(id) {
                ring.push(id);
            }
        }
        // Projections stand between an operation and its users, and conditions may look at one class more.
        for _ in 0..2 * self.depth + 1 {
            let mut next = Vec::new();
            for id in ring {
                for parent in net[id].parents().map(|p| net.find(p)) {
                    if seen.insert(parent) {
                        next.push(parent);
                    }
                }
            }
            ring = next;
        }
        let mut places: Vec<Id> = seen.into_iter().collect();
        places.sort_unstable();
        places
    }

    fn search_all(&mut self, net: &Net<'_>, places: &[Id], ops: &mut OpTable) -> (Vec<(usize, Found)>, bool) {
        let mut matches = Vec::new();
        for &place in places {
            for i in self.rules_at(net, place) {
                let left = self.options.matches.saturating_sub(self.matches);
                if left == 0 {
                    return (matches, true);
                }
                let Some(rule) = self.set.rules.get(i) else { continue };
                let limit = usize::try_from(left).unwrap_or(usize::MAX);
                let found = search(net, self.env, &self.nothing, rule, ops, place, limit);
                self.matches += found.len() as u64;
                matches
                    .extend(found.into_iter().filter(|f| !self.known.contains(&key(i, f))).map(|f| (i, f)));
            }
        }
        (matches, false)
    }

    /// The rules whose root may be an operation of a class, each once.
    fn rules_at(&self, net: &Net<'_>, place: Id) -> SmallVec<[usize; 8]> {
        let mut kinds: SmallVec<[OpKind; 4]> = SmallVec::new();
        for node in &net[place].nodes {
            match (node.head, node.children.first()) {
                (Head::Proj(0), Some(&tuple)) => {
                    kinds.extend(net[tuple].nodes.iter().filter_map(|n| kind_of(net, n)))
                }
                _ => kinds.extend(kind_of(net, node)),
            }
        }
        let mut rules: SmallVec<[usize; 8]> = SmallVec::new();
        for kind in kinds {
            rules.extend(self.by_kind.get(kind.index()).into_iter().flatten().copied());
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Applies matches in order. True when the e-graph is full.
    fn apply_all(&mut self, net: &mut Net<'_>, matches: &[(usize, Found)], ops: &OpTable) -> bool {
        self.absent = net.add(Node::leaf(Head::Absent));
        for (i, found) in matches {
            if net.total_size() >= self.options.nodes {
                return true;
            }
            let Some(rule) = self.set.rules.get(*i) else { continue };
            let planner = Planner::new(net, self.env, ops, &self.nothing, &mut self.constants, found);
            match planner.plan(rule) {
                Ok(plan) => {
                    self.known.insert(key(*i, found));
                    self.apply(net, *i, found, &plan, ops);
                }
                Err(reason) => self.refuse(*i, net, found, ops, reason),
            }
        }
        false
    }

    fn refuse(&mut self, rule: usize, net: &Net<'_>, found: &Found, ops: &OpTable, reason: String) {
        let Some(name) = self.set.rules.get(rule).map(|r| r.name.clone()) else { return };
        let op = found.root_op.and_then(|op| ops.node(op)).and_then(|n| kind_of(net, n));
        let op = op.map_or("?", |k| net.analysis.module.registry().decl(k).name).to_owned();
        let refusal = Refusal { rule: name, op, reason };
        if self.refused.len() < MAX_REFUSED && !self.refused.contains(&refusal) {
            self.refused.push(refusal);
        }
    }

    /// Adds what a template makes and states the equalities, unless types contradict each other.
    fn apply(&mut self, net: &mut Net<'_>, rule: usize, found: &Found, plan: &Plan, ops: &OpTable) {
        let Some(targets) = targets(net, found, plan.values.len(), ops) else { return };
        for (&place, &target) in plan.values.iter().zip(&targets) {
            let new = match place {
                Place::Class(id) => &net[id].data,
                Place::Planned(i) => &plan.data[i],
            };
            if let Err(reason) = compatible(&net[target].data, new) {
                self.contradictions.push((vec![rule], reason));
                return;
            }
        }
        let before = net.total_size();
        let (ids, nodes) = self.add(net, plan);
        let class = |place: Place| match place {
            Place::Class(id) => Some(id),
            Place::Planned(i) => ids.get(i).copied(),
        };
        let mut changed = net.total_size() > before;
        let values: Vec<Id> = plan.values.iter().filter_map(|p| class(*p)).collect();
        for (&value, &target) in values.iter().zip(&targets) {
            changed |= net.union(target, value);
        }
        if !changed {
            return;
        }
        if let Some(n) = self.applied.get_mut(rule) {
            *n += 1;
        }
        let node_of = |op: &gs_ir::OpId| ops.node(*op).cloned();
        let made = plan.nodes.iter().zip(nodes).enumerate().filter_map(|(i, (p, node))| match p {
            Planned::Op { copied, .. } => {
                let is_root = plan.values.iter().any(|v| stands_for(plan, *v, i));
                let copied = copied.iter().filter_map(node_of).collect();
                Some(Made { node: node?, is_root, copied })
            }
            _ => None,
        });
        let made = made.collect();
        self.steps.push(Step { rule, matched: found.ops.iter().filter_map(node_of).collect(), made });
    }

    /// Adds planned nodes and gives their classes and, of operations, the nodes.
    fn add(&self, net: &mut Net<'_>, plan: &Plan) -> (Vec<Id>, Vec<Option<Node>>) {
        let mut ids: Vec<Id> = Vec::with_capacity(plan.nodes.len());
        let mut nodes = Vec::with_capacity(plan.nodes.len());
        for (planned, data) in plan.nodes.iter().zip(&plan.data) {
            let node = match planned {
                Planned::Const(g) => Node::leaf(Head::Leaf(net.analysis.module.global(*g).value)),
                Planned::Proj(i, op) => Node::proj(*i, place_id(*op, &ids)),
                Planned::Op { head, attrs, operands, .. } => {
                    let mut children: SmallVec<[Id; 5]> = SmallVec::new();
                    children.push(net.add(Node::leaf(Head::Attrs(*attrs))));
                    children.extend(operands.iter().map(|o| o.map_or(self.absent, |p| place_id(p, &ids))));
                    // Inference gave these types already, with names for what it could not say.
                    let facts = data.tuple.as_ref().map_or_else(|| vec![data.fact.clone()], |t| t.to_vec());
                    net.analysis.stored = Some(facts);
                    Node { head: *head, children }
                }
            };
            nodes.push(matches!(planned, Planned::Op { .. }).then(|| node.clone()));
            ids.push(net.add(node));
            net.analysis.stored = None;
        }
        (ids, nodes)
    }

    fn collect_contradictions(&mut self, net: &mut Net<'_>, first_step: usize) {
        let found = std::mem::take(&mut net.analysis.contradictions);
        if found.is_empty() {
            return;
        }
        // Congruence merged them: one of the equalities of this iteration is wrong.
        let mut rules: Vec<usize> =
            self.steps.get(first_step..).unwrap_or(&[]).iter().map(|s| s.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        self.contradictions.extend(found.into_iter().map(|reason| (rules.clone(), reason)));
    }
}

fn key(rule: usize, found: &Found) -> Key {
    let mut key: Key = [rule as u32, usize::from(found.root) as u32].into_iter().collect();
    key.extend(found.ops.iter().map(|op| op.index() as u32));
    let value = |v: Option<gs_ir::ValueId>| v.map_or(u32::MAX, |v| v.index() as u32);
    for binding in &found.bindings {
        // Attributes and operations follow from the operations of the match.
        match binding {
            Binding::Value(v) => key.push(value(*v)),
            Binding::Values(all) => key.extend(all.iter().map(|v| value(*v))),
            Binding::Unset | Binding::Op(_) | Binding::Attr(_) => key.push(u32::MAX - 1),
        }
    }
    key
}

fn place_id(place: Place, ids: &[Id]) -> Id {
    match place {
        Place::Class(id) => id,
        Place::Planned(i) => ids[i],
    }
}

/// Whether a planned value is the operation with this number, or a result of it.
fn stands_for(plan: &Plan, value: Place, op: usize) -> bool {
    match value {
        Place::Planned(i) if i == op => true,
        Place::Planned(i) => {
            matches!(plan.nodes.get(i), Some(Planned::Proj(_, Place::Planned(o))) if *o == op)
        }
        Place::Class(_) => false,
    }
}

/// The classes of the results of the root for which so many values stand.
fn targets(net: &mut Net<'_>, found: &Found, count: usize, ops: &OpTable) -> Option<Vec<Id>> {
    if count <= 1 {
        return Some(vec![net.find(found.root)]);
    }
    let node = found.root_op.and_then(|op| ops.node(op))?.clone();
    let tuple = net.add(node);
    Some((0..count).map(|i| net.add(Node::proj(i, tuple))).collect())
}
