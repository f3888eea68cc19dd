//! What the processor can do at most: multiply-adds in registers only. The measure against which kernels are reported.

use std::hint::black_box;
use std::time::Instant;

use super::isa::{Job, Kernels};
use super::simd::Simd;
use super::tile::{CodeMac, FloatMac, Mac};

/// Independent sums: enough to hide the latency of the instruction, few enough to stay in 16 registers.
const SUMS: usize = 12;
const STEPS: usize = 20_000;

/// Measured operations per second of one thread, a multiply and an add counting as two.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Float operations per second.
    pub float: f64,
    /// Operations per second on quantised codes.
    pub codes: f64,
}

/// Measures for a few milliseconds.
pub fn measure_peak(kernels: Kernels) -> Peak {
    kernels.run(PeakJob)
}

struct PeakJob;

impl Job for PeakJob {
    type Out = Peak;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Peak {
        let words = (2 * STEPS * SUMS * S::LANES) as f64;
        Peak {
            float: words / fastest(FloatMac(s)),
            codes: words * S::CODES_PER_WORD as f64 / fastest(CodeMac(s)),
        }
    }
}

/// Seconds of the fastest of several rounds.
#[inline(always)]
fn fastest<M: Mac>(m: M) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..30 {
        let start = Instant::now();
        let mut acc = [m.zero(); SUMS];
        // Not known to the compiler, so that the loop is not folded away.
        let x = black_box(m.zero());
        for _ in 0..STEPS {
            for acc in acc.iter_mut() {
                *acc = m.mac(*acc, x, *acc);
            }
        }
        black_box(&acc);
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
