//! Reads ONNX files into the IR and writes them again: `onnx_roundtrip [OPTION]... IN OUT [IN OUT]...`
//!
//! `--opset N` writes in that operator set; `--opaque` lists the nodes that no declaration covered, with the reason;
//! `--message` decodes and encodes the file's message only, without the IR.
//!
//! Used by the scripts of `tests/ort`, in which ONNX Runtime judges the result.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use gs_ir::{Module, Registry};
use gs_onnx::{ExportOptions, NoPayloads, StoredOnly, export, import_file, read_model, write_model};

#[derive(Default)]
struct Options {
    export: ExportOptions,
    list_opaque: bool,
    message: bool,
}

fn options(args: &mut Vec<String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.first().filter(|a| a.starts_with("--")).cloned() {
        args.remove(0);
        match arg.as_str() {
            "--opset" if !args.is_empty() => options.export.opset = Some(args.remove(0).parse().ok()?),
            "--opaque" => options.list_opaque = true,
            "--message" => options.message = true,
            _ => return None,
        }
    }
    (!args.is_empty() && args.len().is_multiple_of(2)).then_some(options)
}

#[expect(clippy::print_stdout, reason = "a command-line program")]
fn list_opaque(path: &Path, module: &Module) {
    for (name, entry) in &module.kept {
        let reason = entry.reason.map_or("", |r| module.str(r));
        let op = module.all_ops().into_iter().find(|&op| module.source_of(op).contains(name));
        let op = op.and_then(|op| module.opaque_name(op)).unwrap_or_default();
        println!("{}: {op} '{}': {reason}", path.display(), module.str(*name));
    }
}

fn convert(from: &Path, to: &Path, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    if options.message {
        let model = read_model(from)?;
        let mut out = BufWriter::new(File::create(to)?);
        write_model(&mut out, &model, &mut NoPayloads)?;
        return Ok(out.flush()?);
    }
    let module = import_file(from, &Registry::builtin())?;
    if options.list_opaque {
        list_opaque(from, &module);
    }
    let exported = export(&module, &options.export)?;
    let mut out = BufWriter::new(File::create(to)?);
    exported.write(&mut out, &mut StoredOnly)?;
    Ok(out.flush()?)
}

#[expect(clippy::print_stderr, reason = "a command-line program")]
fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = options(&mut args) else {
        eprintln!("usage: onnx_roundtrip [--opset N] [--opaque] [--message] IN OUT [IN OUT]...");
        return ExitCode::from(2);
    };
    let mut failed = false;
    for pair in args.chunks_exact(2) {
        if let Err(error) = convert(Path::new(&pair[0]), Path::new(&pair[1]), &options) {
            eprintln!("{}: {error}", pair[0]);
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}
