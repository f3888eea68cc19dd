//! Compression algorithms, and what they share: observers, calibration, freezing, deployment, targets, the ledger.
//!
//! This crate runs no network: what must be run (calibration) is handed an [`gs_eval::Executor`]. It knows
//! nothing of files, threads or training loops.

pub mod algorithm;
pub mod calibrate;
pub mod callback;
pub mod deploy;
pub mod distillation;
pub mod freeze;
pub mod groups;
mod kept;
pub mod learned;
pub mod ledger;
pub mod lsq;
pub mod moment;
pub mod observe;
pub mod observers;
pub mod pact;
pub mod passes;
pub mod placement;
pub mod prune;
pub mod quant;
pub mod quantisers;
pub mod recalibrate;
pub mod rules;
pub mod selector;
pub mod simqat;
pub mod slb;
pub mod targets;
