//! `cse`: operations that compute the same become one.

use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_ir::registry::Traits;
use gs_ir::{
    AttrsId, GlobalId, GraphId, Init, Module, OpId, OpKind, Phase, Rewriter, Role, TensorData, Type, TypeId,
    ValueId,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// The pass `cse`.
pub struct Cse;

impl Pass for Cse {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "cse",
            doc: "merge operations that compute the same",
            options: &[],
            accepts: &Phase::ALL,
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        let constants = merge_constants(module);
        Ok(PassReport::counting([
            ("operations merged", merge_equal(module)),
            ("constants merged", constants),
        ]))
    }
}

/// What makes two operations compute the same.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    graph: GraphId,
    kind: OpKind,
    attrs: AttrsId,
    operands: SmallVec<[Option<ValueId>; 4]>,
    results: usize,
}

/// Constants larger than this are not compared.
const COMPARED: usize = 4096;

/// Lets graphs read one of several small constants of equal type and contents; returns how many are not read any more.
pub fn merge_constants(module: &mut Module) -> usize {
    let mut rewriter = Rewriter::new(module);
    let mut seen: FxHashMap<(TypeId, TensorData), GlobalId> = FxHashMap::default();
    let mut merged = 0;
    let globals: Vec<GlobalId> = rewriter.globals().map(|(id, _)| id).collect();
    for id in globals {
        let global = rewriter.global(id);
        let Init::Data(data) = &global.init else { continue };
        let small = data.bytes().is_some_and(|b| b.len() <= COMPARED);
        if global.role != Role::Const
            || rewriter.is_written(id)
            || !small
            || rewriter.value(global.value).uses().is_empty()
        {
            continue;
        }
        let (key, value) = ((global.ty, data.clone()), global.value);
        match seen.get(&key) {
            Some(&first) => {
                let first = rewriter.global(first).value;
                rewriter.replace_uses(value, first);
                merged += 1;
            }
            None => {
                seen.insert(key, id);
            }
        }
    }
    merged
}

/// Merges equal operations of each graph; returns how many went. The first one stays and takes over names and sources.
pub fn merge_equal(module: &mut Module) -> usize {
    merge_equal_of(module, &|_, _| true)
}

/// As [`merge_equal`], of these operations only.
pub fn merge_equal_of(module: &mut Module, of: &dyn Fn(&Module, OpId) -> bool) -> usize {
    let mut rewriter = Rewriter::new(module);
    let mut seen: FxHashMap<Key, OpId> = FxHashMap::default();
    let mut merged = 0;
    for op in rewriter.all_ops() {
        if !of(&rewriter, op) {
            continue;
        }
        let Some(key) = key(&rewriter, op) else { continue };
        let Some(&first) = seen.get(&key) else {
            seen.insert(key, op);
            continue;
        };
        if !same_types(&rewriter, first, op) {
            continue;
        }
        let results: SmallVec<[ValueId; 2]> = rewriter.op(first).results().into();
        let entry = rewriter.entry("merged", "cse", None, None);
        rewriter.replace(op, &results, Some(first), entry);
        merged += 1;
    }
    merged
}

fn key(module: &Module, op: OpId) -> Option<Key> {
    let data = module.op(op);
    if !module.decl(op).traits.has(Traits::PURE) || !data.regions().is_empty() {
        return None;
    }
    Some(Key {
        graph: data.graph,
        kind: data.kind,
        attrs: data.attrs,
        operands: data.operands().collect(),
        results: data.results().len(),
    })
}

/// Whether results correspond, and no use of the second one's result would see another type. Extents that are
/// merely named differently are the same extents, since the operations are.
fn same_types(module: &Module, a: OpId, b: OpId) -> bool {
    let (a, b) = (module.op(a).results(), module.op(b).results());
    let rank = |v: ValueId| match module.type_of(v) {
        Type::Tensor(t) => Some((t.elem, t.rank())),
        _ => None,
    };
    a.iter().zip(b).all(|(&x, &y)| y.is_none() || (!x.is_none() && rank(x) == rank(y)))
}
