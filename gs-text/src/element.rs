//! Elements of tensors as text and back, exactly: whole numbers as numbers, floats in the shortest form that reads
//! back to the same bits, everything that has no number of its own (NaN payloads, 8- and 4-bit floats) as the
//! hexadecimal bits.

use crate::cursor::{Cursor, parse_magnitude};
use crate::diagnostics::Diagnostic;
use crate::lexer::TokenKind as K;
use crate::quote;
use gs_ir::ElemType;
use half::{bf16, f16};

// ---- printing ----

/// Appends a whole number.
pub fn push_int(out: &mut String, value: i64) {
    if value < 0 {
        out.push('-');
    }
    push_uint(out, value.unsigned_abs());
}

/// Appends a whole number without sign.
pub fn push_uint(out: &mut String, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|&d| d as char));
}

fn push_hex(out: &mut String, bits: u64, width: u32) {
    out.push_str(&format!("0x{bits:0digits$x}", digits = (width as usize).div_ceil(4)));
}

/// Appends a float: the shortest text that reads back to the same bits, always recognisable as a float unless it is
/// a NaN with a payload, which appears as its bits.
pub fn push_f32(out: &mut String, value: f32) {
    const NAN: u32 = 0x7fc0_0000;
    match value {
        v if v.is_nan() && v.to_bits() != NAN => push_hex(out, u64::from(v.to_bits()), 32),
        v if v.is_nan() => out.push_str("nan"),
        v => push_debug(out, format_args!("{v:?}")),
    }
}

/// As [`push_f32`], in double precision.
pub fn push_f64(out: &mut String, value: f64) {
    const NAN: u64 = 0x7ff8_0000_0000_0000;
    match value {
        v if v.is_nan() && v.to_bits() != NAN => push_hex(out, v.to_bits(), 64),
        v if v.is_nan() => out.push_str("nan"),
        v => push_debug(out, format_args!("{v:?}")),
    }
}

fn push_debug(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = std::fmt::Write::write_fmt(out, args);
}

/// The bits of element `index` of packed contents (low bits first below 8 bits); at most 64 bits wide.
fn bits_at(bytes: &[u8], width: u32, index: usize) -> u64 {
    if width < 8 {
        let bit = index * width as usize;
        let byte = bytes.get(bit / 8).copied().unwrap_or(0);
        return u64::from(byte >> (bit % 8)) & ((1 << width) - 1);
    }
    let size = width as usize / 8;
    let mut wide = [0u8; 8];
    for (w, b) in wide.iter_mut().zip(bytes.iter().skip(index * size).take(size)) {
        *w = *b;
    }
    u64::from_le_bytes(wide)
}

/// Appends element `index` of packed contents; strings are not packed and not for here.
pub fn push_element(out: &mut String, elem: ElemType, bytes: &[u8], index: usize) {
    let width = elem.bits();
    match elem {
        ElemType::C64 | ElemType::C128 => {
            let part = if elem == ElemType::C64 { ElemType::F32 } else { ElemType::F64 };
            out.push('(');
            push_element(out, part, bytes, 2 * index);
            out.push_str(", ");
            push_element(out, part, bytes, 2 * index + 1);
            out.push(')');
        }
        ElemType::Str => {}
        _ => push_bits(out, elem, bits_at(bytes, width, index)),
    }
}

fn push_bits(out: &mut String, elem: ElemType, bits: u64) {
    let width = elem.bits();
    match elem {
        ElemType::F32 => push_f32(out, f32::from_bits(bits as u32)),
        ElemType::F64 => push_f64(out, f64::from_bits(bits)),
        ElemType::F16 => push_half(out, bits, f16::from_bits(bits as u16).to_f32(), f16::NAN.to_bits()),
        ElemType::Bf16 => push_half(out, bits, bf16::from_bits(bits as u16).to_f32(), bf16::NAN.to_bits()),
        ElemType::Bool => match bits {
            0 => out.push_str("false"),
            1 => out.push_str("true"),
            _ => push_hex(out, bits, 8),
        },
        _ if elem.is_signed_int() => push_int(out, sign_extend(bits, width)),
        _ if elem.is_int() => push_uint(out, bits),
        _ => push_hex(out, bits, width),
    }
}

fn push_half(out: &mut String, bits: u64, value: f32, nan: u16) {
    match value.is_nan() {
        true if bits != u64::from(nan) => push_hex(out, bits, 16),
        _ => push_f32(out, if value.is_nan() { f32::NAN } else { value }),
    }
}

fn sign_extend(bits: u64, width: u32) -> i64 {
    let shift = 64 - width;
    ((bits << shift) as i64) >> shift
}

/// Whether packed contents hold nothing beside their elements: the unused bits of the last byte are zero.
pub fn padding_is_zero(elem: ElemType, count: usize, bytes: &[u8]) -> bool {
    let used = count * elem.bits() as usize % 8;
    used == 0 || bytes.last().is_none_or(|b| b >> used == 0)
}

// ---- parsing ----

/// Collects elements into packed bytes.
pub struct Packer {
    elem: ElemType,
    /// The bytes so far.
    pub bytes: Vec<u8>,
    /// The number of elements so far.
    pub count: usize,
}

impl Packer {
    /// Without elements.
    pub fn new(elem: ElemType) -> Self {
        Self { elem, bytes: Vec::new(), count: 0 }
    }

    /// Parses one element.
    pub fn parse(&mut self, c: &mut Cursor<'_>) -> Option<()> {
        match self.elem {
            ElemType::Str => c.expected("a number"),
            ElemType::C64 | ElemType::C128 => {
                let part = if self.elem == ElemType::C64 { ElemType::F32 } else { ElemType::F64 };
                c.expect(K::LParen)?;
                let re = parse_bits(c, part)?;
                c.expect(K::Comma)?;
                let im = parse_bits(c, part)?;
                c.expect(K::RParen)?;
                self.push(re, part.bits());
                self.push(im, part.bits());
                self.count += 1;
                Some(())
            }
            elem => {
                let bits = parse_bits(c, elem)?;
                self.push(bits, elem.bits());
                self.count += 1;
                Some(())
            }
        }
    }

    fn push(&mut self, bits: u64, width: u32) {
        if width >= 8 {
            self.bytes.extend_from_slice(&bits.to_le_bytes()[..width as usize / 8]);
            return;
        }
        let shift = self.count * width as usize % 8;
        match self.bytes.last_mut() {
            Some(last) if shift != 0 => *last |= (bits << shift) as u8,
            _ => self.bytes.push(bits as u8),
        }
    }
}

fn parse_bits(c: &mut Cursor<'_>, elem: ElemType) -> Option<u64> {
    match elem {
        ElemType::F64 => parse_float(c, 64, |t| t.parse::<f64>().ok().map(|v| (v.to_bits(), v.is_finite()))),
        ElemType::F32 => parse_f32_bits(c).map(u64::from),
        ElemType::F16 => parse_float(c, 16, |t| {
            let v = f16::from_f32(t.parse().ok()?);
            Some((u64::from(v.to_bits()), v.is_finite()))
        }),
        ElemType::Bf16 => parse_float(c, 16, |t| {
            let v = bf16::from_f32(t.parse().ok()?);
            Some((u64::from(v.to_bits()), v.is_finite()))
        }),
        ElemType::Bool if c.eat_word("true") => Some(1),
        ElemType::Bool if c.eat_word("false") => Some(0),
        _ if elem.is_int() => parse_int_bits(c, elem),
        _ if c.at(K::HexInt) => parse_raw_bits(c, elem.bits()),
        ElemType::Bool => c.expected("`true` or `false`"),
        _ => c.expected(&format!("the bits of an {elem} element, like `0x3c`")),
    }
}

fn parse_f32_bits(c: &mut Cursor<'_>) -> Option<u32> {
    let bits =
        parse_float(c, 32, |t| t.parse::<f32>().ok().map(|v| (u64::from(v.to_bits()), v.is_finite())))?;
    u32::try_from(bits).ok()
}

/// Parses a float in any of its forms.
pub fn parse_f32(c: &mut Cursor<'_>) -> Option<f32> {
    parse_f32_bits(c).map(f32::from_bits)
}

/// Whether what stands here can begin a number.
pub fn at_number(c: &Cursor<'_>) -> bool {
    matches!(c.kind(), K::Int | K::HexInt | K::Float | K::HexFloat | K::Minus)
        || c.at_word("inf")
        || c.at_word("nan")
}

/// Parses a float: decimal, hexadecimal with exponent, `inf`, `nan`, or its bits as a hexadecimal whole number.
/// `read` turns decimal text into bits and says whether the value is finite.
fn parse_float(c: &mut Cursor<'_>, width: u32, read: impl Fn(&str) -> Option<(u64, bool)>) -> Option<u64> {
    if c.at(K::HexInt) {
        return parse_raw_bits(c, width);
    }
    let start = c.token();
    let negative = c.eat(K::Minus);
    let text = c.text();
    let read_signed = |t: &str| if negative { read(&format!("-{t}")) } else { read(t) };
    let (value, may_be_infinite) = match c.kind() {
        K::Int | K::Float => (read_signed(text), false),
        // Shortest decimal digits of a double, so that reading them rounds only once.
        K::HexFloat => (parse_hex_float(text).and_then(|v| read_signed(&format!("{v:?}"))), false),
        K::Ident if text == "inf" => (read_signed("inf"), true),
        K::Ident if text == "nan" && !negative => (read("NaN"), true),
        _ => return c.expected("a number"),
    };
    c.bump();
    match value {
        Some((bits, finite)) if finite || may_be_infinite => Some(bits),
        _ => {
            let span = c.span_from(start);
            c.error(
                Diagnostic::error("GS0002", format!("this number does not fit {width} bits")).label(span, ""),
            );
            None
        }
    }
}

/// The value of a hexadecimal float such as `0x1.8p-3`.
pub fn parse_hex_float(text: &str) -> Option<f64> {
    let body = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let (mantissa, exponent) = body.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let bits = u64::from_str_radix(&digits, 16).ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    let exponent = exponent.checked_sub(4 * i32::try_from(fraction.len()).ok()?)?;
    // In two steps, so that a small result does not pass through an intermediate zero or infinity.
    let half = exponent / 2;
    Some(bits as f64 * 2f64.powi(half) * 2f64.powi(exponent - half))
}

fn parse_raw_bits(c: &mut Cursor<'_>, width: u32) -> Option<u64> {
    let token = c.bump();
    let value = parse_magnitude(c.text_of(token)).filter(|v| width >= 64 || v >> width == 0);
    if value.is_none() {
        let d = Diagnostic::error("GS0002", format!("these bits do not fit {width} bits"));
        c.error(d.label(c.span_of(token), ""));
    }
    value
}

fn parse_int_bits(c: &mut Cursor<'_>, elem: ElemType) -> Option<u64> {
    let start = c.token();
    let negative = c.eat(K::Minus);
    if !matches!(c.kind(), K::Int | K::HexInt) {
        return c.expected("a whole number");
    }
    let token = c.bump();
    let magnitude = parse_magnitude(c.text_of(token)).map(i128::from);
    let value = magnitude.map(|m| if negative { -m } else { m });
    let width = elem.bits();
    let (low, high) = match elem.is_signed_int() {
        true => (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1),
        false => (0, (1i128 << width) - 1),
    };
    match value.filter(|v| (low..=high).contains(v)) {
        Some(v) => Some(v as u64 & (u64::MAX >> (64 - width))),
        None => {
            let span = c.span_from(start);
            let d =
                Diagnostic::error("GS0002", format!("this number does not fit the element type `{elem}`"));
            c.error(d.label(span, "").note(format!("{elem} holds {low} to {high}")));
            None
        }
    }
}

/// Appends a string of a string tensor.
pub fn push_string(out: &mut String, bytes: &[u8]) {
    quote::push_quoted_bytes(out, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::FileId;

    fn read_back(elem: ElemType, text: &str) -> (Vec<u8>, usize) {
        let mut c = Cursor::new(FileId(0), text);
        let mut packer = Packer::new(elem);
        while !c.at(K::Eof) {
            packer.parse(&mut c).unwrap_or_else(|| panic!("{elem}: {text}: {:?}", c.diagnostics()));
            c.eat(K::Comma);
        }
        (packer.bytes, packer.count)
    }

    #[test]
    fn every_bit_pattern_of_small_types_reads_back() {
        for elem in ElemType::all().filter(|e| (1..=16).contains(&e.bits())) {
            let count = 1usize << elem.bits();
            let mut bytes = Vec::new();
            match elem.bits() {
                16 => (0..=u16::MAX).for_each(|v| bytes.extend(v.to_le_bytes())),
                8 => bytes.extend(0..=u8::MAX),
                width => {
                    let mut packer = Packer::new(elem);
                    for v in 0..count {
                        packer.push(v as u64, width);
                        packer.count += 1;
                    }
                    bytes = packer.bytes;
                }
            }
            let mut text = String::new();
            for i in 0..count {
                push_element(&mut text, elem, &bytes, i);
                text.push_str(", ");
            }
            assert_eq!(read_back(elem, &text), (bytes, count), "{elem}");
        }
    }

    #[test]
    fn wide_floats_read_back() {
        let bits32 =
            [0, 1, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7fc0_0001, 0xffc0_0000, 0x7f7f_ffff];
        for bits in bits32.into_iter().chain((0..2000u32).map(|i| i.wrapping_mul(2_654_435_761))) {
            let mut text = String::new();
            push_element(&mut text, ElemType::F32, &bits.to_le_bytes(), 0);
            assert_eq!(read_back(ElemType::F32, &text).0, bits.to_le_bytes(), "{text}");
            let wide = u64::from(bits) << 32 | 0x1234_5678;
            text.clear();
            push_element(&mut text, ElemType::F64, &wide.to_le_bytes(), 0);
            assert_eq!(read_back(ElemType::F64, &text).0, wide.to_le_bytes(), "{text}");
        }
    }

    #[test]
    fn hexadecimal_floats() {
        assert_eq!(parse_hex_float("0x1.8p-3"), Some(0.1875));
        assert_eq!(parse_hex_float("0x1p-149"), Some(f64::from(f32::from_bits(1))));
        let (bytes, _) = read_back(ElemType::F32, "-0x1.8p1");
        assert_eq!(bytes, (-3.0f32).to_le_bytes());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (elem, text) in [
            (ElemType::I4, "8"),
            (ElemType::U8, "-1"),
            (ElemType::U8, "256"),
            (ElemType::F32, "1e39"),
            (ElemType::F16, "1e5"),
            (ElemType::F32, "0x1ffffffff"),
            (ElemType::F8E5M2, "1.0"),
            (ElemType::I64, "9223372036854775808"),
            (ElemType::Bool, "2"),
        ] {
            let mut c = Cursor::new(FileId(0), text);
            assert_eq!(Packer::new(elem).parse(&mut c), None, "{elem} {text}");
            assert_eq!(c.diagnostics().len(), 1);
        }
        assert_eq!(read_back(ElemType::U64, "18446744073709551615").0, u64::MAX.to_le_bytes());
    }

    #[test]
    fn complex_elements_are_pairs() {
        let bytes: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut text = String::new();
        push_element(&mut text, ElemType::C64, &bytes, 0);
        assert_eq!(text, "(1.5, -2.0)");
        assert_eq!(read_back(ElemType::C64, &text), (bytes, 1));
    }
}
