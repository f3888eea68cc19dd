//! Weights of few bits: what they stand for does not change by a bit when they are packed, they are stored in as many bits
//! as promised, and what reads them runs in integers.

use gs_algos::deploy::{Form, deploy};
use gs_eval::random::unit;
use gs_eval::{Evaluator, Executor, Tensor};
use gs_ir::{ElemType, GlobalId, Init, Module, Registry, infer_module, verify};
use gs_text::{SourceMap, Style};

fn parsed(text: &str) -> Module {
    let mut module = gs_text::gsir::parse_module(text, None, &Registry::builtin()).unwrap_or_else(|d| {
        panic!("{}", gs_text::render_all(&d, &SourceMap::single("network", text), Style::Plain))
    });
    let misfits = infer_module(&mut module);
    assert!(misfits.is_empty(), "{misfits:?}");
    verify(&module).unwrap_or_else(|e| panic!("{e:?}"));
    module
}

/// The results of the main graph on inputs drawn by seed.
fn results(module: &Module) -> Vec<Tensor> {
    let main = module.main().expect("a graph");
    let inputs: Vec<Tensor> = (module.graph(main).params().iter().zip(0u64..))
        .map(|(&p, k)| {
            let dims = module.type_of(p).as_tensor().and_then(|t| t.const_dims()).expect("extents");
            let n: i64 = dims.iter().product();
            let values: Vec<f32> = (0..n as u64).map(|i| unit(k, i) as f32 * 2.0 - 1.0).collect();
            Tensor::f32s(dims.iter().map(|&d| d as usize).collect::<Vec<_>>(), values).expect("an input")
        })
        .collect();
    Evaluator::new().run(module, main, &inputs, &[]).unwrap_or_else(|e| panic!("{e}")).results
}

/// Numbers on and between the points of a grid, and beyond it.
fn weights(n: u64, scale: f32) -> String {
    let one = |i: u64| {
        let spread = unit(7, i) as f32 * 40.0 - 20.0;
        let x = if i.is_multiple_of(3) { spread.round() } else { spread };
        format!("{:?}", x * scale)
    };
    (0..n).map(one).collect::<Vec<_>>().join(", ")
}

/// A network that returns a weight as `qdq` with these attributes has it.
fn weight(n: u64, per_channel: bool, attrs: &str) -> String {
    let (dims, spread, axis) = if per_channel { ("[3]", "splat", "axis = 0, ") } else { ("[]", "", "") };
    let scale = if per_channel { "dense(0.3, 0.25, 0.1)" } else { "0.3" };
    let zero = if spread.is_empty() { "0".to_owned() } else { format!("{spread}(0)") };
    format!(
        "gsir 1\nparam @w : f32[3, {n}] = dense({})\nconst @s : f32{dims} = {scale}\nconst @z : i8{dims} = {zero}\n\
         graph @main() -> (%y : f32[3, {n}]) {{\n  %0 = qdq(@w, @s, @z) {{{axis}{attrs}}} : f32[3, {n}]\n  return %0\n}}\n",
        weights(3 * n, 0.3)
    )
}

/// The narrowest bytes of integers from which a global is made.
fn stored(module: &Module, mut id: GlobalId) -> (ElemType, usize) {
    let of =
        |id: GlobalId| module.ty(module.global(id).ty).as_tensor().map(|t| (t.elem, t.bytes().unwrap_or(0)));
    let mut least = of(id).expect("a tensor");
    while let Init::Derived(d) = &module.global(id).init {
        let gathered = module.registry().decl(d.kind).name == "gather";
        let Some(from) = d.operands.get(usize::from(gathered)).copied().flatten() else { break };
        id = from;
        let found = of(id).expect("a tensor");
        if found.0.is_int() && found.1 < least.1 {
            least = found;
        }
    }
    least
}

/// The integers that stand for the weight that a network returns: what is dequantized in it, or, packed, multiplied by
/// the scale beforehand.
fn numbers(module: &Module) -> GlobalId {
    if let [op] = module.all_ops()[..] {
        assert!(module.is(op, "dequantize"));
        return module.op(op).operand(0).and_then(|v| module.as_global(v)).expect("codes");
    }
    let result = module.main().and_then(|g| module.graph(g).results().next()).expect("a result");
    let product = module.as_global(result).expect("a constant");
    let Init::Derived(d) = &module.global(product).init else { panic!("a product") };
    d.operands[0].expect("numbers")
}

#[test]
fn packed_weights_stand_for_the_same_numbers() {
    let uniform = |bits: u32| format!("bits = {bits}");
    let narrow = |bits: u32| {
        let top = (1i64 << (bits - 1)) - 1;
        format!("qmin = {}, qmax = {top}", -top)
    };
    let odd = |bits: u32| format!("bits = {bits}, levels = \"odd\"");
    // Attributes, type stored, elements in a byte.
    let cases = [
        (uniform(4), ElemType::I4, 2),
        (narrow(4), ElemType::I4, 2),
        (narrow(3), ElemType::I4, 2),
        (uniform(2), ElemType::I2, 4),
        (narrow(2), ElemType::I2, 4),
        (odd(4), ElemType::U4, 2),
        (odd(3), ElemType::U4, 2),
        (odd(2), ElemType::U2, 4),
        (odd(1), ElemType::U4, 8),
        (odd(6), ElemType::I8, 1),
        (odd(7), ElemType::I8, 1),
        (narrow(8), ElemType::I8, 1),
    ];
    for (attrs, elem, in_a_byte) in &cases {
        for (n, per_channel) in [(8, true), (8, false), (5, true), (3, false), (1, true)] {
            let before = parsed(&weight(n, per_channel, attrs));
            let mut after = before.clone();
            deploy(&mut after, "ort-cpu", Form::Qdq).unwrap_or_else(|e| panic!("{attrs}: {e}"));
            verify(&after).unwrap_or_else(|e| panic!("{attrs}: {e:?}"));
            assert_eq!(results(&before), results(&after), "{attrs}, {n} columns, per channel: {per_channel}");
            let codes = numbers(&after);
            let bytes = (3 * n as usize).div_ceil(*in_a_byte);
            assert_eq!(stored(&after, codes), (*elem, bytes), "{attrs}, {n} columns");
        }
    }
}

/// The odd numbers of a grid without zero, by hand (algorithms, section 7.3).
#[test]
fn the_grid_without_zero() {
    let text = |bits: u32| {
        format!(
            "gsir 1\nparam @w : f32[7] = dense(-9.0, -1.1, -0.2, 0.2, 1.1, 2.4, 9.0)\nconst @s : f32[] = 0.5\n\
             const @z : i8[] = 0\ngraph @main() -> (%y : f32[7]) {{\n  %0 = qdq(@w, @s, @z) {{bits = {bits}, levels = \
             \"odd\"}} : f32[7]\n  return %0\n}}\n"
        )
    };
    let values = |bits| {
        let mut module = parsed(&text(bits));
        deploy(&mut module, "ort-cpu", Form::Qoperator).unwrap_or_else(|e| panic!("{e}"));
        results(&module)[0].to_f64s().expect("numbers")
    };
    assert_eq!(values(1), [-0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 0.5]);
    assert_eq!(values(2), [-1.5, -1.5, -0.5, 0.5, 1.5, 1.5, 1.5]);
    assert_eq!(values(4), [-7.5, -1.5, -0.5, 0.5, 1.5, 2.5, 7.5]);
}

/// Two convolutions with weights of `attrs`, on activations of 8 bits.
fn network(attrs: &str) -> String {
    format!(
        "gsir 1\ntarget \"ort-cpu\"\nparam @w : f32[4, 3, 3, 3] = uniform(seed 1, -0.9, 0.9)\n\
         param @v : f32[5, 4, 1, 1] = uniform(seed 2, -0.9, 0.9)\nconst @x.s : f32[] = 0.01\nconst @x.z : u8[] = 100\n\
         const @y.s : f32[] = 0.02\nconst @y.z : u8[] = 0\nconst @z.s : f32[] = 0.03\nconst @z.z : u8[] = 120\n\
         const @w.s : f32[4] = dense(0.1, 0.2, 0.15, 0.12)\nconst @w.z : i8[4] = splat(0)\nconst @v.s : f32[] = 0.2\n\
         const @v.z : i8[] = 0\n\
         graph @main(%x : f32[2, 3, 6, 6]) -> (%y : f32[2, 5, 6, 6]) {{\n  \
         %0 = qdq(%x, @x.s, @x.z) : f32[2, 3, 6, 6]\n  \
         %1 = qdq(@w, @w.s, @w.z) {{axis = 0, {attrs}}} : f32[4, 3, 3, 3]\n  \
         %2 = conv(%0, %1) {{pads = [1, 1, 1, 1]}} : f32[2, 4, 6, 6] from \"conv1\"\n  \
         %3 = relu(%2) : f32[2, 4, 6, 6] from \"relu\"\n  \
         %4 = qdq(%3, @y.s, @y.z) {{qmax = 15}} : f32[2, 4, 6, 6]\n  \
         %5 = qdq(@v, @v.s, @v.z) {{{attrs}}} : f32[5, 4, 1, 1]\n  \
         %6 = conv(%4, %5) : f32[2, 5, 6, 6] from \"conv2\"\n  \
         %7 = qdq(%6, @z.s, @z.z) : f32[2, 5, 6, 6]\n  return %7\n}}\n"
    )
}

#[test]
fn what_reads_packed_weights_runs_in_integers() {
    for attrs in
        ["bits = 4", "qmin = -1, qmax = 1", "bits = 4, levels = \"odd\"", "bits = 1, levels = \"odd\""]
    {
        let before = parsed(&network(attrs));
        let mut module = before.clone();
        deploy(&mut module, "ort-cpu", Form::Qoperator).unwrap_or_else(|e| panic!("{attrs}: {e}"));
        let names: Vec<&str> = module.all_ops().iter().map(|&op| module.op_name(op)).collect();
        // An activation of 4 bits is cut on its codes: one pass over bytes.
        assert_eq!(names, ["quantize", "qconv", "clip", "qconv", "dequantize"], "{attrs}");
        let mut portable = before.clone();
        deploy(&mut portable, "ort-cpu", Form::Qdq).unwrap_or_else(|e| panic!("{attrs}: {e}"));
        assert!(portable.all_ops().iter().all(|&op| !portable.is(op, "qdq")), "{attrs}");
        let (was, is) = (&results(&before)[0], &results(&module)[0]);
        let steps = was.to_f64s().expect("numbers").into_iter().zip(is.to_f64s().expect("numbers"));
        let far = steps.map(|(a, b)| ((a - b) / 0.03).abs()).fold(0.0, f64::max);
        assert!(far < 1.01, "{attrs}: {far} steps");
    }
}

/// The weight of the first operation.
fn weight_of(module: &Module) -> GlobalId {
    module.op(module.all_ops()[0]).operand(1).and_then(|v| module.as_global(v)).expect("a weight")
}

/// A codebook without zero beside activations in float: the layer stays in float and reads what is made of the codes.
#[test]
fn codes_beside_activations_in_float() {
    let text = "gsir 1\nparam @w : f32[4, 3, 3, 3] = uniform(seed 1, -0.9, 0.9)\nconst @s : f32[4] = dense(0.1, 0.2, 0.15, \
                0.12)\nconst @z : i8[4] = splat(0)\ngraph @main(%x : f32[2, 3, 6, 6]) -> (%y : f32[2, 4, 4, 4]) {\n  \
                %0 = qdq(@w, @s, @z) {axis = 0, bits = 2, levels = \"odd\"} : f32[4, 3, 3, 3]\n  \
                %1 = conv(%x, %0) : f32[2, 4, 4, 4] from \"conv\"\n  %2 = relu(%1) : f32[2, 4, 4, 4]\n  return %2\n}\n";
    let before = parsed(text);
    for form in [Form::Qdq, Form::Qoperator] {
        let mut after = before.clone();
        deploy(&mut after, "ort-cpu", form).unwrap_or_else(|e| panic!("{e}"));
        // One constant, which a runtime makes once.
        let names: Vec<&str> = after.all_ops().iter().map(|&op| after.op_name(op)).collect();
        assert_eq!(names, ["conv", "relu"]);
        assert_eq!(results(&before), results(&after));
        let Init::Derived(product) = &after.global(weight_of(&after)).init else { panic!("a product") };
        let numbers = product.operands[0].expect("numbers");
        assert_eq!(stored(&after, numbers), (ElemType::U2, 27));
    }
}
