//! Dimensions: a number, or an expression of symbols in a normal form, so that `2*N - N` and `N` are one
//! dimension. The normal form is a polynomial with integer coefficients over symbols and floor divisions
//! by constants; what it cannot say is [`Dim::Unknown`], which inference turns into a fresh symbol.

use crate::entity::SymbolId;
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// One extent of a shape.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dim {
    /// A known number.
    Const(i64),
    /// An expression with at least one symbol.
    Expr(Arc<Expr>),
    /// Not sayable. Inference functions return it; no type stored in a module holds it.
    Unknown,
}

/// A polynomial in normal form: terms sorted by their factors, no coefficient zero.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Expr {
    /// The terms that contain symbols.
    pub terms: SmallVec<[Term; 1]>,
    /// The constant term.
    pub constant: i64,
}

/// A coefficient times a sorted product of factors.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term {
    /// Sorted, never empty.
    pub factors: SmallVec<[Factor; 1]>,
    /// Never zero.
    pub coeff: i64,
}

/// What an expression is built of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Factor {
    /// A symbol.
    Symbol(SymbolId),
    /// `floor(expr / divisor)`, divisor at least 2.
    FloorDiv(Arc<Expr>, i64),
}

impl Expr {
    fn of(constant: i64) -> Self {
        Self { terms: SmallVec::new(), constant }
    }

    /// Expressions heavier than this are not followed: a long chain of strided layers over a symbolic extent would
    /// nest divisions without bound.
    const LIMIT: usize = 64;

    /// Number of terms and factors, those inside divisions included; counting stops beyond the limit.
    fn weight(&self) -> usize {
        let mut weight = self.terms.len();
        for factor in self.terms.iter().flat_map(|t| &t.factors) {
            weight += match factor {
                Factor::Symbol(_) => 1,
                Factor::FloorDiv(inner, _) if weight <= Self::LIMIT => 1 + inner.weight(),
                Factor::FloorDiv(..) => 1,
            };
        }
        weight
    }

    fn add_term(&mut self, factors: &[Factor], coeff: i64) -> Option<()> {
        match self.terms.binary_search_by(|t| t.factors.as_slice().cmp(factors)) {
            Ok(i) => {
                self.terms[i].coeff = self.terms[i].coeff.checked_add(coeff)?;
                if self.terms[i].coeff == 0 {
                    self.terms.remove(i);
                }
            }
            Err(i) if coeff != 0 => self.terms.insert(i, Term { factors: factors.into(), coeff }),
            Err(_) => {}
        }
        Some(())
    }

    fn add(&self, other: &Expr) -> Option<Expr> {
        let mut sum = self.clone();
        sum.constant = sum.constant.checked_add(other.constant)?;
        for t in &other.terms {
            sum.add_term(&t.factors, t.coeff)?;
        }
        (sum.weight() <= Self::LIMIT).then_some(sum)
    }

    fn mul(&self, other: &Expr) -> Option<Expr> {
        let mut out = Expr::of(self.constant.checked_mul(other.constant)?);
        for (e, c) in [(self, other.constant), (other, self.constant)] {
            for t in &e.terms {
                out.add_term(&t.factors, t.coeff.checked_mul(c)?)?;
            }
        }
        for a in &self.terms {
            for b in &other.terms {
                let mut factors: SmallVec<[Factor; 1]> =
                    a.factors.iter().chain(&b.factors).cloned().collect();
                factors.sort();
                // Bounds the size of what a hostile chain of reshapes can build.
                if factors.len() > 8 {
                    return None;
                }
                out.add_term(&factors, a.coeff.checked_mul(b.coeff)?)?;
            }
        }
        (out.weight() <= Self::LIMIT).then_some(out)
    }

    /// Whether every coefficient and the constant are multiples of `k`.
    fn divisible(&self, k: i64) -> bool {
        self.constant % k == 0 && self.terms.iter().all(|t| t.coeff % k == 0)
    }

    fn div_exact(&self, k: i64) -> Expr {
        let terms =
            self.terms.iter().map(|t| Term { factors: t.factors.clone(), coeff: t.coeff / k }).collect();
        Expr { terms, constant: self.constant / k }
    }
}

impl Dim {
    /// A symbol alone.
    pub fn symbol(id: SymbolId) -> Self {
        let term = Term { factors: smallvec![Factor::Symbol(id)], coeff: 1 };
        Dim::Expr(Arc::new(Expr { terms: smallvec![term], constant: 0 }))
    }

    /// The number, where it is known.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(n) => Some(*n),
            _ => None,
        }
    }

    /// The symbol, where the dimension is one symbol alone.
    pub fn as_symbol(&self) -> Option<SymbolId> {
        match self {
            Dim::Expr(e) => match (e.constant, e.terms.as_slice()) {
                (0, [Term { factors, coeff: 1 }]) => match factors.as_slice() {
                    [Factor::Symbol(s)] => Some(*s),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether this is [`Dim::Unknown`].
    pub fn is_unknown(&self) -> bool {
        matches!(self, Dim::Unknown)
    }

    fn expr(&self) -> Option<Expr> {
        match self {
            Dim::Const(n) => Some(Expr::of(*n)),
            Dim::Expr(e) => Some((**e).clone()),
            Dim::Unknown => None,
        }
    }

    fn from_expr(expr: Option<Expr>) -> Self {
        match expr {
            None => Dim::Unknown,
            Some(e) if e.terms.is_empty() => Dim::Const(e.constant),
            Some(e) => Dim::Expr(Arc::new(e)),
        }
    }

    fn combine(&self, other: &Dim, f: impl Fn(&Expr, &Expr) -> Option<Expr>) -> Dim {
        match (self.expr(), other.expr()) {
            (Some(a), Some(b)) => Dim::from_expr(f(&a, &b)),
            _ => Dim::Unknown,
        }
    }

    /// `self + other`; unknown on overflow.
    pub fn add(&self, other: &Dim) -> Dim {
        self.combine(other, Expr::add)
    }

    /// `self - other`.
    pub fn sub(&self, other: &Dim) -> Dim {
        self.add(&other.mul(&Dim::Const(-1)))
    }

    /// `self * other`.
    pub fn mul(&self, other: &Dim) -> Dim {
        if *self == Dim::Const(0) || *other == Dim::Const(0) {
            return Dim::Const(0);
        }
        self.combine(other, Expr::mul)
    }

    /// `floor(self / k)` for `k >= 1`; exact quotients are taken term by term.
    pub fn floor_div(&self, k: i64) -> Dim {
        match self {
            _ if k < 1 => Dim::Unknown,
            Dim::Const(n) => Dim::Const(n.div_euclid(k)),
            _ if k == 1 => self.clone(),
            Dim::Expr(e) if e.divisible(k) => Dim::from_expr(Some(e.div_exact(k))),
            Dim::Expr(e) if e.weight() > Expr::LIMIT => Dim::Unknown,
            Dim::Expr(e) => {
                // floor((k*q + r) / k) = q + floor(r / k): what is divisible leaves the division.
                let mut whole = Expr::default();
                let mut rest = Expr::of(e.constant.rem_euclid(k));
                whole.constant = e.constant.div_euclid(k);
                for t in &e.terms {
                    let target = if t.coeff % k == 0 { &mut whole } else { &mut rest };
                    let coeff = if t.coeff % k == 0 { t.coeff / k } else { t.coeff };
                    if target.add_term(&t.factors, coeff).is_none() {
                        return Dim::Unknown;
                    }
                }
                if rest.terms.is_empty() {
                    return Dim::from_expr(Some(whole)); // 0 <= rest < k
                }
                let factor = Factor::FloorDiv(Arc::new(rest), k);
                Dim::from_expr(whole.add_term(&[factor], 1).map(|()| whole))
            }
            Dim::Unknown => Dim::Unknown,
        }
    }

    /// `self / other` where that is exact for every value of the symbols, as in `(64*N) / N = 64`.
    pub fn div_exact(&self, other: &Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Const(a), Dim::Const(b)) => (a.checked_rem(*b) == Some(0)).then(|| Dim::Const(a / b)),
            (a, b) if a == b && !a.is_unknown() => Some(Dim::Const(1)),
            (Dim::Expr(a), Dim::Const(b)) => {
                (*b > 0 && a.divisible(*b)).then(|| Dim::from_expr(Some(a.div_exact(*b))))
            }
            (Dim::Expr(a), Dim::Expr(b)) => div_monomial(a, b),
            _ => None,
        }
    }

    /// Whether both are surely the same number.
    pub fn same(&self, other: &Dim) -> bool {
        !self.is_unknown() && self == other
    }

    /// Whether both surely differ (they differ by a constant other than zero).
    pub fn surely_differs(&self, other: &Dim) -> bool {
        matches!(self.sub(other), Dim::Const(n) if n != 0)
    }

    /// The value when each symbol has the value that `lookup` gives.
    pub fn eval(&self, lookup: &dyn Fn(SymbolId) -> Option<i64>) -> Option<i64> {
        match self {
            Dim::Const(n) => Some(*n),
            Dim::Expr(e) => e.eval(lookup),
            Dim::Unknown => None,
        }
    }

    /// The extent in words, for messages; `name` says what a symbol is called.
    pub fn words(&self, name: &dyn Fn(SymbolId) -> String) -> String {
        match self {
            Dim::Const(n) => n.to_string(),
            Dim::Expr(e) => e.words(name),
            Dim::Unknown => "?".into(),
        }
    }

    /// Calls `f` for each symbol in the expression, repeated ones repeatedly.
    pub fn visit_symbols(&self, f: &mut dyn FnMut(SymbolId)) {
        if let Dim::Expr(e) = self {
            e.visit_symbols(f);
        }
    }
}

impl Expr {
    fn words(&self, name: &dyn Fn(SymbolId) -> String) -> String {
        let factor = |f: &Factor| match f {
            Factor::Symbol(s) => name(*s),
            Factor::FloorDiv(e, k) => match e.words(name) {
                sum if sum.contains([' ', '*']) => format!("floor(({sum})/{k})"),
                one => format!("floor({one}/{k})"),
            },
        };
        let mut parts: Vec<String> = Vec::new();
        for t in &self.terms {
            let factors = t.factors.iter().map(factor).collect::<Vec<_>>().join("*");
            parts.push(if t.coeff == 1 { factors } else { format!("{}*{factors}", t.coeff) });
        }
        if self.constant != 0 {
            parts.push(self.constant.to_string());
        }
        parts.join(" + ").replace("+ -", "- ")
    }

    fn eval(&self, lookup: &dyn Fn(SymbolId) -> Option<i64>) -> Option<i64> {
        let mut sum = self.constant;
        for t in &self.terms {
            let mut product = t.coeff;
            for f in &t.factors {
                let v = match f {
                    Factor::Symbol(s) => lookup(*s)?,
                    Factor::FloorDiv(e, k) => e.eval(lookup)?.div_euclid(*k),
                };
                product = product.checked_mul(v)?;
            }
            sum = sum.checked_add(product)?;
        }
        Some(sum)
    }

    fn visit_symbols(&self, f: &mut dyn FnMut(SymbolId)) {
        for factor in self.terms.iter().flat_map(|t| &t.factors) {
            match factor {
                Factor::Symbol(s) => f(*s),
                Factor::FloorDiv(e, _) => e.visit_symbols(f),
            }
        }
    }
}

/// Exact division of a polynomial by a single term.
fn div_monomial(a: &Expr, b: &Expr) -> Option<Dim> {
    let [divisor] = b.terms.as_slice() else { return None };
    if a.constant != 0 || b.constant != 0 {
        return None;
    }
    let mut out = Expr::default();
    for t in &a.terms {
        // No quotient where it overflows: `i64::MIN / -1`.
        if t.coeff.checked_rem(divisor.coeff)? != 0 {
            return None;
        }
        let mut left = t.factors.clone();
        for f in &divisor.factors {
            let at = left.iter().position(|g| g == f)?;
            left.remove(at);
        }
        let coeff = t.coeff / divisor.coeff;
        if left.is_empty() {
            out.constant = out.constant.checked_add(coeff)?;
        } else {
            out.add_term(&left, coeff)?;
        }
    }
    Some(Dim::from_expr(Some(out)))
}

impl From<i64> for Dim {
    fn from(n: i64) -> Self {
        Dim::Const(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Handle;

    fn sym(i: usize) -> Dim {
        Dim::symbol(SymbolId::from_index(i))
    }

    #[test]
    fn normal_form_identifies_equal_expressions() {
        let (n, h) = (sym(0), sym(1));
        assert_eq!(n.mul(&2.into()).sub(&n), n);
        assert_eq!(n.mul(&h), h.mul(&n));
        assert_eq!(n.sub(&n), Dim::Const(0));
        assert_eq!(n.add(&1.into()).mul(&n.sub(&1.into())), n.mul(&n).sub(&1.into()));
        assert!(n.surely_differs(&n.add(&3.into())));
        assert!(!n.surely_differs(&h));
    }

    #[test]
    fn division() {
        let (n, h) = (sym(0), sym(1));
        assert_eq!(n.mul(&64.into()).div_exact(&n), Some(Dim::Const(64)));
        assert_eq!(n.mul(&h).div_exact(&h), Some(n.clone()));
        assert_eq!(n.add(&1.into()).div_exact(&n), None);
        assert_eq!(n.mul(&4.into()).floor_div(2), n.mul(&2.into()));
        assert_eq!(h.mul(&2.into()).add(&3.into()).floor_div(2), h.add(&1.into()));
        let d = h.sub(&1.into()).floor_div(2);
        assert_eq!(d.eval(&|_| Some(8)), Some(3));
    }

    #[test]
    fn expressions_do_not_grow_without_bound() {
        let mut d = sym(0);
        for _ in 0..10_000 {
            d = d.add(&1.into()).floor_div(2).add(&sym(1));
        }
        assert!(d.is_unknown());
    }

    #[test]
    fn overflow_is_unknown() {
        let big = sym(0).mul(&i64::MAX.into());
        assert!(big.add(&big).is_unknown());
        assert!(Dim::Const(i64::MAX).add(&1.into()).is_unknown());
        let least = sym(0).mul(&i64::MIN.into());
        assert_eq!(least.div_exact(&sym(0).mul(&(-1).into())), None);
        assert_eq!(least.div_exact(&sym(0)), Some(Dim::Const(i64::MIN)));
        assert_eq!(Dim::Const(i64::MIN).div_exact(&(-1).into()), None);
        assert!(least.sub(&Dim::Const(i64::MIN)).is_unknown());
    }
}
