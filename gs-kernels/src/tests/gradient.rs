//! Gradients of convolutions, and the passes of batch normalisation, against plain sums.

use super::conv::{each_term, layouts, random_shape};
use super::*;

fn close(got: f32, (want, size): (f64, f64), what: &str) {
    let error = (f64::from(got) - want).abs();
    assert!(error <= 1e-5 * size + 1e-6, "{what}: {got} for {want} (terms sum to {size})");
}

fn at_least(a: Halo, b: Halo) -> Halo {
    Halo {
        top: a.top.max(b.top),
        left: a.left.max(b.left),
        bottom: a.bottom.max(b.bottom),
        right: a.right.max(b.right),
    }
}

#[test]
fn gradients_of_convolutions_are_the_sums_of_their_terms() {
    for seed in 0..400 {
        let rng = &mut Rng::new(seed);
        let shape = random_shape(rng);
        let halos = ConvHalos {
            x: if rng.chance(2) { Halo::NONE } else { rng.halo(3) },
            y: at_least(rng.halo(1), ConvInputGrad::halo(&shape)),
            residual: None,
        };
        let (lx, ly) = layouts(&shape, &halos);
        let x = rng.floats(shape.h * shape.w * shape.c_in);
        let dy = rng.floats(ly.h * ly.w * ly.c);
        let w = rng.floats(shape.weight_len());
        let mut dx = vec![(0f64, 0f64); x.len()];
        let mut dw = vec![(0f64, 0f64); w.len()];
        let add = |to: &mut (f64, f64), a: f32, b: f32| {
            let p = f64::from(a) * f64::from(b);
            to.0 += p;
            to.1 += p.abs();
        };
        each_term(&shape, |o, i, k| {
            add(&mut dx[i], w[k], dy[o]);
            add(&mut dw[k], x[i], dy[o]);
        });
        let (from_x, from_dy) = (surrounded(&lx, &x, 0.0), surrounded(&ly, &dy, 0.0));
        for kernels in Kernels::all() {
            let name = format!("seed {seed}, {}, {shape:?}", kernels.isa().name());
            let mut plan = ConvInputGrad::new(kernels, &shape, halos.y, halos.x).unwrap();
            plan.set_weights(&w).unwrap();
            let mut got = vec![f32::NAN; lx.len()];
            plan.run(&from_dy, &mut got).unwrap();
            for (&g, &want) in inside(&lx, &got).iter().zip(&dx) {
                close(g, want, &name);
            }
            if shape.is_depthwise() {
                depthwise(kernels, &shape, &halos, (&from_x, &from_dy, &w), (&dx, &dw));
            }
            let plan = ConvWeightGrad::new(kernels, &shape, &halos).unwrap();
            // Two chunks, the second of two equal images.
            let mut sums = vec![0.0; 2 * plan.sums_len()];
            let (first, second) = sums.split_at_mut(plan.sums_len());
            let scratch = &mut Scratch::new();
            plan.run(&from_dy, &from_x, first, scratch).unwrap();
            plan.run(&from_dy, &from_x, second, scratch).unwrap();
            plan.run(&from_dy, &from_x, second, scratch).unwrap();
            let mut got = vec![f32::NAN; w.len()];
            plan.finish(&mut sums, &mut got).unwrap();
            for (&g, &(want, size)) in got.iter().zip(&dw) {
                close(g, (3.0 * want, 3.0 * size), &name);
            }
        }
    }
}

type Sums<'a> = &'a [(f64, f64)];

fn depthwise(
    kernels: Kernels,
    shape: &ConvShape,
    halos: &ConvHalos,
    (x, dy, w): (&[f32], &[f32], &[f32]),
    (dx, dw): (Sums<'_>, Sums<'_>),
) {
    let (layout, _) = layouts(shape, halos);
    let name = format!("depthwise, {}, {shape:?}", kernels.isa().name());
    let mut plan = DepthwiseGrad::new(kernels, shape, halos.x, halos.y).unwrap();
    plan.set_weights(w).unwrap();
    let mut got = vec![f32::NAN; layout.len()];
    plan.input(dy, &mut got).unwrap();
    for (&g, &want) in inside(&layout, &got).iter().zip(dx) {
        close(g, want, &name);
    }
    let mut sums = vec![0.0; 2 * plan.sums_len()];
    sums.chunks_mut(plan.sums_len()).for_each(|s| plan.weight(dy, x, s).unwrap());
    let mut got = vec![f32::NAN; w.len()];
    plan.finish(&mut sums, &mut got).unwrap();
    for (&g, &(want, size)) in got.iter().zip(dw) {
        close(g, (2.0 * want, 2.0 * size), &name);
    }
}

#[test]
fn moments_do_not_lose_digits_to_a_large_mean() {
    for seed in 0..40 {
        let rng = &mut Rng::new(seed);
        let layout =
            ImageLayout { h: rng.range(1, 9), w: rng.range(1, 9), c: rng.range(1, 70), halo: rng.halo(2) };
        let images: Vec<Vec<f32>> = (0..3)
            .map(|_| rng.floats(layout.h * layout.w * layout.c).iter().map(|v| v * 0.01 + 100.0).collect())
            .collect();
        let n = (3 * layout.h * layout.w) as f64;
        for kernels in Kernels::all() {
            let mut sums = vec![0.0; Moments::len_of(layout.c)];
            let mut into = Moments::of(&mut sums).unwrap();
            for image in &images {
                let buffer = surrounded(&layout, image, f32::NAN);
                moments(kernels, &layout, &buffer, &mut Scratch::new(), &mut into).unwrap();
            }
            for c in 0..layout.c {
                let all =
                    || images.iter().flat_map(|i| i.iter().skip(c).step_by(layout.c)).map(|&v| f64::from(v));
                let mean = all().sum::<f64>() / n;
                let squares = all().map(|v| (v - mean) * (v - mean)).sum::<f64>();
                assert!((into.mean[c] - mean).abs() < 1e-7, "{} for {mean}", into.mean[c]);
                assert!(
                    (into.squares[c] - squares).abs() <= 1e-5 * squares,
                    "{} for {squares}",
                    into.squares[c]
                );
            }
        }
    }
}

#[test]
fn passes_with_numbers_per_channel_are_what_they_say() {
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let layout =
            ImageLayout { h: rng.range(1, 7), w: rng.range(1, 9), c: rng.range(1, 80), halo: rng.halo(2) };
        let n = layout.h * layout.w * layout.c;
        let [a, b, y] = [(); 3].map(|()| rng.floats(n));
        let numbers: Vec<Vec<f32>> = (0..4).map(|_| rng.floats(layout.c)).collect();
        let band = Band::new(layout.c);
        let bands: Vec<Vec<f32>> = numbers
            .iter()
            .map(|v| {
                let mut band_of = vec![0.0; band.len()];
                band.fill(&mut band_of, |c| v[c]);
                band_of
            })
            .collect();
        let [la, lb, ly] = [&a, &b, &y].map(|v| surrounded(&layout, v, 0.0));
        for kernels in Kernels::all() {
            let mut out = vec![0.0; layout.len()];
            for case in 0..6 {
                let first = Term { x: &la, affine: (case % 2 == 1).then_some((&bands[0], &bands[1])) };
                let affine = (case / 2 == 2).then_some((&bands[2][..], &bands[3][..]));
                let second = (case >= 2).then_some(Term { x: &lb, affine });
                let sum = ChannelSum { a: first, b: second, clip: RELU };
                sum_channels(kernels, &layout, &sum, &mut out).unwrap();
                for (i, &got) in inside(&layout, &out).iter().enumerate() {
                    let c = i % layout.c;
                    let affine = |v: f32, s: usize| {
                        f64::from(v) * f64::from(numbers[s][c]) + f64::from(numbers[s + 1][c])
                    };
                    let x = if case % 2 == 1 { affine(a[i], 0) } else { f64::from(a[i]) };
                    let more = match case / 2 {
                        0 => 0.0,
                        1 => f64::from(b[i]),
                        _ => affine(b[i], 2),
                    };
                    close(got, ((x + more).max(0.0), 2.0), "sum");
                }
            }
            norm_grad_apply(kernels, &layout, &la, &lb, [&bands[0], &bands[1], &bands[2]], &mut out).unwrap();
            let mut assigned = la.clone();
            norm_grad_apply_assign(kernels, &layout, &lb, [&bands[0], &bands[1], &bands[2]], &mut assigned)
                .unwrap();
            assert_eq!(inside(&layout, &assigned), inside(&layout, &out));
            let mut sums = vec![0.0; 2 * layout.c];
            norm_grad_sums(kernels, &layout, &la, &lb, &bands[0], &mut Scratch::new(), &mut sums).unwrap();
            let mut want = vec![0.0f64; 2 * layout.c];
            for (i, &got) in inside(&layout, &out).iter().enumerate() {
                let c = i % layout.c;
                let [p, q, r] = [0, 1, 2].map(|k| f64::from(numbers[k][c]));
                close(got, (f64::from(a[i]) * p + f64::from(b[i]) * q + r, 3.0), "apply");
                want[c] += f64::from(a[i]);
                want[layout.c + c] += f64::from(a[i]) * (f64::from(b[i]) - p);
            }
            for (got, want) in sums.iter().zip(&want) {
                assert!((got - want).abs() < 1e-3, "{got} for {want}");
            }
            for more in [None, Some(&lb[..])] {
                gated(kernels, Some(&la), more, Gate::Relu(&ly), &mut out).unwrap();
                assigned.copy_from_slice(&la);
                gated(kernels, None, more, Gate::Relu(&ly), &mut assigned).unwrap();
                assert_eq!(assigned, out);
            }
            for (i, &got) in inside(&layout, &out).iter().enumerate() {
                assert_eq!(got, if y[i] > 0.0 { a[i] + b[i] } else { 0.0 });
            }
        }
    }
}

#[test]
fn a_rounded_sum_is_the_sum_rounded_and_its_gate_is_where_gradients_pass() {
    for seed in 0..40 {
        let rng = &mut Rng::new(seed);
        let layout =
            ImageLayout { h: rng.range(1, 7), w: rng.range(1, 9), c: rng.range(1, 80), halo: rng.halo(2) };
        let n = layout.h * layout.w * layout.c;
        let [a, b] = [(); 2].map(|()| surrounded(&layout, &rng.floats(n), 0.0));
        let (first, zero) = (if seed % 2 == 0 { -4 } else { 0 }, if seed % 4 < 2 { 4 } else { 2 });
        let grid = FakeQuant::new(0.13, (first, first + 7), first + zero);
        for kernels in Kernels::all() {
            let clip = if seed % 3 == 0 { RELU } else { NO_CLIP };
            let term = |x| Term { x, affine: None };
            let sum = ChannelSum { a: term(&a), b: Some(term(&b)), clip };
            let mut plain = vec![0.0; layout.len()];
            sum_channels(kernels, &layout, &sum, &mut plain).unwrap();
            let mut want = vec![0.0; layout.len()];
            fake_quant(kernels, grid, &plain, &mut want).unwrap();
            let mut scratch = Scratch::new();
            let mut keeping = |keep: Keep<'_>| {
                let (mut y, mut range) = (vec![0.0; layout.len()], [f32::INFINITY, f32::NEG_INFINITY]);
                let out = Quantised { y: &mut y, keep, range: &mut range };
                sum_quantised(kernels, &layout, &sum, grid, &mut scratch, out).unwrap();
                assert_eq!(inside(&layout, &y), inside(&layout, &want));
                assert_eq!(range, range_of(kernels, &inside(&layout, &plain)));
            };
            keeping(Keep::Nothing);
            let mut kept = vec![0.0; layout.len()];
            keeping(Keep::Value(&mut kept));
            assert_eq!(kept, plain);
            let mut gate = vec![0u8; layout.len()];
            for positive in [false, true] {
                keeping(Keep::Gate { gate: &mut gate, positive });
                let dy = surrounded(&layout, &rng.floats(n), 0.0);
                let [mut got, mut want] = [(); 2].map(|()| vec![1.0; layout.len()]);
                gated(kernels, Some(&dy), Some(&a), Gate::Bytes(&gate), &mut got).unwrap();
                let by_value =
                    if positive { Gate::ReluWithin(&plain, grid) } else { Gate::Within(&plain, grid) };
                gated(kernels, Some(&dy), Some(&a), by_value, &mut want).unwrap();
                assert_eq!(inside(&layout, &got), inside(&layout, &want));
                let mut own = dy.clone();
                gated(kernels, None, None, by_value, &mut own).unwrap();
                let open = |x: f32| (x > 0.0 || !positive) && x >= grid.min && x <= grid.max;
                for ((&o, &d), &x) in own.iter().zip(&dy).zip(&plain) {
                    assert_eq!(o, if open(x) { d } else { 0.0 });
                }
            }
        }
    }
}
