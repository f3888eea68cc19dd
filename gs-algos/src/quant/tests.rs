//! Golden values (computed independently in numpy, checked against the ONNX runtime) and properties.

use super::*;
use proptest::prelude::*;

const U8: IntRange = IntRange::U8;

fn range(min: f32, max: f32) -> Range {
    Range::new(min, max).expect("a valid range")
}

fn int(bits: u8, signed: bool, narrow: bool) -> IntRange {
    IntRange::new(bits, signed, narrow).expect("a valid width")
}

fn close(found: f32, expected: f32, tolerance: f32) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

/// min, max, grid, scale, zero point, nudged range.
type Golden = (f32, f32, Grid, f32, i32, [f32; 2]);

#[test]
fn golden_scales_and_zero_points() {
    let asymmetric = |int| Grid { int, symmetric: false };
    let cases: [Golden; 5] = [
        (-1.0, 3.0, Grid::U8, 0.015686275, 64, [-1.003922, 2.996078]),
        (-1.0, 3.0, Grid::S8, 0.015686275, -64, [-1.003922, 2.996078]),
        (0.5, 3.0, Grid::U8, 0.011764706, 0, [0.0, 3.0]),
        // The zero point is 127.5 in exact arithmetic, and rounds to even.
        (-6.0, 6.0, Grid::U8, 0.047058824, 128, [-6.02353, 5.97647]),
        (-0.1, 0.3, asymmetric(int(4, false, false)), 0.026666667, 4, [-0.106667, 0.293333]),
    ];
    for (min, max, grid, scale, zero_point, nudged) in cases {
        let p = grid.params(range(min, max));
        assert_eq!((p.scale(), p.zero_point()), (scale, zero_point), "[{min}, {max}]");
        close(p.nudged().min(), nudged[0], 1e-6);
        close(p.nudged().max(), nudged[1], 1e-6);
    }
}

#[test]
fn golden_codes() {
    let p = Grid::U8.params(range(-1.0, 3.0));
    let s = p.scale();
    assert_eq!(p.quantize(&[0.5 * s, 1.5 * s, -1.2, 3.2, 2.0]), [64, 66, 0, 255, 191]);
    close(p.fake_quant_one(2.0), 1.992157, 1e-6);
}

#[test]
fn integer_ranges() {
    let ends = |b, s, n| (int(b, s, n).qmin(), int(b, s, n).qmax());
    assert_eq!(ends(8, true, false), (-128, 127));
    assert_eq!(ends(8, true, true), (-127, 127));
    assert_eq!(ends(8, false, false), (0, 255));
    assert_eq!(ends(8, false, true), (1, 255));
    assert_eq!(ends(2, true, true), (-1, 1));
    assert_eq!(ends(4, true, false), (-8, 7));
    assert_eq!(ends(16, false, false), (0, 65535));
    for bits in [0, 1, 17, 255] {
        assert_eq!(IntRange::new(bits, true, false), Err(QuantError::Bits { bits }));
    }
}

#[test]
fn symmetric_conventions() {
    let symmetric = |int| Grid { int, symmetric: true };
    let full = symmetric(IntRange::S8).params(range(-0.5, 1.0));
    assert_eq!((full.scale(), full.zero_point()), ((1.0 / 127.5) as f32, 0));
    assert_eq!(full.quantize(&[1.0, -1.01]), [127, -128]);
    close(full.fake_quant_one(1.0), 127.0 / 127.5, 1e-6);
    let narrow = Grid::S8_WEIGHT.params(range(-0.5, 1.0));
    assert_eq!((narrow.scale(), narrow.zero_point()), ((1.0 / 127.0) as f32, 0));
    assert_eq!(narrow.quantize(&[1.0, -1.0]), [127, -127]);
    let unsigned = symmetric(U8).params(range(-0.5, 1.0));
    assert_eq!((unsigned.scale(), unsigned.zero_point()), ((1.0 / 127.5) as f32, 128));
}

#[test]
fn degenerate_ranges_are_dead_channel_by_channel() {
    let ranges = [range(-1.0, 1.0), Range::ZERO, range(0.0, 1e-35), range(2.0, 2.0)];
    let p = ChannelParams::from_ranges(&ranges, Grid::S8_WEIGHT);
    assert_eq!(p.dead(), [false, true, true, false]);
    assert_eq!(p.scales()[1..3], [1.0, 1.0]);
    assert_eq!(p.zero_points(), [0; 4]);
    assert_eq!(Grid::U8.params(Range::ZERO), QuantParams::new(1.0, 0, U8).expect("valid"));
    // Zero must stay a code where zero itself is none.
    let narrow = Grid { int: int(8, false, true), symmetric: false };
    assert_eq!(narrow.params(Range::ZERO).zero_point(), 1);
}

#[test]
fn nan_and_infinity() {
    let p = Grid::U8.params(range(-1.0, 3.0));
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0];
    assert_eq!(p.quantize(&odd), [64, 255, 0, 255, 0, 64]);
    assert_eq!(p.fake_quant_one(f32::NAN), 0.0);
    assert_eq!(count_nan(&odd), 1);
    assert!(Range::new(0.0, f32::INFINITY).is_err());
    assert!(Range::new(f32::NAN, 0.0).is_err());
    assert!(Range::new(1.0, 0.0).is_err());
}

#[test]
fn parameters_from_outside_are_checked() {
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(QuantParams::new(scale, 0, U8), Err(QuantError::BadScale { .. })));
    }
    assert!(matches!(QuantParams::new(1.0, 256, U8), Err(QuantError::BadZeroPoint { qmax: 255, .. })));
    let text = r#"{"scale": 0.5, "zero_point": 300, "int": {"bits": 8, "signed": false}}"#;
    assert!(serde_json::from_str::<QuantParams>(text).is_err());
    assert!(serde_json::from_str::<IntRange>(r#"{"bits": 99, "signed": true}"#).is_err());
}

#[test]
fn channels_along_each_axis() {
    // Shape [2, 3, 2]: along axis 1 the channels are [0,1,6,7], [2,3,8,9], [4,5,10,11].
    let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let layout = ChannelLayout::new(&[2, 3, 2], 1).expect("the axis exists");
    let middle: Vec<f32> = layout.runs(&values, 1).flatten().copied().collect();
    assert_eq!(middle, [2.0, 3.0, 8.0, 9.0]);
    for (axis, channels) in [(0, 2), (1, 3), (2, 2)] {
        let scales: Vec<f32> = (0..channels).map(|c| 0.25 * (c + 1) as f32).collect();
        let p = ChannelParams::from_parts(&scales, &vec![0; channels], IntRange::S8).expect("valid");
        let codes = p.quantize(&values, &[2, 3, 2], axis).expect("lengths agree");
        let layout = ChannelLayout::new(&[2, 3, 2], axis).expect("the axis exists");
        for c in 0..channels {
            let found: Vec<i32> = layout.runs(&codes, c).flatten().copied().collect();
            let channel: Vec<f32> = layout.runs(&values, c).flatten().copied().collect();
            assert_eq!(found, p.params()[c].quantize(&channel), "axis {axis} channel {c}");
        }
        let fake = p.fake_quant(&values, &[2, 3, 2], axis).expect("lengths agree");
        assert_eq!(p.dequantize(&codes, &[2, 3, 2], axis).expect("lengths agree"), fake);
        assert!(p.quantize(&values[1..], &[2, 3, 2], axis).is_err());
    }
    assert_eq!(ChannelLayout::new(&[2], 1), Err(QuantError::BadAxis { axis: 1, rank: 1 }));
    assert!(ChannelLayout::new(&[2], 7).is_err());
    assert!(ChannelLayout::new(&[0, 4], 1).expect("the axis exists").check(0).is_ok());
}

fn weights(scales: &[f32]) -> ChannelParams {
    ChannelParams::from_parts(scales, &vec![0; scales.len()], IntRange::S8_NARROW).expect("valid scales")
}

/// The codes of one layer's bias and the parameters of its weight.
fn quantize_bias(
    values: &[f32],
    input_scale: f32,
    weights: &ChannelParams,
    acc_bound: u64,
) -> Result<(Vec<i32>, Fitted), QuantError> {
    let bias = Bias { values, input_scale, acc_bound };
    let fitted = fit_biases(&[bias], weights)?;
    Ok((bias.codes(&fitted.weights), fitted))
}

#[test]
fn bias_codes_and_the_overflow_guard() {
    let input = Grid::U8.params(range(0.0, 2.55));
    let w = weights(&[0.01, 1e-9, 0.5]);
    let bound = accumulator_bound(9 * 64, input, &w);
    assert_eq!(bound, 9 * 64 * 255 * 127);
    let bias = [0.25, -7.0, 1.0];
    let (codes, out) = quantize_bias(&bias, input.scale(), &w, bound).expect("fits");
    let raised: Vec<usize> = out.changed.iter().map(|c| c.channel).collect();
    assert_eq!(raised, [1], "only the tiny channel");
    assert_eq!(out.changed[0].reason, BiasChangeReason::Overflow);
    assert_eq!(out.weights.scales()[1], out.changed[0].to);
    assert!(out.changed[0].to > out.changed[0].from);
    for (c, (&code, &b)) in codes.iter().zip(&bias).enumerate() {
        assert!(u64::from(code.unsigned_abs()) + bound <= i32::MAX as u64, "channel {c}");
        let step = f64::from(input.scale()) * f64::from(out.weights.scales()[c]);
        assert!((f64::from(code) * step - f64::from(b)).abs() <= 0.51 * step, "channel {c}");
    }
}

#[test]
fn dead_channels_keep_a_precise_bias() {
    let w = ChannelParams::from_ranges(&[Range::ZERO, Range::ZERO, range(-1.0, 1.0)], Grid::S8_WEIGHT);
    let (codes, out) = quantize_bias(&[0.3, 0.0, 0.3], 0.02, &w, 1000).expect("fits");
    assert_eq!(out.changed.len(), 1);
    assert_eq!((out.changed[0].channel, out.changed[0].reason), (0, BiasChangeReason::Dead));
    let back = f64::from(codes[0]) * f64::from(0.02f32) * f64::from(out.weights.scales()[0]);
    assert!((back - f64::from(0.3f32)).abs() < 1e-7);
    assert_eq!(codes[1], 0);
}

/// A weight that serves several layers is given scales at which the bias of each fits, in whichever order they come.
#[test]
fn biases_of_a_shared_weight() {
    let live = Range::new(-1.0, 1.0).expect("valid");
    let w = ChannelParams::from_ranges(&[Range::ZERO, live, live], Grid::S8_WEIGHT);
    let biases = [[1e6, 0.2, -4000.0], [1e-3, 0.2, 1e-3], [0.0, 9000.0, 0.0]];
    let layers = [(0, 0.02), (1, 0.5), (2, 1e-4)].map(|(i, input_scale): (usize, f32)| Bias {
        values: &biases[i],
        input_scale,
        acc_bound: 1 << 24,
    });
    let [a, b, c] = layers;
    let orders = [[a, b, c], [b, a, c], [c, b, a]].map(|o| fit_biases(&o, &w).expect("fits"));
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
    let fitted = &orders[0];
    let reasons: Vec<(usize, BiasChangeReason)> =
        fitted.changed.iter().map(|c| (c.channel, c.reason)).collect();
    assert_eq!(reasons, [(0, BiasChangeReason::Dead), (1, BiasChangeReason::Overflow)]);
    for layer in layers {
        for (i, (code, value)) in layer.codes(&fitted.weights).into_iter().zip(layer.values).enumerate() {
            assert!(u64::from(code.unsigned_abs()) + layer.acc_bound <= i32::MAX as u64, "channel {i}");
            let step = f64::from(layer.input_scale) * f64::from(fitted.weights.scales()[i]);
            assert!((f64::from(code) * step - f64::from(*value)).abs() <= 0.5 * step, "channel {i}");
        }
    }
}

#[test]
fn bias_of_a_shared_scale() {
    let (codes, out) =
        quantize_bias(&[1.0, -900.0, 3.0], 0.01, &weights(&[1e-5]), 100_000_000).expect("fits");
    assert_eq!(out.weights.len(), 1);
    assert_eq!(out.changed.len(), 1);
    assert_eq!(codes.len(), 3);
    // The largest bias uses all of the room, but for the rounding of the scale to a float.
    let room = i64::from(i32::MAX) - 100_000_000;
    assert!((room - room / 4_000_000..=room).contains(&-i64::from(codes[1])));
}

#[test]
fn bias_errors() {
    let w = weights(&[0.1, 0.1]);
    assert!(matches!(quantize_bias(&[1.0], 0.1, &w, 0), Err(QuantError::Length { .. })));
    assert!(matches!(
        quantize_bias(&[1.0, f32::NAN], 0.1, &w, 0),
        Err(QuantError::NonFinite { index: 1, .. })
    ));
    assert!(matches!(quantize_bias(&[1.0, 1.0], 0.0, &w, 0), Err(QuantError::BadScale { .. })));
    let full = i32::MAX as u64;
    assert!(matches!(quantize_bias(&[0.0, 0.0], 0.1, &w, full), Err(QuantError::AccumulatorOverflow { .. })));
    assert!(matches!(quantize_bias(&[f32::MAX, 0.0], 1e-30, &w, 0), Err(QuantError::BadScale { .. })));
}

fn any_grid() -> impl Strategy<Value = Grid> {
    (2u8..=16, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(b, s, n, symmetric)| Grid { int: int(b, s, n), symmetric })
}

fn any_finite() -> impl Strategy<Value = f32> {
    prop_oneof![-10.0f32..10.0, any::<f32>().prop_filter("finite", |x| x.is_finite())]
}

proptest! {
    #[test]
    fn params_are_always_valid((a, b) in (any_finite(), any_finite()), grid in any_grid()) {
        let p = grid.params(Range::spanning(a, b));
        prop_assert!(QuantParams::new(p.scale(), p.zero_point(), p.int()).is_ok());
        // Zero is exact.
        prop_assert_eq!(p.quantize_one(0.0), p.zero_point());
        prop_assert_eq!(p.fake_quant_one(0.0), 0.0);
    }

    /// The fast rounding equals the plain formula for every float, and values of the grid stay put.
    #[test]
    fn codes_follow_the_formula(
        (a, b) in (any_finite(), any_finite()),
        grid in any_grid(),
        values in proptest::collection::vec(any::<f32>(), 0..40),
    ) {
        let p = grid.params(Range::spanning(a, b));
        let (qmin, qmax) = (f64::from(p.int().qmin()), f64::from(p.int().qmax()));
        for (&x, q) in values.iter().zip(p.quantize(&values)) {
            let rounded = f64::from((x / p.scale()).round_ties_even()) + f64::from(p.zero_point());
            let expected = if x.is_nan() { f64::from(p.zero_point()) } else { rounded.clamp(qmin, qmax) };
            prop_assert_eq!(f64::from(q), expected);
            let value = p.dequantize_one(q);
            prop_assert_eq!(p.fake_quant_one(x).to_bits(), value.to_bits());
            if value.is_finite() && value / p.scale() == (q - p.zero_point()) as f32 {
                prop_assert_eq!(p.quantize_one(value), q);
            }
        }
    }

    /// Inside the nudged range the error is at most half a step.
    #[test]
    fn error_is_half_a_step((a, b, t) in (-9.0f32..9.0, -9.0f32..9.0, 0.0f32..1.0), grid in any_grid()) {
        let p = grid.params(Range::spanning(a, b));
        let n = p.nudged();
        let x = (n.min() + t * (n.max() - n.min())).clamp(n.min(), n.max());
        prop_assert!((x - p.fake_quant_one(x)).abs() <= 0.5 * p.scale() * (1.0 + 1e-2));
    }

    #[test]
    fn guarded_biases_fit(
        pairs in proptest::collection::vec((any_finite(), 1e-12f32..1.0), 1..8),
        sx in 1e-6f32..10.0,
        bound in 0u64..2_000_000_000,
    ) {
        let (bias, scales): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        if let Ok((codes, out)) = quantize_bias(&bias, sx, &weights(&scales), bound) {
            for q in codes {
                prop_assert!(u64::from(q.unsigned_abs()) + bound <= i32::MAX as u64);
            }
            for c in &out.changed {
                prop_assert!(c.to > c.from);
            }
        }
    }
}
