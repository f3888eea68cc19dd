//! Quantised codes: their storage, their grid (scale and zero point) and the limits of a result.
//!
//! All codes are stored in bytes; kernels take `&[u8]` and the plan or grid says how to read them. Grids of fewer than 8 bits are
//! stored the same way, with narrower limits.

use super::error::KernelError;

/// How a byte is read as a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeType {
    /// 0 to 255.
    U8,
    /// -128 to 127, two's complement.
    I8,
}

impl CodeType {
    /// The smallest and the largest code.
    pub fn range(self) -> (i32, i32) {
        match self {
            CodeType::U8 => (0, 255),
            CodeType::I8 => (-128, 127),
        }
    }

    /// The code that a byte stands for.
    #[inline(always)]
    pub fn code(self, byte: u8) -> i32 {
        match self {
            CodeType::U8 => i32::from(byte),
            CodeType::I8 => i32::from(byte as i8),
        }
    }

    /// What the exclusive-or with makes a byte of this type an unsigned code, shifted by [`Self::bias`].
    pub(super) fn flip(self) -> u8 {
        match self {
            CodeType::U8 => 0,
            CodeType::I8 => 0x80,
        }
    }

    /// What must be added to a code to make it unsigned.
    pub(super) fn bias(self) -> i32 {
        match self {
            CodeType::U8 => 0,
            CodeType::I8 => 128,
        }
    }
}

/// `real = scale * (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Storage of the codes.
    pub code: CodeType,
    /// Size of a step; positive and finite.
    pub scale: f32,
    /// The code of zero, within the range of the storage.
    pub zero_point: i32,
}

impl Grid {
    /// A grid of unsigned codes.
    pub fn u8(scale: f32, zero_point: u8) -> Grid {
        Grid { code: CodeType::U8, scale, zero_point: i32::from(zero_point) }
    }

    /// A grid of signed codes.
    pub fn i8(scale: f32, zero_point: i8) -> Grid {
        Grid { code: CodeType::I8, scale, zero_point: i32::from(zero_point) }
    }

    /// Refuses a scale or a zero point that the storage cannot have.
    pub fn check(&self) -> Result<(), KernelError> {
        check_scale(self.scale)?;
        let (lo, hi) = self.code.range();
        if self.zero_point < lo || self.zero_point > hi {
            return Err(KernelError::Code(self.zero_point));
        }
        Ok(())
    }

    /// The byte that stands for zero.
    pub fn zero_byte(&self) -> u8 {
        self.zero_point as u8
    }
}

/// A grid to which results are rounded, and the limits to which they are clamped: those of the storage, or narrower for a fused
/// relu or clip or fewer bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutGrid {
    /// The grid.
    pub grid: Grid,
    /// Smallest code.
    pub lo: i32,
    /// Largest code.
    pub hi: i32,
}

impl OutGrid {
    /// The full range of the storage.
    pub fn full(grid: Grid) -> OutGrid {
        let (lo, hi) = grid.code.range();
        OutGrid { grid, lo, hi }
    }

    /// Narrower limits.
    pub fn clamped(grid: Grid, lo: i32, hi: i32) -> OutGrid {
        OutGrid { grid, lo, hi }
    }

    /// Refuses limits that the storage cannot have.
    pub fn check(&self) -> Result<(), KernelError> {
        self.grid.check()?;
        let (lo, hi) = self.grid.code.range();
        if self.lo < lo || self.lo > self.hi {
            return Err(KernelError::Code(self.lo));
        }
        if self.hi > hi {
            return Err(KernelError::Code(self.hi));
        }
        Ok(())
    }

    /// The limits less the zero point, as floats: where a value is clamped before it is rounded.
    pub(super) fn centred_limits(&self) -> (f32, f32) {
        ((self.lo - self.grid.zero_point) as f32, (self.hi - self.grid.zero_point) as f32)
    }
}

/// Refuses what is not positive and finite.
pub(super) fn check_scale(scale: f32) -> Result<(), KernelError> {
    if scale > 0.0 && scale.is_finite() { Ok(()) } else { Err(KernelError::Scale) }
}

/// What an integer product writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QOutput {
    /// Codes: `saturate(round(f32(acc) * f32(f32(s_x * s_w) / s_y)) + z_y)`.
    Codes(OutGrid),
    /// Floats: `f32(acc) * f32(s_x * s_w)`.
    Float,
}

impl QOutput {
    /// The factor from the integer sum to the result, for one channel.
    pub(super) fn multiplier(&self, x_scale: f32, w_scale: f32) -> f32 {
        match self {
            QOutput::Codes(out) => x_scale * w_scale / out.grid.scale,
            QOutput::Float => x_scale * w_scale,
        }
    }

    pub(super) fn check(&self) -> Result<(), KernelError> {
        match self {
            QOutput::Codes(out) => out.check(),
            QOutput::Float => Ok(()),
        }
    }
}
