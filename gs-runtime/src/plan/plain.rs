//! Kernels that pack no weights and need nothing to be laid out: choosing them is all there is to making them.

use super::buffer::{Reads, Write, sample};
use super::slot::Slot;
use gs_kernels::{self as k, Clip, FakeQuant, Grid, KernelError, Kernels, OutGrid};
use std::ops::Range;

/// A kernel with its constants.
#[derive(Clone, Debug)]
pub(crate) enum Plain {
    /// `clip(x)`.
    Clip(Clip),
    /// `clip(a + b)`.
    Add(Clip),
    /// `clip(a * b)`.
    Mul(Clip),
    /// `clip(x * scale + shift)` per channel.
    Affine { scale: Vec<f32>, shift: Vec<f32>, clip: Clip },
    /// To a grid and back.
    FakeQuant(FakeQuant),
    /// Float to codes.
    Quantize(OutGrid),
    /// Codes to float.
    Dequantize(Grid),
    /// Sum of codes.
    AddQ { a: Grid, b: Grid, out: OutGrid },
    /// Product of codes.
    MulQ { a: Grid, b: Grid, out: OutGrid },
    /// A function of codes, as a table.
    Table(Box<[u8; 256]>),
    /// Mean over the whole image.
    GlobalAverage(Option<(Grid, OutGrid)>),
    /// Softmax over rows of this length.
    Softmax(usize),
    /// Integer softmax.
    SoftmaxQ { row: usize, x: Grid, out: OutGrid },
}

impl Plain {
    /// The limits of a fused activation, where this kernel has them.
    pub(crate) fn clip_mut(&mut self) -> Option<&mut Clip> {
        match self {
            Plain::Clip(clip) | Plain::Add(clip) | Plain::Mul(clip) | Plain::Affine { clip, .. } => {
                Some(clip)
            }
            _ => None,
        }
    }

    /// Whether values of these extents can be what it reads and writes.
    pub(crate) fn fits<'s>(&self, mut reads: impl Iterator<Item = &'s Slot>, result: &Slot) -> bool {
        match self {
            Plain::GlobalAverage(_) => reads.all(|s| match (s.dims.as_slice(), result.dims.as_slice()) {
                (&[c, _, _], &[d, 1, 1]) => c == d,
                _ => false,
            }),
            _ => reads.all(|s| s.dims == result.dims),
        }
    }

    /// Runs on `n` samples.
    ///
    /// # Errors
    /// Values of the wrong type: a defect of the plan.
    pub(crate) fn run(
        &self,
        kernels: Kernels,
        n: usize,
        reads: Reads<'_>,
        y: &mut Write<'_>,
    ) -> Result<(), KernelError> {
        let (x, xs) = reads.get(0)?;
        let (all_x, all_y) = (0..n * xs.len(), 0..n * y.slot.len());
        match self {
            Plain::Softmax(row) => {
                k::softmax(kernels, &x.floats()?[all_x], *row, &mut y.target.floats()?[all_y])
            }
            Plain::SoftmaxQ { row, x: grid, out } => {
                k::qlinear_softmax(&x.bytes()?[all_x], grid, *row, &mut y.target.bytes()?[all_y], out)
            }
            Plain::GlobalAverage(grids) => {
                (0..n).try_for_each(|i| average(kernels, grids.as_ref(), i, reads, y))
            }
            _ => (0..n).try_for_each(|i| self.run_sample(kernels, i, reads, y)),
        }
    }

    /// One sample of an element-wise kernel: in one piece where nothing stands between its rows.
    fn run_sample(
        &self,
        kernels: Kernels,
        i: usize,
        reads: Reads<'_>,
        y: &mut Write<'_>,
    ) -> Result<(), KernelError> {
        let result = y.slot;
        let dense = reads.iter().all(|(_, s)| s.is_dense()) && result.is_dense();
        let (rows, len) = if dense { (1, result.count()) } else { (result.rows(), result.row_len()) };
        for row in 0..rows {
            let piece = |s: &Slot| {
                let start = i * s.len() + if dense { 0 } else { s.row_start(row) };
                start..start + len
            };
            self.run_piece(kernels, reads, &piece, y)?;
        }
        Ok(())
    }

    /// Element-wise kernels, on a contiguous piece.
    fn run_piece(
        &self,
        kernels: Kernels,
        reads: Reads<'_>,
        piece: &dyn Fn(&Slot) -> Range<usize>,
        y: &mut Write<'_>,
    ) -> Result<(), KernelError> {
        let floats = |i: usize| -> Result<&[f32], KernelError> {
            let (source, slot) = reads.get(i)?;
            Ok(&source.floats()?[piece(slot)])
        };
        let bytes = |i: usize| -> Result<&[u8], KernelError> {
            let (source, slot) = reads.get(i)?;
            Ok(&source.bytes()?[piece(slot)])
        };
        let (at, y) = (piece(y.slot), &mut y.target);
        match self {
            Plain::Clip(clip) => k::clip(kernels, floats(0)?, *clip, &mut y.floats()?[at]),
            Plain::Add(clip) => k::add(kernels, floats(0)?, floats(1)?, *clip, &mut y.floats()?[at]),
            Plain::Mul(clip) => k::mul(kernels, floats(0)?, floats(1)?, *clip, &mut y.floats()?[at]),
            Plain::Affine { scale, shift, clip } => {
                k::affine_channels(kernels, floats(0)?, scale, shift, *clip, &mut y.floats()?[at])
            }
            Plain::FakeQuant(grid) => k::fake_quant(kernels, *grid, floats(0)?, &mut y.floats()?[at]),
            Plain::Quantize(out) => k::quantize(kernels, floats(0)?, &mut y.bytes()?[at], out),
            Plain::Dequantize(grid) => k::dequantize(kernels, bytes(0)?, grid, &mut y.floats()?[at]),
            Plain::AddQ { a, b, out } => {
                k::qlinear_add(kernels, (bytes(0)?, a), (bytes(1)?, b), &mut y.bytes()?[at], out)
            }
            Plain::MulQ { a, b, out } => {
                k::qlinear_mul(kernels, (bytes(0)?, a), (bytes(1)?, b), &mut y.bytes()?[at], out)
            }
            Plain::Table(table) => k::lookup(bytes(0)?, table, &mut y.bytes()?[at]),
            Plain::GlobalAverage(_) | Plain::Softmax(_) | Plain::SoftmaxQ { .. } => {
                Err(KernelError::OutputType)
            }
        }
    }
}

/// The mean over one image.
fn average(
    kernels: Kernels,
    grids: Option<&(Grid, OutGrid)>,
    i: usize,
    reads: Reads<'_>,
    y: &mut Write<'_>,
) -> Result<(), KernelError> {
    let (x, xs) = reads.get(0)?;
    let layout = xs.image().ok_or(KernelError::OutputType)?;
    // The result is one pixel; its inside is dense whatever surrounds it.
    let at = i * y.slot.len() + y.slot.row_start(0);
    let inside = at..at + layout.c;
    match grids {
        None => {
            let x = &x.floats()?[sample(xs, i)];
            k::global_average_pool(kernels, x, layout, &mut y.target.floats()?[inside])
        }
        Some((grid, out)) => {
            let x = (&x.bytes()?[sample(xs, i)], grid);
            k::qlinear_global_average_pool(kernels, x, layout, &mut y.target.bytes()?[inside], out)
        }
    }
}
