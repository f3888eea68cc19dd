//! Parses types and dimensions: `f32[N, 2*H + 1, ?0]`, `f32[*]`, `seq<...>`, `any`.

use crate::cursor::{Cursor, closest, parse_magnitude};
use crate::diagnostics::Diagnostic;
use crate::lexer::TokenKind as K;
use gs_ir::dim::{Expr, Factor};
use gs_ir::{Dim, ElemType, Module, SymbolId, TensorType, Type};

/// Brackets within a dimension, and containers within a type, deeper than this are refused: they bound the stack.
const MAX_DEPTH: usize = 32;

/// Sums of more terms than this are refused: adding one costs as much as there are.
const MAX_TERMS: usize = 64;

/// Tensors of more axes than this are refused: inference copies shapes from operation to operation.
const MAX_RANK: usize = 256;

/// The nameless symbols of a text: `?k` is the k-th one that was made.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    anonymous: Vec<SymbolId>,
}

impl Symbols {
    /// The symbol `?number`. Those before it are made too, so that numbers follow the order of creation and text that is
    /// printed again has the same numbers.
    pub fn numbered(&mut self, module: &mut Module, number: u64, limit: usize) -> Option<SymbolId> {
        let index = usize::try_from(number).ok().filter(|&n| n < limit)?;
        while self.anonymous.len() <= index {
            self.anonymous.push(module.fresh_symbol());
        }
        self.anonymous.get(index).copied()
    }
}

/// Parses a type.
pub fn parse_type(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module) -> Option<Type> {
    type_at(c, symbols, module, 0)
}

fn type_at(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module, depth: usize) -> Option<Type> {
    if depth > MAX_DEPTH {
        return too_deep(c);
    }
    if !c.at(K::Ident) {
        return c.expected("a type");
    }
    let token = c.bump();
    let word = c.text_of(token);
    if let Some(elem) = ElemType::from_name(word) {
        return Some(Type::Tensor(tensor(c, symbols, module, elem)?));
    }
    let ty = match word {
        "any" => return Some(Type::Any),
        "seq" | "opt" => {
            c.expect(K::Less)?;
            let inner = Box::new(type_at(c, symbols, module, depth + 1)?);
            if word == "seq" { Type::Sequence(inner) } else { Type::Optional(inner) }
        }
        "map" => {
            c.expect(K::Less)?;
            let key = elem_type(c)?;
            c.expect(K::Comma)?;
            Type::Map(key, Box::new(type_at(c, symbols, module, depth + 1)?))
        }
        "sparse" => {
            c.expect(K::Less)?;
            let elem = elem_type(c)?;
            Type::Sparse(tensor(c, symbols, module, elem)?)
        }
        _ => {
            unknown_type(c, word, token);
            return None;
        }
    };
    c.expect(K::Greater)?;
    Some(ty)
}

fn unknown_type(c: &mut Cursor<'_>, word: &str, token: crate::lexer::Token) {
    let d = Diagnostic::error("GS0110", format!("`{word}` is no type")).label(c.span_of(token), "");
    let words = ElemType::all().map(ElemType::name).chain(["any", "seq", "opt", "map", "sparse"]);
    let d = match closest(word, words) {
        Some(near) => d.help(format!("did you mean `{near}`?")),
        None => d.help(
            "tensors are written like `f32[N, 3]`; element types are f32, f16, i64, i8, u4, bool, str, ...",
        ),
    };
    c.error(d);
}

/// Parses the name of an element type.
pub(super) fn elem_type(c: &mut Cursor<'_>) -> Option<ElemType> {
    match ElemType::from_name(c.text()).filter(|_| c.at(K::Ident)) {
        Some(elem) => {
            c.bump();
            Some(elem)
        }
        None => c.expected("an element type"),
    }
}

/// Parses the extents of a tensor whose element type was passed.
fn tensor(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
    elem: ElemType,
) -> Option<TensorType> {
    c.expect(K::LBracket)?;
    if c.eat(K::Star) {
        c.expect(K::RBracket)?;
        return Some(TensorType::unranked(elem));
    }
    let mut ty = TensorType::new(elem, []);
    let shape = ty.shape.get_or_insert_default();
    while !c.at(K::RBracket) {
        let start = c.token();
        let dim = parse_dim(c, symbols, module)?;
        if dim.as_const().is_some_and(|n| n < 0) {
            let d = Diagnostic::error("GS0111", "an extent cannot be negative");
            let span = c.span_from(start);
            c.error(
                d.label(span, "")
                    .help("an extent that is not known is a symbol: `N`, or `?0` without a name"),
            );
            return None;
        }
        if shape.len() == MAX_RANK {
            let d = Diagnostic::error("GS0113", format!("a tensor has at most {MAX_RANK} axes"));
            let span = c.span_from(start);
            c.error(d.label(span, ""));
            return None;
        }
        shape.push(dim);
        if !c.eat(K::Comma) {
            break;
        }
    }
    match c.eat(K::RBracket) {
        true => Some(ty),
        false => c.expected("`,` or `]`"),
    }
}

/// Parses a dimension: a sum of products of numbers, symbols and `floordiv(dimension, number)`.
pub fn parse_dim(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module) -> Option<Dim> {
    // Nearly all dimensions are a number alone.
    if c.at(K::Int) && matches!(c.peek().kind, K::Comma | K::RBracket) {
        return c.int().map(Dim::Const);
    }
    let start = c.token();
    let dim = sum(c, symbols, module, 0)?;
    if dim.is_unknown() {
        let span = c.span_from(start);
        let d = Diagnostic::error("GS0112", "this dimension is too large to compute with").label(span, "");
        c.error(d);
        return None;
    }
    Some(dim)
}

fn too_deep<T>(c: &mut Cursor<'_>) -> Option<T> {
    let d = Diagnostic::error("GS0113", format!("this is nested deeper than {MAX_DEPTH} levels"));
    c.error(d.label(c.span(), ""));
    None
}

fn sum(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module, depth: usize) -> Option<Dim> {
    if depth > MAX_DEPTH {
        return too_deep(c);
    }
    let negative = c.eat(K::Minus);
    let mut total = product(c, symbols, module, depth, negative)?;
    for _ in 0..MAX_TERMS {
        let negative = match c.kind() {
            K::Plus => false,
            K::Minus => true,
            _ => return Some(total),
        };
        c.bump();
        total = total.add(&product(c, symbols, module, depth, negative)?);
    }
    let d = Diagnostic::error("GS0113", format!("a dimension has at most {MAX_TERMS} terms"));
    c.error(d.label(c.span(), ""));
    None
}

/// A product, whose sign the caller has passed: so that the least number needs no magnitude of its own.
fn product(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
    depth: usize,
    negative: bool,
) -> Option<Dim> {
    let mut total = factor(c, symbols, module, depth, negative)?;
    while c.eat(K::Star) {
        total = total.mul(&factor(c, symbols, module, depth, false)?);
    }
    Some(total)
}

fn factor(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
    depth: usize,
    negative: bool,
) -> Option<Dim> {
    let dim = match c.kind() {
        K::Int | K::HexInt => return number(c, negative),
        K::LParen => {
            c.bump();
            let dim = sum(c, symbols, module, depth + 1)?;
            c.expect(K::RParen)?;
            dim
        }
        K::Ident if c.text() == "floordiv" && c.peek().kind == K::LParen => {
            floordiv(c, symbols, module, depth)?
        }
        K::Ident | K::Str | K::Question => Dim::symbol(parse_symbol(c, symbols, module)?),
        _ => return c.expected("a dimension"),
    };
    Some(if negative { dim.mul(&Dim::Const(-1)) } else { dim })
}

fn number(c: &mut Cursor<'_>, negative: bool) -> Option<Dim> {
    let token = c.bump();
    let magnitude = parse_magnitude(c.text_of(token)).map(i128::from);
    match magnitude.and_then(|m| i64::try_from(if negative { -m } else { m }).ok()) {
        Some(n) => Some(Dim::Const(n)),
        None => {
            c.error(
                Diagnostic::error("GS0002", "this number does not fit 64 bits").label(c.span_of(token), ""),
            );
            None
        }
    }
}

fn floordiv(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module, depth: usize) -> Option<Dim> {
    c.bump();
    c.expect(K::LParen)?;
    let dividend = sum(c, symbols, module, depth + 1)?;
    c.expect(K::Comma)?;
    let start = c.token();
    let divisor = c.int()?;
    if divisor < 1 {
        let span = c.span_from(start);
        c.error(Diagnostic::error("GS0114", "a divisor must be at least 1").label(span, ""));
        return None;
    }
    c.expect(K::RParen)?;
    Some(dividend.floor_div(divisor))
}

/// Parses a symbol: `N`, `"any name"` or `?k`.
pub(super) fn parse_symbol(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
) -> Option<SymbolId> {
    if !c.at(K::Question) {
        let name = c.name()?;
        return Some(module.symbol(&name));
    }
    let start = c.bump();
    if !c.at(K::Int) {
        return c.expected("the number of a symbol without a name, as in `?0`");
    }
    let token = c.bump();
    // A text of so many bytes cannot speak of more symbols than that.
    let limit = c.text_len();
    let number = parse_magnitude(c.text_of(token));
    let symbol = number.and_then(|n| symbols.numbered(module, n, limit));
    if symbol.is_none() {
        let d = Diagnostic::error("GS0115", "symbols without a name are numbered from `?0` on without gaps");
        let span = c.span_from(start);
        c.error(d.label(span, ""));
    }
    symbol
}

/// Whether a dimension that inference made is larger than one that could be written: each operation may wrap those of
/// its operands, and what is done with a dimension costs as much as there is of it.
pub(super) fn too_large(dim: &Dim) -> bool {
    const MAX_PARTS: usize = 128;
    fn fits(expr: &Expr, depth: usize, parts: &mut usize) -> bool {
        depth <= MAX_DEPTH
            && expr.terms.len() <= MAX_TERMS
            && expr.terms.iter().flat_map(|t| &t.factors).all(|factor| {
                *parts += 1;
                let inside = |parts: &mut usize| match factor {
                    Factor::Symbol(_) => true,
                    Factor::FloorDiv(e, _) => fits(e, depth + 1, parts),
                };
                *parts <= MAX_PARTS && inside(parts)
            })
    }
    matches!(dim, Dim::Expr(e) if !fits(e, 0, &mut 0))
}
