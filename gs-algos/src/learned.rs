//! What learned quantisers begin with: steps from the mean magnitude of what is quantised, or where its error is least.

use crate::calibrate::{CalibrateOptions, calibrate, finite_weight};
use crate::observe::{Following, observe_while};
use crate::observers::{ObserverError, ObserverKind, WeightRule, channel_ranges, value_range};
use crate::quant::{ChannelLayout, Grid};
use crate::quantisers::{Parameter, quantisers};
use crate::simqat::ConfigError;
use gs_eval::Materializer;
use gs_ir::{GlobalId, Init, Literal, Module, Rewriter, Role, ValueId};
use gs_passes::manager::{PassContext, PassError};
use gs_passes::training::ParamGroup;
use serde::{Deserialize, Serialize};

/// Steps and scales stay above this: they are clamped to it after each step of training.
pub const LEAST_STEP: f32 = 1.0 / (1 << 20) as f32;

/// Clips stay above this.
pub const LEAST_CLIP: f32 = 1e-3;

/// How a step is chosen at first. From ResNet-20 with 2 bits, 200 steps of training came to 83 % where the error was
/// least at first, and to 40 % from mean magnitudes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepInit {
    /// Where the squared error is least.
    #[default]
    Mse,
    /// 2 * mean |v| / sqrt(highest code) (Esser et al. 2020, section 2.1).
    Lsq,
}

/// The mean of magnitudes, observed piece by piece. What is not finite does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Magnitude {
    sum: f64,
    count: u64,
    largest: f32,
}

impl Magnitude {
    /// Adds values.
    pub fn observe(&mut self, values: &[f32]) {
        for v in values.iter().filter(|v| v.is_finite()) {
            self.sum += f64::from(v.abs());
            self.count += 1;
            self.largest = self.largest.max(v.abs());
        }
    }

    /// The largest; 0 of no values.
    pub fn largest(&self) -> f32 {
        self.largest
    }

    /// The mean; nothing of no values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The step of LSQ for codes up to `high`; nothing of no values.
    pub fn step(&self, high: i32) -> Option<f32> {
        Some(((2.0 * self.mean()? / f64::from(high.max(1)).sqrt()) as f32).max(LEAST_STEP))
    }
}

/// The highest code of a grid, counted from zero.
pub fn highest(grid: Grid) -> i32 {
    grid.int.qmax() - if grid.symmetric { grid.int.symmetric_zero_point() } else { 0 }
}

/// The steps of a weight, one or one for each element of `axis`.
///
/// # Errors
/// A bad axis; a weight that is not finite.
pub(crate) fn weight_steps(
    values: &[f32],
    dims: &[usize],
    axis: Option<usize>,
    init: StepInit,
    grid: Grid,
) -> Result<Vec<f32>, ObserverError> {
    if init == StepInit::Mse {
        let rule = WeightRule::Mse { norm: 2.0 };
        let ranges = match axis {
            Some(axis) => channel_ranges(values, dims, axis, rule, grid)?,
            None => vec![value_range(values, rule, grid)],
        };
        return Ok(ranges.into_iter().map(|r| grid.params(r).scale().max(LEAST_STEP)).collect());
    }
    let steps = magnitudes(values, dims, axis)?;
    Ok(steps.into_iter().map(|m| m.step(highest(grid)).unwrap_or(LEAST_STEP)).collect())
}

/// The mean magnitudes of a weight: of all of it, or of each element of `axis`.
///
/// # Errors
/// A bad axis.
pub(crate) fn magnitudes(
    values: &[f32],
    dims: &[usize],
    axis: Option<usize>,
) -> Result<Vec<Magnitude>, ObserverError> {
    let of = |runs: &mut dyn Iterator<Item = &[f32]>| {
        let mut m = Magnitude::default();
        runs.for_each(|run| m.observe(run));
        m
    };
    match axis {
        None => Ok(vec![of(&mut std::iter::once(values))]),
        Some(axis) => {
            let layout = ChannelLayout::new(dims, axis)?;
            layout.check(values.len())?;
            Ok((0..layout.channels()).map(|c| of(&mut layout.runs(values, c))).collect())
        }
    }
}

/// Whether a parameter has no value yet.
pub(crate) fn is_unset(module: &Module, global: GlobalId) -> bool {
    // What is placed is a splat of NaN.
    match &module.global(global).init {
        Init::Splat(bytes) => {
            <[u8; 4]>::try_from(bytes.as_slice()).is_ok_and(|b| f32::from_le_bytes(b).is_nan())
        }
        _ => false,
    }
}

/// Gives a parameter its first contents, of the shape that it has.
pub(crate) fn set_values(rewriter: &mut Rewriter<'_>, global: GlobalId, values: &[f32]) {
    let ty = rewriter.ty(rewriter.global(global).ty).clone();
    let dims = ty.as_tensor().and_then(|t| t.const_dims()).unwrap_or_default();
    let literal = Literal::f32s(dims, values);
    rewriter.set_global(global, ty, Init::Data(literal.data));
}

/// Gives what has no value yet its first one, where the context has what that takes: an executor and the data source
/// `calib`. The pass `calibrate` does the same later.
///
/// # Errors
/// As [`calibrate`].
pub(crate) fn calibrate_activations(
    module: &mut Module,
    context: &mut PassContext<'_>,
    options: CalibrateOptions,
) -> Result<(), PassError> {
    let (Some(executor), Some(&data)) = (context.executor, context.data.get("calib")) else {
        return Ok(());
    };
    let options = CalibrateOptions { limit: options.limit.or(Some(ENOUGH)), ..options };
    let mut progress = |done, total| context.progress("calibrating", done, total);
    calibrate(module, executor, data, &options, &mut progress)?;
    Ok(())
}

/// Samples from which first values are chosen at most; training finds better ones.
const ENOUGH: usize = 512;

/// What the levels of a weight are scaled by at first: from its elements and extents, the axis along which scales lie, and
/// the width of the numbers of levels.
type FirstScales = fn(&[f32], &[usize], Option<usize>, u8) -> Result<Vec<f32>, PassError>;

/// Gives the scales of weights on levels, placed by an operator of this name, their first contents where they have
/// none; `trained`: and makes them parameters.
///
/// # Errors
/// A weight that cannot be read, or is not finite.
pub(crate) fn set_scales(
    module: &mut Module,
    operator: &str,
    trained: bool,
    first: FirstScales,
) -> Result<(), PassError> {
    let mut found = Vec::new();
    let mut reader = Materializer::new(module);
    for q in quantisers(module)? {
        let Parameter::Level { bits } = q.parameter else { continue };
        if !module.is(q.op, operator) || !is_unset(module, q.range) {
            continue;
        }
        let (values, dims) = finite_weight(module, &mut reader, &q)?;
        found.push((q.range, first(&values, &dims, q.axis, bits)?));
    }
    let mut rewriter = Rewriter::new(module);
    for (global, scales) in found {
        set_values(&mut rewriter, global, &scales);
        if trained {
            rewriter.set_role(global, Role::Param, true);
        }
    }
    Ok(())
}

/// Lets the ranges that are observed, not learned, follow training.
///
/// # Errors
/// An observer that cannot; see [`observe_while`].
pub(crate) fn follow_ranges(module: &mut Module, observer: ObserverKind) -> Result<(), PassError> {
    follow_while(module, observer, None)
}

/// As [`follow_ranges`]; ranges stay as they are where the truth value does not hold.
///
/// # Errors
/// As [`follow_ranges`].
pub(crate) fn follow_while(
    module: &mut Module,
    observer: ObserverKind,
    watching: Option<ValueId>,
) -> Result<(), PassError> {
    let following = Following::of(observer).ok_or(ConfigError::Observer { observer })?;
    observe_while(module, following, watching).map(|_| ())
}

/// The group of the parameters (second operands) of some quantisers; none where there is none.
pub(crate) fn parameters_of(
    module: &Module,
    operators: &[&str],
    group: impl FnOnce(Vec<String>) -> ParamGroup,
) -> Vec<ParamGroup> {
    operands_of(module, operators, 1).map(group).into_iter().collect()
}

/// The names of the trained globals that operators of `@main` read at a place; none where there is none.
pub(crate) fn operands_of(module: &Module, operators: &[&str], place: usize) -> Option<Vec<String>> {
    let main = module.main()?;
    let mut found: Vec<GlobalId> = module
        .ops_nested(main)
        .into_iter()
        .filter(|&op| operators.contains(&module.op_name(op)))
        .filter_map(|op| module.as_global(module.op(op).operand(place)?))
        .filter(|&g| module.global(g).trainable)
        .collect();
    found.sort_unstable();
    found.dedup();
    let names = found.into_iter().map(|g| module.str(module.global(g).name).to_owned());
    Some(names.collect()).filter(|names: &Vec<String>| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::IntRange;

    #[test]
    fn steps_are_those_of_the_paper() {
        let grid = Grid { int: IntRange::new(3, true, false).unwrap(), symmetric: true };
        let values = [-3.0, -0.3, 0.2, 0.5, 5.0];
        let steps = weight_steps(&values, &[5], None, StepInit::Lsq, grid).unwrap();
        assert!((steps[0] - 2.078_461).abs() < 1e-6, "{steps:?}");
        let steps = weight_steps(&[1.0, 1.0, 0.0, 0.0], &[2, 2], Some(0), StepInit::Lsq, grid).unwrap();
        assert_eq!(steps, [2.0 / 3f32.sqrt(), LEAST_STEP]);
        // Without error: the values are the codes of a step of 0.25.
        let values: Vec<f32> = (-4..4).map(|k| k as f32 * 0.25).collect();
        let steps = weight_steps(&values, &[8], None, StepInit::Mse, grid).unwrap();
        assert!((steps[0] - 0.25).abs() < 0.04, "{steps:?}");
    }
}
