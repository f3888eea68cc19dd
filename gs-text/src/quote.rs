//! Names and strings in text: which names need quotes, and the one escape form. A quoted string stands for
//! bytes: `\xNN` is a byte, `\u{...}` a character, `\n \r \t \" \\` the usual ones.

use std::borrow::Cow;

/// Whether a name can stand without quotes: words of letters, digits and `_` joined by single dots, the first not
/// beginning with a digit. `_` alone is a word of its own.
pub fn is_plain(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut word_start = true;
    for (i, &b) in bytes.iter().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => word_start = false,
            b'0'..=b'9' if i > 0 => word_start = false,
            b'.' if !word_start => word_start = true,
            _ => return false,
        }
    }
    !word_start && bytes != b"_"
}

/// Appends a quoted string.
pub fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Appends quoted bytes; parts that are UTF-8 stay readable.
pub fn push_quoted_bytes(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        push_escaped(out, chunk.valid());
        for b in chunk.invalid() {
            push_byte(out, *b);
        }
    }
    out.push('"');
}

/// Appends a name, in quotes only where it needs them.
pub fn push_name(out: &mut String, name: &str) {
    if is_plain(name) { out.push_str(name) } else { push_quoted(out, name) }
}

/// A string in quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

fn push_escaped(out: &mut String, text: &str) {
    let mut done = 0;
    for (i, c) in text.char_indices() {
        let plain = !matches!(c, '"' | '\\') && !hidden(c);
        if plain {
            continue;
        }
        out.push_str(&text[done..i]);
        done = i + c.len_utf8();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii() => push_byte(out, c as u8),
            c => {
                out.push_str("\\u{");
                out.push_str(&format!("{:x}", c as u32));
                out.push('}');
            }
        }
    }
    out.push_str(&text[done..]);
}

/// Characters that one cannot see, or that change how a line looks: control and direction characters.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn push_byte(out: &mut String, b: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(HEX[usize::from(b >> 4)] as char);
    out.push(HEX[usize::from(b & 15)] as char);
}

/// An escape that is none: where it stands within the quoted text, and its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadEscape {
    /// First byte of the escape.
    pub at: usize,
    /// Its length.
    pub len: usize,
}

/// The bytes that the inside of a quoted string stands for.
///
/// # Errors
/// Where an escape is unknown or out of range.
pub fn unescape(inside: &str) -> Result<Cow<'_, [u8]>, BadEscape> {
    let Some(first) = inside.find('\\') else { return Ok(Cow::Borrowed(inside.as_bytes())) };
    let mut out = Vec::with_capacity(inside.len());
    out.extend_from_slice(&inside.as_bytes()[..first]);
    let mut at = first;
    while let Some(c) = inside[at..].chars().next() {
        if c != '\\' {
            let next = inside[at..].find('\\').map_or(inside.len(), |i| at + i);
            out.extend_from_slice(&inside.as_bytes()[at..next]);
            at = next;
            continue;
        }
        at += escape(inside, at, &mut out)?;
    }
    Ok(Cow::Owned(out))
}

/// Decodes the escape at a position and gives its length.
fn escape(inside: &str, at: usize, out: &mut Vec<u8>) -> Result<usize, BadEscape> {
    let rest = &inside[at + 1..];
    let simple = match rest.as_bytes().first() {
        Some(b'n') => Some(b'\n'),
        Some(b'r') => Some(b'\r'),
        Some(b't') => Some(b'\t'),
        Some(b'"') => Some(b'"'),
        Some(b'\\') => Some(b'\\'),
        _ => None,
    };
    if let Some(b) = simple {
        out.push(b);
        return Ok(2);
    }
    let bad = BadEscape { at, len: 1 + rest.chars().next().map_or(0, char::len_utf8) };
    match rest.as_bytes().first() {
        Some(b'x') => {
            let digits = rest.get(1..3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).ok_or(bad)?;
            out.push(u8::from_str_radix(digits, 16).map_err(|_| bad)?);
            Ok(4)
        }
        Some(b'u') => {
            let body = rest.get(1..).and_then(|r| r.strip_prefix('{')).ok_or(bad)?;
            let digits = &body[..body.find('}').filter(|&n| (1..=6).contains(&n)).ok_or(bad)?];
            let bad = BadEscape { at, len: digits.len() + 4 };
            let number = u32::from_str_radix(digits, 16).map_err(|_| bad)?;
            let c = char::from_u32(number).filter(|_| !digits.starts_with('+')).ok_or(bad)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            Ok(digits.len() + 4)
        }
        _ => Err(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names() {
        for name in ["a", "_a", "conv1.weight", "layer1.0.bn", "X9"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "_", "1", "1055", "a.", ".a", "a..b", "a/b", "gpu_0/data_0", "ü", "a b", "a-b"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn every_byte_string_survives_quoting() {
        let mut all: Vec<u8> = (0..=255).collect();
        all.extend("grün \u{202e} \u{1f980} \"\\\n".as_bytes());
        let mut text = String::new();
        push_quoted_bytes(&mut text, &all);
        assert!(!text.contains('\n') && !text.contains('\u{202e}'));
        assert_eq!(unescape(&text[1..text.len() - 1]).unwrap().as_ref(), &all[..]);
    }

    #[test]
    fn bad_escapes_are_located() {
        for (text, at, len) in [
            ("ab\\q", 2, 2),
            ("\\x1", 0, 2),
            ("\\xgg", 0, 2),
            ("\\u{110000}", 0, 10),
            ("\\u{+41}", 0, 7),
            ("\\", 0, 1),
            ("\\u{", 0, 2),
            ("\\ü", 0, 3),
        ] {
            assert_eq!(unescape(text), Err(BadEscape { at, len }), "{text}");
        }
    }
}
