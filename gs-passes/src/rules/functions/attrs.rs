//! Functions that compute attributes.

use super::{Arg, Ctx, Function, Gives, Param, Refusal};
use gs_ir::registry::{AttrKind, Default};
use gs_ir::{Attr, Dim, ElemType, ValueId};

const INT: Gives = Gives::Kind(AttrKind::Int);
const INTS: Gives = Gives::Kind(AttrKind::Ints);

/// The functions of this file.
pub(super) const TABLE: &[Function] = &[
    Function::attr(
        "attr",
        &[Param::Op, Param::Word],
        Gives::Anything,
        "the attribute of this name of an operation, its default where it is not given",
        |ctx, args| attr_of(ctx, &args[0], args[1].word()?),
    ),
    Function::attr(
        "cfg",
        &[Param::Site, Param::Word],
        Gives::Anything,
        "the configuration of a layer or tensor under this key",
        |ctx, args| {
            let key = args[1].word()?;
            let found = ctx.env.cfg(ctx.graph()?.module, args[0].site()?, key);
            found.map(Some).ok_or_else(|| format!("nothing is configured under `{key}`"))
        },
    )
    .on_graphs_only(),
    Function::attr(
        "compose",
        &[Param::Attr, Param::Attr],
        INTS,
        "the permutation that does the first one and then the second; absent stands for the reversal of all axes",
        compose,
    ),
    Function::attr("inverse", &[Param::Attr], INTS, "the permutation that undoes this one", |_, args| {
        let Some(_) = args[0].optional_attr() else { return Ok(None) };
        let p = permutation(&args[0])?;
        let mut inverse = vec![0i64; p.len()];
        p.iter().enumerate().for_each(|(i, &to)| inverse[to] = i as i64);
        ints(inverse)
    }),
    Function::attr(
        "permute_axis",
        &[Param::Ints, Param::Int],
        INT,
        "where an axis of a tensor comes from before the permutation",
        |_, args| {
            let p = permutation(&args[0])?;
            Ok(Some(Attr::Int(p[index(args[1].int()?, p.len())?] as i64)))
        },
    ),
    Function::attr(
        "ints",
        &[Param::AttrRest],
        INTS,
        "a list of integers, from integers and lists in line",
        |_, args| {
            let mut all = Vec::new();
            for a in args {
                all.extend(a.ints()?);
            }
            ints(all)
        },
    ),
    Function::attr(
        "nth",
        &[Param::Ints, Param::Int],
        INT,
        "an element of a list; negative places count from the end",
        |_, args| {
            let list = args[0].ints()?;
            Ok(Some(Attr::Int(list[index(args[1].int()?, list.len())?])))
        },
    ),
    Function::attr(
        "union",
        &[Param::Ints, Param::Ints],
        INTS,
        "the numbers of both lists, sorted, each once",
        |_, args| {
            let mut all = args[0].ints()?;
            all.extend(args[1].ints()?);
            all.sort_unstable();
            all.dedup();
            ints(all)
        },
    ),
    Function::attr("add", &[Param::Int, Param::Int], INT, "the sum", |_, args| {
        arithmetic(args, i64::checked_add)
    }),
    Function::attr("sub", &[Param::Int, Param::Int], INT, "the difference", |_, args| {
        arithmetic(args, i64::checked_sub)
    }),
    Function::attr("mul", &[Param::Int, Param::Int], INT, "the product", |_, args| {
        arithmetic(args, i64::checked_mul)
    }),
    Function::attr(
        "fmul",
        &[Param::Number, Param::Number],
        Gives::Kind(AttrKind::Float),
        "the product of two numbers",
        |_, args| Ok(Some(Attr::float((args[0].float()? * args[1].float()?) as f32))),
    ),
    Function::attr(
        "max_of",
        &[Param::Attr, Param::Attr],
        Gives::Kind(AttrKind::Float),
        "the larger of two numbers; an absent one does not count",
        |_, args| larger(args, f32::max),
    ),
    Function::attr(
        "min_of",
        &[Param::Attr, Param::Attr],
        Gives::Kind(AttrKind::Float),
        "the smaller of two numbers; an absent one does not count",
        |_, args| larger(args, f32::min),
    ),
    Function::attr(
        "negated",
        &[Param::Attr],
        Gives::Kind(AttrKind::Bool),
        "the opposite of a truth value",
        |_, args| Ok(Some(Attr::Bool(!truth(&args[0])?))),
    ),
    Function::attr(
        "swap_unless",
        &[Param::Attr],
        INTS,
        "the permutation that swaps the axes of a matrix, or leaves them where the truth value holds",
        |_, args| ints(if truth(&args[0])? { vec![0, 1] } else { vec![1, 0] }),
    ),
    Function::attr(
        "swap_last",
        &[Param::Value],
        INTS,
        "the permutation that swaps the last two axes of a value",
        |ctx, args| {
            let mut perm: Vec<i64> = (0..dims(ctx, args[0].value()?)?.len() as i64).collect();
            match perm.as_mut_slice() {
                [.., a, b] => std::mem::swap(a, b),
                _ => return Err("it has fewer than two axes".into()),
            }
            ints(perm)
        },
    ),
    Function::attr(
        "other_axes",
        &[Param::Value, Param::Int],
        INTS,
        "all axes of a value but this one",
        |ctx, args| {
            let rank = dims(ctx, args[0].value()?)?.len();
            let axis = index(args[1].int()?, rank)?;
            ints((0..rank).filter(|&a| a != axis).map(|a| a as i64).collect())
        },
    ),
    Function::attr(
        "dropped_axes",
        &[Param::Value, Param::Value, Param::Attr],
        INTS,
        "the axes (absent: all) that a reduction of the first value to the second dropped; absent where it kept them",
        |ctx, args| {
            let (from, to) = (dims(ctx, args[0].value()?)?.len(), dims(ctx, args[1].value()?)?.len());
            match args[2].optional_attr() {
                _ if from == to => Ok(None),
                None => ints((0..from as i64).collect()),
                Some(_) => ints(args[2].ints()?),
            }
        },
    ),
    Function::attr(
        "pad_starts",
        &[Param::Ints],
        INTS,
        "where the elements of a tensor begin once these pads are put around it",
        |_, args| {
            let pads = args[0].ints()?;
            ints(pads[..pads.len() / 2].to_vec())
        },
    ),
    Function::attr(
        "pad_ends",
        &[Param::Ints, Param::Value],
        INTS,
        "where the elements of a value end once these pads are put around it; past every end where its extent is no \
         number and nothing is put behind",
        |ctx, args| {
            let pads = args[0].ints()?;
            let (before, after) = pads.split_at(pads.len() / 2);
            let dims = dims(ctx, args[1].value()?)?;
            let end = |((d, b), a): ((&Dim, &i64), &i64)| match (d.as_const(), a) {
                (Some(n), _) => Ok(n + b),
                (None, 0) => Ok(i64::MAX),
                _ => Err("an extent that is padded behind is no number".to_owned()),
            };
            ints(dims.iter().zip(before).zip(after).map(end).collect::<Result<_, _>>()?)
        },
    ),
    Function::attr("rank", &[Param::Value], INT, "the number of axes of a value", |ctx, args| {
        Ok(Some(Attr::Int(dims(ctx, args[0].value()?)?.len() as i64)))
    }),
    Function::attr(
        "shape",
        &[Param::Value],
        Gives::Kind(AttrKind::Dims),
        "the extents of a value",
        |ctx, args| Ok(Some(Attr::dims(dims(ctx, args[0].value()?)?.iter().cloned()))),
    ),
    Function::attr(
        "like",
        &[Param::Value],
        Gives::Kind(AttrKind::Elem),
        "the element type of a value",
        |ctx, args| {
            let elem = ctx.view.type_of(args[0].value()?).elem().ok_or("it is not a tensor")?;
            Ok(Some(Attr::Elem(elem)))
        },
    ),
    Function::attr(
        "elem",
        &[Param::Elem],
        Gives::Kind(AttrKind::Elem),
        "the element type of this name",
        |_, args| {
            let word = args[0].word()?;
            let elem =
                ElemType::from_name(word).ok_or_else(|| format!("no element type is called `{word}`"))?;
            Ok(Some(Attr::Elem(elem)))
        },
    ),
    Function::attr(
        "channels",
        &[Param::Value, Param::Attr],
        INTS,
        "the extent of a value along an axis, as a list; the empty list where the axis is absent (one for the tensor)",
        |ctx, args| match args[1].optional_attr() {
            None => ints(Vec::new()),
            Some(_) => ints(vec![extent(ctx, args[0].value()?, args[1].int()?)?]),
        },
    ),
    Function::attr(
        "extent",
        &[Param::Value, Param::Int],
        INT,
        "the extent of a value along an axis",
        |ctx, args| Ok(Some(Attr::Int(extent(ctx, args[0].value()?, args[1].int()?)?))),
    ),
    Function::attr(
        "extents_along",
        &[Param::Values, Param::Int],
        INTS,
        "the extents of several values along an axis",
        |ctx, args| {
            let values = args[0].values()?;
            let axis = args[1].int()?;
            let of = |v: &Option<ValueId>| match v {
                Some(v) => {
                    let at = index(axis, dims(ctx, *v)?.len())?;
                    extent(ctx, *v, at as i64)
                }
                None => Err("a value is absent".to_owned()),
            };
            ints(values.iter().map(of).collect::<Result<_, _>>()?)
        },
    ),
    Function::attr(
        "channel_shape",
        &[Param::Value, Param::Int],
        INTS,
        "the shape that spreads a vector along an axis of a value: 1 everywhere else",
        |ctx, args| {
            let value = args[0].value()?;
            let rank = dims(ctx, value)?.len();
            let axis = index(args[1].int()?, rank)?;
            let n = extent(ctx, value, axis as i64)?;
            ints((0..rank).map(|i| if i == axis { n } else { 1 }).collect())
        },
    ),
    Function::attr(
        "channel_axis",
        &[Param::Op, Param::Value],
        INT,
        "the axis of a weight operand along which the operation's output channels lie",
        |ctx, args| {
            let module = ctx.graph()?.module;
            let axis = crate::grid::channel_axis(module, args[0].op()?)
                .ok_or("the operation has no channel axis")?;
            Ok(Some(Attr::Int(axis as i64)))
        },
    )
    .on_graphs_only(),
    Function::attr(
        "flat_axes",
        &[Param::Value, Param::Int],
        Gives::Kind(AttrKind::Dims),
        "the shape of a value whose axes before and from this one are each joined to one",
        |ctx, args| {
            let dims = dims(ctx, args[0].value()?)?;
            let at = args[1].int()?;
            let rank = dims.len() as i64;
            let at = if at < 0 { at + rank } else { at };
            let at = usize::try_from(at)
                .ok()
                .filter(|a| *a <= dims.len())
                .ok_or("the axis is outside the tensor")?;
            let product = |d: &[gs_ir::Dim]| d.iter().fold(gs_ir::Dim::Const(1), |p, d| p.mul(d));
            let flat = [product(&dims[..at]), product(&dims[at..])];
            if flat.iter().any(gs_ir::Dim::is_unknown) {
                return Err("the joined extent cannot be said".into());
            }
            Ok(Some(Attr::dims(flat)))
        },
    ),
];

fn ints(list: Vec<i64>) -> Result<Option<Attr>, Refusal> {
    Ok(Some(Attr::ints(&list)))
}

fn dims<'a>(ctx: &Ctx<'a>, value: ValueId) -> Result<&'a [gs_ir::Dim], Refusal> {
    ctx.view.type_of(value).dims().ok_or_else(|| "the rank is unknown".to_owned())
}

fn index(at: i64, len: usize) -> Result<usize, Refusal> {
    let n = len as i64;
    let at = if at < 0 { at + n } else { at };
    usize::try_from(at).ok().filter(|i| *i < len).ok_or_else(|| format!("there is no place {at} among {len}"))
}

fn extent(ctx: &Ctx<'_>, value: ValueId, axis: i64) -> Result<i64, Refusal> {
    let dims = dims(ctx, value)?;
    dims[index(axis, dims.len())?].as_const().ok_or_else(|| "the extent is not a number".to_owned())
}

fn attr_of(ctx: &Ctx<'_>, op: &Arg<'_>, name: &str) -> Result<Option<Attr>, Refusal> {
    let op = op.op()?;
    let decl = ctx.view.registry().decl(ctx.view.kind(op));
    let attr = decl.attr(name).ok_or_else(|| format!("`{}` has no attribute `{name}`", decl.name))?;
    Ok(ctx.view.attrs(op).get(name).cloned().or_else(|| default_attr(attr.default)))
}

/// The value that an absent attribute stands for, where it is one value.
pub(crate) fn default_attr(default: Default) -> Option<Attr> {
    match default {
        Default::Int(n) => Some(Attr::Int(n)),
        Default::Float(f) => Some(Attr::float(f)),
        Default::Bool(b) => Some(Attr::Bool(b)),
        Default::Word(w) => Some(Attr::str(w)),
        Default::Elem(e) => Some(Attr::Elem(e)),
        Default::Required | Default::Absent | Default::All(_) => None,
    }
}

/// A permutation of `0..n`.
fn permutation(arg: &Arg<'_>) -> Result<Vec<usize>, Refusal> {
    let list = arg.ints()?;
    let mut seen = vec![false; list.len()];
    let mut out = Vec::with_capacity(list.len());
    for p in list {
        let place = usize::try_from(p).ok().filter(|p| seen.get(*p) == Some(&false));
        let place = place.ok_or("it is no permutation")?;
        seen[place] = true;
        out.push(place);
    }
    Ok(out)
}

fn compose(_: &Ctx<'_>, args: &[Arg<'_>]) -> Result<Option<Attr>, Refusal> {
    let len = |a: &Arg<'_>| a.optional_attr().map(|_| permutation(a)).transpose();
    let (first, second) = (len(&args[0])?, len(&args[1])?);
    let reversal = |n: usize| (0..n).rev().collect::<Vec<_>>();
    let (first, second) = match (first, second) {
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) => (a.clone(), reversal(a.len())),
        (None, Some(b)) => (reversal(b.len()), b),
        (None, None) => return Err("two reversals cancel, but of how many axes is not known".into()),
    };
    if first.len() != second.len() {
        return Err("the permutations differ in length".into());
    }
    ints(second.iter().map(|&i| first[i] as i64).collect())
}

fn arithmetic(args: &[Arg<'_>], f: fn(i64, i64) -> Option<i64>) -> Result<Option<Attr>, Refusal> {
    let n = f(args[0].int()?, args[1].int()?).ok_or("the result does not fit 64 bits")?;
    Ok(Some(Attr::Int(n)))
}

fn larger(args: &[Arg<'_>], pick: fn(f32, f32) -> f32) -> Result<Option<Attr>, Refusal> {
    let number = |a: &Arg<'_>| a.optional_attr().map(|_| a.float().map(|f| f as f32)).transpose();
    Ok(match (number(&args[0])?, number(&args[1])?) {
        (Some(a), Some(b)) => Some(Attr::float(pick(a, b))),
        (a, b) => a.or(b).map(Attr::float),
    })
}

/// A truth value.
pub(super) fn truth(arg: &Arg<'_>) -> Result<bool, Refusal> {
    match arg.attr()? {
        Attr::Bool(b) => Ok(*b),
        _ => Err("a truth value is needed".into()),
    }
}
