//! What SimQAT adds to `@train`: ranges that follow what is seen, and the moments at which quantisers begin, statistics
//! stay and ranges stay (algorithms, section 3.3). All of them depend on the one counter of steps, which is stored.

use super::SimQatConfig;
use crate::algorithm::RunLength;
use crate::learned::follow_while;
use crate::moment::{is_before, is_past};
use gs_ir::{At, AttrSet, GraphId, Module, OpId, Rewriter};
use gs_passes::manager::PassError;
use gs_passes::training::{train_batch_norms, train_graph};

/// Changes `@train`; see [`crate::algorithm::Algorithm::prepare_training`].
///
/// # Errors
/// Where there is no such graph, or an observer cannot follow training.
pub(super) fn prepare(
    config: &SimQatConfig,
    module: &mut Module,
    length: RunLength,
) -> Result<(), PassError> {
    let train = train_graph(module).ok_or("there is no graph @train; run `loss` first")?;
    let watching = match config.freeze_ranges.step(length) {
        Some(step) => Some(is_before(&mut Rewriter::new(module), train, step)?),
        None => None,
    };
    follow_while(module, config.observer, watching)?;
    if config.quant_delay > 0 && config.quant_delay >= length.steps {
        let (delay, steps) = (config.quant_delay, length.steps);
        return Err(
            format!("`quant_delay` = {delay}: training has {steps} steps, and would never quantise").into()
        );
    }
    if config.quant_delay > 0 {
        delay(&mut Rewriter::new(module), train, config.quant_delay)?;
    }
    if let Some(step) = config.freeze_bn.step(length)
        && module.ops_in(train).any(|op| module.is(op, "batch_norm"))
    {
        let frozen = is_past(&mut Rewriter::new(module), train, step)?;
        train_batch_norms(module, train, Some(frozen))?;
    }
    Ok(())
}

/// Lets quantisers pass on what they are given before a step.
fn delay(rewriter: &mut Rewriter<'_>, train: GraphId, step: u64) -> Result<(), PassError> {
    let quantisers: Vec<OpId> = rewriter.ops_in(train).filter(|&op| rewriter.is(op, "fake_quant")).collect();
    if quantisers.is_empty() {
        return Ok(());
    }
    let early = is_before(rewriter, train, step)?;
    for op in quantisers {
        let Some(x) = rewriter.op(op).operand(0) else { continue };
        let result = rewriter.op(op).result();
        let chosen = rewriter.emit("where", &[early, x, x], AttrSet::new(), At::After(op))?;
        rewriter.replace_uses(result, chosen);
        if let Some(choice) = rewriter.producer(chosen) {
            rewriter.set_operand(choice, 2, Some(result));
        }
    }
    Ok(())
}
