//! Gradients through an activation or a quantiser: they pass where its gate is open, and are 0 elsewhere. Two gradients of one
//! value are added on the way.

use super::error::{KernelError, check_len};
use super::fake_quant::FakeQuant;
use super::isa::{Job, Kernels};
use super::simd::Simd;

/// Where gradients pass.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// Where a relu's result is above 0.
    Relu(&'a [f32]),
    /// Where a grid covers a value.
    Within(&'a [f32], FakeQuant),
    /// Both.
    ReluWithin(&'a [f32], FakeQuant),
    /// Where a byte is not 0: see [`Keep::Gate`](super::Keep::Gate).
    Bytes(&'a [u8]),
}

/// `dx = dy` (and `more`, if given, added) where the gate is open, else 0. Without `dy` it lies in `dx`.
///
/// # Errors
/// Lengths that do not fit each other.
pub fn gated(
    kernels: Kernels,
    dy: Option<&[f32]>,
    more: Option<&[f32]>,
    gate: Gate<'_>,
    dx: &mut [f32],
) -> Result<(), KernelError> {
    for dy in [dy, more].into_iter().flatten() {
        check_len("dy", dx.len(), dy.len())?;
    }
    let len = match gate {
        Gate::Relu(y) | Gate::Within(y, _) | Gate::ReluWithin(y, _) => y.len(),
        Gate::Bytes(b) => b.len(),
    };
    check_len("gate", dx.len(), len)?;
    match gate {
        Gate::Relu(gate) => kernels.run(Gated { dy, more, gate, dx, open: |y| y > 0.0 }),
        Gate::Within(gate, grid) => kernels.run(Gated { dy, more, gate, dx, open: |x| grid.passes(x) }),
        Gate::ReluWithin(gate, grid) => {
            kernels.run(Gated { dy, more, gate, dx, open: |x| (x > 0.0) & grid.passes(x) });
        }
        Gate::Bytes(gate) => kernels.run(Gated { dy, more, gate, dx, open: |b| b != 0u8 }),
    }
    Ok(())
}

struct Gated<'a, G, F> {
    dy: Option<&'a [f32]>,
    more: Option<&'a [f32]>,
    gate: &'a [G],
    dx: &'a mut [f32],
    open: F,
}

impl<G: Copy, F: Fn(G) -> bool + Copy> Job for Gated<'_, G, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let open = self.open;
        let all = self.dx.iter_mut().zip(self.gate);
        match (self.dy, self.more) {
            (Some(dy), Some(more)) => {
                for (((x, &g), &a), &b) in all.zip(dy).zip(more) {
                    let sum = a + b;
                    *x = if open(g) { sum } else { 0.0 };
                }
            }
            (Some(dy), None) => {
                for ((x, &g), &a) in all.zip(dy) {
                    *x = if open(g) { a } else { 0.0 };
                }
            }
            (None, Some(more)) => {
                for ((x, &g), &b) in all.zip(more) {
                    let sum = *x + b;
                    *x = if open(g) { sum } else { 0.0 };
                }
            }
            (None, None) => {
                for (x, &g) in all {
                    *x = if open(g) { *x } else { 0.0 };
                }
            }
        }
    }
}
