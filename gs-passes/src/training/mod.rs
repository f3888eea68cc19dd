//! Training as graphs. `loss` makes the graph `@train` from `@main`, whose operations it repeats and whose globals it
//! shares; `grad` extends it by the backward operations that the gradient rules name; `update` turns gradients into what
//! the graph stores. `@train` prints, verifies and is planned like any other graph. `@main` stays what is evaluated and
//! deployed, and alone decides the phase; what converts a network drops `@train` ([`drop_training`]).

mod copy;
mod grad;
mod group;
mod logits;
mod loss;
mod update;

pub use copy::copy_graph;
pub use grad::{GRADIENT_PREFIX, Grad, train_batch_norms};
pub use group::ParamGroup;
pub use logits::FinalSoftmax;
pub use loss::{LOSS, Loss, LossKind};
pub use update::{Optimiser, Schedule, Update};

use crate::manager::{PassError, PassRegistry, read_options};
use crate::rules::build::constant;
use crate::rules::contents::encode;
use gs_ir::{
    At, AttrSet, ElemType, GlobalId, GraphId, Init, Literal, Module, NewGlobal, OpId, Rewriter, Role, Type,
    ValueId,
};

/// Adds the passes of this folder.
pub(crate) fn register(registry: &mut PassRegistry) {
    registry.register(&loss::INFO, |o| Ok(Box::new(read_options::<Loss>(o)?)));
    registry.register(&grad::INFO, |o| Ok(Box::new(read_options::<Grad>(o)?)));
    registry.register(&update::INFO, |o| Ok(Box::new(read_options::<Update>(o)?)));
}

/// The name of the graph of a training step.
pub const TRAIN: &str = "train";

/// The graph of a training step, if there is one.
pub fn train_graph(module: &Module) -> Option<GraphId> {
    module.entries().iter().copied().find(|&g| module.str(module.graph(g).name) == TRAIN)
}

/// The name of the counter of steps.
const STEP: &str = "step";

/// How many steps were done before this one: a state that `@train` counts up. It is made where there is none yet.
///
/// # Errors
/// A global of that name which is something else.
pub fn step_counter(rewriter: &mut Rewriter<'_>, train: GraphId) -> Result<ValueId, PassError> {
    if let Some(step) = rewriter.global_named(STEP) {
        let counts = rewriter.graph(train).updates().any(|u| u.0 == step);
        let counter = rewriter.global(step).value;
        return if counts { Ok(counter) } else { Err("the module has a global @step already".into()) };
    }
    let step = state(rewriter, STEP, Type::fixed(ElemType::I64, &[]));
    let counter = rewriter.global(step).value;
    let one = number(rewriter, ElemType::I64, 1.0)?;
    let next = rewriter.emit("add", &[counter, one], AttrSet::new(), At::End(train))?;
    rewriter.set_update(train, step, next);
    Ok(counter)
}

/// A state that is 0 at first.
fn state(rewriter: &mut Rewriter<'_>, name: &str, ty: Type) -> GlobalId {
    let bytes = ty.elem().map_or(4, |e| (e.bits() as usize).div_ceil(8));
    let init = Init::Splat(std::iter::repeat_n(0, bytes).collect());
    rewriter.add_global(NewGlobal { name, role: Role::State, trainable: false, ty, init })
}

/// Makes parameters of what a graph reads that is made of trainable ones (a weight with its batch normalisation folded
/// in): they begin with those contents and go their own way.
fn detach(module: &mut Module, read: &[GlobalId]) {
    let mut rewriter = Rewriter::new(module);
    for &global in read {
        rewriter.set_role(global, Role::Param, true);
    }
}

/// What a graph reads that is computed from trainable parameters.
fn derived_weights(module: &Module, graph: GraphId) -> Vec<GlobalId> {
    let mut read: Vec<GlobalId> = read_globals(module, graph)
        .filter(|&g| matches!(module.global(g).init, Init::Derived(_)) && of_trainable(module, g))
        .collect();
    read.sort_unstable();
    read.dedup();
    read
}

fn read_globals(module: &Module, graph: GraphId) -> impl Iterator<Item = GlobalId> {
    let operands = module.ops_in(graph).flat_map(|op| module.op(op).present_operands());
    operands.chain(module.graph(graph).results()).filter_map(|v| module.as_global(v))
}

/// Notes on weights that are tied before training and not after: a graph reads a parameter itself, and what is computed
/// from it, which from now on is trained on its own.
fn come_apart(module: &Module, graph: GraphId, detached: &[GlobalId]) -> Vec<String> {
    let read: rustc_hash::FxHashSet<GlobalId> = read_globals(module, graph).collect();
    let name = |g: GlobalId| module.str(module.global(g).name);
    let mut notes = Vec::new();
    for &global in detached {
        let (mut pending, mut seen) = (vec![global], rustc_hash::FxHashSet::default());
        while let Some(g) = pending.pop() {
            let Init::Derived(d) = &module.global(g).init else { continue };
            for source in d.operands.iter().flatten().copied().filter(|&s| seen.insert(s)) {
                if read.contains(&source) && of_trainable(module, source) {
                    notes.push(format!(
                        "@{} is computed from @{}, which is read too: they are trained apart",
                        name(global),
                        name(source)
                    ));
                }
                pending.push(source);
            }
        }
    }
    notes
}

/// Whether the contents of a float global depend on a trainable one.
fn of_trainable(module: &Module, global: GlobalId) -> bool {
    let float = module.ty(module.global(global).ty).elem().is_some_and(ElemType::is_float);
    let mut seen = rustc_hash::FxHashSet::default();
    let mut pending = vec![global];
    while let Some(g) = pending.pop().filter(|_| float) {
        if !seen.insert(g) {
            continue;
        }
        match &module.global(g).init {
            Init::Derived(d) => pending.extend(d.operands.iter().flatten()),
            _ if module.global(g).trainable => return true,
            _ => {}
        }
    }
    false
}

/// Removes the graph of a training step and what only it reads: states of optimisers go. Statistics that it wrote are
/// constants again; ranges of quantisers stay states, since nobody has frozen them yet.
pub fn drop_training(module: &mut Module) {
    let Some(train) = train_graph(module) else { return };
    let written: Vec<GlobalId> = module.graph(train).updates().map(|u| u.0).collect();
    let mut rewriter = Rewriter::new(module);
    rewriter.erase_graph(train);
    for id in written {
        let global = rewriter.global(id);
        let quantises = rewriter
            .user_ops(global.value)
            .into_iter()
            .any(|op| rewriter.decl(op).traits.has(gs_ir::registry::Traits::QUANTISER));
        if global.role == Role::State && !rewriter.is_written(id) && !quantises {
            rewriter.set_role(id, Role::Const, false);
        }
    }
    crate::passes::remove_dead(module);
}

/// A constant scalar.
///
/// # Errors
/// Element types that do not hold numbers.
pub fn number(rewriter: &mut Rewriter<'_>, elem: ElemType, value: f64) -> Result<ValueId, PassError> {
    let bytes = encode(elem, value).ok_or_else(|| format!("{elem} does not hold {value}"))?;
    let global = constant(rewriter, &Literal::new(elem, [], bytes));
    Ok(rewriter.global(global).value)
}

/// Removes from a graph what does nothing (sums over no copies) and what nothing reads.
fn tidy(module: &mut Module, graph: GraphId) {
    let mut rewriter = Rewriter::new(module);
    let ops: Vec<OpId> = rewriter.ops_in(graph).collect();
    for op in ops.into_iter().rev() {
        let result = rewriter.op(op).result();
        if let Some(x) = rewriter.op(op).operand(0).filter(|_| rewriter.is(op, "unbroadcast"))
            && rewriter.value(x).ty == rewriter.value(result).ty
        {
            rewriter.replace_uses(result, x);
        }
        let read = |v: &ValueId| !v.is_none() && !rewriter.value(*v).uses().is_empty();
        if !rewriter.op(op).results().iter().any(read) {
            rewriter.erase(op);
        }
    }
}
