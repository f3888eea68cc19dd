//! Random changes of an input, the same for the same seed.
//!
//! Most changes keep the length, because a length is written before each part of an ONNX file and a change of it
//! rarely gets past the decoder.

/// A generator of random numbers (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub struct Rng(u64);

impl Rng {
    /// A generator whose numbers depend on `seed` only.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The remainder of a division by a usize fits in a usize.
        self.next().checked_rem(bound as u64).unwrap_or(0) as usize
    }

    /// One of `items`, where there is one.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// A range of at most `longest` within `0..len`.
    fn range(&mut self, len: usize, longest: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        start..(start + 1 + self.below(longest)).min(len)
    }
}

/// Bytes at the edges: of signed and unsigned numbers, of varints, of protobuf's small numbers.
const EDGES: &[u8] = &[0, 1, 2, 3, 7, 8, 0x0a, 0x12, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff];

/// Marks of the text form.
const MARKS: &[u8] = b"(){}[]<>,:=%@\"\\?*-+.0123456789eENa_ \n";

/// Numbers written in text that are hard to hold or to compute with.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e309",
    "nan",
    "4294967296",
];

/// `seed` cut off at a random place.
pub fn truncated(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    seed.iter().copied().take(rng.below(seed.len())).collect()
}

/// `seed` with 1 to 4 random bits turned over.
pub fn flipped(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(out.len());
        let bit = 1 << rng.below(8);
        if let Some(byte) = out.get_mut(at) {
            *byte ^= bit;
        }
    }
    out
}

/// `seed` with 1 to 4 random changes; pieces come from it or from one of `others`.
pub fn changed(rng: &mut Rng, seed: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut out = seed.to_vec();
    // Mostly one: text with several is almost never accepted.
    for _ in 0..1 + rng.below(2) * rng.below(4) {
        change(rng, &mut out, others);
    }
    out
}

fn change(rng: &mut Rng, out: &mut Vec<u8>, others: &[Vec<u8>]) {
    if out.is_empty() {
        out.push(rng.next() as u8);
    }
    let at = rng.below(out.len());
    match rng.below(14) {
        0 => *out = flipped(rng, out),
        1 => set(out, at, rng.next() as u8),
        2 => set(out, at, rng.pick(EDGES).copied().unwrap_or(0)),
        3 => set(out, at, rng.pick(MARKS).copied().unwrap_or(0)),
        4 => drop(out.drain(rng.range(out.len(), 8))),
        5 => overwrite(rng, out, at),
        6 => repeat(rng, out, at),
        7 => number(rng, out, at),
        8 => insert_from(rng, out, at, others),
        9..=12 => word(rng, out, at, others),
        // Two protobuf messages one after the other are one that has the fields of both.
        _ => {
            if let Some(other) = rng.pick(others).filter(|other| out.len() + other.len() < 1 << 14) {
                out.extend_from_slice(other);
            }
        }
    }
}

fn set(out: &mut [u8], at: usize, byte: u8) {
    if let Some(place) = out.get_mut(at) {
        *place = byte;
    }
}

/// Copies a piece over the bytes from `at` on; the length stays.
fn overwrite(rng: &mut Rng, out: &mut [u8], at: usize) {
    let piece = out.get(rng.range(out.len(), 24)).unwrap_or_default().to_vec();
    for (place, byte) in out.iter_mut().skip(at).zip(piece) {
        *place = byte;
    }
}

/// Puts a piece in again, a few times, so that nesting and lists grow.
fn repeat(rng: &mut Rng, out: &mut Vec<u8>, at: usize) {
    let piece = out.get(rng.range(out.len(), 60)).unwrap_or_default().repeat(1 + rng.below(6));
    if out.len() + piece.len() < 1 << 14 {
        out.splice(at..at, piece);
    }
}

/// Puts a hard number in place of the digits from `at` on.
fn number(rng: &mut Rng, out: &mut Vec<u8>, at: usize) {
    let from = (at..out.len()).find(|&i| out.get(i).is_some_and(u8::is_ascii_digit)).unwrap_or(at);
    let digits = out.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let number = rng.pick(NUMBERS).copied().unwrap_or("0");
    out.splice(from..from + digits, number.bytes());
}

/// Puts a word of the input itself, or of one of `others`, in place of the word from `at` on.
fn word(rng: &mut Rng, out: &mut Vec<u8>, at: usize, others: &[Vec<u8>]) {
    let other = if rng.below(3) == 0 { rng.pick(others) } else { None };
    let source = other.map_or(out.as_slice(), Vec::as_slice);
    let new = source.get(word_after(source, rng.below(source.len()))).unwrap_or_default().to_vec();
    out.splice(word_after(out, at), new);
}

/// The first word that begins at `at` or later: letters, digits and what else stands in names and numbers.
fn word_after(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || b"_.@%-".contains(b);
    let skip =
        |from: usize, yes: bool| from + bytes.iter().skip(from).take_while(|b| in_word(b) == yes).count();
    let start = skip(if at == 0 { 0 } else { skip(at, true) }, false);
    start..skip(start, true)
}

fn insert_from(rng: &mut Rng, out: &mut Vec<u8>, at: usize, others: &[Vec<u8>]) {
    let Some(other) = rng.pick(others) else { return };
    let piece = other.get(rng.range(other.len(), 80)).unwrap_or_default().to_vec();
    out.splice(at..at, piece);
}
