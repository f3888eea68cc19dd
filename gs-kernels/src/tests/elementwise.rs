//! Element-wise kernels, codes, softmax and layouts.

use super::*;

/// Lengths with every kind of rest.
const LENGTHS: [usize; 6] = [0, 1, 15, 16, 67, 1000];

#[test]
fn float_operations() {
    for kernels in Kernels::all() {
        for n in LENGTHS {
            let rng = &mut Rng::new(n as u64);
            let (a, b) = (rng.floats(n), rng.floats(n));
            let limits = (-0.25f32, 0.5f32);
            let (mut y, mut z) = (vec![0f32; n], a.clone());
            add(kernels, &a, &b, limits, &mut y).unwrap();
            add_assign(kernels, &mut z, &b, limits).unwrap();
            assert_eq!(y, z);
            assert!((0..n).all(|i| y[i] == (a[i] + b[i]).clamp(-0.25, 0.5)));
            let mut z = a.clone();
            mul(kernels, &a, &b, NO_CLIP, &mut y).unwrap();
            mul_assign(kernels, &mut z, &b, NO_CLIP).unwrap();
            assert_eq!(y, z);
            assert!((0..n).all(|i| y[i] == a[i] * b[i]));
            clip(kernels, &a, RELU, &mut y).unwrap();
            assert!((0..n).all(|i| y[i] == a[i].max(0.0)));
        }
        let mut y = [0f32; 3];
        clip(kernels, &[f32::NAN, -1.0, f32::INFINITY], (0.0, 6.0), &mut y).unwrap();
        assert!(y[0].is_nan() && y[1] == 0.0 && y[2] == 6.0);
        let mut y = [0f32; 6];
        affine_channels(kernels, &[1.0; 6], &[2.0, 3.0, 4.0], &[1.0, -5.0, 0.0], RELU, &mut y).unwrap();
        assert_eq!(y, [3.0, 0.0, 4.0, 3.0, 0.0, 4.0]);
        assert!(add(kernels, &[0.0], &[0.0; 2], RELU, &mut [0.0]).is_err());
        assert!(affine_channels(kernels, &[1.0; 5], &[1.0; 3], &[0.0; 3], RELU, &mut [0.0; 5]).is_err());
    }
}

#[test]
fn quantise_divides_and_rounds_half_to_even() {
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let step = rng.scale();
        let out = rng.out_grid(step);
        let mut x: Vec<f32> = rng.floats(500).iter().map(|v| v * 300.0 * out.grid.scale).collect();
        // Ties, and numbers that no code can hold.
        x.extend((-400..400).map(|i| (i as f32 + 0.5) * out.grid.scale));
        x.extend([f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0, -0.0]);
        for kernels in Kernels::all() {
            let mut y = vec![0u8; x.len()];
            quantize(kernels, &x, &mut y, &out).unwrap();
            for (&x, &y) in x.iter().zip(&y) {
                let want = saturate(x / out.grid.scale, out.grid.zero_point, &out);
                assert_eq!(out.grid.code.code(y), want, "seed {seed} {x} {out:?}");
            }
            let mut nan = [9u8];
            quantize(kernels, &[f32::NAN], &mut nan, &out).unwrap();
            assert_eq!(out.grid.code.code(nan[0]), out.lo);

            let mut back = vec![0f32; y.len()];
            dequantize(kernels, &y, &out.grid, &mut back).unwrap();
            for (&y, &back) in y.iter().zip(&back) {
                assert_eq!(back, (out.grid.code.code(y) - out.grid.zero_point) as f32 * out.grid.scale);
            }
        }
    }
}

/// All pairs of codes.
fn pairs() -> (Vec<u8>, Vec<u8>) {
    (0..=65535u32).map(|i| ((i >> 8) as u8, i as u8)).unzip()
}

#[test]
fn sum_of_codes_on_all_pairs() {
    let (a, b) = pairs();
    for seed in 0..24 {
        let rng = &mut Rng::new(seed);
        let (ga, gb) = (rng.grid(), rng.grid());
        let step = if rng.chance(2) { 2.0 * ga.scale } else { rng.scale() };
        let out = rng.out_grid(step);
        // The formula, each fused multiply-add as an exact product and sum rounded once.
        let fma = |x: f32, y: f32, z: f32| x.mul_add(y, z);
        let (ra, rb) = (ga.scale / out.grid.scale, gb.scale / out.grid.scale);
        let c = out.grid.zero_point as f32 - fma(ra, ga.zero_point as f32, rb * gb.zero_point as f32);
        for kernels in Kernels::all() {
            let mut y = vec![0u8; a.len()];
            qlinear_add(kernels, (&a, &ga), (&b, &gb), &mut y, &out).unwrap();
            for i in 0..a.len() {
                let (a, b) = (ga.code.code(a[i]) as f32, gb.code.code(b[i]) as f32);
                let want = saturate(fma(a, ra, fma(b, rb, c)), 0, &out);
                assert_eq!(out.grid.code.code(y[i]), want, "seed {seed} {}", kernels.isa().name());
            }
        }
    }
}

#[test]
fn product_of_codes_on_all_pairs() {
    let (a, b) = pairs();
    for seed in 0..24 {
        let rng = &mut Rng::new(seed + 77);
        let (ga, gb) = (rng.grid(), rng.grid());
        let step = rng.scale() * 16.0;
        let out = rng.out_grid(step);
        let k = ga.scale * gb.scale / out.grid.scale;
        for kernels in Kernels::all() {
            let mut y = vec![0u8; a.len()];
            qlinear_mul(kernels, (&a, &ga), (&b, &gb), &mut y, &out).unwrap();
            for i in 0..a.len() {
                let product = (ga.code.code(a[i]) - ga.zero_point) * (gb.code.code(b[i]) - gb.zero_point);
                let scaled = product as f32 * k;
                let want = saturate(scaled + out.grid.zero_point as f32, 0, &out);
                assert_eq!(out.grid.code.code(y[i]), want, "seed {seed} {}", kernels.isa().name());
            }
        }
    }
}

/// Where one rounding more or less changes the code; the results are those of ONNX Runtime 1.32.
#[test]
fn roundings_are_those_of_the_target() {
    type Case = (f32, u8, f32, u8, f32, u8, u8, u8, u8);
    let sums: [Case; 3] = [
        (0.083_001_24, 227, 0.398_866_24, 181, 0.163_092, 85, 26, 194, 15),
        (0.267_582_92, 189, 0.218_387_56, 123, 0.313_835_17, 108, 45, 201, 40),
        (0.369_961_44, 79, 0.160_480_08, 212, 0.253_711_13, 14, 210, 159, 172),
    ];
    let products: [Case; 3] = [
        (0.037_819_67, 242, 0.037_819_67, 135, 0.605_114_7, 118, 61, 232, 76),
        (0.127_106_38, 78, 0.127_106_38, 92, 2.033_702_1, 92, 145, 185, 142),
        (0.046_149_652, 46, 0.046_149_652, 247, 0.738_394_44, 169, 239, 0, 32),
    ];
    for kernels in Kernels::all() {
        for (is_sum, (sa, za, sb, zb, sy, zy, a, b, want)) in
            sums.map(|case| (true, case)).into_iter().chain(products.map(|case| (false, case)))
        {
            let (ga, gb, out) = (Grid::u8(sa, za), Grid::u8(sb, zb), OutGrid::full(Grid::u8(sy, zy)));
            let (a, b) = ([a; 40], [b; 40]);
            let mut y = [0u8; 40];
            let run = if is_sum { qlinear_add } else { qlinear_mul };
            run(kernels, (&a, &ga), (&b, &gb), &mut y, &out).unwrap();
            assert_eq!(y, [want; 40], "{} {sa}", kernels.isa().name());
        }
    }
}

#[test]
fn tables() {
    let (x, out) = (Grid::i8(0.05, 7), OutGrid::full(Grid::u8(1.0 / 256.0, 0)));
    let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
    let table = code_table(&x, &out, sigmoid).unwrap();
    let codes: Vec<u8> = (0..=255).collect();
    let mut y = vec![0u8; 256];
    lookup(&codes, &table, &mut y).unwrap();
    for (&code, &y) in codes.iter().zip(&y) {
        let value = (i32::from(code as i8) - 7) as f32 * 0.05;
        assert_eq!(i32::from(y), saturate(sigmoid(value) / (1.0 / 256.0), 0, &out));
    }
    assert!(lookup(&codes, &table, &mut [0; 3]).is_err());
}

#[test]
fn softmax_of_rows() {
    for n in [1, 2, 10, 16, 33, 1000] {
        let rng = &mut Rng::new(n as u64);
        let x: Vec<f32> = rng.floats(3 * n).iter().map(|v| v * 40.0).collect();
        let mut first: Option<Vec<f32>> = None;
        for kernels in Kernels::all() {
            let mut y = vec![0f32; 3 * n];
            softmax(kernels, &x, n, &mut y).unwrap();
            for (x, y) in x.chunks(n).zip(y.chunks(n)) {
                let max = x.iter().copied().fold(f32::MIN, f32::max);
                let e: Vec<f64> = x.iter().map(|&v| f64::from(v - max).exp()).collect();
                let sum: f64 = e.iter().sum();
                for (e, &y) in e.iter().zip(y) {
                    assert!((e / sum - f64::from(y)).abs() <= 1e-6 * e / sum + 1e-36, "{n}: {} {y}", e / sum);
                }
            }
            assert_eq!(*first.get_or_insert_with(|| y.clone()), y, "sets differ");
        }
    }
    // The differences of codes of both types, and a row of one.
    let (x, out) = ([0x80u8, 0, 127], OutGrid::full(Grid::u8(1.0 / 256.0, 0)));
    let mut y = [0u8; 3];
    qlinear_softmax(&x, &Grid::u8(0.01, 3), 3, &mut y, &out).unwrap();
    let e = [1.0, (-1.28f64).exp(), (-0.01f64).exp()];
    let want = e.map(|v| (v / e.iter().sum::<f64>() * 256.0).round() as u8);
    assert_eq!(y, want);
    qlinear_softmax(&x, &Grid::i8(0.01, 3), 3, &mut y, &out).unwrap();
    let e = [(-2.55f64).exp(), (-1.27f64).exp(), 1.0];
    let want = e.map(|v| (v / e.iter().sum::<f64>() * 256.0).round() as u8);
    assert_eq!(y, want);
    qlinear_softmax(&[4], &Grid::u8(0.1, 3), 1, &mut y[..1], &out).unwrap();
    assert_eq!(y[0], 255);
}

#[test]
fn layouts_go_there_and_back() {
    for seed in 0..40 {
        let rng = &mut Rng::new(seed);
        let layout = ImageLayout {
            h: rng.range(1, 9),
            w: rng.pick(&[1, 5, 32, 33, 70]),
            c: rng.range(1, 20),
            halo: rng.halo(2),
        };
        let (h, w, c) = (layout.h, layout.w, layout.c);
        let x = rng.bytes(h * w * c);
        let mut y = vec![0xeeu8; layout.len()];
        to_channels_last(&x, &layout, &mut y).unwrap();
        let dense = inside(&layout, &y);
        for (i, &v) in dense.iter().enumerate() {
            assert_eq!(v, x[(i % c * h + i / c / w) * w + i / c % w]);
        }
        assert_eq!(y, surrounded(&layout, &dense, 0xee), "the halo was written");
        let mut back = vec![0u8; x.len()];
        to_channels_first(&y, &layout, &mut back).unwrap();
        assert_eq!(back, x);
    }
}
