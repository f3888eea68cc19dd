//! Parses globals. They may be derived from globals that stand further down, so they are collected first and made
//! when all are known, before the first graph.

use super::parse::Parser;
use super::parse_attr::{parse_attrs, parse_contents};
use super::parse_type::parse_type;
use crate::cursor::{closest, parse_magnitude};
use crate::diagnostics::Diagnostic;
use crate::element::{Packer, parse_f32};
use crate::lexer::TokenKind as K;
use crate::quote::quoted;
use crate::span::Span;
use gs_ir::{
    AttrSet, Derived, Distribution, ElemType, Fact, FloatBits, GlobalId, Handle, Init, Knowledge, OpKind,
    Role, Sym, TensorType, Type,
};
use rustc_hash::FxHashMap;
use rustc_hash::FxHashSet;

/// Globals that were read but not made yet.
#[derive(Default)]
pub(super) struct PendingGlobals {
    list: Vec<Pending>,
    names: FxHashMap<Sym, usize>,
    made: bool,
}

struct Pending {
    name: Sym,
    span: Span,
    role: Role,
    trainable: bool,
    ty: Type,
    ty_span: Span,
    init: PendingInit,
}

enum PendingInit {
    Ready(Init),
    Derived(PendingDerived),
}

struct PendingDerived {
    kind: OpKind,
    attrs: AttrSet,
    operands: Vec<Option<(Sym, Span)>>,
    result: u32,
    results: u32,
    span: Span,
}

/// No operation has as many results; a number in a text must not ask for memory without bound.
const MAX_RESULTS: i64 = 4096;

impl Parser<'_, '_, '_, '_> {
    /// `param [frozen] @name : type [= init]`.
    pub(super) fn global(&mut self) -> Option<()> {
        let start = self.c.bump();
        if self.pending.made {
            let d =
                Diagnostic::error("GS0106", "globals stand before graphs").label(self.c.span_of(start), "");
            self.c.error(d);
        }
        let role = match self.c.text_of(start) {
            "param" => Role::Param,
            "state" => Role::State,
            "input" => Role::Input,
            _ => Role::Const,
        };
        let frozen = self.c.eat_word("frozen");
        let trainable = !frozen && (self.c.eat_word("trainable") || role == Role::Param);
        let token = self.c.expect(K::Global)?;
        let name = self.c.sigil_name(token)?;
        let name = self.rw.intern(&name);
        self.c.expect(K::Colon)?;
        let ty_start = self.c.token();
        let ty = parse_type(self.c, &mut self.symbols, &mut self.rw)?;
        let ty_span = self.c.span_from(ty_start);
        let init = match self.c.eat(K::Equals) {
            true => self.init(&ty, ty_span),
            false => Some(PendingInit::Ready(Init::Absent)),
        };
        // With wrong contents it is still there: what reads it is not wrong.
        let parsed = init.as_ref().map(|_| ());
        let init = init.unwrap_or(PendingInit::Ready(Init::Absent));
        self.declare(Pending { name, span: self.c.span_of(token), role, trainable, ty, ty_span, init });
        parsed
    }

    fn declare(&mut self, global: Pending) {
        if let Some(&earlier) = self.pending.names.get(&global.name) {
            let message = format!("the global `@{}` is declared twice", self.rw.str(global.name));
            let d = Diagnostic::error("GS0201", message).label(global.span, "");
            let earlier = self.pending.list.get(earlier).map(|g| g.span).unwrap_or_default();
            self.c.error(d.label(earlier, "first here"));
            return;
        }
        self.pending.names.insert(global.name, self.pending.list.len());
        self.pending.list.push(global);
    }

    fn init(&mut self, ty: &Type, ty_span: Span) -> Option<PendingInit> {
        let mut ahead = self.c.lexer();
        let (open, argument) = (ahead.next_token(), ahead.next_token());
        let call = open.kind == K::LParen && matches!(self.c.kind(), K::Ident | K::Str);
        let word = if call && self.c.at(K::Ident) { self.c.text() } else { "" };
        // An operator may have the name of one of our words; its operands tell them apart.
        let of_globals = matches!(argument.kind, K::Global | K::Underscore);
        let init = match word {
            "file" if !of_globals => self.file(ty, ty_span)?,
            "splat" if !of_globals => self.splat(ty, ty_span)?,
            "uniform" | "normal" if !of_globals => self.seeded(word)?,
            "dense" | "hex" if !of_globals => self.contents(ty, ty_span)?,
            _ if call => return self.derived().map(PendingInit::Derived),
            _ => self.contents(ty, ty_span)?,
        };
        Some(PendingInit::Ready(init))
    }

    /// The tensor type with numbers as extents that contents need.
    fn fixed(&mut self, ty: &Type, ty_span: Span) -> Option<(TensorType, Vec<i64>)> {
        let found = ty.as_tensor().and_then(|t| Some((t.clone(), t.const_dims()?)));
        if found.is_none() {
            let d = Diagnostic::error("GS0132", "contents need a tensor type whose extents are numbers");
            self.c.error(d.label(ty_span, ""));
        }
        found
    }

    fn contents(&mut self, ty: &Type, ty_span: Span) -> Option<Init> {
        let (tensor, dims) = self.fixed(ty, ty_span)?;
        parse_contents(self.c, tensor.elem, &dims).map(Init::Data)
    }

    fn file(&mut self, ty: &Type, ty_span: Span) -> Option<Init> {
        let (tensor, _) = self.fixed(ty, ty_span)?;
        self.c.bump();
        self.c.bump();
        let file_start = self.c.token();
        let file = self.c.string()?;
        let file_span = self.c.span_from(file_start);
        self.c.expect(K::Comma)?;
        let name_start = self.c.token();
        let name = self.c.string()?;
        let name_span = self.c.span_from(name_start);
        self.c.expect(K::RParen)?;
        match self.files.load((&file, file_span), (&name, name_span), &tensor) {
            Ok(data) => Some(Init::Data(data)),
            Err(d) => {
                self.c.error(d);
                None
            }
        }
    }

    fn splat(&mut self, ty: &Type, ty_span: Span) -> Option<Init> {
        self.c.bump();
        self.c.bump();
        let elem = ty.elem().filter(|e| *e != ElemType::Str);
        let Some(elem) = elem else {
            let d = Diagnostic::error("GS0132", "`splat` fills a tensor of numbers").label(ty_span, "");
            self.c.error(d);
            return None;
        };
        let mut packer = Packer::new(elem);
        packer.parse(self.c)?;
        self.c.expect(K::RParen)?;
        Some(Init::Splat(packer.bytes.into_iter().collect()))
    }

    fn seeded(&mut self, word: &str) -> Option<Init> {
        self.c.bump();
        self.c.bump();
        self.c.expect_word("seed")?;
        let token = self.c.expect(K::Int)?;
        let Some(seed) = parse_magnitude(self.c.text_of(token)) else {
            let d =
                Diagnostic::error("GS0002", "a seed has at most 64 bits").label(self.c.span_of(token), "");
            self.c.error(d);
            return None;
        };
        self.c.expect(K::Comma)?;
        let a = FloatBits(parse_f32(self.c)?);
        self.c.expect(K::Comma)?;
        let b = FloatBits(parse_f32(self.c)?);
        self.c.expect(K::RParen)?;
        let dist = if word == "uniform" { Distribution::Uniform(a, b) } else { Distribution::Normal(a, b) };
        Some(Init::Seeded { seed, dist })
    }

    fn derived(&mut self) -> Option<PendingDerived> {
        let start = self.c.token();
        let (kind, opaque) = self.op_kind()?;
        let mut operands = Vec::new();
        self.c.list(K::LParen, K::RParen, |c| {
            if c.eat(K::Underscore) {
                operands.push(None);
                return Some(());
            }
            let token = c.expect(K::Global)?;
            let name = c.sigil_name(token)?;
            operands.push(Some((self.rw.intern(&name), c.span_of(token))));
            Some(())
        })?;
        let decl = self.registry.decl(kind);
        let mut attrs = match self.c.at(K::LBrace) {
            true => parse_attrs(self.c, &mut self.symbols, &mut self.rw, decl)?,
            false => AttrSet::new(),
        };
        if let Some(name) = opaque {
            attrs.set(gs_ir::OPAQUE_NAME, gs_ir::Attr::str(&name));
        }
        let (result, results) = if self.c.eat(K::Hash) { self.result_number(decl)? } else { (0, 1) };
        Some(PendingDerived { kind, attrs, operands, result, results, span: self.c.span_from(start) })
    }

    /// `1/2`: which result, of how many.
    fn result_number(&mut self, decl: &gs_ir::OpDecl) -> Option<(u32, u32)> {
        let start = self.c.token();
        let number = self.c.int()?;
        self.c.expect(K::Slash)?;
        let count = self.c.int()?;
        let has_all = (1..=MAX_RESULTS).contains(&count) && decl.result(count as usize - 1).is_some();
        if has_all && (0..count).contains(&number) {
            return Some((number as u32, count as u32));
        }
        let message = format!("`{}` has no result {number} of {count}, counted from 0", decl.name);
        let d = Diagnostic::error("GS0202", message);
        let span = self.c.span_from(start);
        self.c.error(d.label(span, ""));
        None
    }

    // ---- making them ----

    /// Makes the globals read so far; from here on there may be no more.
    pub(super) fn finish_globals(&mut self) {
        if std::mem::replace(&mut self.pending.made, true) {
            return;
        }
        let list = std::mem::take(&mut self.pending.list);
        let mut checks = Vec::new();
        let mut inits: Vec<Init> = list
            .iter()
            .enumerate()
            .map(|(i, global)| match &global.init {
                PendingInit::Ready(init) => init.clone(),
                PendingInit::Derived(d) => match self.resolve(d) {
                    Some(derived) => {
                        checks.push(i);
                        Init::Derived(derived)
                    }
                    None => Init::Absent,
                },
            })
            .collect();
        if self.derived_in_a_circle(&list, &inits) {
            checks.clear();
            inits.iter_mut().filter(|i| matches!(i, Init::Derived(_))).for_each(|i| *i = Init::Absent);
        }
        // What a graph stores to is no constant, for the graphs before that one neither.
        let stored = self.c.stored_ahead();
        let stored: FxHashSet<&str> = stored.iter().map(|n| &**n).collect();
        for (global, init) in list.iter().zip(inits) {
            let name = self.rw.str(global.name).to_owned();
            let (role, trainable, ty) = (global.role, global.trainable, global.ty.clone());
            let id = self.rw.add_global(gs_ir::NewGlobal { name: &name, role, trainable, ty, init });
            let value = self.rw.global(id).value;
            if stored.contains(name.as_str()) {
                continue;
            }
            if let Some(known) = Knowledge::new(&self.rw).of(value) {
                self.known.insert(value, known);
            }
        }
        for i in checks {
            self.check_derived(&list[i], GlobalId::from_index(i));
        }
    }

    fn resolve(&mut self, derived: &PendingDerived) -> Option<Derived> {
        let mut operands = Vec::with_capacity(derived.operands.len());
        for operand in &derived.operands {
            match operand {
                None => operands.push(None),
                Some((name, span)) => match self.pending.names.get(name) {
                    // They are made in the order of the text, so the place in it is the handle.
                    Some(&index) => operands.push(Some(GlobalId::from_index(index))),
                    None => {
                        let name = self.rw.str(*name).to_owned();
                        self.unknown_global(&name, *span);
                        return None;
                    }
                },
            }
        }
        let &PendingDerived { kind, result, results, .. } = derived;
        Some(Derived { kind, attrs: derived.attrs.clone(), operands: operands.into(), result, results })
    }

    /// Reports a global that does not exist.
    pub(super) fn unknown_global(&mut self, name: &str, span: Span) {
        let d = Diagnostic::error("GS0203", format!("there is no global `@{name}`")).label(span, "");
        let mut names: Vec<&str> = self.pending.names.keys().map(|&s| self.rw.str(s)).collect();
        names.sort_unstable(); // the order of a hash map must not show
        let d = match closest(name, names) {
            Some(near) => d.help(format!("did you mean `@{near}`?")),
            None => d,
        };
        self.c.error(d);
    }

    /// Reports globals that are derived from themselves.
    fn derived_in_a_circle(&mut self, list: &[Pending], inits: &[Init]) -> bool {
        let operands = |i: usize| match inits.get(i) {
            Some(Init::Derived(d)) => d.operands.as_slice(),
            _ => &[],
        };
        // 0 not seen, 1 being followed, 2 done; an explicit stack, as chains can be long.
        let mut state = vec![0u8; list.len()];
        for root in 0..list.len() {
            let mut stack = vec![(root, 0)];
            while let Some((at, next)) = stack.pop() {
                if next == 0 {
                    match state[at] {
                        0 => state[at] = 1,
                        1 => {
                            let message = format!("`@{}` is derived from itself", self.rw.str(list[at].name));
                            self.c.error(Diagnostic::error("GS0204", message).label(list[at].span, ""));
                            return true;
                        }
                        _ => continue,
                    }
                }
                match operands(at).get(next) {
                    Some(operand) => {
                        stack.push((at, next + 1));
                        if let Some(g) = operand {
                            stack.push((g.index(), 0));
                        }
                    }
                    None => state[at] = 2,
                }
            }
        }
        false
    }

    fn check_derived(&mut self, pending: &Pending, id: GlobalId) {
        let Init::Derived(derived) = self.rw.global(id).init.clone() else { return };
        let PendingInit::Derived(PendingDerived { span, .. }) = &pending.init else { return };
        let decl = self.registry.decl(derived.kind);
        let present: Vec<bool> = derived.operands.iter().map(Option::is_some).collect();
        let attrs = self.rw.intern_attrs(derived.attrs.clone());
        if !self.check_operands(decl, &present, *span) || !self.check_attrs(decl, attrs, *span) {
            return;
        }
        let mut knowledge = Knowledge::new(&self.rw);
        let values = derived.operands.iter().map(|g| g.map(|g| self.rw.global(g).value));
        let facts: Vec<Option<Fact>> = values.map(|v| v.map(|v| knowledge.fact(v))).collect();
        let (place, count) = (derived.result as usize, derived.results as usize);
        match gs_ir::infer::infer_facts(decl, &facts, &derived.attrs, &[], count) {
            Err(e) => self.misfit(decl, &facts, &e.0, *span),
            Ok(results) => {
                if let Some(fact) = results.into_iter().nth(place) {
                    let what = format!("`@{}`", self.rw.str(pending.name));
                    self.check_type(&what, &pending.ty, pending.ty_span, &fact.ty, decl.name);
                }
            }
        }
    }

    /// The global of a `@name` token.
    pub(super) fn global_named(&mut self, name: &str, span: Span) -> Option<GlobalId> {
        let found = self.rw.global_named(name);
        if found.is_none() {
            self.unknown_global(name, span);
        }
        found
    }

    /// An operator by its name, or the opaque one for a name in quotes, which is returned too.
    pub(super) fn op_kind(&mut self) -> Option<(OpKind, Option<String>)> {
        let token = self.c.token();
        if self.c.at(K::Str) {
            let name = self.c.string()?.into_owned();
            let Some(kind) = self.registry.kind("opaque") else {
                let message = format!("{} is no operator of this registry", quoted(&name));
                let span = self.c.span_of(token);
                self.c.error(Diagnostic::error("GS0205", message).label(span, ""));
                return None;
            };
            return Some((kind, Some(name)));
        }
        if !self.c.at(K::Ident) {
            return self.c.expected("an operator");
        }
        self.c.bump();
        let name = self.c.text_of(token);
        if let Some(kind) = self.registry.kind(name) {
            return Some((kind, None));
        }
        let d = Diagnostic::error("GS0205", format!("there is no operator `{name}`"))
            .label(self.c.span_of(token), "");
        let near = closest(name, self.registry.iter().map(|(_, decl)| decl.name));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "an operator that is not declared is written in quotes, like `\"domain::Name\"(...)`"
                .to_owned(),
        };
        self.c.error(d.help(help));
        None
    }
}
