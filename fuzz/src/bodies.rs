//! What the targets do with an input. A panic is a finding; an error that is returned is not.

use gs_ir::{Registry, infer_module, verify};
use gs_onnx::{ExportOptions, StoredOnly, decode_model, export, import};
use gs_text::{PrintOptions, SourceMap, Style, parse_module, print_to_string, render_all};

/// Takes the bytes as a `.gsir` module. Text that is refused must come with an error that can be shown; text that is
/// accepted must print as text that is accepted and prints the same again.
///
/// # Panics
/// Where that does not hold.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_module(text, None, &Registry::builtin()) {
        Ok(module) => {
            // What parses need not be a valid module; the verifier must only survive it.
            let _ = verify(&module);
            prints_stably(&print_to_string(&module, &PrintOptions::default()));
        }
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(|d| d.is_error()), "text refused without an error");
            render_all(&diagnostics, &SourceMap::single("input", text), Style::Plain);
        }
    }
}

/// Takes the bytes as an ONNX model without files beside it: decodes, imports, infers, verifies, prints and exports.
/// Each step may fail; what was written must be readable again, as text where the verifier has no objection.
///
/// # Panics
/// Where that does not hold.
pub fn onnx(data: &[u8]) {
    let Ok(model) = decode_model(data.to_vec().into()) else { return };
    let Ok(mut module) = import(&model, None, &Registry::builtin()) else { return };
    let inferred = infer_module(&mut module).is_empty();
    let printed = print_to_string(&module, &PrintOptions::default());
    if inferred && verify(&module).is_ok() {
        prints_stably(&printed);
    }
    let Ok(exported) = export(&module, &ExportOptions::default()) else { return };
    let mut written = Vec::new();
    if exported.write(&mut written, &mut StoredOnly).is_ok() {
        let again = decode_model(written.into());
        assert!(again.is_ok(), "the exported model cannot be decoded: {:?}", again.err());
    }
}

/// Checks that printed text is read again and prints the same.
fn prints_stably(printed: &str) {
    match parse_module(printed, None, &Registry::builtin()) {
        Ok(again) => {
            let second = print_to_string(&again, &PrintOptions::default());
            assert!(second == printed, "printing is not stable:\n{printed}\n--- then\n{second}");
        }
        Err(diagnostics) => {
            let shown = render_all(&diagnostics, &SourceMap::single("printed", printed), Style::Plain);
            panic!("printed text is refused:\n{shown}");
        }
    }
}
