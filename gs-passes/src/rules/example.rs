//! Runs the examples that rules carry: each must do what it says, with its rule alone.

use super::contents;
use super::env::RuleEnv;
use super::greedy::{GreedyOptions, greedy};
use super::insert::insert;
use super::rule::{InsertRule, Rule, RuleSet};
use gs_ir::{Attr, Def, GlobalId, GraphId, Module, Registry, Rewriter, Role, Type, ValueId, infer_module, verify};
use gs_text::gsir::{parse_fragment, type_text};
use gs_text::gsr::Strictness;
use gs_text::gsr::ast::{Example, Snippet};
use gs_text::gsr::Driver;
use gs_text::{Cursor, Diagnostic, FileId, PrintOptions, print_to_string};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Runs all examples of a rule set. What is wrong comes with places in the rule set's own text.
pub fn check_examples(set: &RuleSet, registry: &Arc<Registry>, env: &dyn RuleEnv) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for rule in &set.rules {
        for e in &rule.examples {
            out.extend(check_rule(rule, e, registry, env).err().into_iter().flatten());
        }
    }
    for rule in &set.inserts {
        for e in &rule.examples {
            out.extend(check_insert(rule, e, registry, env).err().into_iter().flatten());
        }
    }
    out
}

fn check_rule(rule: &Rule, e: &Example, registry: &Arc<Registry>, env: &dyn RuleEnv) -> Result<(), Vec<Diagnostic>> {
    let mut module = module_of(&e.before, registry)?;
    let alone = RuleSet { rules: vec![rule.clone()], driver: Driver::Greedy, ..RuleSet::default() };
    let options = GreedyOptions { leave: Strictness::Real, ..GreedyOptions::default() };
    let stats = greedy(&mut module, &alone, &options, env);
    if e.after.is_some() && stats.rewrites == 0 {
        let mut d = Diagnostic::error("GS0650", format!("the example of `{}` does not show it: it does not fire", rule.name));
        d = d.label(e.before.span, "here");
        let best = super::explain(&module, &alone, env, &|_, _| true).into_iter().max_by_key(|r| r.progress);
        d = best.into_iter().fold(d, |d, r| d.note(r.to_string()));
        let refused = stats.refused.iter().map(|r| format!("at {}: {}", r.op, r.reason));
        return Err(vec![refused.fold(d, Diagnostic::note)]);
    }
    finish(&rule.name, e, module, registry)
}

fn check_insert(
    rule: &InsertRule,
    e: &Example,
    registry: &Arc<Registry>,
    env: &dyn RuleEnv,
) -> Result<(), Vec<Diagnostic>> {
    let mut module = module_of(&e.before, registry)?;
    let alone = RuleSet { inserts: vec![rule.clone()], driver: Driver::Insert, ..RuleSet::default() };
    insert(&mut module, &alone, env)?;
    finish(&rule.name, e, module, registry)
}

/// Compares what came out with what the example says.
fn finish(rule: &str, e: &Example, mut module: Module, registry: &Arc<Registry>) -> Result<(), Vec<Diagnostic>> {
    let wanted = module_of(e.after.as_ref().unwrap_or(&e.before), registry)?;
    remove_unused_globals(&mut module);
    let place = e.after.as_ref().unwrap_or(&e.before).span;
    if let Err(errors) = verify(&module) {
        let d = Diagnostic::error("GS0651", format!("`{rule}` makes a broken module of its example")).label(place, "");
        return Err(vec![errors.iter().fold(d, |d, e| d.note(e.describe(&module)))]);
    }
    same_network(&module, &wanted).map_err(|difference| {
        let message = format!("the example of `{rule}` is wrong: {difference}");
        let found = print_to_string(&module, &PrintOptions { provenance: false, ..PrintOptions::default() });
        vec![Diagnostic::error("GS0650", message).label(place, "this was expected").note(format!("this came out:\n{found}"))]
    })
}

/// The module of an example, its types inferred.
fn module_of(snippet: &Snippet, registry: &Arc<Registry>) -> Result<Module, Vec<Diagnostic>> {
    // Blanks in front give its places those that they have in the rule file.
    let blank = " ".repeat(snippet.span.start as usize + 1);
    let text = format!("{blank}{}}}", snippet.text);
    let mut cursor = Cursor::new(FileId(0), &text);
    let parsed = parse_fragment(&mut cursor, registry);
    let Some(parsed) = parsed.filter(|_| !cursor.has_errors()) else { return Err(cursor.into_diagnostics()) };
    let mut module = parsed.module;
    let broken = |d: Diagnostic| Err(vec![d.label(snippet.span, "")]);
    let misfits = infer_module(&mut module);
    if let Some(m) = misfits.first() {
        return broken(Diagnostic::error("GS0652", format!("the example does not fit: {}: {}", module.label(m.op), m.error)));
    }
    match verify(&module) {
        Ok(()) => Ok(module),
        Err(errors) => {
            let d = Diagnostic::error("GS0652", "the example is no valid module");
            broken(errors.iter().fold(d, |d, e| d.note(e.describe(&module))))
        }
    }
}

fn remove_unused_globals(module: &mut Module) {
    loop {
        let derived_from: Vec<GlobalId> = module
            .globals()
            .filter_map(|(_, g)| match &g.init {
                gs_ir::Init::Derived(d) => Some(d.operands.iter().flatten().copied().collect::<Vec<_>>()),
                _ => None,
            })
            .flatten()
            .collect();
        let stored: Vec<GlobalId> =
            module.entries().iter().flat_map(|&g| module.graph(g).updates().map(|(g, _)| g).collect::<Vec<_>>()).collect();
        let unused = |(id, g): &(GlobalId, &gs_ir::Global)| {
            module.value(g.value).uses().is_empty() && !derived_from.contains(id) && !stored.contains(id)
        };
        let Some(id) = module.globals().find(unused).map(|(id, _)| id) else { return };
        Rewriter::new(module).remove_global(id);
    }
}

/// Whether two modules compute the same by the same operations. Names of values, provenance and the order of
/// operations are no difference; nor are names of constants, whose contents are compared.
///
/// # Errors
/// The first difference, in words.
pub fn same_network(a: &Module, b: &Module) -> Result<(), String> {
    if a.entries().len() != b.entries().len() {
        return Err("there are more graphs on one side".into());
    }
    let mut compare = Compare { a, b, pairs: FxHashMap::default(), graphs: FxHashMap::default() };
    for (&x, &y) in a.entries().iter().zip(b.entries()) {
        if a.str(a.graph(x).name) != b.str(b.graph(y).name) {
            return Err("graphs have different names".into());
        }
        compare.graph(x, y)?;
    }
    let (left, right) = (a.all_ops().len(), b.all_ops().len());
    if left != right {
        return Err(format!("there are {left} operations, {right} were expected"));
    }
    Ok(())
}

struct Compare<'m> {
    a: &'m Module,
    b: &'m Module,
    pairs: FxHashMap<ValueId, ValueId>,
    graphs: FxHashMap<GraphId, GraphId>,
}

impl Compare<'_> {
    fn graph(&mut self, x: GraphId, y: GraphId) -> Result<(), String> {
        self.graphs.insert(x, y);
        let (g, h) = (self.a.graph(x), self.b.graph(y));
        if g.params().len() != h.params().len() || g.results().len() != h.results().len() {
            return Err("graphs take or give different numbers of values".into());
        }
        let updates = |m: &Module, g: GraphId| -> Vec<(String, ValueId)> {
            m.graph(g).updates().map(|(g, v)| (m.str(m.global(g).name).to_owned(), v)).collect()
        };
        let (us, vs) = (updates(self.a, x), updates(self.b, y));
        if us.iter().map(|u| &u.0).ne(vs.iter().map(|v| &v.0)) {
            return Err("graphs store different globals".into());
        }
        for (p, q) in g.params().iter().zip(h.params()) {
            self.pairs.insert(*p, *q);
        }
        let mut pending: Vec<(ValueId, ValueId)> = g.results().zip(h.results()).collect();
        pending.extend(us.into_iter().zip(vs).map(|(u, v)| (u.1, v.1)));
        while let Some((p, q)) = pending.pop() {
            match self.pairs.get(&p) {
                Some(known) if *known == q => continue,
                Some(_) => return Err("a value stands for two different ones".into()),
                None => {
                    self.pairs.insert(p, q);
                }
            }
            self.values(p, q, &mut pending)?;
        }
        Ok(())
    }

    fn values(&mut self, p: ValueId, q: ValueId, pending: &mut Vec<(ValueId, ValueId)>) -> Result<(), String> {
        let (left, right) = (type_text(self.a, self.a.type_of(p)), type_text(self.b, self.b.type_of(q)));
        if left != right {
            return Err(format!("a value of type {left} stands for one of type {right}"));
        }
        match (self.a.value(p).def, self.b.value(q).def) {
            (Def::Global(g), Def::Global(h)) => self.globals(g, h),
            (Def::Result(o, i), Def::Result(r, j)) if i == j => self.operations(o, r, pending),
            (Def::Param(..), Def::Param(..)) => Err("a parameter stands for another one".into()),
            _ => Err(format!("{} stands for {}", describe(self.a, p), describe(self.b, q))),
        }
    }

    fn operations(
        &mut self,
        o: gs_ir::OpId,
        r: gs_ir::OpId,
        pending: &mut Vec<(ValueId, ValueId)>,
    ) -> Result<(), String> {
        let (name, other) = (self.a.op_name(o), self.b.op_name(r));
        if name != other {
            return Err(format!("`{name}` stands for `{other}`"));
        }
        self.attributes(o, r)?;
        let trimmed = |m: &Module, op| {
            let mut all: Vec<Option<ValueId>> = m.op(op).operands().collect();
            while all.last() == Some(&None) {
                all.pop();
            }
            all
        };
        let (xs, ys) = (trimmed(self.a, o), trimmed(self.b, r));
        if xs.len() != ys.len() || xs.iter().zip(&ys).any(|(x, y)| x.is_some() != y.is_some()) {
            return Err(format!("`{name}` has other operands"));
        }
        pending.extend(xs.into_iter().flatten().zip(ys.into_iter().flatten()));
        let (gs, hs) = (self.a.op(o).regions().to_vec(), self.b.op(r).regions().to_vec());
        if gs.len() != hs.len() {
            return Err(format!("`{name}` has other regions"));
        }
        gs.into_iter().zip(hs).try_for_each(|(g, h)| self.graph(g, h))
    }

    fn attributes(&self, o: gs_ir::OpId, r: gs_ir::OpId) -> Result<(), String> {
        let (xs, ys) = (self.a.attrs_of(o), self.b.attrs_of(r));
        let equal = |x: &Attr, y: &Attr| match (x, y) {
            // Symbols are numbered per module, so their names are compared.
            (Attr::Dims(d), Attr::Dims(e)) => {
                let text = |m: &Module, d: &[gs_ir::Dim]| type_text(m, &Type::tensor(gs_ir::ElemType::F32, d.iter().cloned()));
                text(self.a, d) == text(self.b, e)
            }
            _ => x == y,
        };
        let same = xs.len() == ys.len() && xs.iter().zip(ys.iter()).all(|((n, x), (m, y))| n == m && equal(x, y));
        if same { Ok(()) } else { Err(format!("`{}` has attributes {xs:?}, not {ys:?}", self.a.op_name(o))) }
    }

    fn globals(&self, g: GlobalId, h: GlobalId) -> Result<(), String> {
        let (x, y) = (self.a.global(g), self.b.global(h));
        let (name, other) = (self.a.str(x.name), self.b.str(y.name));
        if x.role != y.role {
            return Err(format!("@{name} is a {}, @{other} a {}", x.role.name(), y.role.name()));
        }
        if x.role == Role::Const {
            let numbers = |m: &Module, g: &gs_ir::Global| contents::numbers(g, m.ty(g.ty), 1 << 16).ok();
            let (left, right) = (numbers(self.a, x), numbers(self.b, y));
            let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            return match (left, right) {
                (Some(l), Some(r)) if bits(&l) == bits(&r) => Ok(()),
                (None, None) if name == other => Ok(()),
                _ => Err(format!("the contents of @{name} and @{other} differ")),
            };
        }
        if name != other {
            return Err(format!("@{name} stands for @{other}"));
        }
        if x.init == y.init { Ok(()) } else { Err(format!("the contents of @{name} differ: {:?}, not {:?}", x.init, y.init)) }
    }
}

fn describe(m: &Module, v: ValueId) -> String {
    match m.value(v).def {
        Def::Result(op, _) => format!("a result of `{}`", m.op_name(op)),
        Def::Param(..) => "a parameter".into(),
        Def::Global(g) => format!("@{}", m.str(m.global(g).name)),
        Def::Erased => "nothing".into(),
    }
}
