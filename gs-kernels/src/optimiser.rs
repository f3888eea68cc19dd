//! Steps of optimisers, in place.

use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::simd::Simd;

/// Stochastic gradient descent with momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// What of the momentum is kept.
    pub momentum: f32,
    /// Decay of the parameter.
    pub decay: f32,
    /// Whether the step looks ahead.
    pub nesterov: bool,
}

/// `g = grad + decay * w`, `m = momentum * m + g`, `w -= lr * m` (with nesterov `lr * (g + momentum * m)`).
///
/// # Errors
/// Slices of different lengths.
pub fn sgd(
    kernels: Kernels,
    options: Sgd,
    lr: f32,
    grad: &[f32],
    w: &mut [f32],
    m: &mut [f32],
) -> Result<(), KernelError> {
    check_len("momentum", w.len(), m.len())?;
    check_len("grad", w.len(), grad.len())?;
    kernels.run(SgdJob { options, lr, grad, w, m });
    Ok(())
}

struct SgdJob<'a> {
    options: Sgd,
    lr: f32,
    grad: &'a [f32],
    w: &'a mut [f32],
    m: &'a mut [f32],
}

impl Job for SgdJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Sgd { momentum, decay, nesterov } = self.options;
        for ((w, m), &grad) in self.w.iter_mut().zip(self.m.iter_mut()).zip(self.grad) {
            let g = grad + decay * *w;
            *m = momentum * *m + g;
            *w -= self.lr * if nesterov { g + momentum * *m } else { *m };
        }
    }
}

/// Adam with decoupled weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay rates of the moments.
    pub betas: (f32, f32),
    /// Added to the root.
    pub epsilon: f32,
    /// Decay of the parameter.
    pub decay: f32,
}

/// One step of Adam; `step` counts from 0. State: parameter, first and second moment.
///
/// # Errors
/// Slices of different lengths.
pub fn adamw(
    kernels: Kernels,
    options: AdamW,
    (lr, step): (f32, i64),
    grad: &[f32],
    [w, m, v]: [&mut [f32]; 3],
) -> Result<(), KernelError> {
    check_len("m", w.len(), m.len())?;
    check_len("v", w.len(), v.len())?;
    check_len("grad", w.len(), grad.len())?;
    let t = step.saturating_add(1).clamp(1, i64::from(i32::MAX)) as i32;
    let unbias = |beta: f32| (1.0 / (1.0 - f64::from(beta).powi(t))) as f32;
    let unbias = (unbias(options.betas.0), unbias(options.betas.1));
    kernels.run(AdamJob { options, lr, unbias, grad, w, m, v });
    Ok(())
}

struct AdamJob<'a> {
    options: AdamW,
    lr: f32,
    unbias: (f32, f32),
    grad: &'a [f32],
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Job for AdamJob<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let AdamW { betas: (b1, b2), epsilon, decay } = self.options;
        let state = self.w.iter_mut().zip(self.m.iter_mut()).zip(self.v.iter_mut());
        for (((w, m), v), &g) in state.zip(self.grad) {
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            let root = (*v * self.unbias.1).sqrt() + epsilon;
            *w -= self.lr * (*m * self.unbias.0 / root + decay * *w);
        }
    }
}
