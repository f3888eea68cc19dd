//! The register-tiled kernel under every dense convolution and matrix product, float or integer.
//!
//! A tile is P neighbouring output pixels by V vectors of output channels, held in registers. For each *run* of the
//! window (a stretch of input that is contiguous in memory: a whole row of the window where channels are adjacent),
//! it walks the 32-bit words of the run: load V weight vectors, broadcast one input word per pixel, multiply, add. A float is
//! a word; quantised codes are packed two or four to a word ([`Simd::CODES_PER_WORD`]). Weights are packed in exactly the
//! order of that walk.
//!
//! The terms of one output are added in the same order whatever the tile, so results do not depend on how rows or images are
//! split.

use std::mem::MaybeUninit;

use super::error::KernelError;
use super::memory::Words;
use super::shape::bounded;
use super::simd::Simd;

/// Input bytes that a band of rows may take, so that it stays in the second-level cache for all channel blocks.
const BAND_BYTES: usize = 256 * 1024;

/// Multiply and accumulate on words.
pub(super) trait Mac: Copy {
    type S: Simd;
    type V: Copy;
    fn zero(self) -> Self::V;
    /// # Safety
    /// `p` is valid for reading four bytes.
    unsafe fn splat(self, p: *const u8) -> Self::V;
    /// # Safety
    /// `p` is valid for reading `LANES` words.
    unsafe fn load(self, p: *const u32) -> Self::V;
    fn mac(self, acc: Self::V, x: Self::V, w: Self::V) -> Self::V;
}

/// Float words.
#[derive(Clone, Copy)]
pub(super) struct FloatMac<S>(pub(super) S);

impl<S: Simd> Mac for FloatMac<S> {
    type S = S;
    type V = S::F;

    #[inline(always)]
    fn zero(self) -> S::F {
        self.0.f_splat(0.0)
    }

    #[inline(always)]
    unsafe fn splat(self, p: *const u8) -> S::F {
        // SAFETY: the caller promises four bytes.
        self.0.f_splat(unsafe { p.cast::<f32>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u32) -> S::F {
        // SAFETY: the caller promises `LANES` words.
        unsafe { self.0.f_load(p.cast()) }
    }

    #[inline(always)]
    fn mac(self, acc: S::F, x: S::F, w: S::F) -> S::F {
        self.0.f_mul_add(x, w, acc)
    }
}

/// Words of quantised codes.
#[derive(Clone, Copy)]
pub(super) struct CodeMac<S>(pub(super) S);

impl<S: Simd> Mac for CodeMac<S> {
    type S = S;
    type V = S::I;

    #[inline(always)]
    fn zero(self) -> S::I {
        self.0.i_splat(0)
    }

    #[inline(always)]
    unsafe fn splat(self, p: *const u8) -> S::I {
        // SAFETY: the caller promises four bytes.
        self.0.i_splat(unsafe { p.cast::<i32>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u32) -> S::I {
        // SAFETY: the caller promises `LANES` words.
        unsafe { self.0.i_load(p.cast()) }
    }

    #[inline(always)]
    fn mac(self, acc: S::I, x: S::I, w: S::I) -> S::I {
        self.0.i_dot(acc, x, w)
    }
}

/// What happens to finished sums: bias, rescaling, clamping, storing.
pub(super) trait Finish<M: Mac> {
    /// What sums start from: the bias.
    ///
    /// # Safety
    /// `param` plus `LANES` lies inside the parameters of `self`.
    unsafe fn start(&self, m: M, param: usize) -> M::V;

    /// Stores the sums of one pixel in one vector of channels. `param` indexes per-channel parameters (padded to whole
    /// vectors per group), `y` and `residual` are element offsets.
    ///
    /// # Safety
    /// Offsets plus `LANES` lie inside the buffers that `self` was made from, and `param` plus `LANES` inside its
    /// parameters.
    unsafe fn store(&self, m: M, acc: M::V, param: usize, y: usize, residual: usize);

    /// As [`Finish::store`], where only `channels` of the lanes are real.
    ///
    /// # Safety
    /// Offsets plus `channels` lie inside the buffers, `channels` is below `LANES`, `param` as above.
    unsafe fn store_part(&self, m: M, acc: M::V, param: usize, channels: usize, y: usize, residual: usize);
}

/// Shape and packed weights of a tiled product: everything that is known when the plan is made.
#[derive(Clone, Debug)]
pub(super) struct TilePlan {
    pub(super) groups: usize,
    /// Output channels of a group.
    group_channels: usize,
    /// Vectors of output channels of a group.
    pub(super) group_vectors: usize,
    pub(super) lanes: usize,
    /// Byte offset of each run from the pixel's first byte.
    runs: Vec<usize>,
    /// Words of a run.
    run_words: usize,
    /// Bytes between the input of one group and the next.
    group_bytes: usize,
    /// Bytes between the inputs of neighbouring output pixels.
    pixel_bytes: usize,
    weights: Words,
}

/// The numbers a [`TilePlan`] is made of.
pub(super) struct TileSpec {
    pub(super) groups: usize,
    pub(super) group_channels: usize,
    pub(super) lanes: usize,
    pub(super) runs: Vec<usize>,
    pub(super) run_words: usize,
    pub(super) group_bytes: usize,
    pub(super) pixel_bytes: usize,
}

impl TilePlan {
    /// Room for the weights of `spec`, still zero.
    pub(super) fn new(spec: TileSpec) -> Result<TilePlan, KernelError> {
        let group_vectors = spec.group_channels.div_ceil(spec.lanes);
        let len = bounded(&[spec.groups, group_vectors, spec.lanes, spec.runs.len(), spec.run_words])?;
        Ok(TilePlan {
            groups: spec.groups,
            group_channels: spec.group_channels,
            group_vectors,
            lanes: spec.lanes,
            runs: spec.runs,
            run_words: spec.run_words,
            group_bytes: spec.group_bytes,
            pixel_bytes: spec.pixel_bytes,
            weights: Words::zeroed(len),
        })
    }

    /// Packs the weights: `word(channel, run, index)` is the word for an output channel (counted over all groups).
    pub(super) fn pack(&mut self, mut word: impl FnMut(usize, usize, usize) -> u32) {
        let (lanes, vectors) = (self.lanes, self.group_vectors);
        let words = self.run_words;
        let vector_len = self.vector_len();
        let out = self.weights.as_mut_slice();
        for group in 0..self.groups {
            for vector in 0..vectors {
                // Vectors go in pairs, interleaved word by word; an odd last one stands alone.
                let pair = vector / 2 * 2;
                let width = if pair + 1 < vectors { 2 } else { 1 };
                let base = (group * vectors + pair) * vector_len + (vector - pair) * lanes;
                let real = (self.group_channels - vector * lanes).min(lanes);
                for run in 0..self.runs.len() {
                    for index in 0..words {
                        let at = base + (run * words + index) * width * lanes;
                        for (lane, o) in out[at..at + real].iter_mut().enumerate() {
                            *o = word(group * self.group_channels + vector * lanes + lane, run, index);
                        }
                    }
                }
            }
        }
    }

    /// The order of packed words: for each the weight that `weight(channel, run, index)` names, counted from 1; 0 where
    /// there is none. Packed weights are zero afterwards.
    pub(super) fn order(&mut self, weight: impl Fn(usize, usize, usize) -> Option<usize>) -> Vec<u32> {
        self.pack(|channel, run, index| weight(channel, run, index).map_or(0, |w| w as u32 + 1));
        let order = self.weights.as_slice().to_vec();
        self.weights.as_mut_slice().fill(0);
        order
    }

    /// Packs weights in an order from [`TilePlan::order`].
    pub(super) fn pack_order(&mut self, order: &[u32], weights: &[f32]) {
        for (word, &at) in self.weights.as_mut_slice().iter_mut().zip(order) {
            *word = (at as usize).checked_sub(1).and_then(|i| weights.get(i)).map_or(0, |w| w.to_bits());
        }
    }

    /// Elements of a per-channel parameter array.
    pub(super) fn param_len(&self) -> usize {
        self.groups * self.group_vectors * self.lanes
    }

    /// Spreads one value per output channel to the padded order of parameters.
    pub(super) fn params<T: Copy + Default>(&self, value: impl Fn(usize) -> T) -> Vec<T> {
        let mut out = vec![T::default(); self.param_len()];
        for channel in 0..self.groups * self.group_channels {
            let (group, inside) = (channel / self.group_channels, channel % self.group_channels);
            out[group * self.group_vectors * self.lanes + inside] = value(channel);
        }
        out
    }

    /// Bytes from the first byte of the first pixel to the end of what `area` reads.
    pub(super) fn read_len(&self, area: &Area) -> usize {
        let row_end = |width: usize| (width - 1) * self.pixel_bytes;
        let last = match area.rows {
            1 => row_end(area.last_width),
            rows => ((rows - 1) * area.x_row + row_end(area.last_width))
                .max((rows - 2) * area.x_row + row_end(area.width)),
        };
        let run = self.runs.iter().copied().max().unwrap_or(0) + self.run_words * 4;
        last + (self.groups - 1) * self.group_bytes + run
    }

    fn vector_len(&self) -> usize {
        self.runs.len() * self.run_words * self.lanes
    }
}

/// The output pixels to compute: rows of equal width, the last perhaps shorter, and the steps between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) last_width: usize,
    /// Input bytes from row to row.
    pub(super) x_row: usize,
    /// Output elements from row to row.
    pub(super) y_row: usize,
    /// Residual elements from row to row.
    pub(super) residual_row: usize,
    /// Output elements from pixel to pixel.
    pub(super) y_pixel: usize,
}

impl Area {
    /// `pixels` pixels without gaps (a matrix product, a pointwise convolution), cut in rows of a width that suits the tiles.
    pub(super) fn flat(pixels: usize, x_pixel: usize, y_pixel: usize) -> Area {
        let width = 64.min(pixels);
        let rows = pixels.div_ceil(width);
        Area {
            rows,
            width,
            last_width: pixels - (rows - 1) * width,
            x_row: width * x_pixel,
            y_row: width * y_pixel,
            residual_row: width * y_pixel,
            y_pixel,
        }
    }
}

/// Computes all channels of `area`.
///
/// # Safety
/// `x` is valid for reading `plan.read_len(area)` bytes; the output and residual offsets of `area` lie inside the buffers
/// of `finish`, whose parameters have `plan.param_len()` elements; `area` has pixels; `plan` was made for the lanes and words
/// of `M`.
#[inline(always)]
pub(super) unsafe fn tiles<M: Mac, E: Finish<M>>(
    m: M,
    plan: &TilePlan,
    area: &Area,
    x: *const u8,
    finish: &E,
) {
    let band = (BAND_BYTES / area.x_row.max(1)).max(1);
    let vector_len = plan.vector_len();
    let mut first = 0;
    while first < area.rows {
        let rows = first..(first + band).min(area.rows);
        for group in 0..plan.groups {
            let mut vector = 0;
            while vector < plan.group_vectors {
                let index = group * plan.group_vectors + vector;
                let block = Block {
                    // SAFETY: `group_bytes * group` and the start of this block are inside the input and the weights.
                    x: unsafe { x.add(group * plan.group_bytes) },
                    w: plan.weights.as_slice()[index * vector_len..].as_ptr(),
                    param: index * plan.lanes,
                    channel: group * plan.group_channels + vector * plan.lanes,
                    real: plan.group_channels - vector * plan.lanes,
                };
                if vector + 1 < plan.group_vectors {
                    // SAFETY: the caller's promise, for the rows of this band; the block holds two vectors.
                    unsafe { block_rows::<M, E, 2>(m, plan, area, rows.clone(), &block, finish) };
                    vector += 2;
                } else {
                    // SAFETY: the caller's promise, for the rows of this band; the block holds one vector.
                    unsafe { block_rows::<M, E, 1>(m, plan, area, rows.clone(), &block, finish) };
                    vector += 1;
                }
            }
        }
        first += band;
    }
}

/// V vectors of output channels: their input, weights and parameters.
struct Block {
    x: *const u8,
    w: *const u32,
    /// Index of the first parameter.
    param: usize,
    /// First output channel.
    channel: usize,
    /// Output channels from there to the end of the group.
    real: usize,
}

/// # Safety
/// As [`tiles`], for the rows given and a block of V vectors.
#[inline(always)]
unsafe fn block_rows<M: Mac, E: Finish<M>, const V: usize>(
    m: M,
    plan: &TilePlan,
    area: &Area,
    rows: std::ops::Range<usize>,
    block: &Block,
    finish: &E,
) {
    let largest = if V == 1 { M::S::TILE1 } else { M::S::TILE2 };
    for row in rows {
        let width = if row + 1 == area.rows { area.last_width } else { area.width };
        let mut column = 0;
        let mut size = largest;
        while column < width {
            while size > width - column {
                size /= 2;
            }
            let at = Spot {
                // SAFETY: the pixel is one of `area`.
                x: unsafe { block.x.add(row * area.x_row + column * plan.pixel_bytes) },
                y: row * area.y_row + column * area.y_pixel + block.channel,
                residual: row * area.residual_row + column * area.y_pixel + block.channel,
            };
            // SAFETY: `size` pixels from here on are pixels of `area`. Guards on constants keep unused tiles out of the code.
            unsafe {
                match size {
                    16 if largest >= 16 => tile::<M, E, 16, V>(m, plan, area, block, &at, finish),
                    8 if largest >= 8 => tile::<M, E, 8, V>(m, plan, area, block, &at, finish),
                    4 => tile::<M, E, 4, V>(m, plan, area, block, &at, finish),
                    2 => tile::<M, E, 2, V>(m, plan, area, block, &at, finish),
                    _ => tile::<M, E, 1, V>(m, plan, area, block, &at, finish),
                }
            }
            column += size;
        }
    }
}

/// The first pixel of a tile.
struct Spot {
    x: *const u8,
    y: usize,
    residual: usize,
}

/// # Safety
/// P pixels from `at` are pixels of `area`; the rest as [`tiles`].
#[inline(always)]
unsafe fn tile<M: Mac, E: Finish<M>, const P: usize, const V: usize>(
    m: M,
    plan: &TilePlan,
    area: &Area,
    block: &Block,
    at: &Spot,
    finish: &E,
) {
    let lanes = M::S::LANES;
    let pixel = plan.pixel_bytes;
    let mut start = [m.zero(); V];
    for (v, start) in start.iter_mut().enumerate() {
        // SAFETY: the block holds V vectors of parameters.
        *start = unsafe { finish.start(m, block.param + v * lanes) };
    }
    let mut acc = [start; P];
    let mut w = block.w;
    for &run in &plan.runs {
        // SAFETY: reads stay inside `read_len` bytes of the input and inside this block's weights, which hold V vectors
        // for each word of each run.
        unsafe {
            let mut x = at.x.add(run);
            for _ in 0..plan.run_words {
                let mut weight = [m.zero(); V];
                for (v, weight) in weight.iter_mut().enumerate() {
                    *weight = m.load(w.add(v * lanes));
                }
                for (p, acc) in acc.iter_mut().enumerate() {
                    let word = m.splat(x.add(p * pixel));
                    for v in 0..V {
                        acc[v] = m.mac(acc[v], word, weight[v]);
                    }
                }
                w = w.add(V * lanes);
                x = x.add(4);
            }
        }
    }
    if block.real >= V * lanes {
        for (p, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                let (param, step) = (block.param + v * lanes, p * area.y_pixel + v * lanes);
                // SAFETY: the pixel is one of `area`, all channels are real ones.
                unsafe { finish.store(m, acc, param, at.y + step, at.residual + step) };
            }
        }
    } else {
        // Through memory, so that this loop may stay a loop: an index that is not constant would keep the sums out of
        // registers all along.
        let mut sums = MaybeUninit::<[[M::V; V]; P]>::uninit();
        let to = sums.as_mut_ptr().cast::<M::V>();
        for (p, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                // SAFETY: the array has P times V elements.
                unsafe { to.add(p * V + v).write(acc) };
            }
        }
        // SAFETY: all elements were just written.
        unsafe { part(m, to, P, V, area, block, at, finish) };
    }
}

/// Stores a tile of which the last vector has lanes without a channel.
///
/// # Safety
/// `sums` points to `pixels` times `vectors` initialised sums; the rest as [`tile`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn part<M: Mac, E: Finish<M>>(
    m: M,
    sums: *const M::V,
    pixels: usize,
    vectors: usize,
    area: &Area,
    block: &Block,
    at: &Spot,
    finish: &E,
) {
    let lanes = M::S::LANES;
    for p in 0..pixels {
        for v in 0..vectors {
            let (param, step) = (block.param + v * lanes, p * area.y_pixel + v * lanes);
            let channels = block.real - v * lanes;
            // SAFETY: the pixel is one of `area`; only lanes with a channel are stored.
            unsafe {
                let acc = *sums.add(p * vectors + v);
                if channels >= lanes {
                    finish.store(m, acc, param, at.y + step, at.residual + step);
                } else {
                    finish.store_part(m, acc, param, channels, at.y + step, at.residual + step);
                }
            }
        }
    }
}
