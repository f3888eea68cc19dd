//! Turns a choice of nodes back into a graph. Operations that were chosen as they are stay in their places; new ones
//! stand where the first operation that they serve stood. Names, sources and the ledger follow.

use super::facts::{Net, attrs_of};
use super::history::{History, Origin};
use super::language::{Head, Node};
use super::load::Loaded;
use super::select::{Choice, Selection};
use super::view::operands_of;
use crate::rules::RuleSet;
use egg::Id;
use gs_ir::{At, AttrsId, LedgerEntry, Module, OpId, OpKind, Rewriter, Type, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// How a class is made in the graph. Classes are named by their numbers in the selection.
enum Make {
    /// It is there.
    Leaf(ValueId),
    /// A result of an operation.
    Part(usize, u32),
    /// An operation of the network, with these operands and types.
    Keep(OpId, Vec<Option<u32>>, Vec<Type>),
    /// A new operation.
    New(Box<NewOp>),
}

struct NewOp {
    kind: OpKind,
    attrs: AttrsId,
    operands: Vec<Option<u32>>,
    types: Vec<Type>,
    origin: Origin,
}

/// An operation of the network as it was.
struct OldOp {
    op: OpId,
    class: u32,
    results: Vec<(ValueId, u32)>,
    /// The rule that matched it first.
    rule: Option<usize>,
}

/// Everything that rebuilding needs, free of the e-graph.
pub(super) struct Recipe {
    make: FxHashMap<u32, Make>,
    ops: Vec<OldOp>,
    /// Rules that made what stands there in the end, by number.
    pub(super) rules: Vec<usize>,
}

impl Recipe {
    /// Reads the choice off an e-graph.
    pub(super) fn new(loaded: &Loaded<'_>, selection: &Selection, history: &History<'_>) -> Self {
        let mut recipe = Recipe { make: FxHashMap::default(), ops: Vec::new(), rules: Vec::new() };
        let mut pending = selection.roots().to_vec();
        while let Some(class) = pending.pop() {
            if recipe.make.contains_key(&class) {
                continue;
            }
            let Some(choice) = selection.chosen(class) else { continue };
            let Some(make) = recipe.make_of(loaded, selection, history, choice) else { continue };
            pending.extend(make.needs());
            recipe.make.insert(class, make);
        }
        recipe.rules.sort_unstable();
        recipe.rules.dedup();
        recipe.ops = loaded
            .ops
            .iter()
            .filter_map(|o| {
                let number = |id: Id| selection.number(&loaded.net, id);
                let results = o.results.iter().filter_map(|(v, id, _)| Some((*v, number(*id)?))).collect();
                Some(OldOp { op: o.op, class: number(o.class)?, results, rule: history.rule_at(o.op) })
            })
            .collect();
        recipe
    }

    fn make_of(
        &mut self,
        loaded: &Loaded<'_>,
        s: &Selection,
        history: &History<'_>,
        choice: &Choice,
    ) -> Option<Make> {
        let net = &loaded.net;
        let node = &choice.node;
        let number = |o: Option<Id>| o.and_then(|id| s.number(net, id));
        let operands = || operands_of(net, node).into_iter().map(number).collect::<Vec<_>>();
        match node.head {
            Head::Absent | Head::Attrs(_) => None,
            Head::Leaf(value) => Some(Make::Leaf(value)),
            Head::Proj(i) => Some(Make::Part(i as usize, s.number(net, *node.children.first()?)?)),
            Head::Pinned(op) => {
                // What its regions read must be there before it; they follow their values by themselves.
                let reads = node.children.iter().skip(1 + net.analysis.module.op(op).operand_count());
                let all = operands().into_iter().chain(reads.map(|c| s.number(net, *c))).collect();
                Some(Make::Keep(op, all, types(net, node)))
            }
            Head::Op(kind, _) => {
                if let Some(&op) = history.operations(node).first() {
                    return Some(Make::Keep(op, operands(), types(net, node)));
                }
                self.rules.extend(history.rule_of(node));
                let attrs = node.attrs().and_then(|a| attrs_of(net, a))?;
                let (operands, types, origin) = (operands(), types(net, node), history.origin(net, node));
                Some(Make::New(Box::new(NewOp { kind, attrs, operands, types, origin })))
            }
        }
    }

    /// Rewrites the graph. Gives the number of operations that were made and removed.
    pub(super) fn apply(self, module: &mut Module, set: &RuleSet) -> (usize, usize) {
        let mut rebuild = Rebuild {
            recipe: &self,
            rewriter: Rewriter::new(module),
            values: FxHashMap::default(),
            ops: FxHashMap::default(),
            kept: FxHashSet::default(),
            new: Vec::new(),
        };
        for old in &self.ops {
            let classes = std::iter::once(old.class).chain(old.results.iter().map(|(_, c)| *c));
            classes.for_each(|c| rebuild.emit(c, old.op));
        }
        rebuild.redirect();
        let removed = rebuild.retire(set);
        (rebuild.new.len(), removed)
    }
}

/// The types of the results of an operation's node.
fn types(net: &Net<'_>, node: &Node) -> Vec<Type> {
    let Some(id) = net.lookup(node.clone()) else { return Vec::new() };
    match &net[id].data.tuple {
        Some(results) => results.iter().map(|f| f.ty.clone()).collect(),
        None => vec![net[id].data.fact.ty.clone()],
    }
}

impl Make {
    fn needs(&self) -> Vec<u32> {
        match self {
            Make::Leaf(_) => Vec::new(),
            Make::Part(_, op) => vec![*op],
            Make::Keep(_, operands, _) => operands.iter().flatten().copied().collect(),
            Make::New(new) => new.operands.iter().flatten().copied().collect(),
        }
    }
}

struct Rebuild<'a, 'm> {
    recipe: &'a Recipe,
    rewriter: Rewriter<'m>,
    values: FxHashMap<u32, ValueId>,
    ops: FxHashMap<u32, OpId>,
    kept: FxHashSet<OpId>,
    /// The new operations in the order in which they were made.
    new: Vec<(OpId, &'a Origin)>,
}

impl<'a> Rebuild<'a, '_> {
    /// Brings a class that is needed into the graph, in front of an operation of it.
    fn emit(&mut self, class: u32, anchor: OpId) {
        let mut stack = vec![(class, false)];
        while let Some((class, ready)) = stack.pop() {
            let Some(make) = self.recipe.make.get(&class) else { continue };
            if self.values.contains_key(&class) || self.ops.contains_key(&class) {
                continue;
            }
            if ready {
                self.place(class, make, anchor);
            } else {
                stack.push((class, true));
                stack.extend(make.needs().into_iter().rev().map(|n| (n, false)));
            }
        }
    }

    /// All that it needs is there.
    fn place(&mut self, class: u32, make: &'a Make, anchor: OpId) {
        match make {
            Make::Leaf(value) => {
                self.values.insert(class, *value);
            }
            Make::Part(i, op) => {
                let value = self.ops.get(op).and_then(|op| self.rewriter.op(*op).results().get(*i)).copied();
                if let Some(value) = value.and_then(ValueId::some) {
                    self.values.insert(class, value);
                }
            }
            Make::Keep(op, operands, types) => {
                // Had it stood before the anchor, its class would be there already.
                if *op != anchor {
                    self.rewriter.move_before(*op, anchor);
                }
                let count = self.rewriter.op(*op).operand_count();
                for (i, operand) in operands.iter().take(count).enumerate() {
                    if let Some(value) = operand.and_then(|c| self.values.get(&c)).copied() {
                        self.rewriter.set_operand(*op, i, Some(value));
                    }
                }
                // An equal value may say more of a type than the operation did.
                let results: Vec<ValueId> = self.rewriter.op(*op).results().to_vec();
                for (value, ty) in results.into_iter().zip(types) {
                    if !value.is_none() && *ty != Type::Any && self.rewriter.type_of(value) != ty {
                        self.rewriter.set_type(value, ty.clone());
                    }
                }
                self.kept.insert(*op);
                self.made(class, *op);
            }
            Make::New(new) => {
                let operands: Vec<Option<ValueId>> =
                    new.operands.iter().map(|o| o.and_then(|c| self.values.get(&c)).copied()).collect();
                let attrs = self.rewriter.attr_set(new.attrs).clone();
                let op =
                    self.rewriter.create_typed(new.kind, &operands, attrs, &new.types, At::Before(anchor));
                self.new.push((op, &new.origin));
                self.made(class, op);
            }
        }
    }

    fn made(&mut self, class: u32, op: OpId) {
        self.ops.insert(class, op);
        if let [one] = *self.rewriter.op(op).results() {
            self.values.insert(class, one);
        }
    }

    /// Lets everything that reads an old value read what stands for it now.
    fn redirect(&mut self) {
        for old in &self.recipe.ops {
            for (value, class) in &old.results {
                if let Some(&new) = self.values.get(class)
                    && new != *value
                {
                    self.rewriter.replace_uses(*value, new);
                }
            }
        }
    }

    /// Removes what is not needed any more and accounts for it.
    fn retire(&mut self, set: &RuleSet) -> usize {
        let heirs = self.heirs();
        let recipe = self.recipe;
        let left: Vec<&OldOp> = recipe.ops.iter().filter(|o| !self.kept.contains(&o.op)).collect();
        let mut sources = Vec::new();
        for old in left.iter().filter(|o| !heirs.contains_key(&o.op)) {
            sources.push((self.rewriter.take_source(old.op), self.entry(set, old)));
        }
        let removed = self.erase_unused(left, &heirs, set);
        // The ledger names what came first in the network first.
        for (source, entry) in sources {
            self.rewriter.give_source(source, None, &entry);
        }
        removed
    }

    fn erase_unused(&mut self, mut left: Vec<&OldOp>, heirs: &FxHashMap<OpId, OpId>, set: &RuleSet) -> usize {
        let mut removed = 0;
        // From the last to the first; what was moved may need another turn.
        loop {
            let before = removed;
            let mut still = Vec::new();
            for old in left.into_iter().rev() {
                if self.is_used(old.op) {
                    still.push(old);
                    continue;
                }
                match heirs.get(&old.op) {
                    Some(&heir) => {
                        let entry = self.entry(set, old);
                        self.rewriter.retire(old.op, Some(heir), entry);
                    }
                    None => drop(self.rewriter.erase(old.op)),
                }
                removed += 1;
            }
            still.reverse();
            left = still;
            if left.is_empty() || removed == before {
                return removed;
            }
        }
    }

    fn is_used(&self, op: OpId) -> bool {
        let results = self.rewriter.op(op).results();
        results.iter().filter_map(|v| v.some()).any(|v| !self.rewriter.value(v).uses().is_empty())
    }

    fn entry(&mut self, set: &RuleSet, old: &OldOp) -> LedgerEntry {
        match old.rule.and_then(|r| set.rules.get(r)) {
            Some(rule) => {
                self.rewriter.entry(rule.note.as_deref().unwrap_or("removed"), &rule.name, None, None)
            }
            None => self.rewriter.entry("removed", "saturate", None, Some("its results are not used")),
        }
    }

    /// Who takes over the source names of what goes: the operation that took over its attributes, else the new
    /// operation that stands for it or was made from it, else an equal operation that stays.
    fn heirs(&self) -> FxHashMap<OpId, OpId> {
        let mut by_copy: FxHashMap<OpId, OpId> = FxHashMap::default();
        let mut by_root: FxHashMap<OpId, OpId> = FxHashMap::default();
        let mut by_any: FxHashMap<OpId, OpId> = FxHashMap::default();
        for (new, origin) in &self.new {
            for old in &origin.copied {
                by_copy.entry(*old).or_insert(*new);
            }
            for old in &origin.from {
                by_any.entry(*old).or_insert(*new);
                if origin.is_root {
                    by_root.entry(*old).or_insert(*new);
                }
            }
        }
        let is_new: FxHashSet<OpId> = self.new.iter().map(|(op, _)| *op).collect();
        let mut heirs = FxHashMap::default();
        for old in self.recipe.ops.iter().filter(|o| !self.kept.contains(&o.op)) {
            let stand_in = self.stand_in(old);
            let heir = by_copy.get(&old.op).copied().or_else(|| match stand_in {
                Some(op) if is_new.contains(&op) => Some(op),
                Some(op) => self.is_copy(old.op, op).then_some(op),
                // Where a value that was there already stands for it, nothing took it over.
                None if old.results.iter().any(|(_, c)| self.values.contains_key(c)) => None,
                None => by_root.get(&old.op).or_else(|| by_any.get(&old.op)).copied(),
            });
            heirs.extend(heir.map(|h| (old.op, h)));
        }
        heirs
    }

    /// The operation that makes what stands for the first result of an old one.
    fn stand_in(&self, old: &OldOp) -> Option<OpId> {
        let value = old.results.iter().find_map(|(_, c)| self.values.get(c))?;
        self.rewriter.producer(*value)
    }

    fn is_copy(&self, a: OpId, b: OpId) -> bool {
        let (a, b) = (self.rewriter.op(a), self.rewriter.op(b));
        a.kind == b.kind && a.attrs == b.attrs && a.results().len() == b.results().len()
    }
}
