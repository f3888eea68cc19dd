//! Operators that move, select and convert, against values computed by hand.

use crate::common::{close, f32s, i64s, ints, ramp, run, try_run, try_with};
use gs_eval::{Evaluator, Storage, Tensor};
use gs_ir::{Attr, ElemType, Literal};
use std::sync::Arc;

#[test]
fn axes_are_renamed_and_reordered() {
    let x = ramp(&[2, 3]);
    close(&run("transpose", &[&x], &[]), &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let y = run("transpose", &[&ramp(&[1, 2, 3])], &[("perm", ints(&[1, 0, 2]))]);
    close(&y, &[2, 1, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let flat = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    close(&run("reshape", &[&x], &[("shape", ints(&[3, -1]))]), &[3, 2], &flat);
    close(&run("reshape", &[&x], &[("shape", ints(&[0, 1, 3]))]), &[2, 1, 3], &flat);
    let e = f32s(&[0, 3], &[]);
    let y = run("reshape", &[&e], &[("shape", ints(&[3, 0])), ("allow_zero", Attr::Bool(true))]);
    close(&y, &[3, 0], &[]);
    close(&run("reshape_to", &[&x, &i64s(&[6])], &[]), &[6], &flat);
    close(&run("flatten", &[&ramp(&[2, 1, 3])], &[]), &[2, 3], &flat);
    close(&run("flatten", &[&ramp(&[2, 3])], &[("axis", Attr::Int(0))]), &[1, 6], &flat);
    close(&run("flatten", &[&ramp(&[2, 3])], &[("axis", Attr::Int(2))]), &[6, 1], &flat);
    close(&run("squeeze", &[&ramp(&[1, 2, 1, 3])], &[]), &[2, 3], &flat);
    close(&run("squeeze", &[&ramp(&[1, 2, 1, 3])], &[("axes", ints(&[-2]))]), &[1, 2, 3], &flat);
    close(&run("unsqueeze", &[&x], &[("axes", ints(&[0, -1]))]), &[1, 2, 3, 1], &flat);
    close(
        &run("expand", &[&f32s(&[2, 1], &[1.0, 2.0]), &i64s(&[3])], &[]),
        &[2, 3],
        &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
    );
    assert_eq!(run("shape", &[&x], &[]).as_i64(), Some(&[2, 3][..]));
    assert_eq!(run("shape", &[&x], &[("start", Attr::Int(-1))]).as_i64(), Some(&[3][..]));
    assert_eq!(run("size", &[&x], &[]).as_i64(), Some(&[6][..]));
}

#[test]
fn tensors_are_cut_and_joined() {
    let x = ramp(&[3, 4]);
    let y = run(
        "slice",
        &[&x],
        &[("starts", ints(&[1, -1])), ("ends", ints(&[9, 0])), ("steps", ints(&[1, -2]))],
    );
    close(&y, &[2, 2], &[7.0, 5.0, 11.0, 9.0]);
    let y = run("slice", &[&x], &[("starts", ints(&[2])), ("ends", ints(&[2])), ("axes", ints(&[1]))]);
    close(&y, &[3, 0], &[]);
    let y = run("concat", &[&ramp(&[2, 1]), &ramp(&[2, 2])], &[("axis", Attr::Int(1))]);
    close(&y, &[2, 3], &[0.0, 0.0, 1.0, 1.0, 2.0, 3.0]);
    let y = run("concat", &[&ramp(&[1, 2]), &f32s(&[0, 2], &[]), &ramp(&[1, 2])], &[("axis", Attr::Int(-2))]);
    close(&y, &[2, 2], &[0.0, 1.0, 0.0, 1.0]);
    let evaluator = Evaluator::new();
    let parts = |list: &[(&str, Attr)], n| try_with(&evaluator, "split", &[Some(&x)], list, n).unwrap();
    let y = parts(&[("axis", Attr::Int(1)), ("split", ints(&[1, 3]))], 2);
    close(&y[0], &[3, 1], &[0.0, 4.0, 8.0]);
    close(&y[1], &[3, 3], &[1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 9.0, 10.0, 11.0]);
    let y = parts(&[], 3);
    close(&y[2], &[1, 4], &[8.0, 9.0, 10.0, 11.0]);
    close(
        &run("tile", &[&ramp(&[1, 2])], &[("repeats", ints(&[2, 2]))]),
        &[2, 4],
        &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0],
    );
    close(&run("tile", &[&ramp(&[1, 2])], &[("repeats", ints(&[0, 2]))]), &[0, 4], &[]);
}

#[test]
fn padding() {
    let x = ramp(&[1, 3]);
    let p = ("pads", ints(&[1, 2, 0, 1]));
    let y = run("pad", &[&x], &[p.clone(), ("value", Attr::float(9.0))]);
    close(&y, &[2, 6], &[9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0, 1.0, 2.0, 9.0]);
    let p = ("pads", ints(&[0, 2, 0, 1]));
    let y = run("pad", &[&x], &[p.clone(), ("mode", Attr::str("reflect"))]);
    close(&y, &[1, 6], &[2.0, 1.0, 0.0, 1.0, 2.0, 1.0]);
    close(&run("pad", &[&x], &[p, ("mode", Attr::str("edge"))]), &[1, 6], &[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
    close(&run("pad", &[&x], &[("pads", ints(&[0, -1, 0, 0]))]), &[1, 2], &[1.0, 2.0]);
    let u = Tensor::new(ElemType::U8, [1], Storage::U8(vec![7])).unwrap();
    let y = run("pad", &[&u], &[("pads", ints(&[1, 1])), ("value", Attr::float(128.0))]);
    assert_eq!(y.storage(), &Storage::U8(vec![128, 7, 128]));
}

#[test]
fn selection() {
    let x = ramp(&[3, 2]);
    close(&run("gather", &[&x, &i64s(&[2, -3])], &[]), &[2, 2], &[4.0, 5.0, 0.0, 1.0]);
    let one = Tensor::i64s([], [1]).unwrap();
    close(&run("gather", &[&x, &one], &[("axis", Attr::Int(1))]), &[3], &[1.0, 3.0, 5.0]);
    let at = Tensor::i64s([1, 2], [2, 0]).unwrap();
    close(&run("gather_elements", &[&x, &at], &[]), &[1, 2], &[4.0, 1.0]);
    let cond = Tensor::new(ElemType::Bool, [2, 1], Storage::Bool(vec![true, false])).unwrap();
    let y = run("where", &[&cond, &f32s(&[2], &[1.0, 2.0]), &Tensor::scalar(0.0)], &[]);
    close(&y, &[2, 2], &[1.0, 2.0, 0.0, 0.0]);
}

#[test]
fn comparisons_and_logic() {
    let (a, b) = (f32s(&[3], &[1.0, 2.0, f32::NAN]), f32s(&[3], &[1.0, 3.0, f32::NAN]));
    let bools = |op: &str, a: &Tensor, b: &Tensor| match run(op, &[a, b], &[]).storage() {
        Storage::Bool(v) => v.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(bools("equal", &a, &b), [true, false, false]);
    assert_eq!(bools("less", &a, &b), [false, true, false]);
    assert_eq!(bools("greater", &b, &a), [false, true, false]);
    let big = i64s(&[i64::MAX]);
    assert_eq!(bools("less", &i64s(&[i64::MAX - 1]), &big), [true]);
    let t = Tensor::new(ElemType::Bool, [2], Storage::Bool(vec![true, false])).unwrap();
    let f = Tensor::new(ElemType::Bool, [2], Storage::Bool(vec![true, true])).unwrap();
    assert_eq!(bools("and", &t, &f), [true, false]);
    assert_eq!(bools("or", &t, &f), [true, true]);
    assert_eq!(run("not", &[&t], &[]).storage(), &Storage::Bool(vec![false, true]));
}

#[test]
fn tensors_are_made_and_converted() {
    let value = Attr::Tensor(Arc::new(Literal::i64s([1], &[7])));
    let y = run("constant_of_shape", &[&i64s(&[2, 2])], &[("value", value)]);
    assert_eq!((y.dims(), y.as_i64()), (&[2, 2][..], Some(&[7, 7, 7, 7][..])));
    close(&run("constant_of_shape", &[&i64s(&[2])], &[]), &[2], &[0.0, 0.0]);
    assert!(try_run("constant_of_shape", &[&i64s(&[-1])], &[]).is_err());
    assert!(try_run("constant_of_shape", &[&i64s(&[1 << 40])], &[]).is_err());
    let value = Attr::Tensor(Arc::new(Literal::f32(2.5)));
    close(&run("constant", &[], &[("value", value)]), &[], &[2.5]);
    let s = |v: i64| Tensor::i64s([], [v]).unwrap();
    assert_eq!(run("range", &[&s(5), &s(0), &s(-2)], &[]).as_i64(), Some(&[5, 3, 1][..]));
    let y = run("cast", &[&f32s(&[2], &[1.9, -1.9])], &[("to", Attr::Elem(ElemType::I64))]);
    assert_eq!(y.as_i64(), Some(&[1, -1][..]));
    let y = run("cast", &[&f32s(&[2], &[0.0, 0.5])], &[("to", Attr::Elem(ElemType::Bool))]);
    assert_eq!(y.storage(), &Storage::Bool(vec![false, true]));
}

#[test]
fn reductions() {
    let x = ramp(&[2, 3]);
    close(&run("reduce_mean", &[&x], &[("axes", ints(&[1]))]), &[2, 1], &[1.0, 4.0]);
    close(
        &run("reduce_sum", &[&x], &[("axes", ints(&[-2])), ("keepdims", Attr::Bool(false))]),
        &[3],
        &[3.0, 5.0, 7.0],
    );
    close(&run("reduce_max", &[&x], &[]), &[1, 1], &[5.0]);
    close(&run("reduce_min", &[&x], &[("keepdims", Attr::Bool(false))]), &[], &[0.0]);
    let y = run("reduce_sum", &[&x], &[("noop_with_empty_axes", Attr::Bool(true))]);
    close(&y, &[2, 3], x.as_f32().unwrap());
    let y = run("reduce_sum", &[&f32s(&[2, 0], &[])], &[("axes", ints(&[1]))]);
    close(&y, &[2, 1], &[0.0, 0.0]);
    assert_eq!(run("reduce_sum", &[&i64s(&[i64::MAX, 1])], &[]).as_i64(), Some(&[i64::MIN][..]));
}
