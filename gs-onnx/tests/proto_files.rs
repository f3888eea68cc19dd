//! Every real file that we have, through the messages and the streaming writer.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use gs_onnx::proto::{ModelProto, NodeProto, TensorProto};
use gs_onnx::{ExternalFiles, NoPayloads, Payload, decode_model, map_file, payload, write_model};
use prost::Message;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data")
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (folder, at_least) in [("onnx", 54), ("mlperf_tiny", 9), ("prune_groups", 6), ("resnet_cifar10", 2)] {
        let entries = std::fs::read_dir(data().join(folder)).expect("test data beside the workspace");
        let models: Vec<PathBuf> = entries
            .map(|e| e.expect("folder entry").path())
            .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
            .collect();
        assert!(models.len() >= at_least, "{folder} holds {} models", models.len());
        found.extend(models);
    }
    found.sort();
    found
}

#[test]
fn decode_encode_decode_keeps_everything() {
    for path in files() {
        let first = decode_model(map_file(&path).expect("map")).expect("decode");
        let bytes = Bytes::from(first.encode_to_vec());
        let second = decode_model(bytes.clone()).expect("decode again");
        // NaN weights exist, so equality of messages is equality of their encodings.
        assert_eq!(bytes, second.encode_to_vec(), "{}", path.display());
        assert_eq!(format!("{first:?}"), format!("{second:?}"), "{}", path.display());
    }
}

#[test]
fn nothing_of_a_file_is_lost() {
    // Fields may come in another order than ours and lists packed or not, so sizes are compared, not bytes; a field
    // that the messages do not know would be missing from ours.
    for path in files() {
        let map = map_file(&path).expect("map");
        let model = decode_model(map.clone()).expect("decode");
        let (ours, theirs) = (model.encoded_len() as i64, map.len() as i64);
        assert_eq!(ours, theirs, "{}", path.display());
    }
}

#[test]
fn the_stream_is_what_prost_writes() {
    for path in files() {
        let model = decode_model(map_file(&path).expect("map")).expect("decode");
        let mut out = Vec::new();
        write_model(&mut out, &model, &mut NoPayloads).expect("write");
        assert!(out == model.encode_to_vec(), "{}", path.display());
    }
}

/// All stored tensors of the nodes and initializers, those of subgraphs included.
fn tensors(model: &ModelProto) -> Vec<&TensorProto> {
    let mut found = Vec::new();
    let mut graphs: Vec<_> = model.graph.iter().collect();
    let mut nodes: Vec<&NodeProto> = model.functions.iter().flat_map(|f| &f.node).collect();
    while let Some(graph) = graphs.pop() {
        found.extend(&graph.initializer);
        nodes.extend(&graph.node);
        while let Some(node) = nodes.pop() {
            for a in &node.attribute {
                found.extend(a.t.as_deref());
                found.extend(&a.tensors);
                graphs.extend(a.g.as_deref());
                graphs.extend(&a.graphs);
            }
        }
    }
    found
}

#[test]
fn all_tensors_have_their_elements_and_raw_data_is_not_copied() {
    let mut seen = 0;
    for path in files() {
        let map = map_file(&path).expect("map");
        let range = map.as_ptr_range();
        let model = decode_model(map.clone()).expect("decode");
        let mut external = ExternalFiles::beside(&path);
        for t in tensors(&model) {
            let got = payload(t, Some(&mut external)).expect("payload");
            if let (Payload::Packed(bytes), Some(_)) = (&got, &t.raw_data)
                && !bytes.is_empty()
            {
                assert!(range.contains(&bytes.as_ptr()), "{}: {:?} was copied", path.display(), t.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 5000, "only {seen} tensors");
}

#[test]
fn damaged_files_are_errors_or_models_and_never_a_panic() {
    // Cuts and byte flips at many places of small real files.
    for name in ["loop_scan_nested_if", "local_function", "mnist8", "logreg_iris", "simple_sequence_model3"] {
        let whole = std::fs::read(data().join(format!("onnx/{name}.onnx"))).expect("test data");
        for at in (0..whole.len()).step_by(whole.len() / 200 + 1) {
            assert!(decode_model(Bytes::copy_from_slice(&whole[..at])).is_err() || at > whole.len() / 2);
            for flip in [1, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= flip;
                if let Ok(model) = decode_model(broken.into()) {
                    for t in tensors(&model) {
                        let _ = payload(t, None);
                    }
                }
            }
        }
    }
}
