//! What inference says of the extents of windowed operators is what evaluation makes, for random windows.

use crate::common::{attrs, ints};
use gs_eval::{Evaluator, Executor, Tensor};
use gs_ir::infer::infer_op;
use gs_ir::{Attr, ElemType, Module, Registry, Type};

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn within(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    fn list(&mut self, count: usize, low: i64, high: i64) -> Vec<i64> {
        (0..count).map(|_| self.within(low, high)).collect()
    }
}

fn filled(elem: ElemType, dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    match elem {
        ElemType::F32 => Tensor::f32s(dims, vec![1.0; count]).unwrap(),
        _ => Tensor::from_ints(elem, dims, &vec![1; count]).unwrap(),
    }
}

/// One random case: operands and attributes of an operator over `rank` spatial axes.
fn case(rng: &mut Rng, op: &str, rank: usize) -> (Vec<Option<Tensor>>, Vec<(&'static str, Attr)>) {
    let registry = Registry::builtin();
    let decl = registry.decl(registry.kind(op).unwrap());
    let channels_last = decl.attr("channels_last").is_some() && rng.below(2) == 0;
    let input: Vec<usize> = rng.list(rank, 1, 9).iter().map(|&n| n as usize).collect();
    let kernel = rng.list(rank, 1, 4);
    let mut x = vec![2];
    x.extend_from_slice(&input);
    x.insert(if channels_last { x.len() } else { 1 }, 2);
    let mut w = vec![2, 2];
    w.extend(kernel.iter().map(|&k| k as usize));

    let mut list = Vec::new();
    let (strides, dilations) = (rng.list(rank, 1, 4), rng.list(rank, 1, 3));
    if decl.attr("output_padding").is_some() {
        let most = strides.iter().zip(&dilations).map(|(&s, &d)| s.max(d) - 1);
        let extra: Vec<i64> = most.map(|m| rng.within(0, m)).collect();
        list.push(("output_padding", ints(&extra)));
    }
    list.push(("strides", ints(&strides)));
    if decl.attr("dilations").is_some() {
        list.push(("dilations", ints(&dilations)));
    }
    match rng.below(5) {
        0 => list.push(("auto_pad", Attr::str("SAME_UPPER"))),
        1 => list.push(("auto_pad", Attr::str("SAME_LOWER"))),
        2 => list.push(("auto_pad", Attr::str("VALID"))),
        _ => list.push(("pads", ints(&rng.list(2 * rank, 0, 3)))),
    }
    for (name, value) in [("channels_last", channels_last), ("ceil_mode", rng.below(2) == 0)] {
        if value && decl.attr(name).is_some() {
            list.push((name, Attr::Bool(true)));
        }
    }
    if decl.attr("kernel_shape").is_some() {
        list.push(("kernel_shape", ints(&kernel)));
    }
    let integer = decl.traits.has(gs_ir::registry::Traits::INTEGER);
    let codes = if integer { ElemType::U8 } else { ElemType::F32 };
    let operands = decl.operands.iter().map(|o| match o.name {
        "x" => Some(filled(codes, &x)),
        "w" => Some(filled(codes, &w)),
        name if name.ends_with("_scale") => Some(filled(ElemType::F32, &[])),
        name if name.ends_with("_zp") => Some(filled(ElemType::U8, &[])),
        _ => None,
    });
    let mut operands: Vec<Option<Tensor>> = operands.collect();
    while operands.last().is_some_and(Option::is_none) {
        operands.pop();
    }
    (operands, list)
}

#[test]
fn inferred_extents_are_those_that_are_made() {
    let registry = Registry::builtin();
    // The gradients of windowed operators get their extents from elsewhere.
    let forward = |d: &&gs_ir::OpDecl| d.attr("strides").is_some() && d.operands[0].name != "dy";
    let windowed = registry.iter().map(|(_, d)| d).filter(forward);
    let names: Vec<&str> = windowed.map(|d| d.name).collect();
    assert!(["conv", "conv_transpose", "max_pool", "qaverage_pool"].iter().all(|n| names.contains(n)));
    let mut rng = Rng(7);
    let mut different = Vec::new();
    for op in names {
        let mut made = 0;
        for _ in 0..400 {
            let rank = rng.within(1, 2) as usize;
            let (operands, list) = case(&mut rng, op, rank);
            let given: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
            let module = module_of_any(op, &given, &list);
            let main = module.main().unwrap();
            let node = module.ops_in(main).next().unwrap();
            let inferred = infer_op(&module, node);
            let inputs: Vec<Tensor> = operands.iter().flatten().cloned().collect();
            let found = Evaluator::new().run(&module, main, &inputs, &[]);
            let said = inferred.as_ref().ok().and_then(|f| f.first()?.ty.as_tensor()?.const_dims());
            let dims = found.as_ref().ok().map(|o| o.results[0].dims().iter().map(|&d| d as i64).collect());
            made += usize::from(dims.is_some());
            if said != dims {
                let x = operands[0].as_ref().map(Tensor::dims).unwrap_or_default().to_vec();
                let (inferred, found) = (inferred.err(), found.err());
                different.push(format!("{op} {x:?} {list:?}: {said:?} {inferred:?}, {dims:?} {found:?}"));
            }
        }
        assert!(made > 100, "{op}: only {made} windows fit");
    }
    let first = &different[..different.len().min(10)];
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), first.join("\n"));
}

/// A module whose `main` applies the operation, without a word of the result's type.
fn module_of_any(op: &str, operands: &[Option<&Tensor>], list: &[(&str, Attr)]) -> Module {
    let mut module = Module::new();
    let mut rw = gs_ir::Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let values: Vec<_> = operands
        .iter()
        .map(|t| {
            t.map(|t| {
                let dims: Vec<i64> = t.dims().iter().map(|&d| d as i64).collect();
                rw.add_param(graph, "", Type::fixed(t.elem(), &dims))
            })
        })
        .collect();
    let kind = rw.registry().kind(op).unwrap();
    let attrs = gs_ir::normal_attrs(rw.registry().decl(kind), attrs(list));
    let op = rw.create_typed(kind, &values, attrs, &[Type::Any], gs_ir::At::End(graph));
    let result = rw.op(op).result();
    rw.add_result(graph, "y", result, None);
    module
}
