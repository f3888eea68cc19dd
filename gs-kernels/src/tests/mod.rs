//! Every kernel on every instruction set of the machine against plain loops, on seeded random shapes.
//!
//! Integer results must be equal; float results may differ by rounding of the sums only.

mod conv;
mod elementwise;
mod gradient;
mod linear;
mod pool;

use super::*;

/// A small generator, so that a failing case can be repeated from its seed.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `lo` to `hi`, both included.
    pub(super) fn range(&mut self, lo: usize, hi: usize) -> usize {
        lo + (self.next() % (hi - lo + 1) as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() - 1)]
    }

    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.next().is_multiple_of(one_in)
    }

    /// From -1 to 1.
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    /// Often an extreme, where saturation would show.
    pub(super) fn byte(&mut self) -> u8 {
        if self.chance(4) { self.pick(&[0, 255, 127, 128]) } else { self.next() as u8 }
    }

    pub(super) fn signed(&mut self, n: usize) -> Vec<i8> {
        self.bytes(n).into_iter().map(|b| b as i8).collect()
    }

    /// Any scale, or a power of two, which makes ties common.
    pub(super) fn scale(&mut self) -> f32 {
        if self.chance(2) {
            self.pick(&[0.0625, 0.125, 0.25, 0.5])
        } else {
            0.01 + (self.float() + 1.0) * 0.2
        }
    }

    pub(super) fn grid(&mut self) -> Grid {
        let (scale, byte) = (self.scale(), self.byte());
        if self.chance(3) { Grid::i8(scale, byte as i8) } else { Grid::u8(scale, byte) }
    }

    /// The whole range, or limits inside it.
    pub(super) fn out_grid(&mut self, scale: f32) -> OutGrid {
        let grid = Grid { scale, ..self.grid() };
        let (lo, hi) = grid.code.range();
        if self.chance(2) {
            OutGrid::full(grid)
        } else {
            let a = lo + self.range(0, (hi - lo) as usize) as i32;
            let b = lo + self.range(0, (hi - lo) as usize) as i32;
            OutGrid::clamped(grid, a.min(b), a.max(b))
        }
    }

    pub(super) fn halo(&mut self, most: usize) -> Halo {
        Halo {
            top: self.range(0, most),
            left: self.range(0, most),
            bottom: self.range(0, most),
            right: self.range(0, most),
        }
    }
}

/// Nearest integer, half to even, then limits: written without the kernels' tricks.
pub(super) fn saturate(v: f32, zero_after: i32, out: &OutGrid) -> i32 {
    let rounded = f64::from(v).round_ties_even() + f64::from(zero_after);
    rounded.clamp(f64::from(out.lo), f64::from(out.hi)) as i32
}

/// The inside of an image buffer, `[h, w, c]`.
pub(super) fn inside<T: Copy>(layout: &ImageLayout, buffer: &[T]) -> Vec<T> {
    let mut out = Vec::new();
    for y in 0..layout.h {
        let start = (layout.halo.top + y) * layout.row_len() + layout.halo.left * layout.c;
        out.extend_from_slice(&buffer[start..start + layout.w * layout.c]);
    }
    out
}

/// A buffer with `image` inside and `fill` in the halo.
pub(super) fn surrounded<T: Copy>(layout: &ImageLayout, image: &[T], fill: T) -> Vec<T> {
    let mut out = vec![fill; layout.len()];
    for y in 0..layout.h {
        let start = (layout.halo.top + y) * layout.row_len() + layout.halo.left * layout.c;
        let row = layout.w * layout.c;
        out[start..start + row].copy_from_slice(&image[y * row..(y + 1) * row]);
    }
    out
}

/// Whether a sum in single precision can be `got` if the exact one is `want` and its terms have absolute sum `size`.
pub(super) fn close(got: f32, want: f64, size: f64) -> bool {
    (f64::from(got) - want).abs() <= 2e-6 * size + 1e-12
}

#[test]
fn portable_is_always_there_and_the_best_is_chosen() {
    let all = Kernels::all();
    assert_eq!(all[0].isa(), Isa::Portable);
    assert_eq!(*all.last().unwrap(), Kernels::detect());
}
