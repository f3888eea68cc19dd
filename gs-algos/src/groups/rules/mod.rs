//! What each form of axis rule says: [`clauses`] for the language of the declarations, [`broadcast`] for element-wise
//! operators and sums of products, [`extents`] for what cuts and joins axes, [`places`] for what moves along them.

mod broadcast;
mod clauses;
mod extents;
mod places;

pub(super) use extents::from_front;

use super::axes::{Axis, Slot};
use super::solver::{LONGEST, Reason, Site, Solver, slot_of};
use gs_ir::infer::{Fact, InferCtx};
use gs_ir::registry::{AxisFunction, AxisRule};
use gs_ir::{Dim, ValueId};
use smallvec::SmallVec;

impl<'m> Solver<'m> {
    /// Gives the results of an operation their axes and ties those of its operands.
    pub(super) fn rule(&mut self, site: &Site<'m>) {
        let none = slot_of(ValueId::NONE);
        let short = |d: &Dim| d.as_const().is_none_or(|n| n <= LONGEST as i64);
        let followed = |slot: &Slot| *slot == none || self.dims(*slot).is_some_and(|d| d.iter().all(short));
        let known = site.operands.iter().flatten().chain(&site.results).all(followed);
        match site.decl.axes {
            AxisRule::Opaque => self.opaque(site),
            _ if !known => self.opaque(site),
            AxisRule::Clauses(_) => {
                let clauses = self.module.registry().axis_clauses(site.kind).to_vec();
                self.clauses(site, &clauses);
            }
            AxisRule::Elementwise => self.elementwise(site),
            AxisRule::Function(function) => self.function(site, function),
        }
    }

    fn function(&mut self, site: &Site<'m>, function: AxisFunction) {
        use AxisFunction as F;
        let Some(Some(x)) = site.operands.first().copied() else { return self.opaque(site) };
        match function {
            F::Concat => self.concat(site),
            F::Expand => self.expand(site, x),
            F::Flatten | F::Reshape => self.reshape(site, x),
            F::Gather => self.gather(site, x),
            F::Gemm => self.gemm(site),
            F::LayerNorm => self.layer_norm(site, x),
            F::Matmul => self.matmul(site),
            F::Pad => self.pad(site, x),
            F::Qpool => self.pool(site, x),
            F::Quantize => self.quantize(site, x),
            F::Reduce => self.reduce(site, x),
            F::Shape => self.shape(site, x),
            F::Slice => self.slice(site, x),
            F::Softmax => self.softmax(site, x),
            F::Split => self.split(site, x),
            F::Squeeze => self.squeeze(site, x),
            F::Tile => self.tile(site, x),
            F::Transpose => self.transpose(site, x),
            F::Unsqueeze => self.unsqueeze(site, x),
            F::Own(own) => {
                let facts: Vec<Option<Fact>> = site
                    .operands
                    .iter()
                    .map(|s| s.map(|s| Fact::of(self.module.type_of(self.value(s)).clone())))
                    .collect();
                let clauses = own(&InferCtx {
                    decl: site.decl,
                    operands: &facts,
                    attrs: site.attrs,
                    regions: &[],
                    result_count: site.results.len(),
                    results: SmallVec::new(),
                });
                self.clauses(site, &clauses);
            }
        }
    }

    /// States the axes of the first result; the operands from `from` on are kept as they are.
    fn result(&mut self, site: &Site<'m>, axes: Vec<Axis>, from: usize) {
        if let Some(&y) = site.results.first() {
            self.axes.set(y, axes);
        }
        for (place, slot) in site.operands.iter().enumerate().skip(from) {
            let name = site.decl.operand(place).map_or("", |o| o.name);
            if let Some(slot) = slot {
                self.keep_all(*slot, Reason::Fixed { op: site.op, name });
            }
        }
    }

    /// Ties two axes of an operation.
    fn tie(&mut self, site: &Site<'m>, a: Axis, b: Axis) {
        let why = self.why(Reason::Shape { op: site.op });
        self.axes.tie(a, b, why);
    }

    /// Keeps an axis because of what the operation does with it.
    fn fix(&mut self, site: &Site<'m>, axis: Axis, name: &'static str) -> Axis {
        self.keep(axis, Reason::Fixed { op: site.op, name });
        Axis::Kept(self.why(Reason::Fixed { op: site.op, name }))
    }

    fn single(&mut self) -> Axis {
        Axis::Kept(self.why(Reason::Single))
    }
}
