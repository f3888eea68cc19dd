//! Stored tensors, dense and sparse.

use bytes::Bytes;

use super::StringStringEntryProto;

/// A stored tensor. Its elements are in exactly one place: `raw_data`, one of the typed lists, or another file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// Shape.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// Element type, see [`data_type`].
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Part of a larger tensor that is stored here (no known writer uses it).
    #[prost(message, optional, tag = "3")]
    pub segment: Option<Segment>,
    /// Elements of FLOAT, COMPLEX64.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of INT32 and everything narrower, and bit patterns of narrow floats.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of STRING.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub string_data: Vec<Bytes>,
    /// Elements of INT64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Name.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// Elements of any type but STRING: row-major, little-endian, narrow types packed from the low bits.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Elements of DOUBLE, COMPLEX128.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of UINT64, UINT32.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Text for people.
    #[prost(string, optional, tag = "12")]
    pub doc_string: Option<String>,
    /// Where the elements lie in another file (`location`, `offset`, `length`, `checksum`).
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// Whether the elements are in another file, see [`data_location`].
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
    /// Named metadata.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A range of a larger tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Segment {
    /// First element.
    #[prost(int64, optional, tag = "1")]
    pub begin: Option<i64>,
    /// One past the last element.
    #[prost(int64, optional, tag = "2")]
    pub end: Option<i64>,
}

/// A sparse tensor in coordinate form.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseTensorProto {
    /// Non-zero values `[NNZ]`; its name is the name of the sparse tensor.
    #[prost(message, optional, tag = "1")]
    pub values: Option<TensorProto>,
    /// Positions: `[NNZ]` linear, or `[NNZ, rank]`, sorted.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<TensorProto>,
    /// Shape of the dense tensor.
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}

/// Values of [`TensorProto::data_location`](TensorProto).
pub mod data_location {
    /// In the message.
    pub const DEFAULT: i32 = 0;
    /// In another file.
    pub const EXTERNAL: i32 = 1;
}

/// Element type codes.
pub mod data_type {
    /// Not said.
    pub const UNDEFINED: i32 = 0;
    /// 32-bit float.
    pub const FLOAT: i32 = 1;
    /// 8-bit unsigned integer.
    pub const UINT8: i32 = 2;
    /// 8-bit integer.
    pub const INT8: i32 = 3;
    /// 16-bit unsigned integer.
    pub const UINT16: i32 = 4;
    /// 16-bit integer.
    pub const INT16: i32 = 5;
    /// 32-bit integer.
    pub const INT32: i32 = 6;
    /// 64-bit integer.
    pub const INT64: i32 = 7;
    /// String.
    pub const STRING: i32 = 8;
    /// Boolean, one byte.
    pub const BOOL: i32 = 9;
    /// IEEE half.
    pub const FLOAT16: i32 = 10;
    /// 64-bit float.
    pub const DOUBLE: i32 = 11;
    /// 32-bit unsigned integer.
    pub const UINT32: i32 = 12;
    /// 64-bit unsigned integer.
    pub const UINT64: i32 = 13;
    /// Two 32-bit floats.
    pub const COMPLEX64: i32 = 14;
    /// Two 64-bit floats.
    pub const COMPLEX128: i32 = 15;
    /// Upper half of a 32-bit float.
    pub const BFLOAT16: i32 = 16;
    /// 8-bit float, no infinity.
    pub const FLOAT8E4M3FN: i32 = 17;
    /// 8-bit float, no infinity, no negative zero.
    pub const FLOAT8E4M3FNUZ: i32 = 18;
    /// 8-bit float, IEEE-like.
    pub const FLOAT8E5M2: i32 = 19;
    /// 8-bit float, no infinity, no negative zero.
    pub const FLOAT8E5M2FNUZ: i32 = 20;
    /// 4-bit unsigned integer.
    pub const UINT4: i32 = 21;
    /// 4-bit integer.
    pub const INT4: i32 = 22;
    /// 4-bit float.
    pub const FLOAT4E2M1: i32 = 23;
    /// Power-of-two scale of microscaling formats.
    pub const FLOAT8E8M0: i32 = 24;
    /// 2-bit unsigned integer.
    pub const UINT2: i32 = 25;
    /// 2-bit integer.
    pub const INT2: i32 = 26;
    /// 6-bit float, 2 exponent bits.
    pub const FLOAT6E2M3: i32 = 27;
    /// 6-bit float, 3 exponent bits.
    pub const FLOAT6E3M2: i32 = 28;
}
