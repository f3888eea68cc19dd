//! The kinds of observers as a person writes them: `minmax`, `percentile{p=99.9}`, `mse{norm=2.4}`.

use super::{Histogram, ObserverError, entropy_range, mse_range, percentile_range};
use crate::quant::{Grid, Range};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which observer to use, with its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ObserverKind {
    /// The extreme values.
    MinMax,
    /// The quantiles at `p` and `100 - p` percent.
    Percentile {
        /// Percent of the values below the upper end.
        p: f64,
    },
    /// Least Kullback-Leibler divergence between the histogram and its quantised form.
    Entropy,
    /// Least quantisation error.
    Mse {
        /// Exponent of the error; above 2, outliers count for more.
        norm: f64,
    },
    /// Mean plus and minus `k` standard deviations, but not beyond the extreme values.
    Std {
        /// Number of standard deviations.
        k: f64,
    },
    /// Extreme values of each batch, smoothed. Depends on the order of batches: for training only.
    Ema {
        /// How much of the past is kept at each batch.
        decay: f64,
    },
}

/// A parameter of a kind: key, default, and the values it may have.
struct Parameter {
    key: &'static str,
    default: f64,
    legal: &'static str,
    check: fn(f64) -> bool,
}

struct Spec {
    name: &'static str,
    parameter: Option<Parameter>,
    make: fn(f64) -> ObserverKind,
}

/// All that parsing, printing and error messages know of the kinds.
const SPECS: [Spec; 6] = [
    Spec { name: "minmax", parameter: None, make: |_| ObserverKind::MinMax },
    Spec {
        name: "percentile",
        parameter: Some(Parameter {
            key: "p",
            default: 99.99,
            legal: "above 50, up to 100",
            check: |p| p > 50.0 && p <= 100.0,
        }),
        make: |p| ObserverKind::Percentile { p },
    },
    Spec { name: "entropy", parameter: None, make: |_| ObserverKind::Entropy },
    Spec {
        name: "mse",
        parameter: Some(Parameter {
            key: "norm",
            default: 2.0,
            legal: "1 to 8",
            check: |n| (1.0..=8.0).contains(&n),
        }),
        make: |norm| ObserverKind::Mse { norm },
    },
    Spec {
        name: "std",
        parameter: Some(Parameter {
            key: "k",
            default: 4.0,
            legal: "above 0, up to 100",
            check: |k| k > 0.0 && k <= 100.0,
        }),
        make: |k| ObserverKind::Std { k },
    },
    Spec {
        name: "ema",
        parameter: Some(Parameter {
            key: "decay",
            default: 0.99,
            legal: "0 up to, but not including, 1",
            check: |d| (0.0..1.0).contains(&d),
        }),
        make: |decay| ObserverKind::Ema { decay },
    },
];

/// Why a text is no observer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum KindError {
    /// The name is not known.
    #[error("there is no observer `{name}`; there are: {}", names())]
    UnknownKind {
        /// The name as written.
        name: String,
    },
    /// The braces are not as in `name{key=value}`.
    #[error("`{text}` is not of the form `name` or `name{{key=value}}`")]
    Syntax {
        /// The text as written.
        text: String,
    },
    /// The kind has no such parameter.
    #[error("observer `{kind}` has no parameter `{key}`; {}", its_keys(.known))]
    UnknownKey {
        /// Name of the kind.
        kind: &'static str,
        /// The key as written.
        key: String,
        /// The key it has, if any.
        known: Option<&'static str>,
    },
    /// A parameter is given twice.
    #[error("parameter `{key}` of observer `{kind}` is given twice")]
    Twice {
        /// Name of the kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A value is no number, or one that makes no sense.
    #[error("`{value}` is no value for `{key}` of observer `{kind}`, which is {legal}")]
    Value {
        /// Name of the kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What it may be.
        legal: &'static str,
    },
}

fn names() -> String {
    SPECS.map(|spec| spec.name).join(", ")
}

fn its_keys(key: &Option<&'static str>) -> String {
    key.map_or("it has none".into(), |key| format!("it has: {key}"))
}

impl ObserverKind {
    /// The default for activations at 8 bits.
    pub const DEFAULT_PERCENTILE: ObserverKind = ObserverKind::Percentile { p: 99.99 };

    /// Names of all kinds, in the order in which they are documented.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SPECS.iter().map(|spec| spec.name)
    }

    /// Whether shards of a calibration can be merged.
    pub fn mergeable(self) -> bool {
        !matches!(self, ObserverKind::Ema { .. })
    }

    /// The range that this kind takes from a histogram. Moving averages remember what no histogram has and
    /// give the extreme values; standard deviations are estimated from the bins.
    pub fn range_of(self, histogram: &Histogram, grid: Grid) -> Result<Range, ObserverError> {
        match self {
            ObserverKind::MinMax | ObserverKind::Ema { .. } => {
                histogram.extent().ok_or(ObserverError::Empty(histogram.seen()))
            }
            ObserverKind::Percentile { p } => percentile_range(histogram, p),
            ObserverKind::Entropy => entropy_range(histogram, grid),
            ObserverKind::Mse { norm } => mse_range(histogram, grid, norm),
            ObserverKind::Std { k } => super::moments::range_of_histogram(histogram, k),
        }
    }

    /// Place in [`SPECS`] and value of the parameter.
    fn parts(self) -> (usize, f64) {
        match self {
            ObserverKind::MinMax => (0, 0.0),
            ObserverKind::Percentile { p } => (1, p),
            ObserverKind::Entropy => (2, 0.0),
            ObserverKind::Mse { norm } => (3, norm),
            ObserverKind::Std { k } => (4, k),
            ObserverKind::Ema { decay } => (5, decay),
        }
    }
}

impl fmt::Display for ObserverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, value) = self.parts();
        let Some(spec) = SPECS.get(index) else { return Ok(()) };
        match &spec.parameter {
            Some(p) if p.default != value => write!(f, "{}{{{}={value}}}", spec.name, p.key),
            _ => f.write_str(spec.name),
        }
    }
}

impl From<ObserverKind> for String {
    fn from(kind: ObserverKind) -> String {
        kind.to_string()
    }
}

impl TryFrom<String> for ObserverKind {
    type Error = KindError;
    fn try_from(text: String) -> Result<Self, KindError> {
        text.parse()
    }
}

impl FromStr for ObserverKind {
    type Err = KindError;

    /// Parses `name`, `name{}` or `name{key=value}`; white space around each part is allowed.
    fn from_str(text: &str) -> Result<Self, KindError> {
        let syntax = || KindError::Syntax { text: text.into() };
        let (name, body) = match text.trim().split_once('{') {
            None => (text.trim(), ""),
            Some((name, rest)) => (name.trim(), rest.strip_suffix('}').ok_or_else(syntax)?),
        };
        if name.is_empty() || name.contains(['}', '=', ',']) || body.contains(['{', '}']) {
            return Err(syntax());
        }
        let spec = SPECS.iter().find(|spec| spec.name == name);
        let spec = spec.ok_or_else(|| KindError::UnknownKind { name: name.into() })?;
        let mut value = None;
        for entry in body.split(',').filter(|_| !body.trim().is_empty()) {
            let (key, written) = entry.split_once('=').ok_or_else(syntax)?;
            let (key, written) = (key.trim(), written.trim());
            let parameter = spec.parameter.as_ref().filter(|p| p.key == key);
            let parameter = parameter.ok_or_else(|| KindError::UnknownKey {
                kind: spec.name,
                key: key.into(),
                known: spec.parameter.as_ref().map(|p| p.key),
            })?;
            if value.is_some() {
                return Err(KindError::Twice { kind: spec.name, key: parameter.key });
            }
            let number = written.parse::<f64>().ok().filter(|&x| (parameter.check)(x));
            value = Some(number.ok_or_else(|| KindError::Value {
                kind: spec.name,
                key: parameter.key,
                value: written.into(),
                legal: parameter.legal,
            })?);
        }
        let default = spec.parameter.as_ref().map_or(0.0, |p| p.default);
        Ok((spec.make)(value.unwrap_or(default)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ObserverKind, KindError> {
        text.parse()
    }

    fn error(text: &str) -> String {
        parse(text).expect_err("not an observer").to_string()
    }

    #[test]
    fn every_kind_reads_back() {
        for (index, spec) in SPECS.iter().enumerate() {
            let kind = parse(spec.name).expect("a name alone is enough");
            assert_eq!(kind.parts().0, index, "the table and `parts` disagree");
            assert_eq!(kind.to_string(), spec.name);
        }
        for text in ["percentile{p=99.9}", "mse{norm=2.4}", "std{k=6}", "ema{decay=0.999}"] {
            let kind = parse(text).expect("well formed");
            assert_eq!(kind.to_string(), text);
            let json = serde_json::to_string(&kind).expect("a string");
            assert_eq!(serde_json::from_str::<ObserverKind>(&json).expect("the same"), kind);
        }
        assert_eq!(parse(" percentile { p = 99.9 } "), Ok(ObserverKind::Percentile { p: 99.9 }));
        assert_eq!(parse("percentile{}"), Ok(ObserverKind::DEFAULT_PERCENTILE));
    }

    #[test]
    fn errors_name_what_exists() {
        let names = "minmax, percentile, entropy, mse, std, ema";
        assert_eq!(error("kl"), format!("there is no observer `kl`; there are: {names}"));
        assert_eq!(error("percentile{q=1}"), "observer `percentile` has no parameter `q`; it has: p");
        assert_eq!(error("minmax{p=1}"), "observer `minmax` has no parameter `p`; it has none");
        assert!(error("percentile{p=101}").contains("above 50, up to 100"));
        assert!(error("percentile{p=nan}").contains("`nan` is no value"));
        assert!(error("ema{decay=1}").contains("not including, 1"));
        assert!(error("mse{norm=2,norm=3}").contains("given twice"));
        for text in
            ["", "{p=1}", "percentile{p=99", "percentile}", "percentile{p}", "mse{{norm=2}}", "mse{,}"]
        {
            assert!(matches!(parse(text), Err(KindError::Syntax { .. })), "{text}: {:?}", parse(text));
        }
        assert!(serde_json::from_str::<ObserverKind>("\"MinMax\"").is_err());
    }
}
