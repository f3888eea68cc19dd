//! Passes over files: what they fold, and what they must leave.

use crate::harness::{data, folder, gs_opt, put, refuses, succeeds};
use std::fs;

/// What a run may override is no constant to any pass, and stays an input of the file although nothing reads it.
#[test]
fn overridable_weights_are_no_constants() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\n\
        onnx {\n  ir_version = 8\n  opset \"\" = 13\n}\n\
        input @w : f32[2] = dense(1.0, 1.0)\n\
        input @zero : f32[2] = dense(0.0, 0.0)\n\
        input @idle : f32[2] = dense(1.0, 1.0)\n\
        input @shape : i64[1] = dense(2)\n\
        const @two : f32[2] = dense(2.0, 2.0)\n\
        graph @main(%x : f32[2]) -> (%y : f32[K]) {\n\
          %0 = mul(%x, @w) : f32[2]\n\
          %1 = add(%0, @zero) : f32[2]\n\
          %2 = mul(@w, @two) : f32[2]\n\
          %3 = add(%1, %2) : f32[2]\n\
          %4 = reshape_to(%3, @shape) : f32[K]\n\
          return %4\n\
        }\n";
    put(dir, "in.gsir", text);
    succeeds(dir, &["in.gsir", "--pass=canonicalize,const-fold,cse,saturate,dce", "-o", "out.gsir"]);
    let out = fs::read_to_string(dir.join("out.gsir")).expect("text");
    let count = |what: &str| out.matches(what).count();
    assert_eq!((count("input @"), count("const @")), (4, 1), "{out}");
    assert_eq!((count(" mul("), count(" add("), count(" reshape_to(")), (2, 2, 1), "{out}");
    succeeds(dir, &["out.gsir", "-o", "out.onnx"]);
    let ended = gs_opt(dir, &["out.onnx"]);
    assert!(ended.stderr.contains("4 weights are inputs too (w, zero, idle, ...)"), "{}", ended.stderr);
    assert_eq!(ended.stdout.matches("input @").count(), 4, "{}", ended.stdout);
}

/// The weights of queries, keys and values come in one tensor: its parts are constants like others.
#[test]
fn parts_of_a_weight_are_folded() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\n\
        param @qkv : f32[3] = dense(2.0, 4.0, 8.0)\n\
        param @unread : f32[4] = dense(1.0, 2.0, 3.0, 4.0)\n\
        graph @main(%x : f32[1]) -> (%y : f32[1], %z : f32[2]) {\n\
          %q, %k, %v = split(%x0) : f32[1], f32[1], f32[1]\n\
          %0 = mul(%x, %q) : f32[1]\n\
          %1 = mul(%0, %k) : f32[1]\n\
          %2 = add(%1, %v) : f32[1]\n\
          %s, %t = split(@unread) : f32[2], f32[2]\n\
          return %2, %t\n\
        }\n"
    .replace("%x0", "@qkv");
    put(dir, "in.gsir", text);
    succeeds(dir, &["in.gsir", "--pass=const-fold", "-o", "out.gsir"]);
    let out = fs::read_to_string(dir.join("out.gsir")).expect("text");
    for part in ["split(@qkv) #0/3", "split(@qkv) #1/3", "split(@qkv) #2/3", "split(@unread) #1/2"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert!(!out.contains("#0/2") && !out.contains("  %q"), "{out}");
    assert_eq!(succeeds(dir, &["out.gsir"]).trim(), out.trim());
    succeeds(dir, &["out.gsir", "-o", "out.onnx"]);
    let back = succeeds(dir, &["out.onnx"]);
    for value in ["dense(2.0)", "dense(4.0)", "dense(8.0)", "dense(3.0, 4.0)"] {
        assert!(back.contains(value), "{value}\n{back}");
    }
    // A part that is not there.
    put(dir, "wrong.gsir", out.replace("#2/3", "#3/3"));
    refuses(dir, &["wrong.gsir"], &["GS0202", "no result 3 of 3"]);
}

/// Extents that were known of an operation must not get lost when it is folded.
#[test]
fn a_folded_network_can_be_written() {
    let folder = folder();
    let Some(model) = data("prune_groups/vit_tiny.onnx") else { return };
    let model = model.to_string_lossy().into_owned();
    succeeds(folder.path(), &[&model, "--pass=canonicalize,const-fold", "-o", "out.onnx"]);
}
