//! What a target can do: plain data, read from a `.toml` file. Placement, lowering, pruning and the cost of
//! extraction ask it; nothing about a target is written in code.

use serde::Deserialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// A target, as its file describes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name, as in `--target`.
    pub name: String,
    /// One line for lists.
    pub doc: String,
    /// The ONNX forms that it runs.
    pub format: Format,
    /// Opset versions that it loads.
    pub opset: OpsetRange,
    /// How results are rounded to integers.
    pub rounding: Rounding,
    /// The arithmetic of requantisation.
    pub requant: Requant,
    /// Whether sums of two u8 x i8 products saturate at 16 bits; weights then need 7 bits.
    pub pair_saturation: bool,
    /// What channel counts run fast.
    pub channel_multiple: ChannelMultiple,
    /// Grids of activations.
    pub activation: ActivationGrids,
    /// Grids of weights.
    pub weight: WeightGrids,
    /// The grid of a bias.
    pub bias: BiasGrid,
    /// Operators that have an integer form, by name.
    pub op: BTreeMap<String, OpSupport>,
    /// For operators without one: another way of writing them, in words.
    #[serde(default)]
    pub rewrite: BTreeMap<String, String>,
    /// Relative costs.
    pub cost: Costs,
}

/// The ONNX forms that a target runs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Format {
    Qdq,
    Qoperator,
    Both,
}

/// Opset versions that a target loads.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct OpsetRange {
    /// The version to write.
    pub default: i64,
    /// The highest that it loads.
    pub max: i64,
}

/// How results are rounded to integers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Rounding {
    HalfEven,
    HalfUp,
    HalfAway,
}

/// The arithmetic of requantisation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Requant {
    /// The accumulator as f32 times an f32 factor, rounded.
    F32Multiply,
    /// A 31-bit fixed-point multiplier and a rounding shift.
    Q31Shift,
    /// A shift.
    Pow2Shift,
}

/// What channel counts run fast.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ChannelMultiple {
    /// Counts that are no multiple of this are slower than the next one above.
    pub int: i64,
    /// Multiples of this are best.
    pub best: i64,
}

/// Grids of activations.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ActivationGrids {
    /// Element types, best first.
    pub types: Vec<String>,
    /// Which zero points are allowed.
    pub zero_point: ZeroPoint,
}

/// Which zero points are allowed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ZeroPoint {
    Any,
    Zero,
    Mid,
}

/// Grids of weights.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct WeightGrids {
    /// Element types, best first.
    pub types: Vec<String>,
    /// One scale per tensor, or one per output channel.
    pub granularity: Vec<Granularity>,
    /// Which zero points are allowed.
    pub zero_point: ZeroPoint,
}

/// How many scales a tensor has.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Granularity {
    Tensor,
    Channel,
}

/// The grid of a bias: scale = scale of the data times scale of the weight, zero point 0.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct BiasGrid {
    /// Element type.
    #[serde(rename = "type")]
    pub elem: String,
}

/// The integer form of an operator.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct OpSupport {
    /// The integer operator; none where the operator itself runs on the integer tensor.
    pub native: Option<String>,
    /// Followers that become part of it if the output grid lies inside their range.
    pub absorbs: Vec<String>,
    /// Operands and results share one grid: it runs on the integer tensor as it is.
    pub same_grid: bool,
    /// Whether it can also return float.
    pub float_out: bool,
    /// The only axis for which the integer form exists (negative: from the end).
    pub needs_axis: Option<i64>,
}

/// Relative costs, for choosing between equal graphs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// A float operator costs this many times its integer form.
    pub float_over_int: f64,
    /// A quantise-dequantise pair, per element, relative to a multiply-add.
    pub quantise_per_element: f64,
}

/// Why a target file was not accepted.
#[derive(Debug, Error)]
#[error("target file: {0}")]
pub struct TargetError(#[from] toml::de::Error);

impl Target {
    /// Reads a target file.
    ///
    /// # Errors
    /// With line, column and what was expected.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        Ok(toml::from_str(text)?)
    }

    /// The integer form of an operator, if it has one.
    pub fn support(&self, op_name: &str) -> Option<&OpSupport> {
        self.op.get(op_name)
    }
}
