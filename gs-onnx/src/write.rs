//! Writing a model as a stream.
//!
//! Protobuf puts the length of a message before its content, so lengths are computed first; then everything is
//! written in order, and the elements of an initializer are asked for only when their place is reached. A derived
//! weight (sliced, quantised, packed) therefore exists one piece at a time. The bytes are those that
//! `prost` would make of the whole message.

use std::io::{self, Write};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::error::Error;
use crate::proto::{GraphProto, ModelProto, StringStringEntryProto, TensorProto, data_location};

/// Largest message that every protobuf reader accepts.
pub const MESSAGE_LIMIT: u64 = i32::MAX as u64;

/// Offsets of tensors in an external file are multiples of this, so that they can be mapped page by page.
pub const EXTERNAL_ALIGNMENT: u64 = 4096;

const GRAPH: u32 = 7; // ModelProto.graph
const INITIALIZER: u32 = 5; // GraphProto.initializer
const RAW_DATA: u32 = 9; // TensorProto.raw_data

/// Elements of the main graph's initializers that are not in the message.
pub trait Payloads {
    /// Bytes of the elements of initializer `index`, or `None` when the message holds them itself.
    fn len(&self, index: usize) -> Option<u64>;

    /// Writes exactly that many bytes: row-major, little-endian, elements below 8 bits packed from the low bits.
    ///
    /// # Errors
    /// Those of `out`, or a reason why the elements cannot be made.
    fn write(&mut self, index: usize, out: &mut dyn Write) -> io::Result<()>;
}

/// Every initializer's elements are in the message.
pub struct NoPayloads;

impl Payloads for NoPayloads {
    fn len(&self, _index: usize) -> Option<u64> {
        None
    }

    fn write(&mut self, _index: usize, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a model; initializers for which `payloads` has a length get their `raw_data` from it.
///
/// # Errors
/// The model is larger than a message may be, `out` fails, or a payload is not as long as announced.
pub fn write_model(
    out: &mut dyn Write,
    model: &ModelProto,
    payloads: &mut dyn Payloads,
) -> Result<(), Error> {
    let plan = Plan::new(model, payloads);
    if plan.model > MESSAGE_LIMIT {
        return Err(Error::TooLarge { bytes: plan.model, limit: MESSAGE_LIMIT });
    }
    // Fields in the order of their numbers: 1 to 6, the graph (7), 8 and on.
    let [head, tail] = split_model(model);
    out.write_all(&head)?;
    if let Some(graph) = &model.graph {
        write_key(out, GRAPH, plan.graph)?;
        write_graph(out, graph, &plan, payloads)?;
    }
    out.write_all(&tail)?;
    Ok(())
}

/// Moves the elements of every initializer of at least `threshold` bytes to an external file.
///
/// Writes the elements to `data` and the places to the tensors; `location` is the file's name relative to the model.
/// What was moved keeps its place in `model`; write the model with the same `payloads` behind [`Inline`].
///
/// # Errors
/// `data` fails, or a payload is not as long as announced.
pub fn write_external(
    data: &mut dyn Write,
    location: &str,
    threshold: u64,
    model: &mut ModelProto,
    payloads: &mut dyn Payloads,
) -> Result<Vec<bool>, Error> {
    let Some(graph) = &mut model.graph else { return Ok(Vec::new()) };
    let mut position = 0;
    let mut moved = vec![false; graph.initializer.len()];
    for (index, tensor) in graph.initializer.iter_mut().enumerate() {
        let stored = tensor.raw_data.as_ref().map(|raw| raw.len() as u64);
        let Some(length) = payloads.len(index).or(stored).filter(|&n| n >= threshold.max(1)) else {
            continue;
        };
        let offset = pad_to_alignment(data, position)?;
        match tensor.raw_data.take() {
            Some(raw) if payloads.len(index).is_none() => data.write_all(&raw)?,
            _ => write_payload(data, payloads, index, length)?,
        }
        position = offset + length;
        set_place(tensor, location, offset, length);
        if let Some(m) = moved.get_mut(index) {
            *m = true;
        }
    }
    Ok(moved)
}

/// The payloads that were not moved to an external file.
pub struct Inline<'a> {
    /// All payloads.
    pub payloads: &'a mut dyn Payloads,
    /// Which initializers were moved, as [`write_external`] said.
    pub moved: Vec<bool>,
}

impl Payloads for Inline<'_> {
    fn len(&self, index: usize) -> Option<u64> {
        if self.moved.get(index).copied().unwrap_or(false) { None } else { self.payloads.len(index) }
    }

    fn write(&mut self, index: usize, out: &mut dyn Write) -> io::Result<()> {
        self.payloads.write(index, out)
    }
}

fn pad_to_alignment(data: &mut dyn Write, position: u64) -> io::Result<u64> {
    let aligned = position.next_multiple_of(EXTERNAL_ALIGNMENT);
    io::copy(&mut io::Read::take(io::repeat(0), aligned - position), data)?;
    Ok(aligned)
}

fn set_place(tensor: &mut TensorProto, location: &str, offset: u64, length: u64) {
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.data_location = Some(data_location::EXTERNAL);
    tensor.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

/// Lengths of everything whose length depends on payloads.
struct Plan {
    tensors: Vec<u64>,
    graph: u64,
    model: u64,
}

impl Plan {
    fn new(model: &ModelProto, payloads: &dyn Payloads) -> Self {
        let Some(graph) = &model.graph else {
            return Self { tensors: Vec::new(), graph: 0, model: model.encoded_len() as u64 };
        };
        let tensor = |(i, t): (usize, &TensorProto)| match payloads.len(i) {
            Some(len) => {
                let old = t.raw_data.as_ref().map_or(0, |raw| field_len(RAW_DATA, raw.len() as u64));
                t.encoded_len() as u64 - old + field_len(RAW_DATA, len)
            }
            None => t.encoded_len() as u64,
        };
        let tensors: Vec<u64> = graph.initializer.iter().enumerate().map(tensor).collect();
        let grown: u64 = tensors.iter().map(|&n| field_len(INITIALIZER, n)).sum();
        let plain: u64 =
            graph.initializer.iter().map(|t| field_len(INITIALIZER, t.encoded_len() as u64)).sum();
        let plain_graph = graph.encoded_len() as u64;
        let graph = plain_graph - plain + grown;
        let model = model.encoded_len() as u64 - field_len(GRAPH, plain_graph) + field_len(GRAPH, graph);
        Self { tensors, graph, model }
    }
}

/// Bytes of a length-delimited field: key, length, content.
fn field_len(tag: u32, content: u64) -> u64 {
    prost::encoding::key_len(tag) as u64 + encoded_len_varint(content) as u64 + content
}

fn write_key(out: &mut dyn Write, tag: u32, content: u64) -> io::Result<()> {
    let mut key = Vec::with_capacity(12);
    encode_key(tag, WireType::LengthDelimited, &mut key);
    encode_varint(content, &mut key);
    out.write_all(&key)
}

fn write_message(out: &mut dyn Write, tag: u32, message: &impl Message) -> io::Result<()> {
    let mut bytes = Vec::new();
    prost::encoding::message::encode(tag, message, &mut bytes);
    out.write_all(&bytes)
}

/// The fields of a model before and after its graph, encoded. They are small; each list is copied once.
fn split_model(model: &ModelProto) -> [Vec<u8>; 2] {
    // Named one by one, so that a new field cannot be forgotten here.
    let ModelProto {
        ir_version,
        producer_name,
        producer_version,
        domain,
        model_version,
        doc_string,
        graph: _,
        opset_import,
        metadata_props,
        training_info,
        functions,
        configuration,
    } = model;
    let head = ModelProto {
        ir_version: *ir_version,
        producer_name: producer_name.clone(),
        producer_version: producer_version.clone(),
        domain: domain.clone(),
        model_version: *model_version,
        doc_string: doc_string.clone(),
        ..Default::default()
    };
    let tail = ModelProto {
        opset_import: opset_import.clone(),
        metadata_props: metadata_props.clone(),
        training_info: training_info.clone(),
        functions: functions.clone(),
        configuration: configuration.clone(),
        ..Default::default()
    };
    [head.encode_to_vec(), tail.encode_to_vec()]
}

fn write_graph(
    out: &mut dyn Write,
    graph: &GraphProto,
    plan: &Plan,
    payloads: &mut dyn Payloads,
) -> Result<(), Error> {
    let GraphProto {
        node,
        name,
        initializer,
        doc_string,
        input,
        output,
        value_info,
        quantization_annotation,
        sparse_initializer,
        metadata_props,
    } = graph;
    for n in node {
        write_message(out, 1, n)?;
    }
    out.write_all(&GraphProto { name: name.clone(), ..Default::default() }.encode_to_vec())?;
    for (index, (tensor, &length)) in initializer.iter().zip(&plan.tensors).enumerate() {
        write_key(out, INITIALIZER, length)?;
        write_tensor(out, index, tensor, payloads)?;
    }
    out.write_all(&GraphProto { doc_string: doc_string.clone(), ..Default::default() }.encode_to_vec())?;
    for (tag, list) in [(11, input), (12, output), (13, value_info)] {
        for v in list {
            write_message(out, tag, v)?;
        }
    }
    for a in quantization_annotation {
        write_message(out, 14, a)?;
    }
    for t in sparse_initializer {
        write_message(out, 15, t)?;
    }
    for p in metadata_props {
        write_message(out, 16, p)?;
    }
    Ok(())
}

fn write_tensor(
    out: &mut dyn Write,
    index: usize,
    tensor: &TensorProto,
    payloads: &mut dyn Payloads,
) -> Result<(), Error> {
    let Some(length) = payloads.len(index).or(tensor.raw_data.as_ref().map(|raw| raw.len() as u64)) else {
        out.write_all(&tensor.encode_to_vec())?;
        return Ok(());
    };
    let [head, tail] = split_tensor(tensor);
    out.write_all(&head)?;
    write_key(out, RAW_DATA, length)?;
    match (&tensor.raw_data, payloads.len(index)) {
        (Some(raw), None) => out.write_all(raw)?,
        _ => write_payload(out, payloads, index, length)?,
    }
    out.write_all(&tail)?;
    Ok(())
}

/// The fields of a tensor before and after `raw_data`, encoded. A tensor with `raw_data` has no long lists.
fn split_tensor(tensor: &TensorProto) -> [Vec<u8>; 2] {
    let TensorProto {
        dims,
        data_type,
        segment,
        float_data,
        int32_data,
        string_data,
        int64_data,
        name,
        raw_data: _,
        double_data,
        uint64_data,
        doc_string,
        external_data,
        data_location,
        metadata_props,
    } = tensor;
    let head = TensorProto {
        dims: dims.clone(),
        data_type: *data_type,
        segment: segment.clone(),
        float_data: float_data.clone(),
        int32_data: int32_data.clone(),
        string_data: string_data.clone(),
        int64_data: int64_data.clone(),
        name: name.clone(),
        ..Default::default()
    };
    let tail = TensorProto {
        double_data: double_data.clone(),
        uint64_data: uint64_data.clone(),
        doc_string: doc_string.clone(),
        external_data: external_data.clone(),
        data_location: *data_location,
        metadata_props: metadata_props.clone(),
        ..Default::default()
    };
    [head.encode_to_vec(), tail.encode_to_vec()]
}

fn write_payload(
    out: &mut dyn Write,
    payloads: &mut dyn Payloads,
    index: usize,
    announced: u64,
) -> Result<(), Error> {
    let mut counted = Counted { out, written: 0, limit: announced };
    match payloads.write(index, &mut counted) {
        Ok(()) if counted.written == announced => Ok(()),
        Err(error) if counted.written <= announced => Err(error.into()),
        _ => Err(Error::PayloadLength { index, announced, written: counted.written }),
    }
}

/// Counts what passes, and stops what would run over its announced length: the rest of the file would be garbage.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
    limit: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.saturating_add(bytes.len() as u64) > self.limit {
            self.written = self.written.saturating_add(bytes.len() as u64);
            return Err(io::Error::other("more data than announced"));
        }
        let n = self.out.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::data_type;

    struct Threes(Vec<u64>, u64);

    impl Payloads for Threes {
        fn len(&self, index: usize) -> Option<u64> {
            self.0.get(index).copied().filter(|&n| n > 0)
        }
        fn write(&mut self, index: usize, out: &mut dyn Write) -> io::Result<()> {
            let n = self.len(index).unwrap_or(0) + self.1;
            io::copy(&mut io::Read::take(io::repeat(3), n), out).map(drop)
        }
    }

    fn model(sizes: &[usize]) -> ModelProto {
        let tensor = |(i, &n): (usize, &usize)| TensorProto {
            name: Some(format!("w{i}")),
            dims: vec![n as i64],
            data_type: Some(data_type::UINT8),
            raw_data: (n > 0).then(|| vec![3u8; n].into()),
            doc_string: Some("after the data".into()),
            ..Default::default()
        };
        ModelProto {
            ir_version: Some(10),
            doc_string: Some("doc".into()),
            graph: Some(GraphProto {
                name: Some("g".into()),
                initializer: sizes.iter().enumerate().map(tensor).collect(),
                ..Default::default()
            }),
            metadata_props: vec![Default::default()],
            ..Default::default()
        }
    }

    fn without_data(mut m: ModelProto) -> ModelProto {
        m.graph.iter_mut().flat_map(|g| &mut g.initializer).for_each(|t| t.raw_data = None);
        m
    }

    #[test]
    fn payloads_land_where_prost_would_put_them() {
        let sizes = [1, 0, 127, 128, 70_000];
        let whole = model(&sizes);
        let mut out = Vec::new();
        let lens = sizes.iter().map(|&n| n as u64).collect();
        write_model(&mut out, &without_data(whole.clone()), &mut Threes(lens, 0)).expect("write");
        assert_eq!(out, whole.encode_to_vec());
    }

    #[test]
    fn a_payload_of_another_length_is_an_error() {
        let mut out = Vec::new();
        let long = write_model(&mut out, &without_data(model(&[5])), &mut Threes(vec![5], 1));
        assert!(matches!(long, Err(Error::PayloadLength { index: 0, announced: 5, .. })));
    }

    #[test]
    fn a_model_over_the_limit_is_refused_before_anything_is_written() {
        let mut out = Vec::new();
        let result = write_model(&mut out, &without_data(model(&[1])), &mut Threes(vec![3 << 30], 0));
        assert!(matches!(result, Err(Error::TooLarge { .. })));
        assert!(out.is_empty());
    }

    #[test]
    fn external_data_is_aligned_and_found_again() {
        let mut m = without_data(model(&[5000, 10, 6000]));
        let mut payloads = Threes(vec![5000, 10, 6000], 0);
        let mut data = Vec::new();
        let moved = write_external(&mut data, "m.bin", 100, &mut m, &mut payloads).expect("external");
        assert_eq!(moved, [true, false, true]);
        assert_eq!(data.len(), 8192 + 6000);
        let mut out = Vec::new();
        write_model(&mut out, &m, &mut Inline { payloads: &mut payloads, moved }).expect("write");
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("m.bin"), &data).expect("write");
        let back = crate::decode_model(out.into()).expect("decode");
        let mut files = crate::ExternalFiles::beside(&dir.path().join("m.onnx"));
        for t in &back.graph.expect("graph").initializer {
            let want = vec![3u8; t.dims[0] as usize];
            assert_eq!(
                crate::payload(t, Some(&mut files)).expect("payload"),
                crate::Payload::Packed(want.into())
            );
        }
    }
}
