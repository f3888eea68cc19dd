//! Network files that are damaged or say what cannot be: told with file and line, nothing written.

use crate::harness::{data, folder, gs_opt, network, put, refuses, succeeds};
use std::fs;

#[test]
fn damaged_network_files() {
    let folder = folder();
    let dir = folder.path();
    for (name, bytes) in [
        ("png.onnx", &b"\x89PNG\r\n\x1a\n0000"[..]),
        ("zip.onnx", b"PK\x03\x04\0\0\0\0"),
        ("empty.onnx", b""),
    ] {
        put(dir, name, bytes);
        refuses(dir, &[name, "-o", "out.onnx"], &["error"]);
    }
    put(dir, "wrong.gsir", "module @main {\n}\n");
    refuses(dir, &["wrong.gsir", "-o", "out.onnx"], &["error", "wrong.gsir:1"]);
    put(dir, "binary.gsir", b"gsir 1\n\xff\xfe");
    refuses(dir, &["binary.gsir", "-o", "out.onnx"], &["binary.gsir", "UTF-8"]);
    refuses(dir, &["absent.onnx", "-o", "out.onnx"], &["absent.onnx"]);
    refuses(dir, &["absent.gsir", "-o", "out.onnx"], &["absent.gsir"]);
    refuses(dir, &["net.tflite", "-o", "out.onnx"], &["net.tflite", ".gsir"]);
    let Some(whole) = data("resnet_cifar10/resnet20_bn.onnx") else { return };
    let whole = fs::read(whole).expect("a network");
    for keep in [40, whole.len() / 2, whole.len() - 1] {
        put(dir, "cut.onnx", &whole[..keep]);
        refuses(dir, &["cut.onnx", "-o", "out.onnx"], &["error", "cut off"]);
    }
}

/// A script that runs the tool on many files must see which one is damaged.
#[test]
fn messages_name_the_damaged_file() {
    let folder = folder();
    for (name, bytes) in
        [("png.onnx", &b"\x89PNG\r\n\x1a\n0000"[..]), ("empty.onnx", b""), ("cut.onnx", b"\x3a\x64\x0a")]
    {
        put(folder.path(), name, bytes);
        refuses(folder.path(), &[name, "-o", "out.onnx"], &["error", name]);
        refuses(folder.path(), &["eval", name, "--data", "npz:good.npz"], &["error", name]);
    }
}

#[test]
fn missing_external_data() {
    let Some(model) = data("onnx/resnet8_external.onnx") else { return };
    let folder = folder();
    fs::copy(model, folder.path().join("apart.onnx")).expect("a copy");
    for out in ["out.onnx", "out.gsir"] {
        refuses(folder.path(), &["apart.onnx", "-o", out], &["error", "resnet8_external.bin"]);
    }
    let without = network("0.5")
        .replace("dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)", "file(\"gone.safetensors\", \"w\")");
    put(folder.path(), "apart.gsir", without);
    refuses(folder.path(), &["apart.gsir", "-o", "out.onnx"], &["apart.gsir:3", "gone.safetensors"]);
}

#[test]
fn text_that_is_no_network() {
    let folder = folder();
    let graph =
        |body: &str| format!("gsir 1\ngraph @main(%x : f32[2, 3]) -> (%y : f32[2, 3]) {{\n{body}\n}}\n");
    let cases = [
        ("cyclic.gsir", graph("  %a = relu(%b)\n  %b = relu(%a)\n  return %b"), "cyclic.gsir:3"),
        ("itself.gsir", graph("  %a = add(%a, %x)\n  return %a"), "itself.gsir:3"),
        ("clash.gsir", graph("  %a = flatten(%x) : f32[7, 1]\n  return %x"), "clash.gsir:3"),
        ("result.gsir", graph("  %a = transpose(%x) {perm = [1, 0]}\n  return %a"), "result.gsir"),
        ("noop.gsir", graph("  %a = relux(%x)\n  return %a"), "noop.gsir:3"),
        ("nograph.gsir", "gsir 1\n".to_owned(), "nograph.gsir"),
    ];
    for (name, text, place) in cases {
        put(folder.path(), name, text);
        refuses(folder.path(), &[name, "-o", "out.onnx"], &["error", place]);
        refuses(folder.path(), &["eval", name, "--data", "npz:good.npz"], &["error", place]);
    }
    let elements = "gsir 1\ngraph @main(%x : f32[2, 3], %i : i64[2, 3]) -> (%y : f32[2, 3]) {\n  %a = add(%x, %i)\n  return %a\n}\n";
    put(folder.path(), "elements.gsir", elements);
    refuses(folder.path(), &["elements.gsir", "-o", "out.onnx"], &["elements.gsir:3"]);
}

#[test]
fn weights_that_are_no_numbers() {
    let folder = folder();
    for bad in ["nan", "inf"] {
        put(folder.path(), "bad.gsir", network(bad));
        refuses(
            folder.path(),
            &["quantize", "bad.gsir", "--data", "npz:good.npz", "-o", "out.onnx"],
            &["error", "weight \"w\" of \"conv\""],
        );
    }
}

/// A node that no declared operator covers is kept, and that is said, with the reason.
#[test]
fn nodes_that_stay_as_they_are() {
    let Some(model) = data("onnx/eltwise_chanlast_custom.onnx") else { return };
    let folder = folder();
    let model = model.to_str().expect("a path of text");
    let ended = gs_opt(folder.path(), &[model, "-o", "out.gsir"]);
    assert!(ended.status == Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("stays as it is: no such operator is declared"), "{}", ended.stderr);
}

/// A standard operator that contradicts itself is kept when a file is converted; who wants to run it is told once.
#[test]
fn a_node_that_cannot_be_run_is_named_once() {
    let folder = folder();
    let dir = folder.path();
    let text = network("0.5").replace("conv(%x, @w, _)", "\"ai.onnx::Conv\"(%x, @w)").replace(
        "f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)",
        "f32[2, 2, 1, 1] = dense(0.5, -0.25, 1.0, 0.5)",
    );
    put(
        dir,
        "wrong.gsir",
        text.replace("gsir 1\n", "gsir 1\nonnx {\n  ir_version = 8\n  opset \"\" = 13\n}\n"),
    );
    succeeds(dir, &["wrong.gsir", "-o", "wrong.onnx"]);
    let converted = gs_opt(dir, &["wrong.onnx", "-o", "again.gsir"]);
    assert_eq!(converted.status, Some(0), "{}", converted.stderr);
    assert!(converted.stderr.contains("node \"conv\" stays as it is"), "{}", converted.stderr);
    for file in ["wrong.onnx", "again.gsir"] {
        for args in [
            &["eval", file, "--data", "npz:good.npz"][..],
            &["quantize", file, "--data", "npz:good.npz", "-o", "out.onnx"],
        ] {
            refuses(dir, args, &["cannot be run: node \"conv\" (ai.onnx::Conv): operand `x` has 3 channels"]);
            let said = gs_opt(dir, args).stderr;
            assert_eq!(said.matches("channels").count(), 1, "{said}");
        }
    }
}

/// A loop that never ends is refused at a limit, which can be set.
#[test]
fn endless_loops_end_with_an_error() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\ndims N >= 1\nconst @go : bool[] = true\n\
        graph @main(%x : f32[N, 3, 8, 8]) -> (%y : f32[N, 3, 8, 8]) {\n  \
        %0 = loop(_, @go, %x) : f32[N, 3, 8, 8] region body(%i : i64[], %c : bool[], %v : f32[N, 3, 8, 8]) -> \
        (bool[], f32[N, 3, 8, 8]) {\n    %1 = neg(%v) : f32[N, 3, 8, 8]\n    return %c, %1\n  }\n  return %0\n}\n";
    put(dir, "endless.gsir", text);
    for engine in ["fast", "reference"] {
        let args =
            ["eval", "endless.gsir", "--data", "npz:good.npz", "--engine", engine, "--max-steps", "100000"];
        refuses(dir, &args, &["more steps than the limit", "--max-steps N"]);
    }
}
