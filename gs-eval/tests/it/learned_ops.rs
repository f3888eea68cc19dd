//! Learned quantisers against values computed by hand, and against the frozen quantiser that they become.

use crate::common::{close, codes, f32s, run, try_with};
use gs_eval::{Evaluator, Precision, Tensor};
use gs_ir::{Attr, ElemType};

type Attrs<'a> = &'a [(&'a str, Attr)];

fn bits(n: i64) -> (&'static str, Attr) {
    ("bits", Attr::Int(n))
}

/// Both gradients.
fn gradients(op: &str, operands: &[&Tensor], attrs: Attrs<'_>) -> [Tensor; 2] {
    let operands: Vec<Option<&Tensor>> = operands.iter().map(|t| Some(*t)).collect();
    let found = try_with(&Evaluator::new(), op, &operands, attrs, 2).unwrap();
    found.try_into().unwrap()
}

/// Codes of a signed type with the limits of a quantiser, as `qdq` has them.
fn frozen(x: &Tensor, scale: &Tensor, limits: (i64, i64), axis: Option<i64>) -> Tensor {
    let zeros = codes(ElemType::I16, scale.dims(), &vec![0; scale.len()]);
    let mut attrs = vec![("qmin", Attr::Int(limits.0)), ("qmax", Attr::Int(limits.1))];
    attrs.extend(axis.map(|a| ("axis", Attr::Int(a))));
    run("qdq", &[x, scale, &zeros], &attrs)
}

/// Numbers that hit codes, ties and both sides of the limits.
fn spread_out(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.618_034).fract() * 6.0 - 3.0).collect()
}

#[test]
fn steps_are_learned_as_in_the_paper() {
    let x = f32s(&[5], &[-3.0, -0.3, 0.2, 0.5, 5.0]);
    let s = Tensor::scalar(0.5);
    close(&run("lsq", &[&x, &s], &[bits(3)]), &[5], &[-2.0, -0.5, 0.0, 0.5, 1.5]);
    let dy = f32s(&[5], &[1.0; 5]);
    let [dx, ds] = gradients("lsq_grad", &[&dy, &x, &s], &[bits(3)]);
    close(&dx, &[5], &[0.0, 1.0, 1.0, 1.0, 0.0]);
    close(&ds, &[], &[-0.464_758]);
    let [_, ds] = gradients("lsq_grad", &[&dy, &x, &s], &[bits(3), ("grad_scale", Attr::Bool(false))]);
    close(&ds, &[], &[-1.8]);
    // Both limits let the gradient through.
    let x = f32s(&[4], &[-2.0, -2.000_000_5, 1.5, 1.500_000_2]);
    let [dx, _] = gradients("lsq_grad", &[&f32s(&[4], &[1.0, 2.0, 3.0, 4.0]), &x, &s], &[bits(3)]);
    close(&dx, &[4], &[1.0, 0.0, 3.0, 0.0]);
}

#[test]
fn steps_lie_along_an_axis_and_count_what_is_under_them() {
    let x = f32s(&[2, 3], &[0.2, 0.9, -9.0, 0.2, 0.9, -9.0]);
    let s = f32s(&[2], &[0.5, 1.0]);
    let axis = ("axis", Attr::Int(0));
    let y = run("lsq", &[&x, &s], &[bits(2), axis.clone()]);
    close(&y, &[2, 3], &[0.0, 0.5, -1.0, 0.0, 1.0, -2.0]);
    let dy = f32s(&[2, 3], &[1.0; 6]);
    // r = -0.4, 1, -2 and -0.2, 0.1, -2; three elements under a step, the highest code is 1.
    let [_, ds] = gradients("lsq_grad", &[&dy, &x, &s], &[bits(2), axis]);
    close(&ds, &[2], &[-1.4 / 3f32.sqrt(), -2.1 / 3f32.sqrt()]);
    // Of activations the elements of one sample count; codes without a sign go to 3.
    let attrs = [bits(2), ("signed", Attr::Bool(false)), ("samples", Attr::Bool(true))];
    let [dx, ds] = gradients("lsq_grad", &[&dy, &x, &Tensor::scalar(0.5)], &attrs);
    close(&dx, &[2, 3], &[1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    close(&ds, &[], &[2.0 * (-0.4 + 0.2) / 9f32.sqrt()]);
}

#[test]
fn learned_grids_are_those_of_frozen_quantisers() {
    let x = f32s(&[4, 25], &spread_out(100));
    let s = f32s(&[4], &[0.37, 0.1, 0.011, 1.5]);
    for (bits, signed, limits) in
        [(4, true, (-8, 7)), (2, true, (-2, 1)), (8, false, (0, 255)), (3, false, (0, 7))]
    {
        let attrs = [("bits", Attr::Int(bits)), ("signed", Attr::Bool(signed)), ("axis", Attr::Int(0))];
        assert!(run("lsq", &[&x, &s], &attrs).same_bits(&frozen(&x, &s, limits, Some(0))), "{bits} {signed}");
    }
    for (bits, signed, limits) in [(4, false, (0, 15)), (4, true, (-7, 7)), (1, false, (0, 1))] {
        let alpha = 1.3f32;
        let attrs = [("bits", Attr::Int(bits)), ("signed", Attr::Bool(signed))];
        let step = Tensor::scalar(alpha / limits.1 as f32);
        let y = run("pact", &[&x, &Tensor::scalar(alpha)], &attrs);
        assert!(y.same_bits(&frozen(&x, &step, limits, None)), "{bits} {signed}");
    }
}

#[test]
fn levels_lie_on_the_odd_grid() {
    let w = f32s(&[2, 50], &spread_out(100));
    let logits = f32s(&[2, 5, 16], &spread_out(160));
    let scale = f32s(&[2], &[0.3, 0.77]);
    let axis = ("axis", Attr::Int(0));
    let cases = [("dorefa", &w, 3), ("dorefa", &w, 1), ("dorefa", &w, 8), ("slb", &logits, 4)];
    for (op, x, n) in cases {
        let y = run(op, &[x, &scale], &[bits(n), axis.clone()]);
        let top = ((1 << n) - 1) as f32;
        let step = f32s(&[2], &[0.3 / top, 0.77 / top]);
        let zeros = codes(ElemType::I16, &[2], &[0, 0]);
        let attrs = [bits(n), axis.clone(), ("levels", Attr::str("odd"))];
        assert!(y.same_bits(&run("qdq", &[&y, &step, &zeros], &attrs)), "{op} {n}");
    }
}

#[test]
fn clips_learn_from_what_they_cut_off() {
    let x = f32s(&[1, 5], &[-0.5, 0.0, 0.9, 2.0, 7.0]);
    let alpha = Tensor::scalar(2.0);
    close(&run("pact", &[&x, &alpha], &[bits(2)]), &[1, 5], &[0.0, 0.0, 2.0 / 3.0, 2.0, 2.0]);
    let dy = f32s(&[1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    let [dx, da] = gradients("pact_grad", &[&dy, &x, &alpha], &[bits(2), ("grad_scale", Attr::Bool(false))]);
    close(&dx, &[1, 5], &[0.0, 2.0, 3.0, 0.0, 0.0]);
    close(&da, &[], &[9.0]);
    let [_, da] = gradients("pact_grad", &[&dy, &x, &alpha], &[bits(2)]);
    close(&da, &[], &[9.0 / 15f32.sqrt()]);
    let x = f32s(&[1, 4], &[-3.0, -1.9, 1.9, 3.0]);
    let attrs = [bits(3), ("signed", Attr::Bool(true)), ("grad_scale", Attr::Bool(false))];
    let [dx, da] = gradients("pact_grad", &[&f32s(&[1, 4], &[1.0, 2.0, 3.0, 4.0]), &x, &alpha], &attrs);
    close(&dx, &[1, 4], &[0.0, 2.0, 3.0, 0.0]);
    close(&da, &[], &[3.0]);
}

#[test]
fn weights_are_squeezed_as_in_the_paper() {
    let w = f32s(&[4], &[-1.5, -0.2, 0.1, 0.9]);
    let one = Tensor::scalar(1.0);
    close(&run("dorefa", &[&w, &one], &[bits(2)]), &[4], &[-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0]);
    let dy = f32s(&[4], &[1.0; 4]);
    let [dw, ds] = gradients("dorefa_grad", &[&dy, &w, &one], &[bits(2)]);
    close(&dw, &[4], &[0.199_643, 1.061_752, 1.093_817, 0.537_942]);
    close(&ds, &[], &[0.0]);
    // One bit: the sign, 0 counting as positive, times a scale that is E|W| in the paper.
    let w = f32s(&[5], &[-1.5, -0.2, 0.1, 0.9, 0.0]);
    let scale = Tensor::scalar(0.675);
    close(&run("dorefa", &[&w, &scale], &[bits(1)]), &[5], &[-0.675, -0.675, 0.675, 0.675, 0.675]);
    let [dw, ds] = gradients("dorefa_grad", &[&f32s(&[5], &[1.0; 5]), &w, &scale], &[bits(1)]);
    close(&dw, &[5], &[0.0, 0.675, 0.675, 0.675, 0.675]);
    close(&ds, &[], &[1.0]);
    // Weights that are all zero have no maximum.
    let zeros = f32s(&[2], &[0.0, 0.0]);
    let [dw, _] = gradients("dorefa_grad", &[&f32s(&[2], &[1.0; 2]), &zeros, &one], &[bits(2)]);
    close(&dw, &[2], &[0.0, 0.0]);
}

#[test]
fn logits_choose_levels_softly_then_hard() {
    let a = f32s(&[1, 4], &[0.1, 0.4, 0.3, -0.2]);
    let (one, tau) = (Tensor::scalar(1.0), Tensor::scalar(2.0));
    let truth = |t: i128| codes(ElemType::Bool, &[], &[t]);
    let (soft, hard) = (truth(0), truth(1));
    close(&run("slb_train", &[&a, &one, &tau, &soft], &[]), &[1], &[-0.115_426]);
    close(&run("slb_train", &[&a, &one, &tau, &hard], &[]), &[1], &[-1.0 / 3.0]);
    close(&run("slb", &[&a, &one], &[]), &[1], &[-1.0 / 3.0]);
    let dy = f32s(&[1], &[1.0]);
    let expected = [-0.363_816, -0.163_304, 0.275_346, 0.251_774];
    let [da, dc] = gradients("slb_grad", &[&dy, &a, &one, &tau, &soft], &[]);
    close(&da, &[1, 4], &expected);
    close(&dc, &[], &[-0.115_426]);
    // In the hard phase the same derivative goes straight through, or none.
    let [da, dc] = gradients("slb_grad", &[&dy, &a, &one, &tau, &hard], &[]);
    close(&da, &[1, 4], &expected);
    close(&dc, &[], &[-1.0 / 3.0]);
    let frozen = [("hard_phase", Attr::str("frozen"))];
    close(&gradients("slb_grad", &[&dy, &a, &one, &tau, &hard], &frozen)[0], &[1, 4], &[0.0; 4]);
    close(&gradients("slb_grad", &[&dy, &a, &one, &tau, &soft], &frozen)[0], &[1, 4], &expected);
    // The first of equal logits; a temperature without bound.
    let a = f32s(&[1, 2], &[0.5, 0.5]);
    close(&run("slb", &[&a, &Tensor::scalar(3.0)], &[bits(1)]), &[1], &[-3.0]);
    let a = f32s(&[1, 2], &[0.5, 0.75]);
    close(&run("slb_train", &[&a, &one, &Tensor::scalar(1e30), &soft], &[bits(1)]), &[1], &[1.0]);
}

#[test]
fn a_temperature_rises_by_the_same_factor_at_each_step() {
    let attrs = [
        ("kind", Attr::str("geometric")),
        ("base", Attr::float(1.0)),
        ("end", Attr::float(100.0)),
        ("steps", Attr::Int(100)),
        ("from", Attr::float(0.2)),
        ("until", Attr::float(0.6)),
    ];
    let at = |step: i64| {
        let step = Tensor::i64s([], [step]).unwrap();
        run("schedule", &[&step], &attrs).as_f32().unwrap()[0]
    };
    let found = [0, 20, 30, 40, 50, 60, 99].map(at);
    let expected = [1.0, 1.0, 100f32.powf(0.25), 10.0, 100f32.powf(0.75), 100.0, 100.0];
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 1e-4 * e, "{found:?}");
    }
}

#[test]
fn hostile_numbers_panic_nowhere() {
    let odd = f32s(&[1, 4], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38]);
    let evaluator = Evaluator::new().with_precision(Precision::F64);
    let truth = codes(ElemType::Bool, &[], &[0]);
    for parameter in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE] {
        let p = Tensor::scalar(parameter);
        for op in ["lsq", "pact", "dorefa", "slb"] {
            try_with(&evaluator, op, &[Some(&odd), Some(&p)], &[bits(2)], 1).unwrap();
        }
        for op in ["lsq_grad", "pact_grad", "dorefa_grad"] {
            try_with(&evaluator, op, &[Some(&odd), Some(&odd), Some(&p)], &[bits(2)], 2).unwrap();
        }
        let operands = [Some(&odd), Some(&p), Some(&p), Some(&truth)];
        try_with(&evaluator, "slb_train", &operands, &[bits(2)], 1).unwrap();
    }
}
