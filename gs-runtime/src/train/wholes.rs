//! What runs between the regions on values that are no samples: products of matrices, losses, the optimiser.

use super::build::{Builder, Found};
use super::piece::{Product, Whole};
use gs_eval::ExecError;
use gs_ir::{ElemType, OpId, Use, ValueId};

impl Builder<'_, '_> {
    pub(super) fn product(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(a), Some(b), y) = (self.operand(op, 0), self.operand(op, 1), self.result(op)) else {
            return Ok(None);
        };
        let dims = [a, b, y].map(|v| self.f32_dims(v));
        let [Some(da), Some(db), Some(dy)] = &dims else { return Ok(None) };
        let attrs = self.attrs(op);
        let (trans_a, trans_b) = (attrs.bool("trans_a", false), attrs.bool("trans_b", false));
        let (&[a0, a1], &[b0, b1]) = (da.as_slice(), db.as_slice()) else { return Ok(None) };
        let ((m, k), (k2, n)) =
            (if trans_a { (a1, a0) } else { (a0, a1) }, if trans_b { (b1, b0) } else { (b0, b1) });
        if k != k2 || *dy != [m, n] || m * n * k == 0 {
            return Ok(None);
        }
        let (alpha, beta) = (attrs.float("alpha", 1.0), attrs.float("beta", 1.0));
        let mut reads = vec![self.read_home(a)?, self.read_home(b)?];
        if let Some(c) = self.operand(op, 2) {
            let fits = self.f32_dims(c).is_some_and(|d| {
                let mut wide = vec![1; 2usize.saturating_sub(d.len())];
                wide.extend(&d);
                matches!(wide.as_slice(), &[r, c] if (r == 1 || r == m) && (c == 1 || c == n))
            });
            if !fits {
                return Ok(None);
            }
            reads.push(self.read_home(c)?);
        }
        let Some(home) = self.make_home(y) else { return Ok(None) };
        let kernel = Whole::Product(Product { m, k, n, trans_a, trans_b, alpha, beta });
        self.whole(Some(op), kernel, reads, vec![home], None);
        Ok(Some(()))
    }

    pub(super) fn cross_entropy(&mut self, op: OpId) -> Result<Found, ExecError> {
        let backward = self.module.is(op, "cross_entropy_grad");
        let operands: Option<Vec<ValueId>> =
            (0..2 + usize::from(backward)).map(|i| self.operand(op, i)).collect();
        let Some(operands) = operands else { return Ok(None) };
        let (rows, labels) = (operands[usize::from(backward)], operands[1 + usize::from(backward)]);
        let Some(dims) = self.f32_dims(rows) else { return Ok(None) };
        let labels_fit =
            self.extents_of(labels).is_some_and(|e| e.elem == ElemType::I64 && e.dims == dims[..1]);
        let &[n, classes] = dims.as_slice() else { return Ok(None) };
        let results = self.module.op(op).results().to_vec();
        if !labels_fit || n * classes == 0 {
            return Ok(None);
        }
        let mut reads = Vec::new();
        for v in operands {
            reads.push(self.read_home(v)?);
        }
        let mut writes = Vec::new();
        for (i, &v) in results.iter().enumerate() {
            let len = if i + 1 == results.len() { n * classes } else { 1 };
            let home = if v.is_none() { Some(self.floats_home(len)) } else { self.make_home(v) };
            writes.push(home.ok_or(ExecError::Undefined(v))?);
        }
        let smoothing = f64::from(self.attrs(op).float("label_smoothing", 0.0));
        let kernel = if backward {
            Whole::CrossEntropyGrad { smoothing, classes }
        } else {
            Whole::CrossEntropy { smoothing, classes }
        };
        self.whole(Some(op), kernel, reads, writes, None);
        Ok(Some(()))
    }

    /// A transposed matrix that is no batch.
    pub(super) fn swap(&mut self, op: OpId) -> Result<Found, ExecError> {
        let (Some(x), y) = (self.operand(op, 0), self.result(op)) else { return Ok(None) };
        let (Some(dims), Some(&from)) = (self.f32_dims(x), self.home_of.get(&x)) else { return Ok(None) };
        let &[rows, _] = dims.as_slice() else { return Ok(None) };
        if self.attrs(op).ints("perm") == Some(&[0, 1]) {
            self.home_of.insert(y, from);
            return Ok(Some(()));
        }
        let Some(home) = self.make_home(y) else { return Ok(None) };
        self.whole(Some(op), Whole::Swap { rows }, vec![from], vec![home], None);
        Ok(Some(()))
    }

    /// Whether a global may be overwritten by a result of this operation: it is stored there, and whatever else reads
    /// the old contents comes before.
    pub(super) fn in_place(&self, op: OpId, operand: ValueId, result: ValueId) -> bool {
        let Some(global) = self.module.as_global(operand) else { return false };
        let stored = self.module.value(result).uses().iter().any(|u| match *u {
            Use::Update(graph, i) => {
                self.module.graph(graph).updates().nth(i as usize).is_some_and(|u| u.0 == global)
            }
            _ => false,
        });
        let here = self.place.get(&op);
        let done = self.module.value(operand).uses().iter().all(|u| match u {
            Use::Operand(user, _) => match self.place.get(user) {
                Some(place) => Some(place) <= here,
                // Another graph, or an operation that nothing wants; one in a region may come later.
                None => !self.is_inside(*user),
            },
            Use::Return(graph, _) => !self.is_here(*graph),
            Use::Update(graph, _) => !self.is_here(*graph),
        });
        stored && done && !self.planner.taps.contains(&operand)
    }

    pub(super) fn is_here(&self, graph: gs_ir::GraphId) -> bool {
        self.place.keys().next().is_some_and(|&op| self.module.op(op).graph == graph)
    }

    pub(super) fn is_inside(&self, op: OpId) -> bool {
        !self.module.entries().contains(&self.module.op(op).graph)
    }

    pub(super) fn optimise(&mut self, op: OpId) -> Result<Found, ExecError> {
        let states = if self.module.is(op, "sgd") { 1 } else { 2 };
        let operands: Option<Vec<ValueId>> = (0..4 + 2 * (states - 1)).map(|i| self.operand(op, i)).collect();
        let Some(operands) = operands else { return Ok(None) };
        let (param, grad) = (operands[0], operands[1]);
        let results = self.module.op(op).results().to_vec();
        let mut old = vec![param];
        old.extend(&operands[2..2 + states]);
        let dims = self.f32_dims(param);
        if dims.is_none()
            || results.len() != old.len()
            || self.f32_dims(grad) != dims
            || old.iter().any(|&v| self.f32_dims(v) != dims)
            || self.f32_dims(operands[2 + states]).is_none()
        {
            return Ok(None);
        }
        let mut reads = vec![self.read_home(grad)?];
        for &v in &operands[2 + states..] {
            reads.push(self.read_home(v)?);
        }
        let in_place = old.iter().zip(&results).all(|(&o, &r)| !r.is_none() && self.in_place(op, o, r));
        let mut writes = Vec::new();
        for (&o, &r) in old.iter().zip(&results) {
            let from = self.read_home(o)?;
            if in_place {
                self.home_of.insert(r, from);
                writes.push(from);
            } else {
                reads.push(from);
                let home = if r.is_none() {
                    Some(self.floats_home(dims.iter().flatten().product()))
                } else {
                    self.make_home(r)
                };
                writes.push(home.ok_or(ExecError::Undefined(r))?);
            }
        }
        let attrs = self.attrs(op);
        let decay = attrs.float("weight_decay", 0.0);
        let kernel = if states == 1 {
            let momentum = attrs.float("momentum", 0.9);
            Whole::Sgd(gs_kernels::Sgd { momentum, decay, nesterov: attrs.bool("nesterov", false) })
        } else {
            let betas = (attrs.float("beta1", 0.9), attrs.float("beta2", 0.999));
            let epsilon = attrs.float("epsilon", 1e-8);
            Whole::AdamW(gs_kernels::AdamW { betas, epsilon, decay })
        };
        self.whole(Some(op), kernel, reads, writes, None);
        Ok(Some(()))
    }
}
