//! No input makes the evaluator panic: every declared operator on operands and attributes that mostly make no sense.
//! Arithmetic overflow would panic here too, as tests are built with overflow checks.

use gs_eval::random::bits;
use gs_eval::{Evaluator, Executor, Storage, Tensor, count};
use gs_ir::registry::{Arity, AttrKind, Default, Regions};
use gs_ir::{At, Attr, AttrSet, Dim, ElemType, FloatBits, Literal, Module, OpDecl, Registry, Rewriter, Type};
use std::sync::Arc;

/// A stream of choices.
struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.thrown += 1;
        (bits(self.seed, self.thrown) % n as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn int(&mut self) -> i64 {
        self.one_of(&[0, 1, 1, 2, 3, -1, -2, 4, 8, 7, i64::MAX, i64::MIN, 1 << 33, -(1 << 33), 1 << 62])
    }

    fn float(&mut self) -> f32 {
        self.one_of(&[0.0, 1.0, -1.0, 0.5, 1e-40, f32::MAX, f32::NAN, f32::INFINITY, -0.0, 3e9, -1e20])
    }

    fn elem(&mut self, usual: ElemType) -> ElemType {
        if self.below(8) > 0 {
            return usual;
        }
        let all: Vec<ElemType> = ElemType::all().collect();
        self.one_of(&all)
    }
}

fn tensor(dice: &mut Dice, usual: ElemType, dims: &[usize]) -> Tensor {
    let elem = dice.elem(usual);
    let n = count(dims).unwrap_or(0);
    match Storage::empty(elem) {
        Storage::Str(_) => {
            Tensor::new(elem, dims, Storage::Str(vec![bytes::Bytes::from_static(b"x"); n])).unwrap()
        }
        Storage::C64(_) => Tensor::new(elem, dims, Storage::C64(vec![[1.0, 2.0]; n])).unwrap(),
        Storage::C128(_) => Tensor::new(elem, dims, Storage::C128(vec![[1.0, 2.0]; n])).unwrap(),
        _ if elem.is_float() => {
            let values: Vec<f64> = (0..n).map(|_| f64::from(dice.float())).collect();
            Tensor::from_f64s(elem, dims, &values).unwrap()
        }
        _ => {
            let values: Vec<i128> = (0..n).map(|_| i128::from(dice.int())).collect();
            Tensor::from_ints(elem, dims, &values).unwrap()
        }
    }
}

fn attr(dice: &mut Dice, kind: AttrKind) -> Attr {
    match kind {
        AttrKind::Int => Attr::Int(dice.int()),
        AttrKind::Float => Attr::float(dice.float()),
        AttrKind::Bool => Attr::Bool(dice.below(2) == 1),
        AttrKind::Str => Attr::str("NOTSET"),
        AttrKind::Enum(words) => Attr::str(dice.one_of(words)),
        AttrKind::Ints | AttrKind::Dims => {
            let n = dice.below(6);
            Attr::ints(&(0..n).map(|_| dice.int()).collect::<Vec<_>>())
        }
        AttrKind::Floats => Attr::Floats(Arc::from([FloatBits(dice.float())])),
        AttrKind::Strs => Attr::Strs(Arc::from([])),
        AttrKind::Elem => Attr::Elem(dice.elem(ElemType::F32)),
        AttrKind::Tensor => Attr::Tensor(Arc::new(Literal::f32s([dice.below(3) as i64], &[0.0]))),
    }
}

fn attrs(dice: &mut Dice, decl: &OpDecl) -> AttrSet {
    let mut set = AttrSet::new();
    for a in decl.attrs {
        if a.default == Default::Required || dice.below(6) == 0 {
            set.set(a.name, attr(dice, a.kind));
        }
    }
    set
}

/// One operation on hostile operands; true where it gave results.
fn throw(dice: &mut Dice, decl: &OpDecl) -> bool {
    let places = decl.operands.len()
        + if decl.operands.last().is_some_and(|o| o.arity == Arity::Variadic) { dice.below(6) } else { 0 };
    let shapes: [&[usize]; 9] =
        [&[], &[1], &[2], &[0], &[2, 2], &[1, 2, 4], &[1, 2, 4, 4], &[2, 0, 3], &[1, 1, 1, 1, 1]];
    let (main, usual) = (
        dice.one_of(&shapes),
        dice.one_of(&[ElemType::F32, ElemType::F32, ElemType::U8, ElemType::I64, ElemType::Bool]),
    );
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let mut operands = Vec::new();
    let mut inputs = Vec::new();
    for i in 0..places {
        if dice.below(8) == 0 {
            operands.push(None);
            continue;
        }
        let name = decl.operand(i).map_or("", |o| o.name);
        let dims = if dice.below(5) > 0 { main } else { dice.one_of(&shapes) };
        let (elem, dims) = match name {
            "labels" => (ElemType::I64, main.get(..1).unwrap_or(main)),
            "step" => (ElemType::I64, dims),
            _ if name.ends_with("scale") => (ElemType::F32, dims),
            _ => (usual, dims),
        };
        inputs.push(tensor(dice, elem, dims));
        operands.push(Some(rw.add_param(graph, "", Type::Any)));
    }
    let kind = rw.registry().kind(decl.name).unwrap();
    let results = decl.results.len() + dice.below(2);
    let op = rw.create_typed(kind, &operands, attrs(dice, decl), &vec![Type::Any; results], At::End(graph));
    for &r in &rw.op(op).results().to_vec() {
        rw.add_result(graph, "", r, None);
    }
    if let Regions::Named(names) = decl.regions {
        for name in names {
            let region = rw.add_region(op, name);
            for _ in 0..dice.below(4) {
                let p = rw.add_param(region, "", Type::tensor(ElemType::F32, [Dim::Const(2)]));
                rw.add_result(region, "", p, None);
            }
        }
    }
    let evaluator = Evaluator::new().with_limits(100_000, 2_000_000);
    evaluator.run(&module, graph, &inputs, &[]).is_ok()
}

#[test]
fn no_operator_panics() {
    let rounds = std::env::var("GS_EVAL_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(1500);
    let registry = Registry::builtin();
    for (kind, decl) in registry.iter() {
        let mut ran = 0;
        for round in 0..rounds {
            let mut dice = Dice { seed: round, thrown: (decl.name.len() as u64) << 32 };
            ran += usize::from(throw(&mut dice, decl));
        }
        // The throws are not so wild that nothing ever runs, except for what needs a body or operands that fit.
        let fitting = decl.name.starts_with('q') || decl.name.ends_with("_grad");
        let wild = matches!(decl.regions, Regions::Any | Regions::Named(_)) || fitting;
        assert!(ran > 0 || wild, "{} ({kind:?}) never ran", decl.name);
    }
}
