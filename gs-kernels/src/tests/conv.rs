//! Convolutions: dense, grouped, depthwise; in place and copied; whole and in rows.

use super::*;

pub(super) fn random_shape(rng: &mut Rng) -> ConvShape {
    loop {
        let (c_in, c_out, groups) = match rng.range(0, 5) {
            0 => {
                let c = rng.range(1, 40);
                (c, c, c)
            }
            1 => {
                let g = rng.range(2, 5);
                (g * rng.range(1, 6), g * rng.range(1, 20), g)
            }
            2 => (rng.pick(&[16, 32, 48]), rng.pick(&[16, 32, 48]), 1),
            3 => (3, rng.pick(&[7, 16, 32]), 1),
            _ => (rng.range(1, 36), rng.range(1, 50), 1),
        };
        let shape = ConvShape {
            h: rng.range(1, 12),
            w: rng.range(1, 20),
            c_in,
            c_out,
            kernel: rng.pick(&[[1, 1], [3, 3], [3, 3], [1, 3], [5, 2], [2, 4]]),
            stride: rng.pick(&[[1, 1], [1, 1], [2, 2], [3, 1], [1, 2]]),
            pads: if rng.chance(2) {
                [1; 4]
            } else {
                [rng.range(0, 3), rng.range(0, 3), rng.range(0, 3), rng.range(0, 3)]
            },
            dilation: rng.pick(&[[1, 1], [1, 1], [2, 2], [1, 3]]),
            groups,
        };
        if shape.out_h() > 0 && shape.out_w() > 0 {
            return shape;
        }
    }
}

pub(super) fn layouts(shape: &ConvShape, halos: &ConvHalos) -> (ImageLayout, ImageLayout) {
    (
        ImageLayout { h: shape.h, w: shape.w, c: shape.c_in, halo: halos.x },
        ImageLayout { h: shape.out_h(), w: shape.out_w(), c: shape.c_out, halo: halos.y },
    )
}

/// Calls `term(output, input, weight)` with indices in `[h, w, c]`, `[h, w, c]` and the weights, for every product that is
/// not with padding.
pub(super) fn each_term(s: &ConvShape, mut term: impl FnMut(usize, usize, usize)) {
    let (ci, co) = (s.c_in / s.groups, s.c_out / s.groups);
    for oy in 0..s.out_h() {
        for ox in 0..s.out_w() {
            for oc in 0..s.c_out {
                for ky in 0..s.kernel[0] {
                    for kx in 0..s.kernel[1] {
                        let y = (oy * s.stride[0] + ky * s.dilation[0]) as isize - s.pads[0] as isize;
                        let x = (ox * s.stride[1] + kx * s.dilation[1]) as isize - s.pads[1] as isize;
                        if y < 0 || x < 0 || y >= s.h as isize || x >= s.w as isize {
                            continue;
                        }
                        for c in 0..ci {
                            let input = (y as usize * s.w + x as usize) * s.c_in + oc / co * ci + c;
                            let weight = ((oc * ci + c) * s.kernel[0] + ky) * s.kernel[1] + kx;
                            term((oy * s.out_w() + ox) * s.c_out + oc, input, weight);
                        }
                    }
                }
            }
        }
    }
}

/// A buffer of which only the part that the padding needs holds `pad`; the rest of the halo holds `poison`.
fn with_padding<T: Copy>(s: &ConvShape, layout: &ImageLayout, image: &[T], pad: T, poison: T) -> Vec<T> {
    let mut buffer = surrounded(layout, image, pad);
    let keep = |i: usize, before: usize, n: usize, pad_before: usize, pad_after: usize| {
        i + pad_before >= before && i < before + n + pad_after
    };
    let columns = layout.row_len() / layout.c;
    for (i, v) in buffer.iter_mut().enumerate() {
        let (y, x) = (i / layout.row_len(), i / layout.c % columns);
        if !keep(y, layout.halo.top, s.h, s.pads[0], s.pads[2])
            || !keep(x, layout.halo.left, s.w, s.pads[1], s.pads[3])
        {
            *v = poison;
        }
    }
    buffer
}

/// Cuts `n` rows at random.
fn cuts(rng: &mut Rng, n: usize) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < n {
        let end = rng.range(start + 1, n);
        out.push(start..end);
        start = end;
    }
    out
}

fn random_halos(rng: &mut Rng) -> ConvHalos {
    ConvHalos {
        x: if rng.chance(2) { Halo::NONE } else { rng.halo(3) },
        y: if rng.chance(2) { Halo::NONE } else { rng.halo(2) },
        residual: None,
    }
}

#[test]
fn float_convolution_equals_the_sum_and_does_not_depend_on_the_split() {
    let mut in_place = 0;
    for seed in 0..400 {
        let rng = &mut Rng::new(seed);
        let shape = random_shape(rng);
        let mut halos = random_halos(rng);
        if rng.chance(3) {
            halos.residual = Some(rng.halo(1));
        }
        let (lx, ly) = layouts(&shape, &halos);
        let x = rng.floats(shape.h * shape.w * shape.c_in);
        let w = rng.floats(shape.weight_len());
        let bias = rng.chance(2).then(|| rng.floats(shape.c_out));
        let clip = rng.pick(&[NO_CLIP, RELU, (-0.5, 0.75)]);
        let covers = halos.x.top >= shape.pads[0]
            && halos.x.left >= shape.pads[1]
            && halos.x.bottom >= shape.pads[2]
            && halos.x.right >= shape.pads[3];
        in_place += usize::from(covers && shape.pads != [0; 4]);
        // What must not be read is NaN.
        let buffer = with_padding(&shape, &lx, &x, 0.0, f32::NAN);
        let lr = halos.residual.map(|halo| ImageLayout { halo, ..ly });
        let residual = lr.map(|_| rng.floats(ly.h * ly.w * ly.c));
        let residual_buffer = lr.map(|l| surrounded(&l, residual.as_ref().unwrap(), f32::NAN));

        let mut want = vec![(0f64, 0f64); ly.h * ly.w * ly.c];
        each_term(&shape, |o, i, k| {
            let product = f64::from(x[i]) * f64::from(w[k]);
            want[o].0 += product;
            want[o].1 += product.abs();
        });
        for kernels in Kernels::all() {
            let conv = ConvF32::new(kernels, &shape, &halos, &w, bias.as_deref(), clip).unwrap();
            let mut scratch = Scratch::new();
            let mut y = vec![7e7f32; ly.len()];
            conv.run(&buffer, residual_buffer.as_deref(), &mut y, &mut scratch).unwrap();
            let got = inside(&ly, &y);
            for (i, (&got, &(sum, size))) in got.iter().zip(&want).enumerate() {
                let extra = bias.as_ref().map_or(0.0, |b| f64::from(b[i % shape.c_out]))
                    + residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
                let want = (sum + extra).clamp(f64::from(clip.0), f64::from(clip.1));
                assert!(
                    close(got, want, size + 2.0),
                    "seed {seed} {} {shape:?} at {i}: {got} {want}",
                    kernels.isa().name()
                );
            }
            let untouched = y.iter().filter(|&&v| v == 7e7).count();
            assert_eq!(untouched, ly.len() - got.len(), "seed {seed}: the halo was written");

            let mut parts = vec![7e7f32; ly.len()];
            for rows in cuts(rng, ly.h) {
                let part = (ly.halo.top + rows.start) * ly.row_len()..(ly.halo.top + rows.end) * ly.row_len();
                conv.run_rows(rows, &buffer, residual_buffer.as_deref(), &mut parts[part], &mut scratch)
                    .unwrap();
            }
            assert!(
                y.iter().zip(&parts).all(|(a, b)| a.to_bits() == b.to_bits()),
                "seed {seed}: rows differ"
            );
        }
    }
    assert!(in_place > 10, "the generator must reach padding read in place");
}

#[test]
fn integer_convolution_is_exact_on_every_set() {
    for seed in 0..400 {
        let rng = &mut Rng::new(seed + 10_000);
        let shape = random_shape(rng);
        let halos = random_halos(rng);
        let (lx, ly) = layouts(&shape, &halos);
        let grid = rng.grid();
        let x = rng.bytes(shape.h * shape.w * shape.c_in);
        let codes = rng.signed(shape.weight_len());
        let scales: Vec<f32> =
            (0..if rng.chance(2) { 1 } else { shape.c_out }).map(|_| rng.scale() * 0.0625).collect();
        let bias: Option<Vec<i32>> =
            rng.chance(2).then(|| (0..shape.c_out).map(|_| rng.next() as i32 >> 18).collect());
        let buffer = with_padding(&shape, &lx, &x, grid.zero_byte(), 0x55);
        let step = rng.pick(&[1.0, 4.0, 0.25]) * rng.scale();
        let out = rng.out_grid(step);

        let mut sums: Vec<i32> =
            (0..ly.h * ly.w * ly.c).map(|i| bias.as_ref().map_or(0, |b| b[i % shape.c_out])).collect();
        each_term(&shape, |o, i, k| {
            sums[o] += (grid.code.code(x[i]) - grid.zero_point) * i32::from(codes[k]);
        });
        let w_scale = |c: usize| if scales.len() == 1 { scales[0] } else { scales[c] };
        let weights = QWeights { codes: &codes, scales: &scales, bias: bias.as_deref() };
        for kernels in Kernels::all() {
            let name = kernels.isa().name();
            let conv = ConvQ::new(kernels, &shape, &halos, grid, weights, QOutput::Codes(out)).unwrap();
            let mut scratch = Scratch::new();
            let mut y = vec![0x77u8; ly.len()];
            conv.run(&buffer, &mut y, &mut scratch).unwrap();
            for (i, &got) in inside(&ly, &y).iter().enumerate() {
                let r = (grid.scale * w_scale(i % shape.c_out)) / out.grid.scale;
                let want = saturate(sums[i] as f32 * r, out.grid.zero_point, &out);
                assert_eq!(
                    out.grid.code.code(got),
                    want,
                    "seed {seed} {name} {shape:?} {grid:?} {out:?} at {i}"
                );
            }
            let mut halo = y.clone();
            ly.fill_halo(&mut halo, 0x77).unwrap();
            assert_eq!(halo, y, "seed {seed}: the halo was written");

            let mut parts = vec![0x77u8; ly.len()];
            for rows in cuts(rng, ly.h) {
                let part = (ly.halo.top + rows.start) * ly.row_len()..(ly.halo.top + rows.end) * ly.row_len();
                conv.run_rows(rows, &buffer, &mut parts[part], &mut scratch).unwrap();
            }
            assert_eq!(y, parts, "seed {seed}: rows differ");

            let conv = ConvQ::new(kernels, &shape, &halos, grid, weights, QOutput::Float).unwrap();
            let mut y = vec![0f32; ly.len()];
            conv.run_f32(&buffer, &mut y, &mut scratch).unwrap();
            for (i, &got) in inside(&ly, &y).iter().enumerate() {
                let want = sums[i] as f32 * (grid.scale * w_scale(i % shape.c_out));
                assert_eq!(got.to_bits(), want.to_bits(), "seed {seed} {name} float at {i}");
            }
        }
    }
}

#[test]
fn sums_beyond_pairs_of_16_bits_do_not_saturate() {
    // 255 * 127 * 2 and 255 * -128 * 2 do not fit in 16 bits.
    let shape = ConvShape::new(4, 4, 64, 8, 1);
    for code in [127i8, -128] {
        let codes = vec![code; shape.weight_len()];
        let x = vec![255u8; 4 * 4 * 64];
        let weights = QWeights { codes: &codes, scales: &[1.0], bias: None };
        for kernels in Kernels::all() {
            let conv =
                ConvQ::new(kernels, &shape, &ConvHalos::default(), Grid::u8(1.0, 0), weights, QOutput::Float)
                    .unwrap();
            let mut y = vec![0f32; 4 * 4 * 8];
            conv.run_f32(&x, &mut y, &mut Scratch::new()).unwrap();
            assert!(y.iter().all(|&v| v == 255.0 * f32::from(code) * 64.0));
        }
    }
}

#[test]
fn sums_wrap_alike_and_large_results_saturate_on_the_right_side() {
    let shape = ConvShape::new(1, 1, 4, 3, 1);
    let codes = [127i8, 127, 127, 127, 0, 0, 0, 0, -128, -128, -128, -128];
    let bias = [i32::MAX - 10, i32::MIN, i32::MIN + 3];
    let weights = QWeights { codes: &codes, scales: &[1.0], bias: Some(&bias) };
    for kernels in Kernels::all() {
        // The first sum wraps to a negative number, the third to a positive one; scaled, both leave the range of i32.
        let out = QOutput::Codes(OutGrid::full(Grid::u8(0.001, 10)));
        let conv =
            ConvQ::new(kernels, &shape, &ConvHalos::default(), Grid::u8(1.0, 0), weights, out).unwrap();
        let mut y = [9u8; 3];
        conv.run(&[255; 4], &mut y, &mut Scratch::new()).unwrap();
        assert_eq!(y, [0, 0, 255], "{}", kernels.isa().name());
    }
}

#[test]
fn nan_passes_a_float_clip() {
    let shape = ConvShape::new(1, 20, 1, 1, 1);
    let mut x = vec![1f32; 20];
    x[17] = f32::NAN;
    for kernels in Kernels::all() {
        let conv = ConvF32::new(kernels, &shape, &ConvHalos::default(), &[-1.0], None, RELU).unwrap();
        let mut y = vec![5f32; 20];
        conv.run(&x, None, &mut y, &mut Scratch::new()).unwrap();
        assert!(y.iter().enumerate().all(|(i, v)| if i == 17 { v.is_nan() } else { *v == 0.0 }));
    }
}

#[test]
fn other_weights_can_be_packed_into_a_plan() {
    let rng = &mut Rng::new(5);
    for shape in [ConvShape::new(6, 7, 5, 9, 3), ConvShape::new(6, 7, 9, 9, 3).grouped(9)] {
        let x = rng.floats(6 * 7 * shape.c_in);
        let (w, other) = (rng.floats(shape.weight_len()), rng.floats(shape.weight_len()));
        let (b, halos) = (rng.floats(9), ConvHalos::default());
        for kernels in Kernels::all() {
            let mut conv = ConvF32::new(kernels, &shape, &halos, &w, None, NO_CLIP).unwrap();
            conv.set_weights(&other, Some(&b)).unwrap();
            let fresh = ConvF32::new(kernels, &shape, &halos, &other, Some(&b), NO_CLIP).unwrap();
            let (mut y, mut z) = (vec![0f32; 4 * 5 * 9], vec![1f32; 4 * 5 * 9]);
            conv.run(&x, None, &mut y, &mut Scratch::new()).unwrap();
            fresh.run(&x, None, &mut z, &mut Scratch::new()).unwrap();
            assert_eq!(y, z);
        }
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let k = Kernels::detect();
    let new = |shape: ConvShape| {
        let w = vec![0f32; shape.weight_len().min(1000)];
        ConvF32::new(k, &shape, &ConvHalos::default(), &w, None, NO_CLIP).err()
    };
    let good = ConvShape::new(4, 4, 4, 4, 3);
    assert_eq!(new(good), None);
    assert_eq!(new(ConvShape { c_in: 0, ..good }), Some(KernelError::Zero("c_in")));
    assert_eq!(new(ConvShape { stride: [0, 1], ..good }), Some(KernelError::Zero("stride")));
    assert_eq!(new(ConvShape { groups: 3, ..good }), Some(KernelError::Groups { channels: 4, groups: 3 }));
    assert_eq!(new(ConvShape { h: 2, ..good }), Some(KernelError::WindowTooLarge { window: 3, image: 2 }));
    assert_eq!(new(ConvShape { pads: [usize::MAX; 4], ..good }), Some(KernelError::TooLarge));
    assert_eq!(
        new(ConvShape { dilation: [usize::MAX / 2, 1], ..good }),
        Some(KernelError::TooLarge),
        "a window larger than the address space"
    );

    let conv = ConvF32::new(k, &good, &ConvHalos::default(), &[0.0; 144], None, NO_CLIP).unwrap();
    let (x, mut y, mut s) = ([0f32; 64], [0f32; 16], Scratch::new());
    assert!(matches!(conv.run(&x[1..], None, &mut y, &mut s), Err(KernelError::Length { what: "x", .. })));
    assert!(matches!(conv.run(&x, None, &mut y[1..], &mut s), Err(KernelError::Length { what: "y", .. })));
    assert_eq!(conv.run(&x, Some(&[0.0; 16]), &mut y, &mut s), Err(KernelError::Residual));
    let rows = KernelError::Rows { start: 1, end: 3, rows: 2 };
    assert_eq!(conv.run_rows(1..3, &x, None, &mut y, &mut s), Err(rows));

    let q = |x: Grid, scales: &[f32], out: QOutput| {
        let weights = QWeights { codes: &[1; 144], scales, bias: None };
        ConvQ::new(k, &good, &ConvHalos::default(), x, weights, out).err()
    };
    let grid = Grid::u8(1.0, 3);
    assert_eq!(q(grid, &[1.0], QOutput::Float), None);
    assert_eq!(q(grid, &[f32::NAN], QOutput::Float), Some(KernelError::Scale));
    assert_eq!(q(Grid { zero_point: 256, ..grid }, &[1.0], QOutput::Float), Some(KernelError::Code(256)));
    let out = QOutput::Codes(OutGrid::clamped(grid, 9, 8));
    assert_eq!(q(grid, &[1.0], out), Some(KernelError::Code(9)));
    assert!(matches!(q(grid, &[1.0; 3], QOutput::Float), Some(KernelError::Length { .. })));
}

#[test]
fn a_convolution_whose_weights_change_computes_what_a_new_one_does() {
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let (shape, halos) = (random_shape(rng), ConvHalos::default());
        let x = rng.floats(shape.h * shape.w * shape.c_in);
        for kernels in Kernels::all() {
            let mut changing = ConvF32::changing(kernels, &shape, &halos, RELU).unwrap();
            for _ in 0..2 {
                let (w, bias) = (rng.floats(shape.weight_len()), rng.floats(shape.c_out));
                changing.set_weights(&w, Some(&bias)).unwrap();
                let new = ConvF32::new(kernels, &shape, &halos, &w, Some(&bias), RELU).unwrap();
                let (_, ly) = layouts(&shape, &halos);
                let (mut a, mut b) = (vec![0.0; ly.len()], vec![0.0; ly.len()]);
                changing.run(&x, None, &mut a, &mut Scratch::new()).unwrap();
                new.run(&x, None, &mut b, &mut Scratch::new()).unwrap();
                assert_eq!(a, b, "seed {seed}, {}, {shape:?}", kernels.isa().name());
            }
        }
    }
}
