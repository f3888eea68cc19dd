//! Conditions and functions about quantisation grids: a scale and a zero point, both constants.

use super::{Arg, Ctx, Function, Gives, Param, Refusal};
use gs_ir::registry::{AttrKind, Traits};
use gs_ir::{Attr, ElemType, OpId, Use, ValueId};

/// More channels than this are not looked through; weights have fewer.
const LIMIT: usize = 1 << 20;

/// The functions of this file.
pub(super) const TABLE: &[Function] = &[
    Function::condition(
        "zero_is_minimum",
        &[Param::Value],
        "the constant zero point is the smallest value of its type everywhere, so that the grid holds no negative \
         number",
        |ctx, args| {
            let z = args[0].value()?;
            let (low, _) = elem(ctx, z)?.int_range().ok_or("the zero point is not an integer")?;
            Ok(ctx.constant(z, LIMIT)?.iter().all(|x| *x == low as f64))
        },
    ),
    Function::condition(
        "symmetric",
        &[Param::OptValue],
        "the zero point is absent, or a constant that is 0 everywhere",
        |ctx, args| match args[0].optional_value() {
            None => Ok(true),
            Some(z) => Ok(ctx.constant(z, LIMIT)?.iter().all(|x| *x == 0.0)),
        },
    ),
    Function::condition(
        "regular",
        &[Param::Value],
        "the scale is a constant, positive and far from both ends of the numbers of f32, so that a code of 16 bits \
         survives a multiplication and a division by it",
        |ctx, args| {
            let far = |s: &f64| (2f64.powi(-100)..=2f64.powi(100)).contains(s);
            Ok(ctx.constant(args[0].value()?, LIMIT)?.iter().all(far))
        },
    ),
    Function::condition("per_tensor", &[Param::Value], "the scale has one element", |ctx, args| {
        Ok(ctx.view.type_of(args[0].value()?).as_tensor().and_then(|t| t.count()) == Some(1))
    }),
    Function::condition(
        "absorbed",
        &[Param::OptOp, Param::Value, Param::OptValue],
        "putting a value on the grid of this scale and zero point clips it at least as much as the activation \
         (`relu` or `clip`; absent: nothing) does",
        |ctx, args| absorbed(ctx, args, None, None),
    ),
    Function::condition(
        "absorbed_between",
        &[Param::OptOp, Param::Value, Param::OptValue, Param::Attr, Param::Attr],
        "putting a value on the grid of this scale and zero point and clipping its code between two (absent: all) \
         clips it at least as much as the activation does",
        |ctx, args| {
            let limit = |a: &Arg<'_>| a.optional_attr().map(|_| a.float()).transpose();
            absorbed(ctx, &args[..3], limit(&args[3])?, limit(&args[4])?)
        },
    ),
    Function::condition(
        "within",
        &[Param::Op, Param::Value, Param::Value, Param::OptValue],
        "the activation (`relu` or `clip`) changes no number that a code of the value's type stands for on the grid of \
         this scale and zero point",
        within,
    ),
    Function::condition(
        "full_width",
        &[Param::Attr, Param::Value],
        "the number of bits is absent or that of the zero point's type",
        |ctx, args| match args[0].optional_attr() {
            None => Ok(true),
            Some(_) => Ok(args[0].int()? == i64::from(elem(ctx, args[1].value()?)?.bits())),
        },
    ),
    Function::condition(
        "same_grid",
        &[Param::Value, Param::OptValue, Param::Value, Param::OptValue],
        "both scales and both zero points are the same value or constants of equal contents and type",
        |ctx, args| Ok(same_constant(ctx, &args[0], &args[2])? && same_constant(ctx, &args[1], &args[3])?),
    ),
    Function::condition(
        "quantised",
        &[Param::Op],
        "the first result of the operation is read by quantisers only",
        |ctx, args| {
            let module = ctx.graph()?.module;
            let readers = module.value(module.op(args[0].op()?).result()).uses();
            let quantises = |u: &Use| match *u {
                Use::Operand(op, 0) => module.decl(op).traits.has(Traits::QUANTISER),
                _ => false,
            };
            Ok(!readers.is_empty() && readers.iter().all(quantises))
        },
    )
    .on_graphs_only(),
    Function::attr(
        "factor_axis",
        &[Param::Op, Param::Value],
        Gives::Kind(AttrKind::Int),
        "the axis of the weight that a `qdq` quantises along which factors differ; refused where they differ along \
         several, or where the scales do along another one",
        factor_axis,
    ),
    Function::attr(
        "flat_shape",
        &[Param::Value],
        Gives::Kind(AttrKind::Ints),
        "the shape of a vector of the value's elements",
        |ctx, args| {
            let count = ctx.view.type_of(args[0].value()?).as_tensor().and_then(|t| t.count());
            let count = count.and_then(|n| i64::try_from(n).ok()).ok_or("the shape is not known")?;
            Ok(Some(Attr::ints(&[count])))
        },
    ),
    Function::attr(
        "least_code",
        &[Param::Attr, Param::Value, Param::Attr],
        Gives::Kind(AttrKind::Float),
        "the last argument where it is there, else the least code of so many bits (absent: all) of the zero point's type",
        |ctx, args| code_limit(ctx, args, |range| range.0),
    ),
    Function::attr(
        "greatest_code",
        &[Param::Attr, Param::Value, Param::Attr],
        Gives::Kind(AttrKind::Float),
        "the last argument where it is there, else the greatest code of so many bits (absent: all) of the zero point's \
         type",
        |ctx, args| code_limit(ctx, args, |range| range.1),
    ),
    Function::attr(
        "code",
        &[Param::Attr, Param::Value, Param::Value, Param::OptValue],
        Gives::Kind(AttrKind::Float),
        "the code of the value's type that stands for a number (absent: 0) on a grid for the whole tensor; refused \
         where the grid does not hold that number",
        code,
    ),
];

fn factor_axis(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<Option<Attr>, Refusal> {
    let op = args[0].op()?;
    let operands = ctx.view.operands(op);
    let extents = |v: Option<ValueId>| {
        let tensor = v.and_then(|v| ctx.view.type_of(v).as_tensor()?.const_dims());
        tensor.ok_or_else(|| "a shape is not known".to_owned())
    };
    let operand = |i: usize| operands.get(i).copied().flatten();
    let weight = extents(operand(0))?;
    let scales = extents(operand(1))?.iter().product::<i64>();
    let factors = extents(Some(args[1].value()?))?;
    // Factors are aligned with the last axes of the weight.
    let before = weight.len().checked_sub(factors.len()).ok_or("there are more factors than weights")?;
    let mut differing = factors.iter().enumerate().filter(|(_, n)| **n != 1).map(|(i, _)| before + i);
    let axis = match (differing.next(), differing.next()) {
        (Some(axis), None) => axis,
        (None, _) => weight.iter().position(|n| *n == 1).ok_or("one factor for all channels")?,
        _ => return Err("factors differ along several axes".into()),
    };
    let own = ctx.view.registry().decl(ctx.view.kind(op)).int(ctx.view.attrs(op), "axis");
    let own = own.map(|a| if a < 0 { a + weight.len() as i64 } else { a });
    if scales != 1 && own != Some(axis as i64) {
        return Err("the scales differ along another axis".into());
    }
    Ok(Some(Attr::Int(axis as i64)))
}

fn elem(ctx: &Ctx<'_>, value: ValueId) -> Result<ElemType, Refusal> {
    ctx.view.type_of(value).elem().ok_or_else(|| "it is not a tensor".to_owned())
}

/// A limit of the codes: the one given, else that of an integer of so many bits with the sign of the zero point's type.
fn code_limit(ctx: &Ctx<'_>, args: &[Arg<'_>], pick: fn((i64, i64)) -> i64) -> Result<Option<Attr>, Refusal> {
    if args[2].optional_attr().is_some() {
        return Ok(Some(Attr::float(args[2].int()? as f32)));
    }
    let elem = elem(ctx, args[1].value()?)?;
    let bits = if args[0].optional_attr().is_some() { args[0].int()? } else { i64::from(elem.bits()) };
    // Codes are whole numbers of f32 here, so they have no more bits than those.
    let bits =
        u32::try_from(bits).ok().filter(|b| (1..=24).contains(b)).ok_or("the number of bits is too large")?;
    let range = match elem.int_range() {
        Some((low, _)) if low < 0 => (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1),
        Some(_) => (0, (1i64 << bits) - 1),
        None => return Err("the zero point is not an integer".into()),
    };
    Ok(Some(Attr::float(pick(range) as f32)))
}

/// A grid: scale and zero point of each channel (or of the tensor), and the least and the greatest code.
struct GridOf {
    channels: Vec<(f64, f64)>,
    least: i64,
    greatest: i64,
}

/// The grid of codes of a type, of a constant scale and zero point; an absent zero point is 0.
fn grid(ctx: &Ctx<'_>, codes: ElemType, scale: &Arg<'_>, zero: &Arg<'_>) -> Result<GridOf, Refusal> {
    let scales = ctx.constant(scale.value()?, LIMIT).map_err(|e| format!("scale: {e}"))?;
    let zeros = match zero.optional_value() {
        None => vec![0.0],
        Some(z) => ctx.constant(z, LIMIT).map_err(|e| format!("zero point: {e}"))?,
    };
    let (least, greatest) = codes.int_range().ok_or("the codes are not integers")?;
    let n = scales.len().max(zeros.len());
    let at = |v: &[f64], i: usize| if v.len() == 1 { v.first().copied() } else { v.get(i).copied() };
    let channels: Option<Vec<(f64, f64)>> = (0..n).map(|i| Some((at(&scales, i)?, at(&zeros, i)?))).collect();
    let channels = channels.ok_or("scale and zero point differ in length")?;
    Ok(GridOf { channels, least, greatest })
}

/// The code of a number before clipping: as `quantize` computes it, in f32, rounding half to even.
fn round_to_code(x: f64, scale: f64, zero: f64) -> f64 {
    f64::from((x as f32 / scale as f32).round_ties_even()) + zero
}

/// The limits of an activation that clips.
fn limits(ctx: &Ctx<'_>, op: OpId) -> Result<(f64, f64), Refusal> {
    let attrs = ctx.view.attrs(op);
    match ctx.view.registry().decl(ctx.view.kind(op)).name {
        "relu" => Ok((0.0, f64::INFINITY)),
        "clip" => {
            let bound = |name, open: f32| f64::from(attrs.float(name, open));
            Ok((bound("min", f32::NEG_INFINITY), bound("max", f32::INFINITY)))
        }
        name => Err(format!("`{name}` is not an activation that clips")),
    }
}

fn within(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<bool, Refusal> {
    let (low, high) = limits(ctx, args[0].op()?)?;
    let codes = elem(ctx, args[1].value()?)?;
    let GridOf { channels, least, greatest } = grid(ctx, codes, &args[2], &args[3])?;
    let number = |code: i64, s: f64, z: f64| f64::from((code as f64 - z) as f32 * s as f32);
    Ok(channels.iter().all(|&(s, z)| s > 0.0 && number(least, s, z) >= low && number(greatest, s, z) <= high))
}

/// Whether a grid, of which only the codes between two limits are used, absorbs an activation.
fn absorbed(ctx: &Ctx<'_>, args: &[Arg<'_>], from: Option<f64>, to: Option<f64>) -> Result<bool, Refusal> {
    let Some(op) = args[0].optional_op() else { return Ok(true) };
    let (low, high) = limits(ctx, op)?;
    // What quantises without a zero point gives unsigned codes, as ONNX says.
    let codes = args[2].optional_value().map_or(Ok(ElemType::U8), |z| elem(ctx, z))?;
    let GridOf { channels, least, greatest } = grid(ctx, codes, &args[1], &args[2])?;
    let (least, greatest) = (
        from.map_or(least as f64, |f| f.max(least as f64)),
        to.map_or(greatest as f64, |t| t.min(greatest as f64)),
    );
    // Rounding is monotone: if the bound itself lands on the last code, everything beyond it does.
    let below = |s: f64, z: f64| low == f64::NEG_INFINITY || round_to_code(low, s, z) <= least;
    let above = |s: f64, z: f64| high == f64::INFINITY || round_to_code(high, s, z) >= greatest;
    Ok(channels.iter().all(|&(s, z)| s > 0.0 && below(s, z) && above(s, z)))
}

fn same_constant(ctx: &Ctx<'_>, a: &Arg<'_>, b: &Arg<'_>) -> Result<bool, Refusal> {
    let (Some(a), Some(b)) = (a.optional_value(), b.optional_value()) else {
        return Ok(a.optional_value().is_none() && b.optional_value().is_none());
    };
    if ctx.view.same(a, b) {
        return Ok(true);
    }
    let same_elem = elem(ctx, a)? == elem(ctx, b)?;
    let bits =
        |v| Ok::<_, Refusal>(ctx.constant(v, LIMIT)?.into_iter().map(f64::to_bits).collect::<Vec<_>>());
    Ok(same_elem && bits(a)? == bits(b)?)
}

fn code(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<Option<Attr>, Refusal> {
    let x = if args[0].optional_attr().is_some() { args[0].float()? } else { 0.0 };
    let codes = elem(ctx, args[1].value()?)?;
    let GridOf { channels, least, greatest } = grid(ctx, codes, &args[2], &args[3])?;
    let [(scale, zero)] = channels[..] else { return Err("the grid has one scale for each channel".into()) };
    let code = round_to_code(x, scale, zero);
    let back = (code - zero) as f32 * scale as f32;
    if code < least as f64 || code > greatest as f64 || f64::from(back) != x {
        return Err(format!("the grid does not hold {x}"));
    }
    Ok(Some(Attr::float(code as f32)))
}
