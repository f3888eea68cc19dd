//! From the IR to ONNX.
//!
//! Each operation is written in the form that its declaration gives for the operator set version. A round trip keeps
//! the version of the source; where an operation does not exist in it, the lowest later version is taken in which
//! all do. For a target its version is taken, unless an operation that was kept as it was has no such form. Attributes that are operands in ONNX become constants again, symbols in them computations of shapes.
//!
//! ONNX has one graph, and one that writes nothing: other graphs and `updates` are left out and named ([`LeftOut`]).
//! Neither changes what a run of the main graph returns.

mod attrs;
mod bodies;
mod changes;
mod dims;
mod error;
mod globals;
mod graph;
mod learned;
mod left_out;
mod meta;
mod names;
mod op;
mod opset;
mod own;
mod spelling;
mod storage;
mod types;

use std::io::{self, Write};

use gs_ir::{GlobalId, Module, TensorData};

use crate::error::Error;
use crate::proto::{FunctionProto, ModelProto};
use crate::write::{Inline, Payloads, write_external, write_model};
pub use error::ExportError;
use globals::Contents;
pub use left_out::LeftOut;

/// What the caller may choose.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// Version of the `ai.onnx` operator set; by default that of the source, raised if it must be.
    pub opset: Option<i64>,
    /// The lowest version that the reader should get, where the module can be written in it or a later one.
    pub at_least: Option<i64>,
    /// The highest version that the reader takes.
    pub at_most: Option<i64>,
}

/// The version of the `ai.onnx` operator set that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Opset {
    /// The version.
    pub version: i64,
    /// Why it is below [`ExportOptions::at_least`], where it is.
    pub blocked: Option<ExportError>,
}

/// Makes contents that are not stored: derived and seeded globals.
pub trait Materialise {
    /// Writes the packed elements of a global, row-major, little-endian, elements below 8 bits from the low bits.
    /// Called when their place in the file is reached, so they need not all exist at once.
    ///
    /// # Errors
    /// Those of `out`, or why the elements cannot be made.
    fn materialise(&mut self, global: GlobalId, out: &mut dyn Write) -> io::Result<()>;
}

/// A function that gives whole contents at a time.
impl<F: FnMut(GlobalId) -> io::Result<TensorData>> Materialise for F {
    fn materialise(&mut self, global: GlobalId, out: &mut dyn Write) -> io::Result<()> {
        match self(global)? {
            TensorData::Bytes(bytes) => out.write_all(&bytes),
            TensorData::Strings(_) => Err(io::Error::other("strings cannot be derived")),
        }
    }
}

/// For modules whose contents are all stored, and derived ones that are written as nodes.
pub struct StoredOnly;

impl Materialise for StoredOnly {
    fn materialise(&mut self, _global: GlobalId, _out: &mut dyn Write) -> io::Result<()> {
        Err(io::Error::other("contents that are not stored need something that computes them"))
    }
}

/// A model ready to be written. Stored weights are shared with the module, the others are made while writing.
pub struct Exported<'m> {
    /// The model; elements of weights that are not stored are missing.
    pub model: ModelProto,
    /// Version of the `ai.onnx` operator set.
    pub opset: Opset,
    /// What the file does not hold.
    pub left_out: LeftOut,
    module: &'m Module,
    contents: Vec<Contents>,
}

/// Makes an ONNX model of a module's main graph.
///
/// # Errors
/// An operation has no ONNX form, or none in the operator set version that is asked for; a dimension cannot be
/// computed from what a run knows; an operation that was kept as it was blocks a change of version.
pub fn export<'m>(module: &'m Module, options: &ExportOptions) -> Result<Exported<'m>, ExportError> {
    let main = module.main().ok_or(ExportError::NoGraph)?;
    let (choice, blocked) = opset::choose(module, main, options)?;
    let opset = Opset { version: choice.main, blocked };
    let storage = storage::Storage::plan(module, main, &choice, false);
    let mut exporter = Exporter::new(module, choice, storage);
    let graph = exporter.main(main)?;
    let model = meta::model(module, &exporter, graph)?;
    let left_out = LeftOut::of(module, main, |id| exporter.storage.writes(id));
    Ok(Exported { model, opset, left_out, module, contents: exporter.contents })
}

/// The version in which a module would be written.
///
/// # Errors
/// As [`export`], of what stands in the way of every version.
pub fn opset_for(module: &Module, options: &ExportOptions) -> Result<Opset, ExportError> {
    let main = module.main().ok_or(ExportError::NoGraph)?;
    let (choice, blocked) = opset::choose(module, main, options)?;
    Ok(Opset { version: choice.main, blocked })
}

/// Writes a module's main graph as ONNX, weights in the file.
///
/// # Errors
/// As [`export`] and [`Exported::write`].
pub fn export_to(
    out: &mut dyn Write,
    module: &Module,
    options: &ExportOptions,
    materialise: &mut dyn Materialise,
) -> Result<(), Error> {
    export(module, options)?.write(out, materialise)
}

impl Exported<'_> {
    /// Writes the model with all its weights.
    ///
    /// # Errors
    /// The model is larger than a message may be (see [`Self::write_external`]), or writing fails.
    pub fn write(&self, out: &mut dyn Write, materialise: &mut dyn Materialise) -> Result<(), Error> {
        let (module, contents) = (self.module, self.contents.as_slice());
        let mut payloads = FromModule { module, contents, materialise };
        write_model(out, &self.model, &mut payloads)
    }

    /// Writes weights of at least `threshold` bytes to `data`, the rest of the model to `out`. `location` is the name
    /// of the data file relative to the model.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write_external(
        mut self,
        out: &mut dyn Write,
        data: &mut dyn Write,
        location: &str,
        threshold: u64,
        materialise: &mut dyn Materialise,
    ) -> Result<(), Error> {
        let (module, contents) = (self.module, std::mem::take(&mut self.contents));
        let mut payloads = FromModule { module, contents: &contents, materialise };
        let moved = write_external(data, location, threshold, &mut self.model, &mut payloads)?;
        write_model(out, &self.model, &mut Inline { payloads: &mut payloads, moved })
    }
}

struct FromModule<'a> {
    module: &'a Module,
    contents: &'a [Contents],
    materialise: &'a mut dyn Materialise,
}

impl Payloads for FromModule<'_> {
    fn len(&self, index: usize) -> Option<u64> {
        match self.contents.get(index)? {
            Contents::InMessage => None,
            Contents::Repeated { one, count } => Some(one.len() as u64 * *count as u64),
            Contents::Made { bytes, .. } => Some(*bytes as u64),
        }
    }

    fn write(&mut self, index: usize, out: &mut dyn Write) -> io::Result<()> {
        match self.contents.get(index) {
            None | Some(Contents::InMessage) => Ok(()),
            Some(Contents::Repeated { one, count }) => globals::write_repeated(one, *count, out),
            Some(Contents::Made { global, .. }) => {
                let name = self.module.str(self.module.global(*global).name);
                let named = |e: io::Error| io::Error::new(e.kind(), format!("@{name}: {e}"));
                self.materialise.materialise(*global, out).map_err(named)
            }
        }
    }
}

/// State of one export.
struct Exporter<'m> {
    module: &'m Module,
    opset: opset::Choice,
    names: names::Names,
    initializers: Vec<crate::proto::TensorProto>,
    contents: Vec<Contents>,
    /// How globals are written.
    storage: storage::Storage,
    /// Where symbols can be read from, innermost scope last.
    symbols: dims::Symbols,
    /// Domains of the declared operators written.
    domains: std::collections::BTreeSet<&'static str>,
    /// Functions of our own domain.
    functions: Vec<FunctionProto>,
}

impl<'m> Exporter<'m> {
    fn new(module: &'m Module, opset: opset::Choice, storage: storage::Storage) -> Self {
        Self {
            module,
            opset,
            names: names::Names::new(module),
            initializers: Vec::new(),
            contents: Vec::new(),
            storage,
            symbols: dims::Symbols::default(),
            domains: std::collections::BTreeSet::new(),
            functions: Vec::new(),
        }
    }
}
