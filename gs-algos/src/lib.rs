//! Compression algorithms: observers, SimQAT, freeze, deploy, targets

pub mod quant;
