//! Deployment: a frozen network becomes integer operators of a target, by rewrite rules.
//!
//! 1. What a file may leave out is said in full (explicit.gsr).
//!    Weights are brought to the codes that the target's rounding gives, and those of few bits are packed (pack.gsr).
//! 2. `qdq` becomes a dequantize of a quantize, and dequantize moves down through data movement (qdq.gsr of
//!    gs-passes), so that movement runs on integers and pairs meet.
//! 3. Each region between dequantize and quantize becomes one integer operator (the target's lowering rules).
//!    Packed weights of layers that stay in float become float constants (decode.gsr).
//! 4. Quantised weights are folded into derived constants.
//! 5. For the portable form, integer operators that only one runtime knows are written as quantize, float
//!    operator and dequantize again (qdq-form.gsr), which that runtime fuses back.

mod lowering;
mod packing;
mod rounding;

pub use lowering::{Lowering, LoweringError};
pub(crate) use packing::TABLE as PACKING;

use crate::kept::note_kept;
use gs_ir::{InferError, Module, OpId, Rewriter};
use gs_passes::grid::Grids;
use gs_passes::manager::{PassContext, PassReport};
use gs_passes::passes::{apply_rules, fold_constants, merge_constants, merge_equal_of, remove_dead};
use gs_passes::rules::{NoEnv, Remark, RuleSet, explain};
use gs_passes::target::Format;
use gs_text::gsr::{Driver, Strictness};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The rules that say absent zero points.
pub const EXPLICIT: &str = include_str!("explicit.gsr");
/// The rules that store weights of few bits packed.
pub const PACK: &str = include_str!("pack.gsr");
/// The lowering rules of the target `ort-cpu`.
pub const LOWER_ORT_CPU: &str = include_str!("lower-ort-cpu.gsr");
/// The rules for packed weights that are read in float.
pub const DECODE: &str = include_str!("decode.gsr");
/// The rules of the portable form.
pub const QDQ_FORM: &str = include_str!("qdq-form.gsr");

/// The loosest rules that lower: an operation may round a result to the neighbouring code.
const LEAVE: Strictness = Strictness::Codes(1);

/// How a deployed network is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Float operators between quantize and dequantize: every runtime reads it, and one that can, fuses it.
    #[default]
    Qdq,
    /// Integer operators, some of them known to ONNX Runtime alone.
    Qoperator,
}

/// Why a network could not be deployed.
#[derive(Debug, Error)]
pub enum DeployError {
    /// The target or its rules.
    #[error(transparent)]
    Lowering(#[from] LoweringError),
    /// It was instrumented for another target.
    #[error(
        "the module was instrumented for target `{before}`, whose grids do not suit `{wanted}`; apply the algorithm again with target={wanted}"
    )]
    OtherTarget {
        /// What it was instrumented for.
        before: String,
        /// What was asked for.
        wanted: String,
    },
    /// It was instrumented for a target that is not shipped, and the file of that was not given.
    #[error(
        "the module was instrumented for target `{name}`, which is not a shipped one: give its file, as in target=\"{name}.toml\""
    )]
    OwnTarget {
        /// The target.
        name: String,
    },
    /// The target does not run this form.
    #[error("target `{target}` does not run the {form} form")]
    Form {
        /// The target.
        target: String,
        /// The form.
        form: &'static str,
    },
    /// An operation that does not fit (a defect).
    #[error("{0}")]
    Infer(#[from] InferError),
    /// No graph.
    #[error("the module has no graph")]
    NoGraph,
}

/// Lowers a frozen network to integer operators of a target by name. A network read from a quantised file is frozen too.
///
/// # Errors
/// See [`DeployError`].
pub fn to_integers(module: &mut Module, target: &str) -> Result<PassReport, DeployError> {
    Lowering::find(target, module.registry())?.to_integers(module, &mut PassContext::default())
}

/// Writes integer operators of a target by name in the portable form.
///
/// # Errors
/// See [`DeployError`].
pub fn to_qdq_form(module: &mut Module, target: &str) -> Result<PassReport, DeployError> {
    Ok(Lowering::find(target, module.registry())?.to_qdq_form(module, &mut PassContext::default()))
}

/// Lowers a frozen network to a target by name and brings it into the form asked for.
///
/// # Errors
/// See [`DeployError`].
pub fn deploy(module: &mut Module, target: &str, form: Form) -> Result<PassReport, DeployError> {
    Lowering::find(target, module.registry())?.deploy(module, form, &mut PassContext::default())
}

impl Lowering {
    /// Lowers a frozen network to integer operators. The context's fuel bounds the rewrites.
    ///
    /// # Errors
    /// It has no graph, or was instrumented for another target.
    pub fn to_integers(
        &self,
        module: &mut Module,
        context: &mut PassContext<'_>,
    ) -> Result<PassReport, DeployError> {
        let name = &self.target.name;
        if let Some(before) = module.meta.target.clone().filter(|t| t != name) {
            return Err(DeployError::OtherTarget { before, wanted: name.clone() });
        }
        let main = module.main().ok_or(DeployError::NoGraph)?;
        let grids = Grids::of(module, main, &self.target, &|_| true);
        note_kept(module, &grids, &self.target);
        rounding::round_weights(module, self.target.rounding)?;
        let mut report = PassReport::default();
        for rules in &self.integers {
            report.absorb(apply_rules(rules, LEAVE, module, context));
        }
        for rules in self.integers.iter().filter(|r| r.driver == Driver::Lower) {
            note_refused(module, rules);
        }
        self.note_unmoved(module);
        report.absorb(clean(module, &|_, _| true));
        module.meta.target = Some(name.clone());
        Ok(report)
    }

    /// Notes for operations that read a dequantized tensor and stay in float, and of which nothing is noted yet, which
    /// rule for them came closest and what was missing.
    fn note_unmoved(&self, module: &mut Module) {
        let unmoved = |m: &Module, op: OpId| {
            let reads = m.op(op).operand(0).and_then(|v| m.producer(v));
            reads.is_some_and(|p| m.is(p, "dequantize"))
                && !m.is(op, "quantize")
                && !m.source_of(op).iter().any(|name| m.kept.contains_key(name))
        };
        let remarks: Vec<Remark> =
            self.integers.iter().flat_map(|rules| explain(module, rules, &NoEnv, &unmoved)).collect();
        let mut rewriter = Rewriter::new(module);
        for (op, remark) in closest(&remarks) {
            let reason = format!("rule {} did not apply: {}", remark.rule, remark.reason);
            let entry = rewriter.entry("not-lowered", &remark.rule, None, Some(&reason));
            for name in rewriter.source_of(op).to_vec() {
                rewriter.kept.insert(name, entry.clone());
            }
        }
    }

    /// Writes integer operators that only one runtime knows in the portable form.
    pub fn to_qdq_form(&self, module: &mut Module, context: &mut PassContext<'_>) -> PassReport {
        let mut report = PassReport::default();
        for rules in &self.portable {
            report.absorb(apply_rules(rules, LEAVE, module, context));
        }
        // Operators that compute on integers differed in the grid of their result alone: in the portable form a
        // quantize says that, and one operator before two of them would be fused with none.
        report.absorb(clean(module, &|m, op| m.is(op, "dequantize")));
        report
    }

    /// Lowers a frozen network and brings it into the form asked for.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub fn deploy(
        &self,
        module: &mut Module,
        form: Form,
        context: &mut PassContext<'_>,
    ) -> Result<PassReport, DeployError> {
        let (format, target) = (self.target.format, self.target.name.clone());
        match form {
            Form::Qdq if format == Format::Qoperator => Err(DeployError::Form { target, form: "qdq" }),
            Form::Qoperator if format == Format::Qdq => Err(DeployError::Form { target, form: "qoperator" }),
            Form::Qoperator => self.to_integers(module, context),
            Form::Qdq => {
                let mut report = self.to_integers(module, context)?;
                report.absorb(self.to_qdq_form(module, context));
                Ok(report)
            }
        }
    }
}

/// Notes for operations that stand before a quantiser and were not lowered which rule came closest and what was missing.
fn note_refused(module: &mut Module, rules: &RuleSet) {
    let remarks = explain(module, rules, &NoEnv, &|m, op| m.is(op, "quantize"));
    let mut rewriter = Rewriter::new(module);
    for (op, remark) in closest(&remarks) {
        let reason = format!("rule {} did not apply: {}", remark.rule, remark.reason);
        let entry = rewriter.entry("not-lowered", &remark.rule, None, Some(&reason));
        // The operation that makes what is quantised, and an activation between them.
        let mut before = rewriter.op(op).operand(0);
        while let Some(maker) = before.and_then(|v| rewriter.producer(v)) {
            for name in rewriter.source_of(maker).to_vec() {
                rewriter.kept.entry(name).or_insert(entry.clone());
            }
            let activation = matches!(rewriter.op_name(maker), "relu" | "clip");
            before = if activation { rewriter.op(maker).operand(0) } else { None };
        }
    }
}

/// The remark that came closest at each operation, in their order.
fn closest(remarks: &[Remark]) -> Vec<(OpId, &Remark)> {
    let mut found: Vec<(OpId, &Remark)> = Vec::new();
    let mut place: FxHashMap<OpId, usize> = FxHashMap::default();
    for remark in remarks {
        let at = *place.entry(remark.op).or_insert_with(|| {
            found.push((remark.op, remark));
            found.len() - 1
        });
        if let Some(best) = found.get_mut(at).filter(|(_, best)| remark.progress > best.progress) {
            best.1 = remark;
        }
    }
    found
}

/// Folds quantised weights and removes what is left over; of operations that compute the same, these are merged.
fn clean(module: &mut Module, merges: &dyn Fn(&Module, OpId) -> bool) -> PassReport {
    let folded = fold_constants(module);
    let merged = merge_equal_of(module, merges) + merge_constants(module);
    let (ops, globals) = remove_dead(module);
    PassReport::counting([
        ("operations folded", folded),
        ("operations merged", merged),
        ("operations removed", ops),
        ("globals removed", globals),
    ])
}
