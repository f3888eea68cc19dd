//! Matches patterns against a module. Every choice (alternatives, the order of commutative operands, an optional
//! wrapper) is revisited when something later fails, conditions included, so a match is found if there is one.

use super::env::RuleEnv;
use super::eval::{Bindings, Evaluator};
use super::functions::default_attr;
use super::rule::{AttrPat, Cond, OpPat, Pat, Rest, RestResults, ResultPat, Slot, Wrapped};
use super::view::ModuleView;
use gs_ir::registry::{AttrDecl, Traits};
use gs_ir::{Attr, Def, GraphId, Module, OpId, OpKind, Registry, ValueId};
use gs_text::Span;
use smallvec::SmallVec;

/// What a variable stands for in a match.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Binding {
    /// Not bound.
    #[default]
    Unset,
    /// A value, or an absent operand.
    Value(Option<ValueId>),
    /// A list of values.
    Values(Vec<Option<ValueId>>),
    /// An operation.
    Op(OpId),
    /// An attribute; `None`: absent, with a meaning of its own.
    Attr(Option<Attr>),
}

/// A place where a pattern holds.
#[derive(Clone, Debug)]
pub struct Match {
    /// By slot.
    pub bindings: Vec<Binding>,
    /// The operations that it spans, the root first.
    pub ops: Vec<OpId>,
    /// By slot: the operand place at which a value was bound first.
    pub places: Vec<Option<(OpId, u32)>>,
}

/// Why a pattern did not hold at a place: the failure that came last on the way that went furthest.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// How many steps had succeeded.
    pub progress: usize,
    /// In words.
    pub reason: String,
    /// The piece of the rule, where one piece is to blame.
    pub span: Option<Span>,
}

/// What fills the place on which an operation is put, so that it is not put there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Filler {
    /// Every quantiser.
    Quantiser,
    /// Every mask.
    Mask,
    /// Operations of this operator only.
    Kind(OpKind),
}

impl Filler {
    /// The place that an operator fills.
    pub(super) fn of(registry: &Registry, kind: OpKind) -> Self {
        let traits = registry.decl(kind).traits;
        if traits.has(Traits::QUANTISER) {
            Filler::Quantiser
        } else if traits.has(Traits::MASK) {
            Filler::Mask
        } else {
            Filler::Kind(kind)
        }
    }

    /// Whether an operation fills the place.
    pub(super) fn fits(self, module: &Module, op: OpId) -> bool {
        match self {
            Filler::Quantiser => module.decl(op).traits.has(Traits::QUANTISER),
            Filler::Mask => module.decl(op).traits.has(Traits::MASK),
            Filler::Kind(kind) => module.op(op).kind == kind,
        }
    }

    /// The operation that fills the place of a value, if the value is its result.
    pub(super) fn on(self, module: &Module, value: ValueId) -> Option<OpId> {
        module.producer(value).filter(|&op| self.fits(module, op))
    }

    /// The value behind what fills the place.
    fn behind(self, module: &Module, value: ValueId) -> ValueId {
        self.on(module, value).and_then(|op| module.op(op).operand(0)).unwrap_or(value)
    }
}

/// What stands still to be matched: a pattern at a value.
#[derive(Clone, Copy)]
struct Goal<'a> {
    pattern: &'a Pat,
    value: Option<ValueId>,
    /// The operand place.
    place: Option<(OpId, u32)>,
    /// The goal after this one, by index.
    next: usize,
}

const DONE: usize = usize::MAX;

/// A search for matches of one pattern.
pub struct Matcher<'a> {
    module: &'a Module,
    env: &'a dyn RuleEnv,
    conditions: &'a [Cond],
    bindings: Vec<Binding>,
    places: Vec<Option<(OpId, u32)>>,
    /// Slots in the order in which they were bound, for undoing.
    trail: Vec<Slot>,
    ops: Vec<OpId>,
    goals: Vec<Goal<'a>>,
    /// The slot that looks through what fills the place already on which something is to be put.
    through: Option<(Slot, Filler)>,
    /// Filled while all matches are wanted.
    all: Option<Vec<Match>>,
    /// Filled while explaining.
    failure: Option<Failure>,
    progress: usize,
}

impl<'a> Matcher<'a> {
    /// A search for a pattern with so many variables, under conditions.
    pub fn new(module: &'a Module, env: &'a dyn RuleEnv, vars: usize, conditions: &'a [Cond]) -> Self {
        Matcher {
            module,
            env,
            conditions,
            bindings: vec![Binding::Unset; vars],
            places: vec![None; vars],
            trail: Vec::new(),
            ops: Vec::new(),
            goals: Vec::new(),
            through: None,
            all: None,
            failure: None,
            progress: 0,
        }
    }

    /// Lets a variable see the value behind an operation that fills its place already.
    pub(super) fn looking_through(mut self, slot: Slot, filler: Filler) -> Self {
        self.through = Some((slot, filler));
        self
    }

    /// Remembers why it fails.
    pub fn explaining(mut self) -> Self {
        self.failure = Some(Failure::default());
        self
    }

    /// Why the last search failed, if it was to remember.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Searches at an operation: the pattern's root is one of its results.
    pub fn at_op(&mut self, pattern: &'a Pat, op: OpId) -> Option<Match> {
        let result = self.module.op(op).results().first().copied().and_then(|v| v.some());
        if let Some(result) = result {
            return self.at_value(pattern, result);
        }
        // The first result is omitted, so only a pattern that names the operation itself can hold.
        None
    }

    /// Searches at a value.
    pub fn at_value(&mut self, pattern: &'a Pat, value: ValueId) -> Option<Match> {
        self.goals.clear();
        self.undo(0, 0);
        self.progress = 0;
        let first = self.push(pattern, Some(value), None, DONE);
        self.solve(first).then(|| self.found())
    }

    fn found(&self) -> Match {
        Match { bindings: self.bindings.clone(), ops: self.ops.clone(), places: self.places.clone() }
    }

    /// All the ways in which the pattern holds at a value.
    pub fn all_at_value(&mut self, pattern: &'a Pat, value: ValueId) -> Vec<Match> {
        self.all = Some(Vec::new());
        self.at_value(pattern, value);
        self.all.take().unwrap_or_default()
    }

    fn push(
        &mut self,
        pattern: &'a Pat,
        value: Option<ValueId>,
        place: Option<(OpId, u32)>,
        next: usize,
    ) -> usize {
        self.goals.push(Goal { pattern, value, place, next });
        self.goals.len() - 1
    }

    /// Goes back to an earlier state of bindings and operations.
    fn undo(&mut self, trail: usize, ops: usize) {
        while self.trail.len() > trail {
            if let Some(slot) = self.trail.pop() {
                self.bindings[slot] = Binding::Unset;
                self.places[slot] = None;
            }
        }
        self.ops.truncate(ops);
    }

    fn fail(&mut self, span: Option<Span>, reason: impl FnOnce(&Module) -> String) -> bool {
        if let Some(f) = &mut self.failure
            && (self.progress >= f.progress || f.reason.is_empty())
        {
            *f = Failure { progress: self.progress, reason: reason(self.module), span };
        }
        false
    }

    /// Tries alternatives in turn, each from the same state.
    fn choose<T: Copy>(&mut self, choices: &[T], mut attempt: impl FnMut(&mut Self, T) -> bool) -> bool {
        let (trail, ops, goals, progress) =
            (self.trail.len(), self.ops.len(), self.goals.len(), self.progress);
        for &choice in choices {
            if attempt(self, choice) {
                return true;
            }
            self.undo(trail, ops);
            self.goals.truncate(goals);
            self.progress = progress;
        }
        false
    }

    /// Matches the goal with this index and all after it. The depth of recursion is bounded by the size of the
    /// pattern and of the operand lists that it names.
    fn solve(&mut self, index: usize) -> bool {
        let Some(&goal) = self.goals.get(index) else { return self.complete() };
        self.progress += 1;
        let Goal { pattern, value, place, next } = goal;
        match pattern {
            Pat::Any => self.solve(next),
            Pat::Absent => match value {
                None => self.solve(next),
                Some(_) => self.fail(None, |_| "an operand is there that must be absent".into()),
            },
            Pat::Optional(inner) => match (value, &**inner) {
                (None, Pat::Var(slot)) => {
                    self.bind(*slot, Binding::Value(None), place, None) && self.solve(next)
                }
                (None, _) => self.solve(next),
                (Some(_), inner) => {
                    let again = self.push(inner, value, place, next);
                    self.solve(again)
                }
            },
            Pat::Var(slot) => match value {
                Some(v) => {
                    let v = self.look_through(*slot, v);
                    self.bind(*slot, Binding::Value(Some(v)), place, None) && self.solve(next)
                }
                None => self.fail(None, |_| "an operand is absent".into()),
            },
            Pat::Bound(slot, inner) => {
                let Some(v) = value else { return self.fail(None, |_| "an operand is absent".into()) };
                if !self.bind(*slot, Binding::Value(Some(v)), place, None) {
                    return false;
                }
                let again = self.push(inner, value, place, next);
                self.solve(again)
            }
            Pat::Number(n) => self.number(*n, value) && self.solve(next),
            Pat::Alt(all) => {
                let indices: SmallVec<[usize; 8]> = (0..all.len()).collect();
                self.choose(&indices, |m, i| {
                    let Some(p) = all.get(i) else { return false };
                    let again = m.push(p, value, place, next);
                    m.solve(again)
                })
            }
            Pat::Wrapped(w) => self.wrapped(w, value, place, next),
            Pat::Op(op) => self.operation(op, value, next),
        }
    }

    fn look_through(&self, slot: Slot, value: ValueId) -> ValueId {
        let Some((_, filler)) = self.through.filter(|(s, _)| *s == slot) else { return value };
        filler.behind(self.module, value)
    }

    /// The end of the pattern is reached. Where all matches are wanted, it is noted and the search goes on.
    fn complete(&mut self) -> bool {
        if !self.conditions_hold() {
            return false;
        }
        let found = self.all.is_some().then(|| self.found());
        match (&mut self.all, found) {
            (Some(all), Some(found)) => {
                all.push(found);
                false
            }
            _ => true,
        }
    }

    /// Binds a slot, or checks that it is bound to the same already.
    fn bind(&mut self, slot: Slot, new: Binding, place: Option<(OpId, u32)>, span: Option<Span>) -> bool {
        match self.bindings.get(slot) {
            Some(Binding::Unset) => {
                self.bindings[slot] = new;
                self.places[slot] = place;
                self.trail.push(slot);
                true
            }
            Some(old) if *old == new => true,
            _ => self.fail(span, |_| "a variable stands for two different things".into()),
        }
    }

    fn number(&mut self, n: f64, value: Option<ValueId>) -> bool {
        let Some(v) = value else {
            return self.fail(None, |_| format!("an operand must be {n}, but is absent"));
        };
        let view = ModuleView { module: self.module, matched: &self.ops };
        let holds = super::contents::all_of_value(&view, v, |x| x.to_bits() == n.to_bits());
        match holds {
            Ok(true) => true,
            Ok(false) => self.fail(None, |_| format!("an operand is a constant, but not {n} everywhere")),
            Err(e) => self.fail(None, |_| format!("an operand must be {n}: {e}")),
        }
    }

    /// The operation whose first result a value is, if it may be looked at from here.
    fn producer(&mut self, value: Option<ValueId>) -> Option<OpId> {
        let v = value?;
        let Def::Result(op, 0) = self.module.value(v).def else { return None };
        // What stands outside of a region is seen as a value only.
        let here: Option<GraphId> = self.ops.first().map(|&root| self.module.op(root).graph);
        (here.is_none_or(|g| g == self.module.op(op).graph)).then_some(op)
    }

    fn wrapped(
        &mut self,
        w: &'a Wrapped,
        value: Option<ValueId>,
        place: Option<(OpId, u32)>,
        next: usize,
    ) -> bool {
        self.choose(&[true, false], |m, around| {
            if !around {
                if !w.optional {
                    return false;
                }
                let again = m.push(&w.inner, value, place, next);
                return m.solve(again);
            }
            let Some(op) = m.producer(value) else {
                return m.fail(Some(w.span), |_| "an operation must stand here".into());
            };
            let kind = m.module.op(op).kind;
            let Some((_, attrs)) = w.ops.iter().find(|(k, _)| *k == kind) else {
                return m.fail(Some(w.span), |module| format!("`{}` stands here", module.op_name(op)));
            };
            m.ops.push(op);
            if w.bind.is_some_and(|slot| !m.bind(slot, Binding::Op(op), None, Some(w.span))) {
                return false;
            }
            if !m.attributes(attrs, op, w.span) {
                return false;
            }
            let operand = m.module.op(op).operand(0);
            let again = m.push(&w.inner, operand, Some((op, 0)), next);
            m.solve(again)
        })
    }

    fn operation(&mut self, p: &'a OpPat, value: Option<ValueId>, next: usize) -> bool {
        let Some(op) = self.producer(value) else {
            let wanted = p.kind;
            return self.fail(Some(p.span), |m| match value {
                None => {
                    format!("`{}` must stand here, but the operand is absent", m.registry().decl(wanted).name)
                }
                Some(_) => {
                    let wanted = m.registry().decl(wanted).name;
                    format!(
                        "`{wanted}` must stand here, not an input, a constant or what another graph makes"
                    )
                }
            });
        };
        if self.module.op(op).kind != p.kind {
            let wanted = p.kind;
            return self.fail(Some(p.span), |m| {
                format!("`{}` must stand here, not `{}`", m.registry().decl(wanted).name, m.op_name(op))
            });
        }
        self.ops.push(op);
        if p.bind.is_some_and(|slot| !self.bind(slot, Binding::Op(op), None, Some(p.span))) {
            return false;
        }
        if !self.results(p, op) || !self.attributes(&p.attrs, op, p.span) {
            return false;
        }
        let count = self.module.op(op).operand_count();
        let absent_behind = (p.args.len()..count).all(|i| self.module.op(op).operand(i).is_none());
        if p.rest.is_none() && !absent_behind {
            return self.fail(Some(p.span), |m| format!("`{}` has more operands here", m.op_name(op)));
        }
        let orders: &[bool] = if p.commutative { &[false, true] } else { &[false] };
        self.choose(orders, |m, swapped| m.operands(p, op, swapped, next))
    }

    fn operands(&mut self, p: &'a OpPat, op: OpId, swapped: bool, next: usize) -> bool {
        if !self.rest(p, op) {
            return false;
        }
        // Pushed from the last to the first, so that the first is matched first.
        let mut next = next;
        for (i, pattern) in p.args.iter().enumerate().rev() {
            let place = if swapped && i < 2 { 1 - i } else { i };
            let operand = self.module.op(op).operand(place);
            next = self.push(pattern, operand, Some((op, place as u32)), next);
        }
        self.solve(next)
    }

    /// Operands behind the named ones.
    fn rest(&mut self, p: &'a OpPat, op: OpId) -> bool {
        let others: Vec<Option<ValueId>> = self.module.op(op).operands().skip(p.args.len()).collect();
        match &p.rest {
            None | Some(Rest::Any) => true,
            Some(Rest::Values(slot)) => self.bind(*slot, Binding::Values(others), None, Some(p.span)),
            Some(Rest::Each(slots, inner)) => self.each(slots, inner, &others, op, p),
        }
    }

    /// Matches every operand on its own: within one, choices are not revisited for the sake of another.
    fn each(
        &mut self,
        slots: &[Slot],
        inner: &'a Pat,
        operands: &[Option<ValueId>],
        op: OpId,
        p: &OpPat,
    ) -> bool {
        let mut lists: Vec<Vec<Option<ValueId>>> = vec![Vec::new(); slots.len()];
        // An inner search ends where its own goals do, before conditions are asked.
        let conditions = std::mem::take(&mut self.conditions);
        let wanted = self.all.take();
        let all = operands.iter().enumerate().all(|(i, operand)| {
            let goal = self.push(inner, *operand, Some((op, (p.args.len() + i) as u32)), DONE);
            let found = self.solve(goal);
            for (list, &slot) in lists.iter_mut().zip(slots) {
                list.push(match std::mem::take(&mut self.bindings[slot]) {
                    Binding::Value(v) => v,
                    _ => None,
                });
                self.places[slot] = None;
                self.trail.retain(|s| *s != slot);
            }
            found
        });
        self.conditions = conditions;
        self.all = wanted;
        all && slots
            .iter()
            .zip(lists)
            .all(|(&slot, list)| self.bind(slot, Binding::Values(list), None, Some(p.span)))
    }

    fn results(&mut self, p: &'a OpPat, op: OpId) -> bool {
        let results: SmallVec<[ValueId; 4]> = self.module.op(op).results().iter().copied().collect();
        let unused = |m: &Module, v: ValueId| v.some().is_none_or(|v| m.value(v).uses().is_empty());
        let Some(wanted) = &p.results else {
            if !results.iter().skip(1).all(|v| unused(self.module, *v)) {
                return self.fail(Some(p.span), |m| format!("another result of `{}` is used", m.op_name(op)));
            }
            return true;
        };
        for (i, r) in wanted.named.iter().enumerate() {
            let v = results.get(i).copied().and_then(|v| v.some());
            let good = match r {
                ResultPat::Any => true,
                ResultPat::Unused => v.is_none_or(|v| unused(self.module, v)),
                ResultPat::Var(slot) => {
                    v.is_some() && self.bind(*slot, Binding::Value(v), None, Some(p.span))
                }
            };
            if !good {
                return self
                    .fail(Some(p.span), |m| format!("result {i} of `{}` does not fit", m.op_name(op)));
            }
        }
        let others = results.get(wanted.named.len()..).unwrap_or(&[]);
        match wanted.rest {
            RestResults::Unused => {
                others.iter().all(|v| unused(self.module, *v))
                    || self.fail(Some(p.span), |m| format!("another result of `{}` is used", m.op_name(op)))
            }
            RestResults::Values(slot) => {
                let list = others.iter().map(|v| v.some()).collect();
                self.bind(slot, Binding::Values(list), None, Some(p.span))
            }
        }
    }

    fn attributes(&mut self, attrs: &'a [(&'static AttrDecl, AttrPat)], op: OpId, span: Span) -> bool {
        for (decl, wanted) in attrs {
            let found = self.module.attrs_of(op).get(decl.name);
            match wanted {
                AttrPat::Is(value) => {
                    if found != value.as_ref() {
                        return self.fail(Some(span), |m| {
                            format!("`{}` of `{}` is another", decl.name, m.op_name(op))
                        });
                    }
                }
                AttrPat::Var(slot) => {
                    let value = found.cloned().or_else(|| default_attr(decl.default));
                    if !self.bind(*slot, Binding::Attr(value), None, Some(span)) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn conditions_hold(&mut self) -> bool {
        let view = ModuleView { module: self.module, matched: &self.ops };
        let evaluator = Evaluator { view: &view, env: self.env, bindings: Bindings::Matched(&self.bindings) };
        for c in self.conditions {
            let problem = match evaluator.cond(c) {
                Ok(true) => continue,
                Ok(false) => None,
                Err(reason) => Some(reason),
            };
            if self.failure.is_none() {
                return false;
            }
            let (text, span) = describe(c);
            let reason = match (problem, c) {
                (Some(p), _) => format!("the condition `{text}` does not hold: {p}"),
                (None, Cond::Not(inner)) => {
                    format!("the condition `{}` holds, and must not", describe(inner).0)
                }
                (None, _) => format!("the condition `{text}` does not hold"),
            };
            self.progress += 1;
            return self.fail(span, |_| reason);
        }
        true
    }
}

/// A condition's name and place.
fn describe(c: &Cond) -> (String, Option<Span>) {
    match c {
        Cond::Call(f, _, span) => (f.name.to_owned(), Some(*span)),
        Cond::Not(inner) => {
            let (text, span) = describe(inner);
            (format!("not {text}"), span)
        }
        Cond::Or(all) => joined(all, " or "),
        Cond::And(all) => joined(all, " and "),
    }
}

fn joined(all: &[Cond], word: &str) -> (String, Option<Span>) {
    let parts: Vec<(String, Option<Span>)> = all.iter().map(describe).collect();
    let text: Vec<&str> = parts.iter().map(|(t, _)| t.as_str()).collect();
    (text.join(word), parts.first().and_then(|(_, s)| *s))
}
