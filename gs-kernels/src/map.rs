//! Element-wise kernels in plain Rust: one loop, compiled for each instruction set, vectorised by the compiler. No operation here may be
//! reordered or fused by it, so all sets give the same bits.

use super::error::{KernelError, check_len};
use super::isa::{Job, Kernels};
use super::simd::Simd;

/// `y[i] = f(x[i])`.
pub(super) fn map<X: Copy, Y>(
    kernels: Kernels,
    x: &[X],
    y: &mut [Y],
    f: impl Fn(X) -> Y + Copy,
) -> Result<(), KernelError> {
    check_len("y", x.len(), y.len())?;
    kernels.run(Map { x, y, f });
    Ok(())
}

/// `y[i] = f(a[i], b[i])`.
pub(super) fn zip<A: Copy, B: Copy, Y>(
    kernels: Kernels,
    a: &[A],
    b: &[B],
    y: &mut [Y],
    f: impl Fn(A, B) -> Y + Copy,
) -> Result<(), KernelError> {
    check_len("b", a.len(), b.len())?;
    check_len("y", a.len(), y.len())?;
    kernels.run(Zip { a, b, y, f });
    Ok(())
}

/// `y[i] = f(y[i], x[i])`.
pub(super) fn update<X: Copy, Y: Copy>(
    kernels: Kernels,
    y: &mut [Y],
    x: &[X],
    f: impl Fn(Y, X) -> Y + Copy,
) -> Result<(), KernelError> {
    check_len("x", y.len(), x.len())?;
    kernels.run(Update { y, x, f });
    Ok(())
}

struct Map<'a, X, Y, F> {
    x: &'a [X],
    y: &'a mut [Y],
    f: F,
}

impl<X: Copy, Y, F: Fn(X) -> Y + Copy> Job for Map<'_, X, Y, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let f = self.f;
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = f(x);
        }
    }
}

struct Zip<'a, A, B, Y, F> {
    a: &'a [A],
    b: &'a [B],
    y: &'a mut [Y],
    f: F,
}

impl<A: Copy, B: Copy, Y, F: Fn(A, B) -> Y + Copy> Job for Zip<'_, A, B, Y, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let f = self.f;
        for ((y, &a), &b) in self.y.iter_mut().zip(self.a).zip(self.b) {
            *y = f(a, b);
        }
    }
}

struct Update<'a, X, Y, F> {
    y: &'a mut [Y],
    x: &'a [X],
    f: F,
}

impl<X: Copy, Y: Copy, F: Fn(Y, X) -> Y + Copy> Job for Update<'_, X, Y, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let f = self.f;
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = f(*y, x);
        }
    }
}
