//! Float operators against values computed by hand.

use crate::common::{close, f32s, i64s, ints, ramp, run, try_run};
use gs_eval::{ExecError, OpError, Storage, Tensor};
use gs_ir::{Attr, ElemType};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

#[test]
fn conv_with_padding_stride_and_bias() {
    let (x, w, b) = (ramp(&[1, 1, 3, 3]), f32s(&[1, 1, 3, 3], &[1.0; 9]), f32s(&[1], &[0.5]));
    let y = run("conv", &[&x, &w, &b], &[("pads", ints(&[1, 1, 1, 1]))]);
    close(&y, &[1, 1, 3, 3], &[8.5, 15.5, 12.5, 21.5, 36.5, 27.5, 20.5, 33.5, 24.5]);
    let y = run("conv", &[&x, &w, &b], &[("pads", ints(&[1, 1, 1, 1])), ("strides", ints(&[2, 2]))]);
    close(&y, &[1, 1, 2, 2], &[8.5, 12.5, 20.5, 24.5]);
    let y = run("conv", &[&x, &w, &b], &[("auto_pad", Attr::str("SAME_LOWER")), ("strides", ints(&[2, 2]))]);
    close(&y, &[1, 1, 2, 2], &[8.5, 12.5, 20.5, 24.5]);
}

#[test]
fn conv_is_correlation_in_one_two_and_three_dimensions() {
    let y = run("conv", &[&ramp(&[1, 1, 4]), &f32s(&[1, 1, 2], &[1.0, 10.0])], &[]);
    close(&y, &[1, 1, 3], &[10.0, 21.0, 32.0]);
    let y = run("conv", &[&ramp(&[1, 1, 5]), &f32s(&[1, 1, 2], &[1.0, 10.0])], &[("dilations", ints(&[3]))]);
    close(&y, &[1, 1, 2], &[30.0, 41.0]);
    let y = run("conv", &[&ramp(&[1, 1, 2, 2, 2]), &f32s(&[1, 1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0])], &[]);
    close(&y, &[1, 1, 1, 2, 1], &[2.0 + 12.0 + 20.0, 2.0 + 6.0 + 18.0 + 28.0]);
}

#[test]
fn conv_groups_and_batches() {
    // Two images, four channels in two groups, one output channel each: sums of channel pairs.
    let w = f32s(&[2, 2, 1], &[1.0, 1.0, 1.0, -1.0]);
    let y = run("conv", &[&ramp(&[2, 4, 2]), &w], &[("group", Attr::Int(2))]);
    close(&y, &[2, 2, 2], &[2.0, 4.0, -2.0, -2.0, 18.0, 20.0, -2.0, -2.0]);
    // Depthwise.
    let y = run(
        "conv",
        &[&ramp(&[1, 2, 3]), &f32s(&[2, 1, 2], &[1.0, 1.0, 0.0, 2.0])],
        &[("group", Attr::Int(2))],
    );
    close(&y, &[1, 2, 2], &[1.0, 3.0, 8.0, 10.0]);
}

#[test]
fn conv_spans_several_stretches() {
    // More positions than one stretch holds, and more than one image: each output is its own sum.
    let x = ramp(&[3, 1, 5000]);
    let y = run("conv", &[&x, &f32s(&[1, 1, 2], &[-1.0, 1.0])], &[]);
    close(&y, &[3, 1, 4999], &vec![1.0; 3 * 4999]);
}

#[test]
fn conv_sums_in_double_precision() {
    let x = f32s(&[1, 3, 1], &[1e8, 1.0, -1e8]);
    close(&run("conv", &[&x, &f32s(&[1, 3, 1], &[1.0; 3])], &[]), &[1, 1, 1], &[1.0]);
}

#[test]
fn conv_transpose_inverts_extents() {
    let x = f32s(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let w = f32s(&[1, 2, 2], &[1.0, 10.0, 2.0, 20.0]);
    let y = run("conv_transpose", &[&x, &w], &[("strides", ints(&[2]))]);
    close(&y, &[1, 2, 6], &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 2.0, 20.0, 4.0, 40.0, 6.0, 60.0]);
    let y = run("conv_transpose", &[&x, &w], &[]);
    close(&y, &[1, 2, 4], &[1.0, 12.0, 23.0, 30.0, 2.0, 24.0, 46.0, 60.0]);
    let y = run("conv_transpose", &[&x, &w], &[("pads", ints(&[1, 1]))]);
    close(&y, &[1, 2, 2], &[12.0, 23.0, 24.0, 46.0]);
    // Two groups: channel 0 makes output 0, channel 1 makes output 1.
    let x = f32s(&[1, 2, 1], &[3.0, 5.0]);
    let y =
        run("conv_transpose", &[&x, &f32s(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0])], &[("group", Attr::Int(2))]);
    close(&y, &[1, 2, 2], &[3.0, 6.0, 15.0, 20.0]);
}

#[test]
fn matrix_products() {
    let (a, b) = (f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), f32s(&[2, 2], &[5.0, 6.0, 7.0, 8.0]));
    close(&run("matmul", &[&a, &b], &[]), &[2, 2], &[19.0, 22.0, 43.0, 50.0]);
    close(&run("matmul", &[&f32s(&[2], &[1.0, 2.0]), &b], &[]), &[2], &[19.0, 22.0]);
    close(&run("matmul", &[&a, &f32s(&[2], &[1.0, 2.0])], &[]), &[2], &[5.0, 11.0]);
    close(&run("matmul", &[&f32s(&[2], &[1.0, 2.0]), &f32s(&[2], &[3.0, 4.0])], &[]), &[], &[11.0]);
    let y = run("matmul", &[&ramp(&[2, 1, 1, 2]), &ramp(&[3, 2, 1])], &[]);
    close(&y, &[2, 3, 1, 1], &[1.0, 3.0, 5.0, 3.0, 13.0, 23.0]);
    let y = run("matmul", &[&f32s(&[2, 0], &[]), &f32s(&[0, 3], &[])], &[]);
    close(&y, &[2, 3], &[0.0; 6]);
    let at = f32s(&[2, 2], &[1.0, 3.0, 2.0, 4.0]);
    let bt = f32s(&[2, 2], &[5.0, 7.0, 6.0, 8.0]);
    let flags = [
        ("trans_a", Attr::Bool(true)),
        ("trans_b", Attr::Bool(true)),
        ("alpha", Attr::float(2.0)),
        ("beta", Attr::float(0.5)),
    ];
    close(&run("gemm", &[&at, &bt, &f32s(&[2], &[2.0, 4.0])], &flags), &[2, 2], &[39.0, 46.0, 87.0, 102.0]);
}

#[test]
fn elementwise_functions() {
    let x = f32s(&[5], &[-2.0, -0.5, 0.0, 0.5, 2.0]);
    let check = |op: &str, list: &[(&str, Attr)], y: [f32; 5]| close(&run(op, &[&x], list), &[5], &y);
    check("relu", &[], [0.0, 0.0, 0.0, 0.5, 2.0]);
    check("leaky_relu", &[("alpha", Attr::float(0.1))], [-0.2, -0.05, 0.0, 0.5, 2.0]);
    check("sigmoid", &[], [0.119_202_92, 0.377_540_67, 0.5, 0.622_459_33, 0.880_797_1]);
    check("tanh", &[], [-0.964_027_6, -0.462_117_16, 0.0, 0.462_117_16, 0.964_027_6]);
    check("hard_sigmoid", &[], [0.1, 0.4, 0.5, 0.6, 0.9]);
    check("hard_swish", &[], [-1.0 / 3.0, -0.208_333_33, 0.0, 0.291_666_66, 5.0 / 3.0]);
    check("elu", &[], [-0.864_664_7, -0.393_469_34, 0.0, 0.5, 2.0]);
    check("softplus", &[], [0.126_928_01, 0.474_077, std::f32::consts::LN_2, 0.974_077, 2.126_928]);
    check("gelu", &[], [-0.045_500_26, -0.154_268_77, 0.0, 0.345_731_22, 1.954_499_7]);
    check(
        "gelu",
        &[("approximate", Attr::str("tanh"))],
        [-0.045_402_3, -0.154_286, 0.0, 0.345_714, 1.954_597_7],
    );
    check("exp", &[], [0.135_335_28, 0.606_530_66, 1.0, 1.648_721_3, 7.389_056]);
    check("abs", &[], [2.0, 0.5, 0.0, 0.5, 2.0]);
    check("neg", &[], [2.0, 0.5, 0.0, -0.5, -2.0]);
    check("reciprocal", &[], [-0.5, -2.0, INF, 2.0, 0.5]);
    check("floor", &[], [-2.0, -1.0, 0.0, 0.0, 2.0]);
    check("ceil", &[], [-2.0, 0.0, 0.0, 1.0, 2.0]);
    check("round", &[], [-2.0, 0.0, 0.0, 0.0, 2.0]);
    check("erf", &[], [-0.995_322_3, -0.520_499_9, 0.0, 0.520_499_9, 0.995_322_3]);
    check("sign", &[], [-1.0, -1.0, 0.0, 1.0, 1.0]);
    check("sin", &[], [-0.909_297_4, -0.479_425_54, 0.0, 0.479_425_54, 0.909_297_4]);
    check("cos", &[], [-0.416_146_84, 0.877_582_55, 1.0, 0.877_582_55, -0.416_146_84]);
    check("log", &[], [NAN, NAN, f32::NEG_INFINITY, -std::f32::consts::LN_2, std::f32::consts::LN_2]);
    check("sqrt", &[], [NAN, NAN, 0.0, std::f32::consts::FRAC_1_SQRT_2, std::f32::consts::SQRT_2]);
    check("clip", &[("min", Attr::float(-1.0))], [-1.0, -0.5, 0.0, 0.5, 2.0]);
    check("clip", &[("min", Attr::float(1.0)), ("max", Attr::float(-1.0))], [-1.0; 5]);
    check("identity", &[], [-2.0, -0.5, 0.0, 0.5, 2.0]);
    check("dropout", &[], [-2.0, -0.5, 0.0, 0.5, 2.0]);
}

#[test]
fn functions_of_integers_stay_exact() {
    let x = Tensor::i64s([3], [i64::MIN, -3, i64::MAX]).unwrap();
    assert_eq!(run("relu", &[&x], &[]).as_i64(), Some(&[0, 0, i64::MAX][..]));
    assert_eq!(run("abs", &[&x], &[]).as_i64(), Some(&[i64::MIN, 3, i64::MAX][..]));
    assert_eq!(run("add", &[&x, &i64s(&[0, 1, 1])], &[]).as_i64(), Some(&[i64::MIN, -2, i64::MIN][..]));
    let u = Tensor::new(ElemType::U8, [3], Storage::U8(vec![0, 7, 200])).unwrap();
    let y = run("clip", &[&u], &[("min", Attr::float(1.5)), ("max", Attr::float(100.0))]);
    assert_eq!(y.storage(), &Storage::U8(vec![2, 7, 100]));
    assert_eq!(run("div", &[&i64s(&[7, -7]), &i64s(&[2, 2])], &[]).as_i64(), Some(&[3, -3][..]));
    let by_zero = try_run("div", &[&i64s(&[1]), &i64s(&[0])], &[]);
    assert!(matches!(by_zero, Err(ExecError::Op { .. })));
}

#[test]
fn arithmetic_broadcasts() {
    let (a, b) = (f32s(&[2, 1], &[1.0, 2.0]), f32s(&[3], &[10.0, 20.0, 40.0]));
    close(&run("add", &[&a, &b], &[]), &[2, 3], &[11.0, 21.0, 41.0, 12.0, 22.0, 42.0]);
    close(&run("sub", &[&a, &b], &[]), &[2, 3], &[-9.0, -19.0, -39.0, -8.0, -18.0, -38.0]);
    close(&run("mul", &[&a, &b], &[]), &[2, 3], &[10.0, 20.0, 40.0, 20.0, 40.0, 80.0]);
    close(&run("div", &[&b, &a], &[]), &[2, 3], &[10.0, 20.0, 40.0, 5.0, 10.0, 20.0]);
    close(&run("pow", &[&a, &i64s(&[2])], &[]), &[2, 1], &[1.0, 4.0]);
    close(&run("max", &[&a, &b, &Tensor::scalar(15.0)], &[]), &[2, 3], &[15.0, 20.0, 40.0, 15.0, 20.0, 40.0]);
    close(&run("min", &[&a, &b], &[]), &[2, 3], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    close(&run("sum", &[&f32s(&[1], &[1e8]), &f32s(&[1], &[1.0]), &f32s(&[1], &[-1e8])], &[]), &[1], &[1.0]);
    close(&run("mean", &[&a, &b], &[]), &[2, 3], &[5.5, 10.5, 20.5, 6.0, 11.0, 21.0]);
    close(
        &run("prelu", &[&f32s(&[2, 2], &[-1.0, 1.0, -2.0, -3.0]), &f32s(&[2], &[0.5, 0.1])], &[]),
        &[2, 2],
        &[-0.5, 1.0, -1.0, -0.3],
    );
    let empty = run("add", &[&f32s(&[0, 3], &[]), &f32s(&[3], &[1.0, 2.0, 3.0])], &[]);
    close(&empty, &[0, 3], &[]);
}

#[test]
fn nan_and_infinity_go_through() {
    let x = f32s(&[4], &[NAN, INF, -INF, -0.0]);
    close(&run("relu", &[&x], &[]), &[4], &[NAN, INF, 0.0, 0.0]);
    close(&run("add", &[&x, &f32s(&[1], &[INF])], &[]), &[4], &[NAN, INF, NAN, INF]);
    close(&run("max", &[&x, &f32s(&[1], &[1.0])], &[]), &[4], &[NAN, INF, 1.0, 1.0]);
    close(
        &run("clip", &[&x], &[("min", Attr::float(0.0)), ("max", Attr::float(6.0))]),
        &[4],
        &[NAN, 6.0, 0.0, 0.0],
    );
    close(&run("sign", &[&x], &[]), &[4], &[NAN, 1.0, -1.0, 0.0]);
    let pooled = run("max_pool", &[&f32s(&[1, 1, 2], &[NAN, 1.0])], &[("kernel_shape", ints(&[2]))]);
    close(&pooled, &[1, 1, 1], &[NAN]);
    close(&run("softmax", &[&f32s(&[2], &[-INF, 0.0])], &[]), &[2], &[0.0, 1.0]);
}

#[test]
fn pools() {
    let x = ramp(&[1, 1, 4, 4]);
    let k = ("kernel_shape", ints(&[2, 2]));
    let s = ("strides", ints(&[2, 2]));
    close(&run("max_pool", &[&x], &[k.clone(), s.clone()]), &[1, 1, 2, 2], &[5.0, 7.0, 13.0, 15.0]);
    close(&run("average_pool", &[&x], &[k.clone(), s.clone()]), &[1, 1, 2, 2], &[2.5, 4.5, 10.5, 12.5]);
    let padded = [k.clone(), s.clone(), ("pads", ints(&[1, 1, 1, 1]))];
    let y = run("average_pool", &[&x], &padded);
    close(&y, &[1, 1, 3, 3], &[0.0, 1.5, 3.0, 6.0, 7.5, 9.0, 12.0, 13.5, 15.0]);
    let mut with_pad = padded.to_vec();
    with_pad.push(("count_include_pad", Attr::Bool(true)));
    let y = run("average_pool", &[&x], &with_pad);
    close(&y, &[1, 1, 3, 3], &[0.0, 0.75, 0.75, 3.0, 7.5, 4.5, 3.0, 6.75, 3.75]);
    close(&run("global_average_pool", &[&ramp(&[1, 2, 2, 2])], &[]), &[1, 2, 1, 1], &[1.5, 5.5]);
    close(&run("global_max_pool", &[&ramp(&[1, 2, 2, 2])], &[]), &[1, 2, 1, 1], &[3.0, 7.0]);
    let i = Tensor::new(ElemType::I8, [1, 1, 3], Storage::I8(vec![-5, -7, -6])).unwrap();
    let y = run("max_pool", &[&i], &[("kernel_shape", ints(&[2])), ("pads", ints(&[1, 1]))]);
    assert_eq!(y.storage(), &Storage::I8(vec![-5, -5, -6, -6]));
}

#[test]
fn pools_in_ceil_mode_count_what_is_there() {
    let x = ramp(&[1, 1, 5]);
    let list = [("kernel_shape", ints(&[2])), ("strides", ints(&[2])), ("ceil_mode", Attr::Bool(true))];
    close(&run("average_pool", &[&x], &list), &[1, 1, 3], &[0.5, 2.5, 4.0]);
    let mut with_pad = list.to_vec();
    with_pad.push(("count_include_pad", Attr::Bool(true)));
    // What ceil_mode adds behind the stated padding is not counted.
    close(&run("average_pool", &[&x], &with_pad), &[1, 1, 3], &[0.5, 2.5, 4.0]);
}

#[test]
fn normalisations() {
    let x = f32s(&[1, 2, 2], &[1.0, 3.0, 5.0, 7.0]);
    let (scale, bias, mean, var) = (
        f32s(&[2], &[2.0, 1.0]),
        f32s(&[2], &[1.0, -1.0]),
        f32s(&[2], &[2.0, 5.0]),
        f32s(&[2], &[0.25, 4.0]),
    );
    let y = run("batch_norm", &[&x, &scale, &bias, &mean, &var], &[("epsilon", Attr::float(0.0))]);
    close(&y, &[1, 2, 2], &[-3.0, 5.0, -1.0, 0.0]);
    let y = run("layer_norm", &[&x, &scale, &bias], &[("epsilon", Attr::float(0.0))]);
    close(&y, &[1, 2, 2], &[-1.0, 0.0, -1.0, 0.0]);
    let y = run("softmax", &[&f32s(&[2, 2], &[0.0, 0.0, 0.0, 3f32.ln()])], &[]);
    close(&y, &[2, 2], &[0.5, 0.5, 0.25, 0.75]);
    let y = run("softmax", &[&f32s(&[2, 2], &[0.0, 0.0, 0.0, 3f32.ln()])], &[("axis", Attr::Int(0))]);
    close(&y, &[2, 2], &[0.5, 0.25, 0.5, 0.75]);
    let y = run(
        "softmax",
        &[&f32s(&[1, 2, 2], &[0.0; 4])],
        &[("axis", Attr::Int(1)), ("legacy", Attr::Bool(true))],
    );
    close(&y, &[1, 2, 2], &[0.25; 4]);
    let y = run("log_softmax", &[&f32s(&[1, 2], &[1000.0, 1000.0])], &[]);
    close(&y, &[1, 2], &[-std::f32::consts::LN_2; 2]);
}

#[test]
fn narrow_floats_are_rounded_when_stored() {
    let x = Tensor::from_f64s(ElemType::F16, [2], &[1.0, 2048.0]).unwrap();
    let one = Tensor::from_f64s(ElemType::F16, [1], &[1.0 / 2048.0]).unwrap();
    let y = run("add", &[&x, &one], &[]);
    assert_eq!((y.elem(), y.as_f32().unwrap()), (ElemType::F16, &[1.0, 2048.0][..]));
}

#[test]
fn misfits_are_errors_with_names() {
    let e = try_run("add", &[&f32s(&[1], &[1.0]), &f32s(&[1], &[1.0])], &[]);
    assert!(e.is_ok());
    let (a, b) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[3.0, 4.0]));
    let wide =
        try_run("range", &[&Tensor::scalar(0.0), &Tensor::scalar(f32::MAX), &Tensor::scalar(1.0)], &[]);
    let Err(ExecError::Op { op, error, .. }) = wide else { panic!("{wide:?}") };
    assert_eq!((op.as_str(), matches!(*error, OpError::TooLarge(_))), ("range", true));
    let out = try_run("gather", &[&a, &i64s(&[5])], &[]);
    let Err(ExecError::Op { error, .. }) = out else { panic!("{out:?}") };
    assert_eq!(*error, OpError::Index { index: 5, extent: 2 });
    assert!(try_run("mul", &[&a, &b], &[]).is_ok());
}
