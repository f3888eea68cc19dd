//! A kernel ready to run on the samples of a chunk: a recipe once buffers are laid out.

use super::moves::Moves;
use super::recipe::{PoolKind, Recipe};
use super::slot::Slot;
use crate::kernels::{
    self as k, Clip, ConvF32, ConvHalos, ConvQ, Grid, Halo, KernelError, Kernels, LinearF32, LinearQ,
    OutGrid, PoolShape, QOutput, QWeights, Scratch,
};

/// Something that computes one value of a segment.
pub(crate) enum Kernel {
    ConvF32(ConvF32),
    ConvQ(ConvQ, QOutput),
    LinearF32(LinearF32),
    LinearQ(LinearQ, QOutput),
    Pool(PoolShape, PoolKind),
    GlobalAverage(Option<(Grid, OutGrid)>),
    Clip(Clip),
    Add(Clip),
    Mul(Clip),
    Affine { scale: Vec<f32>, shift: Vec<f32>, clip: Clip },
    Softmax(usize),
    SoftmaxQ { row: usize, x: Grid, out: OutGrid },
    Quantize(OutGrid),
    Dequantize(Grid),
    AddQ { a: Grid, b: Grid, out: OutGrid },
    MulQ { a: Grid, b: Grid, out: OutGrid },
    Table(Box<[u8; 256]>),
    Moves(Moves),
}

/// The spare pixels that a recipe wants around operand 0.
pub(crate) fn wanted_halo(recipe: &Recipe) -> Option<(Halo, u8)> {
    let of = |pads: [usize; 4]| Halo { top: pads[0], left: pads[1], bottom: pads[2], right: pads[3] };
    match recipe {
        Recipe::Conv { shape, .. } => Some((of(shape.pads), 0)),
        Recipe::ConvQ { shape, x, .. } => Some((of(shape.pads), x.zero_byte())),
        _ => None,
    }
}

impl Kernel {
    /// Makes a recipe ready for the layouts of its operands and its result.
    ///
    /// # Errors
    /// A shape that the kernel refuses.
    pub(crate) fn build(
        kernels: Kernels,
        recipe: Recipe,
        reads: &[&Slot],
        result: &Slot,
    ) -> Result<Kernel, KernelError> {
        let halo = |slot: Option<&&Slot>| slot.and_then(|s| s.image()).map_or(Halo::NONE, |i| i.halo);
        let halos = ConvHalos { x: halo(reads.first()), y: halo(Some(&result)), residual: None };
        Ok(match recipe {
            Recipe::Conv { shape, weights, bias, clip } => {
                let halos = ConvHalos { residual: reads.get(1).map(|s| halo(Some(s))), ..halos };
                let weights = weights.as_f32().unwrap_or(&[]);
                Kernel::ConvF32(ConvF32::new(kernels, &shape, &halos, weights, bias.as_deref(), clip)?)
            }
            Recipe::ConvQ { shape, x, weights, scales, bias, out } => {
                let weights = QWeights { codes: &weights, scales: &scales, bias: bias.as_deref() };
                Kernel::ConvQ(ConvQ::new(kernels, &shape, &halos, x, weights, out)?, out)
            }
            Recipe::Linear { shape, weights, bias, clip } => {
                let weights = weights.as_f32().unwrap_or(&[]);
                Kernel::LinearF32(LinearF32::new(kernels, shape, weights, bias.as_deref(), clip)?)
            }
            Recipe::LinearQ { shape, x, weights, scales, bias, out } => {
                let weights = QWeights { codes: &weights, scales: &scales, bias: bias.as_deref() };
                Kernel::LinearQ(LinearQ::new(kernels, shape, x, weights, out)?, out)
            }
            Recipe::Pool { window: w, kind } => {
                let Some(&x) = reads.first().and_then(|s| s.image()) else {
                    return Err(KernelError::OutputType);
                };
                let shape = PoolShape {
                    x,
                    kernel: w.kernel,
                    stride: w.stride,
                    pads: w.pads,
                    dilation: w.dilation,
                    ceil_mode: w.ceil_mode,
                    y_halo: halos.y,
                };
                let y = shape.y();
                if result.image().is_none_or(|i| *i != y) {
                    return Err(KernelError::OutputType);
                }
                Kernel::Pool(shape, kind)
            }
            Recipe::GlobalAverage(grids) => Kernel::GlobalAverage(grids),
            Recipe::Clip(clip) => Kernel::Clip(clip),
            Recipe::Add(clip) => Kernel::Add(clip),
            Recipe::Mul(clip) => Kernel::Mul(clip),
            Recipe::Affine { scale, shift, clip } => Kernel::Affine { scale, shift, clip },
            Recipe::Softmax(row) => Kernel::Softmax(row),
            Recipe::SoftmaxQ { row, x, out } => Kernel::SoftmaxQ { row, x, out },
            Recipe::Quantize(out) => Kernel::Quantize(out),
            Recipe::Dequantize(grid) => Kernel::Dequantize(grid),
            Recipe::AddQ { a, b, out } => Kernel::AddQ { a, b, out },
            Recipe::MulQ { a, b, out } => Kernel::MulQ { a, b, out },
            Recipe::Table(table) => Kernel::Table(table),
            Recipe::Moves(trace) => Kernel::Moves(trace.lay_out(reads, result)),
        })
    }
}

/// A value's buffer for a chunk.
#[derive(Clone, Copy)]
pub(crate) enum Source<'b> {
    Floats(&'b [f32]),
    Bytes(&'b [u8]),
}

/// The buffer that a kernel writes.
pub(crate) enum Target<'b> {
    Floats(&'b mut [f32]),
    Bytes(&'b mut [u8]),
}

impl<'b> Source<'b> {
    fn floats(self) -> Result<&'b [f32], KernelError> {
        match self {
            Source::Floats(f) => Ok(f),
            Source::Bytes(_) => Err(KernelError::OutputType),
        }
    }

    fn bytes(self) -> Result<&'b [u8], KernelError> {
        match self {
            Source::Bytes(b) => Ok(b),
            Source::Floats(_) => Err(KernelError::OutputType),
        }
    }
}

impl Target<'_> {
    fn floats(&mut self) -> Result<&mut [f32], KernelError> {
        match self {
            Target::Floats(f) => Ok(f),
            Target::Bytes(_) => Err(KernelError::OutputType),
        }
    }

    fn bytes(&mut self) -> Result<&mut [u8], KernelError> {
        match self {
            Target::Bytes(b) => Ok(b),
            Target::Floats(_) => Err(KernelError::OutputType),
        }
    }
}

/// Elements of one sample in a chunk's buffer.
fn sample<T>(buffer: &[T], slot: &Slot, i: usize) -> Result<(), KernelError> {
    let (want, got) = ((i + 1) * slot.len(), buffer.len());
    if got < want { Err(KernelError::Length { what: "buffer", want, got }) } else { Ok(()) }
}

impl Kernel {
    /// Runs on `n` samples. Buffers hold whole samples one behind the other.
    ///
    /// # Errors
    /// A buffer that is too short or of the wrong type: a defect of the plan.
    pub(crate) fn run(
        &self,
        kernels: Kernels,
        n: usize,
        (reads, slots): (&[Source<'_>], &[&Slot]),
        mut y: Target<'_>,
        result: &Slot,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let x = *reads.first().ok_or(KernelError::OutputType)?;
        let xs = *slots.first().ok_or(KernelError::OutputType)?;
        match x {
            Source::Floats(b) => sample(b, xs, n.saturating_sub(1))?,
            Source::Bytes(b) => sample(b, xs, n.saturating_sub(1))?,
        }
        let (lx, ly) = (xs.len(), result.len());
        match self {
            Kernel::ConvF32(conv) => {
                let (x, y) = (x.floats()?, y.floats()?);
                let residual =
                    reads.get(1).map(|r| r.floats()).transpose()?.zip(slots.get(1).map(|s| s.len()));
                for i in 0..n {
                    let r = residual.map(|(r, l)| &r[i * l..(i + 1) * l]);
                    conv.run(&x[i * lx..(i + 1) * lx], r, &mut y[i * ly..(i + 1) * ly], scratch)?;
                }
                Ok(())
            }
            Kernel::ConvQ(conv, out) => {
                let x = x.bytes()?;
                for i in 0..n {
                    let x = &x[i * lx..(i + 1) * lx];
                    match out {
                        QOutput::Codes(_) => conv.run(x, &mut y.bytes()?[i * ly..(i + 1) * ly], scratch)?,
                        QOutput::Float => conv.run_f32(x, &mut y.floats()?[i * ly..(i + 1) * ly], scratch)?,
                    }
                }
                Ok(())
            }
            Kernel::LinearF32(linear) => linear.run(&x.floats()?[..n * lx], None, &mut y.floats()?[..n * ly]),
            Kernel::LinearQ(linear, QOutput::Codes(_)) => {
                linear.run(&x.bytes()?[..n * lx], &mut y.bytes()?[..n * ly], scratch)
            }
            Kernel::LinearQ(linear, QOutput::Float) => {
                linear.run_f32(&x.bytes()?[..n * lx], &mut y.floats()?[..n * ly], scratch)
            }
            Kernel::Moves(moves) => run_moves(moves, n, reads, slots, &mut y, result),
            Kernel::Softmax(row) => {
                k::softmax(kernels, &x.floats()?[..n * lx], *row, &mut y.floats()?[..n * ly])
            }
            Kernel::SoftmaxQ { row, x: grid, out } => {
                k::qlinear_softmax(&x.bytes()?[..n * lx], grid, *row, &mut y.bytes()?[..n * ly], out)
            }
            _ => {
                for i in 0..n {
                    self.run_image(kernels, i, (reads, slots), &mut y, result)?;
                }
                Ok(())
            }
        }
    }

    /// Kernels that take a whole image, or the rows of one.
    fn run_image(
        &self,
        kernels: Kernels,
        i: usize,
        (reads, slots): (&[Source<'_>], &[&Slot]),
        y: &mut Target<'_>,
        result: &Slot,
    ) -> Result<(), KernelError> {
        let (x, xs) = (reads[0], slots[0]);
        let (lx, ly) = (xs.len(), result.len());
        let whole_x = i * lx..(i + 1) * lx;
        let whole_y = i * ly..(i + 1) * ly;
        match self {
            Kernel::Pool(shape, PoolKind::Max) => {
                return k::max_pool(kernels, shape, &x.floats()?[whole_x], &mut y.floats()?[whole_y]);
            }
            Kernel::Pool(shape, PoolKind::MaxCodes(code)) => {
                return k::max_pool_codes(
                    kernels,
                    shape,
                    *code,
                    &x.bytes()?[whole_x],
                    &mut y.bytes()?[whole_y],
                );
            }
            Kernel::Pool(shape, PoolKind::Average { count_pads }) => {
                return k::average_pool(
                    kernels,
                    shape,
                    *count_pads,
                    &x.floats()?[whole_x],
                    &mut y.floats()?[whole_y],
                );
            }
            Kernel::Pool(shape, PoolKind::AverageCodes { count_pads, x: grid, out }) => {
                let x = (&x.bytes()?[whole_x], grid);
                return k::qlinear_average_pool(
                    kernels,
                    shape,
                    *count_pads,
                    x,
                    &mut y.bytes()?[whole_y],
                    out,
                );
            }
            Kernel::GlobalAverage(grids) => {
                let layout = xs.image().ok_or(KernelError::OutputType)?;
                // The result is one pixel; its inside is dense whatever surrounds it.
                let at = i * ly + result.row_start(0);
                let inside = at..at + layout.c;
                return match grids {
                    None => k::global_average_pool(
                        kernels,
                        &x.floats()?[whole_x],
                        layout,
                        &mut y.floats()?[inside],
                    ),
                    Some((grid, out)) => {
                        let x = (&x.bytes()?[whole_x], grid);
                        k::qlinear_global_average_pool(kernels, x, layout, &mut y.bytes()?[inside], out)
                    }
                };
            }
            _ => {}
        }
        let dense = slots.iter().all(|s| s.is_dense()) && result.is_dense();
        let (rows, len) = if dense { (1, result.count()) } else { (result.rows(), result.row_len()) };
        for row in 0..rows {
            let piece = |s: &Slot| {
                let start = i * s.len() + if dense { 0 } else { s.row_start(row) };
                start..start + len
            };
            self.run_piece(kernels, (reads, slots), &piece, y, result)?;
        }
        Ok(())
    }

    /// Element-wise kernels, on a contiguous piece.
    fn run_piece(
        &self,
        kernels: Kernels,
        (reads, slots): (&[Source<'_>], &[&Slot]),
        piece: &dyn Fn(&Slot) -> std::ops::Range<usize>,
        y: &mut Target<'_>,
        result: &Slot,
    ) -> Result<(), KernelError> {
        let floats = |i: usize| -> Result<&[f32], KernelError> {
            let (r, s) = reads.get(i).zip(slots.get(i)).ok_or(KernelError::OutputType)?;
            Ok(&r.floats()?[piece(s)])
        };
        let bytes = |i: usize| -> Result<&[u8], KernelError> {
            let (r, s) = reads.get(i).zip(slots.get(i)).ok_or(KernelError::OutputType)?;
            Ok(&r.bytes()?[piece(s)])
        };
        let at = piece(result);
        match self {
            Kernel::Clip(clip) => k::clip(kernels, floats(0)?, *clip, &mut y.floats()?[at]),
            Kernel::Add(clip) => k::add(kernels, floats(0)?, floats(1)?, *clip, &mut y.floats()?[at]),
            Kernel::Mul(clip) => k::mul(kernels, floats(0)?, floats(1)?, *clip, &mut y.floats()?[at]),
            Kernel::Affine { scale, shift, clip } => {
                k::affine_channels(kernels, floats(0)?, scale, shift, *clip, &mut y.floats()?[at])
            }
            Kernel::Quantize(out) => k::quantize(kernels, floats(0)?, &mut y.bytes()?[at], out),
            Kernel::Dequantize(grid) => k::dequantize(kernels, bytes(0)?, grid, &mut y.floats()?[at]),
            Kernel::AddQ { a, b, out } => {
                k::qlinear_add(kernels, (bytes(0)?, a), (bytes(1)?, b), &mut y.bytes()?[at], out)
            }
            Kernel::MulQ { a, b, out } => {
                k::qlinear_mul(kernels, (bytes(0)?, a), (bytes(1)?, b), &mut y.bytes()?[at], out)
            }
            Kernel::Table(table) => k::lookup(bytes(0)?, table, &mut y.bytes()?[at]),
            _ => Err(KernelError::OutputType),
        }
    }
}

fn run_moves(
    moves: &Moves,
    n: usize,
    reads: &[Source<'_>],
    slots: &[&Slot],
    y: &mut Target<'_>,
    result: &Slot,
) -> Result<(), KernelError> {
    let ly = result.len();
    for i in 0..n {
        let part = |s: &Slot| i * s.len()..(i + 1) * s.len();
        match y {
            Target::Floats(y) => {
                let xs: Result<Vec<&[f32]>, _> =
                    reads.iter().zip(slots).map(|(r, s)| Ok(&r.floats()?[part(s)])).collect();
                moves.run(&xs?, &mut y[i * ly..(i + 1) * ly], f32::from_bits);
            }
            Target::Bytes(y) => {
                let xs: Result<Vec<&[u8]>, _> =
                    reads.iter().zip(slots).map(|(r, s)| Ok(&r.bytes()?[part(s)])).collect();
                moves.run(&xs?, &mut y[i * ly..(i + 1) * ly], |v| v as u8);
            }
        }
    }
    Ok(())
}
