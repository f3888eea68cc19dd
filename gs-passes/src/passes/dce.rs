//! `dce`: removes operations and globals that nothing uses.

use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_ir::{GlobalId, Handle, Init, Module, OpId, Phase, Rewriter, Role};

/// The pass `dce`.
pub struct Dce;

impl Pass for Dce {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "dce",
            doc: "remove operations and globals that nothing uses",
            options: &[],
            accepts: &Phase::ALL,
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let (ops, globals) = remove_dead(module);
        Ok(PassReport::counting([("operations removed", ops), ("globals removed", globals)]))
    }
}

/// Removes what nothing uses; returns how many operations and globals went.
///
/// Random operations may go too when their results are unused; what has regions goes as a whole.
pub fn remove_dead(module: &mut Module) -> (usize, usize) {
    let mut rewriter = Rewriter::new(module);
    let mut ops = 0;
    // Backwards, so that one sweep suffices: users come after what they use.
    for op in rewriter.all_ops().into_iter().rev() {
        if rewriter.op(op).is_live() && is_unused(&rewriter, op) {
            let entry = rewriter.entry("removed", "dce", None, Some("its results are not used"));
            rewriter.retire(op, None, entry);
            ops += 1;
        }
    }
    (ops, remove_dead_globals(&mut rewriter))
}

fn is_unused(module: &Module, op: OpId) -> bool {
    module.op(op).results().iter().filter_map(|v| v.some()).all(|v| module.value(v).uses().is_empty())
}

/// Globals that neither a graph nor a derived global reads, from the last made to the first, until none is left.
fn remove_dead_globals(rewriter: &mut Rewriter<'_>) -> usize {
    let mut readers = vec![0u32; rewriter.global_capacity()];
    for (_, g) in rewriter.globals() {
        if let Init::Derived(d) = &g.init {
            d.operands.iter().flatten().for_each(|o| readers[o.index()] += 1);
        }
    }
    let unread = |m: &Module, readers: &[u32], g: GlobalId| {
        let is_interface = m.global(g).role == Role::Input;
        readers[g.index()] == 0
            && m.value(m.global(g).value).uses().is_empty()
            && !is_interface
            && !m.is_written(g)
    };
    let mut pending: Vec<GlobalId> = rewriter.globals().map(|(id, _)| id).collect();
    let mut removed = 0;
    while let Some(g) = pending.pop() {
        if !rewriter.global(g).live || !unread(rewriter, &readers, g) {
            continue;
        }
        if let Init::Derived(d) = &rewriter.global(g).init {
            let operands: Vec<GlobalId> = d.operands.iter().flatten().copied().collect();
            operands.iter().for_each(|o| readers[o.index()] -= 1);
            pending.extend(operands);
        }
        rewriter.remove_global(g);
        removed += 1;
    }
    removed
}
