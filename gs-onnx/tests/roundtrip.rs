//! Every real file through the IR and back.

use std::path::{Path, PathBuf};

use gs_ir::{Module, Registry, verify};
use gs_onnx::proto::{GraphProto, ModelProto};
use gs_onnx::{ExportOptions, StoredOnly, decode_model, export, import, import_file, read_model};
use rustc_hash::FxHashSet;

fn files() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let mut found = Vec::new();
    for (folder, at_least) in [("onnx", 54), ("mlperf_tiny", 9), ("prune_groups", 6), ("resnet_cifar10", 2)] {
        let entries = std::fs::read_dir(data.join(folder)).expect("test data beside the workspace");
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

fn written(module: &Module) -> Vec<u8> {
    let mut out = Vec::new();
    let exported = export(module, &ExportOptions::default()).expect("export");
    exported.write(&mut out, &mut StoredOnly).expect("write");
    out
}

fn graph(model: &ModelProto) -> &GraphProto {
    model.graph.as_ref().expect("graph")
}

/// Names of inputs that are no weights, and of outputs.
fn interface(model: &ModelProto) -> (Vec<&str>, Vec<&str>) {
    let g = graph(model);
    let weights: FxHashSet<&str> = g.initializer.iter().map(|t| t.name()).collect();
    let inputs = g.input.iter().map(|v| v.name()).filter(|n| !weights.contains(n)).collect();
    (inputs, g.output.iter().map(|v| v.name()).collect())
}

#[test]
fn imported_modules_are_valid() {
    for path in files() {
        let module = import_file(&path, &Registry::builtin()).expect("import");
        if let Err(errors) = verify(&module) {
            let text: Vec<String> = errors.iter().take(5).map(|e| e.describe(&module)).collect();
            panic!("{}: {}", path.display(), text.join("\n"));
        }
    }
}

#[test]
fn the_second_round_trip_is_byte_identical() {
    for path in files() {
        let once = written(&import_file(&path, &Registry::builtin()).expect("import"));
        let model = decode_model(once.clone().into()).expect("decode what was written");
        let again = written(&import(&model, None, &Registry::builtin()).expect("import what was written"));
        assert!(once == again, "{}", path.display());
    }
}

#[test]
fn interface_header_and_metadata_stay() {
    for path in files() {
        let before = read_model(&path).expect("read");
        let bytes = written(&import_file(&path, &Registry::builtin()).expect("import"));
        let after = decode_model(bytes.into()).expect("decode");
        let name = path.display();
        assert_eq!(interface(&before), interface(&after), "{name}");
        assert_eq!(before.ir_version(), after.ir_version(), "{name}");
        assert_eq!(before.producer_name(), after.producer_name(), "{name}");
        assert_eq!(before.producer_version(), after.producer_version(), "{name}");
        assert_eq!(before.doc_string(), after.doc_string(), "{name}");
        assert_eq!(before.metadata_props, after.metadata_props, "{name}");
        assert_eq!(graph(&before).name(), graph(&after).name(), "{name}");
        let imports = |m: &ModelProto| -> Vec<(String, i64)> {
            m.opset_import.iter().map(|o| (o.domain().to_owned(), o.version())).collect()
        };
        let (before, after) = (imports(&before), imports(&after));
        assert_eq!(before[..], after[..before.len()], "{name}");
    }
}

#[test]
fn every_source_node_is_named_by_an_operation_or_listed_as_gone() {
    for path in files() {
        let model = read_model(&path).expect("read");
        let module = import_file(&path, &Registry::builtin()).expect("import");
        let mut accounted: FxHashSet<&str> = module.gone.keys().map(|&s| module.str(s)).collect();
        for op in module.all_ops() {
            accounted.extend(module.source_of(op).iter().map(|&s| module.str(s)));
        }
        let mut pending = vec![graph(&model)];
        let mut seen = FxHashSet::default();
        while let Some(g) = pending.pop() {
            for node in &g.node {
                let named = !node.name().is_empty() && seen.insert(node.name());
                let result = node.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
                let expected = if named { node.name() } else { result };
                assert!(accounted.contains(expected), "{}: '{expected}' is lost", path.display());
                pending.extend(node.attribute.iter().filter_map(|a| a.g.as_deref()));
            }
        }
    }
}

#[test]
fn damaged_models_are_errors_or_modules_and_never_a_panic() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/onnx");
    let names = ["loop_scan_nested_if", "local_function", "mul_1", "simple_sequence_model3", "rnn_lstm_gru"];
    let mut imported = 0;
    for name in names {
        let whole = std::fs::read(data.join(name).with_extension("onnx")).expect("test data");
        for at in (0..whole.len().min(4000)).step_by(whole.len().min(4000) / 150 + 1) {
            for flip in [1, 4, 0x80] {
                let mut broken = whole.clone();
                broken[at] ^= flip;
                let Ok(model) = decode_model(broken.into()) else { continue };
                if let Ok(module) = import(&model, None, &Registry::builtin()) {
                    imported += 1;
                    if let Ok(exported) = export(&module, &ExportOptions::default()) {
                        let _ = exported.write(&mut Vec::new(), &mut StoredOnly);
                    }
                }
            }
        }
    }
    assert!(imported > 50, "the damage never got past the decoder");
}
