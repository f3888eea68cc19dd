//! Which values training learns.

use crate::entity::ValueId;
use crate::graph::Use;
use crate::module::Module;
use crate::registry::Traits;

/// Operations that move a weight about before what learns it reads it: a bound, since usually nothing else reads it.
const MOVES: usize = 64;

/// Whether an operand that is learned reads a value, directly or moved about.
pub fn is_learned(module: &Module, value: ValueId) -> bool {
    let mut pending = vec![value];
    let mut seen = Vec::new();
    while let Some(v) = pending.pop() {
        for u in module.value(v).uses() {
            let Use::Operand(op, i) = *u else { continue };
            let decl = module.decl(op);
            if decl.operand(i as usize).is_some_and(|o| o.learned) {
                return true;
            }
            // A moved weight is still that weight.
            let only_weights =
                module.op(op).present_operands().all(|o| o == v || module.as_global(o).is_some());
            if decl.traits.has(Traits::MOVES) && only_weights && !seen.contains(&op) && seen.len() < MOVES {
                seen.push(op);
                pending.extend(module.op(op).results().iter().filter_map(|r| r.some()));
            }
        }
    }
    false
}
