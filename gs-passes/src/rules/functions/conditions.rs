//! Conditions: questions that are answered with yes or no.

use super::super::contents;
use super::super::env::Site;
use super::{Arg, Ctx, Function, Param, Refusal};
use gs_ir::registry::{Default, Traits};
use gs_ir::{Attr, ElemType, Role, Use, ValueId};

/// The conditions of this file.
pub(super) const TABLE: &[Function] = &[
    Function::condition(
        "weight_only",
        &[Param::Value],
        "the value depends on parameters and constants only, not on inputs or state",
        |ctx, args| Ok(ctx.view.weight_only(args[0].value()?)),
    ),
    Function::condition("param", &[Param::Value], "the value is a learned parameter", |ctx, args| {
        Ok(ctx.view.global(args[0].value()?).is_some_and(|g| g.role == Role::Param))
    }),
    Function::condition("constant", &[Param::Value], "the value is a constant", |ctx, args| {
        Ok(ctx.view.global(args[0].value()?).is_some_and(|g| g.role == Role::Const))
    }),
    Function::condition(
        "only_user",
        &[Param::Site],
        "the value (or every result of the operation) is used nowhere but once within the match; graph results, \
         captured uses in regions and updates count as uses",
        only_user,
    )
    .on_graphs_only(),
    Function::condition("not_result", &[Param::Value], "no graph returns or stores the value", |ctx, args| {
        let uses = ctx.graph()?.module.value(args[0].value()?).uses();
        Ok(uses.iter().all(|u| matches!(u, Use::Operand(..))))
    })
    .on_graphs_only(),
    Function::condition("same", &[Param::Value, Param::Value], "both are the same value", |ctx, args| {
        Ok(ctx.view.same(args[0].value()?, args[1].value()?))
    }),
    Function::condition("equal", &[Param::Attr, Param::Attr], "both attributes are equal, or both absent", |_, args| {
        Ok(args[0].optional_attr() == args[1].optional_attr())
    }),
    Function::condition("holds", &[Param::Attr], "the truth value holds", |_, args| super::attrs::truth(&args[0])),
    Function::condition("present", &[Param::Attr], "the attribute is there", |_, args| {
        Ok(args[0].optional_attr().is_some())
    }),
    Function::condition("lacks", &[Param::Attr, Param::Int], "the list does not contain the number", |_, args| {
        let n = args[1].int()?;
        match args[0].attr()? {
            Attr::Dims(d) => Ok(d.iter().all(|d| d.as_const() != Some(n))),
            _ => Ok(!args[0].ints()?.contains(&n)),
        }
    }),
    Function::condition("all_are", &[Param::Ints, Param::Int], "every number of the list is this one", |_, args| {
        let n = args[1].int()?;
        Ok(args[0].ints()?.iter().all(|x| *x == n))
    }),
    Function::condition("absent", &[Param::OptValue], "the operand is not there", |_, args| {
        Ok(args[0].optional_value().is_none())
    }),
    Function::condition("bound", &[Param::OptOp], "the optional operation is there", |_, args| {
        Ok(args[0].optional_op().is_some())
    }),
    Function::condition("rank", &[Param::Value, Param::Int], "the value has this rank", |ctx, args| {
        let rank = ctx.view.type_of(args[0].value()?).as_tensor().and_then(|t| t.rank());
        Ok(rank.and_then(|r| i64::try_from(r).ok()) == Some(args[1].int()?))
    }),
    Function::condition(
        "elem",
        &[Param::Value, Param::Word],
        "the value's elements are of this type (`f32`, ...) or kind (`float`, `int`, `signed`)",
        elem,
    ),
    Function::condition("static_shape", &[Param::Value], "every extent of the value is a number", |ctx, args| {
        Ok(ctx.view.type_of(args[0].value()?).as_tensor().is_some_and(|t| t.const_dims().is_some()))
    }),
    Function::condition("scalar", &[Param::Value], "the value has one element", |ctx, args| {
        let ty = ctx.view.type_of(args[0].value()?);
        Ok(ty.as_tensor().and_then(|t| t.count()) == Some(1))
    }),
    Function::condition(
        "same_elem",
        &[Param::Value, Param::Value],
        "both have the same known element type",
        |ctx, args| {
            let elem = |a: &Arg<'_>| a.value().map(|v| ctx.view.type_of(v).elem());
            let (a, b) = (elem(&args[0])?, elem(&args[1])?);
            Ok(a.is_some() && a == b)
        },
    ),
    Function::condition("same_shape", &[Param::Value, Param::Value], "both have the same known shape", |ctx, args| {
        let dims = |a: &Arg<'_>| a.value().map(|v| ctx.view.type_of(v).dims());
        let (a, b) = (dims(&args[0])?, dims(&args[1])?);
        Ok(a.is_some() && a == b)
    }),
    Function::condition("same_type", &[Param::Value, Param::Value], "both have the same known type", |ctx, args| {
        let (a, b) = (ctx.view.type_of(args[0].value()?), ctx.view.type_of(args[1].value()?));
        Ok(a == b && a.dims().is_some())
    }),
    Function::condition(
        "shape_follows",
        &[Param::Value, Param::Value],
        "the first value's shape is known, in numbers and in symbols of the second one's shape",
        |ctx, args| {
            let (of, from) = (ctx.view.type_of(args[0].value()?), ctx.view.type_of(args[1].value()?));
            let (Some(of), Some(from)) = (of.dims(), from.dims()) else { return Ok(false) };
            let mut known = Vec::new();
            from.iter().for_each(|d| d.visit_symbols(&mut |s| known.push(s)));
            let mut follows = true;
            of.iter().for_each(|d| d.visit_symbols(&mut |s| follows &= known.contains(&s)));
            Ok(follows)
        },
    ),
    Function::condition(
        "broadcasts_into",
        &[Param::Value, Param::Value],
        "broadcasting the first value against the second gives the second's shape",
        broadcasts_into,
    ),
    Function::condition(
        "all_equal",
        &[Param::Value, Param::Number],
        "the value is a constant all of whose elements equal the number",
        |ctx, args| {
            let wanted = args[1].float()?;
            all(ctx, args[0].value()?, |x| x == wanted)
        },
    ),
    Function::condition("positive", &[Param::Value], "the value is a constant, all above zero", |ctx, args| {
        all(ctx, args[0].value()?, |x| x > 0.0)
    }),
    Function::condition(
        "trait",
        &[Param::Op, Param::Word],
        "the operation's operator has this trait (`elementwise`, `monotone`, ...)",
        |ctx, args| {
            let word = args[1].word()?;
            let known = Traits::NAMES.iter().find(|(n, _)| *n == word);
            let (_, flag) = known.ok_or_else(|| format!("no trait is called `{word}`"))?;
            Ok(ctx.view.registry().decl(ctx.view.kind(args[0].op()?)).traits.has(*flag))
        },
    ),
    Function::condition("selected", &[Param::Site], "the user's selectors take it in", |ctx, args| {
        let module = ctx.graph()?.module;
        match args[0].site()? {
            Site::Op(op) => Ok(ctx.env.selected(module, op)),
            Site::Value(v) => match module.producer(v) {
                Some(op) => Ok(ctx.env.selected(module, op)),
                // A network's input belongs to no layer; selectors speak of layers.
                None => Ok(true),
            },
        }
    })
    .on_graphs_only(),
    Function::condition("needs_grid", &[Param::Value], "the pass wants the value on a grid", |ctx, args| {
        Ok(ctx.env.needs_grid(ctx.graph()?.module, args[0].value()?))
    })
    .on_graphs_only(),
    Function::condition(
        "cfg_is",
        &[Param::Site, Param::Word, Param::Attr],
        "the configuration of the layer or tensor has this value under this key",
        |ctx, args| {
            let found = ctx.env.cfg(ctx.graph()?.module, args[0].site()?, args[1].word()?);
            Ok(found.as_ref() == args[2].optional_attr())
        },
    )
    .on_graphs_only(),
    Function::condition("has_default", &[Param::Op, Param::Word], "the attribute of this name is at its default", |ctx, args| {
        let (op, name) = (args[0].op()?, args[1].word()?);
        let decl = ctx.view.registry().decl(ctx.view.kind(op));
        match decl.attr(name) {
            Some(a) => Ok(a.default != Default::Required && ctx.view.attrs(op).get(name).is_none()),
            None => Err(format!("`{}` has no attribute `{name}`", decl.name)),
        }
    }),
    Function::condition(
        "covers_spatial",
        &[Param::Value, Param::Ints],
        "the window is exactly as large as the value's extents behind batch and channel",
        |ctx, args| {
            let window = args[1].ints()?;
            let dims = ctx.view.type_of(args[0].value()?).dims().ok_or("the rank is unknown")?;
            Ok(dims.len() == window.len() + 2 && dims[2..].iter().zip(&window).all(|(d, w)| d.as_const() == Some(*w)))
        },
    ),
    Function::condition(
        "spatial_axes",
        &[Param::Value, Param::Ints],
        "the axes are exactly those of the value behind batch and channel",
        |ctx, args| {
            let rank = ctx.view.type_of(args[0].value()?).dims().ok_or("the rank is unknown")?.len() as i64;
            let mut axes: Vec<i64> = args[1].ints()?.iter().map(|a| if *a < 0 { a + rank } else { *a }).collect();
            axes.sort_unstable();
            Ok(rank > 2 && axes == (2..rank).collect::<Vec<_>>())
        },
    ),
    Function::condition(
        "extents_are_one",
        &[Param::Value, Param::Int],
        "the value is of known rank and all extents from this axis on are 1",
        |ctx, args| {
            let dims = ctx.view.type_of(args[0].value()?).dims().ok_or("the rank is unknown")?;
            let from = usize::try_from(args[1].int()?).map_err(|_| "the axis is negative")?;
            Ok(dims.iter().skip(from).all(|d| d.as_const() == Some(1)))
        },
    ),
    Function::condition(
        "same_extents",
        &[Param::Value, Param::Value, Param::Int],
        "the first so many extents of both values are the same",
        |ctx, args| {
            let dims = |a: &Arg<'_>| a.value().map(|v| ctx.view.type_of(v).dims());
            let (Some(a), Some(b)) = (dims(&args[0])?, dims(&args[1])?) else { return Ok(false) };
            let n = usize::try_from(args[2].int()?).map_err(|_| "the number is negative")?;
            Ok(a.len() >= n && b.len() >= n && a[..n] == b[..n])
        },
    ),
    Function::condition("less", &[Param::Number, Param::Number], "the first number is less than the second", |_, args| {
        Ok(args[0].float()? < args[1].float()?)
    }),
    Function::condition("is_identity", &[Param::Ints], "the permutation moves nothing", |_, args| {
        Ok(args[0].ints()?.iter().enumerate().all(|(i, p)| *p == i as i64))
    }),
];

fn all(ctx: &Ctx<'_>, value: ValueId, test: impl Fn(f64) -> bool) -> Result<bool, Refusal> {
    contents::all_of_value(ctx.view, value, test)
}

fn elem(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<bool, Refusal> {
    let elem = ctx.view.type_of(args[0].value()?).elem().ok_or("it is not a tensor")?;
    match args[1].word()? {
        "float" => Ok(elem.is_float()),
        "int" => Ok(elem.is_int()),
        "signed" => Ok(elem.is_signed_int()),
        word => match ElemType::from_name(word) {
            Some(e) => Ok(e == elem),
            None => Err(format!("no element type is called `{word}`")),
        },
    }
}

fn only_user(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<bool, Refusal> {
    let graph = ctx.graph()?;
    let inside = |v: ValueId| match graph.module.only_use(v) {
        Some(Use::Operand(op, _)) => graph.matched.contains(&op),
        _ => false,
    };
    match args[0].site()? {
        Site::Value(v) => Ok(inside(v)),
        Site::Op(op) => {
            let unused = |v: ValueId| graph.module.value(v).uses().is_empty();
            let results: Vec<ValueId> =
                graph.module.op(op).results().iter().filter_map(|r| r.some()).collect();
            let used: Vec<ValueId> = results.into_iter().filter(|v| !unused(*v)).collect();
            Ok(used.len() == 1 && used.iter().all(|v| inside(*v)))
        }
    }
}

fn broadcasts_into(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<bool, Refusal> {
    let dims = |a: &Arg<'_>| -> Result<_, Refusal> {
        Ok(ctx.view.type_of(a.value()?).dims().ok_or("the rank is unknown")?.to_vec())
    };
    let (small, large) = (dims(&args[0])?, dims(&args[1])?);
    let fits = |(s, l): (&gs_ir::Dim, &gs_ir::Dim)| s.as_const() == Some(1) || s == l;
    Ok(small.len() <= large.len() && small.iter().rev().zip(large.iter().rev()).all(fits))
}
