//! Source names for operations that have none.

use gs_ir::{Module, OpId, Rewriter, Sym};
use rustc_hash::FxHashSet;

/// Gives every operation without a source name one, so that passes can say what became of it: the name of its first
/// result where that has one, else its operator with a number. No name is given twice. Returns how many were given.
pub fn name_operations(module: &mut Module) -> usize {
    let ops = module.all_ops();
    let nameless: Vec<OpId> = ops.iter().copied().filter(|&op| module.first_source(op).is_none()).collect();
    let mut taken: FxHashSet<Sym> = ops.iter().flat_map(|&op| module.source_of(op)).collect();
    taken.extend(module.gone.keys());
    let mut rewriter = Rewriter::new(module);
    for (number, &op) in nameless.iter().enumerate() {
        let result = rewriter.op(op).results().first().and_then(|v| v.some());
        let named = result.map(|v| rewriter.str(rewriter.value(v).name).to_owned()).filter(|n| !n.is_empty());
        let base = named.unwrap_or_else(|| format!("{}.{number}", rewriter.op_name(op)));
        let mut name = rewriter.intern(&base);
        let mut again = 1usize;
        while !taken.insert(name) {
            name = rewriter.intern(&format!("{base}.{again}"));
            again += 1;
        }
        rewriter.set_source(op, &[name]);
    }
    nameless.len()
}
