//! Any bytes as an ONNX model; see [`gs_fuzz::bodies::onnx`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gs_fuzz::bodies::onnx(data));
