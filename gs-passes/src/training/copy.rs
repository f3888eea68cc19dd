//! Copies of graphs within a module.

use gs_ir::{At, GraphId, OpId, Rewriter, ValueId};
use rustc_hash::FxHashMap;

/// Copies a graph's operations to the end of another graph. What `map` has is read in place of the original (parameters,
/// globals); parameters that it lacks become parameters of the other graph. Names get a prefix; source names are not
/// copied, since the ledger counts what `@main` does. Gives the copy of each value.
///
/// # Errors
/// Where an operation has graphs of its own, by its label.
pub fn copy_graph(
    rewriter: &mut Rewriter<'_>,
    from: GraphId,
    to: GraphId,
    mut map: FxHashMap<ValueId, ValueId>,
    prefix: &str,
) -> Result<FxHashMap<ValueId, ValueId>, String> {
    for old in rewriter.graph(from).params().to_vec() {
        map.entry(old).or_insert_with(|| {
            let (name, ty) = described(rewriter, old);
            rewriter.add_param(to, &name, ty)
        });
    }
    let ops: Vec<OpId> = rewriter.ops_in(from).collect();
    for op in ops {
        if !rewriter.op(op).regions().is_empty() {
            return Err(format!(
                "\"{}\" carries graphs of its own, which are not trained",
                rewriter.label(op)
            ));
        }
        let (kind, attrs) = (rewriter.op(op).kind, rewriter.attrs_of(op).clone());
        let operands: Vec<Option<ValueId>> =
            rewriter.op(op).operands().map(|v| v.map(|v| map.get(&v).copied().unwrap_or(v))).collect();
        let results = rewriter.op(op).results().to_vec();
        let types: Vec<_> = results
            .iter()
            .map(|r| r.some().map_or(gs_ir::Type::Any, |r| rewriter.type_of(r).clone()))
            .collect();
        let copy = rewriter.create_typed(kind, &operands, attrs, &types, At::End(to));
        for (i, old) in results.into_iter().enumerate() {
            if old.is_none() {
                rewriter.omit_result(copy, i);
                continue;
            }
            let new = rewriter.op(copy).results()[i];
            let (name, _) = described(rewriter, old);
            if !name.is_empty() {
                rewriter.set_name(new, &format!("{prefix}{name}"));
            }
            map.insert(old, new);
        }
    }
    Ok(map)
}

fn described(rewriter: &Rewriter<'_>, value: ValueId) -> (String, gs_ir::Type) {
    let name = rewriter.value(value).name.some().map_or("", |n| rewriter.str(n));
    (name.to_owned(), rewriter.type_of(value).clone())
}
