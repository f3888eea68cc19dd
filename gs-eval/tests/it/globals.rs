//! Contents of globals: bytes, splats, random fills, derived ones.

use crate::common::{attrs, close, ints};
use gs_eval::{ContentsError, Evaluator, Materializer, Tensor, TensorError, materialize};
use gs_ir::{
    Attr, AttrSet, Derived, Distribution, ElemType, FloatBits, GlobalId, Init, Literal, Module, NewGlobal,
};
use gs_ir::{Rewriter, Role, TensorData, Type};

fn add(rw: &mut Rewriter<'_>, name: &str, ty: Type, init: Init) -> GlobalId {
    rw.add_global(NewGlobal { name, role: Role::Const, trainable: false, ty, init })
}

fn data(rw: &mut Rewriter<'_>, name: &str, l: Literal) -> GlobalId {
    add(rw, name, Type::fixed(l.elem, &l.dims), Init::Data(l.data))
}

fn tensor(m: &Module, g: GlobalId) -> Result<Tensor, ContentsError> {
    Materializer::new(m).tensor(g)
}

#[test]
fn bytes_are_shared_and_splats_filled() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let a = data(&mut rw, "a", Literal::f32s([2], &[1.0, 2.0]));
    let s = add(&mut rw, "s", Type::fixed(ElemType::I4, &[3]), Init::Splat([0x0e].into_iter().collect()));
    let TensorData::Bytes(bytes) = materialize(&module, a).unwrap() else { panic!() };
    let Init::Data(TensorData::Bytes(own)) = &module.global(a).init else { panic!() };
    assert_eq!(bytes.as_ptr(), own.as_ptr());
    assert_eq!(materialize(&module, s).unwrap().bytes().unwrap().as_ref(), [0xee, 0x0e]);
    assert_eq!(tensor(&module, s).unwrap(), Tensor::from_ints(ElemType::I4, [3], &[-2, -2, -2]).unwrap());
}

#[test]
fn random_contents_depend_on_seed_and_place_alone() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let dist = Distribution::Normal(FloatBits(1.0), FloatBits(0.5));
    let a = add(&mut rw, "a", Type::fixed(ElemType::F32, &[100]), Init::Seeded { seed: 7, dist });
    let b = add(&mut rw, "b", Type::fixed(ElemType::F32, &[10, 20]), Init::Seeded { seed: 7, dist });
    let c = add(&mut rw, "c", Type::fixed(ElemType::F32, &[100]), Init::Seeded { seed: 8, dist });
    let [a, b, c] = [a, b, c].map(|g| tensor(&module, g).unwrap());
    assert_eq!(a.as_f32().unwrap(), &b.as_f32().unwrap()[..100]);
    assert_ne!(a, c);
    // Pinned: other machines and versions must give the same bits.
    assert_eq!(a.as_f32().unwrap()[..3].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), PINNED);
}

const PINNED: [u32; 3] = [1_069_499_178, 1_032_519_815, 1_065_369_659];

#[test]
fn derived_contents_are_evaluated_and_packed() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let w = data(&mut rw, "w", Literal::f32s([2, 2], &[0.1, 0.2, -0.3, 0.4]));
    let s = data(&mut rw, "s", Literal::f32s([2], &[0.1, 0.1]));
    let z = add(&mut rw, "z", Type::fixed(ElemType::I4, &[2]), Init::Splat([0].into_iter().collect()));
    let kind = |rw: &Rewriter<'_>, n: &str| rw.registry().kind(n).unwrap();
    let t = kind(&rw, "transpose");
    let wt = rw.derive_global("wt", t, AttrSet::new(), &[Some(w)]).unwrap();
    let q = kind(&rw, "quantize");
    let axis = attrs(&[("axis", Attr::Int(0))]);
    let codes = rw.derive_global("codes", q, axis, &[Some(wt), Some(s), Some(z)]).unwrap();
    assert_eq!(materialize(&module, codes).unwrap().bytes().unwrap().as_ref(), [0xd1, 0x42]);
    close(&tensor(&module, wt).unwrap(), &[2, 2], &[0.1, -0.3, 0.2, 0.4]);
}

#[test]
fn long_chains_and_shared_pieces() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let mut g = data(&mut rw, "w", Literal::i64s([1], &[1]));
    let kind = rw.registry().kind("add").unwrap();
    // Each global reads the one before twice: without memory this would take 2^40 additions.
    for i in 0..40 {
        g = rw.derive_global(&format!("d{i}"), kind, AttrSet::new(), &[Some(g), Some(g)]).unwrap();
    }
    assert_eq!(tensor(&module, g).unwrap().as_i64(), Some(&[1i64 << 40][..]));
    let mut rw = Rewriter::new(&mut module);
    let kind = rw.registry().kind("neg").unwrap();
    for i in 0..100_001 {
        g = rw.derive_global(&format!("n{i}"), kind, AttrSet::new(), &[Some(g)]).unwrap();
    }
    assert_eq!(tensor(&module, g).unwrap().as_i64(), Some(&[-(1i64 << 40)][..]));
}

#[test]
fn slices_of_weights() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let w = data(&mut rw, "w", Literal::i64s([4], &[10, 11, 12, 13]));
    let kind = rw.registry().kind("slice").unwrap();
    let list = attrs(&[("starts", ints(&[1])), ("ends", ints(&[3]))]);
    let part = rw.derive_global("part", kind, list, &[Some(w)]).unwrap();
    assert_eq!(tensor(&module, part).unwrap().as_i64(), Some(&[11, 12][..]));
}

#[test]
fn what_cannot_be_made_says_why() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let f = |d: &[i64]| Type::fixed(ElemType::F32, d);
    let absent = add(&mut rw, "absent", f(&[2]), Init::Absent);
    let short = add(&mut rw, "short", f(&[2]), Init::Data(Literal::f32(1.0).data));
    let vast = add(&mut rw, "vast", f(&[1 << 40, 1 << 40]), Init::Splat([0; 4].into_iter().collect()));
    let loose =
        add(&mut rw, "loose", Type::unranked(ElemType::F32), Init::Splat([0; 4].into_iter().collect()));
    let kind = rw.registry().kind("relu").unwrap();
    let of = |g: GlobalId| Derived {
        kind,
        attrs: AttrSet::new(),
        operands: [Some(g)].into_iter().collect(),
        result: 0,
        results: 1,
    };
    let child = add(&mut rw, "child", f(&[2]), Init::Derived(of(absent)));
    let ring = add(&mut rw, "ring", f(&[2]), Init::Absent);
    let other = add(&mut rw, "other", f(&[2]), Init::Derived(of(ring)));
    rw.set_global(ring, f(&[2]), Init::Derived(of(other)));
    let opaque = rw.registry().kind("opaque").unwrap();
    let unknown =
        Derived { kind: opaque, attrs: AttrSet::new(), operands: Default::default(), result: 0, results: 1 };
    let strange = add(&mut rw, "strange", f(&[2]), Init::Derived(unknown));
    let make = |g| Materializer::new(&module).data(g).unwrap_err();
    assert_eq!(make(absent), ContentsError::Absent("absent".into()));
    assert_eq!(make(child), ContentsError::Absent("absent".into()));
    assert!(matches!(
        make(short),
        ContentsError::Tensor { error: TensorError::Bytes { expected: 8, found: 4 }, .. }
    ));
    assert!(matches!(make(vast), ContentsError::Memory { .. }));
    assert_eq!(make(loose), ContentsError::Type("loose".into()));
    assert!(matches!(make(ring), ContentsError::Cycle(_)));
    assert!(matches!(make(strange), ContentsError::Derived { error: None, .. }));
    let small = Evaluator::new().with_limits(10, 1000);
    let limited = Materializer::with_evaluator(&module, &small).with_byte_limit(usize::MAX).tensor(vast);
    assert!(matches!(limited, Err(ContentsError::Tensor { .. })));
}

/// A short text can describe contents of any size: making them is refused before memory is taken.
#[test]
fn memory_is_limited() {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let one = Init::Splat(1.0f32.to_le_bytes().into_iter().collect());
    let vast = add(&mut rw, "vast", Type::fixed(ElemType::F32, &[4_000_000_000]), one.clone());
    let kind = rw.registry().kind("reduce_sum").unwrap();
    let of_vast = attrs(&[("axes", ints(&[0]))]);
    let sum = rw.derive_global("sum", kind, of_vast, &[Some(vast)]).unwrap();
    for g in [vast, sum] {
        let found = Materializer::new(&module).data(g).unwrap_err();
        assert!(matches!(&found, ContentsError::Memory { global, .. } if global == "vast"), "{found}");
    }

    // What is held at once counts, and what was let go does not.
    let mut rw = Rewriter::new(&mut module);
    let a = add(&mut rw, "a", Type::fixed(ElemType::F32, &[100]), one.clone());
    let b = add(&mut rw, "b", Type::fixed(ElemType::F32, &[100]), one);
    let kind = rw.registry().kind("add").unwrap();
    let ab = rw.derive_global("ab", kind, AttrSet::new(), &[Some(a), Some(b)]).unwrap();
    let kind = rw.registry().kind("neg").unwrap();
    let mut last = ab;
    for i in 0..10 {
        last = rw.derive_global(&format!("n{i}"), kind, AttrSet::new(), &[Some(last)]).unwrap();
    }
    let with = |limit| Materializer::new(&module).with_byte_limit(limit).tensor(last);
    assert_eq!(with(1200).unwrap().as_f32().unwrap()[99], 2.0);
    let refused = ContentsError::Memory { global: "ab".into(), bytes: 1200, limit: 1199 };
    assert_eq!(with(1199).unwrap_err(), refused);
}

/// A chain of globals, each of which a graph reads, is computed link by link, also when not all of it can be kept.
#[test]
fn each_link_of_a_chain_is_computed_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let kind = rw.registry().kind("neg").unwrap();
    let mut chain = vec![data(&mut rw, "w", Literal::f32s([4], &[1.0; 4]))];
    for i in 0..200 {
        let last = chain.last().copied();
        chain.push(rw.derive_global(&format!("d{i}"), kind, AttrSet::new(), &[last]).unwrap());
    }
    let graph = rw.add_graph("main");
    for (i, &g) in chain.iter().enumerate() {
        let value = rw.global(g).value;
        rw.add_result(graph, &format!("y{i}"), value, None);
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let mut evaluator = Evaluator::new();
    evaluator.register("neg", move |ctx| {
        counted.fetch_add(1, Ordering::Relaxed);
        let x: Vec<f64> = ctx.operand(0)?.to_f64s().unwrap_or_default().iter().map(|v| -v).collect();
        Ok(vec![Tensor::from_f64s(ElemType::F32, [4], &x)?])
    });
    // Ten of the 16 bytes fit what may be kept: a quarter of the limit.
    let mut contents = Materializer::with_evaluator(&module, &evaluator).with_byte_limit(640);
    for (i, &g) in chain.iter().enumerate() {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        assert_eq!(contents.tensor(g).unwrap().as_f32(), Some(&[sign; 4][..]), "{i}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 200);
}
