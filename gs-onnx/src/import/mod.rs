//! From ONNX to the IR.
//!
//! The registry decides: an operator and version that a declaration covers becomes its operation, anything else an
//! opaque one with all its attributes. Weights become globals, also behind `Constant`, `Identity`, `Cast` and
//! `ConstantOfShape`; operands that must be static become attributes; calls of model-local functions are replaced by
//! their bodies. Each source node is then named by an operation, or listed as gone with the reason.

mod attrs;
mod finish;
mod functions;
mod graph;
mod op;
mod opaque;
mod own;
mod scope;
mod statics;
mod tensors;
mod types;
mod weights;

use std::path::Path;
use std::sync::Arc;

use gs_ir::{Module, OnnxMeta, OpKind, Registry, Rewriter, Sym};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::Error;
use crate::external::ExternalFiles;
use crate::extras;
use crate::proto::{ModelProto, NodeProto};
pub(crate) use attrs::{RAW_TAG, default_value};
pub(crate) use op::spatial;
pub(crate) use opaque::{LIST, OVERLOAD};
pub(crate) use scope::domain;
use scope::{MadeStatic, Opsets, Scope};
pub(crate) use types::is_anonymous;

/// Nodes that calls of functions may expand to. A small file can describe an endless expansion.
const EXPANSION_LIMIT: usize = 1 << 22;

/// Below this version of the file format every initializer is listed as an input; from it on only one that a run may
/// override, and that is no constant therefore.
pub(crate) const IR_WITH_OVERRIDABLE_WEIGHTS: i64 = 4;

/// Graphs and calls within one another.
const NESTING_LIMIT: usize = 100;

/// Reads an ONNX file; weights stay in its memory map.
///
/// # Errors
/// The file cannot be read, is no ONNX model, or contradicts itself. An operator that we do not know is no error.
pub fn import_file(path: &Path, registry: &Arc<Registry>) -> Result<Module, Error> {
    let model = crate::read_model(path)?;
    import(&model, Some(&mut ExternalFiles::beside(path)), registry)
}

/// Makes a module of a decoded model. `files` finds weights that lie beside the model.
///
/// # Errors
/// As [`import_file`].
pub fn import(
    model: &ModelProto,
    files: Option<&mut ExternalFiles>,
    registry: &Arc<Registry>,
) -> Result<Module, Error> {
    let graph = model.graph.as_ref().ok_or(Error::NoGraph { looks_like: None })?;
    let mut module = Module::with_registry(registry.clone());
    let opsets = Opsets::new(&model.opset_import);
    let opaque = registry.kind("opaque").unwrap_or(OpKind::NONE);
    let mut importer = Importer {
        rw: Rewriter::new(&mut module),
        files,
        opaque,
        functions: functions::index(&model.functions),
        names: graph::node_names(graph),
        read: graph::read_names(model),
        overridable: FxHashSet::default(),
        taken: FxHashSet::default(),
        notes: Vec::new(),
        made_static: Vec::new(),
        calls: Vec::new(),
        expansion_left: EXPANSION_LIMIT,
        depth: 0,
    };
    if model.ir_version() >= IR_WITH_OVERRIDABLE_WEIGHTS {
        importer.overridable = graph.input.iter().map(|i| i.name()).collect();
    }
    let main = importer.rw.add_graph("main");
    importer.whole_graph(graph, &mut Scope::root(main, &opsets))?;
    importer.finish();
    let notes = std::mem::take(&mut importer.notes);
    fill_meta(&mut module, model, notes);
    Ok(module)
}

/// State of one import.
struct Importer<'a> {
    rw: Rewriter<'a>,
    files: Option<&'a mut ExternalFiles>,
    opaque: OpKind,
    functions: FxHashMap<functions::Key<'a>, functions::Function<'a>>,
    /// Names that nodes of the file have; no unnamed node may get one of them.
    names: FxHashSet<&'a str>,
    /// Names of values that anything reads.
    read: FxHashSet<&'a str>,
    /// Names of the main graph's inputs, where one that has contents may be given others by a run.
    overridable: FxHashSet<&'a str>,
    /// Ledger names given out.
    taken: FxHashSet<Sym>,
    notes: Vec<NodeProto>,
    made_static: Vec<MadeStatic>,
    /// Calls of functions that were expanded.
    calls: Vec<Sym>,
    expansion_left: usize,
    /// How many graphs and calls are open, to bound the stack.
    depth: usize,
}

fn fill_meta(module: &mut Module, model: &ModelProto, notes: Vec<NodeProto>) {
    module.meta.properties =
        model.metadata_props.iter().map(|p| (p.key().to_owned(), p.value().to_owned())).collect();
    if let Some(name) = model.graph.as_ref().and_then(|g| g.name.clone()) {
        module.meta.properties.push((extras::GRAPH_NAME.to_owned(), name));
    }
    if let Some(kept) = extras::encode(&extras::reduce(model, notes)) {
        module.meta.properties.push((extras::KEY.to_owned(), kept));
    }
    module.meta.onnx = Some(OnnxMeta {
        ir_version: model.ir_version(),
        opsets: model.opset_import.iter().map(|o| (domain(o.domain()).to_owned(), o.version())).collect(),
        producer_name: model.producer_name().to_owned(),
        producer_version: model.producer_version().to_owned(),
        domain: model.domain().to_owned(),
        model_version: model.model_version(),
        doc: model.doc_string().to_owned(),
    });
}
