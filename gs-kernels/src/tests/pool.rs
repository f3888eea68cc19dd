//! Pooling.

use super::*;

fn random(rng: &mut Rng) -> PoolShape {
    loop {
        let x = ImageLayout {
            h: rng.range(1, 11),
            w: rng.range(1, 11),
            c: rng.pick(&[1, 3, 16, 64, 65, 130]),
            halo: rng.halo(1),
        };
        let kernel = [rng.range(1, 4), rng.range(1, 4)];
        let mut pad = |k: usize| rng.range(0, k - 1);
        let pads = [pad(kernel[0]), pad(kernel[1]), pad(kernel[0]), pad(kernel[1])];
        let shape = PoolShape {
            x,
            kernel,
            stride: [rng.range(1, 3), rng.range(1, 3)],
            pads,
            dilation: rng.pick(&[[1, 1], [1, 1], [2, 1], [2, 3]]),
            ceil_mode: rng.chance(3),
            y_halo: rng.halo(1),
        };
        let y = shape.y();
        if y.h > 0 && y.w > 0 {
            return shape;
        }
    }
}

/// Image positions of the taps of every output pixel in row order, and how many taps lie inside the padded image.
fn windows(s: &PoolShape) -> Vec<(Vec<usize>, usize)> {
    let y = s.y();
    let mut out = Vec::new();
    for oy in 0..y.h {
        for ox in 0..y.w {
            let (mut taps, mut padded) = (Vec::new(), 0);
            for ky in 0..s.kernel[0] {
                for kx in 0..s.kernel[1] {
                    let py = oy * s.stride[0] + ky * s.dilation[0];
                    let px = ox * s.stride[1] + kx * s.dilation[1];
                    if py < s.x.h + s.pads[0] + s.pads[2] && px < s.x.w + s.pads[1] + s.pads[3] {
                        padded += 1;
                    }
                    let inside = (s.pads[0]..s.pads[0] + s.x.h).contains(&py)
                        && (s.pads[1]..s.pads[1] + s.x.w).contains(&px);
                    if inside {
                        taps.push((py - s.pads[0]) * s.x.w + px - s.pads[1]);
                    }
                }
            }
            out.push((taps, padded));
        }
    }
    out
}

#[test]
fn maximum_and_average_of_floats() {
    for seed in 0..200 {
        let rng = &mut Rng::new(seed);
        let shape = random(rng);
        let (ly, c) = (shape.y(), shape.x.c);
        let x = rng.floats(shape.x.h * shape.x.w * c);
        let buffer = surrounded(&shape.x, &x, f32::NAN);
        let count_pads = rng.chance(2);
        for kernels in Kernels::all() {
            let (mut max, mut mean) = (vec![3f32; ly.len()], vec![3f32; ly.len()]);
            max_pool(kernels, &shape, &buffer, &mut max).unwrap();
            average_pool(kernels, &shape, count_pads, &buffer, &mut mean).unwrap();
            let (max, mean) = (inside(&ly, &max), inside(&ly, &mean));
            for (pixel, (taps, padded)) in windows(&shape).iter().enumerate() {
                for channel in 0..c {
                    let values = || taps.iter().map(|&t| x[t * c + channel]);
                    assert_eq!(
                        max[pixel * c + channel],
                        values().fold(f32::NEG_INFINITY, f32::max),
                        "seed {seed}"
                    );
                    let count = if count_pads { *padded } else { taps.len().max(1) };
                    let want = values().map(f64::from).sum::<f64>() / count as f64;
                    assert!(close(mean[pixel * c + channel], want, 1.0), "seed {seed} {shape:?}");
                }
            }
        }
    }
}

#[test]
fn maximum_and_average_of_codes() {
    for seed in 0..200 {
        let rng = &mut Rng::new(seed + 900);
        let shape = random(rng);
        let (ly, c) = (shape.y(), shape.x.c);
        let (grid, step) = (rng.grid(), rng.scale());
        let out = rng.out_grid(step);
        let x = rng.bytes(shape.x.h * shape.x.w * c);
        let count_pads = rng.chance(2);
        let buffer = surrounded(&shape.x, &x, 0xff);
        for kernels in Kernels::all() {
            let (mut max, mut mean) = (vec![3u8; ly.len()], vec![3u8; ly.len()]);
            max_pool_codes(kernels, &shape, grid.code, &buffer, &mut max).unwrap();
            qlinear_average_pool(kernels, &shape, count_pads, (&buffer, &grid), &mut mean, &out).unwrap();
            let (max, mean) = (inside(&ly, &max), inside(&ly, &mean));
            for (pixel, (taps, _)) in windows(&shape).iter().enumerate() {
                for channel in 0..c {
                    let codes = || taps.iter().map(|&t| grid.code.code(x[t * c + channel]));
                    let want = codes().max().unwrap_or(grid.code.range().0);
                    assert_eq!(grid.code.code(max[pixel * c + channel]), want, "seed {seed}");
                    let sum = codes().fold(0f32, |sum, v| sum + grid.scale * (v - grid.zero_point) as f32);
                    let count =
                        if count_pads { shape.kernel[0] * shape.kernel[1] } else { taps.len().max(1) };
                    let v = sum / count as f32 / out.grid.scale + out.grid.zero_point as f32;
                    let got = out.grid.code.code(mean[pixel * c + channel]);
                    assert_eq!(got, saturate(v, 0, &out), "seed {seed} {shape:?}");
                }
            }
        }
    }
}

#[test]
fn mean_over_the_image() {
    for seed in 0..100 {
        let rng = &mut Rng::new(seed);
        let layout = ImageLayout {
            h: rng.range(1, 9),
            w: rng.range(1, 9),
            c: rng.pick(&[1, 3, 64, 65, 200]),
            halo: rng.halo(2),
        };
        let (pixels, c) = (layout.h * layout.w, layout.c);
        let x = rng.floats(pixels * c);
        let codes = rng.bytes(pixels * c);
        let (grid, step) = (rng.grid(), rng.scale());
        let out = rng.out_grid(step);
        for kernels in Kernels::all() {
            let mut y = vec![0f32; c];
            global_average_pool(kernels, &surrounded(&layout, &x, f32::NAN), &layout, &mut y).unwrap();
            let mut q = vec![0u8; c];
            let buffer = surrounded(&layout, &codes, 0x3c);
            qlinear_global_average_pool(kernels, (&buffer, &grid), &layout, &mut q, &out).unwrap();
            for channel in 0..c {
                let want = (0..pixels).map(|p| f64::from(x[p * c + channel])).sum::<f64>() / pixels as f64;
                assert!(close(y[channel], want, 1.0), "seed {seed}");
                let sum: i32 =
                    (0..pixels).map(|p| grid.code.code(codes[p * c + channel]) - grid.zero_point).sum();
                let r = grid.scale / (out.grid.scale * pixels as f32);
                let want = saturate(sum as f32 * r, out.grid.zero_point, &out);
                assert_eq!(out.grid.code.code(q[channel]), want, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_maximum_keeps_nan() {
    let shape = PoolShape::new(ImageLayout::dense(1, 4, 1), 1, 1);
    let shape = PoolShape { kernel: [1, 4], ..shape };
    for kernels in Kernels::all() {
        for at in 0..4 {
            let mut x = [1f32, 5.0, 2.0, 3.0];
            x[at] = f32::NAN;
            let mut y = [0f32];
            max_pool(kernels, &shape, &x, &mut y).unwrap();
            assert!(y[0].is_nan());
        }
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let k = Kernels::detect();
    let shape = PoolShape::new(ImageLayout::dense(4, 4, 1), 2, 2);
    assert_eq!(max_pool(k, &shape, &[0.0; 16], &mut [0.0; 4]), Ok(()));
    assert!(max_pool(k, &shape, &[0.0; 15], &mut [0.0; 4]).is_err());
    assert!(max_pool(k, &shape, &[0.0; 16], &mut [0.0; 3]).is_err());
    let flat = PoolShape { stride: [0, 1], ..shape };
    assert_eq!(max_pool(k, &flat, &[0.0; 16], &mut []), Err(KernelError::Zero("stride")));
    let none = ImageLayout::dense(0, 4, 1);
    assert_eq!(global_average_pool(k, &[], &none, &mut [0.0]), Err(KernelError::Zero("h")));
}
