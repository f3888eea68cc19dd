//! SimQAT: quantisation simulated in float, so that training or calibration sees what the integers will be
//! (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference", CVPR 2018). The graph changes are the rules in `rules.gsr`; here is what they ask.

mod config;
mod norms;

pub use config::{ActConfig, ConfigError, LayerConfig, Settled, SimQatConfig, WeightConfig};

use crate::algorithm::{Algorithm, RunLength, freeze_and_deploy};
use crate::deploy::Form;
use crate::kept::note_kept;
use crate::observe::observe;
use crate::observers::ObserverKind;
use crate::selector::{self, SelectorError};
use crate::targets::{self, TargetLookupError};
use gs_ir::{Attr, FloatBits, GraphId, Module, OpId, Phase, ValueId};
use gs_passes::grid::{Grids, Part, channel_axis};
use gs_passes::manager::{PassContext, PassError, PassReport};
use gs_passes::passes::fold_batch_norms;
use gs_passes::rules::{GridClass, RuleEnv, Site};
use gs_passes::target::{Granularity, Target};
use gs_passes::training::ParamGroup;
use rustc_hash::FxHashSet;
use thiserror::Error;

/// The rules that place quantisers.
pub const RULES: &str = include_str!("rules.gsr");

/// The algorithm with its configuration.
#[derive(Clone, Debug, Default)]
pub struct SimQat {
    /// What to do.
    pub config: SimQatConfig,
}

/// Why SimQAT could not be applied.
#[derive(Debug, Error)]
pub enum SimQatError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetLookupError),
    /// A selector in the configuration.
    #[error("{key}: {error}")]
    Selector {
        /// The key that holds it.
        key: String,
        /// What is wrong.
        error: SelectorError,
    },
    /// The module was instrumented for another target.
    #[error("the module was instrumented for target `{before}`; it cannot be for `{wanted}` too")]
    OtherTarget {
        /// What it was instrumented for.
        before: String,
        /// What was asked for.
        wanted: String,
    },
    /// There is no graph.
    #[error("the module has no graph")]
    NoGraph,
}

impl Algorithm for SimQat {
    fn name(&self) -> &'static str {
        "simqat"
    }

    /// Instruments a network: inserts quantisers whose ranges are not observed yet, states the target in the
    /// module's header, and notes for every layer that stays in float why. Applying it twice equals once.
    ///
    /// # Errors
    /// A wrong configuration, by its key; see [`SimQatError`].
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        self.config.check().map_err(SimQatError::from)?;
        let target = targets::find(&self.config.target).map_err(SimQatError::from)?;
        let settled = self.config.settle(&target).map_err(SimQatError::from)?;
        if let Some(before) = module.meta.target.as_ref().filter(|t| **t != target.name) {
            let (before, wanted) = (before.clone(), target.name.clone());
            return Err(SimQatError::OtherTarget { before, wanted }.into());
        }
        let main = module.main().ok_or(SimQatError::NoGraph)?;
        // What is computed from weights alone is a weight too: quantisers then stand on globals.
        gs_passes::passes::fold_constants(module);
        let mut env = Env::new(module, main, &target, &self.config, settled)?;
        let kept = self.keeps_norms(&target, settled);
        let fold = norms::to_fold(module, main, &env.grids, kept);
        let mut report = PassReport::default();
        if !fold.is_empty() && Phase::of(module) == Phase::Float {
            let before = fold.len();
            report = fold_batch_norms(module, Some(fold), context)?;
            env = Env::new(module, main, &target, &self.config, settled)?;
            if !kept {
                report.notes.push(format!(
                    "{before} batch normalisations were folded before quantisers were placed: they can stay beside \
                     quantised weights only where these have no zero point and the target a scale for each channel"
                ));
            }
        }
        let negated = norms::make_positive(module, main, &env.grids)?;
        let rules = crate::rules::load("simqat", RULES, module.registry())?;
        let inserted = gs_passes::rules::insert(module, &rules, &env)
            .map_err(|d| gs_text::render_all(&d, &rules.sources, gs_text::Style::Plain))?;
        for placed in &inserted.placed {
            if let Some(value) = module.op(placed.op).operand(0) {
                context.remark("simqat", &placed.value, env.why(value, &placed.rule));
            }
        }
        note_kept(module, &env.grids, &target);
        module.meta.target = Some(target.name.clone());
        let of_rule =
            |names: &[&str]| inserted.placed.iter().filter(|p| names.contains(&p.rule.as_str())).count();
        report.absorb(PassReport::counting([
            ("weight quantisers inserted", of_rule(&["weight_fake_quant"])),
            ("activation quantisers inserted", of_rule(&["activation_fake_quant"])),
            ("fixed quantisers inserted", of_rule(&["fixed_fake_quant"])),
        ]));
        if negated > 0 {
            report.absorb(PassReport::counting([("channels negated", negated)]));
        }
        Ok(report)
    }

    fn prepare_training(&self, module: &mut Module, _: RunLength) -> Result<(), PassError> {
        match self.config.observer {
            ObserverKind::Ema { decay } => observe(module, decay as f32).map(|_| ()),
            other => Err(format!("`observer`: {other:?} does not follow training; ema does").into()),
        }
    }

    fn param_groups(&self, module: &Module) -> Vec<ParamGroup> {
        norms::positive_factors(module).into_iter().collect()
    }

    fn convert(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        freeze_and_deploy(module, &self.config.target, Form::default())
    }
}

impl SimQat {
    /// Whether batch normalisation may stay beside quantised weights: its factors become part of their scales.
    fn keeps_norms(&self, target: &Target, settled: Settled) -> bool {
        let per_channel = target.weight.granularity.contains(&Granularity::Channel);
        settled.weight_signed && self.config.weight.symmetric && per_channel
    }
}

/// What the rules ask: the analysis of the graph, and the configuration.
struct Env<'c> {
    grids: Grids,
    config: &'c SimQatConfig,
    settled: Settled,
    /// Layer settings in order of increasing precedence, with the operations they are for.
    layers: Vec<(FxHashSet<OpId>, LayerConfig)>,
}

impl<'c> Env<'c> {
    fn new(
        module: &Module,
        graph: GraphId,
        target: &Target,
        config: &'c SimQatConfig,
        settled: Settled,
    ) -> Result<Self, SimQatError> {
        let select = |key: &str, selector: &str| {
            let found = selector::select(module, selector);
            let found = found.map_err(|error| SimQatError::Selector { key: key.to_owned(), error })?;
            Ok::<_, SimQatError>(found.into_iter().collect::<FxHashSet<OpId>>())
        };
        let mut excluded = FxHashSet::default();
        for selector in &config.exclude {
            excluded.extend(select("exclude", selector)?);
        }
        // The longest selector wins: it comes last.
        let mut by_length: Vec<_> = config.layers.iter().collect();
        by_length.sort_by_key(|(selector, _)| selector.len());
        let layers: Result<_, SimQatError> = by_length
            .into_iter()
            .map(|(selector, layer)| Ok((select(&format!("layers.{selector}"), selector)?, *layer)))
            .collect();
        let grids = Grids::of(module, graph, target, &|op| !excluded.contains(&op));
        Ok(Self { grids, config, settled, layers: layers? })
    }

    /// The setting of a layer, if one was made for it.
    fn layer<T>(&self, op: Option<OpId>, get: impl Fn(&LayerConfig) -> Option<T>) -> Option<T> {
        let op = op?;
        self.layers.iter().rev().filter(|(ops, _)| ops.contains(&op)).find_map(|(_, l)| get(l))
    }

    /// Why a quantiser stands at a value, for remarks.
    fn why(&self, value: ValueId, rule: &str) -> String {
        match self.grids.class_of(value) {
            Some((_, class)) if !class.why.is_empty() => class.why.clone(),
            _ => format!("rule {rule}"),
        }
    }

    fn weight_cfg(&self, module: &Module, op: OpId, key: &str) -> Option<Attr> {
        let w = &self.config.weight;
        match key {
            "weight_bits" => {
                Some(Attr::Int(i64::from(self.layer(Some(op), |l| l.weight_bits).unwrap_or(w.bits))))
            }
            "weight_signed" => Some(Attr::Bool(self.settled.weight_signed)),
            "weight_symmetric" => Some(Attr::Bool(w.symmetric)),
            "weight_narrow" => Some(Attr::Bool(w.narrow_range)),
            "weight_axis" => {
                let per_channel = self.layer(Some(op), |l| l.weight_per_channel);
                let per_channel = per_channel.unwrap_or(self.settled.weight_per_channel);
                let axis = channel_axis(module, op).filter(|_| per_channel)?;
                Some(Attr::Int(axis as i64))
            }
            _ => None,
        }
    }

    fn act_cfg(&self, module: &Module, value: ValueId, key: &str) -> Option<Attr> {
        let a = &self.config.act;
        match key {
            "act_bits" => {
                let producer = module.producer(value);
                Some(Attr::Int(i64::from(self.layer(producer, |l| l.act_bits).unwrap_or(a.bits))))
            }
            "act_signed" => Some(Attr::Bool(self.settled.act_signed)),
            "act_symmetric" => Some(Attr::Bool(self.settled.act_symmetric)),
            "act_narrow" => Some(Attr::Bool(a.narrow_range)),
            "fixed_grid" => {
                let (scale, zero_point) = self.grids.class_of(value)?.1.fixed?;
                let edge = |code: i64| FloatBits((code - zero_point) as f32 * scale);
                Some(Attr::Floats([edge(0), edge(255)].into()))
            }
            _ => None,
        }
    }
}

impl RuleEnv for Env<'_> {
    fn selected(&self, _: &Module, op: OpId) -> bool {
        matches!(self.grids.part(op), Some(Part::Computes))
    }

    fn needs_grid(&self, _: &Module, value: ValueId) -> bool {
        self.grids.needs_grid(value)
    }

    fn class_of(&self, module: &Module, value: ValueId) -> Option<GridClass> {
        let (id, class) = self.grids.class_of(value)?;
        let first = *class.entries.first()?;
        let name = match module.producer(first) {
            Some(op) => module.label(op).to_owned(),
            None => module.str(module.value(first).name).to_owned(),
        };
        Some(GridClass { id: id as u32, entries: class.entries.clone(), name })
    }

    fn cfg(&self, module: &Module, site: Site, key: &str) -> Option<Attr> {
        // Settings of weights are those of the layer that reads them; a layer may be named by its result.
        match site {
            Site::Op(op) => self.weight_cfg(module, op, key),
            Site::Value(value) if key.starts_with("weight_") => {
                self.weight_cfg(module, module.producer(value)?, key)
            }
            Site::Value(value) => self.act_cfg(module, value, key),
        }
    }
}
