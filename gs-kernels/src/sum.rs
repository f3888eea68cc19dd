//! Sums of images on their way to the next layer: each term scaled and shifted per channel (a batch normalisation), the sum
//! limited (an activation), and maybe rounded to a grid, while the range of the sum is watched. All of that is one pass.

use super::channels::{Band, check, check_bands, pieces};
use super::conv_f32::Clip;
use super::elementwise::clipped;
use super::error::{KernelError, check_len};
use super::fake_quant::{Extremes, FakeQuant, widen};
use super::isa::{Job, Kernels};
use super::shape::ImageLayout;
use super::simd::Simd;

/// A term of a sum: an image, scaled and shifted per channel if there are bands for that.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// The image's buffer.
    pub x: &'a [f32],
    /// Scale and shift.
    pub affine: Option<(&'a [f32], &'a [f32])>,
}

/// `clip(a + b)`, without `b` only `a`: what [`sum_channels`] and [`sum_quantised`] compute.
#[derive(Clone, Copy, Debug)]
pub struct ChannelSum<'a> {
    /// The first term.
    pub a: Term<'a>,
    /// The second.
    pub b: Option<Term<'a>>,
    /// Limits of the sum.
    pub clip: Clip,
}

impl ChannelSum<'_> {
    fn check(&self, layout: &ImageLayout, band: Band, y: usize) -> Result<(), KernelError> {
        check(layout, band, &[("y", y)])?;
        for term in [Some(self.a), self.b].into_iter().flatten() {
            check_len("x", layout.len(), term.x.len())?;
            if let Some((scale, shift)) = term.affine {
                check_bands(band, &[scale, shift])?;
            }
        }
        Ok(())
    }

    /// The sum at `n` elements from `at` on, which a band covers.
    #[inline(always)]
    fn piece(&self, at: usize, n: usize, y: &mut [f32]) {
        let (clip, a, y) = (self.clip, &self.a.x[at..at + n], &mut y[..n]);
        match (self.a.affine, self.b) {
            (None, None) => {
                for i in 0..n {
                    y[i] = clipped(a[i], clip);
                }
            }
            (Some((s, t)), None) => {
                let (s, t) = (&s[..n], &t[..n]);
                for i in 0..n {
                    y[i] = clipped(a[i] * s[i] + t[i], clip);
                }
            }
            (None, Some(Term { x, affine: None })) => {
                let b = &x[at..at + n];
                for i in 0..n {
                    y[i] = clipped(a[i] + b[i], clip);
                }
            }
            (Some((s, t)), Some(Term { x, affine: None }))
            | (None, Some(Term { x, affine: Some((s, t)) })) => {
                let (x, s, t) = (&x[at..at + n], &s[..n], &t[..n]);
                let (a, b) = if self.a.affine.is_some() { (a, x) } else { (x, a) };
                for i in 0..n {
                    y[i] = clipped(a[i] * s[i] + t[i] + b[i], clip);
                }
            }
            (Some((s1, t1)), Some(Term { x, affine: Some((s2, t2)) })) => {
                let b = &x[at..at + n];
                let (s1, t1, s2, t2) = (&s1[..n], &t1[..n], &s2[..n], &t2[..n]);
                for i in 0..n {
                    y[i] = clipped((a[i] * s1[i] + t1[i]) + (b[i] * s2[i] + t2[i]), clip);
                }
            }
        }
    }
}

/// `y = clip(a + b)` where either may be scaled and shifted per channel.
///
/// # Errors
/// Lengths that do not fit the layout or the band.
pub fn sum_channels(
    kernels: Kernels,
    layout: &ImageLayout,
    sum: &ChannelSum<'_>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    sum.check(layout, band, y.len())?;
    kernels.run(Sum { layout, band, sum, y });
    Ok(())
}

struct Sum<'a> {
    layout: &'a ImageLayout,
    band: Band,
    sum: &'a ChannelSum<'a>,
    y: &'a mut [f32],
}

impl Job for Sum<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pieces(self.layout, self.band, |at, n| self.sum.piece(at, n, &mut self.y[at..at + n]));
    }
}

/// What is kept of a sum before it is rounded, for the way back.
#[derive(Debug)]
pub enum Keep<'a> {
    /// Nothing.
    Nothing,
    /// The sum itself.
    Value(&'a mut [f32]),
    /// 1 where gradients pass: where the grid covers the sum, and, if `positive`, only where it is above 0.
    Gate {
        /// One byte for each element of the layout.
        gate: &'a mut [u8],
        /// Whether a relu stands before.
        positive: bool,
    },
}

/// Where [`sum_quantised`] puts what it makes.
#[derive(Debug)]
pub struct Quantised<'a> {
    /// The rounded sum.
    pub y: &'a mut [f32],
    /// What is kept besides.
    pub keep: Keep<'a>,
    /// The lowest element so far, and the highest: those of the sum are taken in. NaN is passed over.
    pub range: &'a mut [f32; 2],
}

/// As [`sum_channels`], rounded to a grid.
///
/// # Errors
/// Lengths that do not fit the layout or the band.
pub fn sum_quantised(
    kernels: Kernels,
    layout: &ImageLayout,
    sum: &ChannelSum<'_>,
    grid: FakeQuant,
    scratch: &mut super::Scratch,
    out: Quantised<'_>,
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    sum.check(layout, band, out.y.len())?;
    match &out.keep {
        Keep::Nothing => {}
        Keep::Value(v) => check_len("kept", layout.len(), v.len())?,
        Keep::Gate { gate, .. } => check_len("gate", layout.len(), gate.len())?,
    }
    let values = scratch.get::<f32>(band.len());
    let mut seen = Extremes::NONE;
    kernels.run(SumQuantised { layout, band, sum, grid, values, seen: &mut seen, y: out.y, keep: out.keep });
    widen(out.range, seen.range());
    Ok(())
}

struct SumQuantised<'a> {
    layout: &'a ImageLayout,
    band: Band,
    sum: &'a ChannelSum<'a>,
    grid: FakeQuant,
    values: &'a mut [f32],
    seen: &'a mut Extremes,
    y: &'a mut [f32],
    keep: Keep<'a>,
}

impl Job for SumQuantised<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let mut seen = *self.seen;
        pieces(self.layout, self.band, |at, n| {
            let (values, y) = (&mut self.values[..n], &mut self.y[at..at + n]);
            self.sum.piece(at, n, values);
            seen.take(values);
            for i in 0..n {
                y[i] = self.grid.round(values[i]);
            }
            match &mut self.keep {
                Keep::Nothing => {}
                Keep::Value(kept) => kept[at..at + n].copy_from_slice(values),
                Keep::Gate { gate, positive } => {
                    let (gate, grid) = (&mut gate[at..at + n], self.grid);
                    let above = if *positive { 0.0 } else { f32::NEG_INFINITY };
                    for i in 0..n {
                        gate[i] = u8::from(grid.passes(values[i]) & (values[i] > above));
                    }
                }
            }
        });
        *self.seen = seen;
    }
}
