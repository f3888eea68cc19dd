//! What a target can do: plain data, read from a `.toml` file. Placement, lowering, pruning and the cost of
//! extraction ask it; nothing about a target is written in code.

use gs_eval::Arithmetic;
pub use gs_eval::{Requant, Rounding};
use serde::{Deserialize, Deserializer};
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
    /// The rule files that lower a network to it.
    pub rules: RuleFiles,
    /// Opset versions that it loads.
    pub opset: OpsetRange,
    /// How results are rounded to integers.
    #[serde(deserialize_with = "rounding")]
    pub rounding: Rounding,
    /// The arithmetic of requantisation.
    #[serde(deserialize_with = "requant")]
    pub requant: Requant,
    /// Whether sums of two u8 x i8 products saturate at 16 bits; weights then have at most 7 bits.
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
    /// For operators without one: the operator by which a shipped rule may write them, where it applies.
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

/// The rule files of a target, by name, in the order in which they run.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RuleFiles {
    /// From a frozen network to integer operators.
    pub integers: Vec<String>,
    /// From integer operators to the portable form.
    #[serde(default)]
    pub portable: Vec<String>,
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
    /// Element types, best first: `u8` or `i8`.
    pub types: Vec<String>,
    /// Which zero points are allowed.
    pub zero_point: ZeroPoint,
}

/// Which zero points are allowed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ZeroPoint {
    /// Every code.
    Any,
    /// 0 only: symmetric grids of signed codes.
    Zero,
    /// The middle of the codes only: symmetric grids, signed or not.
    Mid,
}

impl ZeroPoint {
    /// Whether grids of codes with or without a sign, symmetric or not, have only such zero points.
    pub fn allows(self, signed: bool, symmetric: bool) -> bool {
        match self {
            ZeroPoint::Any => true,
            ZeroPoint::Zero => signed && symmetric,
            ZeroPoint::Mid => symmetric,
        }
    }

    /// What it is in words.
    pub fn words(self) -> &'static str {
        match self {
            ZeroPoint::Any => "any zero point",
            ZeroPoint::Zero => "zero point 0 only",
            ZeroPoint::Mid => "the middle code as zero point only",
        }
    }
}

/// Grids of weights.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct WeightGrids {
    /// Element types, best first: `u8` or `i8`.
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
    /// The zero point of the result is added before rounding, so that ties depend on its parity. For the operators of
    /// [`ZERO_POINT_PLACES`] only.
    pub zero_point_before_round: bool,
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

/// The operators whose integer form may add the zero point before or after rounding.
pub const ZERO_POINT_PLACES: [&str; 3] = ["add", "mul", "average_pool"];

/// Why a target file was not accepted.
#[derive(Debug, Error)]
pub enum TargetError {
    /// It is not what a target file looks like.
    #[error("target file: {0}")]
    Form(#[from] toml::de::Error),
    /// A place of the zero point for an operator that has no choice.
    #[error(
        "target file: [op.{op}] says `zero_point_before_round`, but there is a choice only for: {}",
        ZERO_POINT_PLACES.join(", ")
    )]
    ZeroPointPlace {
        /// The operator.
        op: String,
    },
    /// A list of types or granularities that is empty or names what no grid has.
    #[error("target file: `{key}` lists {found}; there are: `{}`", .known.join("`, `"))]
    List {
        /// The key.
        key: &'static str,
        /// What it lists.
        found: String,
        /// What it may list.
        known: &'static [&'static str],
    },
}

/// Types of codes that grids of tensors have.
const CODES: &[&str] = &["u8", "i8"];
/// Types of codes that biases have.
const BIAS_CODES: &[&str] = &["i32"];

impl Target {
    /// Reads a target file.
    ///
    /// # Errors
    /// With line, column and what was expected.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let target: Self = toml::from_str(text)?;
        let places = target.op.iter().filter(|(_, s)| s.zero_point_before_round);
        if let Some(op) = places.map(|(op, _)| op).find(|op| !ZERO_POINT_PLACES.contains(&op.as_str())) {
            return Err(TargetError::ZeroPointPlace { op: op.clone() });
        }
        check_list("activation.types", &target.activation.types, CODES)?;
        check_list("weight.types", &target.weight.types, CODES)?;
        check_list("bias.type", std::slice::from_ref(&target.bias.elem), BIAS_CODES)?;
        if target.weight.granularity.is_empty() {
            let known = &["tensor", "channel"];
            return Err(TargetError::List { key: "weight.granularity", found: "nothing".to_owned(), known });
        }
        Ok(target)
    }

    /// The integer form of an operator, if it has one.
    pub fn support(&self, op_name: &str) -> Option<&OpSupport> {
        self.op.get(op_name)
    }

    /// The arithmetic in which it computes integers.
    pub fn arithmetic(&self) -> Arithmetic {
        let [add, mul, average_pool] =
            ZERO_POINT_PLACES.map(|op| self.support(op).is_some_and(|s| s.zero_point_before_round));
        Arithmetic {
            requant: self.requant,
            rounding: self.rounding,
            add_zero_point_before_round: add,
            mul_zero_point_before_round: mul,
            average_pool_zero_point_before_round: average_pool,
        }
    }
}

/// Checks a list of words against those that there are.
fn check_list(
    key: &'static str,
    words: &[String],
    known: &'static [&'static str],
) -> Result<(), TargetError> {
    let other = words.iter().find(|w| !known.contains(&w.as_str()));
    let found = match other {
        Some(word) => format!("`{word}`"),
        None if words.is_empty() => "nothing".to_owned(),
        None => return Ok(()),
    };
    Err(TargetError::List { key, found, known })
}

fn rounding<'de, D: Deserializer<'de>>(from: D) -> Result<Rounding, D::Error> {
    named(from, "rounding", Rounding::from_name, &Rounding::ALL.map(Rounding::name))
}

fn requant<'de, D: Deserializer<'de>>(from: D) -> Result<Requant, D::Error> {
    named(from, "requantisation", Requant::from_name, &Requant::ALL.map(Requant::name))
}

/// What a word names, or an error that says what there is.
fn named<'de, D: Deserializer<'de>, T>(
    from: D,
    what: &str,
    find: fn(&str) -> Option<T>,
    known: &[&str],
) -> Result<T, D::Error> {
    let word = String::deserialize(from)?;
    let unknown = || format!("no {what} is named `{word}`; there are: `{}`", known.join("`, `"));
    find(&word).ok_or_else(|| serde::de::Error::custom(unknown()))
}
