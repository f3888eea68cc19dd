//! Distillation (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015): the network learns from
//! the outputs of a teacher, here from its own before an algorithm changed it. It wraps any algorithm.
//!
//! `apply` keeps the network as it is as the graph `@teacher`, over copies of its weights that nothing trains (a copy
//! shares the bytes). Batch normalisation of the teacher uses its given statistics, since its scale is not trainable.
//! `prepare_training` lets `@train` compute the teacher on the same batch, pictures being changed at each step, and
//! mixes the loss:
//!
//! `(1 - weight) * loss + weight * T^2 * mean over rows of KL(softmax(teacher / T) || softmax(student / T))`
//!
//! Of networks that end in a softmax, what that reads is compared.
//!
//! `@teacher` is gone then: it is in `@train`, which `convert` drops with all its weights.

mod config;

pub use config::{ConfigError, DistillationConfig};

use crate::algorithm::{Algorithm, RunLength};
use crate::callback::Callback;
use gs_ir::{
    At, Attr, AttrSet, ElemType, GlobalId, GraphId, Init, Module, NewGlobal, Rewriter, Role, Sym, ValueId,
};
use gs_passes::manager::{PassContext, PassError, PassReport};
use gs_passes::training::{FinalSoftmax, LOSS, ParamGroup, copy_graph, drop_training, number, train_graph};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;

/// The name of the graph that the network learns from.
pub const TEACHER: &str = "teacher";

/// What names of the teacher's values and weights begin with.
const PREFIX: &str = "teacher.";

/// An algorithm whose network learns from what it was before.
pub struct Distilled {
    /// The algorithm.
    pub inner: Box<dyn Algorithm>,
    /// How it learns.
    pub config: DistillationConfig,
}

impl Algorithm for Distilled {
    fn name(&self) -> &'static str {
        "distillation"
    }

    /// Keeps the network as its teacher, unless it has one, and applies the algorithm. Where that fails, the module is as
    /// it was.
    ///
    /// # Errors
    /// A wrong configuration; what the algorithm refuses.
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.config.check()?;
        let mut changed = module.clone();
        // Where there is a teacher, the network may have changed already: it stays.
        let mut report = match teacher_graph(module) {
            Some(_) => PassReport::default(),
            None => PassReport::counting([("weights of the teacher", keep_teacher(&mut changed)?)]),
        };
        report.absorb(self.inner.apply(&mut changed, context)?);
        *module = changed;
        Ok(report)
    }

    fn prepare_training(&self, module: &mut Module, length: RunLength) -> Result<(), PassError> {
        self.inner.prepare_training(module, length)?;
        learn_from_teacher(module, &self.config)
    }

    fn param_groups(&self, module: &Module) -> Vec<ParamGroup> {
        self.inner.param_groups(module)
    }

    fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        self.inner.callbacks()
    }

    fn convert(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        drop_teacher(module);
        self.inner.convert(module, context)
    }
}

/// The teacher, where a module has one that has not joined `@train` yet.
pub fn teacher_graph(module: &Module) -> Option<GraphId> {
    module.entries().iter().copied().find(|&g| module.str(module.graph(g).name) == TEACHER)
}

/// Keeps the network as it is as `@teacher`; how many weights it reads.
///
/// # Errors
/// A network that has a teacher already or cannot be copied.
pub fn keep_teacher(module: &mut Module) -> Result<usize, PassError> {
    let main = module.main().ok_or("the module has no graph")?;
    if teacher_graph(module).is_some() {
        return Err("the module has a graph @teacher already".into());
    }
    let read: Vec<GlobalId> = {
        let operands = module.ops_in(main).flat_map(|op| module.op(op).present_operands());
        let mut read: Vec<GlobalId> =
            operands.chain(module.graph(main).results()).filter_map(|v| module.as_global(v)).collect();
        read.sort_unstable();
        read.dedup();
        read
    };
    let mut rewriter = Rewriter::new(module);
    let teacher = rewriter.add_graph(TEACHER);
    let mut copies = FxHashMap::default();
    let mut given = FxHashMap::default();
    for global in read {
        let copy = copy_global(&mut rewriter, global, &mut copies);
        given.insert(rewriter.global(global).value, rewriter.global(copy).value);
    }
    let count = given.len();
    let map = copy_graph(&mut rewriter, main, teacher, given, "")?;
    let results: Vec<ValueId> = rewriter.graph(main).results().collect();
    let names: Vec<Sym> = rewriter.graph(main).result_names().collect();
    for (name, value) in names.into_iter().zip(results) {
        let name = rewriter.str(name).to_owned();
        rewriter.add_result(teacher, &name, map.get(&value).copied().unwrap_or(value), None);
    }
    Ok(count)
}

/// A copy of a global that is never written. What is derived is derived of copies: an original may be trained.
fn copy_global(
    rewriter: &mut Rewriter<'_>,
    global: GlobalId,
    copies: &mut FxHashMap<GlobalId, GlobalId>,
) -> GlobalId {
    if let Some(&copy) = copies.get(&global) {
        return copy;
    }
    let mut init = rewriter.global(global).init.clone();
    if let Init::Derived(derived) = &mut init {
        for operand in derived.operands.iter_mut().flatten() {
            *operand = copy_global(rewriter, *operand, copies);
        }
    }
    let name = format!("{PREFIX}{}", rewriter.str(rewriter.global(global).name));
    let ty = rewriter.ty(rewriter.global(global).ty).clone();
    let copy = rewriter.add_global(NewGlobal { name: &name, role: Role::Const, trainable: false, ty, init });
    copies.insert(global, copy);
    copy
}

/// Lets `@train` compute its teacher and learn from it.
///
/// # Errors
/// Where there is no teacher or no graph `@train`, or the output is not `[N, classes, ...]` or is missing.
pub fn learn_from_teacher(module: &mut Module, config: &DistillationConfig) -> Result<(), PassError> {
    config.check()?;
    let train = train_graph(module).ok_or("there is no graph @train; run `loss` first")?;
    let teacher = teacher_graph(module)
        .ok_or("there is no graph @teacher; run `teacher` before the network changes")?;
    let mut results: Vec<(String, ValueId)> = {
        let graph = module.graph(train);
        graph.result_names().map(|n| module.str(n).to_owned()).zip(graph.results()).collect()
    };
    let loss = if results.first().is_some_and(|r| r.0 == LOSS) { Some(results.remove(0).1) } else { None };
    let (output, student) = learned_output(module, &results, loss, config.output.as_deref())?;
    let taught = {
        let graph = module.graph(teacher);
        let place = graph.result_names().position(|n| module.str(n) == output);
        place
            .and_then(|i| graph.results().nth(i))
            .ok_or_else(|| format!("@teacher has no output `{output}`"))?
    };
    if loss.is_none() && config.needs_labels() {
        return Err("@train has no loss of labels, and `weight` below 1 leaves a part to them".into());
    }
    let mut rewriter = Rewriter::new(module);
    let given = shared_params(&rewriter, teacher, train)?;
    let map = copy_graph(&mut rewriter, teacher, train, given, PREFIX)?;
    let target = map.get(&taught).copied().unwrap_or(taught);
    let (student, target) = (logits(&mut rewriter, train, student)?, logits(&mut rewriter, train, target)?);
    let divergence = divergence(&mut rewriter, train, [student, target], config.temperature)?;
    let total = match loss.filter(|_| config.needs_labels()) {
        None => divergence,
        Some(loss) => {
            let loss = scaled(&mut rewriter, train, loss, 1.0 - config.weight)?;
            let divergence = scaled(&mut rewriter, train, divergence, config.weight)?;
            rewriter.emit("add", &[loss, divergence], AttrSet::new(), At::End(train))?
        }
    };
    rewriter.truncate_results(train, 0);
    rewriter.add_result(train, LOSS, total, None);
    for (name, value) in results {
        rewriter.add_result(train, &name, value, None);
    }
    rewriter.erase_graph(teacher);
    gs_passes::passes::remove_dead(module);
    Ok(())
}

/// The output of `@train` that is learned: the one that is named, or else what the loss is computed from, or the first.
fn learned_output(
    module: &Module,
    outputs: &[(String, ValueId)],
    loss: Option<ValueId>,
    wanted: Option<&str>,
) -> Result<(String, ValueId), PassError> {
    if let Some(wanted) = wanted {
        let names: Vec<&str> = outputs.iter().map(|o| o.0.as_str()).collect();
        let found = outputs.iter().find(|o| o.0 == wanted);
        let missing = || format!("no output is named `{wanted}`; there are: {}", names.join(", "));
        return Ok(found.cloned().ok_or_else(missing)?);
    }
    // The output nearest to the loss: one may be computed from another.
    let mut pending: VecDeque<ValueId> = loss.into_iter().collect();
    let mut seen = FxHashSet::default();
    while let Some(value) = pending.pop_front() {
        let is_it = |v: ValueId| v == value || FinalSoftmax::of(module, v).is_some_and(|s| s.logits == value);
        if let Some(found) = outputs.iter().find(|o| is_it(o.1)) {
            return Ok(found.clone());
        }
        if let Some(op) = module.producer(value).filter(|&op| seen.insert(op)) {
            pending.extend(module.op(op).present_operands());
        }
    }
    Ok(outputs.first().cloned().ok_or("@train has no output")?)
}

/// What an output is the softmax of, in the output's shape; else the output.
fn logits(rewriter: &mut Rewriter<'_>, train: GraphId, output: ValueId) -> Result<ValueId, PassError> {
    match FinalSoftmax::of(rewriter, output) {
        Some(found) => found.shaped(rewriter, At::End(train)),
        None => Ok(output),
    }
}

/// The inputs of the teacher are those of `@train` of the same name.
fn shared_params(
    module: &Module,
    teacher: GraphId,
    train: GraphId,
) -> Result<FxHashMap<ValueId, ValueId>, PassError> {
    let name = |v: ValueId| module.str(module.value(v).name);
    let here = module.graph(train).params();
    let pair = |&old: &ValueId| match here.iter().find(|&&p| name(p) == name(old)) {
        Some(&new) => Ok((old, new)),
        None => Err(format!("@teacher has the input `{}`, which @train lacks", name(old)).into()),
    };
    module.graph(teacher).params().iter().map(pair).collect()
}

/// `T^2 * mean of KL(softmax(teacher / T) || softmax(student / T))` over the classes of axis 1. The factor keeps its
/// gradients as large as those of labels.
fn divergence(
    rewriter: &mut Rewriter<'_>,
    train: GraphId,
    [student, teacher]: [ValueId; 2],
    temperature: f32,
) -> Result<ValueId, PassError> {
    for value in [student, teacher] {
        let fits = rewriter.type_of(value).as_tensor().is_some_and(|t| {
            t.elem.is_float() && rewriter.type_of(value).dims().is_some_and(|d| d.len() >= 2)
        });
        if !fits {
            return Err("distillation is of a float output [N, classes, ...]".into());
        }
    }
    let at = At::End(train);
    let axis = |name: &str, axis: Attr| {
        let mut attrs = AttrSet::new();
        attrs.set(name, axis);
        attrs
    };
    let student = scaled(rewriter, train, student, 1.0 / temperature)?;
    let teacher = scaled(rewriter, train, teacher, 1.0 / temperature)?;
    let student = rewriter.emit("log_softmax", &[student], axis("axis", Attr::Int(1)), at)?;
    let teacher = rewriter.emit("log_softmax", &[teacher], axis("axis", Attr::Int(1)), at)?;
    let probability = rewriter.emit("exp", &[teacher], AttrSet::new(), at)?;
    let difference = rewriter.emit("sub", &[teacher, student], AttrSet::new(), at)?;
    let weighed = rewriter.emit("mul", &[probability, difference], AttrSet::new(), at)?;
    let mut attrs = axis("axes", Attr::ints(&[1]));
    attrs.set("keepdims", Attr::Bool(false));
    let rows = rewriter.emit("reduce_sum", &[weighed], attrs, at)?;
    let mean = rewriter.emit("reduce_mean", &[rows], axis("keepdims", Attr::Bool(false)), at)?;
    scaled(rewriter, train, mean, temperature * temperature)
}

/// A value times a number.
fn scaled(
    rewriter: &mut Rewriter<'_>,
    train: GraphId,
    value: ValueId,
    factor: f32,
) -> Result<ValueId, PassError> {
    let elem = rewriter.type_of(value).elem().unwrap_or(ElemType::F32);
    let factor = number(rewriter, elem, f64::from(factor))?;
    Ok(rewriter.emit("mul", &[value, factor], AttrSet::new(), At::End(train))?)
}

/// Removes a teacher that nobody has learned from, and training graphs, with all that only they read.
fn drop_teacher(module: &mut Module) {
    drop_training(module);
    if let Some(teacher) = teacher_graph(module) {
        Rewriter::new(module).erase_graph(teacher);
        gs_passes::passes::remove_dead(module);
    }
}
