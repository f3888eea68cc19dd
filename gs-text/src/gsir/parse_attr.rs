//! Parses attributes and the contents of tensors. A value is read by its look; where the declaration of the operator
//! knows better (a whole number for a float, numbers for extents), it decides.

use super::parse_type::{Symbols, elem_type, parse_dim};
use crate::cursor::{Cursor, closest};
use crate::diagnostics::Diagnostic;
use crate::element::{Packer, at_number, parse_f32};
use crate::lexer::TokenKind as K;
use crate::span::Span;
use bytes::Bytes;
use gs_ir::registry::{AttrDecl, AttrKind};
use gs_ir::{Attr, AttrSet, Dim, ElemType, FloatBits, Literal, Module, OpDecl, TensorData};
use std::sync::Arc;

/// More attributes than this are refused: a set is kept sorted, so that each costs as much as there are.
const MAX_ATTRS: usize = 1024;

/// Parses `{name = value, ...}` into normal form: attributes at their default are left out.
pub(super) fn parse_attrs(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
    decl: &OpDecl,
) -> Option<AttrSet> {
    let mut set = AttrSet::new();
    let mut seen: Vec<Box<str>> = Vec::new(); // of those at their default, which are not in the set
    let mut ok = true;
    c.list(K::LBrace, K::RBrace, |c| {
        let start = c.token();
        let name = c.name()?;
        let name_span = c.span_from(start);
        c.expect(K::Equals)?;
        let declared = decl.attr(&name);
        let value_start = c.token();
        let value = parse_attr_value(c, symbols, module, declared.map(|a| a.kind))?;
        let value_span = c.span_from(value_start);
        if set.get(&name).is_some() || seen.iter().any(|s| **s == *name) {
            let d = Diagnostic::error("GS0120", format!("the attribute `{name}` is given twice"));
            c.error(d.label(name_span, ""));
            ok = false;
        } else if decl.name != "opaque" && !fits(c, decl, declared, &name, name_span, &value, value_span) {
            ok = false;
        } else if declared.is_some_and(|a| a.is_default(&value)) {
            seen.push((*name).into());
        } else if set.len() == MAX_ATTRS {
            let d = Diagnostic::error("GS0113", format!("an operation has at most {MAX_ATTRS} attributes"));
            c.error(d.label(name_span, ""));
            return None;
        } else {
            set.set(&name, value);
        }
        Some(())
    })?;
    ok.then_some(set)
}

/// Whether an attribute is declared and of the declared kind.
fn fits(
    c: &mut Cursor<'_>,
    decl: &OpDecl,
    declared: Option<&AttrDecl>,
    name: &str,
    name_span: Span,
    value: &Attr,
    value_span: Span,
) -> bool {
    let Some(declared) = declared else {
        let d = Diagnostic::error("GS0121", format!("`{}` has no attribute `{name}`", decl.name))
            .label(name_span, "");
        let names = || decl.attrs.iter().map(|a| a.name);
        c.error(match closest(name, names()) {
            Some(near) => d.help(format!("did you mean `{near}`?")),
            None if decl.attrs.is_empty() => d.note(format!("`{}` has no attributes", decl.name)),
            None => d.note(format!("it has {}", names().collect::<Vec<_>>().join(", "))),
        });
        return false;
    };
    if declared.kind.accepts(value) {
        return true;
    }
    let wanted = kind_words(declared.kind);
    let message = format!("the attribute `{name}` of `{}` is {wanted}, not {}", decl.name, value.kind_name());
    let d = Diagnostic::error("GS0122", message).label(value_span, format!("expected {wanted}"));
    c.error(d);
    false
}

fn kind_words(kind: AttrKind) -> String {
    let words = match kind {
        AttrKind::Int => "an integer",
        AttrKind::Float => "a float",
        AttrKind::Bool => "a bool",
        AttrKind::Str => "a string",
        AttrKind::Ints => "a list of integers",
        AttrKind::Floats => "a list of floats",
        AttrKind::Strs => "a list of strings",
        AttrKind::Elem => "an element type",
        AttrKind::Dims => "a list of dimensions",
        AttrKind::Tensor => "a tensor",
        AttrKind::Enum(words) => {
            let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
            return format!("one of {}", quoted.join(", "));
        }
    };
    words.to_owned()
}

/// Parses the value of an attribute. `kind` is what the declaration says of it, if there is one; a value of another kind
/// is returned as what it looks like.
pub fn parse_attr_value(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
    kind: Option<AttrKind>,
) -> Option<Attr> {
    let value = match c.kind() {
        K::LBracket => list(c, symbols, module, kind)?,
        K::Str => Attr::Str(Arc::from(&*c.string()?)),
        K::Bytes => {
            let token = c.bump();
            Attr::Bytes(Bytes::copy_from_slice(&c.string_bytes(token)?))
        }
        K::Ident => word(c, symbols, module)?,
        _ if at_number(c) => number(c)?,
        _ => return c.expected("a value"),
    };
    Some(match (kind, value) {
        (Some(AttrKind::Float), Attr::Int(n)) => Attr::float(n as f32),
        (_, value) => value,
    })
}

fn number(c: &mut Cursor<'_>) -> Option<Attr> {
    let kind = if c.at(K::Minus) { c.peek().kind } else { c.kind() };
    match kind {
        K::Int | K::HexInt => c.int().map(Attr::Int),
        _ => parse_f32(c).map(Attr::float),
    }
}

/// A value that begins with a word: `true`, `f32`, `f32[2] dense(...)`, `ints[...]`, `raw(...)`, `nan`.
fn word(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module) -> Option<Attr> {
    let next = c.peek().kind;
    match (c.text(), next) {
        ("true", _) | ("false", _) => {
            let token = c.bump();
            Some(Attr::Bool(c.text_of(token) == "true"))
        }
        ("inf" | "nan", _) => parse_f32(c).map(Attr::float),
        ("float", K::LParen) => {
            c.bump();
            c.bump();
            let value = parse_f32(c)?;
            c.expect(K::RParen)?;
            Some(Attr::float(value))
        }
        ("raw", K::LParen) => raw(c),
        ("ints", K::LBracket) => list_of(c, symbols, module, AttrKind::Ints),
        ("floats", K::LBracket) => list_of(c, symbols, module, AttrKind::Floats),
        ("strs", K::LBracket) => list_of(c, symbols, module, AttrKind::Strs),
        ("dims", K::LBracket) => list_of(c, symbols, module, AttrKind::Dims),
        (_, K::LBracket) => tensor(c).map(|t| Attr::Tensor(Arc::new(t))),
        (word, _) if ElemType::from_name(word).is_some() => elem_type(c).map(Attr::Elem),
        _ => c.expected("a value"),
    }
}

fn list_of(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module, kind: AttrKind) -> Option<Attr> {
    c.bump();
    list_as(c, symbols, module, kind)
}

fn raw(c: &mut Cursor<'_>) -> Option<Attr> {
    c.bump();
    c.bump();
    let tag = c.string()?;
    c.expect(K::Comma)?;
    let token = c.expect(K::Bytes)?;
    let bytes = Bytes::copy_from_slice(&c.string_bytes(token)?);
    c.expect(K::RParen)?;
    Some(Attr::Raw(Arc::from(&*tag), bytes))
}

/// A list whose kind is that of the declaration where that fits its look, else that of its look.
fn list(
    c: &mut Cursor<'_>,
    symbols: &mut Symbols,
    module: &mut Module,
    kind: Option<AttrKind>,
) -> Option<Attr> {
    let first = c.peek().kind;
    let kind = match kind {
        Some(k @ (AttrKind::Ints | AttrKind::Dims)) if matches!(first, K::Int | K::Minus) => k,
        Some(k @ (AttrKind::Ints | AttrKind::Floats | AttrKind::Strs | AttrKind::Dims))
            if first == K::RBracket =>
        {
            k
        }
        Some(AttrKind::Dims) => AttrKind::Dims,
        _ => match (kind, look(c)) {
            (Some(AttrKind::Floats), AttrKind::Ints) => AttrKind::Floats,
            (_, looks) => looks,
        },
    };
    list_as(c, symbols, module, kind)
}

/// What a list looks like, by its elements up to its end.
fn look(c: &Cursor<'_>) -> AttrKind {
    let mut lexer = c.lexer();
    let mut kind = AttrKind::Ints;
    loop {
        let token = lexer.next_token();
        match token.kind {
            K::Int | K::HexInt | K::Minus | K::Comma => {}
            K::Float | K::HexFloat => kind = AttrKind::Floats,
            K::Ident if matches!(c.text_of(token), "inf" | "nan") => kind = AttrKind::Floats,
            K::Str if kind == AttrKind::Ints => return AttrKind::Strs,
            K::RBracket | K::Eof => return kind,
            _ => return if kind == AttrKind::Floats { kind } else { AttrKind::Dims },
        }
    }
}

fn list_as(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module, kind: AttrKind) -> Option<Attr> {
    Some(match kind {
        AttrKind::Floats => Attr::Floats(items(c, |c| parse_f32(c).map(FloatBits))?.into()),
        AttrKind::Strs => Attr::Strs(items(c, string_item)?.into()),
        AttrKind::Dims => Attr::Dims(items(c, |c| dim_item(c, symbols, module))?.into()),
        _ => Attr::Ints(items(c, |c| c.int())?.into()),
    })
}

fn string_item(c: &mut Cursor<'_>) -> Option<Bytes> {
    let token = c.expect(K::Str)?;
    Some(Bytes::copy_from_slice(&c.string_bytes(token)?))
}

fn dim_item(c: &mut Cursor<'_>, symbols: &mut Symbols, module: &mut Module) -> Option<Dim> {
    if c.eat(K::Underscore) { Some(Dim::Unknown) } else { parse_dim(c, symbols, module) }
}

fn items<'s, T>(c: &mut Cursor<'s>, mut item: impl FnMut(&mut Cursor<'s>) -> Option<T>) -> Option<Vec<T>> {
    let mut out = Vec::new();
    c.list(K::LBracket, K::RBracket, |c| {
        out.push(item(c)?);
        Some(())
    })?;
    Some(out)
}

// ---- tensors ----

fn tensor(c: &mut Cursor<'_>) -> Option<Literal> {
    let elem = elem_type(c)?;
    let dims = items(c, |c| c.int())?;
    let data = parse_contents(c, elem, &dims)?;
    Some(Literal { elem, dims, data })
}

/// Parses the contents of a tensor of this type: an element where it has rank 0, `dense(element, ...)` or `hex("...")`.
pub fn parse_contents(c: &mut Cursor<'_>, elem: ElemType, dims: &[i64]) -> Option<TensorData> {
    let start = c.token();
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    if c.at_word("hex") && c.peek().kind == K::LParen {
        return hex(c, elem, count);
    }
    let mut items = Items::new(elem);
    if c.at_word("dense") {
        c.bump();
        c.list(K::LParen, K::RParen, |c| items.parse(c))?;
    } else if dims.is_empty() {
        items.parse(c)?;
    } else {
        return c.expected("`dense(...)` or `hex(\"...\")`");
    }
    if count != Some(items.count()) {
        let wanted = count.map_or("more than can be counted".to_owned(), |n| n.to_string());
        let message = format!("{} elements are given, the type {elem}{dims:?} needs {wanted}", items.count());
        let span = c.span_from(start);
        c.error(Diagnostic::error("GS0130", message).label(span, ""));
        return None;
    }
    Some(items.finish())
}

/// Elements of either kind.
enum Items {
    Packed(Packer),
    Strings(Vec<Bytes>),
}

impl Items {
    fn new(elem: ElemType) -> Self {
        if elem == ElemType::Str { Items::Strings(Vec::new()) } else { Items::Packed(Packer::new(elem)) }
    }

    fn parse(&mut self, c: &mut Cursor<'_>) -> Option<()> {
        match self {
            Items::Packed(packer) => packer.parse(c),
            Items::Strings(strings) => {
                strings.push(string_item(c)?);
                Some(())
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Items::Packed(packer) => packer.count,
            Items::Strings(strings) => strings.len(),
        }
    }

    fn finish(self) -> TensorData {
        match self {
            Items::Packed(packer) => TensorData::Bytes(packer.bytes.into()),
            Items::Strings(strings) => TensorData::Strings(strings.into()),
        }
    }
}

fn hex(c: &mut Cursor<'_>, elem: ElemType, count: Option<usize>) -> Option<TensorData> {
    let start = c.bump();
    c.bump();
    let text = c.string()?;
    c.expect(K::RParen)?;
    let span = c.span_from(start);
    let Some(bytes) = decode_hex(&text) else {
        c.error(Diagnostic::error("GS0131", "these are no pairs of hexadecimal digits").label(span, ""));
        return None;
    };
    if count.and_then(|n| elem.bytes_for(n)) != Some(bytes.len()) {
        let message = format!("{} bytes do not fill a tensor of this type", bytes.len());
        c.error(Diagnostic::error("GS0130", message).label(span, ""));
        return None;
    }
    Some(TensorData::Bytes(bytes.into()))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|p| match p {
            [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
            _ => None,
        })
        .collect()
}
