//! Checkpoints: everything that a run needs to go on as if it had not stopped. One safetensors file: parameters and
//! states by the names of their globals, and in its header what the run was about, so that another one is not taken up
//! by mistake. How the file gets to the disk is the host's business.

use super::{TrainOptions, TrainingData};
use gs_eval::{Tensor, TensorError};
use gs_ir::{ElemType, GlobalId, Init, Literal, Module, ValueId};
use gs_passes::training::train_graph;
use rustc_hash::FxHashMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use thiserror::Error as ThisError;

/// What a run is about. All of it must be equal for a run to be taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// By name, in the order in which differences are told.
    entries: Vec<(String, String)>,
}

/// What is other than it was when a checkpoint was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is of.
    pub key: String,
    /// That of the checkpoint.
    pub found: String,
    /// That of this run.
    pub wanted: String,
}

/// A setting as people are told of it.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} is {}, here it is {}", self.key, self.found, self.wanted)?;
        if self.key == ENGINE {
            write!(f, " (the last bits differ, so that a run ends with the instructions it began with)")?;
        }
        Ok(())
    }
}

/// A run that was left at some step.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    entries: BTreeMap<String, String>,
    contents: BTreeMap<String, Tensor>,
}

/// Why a checkpoint could not be used or written.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The bytes are no checkpoint.
    #[error("this is no checkpoint, or not all of one: {0}")]
    Damaged(String),
    /// It is one of another run.
    #[error("the checkpoint is of another run: {}", .differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; "))]
    Other {
        /// What differs.
        differences: Vec<Difference>,
    },
    /// It holds a tensor that the network has no place for.
    #[error("the checkpoint holds `{0}`, which the network has not or has in another shape")]
    Tensor(String),
    /// A tensor cannot be made.
    #[error(transparent)]
    Make(#[from] TensorError),
    /// The host could not write it.
    #[error("{0}")]
    Write(#[source] Box<dyn Error + Send + Sync>),
    /// It cannot be put into a file.
    #[error("{0}")]
    Form(String),
}

const STEP: &str = "step";
const ENGINE: &str = "engine";
const NETWORK: &str = "network";

/// The hash of all the rest.
const CONTENTS: &str = "contents";

/// The one entry of the header: what the run is about, a line each. Several entries would be written in any order.
const HEADER: &str = "run";

fn lines(entries: &BTreeMap<String, String>) -> String {
    entries.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
}

fn entries(lines: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned()));
    lines.lines().filter_map(pair).collect()
}

impl Manifest {
    /// That of a run over these samples.
    pub fn of(module: &Module, options: &TrainOptions, data: &dyn TrainingData) -> Self {
        let a = options.augment;
        let given = [
            ("seed", options.seed.to_string()),
            ("batch size", options.batch.to_string()),
            ("number of epochs", options.epochs.to_string()),
            ("number of samples", data.len().to_string()),
            ("data", format!("{:016x}", data.fingerprint())),
            ("augmentation", format!("crop {} flip {}", a.crop, a.flip)),
            (ENGINE, options.engine.clone()),
            (NETWORK, format!("{:016x}", fingerprint(module))),
        ];
        // A line each, the name up to the first colon.
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        let settings = options.settings.iter().map(|(k, v)| (line(k).replace(':', " "), line(v)));
        Self { entries: settings.chain(given.map(|(k, v)| (k.to_owned(), v))).collect() }
    }
}

/// A hash that is the same everywhere (FNV-1a).
#[derive(Clone, Copy, Debug)]
pub struct Fnv(u64);

impl Fnv {
    /// Of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Goes on with these bytes, and their end.
    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of a global that does not change that its fingerprint is of.
const SEEN: usize = 4096;

/// A number that differs for graphs that compute differently or keep other globals: operators, what they read,
/// attributes, types, names of globals. Contents count where they stay as they are (the beginning of each): checkpoints do not hold them.
fn fingerprint(module: &Module) -> u64 {
    let mut hash = Fnv::new();
    let words = |v| module.type_of(v).words(&|s| format!("{s:?}"));
    let train = train_graph(module);
    let stored: Vec<GlobalId> =
        train.into_iter().flat_map(|g| module.graph(g).updates()).map(|u| u.0).collect();
    for (id, global) in module.globals() {
        hash.add(module.str(global.name).as_bytes());
        hash.add(words(global.value).as_bytes());
        if let (false, Init::Data(data)) = (stored.contains(&id), &global.init)
            && let Some(bytes) = data.bytes()
        {
            hash.add(bytes.get(..SEEN).unwrap_or(bytes));
        }
    }
    // What is read: a global by its name, another value by its place in the order of the graph.
    let mut places: FxHashMap<ValueId, usize> = FxHashMap::default();
    let params = train.into_iter().flat_map(|g| module.graph(g).params().to_vec());
    places.extend(params.enumerate().map(|(i, v)| (v, i)));
    let read = |hash: &mut Fnv, places: &FxHashMap<ValueId, usize>, value: Option<ValueId>| match value
        .map(|v| (module.as_global(v), places.get(&v)))
    {
        Some((Some(global), _)) => hash.add(module.str(module.global(global).name).as_bytes()),
        Some((None, Some(place))) => hash.add(&place.to_le_bytes()),
        Some((None, None)) | None => hash.add(&[]),
    };
    for op in train.into_iter().flat_map(|g| module.ops_in(g)) {
        hash.add(module.op_name(op).as_bytes());
        module.op(op).operands().for_each(|v| read(&mut hash, &places, v));
        for &value in module.op(op).results().iter().filter(|v| !v.is_none()) {
            places.insert(value, places.len());
        }
        for (name, attr) in module.attrs_of(op).iter() {
            hash.add(name.as_bytes());
            hash.add(format!("{attr:?}").as_bytes());
        }
        module.op(op).results().iter().filter(|v| !v.is_none()).for_each(|&v| hash.add(words(v).as_bytes()));
    }
    if let Some(graph) = train {
        module.graph(graph).results().for_each(|v| read(&mut hash, &places, Some(v)));
        for (global, value) in module.graph(graph).updates() {
            hash.add(module.str(module.global(global).name).as_bytes());
            read(&mut hash, &places, Some(value));
        }
    }
    hash.value()
}

impl Checkpoint {
    pub(super) fn of(
        manifest: &Manifest,
        step: u64,
        contents: &BTreeMap<GlobalId, Tensor>,
        module: &Module,
    ) -> Self {
        let named =
            |(id, t): (&GlobalId, &Tensor)| (module.str(module.global(*id).name).to_owned(), t.clone());
        Self {
            step,
            entries: manifest.entries.iter().cloned().collect(),
            contents: contents.iter().map(named).collect(),
        }
    }

    /// Whether a run over these samples can go on from here. Hosts ask before they write anything.
    ///
    /// # Errors
    /// What is other than it was, or a tensor that has no place.
    pub fn check(
        &self,
        module: &Module,
        options: &TrainOptions,
        data: &dyn TrainingData,
    ) -> Result<(), CheckpointError> {
        self.fits(&Manifest::of(module, options, data))?;
        self.contents(module).map(drop)
    }

    /// Whether it belongs to this run.
    pub(super) fn fits(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let differs = |(key, wanted): &(String, String)| {
            let found = self.entries.get(key).map_or("not said", String::as_str);
            (found != wanted).then(|| Difference {
                key: key.clone(),
                found: found.to_owned(),
                wanted: wanted.clone(),
            })
        };
        let mut differences: Vec<Difference> = manifest.entries.iter().filter_map(differs).collect();
        // Most settings make another graph of a step, which says less than they do.
        if differences.len() > 1 {
            differences.retain(|d| d.key != NETWORK);
        }
        if differences.is_empty() { Ok(()) } else { Err(CheckpointError::Other { differences }) }
    }

    /// Its tensors by global.
    pub(super) fn contents(&self, module: &Module) -> Result<Vec<(GlobalId, Tensor)>, CheckpointError> {
        let place = |(name, tensor): (&String, &Tensor)| {
            let id = module.global_named(name).filter(|&id| {
                let ty = module.ty(module.global(id).ty).as_tensor();
                let dims: Vec<i64> = tensor.dims().iter().map(|&d| d as i64).collect();
                ty.is_some_and(|t| t.elem == tensor.elem() && t.const_dims() == Some(dims))
            });
            id.map(|id| (id, tensor.clone())).ok_or_else(|| CheckpointError::Tensor(name.clone()))
        };
        self.contents.iter().map(place).collect()
    }

    /// As the bytes of a safetensors file.
    ///
    /// # Errors
    /// Element types that such files do not have.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut entries = self.entries.clone();
        entries.insert(STEP.to_owned(), self.step.to_string());
        let mut literals: Vec<(&String, Dtype, Vec<usize>, Literal)> = Vec::new();
        for (name, tensor) in &self.contents {
            let dtype = dtype(tensor.elem()).ok_or_else(|| {
                CheckpointError::Form(format!("`{name}` is {}, which checkpoints do not hold", tensor.elem()))
            })?;
            literals.push((name, dtype, tensor.dims().to_vec(), tensor.literal()));
        }
        let mut views = BTreeMap::new();
        for (name, dtype, dims, literal) in &literals {
            let bytes = literal.data.bytes().map_or(&[][..], |b| &b[..]);
            let view = TensorView::new(*dtype, dims.clone(), bytes);
            views.insert(name.as_str(), view.map_err(|e| CheckpointError::Form(e.to_string()))?);
        }
        let hash = hash(&entries, &views);
        entries.insert(CONTENTS.to_owned(), hash);
        let header = HashMap::from([(HEADER.to_owned(), lines(&entries))]);
        safetensors::serialize(views, Some(header)).map_err(|e| CheckpointError::Form(e.to_string()))
    }

    /// Reads the bytes of a safetensors file.
    ///
    /// # Errors
    /// Bytes that are no checkpoint.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = |e: safetensors::SafeTensorError| CheckpointError::Damaged(e.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(HEADER));
        let mut entries = header.map(|h| entries(h)).unwrap_or_default();
        let step = entries.get(STEP).and_then(|s| s.parse().ok());
        let step = step.ok_or_else(|| CheckpointError::Damaged("it does not say its step".to_owned()))?;
        let written = entries.remove(CONTENTS);
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let tensors = file.tensors();
        let views = tensors.iter().map(|(name, view)| (name.as_str(), view.clone())).collect();
        if written != Some(hash(&entries, &views)) {
            return Err(CheckpointError::Damaged("it does not hold what was written".to_owned()));
        }
        let mut contents = BTreeMap::new();
        for (name, view) in tensors {
            let elem = [ElemType::F32, ElemType::I64, ElemType::F64, ElemType::I32]
                .into_iter()
                .find(|&e| dtype(e) == Some(view.dtype()))
                .ok_or_else(|| CheckpointError::Tensor(name.clone()))?;
            let dims: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
            let literal = Literal::new(elem, dims, view.data().to_vec());
            contents.insert(name, Tensor::from_literal(&literal)?);
        }
        Ok(Self { step, entries, contents })
    }
}

/// A hash of all that a checkpoint holds.
fn hash(entries: &BTreeMap<String, String>, tensors: &BTreeMap<&str, TensorView<'_>>) -> String {
    let mut hash = Fnv::new();
    hash.add(lines(entries).as_bytes());
    for (name, view) in tensors {
        hash.add(name.as_bytes());
        hash.add(format!("{:?} {:?}", view.dtype(), view.shape()).as_bytes());
        hash.add(view.data());
    }
    format!("{:016x}", hash.value())
}

fn dtype(elem: ElemType) -> Option<Dtype> {
    match elem {
        ElemType::F32 => Some(Dtype::F32),
        ElemType::F64 => Some(Dtype::F64),
        ElemType::I64 => Some(Dtype::I64),
        ElemType::I32 => Some(Dtype::I32),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> u64 {
        let text = format!(
            "gsir 1\nparam @a : f32[2] = splat(1.0)\nparam @b : f32[2] = splat(1.0)\n\
             graph @train(%x : f32[2], %y : f32[2]) -> (%loss : f32[]) {{\n{body}  return %l\n}}\n"
        );
        let registry = gs_ir::registry::Registry::builtin();
        fingerprint(&gs_text::parse_module(&text, None, &registry).expect("a module"))
    }

    const SUM: &str = "  %l = reduce_sum(%d) {keepdims = false} : f32[]\n";

    #[test]
    fn what_operations_read_counts() {
        let of = |line: &str| of(&format!("{line}{SUM}"));
        let lines = [
            "  %d = sub(%x, %y) : f32[2]\n",
            "  %d = sub(%y, %x) : f32[2]\n",
            "  %d = sub(%x, @a) : f32[2]\n",
            "  %d = sub(%x, @b) : f32[2]\n",
        ];
        for (i, a) in lines.iter().enumerate() {
            for b in &lines[..i] {
                assert_ne!(of(a), of(b), "{a}{b}");
            }
        }
    }
}
