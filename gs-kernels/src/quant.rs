//! Between floats and codes, and element-wise arithmetic on codes. Every formula is a fixed sequence of single-precision operations,
//! so results are the same on every instruction set.

use super::error::KernelError;
use super::grid::{CodeType, Grid, OutGrid};
use super::isa::Kernels;
use super::map::{map, zip};

/// Adding this to a float below 2^22 rounds it, half to even, to an integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The nearest integer, half to even, of a number below 2^22.
#[inline(always)]
pub(super) fn nearest(v: f32) -> i32 {
    (v + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

/// Limits `v`; NaN becomes `lo`.
#[inline(always)]
pub(super) fn limited(v: f32, (lo, hi): (f32, f32)) -> f32 {
    let v = if v > lo { v } else { lo };
    if v < hi { v } else { hi }
}

/// `saturate(round(v) + zero_point)`: the zero point is added after rounding. NaN becomes the lower limit.
#[inline(always)]
pub(super) fn round_code(v: f32, out: &OutGrid) -> u8 {
    // Limiting first gives the same code, since the limits are whole numbers.
    nearest(limited(v, out.centred_limits())).wrapping_add(out.grid.zero_point) as u8
}

/// `saturate(round(v))` of a value that has the zero point in it already.
#[inline(always)]
pub(super) fn round_shifted(v: f32, out: &OutGrid) -> u8 {
    nearest(limited(v, (out.lo as f32, out.hi as f32))) as u8
}

/// `y = saturate(round(x / scale) + zero_point)`: a division, not a product with the reciprocal.
pub fn quantize(kernels: Kernels, x: &[f32], y: &mut [u8], out: &OutGrid) -> Result<(), KernelError> {
    out.check()?;
    let out = *out;
    map(kernels, x, y, move |x| round_code(x / out.grid.scale, &out))
}

/// `y = (x - zero_point) * scale`.
pub fn dequantize(kernels: Kernels, x: &[u8], grid: &Grid, y: &mut [f32]) -> Result<(), KernelError> {
    grid.check()?;
    let (zero, scale) = (grid.zero_point, grid.scale);
    match grid.code {
        CodeType::U8 => map(kernels, x, y, move |x| (i32::from(x) - zero) as f32 * scale),
        CodeType::I8 => map(kernels, x, y, move |x| (i32::from(x as i8) - zero) as f32 * scale),
    }
}

/// The sum of two tensors of codes on any grids: with `r_a = s_a / s_y`, `r_b = s_b / s_y` and
/// `c = z_y - fma(r_a, z_a, r_b * z_b)`, `y = saturate(round(fma(a, r_a, fma(b, r_b, c))))`.
pub fn qlinear_add(
    kernels: Kernels,
    (a, a_grid): (&[u8], &Grid),
    (b, b_grid): (&[u8], &Grid),
    y: &mut [u8],
    out: &OutGrid,
) -> Result<(), KernelError> {
    check_all(a_grid, b_grid, out)?;
    let out = *out;
    let ra = a_grid.scale / out.grid.scale;
    let rb = b_grid.scale / out.grid.scale;
    let (za, zb) = (a_grid.zero_point as f32, b_grid.zero_point as f32);
    let c = out.grid.zero_point as f32 - ra.mul_add(za, rb * zb);
    binary(kernels, (a, a_grid.code), (b, b_grid.code), y, move |a, b| {
        round_shifted((a as f32).mul_add(ra, (b as f32).mul_add(rb, c)), &out)
    })
}

/// The product of two tensors of codes: `y = saturate(round((a - z_a) * (b - z_b) * k + z_y))`, `k = s_a * s_b / s_y`.
pub fn qlinear_mul(
    kernels: Kernels,
    (a, a_grid): (&[u8], &Grid),
    (b, b_grid): (&[u8], &Grid),
    y: &mut [u8],
    out: &OutGrid,
) -> Result<(), KernelError> {
    check_all(a_grid, b_grid, out)?;
    let out = *out;
    let k = a_grid.scale * b_grid.scale / out.grid.scale;
    let (za, zb, zy) = (a_grid.zero_point, b_grid.zero_point, out.grid.zero_point as f32);
    binary(kernels, (a, a_grid.code), (b, b_grid.code), y, move |a, b| {
        round_shifted(((a - za) * (b - zb)) as f32 * k + zy, &out)
    })
}

fn check_all(a: &Grid, b: &Grid, out: &OutGrid) -> Result<(), KernelError> {
    a.check()?;
    b.check()?;
    out.check()
}

/// `y = f(a, b)` on codes read as their types say; the types are constant in each loop.
fn binary(
    kernels: Kernels,
    (a, a_code): (&[u8], CodeType),
    (b, b_code): (&[u8], CodeType),
    y: &mut [u8],
    f: impl Fn(i32, i32) -> u8 + Copy,
) -> Result<(), KernelError> {
    use CodeType::{I8, U8};
    match (a_code, b_code) {
        (U8, U8) => zip(kernels, a, b, y, move |a, b| f(U8.code(a), U8.code(b))),
        (U8, I8) => zip(kernels, a, b, y, move |a, b| f(U8.code(a), I8.code(b))),
        (I8, U8) => zip(kernels, a, b, y, move |a, b| f(I8.code(a), U8.code(b))),
        (I8, I8) => zip(kernels, a, b, y, move |a, b| f(I8.code(a), I8.code(b))),
    }
}

/// `y = table[x]`, bytes to bytes.
pub fn lookup(x: &[u8], table: &[u8; 256], y: &mut [u8]) -> Result<(), KernelError> {
    super::error::check_len("y", x.len(), y.len())?;
    for (y, &x) in y.iter_mut().zip(x) {
        *y = table[usize::from(x)];
    }
    Ok(())
}

/// The table of a function of one tensor of codes: dequantise, apply `f` in single precision, quantise. With the identity, the table that
/// moves codes to another grid.
pub fn code_table(x: &Grid, out: &OutGrid, f: impl Fn(f32) -> f32) -> Result<[u8; 256], KernelError> {
    x.check()?;
    out.check()?;
    Ok(std::array::from_fn(|byte| {
        let value = (x.code.code(byte as u8) - x.zero_point) as f32 * x.scale;
        round_code(f(value) / out.grid.scale, out)
    }))
}
