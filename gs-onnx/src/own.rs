//! Our own domain: operations that ONNX does not have, as calls of model-local functions, so that other runtimes run
//! an instrumented network and we read it back as what it was.
//!
//! A function's body cannot depend on attributes or ranks, so there is one function for each combination; its name is
//! that of the operation with a number behind it.

/// The domain of our functions.
pub(crate) const DOMAIN: &str = "goldenstick";

const MARK: &str = "__";

/// The name of the `number`th function of an operation.
pub(crate) fn function_name(op: &str, number: usize) -> String {
    format!("{op}{MARK}{number}")
}

/// The operation that a function of our domain stands for.
pub(crate) fn operation(function: &str) -> Option<&str> {
    let (op, number) = function.rsplit_once(MARK)?;
    number.parse::<usize>().ok().map(|_| op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_back() {
        assert_eq!(operation(&function_name("my__swish", 3)), Some("my__swish"));
        assert_eq!(operation("fake_quant"), None);
        assert_eq!(operation("fake_quant__x"), None);
    }
}
