//! Quantisers and integer sums against values computed by hand.

use crate::common::{close, codes, f32s, ints, run, try_with};
use gs_eval::{Arithmetic, Evaluator, Precision, Requant, Storage, Tensor};
use gs_ir::{Attr, ElemType};

fn scalar(elem: ElemType, value: i128) -> Tensor {
    codes(elem, &[], &[value])
}

#[test]
fn quantize_rounds_half_to_even_and_saturates() {
    let x = f32s(&[6], &[0.25, 0.75, -0.25, 1000.0, -1000.0, f32::NAN]);
    let y = run("quantize", &[&x, &Tensor::scalar(0.5), &scalar(ElemType::U8, 3)], &[]);
    assert_eq!(y.storage(), &Storage::U8(vec![3, 5, 3, 255, 0, 3]));
    let y = run("quantize", &[&x, &Tensor::scalar(0.5), &scalar(ElemType::I4, 0)], &[]);
    assert_eq!((y.elem(), y.storage()), (ElemType::I4, &Storage::I8(vec![0, 2, 0, 7, -8, 0])));
    let y = run("quantize", &[&x, &Tensor::scalar(0.5)], &[("to", Attr::Elem(ElemType::I16))]);
    assert_eq!(y.storage(), &Storage::I16(vec![0, 2, 0, 2000, -2000, 0]));
    let y = run("quantize", &[&x, &Tensor::scalar(0.5)], &[]);
    assert_eq!(y.elem(), ElemType::U8);
    let eight = Tensor::from_f64s(ElemType::F8E4M3Fn, [], &[0.0]).unwrap();
    let y = run("quantize", &[&x, &Tensor::scalar(0.5), &eight], &[]);
    assert_eq!(y.as_f32().unwrap()[..5], [0.5, 1.5, -0.5, 448.0, -448.0]);
}

#[test]
fn quantize_divides_and_does_not_multiply_by_the_inverse() {
    // 147.5 * s as f32; times f32(1 / s) it is no tie.
    let s = 0.0157f32;
    let ties: Vec<f32> =
        (0..255).map(|k| (k as f32 + 0.5) * s).filter(|x| x / s == (x / s).floor() + 0.5).collect();
    assert!(ties.len() > 200);
    let q =
        run("quantize", &[&f32s(&[ties.len()], &ties), &Tensor::scalar(s), &scalar(ElemType::U8, 0)], &[]);
    let Storage::U8(q) = q.storage() else { panic!() };
    assert!(q.iter().all(|c| c % 2 == 0 || *c == 255));
}

#[test]
fn scales_per_axis_and_per_block() {
    let x = f32s(&[2, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    let z = codes(ElemType::I8, &[2], &[0, 1]);
    let y = run("quantize", &[&x, &f32s(&[2], &[1.0, 0.5]), &z], &[("axis", Attr::Int(0))]);
    assert_eq!(y.storage(), &Storage::I8(vec![1, 2, 3, 4, 3, 5, 7, 9]));
    let (s, z) = (f32s(&[2, 2], &[1.0, 2.0, 0.5, 1.0]), codes(ElemType::I8, &[2, 2], &[0; 4]));
    let list = [("axis", Attr::Int(1)), ("block", Attr::Int(3))];
    let q = run("quantize", &[&x, &s, &z], &list);
    assert_eq!(q.storage(), &Storage::I8(vec![1, 2, 3, 2, 2, 4, 6, 4]));
    close(&run("dequantize", &[&q, &s, &z], &list), &[2, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn dequantize_subtracts_before_it_multiplies() {
    let x = codes(ElemType::U8, &[3], &[0, 128, 255]);
    let y = run("dequantize", &[&x, &Tensor::scalar(0.5), &scalar(ElemType::U8, 128)], &[]);
    close(&y, &[3], &[-64.0, 0.0, 63.5]);
    // A bias: the int32 is rounded to f32 before the product.
    let x = codes(ElemType::I32, &[1], &[(1 << 24) + 1]);
    let y = run("dequantize", &[&x, &Tensor::scalar(3.0)], &[]);
    assert_eq!(y.as_f32(), Some(&[50_331_648.0][..]));
}

#[test]
fn frozen_quantisers() {
    let x = f32s(&[5], &[-1.0, -0.2, 0.3, 0.5, 9.0]);
    let s = Tensor::scalar(0.25);
    let y = run("qdq", &[&x, &s, &scalar(ElemType::U8, 2)], &[]);
    close(&y, &[5], &[-0.5, -0.25, 0.25, 0.5, 9.0]);
    let y = run("qdq", &[&x, &s, &scalar(ElemType::I8, 0)], &[("bits", Attr::Int(4))]);
    close(&y, &[5], &[-1.0, -0.25, 0.25, 0.5, 1.75]);
    let y =
        run("qdq", &[&x, &s, &scalar(ElemType::I8, 0)], &[("qmin", Attr::Int(-3)), ("qmax", Attr::Int(3))]);
    close(&y, &[5], &[-0.75, -0.25, 0.25, 0.5, 0.75]);
    let y = run(
        "qdq",
        &[&x, &s, &scalar(ElemType::I8, 0)],
        &[("levels", Attr::str("odd")), ("bits", Attr::Int(2))],
    );
    close(&y, &[5], &[-0.75, -0.25, 0.25, 0.25, 0.75]);
    let y = run(
        "qdq",
        &[&x, &s, &scalar(ElemType::I8, 0)],
        &[("levels", Attr::str("odd")), ("bits", Attr::Int(1))],
    );
    close(&y, &[5], &[-0.25, -0.25, 0.25, 0.25, 0.25]);
    let rows = f32s(&[2, 2], &[0.3, 0.6, 0.3, 0.6]);
    let y = run(
        "qdq",
        &[&rows, &f32s(&[2], &[0.5, 0.25]), &codes(ElemType::I8, &[2], &[0, 0])],
        &[("axis", Attr::Int(0))],
    );
    close(&y, &[2, 2], &[0.5, 0.5, 0.25, 0.5]);
}

#[test]
fn training_quantisers_follow_their_range() {
    let s = 4.0f32 / 255.0;
    let x = f32s(&[5], &[0.5 * s, 1.5 * s, -1.2, 3.2, 2.0]);
    let y = run("fake_quant", &[&x, &f32s(&[2], &[-1.0, 3.0])], &[]);
    close(&y, &[5], &[0.0, 2.0 * s, -1.003_922, 2.996_078, 1.992_157]);
    let rows = f32s(&[2, 2], &[0.5, -2.0, 0.5, -2.0]);
    let range = f32s(&[2, 2], &[-1.0, -2.0, 1.0, 1.0]);
    let list = [
        ("axis", Attr::Int(0)),
        ("bits", Attr::Int(2)),
        ("signed", Attr::Bool(true)),
        ("symmetric", Attr::Bool(true)),
        ("narrow", Attr::Bool(true)),
    ];
    close(&run("fake_quant", &[&rows, &range], &list), &[2, 2], &[0.0, -1.0, 0.0, -2.0]);
    // Nothing was observed yet: scale 1, zero stays zero.
    close(&run("fake_quant", &[&f32s(&[1], &[0.4]), &f32s(&[2], &[0.0, 0.0])], &[]), &[1], &[0.0]);
}

#[test]
fn qdq_equals_dequantize_of_quantize() {
    let x: Vec<f32> = (0..2000).map(|i| (i as f32 - 1000.0) * 0.0137).collect();
    let x = f32s(&[x.len()], &x);
    let (s, z) = (Tensor::scalar(0.0731), scalar(ElemType::U8, 77));
    let both = run("dequantize", &[&run("quantize", &[&x, &s, &z], &[]), &s, &z], &[]);
    assert!(run("qdq", &[&x, &s, &z], &[]).same_bits(&both));
}

#[test]
fn integer_sums_are_exact() {
    let (x, w) =
        (codes(ElemType::U8, &[1, 1, 3], &[0, 255, 7]), codes(ElemType::I8, &[1, 1, 2], &[-128, 127]));
    let pads = [("pads", ints(&[1, 1]))];
    // Padding stands for x_zp, so it adds nothing.
    let y = run("conv_integer", &[&x, &w, &scalar(ElemType::U8, 10)], &pads);
    assert_eq!(y.storage(), &Storage::I32(vec![-1270, 1280 + 245 * 127, -245 * 128 - 3 * 127, 384]));
    let a = codes(ElemType::U8, &[2, 1], &[200, 3]);
    let b = codes(ElemType::I8, &[1, 2], &[100, -100]);
    let zeros = (codes(ElemType::U8, &[2], &[1, 2]), codes(ElemType::I8, &[2], &[0, 1]));
    let y = run("matmul_integer", &[&a, &b, &zeros.0, &zeros.1], &[]);
    assert_eq!(y.storage(), &Storage::I32(vec![19900, -20099, 100, -101]));
    // 4096 products of 255 and 127 do not saturate pairwise.
    let a = codes(ElemType::U8, &[1, 4096], &[255; 4096]);
    let b = codes(ElemType::I8, &[4096, 1], &[127; 4096]);
    assert_eq!(run("matmul_integer", &[&a, &b], &[]).storage(), &Storage::I32(vec![4096 * 255 * 127]));
}

#[test]
fn the_target_names_the_arithmetic() {
    let (x, w) = (codes(ElemType::U8, &[1, 1, 4], &[1, 3, 5, 7]), codes(ElemType::I8, &[1, 1, 1], &[1]));
    let (one, two) = (Tensor::scalar(1.0), Tensor::scalar(2.0));
    let (z, zw) = (scalar(ElemType::U8, 0), scalar(ElemType::I8, 0));
    let operands: Vec<Option<&Tensor>> = [&x, &one, &z, &w, &one, &zw, &two, &z].map(Some).to_vec();
    let with = |arithmetic| {
        let evaluator = Evaluator::new().with_arithmetic(arithmetic);
        try_with(&evaluator, "qconv", &operands, &[], 1).unwrap().remove(0)
    };
    assert_eq!(with(Arithmetic::ONNX_RUNTIME_CPU).storage(), &Storage::U8(vec![0, 2, 2, 4]));
    assert_eq!(with(Arithmetic::Q31).storage(), &Storage::U8(vec![1, 2, 3, 4]));
    let shift = Arithmetic { requant: Requant::Pow2Shift, ..Arithmetic::ONNX_RUNTIME_CPU };
    assert_eq!(with(shift).storage(), &Storage::U8(vec![0, 2, 2, 4]));
}

#[test]
fn fixed_point_addition_is_within_one_code() {
    let a: Vec<i128> = (0..256).collect();
    let (a, b) = (codes(ElemType::U8, &[256, 1], &a), codes(ElemType::U8, &[1, 256], &a));
    let scales = [0.021, 0.034, 0.047].map(Tensor::scalar);
    let zeros = [120, 3, 100].map(|z| scalar(ElemType::U8, z));
    let operands: Vec<Option<&Tensor>> =
        [&a, &scales[0], &zeros[0], &b, &scales[1], &zeros[1], &scales[2], &zeros[2]].map(Some).to_vec();
    let with = |arithmetic| {
        let evaluator = Evaluator::new().with_arithmetic(arithmetic);
        try_with(&evaluator, "qadd", &operands, &[], 1).unwrap().remove(0).to_i32s().unwrap()
    };
    let (float, fixed) = (with(Arithmetic::ONNX_RUNTIME_CPU), with(Arithmetic::Q31));
    let far = float.iter().zip(&fixed).filter(|(a, b)| (*a - *b).abs() > 1).count();
    let differ = float.iter().zip(&fixed).filter(|(a, b)| a != b).count();
    assert_eq!(far, 0);
    assert!(differ < 100, "{differ}");
}

#[test]
fn integer_results_do_not_depend_on_the_precision_of_floats() {
    let x = codes(ElemType::U8, &[4], &[0, 50, 100, 255]);
    let (s, z) = (Tensor::scalar(0.013), scalar(ElemType::U8, 9));
    let operands: Vec<Option<&Tensor>> = [&x, &s, &z, &x, &s, &z, &s, &z].map(Some).to_vec();
    let with = |p| try_with(&Evaluator::new().with_precision(p), "qmul", &operands, &[], 1).unwrap();
    assert_eq!(with(Precision::Native), with(Precision::F64));
}
