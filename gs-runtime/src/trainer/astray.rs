//! What made a loss no number: the data, or an operation.

use super::{Pick, place};
use gs_eval::{Executor, Tensor, TensorSpec};
use gs_ir::{GlobalId, GraphId, Module, ValueId};
use std::collections::BTreeMap;

/// The first input of a step that holds a number that is not finite, and the number of the sample that it is of.
pub(super) fn in_data(names: &[String], inputs: &[Tensor], picks: &[Pick]) -> Option<(String, usize)> {
    names.iter().zip(inputs).find_map(|(name, tensor)| {
        let values = tensor.to_f64s().filter(|_| tensor.elem().is_float())?;
        let at = values.iter().position(|v| !v.is_finite())?;
        let of_sample = values.len() / picks.len().max(1);
        picks.get(at / of_sample.max(1)).map(|pick| (name.clone(), pick.index))
    })
}

/// Where the first number that is not finite comes from: the step is run again with every value watched.
pub(super) fn first(
    executor: &dyn Executor,
    module: &Module,
    contents: BTreeMap<GlobalId, Tensor>,
    train: GraphId,
    inputs: &[Tensor],
) -> Option<String> {
    let specs: Vec<TensorSpec> = inputs.iter().map(TensorSpec::of).collect();
    let values: Vec<ValueId> = module
        .ops_in(train)
        .flat_map(|op| module.op(op).results().to_vec())
        .filter(|v| !v.is_none())
        .collect();
    let mut plan = executor.prepare(module, train, &specs, &values).ok()?;
    let contents: Vec<(GlobalId, Tensor)> = contents.into_iter().collect();
    plan.set_globals(&contents).ok()?;
    let mut astray = Vec::new();
    // It may fail once numbers are astray; what was seen before counts.
    let _ = plan.run(inputs, &mut |value, view| {
        let finite =
            view.to_tensor().ok().and_then(|t| t.to_f64s()).is_none_or(|v| v.iter().all(|x| x.is_finite()));
        if !finite {
            astray.push(value);
        }
    });
    let first = values.into_iter().find(|v| astray.contains(v))?;
    place::named(module, first)
}
