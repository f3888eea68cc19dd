//! The text form of modules.
//!
//! ```text
//! gsir 1
//! dims N >= 1
//! param @w : f32[16, 3, 3, 3] = file("net.safetensors", "w")
//! graph @main(%x : f32[N, 3, 32, 32]) -> (%y : f32[N, 16, 32, 32]) {
//!   %0 = conv(%x, @w) {pads = [1, 1, 1, 1]} : f32[N, 16, 32, 32] from "conv1"
//!   return %0
//! }
//! gone { "bn1" = folded("fold-bn", into "conv1") }
//! ```
//!
//! # Grammar
//! Tokens are those of [`crate::lexer`]; line breaks mean nothing but where errors recover; `//` begins a comment.
//! `NAME` is a word or, where it is none, a string; `%`, `@` take a `NAME` behind them (`%"gpu_0/data_0"`), and `%12` is
//! a value without a name.
//!
//! ```text
//! module   = "gsir" "1" {"target" STR | "algorithm" STR | "property" STR "=" STR | onnx | dims} {global} {graph} {table}
//! onnx     = "onnx" "{" {("ir_version" | "model_version" | "opset" STR) "=" INT | KEY "=" STR} "}"
//!            KEY: producer_name, producer_version, domain, doc
//! dims     = "dims" symbol (">=" | "<=") INT {"," ...}
//! global   = ("param" ["frozen"] | ("state" | "const" | "input") ["trainable"]) "@"NAME ":" type ["=" init]
//! init     = "file" "(" STR "," STR ")" | "splat" "(" element ")" | contents
//!          | ("uniform" | "normal") "(" "seed" INT "," FLOAT "," FLOAT ")"
//!          | op "(" ["@"NAME | "_"] {"," ...} ")" [attrs] ["#" INT "/" INT]   derived; #: which result of how many
//! contents = element (rank 0) | "dense" "(" {element ","} ")" | "hex" "(" STR ")"       packed bytes
//! element  = number | "inf" | "nan" | HEX (the bits of a float) | BOOL | STR | "(" number "," number ")" (complex)
//! graph    = "graph" "@"NAME signature body
//! signature = "(" ["%"NAME ":" type] {"," ...} ")" "->" "(" [["%"NAME ":"] type] {"," ...} ")"
//! body     = "{" {operation} "return" [value {"," value}] ["updates" "{" {"@"NAME "=" value} "}"] "}"   not in a region
//! value    = "%"NAME | "@"NAME
//! operation = [("%"NAME | "_") {"," ...} "="] op "(" [value | "_"] {"," ...} ")" [attrs]
//!            [":" (type | "_") {"," ...}] ["from" STR {"," STR}] {"region" NAME signature body}
//! op       = WORD | STR                                  in quotes: not declared, kept as it is
//! attrs    = "{" NAME "=" attr {"," ...} "}"
//! attr     = INT | FLOAT | "float" "(" HEX ")" | BOOL | STR | b"..." | elem | elem "[" {INT ","} "]" contents
//!          | ["ints" | "floats" | "strs" | "dims"] "[" {item ","} "]" | "raw" "(" STR "," b"..." ")"
//! type     = elem "[" (dim {"," dim} | "*" | ) "]" | "any" | ("seq" | "opt") "<" type ">" | "map" "<" elem "," type ">"
//!          | "sparse" "<" elem "[" ... "]" ">"
//! dim      = ["-"] product {("+" | "-") product}        product = factor {"*" factor}
//! factor   = INT | symbol | "floordiv" "(" dim "," INT ")" | "(" dim ")"
//! symbol   = NAME | "?" INT                              ?k: equal to nothing but itself
//! table    = ("gone" | "kept") "{" {STR "=" NAME "(" STR ["," "into" STR] ["," "because" STR] ")"} "}"
//! ```
//!
//! Types of results may be left out; then they are inferred. Attributes at their default are not printed. Values of one
//! name get suffixes (`%a.1`); sibling regions may use a name twice. Printing is deterministic: the same module gives
//! the same bytes, and printed text that was parsed prints to itself.
//!
//! Limits, so that no text can exhaust stack or time: 64 nested regions, 32 nested brackets in a type or dimension, 64
//! terms in a dimension, 256 axes, 1024 attributes of an operation, 4 GiB of text.

mod memory;
mod names;
mod options;
mod parse;
mod parse_attr;
mod parse_global;
mod parse_graph;
mod parse_header;
mod parse_op;
mod parse_type;
mod print;
mod print_attr;
mod print_global;
mod print_type;
mod same;
mod scope;
mod weights;

pub use options::{PrintOptions, Weights};
pub use parse::{Parsed, parse, parse_fragment, parse_module};
pub use parse_attr::{parse_attr_value, parse_contents};
pub use parse_type::{Symbols, parse_dim, parse_type};
pub use print::print_module;
pub use same::{Difference, same};
pub use weights::write_weights;

use crate::diagnostics::{Diagnostic, TextError};
use crate::output::{AtomicFile, OutputError};
use crate::span::SourceMap;
use gs_ir::{Module, Registry};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A type as text, with the symbols of its module; for messages.
pub fn type_text(module: &Module, ty: &gs_ir::Type) -> String {
    let mut out = String::new();
    print_type::SymbolNames::all(module).push_type(&mut out, ty);
    out
}

/// Prints a module to a string.
pub fn print_to_string(module: &Module, options: &PrintOptions) -> String {
    let mut out = String::new();
    // A String takes whatever is written to it.
    let _ = print_module(module, options, &mut out);
    out
}

/// Prints a module to a writer.
///
/// # Errors
/// Those of `out`.
pub fn write_module(module: &Module, options: &PrintOptions, out: &mut dyn Write) -> io::Result<()> {
    let mut adapter = Adapter { out, error: None };
    match print_module(module, options, &mut adapter) {
        Ok(()) => Ok(()),
        Err(_) => Err(adapter.error.unwrap_or_else(|| io::Error::other("the module could not be printed"))),
    }
}

/// Lets text be printed to a byte writer, keeping the writer's own error.
struct Adapter<'w> {
    out: &'w mut dyn Write,
    error: Option<io::Error>,
}

impl std::fmt::Write for Adapter<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.out.write_all(s.as_bytes()).map_err(|e| {
            self.error = Some(e);
            std::fmt::Error
        })
    }
}

/// Writes a module to a path: the text there, its large tensors in a file beside it whose name is that of the text
/// and `.safetensors` (`net.gsir.safetensors`): a `net.safetensors` may be somebody's own. Derived globals stay
/// symbolic. Both files are complete before either gets its name, the tensors first. What is no regular file (a pipe,
/// a device) gets the text with everything inline.
///
/// # Errors
/// Those of the file system.
pub fn write_files(module: &Module, path: &Path) -> Result<(), OutputError> {
    let mut text = AtomicFile::create(path)?;
    if !text.is_regular() {
        text.write(|out| write_module(module, &PrintOptions::default(), out))?;
        return text.commit();
    }
    let name = weights_name(path).ok_or_else(|| OutputError {
        path: path.to_path_buf(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "its name is no UTF-8"),
    })?;
    let options = PrintOptions::with_file(name.as_str());
    text.write(|out| write_module(module, &options, out))?;
    if weights::has_large(module, &options) {
        let mut tensors = AtomicFile::create(&path.with_file_name(&name))?;
        tensors.write(|out| write_weights(module, &options, out).map(drop))?;
        // A text that names a missing file would be worse than a file that no text names.
        tensors.commit()?;
    }
    text.commit()
}

/// The name of the file for the large tensors of a text: one that no other program would choose.
fn weights_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let suffix = if name.ends_with(".gsir") { "safetensors" } else { "gsir.safetensors" };
    Some(format!("{name}.{suffix}"))
}

/// Reads a module from a path, with the tensors that its text refers to (mapped, not copied).
///
/// # Errors
/// Everything that is wrong, with the places.
pub fn read_file(path: &Path, registry: &Arc<Registry>) -> Result<Module, TextError> {
    let name = path.display().to_string();
    let fail = |sources: SourceMap, diagnostics: Vec<Diagnostic>| TextError { sources, diagnostics };
    let bytes = std::fs::read(path).map_err(|e| {
        fail(SourceMap::new(), vec![Diagnostic::error("GS0300", format!("`{name}` cannot be read: {e}"))])
    })?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let message = format!("`{name}` is no text: byte {at} is not UTF-8");
        fail(SourceMap::new(), vec![Diagnostic::error("GS0300", message)])
    })?;
    let base_dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse_module(&text, Some(base_dir), registry).map_err(|d| fail(SourceMap::single(name, text), d))
}
