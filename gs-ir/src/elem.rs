//! Element types: all of ONNX's, plus the 1-bit integer used for packed binary weights.

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)] // the names say it: kind and width in bits
pub enum ElemType {
    F64,
    F32,
    F16,
    Bf16,
    F8E4M3Fn,
    F8E4M3Fnuz,
    F8E5M2,
    F8E5M2Fnuz,
    F8E8M0,
    F4E2M1,
    I64,
    I32,
    I16,
    I8,
    I4,
    I2,
    U64,
    U32,
    U16,
    U8,
    U4,
    U2,
    U1,
    Bool,
    Str,
    C64,
    C128,
}

use ElemType::*;

/// What is known of each element type: its name in text, its width in bits, its number in ONNX's `DataType`
/// (0 where ONNX has none). The one list that the parser, printer and importer read.
const TABLE: &[(ElemType, &str, u32, i32)] = &[
    (F64, "f64", 64, 11),
    (F32, "f32", 32, 1),
    (F16, "f16", 16, 10),
    (Bf16, "bf16", 16, 16),
    (F8E4M3Fn, "f8e4m3fn", 8, 17),
    (F8E4M3Fnuz, "f8e4m3fnuz", 8, 18),
    (F8E5M2, "f8e5m2", 8, 19),
    (F8E5M2Fnuz, "f8e5m2fnuz", 8, 20),
    (F8E8M0, "f8e8m0", 8, 24),
    (F4E2M1, "f4e2m1", 4, 23),
    (I64, "i64", 64, 7),
    (I32, "i32", 32, 6),
    (I16, "i16", 16, 5),
    (I8, "i8", 8, 3),
    (I4, "i4", 4, 22),
    (I2, "i2", 2, 26),
    (U64, "u64", 64, 13),
    (U32, "u32", 32, 12),
    (U16, "u16", 16, 4),
    (U8, "u8", 8, 2),
    (U4, "u4", 4, 21),
    (U2, "u2", 2, 25),
    (U1, "u1", 1, 0),
    (Bool, "bool", 8, 9),
    (Str, "str", 0, 8),
    (C64, "c64", 64, 14),
    (C128, "c128", 128, 15),
];

impl ElemType {
    fn row(self) -> &'static (ElemType, &'static str, u32, i32) {
        // The table is in declaration order (checked by a test), so the discriminant is the index.
        &TABLE[self as usize]
    }

    /// Every element type, in declaration order.
    pub fn all() -> impl Iterator<Item = ElemType> {
        TABLE.iter().map(|r| r.0)
    }

    /// The name in text, like `f32`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type with this name in text.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|r| r.1 == name).map(|r| r.0)
    }

    /// Width in bits when stored densely; 0 for strings.
    pub fn bits(self) -> u32 {
        self.row().2
    }

    /// The number in ONNX's `TensorProto.DataType`, where there is one.
    pub fn onnx(self) -> Option<i32> {
        (self.row().3 != 0).then_some(self.row().3)
    }

    /// The type with this number in ONNX's `TensorProto.DataType`.
    pub fn from_onnx(number: i32) -> Option<Self> {
        TABLE.iter().find(|r| r.3 == number && number != 0).map(|r| r.0)
    }

    /// Bytes that `count` elements take, packed; `None` for strings and on overflow.
    pub fn bytes_for(self, count: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits => count.checked_mul(bits as usize).map(|b| b.div_ceil(8)),
        }
    }

    /// A real floating-point type (complex ones are not).
    pub fn is_float(self) -> bool {
        (self as usize) <= (F4E2M1 as usize)
    }

    /// An integer type, signed or not; `bool` is none.
    pub fn is_int(self) -> bool {
        (I64 as usize..=U1 as usize).contains(&(self as usize))
    }

    /// A signed integer type.
    pub fn is_signed_int(self) -> bool {
        (I64 as usize..=I2 as usize).contains(&(self as usize))
    }

    /// The smallest and largest value of an integer type (64-bit unsigned saturates at `i64::MAX`).
    pub fn int_range(self) -> Option<(i64, i64)> {
        let bits = self.bits();
        match self {
            U64 => Some((0, i64::MAX)),
            I64 => Some((i64::MIN, i64::MAX)),
            _ if self.is_int() => {
                let codes = CodeRange::of(bits, self.is_signed_int(), false);
                Some((codes.low, codes.high))
            }
            _ => None,
        }
    }

    /// The integer type of this width and sign.
    pub fn int(bits: u32, signed: bool) -> Option<Self> {
        TABLE.iter().map(|r| r.0).find(|e| e.is_int() && e.bits() == bits && e.is_signed_int() == signed)
    }
}

/// The codes that a quantiser may use: the one place that says so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CodeRange {
    /// The smallest.
    pub low: i64,
    /// The largest.
    pub high: i64,
    /// The code of zero on a symmetric grid.
    pub middle: i64,
}

impl CodeRange {
    /// The codes of 1 to 63 bits (another width counts as the nearest of these): around zero where they are signed,
    /// else from zero on; `narrow` leaves out the smallest.
    pub const fn of(bits: u32, signed: bool, narrow: bool) -> Self {
        let bits = match bits {
            0 => 1,
            64.. => 63,
            _ => bits,
        };
        let half = 1i64 << (bits - 1);
        let (low, high, middle) = if signed { (-half, half - 1, 0) } else { (0, half - 1 + half, half) };
        Self { low: low + narrow as i64, high, middle }
    }
}

impl std::fmt::Display for ElemType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_declaration_order_and_invertible() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(ElemType::from_name(row.1), Some(row.0));
            if let Some(n) = row.0.onnx() {
                assert_eq!(ElemType::from_onnx(n), Some(row.0));
            }
        }
        assert_eq!(I4.int_range(), Some((-8, 7)));
        assert_eq!(U2.int_range(), Some((0, 3)));
        assert_eq!(ElemType::int(8, false), Some(U8));
        assert_eq!(I4.bytes_for(3), Some(2));
    }

    #[test]
    fn code_ranges() {
        let of = |bits, signed, narrow| {
            let c = CodeRange::of(bits, signed, narrow);
            (c.low, c.high, c.middle)
        };
        assert_eq!(of(8, true, false), (-128, 127, 0));
        assert_eq!(of(8, true, true), (-127, 127, 0));
        assert_eq!(of(4, false, false), (0, 15, 8));
        assert_eq!(of(1, false, false), (0, 1, 1));
        assert_eq!(of(1, true, true), (0, 0, 0));
        assert_eq!((of(0, true, false), of(99, false, false)), (of(1, true, false), (0, i64::MAX, 1 << 62)));
        for e in ElemType::all().filter(|e| e.is_int() && e.bits() < 64) {
            let c = CodeRange::of(e.bits(), e.is_signed_int(), false);
            assert_eq!(e.int_range(), Some((c.low, c.high)));
        }
    }
}
