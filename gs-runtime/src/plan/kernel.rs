//! A kernel ready to run on the samples of a chunk: a recipe once buffers are laid out.

use super::buffer::{Reads, Target, Write, sample};
use super::moves::Moves;
use super::plain::Plain;
use super::recipe::{PoolKind, Recipe, Window};
use super::slot::Slot;
use gs_kernels::{
    self as k, ConvF32, ConvHalos, ConvQ, Halo, KernelError, Kernels, LinearF32, LinearQ, PoolShape, QOutput,
    QWeights, Scratch,
};

/// Something that computes one value of a segment.
pub(crate) enum Kernel {
    ConvF32(ConvF32),
    ConvQ(ConvQ, QOutput),
    LinearF32(LinearF32),
    LinearQ(LinearQ, QOutput),
    Pool(PoolShape, PoolKind),
    Moves(Moves),
    Plain(Plain),
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
            Recipe::Pool { window, kind } => Kernel::Pool(pool_shape(&window, reads, result)?, kind),
            Recipe::Moves(trace) => Kernel::Moves(trace.lay_out(reads, result)),
            Recipe::Plain(plain) => Kernel::Plain(plain),
        })
    }

    /// Takes the constants of another recipe for the same operation, in the same layouts. What was fused into the
    /// kernel stays.
    ///
    /// # Errors
    /// Constants that the kernel refuses, or a recipe of another kind; the kernel is not to be run then.
    pub(crate) fn renew(
        &mut self,
        kernels: Kernels,
        mut recipe: Recipe,
        reads: &[&Slot],
        result: &Slot,
    ) -> Result<(), KernelError> {
        match (&mut *self, &mut recipe) {
            (Kernel::ConvF32(conv), Recipe::Conv { weights, bias, .. }) => {
                return conv.set_weights(weights.as_f32().unwrap_or(&[]), bias.as_deref());
            }
            (Kernel::LinearF32(linear), Recipe::Linear { weights, bias, .. }) => {
                return linear.set_weights(weights.as_f32().unwrap_or(&[]), bias.as_deref());
            }
            (Kernel::Plain(now), Recipe::Plain(then)) => {
                if let (Some(now), Some(then)) = (now.clip_mut(), then.clip_mut()) {
                    *then = *now;
                }
            }
            (Kernel::ConvF32(_) | Kernel::LinearF32(_) | Kernel::Plain(_), _) => {
                return Err(KernelError::OutputType);
            }
            _ => {}
        }
        *self = Kernel::build(kernels, recipe, reads, result)?;
        Ok(())
    }

    /// Runs on `n` samples. Buffers hold whole samples one behind the other.
    ///
    /// # Errors
    /// A buffer of the wrong type: a defect of the plan.
    pub(crate) fn run(
        &self,
        kernels: Kernels,
        n: usize,
        reads: Reads<'_>,
        mut y: Write<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let (x, xs) = reads.get(0)?;
        let result = y.slot;
        let (all_x, all_y) = (0..n * xs.len(), 0..n * result.len());
        match self {
            Kernel::ConvF32(conv) => {
                let (x, y) = (x.floats()?, y.target.floats()?);
                let residual = reads.iter().nth(1).map(|(r, s)| Ok((r.floats()?, s))).transpose()?;
                for i in 0..n {
                    let r = residual.map(|(r, s)| &r[sample(s, i)]);
                    conv.run(&x[sample(xs, i)], r, &mut y[sample(result, i)], scratch)?;
                }
                Ok(())
            }
            Kernel::ConvQ(conv, out) => {
                let x = x.bytes()?;
                for i in 0..n {
                    let (x, at) = (&x[sample(xs, i)], sample(result, i));
                    match out {
                        QOutput::Codes(_) => conv.run(x, &mut y.target.bytes()?[at], scratch)?,
                        QOutput::Float => conv.run_f32(x, &mut y.target.floats()?[at], scratch)?,
                    }
                }
                Ok(())
            }
            Kernel::LinearF32(linear) => {
                linear.run(&x.floats()?[all_x], None, &mut y.target.floats()?[all_y])
            }
            Kernel::LinearQ(linear, QOutput::Codes(_)) => {
                linear.run(&x.bytes()?[all_x], &mut y.target.bytes()?[all_y], scratch)
            }
            Kernel::LinearQ(linear, QOutput::Float) => {
                linear.run_f32(&x.bytes()?[all_x], &mut y.target.floats()?[all_y], scratch)
            }
            Kernel::Pool(shape, kind) => {
                (0..n).try_for_each(|i| run_pool(kernels, shape, kind, i, reads, &mut y))
            }
            Kernel::Moves(moves) => (0..n).try_for_each(|i| run_moves(moves, i, reads, &mut y)),
            Kernel::Plain(plain) => plain.run(kernels, n, reads, &mut y),
        }
    }
}

fn pool_shape(w: &Window, reads: &[&Slot], result: &Slot) -> Result<PoolShape, KernelError> {
    let Some(&x) = reads.first().and_then(|s| s.image()) else { return Err(KernelError::OutputType) };
    let shape = PoolShape {
        x,
        kernel: w.kernel,
        stride: w.stride,
        pads: w.pads,
        dilation: w.dilation,
        ceil_mode: w.ceil_mode,
        y_halo: result.image().map_or(Halo::NONE, |i| i.halo),
    };
    let y = shape.y();
    if result.image().is_none_or(|i| *i != y) {
        return Err(KernelError::OutputType);
    }
    Ok(shape)
}

fn run_pool(
    kernels: Kernels,
    shape: &PoolShape,
    kind: &PoolKind,
    i: usize,
    reads: Reads<'_>,
    y: &mut Write<'_>,
) -> Result<(), KernelError> {
    let (x, xs) = reads.get(0)?;
    let (from, to, y) = (sample(xs, i), sample(y.slot, i), &mut y.target);
    match kind {
        PoolKind::Max => k::max_pool(kernels, shape, &x.floats()?[from], &mut y.floats()?[to]),
        PoolKind::MaxCodes(code) => {
            k::max_pool_codes(kernels, shape, *code, &x.bytes()?[from], &mut y.bytes()?[to])
        }
        PoolKind::Average { count_pads } => {
            k::average_pool(kernels, shape, *count_pads, &x.floats()?[from], &mut y.floats()?[to])
        }
        PoolKind::AverageCodes { count_pads, x: grid, out } => {
            let x = (&x.bytes()?[from], grid);
            k::qlinear_average_pool(kernels, shape, *count_pads, x, &mut y.bytes()?[to], out)
        }
    }
}

fn run_moves(moves: &Moves, i: usize, reads: Reads<'_>, y: &mut Write<'_>) -> Result<(), KernelError> {
    let at = sample(y.slot, i);
    match &mut y.target {
        Target::Floats(y) => {
            let xs = reads.iter().map(|(r, s)| Ok(&r.floats()?[sample(s, i)]));
            moves.run(&xs.collect::<Result<Vec<_>, KernelError>>()?, &mut y[at], f32::from_bits);
        }
        Target::Bytes(y) => {
            let xs = reads.iter().map(|(r, s)| Ok(&r.bytes()?[sample(s, i)]));
            moves.run(&xs.collect::<Result<Vec<_>, KernelError>>()?, &mut y[at], |bits| bits as u8);
        }
    }
    Ok(())
}
