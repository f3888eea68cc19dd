//! What people call an operation of `@train`: its copies of `@main` have no source names (the ledger counts what `@main`
//! does), so that they are found again in `@main`.

use gs_ir::{GraphId, Module, OpId, Use, ValueId};
use gs_passes::training::train_graph;
use rustc_hash::FxHashMap;

/// The operation that makes a value of `@train`, in words.
pub(super) fn named(module: &Module, value: ValueId) -> Option<String> {
    let op = module.producer(value)?;
    let kind = module.op_name(op);
    if let Some(original) = original(module, op) {
        return Some(format!("{kind} \"{}\"", module.label(original)));
    }
    // What no network has: the loss, the way back, the optimiser.
    let name = module.value(value).name.some().map_or("", |n| module.str(n));
    Some(if name.is_empty() { format!("{kind} of @train") } else { format!("{kind} %{name} of @train") })
}

/// The operation of `@main` that one of `@train` is the copy of.
fn original(module: &Module, wanted: OpId) -> Option<OpId> {
    let (main, train) = (module.main()?, train_graph(module)?);
    let mut copies: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    for &param in module.graph(main).params() {
        let name = |v: ValueId| module.value(v).name;
        copies.extend(
            module.graph(train).params().iter().find(|&&p| name(p) == name(param)).map(|&p| (param, p)),
        );
    }
    for op in module.ops_in(main) {
        let Some(copy) = copy(module, train, op, &copies) else { continue };
        if copy == wanted {
            return Some(op);
        }
        let pairs = module.op(op).results().iter().zip(module.op(copy).results());
        copies.extend(pairs.filter(|(a, b)| !a.is_none() && !b.is_none()).map(|(&a, &b)| (a, b)));
    }
    None
}

/// The copy of an operation: of its kind, or what trains in place of that kind, with most operands that are copies of
/// its own. Not all need be: ranges that follow training are read from what was made of them in the step.
fn copy(module: &Module, train: GraphId, op: OpId, copies: &FxHashMap<ValueId, ValueId>) -> Option<OpId> {
    let here = |v: ValueId| if module.as_global(v).is_some() { Some(v) } else { copies.get(&v).copied() };
    let kind = module.op_name(op);
    let alike = |other: OpId| {
        let suffix = module.op_name(other).strip_prefix(kind);
        module.op(other).graph == train && matches!(suffix, Some("" | "_train"))
    };
    let mut equal: Vec<(OpId, usize)> = Vec::new();
    for (i, operand) in module.op(op).operands().enumerate() {
        for u in operand.and_then(here).into_iter().flat_map(|v| module.value(v).uses()) {
            let Use::Operand(other, at) = *u else { continue };
            if at as usize != i || !alike(other) {
                continue;
            }
            match equal.iter_mut().find(|e| e.0 == other) {
                Some(entry) => entry.1 += 1,
                None => equal.push((other, 1)),
            }
        }
    }
    let most = equal.iter().map(|e| e.1).max()?;
    equal.into_iter().find(|e| e.1 == most).map(|e| e.0)
}
