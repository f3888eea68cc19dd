//! The rule files that ship with this crate, and the conditions and functions that they need beside the engine's.

use gs_ir::registry::AttrKind;
use gs_ir::{Attr, Init, Literal, Registry, ValueId};
use gs_passes::rules::functions::{Arg, Ctx, Function, Gives, Param, Refusal};
use gs_passes::rules::{RuleFunctions, RuleSet, Site};
use gs_text::{SourceMap, Style};
use std::fmt;

/// The shipped rule files of this crate: name and text. Tests check each, and run every example in it.
pub const SHIPPED: &[(&str, &str)] = &[
    ("simqat", crate::simqat::RULES),
    ("lsq", crate::lsq::RULES),
    ("pact", crate::pact::RULES),
    ("slb", crate::slb::RULES),
    ("explicit", crate::deploy::EXPLICIT),
    ("pack", crate::deploy::PACK),
    ("lower-ort-cpu", crate::deploy::LOWER_ORT_CPU),
    ("decode", crate::deploy::DECODE),
    ("qdq-form", crate::deploy::QDQ_FORM),
];

/// Diagnostics of a rule file that does not load, rendered.
#[derive(Debug)]
pub struct BadRules(String);

impl fmt::Display for BadRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRules {}

/// Reads and checks a rule file against these operators: those of the module that the rules are for.
///
/// # Errors
/// Rendered diagnostics.
pub fn load(name: &str, text: &str, registry: &Registry) -> Result<RuleSet, BadRules> {
    load_with(name, text, registry, &functions())
}

/// Reads and checks a rule file against these operators and functions.
///
/// # Errors
/// Rendered diagnostics.
pub fn load_with(
    name: &str,
    text: &str,
    registry: &Registry,
    functions: &RuleFunctions,
) -> Result<RuleSet, BadRules> {
    RuleSet::parse(name, text, registry, functions).map_err(|diagnostics| {
        let sources = SourceMap::single(name, text);
        BadRules(gs_text::render_all(&diagnostics, &sources, Style::Plain))
    })
}

/// Every function that rules of this crate may call.
pub fn functions() -> RuleFunctions {
    let mut functions = RuleFunctions::builtin();
    for f in TABLE.iter().chain(crate::deploy::PACKING) {
        functions.register(*f);
    }
    functions
}

/// Weights with more channels than this are not looked through.
const LIMIT: usize = 1 << 20;

const TABLE: &[Function] = &[
    Function::condition(
        "grid_axis",
        &[Param::Op, Param::Attr],
        "the scale of the quantize or dequantize has one element, or one per channel along this axis",
        |ctx, args| {
            let op = args[0].op()?;
            let scale = ctx.view.operands(op).get(1).copied().flatten().ok_or("it has no scale")?;
            if elements(ctx, scale) == Some(1) {
                return Ok(true);
            }
            let rank = ctx.view.type_of(scale).as_tensor().and_then(|t| t.rank());
            let axis = ctx.view.registry().decl(ctx.view.kind(op)).int(ctx.view.attrs(op), "axis");
            Ok(rank == Some(1) && axis == Some(args[1].int()?))
        },
    ),
    Function::condition(
        "bias_scale",
        &[Param::OptValue, Param::Value, Param::Value],
        "the first scale (of a bias; absent: no bias) is the product of the other two, to 1e-5",
        bias_scale,
    ),
    Function::attr(
        "setting",
        &[Param::Site, Param::Word],
        Gives::Anything,
        "the configuration of a layer or tensor under this key; absent where nothing is configured",
        |ctx, args| Ok(ctx.env.cfg(ctx.graph()?.module, args[0].site()?, args[1].word()?)),
    )
    .on_graphs_only(),
    Function::attr(
        "output_axis",
        &[Param::Op],
        Gives::Kind(AttrKind::Int),
        "the axis of the weight along which the output channels of a layer lie",
        |ctx, args| {
            let axis = gs_passes::grid::channel_axis(ctx.graph()?.module, args[0].op()?);
            axis.map(|a| Some(Attr::Int(a as i64))).ok_or_else(|| "it has no output channels".to_owned())
        },
    )
    .on_graphs_only(),
    Function::attr(
        "vector_axis",
        &[Param::Value, Param::Int],
        Gives::Kind(AttrKind::Int),
        "the axis, where the scale has more than one element; absent where it has one",
        |ctx, args| match elements(ctx, args[0].value()?) {
            Some(1) => Ok(None),
            _ => Ok(Some(Attr::Int(args[1].int()?))),
        },
    ),
    Function::tensor(
        "fixed_range",
        &[Param::Value],
        "the range that an operation dictates for its result",
        |ctx, args| {
            let site = Site::Value(args[0].value()?);
            match ctx.env.cfg(ctx.graph()?.module, site, "fixed_grid") {
                Some(Attr::Floats(v)) => {
                    Ok(Literal::f32s([v.len() as i64], &v.iter().map(|f| f.0).collect::<Vec<f32>>()))
                }
                _ => Err("nothing dictates its range".to_owned()),
            }
        },
    )
    .on_graphs_only(),
];

fn elements(ctx: &Ctx<'_>, value: ValueId) -> Option<usize> {
    ctx.view.type_of(value).as_tensor().and_then(|t| t.count())
}

fn bias_scale(ctx: &Ctx<'_>, args: &[Arg<'_>]) -> Result<bool, Refusal> {
    let Some(bias) = args[0].optional_value() else { return Ok(true) };
    let (x, w) = (args[1].value()?, args[2].value()?);
    let global = ctx.view.global(bias).ok_or("the scale of the bias is not a constant")?;
    if let Init::Derived(d) = &global.init {
        // Made as the product: that is how freezing makes it.
        let of: Vec<_> = d.operands.iter().flatten().copied().collect();
        let is = |v: ValueId| {
            of.iter().any(|&g| ctx.view.graph().is_some_and(|view| view.module.as_global(v) == Some(g)))
        };
        return Ok(ctx.view.registry().decl(d.kind).name == "mul" && of.len() == 2 && is(x) && is(w));
    }
    let (bias, x, w) = (ctx.constant(bias, LIMIT)?, ctx.constant(x, LIMIT)?, ctx.constant(w, LIMIT)?);
    let [x] = x[..] else { return Err("the data has more than one scale".to_owned()) };
    let at = |v: &[f64], i: usize| if v.len() == 1 { v.first().copied() } else { v.get(i).copied() };
    Ok((0..bias.len().max(w.len())).all(|i| match (at(&bias, i), at(&w, i)) {
        (Some(b), Some(w)) => (b - x * w).abs() <= 1e-5 * (x * w).abs(),
        _ => false,
    }))
}
