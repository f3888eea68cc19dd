//! Random valid modules, read off the operator registry: whatever an operator declares is tried, and what its own
//! inference accepts stays. Everything that a text can say occurs: odd names, every kind of attribute and contents,
//! symbols, regions, derived globals, the ledger.

mod values;

use gs_ir::registry::{Arity, AttrKind, Default as AttrDefault};
use gs_ir::{
    At, Attr, AttrSet, Derived, Dim, ElemType, GraphId, Init, Literal, Module, NewGlobal, OPAQUE_NAME,
    OnnxMeta, OpDecl, OpKind, Registry, Rewriter, Role, TensorData, Type, ValueId,
};
use std::sync::Arc;
pub(crate) use values::Rng;

/// A random module with about `size` operations.
pub(crate) fn module(seed: u64, size: usize) -> Module {
    let mut rng = Rng::new(seed);
    let mut module = Module::new();
    header(&mut rng, &mut module);
    let mut builder = Builder { rw: Rewriter::new(&mut module), rng, registry: Registry::builtin() };
    for i in 0..builder.rng.below(6) {
        builder.global(i);
    }
    let entries = 1 + builder.rng.below(2);
    for i in 0..entries {
        let name = format!("{}{i}", builder.rng.name());
        let graph = builder.rw.add_graph(&name);
        builder.graph(graph, size / entries, &[], 0);
    }
    ledger(&mut builder);
    module
}

fn header(rng: &mut Rng, module: &mut Module) {
    if rng.chance(2) {
        module.meta.target = Some(rng.name());
        module.meta.algorithm = Some(rng.name());
    }
    for _ in 0..rng.below(3) {
        module.meta.properties.push((rng.name(), rng.name()));
    }
    if rng.chance(2) {
        let opsets = (0..rng.below(3)).map(|_| (rng.name(), rng.int())).collect();
        let onnx =
            OnnxMeta { ir_version: rng.int(), opsets, producer_name: rng.name(), ..OnnxMeta::default() };
        module.meta.onnx = Some(OnnxMeta { doc: rng.name(), model_version: rng.int(), ..onnx });
    }
    for _ in 0..rng.below(4) {
        let symbol = if rng.chance(2) { module.fresh_symbol() } else { module.symbol(&rng.name()) };
        let (low, high) = (rng.below(10) as i64, 10 + rng.below(10) as i64);
        module.set_symbol_range(symbol, rng.chance(2).then_some(low), rng.chance(2).then_some(high));
    }
}

fn ledger(b: &mut Builder<'_>) {
    for table in 0..2 {
        for _ in 0..b.rng.below(3) {
            let name = b.rng.name();
            let (code, rule, reason) = (b.rng.name(), b.rng.name(), b.rng.name());
            let into = b.rng.chance(2).then(|| b.rw.intern(&reason));
            let entry = b.rw.entry(&code, &rule, into, b.rng.chance(2).then_some(&*reason));
            let name = b.rw.intern(&name);
            let entries = if table == 0 { &mut b.rw.gone } else { &mut b.rw.kept };
            entries.insert(name, entry);
        }
    }
}

struct Builder<'m> {
    rw: Rewriter<'m>,
    rng: Rng,
    registry: Arc<Registry>,
}

impl Builder<'_> {
    fn dim(&mut self, depth: usize) -> Dim {
        let dim = match self.rng.below(8) {
            0..4 => return Dim::Const(self.rng.below(5) as i64),
            4 => {
                let name = self.rng.name();
                Dim::symbol(self.rw.symbol(&name))
            }
            5 => {
                let known: Vec<_> = self.rw.symbols().map(|(id, _)| id).collect();
                match known.is_empty() || self.rng.chance(3) {
                    true => Dim::symbol(self.rw.fresh_symbol()),
                    false => Dim::symbol(known[self.rng.below(known.len())]),
                }
            }
            _ if depth > 3 => return Dim::Const(7),
            6 => self.dim(depth + 1).mul(&self.dim(depth + 1)).add(&self.dim(depth + 1)),
            _ => self.dim(depth + 1).sub(&self.dim(depth + 1)).floor_div(1 + self.rng.below(4) as i64),
        };
        // Only what is no number may be anything here; extents are not negative.
        if dim.is_unknown() || dim.as_const().is_some_and(|n| n < 0) { Dim::Const(3) } else { dim }
    }

    fn ty(&mut self, depth: usize) -> Type {
        let elem = self.rng.elem();
        match self.rng.below(12) {
            0 if depth < 3 => Type::Sequence(Box::new(self.ty(depth + 1))),
            1 if depth < 3 => Type::Optional(Box::new(self.ty(depth + 1))),
            2 if depth < 3 => Type::Map(elem, Box::new(self.ty(depth + 1))),
            3 => Type::Any,
            4 => Type::unranked(elem),
            5 => Type::Sparse(gs_ir::TensorType::fixed(elem, &[3, 4])),
            n => {
                let elem = if n < 8 { elem } else { ElemType::F32 };
                let rank = self.rng.below(5);
                let dims: Vec<Dim> = (0..rank).map(|_| self.dim(0)).collect();
                Type::tensor(elem, dims)
            }
        }
    }

    // ---- globals ----

    fn global(&mut self, number: usize) {
        let elem = self.rng.elem();
        let rank = self.rng.below(4);
        let dims: Vec<i64> = (0..rank).map(|_| self.rng.below(5) as i64).collect();
        let mut ty = Type::fixed(elem, &dims);
        let count = dims.iter().product::<i64>() as usize;
        let init = match self.rng.below(6) {
            0 if elem != ElemType::Str => Init::Splat(self.rng.contents(elem, 1).into_iter().collect()),
            1 => Init::Seeded { seed: self.rng.next(), dist: self.rng.distribution() },
            2 => Init::Absent,
            3 if number > 0 => {
                ty = self.ty(0);
                self.opaque_derived()
            }
            _ => Init::Data(self.data(elem, count)),
        };
        let role = [Role::Param, Role::State, Role::Const, Role::Input][self.rng.below(4)];
        let (name, trainable) = (self.rng.name(), self.rng.chance(2));
        self.rw.add_global(NewGlobal { name: &name, role, trainable, ty, init });
    }

    fn data(&mut self, elem: ElemType, count: usize) -> TensorData {
        match elem {
            ElemType::Str => TensorData::Strings((0..count).map(|_| self.rng.bytes().into()).collect()),
            _ => TensorData::Bytes(self.rng.contents(elem, count).into()),
        }
    }

    fn opaque_derived(&mut self) -> Init {
        let globals: Vec<_> = self.rw.globals().map(|(id, _)| id).collect();
        let count = self.rng.below(3);
        let operands = (0..count).map(|_| self.rng.chance(4).then(|| globals[self.rng.below(globals.len())]));
        let operands = operands.collect::<Vec<_>>().into();
        let kind = self.registry.kind("opaque").unwrap();
        let attrs = self.opaque_attrs();
        let result = self.rng.below(3) as u32;
        Init::Derived(Derived {
            kind,
            attrs,
            operands,
            result,
            results: result + 1 + self.rng.below(2) as u32,
        })
    }

    // ---- graphs ----

    fn graph(&mut self, graph: GraphId, size: usize, outer: &[ValueId], depth: usize) {
        let mut values = outer.to_vec();
        let globals: Vec<ValueId> = self.rw.globals().map(|(_, g)| g.value).collect();
        values.extend(globals);
        for i in 0..1 + self.rng.below(3) {
            let ty = if i == 0 {
                Type::tensor(ElemType::F32, [self.dim(0), 4.into(), 9.into(), 9.into()])
            } else {
                self.ty(0)
            };
            let name = self.rng.name();
            values.push(self.rw.add_param(graph, &name, ty));
        }
        for _ in 0..size {
            if self.rng.chance(4) {
                self.opaque(graph, &mut values, depth)
            } else {
                self.declared(graph, &mut values)
            }
        }
        let mut names: Vec<String> = Vec::new();
        for _ in 0..self.rng.below(3) {
            let value = values[self.rng.below(values.len())];
            let name = self.rng.name();
            if name.is_empty() || !names.contains(&name) {
                self.rw.add_result(graph, &name, value, None);
                names.push(name);
            }
        }
        if depth > 0 {
            return; // a region stores nothing
        }
        let globals: Vec<_> = self.rw.globals().map(|(id, _)| id).collect();
        for &global in globals.iter().take(self.rng.below(3)) {
            let value = values[self.rng.below(values.len())];
            self.rw.set_update(graph, global, value);
        }
    }

    fn finish(&mut self, op: gs_ir::OpId, values: &mut Vec<ValueId>) {
        for (i, value) in self.rw.op(op).results().to_vec().into_iter().enumerate() {
            if self.rng.chance(8) {
                self.rw.omit_result(op, i);
                continue;
            }
            if self.rng.chance(2) {
                let name = self.rng.name();
                self.rw.set_name(value, &name);
            }
            values.push(value);
        }
        let names: Vec<_> = (0..self.rng.below(3)).map(|_| self.rng.name()).collect();
        let names: Vec<_> = names.iter().map(|n| self.rw.intern(n)).collect();
        self.rw.set_source(op, &names);
    }

    fn opaque(&mut self, graph: GraphId, values: &mut Vec<ValueId>, depth: usize) {
        let kind = self.registry.kind("opaque").unwrap();
        let operands: Vec<_> = (0..self.rng.below(4))
            .map(|_| (!self.rng.chance(6)).then(|| values[self.rng.below(values.len())]))
            .collect();
        let types: Vec<Type> = (0..self.rng.below(4)).map(|_| self.ty(0)).collect();
        let attrs = self.opaque_attrs();
        let op = self.rw.create_typed(kind, &operands, attrs, &types, At::End(graph));
        if depth < 3 && self.rng.chance(3) {
            for _ in 0..1 + self.rng.below(2) {
                let name = self.rng.name();
                let region = self.rw.add_region(op, &name);
                self.graph(region, 3, values, depth + 1);
            }
        }
        self.finish(op, values);
    }

    fn opaque_attrs(&mut self) -> AttrSet {
        let mut attrs = AttrSet::new();
        if !self.rng.chance(8) {
            attrs.set(OPAQUE_NAME, Attr::str(&format!("my.domain::{}", self.rng.name())));
        }
        for _ in 0..self.rng.below(4) {
            let name = self.rng.name();
            let value = self.attr(None);
            attrs.set(&name, value);
        }
        attrs
    }

    /// An operation of a declared operator, if one is found that fits the values there are.
    fn declared(&mut self, graph: GraphId, values: &mut Vec<ValueId>) {
        for _ in 0..20 {
            let kinds: Vec<OpKind> = self.registry.iter().map(|(k, _)| k).collect();
            let kind = kinds[self.rng.below(kinds.len())];
            let registry = self.registry.clone();
            let decl = registry.decl(kind);
            if decl.name == "opaque" || decl.regions != gs_ir::registry::Regions::None {
                continue;
            }
            let operands = self.operands(decl, values);
            let attrs = self.declared_attrs(decl);
            let results = match decl.results.last().map(|r| r.arity) {
                Some(Arity::Variadic) => decl.results.len() - 1 + self.rng.below(3),
                _ => decl.results.len(),
            };
            if let Ok(op) = self.rw.create(kind, &operands, attrs, results, At::End(graph)) {
                return self.finish(op, values);
            }
        }
    }

    fn operands(&mut self, decl: &OpDecl, values: &[ValueId]) -> Vec<Option<ValueId>> {
        let mut operands = Vec::new();
        for operand in decl.operands {
            let value = Some(values[self.rng.below(values.len())]);
            match operand.arity {
                Arity::One => operands.push(value),
                Arity::Optional => operands.push(value.filter(|_| self.rng.chance(2))),
                Arity::Variadic => {
                    let same = values[self.rng.below(values.len())];
                    operands.extend((0..self.rng.below(4)).map(|_| Some(same)));
                }
            }
        }
        operands
    }

    fn declared_attrs(&mut self, decl: &OpDecl) -> AttrSet {
        let mut attrs = AttrSet::new();
        for attr in decl.attrs {
            if attr.default == AttrDefault::Required || self.rng.chance(4) {
                let value = self.attr(Some(attr.kind));
                attrs.set(attr.name, value);
            }
        }
        attrs
    }

    fn attr(&mut self, kind: Option<AttrKind>) -> Attr {
        let small = kind.is_some(); // declared attributes are mostly axes and extents
        let int = |rng: &mut Rng| if small { rng.below(4) as i64 } else { rng.int() };
        let count = self.rng.below(5);
        match kind {
            Some(AttrKind::Int) => Attr::Int(int(&mut self.rng)),
            Some(AttrKind::Float) => Attr::float(self.rng.float()),
            Some(AttrKind::Bool) => Attr::Bool(self.rng.chance(2)),
            Some(AttrKind::Str) => Attr::str(&self.rng.name()),
            Some(AttrKind::Enum(words)) => Attr::str(words[self.rng.below(words.len())]),
            Some(AttrKind::Ints) => Attr::Ints((0..count).map(|_| int(&mut self.rng)).collect()),
            Some(AttrKind::Floats) => {
                Attr::Floats((0..count).map(|_| gs_ir::FloatBits(self.rng.float())).collect())
            }
            Some(AttrKind::Strs) => Attr::Strs((0..count).map(|_| self.rng.bytes().into()).collect()),
            Some(AttrKind::Elem) => Attr::Elem(self.rng.elem()),
            Some(AttrKind::Dims) => {
                let unknown = self.rng.chance(8);
                Attr::Dims((0..count).map(|_| if unknown { Dim::Unknown } else { self.dim(0) }).collect())
            }
            Some(AttrKind::Tensor) => {
                let elem = self.rng.elem();
                let dims: Vec<i64> = (0..self.rng.below(3)).map(|_| self.rng.below(4) as i64).collect();
                let data = self.data(elem, dims.iter().product::<i64>() as usize);
                Attr::Tensor(Arc::new(Literal { elem, dims, data }))
            }
            None => match self.rng.below(12) {
                0 => Attr::Bytes(self.rng.bytes().into()),
                1 => Attr::Raw(Arc::from(self.rng.name()), self.rng.bytes().into()),
                n => {
                    const KINDS: [AttrKind; 10] = [
                        AttrKind::Int,
                        AttrKind::Float,
                        AttrKind::Bool,
                        AttrKind::Str,
                        AttrKind::Ints,
                        AttrKind::Floats,
                        AttrKind::Strs,
                        AttrKind::Elem,
                        AttrKind::Dims,
                        AttrKind::Tensor,
                    ];
                    self.attr(Some(KINDS[n - 2]))
                }
            },
        }
    }
}
