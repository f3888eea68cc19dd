//! Speed of the convolution and product kernels on one thread, for every instruction set of the machine, against its measured
//! multiply-add peak: `cargo run --release -p gs-kernels --example kernel_bench [substring of a shape or set]`.
//!
//! Inputs are read in place (their halo holds the padding) and after a padded copy. Each number is the best of several rounds.
#![allow(clippy::print_stdout)] // a benchmark's output is its purpose

use std::time::Instant;

use gs_kernels::*;

const ROUNDS: usize = 12;
/// Multiply-adds of a round: about ten milliseconds at float peak.
const ROUND_MACS: f64 = 5e8;

fn main() -> Result<(), KernelError> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    for kernels in Kernels::all() {
        let set = kernels.isa().name();
        let peak = measure_peak(kernels);
        println!(
            "{set}: peak {:.0} float, {:.0} integer (giga-operations per second)",
            peak.float / 1e9,
            peak.codes / 1e9
        );
        println!(
            "{:28}{:>9}{:>6}{:>9}{:>9}{:>9}{:>7}",
            "", "float", "peak", "copied", "integer", "copied", "ratio"
        );
        for (name, shape) in convolutions() {
            if set.contains(&filter) || name.contains(&filter) {
                report(name, &peak, time_conv(kernels, &shape)?);
            }
        }
        for (name, rows, shape) in products() {
            if set.contains(&filter) || name.contains(&filter) {
                report(name, &peak, time_linear(kernels, rows, shape)?);
            }
        }
        println!();
    }
    Ok(())
}

fn convolutions() -> Vec<(&'static str, ConvShape)> {
    let conv = ConvShape::new;
    vec![
        ("resnet20 3>16 32x32", conv(32, 32, 3, 16, 3).padded(1)),
        ("resnet20 16>16 32x32", conv(32, 32, 16, 16, 3).padded(1)),
        ("resnet20 16>32 32x32 /2", conv(32, 32, 16, 32, 3).padded(1).strided(2)),
        ("resnet20 32>32 16x16", conv(16, 16, 32, 32, 3).padded(1)),
        ("resnet20 32>64 16x16 /2", conv(16, 16, 32, 64, 3).padded(1).strided(2)),
        ("resnet20 64>64 8x8", conv(8, 8, 64, 64, 3).padded(1)),
        ("resnet20 16>32 1x1 /2", conv(32, 32, 16, 32, 1).strided(2)),
        ("resnet50 3>64 7x7 224 /2", conv(224, 224, 3, 64, 7).padded(3).strided(2)),
        ("resnet50 256>256 14x14", conv(14, 14, 256, 256, 3).padded(1)),
        ("resnet50 512>512 7x7", conv(7, 7, 512, 512, 3).padded(1)),
        ("mobilenet 128>256 1x1 28", conv(28, 28, 128, 256, 1)),
        ("mobilenet depthwise 64 56", conv(56, 56, 64, 64, 3).padded(1).grouped(64)),
        ("mobilenet depthwise 64 /2", conv(56, 56, 64, 64, 3).padded(1).strided(2).grouped(64)),
        ("mobilenet depthwise 512 14", conv(14, 14, 512, 512, 3).padded(1).grouped(512)),
        ("odd 13>29 19x19", conv(19, 19, 13, 29, 3).padded(1)),
        ("32 groups 128>128 28x28", conv(28, 28, 128, 128, 3).padded(1).grouped(32)),
    ]
}

fn products() -> Vec<(&'static str, usize, LinearShape)> {
    let shape = |inputs, outputs| LinearShape { inputs, outputs, order: WeightOrder::OutIn };
    vec![
        ("product 512x512x512", 512, shape(512, 512)),
        ("product 64x2048x2048", 64, shape(2048, 2048)),
        ("product 1x2048x2048", 1, shape(2048, 2048)),
    ]
}

/// Multiply-adds, and seconds of float in place, float copied, integer in place, integer copied (infinite: no such case).
struct Times {
    macs: usize,
    seconds: [f64; 4],
}

fn report(name: &str, peak: &Peak, times: Times) {
    let [float, float_copied, codes, codes_copied] = times.seconds.map(|s| 2e-9 * times.macs as f64 / s);
    println!(
        "{name:28}{float:>9.1}{:>5.0}%{float_copied:>9.1}{codes:>9.1}{codes_copied:>9.1}{:>7.2}",
        100e9 * float / peak.float,
        codes / float
    );
}

/// Seconds of the best round of `run`, for one call.
fn best(macs: usize, mut run: impl FnMut() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let calls = (ROUND_MACS / macs as f64).ceil().max(1.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..calls {
            run()?;
        }
        best = best.min(start.elapsed().as_secs_f64() / calls as f64);
    }
    Ok(best)
}

fn time_conv(kernels: Kernels, shape: &ConvShape) -> Result<Times, KernelError> {
    let weights = vec![0.1f32; shape.weight_len()];
    let codes = vec![3i8; shape.weight_len()];
    let weights_q = QWeights { codes: &codes, scales: &[0.1], bias: None };
    let out = QOutput::Codes(OutGrid::full(Grid::u8(0.2, 7)));
    let out_len = shape.out_h() * shape.out_w() * shape.c_out;
    let (mut y, mut y_codes) = (vec![0f32; out_len], vec![0u8; out_len]);
    let mut scratch = Scratch::new();
    let mut seconds = [f64::INFINITY; 4];
    for (i, halo) in [shape.pads[0], 0].into_iter().enumerate() {
        let halos = ConvHalos { x: Halo::uniform(halo), ..ConvHalos::default() };
        let len = ImageLayout { h: shape.h, w: shape.w, c: shape.c_in, halo: halos.x }.len();
        let (x, x_codes) = (vec![0.5f32; len], vec![100u8; len]);
        let conv = ConvF32::new(kernels, shape, &halos, &weights, None, RELU)?;
        seconds[i] = best(shape.macs(), || conv.run(&x, None, &mut y, &mut scratch))?;
        let conv = ConvQ::new(kernels, shape, &halos, Grid::u8(0.1, 3), weights_q, out)?;
        seconds[2 + i] = best(shape.macs(), || conv.run(&x_codes, &mut y_codes, &mut scratch))?;
    }
    Ok(Times { macs: shape.macs(), seconds })
}

fn time_linear(kernels: Kernels, rows: usize, shape: LinearShape) -> Result<Times, KernelError> {
    let size = shape.inputs * shape.outputs;
    let (weights, codes) = (vec![0.1f32; size], vec![3i8; size]);
    let (x, x_codes) = (vec![0.5f32; rows * shape.inputs], vec![100u8; rows * shape.inputs]);
    let (mut y, mut y_codes) = (vec![0f32; rows * shape.outputs], vec![0u8; rows * shape.outputs]);
    let weights_q = QWeights { codes: &codes, scales: &[0.1], bias: None };
    let out = QOutput::Codes(OutGrid::full(Grid::u8(0.2, 7)));
    let mut scratch = Scratch::new();
    let linear = LinearF32::new(kernels, shape, &weights, None, RELU)?;
    let float = best(rows * size, || linear.run(&x, None, &mut y))?;
    let linear = LinearQ::new(kernels, shape, Grid::u8(0.1, 3), weights_q, out)?;
    let integer = best(rows * size, || linear.run(&x_codes, &mut y_codes, &mut scratch))?;
    Ok(Times { macs: rows * size, seconds: [float, f64::INFINITY, integer, f64::INFINITY] })
}
