//! `update`: turns the gradients that `@train` returns into what it stores: new parameters, and the states of the
//! optimiser.

use super::group::ParamGroup;
use super::{GRADIENT_PREFIX, state, step_counter, train_graph};
use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_ir::registry::{QRole, Traits};
use gs_ir::{At, Attr, AttrSet, GlobalId, GraphId, Module, Phase, Rewriter, Use, ValueId};
use serde::{Deserialize, Serialize};

/// How parameters are changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimiser {
    /// Stochastic gradient descent.
    Sgd {
        /// Part of the earlier steps that is kept.
        #[serde(default = "ninety_percent")]
        momentum: f32,
        /// Whether the gradient is looked at from where the momentum leads.
        #[serde(default)]
        nesterov: bool,
    },
    /// Adam with decoupled decay.
    Adamw {
        /// Decay of the mean of gradients.
        #[serde(default = "ninety_percent")]
        beta1: f32,
        /// Decay of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f32,
    },
}

fn ninety_percent() -> f32 {
    0.9
}

fn beta2() -> f32 {
    0.999
}

impl Default for Optimiser {
    fn default() -> Self {
        Optimiser::Sgd { momentum: 0.9, nesterov: false }
    }
}

/// How the learning rate changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Not at all.
    #[default]
    Constant,
    /// Along half a cosine to `end` (0 unless said).
    Cosine {
        /// The rate at the last step.
        #[serde(default)]
        end: f32,
    },
    /// Along a line to `end` (0 unless said).
    Linear {
        /// The rate at the last step.
        #[serde(default)]
        end: f32,
    },
    /// Multiplied by `gamma` at each of these steps.
    Milestones {
        /// The steps.
        at: Vec<i64>,
        /// The factor.
        gamma: f32,
    },
}

/// The pass `update`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// How parameters are changed.
    pub optimiser: Optimiser,
    /// The learning rate.
    pub lr: f32,
    /// How it changes.
    pub schedule: Schedule,
    /// Steps of the whole training, which schedules need.
    pub steps: i64,
    /// Steps over which the rate rises at first.
    pub warmup: i64,
    /// Decay of weights. What is no weight of a layer (biases, norms, steps of quantisers) does not decay.
    pub weight_decay: f32,
    /// Parameters that are changed in another way. The first group that names one counts.
    pub groups: Vec<ParamGroup>,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            optimiser: Optimiser::default(),
            lr: 0.01,
            schedule: Schedule::Constant,
            steps: 1,
            warmup: 0,
            weight_decay: 0.0,
            groups: Vec::new(),
        }
    }
}

pub(super) static INFO: PassInfo = PassInfo {
    name: "update",
    doc: "let @train store changed parameters in place of returning gradients",
    options: &[
        ("optimiser", "{sgd={momentum=0.9, nesterov=false}} or {adamw={beta1=0.9, beta2=0.999}} (sgd)"),
        ("lr", "learning rate (0.01)"),
        (
            "schedule",
            "constant, {cosine={end=0}}, {linear={end=0}} or {milestones={at=[], gamma=}} (constant)",
        ),
        ("steps", "steps of the whole training (1)"),
        ("warmup", "steps over which the rate rises at first (0)"),
        ("weight_decay", "decay of the weights of layers (0)"),
        (
            "groups",
            "own settings of parameters: [{params=[names or globs], optimiser=, lr=, weight_decay=, min=, max=, optional=}] ([])",
        ),
    ],
    accepts: &[Phase::Float, Phase::Instrumented],
    produces: None,
};

impl Pass for Update {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.check()?;
        let train = train_graph(module).ok_or("there is no graph @train; run `loss` and `grad` first")?;
        let mut gradients = Vec::new();
        let mut kept = 0;
        for (i, (name, value)) in
            module.graph(train).result_names().zip(module.graph(train).results()).enumerate()
        {
            let Some(name) = module.str(name).strip_prefix(GRADIENT_PREFIX) else {
                kept = i + 1;
                continue;
            };
            let global = module.global_named(name).ok_or_else(|| format!("no parameter is named @{name}"))?;
            gradients.push((global, value));
        }
        if gradients.is_empty() {
            return Err("@train returns no gradients; run `grad` first".into());
        }
        let groups = super::group::assign(module, &self.groups, gradients.iter().map(|g| g.0))?;
        let mut rewriter = Rewriter::new(module);
        rewriter.truncate_results(train, kept);
        let step = step_counter(&mut rewriter, train)?;
        let rate = self.learning_rate(&mut rewriter, train, self.lr, step)?;
        let mut rates = vec![None; self.groups.len()];
        for (&(global, gradient), group) in gradients.iter().zip(groups) {
            let group = group.and_then(|i| Some((i, self.groups.get(i)?)));
            let lr = match group.and_then(|(i, g)| Some((i, g.lr?))) {
                None => rate,
                Some((i, base)) => match rates[i] {
                    Some(rate) => rate,
                    None => *rates[i].insert(self.learning_rate(&mut rewriter, train, base, step)?),
                },
            };
            self.step(&mut rewriter, train, (global, gradient), group.map(|g| g.1), (lr, step))?;
        }
        Ok(PassReport::counting([("parameters updated", gradients.len())]))
    }
}

impl Update {
    fn check(&self) -> Result<(), PassError> {
        let within = |name: &str, x: f32, low: f32, high: f32| {
            let fits = x.is_finite() && x >= low && x <= high;
            fits.then_some(()).ok_or_else(|| format!("`{name}` = {x} must be {low} to {high}"))
        };
        within("lr", self.lr, 0.0, f32::MAX)?;
        within("weight_decay", self.weight_decay, 0.0, f32::MAX)?;
        for group in &self.groups {
            within("lr", group.lr.unwrap_or_default(), 0.0, f32::MAX)?;
            within("weight_decay", group.weight_decay.unwrap_or_default(), 0.0, f32::MAX)?;
            if let (Some(min), Some(max)) = (group.min, group.max) {
                within("min", min, f32::MIN, max)?;
            }
        }
        for optimiser in self.groups.iter().filter_map(|g| g.optimiser).chain([self.optimiser]) {
            match optimiser {
                Optimiser::Sgd { momentum, .. } => within("momentum", momentum, 0.0, 1.0)?,
                Optimiser::Adamw { beta1, beta2 } => {
                    for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
                        // At 1 the correction for the first steps divides by 0.
                        if !(0.0..1.0).contains(&beta) {
                            return Err(format!("`{name}` = {beta} must be at least 0 and below 1").into());
                        }
                    }
                }
            }
        }
        if self.steps < 1 || self.warmup < 0 {
            return Err("`steps` must be at least 1 and `warmup` at least 0".into());
        }
        Ok(())
    }

    /// The learning rate at a step, from `base`.
    fn learning_rate(
        &self,
        rewriter: &mut Rewriter<'_>,
        train: GraphId,
        base: f32,
        step: ValueId,
    ) -> Result<ValueId, PassError> {
        let mut attrs = AttrSet::new();
        attrs.set("base", Attr::float(base));
        attrs.set("warmup", Attr::Int(self.warmup));
        attrs.set("steps", Attr::Int(self.steps));
        let mut kind = |word: &str| attrs.set("kind", Attr::str(word));
        match &self.schedule {
            Schedule::Constant => kind("constant"),
            Schedule::Cosine { .. } => kind("cosine"),
            Schedule::Linear { .. } => kind("linear"),
            Schedule::Milestones { .. } => kind("milestones"),
        }
        match &self.schedule {
            Schedule::Constant => {}
            Schedule::Cosine { end } | Schedule::Linear { end } => attrs.set("end", Attr::float(*end)),
            Schedule::Milestones { at, gamma } => {
                attrs.set("milestones", Attr::ints(at));
                attrs.set("gamma", Attr::float(*gamma));
            }
        }
        Ok(rewriter.emit("schedule", &[step], attrs, At::End(train))?)
    }

    fn step(
        &self,
        rewriter: &mut Rewriter<'_>,
        train: GraphId,
        (param, gradient): (GlobalId, ValueId),
        group: Option<&ParamGroup>,
        (lr, step): (ValueId, ValueId),
    ) -> Result<(), PassError> {
        let decay = if is_weight(rewriter, param) { self.weight_decay } else { 0.0 };
        let decay = group.and_then(|g| g.weight_decay).unwrap_or(decay);
        let mut attrs = AttrSet::new();
        attrs.set("weight_decay", Attr::float(decay));
        let (operator, states): (&str, &[&str]) =
            match group.and_then(|g| g.optimiser).unwrap_or(self.optimiser) {
                Optimiser::Sgd { momentum, nesterov } => {
                    attrs.set("momentum", Attr::float(momentum));
                    attrs.set("nesterov", Attr::Bool(nesterov));
                    ("sgd", &["momentum"])
                }
                Optimiser::Adamw { beta1, beta2 } => {
                    attrs.set("beta1", Attr::float(beta1));
                    attrs.set("beta2", Attr::float(beta2));
                    ("adamw", &["m", "v"])
                }
            };
        let name = rewriter.str(rewriter.global(param).name).to_owned();
        let ty = rewriter.ty(rewriter.global(param).ty).clone();
        let stored: Vec<GlobalId> =
            states.iter().map(|s| state(rewriter, &format!("{name}.{s}"), ty.clone())).collect();
        let mut operands = vec![rewriter.global(param).value, gradient];
        operands.extend(stored.iter().map(|s| rewriter.global(*s).value));
        operands.push(lr);
        if operator == "adamw" {
            operands.push(step);
        }
        let operands: Vec<Option<ValueId>> = operands.into_iter().map(Some).collect();
        let kind = rewriter.registry().kind(operator).ok_or_else(|| format!("there is no `{operator}`"))?;
        let op = rewriter.create(kind, &operands, attrs, 1 + stored.len(), At::End(train))?;
        let mut results = rewriter.op(op).results().to_vec();
        if let Some(group) = group {
            results[0] = group.clamp(rewriter, train, results[0])?;
        }
        for (global, value) in std::iter::once(param).chain(stored).zip(results) {
            rewriter.set_update(train, global, value);
        }
        Ok(())
    }
}

/// Whether a layer reads a parameter as its weight, quantised or not.
fn is_weight(module: &Module, param: GlobalId) -> bool {
    let mut pending = vec![module.global(param).value];
    while let Some(value) = pending.pop() {
        for u in module.value(value).uses() {
            let Use::Operand(op, i) = *u else { continue };
            let decl = module.decl(op);
            if decl.operand(i as usize).is_some_and(|o| matches!(o.role, QRole::Weight)) {
                return true;
            }
            // A quantiser may be chosen or not, by the step.
            if (decl.traits.has(Traits::QUANTISER) && i == 0) || decl.name == "where" {
                pending.extend(module.op(op).results().iter().filter_map(|v| v.some()));
            }
        }
    }
    false
}
