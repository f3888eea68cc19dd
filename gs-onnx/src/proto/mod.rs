//! The messages of `onnx.proto` (ONNX IR version 13, onnx 1.23), written by hand for prost.
//!
//! Field numbers are those of the published schema. Three things are chosen here and not there:
//! * payloads (`raw_data`, strings of attributes and tensors) are [`bytes::Bytes`], so that decoding from a
//!   memory map copies no weights;
//! * enumerations stay plain `i32`, so that a value newer than this page survives a round trip;
//! * rare and large members of an attribute are boxed, which keeps a network of a million nodes small.
//!
//! Every field keeps its presence (proto2 `optional`), so a decoded message encodes back to the same message.

mod model;
mod node;
mod tensor;
mod types;

pub use model::{
    DeviceConfigurationProto, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto,
    StringStringEntryProto, TensorAnnotation, TrainingInfoProto,
};
pub use node::{
    AttributeProto, IntIntListEntryProto, NodeDeviceConfigurationProto, NodeProto, ShardedDimProto,
    ShardingSpecProto, SimpleShardedDimProto, SimpleSharding, attribute_type,
};
pub use tensor::{Segment, SparseTensorProto, TensorProto, data_location, data_type};
pub use types::{
    Dimension, DimensionValue, MapType, OpaqueType, OptionalType, SequenceType, SparseTensorType,
    TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
