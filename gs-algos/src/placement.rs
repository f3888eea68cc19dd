//! Where quantisers go, for every algorithm that places some: the analysis of the graph for the target, and the settings
//! of layers and tensors that rules ask for. What is put there is the algorithm's business, in its rule file.

mod edges;
mod signs;
mod sums;

use crate::kept::note_kept;
use crate::selector::{self, SelectorError};
use crate::simqat::{ConfigError, LayerConfig, Settled, SimQatConfig, norms};
use crate::targets::{self, TargetLookupError};
use edges::Edges;
use gs_ir::{Attr, FloatBits, GraphId, Module, OpId, Phase, ValueId};
use gs_passes::grid::{Grids, Part, channel_axis};
use gs_passes::manager::{PassContext, PassError, PassReport};
use gs_passes::passes::fold_batch_norms;
use gs_passes::rules::{FILLED, GridClass, Placed, RuleEnv, RuleSet, Site};
use gs_passes::target::{Granularity, Target};
use gs_text::Diagnostic;
use rustc_hash::FxHashSet;
pub(crate) use signs::can_be_negative;
use thiserror::Error;

/// Why quantisers could not be placed.
#[derive(Debug, Error)]
pub enum PlacementError {
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
    /// The module has grids that are constants.
    #[error(
        "the network is quantised already (it is {phase}): quantise or train the float network that it was made from"
    )]
    Quantised {
        /// How far it is.
        phase: Phase,
    },
    /// The module carries quantisers that this algorithm would put otherwise.
    #[error(
        "the network carries quantisers already, of another algorithm or other settings: {first}; ask for those, or \
         begin from the float network that it was made from"
    )]
    OtherQuantisers {
        /// The first of them, and what was wanted.
        first: String,
    },
    /// A batch normalisation behind a weight whose least code has no negative can be neither kept nor folded.
    #[error(
        "\"{name}\" normalises what a quantised layer computes, and has a negative factor; nothing folds it, and the \
         least code of the weight has no negative: make its factors positive, or exclude the layer"
    )]
    NegativeFactor {
        /// The batch normalisation.
        name: String,
    },
    /// There is no graph.
    #[error("the module has no graph")]
    NoGraph,
}

/// A question that a rule asks, with what is known of its subject.
pub(crate) struct Question<'a> {
    /// The module.
    pub(crate) module: &'a Module,
    /// The analysis of its graph.
    pub(crate) grids: &'a Grids,
    /// A layer (all keys `weight_*`) or a tensor.
    pub(crate) site: Site,
    /// What is asked.
    pub(crate) key: &'a str,
    /// Whether the layer is a first or last one; of a tensor, whether anything but layers between these reads it.
    pub(crate) edge: bool,
}

/// The answers that an algorithm has itself, before the settings that all share are asked.
pub(crate) type OwnSettings<'a> = dyn Fn(&Question<'_>) -> Option<Attr> + 'a;

/// What an algorithm wants placed.
pub(crate) struct Request<'a> {
    /// Its rule files by name, run one after the other. A grid on which an algorithm has put a quantiser of its own
    /// has the answer `weight_learned` or `act_learned`, and the rules of SimQAT leave it alone.
    pub(crate) rules: &'a [(&'a str, &'a str)],
    /// The least width of a weight.
    pub(crate) least_weight_bits: u8,
    /// What the algorithm calls keys of the common settings, where that is another name.
    pub(crate) keys: &'a [(&'a str, &'a str)],
    /// Whether weights between the first and the last layers lie on odd levels, whose codes have one more bit.
    pub(crate) odd_levels: bool,
    /// Settings of its own.
    pub(crate) own: &'a OwnSettings<'a>,
}

/// What was placed.
pub(crate) struct Outcome {
    /// The new operations.
    pub(crate) placed: Vec<Placed>,
    /// What became of batch normalisations.
    pub(crate) report: PassReport,
}

/// Places quantisers by an algorithm's rules, states the target in the module's header, and notes for every layer that
/// stays in float why. Twice equals once.
///
/// # Errors
/// A wrong configuration, by its key; see [`PlacementError`].
pub(crate) fn place(
    module: &mut Module,
    context: &mut PassContext<'_>,
    config: &SimQatConfig,
    request: &Request<'_>,
) -> Result<Outcome, PassError> {
    let named = |e: ConfigError| PlacementError::from(e.renamed(request.keys));
    config.check_from(request.least_weight_bits).map_err(named)?;
    let target = targets::find(&config.target).map_err(PlacementError::from)?;
    let settled = config.settle_for(&target, request.odd_levels).map_err(named)?;
    if let Some(before) = module.meta.target.as_ref().filter(|t| **t != target.name) {
        let (before, wanted) = (before.clone(), target.name.clone());
        return Err(PlacementError::OtherTarget { before, wanted }.into());
    }
    let main = module.main().ok_or(PlacementError::NoGraph)?;
    let phase = Phase::of(module);
    if phase > Phase::Instrumented {
        return Err(PlacementError::Quantised { phase }.into());
    }
    // A weight between whose integers nothing lies could be neither measured nor trained.
    let widened = gs_passes::passes::widen_weights(module);
    // What is computed from weights alone is a weight too: quantisers then stand on globals.
    gs_passes::passes::fold_constants(module);
    let mut report = prepare_norms(
        module,
        main,
        context,
        &|module| Env::new(module, main, &target, config, settled, request).map(|env| env.grids),
        Beside { kept: keeps_norms(&target, config, settled), full: !config.weight.narrow_range },
    )?;
    if config.edge_bits.is_some_and(|bits| bits != config.act.bits) {
        let env = Env::new(module, main, &target, config, settled, request)?;
        let split = sums::split(module, main, &env.grids, &env.edges)?;
        report.absorb(PassReport::counting([("sums written twice, for two grids", split)]));
    }
    let mut placed = Vec::new();
    for (name, text) in request.rules {
        let env = Env::new(module, main, &target, config, settled, request)?;
        let rules = crate::rules::load(name, text, module.registry())?;
        let done = gs_passes::rules::insert(module, &rules, &env).map_err(|d| refused(&d, &rules, phase))?;
        for p in &done.placed {
            if let Some(value) = module.op(p.op).operand(0) {
                context.remark(name, &p.value, env.why(value, &p.rule));
            }
        }
        note_kept(module, &env.grids, &target);
        placed.extend(done.placed);
    }
    module.meta.target = Some(target.name.clone());
    if widened > 0 {
        report.absorb(PassReport::counting([("weights made floats", widened)]));
    }
    Ok(Outcome { placed, report })
}

/// Why the insert driver refused. Where the network had quantisers before, these are in the way, not the rules.
fn refused(found: &[Diagnostic], rules: &RuleSet, before: Phase) -> PassError {
    match found {
        [first, ..] if before == Phase::Instrumented && found.iter().all(|d| d.code == FILLED) => {
            let notes: Vec<&str> = first.notes.iter().map(String::as_str).collect();
            let first = format!("{} ({})", first.message, notes.join("; "));
            PlacementError::OtherQuantisers { first }.into()
        }
        _ => gs_text::render_all(found, &rules.sources, gs_text::Style::Plain).into(),
    }
}

/// Whether batch normalisation may stay beside quantised weights: its factors become part of their scales.
fn keeps_norms(target: &Target, config: &SimQatConfig, settled: Settled) -> bool {
    let per_channel = target.weight.granularity.contains(&Granularity::Channel);
    settled.weight_signed && config.weight.symmetric && per_channel
}

/// What batch normalisations stand beside.
#[derive(Clone, Copy)]
struct Beside {
    /// Whether they may stay; see [`keeps_norms`].
    kept: bool,
    /// Whether the least code of a weight has no negative, so that no factor may be negative.
    full: bool,
}

/// Folds the batch normalisations that may not stay beside quantised weights, and makes the factors of the others
/// positive.
///
/// # Errors
/// One that has to be folded for its negative factors, and that no rule folds.
fn prepare_norms(
    module: &mut Module,
    main: GraphId,
    context: &mut PassContext<'_>,
    analyse: &dyn Fn(&Module) -> Result<Grids, PlacementError>,
    Beside { kept, full }: Beside,
) -> Result<PassReport, PassError> {
    let mut grids = analyse(module)?;
    let mut fold = norms::to_fold(module, main, &grids, kept);
    let mut report = PassReport::default();
    let float = Phase::of(module) == Phase::Float;
    let negative = if full && float { norms::stay_negative(module, main, &grids)? } else { Vec::new() };
    fold.extend(&negative);
    if !fold.is_empty() && float {
        let before = fold.len();
        report = fold_batch_norms(module, Some(fold), context)?;
        grids = analyse(module)?;
        if !kept {
            report.notes.push(format!(
                "{before} batch normalisations were folded before quantisers were placed: they can stay beside \
                 quantised weights only where these have no zero point and the target a scale for each channel"
            ));
        }
        for op in negative {
            if module.op(op).is_live() && module.is(op, "batch_norm") {
                return Err(PlacementError::NegativeFactor { name: module.label(op).to_owned() }.into());
            }
        }
    }
    let negated = norms::make_positive(module, main, &grids)?;
    if negated > 0 {
        report.absorb(PassReport::counting([("channels negated", negated)]));
    }
    Ok(report)
}

/// What the rules ask: the analysis of the graph, and the configuration.
struct Env<'c> {
    grids: Grids,
    config: &'c SimQatConfig,
    settled: Settled,
    /// Layer settings in order of increasing precedence, with the operations they are for.
    layers: Vec<(FxHashSet<OpId>, LayerConfig)>,
    edges: Edges,
    edge_bits: Option<u8>,
    own: &'c OwnSettings<'c>,
}

impl<'c> Env<'c> {
    fn new(
        module: &Module,
        graph: GraphId,
        target: &Target,
        config: &'c SimQatConfig,
        settled: Settled,
        request: &Request<'c>,
    ) -> Result<Self, PlacementError> {
        let select = |key: &str, selector: &str| {
            let found = selector::select(module, selector);
            let found = found.map_err(|error| PlacementError::Selector { key: key.to_owned(), error })?;
            Ok::<_, PlacementError>(found.into_iter().collect::<FxHashSet<OpId>>())
        };
        let mut excluded = FxHashSet::default();
        for selector in &config.exclude {
            excluded.extend(select("exclude", selector)?);
        }
        // The longest selector wins: it comes last.
        let mut by_length: Vec<_> = config.layers.iter().collect();
        by_length.sort_by_key(|(selector, _)| selector.len());
        let layers: Result<_, PlacementError> = by_length
            .into_iter()
            .map(|(selector, layer)| Ok((select(&format!("layers.{selector}"), selector)?, *layer)))
            .collect();
        let grids = Grids::of(module, graph, target, &|op| !excluded.contains(&op));
        let (edges, edge_bits) = (Edges::of(module, graph), config.edge_bits);
        Ok(Self { grids, config, settled, layers: layers?, edges, edge_bits, own: request.own })
    }

    /// The setting of a layer, if one was made for it.
    fn layer<T>(&self, op: Option<OpId>, get: impl Fn(&LayerConfig) -> Option<T>) -> Option<T> {
        let op = op?;
        self.layers.iter().rev().filter(|(ops, _)| ops.contains(&op)).find_map(|(_, l)| get(l))
    }

    /// As [`Question::edge`].
    fn is_edge(&self, module: &Module, site: Site) -> bool {
        match site {
            Site::Op(op) => self.edges.contains(op),
            Site::Value(value) => !self.edges.feeds_inner_layers_only(module, &self.grids, value),
        }
    }

    /// Why a quantiser stands at a value, for remarks.
    fn why(&self, value: ValueId, rule: &str) -> String {
        match self.grids.class_of(value) {
            Some((_, class)) if !class.why.is_empty() => class.why.clone(),
            _ => format!("rule {rule}"),
        }
    }

    /// The width of a layer's weight.
    fn weight_bits(&self, op: OpId) -> u8 {
        let edge = self.edge_bits.filter(|_| self.edges.contains(op));
        let by_place = edge.unwrap_or(self.config.weight.bits);
        self.layer(Some(op), |l| l.weight_bits).unwrap_or(by_place)
    }

    fn weight_cfg(&self, module: &Module, op: OpId, key: &str) -> Option<Attr> {
        let w = &self.config.weight;
        match key {
            "weight_bits" | "weight_level_bits" => Some(Attr::Int(i64::from(self.weight_bits(op)))),
            "weight_level_count" => Some(Attr::Int(1 << self.weight_bits(op).min(16))),
            "weight_signed" => Some(Attr::Bool(self.settled.weight_signed)),
            "weight_symmetric" => Some(Attr::Bool(w.symmetric)),
            "weight_narrow" => Some(Attr::Bool(w.narrow_range)),
            "weight_axis" | "weight_level_axis" => {
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
                let edge = self.edge_bits.filter(|_| self.is_edge(module, Site::Value(value)));
                let by_place = edge.unwrap_or(a.bits);
                Some(Attr::Int(i64::from(self.layer(producer, |l| l.act_bits).unwrap_or(by_place))))
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
        let site = match site {
            Site::Value(value) if key.starts_with("weight_") => Site::Op(module.producer(value)?),
            site => site,
        };
        let edge = self.is_edge(module, site);
        let own = (self.own)(&Question { module, grids: &self.grids, site, key, edge });
        own.or_else(|| match site {
            Site::Op(op) => self.weight_cfg(module, op, key),
            Site::Value(value) => self.act_cfg(module, value, key),
        })
    }
}
