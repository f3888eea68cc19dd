//! Why a module cannot be written as ONNX.

/// An error of [`export`](super::export()).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The module has no graph.
    #[error("the module has no graph")]
    NoGraph,
    /// An operation has no form in any operator set.
    #[error("'{node}': `{op}` has no ONNX form")]
    NoForm {
        /// Name of the operation.
        node: String,
        /// Operator.
        op: String,
    },
    /// An operation cannot be written in this version of its operator set.
    #[error("'{node}': `{op}` cannot be written in opset {version}: {reason}")]
    Version {
        /// Name of the operation.
        node: String,
        /// Operator.
        op: String,
        /// Version of the operator set.
        version: i64,
        /// What is missing.
        reason: String,
    },
    /// An operation that was kept as it was in the source stands in the way of another version.
    #[error("'{node}': {op} was kept as it is in opset {from} and cannot be written in opset {to}")]
    Opaque {
        /// Name of the operation.
        node: String,
        /// Operator with its domain.
        op: String,
        /// Version of the source.
        from: i64,
        /// Version that is wanted.
        to: i64,
    },
    /// A dimension that nothing in reach has.
    #[error("'{node}': attribute `{attr}` needs the dimension {dim}, which no value in reach has")]
    Dimension {
        /// Name of the operation.
        node: String,
        /// Attribute.
        attr: String,
        /// The dimension.
        dim: String,
    },
    /// An element type that ONNX does not have.
    #[error("'{name}': ONNX has no element type {elem}")]
    Element {
        /// Name of the value.
        name: String,
        /// The type.
        elem: String,
    },
    /// An output that has the name of an input, and is another value.
    #[error("the output '{0}' has the name of an input, but is another value")]
    OutputIsInput(String),
    /// A global that is no tensor of known size, or whose contents were not loaded.
    #[error("@{0} has no contents that could be written")]
    NoContents(String),
    /// An attribute that was kept as bytes is damaged.
    #[error("'{node}': attribute `{attr}` is damaged")]
    Attribute {
        /// Name of the operation.
        node: String,
        /// Attribute.
        attr: String,
    },
    /// Regions are nested deeper than readers of protobuf accept.
    #[error("regions are nested more than {0} deep")]
    TooDeep(usize),
    /// The property in which we keep what only ONNX knows was damaged.
    #[error("the property '{}' is damaged", crate::extras::KEY)]
    Extras,
}
