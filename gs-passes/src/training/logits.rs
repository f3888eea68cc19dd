//! What a network's classes are chosen from, before they become probabilities. Cross entropy and distillation have a
//! softmax of their own: taken of probabilities they would have two of them, and gradients that hardly tell one class
//! from another.

use crate::manager::PassError;
use gs_ir::registry::Traits;
use gs_ir::{At, Dim, Module, OpId, Rewriter, ValueId};

/// A softmax at the end of a network.
#[derive(Clone, Debug)]
pub struct FinalSoftmax {
    /// The softmax, or its logarithm.
    pub op: OpId,
    /// What it reads.
    pub logits: ValueId,
    /// What changes the shape of its result until it is the output, the last one first.
    moves: Vec<OpId>,
}

impl FinalSoftmax {
    /// Looks for one whose result an output is. It goes along the classes, the output's axis 1. What stands between it
    /// and the output may change the shape, or round (a quantiser).
    pub fn of(module: &Module, output: ValueId) -> Option<Self> {
        let mut moves = Vec::new();
        let mut value = output;
        loop {
            let op = module.producer(value)?;
            let data = module.op(op).operand(0)?;
            match module.op_name(op) {
                "softmax" | "log_softmax" => {
                    let found = along_classes(module, op, data, output, moves.is_empty());
                    return found.then_some(Self { op, logits: data, moves });
                }
                "reshape" | "flatten" | "squeeze" | "unsqueeze" => moves.push(op),
                "identity" | "dropout" => {}
                _ if module.decl(op).traits.has(Traits::QUANTISER) => {}
                _ => return None,
            }
            value = data;
        }
    }

    /// The logits in the shape of the output: what moves the probabilities moves a copy of them.
    ///
    /// # Errors
    /// Where an operation cannot be repeated.
    pub fn shaped(&self, rewriter: &mut Rewriter<'_>, at: At) -> Result<ValueId, PassError> {
        let mut value = self.logits;
        for &op in self.moves.iter().rev() {
            let (kind, attrs) = (rewriter.op(op).kind, rewriter.attrs_of(op).clone());
            let mut operands: Vec<Option<ValueId>> = rewriter.op(op).operands().collect();
            if let Some(first) = operands.first_mut() {
                *first = Some(value);
            }
            let copy = rewriter.create(kind, &operands, attrs, 1, at)?;
            value = rewriter.op(copy).result();
        }
        Ok(value)
    }
}

/// Whether a softmax goes along what is axis 1 of the output.
fn along_classes(module: &Module, op: OpId, data: ValueId, output: ValueId, as_it_is: bool) -> bool {
    let (Some(dims), Some(out)) = (module.type_of(data).dims(), module.type_of(output).dims()) else {
        return false;
    };
    let attrs = module.attrs_of(op);
    let axis = attrs.int("axis", -1);
    let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
    let Some(axis) = usize::try_from(axis).ok().filter(|&a| a > 0 && a < dims.len()) else { return false };
    let single = |dims: &[Dim]| dims.iter().all(|d| *d == Dim::Const(1));
    // Before ONNX 13 it went along all axes from that one on.
    if attrs.bool("legacy", false) && !single(&dims[axis + 1..]) {
        return false;
    }
    if as_it_is {
        return axis == 1;
    }
    // Moved: only if nothing but samples and classes has an extent.
    out.len() > 1
        && single(&dims[1..axis])
        && single(&dims[axis + 1..])
        && single(&out[2..])
        && out[0] == dims[0]
        && out[1] == dims[axis]
}
