//! What a rule's template says, as planned nodes: built and type-checked to the end before any of it enters the
//! e-graph.

use super::facts::{Data, Net};
use super::language::{Head, Place};
use super::search::Found;
use super::view::{NetView, Nothing, OpTable};
use crate::rules::functions::Refusal;
use crate::rules::matcher::Binding;
use crate::rules::rule::{EachSource, EachTmpl, OpTmpl, Rule, Slot, Tmpl};
use crate::rules::{Bindings, Evaluator, RuleEnv, build};
use gs_ir::registry::{Arity, AttrDecl, AttrKind};
use gs_ir::{Attr, AttrSet, AttrsId, GlobalId, Literal, OpId, Rewriter, Role, check_attrs, normal_attrs};

/// A node that is not in the e-graph yet.
#[derive(Clone, Debug)]
pub(super) enum Planned {
    /// An operation with these operands.
    Op { head: Head, attrs: AttrsId, operands: Vec<Option<Place>>, copied: Vec<OpId> },
    /// A result of one.
    Proj(usize, Place),
    /// A constant.
    Const(GlobalId),
}

/// A template, planned.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The nodes, operands before users.
    pub(super) nodes: Vec<Planned>,
    /// What is known of each.
    pub(super) data: Vec<Data>,
    /// What stands for each result of the root.
    pub(super) values: Vec<Place>,
}

/// Plans templates of one match.
pub(super) struct Planner<'a, 'm> {
    pub(super) net: &'a mut Net<'m>,
    pub(super) env: &'a dyn RuleEnv,
    pub(super) ops: &'a OpTable,
    pub(super) nothing: &'a Nothing,
    /// Constants that rules made.
    pub(super) constants: &'a mut Vec<GlobalId>,
    bindings: Vec<Binding>,
    root_results: usize,
    plan: Plan,
}

impl<'a, 'm> Planner<'a, 'm> {
    pub(super) fn new(
        net: &'a mut Net<'m>,
        env: &'a dyn RuleEnv,
        ops: &'a OpTable,
        nothing: &'a Nothing,
        constants: &'a mut Vec<GlobalId>,
        found: &Found,
    ) -> Self {
        let root = found.root_op.and_then(|op| ops.node(op)).map(|n| n.head);
        let root_results = match root {
            Some(Head::Op(_, n)) => n as usize,
            Some(Head::Pinned(op)) => net.analysis.module.op(op).results().len(),
            _ => 1,
        };
        let bindings = found.bindings.clone();
        Planner { net, env, ops, nothing, constants, bindings, root_results, plan: Plan::default() }
    }

    /// Plans everything.
    ///
    /// # Errors
    /// Where a function has no answer or an operation does not fit its operands.
    pub(super) fn plan(mut self, rule: &Rule) -> Result<Plan, Refusal> {
        for (slot, t) in &rule.lets {
            let value = self.value(t)?;
            self.set(*slot, Binding::Value(Some(value.handle())));
        }
        self.plan.values = match &rule.template {
            Tmpl::Tuple(all) => all.iter().map(|t| self.value(t)).collect::<Result<_, _>>()?,
            Tmpl::Each(each) => {
                let mut values = Vec::new();
                self.each(each, &mut values)?;
                values.into_iter().collect::<Option<_>>().ok_or("an operand is absent")?
            }
            one => vec![self.value(one)?],
        };
        Ok(self.plan)
    }

    fn set(&mut self, slot: Slot, binding: Binding) {
        if let Some(b) = self.bindings.get_mut(slot) {
            *b = binding;
        }
    }

    fn push(&mut self, node: Planned, data: Data) -> Place {
        self.plan.nodes.push(node);
        self.plan.data.push(data);
        Place::Planned(self.plan.nodes.len() - 1)
    }

    fn value(&mut self, t: &Tmpl) -> Result<Place, Refusal> {
        match t {
            Tmpl::Var(slot, _) => match self.bindings.get(*slot) {
                Some(Binding::Value(Some(v))) => Ok(Place::of(*v)),
                _ => Err("a variable is not bound to a value".into()),
            },
            Tmpl::Op(op) => {
                let (made, count) = self.operation(op, None)?;
                Ok(if count == 1 { made } else { self.result(made, 0) })
            }
            Tmpl::Const(e) => {
                let literal = self.evaluate(|ev| ev.tensor(e))?;
                Ok(self.constant(&literal))
            }
            Tmpl::Absent | Tmpl::Rest(_) | Tmpl::Each(_) | Tmpl::Tuple(_) => {
                Err("one value is meant here".into())
            }
        }
    }

    fn operands(&mut self, t: &Tmpl, out: &mut Vec<Option<Place>>) -> Result<(), Refusal> {
        match t {
            Tmpl::Absent => out.push(None),
            Tmpl::Var(slot, true) => match self.bindings.get(*slot) {
                Some(Binding::Value(v)) => out.push(v.map(Place::of)),
                _ => out.push(None),
            },
            Tmpl::Rest(slot) => out.extend(self.list(*slot)?),
            Tmpl::Each(each) => self.each(each, out)?,
            one => {
                let v = self.value(one)?;
                out.push(Some(v));
            }
        }
        Ok(())
    }

    fn list(&self, slot: Slot) -> Result<Vec<Option<Place>>, Refusal> {
        match self.bindings.get(slot) {
            Some(Binding::Values(all)) => Ok(all.iter().map(|v| v.map(Place::of)).collect()),
            _ => Err("a variable is not bound to a list".into()),
        }
    }

    fn each(&mut self, each: &EachTmpl, out: &mut Vec<Option<Place>>) -> Result<(), Refusal> {
        let lists: Vec<Vec<Option<Place>>> = match &each.source {
            EachSource::Own => each.slots.iter().map(|s| self.list(*s)).collect::<Result<_, _>>()?,
            EachSource::List(slot) => vec![self.list(*slot)?],
            EachSource::Results(op) => {
                let (made, count) = self.operation(op, Some(self.root_results))?;
                let one = |s: &mut Self, i| if count == 1 { made } else { s.result(made, i) };
                vec![(0..count).map(|i| Some(one(self, i))).collect()]
            }
        };
        let length = lists.iter().map(Vec::len).max().unwrap_or(0);
        if lists.iter().any(|l| l.len() != length) {
            return Err("lists of different length are gone through together".into());
        }
        let saved = self.bindings.clone();
        for i in 0..length {
            for (&slot, list) in each.slots.iter().zip(&lists) {
                let element = list.get(i).copied().flatten().map(Place::handle);
                self.set(slot, Binding::Value(element));
            }
            each.body.iter().try_for_each(|t| self.operands(t, out))?;
        }
        self.bindings = saved;
        Ok(())
    }

    /// A planned operation, and how many results it has.
    fn operation(&mut self, t: &OpTmpl, results: Option<usize>) -> Result<(Place, usize), Refusal> {
        let mut operands = Vec::new();
        for arg in &t.args {
            self.operands(arg, &mut operands)?;
        }
        while operands.last() == Some(&None) {
            operands.pop();
        }
        let decl = *self.net.analysis.module.registry().decl(t.kind);
        let attrs = self.attributes(t, &decl)?;
        let count = results.unwrap_or_else(|| {
            let always = decl.results.iter().take_while(|r| r.arity == Arity::One).count();
            always.max(1)
        });
        let attrs = normal_attrs(&decl, attrs);
        check_attrs(&decl, &attrs).map_err(|e| e.0)?;
        let attrs = self.net.analysis.module.intern_attrs(attrs);
        let head = Head::Op(t.kind, count as u32);
        let facts: Vec<Option<&Data>> = operands.iter().map(|o| o.map(|p| self.data(p))).collect();
        let mut data = self.net.analysis.operation(head, attrs, &facts).map_err(|e| e.0)?;
        self.net.analysis.settle(&mut data);
        let copied = t.copy.iter().filter_map(|slot| self.copied(*slot).ok()).collect();
        Ok((self.push(Planned::Op { head, attrs, operands, copied }, data), count))
    }

    fn data(&self, place: Place) -> &Data {
        match place {
            Place::Class(id) => &self.net[id].data,
            Place::Planned(i) => &self.plan.data[i],
        }
    }

    fn result(&mut self, op: Place, index: usize) -> Place {
        let fact = self.data(op).tuple.as_ref().and_then(|t| t.get(index)).cloned();
        let data = match fact {
            Some(fact) => Data { fact, tuple: None, ..self.data(op).clone() },
            None => Data::nothing(),
        };
        self.push(Planned::Proj(index, op), data)
    }

    fn copied(&self, slot: Slot) -> Result<OpId, Refusal> {
        match self.bindings.get(slot) {
            Some(Binding::Op(op)) => Ok(*op),
            _ => Err("the operation to copy attributes from is not there".into()),
        }
    }

    fn attributes(&self, t: &OpTmpl, decl: &gs_ir::OpDecl) -> Result<AttrSet, Refusal> {
        use crate::rules::functions::View;
        let mut attrs = AttrSet::new();
        for slot in &t.copy {
            let from = self.copied(*slot)?;
            for (name, value) in self.view().attrs(from).iter() {
                if decl.attr(name).is_some_and(|a| a.kind.accepts(value)) {
                    attrs.set(name, value.clone());
                }
            }
        }
        for (a, e) in &t.attrs {
            match self.evaluate(|ev| ev.attr(e)).map_err(|r| format!("attribute `{}`: {r}", a.name))? {
                Some(value) => attrs.set(a.name, converted(a, value)),
                None => {
                    attrs.remove(a.name);
                }
            }
        }
        Ok(attrs)
    }

    fn view(&self) -> NetView<'_, 'm> {
        NetView { net: self.net, ops: self.ops, planned: &self.plan.data, nothing: self.nothing }
    }

    fn evaluate<T>(&self, f: impl FnOnce(&Evaluator<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let view = self.view();
        f(&Evaluator { view: &view, env: self.env, bindings: Bindings::Matched(&self.bindings) })
    }

    fn constant(&mut self, literal: &Literal) -> Place {
        let module = &mut *self.net.analysis.module;
        let before = module.global_capacity();
        let global = build::constant(&mut Rewriter::new(module), literal);
        if module.global_capacity() > before {
            self.constants.push(global);
        }
        let ty = module.type_of(module.global(global).value).clone();
        let constant = module.global(global).role == Role::Const;
        let data = Data {
            fact: gs_ir::Fact::of(ty),
            global: Some(global),
            weight_only: true,
            foldable: constant,
            ..Data::nothing()
        };
        self.push(Planned::Const(global), data)
    }
}

/// A value in the form that an attribute has: what rules write alike but the IR tells apart.
fn converted(decl: &AttrDecl, value: Attr) -> Attr {
    match (decl.kind, value) {
        (AttrKind::Float, Attr::Int(n)) => Attr::float(n as f32),
        (AttrKind::Bool, Attr::Int(n @ (0 | 1))) => Attr::Bool(n == 1),
        (_, value) => value,
    }
}
