//! What the rules that pack weights ask (pack.gsr): types that hold codes of few bits, and the tables by which codes
//! without zero are read back.
//!
//! The grid without zero, `levels = "odd"`, of b bits has the numbers `scale * (2k - (2^b - 1))` for k from 0 to
//! 2^b - 1 (algorithms, section 7.3). No zero point expresses it: that would be `(2^b - 1) / 2`. So k is stored in b
//! bits, and a table turns it into the odd number, which 8 bits hold up to b = 7.

use gs_ir::registry::AttrKind;
use gs_ir::{Attr, ElemType, Literal, ValueId};
use gs_passes::rules::functions::{Arg, Ctx, Function, Gives, Param, Refusal};

const INT: Gives = Gives::Kind(AttrKind::Int);
const INTS: Gives = Gives::Kind(AttrKind::Ints);
const ELEM: Gives = Gives::Kind(AttrKind::Elem);

/// Widest codes without zero whose odd numbers an i8 holds.
const ODD_BITS: i64 = 7;

/// Codes of one bit that are stored together, in one code of 4 bits.
const TOGETHER: i64 = 4;

/// The functions of this file.
pub(crate) const TABLE: &[Function] = &[
    Function::attr(
        "packed",
        &[Param::Attr, Param::Value, Param::Attr, Param::Attr],
        ELEM,
        "the narrowest integer type with the sign of the zero point's that holds the codes of so many bits (absent: all) \
         between two limits (absent: none); refused where they need more than 4 bits",
        packed,
    ),
    Function::attr(
        "odd_codes",
        &[Param::Int],
        ELEM,
        "the type in which the codes of a grid without zero are stored: 4 in a byte, 2, or one",
        |_, args| {
            let elem = match args[0].int()? {
                2 => ElemType::U2,
                3 | 4 => ElemType::U4,
                5..=ODD_BITS => ElemType::U8,
                bits => return Err(format!("codes of {bits} bits without zero have no such type")),
            };
            Ok(Some(Attr::Elem(elem)))
        },
    ),
    Function::tensor(
        "odd_levels",
        &[Param::Int],
        "the odd numbers from -(2^bits - 1) to 2^bits - 1: what the codes of a grid without zero stand for, in steps of \
         its scale",
        |_, args| {
            let levels = levels(args[0].int()?)?;
            Ok(Literal::new(ElemType::I8, [levels.len() as i64], levels))
        },
    ),
    Function::tensor(
        "sign_table",
        &[],
        "the four numbers, 1 or -1, that the bits of each number of 4 bits stand for, the lowest bit first",
        |_, _| {
            let sign = |four: u8, bit: i64| if four >> bit & 1 == 1 { 1i8 } else { -1 };
            let rows = (0..1u8 << TOGETHER).flat_map(|f| (0..TOGETHER).map(move |bit| sign(f, bit) as u8));
            Ok(Literal::new(ElemType::I8, [1 << TOGETHER, TOGETHER], rows.collect::<Vec<u8>>()))
        },
    ),
    Function::attr("power_of_two", &[Param::Int], INT, "2 to this power", |_, args| {
        let n = u32::try_from(args[0].int()?).ok().filter(|n| *n < 63).ok_or("the power is too large")?;
        Ok(Some(Attr::Int(1i64 << n)))
    }),
    Function::attr(
        "last_code",
        &[Param::Int],
        Gives::Kind(AttrKind::Float),
        "the greatest code of so many bits, from 0 on",
        |_, args| {
            let bits = u32::try_from(args[0].int()?).ok().filter(|n| (1..=24).contains(n));
            Ok(Some(Attr::float(((1u32 << bits.ok_or("the number of bits is too large")?) - 1) as f32)))
        },
    ),
    Function::attr("elements", &[Param::Value], INT, "the number of elements of a value", |ctx, args| {
        Ok(Some(Attr::Int(count(ctx, &args[0])?)))
    }),
    Function::attr(
        "fours",
        &[Param::Value],
        INT,
        "a quarter of the number of elements of a value, rounded up",
        |ctx, args| Ok(Some(Attr::Int(fours(count(ctx, &args[0])?)))),
    ),
    Function::condition(
        "whole_fours",
        &[Param::Value],
        "the number of elements is a multiple of 4",
        |ctx, args| Ok(count(ctx, &args[0])? % TOGETHER == 0),
    ),
    Function::condition(
        "unpacked",
        &[Param::Value],
        "the integers are made from packed ones",
        |ctx, args| {
            let module = ctx.graph()?.module;
            let mut value = args[0].value()?;
            let bytes = |v: ValueId| module.type_of(v).as_tensor().filter(|t| t.elem.is_int())?.bytes();
            let whole = bytes(value).ok_or("they are no integers")?;
            while let Some(op) = module.producer(value) {
                // Of a table, the places in it.
                let from = module.op(op).operand(usize::from(module.is(op, "gather")));
                let Some((from, size)) = from.and_then(|v| Some((v, bytes(v)?))) else { return Ok(false) };
                if size < whole {
                    return Ok(true);
                }
                value = from;
            }
            Ok(false)
        },
    )
    .on_graphs_only(),
    Function::attr(
        "scale_shape",
        &[Param::Op, Param::Value],
        INTS,
        "the shape that spreads the scale of a quantiser over its operand: 1 everywhere but along the scale's axis",
        scale_shape,
    ),
];

fn count(ctx: &Ctx<'_>, value: &Arg<'_>) -> Result<i64, Refusal> {
    let count = ctx.view.type_of(value.value()?).as_tensor().and_then(|t| t.count());
    count.and_then(|n| i64::try_from(n).ok()).ok_or_else(|| "its extents are not known".to_owned())
}

fn fours(n: i64) -> i64 {
    n / TOGETHER + i64::from(n % TOGETHER != 0)
}

/// The odd numbers of a grid without zero, as bytes.
fn levels(bits: i64) -> Result<Vec<u8>, Refusal> {
    if !(1..=ODD_BITS).contains(&bits) {
        return Err(format!("odd numbers of {bits} bits do not fit into 8"));
    }
    let last = (1i64 << bits) - 1;
    Ok((0..=last).map(|k| (2 * k - last) as i8 as u8).collect())
}

fn packed(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<Option<Attr>, Refusal> {
    let codes = ctx.view.type_of(args[1].value()?).elem().ok_or("the zero point is not a tensor")?;
    let signed = codes.is_signed_int();
    let given = |at: usize| args[at].optional_attr().map(|_| args[at].int()).transpose();
    let bits = given(0)?.and_then(|b| u32::try_from(b).ok()).unwrap_or(codes.bits());
    let whole = ElemType::int(bits, signed).or(Some(codes)).and_then(ElemType::int_range);
    let (least, greatest) = whole.ok_or("the zero point is not an integer")?;
    let (low, high) = (given(2)?.unwrap_or(least), given(3)?.unwrap_or(greatest));
    let holds = |e: &ElemType| e.int_range().is_some_and(|(l, h)| l <= low && high <= h);
    let narrow = [2, 4].into_iter().filter_map(|bits| ElemType::int(bits, signed)).find(holds);
    let narrow = narrow.filter(|e| e.bits() < codes.bits());
    let elem = narrow.ok_or_else(|| format!("codes from {low} to {high} need more than 4 bits"))?;
    Ok(Some(Attr::Elem(elem)))
}

fn scale_shape(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<Option<Attr>, Refusal> {
    let op = args[0].op()?;
    let scale = ctx.view.operands(op).get(1).copied().flatten().ok_or("it has no scale")?;
    let of = |v| ctx.view.type_of(v).as_tensor().and_then(|t| t.const_dims());
    let scales = of(scale).ok_or("the extents of the scale are not known")?;
    let x = of(args[1].value()?).ok_or("its extents are not known")?;
    if scales.iter().product::<i64>() == 1 {
        return Ok(Some(Attr::ints(&[])));
    }
    let axis = ctx.view.registry().decl(ctx.view.kind(op)).int(ctx.view.attrs(op), "axis");
    let axis = axis.ok_or("the scale lies along no axis")?;
    let axis = if axis < 0 { axis + x.len() as i64 } else { axis };
    let [n] = scales[..] else { return Err("the scale is no vector".to_owned()) };
    let shape: Vec<i64> = (0..x.len() as i64).map(|i| if i == axis { n } else { 1 }).collect();
    Ok(Some(Attr::ints(&shape)))
}
