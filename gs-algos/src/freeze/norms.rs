//! Batch normalisation behind quantised weights. It was trained beside them; now it becomes part of them: the rules of
//! `fold-bn` multiply scales by its factors and leave codes alone, so what is deployed is what was trained.

use super::FreezeError;
use crate::quantisers::FakeQuant;
use gs_eval::Materializer;
use gs_ir::{GlobalId, InferError, Module, OpId, Rewriter, Use, ValueId};
use gs_passes::grid::weight_only;
use gs_passes::manager::PassContext;
use gs_passes::passes::fold_batch_norms;

/// A batch normalisation that alone reads what a layer with a quantised weight computes.
pub(super) struct Norm {
    op: OpId,
    layer: OpId,
}

/// The batch normalisations that are to become part of a quantised weight.
///
/// # Errors
/// One whose folding would change codes: the grid of the weight is not symmetric, or it has a code without a negative
/// while a factor is negative.
pub(super) fn norms(module: &Module, quantisers: &[FakeQuant]) -> Result<Vec<Norm>, FreezeError> {
    let mut found = Vec::new();
    let mut materializer = Materializer::new(module);
    for quantiser in quantisers.iter().filter(|q| q.weight) {
        for layer in module.user_ops(module.op(quantiser.op).result()) {
            let Some(op) = reader(module, layer) else { continue };
            let norm = Norm { op, layer };
            let (int, symmetric) = (quantiser.grid.int, quantiser.grid.symmetric);
            if !symmetric || int.symmetric_zero_point() != 0 {
                return Err(norm.refused(module, "whose weight has a grid with a zero point"));
            }
            if int.qmin() + int.qmax() != 0 && has_negative(module, &mut materializer, op)? {
                return Err(norm.refused(
                    module,
                    "one of its factors is negative, and the least code of the weight has no negative",
                ));
            }
            found.push(norm);
        }
    }
    Ok(found)
}

impl Norm {
    fn refused(&self, module: &Module, why: &'static str) -> FreezeError {
        let (name, layer) = (module.label(self.op).to_owned(), module.label(self.layer).to_owned());
        FreezeError::BatchNorm { name, layer, why }
    }
}

/// The batch normalisation that alone reads the result of a layer.
fn reader(module: &Module, layer: OpId) -> Option<OpId> {
    match module.only_use(module.op(layer).results().first()?.some()?) {
        Some(Use::Operand(op, 0)) if module.is(op, "batch_norm") => Some(op),
        _ => None,
    }
}

/// Whether a factor of a batch normalisation is negative.
fn has_negative(module: &Module, materializer: &mut Materializer<'_>, op: OpId) -> Result<bool, FreezeError> {
    let Some(factors) = module.op(op).operand(1).and_then(|v| module.as_global(v)) else { return Ok(false) };
    Ok(materializer.tensor(factors)?.to_f64s().unwrap_or_default().iter().any(|f| *f < 0.0))
}

/// Folds them, once their weights are frozen.
///
/// # Errors
/// One that the rules do not fold.
pub(super) fn fold(module: &mut Module, norms: &[Norm]) -> Result<(), FreezeError> {
    // Those of layers in float are folded too.
    if !module.all_ops().into_iter().any(|op| module.is(op, "batch_norm")) {
        return Ok(());
    }
    fold_batch_norms(module, None, &mut PassContext::default())
        .map_err(|e| FreezeError::Rules(e.to_string()))?;
    for norm in norms {
        let op = module.op(norm.op);
        if op.is_live() && module.is(norm.op, "batch_norm") && reader(module, norm.layer) == Some(norm.op) {
            return Err(norm.refused(module, "no rule folds it"));
        }
    }
    settle(module)
}

/// Makes globals of weights, and of their scales, that are still computed by operations.
fn settle(module: &mut Module) -> Result<(), FreezeError> {
    let mut rewriter = Rewriter::new(module);
    for op in rewriter.all_ops() {
        if !rewriter.is(op, "qdq") {
            continue;
        }
        for (place, value) in rewriter.op(op).operands().enumerate().collect::<Vec<_>>() {
            let Some(value) = value.filter(|&v| rewriter.as_global(v).is_none()) else { continue };
            if weight_only(&rewriter, value)
                && let Some(global) = derived(&mut rewriter, value)?
            {
                let value = rewriter.global(global).value;
                rewriter.set_operand(op, place, Some(value));
            }
        }
    }
    // Only now that grids are constants is the network frozen, and what is computed from parameters a constant: biases.
    gs_passes::passes::fold_constants(module);
    gs_passes::passes::remove_dead(module);
    Ok(())
}

/// The value as a global that is derived from others.
fn derived(rewriter: &mut Rewriter<'_>, value: ValueId) -> Result<Option<GlobalId>, InferError> {
    if let Some(global) = rewriter.as_global(value) {
        return Ok(Some(global));
    }
    let Some(op) = rewriter.producer(value).filter(|&op| rewriter.op(op).results().len() == 1) else {
        return Ok(None);
    };
    let mut operands = Vec::new();
    for operand in rewriter.op(op).operands().collect::<Vec<_>>() {
        let Some(operand) = operand else {
            operands.push(None);
            continue;
        };
        let Some(global) = derived(rewriter, operand)? else { return Ok(None) };
        operands.push(Some(global));
    }
    let of = operands.first().copied().flatten();
    let name = of.map_or("weight", |g| rewriter.str(rewriter.global(g).name)).to_owned();
    let (kind, attrs) = (rewriter.op(op).kind, rewriter.attrs_of(op).clone());
    rewriter.derive_global(&name, kind, attrs, &operands).map(Some)
}
