//! What it means to run a module: the traits that the reference evaluator implements slowly and the runtime fast.
//!
//! Running has two steps. [`Executor::prepare`] makes a [`Plan`] for one graph and one set of input extents; the
//! plan then runs any number of batches. Values in the middle of the network are watched by *taps*: the plan calls
//! back with a borrowed view as soon as such a value is computed, so that nothing is copied or kept.

use crate::ops::OpError;
use crate::tensor::{Tensor, TensorError};
use crate::view::TensorView;
use gs_ir::{Dim, ElemType, GlobalId, GraphId, Module, Type, ValueId};
use thiserror::Error;

/// Element type and extents of a concrete tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Type of the elements.
    pub elem: ElemType,
    /// The extents.
    pub dims: Vec<usize>,
}

impl TensorSpec {
    /// That of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self { elem: tensor.elem(), dims: tensor.dims().to_vec() }
    }
}

impl std::fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.dims.iter().map(usize::to_string).collect();
        write!(f, "{}[{}]", self.elem, dims.join(", "))
    }
}

/// What one run gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunOutput {
    /// The graph's results, in order.
    pub results: Vec<Tensor>,
    /// The tapped values in the order in which they were asked for, each as it was computed last. Only
    /// [`Executor::run`] fills this; a plan hands taps to its callback instead.
    pub taps: Vec<Tensor>,
    /// What the graph stores to globals at its end. Nothing is written by the run itself.
    pub updates: Vec<(GlobalId, Tensor)>,
}

/// Receives a tapped value. In the body of a loop it is called once per turn.
pub type Tap<'t> = dyn FnMut(ValueId, TensorView<'_>) + 't;

/// Something that can run modules.
pub trait Executor: Send + Sync {
    /// Makes a plan for one graph, inputs of these extents and these tapped values. Globals are read now: a plan
    /// does not see later changes of the module, except through [`Plan::set_globals`].
    ///
    /// # Errors
    /// Where inputs do not fit the graph's declared ones, an operation cannot be run, or contents are missing.
    fn prepare<'a>(
        &'a self,
        module: &'a Module,
        graph: GraphId,
        inputs: &[TensorSpec],
        taps: &[ValueId],
    ) -> Result<Box<dyn Plan + 'a>, ExecError>;

    /// Prepares and runs one batch, with copies of the tapped values.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`Plan::run`]; a tap on a value that is never computed is one too.
    fn run(
        &self,
        module: &Module,
        graph: GraphId,
        inputs: &[Tensor],
        taps: &[ValueId],
    ) -> Result<RunOutput, ExecError> {
        let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
        let mut plan = self.prepare(module, graph, &specs, taps)?;
        let mut seen: Vec<Option<Tensor>> = vec![None; taps.len()];
        let mut output = plan.run(inputs, &mut |value, view| {
            for (slot, _) in seen.iter_mut().zip(taps).filter(|(_, t)| **t == value) {
                *slot = view.to_tensor().ok();
            }
        })?;
        for (slot, &value) in seen.into_iter().zip(taps) {
            output.taps.push(slot.ok_or(ExecError::Tap(value))?);
        }
        Ok(output)
    }
}

/// A graph made ready for inputs of certain extents.
pub trait Plan: Send {
    /// Runs one batch. `tap` is called for each tapped value when it is computed.
    ///
    /// # Errors
    /// Where the inputs are not those that the plan was made for, or an operation fails on these values.
    fn run(&mut self, inputs: &[Tensor], tap: &mut Tap<'_>) -> Result<RunOutput, ExecError>;

    /// Lets the following runs read other contents of globals (states that were updated, weights that are being trained
    /// or tried out). What is derived from them follows, except where it was set itself. The module is not changed.
    /// Globals that the graph does not read make no difference.
    ///
    /// # Errors
    /// Where contents are not of their global's element type and extents; then none of them is set. What cannot be
    /// derived from the new contents is an error of the next run.
    fn set_globals(&mut self, contents: &[(GlobalId, Tensor)]) -> Result<(), ExecError>;

    /// As [`Self::set_globals`], for one.
    ///
    /// # Errors
    /// As [`Self::set_globals`].
    fn set_global(&mut self, global: GlobalId, contents: &Tensor) -> Result<(), ExecError> {
        self.set_globals(&[(global, contents.clone())])
    }
}

/// Why a module could not be run.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ExecError {
    /// The handle is not that of a live graph.
    #[error("there is no such graph")]
    Graph,
    /// Another number of inputs than the graph has.
    #[error("the graph has {expected} inputs, {found} were given")]
    InputCount {
        /// Inputs of the graph.
        expected: usize,
        /// Inputs given.
        found: usize,
    },
    /// An input is not of its declared type.
    #[error("input `{name}` must be {expected}, found {found}")]
    Input {
        /// Name of the input, or its position.
        name: String,
        /// The declared type.
        expected: String,
        /// The type of the tensor given.
        found: TensorSpec,
    },
    /// A named dimension stands for two different numbers.
    #[error("`{value}` makes dimension `{symbol}` {second}, elsewhere it is {first}")]
    Symbol {
        /// The dimension.
        symbol: String,
        /// What it was bound to first.
        first: i64,
        /// What it would be here.
        second: i64,
        /// The input or result that contradicts.
        value: String,
    },
    /// An input or a global is larger than the executor's limit.
    #[error("a tensor of extents {0:?} is larger than the limit")]
    TooLarge(Vec<usize>),
    /// A tap on a value that the graph does not compute.
    #[error("value {0:?} was to be watched, but the graph does not compute it")]
    Tap(ValueId),
    /// The contents of a global cannot be made.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// An operation has no evaluation here.
    #[error("there is no evaluation for the operation `{op}` ({label})")]
    Unsupported {
        /// Name of the operator (of an opaque one, that of its own world).
        op: String,
        /// Its first source name.
        label: String,
    },
    /// An operation failed.
    #[error("{op} ({label}): {error}")]
    Op {
        /// Name of the operator.
        op: String,
        /// Its first source name.
        label: String,
        /// What is wrong.
        error: Box<OpError>,
    },
    /// An operation computed something else than the type in the module says.
    #[error("{op} ({label}): result {index} is declared {expected}, computed was {found}")]
    Result {
        /// Name of the operator.
        op: String,
        /// Its first source name.
        label: String,
        /// Position of the result.
        index: usize,
        /// The type that the module states.
        expected: String,
        /// What was computed.
        found: TensorSpec,
    },
    /// A value is used before it is computed.
    #[error("value {0:?} is used before it is computed")]
    Undefined(ValueId),
    /// Regions are nested too deeply.
    #[error("regions are nested more than {0} deep")]
    Depth(usize),
    /// Something that only one executor knows of.
    #[error("{0}")]
    Backend(String),
}

/// Why the contents of a global could not be made.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ContentsError {
    /// They were deliberately not loaded.
    #[error("the contents of `{0}` were not loaded")]
    Absent(String),
    /// Its type does not say how large it is.
    #[error("the type of `{0}` has no fixed extents")]
    Type(String),
    /// Type and contents do not fit.
    #[error("`{global}`: {error}")]
    Tensor {
        /// The global.
        global: String,
        /// What is wrong.
        error: TensorError,
    },
    /// It is derived by an operation that failed, or that has no evaluation (`None`).
    #[error("`{global}` is derived by {op}: {}", .error.as_ref().map_or("it has no evaluation".to_owned(), |e| e.to_string()))]
    Derived {
        /// The global.
        global: String,
        /// Name of the operator.
        op: String,
        /// What is wrong.
        error: Option<Box<OpError>>,
    },
    /// Making it would take more memory than was allowed.
    #[error(
        "`{global}` takes {bytes} bytes with what it is made from, more than the {limit} that are allowed"
    )]
    Memory {
        /// The global.
        global: String,
        /// Bytes that would be held at once.
        bytes: usize,
        /// The limit: see `Materializer::with_byte_limit`.
        limit: usize,
    },
    /// It is derived from itself.
    #[error("`{0}` is derived from itself")]
    Cycle(String),
    /// It is derived from a global that was removed.
    #[error("`{0}` is derived from a global that does not exist")]
    Dangling(String),
}

/// A type in words, for messages: `f32[N, 3, ?]`.
pub fn describe(module: &Module, ty: &Type) -> String {
    let Type::Tensor(t) = ty else {
        return match ty {
            Type::Any => "a value of unknown type".into(),
            _ => "no tensor".into(),
        };
    };
    let Some(dims) = t.dims() else { return format!("{}[...]", t.elem) };
    let dims: Vec<String> = dims.iter().map(|d| describe_dim(module, d)).collect();
    format!("{}[{}]", t.elem, dims.join(", "))
}

fn describe_dim(module: &Module, dim: &Dim) -> String {
    if let Some(n) = dim.as_const() {
        return n.to_string();
    }
    let name = dim.as_symbol().and_then(|s| module.symbol_info(s).name);
    name.map_or_else(|| "?".to_owned(), |n| module.str(n).to_owned())
}
