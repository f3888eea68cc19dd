//! The grids of quantisers that training knows (`fake_quant`, `lsq`, `pact`): from their attributes when a plan is made, and from
//! their parameters when those are known. Plans of both kinds read them here.

use gs_eval::quant::{CodeKind, Grid};
use gs_ir::{Module, OpId};
use gs_kernels::{FakeQuant, Learned};

/// How a quantiser rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Grids {
    /// To the codes that span a range.
    OfRange(CodeKind),
    /// To these codes, with a learned step or clip.
    Learned { learned: Learned, low: f32, high: f32 },
}

impl Grids {
    /// How a quantiser, or its gradient, rounds, if floats hold the codes.
    pub(crate) fn of(module: &Module, op: OpId) -> Option<Grids> {
        let attrs = module.attrs_of(op);
        let bits = |usual| u32::try_from(attrs.int("bits", usual)).ok();
        let flag = |name| attrs.bool(name, false);
        let learned = |learned, bits, signed, narrow| {
            let (low, high) = CodeKind { bits, signed, symmetric: true, narrow }.range();
            let fits = (1..=16).contains(&bits) && high >= 1;
            fits.then_some(Grids::Learned { learned, low: low as f32, high: high as f32 })
        };
        match module.op_name(op) {
            "fake_quant" | "fake_quant_grad" => {
                let bits = bits(8)?;
                let [signed, symmetric, narrow] = ["signed", "symmetric", "narrow"].map(flag);
                let kind = CodeKind { bits, signed, symmetric, narrow };
                (1..=FakeQuant::MAX_BITS).contains(&bits).then_some(Grids::OfRange(kind))
            }
            "lsq" | "lsq_grad" => learned(Learned::Lsq, bits(4)?, attrs.bool("signed", true), false),
            "pact" | "pact_grad" => {
                let signed = flag("signed");
                learned(Learned::Pact { signed }, bits(4)?, signed, signed)
            }
            _ => None,
        }
    }

    /// The grids of parameters: as many as there are steps or clips; of ranges, the lower ends lie before the upper ones.
    pub(crate) fn all(self, parameters: &[f32]) -> impl Iterator<Item = FakeQuant> {
        let (rows, half) = (parameters.len(), parameters.len() / 2);
        let count = if matches!(self, Grids::OfRange(_)) { half } else { rows };
        (0..count).map(move |i| match self {
            Grids::OfRange(kind) => {
                let Grid { scale, codes } = Grid::cover(parameters[i], parameters[half + i], kind);
                FakeQuant::new(scale, (codes.low, codes.high), codes.zero_point)
            }
            Grids::Learned { learned, low, high } => {
                let given = parameters[i];
                match learned {
                    Learned::Lsq => FakeQuant { scale: given, low, high, min: 0.0, max: 0.0 },
                    Learned::Pact { signed } => {
                        let min = if signed { -given } else { 0.0 };
                        FakeQuant { scale: given / high, low, high, min, max: given }
                    }
                }
            }
        })
    }
}
