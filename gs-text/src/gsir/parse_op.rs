//! Parses operations and checks them against the declaration of their operator: operands, attributes, regions, and
//! the stated types against the inferred ones.

use super::parse::Parser;
use super::parse_type::too_large;
use super::type_text;
use crate::diagnostics::Diagnostic;
use crate::lexer::{Token, TokenKind as K};
use crate::quote::quoted;
use crate::span::Span;
use gs_ir::infer::{infer_facts, infer_op};
use gs_ir::registry::{Arity, Regions};
use gs_ir::verify::contradicts;
use gs_ir::{
    At, Attr, AttrSet, AttrsId, Dim, Fact, GraphId, Handle, OPAQUE_NAME, OpDecl, OpId, OpKind, Sym, Type,
    ValueId,
};
use smallvec::{SmallVec, smallvec};

/// An operation as it stands in the text, without its results.
struct Statement {
    kind: OpKind,
    name_span: Span,
    operands: SmallVec<[Option<ValueId>; 4]>,
    /// Whether every operand was found.
    whole: bool,
    /// `None` where they were wrong.
    attrs: Option<AttrSet>,
    /// The stated types; `None` in place of an omitted result, and no entries where none were stated.
    types: Stated,
    source: SmallVec<[Sym; 2]>,
}

/// The tokens that name the results: values, or `_` where one is omitted.
type Results = SmallVec<[Token; 2]>;
type Types = SmallVec<[Type; 1]>;
/// Types as they are stated, with their places.
type Stated = SmallVec<[(Option<Type>, Span); 1]>;

impl Parser<'_, '_, '_, '_> {
    /// One operation with its regions.
    pub(super) fn operation(&mut self, graph: GraphId, depth: usize) -> Option<()> {
        let start = self.c.token();
        let results = self.result_list()?;
        // What uses the results of an operation that has errors is not wrong for that.
        let Some(mut s) = self.statement() else {
            self.make(graph, None, &[], AttrSet::new(), &smallvec![Type::Any; results.len()], &results);
            return None;
        };
        let span = self.c.span_from(start);
        let decl = self.registry.decl(s.kind);
        let types = self.stated_types(&s, &results);
        let kind = s.attrs.is_some().then_some(s.kind);
        let attrs = s.attrs.take().unwrap_or_default();
        let op = self.make(graph, kind, &s.operands, attrs, &types, &results);
        if !s.source.is_empty() {
            self.rw.set_source(op, &s.source);
        }
        if let Some(place) = self.op_spans.get_mut(op.index()) {
            *place = span;
        }
        let with_regions = decl.regions != Regions::None || self.c.at_word("region");
        if with_regions {
            self.regions(op, decl, &s, depth)?;
        }
        if s.whole && kind.is_some() {
            self.check_op(op, decl, &s, &results, with_regions);
        }
        Some(())
    }

    fn result_list(&mut self) -> Option<Results> {
        let mut results = Results::new();
        if !matches!(self.c.kind(), K::Value | K::Underscore) {
            return Some(results);
        }
        loop {
            match self.c.kind() {
                K::Value | K::Underscore => results.push(self.c.bump()),
                _ => return self.c.expected("a value (`%name`) or `_`"),
            }
            if !self.c.eat(K::Comma) {
                self.c.expect(K::Equals)?;
                return Some(results);
            }
        }
    }

    fn statement(&mut self) -> Option<Statement> {
        let name = self.c.token();
        let (kind, opaque) = match self.c.kind() {
            K::Ident | K::Str => self.op_kind()?,
            _ => return self.c.expected_here("an operation or `return`"),
        };
        let (operands, whole) = self.operands()?;
        let decl = self.registry.decl(kind);
        let mut attrs = Some(AttrSet::new());
        if self.c.at(K::LBrace) {
            let before = self.c.diagnostics().len();
            attrs = self.attrs(kind, decl);
            // Where the braces were read to their end, the rest of the statement can be read too.
            if attrs.is_none() && !self.read_to_the_end(before) {
                return None;
            }
        }
        if let (Some(attrs), Some(name)) = (&mut attrs, opaque) {
            attrs.set(OPAQUE_NAME, Attr::str(&name));
        }
        let types = if self.c.eat(K::Colon) { self.types()? } else { SmallVec::new() };
        let source = if self.c.eat_word("from") { self.source()? } else { SmallVec::new() };
        let name_span = self.c.span_of(name);
        Some(Statement { kind, name_span, operands, whole, attrs, types, source })
    }

    /// Whether the last of the new diagnostics is about the meaning of attributes, not their form.
    fn read_to_the_end(&self, before: usize) -> bool {
        let new = self.c.diagnostics().get(before..).unwrap_or_default();
        new.iter().all(|d| matches!(d.code, "GS0120" | "GS0121" | "GS0122"))
    }

    fn operands(&mut self) -> Option<(SmallVec<[Option<ValueId>; 4]>, bool)> {
        self.c.expect(K::LParen)?;
        let mut operands = SmallVec::new();
        let mut whole = true;
        while !self.c.at(K::RParen) {
            if self.c.eat(K::Underscore) {
                operands.push(None);
            } else {
                let found = self.operand()?;
                whole &= found.is_some();
                operands.push(found);
            }
            if !self.c.eat(K::Comma) {
                break;
            }
        }
        match self.c.eat(K::RParen) {
            true => Some((operands, whole)),
            false => self.c.expected("`,` or `)`"),
        }
    }

    fn types(&mut self) -> Option<Stated> {
        let mut types = SmallVec::new();
        loop {
            let start = self.c.token();
            let ty = match self.c.eat(K::Underscore) {
                true => None,
                false => Some(self.ty()?),
            };
            types.push((ty, self.c.span_from(start)));
            if !self.c.eat(K::Comma) {
                return Some(types);
            }
        }
    }

    fn source(&mut self) -> Option<SmallVec<[Sym; 2]>> {
        let mut names = SmallVec::new();
        loop {
            let name = self.c.string()?;
            names.push(self.rw.intern(&name));
            if !self.c.eat(K::Comma) {
                return Some(names);
            }
        }
    }

    /// The stated types of the results, [`Type::Any`] where none are stated.
    fn stated_types(&mut self, s: &Statement, results: &Results) -> Types {
        if !s.types.is_empty() && s.types.len() != results.len() {
            let message =
                format!("the number of types ({}) is not that of results ({})", s.types.len(), results.len());
            let d =
                Diagnostic::error("GS0207", message).label(s.types.first().map_or(s.name_span, |t| t.1), "");
            self.c.error(d);
            return smallvec![Type::Any; results.len()];
        }
        let mut types = Types::new();
        for (i, result) in results.iter().enumerate() {
            let stated = s.types.get(i);
            if let Some((ty, span)) = stated
                && ty.is_none() != (result.kind == K::Underscore)
            {
                let d = Diagnostic::error(
                    "GS0207",
                    "a result that is omitted (`_`) has `_` as its type, and no other",
                );
                self.c.error(d.label(*span, ""));
            }
            types.push(stated.and_then(|(ty, _)| ty.clone()).unwrap_or(Type::Any));
        }
        types
    }

    /// Checks an operation against the declaration of its operator, and the stated types against the inferred ones,
    /// which are taken where none are stated.
    fn check_op(&mut self, op: OpId, decl: &OpDecl, s: &Statement, results: &Results, with_regions: bool) {
        let stated = s.types.len() == results.len();
        if stated
            && !with_regions
            && self.fitted_before(op)
            && !s.operands.iter().flatten().any(|v| self.is_known(*v))
        {
            return;
        }
        let attrs = self.rw.op(op).attrs;
        let ok = self.check_results(decl, s, results.len())
            & self.check_present(decl, &s.operands, s.name_span)
            & self.check_attrs(decl, attrs, s.name_span);
        if !ok || with_regions && self.c.has_errors() {
            return;
        }
        let mut facts = std::mem::take(&mut self.facts);
        facts.clear();
        facts.extend(s.operands.iter().map(|v| v.map(|v| self.fact(v))));
        let found = match with_regions {
            true => infer_op(&self.rw, op),
            false => infer_facts(decl, &facts, self.rw.attr_set(attrs), &[], results.len()),
        };
        match found {
            Err(e) => self.misfit(decl, &facts, &e.0, s.name_span),
            Ok(found) => {
                let by_types = facts.iter().flatten().chain(&found).all(|f| f.known.is_none());
                let before = self.c.diagnostics().len();
                for (i, fact) in found.into_iter().enumerate() {
                    self.take_result(op, decl, s, results, i, fact);
                }
                if by_types && stated && !with_regions && self.c.diagnostics().len() == before {
                    self.note_fitting();
                }
            }
        }
        self.facts = facts;
    }

    fn is_known(&self, value: ValueId) -> bool {
        !self.known.is_empty() && self.known.contains_key(&value)
    }

    fn fact(&self, value: ValueId) -> Fact {
        let known = if self.known.is_empty() { None } else { self.known.get(&value).cloned() };
        Fact { ty: self.rw.type_of(value).clone(), known }
    }

    /// Compares the inferred type of a result with the stated one, or takes it where none is stated.
    fn take_result(
        &mut self,
        op: OpId,
        decl: &OpDecl,
        s: &Statement,
        results: &Results,
        i: usize,
        fact: Fact,
    ) {
        let value = self.rw.op(op).results().get(i).copied().and_then(ValueId::some);
        let (Some(value), Some(result)) = (value, results.get(i)) else { return };
        if let Some(known) = fact.known.filter(|k| !k.elems.iter().any(too_large)) {
            self.known.insert(value, known);
        }
        match s.types.get(i) {
            Some((Some(stated), span)) if *stated != fact.ty && contradicts(stated, &fact.ty) => {
                let what = format!("`{}`", self.c.text_of(*result));
                self.check_type(&what, stated, *span, &fact.ty, decl.name);
            }
            Some(_) => {}
            None => {
                let ty = self.settled(fact.ty);
                self.rw.set_type(value, ty);
            }
        }
    }

    /// A type without extents that cannot be said, or not in this text: each becomes a symbol of its own.
    fn settled(&mut self, mut ty: Type) -> Type {
        if let Type::Tensor(t) = &mut ty {
            for dim in t.shape.iter_mut().flatten().filter(|d| too_large(d)) {
                *dim = Dim::Unknown;
            }
        }
        self.rw.settle(ty)
    }

    /// Makes an operation and names its results. Without a kind it stands in for one that has errors.
    fn make(
        &mut self,
        graph: GraphId,
        kind: Option<OpKind>,
        operands: &[Option<ValueId>],
        attrs: AttrSet,
        types: &Types,
        results: &Results,
    ) -> OpId {
        let kind = kind.or_else(|| self.registry.kind("opaque")).unwrap_or(OpKind::from_index(0));
        let op = self.rw.create_typed(kind, operands, attrs, types, At::End(graph));
        self.op_spans.resize(op.index() + 1, Span::default());
        for (i, token) in results.iter().enumerate() {
            if token.kind == K::Underscore {
                self.rw.omit_result(op, i);
                continue;
            }
            let Some(&value) = self.rw.op(op).results().get(i) else { continue };
            self.define(value, *token);
        }
        op
    }

    // ---- regions ----

    fn regions(&mut self, op: OpId, decl: &OpDecl, s: &Statement, depth: usize) -> Option<()> {
        let mut names: Vec<String> = Vec::new();
        while self.c.at_word("region") {
            self.c.bump();
            let name = self.c.name()?.into_owned();
            let region = self.rw.add_region(op, &name);
            names.push(name);
            self.graph(region, depth + 1)?;
        }
        let fits = match decl.regions {
            Regions::Any => true,
            Regions::None => names.is_empty(),
            Regions::Named(wanted) => wanted.iter().copied().eq(names.iter().map(String::as_str)),
        };
        if !fits {
            let message = match decl.regions {
                Regions::Named(wanted) => format!("`{}` has the regions {}", decl.name, wanted.join(", ")),
                _ => format!("`{}` has no regions", decl.name),
            };
            let names: Vec<String> = names.iter().map(|n| quoted(n)).collect();
            let d = Diagnostic::error("GS0208", message).label(s.name_span, "");
            self.c.error(d.note(format!("given are: {}", names.join(", "))));
        }
        Some(())
    }

    // ---- checks against the declaration ----

    fn check_results(&mut self, decl: &OpDecl, s: &Statement, given: usize) -> bool {
        if decl.may_have_results(given) {
            return true;
        }
        let message = format!(
            "`{}` has {}, not {given}",
            decl.name,
            counted(decl.results.iter().map(|r| r.arity), "result")
        );
        self.c.error(Diagnostic::error("GS0207", message).label(s.name_span, ""));
        false
    }

    fn check_present(&mut self, decl: &OpDecl, operands: &[Option<ValueId>], span: Span) -> bool {
        // Nearly always everything is there.
        let declared = decl.operands.iter().enumerate();
        let all = declared
            .clone()
            .all(|(i, o)| o.arity != Arity::One || operands.get(i).is_some_and(Option::is_some));
        if all && operands.len().checked_sub(1).is_none_or(|last| decl.operand(last).is_some()) {
            return true;
        }
        let present: Vec<bool> = operands.iter().map(Option::is_some).collect();
        self.check_operands(decl, &present, span)
    }

    /// Whether there are as many operands as declared, and those that must be there are.
    pub(super) fn check_operands(&mut self, decl: &OpDecl, present: &[bool], span: Span) -> bool {
        let too_many = !present.is_empty() && decl.operand(present.len() - 1).is_none();
        let missing = decl
            .operands
            .iter()
            .enumerate()
            .find(|(i, o)| o.arity == Arity::One && !present.get(*i).copied().unwrap_or(false));
        let message = match missing {
            _ if too_many => {
                let wanted = counted(decl.operands.iter().map(|o| o.arity), "operand");
                format!("`{}` has {wanted}, not {}", decl.name, present.len())
            }
            Some((i, o)) => format!("`{}` needs its operand `{}` (number {})", decl.name, o.name, i + 1),
            None => return true,
        };
        let names: Vec<String> = decl
            .operands
            .iter()
            .map(|o| match o.arity {
                Arity::One => o.name.to_owned(),
                Arity::Optional => format!("{}?", o.name),
                Arity::Variadic => format!("{}...", o.name),
            })
            .collect();
        let d = Diagnostic::error("GS0209", message).label(span, "");
        self.c.error(d.note(format!("its operands are ({})", names.join(", "))));
        false
    }

    /// Whether the required attributes are there (names and kinds were checked where they stand).
    pub(super) fn check_attrs(&mut self, decl: &OpDecl, attrs: AttrsId, span: Span) -> bool {
        match gs_ir::check_attrs(decl, self.rw.attr_set(attrs)) {
            Ok(()) => true,
            Err(e) => {
                self.c.error(Diagnostic::error("GS0123", e.0).label(span, ""));
                false
            }
        }
    }

    /// Reports an operator that does not fit its operands.
    pub(super) fn misfit(&mut self, decl: &OpDecl, facts: &[Option<Fact>], why: &str, span: Span) {
        const SHOWN: usize = 16;
        let text = |f: &Option<Fact>| f.as_ref().map_or("_".to_owned(), |f| type_text(&self.rw, &f.ty));
        let mut types: Vec<String> = facts.iter().take(SHOWN).map(text).collect();
        if facts.len() > SHOWN {
            types.push(format!("and {} more", facts.len() - SHOWN));
        }
        let d = Diagnostic::error("GS0210", format!("`{}` does not fit: {why}", decl.name)).label(span, "");
        self.c.error(d.note(format!("its operands are ({})", types.join(", "))));
    }

    /// Reports a stated type that contradicts the inferred one.
    pub(super) fn check_type(&mut self, what: &str, stated: &Type, span: Span, inferred: &Type, op: &str) {
        if !contradicts(stated, inferred) {
            return;
        }
        let (stated, inferred) = (type_text(&self.rw, stated), type_text(&self.rw, inferred));
        let message = format!("{what} is stated to be {stated}, but `{op}` makes {inferred}");
        self.c.error(Diagnostic::error("GS0211", message).label(span, format!("inferred: {inferred}")));
    }
}

fn counted(arities: impl Iterator<Item = Arity> + Clone, noun: &str) -> String {
    let least = arities.clone().filter(|a| *a == Arity::One).count();
    let most = arities.clone().count();
    let plural = |n: usize| if n == 1 { noun.to_owned() } else { format!("{noun}s") };
    if arities.clone().any(|a| a == Arity::Variadic) {
        format!("at least {least} {}", plural(least))
    } else if least == most {
        format!("{most} {}", plural(most))
    } else {
        format!("{least} to {most} {}", plural(most))
    }
}
