//! Depthwise convolution: one vector of channels at a time, a few output pixels in registers. There is no sum over channels,
//! so a vector lane is a channel, and input vectors are loaded rather than broadcast.
//!
//! Where the window is three columns wide and moves by one, each input vector is loaded once for the up to three outputs that
//! use it. The terms of an output are added in the same order either way.

use std::mem::MaybeUninit;

use super::error::KernelError;
use super::memory::Words;
use super::shape::bounded;
use super::simd::Simd;
use super::tile::{Area, CodeMac, Finish, FloatMac, Mac};

/// Lane-wise products of a vector of input channels and a vector of weights.
pub(super) trait LaneMac: Mac {
    /// Bytes of an input element.
    const ELEMENT: usize;
    /// # Safety
    /// `p` is valid for reading `LANES` input elements.
    unsafe fn load_input(self, p: *const u8) -> Self::V;
    fn lane_mac(self, acc: Self::V, x: Self::V, w: Self::V) -> Self::V;
}

impl<S: Simd> LaneMac for FloatMac<S> {
    const ELEMENT: usize = 4;

    #[inline(always)]
    unsafe fn load_input(self, p: *const u8) -> S::F {
        // SAFETY: the caller promises `LANES` floats.
        unsafe { self.0.f_load(p.cast()) }
    }

    #[inline(always)]
    fn lane_mac(self, acc: S::F, x: S::F, w: S::F) -> S::F {
        self.0.f_mul_add(x, w, acc)
    }
}

impl<S: Simd> LaneMac for CodeMac<S> {
    const ELEMENT: usize = 1;

    #[inline(always)]
    unsafe fn load_input(self, p: *const u8) -> S::I {
        // SAFETY: the caller promises `LANES` bytes.
        unsafe { self.0.i_widen(p) }
    }

    #[inline(always)]
    fn lane_mac(self, acc: S::I, x: S::I, w: S::I) -> S::I {
        self.0.i_mul_add(acc, x, w)
    }
}

/// Shape and packed weights of a depthwise convolution.
#[derive(Clone, Debug)]
pub(super) struct DepthwisePlan {
    channels: usize,
    lanes: usize,
    kernel: [usize; 2],
    /// Input bytes between rows of taps.
    tap_row: usize,
    /// Input bytes between columns of taps.
    tap_column: usize,
    /// Input bytes between neighbouring output pixels.
    pixel_bytes: usize,
    /// Bytes of an input element.
    element: usize,
    /// `[vector][tap][lane]`.
    weights: Words,
}

/// The numbers a [`DepthwisePlan`] is made of.
pub(super) struct DepthwiseSpec {
    pub(super) channels: usize,
    pub(super) lanes: usize,
    pub(super) kernel: [usize; 2],
    pub(super) tap_row: usize,
    pub(super) tap_column: usize,
    pub(super) pixel_bytes: usize,
    pub(super) element: usize,
}

impl DepthwisePlan {
    /// Room for the weights, still zero.
    pub(super) fn new(spec: DepthwiseSpec) -> Result<DepthwisePlan, KernelError> {
        let vectors = spec.channels.div_ceil(spec.lanes);
        let len = bounded(&[vectors, spec.kernel[0], spec.kernel[1], spec.lanes])?;
        Ok(DepthwisePlan {
            channels: spec.channels,
            lanes: spec.lanes,
            kernel: spec.kernel,
            tap_row: spec.tap_row,
            tap_column: spec.tap_column,
            pixel_bytes: spec.pixel_bytes,
            element: spec.element,
            weights: Words::zeroed(len),
        })
    }

    /// Packs the weights: `word(channel, tap)`, taps counted row by row.
    pub(super) fn pack(&mut self, mut word: impl FnMut(usize, usize) -> u32) {
        let taps = self.kernel[0] * self.kernel[1];
        let out = self.weights.as_mut_slice();
        for channel in 0..self.channels {
            let (vector, lane) = (channel / self.lanes, channel % self.lanes);
            for tap in 0..taps {
                out[(vector * taps + tap) * self.lanes + lane] = word(channel, tap);
            }
        }
    }

    /// Elements of a per-channel parameter array.
    pub(super) fn param_len(&self) -> usize {
        self.channels.div_ceil(self.lanes) * self.lanes
    }

    /// One value per channel, padded to whole vectors.
    pub(super) fn params<T: Copy + Default>(&self, value: impl Fn(usize) -> T) -> Vec<T> {
        (0..self.param_len()).map(|c| if c < self.channels { value(c) } else { T::default() }).collect()
    }

    /// Bytes from the first byte of the first pixel to the end of what `area` reads.
    pub(super) fn read_len(&self, area: &Area) -> usize {
        (area.rows - 1) * area.x_row
            + (area.width - 1) * self.pixel_bytes
            + (self.kernel[0] - 1) * self.tap_row
            + (self.kernel[1] - 1) * self.tap_column
            + self.param_len() * self.element
    }
}

/// Computes all channels of `area`.
///
/// # Safety
/// `x` is valid for reading `plan.read_len(area)` bytes; the output and residual offsets of `area` lie inside the buffers
/// of `finish`, whose parameters have `plan.param_len()` elements; all rows of `area` are of one width; `plan` was made for
/// the lanes of `M`.
#[inline(always)]
pub(super) unsafe fn depthwise<M: LaneMac, E: Finish<M>>(
    m: M,
    plan: &DepthwisePlan,
    area: &Area,
    x: *const u8,
    finish: &E,
) {
    let slides = plan.kernel[1] == 3 && plan.tap_column == plan.pixel_bytes;
    // SAFETY: the caller's promise.
    unsafe {
        if slides {
            rows::<M, E, true>(m, plan, area, x, finish);
        } else {
            rows::<M, E, false>(m, plan, area, x, finish);
        }
    }
}

/// # Safety
/// As [`depthwise`]; `SLIDES` only for three columns of taps, one pixel apart.
#[inline(always)]
unsafe fn rows<M: LaneMac, E: Finish<M>, const SLIDES: bool>(
    m: M,
    plan: &DepthwisePlan,
    area: &Area,
    x: *const u8,
    finish: &E,
) {
    let lanes = M::S::LANES;
    let taps = plan.kernel[0] * plan.kernel[1];
    for row in 0..area.rows {
        let mut column = 0;
        let mut size = 8;
        while column < area.width {
            while size > area.width - column {
                size /= 2;
            }
            // All channels of a few pixels before the next pixels: channels are what is adjacent in memory.
            for channel in (0..plan.channels).step_by(lanes) {
                let at = Spot {
                    // SAFETY: pixel and channel are inside what `read_len` covers.
                    x: unsafe { x.add(row * area.x_row + column * plan.pixel_bytes + channel * M::ELEMENT) },
                    w: plan.weights.as_slice()[channel * taps..].as_ptr(),
                    channel,
                    y: row * area.y_row + column * area.y_pixel + channel,
                    residual: row * area.residual_row + column * area.y_pixel + channel,
                };
                // SAFETY: `size` pixels from here on are pixels of `area`.
                unsafe {
                    match size {
                        8 => tile::<M, E, SLIDES, 8>(m, plan, area, &at, finish),
                        4 => tile::<M, E, SLIDES, 4>(m, plan, area, &at, finish),
                        2 => tile::<M, E, SLIDES, 2>(m, plan, area, &at, finish),
                        _ => tile::<M, E, SLIDES, 1>(m, plan, area, &at, finish),
                    }
                }
            }
            column += size;
        }
    }
}

/// The first pixel of a tile and its vector of channels.
struct Spot {
    x: *const u8,
    w: *const u32,
    channel: usize,
    y: usize,
    residual: usize,
}

/// # Safety
/// P pixels from `at` are pixels of `area`; the rest as [`rows`].
#[inline(always)]
unsafe fn tile<M: LaneMac, E: Finish<M>, const SLIDES: bool, const P: usize>(
    m: M,
    plan: &DepthwisePlan,
    area: &Area,
    at: &Spot,
    finish: &E,
) {
    let lanes = M::S::LANES;
    // SAFETY: the channel is a whole vector of parameters.
    let mut acc = [unsafe { finish.start(m, at.channel) }; P];
    for ky in 0..plan.kernel[0] {
        // SAFETY: taps of pixels of `area` are inside what `read_len` covers; the weights hold `LANES` words per tap.
        unsafe {
            let x = at.x.add(ky * plan.tap_row);
            let w = at.w.add(ky * plan.kernel[1] * lanes);
            if SLIDES {
                let weight = [m.load(w), m.load(w.add(lanes)), m.load(w.add(2 * lanes))];
                for i in 0..P + 2 {
                    let v = m.load_input(x.add(i * plan.pixel_bytes));
                    for (kx, &weight) in weight.iter().enumerate() {
                        if i >= kx && i - kx < P {
                            acc[i - kx] = m.lane_mac(acc[i - kx], v, weight);
                        }
                    }
                }
            } else {
                for kx in 0..plan.kernel[1] {
                    let weight = m.load(w.add(kx * lanes));
                    for (p, acc) in acc.iter_mut().enumerate() {
                        let v = m.load_input(x.add(kx * plan.tap_column + p * plan.pixel_bytes));
                        *acc = m.lane_mac(*acc, v, weight);
                    }
                }
            }
        }
    }
    let channels = plan.channels - at.channel;
    if channels >= lanes {
        for (p, &acc) in acc.iter().enumerate() {
            let step = p * area.y_pixel;
            // SAFETY: the pixel is one of `area`, all channels are real ones.
            unsafe { finish.store(m, acc, at.channel, at.y + step, at.residual + step) };
        }
    } else {
        let mut sums = MaybeUninit::<[M::V; P]>::uninit();
        let to = sums.as_mut_ptr().cast::<M::V>();
        for (p, &acc) in acc.iter().enumerate() {
            // SAFETY: the array has P elements.
            unsafe { to.add(p).write(acc) };
        }
        for p in 0..P {
            let step = p * area.y_pixel;
            // SAFETY: all sums were just written; the pixel is one of `area`, only lanes with a channel are stored.
            unsafe {
                finish.store_part(m, *to.add(p), at.channel, channels, at.y + step, at.residual + step);
            }
        }
    }
}
