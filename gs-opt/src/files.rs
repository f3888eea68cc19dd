//! Reading and writing networks, by suffix: `.onnx`, `.gsir`, and `-` for GSIR text on standard streams.

use crate::failure::{Failure, Outcome};
use crate::output::atomic_write;
use gs_eval::Materializer;
use gs_ir::{Module, Registry};
use gs_text::{PrintOptions, Style, Weights};
use std::io::{self, Read, Write};
use std::path::Path;

/// What a path means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An ONNX file.
    Onnx,
    /// GSIR text.
    Gsir,
    /// Standard input or output, as GSIR text.
    Stream,
}

impl Kind {
    /// By suffix.
    ///
    /// # Errors
    /// A suffix that means nothing here.
    pub fn of(path: &Path) -> Outcome<Kind> {
        if path.as_os_str() == "-" {
            return Ok(Kind::Stream);
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("onnx") => Ok(Kind::Onnx),
            Some("gsir") => Ok(Kind::Gsir),
            // What is no regular file has no suffix that could mean something.
            _ if path.exists() && !path.is_file() && !path.is_dir() => Ok(Kind::Gsir),
            _ => Err(Failure::new(format!("{}: neither .onnx nor .gsir", path.display()))
                .help("the suffix says how a network is read or written; `-` is GSIR text on standard input or output")),
        }
    }
}

/// Reads a network and infers its types.
///
/// # Errors
/// A file that cannot be read or is wrong; several diagnostics where there are several errors.
pub fn read(path: &Path) -> Outcome<Module> {
    let mut module = match Kind::of(path)? {
        Kind::Onnx => gs_onnx::import_file(path, &Registry::builtin())?,
        Kind::Gsir => parsed(gs_text::read_file(path, &Registry::builtin()))?,
        Kind::Stream => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|e| Failure::new(format!("standard input: {e}")))?;
            parsed(gs_text::parse_module(&text, Some(Path::new(".")), &Registry::builtin()))?
        }
    };
    if module.main().is_none() {
        return Err(Failure::new(format!("{}: it holds no graph", path.display())));
    }
    gs_ir::infer_module(&mut module);
    gs_ir::verify(&module).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|e| e.describe(&module)).collect();
        Failure::new(format!("{}: {}", path.display(), lines.join("\n  ")))
    })?;
    Ok(module)
}

fn parsed(result: Result<gs_text::Parsed, gs_text::TextError>) -> Outcome<Module> {
    match result {
        Ok(parsed) => Ok(parsed.module),
        Err(error) => Err(Failure::new(error.render(Style::Plain))),
    }
}

/// Writes a network: to a temporary file beside the target, which gets its name at the end.
///
/// # Errors
/// A target that cannot be written, or what the form cannot hold. Nothing half-written stays.
pub fn write(module: &Module, path: &Path, brief: bool) -> Outcome<()> {
    match Kind::of(path)? {
        Kind::Onnx => {
            let mut contents = Materializer::new(module);
            atomic_write(path, |out: &mut dyn Write| -> Outcome<()> {
                gs_onnx::export(module, &mut contents, out)?;
                Ok(())
            })
        }
        Kind::Stream => write_text(module, &mut io::stdout().lock(), brief),
        Kind::Gsir if brief => atomic_write(path, |out: &mut dyn Write| write_text(module, out, true)),
        Kind::Gsir => write_gsir(module, path),
    }
}

/// Text with its weights in a `.safetensors` file beside it.
fn write_gsir(module: &Module, path: &Path) -> Outcome<()> {
    let weights = path.with_extension("safetensors");
    let name = weights.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let options = PrintOptions { weights: Weights::File(name), provenance: true };
    // Weights first: a text that names a missing file would be worse than a file that no text names.
    atomic_write(&weights, |out: &mut dyn Write| -> Outcome<()> {
        gs_text::write_weights(module, &options, out)?;
        Ok(())
    })?;
    atomic_write(path, |out: &mut dyn Write| -> Outcome<()> {
        gs_text::write_module(module, &options, out)?;
        Ok(())
    })
}

/// Text alone; weights are inline where they are small, else left out.
fn write_text(module: &Module, out: &mut dyn Write, brief: bool) -> Outcome<()> {
    let options = PrintOptions { weights: if brief { Weights::None } else { Weights::Inline }, provenance: !brief };
    gs_text::write_module(module, &options, out)?;
    Ok(())
}

/// A module as text, for showing.
pub fn text(module: &Module, brief: bool) -> String {
    let options = PrintOptions { weights: Weights::None, provenance: !brief };
    gs_text::print_to_string(module, &options)
}

