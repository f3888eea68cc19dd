//! Bytes to [`ModelProto`], with a diagnosis when they are something else.

use std::path::Path;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::error::Error;
use crate::map::map_file;
use crate::proto::{ModelProto, TensorProto};
use crate::sniff::{Format, sniff};

/// Maps a file and decodes it; weights stay in the map.
///
/// # Errors
/// The file cannot be read or is no ONNX model.
pub fn read_model(path: &Path) -> Result<ModelProto, Error> {
    decode_model(map_file(path)?)
}

/// Decodes a model; payloads are slices of `bytes`.
///
/// # Errors
/// The bytes are empty, cut off, no protobuf, or hold no graph.
pub fn decode_model(bytes: Bytes) -> Result<ModelProto, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    match ModelProto::decode(bytes.clone()) {
        Ok(model) if model.graph.is_some() => Ok(model),
        Ok(_) => Err(Error::NoGraph { looks_like: guess(&bytes) }),
        Err(error) => Err(diagnose(&bytes, &error)),
    }
}

fn diagnose(bytes: &Bytes, error: &prost::DecodeError) -> Error {
    let looks_like = guess(bytes);
    match find_cut(bytes.clone()) {
        Some(cut) => Error::Truncated {
            field: cut.field,
            offset: cut.offset,
            announced: cut.announced,
            left: cut.left,
            looks_like,
        },
        None => Error::NotOnnx { detail: error.to_string(), looks_like },
    }
}

fn guess(bytes: &Bytes) -> Option<Format> {
    let is_tensor =
        || TensorProto::decode(bytes.clone()).is_ok_and(|t| t.data_type.is_some_and(|code| code > 0));
    sniff(bytes).or_else(|| is_tensor().then_some(Format::OnnxTensor))
}

/// A top-level field that runs past the end.
struct Cut {
    field: u32,
    offset: u64,
    announced: u64,
    left: u64,
}

/// Walks the top-level fields of a model and reports the one that the end of the bytes cuts.
fn find_cut(mut rest: Bytes) -> Option<Cut> {
    let total = rest.len();
    while rest.has_remaining() {
        let offset = (total - rest.remaining()) as u64;
        let (field, wire) = decode_key(&mut rest).ok()?;
        if !is_model_field(field, wire) {
            return None;
        }
        let announced = match wire {
            WireType::Varint => {
                decode_varint(&mut rest).ok()?;
                continue;
            }
            _ => decode_varint(&mut rest).ok()?,
        };
        let left = rest.remaining();
        match usize::try_from(announced).ok().filter(|&n| n <= left) {
            Some(n) => rest.advance(n),
            None => return Some(Cut { field, offset, announced, left: left as u64 }),
        }
    }
    None
}

/// Whether a field of this number and wire type can stand at the top of a model.
fn is_model_field(field: u32, wire: WireType) -> bool {
    match wire {
        WireType::Varint => matches!(field, 1 | 5),
        WireType::LengthDelimited => matches!(field, 2..=4 | 6..=8 | 14 | 20 | 25 | 26),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::GraphProto;

    fn small() -> Vec<u8> {
        ModelProto {
            ir_version: Some(8),
            graph: Some(GraphProto { name: Some("a longer name".into()), ..Default::default() }),
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn every_prefix_is_an_error_and_never_a_panic() {
        let whole = small();
        for end in 0..whole.len() {
            let result = decode_model(Bytes::copy_from_slice(&whole[..end]));
            assert!(result.is_err(), "prefix of {end} bytes");
        }
        assert!(decode_model(whole.into()).is_ok());
    }

    #[test]
    fn a_cut_file_says_what_is_missing() {
        let whole = small();
        let cut = decode_model(Bytes::copy_from_slice(&whole[..whole.len() - 3]));
        assert!(matches!(cut, Err(Error::Truncated { field: 7, offset: 2, announced: 15, left: 12, .. })));
    }

    #[test]
    fn other_files_are_named() {
        let json = decode_model(Bytes::from_static(b"{\"weights\": [1, 2]}"));
        assert!(matches!(json, Err(Error::NotOnnx { looks_like: Some(Format::Json), .. })));
        let tensor =
            TensorProto { dims: vec![1], data_type: Some(1), float_data: vec![1.0], ..Default::default() };
        let tensor = decode_model(tensor.encode_to_vec().into());
        assert!(matches!(tensor, Err(Error::NotOnnx { looks_like: Some(Format::OnnxTensor), .. })));
        let no_graph =
            decode_model(ModelProto { ir_version: Some(3), ..Default::default() }.encode_to_vec().into());
        assert!(matches!(no_graph, Err(Error::NoGraph { .. })));
    }
}
