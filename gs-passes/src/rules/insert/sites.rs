//! Finds where insertions go, and with which parameters.

use super::super::build::converted;
use super::super::contents::encode;
use super::super::env::RuleEnv;
use super::super::eval::{Bindings, Evaluator};
use super::super::functions::Refusal;
use super::super::matcher::{Binding, Filler, Match, Matcher};
use super::super::rule::{EmitArg, EmitGlobal, EmitInit, InsertRule, Per};
use super::super::view::ModuleView;
use super::{problem, value_name};
use gs_ir::{AttrSet, ElemType, Init, Module, OpId, Role, Use, ValueId, normal_attrs};
use gs_text::Diagnostic;
use gs_text::gsr::InsertSite;
use rustc_hash::FxHashMap;
use rustc_hash::FxHashSet;

/// A place with what is put there.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Index of the rule.
    pub(super) rule: usize,
    /// The value, behind what fills the place already.
    pub(super) value: ValueId,
    /// Where it is read from then on.
    pub(super) target: Target,
    /// What the place can be filled by.
    pub(super) filler: Filler,
    /// Attributes in normal form.
    pub(super) attrs: AttrSet,
    /// Globals, in the order of the operands that they are.
    pub(super) globals: Vec<GlobalPlan>,
}

/// Where the result of an insertion is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// By one operand.
    Operand(OpId, u32),
    /// By all users of the value.
    All,
}

/// A global to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GlobalPlan {
    pub(super) owner: Owner,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) elem: ElemType,
    pub(super) dims: Vec<i64>,
    pub(super) init: Init,
}

/// Who shares a global.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A value, with the name that it gives.
    Value(ValueId, String),
    /// A grid class, with its name.
    Class(u32, String),
    /// A rule, by index, with its name.
    Rule(usize, String),
}

impl Site {
    /// Whether both put the same on their place; who shares a global is compared by what it makes of names.
    pub(super) fn same_parameters(&self, other: &Site, rules: &[InsertRule]) -> bool {
        rules[self.rule].kind == rules[other.rule].kind
            && self.attrs == other.attrs
            && self.globals == other.globals
    }
}

/// All sites of all rules, merged.
///
/// # Errors
/// Where two rules put different things on one place, or parameters have no value.
pub(super) fn collect(
    module: &Module,
    rules: &[InsertRule],
    env: &dyn RuleEnv,
) -> Result<Vec<Site>, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    let order = values_in_order(module);
    let mut seen_classes = FxHashSet::default();
    for (index, rule) in rules.iter().enumerate() {
        let filler = Filler::of(module.registry(), rule.kind);
        let roots = rule.pattern.roots();
        let mut matcher = Matcher::new(module, env, rule.vars.len(), &rule.conditions);
        if rule.site == InsertSite::Use {
            matcher = matcher.looking_through(rule.var, filler);
        }
        for &value in &order {
            let kind = module.producer(value).map(|op| module.op(op).kind);
            if !roots.is_empty() && !kind.is_some_and(|k| roots.contains(&k)) {
                continue;
            }
            for m in matcher.all_at_value(&rule.pattern, value) {
                match sites_of(module, rule, index, filler, &m, env, &mut seen_classes) {
                    Ok(sites) => found.extend(sites),
                    Err(reason) => {
                        let at = value_name(module, value);
                        problems.push(problem(
                            rule,
                            "GS0660",
                            format!("`{}` has no parameters at {at}: {reason}", rule.name),
                        ));
                    }
                }
            }
        }
    }
    let merged = merge(module, rules, found, &mut problems);
    if problems.is_empty() { Ok(merged) } else { Err(problems) }
}

/// Every value that may carry an insertion: globals that are read, then parameters and results of each graph.
fn values_in_order(module: &Module) -> Vec<ValueId> {
    let read = |v: &ValueId| !module.value(*v).uses().is_empty();
    let mut out: Vec<ValueId> = module.globals().map(|(_, g)| g.value).filter(read).collect();
    for &entry in module.entries() {
        out.extend(module.graph(entry).params());
        for op in module.ops_nested(entry) {
            for &region in module.op(op).regions() {
                out.extend(module.graph(region).params());
            }
            out.extend(module.op(op).results().iter().filter_map(|v| v.some()));
        }
    }
    out
}

/// The sites of one match. The first match in a class speaks for all its entries; a later one for its own value only,
/// which is compared with what the first put there.
fn sites_of(
    module: &Module,
    rule: &InsertRule,
    index: usize,
    filler: Filler,
    m: &Match,
    env: &dyn RuleEnv,
    seen_classes: &mut FxHashSet<(usize, u32)>,
) -> Result<Vec<Site>, Refusal> {
    let value = match m.bindings.get(rule.var) {
        Some(Binding::Value(Some(v))) => *v,
        // An optional operand that is not there needs nothing.
        _ => return Ok(Vec::new()),
    };
    let (targets, class) = match rule.site {
        InsertSite::Use => {
            let place = m.places.get(rule.var).copied().flatten();
            let (op, i) = place.ok_or("the value stands at no operand place")?;
            (vec![(value, Target::Operand(op, i))], None)
        }
        InsertSite::Value => (vec![(value, Target::All)], None),
        InsertSite::Class => {
            let class = env.class_of(module, value).ok_or("the value is in no grid class")?;
            let first = seen_classes.insert((index, class.id));
            let targets = class.entries.iter().filter(|&&v| first || v == value);
            (targets.map(|&v| (v, Target::All)).collect(), Some((class.id, class.name)))
        }
    };
    let attrs = attributes(module, rule, m, env)?;
    let mut sites = Vec::new();
    for (value, target) in targets {
        // The value is itself what fills the place: another one on top of it would fill it twice.
        if target == Target::All && filler.on(module, value).is_some() {
            continue;
        }
        let mut globals = Vec::new();
        for arg in &rule.args {
            if let EmitArg::Global(g) = arg {
                let owner = owner(module, rule, index, g, m, class.as_ref())?;
                globals.push(plan(module, g, owner, m, env, &attrs)?);
            }
        }
        sites.push(Site { rule: index, value, target, filler, attrs: attrs.clone(), globals });
    }
    Ok(sites)
}

fn attributes(module: &Module, rule: &InsertRule, m: &Match, env: &dyn RuleEnv) -> Result<AttrSet, Refusal> {
    let view = ModuleView { module, matched: &m.ops };
    let evaluator = Evaluator { view: &view, env, bindings: Bindings::Matched(&m.bindings) };
    let mut attrs = AttrSet::new();
    for (decl, e) in &rule.attrs {
        if let Some(value) = evaluator.attr(e).map_err(|r| format!("attribute `{}`: {r}", decl.name))? {
            attrs.set(decl.name, converted(decl, value));
        }
    }
    Ok(normal_attrs(module.registry().decl(rule.kind), attrs))
}

fn owner(
    module: &Module,
    rule: &InsertRule,
    index: usize,
    g: &EmitGlobal,
    m: &Match,
    class: Option<&(u32, String)>,
) -> Result<Owner, Refusal> {
    match (g.per, class) {
        (Per::Rule, _) => Ok(Owner::Rule(index, rule.name.clone())),
        (Per::Class, Some((id, name))) => Ok(Owner::Class(*id, name.clone())),
        (Per::Class, None) => Err(format!("`{}` is shared by a class, but the site is none", g.name)),
        (Per::Value(slot), _) => match m.bindings.get(slot) {
            Some(Binding::Value(Some(v))) => Ok(Owner::Value(*v, owner_name(module, *v, m, slot))),
            _ => Err("the value that a global belongs to is absent".into()),
        },
    }
}

/// The name of a value; of a weight that is computed, that of the layer and its operand.
fn owner_name(module: &Module, value: ValueId, m: &Match, slot: usize) -> String {
    let place = m.places.get(slot).copied().flatten();
    match (module.producer(value), place) {
        (Some(maker), Some((op, i)))
            if module.source_of(maker).is_empty() && !module.source_of(op).is_empty() =>
        {
            let operand = module.decl(op).operand(i as usize).map_or("x", |o| o.name);
            format!("{}.{operand}", module.label(op))
        }
        _ => value_name(module, value),
    }
}

fn plan(
    module: &Module,
    g: &EmitGlobal,
    owner: Owner,
    m: &Match,
    env: &dyn RuleEnv,
    attrs: &AttrSet,
) -> Result<GlobalPlan, Refusal> {
    let view = ModuleView { module, matched: &m.ops };
    let evaluator = Evaluator { view: &view, env, bindings: Bindings::Emitting(&m.bindings, attrs) };
    let dims = evaluator.ints(&g.dims)?;
    if dims.iter().any(|d| *d < 0) {
        return Err(format!("`{}` would have a negative extent", g.name));
    }
    let (elem, dims, init) = match &g.init {
        EmitInit::Splat(value) => {
            let bytes = encode(g.elem, *value).ok_or_else(|| format!("{} does not hold {value}", g.elem))?;
            (g.elem, dims, Init::Splat(bytes.into_iter().collect()))
        }
        EmitInit::Function(e) => {
            let literal = evaluator.tensor(e)?;
            if literal.elem != g.elem || literal.dims != dims {
                return Err(format!("the contents of `{}` have another type", g.name));
            }
            (literal.elem, dims, Init::Data(literal.data))
        }
    };
    Ok(GlobalPlan { owner, name: g.name.clone(), role: g.role, elem, dims, init })
}

/// One site for each place; contradictions are problems.
fn merge(
    module: &Module,
    rules: &[InsertRule],
    found: Vec<Site>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Site> {
    let mut merged: Vec<Site> = Vec::new();
    let mut at: FxHashMap<(Filler, ValueId, Target), usize> = FxHashMap::default();
    for site in found {
        let key = (site.filler, site.value, site.target);
        match at.get(&key) {
            None => {
                at.insert(key, merged.len());
                merged.push(site);
            }
            Some(&i) if merged[i].same_parameters(&site, rules) => {}
            Some(&i) => problems.push(contradiction(module, rules, &merged[i], &site)),
        }
    }
    // What is put on a value is seen by each of its users.
    let covered = |site: &Site| match site.target {
        Target::All => None,
        Target::Operand(..) => at.get(&(site.filler, site.value, Target::All)).copied(),
    };
    let mut kept = Vec::new();
    for site in &merged {
        match covered(site) {
            Some(i) if !merged[i].same_parameters(site, rules) => {
                problems.push(contradiction(module, rules, &merged[i], site));
            }
            Some(_) => {}
            None => kept.push(site.clone()),
        }
    }
    kept
}

fn contradiction(module: &Module, rules: &[InsertRule], first: &Site, second: &Site) -> Diagnostic {
    let at = value_name(module, first.value);
    let (a, b) = (&rules[first.rule], &rules[second.rule]);
    let message = if first.rule == second.rule {
        format!("`{}` puts two different things on {at}", a.name)
    } else {
        format!("`{}` and `{}` put different things on {at}", a.name, b.name)
    };
    let mut d = Diagnostic::error("GS0661", message).label(a.span, describe(module, rules, first));
    if a.span != b.span {
        d = d.label(b.span, describe(module, rules, second));
    } else {
        d = d.note(format!("the other: {}", describe(module, rules, second)));
    }
    d.help("narrow one of them by a condition")
}

/// What a site puts on its place, in words.
pub(super) fn describe(module: &Module, rules: &[InsertRule], site: &Site) -> String {
    parameters(module.registry().decl(rules[site.rule].kind).name, &site.attrs)
}

/// An operation with its attributes, in words.
pub(super) fn parameters(op: &str, attrs: &AttrSet) -> String {
    let all: Vec<String> =
        attrs.iter().map(|(n, v)| format!("{n} = {}", super::super::remarks::attr_words(v))).collect();
    if all.is_empty() { op.to_owned() } else { format!("{op} {{{}}}", all.join(", ")) }
}

/// The operand uses of a value that do not go through what fills its place.
pub(super) fn open_uses(module: &Module, site: &Site) -> Vec<Use> {
    let through = |u: &Use| matches!(u, Use::Operand(op, 0) if site.filler.fits(module, *op));
    let uses = module.value(site.value).uses().iter().copied();
    // An update stores the value for itself; it reads nothing of the network.
    uses.filter(|u| !through(u) && !matches!(u, Use::Update(..))).collect()
}
