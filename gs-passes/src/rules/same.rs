//! Compares modules as networks: what they compute and by which operations, not how things are called.

use super::contents;
use gs_ir::{Attr, Def, GlobalId, GraphId, Module, OpId, Role, Type, ValueId};
use gs_text::gsir::type_text;
use rustc_hash::FxHashMap;

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
                Some(_) => return Err("the graphs are wired differently".into()),
                None => {
                    self.pairs.insert(p, q);
                }
            }
            self.values(p, q, &mut pending)?;
        }
        Ok(())
    }

    fn values(
        &mut self,
        p: ValueId,
        q: ValueId,
        pending: &mut Vec<(ValueId, ValueId)>,
    ) -> Result<(), String> {
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

    fn operations(&mut self, o: OpId, r: OpId, pending: &mut Vec<(ValueId, ValueId)>) -> Result<(), String> {
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

    fn attributes(&self, o: OpId, r: OpId) -> Result<(), String> {
        let (xs, ys) = (self.a.attrs_of(o), self.b.attrs_of(r));
        let equal = |x: &Attr, y: &Attr| match (x, y) {
            // Symbols are numbered per module, so their names are compared.
            (Attr::Dims(d), Attr::Dims(e)) => {
                let text = |m: &Module, d: &[gs_ir::Dim]| {
                    type_text(m, &Type::tensor(gs_ir::ElemType::F32, d.iter().cloned()))
                };
                text(self.a, d) == text(self.b, e)
            }
            _ => x == y,
        };
        let same =
            xs.len() == ys.len() && xs.iter().zip(ys.iter()).all(|((n, x), (m, y))| n == m && equal(x, y));
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
        if x.init == y.init {
            Ok(())
        } else {
            Err(format!("the contents of @{name} differ: {:?}, not {:?}", x.init, y.init))
        }
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
