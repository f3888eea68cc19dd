//! Properties of the observers through the public interface: order independence, size, stored form.

use gs_algos::observers::{AnyObserver, Histogram, MAX_BINS, Observer, ObserverError, ObserverKind};
use gs_algos::quant::{Grid, IntRange, Range};
use proptest::collection::vec;
use proptest::prelude::*;

const KINDS: [&str; 6] = ["minmax", "percentile", "entropy", "mse", "std", "ema"];

fn observer(kind: &str) -> AnyObserver {
    AnyObserver::new(kind.parse().expect("a known kind"))
}

fn observed(kind: &str, values: &[f32]) -> AnyObserver {
    let mut o = observer(kind);
    o.observe(values);
    o
}

fn grid(bits: u8, signed: bool, symmetric: bool) -> Grid {
    Grid { int: IntRange::new(bits, signed, false).expect("a valid width"), symmetric }
}

fn grids() -> Vec<Grid> {
    let all = [2, 4, 8, 16].map(|bits| {
        [(false, false), (true, false), (true, true), (false, true)].map(|(s, y)| grid(bits, s, y))
    });
    all.concat()
}

/// Floats where tensors live, with zeros of both signs, exact powers of two, and now and then any bits at all.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -4.0f32..4.0,
        2 => Just(0.0f32),
        1 => Just(-0.0f32),
        2 => (-140i32..128).prop_map(|e| 2f32.powi(e)),
        2 => (-8i32..8, any::<bool>()).prop_map(|(e, n)| if n { -(2f32.powi(e)) } else { 2f32.powi(e) }),
        1 => any::<f32>(),
    ]
}

/// Values, a shuffled copy, and where to cut the copy.
fn partition() -> impl Strategy<Value = (Vec<f32>, Vec<f32>, Vec<usize>)> {
    vec(value(), 0..200).prop_flat_map(|values| {
        let cuts = vec(0..=values.len(), 0..6);
        (Just(values.clone()), Just(values).prop_shuffle(), cuts)
    })
}

/// The histogram by its definition: the smallest power of two for which the bins fit, then one division each.
fn reference(values: &[f32]) -> Option<(f32, Vec<u64>, u64, Vec<u64>)> {
    let finite: Vec<f64> = values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
    let high = finite.iter().copied().fold(0.0, f64::max);
    let low = -finite.iter().copied().fold(0.0, f64::min);
    let bins = |x: f64, e: i32| (x * 2f64.powi(-e)).ceil() as usize;
    let exp = (-120..128).find(|&e| bins(high, e).saturating_add(bins(low, e)) <= MAX_BINS)?;
    let (mut negative, mut positive, mut zeros) = (vec![0; bins(low, exp)], vec![0; bins(high, exp)], 0);
    for x in &finite {
        match x.partial_cmp(&0.0)? {
            std::cmp::Ordering::Less => negative[bins(-x, exp) - 1] += 1,
            std::cmp::Ordering::Equal => zeros += 1,
            std::cmp::Ordering::Greater => positive[bins(*x, exp) - 1] += 1,
        }
    }
    (!finite.is_empty()).then(|| (2f32.powi(exp), negative, zeros, positive))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the order, the batches and the shards: the same state, bit for bit.
    #[test]
    fn state_depends_on_the_set_of_values_only((values, shuffled, mut cuts) in partition(), turn in any::<usize>()) {
        cuts.sort_unstable();
        cuts.push(shuffled.len());
        for kind in KINDS.iter().filter(|&&k| k != "ema") {
            let whole = observed(kind, &values);
            let mut shards = Vec::new();
            let mut batches = observer(kind);
            let mut from = 0;
            for &to in &cuts {
                batches.observe(&shuffled[from..to]);
                shards.push(observed(kind, &shuffled[from..to]));
                from = to;
            }
            prop_assert_eq!(&batches, &whole);
            // Merged from the left, starting anywhere, and as a tree.
            let turn = turn % shards.len();
            shards.rotate_left(turn);
            let mut chain = observer(kind);
            for s in &shards {
                chain.merge(s).expect("the same kind");
            }
            prop_assert_eq!(&chain, &whole);
            while shards.len() > 1 {
                let last = shards.pop().expect("not empty");
                let middle = shards.len() / 2;
                shards[middle].merge(&last).expect("the same kind");
            }
            prop_assert_eq!(&shards[0], &whole);
            // The same bytes, too, so that equality is not merely that of floats.
            let text = |o| serde_json::to_string(o).expect("plain data");
            prop_assert_eq!(text(&shards[0]), text(&whole));
            prop_assert_eq!(serde_json::from_str::<AnyObserver>(&text(&whole)).expect("just written"), whole);
        }
    }

    #[test]
    fn histogram_follows_its_definition(values in vec(value(), 0..300)) {
        let mut h = Histogram::default();
        h.observe(&values);
        match reference(&values) {
            None => prop_assert_eq!(h.extent(), None),
            Some((width, negative, zeros, positive)) => {
                prop_assert_eq!(h.bin_width(), width);
                prop_assert_eq!(h.negative().collect::<Vec<_>>(), negative);
                prop_assert_eq!(h.zeros(), zeros);
                prop_assert_eq!(h.positive().collect::<Vec<_>>(), positive);
            }
        }
    }

    /// No input panics, and every range lies within the values (with zero).
    #[test]
    fn ranges_are_sound(values in vec(value(), 0..200)) {
        for kind in KINDS {
            let o = observed(kind, &values);
            for g in grids() {
                match o.range(g) {
                    Ok(r) => {
                        let finite = values.iter().copied().filter(|x| x.is_finite());
                        let extent = finite.fold(Range::ZERO, |a, x| a.union(Range::new(x, x).expect("finite")));
                        prop_assert_eq!(extent.union(r), extent, "{} {:?}", kind, r);
                    }
                    Err(e) => prop_assert_eq!(e, ObserverError::Empty(o.seen())),
                }
            }
            prop_assert_eq!(o.seen().finite, values.iter().filter(|x| x.is_finite()).count() as u64);
            prop_assert_eq!(o.seen().nan, values.iter().filter(|x| x.is_nan()).count() as u64);
        }
    }
}

/// Long batches take another path through the code than short ones.
#[test]
fn long_and_short_batches_count_alike() {
    let mut state = 1u64;
    let values: Vec<f32> = (0..300_000)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let x = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.3;
            // Grows on the way, with zeros and a few values to be ignored.
            match i % 1000 {
                0..400 => 0.0,
                999 if i > 200_000 => f32::NAN,
                _ => x * (1 + i / 50_000) as f32,
            }
        })
        .collect();
    for kind in ["percentile", "minmax", "std"] {
        let whole = observed(kind, &values);
        let mut pieces = observer(kind);
        values.chunks(997).for_each(|batch| pieces.observe(batch));
        assert_eq!(whole, pieces, "{kind}");
        let mut shards = observer(kind);
        values.rchunks(20_011).for_each(|batch| shards.merge(&observed(kind, batch)).expect("the same kind"));
        assert_eq!(whole, shards, "{kind}");
        assert_eq!(whole.seen().nan, 100);
    }
    let o = observed("percentile", &values);
    let (width, negative, zeros, positive) = reference(&values).expect("not empty");
    let h = o.histogram().expect("percentiles have one");
    assert_eq!((h.bin_width(), h.zeros()), (width, zeros));
    assert_eq!(h.negative().collect::<Vec<_>>(), negative);
    assert_eq!(h.positive().collect::<Vec<_>>(), positive);
}

#[test]
fn state_is_small() {
    let values: Vec<f32> = (-100_000..100_000).map(|i| i as f32 * 1.7e-3).collect();
    let h = observed("mse", &values);
    let h = h.histogram().expect("a histogram");
    let bins = h.negative().len() + h.positive().len() + 1;
    assert!(bins > MAX_BINS / 2, "{bins} bins in use");
    assert!((MAX_BINS + 1) * 8 + size_of::<AnyObserver>() <= 16 * 1024);
    // Sums for each of 256 exponents.
    assert!(256 * 32 + size_of::<AnyObserver>() <= 16 * 1024);
}

#[test]
fn skewed_tensors_use_the_bins_on_both_sides() {
    // As after a swish: a short negative side must not cost half of the bins.
    let mut h = Histogram::default();
    h.observe(&[-0.278, 15.9]);
    assert_eq!(h.bin_width(), 2f32.powi(-6));
    h.observe(&[16.0]);
    assert_eq!(h.bin_width(), 2f32.powi(-6), "a power of two fits without growing");
}

#[test]
fn kinds_do_not_mix() {
    let mut a = observed("mse", &[1.0]);
    assert!(matches!(a.merge(&observed("entropy", &[1.0])), Err(ObserverError::KindMismatch { .. })));
    assert!(matches!(a.merge(&observed("mse{norm=3}", &[1.0])), Err(ObserverError::KindMismatch { .. })));
    let mut e = observed("ema", &[1.0]);
    assert!(matches!(e.merge(&e.clone()), Err(ObserverError::NotMergeable(ObserverKind::Ema { .. }))));
    for kind in KINDS {
        let result = observed(kind, &[f32::NAN, f32::INFINITY]).range(Grid::U8);
        assert!(matches!(result, Err(ObserverError::Empty(s)) if s.ignored() == 2), "{kind}");
    }
}

#[test]
fn forged_states_are_refused() {
    let good = serde_json::to_value(observed("mse", &[-1.0, 0.0, 0.5, 2.0])).expect("plain data");
    assert!(serde_json::from_value::<AnyObserver>(good.clone()).is_ok());
    let edits: [(&str, serde_json::Value); 6] = [
        ("bin_width_log2", 5.into()),
        ("negative_bins", 100_000.into()),
        ("counts", serde_json::json!([1, 2, 3])),
        ("extent", serde_json::Value::Null),
        ("extent", serde_json::json!({"min": 3.0, "max": -3.0})),
        ("seen", serde_json::json!({"finite": 5, "nan": 0, "infinite": 0})),
    ];
    for (key, value) in edits {
        let mut bad = good.clone();
        bad["state"]["histogram"][key] = value;
        assert!(serde_json::from_value::<AnyObserver>(bad).is_err(), "{key}");
    }
}
