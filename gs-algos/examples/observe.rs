//! Measures how many values per second one core feeds into each observer, and how long a range takes.
//!
//! `cargo run --release -p gs-algos --example observe`; with file names of raw little-endian `f32` data it
//! instead prints, as JSON lines, the range that each kind chooses on an 8-bit and a 4-bit grid.
#![allow(clippy::print_stdout, reason = "an example")]

use gs_algos::observers::{AnyObserver, Observer, ObserverKind, WeightRule, channel_ranges};
use gs_algos::quant::{Grid, IntRange, Range};
use std::hint::black_box;
use std::time::Instant;

/// A bell curve around zero, or its positive part, by summing random bytes.
fn tensor(len: usize, relu: bool) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = state.to_le_bytes().iter().map(|&b| f32::from(b) - 127.5).sum::<f32>() / 208.0;
            let x = x + (state >> 40) as f32 * 1e-9;
            if relu { x.max(0.0) } else { x }
        })
        .collect()
}

fn bench() -> Result<(), Box<dyn std::error::Error>> {
    for (name, relu, len) in [("signed", false, 1 << 20), ("relu", true, 1 << 20), ("relu 2k", true, 2048)] {
        let values = tensor(len, relu);
        for kind in ["minmax", "percentile", "entropy", "mse", "std", "ema"] {
            let mut observer = AnyObserver::new(kind.parse::<ObserverKind>()?);
            observer.observe(&values);
            let mut best = f64::INFINITY;
            for _ in 0..15 {
                let start = Instant::now();
                for _ in 0..(1 << 22) / len {
                    observer.observe(black_box(&values));
                }
                best = best.min(start.elapsed().as_secs_f64() / f64::from(1 << 22));
            }
            let start = Instant::now();
            let range = observer.range(Grid::U8)?;
            let micros = start.elapsed().as_secs_f64() * 1e6;
            println!(
                "{name:8} {kind:10} {:6.0} M values/s   range in {micros:7.0} us: {range:?}",
                1e-6 / best
            );
        }
    }
    let weights = tensor(1 << 20, false);
    for rule in [WeightRule::MinMax, WeightRule::Mse { norm: 2.0 }] {
        let start = Instant::now();
        black_box(channel_ranges(&weights, &[256, 1 << 12], 0, rule, Grid::S8_WEIGHT)?);
        println!("weights  {rule:?}: {:.1} ms per million", start.elapsed().as_secs_f64() * 1e3);
    }
    let params = Grid::U8.params(Range::new(-3.0, 3.0)?);
    let mut values = weights;
    let mut best = f64::INFINITY;
    for _ in 0..15 {
        let start = Instant::now();
        params.fake_quant_in_place(black_box(&mut values));
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("fake_quant {:.0} M values/s", values.len() as f64 * 1e-6 / best);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        return bench();
    }
    for file in files {
        let bytes = std::fs::read(&file)?;
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let mut observer = AnyObserver::new(ObserverKind::Entropy);
        observer.observe(&values);
        let histogram = observer.histogram().ok_or("no histogram")?;
        for (name, int) in [("u8", IntRange::U8), ("u4", IntRange::new(4, false, false)?)] {
            for kind in
                ["minmax", "percentile", "percentile{p=99.9}", "entropy", "mse", "mse{norm=2.4}", "std"]
            {
                for symmetric in [false, true] {
                    let range = kind.parse::<ObserverKind>()?.range_of(histogram, Grid { int, symmetric })?;
                    let line = serde_json::json!({
                        "file": file, "grid": name, "kind": kind, "symmetric": symmetric,
                        "min": range.min(), "max": range.max(),
                    });
                    println!("{line}");
                }
            }
        }
    }
    Ok(())
}
