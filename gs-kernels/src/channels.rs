//! Passes over one image with numbers per channel: what batch normalisation is made of, forward and backward.
//!
//! Numbers per channel are given as a *band*: repeated until the band is long enough for vectors ([`Band`]), so that rows of
//! any number of channels are plain loops over slices, which the compiler vectorises for each instruction set. All buffers
//! of a call have one layout. Sums of one image are `f32`, those over images `f64`.

use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::shape::{ImageLayout, nonzero};
use super::simd::Simd;

/// The least elements of a band.
const BAND: usize = 64;

/// How numbers per channel are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    channels: usize,
    len: usize,
}

impl Band {
    /// For so many channels.
    pub fn new(channels: usize) -> Band {
        let channels = channels.max(1);
        Band { channels, len: channels * BAND.div_ceil(channels) }
    }

    /// Number of channels.
    pub fn channels(self) -> usize {
        self.channels
    }

    /// Elements of a band.
    pub fn len(self) -> usize {
        self.len
    }

    /// Never: there is at least one channel.
    pub fn is_empty(self) -> bool {
        false
    }

    /// Repeats numbers per channel.
    pub fn fill(self, band: &mut [f32], value: impl Fn(usize) -> f32) {
        band.iter_mut().enumerate().for_each(|(i, b)| *b = value(i % self.channels));
    }

    fn fold(self, sums: &[f32], channel: usize) -> f64 {
        sums.iter().skip(channel).step_by(self.channels).map(|&v| f64::from(v)).sum()
    }
}

/// The rows of an image in its buffer.
fn rows(layout: &ImageLayout) -> (usize, usize, usize, usize) {
    let start = layout.halo.top * layout.row_len() + layout.halo.left * layout.c;
    if layout.rows_touch() {
        // One long row.
        return (start, layout.h * layout.w * layout.c, 1, layout.h * layout.row_len());
    }
    (start, layout.w * layout.c, layout.h, layout.row_len())
}

/// Calls `f` with the first element of each piece of rows that a band covers, and the piece's length.
#[inline(always)]
pub(super) fn pieces(layout: &ImageLayout, band: Band, mut f: impl FnMut(usize, usize)) {
    let (start, width, count, step) = rows(layout);
    for row in 0..count {
        let mut at = 0;
        while at < width {
            let n = band.len.min(width - at);
            f(start + row * step + at, n);
            at += n;
        }
    }
}

pub(super) fn check(
    layout: &ImageLayout,
    band: Band,
    buffers: &[(&'static str, usize)],
) -> Result<(), KernelError> {
    layout.check()?;
    nonzero("channels", layout.c)?;
    check_len("channels", layout.c, band.channels)?;
    buffers.iter().try_for_each(|&(name, len)| check_len(name, layout.len(), len))
}

pub(super) fn check_bands(band: Band, bands: &[&[f32]]) -> Result<(), KernelError> {
    bands.iter().try_for_each(|b| check_len("band", band.len, b.len()))
}

/// Number, mean and sum of squared distances from the mean, of each channel.
#[derive(Debug)]
pub struct Moments<'a> {
    /// Elements of a channel so far.
    pub count: &'a mut f64,
    /// Means.
    pub mean: &'a mut [f64],
    /// Sums of squared distances.
    pub squares: &'a mut [f64],
}

impl<'a> Moments<'a> {
    /// Elements that moments of so many channels take.
    pub fn len_of(channels: usize) -> usize {
        1 + 2 * channels
    }

    /// Moments in a slice of [`Self::len_of`] elements, zero at first.
    pub fn of(slice: &'a mut [f64]) -> Option<Self> {
        let (count, rest) = slice.split_first_mut()?;
        let (mean, squares) = rest.split_at_mut(rest.len() / 2);
        Some(Moments { count, mean, squares })
    }

    /// Adds those of other elements (Chan, Golub and LeVeque 1979).
    pub fn add(&mut self, count: f64, mean: impl Fn(usize) -> f64, squares: impl Fn(usize) -> f64) {
        let total = *self.count + count;
        if total == 0.0 {
            return;
        }
        for (c, (m, s)) in self.mean.iter_mut().zip(self.squares.iter_mut()).enumerate() {
            let d = mean(c) - *m;
            *s += squares(c) + d * d * *self.count * count / total;
            *m += d * count / total;
        }
        *self.count = total;
    }
}

/// Adds the elements of one image to the moments of its channels. Two passes, so that a mean far from 0 costs no digits.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn moments(
    kernels: Kernels,
    layout: &ImageLayout,
    x: &[f32],
    scratch: &mut super::Scratch,
    into: &mut Moments<'_>,
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    check(layout, band, &[("x", x.len())])?;
    check_len("mean", layout.c, into.mean.len())?;
    let (sums, means) = scratch.get::<f32>(2 * band.len).split_at_mut(band.len);
    let n = (layout.h * layout.w) as f64;
    sums.fill(0.0);
    kernels.run(Add { layout, band, x, sums });
    // Distances are from the mean rounded to f32; what the rounding changes is taken off again.
    band.fill(means, |c| (band.fold(sums, c) / n) as f32);
    sums.fill(0.0);
    let mut exact = vec![0.0f64; layout.c];
    exact.iter_mut().enumerate().for_each(|(c, e)| *e = f64::from(means[c]));
    let mut first = vec![0.0f32; band.len];
    kernels.run(Squares { layout, band, x, means, first: &mut first, squares: sums });
    let shift: Vec<f64> = (0..layout.c).map(|c| band.fold(&first, c) / n).collect();
    into.add(n, |c| exact[c] + shift[c], |c| band.fold(sums, c) - n * shift[c] * shift[c]);
    Ok(())
}

/// Adds each channel's sum over one image to `into`.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn channel_sums(
    kernels: Kernels,
    layout: &ImageLayout,
    x: &[f32],
    scratch: &mut super::Scratch,
    into: &mut [f64],
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    check(layout, band, &[("x", x.len())])?;
    check_len("sums", layout.c, into.len())?;
    let sums = scratch.get::<f32>(band.len);
    sums.fill(0.0);
    kernels.run(Add { layout, band, x, sums });
    into.iter_mut().enumerate().for_each(|(c, s)| *s += band.fold(sums, c));
    Ok(())
}

struct Add<'a> {
    layout: &'a ImageLayout,
    band: Band,
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Job for Add<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pieces(self.layout, self.band, |at, n| {
            let (sums, x) = (&mut self.sums[..n], &self.x[at..at + n]);
            for i in 0..n {
                sums[i] += x[i];
            }
        });
    }
}

struct Squares<'a> {
    layout: &'a ImageLayout,
    band: Band,
    x: &'a [f32],
    means: &'a [f32],
    first: &'a mut [f32],
    squares: &'a mut [f32],
}

impl Job for Squares<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pieces(self.layout, self.band, |at, n| {
            let (x, means) = (&self.x[at..at + n], &self.means[..n]);
            let (first, squares) = (&mut self.first[..n], &mut self.squares[..n]);
            for i in 0..n {
                let d = x[i] - means[i];
                first[i] += d;
                squares[i] += d * d;
            }
        });
    }
}

/// Adds to `into` the sums over one image of `dy` and of `dy * (x - mean)` per channel: first all of the former, then all
/// of the latter. `mean` is a band.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn norm_grad_sums(
    kernels: Kernels,
    layout: &ImageLayout,
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    scratch: &mut super::Scratch,
    into: &mut [f64],
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    check(layout, band, &[("dy", dy.len()), ("x", x.len())])?;
    check_bands(band, &[mean])?;
    check_len("sums", 2 * layout.c, into.len())?;
    let (plain, scaled) = scratch.get::<f32>(2 * band.len).split_at_mut(band.len);
    plain.fill(0.0);
    scaled.fill(0.0);
    kernels.run(NormSums { layout, band, dy, x, mean, plain, scaled });
    let (first, second) = into.split_at_mut(layout.c);
    first.iter_mut().enumerate().for_each(|(c, s)| *s += band.fold(plain, c));
    second.iter_mut().enumerate().for_each(|(c, s)| *s += band.fold(scaled, c));
    Ok(())
}

struct NormSums<'a> {
    layout: &'a ImageLayout,
    band: Band,
    dy: &'a [f32],
    x: &'a [f32],
    mean: &'a [f32],
    plain: &'a mut [f32],
    scaled: &'a mut [f32],
}

impl Job for NormSums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pieces(self.layout, self.band, |at, n| {
            let (dy, x, mean) = (&self.dy[at..at + n], &self.x[at..at + n], &self.mean[..n]);
            let (plain, scaled) = (&mut self.plain[..n], &mut self.scaled[..n]);
            for i in 0..n {
                plain[i] += dy[i];
                scaled[i] += dy[i] * (x[i] - mean[i]);
            }
        });
    }
}

/// `dx = dy * a + x * b + c` per channel; `a`, `b`, `c` are bands.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn norm_grad_apply(
    kernels: Kernels,
    layout: &ImageLayout,
    dy: &[f32],
    x: &[f32],
    bands: [&[f32]; 3],
    dx: &mut [f32],
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    check(layout, band, &[("dy", dy.len()), ("x", x.len()), ("dx", dx.len())])?;
    check_bands(band, &bands)?;
    kernels.run(NormApply { layout, band, dy, x, bands, dx });
    Ok(())
}

struct NormApply<'a> {
    layout: &'a ImageLayout,
    band: Band,
    dy: &'a [f32],
    x: &'a [f32],
    bands: [&'a [f32]; 3],
    dx: &'a mut [f32],
}

impl Job for NormApply<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pieces(self.layout, self.band, |at, n| {
            let (dy, x, dx) = (&self.dy[at..at + n], &self.x[at..at + n], &mut self.dx[at..at + n]);
            let [a, b, c] = self.bands.map(|b| &b[..n]);
            for i in 0..n {
                dx[i] = (dy[i] * a[i] + x[i] * b[i]) + c[i];
            }
        });
    }
}

/// As [`norm_grad_apply`], with `dy` in `dx`.
///
/// # Errors
/// Lengths that do not fit the layout.
pub fn norm_grad_apply_assign(
    kernels: Kernels,
    layout: &ImageLayout,
    x: &[f32],
    bands: [&[f32]; 3],
    dx: &mut [f32],
) -> Result<(), KernelError> {
    let band = Band::new(layout.c);
    check(layout, band, &[("x", x.len()), ("dx", dx.len())])?;
    check_bands(band, &bands)?;
    kernels.run(NormAssign { layout, band, x, bands, dx });
    Ok(())
}

struct NormAssign<'a> {
    layout: &'a ImageLayout,
    band: Band,
    x: &'a [f32],
    bands: [&'a [f32]; 3],
    dx: &'a mut [f32],
}

impl Job for NormAssign<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pieces(self.layout, self.band, |at, n| {
            let (x, dx) = (&self.x[at..at + n], &mut self.dx[at..at + n]);
            let [a, b, c] = self.bands.map(|b| &b[..n]);
            for i in 0..n {
                dx[i] = (dx[i] * a[i] + x[i] * b[i]) + c[i];
            }
        });
    }
}
