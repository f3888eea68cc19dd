//! Operators that carry graphs: a choice, a loop, a scan. Their bodies read values of the surrounding graphs directly.

use super::ctx::{OpCtx, OpError};
use super::movement::join;
use crate::tensor::{Storage, Tensor};

pub(super) const TABLE: &[super::Row] = &[("if", branch), ("loop", repeat), ("scan", scan)];

/// One truth value.
fn truth(t: &Tensor) -> Result<bool, OpError> {
    match t.storage() {
        Storage::Bool(v) if v.len() == 1 => Ok(v[0]),
        _ => Err(OpError::Elem { operand: "cond", found: t.elem() }),
    }
}

fn branch(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let taken = truth(ctx.operand(0)?)?;
    ctx.run_region(usize::from(!taken), Vec::new())
}

/// Values collected turn by turn, put one behind the other at the end along a new axis.
struct Collected {
    parts: Vec<Vec<Tensor>>,
}

impl Collected {
    fn new(count: usize) -> Self {
        Self { parts: vec![Vec::new(); count] }
    }

    fn push(&mut self, values: impl Iterator<Item = Tensor>) {
        for (list, v) in self.parts.iter_mut().zip(values) {
            list.push(v);
        }
    }

    /// Each list as one tensor with the turns on `axis`, last turn first where `reversed`.
    /// `first` is the position of the first of them among the operation's results.
    fn finish(
        self,
        ctx: &OpCtx<'_>,
        first: usize,
        layout: impl Fn(usize) -> (i64, bool),
    ) -> Result<Vec<Tensor>, OpError> {
        let stack = |(i, mut list): (usize, Vec<Tensor>)| {
            let (axis, reversed) = layout(i);
            let Some(one) = list.first() else { return Ok(ctx.declared_empty(first + i)) };
            let axis = ctx.axis(axis, one.rank() + 1)?;
            if reversed {
                list.reverse();
            }
            let raised = list.iter().map(|t| {
                let mut dims = t.dims().to_vec();
                dims.insert(axis, 1);
                t.reshaped(dims)
            });
            let raised: Vec<Tensor> = raised.collect::<Result<_, _>>()?;
            join(ctx, &raised.iter().collect::<Vec<_>>(), axis)
        };
        self.parts.into_iter().enumerate().map(stack).collect()
    }
}

/// The body takes the turn's number, the condition and the carried values, and gives the condition, the carried values
/// and what is collected. Without a count and a condition it would run for ever, up to the limit of steps.
fn repeat(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let most = match ctx.optional(0) {
        Some(_) => Some(ctx.int_scalar_or_zero(0)?),
        None => None,
    };
    let mut go = ctx.optional(1).map_or(Ok(true), truth)?;
    let mut carried: Vec<Tensor> =
        (2..ctx.operands.len()).map(|i| ctx.operand(i).cloned()).collect::<Result<_, _>>()?;
    let states = carried.len();
    let mut collected = Collected::new(ctx.result_count.saturating_sub(states));
    let mut turn = 0i64;
    while go && most.is_none_or(|m| turn < m) {
        let mut inputs = vec![Tensor::i64s([], [turn])?, bool_scalar(go)?];
        inputs.append(&mut carried);
        let mut results = ctx.run_region(0, inputs)?.into_iter();
        go = truth(&results.next().ok_or(OpError::MissingOperand("cond"))?)?;
        carried = results.by_ref().take(states).collect();
        collected.push(results);
        turn += 1;
    }
    carried.extend(collected.finish(ctx, states, |_| (0, false))?);
    Ok(carried)
}

fn bool_scalar(v: bool) -> Result<Tensor, OpError> {
    Ok(Tensor::new(gs_ir::ElemType::Bool, [], Storage::Bool(vec![v]))?)
}

/// Walks one or more tensors along an axis. Operands are the carried values, then the scanned ones.
fn scan(ctx: &OpCtx<'_>) -> Result<Vec<Tensor>, OpError> {
    let scanned = usize::try_from(ctx.int("num_scan_inputs")?).unwrap_or(0);
    let states = ctx.operands.len().checked_sub(scanned);
    let states = states.ok_or(OpError::Attr { name: "num_scan_inputs", reason: "exceeds the operands" })?;
    let entry = |name: &str, i: usize| ctx.ints_if(name).and_then(|v| v.get(i)).copied().unwrap_or(0);
    let all: Vec<Tensor> =
        (0..ctx.operands.len()).map(|i| ctx.operand(i).cloned()).collect::<Result<_, _>>()?;
    let (initial, inputs) = all.split_at(states);
    let mut axes = Vec::with_capacity(scanned);
    for (i, t) in inputs.iter().enumerate() {
        axes.push(ctx.axis(entry("scan_input_axes", i), t.rank())?);
    }
    let turns = inputs.first().zip(axes.first()).map_or(0, |(t, &a)| t.dims()[a]);
    if let Some((t, _)) = inputs.iter().zip(&axes).find(|(t, a)| t.dims()[**a] != turns) {
        return Err(OpError::Extents {
            what: "scanned extents",
            left: t.dims().to_vec(),
            right: vec![turns],
        });
    }
    let mut carried = initial.to_vec();
    let mut collected = Collected::new(ctx.result_count.saturating_sub(states));
    for turn in 0..turns {
        let mut args = std::mem::take(&mut carried);
        for (i, (t, &axis)) in inputs.iter().zip(&axes).enumerate() {
            let at = if entry("scan_input_directions", i) != 0 { turns - 1 - turn } else { turn };
            args.push(row(t, axis, at)?);
        }
        let mut results = ctx.run_region(0, args)?.into_iter();
        carried = results.by_ref().take(states).collect();
        collected.push(results);
    }
    let layout = |i: usize| (entry("scan_output_axes", i), entry("scan_output_directions", i) != 0);
    carried.extend(collected.finish(ctx, states, layout)?);
    Ok(carried)
}

/// Position `at` of an axis, which vanishes.
fn row(t: &Tensor, axis: usize, at: usize) -> Result<Tensor, OpError> {
    let own = super::layout::strides(t.dims());
    let (mut dims, mut steps) = (t.dims().to_vec(), own.clone());
    dims.remove(axis);
    steps.remove(axis);
    let order: Vec<usize> =
        super::layout::places(&dims, &steps).into_iter().map(|p| p + at * own[axis]).collect();
    Ok(Tensor::new(t.elem(), dims, t.storage().pick(&order))?)
}
