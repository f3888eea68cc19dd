//! Ranges that follow training: in `@train`, each quantiser's range becomes what the graph stores.
//!
//! A weight is seen whole at every step, so its quantiser uses the range that it has now. Activations are seen batch by
//! batch: the range of the step before is used, then mixed with that of the batch (Jacob et al. 2018, section 3.1).

use crate::observers::{KindError, ObserverKind};
use gs_ir::{At, Attr, AttrSet, ElemType, GlobalId, Literal, Module, OpId, Rewriter, Role, ValueId};
use gs_passes::grid::weight_only;
use gs_passes::manager::PassError;
use gs_passes::rules::build::constant;
use gs_passes::training::train_graph;
use rustc_hash::FxHashMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Makes the ranges of `@train` follow what is seen; how many do. `decay` is the part of an activation's range that is
/// kept at each step.
///
/// # Errors
/// Where there is no graph `@train`.
pub fn observe(module: &mut Module, decay: f32) -> Result<usize, PassError> {
    observe_while(module, Following::Mix { decay }, None)
}

/// How the range of an activation follows training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Following {
    /// Mixed with that of the batch; `decay` is the part that is kept.
    Mix {
        /// The part that is kept.
        decay: f32,
    },
    /// The least and the greatest of all that was seen.
    Extremes,
}

impl Following {
    /// How an observer follows training, if it can.
    pub(crate) fn of(observer: ObserverKind) -> Option<Self> {
        match observer {
            ObserverKind::Ema { decay } => Some(Self::Mix { decay: decay as f32 }),
            ObserverKind::MinMax => Some(Self::Extremes),
            _ => None,
        }
    }
}

/// Reads the observer of a configuration for training. A name that means nothing is answered with those that do there.
pub(crate) fn following<'de, D: Deserializer<'de>>(from: D) -> Result<ObserverKind, D::Error> {
    String::deserialize(from)?.parse().map_err(|e| match e {
        KindError::UnknownKind { name } => D::Error::custom(format!(
            "unknown observer `{name}`, expected `ema` or `minmax`, which follow training"
        )),
        other => D::Error::custom(other),
    })
}

/// As [`observe`]; ranges of activations stay as they are where the truth value does not hold.
pub(crate) fn observe_while(
    module: &mut Module,
    following: Following,
    watching: Option<ValueId>,
) -> Result<usize, PassError> {
    let train = train_graph(module).ok_or("there is no graph @train; run `loss` first")?;
    let mut rewriter = Rewriter::new(module);
    let ops: Vec<OpId> = rewriter.ops_in(train).filter(|&op| rewriter.is(op, "fake_quant")).collect();
    // A range that several quantisers share is stored once, as the last of them leaves it.
    let mut stored: FxHashMap<GlobalId, ValueId> = FxHashMap::default();
    for op in ops {
        let (Some(x), Some(range)) = (rewriter.op(op).operand(0), rewriter.op(op).operand(1)) else {
            continue;
        };
        let Some(global) = rewriter.as_global(range).filter(|&g| rewriter.global(g).role == Role::State)
        else {
            continue;
        };
        let weight = weight_only(&rewriter, x);
        let mut attrs = AttrSet::new();
        if let Some(axis) = rewriter.attrs_of(op).get("axis").cloned() {
            attrs.set("axis", axis);
        }
        let decay = match following {
            Following::Mix { decay } if !weight => decay,
            _ => 0.0,
        };
        attrs.set("decay", Attr::float(decay));
        let earlier = stored.get(&global).copied().unwrap_or(range);
        let mut new = rewriter.emit("observe", &[x, earlier], attrs, At::Before(op))?;
        if !weight && following == Following::Extremes {
            new = widest(&mut rewriter, [new, earlier], At::Before(op))?;
        }
        if weight {
            rewriter.set_operand(op, 1, Some(new));
        } else if let Some(watching) = watching {
            new = rewriter.emit("where", &[watching, new, earlier], AttrSet::new(), At::Before(op))?;
        }
        stored.insert(global, new);
    }
    let count = stored.len();
    let mut stored: Vec<(GlobalId, ValueId)> = stored.into_iter().collect();
    stored.sort_unstable();
    for (global, value) in stored {
        rewriter.set_update(train, global, value);
    }
    Ok(count)
}

/// The range that covers two: the lesser minimum and the greater maximum.
fn widest(rewriter: &mut Rewriter<'_>, ranges: [ValueId; 2], at: At) -> Result<ValueId, PassError> {
    let low = rewriter.emit("min", &ranges, AttrSet::new(), at)?;
    let high = rewriter.emit("max", &ranges, AttrSet::new(), at)?;
    let is_low = constant(rewriter, &Literal::new(ElemType::Bool, [2], vec![1, 0]));
    let is_low = rewriter.global(is_low).value;
    Ok(rewriter.emit("where", &[is_low, low, high], AttrSet::new(), at)?)
}
