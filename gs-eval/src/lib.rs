//! The reference evaluator: clear loops, the oracle for everything else.
//!
//! - [`Executor`], [`Plan`], [`DataSource`]: what passes and algorithms are handed to run a network. The evaluator
//!   implements them slowly, the runtime fast.
//! - [`Evaluator`]: computes what every declared operator means ([`ops`]), floats in f64 rounded once per operation,
//!   integers exactly, quantised operators with the [`Arithmetic`] that a target names.
//! - [`Materializer`]: the contents of globals, derived ones included.
//! - [`Tensor`]: typed elements in memory, to and from the packed bytes of files.

pub mod arith;
mod bind;
pub mod data;
mod evaluator;
mod exec;
mod materialize;
pub mod minifloat;
pub mod ops;
mod packed;
mod plan;
pub mod quant;
pub mod random;
mod run;
mod schedule;
mod single;
mod stream;
mod tensor;
mod view;

pub use arith::{Arithmetic, Requant, Rounding};
pub use bind::{Bindings, bind_inputs};
pub use data::{DataError, DataSource, Field, InMemory};
pub use evaluator::{CustomFn, Evaluator, Precision};
pub use exec::{ContentsError, ExecError, Executor, Plan, RunOutput, Tap, TensorSpec, describe};
pub use materialize::{Materializer, materialize};
pub use ops::{EvalFn, OpCtx, OpError};
pub use packed::extents;
pub use schedule::{makes_any, reads};
pub use single::OpPlan;
pub use stream::{Stream, StreamEnd, StreamError, fixed_batch};
pub use tensor::{Storage, Tensor, TensorError, count};
pub use view::{Elements, TensorView};
