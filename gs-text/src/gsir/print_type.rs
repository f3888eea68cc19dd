//! Types and dimensions as text. Symbols without a name appear as `?k`, numbered among those that the module uses,
//! in order of creation; terms are ordered by what is printed of them, so that handles cannot show through.

use crate::element::{push_int, push_uint};
use crate::quote::push_name;
use gs_ir::dim::{Expr, Factor, Term};
use gs_ir::{Attr, Dim, Handle, Module, OpId, SymbolId, Type, TypeId};
use std::cmp::Ordering;

/// How the symbols of a module are called.
pub(crate) struct SymbolNames<'m> {
    module: &'m Module,
    /// The number of each symbol without a name; `u32::MAX` for those that are not used.
    ranks: Vec<u32>,
}

impl<'m> SymbolNames<'m> {
    /// Numbers the nameless symbols that appear in what is printed of a module.
    pub(crate) fn new(module: &'m Module) -> Self {
        let mut names = Self { module, ranks: Vec::new() };
        if module.symbols().any(|(_, s)| s.name.is_none()) {
            names.number();
        }
        names
    }

    /// Numbers all nameless symbols, used or not: for messages while a module is being built.
    pub(crate) fn all(module: &'m Module) -> Self {
        let mut next = 0;
        let rank = |(_, symbol): (SymbolId, &gs_ir::Symbol)| {
            next += u32::from(symbol.name.is_none());
            if symbol.name.is_none() { next - 1 } else { u32::MAX }
        };
        Self { module, ranks: module.symbols().map(rank).collect() }
    }

    fn number(&mut self) {
        let mut seen = Seen { used: vec![false; self.module.symbols().count()], ..Seen::default() };
        let m = self.module;
        for (_, global) in m.globals() {
            seen.ty(m, global.ty);
            if let gs_ir::Init::Derived(d) = &global.init {
                d.attrs.iter().for_each(|(_, a)| seen.attr(a));
            }
        }
        for &graph in m.entries() {
            seen.graph(m, graph);
            for op in m.ops_nested(graph) {
                seen.op(m, op);
            }
        }
        let mut next = 0;
        for (id, symbol) in m.symbols() {
            let used = symbol.name.is_none() && seen.used.get(id.index()).copied().unwrap_or(false);
            self.ranks.push(if used { next } else { u32::MAX });
            next += u32::from(used);
        }
    }

    /// The number of a nameless symbol, unless it is not used.
    pub(crate) fn rank(&self, id: SymbolId) -> Option<u32> {
        self.ranks.get(id.index()).copied().filter(|&r| r != u32::MAX)
    }

    fn name(&self, id: SymbolId) -> Option<&'m str> {
        self.module.symbol_info(id).name.map(|n| self.module.str(n))
    }

    /// Appends a symbol.
    pub(crate) fn push_symbol(&self, out: &mut String, id: SymbolId) {
        match self.name(id) {
            Some(name) => push_name(out, name),
            None => {
                out.push('?');
                push_uint(out, u64::from(self.rank(id).unwrap_or(u32::MAX)));
            }
        }
    }

    /// Appends a dimension.
    pub(crate) fn push_dim(&self, out: &mut String, dim: &Dim) {
        match dim {
            Dim::Const(n) => push_int(out, *n),
            Dim::Expr(e) => self.push_expr(out, e),
            Dim::Unknown => out.push('_'),
        }
    }

    /// Appends dimensions in brackets.
    pub(crate) fn push_dims(&self, out: &mut String, dims: &[Dim]) {
        out.push('[');
        for (i, d) in dims.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            self.push_dim(out, d);
        }
        out.push(']');
    }

    fn push_expr(&self, out: &mut String, expr: &Expr) {
        let mut terms: Vec<&Term> = expr.terms.iter().collect();
        terms.sort_by(|a, b| self.cmp_terms(a, b));
        for (i, term) in terms.iter().enumerate() {
            push_sign(out, term.coeff, i == 0);
            self.push_term(out, term);
        }
        if expr.constant != 0 || terms.is_empty() {
            push_sign(out, expr.constant, terms.is_empty());
            push_uint(out, expr.constant.unsigned_abs());
        }
    }

    fn push_term(&self, out: &mut String, term: &Term) {
        if term.coeff.unsigned_abs() != 1 {
            push_uint(out, term.coeff.unsigned_abs());
            out.push('*');
        }
        let mut factors: Vec<&Factor> = term.factors.iter().collect();
        factors.sort_by(|a, b| self.cmp_factors(a, b));
        for (i, factor) in factors.iter().enumerate() {
            if i > 0 {
                out.push('*');
            }
            match factor {
                Factor::Symbol(id) => self.push_symbol(out, *id),
                Factor::FloorDiv(e, k) => {
                    out.push_str("floordiv(");
                    self.push_expr(out, e);
                    out.push_str(", ");
                    push_int(out, *k);
                    out.push(')');
                }
            }
        }
    }

    fn cmp_terms(&self, a: &Term, b: &Term) -> Ordering {
        let sorted = |t: &'_ Term| {
            let mut factors: Vec<Factor> = t.factors.to_vec();
            factors.sort_by(|a, b| self.cmp_factors(a, b));
            factors
        };
        self.cmp_lists(&sorted(a), &sorted(b)).then(a.coeff.cmp(&b.coeff))
    }

    fn cmp_lists(&self, a: &[Factor], b: &[Factor]) -> Ordering {
        let first = a.iter().zip(b).map(|(x, y)| self.cmp_factors(x, y)).find(|o| o.is_ne());
        first.unwrap_or(a.len().cmp(&b.len()))
    }

    /// Named symbols by name, then nameless ones by number, then divisions.
    fn cmp_factors(&self, a: &Factor, b: &Factor) -> Ordering {
        match (a, b) {
            (Factor::Symbol(x), Factor::Symbol(y)) => match (self.name(*x), self.name(*y)) {
                (Some(x), Some(y)) => x.cmp(y),
                (None, None) => x.cmp(y),
                (x, y) => y.is_some().cmp(&x.is_some()),
            },
            (Factor::FloorDiv(x, k), Factor::FloorDiv(y, l)) => self.cmp_exprs(x, y).then(k.cmp(l)),
            (Factor::Symbol(_), Factor::FloorDiv(..)) => Ordering::Less,
            (Factor::FloorDiv(..), Factor::Symbol(_)) => Ordering::Greater,
        }
    }

    fn cmp_exprs(&self, a: &Expr, b: &Expr) -> Ordering {
        let sorted = |e: &Expr| {
            let mut terms: Vec<Term> = e.terms.to_vec();
            terms.sort_by(|a, b| self.cmp_terms(a, b));
            terms
        };
        let (x, y) = (sorted(a), sorted(b));
        let first = x.iter().zip(&y).map(|(s, t)| self.cmp_terms(s, t)).find(|o| o.is_ne());
        first.unwrap_or(x.len().cmp(&y.len())).then(a.constant.cmp(&b.constant))
    }

    /// Appends a type.
    pub(crate) fn push_type(&self, out: &mut String, mut ty: &Type) {
        let mut open = 0;
        loop {
            let tensor = match ty {
                Type::Sequence(inner) => {
                    out.push_str("seq<");
                    ty = inner;
                    open += 1;
                    continue;
                }
                Type::Optional(inner) => {
                    out.push_str("opt<");
                    ty = inner;
                    open += 1;
                    continue;
                }
                Type::Map(key, inner) => {
                    out.push_str("map<");
                    out.push_str(key.name());
                    out.push_str(", ");
                    ty = inner;
                    open += 1;
                    continue;
                }
                Type::Sparse(t) => {
                    out.push_str("sparse<");
                    open += 1;
                    t
                }
                Type::Tensor(t) => t,
                Type::Any => {
                    out.push_str("any");
                    break;
                }
            };
            out.push_str(tensor.elem.name());
            match tensor.dims() {
                Some(dims) => self.push_dims(out, dims),
                None => out.push_str("[*]"),
            }
            break;
        }
        for _ in 0..open {
            out.push('>');
        }
    }
}

fn push_sign(out: &mut String, number: i64, first: bool) {
    out.push_str(match (first, number < 0) {
        (true, true) => "-",
        (true, false) => "",
        (false, true) => " - ",
        (false, false) => " + ",
    });
}

/// Which symbols were seen, and which interned types need no second look.
#[derive(Default)]
struct Seen {
    used: Vec<bool>,
    types: Vec<bool>,
}

impl Seen {
    fn dim(&mut self, dim: &Dim) {
        dim.visit_symbols(&mut |s| {
            if let Some(used) = self.used.get_mut(s.index()) {
                *used = true;
            }
        });
    }

    fn ty(&mut self, m: &Module, id: TypeId) {
        if self.types.len() <= id.index() {
            self.types.resize(id.index() + 1, false);
        }
        if std::mem::replace(&mut self.types[id.index()], true) {
            return;
        }
        let mut ty = m.ty(id);
        loop {
            match ty {
                Type::Sequence(inner) | Type::Optional(inner) | Type::Map(_, inner) => ty = inner,
                Type::Tensor(t) | Type::Sparse(t) => {
                    return t.dims().unwrap_or_default().iter().for_each(|d| self.dim(d));
                }
                Type::Any => return,
            }
        }
    }

    fn attr(&mut self, attr: &Attr) {
        if let Attr::Dims(dims) = attr {
            dims.iter().for_each(|d| self.dim(d));
        }
    }

    fn graph(&mut self, m: &Module, graph: gs_ir::GraphId) {
        for &p in m.graph(graph).params() {
            self.ty(m, m.value(p).ty);
        }
        for ty in m.graph(graph).result_types() {
            self.ty(m, ty);
        }
    }

    fn op(&mut self, m: &Module, op: OpId) {
        for v in m.op(op).results().iter().filter_map(|v| v.some()) {
            self.ty(m, m.value(v).ty);
        }
        for &r in m.op(op).regions() {
            self.graph(m, r);
        }
        m.attrs_of(op).iter().for_each(|(_, a)| self.attr(a));
    }
}
