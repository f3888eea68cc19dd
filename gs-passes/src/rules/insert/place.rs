//! Places what was collected: one operation for all uses that want the same, one global for all that share it.

use super::super::matcher::Filler;
use super::super::rule::{EmitArg, InsertRule};
use super::sites::{GlobalPlan, Owner, Site, Target, describe, open_uses, parameters};
use super::{InsertReport, Placed, problem, value_name};
use gs_ir::{
    At, AttrSet, Def, GlobalId, GraphId, Module, NewGlobal, OpId, Rewriter, Role, Type, Use, ValueId,
};
use gs_text::Diagnostic;
use rustc_hash::FxHashMap;

/// Sites that one operation serves.
struct Group {
    site: Site,
    uses: Vec<Use>,
    /// Operations that fill the place already and are to be replaced.
    replaces: Vec<OpId>,
}

struct Placer<'a, 'm> {
    rewriter: Rewriter<'m>,
    rules: &'a [InsertRule],
    /// Position of each operation before anything was put in.
    order: FxHashMap<OpId, usize>,
    globals: Vec<(GlobalPlan, GlobalId)>,
    by_owner: FxHashMap<(u8, u32), Vec<usize>>,
    report: InsertReport,
}

/// Puts operations on all sites.
///
/// # Errors
/// Where a place is filled by something else, or an operation does not fit; the module is in between then.
pub(super) fn place(
    module: &mut Module,
    rules: &[InsertRule],
    sites: Vec<Site>,
) -> Result<InsertReport, Vec<Diagnostic>> {
    let order = module.all_ops().into_iter().enumerate().map(|(i, op)| (op, i)).collect();
    let mut report = InsertReport::default();
    let mut problems = Vec::new();
    let groups = group(module, rules, sites, &mut report, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let rewriter = Rewriter::new(module);
    let mut placer =
        Placer { rewriter, rules, order, globals: Vec::new(), by_owner: FxHashMap::default(), report };
    for g in groups {
        problems.extend(placer.put(g).err());
    }
    if problems.is_empty() { Ok(placer.report) } else { Err(problems) }
}

/// Leaves out what is filled already, and joins uses that want the same of the same value.
fn group(
    module: &Module,
    rules: &[InsertRule],
    sites: Vec<Site>,
    report: &mut InsertReport,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_value: FxHashMap<(ValueId, GraphId), Vec<usize>> = FxHashMap::default();
    for site in sites {
        let (uses, fillers) = state(module, &site);
        let others: Vec<OpId> =
            fillers.iter().copied().filter(|&op| !same_filler(module, rules, &site, op)).collect();
        if !others.is_empty() && !rules[site.rule].replace {
            problems.extend(others.first().map(|&op| filled(module, rules, &site, op)));
            continue;
        }
        if others.is_empty()
            && (uses.is_empty() || matches!(site.target, Target::Operand(..)) && !fillers.is_empty())
        {
            if !fillers.is_empty() {
                let name = value_name(module, site.value);
                report.left_alone.push((rules[site.rule].name.clone(), name));
            }
            continue;
        }
        let graph = graph_of(module, &site, &uses);
        let slot = by_value.entry((site.value, graph)).or_default();
        let joined = slot.iter().copied().find(|&i| {
            let g = &groups[i].site;
            g.target != Target::All
                && site.target != Target::All
                && g.filler == site.filler
                && g.same_parameters(&site, rules)
        });
        match joined {
            Some(i) => {
                groups[i].uses.extend(uses);
                groups[i].replaces.extend(others);
            }
            None => {
                slot.push(groups.len());
                groups.push(Group { site, uses, replaces: others });
            }
        }
    }
    groups
}

/// The uses that a site is for, and what fills its place already.
fn state(module: &Module, site: &Site) -> (Vec<Use>, Vec<OpId>) {
    match site.target {
        Target::Operand(op, i) => {
            let there = module.op(op).operand(i as usize).and_then(|v| site.filler.on(module, v));
            (vec![Use::Operand(op, i)], there.into_iter().collect())
        }
        Target::All => {
            let mut fillers: Vec<OpId> = module.user_ops(site.value);
            fillers
                .retain(|&op| site.filler.fits(module, op) && module.op(op).operand(0) == Some(site.value));
            (open_uses(module, site), fillers)
        }
    }
}

fn same_filler(module: &Module, rules: &[InsertRule], site: &Site, op: OpId) -> bool {
    module.op(op).kind == rules[site.rule].kind && *module.attrs_of(op) == site.attrs
}

/// The code of the error that a place is filled already, and differently.
pub const FILLED: &str = "GS0662";

fn filled(module: &Module, rules: &[InsertRule], site: &Site, op: OpId) -> Diagnostic {
    let rule = &rules[site.rule];
    let what = match site.filler {
        Filler::Quantiser => "is quantised",
        Filler::Mask => "is masked",
        Filler::Kind(_) => "carries such an operation",
    };
    let message = format!("{} {what} already, and differently", value_name(module, site.value));
    let there = parameters(module.op_name(op), module.attrs_of(op));
    let d = problem(rule, FILLED, message).note(format!("there: {there}"));
    d.note(format!("wanted: {}", describe(module, rules, site)))
        .help("`replace` at the end of the rule lets it be replaced")
}

/// The graph in which an operation on this value stands.
fn graph_of(module: &Module, site: &Site, uses: &[Use]) -> GraphId {
    match (module.value(site.value).def, uses.first()) {
        (Def::Result(op, _), _) => module.op(op).graph,
        (Def::Param(g, _), _) => g,
        (_, Some(Use::Operand(op, _))) => module.op(*op).graph,
        (_, Some(Use::Return(g, _) | Use::Update(g, _))) => *g,
        _ => GraphId::NONE,
    }
}

impl Placer<'_, '_> {
    fn put(&mut self, group: Group) -> Result<(), Diagnostic> {
        let Group { site, uses, replaces } = group;
        let rule = &self.rules[site.rule];
        let name = value_name(&self.rewriter, site.value);
        let at = self.position(&site, &uses, &replaces);
        let mut plans = site.globals.iter();
        let mut operands = Vec::new();
        for arg in &rule.args {
            operands.push(match arg {
                EmitArg::Site => Some(site.value),
                EmitArg::Absent => None,
                EmitArg::Global(_) => plans.next().map(|plan| self.global(plan)),
            });
        }
        let attrs: AttrSet = site.attrs.clone();
        let made = self.rewriter.create(rule.kind, &operands, attrs, 1, at);
        let made = made
            .map_err(|e| problem(rule, "GS0663", format!("`{}` does not fit on {name}: {e}", rule.name)))?;
        let new = self.rewriter.op(made).result();
        let (old, found) = (self.rewriter.type_of(site.value), self.rewriter.type_of(new));
        if old.elem() != found.elem() || old.dims() != found.dims() {
            let message = format!("`{}` does not fit on {name}: it changes the type", rule.name);
            return Err(problem(rule, "GS0663", message));
        }
        let mut count = 0;
        for u in uses {
            count += 1;
            match u {
                Use::Operand(op, i) => self.rewriter.set_operand(op, i as usize, Some(new)),
                Use::Return(g, i) => self.rewriter.set_result(g, i as usize, new),
                Use::Update(..) => {}
            }
        }
        for op in replaces {
            count += self.replace(op, new, site.target);
        }
        self.report.placed.push(Placed { rule: rule.name.clone(), op: made, value: name, uses: count });
        self.rewriter.take_events();
        Ok(())
    }

    /// Puts the new one where an old one stood. On an operand, the old one stays for the users that others have.
    fn replace(&mut self, old: OpId, new: ValueId, target: Target) -> usize {
        if !self.rewriter.op(old).is_live() {
            return 0;
        }
        let result = self.rewriter.op(old).result();
        let mut moved = 0;
        if target == Target::All {
            moved = self.rewriter.value(result).uses().len();
            self.rewriter.replace_uses(result, new);
        }
        if self.rewriter.value(result).uses().is_empty() {
            let globals: Vec<GlobalId> =
                self.rewriter.op(old).present_operands().filter_map(|v| self.rewriter.as_global(v)).collect();
            let entry = self.rewriter.entry("removed", "replace", None, None);
            self.rewriter.retire(old, None, entry);
            self.report.replaced += 1;
            for g in globals {
                let global = self.rewriter.global(g);
                let unused = self.rewriter.value(global.value).uses().is_empty();
                // Only what such an operation alone had; a weight that became unused is not ours to remove.
                if global.role == Role::State && unused {
                    self.rewriter.remove_global(g);
                }
            }
        }
        moved
    }

    /// Behind what makes the value, or before the first of its users.
    fn position(&self, site: &Site, uses: &[Use], replaces: &[OpId]) -> At {
        let m: &Module = &self.rewriter;
        match m.value(site.value).def {
            Def::Result(op, _) => At::After(op),
            Def::Param(g, _) => m.ops_in(g).next().map_or(At::End(g), At::Before),
            _ => {
                let users = uses.iter().filter_map(|u| match u {
                    Use::Operand(op, _) => Some(*op),
                    _ => None,
                });
                let first =
                    users.chain(replaces.iter().copied()).min_by_key(|op| self.order.get(op).copied());
                let graph = graph_of(m, site, uses);
                first.map_or(At::End(graph), At::Before)
            }
        }
    }

    /// The global of a plan, made where none like it belongs to the same owner yet.
    fn global(&mut self, plan: &GlobalPlan) -> ValueId {
        let (key, owner) = match &plan.owner {
            Owner::Value(v, name) => ((0, gs_ir::Handle::index(*v) as u32), name),
            Owner::Class(id, name) => ((1, *id), name),
            Owner::Rule(i, name) => ((2, *i as u32), name),
        };
        let known = self.by_owner.entry(key).or_default();
        if let Some(&i) = known.iter().find(|&&i| self.globals[i].0 == *plan) {
            return self.rewriter.global(self.globals[i].1).value;
        }
        known.push(self.globals.len());
        let name = format!("{owner}.{}", plan.name);
        let global = self.rewriter.add_global(NewGlobal {
            name: &name,
            role: plan.role,
            trainable: plan.role == Role::Param,
            ty: Type::fixed(plan.elem, &plan.dims),
            init: plan.init.clone(),
        });
        self.globals.push((plan.clone(), global));
        self.rewriter.global(global).value
    }
}
