//! Random numbers and the odd leaves: names, bytes, floats.

use gs_ir::{Distribution, ElemType, FloatBits};

/// A small generator (SplitMix64), so that one number reproduces a module.
pub(crate) struct Rng(u64);

/// Names that a printer or parser might trip over.
const NAMES: &[&str] = &[
    "",
    "_",
    "a",
    "a.1",
    "a.1.1",
    "b",
    "conv1.weight",
    "1055",
    "12",
    "gpu_0/data_0",
    "/layer1/Conv_output_0",
    "grün",
    "\"",
    "\\",
    "new\nline",
    "\u{202e}rtl",
    "\0",
    "nan",
    "inf",
    "true",
    "f32",
    "i64",
    "floordiv",
    "return",
    "region",
    "dense",
    "file",
    "__metadata__",
    "seq",
    "any",
    "N",
    "H",
    "batch size",
    "x.",
    ".x",
    "0x1p3",
    "?0",
    "from",
];

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn chance(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn name(&mut self) -> String {
        NAMES[self.below(NAMES.len())].to_owned()
    }

    pub(crate) fn int(&mut self) -> i64 {
        match self.below(4) {
            0 => self.next() as i64,
            1 => [i64::MIN, i64::MAX, -1, 0][self.below(4)],
            _ => self.below(9) as i64 - 2,
        }
    }

    pub(crate) fn float(&mut self) -> f32 {
        match self.below(4) {
            0 => f32::from_bits(self.next() as u32),
            1 => [
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                -0.0,
                f32::MIN_POSITIVE,
                f32::from_bits(0xffc0_1234),
            ][self.below(6)],
            _ => self.below(9) as f32 * 0.25 - 1.0,
        }
    }

    pub(crate) fn distribution(&mut self) -> Distribution {
        let (a, b) = (FloatBits(self.float()), FloatBits(self.float()));
        if self.chance(2) { Distribution::Uniform(a, b) } else { Distribution::Normal(a, b) }
    }

    pub(crate) fn elem(&mut self) -> ElemType {
        let all: Vec<ElemType> = ElemType::all().collect();
        all[self.below(all.len())]
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let count = self.below(6);
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Packed contents of so many elements; now and then with something in the unused bits of the last byte.
    pub(crate) fn contents(&mut self, elem: ElemType, count: usize) -> Vec<u8> {
        let size = elem.bytes_for(count).unwrap_or(0);
        let mut bytes: Vec<u8> = (0..size).map(|_| self.next() as u8).collect();
        let used = count * elem.bits() as usize % 8;
        let keep_rest = count > 1 && self.chance(8);
        if let Some(last) = bytes.last_mut().filter(|_| used != 0 && !keep_rest) {
            *last &= (1 << used) - 1;
        }
        bytes
    }
}
