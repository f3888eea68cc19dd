//! The header of numpy's `.npy` format, read and written.
//!
//! The header is a Python dictionary with three keys; only what numpy itself writes into it is understood, by
//! a parser without recursion, so that no file can exhaust the stack.
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::{self, Read};

use super::array::{DType, byte_size};
use super::error::NpyProblem;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Structured types make long headers, but those are not read anyway.
const MOST_HEADER_BYTES: u64 = 64 * 1024;

/// The axes that every numpy can read. It also keeps a header within the 16-bit length of version 1.0.
pub(super) const MOST_AXES: usize = 32;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) dtype: DType,
    pub(super) big_endian: bool,
    /// The first axis is the one that varies fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
    /// Bytes of the data behind the header.
    pub(super) data_bytes: u64,
    /// Bytes of the header, magic included.
    pub(super) header_bytes: u64,
}

/// A header could not be read.
pub(super) enum ReadError {
    Io(io::Error),
    Npy(NpyProblem),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

impl From<NpyProblem> for ReadError {
    fn from(problem: NpyProblem) -> ReadError {
        ReadError::Npy(problem)
    }
}

/// Reads magic, version and dictionary; leaves `reader` at the first element.
pub(super) fn read_header(reader: &mut impl Read) -> Result<Header, ReadError> {
    let start = read_up_to(reader, 8)?;
    let version = start.strip_prefix(MAGIC).ok_or(NpyProblem::Magic)?;
    let length_bytes = match *version {
        [1, 0] => 2,
        [2 | 3, 0] => 4,
        [major, minor] => return Err(NpyProblem::Version { major, minor }.into()),
        _ => return Err(NpyProblem::Magic.into()),
    };
    let length = read_up_to(reader, length_bytes)?;
    let length = length.iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
    if length > MOST_HEADER_BYTES {
        return Err(NpyProblem::HeaderSize { found: length, most: MOST_HEADER_BYTES }.into());
    }
    let text = read_up_to(reader, length)?;
    let mut header = Parser { text: &text, at: 0 }.dictionary()?;
    header.header_bytes = 8 + length_bytes + length;
    Ok(header)
}

/// At most `count` bytes; fewer only at the end, which the parser then complains about.
fn read_up_to(reader: &mut impl Read, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<T, NpyProblem>;

impl Parser<'_> {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, the keys in any order.
    fn dictionary(mut self) -> Parsed<Header> {
        let (mut element, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{', "'{'")?;
        while !self.eat(b'}') {
            let key = self.string()?.to_vec();
            self.expect(b':', "':'")?;
            match key.as_slice() {
                b"descr" => element = Some(self.element_type()?),
                b"fortran_order" => fortran = Some(self.boolean()?),
                b"shape" => shape = Some(self.shape()?),
                _ => return Err(self.error("'descr', 'fortran_order' or 'shape'")),
            }
            if !self.eat(b',') {
                self.expect(b'}', "',' or '}'")?;
                break;
            }
        }
        let (dtype, big_endian) = element.ok_or_else(|| self.error("the key 'descr'"))?;
        let fortran = fortran.ok_or_else(|| self.error("the key 'fortran_order'"))?;
        let shape = shape.ok_or_else(|| self.error("the key 'shape'"))?;
        let data_bytes =
            byte_size(dtype, &shape).ok_or_else(|| NpyProblem::Shape { shape: shape.clone() })? as u64;
        Ok(Header { dtype, big_endian, fortran, shape, data_bytes, header_bytes: 0 })
    }

    fn element_type(&mut self) -> Parsed<(DType, bool)> {
        if self.peek() != Some(b'\'') {
            // A list describes a record; it is shown as far as it is one line.
            return Err(NpyProblem::DType { found: "a record".to_owned(), known: DType::names() });
        }
        let text = String::from_utf8_lossy(self.string()?).into_owned();
        let known = text.strip_prefix(['<', '>', '|', '=']).and_then(DType::from_numpy);
        let dtype = known.ok_or_else(|| NpyProblem::DType { found: text.clone(), known: DType::names() })?;
        Ok((dtype, text.starts_with('>')))
    }

    fn shape(&mut self) -> Parsed<Vec<usize>> {
        let mut shape = Vec::new();
        self.expect(b'(', "'('")?;
        while !self.eat(b')') {
            shape.push(self.number()?);
            if !self.eat(b',') {
                self.expect(b')', "',' or ')'")?;
                break;
            }
        }
        Ok(shape)
    }

    fn number(&mut self) -> Parsed<usize> {
        let rest = self.rest();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = rest.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = text.and_then(|text| text.parse().ok()).ok_or_else(|| self.error("a length"))?;
        self.at += digits;
        // Python 2 wrote long integers with an L.
        self.at += usize::from(self.text.get(self.at) == Some(&b'L'));
        Ok(number)
    }

    fn boolean(&mut self) -> Parsed<bool> {
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.error("True or False"))
    }

    fn string(&mut self) -> Parsed<&[u8]> {
        self.expect(b'\'', "a quoted word")?;
        let start = self.at;
        let length = self.rest_from(start).iter().position(|&byte| byte == b'\'');
        let length = length.ok_or_else(|| self.error("a closing quote"))?;
        self.at += length + 1;
        Ok(self.text.get(start..start + length).unwrap_or_default())
    }

    fn expect(&mut self, byte: u8, name: &'static str) -> Parsed<()> {
        if self.eat(byte) { Ok(()) } else { Err(self.error(name)) }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&mut self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// What is left, without the blanks at its front.
    fn rest(&mut self) -> &[u8] {
        self.at += self.rest_from(self.at).iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.rest_from(self.at)
    }

    fn rest_from(&self, at: usize) -> &[u8] {
        self.text.get(at..).unwrap_or_default()
    }

    fn error(&self, expected: &'static str) -> NpyProblem {
        NpyProblem::Syntax { at: self.at, expected }
    }
}

/// A header for row-major, little-endian data of at most [`MOST_AXES`] axes; its length is a multiple of 64, as
/// the format asks.
pub(super) fn write_header(dtype: DType, shape: &[usize]) -> Vec<u8> {
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let lengths: String = shape.iter().map(|length| format!("{length},")).collect();
    let code = dtype.numpy();
    let mut text = format!("{{'descr': '{order}{code}', 'fortran_order': False, 'shape': ({lengths}), }}");
    let front = MAGIC.len() + 4;
    let total = (front + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', total - front - text.len() - 1));
    text.push('\n');

    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parsed<Header> {
        Parser { text: text.as_bytes(), at: 0 }.dictionary()
    }

    fn read(mut bytes: &[u8]) -> Result<Header, NpyProblem> {
        read_header(&mut bytes).map_err(|error| match error {
            ReadError::Npy(problem) => problem,
            ReadError::Io(error) => panic!("{error}"),
        })
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [vec![], vec![5], vec![2, 3, 4], vec![0, 7], vec![1; MOST_AXES]] {
            for dtype in DType::all() {
                let bytes = write_header(dtype, &shape);
                assert_eq!(bytes.len() % 64, 0);
                let header = read(&bytes).unwrap();
                assert_eq!((header.dtype, &header.shape, header.fortran), (dtype, &shape, false));
                assert_eq!(header.header_bytes, bytes.len() as u64);
            }
        }
    }

    #[test]
    fn odd_but_valid_headers_are_read() {
        let header = parse("{'shape': (3L, 2), 'fortran_order': True, 'descr': '>i2'}").unwrap();
        assert_eq!((header.dtype, header.big_endian, header.fortran), (DType::I16, true, true));
        assert_eq!((header.shape.as_slice(), header.data_bytes), (&[3, 2][..], 12));
        assert!(parse("{ 'descr' : '|b1' , 'fortran_order' : False , 'shape' : ( ) , } \n").is_ok());
    }

    #[test]
    fn malformed_headers_are_errors_that_say_where() {
        let text = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(text(""), "has a malformed header at byte 0: expected '{'");
        assert_eq!(
            text("{'descr': '<f4', 'shape': (3,)}"),
            "has a malformed header at byte 31: expected the key 'fortran_order'"
        );
        assert_eq!(text("{'shape': (3 4)}"), "has a malformed header at byte 13: expected ',' or ')'");
        assert_eq!(text("{'shape': (-1,)}"), "has a malformed header at byte 11: expected a length");
        assert_eq!(
            text("{'other': 1}"),
            "has a malformed header at byte 9: expected 'descr', 'fortran_order' or 'shape'"
        );
        assert!(text("{'descr': '<c8'").starts_with("has element type '<c8', supported are 'bool', 'u8'"));
        assert!(text("{'descr': '|O'").starts_with("has element type '|O'"));
        assert!(text("{'descr': [('a', '<f4')]").starts_with("has element type 'a record'"));
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}";
        assert_eq!(text(huge), "has the shape [4294967296, 4294967296], which is too large");
        assert!(parse(&"(".repeat(1_000_000)).is_err());
    }

    #[test]
    fn wrong_front_is_an_error() {
        assert_eq!(read(b"PK"), Err(NpyProblem::Magic));
        assert_eq!(read(b"\x93NUMPY\x04\x00"), Err(NpyProblem::Version { major: 4, minor: 0 }));
        let long = b"\x93NUMPY\x02\x00\xff\xff\xff\xff";
        assert_eq!(
            read(long),
            Err(NpyProblem::HeaderSize { found: u64::from(u32::MAX), most: MOST_HEADER_BYTES })
        );
        let full = write_header(DType::F32, &[2, 2]);
        assert!(matches!(read(&full[..40]), Err(NpyProblem::Syntax { .. })));
    }
}
