//! `loss`: makes the graph `@train`: the network's operations, the labels, and the loss as first result.

use super::copy::copy_graph;
use super::{FinalSoftmax, TRAIN, come_apart, derived_weights, detach, train_graph};
use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use crate::passes::{merge_equal_of, widen_weights};
use gs_ir::registry::Traits;
use gs_ir::{At, Attr, AttrSet, Dim, ElemType, GraphId, Module, OpKind, Phase, Rewriter, Type, ValueId};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// The name of the result of `@train` that is minimised: the first.
pub const LOSS: &str = "loss";

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Cross entropy of logits with class numbers. Of a network that ends in a softmax it is taken of what that reads.
    #[default]
    CrossEntropy,
    /// The mean of squared differences to a tensor of the output's shape.
    Mse,
    /// Nothing yet: an algorithm brings the loss, and the samples need no labels.
    None,
}

/// The pass `loss`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// What is minimised.
    pub kind: LossKind,
    /// For cross entropy: the part of the target that is spread over all classes.
    pub label_smoothing: f32,
    /// The output that the loss is of; the first unless said.
    pub output: Option<String>,
}

pub(super) static INFO: PassInfo = PassInfo {
    name: "loss",
    doc: "make the training graph @train: the network, its labels and the loss",
    options: &[
        ("kind", "cross_entropy, mse, or none: an algorithm brings the loss (cross_entropy)"),
        ("label_smoothing", "part of the target that is spread over all classes (0)"),
        ("output", "the output that the loss is of (the first)"),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: None,
};

impl Pass for Loss {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err("`label_smoothing` must be at least 0 and below 1".into());
        }
        if train_graph(module).is_some() {
            return Err("the module has a graph @train already".into());
        }
        let main = module.main().ok_or("the module has no graph")?;
        let output = self.output_of(module)?;
        let widened = widen_weights(module);
        let detached = derived_weights(module, main);
        let apart = come_apart(module, main, &detached);
        detach(module, &detached);
        let mut rewriter = Rewriter::new(module);
        let train = rewriter.add_graph(TRAIN);
        let map = copy_graph(&mut rewriter, main, train, FxHashMap::default(), "")?;
        let results: Vec<ValueId> = rewriter.graph(main).results().collect();
        let names: Vec<String> =
            rewriter.graph(main).result_names().map(|n| rewriter.str(n).to_owned()).collect();
        let here = |v: ValueId| map.get(&v).copied().unwrap_or(v);
        let named = (names[output].as_str(), here(results[output]));
        let mut notes = apart;
        if let Some(loss) = self.add_loss(&mut rewriter, train, named, &mut notes)? {
            rewriter.add_result(train, LOSS, loss, None);
        }
        for (name, value) in names.iter().zip(results) {
            rewriter.add_result(train, name, here(value), None);
        }
        // What the network computes once for each grid that reads it, a step computes once.
        let cheap = |m: &Module, op| m.op(op).graph == train && m.decl(op).traits.has(Traits::ELEMENTWISE);
        merge_equal_of(module, &cheap);
        let mut report = PassReport::counting([
            ("weights that are trained on their own", detached.len()),
            ("weights made floats", widened),
        ]);
        if widened > 0 {
            let (what, are) = if widened == 1 { ("weight", "is") } else { ("weights", "are") };
            notes.push(format!("{widened} {what} stored as integers {are} trained as floats"));
        }
        report.notes.extend(notes);
        Ok(report)
    }
}

impl Loss {
    /// The number of the output.
    fn output_of(&self, module: &Module) -> Result<usize, PassError> {
        let main = module.main().ok_or("the module has no graph")?;
        let names: Vec<&str> = module.graph(main).result_names().map(|n| module.str(n)).collect();
        match &self.output {
            _ if names.is_empty() => Err("the network has no output".into()),
            None => Ok(0),
            Some(wanted) => names.iter().position(|n| n == wanted).ok_or_else(|| {
                format!("no output is named `{wanted}`; there are: {}", names.join(", ")).into()
            }),
        }
    }

    fn add_loss(
        &self,
        rewriter: &mut Rewriter<'_>,
        train: GraphId,
        output: (&str, ValueId),
        notes: &mut Vec<String>,
    ) -> Result<Option<ValueId>, PassError> {
        Ok(match self.kind {
            LossKind::None => None,
            LossKind::CrossEntropy => Some(self.cross_entropy(rewriter, train, output, notes)?),
            LossKind::Mse => Some(squared_error(rewriter, train, output)?),
        })
    }

    fn cross_entropy(
        &self,
        rewriter: &mut Rewriter<'_>,
        train: GraphId,
        (name, output): (&str, ValueId),
        notes: &mut Vec<String>,
    ) -> Result<ValueId, PassError> {
        let at = At::End(train);
        let batch = match rewriter.type_of(output).dims() {
            Some([_, Dim::Const(1)]) => {
                return Err(format!("`{name}` is one number for each sample, which names no class").into());
            }
            Some([batch, _]) => batch.clone(),
            _ => {
                let found = rewriter.type_words(rewriter.type_of(output));
                return Err(format!(
                    "cross entropy is of an output [batch, classes]; `{name}` is {found}; `output` names another one"
                )
                .into());
            }
        };
        let logits = match FinalSoftmax::of(rewriter, output) {
            None => output,
            Some(found) => {
                let what = rewriter.op_name(found.op).to_owned();
                notes.push(format!(
                    "`{name}` is a {what}: the loss is of what it reads, since cross entropy has a softmax of its own"
                ));
                found.shaped(rewriter, at)?
            }
        };
        let labels = rewriter.add_param(train, "labels", Type::tensor(ElemType::I64, [batch]));
        let mut attrs = AttrSet::new();
        attrs.set("label_smoothing", Attr::float(self.label_smoothing));
        let kind: OpKind = rewriter.registry().kind("cross_entropy").ok_or("there is no `cross_entropy`")?;
        let op = rewriter.create(kind, &[Some(logits), Some(labels)], attrs, 2, at)?;
        Ok(rewriter.op(op).result())
    }
}

/// The mean of squared differences to `target`, a new parameter of the graph.
fn squared_error(
    rewriter: &mut Rewriter<'_>,
    train: GraphId,
    (name, output): (&str, ValueId),
) -> Result<ValueId, PassError> {
    let at = At::End(train);
    let ty = rewriter.type_of(output).clone();
    if ty.dims().is_none_or(|d| d.contains(&Dim::Unknown)) {
        let found = rewriter.type_words(&ty);
        return Err(format!(
            "the mean squared error is of an output whose shape is known; `{name}` is {found}"
        )
        .into());
    }
    let target = rewriter.add_param(train, "target", ty);
    let difference = rewriter.emit("sub", &[output, target], AttrSet::new(), at)?;
    let square = rewriter.emit("mul", &[difference, difference], AttrSet::new(), at)?;
    let mut attrs = AttrSet::new();
    attrs.set("keepdims", Attr::Bool(false));
    Ok(rewriter.emit("reduce_mean", &[square], attrs, at)?)
}
