//! Functions that give constant tensors. Where an operand is wanted, a call of one of these makes a constant global;
//! equal ones are shared.

use super::super::contents::encode;
use super::{Ctx, Function, Param, Refusal};
use gs_ir::{Attr, ElemType, Literal};

/// The functions of this file.
pub(super) const TABLE: &[Function] = &[
    Function::tensor(
        "scalar",
        &[Param::Number, Param::AttrRest],
        "a number as an f32 scalar, or as a scalar of the element type that follows",
        |_, args| splat(args[0].float()?, elem_arg(args.get(1))?, Vec::new()),
    ),
    Function::tensor(
        "filled",
        &[Param::Ints, Param::Number, Param::AttrRest],
        "a tensor of these extents, f32 or of the element type that follows, that holds the number everywhere",
        |_, args| splat(args[1].float()?, elem_arg(args.get(2))?, args[0].ints()?),
    ),
    Function::tensor("vector", &[Param::Ints], "a list of integers as an i64 vector", |_: &Ctx<'_>, args| {
        let list = args[0].ints()?;
        Ok(Literal::i64s([list.len() as i64], &list))
    }),
];

fn elem_arg(arg: Option<&super::Arg<'_>>) -> Result<ElemType, Refusal> {
    match arg.map(|a| a.optional_attr()) {
        None => Ok(ElemType::F32),
        Some(Some(Attr::Elem(e))) => Ok(*e),
        _ => Err("an element type is needed".into()),
    }
}

fn splat(value: f64, elem: ElemType, dims: Vec<i64>) -> Result<Literal, Refusal> {
    /// Constants larger than this are no business of a rule.
    const LIMIT: usize = 1 << 16;
    let one = encode(elem, value).ok_or_else(|| format!("{elem} does not hold {value}"))?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    let count = count.filter(|n| *n <= LIMIT).ok_or("the tensor is too large")?;
    if elem.bits() < 8 && count != 1 {
        return Err(format!("a tensor of {elem} is not filled here"));
    }
    Ok(Literal::new(elem, dims, one.repeat(count)))
}
