//! The targets that ship with the library, and lookup by name. A new target is one `.toml` file in
//! `gs-algos/targets` and its line here; a user's own is read from a path.

use gs_passes::target::{Target, TargetError};
use std::path::Path;
use thiserror::Error;

/// The shipped target files: name and text.
const SHIPPED: &[(&str, &str)] = &[("ort-cpu", include_str!("../targets/ort-cpu.toml"))];

/// Why a target could not be had.
#[derive(Debug, Error)]
pub enum TargetLookupError {
    /// No target of this name is shipped.
    #[error("no target is named `{name}`; there are: {known} (or a path to a .toml file)")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The path.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file says something that a target cannot be.
    #[error("{path}: {error}")]
    Malformed {
        /// The path, or the name of a shipped one.
        path: String,
        /// What.
        error: TargetError,
    },
}

/// The names of the shipped targets.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(n, _)| *n)
}

/// A shipped target by name, or one's own by the path of its file (recognised by its `.toml` ending).
///
/// # Errors
/// Where there is no such target or its file is wrong; the message says what there is.
pub fn find(name: &str) -> Result<Target, TargetLookupError> {
    let malformed = |error| TargetLookupError::Malformed { path: name.to_owned(), error };
    if let Some((_, text)) = SHIPPED.iter().find(|(n, _)| *n == name) {
        return Target::parse(text).map_err(malformed);
    }
    if Path::new(name).extension().is_some_and(|e| e == "toml") {
        let text = std::fs::read_to_string(name)
            .map_err(|error| TargetLookupError::Unreadable { path: name.to_owned(), error })?;
        return Target::parse(&text).map_err(malformed);
    }
    Err(TargetLookupError::Unknown { name: name.to_owned(), known: names().collect::<Vec<_>>().join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gs_eval::Arithmetic;
    use gs_ir::Registry;

    #[test]
    fn shipped_targets_name_only_operators_that_exist() {
        let registry = Registry::builtin();
        for name in names() {
            let target = find(name).unwrap();
            assert_eq!(target.name, name);
            for (op, other) in &target.rewrite {
                assert!(registry.kind(op).is_some(), "target {name} names `{op}`");
                assert!(target.support(other).is_some(), "target {name}: `{other}` has no integer form");
            }
            for (op, support) in &target.op {
                for word in [Some(op), support.native.as_ref()].into_iter().flatten().chain(&support.absorbs)
                {
                    assert!(registry.kind(word).is_some(), "target {name} names `{word}`");
                }
                assert!(
                    support.native.is_some() || support.same_grid,
                    "target {name}: `{op}` has no integer form"
                );
            }
        }
    }

    #[test]
    fn the_arithmetic_is_that_of_the_file() {
        assert_eq!(find("ort-cpu").unwrap().arithmetic(), Arithmetic::ONNX_RUNTIME_CPU);
        let text = SHIPPED[0].1;
        let q31 = text
            .replace("\"half_even\"", "\"half_away\"")
            .replace("\"f32_multiply\"", "\"q31_shift\"")
            .replace("zero_point_before_round = true", "");
        assert_eq!(Target::parse(&q31).unwrap().arithmetic(), Arithmetic::Q31);
    }

    #[test]
    fn what_no_target_can_be_is_answered_with_what_there_is() {
        let text = SHIPPED[0].1;
        let error = |from: &str, to: &str| Target::parse(&text.replace(from, to)).unwrap_err().to_string();
        for (from, to, known) in [
            ("\"half_even\"", "\"half_odd\"", "`half_even`, `half_up`, `half_away`"),
            ("\"f32_multiply\"", "\"f64\"", "`f32_multiply`, `q31_shift`, `pow2_shift`"),
            ("native = \"qconv\"", "zero_point_before_round = true", "add, mul, average_pool"),
            ("[bias]", "[biases]", "biases"),
            ("types = [\"u8\"]", "types = [\"u8\", \"u4\"]", "`u8`, `i8`"),
            ("types = [\"i8\"]", "types = []", "`u8`, `i8`"),
            ("type = \"i32\"", "type = \"i64\"", "`i32`"),
            ("[\"tensor\", \"channel\"]", "[]", "`tensor`, `channel`"),
        ] {
            let said = error(from, to);
            assert!(said.contains(known), "{said}");
        }
    }

    #[test]
    fn an_unknown_target_is_answered_with_what_there_is() {
        let error = find("tpu").unwrap_err().to_string();
        assert!(error.contains("ort-cpu"), "{error}");
    }
}
