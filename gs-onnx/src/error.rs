//! What can go wrong with an ONNX file, as data; the text is made by `Display`.

use std::io;
use std::path::PathBuf;

use crate::sniff::Format;

/// An error of reading or writing ONNX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason given.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("cannot write the model: {0}")]
    Write(#[from] io::Error),
    /// A pipe or device gave more bytes than a protobuf message may have.
    #[error("{}: more than {limit} bytes, no protobuf message is that large", path.display())]
    Endless {
        /// The pipe or device.
        path: PathBuf,
        /// Largest size accepted.
        limit: u64,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The module cannot be written as ONNX.
    #[error(transparent)]
    Export(#[from] crate::export::ExportError),
    /// The bytes are no ONNX model.
    #[error("not an ONNX model ({detail}){}", hint(*looks_like))]
    NotOnnx {
        /// What the decoder met.
        detail: String,
        /// What the file seems to be instead.
        looks_like: Option<Format>,
    },
    /// The file ends before its content does.
    #[error(
        "the file is cut off: field {field} at byte {offset} announces {announced} bytes, only {left} are left{}",
        hint(*looks_like)
    )]
    Truncated {
        /// Field number in the model message.
        field: u32,
        /// Where the field begins.
        offset: u64,
        /// Bytes that the field should have.
        announced: u64,
        /// Bytes that follow.
        left: u64,
        /// What the file seems to be instead.
        looks_like: Option<Format>,
    },
    /// The message decodes, but has no graph.
    #[error("not an ONNX model (the message holds no graph){}", hint(*looks_like))]
    NoGraph {
        /// What the file seems to be instead.
        looks_like: Option<Format>,
    },
    /// A stored tensor contradicts itself.
    #[error("tensor '{tensor}': {problem}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        problem: TensorProblem,
    },
    /// A stored tensor lies in another file that cannot be used.
    #[error("tensor '{tensor}' lies in '{location}' at byte {offset}: {problem}")]
    External {
        /// Name of the tensor.
        tensor: String,
        /// File as named in the model.
        location: String,
        /// First byte of the tensor in that file.
        offset: u64,
        /// What is wrong.
        problem: ExternalProblem,
    },
    /// A protobuf message may not have more than 2 GiB.
    #[error(
        "the model would have {bytes} bytes, a protobuf message holds at most {limit}: store weights externally"
    )]
    TooLarge {
        /// Bytes that would be needed.
        bytes: u64,
        /// Largest size that every reader accepts.
        limit: u64,
    },
    /// A node cannot be read.
    #[error("node '{node}' ({op}): {problem}")]
    Node {
        /// Name of the node, or of its first result.
        node: String,
        /// Operator, with its domain.
        op: String,
        /// What is wrong with it.
        problem: NodeProblem,
    },
    /// A graph cannot be read.
    #[error("graph '{graph}': {problem}")]
    Graph {
        /// Name of the graph.
        graph: String,
        /// What is wrong with it.
        problem: GraphProblem,
    },
    /// The property in which we keep what only ONNX knows was damaged.
    #[error("the property '{}' is damaged", crate::extras::KEY)]
    Extras,
    /// A payload was not as long as announced.
    #[error("initializer {index} announced {announced} bytes of data and wrote {written}")]
    PayloadLength {
        /// Position in the main graph's list of initializers.
        index: usize,
        /// Announced length.
        announced: u64,
        /// Bytes that were written.
        written: u64,
    },
}

/// A contradiction inside a stored tensor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The element type code is none of ONNX's.
    #[error("unknown element type {0}")]
    ElementType(i32),
    /// The shape has a negative dimension, or more elements than can be addressed.
    #[error("impossible shape {0:?}")]
    Shape(Vec<i64>),
    /// The number of elements or bytes does not fit the shape.
    #[error("field {field} holds {found} {unit}, the shape {dims:?} needs {needed}")]
    Length {
        /// Name of the field that holds the data.
        field: &'static str,
        /// `bytes` or `values`.
        unit: &'static str,
        /// What it holds.
        found: u64,
        /// What it should hold.
        needed: u64,
        /// Shape.
        dims: Vec<i64>,
    },
    /// A value does not fit the element type.
    #[error("value {value} at position {index} is outside the element type")]
    Range {
        /// Position in the list.
        index: usize,
        /// The value.
        value: i64,
    },
    /// Values and indices of a sparse tensor contradict each other or its shape.
    #[error(
        "values and indices of the sparse tensor do not fit its shape, or it is too large to be written out"
    )]
    Sparse,
    /// The tensor is only a part of another one.
    #[error("tensors in segments are not supported")]
    Segment,
    /// The data is in another file, and no folder was given.
    #[error("the data lies in another file, and the model was not read from a folder")]
    NoFolder,
}

/// Why an external file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalProblem {
    /// No `location`.
    #[error("the entry names no file")]
    NoLocation,
    /// `offset` or `length` is not a number.
    #[error("'{key}' is '{value}', not a number of bytes")]
    NotANumber {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The path leaves the folder of the model.
    #[error("the path leaves the folder of the model")]
    Escapes,
    /// The file cannot be read.
    #[error("{0}")]
    Io(io::Error),
    /// The file ends before the tensor does.
    #[error("{needed} bytes are needed from there, the file has {file_length}")]
    OutOfRange {
        /// Bytes of the tensor.
        needed: u64,
        /// Bytes of the file.
        file_length: u64,
    },
}

/// Why a node cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeProblem {
    /// No operator.
    #[error("it names no operator")]
    NoOperator,
    /// An operand that nothing defines before.
    #[error(
        "it reads '{0}', which nothing defines before it; nodes must be sorted, and must not form a cycle"
    )]
    UnknownValue(String),
    /// A result whose name is taken.
    #[error("it defines '{0}' a second time")]
    Redefined(String),
    /// A constant without a value.
    #[error("the constant has no value")]
    NoConstant,
    /// Functions that call each other in a circle, or expand without bound.
    #[error("the function calls itself, or expands to more than {0} nodes")]
    Recursion(usize),
    /// Graphs and calls of functions within one another, deeper than a reader should follow.
    #[error("graphs and calls are nested more than {0} deep")]
    Nesting(usize),
    /// More actual than formal operands or results.
    #[error("the call has more operands or results than the function")]
    Call,
}

/// Why a graph cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphProblem {
    /// An input without a name.
    #[error("input {0} has no name")]
    UnnamedInput(usize),
    /// An input or initializer whose name is taken.
    #[error("'{0}' is defined a second time")]
    Redefined(String),
    /// An output that nothing defines.
    #[error("nothing defines the output '{0}'")]
    UndefinedOutput(String),
}

fn hint(format: Option<Format>) -> String {
    format.map_or_else(String::new, |f| format!("; it looks like {f}"))
}
