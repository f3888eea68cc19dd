//! ONNX in and out.
//!
//! [`import_file`] makes a [`gs_ir::Module`] of an ONNX file, [`export()`] the reverse. Below them: [`read_model`] maps a file and decodes it
//! without copying weights; [`payload`] gives the elements of a stored tensor, also from files beside the model;
//! [`write_model`] writes a model as a stream, so that derived weights are made piece by piece.

pub mod proto;

mod decode;
mod error;
mod export;
mod external;
mod extras;
mod import;
mod map;
mod own;
mod payload;
mod sniff;
mod write;

pub use decode::{decode_model, read_model};
pub use error::{Error, ExternalProblem, GraphProblem, NodeProblem, TensorProblem};
pub use export::{
    ExportError, ExportOptions, Exported, LeftOut, Materialise, Opset, StoredOnly, export, export_to,
    opset_for,
};
pub use external::ExternalFiles;
pub use import::{import, import_file};
pub use map::map_file;
pub use payload::{Payload, element_bits, payload};
pub use sniff::{Format, sniff};
pub use write::{
    EXTERNAL_ALIGNMENT, Inline, MESSAGE_LIMIT, NoPayloads, Payloads, write_external, write_model,
};
