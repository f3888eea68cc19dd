//! Finds the matches of a rule's pattern at a class: all of them, up to a limit, since each is an equality. A value
//! of the pattern is a class, an operation is one of its nodes; otherwise patterns mean what they mean in a module.
//! "Not used" has no meaning here and is not asked: an equality of one result holds whoever uses the others.

use super::facts::{Net, attrs_of};
use super::language::{Head, Node, Place};
use super::view::{NetView, Nothing, OpTable, kind_of, operands_of};
use crate::rules::functions::{Ctx, default_attr};
use crate::rules::matcher::Binding;
use crate::rules::rule::{AttrPat, OpPat, Pat, Rest, RestResults, ResultPat, Rule, Slot, Wrapped};
use crate::rules::{Bindings, Evaluator, RuleEnv};
use egg::Id;
use gs_ir::registry::AttrDecl;
use gs_ir::{Attr, OpId, OpKind};

/// A place where a pattern holds.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The class that the pattern is about.
    pub(super) root: Id,
    /// The operation at the root, where the pattern has one.
    pub(super) root_op: Option<OpId>,
    /// What variables stand for; values by [`Place`].
    pub(super) bindings: Vec<Binding>,
    /// The operations of the match, the root first.
    pub(super) ops: Vec<OpId>,
}

/// What stands still to be matched: a pattern at an operand.
#[derive(Clone, Copy)]
struct Goal<'a> {
    pattern: &'a Pat,
    class: Option<Id>,
    next: usize,
}

const DONE: usize = usize::MAX;
/// Elements of a constant that a number pattern reads at most.
const NUMBER_LIMIT: usize = 1 << 20;

/// A search for the matches of one rule.
pub(super) struct Search<'a, 'm> {
    net: &'a Net<'m>,
    env: &'a dyn RuleEnv,
    nothing: &'a Nothing,
    rule: &'a Rule,
    ops_known: &'a mut OpTable,
    bindings: Vec<Binding>,
    trail: Vec<Slot>,
    ops: Vec<OpId>,
    goals: Vec<Goal<'a>>,
    root: Id,
    /// Above zero while the elements of a list are matched: then the first match is enough.
    inner: usize,
    limit: usize,
    found: Vec<Found>,
}

/// The matches of a rule at a class, at most `limit`.
pub(super) fn search<'a, 'm>(
    net: &'a Net<'m>,
    env: &'a dyn RuleEnv,
    nothing: &'a Nothing,
    rule: &'a Rule,
    ops_known: &'a mut OpTable,
    root: Id,
    limit: usize,
) -> Vec<Found> {
    let bindings = vec![Binding::Unset; rule.vars.len()];
    let (trail, ops, goals, found) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut search = Search {
        net,
        env,
        nothing,
        rule,
        ops_known,
        bindings,
        trail,
        ops,
        goals,
        root,
        inner: 0,
        limit,
        found,
    };
    let first = search.push(&rule.pattern, Some(root), DONE);
    search.solve(first);
    search.found
}

impl<'a> Search<'a, '_> {
    fn push(&mut self, pattern: &'a Pat, class: Option<Id>, next: usize) -> usize {
        self.goals.push(Goal { pattern, class, next });
        self.goals.len() - 1
    }

    /// Tries one way and goes back, unless nothing more is looked for.
    fn attempt(&mut self, f: impl FnOnce(&mut Self) -> bool) -> bool {
        let (trail, ops, goals) = (self.trail.len(), self.ops.len(), self.goals.len());
        if f(self) {
            return true;
        }
        while self.trail.len() > trail {
            if let Some(binding) = self.trail.pop().and_then(|slot| self.bindings.get_mut(slot)) {
                *binding = Binding::Unset;
            }
        }
        self.ops.truncate(ops);
        self.goals.truncate(goals);
        false
    }

    /// Matches the goal with this index and all after it, in every way. True when nothing more is looked for. The
    /// depth of recursion is bounded by the size of the pattern and of the operand lists that it names.
    fn solve(&mut self, index: usize) -> bool {
        let Some(&Goal { pattern, class, next }) = self.goals.get(index) else { return self.done() };
        match pattern {
            Pat::Any => self.solve(next),
            Pat::Absent => class.is_none() && self.solve(next),
            Pat::Optional(inner) => match (class, &**inner) {
                (None, Pat::Var(slot)) => self.bind(*slot, Binding::Value(None)) && self.solve(next),
                (None, _) => self.solve(next),
                (Some(_), inner) => {
                    let again = self.push(inner, class, next);
                    self.solve(again)
                }
            },
            Pat::Var(slot) => class.is_some_and(|c| self.bind_class(*slot, c)) && self.solve(next),
            Pat::Bound(slot, inner) => {
                if !class.is_some_and(|c| self.bind_class(*slot, c)) {
                    return false;
                }
                let again = self.push(inner, class, next);
                self.solve(again)
            }
            Pat::Number(n) => class.is_some_and(|c| self.is_number(c, *n)) && self.solve(next),
            Pat::Alt(all) => all.iter().any(|p| {
                self.attempt(|s| {
                    let again = s.push(p, class, next);
                    s.solve(again)
                })
            }),
            Pat::Wrapped(w) => class.is_some_and(|c| self.wrapped(w, c, next)),
            Pat::Op(op) => class.is_some_and(|c| self.operation(op, c, next)),
        }
    }

    fn done(&mut self) -> bool {
        if self.inner > 0 {
            return true;
        }
        if self.conditions_hold() {
            let root_op = self.ops.first().copied();
            self.found.push(Found {
                root: self.root,
                root_op,
                bindings: self.bindings.clone(),
                ops: self.ops.clone(),
            });
        }
        self.found.len() >= self.limit
    }

    fn conditions_hold(&self) -> bool {
        let view = NetView { net: self.net, ops: self.ops_known, planned: &[], nothing: self.nothing };
        let evaluator = Evaluator { view: &view, env: self.env, bindings: Bindings::Matched(&self.bindings) };
        self.rule.conditions.iter().all(|c| evaluator.cond(c) == Ok(true))
    }

    fn bind_class(&mut self, slot: Slot, class: Id) -> bool {
        self.bind(slot, Binding::Value(Some(Place::Class(class).handle())))
    }

    /// Binds a slot, or checks that it is bound to the same already.
    fn bind(&mut self, slot: Slot, new: Binding) -> bool {
        match self.bindings.get_mut(slot) {
            Some(old @ Binding::Unset) => {
                *old = new;
                self.trail.push(slot);
                true
            }
            Some(old) => *old == new,
            None => false,
        }
    }

    fn is_number(&self, class: Id, n: f64) -> bool {
        let view = NetView { net: self.net, ops: self.ops_known, planned: &[], nothing: self.nothing };
        let contents =
            Ctx { view: &view, env: self.env }.constant(Place::Class(class).handle(), NUMBER_LIMIT);
        contents.is_ok_and(|all| all.iter().all(|x| x.to_bits() == n.to_bits()))
    }

    /// The operations of these kinds whose first result a class is.
    fn makers(&self, class: Id, wanted: &dyn Fn(OpKind) -> bool) -> Vec<Node> {
        let of_kind = |n: &&Node| kind_of(self.net, n).is_some_and(wanted);
        let mut out = Vec::new();
        for node in &self.net[class].nodes {
            match (node.head, node.children.first()) {
                (Head::Proj(0), Some(&tuple)) => {
                    out.extend(self.net[tuple].nodes.iter().filter(of_kind).cloned())
                }
                _ => out.extend(Some(node).filter(of_kind).cloned()),
            }
        }
        out
    }

    fn wrapped(&mut self, w: &'a Wrapped, class: Id, next: usize) -> bool {
        let makers = self.makers(class, &|kind| w.ops.iter().any(|(k, _)| *k == kind));
        let stop = makers.iter().any(|node| {
            self.attempt(|s| {
                let Some((_, attrs)) = w.ops.iter().find(|(k, _)| kind_of(s.net, node) == Some(*k)) else {
                    return false;
                };
                let op = s.enter(node);
                if w.bind.is_some_and(|slot| !s.bind(slot, Binding::Op(op))) || !s.attributes(attrs, node) {
                    return false;
                }
                let operand = operands_of(s.net, node).first().copied().flatten();
                let again = s.push(&w.inner, operand, next);
                s.solve(again)
            })
        });
        stop || w.optional
            && self.attempt(|s| {
                let again = s.push(&w.inner, Some(class), next);
                s.solve(again)
            })
    }

    fn enter(&mut self, node: &Node) -> OpId {
        let op = self.ops_known.handle(node);
        self.ops.push(op);
        op
    }

    fn operation(&mut self, p: &'a OpPat, class: Id, next: usize) -> bool {
        let orders: &[bool] = if p.commutative { &[false, true] } else { &[false] };
        let makers = self.makers(class, &|kind| kind == p.kind);
        makers.iter().flat_map(|m| orders.iter().map(move |o| (m, *o))).any(|(node, swapped)| {
            self.attempt(|s| {
                let op = s.enter(node);
                (p.bind.is_none_or(|slot| s.bind(slot, Binding::Op(op))))
                    && s.results(p, node)
                    && s.attributes(&p.attrs, node)
                    && s.operands(p, node, swapped, next)
            })
        })
    }

    fn operands(&mut self, p: &'a OpPat, node: &Node, swapped: bool, next: usize) -> bool {
        let operands = operands_of(self.net, node);
        let others = operands.get(p.args.len()..).unwrap_or(&[]);
        let handles = |all: &[Option<Id>]| all.iter().map(|c| c.map(|c| Place::Class(c).handle())).collect();
        let fits = match &p.rest {
            None => others.iter().all(Option::is_none),
            Some(Rest::Any) => true,
            Some(Rest::Values(slot)) => self.bind(*slot, Binding::Values(handles(others))),
            Some(Rest::Each(slots, inner)) => self.each(slots, inner, others),
        };
        if !fits {
            return false;
        }
        // Pushed from the last to the first, so that the first is matched first.
        let mut next = next;
        for (i, pattern) in p.args.iter().enumerate().rev() {
            let place = if swapped && i < 2 { 1 - i } else { i };
            next = self.push(pattern, operands.get(place).copied().flatten(), next);
        }
        self.solve(next)
    }

    /// Matches every operand on its own, in the first way that fits.
    fn each(&mut self, slots: &[Slot], pattern: &'a Pat, operands: &[Option<Id>]) -> bool {
        let mut lists = vec![Vec::new(); slots.len()];
        let mut all = true;
        self.inner += 1;
        for operand in operands {
            let goal = self.push(pattern, *operand, DONE);
            all = self.solve(goal);
            if !all {
                break;
            }
            for (list, &slot) in lists.iter_mut().zip(slots) {
                list.push(match self.bindings.get_mut(slot).map(std::mem::take) {
                    Some(Binding::Value(v)) => v,
                    _ => None,
                });
                self.trail.retain(|s| *s != slot);
            }
        }
        self.inner -= 1;
        all && slots.iter().zip(lists).all(|(&slot, list)| self.bind(slot, Binding::Values(list)))
    }

    fn results(&mut self, p: &'a OpPat, node: &Node) -> bool {
        let Some(wanted) = &p.results else { return true };
        let count = match node.head {
            Head::Op(_, n) => n as usize,
            Head::Pinned(op) => self.net.analysis.module.op(op).results().len(),
            _ => 0,
        };
        let named = wanted.named.iter().enumerate().all(|(i, r)| match r {
            ResultPat::Any | ResultPat::Unused => true,
            ResultPat::Var(slot) => match self.result(node, count, i) {
                Some(class) => self.bind_class(*slot, class),
                None => false,
            },
        });
        named
            && match wanted.rest {
                RestResults::Unused => true,
                RestResults::Values(slot) => {
                    let list = (wanted.named.len()..count)
                        .map(|i| self.result(node, count, i).map(|c| Place::Class(c).handle()))
                        .collect();
                    self.bind(slot, Binding::Values(list))
                }
            }
    }

    /// The class of a result of an operation's node.
    fn result(&self, node: &Node, count: usize, index: usize) -> Option<Id> {
        let op = self.net.lookup(node.clone())?;
        match (count, index) {
            (1, 0) => Some(op),
            (1, _) => None,
            _ => self.net.lookup(Node::proj(index, op)),
        }
    }

    fn attributes(&mut self, attrs: &'a [(&'static AttrDecl, AttrPat)], node: &Node) -> bool {
        if attrs.is_empty() {
            return true;
        }
        let Some(set) = node.attrs().and_then(|a| attrs_of(self.net, a)) else { return false };
        attrs.iter().all(|(decl, wanted)| {
            let found: Option<&Attr> = self.net.analysis.module.attr_set(set).get(decl.name);
            match wanted {
                AttrPat::Is(value) => found == value.as_ref(),
                AttrPat::Var(slot) => {
                    let value = found.cloned().or_else(|| default_attr(decl.default));
                    self.bind(*slot, Binding::Attr(value))
                }
            }
        })
    }
}
