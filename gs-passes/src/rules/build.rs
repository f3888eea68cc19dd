//! Builds what a template says, in front of the operation that it will replace. Where something does not fit, all
//! that was built is taken back, and the reason is handed on.

use super::contents;
use super::env::RuleEnv;
use super::eval::{Bindings, Evaluator};
use super::functions::Refusal;
use super::matcher::{Binding, Match};
use super::rule::{CExpr, EachSource, EachTmpl, OpTmpl, Slot, Tmpl};
use super::view::ModuleView;
use gs_ir::registry::{Arity, AttrDecl};
use gs_ir::{
    At, AttrSet, GlobalId, Init, Literal, NewGlobal, OpId, Rewriter, Role, TensorData, Type, ValueId,
};
use smallvec::SmallVec;

/// What was built.
#[derive(Debug, Default)]
pub struct Built {
    /// One for each result of the root that is replaced.
    pub values: Vec<ValueId>,
    /// The new operations, in order. No operation that was there before has a handle as large as theirs.
    pub ops: Vec<OpId>,
    /// Constants that were made for them.
    pub globals: Vec<GlobalId>,
    /// Operations of the match whose attributes were copied, and to where: those are their heirs.
    pub heirs: Vec<(OpId, OpId)>,
}

impl Built {
    /// Whether an operation is one of the new ones.
    pub fn made(&self, op: OpId) -> bool {
        self.ops.first().is_some_and(|&first| op >= first)
    }
}

/// Builds templates of one match.
pub struct Builder<'a, 'm> {
    rewriter: &'a mut Rewriter<'m>,
    env: &'a dyn RuleEnv,
    bindings: Vec<Binding>,
    matched: &'a [OpId],
    at: At,
    root_results: usize,
    built: Built,
}

impl<'a, 'm> Builder<'a, 'm> {
    /// Builds in front of the root of a match.
    pub fn new(rewriter: &'a mut Rewriter<'m>, env: &'a dyn RuleEnv, root: OpId, found: &'a Match) -> Self {
        let root_results = rewriter.op(root).results().len();
        Builder { root_results, ..Builder::at(rewriter, env, found, At::Before(root)) }
    }

    /// Builds at some place what replaces nothing.
    pub(super) fn at(rewriter: &'a mut Rewriter<'m>, env: &'a dyn RuleEnv, found: &'a Match, at: At) -> Self {
        let (bindings, matched) = (found.bindings.clone(), &found.ops[..]);
        Builder { rewriter, env, bindings, matched, at, root_results: 1, built: Built::default() }
    }

    /// Builds everything, or nothing.
    ///
    /// # Errors
    /// Where a function has no answer or an operation does not fit its operands; nothing is changed then.
    pub fn build(mut self, lets: &[(Slot, Tmpl)], template: &Tmpl) -> Result<Built, Refusal> {
        match self.all(lets, template) {
            Ok(()) => Ok(self.built),
            Err(reason) => {
                take_back(self.rewriter, &self.built);
                Err(reason)
            }
        }
    }

    fn all(&mut self, lets: &[(Slot, Tmpl)], template: &Tmpl) -> Result<(), Refusal> {
        self.bind(lets)?;
        self.built.values = match template {
            Tmpl::Tuple(all) => all.iter().map(|t| self.value(t)).collect::<Result<_, _>>()?,
            Tmpl::Each(each) => {
                let mut values = SmallVec::new();
                self.each(each, &mut values)?;
                values.into_iter().collect::<Option<_>>().ok_or("an operand is absent")?
            }
            one => vec![self.value(one)?],
        };
        Ok(())
    }

    /// Makes named values.
    pub(super) fn bind(&mut self, lets: &[(Slot, Tmpl)]) -> Result<(), Refusal> {
        for (slot, t) in lets {
            let value = self.value(t)?;
            self.bindings[*slot] = Binding::Value(Some(value));
        }
        Ok(())
    }

    /// The values of a template that may stand for several.
    pub(super) fn values(&mut self, t: &Tmpl) -> Result<Vec<ValueId>, Refusal> {
        let mut out = SmallVec::new();
        self.operands(t, &mut out)?;
        Ok(out.into_iter().collect::<Option<_>>().ok_or("an operand is absent")?)
    }

    /// All results of an operation, of which there are so many.
    pub(super) fn results(&mut self, op: &OpTmpl, count: usize) -> Result<Vec<ValueId>, Refusal> {
        let made = self.operation(op, Some(count))?;
        Ok(self.rewriter.op(made).results().to_vec())
    }

    /// One value.
    fn value(&mut self, t: &Tmpl) -> Result<ValueId, Refusal> {
        match t {
            Tmpl::Var(slot, _) => match self.bindings.get(*slot) {
                Some(Binding::Value(Some(v))) => Ok(*v),
                _ => Err("a variable is not bound to a value".into()),
            },
            Tmpl::Op(op) => {
                let made = self.operation(op, None)?;
                Ok(self.rewriter.op(made).result())
            }
            Tmpl::Const(e) => {
                let literal = self.evaluate(|ev| ev.tensor(e))?;
                Ok(self.constant(literal))
            }
            Tmpl::Absent | Tmpl::Rest(_) | Tmpl::Each(_) | Tmpl::Tuple(_) => {
                Err("one value is meant here".into())
            }
        }
    }

    /// Operands: none, one or many.
    fn operands(&mut self, t: &Tmpl, out: &mut SmallVec<[Option<ValueId>; 4]>) -> Result<(), Refusal> {
        match t {
            Tmpl::Absent => out.push(None),
            Tmpl::Var(slot, true) => match self.bindings.get(*slot) {
                Some(Binding::Value(v)) => out.push(*v),
                _ => out.push(None),
            },
            Tmpl::Rest(slot) => match self.bindings.get(*slot) {
                Some(Binding::Values(all)) => out.extend(all.iter().copied()),
                _ => return Err("a variable is not bound to a list".into()),
            },
            Tmpl::Each(each) => self.each(each, out)?,
            one => {
                let v = self.value(one)?;
                out.push(Some(v));
            }
        }
        Ok(())
    }

    fn each(&mut self, each: &EachTmpl, out: &mut SmallVec<[Option<ValueId>; 4]>) -> Result<(), Refusal> {
        let lists: Vec<Vec<Option<ValueId>>> = match &each.source {
            EachSource::Own => each.slots.iter().map(|s| self.list(*s)).collect::<Result<_, _>>()?,
            EachSource::List(slot) => vec![self.list(*slot)?],
            EachSource::Results(op) => {
                let made = self.operation(op, Some(self.root_results))?;
                vec![self.rewriter.op(made).results().iter().map(|v| v.some()).collect()]
            }
        };
        let length = lists.iter().map(Vec::len).max().unwrap_or(0);
        if lists.iter().any(|l| l.len() != length) {
            return Err("lists of different length are gone through together".into());
        }
        let saved: Vec<Binding> = each.slots.iter().map(|&s| self.bindings[s].clone()).collect();
        let mut done = Ok(());
        for i in 0..length {
            for (&slot, list) in each.slots.iter().zip(&lists) {
                self.bindings[slot] = Binding::Value(list[i]);
            }
            done = each.body.iter().try_for_each(|t| self.operands(t, out));
            if done.is_err() {
                break;
            }
        }
        for (&slot, old) in each.slots.iter().zip(saved) {
            self.bindings[slot] = old;
        }
        done
    }

    fn list(&self, slot: Slot) -> Result<Vec<Option<ValueId>>, Refusal> {
        match self.bindings.get(slot) {
            Some(Binding::Values(all)) => Ok(all.clone()),
            _ => Err("a variable is not bound to a list".into()),
        }
    }

    fn operation(&mut self, t: &OpTmpl, result_count: Option<usize>) -> Result<OpId, Refusal> {
        let mut operands: SmallVec<[Option<ValueId>; 4]> = SmallVec::new();
        for arg in &t.args {
            self.operands(arg, &mut operands)?;
        }
        while operands.last() == Some(&None) {
            operands.pop();
        }
        let mut attrs = AttrSet::new();
        let decl = *self.rewriter.registry().decl(t.kind);
        for slot in &t.copy {
            let from = self.copied(*slot)?;
            for (name, value) in self.rewriter.attrs_of(from).clone().iter() {
                if decl.attr(name).is_some_and(|a| a.kind.accepts(value)) || decl.name == "opaque" {
                    attrs.set(name, value.clone());
                }
            }
        }
        self.given(&t.attrs, &mut attrs)?;
        let results = result_count.unwrap_or_else(|| {
            let always = decl.results.iter().take_while(|r| r.arity == Arity::One).count();
            always.max(1)
        });
        let made = self.rewriter.create(t.kind, &operands, attrs, results, self.at).map_err(|e| e.0)?;
        self.built.ops.push(made);
        for slot in &t.copy {
            let from = self.copied(*slot)?;
            self.built.heirs.push((from, made));
        }
        Ok(made)
    }

    fn copied(&self, slot: Slot) -> Result<OpId, Refusal> {
        match self.bindings.get(slot) {
            Some(Binding::Op(op)) => Ok(*op),
            _ => Err("the operation to copy attributes from is not there".into()),
        }
    }

    fn given(&self, given: &[(&'static AttrDecl, CExpr)], attrs: &mut AttrSet) -> Result<(), Refusal> {
        for (decl, e) in given {
            match self.evaluate(|ev| ev.attr(e)).map_err(|r| format!("attribute `{}`: {r}", decl.name))? {
                Some(value) => attrs.set(decl.name, converted(decl, value)),
                None => {
                    attrs.remove(decl.name);
                }
            }
        }
        Ok(())
    }

    fn evaluate<T>(&self, f: impl FnOnce(&Evaluator<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let view = ModuleView { module: self.rewriter, matched: self.matched };
        f(&Evaluator { view: &view, env: self.env, bindings: Bindings::Matched(&self.bindings) })
    }

    fn constant(&mut self, literal: Literal) -> ValueId {
        let before = self.rewriter.global_capacity();
        let global = constant(self.rewriter, &literal);
        if self.rewriter.global_capacity() > before {
            self.built.globals.push(global);
        }
        self.rewriter.global(global).value
    }
}

/// A value in the form that an attribute has: what rules write alike but the IR tells apart.
pub(super) fn converted(decl: &AttrDecl, value: gs_ir::Attr) -> gs_ir::Attr {
    use gs_ir::Attr;
    use gs_ir::registry::AttrKind;
    match (decl.kind, value) {
        (AttrKind::Float, Attr::Int(n)) => Attr::float(n as f32),
        (AttrKind::Dims, Attr::Ints(v)) => Attr::dims(v.iter().map(|&n| gs_ir::Dim::Const(n))),
        (AttrKind::Bool, Attr::Int(n @ (0 | 1))) => Attr::Bool(n == 1),
        (_, value) => value,
    }
}

/// Removes what was built and is not used.
pub fn take_back(rewriter: &mut Rewriter<'_>, built: &Built) {
    for &op in built.ops.iter().rev() {
        rewriter.erase(op);
    }
    for &g in &built.globals {
        if rewriter.value(rewriter.global(g).value).uses().is_empty() {
            rewriter.remove_global(g);
        }
    }
}

/// The constant of these contents: one that was made here before, or a new one. Its name says its contents, so that
/// equal constants meet again in another run.
pub fn constant(rewriter: &mut Rewriter<'_>, literal: &Literal) -> GlobalId {
    let name = constant_name(literal);
    let ty = Type::fixed(literal.elem, &literal.dims);
    let init = init_of(literal);
    if let Some(found) = rewriter.global_named(&name) {
        let g = rewriter.global(found);
        if g.role == Role::Const && g.init == init && *rewriter.ty(g.ty) == ty {
            return found;
        }
    }
    rewriter.add_global(NewGlobal { name: &name, role: Role::Const, trainable: false, ty, init })
}

/// Contents as a splat where all elements are equal, else as bytes.
fn init_of(literal: &Literal) -> Init {
    let width = literal.elem.bits() as usize / 8;
    if let TensorData::Bytes(b) = &literal.data
        && width > 0
        && let Some(first) = b.get(..width)
        && b.chunks(width).all(|c| c == first)
    {
        return Init::Splat(first.iter().copied().collect());
    }
    Init::Data(literal.data.clone())
}

fn constant_name(literal: &Literal) -> String {
    let mut name = format!("const.{}", literal.elem);
    for d in &literal.dims {
        name.push_str(&format!("x{d}"));
    }
    let init = init_of(literal);
    let shown = match (&init, &literal.data) {
        (Init::Splat(one), _) => contents::element(literal.elem, one, 0).into_iter().collect::<Vec<_>>(),
        (_, TensorData::Bytes(b)) => (0..8).map_while(|i| contents::element(literal.elem, b, i)).collect(),
        _ => Vec::new(),
    };
    for v in shown {
        name.push_str(&format!(".{v}"));
    }
    name
}
