//! Reads ONNX files into the IR and writes them again: `onnx_roundtrip [--opset N] [--opaque] IN OUT [IN OUT]...`
//!
//! `--opaque` lists the nodes that no declaration covered, with the reason.
//!
//! Used by `tests/ort/roundtrip.py`, which lets ONNX Runtime compare both.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use gs_ir::Registry;
use gs_onnx::{ExportOptions, StoredOnly, export, import_file};

#[expect(clippy::print_stdout, reason = "a command-line program")]
fn convert(
    from: &Path,
    to: &Path,
    options: &ExportOptions,
    list_opaque: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let module = import_file(from, &Registry::builtin())?;
    if list_opaque {
        for (name, entry) in &module.kept {
            let reason = entry.reason.map_or("", |r| module.str(r));
            let op = module.all_ops().into_iter().find(|&op| module.source_of(op).contains(name));
            let op = op.and_then(|op| module.opaque_name(op)).unwrap_or_default();
            println!("{}: {op} '{}': {reason}", from.display(), module.str(*name));
        }
    }
    let mut out = BufWriter::new(File::create(to)?);
    export(&module, options)?.write(&mut out, &mut StoredOnly)?;
    out.flush()?;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command-line program")]
fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut options = ExportOptions::default();
    if args.first().is_some_and(|a| a == "--opset") && args.len() > 1 {
        options.opset = args.get(1).and_then(|v| v.parse().ok());
        args.drain(..2);
    }
    let list_opaque = args.first().is_some_and(|a| a == "--opaque");
    args.drain(..usize::from(list_opaque));
    let mut failed = args.is_empty() || !args.len().is_multiple_of(2);
    if failed {
        eprintln!("usage: onnx_roundtrip [--opset N] IN.onnx OUT.onnx [IN OUT]...");
    }
    for pair in args.chunks_exact(2) {
        if let Err(error) = convert(Path::new(&pair[0]), Path::new(&pair[1]), &options, list_opaque) {
            eprintln!("{}: {error}", pair[0]);
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}
