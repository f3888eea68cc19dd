//! `infer`: the types of all values, from the declarations of their operators.

use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_ir::{Module, Phase, infer_module};
use thiserror::Error;

/// The pass `infer`.
pub struct Infer;

/// Operations whose operands do not fit.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
struct Misfits(Vec<String>);

impl Pass for Infer {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "infer",
            doc: "infer the types of all values",
            options: &[],
            accepts: &Phase::ALL,
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let misfits = infer_module(module);
        if misfits.is_empty() {
            return Ok(PassReport::default());
        }
        let describe = |m: &gs_ir::infer::Misfit| {
            format!("{} \"{}\": {}", module.op_name(m.op), module.label(m.op), m.error)
        };
        Err(Box::new(Misfits(misfits.iter().map(describe).collect())))
    }
}
