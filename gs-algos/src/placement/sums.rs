//! Sums that are read on two grids. What follows a residual addition is read by the next layer, with few bits, and by
//! the next addition, with more. One tensor has one quantiser, so the sum is written twice: both compute the same until
//! each has a quantiser of its own, and deployed each is one integer addition. (A sum with two quantisers stays in float in
//! runtimes that fuse.)

use super::edges::{Edges, is_layer};
use gs_ir::registry::{QRole, Traits};
use gs_ir::{At, GraphId, InferError, Module, OpId, Rewriter, Use, ValueId};
use gs_passes::grid::{Grids, Part};

/// A region without a weight whose result layers and others read.
struct Shared {
    /// From the operation that computes to the last that became part of it.
    ops: Vec<OpId>,
    /// Where inner layers read it.
    layers: Vec<Use>,
}

/// Gives inner layers a sum of their own where others read it too. Returns how many were written twice.
///
/// # Errors
/// Where an operation does not fit (a defect).
pub(super) fn split(
    module: &mut Module,
    graph: GraphId,
    grids: &Grids,
    edges: &Edges,
) -> Result<usize, InferError> {
    let shared: Vec<Shared> =
        module.ops_in(graph).filter_map(|op| shared_sum(module, grids, edges, op)).collect();
    let mut rewriter = Rewriter::new(module);
    for region in &shared {
        write_again(&mut rewriter, region)?;
    }
    Ok(shared.len())
}

/// The region that an element-wise operation begins, if it is read by layers and by others.
fn shared_sum(module: &Module, grids: &Grids, edges: &Edges, first: OpId) -> Option<Shared> {
    let computes = |op: OpId| grids.part(op) == Some(&Part::Computes);
    let cheap = module.decl(first).traits.has(Traits::ELEMENTWISE) && !is_layer(module, first);
    if !computes(first) || !cheap || module.op(first).results().len() != 1 {
        return None;
    }
    let mut ops = vec![first];
    let mut result = module.op(first).result();
    while let Some(Use::Operand(next, 0)) = module.only_use(result) {
        if grids.part(next) != Some(&(Part::Absorbed { into: first })) {
            break;
        }
        ops.push(next);
        result = module.op(next).result();
    }
    let inner = |u: &Use| match *u {
        Use::Operand(op, i) => {
            let data = module.decl(op).operand(i as usize).is_some_and(|o| o.role == QRole::Data);
            data && computes(op) && is_layer(module, op) && !edges.contains(op)
        }
        _ => false,
    };
    let uses = module.value(result).uses();
    let layers: Vec<Use> = uses.iter().copied().filter(inner).collect();
    let split = !layers.is_empty() && layers.len() < uses.len();
    split.then_some(Shared { ops, layers })
}

/// Writes a region again behind itself, for the layers that read it.
fn write_again(rewriter: &mut Rewriter<'_>, region: &Shared) -> Result<(), InferError> {
    let Some(&last) = region.ops.last() else { return Ok(()) };
    let (mut at, mut result) = (last, None);
    for &op in &region.ops {
        let mut operands: Vec<Option<ValueId>> = rewriter.op(op).operands().collect();
        if let (Some(before), Some(first)) = (result, operands.first_mut()) {
            *first = Some(before);
        }
        let (kind, attrs) = (rewriter.op(op).kind, rewriter.attrs_of(op).clone());
        let names = rewriter.source_of(op).to_vec();
        let made = rewriter.create(kind, &operands, attrs, 1, At::After(at))?;
        rewriter.set_source(made, &names);
        (at, result) = (made, Some(rewriter.op(made).result()));
    }
    for u in &region.layers {
        if let Use::Operand(op, i) = *u {
            rewriter.set_operand(op, i as usize, result);
        }
    }
    Ok(())
}
