//! Weights that were trained elsewhere, from a `.safetensors` file with the names of our globals.

use crate::failure::{Failure, Outcome};
use gs_ir::{ElemType, GlobalId, Init, Literal, Module, Rewriter, Role};
use gs_text::gsir::type_text;
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names shown of a list.
const SHOWN: usize = 5;

/// Gives a network the weights of a file. Everything that is learned or observed must be there, and nothing else; what
/// is constant may be.
///
/// # Errors
/// A file that is none, names that are missing or too many, other shapes or element types.
pub fn load(module: &mut Module, path: &Path) -> Outcome<()> {
    let failed = |text: String| Failure::new(format!("{}: {text}", path.display()));
    let bytes = fs::read(path).map_err(|e| failed(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| failed(format!("no safetensors file, or not all of one: {e}")))?;
    let names: BTreeSet<&str> = file.names().into_iter().collect();
    let read = read_by_main(module);
    let surplus: Vec<&str> = names
        .iter()
        .filter(|name| module.global_named(name).is_none_or(|g| !read.contains(&g)))
        .copied()
        .collect();
    let missing = missing(module, &names);
    let help = "the names are those of the globals that `gs-opt NET --brief` shows";
    if !missing.is_empty() {
        return Err(failed(format!("it lacks {}", listed(&missing))).help(help));
    }
    if !surplus.is_empty() {
        return Err(failed(format!("the network does not read {}", listed(&surplus))).help(help));
    }
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    for name in &names {
        let (Some(global), Ok(view)) = (module.global_named(name), file.tensor(name)) else { continue };
        let ty = module.ty(module.global(global).ty);
        let dims: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        let elem = elem_of(view.dtype());
        let fits =
            ty.as_tensor().is_some_and(|t| Some(t.elem) == elem && t.const_dims().as_ref() == Some(&dims));
        match elem.filter(|_| fits) {
            Some(elem) => found.push((global, ty.clone(), Literal::new(elem, dims, view.data().to_vec()))),
            None => wrong.push(format!(
                "`{name}` is {:?}{dims:?}, in the network {}",
                view.dtype(),
                type_text(module, ty)
            )),
        }
    }
    if !wrong.is_empty() {
        return Err(failed(wrong.join("\n  ")));
    }
    let mut rewriter = Rewriter::new(module);
    for (global, ty, literal) in found {
        rewriter.set_global(global, ty, Init::Data(literal.data));
    }
    Ok(())
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|n| format!("`{}`", n.as_ref())).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// The globals that the network reads, and what these are derived from.
fn read_by_main(module: &Module) -> BTreeSet<GlobalId> {
    let mut pending = directly(module);
    let mut seen = BTreeSet::new();
    while let Some(global) = pending.pop() {
        if seen.insert(global)
            && let Init::Derived(derived) = &module.global(global).init
        {
            pending.extend(derived.operands.iter().flatten());
        }
    }
    seen
}

fn directly(module: &Module) -> Vec<GlobalId> {
    let Some(main) = module.main() else { return Vec::new() };
    let operands = module.ops_in(main).flat_map(|op| module.op(op).present_operands());
    operands.chain(module.graph(main).results()).filter_map(|v| module.as_global(v)).collect()
}

/// What is learned or observed and follows from none of these names.
fn missing(module: &Module, names: &BTreeSet<&str>) -> Vec<String> {
    let mut pending = directly(module);
    let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = pending.pop() {
        let global = module.global(id);
        let name = module.str(global.name);
        if !seen.insert(id) || names.contains(name) {
            continue;
        }
        match &global.init {
            Init::Derived(derived) => pending.extend(derived.operands.iter().flatten()),
            _ if matches!(global.role, Role::Param | Role::State) => drop(missing.insert(name.to_owned())),
            _ => {}
        }
    }
    missing.into_iter().collect()
}

fn elem_of(dtype: Dtype) -> Option<ElemType> {
    Some(match dtype {
        Dtype::BOOL => ElemType::Bool,
        Dtype::U8 => ElemType::U8,
        Dtype::I8 => ElemType::I8,
        Dtype::I32 => ElemType::I32,
        Dtype::I64 => ElemType::I64,
        Dtype::F16 => ElemType::F16,
        Dtype::BF16 => ElemType::Bf16,
        Dtype::F32 => ElemType::F32,
        Dtype::F64 => ElemType::F64,
        _ => return None,
    })
}
