//! Other contents of globals: only the kernels that read them are packed again.

use super::RuntimePlan;
use super::build::{Planner, Stage};
use super::kernel::wanted_halo;
use super::recipe::Recipe;
use super::segment::{Segment, Step};
use super::slot::Slot;
use gs_eval::{ExecError, Tensor};
use gs_ir::{GlobalId, ValueId};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Where a kernel stands: the stage, and the step in it.
pub(crate) type Place = (usize, usize);

/// A kernel that is to be packed again.
struct Renewal<'s> {
    step: &'s mut Step,
    slots: &'s [Slot],
    recipe: Recipe,
}

/// The kernels that read each global.
pub(crate) fn packers(planner: &Planner<'_>, stages: &[Stage<'_>]) -> FxHashMap<GlobalId, Vec<Place>> {
    let mut packers: FxHashMap<GlobalId, Vec<Place>> = FxHashMap::default();
    for (i, stage) in stages.iter().enumerate() {
        let Stage::Segment(segment) = stage else { continue };
        for (j, step) in segment.steps.iter().enumerate() {
            let operands = planner.module.op(step.op).present_operands();
            let constants = operands.filter(|&v| planner.is_constant(v));
            let globals: BTreeSet<GlobalId> = constants.flat_map(|v| planner.sources(v)).collect();
            for global in globals {
                packers.entry(global).or_default().push((i, j));
            }
        }
    }
    packers
}

impl RuntimePlan<'_> {
    /// Brings kernels and constants up to date with the contents of globals. Where that fails, the next run tries again.
    pub(super) fn refresh(&mut self) -> Result<(), ExecError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        // What was read before a refresh that failed may be others' by now.
        self.planner.let_go();
        let mut fresh: Vec<(ValueId, Tensor)> = Vec::new();
        let kept: BTreeSet<ValueId> =
            self.stale.iter().filter_map(|g| self.kept_of.get(g)).flatten().copied().collect();
        for value in kept {
            if let Some(tensor) = self.planner.constant(value)? {
                fresh.push((value, tensor));
            }
        }
        if self.renew_kernels()? {
            self.constants.extend(fresh);
            self.planner.let_go();
            self.stale.clear();
            Ok(())
        } else {
            self.make()
        }
    }

    /// Packs the kernels that read changed globals again; false where one of them has to be chosen anew.
    fn renew_kernels(&mut self) -> Result<bool, ExecError> {
        let places: BTreeSet<Place> =
            self.stale.iter().filter_map(|g| self.packers.get(g)).flatten().copied().collect();
        let mut recipes: FxHashMap<Place, Recipe> = FxHashMap::default();
        for &(i, j) in &places {
            let Some(Stage::Segment(segment)) = self.stages.get(i) else { return Ok(false) };
            let Some(step) = segment.steps.get(j) else { return Ok(false) };
            match self.planner.draft(step.op)? {
                Ok(draft) if lies_as(&draft.recipe, segment, step) => recipes.insert((i, j), draft.recipe),
                _ => return Ok(false),
            };
        }
        let mut renewals: Vec<Renewal<'_>> = Vec::with_capacity(recipes.len());
        for (i, stage) in self.stages.iter_mut().enumerate() {
            let Stage::Segment(segment) = stage else { continue };
            let Segment { steps, slots, .. } = segment.as_mut();
            for (j, step) in steps.iter_mut().enumerate() {
                if let Some(recipe) = recipes.remove(&(i, j)) {
                    renewals.push(Renewal { step, slots, recipe });
                }
            }
        }
        let kernels = self.planner.kernels;
        let renew = |r: Renewal<'_>| {
            let reads: Vec<&Slot> = r.step.reads.iter().map(|&i| &r.slots[i]).collect();
            r.step.kernel.renew(kernels, r.recipe, &reads, &r.slots[r.step.write]).is_ok()
        };
        Ok(self.runtime.pool().install(|| renewals.into_par_iter().map(renew).reduce(|| true, |a, b| a && b)))
    }
}

/// Whether a recipe reads its operand with the spare pixels that it has.
fn lies_as(recipe: &Recipe, segment: &Segment, step: &Step) -> bool {
    let Some((_, byte)) = wanted_halo(recipe) else { return true };
    step.reads.first().is_some_and(|&r| segment.slots[r].padding == byte)
}
