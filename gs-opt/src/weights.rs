//! Weights that were trained elsewhere: from a `.safetensors` file with the names of our globals, or from a network in
//! GSIR text that was trained here.

use crate::failure::{Failure, Outcome};
use crate::files;
use gs_eval::{Materializer, Tensor};
use gs_ir::{ElemType, GlobalId, Init, Literal, Module, Rewriter, Role};
use gs_text::gsir::type_text;
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Names shown of a list.
const SHOWN: usize = 5;

/// A tensor that is given for a global.
struct Given {
    /// How its type is written where it comes from.
    ty: String,
    /// Its contents, where their element type is one of ours.
    literal: Option<Literal>,
}

/// Gives a network the weights of a file. Everything that is learned or observed must be there, and nothing else; what
/// is constant may be. Of a network in text (`.gsir`) those are taken that this one reads.
///
/// # Errors
/// A file that is none, names that are missing or too many, other shapes or element types, numbers that are not finite.
pub fn load(module: &mut Module, path: &Path) -> Outcome<()> {
    let failed = |text: String| Failure::new(format!("{}: {text}", path.display()));
    let read = read_by_main(module);
    let is_read = |name: &str| module.global_named(name).is_some_and(|g| read.contains(&g));
    let of_network = path.extension().is_some_and(|e| e == "gsir");
    let given = if of_network { globals(path, &is_read)? } else { tensors(path)? };
    let help = "it needs each global that `gs-opt NET --brief` shows as param or state and the graph reads, ranges of \
                quantisers too, under its name there; constants may be there, but nothing else";
    let missing = missing(module, &given);
    if !missing.is_empty() {
        return Err(failed(format!("it lacks {}", listed(&missing))).help(help));
    }
    let surplus: Vec<&String> = given.keys().filter(|name| !is_read(name)).collect();
    if !surplus.is_empty() {
        return Err(failed(format!("the network does not read {}", listed(&surplus))).help(help));
    }
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    for (name, Given { ty: found_as, literal }) in given {
        let Some(global) = module.global_named(&name) else { continue };
        let ty = module.ty(module.global(global).ty);
        let fits = |l: &Literal| {
            ty.as_tensor().is_some_and(|t| t.elem == l.elem && t.const_dims().as_ref() == Some(&l.dims))
        };
        match literal.filter(fits) {
            Some(literal) => found.push((global, ty.clone(), literal)),
            None => wrong.push(format!("`{name}` is {found_as}, in the network {}", type_text(module, ty))),
        }
    }
    if !wrong.is_empty() {
        return Err(failed(wrong.join("\n  ")));
    }
    let mut own = Materializer::new(module);
    let mut astray = Vec::new();
    for (global, _, literal) in &found {
        // A constant may be so by nature, such as a mask of negative infinities; then it is so in the network too.
        let constant = module.global(*global).role == Role::Const;
        let by_nature = constant && own.tensor(*global).is_ok_and(|t| not_finite(&t).is_some());
        if let Some(what) = not_finite(&Tensor::from_literal(literal)?).filter(|_| !by_nature) {
            astray.push(format!("`{}` {what}", module.str(module.global(*global).name)));
        }
    }
    refuse_astray(path, &astray)?;
    let mut rewriter = Rewriter::new(module);
    for (global, ty, literal) in found {
        rewriter.set_global(global, ty, Init::Data(literal.data));
    }
    Ok(())
}

/// Whether all that the network has learned or observed is a number.
///
/// # Errors
/// The tensors that hold others.
pub fn check_finite(module: &Module, path: &Path) -> Outcome<()> {
    let mut contents = Materializer::new(module);
    let mut astray = Vec::new();
    for id in read_by_main(module) {
        let global = module.global(id);
        if !matches!(global.role, Role::Param | Role::State) || matches!(global.init, Init::Derived(_)) {
            continue;
        }
        if let Some(what) = contents.tensor(id).ok().and_then(|t| not_finite(&t)) {
            astray.push(format!("`{}` {what}", module.str(global.name)));
        }
    }
    refuse_astray(path, &astray)
}

fn refuse_astray(path: &Path, astray: &[String]) -> Outcome<()> {
    if astray.is_empty() {
        return Ok(());
    }
    let more =
        if astray.len() > SHOWN { format!("\n  and {} more", astray.len() - SHOWN) } else { String::new() };
    let shown = astray.get(..SHOWN).unwrap_or(astray).join("\n  ");
    Err(Failure::new(format!("{}: {shown}{more}", path.display())).help(
        "numbers that are not finite mean that training has diverged; a smaller learning rate may help",
    ))
}

/// What of a tensor is no finite number.
fn not_finite(tensor: &Tensor) -> Option<String> {
    let floats = matches!(tensor.elem(), ElemType::F16 | ElemType::Bf16 | ElemType::F32 | ElemType::F64);
    let values = if floats { tensor.to_f64s()? } else { return None };
    let first = values.iter().position(|v| !v.is_finite())?;
    let count = values.iter().filter(|v| !v.is_finite()).count();
    let value = values.get(first).copied().unwrap_or(f64::NAN);
    Some(format!("holds {count} of {} numbers that are not finite; number {first} is {value}", values.len()))
}

/// The tensors of a `.safetensors` file.
fn tensors(path: &Path) -> Outcome<BTreeMap<String, Given>> {
    let failed = |text: String| Failure::new(format!("{}: {text}", path.display()));
    let bytes = fs::read(path).map_err(|e| failed(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| {
        failed(format!("no safetensors file, or not all of one: {e}"))
            .help("weights are taken from a .safetensors file, or from the .gsir text of a trained network")
    })?;
    let given = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let dims: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        let ty = format!("{:?}{dims:?}", view.dtype());
        let literal = elem_of(view.dtype()).map(|elem| Literal::new(elem, dims, view.data().to_vec()));
        (name, Given { ty, literal })
    };
    Ok(file.tensors().into_iter().map(given).collect())
}

/// What a network in text holds under those names that are wanted.
fn globals(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Outcome<BTreeMap<String, Given>> {
    let module = files::read(path)?;
    let mut contents = Materializer::new(&module);
    let mut found = BTreeMap::new();
    for (id, global) in module.globals() {
        let name = module.str(global.name);
        // What is derived follows from the others.
        if !wanted(name) || matches!(global.init, Init::Derived(_)) {
            continue;
        }
        let literal = contents.tensor(id)?.literal();
        found.insert(
            name.to_owned(),
            Given { ty: type_text(&module, module.ty(global.ty)), literal: Some(literal) },
        );
    }
    Ok(found)
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

/// What is learned or observed and follows from nothing that is given.
fn missing(module: &Module, given: &BTreeMap<String, Given>) -> Vec<String> {
    let mut pending = directly(module);
    let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = pending.pop() {
        let global = module.global(id);
        let name = module.str(global.name);
        if !seen.insert(id) || given.contains_key(name) {
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
