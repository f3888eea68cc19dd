//! Matrix products.

use super::*;

fn shapes(rng: &mut Rng) -> (usize, LinearShape) {
    let shape = LinearShape {
        inputs: rng.pick(&[1, 3, 4, 17, 64, 130]),
        outputs: rng.pick(&[1, 2, 10, 16, 33, 64]),
        order: rng.pick(&[WeightOrder::InOut, WeightOrder::OutIn]),
    };
    (rng.pick(&[1, 2, 5, 16, 67, 130]), shape)
}

fn weight<T: Copy>(shape: &LinearShape, w: &[T], k: usize, n: usize) -> T {
    match shape.order {
        WeightOrder::InOut => w[k * shape.outputs + n],
        WeightOrder::OutIn => w[n * shape.inputs + k],
    }
}

#[test]
fn float_product_equals_the_sum_and_rows_do_not_depend_on_each_other() {
    for seed in 0..150 {
        let rng = &mut Rng::new(seed);
        let (m, shape) = shapes(rng);
        let (k, n) = (shape.inputs, shape.outputs);
        let (x, w, bias) = (rng.floats(m * k), rng.floats(k * n), rng.floats(n));
        let residual = rng.chance(2).then(|| rng.floats(m * n));
        for kernels in Kernels::all() {
            let linear = LinearF32::new(kernels, shape, &w, Some(&bias), RELU).unwrap();
            let mut y = vec![0f32; m * n];
            linear.run(&x, residual.as_deref(), &mut y).unwrap();
            for i in 0..m * n {
                let (row, column) = (i / n, i % n);
                let terms =
                    |k0: usize| f64::from(x[row * k + k0]) * f64::from(weight(&shape, &w, k0, column));
                let sum: f64 = (0..k).map(terms).sum();
                let size: f64 = (0..k).map(|k0| terms(k0).abs()).sum();
                let want = sum + f64::from(bias[column]) + residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
                assert!(close(y[i], want.max(0.0), size + 2.0), "seed {seed} {shape:?} {m} at {i}");
            }
            let mut row = vec![0f32; n];
            for r in [0, m / 2, m - 1] {
                let part = residual.as_ref().map(|v| &v[r * n..(r + 1) * n]);
                linear.run(&x[r * k..(r + 1) * k], part, &mut row).unwrap();
                assert_eq!(row, y[r * n..(r + 1) * n], "seed {seed}");
            }
        }
    }
}

#[test]
fn integer_product_is_exact_on_every_set() {
    for seed in 0..150 {
        let rng = &mut Rng::new(seed + 500);
        let (m, shape) = shapes(rng);
        let (k, n) = (shape.inputs, shape.outputs);
        let (x, codes, grid) = (rng.bytes(m * k), rng.signed(k * n), rng.grid());
        let scales: Vec<f32> = (0..if rng.chance(2) { 1 } else { n }).map(|_| rng.scale() * 0.125).collect();
        let bias: Vec<i32> = (0..n).map(|_| rng.next() as i32 >> 16).collect();
        let step = rng.scale();
        let out = rng.out_grid(step);
        let weights = QWeights { codes: &codes, scales: &scales, bias: Some(&bias) };
        let sum = |i: usize| {
            let (row, column) = (i / n, i % n);
            let term = |k0: usize| {
                (grid.code.code(x[row * k + k0]) - grid.zero_point)
                    * i32::from(weight(&shape, &codes, k0, column))
            };
            bias[column] + (0..k).map(term).sum::<i32>()
        };
        for kernels in Kernels::all() {
            let mut scratch = Scratch::new();
            let codes_out = LinearQ::new(kernels, shape, grid, weights, QOutput::Codes(out)).unwrap();
            let mut y = vec![0u8; m * n];
            codes_out.run(&x, &mut y, &mut scratch).unwrap();
            let floats_out = LinearQ::new(kernels, shape, grid, weights, QOutput::Float).unwrap();
            let mut f = vec![0f32; m * n];
            floats_out.run_f32(&x, &mut f, &mut scratch).unwrap();
            for i in 0..m * n {
                let s = grid.scale * if scales.len() == 1 { scales[0] } else { scales[i % n] };
                let want = saturate(sum(i) as f32 * (s / out.grid.scale), out.grid.zero_point, &out);
                assert_eq!(out.grid.code.code(y[i]), want, "seed {seed} {shape:?} at {i}");
                assert_eq!(f[i], sum(i) as f32 * s, "seed {seed} {shape:?} at {i}");
            }
        }
    }
}

#[test]
fn the_multiplier_is_formed_in_the_order_of_the_target() {
    // With s_y = 2 * f32(s_x * s_w) the multiplier is one half exactly, and every odd sum a tie; in another order it would often be off
    // by a bit, and the ties would break.
    let shape = LinearShape { inputs: 1, outputs: 1, order: WeightOrder::InOut };
    let x: Vec<u8> = (0..=255).collect();
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let (sx, sw) = (0.02 + rng.float().abs(), 0.02 + rng.float().abs());
        let out = OutGrid::full(Grid::u8(2.0 * (sx * sw), 0));
        let weights = QWeights { codes: &[1], scales: &[sw], bias: None };
        for kernels in Kernels::all() {
            let linear = LinearQ::new(kernels, shape, Grid::u8(sx, 0), weights, QOutput::Codes(out)).unwrap();
            let mut y = vec![0u8; 256];
            linear.run(&x, &mut y, &mut Scratch::new()).unwrap();
            for (i, &y) in y.iter().enumerate() {
                let half = (i / 2) as u8;
                assert_eq!(y, if i % 4 == 3 { half + 1 } else { half }, "seed {seed} {i}");
            }
        }
    }
}

#[test]
fn many_rows_go_through_in_pieces() {
    // More input than is brought into kernel form at a time, and a depth beyond exact floats.
    let rng = &mut Rng::new(1);
    let shape = LinearShape { inputs: 4099, outputs: 5, order: WeightOrder::OutIn };
    let m = 150;
    let (x, codes) = (rng.bytes(m * shape.inputs), rng.signed(shape.inputs * shape.outputs));
    let weights = QWeights { codes: &codes, scales: &[1.0], bias: None };
    for kernels in Kernels::all() {
        let linear = LinearQ::new(kernels, shape, Grid::i8(1.0, -3), weights, QOutput::Float).unwrap();
        let mut y = vec![0f32; m * 5];
        linear.run_f32(&x, &mut y, &mut Scratch::new()).unwrap();
        for (i, &y) in y.iter().enumerate() {
            let (row, column) = (i / 5, i % 5);
            let sum: i32 = (0..shape.inputs)
                .map(|k| {
                    (i32::from(x[row * shape.inputs + k] as i8) + 3)
                        * i32::from(codes[column * shape.inputs + k])
                })
                .sum();
            assert_eq!(y, sum as f32);
        }
    }
}

#[test]
fn no_rows_are_fine_and_wrong_lengths_are_not() {
    let shape = LinearShape { inputs: 3, outputs: 2, order: WeightOrder::InOut };
    let linear = LinearF32::new(Kernels::detect(), shape, &[1.0; 6], None, NO_CLIP).unwrap();
    assert_eq!(linear.run(&[], None, &mut []), Ok(()));
    assert!(linear.run(&[1.0; 4], None, &mut [0.0; 2]).is_err());
    assert!(linear.run(&[1.0; 3], None, &mut [0.0; 4]).is_err());
    assert!(linear.run(&[1.0; 3], Some(&[1.0]), &mut [0.0; 2]).is_err());
    let none = LinearShape { inputs: 0, ..shape };
    assert!(LinearF32::new(Kernels::detect(), none, &[], None, NO_CLIP).is_err());
}
