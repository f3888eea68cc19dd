//! `grad`: extends `@train` by the operations that compute the gradients of its loss by all trainable parameters.

use super::train_graph;
use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use crate::passes::GRAD_RULES;
use crate::rules::{Gradients, RuleFunctions, RuleSet};
use gs_ir::{At, AttrSet, ElemType, GlobalId, GraphId, Module, OpId, Phase, Rewriter, Role, ValueId};
use gs_text::{SourceMap, Style, render_all};
use rustc_hash::{FxHashMap, FxHashSet};

/// A gradient is a result of `@train` under this prefix and the name of its parameter.
pub const GRADIENT_PREFIX: &str = "grad.";

/// The pass `grad`.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grad {}

pub(super) static INFO: PassInfo = PassInfo {
    name: "grad",
    doc: "extend @train by the gradients of its loss; batch normalisation takes the statistics of the batch",
    options: &[],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: None,
};

impl Pass for Grad {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let train = train_graph(module).ok_or("there is no graph @train; run `loss` first")?;
        let rules = RuleSet::parse("grad", GRAD_RULES, module.registry(), &RuleFunctions::builtin())
            .map_err(|d| render_all(&d, &SourceMap::single("grad", GRAD_RULES), Style::Plain))?;
        let loss = module.graph(train).results().next().ok_or("@train has no result")?;
        if module.type_of(loss).as_tensor().is_none_or(|t| t.count() != Some(1) || !t.elem.is_float()) {
            return Err("the first result of @train, the loss, must be one number".into());
        }
        let norms = train_batch_norms(module, train, None)?;
        let mut rewriter = Rewriter::new(module);
        let gradients = backward(&mut rewriter, train, loss, &Gradients::of([&rules]))?;
        if gradients.is_empty() {
            return Err(nothing_to_train(&rewriter).into());
        }
        for (global, gradient) in &gradients {
            let name = format!("{GRADIENT_PREFIX}{}", rewriter.str(rewriter.global(*global).name));
            rewriter.add_result(train, &name, *gradient, None);
        }
        for (_, global) in rewriter.globals().filter(|(_, g)| g.trainable) {
            let name = rewriter.str(global.name);
            if !gradients.iter().any(|(g, _)| rewriter.global(*g).name == global.name) {
                context.remark("grad", name, "the loss does not depend on it");
            }
        }
        super::tidy(module, train);
        Ok(PassReport::counting([("gradients", gradients.len()), ("batch normalisations trained", norms)]))
    }
}

/// Why there is no gradient at all.
fn nothing_to_train(module: &Module) -> String {
    let trainable: Vec<&str> =
        module.globals().filter(|(_, g)| g.trainable).map(|(_, g)| module.str(g.name)).collect();
    match trainable[..] {
        [] => "there are no parameters to train: no layer of the network has float weights".to_owned(),
        [first, ..] => format!(
            "there is nothing to train: the loss depends on none of the {} parameters (such as @{first})",
            trainable.len()
        ),
    }
}

/// Replaces batch normalisations whose scale is trainable by the form with the batch's statistics, which the graph
/// stores; their running statistics become states. Where the truth value `frozen` holds, these are used and stay as they
/// are. Returns how many. `grad` does so with those that are left.
///
/// # Errors
/// Where two batch normalisations have the same statistics.
pub fn train_batch_norms(
    module: &mut Module,
    train: GraphId,
    frozen: Option<ValueId>,
) -> Result<usize, PassError> {
    let kind = module.registry().kind("batch_norm_train").ok_or("there is no `batch_norm_train`")?;
    let mut rewriter = Rewriter::new(module);
    let ops: Vec<OpId> = rewriter.ops_in(train).filter(|&op| rewriter.is(op, "batch_norm")).collect();
    let (mut done, mut stored) = (0, FxHashSet::default());
    for op in ops {
        let mut operands: Vec<Option<ValueId>> = rewriter.op(op).operands().collect();
        let global = |i: usize| operands.get(i).copied().flatten().and_then(|v| rewriter.as_global(v));
        let (Some(scale), Some(mean), Some(var)) = (global(1), global(3), global(4)) else { continue };
        if !rewriter.global(scale).trainable {
            continue;
        }
        for statistic in [mean, var] {
            let name = rewriter.str(rewriter.global(statistic).name).to_owned();
            if !stored.insert(statistic) {
                return Err(format!("the statistics @{name} belong to two batch normalisations").into());
            }
            rewriter.set_role(statistic, Role::State, false);
        }
        operands.extend(frozen.map(Some));
        let attrs = rewriter.attrs_of(op).clone();
        let new = rewriter.create(kind, &operands, attrs, 5, At::Before(op))?;
        let results = rewriter.op(new).results().to_vec();
        let old = rewriter.op(op).result();
        rewriter.replace_uses(old, results[0]);
        rewriter.erase(op);
        rewriter.set_update(train, mean, results[1]);
        rewriter.set_update(train, var, results[2]);
        done += 1;
    }
    Ok(done)
}

/// Adds the backward operations; the gradient of each trainable global that the loss depends on, in the order of the
/// globals.
fn backward(
    rewriter: &mut Rewriter<'_>,
    train: GraphId,
    loss: ValueId,
    rules: &Gradients<'_>,
) -> Result<Vec<(GlobalId, ValueId)>, PassError> {
    let ops: Vec<OpId> = rewriter.ops_in(train).collect();
    let active = active(rewriter, &ops);
    let elem = rewriter.type_of(loss).elem().unwrap_or(ElemType::F32);
    let one = super::number(rewriter, elem, 1.0)?;
    let mut parts: FxHashMap<ValueId, Vec<ValueId>> = FxHashMap::default();
    parts.entry(loss).or_default().push(one);
    let mut without = Vec::new();
    for op in ops.into_iter().rev() {
        let results = rewriter.op(op).results().to_vec();
        let mut given = Vec::with_capacity(results.len());
        for r in &results {
            let sum = match parts.get(r) {
                Some(all) => Some(total(rewriter, train, all)?),
                None => None,
            };
            given.push(sum);
        }
        let feeds = rewriter.op(op).present_operands().any(|v| active.contains(&v));
        if given.iter().all(Option::is_none) || !feeds {
            continue;
        }
        match rules.derive(rewriter, op, &given, &|v| active.contains(&v), At::End(train)) {
            Ok(pairs) => pairs.into_iter().for_each(|(v, g)| parts.entry(v).or_default().push(g)),
            Err(reason) => {
                // Copies stand for no source node; their results are named as those of the originals.
                let name = results.first().and_then(|r| r.some()).and_then(|r| rewriter.value(r).name.some());
                let name = name.map_or(rewriter.label(op), |n| rewriter.str(n));
                without.push(format!("{} \"{name}\": {reason}", rewriter.op_name(op)));
            }
        }
    }
    if !without.is_empty() {
        without.reverse();
        return Err(format!("no gradient of:\n  {}", without.join("\n  ")).into());
    }
    let trainable: Vec<(GlobalId, ValueId)> =
        rewriter.globals().filter(|(_, g)| g.trainable).map(|(id, g)| (id, g.value)).collect();
    let mut out = Vec::new();
    for (id, value) in trainable {
        if let Some(all) = parts.get(&value) {
            out.push((id, total(rewriter, train, &all.clone())?));
        }
    }
    Ok(out)
}

/// The values that depend on a trainable global.
fn active(module: &Module, ops: &[OpId]) -> FxHashSet<ValueId> {
    let mut active: FxHashSet<ValueId> =
        module.globals().filter(|(_, g)| g.trainable).map(|(_, g)| g.value).collect();
    let float = |v: ValueId| module.type_of(v).elem().is_some_and(ElemType::is_float);
    for &op in ops {
        if module.op(op).present_operands().any(|v| active.contains(&v)) {
            active.extend(module.op(op).results().iter().filter_map(|v| v.some()).filter(|v| float(*v)));
        }
    }
    active
}

/// The sum of the gradients that reach a value, in the order in which they came.
fn total(rewriter: &mut Rewriter<'_>, train: GraphId, parts: &[ValueId]) -> Result<ValueId, PassError> {
    let mut parts = parts.iter().copied();
    let mut sum = parts.next().ok_or("a gradient has no parts")?;
    for part in parts {
        sum = rewriter.emit("add", &[sum, part], AttrSet::new(), At::End(train))?;
    }
    Ok(sum)
}
